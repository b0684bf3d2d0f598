//! Where paths come in at a secondary: strangers keep no primary out
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use farseal::keys::capsule::KemId;
use farseal::keys::card::NodeName;
use farseal::keys::identity::Identity;
use farseal::keys::tls::{client_config, link_server_config, server_name};
use farseal::link::listen::{self, Answer, Came, Route};
use farseal::link::places::HANDSHAKES_MAX;
use farseal::link::session::{challenge, inside_tls, read_frame, write_frame};
use farseal_core::frame::{Attach, Frame};
use farseal_core::units::{BlockBytes, BlockCount, Generation, PairId, VolumeId};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

/// More than the connections that a secondary once took in all.
const STRANGERS: usize = 260;

fn site(name: &str) -> Identity {
    Identity::generate(NodeName::new(name).unwrap(), KemId::DhP256).unwrap()
}

fn attach() -> Attach {
    Attach {
        pair: PairId([1; 16]),
        volume: VolumeId([2; 16]),
        generation: Generation(1),
        encrypted: true,
        block_bytes: BlockBytes::new(4096).unwrap(),
        blocks: BlockCount(8),
        path: 0,
        paths: 1,
        layout: None,
    }
}

/// Whoever opened enough connections and said nothing kept every primary out, from one host and without a key.
#[tokio::test]
async fn a_primary_attaches_beside_more_silent_strangers_than_there_are_places() {
    let (tokyo, osaka) = (site("tokyo"), site("osaka"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (attached, mut attaches) = unbounded_channel::<(Attach, UnboundedSender<Answer>)>();
    let route: Route = Arc::new(move |_, _, _| {
        let attached = attached.clone();
        Ok(Arc::new(move |_, came| {
            if let Came::Attach(attach, _, _, answers) = came {
                attached.send((attach, answers)).unwrap();
            }
        }))
    });
    let (_stop, stopped) = watch::channel(false);
    let tls = link_server_config(&osaka, &[tokyo.card()]).unwrap();
    tokio::spawn(listen::run(listener, tls, route, Arc::default(), stopped));

    let mut strangers = Vec::new();
    for _ in 0..STRANGERS {
        strangers.push(TcpStream::connect(address).await.unwrap());
    }
    let socket = TcpStream::connect(address).await.unwrap();
    let connector = TlsConnector::from(client_config(&tokyo, osaka.card()).unwrap());
    let mut stream = connector.connect(server_name(osaka.card()), socket).await.unwrap();
    write_frame(&mut stream, &Frame::Hello { challenge: challenge().unwrap() }).await.unwrap();
    assert!(matches!(read_frame(&mut stream).await.unwrap(), Frame::Hello { .. }));
    let (_reader, mut writer) = inside_tls(stream);
    writer.frame(&Frame::Attach(attach())).await.unwrap();
    assert_eq!(attaches.recv().await.unwrap().0, attach());

    // The first ones gave way; the last have their time still.
    assert_eq!(strangers[0].read(&mut [0]).await.unwrap_or(0), 0);
    let waits = |stranger: TcpStream| {
        let peeked = stranger.into_std().unwrap().peek(&mut [0]);
        matches!(peeked, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    };
    assert_eq!(strangers.into_iter().rev().map(waits).take_while(|waits| *waits).count(), HANDSHAKES_MAX - 1);
}
