//! A copy whose keys the escrow site alone holds is searched: a person there approves one value, the remote finds it by its search
//! tags, and what it finds the escrow site opens, and nothing else.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/built.rs"]
mod built;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../../xtask/src/nbd_client.rs"]
mod nbd_client;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../../xtask/src/site.rs"]
mod site;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/sites.rs"]
mod sites;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/three.rs"]
mod three;

use std::fs;
use std::path::PathBuf;

use nbd_client::Client;
use serde_json::Value;
use site::wait_for;
use sites::{PAIR, PATIENCE};
use three::{Three, client, refusal, three_with};

const RECORD: usize = 512;
const RECORDS: u64 = 1_200;
/// The key changes before this record.
const ROTATED: u64 = 480;
/// EPERM.
const REFUSED: &str = "with error 1";

fn customer(id: u64) -> &'static str {
    match id % 100 {
        3 | 17 | 77 => "Meier",
        9 => "Schmidt",
        _ => "another",
    }
}

fn record(id: u64) -> Vec<u8> {
    let mut bytes = vec![0; RECORD];
    bytes[..8].copy_from_slice(&id.to_le_bytes());
    bytes[16..16 + customer(id).len()].copy_from_slice(customer(id).as_bytes());
    bytes[100] = 7;
    bytes
}

fn of(name: &str, until: u64) -> Vec<u64> {
    (0..until).filter(|id| customer(*id) == name).collect()
}

/// What no search found is refused at the remote.
fn by_search_only(three: &Three) {
    let config = fs::read_to_string(three.remote.config()).unwrap();
    let strategy = config.lines().find(|line| line.starts_with("recovery = ")).unwrap();
    let wasm = fs::read(built::plugins().join("search-only.wasm")).unwrap();
    let pinned = format!("component = \"search-only\", sha256 = \"{}\"", farseal_plugin::Digest::of(&wasm));
    three.remote.edit(&format!("\n{strategy}"), &format!("\nrecovery = {{ {pinned} }}")).unwrap();
}

fn filled() -> Three {
    filled_as("escrow-search", &[], by_search_only)
}

fn filled_as(purpose: &str, more: &[&str], edit: fn(&Three)) -> Three {
    let layout = ["--record-bytes", "512", "--field", "id:0:8:number-le", "--field", "customer:16:24:text"];
    let mut three = three_with(purpose, &[&["--disguise", "plain"], &layout[..], more].concat());
    edit(&three);
    three.start();
    let mut initiator = client(&three.main);
    for first in (0..RECORDS).step_by(120) {
        if first == ROTATED {
            initiator.flush().unwrap();
            three.main.farseal(&["rotate", PAIR, "--force"]).unwrap();
        }
        let bytes: Vec<u8> = (first..first + 120).flat_map(record).collect();
        initiator.write(first * 512, &bytes).unwrap();
    }
    initiator.flush().unwrap();
    three.main.wait_until("everything at the remote", |status| status.is_safe()).unwrap();
    three
}

/// A record of 96 KiB: neither it nor what is sealed of it fits a cell.
const LONG: usize = 96 << 10;
const LONG_RECORDS: u64 = 24;

fn long_record(id: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..LONG).map(|at| u8::try_from((at / 7 + usize::try_from(id).unwrap()) % 251).unwrap()).collect();
    bytes[..8].copy_from_slice(&id.to_le_bytes());
    bytes[16..40].fill(0);
    bytes[16..16 + customer(id).len()].copy_from_slice(customer(id).as_bytes());
    bytes
}

fn component() -> PathBuf {
    built::plugins().join("chacha20-guest.wasm")
}

fn seal_by_component(three: &Three) {
    let raw = component().display().to_string();
    let swap = ["plugin", "swap", PAIR, "cipher", &raw, "--grant", "raw", "--settings", "{}", "--yes"];
    three.main.farseal(&swap).unwrap();
    three.main.farseal(&["rotate", PAIR, "--force"]).unwrap();
}

