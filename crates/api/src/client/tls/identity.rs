//! The certificate that a client shows, read again when its files change: certificates that rotate automatically live for hours.

use std::error::Error;
use std::fs;
use std::iter::successors;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use tracing::error;

use super::{TlsError, provider, read_certificates, read_key};

/// Modification times of the two files.
type Stamp = (Option<SystemTime>, Option<SystemTime>);

#[derive(Debug)]
pub(super) struct Identity {
    cert: PathBuf,
    key: PathBuf,
    current: Mutex<Current>,
}

/// The certificate in use.
#[derive(Debug)]
struct Current {
    certified: Arc<CertifiedKey>,
    /// The files from which it was read.
    stamp: Stamp,
    /// The last files that could not be used.
    unusable: Option<Stamp>,
}

impl Identity {
    pub(super) fn read(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        // Taken before the files are read, so that a change in between is noticed.
        let stamp = stamp(cert, key);
        let current = Current { certified: Arc::new(read(cert, key)?), stamp, unusable: None };
        Ok(Self { cert: cert.to_owned(), key: key.to_owned(), current: Mutex::new(current) })
    }

    /// Takes over files that have changed since the last reading. If they cannot be used, the certificate stays in use, and the
    /// next handshake reads them again: they may be half written.
    fn follow(&self, current: &mut Current) {
        let stamp = stamp(&self.cert, &self.key);
        if stamp == current.stamp {
            return;
        }
        match read(&self.cert, &self.key) {
            Ok(certified) => *current = Current { certified: Arc::new(certified), stamp, unusable: None },
            Err(error) => {
                if current.unusable.replace(stamp) != Some(stamp) {
                    complain(&self.cert, &error);
                }
            }
        }
    }
}

impl ResolvesClientCert for Identity {
    /// Called for each handshake with a server that asks for a certificate.
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        self.follow(&mut current);
        Some(Arc::clone(&current.certified))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn stamp(cert: &Path, key: &Path) -> Stamp {
    let written_at = |path| fs::metadata(path).ok()?.modified().ok();
    (written_at(cert), written_at(key))
}

fn read(cert: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let chain = read_certificates(cert)?;
    let unusable = |source| TlsError::Unusable { path: cert.to_owned(), source };
    CertifiedKey::from_der(chain, read_key(key)?, &provider()).map_err(unusable)
}

fn complain(cert: &Path, error: &TlsError) {
    let error: &(dyn Error + 'static) = error;
    let causes = successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source()).map(ToString::to_string);
    let (cert, error) = (cert.display(), causes.collect::<Vec<_>>().join(": "));
    error!(%cert, error, "the files of a client certificate cannot be used: the ones read before stay in use");
}
