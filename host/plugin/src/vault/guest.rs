//! What a component of the raw world does for the vault: an inner layer over whole batches, checked on return.

use std::error::Error;

use super::schedule::{LAYER_KEY_LEN, NONCE_LEN};

/// One record's body on its way through a component. Records without a body do not come here.
#[derive(Debug)]
pub struct GuestUnit<'a> {
    /// 12 bytes for each block, never used before to seal under this subkey.
    pub nonces: &'a [u8],
    /// Bytes in each block; the last may be shorter.
    pub block_len: u32,
    /// The blocks, at least one, changed in place; the length stays.
    pub body: &'a mut [u8],
}

impl GuestUnit<'_> {
    /// Blocks in this unit.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.nonces.len() / NONCE_LEN
    }
}

/// Runs a component's own cipher over a batch.
///
/// Implemented by the component runtime. The vault trusts the answer with nothing: it re-opens samples of what was
/// sealed and always puts an authenticating layer around it.
pub trait GuestLayer {
    /// SHA-256 of the component, part of the derivation of its subkeys.
    fn component(&self) -> [u8; 32];

    /// Seals every unit in place.
    ///
    /// # Errors
    /// [`GuestFault`] when the component trapped, ran out of time, or answered with other lengths.
    fn seal(&mut self, subkey: &[u8; LAYER_KEY_LEN], units: &mut [GuestUnit<'_>]) -> Result<(), GuestFault>;

    /// Undoes [`GuestLayer::seal`].
    ///
    /// # Errors
    /// As for [`GuestLayer::seal`].
    fn open(&mut self, subkey: &[u8; LAYER_KEY_LEN], units: &mut [GuestUnit<'_>]) -> Result<(), GuestFault>;
}

/// A component did not do its part; the runtime's error says why.
#[derive(Debug, thiserror::Error)]
#[error("the cipher component failed")]
pub struct GuestFault(#[source] pub Box<dyn Error + Send + Sync>);
