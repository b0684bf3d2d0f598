//! Ciphers: stacks described once at load, batches planned by pooled workers, and an own algorithm's bytes passed
//! through the guest. Keys, nonces and associated data are the host's (`vault`).

use std::fmt;
use std::sync::Arc;

use wasmtime::Store;
use zeroize::Zeroizing;

use crate::bindings::cipher_plan::CipherPlan;
use crate::bindings::cipher_plan::exports::farseal::plugin::cipher::{Batch, Description, Layer, Plan, Stack, Suite};
use crate::bindings::cipher_raw::CipherRaw;
use crate::bindings::cipher_raw::exports::farseal::plugin::raw_cipher::Unit;
use crate::bindings::rotation_policy::farseal::plugin::types::PluginError;
use crate::fault::{CallError, Called, FaultClass};
use crate::host::sealed::Assemble;
use crate::host::{Parts, Plugin};
use crate::kind::Kind;
use crate::limits;
use crate::load_error::Problem;
use crate::store::{HostState, begin_call, fault, finish, store};
use crate::vault::guest::{GuestFault, GuestLayer, GuestUnit};
use crate::vault::stack::{self, KeyLabel, StackError, StackList};
use crate::world::{CipherPlanWorld, CipherRawWorld, Facts, Guest, World, died};

/// Bytes of a nonce in a raw unit (`cipher.wit`).
const NONCE_BYTES: usize = 12;

/// A loaded cipher. Work goes through [`Cipher::worker`].
#[derive(Debug)]
pub struct Cipher {
    plan: Guest<CipherPlanWorld>,
    raw: Option<Guest<CipherRawWorld>>,
    facts: Facts,
    description: Description,
    stacks: StackList,
}

impl Plugin for Cipher {
    const KIND: Kind = Kind::Cipher;

    fn facts(&self) -> &Facts {
        &self.facts
    }
}

impl Assemble for Cipher {
    fn assemble(parts: Parts<'_>) -> Result<Self, Problem> {
        let raw = if parts.is_raw() { Some(parts.guest(limits::CIPHER)?.0) } else { None };
        let (plan, facts) = parts.guest::<CipherPlanWorld>(limits::CIPHER)?;
        let description = plan
            .call("cipher.describe-stacks", |exports, store| {
                exports.farseal_plugin_cipher().call_describe_stacks(store, &facts.config)
            })
            .map_err(died("cipher.describe-stacks"))?
            .value;
        let stacks = stack_list(&description.stacks, raw.is_some()).map_err(|reason| Problem::BadStacks { reason })?;
        Ok(Self { plan, raw, facts, description, stacks })
    }
}

/// A component that sealed once, to open what it sealed.
#[derive(Debug, Clone)]
pub struct OpeningCipher(Arc<Cipher>);

impl OpeningCipher {
    pub(crate) const fn of(cipher: Arc<Cipher>) -> Self {
        Self(cipher)
    }

    /// A layer with an instance of its own: one for whatever must not learn of another's bytes.
    #[must_use]
    pub fn layer(&self) -> Box<dyn GuestLayer + Send> {
        Box::new(OpenOnly(Arc::clone(&self.0).worker()))
    }
}

/// A worker that opens what its component sealed, and seals nothing.
#[derive(Debug)]
struct OpenOnly(CipherWorker);

impl GuestLayer for OpenOnly {
    fn component(&self) -> [u8; 32] {
        self.0.component()
    }

