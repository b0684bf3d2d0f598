//! What answers when no plugin can: native, simple, always within the contract.
//!
//! Rotation keeps to the host's ceilings, a disguise becomes plain slots, recovery opens everything on access and in
//! order. There is no such thing for ciphers: sealing stops (`slot::CipherUnavailable`).

use crate::wit::rotation::{Action, Context, Decision, Event, How, KeyState, Outcome, Rotate, Watch};
use crate::wit::{disguise, recovery};

/// Rotation by the host's limits alone. Its decisions have the id 0: they belong to no policy's state, which comes
/// back as it was, and are always carried out.
#[must_use]
pub fn rotation(state: &str, event: Option<&Event>, context: &Context) -> Outcome {
    let Some(active) = context.keys.iter().find(|key| key.state == KeyState::Active) else {
        return Outcome { state: state.into(), decisions: Vec::new() };
    };
    // A sixteenth of the limit is left for delivery: at the limit itself sealing stops.
    let age_mark = context.limits.max_age - context.limits.max_age / 16;
    let bytes_mark = context.limits.max_bytes - context.limits.max_bytes / 16;
    let age = context.now.saturating_sub(active.since);
    let reason = match event {
        Some(Event::Suspect(epoch)) if *epoch == active.epoch => Some("the key in force may be known to others"),
        Some(Event::Requested(_)) => Some("asked for"),
        _ if age >= age_mark => Some("the key is near its greatest age"),
        _ if active.bytes_sealed >= bytes_mark => Some("the key is near its greatest volume"),
        _ => None,
    };
    let under_way = context.keys.iter().any(|key| key.state == KeyState::Delivering);
    let decide = |action| Decision { id: 0, why: "no policy answers; the host keeps to its limits".into(), action };
    let mut decisions = Vec::new();
    if let Some(reason) = reason
        && !under_way
    {
        decisions.push(decide(Action::Rotate(Rotate { how: How::AsConfigured, reason: reason.into() })));
    }
    // Asked again after a minimal interval when the mark is passed and the rotation did not come about.
    let next =
        active.since.saturating_add(age_mark).max(context.now.saturating_add(context.limits.min_interval.max(1_000)));
    decisions.push(decide(Action::WakeAt(next)));
    decisions.push(decide(Action::Watch(Watch { bytes: Some(bytes_mark), blocks: None })));
    Outcome { state: state.into(), decisions }
}

/// One plain slot of the smallest size, a second from here.
#[must_use]
pub fn disguise_plan(smallest: u32) -> Vec<disguise::Slot> {
    vec![disguise::Slot { gap: 1_000, blocks: smallest }]
}

/// Bytes before the payload in a plain carrier: its length, big-endian.
pub const PLAIN_HEADER: usize = 4;

/// The payload with its length in front, the rest of the cover after it. Undisguised, but as long as the cover;
/// `None` when it does not fit.
#[must_use]
pub fn disguise_embed(cover: &[u8], payload: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(payload.len()).ok()?.to_be_bytes();
    let rest = cover.get(PLAIN_HEADER.checked_add(payload.len())?..)?;
    Some([length.as_slice(), payload, rest].concat())
}

/// The payload of a plain carrier. The caller knows that it is one: its header said so.
#[must_use]
pub fn disguise_extract(carrier: &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = carrier.split_first_chunk::<PLAIN_HEADER>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    rest.get(..length).map(<[u8]>::to_vec)
}

/// Blocks that one native `open` asks for: 64 MiB of 4 KiB blocks.
const SWEEP_BLOCKS: u64 = 16_384;

