//! A database in a file system on a large volume: the main site is lost in the middle of a transaction, and the copy is opened at its
//! last point and at earlier ones that are drawn at random. Each time the file system has nothing to mend, and the database is a state
//! that it was in.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::drawn::{Commit, Cut, Noted, Sample};
use super::mounted::Disk;
use super::{PAIR, Story, drawn, load, mib, wait};
use crate::site::{PairTerms, Site, wait_for};

/// The bank.
const LEDGER: &str = include_str!("ledger.py");
/// Debian's: it has the standard library's sqlite3.
const PYTHON: &str = "/usr/bin/python3";
/// What part of the volume is filled besides the database, so that there is something to sweep.
const BALLAST_PART: u64 = 4;
/// For each point that is drawn, the database is written for so long.
const EACH: Duration = Duration::from_secs(4);
/// Between two looks at what is written and committed.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// One look in so many makes a named cut.
const LOOKS_A_CUT: u64 = 16;
/// Of what the disk reads, the sweep is to open so much in the same time. Where the image lies on the same disk, what a plain copy
/// makes is the most that can be hoped for.
const GOAL_PERCENT: f64 = 80.0;
/// What dd reads and writes at once.
const DD_BLOCK: &str = "bs=4M";

/// The file that the copy is opened into, where it is not the site's own, or that it is compared with. It goes with this.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The database under load.
#[derive(Debug)]
struct Bank {
    child: Child,
    commits: Arc<Mutex<Vec<Commit>>>,
    reader: JoinHandle<()>,
}

pub(super) fn run(
    story: &mut Story,
    dir: &Path,
    [main, remote]: &mut [Site; 2],
    mebibytes: u64,
    (points, image): (u64, Option<&Path>),
) -> Result<()> {
    let script = dir.join("ledger.py");
    std::fs::write(&script, LEDGER)?;
    let volume = dir.join("main/volume.img");
    main.pair_with(remote, &PairTerms { name: PAIR, volume: &volume, mebibytes, options: &["--recovery", "sweep"] })?;
    let image = image.map(|folder| Temporary(folder.join(format!("opened-{}.img", std::process::id()))));
    if let Some(Temporary(path)) = &image {
        story.say(&format!("the copy is to be opened into {}", path.display()));
    }
    let place = image.as_ref().map_or_else(String::new, |Temporary(path)| format!("image = {path:?}\n"));
    remote.edit("\nretention = \"none\"", &format!("\n{place}retention = \"6h\""))?;
    remote.start()?;
    main.start()?;
    wait(main, "copying", |status| status.is_safe() && status.epoch() > 0)?;
    let disk = Disk::open(&main.uri(PAIR), &dir.join("main-disk"))?;
    disk.format()?;
    let mounted = disk.mount(&dir.join("main-files"))?;
    ballast(&mounted.at.join("ballast"), mebibytes / BALLAST_PART)?;
    story.say(&format!("ext4 on {mebibytes} MiB, with {} MiB in it", mebibytes / BALLAST_PART));
    let bank = Bank::open(&script, &mounted.at.join("bank.db"))?;
    let seed = drawn::seed();
    let mut random = load::Random(seed);
    let (cuts, samples) = noted(main, &bank, EACH * u32::try_from(points)?, &mut random)?;
    let newest = wait_for("the last cut at the remote", Duration::from_secs(60), || {
        let said: Value = serde_json::from_str(&remote.farseal(&["recover", "points", PAIR, "--json"])?)?;
        let last = cuts.last().map(|cut| cut.name.as_str());
        let mut named = said["named"].as_array().into_iter().flatten();
        let is_here = last.is_none() || named.any(|point| point["kept"] == true && point["name"].as_str() == last);
        Ok(said["newest"].as_u64().filter(|_| is_here))
    })?;
    std::thread::sleep(EACH);
    main.kill()?;
    let commits = bank.stop()?;
    drop(mounted);
    let committed = commits.last().map_or(0, |(number, _)| *number);
    story.say(&format!("the main site is lost in the middle of transaction {}", committed + 1));
    let made = Noted { cuts, samples, commits, newest }.draw(points, &mut random)?;
    story.say(&format!("points drawn from seed {seed}, of a window of {newest} records"));

    for point in &made {
        remote.farseal(&["recover", "test", PAIR, "--at", &point.at])?;
        let export = format!("{PAIR}.test");
        let entries =
            examined(&script, Disk::open(&remote.uri(&export), &dir.join("test-disk"))?, &dir.join("test-files"))?;
        remote.farseal(&["recover", "test", PAIR, "--end"])?;
        if !(point.least..=point.most).contains(&entries) {
            bail!("{} has {entries} transactions; {} to {} were committed then", point.at, point.least, point.most);
        }
        story.say(&format!("at {}: {entries} transactions, of {} to {}", point.at, point.least, point.most));
    }
    story.say(&format!("{} earlier points: nothing to mend, every database whole and of its time", made.len()));

    let log = remote.state().join("pairs").join(PAIR).join("log");
    let before = reads(&log)?;
    give_up_cache(story, &log)?;
    let begun = Instant::now();
    remote.farseal(&["takeover", PAIR, "--yes"])?;
    wait_for("the opened copy", Duration::from_secs(60), || {
        Ok(crate::nbd_client::Client::connect(&remote.socket(), PAIR).ok())
    })?
    .read(0, &mut vec![0; 4096])?;
    story.say(&format!("takeover to the first block: {:.2} s", begun.elapsed().as_secs_f64()));
    let swept = sweep(remote, begun)?;
    let beside = image.as_ref().map_or(log.as_path(), |Temporary(path)| path);
    compare(story, &log, beside, (swept, before))?;
    let entries = examined(&script, Disk::open(&remote.uri(PAIR), &dir.join("copy-disk"))?, &dir.join("copy-files"))?;
    if entries > committed + 1 || entries < made.iter().map(|point| point.least).max().unwrap_or(0) {
        bail!("the copy has {entries} transactions of {committed}");
    }
    story
        .say(&format!("at its last point: {entries} of {committed} transactions, nothing to mend, the database whole"));
    Ok(())
}

