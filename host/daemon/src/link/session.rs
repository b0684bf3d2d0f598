//! One connection: whole frames in, whole frames out, within limits, inside TLS or sealed on a fabric.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use farseal_core::carriage::Slot;
use farseal_core::frame::{ComponentPart, Frame, FrameError, PREFIX_BYTES, Prefix};
use farseal_core::limits::COMPONENT_PART_BYTES;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter, split};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsStream;

use super::san::{Keys, Opener, SanError, Sealer};
use super::shape::{Reader, Writer};
use super::slots::{Filler, Told};

/// How long a peer may take for its part of the handshake.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// A ping goes out when nothing else has for this long.
pub const PING_EVERY: Duration = Duration::from_secs(2);
/// A path on which nothing came for this long is lost: five pings.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Bytes gathered before they are given to TLS, so that records of TLS are full.
const GATHER_BYTES: usize = 256 << 10;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Whoever is killed or cut off says no goodbye; TLS makes an error of that.
    #[error("the peer is gone: it stopped, or something on the way cut the connection")]
    Gone,
    #[error("the connection broke: {0}")]
    Io(io::Error),
    #[error("the peer sent no frame: {0}")]
    Frame(#[from] FrameError),
    #[error("the peer said nothing for {} s", SILENCE_MAX.as_secs())]
    Silent,
    #[error("on the fabric: {0}")]
    San(SanError),
    #[error("the peer sent {found} where {wanted} belongs")]
    Unexpected { wanted: &'static str, found: &'static str },
}

impl From<io::Error> for SessionError {
    fn from(error: io::Error) -> Self {
        let gone = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
        if gone.contains(&error.kind()) { Self::Gone } else { Self::Io(error) }
    }
}

impl From<SanError> for SessionError {
    fn from(error: SanError) -> Self {
        match error {
            SanError::Io(error) => error.into(),
            SanError::Frame(error) => Self::Frame(error),
            error @ (SanError::NoKeys | SanError::Forged | SanError::Lengths { .. } | SanError::Records(_)) => {
                Self::San(error)
            }
        }
    }
}

/// The end of a path that takes frames.
pub struct FrameReader {
    from: Reader,
    opener: Option<Opener>,
}

/// The end of a path that sends frames.
pub struct FrameWriter {
    to: BufWriter<Writer>,
    sealer: Option<Sealer>,
    /// Where records have slots.
    slots: Option<Filler>,
}

impl std::fmt::Debug for FrameReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameReader").field("opener", &self.opener).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for FrameWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameWriter").field("sealer", &self.sealer).finish_non_exhaustive()
    }
}

