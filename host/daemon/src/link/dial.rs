//! The primary's end: one task a path, dialling for ever.

use std::sync::Arc;
use std::time::Duration;

use farseal_core::carriage::Mask;
use farseal_core::declare::Declare;
use farseal_core::drill::{AskDrill, AskLive};
use farseal_core::frame::{Attach, ComponentPart, Differs, Frame, HandOver, Refusal, Shape};
use farseal_core::inspect::Inspect;
use farseal_core::lineage::Lineage;
use farseal_core::refresh::AskOld;
use farseal_core::retire::AskRetire;
use farseal_core::units::Path;
use farseal_plugin::Digest;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsConnector;

use super::session::{
    FrameReader, FrameWriter, HANDSHAKE_MAX, PING_EVERY, SessionError, challenge, inside_tls, kind, on_fabric,
    read_frame, shaped, write_frame,
};
use super::shape;
use super::slots::{Filler, Told};
use crate::components::COMPONENTS_MAX;
use crate::keys::hedge::Hedge;
use crate::keys::tls::LinkMode;

/// What a path brings to its lane.
#[derive(Debug)]
pub enum Came {
    /// An attach goes out: the welcome that follows was written after this.
    Attaching,
    /// Where the secondary's base differs; before the welcome.
    Differs(Differs),
    Welcomed(Welcomed, UnboundedSender<Send>),
    Acked(farseal_core::frame::Ack),
    KeyRefused {
        key: farseal_core::units::Sequence,
        why: farseal_core::frame::KeyRefusal,
    },
    /// The secondary was taken over to, as this generation.
    Fenced(farseal_core::units::Generation),
    /// The secondary writes now, as it was asked to.
    HandedOver(farseal_core::units::Generation),
    /// What the copy holds, as the answer to the question of this number.
    Held {
        id: u64,
        answer: Vec<u8>,
    },
    Lost,
}

/// What the secondary holds.
#[derive(Debug)]
pub struct Welcomed {
    pub welcome: farseal_core::frame::Welcome,
    /// The components that it keeps.
    pub components: Vec<Digest>,
}

/// What a lane has a path send.
#[derive(Debug)]
pub enum Send {
    /// A component that the secondary is to keep, with its digest.
    Component(Digest, Vec<u8>),
    Records(Vec<bytes::Bytes>, Told),
    HandOver(HandOver),
    Inspect(Inspect),
    AskLive(AskLive),
    AskDrill(AskDrill),
    AskOld(AskOld),
    AskRetire(Box<AskRetire>),
    Declare(Declare),
    Close,
}

/// One path of one pair.
pub struct Dialler {
    pub pair: String,
    pub path: Path,
    pub address: String,
    pub peer: ServerName<'static>,
    pub tls: Arc<ClientConfig>,
    /// What `tls` is for.
    pub link: LinkMode,
    pub attach: Attach,
    /// What this path shows, whatever it carries.
    pub shape: Option<Shape>,
    /// Records have slots, in which keys travel.
    pub in_slots: bool,
    /// Hears the peer's challenges.
    pub hedge: Hedge,
    /// Where this site's history comes from, if there was a takeover.
    pub lineage: Option<Lineage>,
    /// Takes in what comes; never blocks. The permit of what the peer says bounds how much of that waits.
    pub came: Box<dyn Fn(Path, Came, Option<OwnedSemaphorePermit>) + std::marker::Send + Sync>,
    /// Why the path is not up, for the console.
    pub trouble: Arc<std::sync::Mutex<Option<String>>>,
    pub stop: watch::Receiver<bool>,
    /// How many paths there should be: this one rests while it is beyond them.
    pub wanted: watch::Receiver<u16>,
}

/// First and longest wait between two attempts.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// What a peer may have said that waits for the lane; the path is not read meanwhile. Acknowledgements gather at the other end
/// then, where one says what all before it do.
const WORDS_WAITING_MAX: usize = 64;

/// Why a path did not come up, or ended.
#[derive(Debug, thiserror::Error)]
enum PathError {
    #[error("cannot reach {address}: {source}")]
    Unreachable { address: String, source: std::io::Error },
    #[error("{0}")]
    Tls(String),
    #[error("the peer refused the pair: {0}")]
    Refused(Refusal),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("the peer did not finish the handshake in {} s", HANDSHAKE_MAX.as_secs())]
    Slow,
    #[error("the pair closed this path")]
    Closed,
}

