//! Two nodes as processes of their own: killed under load, and given what they must refuse.
//!
//! The processes and the judgement are those of `cargo xtask chaos`, which does the same for as long as one likes and
//! with power cuts and full disks, too.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/built.rs"]
mod built;
#[expect(dead_code, reason = "its own tests load, too")]
#[path = "../../plugin/tests/support/hostile.rs"]
mod components;
#[expect(dead_code, reason = "the chaos command mounts it")]
#[path = "../../../xtask/src/chaos/disk.rs"]
mod disk;
#[path = "../../plugin/tests/support/host.rs"]
mod environment;
#[path = "../../../xtask/src/chaos/history.rs"]
mod history;
#[path = "../../../xtask/src/chaos/load.rs"]
mod load;
#[path = "../../../xtask/src/nbd_client.rs"]
mod nbd_client;
#[expect(dead_code, reason = "the chaos command reports the rest")]
#[path = "../../../xtask/src/chaos/rig.rs"]
mod rig;
#[expect(dead_code, reason = "the demo uses the rest")]
#[path = "../../../xtask/src/site.rs"]
mod site;
#[path = "two_sites/tap.rs"]
mod tap;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use built::{farseal, plugins};
use components::{hostile, text};
use nbd_client::Client;
use rig::{Hit, MayFail, PAIR, Rig};
use site::{PairTerms, Site, Stage, Status, free_port, wait_for};
use tap::Tap;

const PATIENCE: Duration = Duration::from_secs(60);

/// Two paired nodes that do not run yet.
fn pair(purpose: &str) -> (Rc<Stage>, Site, Site) {
    pair_of(purpose, &[])
}

/// They were paired with these words, too.
fn pair_of(purpose: &str, options: &[&str]) -> (Rc<Stage>, Site, Site) {
    let stage = Stage::new(purpose).unwrap();
    let main = Site::init(&stage, farseal(), plugins(), "main").unwrap();
    let remote = Site::init(&stage, farseal(), plugins(), "remote").unwrap();
    let volume = main.dir.join("volume.img");
    main.pair_with(&remote, &PairTerms { name: PAIR, volume: &volume, mebibytes: 16, options }).unwrap();
    (stage, main, remote)
}

/// Waits until the status names the trouble in these words.
fn wait_for_error(site: &Site, words: &str) {
    let found = wait_for(&format!("{}: {words:?}", site.name), PATIENCE, || {
        Ok(site.status()?.last_error().filter(|error| error.contains(words)).map(str::to_owned))
    });
    assert!(found.is_ok(), "{found:?}; the last error is {:?}", site.status().unwrap().last_error());
}

/// What a node says that ends at once instead of starting.
fn refusal(site: &mut Site) -> String {
    let started = site.start();
    let said = site.last_lines(40).join("\n");
    assert!(started.is_err(), "it started all the same:\n{said}");
    said
}

#[test]
fn what_was_promised_survives_kills_and_a_takeover() {
    let stage = Stage::new("kills").unwrap();
    let mut rig = Rig::new(&stage, farseal(), plugins(), 1, &[]).unwrap();
    for hit in [Hit::Main, Hit::Remote, Hit::Both] {
        rig.begin().unwrap();
        rig.let_run().unwrap();
        rig.kill(hit).unwrap();
        rig.end_load(MayFail::No).unwrap();
        rig.restart(hit).unwrap();
        rig.judge_main(hit).unwrap();
    }
    rig.take_over_for_good().unwrap();
    assert_eq!(rig.counts.violations, 0, "the images above cannot have come from what was written");
    assert!(rig.counts.judged.due > 0, "nothing was judged");
}

