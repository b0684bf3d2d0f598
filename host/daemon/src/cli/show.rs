//! Status as one screen: am I protected, how far behind in seconds and bytes, and what do I do.

use std::fmt::Write as _;

use farseal_core::flow::Transfer;
use farseal_core::owed::CopyKind;
use farseal_core::preset::Preset;
use farseal_core::units::{ByteLen, Millis, WallTime};

use crate::control::api::{
    EscrowLineStatus, FlowStatus, HistoryStatus, KeyStatus, KeysInSwap, LastError, NodeStatus, PairState, PairStatus,
    PauseStatus, PluginStanding, PluginStatus, PointsStatus, PresetStatus, Role, RotationWord, VerifyStatus,
};

/// The whole node.
pub(super) fn node(status: &NodeStatus) -> String {
    let mut out = format!(
        "node {}  farseal {}  up {}\nfingerprint {}\n",
        line(&status.node),
        line(&status.version),
        span(status.uptime),
        status.fingerprint
    );
    if let Some(keys) = &status.keys_in_swap {
        let _ = writeln!(out, "{}", keys_in_swap(keys));
    }
    if status.pairs.is_empty() {
        out.push_str("\nno pairs; `farseal pair create` makes one, `farseal pair accept` takes one up\n");
    }
    for each in &status.pairs {
        out.push('\n');
        pair(&mut out, each, status.now);
    }
    if let Some(site) = &status.site {
        super::show_site::of_node(&mut out, site);
    }
    out
}

fn keys_in_swap(keys: &KeysInSwap) -> String {
    match keys {
        KeysInSwap::Locked => "keys cannot get into swap: memory is locked".into(),
        KeysInSwap::Unswapped => "keys cannot get into swap: the system swaps nothing of this service".into(),
        KeysInSwap::Possible { why } => format!("KEYS CAN GET INTO SWAP: {}", line(why)),
    }
}

fn pair(out: &mut String, pair: &PairStatus, now: WallTime) {
    let (here, there) = match pair.role {
        Role::Primary => ("primary", "copied to"),
        Role::Secondary => ("secondary", "copy of"),
    };
    let _ = writeln!(
        out,
        "pair {}  {here}, {there} {}  volume {}{}, {}",
        line(&pair.name),
        line(&pair.peer),
        line(&pair.volume),
        pair.range.as_ref().map(|range| format!(" range {}", line(range))).unwrap_or_default(),
        size(pair.size)
    );
    field(out, "state", &state(pair));
    field(out, "behind", &behind(pair));
    if !pair.ordered {
        field(out, "order", "none is kept: the copy offers moments at which nothing was owed, and none between them");
    }
    let sealed = if pair.encrypted { "encrypted" } else { "NOT encrypted" };
    let kept = if pair.mode_kept { "" } else { " (NOT KEPT: answered without the copy)" };
    field(out, "mode", &format!("{}{kept}, {sealed}, generation {}", pair.mode, pair.generation));
    if let Some(found) = &pair.history {
        field(out, "history", &history(found));
    }
    field(out, "link", &link(pair));
    field(out, "records", &marks(pair));
    if let Some(key) = &pair.key {
        field(out, "key", &self::key(key, pair.role));
    }
    if let Some(escrow) = &pair.escrow {
        field(out, "escrow", &self::escrow(escrow, pair.role));
    }
    if let Some(journal) = pair.journal {
        let fill = pair.flow.as_ref().map(fill).unwrap_or_default();
        field(out, "journal", &format!("{} of {}{fill}", percent(journal.used.0, journal.max.0), size(journal.max)));
    }
    if let Some(flow) = &pair.flow {
        self::flow(out, flow);
        presets(out, flow, now);
    }
    for (at, plugin) in pair.plugins.iter().enumerate() {
        field(out, if at == 0 { "plugins" } else { "" }, &self::plugin(plugin));
    }
    if let Some(points) = &pair.points {
        field(out, "points", &self::points(points));
    }
    if let Some(arrived) = &pair.arrived {
        let closed =
            if arrived.closed > 0 { format!("; {} BLOCKS DID NOT OPEN", arrived.closed) } else { String::new() };
        field(out, "opened", &format!("as it arrives, up to record {}{closed}", arrived.through));
    }
    if let Some(seed) = &pair.seed {
        let step = seed.through.map_or_else(|| "being written".to_owned(), |through| format!("up to record {through}"));
        field(out, "seed", &format!("{}, {step}", line(&seed.directory)));
    }
    if let Some(found) = &pair.verify {
        let when = match &found.end {
            None => String::new(),
            Some(end) => format!("{} ago: ", span(now.since(end.at))),
        };
        field(out, "verified", &format!("{when}{}", verify(found)));
    }
    if let Some(error) = &pair.last_error {
        last_error(out, error, now);
    }
}

