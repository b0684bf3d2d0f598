//! `cargo xtask soak`: what takes long on real disks. A large initial copy that is interrupted, a long split with the resync
//! after it, changes of sides there and back, one change of key after the other with an escrow, a database that is lost in mid-transaction, and a
//! million records of which a search opens some, each ended by a takeover and a comparison of every byte, or of what was stored says
//! of itself.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::nbd_client::Client;
use crate::plugins;
use crate::site::{PairTerms, Site, Stage, Status, wait_for};
use crate::workspace::Workspace;

mod database;
mod drawn;
mod keys;
mod load;
mod mounted;
mod qemu;
mod records;
mod swap;

use load::Load;

const PAIR: &str = "soak";
/// Lines of each log that a failure shows.
const LOG_LINES: usize = 15;
/// How much is read at once to compare.
const READ_BYTES: usize = 4 << 20;
/// Of each run of so many bytes the first three quarters are data and the rest a hole, as on a disk in use.
const PATTERN_BYTES: u64 = 64 << 20;
/// How long a whole copy or resync may take.
const PATIENCE: Duration = Duration::from_secs(6 * 3600);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Plan {
    Copy {
        interruptions: u64,
    },
    Split {
        length: Duration,
    },
    Swap {
        swaps: u64,
        length: Duration,
    },
    Keys {
        length: Duration,
    },
    /// The copy is opened into a file in `image`, a folder on another disk, if there is one.
    Database {
        points: u64,
        image: Option<PathBuf>,
    },
    Records,
}

pub(crate) fn run(workspace: &Workspace, words: &[String]) -> Result<()> {
    let Options { plan, mebibytes, binary } = options(words)?;
    plugins::build_quietly(workspace, &[])?;
    let binary = match binary {
        Some(binary) => binary,
        None => {
            println!("building the daemon for release");
            workspace.build(&["--release", "--bin", "farseal"])?;
            workspace.target.join("release/farseal")
        }
    };
    let stage = Stage::new("soak")?;
    println!("running in {}; set TMPDIR to run on another file system", stage.dir.display());
    let mut sites = [
        Site::init(&stage, &binary, &workspace.components(), "main")?,
        Site::init(&stage, &binary, &workspace.components(), "remote")?,
    ];
    let mut story = Story { begun: Instant::now() };
    let told = match plan {
        Plan::Copy { interruptions } => copy(&mut story, &stage.dir, &mut sites, mebibytes, interruptions),
        Plan::Split { length } => split(&mut story, &stage.dir, &mut sites, mebibytes, length),
        Plan::Keys { length } => {
            let (farseal, components) = (binary.as_path(), workspace.components());
            let search_for_keys = search_for_keys(workspace)?;
            let third =
                keys::Third { stage: &stage, farseal, search_for_keys: &search_for_keys, components: &components };
            keys::run(&mut story, &third, &mut sites, mebibytes, length)
        }
        Plan::Database { points, image } => {
            database::run(&mut story, &stage.dir, &mut sites, mebibytes, (points, image.as_deref()))
        }
        Plan::Records => records::run(&mut story, &stage.dir, &mut sites, &workspace.components(), mebibytes),
        Plan::Swap { swaps, length } => swap::run(&mut story, &stage.dir, &mut sites, mebibytes, (swaps, length)),
    };
    if let Err(error) = told {
        stage.keep();
        for site in &sites {
            println!("\nthe last lines of {}:", site.log().display());
            site.last_lines(LOG_LINES).iter().for_each(|line| println!("  {line}"));
        }
        println!("\nevery file is left in {}", stage.dir.display());
        return Err(error);
    }
    Ok(())
}

/// The program that looks for keys in files.
fn search_for_keys(workspace: &Workspace) -> Result<PathBuf> {
    workspace.build(&["--bin", "farseal", "--example", "search_for_keys"])?;
    Ok(workspace.target.join("debug/examples/search_for_keys"))
}

#[derive(Debug)]
struct Options {
    plan: Plan,
    mebibytes: u64,
    /// In place of one that is built.
    binary: Option<PathBuf>,
}

const WORDS: &str = "copy [--mib N] [--interruptions N] | split [--mib N] [--minutes N] | \
                     swap [--mib N] [--minutes N] [--swaps N] | \
                     keys [--mib N] [--minutes N] | database [--mib N] [--points N] [--image FOLDER] | records [--mib N]; \
                     each with [--farseal FILE]";

