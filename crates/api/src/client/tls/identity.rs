//! The certificate that a client shows, read again when its files change: certificates that rotate automatically live for hours.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;

use super::{TlsError, provider, read_certificates, read_key};

/// Modification times of the two files.
type Stamp = (Option<SystemTime>, Option<SystemTime>);

#[derive(Debug)]
pub(super) struct Identity {
    cert: PathBuf,
    key: PathBuf,
    current: Mutex<(Stamp, Arc<CertifiedKey>)>,
}

impl Identity {
    pub(super) fn read(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        // Taken before the files are read, so that a change in between is noticed.
        let stamp = stamp(cert, key);
        let current = Mutex::new((stamp, Arc::new(read(cert, key)?)));
        Ok(Self { cert: cert.to_owned(), key: key.to_owned(), current })
    }
}

impl ResolvesClientCert for Identity {
    /// Called for each handshake with a server that asks for a certificate.
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = stamp(&self.cert, &self.key);
        if stamp != current.0 {
            // The next handshake reads files that are being written; until then the old identity stays in use.
            if let Ok(certified) = read(&self.cert, &self.key) {
                *current = (stamp, Arc::new(certified));
            }
        }
        Some(Arc::clone(&current.1))
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
