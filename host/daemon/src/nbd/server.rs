//! Listeners, the threads that carry connections, and the stop.
//!
//! Each thread runs a single-threaded runtime of its own and keeps a connection for its life, so that a
//! request never changes core between socket and export.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::nbd::completion::Queue;
use crate::nbd::counters::Counters;
use crate::nbd::handshake::{HandshakeError, Negotiated, Setting, negotiate};
use crate::nbd::limits::{
    ACCEPT_PAUSE, CLOSE_DEADLINE, CLOSE_LINGER, HANDSHAKE_DEADLINE, MAX_CONNECTIONS, MAX_THREADS, PAYLOAD_BYTES,
    REKEY_RECORDS, STUCK_DEADLINE,
};
use crate::nbd::negotiate::Agreed;
use crate::nbd::pool::Pool;
use crate::nbd::registry::Registry;
use crate::nbd::room::Room;
use crate::nbd::session::{self, End, Shared, Transport};
use crate::nbd::tls::TlsMode;

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Port 0 takes a free one; [`Server::endpoints`] tells which.
    Tcp(SocketAddr),
    /// A socket file; who may connect is who may write to it.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "nbd://{address}"),
            Self::Unix(path) => write!(f, "nbd+unix:///?socket={}", path.display()),
        }
    }
}

/// One listener.
#[derive(Debug, Clone)]
pub struct Listen {
    /// Where.
    pub endpoint: Endpoint,
    /// Whether TLS is offered or demanded there.
    pub tls: TlsMode,
}

/// How a server is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// The listeners.
    pub listen: Vec<Listen>,
    /// Threads that carry connections; `None`: one a core, at most [`MAX_THREADS`].
    pub threads: Option<NonZeroUsize>,
    /// Connections held open at most, at least 1.
    pub max_connections: usize,
    /// Payload bytes that all connections hold at most; never less than one request may have.
    pub payload_bytes: usize,
    /// How long a client may leave a reply unread or a payload half sent while others wait for its room.
    pub patience: Duration,
    /// TLS records sent under one key before the session looks for a quiet moment to change it.
    pub rekey_records: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            threads: None,
            max_connections: MAX_CONNECTIONS,
            payload_bytes: PAYLOAD_BYTES,
            patience: STUCK_DEADLINE,
            rekey_records: REKEY_RECORDS,
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The endpoint cannot be listened on.
    #[error("cannot listen on {endpoint}: {error}")]
    Listen {
        /// Which one.
        endpoint: Endpoint,
        /// Why.
        error: io::Error,
    },
    /// A thread or its runtime could not be made.
    #[error("cannot start an NBD thread: {0}")]
    Thread(io::Error),
}

/// A running NBD server. Dropping it cuts all connections; [`stop`](Self::stop) ends them in order.
#[derive(Debug)]
pub struct Server {
    state: Arc<State>,
    /// Where connections are accepted.
    listening: Handle,
    workers: Vec<Worker>,
    endpoints: Vec<Endpoint>,
}

impl Server {
    /// Listens, and serves what `registry` holds. `pool` is where payload buffers come from: an export that
    /// takes its READ buffers from the same pool shares their memory.
    ///
    /// # Errors
    /// An endpoint that cannot be listened on; nothing keeps running then.
    pub fn start(config: &Config, registry: Registry, pool: Pool) -> Result<Self, StartError> {
        let mut workers = start_workers(config.threads)?;
        let state = Arc::new(State {
            registry,
            shared: Shared {
                counters: Arc::default(),
                pool,
                room: Room::new(config.payload_bytes),
                patience: config.patience,
                rekey_records: config.rekey_records,
            },
            workers: workers.iter().map(|worker| (worker.handle.clone(), Arc::clone(&worker.load))).collect(),
            max_connections: config.max_connections.max(1),
            sessions: Mutex::default(),
            stopping: watch::Sender::new(false),
            open: watch::Sender::new(0),
        });
        // Whoever connects must not wait for a request of another's.
        let door = start_worker("nbd-listen".to_owned()).map_err(StartError::Thread)?;
        let listening = door.handle.clone();
        workers.push(door);
        let mut server = Self { state, listening, workers, endpoints: Vec::new() };
        for listen in &config.listen {
            let endpoint = server
                .listen(listen)
                .map_err(|error| StartError::Listen { endpoint: listen.endpoint.clone(), error })?;
            info!(%endpoint, "serving NBD");
            server.endpoints.push(endpoint);
        }
        Ok(server)
    }

