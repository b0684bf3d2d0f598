//! Earlier points of the copy, with nodes as processes of their own: every cut reads as it was, killed or not, compacted or not, while
//! writes go on; a test harms nothing; and a takeover at one is rejoined without copying everything.

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

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nbd_client::Client;
use site::{Site, wait_for};
use sites::{PAIR, PATIENCE, started};

const MIB: usize = 1 << 20;
const VOLUME: usize = 16 * MIB;
const EXPORT: &str = "vault.test";

/// Bytes of a round's piece that no other has.
fn piece(round: u64, at: u64) -> Vec<u8> {
    let seed = round * 1000 + at + 1;
    (0..MIB / 8)
        .flat_map(|word| (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::try_from(word).unwrap()).to_le_bytes())
        .collect()
}

fn connect(site: &Site, export: &str) -> Client {
    wait_for(&format!("{export} of {}", site.name), PATIENCE, || Ok(Client::connect(&site.socket(), export).ok()))
        .unwrap()
}

/// A round writes most of the volume, from another place on, in pieces that overlap those of the rounds before.
fn write_round(client: &mut Client, round: u64) {
    for at in 0..14_u64 {
        let offset = (at * 1024 + round * 516) % 15_360 * 1024 / 4096 * 4096;
        client.write(offset, &piece(round, at)).unwrap();
    }
    client.flush().unwrap();
}

fn image(site: &Site, export: &str) -> Vec<u8> {
    let mut client = connect(site, export);
    let mut image = vec![0; VOLUME];
    for (at, part) in image.chunks_mut(MIB).enumerate() {
        client.read(u64::try_from(at * MIB).unwrap(), part).unwrap();
    }
    image
}

fn refusal(site: &Site, words: &[&str]) -> String {
    site.farseal(words).unwrap_err().to_string()
}

fn points(site: &Site) -> String {
    site.farseal(&["recover", "points", PAIR]).unwrap()
}

/// Makes a cut and waits until the copy has it.
fn cut(main: &Site, remote: &Site, name: &str) {
    main.farseal(&["cut", "default", name]).unwrap();
    wait_for(name, PATIENCE, || Ok(points(remote).contains(name).then_some(()))).unwrap();
}

fn tested(remote: &Site, at: &str) -> Vec<u8> {
    remote.farseal(&["recover", "test", PAIR, "--at", at]).unwrap();
    let image = image(remote, EXPORT);
    remote.farseal(&["recover", "test", PAIR, "--end"]).unwrap();
    image
}

fn restart(sites: [&mut Site; 2]) {
    for site in sites {
        site.kill().unwrap();
        site.start().unwrap();
    }
}

fn assert_same(found: &[u8], expected: &[u8], what: &str) {
    let differs = found.chunks(4096).zip(expected.chunks(4096)).filter(|(one, other)| one != other).count();
    assert_eq!(differs, 0, "{what}: so many blocks differ");
}

