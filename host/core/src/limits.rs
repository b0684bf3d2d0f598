//! Every bound, with the sum that chose it. Constants are checked against each other at compile time.

use crate::units::{BlockCount, ByteLen, Millis};

/// Blocks in one record, and so the largest write that is all or nothing: 1 MiB of 4 KiB blocks. The largest write
/// that stock initiators issue is 32 MiB; cutting it into 1 MiB records keeps a record's tags in one page.
pub const RECORD_BLOCKS_MAX: u32 = 256;

/// Bytes of a record's blocks, whatever the block size: 1 MiB.
pub const RECORD_PAYLOAD_MAX: u32 = 1 << 20;

/// Key fields of a pair's record layout: a table's key and some columns that people ask for. Each costs 16 bytes a block.
pub const LAYOUT_FIELDS_MAX: usize = 8;

/// Bytes of a key field: the longest that half the smallest block holds.
pub const LAYOUT_FIELD_BYTES_MAX: u32 = 256;

/// Bytes of a key field's name.
pub const LAYOUT_NAME_BYTES_MAX: usize = 32;

/// Bytes of one record on disk and wire: header, a tag and at most eight search tags for each block, blocks.
pub const RECORD_BYTES_MAX: u32 = 96 + (16 + 16 * 8) * 2048 + RECORD_PAYLOAD_MAX;

/// The last sequence number that may be sealed in one generation. At 10 million records a second this is 11 months;
/// a subkey lasts for 2^20 of them, so nonces never come near their end. Beyond it sealing stops for good.
pub const SEQUENCE_MAX: u64 = 1 << 48;

/// Records in one commit: one guest call plans them, one write appends them.
pub const COMMIT_RECORDS_MAX: usize = 1024;

/// Bytes in one commit: 8 MiB seal in about a millisecond on one core, the most that one slow batch may delay
/// the next initiator.
pub const COMMIT_BYTES_MAX: u64 = 8 << 20;

/// Commits under way at once: one that is being sealed, one that waits behind it.
pub const COMMITS_IN_FLIGHT_MAX: usize = 2;

/// Bytes that initiators may have in the data buffer before reading more requests waits: 256 MiB is a second of a
/// 10 GbE link's writes at the rate that a disk destages them.
pub const BUFFER_BYTES_MAX: ByteLen = ByteLen(256 << 20);

/// Bytes that connections have put into the data buffer and the lane has not ordered yet: four commits, so that the
/// lane always has one to go on with.
pub const ACCEPTED_BYTES_MAX: ByteLen = ByteLen(4 * COMMIT_BYTES_MAX);

/// Bytes sent and not acknowledged on one lane: 64 MiB is 10 GbE for 50 ms, more than a round trip on one continent.
pub const WINDOW_BYTES_MAX: ByteLen = ByteLen(64 << 20);

/// Records sent and not acknowledged on one lane; the secondary remembers each that came out of order (40 bytes).
pub const WINDOW_RECORDS_MAX: u64 = 1 << 16;

/// Records of the copy's log that wait for the index and are remembered, some 200 bytes each and 50 MiB at most: four
/// windows. A group's point that is a second behind does with it up to 250 000 records a second; behind a gap, or
/// while a node is away, the rest is read from the log again when it may be offered.
pub const BACKLOG_RECORDS_MAX: usize = 4 * (1 << 16);

/// Records, and bytes, of the log that are read in one go for what was not remembered: some 10 ms of a disk that reads
/// 1 GB/s, for which the link waits.
pub const BACKLOG_STEP_RECORDS: u64 = 4096;
pub const BACKLOG_STEP_BYTES: ByteLen = ByteLen(16 << 20);

/// Records, and bytes, that may come before the next step is due: half of one, or reading would never catch up.
pub const BACKLOG_TURN_RECORDS: u64 = 2048;
pub const BACKLOG_TURN_BYTES: ByteLen = ByteLen(8 << 20);

/// Ranges of an acknowledgement: the most holes that a path's loss leaves in one round trip, and a frame of fixed size.
pub const ACK_RANGES_MAX: usize = 16;

