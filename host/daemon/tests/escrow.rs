//! Three nodes as processes of their own, where the escrow site alone holds the keys: a disaster and what a person has to say
//! before anything opens, an escrow that is away, and an escrow whose key is shared out among people.

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
#[path = "support/three.rs"]
mod three;

use std::fs;
use std::path::{Path, PathBuf};

use built::plugins;
use serde_json::Value;
use site::wait_for;
use sites::{BLOCK, PAIR, PATIENCE};
use three::{Three, client, read, refusal, three, three_with, write};

/// As a lane draws them.
const DEPOSITED_AHEAD: u64 = 6;

impl Three {
    fn rotate(&self) {
        self.main.farseal(&["rotate", PAIR, "--force"]).unwrap();
    }

    /// The escrow knows how far the copy is, up to what was written by now.
    fn until_marked(&self) {
        let written = self.main.status().unwrap().mark("last");
        wait_for("the escrow to know how far the copy is", PATIENCE, || {
            let node: Value = serde_json::from_str(&self.main.farseal(&["status", "--json"])?)?;
            Ok(node["pairs"][0]["escrow"]["marked"].as_u64().filter(|marked| *marked >= written))
        })
        .unwrap();
    }

    /// The escrow holds so many keys, or more: one whose receipt was lost with its line is drawn anew. Says how many.
    fn until_held(&self, keys: u64) -> u64 {
        let held = || -> anyhow::Result<u64> {
            let view: Value = serde_json::from_str(&self.escrow.farseal(&["escrow", "requests", "--json"])?)?;
            Ok(view["keys"].as_u64().unwrap_or_default())
        };
        wait_for("the escrow's keys", PATIENCE, || Ok(Some(held()?).filter(|held| *held >= keys))).unwrap()
    }

    fn request(&self, reason: &str) {
        let request = ["escrow", "request", PAIR, "--reason", reason];
        // A line that broke with the escrow's restart says so once.
        let said = wait_for("the escrow's answer", PATIENCE, || Ok(self.remote.farseal(&request).ok())).unwrap();
        assert!(said.contains("nobody has approved it yet"), "{said}");
    }
}

/// Where components are kept by their digest.
fn kept(directory: &Path) -> PathBuf {
    directory.join("components")
}

fn digest_of(component: &str) -> String {
    format!("{}.wasm", farseal_plugin::Digest::of(&fs::read(component).unwrap()))
}

