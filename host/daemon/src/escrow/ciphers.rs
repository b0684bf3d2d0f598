//! The ciphers that this escrow site runs to open what a search found: those that sealed its sites' epochs, from its library

use std::sync::{Arc, Mutex, PoisonError};

use farseal_plugin::vault::guest::GuestLayer;
use farseal_plugin::{Digest, OpeningCipher, PluginHost};

use super::library::Library;
use crate::keys::fingerprint::Fingerprint;

/// How many stay loaded, ones that cannot be used included: to load one may take seconds.
const LOADED_MAX: usize = 8;

/// Loads components into the node's own host, with its limits. One is loaded at a time.
pub struct Ciphers {
    host: Arc<PluginHost>,
    /// The one that was used last is the last.
    loaded: Mutex<Vec<Loaded>>,
}

/// What a site's component is; `None`: it cannot be used, and is not tried again.
struct Loaded {
    site: Fingerprint,
    digest: Digest,
    cipher: Option<OpeningCipher>,
}

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

    /// An instance, for one record alone, of a component that this site sent here: what it saw of one record must not reach another.
    /// `None`: the site did not send it, or it cannot be used. Nobody else's runs on what is its.
    pub(super) fn layer(
        &self,
        library: &Library,
        site: Fingerprint,
        digest: Digest,
    ) -> Option<Box<dyn GuestLayer + Send>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        match loaded.iter().position(|known| (known.site, known.digest) == (site, digest)) {
            Some(at) => loaded[at..].rotate_left(1),
            None => {
                // What is not here yet may come.
                let component = library.sent_by(site, digest)?;
                if loaded.len() >= LOADED_MAX {
                    loaded.remove(0);
                }
                loaded.push(Loaded { site, digest, cipher: self.load(&component, digest) });
            }
        }
        loaded.last()?.cipher.as_ref().map(OpeningCipher::layer)
    }

    fn load(&self, component: &[u8], digest: Digest) -> Option<OpeningCipher> {
        match self.host.opening_cipher("a cipher of a site's", component, digest) {
            Ok(cipher) => cipher,
            Err(error) => {
                tracing::error!(%digest, %error, "a cipher that sealed what is to be opened cannot be used");
                None
            }
        }
    }
}