    fn seal(&mut self, _: &[u8; 32], _: &mut [GuestUnit<'_>]) -> Result<(), GuestFault> {
        Err(GuestFault("this component was kept to open what it sealed".into()))
    }

    fn open(&mut self, subkey: &[u8; 32], units: &mut [GuestUnit<'_>]) -> Result<(), GuestFault> {
        GuestLayer::open(&mut self.0, subkey, units)
    }
}

impl Cipher {
    /// For [`OpenOnly`]: the epochs that it sealed say their stacks themselves.
    pub(crate) fn to_open(parts: &Parts<'_>) -> Result<Self, Problem> {
        let (raw, _) = parts.unsettled::<CipherRawWorld>(limits::CIPHER)?;
        let (plan, facts) = parts.unsettled::<CipherPlanWorld>(limits::CIPHER)?;
        let none = |error: StackError| Problem::BadStacks { reason: error.to_string() };
        let label = KeyLabel::new("data").map_err(none)?;
        let stack = stack::Stack::new(&[stack::Layer { suite: stack::Suite::Aes256Gcm, label }]).map_err(none)?;
        let description = Description { stacks: Vec::new() };
        Ok(Self { plan, raw: Some(raw), facts, description, stacks: StackList::from(stack) })
    }

    /// The stacks that plans choose from: for these settings always the same, within R-30.
    #[must_use]
    pub const fn description(&self) -> &Description {
        &self.description
    }

    /// The same as the vault takes them.
    #[must_use]
    pub const fn stacks(&self) -> &StackList {
        &self.stacks
    }

    /// Whether it has an algorithm of its own.
    #[must_use]
    pub const fn is_raw(&self) -> bool {
        self.raw.is_some()
    }

    /// A worker with an instance of its own. One for each thread and, for a raw cipher, each volume: what an
    /// instance has seen of one volume's bytes must not reach another's.
    #[must_use]
    pub const fn worker(self: Arc<Self>) -> CipherWorker {
        CipherWorker { cipher: self, live: None }
    }
}

/// One instance kept from call to call; replaced after [`limits::WORKER_CALLS`] calls and after any error.
pub struct CipherWorker {
    cipher: Arc<Cipher>,
    live: Option<Live>,
}

struct Live {
    store: Store<HostState>,
    plan: CipherPlan,
    raw: Option<CipherRaw>,
    calls: u32,
}

/// Which way a raw batch goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Seal,
    Open,
}

impl fmt::Debug for CipherWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CipherWorker")
            .field("digest", &self.cipher.facts.digest)
            .field("live", &self.live.is_some())
            .finish()
    }
}

impl CipherWorker {
    /// The cipher that this worker works for.
    #[must_use]
    pub const fn cipher(&self) -> &Arc<Cipher> {
        &self.cipher
    }

    /// Chooses a stack for every record of a batch of 1 to 1 024.
    ///
    /// # Errors
    /// A refusal or a fault of the cipher; [`CallError::Input`] when the batch passes the contract's bounds.
    pub fn plan_batch(&mut self, batch: &Batch) -> Result<Called<Plan>, CallError> {
        const FUNCTION: &str = "cipher.plan-batch";
        if batch.records.is_empty() || batch.records.len() > limits::BATCH_RECORDS {
            return Err(CallError::Input { function: FUNCTION, what: "the batch does not have 1 to 1 024 records" });
        }
        let config = self.cipher.facts.config.clone();
        let called = self.call(FUNCTION, |live| {
            live.plan.farseal_plugin_cipher().call_plan_batch(&mut live.store, batch, &config)
        })?;
        match broken_plan(&called.value, batch, self.cipher.description.stacks.len()) {
            Some(rule) => {
                self.live = None;
                Err(fault(called, FaultClass::Protocol, FUNCTION, rule))
            }
            None => Ok(called),
        }
    }

    /// Seals a raw batch of at most [`limits::RAW_BATCH_BYTES`] with the component's own algorithm.
    ///
    /// # Errors
    /// As for [`CipherWorker::plan_batch`]; other lengths than came in are a fault of class `invariant`.
    pub fn seal(&mut self, subkey: &[u8; 32], units: &[Unit]) -> Result<Called<Vec<Vec<u8>>>, CallError> {
        self.raw("raw-cipher.seal", Way::Seal, subkey, units)
    }

    /// Undoes [`CipherWorker::seal`].
    ///
    /// # Errors
    /// As for [`CipherWorker::seal`].
    pub fn open(&mut self, subkey: &[u8; 32], units: &[Unit]) -> Result<Called<Vec<Vec<u8>>>, CallError> {
        self.raw("raw-cipher.open", Way::Open, subkey, units)
    }