/// The later ones are sealed by a cipher that runs in a component of its own.
#[test]
fn a_record_that_is_longer_than_a_cell_is_opened_there_part_by_part_also_by_a_cipher_of_its_own() {
    let layout = ["--record-bytes", "98304", "--field", "customer:16:24:text"];
    let mut three = three_with("escrow-long", &[&["--disguise", "plain"], &layout[..]].concat());
    by_search_only(&three);
    three.start();
    let mut initiator = client(&three.main);
    let each = u64::try_from(LONG).unwrap();
    for id in 0..LONG_RECORDS {
        if id == LONG_RECORDS / 3 {
            initiator.flush().unwrap();
            seal_by_component(&three);
        }
        initiator.write(id * each, &long_record(id)).unwrap();
    }
    // And one that is nothing but zeroes behind its name.
    let mut empty = vec![0; LONG];
    empty[16..21].copy_from_slice(b"Meier");
    initiator.write(LONG_RECORDS * each, &empty).unwrap();
    // And one of which some blocks were never written, and the others at two times.
    let mut sparse = vec![0; LONG];
    sparse[16..21].copy_from_slice(b"Meier");
    sparse[5 * 4096..7 * 4096].fill(9);
    for written in [0..4096, 5 * 4096..7 * 4096] {
        let at = (LONG_RECORDS + 1) * each + u64::try_from(written.start).unwrap();
        initiator.write(at, &sparse[written]).unwrap();
        initiator.flush().unwrap();
    }
    three.main.wait_until("everything at the remote", |status| status.is_safe()).unwrap();
    three.until_escrow_keeps(&format!("{}.wasm", farseal_plugin::Digest::of(&fs::read(component()).unwrap())));
    three.main.kill().unwrap();
    let request = ["escrow", "request", PAIR, "--reason", "court order 10", "--field", "customer=Meier"];
    three.remote.farseal(&request).unwrap();
    three.escrow.farseal(&["escrow", "approve", "1", "--yes"]).unwrap();
    three.remote.farseal(&["escrow", "fetch", PAIR]).unwrap();
    three.remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    let out = three.stage.dir.join("long.records");
    let report = search(&three, &["--field", "customer=Meier", "--out", &out.display().to_string()]);
    assert_eq!((report["found"].as_u64(), report["served"].as_u64()), (Some(4), Some(4)), "{report}");
    assert_eq!(fs::read(&out).unwrap(), [long_record(3), long_record(17), empty, sparse].concat());
    let log = three.escrow.farseal(&["escrow", "log"]).unwrap();
    assert!(log.contains("nothing shows that they belong together"), "{log}");
    let said = client(&three.remote).read(4 * each, &mut [0; 4096]).unwrap_err().to_string();
    assert!(said.ends_with(REFUSED), "another record: {said}");
}

fn search(three: &Three, words: &[&str]) -> Value {
    let said = three.remote.farseal(&[&["recover", "search", PAIR, "--json"], words].concat()).unwrap();
    serde_json::from_str(&said).unwrap()
}

fn found(report: &Value) -> Vec<u64> {
    report["records"].as_array().unwrap().iter().map(|record| record["offset"].as_u64().unwrap() / 512).collect()
}

fn is_refused(client: &mut Client, id: u64) {
    let said = client.read(id * 512, &mut [0; RECORD]).unwrap_err().to_string();
    assert!(said.ends_with(REFUSED), "record {id}: {said}");
}

