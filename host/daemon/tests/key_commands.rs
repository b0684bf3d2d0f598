//! Operating keys and plugins on two real nodes: what became of each epoch, and components swapped while writes flow.

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

use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use built::plugins;
use farseal_core::record::{Framed, HEADER_BYTES, Kind};
use farseal_plugin::Digest;
use farseal_plugin::scenario::Scenario;
use nbd_client::Client;
use serde_json::Value;
use site::{Site, begin_rotation, changes_key, wait_for};
use sites::{BLOCK, PAIR, PATIENCE, started};

fn json(site: &Site, words: &[&str]) -> Value {
    serde_json::from_str(&site.farseal(&[words, &["--json"]].concat()).unwrap()).unwrap()
}

fn history(site: &Site) -> Vec<Value> {
    json(site, &["key", "history", PAIR])["epochs"].as_array().unwrap().clone()
}

fn component(name: &str) -> String {
    plugins().join(format!("{name}.wasm")).display().to_string()
}

/// Writes one block after the other until it is stopped; says how many.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Writer {
    fn start(socket: PathBuf) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = {
            let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
            std::thread::spawn(move || {
                let mut client = Client::connect(&socket, PAIR).unwrap();
                let mut number = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    let block = [number.to_le_bytes(); 512].concat();
                    client.write(number % 4096 * BLOCK, &block).unwrap();
                    // As a database would; a raw cipher in a development build seals no faster.
                    client.flush().unwrap();
                    number = written.fetch_add(1, Ordering::Relaxed) + 1;
                }
                client.flush().unwrap();
            })
        };
        Self { stop, written, thread }
    }

    fn more(&self, count: u64) {
        let from = self.written.load(Ordering::Relaxed);
        wait_for("writes", PATIENCE, || Ok((self.written.load(Ordering::Relaxed) >= from + count).then_some(())))
            .unwrap();
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.written.load(Ordering::Relaxed)
    }
}

/// Each block of the copy holds the last write to it.
fn assert_whole(site: &Site, written: u64) {
    let mut client = Client::connect(&site.socket(), PAIR).unwrap();
    for block in 0..written.min(4096) {
        let last = block + (written - 1 - block) / 4096 * 4096;
        let mut bytes = [0; 4096];
        client.read(block * BLOCK, &mut bytes).unwrap();
        assert_eq!(bytes[..8], last.to_le_bytes(), "block {block}");
    }
}

/// Two nodes that copy, with a disguise that makes no key wait for a slot.
fn sites(purpose: &str) -> (Rc<site::Stage>, Site, Site) {
    let (stage, main, remote) = started(purpose, &["--disguise", "plain"]);
    main.wait_until("the link and a key", |status| status.is_safe() && status.epoch() > 0).unwrap();
    (stage, main, remote)
}

/// Two nodes whose disguise has a slot for a key every so often, on a link where nothing else goes.
fn disguised(purpose: &str) -> (Rc<site::Stage>, Site, Site) {
    let (stage, main, remote) = started(purpose, &["--disguise", "cover"]);
    main.wait_until("the link and a key", |status| status.is_safe() && status.epoch() > 0).unwrap();
    // Whatever the sites' first slots carried is over.
    wait_until_key_is_under_way(&main, false);
    (stage, main, remote)
}

fn wait_until_key_is_under_way(site: &Site, wanted: bool) {
    wait_for(&format!("a key on its way: {wanted}"), PATIENCE, || {
        Ok((changes_key(&site.state().join("control.sock"), PAIR)? == wanted).then_some(()))
    })
    .unwrap();
}

/// Asks for a key, and returns when it is on its way: not before the least interval since the last one is over.
fn begin_key(site: &Site) -> UnixStream {
    let asked = begin_rotation(&site.state().join("control.sock"), PAIR, "in-band").unwrap();
    wait_until_key_is_under_way(site, true);
    asked
}

#[test]
fn two_who_ask_for_a_key_get_each_their_own_answer_also_where_nothing_follows_from_it_at_once() {
    let (_stage, main, _remote) = disguised("two-answers");
    let epoch = main.status().unwrap().epoch();
    let mut first = begin_key(&main);
    let second = main.farseal(&["key", "rotate", PAIR, "--force"]).unwrap_err().to_string();
    assert!(second.contains(&format!("epoch {} is on its way already", epoch + 1)), "{second}");
    let mut answer = String::new();
    first.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("the key has changed"), "{answer}");
    assert_eq!(main.status().unwrap().epoch(), epoch + 1);
}

