//! The escrow's end of the line: accepts pinned sites, takes a cell, answers with one.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::desk::Desk;
use super::records::Line;
use super::store::EscrowStoreError;
use super::wire::{CELL_BYTES, CellError, FromEscrow, ToEscrow, fill, messages};
use crate::keys::card::PeerCard;
use crate::keys::tls::{peer_key, wrong_peer};
use crate::link::session::HANDSHAKE_MAX;

/// Lines at once, handshakes included: a site has one.
const LINES_MAX: usize = 256;
/// A line on which nothing came for this long is lost: three beats of the slowest site.
const SILENCE_MAX: Duration = Duration::from_secs(3 * 3_600);
/// Answers that may wait for the next cells; a site that makes more is dropped.
const ANSWERS_MAX: usize = 256;
/// How long a key that people brought outlives its time at most.
const GRANTS_LOOKED_AT: Duration = Duration::from_secs(60);

/// Messages of a cell whose answers are long. A site sends one for each pair that it asks for at a time.
const MUCH_IN_CELL_MAX: usize = 16;

/// Why a line ended.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error("it did not finish the handshake in {} s", HANDSHAKE_MAX.as_secs())]
    Slow,
    #[error("TLS: {0}")]
    Tls(String),
    #[error("that site is not admitted here; run `farseal escrow admit` with its card")]
    Stranger,
    #[error("it said nothing for {} h", SILENCE_MAX.as_secs() / 3_600)]
    Silent,
    #[error("the line broke: {0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Cell(#[from] CellError),
    #[error("it asks faster than cells can answer")]
    Greedy,
    #[error("nothing can be kept: {0}")]
    Store(#[from] EscrowStoreError),
    #[error("the answering thread ended")]
    Ended,
}

/// Accepts until told to stop.
pub async fn run(listener: TcpListener, tls: Arc<ServerConfig>, desk: Arc<Desk>, mut stop: watch::Receiver<bool>) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(LINES_MAX));
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
        let (acceptor, desk, mut stop) = (acceptor.clone(), Arc::clone(&desk), stop.clone());
        tokio::spawn(async move {
            let _place = place;
            let ended = tokio::select! {
                ended = serve(socket, from, acceptor, desk) => ended,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            if let Err(error) = ended {
                tracing::warn!(%from, "a site's line ended: {error}");
            }
        });
    }
}

/// Forgets what yeses granted when their time is over, also where no site speaks, until told to stop.
pub async fn end_grants(desk: Arc<Desk>, mut stop: watch::Receiver<bool>) {
    let mut beat = interval(GRANTS_LOOKED_AT);
    loop {
        tokio::select! {
            _ = beat.tick() => desk.expire(crate::clock::wall_time()),
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

async fn serve(socket: TcpStream, from: SocketAddr, acceptor: TlsAcceptor, desk: Arc<Desk>) -> Result<(), LineError> {
    socket.set_nodelay(true)?;
    let handshake = timeout(HANDSHAKE_MAX, acceptor.accept(socket)).await.map_err(|_| LineError::Slow)?;
    let mut stream = handshake
        .map_err(|error| LineError::Tls(wrong_peer(&error).map_or_else(|| error.to_string(), ToString::to_string)))?;
    let key = peer_key(stream.get_ref().1).map_err(|error| LineError::Tls(error.to_string()))?;
    let site = desk.site(key).ok_or(LineError::Stranger)?.clone();
    tracing::info!(%from, site = %site.node, "a site's line is up");
    talk(&mut stream, &site, &desk).await
}

/// A cell for each cell, until the line ends.
async fn talk(stream: &mut TlsStream<TcpStream>, site: &PeerCard, desk: &Arc<Desk>) -> Result<(), LineError> {
    let (mut cell, mut answers) = (vec![0; CELL_BYTES], VecDeque::<FromEscrow>::new());
    let mut line = Line::default();
    loop {
        timeout(SILENCE_MAX, stream.read_exact(&mut cell)).await.map_err(|_| LineError::Silent)??;
        let said = messages::<ToEscrow>(&cell)?;
        desk.hear(site);
        if !said.is_empty() {
            let (desk, site) = (Arc::clone(desk), site.clone());
            if said.iter().filter(|said| said.asks_for_much()).count() > MUCH_IN_CELL_MAX {
                return Err(LineError::Greedy);
            }
            let mut under_way = std::mem::take(&mut line);
            let answer = move || {
                let answers = desk.answer(&site, &mut under_way, said, crate::clock::wall_time());
                (answers, under_way)
            };
            let (answered, left) = tokio::task::spawn_blocking(answer).await.map_err(|_| LineError::Ended)?;
            line = left;
            answers.extend(answered?);
        }
        if answers.len() > ANSWERS_MAX {
            return Err(LineError::Greedy);
        }
        stream.write_all(&fill(&mut answers)).await?;
        stream.flush().await?;
    }
}
