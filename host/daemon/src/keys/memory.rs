//! Keeps keys out of core dumps, debuggers of other processes, and swap

use std::fs;
use std::path::Path;

use rustix::io::Errno;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use serde::{Deserialize, Serialize};

/// The kernel refused a protection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// PR_SET_DUMPABLE was refused.
    #[error("the process could not be made undumpable: {0}")]
    Dumpable(Errno),
    /// RLIMIT_CORE was refused.
    #[error("core dumps could not be switched off: {0}")]
    Core(Errno),
    /// The process may lock some memory, which is too little: later allocations would fail.
    #[error("the process may lock {0} bytes of memory, and needs to lock all that it uses")]
    Limit(u64),
    /// mlockall was refused.
    #[error("memory could not be locked: {0}")]
    Lock(Errno),
}

/// What an operator can do about keys that may get into swap.
pub const SWAP_FIX: &str =
    "for the service set LimitMEMLOCK=infinity or MemorySwapMax=0; in a shell, `ulimit -l unlimited`";

/// Whether keys can get into swap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum KeysInSwap {
    /// No: the process's memory is locked.
    Locked,
    /// No: the system swaps nothing of this service.
    Unswapped,
    /// Yes, while the machine has swap.
    Possible {
        /// Why nothing hinders it.
        why: String,
    },
}

/// CAP_IPC_LOCK of linux/capability.h.
const CAP_IPC_LOCK: u32 = 14;
/// Where the system shows control groups.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Switches core dumps off and makes the process undumpable, for good: no core file, and no attaching by other
/// processes of the same user. To be called before the first key is made.
///
/// # Errors
/// [`MemoryError`] when the kernel refuses.
pub fn keep_out_of_core_dumps() -> Result<(), MemoryError> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(MemoryError::Core)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(MemoryError::Dumpable)
}

/// Keeps keys out of swap, if the process may. Keys lie wherever code works with them, so every page that the process touches
/// from here on is locked, and those that it has touched; what is reserved and never touched costs nothing.
#[must_use]
pub fn keep_out_of_swap() -> KeysInSwap {
    match lock() {
        Ok(()) => KeysInSwap::Locked,
        Err(_) if is_never_swapped(&said("/proc/self/cgroup"), Path::new(CGROUPS)) => KeysInSwap::Unswapped,
        Err(error) => KeysInSwap::Possible { why: error.to_string() },
    }
}

fn lock() -> Result<(), MemoryError> {
    // Below a limit this would succeed and let reservations of address space fail later on.
    if let Some(most) = getrlimit(Resource::Memlock).current
        && !may_lock_anything(&said("/proc/self/status"))
    {
        return Err(MemoryError::Limit(most));
    }
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT).map_err(MemoryError::Lock)
}

/// What the system says in a file; nothing where it says nothing.
fn said(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

/// By the effective capabilities that the system says a process has.
fn may_lock_anything(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    effective.is_some_and(|set| (set >> CAP_IPC_LOCK) & 1 == 1)
}

/// By the control group of a process, as the system says it, or one above it.
fn is_never_swapped(group: &str, root: &Path) -> bool {
    let Some(group) = group.lines().find_map(|line| line.strip_prefix("0::/")) else { return false };
    let group = root.join(group);
    let mut groups = group.ancestors().take_while(|folder| folder.starts_with(root));
    groups.any(|folder| fs::read_to_string(folder.join("memory.swap.max")).is_ok_and(|most| most.trim() == "0"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn who_may_lock_anything_is_read_from_the_effective_capabilities() {
        for (status, expected) in [
            ("Name:\tx\nCapEff:\t000001ffffffffff\n", true),
            ("CapEff:\t0000000000004000\n", true),
            ("CapPrm:\t0000000000004000\nCapEff:\t0000000000000000\n", false),
            ("CapEff:\t000001ffffffbfff\n", false),
            ("CapEff:\tnone\n", false),
            ("", false),
        ] {
            assert_eq!(may_lock_anything(status), expected, "{status:?}");
        }
    }

    #[test]
    fn a_service_is_never_swapped_when_its_group_or_one_above_says_so() {
        let root = std::env::temp_dir().join(format!("farseal-cgroups-{}", std::process::id()));
        let service = root.join("system.slice/farseal.service");
        fs::create_dir_all(&service).unwrap();
        let group = "0::/system.slice/farseal.service\n";
        assert!(!is_never_swapped(group, &root), "nothing says so");
        fs::write(service.join("memory.swap.max"), "max\n").unwrap();
        assert!(!is_never_swapped(group, &root));
        fs::write(service.join("memory.swap.max"), "0\n").unwrap();
        assert!(is_never_swapped(group, &root));
        fs::remove_file(service.join("memory.swap.max")).unwrap();
        fs::write(root.join("system.slice/memory.swap.max"), "0\n").unwrap();
        assert!(is_never_swapped(group, &root), "the one above");
        assert!(!is_never_swapped("0::/user.slice\n", &root) && !is_never_swapped("", &root));
        fs::remove_dir_all(&root).unwrap();
    }
}
