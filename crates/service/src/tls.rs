//! TLS of a listener. Its files are read again when they change; open connections keep the settings of their start.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context;
use api::client::tls::{add_roots, provider, read_certificates, read_key};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use tracing::{error, info};

use crate::reload::{Stamps, watch};

/// The PEM files of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, the listener's own first.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authority of the certificates that clients must show: mutual TLS.
    pub client_ca: Option<PathBuf>,
}

/// The TLS of a listener.
#[derive(Clone, Debug)]
pub(crate) struct Tls(Arc<Settings>);

#[derive(Debug)]
struct Settings {
    files: TlsFiles,
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files, and again when one of them changes. If the new files cannot be used, the old settings stay.
    pub(crate) fn from_files(files: TlsFiles) -> anyhow::Result<Self> {
        let paths = [Some(&files.cert), Some(&files.key), files.client_ca.as_ref()];
        let stamps = Stamps::of(paths.into_iter().flatten().cloned());
        let config = RwLock::new(read(&files)?);
        let settings = Arc::new(Settings { files, config });
        watch(stamps, Arc::downgrade(&settings), Settings::reload, Settings::complain)
            .context("start the thread that reads TLS again")?;
        Ok(Self(settings))
    }

    pub(crate) fn demands_certificate(&self) -> bool {
        self.0.files.client_ca.is_some()
    }

    /// An acceptor for new connections, with the present settings.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.0.config.read().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

impl Settings {
    /// Fails if the certificate is written a moment before its key: the next check takes both.
    fn reload(&self) -> anyhow::Result<()> {
        let config = read(&self.files)?;
        info!(cert = %self.files.cert.display(), "TLS was read again");
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    fn complain(&self, error: &str) {
        let cert = self.files.cert.display();
        error!(%cert, error, "the files of TLS cannot be used: the ones read before stay in use");
    }
}

fn read(files: &TlsFiles) -> anyhow::Result<Arc<ServerConfig>> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            add_roots(&mut roots, path).context("DIVVY_TLS_CLIENT_CA cannot be used")?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            // Kubernetes' probes have no certificate: other requests without one are refused when their path is known.
            builder.with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
        }
    };
    let chain = read_certificates(&files.cert).context("DIVVY_TLS_CERT cannot be used")?;
    let key = read_key(&files.key).context("DIVVY_TLS_KEY cannot be used")?;
    let mut config = builder.with_single_cert(chain, key).with_context(|| {
        format!("use {} (DIVVY_TLS_CERT) with {} (DIVVY_TLS_KEY)", files.cert.display(), files.key.display())
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