/// Bytes of a frame: one records frame of 4 MiB and its header. A peer that announces more is dropped.
pub const FRAME_BYTES_MAX: u32 = 4 << 20;

/// Microseconds between two cells of a shaped path: half of it is what a record waits on average, and the timer of every
/// kernel keeps it.
pub const CELL_EVERY_US: u32 = 5_000;

/// Bytes of a cell at least: three acknowledgements, so that 600 a second come back on the thinnest path.
pub const CELL_BYTES_MIN: u32 = 1_024;

/// Bytes of a cell at most: 200 MiB/s a path.
pub const CELL_BYTES_MAX: u32 = 1 << 20;

/// The most bytes a second that a path may be shaped to.
pub const SHAPE_MAX: ByteLen = ByteLen(200 << 20);

/// Words of the dirty map in one frame: 2 MiB, half a frame, stand for 1 TiB of volume.
pub const DIFFERS_WORDS_MAX: usize = 1 << 18;

/// How long a planned change of sides may hold initiators' new writes before it is given up: the time of the last
/// records to the other site, and well below the 30 s after which initiators time out.
pub const SWAP_HOLD_MAX: Millis = Millis(5_000);

/// Bytes that a verification asks for at once: a record's worth, and a quarter of the frame that answers.
pub const VERIFY_RANGE_BYTES: ByteLen = ByteLen(1 << 20);

/// Bytes of an answer to it: the range in blocks of 512 bytes, each of a record of its own (header, tag, search tags, run).
pub const VERIFY_ANSWER_BYTES_MAX: usize = 8 + (1 << 20) + 2048 * (96 + 16 + 16 * 8 + 5);

/// Questions of one path that the copy may have under way: the one whose answer is being written, and the next.
pub const INSPECTIONS_MAX: usize = 2;

/// How long the primary waits for an answer before it asks again.
pub const VERIFY_ANSWER_WAIT: Millis = Millis(10_000);

/// Between two looks at a place that was busy, or that the copy's index had not reached: a group's cuts are further apart
/// than a round trip.
pub const VERIFY_AGAIN: Millis = Millis(200);

/// How long the copy's index may stay behind what it acknowledged before the place counts as busy.
pub const VERIFY_INDEX_WAIT: Millis = Millis(5_000);

/// How long a verification waits for a link before it ends.
pub const VERIFY_LINK_WAIT: Millis = Millis(60_000);

/// How often a place that was written meanwhile is looked at again before it counts as skipped.
pub const VERIFY_TRIES_MAX: u8 = 8;

/// Places that wait to be looked at again, about; with more of them no new range is begun.
pub const VERIFY_AGAIN_MAX: usize = 4096;

/// Extents that the report of a verification names; those beyond are counted.
pub const VERIFY_FOUND_MAX: usize = 1024;

/// Bytes of a component that a peer ships for the archive: Python guests are the largest, at about 20 MB.
pub const COMPONENT_BYTES_MAX: u64 = 64 << 20;

/// Bytes of a component in one frame: records wait behind it for a quarter of a second at 4 MiB/s.
pub const COMPONENT_PART_BYTES: usize = 1 << 20;

/// Bytes that one pass of compaction moves at most: two segments' worth, half a second of a disk that writes 500 MB/s.
pub const COMPACTION_LIVE_BYTES: ByteLen = ByteLen(256 << 20);

/// Segments that one pass looks at: 8 GiB of log, of which 256 MiB at most are still read.
pub const COMPACTION_SEGMENTS_MAX: usize = 64;

/// A compacted segment below this is small: a quarter of a segment of 128 MiB.
pub const COMPACTED_SMALL_BYTES: ByteLen = ByteLen(32 << 20);

/// Small ones that may lie about before they are put together: 256 MiB at most.
pub const COMPACTED_SMALL_MAX: usize = 8;

/// Moments that are noted in a window of retention: its oldest point follows the time in steps of a thousandth.
pub const MOMENTS_IN_WINDOW: u64 = 1024;

