//! Small stories of the primary: what initiators are answered, what is sent, when a key comes into force.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use farseal_core::chain::{Chain, Digest};
use farseal_core::flow::{Flow, Way};
use farseal_core::frame::{Ack, Welcome};
use farseal_core::given_up::GivenUp;
use farseal_core::limits::{ACK_PATIENCE, KEY_DELIVERY_WAIT, SEQUENCE_MAX, STALL_PATIENCE, WINDOW_RECORDS_MAX};
use farseal_core::owed::OwedMap;
use farseal_core::primary::{
    Action, Alarm, Command, Decision, Divergence, Input, Mode, Output, Primary, Recovered, ReplyError, Room, Settings,
    StoreFault, What,
};
use farseal_core::record::Kind;
use farseal_core::rotation::{Held, How, Slot};
use farseal_core::units::{
    BlockBytes, BlockCount, Epoch, Extent, Generation, Instant, Lba, Now, Path, Sequence, Ticket, WallTime,
};

#[path = "support/pair.rs"]
mod pair;

use pair::{at, settings};

const BLOCKS: BlockCount = BlockCount(16);

/// One thing that happens, and all that the machine wants for it.
fn tell(primary: &mut Primary, input: Input) -> Vec<Output> {
    primary.handle(at(1_000), input);
    std::iter::from_fn(|| primary.poll_output()).collect()
}

/// A lane whose first key is in force: record 1.
fn started(paired: bool, recovered: Recovered) -> Primary {
    let epoch = recovered.newest_epoch.next();
    let flow = Flow { way: Way { paths: 2, ..Way::default() }, ..Flow::default() };
    let mut primary = Primary::new(at(1_000), Settings { paired, flow, ..settings(BLOCKS) }, recovered);
    while primary.poll_output().is_some() {}
    tell(&mut primary, prepared(epoch.0));
    committed(&mut primary, 1);
    synced(&mut primary);
    primary
}

fn prepared(epoch: u64) -> Input {
    Input::EpochPrepared { epoch: Epoch(epoch), slot: Slot { at: Instant(0), blocks: 1, chance: 0 } }
}

fn committed(primary: &mut Primary, records: usize) -> Vec<Output> {
    tell(primary, Input::Committed { digests: vec![Digest([7; 32]); records] })
}

fn synced(primary: &mut Primary) -> Vec<Output> {
    let through = primary.status().last;
    tell(primary, Input::JournalSynced { through })
}

fn write(ticket: u64, fua: bool) -> Input {
    let extent = Extent::new(Lba(ticket % BLOCKS.0), BlockCount(1)).unwrap();
    Input::Write { ticket: Ticket(ticket), what: What::Data, extent, fua }
}

fn welcome(durable: u64, chain: Chain) -> Input {
    let ack = Ack { durable: Sequence(durable), chain, ranges: Vec::new(), full: false };
    Input::Welcomed { path: Path(0), welcome: Welcome { generation: Generation(1), ack } }
}

fn replies(outputs: &[Output]) -> Vec<(u64, Result<(), ReplyError>)> {
    let reply = |output: &Output| {
        let Output::Reply { ticket, result } = output else { return None };
        Some((ticket.0, *result))
    };
    outputs.iter().filter_map(reply).collect()
}

fn kinds(outputs: &[Output]) -> Vec<Kind> {
    let commits = outputs.iter().filter_map(|output| {
        let Output::Commit { records, .. } = output else { return None };
        Some(records)
    });
    commits.flatten().map(|record| record.kind).collect()
}

#[test]
fn a_flush_waits_for_the_journal_and_a_write_does_not() {
    let mut primary = started(true, Recovered::fresh());
    assert_eq!(replies(&tell(&mut primary, write(1, false))), [(1, Ok(()))]);
    assert_eq!(replies(&tell(&mut primary, write(2, true))), []);
    assert_eq!(replies(&tell(&mut primary, Input::Flush { ticket: Ticket(3) })), []);
    assert_eq!(replies(&committed(&mut primary, 1)), [], "appended is not durable");
    assert_eq!(replies(&committed(&mut primary, 1)), []);
    assert_eq!(replies(&synced(&mut primary)), [(2, Ok(())), (3, Ok(()))]);
}