#[test]
fn every_cut_reads_as_it_was_and_a_takeover_at_one_is_rejoined_with_what_differs() {
    let (_stage, mut main, mut remote) = started("any-point", &["--disguise", "plain"]);
    main.wait_until("the link and a key", |status| status.is_safe() && status.epoch() > 0).unwrap();
    remote.kill().unwrap();
    remote.edit("\nretention = \"none\"", "\nretention = \"24h\"").unwrap();
    remote.start().unwrap();
    main.wait_until("the link", |status| status.is_safe()).unwrap();

    let mut images = BTreeMap::new();
    for round in 1..=10 {
        write_round(&mut connect(&main, PAIR), round);
        if round == 4 || round == 7 {
            main.farseal(&["rotate", PAIR, "--force"]).unwrap();
        }
        let name = format!("cut-{round}");
        cut(&main, &remote, &name);
        images.insert(name, image(&main, PAIR));
        if round % 4 == 0 {
            restart([&mut remote, &mut main]);
        }
    }
    let text = points(&remote);
    assert!((1..=10).all(|round| text.contains(&format!("cut-{round} at record"))), "{text}");

    // While writes go on.
    let (stop, writes) = (Arc::new(AtomicBool::new(false)), connect(&main, PAIR));
    let writer = std::thread::spawn({
        let (stop, mut client) = (Arc::clone(&stop), writes);
        move || {
            let mut round = 100;
            while !stop.load(Ordering::Relaxed) {
                write_round(&mut client, round);
                round += 1;
            }
        }
    });
    for (name, expected) in &images {
        assert_same(&tested(&remote, name), expected, name);
    }
    // A tester writes, and nothing of it stays.
    remote.farseal(&["recover", "test", PAIR, "--at", "cut-3"]).unwrap();
    let twice = refusal(&remote, &["recover", "test", PAIR]);
    assert!(twice.contains("a test is under way"), "{twice}");
    let mut tester = connect(&remote, EXPORT);
    tester.write(4096 * 3 + 100, &[0xee; 9000]).unwrap();
    tester.flush().unwrap();
    let mut expected = images["cut-3"].clone();
    expected[4096 * 3 + 100..][..9000].fill(0xee);
    assert_same(&image(&remote, EXPORT), &expected, "what the tester wrote");
    let kept = fs::read(remote.state().join("pairs").join(PAIR).join("points/looked-at/scratch")).unwrap();
    assert!(!kept.windows(64).any(|window| window == [0xee; 64]), "what the tester wrote lies in clear");
    drop(tester);
    // A restart ends the test.
    remote.kill().unwrap();
    remote.start().unwrap();
    let over = refusal(&remote, &["recover", "test", PAIR, "--end"]);
    assert!(over.contains("not tested"), "{over}");
    assert!(Client::connect(&remote.socket(), EXPORT).is_err());
    assert_same(&tested(&remote, "cut-3"), &images["cut-3"], "cut-3 again");
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();

    // What is pinned stays while the window moves on and the log is compacted.
    for name in ["cut-2", "cut-6"] {
        remote.farseal(&["recover", "pin", PAIR, name]).unwrap();
    }
    main.wait_until("the link", |status| status.is_safe()).unwrap();
    let refused = refusal(&main, &["key", "retire", PAIR]);
    assert!(refused.contains("is pinned or under test there"), "{refused}");
    remote.kill().unwrap();
    remote.edit("\nretention = \"24h\"", "\nretention = \"1s\"").unwrap();
    remote.start().unwrap();
    main.wait_until("the link", |status| status.is_safe()).unwrap();
    let log = remote.state().join("pairs").join(PAIR).join("log");
    let compacted = || {
        let names = fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".fsc")).count()
    };
    let mut round = 500;
    let mut client = connect(&main, PAIR);
    wait_for("the log to be compacted", PATIENCE * 3, || {
        write_round(&mut client, round);
        round += 1;
        Ok((compacted() > 0).then_some(()))
    })
    .unwrap();
    let gone = refusal(&remote, &["recover", "test", PAIR, "--at", "cut-3"]);
    assert!(gone.contains("is not kept any more") && gone.contains("cut-2"), "{gone}");
    restart([&mut remote, &mut main]);
    for name in ["cut-2", "cut-6"] {
        assert_same(&tested(&remote, name), &images[name], name);
    }

    // The main site is lost; a takeover at a pin.
    main.wait_until("the link", |status| status.is_safe()).unwrap();
    main.kill().unwrap();
    let said = remote.farseal(&["takeover", PAIR, "--at", "cut-6", "--yes"]).unwrap();
    assert!(said.contains("the volume is as it was at record"), "{said}");
    assert_same(&image(&remote, PAIR), &images["cut-6"], "what was taken over");
    remote.kill().unwrap();
    remote.start().unwrap();
    assert_same(&image(&remote, PAIR), &images["cut-6"], "what was taken over, after a restart");
    connect(&remote, PAIR).write(0, &piece(900, 0)).unwrap();
    main.start().unwrap();
    wait_for("the old main site to hear of it", PATIENCE, || Ok(main.farseal(&["rejoin", PAIR]).ok()))
        .map(|said| assert!(!said.contains("the whole volume is copied"), "{said}"))
        .unwrap();
    remote.wait_until("the old main site to have everything", |status| status.is_safe()).unwrap();
    let expected = image(&remote, PAIR);
    remote.farseal(&["swap", PAIR]).unwrap();
    assert_same(&image(&main, PAIR), &expected, "the volume back at the main site");
}