#[test]
fn a_copy_opens_with_keys_from_the_escrow_alone_and_only_after_a_person_says_yes() {
    let mut three = three("escrow");
    three.start();
    let raw = plugins().join("chacha20-guest.wasm").display().to_string();
    let swap = ["plugin", "swap", PAIR, "cipher", &raw, "--grant", "raw", "--settings", "{}", "--yes"];
    three.main.farseal(&swap).unwrap();
    for round in 1..=5 {
        write(&three.main, &[(u64::from(round), round)]);
        three.rotate();
    }
    write(&three.main, &[(6, 6)]);
    three.main.wait_until("everything at the remote", |status| status.is_safe()).unwrap();
    three.until_escrow_keeps(&digest_of(&raw));
    let drilled = three.main.farseal(&["key", "drill", PAIR]).unwrap();
    assert_eq!(drilled.matches("holds no key; the escrow opens it").count(), 6, "{drilled}");
    three.escrow.kill().unwrap();
    let failed = refusal(&three.main, &["key", "drill", PAIR]);
    assert!(failed.contains("the escrow site does not open 6 of the 6 epochs"), "{failed}");
    three.escrow.start().unwrap();
    three.main.kill().unwrap();

    let plan = ["recover", "plan", PAIR];
    let planned = refusal(&three.remote, &plan);
    assert!(planned.contains("6 of 6 blocks would not open"), "{planned}");
    let takeover = ["takeover", PAIR, "--yes"];
    let refused = refusal(&three.remote, &takeover);
    assert!(refused.contains("with the escrow site alone"), "{refused}");
    // The remote loses the cipher as well.
    let cipher = kept(&three.remote.state().join("pairs").join(PAIR)).join(digest_of(&raw));
    fs::remove_file(cipher).unwrap();
    three.request("the main site burnt down");
    let refused = refusal(&three.remote, &["escrow", "fetch", PAIR]);
    assert!(refused.contains("nobody has approved it yet"), "{refused}");
    let asked = three.escrow.farseal(&["escrow", "requests"]).unwrap();
    assert!(asked.contains("the main site burnt down") && asked.contains("WAITS FOR AN ANSWER"), "{asked}");
    three.escrow.farseal(&["escrow", "approve", "1", "--yes", "--note", "seen the smoke"]).unwrap();
    let said = three.remote.farseal(&["escrow", "fetch", PAIR]).unwrap();
    assert!(said.contains("6 keys came from the escrow, and 1 ciphers"), "{said}");
    let planned = three.remote.farseal(&plan).unwrap();
    assert_eq!(planned.matches("its key opens here; its cipher").count(), 5, "{planned}");
    assert!(planned.contains("6 hold data") && planned.contains("opens     up to record"), "{planned}");
    // What was released is kept, wrapped for this node: a restart asks nobody.
    three.remote.kill().unwrap();
    three.escrow.kill().unwrap();
    three.remote.start().unwrap();
    three.remote.farseal(&takeover).unwrap();
    assert!(refusal(&three.remote, &plan).contains("taken over already"));
    assert_eq!(read(&three.remote, &[1, 2, 3, 4, 5, 6]), [1, 2, 3, 4, 5, 6]);
    three.escrow.start().unwrap();
    let log = three.escrow.farseal(&["escrow", "log"]).unwrap();
    // As many as were asked for: a key that was not delivered before its start has a deposit, too.
    let asked = log.split("request 1 for ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert!(asked.parse::<u64>().unwrap() >= 6, "{log}");
    assert!(log.contains("approved: seen the smoke") && log.contains(&format!("all {asked} keys")), "{log}");
}

#[test]
fn a_disaster_declared_for_a_copy_without_keys_fences_at_once_and_opens_when_a_person_says_yes() {
    let mut three = three("escrow-declared");
    three.start();
    write(&three.main, &[(1, 1)]);
    three.rotate();
    write(&three.main, &[(2, 2)]);
    three.main.wait_until("everything at the remote", |status| status.is_safe()).unwrap();
    let said = three.main.farseal(&["disaster", "declare", PAIR, "--yes"]).unwrap();
    assert!(said.contains("opens nothing before somebody there says yes"), "{said}");
    assert!(client(&three.main).write(0, &vec![9; usize::try_from(BLOCK).unwrap()]).is_err(), "main writes on");
    let again = refusal(&three.main, &["disaster", "declare", PAIR, "--yes"]);
    assert!(again.contains("rejoin"), "{again}");
    let asked = || {
        let asked = three.escrow.farseal(&["escrow", "requests"])?;
        Ok(Some(asked).filter(|asked| asked.contains("the main site declared a disaster")))
    };
    let asked = wait_for("the remote's request", PATIENCE, asked).unwrap();
    assert!(asked.contains("WAITS FOR AN ANSWER"), "{asked}");
    // Nothing is served meanwhile, also after a restart, which asks for no second time.
    three.remote.kill().unwrap();
    three.remote.start().unwrap();
    let waits = three.remote.wait_until("what it waits for", |status| status.last_error().is_some()).unwrap();
    let waits = waits.last_error().unwrap().to_owned();
    assert!(waits.contains("it opens when the escrow site has released the keys of 2 epochs"), "{waits}");
    assert!(nbd_client::Client::connect(&three.remote.socket(), PAIR).is_err(), "it is served without keys");
    let refused = refusal(&three.remote, &["takeover", PAIR, "--yes"]);
    assert!(refused.contains("with the escrow site alone"), "{refused}");
    three.escrow.farseal(&["escrow", "approve", "1", "--yes"]).unwrap();
    assert_eq!(read(&three.remote, &[1, 2]), [1, 2]);
    write(&three.remote, &[(3, 3)]);
    let requests = three.escrow.farseal(&["escrow", "requests"]).unwrap();
    assert!(!requests.contains("request 2"), "{requests}");
}

#[test]
fn a_remote_that_was_put_back_to_an_older_state_gets_no_keys_unless_that_is_said() {
    let mut three = three("stale");
    three.start();
    write(&three.main, &[(1, 1)]);
    three.main.wait_until("the first write at the remote", |status| status.lag_records() == 0).unwrap();
    three.remote.kill().unwrap();
    let older = three.stage.dir.join("older");
    copied(&three.remote.state(), &older);
    three.remote.start().unwrap();
    write(&three.main, &[(2, 2)]);
    three.until_marked();
    three.main.kill().unwrap();
    three.remote.kill().unwrap();
    fs::remove_dir_all(three.remote.state()).unwrap();
    copied(&older, &three.remote.state());
    three.remote.start().unwrap();
    three.request("main is lost");
    let shown = three.escrow.farseal(&["escrow", "requests"]).unwrap();
    assert!(shown.contains("TOO OLD"), "{shown}");
    let refused = refusal(&three.escrow, &["escrow", "approve", "1", "--yes"]);
    assert!(refused.contains("older state") && refused.contains("--although-stale"), "{refused}");
    three.escrow.farseal(&["escrow", "approve", "1", "--yes", "--although-stale"]).unwrap();
    three.remote.farseal(&["escrow", "fetch", PAIR]).unwrap();
    three.remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    assert_eq!(read(&three.remote, &[1, 2]), [1, 0]);
    let log = three.escrow.farseal(&["escrow", "log"]).unwrap();
    assert!(log.contains("although the copy lacks"), "{log}");
}

#[test]
fn a_copy_that_ends_where_the_main_site_last_saw_it_durable_is_not_taken_for_another() {
    // Nothing follows the last write: the copy ends at the mark.
    let mut three = three_with("newest", &["--disguise", "plain"]);
    three.start();
    write(&three.main, &[(1, 1)]);
    three.main.wait_until("the write at the remote", |status| status.is_safe() && status.lag_records() == 0).unwrap();
    three.until_marked();
    three.main.kill().unwrap();
    three.request("main is lost");
    let shown = three.escrow.farseal(&["escrow", "requests"]).unwrap();
    assert!(shown.contains("all that its main site saw durable there"), "{shown}");
    three.escrow.farseal(&["escrow", "approve", "1", "--yes"]).unwrap();
    three.remote.farseal(&["escrow", "fetch", PAIR]).unwrap();
    three.remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    assert_eq!(read(&three.remote, &[1]), [1]);
}

/// A folder as it stands.
fn copied(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(done.success());
}

#[test]
fn no_key_is_used_before_the_escrow_has_it_and_a_denied_request_opens_nothing() {
    let mut three = three("escrow-away");
    three.remote.start().unwrap();
    three.main.start().unwrap();
    // Answered when it has its place; nothing of it is sealed.
    client(&three.main).write(0, &vec![1; usize::try_from(BLOCK).unwrap()]).unwrap();
    let status = three.main.wait_until("an alarm", |status| {
        status.last_error().is_some_and(|error| error.contains("the escrow site has not taken the key"))
    });
    assert_eq!(status.unwrap().epoch(), 0, "a key was used that the escrow does not have");
    three.escrow.start().unwrap();
    three
        .main
        .wait_until("a key, and the write at the remote", |status| status.is_safe() && status.epoch() > 0)
        .unwrap();
    write(&three.main, &[(1, 2)]);
    three.main.wait_until("everything at the remote", |status| status.is_safe()).unwrap();
    three.main.kill().unwrap();

    three.request("please");
    three.escrow.farseal(&["escrow", "deny", "1", "--note", "who are you?"]).unwrap();
    let refused = refusal(&three.remote, &["escrow", "fetch", PAIR]);
    assert!(refused.contains("denied"), "{refused}");
    assert!(refusal(&three.remote, &["takeover", PAIR, "--yes"]).contains("with the escrow site alone"));
}

#[test]
fn keys_that_were_deposited_ahead_are_not_used_once_a_key_is_suspect() {
    let mut three = three("escrow-suspect");
    three.start();
    write(&three.main, &[(1, 1)]);
    let epoch = three.main.status().unwrap().epoch();
    three.until_held(epoch + DEPOSITED_AHEAD);
    three.rotate();
    let held = three.until_held(epoch + 1 + DEPOSITED_AHEAD);
    // The next key lies with the escrow already. It is drawn anew, and so are those behind it.
    three.main.farseal(&["key", "rotate", PAIR, "--suspect"]).unwrap();
    assert_eq!(three.main.status().unwrap().epoch(), epoch + 2);
    three.until_held(held + 1 + DEPOSITED_AHEAD);
    write(&three.main, &[(2, 2)]);
    three.main.wait_until("everything at the remote", |status| status.is_safe()).unwrap();
    three.until_marked();
    three.main.kill().unwrap();

    three.request("the site is lost");
    three.escrow.farseal(&["escrow", "approve", "1", "--yes"]).unwrap();
    three.remote.farseal(&["escrow", "fetch", PAIR]).unwrap();
    three.remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    assert_eq!(read(&three.remote, &[1, 2]), [1, 2]);
}

#[test]
fn an_escrow_whose_key_is_shared_out_needs_its_people() {
    let mut three = three("escrow-shares");
    let shares = three.stage.dir.join("shares");
    let folder = shares.display().to_string();
    let share_out = ["escrow", "share", "--needed", "2", "--of", "3", "--out", &folder, "--yes"];
    // A node that runs has the whole key in its memory.
    three.escrow.start().unwrap();
    let refused = refusal(&three.escrow, &share_out);
    assert!(refused.contains("another node uses this directory"), "{refused}");
    assert!(!shares.exists());
    three.escrow.kill().unwrap();
    three.escrow.farseal(&share_out).unwrap();
    three.start();
    write(&three.main, &[(1, 7)]);
    three.main.wait_until("everything at the remote", |status| status.is_safe()).unwrap();
    let failed = refusal(&three.main, &["key", "drill", PAIR]);
    assert!(failed.contains("the escrow site does not open 1 of the 1 epochs"), "{failed}");
    three.main.kill().unwrap();
    three.request("drill");
    let approve = ["escrow", "approve", "1", "--yes"];
    let refused = refusal(&three.escrow, &approve);
    assert!(refused.contains("2 of them have to bring their shares"), "{refused}");
    let share = |number: u8| shares.join(format!("share-{number}.toml")).display().to_string();
    let (one, three_) = (share(1), share(3));
    let refused = refusal(&three.escrow, &[&approve[..], &["--share", &one]].concat());
    assert!(refused.contains("1 shares, and 2 are needed"), "{refused}");
    three.escrow.farseal(&[&approve[..], &["--share", &one, "--share", &three_]].concat()).unwrap();
    three.remote.farseal(&["escrow", "fetch", PAIR]).unwrap();
    three.remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    assert_eq!(read(&three.remote, &[1]), [7]);
}
