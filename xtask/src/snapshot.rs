//! `cargo xtask snapshot`: plays the scenarios to the real components and compares the transcripts with the accepted
//! ones; `--review` asks about each difference.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Write as _, stdin, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::compiled;
use crate::diff::diff;
use crate::plugins;
use crate::tidy;
use crate::workspace::{Workspace, run as run_program};

/// The test that plays scenarios. The whole workspace is named, for its features: nothing is compiled twice.
const PLAYER: [&str; 4] = ["test", "--workspace", "--test", "snapshots"];

/// What to do with transcripts that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Show them and fail.
    Show,
    /// As `Show`, but leave no `.snap.new` files behind.
    Check,
    Review,
    Accept,
}

#[derive(Debug, PartialEq, Eq)]
struct Wish {
    /// Plugins' names or components' files; all plugins when there are none.
    plugins: Vec<String>,
    /// Scenario names, `*` for any text.
    scenario: Option<String>,
    mode: Mode,
}

pub(crate) fn run(workspace: &Workspace, words: &[String]) -> Result<()> {
    let wish = parse(words)?;
    let unused =
        if env::var_os("FARSEAL_FIXTURES").is_some() { Vec::new() } else { tidy::unused_snapshots(&workspace.root)? };
    if !unused.is_empty() {
        unused.iter().for_each(|problem| println!("{}: {}", problem.place, problem.message));
        bail!("{} accepted transcripts belong to nothing any more", unused.len());
    }
    let snapshots = workspace.fixtures().join("snapshots");
    let components = components(workspace, &wish.plugins)?;
    for leftover in pending(&snapshots)? {
        fs::remove_file(leftover)?;
    }

    let scenario = wish.scenario.as_deref();
    let played = play(workspace, components.as_deref(), scenario)?;
    let pending = pending(&snapshots)?;
    if pending.is_empty() {
        let speed = played.speed();
        return played.settle().map(|()| println!("every transcript is as accepted{speed}"));
    }
    settle(workspace, &pending, wish.mode)?;
    // What the scenarios expect holds whatever was accepted.
    play(workspace, components.as_deref(), scenario)?.settle()
}

/// The files of the components that are wanted, built where they are plugins of the repository; all of those when none is named.
fn components(workspace: &Workspace, wanted: &[String]) -> Result<Option<OsString>> {
    if wanted.is_empty() {
        plugins::build_quietly(workspace, &[])?;
        for missing in plugins::build_interpreted(workspace)? {
            println!("not played: {missing}");
        }
        return Ok(None);
    }
    let (files, names): (Vec<_>, Vec<_>) = wanted.iter().partition(|word| is_component(word));
    let mut paths = if names.is_empty() { Vec::new() } else { plugins::build_quietly(workspace, &names)? };
    for file in files {
        let path = env::current_dir()?.join(file);
        if !path.is_file() {
            bail!("there is no file {}", path.display());
        }
        paths.push(path);
    }
    Ok(Some(env::join_paths(paths)?))
}

/// What the test that plays the scenarios said, and whether it passed.
struct Played {
    passed: bool,
    said: String,
}

impl Played {
    /// How fast it went: reading and compiling the components, then stepping, in a fresh instance each time.
    fn speed(&self) -> String {
        let line = self.said.lines().find_map(|line| line.trim_start_matches('.').strip_prefix("loaded "));
        let read = |line: &str| {
            let mut numbers =
                line.split(|byte: char| !byte.is_ascii_digit()).filter_map(|word| word.parse::<u64>().ok());
            Some([numbers.next()?, numbers.next()?, numbers.next()?, numbers.next()?, numbers.next()?])
        };
        match line.and_then(read) {
            Some([plugins, loading, steps, stepping, fuel]) if steps > 0 && stepping > 0 => {
                let (whole, tenths) = (loading / 1_000_000, loading % 1_000_000 / 100_000);
                let speed = steps.saturating_mul(1_000_000) / stepping;
                let fuel = fuel / steps;
                format!(
                    "; {plugins} loaded in {whole}.{tenths} s, then {steps} steps, {speed} a second, {fuel} units of fuel each"
                )
            }
            _ => String::new(),
        }
    }

    /// What does not hold, a line each; what is no matter of scenarios is shown as it came.
    fn settle(self) -> Result<()> {
        if self.passed {
            return Ok(());
        }
        let broken: Vec<&str> = self.broken().collect();
        if broken.is_empty() {
            println!("{}", self.said);
            bail!("the scenarios could not be played: see above");
        }
        broken.iter().for_each(|line| println!("{line}"));
        bail!("{} things do not hold: mend the plugin, or the scenario's `expect`", broken.len());
    }