/// Bytes of log between two moments at most: a quarter of a segment of 128 MiB, so that a window without room gives a segment back.
pub const MOMENT_BYTES: ByteLen = ByteLen(32 << 20);

/// Moments that are remembered; every second goes when there are more, after a window was made longer: half a MiB.
pub const MOMENTS_MAX: usize = 4096;

/// The least time between two moments: what each costs is a small file made durable.
pub const MOMENT_SPAN_MIN: Millis = Millis(1_000);

/// Gaps of a copy that are remembered one by one, as what lies in them is no point: three days of one a minute, which is what a pair
/// without an order makes. The oldest become one.
pub const HOLES_MAX: usize = 4096;

/// Points of one copy that may be pinned: each keeps an index of its own in memory, where it differs from the others.
pub const PINS_MAX: usize = 16;

/// The longest window of retention: ten years.
pub const RETENTION_LONGEST: Millis = Millis(10 * 366 * 24 * 3_600 * 1_000);

/// The least room that a window of retention may be given: four segments of 128 MiB.
pub const RETENTION_BYTES_MIN: ByteLen = ByteLen(512 << 20);

/// Bytes of a journal segment. Trimming works in whole segments; recovery reads one at a time.
pub const JOURNAL_SEGMENT_BYTES: ByteLen = ByteLen(64 << 20);

/// Bytes of the journal before the oldest records go to the dirty map: 4 GiB, eight minutes of 8 MiB/s.
pub const JOURNAL_BYTES_MAX: ByteLen = ByteLen(4 << 30);

/// Bytes of the journal below which nothing can work: two segments.
pub const JOURNAL_BYTES_MIN: ByteLen = ByteLen(128 << 20);

/// Bytes destaged and not yet synced at home before a sync is due: bounds what a restart replays.
pub const HOME_DIRTY_BYTES_MAX: ByteLen = ByteLen(256 << 20);

/// How long home may stay behind the journal when little is written.
pub const HOME_SYNC_INTERVAL: Millis = Millis(5_000);

/// Bytes of one granule of the dirty map: 64 KiB, so that 1 TiB needs 2 MiB of map.
pub const OWED_GRANULE_BYTES: ByteLen = ByteLen(64 << 10);

/// Bytes of initial copy or resync under way at once; leaves three quarters of the window to initiators.
pub const COPY_BYTES_IN_FLIGHT_MAX: ByteLen = ByteLen(16 << 20);

/// Records that were given up and may have been sent, whose running hashes are kept with the dirty map, 40 bytes each and
/// 10 MiB at most: four windows. One was on its way when the order was given up, a second when the resync after that was;
/// the others are for a restart, which cannot tell what of its journal was sent.
pub const GIVEN_UP_MAX: usize = 4 * (1 << 16);

/// Connections of one pair's link: more than the queues of a network card spread over.
pub const PATHS_MAX: u16 = 16;

/// The least rate that a throttle may have: a record of 1 MiB then takes 16 s, less than an initiator's patience.
pub const RATE_MIN: ByteLen = ByteLen(64 << 10);

/// The greatest rate that a throttle may have, 1 TiB a second: beyond every link; keeps the bucket's sums in 64 bits.
pub const RATE_MAX: ByteLen = ByteLen(1 << 40);

/// What a throttle lets through at once after a rest: a tenth of a second's worth.
pub const RATE_BURST: Millis = Millis(100);

/// Percent of the journal's limit above which initiators are slowed down.
pub const HIGH_WATER_PERCENT: u8 = 80;

/// The delay of a write's answer when the journal is full: what a busy disk takes, so that no initiator gives up on it.
pub const PACE_MAX: Millis = Millis(20);

/// The longest delay of a write's answer that may be configured: far below the 30 s of Linux's SCSI timer.
pub const PACE_LONGEST: Millis = Millis(1_000);

/// Bytes that a copy may have to do again after a restart, beside what is in flight, or a 1024th of a larger
/// volume: the map, a bit for each granule, is written at most once for 512 times its own size of copies.
pub const COPY_REPEATED_BYTES_MAX: ByteLen = ByteLen(256 << 20);

