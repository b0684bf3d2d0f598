//! The link's TLS between two in-memory ends: who gets through, and what the others are told.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use farseal::keys::capsule::KemId;
use farseal::keys::card::NodeName;
use farseal::keys::identity::Identity;
use farseal::keys::tls::{ALPN, NotALink, client_config, peer_key, server_config, server_name, wrong_peer};
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::{CipherSuite, ClientConfig, CommonState, NamedGroup, ProtocolVersion, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

fn site(name: &str) -> Identity {
    Identity::generate(NodeName::new(name).unwrap(), KemId::DhP256).unwrap()
}

type Ends = (std::io::Result<client::TlsStream<DuplexStream>>, std::io::Result<server::TlsStream<DuplexStream>>);

/// Both ends of a handshake. A client is done before the server has looked at its certificate, so it then waits for the
/// server's first byte.
async fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>, to: &Identity) -> Ends {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let connect = async {
        let mut stream = TlsConnector::from(client).connect(server_name(to.card()), near).await?;
        let first = stream.read_u8().await?;
        assert_eq!(first, 1);
        Ok(stream)
    };
    let accept = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        stream.write_u8(1).await?;
        stream.flush().await?;
        Ok(stream)
    };
    tokio::join!(connect, accept)
}

#[tokio::test]
async fn two_pinned_sites_connect_with_the_one_suite_and_a_hybrid_group() {
    let (tokyo, osaka) = (site("tokyo"), site("osaka"));
    let client = client_config(&tokyo, osaka.card()).unwrap();
    let server = server_config(&osaka, &[tokyo.card()]).unwrap();
    let (near, far) = handshake(client, server, &osaka).await;
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    let connections: [&CommonState; 2] = [near.get_ref().1, far.get_ref().1];
    for connection in connections {
        assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        let suite = connection.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(suite, CipherSuite::TLS13_AES_256_GCM_SHA384);
        let group = connection.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, NamedGroup::secp256r1MLKEM768);
        assert_eq!(connection.alpn_protocol(), Some(ALPN));
    }
    assert_eq!(peer_key(near.get_ref().1).unwrap(), osaka.card().signing.fingerprint());
    assert_eq!(peer_key(far.get_ref().1).unwrap(), tokyo.card().signing.fingerprint());

    far.write_all(b"record").await.unwrap();
    far.flush().await.unwrap();
    let mut read = [0; 6];
    near.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"record");
}

#[tokio::test]
async fn a_server_with_another_key_is_named_and_refused() {
    let (tokyo, osaka, impostor) = (site("tokyo"), site("osaka"), site("osaka"));
    let client = client_config(&tokyo, osaka.card()).unwrap();
    let server = server_config(&impostor, &[tokyo.card()]).unwrap();
    let (near, far) = handshake(client, server, &osaka).await;
    let error = near.unwrap_err();
    let wrong = wrong_peer(&error).unwrap();
    assert_eq!(wrong.presented, impostor.card().signing.fingerprint());
    let expected = format!(
        "peer presented key {}, pinned is {} (osaka); if the peer was set up anew, compare its card and run `farseal pair osaka`",
        impostor.card().signing.fingerprint(),
        osaka.card().signing.fingerprint(),
    );
    assert_eq!(wrong.to_string(), expected);
    assert!(far.is_err());
}

#[tokio::test]
async fn a_client_with_another_key_is_named_and_refused() {
    let (tokyo, osaka, impostor, kobe) = (site("tokyo"), site("osaka"), site("tokyo"), site("kobe"));
    let client = client_config(&impostor, osaka.card()).unwrap();
    let server = server_config(&osaka, &[tokyo.card(), kobe.card()]).unwrap();
    let (near, far) = handshake(client, server, &osaka).await;
    assert!(near.is_err());
    let error = far.unwrap_err();
    let wrong = wrong_peer(&error).unwrap();
    assert_eq!(wrong.presented, impostor.card().signing.fingerprint());
    assert!(wrong.to_string().contains("(tokyo) or "), "{wrong}");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let (tokyo, osaka) = (site("tokyo"), site("osaka"));
    let mut anonymous = ClientConfig::clone(&client_config(&tokyo, osaka.card()).unwrap());
    anonymous.client_auth_cert_resolver = Arc::new(Anonymous);
    let server = server_config(&osaka, &[tokyo.card()]).unwrap();
    let (near, far) = handshake(Arc::new(anonymous), server, &osaka).await;
    assert!(near.is_err() && far.is_err());
}

#[derive(Debug)]
struct Anonymous;

impl rustls::client::ResolvesClientCert for Anonymous {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_peer_that_offers_only_classical_key_exchange_is_refused() {
    let (tokyo, osaka) = (site("tokyo"), site("osaka"));
    let sound = client_config(&tokyo, osaka.card()).unwrap();
    let own = tokyo.certificate(&[]).unwrap();
    let provider = rustls::crypto::CryptoProvider { kx_groups: vec![kx_group::SECP256R1], ..default_provider() };
    let mut classical = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_client_auth_cert(vec![own.certificate], own.key)
        .unwrap();
    classical.alpn_protocols.clone_from(&sound.alpn_protocols);
    let server = server_config(&osaka, &[tokyo.card()]).unwrap();
    let (near, far) = handshake(Arc::new(classical), server, &osaka).await;
    assert!(near.is_err() && far.is_err());
}

#[tokio::test]
async fn a_peer_that_names_no_protocol_is_no_link() {
    let (tokyo, osaka) = (site("tokyo"), site("osaka"));
    let mut silent = ClientConfig::clone(&client_config(&tokyo, osaka.card()).unwrap());
    silent.alpn_protocols.clear();
    let server = server_config(&osaka, &[tokyo.card()]).unwrap();
    let (near, far) = handshake(Arc::new(silent), server, &osaka).await;
    assert_eq!(peer_key(far.unwrap().get_ref().1), Err(NotALink::Protocol));
    assert!(near.is_ok());
}

#[test]
fn a_server_without_peers_is_no_configuration() {
    assert!(server_config(&site("osaka"), &[]).is_err());
}

/// Believes any certificate, as a tool with its checks switched off would.
#[derive(Debug)]
struct AnyServer;

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
