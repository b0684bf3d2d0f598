//! Negotiation on a socket: greeting, options, the step up to TLS.
//!
//! Reads exactly one option at a time and nothing beyond, so that bytes sent in clear after STARTTLS
//! can never be taken for bytes that came over TLS.

use std::io;

use rustls::ServerConfig;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::nbd::limits::{MAX_OPTION_DATA, MAX_OPTION_SKIP, TLS_BUFFER, TLS_READ};
use crate::nbd::negotiate::{Agreed, Negotiation, Step};
use crate::nbd::registry::Registry;
use crate::nbd::tls::TlsMode;
use crate::nbd::wire::{ClientFlags, Malformed, OPTION_BYTES, OptionHeader, greeting};

/// TLS over a socket that is read in large pieces.
pub(crate) type Tls<S> = TlsStream<BufReader<S>>;

/// A connection that may enter transmission.
#[derive(Debug)]
pub(crate) enum Negotiated<S> {
    Plain(S, Agreed),
    Tls(Box<Tls<S>>, Agreed),
    /// The client left, or was shown the door by the rules of the protocol.
    Left,
}

/// Why negotiation ended badly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("connection lost: {0}")]
    Io(#[from] io::Error),
    #[error("not NBD: {0}")]
    Malformed(#[from] Malformed),
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error("too many options")]
    TooManyOptions,
    #[error("an option with {0} bytes of data")]
    OptionTooLong(u32),
}

/// What negotiation needs to know.
pub(crate) struct Setting<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) tls: &'a TlsMode,
    /// Whether the server is stopping.
    pub(crate) stopping: &'a (dyn Fn() -> bool + Send + Sync),
}

/// Negotiates until transmission, or until the client is gone.
pub(crate) async fn negotiate<S>(mut stream: S, setting: &Setting<'_>) -> Result<Negotiated<S>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&greeting()).await?;
    let mut flags = [0; 4];
    stream.read_exact(&mut flags).await?;
    let mut negotiation = Negotiation::new(ClientFlags::decode(flags)?, setting.tls.policy());
    match (haggle(&mut stream, &mut negotiation, setting).await?, setting.tls.config()) {
        (Some(Next::Enter(agreed)), _) => Ok(Negotiated::Plain(stream, agreed)),
        (Some(Next::StartTls), Some(config)) => {
            let mut stream = start_tls(stream, config).await?;
            negotiation.secured();
            match haggle(&mut stream, &mut negotiation, setting).await? {
                Some(Next::Enter(agreed)) => Ok(Negotiated::Tls(Box::new(stream), agreed)),
                Some(Next::StartTls) | None => Ok(Negotiated::Left),
            }
        }
        (Some(Next::StartTls) | None, _) => Ok(Negotiated::Left),
    }
}

enum Next {
    Enter(Agreed),
    StartTls,
}

async fn start_tls<S>(stream: S, config: &Arc<ServerConfig>) -> Result<Tls<S>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let acceptor = TlsAcceptor::from(Arc::clone(config));
    let mut stream = acceptor.accept(BufReader::with_capacity(TLS_READ, stream)).await.map_err(HandshakeError::Tls)?;
    stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
    Ok(stream)
}

/// Options until one of them leads on; `None` where the connection is to be closed.
async fn haggle<S>(
    stream: &mut S,
    negotiation: &mut Negotiation,
    setting: &Setting<'_>,
) -> Result<Option<Next>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut data = Vec::new();
    loop {
        let mut header = [0; OPTION_BYTES];
        match stream.read_exact(&mut header).await {
            Err(lost) if lost.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        };
        let header = OptionHeader::decode(&header)?;
        if negotiation.count_option() {
            return Err(HandshakeError::TooManyOptions);
        }
        if header.len > MAX_OPTION_DATA {
            skip(stream, header.len).await?;
            send(stream, &Negotiation::too_big(header.option)).await?;
            continue;
        }
        data.resize(usize::try_from(header.len).unwrap_or(0), 0);
        stream.read_exact(&mut data).await?;
        match negotiation.option(header.option, &data, setting.registry, (setting.stopping)()) {
            Step::Reply(bytes) => send(stream, &bytes).await?,
            Step::Enter(bytes, agreed) => {
                send(stream, &bytes).await?;
                return Ok(Some(Next::Enter(agreed)));
            }
            Step::StartTls(bytes) => {
                send(stream, &bytes).await?;
                return Ok(Some(Next::StartTls));
            }
            Step::Close(bytes) => {
                send(stream, &bytes).await?;
                stream.shutdown().await?;
                return Ok(None);
            }
        }
    }
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

async fn skip<S: AsyncRead + Unpin>(stream: &mut S, len: u32) -> Result<(), HandshakeError> {
    if len > MAX_OPTION_SKIP {
        return Err(HandshakeError::OptionTooLong(len));
    }
    let mut rest = stream.take(u64::from(len));
    let skipped = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    if skipped < u64::from(len) { Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()) } else { Ok(()) }
}