#[test]
fn a_policy_may_not_ask_for_a_key_that_nobody_waits_for() {
    let mut primary = started(true, Recovered::fresh());
    let decisions = vec![Decision { id: 7, action: Action::Rotate(Some(How::AtOnce)) }];
    let outputs = tell(&mut primary, Input::PolicyDecided { decisions });
    let prepares = |output: &Output| matches!(output, Output::PrepareEpoch { .. });
    assert!(!outputs.iter().any(prepares), "{outputs:?}");
    let outputs = tell(&mut primary, Input::Operator(Command::Rotate(How::AtOnce)));
    assert!(outputs.iter().any(prepares), "an operator may: {outputs:?}");
}

/// It was asked again a millisecond later, for ever, and each call was written down twice.
#[test]
fn a_policy_that_asks_for_the_next_moment_each_time_it_is_asked_is_woken_once_a_second() {
    let mut primary = started(true, Recovered::fresh());
    let first = Now { wall: WallTime(50_000), ..Now::default() };
    let answer = |primary: &mut Primary, now: Now, at: Option<u64>| {
        let decisions = at.map(|at| Decision { id: 7, action: Action::WakeAt(WallTime(at)) }).into_iter().collect();
        primary.handle(now, Input::PolicyDecided { decisions });
        std::iter::from_fn(|| primary.poll_output()).collect::<Vec<_>>()
    };
    let hears = |outputs: &[Output]| outputs.iter().any(|output| matches!(output, Output::AskPolicy { .. }));
    while hears(&answer(&mut primary, first, None)) {}
    primary.handle(first, Input::Operator(Command::RequestRotation));
    while primary.poll_output().is_some() {}
    // A second from the call, however long the policy took to answer it.
    let later = Now { wall: WallTime(50_020), ..first };
    assert!(hears(&answer(&mut primary, later, Some(50_021))), "it is told that it was clamped");
    assert_eq!(primary.status().wake_at, Some(WallTime(51_000)));
    // A second from the call, or later, is as it was asked for.
    for at in [51_020, 90_000] {
        assert!(!hears(&answer(&mut primary, later, Some(at))), "{at} was clamped");
        assert_eq!(primary.status().wake_at, Some(WallTime(at)));
    }
}

#[test]
fn nothing_is_acknowledged_once_the_journal_has_failed() {
    let mut primary = started(true, Recovered::fresh());
    tell(&mut primary, write(1, true));
    assert_eq!(replies(&tell(&mut primary, Input::JournalSyncFailed)), [(1, Err(ReplyError::Io))]);
    assert_eq!(replies(&tell(&mut primary, write(2, false))), [(2, Err(ReplyError::Io))]);
    assert_eq!(replies(&tell(&mut primary, Input::Flush { ticket: Ticket(3) })), [(3, Err(ReplyError::Io))]);
}

#[test]
fn a_journal_without_room_refuses_writes_at_once_and_a_flush_after_a_while_and_loses_nothing() {
    let patience = STALL_PATIENCE.0;
    for (fault, room, error) in [
        (StoreFault::Full, [Room::Full, Room::Full], ReplyError::NoSpace),
        (StoreFault::Unsealed, [Room::Open, Room::Failed], ReplyError::Io),
    ] {
        let mut primary = started(true, Recovered::fresh());
        assert_eq!(replies(&tell(&mut primary, write(1, false))), [(1, Ok(()))]);
        tell(&mut primary, Input::Flush { ticket: Ticket(2) });
        let full = tell(&mut primary, Input::CommitFailed { fault });
        assert_eq!((replies(&full), primary.room()), (vec![], room[0]), "{fault:?}");
        let mut at_ms = |ms| {
            primary.handle(at(1_000 + ms), Input::Tick);
            std::iter::from_fn(|| primary.poll_output()).collect::<Vec<Output>>()
        };
        let again = at_ms(1_000);
        assert!(again.contains(&Output::RetryCommit), "{again:?}");
        assert_eq!(replies(&at_ms(patience - 1)), [], "{fault:?}");
        assert_eq!(replies(&at_ms(patience + 1_000)), [(2, Err(error))]);
        assert_eq!(primary.room(), room[1], "{fault:?}");
        let now = at(2_000 + patience);
        let mut tell_now = |input| {
            primary.handle(now, input);
            std::iter::from_fn(|| primary.poll_output()).collect::<Vec<Output>>()
        };
        let taken = tell_now(Input::Committed { digests: vec![Digest([7; 32])] });
        assert_eq!(kinds(&taken), [], "the write that was accepted is in the journal now, and only once");
        assert_eq!(replies(&tell_now(Input::Flush { ticket: Ticket(3) })), []);
        assert_eq!(replies(&tell_now(Input::JournalSynced { through: Sequence(2) })), [(3, Ok(()))]);
        assert_eq!(primary.room(), Room::Open);
    }
}