/// The ends of a path that stays inside TLS.
pub fn inside_tls(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> (FrameReader, FrameWriter) {
    let (reader, writer) = split(stream);
    let reader = FrameReader { from: Box::new(reader), opener: None };
    (reader, FrameWriter { to: gathering(Box::new(writer)), sealer: None, slots: None })
}

/// From here on `shape` has the last word on what the line shows. Everything written before was flushed.
pub fn shaped(
    reader: FrameReader,
    writer: FrameWriter,
    shape: impl FnOnce(Reader, Writer) -> (Reader, Writer),
) -> (FrameReader, FrameWriter) {
    let (from, to) = shape(reader.from, writer.to.into_inner());
    (FrameReader { from, ..reader }, FrameWriter { to: gathering(to), ..writer })
}

/// The ends of a path of which both sides have said their hello inside TLS, and leave it now. The connecting side
/// speaks first, so TLS has read nothing that is not its own.
///
/// # Errors
/// TLS gives no keys.
pub fn on_fabric(stream: TlsStream<TcpStream>) -> Result<(FrameReader, FrameWriter), SessionError> {
    let (socket, (sealer, opener)) = match stream {
        TlsStream::Client(stream) => {
            let (socket, connection) = stream.into_inner();
            (socket, Keys::export(&connection)?.connecting()?)
        }
        TlsStream::Server(stream) => {
            let (socket, connection) = stream.into_inner();
            (socket, Keys::export(&connection)?.accepting()?)
        }
    };
    let (reader, writer) = socket.into_split();
    let reader = FrameReader { from: Box::new(BufReader::with_capacity(GATHER_BYTES, reader)), opener: Some(opener) };
    Ok((reader, FrameWriter { to: gathering(Box::new(writer)), sealer: Some(sealer), slots: None }))
}

/// Small batches that follow each other leave together.
fn gathering(to: Writer) -> BufWriter<Writer> {
    BufWriter::with_capacity(64 << 10, to)
}

impl FrameReader {
    pub async fn frame(&mut self) -> Result<Frame, SessionError> {
        match &mut self.opener {
            None => read_frame(&mut self.from).await,
            Some(opener) => match timeout(SILENCE_MAX, opener.frame(&mut self.from)).await {
                Ok(frame) => Ok(frame?),
                Err(_) => Err(SessionError::Silent),
            },
        }
    }
}

impl FrameWriter {
    /// Sends a frame, and what was written before it.
    pub async fn frame(&mut self, frame: &Frame) -> Result<(), SessionError> {
        self.queue(frame).await?;
        self.flush().await
    }

    /// Writes a frame. The caller flushes.
    async fn queue(&mut self, frame: &Frame) -> Result<(), SessionError> {
        match &mut self.sealer {
            None => self.to.write_all(&frame.encode()).await?,
            Some(sealer) => self.to.write_all(sealer.frame(frame)?).await?,
        }
        Ok(())
    }

    /// From here on records have slots.
    #[must_use]
    pub fn with_slots(self, slots: Option<Filler>) -> Self {
        Self { slots, ..self }
    }

    /// Writes records in as few frames as their sizes allow, and what their slots say, if they have any. The caller
    /// flushes.
    pub async fn records(&mut self, records: &[Bytes], told: &Told) -> Result<(), SessionError> {
        if let Some(filler) = &mut self.slots {
            let slots = filler.fill(records.len(), told).map_err(no_chance)?;
            return self.slotted(records, &slots).await;
        }
        let Some(sealer) = &mut self.sealer else { return write_records(&mut self.to, records).await };
        let mut rest = records;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(in_one_frame(rest));
            self.to.write_all(sealer.records(now)?).await?;
            rest = later;
        }
        Ok(())
    }

    async fn slotted(&mut self, records: &[Bytes], slots: &[Slot]) -> Result<(), SessionError> {
        let (mut rest, mut slots) = (records, slots);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(in_one_frame(rest));
            let (beside, after) = slots.split_at(now.len().min(slots.len()));
            let body = now.iter().zip(beside).map(|(record, slot)| record.len() + slot.len()).sum();
            let mut bytes = Vec::with_capacity(body);
            for (record, slot) in now.iter().zip(beside) {
                bytes.extend_from_slice(slot);
                bytes.extend_from_slice(record);
            }
            match &mut self.sealer {
                None => {
                    self.to.write_all(&Prefix::slotted(u32::try_from(body).unwrap_or(u32::MAX))).await?;
                    self.to.write_all(&bytes).await?;
                }
                // On a fabric slots and records are hidden alike.
                Some(sealer) => self.to.write_all(sealer.frame(&Frame::Slotted(bytes))?).await?,
            }
            (rest, slots) = (later, after);
        }
        Ok(())
    }

    /// Writes a component in parts. The caller flushes.
    pub async fn component(&mut self, digest: [u8; 32], component: &[u8]) -> Result<(), SessionError> {
        for from in (0..component.len()).step_by(COMPONENT_PART_BYTES) {
            self.queue(&Frame::Component(ComponentPart::at(digest, component, from, COMPONENT_PART_BYTES))).await?;
        }
        Ok(())
    }

    pub async fn flush(&mut self) -> Result<(), SessionError> {
        Ok(self.to.flush().await?)
    }

    /// Says that nothing comes any more, when the last of it has left.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.to.shutdown().await
    }
}

