//! Comparing a volume with its copy on two real nodes: what was altered on either side is named exactly, and nothing else.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/built.rs"]
mod built;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../../xtask/src/nbd_client.rs"]
mod nbd_client;
#[path = "support/records.rs"]
mod records;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../../xtask/src/site.rs"]
mod site;
#[path = "support/sites.rs"]
mod sites;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use farseal_core::record::HEADER_BYTES;
use nbd_client::Client;
use records::{alter, flip, mend_checksums, newest};
use serde_json::Value;
use site::{Site, wait_for};
use sites::{BLOCK, PAIR, PATIENCE, sites, started};

/// Writes blocks, each in a record of its own.
fn write(site: &Site, blocks: &[u64], byte: u8) {
    let mut client = Client::connect(&site.socket(), PAIR).unwrap();
    for at in blocks {
        client.write(at * BLOCK, &[byte; 4096]).unwrap();
        client.flush().unwrap();
    }
}

/// Everything is at the other site and in the volume here.
fn settle(site: &Site) {
    let settled = |status: &site::Status| status.is_safe() && status.mark("homed") == status.mark("last");
    site.wait_until("everything at both sites", settled).unwrap();
}

/// What the last verification found: block, blocks, words.
fn found(site: &Site) -> Vec<(u64, u64, String)> {
    let node: Value = serde_json::from_str(&site.farseal(&["status", "--json"]).unwrap()).unwrap();
    let extent = |found: &Value| {
        let blocks = |name: &str| found[name].as_u64().unwrap() / BLOCK;
        (blocks("offset"), blocks("len"), found["what"].as_str().unwrap().to_owned())
    };
    node["pairs"][0]["verify"]["found"].as_array().unwrap().iter().map(extent).collect()
}

/// The exit code of `farseal verify`.
fn verify(site: &Site, words: &[&str]) -> Option<i32> {
    let words = [&["verify", PAIR], words].concat();
    site.begin(&words).unwrap().wait().unwrap().code()
}

#[test]
fn what_was_altered_on_either_side_is_named_exactly_and_mended() {
    let (_stage, main, mut remote) = sites("verify");
    write(&main, &[10, 20, 30, 31, 40], 7);
    let mut client = Client::connect(&main.socket(), PAIR).unwrap();
    client.write(100 * BLOCK, &[8; 8 * 4096]).unwrap();
    client.flush().unwrap();
    settle(&main);
    assert_eq!(verify(&main, &[]), Some(0));
    assert_eq!(found(&main), []);

    let log = remote.state().join("pairs").join(PAIR).join("log/00000000.fsl");
    let records = newest(&log);
    let header = u64::try_from(HEADER_BYTES).unwrap();
    // One that whoever altered it has given the right checksums, one without a header, one block of a record of eight.
    flip(&log, records[&10] + header + 16 + 5);
    mend_checksums(&log, records[&10]);
    flip(&log, records[&20] + 3);
    flip(&log, records[&100] + header + 8 * 16 + 2 * BLOCK);
    let volume = main.dir.join("volume.img");
    flip(&volume, 30 * BLOCK);
    flip(&volume, 31 * BLOCK + 4095);
    flip(&volume, 3000 * BLOCK + 9);

    assert_eq!(verify(&main, &[]), Some(5));
    let opens = "cannot be opened: the copy's bytes were altered, or belong elsewhere".to_owned();
    let differing = [
        (10, 1, opens),
        (20, 1, "cannot be read at the remote: the header of its record is damaged".to_owned()),
        (30, 2, "differs".to_owned()),
        (
            100,
            8,
            "cannot be read at the remote: what the log holds of its record does not match its checksum".to_owned(),
        ),
        (3000, 1, "missing: no record of the copy says what is there".to_owned()),
    ];
    assert_eq!(found(&main), differing);
    let shown = main.farseal(&["status"]).unwrap();
    assert!(shown.contains("52.0 KiB DIFFER"), "{shown}");

    assert_eq!(verify(&main, &["--repair", "--json"]), Some(5));
    assert_eq!(found(&main), differing);
    settle(&main);
    assert_eq!(verify(&main, &[]), Some(0));
    assert_eq!(found(&main), []);

    remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    let mut copy = Client::connect(&remote.socket(), PAIR).unwrap();
    for (block, byte) in [(10, 7), (20, 7), (30, 7 ^ 0x40), (40, 7), (102, 8)] {
        let mut bytes = [0; 4096];
        copy.read(block * BLOCK, &mut bytes).unwrap();
        assert_eq!((bytes[0], bytes[1]), (byte, if byte == 8 { 8 } else { 7 }), "block {block}");
    }
    remote.kill().unwrap();
}