/// The state in plain words. What is not protected says so first.
/// Who can open the copy, and can the escrow be reached?
fn escrow(line: &EscrowLineStatus, role: Role) -> String {
    let name = self::line(&line.escrow);
    let holders = match (line.holders.as_str(), role) {
        ("both", _) => format!("{name} and the copy's site hold the keys"),
        (_, Role::Primary) => format!("{name} alone holds the keys of the copy"),
        (_, Role::Secondary) => match line.missing {
            0 => format!("{name} holds the keys; every key of this copy is here as well"),
            missing => format!("{name} alone holds {missing} keys of this copy"),
        },
    };
    match &line.trouble {
        None if line.up => format!("{holders}; its line is up"),
        None => format!("{holders}; its line is not up yet"),
        Some(trouble) => format!("{holders}; IT CANNOT BE REACHED: {}", self::line(trouble)),
    }
}

pub(super) fn state(pair: &PairStatus) -> String {
    let peer = line(&pair.peer);
    match (&pair.state, pair.role) {
        (PairState::Starting, _) => "starting: replays what the last run left".to_owned(),
        (PairState::Copying, Role::Primary) => "copying: every write goes to the other site as it comes".to_owned(),
        (PairState::Copying, Role::Secondary) => format!("copying: every write of {peer} comes as it is made"),
        (PairState::CatchingUp { owed }, _) => {
            format!("UNPROTECTED in part: catching up, {} still owed to the copy", size(*owed))
        }
        (PairState::Behind { owed }, _) => {
            format!("UNPROTECTED: behind, {} owed to the copy; new writes are remembered by place", size(*owed))
        }
        (PairState::Pausing, _) => {
            "pausing: what came before the pause is still on its way, new writes stay here".to_owned()
        }
        (PairState::Paused, Role::Primary) => {
            format!("paused, new writes UNPROTECTED: they stay here; `farseal resume {}` goes on", line(&pair.name))
        }
        (PairState::Paused, Role::Secondary) => "paused: the copy stays at the state of the pause".to_owned(),
        (PairState::Seeding { shipped: false }, _) => {
            "UNPROTECTED: the first copy is being written to a disk; the remote has nothing yet".to_owned()
        }
        (PairState::Seeding { shipped: true }, _) => {
            format!("UNPROTECTED: the first copy is on a disk; import it at {peer}; new writes are on one site only")
        }
        (PairState::LinkDown { since }, _) => format!("UNPROTECTED: link to {peer} down for {}", span(*since)),
        (PairState::Diverged { why }, _) => format!("STOPPED, UNPROTECTED: the sites have diverged: {}", line(why)),
        (PairState::Stopped { why }, _) => format!("STOPPED, UNPROTECTED: {}", line(why)),
        (PairState::TakingOver, _) => "taking over: the new generation is being made durable".to_owned(),
        (PairState::TakenOver { opened, of }, _) if opened < of => {
            format!("taken over: initiators work here; opening {}", percent(opened.0, of.0))
        }
        (PairState::TakenOver { .. }, _) => "taken over: initiators work here; everything is open".to_owned(),
    }
}

