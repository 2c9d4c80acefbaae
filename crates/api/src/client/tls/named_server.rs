//! Servers whose certificates all have one name, whatever their address is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};

use super::{TlsError, provider, server_name_of};

/// Checks a certificate as usual, but for this name instead of the address.
#[derive(Debug)]
pub(super) struct NamedServer {
    name: ServerName<'static>,
    usual: Arc<WebPkiServerVerifier>,
}

impl NamedServer {
    pub(super) fn new(name: &str, roots: RootCertStore, ca_file: Option<&Path>) -> Result<Self, TlsError> {
        let parsed = server_name_of(name)?;
        let unusable = |error| TlsError::Unusable {
            path: ca_file.map_or_else(|| PathBuf::from("DIVVY_CA_FILE"), Path::to_owned),
            source: Error::Other(OtherError(Arc::new(error))),
        };
        let usual =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().map_err(unusable)?;
        Ok(Self { name: parsed, usual })
    }
}

impl ServerCertVerifier for NamedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.usual.verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}
