//! The image of a site that began as secondary: made once, where the configuration says, and never made anew where it is gone.
//!
//! Beside it stands a map of which blocks were opened into it. An empty file in its place, because a file system is not mounted or because
//! another path was configured, would answer for those blocks with zeroes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use farseal_core::units::ByteLen;

use super::home::{HomeError, RawHome};
use super::{StoreError, files};

/// Names the image, in the pair's folder `opened`.
const PLACE: &str = "image.place";
/// A path has at most 4096 bytes.
const PLACE_BYTES_MAX: u64 = 8 << 10;

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error(
        "{}: the image of this pair is {} since it was made; write `image` so, or move that file with the node stopped and write its new place into {}",
        wanted.display(), made.display(), place.display()
    )]
    Elsewhere { wanted: PathBuf, made: PathBuf, place: PathBuf },
    #[error(
        "{}: the image that was made there is gone; mount its file system, or put the file back: blocks that were opened are nowhere else",
        .0.display()
    )]
    Gone(PathBuf),
    #[error("{}: there is such a file, and it is not this pair's image; name one that is not there yet", .0.display())]
    Foreign(PathBuf),
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Opens the image of the pair whose folder `opened` this is; makes it, the first time. It is in that folder if `image` names no other
/// place.
///
/// # Errors
/// [`ImageError`]: nothing was made and nothing changed.
pub fn open(folder: &Path, image: Option<&Path>, size: ByteLen) -> Result<RawHome, ImageError> {
    files::create_private_dir(folder)?;
    let (place, usual) = (folder.join(PLACE), folder.join("opened.image"));
    let wanted = image.map_or_else(|| usual.clone(), Path::to_owned);
    let made = files::read_if_there(&place, PLACE_BYTES_MAX)?;
    // Whoever moved the image wrote the line by hand.
    let made = made.map(|bytes| PathBuf::from(OsStr::from_bytes(bytes.trim_ascii_end())));
    // Before it was written down there was one place only.
    match made.or_else(|| usual.exists().then(|| usual.clone())) {
        Some(made) if made != wanted => return Err(ImageError::Elsewhere { wanted, made, place }),
        Some(made) if !made.exists() => return Err(ImageError::Gone(made)),
        Some(_) => return Ok(RawHome::open(&wanted, Some(size.0))?),
        None => {}
    }
    // One that a crash left before it was written down is empty.
    if std::fs::metadata(&wanted).is_ok_and(|found| !found.is_file() || found.blocks() > 0) {
        return Err(ImageError::Foreign(wanted));
    }
    let home = RawHome::open(&wanted, Some(size.0))?;
    files::write_atomically(&place, wanted.as_os_str().as_bytes())?;
    Ok(home)
}
