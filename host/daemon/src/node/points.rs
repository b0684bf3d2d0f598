//! What an operator can have a keeper do with points of its copy: list, pin, look at, and work on one beside the copy.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use farseal_core::group::CutName;
use farseal_core::points::Asked;
use farseal_core::units::{BlockCount, CutNumber, Epoch, Extent, Lba, Millis, Sequence, WallTime};

use super::makings::Makings;
use super::operate::GROUP_PIN;
use super::pair::{PairNode, Side};
use super::search::making::Tested;
use crate::config::sections::TESTED;
use crate::config::units::parse_span;
use crate::control::api::{CommandReply, NamedPoint, POINT_FORM, PointsReport, RecoverCommand, Role};
use crate::control::operator::CommandError;
use crate::recovery::CopySource;
use crate::replica::drill::page;
use crate::replica::points::{Open, OpenError, Opened, Purpose, View};
use crate::replica::{Event as ReplicaEvent, Replica};
use crate::store::index::Index;
use crate::store::log::LogReader;
use crate::store::scratch::Scratch;
use crate::tested::TestedVolume;

impl Makings {
    /// The export of a test.
    fn test_name(&self) -> String {
        format!("{}{TESTED}", self.config.volume_name())
    }

    /// Nobody works on a test any more. Where none runs, an export of that name is another's.
    pub(super) fn withdraw_test(&self) {
        let ended = self.tested.lock().unwrap_or_else(PoisonError::into_inner).take();
        if ended.is_some() {
            self.shared.exports.remove(&self.test_name());
            tracing::warn!(pair = self.config.name, "the test is over: what was written to it is gone");
        }
    }
}

impl PairNode {
    pub(super) async fn recover(self: Arc<Self>, command: RecoverCommand) -> Result<CommandReply, CommandError> {
        match command {
            RecoverCommand::Plan { at } => {
                super::key::report("what a takeover would open", &self.recover_plan(at.as_deref()).await?)
            }
            RecoverCommand::Points => {
                let view = self.points_of(&*self.keeper("recover points")?).await?;
                super::key::report("what can be gone back to", &report(&view, self.shared.clock.now().wall))
            }
            RecoverCommand::Pin { at, name } => self.pin(&at, name).await,
            RecoverCommand::Unpin { name } => self.unpin(name).await,
            RecoverCommand::Test { at } => self.test(at.as_deref()).await,
            RecoverCommand::EndTest => self.end_test().await,
            RecoverCommand::Report => super::key::report("how far the copy is open", &self.recovery_report().await?),
            RecoverCommand::DropArrived => self.drop_arrived().await,
            RecoverCommand::Tell { words } => self.tell_strategy(words),
            RecoverCommand::Search(asked) => {
                super::key::report("what the search found", &self.recover_search(asked).await?)
            }
            RecoverCommand::SearchKey(asked) => {
                super::key::report("the search key is written", &self.recover_search_key(&asked)?)
            }
            RecoverCommand::Audit => super::key::report("the audit log of searches", &self.recover_audit()?),
        }
    }

    /// The copy, if this site keeps one.
    pub(super) fn keeper(&self, command: &'static str) -> Result<Arc<Replica>, CommandError> {
        match self.side() {
            Side::Secondary { replica, .. } => Ok(replica),
            Side::Primary(_) => Err(self.other_side(command, Role::Secondary)),
        }
    }

    async fn points_of(&self, replica: &Replica) -> Result<View, CommandError> {
        replica.ask(|done| ReplicaEvent::Points { done }).await.ok_or_else(super::recover::stopped)
    }

    /// The record of a point; `None` for the newest, which is meant where nothing is said.
    pub(super) async fn find_point(
        &self,
        replica: &Replica,
        text: Option<&str>,
    ) -> Result<Option<Sequence>, CommandError> {
        let Some(text) = text else { return Ok(None) };
        let now = self.shared.clock.now().wall;
        let asked = understood(text, now)
            .ok_or_else(|| CommandError::BadParameter { parameter: "at", reason: POINT_FORM.into() })?;
        if asked == Asked::Newest {
            return Ok(None);
        }
        let view = self.points_of(replica).await?;
        let found = view.known().find(&asked).map_err(|error| self.no_point(&error))?;
        let reader = replica.reader.clone();
        let settled = tokio::task::spawn_blocking(move || view.settle(found, &reader)).await;
        let settled = settled.map_err(|error| CommandError::Failed { reason: error.to_string(), next: None })?;
        settled.map(Some).map_err(|error| CommandError::Failed { reason: error.to_string(), next: None })
    }

    /// A named cut of the pair's group, and nothing else of that name: its number, and its record here.
    pub(super) async fn find_cut(
        &self,
        replica: &Replica,
        name: &CutName,
    ) -> Result<(CutNumber, Sequence), CommandError> {
        self.points_of(replica).await?.known().cut(name).map_err(|error| self.no_point(&error))
    }

