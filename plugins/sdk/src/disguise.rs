//! Disguise: how a key travels unseen. Slots are planned first, from what an observer of the link could see anyway;
//! the host fills them later. No call depends on whether a key is due, and no key ever comes here.

pub mod chance;
pub mod marked;

use std::marker::PhantomData;

use crate::PluginError;
use crate::bindings::exports::farseal::plugin::disguise as wit;
use crate::plugin::{self, Plugin, export_meta};

pub use wit::{Seen, Slot};

/// 32 bytes from the host's random source, journalled.
pub type Seed = [u8; 32];

/// What a disguise [understands](Plugin::UNDERSTANDS) whose keys go in slots beside the records of data: the host gives each
/// record one, cuts the carrier of a key into their pieces, and fills the others with chance. In the slots that it
/// [plans](Disguise::plan) something is carried so, a key or a cover: their lengths must be short, `smallest` at best.
pub const IN_RECORDS: &str = "in-records";

/// A disguise.
pub trait Disguise: Plugin {
    /// The coming slots: at most 64, each of `smallest` to 256 blocks, gaps of at most an hour. `recent` is oldest
    /// first. None at all: no schedule is kept, and a key goes at once, in a record of its own or by [`IN_RECORDS`].
    fn plan(recent: &[Seen], smallest: u32, seed: &Seed, settings: &Self::Settings) -> Vec<Slot>;

    /// The most payload bytes that a cover of this length carries; exact.
    fn capacity(cover_bytes: usize, settings: &Self::Settings) -> usize;

    /// Hides `payload`, which is at most `capacity`, in `cover`, in place.
    fn embed(cover: &mut [u8], payload: &[u8], seed: &Seed, settings: &Self::Settings);

    /// The payload, or `None` where there is none of this plugin's making. Never guesses.
    fn extract(carrier: &[u8], settings: &Self::Settings) -> Option<Vec<u8>>;
}

/// `plan` as the host calls it.
///
/// # Errors
/// Wrong settings, or a seed that is not 32 bytes.
pub fn plan<P: Disguise>(recent: &[Seen], smallest: u32, seed: &[u8], config: &str) -> Result<Vec<Slot>, PluginError> {
    let settings = plugin::settings::<P>(config)?;
    Ok(P::plan(recent, smallest, &seed_of(seed)?, &settings))
}

/// `capacity` as the host calls it.
///
/// # Errors
/// Wrong settings.
pub fn capacity<P: Disguise>(cover_bytes: u32, config: &str) -> Result<u32, PluginError> {
    let settings = plugin::settings::<P>(config)?;
    let cover_bytes = usize::try_from(cover_bytes).unwrap_or(usize::MAX);
    Ok(u32::try_from(P::capacity(cover_bytes, &settings)).unwrap_or(u32::MAX))
}

/// `embed` as the host calls it.
///
/// # Errors
/// Wrong settings, a seed that is not 32 bytes, or a payload above `capacity`.
pub fn embed<P: Disguise>(
    mut cover: Vec<u8>,
    payload: &[u8],
    seed: &[u8],
    config: &str,
) -> Result<Vec<u8>, PluginError> {
    let settings = plugin::settings::<P>(config)?;
    let capacity = P::capacity(cover.len(), &settings);
    if payload.len() > capacity {
        return Err(PluginError::Rejected(format!(
            "a payload of {} bytes; a cover of {} bytes carries {capacity}",
            payload.len(),
            cover.len(),
        )));
    }
    P::embed(&mut cover, payload, &seed_of(seed)?, &settings);
    Ok(cover)
}

/// `extract` as the host calls it.
///
/// # Errors
/// Wrong settings.
pub fn extract<P: Disguise>(carrier: &[u8], config: &str) -> Result<Option<Vec<u8>>, PluginError> {
    let settings = plugin::settings::<P>(config)?;
    Ok(P::extract(carrier, &settings))
}

fn seed_of(seed: &[u8]) -> Result<Seed, PluginError> {
    Seed::try_from(seed).map_err(|_| PluginError::Rejected(format!("a seed of {} bytes; it must be 32", seed.len())))
}

/// A disguise as world `key-disguise` exports it.
#[doc(hidden)]
#[derive(Debug)]
pub struct Exported<P>(PhantomData<P>);

export_meta!(Disguise, Exported);

impl<P: Disguise> wit::Guest for Exported<P> {
    fn plan(recent: Vec<Seen>, smallest: u32, seed: Vec<u8>, config: String) -> Result<Vec<Slot>, PluginError> {
        crate::log::catch_panics();
        plan::<P>(&recent, smallest, &seed, &config)
    }

    fn capacity(cover_bytes: u32, config: String) -> Result<u32, PluginError> {
        crate::log::catch_panics();
        capacity::<P>(cover_bytes, &config)
    }

    fn embed(cover: Vec<u8>, payload: Vec<u8>, seed: Vec<u8>, config: String) -> Result<Vec<u8>, PluginError> {
        crate::log::catch_panics();
        embed::<P>(cover, &payload, &seed, &config)
    }

    fn extract(carrier: Vec<u8>, config: String) -> Result<Option<Vec<u8>>, PluginError> {
        crate::log::catch_panics();
        extract::<P>(&carrier, &config)
    }
}

/// Makes a component of world `key-disguise` of a [`Disguise`].
#[macro_export]
macro_rules! export_disguise {
    ($disguise:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Component = $crate::disguise::Exported<$disguise>;
    $crate::export_interfaces!(Component: meta, disguise);
        };
    };
}
