//! Deliberate breaks of the driver, each of which a checker must notice: a checker that never fires proves nothing.

/// How the driver is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutation {
    /// A flush is answered when it comes, not when the journal is durable.
    FlushAnsweredEarly,
    /// In a synchronous mode a flush is answered when the journal is durable.
    SyncAnsweredEarly,
    /// Records go on the link when they are appended, durable or not.
    UnsyncedSent,
    /// After a restart the old key seals on, in the same incarnation.
    EpochReused,
    /// A key goes into the order without the escrow site's receipt.
    ReceiptNotAwaited,
    /// After a restart the incarnation is the one before.
    IncarnationReused,
    /// What waits for room in the journal is sealed anew when it is tried again.
    SealedAgain,
    /// A key that was carried in slots is sealed anew when it takes its place.
    CarriedKeySealedAgain,
    /// After its disk was set back a site draws the keys that it drew before.
    KeyOfTheSnapshot,
    /// A site that takes over seals on under the last key of the generation before.
    StaleKeySealsOn,
    /// The machine is told of a greater age than keys may reach.
    AgeNotWatched,
    /// The machine is told of more bytes than a key may seal.
    BytesNotWatched,
    /// The machine is told of a shorter interval between rotations than there must be.
    IntervalNotWatched,
    /// The machine is not shown that a record's control bit was cleared.
    FlagNotShown,
    /// After a restart the dirty map is taken for empty.
    DirtyBitsForgotten,
    /// After a restart nobody knows what was given up: the secondary is believed wherever it says that it is.
    GivenUpForgotten,
    /// The secondary's index takes records in as they come.
    AppliedOutOfOrder,
    /// The secondary offers everything durable while a gap is open.
    OpenGapServed,
    /// Records are sealed under the next key before its start.
    SealedTooEarly,
    /// The secondary takes a key that it cannot open.
    RefusedKeyTaken,
    /// Copies stay in the data buffer after they are destaged.
    BufferLeaked,
    /// What is read for a copy lacks what initiators wrote last.
    CopyReadWithoutTheBuffer,
    /// The secondary's log is acknowledged before it is synced.
    LogAckedEarly,
    /// The primary never hears that time has passed.
    TicksLost,
    /// A site that was taken over from forgets it in a crash.
    FenceForgotten,
    /// That this site hands over is not kept before the other one is asked.
    HandOverNotKept,
    /// What was handed over is taken back as the generation that the other site was asked to take.
    TakenBackAsAsked,
    /// A takeover goes on before the new generation is kept, and a crash forgets it.
    GenerationNotKept,
    /// A keeper does not tell where its base differs.
    DiffersNotTold,
    /// A takeover over a base that differs goes on as if that were the copy.
    BaseTakenForTheCopy,
    /// A site that goes on with its own old history does not know where that differs from the other's.
    OwnHistoryNotOwed,
    /// The presets do not hear of an operator's pause.
    OperatorsPauseNotTold,
    /// A damaged record of the journal is passed over.
    DamageIgnored,
    /// In an ordered transfer records go over a path that stands by.
    SpareUsed,
    /// The machine is not told of throttles.
    ThrottleIgnored,
    /// A sync of the journal that failed is asked for again, and its answer trusted.
    JournalSyncRetried,
    /// The same, of the volume's home.
    HomeSyncRetried,
    /// The same, of the secondary's log.
    LogSyncRetried,
    /// The journal's disk says that a sync is done and keeps nothing of it: no node survives that, and a checker sees it.
    SyncLies,
    /// The keeper does not look which live blocks need the epochs that are to be destroyed.
    LiveNotScanned,
    /// It does not ask whether what is not offered yet needs them.
    UnofferedNotAsked,
    /// It judges by a scan that is older than what it offers.
    ScanOutOfDate,
    /// It does not ask whether it keeps a history of its own.
    OwnHistoryNotAsked,
    /// A restart of the keeper forgets its floor, and reads its log from the beginning.
    FloorForgotten,
    /// A restart of the keeper knows its floor, and reads its log from the beginning.
    CheckpointForgotten,
    /// Compaction does not know that earlier points are kept.
    WindowNotKept,
    /// Compaction does not know of pins.
    PinsNotKept,
    /// The writing site destroys its own keys while its journal needs them.
    OwnKeysDestroyedEarly,
    /// A keeper takes over by a word of another generation.
    OldWordTaken,
    /// The operator is told that this site is fenced when the keeper has said that it takes over.
    ToldByTheAnswer,
    /// The remote's silence is enough.
    WitnessNotAsked,
    /// A witness's statement counts for a question that it does not answer.
    OldStatementTaken,
    /// No time passes for the rule while the witness is asked and its statement is kept.
    StatementNeverOld,
    /// The takeover begins before the statement is durable.
    StatementNotKept,
    /// A witness that begins anew remembers what it heard before.
    WitnessRemembers,
    /// The rule does not know how seldom the main site speaks to the witness.
    BeatNotAsked,
    /// What comes and goes between two looks at the link is not heard of.
    LinkLookedAtAlone,
    /// The copy's machine takes over by the rule's word, whatever it has heard since.
    MachineNotAsked,
}

impl Mutation {
    /// These break how a disaster is declared.
    pub const OF_DECLARING: [Self; 2] = [Self::OldWordTaken, Self::ToldByTheAnswer];

    /// And these the witness rule.
    pub const OF_THE_WITNESS: [Self; 8] = [
        Self::WitnessNotAsked,
        Self::OldStatementTaken,
        Self::StatementNeverOld,
        Self::StatementNotKept,
        Self::WitnessRemembers,
        Self::BeatNotAsked,
        Self::LinkLookedAtAlone,
        Self::MachineNotAsked,
    ];

    #[must_use]
    pub fn is_of_declaring(self) -> bool {
        Self::OF_DECLARING.contains(&self)
    }

    #[must_use]
    pub fn is_of_the_witness(self) -> bool {
        Self::OF_THE_WITNESS.contains(&self)
    }

    /// It breaks how epochs are retired.
    #[must_use]
    pub fn is_of_retiring(self) -> bool {
        let all = [
            Self::LiveNotScanned,
            Self::UnofferedNotAsked,
            Self::ScanOutOfDate,
            Self::OwnHistoryNotAsked,
            Self::FloorForgotten,
            Self::CheckpointForgotten,
            Self::OwnKeysDestroyedEarly,
        ];
        all.contains(&self)
    }
}
