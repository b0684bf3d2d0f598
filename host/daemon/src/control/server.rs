//! The control socket: HTTP and JSON for the CLI, on a Unix socket that only its owner opens; and `/metrics`.
//!
//! ```text
//! GET  /v1/status                  NodeStatus
//! GET  /v1/plugins                 [PluginStatus]
//! POST /v1/pairs/{name}/{command}  parameters (a JSON object, or nothing) → CommandReply
//! GET  /v1/site                    SiteView, through the site's lead
//! GET  /v1/escrow                  EscrowView, at an escrow site
//! POST /v1/escrow/answer           EscrowAnswer → CommandReply
//! POST /v1/groups/{name}/{command} parameters (a JSON object, or nothing) → CommandReply
//! GET  /metrics                    Prometheus text
//! ```
//!
//! Every error is an [`ErrorReply`].

use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path as UrlPath, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinError;

use super::api::{
    AddPreset, BranchCommand, CommandReply, CutParameters, ErrorCode, ErrorReply, EscrowAnswer, EscrowCommand,
    ForgetParameters, GroupCommand, GroupTakeOver, KeyCommand, PairCommand, Pause, PluginCommand, RecoverCommand,
    RemovePreset, Rotate, SeedCommand, SetMode, SetTransfer, Suspect, Swap, SwapSides, TakeOver, Throttle, Verify,
};
use super::operator::{CommandError, Operator};
use super::scrapes::{self, Bounds};
use crate::observe;

/// Bytes of a request's body: a swap's settings are the largest, and a plugin takes 64 KiB of them.
pub const BODY_BYTES_MAX: usize = 128 << 10;

/// Every command, for messages.
const COMMANDS: &str = "rotate, suspect, pause, resume, mode, transfer, throttle, preset-add, preset-remove, takeover, rejoin, swap-sides, take-back, declare, branch, scrub, verify, seed, escrow, copy-all, swap, plugin, key, recover";

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A node answers there.
    #[error("{}: a node answers on this control socket already; stop it, or give this one another control-socket", path.display())]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// Something other than a socket lies there.
    #[error("{}: this is no socket, and is left alone; remove it, or give [node] another control-socket", path.display())]
    NoSocket {
        /// Which.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("control socket {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Listens on a Unix socket with mode 0600, in place of one that a dead node left behind. Call it on the runtime.
///
/// # Errors
/// [`BindError`].
pub fn bind(path: &Path) -> Result<UnixListener, BindError> {
    let failed = |source| BindError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(found) if !is_socket(&found) => return Err(BindError::NoSocket { path: path.to_owned() }),
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(BindError::InUse { path: path.to_owned() }),
        Ok(_) => fs::remove_file(path).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    // Bound in a folder of our own, so that nobody connects before the mode is set.
    let folder = path.with_extension("new");
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = bind_within(&folder, path).map_err(failed);
    let _ = fs::remove_dir_all(&folder);
    listener
}

fn bind_within(folder: &Path, path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).create(folder)?;
    let first = folder.join("s");
    let listener = UnixListener::bind(&first)?;
    fs::set_permissions(&first, fs::Permissions::from_mode(0o600))?;
    fs::rename(&first, path)?;
    Ok(listener)
}

fn is_socket(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    metadata.file_type().is_socket()
}

/// Serves the control socket until `stop` is ready and requests under way are answered.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: UnixListener,
    operator: Arc<dyn Operator>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, routes(operator)).with_graceful_shutdown(stop).await
}

/// Serves `/metrics` alone, over TCP.
pub async fn serve_metrics(
    listener: TcpListener,
    operator: Arc<dyn Operator>,
    bounds: Bounds,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let routes = Router::new().route("/metrics", get(metrics)).fallback(no_page).with_state(operator);
    scrapes::serve(listener, routes, bounds, stop).await;
}

type Node = State<Arc<dyn Operator>>;
type Body = Result<Bytes, BytesRejection>;

