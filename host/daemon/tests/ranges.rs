//! Nodes as processes of their own, where pairs copy ranges of one volume, each to its own remote.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/built.rs"]
mod built;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../../xtask/src/nbd_client.rs"]
mod nbd_client;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../../xtask/src/site.rs"]
mod site;

use std::rc::Rc;
use std::time::Duration;

use built::{farseal, plugins};
use nbd_client::Client;
use serde_json::Value;
use site::{PairTerms, Site, Stage, free_port, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
/// The first pair's name is the volume's, and so the export's.
const EXPORT: &str = "low";
/// What each pair copies: the second has two ranges.
const LOW: (u64, u64) = (0, 4 * MIB);
const HIGH: [(u64, u64); 2] = [(8 * MIB, 9 * MIB), (10 * MIB, 12 * MIB)];

/// A volume of 16 MiB at main, and the image that initiators should find there.
struct Volume {
    client: Client,
    image: Vec<u8>,
}

impl Volume {
    fn write(&mut self, at: u64, len: u64, byte: u8) {
        let bytes: Vec<u8> = (0..len).map(|place| byte ^ u8::try_from(place % 251).unwrap()).collect();
        self.client.write(at, &bytes).unwrap();
        let at = usize::try_from(at).unwrap();
        self.image[at..at + bytes.len()].copy_from_slice(&bytes);
    }

    fn part(&self, (start, end): (u64, u64)) -> &[u8] {
        &self.image[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()]
    }
}

fn client(site: &Site, export: &str) -> Client {
    let connect = || Ok(Client::connect(&site.socket(), export).ok());
    wait_for(&format!("export {export} of {}", site.name), PATIENCE, connect).unwrap()
}

fn whole(client: &mut Client) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(client.size).unwrap()];
    for (at, piece) in (0..).step_by(1 << 20).zip(bytes.chunks_mut(1 << 20)) {
        client.read(at, piece).unwrap();
    }
    bytes
}

fn status(site: &Site, pair: &str) -> Value {
    let node: Value = serde_json::from_str(&site.farseal(&["status", "--json"]).unwrap()).unwrap();
    node["pairs"].as_array().unwrap().iter().find(|each| each["name"] == pair).unwrap().clone()
}

fn wait_until_safe(site: &Site, pair: &str) {
    wait_for(&format!("everything of {pair} at the other site"), PATIENCE, || {
        let status = status(site, pair);
        let marks = &status["marks"];
        let safe = status["state"]["is"] == "copying" && status["lag"]["bytes"] == 0 && marks["safe"] == marks["last"];
        Ok((safe && status["key"]["epoch"].as_u64() > Some(0)).then_some(()))
    })
    .unwrap();
}

/// Main with two pairs on ranges of one volume, and the remote of each.
fn sites(purpose: &str) -> (Rc<Stage>, Site, [Site; 2]) {
    let stage = Stage::new(purpose).unwrap();
    let mut main = Site::init(&stage, farseal(), plugins(), "main").unwrap();
    let volume = main.dir.join("volume.img");
    let listen = format!("127.0.0.1:{}", free_port().unwrap());
    let high = HIGH.map(|(start, end)| format!("{}MiB..{}MiB", start / MIB, end / MIB));
    let ranges = [vec!["--range", "0..4MiB"], vec!["--range", &high[0], "--range", &high[1]]];
    let remotes = [("low", &ranges[0]), ("high", &ranges[1])].map(|(name, ranges)| {
        let mut remote = Site::init(&stage, farseal(), plugins(), &format!("remote-{name}")).unwrap();
        // Each recovers by itself: as a group they would at their common cuts only.
        let options = [&["--listen", &listen, "--group", name], &ranges[..]].concat();
        main.pair_with(&remote, &PairTerms { name, volume: &volume, mebibytes: 16, options: &options }).unwrap();
        remote.start().unwrap();
        remote
    });
    main.start().unwrap();
    (stage, main, remotes)
}

