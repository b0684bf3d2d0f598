//! The CLI's side of the control socket: one request, one reply, and a clear word where no node answers.

use std::io;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::api::{
    CommandReply, CutParameters, ErrorReply, EscrowAnswer, EscrowView, ForgetParameters, GroupCommand, GroupTakeOver,
    NodeStatus, PairCommand, Pause, PluginStatus, SiteView,
};

/// Bytes of a reply at most: the status of 1 024 pairs takes a quarter of it.
const REPLY_BYTES_MAX: usize = 16 << 20;

/// A node's control socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// Why there is no answer, or not a good one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no node runs here: {}: {source}", socket.display())]
    NotRunning {
        /// Where one was expected.
        socket: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The socket belongs to someone else.
    #[error("{}: only the node's own user may use its control socket", socket.display())]
    NotAllowed {
        /// Which.
        socket: PathBuf,
    },
    /// The connection broke.
    #[error("the node went away while it was asked: {0}")]
    Lost(#[from] hyper::Error),
    /// The node answers something else.
    #[error("the node's reply is not understood: {reason}")]
    Nonsense {
        /// Why.
        reason: String,
    },
    /// The node says no.
    #[error("{}", reply.message)]
    Refused {
        /// Its words.
        reply: ErrorReply,
    },
}

impl ClientError {
    /// What the operator can do.
    #[must_use]
    pub fn next(&self) -> Option<String> {
        match self {
            Self::NotRunning { .. } => {
                Some("start it with `farseal run --config FILE`, or name its configuration with --config".to_owned())
            }
            Self::NotAllowed { .. } => Some("run the command as that user".to_owned()),
            Self::Lost(_) => Some("`farseal status` shows whether it runs".to_owned()),
            Self::Nonsense { .. } => Some("use the same version of farseal for node and command".to_owned()),
            Self::Refused { reply } => reply.next.clone(),
        }
    }
}

impl Client {
    /// The node with this control socket.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Everything, as it is now.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn status(&self) -> Result<NodeStatus, ClientError> {
        self.ask(Method::GET, "/v1/status", Vec::new()).await
    }

    /// Every plugin of every pair.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn plugins(&self) -> Result<Vec<PluginStatus>, ClientError> {
        self.ask(Method::GET, "/v1/plugins", Vec::new()).await
    }

    /// Tells a pair something, and waits until it is done.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn command(&self, pair: &str, command: &PairCommand) -> Result<CommandReply, ClientError> {
        let body = match command {
            PairCommand::Rotate(parameters) => json(parameters)?,
            PairCommand::Suspect(parameters) => json(parameters)?,
            PairCommand::Pause(parameters) => json(parameters)?,
            PairCommand::SetMode(parameters) => json(parameters)?,
            PairCommand::SetTransfer(parameters) => json(parameters)?,
            PairCommand::Throttle(parameters) => json(parameters)?,
            PairCommand::AddPreset(parameters) => json(parameters)?,
            PairCommand::RemovePreset(parameters) => json(parameters)?,
            PairCommand::Swap(parameters) => json(parameters)?,
            PairCommand::Branch(parameters) => json(parameters)?,
            PairCommand::Plugin(parameters) => json(parameters)?,
            PairCommand::Key(parameters) => json(parameters)?,
            PairCommand::Recover(parameters) => json(parameters)?,
            PairCommand::Verify(parameters) => json(parameters)?,
            PairCommand::Seed(parameters) => json(parameters)?,
            PairCommand::SwapSides(parameters) => json(parameters)?,
            PairCommand::Escrow(parameters) => json(parameters)?,
            PairCommand::Resume
            | PairCommand::Rejoin
            | PairCommand::TakeBack
            | PairCommand::Declare
            | PairCommand::Scrub
            | PairCommand::CopyAll => Vec::new(),
            PairCommand::TakeOver(parameters) => json(parameters)?,
        };
        let path = format!("/v1/pairs/{}/{}", escaped(pair), command.name());
        self.ask(Method::POST, &path, body).await
    }

    /// What this node holds and was asked for, as an escrow site.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn escrow(&self) -> Result<EscrowView, ClientError> {
        self.ask(Method::GET, "/v1/escrow", Vec::new()).await
    }

    /// Says yes or no to a request for keys.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn escrow_answer(&self, answer: &EscrowAnswer) -> Result<CommandReply, ClientError> {
        self.ask(Method::POST, "/v1/escrow/answer", json(answer)?).await
    }

    /// The whole site, through its lead.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn site(&self) -> Result<SiteView, ClientError> {
        self.ask(Method::GET, "/v1/site", Vec::new()).await
    }

    /// Tells a group something, and waits until it is done.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn group(&self, group: &str, command: &GroupCommand) -> Result<CommandReply, ClientError> {
        let body = match command {
            GroupCommand::Cut { name } => json(&CutParameters { name: name.clone() })?,
            GroupCommand::Pause { wait, by, span } => {
                json(&Pause { wait: *wait, by: by.clone(), span: *span, alone: false })?
            }
            GroupCommand::Forget { pair } => json(&ForgetParameters { pair: pair.clone() })?,
            GroupCommand::AddPreset(preset) => json(preset)?,
            GroupCommand::RemovePreset(preset) => json(preset)?,
            GroupCommand::TakeOver { at } => json(&GroupTakeOver { at: at.clone() })?,
            GroupCommand::Resume | GroupCommand::SwapSides | GroupCommand::Declare => Vec::new(),
        };
        let path = format!("/v1/groups/{}/{}", escaped(group), command.name());
        self.ask(Method::POST, &path, body).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Vec<u8>) -> Result<T, ClientError> {
        let (good, reply) = self.exchange(method, path, body).await?;
        let nonsense = |error: serde_json::Error| ClientError::Nonsense { reason: error.to_string() };
        if good {
            serde_json::from_slice(&reply).map_err(nonsense)
        } else {
            Err(ClientError::Refused { reply: serde_json::from_slice(&reply).map_err(nonsense)? })
        }
    }

    /// Was it a success, and the reply.
    async fn exchange(&self, method: Method, path: &str, body: Vec<u8>) -> Result<(bool, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| {
            let socket = self.socket.clone();
            if source.kind() == io::ErrorKind::PermissionDenied {
                ClientError::NotAllowed { socket }
            } else {
                ClientError::NotRunning { socket, source }
            }
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "farseal")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| ClientError::Nonsense { reason: error.to_string() })?;
        let exchange = async {
            let reply = sender.send_request(request).await?;
            let good = reply.status().is_success();
            let body = Limited::new(reply.into_body(), REPLY_BYTES_MAX).collect().await;
            let body = body.map_err(|error| ClientError::Nonsense { reason: error.to_string() })?;
            Ok((good, body.to_bytes()))
        };
        let mut connection = std::pin::pin!(connection);
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            // The connection moves the bytes; when it ends first, the exchange has all that will ever come.
            _ = &mut connection => exchange.await,
            result = &mut exchange => result,
        }
    }
}

fn json<T: Serialize>(parameters: &T) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(parameters).map_err(|error| ClientError::Nonsense { reason: error.to_string() })
}

/// A name as one segment of a path.
fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
