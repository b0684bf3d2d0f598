//! Opening a copy on real nodes, over a kill and with damage: the report says exactly what was opened and what was not.

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

use std::fs;

use nbd_client::Client;
use serde_json::Value;
use site::{Site, wait_for};
use sites::{BLOCK, PAIR, PATIENCE, sites};

/// Half of the volume.
const BLOCKS: u64 = 2048;
/// Bytes that one request writes.
const PIECE: usize = 64 << 10;

fn image(seed: u64) -> Vec<u8> {
    let len = usize::try_from(BLOCKS * BLOCK).unwrap();
    let mut state = seed;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

fn write(site: &Site, from: u64, bytes: &[u8]) {
    let mut client = Client::connect(&site.socket(), PAIR).unwrap();
    for (at, piece) in (from..).step_by(PIECE).zip(bytes.chunks(PIECE)) {
        client.write(at, piece).unwrap();
    }
    client.flush().unwrap();
}

fn read(site: &Site) -> Vec<u8> {
    let mut client = exported(site);
    let mut bytes = vec![0; usize::try_from(BLOCKS * BLOCK).unwrap()];
    for (at, piece) in (0..).step_by(PIECE).zip(bytes.chunks_mut(PIECE)) {
        client.read(at, piece).unwrap();
    }
    bytes
}

fn exported(site: &Site) -> Client {
    wait_for("the export", PATIENCE, || Ok(Client::connect(&site.socket(), PAIR).ok())).unwrap()
}

fn settle(site: &Site) {
    site.wait_until("everything at both sites", |status| status.is_safe() && status.lag_records() == 0).unwrap();
}

/// The remote's recovery is this plugin with these settings, from its next start on.
fn strategy(remote: &mut Site, component: &str, config: &str) {
    remote.kill().unwrap();
    let text = fs::read_to_string(remote.config()).unwrap();
    let line = text.lines().find(|line| line.starts_with("recovery = ")).unwrap();
    let wasm = fs::read(built::plugins().join(format!("{component}.wasm"))).unwrap();
    let pinned = format!("component = \"{component}\", sha256 = \"{}\"", farseal_plugin::Digest::of(&wasm));
    remote.edit(line, &format!("recovery = {{ {pinned}, config = {config} }}")).unwrap();
    remote.start().unwrap();
}

fn take_over(main: &mut Site, remote: &Site) {
    main.kill().unwrap();
    remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
}

/// The report, if the node has one by now.
fn report(site: &Site) -> Option<Value> {
    let mut child = std::process::Command::new(built::farseal());
    child.args(["recover", "report", PAIR, "--json", "--config"]).arg(site.config());
    serde_json::from_slice(&child.output().unwrap().stdout).ok()
}

fn reported(site: &Site, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, PATIENCE, || Ok(report(site).filter(&wanted))).unwrap()
}

fn number(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap()
}

#[test]
fn a_sweep_goes_on_after_a_kill_and_reports_every_block_as_opened() {
    let (_stage, mut main, mut remote) = sites("sweep");
    strategy(&mut remote, "sweep", "{ chunk = 64, at-once = 1, rate = 400 }");
    settle(&main);
    let written = image(1);
    write(&main, 0, &written);
    settle(&main);
    take_over(&mut main, &remote);
    let some = reported(&remote, "some blocks to be open", |report| number(report, "opened") > 0);
    assert_eq!(number(&some, "present"), BLOCKS, "{some:#}");
    assert!(number(&some, "opened") < BLOCKS && some["stage"] != "finished", "{some:#}");
    remote.kill().unwrap();
    remote.start().unwrap();
    exported(&remote);
    remote.farseal(&["recover", "tell", PAIR, "rate", "off"]).unwrap();
    let all = reported(&remote, "the sweep to end", |report| report["stage"] == "finished");
    assert_eq!((number(&all, "opened"), number(&all, "failed")), (BLOCKS, 0), "{all:#}");
    let epochs = all["epochs"].as_array().unwrap();
    assert_eq!(epochs.iter().map(|epoch| number(epoch, "opened")).sum::<u64>(), BLOCKS, "{all:#}");
    assert_eq!(all["beginning"], some["beginning"], "what was known at the takeover");
    let swept = |report: &Value| {
        let ways = report["times"]["ways"].as_array().unwrap();
        let sweep = ways.iter().find(|way| way[0] == "sweep").unwrap()[1].clone();
        (number(&sweep, "first"), number(&sweep, "last"))
    };
    let ((began, _), (first, last)) = (swept(&some), swept(&all));
    assert_eq!(first, began, "a restart does not begin the account anew");
    assert!(number(&all["beginning"], "at") <= first && first < last && last <= number(&all, "now"), "{all:#}");
    assert_eq!(all["times"]["epochs"].as_array().unwrap().len(), epochs.len(), "{all:#}");
    assert!(read(&remote) == written);
    let told = remote.farseal(&["recover", "report", PAIR]).unwrap();
    assert!(told.contains("has opened all that it is to") && told.contains("lost      nothing up to record"), "{told}");
    assert!(told.contains("blocks by the sweep, from "), "{told}");
    assert!(main.start().is_ok());
    let refused = main.farseal(&["recover", "report", PAIR]).unwrap_err().to_string();
    assert!(refused.contains("recover plan"), "{refused}");
}

