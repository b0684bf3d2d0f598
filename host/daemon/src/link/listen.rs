//! The secondary's end: accepts paths from pinned primaries and hands what they send to the pair that they attach to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use farseal_core::carriage::Mask;
use farseal_core::declare::Declare;
use farseal_core::drill::{AskDrill, AskLive};
use farseal_core::frame::{Attach, Frame, HandOver, Refusal};
use farseal_core::inspect::Inspect;
use farseal_core::limits::INSPECTIONS_MAX;
use farseal_core::lineage::Lineage;
use farseal_core::refresh::AskOld;
use farseal_core::retire::AskRetire;
use farseal_core::units::Path;
use farseal_plugin::Digest;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::parts::Parts;
use super::session::{
    FrameReader, FrameWriter, HANDSHAKE_MAX, SessionError, challenge, inside_tls, kind, on_fabric, read_frame, shaped,
    write_frame,
};
use super::shape;
use crate::keys::fingerprint::Fingerprint;
use crate::keys::tls::LinkMode;

/// What a path brings to its pair.
#[derive(Debug)]
pub enum Came {
    /// With where the primary's history comes from, if there was a takeover, and with what masks its records' slots, if
    /// they have any.
    Attach(Attach, Option<Lineage>, Option<Mask>, UnboundedSender<Answer>),
    /// The primary stops and wants this site to go on.
    HandOver(HandOver),
    /// One frame of records, behind their slots where the attach said so. The permit bounds what waits to be stored.
    Records(Vec<u8>, tokio::sync::OwnedSemaphorePermit),
    /// A component that the primary's epochs need, whole. The permit bounds what waits to be kept.
    Component(Digest, Vec<u8>, tokio::sync::OwnedSemaphorePermit),
    /// What the copy holds is asked for. The permit is held until the answer is written.
    Inspect(Inspect, tokio::sync::OwnedSemaphorePermit),
    /// As [`Came::Inspect`]: which epochs live blocks need.
    AskLive(AskLive, tokio::sync::OwnedSemaphorePermit),
    /// As [`Came::Inspect`]: a proof that a block opens.
    AskDrill(AskDrill, tokio::sync::OwnedSemaphorePermit),
    /// Which blocks need keys that are to go?
    AskOld(AskOld, tokio::sync::OwnedSemaphorePermit),
    /// These keys are to go.
    AskRetire(Box<AskRetire>, tokio::sync::OwnedSemaphorePermit),
    Declare(Declare, tokio::sync::OwnedSemaphorePermit),
    Lost,
}

/// What a pair sends back.
#[derive(Debug)]
pub enum Answer {
    Frame(Frame),
    /// What the copy holds.
    Held {
        id: u64,
        answer: Vec<u8>,
        permit: tokio::sync::OwnedSemaphorePermit,
    },
    /// The last one.
    Refuse(Refusal),
    Close,
}

/// Where a path's attach goes: the pair's inbox, if peer and link are the pair's.
pub type Route = Arc<dyn Fn(&Attach, Fingerprint, LinkMode) -> Result<Inbox, Refusal> + Send + Sync>;
/// Takes in what comes; never blocks.
pub type Inbox = Arc<dyn Fn(Path, Came) + Send + Sync>;

/// Connections at once, handshakes included: a peer that opens more waits.
const CONNECTIONS_MAX: usize = 256;
/// Bytes of records that a path may have waiting to be stored; the path is not read meanwhile.
const WAITING_BYTES_MAX: u32 = 64 << 20;

/// How long a path that ends may take for what it says last.
const LAST_WORD_MAX: Duration = Duration::from_secs(1);

/// What was dropped, for the metrics.
#[derive(Debug, Default)]
pub struct Counters {
    pub accepted: AtomicU64,
    pub refused: AtomicU64,
    pub dropped: AtomicU64,
}

/// Accepts until told to stop.
pub async fn run(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    route: Route,
    counters: Arc<Counters>,
    mut stop: watch::Receiver<bool>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let paths = Arc::new(AtomicU16::new(0));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let Ok((socket, from)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        counters.accepted.fetch_add(1, Ordering::Relaxed);
        let (acceptor, route, counters) = (acceptor.clone(), Arc::clone(&route), Arc::clone(&counters));
        let path = Path(paths.fetch_add(1, Ordering::Relaxed));
        let mut stop = stop.clone();
        tokio::spawn(async move {
            let _place = place;
            let ended = tokio::select! {
                ended = serve(socket, from, acceptor, &route, path) => ended,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            if let Err(error) = ended {
                counters.dropped.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%from, "a path ended: {error}");
            }
        });
    }
}

