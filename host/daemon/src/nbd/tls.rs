//! Certificates and cipher choice for `NBD_OPT_STARTTLS`.
//!
//! # What third-party clients need
//!
//! QEMU's and libnbd's TLS is GnuTLS:
//!
//! - It drops a connection after more than 8 TLS 1.3 key updates within one second.
//! - A key update that *requests* one in return breaks QEMU's client while it has several large writes in
//!   flight (GnuTLS cannot answer in the middle of sending a record); with nothing in flight it is
//!   tolerated. rustls only sends the requesting kind, and sends it by itself when an AES-GCM key has sealed
//!   2^24 records (64 to 256 GiB sent on one connection). So the session looks for a quiet moment from half
//!   of that on ([`REKEY_RECORDS`](crate::nbd::limits::REKEY_RECORDS)), and changes keys there. An initiator
//!   that is never quiet while it reads 128 GiB keeps the remaining risk; several connections, or reconnecting
//!   between jobs, avoid it.
//! - Its ChaCha20 runs at a tenth of its AES-GCM, so AES-GCM is preferred whatever order the client has.
//! - QEMU refuses a server certificate whose keyUsage lacks keyEncipherment, even for ECDSA, where TLS 1.3
//!   never uses it. Leave keyUsage out or set both bits.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CipherSuite, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::nbd::negotiate::TlsPolicy;

/// What a listener does about TLS.
#[derive(Debug, Clone)]
pub enum TlsMode {
    /// STARTTLS is refused.
    Off,
    /// STARTTLS is at the client's option; a middleman can talk it out of TLS.
    Allowed(Arc<ServerConfig>),
    /// Nothing but STARTTLS works before TLS.
    Required(Arc<ServerConfig>),
}

impl TlsMode {
    pub(crate) fn policy(&self) -> TlsPolicy {
        match self {
            Self::Off => TlsPolicy::Off,
            Self::Allowed(_) => TlsPolicy::Allowed,
            Self::Required(_) => TlsPolicy::Required,
        }
    }

    pub(crate) fn config(&self) -> Option<&Arc<ServerConfig>> {
        match self {
            Self::Off => None,
            Self::Allowed(config) | Self::Required(config) => Some(config),
        }
    }
}

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate chain is not PEM.
    #[error("NBD certificate chain: {0}; it must be PEM, the server's certificate first")]
    Chain(rustls_pki_types::pem::Error),
    /// The key is not PEM.
    #[error("NBD private key: {0}; it must be a PEM private key")]
    Key(rustls_pki_types::pem::Error),
    /// The client authorities are not PEM.
    #[error("NBD client authorities: {0}; they must be PEM certificates")]
    ClientAuthorities(rustls_pki_types::pem::Error),
    /// The client authorities cannot verify anybody.
    #[error("NBD client authorities cannot be used: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// Certificate and key do not fit, or rustls refuses them.
    #[error("NBD certificate or key cannot be used: {0}")]
    Rustls(#[from] rustls::Error),
}

/// Builds the TLS side of a server from PEM: `chain` with the server's certificate first, `key`, and
/// with `client_authorities` a demand for a client certificate signed by one of them.
///
/// # Errors
/// PEM that does not parse, or material that does not fit together.
pub fn server_config(
    chain: &[u8],
    key: &[u8],
    client_authorities: Option<&[u8]>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(chain).map_err(TlsError::Chain)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(TlsError::Key)?;
    let provider = Arc::new(provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match client_authorities {
        None => builder.with_no_client_auth(),
        Some(authorities) => builder.with_client_cert_verifier(verifier(authorities, provider)?),
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.ignore_client_order = true;
    // Connections last for days: resuming one saves nothing.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, rustls_pki_types::pem::Error> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>()?;
    if found.is_empty() { Err(rustls_pki_types::pem::Error::NoItemsFound) } else { Ok(found) }
}

fn verifier(pem: &[u8], provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(pem).map_err(TlsError::ClientAuthorities)? {
        roots.add(authority)?;
    }
    Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?)
}

/// AES-GCM before everything else, the longer key first.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    let rank = |suite: CipherSuite| PREFERRED.iter().position(|preferred| *preferred == suite);
    provider.cipher_suites.sort_by_key(|suite| rank(suite.suite()).unwrap_or(PREFERRED.len()));
    provider
}

const PREFERRED: [CipherSuite; 6] = [
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];
