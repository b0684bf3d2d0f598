//! A copy that is opened by search alone, with nodes as processes of their own: what a search finds is served, everything else gets
//! an error and stays closed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/built.rs"]
mod built;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../../xtask/src/nbd_client.rs"]
mod nbd_client;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../../xtask/src/site.rs"]
mod site;

use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use built::{farseal, plugins};
use nbd_client::Client;
use serde_json::Value;
use site::{Site, Stage, free_port, wait_for};

const PAIR: &str = "vault";
const RECORD: usize = 512;
const RECORDS: u64 = 24_000;
const PATIENCE: Duration = Duration::from_secs(60);
/// EPERM.
const REFUSED: &str = "with error 1";

/// Two nodes with a volume of 16 MiB whose records have two key fields; neither runs yet.
fn paired(purpose: &str) -> (Rc<Stage>, Site, Site) {
    paired_with(purpose, &["--record-bytes", "512"], &["--recovery", "search-only"])
}

/// The same; the pair was made, and accepted, with these options.
fn paired_with(purpose: &str, made: &[&str], accepted: &[&str]) -> (Rc<Stage>, Site, Site) {
    let stage = Stage::new(purpose).unwrap();
    let [main, remote] = ["main", "remote"].map(|name| Site::init(&stage, farseal(), plugins(), name).unwrap());
    let text = |path: &Path| path.display().to_string();
    let (card, invitation) = (stage.dir.join("card"), stage.dir.join("invitation"));
    fs::write(&card, remote.farseal(&["pair", "card"]).unwrap()).unwrap();
    let address = format!("127.0.0.1:{}", free_port().unwrap());
    let (volume, card, invitation) = (text(&main.dir.join("volume.img")), text(&card), text(&invitation));
    let mut words = vec!["pair", "create", PAIR, "--volume", &volume, "--size", "16MiB", "--disguise", "plain"];
    words.extend(["--peer-card", &card, "--peer-address", &address, "--invitation", &invitation]);
    words.extend(["--field", "id:0:8:number-le", "--field", "customer:16:24:text"]);
    words.extend(made);
    let said = main.farseal(&words).unwrap();
    let fingerprint = said.lines().find_map(|line| line.rsplit_once("fingerprint: ")).unwrap().1;
    let words = ["pair", "accept", &invitation, "--listen", &address, "--fingerprint", fingerprint];
    remote.farseal(&[&words[..], accepted].concat()).unwrap();
    (stage, main, remote)
}

/// What an application writes as its record number `id`.
fn record(id: u64, customer: &str) -> Vec<u8> {
    let mut bytes = vec![0; RECORD];
    bytes[..8].copy_from_slice(&id.to_le_bytes());
    bytes[16..16 + customer.len()].copy_from_slice(customer.as_bytes());
    let rest = format!("what customer {customer} bought as order {id}");
    bytes[100..100 + rest.len()].copy_from_slice(rest.as_bytes());
    bytes
}

/// Four in a thousand are Meier's, and some of each of the others'.
fn customer(id: u64) -> String {
    match id % 997 {
        3 | 500 | 501 | 996 => "Meier".to_owned(),
        other => format!("customer {}", other % 89),
    }
}

fn at(id: u64) -> u64 {
    id * 512
}

fn client(site: &Site) -> Client {
    wait_for(&format!("the export of {}", site.name), PATIENCE, || Ok(Client::connect(&site.socket(), PAIR).ok()))
        .unwrap()
}

fn read(client: &mut Client, id: u64) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; RECORD];
    client.read(at(id), &mut bytes).map(|()| bytes).map_err(|error| error.to_string())
}

fn is_refused(client: &mut Client, id: u64) {
    let said = read(client, id).unwrap_err();
    assert!(said.ends_with(REFUSED), "record {id}: {said}");
}

