//! A pair whose keys go in the slots of other records: two nodes as processes of their own, whose keys change while
//! somebody writes, with and without a link that breaks meanwhile.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/built.rs"]
mod built;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../../xtask/src/nbd_client.rs"]
mod nbd_client;
#[expect(dead_code, reason = "the demo uses the rest")]
#[path = "../../../xtask/src/site.rs"]
mod site;

use std::fs;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use built::{farseal, plugins};
use nbd_client::Client;
use site::{PairTerms, Site, Stage, begin_rotation, wait_for};

const PAIR: &str = "vault";
const BLOCK: u64 = 4096;
const BLOCKS: u64 = 4096;
const PATIENCE: Duration = Duration::from_secs(180);
/// What the remote says of keys that came in slots, to whoever asks for that much.
const WHOLE: &str = "all pieces of a key are here";
const STANDS: &str = "a key that came in slots has its place";

/// A pair that runs, and what was written to its volume.
struct Written {
    _stage: Rc<Stage>,
    main: Site,
    remote: Site,
    client: Client,
    /// The number that each block begins with.
    numbers: Vec<u64>,
    next: u64,
    /// The last wish for a key.
    asked: Option<UnixStream>,
}

impl Written {
    fn start(purpose: &str, mode: &str, link: &str) -> Self {
        let stage = Stage::new(purpose).unwrap();
        let mut main = Site::init(&stage, farseal(), plugins(), "main").unwrap();
        let mut remote = Site::init(&stage, farseal(), plugins(), "remote").unwrap();
        remote.edit("#log-filter = \"info\"", "log-filter = \"info,farseal::replica=debug\"").unwrap();
        let volume = main.dir.join("volume.img");
        let options = ["--disguise", "slot", "--mode", mode, "--link", link];
        main.pair_with(&remote, &PairTerms { name: PAIR, volume: &volume, mebibytes: 16, options: &options }).unwrap();
        remote.start().unwrap();
        main.start().unwrap();
        main.wait_until("the link and a key", |status| status.is_safe() && status.epoch() == 1).unwrap();
        let client = Client::connect(&main.socket(), PAIR).unwrap();
        Self {
            _stage: stage,
            main,
            remote,
            client,
            numbers: vec![0; usize::try_from(BLOCKS).unwrap()],
            next: 1,
            asked: None,
        }
    }

    /// Writes so many blocks, each on its own.
    fn write(&mut self, blocks: u64) {
        for _ in 0..blocks {
            let at = self.next * 7 % BLOCKS;
            self.client.write(at * BLOCK, &block(self.next)).unwrap();
            self.numbers[usize::try_from(at).unwrap()] = self.next;
            self.next += 1;
        }
    }

    fn begin_key(&mut self) {
        // Its answer comes when the key is in force: nobody waits for it here.
        self.asked = Some(begin_rotation(&self.main.dir.join("state/control.sock"), PAIR, "in-band").unwrap());
    }

    /// The key that was asked for has its place ahead, and goes with whatever is written: it is drawn beside a cover, and that one
    /// stands first.
    fn write_until_carried(&mut self) {
        wait_for("the key on its way", PATIENCE, || {
            self.write(20);
            let shown = self.main.farseal(&["key", "status", PAIR])?;
            Ok(shown.contains("in whose slots it goes").then_some(()))
        })
        .unwrap();
    }

    fn said(&self, words: &str) -> usize {
        fs::read_to_string(self.remote.log()).unwrap().matches(words).count()
    }

    /// Writes until the key of this epoch is in force.
    fn write_until(&mut self, epoch: u64) {
        wait_for("the next key", PATIENCE, || {
            self.write(50);
            Ok((self.main.status()?.epoch() >= epoch).then_some(()))
        })
        .unwrap();
    }

    /// The remote goes on alone and shows every block.
    fn take_over(mut self) {
        self.client.flush().unwrap();
        self.main.wait_until("a whole copy", |status| status.is_safe() && status.lag_records() == 0).unwrap();
        self.main.kill().unwrap();
        self.remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
        let mut client = Client::connect(&self.remote.socket(), PAIR).unwrap();
        let mut image = vec![0; usize::try_from(BLOCKS * BLOCK).unwrap()];
        for (part, at) in image.chunks_mut(1 << 20).zip(0u64..) {
            client.read(at << 20, part).unwrap();
        }
        for (found, number) in image.chunks(usize::try_from(BLOCK).unwrap()).zip(&self.numbers) {
            assert!(found == block(*number), "block of write {number}");
        }
    }
}

fn block(number: u64) -> Vec<u8> {
    number.to_le_bytes().iter().copied().cycle().take(usize::try_from(BLOCK).unwrap()).collect()
}

#[test]
fn keys_change_in_the_slots_of_data_and_a_takeover_reads_everything() {
    for (mode, link) in [("async", "tls"), ("sync", "tls"), ("async", "san")] {
        let mut pair = Written::start(&format!("slots-{mode}-{link}"), mode, link);
        for epoch in 2..5 {
            pair.begin_key();
            pair.write_until(epoch);
        }
        let (whole, stood) = (pair.said(WHOLE), pair.said(STANDS));
        // Covers come the same way.
        assert!(whole >= 3 && stood >= 3, "{mode}, {link}: {whole} came whole, {stood} stood");
        pair.take_over();
    }
}

#[test]
fn a_link_that_breaks_while_a_key_is_carried_costs_no_record_and_the_key_comes_all_the_same() {
    let mut pair = Written::start("slots-cut", "async", "tls");
    pair.begin_key();
    pair.write_until_carried();
    pair.write(60);
    pair.remote.kill().unwrap();
    pair.write(40);
    assert_eq!(pair.main.status().unwrap().epoch(), 1);
    pair.remote.start().unwrap();
    pair.main.wait_until("the link again", site::Status::is_safe).unwrap();
    pair.write_until(2);
    pair.begin_key();
    pair.write_until(3);
    assert!(pair.said(STANDS) >= 1);
    pair.take_over();
}

#[test]
fn the_writing_site_may_die_while_a_key_is_carried() {
    let mut pair = Written::start("slots-crash", "async", "tls");
    pair.begin_key();
    pair.write_until_carried();
    pair.write(60);
    pair.client.flush().unwrap();
    pair.main.kill().unwrap();
    pair.main.start().unwrap();
    pair.main.wait_until("the link and a key", |status| status.is_safe() && status.epoch() >= 2).unwrap();
    pair.client = Client::connect(&pair.main.socket(), PAIR).unwrap();
    let epoch = pair.main.status().unwrap().epoch();
    pair.begin_key();
    pair.write_until(epoch + 1);
    pair.take_over();
}

#[test]
fn on_an_idle_link_a_key_waits_for_somebody_to_write() {
    let mut pair = Written::start("slots-idle", "async", "tls");
    pair.begin_key();
    pair.write_until_carried();
    pair.main.wait_until("a copy of all", |status| status.lag_records() == 0).unwrap();
    assert_eq!(pair.main.status().unwrap().epoch(), 1);
    pair.write_until(2);
    pair.take_over();
}
