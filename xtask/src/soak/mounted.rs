//! A real file system on an export: ext4 on a loop device on libnbd's file, as a machine would use the volume.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::site::wait_for;

/// For the file of an export to be there.
const PATIENCE: Duration = Duration::from_secs(60);

/// An export as one file.
#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    fuse: Child,
}

/// A file system of a [`Disk`]. Whatever is left of it is taken away when it goes.
#[derive(Debug)]
pub(super) struct Mounted {
    disk: Option<Disk>,
    pub(super) at: PathBuf,
}

impl Disk {
    /// `folder` is made.
    pub(super) fn open(uri: &str, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let mut command = Command::new("nbdfuse");
        command.arg(folder.join("disk")).arg(uri).stdin(Stdio::null());
        let fuse =
            command.spawn().context("nbdfuse cannot be started; it is in Debian's libnbd-bin, and needs fuse3")?;
        let mut disk = Self { folder: folder.to_owned(), fuse };
        let file = disk.file();
        wait_for(&format!("{uri} as a file"), PATIENCE, || {
            if let Some(status) = disk.fuse.try_wait()? {
                bail!("nbdfuse ended ({status})");
            }
            Ok(file.exists().then_some(()))
        })?;
        Ok(disk)
    }

    pub(super) fn file(&self) -> PathBuf {
        self.folder.join("disk")
    }

    /// Makes a file system.
    pub(super) fn format(&self) -> Result<()> {
        done(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(self.file()))
    }

    /// The file system has nothing to mend.
    pub(super) fn check(&self) -> Result<()> {
        done(Command::new("e2fsck").args(["-f", "-n"]).arg(self.file()))
    }

    /// Mounts its file system, whose journal is replayed if need be. A later mount of the same file system finds the same.
    pub(super) fn mount(self, at: &Path) -> Result<Mounted> {
        fs::create_dir_all(at)?;
        done(Command::new("mount").args(["-o", "loop"]).arg(self.file()).arg(at))?;
        Ok(Mounted { disk: Some(self), at: at.to_owned() })
    }
}

impl Mounted {
    /// As a machine that shuts down.
    pub(super) fn unmount(mut self) -> Result<Disk> {
        done(Command::new("umount").arg(&self.at))?;
        self.disk.take().context("a file system without a disk")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.disk.is_some() {
            quietly(Command::new("umount").arg("-l").arg(&self.at));
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        quietly(Command::new("umount").arg("-l").arg(&self.folder));
        let _ = self.fuse.kill();
        let _ = self.fuse.wait();
    }
}

fn quietly(command: &mut Command) {
    let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

fn done(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?} cannot be started"))?;
    if !output.status.success() {
        bail!("{command:?}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