#[test]
fn without_a_key_a_flush_fails_after_a_while_and_nothing_accepted_is_lost() {
    let flow = Flow { way: Way { paths: 2, ..Way::default() }, ..Flow::default() };
    let mut primary = Primary::new(at(1_000), Settings { paired: true, flow, ..settings(BLOCKS) }, Recovered::fresh());
    let mut at_ms = |ms, input| {
        primary.handle(at(1_000 + ms), input);
        let outputs: Vec<Output> = std::iter::from_fn(|| primary.poll_output()).collect();
        (outputs, primary.room())
    };
    let patience = STALL_PATIENCE.0;
    let (outputs, _) = at_ms(0, write(1, false));
    assert_eq!(replies(&outputs), [(1, Ok(()))], "it is in the buffer");
    let (outputs, room) = at_ms(patience - 1, Input::Flush { ticket: Ticket(2) });
    assert_eq!((replies(&outputs), room), (vec![], Room::Open));
    let (outputs, room) = at_ms(patience, Input::Tick);
    assert_eq!((replies(&outputs), room), (vec![(2, Err(ReplyError::Io))], Room::Failed));
    let (outputs, room) = at_ms(patience + 1, prepared(1));
    let said = "what was accepted has its place behind the key";
    assert_eq!((kinds(&outputs), room), (vec![Kind::Key, Kind::Data], Room::Open), "{said}");
}

/// A lane whose first key the secondary holds, too, with one path up.
fn linked() -> Primary {
    let mut primary = started(true, Recovered::fresh());
    tell(&mut primary, Input::Attaching { path: Path(0) });
    tell(&mut primary, welcome(0, Chain::START));
    tell(&mut primary, acked(1, after(Chain::START)));
    primary
}

fn after(chain: Chain) -> Chain {
    chain.after(Digest([7; 32]))
}

fn acked(durable: u64, chain: Chain) -> Input {
    let ack = Ack { durable: Sequence(durable), chain, ranges: Vec::new(), full: false };
    Input::Acked { path: Path(0), ack }
}

#[test]
fn a_block_is_owed_from_its_write_to_its_acknowledgement() {
    let mut primary = linked();
    let all = Extent::new(Lba(0), BLOCKS).unwrap();
    let blocks = |first, blocks| vec![Extent::new(Lba(first), BlockCount(blocks)).unwrap()];
    assert_eq!(primary.owed_runs(all), []);
    tell(&mut primary, write(3, false));
    tell(&mut primary, write(4, false));
    assert_eq!(primary.owed_runs(all), blocks(3, 2));
    committed(&mut primary, 1);
    committed(&mut primary, 1);
    synced(&mut primary);
    tell(&mut primary, acked(2, after(after(Chain::START))));
    assert_eq!(primary.owed_runs(all), blocks(4, 1));
}

#[test]
fn each_mode_answers_when_it_says() {
    // When a WRITE and a FLUSH behind it are answered: 0 at once, 1 durable in the journal, 2 durable at the secondary.
    for (mode, written, flushed) in [(Mode::Async, 0, 1), (Mode::SyncFlush, 0, 2), (Mode::Sync, 2, 2)] {
        let mut primary = linked();
        tell(&mut primary, Input::Operator(Command::SetMode(mode)));
        assert!(primary.status().mode_kept, "{mode}");
        let mut begun = tell(&mut primary, write(1, false));
        begun.extend(tell(&mut primary, Input::Flush { ticket: Ticket(2) }));
        begun.extend(committed(&mut primary, 1));
        let steps = [begun, synced(&mut primary), tell(&mut primary, acked(2, after(after(Chain::START))))];
        let steps: Vec<_> = steps.iter().map(|outputs| replies(outputs)).collect();
        let answered = |ticket| steps.iter().position(|step| step.contains(&(ticket, Ok(()))));
        assert_eq!((answered(1), answered(2)), (Some(written), Some(flushed)), "{mode}");
    }
}

