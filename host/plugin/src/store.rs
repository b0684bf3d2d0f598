//! The world around one instance: its limits, its log, and the reading of how it died.

use std::fmt;

use wasmtime::{Engine, PoolConcurrencyLimitError, ResourceLimiter, Store, Trap};
use zeroize::Zeroizing;

use crate::about;
use crate::bindings::cipher_raw::farseal::plugin::raw;
use crate::bindings::rotation_policy::farseal::plugin::{log, types};
use crate::fault::{CallError, Called, FaultClass, LogLine, escaped};
use crate::limits::{self, CallLimits};

/// What host functions see of the call in hand.
pub(crate) struct HostState {
    limiter: Limiter,
    logs: Vec<LogLine>,
    log_bytes: usize,
    /// The first host rule that the guest broke, if any: the trap itself does not say.
    broken: Option<&'static str>,
    /// Key for the raw batch in hand, only while `raw-cipher.seal` or `open` runs.
    subkey: Option<Zeroizing<[u8; 32]>>,
}

impl fmt::Debug for HostState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostState")
            .field("limiter", &self.limiter)
            .field("logs", &self.logs.len())
            .finish_non_exhaustive()
    }
}

impl HostState {
    pub(crate) fn set_subkey(&mut self, subkey: Option<Zeroizing<[u8; 32]>>) {
        self.subkey = subkey;
    }
}

/// A store with all limits set; a deadline must be given anew for each call in it.
pub(crate) fn store(engine: &Engine, limits: &CallLimits) -> Store<HostState> {
    let limiter = Limiter { left: limits.memory_bytes, limit: limits.memory_bytes, exceeded: None };
    let state = HostState { limiter, logs: Vec::new(), log_bytes: 0, broken: None, subkey: None };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(limits.answer_bytes);
    store.set_max_component_handles(limits::HANDLES);
    begin_call(&mut store, limits);
    store
}

/// Sets fuel and deadline for the next call and empties the log.
pub(crate) fn begin_call(store: &mut Store<HostState>, limits: &CallLimits) {
    if let Some(fuel) = limits.fuel {
        // Fails only in an engine that counts no fuel; a store without fuel then ends the call at once.
        let _set = store.set_fuel(fuel);
    }
    // One more than the quotient: the first tick may come at once.
    let ticks = limits.deadline.as_millis() / limits::TICK.as_millis() + 1;
    store.set_epoch_deadline(u64::try_from(ticks).unwrap_or(u64::MAX >> 1));
    let state = store.data_mut();
    state.logs.clear();
    state.log_bytes = 0;
    state.broken = None;
}

/// Units of fuel used since the call began.
pub(crate) fn fuel_used(store: &Store<HostState>, limits: &CallLimits) -> u64 {
    limits.fuel.map_or(0, |fuel| fuel.saturating_sub(store.get_fuel().unwrap_or(0)))
}

/// The answer of a typed call with its log and cost, or the reading of its end.
pub(crate) fn finish<T>(
    store: &mut Store<HostState>,
    limits: &CallLimits,
    function: &'static str,
    result: wasmtime::Result<Result<T, types::PluginError>>,
) -> Result<Called<T>, CallError> {
    let fuel = fuel_used(store, limits);
    let logs = std::mem::take(&mut store.data_mut().logs);
    match result.map(|answer| answer.map_err(bounded)) {
        Ok(Ok(value)) => Ok(Called { value, logs, fuel }),
        Ok(Err(types::PluginError::Internal(text))) => Err(CallError::Fault {
            class: FaultClass::Panic,
            function,
            detail: format!("the plugin found itself at fault: {}", escaped(&text)),
            logs,
        }),
        Ok(Err(error)) => Err(CallError::Refused { function, error, logs }),
        Err(error) if error.is::<PoolConcurrencyLimitError>() => Err(CallError::NoRoom { function }),
        Err(error) => {
            let (class, detail) = read_death(store.data(), limits, &logs, &error);
            Err(CallError::Fault { class, function, detail, logs })
        }
    }
}

