//! What comes in parts: bytes in their order, and components, each under its digest

use farseal_core::frame::ComponentPart;

use super::session::SessionError;

/// Bytes of so many, as far as they have come.
#[derive(Debug, Default)]
pub struct Coming {
    of: Option<u32>,
    bytes: Vec<u8>,
}

/// A part that is not the next one: what came before is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a part that is not the next one")]
pub struct OutOfOrder;

impl Coming {
    /// Where the next part begins.
    #[must_use]
    pub fn next(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    /// Adds the next part. `None`: there is more to come. Room is made for what came alone.
    ///
    /// # Errors
    /// [`OutOfOrder`].
    pub fn add(&mut self, (of, from): (u32, u32), bytes: &[u8]) -> Result<Option<Vec<u8>>, OutOfOrder> {
        let mut begun = std::mem::take(self);
        let whole = usize::try_from(of).unwrap_or(usize::MAX);
        let is_next = of > 0 && *begun.of.get_or_insert(of) == of && from == begun.next();
        if !is_next || bytes.len() > whole - begun.bytes.len() {
            return Err(OutOfOrder);
        }
        begun.bytes.extend_from_slice(bytes);
        if begun.bytes.len() == whole {
            return Ok(Some(begun.bytes));
        }
        *self = begun;
        Ok(None)
    }
}

/// A component and the digest that it is said to have.
pub type Whole = ([u8; 32], Vec<u8>);

/// A component as its parts come.
#[derive(Debug, Default)]
pub struct Parts {
    digest: Option<[u8; 32]>,
    coming: Coming,
}

impl Parts {
    /// Adds a part. Says which component is whole now. Parts of one follow each other.
    pub fn add(&mut self, part: ComponentPart) -> Result<Option<Whole>, SessionError> {
        let mut begun = std::mem::take(self);
        let is_of_it = *begun.digest.get_or_insert(part.digest) == part.digest;
        let added = if is_of_it { begun.coming.add((part.of, part.from), &part.bytes) } else { Err(OutOfOrder) };
        let unexpected =
            |OutOfOrder| SessionError::Unexpected { wanted: "the next part of a component", found: "another part" };
        let whole = added.map_err(unexpected)?;
        if whole.is_none() {
            *self = begun;
        }
        Ok(whole.map(|bytes| (part.digest, bytes)))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn part(of: u32, from: u32, len: usize) -> ComponentPart {
        ComponentPart { digest: [1; 32], of, from, bytes: vec![u8::try_from(from).unwrap(); len] }
    }

    #[test]
    fn parts_make_a_component_in_their_order_alone() {
        let mut parts = Parts::default();
        assert_eq!(parts.add(part(5, 0, 3)).unwrap(), None);
        assert_eq!(parts.add(part(5, 3, 2)).unwrap(), Some(([1; 32], vec![0, 0, 0, 3, 3])));
        assert_eq!(parts.add(part(2, 0, 2)).unwrap(), Some(([1; 32], vec![0, 0])));
        assert!(parts.add(part(5, 3, 2)).is_err(), "the first part is missing");
        parts.add(part(5, 0, 1)).unwrap();
        assert!(parts.add(part(5, 2, 2)).is_err(), "a part is missing");
        parts.add(part(5, 0, 1)).unwrap();
        assert!(parts.add(ComponentPart { digest: [2; 32], ..part(5, 1, 1) }).is_err(), "of another");
        assert!(parts.add(part(0, 0, 0)).is_err(), "nothing");
    }
}
