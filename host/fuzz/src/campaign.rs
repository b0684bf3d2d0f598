//! Runs a target over its corpus and over mutations of it, and keeps what fails.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::Target;
use crate::mutate::{Dice, mutate};

/// Inputs kept beside the corpus while a campaign runs: those that led somewhere are picked again.
const POOL_MAX: usize = 4096;
/// Runs between two looks at the clock.
const LOOK_EVERY: u64 = 64;

/// An input that broke a promise, and what was said.
#[derive(Clone, Debug)]
pub struct Broken {
    pub input: Vec<u8>,
    pub said: String,
}

/// The committed inputs of a target, by name.
///
/// # Errors
/// The folder cannot be read.
pub fn corpus(root: &Path, target: &Target) -> Result<Vec<(String, Vec<u8>)>> {
    let dir = root.join(target.name);
    let mut inputs = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        inputs.push((name, fs::read(&path)?));
    }
    inputs.sort();
    Ok(inputs)
}

/// One run.
///
/// # Errors
/// What the target said when it panicked.
pub fn play(target: &Target, input: &[u8]) -> Result<(), Broken> {
    panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Broken { input: input.to_vec(), said: text.unwrap_or("no message").to_owned() }
    })
}

/// Mutations of the corpus: a fixed number of them, or as many as fit into a time. Returns how many there were, and the
/// first that failed, as short as simple cuts make it.
pub fn run(
    target: &Target,
    corpus: &[(String, Vec<u8>)],
    seed: u64,
    most: u64,
    time: Option<Duration>,
) -> (u64, Option<Broken>) {
    let begun = Instant::now();
    let mut dice = Dice::new(seed);
    let mut pool: Vec<Vec<u8>> = corpus.iter().map(|(_, input)| input.clone()).collect();
    pool.push(Vec::new());
    for count in 0..most {
        if count % LOOK_EVERY == 0 && time.is_some_and(|time| begun.elapsed() >= time) {
            return (count, None);
        }
        // Half of the time near what is known to lead somewhere.
        let from = if dice.below(2) == 0 { corpus.len() } else { pool.len() };
        let (one, other) = (dice.below(from), dice.below(pool.len()));
        let input = mutate(&mut dice, &pool[one], &pool[other]);
        if let Err(broken) = play(target, &input) {
            return (count + 1, Some(shorten(target, broken)));
        }
        // Without coverage to go by: some of all, so that mutations pile up.
        if dice.below(16) == 0 {
            if pool.len() < POOL_MAX {
                pool.push(input);
            } else {
                let at = corpus.len() + dice.below(pool.len() - corpus.len());
                pool[at] = input;
            }
        }
    }
    (most, None)
}

/// Leaves out what the failure does not need, larger pieces first.
fn shorten(target: &Target, mut broken: Broken) -> Broken {
    let mut piece = broken.input.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at + piece <= broken.input.len() {
            let shorter = [&broken.input[..at], &broken.input[at + piece..]].concat();
            match play(target, &shorter) {
                Err(still) => broken = still,
                Ok(()) => at += piece,
            }
        }
        piece /= 2;
    }
    broken
}

/// Writes the input beside where the program runs, under a name that its content decides.
///
/// # Errors
/// It cannot be written.
pub fn keep(dir: &Path, target: &Target, broken: &Broken) -> Result<PathBuf> {
    fs::create_dir_all(dir)?;
    let path = dir.join(format!("{}-{:08x}", target.name, crc32c::crc32c(&broken.input)));
    fs::write(&path, &broken.input)?;
    Ok(path)
}