#[test]
fn a_link_that_is_lost_stops_no_initiator_and_is_said() {
    let mut primary = linked();
    tell(&mut primary, Input::Operator(Command::SetMode(Mode::Sync)));
    tell(&mut primary, write(1, false));
    committed(&mut primary, 1);
    assert_eq!(replies(&synced(&mut primary)), []);
    let lost = tell(&mut primary, Input::PathLost { path: Path(0) });
    assert_eq!(replies(&lost), [(1, Ok(()))], "it is durable here");
    assert!(lost.contains(&Output::Alarm(Alarm::ModeNotKept(Mode::Sync))), "{lost:?}");
    assert!(!primary.status().mode_kept);
    assert_eq!(replies(&tell(&mut primary, write(2, false))), [], "nothing is answered that is only in memory");
    committed(&mut primary, 1);
    assert_eq!(replies(&synced(&mut primary)), [(2, Ok(()))]);
    tell(&mut primary, Input::Attaching { path: Path(0) });
    tell(&mut primary, welcome(1, after(Chain::START)));
    assert!(primary.status().mode_kept);
}

#[test]
fn a_secondary_that_takes_records_and_acknowledges_none_is_not_waited_for_without_end() {
    let mut primary = linked();
    tell(&mut primary, Input::Operator(Command::SetMode(Mode::Sync)));
    tell(&mut primary, write(1, false));
    committed(&mut primary, 1);
    assert_eq!(replies(&synced(&mut primary)), []);
    let later = |primary: &mut Primary, after: u64| {
        primary.handle(at(1_000 + after), Input::Tick);
        std::iter::from_fn(|| primary.poll_output()).collect::<Vec<_>>()
    };
    assert_eq!(primary.poll_timeout(at(1_000)).unwrap().0, Instant(1_000 + ACK_PATIENCE.0));
    assert_eq!(replies(&later(&mut primary, ACK_PATIENCE.0 - 1)), []);
    let over = later(&mut primary, ACK_PATIENCE.0);
    assert_eq!(replies(&over), [(1, Ok(()))], "it is durable here");
    assert!(over.contains(&Output::Alarm(Alarm::ModeNotKept(Mode::Sync))), "{over:?}");
    // It goes on: so does the mode.
    let ack = acked(2, after(after(Chain::START)));
    primary.handle(at(1_000 + ACK_PATIENCE.0), ack);
    assert!(primary.status().mode_kept);
}

#[test]
fn zeroes_that_wait_for_the_home_fill_the_buffer_as_data_do() {
    for (blocks, most) in [(BLOCKS.0, 16_384), (1 << 20, 2)] {
        let mut primary = Primary::new(at(1_000), settings(BlockCount(1 << 20)), Recovered::fresh());
        let mut taken = 0;
        while primary.room() == Room::Open {
            let extent = Extent::new(Lba(0), BlockCount(blocks)).unwrap();
            let what = if taken % 2 == 0 { What::Zero } else { What::Trim };
            tell(&mut primary, Input::Write { ticket: Ticket(taken), what, extent, fua: false });
            taken += 1;
        }
        assert!(taken <= most, "{taken} runs of {blocks} blocks");
        assert_eq!(primary.room(), Room::Wait);
    }
}

#[test]
fn a_full_secondary_is_named_and_sent_nothing_until_it_tries_again() {
    let mut primary = linked();
    let told = |durable, full| Ack { durable: Sequence(durable), chain: after(Chain::START), ranges: Vec::new(), full };
    let sends = |outputs: &[Output]| outputs.iter().filter(|output| matches!(output, Output::Send { .. })).count();
    tell(&mut primary, Input::PathLost { path: Path(0) });
    tell(&mut primary, Input::Attaching { path: Path(0) });
    // A full secondary closes its paths, so the welcome is where the primary hears of it.
    let welcome = Welcome { generation: Generation(1), ack: told(1, true) };
    let welcomed = tell(&mut primary, Input::Welcomed { path: Path(0), welcome });
    assert!(welcomed.contains(&Output::Alarm(Alarm::SecondaryFull)), "{welcomed:?}");
    tell(&mut primary, write(1, false));
    committed(&mut primary, 1);
    assert_eq!(sends(&synced(&mut primary)), 0);
    assert_eq!(sends(&tell(&mut primary, Input::Acked { path: Path(0), ack: told(1, false) })), 1);
}

