//! A file system in an image, and moving images over NBD with whatever client the machine has.

use std::fmt;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use super::tree::Tree;
use crate::nbd_client::Client;
use crate::site::Site;

const PIECE: usize = 1 << 20;

/// What an image holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Ext4,
    /// Where there is no `mkfs.ext4`.
    Tar,
}

/// An image of a tree.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) path: PathBuf,
    pub(super) form: Form,
    pub(super) bytes: u64,
}

impl Image {
    /// An ext4 file system made from the tree without being mounted, or a tar archive.
    pub(super) fn make(path: PathBuf, tree: &Tree) -> Result<Self> {
        let (mut command, form) = if there("mkfs.ext4", "-V") && there("debugfs", "-V") {
            let mebibytes = (tree.bytes >> 20) * 5 / 4 + 48;
            let mut mkfs = Command::new("mkfs.ext4");
            mkfs.args(["-q", "-F", "-b", "4096", "-d"]).arg(&tree.root).arg(&path).arg(format!("{mebibytes}M"));
            (mkfs, Form::Ext4)
        } else {
            let mut tar = Command::new("tar");
            tar.arg("-C").arg(&tree.root).arg("-cf").arg(&path).arg(".");
            (tar, Form::Tar)
        };
        quiet(&mut command)?;
        let bytes = std::fs::metadata(&path)?.len();
        Ok(Self { path, form, bytes })
    }

    /// Checks the file system at the beginning of `copy` and takes its files out into `to`.
    pub(super) fn check_and_extract(&self, copy: &Path, to: &Path) -> Result<()> {
        std::fs::create_dir(to)?;
        match self.form {
            Form::Ext4 => {
                quiet(Command::new("e2fsck").args(["-fn"]).arg(copy)).context("the file system is damaged")?;
                let dump = format!("rdump / {}", to.display());
                quiet(Command::new("debugfs").args(["-R", &dump]).arg(copy))
            }
            Form::Tar => quiet(Command::new("tar").arg("-C").arg(to).arg("-xf").arg(copy)),
        }
    }
}

/// What moves an image over NBD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mover {
    QemuImg,
    NbdCopy,
    /// The client in this program.
    Own,
}

impl Mover {
    pub(super) fn choose() -> Self {
        if there("qemu-img", "--version") {
            Self::QemuImg
        } else if there("nbdcopy", "--version") {
            Self::NbdCopy
        } else {
            Self::Own
        }
    }

    /// Begins to write an image to an export.
    pub(super) fn write(self, image: &Path, site: &Site, export: &'static str) -> Result<Moving> {
        let uri = site.uri(export);
        match self {
            Self::QemuImg => {
                spawn(Command::new("qemu-img").args(["convert", "-n", "-f", "raw", "-O", "raw"]).arg(image).arg(uri))
            }
            Self::NbdCopy => spawn(Command::new("nbdcopy").arg("--flush").arg(image).arg(uri)),
            Self::Own => {
                let (image, socket) = (image.to_path_buf(), site.socket());
                Ok(Moving::Thread(std::thread::spawn(move || write_own(&image, &socket, export))))
            }
        }
    }

    /// Reads a whole export into a file.
    pub(super) fn read(self, site: &Site, export: &str, to: &Path) -> Result<()> {
        let uri = site.uri(export);
        match self {
            Self::QemuImg => {
                quiet(Command::new("qemu-img").args(["convert", "-f", "raw", "-O", "raw"]).arg(uri).arg(to))
            }
            Self::NbdCopy => quiet(Command::new("nbdcopy").arg(uri).arg(to)),
            Self::Own => read_own(&site.socket(), export, to),
        }
    }
}

impl fmt::Display for Mover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::QemuImg => "qemu-img",
            Self::NbdCopy => "nbdcopy",
            Self::Own => "this program's own NBD client",
        })
    }
}

/// An image on its way.
#[derive(Debug)]
pub(super) enum Moving {
    Process(Child),
    Thread(std::thread::JoinHandle<Result<()>>),
}

impl Moving {
    pub(super) fn is_done(&mut self) -> Result<bool> {
        Ok(match self {
            Self::Process(child) => child.try_wait()?.is_some(),
            Self::Thread(thread) => thread.is_finished(),
        })
    }

    pub(super) fn finish(self) -> Result<()> {
        match self {
            Self::Process(child) => {
                let output = child.wait_with_output()?;
                if !output.status.success() {
                    bail!("the NBD client failed: {}", String::from_utf8_lossy(&output.stderr).trim());
                }
                Ok(())
            }
            Self::Thread(thread) => thread.join().unwrap_or_else(|_| bail!("the NBD client failed")),
        }
    }
}

fn write_own(image: &Path, socket: &Path, export: &str) -> Result<()> {
    let mut client = Client::connect(socket, export)?;
    let file = File::open(image)?;
    let (mut piece, mut offset) = (Vec::new(), 0);
    loop {
        piece.clear();
        (&file).take(u64::try_from(PIECE)?).read_to_end(&mut piece)?;
        if piece.is_empty() {
            return client.flush();
        }
        client.write(offset, &piece)?;
        offset += u64::try_from(piece.len())?;
    }
}

fn read_own(socket: &Path, export: &str, to: &Path) -> Result<()> {
    let mut client = Client::connect(socket, export)?;
    let mut file = File::create(to)?;
    let mut offset = 0;
    while offset < client.size {
        let len = usize::try_from((client.size - offset).min(u64::try_from(PIECE)?))?;
        let mut piece = vec![0; len];
        client.read(offset, &mut piece)?;
        file.write_all(&piece)?;
        offset += u64::try_from(len)?;
    }
    Ok(())
}

fn spawn(command: &mut Command) -> Result<Moving> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    child.map(Moving::Process).context("the NBD client cannot be started")
}

/// Runs a program and shows what it said only when it fails.
fn quiet(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{program} cannot be started"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{program} ({}): {}", output.status, String::from_utf8_lossy(&said).trim());
    }
    Ok(())
}

fn there(program: &str, probe: &str) -> bool {
    let mut command = Command::new(program);
    command.arg(probe).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
