//! Frames between a site's nodes: length, version, kind, JSON.
//!
//! ```text
//! frame = length of the rest (u32, little-endian), version (u8), kind (u8), two zero bytes, JSON
//! ```
//!
//! | version | since | kinds |
//! |---|---|---|
//! | 1 | 0.1.0 | 1 report, 2 order |

use std::io;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::words::{Order, Report};

const VERSION: u8 = 1;
/// Bytes of a frame: the statuses of 64 nodes with 1 024 pairs each.
const FRAME_BYTES_MAX: u32 = 64 << 20;
/// Both ends say something at least once a second; five missed words are a node that is gone.
pub const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Something with a kind of its own.
pub trait Word: Serialize + DeserializeOwned {
    const KIND: u8;
}

impl Word for Report {
    const KIND: u8 = 1;
}

impl Word for Order {
    const KIND: u8 = 2;
}

/// Why a connection between two nodes of a site ended.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("nothing was heard for {} s", SILENCE_MAX.as_secs())]
    Silent,
    #[error("a frame of {0} bytes; at most {FRAME_BYTES_MAX} are allowed")]
    TooLong(u32),
    #[error("version {0}; this version speaks 1: use the same version of farseal on all nodes of a site")]
    Version(u8),
    #[error("a frame of kind {found} where kind {wanted} belongs")]
    Kind { wanted: u8, found: u8 },
    #[error("a frame that is not understood: {0}")]
    Content(serde_json::Error),
}

/// The whole frame.
#[must_use]
pub fn frame<W: Word>(word: &W) -> Vec<u8> {
    let body = serde_json::to_vec(word).unwrap_or_default();
    let mut out = Vec::with_capacity(8 + body.len());
    out.extend(u32::try_from(body.len() + 4).unwrap_or(u32::MAX).to_le_bytes());
    out.extend([VERSION, W::KIND, 0, 0]);
    out.extend(body);
    out
}

/// Writes one word.
pub async fn write<W: Word>(to: &mut (impl AsyncWrite + Unpin), word: &W) -> Result<(), WireError> {
    to.write_all(&frame(word)).await?;
    Ok(to.flush().await?)
}

/// Reads one word.
pub async fn read<W: Word>(from: &mut (impl AsyncRead + Unpin)) -> Result<W, WireError> {
    timeout(SILENCE_MAX, read_frame(from)).await.map_err(|_| WireError::Silent)?
}

async fn read_frame<W: Word>(from: &mut (impl AsyncRead + Unpin)) -> Result<W, WireError> {
    let mut prefix = [0; 8];
    from.read_exact(&mut prefix).await?;
    let [a, b, c, d, version, kind, ..] = prefix;
    let len = u32::from_le_bytes([a, b, c, d]);
    if version != VERSION {
        return Err(WireError::Version(version));
    }
    if kind != W::KIND {
        return Err(WireError::Kind { wanted: W::KIND, found: kind });
    }
    let rest = len.checked_sub(4).filter(|_| len <= FRAME_BYTES_MAX).ok_or(WireError::TooLong(len))?;
    // Grows as bytes come: a peer that announces much and sends nothing costs nothing.
    let mut body = Vec::new();
    from.take(u64::from(rest)).read_to_end(&mut body).await?;
    if u64::try_from(body.len()).unwrap_or(u64::MAX) < u64::from(rest) {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    serde_json::from_slice(&body).map_err(WireError::Content)
}

#[cfg(test)]
mod tests {
    use farseal_core::units::{CutNumber, PairId};

    use super::*;

    fn read_all<W: Word>(bytes: &[u8]) -> Result<W, WireError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        runtime.block_on(read(&mut &bytes[..]))
    }

    #[test]
    fn a_word_comes_back_and_anything_else_is_refused() {
        let order = Order::Open { pair: PairId([7; 16]), cut: CutNumber(9), lanes: 4 };
        let good = frame(&order);
        assert!(matches!(read_all::<Order>(&good), Ok(Order::Open { cut: CutNumber(9), lanes: 4, .. })));
        assert!(matches!(read_all::<Report>(&good), Err(WireError::Kind { wanted: 1, found: 2 })));
        for cut in 0..good.len() {
            assert!(matches!(read_all::<Order>(&good[..cut]), Err(WireError::Io(_))), "{cut}");
        }
        for (at, byte, what) in [(4, 2, "Version"), (3, 0x7f, "TooLong"), (0, 3, "TooLong"), (9, b'!', "Content")] {
            let mut bad = good.clone();
            bad[at] = byte;
            if at == 0 {
                bad[1..4].fill(0);
            }
            let found = format!("{:?}", read_all::<Order>(&bad));
            assert!(found.contains(what), "{at}: {found}");
        }
    }
}
