//! The secondary's end: accepts paths from pinned primaries and hands what they send to the pair that they attach to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use farseal_core::carriage::Mask;
use farseal_core::declare::Declare;
use farseal_core::drill::{AskDrill, AskLive};
use farseal_core::frame::{Attach, Frame, HandOver, Refusal, Shape};
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
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

use super::parts::Parts;
use super::places::{Failures, Handshake, Handshakes, LIVE_MAX, Live};
use super::session::{
    FrameReader, FrameWriter, HANDSHAKE_MAX, SILENCE_MAX, SessionError, challenge, inside_tls, kind, on_fabric,
    read_frame, shaped, write_frame,
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
    /// The primary stops and wants this site to go on. The permit bounds what waits.
    HandOver(HandOver, tokio::sync::OwnedSemaphorePermit),
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

/// Bytes of records that a path may have waiting to be stored; the path is not read meanwhile.
const WAITING_BYTES_MAX: u32 = 64 << 20;
/// What a hand-over counts for among them: sixteen may wait. One that is sent again has come over another path.
const HAND_OVER_WEIGHS: u32 = WAITING_BYTES_MAX / 16;

/// How long a path that ends may take for what it says last.
const LAST_WORD_MAX: Duration = Duration::from_secs(1);

/// What was dropped, for the metrics.
#[derive(Debug, Default)]
pub struct Counters {
    pub accepted: AtomicU64,
    pub refused: AtomicU64,
    pub dropped: AtomicU64,
}

/// Where connections come in.
struct Door {
    acceptor: TlsAcceptor,
    route: Route,
    counters: Arc<Counters>,
    handshakes: Arc<Handshakes>,
    live: Arc<Live>,
    failures: Failures,
}

/// Accepts until told to stop.
pub async fn run(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    route: Route,
    counters: Arc<Counters>,
    mut stop: watch::Receiver<bool>,
) {
    let door = Arc::new(Door {
        acceptor: TlsAcceptor::from(tls),
        route,
        counters,
        handshakes: Arc::default(),
        live: Arc::default(),
        failures: Failures::default(),
    });
    let paths = AtomicU16::new(0);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let Ok((socket, from)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        door.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let door = Arc::clone(&door);
        let handshake = door.handshakes.begin(from.ip());
        let path = Path(paths.fetch_add(1, Ordering::Relaxed));
        let mut stop = stop.clone();
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = door.serve(socket, from, handshake, path) => ended,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            if let Err(error) = ended {
                door.dropped(from, &error);
            }
        });
    }
}

/// Why a connection was dropped.
#[derive(Debug, thiserror::Error)]
enum Dropped {
    #[error(transparent)]
    Handshake(#[from] Stranger),
    #[error("no pair {0} with that peer is configured here; run `farseal pair accept`")]
    NoPair(farseal_core::units::PairId),
    #[error("its pair {0} has {LIVE_MAX} paths up already")]
    Crowded(farseal_core::units::PairId),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("the pair refused it: {0}")]
    Refused(Refusal),
    #[error("the pair closed it")]
    Closed,
    #[error("it asks for more of the copy at once than {INSPECTIONS_MAX} ranges")]
    Greedy,
    #[error("it did not take an answer for {} s", SILENCE_MAX.as_secs())]
    Deaf,
}

/// Why nobody knows whose a connection was.
#[derive(Debug, thiserror::Error)]
enum Stranger {
    #[error("it did not finish the handshake in {} s", HANDSHAKE_MAX.as_secs())]
    Slow,
    #[error("it did not finish the handshake before its place was another's")]
    GaveWay,
    #[error("TLS: {0}")]
    Tls(String),
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// What a handshake comes to.
struct Greeted {
    reader: FrameReader,
    writer: FrameWriter,
    peer: (Fingerprint, LinkMode),
    attach: Attach,
    lineage: Option<Lineage>,
    shape: Option<Shape>,
    mask: Option<Mask>,
}

impl Door {
    fn dropped(&self, from: SocketAddr, error: &Dropped) {
        self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        if !matches!(error, Dropped::Handshake(_)) {
            tracing::warn!(%from, "a path ended: {error}");
        } else if let Some(others) = self.failures.count(Instant::now()) {
            // Anybody can have one fail, as often as he likes.
            tracing::warn!(%from, others, "a path ended: {error}; `others` failed since this was said last");
        }
    }

