//! Cipher: what seals the blocks. A [`Cipher`] plans and the host executes; a [`RawCipher`] brings an algorithm that
//! the host does not have, as an inner layer.

use std::marker::PhantomData;

use crate::PluginError;
use crate::bindings::exports::farseal::plugin::{cipher as wit, raw_cipher};
use crate::plugin::{self, Plugin, export_meta};

pub use raw_cipher::Unit;
pub use wit::{Batch, Description, Layer, Plan, RecordKind, Shape, Stack, Suite};

/// The furthest ahead of a batch that a plan may be valid.
pub const MOST_AHEAD: u64 = 1 << 20;
/// Bytes of a nonce, one for each block.
pub const NONCE_BYTES: usize = 12;
/// Bytes of the key that a raw cipher is given for a batch.
pub const SUBKEY_BYTES: usize = 32;

/// A cipher by plan.
pub trait Cipher: Plugin {
    /// The stacks that `plan` chooses from, by index. Depends on the settings only.
    fn stacks(settings: &Self::Settings) -> Vec<Stack>;

    /// Which stack seals each record. The first stack for everything, and for as long as a plan can be valid, unless
    /// written otherwise.
    fn plan(batch: &Batch, _settings: &Self::Settings) -> Plan {
        Plan { choices: vec![0], valid_below: batch.first_sequence.saturating_add(MOST_AHEAD) }
    }
}

/// A cipher whose algorithm the host does not have: one of its layers is [`Suite::Own`].
pub trait RawCipher: Cipher {
    /// Does the algorithm give a known answer here and now? Asked before every batch; sealing and opening agree with
    /// each other even where both are wrong.
    ///
    /// # Errors
    /// What it gave instead: the batch ends as a fault.
    fn known_answer() -> Result<(), String>;
    /// Seals one block in place. The pair of key and nonce is never used for another block.
    fn seal_block(key: &[u8; SUBKEY_BYTES], nonce: &[u8; NONCE_BYTES], block: &mut [u8]);
    /// Undoes `seal_block`.
    fn open_block(key: &[u8; SUBKEY_BYTES], nonce: &[u8; NONCE_BYTES], block: &mut [u8]);
}

/// A layer of one of the host's suites. The label names the layer's key: 1 to 32 characters of `a-z0-9-`.
#[must_use]
pub fn layer(suite: Suite, key_label: &str) -> Layer {
    Layer { suite, key_label: key_label.to_owned() }
}

/// `describe-stacks` as the host calls it.
///
/// # Errors
/// Wrong settings.
pub fn describe_stacks<P: Cipher>(config: &str) -> Result<Description, PluginError> {
    let settings = plugin::settings::<P>(config)?;
    Ok(Description { stacks: P::stacks(&settings) })
}

/// `plan-batch` as the host calls it.
///
/// # Errors
/// Wrong settings.
pub fn plan_batch<P: Cipher>(batch: &Batch, config: &str) -> Result<Plan, PluginError> {
    let settings = plugin::settings::<P>(config)?;
    Ok(P::plan(batch, &settings))
}

/// `raw-cipher.seal` and `raw-cipher.open` as the host calls them, with `apply` for each block.
///
/// # Errors
/// Lengths that do not fit together.
pub fn apply_to_units(
    mut units: Vec<Unit>,
    mut apply: impl FnMut(&[u8; NONCE_BYTES], &mut [u8]),
) -> Result<Vec<Vec<u8>>, PluginError> {
    for unit in &mut units {
        let block_bytes = usize::try_from(unit.block_bytes).unwrap_or(0);
        let (nonces, rest) = unit.nonces.as_chunks::<NONCE_BYTES>();
        if block_bytes == 0 || !rest.is_empty() || nonces.len().checked_mul(block_bytes) != Some(unit.bytes.len()) {
            return Err(PluginError::Rejected(format!(
                "{} bytes of blocks of {} bytes each, with {} bytes of nonces",
                unit.bytes.len(),
                unit.block_bytes,
                unit.nonces.len(),
            )));
        }
        for (nonce, block) in nonces.iter().zip(unit.bytes.chunks_exact_mut(block_bytes)) {
            apply(nonce, block);
        }
    }
    Ok(units.into_iter().map(|unit| unit.bytes).collect())
}

/// A cipher as its worlds export it.
#[doc(hidden)]
#[derive(Debug)]
pub struct Exported<P>(PhantomData<P>);

export_meta!(Cipher, Exported);

impl<P: Cipher> wit::Guest for Exported<P> {
    fn describe_stacks(config: String) -> Result<Description, PluginError> {
        crate::log::catch_panics();
        describe_stacks::<P>(&config)
    }

    fn plan_batch(batch: Batch, config: String) -> Result<Plan, PluginError> {
        crate::log::catch_panics();
        plan_batch::<P>(&batch, &config)
    }
}

impl<P: RawCipher> raw_cipher::Guest for Exported<P> {
    fn seal(units: Vec<Unit>) -> Result<Vec<Vec<u8>>, PluginError> {
        crate::log::catch_panics();
        P::known_answer().map_err(PluginError::Internal)?;
        let key = subkey()?;
        apply_to_units(units, |nonce, block| P::seal_block(&key, nonce, block))
    }

    fn open(units: Vec<Unit>) -> Result<Vec<Vec<u8>>, PluginError> {
        crate::log::catch_panics();
        P::known_answer().map_err(PluginError::Internal)?;
        let key = subkey()?;
        apply_to_units(units, |nonce, block| P::open_block(&key, nonce, block))
    }
}

fn subkey() -> Result<zeroize::Zeroizing<[u8; SUBKEY_BYTES]>, PluginError> {
    let bytes = zeroize::Zeroizing::new(crate::bindings::farseal::plugin::raw::subkey());
    let mut key = zeroize::Zeroizing::new([0; SUBKEY_BYTES]);
    if bytes.len() != SUBKEY_BYTES {
        return Err(PluginError::Internal(format!("the subkey has {} bytes; it must have 32", bytes.len())));
    }
    key.copy_from_slice(&bytes);
    Ok(key)
}

/// Makes a component of world `cipher-plan` of a [`Cipher`].
#[macro_export]
macro_rules! export_cipher {
    ($cipher:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Component = $crate::cipher::Exported<$cipher>;
    $crate::export_interfaces!(Component: meta, cipher);
        };
    };
}

/// Makes a component of world `cipher-raw` of a [`RawCipher`].
#[macro_export]
macro_rules! export_cipher_raw {
    ($cipher:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Component = $crate::cipher::Exported<$cipher>;
    $crate::export_interfaces!(Component: meta, cipher, raw_cipher);
        };
    };
}
