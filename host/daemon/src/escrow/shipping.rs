//! A site's components on their way to its escrow: asked about first, then sent part by part, one at a time.

use std::collections::{BTreeSet, VecDeque};

use farseal_core::frame::ComponentPart;
use farseal_plugin::Digest;

use super::wire::COMPONENT_PART_BYTES;

/// How often one is sent that the escrow does not keep.
const TRIES: u32 = 3;

/// What the escrow is to keep.
#[derive(Debug, Default)]
pub(super) struct Shipping {
    waiting: VecDeque<Shipped>,
    /// The escrow has said that it keeps these.
    kept: BTreeSet<Digest>,
}

#[derive(Debug)]
struct Shipped {
    digest: Digest,
    bytes: Vec<u8>,
    /// How much was sent; `None`: the escrow was not asked yet, or did not answer.
    sent: Option<usize>,
    tries: u32,
}

impl Shipping {
    /// One that is kept or waits already is not sent again.
    pub(super) fn add(&mut self, digest: Digest, bytes: Vec<u8>) {
        if !self.kept.contains(&digest) && self.waiting.iter().all(|other| other.digest != digest) {
            self.waiting.push_back(Shipped { digest, bytes, sent: None, tries: 0 });
        }
    }

    /// What goes into the next cell.
    pub(super) fn next(&mut self) -> Option<ComponentPart> {
        let first = self.waiting.front_mut()?;
        let Some(from) = first.sent else { return Some(ComponentPart::none(first.digest.0)) };
        let part = ComponentPart::at(first.digest.0, &first.bytes, from, COMPONENT_PART_BYTES);
        first.sent = Some(from + part.bytes.len());
        Some(part)
    }

    /// The escrow's word on what went last.
    pub(super) fn answered(&mut self, digest: Digest, whole: bool) {
        let Some(first) = self.waiting.front_mut().filter(|first| first.digest == digest) else { return };
        if whole {
            self.kept.insert(digest);
            self.waiting.pop_front();
            return;
        }
        match first.sent {
            None => first.sent = Some(0),
            Some(sent) if sent < first.bytes.len() => {}
            Some(_) => {
                (first.sent, first.tries) = (None, first.tries + 1);
                if first.tries == TRIES {
                    tracing::error!(%digest, "the escrow does not keep a component; see its log");
                    self.waiting.pop_front();
                }
            }
        }
    }

    /// The line broke: what was sent in part is begun anew.
    pub(super) fn begin_anew(&mut self) {
        self.waiting.iter_mut().for_each(|each| each.sent = None);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::super::library::Library;
    use super::*;
    use crate::keys::fingerprint::Fingerprint;

    #[test]
    fn a_component_gets_there_over_lines_that_break_and_is_not_sent_twice() {
        let folder = tempfile::tempdir().unwrap();
        let library = Library::at(folder.path().to_owned());
        let component = vec![5; 3 * COMPONENT_PART_BYTES];
        let digest = Digest::of(&component);
        let mut shipping = Shipping::default();
        shipping.add(digest, component.clone());
        let mut cells = 0;
        while let Some(part) = shipping.next() {
            cells += 1;
            if cells == 3 {
                shipping.begin_anew();
                continue;
            }
            let whole = library.take(Fingerprint([1; 32]), part);
            shipping.answered(digest, whole);
        }
        // The question and two parts, of which the second was lost; the question and three parts.
        assert_eq!(cells, 7);
        shipping.add(digest, component);
        assert_eq!(shipping.next(), None);
        assert_eq!(library.part(digest, 0).bytes.len(), COMPONENT_PART_BYTES);
    }

    #[test]
    fn one_that_is_never_kept_is_given_up() {
        let mut shipping = Shipping::default();
        shipping.add(Digest([1; 32]), vec![1]);
        for _ in 0..2 * TRIES {
            shipping.next().unwrap();
            shipping.answered(Digest([1; 32]), false);
        }
        assert_eq!(shipping.next(), None);
    }
}