/// The database is written for so long: which record the main site has durable when how much is committed, again and again, and named
/// cuts at moments that are drawn.
fn noted(main: &Site, bank: &Bank, length: Duration, random: &mut load::Random) -> Result<(Vec<Cut>, Vec<Sample>)> {
    let (begun, mut cuts, mut samples) = (Instant::now(), Vec::new(), Vec::new());
    while begun.elapsed() < length {
        std::thread::sleep(LOOK_EVERY);
        let before = bank.committed();
        if cuts.is_empty() || random.next().is_multiple_of(LOOKS_A_CUT) {
            let name = format!("point-{}", cuts.len() + 1);
            main.farseal(&["cut", "default", &name])?;
            cuts.push(Cut { name, before, after: bank.committed() });
        } else {
            let record = main.status()?.mark("durable");
            samples.push(Sample { before, record, after: bank.committed() });
        }
    }
    Ok((cuts, samples))
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

/// All of the copy is opened: bytes and how long it took since the takeover's command.
fn sweep(remote: &Site, begun: Instant) -> Result<(u64, Duration)> {
    let report =
        || -> Result<Value> { Ok(serde_json::from_str(&remote.farseal(&["recover", "report", PAIR, "--json"])?)?) };
    let end = wait_for("the sweep to end", Duration::from_secs(3600), || {
        Ok(Some(report()?).filter(|report| report["stage"] == "finished"))
    })?;
    let took = begun.elapsed();
    let (opened, present) = (end["opened"].as_u64().unwrap_or(0), end["present"].as_u64().unwrap_or(0));
    if opened != present {
        bail!("the sweep ended with {opened} of {present} blocks");
    }
    Ok((present * 4096, took))
}

/// The sweep beside what the disk reads, before it and after it, and beside a plain copy of the log to where the image is.
fn compare(story: &Story, log: &Path, image: &Path, ((bytes, took), before): ((u64, Duration), f64)) -> Result<()> {
    let after = reads(log)?;
    give_up_cache(story, log)?;
    let copied = copies(log, image.parent().unwrap_or(log))?;
    let (rate, read) = (mib(bytes) / took.as_secs_f64(), f64::midpoint(before, after));
    let of = |whole: f64| 100.0 * rate / whole;
    let met = if of(read) >= GOAL_PERCENT { "met" } else { "NOT MET" };
    story.say(&format!("{:.0} MiB are open: {rate:.0} MiB/s, read, opened, written and synced", mib(bytes)));
    story.say(&format!(
        "past the page cache the disk reads the log with {before:.0} MiB/s before and {after:.0} after; the goal is {GOAL_PERCENT:.0} % of \
         that and the sweep makes {:.0} %: {met}",
        of(read)
    ));
    story.say(&format!(
        "a plain copy of the log to where the image is, synced, makes {copied:.0} MiB/s: {:.0} %",
        of(copied)
    ));
    Ok(())
}

/// Has the system give up what it has of the log in memory, and says how much is there still: the sweep is to read from the disk.
fn give_up_cache(story: &Story, folder: &Path) -> Result<()> {
    let (mut bytes, mut left) = (0, Some(0));
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        bytes += path.metadata()?.len();
        // POSIX_FADV_DONTNEED over the whole file: dd's way to ask for it. All of the log is durable, so no page is dirty.
        let given_up = Command::new("dd")
            .arg(format!("if={}", path.display()))
            .args(["iflag=nocache", "count=0", "status=none"])
            .status()?;
        if !given_up.success() {
            bail!("{} cannot be given up by the page cache", path.display());
        }
        left = left.and_then(|left| Some(left + cached(&path)?));
    }
    let left = left.map_or("an unknown part".into(), |left| format!("{:.0} MiB", mib(left)));
    story.say(&format!(
        "the page cache was told to give the log up: {left} of {:.0} MiB are in memory still",
        mib(bytes)
    ));
    Ok(())
}

