//! The link between two sites: TLS 1.3, each end pinned to the other's signing key, and nothing to fall back to.
//!
//! Cipher suite: TLS13_AES_256_GCM_SHA384. Key exchange: secp256r1MLKEM768, then X25519MLKEM768, and no classical group,
//! so that traffic recorded today stays closed to a quantum computer; a peer without them does not connect. No session
//! tickets, no early data, no SNI. Certificates carry keys and nothing else: dates, names and issuers are not looked at.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::{
    CertificateError as TlsCertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName,
    Error, OtherError, PeerIncompatible, ServerConfig, SignatureScheme, version,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::card::{NodeName, PeerCard, spki_fingerprint};
use super::fingerprint::Fingerprint;
use super::identity::{CertificateError, Identity};

/// The protocol that both ends name in the handshake.
pub const ALPN: &[u8] = b"farseal/1";
/// The same, and TLS is left after the hellos: see [`crate::link::san`].
pub const ALPN_SAN: &[u8] = b"farseal-san/1";

/// What a pair's records cross.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LinkMode {
    /// Anything: all of it inside TLS.
    #[default]
    Tls,
    /// A trusted fabric: the handshake is TLS's, and afterwards what a data key sealed goes as it is.
    San,
}

impl LinkMode {
    fn protocol(self) -> &'static [u8] {
        match self {
            Self::Tls => ALPN,
            Self::San => ALPN_SAN,
        }
    }
}

impl fmt::Display for LinkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls => "tls",
            Self::San => "san",
        })
    }
}

/// Why no configuration was made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// rustls refused it.
    #[error("the TLS configuration is refused: {0}")]
    Config(#[from] Error),
    /// There is no one to accept.
    #[error("no peer is pinned; run `farseal pair` with the card of the other site")]
    NoPeer,
}

/// The peer holds another key than the pinned one. Found inside the error of a failed handshake by
/// [`wrong_peer`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "peer presented key {presented}, pinned is {}; if the peer was set up anew, compare its card and run `farseal pair {}`",
    Pins(pinned), pinned.first().map_or("", |pin| pin.node.as_str())
)]
pub struct WrongPeer {
    /// The key that the peer presented.
    pub presented: Fingerprint,
    /// The keys that would have been accepted.
    pub pinned: Vec<Pin>,
}

/// A peer's signing key, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The peer's name.
    pub node: NodeName,
    /// Its signing key.
    pub key: Fingerprint,
    spki: Vec<u8>,
}

impl Pin {
    fn of(card: &PeerCard) -> Self {
        Self { node: card.node.clone(), key: card.signing.fingerprint(), spki: card.signing.spki().to_vec() }
    }
}

struct Pins<'a>(&'a [Pin]);

impl fmt::Display for Pins<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, pin) in self.0.iter().enumerate() {
            let joint = if at == 0 { "" } else { " or " };
            write!(f, "{joint}{} ({})", pin.key, pin.node)?;
        }
        Ok(())
    }
}

/// Why a completed handshake is no link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotALink {
    /// No protocol, or another.
    #[error("the peer does not speak farseal/1 on this connection")]
    Protocol,
    /// No key was presented.
    #[error("the peer presented no certificate")]
    NoCertificate,
}

/// The configuration for connecting to `peer`, and to no one else.
///
/// # Errors
/// [`TlsError`].
pub fn client_config(identity: &Identity, peer: &PeerCard) -> Result<Arc<ClientConfig>, TlsError> {
    link_client_config(identity, peer, LinkMode::Tls)
}

