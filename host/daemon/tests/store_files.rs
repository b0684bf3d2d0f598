//! What fsync means: journal, log, index and homes against torn, flipped, full and lost bytes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "store_files/compact.rs"]
mod compact;
#[path = "store_files/faults.rs"]
mod faults;
#[path = "store_files/files.rs"]
mod files;
#[path = "store_files/golden.rs"]
mod golden;
#[path = "store_files/home.rs"]
mod home;
#[path = "store_files/image.rs"]
mod image;
#[path = "store_files/index.rs"]
mod index;
#[path = "store_files/journal.rs"]
mod journal;
#[path = "store_files/log.rs"]
mod log;
#[path = "store_files/opened.rs"]
mod opened;
#[path = "store_files/records.rs"]
mod records;
