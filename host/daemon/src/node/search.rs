//! An operator's search of a copy: which records hold a value. After a takeover they are opened as the recovery strategy lets it

pub(super) mod making;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use farseal_core::layout::{Canonical, Field, Layout};
use farseal_core::units::{BlockCount, Epoch, Extent, Lba};
use zeroize::Zeroizing;

use self::making::{Over, Search};
use super::pair::{PairNode, Side};
use super::sides::flat;
use crate::control::api::{AuditReport, SearchKeyReport, SearchParameters, SearchReport};
use crate::control::operator::CommandError;
use crate::range::ByteRange;
use crate::recovery::Bring;
use crate::replica::Event as ReplicaEvent;
use crate::replica::points::Purpose;
use crate::search::audit::{self, LINES_MAX, Read};
use crate::search::key_file::{BadKeyFile, KEY_FILE_BYTES_MAX, KeyFile};
use crate::search::{self, Wanted};
use crate::store::files;

impl PairNode {
    /// Finds by tags alone, opens what was found if the copy is taken over, and says what it is.
    pub(super) async fn recover_search(self: Arc<Self>, asked: SearchParameters) -> Result<SearchReport, CommandError> {
        let layout = self.layout()?;
        let (wanted, released) = match &asked.key {
            Some(path) => (self.given(&layout, path, &asked)?, None),
            None => self.with_released(&layout, wanted(&layout, self.blocks, &asked)?),
        };
        let _one = Arc::clone(&self.searching).lock_owned().await;
        if let Some(taken) = self.taken() {
            let bring = released.and_then(|request| self.bring(&taken, &layout, request));
            return self.search_over(Over::Taken(taken), (layout, wanted), bring, asked).await;
        }
        let tested = self.makings.tested.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match tested {
            Some(tested) => self.search_over(Over::Tested(tested), (layout, wanted), None, asked).await,
            None => self.search_closed(layout, wanted, asked).await,
        }
    }

    /// A copy that goes on is searched at its newest point, as a test looks at it, and nothing of it is opened.
    async fn search_closed(
        &self,
        layout: Layout,
        wanted: Wanted,
        asked: SearchParameters,
    ) -> Result<SearchReport, CommandError> {
        let replica = self.keeper("recover search")?;
        if asked.out.is_some() {
            return Err(CommandError::Refused {
                reason: "the copy is not taken over: a search says where records are, and opens none that could be written to a file"
                    .into(),
                next: Some(format!("search without --out, or first: farseal takeover {}", self.config.name)),
            });
        }
        let opened = self.open_point(&replica, None, Purpose::Test).await?;
        let keyring = Arc::clone(&replica.keyring);
        let over = Over::Closed(Box::new(opened), keyring);
        let report = self.search_over(over, (layout, wanted), None, asked).await;
        let _ = replica.ask(|done| ReplicaEvent::EndTest { done }).await;
        report
    }

    async fn search_over(
        &self,
        over: Over,
        (layout, wanted): (Layout, Wanted),
        bring: Option<Bring>,
        asked: SearchParameters,
    ) -> Result<SearchReport, CommandError> {
        let (directory, progress) = (self.makings.directory(), Arc::clone(&self.search_progress));
        let mut search = Search::new(wanted, (layout, self.blocks), over, progress).bringing(bring);
        let made = tokio::task::spawn_blocking(move || {
            search.make(&directory, &asked)?;
            Ok(search.report())
        });
        flat(made.await)
    }

    /// Where the keys are: what finds one value, in the epochs that are asked for.
    pub(super) fn recover_search_key(&self, asked: &SearchParameters) -> Result<SearchKeyReport, CommandError> {
        let layout = self.layout()?;
        let wanted = wanted(&layout, self.blocks, asked)?;
        let refused =
            |reason: String| CommandError::Refused { reason, next: Some("name another file with --out".into()) };
        let Some(out) = asked.out.as_ref().filter(|out| !out.exists()) else {
            return Err(refused("the search key needs a file that is not there yet".into()));
        };
        let lane;
        let replica;
        let keyring = match self.side() {
            Side::Primary(here) => {
                lane = here;
                &lane.keyring
            }
            Side::Secondary { replica: here, .. } => {
                replica = here;
                &replica.keyring
            }
        };
        let (mut keys, mut missing) = (BTreeMap::new(), Vec::new());
        for epoch in keyring.epochs().into_iter().filter(|epoch| wanted.epochs.contains(epoch)) {
            let value = wanted.value.as_ref();
            match value.and_then(|value| search::value_key(keyring, epoch, &wanted.field, value)) {
                Some(key) => _ = keys.insert(epoch, key),
                None => missing.push(epoch),
            }
        }
        if keys.is_empty() {
            let reason = "no epoch that was asked for has its key here".to_owned();
            let next = Some(format!("farseal key history {}", self.config.name));
            return Err(CommandError::Refused { reason, next });
        }
        let epochs = keys.keys().copied().collect();
        let file = KeyFile { pair: self.config.id, layout: layout.mark().id, field: wanted.field.name, keys };
        let written = files::write_atomically(out, file.encode().as_bytes());
        written.map_err(|error| CommandError::Failed { reason: error.to_string(), next: None })?;
        tracing::warn!(pair = self.config.name, field = file.field, "a search key was written to a file");
        Ok(SearchKeyReport { epochs, missing })
    }

    pub(super) fn layout(&self) -> Result<Layout, CommandError> {
        self.config.layout.clone().ok_or_else(|| {
            let reason =
                format!("pair {} declares no record layout: its copy has no tags to search by", self.config.name);
            let next = Some("a new pair may declare one: farseal pair create .. --record-bytes .. --field ..".into());
            CommandError::Refused { reason, next }
        })
    }