    async fn serve(
        &self,
        socket: TcpStream,
        from: SocketAddr,
        mut handshake: Handshake,
        path: Path,
    ) -> Result<(), Dropped> {
        let greeted = tokio::select! {
            greeted = timeout(HANDSHAKE_MAX, greet(socket, &self.acceptor)) => greeted.map_err(|_| Stranger::Slow)??,
            () = handshake.gives_way() => return Err(Stranger::GaveWay.into()),
        };
        let Greeted { reader, writer, peer: (peer, mode), attach, lineage, shape, mask } = greeted;
        let (reader, mut writer) = shaped(reader, writer, |reader, writer| shape::secondary(shape, reader, writer));
        let inbox = match (self.route)(&attach, peer, mode) {
            Ok(inbox) => inbox,
            Err(refusal) => {
                writer.frame(&Frame::Refuse(refusal)).await?;
                say_the_last(&mut writer).await;
                let unknown = refusal == Refusal::UnknownPair;
                return Err(if unknown { Dropped::NoPair(attach.pair) } else { Dropped::Refused(refusal) });
            }
        };
        let Some(_live) = self.live.take(attach.pair) else { return Err(Dropped::Crowded(attach.pair)) };
        drop(handshake);
        tracing::info!(%from, pair = %attach.pair, path = path.0, "a primary attaches");
        let (answers, queue) = unbounded_channel();
        let slotted = mask.is_some();
        let pongs = Pongs::default();
        inbox(path, Came::Attach(attach, lineage, mask, answers.clone()));
        let ended = tokio::select! {
            ended = receive(reader, slotted, path, &inbox, (&answers, &pongs)) => ended,
            ended = answer(writer, queue, &pongs, SILENCE_MAX) => ended,
        };
        inbox(path, Came::Lost);
        ended
    }
}

/// From the first byte to the attach. Nothing that came before is believed.
#[expect(clippy::wildcard_enum_match_arm, reason = "any other frame is out of place here, also one that is new")]
async fn greet(socket: TcpStream, acceptor: &TlsAcceptor) -> Result<Greeted, Stranger> {
    socket.set_nodelay(true).map_err(SessionError::from)?;
    let mut stream = acceptor.accept(socket).await.map_err(|error| {
        Stranger::Tls(crate::keys::tls::wrong_peer(&error).map_or_else(|| error.to_string(), ToString::to_string))
    })?;
    let peer = crate::keys::tls::link_peer(stream.get_ref().1).map_err(|error| Stranger::Tls(error.to_string()))?;
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
                return Ok(Greeted { reader, writer, peer, attach, lineage, shape, mask });
            }
            other => {
                return Err(SessionError::Unexpected { wanted: "an attach", found: kind(&other) }.into());
            }
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "any other frame is out of place here, also one that is new")]
async fn receive(
    mut reader: FrameReader,
    slotted: bool,
    path: Path,
    inbox: &Inbox,
    (answers, pongs): (&UnboundedSender<Answer>, &Pongs),
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
            Frame::HandOver(hand_over) => {
                let Ok(permit) = Arc::clone(&waiting).acquire_many_owned(HAND_OVER_WEIGHS).await else {
                    return Err(Dropped::Closed);
                };
                inbox(path, Came::HandOver(hand_over, permit));
            }
            Frame::Inspect(inspect) => inbox(path, Came::Inspect(inspect, permit()?)),
            Frame::AskLive(ask) => inbox(path, Came::AskLive(ask, permit()?)),
            Frame::AskDrill(ask) => inbox(path, Came::AskDrill(ask, permit()?)),
            Frame::AskOld(ask) => inbox(path, Came::AskOld(ask, permit()?)),
            Frame::AskRetire(ask) => inbox(path, Came::AskRetire(ask, permit()?)),
            Frame::Declare(declare) => inbox(path, Came::Declare(declare, permit()?)),
            Frame::Ping { token } => {
                if pongs.may_wait() {
                    let _ = answers.send(Answer::Frame(Frame::Pong { token }));
                }
            }
            other => return Err(SessionError::Unexpected { wanted: "records", found: kind(&other) }.into()),
        }
    }
}

/// Whether a pong waits to be written: one says all that a second would.
#[derive(Debug, Default)]
struct Pongs(AtomicBool);

impl Pongs {
    /// Whether another one may wait; it does then.
    fn may_wait(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }

    fn written(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Writes a frame, if the peer takes it in time: a primary reads whatever it has to do, and what it does not take would
/// gather here.
async fn write(writer: &mut FrameWriter, frame: &Frame, patience: Duration) -> Result<(), Dropped> {
    Ok(timeout(patience, writer.frame(frame)).await.map_err(|_| Dropped::Deaf)??)
}

async fn answer(
    mut writer: FrameWriter,
    mut queue: UnboundedReceiver<Answer>,
    pongs: &Pongs,
    patience: Duration,
) -> Result<(), Dropped> {
    let mut next = queue.recv().await;
    while let Some(answer) = next.take() {
        let after = queue.try_recv().ok();
        match answer {
            // The one behind it says all that this one does.
            Answer::Frame(Frame::Ack(_)) if matches!(after, Some(Answer::Frame(Frame::Ack(_)))) => {}
            Answer::Frame(frame) => {
                write(&mut writer, &frame, patience).await?;
                if matches!(frame, Frame::Pong { .. }) {
                    pongs.written();
                }
            }
            Answer::Held { id, answer, permit } => {
                write(&mut writer, &Frame::Held { id, answer }, patience).await?;
                drop(permit);
            }
            Answer::Refuse(refusal) => {
                write(&mut writer, &Frame::Refuse(refusal), patience).await?;
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::Mutex;
    use std::task::{Context, Poll};

    use farseal_core::chain::Chain;
    use farseal_core::units::{Generation, Sequence};
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    /// The queue grew by a pong for each ping, as long as the peer read none.
    #[tokio::test]
    async fn however_many_pings_come_one_pong_waits_and_a_peer_that_takes_none_is_ended() {
        let (mut near, far) = duplex(1 << 20);
        for token in 0..1000 {
            near.write_all(&Frame::Ping { token }.encode()).await.unwrap();
        }
        // It reads nothing, and has no room for the pong.
        let (deaf, narrow) = duplex(1);
        near.shutdown().await.unwrap();
        let (reader, _) = inside_tls(far);
        let (_, writer) = inside_tls(narrow);
        let (answers, mut queue) = unbounded_channel();
        let (inbox, pongs): (Inbox, _) = (Arc::new(|_, _| {}), Pongs::default());
        let ended = receive(reader, false, Path(0), &inbox, (&answers, &pongs)).await;
        assert!(matches!(ended, Err(Dropped::Session(SessionError::Gone))), "{ended:?}");
        assert_eq!(queue.len(), 1);
        let first = queue.recv().await.unwrap();
        answers.send(first).unwrap();
        let ended = answer(writer, queue, &pongs, Duration::from_millis(10)).await;
        assert!(matches!(ended, Err(Dropped::Deaf)), "{ended:?}");
        drop(deaf);
    }

    #[tokio::test]
    async fn the_next_ping_is_answered_once_the_pong_before_is_written() {
        let (near, far) = duplex(1 << 10);
        let (_, writer) = inside_tls(near);
        let (mut reader, _) = inside_tls(far);
        let (pongs, (answers, queue)) = (Pongs::default(), unbounded_channel());
        assert!(pongs.may_wait() && !pongs.may_wait());
        answers.send(Answer::Frame(Frame::Pong { token: 7 })).unwrap();
        drop(answers);
        let ended = answer(writer, queue, &pongs, SILENCE_MAX).await;
        assert!(matches!(ended, Err(Dropped::Closed)), "{ended:?}");
        assert_eq!(reader.frame().await.unwrap(), Frame::Pong { token: 7 });
        assert!(pongs.may_wait());
    }

    #[tokio::test]
    async fn a_peer_that_hands_over_again_and_again_is_not_read_while_the_inbox_has_enough_of_it() {
        let (mut near, far) = duplex(1 << 20);
        let hand_over = HandOver { generation: Generation(2), at: Sequence(1), chain: Chain::START };
        for _ in 0..1000 {
            near.write_all(&Frame::HandOver(hand_over).encode()).await.unwrap();
        }
        let (reader, _) = inside_tls(far);
        let (answers, _queue) = unbounded_channel();
        let came = Arc::new(Mutex::new(Vec::new()));
        let inbox: Inbox = {
            let came = Arc::clone(&came);
            Arc::new(move |_, one| came.lock().unwrap().push(one))
        };
        let pongs = Pongs::default();
        let mut receiving = std::pin::pin!(receive(reader, false, Path(0), &inbox, (&answers, &pongs)));
        // More than once: the runtime lets no task read without end.
        for _ in 0..20 {
            let waits = |context: &mut Context<'_>| Poll::Ready(receiving.as_mut().poll(context).is_pending());
            assert!(std::future::poll_fn(waits).await);
            tokio::task::yield_now().await;
        }
        assert_eq!(came.lock().unwrap().len(), 16);
    }
}