/// Presets of one pair: more than a day has reasons to pause for.
pub const PRESETS_MAX: usize = 16;

/// The shortest pause, and the shortest time between two, that a preset may ask for.
pub const PRESET_SPAN_MIN: Millis = Millis(1_000);

/// The longest of both: a year.
pub const PRESET_SPAN_LONGEST: Millis = Millis(366 * 24 * 3_600 * 1_000);

/// How long the journal may wait with a sync when nobody waits for it.
pub const LAZY_SYNC_INTERVAL: Millis = Millis(1_000);

/// How long a pause rotation may hold sealing back before it is given up: an initiator's FLUSH waits no longer.
pub const PAUSE_ROTATION_MAX: Millis = Millis(2_000);

/// How long sealing may wait for an in-band key's delivery before the place in front of its start is used up: a round
/// trip and a sync of the farthest site. WRITEs are answered meanwhile; a FLUSH waits no longer than for a slow disk.
pub const KEY_DELIVERY_WAIT: Millis = Millis(500);

/// How long a key may wait for the escrow site's receipt before that is an alarm: a deposit is a round trip on a heartbeat
/// of a second unless set otherwise, and the keys after the first are deposited before they are asked for.
pub const ESCROW_WAIT: Millis = Millis(5_000);

/// A policy is woken by its own timer no sooner than so long after the call in which it asked (R-8 of the plugin contract).
pub const POLICY_WAKE_MIN: Millis = Millis(1_000);

/// Wait before a store that was full is tried again.
pub const STORE_RETRY_INTERVAL: Millis = Millis(1_000);

/// How long a FLUSH or FUA write waits for a journal that takes nothing (no room, no cipher, or no key) before it fails: below
/// the 30 s after which Linux times a SCSI command out, so that an initiator hears the cause before it guesses one.
pub const STALL_PATIENCE: Millis = Millis(20_000);

/// How long initiators wait for a secondary that gets records and acknowledges none, in the modes that wait for it: less than
/// [`STALL_PATIENCE`], for what they wait for is durable here by then. A secondary whose disk hangs still answers pings.
pub const ACK_PATIENCE: Millis = Millis(15_000);

/// Of a run of zeroes or a trim, whose bytes the buffer does not hold: what it counts for there is its length divided by this, for
/// the time that the home may take to carry it out. One of 4 GiB, the longest that NBD has, fills the buffer by itself.
pub const ZEROES_PER_BYTE: u64 = 16;
/// The least that it counts for: up to 256 entries of the buffer's maps.
pub const ZEROES_BYTES_MIN: ByteLen = ByteLen(16 << 10);

/// Records between a key record and the first that it seals, at least: one that carries the cut or the void.
pub const KEY_LEAD_MIN: u64 = 2;

/// Records between a key record and the first that it seals, at most; a window's worth.
pub const KEY_LEAD_MAX: u64 = WINDOW_RECORDS_MAX;

/// Epochs whose keys a node remembers at once for its policy; older ones are in the ledger.
pub const POLICY_KEYS_MAX: usize = 16;

/// Events that wait for the policy; more are merged, because a policy is told what is, not how often.
pub const POLICY_EVENTS_MAX: usize = 64;

/// How long a cut over several lanes waits until every lane has opened it. Withheld answers wait no longer; IBM's
/// window for the same is 50 ms, and a LAN round trip is well below 1 ms.
pub const CUT_OPEN_WAIT: Millis = Millis(20);

/// How long a lane withholds answers for a cut when it hears nothing more of it: the coordinator's wait, and as much
/// again for its word to come late. A lane that goes on by itself says so, and the cut is not confirmed.
pub const CUT_HOLD_MAX: Millis = Millis(2 * CUT_OPEN_WAIT.0);

/// How long a group that is to change sides waits until every lane can: blocks of an earlier takeover may have to be
/// opened first. Nothing is held meanwhile; an operator waits as long for a command.
pub const GROUP_READY_WAIT: Millis = Millis(50_000);