#[test]
fn covers_travel_and_are_checked_as_keys_are_while_no_key_is_due() {
    let (_stage, mut main, mut remote) = pair("covers");
    remote.start().unwrap();
    main.start().unwrap();
    main.wait_until("the link and a key", |status| status.is_safe() && status.epoch() == 1).unwrap();
    // What the remote extracted from a cover, verified and unwrapped.
    let kept = || fs::read(remote.state().join("pairs").join(PAIR).join("epochs/cover.package")).ok();
    let first = wait_for("a cover at the remote", PATIENCE, || Ok(kept())).unwrap();
    wait_for("another", PATIENCE, || Ok(kept().filter(|package| *package != first))).unwrap();
    assert_eq!(main.status().unwrap().epoch(), 1);
    let said = main.farseal(&["rotate", PAIR, "--how", "pause", "--force"]).unwrap_err().to_string();
    assert!(said.contains("a pause shows on the link"), "{said}");
}

#[test]
fn a_shaped_pair_copies_and_may_pause_for_a_key() {
    let (_stage, mut main, mut remote) = pair_of("shaped", &["--shape", "16MiB/s"]);
    remote.start().unwrap();
    main.start().unwrap();
    main.wait_until("the link and a key", |status| status.is_safe() && status.epoch() == 1).unwrap();
    let mut client = Client::connect(&main.socket(), PAIR).unwrap();
    client.write(0, &vec![5; 4 << 20]).unwrap();
    client.flush().unwrap();
    main.farseal(&["rotate", PAIR, "--how", "pause", "--force"]).unwrap();
    main.wait_until("the copy under the new key", |status| status.is_safe() && status.epoch() == 2).unwrap();
    remote.kill().unwrap();
    client.write(4 << 20, &[6; 4096]).unwrap();
    remote.start().unwrap();
    main.wait_until("the copy again", Status::is_safe).unwrap();
}

/// 32 bytes out of the middle of each data record that the remote's log holds.
fn sealed_at(remote: &Site) -> Vec<Vec<u8>> {
    let log = remote.state().join("pairs").join(PAIR).join("log");
    let segments = fs::read_dir(log).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    let middle = |segment: &[u8], at: usize| segment.get(at + 2_000..at + 2_032).map(<[u8]>::to_vec);
    let of = |segment: Vec<u8>| {
        let starts = segment.windows(6).enumerate().filter(|(_, bytes)| bytes.starts_with(b"FSR1") && bytes[5] == 1);
        starts.filter_map(|(at, _)| middle(&segment, at)).collect::<Vec<_>>()
    };
    segments.flat_map(of).collect()
}

#[test]
fn what_a_data_key_sealed_is_sealed_again_inside_tls_alone_and_a_fabric_shows_nothing_else() {
    for (link, sealed_twice) in [("tls", true), ("san", false)] {
        let stage = Stage::new(link).unwrap();
        let mut main = Site::init(&stage, farseal(), plugins(), "main").unwrap();
        let mut remote = Site::init(&stage, farseal(), plugins(), "remote").unwrap();
        let listens = free_port().unwrap();
        let tap = Tap::start(listens);
        let volume = main.dir.join("volume.img");
        let options = ["--link", link, "--disguise", "plain"];
        let terms = PairTerms { name: PAIR, volume: &volume, mebibytes: 16, options: &options };
        main.pair_over(&remote, &terms, tap.port, listens).unwrap();
        remote.start().unwrap();
        main.start().unwrap();
        main.wait_until("the link and a key", |status| status.is_safe() && status.epoch() == 1).unwrap();
        let mut client = Client::connect(&main.socket(), PAIR).unwrap();
        let written: Vec<u8> = b"in the clear at main".iter().copied().cycle().take(1 << 20).collect();
        for at in 0..4 {
            client.write(at << 20, &written).unwrap();
        }
        client.flush().unwrap();
        main.farseal(&["key", "rotate", PAIR, "--force"]).unwrap();
        client.write(4 << 20, &written).unwrap();
        client.flush().unwrap();
        main.wait_until("the copy under the new key", |status| status.is_safe() && status.epoch() == 2).unwrap();

        let sealed = sealed_at(&remote);
        assert!(sealed.len() >= 5, "{} data records in the log", sealed.len());
        let seen = sealed.iter().filter(|bytes| tap.saw(bytes)).count();
        assert_eq!(seen, if sealed_twice { 0 } else { sealed.len() }, "{link}");
        // Headers of records, and of the descriptors of keys.
        for structure in [&b"FSR1"[..], b"fsed", b"in the clear"] {
            assert!(!tap.saw(structure), "{link}: {:?} crossed", String::from_utf8_lossy(structure));
        }
        main.kill().unwrap();
        remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
        let mut client = Client::connect(&remote.socket(), PAIR).unwrap();
        let mut read = vec![0; 1 << 20];
        client.read(4 << 20, &mut read).unwrap();
        assert_eq!(read, written);
    }
}