fn history(history: &HistoryStatus) -> String {
    let mut text = format!("forked at record {}", history.fork);
    if let Some((generation, record)) = history.base {
        let _ = write!(text, ", over a base of generation {generation} at record {record}");
    }
    if !history.branches.is_empty() {
        let _ = write!(text, "; branches {}", history.branches.join(", "));
    }
    text
}

/// What the copy keeps beside its newest point.
fn points(points: &PointsStatus) -> String {
    let mut text = match (points.window, &points.oldest) {
        (Some(window), Some((oldest, age))) => {
            format!("back to record {oldest}, {} ago, of {}; {} of log", span(*age), span(window), size(points.room))
        }
        (Some(window), None) => format!("the window of {} begins when the copy is whole", span(window)),
        (None, _) => "the newest".to_owned(),
    };
    if let Some(why) = &points.shortened {
        let _ = write!(text, "; THE OLDEST WERE GIVEN UP: {}", line(why));
    }
    if points.pins > 0 {
        let _ = write!(text, "; {} pinned", points.pins);
    }
    if let Some(record) = points.tested {
        let _ = write!(text, "; a test is under way at record {record}");
    }
    text
}

fn behind(pair: &PairStatus) -> String {
    let lag = &pair.lag;
    if matches!(pair.state, PairState::TakingOver | PairState::TakenOver { .. }) {
        return "the other site is away: what is written here is remembered for it".to_owned();
    }
    match (pair.role, lag.time) {
        (Role::Primary, _) if lag.records == 0 && lag.bytes.0 == 0 => "nothing: the copy has every write".to_owned(),
        (Role::Primary, time) => {
            let time = time.map_or_else(|| "unknown time".to_owned(), span);
            format!("{time}, {}, {} records", size(lag.bytes), lag.records)
        }
        (Role::Secondary, Some(time)) => format!("the newest record was made {} ago", span(time)),
        (Role::Secondary, None) => "no record has come yet".to_owned(),
    }
}

/// How far a verification is, or what it came to, in one line.
pub(super) fn verify(found: &VerifyStatus) -> String {
    let mut text = format!("{} of {} compared", size(found.compared), size(found.planned));
    if let Some(left) = found.time_left {
        let _ = write!(text, ", {}/s, {} left", size(found.rate), span(left));
    }
    if found.skipped.0 > 0 {
        let _ = write!(text, ", {} too busy to compare", size(found.skipped));
    }
    if found.unpicked.0 > 0 {
        let _ = write!(text, ", {} never picked", size(found.unpicked));
    }
    let repaired = if found.repaired { ", copied again" } else { "" };
    match (found.different.0, &found.end) {
        (0, None) => {}
        (0, Some(_)) => text.push_str("; nothing differs"),
        _ => _ = write!(text, "; {} DIFFER{repaired}", size(found.different)),
    }
    if let Some(why) = found.end.as_ref().and_then(|end| end.early.as_ref()) {
        let _ = write!(text, "; ended early: {}", line(why));
    }
    text
}

/// What a verification came to, with a line for each extent that differs.
pub(super) fn verified(found: &VerifyStatus) -> String {
    let mut text = format!("{}\n", verify(found));
    for each in &found.found {
        let _ = writeln!(text, "  byte {}, {} long: {}", each.offset.0, size(each.len), line(&each.what));
    }
    if found.found_more > 0 {
        let _ = writeln!(text, "  and {} more", found.found_more);
    }
    text
}

/// Whose pause it is, and what the presets do next.
fn presets(out: &mut String, flow: &FlowStatus, now: WallTime) {
    if let Some(pause) = &flow.pause {
        field(out, "paused", &paused_by(pause, now));
    }
    for (at, each) in flow.presets.iter().enumerate() {
        field(out, if at == 0 { "presets" } else { "" }, &preset(each, now));
    }
}

