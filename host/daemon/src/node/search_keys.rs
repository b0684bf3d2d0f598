//! Search keys from the escrow site: asked for, kept, and used where the epochs' own keys are not here; and the records that they
//! find, which that site opens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use farseal_core::layout::{Canonical, Field, Layout};
use farseal_core::units::{BlockCount, Epoch, Extent};
use farseal_plugin::vault::search::ValueKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::makings::Makings;
use super::pair::{PairNode, Taken};
use super::sides::failed;
use crate::control::api::{CommandReply, EscrowSearch};
use crate::control::operator::CommandError;
use crate::escrow::client::EscrowLine;
use crate::escrow::search::{AskedSearch, SealedRecord};
use crate::escrow::wire::{Request, ToEscrow};
use crate::keyring::Keyring;
use crate::keys::search_release::SearchRelease;
use crate::keys::wire::to_hex;
use crate::recovery::{Bring, CopySource, begins_by_refusing};
use crate::search::Wanted;
use crate::store::files;
use crate::store::opened::OpenedHome;

/// A file that holds more is no search, or no release.
const FILE_BYTES_MAX: u64 = 8 << 10;
/// What a search is for, beside its keys.
const SEARCH: &str = "search.json";

/// A search whose keys were asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Kept {
    format: u32,
    search: AskedSearch,
}

/// What was released for a search: the number of the request, and the keys.
struct Released {
    request: u64,
    keys: BTreeMap<Epoch, ValueKey>,
}

impl Makings {
    fn search_keys_folder(&self) -> PathBuf {
        self.directory().join("search-keys")
    }

    /// Search keys are here, and nothing is opened but what a search finds: the copy can be taken over without its keys. Under a
    /// strategy that opens what is read, a search that was approved once says nothing of what initiators will read.
    pub(super) fn opens_by_search_alone(&self) -> bool {
        self.has_search_keys() && {
            let blocks = self.blocks().unwrap_or(BlockCount(0));
            begins_by_refusing(&self.plugins, &self.config.name, blocks)
        }
    }

    /// Records may be found, and the escrow site opens them.
    pub(super) fn has_search_keys(&self) -> bool {
        let searches = std::fs::read_dir(self.search_keys_folder()).into_iter().flatten().flatten();
        self.config.layout.is_some() && searches.into_iter().any(|search| !releases(&search.path()).is_empty())
    }
}

impl PairNode {
    /// Asks a person at the escrow site for what finds one value.
    pub(super) async fn request_search(
        &self,
        reason: String,
        wanted: &EscrowSearch,
    ) -> Result<CommandReply, CommandError> {
        let layout = self.layout()?;
        let (line, keyring) = self.line_and_keyring("escrow request")?;
        let search = asked(&layout, wanted)?;
        let epochs = keyring.epochs();
        let (first, last) = wanted.epochs.unwrap_or((Epoch(1), Epoch(u64::MAX)));
        let mut within = epochs.iter().filter(|epoch| (first..=last).contains(*epoch));
        let Some(first) = within.next() else {
            let next = Some(format!("farseal recover plan {}", self.config.name));
            return Err(CommandError::Refused { reason: "the copy has no epoch of these".into(), next });
        };
        let last = within.next_back().unwrap_or(first);
        let folder = self.makings.search_keys_folder().join(to_hex(&search.hash()));
        let kept = Kept { format: 1, search: search.clone() };
        let keep = || {
            files::create_private_dir(&self.makings.search_keys_folder())?;
            files::create_private_dir(&folder)?;
            files::write_atomically(&folder.join(SEARCH), &serde_json::to_vec_pretty(&kept).unwrap_or_default())
        };
        keep().map_err(|error| failed(&error.to_string()))?;
        let request = Request {
            pair: self.config.id,
            depositor: keyring.signer().fingerprint(),
            first: *first,
            last: *last,
            copy: self.mark_of_copy().await?,
            reason,
        };
        let what = format!("a search for {}={} in epochs {first} to {last}", search.field, search.shown());
        self.requested(&line, ToEscrow::RequestSearch(request, search), &what).await
    }

    /// Whether it is one that this copy asked for and can use.
    pub(super) fn keep_search_release(&self, keyring: &Keyring, bytes: &[u8]) -> Result<bool, CommandError> {
        let release =
            SearchRelease::decode(bytes).map_err(|error| failed(&format!("a search key cannot be read: {error}")))?;
        let about = release.about;
        let epoch = Epoch(about.scope.epoch);
        let deposit = keyring.package(epoch).and_then(|package| package.receipt().map(|receipt| receipt.deposit));
        let folder = self.makings.search_keys_folder().join(to_hex(&about.search));
        if deposit != Some(about.deposit) || !folder.join(SEARCH).exists() {
            return Ok(false);
        }
        let Some(line) = self.makings.escrow_line() else { return Ok(false) };
        release.open(&self.shared.identity, &line.card).map_err(|error| failed(&error.to_string()))?;
        let path = folder.join(format!("{:016x}.release", epoch.0));
        files::write_atomically(&path, bytes).map_err(|error| failed(&error.to_string()))?;
        Ok(true)
    }