/// Reads one frame.
pub async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> Result<Frame, SessionError> {
    let mut prefix = [0; PREFIX_BYTES];
    match timeout(SILENCE_MAX, from.read_exact(&mut prefix)).await {
        Ok(read) => read?,
        Err(_) => return Err(SessionError::Silent),
    };
    let prefix = Prefix::decode(prefix)?;
    let len = usize::try_from(prefix.body_bytes).unwrap_or(usize::MAX);
    match timeout(SILENCE_MAX, read_bytes(from, len)).await {
        Ok(body) => Ok(Frame::decode(prefix, body?)?),
        Err(_) => Err(SessionError::Silent),
    }
}

/// Reads so many bytes, no more and no fewer.
pub(super) async fn read_bytes(from: &mut (impl AsyncRead + Unpin), len: usize) -> io::Result<Vec<u8>> {
    // Grows as bytes come: a peer that announces much and sends nothing costs nothing.
    let mut bytes = Vec::with_capacity(len.min(GATHER_BYTES));
    from.take(u64::try_from(len).unwrap_or(u64::MAX)).read_to_end(&mut bytes).await?;
    if bytes.len() < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
}

pub async fn write_frame(to: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> Result<(), SessionError> {
    to.write_all(&frame.encode()).await?;
    to.flush().await?;
    Ok(())
}

/// How many of these records go in one frame.
fn in_one_frame(records: &[Bytes]) -> usize {
    let mut body = 0;
    let fit = records.iter().take_while(|record| {
        body += record.len();
        body <= GATHER_BYTES || body == record.len()
    });
    fit.count().max(1)
}

async fn write_records(to: &mut (impl AsyncWrite + Unpin), records: &[Bytes]) -> Result<(), SessionError> {
    let mut gathered: Vec<u8> = Vec::with_capacity(GATHER_BYTES);
    let mut rest = records;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(in_one_frame(rest));
        let body: usize = now.iter().map(Bytes::len).sum();
        gathered.clear();
        gathered.extend(Prefix::records(u32::try_from(body).unwrap_or(u32::MAX)));
        now.iter().for_each(|record| gathered.extend_from_slice(record));
        to.write_all(&gathered).await?;
        rest = later;
    }
    Ok(())
}

/// The name of a frame's kind, for errors.
#[must_use]
pub fn kind(frame: &Frame) -> &'static str {
    match frame {
        Frame::Hello { .. } => "a hello",
        Frame::Attach(_) => "an attach",
        Frame::Welcome(_) => "a welcome",
        Frame::Refuse(_) => "a refusal",
        Frame::Records(_) => "records",
        Frame::Ack(_) => "an acknowledgement",
        Frame::KeyRefused { .. } => "a refused key",
        Frame::Component(_) => "a component",
        Frame::Ping { .. } => "a ping",
        Frame::Pong { .. } => "a pong",
        Frame::Lineage(_) => "a lineage",
        Frame::Differs(_) => "where a base differs",
        Frame::HandOver(_) => "a hand-over",
        Frame::HandedOver { .. } => "the end of a hand-over",
        Frame::Inspect(_) => "a verification's question",
        Frame::Shape(_) => "a shape",
        Frame::AskLive(_) => "a question about live epochs",
        Frame::AskDrill(_) => "a drill's question",
        Frame::AskOld(_) => "a question about blocks of old epochs",
        Frame::AskRetire(_) => "an order to retire keys",
        Frame::Declare(_) => "the main site's word that it is lost",
        Frame::Held { .. } => "an answer",
        Frame::Slotted(_) => "records with slots",
        Frame::InSlots => "that records have slots",
    }
}

/// 32 random bytes that the peer has not seen.
pub fn challenge() -> Result<[u8; 32], SessionError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(no_chance)?;
    Ok(bytes)
}

fn no_chance(_: getrandom::Error) -> SessionError {
    SessionError::Io(io::Error::other("the random source failed"))
}
