//! The ciphers that this escrow site runs to open what a search found: those that sealed its sites' epochs, from its library

use std::sync::{Arc, Mutex, PoisonError};

use farseal_plugin::vault::guest::GuestLayer;
use farseal_plugin::{Digest, PluginHost};

use super::library::Library;
use crate::keys::fingerprint::Fingerprint;

/// How many stay loaded: loading one may take a second.
const LOADED_MAX: usize = 4;

/// Runs components in the node's own host, with its limits. One record at a time: a slow one takes no more than one processor.
pub struct Ciphers {
    host: Arc<PluginHost>,
    /// The one that was used last is the last.
    loaded: Mutex<Vec<(Fingerprint, Digest, Layer)>>,
}

type Layer = Box<dyn GuestLayer + Send>;

impl std::fmt::Debug for Ciphers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ciphers").finish_non_exhaustive()
    }
}

impl Ciphers {
    #[must_use]
    pub fn of(host: Arc<PluginHost>) -> Self {
        Self { host, loaded: Mutex::default() }
    }

    /// Opens with a component that this site sent here; `None`: it did not, or it does not load. Nobody else's runs on what is its.
    pub(super) fn open<T>(
        &self,
        library: &Library,
        (site, digest): (Fingerprint, Digest),
        open: impl FnOnce(&mut dyn GuestLayer) -> T,
    ) -> Option<T> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        match loaded.iter().position(|(of, known, _)| (*of, *known) == (site, digest)) {
            Some(at) => loaded[at..].rotate_left(1),
            None => {
                let layer = self.load(library, site, digest)?;
                if loaded.len() >= LOADED_MAX {
                    loaded.remove(0);
                }
                loaded.push((site, digest, layer));
            }
        }
        loaded.last_mut().map(|(_, _, layer)| open(&mut **layer))
    }

    fn load(&self, library: &Library, site: Fingerprint, digest: Digest) -> Option<Layer> {
        let component = library.sent_by(site, digest)?;
        match self.host.opening_layer("a cipher of a site's", &component, digest) {
            Ok(layer) => layer,
            Err(error) => {
                tracing::error!(%digest, %error, "a cipher that sealed what is to be opened cannot be used");
                None
            }
        }
    }
}