#[test]
fn a_fabric_is_refused_where_tls_is_expected_and_the_other_way_round() {
    for (main_has, remote_has) in [("san", "tls"), ("tls", "san")] {
        let (_stage, mut main, mut remote) = pair_of("links", &["--link", main_has]);
        remote.edit(&format!("\nlink = \"{main_has}\"\n"), &format!("\nlink = \"{remote_has}\"\n")).unwrap();
        remote.start().unwrap();
        main.start().unwrap();
        wait_for_error(&main, "the peer has another link for this pair");
        assert_eq!(remote.status().unwrap().mark("durable"), 0);
    }
}

#[test]
fn sites_that_disagree_on_encryption_exchange_nothing_and_both_say_so() {
    let (_stage, mut main, mut remote) = pair("encrypt");
    remote.edit("\nencrypted = true\n", "\nencrypted = false\n").unwrap();
    remote.start().unwrap();
    main.start().unwrap();
    wait_for_error(&main, "encrypt bit");
    wait_for_error(&remote, "encrypt bit");
    assert_eq!(remote.status().unwrap().mark("durable"), 0);
}

#[test]
fn a_node_of_another_identity_gets_no_link() {
    let (stage, mut main, mut remote) = pair("stranger");
    let stranger = Site::init(&stage, farseal(), plugins(), "stranger").unwrap();
    for file in ["passphrase", "state/identity.sealed", "state/card.toml"] {
        fs::copy(stranger.dir.join(file), main.dir.join(file)).unwrap();
    }
    remote.start().unwrap();
    main.start().unwrap();
    wait_for("the remote's word on the stranger", PATIENCE, || {
        Ok(remote.last_lines(20).iter().any(|line| line.contains("a path ended")).then_some(()))
    })
    .unwrap();
    let status = main.status().unwrap();
    assert_eq!((status.state(), status.mark("safe")), ("link-down", 0));
    assert!(status.last_error().is_some());
    assert_eq!(remote.status().unwrap().mark("durable"), 0);
}

#[test]
fn an_altered_plugin_stops_the_start_and_is_named() {
    let (stage, mut main, _remote) = pair("altered");
    let altered = stage.dir.join("altered");
    fs::create_dir(&altered).unwrap();
    for entry in fs::read_dir(plugins()).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_file() {
            fs::copy(entry.path(), altered.join(entry.file_name())).unwrap();
        }
    }
    let cipher = altered.join("aes-256-gcm.wasm");
    let mut bytes = fs::read(&cipher).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&cipher, bytes).unwrap();
    main.edit(plugins().to_str().unwrap(), altered.to_str().unwrap()).unwrap();
    let said = refusal(&mut main);
    for words in ["cipher", "is not the component that was pinned", "help: restore the pinned file"] {
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
    }
}

/// Gives a slot another component, as an operator does who trusts it.
fn choose(site: &Site, slot: &str, component: &Path, config: &str) {
    let pin = farseal_plugin::Digest::of(&fs::read(component).unwrap());
    let configuration = fs::read_to_string(site.config()).unwrap();
    let chosen = configuration.lines().find(|line| line.starts_with(&format!("{slot} = "))).unwrap();
    let component = component.display();
    let choice =
        format!("{slot} = {{ component = {:?}, sha256 = \"{pin}\", config = {config} }}", component.to_string());
    site.edit(chosen, &choice).unwrap();
}

