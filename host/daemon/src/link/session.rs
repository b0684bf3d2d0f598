//! One connection: whole frames in, whole frames out, within limits.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use farseal_core::frame::{ComponentPart, Frame, FrameError, PREFIX_BYTES, Prefix};
use farseal_core::limits::COMPONENT_PART_BYTES;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

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
    #[error("the peer sent {found} where {wanted} belongs")]
    Unexpected { wanted: &'static str, found: &'static str },
}

impl From<io::Error> for SessionError {
    fn from(error: io::Error) -> Self {
        let gone = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
        if gone.contains(&error.kind()) { Self::Gone } else { Self::Io(error) }
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
    // Grows as bytes come: a peer that announces much and sends nothing costs nothing.
    let mut body = Vec::with_capacity(len.min(GATHER_BYTES));
    let mut part = from.take(u64::from(prefix.body_bytes));
    match timeout(SILENCE_MAX, part.read_to_end(&mut body)).await {
        Ok(read) => read?,
        Err(_) => return Err(SessionError::Silent),
    };
    if body.len() < len {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(Frame::decode(prefix, body)?)
}

pub async fn write_frame(to: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> Result<(), SessionError> {
    to.write_all(&frame.encode()).await?;
    to.flush().await?;
    Ok(())
}

/// Sends records in as few frames as their sizes allow. The caller flushes.
pub async fn write_records(to: &mut (impl AsyncWrite + Unpin), records: &[Bytes]) -> Result<(), SessionError> {
    let mut gathered: Vec<u8> = Vec::with_capacity(GATHER_BYTES);
    let mut rest = records;
    while !rest.is_empty() {
        let mut body = 0;
        let count = rest
            .iter()
            .take_while(|record| {
                body += record.len();
                body <= GATHER_BYTES || body == record.len()
            })
            .count();
        let (now, later) = rest.split_at(count.max(1));
        let body: usize = now.iter().map(Bytes::len).sum();
        gathered.clear();
        gathered.extend(Prefix::records(u32::try_from(body).unwrap_or(u32::MAX)));
        now.iter().for_each(|record| gathered.extend_from_slice(record));
        to.write_all(&gathered).await?;
        rest = later;
    }
    Ok(())
}

/// Sends a component in parts. The caller flushes.
pub async fn write_component(
    to: &mut (impl AsyncWrite + Unpin),
    digest: [u8; 32],
    component: &[u8],
) -> Result<(), SessionError> {
    let of = u32::try_from(component.len()).unwrap_or(u32::MAX);
    for (index, bytes) in component.chunks(COMPONENT_PART_BYTES).enumerate() {
        let from = u32::try_from(index * COMPONENT_PART_BYTES).unwrap_or(u32::MAX);
        let part = ComponentPart { digest, of, from, bytes: bytes.to_vec() };
        to.write_all(&Frame::Component(part).encode()).await?;
    }
    Ok(())
}

/// A component and the digest that it is said to have.
pub type Whole = ([u8; 32], Vec<u8>);

/// A component as its parts come.
#[derive(Debug, Default)]
pub struct Parts {
    under_way: Option<ComponentPart>,
}

impl Parts {
    /// Adds a part. Says which component is whole now. Parts of one follow each other.
    pub fn add(&mut self, part: ComponentPart) -> Result<Option<Whole>, SessionError> {
        let out_of_order =
            || SessionError::Unexpected { wanted: "the next part of a component", found: "another part" };
        let whole = match self.under_way.take() {
            None if part.from == 0 && part.of > 0 => part,
            Some(mut begun) if begun.digest == part.digest && begun.of == part.of => {
                if usize::try_from(part.from).ok() != Some(begun.bytes.len()) {
                    return Err(out_of_order());
                }
                begun.bytes.extend(part.bytes);
                begun
            }
            None | Some(_) => return Err(out_of_order()),
        };
        if usize::try_from(whole.of).ok() == Some(whole.bytes.len()) {
            return Ok(Some((whole.digest, whole.bytes)));
        }
        self.under_way = Some(whole);
        Ok(None)
    }
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
        Frame::Held { .. } => "an answer",
    }
}

/// 32 random bytes that the peer has not seen.
pub fn challenge() -> Result<[u8; 32], SessionError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| io::Error::other("the random source failed"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn part(of: u32, from: u32, len: usize) -> ComponentPart {
        ComponentPart { digest: [1; 32], of, from, bytes: vec![u8::try_from(from).unwrap(); len] }
    }

    #[test]
    fn parts_make_a_component_in_their_order_alone() {
        let mut parts = Parts::default();
        assert_eq!(parts.add(part(5, 0, 3)).unwrap(), None);
        assert_eq!(parts.add(part(5, 3, 2)).unwrap(), Some(([1; 32], vec![0, 0, 0, 3, 3])));
        assert_eq!(parts.add(part(2, 0, 2)).unwrap(), Some(([1; 32], vec![0, 0])));
        assert!(parts.add(part(5, 3, 2)).is_err(), "the first part is missing");
        parts.add(part(5, 0, 1)).unwrap();
        assert!(parts.add(part(5, 2, 2)).is_err(), "a part is missing");
        parts.add(part(5, 0, 1)).unwrap();
        assert!(parts.add(ComponentPart { digest: [2; 32], ..part(5, 1, 1) }).is_err(), "of another");
        assert!(parts.add(part(0, 0, 0)).is_err(), "nothing");
    }
}