    pub(super) fn fetched_search(&self, keys: u64) -> CommandReply {
        let name = &self.config.name;
        let mut reply =
            CommandReply::new(format!("search keys of {keys} epochs came from the escrow; they open nothing"));
        reply
            .details
            .push("what a search finds the escrow site opens, record by record, while the request is approved".into());
        let opened = self.awaits_keys().is_some() && self.makings.open_awaited();
        reply.next = Some(if opened || self.taken().is_some() {
            format!("farseal recover search {name} --field ..")
        } else {
            format!("farseal takeover {name}; then farseal recover search {name} --field ..")
        });
        reply
    }

    /// With what the escrow site released for this value, and the number of the request for which it did.
    pub(super) fn with_released(&self, layout: &Layout, wanted: Wanted) -> (Wanted, Option<u64>) {
        match self.released_for(layout, &wanted) {
            Some(Released { request, keys }) => (Wanted { given: Some(keys), ..wanted }, Some(request)),
            None => (wanted, None),
        }
    }

    fn released_for(&self, layout: &Layout, wanted: &Wanted) -> Option<Released> {
        let search = search_of(layout, wanted.slot, &wanted.field, wanted.value.as_ref()?)?;
        let line = self.makings.escrow_line()?;
        let folder = self.makings.search_keys_folder().join(to_hex(&search.hash()));
        let mut released = Released { request: 0, keys: BTreeMap::new() };
        for release in releases(&folder) {
            let Ok(key) = release.open(&self.shared.identity, &line.card) else { continue };
            released.request = released.request.max(release.about.request);
            released.keys.insert(Epoch(release.about.scope.epoch), key);
        }
        (!released.keys.is_empty()).then_some(released)
    }

    /// Has the escrow site open what a search finds and no key here opens, as it was approved in this request.
    pub(super) fn bring(&self, taken: &Taken, layout: &Layout, request: u64) -> Option<Bring> {
        let line = self.makings.escrow_line()?;
        let (home, runtime, pair) = (Arc::clone(&taken.home), self.shared.runtime.clone(), self.config.name.clone());
        let block = layout.block_bytes().as_usize();
        Some(Bring::new(move |record: Extent| {
            if let Err(why) = brought(&home, (&line, &runtime), request, record, block) {
                tracing::error!(pair, first = record.first().0, "a record is not opened at the escrow site: {why}");
            }
        }))
    }
}

/// Has the escrow site open a record, unless its keys are here.
fn brought(
    home: &OpenedHome<CopySource>,
    (line, runtime): (&EscrowLine, &tokio::runtime::Handle),
    request: u64,
    record: Extent,
    block: usize,
) -> Result<(), String> {
    let Some((blocks, sequences)) = home.source().sealed(record)? else { return Ok(()) };
    let opened = runtime.block_on(line.open(SealedRecord { request, blocks }));
    let bytes = Zeroizing::new(opened.map_err(|why| why.to_string())?);
    if bytes.len() != block * sequences.len() {
        return Err("it answered with another length".into());
    }
    for ((lba, sequence), bytes) in sequences.into_iter().zip(bytes.chunks(block)) {
        home.source().brought().put(lba, sequence, bytes);
    }
    Ok(())
}

fn asked(layout: &Layout, wanted: &EscrowSearch) -> Result<AskedSearch, CommandError> {
    let (slot, field, value) = super::search::sought(layout, &wanted.field, &wanted.value)?;
    search_of(layout, slot, field, &value).ok_or_else(|| failed("the value is none"))
}

/// The same for the same value, however it is typed.
fn search_of(layout: &Layout, slot: u8, field: &Field, value: &Canonical) -> Option<AskedSearch> {
    Some(AskedSearch {
        field: field.name.clone(),
        form: field.form,
        slot,
        record_blocks: u32::try_from(layout.record_blocks().0).ok()?,
        value: value.as_bytes().to_vec(),
    })
}

fn releases(folder: &Path) -> Vec<SearchRelease> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "release")).collect();
    files.sort();
    let read = |path: PathBuf| files::read_if_there(&path, FILE_BYTES_MAX).ok().flatten();
    files.into_iter().filter_map(read).filter_map(|bytes| SearchRelease::decode(&bytes).ok()).collect()
}