#[test]
fn what_is_no_policy_of_this_contract_stops_the_start_and_says_what_to_do() {
    let (stage, mut main, _remote) = pair("foreign");
    for (name, bytes, words) in [
        ("core-module", text("core-module"), ["is a core module, not a component", "cargo xtask plugins"]),
        ("wasi", text("wasi"), ["has no WASI", "wasm32-unknown-unknown"]),
        ("other-kind", hostile("disguise"), ["is a disguise plugin", "this slot takes a rotation plugin"]),
        ("other-version", text("other-version"), ["this host speaks 0.1", "wit/v0.1"]),
        ("text", b"(component)".to_vec(), ["is not WebAssembly", "target/plugins"]),
    ] {
        let file = stage.dir.join(name).with_extension("wasm");
        fs::write(&file, bytes).unwrap();
        choose(&main, "policy", &file, "{}");
        let said = refusal(&mut main);
        for words in words {
            assert!(said.contains(words), "{name}: {words:?} is not in:\n{said}");
        }
    }
}

#[test]
fn a_policy_that_misbehaves_costs_the_pair_nothing_and_is_shown() {
    let (stage, mut main, mut remote) = pair("hostile");
    let file = stage.dir.join("hostile.wasm");
    fs::write(&file, hostile("rotation")).unwrap();
    remote.start().unwrap();
    for deed in ["trap", "loop", "hoard", "flood", "recurse"] {
        choose(&main, "policy", &file, &format!("{{ do = \"{deed}\" }}"));
        main.start().unwrap();
        main.wait_until("the link and a key", |status| status.state() == "copying" && status.epoch() > 0).unwrap();
        let mut client = Client::connect(&main.socket(), PAIR).unwrap();
        client.write(0, deed.as_bytes()).unwrap();
        client.flush().unwrap();
        let epoch = main.status().unwrap().epoch();
        main.farseal(&["rotate", PAIR, "--force"]).unwrap();
        main.wait_until("a new key all the same", |status| status.is_safe() && status.epoch() > epoch).unwrap();
        let shown = main.farseal(&["plugin", "list"]).unwrap();
        let shown: Vec<_> = shown.lines().filter(|line| line.contains("failed")).collect();
        assert!(!shown.is_empty(), "{deed}: no fault is shown");
        main.kill().unwrap();
    }
}

#[test]
fn the_way_back_to_a_policy_that_was_here_is_open_though_it_breaks_a_rule() {
    let (stage, mut main, mut remote) = pair("way-back");
    let file = stage.dir.join("hostile.wasm");
    fs::write(&file, hostile("rotation")).unwrap();
    choose(&main, "policy", &file, "{ do = \"late-wake\" }");
    remote.start().unwrap();
    main.start().unwrap();
    main.wait_until("the link and a key", |status| status.state() == "copying" && status.epoch() > 0).unwrap();
    let interval = plugins().join("interval.wasm").display().to_string();
    let swap = ["plugin", "swap", PAIR, "policy", &interval, "--settings", "{\"interval\":\"1h\"}", "--yes"];
    main.farseal(&swap).unwrap();
    let back = main.farseal(&["plugin", "rollback", PAIR, "policy"]).unwrap();
    assert!(back.contains("it breaks a rule of the contract: C-") && back.contains("It was here before"), "{back}");
    let shown = main.farseal(&["plugin", "list"]).unwrap();
    assert!(shown.contains("hostile"), "{shown}");
    // As anything new it is not put in.
    let (file, pin) = (file.display().to_string(), ["--settings", "{\"do\":\"late-wake\"}", "--yes"]);
    main.farseal(&swap).unwrap();
    let refused = main.farseal(&[&["plugin", "swap", PAIR, "policy", &file], &pin[..]].concat()).unwrap_err();
    assert!(refused.to_string().contains("it breaks a rule of the contract"), "{refused}");
    main.kill().unwrap();
    remote.kill().unwrap();
}

