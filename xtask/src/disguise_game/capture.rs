//! What an observer of the line sees: each segment's time, direction and length, taken by tcpdump from the loopback
//! interface, or noted by a relay between the sites where tcpdump cannot be had.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};

use crate::site::{Stage, wait_for};

/// Of each segment: Ethernet, IP and TCP headers with their options.
const SNAP_BYTES: &str = "96";
/// What a relay carries at once: as much as a segment on the loopback interface.
const PIECE_BYTES: usize = 64 << 10;

/// How the line is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Tcpdump,
    Relay,
}

impl Way {
    /// tcpdump, where it may capture.
    pub(super) fn find() -> Self {
        let mut probe = Command::new("tcpdump");
        probe.args(["-i", "lo", "-c", "1", "-w", "/dev/null", "tcp"]).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(mut child) = probe.stdin(Stdio::null()).spawn() else { return Self::Relay };
        std::thread::sleep(Duration::from_millis(300));
        // One that may not capture has ended with an error; one that may waits for its packet, or has had it.
        let may = child.try_wait().is_ok_and(|ended| ended.is_none_or(|status| status.success()));
        let _ = child.kill();
        let _ = child.wait();
        if may { Self::Tcpdump } else { Self::Relay }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tcpdump => "tcpdump on lo",
            Self::Relay => "a relay between the sites, which sees no empty segments",
        }
    }
}

/// A running tcpdump.
#[derive(Debug)]
pub(super) struct Tcpdump {
    stage: Rc<Stage>,
    child: Child,
    said: PathBuf,
}

impl Tcpdump {
    /// Watches the connections to these ports.
    pub(super) fn start(stage: &Rc<Stage>, ports: &[u16], file: &Path) -> Result<Self> {
        let filter: Vec<String> = ports.iter().map(|port| format!("tcp port {port}")).collect();
        let said = file.with_extension("said");
        let mut command = Command::new("tcpdump");
        command.args(["-i", "lo", "-n", "-s", SNAP_BYTES, "-B", "32768", "--time-stamp-precision=nano"]);
        // As root it would hand over to a user of its own, who may not write here.
        command.args(["-Z", "root", "-w"]).arg(file).arg(filter.join(" or "));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&said)?);
        let child = command.spawn().context("tcpdump cannot be started")?;
        stage.started(&child);
        let mut capture = Self { stage: Rc::clone(stage), child, said };
        wait_for("tcpdump", Duration::from_secs(10), || {
            let said = std::fs::read_to_string(&capture.said)?;
            if let Some(status) = capture.child.try_wait()? {
                bail!("tcpdump ended ({status}): {said}");
            }
            Ok(said.contains("listening on").then_some(()))
        })?;
        Ok(capture)
    }

    /// Ends the capture. Says how many segments the kernel dropped.
    pub(super) fn stop(mut self) -> Result<u64> {
        // Asked to end, it writes what it has.
        let asked = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status()?;
        if !asked.success() {
            bail!("tcpdump cannot be asked to end");
        }
        let child = &mut self.child;
        wait_for("the end of tcpdump", Duration::from_secs(10), || Ok(child.try_wait()?))?;
        let said = BufReader::new(File::open(&self.said)?).lines().collect::<Result<Vec<_>, _>>()?;
        let dropped = said.iter().find_map(|line| line.strip_suffix(" packets dropped by kernel"));
        dropped
            .context("tcpdump does not say what was dropped")?
            .trim()
            .parse()
            .context("tcpdump's count of what was dropped")
    }
}

impl Drop for Tcpdump {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.stage.ended(&self.child);
    }
}

/// Carries connections from a port of its own to `to` and notes what it carries, as lines of nanoseconds, direction
/// (0 away from the main site) and bytes. Its threads end with the connections.
pub(super) fn relay(to: u16, file: &Path) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free TCP port")?;
    let port = listener.local_addr()?.port();
    let notes = Arc::new(Mutex::new(BufWriter::new(File::create(file)?)));
    std::thread::spawn(move || {
        for main in listener.incoming().flatten() {
            let Ok(remote) = TcpStream::connect(("127.0.0.1", to)) else { continue };
            for (from, into, direction) in [(&main, &remote, 0), (&remote, &main, 1)] {
                let (Ok(from), Ok(into)) = (from.try_clone(), into.try_clone()) else { continue };
                let notes = Arc::clone(&notes);
                std::thread::spawn(move || carry(from, into, direction, &notes));
            }
        }
    });
    Ok(port)
}

fn carry(mut from: TcpStream, mut into: TcpStream, direction: u8, notes: &Mutex<BufWriter<File>>) {
    let _ = into.set_nodelay(true);
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        if into.write_all(&piece[..length]).is_err() {
            break;
        }
        let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(notes, "{nanos} {direction} {length}");
    }
    // What the other side still waits for will not come.
    let _ = into.shutdown(Shutdown::Both);
    let _ = notes.lock().unwrap_or_else(PoisonError::into_inner).flush();
}
