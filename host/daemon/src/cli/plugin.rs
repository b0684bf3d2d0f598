//! `farseal plugin`: what runs, what a component is, whether it would be taken, and putting it in.

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use clap::{Args, Subcommand, ValueEnum};
use farseal_plugin::conform::demand::fewer_told;
use farseal_plugin::conform::{self, Broken, CodeInMemory, Effort, Rule, Verdict};
use farseal_plugin::{
    Cipher, CodeCache, Digest, Disguise, Facts, Grant, HostOptions, Kind, LoadRequest, Plugin, PluginHost, Recovery,
    RotationPolicy,
};
use serde_json::Value;

use super::failure::{Exit, Failure};
use super::{Place, agreed, operate, say, show, wait_for};
use crate::control::api::{CommandReply, PairCommand, PluginCommand as Asked, PluginSlot, Swap, SwapReport};
use crate::plugins::{FileCache, proven};

/// Bytes of a component from which compiling it is felt: those with an interpreter have 12 MiB and more.
const LARGE: u64 = 4 << 20;

mod inspect;
mod journal;

/// `farseal plugin ..`.
#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// What runs in the node.
    List,
    /// What a component is and asks for, its settings, its digest and what its calls cost.
    Inspect(inspect::Inspect),
    /// Would it be taken, with these settings?
    Check(Check),
    /// Does it keep the contract's rules? Tries each with stories made by chance.
    Conform(Conform),
    /// Put a component in the place of another, while the pair goes on.
    Swap(SwapArgs),
    /// Where a component would decide otherwise than the one in its place did. Changes nothing; ends with 5 if it would.
    Diff(DiffArgs),
    /// What the pair's policy was asked and what it decided.
    #[command(subcommand)]
    Journal(journal::JournalCommand),
    /// Put the one before back in its place.
    Rollback {
        /// The pair.
        pair: String,
        /// The place.
        #[arg(value_enum)]
        slot: PluginSlot,
    },
    /// Let one that failed too often run again.
    Release {
        /// The pair.
        pair: String,
        /// The place.
        #[arg(value_enum)]
        slot: PluginSlot,
    },
}

/// `farseal plugin conform`.
#[derive(Debug, Args)]
pub(super) struct Conform {
    /// The component.
    file: PathBuf,
    /// Its settings.
    #[arg(long, value_name = "JSON", value_parser = settings)]
    settings: Option<Value>,
    /// Only these rules, as C-7. The result then speaks for no component.
    #[arg(long, value_name = "RULE", value_parser = rule)]
    rule: Vec<Rule>,
    /// Stories for each rule.
    #[arg(long, default_value_t = Effort::default().stories)]
    stories: u32,
    /// The same seed makes the same stories.
    #[arg(long, default_value_t = Effort::default().seed)]
    seed: u64,
    /// Units of fuel after which no further story of a rule is told; by itself what sixteen thousand of its ordinary calls use.
    #[arg(long, value_name = "UNITS")]
    fuel: Option<u64>,
    /// Write the result there, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keep each story that breaks a rule there, as a scenario.
    #[arg(long, value_name = "FOLDER")]
    save: Option<PathBuf>,
    /// Keep native code there from one run to the next. Whoever can write to it can have this program run anything.
    #[arg(long, value_name = "FOLDER")]
    compiled: Option<PathBuf>,
}

/// `farseal plugin check`.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// The component.
    file: PathBuf,
    /// What it is to be; what it is by its exports, unless given.
    #[arg(long, value_enum)]
    kind: Option<KindArg>,
    /// Its settings.
    #[arg(long, value_name = "JSON", value_parser = settings)]
    settings: Option<Value>,
    /// What it may beyond the ordinary.
    #[arg(long, value_enum)]
    grant: Vec<GrantArg>,
    /// Demand this result of `plugin conform`.
    #[arg(long, value_name = "FILE")]
    conformance: Option<PathBuf>,
    /// Keep native code there from one run to the next. Whoever can write to it can have this program run anything.
    #[arg(long, value_name = "FOLDER")]
    compiled: Option<PathBuf>,
}

/// A component that may go in the place of another.
#[derive(Debug, Args)]
struct Candidate {
    /// The pair.
    pair: String,
    /// The place.
    #[arg(value_enum)]
    slot: PluginSlot,
    /// The component.
    file: PathBuf,
    /// Its settings; those of the one in its place unless given.
    #[arg(long, value_name = "JSON", value_parser = settings)]
    settings: Option<Value>,
    /// What it may beyond the ordinary.
    #[arg(long, value_enum)]
    grant: Vec<GrantArg>,
}

