//! A small NBD client that does exactly what it is told, also what no real client would.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use farseal::nbd::wire::{
    OPTION_MAGIC, OPTION_REPLY_MAGIC, RequestHeader, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk, greeting, opt,
    rep,
};

use crate::memory::PATIENCE;

pub(crate) struct Client<S> {
    pub(crate) stream: S,
}

/// One reply message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// Cookie and error.
    Simple(u64, u32),
    /// Cookie, last, kind, payload.
    Chunk(u64, bool, u16, Vec<u8>),
}

impl Client<TcpStream> {
    /// Connects and exchanges flags.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::greet(stream, 3)
    }

    /// A session on the default export, with or without structured replies.
    pub(crate) fn enter(address: SocketAddr, structured: bool) -> Self {
        let mut client = Self::connect(address);
        if structured {
            assert_eq!(client.option(opt::STRUCTURED_REPLY, &[]), [(rep::ACK, vec![])]);
        }
        client.go("");
        client
    }
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn greet(mut stream: S, flags: u32) -> Self {
        let mut bytes = [0; 18];
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, greeting());
        stream.write_all(&flags.to_be_bytes()).unwrap();
        Self { stream }
    }

    pub(crate) fn send_option(&mut self, option: u32, data: &[u8]) {
        let len = u32::try_from(data.len()).unwrap();
        let header = [&OPTION_MAGIC.to_be_bytes()[..], &option.to_be_bytes(), &len.to_be_bytes()].concat();
        self.stream.write_all(&[&header, data].concat()).unwrap();
    }

    /// Sends an option, and gives its replies: kind and data.
    pub(crate) fn option(&mut self, option: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        self.send_option(option, data);
        let mut replies = Vec::new();
        loop {
            assert_eq!(self.array(), OPTION_REPLY_MAGIC.to_be_bytes());
            assert_eq!(self.u32(), option);
            let (kind, len) = (self.u32(), self.u32());
            replies.push((kind, self.bytes(len)));
            if kind == rep::ACK || kind >> 31 == 1 {
                return replies;
            }
        }
    }

    pub(crate) fn go(&mut self, name: &str) {
        let replies = self.option(opt::GO, &with_length(name, &[0, 0]));
        assert_eq!(replies.last().unwrap().0, rep::ACK);
    }

    pub(crate) fn send(&mut self, header: RequestHeader, payload: &[u8]) {
        self.stream.write_all(&[&header.encode(), payload].concat()).unwrap();
    }

    /// The next reply message; a simple reply's data is left to the caller.
    pub(crate) fn receive(&mut self) -> Message {
        match self.u32() {
            SIMPLE_REPLY_MAGIC => {
                let error = self.u32();
                Message::Simple(self.u64(), error)
            }
            STRUCTURED_REPLY_MAGIC => {
                let [f0, f1, k0, k1] = self.array();
                let (cookie, len) = (self.u64(), self.u32());
                let last = u16::from_be_bytes([f0, f1]) & chunk::DONE != 0;
                Message::Chunk(cookie, last, u16::from_be_bytes([k0, k1]), self.bytes(len))
            }
            other => panic!("reply magic {other:#x}"),
        }
    }

    /// Sends a request and gives the error number of its reply; 0 where it went well.
    pub(crate) fn call(&mut self, header: RequestHeader, payload: &[u8]) -> u32 {
        self.send(header, payload);
        match self.receive() {
            Message::Simple(cookie, error) => {
                assert_eq!(cookie, header.cookie);
                error
            }
            Message::Chunk(cookie, last, kind, data) => {
                assert_eq!((cookie, last, kind), (header.cookie, true, chunk::ERROR));
                u32::from_be_bytes(data[..4].try_into().unwrap())
            }
        }
    }

    /// Whether the server closed the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    pub(crate) fn bytes(&mut self, len: u32) -> Vec<u8> {
        let mut bytes = vec![0; len.try_into().unwrap()];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }
}

/// A request; the cookie is made of the rest.
pub(crate) fn request(command: u16, flags: u16, offset: u64, len: u32) -> RequestHeader {
    RequestHeader { flags, command, cookie: offset ^ u64::from(command) << 48, offset, len }
}

/// A string behind its length, and what follows.
pub(crate) fn with_length(text: &str, rest: &[u8]) -> Vec<u8> {
    let len = u32::try_from(text.len()).unwrap();
    [&len.to_be_bytes()[..], text.as_bytes(), rest].concat()
}
