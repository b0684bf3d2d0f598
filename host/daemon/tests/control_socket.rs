//! The control socket, over a real Unix socket, with a node that only remembers what it was told.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farseal::control::api::*;
use farseal::control::client::{Client, ClientError};
use farseal::control::operator::{BoxFuture, CommandError, Operator};
use farseal::control::scrapes::Bounds;
use farseal::control::server::{self, BODY_BYTES_MAX, BindError};
use farseal_core::rotation::How;
use farseal_core::units::{ByteLen, Epoch, Generation, Millis, WallTime};
use farseal_plugin::Digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

#[derive(Default)]
struct Fake {
    told: Mutex<Vec<(String, PairCommand)>>,
    /// `pause` waits for it.
    gate: Notify,
    entered: Notify,
    ended: Notify,
}

impl Operator for Fake {
    fn status(&self) -> NodeStatus {
        NodeStatus {
            node: "main".into(),
            version: "0.1.0".into(),
            fingerprint: "0123-4567-89ab-cdef-0123-4567-89ab-cdef".into(),
            now: WallTime(1_700_000_000_000),
            uptime: Millis(61_000),
            keys_in_swap: Some(KeysInSwap::Locked),
            pairs: vec![pair()],
            site: None,
        }
    }

    fn command(&self, pair: &str, command: PairCommand) -> BoxFuture<'_, Result<CommandReply, CommandError>> {
        let pair = pair.to_owned();
        Box::pin(async move {
            if pair != "vault-1" {
                return Err(CommandError::NoSuchPair { pair });
            }
            self.told.lock().unwrap().push((pair.clone(), command.clone()));
            match &command {
                PairCommand::Pause(Pause { wait: true, .. }) => {
                    self.entered.notify_one();
                    self.gate.notified().await;
                    self.ended.notify_one();
                    Ok(CommandReply::new("paused"))
                }
                PairCommand::Resume => Err(CommandError::WrongState {
                    pair,
                    command: "resume",
                    state: "copying".into(),
                    would: Some("farseal pause vault-1".into()),
                }),
                PairCommand::Scrub => {
                    Err(CommandError::OtherSide { pair, command: "scrub", needs: Role::Secondary, is: Role::Primary })
                }
                PairCommand::Rotate(_)
                | PairCommand::SetMode(_)
                | PairCommand::SetTransfer(_)
                | PairCommand::Throttle(_)
                | PairCommand::AddPreset(_)
                | PairCommand::RemovePreset(_)
                | PairCommand::Suspect(_)
                | PairCommand::Pause(_)
                | PairCommand::Rejoin
                | PairCommand::SwapSides(_)
                | PairCommand::TakeBack
                | PairCommand::Declare
                | PairCommand::Branch(_)
                | PairCommand::TakeOver(_)
                | PairCommand::CopyAll
                | PairCommand::Verify(_)
                | PairCommand::Seed(_)
                | PairCommand::Escrow(_)
                | PairCommand::Plugin(_)
                | PairCommand::Key(_)
                | PairCommand::Recover(_)
                | PairCommand::Swap(_) => Ok(CommandReply::new(command.name())),
            }
        })
    }

    fn group(&self, group: &str, command: GroupCommand) -> BoxFuture<'_, Result<CommandReply, CommandError>> {
        let reply = CommandReply::new(format!("{group}: {command:?}"));
        Box::pin(async move { Ok(reply) })
    }

    fn site(&self) -> BoxFuture<'_, Result<SiteView, CommandError>> {
        Box::pin(async { Err(CommandError::Failed { reason: "there is no lead".into(), next: None }) })
    }

    fn escrow(&self) -> Result<EscrowView, CommandError> {
        Err(CommandError::Refused { reason: "this node is no escrow site".into(), next: None })
    }

    fn escrow_answer(&self, answer: EscrowAnswer) -> Result<CommandReply, CommandError> {
        Ok(CommandReply::new(format!("{}: {}", answer.request, answer.approve)))
    }

    fn plugins(&self) -> Vec<PluginStatus> {
        pair().plugins
    }

    fn metrics(&self, out: &mut String) {
        out.push_str("farseal_fake 1\n");
    }
}