/// `farseal plugin swap`.
#[derive(Debug, Args)]
pub(super) struct SwapArgs {
    #[command(flatten)]
    candidate: Candidate,
    /// Show where its decisions would differ, and change nothing.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do not ask when its decisions differ.
    #[arg(long)]
    yes: bool,
}

/// `farseal plugin diff`.
#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    #[command(flatten)]
    candidate: Candidate,
}

impl Candidate {
    /// What a node is asked: to show where its decisions would differ.
    fn asked(&self) -> Result<Swap, Failure> {
        let component = fs::canonicalize(&self.file).map_err(|error| Failure::file(&self.file, &error))?;
        let bytes = read(&component)?;
        // The node may have compiled it before: nobody waits for long then.
        slow_to_compile(&self.file, &bytes).iter().for_each(|slow| eprintln!("{slow}"));
        let (sha256, grants) = (Digest::of(&bytes), grants(&self.grant));
        let config = self.settings.clone();
        Ok(Swap { slot: self.slot, component, sha256, grants, config, dry_run: true, accept: false })
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum KindArg {
    #[value(alias = "policy")]
    Rotation,
    Disguise,
    Recovery,
    Cipher,
}

impl From<KindArg> for Kind {
    fn from(kind: KindArg) -> Self {
        match kind {
            KindArg::Rotation => Self::Rotation,
            KindArg::Disguise => Self::Disguise,
            KindArg::Recovery => Self::Recovery,
            KindArg::Cipher => Self::Cipher,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum GrantArg {
    Raw,
}

pub(super) fn plugin(place: &Place, command: PluginCommand) -> Result<(), Failure> {
    match command {
        PluginCommand::List => {
            let client = place.client()?;
            let plugins = wait_for(async { Ok(client.plugins().await?) })?;
            say(&show::plugins(&plugins))
        }
        PluginCommand::Inspect(wanted) => inspect::inspect(&wanted),
        PluginCommand::Check(check) => self::check(&check),
        PluginCommand::Conform(wanted) => try_rules(&wanted),
        PluginCommand::Swap(swap) => self::swap(place, &swap),
        PluginCommand::Diff(wanted) => diff(place, &wanted),
        PluginCommand::Journal(command) => journal::journal(place, command),
        PluginCommand::Rollback { pair, slot } => tell(place, &pair, Asked::RollBack { slot }),
        PluginCommand::Release { pair, slot } => tell(place, &pair, Asked::Release { slot }),
    }
}

fn try_rules(wanted: &Conform) -> Result<(), Failure> {
    let bytes = read(&wanted.file)?;
    let host = host_for(&wanted.file, &bytes, wanted.compiled.as_deref())?;
    let subject = wanted.file.display().to_string();
    let config = wanted.settings.clone().unwrap_or_default();
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let effort = Effort { stories: wanted.stories.max(1), seed: wanted.seed, fuel: wanted.fuel, threads };
    let rules = if wanted.rule.is_empty() { &Rule::ALL[..] } else { &wanted.rule };
    let is_slow = bytes_in(&bytes) > LARGE;
    let begins = |rule: Rule| {
        if is_slow {
            eprintln!("trying {rule}");
        }
    };
    let report = conform::try_only(&host, &subject, &bytes, &config, effort, rules, &begins)
        .map_err(|error| Failure::of(&error))?;
    let mut text = format!("{} {}, {}, sha256 {}\n", report.name, report.version, report.kind, report.digest);
    for verdict in &report.verdicts {
        let Verdict { rule, broken, .. } = verdict;
        text.push_str(&format!("  {:<62} {}\n", rule.to_string(), verdict.words()));
        let Some(Broken { scenario: Some(scenario), transcript, long, .. }) = broken else { continue };
        if *long {
            text.push_str("        the fuel for cutting the story down was used up: a shorter one may do it, too\n");
        }
        match &wanted.save {
            Some(folder) => {
                let file = folder.join(format!("{}-{}.yaml", report.name, rule.number().to_lowercase()));
                fs::create_dir_all(folder)
                    .and_then(|()| fs::write(&file, scenario))
                    .map_err(|error| Failure::file(&file, &error))?;
                text.push_str(&format!("        the shortest story that does it is in {}\n", file.display()));
            }
            None => scenario.lines().for_each(|line| text.push_str(&format!("        {line}\n"))),
        }
        transcript.iter().for_each(|line| text.push_str(&format!("      | {}\n", farseal_plugin::escaped(line))));
    }
    if report.verdicts.iter().any(|verdict| verdict.untold > 0) {
        text.push_str(&format!(
            "  shortened: a call costs so much that the {} units of fuel for each rule are soon used; `--fuel` allows more\n",
            report.fuel
        ));
    }
    say(&text)?;
    if let Some(file) = &wanted.json {
        let json = serde_json::to_string_pretty(&report).map_err(|error| Failure::of(&error))?;
        fs::write(file, json + "\n").map_err(|error| Failure::file(file, &error))?;
    }
    if report.conforms() {
        Ok(())
    } else if report.verdicts.iter().any(|verdict| verdict.broken.is_some()) {
        let next = "mend it; the story is a scenario for `cargo xtask snapshot`; the rules are in wit/README.md";
        Err(Failure::new(Exit::Failed, format!("{subject} breaks a rule"), next))
    } else {
        let next = if report.verdicts.iter().any(|verdict| verdict.cut_short > 0) {
            "try every rule: another one says what ended the stories"
        } else {
            "allow more with `--fuel`, or make its calls cheaper; `farseal plugin inspect` shows what they cost"
        };
        let reason = format!("of some rules too few stories were told to say that {subject} keeps them");
        Err(Failure::new(Exit::Refused, reason, next))
    }
}

fn check(check: &Check) -> Result<(), Failure> {
    let bytes = read(&check.file)?;
    if let Some(result) = &check.conformance {
        let subject = check.file.display().to_string();
        let proven = proven::read(&subject, result, Some(&check.file), Digest::of(&bytes));
        let proven = proven.map_err(|error| Failure::of(&error))?;
        if let Some(rules) = fewer_told(&proven) {
            say(&format!("the result of the conformance kit is good, but fewer stories were told of {rules}\n"))?;
        }
    }
    // Compiled once: to find its kind is to read it.
    let host = host_for(&check.file, &bytes, check.compiled.as_deref())?;
    let kind = match check.kind {
        Some(kind) => kind.into(),
        None => host.check(&check.file.display().to_string(), &bytes).map_err(|error| Failure::of(&error))?.kind(),
    };
    let facts = match kind {
        Kind::Rotation => load::<RotationPolicy>(&host, check, &bytes)?,
        Kind::Disguise => load::<Disguise>(&host, check, &bytes)?,
        Kind::Recovery => load::<Recovery>(&host, check, &bytes)?,
        Kind::Cipher => load::<Cipher>(&host, check, &bytes)?,
    };
    say(&format!(
        "good: {} {} as {}\nsha256 = \"{}\"\n",
        facts.about.name, facts.about.version, facts.kind, facts.digest
    ))
}

fn load<P: Plugin>(host: &PluginHost, check: &Check, bytes: &[u8]) -> Result<Facts, Failure> {
    let subject = check.file.display().to_string();
    let grants = grants(&check.grant);
    let none = Value::Null;
    let config = check.settings.as_ref().unwrap_or(&none);
    let request = LoadRequest { slot: &subject, bytes, pin: Some(Digest::of(bytes)), grants: &grants, config };
    let plugin: P = host.load(&request).map_err(|error| Failure::of(&error))?;
    Ok(plugin.facts().clone())
}

fn swap(place: &Place, swap: &SwapArgs) -> Result<(), Failure> {
    let SwapArgs { candidate, dry_run, yes } = swap;
    let asked = candidate.asked()?;
    let Candidate { pair, slot, .. } = candidate;
    let client = place.client()?;
    let ask = |dry_run, accept| {
        let command = PairCommand::Swap(Swap { dry_run, accept, ..asked.clone() });
        wait_for(async { Ok(client.command(pair, &command).await?) })
    };
    if *dry_run || *yes {
        return operate::print(&ask(*dry_run, *yes)?);
    }
    let shown = ask(true, false)?;
    let differing = differing(&shown);
    if differing == 0 {
        return operate::print(&ask(false, false)?);
    }
    operate::print(&shown)?;
    let next = format!("`farseal plugin swap {pair} {slot} {} --yes`", asked.component.display());
    match agreed(&format!("It decides otherwise in {differing} of the journalled calls.")) {
        Some(true) => operate::print(&ask(false, true)?),
        Some(false) => Err(Failure::new(Exit::Refused, "nothing was changed", next)),
        None => Err(Failure::new(Exit::Refused, "its decisions differ, and nobody is here to agree", next)),
    }
}

fn diff(place: &Place, DiffArgs { candidate }: &DiffArgs) -> Result<(), Failure> {
    let command = PairCommand::Swap(candidate.asked()?);
    let Candidate { pair, slot, .. } = candidate;
    let client = place.client()?;
    let shown = wait_for(async { Ok(client.command(pair, &command).await?) })?;
    operate::print(&shown)?;
    match differing(&shown) {
        0 => Ok(()),
        differing => {
            let next = format!("`farseal plugin swap {pair} {slot} FILE` puts it in, when you agree");
            Err(Failure::new(
                Exit::Differs,
                format!("it decides otherwise in {differing} of the journalled calls"),
                next,
            ))
        }
    }
}

/// How many of the journalled calls a dry run shows.
fn differing(shown: &CommandReply) -> usize {
    let report = shown.report.clone().and_then(|report| serde_json::from_value::<SwapReport>(report).ok());
    report.map_or(0, |report| report.differences.len())
}

fn tell(place: &Place, pair: &str, command: Asked) -> Result<(), Failure> {
    let client = place.client()?;
    operate::print(&wait_for(async { Ok(client.command(pair, &PairCommand::Plugin(command)).await?) })?)
}

/// For commands that load a component several times; native code is kept in the folder, if one is named.
fn host_for(file: &Path, component: &[u8], compiled: Option<&Path>) -> Result<PluginHost, Failure> {
    let kept: Box<dyn CodeCache> = match compiled {
        None => Box::new(CodeInMemory::default()),
        Some(folder) => Box::new(FileCache::open(folder).map_err(|error| Failure::of(&error))?),
    };
    let cache = Announced { kept, slow: Mutex::new(slow_to_compile(file, component)) };
    let options = HostOptions { code_cache: Some(Arc::new(cache)), ..HostOptions::uncached() };
    PluginHost::new(options).map_err(|error| Failure::of(&error))
}

/// What is said before it is compiled, so that nobody takes the wait for a command that hangs.
fn slow_to_compile(file: &Path, component: &[u8]) -> Option<String> {
    let bytes = bytes_in(component);
    (bytes > LARGE).then(|| format!("{} has {} MiB: to compile it takes up to a minute", file.display(), bytes >> 20))
}

/// Says once that it takes long, where a component has to be compiled first.
struct Announced {
    kept: Box<dyn CodeCache>,
    slow: Mutex<Option<String>>,
}

impl CodeCache for Announced {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        let kept = self.kept.get(key);
        if let (None, Ok(mut slow)) = (&kept, self.slow.lock())
            && let Some(slow) = slow.take()
        {
            eprintln!("{slow}");
        }
        kept
    }

    fn put(&self, key: &str, bytes: &[u8]) {
        self.kept.put(key, bytes);
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| Failure::file(file, &error);
    let bytes = fs::metadata(file).map_err(failed)?.len();
    if bytes > farseal_core::limits::COMPONENT_BYTES_MAX {
        let message = format!("{} has {bytes} bytes, more than any component", file.display());
        return Err(Failure::new(Exit::Failed, message, "give a .wasm component"));
    }
    fs::read(file).map_err(failed)
}

fn bytes_in(component: &[u8]) -> u64 {
    u64::try_from(component.len()).unwrap_or(u64::MAX)
}

fn grants(given: &[GrantArg]) -> Vec<Grant> {
    let one = |grant: &GrantArg| match grant {
        GrantArg::Raw => Grant::Raw,
    };
    given.first().map(one).into_iter().collect()
}

fn rule(text: &str) -> Result<Rule, String> {
    let known = || Rule::ALL.iter().map(|rule| rule.number()).collect::<Vec<_>>().join(", ");
    let found = Rule::ALL.into_iter().find(|rule| rule.number().eq_ignore_ascii_case(text));
    found.ok_or_else(|| format!("the rules are {}", known()))
}

fn settings(text: &str) -> Result<Value, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if value.is_object() { Ok(value) } else { Err("a JSON object is needed, as in '{\"every\":\"1h\"}'".to_owned()) }
}
