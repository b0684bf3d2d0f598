//! Where a generation's history comes from: how far it is its parent's, and from where its own numbers run.
//!
//! Each takeover begins a generation. Up to the *fork* both sites hold the same records; what a site has above it
//! that the new generation has not is a *branch*: kept, sealed, and never merged by guess.

use serde::{Deserialize, Serialize};

use crate::bytes::Fields;
use crate::chain::Chain;
use crate::frame::HandOver;
use crate::units::{Generation, Sequence};

/// What a takeover decided. After a takeover of the copy the order goes on at the fork; a site that makes its own
/// branch the history again goes on at that branch's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Lineage {
    pub generation: Generation,
    /// The last record that the other site's history has, too.
    pub fork: Sequence,
    pub fork_chain: Chain,
    /// The record after which this generation's own come.
    pub start: Sequence,
    pub start_chain: Chain,
}

impl Lineage {
    pub(crate) const BYTES: usize = 8 + 2 * (8 + 32);

    /// A pair's first history.
    pub const FIRST: Self = Self {
        generation: Generation(1),
        fork: Sequence::NONE,
        fork_chain: Chain::START,
        start: Sequence::NONE,
        start_chain: Chain::START,
    };

    /// The history goes on where it forked.
    pub fn at(generation: Generation, fork: Sequence, chain: Chain) -> Self {
        Self { generation, fork, fork_chain: chain, start: fork, start_chain: chain }
    }

    /// This site goes on from where it had handed over, not knowing whether the other one did. Its generation is above the
    /// one that the other was asked to take: if that one goes on too, the two differ from here on, and each can tell.
    pub fn taken_back(hand_over: &HandOver) -> Self {
        Self::at(hand_over.generation.next(), hand_over.at, hand_over.chain)
    }

    /// For a takeover at a point below what the copy holds of this generation, or of a history of its own. The primary may have
    /// asked to hand over elsewhere, and would take the next generation for its answer; the one after is what that site takes
    /// back.
    pub fn apart(before: Generation) -> Generation {
        before.next().next().next()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.generation.0.to_le_bytes());
        for (sequence, chain) in [(self.fork, self.fork_chain), (self.start, self.start_chain)] {
            out.extend(sequence.0.to_le_bytes());
            out.extend(chain.0);
        }
    }

    /// A fork above the start would claim records that this history does not have.
    pub(crate) fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let generation = Generation(fields.u64());
        let (fork, fork_chain) = (Sequence(fields.u64()), Chain(fields.array()));
        let (start, start_chain) = (Sequence(fields.u64()), Chain(fields.array()));
        (fork <= start).then_some(Self { generation, fork, fork_chain, start, start_chain })
    }
}