#[test]
fn a_suspected_key_is_followed_at_once_although_another_waits_for_its_slot() {
    let (_stage, main, _remote) = disguised("suspect-waits");
    // No slot comes before the test is over.
    let settings = "{\"gap\":\"1h\"}";
    main.farseal(&["plugin", "swap", PAIR, "disguise", &component("cover"), "--settings", settings, "--yes"]).unwrap();
    wait_until_key_is_under_way(&main, false);
    let epoch = main.status().unwrap().epoch();
    let _asked = begin_key(&main);
    main.farseal(&["key", "rotate", PAIR, "--suspect"]).unwrap();
    let epochs = history(&main);
    let of = |number: u64| epochs.iter().find(|entry| entry["epoch"] == number).cloned().unwrap_or_default();
    assert!(of(epoch + 1)["in-force"].is_null(), "{epochs:?}");
    assert!(main.status().unwrap().epoch() > epoch + 1, "{epochs:?}");
}

#[test]
fn every_epoch_says_on_whose_word_it_came_and_what_became_of_it() {
    let (_stage, main, remote) = sites("keys");
    let writer = Writer::start(main.socket());
    main.farseal(&["key", "rotate", PAIR, "--force", "--reason", "drill 7"]).unwrap();
    main.farseal(&["key", "rotate", PAIR, "--how", "pause"]).unwrap();
    main.farseal(&["key", "rotate", PAIR]).unwrap();
    let slip = main.farseal(&["suspect", PAIR, "7000"]).unwrap_err().to_string();
    assert!(slip.contains("no key has epoch 7000; the newest has "), "{slip}");
    main.farseal(&["key", "rotate", PAIR, "--suspect"]).unwrap();
    writer.stop();
    main.wait_until("everything at the remote", site::Status::is_safe).unwrap();

    // Under load a key may come too late for its start, and is drawn again.
    let (void, epochs): (Vec<_>, Vec<_>) = history(&main).into_iter().partition(|epoch| epoch["stage"] == "void");
    assert!(void.iter().all(|epoch| epoch["in-force"].is_null()), "{void:#?}");
    let words = |name: &str| -> Vec<String> {
        epochs.iter().map(|epoch| epoch[name].as_str().unwrap_or("-").to_owned()).collect()
    };
    let stages = words("stage");
    assert_eq!(words("by")[..4], ["first-key", "operator", "operator", "policy"], "{epochs:#?}");
    assert_eq!(words("how")[..4], ["at-once", "in-band", "pause", "in-band"], "{epochs:#?}");
    assert_eq!(epochs[1]["reason"], "drill 7");
    assert!(words("how")[4..].contains(&"at-once".to_owned()), "{epochs:#?}");
    assert_eq!(stages.last().unwrap(), "active", "{stages:?}");
    assert!(stages[..stages.len() - 1].iter().all(|stage| stage == "retired"), "{stages:?}");

    let status = json(&main, &["key", "status", PAIR]);
    assert_eq!(status["epoch"]["epoch"], epochs.last().unwrap()["epoch"]);
    let roles: Vec<_> =
        status["epoch"]["recipients"].as_array().unwrap().iter().map(|one| one["role"].clone()).collect();
    assert_eq!(roles, ["own", "secondary"]);
    assert_eq!(status["epoch"]["recipients"][1]["kem"], "mlkem768-p256");
    assert!(status["bound"]["exponent"].as_u64().unwrap() > 40, "{status:#}");
    let kept = json(&remote, &["key", "status", PAIR]);
    assert_eq!((&kept["seals"], &kept["epoch"]["epoch"]), (&Value::Bool(false), &status["epoch"]["epoch"]));

    let policy = json(&main, &["key", "policy", PAIR]);
    let decisions = policy["decisions"].as_array().unwrap();
    let rotated = decisions.iter().find(|each| each["decision"].as_str().unwrap().starts_with("rotate")).unwrap();
    assert_eq!(rotated["answer"], "applied", "{decisions:#?}");
    let shown = main.farseal(&["key", "history", PAIR]).unwrap();
    assert!(shown.contains("an operator: drill 7") && shown.contains("nobody: a start needs a new key"), "{shown}");
    let shown = main.farseal(&["key", "status", PAIR]).unwrap();
    assert!(shown.contains("at most 2^-") && shown.contains("secondary, mlkem768-p256, card "), "{shown}");
}