fn options(words: &[String]) -> Result<Options> {
    let (kind, rest) = words.split_first().with_context(|| format!("soak takes {WORDS}"))?;
    let (mut plan, mut mebibytes) = match kind.as_str() {
        "copy" => (Plan::Copy { interruptions: 3 }, 16 << 10),
        "split" => (Plan::Split { length: Duration::from_secs(3600) }, 4 << 10),
        "swap" => (Plan::Swap { swaps: 6, length: Duration::from_secs(180) }, 256),
        "database" => (Plan::Database { points: 10, image: None }, 16 << 10),
        "records" => (Plan::Records, 512),
        "keys" => (Plan::Keys { length: Duration::from_secs(3600) }, 256),
        other => bail!("soak takes {WORDS}, not {other}"),
    };
    let mut binary = None;
    for pair in rest.chunks(2) {
        let [name, number] = pair else { bail!("{} needs a value; soak takes {WORDS}", pair[0]) };
        if name == "--farseal" {
            binary = Some(PathBuf::from(number));
            continue;
        }
        if let ("--image", Plan::Database { image, .. }) = (name.as_str(), &mut plan) {
            *image = Some(std::path::absolute(number)?);
            continue;
        }
        let number: u64 = number.parse().with_context(|| format!("{name} {number}"))?;
        match (name.as_str(), &mut plan) {
            ("--mib", _) if number >= 64 => mebibytes = number,
            ("--interruptions", Plan::Copy { interruptions }) => *interruptions = number,
            ("--minutes", Plan::Split { length } | Plan::Swap { length, .. } | Plan::Keys { length }) => {
                *length = Duration::from_secs(number * 60);
            }
            ("--swaps", Plan::Swap { swaps, .. }) if number > 0 => *swaps = number,
            ("--points", Plan::Database { points, .. }) if number > 0 => *points = number,
            _ => bail!("soak takes {WORDS} (at least 64 MiB), not {name} {number}"),
        }
    }
    Ok(Options { plan, mebibytes, binary })
}

/// Prints what happens, with the time.
#[derive(Debug)]
struct Story {
    begun: Instant,
}

impl Story {
    fn say(&self, text: &str) {
        println!("{:8.1} s  {text}", self.begun.elapsed().as_secs_f64());
    }
}

/// A volume that holds data already is copied while initiators write, and both sites are killed in turn.
fn copy(
    story: &mut Story,
    dir: &Path,
    [main, remote]: &mut [Site; 2],
    mebibytes: u64,
    interruptions: u64,
) -> Result<()> {
    let volume = dir.join("main/volume.img");
    let data = lay_out(&volume, mebibytes << 20)?;
    story.say(&format!("a volume of {mebibytes} MiB, {:.0} MiB of it data", mib(data)));
    main.pair_with(remote, &PairTerms { name: PAIR, volume: &volume, mebibytes, options: &[] })?;
    remote.start()?;
    main.start()?;
    let load = Load::start(main.socket(), PAIR, mebibytes << 20);
    let begun = Instant::now();
    let mut most = 0;
    for turn in 1..=interruptions {
        let mark = data - data * turn / (interruptions + 1);
        let status = wait(main, &format!("{:.0} MiB or less to go", mib(mark)), |status| {
            most = most.max(status.owed_bytes());
            status.state() != "link-down" && status.owed_bytes() <= mark
        })?;
        let before = status.owed_bytes();
        let both = turn % 3 == 0;
        if turn % 2 == 1 || both {
            main.kill()?;
        }
        if turn % 2 == 0 || both {
            remote.kill()?;
        }
        let whom = if both { "both sites" } else { ["the remote", "the main site"][usize::try_from(turn % 2)?] };
        if remote.pid().is_none() {
            remote.start()?;
        }
        if main.pid().is_none() {
            main.start()?;
        }
        let status = wait(main, "copying again", |status| status.state() != "link-down" && status.owed_bytes() > 0)?;
        let again = status.owed_bytes().saturating_sub(before);
        story.say(&format!(
            "SIGKILL of {whom} with {:.0} MiB to go; it goes on with {:.0} MiB, so that {:.0} MiB are copied again",
            mib(before),
            mib(status.owed_bytes()),
            mib(again)
        ));
        if again > data / 2 && before < data / 2 {
            bail!("the copy began anew");
        }
    }
    wait(main, "the end of the initial copy", |status| status.state() == "copying")?;
    let took = begun.elapsed();
    let rate = mib(data) / took.as_secs_f64();
    story.say(&format!("copied in {:.1} s, interruptions among them: {rate:.0} MiB/s under load", took.as_secs_f64()));
    compare(story, main, remote, load)
}

