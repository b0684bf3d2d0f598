//! The line between two sites with a tap on it: everything that crosses is kept.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// A line that carries whatever comes to it.
pub(crate) struct Tap {
    pub(crate) port: u16,
    crossed: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    /// Carries to the port `to` and back.
    pub(crate) fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let crossed = Arc::new(Mutex::new(Vec::new()));
        let tap = Self { port, crossed: Arc::clone(&crossed) };
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let back = (far.try_clone().unwrap(), near.try_clone().unwrap());
                for (from, to) in [(near, far), back] {
                    let crossed = Arc::clone(&crossed);
                    std::thread::spawn(move || carry(from, to, &crossed));
                }
            }
        });
        tap
    }

    /// Did these bytes cross in one piece? Both directions are in the order of their coming.
    pub(crate) fn saw(&self, bytes: &[u8]) -> bool {
        let crossed = self.crossed.lock().unwrap_or_else(PoisonError::into_inner);
        crossed.windows(bytes.len()).any(|window| window == bytes)
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, crossed: &Mutex<Vec<u8>>) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        crossed.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..count]);
        if to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