/// How long the lanes of a group stand still before their change of sides is decided or given up: what a lane waits by
/// itself, less a second for the decision to reach it.
pub const GROUP_STAND_WAIT: Millis = Millis(SWAP_HOLD_MAX.0 - 1_000);

/// How long a site that keeps a copy, and its witness, must at least not have heard the main site before it takes over by itself: a
/// restart of a node takes less.
pub const WITNESS_SILENCE_MIN: Millis = Millis(10_000);
/// And at most: more than a month is no rule for a disaster.
pub const WITNESS_SILENCE_MAX: Millis = Millis(31 * 24 * 3_600_000);
/// A witness's answer that takes longer is none: it is not fresh.
pub const WITNESS_ANSWER_MAX: Millis = Millis(10_000);
/// A witness that did not answer, or that heard the main site, is asked again after this at the earliest.
pub const WITNESS_AGAIN: Millis = Millis(5_000);
/// A main site that a witness did not hear for this many of the longest gaps between its words is silent.
pub const WITNESS_GAPS: u64 = 3;

/// How long the lanes of a group whose disaster was declared stand still for the other site's takeover before they go on: below
/// the 30 s after which initiators time out, with the cut before it.
pub const GROUP_DECLARED_WAIT: Millis = Millis(20_000);

/// How often a lane that has not begun to change sides with its group is told again.
pub const GROUP_TURN_AGAIN: Millis = Millis(1_000);

/// How long the lanes may take to say that they let go: as long as it takes to learn that one of them is gone.
pub const CUT_RELEASE_WAIT: Millis = Millis(2_000);

/// Between two cuts of a group unless the operator says otherwise: a recovery point four times a second.
pub const CUT_INTERVAL: Millis = Millis(250);

/// The least time between two cuts of a group: twice the wait for one.
pub const CUT_INTERVAL_MIN: Millis = Millis(40);

/// Cut numbers that are made durable in one go: at four cuts a second a write every four minutes.
pub const CUTS_RESERVED: u64 = 1024;

/// Writes under a hold that are remembered one by one, for reads that overlap them: 40 ms at a million a second.
pub const HELD_EXTENTS_MAX: usize = 40_000;

/// Cuts above the group's that a keeper remembers of a lane: beyond it only every second, fourth, .. is kept.
pub const CUTS_KEPT_MAX: usize = 256;

/// Named cuts that a keeper remembers; the oldest goes.
pub const CUTS_NAMED_MAX: usize = 64;

/// Bytes of a cut's name: six name records.
pub const CUT_NAME_MAX: usize = 42;

/// Cuts that operators may be waiting for in one group.
pub const CUTS_WANTED_MAX: usize = 16;

/// How often a cut that an operator wants is tried before it is refused.
pub const CUT_TRIES_MAX: u32 = 20;

/// Lanes of a group: what the count in a cut record holds.
pub const GROUP_LANES_MAX: usize = 65_535;

/// Alarms kept for the operator.
pub const ALARMS_MAX: usize = 64;

/// The least time between two rotations that a configuration may allow. A key costs two wraps, a signature and a record, and
/// the copy keeps its package for as long as it keeps what the key sealed: a hundred a second is what one lane carries
/// besides its writes.
pub const ROTATION_INTERVAL_MIN: Millis = Millis(10);

/// The least time between two rotations unless the configuration says otherwise, whatever the policy asks: a policy in a
/// loop costs at most this, which is 40 KiB of key records a second.
pub const ROTATION_INTERVAL_DEFAULT: Millis = Millis(100);

/// The greatest age of a key, whatever the policy says: SP 800-57's cryptoperiod for data keys is two years; a
/// remote copy has no reason for more than a month.
pub const KEY_AGE_MAX: Millis = Millis(30 * 24 * 3_600 * 1_000);

