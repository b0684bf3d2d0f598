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
use site::wait_for;
use sites::{BLOCK, PAIR, PATIENCE};
use three::{Three, client, read, refusal, three, write};

impl Three {
    fn rotate(&self) {
        self.main.farseal(&["rotate", PAIR, "--force"]).unwrap();
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
    wait_for("the cipher at the escrow", PATIENCE, || {
        let mut sites = fs::read_dir(three.escrow.state().join("escrow-components"))?;
        Ok(sites.any(|site| site.is_ok_and(|site| kept(&site.path()).join(digest_of(&raw)).exists())).then_some(()))
    })
    .unwrap();
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
    assert!(log.contains("approved: seen the smoke") && log.contains("all 6 keys"), "{log}");
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
fn an_escrow_whose_key_is_shared_out_needs_its_people() {
    let mut three = three("escrow-shares");
    let shares = three.stage.dir.join("shares");
    let folder = shares.display().to_string();
    three.escrow.farseal(&["escrow", "share", "--needed", "2", "--of", "3", "--out", &folder, "--yes"]).unwrap();
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
