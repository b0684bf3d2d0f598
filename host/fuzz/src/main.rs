//! `farseal-fuzz`: one target, or all in turn, over mutations of their corpora for as long as asked.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use farseal_fuzz::{TARGETS, Target, campaign};

const USAGE: &str = "farseal-fuzz [TARGET] [--seconds N] [--seed N] [--corpus DIR] [--keep DIR] [--input FILE]";

struct Wanted {
    targets: Vec<Target>,
    seconds: u64,
    seed: u64,
    corpus: PathBuf,
    keep: PathBuf,
    input: Option<PathBuf>,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(|wanted| run(&wanted)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}\n{USAGE}\n");
            for target in TARGETS {
                eprintln!("  {:<10} {}", target.name, target.purpose);
            }
            ExitCode::from(2)
        }
    }
}

fn run(wanted: &Wanted) -> Result<bool> {
    if let (Some(input), [target]) = (&wanted.input, wanted.targets.as_slice()) {
        // Panics where it is wrong, with its place.
        (target.run)(&std::fs::read(input).with_context(|| input.display().to_string())?);
        println!("{}: {} holds", target.name, input.display());
        return Ok(true);
    }
    // A failing target is told with its input, not where it panics.
    std::panic::set_hook(Box::new(|_| {}));
    let mut held = true;
    for target in &wanted.targets {
        let corpus = campaign::corpus(&wanted.corpus, target)?;
        let begun = Instant::now();
        let time = Some(Duration::from_secs(wanted.seconds));
        let (count, broken) = campaign::run(target, &corpus, wanted.seed, u64::MAX, time);
        let seconds = begun.elapsed().as_secs().max(1);
        println!("{:<10} {count} inputs, {} a second", target.name, count / seconds);
        if let Some(broken) = broken {
            held = false;
            let path = campaign::keep(&wanted.keep, target, &broken)?;
            println!("  {}", broken.said);
            println!("  repeat: cargo xtask fuzz {} --input {}", target.name, path.display());
        }
    }
    Ok(held)
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Wanted> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let mut wanted = Wanted {
        targets: TARGETS.to_vec(),
        seconds: 60,
        seed: u64::try_from(now)?,
        corpus: Path::new("fixtures/corpus").to_owned(),
        keep: Path::new("target/fuzz").to_owned(),
        input: None,
    };
    while let Some(word) = words.next() {
        if let Some(target) = Target::named(&word) {
            wanted.targets = vec![target];
            continue;
        }
        let value = words.next().with_context(|| format!("{word}: no such target, or nothing follows"))?;
        match word.as_str() {
            "--seconds" => wanted.seconds = value.parse()?,
            "--seed" => wanted.seed = value.parse()?,
            "--corpus" => wanted.corpus = value.into(),
            "--keep" => wanted.keep = value.into(),
            "--input" => wanted.input = Some(value.into()),
            _ => bail!("{word} is not known"),
        }
    }
    if wanted.input.is_some() && wanted.targets.len() != 1 {
        bail!("--input needs the name of its target");
    }
    Ok(wanted)
}
