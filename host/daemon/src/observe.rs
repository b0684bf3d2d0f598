//! What the node says of itself without being asked: log lines, and samples for Prometheus.
//!
//! Neither shows secrets. Samples show nothing from which a reader could tell when a key changed: no epoch, no key's
//! age or bytes, no counter that a rotation moves. Lag and journal are what an observer of the link sees anyway.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use farseal_core::group::Status as GroupWriter;
use farseal_core::units::{Millis, WallTime};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::LogForm;
use crate::control::api::{NodeStatus, PairState, PairStatus, PluginStanding, Role};

/// Why there are no log lines.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter.
    #[error("[node] log-filter: {0}")]
    Filter(#[from] ParseError),
    /// Set up twice.
    #[error("log lines are set up already: {0}")]
    Twice(#[from] TryInitError),
}

/// Sends log lines to standard error. `filter` is in the syntax of `RUST_LOG`.
///
/// # Errors
/// [`LogError`].
pub fn start_log(form: LogForm, filter: &str) -> Result<(), LogError> {
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(filter)?)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match form {
        LogForm::Text => lines.with_target(true).finish().try_init()?,
        LogForm::Json => lines.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}

/// A value of a pair; `None` gives no sample.
type Sample = fn(&PairStatus) -> Option<f64>;

/// Name, kind, help, value; Prometheus' base units: seconds and bytes.
const SAMPLES: [(&str, &str, Sample); 18] = [
    ("farseal_pair_protected", "1 while every write reaches the other site without delay.", |pair| {
        Some(truth(protected(pair)))
    }),
    ("farseal_pair_link_up", "1 while at least one path of the link is up.", |pair| Some(truth(pair.paths_up > 0))),
    ("farseal_pair_paths_up", "Paths of the link that are up.", |pair| Some(f64::from(pair.paths_up))),
    ("farseal_pair_paused", "1 while an operator's pause is in force.", |pair| {
        Some(truth(matches!(pair.state, PairState::Pausing | PairState::Paused)))
    }),
    ("farseal_pair_diverged", "1 while the sites disagree and the pair is stopped.", |pair| {
        Some(truth(matches!(pair.state, PairState::Diverged { .. })))
    }),
    ("farseal_pair_taken_over", "1 at a secondary that was taken over to.", |pair| {
        Some(truth(matches!(pair.state, PairState::TakenOver { .. })))
    }),
    ("farseal_pair_lag_seconds", "Age of the oldest write that the copy lacks.", |pair| pair.lag.time.map(seconds)),
    ("farseal_pair_lag_bytes", "Bytes that the copy lacks.", |pair| Some(float(pair.lag.bytes.0))),
    ("farseal_pair_volume_bytes", "The volume's size.", |pair| Some(float(pair.size.0))),
    ("farseal_pair_journal_bytes", "The journal on disk.", |pair| pair.journal.map(|journal| float(journal.used.0))),
    ("farseal_pair_journal_limit_bytes", "The journal's limit.", |pair| {
        pair.journal.map(|journal| float(journal.max.0))
    }),
    ("farseal_pair_journal_seconds_left", "Until the journal is full, if the remote takes nothing.", |pair| {
        pair.flow.as_ref()?.time_left.map(seconds)
    }),
    ("farseal_pair_write_delay_seconds", "By how much answers to writes are delayed now.", |pair| {
        Some(float(pair.flow.as_ref()?.pace_us) / 1_000_000.0)
    }),
    ("farseal_pair_journal_high_waters", "How often the journal rose above high water since the start.", |pair| {
        Some(float(pair.flow.as_ref()?.high_waters))
    }),
    (
        "farseal_pair_journal_overflows",
        "How often the journal overflowed into the dirty map since the start.",
        |pair| Some(float(pair.flow.as_ref()?.overflows)),
    ),
    ("farseal_pair_copy_bytes", "What the copy beside the order owed altogether.", |pair| {
        Some(float(pair.flow.as_ref()?.copy?.total.0))
    }),
    ("farseal_pair_copy_done_bytes", "What of it the remote has.", |pair| {
        Some(float(pair.flow.as_ref()?.copy?.done.0))
    }),
    ("farseal_pair_copy_seconds_left", "Until nothing is owed.", |pair| {
        pair.flow.as_ref()?.copy?.time_left.map(seconds)
    }),
];

/// A node's samples in Prometheus' text format 0.0.4.
#[must_use]
pub fn metrics(status: &NodeStatus) -> String {
    let mut out = String::new();
    head(&mut out, "farseal_build_info", "gauge", "The node and its version; always 1.");
    let _ =
        writeln!(out, "farseal_build_info{{node={:?},version={:?}}} 1", label(&status.node), label(&status.version));
    head(&mut out, "farseal_uptime_seconds", "gauge", "Since the node started.");
    let _ = writeln!(out, "farseal_uptime_seconds {}", seconds(status.uptime));
    for (name, help, sample) in SAMPLES {
        head(&mut out, name, "gauge", help);
        for pair in &status.pairs {
            if let Some(value) = sample(pair) {
                let _ = writeln!(out, "{name}{{pair={:?},role=\"{}\"}} {value}", label(&pair.name), pair.role);
            }
        }
    }
    groups(&mut out, status);
    plugins(&mut out, status);
    out
}

/// The groups of several pairs that are written at this site, as the lead said last.
fn groups(out: &mut String, status: &NodeStatus) {
    type Sample = fn(&GroupWriter, WallTime) -> Option<f64>;
    let samples: [(&str, &str, &str, Sample); 7] = [
        ("farseal_group_cuts_total", "counter", "Cuts that were made since the lead started.", |group, _| {
            Some(float(group.made))
        }),
        ("farseal_group_cuts_abandoned_total", "counter", "Cuts that were given up since then.", |group, _| {
            Some(float(group.abandoned))
        }),
        ("farseal_group_last_cut_age_seconds", "gauge", "Since the last cut that was made.", |group, now| {
            group.last.map(|last| seconds(now.since(last.wall)))
        }),
        ("farseal_group_exposure_seconds", "gauge", "How old what the copies would give is.", |group, _| {
            group.exposure.map(seconds)
        }),
        ("farseal_group_hold_seconds", "gauge", "For how long the last cut withheld answers.", |group, _| {
            group.held.map(seconds)
        }),
        (
            "farseal_group_pairs_missing",
            "gauge",
            "Pairs that cannot be reached, or do not follow in order.",
            |group, _| Some(float(u64::try_from(group.missing.len() + group.not_in_order.len()).unwrap_or(u64::MAX))),
        ),
        ("farseal_group_paused", "gauge", "1 while the group is paused at one cut, at both sites.", |group, _| {
            Some(truth(group.settled))
        }),
    ];
    let Some(site) = &status.site else { return };
    for (name, kind, help, sample) in samples {
        head(out, name, kind, help);
        for group in site.groups.iter().filter(|group| group.pairs.len() > 1) {
            if let Some(value) = group.writes.as_ref().and_then(|writes| sample(writes, status.now)) {
                let _ = writeln!(out, "{name}{{group={:?}}} {value}", label(&group.name));
            }
        }
    }
}

/// No call counts: a disguise is called when a key travels.
fn plugins(out: &mut String, status: &NodeStatus) {
    head(out, "farseal_plugin_quarantined", "gauge", "1 while the host answers in the plugin's place.");
    for plugin in status.pairs.iter().flat_map(|pair| &pair.plugins) {
        let value = truth(plugin.standing == PluginStanding::Quarantined);
        let (pair, name) = (label(&plugin.pair), label(&plugin.name));
        let _ = writeln!(
            out,
            "farseal_plugin_quarantined{{pair={pair:?},slot=\"{}\",plugin={name:?}}} {value}",
            plugin.slot
        );
    }
}

/// Does every write reach the other site without delay?
#[must_use]
pub fn protected(pair: &PairStatus) -> bool {
    match pair.role {
        Role::Primary => matches!(pair.state, PairState::Copying),
        Role::Secondary => matches!(pair.state, PairState::Copying | PairState::Pausing | PairState::Paused),
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Quotes, backslashes and line ends are then escaped alike by Rust and by Prometheus; other control characters go.
fn label(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect()
}

fn truth(value: bool) -> f64 {
    if value { 1.0 } else { 0.0 }
}

fn seconds(span: Millis) -> f64 {
    float(span.0) / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "a sample is a float; 53 bits are enough for bytes and milliseconds")]
fn float(value: u64) -> f64 {
    value as f64
}