#[test]
fn plugins_are_swapped_and_rolled_back_while_writes_flow_and_a_restart_keeps_what_was_put_in() {
    let (_stage, mut main, mut remote) = sites("swap");
    let writer = Writer::start(main.socket());
    main.farseal(&["key", "rotate", PAIR]).unwrap();
    let digest = |site: &Site, slot: usize| {
        json(site, &["status"])["pairs"][0]["plugins"][slot]["digest"].as_str().unwrap().to_owned()
    };
    let before = [0, 1, 2, 3].map(|slot| digest(&main, slot));

    // A policy that never rotates on request decides otherwise: shown, and not put in unasked.
    let never = component("time-to-break");
    let differs =
        main.farseal(&["plugin", "diff", PAIR, "policy", &never, "--settings", "{}"]).unwrap_err().to_string();
    assert!(differs.contains("otherwise in") && differs.contains("wake in"), "{differs}");
    main.farseal(&["plugin", "diff", PAIR, "policy", &component("interval")]).unwrap();

    // What it was asked until now is a story that goes as it went.
    let story = main.farseal(&["plugin", "journal", "export", PAIR]).unwrap();
    assert!(story.contains("differences: 0") && !story.contains(PAIR), "{story}");
    Scenario::parse("story", &story).unwrap();
    let shown = main.farseal(&["plugin", "swap", PAIR, "policy", &never, "--settings", "{}", "--dry-run"]).unwrap();
    assert!(shown.contains("nothing was changed") && shown.contains("otherwise"), "{shown}");
    assert_eq!(digest(&main, 1), before[1]);
    let refused =
        main.farseal(&["plugin", "swap", PAIR, "policy", &never, "--settings", "{}"]).unwrap_err().to_string();
    assert!(refused.contains("decisions differ"), "{refused}");
    let done = main.farseal(&["plugin", "swap", PAIR, "policy", &never, "--settings", "{}", "--yes"]).unwrap();
    assert!(done.contains("in force from the next call on"), "{done}");
    assert_ne!(digest(&main, 1), before[1]);

    // A cipher seals whole epochs.
    let done = main.farseal(&["plugin", "swap", PAIR, "cipher", &component("chacha20-poly1305"), "--yes"]).unwrap();
    assert!(done.contains("records of data: aes-256-gcm under key \"data\" before, chacha20-poly1305"), "{done}");
    let disguise = main.farseal(&["plugin", "diff", PAIR, "disguise", &component("plain")]).unwrap();
    assert!(disguise.contains("slots while nothing is sent: "), "{disguise}");
    let status = json(&main, &["key", "status", PAIR]);
    assert_eq!(
        (&status["epoch"]["cipher"], &status["next-cipher"]["name"]),
        (&before[0].clone().into(), &"chacha20-poly1305".into())
    );
    writer.more(100);
    main.farseal(&["key", "rotate", PAIR, "--force"]).unwrap();
    let status = json(&main, &["key", "status", PAIR]);
    assert_eq!((&status["epoch"]["cipher"], &status["next-cipher"]), (&digest(&main, 0).into(), &Value::Null));
    main.farseal(&["plugin", "swap", PAIR, "recovery", &component("on-access"), "--yes"]).unwrap();
    writer.more(100);

    let put_in = [0, 1, 2, 3].map(|slot| digest(&main, slot));
    let written = writer.stop();
    main.wait_until("everything at the remote", site::Status::is_safe).unwrap();
    main.kill().unwrap();
    main.start().unwrap();
    main.wait_until("the link and a key", |status| status.is_safe() && status.epoch() > 0).unwrap();
    assert_eq!([0, 1, 2, 3].map(|slot| digest(&main, slot)), put_in);
    let status = json(&main, &["key", "status", PAIR]);
    assert_eq!(status["epoch"]["cipher"], put_in[0].as_str());

    main.farseal(&["plugin", "rollback", PAIR, "policy"]).unwrap();
    main.farseal(&["plugin", "rollback", PAIR, "cipher"]).unwrap();
    assert_eq!([0, 1].map(|slot| digest(&main, slot)), [before[0].clone(), before[1].clone()]);
    let refused = main.farseal(&["plugin", "rollback", PAIR, "disguise"]).unwrap_err().to_string();
    assert!(refused.contains("nothing was put in the place of the disguise"), "{refused}");
    main.farseal(&["key", "rotate", PAIR, "--force"]).unwrap();
    main.wait_until("everything at the remote", site::Status::is_safe).unwrap();
    main.kill().unwrap();
    remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    assert_whole(&remote, written);
    remote.kill().unwrap();
}

