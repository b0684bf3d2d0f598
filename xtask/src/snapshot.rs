//! `cargo xtask snapshot`: plays the scenarios to the real components and compares the transcripts with the accepted
//! ones; `--review` asks about each difference.

mod played;

use std::collections::BTreeSet;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Write as _, stdin, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::compiled;
use crate::diff::{diff, first_lines};
use crate::plugins;
use crate::tidy;
use crate::workspace::{Workspace, run as run_program};
use played::{Played, Verdict};

/// The test that plays scenarios. The whole workspace is named, for its features: nothing is compiled twice.
const PLAYER: [&str; 4] = ["test", "--workspace", "--test", "snapshots"];

/// Of a difference, so many lines are shown: the file has the others.
const SHOWN: usize = 40;

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

    let played = play(workspace, components.as_deref(), &wish)?;
    if let Some(refusal) = played.refusal() {
        eprintln!("{refusal}");
        bail!("nothing was played: a node would refuse the component");
    }
    if let Some(said) = played.unexplained() {
        println!("{said}");
        bail!("the scenarios could not be played: see above");
    }
    let pending = pending(&snapshots)?;
    let accepted = settle(workspace, &pending, &wish, &played)?;
    let told = pending.iter().map(|new| story(new)).collect();
    played.broken_beside(&told).for_each(|line| println!("{line}"));
    conclude(&wish, &played, &accepted, pending.len())
}

/// The sum at the end, and what is to be done.
fn conclude(wish: &Wish, played: &Played, accepted: &BTreeSet<String>, pending: usize) -> Result<()> {
    let sum = played.sum(accepted);
    if played.something_is_broken() {
        bail!(
            "{sum}; what fails is never accepted: mend the plugin, or the scenario's `expect`; in a scenario that others share, \
             `expects` says what is expected of one plugin"
        );
    }
    if pending > accepted.len() {
        bail!("{sum}; read what differs, then {} --review", wish.command());
    }
    println!("{sum}{}", played.speed());
    Ok(())
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

/// Plays the scenarios; every transcript that differs is left as `.snap.new`.
fn play(workspace: &Workspace, components: Option<&OsStr>, wish: &Wish) -> Result<Played> {
    workspace.say_who_is_waited_for("debug");
    if !was_built(workspace) {
        eprintln!(
            "building what plays the scenarios: it has a WebAssembly runtime in it and takes some six minutes of two cores, this once"
        );
        run_program(workspace.cargo().args(PLAYER).arg("--no-run"))?;
    }
    // What cargo prints is kept for what went wrong.
    let mut test = workspace.cargo();
    test.args(PLAYER).arg("--quiet");
    test.env("INSTA_UPDATE", "new").env("INSTA_OUTPUT", "none").env("INSTA_WORKSPACE_ROOT", &workspace.root);
    test.env("FARSEAL_PLUGINS", workspace.components()).env("RUST_BACKTRACE", "0");
    test.envs(components.map(|components| ("FARSEAL_PLUGIN", components)));
    test.envs(wish.scenario.as_ref().map(|scenario| ("FARSEAL_SCENARIO", scenario)));
    test.env("FARSEAL_INTERPRETED", workspace.interpreted()).env("FARSEAL_COMPILED", compiled::folder(workspace)?);
    test.args(["--", "--nocapture"]);
    // All plugins in all scenarios are hundreds of lines.
    Played::of(&mut test, components.is_some() || wish.scenario.is_some())
}

/// Whether the test that plays the scenarios was ever built here.
fn was_built(workspace: &Workspace) -> bool {
    let is_player = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with("snapshots-");
    fs::read_dir(workspace.target.join("debug/deps")).is_ok_and(|entries| entries.flatten().any(is_player))
}

/// What becomes of each differing transcript; the stories of those that are accepted.
fn settle(workspace: &Workspace, pending: &[PathBuf], wish: &Wish, played: &Played) -> Result<BTreeSet<String>> {
    let mut accepted = BTreeSet::new();
    for new in pending {
        let story = story(new);
        let fails = played.verdict(&story) == Some(Verdict::Fails);
        show(workspace, new, wish, played)?;
        let answer = match wish.mode {
            Mode::Show => 's',
            Mode::Check => 'r',
            Mode::Accept | Mode::Review if fails => 'r',
            Mode::Accept => 'a',
            Mode::Review => ask()?,
        };
        match answer {
            'a' => {
                accept(new)?;
                accepted.insert(story);
            }
            'r' => fs::remove_file(new)?,
            _ => {}
        }
    }
    Ok(accepted)
}

impl Wish {
    /// The command that was given, but for what is to be done with transcripts.
    fn command(&self) -> String {
        let scenario = self.scenario.iter().map(|scenario| format!("--scenario '{scenario}'"));
        let words = self.plugins.iter().cloned().chain(scenario);
        words.fold(String::from("cargo xtask snapshot"), |command, word| command + " " + &word)
    }
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

/// `<plugin>@<scenario>` of a new transcript.
fn story(new: &Path) -> String {
    new.file_name().unwrap_or_default().to_string_lossy().replace(".snap.new", "")
}

/// The story and its verdict, what does not hold in it, and what differs.
fn show(workspace: &Workspace, new: &Path, wish: &Wish, played: &Played) -> Result<()> {
    let old = fs::read_to_string(new.with_extension("")).unwrap_or_default();
    let story = story(new);
    let kind = new.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    let verdict = played.verdict(&story).map_or("differs", Verdict::word);
    match story.split_once('@') {
        Some((plugin, scenario)) => println!("\n{plugin}, fixtures/{kind}/{scenario}.yaml: {verdict}"),
        None => println!("\n{}: {verdict}", workspace.shown(new)),
    }
    played.broken_in(&story).for_each(|line| println!("  FAILS     {line}"));
    let text = fs::read_to_string(new)?;
    let all = diff(transcript(&old), transcript(&text));
    let (first, more) = first_lines(&all, SHOWN);
    print!("{first}");
    if more > 0 {
        let fails = verdict == Verdict::Fails.word();
        let rest = match wish.mode {
            Mode::Accept if !fails => workspace.shown(&new.with_extension("")).to_string(),
            Mode::Show | Mode::Review if wish.mode == Mode::Show || !fails => workspace.shown(new).to_string(),
            Mode::Show | Mode::Check | Mode::Accept | Mode::Review => {
                format!("{} keeps them in a file", wish.command())
            }
        };
        println!("    … {more} more lines: {rest}");
    }
    Ok(())
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
    fn the_command_that_is_named_is_the_one_that_was_given() {
        let words = ["late", "--check", "--scenario", "idle-*"].map(String::from);
        assert_eq!(parse(&words).unwrap().command(), "cargo xtask snapshot late --scenario 'idle-*'");
        assert_eq!(parse(&[]).unwrap().command(), "cargo xtask snapshot");
        assert_eq!(story(Path::new("snapshots/rotation/late@idle.snap.new")), "late@idle");
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
