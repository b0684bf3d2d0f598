//! A file system of its own for one site. Its power can be cut, with which everything is lost that was not made
//! durable; and it can be filled to the last byte.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::site::wait_for;

/// Room for every write of a long run: the remote's log keeps them all. The file is sparse.
const BYTES: u64 = 4 << 30;

/// The file that fills it.
const BALLAST: &str = "ballast";
/// The least that filling it takes at once: a block of the file system.
const BALLAST_STEP_MIN: u64 = 4096;

/// An XFS in a file, mounted over a loop device.
#[derive(Debug)]
pub(crate) struct Disk {
    image: PathBuf,
    at: PathBuf,
}

/// Why there can be no such file system here; none if there can.
pub(crate) fn obstacle() -> Option<String> {
    let uid = effective_user();
    if uid != Some(0) {
        return Some("only root mounts file systems".into());
    }
    for program in ["mkfs.xfs", "xfs_io", "mount", "umount", "unshare", "fallocate"] {
        let found = Command::new(program)
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if found.is_err() {
            return Some(format!("{program} is not installed"));
        }
    }
    (!Path::new("/dev/loop-control").exists()).then(|| "there are no loop devices".into())
}

/// Who runs this, from what the kernel says of the process.
fn effective_user() -> Option<u32> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

impl Disk {
    /// Makes it and mounts it at a folder that is not there yet.
    pub(crate) fn new(image: PathBuf, at: PathBuf) -> Result<Self> {
        File::create(&image)?.set_len(BYTES)?;
        run(Command::new("mkfs.xfs").arg("-q").arg(&image))?;
        fs::create_dir(&at)?;
        let disk = Self { image, at };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<()> {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.at))
    }

    /// Cuts the power: nothing is written from here on, not even the file system's own log.
    pub(crate) fn cut(&self) -> Result<()> {
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&self.at))
    }

    /// Powers up again; whoever used it must be gone.
    pub(crate) fn restore(&self) -> Result<()> {
        self.unmount()?;
        self.mount()
    }

    /// Takes what room there is; again and again, as a program on it may give room back.
    pub(crate) fn fill(&self) -> Result<()> {
        let ballast = self.at.join(BALLAST);
        let mut bytes = BYTES;
        while bytes >= BALLAST_STEP_MIN {
            let end = fs::metadata(&ballast).map_or(0, |found| found.len());
            let taken = Command::new("fallocate")
                .args(["--offset", &end.to_string(), "--length", &bytes.to_string()])
                .arg(&ballast)
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .status()?;
            if !taken.success() {
                bytes /= 2;
            }
        }
        Ok(())
    }

    /// Gives the room back.
    pub(crate) fn relieve(&self) -> Result<()> {
        fs::remove_file(self.at.join(BALLAST)).context("removing the ballast")
    }

    fn unmount(&self) -> Result<()> {
        // A killed process lets go of its files a moment after its end.
        wait_for("the unmounting", Duration::from_secs(20), || Ok(run(Command::new("umount").arg(&self.at)).ok()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.unmount();
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
