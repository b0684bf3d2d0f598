//! `cargo xtask disguise-game`: can an observer of the line tell a change of key from nothing at all? Two sites, real
//! captures, fair coins, and controls that must be caught.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::workspace::Workspace;
use crate::{plugins, tools};

mod capture;
mod judge;
mod load;
mod rig;

use capture::Way;
use judge::Judge;
use load::Workload;
use rig::Phase;

/// A control below it means that the harness sees nothing, and what it says of the rest is void.
const CAUGHT: f64 = 0.9;
/// The goal: the one-sided 95 % upper bound of the area under the curve.
const HIDDEN: f64 = 0.52;
/// Two samples of nothing must not differ by more standard errors than this.
const NULL_ERRORS: f64 = 3.5;
/// What the controls are played on. A key without a disguise is as long as a write of 4 KiB: among hundreds of those a second
/// it is missed more often than here, which says nothing of the harness.
const CONTROL_WORKLOADS: [Workload; 2] = [Workload::Sequential, Workload::Idle];
/// One key in so many may come into force after the window: what is looked at is the line while keys change.
const LATE_SHARE: u64 = 8;
/// Tosses of each control, twice that when it is not short.
const CONTROL_EVENTS: usize = 240;

/// How a key changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    InBand,
    Pause,
}

impl How {
    const fn name(self) -> &'static str {
        match self {
            Self::InBand => "in-band",
            Self::Pause => "pause",
        }
    }
}

/// What is played, and on what.
#[derive(Debug, Clone)]
struct Terms {
    disguise: String,
    /// What the records cross: "tls" or "san".
    link: String,
    how: How,
    /// The disguise's own settings, as a TOML table.
    settings: Option<String>,
    /// What the pair's path shows all the time, as "8MiB/s": without it no pause is allowed with a disguise.
    shape: Option<String>,
    /// One more line of the pair's section, at both sites.
    pair_line: Option<String>,
    workloads: Vec<Workload>,
    /// Keys are with a third site alone, and the line to it is watched, too.
    escrow: bool,
    /// Pairs of nodes side by side.
    lanes: usize,
    /// What an event has for itself.
    window: Duration,
    events: usize,
    short: bool,
    seed: u64,
    out: PathBuf,
    farseal: PathBuf,
    plugins: PathBuf,
}