    /// Has the copy's thread open a point; `None`: the newest by then.
    pub(super) async fn open_point(
        &self,
        replica: &Replica,
        at: Option<Sequence>,
        purpose: Purpose,
    ) -> Result<Opened, CommandError> {
        let opened = replica.ask(|done| ReplicaEvent::OpenPoint(Open { at, purpose, done })).await;
        opened.ok_or_else(super::recover::stopped)?.map_err(|error| match error {
            OpenError::Index(_) | OpenError::Log(_) | OpenError::Book(_) => {
                CommandError::Failed { reason: error.to_string(), next: None }
            }
            OpenError::Point(_)
            | OpenError::Pin(_)
            | OpenError::Tested(_)
            | OpenError::TakenOver
            | OpenError::NotWhole => self.no_point(&error),
        })
    }

    fn no_point(&self, why: &dyn std::error::Error) -> CommandError {
        let name = &self.config.name;
        CommandError::Refused { reason: why.to_string(), next: Some(format!("farseal recover points {name}")) }
    }

    /// What of the volume's newest state is not in what was opened.
    pub(super) fn told_of_point(&self, point: Sequence, through: Sequence) -> String {
        format!(
            "the volume is as it was at record {point}: what came after it, up to record {through}, stays sealed in this \
             site's log as long as it writes over this copy, and the other site gets the blocks back as they were"
        )
    }

    async fn pin(&self, at: &str, name: Option<CutName>) -> Result<CommandReply, CommandError> {
        let replica = self.keeper("recover pin")?;
        if let Some(reason) = name.as_ref().and_then(no_pin) {
            return Err(CommandError::BadParameter { parameter: "name", reason });
        }
        let point = self.find_point(&replica, Some(at)).await?;
        let own = CutName::new(at.trim()).ok().filter(|name| no_pin(name).is_none());
        let generated = || {
            let record =
                point.map_or_else(|| format!("at-{}", self.shared.clock.now().wall.0), |at| format!("record-{at}"));
            CutName::new(&record).ok()
        };
        let Some(name) = name.or(own).or_else(generated) else {
            return Err(CommandError::BadParameter { parameter: "name", reason: "a name for the pin".into() });
        };
        let opened = self.open_point(&replica, point, Purpose::Pin(name.clone())).await?;
        Ok(CommandReply {
            message: format!("record {} is pinned as {name}", opened.sequence),
            details: vec!["what it needs of the log stays, and so do the keys".into()],
            next: Some(format!("farseal recover unpin {} {name}, when it is not needed any more", self.config.name)),
            report: None,
        })
    }

    async fn unpin(&self, name: CutName) -> Result<CommandReply, CommandError> {
        let replica = self.keeper("recover unpin")?;
        let asked = name.clone();
        let gone =
            replica.ask(|done| ReplicaEvent::Unpin { name: asked, done }).await.ok_or_else(super::recover::stopped)?;
        let gone = gone.map_err(|error| CommandError::Failed {
            reason: format!("{name} is still pinned: {error}"),
            next: Some("mend the disk, and give the command again".into()),
        })?;
        if gone {
            return Ok(CommandReply::new(format!("{name} is pinned no more")));
        }
        let next = Some(format!("farseal recover points {}", self.config.name));
        Err(CommandError::Refused { reason: format!("no pin is called {name}"), next })
    }

    async fn test(&self, at: Option<&str>) -> Result<CommandReply, CommandError> {
        let replica = self.keeper("recover test")?;
        if self.taken().is_some() {
            let would = Some(format!("farseal status {}", self.config.name));
            return Err(self.wrong_state("recover test", "taken over already", would));
        }
        // A test of a pair with a layout opens only what searches find, whatever the strategy.
        if !self.makings.has_search_keys() {
            self.must_have_keys()?;
        }
        let point = self.find_point(&replica, at).await?;
        let opened = self.open_point(&replica, point, Purpose::Test).await?;
        let (sequence, name) = (opened.sequence, self.makings.test_name());
        let up = self.bring_up_test(&replica, opened, &name);
        if let Err(error) = up {
            self.makings.withdraw_test();
            let _ = replica.ask(|done| ReplicaEvent::EndTest { done }).await;
            return Err(CommandError::Failed { reason: format!("{error:#}"), next: None });
        }
        let mut details: Vec<String> = vec![
            "copying goes on; what is written to the export is kept apart, sealed under a key in memory alone".into(),
            "a restart of this node ends the test".into(),
        ];
        if self.config.layout.is_some() {
            details.push(format!(
                "the pair declares a layout: in the export is what `farseal recover search {}` finds; other reads get an error",
                self.config.name
            ));
        }
        Ok(CommandReply {
            message: format!("NBD export {name:?} is the volume as it was at record {sequence}, to read and to write"),
            details,
            next: Some(format!("farseal recover test {} --end, which throws away what was written", self.config.name)),
            report: None,
        })
    }

