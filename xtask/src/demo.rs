//! `cargo xtask demo`: two sites on this machine, from the first write to reading everything back after the main
//! site's end. Real files, real NBD clients, separate processes; every claim it prints was checked a line before.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::nbd_client::Client;
use crate::site::{PairTerms, Site, Stage, Status, wait_for};
use crate::workspace::Workspace;
use crate::{plugins, tools};

mod image;
mod search;
mod stamps;
mod table;
mod tree;

use image::{Form, Image, Mover};
use search::search;
use stamps::Writer;
use table::Table;
use tree::Tree;

/// What the pair and its export are called.
const PAIR: &str = "demo";
/// A pause for a key shows on a link, and with a disguise is refused unless the link is shaped.
const OPTIONS: [&str; 2] = ["--disguise", "plain"];
/// How old the policy plugin lets a key become: short, so that one watches it work.
const POLICY_INTERVAL: &str = "2s";
/// Operator's rotations while the stamps are written: in-band and pause in turn.
const ASKED_ROTATIONS: usize = 6;
/// Lines of each log that a failure shows.
const LOG_LINES: usize = 15;

pub(crate) fn run(workspace: &Workspace, words: &[String]) -> Result<()> {
    let keep = match words {
        [] => false,
        [only] if only == "--keep" => true,
        _ => bail!("demo takes only --keep, which leaves every file in place"),
    };
    let programs = prepare(workspace)?;
    let stage = Stage::new("demo")?;
    if keep {
        stage.keep();
    }
    let mut story = Story { begun: Instant::now(), table: Table::default() };
    let plugins = workspace.components();
    let mut sites = [
        Site::init(&stage, &programs.farseal, &plugins, "main")?,
        Site::init(&stage, &programs.farseal, &plugins, "remote")?,
    ];
    let told = tell(workspace, &programs, &mut story, &stage.dir, &mut sites);
    if let Err(error) = told {
        stage.keep();
        for site in &sites {
            if let Ok(status) = site.farseal(&["status"]) {
                println!("\n{status}");
            }
            println!("\nthe last lines of {}:", site.log().display());
            site.last_lines(LOG_LINES).iter().for_each(|line| println!("  {line}"));
        }
        println!("\nevery file is left in {}", stage.dir.display());
        return Err(error);
    }
    story.table.print();
    println!("\nwhere to look next");
    println!("  README.md                    run a pair of your own");
    println!("  cargo xtask new-plugin rotation NAME   a rotation policy of your own");
    println!("  ARCHITECTURE.md              why a record opens with exactly one key");
    println!("  cargo xtask bench            what it costs, against the goals");
    if keep {
        println!("  {}   both sites' files, as the demo left them", stage.dir.display());
    }
    Ok(())
}

/// What the demo runs.
struct Programs {
    farseal: std::path::PathBuf,
    search_for_keys: std::path::PathBuf,
}

/// Tools, plugins, binaries. Not part of the demo's own time.
fn prepare(workspace: &Workspace) -> Result<Programs> {
    tools::install_for(&["qemu-img", "nbdinfo", "nbdkit", "mkfs.ext4"]);
    println!("building the plugins and the daemon");
    plugins::build_quietly(workspace, &[])?;
    workspace.build(&["--bin", "farseal", "--example", "search_for_keys"])?;
    let place = workspace.target.join("debug");
    Ok(Programs { farseal: place.join("farseal"), search_for_keys: place.join("examples/search_for_keys") })
}

/// Prints what happens, with the time.
struct Story {
    begun: Instant,
    table: Table,
}

impl Story {
    fn chapter(&self, title: &str) {
        println!("\n{title}");
    }

    fn say(&self, text: &str) {
        println!("{:7.1} s  {text}", self.begun.elapsed().as_secs_f64());
    }

    fn show(&self, status: &Status) {
        self.say(&format!(
            "main: {:<12} epoch {:<3} {:>7} records, copy lacks {:>6} ({:.1} MiB, {:.2} s)",
            status.state(),
            status.epoch(),
            status.mark("last"),
            status.lag_records(),
            mebibytes(status.lag_bytes()),
            seconds(Duration::from_millis(status.lag_millis())),
        ));
    }
}