/// The game as a part of `cargo xtask test`: what could not be tested is said, not failed.
pub(crate) fn run(workspace: &Workspace, words: &[String]) -> Result<()> {
    let terms = options(workspace, words)?;
    tools::install_for(&["tcpdump"]);
    let way = Way::find();
    let judge = match Judge::prepare(workspace) {
        Ok(judge) => judge,
        Err(reason) if terms.short => {
            println!("not tested: whether an observer can tell a change of key. {reason:#}");
            return Ok(());
        }
        Err(reason) => return Err(reason),
    };
    plugins::build_quietly(workspace, &[])?;
    if !words.iter().any(|word| word == "--farseal") {
        workspace.build(&["--bin", "farseal"])?;
    }
    if terms.escrow && way == Way::Relay {
        bail!("with --escrow two lines are watched, which takes tcpdump and the right to capture");
    }
    println!("capturing with {}; {} lanes; seed {}", way.name(), terms.lanes, terms.seed);
    let control = |name, how| Phase {
        name,
        disguise: "plain",
        own: false,
        how,
        workloads: &CONTROL_WORKLOADS,
        events: if terms.short { CONTROL_EVENTS } else { CONTROL_EVENTS * 2 },
    };
    let controls = [control("control: plain, in-band", How::InBand), control("control: plain, pause", How::Pause)];
    let mut found = Vec::new();
    for phase in &controls {
        found.push(terms.play(phase, way, &judge)?);
    }
    let void = void(&found);
    // The short form checks the harness itself, unless it is told what to play.
    if void.is_empty() && (!terms.short || words.iter().any(|word| word == "--disguise")) {
        let name = format!("{}, {}", terms.disguise, terms.how.name());
        let (disguise, workloads, events) = (&terms.disguise, &terms.workloads, terms.events);
        let phase = Phase { name: &name, disguise, own: true, how: terms.how, workloads, events };
        found.push(terms.play(&phase, way, &judge)?);
    }
    print!("\n{}", table(&found));
    let report = json!({ "seed": terms.seed, "terms": terms.told(), "void": void, "phases": found });
    let file = terms.out.join("disguise-game.json");
    fs::write(&file, serde_json::to_string_pretty(&report)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    println!("\ncaptures and figures are in {}", workspace.shown(&terms.out));
    if !void.is_empty() {
        bail!("the run is void: {}", void.join("; "));
    }
    Ok(())
}

impl Terms {
    /// Without them a figure says nothing of what it was measured on.
    fn told(&self) -> Value {
        json!({
            "disguise": self.disguise, "link": self.link, "how": self.how.name(), "shape": self.shape,
            "settings": self.settings, "pair-line": self.pair_line, "escrow": self.escrow, "lanes": self.lanes,
            "workloads": self.workloads.iter().map(|workload| workload.name()).collect::<Vec<_>>(),
            "window-s": self.window.as_secs_f64(), "events": self.events, "short": self.short,
        })
    }

    /// Plays a phase and has it judged.
    fn play(&self, phase: &Phase<'_>, way: Way, judge: &Judge) -> Result<Value> {
        let dir = self.out.join(phase.name.replace([':', ',', ' '], "-").replace("--", "-"));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        println!("playing {} ({} tosses)", phase.name, phase.events);
        rig::play(self, phase, way, &dir)?;
        let found = judge.judge(&dir)?;
        let (real, changed) = (found["real"].as_u64().unwrap_or(0), found["activations"].as_u64().unwrap_or(0));
        if changed * 10 < real * 9 {
            bail!(
                "{}: of {real} changes of key that were asked for, {changed} came into force: nothing is proved",
                phase.name
            );
        }
        print_telling(&found);
        if let Some(why) = late(&found) {
            println!("  {why}");
        }
        Ok(found)
    }
}

fn options(workspace: &Workspace, words: &[String]) -> Result<Terms> {
    let mut terms = Terms {
        disguise: "cover".into(),
        link: "tls".into(),
        how: How::InBand,
        settings: None,
        shape: None,
        pair_line: None,
        workloads: Workload::ALL.to_vec(),
        escrow: false,
        lanes: 4,
        window: Duration::from_millis(500),
        events: 9_200,
        short: false,
        seed: seed()?,
        out: workspace.target.join("disguise-game"),
        farseal: workspace.target.join("debug/farseal"),
        plugins: workspace.components(),
    };
    let mut minutes = None;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let flag = match word.as_str() {
            "--short" => Some(&mut terms.short),
            "--escrow" => Some(&mut terms.escrow),
            _ => None,
        };
        if let Some(flag) = flag {
            *flag = true;
            continue;
        }
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--disguise" => terms.disguise.clone_from(value),
            "--link" => terms.link.clone_from(value),
            "--how" => {
                let how = [How::InBand, How::Pause].into_iter().find(|how| how.name() == value);
                terms.how = how.context("--how is in-band or pause")?;
            }
            "--settings" => terms.settings = Some(value.clone()),
            "--shape" => terms.shape = Some(value.clone()),
            "--pair-line" => terms.pair_line = Some(value.clone()),
            "--workload" => {
                let named = value.split(',').map(Workload::named).collect::<Option<Vec<_>>>();
                let all = Workload::ALL.map(Workload::name).join(", ");
                terms.workloads = named.with_context(|| format!("--workload takes of {all}, separated by commas"))?;
            }
            "--lanes" => terms.lanes = value.parse::<usize>()?.clamp(1, 16),
            "--window" => terms.window = Duration::from_millis(value.parse::<u64>()?.clamp(100, 60_000)),
            "--events" => terms.events = value.parse()?,
            "--minutes" => minutes = Some(value.parse::<f64>()?),
            "--seed" => terms.seed = value.parse()?,
            "--out" => terms.out = std::path::absolute(value)?,
            "--farseal" => terms.farseal = Path::new(value).canonicalize()?,
            "--plugins" => terms.plugins = Path::new(value).canonicalize()?,
            _ => bail!(
                "disguise-game takes --disguise NAME, --link tls|san, --how in-band|pause, --settings TOML, --shape RATE, --pair-line TOML, \
                 --workload NAMES, --escrow, --lanes N, --window MILLISECONDS, --minutes N or --events N, --short, --seed N, --out FOLDER, \
                 --farseal FILE and --plugins FOLDER, not {word}"
            ),
        }
    }
    if let Some(minutes) = minutes {
        terms.events = rig::events_in(minutes, &terms);
    }
    Ok(terms)
}