    fn bring_up_test(&self, replica: &Replica, opened: Opened, name: &str) -> anyhow::Result<()> {
        let Some(index) = opened.index else { anyhow::bail!("the copy's thread opened no index") };
        let base = opened.based.then(|| self.makings.image()).transpose()?;
        let block = self.config.block_bytes;
        let source = CopySource::at_point(
            (index, opened.based),
            (opened.reader, opened.ledger),
            Arc::clone(&replica.keyring),
            Arc::clone(&self.plugins),
            block,
        );
        let source = if self.config.layout.is_some() { source.by_search_alone() } else { source };
        let source = Arc::new(source);
        let place = opened.place.join("scratch");
        let volume = Arc::new(Scratch::create(&place, self.blocks, block, Arc::clone(&source), base)?);
        let description = format!("a test on pair {} at record {}", self.config.name, opened.sequence);
        self.shared.exports.add(name, Arc::new(TestedVolume::new(Arc::clone(&volume), description)))?;
        *self.makings.tested.lock().unwrap_or_else(PoisonError::into_inner) = Some(Tested { source, volume });
        tracing::info!(pair = self.config.name, record = opened.sequence.0, "a test is under way");
        Ok(())
    }

    async fn end_test(&self) -> Result<CommandReply, CommandError> {
        let replica = self.keeper("recover test --end")?;
        self.makings.withdraw_test();
        let ended = replica.ask(|done| ReplicaEvent::EndTest { done }).await.ok_or_else(super::recover::stopped)?;
        match ended {
            Some(sequence) => {
                Ok(CommandReply::new(format!("the test at record {sequence} is over: what was written is gone")))
            }
            None => Err(self.wrong_state(
                "recover test --end",
                "not tested",
                Some(format!("farseal recover test {}", self.config.name)),
            )),
        }
    }

    /// How many blocks of a point each epoch sealed, and when it was made.
    pub(super) async fn look_at(&self, replica: &Replica, at: Option<Sequence>) -> Result<LookedAt, CommandError> {
        let opened = self.open_point(replica, at, Purpose::Plan).await?;
        let (sequence, blocks) = (opened.sequence, self.blocks);
        let looked = tokio::task::spawn_blocking(move || {
            let (mut epochs, mut from) = (BTreeMap::<Epoch, BlockCount>::new(), Lba(0));
            let index = opened.index.as_ref().map(|index| index.read().unwrap_or_else(PoisonError::into_inner));
            while let Some(index) = index.as_ref().filter(|_| from.0 < blocks.0) {
                let found = page(index, &opened.ledger, from, blocks, sequence);
                from = super::recover::tally(&mut epochs, found);
            }
            let made = index.as_ref().and_then(|index| made(index, &opened.reader));
            LookedAt { sequence, epochs, made }
        });
        looked.await.map_err(|error| CommandError::Failed { reason: error.to_string(), next: None })
    }
}

/// What a point would come to.
pub(super) struct LookedAt {
    pub(super) sequence: Sequence,
    pub(super) epochs: BTreeMap<Epoch, BlockCount>,
    /// When the main site gave the newest write of it its place, if its record can be read.
    pub(super) made: Option<WallTime>,
}

fn made(index: &Index, reader: &LogReader) -> Option<WallTime> {
    let (lba, place) = index.newest()?;
    let part = place.part(reader, Extent::new(lba, BlockCount(1))?).ok().flatten()?;
    Some(part.header.wall)
}

fn report(view: &View, now: WallTime) -> PointsReport {
    let known = view.known();
    let oldest = view.points.moments().front().filter(|_| view.window);
    let pins = view.points.pins().iter().map(|pin| NamedPoint {
        name: pin.name.clone(),
        sequence: pin.sequence,
        at: pin.at,
        pinned: true,
        kept: true,
    });
    let cuts = view.cuts.iter().filter_map(|cut| {
        let sequence = cut.sequence?;
        let kept = known.point(sequence).is_ok();
        Some(NamedPoint { name: cut.name.clone(), sequence, at: cut.wall, pinned: false, kept })
    });
    let mut named: Vec<NamedPoint> = cuts.chain(pins).collect();
    named.sort_by_key(|point| (point.sequence, point.pinned));
    PointsReport {
        now,
        window: view.terms.map(|terms| terms.span),
        oldest: known.oldest(),
        oldest_at: oldest.map(|moment| moment.at),
        newest: view.newest,
        newest_at: view.made,
        room: view.room,
        shortened: view.shortened().map(|shortened| (shortened.why.to_string(), shortened.at)),
        catching_up: view
            .holes
            .iter()
            .filter(|hole| hole.until > known.oldest())
            .map(|hole| (hole.after, hole.until))
            .collect(),
        named,
        tested: view.tested,
    }
}