/// The remote is away while initiators write; then it is brought up to date.
fn split(
    story: &mut Story,
    dir: &Path,
    [main, remote]: &mut [Site; 2],
    mebibytes: u64,
    length: Duration,
) -> Result<()> {
    let volume = dir.join("main/volume.img");
    main.pair_with(remote, &PairTerms { name: PAIR, volume: &volume, mebibytes, options: &[] })?;
    main.edit("\njournal-max = \"4GiB\"", "\njournal-max = \"128MiB\"")?;
    remote.start()?;
    main.start()?;
    let load = Load::start(main.socket(), PAIR, mebibytes << 20);
    wait(main, "copying", |status| status.state() == "copying" && status.epoch() > 0)?;
    remote.kill()?;
    story.say(&format!("the remote is gone for {} s; initiators go on writing", length.as_secs()));
    std::thread::sleep(length);
    let written = load.answered();
    let status = main.status()?;
    let owed = status.owed_bytes().max(status.lag_bytes());
    story.say(&format!("{written} writes were answered meanwhile; the copy lacks {:.0} MiB", mib(owed)));
    let begun = Instant::now();
    remote.start()?;
    wait(main, "the end of the resync", |status| status.state() == "copying")?;
    let took = begun.elapsed();
    let rate = mib(owed) / took.as_secs_f64();
    story.say(&format!("caught up in {:.1} s: {rate:.0} MiB/s under load", took.as_secs_f64()));
    compare(story, main, remote, load)
}

/// Stops the load, lets the copy follow, loses the main site, and compares every byte.
fn compare(story: &mut Story, main: &mut Site, remote: &mut Site, load: Load) -> Result<()> {
    let (answered, lost) = load.stop();
    story.say(&format!("{answered} writes were answered; the initiator had to connect again {lost} times"));
    wait(main, "everything at the remote", Status::is_safe)?;
    compare_copy(story, main, remote)
}

/// Loses the site that writes, takes over at the one that keeps, and compares every byte.
fn compare_copy(story: &mut Story, writes: &mut Site, keeps: &Site) -> Result<()> {
    let ours = hash(&writes.socket())?;
    writes.kill()?;
    keeps.farseal(&["takeover", PAIR, "--yes"])?;
    let socket = keeps.socket();
    let mut client = wait_for("the opened copy", Duration::from_secs(60), || Ok(Client::connect(&socket, PAIR).ok()))?;
    client.read(0, &mut vec![0; 4096])?;
    let begun = Instant::now();
    let theirs = hash(&socket)?;
    let rate = mib(client.size) / begun.elapsed().as_secs_f64();
    if ours != theirs {
        bail!("the copy differs from the volume");
    }
    story.say(&format!("the copy is identical to the last byte (opened and read at {rate:.0} MiB/s)"));
    Ok(())
}

fn wait(site: &Site, what: &str, mut wanted: impl FnMut(&Status) -> bool) -> Result<Status> {
    wait_for(&format!("{}: {what}", site.name), PATIENCE, || {
        std::thread::sleep(Duration::from_millis(80));
        Ok(Some(site.status()?).filter(|status| wanted(status)))
    })
}

fn hash(socket: &Path) -> Result<[u8; 32]> {
    let mut client = Client::connect(socket, PAIR)?;
    let (mut hash, mut at) = (Sha256::new(), 0);
    let mut buffer = vec![0; READ_BYTES];
    while at < client.size {
        let len = usize::try_from((client.size - at).min(READ_BYTES as u64))?;
        client.read(at, &mut buffer[..len])?;
        hash.update(&buffer[..len]);
        at += len as u64;
    }
    Ok(hash.finalize().into())
}

/// Writes the volume's file. Says how many bytes of it are data.
fn lay_out(path: &PathBuf, bytes: u64) -> Result<u64> {
    let mut file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    file.set_len(bytes)?;
    let (mut at, mut data, mut random) = (0, 0, load::Random(0x9e37_79b9_7f4a_7c15));
    let mut buffer = vec![0; 1 << 20];
    while at < bytes {
        if at % PATTERN_BYTES < PATTERN_BYTES / 4 * 3 {
            random.fill(&mut buffer);
            let len = usize::try_from((bytes - at).min(1 << 20))?;
            file.seek(SeekFrom::Start(at))?;
            file.write_all(&buffer[..len])?;
            data += len as u64;
        }
        at += 1 << 20;
    }
    file.sync_all()?;
    Ok(data)
}

/// For people: whole mebibytes would hide small ones.
#[expect(clippy::cast_precision_loss, reason = "shown with no decimals")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
