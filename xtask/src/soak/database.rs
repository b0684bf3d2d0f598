//! A database in a file system on a large volume: the main site is lost in the middle of a transaction, and the copy is opened at its
//! last point and at earlier ones. Each time the file system has nothing to mend, and the database is a state that it was in.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::mounted::Disk;
use super::{PAIR, Story, load, mib, wait};
use crate::site::{PairTerms, Site, wait_for};

/// The bank.
const LEDGER: &str = include_str!("ledger.py");
/// Debian's: it has the standard library's sqlite3.
const PYTHON: &str = "/usr/bin/python3";
/// What the file system holds besides the database, so that there is something to sweep.
const BALLAST_BYTES: u64 = 1 << 30;
/// Between two named points.
const BETWEEN: Duration = Duration::from_secs(4);

/// A named point, and how many transactions were committed before it was asked for and after it was made.
#[derive(Debug)]
struct Point {
    name: String,
    before: u64,
    after: u64,
}

/// The database under load.
#[derive(Debug)]
struct Bank {
    child: Child,
    committed: Arc<AtomicU64>,
    reader: JoinHandle<()>,
}

pub(super) fn run(
    story: &mut Story,
    dir: &Path,
    [main, remote]: &mut [Site; 2],
    mebibytes: u64,
    points: u64,
) -> Result<()> {
    let script = dir.join("ledger.py");
    std::fs::write(&script, LEDGER)?;
    let volume = dir.join("main/volume.img");
    main.pair_with(remote, &PairTerms { name: PAIR, volume: &volume, mebibytes, options: &["--recovery", "sweep"] })?;
    remote.edit("\nretention = \"none\"", "\nretention = \"6h\"")?;
    remote.start()?;
    main.start()?;
    wait(main, "copying", |status| status.is_safe() && status.epoch() > 0)?;
    let disk = Disk::open(&main.uri(PAIR), &dir.join("main-disk"))?;
    disk.format()?;
    let mounted = disk.mount(&dir.join("main-files"))?;
    ballast(&mounted.at.join("ballast"))?;
    story.say(&format!("ext4 on {mebibytes} MiB, with {:.0} MiB in it", mib(BALLAST_BYTES)));
    let bank = Bank::open(&script, &mounted.at.join("bank.db"))?;
    let mut made = Vec::new();
    for number in 1..=points {
        std::thread::sleep(BETWEEN);
        let before = bank.committed();
        let name = format!("point-{number}");
        main.farseal(&["cut", "default", &name])?;
        made.push(Point { name, before, after: bank.committed() });
    }
    wait_for("the last named point at the remote", Duration::from_secs(60), || {
        let said: Value = serde_json::from_str(&remote.farseal(&["recover", "points", PAIR, "--json"])?)?;
        let last = made.last().map(|point| point.name.as_str());
        let named = said["named"].as_array().into_iter().flatten();
        Ok(named.filter(|point| point["kept"] == true).any(|point| point["name"].as_str() == last).then_some(()))
    })?;
    std::thread::sleep(BETWEEN);
    main.kill()?;
    let committed = bank.stop()?;
    drop(mounted);
    story.say(&format!("the main site is lost in the middle of transaction {}", committed + 1));

    for point in &made {
        remote.farseal(&["recover", "test", PAIR, "--at", &point.name])?;
        let export = format!("{PAIR}.test");
        let entries =
            examined(&script, Disk::open(&remote.uri(&export), &dir.join("test-disk"))?, &dir.join("test-files"))?;
        remote.farseal(&["recover", "test", PAIR, "--end"])?;
        // A transaction that was committed while the cut was made may be in it or not.
        if entries < point.before || entries > point.after + 1 {
            bail!("{} has {entries} transactions; {} to {} were committed then", point.name, point.before, point.after);
        }
    }
    story.say(&format!("{} earlier points: nothing to mend, every database whole and of its time", made.len()));

    let begun = Instant::now();
    remote.farseal(&["takeover", PAIR, "--yes"])?;
    wait_for("the opened copy", Duration::from_secs(60), || {
        Ok(crate::nbd_client::Client::connect(&remote.socket(), PAIR).ok())
    })?
    .read(0, &mut vec![0; 4096])?;
    story.say(&format!("takeover to the first block: {:.2} s", begun.elapsed().as_secs_f64()));
    sweep(story, remote, begun)?;
    let entries = examined(&script, Disk::open(&remote.uri(PAIR), &dir.join("copy-disk"))?, &dir.join("copy-files"))?;
    if entries > committed + 1 || entries < made.last().map_or(0, |point| point.before) {
        bail!("the copy has {entries} transactions of {committed}");
    }
    story
        .say(&format!("at its last point: {entries} of {committed} transactions, nothing to mend, the database whole"));
    Ok(())
}

