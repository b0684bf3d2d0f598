//! A pair that keeps no order, as two processes: places are sent once for many writes, and the copy is whole at a pause.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/built.rs"]
mod built;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../../xtask/src/nbd_client.rs"]
mod nbd_client;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../../xtask/src/site.rs"]
mod site;
#[expect(dead_code, reason = "here a pair is not safe before it is at rest")]
#[path = "support/sites.rs"]
mod sites;

use nbd_client::Client;
use site::{Site, wait_for};
use sites::{BLOCK, PAIR, PATIENCE, started};

/// How often one block is written.
const TIMES: u8 = 200;

#[test]
fn what_is_written_often_is_sent_once_and_a_pause_makes_the_copy_whole() {
    let (_stage, mut main, remote) = started("unordered", &["--unordered-writes"]);
    main.wait_until("the link and a key", |status| status.state() == "copying" && status.epoch() > 0).unwrap();
    let before = remote.status().unwrap().mark("durable");

    let connect =
        |site: &Site| wait_for("the export", PATIENCE, || Ok(Client::connect(&site.socket(), PAIR).ok())).unwrap();
    let mut client = connect(&main);
    let block = |byte: u8| vec![byte; usize::try_from(BLOCK).unwrap()];
    for byte in 1..=TIMES {
        client.write(0, &block(byte)).unwrap();
        client.write(u64::from(byte) * BLOCK, &block(byte)).unwrap();
    }
    client.flush().unwrap();
    main.wait_until("a map that owes", |status| status.owed_bytes() > 0).unwrap();
    assert_eq!(remote.status().unwrap().mark("durable"), before, "something was sent at once");
    let refused = main.farseal(&["mode", PAIR, "sync"]).unwrap_err().to_string();
    assert!(refused.contains("keeps no order"), "{refused}");
    main.farseal(&["pause", PAIR, "--wait"]).unwrap();
    // Not a record for each of the writes: copies of what they left.
    let scrubbed = remote.farseal(&["scrub", PAIR]).unwrap();
    let records: u64 = scrubbed.split_whitespace().next().unwrap().parse().unwrap();
    assert!(records < u64::from(TIMES), "{records} records for {TIMES} writes of one block");
    client.write(BLOCK, &block(250)).unwrap();
    client.flush().unwrap();
    main.kill().unwrap();
    remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    let mut copy = connect(&remote);
    let mut first = |at: u64| {
        let mut bytes = block(0);
        copy.read(at * BLOCK, &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "block {at} is mixed");
        bytes[0]
    };
    assert_eq!(first(0), TIMES);
    assert!((1..=TIMES).all(|byte| first(u64::from(byte)) == byte), "the copy is not the state of the pause");
}