/// Opens on access, and everything else in order. The state of the strategy before is kept aside in its place:
/// `native:<next block>`; a foreign state starts from 0, which only opens again what is open already.
#[must_use]
pub fn recovery(state: &str, event: Option<&recovery::Event>, context: &recovery::Context) -> recovery::Outcome {
    let next: u64 = state.strip_prefix("native:").and_then(|at| at.parse().ok()).unwrap_or(0);
    let first = !state.starts_with("native:");
    let decide = |why: &str, action| recovery::Decision { why: why.into(), action };
    let mut decisions = Vec::new();
    if first {
        decisions.push(decide(
            "no strategy answers; every access opens",
            recovery::Action::Access(recovery::OnAccess::Open),
        ));
    }
    let goes_on = first || matches!(event, Some(recovery::Event::Begin | recovery::Event::Swept(_)));
    let blocks = SWEEP_BLOCKS.min(context.volume_blocks.saturating_sub(next));
    if goes_on && blocks == 0 {
        decisions.push(decide("everything was opened or found damaged", recovery::Action::Finished));
    }
    if !goes_on || blocks == 0 {
        return recovery::Outcome { state: format!("native:{next}"), decisions };
    }
    decisions.push(decide("in order", recovery::Action::Open(recovery::Extent { first: next, blocks })));
    recovery::Outcome { state: format!("native:{}", next.saturating_add(blocks)), decisions }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn plain_embedding_is_reversible_up_to_its_capacity() {
        let cover = [9_u8; 64];
        for length in [0, 1, 59, 60] {
            let payload = vec![7; length];
            let carrier = disguise_embed(&cover, &payload).unwrap();
            assert_eq!(carrier.len(), cover.len());
            assert_eq!(disguise_extract(&carrier).unwrap(), payload);
        }
        assert_eq!(disguise_embed(&cover, &[7; 61]), None);
        assert_eq!(disguise_extract(&[0, 0, 1]), None);
        assert_eq!(disguise_extract(&[0, 0, 1, 0, 5]), None);
    }

    #[test]
    fn native_recovery_covers_the_volume_and_ends() {
        let progress = recovery::Progress { present: 40_000, opened: 0, failed: 0 };
        let context = recovery::Context {
            now: 0,
            volume: "v".into(),
            config: "{}".into(),
            volume_blocks: 40_000,
            progress,
            entropy: 0,
        };
        let mut opened = 0;
        let mut state = "another strategy's".to_owned();
        let mut event = recovery::Event::Begin;
        for _ in 0..5 {
            let outcome = recovery(&state, Some(&event), &context);
            state = outcome.state;
            for decision in outcome.decisions {
                match decision.action {
                    recovery::Action::Open(extent) => {
                        opened += extent.blocks;
                        event = recovery::Event::Swept(recovery::Swept { extent, opened: 0, failed: 0 });
                    }
                    recovery::Action::Finished => assert_eq!(opened, 40_000),
                    recovery::Action::Access(_)
                    | recovery::Action::WakeAt(_)
                    | recovery::Action::Alert(_)
                    | recovery::Action::Ext(_) => {}
                }
            }
        }
        assert_eq!(opened, 40_000);
    }

    #[test]
    fn native_rotation_comes_before_the_ceiling() {
        let key = crate::wit::rotation::KeyInfo {
            epoch: 3,
            state: KeyState::Active,
            since: 0,
            bytes_sealed: 0,
            blocks_sealed: 0,
            records_sealed: 0,
        };
        let mut context = Context {
            now: 1_500,
            pair: "p".into(),
            entropy: 0,
            config: "{}".into(),
            keys: vec![key],
            limits: crate::wit::rotation::HostLimits { min_interval: 10, max_age: 1_600, max_bytes: 1_600 },
            link_up: true,
        };
        let rotates = |outcome: &Outcome| outcome.decisions.iter().any(|d| matches!(d.action, Action::Rotate(_)));
        assert!(rotates(&rotation("s", None, &context)));
        assert_eq!(rotation("s", None, &context).state, "s");
        context.now = 1_499;
        assert!(!rotates(&rotation("s", Some(&Event::Timer), &context)));
        assert!(!rotates(&rotation("s", Some(&Event::Suspect(2)), &context)));
        assert!(rotates(&rotation("s", Some(&Event::Suspect(3)), &context)));
    }
}