/// Fills the volume under several keys, overwrites some records alone and one in part, and gives back whose each record is.
fn fill(main: &Site) -> Vec<String> {
    let mut whose: Vec<String> = (0..RECORDS).map(customer).collect();
    let mut initiator = client(main);
    for first in (0..RECORDS).step_by(120) {
        let bytes: Vec<u8> = (first..first + 120).flat_map(|id| record(id, &customer(id))).collect();
        initiator.write(at(first), &bytes).unwrap();
        if first % 6000 == 0 {
            initiator.flush().unwrap();
            main.farseal(&["rotate", PAIR, "--force"]).unwrap();
        }
    }
    for (id, name) in [(500, "Schmidt"), (502, "Meier"), (12_345, "Meier"), (23_999, "Meier")] {
        initiator.write(at(id), &record(id, name)).unwrap();
        whose[usize::try_from(id).unwrap()] = name.to_owned();
    }
    // The name alone, over a part of a block.
    initiator.write(at(7000) + 16, b"Meier\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0").unwrap();
    whose[7000] = "Meier".to_owned();
    initiator.flush().unwrap();
    main.wait_until("everything at the remote", |status| status.is_safe()).unwrap();
    whose
}

fn search(site: &Site, words: &[&str]) -> Value {
    let said = site.farseal(&[&["recover", "search", PAIR, "--json"], words].concat()).unwrap();
    serde_json::from_str(&said).unwrap()
}

fn found(report: &Value) -> Vec<u64> {
    report["records"].as_array().unwrap().iter().map(|record| record["offset"].as_u64().unwrap() / 512).collect()
}