#[test]
fn what_the_copy_lacks_is_shown_to_nbd_clients() {
    let Ok(nbdinfo) = Command::new("nbdinfo").arg("--version").output() else {
        eprintln!("not tested here: nbdinfo is not installed");
        return;
    };
    assert!(nbdinfo.status.success());
    let (_stage, mut main, mut remote) = pair("owed");
    remote.start().unwrap();
    main.start().unwrap();
    main.wait_until("nothing owed", |status| status.is_safe() && status.epoch() > 0).unwrap();
    let map = |main: &Site| {
        let output = Command::new("nbdinfo").arg("--map=farseal:owed").arg(main.uri(PAIR)).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(map(&main), ["0 16777216 0"]);
    remote.kill().unwrap();
    Client::connect(&main.socket(), PAIR).unwrap().write(8192, &[7; 4096]).unwrap();
    assert_eq!(map(&main), ["0 8192 0", "8192 4096 1", "12288 16764928 0"]);
    remote.start().unwrap();
    main.wait_until("nothing owed again", Status::is_safe).unwrap();
    assert_eq!(map(&main), ["0 16777216 0"]);
}

#[test]
fn a_changed_bit_in_what_the_journal_promised_stops_the_start() {
    let stage = Stage::new("journal").unwrap();
    let mut rig = Rig::new(&stage, farseal(), plugins(), 2, &[]).unwrap();
    // What the remote lacks stays in the journal.
    rig.kill(Hit::Remote).unwrap();
    for _ in 0..2 {
        rig.begin().unwrap();
        rig.let_run().unwrap();
        rig.end_load(MayFail::No).unwrap();
    }
    // Durable, and said to be so by a commit that came after.
    let mut client = Client::connect(&rig.main.socket(), PAIR).unwrap();
    for byte in [1, 2] {
        client.flush().unwrap();
        client.write(0, &[byte; 4096]).unwrap();
    }
    client.flush().unwrap();
    rig.kill(Hit::Main).unwrap();
    let journal = rig.main.state().join("pairs").join(PAIR).join("journal");
    let mut segments: Vec<PathBuf> = fs::read_dir(journal).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    let segment = segments.last().unwrap();
    let mut bytes = fs::read(segment).unwrap();
    // Among the first records.
    bytes[4 << 10] ^= 1;
    fs::write(segment, bytes).unwrap();
    let said = refusal(&mut rig.main);
    let name = segment.file_name().unwrap().to_str().unwrap();
    for words in [name, "have the secondary take over"] {
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
    }
}

#[test]
fn a_log_that_is_overwritten_for_ever_stays_small_and_the_copy_whole() {
    const VOLUME: u64 = 16 << 20;
    let (_stage, mut main, mut remote) = pair("compact");
    remote.start().unwrap();
    main.start().unwrap();
    main.wait_until("nothing owed", Status::is_safe).unwrap();
    let log = remote.state().join("pairs").join(PAIR).join("log");
    let bytes = || {
        let entries = fs::read_dir(&log).unwrap().filter_map(|entry| entry.unwrap().metadata().ok());
        entries.map(|metadata| metadata.len()).sum::<u64>()
    };
    let mut client = Client::connect(&main.socket(), PAIR).unwrap();
    for round in 1..=40_u8 {
        // Halves, the second from an odd block on, so that records are overwritten in part.
        for at in (0..VOLUME).step_by(1 << 20) {
            let skip = if round % 2 == 0 { 0 } else { 12 << 10 };
            client.write(at + skip, &vec![round; (1 << 20) - usize::try_from(skip).unwrap()]).unwrap();
        }
        client.flush().unwrap();
        main.wait_until("nothing owed", Status::is_safe).unwrap();
        if round == 30 {
            remote.kill().unwrap();
            remote.start().unwrap();
        }
    }
    // 640 MiB came. Less than half a segment is alive, and two may not be full or not in the index on disk.
    wait_for("the log is compacted", PATIENCE, || Ok((bytes() < 460 << 20).then_some(()))).unwrap();
    let mut expected = vec![0; usize::try_from(VOLUME).unwrap()];
    client.read(0, &mut expected).unwrap();
    drop(client);
    main.kill().unwrap();
    remote.farseal(&["scrub", PAIR]).unwrap();
    remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    let mut copied = vec![0; expected.len()];
    Client::connect(&remote.socket(), PAIR).unwrap().read(0, &mut copied).unwrap();
    assert!(copied == expected, "the copy differs");
}