impl std::fmt::Debug for Dialler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialler").field("pair", &self.pair).field("address", &self.address).finish_non_exhaustive()
    }
}

impl Dialler {
    /// Dials until it is told to stop.
    pub async fn run(self) {
        let mut wait = RETRY_FIRST;
        let (mut stop, mut wanted) = (self.stop.clone(), self.wanted.clone());
        loop {
            tokio::select! {
                wanted = wanted.wait_for(|wanted| self.path.0 < *wanted) => if wanted.is_err() { return },
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let (mut attaching, mut welcomed) = (false, false);
            let ended = tokio::select! {
                ended = self.connect(&mut attaching, &mut welcomed) => ended,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            if attaching {
                (self.came)(self.path, Came::Lost, None);
            }
            let Err(error) = ended else { return };
            // A lane that closes what it just welcomed does so again.
            if welcomed && !matches!(error, PathError::Closed) {
                wait = RETRY_FIRST;
            }
            if self.path.0 >= *self.wanted.borrow() {
                self.forget_trouble();
                continue;
            }
            if let PathError::Refused(Refusal::Fenced(generation)) = &error {
                (self.came)(self.path, Came::Fenced(*generation), None);
            }
            self.note(&error);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = stop.wait_for(|stop| *stop) => return,
                _ = wanted.wait_for(|wanted| self.path.0 >= *wanted) => self.forget_trouble(),
            }
            wait = (wait * 2).min(RETRY_LONGEST);
        }
    }

    async fn connect(&self, attaching: &mut bool, welcomed: &mut bool) -> Result<(), PathError> {
        let words = Arc::new(Semaphore::new(WORDS_WAITING_MAX));
        let handshake = timeout(HANDSHAKE_MAX, self.handshake(attaching, &words)).await.map_err(|_| PathError::Slow)?;
        let (reader, writer, welcomed_with) = handshake?;
        let (jobs, queue) = unbounded_channel();
        *welcomed = true;
        self.forget_trouble();
        tracing::info!(pair = self.pair, path = self.path.0, address = self.address, "the path is up");
        (self.came)(self.path, Came::Welcomed(welcomed_with, jobs), None);
        tokio::select! {
            ended = self.receive(reader, &words) => ended,
            ended = transmit(writer, queue) => ended,
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "any other frame is out of place here, also one that is new")]
    async fn handshake(
        &self,
        attaching: &mut bool,
        words: &Arc<Semaphore>,
    ) -> Result<(FrameReader, FrameWriter, Welcomed), PathError> {
        let unreachable = |source| PathError::Unreachable { address: self.address.clone(), source };
        let socket = TcpStream::connect(&self.address).await.map_err(unreachable)?;
        socket.set_nodelay(true).map_err(unreachable)?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let mut stream = connector.connect(self.peer.clone(), socket).await.map_err(|error| {
            PathError::Tls(crate::keys::tls::wrong_peer(&error).map_or_else(|| error.to_string(), ToString::to_string))
        })?;
        let own = challenge()?;
        write_frame(&mut stream, &Frame::Hello { challenge: own }).await?;
        let peers = match read_frame(&mut stream).await? {
            Frame::Hello { challenge } => challenge,
            other => return Err(SessionError::Unexpected { wanted: "a hello", found: kind(&other) }.into()),
        };
        self.hedge.hear(&peers);
        *attaching = true;
        (self.came)(self.path, Came::Attaching, None);
        let attach = Attach { paths: *self.wanted.borrow(), ..self.attach };
        let shape = self.shape.map(Frame::Shape);
        let slots = self.in_slots.then_some(Frame::InSlots);
        let first = [self.lineage.map(Frame::Lineage), shape, slots, Some(Frame::Attach(attach))];
        let (reader, mut writer) = match self.link {
            LinkMode::Tls => inside_tls(stream),
            LinkMode::San => on_fabric(stream.into())?,
        };
        for word in first.iter().flatten() {
            writer.frame(word).await?;
        }
        let (mut reader, writer) = shaped(reader, writer, |reader, writer| shape::primary(self.shape, reader, writer));
        let writer = writer.with_slots(self.in_slots.then(|| Filler::new(Mask::new(&own, &peers))));
        let welcomed = self.welcome(&mut reader, words).await?;
        Ok((reader, writer, welcomed))
    }

    /// What the peer says of itself, up to its welcome.
    #[expect(clippy::wildcard_enum_match_arm, reason = "any other frame is out of place here, also one that is new")]
    async fn welcome(&self, reader: &mut FrameReader, words: &Arc<Semaphore>) -> Result<Welcomed, PathError> {
        let mut components = Vec::new();
        loop {
            match reader.frame().await? {
                Frame::Component(ComponentPart { digest, of: 0, .. }) if components.len() < COMPONENTS_MAX => {
                    components.push(Digest(digest));
                }
                Frame::Differs(differs) => self.tell(words, Came::Differs(differs)).await?,
                // It may have refused the next record of the order before the path broke over which it said so.
                Frame::KeyRefused { key, why } => self.tell(words, Came::KeyRefused { key, why }).await?,
                Frame::Welcome(welcome) => return Ok(Welcomed { welcome, components }),
                Frame::Refuse(refusal) => return Err(PathError::Refused(refusal)),
                other => return Err(SessionError::Unexpected { wanted: "a welcome", found: kind(&other) }.into()),
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "any other frame is out of place here, also one that is new")]
    async fn receive(&self, mut reader: FrameReader, words: &Arc<Semaphore>) -> Result<(), PathError> {
        loop {
            match reader.frame().await? {
                Frame::Ack(ack) => self.tell(words, Came::Acked(ack)).await?,
                Frame::KeyRefused { key, why } => self.tell(words, Came::KeyRefused { key, why }).await?,
                Frame::HandedOver { generation } => self.tell(words, Came::HandedOver(generation)).await?,
                Frame::Held { id, answer } => self.tell(words, Came::Held { id, answer }).await?,
                Frame::Pong { .. } => {}
                other => {
                    let found = kind(&other);
                    return Err(SessionError::Unexpected { wanted: "an acknowledgement", found }.into());
                }
            }
        }
    }

    /// Tells the lane what the peer said, when it has heard enough of what came before.
    async fn tell(&self, words: &Arc<Semaphore>, came: Came) -> Result<(), PathError> {
        let permit = Arc::clone(words).acquire_owned().await.map_err(|_| PathError::Closed)?;
        (self.came)(self.path, came, Some(permit));
        Ok(())
    }

    fn forget_trouble(&self) {
        if let Ok(mut trouble) = self.trouble.lock() {
            *trouble = None;
        }
    }

    fn note(&self, error: &PathError) {
        let text = error.to_string();
        let Ok(mut trouble) = self.trouble.lock() else { return };
        if trouble.as_ref() != Some(&text) {
            tracing::warn!(pair = self.pair, path = self.path.0, address = self.address, "{text}");
            *trouble = Some(text);
        }
    }
}

/// Sends what the lane hands over; pings when it hands over nothing.
async fn transmit(mut writer: FrameWriter, mut queue: UnboundedReceiver<Send>) -> Result<(), PathError> {
    let mut ping = interval(PING_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            job = queue.recv() => match job {
                Some(Send::Records(records, told)) => {
                    writer.records(&records, &told).await?;
                    if queue.is_empty() {
                        writer.flush().await?;
                    }
                }
                Some(Send::Component(digest, bytes)) => writer.component(digest.0, &bytes).await?,
                Some(Send::HandOver(hand_over)) => writer.frame(&Frame::HandOver(hand_over)).await?,
                Some(Send::Inspect(inspect)) => writer.frame(&Frame::Inspect(inspect)).await?,
                Some(Send::AskLive(ask)) => writer.frame(&Frame::AskLive(ask)).await?,
                Some(Send::AskDrill(ask)) => writer.frame(&Frame::AskDrill(ask)).await?,
                Some(Send::AskOld(ask)) => writer.frame(&Frame::AskOld(ask)).await?,
                Some(Send::AskRetire(ask)) => writer.frame(&Frame::AskRetire(ask)).await?,
                Some(Send::Declare(declare)) => writer.frame(&Frame::Declare(declare)).await?,
                Some(Send::Close) | None => return Err(PathError::Closed),
            },
            _ = ping.tick() => writer.frame(&Frame::Ping { token: 0 }).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::future::poll_fn;
    use std::sync::Mutex;
    use std::task::Poll;

    use farseal_core::chain::Chain;
    use farseal_core::frame::{Ack, KeyRefusal, Welcome};
    use farseal_core::units::{BlockBytes, BlockCount, Generation, PairId, Sequence, VolumeId};
    use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;
    use crate::keys::capsule::KemId;
    use crate::keys::card::NodeName;
    use crate::keys::identity::Identity;
    use crate::keys::tls::{client_config, server_name};

    type Heard = Arc<Mutex<Vec<(Came, Option<OwnedSemaphorePermit>)>>>;

    /// A path that keeps what comes, the permits too.
    fn dialler(heard: &Heard) -> Dialler {
        let site = Identity::generate(NodeName::new("osaka").unwrap(), KemId::DhP256).unwrap();
        let heard = Arc::clone(heard);
        Dialler {
            pair: "vault".into(),
            path: Path(0),
            address: String::new(),
            peer: server_name(site.card()),
            tls: client_config(&site, site.card()).unwrap(),
            link: LinkMode::Tls,
            attach: Attach {
                pair: PairId([1; 16]),
                volume: VolumeId([2; 16]),
                generation: Generation(1),
                encrypted: true,
                block_bytes: BlockBytes::new(4096).unwrap(),
                blocks: BlockCount(8),
                path: 0,
                paths: 1,
                layout: None,
            },
            shape: None,
            in_slots: false,
            hedge: Hedge::default(),
            lineage: None,
            came: Box::new(move |_, came, permit| heard.lock().unwrap().push((came, permit))),
            trouble: Arc::default(),
            stop: watch::channel(false).1,
            wanted: watch::channel(1).1,
        }
    }

    async fn saying(frames: impl Iterator<Item = Frame>) -> (FrameReader, DuplexStream) {
        let (mut near, far) = duplex(1 << 20);
        for frame in frames {
            near.write_all(&frame.encode()).await.unwrap();
        }
        (inside_tls(far).0, near)
    }

    fn ack(durable: u64) -> Ack {
        Ack { durable: Sequence(durable), chain: Chain::START, ranges: Vec::new(), full: false }
    }

    /// The path never came up again when the one broke over which a key was refused.
    #[tokio::test]
    async fn a_key_that_was_refused_before_the_welcome_is_heard_of_and_the_path_comes_up() {
        let heard = Heard::default();
        let refused = Frame::KeyRefused { key: Sequence(4), why: KeyRefusal::Forged };
        let welcome = Frame::Welcome(Welcome { generation: Generation(1), ack: ack(3) });
        let (mut reader, _near) = saying([refused, welcome].into_iter()).await;
        let words = Arc::new(Semaphore::new(WORDS_WAITING_MAX));
        let welcomed = dialler(&heard).welcome(&mut reader, &words).await.unwrap();
        assert_eq!(welcomed.welcome.ack, ack(3));
        assert!(matches!(heard.lock().unwrap()[..], [(Came::KeyRefused { key: Sequence(4), .. }, Some(_))]));
    }

    #[tokio::test]
    async fn a_peer_is_not_read_while_the_lane_has_not_heard_enough_of_what_it_said() {
        let heard = Heard::default();
        let (reader, _near) = saying((0..1000).map(|durable| Frame::Ack(ack(durable)))).await;
        let (dialler, words) = (dialler(&heard), Arc::new(Semaphore::new(WORDS_WAITING_MAX)));
        let mut receiving = std::pin::pin!(dialler.receive(reader, &words));
        // More than once: the runtime lets no task read without end.
        for _ in 0..20 {
            assert!(poll_fn(|context| Poll::Ready(receiving.as_mut().poll(context).is_pending())).await);
            tokio::task::yield_now().await;
        }
        assert_eq!(heard.lock().unwrap().len(), WORDS_WAITING_MAX);
        heard.lock().unwrap().clear();
        for _ in 0..20 {
            assert!(poll_fn(|context| Poll::Ready(receiving.as_mut().poll(context).is_pending())).await);
            tokio::task::yield_now().await;
        }
        assert_eq!(heard.lock().unwrap().len(), WORDS_WAITING_MAX);
    }
}