/// The most bytes that one key seals, whatever the policy says: 16 TiB keeps the multi-key advantage of
/// draft-irtf-cfrg-aead-limits below 2^-32 for ten years at 1 GB/s.
pub const KEY_BYTES_MAX: ByteLen = ByteLen(16 << 40);

/// Blocks of a key or cover record at most: the longest slot that a disguise may plan.
pub const SLOT_BLOCKS_MAX: u32 = RECORD_BLOCKS_MAX;

/// Bytes of a key record that travels in the slots of other records: four blocks of 16 KiB with their tags, which the remote
/// keeps in memory until the record stands. In pieces of 23 bytes it needs 2 851 records.
pub const CARRIAGE_BYTES_MAX: usize = 64 << 10;

/// Slots of a disguise's schedule that are fixed ahead: two plans of the longest kind.
pub const SLOTS_PLANNED_MAX: usize = 128;

/// With fewer slots than this the disguise is asked for more: it has the time of eight slots to answer.
pub const SLOTS_LOW: usize = 8;

/// A slot that nobody filled for this long is left out: the machine stood still, and slots would come in a burst.
pub const SLOT_LATE_MAX: Millis = Millis(1_000);

/// Covers on their way to their sham start; the oldest is forgotten. On an idle link those of [`KEY_GAP_MAX`] records
/// are never all under way: the mean is [`KEY_GAP_MEAN`].
pub const SHAMS_MAX: usize = 64;

/// One record in so many, beyond the lead, is where a disguised key comes into force: 14 s in all of an idle link whose
/// disguise has a slot every 2 s, less than an operator's patience.
pub const KEY_GAP_MEAN: u64 = 4;

/// Records beyond the lead at most: 20 times the mean is passed once in 5 * 10^8 keys.
pub const KEY_GAP_MAX: u64 = 20 * KEY_GAP_MEAN;

/// Keys and covers that were acknowledged in time, one after the other, before the lead is halved again: one in 32 may be
/// late, which holds sealing back for a round trip.
pub const KEY_LEAD_SHRINKS_AFTER: u32 = 32;

/// How long a pair that keeps no order remembers places before each is sent: a block that is written all the time is sent
/// once in it. Each round costs a key, which the copy keeps; a minute makes that half a million in a year.
pub const UNORDERED_INTERVAL: Millis = Millis(60_000);

/// The largest volume: addresses fit the index's words.
pub const VOLUME_BLOCKS_MAX: BlockCount = BlockCount(1 << 40);

const _: () = assert!(VERIFY_ANSWER_BYTES_MAX < FRAME_BYTES_MAX as usize / 2, "an answer fits a frame");
const _: () = assert!(RECORD_BYTES_MAX + 32 < FRAME_BYTES_MAX, "a frame holds at least one record and its slot");
const _: () = assert!(COMMIT_BYTES_MAX < JOURNAL_SEGMENT_BYTES.0, "a commit fits one segment");
const _: () = assert!(JOURNAL_SEGMENT_BYTES.0 * 2 <= JOURNAL_BYTES_MIN.0, "one segment fills while one is trimmed");
const _: () = assert!(COPY_BYTES_IN_FLIGHT_MAX.0 * 4 <= WINDOW_BYTES_MAX.0, "initiators keep most of the window");
const _: () = assert!(WINDOW_RECORDS_MAX == 1 << 16, "GIVEN_UP_MAX and BACKLOG_RECORDS_MAX count in windows");
const _: () = assert!(BACKLOG_TURN_RECORDS * 2 <= BACKLOG_STEP_RECORDS, "reading is faster than what comes");
const _: () = assert!(BACKLOG_TURN_BYTES.0 * 2 <= BACKLOG_STEP_BYTES.0, "reading is faster than what comes");
const _: () = assert!(CUT_HOLD_MAX.0 >= CUT_OPEN_WAIT.0, "a lane holds as long as the coordinator waits");
const _: () = assert!(CUT_INTERVAL_MIN.0 >= CUT_HOLD_MAX.0, "a cut is over before the next is due");
const _: () = assert!(KEY_LEAD_MIN >= 2, "a void must fit between a key record and its start");