/// Why a connection was dropped.
#[derive(Debug, thiserror::Error)]
enum Dropped {
    #[error("it did not finish the handshake in {} s", HANDSHAKE_MAX.as_secs())]
    Slow,
    #[error("TLS: {0}")]
    Tls(String),
    #[error("no pair {0} with that peer is configured here; run `farseal pair accept`")]
    NoPair(farseal_core::units::PairId),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("the pair refused it: {0}")]
    Refused(Refusal),
    #[error("the pair closed it")]
    Closed,
    #[error("it asks for more of the copy at once than {INSPECTIONS_MAX} ranges")]
    Greedy,
}

#[expect(clippy::wildcard_enum_match_arm, reason = "any other frame is out of place here, also one that is new")]
async fn serve(
    socket: TcpStream,
    from: SocketAddr,
    acceptor: TlsAcceptor,
    route: &Route,
    path: Path,
) -> Result<(), Dropped> {
    socket.set_nodelay(true).map_err(SessionError::from)?;
    let handshake = async {
        let mut stream = acceptor.accept(socket).await.map_err(|error| {
            Dropped::Tls(crate::keys::tls::wrong_peer(&error).map_or_else(|| error.to_string(), ToString::to_string))
        })?;
        let peer = crate::keys::tls::link_peer(stream.get_ref().1).map_err(|error| Dropped::Tls(error.to_string()))?;
        let peers = match read_frame(&mut stream).await? {
            Frame::Hello { challenge } => challenge,
            other => return Err(SessionError::Unexpected { wanted: "a hello", found: kind(&other) }.into()),
        };
        let own = challenge()?;
        write_frame(&mut stream, &Frame::Hello { challenge: own }).await?;
        let (mut reader, writer) = match peer.1 {
            LinkMode::Tls => inside_tls(stream),
            LinkMode::San => on_fabric(stream.into())?,
        };
        let (mut lineage, mut shape, mut mask) = (None, None, None);
        loop {
            match reader.frame().await? {
                Frame::Lineage(tells) if lineage.is_none() => lineage = Some(tells),
                // A shaped path is sealed whole, which a fabric's is not.
                Frame::Shape(wants) if shape.is_none() && peer.1 == LinkMode::Tls => shape = Some(wants),
                Frame::InSlots if mask.is_none() => mask = Some(Mask::new(&peers, &own)),
                Frame::Attach(attach) => {
                    return Ok::<_, Dropped>(((reader, writer), peer, attach, (lineage, shape, mask)));
                }
                other => {
                    return Err(SessionError::Unexpected { wanted: "an attach", found: kind(&other) }.into());
                }
            }
        }
    };
    let handshake = timeout(HANDSHAKE_MAX, handshake).await.map_err(|_| Dropped::Slow)??;
    let ((reader, writer), (peer, mode), attach, (lineage, shape, mask)) = handshake;
    let (reader, mut writer) = shaped(reader, writer, |reader, writer| shape::secondary(shape, reader, writer));
    let inbox = match route(&attach, peer, mode) {
        Ok(inbox) => inbox,
        Err(refusal) => {
            writer.frame(&Frame::Refuse(refusal)).await?;
            say_the_last(&mut writer).await;
            return Err(match refusal {
                Refusal::UnknownPair => Dropped::NoPair(attach.pair),
                refusal => Dropped::Refused(refusal),
            });
        }
    };
    tracing::info!(%from, pair = %attach.pair, path = path.0, "a primary attaches");
    let (answers, queue) = unbounded_channel();
    let slotted = mask.is_some();
    inbox(path, Came::Attach(attach, lineage, mask, answers.clone()));
    let ended = tokio::select! {
        ended = receive(reader, slotted, path, &inbox, &answers) => ended,
        ended = answer(writer, queue) => ended,
    };
    inbox(path, Came::Lost);
    ended
}

