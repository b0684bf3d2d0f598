//! The interconnect: members connect to their site's lead, over TLS with pinned cards, and again whenever it breaks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::lead::{MemberId, ToLead};
use super::member::Member;
use super::wire::{self, WireError, Word};
use super::words::{Order, Report};

/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Between two attempts to reach the lead.
const RETRY_EVERY: Duration = Duration::from_millis(200);
/// Connections at once, handshakes included.
const CONNECTIONS_MAX: usize = 256;

/// Why a connection between two nodes of a site ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("it did not finish the handshake in {} s", HANDSHAKE_MAX.as_secs())]
    Slow,
    #[error("TLS: {0}")]
    Tls(String),
    #[error("{address} is not reachable: {source}")]
    Unreachable { address: String, source: std::io::Error },
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("the other end of this node is gone")]
    Closed,
}

/// The lead's end: accepts members until the node stops.
pub async fn listen(listener: TcpListener, tls: Arc<ServerConfig>, lead: Sender<ToLead>, stop: watch::Receiver<bool>) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // The lead's own member is the first.
    let members = Arc::new(AtomicU64::new(1));
    let mut stopped = stop.clone();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        let Ok((socket, from)) = accepted else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let member = MemberId(members.fetch_add(1, Ordering::Relaxed));
        let (acceptor, lead, mut stop) = (acceptor.clone(), lead.clone(), stop.clone());
        tokio::spawn(async move {
            let _place = place;
            let ended = tokio::select! {
                ended = serve(socket, from, acceptor, member, &lead) => ended,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let _ = lead.send(ToLead::Left { member });
            if let Err(error) = ended {
                tracing::warn!(%from, "a node of the site is gone: {error}");
            }
        });
    }
}

async fn serve(
    socket: TcpStream,
    from: SocketAddr,
    acceptor: TlsAcceptor,
    member: MemberId,
    lead: &Sender<ToLead>,
) -> Result<(), Ended> {
    let _ = socket.set_nodelay(true);
    let stream = timeout(HANDSHAKE_MAX, acceptor.accept(socket)).await.map_err(|_| Ended::Slow)?;
    let stream = stream.map_err(|error| Ended::Tls(of_tls(&error)))?;
    crate::keys::tls::peer_key(stream.get_ref().1).map_err(|error| Ended::Tls(error.to_string()))?;
    tracing::info!(%from, "a node of the site joins");
    let (mut reader, writer) = split(stream);
    let (orders, queue) = unbounded_channel();
    let downlink = Box::new(move |order| drop(orders.send(order)));
    lead.send(ToLead::Joined { member, downlink }).map_err(|_| Ended::Closed)?;
    let receive = async {
        loop {
            let report: Report = wire::read(&mut reader).await?;
            lead.send(ToLead::Report { member, report }).map_err(|_| Ended::Closed)?;
        }
    };
    tokio::select! {
        ended = receive => ended,
        ended = transmit(writer, queue) => ended,
    }
}

/// Everything that waits goes out in one write.
async fn transmit<W: Word>(mut writer: impl AsyncWrite + Unpin, mut queue: UnboundedReceiver<W>) -> Result<(), Ended> {
    use tokio::io::AsyncWriteExt as _;
    let mut gathered = Vec::new();
    while let Some(word) = queue.recv().await {
        gathered.clear();
        gathered.extend(wire::frame(&word));
        while let Ok(word) = queue.try_recv() {
            gathered.extend(wire::frame(&word));
        }
        writer.write_all(&gathered).await.map_err(WireError::from)?;
        writer.flush().await.map_err(WireError::from)?;
    }
    Err(Ended::Closed)
}

/// A member's end.
#[derive(Debug)]
pub struct Dialler {
    pub member: Arc<Member>,
    /// `HOST:PORT`, tried in turn.
    pub addresses: Vec<String>,
    pub server: ServerName<'static>,
    pub tls: Arc<ClientConfig>,
    pub stop: watch::Receiver<bool>,
}

impl Dialler {
    /// Keeps the connection to the lead, until the node stops.
    pub async fn run(mut self) {
        let mut said = None;
        for address in self.addresses.clone().iter().cycle() {
            let mut stop = self.stop.clone();
            let ended = tokio::select! {
                ended = self.serve(address) => ended,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            self.member.site.set_uplink(None);
            if let Err(error) = ended {
                let text = error.to_string();
                if said.as_ref() != Some(&text) {
                    tracing::warn!(address, "the site's lead cannot be reached: {text}");
                    said = Some(text);
                }
            }
            tokio::select! {
                () = sleep(RETRY_EVERY) => {}
                _ = self.stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    async fn serve(&self, address: &str) -> Result<(), Ended> {
        let handshake = async {
            let unreachable = |source| Ended::Unreachable { address: address.to_owned(), source };
            let socket = TcpStream::connect(address).await.map_err(unreachable)?;
            let _ = socket.set_nodelay(true);
            let connector = TlsConnector::from(Arc::clone(&self.tls));
            connector.connect(self.server.clone(), socket).await.map_err(|error| Ended::Tls(of_tls(&error)))
        };
        let stream = timeout(HANDSHAKE_MAX, handshake).await.map_err(|_| Ended::Slow)??;
        crate::keys::tls::peer_key(stream.get_ref().1).map_err(|error| Ended::Tls(error.to_string()))?;
        tracing::info!(address, "the site's lead is there");
        let (reader, writer) = split(stream);
        let (reports, queue) = unbounded_channel();
        // Nothing goes ahead of the hello.
        let _ = reports.send(self.member.hello());
        self.member.site.set_uplink(Some(Box::new(move |report| drop(reports.send(report)))));
        tokio::select! {
            ended = self.receive(reader) => ended,
            ended = transmit(writer, queue) => ended,
        }
    }

    async fn receive(&self, mut reader: impl AsyncRead + Unpin) -> Result<(), Ended> {
        loop {
            let order: Order = wire::read(&mut reader).await?;
            self.member.obey(order);
        }
    }
}

fn of_tls(error: &std::io::Error) -> String {
    crate::keys::tls::wrong_peer(error).map_or_else(|| error.to_string(), ToString::to_string)
}