/// Whose pause it is, as one line.
pub(super) fn paused_by(pause: &PauseStatus, now: WallTime) -> String {
    let since = span(now.since(pause.since));
    let until = pause.until.map(|until| format!(", {} left", span(until.since(now)))).unwrap_or_default();
    format!("by {} for {since}{until}", line(&pause.by))
}

/// A preset as one line.
pub(super) fn preset(preset: &PresetStatus, now: WallTime) -> String {
    let clock = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
    let spans = |(least, most): (Millis, Millis)| format!("{} to {}", span(least), span(most));
    let what = match &preset.preset {
        Preset::TimeOfDay { pause, resume, days, offset } => {
            let names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
            let chosen: Vec<&str> = names.into_iter().zip(days).filter_map(|(name, day)| day.then_some(name)).collect();
            let days = if chosen.len() == 7 { "daily".to_owned() } else { chosen.join(",") };
            let (sign, ahead) = (if *offset < 0 { '-' } else { '+' }, clock(offset.unsigned_abs()));
            format!("{days} {} to {} UTC{sign}{ahead}", clock(*pause), clock(*resume))
        }
        Preset::Interval { every, span: length, .. } => format!("every {} for {}", span(*every), span(*length)),
        Preset::Irregular { every, span } => format!("after {}, for {}", spans(*every), spans(*span)),
    };
    let next = preset.until.map(|until| {
        let act = if preset.holds { "resumes" } else { "pauses" };
        format!("; {act} in {}", span(until.since(now)))
    });
    format!("{}: {what}{}", line(&preset.name), next.unwrap_or_default())
}

/// How long the journal lasts, and what that costs initiators.
fn fill(flow: &FlowStatus) -> String {
    let mut text = String::new();
    if let Some(left) = flow.time_left {
        let _ = write!(text, ", lasts {} at {}/s", span(left), size(flow.fill_rate));
    }
    if flow.pace_us > 0 {
        let _ = write!(text, "; WRITES SLOWED by {}.{} ms", flow.pace_us / 1_000, flow.pace_us % 1_000 / 100);
    }
    if flow.high_waters > 0 || flow.overflows > 0 {
        let _ = write!(text, "; {} times above high water, {} overflowed", flow.high_waters, flow.overflows);
    }
    text
}

fn flow(out: &mut String, flow: &FlowStatus) {
    if let Some(copy) = &flow.copy {
        let kind = match copy.kind {
            CopyKind::Initial => "initial copy",
            CopyKind::Resync => "resync",
        };
        let mut text = format!("{kind}, {} of {} done", size(copy.done), size(copy.total));
        if let Some(left) = copy.time_left {
            let _ = write!(text, ", {}/s, {} left", size(copy.rate), span(left));
        }
        field(out, "copy", &text);
    }
    let limits = &flow.limits;
    let limits = [("link", limits.link), ("resync", limits.resync), ("initial copy", limits.initial_copy)];
    let set = limits.into_iter().filter_map(|(name, rate)| Some(format!("{name} {}/s", size(ByteLen(rate?.get())))));
    let set: Vec<String> = set.collect();
    if !set.is_empty() {
        field(out, "limits", &set.join(", "));
    }
}

fn link(pair: &PairStatus) -> String {
    let mut text = format!("{} of {} paths up", pair.paths_up, pair.paths);
    if let Some(flow) = &pair.flow {
        let _ = write!(text, ", {}", flow.transfer);
        if let (Transfer::Ordered, Some(carrier), 2..) = (flow.transfer, flow.carrier, pair.paths) {
            let _ = write!(text, " over path {carrier}");
        }
    }
    text
}

fn marks(pair: &PairStatus) -> String {
    let marks = &pair.marks;
    match pair.role {
        Role::Primary => format!(
            "last {}, durable here {}, durable at the copy {}, in the volume {}",
            marks.last, marks.durable, marks.safe, marks.homed
        ),
        Role::Secondary => format!("durable {}, a takeover would open {}", marks.durable, marks.safe),
    }
}

