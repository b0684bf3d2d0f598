//! Opens the copy as it arrives, where the pair says so: into an image beside the sealed copy, which a takeover serves without a key.
//!
//! A pass takes every block whose record is newer than the mark, opens it, writes it into the image, makes that durable, and then
//! moves the mark to where the index was when the pass began. So a block whose newest record is not above the mark is in the image as
//! that record left it, whenever a crash comes: what a pass had written over has a record above the mark. What does not open is
//! remembered as closed, and is opened by a takeover like any other. The image holds the newest state alone: earlier points are
//! opened from the log.

mod followed;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use farseal_core::record::Kind;
use farseal_core::units::{BlockBytes, Extent, Lba, Sequence};
use serde::{Deserialize, Serialize};

pub use self::followed::FollowedVolume;
use crate::control::api::ArrivedStatus;
use crate::keyring::{Keyring, Unsealer};
use crate::plugins::PairPlugins;
use crate::recovery::open_place;
use crate::replica::Event as ReplicaEvent;
use crate::replica::newer::{Newer, Page};
use crate::store::home::{Home as _, HomeError, RawHome};
use crate::store::index::Place;
use crate::store::log::{Location, LogReader};
use crate::store::{StoreError, files};

/// Between two passes: each ends with a sync of the image.
const PASS_GAP: Duration = Duration::from_secs(1);
/// After a pass that could not be finished: the disk is full, or fails.
const RETRY_GAP: Duration = Duration::from_secs(5);
/// Closed blocks that are remembered. With more the mark stays where it is, and a takeover opens what came after it.
const CLOSED_MAX: usize = 1 << 16;
/// Each closed block as a number of 20 digits and what stands around it.
const MARK_BYTES_MAX: u64 = (CLOSED_MAX as u64) * 24 + (4 << 10);

/// How far a copy is open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Mark {
    format: u32,
    /// Blocks whose newest record is not above this one are in the image, but for the closed ones.
    through: Sequence,
    /// Blocks that did not open.
    closed: BTreeSet<u64>,
}

/// The image's name in the copy's folder.
const IMAGE: &str = "arrived.image";

/// The image of a copy that is opened as it arrives, for whoever works on it.
#[derive(Clone, Debug)]
pub struct Image {
    home: Arc<RawHome>,
    folder: PathBuf,
    /// What nobody is shown.
    closed: Closed,
}

/// Blocks whose newest record did not open: what the image holds of them is older.
type Closed = Arc<RwLock<BTreeSet<u64>>>;

/// What a takeover finds opened.
#[derive(Debug)]
pub struct Arrived {
    home: Arc<RawHome>,
    mark: Mark,
    block: BlockBytes,
}

/// The thread that opens.
pub struct Arrival {
    pub name: String,
    pub image: Image,
    pub replica: Sender<ReplicaEvent>,
    pub reader: LogReader,
    pub keyring: Arc<Keyring>,
    pub plugins: Arc<PairPlugins>,
    pub block: BlockBytes,
    /// Told of each mark.
    pub shown: Arc<Mutex<Option<ArrivedStatus>>>,
    /// Called with the first mark, and when nothing more is opened here.
    pub begun: Box<dyn FnOnce() + Send>,
    pub ended: Box<dyn FnOnce() + Send>,
}

impl std::fmt::Debug for Arrival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arrival").field("name", &self.name).field("image", &self.image).finish_non_exhaustive()
    }
}

impl Mark {
    const FORMAT: u32 = 1;

    fn load(folder: &Path) -> Option<Self> {
        let bytes = files::read_if_there(&mark_path(folder), MARK_BYTES_MAX).ok().flatten()?;
        let mark = serde_json::from_slice::<Self>(&bytes).ok().filter(|mark| mark.format == Self::FORMAT);
        if mark.is_none() {
            tracing::warn!(path = %mark_path(folder).display(), "what was opened as it arrived cannot be read: it is opened again");
        }
        mark
    }

    fn save(&self, folder: &Path) -> Result<(), StoreError> {
        files::write_atomically(&mark_path(folder), &serde_json::to_vec(self).unwrap_or_default())
    }
}