#[test]
fn only_what_a_search_finds_is_opened_and_served() {
    let (stage, mut main, mut remote) = paired("by-search");
    remote.start().unwrap();
    main.start().unwrap();
    main.wait_until("the link and a key", |status| status.is_safe() && status.epoch() > 0).unwrap();
    let whose = fill(&main);
    let meiers: Vec<u64> = (0..RECORDS).filter(|id| whose[usize::try_from(*id).unwrap()] == "Meier").collect();
    assert!(meiers.len() > 90 && meiers.contains(&7000) && !meiers.contains(&500));
    let key = stage.dir.join("customer-5.key").display().to_string();
    let words = ["recover", "search-key", PAIR, "--field", "customer=customer 5", "--epochs", "2..3", "--out", &key];
    let said = main.farseal(&words).unwrap();
    assert!(said.contains("finds this value in 2 epochs, and opens nothing"), "{said}");
    main.kill().unwrap();
    remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();

    let mut initiator = client(&remote);
    for id in [0, 3, 500, 7000, 12_345, RECORDS - 1] {
        is_refused(&mut initiator, id);
    }
    let nothing = remote.status().unwrap().opened();
    assert_eq!(nothing, (0, RECORDS), "records are closed, and none counts as damaged");

    let out = stage.dir.join("meier.records");
    let report = search(&remote, &["--field", "customer=Meier", "--out", &out.display().to_string()]);
    assert_eq!(found(&report), meiers);
    let count = u64::try_from(meiers.len()).unwrap();
    for (what, number) in
        [("found", count), ("opened", count), ("units", count), ("served", count), ("compared", RECORDS)]
    {
        assert_eq!(report[what].as_u64(), Some(number), "{what}: {report}");
    }
    for what in ["failed", "withheld", "unreadable", "changed", "outside"] {
        assert_eq!(report[what].as_u64(), Some(0), "{what}: {report}");
    }
    assert_eq!(report["records"][0]["fields"]["id"], "3");
    let exported = fs::read(&out).unwrap();
    assert_eq!(exported.len(), meiers.len() * RECORD);
    for (id, bytes) in meiers.iter().zip(exported.chunks(RECORD)) {
        let served = read(&mut initiator, *id).unwrap();
        assert_eq!(served, bytes);
        assert_eq!((&served[..8], &served[16..22]), (&id.to_le_bytes()[..], &b"Meier\0"[..]));
    }
    assert_eq!(remote.status().unwrap().opened(), (count, RECORDS));
    for id in (0..RECORDS).filter(|id| !meiers.contains(id)).step_by(37) {
        is_refused(&mut initiator, id);
    }
    assert_eq!(remote.status().unwrap().opened(), (count, RECORDS), "asking opens nothing");

    // One record by its number, in the epochs that sealed it and in others.
    let none = search(&remote, &["--field", "id=23998", "--epochs", "1..1"]);
    assert_eq!((none["found"].as_u64(), none["opened"].as_u64()), (Some(0), Some(0)));
    let one = search(&remote, &["--field", "id=23998"]);
    assert_eq!((found(&one), one["units"].as_u64()), (vec![23_998], Some(1)));
    assert_eq!(read(&mut initiator, 23_998).unwrap(), record(23_998, &customer(23_998)));
    for (words, says) in [("street=x", "ask for one of: id, customer"), ("id=x", "a whole number of 8 bytes")] {
        let said = remote.farseal(&["recover", "search", PAIR, "--field", words]).unwrap_err().to_string();
        assert!(said.contains(says), "{said}");
    }

    remote.kill().unwrap();
    remote.start().unwrap();
    let mut initiator = client(&remote);
    assert_eq!(read(&mut initiator, 7000).unwrap()[16..21], *b"Meier");
    assert_eq!(read(&mut initiator, 23_998).unwrap(), record(23_998, &customer(23_998)));
    is_refused(&mut initiator, 7001);
    assert_eq!(remote.status().unwrap().opened(), (count + 1, RECORDS));

    // A closed record cannot be changed in part, and can be written whole.
    let partly = initiator.write(at(7001) + 16, b"Meier").unwrap_err().to_string();
    assert!(partly.ends_with(REFUSED), "{partly}");
    initiator.write(at(7002), &record(7002, "Schulze")).unwrap();
    initiator.flush().unwrap();
    assert_eq!(read(&mut initiator, 7002).unwrap(), record(7002, "Schulze"));
    let changed = search(&remote, &["--field", "id=7002"]);
    assert_eq!((changed["found"].as_u64(), changed["opened"].as_u64()), (Some(1), Some(0)), "{changed}");

    // Who has a search key finds one value, in the epochs that it is for.
    let by_key = search(&remote, &["--key", &key]);
    let of_customer_5 = |id: &u64| whose[usize::try_from(*id).unwrap()] == "customer 5";
    let (some, all) = (found(&by_key), (0..RECORDS).filter(of_customer_5).count());
    assert!(
        !some.is_empty() && some.len() < all && some.iter().all(of_customer_5),
        "{} of {all}: {some:?}",
        some.len()
    );
    assert_eq!(by_key["opened"].as_u64(), Some(u64::try_from(some.len()).unwrap()));
    assert!(by_key["closed"].as_array().is_some_and(|epochs| epochs.len() >= 2), "{by_key}");
    let elsewhere = ["recover", "search", PAIR, "--key", &key, "--epochs", "900..901"];
    let none = remote.farseal(&[&elsewhere[..], &["--json"]].concat()).unwrap();
    assert!(none.contains("\"compared\": 0"), "{none}");
    fs::write(
        &key,
        fs::read_to_string(&key).unwrap().replace("epoch 2 ", "epoch 902 ").replace("epoch 3 ", "epoch 903 "),
    )
    .unwrap();
    let refused = remote.farseal(&["recover", "search", PAIR, "--key", &key]).unwrap_err().to_string();
    assert!(refused.contains("no key for the copy's epochs is at hand"), "{refused}");
    fs::write(&key, "secret").unwrap();
    let refused = remote.farseal(&["recover", "search", PAIR, "--key", &key]).unwrap_err().to_string();
    assert!(refused.contains("this is no search key"), "{refused}");

    let audit = remote.farseal(&["recover", "audit", PAIR]).unwrap();
    for line in [
        "search 1  asked for customer=Meier in epochs 1 to the newest",
        "search 1  found",
        "search 1  opens blocks 3+1 501+1 502+1",
        "search 2  asked for id=23998 in epochs 1 to 1",
        "search 3  opens blocks 23998+1",
        "search 3  opened 1 blocks; 0 did not open",
        "search 4  asked for id=7002",
        "search 5  asked for customer=(by a search key) in epochs 1 to the newest",
    ] {
        assert!(audit.contains(line), "{line}: {audit}");
    }
    let named: usize = audit
        .lines()
        .filter_map(|line| line.split_once("search 1  opens blocks "))
        .map(|(_, all)| all.split(' ').count())
        .sum();
    assert_eq!(named, meiers.len());
}

