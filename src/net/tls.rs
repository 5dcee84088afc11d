//! TLS as a host wants it: trusted authorities, a certificate of ours. Knows no HTTP.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

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
    /// Makes the TLS settings. Reads the files.
    ///
    /// # Errors
    /// When a file cannot be read, or holds no certificate or key.
    pub(crate) fn tls(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let verifier = Verifier {
            provider,
            trusted: (!self.is_blind).then(|| self.own()).transpose()?,
            checks: OnceLock::new(),
        };
        let builder = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
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

    /// Returns the authorities of the file.
    fn own(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
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

/// Checks the certificates of servers. Reads the system's authorities when the first one is to be checked: that takes
/// longer than to ask a registry on loopback, and who speaks plain HTTP needs none.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// The authorities besides the system's; `None` where the user said `insecure`: any certificate is taken then, but
    /// signatures of the handshake are checked all the same.
    trusted: Option<RootCertStore>,
    checks: OnceLock<Result<Arc<WebPkiServerVerifier>, VerifierBuilderError>>,
}

impl Verifier {
    /// Makes the checks. A system without authorities is not an error here: no certificate has a known issuer then.
    fn checks(&self, trusted: &RootCertStore) -> Result<&WebPkiServerVerifier, rustls::Error> {
        let checks = self.checks.get_or_init(|| {
            let mut roots = trusted.clone();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            let provider = Arc::clone(&self.provider);
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()
        });
        match checks {
            Ok(checks) => Ok(checks),
            Err(_) => Err(CertificateError::UnknownIssuer.into()),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.trusted {
            None => Ok(ServerCertVerified::assertion()),
            Some(trusted) => {
                self.checks(trusted)?
                    .verify_server_cert(certificate, chain, name, ocsp, now)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
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