/// The configuration for a path of a pair to `peer`, and to no one else.
///
/// # Errors
/// [`TlsError`].
pub fn link_client_config(identity: &Identity, peer: &PeerCard, mode: LinkMode) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(provider());
    let pinned =
        Arc::new(PinnedKeys { pins: vec![Pin::of(peer)], algorithms: provider.signature_verification_algorithms });
    let own = identity.certificate(&[])?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(pinned)
        .with_client_auth_cert(vec![own.certificate], own.key)?;
    config.alpn_protocols = vec![mode.protocol().to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// The configuration for being connected to by any of `peers`, and by no one else.
///
/// # Errors
/// [`TlsError`].
pub fn server_config(identity: &Identity, peers: &[&PeerCard]) -> Result<Arc<ServerConfig>, TlsError> {
    accepting(identity, peers, &[LinkMode::Tls])
}

/// The same for paths of pairs: which link it is is the pair's to refuse, once it is known which one.
///
/// # Errors
/// [`TlsError`].
pub fn link_server_config(identity: &Identity, peers: &[&PeerCard]) -> Result<Arc<ServerConfig>, TlsError> {
    accepting(identity, peers, &[LinkMode::Tls, LinkMode::San])
}

fn accepting(identity: &Identity, peers: &[&PeerCard], modes: &[LinkMode]) -> Result<Arc<ServerConfig>, TlsError> {
    if peers.is_empty() {
        return Err(TlsError::NoPeer);
    }
    let provider = Arc::new(provider());
    let pins = peers.iter().map(|card| Pin::of(card)).collect();
    let pinned = Arc::new(PinnedKeys { pins, algorithms: provider.signature_verification_algorithms });
    let own = identity.certificate(&[])?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(pinned)
        .with_single_cert(vec![own.certificate], own.key)?;
    config.alpn_protocols = modes.iter().map(|mode| mode.protocol().to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// A server name to hand to rustls, which wants one; it is neither sent nor checked.
#[must_use]
pub fn server_name(peer: &PeerCard) -> ServerName<'static> {
    // A node name is a DNS label; should it ever not be, any name does.
    ServerName::try_from(peer.node.as_str().to_owned()).unwrap_or(ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into()))
}

/// The peer of a completed handshake: which of the pinned keys it holds. To be asked before a byte is believed: only
/// this refuses a peer that named no protocol.
///
/// # Errors
/// [`NotALink`].
pub fn peer_key(connection: &CommonState) -> Result<Fingerprint, NotALink> {
    match link_peer(connection)? {
        (key, LinkMode::Tls) => Ok(key),
        (_, LinkMode::San) => Err(NotALink::Protocol),
    }
}

/// The same of a path, and what link it is to be.
///
/// # Errors
/// [`NotALink`].
pub fn link_peer(connection: &CommonState) -> Result<(Fingerprint, LinkMode), NotALink> {
    let modes = [LinkMode::Tls, LinkMode::San];
    let mode = modes.into_iter().find(|mode| connection.alpn_protocol() == Some(mode.protocol()));
    let mode = mode.ok_or(NotALink::Protocol)?;
    let first = connection.peer_certificates().and_then(<[_]>::first).ok_or(NotALink::NoCertificate)?;
    let spki = presented_spki(first).map_err(|_| NotALink::NoCertificate)?;
    Ok((spki_fingerprint(&spki), mode))
}

/// The reason of a failed handshake, if it is that the peer holds another key than the pinned one. Takes what rustls
/// and tokio-rustls return, wrapped in an [`std::io::Error`] or not.
#[must_use]
pub fn wrong_peer<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a WrongPeer> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<WrongPeer>() {
            return Some(found);
        }
        // An io::Error hides the error that it wraps from `source` and shows that one's source instead.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = wrapped.and_then(|inner| inner.downcast_ref::<Error>()).or_else(|| error.downcast_ref::<Error>());
        if let Some(Error::InvalidCertificate(TlsCertificateError::Other(OtherError(inner)))) = tls {
            return inner.downcast_ref::<WrongPeer>();
        }
        next = wrapped.map_or_else(|| error.source(), |inner| inner.source());
    }
    None
}

/// One suite, two key exchanges.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_256_GCM_SHA384],
        kx_groups: vec![kx_group::SECP256R1MLKEM768, kx_group::X25519MLKEM768],
        ..default_provider()
    }
}

/// Accepts a certificate if, and only if, its key is one of these.
#[derive(Debug)]
struct PinnedKeys {
    pins: Vec<Pin>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PinnedKeys {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let spki = presented_spki(certificate)?;
        if self.pins.iter().any(|pin| pin.spki == spki) {
            return Ok(());
        }
        let wrong = WrongPeer { presented: spki_fingerprint(&spki), pinned: self.pins.clone() };
        Err(Error::InvalidCertificate(TlsCertificateError::Other(OtherError(Arc::new(wrong)))))
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if signed.scheme != SignatureScheme::ECDSA_NISTP256_SHA256 {
            return Err(Error::PeerIncompatible(PeerIncompatible::NoSignatureSchemesInCommon));
        }
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }
}

fn presented_spki(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, Error> {
    Ok(ParsedCertificate::try_from(certificate)?.subject_public_key_info().to_vec())
}

const NO_TLS_12: Error = Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled);

impl ServerCertVerifier for PinnedKeys {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(NO_TLS_12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

impl ClientCertVerifier for PinnedKeys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(NO_TLS_12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