#[test]
fn a_remote_without_keys_finds_what_a_person_approved_and_opens_exactly_that() {
    let mut three = filled();
    three.main.kill().unwrap();
    let request = ["escrow", "request", PAIR, "--reason", "court order 7", "--field", "customer=Meier"];
    let bad = [&request[..5], &["--field", "street=x"]].concat();
    let refused = refusal(&three.remote, &bad);
    assert!(refused.contains("ask for one of: id, customer"), "{refused}");
    let bad = [&request[..], &["--epochs", "900..901"]].concat();
    let refused = refusal(&three.remote, &bad);
    assert!(refused.contains("the copy has no epoch of these"), "{refused}");
    let asked = three.remote.farseal(&request).unwrap();
    assert!(asked.contains("a search for customer=Meier in epochs 1 to 2"), "{asked}");
    let takeover = ["takeover", PAIR, "--yes"];
    assert!(refusal(&three.remote, &takeover).contains("with the escrow site alone"));
    let shown = three.escrow.farseal(&["escrow", "requests"]).unwrap();
    assert!(shown.contains("A SEARCH for customer=Meier") && shown.contains("court order 7"), "{shown}");
    three.escrow.farseal(&["escrow", "approve", "1", "--yes"]).unwrap();
    let said = three.remote.farseal(&["escrow", "fetch", PAIR]).unwrap();
    assert!(said.contains("search keys of 2 epochs came from the escrow; they open nothing"), "{said}");

    // The tags say where; no key opens anything, and no other value is found.
    let meiers = of("Meier", RECORDS);
    let closed = search(&three, &["--field", "customer=Meier"]);
    let audit = three.remote.farseal(&["recover", "audit", PAIR]).unwrap();
    assert!(audit.contains("customer=Meier"), "the log says what was searched for, with whose keys ever: {audit}");
    assert_eq!((found(&closed), closed["opened"].as_u64()), (meiers.clone(), Some(0)));
    let other = refusal(&three.remote, &["recover", "search", PAIR, "--field", "customer=Schmidt"]);
    assert!(other.contains("no key for the copy's epochs is at hand"), "{other}");

    three.remote.farseal(&takeover).unwrap();
    let mut initiator = client(&three.remote);
    is_refused(&mut initiator, 3);
    let out = three.stage.dir.join("meier.records");
    let report = search(&three, &["--field", "customer=Meier", "--out", &out.display().to_string()]);
    let count = u64::try_from(meiers.len()).unwrap();
    for (what, number) in [("found", count), ("opened", count), ("served", count), ("failed", 0), ("units", 0)] {
        assert_eq!(report[what].as_u64(), Some(number), "{what}: {report}");
    }
    assert_eq!(fs::read(&out).unwrap(), meiers.iter().flat_map(|id| record(*id)).collect::<Vec<u8>>());
    for id in 0..RECORDS {
        if meiers.contains(&id) {
            let mut bytes = vec![0; RECORD];
            initiator.read(id * 512, &mut bytes).unwrap();
            assert_eq!(bytes, record(id), "record {id}");
        } else if id % 7 == 0 {
            is_refused(&mut initiator, id);
        }
    }
    let log = three.escrow.farseal(&["escrow", "log"]).unwrap();
    assert!(log.contains("request 1: the record at block 3 of pair"), "{log}");
    assert_eq!(log.matches("is opened").count(), meiers.len(), "{log}");

    // Another value, and only what the first key sealed.
    let request =
        ["escrow", "request", PAIR, "--reason", "court order 8", "--field", "customer=Schmidt", "--epochs", "1..1"];
    three.remote.farseal(&request).unwrap();
    three.escrow.farseal(&["escrow", "approve", "2", "--yes"]).unwrap();
    three.remote.farseal(&["escrow", "fetch", PAIR]).unwrap();
    let some = search(&three, &["--field", "customer=Schmidt"]);
    assert_eq!((found(&some), some["opened"].as_u64()), (of("Schmidt", ROTATED), Some(5)));
    // Without an approval that is in force the keys find, and nobody opens.
    let request = ["escrow", "request", PAIR, "--reason", "court order 9", "--field", "id=700"];
    three.remote.farseal(&request).unwrap();
    three.escrow.farseal(&["escrow", "approve", "3", "--yes"]).unwrap();
    three.remote.farseal(&["escrow", "fetch", PAIR]).unwrap();
    three.escrow.kill().unwrap();
    three.escrow.start().unwrap();
    let refused = refusal(&three.remote, &["recover", "search", PAIR, "--field", "id=700"]);
    assert!(refused.contains("1 blocks did not open"), "{refused}");
    is_refused(&mut initiator, 700);
}

/// A search of a live copy was approved in May; in June the main site is lost, and whatever is read is to be opened.
#[test]
fn a_search_that_was_approved_once_is_not_taken_for_the_keys_of_a_later_disaster() {
    let mut three = filled_as("escrow-search-old", &["--recovery", "sweep"], |_| ());
    let request = ["escrow", "request", PAIR, "--reason", "court order 7", "--field", "customer=Meier"];
    three.remote.farseal(&request).unwrap();
    three.escrow.farseal(&["escrow", "approve", "1", "--yes"]).unwrap();
    let said = three.remote.farseal(&["escrow", "fetch", PAIR]).unwrap();
    assert!(said.contains("search keys of 2 epochs came from the escrow; they open nothing"), "{said}");
    let refused = refusal(&three.remote, &["takeover", PAIR, "--yes"]);
    assert!(refused.contains("with the escrow site alone") && refused.contains("as search-only does"), "{refused}");
    // A test opens only what a search finds, whatever the strategy.
    three.remote.farseal(&["recover", "test", PAIR]).unwrap();
    three.remote.farseal(&["recover", "test", PAIR, "--end"]).unwrap();

    three.main.farseal(&["disaster", "declare", PAIR, "--yes"]).unwrap();
    wait_for("the remote's request for the keys", PATIENCE, || {
        let asked = three.escrow.farseal(&["escrow", "requests"])?;
        Ok(asked.contains("the main site declared a disaster").then_some(()))
    })
    .unwrap();
    assert!(Client::connect(&three.remote.socket(), PAIR).is_err(), "it is served without keys");
    three.remote.kill().unwrap();
    three.remote.start().unwrap();
    let waits = three.remote.wait_until("what it waits for", |status| status.last_error().is_some()).unwrap();
    let waits = waits.last_error().unwrap().to_owned();
    assert!(waits.contains("it opens when the escrow site has released the keys of 2 epochs"), "{waits}");
    three.escrow.farseal(&["escrow", "approve", "2", "--yes"]).unwrap();
    let mut initiator = client(&three.remote);
    for id in [0, 3, ROTATED, RECORDS - 1] {
        let mut bytes = vec![0; RECORD];
        initiator.read(id * 512, &mut bytes).unwrap();
        assert_eq!(bytes, record(id), "record {id}");
    }
}
