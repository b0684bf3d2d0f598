//! What an operator may demand before a component is taken: a result of the conformance kit that is this component's, of
//! this kit, whole and without a failure.

use super::{Effort, KIT, Report, Rule, Verdict};
use crate::fault::escaped;
use crate::kind::Digest;

/// Most bytes of a result: some rules, each with a story and the end of a transcript.
pub const RESULT_BYTES_MAX: u64 = 1 << 20;

/// Why a result does not speak for a component.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// It is no result.
    #[error("this is no result of the conformance kit: {reason}")]
    Unreadable {
        /// Where and why.
        reason: String,
    },
    /// It is another component's.
    #[error("this is the result of {tried}, not of {given}")]
    OtherComponent {
        /// Whose it is.
        tried: Digest,
        /// Whose is asked for.
        given: Digest,
    },
    /// It was made by a kit with other rules.
    #[error("this was made by version {found} of the kit; {KIT} is needed")]
    OtherKit {
        /// Which.
        found: u32,
    },
    /// It was tried too little.
    #[error("{found} stories were told for each rule; {} are needed", Effort::default().stories)]
    Little {
        /// How many.
        found: u32,
    },
    /// The fuel was used up before half of a rule's stories were told.
    #[error("of rule {} {told} of {wished} stories were told; half of them are needed, and `--fuel` allows more", rule.number())]
    Short {
        /// Which.
        rule: Rule,
        /// How many were told.
        told: u32,
        /// And how many were to be.
        wished: u32,
    },
    /// A rule of its kind was not tried.
    #[error("rule {} was not tried: {}", .0.number(), .0.words())]
    Untried(Rule),
    /// A rule is broken.
    #[error("rule {} is broken: {said}", rule.number())]
    Broken {
        /// Which.
        rule: Rule,
        /// How.
        said: String,
    },
}

/// Whether this result, as `farseal plugin conform --json` writes it, speaks for the component with this digest. One whose stories ended
/// early does, where half of them were told; the log says of which rules fewer were told than wished for.
///
/// # Errors
/// The first thing that is missing.
pub fn demand(result: &[u8], component: Digest) -> Result<(), Unproven> {
    let report: Report =
        serde_json::from_slice(result).map_err(|error| Unproven::Unreadable { reason: error.to_string() })?;
    if report.digest != component {
        return Err(Unproven::OtherComponent { tried: report.digest, given: component });
    }
    if report.kit != KIT {
        return Err(Unproven::OtherKit { found: report.kit });
    }
    if report.stories < Effort::default().stories {
        return Err(Unproven::Little { found: report.stories });
    }
    // Why a rule was not tried is said by the one that is broken.
    let broken = report.verdicts.iter().find_map(|verdict| Some((verdict.rule, verdict.broken.as_ref()?)));
    if let Some((rule, broken)) = broken {
        return Err(Unproven::Broken { rule, said: escaped(&broken.said) });
    }
    for rule in Rule::of(report.kind) {
        let told = report.verdicts.iter().find(|verdict| verdict.rule == rule && !verdict.is_untried());
        let verdict = told.ok_or(Unproven::Untried(rule))?;
        if !verdict.is_told_enough() {
            let wished = verdict.tried.saturating_add(verdict.untold);
            return Err(Unproven::Short { rule, told: verdict.tried.saturating_sub(verdict.cut_short), wished });
        }
    }
    if let Some(rules) = shortened(&report) {
        let name = escaped(&report.name);
        tracing::warn!(component = %name, digest = %component, rules, "the result of the conformance kit is good, but fewer stories were told of these rules");
    }
    Ok(())
}

/// The rules of which a result tells fewer stories, in words; none where it tells of all, or is none.
#[must_use]
pub fn fewer_told(result: &[u8]) -> Option<String> {
    serde_json::from_slice(result).ok().as_ref().and_then(shortened)
}

/// Each rule with how many of how many.
fn shortened(report: &Report) -> Option<String> {
    let fewer = report.verdicts.iter().filter(|verdict| verdict.untold > 0);
    let told = |verdict: &Verdict| {
        let Verdict { rule, tried, untold, .. } = verdict;
        format!("{} ({tried} of {})", rule.number(), tried.saturating_add(*untold))
    };
    Some(fewer.map(told).collect::<Vec<_>>().join(", ")).filter(|rules| !rules.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::Broken;
    use super::*;
    use crate::kind::Kind;

    fn report() -> Report {
        let verdict = |rule| Verdict { rule, tried: 40, untold: 0, broken: None, cut_short: 0 };
        Report {
            kit: KIT,
            name: "interval".into(),
            version: "0.1.0".into(),
            kind: Kind::Rotation,
            digest: Digest([1; 32]),
            seed: 1,
            stories: 40,
            fuel: 750_000_000,
            settings: serde_json::Value::Null,
            verdicts: Rule::of(Kind::Rotation).into_iter().map(verdict).collect(),
        }
    }

    fn judged(change: impl FnOnce(&mut Report)) -> Result<(), Unproven> {
        let mut report = report();
        change(&mut report);
        demand(&serde_json::to_vec(&report).unwrap_or_default(), Digest([1; 32]))
    }

    #[test]
    fn the_rules_of_which_fewer_stories_were_told_are_named() {
        let mut report = report();
        assert_eq!(shortened(&report), None);
        (report.verdicts[1].tried, report.verdicts[1].untold) = (3, 37);
        (report.verdicts[4].tried, report.verdicts[4].untold) = (2, 38);
        assert_eq!(shortened(&report).as_deref(), Some("C-2 (3 of 40), C-5 (2 of 40)"));
        let result = serde_json::to_vec(&report).unwrap_or_default();
        assert_eq!(fewer_told(&result).as_deref(), Some("C-2 (3 of 40), C-5 (2 of 40)"));
        assert_eq!(fewer_told(b"{}"), None);
    }

    #[test]
    fn only_a_whole_result_of_this_component_and_kit_without_a_failure_will_do() {
        assert_eq!(judged(|_| ()), Ok(()));
        let given = Digest([1; 32]);
        let other = Digest([2; 32]);
        assert_eq!(judged(|report| report.digest = other), Err(Unproven::OtherComponent { tried: other, given }));
        assert_eq!(judged(|report| report.kit = KIT - 1), Err(Unproven::OtherKit { found: KIT - 1 }));
        assert_eq!(judged(|report| report.stories = 4), Err(Unproven::Little { found: 4 }));
        let short =
            |told: u32| judged(|report| (report.verdicts[0].tried, report.verdicts[0].untold) = (told, 40 - told));
        assert_eq!(short(19), Err(Unproven::Short { rule: Rule::Pure, told: 19, wished: 40 }));
        assert_eq!(short(20), Ok(()));
        assert_eq!(judged(|report| drop(report.verdicts.remove(0))), Err(Unproven::Untried(Rule::Pure)));
        assert_eq!(judged(|report| report.verdicts[0].cut_short = 40), Err(Unproven::Untried(Rule::Pure)));
        let broken = Some(Broken { said: "a panic fault".into(), scenario: None, transcript: Vec::new(), long: false });
        assert_eq!(
            judged(|report| report.verdicts.iter_mut().take(2).for_each(|verdict| verdict.broken.clone_from(&broken))),
            Err(Unproven::Broken { rule: Rule::Pure, said: "a panic fault".into() })
        );
        assert!(matches!(demand(b"{}", given), Err(Unproven::Unreadable { .. })));
    }
}