/// A refusal's texts go to a journal and a screen like an answer's, and are cut to the same length: what refuses is not asked
/// for a shorter text.
fn bounded(error: types::PluginError) -> types::PluginError {
    use types::PluginError::{Internal, InvalidConfig, InvalidState, Rejected, Unsupported};
    let cut = |mut text: String| {
        text.truncate(text.floor_char_boundary(limits::TEXT_BYTES));
        text
    };
    match error {
        InvalidConfig(found) => InvalidConfig(about::capped(found)),
        InvalidState(text) => InvalidState(cut(text)),
        Unsupported(text) => Unsupported(cut(text)),
        Rejected(text) => Rejected(cut(text)),
        Internal(text) => Internal(cut(text)),
    }
}

/// A fault found by the host in an answer that came back whole.
pub(crate) fn fault<T>(
    called: Called<T>,
    class: FaultClass,
    function: &'static str,
    detail: impl Into<String>,
) -> CallError {
    CallError::Fault { class, function, detail: detail.into(), logs: called.logs }
}

fn read_death(
    state: &HostState,
    limits: &CallLimits,
    logs: &[LogLine],
    error: &wasmtime::Error,
) -> (FaultClass, String) {
    if let Some(rule) = state.broken {
        return (FaultClass::Protocol, rule.into());
    }
    if let Some(what) = state.limiter.exceeded {
        return (FaultClass::Memory, what.explain(&state.limiter));
    }
    let Some(trap) = error.downcast_ref::<Trap>() else {
        // Checks on values that cross the border have no trap code of their own.
        let text = format!("{error:?}");
        let detail = if text.contains("fuel allocated for hostcalls") {
            format!(
                "the answer is larger than {} KiB; keep answers within the contract's bounds",
                limits.answer_bytes >> 10
            )
        } else if text.contains("utf-8") || text.contains("UTF-8") {
            "a text in the answer is not UTF-8; texts of the contract are UTF-8".into()
        } else {
            "the answer does not have the contract's form (a pointer outside memory, a case or a character that does not exist)".into()
        };
        return (FaultClass::Protocol, detail);
    };
    if *trap == Trap::OutOfFuel {
        let fuel = limits.fuel.unwrap_or(0);
        return (
            FaultClass::Fuel,
            format!("used up its {fuel} units of fuel; look for a loop without end, or do less in one call"),
        );
    }
    if *trap == Trap::Interrupt {
        return (
            FaultClass::Timeout,
            format!("not done after {} ms; do less in one call", limits.deadline.as_millis()),
        );
    }
    if *trap == Trap::UnreachableCodeReached {
        return (FaultClass::Panic, panic_detail(logs));
    }
    if [Trap::StackOverflow, Trap::MemoryOutOfBounds, Trap::TableOutOfBounds].contains(trap) {
        return (
            FaultClass::Memory,
            format!("{}; look for recursion without end, or a bad pointer", trap_words(*trap)),
        );
    }
    (FaultClass::Panic, format!("stopped by the processor's rules: {}", trap_words(*trap)))
}

fn trap_words(trap: Trap) -> &'static str {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "foreign and non-exhaustive; the rest needs no words of its own"
    )]
    match trap {
        Trap::StackOverflow => "the call stack is used up",
        Trap::MemoryOutOfBounds => "touched memory that it does not have",
        Trap::TableOutOfBounds => "called through a table entry that does not exist",
        Trap::IntegerDivisionByZero => "division by zero",
        Trap::IntegerOverflow => "integer overflow",
        Trap::BadConversionToInteger => "a number that fits no integer",
        Trap::IndirectCallToNull | Trap::BadSignature => "a call through a bad function pointer",
        _ => "an instruction that has no result",
    }
}