    /// Where it listens, in the order of the configuration, with the ports that were taken.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.state.shared.counters
    }

    /// Stops: no new connections; requests in flight are finished and answered, what comes after is answered
    /// with ESHUTDOWN; then the connections are closed. Takes as long as the export needs, at most
    /// [`CLOSE_DEADLINE`] and a little.
    pub async fn stop(mut self) {
        self.state.stopping.send_replace(true);
        self.state.close_sessions();
        let mut open = self.state.open.subscribe();
        let all_closed = open.wait_for(|open| *open == 0);
        if timeout(CLOSE_DEADLINE + CLOSE_LINGER * 2, all_closed).await.is_err() {
            warn!("NBD connections were cut: the export did not answer in time");
        }
        let workers = std::mem::take(&mut self.workers);
        for worker in workers {
            drop(worker.quit);
            if worker.thread.join().is_err() {
                warn!("an NBD thread panicked");
            }
        }
    }

    fn listen(&self, listen: &Listen) -> io::Result<Endpoint> {
        let handle = &self.listening;
        let _inside = handle.enter();
        let (state, tls) = (Arc::clone(&self.state), Arc::new(listen.tls.clone()));
        match &listen.endpoint {
            Endpoint::Tcp(address) => {
                let listener = listen_tcp(*address)?;
                let endpoint = Endpoint::Tcp(listener.local_addr()?);
                handle.spawn(accept(listener, state, tls));
                Ok(endpoint)
            }
            Endpoint::Unix(path) => {
                handle.spawn(accept(listen_unix(path)?, state, tls));
                Ok(listen.endpoint.clone())
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.stopping.send_replace(true);
        for endpoint in &self.endpoints {
            if let Endpoint::Unix(path) = endpoint {
                // It may be gone already; a stale file is cleared by the next start.
                drop(std::fs::remove_file(path));
            }
        }
    }
}

/// A thread with its runtime; it ends when `quit` is dropped.
struct Worker {
    handle: Handle,
    load: Arc<AtomicUsize>,
    quit: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Worker({} connections)", self.load.load(Ordering::Relaxed))
    }
}

fn start_workers(threads: Option<NonZeroUsize>) -> Result<Vec<Worker>, StartError> {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let count = threads.map_or(cores.min(MAX_THREADS), NonZeroUsize::get);
    (0..count).map(|index| start_worker(format!("nbd-{index}")).map_err(StartError::Thread)).collect()
}

fn start_worker(name: String) -> io::Result<Worker> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let (quit, quitting) = oneshot::channel();
    let thread = thread::Builder::new().name(name).spawn(move || {
        // The runtime is made where it will be dropped: a runtime must not be dropped inside another.
        match Builder::new_current_thread().enable_io().enable_time().build() {
            Err(error) => drop(sender.send(Err(error))),
            Ok(runtime) => {
                drop(sender.send(Ok(runtime.handle().clone())));
                drop(runtime.block_on(quitting));
            }
        }
    })?;
    let handle = receiver.recv().map_err(io::Error::other)??;
    Ok(Worker { handle, load: Arc::default(), quit, thread })
}

struct State {
    registry: Registry,
    shared: Shared,
    workers: Vec<(Handle, Arc<AtomicUsize>)>,
    max_connections: usize,
    sessions: Mutex<Vec<Weak<Queue>>>,
    stopping: watch::Sender<bool>,
    /// Connections open.
    open: watch::Sender<usize>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "State({:?}, {} open)", self.registry, *self.open.borrow())
    }
}

impl State {
    fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    fn close_sessions(&self) {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.iter().filter_map(Weak::upgrade).for_each(|queue| queue.close());
    }

    /// A queue that hears of the server's stop.
    fn open_queue(&self) -> Arc<Queue> {
        let queue = Arc::new(Queue::default());
        {
            let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            sessions.retain(|queue| queue.strong_count() > 0);
            sessions.push(Arc::downgrade(&queue));
        }
        // The stop may have closed all queues just before this one was there.
        if self.is_stopping() {
            queue.close();
        }
        queue
    }

    /// Counts a connection in, unless there are too many.
    fn admit(self: &Arc<Self>) -> Option<OpenConnection> {
        let counters = &self.shared.counters;
        let mut admitted = false;
        self.open.send_modify(|open| {
            admitted = *open < self.max_connections;
            *open += usize::from(admitted);
        });
        if !admitted {
            Counters::count(&counters.connections_refused);
            return None;
        }
        Counters::count(&counters.connections);
        counters.connections_open.fetch_add(1, Ordering::Relaxed);
        let (handle, load) = self.workers.iter().min_by_key(|(_, load)| load.load(Ordering::Relaxed))?;
        load.fetch_add(1, Ordering::Relaxed);
        Some(OpenConnection { state: Arc::clone(self), handle: handle.clone(), load: Arc::clone(load) })
    }
}

