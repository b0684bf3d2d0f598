//! The two engines that components run in, and the thread that makes deadlines pass.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;

use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use crate::limits;

/// Which of the two engines native code was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum EngineKind {
    /// Rotation, recovery, disguise: counts fuel, so that a limit falls at the same instruction everywhere.
    Decision,
    /// Ciphers: no fuel, which costs on every basic block; pooled, so that a new instance is cheap.
    Data,
}

impl EngineKind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Decision => "decision",
            Self::Data => "data",
        }
    }
}

/// Where the memories of cipher instances come from. The native code is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CipherInstances {
    /// From a pool of so many, which a used one goes back to: a new instance is cheap.
    Pooled(u32),
    /// From the system, each by itself. Where the process locks its memory: a pool gives pages back to the system to clear them, and
    /// the system refuses that of locked ones.
    Unpooled,
}

/// Why the engines could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The processor or the address space is not enough.
    #[error(
        "the {kind} engine for plugins cannot be made: {reason}. Check that the process may reserve address space \
         (ulimit -v) and runs on a 64-bit processor"
    )]
    Unavailable {
        /// `decision` or `data`.
        kind: &'static str,
        /// What the engine says.
        reason: String,
    },
    /// The system gives no more threads.
    #[error("the deadline thread for plugins cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// Both engines and the deadline clock; lives as long as any component made in them.
pub(crate) struct Engines {
    pub(crate) decision: Engine,
    pub(crate) data: Engine,
    ticker: Ticker,
}

impl Engines {
    pub(crate) fn new(instances: CipherInstances) -> Result<Arc<Self>, EngineError> {
        let decision = engine(EngineKind::Decision, instances)?;
        let data = engine(EngineKind::Data, instances)?;
        let ticker = Ticker::start(vec![decision.clone(), data.clone()])?;
        Ok(Arc::new(Self { decision, data, ticker }))
    }

    pub(crate) fn of(&self, kind: EngineKind) -> &Engine {
        match kind {
            EngineKind::Decision => &self.decision,
            EngineKind::Data => &self.data,
        }
    }
}

impl fmt::Debug for Engines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engines").field("ticker", &self.ticker).finish_non_exhaustive()
    }
}

fn engine(kind: EngineKind, instances: CipherInstances) -> Result<Engine, EngineError> {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(false)
        .epoch_interruption(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        // Determinism: NaN bits are otherwise the processor's choice.
        .cranelift_nan_canonicalization(true)
        .max_wasm_stack(limits::STACK_BYTES)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    match kind {
        EngineKind::Decision => {
            config.consume_fuel(true);
        }
        EngineKind::Data => {
            let CipherInstances::Pooled(cipher_instances) = instances else { return made(kind, &config) };
            let mut pool = PoolingAllocationConfig::new();
            pool.total_component_instances(cipher_instances)
                .total_core_instances(cipher_instances.saturating_mul(limits::CIPHER_CORE_INSTANCES))
                .total_memories(cipher_instances)
                .total_tables(cipher_instances.saturating_mul(limits::CIPHER_CORE_INSTANCES))
                .max_core_instances_per_component(limits::CIPHER_CORE_INSTANCES)
                .max_memories_per_component(1)
                .max_tables_per_component(limits::CIPHER_CORE_INSTANCES)
                .table_elements(limits::TABLE_ELEMENTS)
                .max_memory_size(limits::CIPHER.memory_bytes)
                // A slot that is given back is cleared before it is used again; none stays warm with old bytes.
                .max_unused_warm_slots(0);
            config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        }
    }
    made(kind, &config)
}

fn made(kind: EngineKind, config: &Config) -> Result<Engine, EngineError> {
    Engine::new(config).map_err(|error| EngineError::Unavailable { kind: kind.name(), reason: error.to_string() })
}

/// One thread that advances both engines' epochs. Wall time is only the backstop; see `limits::TICK`.
struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(engines: Vec<Engine>) -> Result<Self, EngineError> {
        let engines: Vec<_> = engines.iter().map(Engine::weak).collect();
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("plugin-deadline".into()).spawn(move || {
            while matches!(stopped.recv_timeout(limits::TICK), Err(RecvTimeoutError::Timeout)) {
                engines.iter().filter_map(|engine| engine.upgrade()).for_each(|engine| engine.increment_epoch());
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread runs none of our code that could panic; there is nobody to tell if it did.
            let _ended = thread.join();
        }
    }
}

impl fmt::Debug for Ticker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticker").field("running", &self.thread.is_some()).finish_non_exhaustive()
    }
}
