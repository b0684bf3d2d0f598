//! STARTTLS: policies, client certificates, key changes, and the GnuTLS of real clients.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use farseal::nbd::server::Config;
use farseal::nbd::tls::{TlsMode, server_config};
use farseal::nbd::wire::{cmd, opt, rep};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use crate::client::{Client, Message, request};
use crate::memory::{Memory, await_counter, serve, serve_with};
use crate::real::{client, image, succeed};

const MIB: usize = 1 << 20;

/// An authority, a server and a client, in the files that QEMU and libnbd look for.
struct Identities {
    directory: TempDir,
}

impl Identities {
    fn new(server_usage: &[KeyUsagePurpose]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let write = |name: &str, pem: String| fs::write(directory.path().join(name), pem).unwrap();
        write("ca-cert.pem", authority.pem());
        for (name, purpose) in
            [("server", ExtendedKeyUsagePurpose::ServerAuth), ("client", ExtendedKeyUsagePurpose::ClientAuth)]
        {
            let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
            let mut params = CertificateParams::new(names).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![purpose];
            params.key_usages = server_usage.to_vec();
            let key = KeyPair::generate().unwrap();
            write(&format!("{name}-cert.pem"), params.signed_by(&key, &authority).unwrap().pem());
            write(&format!("{name}-key.pem"), key.serialize_pem());
        }
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path().join(name)).unwrap()
    }

    fn server(&self, verify_clients: bool) -> Arc<rustls::ServerConfig> {
        let authority = self.read("ca-cert.pem");
        let authorities = verify_clients.then_some(&authority[..]);
        server_config(&self.read("server-cert.pem"), &self.read("server-key.pem"), authorities).unwrap()
    }

    fn client(&self, with_certificate: bool) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&self.read("ca-cert.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        Arc::new(if with_certificate {
            let chain = vec![CertificateDer::from_pem_slice(&self.read("client-cert.pem")).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(&self.read("client-key.pem")).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        } else {
            builder.with_no_client_auth()
        })
    }
}

type Secured = Client<StreamOwned<ClientConnection, TcpStream>>;