    fn broken(&self) -> impl Iterator<Item = &str> {
        let lines = self.said.lines().filter_map(|line| line.trim_start_matches('.').strip_prefix("broken: "));
        lines.filter(|line| !line.ends_with("the transcript differs"))
    }
}

/// Plays the scenarios; every transcript that differs is left as `.snap.new`.
fn play(workspace: &Workspace, components: Option<&OsStr>, scenario: Option<&str>) -> Result<Played> {
    workspace.say_who_is_waited_for("debug");
    if !was_built(workspace) {
        eprintln!("building what plays the scenarios: it has a WebAssembly runtime in it and takes minutes, this once");
        run_program(workspace.cargo().args(PLAYER).arg("--no-run"))?;
    }
    // What cargo prints is kept for what went wrong.
    let mut test = workspace.cargo();
    test.args(PLAYER).arg("--quiet");
    test.env("INSTA_UPDATE", "new").env("INSTA_OUTPUT", "none").env("INSTA_WORKSPACE_ROOT", &workspace.root);
    test.env("FARSEAL_PLUGINS", workspace.components()).env("RUST_BACKTRACE", "0");
    test.envs(components.map(|components| ("FARSEAL_PLUGIN", components)));
    test.envs(scenario.map(|scenario| ("FARSEAL_SCENARIO", scenario)));
    test.env("FARSEAL_INTERPRETED", workspace.interpreted()).env("FARSEAL_COMPILED", compiled::folder(workspace)?);
    test.args(["--", "--nocapture"]);
    let output = test.output().context("cannot start cargo test")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Played { passed: output.status.success(), said: text(&output.stderr) + &text(&output.stdout) })
}

/// Whether the test that plays the scenarios was ever built here.
fn was_built(workspace: &Workspace) -> bool {
    let is_player = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with("snapshots-");
    fs::read_dir(workspace.target.join("debug/deps")).is_ok_and(|entries| entries.flatten().any(is_player))
}

/// What becomes of each differing transcript.
fn settle(workspace: &Workspace, pending: &[PathBuf], mode: Mode) -> Result<()> {
    let mut left = 0_usize;
    let mut failing = 0_usize;
    for new in pending {
        let text = show(workspace, new)?;
        let fails = failures(&text);
        if !fails.is_empty() && matches!(mode, Mode::Accept | Mode::Review) {
            fails.iter().for_each(|what| println!("  not accepted, as it is not what its scenario expects: {what}"));
            fs::remove_file(new)?;
            (left, failing) = (left + 1, failing + 1);
            continue;
        }
        let answer = match mode {
            Mode::Show => 's',
            Mode::Check => 'r',
            Mode::Accept => 'a',
            Mode::Review => ask()?,
        };
        match answer {
            'a' => accept(new)?,
            'r' => {
                fs::remove_file(new)?;
                left += 1;
            }
            _ => left += 1,
        }
    }
    println!("{} of {} transcripts accepted", pending.len() - left, pending.len());
    if failing > 0 {
        bail!(
            "{failing} transcripts are not what their scenarios expect, and are not accepted: mend the plugin, or `expect`; in a \
             scenario that others share, `expects` says what is expected of one plugin"
        );
    }
    if left > 0 {
        bail!("{left} transcripts differ: read them, then cargo xtask snapshot --review");
    }
    Ok(())
}

fn parse(words: &[String]) -> Result<Wish> {
    let mut wish = Wish { plugins: Vec::new(), scenario: None, mode: Mode::Show };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--check" => wish.mode = Mode::Check,
            "--review" => wish.mode = Mode::Review,
            "--accept" => wish.mode = Mode::Accept,
            "--scenario" => wish.scenario = Some(words.next().context("--scenario needs a name or a pattern")?.clone()),
            option if option.starts_with('-') => {
                bail!("snapshot does not know {option}; it knows --scenario, --check, --review, --accept")
            }
            plugin => wish.plugins.push(plugin.to_owned()),
        }
    }
    Ok(wish)
}

fn is_component(word: &str) -> bool {
    Path::new(word).extension().is_some_and(|extension| extension == "wasm")
}