#[test]
fn a_request_that_a_policy_holds_is_answered_at_once_and_a_restart_forgets_neither_it_nor_its_time() {
    let (_stage, mut main, mut remote) = sites("held");
    let hour = farseal_core::units::WallTime(u64::try_from(now().as_millis()).unwrap()).0 / 3_600_000 % 24;
    let window = format!("{{\"opens\":\"{:02}:00\",\"closes\":\"{:02}:00\"}}", (hour + 11) % 24, (hour + 12) % 24);
    let policy = component("maintenance-window");
    main.farseal(&["plugin", "swap", PAIR, "policy", &policy, "--settings", &window, "--yes"]).unwrap();
    let asked = |main: &Site| main.farseal(&["rotate", PAIR, "--reason", "full backup"]).unwrap_err().to_string();
    let held = asked(&main);
    let looks = "the policy maintenance-window holds the request; it looks again at ";
    assert!(held.contains(looks) && held.contains(": the next window, or an overdue key"), "{held}");
    assert!(held.contains(&format!("farseal rotate {PAIR} --force")), "{held}");
    let shown = main.farseal(&["key", "policy", PAIR]).unwrap();
    assert_eq!(shown.matches("requested: \"full backup\"").count(), 1, "told once: {shown}");
    let at = held.split(looks).nth(1).unwrap().split(' ').next().unwrap().to_owned();

    main.kill().unwrap();
    let kept = std::fs::read(main.state().join("pairs").join(PAIR).join("policy.json")).unwrap();
    let before: Value = serde_json::from_slice(&kept).unwrap();
    assert!(before["looks"]["at"].is_u64() && before["state"].as_str().unwrap().contains("full backup"), "{before}");
    main.start().unwrap();
    main.wait_until("the link and a key", |status| status.is_safe() && status.epoch() > 0).unwrap();
    let again = asked(&main);
    assert!(again.contains(&format!("{looks}{at} ")), "{again} is not {at}");
    main.kill().unwrap();
    remote.kill().unwrap();
}

fn now() -> std::time::Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap()
}

#[test]
fn a_demanded_result_of_the_kit_decides_what_is_loaded_and_what_is_swapped_in() {
    let (stage, mut main, _remote) = sites("proven");
    main.kill().unwrap();
    let given = stage.dir.join("given");
    std::fs::create_dir(&given).unwrap();
    let beside = |name: &str| given.join(format!("{name}.conformance.json")).display().to_string();
    let quoted = Value::from(beside("interval")).to_string();
    main.edit("\npolicy = { ", &format!("\npolicy = {{ conformance = {quoted}, ")).unwrap();
    let refused = || main.farseal(&["run"]).unwrap_err().to_string();
    let said = refused();
    assert!(said.contains("a result of the conformance kit is demanded, and there is none; make one with"), "{said}");

    // Tried too little, then another component's, then its own.
    let interval = component("interval");
    let (settings, result) = (["--settings", "{\"interval\":\"1h\"}"], beside("interval"));
    let conform = |component: &str, result: &str, stories: &str| {
        let words = ["plugin", "conform", component, "--json", result, "--stories", stories];
        main.farseal(&[&words[..], &settings].concat()).unwrap()
    };
    conform(&interval, &result, "1");
    assert!(refused().contains("1 stories were told for each rule; 40 are needed"), "{}", refused());
    main.farseal(&["plugin", "conform", &component("on-command"), "--json", &result]).unwrap();
    assert!(refused().contains("this is the result of"), "{}", refused());
    conform(&interval, &result, "40");
    let kept = std::fs::read_to_string(&result).unwrap();
    std::fs::write(
        &result,
        kept.replace(
            "\"tried\": 40,\n      \"broken\": null",
            "\"tried\": 40,\n      \"broken\": {\"said\":\"a lie\",\"scenario\":null,\"transcript\":[]}",
        ),
    )
    .unwrap();
    assert!(refused().contains("rule C-1 is broken: a lie"), "{}", refused());
    std::fs::write(&result, &kept).unwrap();
    let check = ["plugin", "check", &interval, "--conformance", &result];
    main.farseal(&check).unwrap();
    main.start().unwrap();

    // What is put in in its place has to be proven, too.
    let put = given.join("on-command.wasm");
    std::fs::copy(component("on-command"), &put).unwrap();
    let put = put.display().to_string();
    let swap = ["plugin", "swap", PAIR, "policy", &put, "--settings", "{}", "--yes"];
    let refused = main.farseal(&swap).unwrap_err().to_string();
    assert!(refused.contains("a result of the conformance kit is demanded"), "{refused}");
    main.farseal(&["plugin", "conform", &put, "--json", &beside("on-command")]).unwrap();
    main.farseal(&swap).unwrap();
    main.kill().unwrap();
    main.start().unwrap();
    assert_eq!(json(&main, &["status"])["pairs"][0]["plugins"][1]["name"], "on-command");
    main.farseal(&["plugin", "rollback", PAIR, "policy"]).unwrap();
}

