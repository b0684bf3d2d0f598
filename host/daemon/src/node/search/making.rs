//! One search, page by page: what the tags say, what the strategy lets it open, and what that holds

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use farseal_core::layout::{Canonical, Field, Form, Layout};
use farseal_core::units::{BlockCount, Epoch, Extent};

use crate::control::api::{FoundRecord, SearchParameters, SearchProgress, SearchReport};
use crate::keyring::Keyring;
use crate::keys::wire::to_hex;
use crate::node::pair::Taken;
use crate::recovery::{Bring, CopySource, SearchOpened, Searched, Sweep};
use crate::replica::points::Opened;
use crate::search::audit::{Audit, Logged, What};
use crate::search::{Found, Shelf, Wanted};
use crate::store::home::Home as _;
use crate::store::scratch::Scratch;
use farseal_plugin::found::SEARCH_BATCH;

/// Records that a report names; those beyond are counted, and are in the file that is asked for.
const NAMED_MAX: usize = 256;

/// What is searched.
#[derive(Debug)]
pub(in crate::node) enum Over {
    Taken(Taken),
    /// What a test looks at: what is found is released to it, and no strategy is asked.
    Tested(Tested),
    /// A copy that goes on, at a point: nothing is opened.
    Closed(Box<Opened>, Arc<Keyring>),
}

/// What a test looks at, and the volume that it makes of that: with what lies below the copy, and what the tester wrote.
#[derive(Clone, Debug)]
pub(in crate::node) struct Tested {
    pub(in crate::node) source: Arc<CopySource>,
    pub(in crate::node) volume: Arc<Scratch<Arc<CopySource>>>,
}

/// How far the search that runs now is, for whoever asks.
pub(in crate::node) type Progress = Arc<Mutex<Option<SearchProgress>>>;

/// One search, while it is made.
#[derive(Debug)]
pub(super) struct Search {
    wanted: Wanted,
    layout: Layout,
    blocks: BlockCount,
    over: Over,
    report: SearchReport,
    progress: Progress,
    /// Has the escrow site open records whose keys are not here.
    bring: Option<Bring>,
}

/// The file that an operator wants the records in: there when all are in it.
struct Out {
    path: PathBuf,
    new: PathBuf,
    file: BufWriter<File>,
}

impl Search {
    pub(super) fn new(wanted: Wanted, (layout, blocks): (Layout, BlockCount), over: Over, progress: Progress) -> Self {
        let closed_copy = matches!(over, Over::Closed(..));
        let (field, by_key) = (wanted.field.name.clone(), wanted.value.is_none());
        let report = SearchReport { field, closed_copy, by_key, ..SearchReport::default() };
        Self { wanted, layout, blocks, over, report, progress, bring: None }
    }

    pub(super) fn bringing(self, bring: Option<Bring>) -> Self {
        Self { bring, ..self }
    }

    pub(super) fn report(self) -> SearchReport {
        self.report
    }

    /// Makes it. What was found so far stays open where it ends early.
    pub(super) fn make(&mut self, directory: &Path, asked: &SearchParameters) -> anyhow::Result<()> {
        let out = asked.out.as_deref().map(Out::create).transpose()?;
        let made = self.all_pages(directory, asked, out);
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = None;
        made
    }

    fn all_pages(&mut self, directory: &Path, asked: &SearchParameters, mut out: Option<Out>) -> anyhow::Result<()> {
        let mut audit = Audit::open(directory)?;
        self.report.search = audit.next();
        let (from_epoch, to_epoch) = (*self.wanted.epochs.start(), *self.wanted.epochs.end());
        // Who gives a search key need not tell the value.
        let value = if self.wanted.value.is_none() { "(by a search key)".to_owned() } else { asked.value.clone() };
        let (field, range) = (self.wanted.field.name.clone(), asked.range.map(|range| range.to_string()));
        self.log(&mut audit, What::Asked { field, value, from_epoch, to_epoch, range })?;
        let (before, mut from, mut pages) = (self.units(), Some(self.wanted.within.first()), 0_u64);
        while let Some(at) = from {
            let found = self.find(at);
            from = found.next;
            self.count(&found);
            if !found.records.is_empty() || (from.is_none() && pages == 0) {
                pages += 1;
                let records = u64::try_from(found.records.len())?;
                self.log(&mut audit, What::Found { records, compared: found.compared })?;
                audit = self.open(audit, &found.records)?;
                self.tell(&found.records, out.as_mut())?;
            }
            self.note_progress(from.map_or(self.wanted.within.end().0, |next| next.0));
        }
        self.report.units = self.units() - before;
        let (opened, failed) = (self.report.opened, self.report.failed);
        self.log(&mut audit, What::Ended { opened, failed })?;
        out.map_or(Ok(()), Out::finish)
    }

    fn find(&self, from: farseal_core::units::Lba) -> Found {
        let (layout, blocks) = (&self.layout, self.blocks);
        match &self.over {
            Over::Taken(taken) => taken.home.source().shelf(layout, blocks).find(&self.wanted, from),
            Over::Tested(tested) => tested.source.shelf(layout, blocks).find(&self.wanted, from),
            Over::Closed(opened, keyring) => {
                let Some(index) = &opened.index else { return Found::default() };
                let (reader, ledger) = (&opened.reader, &*opened.ledger);
                Shelf { index, reader, ledger, keyring, layout, blocks }.find(&self.wanted, from)
            }
        }
    }

