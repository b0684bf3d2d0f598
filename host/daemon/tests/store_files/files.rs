//! Whole files and who owns a directory.

use std::os::unix::fs::PermissionsExt as _;

use farseal::store::StoreError;
use farseal::store::files::{
    DirLock, LockError, create_private_dir, raise_descriptor_limit, read_if_there, remove_durably, write_atomically,
};
use farseal_core::primary::StoreFault;

#[test]
fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
    let dir = crate::records::dir();
    let path = dir.path().join("state");
    assert_eq!(read_if_there(&path, 100).unwrap(), None);
    write_atomically(&path, b"one").unwrap();
    write_atomically(&path, b"two").unwrap();
    assert_eq!(read_if_there(&path, 100).unwrap().unwrap(), b"two");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(read_if_there(&path, 2), Err(StoreError::Damaged { .. })));
    remove_durably(&path).unwrap();
    remove_durably(&path).unwrap();
}

#[test]
fn a_private_directory_is_for_its_owner_alone() {
    let dir = crate::records::dir();
    let inner = dir.path().join("a/b");
    create_private_dir(&inner).unwrap();
    create_private_dir(&inner).unwrap();
    assert_eq!(std::fs::metadata(&inner).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn two_nodes_never_share_a_directory() {
    let dir = crate::records::dir();
    let first = DirLock::take(dir.path()).unwrap();
    let second = DirLock::take(dir.path());
    assert!(matches!(second, Err(LockError::InUse(ref path)) if path == dir.path()));
    drop(first);
    DirLock::take(dir.path()).unwrap();
}

#[test]
fn a_process_may_open_as_many_files_as_its_hard_limit_says() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let lower = limit.maximum.map(|most| most - 1);
    setrlimit(Resource::Nofile, Rlimit { current: lower, ..limit }).unwrap();
    assert_eq!(raise_descriptor_limit().unwrap(), limit.maximum);
    assert_eq!(getrlimit(Resource::Nofile).current, limit.maximum);
}

#[test]
fn want_of_room_is_told_apart_from_failure() {
    for (errno, fault) in [
        (libc::ENOSPC, StoreFault::Full),
        (libc::EDQUOT, StoreFault::Full),
        (libc::EFBIG, StoreFault::Full),
        (libc::EMFILE, StoreFault::Full),
        (libc::ENFILE, StoreFault::Full),
        (libc::EIO, StoreFault::Failed),
        (libc::EROFS, StoreFault::Failed),
    ] {
        let error = StoreError::io("x".as_ref(), "write", std::io::Error::from_raw_os_error(errno));
        assert_eq!(error.fault(), fault, "{error}");
    }
    // A device that is always full, through the real calls.
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let refused = std::io::Write::write_all(&mut &full, b"x").unwrap_err();
    assert_eq!(StoreError::io("/dev/full".as_ref(), "write", refused).fault(), StoreFault::Full);
}