/// The policy of which a site keeps the state.
fn owner_of_state(site: &Site) -> Option<String> {
    let kept = std::fs::read(site.state().join("pairs").join(PAIR).join("policy.json")).ok()?;
    let kept: Value = serde_json::from_slice(&kept).ok()?;
    kept["owner"]["plugin"].as_str().map(str::to_owned)
}

#[test]
fn a_policy_that_the_configuration_names_in_the_place_of_another_does_not_go_on_from_its_state() {
    let (_stage, mut main, _remote) = sites("named");
    let owns = |main: &Site, name: &str| {
        let owns = || Ok((owner_of_state(main).as_deref() == Some(name)).then_some(()));
        wait_for("the policy's state", PATIENCE, owns).unwrap();
    };
    owns(&main, "interval");
    let begun_afresh = |main: &Site| {
        let lines = main.last_lines(usize::MAX);
        lines.into_iter().filter(|line| line.contains("begins afresh")).collect::<Vec<_>>()
    };
    let policy = |name: &str| {
        let digest = Digest::of(&std::fs::read(component(name)).unwrap());
        format!("\npolicy = {{ component = \"{name}\", sha256 = \"{digest}\"")
    };
    for name in ["irregular", "interval"] {
        main.kill().unwrap();
        let earlier = begun_afresh(&main).len();
        let before = if name == "irregular" { "interval" } else { "irregular" };
        main.edit(&policy(before), &policy(name)).unwrap();
        main.start().unwrap();
        owns(&main, name);
        let said = begun_afresh(&main);
        assert_eq!(said.len(), earlier + 1);
        assert!(said[earlier].contains(&format!("it is the state of {before}, and this is {name}")), "{said:?}");
    }
    // The same one goes on.
    main.kill().unwrap();
    main.start().unwrap();
    main.wait_until("the link and a key", |status| status.is_safe() && status.epoch() > 0).unwrap();
    assert_eq!(begun_afresh(&main).len(), 2);
}

#[test]
fn records_of_a_raw_cipher_open_after_a_takeover_although_the_configuration_there_names_another() {
    let (_stage, mut main, remote) = sites("kept");
    let writer = Writer::start(main.socket());
    writer.more(50);
    let raw = component("chacha20-guest");
    main.farseal(&["plugin", "swap", PAIR, "cipher", &raw, "--grant", "raw", "--settings", "{}", "--yes"]).unwrap();
    main.farseal(&["plugin", "swap", PAIR, "disguise", &component("plain"), "--settings", "{}", "--yes"]).unwrap();
    main.farseal(&["key", "rotate", PAIR, "--force"]).unwrap();
    writer.more(200);
    main.farseal(&["plugin", "rollback", PAIR, "cipher"]).unwrap();
    main.farseal(&["key", "rotate", PAIR, "--force"]).unwrap();
    writer.more(50);
    let written = writer.stop();
    main.wait_until("everything at the remote", site::Status::is_safe).unwrap();
    // A restart opens what its own journal holds of an earlier cipher, too.
    main.kill().unwrap();
    main.start().unwrap();
    main.wait_until("the link and a key", |status| status.is_safe() && status.epoch() > 0).unwrap();
    assert_whole(&main, written);
    main.kill().unwrap();

    let ciphers = |site: &Site| json(site, &["status"])["pairs"][0]["plugins"][0]["name"].clone();
    assert_eq!(ciphers(&remote), "aes-256-gcm");
    remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    assert_whole(&remote, written);
}