    /// What a search key finds.
    fn given(&self, layout: &Layout, path: &Path, asked: &SearchParameters) -> Result<Wanted, CommandError> {
        let refused = |reason: String| {
            let next = Some("farseal recover search-key, where the keys are, writes one".into());
            CommandError::Refused { reason: format!("{}: {reason}", path.display()), next }
        };
        let bytes = files::read_if_there(path, KEY_FILE_BYTES_MAX).map_err(|error| refused(error.to_string()))?;
        let bytes = Zeroizing::new(bytes.ok_or_else(|| refused("there is no such file".into()))?);
        let text = std::str::from_utf8(&bytes).map_err(|_| refused(BadKeyFile::Title.to_string()))?;
        let file = KeyFile::decode(text, self.config.id, layout).map_err(|error| refused(error.to_string()))?;
        let Some((slot, field)) = layout.field(&file.field) else {
            return Err(refused(BadKeyFile::OtherLayout.to_string()));
        };
        let epochs = epochs(asked).map_err(refused)?;
        let within = within(layout, self.blocks, asked.range)?;
        Ok(Wanted { slot, field: field.clone(), value: None, epochs, within, given: Some(file.keys) })
    }

    pub(super) fn recover_audit(&self) -> Result<AuditReport, CommandError> {
        let read = audit::read(&self.makings.directory(), LINES_MAX);
        let Read { lines, unreadable, altered, end } =
            read.map_err(|error| CommandError::Failed { reason: error.to_string(), next: None })?;
        Ok(AuditReport { lines, unreadable, altered, end })
    }
}

fn wanted(layout: &Layout, blocks: BlockCount, asked: &SearchParameters) -> Result<Wanted, CommandError> {
    let (slot, field, value) = sought(layout, &asked.field, &asked.value)?;
    let refused =
        |reason: String| CommandError::Refused { reason, next: Some("give --epochs 3..7, lowest first".into()) };
    let epochs = epochs(asked).map_err(refused)?;
    let within = within(layout, blocks, asked.range)?;
    Ok(Wanted { slot, field: field.clone(), value: Some(value), epochs, within, given: None })
}

/// A field by its name, its number, and a value of it as an operator types it.
pub(super) fn sought<'l>(
    layout: &'l Layout,
    name: &str,
    value: &str,
) -> Result<(u8, &'l Field, Canonical), CommandError> {
    let refused = |reason: String, next: String| CommandError::Refused { reason, next: Some(next) };
    let (slot, field) = layout.field(name).ok_or_else(|| {
        let names: Vec<&str> = layout.fields().iter().map(|field| field.name.as_str()).collect();
        refused(format!("the pair has no key field {name:?}"), format!("ask for one of: {}", names.join(", ")))
    })?;
    let value = field
        .value(value)
        .map_err(|error| refused(error.to_string(), format!("give a value of form {}", field.form)))?;
    Ok((slot, field, value))
}

/// The whole records of which some byte lies in a range; all of the volume unless told.
fn within(layout: &Layout, blocks: BlockCount, range: Option<ByteRange>) -> Result<Extent, CommandError> {
    let volume = blocks.byte_len(layout.block_bytes()).0;
    let range = range.unwrap_or(ByteRange { start: 0, end: volume });
    let (record, each) = (u64::from(layout.record_bytes()), layout.record_blocks().0);
    let (first, end) = (range.start / record * each, range.end.div_ceil(record).saturating_mul(each).min(blocks.0));
    let extent = Extent::new(Lba(first), BlockCount(end.saturating_sub(first)));
    extent.filter(|_| range.start < range.end && range.end <= volume).ok_or_else(|| CommandError::Refused {
        reason: format!("--range {range} does not lie in the copy, which has {volume} bytes"),
        next: Some("give a range of the export's bytes, as --range 1GiB..2GiB".into()),
    })
}

/// All of them unless told; or why they are none.
fn epochs(asked: &SearchParameters) -> Result<RangeInclusive<Epoch>, String> {
    let (from, to) = (asked.from_epoch.unwrap_or(Epoch(1)), asked.to_epoch.unwrap_or(Epoch(u64::MAX)));
    if from > to { Err(format!("epochs {from} to {to} are none")) } else { Ok(from..=to) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use farseal_core::layout::Form;
    use farseal_core::units::BlockBytes;

    use super::*;

    #[test]
    fn a_range_takes_whole_records_in_and_none_outside_of_the_volume() {
        let field = Field { name: "id".into(), offset: 0, length: 8, form: Form::Raw };
        let layout = Layout::new(1024, BlockBytes::new(512).unwrap(), vec![field]).unwrap();
        let within = |start, end| within(&layout, BlockCount(7), Some(ByteRange { start, end }));
        let extent = |start, end| within(start, end).map(|extent| (extent.first().0, extent.blocks().0)).unwrap();
        assert_eq!(extent(0, 1), (0, 2));
        assert_eq!(extent(1023, 1025), (0, 4));
        assert_eq!(extent(2048, 3072), (4, 2));
        assert_eq!(extent(3000, 7 * 512), (4, 3), "the last record is cut off by the volume's end");
        for (start, end) in [(0, 7 * 512 + 1), (4000, 5000), (5, 5), (9, 3), (u64::MAX - 1, u64::MAX)] {
            assert!(matches!(within(start, end), Err(CommandError::Refused { .. })), "{start}..{end}");
        }
    }
}