fn secure(mut plain: Client<TcpStream>, config: &Arc<ClientConfig>) -> std::io::Result<Secured> {
    assert_eq!(plain.option(opt::STARTTLS, &[])[0].0, rep::ACK);
    let connection = ClientConnection::new(Arc::clone(config), "localhost".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(connection, plain.stream);
    stream.flush()?;
    Ok(Client { stream })
}

fn both_usages() -> [KeyUsagePurpose; 2] {
    [KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment]
}

fn write_and_read<S: Read + Write>(client: &mut Client<S>) {
    client.go("disk");
    let data = image(MIB);
    assert_eq!(client.call(request(cmd::WRITE, 0, 13, 1 << 20), &data), 0);
    assert_eq!(client.call(request(cmd::READ, 0, 13, 1 << 20), &[]), 0);
    assert!(client.bytes(1 << 20) == data);
}

#[test]
fn allowed_tls_serves_both_kinds_and_required_only_one() {
    let identities = Identities::new(&both_usages());
    let (server, address, _) = serve(Memory::new(4 * MIB), TlsMode::Allowed(identities.server(false)));
    write_and_read(&mut secure(Client::connect(address), &identities.client(false)).unwrap());
    write_and_read(&mut Client::connect(address));
    await_counter(&server, "tls_sessions", 1);

    let (_server, address, _) = serve(Memory::new(4 * MIB), TlsMode::Required(identities.server(false)));
    let mut plain = Client::connect(address);
    assert_eq!(plain.option(opt::LIST, &[])[0].0, rep::ERR_TLS_REQD);
    write_and_read(&mut secure(plain, &identities.client(false)).unwrap());
    let mut plain = Client::connect(address);
    plain.send_option(opt::EXPORT_NAME, b"disk");
    assert!(plain.is_closed());
}

#[test]
fn a_client_without_the_demanded_certificate_gets_no_export() {
    let identities = Identities::new(&both_usages());
    let (server, address, _) = serve(Memory::new(4 * MIB), TlsMode::Required(identities.server(true)));
    write_and_read(&mut secure(Client::connect(address), &identities.client(true)).unwrap());
    let stranger = Identities::new(&both_usages());
    let mut mixed = (*identities.client(false)).clone();
    mixed.client_auth_cert_resolver = Arc::clone(&stranger.client(true).client_auth_cert_resolver);
    for (case, config) in [("none", identities.client(false)), ("a stranger's", Arc::new(mixed))] {
        // In TLS 1.3 the client learns of the refusal with its first read.
        let refused =
            secure(Client::connect(address), &config).map(|mut client| client.stream.read_exact(&mut [0]).is_err());
        assert!(refused.unwrap_or(true), "{case}");
    }
    await_counter(&server, "tls_failed", 2);
}

#[test]
fn bytes_injected_before_tls_are_never_taken_for_its_own() {
    let identities = Identities::new(&both_usages());
    let memory = Memory::new(4 * MIB);
    let (server, address, _) = serve(memory.clone(), TlsMode::Allowed(identities.server(false)));
    let mut plain = Client::connect(address);
    plain.send_option(opt::STARTTLS, &[]);
    plain.send_option(opt::EXPORT_NAME, b"disk");
    await_counter(&server, "tls_failed", 1);
    await_counter(&server, "connections_open", 0);
    assert_eq!(memory.submitted(), 0);
}

#[test]
fn many_requests_in_flight_survive_tls() {
    let identities = Identities::new(&both_usages());
    let memory = Memory::new(16 * MIB);
    let (_server, address, _) = serve(memory.clone(), TlsMode::Required(identities.server(false)));
    let mut client = secure(Client::connect(address), &identities.client(false)).unwrap();
    client.go("disk");
    let data = image(128 * 1024);
    for index in 0..100 {
        client.send(request(cmd::WRITE, 0, index * (128 << 10), 128 << 10), &data);
    }
    for _ in 0..100 {
        assert!(matches!(client.receive(), Message::Simple(_, 0)));
    }
    assert!(memory.contents()[..100 * 128 * 1024].chunks(data.len()).all(|chunk| chunk == data));
}

#[test]
fn keys_change_at_quiet_moments() {
    let identities = Identities::new(&both_usages());
    let config = Config { rekey_records: 8, ..Config::default() };
    let mode = TlsMode::Required(identities.server(false));
    let (server, address, _) = serve_with(Memory::new(4 * MIB), mode, config);
    let mut client = secure(Client::connect(address), &identities.client(false)).unwrap();
    client.go("disk");
    for round in 1..=5 {
        // A reply of 64 records; the next request is sent once the keys have changed.
        assert_eq!(client.call(request(cmd::READ, 0, 0, 1 << 20), &[]), 0);
        assert!(client.bytes(1 << 20) == vec![0; MIB]);
        await_counter(&server, "rekeys", round);
    }
}

#[test]
fn qemu_and_libnbd_speak_tls() {
    for (case, usage) in [("both usages", &both_usages()[..]), ("no keyUsage", &[])] {
        let identities = Identities::new(usage);
        let memory = Memory::new(16 * MIB);
        let (server, address, _) = serve(memory.clone(), TlsMode::Required(identities.server(true)));
        let expected = image(16 * MIB);
        let path = identities.path().join("image");
        fs::write(&path, &expected).unwrap();
        if let Some(mut qemu_img) = client("qemu-img") {
            qemu_img.args(["convert", "-n", "-W", "-m", "16", "-f", "raw"]).args(qemu_tls(&identities));
            succeed(qemu_img.arg("--target-image-opts").arg(&path).arg(qemu_target(address)));
            assert!(memory.contents() == expected, "{case}");
        }
        if let Some(mut nbdinfo) = client("nbdinfo") {
            let told = succeed(nbdinfo.args(["--json", &libnbd_uri(address, &identities)]));
            assert!(told.contains(r#""TLS": true"#), "{case}: {told}");
            let refused = client("nbdinfo").unwrap().arg(format!("nbd://{address}/disk")).output().unwrap();
            assert!(!refused.status.success(), "{case}: TLS is required");
        }
        if let Some(mut nbdcopy) = client("nbdcopy") {
            let back = identities.path().join("back");
            succeed(nbdcopy.arg(libnbd_uri(address, &identities)).arg(&back));
            assert!(fs::read(back).unwrap() == memory.contents(), "{case}");
        }
        await_counter(&server, "protocol_violations", 0);
    }
}

#[test]
fn gnutls_bears_key_changes_at_quiet_moments() {
    let Some(mut qemu_io) = client("qemu-io") else {
        return;
    };
    let identities = Identities::new(&both_usages());
    let config = Config { rekey_records: 64, ..Config::default() };
    let mode = TlsMode::Required(identities.server(true));
    let (server, address, _) = serve_with(Memory::new(4 * MIB), mode, config);
    let mut script = Vec::new();
    for command in ["write -P 1 0 4M", "read -P 1 0 2M", "write -P 2 0 4M", "read -P 2 0 2M", "flush"] {
        script.extend(["-c", command]);
    }
    let told = succeed(qemu_io.args(qemu_tls(&identities)).args(script).args(["--image-opts", &qemu_target(address)]));
    assert!(!told.contains("failed"), "{told}");
    let changed = server.counters().rekeys.load(std::sync::atomic::Ordering::Relaxed);
    assert!((1..=8).contains(&changed), "{changed} key changes");
}

fn qemu_tls(identities: &Identities) -> [String; 2] {
    let directory = identities.path().display();
    ["--object".to_owned(), format!("tls-creds-x509,id=tls,endpoint=client,dir={directory}")]
}

fn qemu_target(address: SocketAddr) -> String {
    format!("driver=nbd,host={},port={},export=disk,tls-creds=tls,tls-hostname=localhost", address.ip(), address.port())
}

fn libnbd_uri(address: SocketAddr, identities: &Identities) -> String {
    format!("nbds://localhost:{}/disk?tls-certificates={}", address.port(), identities.path().display())
}
