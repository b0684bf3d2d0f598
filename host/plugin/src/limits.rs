//! Every limit around a component, in one place, each with the reason for its size.

use std::time::Duration;

/// Largest component accepted, in bytes. A JavaScript component is 12 MiB, a Python one 18 MiB; both may plan.
pub const COMPONENT_BYTES: usize = 32 << 20;
/// Longest state text (`state-doc` in `types.wit`): one journal record must hold it.
pub const STATE_BYTES: usize = 64 << 10;
/// Longest settings text handed to a component; written by people, so far more than needed.
pub const CONFIG_BYTES: usize = 64 << 10;
/// Most decisions in one answer (`rotation.wit`, `recovery.wit`).
pub const DECISIONS: usize = 64;
/// Most `open` actions in one answer (`recovery.wit`).
pub const OPENS: usize = 16;
/// Most blocks in one `open` action (`recovery.wit`).
pub const OPEN_BLOCKS: u64 = 65_536;
/// Most extents in one `accessed` event (`recovery.wit`).
pub const ACCESSED: usize = 64;
/// Longest single text in an answer (a reason, an alert, an extension's JSON): it goes to a journal and a screen.
pub const TEXT_BYTES: usize = 4 << 10;
/// Most keys in a rotation context (`rotation.wit`).
pub const KEYS: usize = 16;
/// Most slots in one disguise plan, their largest length in blocks and longest gap (`disguise.wit`).
pub const SLOTS: usize = 64;
/// See [`SLOTS`].
pub const SLOT_BLOCKS: u32 = 256;
/// See [`SLOTS`]: one hour in milliseconds.
pub const SLOT_GAP_MS: u64 = 3_600_000;
/// Most transfers shown to a disguise (`disguise.wit`).
pub const SEEN: usize = 256;
/// Largest cover: 256 blocks of 64 KiB (`disguise.wit`, largest seal unit).
pub const COVER_BYTES: usize = 256 * (64 << 10);
/// Most records in one planned batch (`cipher.wit`).
pub const BATCH_RECORDS: usize = 1_024;
/// How far ahead one plan may be valid, in sequence numbers (`cipher.wit`).
pub const PLAN_AHEAD: u64 = 1 << 20;
/// Most bytes in one raw batch: what a worker seals at a time, and a quarter of the guest's memory.
pub const RAW_BATCH_BYTES: usize = 4 << 20;
/// Log lines in one call (`types.wit`).
pub const LOG_LINES: usize = 64;
/// Log bytes in one call: message, keys and values (`types.wit`).
pub const LOG_BYTES: usize = 8 << 10;
/// Longest name, version and summary of a component; longest settings schema.
pub const ABOUT_TEXT_BYTES: usize = 256;
/// See [`ABOUT_TEXT_BYTES`].
pub const SCHEMA_BYTES: usize = 64 << 10;
/// Most extension names that a component may say it understands, and most diagnostics it may give.
pub const NAMES: usize = 64;

/// Native stack for guest code. Policies recurse little; 512 KiB is a quarter of a thread's default.
pub const STACK_BYTES: usize = 512 << 10;
/// Table elements. Rust guests have a few hundred functions in theirs; JavaScript's engine has 10 000.
pub const TABLE_ELEMENTS: usize = 100_000;
/// Core instances and tables in one store: the smallest Rust guest has 3, Python's between 33 and 64.
pub const INSTANCES: usize = 64;
/// See [`INSTANCES`].
pub const TABLES: usize = 64;
/// Linear memories in one store; guests have one, componentised interpreters two or three.
pub const MEMORIES: usize = 8;
/// Component-model handles. The contract has no resources, so a guest needs none.
pub const HANDLES: usize = 64;

/// How often the deadline clock ticks. A deadline is met within one tick.
pub const TICK: Duration = Duration::from_millis(10);

/// What one call may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallLimits {
    /// Linear memory, in bytes, all memories together.
    pub memory_bytes: usize,
    /// Instructions, roughly; `None` where only the deadline counts. Exact and the same on every machine.
    pub fuel: Option<u64>,
    /// Wall time, a backstop far above what `fuel` allows.
    pub deadline: Duration,
    /// Bytes that one answer may carry from guest to host.
    pub answer_bytes: usize,
}

/// Rotation and recovery: one step takes 11 thousand units of fuel in Rust, 1.5 million in JavaScript.
pub const DECISION: CallLimits = CallLimits {
    memory_bytes: 64 << 20,
    fuel: Some(50_000_000),
    deadline: Duration::from_secs(2),
    answer_bytes: 1 << 20,
};

/// Disguise: walks over a cover of at most 16 MiB, a few units of fuel a byte.
pub const DISGUISE: CallLimits = CallLimits {
    memory_bytes: 96 << 20,
    fuel: Some(500_000_000),
    deadline: Duration::from_secs(5),
    answer_bytes: COVER_BYTES + (64 << 10),
};

/// Ciphers: one batch of at most 4 MiB, which a guest's ChaCha20 seals in 20 ms; the rest is for a loaded machine.
pub const CIPHER: CallLimits = CallLimits {
    memory_bytes: 16 << 20,
    fuel: None,
    deadline: Duration::from_secs(1),
    answer_bytes: RAW_BATCH_BYTES + (64 << 10),
};

/// Calls after which a cipher's instance is replaced, so that nothing it hoards lives long.
pub const WORKER_CALLS: u32 = 10_000;
/// Cipher instances alive at once in a node (workers times volumes with ciphers); each reserves address space.
pub const CIPHER_INSTANCES: u32 = 32;
/// Core instances and tables inside one cipher component; Rust's have 3 and 2.
pub const CIPHER_CORE_INSTANCES: u32 = 8;

/// Faults inside [`STRIKE_WINDOW_MS`] that put a component in quarantine.
pub const STRIKES: usize = 3;
/// Ten minutes in milliseconds.
pub const STRIKE_WINDOW_MS: u64 = 600_000;