fn pair() -> PairStatus {
    PairStatus {
        name: "vault-1".into(),
        id: "00112233445566778899aabbccddeeff".into(),
        role: Role::Primary,
        peer: "remote".into(),
        volume: "vault".into(),
        range: Some("0..10GiB".into()),
        size: ByteLen(10 << 30),
        state: PairState::LinkDown { since: Millis(12_000) },
        mode: Mode::Async,
        mode_kept: true,
        ordered: true,
        encrypted: true,
        generation: Generation(1),
        paths_up: 0,
        paths: 1,
        marks: Marks::default(),
        lag: Lag { records: 3, bytes: ByteLen(12_288), time: Some(Millis(11_500)) },
        journal: Some(JournalUse { used: ByteLen(1 << 20), max: ByteLen(4 << 30) }),
        flow: Some(FlowStatus::default()),
        key: Some(KeyStatus {
            epoch: Epoch(987_654),
            age: Some(Millis(123_456)),
            sealed: ByteLen(77_777_777),
            next: Some(NextRotation { by: RotationWord::Policy, wait: Some(Millis(5)), step: None }),
            held: None,
        }),
        plugins: vec![PluginStatus {
            pair: "vault-1".into(),
            slot: PluginSlot::Cipher,
            name: "aes-256-gcm".into(),
            version: "0.1.0".into(),
            digest: Digest([1; 32]),
            grants: vec![],
            standing: PluginStanding::InForce,
            faults: 0,
            last_fault: None,
            stood_in: 0,
            last_stood_in: None,
        }],
        last_error: Some(LastError { at: WallTime(1_699_999_988_000), message: "the link is lost".into(), next: None }),
        history: None,
        verify: None,
        escrow: None,
        seed: None,
        points: None,
        arrived: None,
    }
}

struct Running {
    _folder: tempfile::TempDir,
    socket: PathBuf,
    fake: Arc<Fake>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<()>>,
}

fn running() -> Running {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let listener = server::bind(&socket).unwrap();
    let fake = Arc::new(Fake::default());
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(server::serve(listener, fake.clone(), async {
        let _ = stopped.await;
    }));
    Running { _folder: folder, socket, fake, stop, served }
}

