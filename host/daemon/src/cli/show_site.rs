//! A site as one screen: its nodes, its groups, and each node's pairs in a line.

use std::fmt::Write as _;

use farseal_core::group::Phase;

use super::show::{line, paused_by, preset, span, state};
use crate::control::api::{GroupStatus, SiteStatus, SiteView};

/// The whole site.
pub(super) fn site(view: &SiteView) -> String {
    let site = &view.site;
    let mut out =
        format!("site led by {}  {} nodes there: {}\n", line(&site.lead), site.nodes.len(), names(&site.nodes));
    groups(&mut out, site, |_| true);
    for node in &view.nodes {
        let _ = writeln!(out, "\nnode {}  up {}", line(&node.node), span(node.uptime));
        for pair in &node.pairs {
            let _ = writeln!(out, "  {:<12} {}", line(&pair.name), state(pair));
        }
    }
    out
}

/// Groups that a node's own status shows: those in which there is something to see.
pub(super) fn of_node(out: &mut String, site: &SiteStatus) {
    groups(out, site, |group| {
        let paused = group.writes.as_ref().is_some_and(|writes| writes.phase != Phase::Running);
        group.pairs.len() > 1 || paused || !group.named.is_empty()
    });
}

fn groups(out: &mut String, site: &SiteStatus, shown: impl Fn(&GroupStatus) -> bool) {
    for each in site.groups.iter().filter(|group| shown(group)) {
        out.push('\n');
        group(out, site, each);
    }
}

fn group(out: &mut String, site: &SiteStatus, group: &GroupStatus) {
    let pairs: Vec<String> =
        group.pairs.iter().map(|pair| format!("{}{}", pair.name, if pair.there { "" } else { " (AWAY)" })).collect();
    let _ = writeln!(out, "group {}  {} pairs: {}", line(&group.name), pairs.len(), names(&pairs));
    if let Some(cut) = group.taking_over {
        field(out, "state", &format!("being taken over at cut {cut}"));
    }
    let named = |ids: &[farseal_core::units::PairId]| {
        let name =
            |id| group.pairs.iter().find(|pair| pair.id == id).map_or_else(|| id.to_string(), |p| p.name.clone());
        names(&ids.iter().copied().map(name).collect::<Vec<_>>())
    };
    if let Some(writes) = &group.writes {
        let state = match writes.phase {
            Phase::Paused { cut, .. } if writes.settled => {
                format!(
                    "paused at cut {cut}: both sites hold it; `farseal resume --group {}` goes on",
                    line(&group.name)
                )
            }
            Phase::Paused { cut, .. } => format!("pausing at cut {cut}: what came before is still on its way"),
            Phase::Turning { cut, .. } => format!(
                "changing sides at cut {cut}; `farseal resume --group {}` has the pairs go on that are here still",
                line(&group.name)
            ),
            Phase::Running if !writes.missing.is_empty() => {
                format!("NO CUTS: {} cannot be reached", named(&writes.missing))
            }
            Phase::Running if !writes.not_in_order.is_empty() => {
                format!("NO CUTS: {} not copied in order now", named(&writes.not_in_order))
            }
            Phase::Running => "running".to_owned(),
        };
        field(out, "state", &state);
        if group.pairs.len() > 1 {
            let every =
                group.interval.map_or_else(|| "only when asked for".to_owned(), |each| format!("every {}", span(each)));
            let last = writes.last.map_or_else(
                || "none yet".to_owned(),
                |last| format!("last {}, {} ago", last.cut, span(site.at.since(last.wall))),
            );
            field(out, "cuts", &format!("{every}; {last}; {} made, {} given up", writes.made, writes.abandoned));
            let copied = match (writes.copied, writes.exposure) {
                (Some(cut), Some(age)) => format!("cut {cut}; a takeover would lose the last {}", span(age)),
                (Some(_) | None, _) => "no cut yet".to_owned(),
            };
            field(out, "copy", &copied);
        }
    }
    if let Some(keeps) = &group.keeps {
        let held = match keeps.wall {
            _ if group.pairs.len() == 1 => "its pair is alone in it: everything is offered".to_owned(),
            Some(wall) => format!("a takeover would open cut {}, made {} ago", keeps.cut, span(site.at.since(wall))),
            None => "no cut is held by all its pairs yet: nothing new is offered".to_owned(),
        };
        field(out, "offers", &held);
        if let Some(lanes) = keeps.other_lanes {
            let text = format!("the writing site counts {lanes} pairs: name the group alike at both sites");
            field(out, "MISMATCH", &text);
        }
    }
    if let Some(pause) = &group.pause {
        field(out, "paused", &paused_by(pause, site.at));
    }
    for each in &group.presets {
        field(out, "preset", &preset(each, site.at));
    }
    for cut in &group.named {
        field(out, "named", &format!("{}: cut {}, made {} ago", cut.name, cut.cut, span(site.at.since(cut.wall))));
    }
}

fn names(names: &[String]) -> String {
    names.iter().map(|name| line(name)).collect::<Vec<_>>().join(", ")
}

fn field(out: &mut String, name: &str, text: &str) {
    let _ = writeln!(out, "  {name:<9}{text}");
}