/// The SDK logs a panic's text at level error under the key `panic` before it traps.
fn panic_detail(logs: &[LogLine]) -> String {
    let said = logs
        .iter()
        .rev()
        .filter(|line| line.level == log::Level::Error)
        .find_map(|line| line.fields.iter().find(|(key, _)| key == "panic").map(|(_, value)| value));
    match said {
        Some(text) => format!("panicked: {}", escaped(text)),
        None => {
            "ended itself without a word (`unreachable`): in Rust a panic hook that logs field `panic` would tell why; what carries \
             an interpreter did something that nothing catches, such as to ask for a clock, chance or a file, or to return a value of \
             another type than the contract's"
                .into()
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Exceeded {
    Memory,
    Table,
}

impl Exceeded {
    fn explain(self, limiter: &Limiter) -> String {
        match self {
            Self::Memory => format!(
                "wanted more than its {} MiB of memory; keep less between the lines of one call",
                limiter.limit >> 20
            ),
            Self::Table => format!("wanted a table of more than {} entries", limits::TABLE_ELEMENTS),
        }
    }
}

#[derive(Debug)]
struct Limiter {
    left: usize,
    limit: usize,
    exceeded: Option<Exceeded>,
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        let Some(left) = self.left.checked_sub(more) else {
            self.exceeded = Some(Exceeded::Memory);
            // Ends the call here: an allocator that is told "no" aborts, and that looks like a panic.
            return Err(wasmtime::Error::msg("memory limit"));
        };
        self.left = left;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired > limits::TABLE_ELEMENTS {
            self.exceeded = Some(Exceeded::Table);
            return Err(wasmtime::Error::msg("table limit"));
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        limits::INSTANCES
    }

    fn tables(&self) -> usize {
        limits::TABLES
    }

    fn memories(&self) -> usize {
        limits::MEMORIES
    }
}

impl types::Host for HostState {}

impl log::Host for HostState {
    fn emit(&mut self, level: log::Level, message: String, fields: Vec<log::Field>) -> wasmtime::Result<()> {
        let bytes: usize =
            message.len() + fields.iter().map(|field| field.key.len() + field.value.len()).sum::<usize>();
        self.log_bytes = self.log_bytes.saturating_add(bytes);
        if self.logs.len() >= limits::LOG_LINES || self.log_bytes > limits::LOG_BYTES {
            let rule = "logged more than 64 lines or 8 KiB in one call; log what an operator needs, once";
            self.broken = Some(rule);
            return Err(wasmtime::Error::msg("log limit"));
        }
        let fields = fields.into_iter().map(|field| (field.key, field.value)).collect();
        self.logs.push(LogLine { level, message, fields });
        Ok(())
    }
}

impl raw::Host for HostState {
    fn subkey(&mut self) -> wasmtime::Result<Vec<u8>> {
        match &self.subkey {
            Some(key) => Ok(key.to_vec()),
            None => {
                self.broken =
                    Some("asked for a subkey outside `raw-cipher.seal` and `raw-cipher.open`; keys exist only there");
                Err(wasmtime::Error::msg("no key here"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_cut_to_the_bound_of_texts_between_two_characters() {
        use types::PluginError::{Internal, InvalidState, Rejected, Unsupported};
        for refusal in [InvalidState, Unsupported, Rejected, Internal] {
            let long = format!("x{}", "\u{e9}".repeat(500_000));
            let cut = format!("x{}", "\u{e9}".repeat(2_047));
            assert_eq!(bounded(refusal(long)), refusal(cut));
            assert_eq!(bounded(refusal("short".into())), refusal("short".into()));
        }
        let found = types::Diagnostic { path: "/a".into(), message: "x".repeat(9_000), help: None };
        let types::PluginError::InvalidConfig(kept) = bounded(types::PluginError::InvalidConfig(vec![found; 200]))
        else {
            panic!("another refusal");
        };
        assert!(kept.len() == limits::NAMES && kept.iter().all(|one| one.message.len() == limits::ABOUT_TEXT_BYTES));
    }
}