    fn raw(
        &mut self,
        function: &'static str,
        way: Way,
        subkey: &[u8; 32],
        units: &[Unit],
    ) -> Result<Called<Vec<Vec<u8>>>, CallError> {
        if self.cipher.raw.is_none() {
            return Err(CallError::Input { function, what: "the cipher has no algorithm of its own" });
        }
        check_units(function, units)?;
        let called = self.call(function, |live| {
            let Some(raw) = &live.raw else { return Ok(Err(PluginError::Unsupported("no raw cipher".into()))) };
            live.store.data_mut().set_subkey(Some(Zeroizing::new(*subkey)));
            let guest = raw.farseal_plugin_raw_cipher();
            let result = match way {
                Way::Seal => guest.call_seal(&mut live.store, units),
                Way::Open => guest.call_open(&mut live.store, units),
            };
            live.store.data_mut().set_subkey(None);
            result
        })?;
        let same = called.value.len() == units.len()
            && called.value.iter().zip(units).all(|(out, unit)| out.len() == unit.bytes.len());
        if !same {
            self.live = None;
            return Err(fault(
                called,
                FaultClass::Invariant,
                function,
                "the answer has other lengths than the batch (R-40)",
            ));
        }
        Ok(called)
    }

    fn call<T>(
        &mut self,
        function: &'static str,
        call: impl FnOnce(&mut Live) -> wasmtime::Result<Result<T, PluginError>>,
    ) -> Result<Called<T>, CallError> {
        let mut live = match self.live.take() {
            Some(live) if live.calls < limits::WORKER_CALLS => live,
            old => {
                drop(old);
                self.start(function)?
            }
        };
        live.calls += 1;
        begin_call(&mut live.store, &limits::CIPHER);
        let result = call(&mut live);
        let called = finish(&mut live.store, &limits::CIPHER, function, result)?;
        self.live = Some(live);
        Ok(called)
    }

    fn start(&self, function: &'static str) -> Result<Live, CallError> {
        let guest = &self.cipher.plan;
        let mut store = store(guest.engines.of(guest.kind), &limits::CIPHER);
        let started = guest.pre.instantiate(&mut store).and_then(|instance| {
            let plan = CipherPlanWorld::exports(&guest.indices, &mut store, &instance)?;
            let raw = self.cipher.raw.as_ref().map(|raw| CipherRawWorld::exports(&raw.indices, &mut store, &instance));
            Ok(Ok((plan, raw.transpose()?)))
        });
        let (plan, raw) = finish(&mut store, &limits::CIPHER, function, started)?.value;
        Ok(Live { store, plan, raw, calls: 0 })
    }

    fn layer(&mut self, way: Way, subkey: &[u8; 32], units: &mut [GuestUnit<'_>]) -> Result<(), GuestFault> {
        let mut pieces: Vec<Piece<'_>> = units.iter_mut().flat_map(whole_blocks).flatten().collect();
        let mut rest = pieces.as_mut_slice();
        while !rest.is_empty() {
            let mut bytes = 0_usize;
            let fit = rest.iter().take(limits::BATCH_RECORDS).take_while(|piece| {
                bytes = bytes.saturating_add(piece.bytes.len());
                bytes <= limits::RAW_BATCH_BYTES
            });
            // One piece that is too long on its own is passed on and refused with its own error.
            let fit = fit.count().max(1);
            let (batch, later) = rest.split_at_mut(fit);
            rest = later;
            let owned: Vec<Unit> = batch
                .iter()
                .map(|piece| Unit {
                    nonces: piece.nonces.to_vec(),
                    block_bytes: piece.block_bytes,
                    bytes: piece.bytes.to_vec(),
                })
                .collect();
            let done = match way {
                Way::Seal => self.seal(subkey, &owned),
                Way::Open => self.open(subkey, &owned),
            };
            let done = done.map_err(|error| GuestFault(Box::new(error)))?;
            for (piece, bytes) in batch.iter_mut().zip(&done.value) {
                piece.bytes.copy_from_slice(bytes);
            }
        }
        Ok(())
    }
}

/// Whole blocks on their way to a guest.
struct Piece<'a> {
    nonces: &'a [u8],
    block_bytes: u32,
    bytes: &'a mut [u8],
}

/// A unit's whole blocks, and a shorter last block as a piece of its own; nothing of an empty body.
fn whole_blocks<'a>(unit: &'a mut GuestUnit<'_>) -> [Option<Piece<'a>>; 2] {
    let block = usize::try_from(unit.block_len).unwrap_or(usize::MAX).max(1);
    let blocks = unit.body.len() / block;
    let (whole, tail) = unit.body.split_at_mut(blocks * block);
    let nonces = unit.nonces.split_at_checked(blocks * NONCE_BYTES);
    // Too few nonces is the caller's error; `check_units` finds it when all of them come with the blocks.
    let (first, last) = nonces.unwrap_or((unit.nonces, &[]));
    let tail_bytes = u32::try_from(tail.len()).unwrap_or(u32::MAX);
    [
        (!whole.is_empty()).then_some(Piece { nonces: first, block_bytes: unit.block_len, bytes: whole }),
        (!tail.is_empty()).then_some(Piece { nonces: last, block_bytes: tail_bytes, bytes: tail }),
    ]
}