#[test]
fn what_was_written_last_is_open_first() {
    let (_stage, mut main, mut remote) = sites("hot");
    strategy(&mut remote, "hot-first", "{ chunk = 64, at-once = 1, rate = 400 }");
    settle(&main);
    write(&main, 0, &image(2));
    main.farseal(&["rotate", PAIR, "--force"]).unwrap();
    // The last sixteenth of what holds data, under the new key.
    let newest = image(3).split_off(usize::try_from(BLOCKS * BLOCK / 16 * 15).unwrap());
    write(&main, BLOCKS * BLOCK / 16 * 15, &newest);
    settle(&main);
    take_over(&mut main, &remote);
    let found = reported(&remote, "the newest epoch to be open", |report| {
        let newest = report["epochs"].as_array().and_then(|epochs| epochs.last().cloned()).unwrap_or_default();
        newest["blocks"] == BLOCKS / 16 && newest["opened"] == newest["blocks"]
    });
    let oldest = &found["epochs"][0];
    assert!(number(oldest, "opened") * 2 < number(oldest, "blocks"), "{found:#}");
}

#[test]
fn a_strategy_that_is_put_in_meanwhile_begins_by_itself() {
    let (_stage, mut main, mut remote) = sites("follow");
    strategy(&mut remote, "search-only", "{}");
    settle(&main);
    let written = image(4);
    write(&main, 0, &written);
    settle(&main);
    take_over(&mut main, &remote);
    exported(&remote);
    let story = wait_for("a journalled call", PATIENCE, || {
        Ok(remote.farseal(&["plugin", "journal", "export", PAIR, "recovery"]).ok())
    });
    let story = story.unwrap();
    assert!(story.contains("differences: 0") && !story.contains(PAIR), "{story}");

    let sweep = built::plugins().join("sweep.wasm").display().to_string();
    let put_in = |word: &str| remote.farseal(&["plugin", word, PAIR, "recovery", &sweep, "--settings", "{}"]);
    let differs = put_in("diff").unwrap_err().to_string();
    assert!(differs.contains("otherwise in"), "{differs}");
    assert_eq!(number(&report(&remote).unwrap(), "opened"), 0);
    remote.farseal(&["plugin", "swap", PAIR, "recovery", &sweep, "--settings", "{}", "--yes"]).unwrap();
    let all = reported(&remote, "the sweep to end", |report| report["stage"] == "finished");
    assert_eq!(number(&all, "opened"), BLOCKS, "{all:#}");
    assert!(read(&remote) == written);
}