/// More than a page of a search, each with its place in the audit log.
#[test]
fn a_search_goes_on_until_all_that_it_finds_is_open_and_a_range_narrows_it() {
    let (stage, mut main, mut remote) = paired("many-by-search");
    remote.start().unwrap();
    main.start().unwrap();
    main.wait_until("the link and a key", |status| status.is_safe() && status.epoch() > 0).unwrap();
    let mut initiator = client(&main);
    let name = |id: u64| if id.is_multiple_of(2) { "Meier" } else { "Schmidt" };
    for first in (0..RECORDS).step_by(120) {
        let bytes: Vec<u8> = (first..first + 120).flat_map(|id| record(id, name(id))).collect();
        initiator.write(at(first), &bytes).unwrap();
    }
    initiator.flush().unwrap();
    main.wait_until("everything at the remote", |status| status.is_safe()).unwrap();

    // Before a takeover a search says where records are, and opens nothing.
    let range = ["--range", "1MiB..1026KiB"];
    let closed = search(&remote, &[&["--field", "customer=Meier"], &range[..]].concat());
    assert_eq!(found(&closed), [2048, 2050]);
    for (what, number) in [("found", 2), ("compared", 4), ("opened", 0), ("units", 0), ("served", 0)] {
        assert_eq!(closed[what].as_u64(), Some(number), "{what}: {closed}");
    }
    let said = remote.farseal(&["recover", "search", PAIR, "--field", "id=7"]).unwrap();
    assert!(said.contains("record    at 3584, 512 bytes: closed"), "{said}");
    assert!(said.contains("this copy is not taken over; `farseal takeover vault`, then search again"), "{said}");
    let out = stage.dir.join("half.records").display().to_string();
    let words = ["recover", "search", PAIR, "--field", "id=7", "--out", &out];
    let refused = remote.farseal(&words).unwrap_err().to_string();
    assert!(refused.contains("search without --out, or first: farseal takeover vault"), "{refused}");
    // A test shows what a search found in it, and nothing else; then it is over.
    remote.farseal(&["recover", "test", PAIR]).unwrap();
    let mut tester = Client::connect(&remote.socket(), &format!("{PAIR}.test")).unwrap();
    is_refused(&mut tester, 2048);
    let tested = search(&remote, &[&["--field", "customer=Meier"], &range[..]].concat());
    assert_eq!(
        (found(&tested), tested["opened"].as_u64(), tested["served"].as_u64()),
        (vec![2048, 2050], Some(2), Some(2))
    );
    assert_eq!(read(&mut tester, 2048).unwrap(), record(2048, "Meier"));
    is_refused(&mut tester, 2049);
    tester.write(at(2048), &record(2048, "Kunz")).unwrap();
    assert_eq!(read(&mut tester, 2048).unwrap(), record(2048, "Kunz"));
    drop(tester);
    remote.farseal(&["recover", "test", PAIR, "--end"]).unwrap();
    let closed = search(&remote, &[&["--field", "customer=Meier"], &range[..]].concat());
    assert_eq!((found(&closed), closed["opened"].as_u64()), (vec![2048, 2050], Some(0)));
    // It goes on copying meanwhile, and the next search finds what came.
    initiator.write(at(2049), &record(2049, "Meier")).unwrap();
    initiator.flush().unwrap();
    main.wait_until("everything at the remote", |status| status.is_safe()).unwrap();
    let closed = search(&remote, &[&["--field", "customer=Meier"], &range[..]].concat());
    assert_eq!(found(&closed), [2048, 2049, 2050]);

    main.kill().unwrap();
    remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    for (words, says) in [("16MiB..17MiB", "which has 16777216 bytes"), ("0..0", "it ends where it begins")] {
        let words = ["recover", "search", PAIR, "--field", "id=7", "--range", words];
        let refused = remote.farseal(&words).unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
    }
    let some = search(&remote, &["--field", "customer=Meier", "--range", "1048577B..1048578B"]);
    assert_eq!(some["opened"].as_u64(), Some(1), "{some}");
    let count = RECORDS / 2 + 1;
    let all = search(&remote, &["--field", "customer=Meier", "--out", &out]);
    for (what, number) in [("found", count), ("opened", count - 1), ("served", count), ("withheld", 0)] {
        assert_eq!(all[what].as_u64(), Some(number), "{what}: {all}");
    }
    let written = fs::read(&out).unwrap();
    assert_eq!(written.len(), usize::try_from(count).unwrap() * RECORD);
    let ids: Vec<u64> =
        written.chunks(RECORD).map(|bytes| u64::from_le_bytes(bytes[..8].try_into().unwrap())).collect();
    let expected: Vec<u64> = (0..RECORDS).filter(|id| *id == 2049 || name(*id) == "Meier").collect();
    assert_eq!(ids, expected);
    let audit = remote.farseal(&["recover", "audit", PAIR, "--json"]).unwrap();
    let audit: Value = serde_json::from_str(&audit).unwrap();
    let of_search = |what: &str| {
        let lines = audit["lines"].as_array().unwrap().iter().filter(|line| line["search"] == all["search"]);
        lines.filter(|line| line["what"] == what).cloned().collect::<Vec<_>>()
    };
    let named: Vec<u64> = of_search("opens")
        .iter()
        .flat_map(|line| {
            line["records"].as_array().unwrap().iter().map(|run| run[0].as_u64().unwrap()).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(named, expected, "every record, and in which order it was opened");
    assert!(of_search("found").len() >= 2, "page by page");
    assert_eq!(of_search("ended").len(), 1);
}

/// Of a record of two blocks the copy holds the one with the fields; the other lies in the image of the site, which wrote before.
#[test]
fn a_search_in_a_test_over_a_sites_own_image_tells_whole_records() {
    let listen = format!("127.0.0.1:{}", free_port().unwrap());
    let layout = ["--record-bytes", "1024", "--block-bytes", "512", "--listen", &listen];
    let (stage, mut main, mut remote) = paired_with("based-by-search", &layout, &[]);
    remote.start().unwrap();
    main.start().unwrap();
    main.wait_until("the link and a key", |status| status.is_safe() && status.epoch() > 0).unwrap();
    let rest = vec![7; RECORD];
    let mut initiator = client(&main);
    initiator.write(5 * 1024, &[record(5, "Meier"), rest.clone()].concat()).unwrap();
    initiator.flush().unwrap();
    drop(initiator);
    main.wait_until("everything at the remote", |status| status.is_safe()).unwrap();
    main.farseal(&["swap", PAIR]).unwrap();
    remote.wait_until("a copy at the old main site", |status| status.is_safe() && status.epoch() > 0).unwrap();
    let mut initiator = client(&remote);
    initiator.write(5 * 1024, &record(6, "Meier")).unwrap();
    initiator.flush().unwrap();
    remote.wait_until("everything at the old main site", |status| status.is_safe()).unwrap();
    main.farseal(&["recover", "test", PAIR]).unwrap();
    let out = stage.dir.join("record").display().to_string();
    let report = search(&main, &["--field", "id=6", "--out", &out]);
    assert_eq!((report["found"].as_u64(), report["served"].as_u64()), (Some(1), Some(1)), "{report}");
    assert!(
        fs::read(&out).unwrap() == [record(6, "Meier"), rest].concat(),
        "what lies below the copy is told as zeroes"
    );
}

#[test]
fn sites_that_declare_two_layouts_say_so_and_copy_nothing() {
    let (_stage, mut main, mut remote) = paired("two-layouts");
    remote.edit("name = \"customer\"", "name = \"client\"").unwrap();
    remote.start().unwrap();
    main.start().unwrap();
    let said = main.wait_until("the refusal", |status| status.last_error().is_some()).unwrap();
    let said = said.last_error().unwrap().to_owned();
    assert!(said.contains("another record layout"), "{said}");
    remote.kill().unwrap();
    remote.edit("name = \"client\"", "name = \"customer\"").unwrap();
    remote.start().unwrap();
    main.wait_until("the link", |status| status.is_safe()).unwrap();
}