/// Every `.snap.new`, in order of path.
fn pending(place: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(place) else { return Ok(found) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(pending(&path)?);
        } else if path.to_string_lossy().ends_with(".snap.new") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Expectations of the scenario that are not met in a transcript.
fn failures(transcript: &str) -> Vec<&str> {
    transcript.lines().filter_map(|line| line.strip_prefix("  FAILS     ")).collect()
}

/// `<plugin>@<scenario>` and what differs; returns the new transcript.
fn show(workspace: &Workspace, new: &Path) -> Result<String> {
    let old = fs::read_to_string(new.with_extension("")).unwrap_or_default();
    let name = new.file_name().unwrap_or_default().to_string_lossy().replace(".snap.new", "");
    let kind = new.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    match name.split_once('@') {
        Some((plugin, scenario)) => println!("\n{plugin}, fixtures/{kind}/{scenario}.yaml"),
        None => println!("\n{}", workspace.shown(new)),
    }
    let text = fs::read_to_string(new)?;
    print!("{}", diff(transcript(&old), transcript(&text)));
    Ok(transcript(&text).to_owned())
}

/// What follows the header between the two `---` lines.
fn transcript(snapshot: &str) -> &str {
    snapshot.strip_prefix("---\n").and_then(|rest| rest.split_once("\n---\n")).map_or(snapshot, |(_, text)| text)
}

/// A new snapshot becomes the accepted one, without the line that says where in the test it was asserted.
fn accept(new: &Path) -> Result<()> {
    let text = fs::read_to_string(new)?;
    let split = text.len() - transcript(&text).len();
    let header: String = text[..split].lines().filter(|line| !line.starts_with("assertion_line:")).fold(
        String::new(),
        |mut kept, line| {
            kept.push_str(line);
            kept.push('\n');
            kept
        },
    );
    fs::write(new.with_extension(""), header + &text[split..])?;
    fs::remove_file(new)?;
    Ok(())
}

fn ask() -> Result<char> {
    loop {
        print!("accept, reject or skip? [a/r/s] ");
        stdout().flush()?;
        let mut answer = String::new();
        if stdin().read_line(&mut answer)? == 0 {
            return Ok('s');
        }
        if let Some(letter @ ('a' | 'r' | 's')) = answer.trim().chars().next() {
            return Ok(letter);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn words_are_read_in_any_order() {
        let words = ["--review", "interval", "--scenario", "idle-*"].map(String::from);
        let wish = parse(&words).unwrap();
        let expected = Wish { plugins: vec!["interval".into()], scenario: Some("idle-*".into()), mode: Mode::Review };
        assert_eq!(wish, expected);
        assert!(parse(&["--fast".into()]).is_err());
        assert_eq!(parse(&["a".into(), "b.wasm".into()]).unwrap().plugins, ["a", "b.wasm"]);
    }

    #[test]
    fn the_speed_is_said_where_steps_were_counted() {
        let speed = |said: &str| Played { passed: true, said: said.into() }.speed();
        let said = "running 1 test\n..loaded 19 plugins in 1250000 us, played 1200 steps in 300000 us for 2400000 units of \
                    fuel\n.\n";
        assert_eq!(speed(said), "; 19 loaded in 1.2 s, then 1200 steps, 4000 a second, 2000 units of fuel each");
        assert_eq!(speed("loaded 1 plugins in 7 us, played 0 steps in 0 us for 0 units of fuel"), "");
        assert_eq!(speed(""), "");
    }

    #[test]
    fn what_does_not_hold_is_told_without_what_a_test_program_prints() {
        let said = "running 3 tests\n.broken: late@request: rotations: 0 is not 2\nbroken: late@idle: the transcript \
                    differs\n\nthread 'main' panicked at x.rs:1:2:\nnote: run with `RUST_BACKTRACE=1`\n";
        let played = Played { passed: false, said: said.into() };
        assert_eq!(played.broken().collect::<Vec<_>>(), ["late@request: rotations: 0 is not 2"]);
        assert_eq!(failures("x\n  FAILS     rotations: 0 is not 2\n"), ["rotations: 0 is not 2"]);
    }

    #[test]
    fn accepting_keeps_the_transcript_and_drops_the_line_number() {
        let place = tempfile::tempdir().unwrap();
        let new = place.path().join("interval@idle.snap.new");
        fs::write(&new, "---\nsource: x\nassertion_line: 7\n---\nassertion_line: stays\n").unwrap();
        assert_eq!(pending(place.path()).unwrap().as_slice(), std::slice::from_ref(&new));
        accept(&new).unwrap();
        let kept = fs::read_to_string(place.path().join("interval@idle.snap")).unwrap();
        assert_eq!(kept, "---\nsource: x\n---\nassertion_line: stays\n");
        assert!(pending(place.path()).unwrap().is_empty());
    }
}
