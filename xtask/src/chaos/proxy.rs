//! The line between two sites, in user space: it can be cut, stalled, half-closed, slowed, delayed and made one-way.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};

use super::history::Random;
use super::load::locked;

/// How often a waiting direction looks whether the trouble is over.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Bytes that are carried at once.
const PIECE_BYTES: usize = 64 << 10;

/// What ails the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    None,
    /// Connections are reset, and new ones too.
    Cut,
    /// Connections stand; nothing gets through.
    Stall,
    /// Nothing gets through to main, or to the remote.
    OneWay {
        to_main: bool,
    },
    /// One direction of every connection is ended in order.
    HalfClose {
        to_main: bool,
    },
    /// So many bytes a second, each way.
    Slow {
        bytes: u64,
    },
    /// Every piece comes so much later.
    Delay {
        millis: u64,
    },
}

impl Trouble {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let to_main = random.one_in(2);
        match random.below(7) {
            0 | 1 => Self::Cut,
            2 => Self::Stall,
            3 => Self::OneWay { to_main },
            4 => Self::HalfClose { to_main },
            5 => Self::Slow { bytes: 20_000 + random.below(2_000_000) },
            _ => Self::Delay { millis: 1 + random.below(200) },
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "no trouble",
            Self::Cut => "link cut",
            Self::Stall => "link stalled",
            Self::OneWay { .. } => "link one-way",
            Self::HalfClose { .. } => "link half-closed",
            Self::Slow { .. } => "link slow",
            Self::Delay { .. } => "link delayed",
        }
    }
}

/// Carries connections until it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    trouble: Arc<Mutex<Trouble>>,
    over: Arc<AtomicBool>,
    pub(crate) port: u16,
}

impl Proxy {
    /// Listens on a port of its own and carries what comes to `to`.
    pub(crate) fn start(to: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no free TCP port")?;
        let port = listener.local_addr()?.port();
        listener.set_nonblocking(true)?;
        let trouble = Arc::new(Mutex::new(Trouble::None));
        let over = Arc::new(AtomicBool::new(false));
        let (shared, ended) = (Arc::clone(&trouble), Arc::clone(&over));
        std::thread::spawn(move || {
            while !ended.load(Ordering::Acquire) {
                match listener.accept() {
                    Ok((stream, _)) => carry(stream, to, &shared, &ended),
                    Err(_) => std::thread::sleep(LOOK_EVERY),
                }
            }
        });
        Ok(Self { trouble, over, port })
    }

    pub(crate) fn set(&self, trouble: Trouble) {
        *locked(&self.trouble) = trouble;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
    }
}

fn carry(main: TcpStream, to: u16, trouble: &Arc<Mutex<Trouble>>, over: &Arc<AtomicBool>) {
    if *locked(trouble) == Trouble::Cut {
        return;
    }
    // Where nobody listens, main's connection ends as if it had been refused.
    let Ok(remote) = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], to))) else { return };
    for (from, into, to_main) in [(&main, &remote, false), (&remote, &main, true)] {
        let (Ok(from), Ok(into)) = (from.try_clone(), into.try_clone()) else { return };
        let (trouble, over) = (Arc::clone(trouble), Arc::clone(over));
        std::thread::spawn(move || {
            let ended_in_order = pump(&from, &into, to_main, &trouble, &over);
            if ended_in_order {
                let _ = into.shutdown(Shutdown::Write);
            } else {
                let _ = from.shutdown(Shutdown::Both);
                let _ = into.shutdown(Shutdown::Both);
            }
        });
    }
}

/// One direction of one connection. Says whether it ended in order.
fn pump(
    mut from: &TcpStream,
    mut into: &TcpStream,
    to_main: bool,
    trouble: &Mutex<Trouble>,
    over: &AtomicBool,
) -> bool {
    let mut piece = vec![0; PIECE_BYTES];
    if from.set_nodelay(true).and_then(|()| from.set_read_timeout(Some(LOOK_EVERY))).is_err() {
        return false;
    }
    while !over.load(Ordering::Acquire) {
        let now = *locked(trouble);
        match now {
            Trouble::Cut => return false,
            Trouble::HalfClose { to_main: this } if this == to_main => return true,
            Trouble::OneWay { to_main: this } if this == to_main => {
                std::thread::sleep(LOOK_EVERY);
                continue;
            }
            Trouble::Stall => {
                std::thread::sleep(LOOK_EVERY);
                continue;
            }
            Trouble::None
            | Trouble::OneWay { .. }
            | Trouble::HalfClose { .. }
            | Trouble::Slow { .. }
            | Trouble::Delay { .. } => {}
        }
        let most = if let Trouble::Slow { bytes } = now {
            usize::try_from(bytes / 50).unwrap_or(1).max(1)
        } else {
            PIECE_BYTES
        };
        match from.read(&mut piece[..most.min(PIECE_BYTES)]) {
            Ok(0) => return true,
            Ok(count) => {
                match now {
                    Trouble::Slow { .. } => std::thread::sleep(Duration::from_millis(20)),
                    Trouble::Delay { millis } => std::thread::sleep(Duration::from_millis(millis)),
                    Trouble::None
                    | Trouble::Cut
                    | Trouble::Stall
                    | Trouble::OneWay { .. }
                    | Trouble::HalfClose { .. } => {}
                }
                if into.write_all(&piece[..count]).is_err() {
                    return false;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return false,
        }
    }
    false
}