    /// Adds a page to what is reported.
    fn count(&mut self, page: &Found) {
        let report = &mut self.report;
        report.found += u64::try_from(page.records.len()).unwrap_or(u64::MAX);
        report.compared += page.compared;
        report.unreadable += page.unreadable;
        report.outside += page.outside;
        let mut closed: std::collections::BTreeMap<Epoch, u64> = report.closed.drain(..).collect();
        page.closed.iter().for_each(|(epoch, blocks)| *closed.entry(*epoch).or_default() += blocks);
        report.closed = closed.into_iter().collect();
    }

    fn note_progress(&self, passed: u64) {
        let SearchReport { search, found, opened, .. } = self.report;
        let within = self.wanted.within;
        let (passed, of) = (passed - within.first().0, within.blocks().0);
        tracing::info!(search, passed, of, found, opened, "a search goes on");
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(SearchProgress { search, passed, of, found, opened });
    }

    fn units(&self) -> u64 {
        match &self.over {
            Over::Taken(taken) => taken.home.source().units(),
            Over::Tested(tested) => tested.source.units(),
            Over::Closed(..) => 0,
        }
    }

    fn log(&self, audit: &mut Audit, what: What) -> anyhow::Result<()> {
        Ok(audit.add(&Logged { at: crate::clock::wall_time(), search: self.report.search, what })?)
    }

    /// On the thread of the strategy, which says what may be opened.
    fn open(&mut self, mut audit: Audit, records: &[Extent]) -> anyhow::Result<Audit> {
        let taken = match &self.over {
            Over::Taken(taken) => taken,
            Over::Tested(Tested { source, .. }) => {
                for batch in records.chunks(SEARCH_BATCH) {
                    let named = batch.iter().map(|record| (record.first().0, record.blocks().0)).collect();
                    self.log(&mut audit, What::Opens { records: named })?;
                    let released = source.released();
                    let new = batch.iter().filter(|record| released.is_some_and(|released| released.add(**record)));
                    self.report.opened += new.map(|record| record.blocks().0).sum::<u64>();
                }
                return Ok(audit);
            }
            Over::Closed(..) => return Ok(audit),
        };
        let (done, answer) = tokio::sync::oneshot::channel();
        let (field, records) = (self.wanted.field.name.clone(), records.to_vec());
        let bring = self.bring.clone();
        let sent = taken.sweeper.send(Sweep::Search(Box::new(Searched { field, audit, records, bring, done })));
        let answer = sent.ok().and_then(|()| answer.blocking_recv().ok());
        let (audit, SearchOpened { opened, failed, withheld }) =
            answer.ok_or_else(|| anyhow::anyhow!("the recovery strategy's thread has ended: restart the node"))??;
        self.report.opened += opened;
        self.report.failed += failed;
        self.report.withheld += withheld;
        Ok(audit)
    }

    /// Reads what is open of the records. What was written here since may hold another value: it is counted and not told.
    fn tell(&mut self, records: &[Extent], mut out: Option<&mut Out>) -> anyhow::Result<()> {
        for record in records {
            let offset = record.first().0 * self.layout.block_bytes().as_u64();
            let len = record.blocks().byte_len(self.layout.block_bytes()).0;
            let mut bytes = vec![0; usize::try_from(len)?];
            let read = match &self.over {
                Over::Taken(taken) => taken.home.read(offset, &mut bytes).is_ok(),
                Over::Tested(tested) => tested.volume.read(*record, &mut bytes).is_ok(),
                Over::Closed(..) => {
                    let place = FoundRecord { offset, bytes: len, fields: std::collections::BTreeMap::new() };
                    if self.report.records.len() < NAMED_MAX {
                        self.report.records.push(place);
                    }
                    continue;
                }
            };
            if !read {
                continue;
            }
            if self.wanted.value.is_some() && value_in(&bytes, &self.wanted.field) != self.wanted.value {
                self.report.changed += 1;
                continue;
            }
            if self.report.records.len() < NAMED_MAX {
                let fields =
                    self.layout.fields().iter().map(|field| (field.name.clone(), shown(field, &bytes))).collect();
                self.report.records.push(FoundRecord { offset, bytes: len, fields });
            }
            self.report.served += 1;
            if let Some(out) = &mut out {
                out.file.write_all(&bytes)?;
            }
        }
        Ok(())
    }
}

impl Out {
    fn create(path: &Path) -> anyhow::Result<Self> {
        anyhow::ensure!(!path.exists(), "{}: it is there already; name another file", path.display());
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = path.with_file_name(name);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
        let file = file.map_err(|error| anyhow::anyhow!("{}: {error}", new.display()))?;
        Ok(Self { path: path.to_owned(), new, file: BufWriter::new(file) })
    }

    fn finish(mut self) -> anyhow::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        Ok(fs::rename(&self.new, &self.path)?)
    }
}

/// Nothing is left behind of what came to nothing.
impl Drop for Out {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.new);
    }
}

fn value_in(record: &[u8], field: &Field) -> Option<Canonical> {
    Some(field.canonical(bytes_of(field, record)?))
}

fn bytes_of<'r>(field: &Field, record: &'r [u8]) -> Option<&'r [u8]> {
    let (from, len) = (usize::try_from(field.offset).ok()?, usize::try_from(field.length).ok()?);
    record.get(from..from.checked_add(len)?)
}

/// A field as an operator types it.
fn shown(field: &Field, record: &[u8]) -> String {
    let Some(bytes) = bytes_of(field, record) else { return String::new() };
    let canonical = field.canonical(bytes);
    match field.form {
        Form::Raw => format!("0x{}", to_hex(bytes)),
        Form::Text | Form::TextNoCase => String::from_utf8_lossy(canonical.as_bytes()).into_owned(),
        Form::NumberLe | Form::NumberBe => {
            let number = canonical.as_bytes().iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
            number.to_string()
        }
    }
}