/// A request as bytes, the reply as text.
async fn raw(socket: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    format!("{}\n{body}", head.lines().next().unwrap())
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn what_the_node_says_arrives_unchanged() {
    let node = running();
    let client = Client::new(&node.socket);
    assert_eq!(client.status().await.unwrap(), node.fake.status());
    assert_eq!(client.plugins().await.unwrap(), node.fake.plugins());
}

#[tokio::test]
async fn every_command_arrives_unchanged() {
    let node = running();
    let client = Client::new(&node.socket);
    let commands = [
        PairCommand::Rotate(Rotate {
            how: Some(How::Pause),
            reason: Some("drill \"7\"".into()),
            force: true,
            suspect: false,
        }),
        PairCommand::Rotate(Rotate::default()),
        PairCommand::Suspect(Suspect { epoch: Epoch(4) }),
        PairCommand::Pause(Pause { wait: false, by: Some("backup".into()), span: Some(Millis(60_000)), alone: true }),
        PairCommand::SetMode(SetMode { mode: Mode::SyncFlush }),
        PairCommand::SetTransfer(SetTransfer { transfer: farseal_core::flow::Transfer::Scheduled, paths: Some(3) }),
        PairCommand::Throttle(Throttle { link: Some(SetRate::None), ..Throttle::default() }),
        PairCommand::AddPreset(AddPreset {
            name: "night".into(),
            preset: farseal_core::preset::Preset::TimeOfDay { pause: 120, resume: 360, days: [true; 7], offset: -30 },
        }),
        PairCommand::RemovePreset(RemovePreset { name: "night".into() }),
        PairCommand::TakeOver(TakeOver::default()),
        PairCommand::TakeOver(TakeOver { alone: true, at: Some("before-upgrade".into()) }),
        PairCommand::Recover(RecoverCommand::Plan { at: None }),
        PairCommand::Recover(RecoverCommand::Points),
        PairCommand::Recover(RecoverCommand::Pin { at: "1234".into(), name: None }),
        PairCommand::Recover(RecoverCommand::Unpin { name: farseal_core::group::CutName::new("kept").unwrap() }),
        PairCommand::Recover(RecoverCommand::Test { at: Some("15m-ago".into()) }),
        PairCommand::Recover(RecoverCommand::EndTest),
        PairCommand::CopyAll,
        PairCommand::Verify(Verify { sample: 100, rate: None, repair: true, stop: false }),
        PairCommand::Swap(Swap {
            slot: PluginSlot::Policy,
            component: "/plugins/interval.wasm".into(),
            sha256: Digest([9; 32]),
            grants: vec![],
            config: Some(serde_json::json!({"every": "1h"})),
            dry_run: true,
            accept: false,
        }),
    ];
    for command in &commands {
        assert_eq!(client.command("vault-1", command).await.unwrap().message, command.name());
    }
    let told: Vec<PairCommand> = node.fake.told.lock().unwrap().drain(..).map(|(_, command)| command).collect();
    assert_eq!(told, commands);
}

#[tokio::test]
async fn a_refusal_says_which_state_and_which_command_would() {
    let node = running();
    let client = Client::new(&node.socket);
    let refused = |error| {
        let ClientError::Refused { reply } = error else { panic!("{error}") };
        reply
    };
    let state = refused(client.command("vault-1", &PairCommand::Resume).await.unwrap_err());
    let side = refused(client.command("vault-1", &PairCommand::Scrub).await.unwrap_err());
    let name = refused(client.command("no/pair", &PairCommand::TakeOver(TakeOver::default())).await.unwrap_err());
    assert_eq!((state.code, side.code, name.code), (ErrorCode::Refused, ErrorCode::Refused, ErrorCode::NotFound));
    insta::assert_snapshot!(
        [state, side, name].map(|reply| format!("{}\n  next: {}", reply.message, reply.next.unwrap())).join("\n")
    );
}

#[tokio::test]
async fn a_bad_request_gets_a_clear_error_and_reaches_nobody() {
    let node = running();
    let requests = [
        post("/v1/pairs/vault-1/rotate", "{\"how\": "),
        post("/v1/pairs/vault-1/rotate", "{\"hurry\": true}"),
        post("/v1/pairs/vault-1/rotate", "{\"how\": \"at-once\"}"),
        post("/v1/pairs/vault-1/suspect", ""),
        post("/v1/pairs/vault-1/resume", "{\"force\": true}"),
        post("/v1/pairs/vault-1/explode", ""),
        get("/v1/pairs/vault-1/resume"),
        get("/v2/status"),
        post("/v1/pairs/vault-1/swap", &" ".repeat(BODY_BYTES_MAX + 1)),
    ];
    let mut transcript = String::new();
    for request in requests {
        transcript.push_str(&format!(
            "{}\n  {}\n",
            request.lines().next().unwrap(),
            raw(&node.socket, &request).await.replace('\n', "\n  ")
        ));
    }
    assert!(node.fake.told.lock().unwrap().is_empty());
    insta::assert_snapshot!(transcript);
}

#[tokio::test]
async fn metrics_never_tell_when_a_key_changed() {
    let node = running();
    let text = raw(&node.socket, &get("/metrics")).await;
    for secret in ["987654", "123456", "123.456", "77777777", "epoch", "rotat"] {
        assert!(!text.contains(secret), "{secret}");
    }
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn metrics_over_tcp_serve_nothing_else() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server::serve_metrics(listener, Arc::new(Fake::default()), Bounds::default(), std::future::pending()));
    for (path, status) in [("/metrics", "200"), ("/v1/status", "404")] {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(get(path).as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        assert_eq!(reply.split(' ').nth(1), Some(status), "{path}");
    }
}

/// Whoever reached the port could hold as many of the node's descriptors as he liked.
#[tokio::test]
async fn half_requests_hold_no_more_places_for_metrics_than_there_are_and_none_for_long() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let bounds = Bounds { connections: 2, longest: Duration::from_millis(300) };
    tokio::spawn(server::serve_metrics(listener, Arc::new(Fake::default()), bounds, std::future::pending()));
    let mut halves = Vec::new();
    for _ in 0..5 {
        let mut half = tokio::net::TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n").await.unwrap();
        halves.push(half);
    }
    // A busy machine may not answer in so short a time: as those who scrape do, it asks again.
    let mut reply = String::new();
    while !reply.starts_with("HTTP/1.1 200") {
        reply.clear();
        let mut scrape = tokio::net::TcpStream::connect(address).await.unwrap();
        scrape.write_all(get("/metrics").as_bytes()).await.unwrap();
        let _ = scrape.read_to_string(&mut reply).await;
    }
    // They are accepted in their order: of two places one was the scrape's, so at most one half request has the other.
    let is_open = |half: tokio::net::TcpStream| {
        let peeked = half.into_std().unwrap().peek(&mut [0]);
        matches!(peeked, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    };
    assert!(halves.into_iter().map(is_open).filter(|open| *open).count() <= 1);
}

#[tokio::test]
async fn a_stop_lets_the_command_under_way_finish() {
    let node = running();
    let client = Client::new(&node.socket);
    let asked = tokio::spawn(async move {
        client.command("vault-1", &PairCommand::Pause(Pause { wait: true, ..Pause::default() })).await
    });
    node.fake.entered.notified().await;
    node.stop.send(()).unwrap();
    node.fake.gate.notify_one();
    assert_eq!(asked.await.unwrap().unwrap().message, "paused");
    node.served.await.unwrap().unwrap();
    assert!(matches!(Client::new(&node.socket).status().await, Err(ClientError::NotRunning { .. })));
}

/// A search whose caller was interrupted went on beside the next one, and both wrote on in one audit log.
#[tokio::test]
async fn a_command_goes_on_to_its_end_when_whoever_gave_it_hangs_up() {
    let node = running();
    let client = Client::new(&node.socket);
    let asked = tokio::spawn(async move {
        client.command("vault-1", &PairCommand::Pause(Pause { wait: true, ..Pause::default() })).await
    });
    node.fake.entered.notified().await;
    asked.abort();
    // The server has nobody to answer any more.
    node.stop.send(()).unwrap();
    node.served.await.unwrap().unwrap();
    node.fake.gate.notify_one();
    tokio::time::timeout(Duration::from_secs(60), node.fake.ended.notified()).await.unwrap();
}

#[tokio::test]
async fn only_the_owner_may_open_the_socket() {
    let node = running();
    assert_eq!(std::fs::metadata(&node.socket).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_second_node_is_refused_and_a_dead_ones_socket_is_replaced() {
    let node = running();
    assert!(matches!(server::bind(&node.socket), Err(BindError::InUse { .. })));
    node.stop.send(()).unwrap();
    node.served.await.unwrap().unwrap();
    assert!(node.socket.exists());
    drop(server::bind(&node.socket).unwrap());
    let file = node.socket.with_file_name("file");
    std::fs::write(&file, "mine").unwrap();
    assert!(matches!(server::bind(&file), Err(BindError::NoSocket { .. })));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}

#[tokio::test]
async fn where_no_node_runs_the_error_says_how_to_start_one() {
    let folder = tempfile::tempdir().unwrap();
    let error = Client::new(&folder.path().join("control.sock")).status().await.unwrap_err();
    assert!(matches!(error, ClientError::NotRunning { .. }));
    assert!(error.next().unwrap().contains("farseal run"));
}