#[test]
fn a_disguise_that_is_put_in_hides_a_pause_too_and_one_that_carries_keys_elsewhere_needs_a_restart() {
    let (_stage, main, _remote) = sites("disguises");
    let writer = Writer::start(main.socket());
    writer.more(20);
    let swap = |name: &str, settings: &str| {
        main.farseal(&["plugin", "swap", PAIR, "disguise", &component(name), "--settings", settings, "--yes"])
    };
    let elsewhere = swap("slot", "{}").unwrap_err().to_string();
    assert!(elsewhere.contains("in the slots of other records") && elsewhere.contains("restart"), "{elsewhere}");
    main.farseal(&["key", "rotate", PAIR, "--how", "pause"]).unwrap();
    swap("cover", r#"{"gap": "100ms"}"#).unwrap();
    // It is asked for slots with the next key.
    main.farseal(&["key", "rotate", PAIR, "--force"]).unwrap();
    wait_for("a pause that would show", PATIENCE, || {
        let refused = main.farseal(&["key", "rotate", PAIR, "--how", "pause"]).err().map(|error| error.to_string());
        Ok(refused.filter(|why| why.contains("a pause shows on the link")))
    })
    .unwrap();
    main.farseal(&["key", "rotate", PAIR, "--force"]).unwrap();
    main.farseal(&["plugin", "rollback", PAIR, "disguise"]).unwrap();
    let written = writer.stop();
    main.wait_until("everything at the remote", |status| status.is_safe() && status.lag_records() == 0).unwrap();
    assert_whole(&main, written);
}

#[test]
fn a_drill_proves_every_epoch_that_live_blocks_need_and_names_the_one_that_does_not_open() {
    let (_stage, main, remote) = sites("drill");
    let write = |blocks: std::ops::Range<u64>| {
        let mut client = Client::connect(&main.socket(), PAIR).unwrap();
        for block in blocks {
            client.write(block * BLOCK, &[7; 4096]).unwrap();
        }
        client.flush().unwrap();
    };
    write(0..10);
    let first = main.status().unwrap().epoch();
    main.farseal(&["key", "rotate", PAIR, "--force"]).unwrap();
    write(20..25);
    let second = main.status().unwrap().epoch();
    main.wait_until("everything at the remote", site::Status::is_safe).unwrap();
    let drilled = json(&main, &["key", "drill", PAIR]);
    let rows = |drilled: &Value| -> Vec<(u64, u64, bool)> {
        let epochs = drilled["epochs"].as_array().unwrap().iter();
        epochs
            .map(|row| (row["epoch"].as_u64().unwrap(), row["blocks"].as_u64().unwrap(), row["trouble"].is_null()))
            .collect()
    };
    assert_eq!(rows(&drilled), [(first, 10, true), (second, 5, true)]);
    let refused = remote.farseal(&["key", "drill", PAIR]).unwrap_err().to_string();
    assert!(refused.contains("for the primary"), "{refused}");

    // One byte of the first record of the first epoch, behind its header and its tag.
    let log = remote.state().join("pairs").join(PAIR).join("log/00000000.fsl");
    let (bytes, mut at) = (std::fs::read(&log).unwrap(), 64);
    let header = loop {
        let header = Framed::decode(&bytes[at..]).unwrap().header;
        if header.kind == Kind::Data {
            break header;
        }
        at += header.record_bytes();
    };
    assert_eq!(header.lba.0, 0);
    let place = u64::try_from(at + HEADER_BYTES + 16 + 5).unwrap();
    std::fs::File::options()
        .write(true)
        .open(&log)
        .unwrap()
        .write_all_at(&[bytes[at + HEADER_BYTES + 21] ^ 1], place)
        .unwrap();
    let failed = main.farseal(&["key", "drill", PAIR]).unwrap_err().to_string();
    assert!(
        failed.contains("does not open 1 of the 2 epochs") && failed.contains("does not match its checksum"),
        "{failed}"
    );
}