fn tell(
    workspace: &Workspace,
    programs: &Programs,
    story: &mut Story,
    dir: &Path,
    [main, remote]: &mut [Site; 2],
) -> Result<()> {
    story.chapter("Real input");
    let tree = Tree::lay_out(dir.join("tree"), &workspace.root)?;
    let image = Image::make(dir.join("image"), &tree)?;
    let what = match image.form {
        Form::Ext4 => "an ext4 file system",
        Form::Tar => "a tar archive (mkfs.ext4 and debugfs are not installed)",
    };
    let files = tree.hashes.len();
    story.say(&format!(
        "{files} files, {:.0} MiB, in {what} of {:.0} MiB",
        mebibytes(tree.bytes),
        mebibytes(image.bytes)
    ));
    story.table.row("input", format!("{files} files, {:.0} MiB, in {what}", mebibytes(tree.bytes)));

    story.chapter("Two sites");
    // The image, then on a whole mebibyte the region of the stamped blocks.
    let region = image.bytes.next_multiple_of(1 << 20);
    let volume = dir.join("main/volume.img");
    let terms = PairTerms { name: PAIR, volume: &volume, mebibytes: (region + stamps::BYTES) >> 20, options: &OPTIONS };
    main.pair_with(remote, &terms)?;
    let policy = "\npolicy = { component = \"interval\",";
    main.edit(policy, &format!("{policy} config = {{ interval = \"{POLICY_INTERVAL}\" }},"))?;
    let took = [remote.start()?, main.start()?];
    let pids = [main.pid(), remote.pid()].map(|pid| pid.unwrap_or(0));
    story.say(&format!(
        "main is process {}, remote is process {}; started in {:.2} s and {:.2} s",
        pids[0],
        pids[1],
        seconds(took[1]),
        seconds(took[0])
    ));
    let status =
        main.wait_until("a link and a first key", |status| status.state() == "copying" && status.epoch() > 0)?;
    story.show(&status);

    write_image(story, main, &image)?;
    let writer = Writer::start(main.socket(), PAIR, region)?;
    rotate(story, main, &writer)?;
    pause_and_resume(story, main, remote, &writer)?;
    scrub(story, remote)?;
    let lost = lose_main(story, main, remote, writer)?;
    search_remote(story, programs, &tree, dir, remote)?;
    take_over(story, &image, remote, region, &lost)?;
    read_back(story, dir, &tree, &image, remote, region, &lost)
}

