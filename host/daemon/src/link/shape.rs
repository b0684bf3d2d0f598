//! A shaped path: cells of one length at fixed times, filled from the stream of frames, or with nothing.
//!
//! What is written waits in a bounded queue in front of the connection, so a pause and the backlog after it show nothing:
//! a line that has too much to say is as full as one that is silent. Cells are plain inside TLS, which hides where the
//! content of one ends. A cell that could not leave in time is left out, and never made up for in a burst.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use farseal_core::frame::Shape;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// One half of a path, shaped or not.
pub type Reader = Box<dyn AsyncRead + Unpin + Send>;
pub type Writer = Box<dyn AsyncWrite + Unpin + Send>;

/// Bytes that wait for a cell at least; and two cells. Whoever writes more waits: the window of a lane does, too.
const QUEUE_BYTES_MIN: usize = 256 << 10;

/// The halves of the primary's end.
pub fn primary<R, W>(shape: Option<Shape>, reader: R, writer: W) -> (Reader, Writer)
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    match shape {
        Some(shape) => cells(shape, shape.answer_bytes, shape.cell_bytes, reader, writer),
        None => (Box::new(reader), Box::new(writer)),
    }
}

/// The halves of the secondary's end.
pub fn secondary<R, W>(shape: Option<Shape>, reader: R, writer: W) -> (Reader, Writer)
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    match shape {
        Some(shape) => cells(shape, shape.cell_bytes, shape.answer_bytes, reader, writer),
        None => (Box::new(reader), Box::new(writer)),
    }
}

fn cells<R, W>(shape: Shape, comes: u32, goes: u32, reader: R, writer: W) -> (Reader, Writer)
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let every = Duration::from_micros(u64::from(shape.every_us));
    let reader = FromCells { inner: reader, cell: vec![0; wide(comes)], filled: 0, content: 0..0 };
    (Box::new(reader), Box::new(IntoCells::start(writer, wide(goes), every)))
}

fn wide(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Takes bytes into the queue. Shutting it down waits until the last of them has left in its cell.
struct IntoCells {
    queue: DuplexStream,
    /// Ends with the writer.
    pump: JoinSet<io::Result<()>>,
}

impl IntoCells {
    fn start(writer: impl AsyncWrite + Unpin + Send + 'static, cell: usize, every: Duration) -> Self {
        let (queue, from) = duplex(QUEUE_BYTES_MIN.max(2 * cell));
        let mut pump = JoinSet::new();
        pump.spawn(send(from, writer, cell, every));
        Self { queue, pump }
    }
}

/// Sends a cell whenever one is due, until the queue's other end is closed and empty.
async fn send(mut from: DuplexStream, mut to: impl AsyncWrite + Unpin, cell: usize, every: Duration) -> io::Result<()> {
    let mut due = interval(every);
    due.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut bytes = vec![0; cell];
    loop {
        due.tick().await;
        let (count, ended) = fill(&mut from, &mut bytes[Shape::HEAD..]).await?;
        if ended && count == 0 {
            return to.shutdown().await;
        }
        let (head, content) = bytes.split_at_mut(Shape::HEAD);
        head.copy_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
        content[count..].fill(0);
        to.write_all(&bytes).await?;
        to.flush().await?;
    }
}

/// What the queue holds now, as far as it fits. Says how much, and whether nothing will follow.
async fn fill(from: &mut DuplexStream, into: &mut [u8]) -> io::Result<(usize, bool)> {
    let mut into = ReadBuf::new(into);
    poll_fn(|context| {
        while into.remaining() > 0 {
            let before = into.filled().len();
            match Pin::new(&mut *from).poll_read(context, &mut into) {
                Poll::Ready(Ok(())) if into.filled().len() == before => return Poll::Ready(Ok((before, true))),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok((into.filled().len(), false)))
    })
    .await
}

impl AsyncWrite for IntoCells {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.queue).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.queue).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.queue).poll_shutdown(context))?;
        match ready!(self.pump.poll_join_next(context)) {
            Some(Ok(ended)) => Poll::Ready(ended),
            Some(Err(stopped)) => Poll::Ready(Err(io::Error::other(stopped))),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// Takes the content out of cells.
struct FromCells<R> {
    inner: R,
    cell: Vec<u8>,
    filled: usize,
    /// What of the whole cell was not read yet.
    content: std::ops::Range<usize>,
}

impl<R: AsyncRead + Unpin> AsyncRead for FromCells<R> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.content.is_empty() {
            if !ready!(this.poll_cell(context))? {
                return Poll::Ready(Ok(()));
            }
        }
        let count = this.content.len().min(into.remaining());
        let end = this.content.start + count;
        into.put_slice(&this.cell[this.content.start..end]);
        this.content.start = end;
        Poll::Ready(Ok(()))
    }
}