/// Counts the connection out when it is dropped.
struct OpenConnection {
    state: Arc<State>,
    handle: Handle,
    load: Arc<AtomicUsize>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
        self.state.shared.counters.connections_open.fetch_sub(1, Ordering::Relaxed);
        self.state.open.send_modify(|open| *open -= 1);
    }
}

/// A listening socket of either family.
trait Listener: Send + 'static {
    type Stream: Transport + 'static;
    /// What can move to another runtime.
    type Std: Send + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Std>> + Send;
    fn adopt(stream: Self::Std) -> io::Result<Self::Stream>;
}

impl Listener for TcpListener {
    type Stream = TcpStream;
    type Std = std::net::TcpStream;

    async fn accept(&self) -> io::Result<Self::Std> {
        let (stream, _) = Self::accept(self).await?;
        // Replies leave as they are ready; each write carries all there are.
        stream.set_nodelay(true)?;
        stream.into_std()
    }

    fn adopt(stream: Self::Std) -> io::Result<TcpStream> {
        TcpStream::from_std(stream)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;
    type Std = StdUnixStream;

    async fn accept(&self) -> io::Result<Self::Std> {
        let (stream, _) = Self::accept(self).await?;
        stream.into_std()
    }

    fn adopt(stream: Self::Std) -> io::Result<UnixStream> {
        UnixStream::from_std(stream)
    }
}

fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit it: an initiator that lost power must not hold its place for ever.
    socket.set_keepalive(true)?;
    socket.bind(address)?;
    socket.listen(128)
}

/// A socket file that nobody listens on any more is left over from a crash, and replaced.
fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            match StdUnixStream::connect(path) {
                Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
                Err(_) | Ok(_) => return Err(error),
            }
            UnixListener::bind(path)
        }
        other => other,
    }
}

async fn accept<L: Listener>(listener: L, state: Arc<State>, tls: Arc<TlsMode>) {
    let mut stopping = state.stopping.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = Listener::accept(&listener) => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        match accepted {
            Ok(stream) => {
                let Some(open) = state.admit() else {
                    debug!("NBD connection turned away: {} are open", state.max_connections);
                    continue;
                };
                let handle = open.handle.clone();
                handle.spawn(carry::<L>(stream, open, Arc::clone(&tls)));
            }
            Err(error) => {
                warn!(%error, "cannot accept an NBD connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, from its first byte to its last.
async fn carry<L: Listener>(stream: L::Std, open: OpenConnection, tls: Arc<TlsMode>) {
    let state = Arc::clone(&open.state);
    let counters = &state.shared.counters;
    let negotiated = match L::adopt(stream) {
        Ok(stream) => shake_hands(stream, &state, &tls).await,
        Err(error) => Err(error.into()),
    };
    let end = match negotiated {
        Ok(Negotiated::Plain(stream, agreed)) => enter(stream, agreed, &state).await,
        Ok(Negotiated::Tls(stream, agreed)) => {
            Counters::count(&counters.tls_sessions);
            enter(stream, agreed, &state).await
        }
        Ok(Negotiated::Left) => return,
        Err(error) => {
            let counter = match &error {
                HandshakeError::Tls(_) => &counters.tls_failed,
                HandshakeError::Io(_)
                | HandshakeError::Malformed(_)
                | HandshakeError::TooManyOptions
                | HandshakeError::OptionTooLong(_) => &counters.handshakes_failed,
            };
            Counters::count(counter);
            debug!(%error, "NBD negotiation failed");
            return;
        }
    };
    if matches!(end, End::Malformed(_)) {
        Counters::count(&counters.protocol_violations);
    }
    if matches!(end, End::Stuck) {
        warn!(%end, "NBD session ended");
        return;
    }
    debug!(%end, "NBD session ended");
}

/// Negotiation under its deadline, which a stop shortens.
async fn shake_hands<S>(stream: S, state: &State, tls: &TlsMode) -> Result<Negotiated<S>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stopping = state.stopping.subscribe();
    let stopped = async {
        drop(stopping.wait_for(|stopping| *stopping).await);
        sleep(CLOSE_LINGER).await;
    };
    let stopping = || state.is_stopping();
    let setting = Setting { registry: &state.registry, tls, stopping: &stopping };
    tokio::select! {
        negotiated = negotiate(stream, &setting) => negotiated,
        () = stopped => Ok(Negotiated::Left),
        () = sleep(HANDSHAKE_DEADLINE) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

async fn enter<S: Transport>(stream: S, agreed: Agreed, state: &State) -> End {
    let queue = state.open_queue();
    agreed.entry.join(&queue);
    session::run(stream, agreed, queue, state.shared.clone()).await
}
