//! Keeps keys out of core dumps, debuggers of other processes, and (where the operator wants it) swap.

use rustix::io::Errno;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// The kernel refused a protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// PR_SET_DUMPABLE was refused.
    #[error("the process could not be made undumpable: {0}")]
    Dumpable(Errno),
    /// RLIMIT_CORE was refused.
    #[error("core dumps could not be switched off: {0}")]
    Core(Errno),
    /// mlockall was refused.
    #[error("memory could not be locked: {0}; raise LimitMEMLOCK for this service, or accept keys in swap")]
    Lock(Errno),
}

/// Switches core dumps off and makes the process undumpable, for good: no core file, and no attaching by other
/// processes of the same user. To be called before the first key is made.
///
/// # Errors
/// [`MemoryError`] when the kernel refuses.
pub fn keep_out_of_core_dumps() -> Result<(), MemoryError> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(MemoryError::Core)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(MemoryError::Dumpable)
}

/// Keeps every page that the process touches out of swap, present and future. Takes as much locked memory as the
/// process has, data buffers included, which is why the operator decides.
///
/// # Errors
/// [`MemoryError::Lock`] when RLIMIT_MEMLOCK is too small.
pub fn keep_out_of_swap() -> Result<(), MemoryError> {
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT).map_err(MemoryError::Lock)
}
