//! Looking for bytes that must not be somewhere.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context, Result};

use super::tree::files_below;

const CHUNK: usize = 1 << 20;

/// What was searched and what was found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) hits: u64,
}

/// Counts where `needle` begins in every file below `place`, or in the file that it is.
pub(super) fn search(place: &Path, needle: &[u8]) -> Result<Found> {
    let files = if place.is_file() { vec![place.to_path_buf()] } else { files_below(place)? };
    let mut found = Found::default();
    for path in files {
        let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        found.files += 1;
        search_stream(file, needle, &mut found)?;
    }
    Ok(found)
}

fn search_stream(mut stream: impl std::io::Read, needle: &[u8], found: &mut Found) -> Result<()> {
    let mut window: Vec<u8> = Vec::new();
    loop {
        let taken = stream.by_ref().take(u64::try_from(CHUNK)?).read_to_end(&mut window)?;
        if taken == 0 {
            return Ok(());
        }
        found.bytes += u64::try_from(taken)?;
        found.hits += u64::try_from(count(&window, needle))?;
        // What could be the beginning of a needle that the next chunk ends.
        let keep = window.len().saturating_sub(needle.len().saturating_sub(1));
        window.drain(..keep);
    }
}

fn count(haystack: &[u8], needle: &[u8]) -> usize {
    let Some(first) = needle.first() else { return 0 };
    let begins = haystack.windows(needle.len()).filter(|window| window.first() == Some(first));
    begins.filter(|window| *window == needle).count()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_needle_across_two_chunks_is_counted_once() {
        let mut bytes = vec![b'.'; 3 * CHUNK];
        for at in [0, CHUNK - 3, 2 * CHUNK + 17] {
            bytes[at..at + 6].copy_from_slice(b"needle");
        }
        let mut found = Found::default();
        search_stream(&bytes[..], b"needle", &mut found).unwrap();
        assert_eq!((found.hits, found.bytes), (3, 3 << 20));
    }
}