impl Image {
    /// The image of the copy in a folder. `None`: nothing was ever opened there, and `makes` does not ask for it.
    ///
    /// # Errors
    /// [`HomeError`]: it cannot be used. The copy is opened by a takeover as if there were none.
    pub fn open(folder: &Path, bytes: u64, makes: bool) -> Result<Option<Self>, HomeError> {
        let path = folder.join(IMAGE);
        if !makes && !path.exists() {
            return Ok(None);
        }
        if !path.exists() {
            // A mark without its image speaks of nothing.
            files::remove_durably(&mark_path(folder))?;
        }
        let home = Arc::new(RawHome::open(&path, Some(bytes))?);
        let closed = Mark::load(folder).map(|mark| mark.closed).unwrap_or_default();
        Ok(Some(Self { home, folder: folder.to_owned(), closed: Arc::new(RwLock::new(closed)) }))
    }

    /// What is in it; `None`: nothing yet.
    #[must_use]
    pub fn arrived(&self, block: BlockBytes) -> Option<Arrived> {
        Mark::load(&self.folder).map(|mark| Arrived { home: Arc::clone(&self.home), mark, block })
    }

    /// As initiators see it.
    #[must_use]
    pub fn followed(&self, description: String, block: BlockBytes) -> FollowedVolume {
        FollowedVolume::new(Arc::clone(&self.home), Arc::clone(&self.closed), description, block)
    }
}

/// The image in a copy's folder and the bytes that it takes, if there is one.
#[must_use]
pub fn left(folder: &Path) -> Option<(PathBuf, u64)> {
    let path = folder.join(IMAGE);
    let blocks = std::fs::metadata(&path).ok()?.blocks();
    Some((path, blocks * 512))
}

/// Removes the image in a copy's folder, of which nothing is needed any more. What is still open of it reads nothing.
///
/// # Errors
/// [`StoreError`].
pub fn remove(folder: &Path) -> Result<(), StoreError> {
    let path = folder.join(IMAGE);
    // Without its mark it speaks of nothing. Its room is free at once, whoever has it open.
    files::remove_durably(&mark_path(folder))?;
    let emptied = std::fs::File::options().write(true).open(&path).and_then(|file| file.set_len(0));
    emptied.map_err(|source| StoreError::io(&path, "empty the image of what was opened as it arrived", source))?;
    files::remove_durably(&path)
}

impl Arrived {
    /// Are these blocks here as this record, the newest of the copy to say what they hold, left them?
    #[must_use]
    pub fn has(&self, extent: Extent, sequence: Sequence) -> bool {
        let closed = || self.mark.closed.range(extent.first().0..extent.end().0).next().is_some();
        sequence <= self.mark.through && !closed()
    }

    /// Reads whole blocks.
    ///
    /// # Errors
    /// [`StoreError`]: the image cannot be read.
    pub fn read(&self, extent: Extent, into: &mut [u8]) -> Result<(), StoreError> {
        self.home.read(extent.first().0 * self.block.as_u64(), into)
    }
}

/// Why a pass ended early.
enum Early {
    /// No copy is kept here any more.
    Ended,
    /// A record was not where the index had said; it may have been moved since.
    Moved,
    Store(StoreError),
}

/// Where records were that could not be read in the pass before.
type Suspects = BTreeMap<Lba, (Sequence, Location)>;

impl Arrival {
    /// Runs until the copy's thread ends, or this site takes over.
    pub fn start(self) {
        let name = format!("arrival-{}", self.name);
        if let Err(error) = std::thread::Builder::new().name(name).spawn(move || self.run()) {
            tracing::error!(%error, "the copy is not opened as it arrives: no thread could be started");
        }
    }