impl<R: AsyncRead + Unpin> FromCells<R> {
    /// Reads one whole cell; `false` where the stream ends in front of one.
    fn poll_cell(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.filled < self.cell.len() {
            let mut rest = ReadBuf::new(&mut self.cell[self.filled..]);
            ready!(Pin::new(&mut self.inner).poll_read(context, &mut rest))?;
            match rest.filled().len() {
                0 if self.filled == 0 => return Poll::Ready(Ok(false)),
                0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                count => self.filled += count,
            }
        }
        self.filled = 0;
        let head = self.cell.first_chunk().copied().unwrap_or_default();
        let (count, room) = (wide(u32::from_le_bytes(head)), self.cell.len() - Shape::HEAD);
        if count > room {
            let wrong = format!("a cell that says it holds {count} bytes; {room} fit");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, wrong)));
        }
        self.content = Shape::HEAD..Shape::HEAD + count;
        Poll::Ready(Ok(true))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use tokio::io::AsyncReadExt;

    use super::*;

    const CELL: usize = 64;
    const EVERY: Duration = Duration::from_millis(1);

    fn reader(inner: DuplexStream) -> FromCells<DuplexStream> {
        FromCells { inner, cell: vec![0; CELL], filled: 0, content: 0..0 }
    }

    /// How much of the next cell counts.
    async fn content(from: &mut DuplexStream) -> u32 {
        let mut bytes = [0; CELL];
        from.read_exact(&mut bytes).await.unwrap();
        u32::from_le_bytes(bytes[..Shape::HEAD].try_into().unwrap())
    }

    #[tokio::test]
    async fn cells_go_whether_there_is_something_to_say_or_not_and_a_backlog_drains_inside_them() {
        let (near, mut far) = duplex(CELL);
        let mut writer = IntoCells::start(near, CELL, EVERY);
        for _ in 0..10 {
            assert_eq!(content(&mut far).await, 0, "an idle path sends cells, too");
        }
        writer.write_all(&[7; 5 * CELL]).await.unwrap();
        let mut left = 5 * u32::try_from(CELL).unwrap();
        let mut cells = 0;
        while left > 0 {
            left -= content(&mut far).await;
            cells += 1;
        }
        // Those that were under way when it was written are empty; 60 bytes fit each other one.
        assert!((6..10).contains(&cells), "{cells} cells");
        assert_eq!(content(&mut far).await, 0);
    }

    #[tokio::test]
    async fn what_goes_in_comes_out_and_a_shutdown_waits_for_the_last_cell() {
        let (near, far) = duplex(1 << 20);
        let mut writer = IntoCells::start(near, CELL, EVERY);
        let sent: Vec<u8> = (0..=250).cycle().take(10_000).collect();
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
        drop(writer);
        let mut found = Vec::new();
        reader(far).read_to_end(&mut found).await.unwrap();
        assert_eq!(found, sent);
    }

    #[tokio::test]
    async fn whoever_writes_more_than_cells_carry_waits() {
        let (near, _far) = duplex(CELL);
        let mut writer = IntoCells::start(near, CELL, EVERY);
        let (much, mut taken) = (vec![1; QUEUE_BYTES_MIN / 2], 0);
        poll_fn(|context| {
            while let Poll::Ready(written) = Pin::new(&mut writer).poll_write(context, &much) {
                taken += written.unwrap();
            }
            Poll::Ready(())
        })
        .await;
        assert_eq!(taken, QUEUE_BYTES_MIN);
    }

    #[tokio::test]
    async fn a_cell_that_says_more_than_fits_is_refused() {
        let (mut near, far) = duplex(1 << 10);
        let mut cell = [0; CELL];
        cell[..Shape::HEAD].copy_from_slice(&61_u32.to_le_bytes());
        near.write_all(&cell).await.unwrap();
        let error = reader(far).read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_stream_that_ends_inside_a_cell_is_cut_short() {
        let (mut near, far) = duplex(1 << 10);
        near.write_all(&[0; CELL + 1]).await.unwrap();
        drop(near);
        let error = reader(far).read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