/// What is in a database on a disk, which has to be whole.
fn examined(script: &Path, disk: Disk, at: &Path) -> Result<u64> {
    // The first mount replays the file system's journal, as after any loss of power.
    let disk = disk.mount(at)?.unmount()?;
    disk.check()?;
    let mounted = disk.mount(at)?;
    let output = Command::new(PYTHON).arg(script).arg("check").arg(mounted.at.join("bank.db")).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let found: Value = serde_json::from_str(&said)
        .with_context(|| format!("the database: {said}{}", String::from_utf8_lossy(&output.stderr)))?;
    let entries = found["entries"].as_u64().unwrap_or(0);
    if found["integrity"] != "ok" || found["wrong-balances"] != 0 || found["last"] != entries {
        bail!("the database is no state that it was in: {found}");
    }
    drop(mounted.unmount()?);
    Ok(entries)
}

/// All of the copy is opened, beside what the disk can read.
fn sweep(story: &Story, remote: &Site, begun: Instant) -> Result<()> {
    let report =
        || -> Result<Value> { Ok(serde_json::from_str(&remote.farseal(&["recover", "report", PAIR, "--json"])?)?) };
    let end = wait_for("the sweep to end", Duration::from_secs(3600), || {
        Ok(Some(report()?).filter(|report| report["stage"] == "finished"))
    })?;
    let (opened, present) = (end["opened"].as_u64().unwrap_or(0), end["present"].as_u64().unwrap_or(0));
    if opened != present {
        bail!("the sweep ended with {opened} of {present} blocks");
    }
    let rate = mib(present * 4096) / begun.elapsed().as_secs_f64();
    let disk = reads(&remote.state().join("pairs").join(PAIR).join("log"))?;
    story.say(&format!(
        "{:.0} MiB are open: {rate:.0} MiB/s, read, opened and written; the disk reads the log with {disk:.0} MiB/s",
        mib(present * 4096)
    ));
    Ok(())
}

/// How fast the disk reads files, past the page cache: MiB a second.
fn reads(folder: &Path) -> Result<f64> {
    let (begun, mut bytes) = (Instant::now(), 0);
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        bytes += path.metadata()?.len();
        let status = Command::new("dd")
            .arg(format!("if={}", path.display()))
            .args(["of=/dev/null", "bs=4M", "iflag=direct", "status=none"])
            .status()?;
        if !status.success() {
            bail!("{} cannot be read past the page cache", path.display());
        }
    }
    Ok(mib(bytes) / begun.elapsed().as_secs_f64())
}

fn ballast(path: &PathBuf) -> Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path)?;
    let (mut random, mut buffer) = (load::Random(7), vec![0; 1 << 20]);
    for _ in 0..BALLAST_BYTES >> 20 {
        random.fill(&mut buffer);
        file.write_all(&buffer)?;
    }
    Ok(file.sync_all()?)
}

impl Bank {
    fn open(script: &Path, database: &Path) -> Result<Self> {
        let mut command = Command::new(PYTHON);
        command.arg(script).arg("load").arg(database).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{PYTHON} cannot be started"))?;
        let lines = BufReader::new(child.stdout.take().context("no pipe")?).lines();
        let committed = Arc::<AtomicU64>::default();
        let shared = Arc::clone(&committed);
        let reader = std::thread::spawn(move || {
            for number in lines.map_while(Result::ok).filter_map(|line| line.parse().ok()) {
                shared.store(number, Ordering::Release);
            }
        });
        let bank = Self { child, committed, reader };
        wait_for("the first transaction", Duration::from_secs(60), || Ok((bank.committed() > 0).then_some(())))?;
        Ok(bank)
    }

    fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// How many were committed.
    fn stop(mut self) -> Result<u64> {
        self.child.kill()?;
        self.child.wait()?;
        let _ = self.reader.join();
        Ok(self.committed.load(Ordering::Acquire))
    }
}