#[test]
fn a_block_that_was_altered_in_the_copy_is_named_and_no_other_is_withheld() {
    let (_stage, mut main, mut remote) = sites("altered");
    let written = image(4);
    write(&main, 0, &written);
    settle(&main);
    remote.kill().unwrap();
    let altered = 77;
    let record = records::alter(
        &remote.state().join("pairs").join(PAIR).join("log/00000000.fsl"),
        altered,
        u64::try_from(PIECE).unwrap() / BLOCK,
    )
    .unwrap();
    strategy(&mut remote, "sweep", "{}");
    take_over(&mut main, &remote);
    let found = reported(&remote, "the sweep to end", |report| report["stage"] == "finished");
    assert_eq!((number(&found, "opened"), number(&found, "failed")), (BLOCKS - 1, 1), "{found:#}");
    let failure = &found["failures"][0];
    assert_eq!(
        (number(failure, "first"), number(failure, "blocks"), number(failure, "sequence")),
        (altered, 1, record)
    );
    assert_eq!(failure["why"], "not-authentic");
    let said = remote.farseal(&["recover", "status", PAIR]).unwrap_err().to_string();
    assert!(said.contains("recover report"), "{said}");
    let mut client = exported(&remote);
    for block in [altered - 1, altered + 1] {
        let mut bytes = [0; 4096];
        client.read(block * BLOCK, &mut bytes).unwrap();
        let from = usize::try_from(block * BLOCK).unwrap();
        assert!(bytes[..] == written[from..from + 4096]);
    }
    assert!(client.read(altered * BLOCK, &mut [0; 4096]).is_err(), "nothing false is served");
    let mut client = exported(&remote);
    client.write(altered * BLOCK, &[9; 4096]).unwrap();
    let mended = reported(&remote, "the block to be there again", |report| number(report, "failed") == 0);
    assert_eq!(number(&mended, "opened"), BLOCKS);
}

#[test]
fn an_image_that_is_gone_is_named_by_status_and_everything_is_there_when_it_is_back() {
    let (_stage, mut main, mut remote) = sites("gone");
    remote.kill().unwrap();
    let (image_file, away) = (remote.dir.join("elsewhere.img"), remote.dir.join("away.img"));
    let place = format!("\nimage = {}\nretention = \"none\"", Value::from(image_file.display().to_string()));
    remote.edit("\nretention = \"none\"", &place).unwrap();
    strategy(&mut remote, "sweep", "{}");
    settle(&main);
    let written = image(5);
    write(&main, 0, &written);
    settle(&main);
    take_over(&mut main, &remote);
    reported(&remote, "the sweep to end", |report| report["stage"] == "finished");
    remote.kill().unwrap();
    fs::rename(&image_file, &away).unwrap();
    remote.start().unwrap();
    let named = |status: &site::Status| status.last_error().is_some_and(|said| said.contains("elsewhere.img"));
    remote.wait_until("what is missing to be named", named).unwrap();
    let said = remote.farseal(&["status", PAIR]).unwrap_or_else(|error| error.to_string());
    assert!(said.contains("is gone; mount its file system") && said.contains("restart the node"), "{said}");
    assert!(Client::connect(&remote.socket(), PAIR).is_err(), "nothing is served in its place");
    assert!(!image_file.exists());
    remote.kill().unwrap();
    fs::rename(&away, &image_file).unwrap();
    remote.start().unwrap();
    assert!(read(&remote) == written);
}

#[test]
fn an_image_that_takes_no_more_is_tried_again_until_it_does_and_reads_are_answered_meanwhile() {
    let (_stage, mut main, mut remote) = sites("no-room");
    strategy(&mut remote, "sweep", "{ chunk = 64, at-once = 1, rate = 64 }");
    settle(&main);
    let written = image(6);
    write(&main, 0, &written);
    settle(&main);
    take_over(&mut main, &remote);
    exported(&remote);
    limit_files(&remote, "4194304:");
    remote.farseal(&["recover", "tell", PAIR, "rate", "off"]).unwrap();
    let stopped = reported(&remote, "the sweep to stop", |report| report["stage"] == "stopped");
    assert!(number(&stopped, "opened") <= 4 << 20 >> 12 && number(&stopped, "failed") == 0, "{stopped:#}");
    let log = fs::read_to_string(remote.log()).unwrap();
    assert!(log.contains("the opened image cannot be written: the sweep waits"), "{log}");
    assert!(read(&remote) == written, "what cannot be kept is answered");
    limit_files(&remote, "unlimited:");
    let all = reported(&remote, "the sweep to end", |report| report["stage"] == "finished");
    assert_eq!((number(&all, "opened"), number(&all, "failed")), (BLOCKS, 0), "{all:#}");
    assert!(read(&remote) == written);
}

/// How large files may get that the node writes: a full disk for everything behind that offset.
fn limit_files(site: &Site, limit: &str) {
    let pid = site.pid().unwrap().to_string();
    let limited = std::process::Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={limit}")]).status();
    assert!(limited.unwrap().success());
}