fn write_image(story: &mut Story, main: &Site, image: &Image) -> Result<()> {
    let mover = Mover::choose();
    story.chapter("The image goes to the main site over NBD, and its copy to the remote");
    let begun = Instant::now();
    let mut moving = mover.write(&image.path, main, PAIR)?;
    let mut shown = Instant::now();
    while !moving.is_done()? {
        if shown.elapsed() > Duration::from_millis(300) {
            story.show(&main.status()?);
            shown = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    moving.finish()?;
    let written = begun.elapsed();
    story.say(&format!("{mover} has written and flushed the image in {:.1} s", seconds(written)));
    let status = main.wait_until("the image safe at the remote", Status::is_safe)?;
    let safe = begun.elapsed();
    story.show(&status);
    story.say("the image is durable at the remote");
    let rate = |took: Duration| mebibytes(image.bytes) / took.as_secs_f64();
    story.table.row("image written", format!("{mover}, {:.1} s, {:.0} MiB/s", seconds(written), rate(written)));
    story.table.row("image durable at the remote", format!("after {:.1} s, {:.0} MiB/s", seconds(safe), rate(safe)));
    Ok(())
}

fn rotate(story: &mut Story, main: &Site, writer: &Writer) -> Result<()> {
    story.chapter("Keys change while stamped blocks are written: in-band, and by pause");
    let first = main.status()?.epoch();
    let mut times = [Vec::new(), Vec::new()];
    for turn in 0..ASKED_ROTATIONS {
        let (how, times) = if turn % 2 == 0 { ("in-band", &mut times[0]) } else { ("pause", &mut times[1]) };
        let before = writer.progress.answered.load(Ordering::Acquire);
        let begun = Instant::now();
        // A rotation that the policy has under way refuses another one: then it is asked again.
        wait_for("a rotation", Duration::from_secs(60), || {
            match main.farseal(&["rotate", PAIR, "--how", how, "--force"]) {
                Ok(_) => Ok(Some(())),
                Err(error) if begun.elapsed() > Duration::from_secs(20) => Err(error),
                Err(_) => Ok(None),
            }
        })?;
        times.push(begun.elapsed());
        let written = writer.progress.answered.load(Ordering::Acquire) - before;
        story.say(&format!(
            "rotated {how:<7} in {:.2} s; {written} blocks were written meanwhile",
            seconds(begun.elapsed())
        ));
        story.show(&main.status()?);
    }
    // Then the policy plugin's own word.
    let asked = main.status()?.epoch();
    let status = main.wait_until("a rotation by the policy plugin", |status| status.epoch() > asked)?;
    story.say(&format!("the policy plugin `interval` ({POLICY_INTERVAL}) has changed the key by itself"));
    story.show(&status);
    let middle = |times: &mut Vec<Duration>| {
        times.sort();
        times.get(times.len() / 2).copied().map_or(0.0, |time| time.as_secs_f64())
    };
    let [in_band, pause] = &mut times;
    story.table.row(
        "rotations",
        format!(
            "{} keys; asked: {} in-band (median {:.2} s), {} by pause (median {:.2} s), all under load",
            status.epoch() - first + 1,
            in_band.len(),
            middle(in_band),
            pause.len(),
            middle(pause),
        ),
    );
    Ok(())
}

fn pause_and_resume(story: &mut Story, main: &Site, remote: &Site, writer: &Writer) -> Result<()> {
    story.chapter("The operator pauses; initiators go on writing");
    main.farseal(&["pause", PAIR, "--wait"])?;
    let paused = main.status()?;
    story.show(&paused);
    let held = remote.status()?.mark("safe");
    let before = writer.progress.answered.load(Ordering::Acquire);
    wait_for("writes during the pause", Duration::from_secs(30), || {
        Ok((writer.progress.answered.load(Ordering::Acquire) > before + 2000).then_some(()))
    })?;
    let later = main.status()?;
    story.show(&later);
    let still = remote.status()?.mark("safe");
    if still != held {
        bail!("the remote went from record {held} to {still} during the pause");
    }
    story.say(&format!("the remote stays at record {held}: a consistent state, for as long as the pause lasts"));
    main.farseal(&["resume", PAIR])?;
    let through = later.mark("last");
    let status = main.wait_until("what was held back at the remote", |status| status.mark("safe") >= through)?;
    story.show(&status);
    story
        .table
        .row("pause", format!("remote kept record {held} while {} more were written, then caught up", through - held));
    Ok(())
}

fn scrub(story: &mut Story, remote: &Site) -> Result<()> {
    story.chapter("The remote checks its copy without a key");
    let said = remote.farseal(&["scrub", PAIR])?;
    let said = said.lines().next().unwrap_or_default().to_owned();
    story.say(&said);
    if !said.contains("none is damaged") {
        bail!("the scrub found damage");
    }
    story.table.row("scrub at the remote", said);
    Ok(())
}

/// How things stood when the main site was lost.
struct Lost {
    /// The last stamp that the writer had an answer for, and the last that a FLUSH covered.
    answered: u64,
    flushed: u64,
    /// What the main site knew to be durable at the remote.
    safe: u64,
}

fn lose_main(story: &mut Story, main: &mut Site, remote: &Site, writer: Writer) -> Result<Lost> {
    story.chapter("The main site is lost in the middle of a write");
    let status = main.status()?;
    story.show(&status);
    main.kill()?;
    let (answered, flushed) = writer.join();
    story.say(&format!("SIGKILL; the writer had {answered} answers"));
    remote.wait_until("the loss of the link", |status| status.state() == "link-down")?;
    story.say("the remote says link-down");
    let lag = format!("{} records, {:.1} MiB", status.lag_records(), mebibytes(status.lag_bytes()));
    story.table.row("lag just before the kill", lag);
    Ok(Lost { answered, flushed, safe: status.mark("safe") })
}

fn search_remote(story: &mut Story, programs: &Programs, tree: &Tree, dir: &Path, remote: &Site) -> Result<()> {
    story.chapter("What a thief of the remote's disks would find");
    let marker = tree.marker.as_bytes();
    let control = search(&dir.join("main/volume.img"), marker)?;
    let found = search(&remote.state(), marker)?;
    story.say(&format!(
        "plaintext markers: {} in main's volume, {} in all {} files ({:.0} MiB) of the remote",
        control.hits,
        found.hits,
        found.files,
        mebibytes(found.bytes)
    ));
    if control.hits == 0 || found.hits != 0 || found.bytes < tree.bytes {
        bail!("the search for markers does not prove what it should");
    }
    let mut search_for_keys = Command::new(&programs.search_for_keys);
    search_for_keys.arg(remote.config()).arg(PAIR).arg(remote.state());
    let output = search_for_keys.output()?;
    if !output.status.success() {
        bail!("search_for_keys: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let keys: Value = serde_json::from_slice(&output.stdout)?;
    let count = |name: &str| keys[name].as_u64().unwrap_or(u64::MAX);
    story.say(&format!(
        "keys: {} of {} epochs looked for, {} found (control, in memory: {} found)",
        count("keys"),
        count("epochs"),
        count("hits"),
        count("control-hits")
    ));
    if count("hits") != 0 || count("control-hits") != 1 || count("epochs") == 0 {
        bail!("the search for keys does not prove what it should");
    }
    let what =
        format!("0 of {} markers, 0 of {} keys, in {:.0} MiB", control.hits, count("keys"), mebibytes(found.bytes));
    story.table.row("plaintext and keys at the remote", what);
    Ok(())
}

fn take_over(story: &mut Story, image: &Image, remote: &Site, region: u64, lost: &Lost) -> Result<()> {
    story.chapter("Takeover");
    let kept = remote.status()?.mark("safe");
    if kept < lost.safe {
        bail!("record {} was durable at the remote, and it offers only {kept}", lost.safe);
    }
    let begun = Instant::now();
    let said = remote.farseal(&["takeover", PAIR, "--yes"])?;
    let mut client = Client::connect(&remote.socket(), PAIR)?;
    let mut block = vec![0; stamps::BLOCK];
    client.read(region, &mut block)?;
    let first = begun.elapsed();
    story.say(said.lines().next().unwrap_or_default());
    story.say(&format!("first block read and opened {:.2} s after the command", seconds(first)));
    let mut source = vec![0; stamps::BLOCK];
    let middle = (image.bytes / 2) & !4095;
    std::os::unix::fs::FileExt::read_exact_at(&File::open(&image.path)?, &mut source, middle)?;
    client.read(middle, &mut block)?;
    if block != source {
        bail!("the block at {middle} is not what was written");
    }
    story.table.row("takeover to the first block", format!("{:.2} s", seconds(first)));
    Ok(())
}

fn read_back(
    story: &mut Story,
    dir: &Path,
    tree: &Tree,
    image: &Image,
    remote: &Site,
    region: u64,
    lost: &Lost,
) -> Result<()> {
    story.chapter("Everything is read back over NBD from the remote");
    let mover = Mover::choose();
    let copy = dir.join("copy");
    let begun = Instant::now();
    mover.read(remote, PAIR, &copy)?;
    let size = std::fs::metadata(&copy)?.len();
    let rate = mebibytes(size) / begun.elapsed().as_secs_f64();
    story.say(&format!(
        "{mover} has read {:.0} MiB in {:.1} s, opened as they were read",
        mebibytes(size),
        begun.elapsed().as_secs_f64()
    ));
    compare_bytes(&image.path, &copy, image.bytes)?;
    story.say(&format!("the image is byte for byte what was written ({} bytes)", image.bytes));
    let files = dir.join("files");
    image.check_and_extract(&copy, &files)?;
    tree::compare(&tree.hashes, &tree::hash_all(&files)?)?;
    let checked = if image.form == Form::Ext4 { "e2fsck finds nothing to mend, and all" } else { "all" };
    story.say(&format!("{checked} {} files have the hashes they had", tree.hashes.len()));

    let stamps = read_at(&copy, region, stamps::BYTES)?;
    let last = stamps::check_prefix(&stamps)?;
    story.say(&format!("stamped blocks: writes 1 to {last} are there, all of them, and none later"));
    if last > lost.answered + 1 {
        bail!("the copy has write {last}, and only {} were answered", lost.answered);
    }
    let missing = lost.answered.saturating_sub(last);
    story
        .say(&format!("{missing} of {} answered writes had not reached the remote (asynchronous copy)", lost.answered));
    let status = remote.wait_until("the background sweep", |status| {
        let (opened, of) = status.opened();
        status.state() == "taken-over" && opened >= of
    })?;
    let (opened, of) = status.opened();
    story.say(&format!("the background sweep is done: {opened} of {of} blocks are open"));
    story.table.row(
        "read back",
        format!("{:.0} MiB/s; image identical; {checked} {} files identical", rate, tree.hashes.len()),
    );
    story.table.row(
        "stamped writes",
        format!("{} answered, {} flushed, copy holds 1 to {last} without a hole", lost.answered, lost.flushed),
    );
    story.table.row("writes lost", format!("{missing}, none of them acknowledged as durable at the remote"));
    story.table.row("time", format!("{:.0} s", story.begun.elapsed().as_secs_f64()));
    Ok(())
}

fn read_at(path: &Path, offset: u64, len: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len)?];
    let file = File::open(path)?;
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, offset)
        .with_context(|| format!("{} is too short", path.display()))?;
    Ok(bytes)
}

/// The first `len` bytes of two files.
fn compare_bytes(one: &Path, other: &Path, len: u64) -> Result<()> {
    let (mut one, mut other) = (File::open(one)?.take(len), File::open(other)?.take(len));
    let mut offset = 0;
    loop {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        one.by_ref().take(1 << 20).read_to_end(&mut left)?;
        other.by_ref().take(1 << 20).read_to_end(&mut right)?;
        if left != right {
            bail!("the copy differs from the image in the mebibyte at byte {offset}");
        }
        if left.is_empty() {
            return Ok(());
        }
        offset += u64::try_from(left.len())?;
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown to one decimal")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