    fn run(mut self) {
        let mut mark = Mark::load(&self.image.folder).unwrap_or_default();
        let (mut suspects, mut said) = (Suspects::new(), false);
        let mut begun = Some(std::mem::replace(&mut self.begun, Box::new(|| {})));
        loop {
            let gap = match self.pass(&mark, &mut suspects) {
                Ok(passed) => {
                    mark = passed;
                    self.show(&mark);
                    begun.take().into_iter().for_each(|begun| begun());
                    said = false;
                    PASS_GAP
                }
                Err(Early::Ended) => break,
                Err(Early::Moved) => PASS_GAP,
                Err(Early::Store(error)) => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::error!(pair = self.name, %error, "the copy is not opened as it arrives: tried again every 5 s");
                    }
                    RETRY_GAP
                }
            };
            // Not to wait for anything: a pass after each record would sync for each.
            std::thread::sleep(gap);
        }
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = None;
        (self.ended)();
    }

    fn show(&self, mark: &Mark) {
        let closed = u64::try_from(mark.closed.len()).unwrap_or(u64::MAX);
        let shown = ArrivedStatus { through: mark.through, closed };
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
    }

    /// Opens everything above the mark, and says where the next one is.
    fn pass(&self, mark: &Mark, suspects: &mut Suspects) -> Result<Mark, Early> {
        let before = std::mem::take(suspects);
        let mut passed = Mark { format: Mark::FORMAT, ..mark.clone() };
        let (mut through, mut from) = (None, Lba(0));
        loop {
            let page = self.page(mark.through, from)?;
            through.get_or_insert(page.through);
            let mut unsealer =
                Unsealer::new(Arc::clone(&self.keyring), Arc::clone(&page.ledger), Arc::clone(&self.plugins));
            for (extent, place) in page.runs {
                self.open(&mut unsealer, extent, place, (&before, &mut *suspects), &mut passed.closed)?;
            }
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
        self.image.home.sync().map_err(Early::Store)?;
        if !suspects.is_empty() {
            return Err(Early::Moved);
        }
        if passed.closed.len() > CLOSED_MAX {
            tracing::error!(
                pair = self.name,
                "too many blocks of the copy do not open: it is opened no further as it arrives"
            );
            return Err(Early::Ended);
        }
        passed.through = through.unwrap_or(mark.through);
        passed.save(&self.image.folder).map_err(Early::Store)?;
        Ok(passed)
    }

    fn page(&self, after: Sequence, from: Lba) -> Result<Page, Early> {
        let (answer, page) = channel();
        let done = Box::new(move |page| drop(answer.send(page)));
        self.replica.send(ReplicaEvent::Newer(Newer { after, from, done })).map_err(|_| Early::Ended)?;
        page.recv().ok().flatten().ok_or(Early::Ended)
    }

    fn open(
        &self,
        unsealer: &mut Unsealer,
        extent: Extent,
        place: Place,
        (before, suspects): (&Suspects, &mut Suspects),
        closed: &mut BTreeSet<u64>,
    ) -> Result<(), Early> {
        let (offset, len) = (extent.first().0 * self.block.as_u64(), extent.blocks().byte_len(self.block).0);
        let zeroes = place.kind != Kind::Data;
        let mut bytes = vec![0; if zeroes { 0 } else { usize::try_from(len).unwrap_or(usize::MAX) }];
        match open_place(&self.reader, &mut None, unsealer, &place, extent, &mut bytes) {
            Ok(()) => {
                let written = if zeroes {
                    self.image.home.zero(offset, len, true)
                } else {
                    self.image.home.write(offset, &bytes)
                };
                written.map_err(Early::Store)?;
                forget(closed, extent);
                forget(&mut self.image.closed.write().unwrap_or_else(PoisonError::into_inner), extent);
            }
            // Also what the disk does not give back: what lies behind it is opened all the same.
            Err(unopened) => {
                let stands = (place.sequence, place.location);
                if before.get(&extent.first()) == Some(&stands) {
                    tracing::error!(pair = self.name, lba = %extent.first(), record = %place.sequence, %unopened,
                        "blocks of the copy do not open: a takeover would find them so");
                    let blocks = extent.first().0..extent.end().0;
                    self.image.closed.write().unwrap_or_else(PoisonError::into_inner).extend(blocks.clone());
                    closed.extend(blocks);
                } else {
                    suspects.insert(extent.first(), stands);
                }
            }
        }
        Ok(())
    }
}

fn forget(closed: &mut BTreeSet<u64>, extent: Extent) {
    let opened: Vec<u64> = closed.range(extent.first().0..extent.end().0).copied().collect();
    opened.iter().for_each(|lba| _ = closed.remove(lba));
}

fn mark_path(folder: &Path) -> PathBuf {
    folder.join("arrived.json")
}