/// A point as an operator writes it: see [`POINT_FORM`].
fn understood(text: &str, now: WallTime) -> Option<Asked> {
    let text = text.trim();
    if ["now", "newest"].contains(&text) {
        return Some(Asked::Newest);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Asked::Sequence(Sequence(text.parse().ok()?)));
    }
    if let Some(age) = text.strip_suffix("-ago").and_then(|age| parse_span(age).ok()) {
        let Millis(age) = age;
        return Some(Asked::Time(WallTime(now.0.saturating_sub(age))));
    }
    if text.contains(':') {
        return utc(text).map(Asked::Time);
    }
    CutName::new(text).ok().map(Asked::Named)
}

/// What a name reads as wherever a point is written, if it is no name there: a cut or a pin of that name would never be meant.
pub(crate) fn reads_as(name: &CutName) -> Option<&'static str> {
    let text = name.as_str();
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some("a record's number");
    }
    match understood(text, WallTime(0)) {
        Some(Asked::Newest) => Some("the newest point"),
        Some(Asked::Time(_)) => Some("an age"),
        Some(Asked::Named(_) | Asked::Sequence(_)) | None => None,
    }
}

/// Why nothing is pinned under this name.
fn no_pin(name: &CutName) -> Option<String> {
    if name.as_str() == GROUP_PIN {
        return Some(format!("{name} is the pin of a takeover with the group: choose another name"));
    }
    reads_as(name).map(|other| format!("{name} reads as {other}: choose a name such as before-upgrade"))
}

/// `2026-11-29T11:30:00Z`, to the second or the minute, as milliseconds of Unix time.
fn utc(text: &str) -> Option<WallTime> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let number = |part: &str, width: usize| {
        let sound = part.len() == width && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<u64>().ok().filter(|_| sound)
    };
    let mut date = date.split('-');
    let (year, month, day) = (number(date.next()?, 4)?, number(date.next()?, 2)?, number(date.next()?, 2)?);
    let mut time = time.split(':');
    let (hour, minute) = (number(time.next()?, 2)?, number(time.next()?, 2)?);
    let second = time.next().map_or(Some(0), |second| number(second, 2))?;
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let february = if leap(year) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let days_in = months.get(usize::try_from(month.checked_sub(1)?).ok()?)?;
    let sound = year >= 1970 && (1..=*days_in).contains(&day) && hour < 24 && minute < 60 && second < 60;
    if !sound || date.next().is_some() || time.next().is_some() {
        return None;
    }
    let years: u64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let months: u64 = months.iter().take(usize::try_from(month - 1).ok()?).sum();
    let days = years + months + day - 1;
    Some(WallTime((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn points_are_understood_as_they_are_written() {
        let now = WallTime(10_000_000);
        let name = |text: &str| Some(Asked::Named(CutName::new(text).unwrap()));
        for (text, expected) in [
            ("now", Some(Asked::Newest)),
            ("newest", Some(Asked::Newest)),
            ("1234", Some(Asked::Sequence(Sequence(1234)))),
            ("15m-ago", Some(Asked::Time(WallTime(9_100_000)))),
            ("1970-01-02T00:00:01Z", Some(Asked::Time(WallTime(86_401_000)))),
            ("2000-03-01T00:00Z", Some(Asked::Time(WallTime(951_868_800_000)))),
            ("2026-11-29T11:30:00Z", Some(Asked::Time(WallTime(1_795_951_800_000)))),
            ("monday", name("monday")),
            ("long-ago", name("long-ago")),
            ("", None),
            ("2026-02-29T11:30:00Z", None),
            ("2026-13-01T11:30:00Z", None),
            ("2026-11-29T24:00:00Z", None),
            ("2026-11-29T11:30:00", None),
            ("2026-11-29T11:30:00:00Z", None),
            ("18446744073709551616", None),
            ("no name", None),
        ] {
            assert_eq!(understood(text, now), expected, "{text:?}");
        }
    }

    #[test]
    fn a_name_that_reads_as_another_point_is_no_name_for_a_cut_or_a_pin() {
        let name = |text| CutName::new(text).unwrap();
        for (text, other) in [
            ("now", Some("the newest point")),
            ("newest", Some("the newest point")),
            ("1234", Some("a record's number")),
            ("99999999999999999999", Some("a record's number")),
            ("15m-ago", Some("an age")),
            ("long-ago", None),
            ("monday", None),
            ("12.5", None),
        ] {
            assert_eq!(reads_as(&name(text)), other, "{text:?}");
            assert_eq!(no_pin(&name(text)).is_some(), other.is_some(), "{text:?}");
        }
        assert!(no_pin(&name(GROUP_PIN)).is_some(), "a takeover of the group would let it go");
    }
}
