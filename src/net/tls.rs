//! TLS as a host wants it: trusted authorities, a certificate of ours. Knows no HTTP.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Whom a host's connections trust, and what they show: hosts that agree in it share connections.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Trust {
    /// Certificates are not checked.
    pub(crate) is_blind: bool,
    /// A file of authorities besides the system's.
    pub(crate) ca: Option<PathBuf>,
    /// A file with our certificate.
    pub(crate) client_cert: Option<PathBuf>,
    /// A file with its key.
    pub(crate) client_key: Option<PathBuf>,
}

impl Trust {
    /// Makes the TLS settings. Reads the files, and the system's authorities.
    ///
    /// # Errors
    /// When a file cannot be read, or holds no certificate or key.
    pub(crate) fn tls(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = if self.is_blind {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Blind(provider)))
        } else {
            builder.with_root_certificates(self.roots()?)
        };
        let Some(path) = &self.client_cert else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = certificates(path)?;
        // One file may hold both.
        let key = self.client_key.as_ref().unwrap_or(path);
        let secret = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| format!("cannot read a key from {}: {error}", key.display()))?;
        builder
            .with_client_auth_cert(chain, secret)
            .map_err(|error| format!("cannot use the certificate {}: {error}", path.display()))
    }

    /// Returns the trusted authorities. A system that has none is not an error here: some other may be trusted, and a
    /// connection says what it misses.
    fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = &self.ca {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| {
                    format!(
                        "cannot use a certificate authority of {}: {error}",
                        path.display()
                    )
                })?;
            }
        }
        Ok(roots)
    }
}

/// Reads the certificates of a PEM file.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let fail = |error: &dyn std::fmt::Display| {
        format!("cannot read certificates from {}: {error}", path.display())
    };
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|error| fail(&error))?
        .collect();
    match all {
        Ok(all) if all.is_empty() => Err(fail(&"there are none")),
        Ok(all) => Ok(all),
        Err(error) => Err(fail(&error)),
    }
}

/// Takes any certificate, where the user said `insecure`. Signatures of the handshake are checked all the same.
#[derive(Debug)]
struct Blind(Arc<CryptoProvider>);

impl ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_hold_no_certificate_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let trust = |ca: &Path| Trust {
            ca: Some(ca.to_owned()),
            ..Trust::default()
        };
        let missing = trust(&path).tls().unwrap_err();
        assert!(missing.contains("ca.pem"), "{missing}");
        std::fs::write(&path, "nothing").unwrap();
        let empty = trust(&path).tls().unwrap_err();
        assert!(empty.contains("there are none"), "{empty}");
        assert!(Trust::default().tls().is_ok());
    }
}
