//! `/metrics` over TCP: few connections at once, each for one answer and not for long
//!
//! Whoever reaches the port may connect, and each connection is one of the descriptors that journals and logs need, too.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long the listener rests when nothing can be accepted, as without a free descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How much a listener takes on.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections at once; others wait until one ends.
    pub connections: usize,
    /// From accepting one to the last byte of its answer.
    pub longest: Duration,
}

impl Default for Bounds {
    /// A scrape is answered in milliseconds, and a site has few who scrape.
    fn default() -> Self {
        Self { connections: 16, longest: Duration::from_secs(5) }
    }
}

/// Serves `routes` until `stop` is ready.
pub async fn serve(listener: TcpListener, routes: Router, bounds: Bounds, stop: impl Future<Output = ()> + Send) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    tokio::pin!(stop);
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            () = &mut stop => return,
        };
        match accepted {
            Ok((socket, _)) => {
                let routes = routes.clone();
                tokio::spawn(async move {
                    answer(socket, routes, bounds.longest).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for /metrics");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One request, one answer. The socket is closed when this returns.
async fn answer(socket: TcpStream, routes: Router, longest: Duration) {
    let service = TowerToHyperService::new(routes);
    let answering = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(socket), service);
    match timeout(longest, answering).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection for /metrics broke"),
        Err(_) => tracing::debug!("a connection for /metrics took too long"),
    }
}
