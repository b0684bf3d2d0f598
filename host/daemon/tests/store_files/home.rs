//! Homes on files: sizes, bounds, holes and who may open them.

use std::io::IoSlice;

use farseal::store::StoreError;
use farseal::store::home::{Home, HomeError, RawHome};

const MIB: u64 = 1 << 20;

#[test]
fn a_file_that_is_gone_is_not_made_anew_where_there_was_a_volume() {
    let dir = crate::records::dir();
    let path = dir.path().join("volume");
    assert!(matches!(RawHome::open_known(&path, Some(4096), true), Err(HomeError::Gone(_))));
    assert!(!path.exists());
    assert!(RawHome::open_known(&path, Some(4096), false).is_ok());
    assert!(RawHome::open_known(&path, Some(4096), true).is_ok());
}

#[test]
fn a_home_is_made_sparse_and_has_one_size_for_ever() {
    let dir = crate::records::dir();
    let path = dir.path().join("home");
    assert!(matches!(RawHome::open(&path, None), Err(HomeError::Absent(_))));
    let home = RawHome::open(&path, Some(1 << 40)).unwrap();
    assert_eq!(home.bytes(), 1 << 40);
    assert_eq!(home.allocated(0, 1 << 40).unwrap(), [(1 << 40, false)]);
    assert!(matches!(RawHome::open(&path, None), Err(HomeError::InUse(_))));
    drop(home);
    let wrong = RawHome::open(&path, Some(MIB)).unwrap_err();
    assert!(wrong.to_string().contains("1099511627776") && wrong.to_string().contains("1048576"), "{wrong}");
    assert_eq!(RawHome::open(&path, None).unwrap().bytes(), 1 << 40);
    assert!(matches!(RawHome::open(dir.path(), None), Err(HomeError::Unfit(_))));
}

#[test]
fn bytes_come_back_and_zeroed_ranges_read_as_zeroes() {
    let dir = crate::records::dir();
    let home = RawHome::open(&dir.path().join("home"), Some(4 * MIB)).unwrap();
    home.write(MIB, &vec![7; 1 << 20]).unwrap();
    home.write_vectored(2 * MIB, &mut [IoSlice::new(&[8; 4096]), IoSlice::new(&[]), IoSlice::new(&[9; 512])]).unwrap();
    for (offset, len, punch) in [(MIB, 65_536, true), (MIB + 131_072, 4096, false), (MIB + 200_001, 3, true)] {
        home.zero(offset, len, punch).unwrap();
    }
    let mut read = vec![0; 4 << 20];
    home.read(0, &mut read).unwrap();
    let mut expected = vec![0; 4 << 20];
    expected[1 << 20..2 << 20].fill(7);
    expected[2 << 20..][..4096].fill(8);
    expected[(2 << 20) + 4096..][..512].fill(9);
    for (at, len) in [(1 << 20, 65_536), ((1 << 20) + 131_072, 4096), ((1 << 20) + 200_001, 3)] {
        expected[at..at + len].fill(0);
    }
    assert!(read == expected);
    let runs = home.allocated(0, 4 * MIB).unwrap();
    assert_eq!(runs.iter().map(|(len, _)| len).sum::<u64>(), 4 * MIB);
    assert!(!runs[0].1 && runs[0].0 >= MIB, "{runs:?}");
    home.sync().unwrap();
}

#[test]
fn nothing_past_the_end_is_touched() {
    let dir = crate::records::dir();
    let home = RawHome::open(&dir.path().join("home"), Some(4096)).unwrap();
    for (offset, len) in [(4096, 1), (0, 4097), (u64::MAX, 2)] {
        let len = usize::try_from(len).unwrap();
        assert!(matches!(home.write(offset, &vec![1; len]), Err(StoreError::OutOfBounds { .. })));
        assert!(matches!(home.read(offset, &mut vec![1; len]), Err(StoreError::OutOfBounds { .. })));
        assert!(home.zero(offset, u64::try_from(len).unwrap(), true).is_err());
    }
    assert_eq!(home.allocated(4096, 0).unwrap(), []);
}