#[test]
fn an_in_band_key_waits_for_its_delivery_but_not_for_ever() {
    let mut primary = started(true, Recovered::fresh());
    tell(&mut primary, Input::Attaching { path: Path(0) });
    tell(&mut primary, welcome(0, Chain::START));
    primary.handle(at(5_000), Input::Operator(Command::Rotate(How::InBand)));
    while primary.poll_output().is_some() {}
    assert_eq!(kinds(&tell(&mut primary, prepared(2))), [Kind::Key], "and no void behind it");
    committed(&mut primary, 1);
    assert_eq!(kinds(&tell(&mut primary, write(1, false))), [Kind::Data], "there is a record's room before its start");
    let held = tell(&mut primary, write(2, false));
    assert_eq!((kinds(&held), replies(&held)), (vec![], vec![(2, Ok(()))]), "the last place waits, initiators do not");
    assert_eq!(primary.status().held, Some(Held::Delivery));
    primary.handle(at(1_000 + KEY_DELIVERY_WAIT.0), Input::Tick);
    let late: Vec<Output> = std::iter::from_fn(|| primary.poll_output()).collect();
    assert_eq!(kinds(&late), [Kind::Void, Kind::Data], "and not for ever");
}

#[test]
fn a_gap_is_sent_however_far_it_is_from_the_last_acknowledgement() {
    let last = Sequence(10 * WINDOW_RECORDS_MAX);
    let owed = Some(OwedMap::full(BLOCKS, BlockBytes::DEFAULT));
    let given_up = Some(given_up(&[5]));
    let mut primary =
        started(true, Recovered { last, homed: last, owed, given_up, newest_epoch: Epoch(7), ..Recovered::fresh() });
    tell(&mut primary, Input::Attaching { path: Path(0) });
    tell(&mut primary, welcome(5, Chain([5; 32])));
    let outputs = tell(&mut primary, prepared(9));
    let stamp = outputs.iter().find_map(|output| {
        let Output::PersistOwed { stamp, .. } = output else { return None };
        Some(*stamp)
    });
    let outputs = tell(&mut primary, Input::OwedPersisted { stamp: stamp.unwrap() });
    assert_eq!(kinds(&outputs), [Kind::Gap, Kind::Key], "the key behind a gap is a fresh one");
    committed(&mut primary, 2);
    let sent = synced(&mut primary);
    assert!(sent.iter().any(|output| matches!(output, Output::Send { .. })), "{sent:?}");
}

/// As [`welcome`] tells it.
fn given_up(sequences: &[u8]) -> GivenUp {
    let mut given_up = GivenUp::default();
    sequences.iter().for_each(|at| given_up.push(Sequence(u64::from(*at)), Chain([*at; 32])));
    given_up
}

#[test]
fn a_primary_that_is_behind_believes_only_a_mark_to_which_it_has_brought_the_secondary() {
    let old = None;
    for (kept, mark, chain, found) in [
        (Some(given_up(&[3, 5, 6])), 5, Chain([5; 32]), None),
        (Some(given_up(&[3, 5, 6])), 5, Chain([6; 32]), Some(Divergence::Chain(Sequence(5)))),
        (Some(given_up(&[3, 5, 6])), 4, Chain([4; 32]), Some(Divergence::Unsent(Sequence(4)))),
        (Some(given_up(&[3, 5, 6])), 7, Chain([7; 32]), Some(Divergence::Unsent(Sequence(7)))),
        (Some(given_up(&[])), 5, Chain([5; 32]), Some(Divergence::Unsent(Sequence(5)))),
        // A map of an older version does not say: its word is taken, as it was then.
        (old, 4, Chain([4; 32]), None),
    ] {
        let owed = Some(OwedMap::full(BLOCKS, BlockBytes::DEFAULT));
        let last = Sequence(9);
        let recovered = Recovered { last, homed: last, owed, given_up: kept.clone(), ..Recovered::fresh() };
        let mut primary = started(true, recovered);
        tell(&mut primary, Input::Attaching { path: Path(0) });
        tell(&mut primary, welcome(mark, chain));
        assert_eq!(primary.status().diverged, found, "{kept:?}: {mark} {chain}");
        assert_eq!(primary.status().acked == Sequence(mark), found.is_none());
    }
}

