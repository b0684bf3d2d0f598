//! A line between two sites that lets nothing more through to the remote from the moment on that main keeps a hand-over.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Carries connections for as long as the test's process lives.
pub(crate) struct Line {
    pub(crate) port: u16,
    mended: Arc<AtomicBool>,
}

impl Line {
    /// `lane`: main's file that says whether it hands over. It does before the other site is asked, so whatever may
    /// hold the question is read here after the file says so.
    pub(crate) fn start(to: u16, lane: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mended = Arc::new(AtomicBool::new(false));
        let line = Self { port, mended: Arc::clone(&mended) };
        std::thread::spawn(move || {
            for main in listener.incoming().map_while(Result::ok) {
                let Ok(remote) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let (back, there) = (main.try_clone().unwrap(), remote.try_clone().unwrap());
                let (lane, mended) = (lane.clone(), Arc::clone(&mended));
                std::thread::spawn(move || {
                    carry(main, remote, &|| hands_over(&lane) && !mended.load(Ordering::Acquire))
                });
                std::thread::spawn(move || carry(there, back, &|| false));
            }
        });
        line
    }

    /// Connections that come from now on get through.
    pub(crate) fn mend(&self) {
        self.mended.store(true, Ordering::Release);
    }
}

pub(crate) fn hands_over(lane: &Path) -> bool {
    let text = fs::read(lane).unwrap_or_default();
    let lane: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    !lane["handing_over"].is_null()
}

fn carry(mut from: TcpStream, mut into: TcpStream, closed: &dyn Fn() -> bool) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        if closed() {
            break;
        }
        if into.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), into.shutdown(Shutdown::Both));
}
