//! The components that an escrow keeps: those that sealed and hid its sites' epochs, so that a key never outlives the code that
//! uses it. They are no secret; whoever is admitted may read them by their digest.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use farseal_core::frame::ComponentPart;
use farseal_plugin::Digest;

use super::wire::COMPONENT_PART_BYTES;
use crate::components::{ComponentError, Components};
use crate::keys::fingerprint::Fingerprint;
use crate::keys::wire::to_hex;
use crate::link::parts::Parts;
use crate::store::StoreError;

/// A folder of components for each site, so that none can fill the room of another.
#[derive(Debug)]
pub struct Library {
    directory: PathBuf,
    /// What has begun to come, by site.
    coming: Mutex<BTreeMap<Fingerprint, Parts>>,
}

impl Library {
    /// In this folder, which is made when the first component comes.
    #[must_use]
    pub fn at(directory: PathBuf) -> Self {
        Self { directory, coming: Mutex::default() }
    }

    /// Takes a part of a component from a site, in order; or, of a part without bytes, looks whether it is there. Says whether
    /// it is kept whole and durably.
    pub fn take(&self, site: Fingerprint, part: ComponentPart) -> bool {
        let digest = Digest(part.digest);
        let kept = if part.of == 0 { self.holds(site, digest) } else { self.add(site, part) };
        kept.unwrap_or_else(|error| {
            tracing::error!(%error, %digest, "a component cannot be kept");
            false
        })
    }

    /// What is kept of a component from here on, as much as fits a cell; `of` 0 if nobody sent it.
    #[must_use]
    pub fn part(&self, digest: Digest, from: u32) -> ComponentPart {
        let Some(whole) = self.find(digest) else { return ComponentPart::none(digest.0) };
        ComponentPart::at(digest.0, &whole, usize::try_from(from).unwrap_or(usize::MAX), COMPONENT_PART_BYTES)
    }

    /// What this site itself sent, whole.
    pub(super) fn sent_by(&self, site: Fingerprint, digest: Digest) -> Option<Vec<u8>> {
        self.of(site).ok()?.load(digest).ok()
    }

    fn holds(&self, site: Fingerprint, digest: Digest) -> Result<bool, ComponentError> {
        match self.of(site)?.load(digest) {
            Ok(_) => Ok(true),
            Err(ComponentError::Missing(_) | ComponentError::Altered { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn add(&self, site: Fingerprint, part: ComponentPart) -> Result<bool, ComponentError> {
        let mut coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = coming.entry(site).or_default();
        // A first part begins anew: the line may have broken in the middle of another.
        if part.from == 0 {
            *parts = Parts::default();
        }
        let Ok(Some((digest, bytes))) = parts.add(part) else { return Ok(false) };
        coming.remove(&site);
        drop(coming);
        if Digest::of(&bytes) != Digest(digest) {
            return Ok(false);
        }
        self.of(site)?.keep(&bytes).map(|_| true)
    }

    fn of(&self, site: Fingerprint) -> Result<Components, StoreError> {
        Components::open(&self.directory.join(to_hex(&site.0)))
    }

    fn find(&self, digest: Digest) -> Option<Vec<u8>> {
        let sites = std::fs::read_dir(&self.directory).ok()?.filter_map(Result::ok);
        sites.filter_map(|site| Components::open(&site.path()).ok()?.load(digest).ok()).next()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    const SITE: Fingerprint = Fingerprint([7; 32]);

    fn parts(component: &[u8]) -> Vec<ComponentPart> {
        let starts = (0..component.len()).step_by(COMPONENT_PART_BYTES);
        starts.map(|from| ComponentPart::at(Digest::of(component).0, component, from, COMPONENT_PART_BYTES)).collect()
    }

    fn question(digest: Digest) -> ComponentPart {
        ComponentPart::none(digest.0)
    }

    #[test]
    fn a_component_comes_in_parts_and_goes_in_parts_and_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let component: Vec<u8> = (0..=250).cycle().take(2 * COMPONENT_PART_BYTES + 9).collect();
        let digest = Digest::of(&component);
        let library = Library::at(folder.path().join("library"));
        assert!(!library.take(SITE, question(digest)));
        assert_eq!(library.part(digest, 0).of, 0);
        let taken: Vec<bool> = parts(&component).into_iter().map(|part| library.take(SITE, part)).collect();
        assert_eq!(taken, [false, false, true]);
        let library = Library::at(folder.path().join("library"));
        assert!(library.take(SITE, question(digest)));
        let mut found = Vec::new();
        while found.len() < component.len() {
            let part = library.part(digest, u32::try_from(found.len()).unwrap());
            assert!(!part.bytes.is_empty());
            found.extend(part.bytes);
        }
        assert_eq!(found, component);
        assert!(library.part(digest, u32::MAX).bytes.is_empty(), "behind its end");
    }

    #[test]
    fn what_is_not_what_it_says_is_not_kept_and_parts_out_of_order_begin_anew() {
        let folder = tempfile::tempdir().unwrap();
        let library = Library::at(folder.path().to_owned());
        let component = vec![3; COMPONENT_PART_BYTES + 1];
        let digest = Digest::of(&component);
        let [first, second] = parts(&component).try_into().unwrap();
        let lie = ComponentPart { bytes: vec![4; COMPONENT_PART_BYTES], ..first.clone() };
        assert!(!library.take(SITE, lie));
        assert!(!library.take(SITE, second.clone()), "these bytes have another digest");
        assert!(!library.take(SITE, second.clone()), "the first part is missing");
        assert!(!library.take(SITE, first.clone()));
        assert!(!library.take(Fingerprint([8; 32]), second.clone()), "it is another site's");
        assert!(!library.take(SITE, first));
        assert!(library.take(SITE, second));
        assert_eq!(library.part(digest, 0).bytes.len(), COMPONENT_PART_BYTES);
    }
}