#[expect(clippy::wildcard_enum_match_arm, reason = "any other frame is out of place here, also one that is new")]
async fn receive(
    mut reader: FrameReader,
    slotted: bool,
    path: Path,
    inbox: &Inbox,
    answers: &UnboundedSender<Answer>,
) -> Result<(), Dropped> {
    let waiting = Arc::new(Semaphore::new(usize::try_from(WAITING_BYTES_MAX).unwrap_or(usize::MAX)));
    let inspections = Arc::new(Semaphore::new(INSPECTIONS_MAX));
    let permit = || Arc::clone(&inspections).try_acquire_owned().map_err(|_| Dropped::Greedy);
    let mut parts = Parts::default();
    loop {
        let frame = reader.frame().await?;
        if slotted == matches!(frame, Frame::Records(_)) && matches!(frame, Frame::Records(_) | Frame::Slotted(_)) {
            let wanted = if slotted { "records with slots" } else { "records" };
            return Err(SessionError::Unexpected { wanted, found: kind(&frame) }.into());
        }
        match frame {
            Frame::Records(bytes) | Frame::Slotted(bytes) => {
                let size = u32::try_from(bytes.len()).unwrap_or(WAITING_BYTES_MAX).min(WAITING_BYTES_MAX);
                let Ok(permit) = Arc::clone(&waiting).acquire_many_owned(size).await else {
                    return Err(Dropped::Closed);
                };
                inbox(path, Came::Records(bytes, permit));
            }
            Frame::Component(part) => {
                let Some((digest, bytes)) = parts.add(part)? else { continue };
                let size = u32::try_from(bytes.len()).unwrap_or(WAITING_BYTES_MAX).min(WAITING_BYTES_MAX);
                let Ok(permit) = Arc::clone(&waiting).acquire_many_owned(size).await else {
                    return Err(Dropped::Closed);
                };
                inbox(path, Came::Component(Digest(digest), bytes, permit));
            }
            Frame::HandOver(hand_over) => inbox(path, Came::HandOver(hand_over)),
            Frame::Inspect(inspect) => inbox(path, Came::Inspect(inspect, permit()?)),
            Frame::AskLive(ask) => inbox(path, Came::AskLive(ask, permit()?)),
            Frame::AskDrill(ask) => inbox(path, Came::AskDrill(ask, permit()?)),
            Frame::AskOld(ask) => inbox(path, Came::AskOld(ask, permit()?)),
            Frame::AskRetire(ask) => inbox(path, Came::AskRetire(ask, permit()?)),
            Frame::Declare(declare) => inbox(path, Came::Declare(declare, permit()?)),
            Frame::Ping { token } => {
                let _ = answers.send(Answer::Frame(Frame::Pong { token }));
            }
            other => return Err(SessionError::Unexpected { wanted: "records", found: kind(&other) }.into()),
        }
    }
}

async fn answer(mut writer: FrameWriter, mut queue: UnboundedReceiver<Answer>) -> Result<(), Dropped> {
    let mut next = queue.recv().await;
    while let Some(answer) = next.take() {
        let after = queue.try_recv().ok();
        match answer {
            // The one behind it says all that this one does.
            Answer::Frame(Frame::Ack(_)) if matches!(after, Some(Answer::Frame(Frame::Ack(_)))) => {}
            Answer::Frame(frame) => writer.frame(&frame).await?,
            Answer::Held { id, answer, permit } => {
                writer.frame(&Frame::Held { id, answer }).await?;
                drop(permit);
            }
            Answer::Refuse(refusal) => {
                writer.frame(&Frame::Refuse(refusal)).await?;
                say_the_last(&mut writer).await;
                return Err(Dropped::Refused(refusal));
            }
            Answer::Close => {
                say_the_last(&mut writer).await;
                return Err(Dropped::Closed);
            }
        }
        next = match after {
            Some(after) => Some(after),
            None => queue.recv().await,
        };
    }
    Err(Dropped::Closed)
}

/// What was written last leaves before the path ends, also where it waits for its cell.
async fn say_the_last(writer: &mut FrameWriter) {
    if !matches!(timeout(LAST_WORD_MAX, writer.shutdown()).await, Ok(Ok(()))) {
        tracing::debug!("a path ended before its last word had left");
    }
}