#[test]
fn what_was_sent_before_it_was_given_up_is_kept_with_the_map() {
    let mut primary = started(true, Recovered::fresh());
    tell(&mut primary, Input::Attaching { path: Path(0) });
    tell(&mut primary, welcome(0, Chain::START));
    tell(&mut primary, write(1, false));
    committed(&mut primary, 1);
    synced(&mut primary);
    tell(&mut primary, write(2, false));
    committed(&mut primary, 1);
    tell(&mut primary, Input::Operator(Command::CopyAll));
    let bytes = primary.encode_owed().unwrap();
    let (_, kept) = OwedMap::decode_with(&bytes, BLOCKS, BlockBytes::DEFAULT).unwrap();
    let known = |at| kept.as_ref().unwrap().at(Sequence(at)).is_some();
    assert_eq!([0, 1, 2, 3].map(known), [true, true, true, false], "record 3 was never sent");
}

#[test]
fn a_late_welcome_of_another_path_is_no_rollback() {
    let mut primary = started(true, Recovered::fresh());
    for path in [Path(0), Path(1)] {
        tell(&mut primary, Input::Attaching { path });
    }
    tell(&mut primary, welcome(0, Chain::START));
    let ack = Ack { durable: Sequence(1), chain: Chain::START.after(Digest([7; 32])), ranges: Vec::new(), full: false };
    tell(&mut primary, Input::Acked { path: Path(0), ack });
    let ack = Ack { durable: Sequence(0), chain: Chain::START, ranges: Vec::new(), full: false };
    tell(
        &mut primary,
        Input::Welcomed { path: Path(1), welcome: Welcome { generation: Generation(1), ack: ack.clone() } },
    );
    assert_eq!((primary.status().diverged, primary.status().link_paths), (None, 2));

    tell(&mut primary, Input::PathLost { path: Path(1) });
    tell(&mut primary, Input::Attaching { path: Path(1) });
    tell(&mut primary, Input::Welcomed { path: Path(1), welcome: Welcome { generation: Generation(1), ack } });
    assert!(primary.status().diverged.is_some(), "below what was known when the path asked, the store lost something");
}

#[test]
fn at_the_last_sequence_number_sealing_stops_and_what_has_its_place_is_safe() {
    let end = Recovered { last: Sequence(SEQUENCE_MAX - 3), homed: Sequence(SEQUENCE_MAX - 3), ..Recovered::fresh() };
    let end = Recovered { acked: end.last, ..end };
    let mut primary = started(true, end);
    assert_eq!(primary.status().last, Sequence(SEQUENCE_MAX - 2), "its key");
    assert_eq!(kinds(&tell(&mut primary, write(1, true))), [Kind::Data]);
    committed(&mut primary, 1);
    assert_eq!(kinds(&tell(&mut primary, write(2, true))), [Kind::Data]);
    assert_eq!(primary.status().last, Sequence(SEQUENCE_MAX));
    let beyond = tell(&mut primary, write(3, true));
    assert_eq!(kinds(&beyond), [], "there is no number for it");
    committed(&mut primary, 1);
    assert!(primary.status().alarms.iter().any(|(_, alarm)| *alarm == Alarm::SequenceEnd));
    assert_eq!(replies(&synced(&mut primary)), [(1, Ok(())), (2, Ok(())), (3, Err(ReplyError::Io))]);
    assert_eq!(primary.room(), Room::Failed);
    // A restart finds the same end.
    let last = Sequence(SEQUENCE_MAX);
    let found = Recovered { last, homed: last, acked: last, newest_epoch: Epoch(1), ..Recovered::fresh() };
    let mut primary = Primary::new(at(1_000), settings(BLOCKS), found);
    assert_eq!(kinds(&tell(&mut primary, prepared(2))), []);
    assert_eq!(primary.room(), Room::Failed);
}
