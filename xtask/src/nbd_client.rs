//! A small NBD client: fixed newstyle, GO, simple replies, one request at a time. For machines without another one,
//! and for writes whose order must be known.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// doc/proto.md of the NBD project, as are the numbers below.
const OPTION_MAGIC: u64 = 0x4948_4156_454F_5054;
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_FLAG_ERROR: u32 = 1 << 31;
/// More than any server's answer to GO.
const OPTION_REPLY_MAX: u32 = 64 << 10;
/// A server that answers nothing for this long is taken for dead.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to one export.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    cookie: u64,
    /// Bytes of the export.
    pub(crate) size: u64,
}

#[derive(Debug, Clone, Copy)]
enum Command {
    Read = 0,
    Write = 1,
    Disconnect = 2,
    Flush = 3,
}

impl Client {
    pub(crate) fn connect(socket: &Path, export: &str) -> Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| format!("nobody listens at {}", socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut client = Self { stream, cookie: 0, size: 0 };
        client.negotiate(export).with_context(|| format!("NBD negotiation for export {export:?}"))?;
        Ok(client)
    }

    fn negotiate(&mut self, export: &str) -> Result<()> {
        if &self.bytes::<8>()? != b"NBDMAGIC" || u64::from_be_bytes(self.bytes()?) != OPTION_MAGIC {
            bail!("this is no NBD server of the newstyle");
        }
        let flags = u16::from_be_bytes(self.bytes()?);
        // Fixed newstyle and no-zeroes, both echoed.
        self.stream.write_all(&u32::from(flags & 3).to_be_bytes())?;
        let name = u32::try_from(export.len())?;
        let mut option = Vec::new();
        option.extend(OPTION_MAGIC.to_be_bytes());
        option.extend(OPT_GO.to_be_bytes());
        option.extend((name + 6).to_be_bytes());
        option.extend(name.to_be_bytes());
        option.extend(export.as_bytes());
        option.extend([0, 0]);
        self.stream.write_all(&option)?;
        loop {
            if u64::from_be_bytes(self.bytes()?) != REPLY_MAGIC || u32::from_be_bytes(self.bytes()?) != OPT_GO {
                bail!("the answer is no option reply");
            }
            let (kind, len) = (u32::from_be_bytes(self.bytes()?), u32::from_be_bytes(self.bytes()?));
            if len > OPTION_REPLY_MAX {
                bail!("an option reply of {len} bytes");
            }
            let mut body = vec![0; usize::try_from(len)?];
            self.stream.read_exact(&mut body)?;
            match kind {
                REP_ACK => return Ok(()),
                // NBD_INFO_EXPORT is 0: u16 type, u64 size, u16 flags.
                REP_INFO => {
                    if let (Some([0, 0]), Some(size)) = (body.first_chunk(), body.get(2..10)) {
                        self.size = u64::from_be_bytes(size.try_into()?);
                    }
                }
                kind if kind & REP_FLAG_ERROR != 0 => {
                    bail!("refused ({kind:#x}): {}", String::from_utf8_lossy(&body))
                }
                _ => {}
            }
        }
    }

    /// The connection itself, for whoever keeps many requests under way.
    pub(crate) fn stream(&self) -> Result<UnixStream> {
        Ok(self.stream.try_clone()?)
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.request(Command::Write, offset, u32::try_from(data.len())?, data, &mut [])
    }

    pub(crate) fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<()> {
        self.request(Command::Read, offset, u32::try_from(data.len())?, &[], data)
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        self.request(Command::Flush, 0, 0, &[], &mut [])
    }

    fn send(&mut self, command: Command, offset: u64, len: u32, data: &[u8]) -> Result<()> {
        self.cookie += 1;
        let mut request = Vec::with_capacity(28 + data.len());
        request.extend(REQUEST_MAGIC.to_be_bytes());
        request.extend([0, 0]);
        request.extend((command as u16).to_be_bytes());
        request.extend(self.cookie.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(len.to_be_bytes());
        request.extend(data);
        Ok(self.stream.write_all(&request)?)
    }

    fn request(&mut self, command: Command, offset: u64, len: u32, data: &[u8], answer: &mut [u8]) -> Result<()> {
        self.send(command, offset, len, data)?;
        if u32::from_be_bytes(self.bytes()?) != SIMPLE_REPLY_MAGIC {
            bail!("the answer is no simple reply");
        }
        let error = u32::from_be_bytes(self.bytes()?);
        if u64::from_be_bytes(self.bytes()?) != self.cookie {
            bail!("the answer is to another request");
        }
        if error != 0 {
            bail!("the server answers {command:?} at {offset} with error {error}");
        }
        Ok(self.stream.read_exact(answer)?)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.send(Command::Disconnect, 0, 0, &[]);
    }
}