fn key(key: &KeyStatus, role: Role) -> String {
    let mut text = format!("epoch {}", key.epoch);
    if let Some(age) = key.age {
        let _ = write!(text, ", {} old", span(age));
    }
    if role == Role::Primary {
        let _ = write!(text, ", {} sealed", size(key.sealed));
    }
    if let Some(next) = &key.next {
        let word = match next.by {
            RotationWord::Policy => "the policy",
            RotationWord::HostLimit => "the host's limit",
            RotationWord::Operator => "the operator",
            RotationWord::FirstKey => "the start",
            RotationWord::CatchUp => "the catch-up",
        };
        match (&next.step, next.wait) {
            (Some(step), _) => {
                let _ = write!(text, "; rotating on the word of {word}: {}", line(step));
            }
            (None, Some(wait)) => {
                let _ = write!(text, "; next on the word of {word}, in {}", span(wait));
            }
            (None, None) => {
                let _ = write!(text, "; next on the word of {word}");
            }
        }
    }
    if let Some(held) = &key.held {
        let _ = write!(text, "; SEALING HELD: {}", line(held));
    }
    text
}

fn plugin(plugin: &PluginStatus) -> String {
    let mut text =
        format!("{} {} {} {}", plugin.slot, line(&plugin.name), line(&plugin.version), plugin.digest.short());
    if !plugin.grants.is_empty() {
        text.push_str(", granted raw");
    }
    if plugin.standing == PluginStanding::Quarantined {
        text.push_str(", QUARANTINED: the host answers in its place");
    }
    if plugin.faults > 0 {
        let _ = write!(text, ", failed {} of late", times(plugin.faults));
        if let Some(fault) = &plugin.last_fault {
            let _ = write!(text, ", last: {}", line(fault));
        }
    }
    if plugin.stood_in > 0 {
        let _ = write!(text, ", THE HOST ANSWERED IN ITS PLACE {} since the start", times(plugin.stood_in));
        if let Some(why) = &plugin.last_stood_in {
            let _ = write!(text, ", last: {}", line(why));
        }
    }
    text
}

fn times(count: u64) -> String {
    if count == 1 { "once".into() } else { format!("{count} times") }
}

fn last_error(out: &mut String, error: &LastError, now: WallTime) {
    field(out, "error", &format!("{} ago: {}", span(now.since(error.at)), line(&error.message)));
    if let Some(next) = &error.next {
        field(out, "", &format!("next: {}", line(next)));
    }
}

/// Every plugin of a node.
pub(super) fn plugins(plugins: &[PluginStatus]) -> String {
    if plugins.is_empty() {
        return "no plugins: there are no pairs\n".to_owned();
    }
    let mut out = String::new();
    for each in plugins {
        let _ = writeln!(out, "{}  {}", line(&each.pair), plugin(each));
        let _ = writeln!(out, "    sha256 {}", each.digest);
    }
    out
}

fn field(out: &mut String, name: &str, text: &str) {
    let _ = writeln!(out, "  {name:<9}{text}");
}

/// Text from elsewhere as one line that cannot move a terminal's cursor.
pub(super) fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A size to one decimal.
pub(super) fn size(size: ByteLen) -> String {
    let units = [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, unit)| size.0 >= *unit) {
        Some((name, unit)) => {
            let tenths = u128::from(size.0) * 10 / u128::from(unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{} B", size.0),
    }
}

/// A duration in its two largest units; below ten seconds to a tenth.
pub(super) fn span(span: Millis) -> String {
    let seconds = span.0 / 1_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match () {
        () if seconds < 10 => format!("{seconds}.{} s", span.0 % 1_000 / 100),
        () if minutes == 0 => format!("{seconds} s"),
        () if hours == 0 => format!("{minutes} m {} s", seconds % 60),
        () if days == 0 => format!("{hours} h {} m", minutes % 60),
        () => format!("{days} d {} h", hours % 24),
    }
}

/// Never 100 % before it is all.
fn percent(part: u64, whole: u64) -> String {
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    format!("{percent} %")
}