/// Coins that nobody can guess.
fn seed() -> Result<u64> {
    use std::io::Read as _;
    let mut bytes = [0; 8];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Why the run says nothing: controls that were not caught, or nothing that was told from nothing.
fn void(controls: &[Value]) -> Vec<String> {
    let mut reasons = Vec::new();
    for control in controls {
        let name = control["phase"].as_str().unwrap_or("?");
        let best = best(control);
        // Not below would let what is no number pass.
        if !best.is_some_and(|best| best >= CAUGHT) {
            reasons.push(format!("{name} must be caught with {CAUGHT}, and was with {}", shown(best)));
        }
        let (null, error) = (&control["null"]["auc"], control["null"]["se"].as_f64());
        let within = null.as_f64().zip(error).is_some_and(|(auc, error)| (auc - 0.5).abs() <= NULL_ERRORS * error);
        if !within {
            reasons.push(format!("{name}: shams were told from shams with {}", shown(null.as_f64())));
        }
    }
    reasons
}

/// Why what was looked at is not the line while keys change.
fn late(found: &Value) -> Option<String> {
    let (real, within) = (found["real"].as_u64().unwrap_or(0), found["within"].as_u64().unwrap_or(0));
    (real.saturating_sub(within) * LATE_SHARE > real).then(|| {
        format!(
            "of {real} changes of key {within} came into force inside the window of {} s, and 95 of 100 within {} s: what was judged \
             is not the line while keys change; give --window as much, or the disguise a shorter gap",
            shown(found["window"].as_f64()),
            shown(found["delay-p95-s"].as_f64()),
        )
    })
}

/// The better of the classifiers.
fn best(found: &Value) -> Option<f64> {
    let models = found["models"].as_object()?.values();
    models.filter_map(|model| model["auc"].as_f64()).max_by(f64::total_cmp)
}

fn shown(number: Option<f64>) -> String {
    number.map_or(String::from("no number"), |number| format!("{number:.3}"))
}

/// A table as documents take it.
fn table(found: &[Value]) -> String {
    let mut text = String::from(
        "| real against sham | real, sham | boosting: AUC (upper 95 %) | logistic: AUC (upper 95 %) | sham against sham | \
         moment of activation (upper 95 %) | hidden |\n|---|---|---|---|---|---|---|\n",
    );
    for phase in found {
        let model = |figures: &Value| match figures["auc"].as_f64() {
            Some(auc) => format!("{auc:.3} ({})", shown(figures["upper"].as_f64())),
            None => String::from("too few"),
        };
        let uppers = ["boosting", "logistic"].map(|name| phase["models"][name]["upper"].as_f64());
        let hidden = uppers.iter().all(|upper| upper.is_some_and(|upper| upper <= HIDDEN));
        text += &format!(
            "| {} | {}, {} | {} | {} | {} | {} | {} |\n",
            phase["phase"].as_str().unwrap_or("?"),
            phase["real"],
            phase["sham"],
            model(&phase["models"]["boosting"]),
            model(&phase["models"]["logistic"]),
            shown(phase["null"]["auc"].as_f64()),
            model(&phase["activation"]),
            match late(phase) {
                Some(_) => "not looked at",
                None if hidden => "yes",
                None => "no",
            },
        );
    }
    text
}

fn print_telling(found: &Value) {
    println!(
        "  {} events, {} segments, {} keys came into force, {} inside the window; boosting {}, logistic {}",
        found["events"],
        found["segments"],
        found["activations"],
        found["within"],
        shown(found["models"]["boosting"]["auc"].as_f64()),
        shown(found["models"]["logistic"]["auc"].as_f64()),
    );
    for feature in found["telling"].as_array().into_iter().flatten().take(8) {
        let number = |name: &str| feature[name].as_f64().unwrap_or(f64::NAN);
        let name = feature["feature"].as_str().unwrap_or("?");
        println!("    {name:<28} alone {:.3}, KS {:.3} (p {:.1e})", number("auc"), number("ks"), number("p"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(auc: f64, sham: f64) -> Value {
        json!({ "phase": "c", "models": { "boosting": { "auc": auc } }, "null": { "auc": sham, "se": 0.03 } })
    }

    #[test]
    fn a_control_that_is_not_caught_makes_the_run_void() {
        assert_eq!(void(&[control(0.97, 0.52)]), Vec::<String>::new());
        assert_eq!(void(&[control(0.89, 0.52)]).len(), 1);
        assert_eq!(void(&[json!({ "phase": "c" })]).len(), 2);
    }

    #[test]
    fn keys_that_come_into_force_when_nobody_looks_any_more_prove_nothing() {
        let found = |within: u64| json!({ "real": 80, "within": within, "window": 0.5, "delay-p95-s": 3.9 });
        assert_eq!(late(&found(70)), None);
        assert!(late(&found(69)).is_some_and(|why| why.contains("within 3.900 s")));
        assert!(late(&json!({ "real": 1 })).is_some());
    }

    #[test]
    fn shams_that_are_told_from_shams_make_the_run_void() {
        assert_eq!(void(&[control(0.97, 0.62)]).len(), 1);
    }
}
