//! `cargo xtask snapshot`: plays the scenarios to the real components and compares the transcripts with the accepted
//! ones; `--review` asks about each difference.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Write as _, stdin, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::diff::diff;
use crate::plugins;
use crate::workspace::Workspace;

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
    /// A plugin's name or a component's file; all plugins when absent.
    plugin: Option<String>,
    /// Scenario names, `*` for any text.
    scenario: Option<String>,
    mode: Mode,
}

pub(crate) fn run(workspace: &Workspace, words: &[String]) -> Result<()> {
    let wish = parse(words)?;
    let snapshots = workspace.fixtures().join("snapshots");
    let plugin = match &wish.plugin {
        None => {
            plugins::build_quietly(workspace, &[])?;
            None
        }
        Some(file) if is_component(file) => {
            let path = env::current_dir()?.join(file);
            if !path.is_file() {
                bail!("there is no file {}", path.display());
            }
            Some(path.into_os_string())
        }
        Some(name) => {
            plugins::build_quietly(workspace, &[name])?;
            Some(OsString::from(name))
        }
    };
    for leftover in pending(&snapshots)? {
        fs::remove_file(leftover)?;
    }

    let scenario = wish.scenario.as_deref();
    let played = play(workspace, plugin.as_deref(), scenario)?;
    let pending = pending(&snapshots)?;
    if pending.is_empty() {
        return played.settle().map(|()| println!("every transcript is as accepted"));
    }
    settle(workspace, &pending, wish.mode)?;
    // What the scenarios expect holds whatever was accepted.
    play(workspace, plugin.as_deref(), scenario)?.settle()
}

/// What the test that plays the scenarios said, and whether it passed.
struct Played {
    passed: bool,
    said: String,
}

impl Played {
    /// A failure that is no difference between transcripts is shown as it came.
    fn settle(self) -> Result<()> {
        if !self.passed {
            println!("{}", self.said);
            bail!("a scenario failed: see above");
        }
        Ok(())
    }
}

/// Plays the scenarios; every transcript that differs is left as `.snap.new`.
fn play(workspace: &Workspace, plugin: Option<&OsStr>, scenario: Option<&str>) -> Result<Played> {
    let mut test = workspace.cargo();
    test.args(["test", "--quiet", "--workspace", "--test", "snapshots"]);
    test.env("INSTA_UPDATE", "new").env("INSTA_OUTPUT", "none").env("INSTA_WORKSPACE_ROOT", &workspace.root);
    test.env("FARSEAL_PLUGINS", workspace.components()).env("RUST_BACKTRACE", "0");
    test.envs(plugin.map(|plugin| ("FARSEAL_PLUGIN", plugin)));
    test.envs(scenario.map(|scenario| ("FARSEAL_SCENARIO", scenario)));
    let output = test.output().context("cannot start cargo test")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Played { passed: output.status.success(), said: text(&output.stderr) + &text(&output.stdout) })
}

/// What becomes of each differing transcript.
fn settle(workspace: &Workspace, pending: &[PathBuf], mode: Mode) -> Result<()> {
    let mut left = 0_usize;
    for new in pending {
        show(workspace, new)?;
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
    if left > 0 {
        bail!("{left} transcripts differ: read them, then cargo xtask snapshot --review");
    }
    Ok(())
}

fn parse(words: &[String]) -> Result<Wish> {
    let mut wish = Wish { plugin: None, scenario: None, mode: Mode::Show };
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
            plugin if wish.plugin.is_none() => wish.plugin = Some(plugin.to_owned()),
            _ => bail!("snapshot takes one plugin, or none for all"),
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

/// `<plugin>@<scenario>` and what differs.
fn show(workspace: &Workspace, new: &Path) -> Result<()> {
    let old = fs::read_to_string(new.with_extension("")).unwrap_or_default();
    let name = new.file_name().unwrap_or_default().to_string_lossy().replace(".snap.new", "");
    let kind = new.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    match name.split_once('@') {
        Some((plugin, scenario)) => println!("\n{plugin}, fixtures/{kind}/{scenario}.yaml"),
        None => println!("\n{}", workspace.shown(new)),
    }
    print!("{}", diff(transcript(&old), transcript(&fs::read_to_string(new)?)));
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
        let expected = Wish { plugin: Some("interval".into()), scenario: Some("idle-*".into()), mode: Mode::Review };
        assert_eq!(wish, expected);
        assert!(parse(&["--fast".into()]).is_err());
        assert!(parse(&["a".into(), "b".into()]).is_err());
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