#[test]
fn of_a_record_with_search_tags_the_one_block_that_does_not_open_is_named_and_not_those_beside_it() {
    let (_stage, main, remote) =
        started("fields", &["--record-bytes", "4096", "--field", "id:0:8:number-le", "--field", "name:16:24:text"]);
    main.wait_until("the link and a key", |status| status.is_safe() && status.epoch() > 0).unwrap();
    let mut client = Client::connect(&main.socket(), PAIR).unwrap();
    client.write(64 * BLOCK, &[9; 8 * 4096]).unwrap();
    client.flush().unwrap();
    settle(&main);
    assert_eq!(verify(&main, &[]), Some(0));
    let log = remote.state().join("pairs").join(PAIR).join("log/00000000.fsl");
    alter(&log, 66, 8).unwrap();
    assert_eq!(verify(&main, &[]), Some(5));
    let opens = "cannot be opened: the copy's bytes were altered, or belong elsewhere".to_owned();
    assert_eq!(found(&main), [(66, 1, opens)]);
}

#[test]
fn writes_of_a_busy_initiator_and_new_keys_are_never_called_a_difference() {
    let (_stage, main, _remote) = sites("busy");
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = {
        let (socket, stop, written) = (main.socket(), Arc::clone(&stop), Arc::clone(&written));
        std::thread::spawn(move || {
            let mut client = Client::connect(&socket, PAIR).unwrap();
            let mut random = 1_u64;
            while !stop.load(Ordering::Relaxed) {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let (block, byte) = ((random >> 33) % 4096, random.to_le_bytes()[7]);
                client.write(block * BLOCK, &[byte; 4096]).unwrap();
                written.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    for _ in 0..4 {
        let before = written.load(Ordering::Relaxed);
        assert_eq!(verify(&main, &[]), Some(0), "{:?}", found(&main));
        assert!(written.load(Ordering::Relaxed) > before, "nothing was written meanwhile");
        main.farseal(&["rotate", PAIR, "--force"]).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    main.wait_until("everything at the remote", site::Status::is_safe).unwrap();
    assert_eq!(verify(&main, &[]), Some(0));
}

#[test]
fn a_second_verification_is_refused_and_one_that_runs_can_be_stopped() {
    let (_stage, main, remote) = sites("second");
    let mut slow = main.begin(&["verify", PAIR, "--rate", "64KiB/s"]).unwrap();
    wait_for("the verification", PATIENCE, || Ok(main.farseal(&["status"])?.contains("compared").then_some(())))
        .unwrap();
    let refused = main.farseal(&["verify", PAIR]).unwrap_err().to_string();
    assert!(refused.contains("being verified already") && refused.contains("--stop"), "{refused}");
    let refused = remote.farseal(&["verify", PAIR]).unwrap_err().to_string();
    assert!(refused.contains("for the primary"), "{refused}");
    main.farseal(&["verify", PAIR, "--stop"]).unwrap();
    assert_eq!(slow.wait().unwrap().code(), Some(1));
    assert!(main.farseal(&["status"]).unwrap().contains("ended early: it was stopped"));
    assert_eq!(verify(&main, &["--sample", "50%"]), Some(0));
}

#[test]
fn a_copy_over_a_base_is_compared_down_to_the_base() {
    let (_stage, mut main, remote) = sites("base");
    write(&main, &[1, 2, 100, 200], 1);
    settle(&main);
    main.kill().unwrap();
    remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    write(&remote, &[2, 300], 2);
    main.start().unwrap();
    main.wait_until("the word of the newer generation", |status| status.state() == "diverged").unwrap();
    wait_for("the place where the histories part", PATIENCE, || Ok(main.farseal(&["rejoin", PAIR]).ok())).unwrap();
    remote.wait_until("a resync that ended", site::Status::is_safe).unwrap();
    assert_eq!(verify(&remote, &[]), Some(0), "{:?}", found(&remote));

    flip(&main.dir.join("volume.img"), 100 * BLOCK + 1);
    assert_eq!(verify(&remote, &["--repair"]), Some(5));
    assert_eq!(found(&remote), [(100, 1, "differs".to_owned())]);
    remote.wait_until("a resync that ended", site::Status::is_safe).unwrap();
    assert_eq!(verify(&remote, &[]), Some(0), "{:?}", found(&remote));
}