/// Bytes of a file that are in memory, if util-linux's fincore can be asked.
fn cached(path: &Path) -> Option<u64> {
    let output =
        Command::new("fincore").args(["--bytes", "--noheadings", "--output", "RES"]).arg(path).output().ok()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}

/// How fast the disk reads files, past the page cache: MiB a second.
fn reads(folder: &Path) -> Result<f64> {
    through_dd(folder, &["of=/dev/null", "iflag=direct"])
}

/// How fast files are read by way of the page cache, and written to one in `to`, which is synced and removed: MiB a second.
fn copies(folder: &Path, to: &Path) -> Result<f64> {
    let copy = Temporary(to.join(format!("copied-{}", std::process::id())));
    through_dd(folder, &[&format!("of={}", copy.0.display()), "oflag=append", "conv=notrunc,fsync"])
}

/// Every file of a folder by dd: MiB a second.
fn through_dd(folder: &Path, words: &[&str]) -> Result<f64> {
    let (begun, mut bytes) = (Instant::now(), 0);
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        bytes += path.metadata()?.len();
        let input = format!("if={}", path.display());
        let status = Command::new("dd").args([&input, DD_BLOCK, "status=none"]).args(words).status()?;
        if !status.success() {
            bail!("{}: dd {} fails", path.display(), words.join(" "));
        }
    }
    Ok(mib(bytes) / begun.elapsed().as_secs_f64())
}

fn ballast(path: &Path, mebibytes: u64) -> Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path)?;
    let (mut random, mut buffer) = (load::Random(7), vec![0; 1 << 20]);
    for _ in 0..mebibytes {
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
        let commits = Arc::<Mutex<Vec<Commit>>>::default();
        let shared = Arc::clone(&commits);
        let reader = std::thread::spawn(move || {
            let commit = |line: String| {
                let (number, at) = line.split_once(' ')?;
                Some((number.parse().ok()?, at.parse().ok()?))
            };
            for commit in lines.map_while(Result::ok).filter_map(commit) {
                shared.lock().unwrap_or_else(PoisonError::into_inner).push(commit);
            }
        });
        let bank = Self { child, commits, reader };
        wait_for("the first transaction", Duration::from_secs(60), || Ok((bank.committed() > 0).then_some(())))?;
        Ok(bank)
    }

    fn committed(&self) -> u64 {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner).last().map_or(0, |(number, _)| *number)
    }

    /// What was committed, and when.
    fn stop(mut self) -> Result<Vec<Commit>> {
        self.child.kill()?;
        self.child.wait()?;
        let _ = self.reader.join();
        Ok(std::mem::take(&mut *self.commits.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}