/// The vault's inner layer: batches are split to what one call may carry, and lengths are as they came.
impl GuestLayer for CipherWorker {
    fn component(&self) -> [u8; 32] {
        self.cipher.facts.digest.0
    }

    fn seal(&mut self, subkey: &[u8; 32], units: &mut [GuestUnit<'_>]) -> Result<(), GuestFault> {
        self.layer(Way::Seal, subkey, units)
    }

    fn open(&mut self, subkey: &[u8; 32], units: &mut [GuestUnit<'_>]) -> Result<(), GuestFault> {
        self.layer(Way::Open, subkey, units)
    }
}

fn check_units(function: &'static str, units: &[Unit]) -> Result<(), CallError> {
    let bytes = units.iter().fold(0_usize, |sum, unit| sum.saturating_add(unit.bytes.len()));
    if bytes > limits::RAW_BATCH_BYTES || units.len() > limits::BATCH_RECORDS {
        return Err(CallError::Input { function, what: "the batch is more than 4 MiB or 1 024 units" });
    }
    let fits = |unit: &Unit| {
        let block = usize::try_from(unit.block_bytes).unwrap_or(usize::MAX);
        let whole = unit.bytes.len().checked_rem(block) == Some(0);
        whole
            && unit.bytes.len().checked_div(block).and_then(|blocks| blocks.checked_mul(NONCE_BYTES))
                == Some(unit.nonces.len())
    };
    if !units.iter().all(fits) {
        return Err(CallError::Input {
            function,
            what: "a unit does not have whole blocks with 12 bytes of nonce for each",
        });
    }
    Ok(())
}

/// The described stacks as the vault's own, which checks R-30.
fn stack_list(stacks: &[Stack], raw: bool) -> Result<StackList, String> {
    let native = |stack: &Stack| {
        let layer =
            |layer: &Layer| Ok(stack::Layer { suite: suite(layer.suite), label: KeyLabel::new(&layer.key_label)? });
        let layers = stack.layers.iter().map(layer).collect::<Result<Vec<_>, StackError>>()?;
        stack::Stack::new(&layers)
    };
    let numbered = stacks
        .iter()
        .enumerate()
        .map(|(index, stack)| native(stack).map_err(|error| format!("stack {index}: {error}")));
    let native = numbered.collect::<Result<Vec<_>, String>>()?;
    if !raw && native.iter().any(stack::Stack::needs_guest) {
        return Err("a stack uses an own algorithm outside the raw world".into());
    }
    StackList::new(&native).map_err(|error| error.to_string())
}

const fn suite(suite: Suite) -> stack::Suite {
    match suite {
        Suite::Aes256Gcm => stack::Suite::Aes256Gcm,
        Suite::Aes256GcmSiv => stack::Suite::Aes256GcmSiv,
        Suite::Chacha20Poly1305 => stack::Suite::ChaCha20Poly1305,
        Suite::Chacha20 => stack::Suite::ChaCha20,
        Suite::Own => stack::Suite::Guest,
    }
}

fn broken_plan(plan: &Plan, batch: &Batch, stacks: usize) -> Option<String> {
    if plan.choices.len() != 1 && plan.choices.len() != batch.records.len() {
        return Some(format!(
            "{} choices for {} records; one for all or one each is allowed",
            plan.choices.len(),
            batch.records.len()
        ));
    }
    if let Some(choice) = plan.choices.iter().find(|choice| usize::from(**choice) >= stacks) {
        return Some(format!("chooses stack {choice} of {stacks}"));
    }
    if plan.valid_below == 0 {
        return None;
    }
    if plan.choices.len() != 1 {
        return Some("a plan with a choice for each record is not valid beyond its batch".into());
    }
    (plan.valid_below > batch.first_sequence.saturating_add(limits::PLAN_AHEAD))
        .then(|| "is valid more than 2^20 sequence numbers ahead".into())
}
