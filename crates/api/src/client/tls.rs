//! TLS of clients: the authorities that they trust and the certificates that they show.

mod identity;
mod named_server;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::ClientBuilder;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem};
use rustls::{ClientConfig, RootCertStore};

use identity::Identity;
use named_server::NamedServer;

const CA_FILE: &str = "DIVVY_CA_FILE";
const SERVER_NAME: &str = "DIVVY_TLS_SERVER_NAME";
const CERT: &str = "DIVVY_CLIENT_CERT";
const KEY: &str = "DIVVY_CLIENT_KEY";
const CERT_AND_KEY: &str = "DIVVY_CLIENT_CERT with DIVVY_CLIENT_KEY";

/// The variables that [`ClientTls::from_env`] reads, each with its meaning.
pub const VARIABLES: [(&str, &str); 4] = [
    (CA_FILE, "a PEM file of certificate authorities to trust beside those of the system. Default: none."),
    (SERVER_NAME, "the name that a server's certificate must have instead of the URL's. Default: none."),
    (CERT, "a PEM file of the certificate chain to show to servers that ask for one. Default: none."),
    (KEY, "a PEM file of the key of DIVVY_CLIENT_CERT."),
];

/// Settings of requests to `https://` URLs, beside the authorities of the system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// A PEM file of additional certificate authorities to trust.
    pub ca_file: Option<PathBuf>,
    /// PEM files of a certificate chain and its key, for servers that ask for one. They are read again when they change.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that the certificates of all servers must have, instead of the URL's: for servers whose address is in no
    /// certificate.
    pub server_name: Option<String>,
}

/// A file of TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read or is no PEM file.
    #[error("read {} as PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// The fault of the file.
        source: pem::Error,
    },
    /// The file has no certificate.
    #[error("{} has no certificate", .0.display())]
    NoCertificate(PathBuf),
    /// The file has content that cannot be used.
    #[error("use {}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The fault.
        source: rustls::Error,
    },
    /// The text cannot be the name in a certificate.
    #[error("{0:?} is no name of a server")]
    ServerName(String),
    /// A variable names a file or a server that cannot be used.
    #[error("{0} cannot be used")]
    Variable(&'static str, #[source] Box<TlsError>),
    /// Two variables belong together, such as a certificate and its key, and only one of them is set.
    #[error("set both {0} and {1}, or neither")]
    HalfSet(&'static str, &'static str),
}

impl ClientTls {
    /// Reads `DIVVY_CA_FILE`, `DIVVY_TLS_SERVER_NAME`, `DIVVY_CLIENT_CERT` and `DIVVY_CLIENT_KEY`, each of which may be
    /// absent or empty.
    ///
    /// # Errors
    /// Only one of the last two variables is set, or a variable names a file or a server that cannot be used: the error names the
    /// variable.
    pub fn from_env() -> Result<Self, TlsError> {
        let tls = Self::named_by_env()?;
        let of = |variable| move |error| TlsError::Variable(variable, Box::new(error));
        if let Some(file) = &tls.ca_file {
            add_roots(&mut RootCertStore::empty(), file).map_err(of(CA_FILE))?;
        }
        if let Some((cert, key)) = &tls.identity {
            Identity::read(cert, key).map_err(of(CERT_AND_KEY))?;
        }
        Ok(tls)
    }

    /// Like [`Self::from_env`], without reading the files.
    ///
    /// # Errors
    /// Only one of the last two variables is set, or no server can have the name.
    pub fn named_by_env() -> Result<Self, TlsError> {
        let path = |name| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        let identity = match (path(CERT), path(KEY)) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(TlsError::HalfSet(CERT, KEY)),
        };
        let server_name = std::env::var(SERVER_NAME).ok().filter(|name| !name.is_empty());
        if let Some(name) = &server_name {
            server_name_of(name).map_err(|error| TlsError::Variable(SERVER_NAME, Box::new(error)))?;
        }
        Ok(Self { ca_file: path(CA_FILE), identity, server_name })
    }

    /// Gives a client its TLS: every client of this program must have it, also one for `http://` alone. The system's authorities
    /// take milliseconds to read; they are left out if `trusts_system` is false.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn apply(&self, builder: ClientBuilder, trusts_system: bool) -> Result<ClientBuilder, TlsError> {
        Ok(builder.tls_backend_preconfigured(self.client_config(trusts_system)?))
    }

    fn client_config(&self, trusts_system: bool) -> Result<ClientConfig, TlsError> {
        let mut roots = RootCertStore::empty();
        if trusts_system {
            let native = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(native.certs);
        }
        if let Some(path) = &self.ca_file {
            add_roots(&mut roots, path)?;
        }
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions");
        let config = match &self.server_name {
            None => config.with_root_certificates(roots),
            Some(name) => config.dangerous().with_custom_certificate_verifier(Arc::new(NamedServer::new(
                name,
                roots,
                self.ca_file.as_deref(),
            )?)),
        };
        match &self.identity {
            None => Ok(config.with_no_client_auth()),
            Some((cert, key)) => Ok(config.with_client_cert_resolver(Arc::new(Identity::read(cert, key)?))),
        }
    }
}

/// A server's name in the form of certificates.
///
/// # Errors
/// The text cannot be such a name.
pub fn server_name_of(text: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(text.to_owned()).map_err(|_| TlsError::ServerName(text.to_owned()))
}

/// The cryptography of every TLS connection.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Adds the authorities of a PEM file.
///
/// # Errors
/// The file cannot be read, has no certificate, or has one that cannot be used.
pub fn add_roots(roots: &mut RootCertStore, path: &Path) -> Result<(), TlsError> {
    for certificate in read_certificates(path)? {
        roots.add(certificate).map_err(|source| TlsError::Unusable { path: path.to_owned(), source })?;
    }
    Ok(())
}

/// The certificates of a PEM file, at least one.
///
/// # Errors
/// The file cannot be read or has no certificate.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |source| TlsError::Pem { path: path.to_owned(), source };
    let certificates = CertificateDer::pem_file_iter(path).map_err(unreadable)?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    if certificates.is_empty() { Err(TlsError::NoCertificate(path.to_owned())) } else { Ok(certificates) }
}

/// The private key of a PEM file.
///
/// # Errors
/// The file cannot be read or has no key.
pub fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::Pem { path: path.to_owned(), source })
}