#[test]
fn what_is_no_point_is_refused_and_the_points_there_are_are_named() {
    let (_stage, mut main, mut remote) = started("no-point", &["--disguise", "plain"]);
    main.wait_until("the link and a key", |status| status.is_safe() && status.epoch() > 0).unwrap();
    write_round(&mut connect(&main, PAIR), 1);
    cut(&main, &remote, "monday");
    write_round(&mut connect(&main, PAIR), 2);
    main.wait_until("everything at the remote", |status| status.is_safe()).unwrap();
    let recover = |words: &[&'static str]| [&["recover"], words].concat();
    let table = [
        (recover(&["test", PAIR, "--at", "monday"]), "is not kept any more: the oldest point is record"),
        (recover(&["test", PAIR, "--at", "999999999"]), "is not here yet: the newest point is record"),
        (recover(&["test", PAIR, "--at", "tuesday"]), "no cut or pin is called tuesday; the newest are monday"),
        (recover(&["test", PAIR, "--at", "1999-12-31T23:59:59Z"]), "that time is before every point"),
        (recover(&["test", PAIR, "--at", "2026-02-30T00:00:00Z"]), "a record's number"),
        (recover(&["test", PAIR, "--at", "no name"]), "a record's number"),
        (recover(&["test", PAIR, "--end"]), "not tested"),
        (recover(&["plan", PAIR, "--at", "tuesday"]), "no cut or pin is called tuesday"),
        (recover(&["unpin", PAIR, "tuesday"]), "no pin is called tuesday"),
        (vec!["takeover", PAIR, "--at", "tuesday", "--yes"], "no cut or pin is called tuesday"),
    ];
    for (words, said) in table {
        let refused = refusal(&remote, &words);
        assert!(refused.contains(said) && refused.contains("recover"), "{words:?}: {refused}");
    }
    // Without a window what is pinned is kept, and it alone.
    remote.farseal(&["recover", "pin", PAIR, "newest", "--name", "now-1"]).unwrap();
    let again = refusal(&remote, &["recover", "pin", PAIR, "newest", "--name", "now-1"]);
    assert!(again.contains("a pin is called now-1 already"), "{again}");
    let expected = image(&main, PAIR);
    write_round(&mut connect(&main, PAIR), 3);
    main.wait_until("everything at the remote", |status| status.is_safe()).unwrap();
    assert_same(&tested(&remote, "now-1"), &expected, "the pin");
    // A damaged book of points lets none of them go.
    remote.kill().unwrap();
    fs::write(remote.state().join("pairs").join(PAIR).join("points/points.json"), "{\"oldest\":").unwrap();
    remote.start().unwrap();
    main.wait_until("the link", |status| status.is_safe()).unwrap();
    assert_same(&tested(&remote, "now-1"), &expected, "the pin, after its book was damaged");
    let plan = remote.farseal(&["recover", "plan", PAIR, "--at", "now-1"]).unwrap();
    assert!(plan.contains("its key opens here"), "{plan}");
    assert!(plan.contains("ago by the main site's clock"), "a plan of an earlier point said no time: {plan}");
    // Nothing is pinned or let go that cannot be written down.
    let book = remote.state().join("pairs").join(PAIR).join("points/points.json.new");
    fs::create_dir(&book).unwrap();
    let refused = refusal(&remote, &["recover", "pin", PAIR, "newest", "--name", "now-2"]);
    assert!(refused.contains("the pin could not be written down, and was not made"), "{refused}");
    let refused = refusal(&remote, &["recover", "unpin", PAIR, "now-1"]);
    assert!(refused.contains("now-1 is still pinned: "), "{refused}");
    fs::remove_dir(&book).unwrap();
    restart([&mut remote, &mut main]);
    main.wait_until("the link", |status| status.is_safe()).unwrap();
    let none = refusal(&remote, &["recover", "test", PAIR, "--at", "now-2"]);
    assert!(none.contains("no cut or pin is called now-2"), "{none}");
    assert_same(&tested(&remote, "now-1"), &expected, "the pin, after it could not be let go");
    remote.farseal(&["recover", "unpin", PAIR, "now-1"]).unwrap();
    let gone = refusal(&remote, &["recover", "test", PAIR, "--at", "now-1"]);
    assert!(gone.contains("no cut or pin is called now-1"), "{gone}");
    for words in [["recover", "points", PAIR], ["recover", "test", PAIR]] {
        let refused = refusal(&main, &words);
        assert!(refused.contains("secondary"), "{words:?}: {refused}");
    }
}

#[test]
fn a_window_ends_where_its_keys_were_retired_and_begins_there_again() {
    let (_stage, mut main, mut remote) = started("window-retire", &["--disguise", "plain"]);
    main.wait_until("the link and a key", |status| status.is_safe() && status.epoch() > 0).unwrap();
    remote.kill().unwrap();
    remote.edit("\nretention = \"none\"", "\nretention = \"24h\"").unwrap();
    remote.start().unwrap();
    main.wait_until("the link", |status| status.is_safe()).unwrap();
    write_round(&mut connect(&main, PAIR), 1);
    cut(&main, &remote, "before");
    main.farseal(&["rotate", PAIR, "--force"]).unwrap();
    write_round(&mut connect(&main, PAIR), 2);
    main.wait_until("everything at the remote", |status| status.is_safe()).unwrap();
    let said = main.farseal(&["key", "retire", PAIR]).unwrap();
    assert!(said.contains("are destroyed at both sites"), "{said}");
    let gone = refusal(&remote, &["recover", "test", PAIR, "--at", "before"]);
    assert!(gone.contains("is not kept any more"), "{gone}");
    let status = remote.farseal(&["status"]).unwrap();
    assert!(status.contains("THE OLDEST WERE GIVEN UP: keys that it needed were retired"), "{status}");
    cut(&main, &remote, "after");
    let expected = image(&main, PAIR);
    write_round(&mut connect(&main, PAIR), 3);
    restart([&mut remote, &mut main]);
    main.wait_until("the link", |status| status.is_safe()).unwrap();
    assert_same(&tested(&remote, "after"), &expected, "what came after");
}