#[test]
fn two_ranges_of_one_volume_are_copied_each_to_its_own_remote() {
    let (_stage, mut main, [mut low, high]) = sites("ranges");
    let mut volume = Volume { client: client(&main, EXPORT), image: vec![0; 16 << 20] };
    assert_eq!(volume.client.size, 16 * MIB);
    // Inside a range, over its end by odd bytes, over several ranges and what lies between, and where nothing is copied.
    volume.write(0, 64 << 10, 1);
    volume.write(4 * MIB - 100, 200, 2);
    volume.write(8 * MIB - 8192, 16384, 3);
    volume.write(3 * MIB, 10 * MIB, 4);
    volume.write(9 * MIB - 1, 2, 5);
    volume.write(14 * MIB, MIB, 6);
    volume.write(10 * MIB + 5, 3 * MIB, 7);
    volume.client.flush().unwrap();
    assert!(whole(&mut volume.client) == volume.image, "main does not read as it was written");
    wait_until_safe(&main, "low");
    wait_until_safe(&main, "high");
    assert_eq!(status(&main, "low")["range"], "0..4MiB");
    assert_eq!(status(&main, "high")["range"], "8MiB..9MiB, 10MiB..12MiB");
    // A restart replays each pair's journal to its own ranges.
    volume.write(2 * MIB, 7 * MIB, 8);
    volume.client.flush().unwrap();
    main.kill().unwrap();
    main.start().unwrap();
    volume.client = client(&main, EXPORT);
    assert!(whole(&mut volume.client) == volume.image, "a restart lost something");
    wait_until_safe(&main, "low");
    wait_until_safe(&main, "high");

    // Sides of one range are swapped; the rest of the volume goes on here.
    main.farseal(&["swap", "low"]).unwrap();
    wait_until_safe(&low, "low");
    assert!(whole(&mut client(&low, "low")) == volume.part(LOW), "low differs after the swap");
    assert!(volume.client.read(0, &mut [0; 512]).is_err(), "a range that was handed over was read here");
    assert!(volume.client.write(4 * MIB - 512, &[9; 1024]).is_err(), "a write over its end was answered well");
    // What a failed write leaves outside is not known: written again.
    volume.write(4 * MIB, 4096, 9);
    volume.write(8 * MIB, 4096, 9);
    volume.client.flush().unwrap();
    let mut there = client(&low, "low");
    there.write(MIB, &[10; 4096]).unwrap();
    there.flush().unwrap();
    volume.image[1 << 20..(1 << 20) + 4096].fill(10);
    wait_until_safe(&low, "low");
    low.farseal(&["swap", "low"]).unwrap();
    wait_until_safe(&main, "low");
    assert!(whole(&mut client(&main, EXPORT)) == volume.image, "the volume differs after the swap back");

    wait_until_safe(&main, "high");
    main.kill().unwrap();
    for (remote, pair) in [(&low, "low"), (&high, "high")] {
        remote.farseal(&["takeover", pair, "--yes"]).unwrap();
    }
    let expected = [volume.part(LOW).to_vec(), HIGH.map(|range| volume.part(range).to_vec()).concat()];
    assert!(whole(&mut client(&low, "low")) == expected[0], "what low took over is not what was written");
    assert!(whole(&mut client(&high, "high")) == expected[1], "what high took over is not what was written");
    // One of them is written to and had back.
    low.farseal(&["status"]).unwrap();
    let mut there = client(&low, "low");
    there.write(2 * MIB, &[11; 8192]).unwrap();
    there.flush().unwrap();
    main.start().unwrap();
    wait_for("the place where the histories part", PATIENCE, || Ok(main.farseal(&["rejoin", "low"]).ok())).unwrap();
    wait_until_safe(&low, "low");
    low.kill().unwrap();
    main.farseal(&["takeover", "low", "--yes"]).unwrap();
    volume.image[2 << 20..(2 << 20) + 8192].fill(11);
    let mut back = vec![0; 4 << 20];
    let mut here = client(&main, EXPORT);
    for (at, piece) in (0..).step_by(1 << 20).zip(back.chunks_mut(1 << 20)) {
        here.read(at, piece).unwrap();
    }
    assert!(back == volume.part(LOW), "the range that was had back differs");
}

#[test]
fn ranges_that_overlap_are_refused_with_both_names() {
    let (_stage, main, [low, _]) = sites("rangeoverlap");
    let paths = ["volume.img", "third.invitation"].map(|name| main.dir.join(name).display().to_string());
    let card = low.dir.join("card").display().to_string();
    let create = |options: &[&str]| {
        let words = ["pair", "create", "third", "--volume", &paths[0], "--peer-card", &card, "--invitation", &paths[1]];
        main.farseal(&[&words, options].concat())
    };
    for (range, said) in [
        ("3MiB..5MiB", "range 3MiB..5MiB of pair third and 0..4MiB of pair low overlap"),
        ("11MiB..12MiB", "range 11MiB..12MiB of pair third and 10MiB..12MiB of pair high overlap"),
        ("15MiB..17MiB", "ends beyond"),
        ("5MiB..5121KiB", "does not begin and end with a block"),
    ] {
        let refused = create(&["--range", range]).unwrap_err().to_string();
        assert!(refused.contains(said), "{range}: {refused}");
    }
    let refused = create(&[]).unwrap_err().to_string();
    assert!(refused.contains("pairs low and third both copy it, and one of them all of it"), "{refused}");
}