fn routes(operator: Arc<dyn Operator>) -> Router {
    Router::new()
        .route("/v1/status", get(async |State(node): Node| Json(node.status())))
        .route("/v1/plugins", get(async |State(node): Node| Json(node.plugins())))
        .route("/v1/pairs/{name}/{command}", post(command))
        .route("/v1/site", get(site))
        .route("/v1/escrow", get(escrow))
        .route("/v1/escrow/answer", post(escrow_answer))
        .route("/v1/groups/{name}/{command}", post(group_command))
        .route("/metrics", get(metrics))
        .fallback(no_page)
        .method_not_allowed_fallback(other_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(operator)
}

async fn command(State(node): Node, UrlPath((pair, verb)): UrlPath<(String, String)>, body: Body) -> Response {
    match read(body).and_then(|body| parse(&verb, &body)) {
        Ok(command) => to_its_end(async move { node.command(&pair, command).await }).await,
        Err(reply) => error(reply),
    }
}

async fn group_command(State(node): Node, UrlPath((group, verb)): UrlPath<(String, String)>, body: Body) -> Response {
    match read(body).and_then(|body| parse_group(&verb, &body)) {
        Ok(command) => to_its_end(async move { node.group(&group, command).await }).await,
        Err(reply) => error(reply),
    }
}

async fn site(State(node): Node) -> Response {
    answer(node.site().await)
}

async fn escrow(State(node): Node) -> Response {
    answer(node.escrow())
}

async fn escrow_answer(State(node): Node, body: Body) -> Response {
    match read(body).and_then(|body| parameters::<EscrowAnswer>("escrow/answer", &body)) {
        Ok(said) => answer(node.escrow_answer(said)),
        Err(reply) => error(reply),
    }
}

fn read(body: Body) -> Result<Bytes, ErrorReply> {
    body.map_err(|_| bad_request(format!("the body is longer than {BODY_BYTES_MAX} bytes, or was cut off")))
}

/// A command goes on when whoever gave it hangs up: half of one would leave its test behind, and its locks open while its work runs on.
async fn to_its_end(command: impl Future<Output = Result<CommandReply, CommandError>> + Send + 'static) -> Response {
    let ended = |error: JoinError| CommandError::Failed { reason: error.to_string(), next: None };
    answer(tokio::spawn(command).await.unwrap_or_else(|error| Err(ended(error))))
}

fn answer(outcome: Result<impl serde::Serialize, CommandError>) -> Response {
    match outcome {
        Ok(reply) => Json(reply).into_response(),
        Err(refused) => error(refused.reply()),
    }
}

fn parse_group(verb: &str, body: &[u8]) -> Result<GroupCommand, ErrorReply> {
    Ok(match verb {
        "cut" => GroupCommand::Cut { name: parameters::<CutParameters>(verb, body)?.name },
        "pause" => {
            let Pause { wait, by, span, alone: _ } = parameters::<Pause>(verb, body)?;
            GroupCommand::Pause { wait, by, span }
        }
        "resume" => parameters::<Nothing>(verb, body).map(|Nothing {}| GroupCommand::Resume)?,
        "swap-sides" => parameters::<Nothing>(verb, body).map(|Nothing {}| GroupCommand::SwapSides)?,
        "preset-add" => GroupCommand::AddPreset(parameters::<AddPreset>(verb, body)?),
        "preset-remove" => GroupCommand::RemovePreset(parameters::<RemovePreset>(verb, body)?),
        "declare" => parameters::<Nothing>(verb, body).map(|Nothing {}| GroupCommand::Declare)?,
        "takeover" => GroupCommand::TakeOver { at: parameters::<GroupTakeOver>(verb, body)?.at },
        "forget" => GroupCommand::Forget { pair: parameters::<ForgetParameters>(verb, body)?.pair },
        _ => {
            let message = format!("there is no command {:?} for groups", verb.chars().take(32).collect::<String>());
            let next = Some(
                "commands: cut, pause, resume, swap-sides, takeover, declare, preset-add, preset-remove, forget"
                    .to_owned(),
            );
            return Err(ErrorReply { code: ErrorCode::NotFound, message, next });
        }
    })
}

fn parse(verb: &str, body: &[u8]) -> Result<PairCommand, ErrorReply> {
    Ok(match verb {
        "rotate" => PairCommand::Rotate(rotate(parameters::<Rotate>(verb, body)?)?),
        "suspect" => PairCommand::Suspect(parameters::<Suspect>(verb, body)?),
        "pause" => PairCommand::Pause(parameters::<Pause>(verb, body)?),
        "resume" => parameters::<Nothing>(verb, body).map(|Nothing {}| PairCommand::Resume)?,
        "mode" => PairCommand::SetMode(parameters::<SetMode>(verb, body)?),
        "transfer" => PairCommand::SetTransfer(parameters::<SetTransfer>(verb, body)?),
        "throttle" => PairCommand::Throttle(parameters::<Throttle>(verb, body)?),
        "preset-add" => PairCommand::AddPreset(parameters::<AddPreset>(verb, body)?),
        "preset-remove" => PairCommand::RemovePreset(parameters::<RemovePreset>(verb, body)?),
        "rejoin" => parameters::<Nothing>(verb, body).map(|Nothing {}| PairCommand::Rejoin)?,
        "swap-sides" => PairCommand::SwapSides(parameters::<SwapSides>(verb, body)?),
        "declare" => parameters::<Nothing>(verb, body).map(|Nothing {}| PairCommand::Declare)?,
        "take-back" => parameters::<Nothing>(verb, body).map(|Nothing {}| PairCommand::TakeBack)?,
        "branch" => PairCommand::Branch(parameters::<BranchCommand>(verb, body)?),
        "takeover" => PairCommand::TakeOver(parameters::<TakeOver>(verb, body)?),
        "scrub" => parameters::<Nothing>(verb, body).map(|Nothing {}| PairCommand::Scrub)?,
        "verify" => PairCommand::Verify(parameters::<Verify>(verb, body)?),
        "seed" => PairCommand::Seed(parameters::<SeedCommand>(verb, body)?),
        "escrow" => PairCommand::Escrow(parameters::<EscrowCommand>(verb, body)?),
        "copy-all" => parameters::<Nothing>(verb, body).map(|Nothing {}| PairCommand::CopyAll)?,
        "swap" => PairCommand::Swap(parameters::<Swap>(verb, body)?),
        "plugin" => PairCommand::Plugin(parameters::<PluginCommand>(verb, body)?),
        "key" => PairCommand::Key(parameters::<KeyCommand>(verb, body)?),
        "recover" => PairCommand::Recover(parameters::<RecoverCommand>(verb, body)?),
        _ => {
            let message = format!("there is no command {:?}", verb.chars().take(32).collect::<String>());
            return Err(ErrorReply { code: ErrorCode::NotFound, message, next: Some(format!("commands: {COMMANDS}")) });
        }
    })
}

/// `at-once` is the host's own way, not an operator's.
fn rotate(rotate: Rotate) -> Result<Rotate, ErrorReply> {
    if rotate.how == Some(farseal_core::rotation::How::AtOnce) {
        return Err(bad_request("rotate: how is \"in-band\" or \"pause\"".to_owned()));
    }
    Ok(rotate)
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// No body is an empty object.
fn parameters<T: DeserializeOwned>(verb: &str, body: &[u8]) -> Result<T, ErrorReply> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body)
        .map_err(|error| bad_request(format!("the parameters of {verb} are not sound: {error}")))
}

fn bad_request(message: String) -> ErrorReply {
    let next = Some("send a JSON object, as /v1/pairs/NAME/rotate with {\"force\": true}".to_owned());
    ErrorReply { code: ErrorCode::BadRequest, message, next }
}

async fn metrics(State(node): Node) -> Response {
    let mut text = observe::metrics(&node.status());
    node.metrics(&mut text);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn no_page() -> Response {
    let next = Some(
        "GET /v1/status, /v1/plugins, /v1/site, /v1/escrow, /metrics; POST /v1/pairs/NAME/COMMAND, /v1/groups/NAME/COMMAND"
            .to_owned(),
    );
    error(ErrorReply { code: ErrorCode::NotFound, message: "there is nothing at this path".to_owned(), next })
}

async fn other_method() -> Response {
    error(bad_request("commands are POST, everything else is GET".to_owned()))
}

fn error(reply: ErrorReply) -> Response {
    let status = match reply.code {
        ErrorCode::BadRequest => StatusCode::BAD_REQUEST,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::Refused => StatusCode::CONFLICT,
        ErrorCode::Failed => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, Json(reply)).into_response()
}
