//! Where a copy's image lies: made once, and never made anew

use std::fs;
use std::path::Path;

use farseal::store::home::Home as _;
use farseal::store::image::{ImageError, open};
use farseal_core::units::ByteLen;

const SIZE: ByteLen = ByteLen(1 << 20);

fn kept(at: &Path, image: Option<&Path>) -> [u8; 4] {
    let mut bytes = [0; 4];
    open(at, image, SIZE).unwrap().read(4096, &mut bytes).unwrap();
    bytes
}

#[test]
fn an_image_is_made_once_where_it_is_configured_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let (pair, disk) = (dir.path().join("opened"), dir.path().join("disk.img"));
    for image in [None, Some(disk.as_path())] {
        open(&pair, image, SIZE).unwrap().write(4096, b"kept").unwrap();
        assert_eq!(&kept(&pair, image), b"kept");
        fs::remove_dir_all(&pair).unwrap();
    }
}

#[test]
fn an_image_that_is_gone_is_not_made_anew_and_serves_no_zeroes() {
    let dir = tempfile::tempdir().unwrap();
    for (pair, image) in [("usual", None), ("disk", Some(dir.path().join("disk.img")))] {
        let pair = dir.path().join(pair);
        let place = image.clone().unwrap_or_else(|| pair.join("opened.image"));
        open(&pair, image.as_deref(), SIZE).unwrap();
        fs::rename(&place, dir.path().join("away")).unwrap();
        let error = open(&pair, image.as_deref(), SIZE).unwrap_err();
        assert!(matches!(&error, ImageError::Gone(path) if *path == place), "{error}");
        assert!(!place.exists());
        fs::rename(dir.path().join("away"), &place).unwrap();
        open(&pair, image.as_deref(), SIZE).unwrap();
    }
}

#[test]
fn another_place_is_taken_only_when_the_file_was_moved_there_and_that_is_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let (pair, disk) = (dir.path().join("opened"), dir.path().join("disk.img"));
    open(&pair, None, SIZE).unwrap().write(4096, b"kept").unwrap();
    // As a version left it that had one place only.
    fs::remove_file(pair.join("image.place")).unwrap();
    let error = open(&pair, Some(&disk), SIZE).unwrap_err();
    assert!(matches!(&error, ImageError::Elsewhere { made, .. } if made.ends_with("opened.image")), "{error}");
    assert!(!disk.exists());
    fs::rename(pair.join("opened.image"), &disk).unwrap();
    fs::write(pair.join("image.place"), format!("{}\n", disk.display())).unwrap();
    assert_eq!(&kept(&pair, Some(&disk)), b"kept");
}

#[test]
fn a_file_with_something_in_it_is_nobodys_image() {
    let dir = tempfile::tempdir().unwrap();
    let (pair, disk) = (dir.path().join("opened"), dir.path().join("disk.img"));
    let before = vec![7; 1 << 20];
    fs::write(&disk, &before).unwrap();
    let error = open(&pair, Some(&disk), SIZE).unwrap_err();
    assert!(matches!(error, ImageError::Foreign(_)), "{error}");
    assert_eq!(fs::read(&disk).unwrap(), before);
}
