//! The witness rule on three nodes: a site that keeps a copy takes over by itself when neither it nor its witness hears the main
//! site, and never because of what only one of them does not hear.

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

use serde_json::Value;
use site::{PairTerms, Site, free_port, wait_for};
use sites::{BLOCK, PAIR, PATIENCE};
use three::{Three, client, read, refusal, three_with, write};

/// Three nodes that run, the remote one under the rule; the witness knows of the pair.
fn witnessed(purpose: &str, holders: &str) -> Three {
    let mut three = three_with(purpose, &["--key-holders", holders]);
    three.remote.edit("\nwitness-silence = \"none\"", "\nwitness-silence = \"10s\"").unwrap();
    three.start();
    write(&three.main, &[(1, 1), (2, 2)]);
    three.main.wait_until("everything at the remote", |status| status.is_safe()).unwrap();
    wait_for("a mark at the witness", PATIENCE, || {
        let node: Value = serde_json::from_str(&three.main.farseal(&["status", "--json"])?)?;
        Ok(node["pairs"][0]["escrow"]["marked"].as_u64())
    })
    .unwrap();
    three
}

/// So many times this text stands in the node's log.
fn wait_for_words(site: &Site, words: &str, times: usize) {
    wait_for(words, PATIENCE, || {
        let log = fs::read(site.log())?;
        Ok((String::from_utf8_lossy(&log).matches(words).count() >= times).then_some(()))
    })
    .unwrap();
}

fn keeps(site: &Site) -> bool {
    site.farseal(&["recover", "plan", PAIR]).is_ok() && nbd_client::Client::connect(&site.socket(), PAIR).is_err()
}

#[test]
fn a_main_site_that_neither_hears_is_taken_over_once_and_fenced_when_it_comes_back() {
    let mut three = witnessed("witness", "both");
    three.main.kill().unwrap();
    assert_eq!(read(&three.remote, &[1, 2]), [1, 2]);
    let report = three.remote.farseal(&["recover", "report", PAIR]).unwrap();
    assert!(report.contains("witness   escrow had not heard the other site for"), "{report}");
    let logged = three.escrow.farseal(&["escrow", "log"]).unwrap();
    assert!(logged.contains("asks when the main site of pair"), "{logged}");
    write(&three.remote, &[(3, 3)]);
    three.main.start().unwrap();
    three.main.wait_until("the newer generation", |status| status.state() == "diverged").unwrap();
    assert!(client(&three.main).write(0, &vec![9; usize::try_from(BLOCK).unwrap()]).is_err(), "two sites write");
    wait_for("the place where the histories part", PATIENCE, || Ok(three.main.farseal(&["rejoin", PAIR]).ok()))
        .unwrap();
    three.remote.wait_until("the copy at the old main site", |status| status.is_safe()).unwrap();
    assert_eq!(read(&three.remote, &[1, 2, 3]), [1, 2, 3]);
}

#[test]
fn nothing_is_taken_over_while_the_witness_hears_the_main_site_or_says_nothing() {
    let mut three = witnessed("witness-hears", "both");
    // The remote moves to where the main site does not find it: the link is silent, and the main site lives.
    three.remote.kill().unwrap();
    let config = fs::read_to_string(three.remote.config()).unwrap();
    let listen = config.lines().find(|line| line.starts_with("listen = \"127.0.0.1:")).unwrap();
    three.remote.edit(listen, &format!("listen = \"127.0.0.1:{}\"", free_port().unwrap())).unwrap();
    three.remote.start().unwrap();
    wait_for_words(&three.remote, "the witness was asked", 2);
    assert!(keeps(&three.remote), "taken over although the witness hears the main site");
    write(&three.main, &[(3, 3)]);
    // Now all are silent, the witness as well.
    three.escrow.kill().unwrap();
    three.main.kill().unwrap();
    wait_for_words(&three.remote, "the witness says nothing", 2);
    assert!(keeps(&three.remote), "taken over by silence alone");
    // A witness that begins anew cannot tell the main site's silence from its own.
    three.escrow.start().unwrap();
    wait_for_words(&three.remote, "NeverHeard", 1);
    assert!(keeps(&three.remote), "taken over on the word of a witness that never heard the main site");
}

/// The second pair of the group that is over both.
const SECOND: &str = "second";

/// Two pairs of one group between the same nodes, both under the rule, and cuts of it that the copies hold.
fn witnessed_group(purpose: &str) -> Three {
    let mut three = three_with(purpose, &["--key-holders", "both"]);
    let port = port_in(&three.remote, "\nlisten = \"127.0.0.1:");
    let (volume, listen) =
        (three.main.dir.join("second.img"), format!("127.0.0.1:{}", port_in(&three.main, "\nlisten = \"127.0.0.1:")));
    let options = ["--listen", &listen, "--escrow", "escrow", "--key-holders", "both"];
    let terms = PairTerms { name: SECOND, volume: &volume, mebibytes: 16, options: &options };
    three.main.pair_over(&three.remote, &terms, port, port).unwrap();
    for _ in [PAIR, SECOND] {
        three.remote.edit("\nwitness-silence = \"none\"", "\nwitness-silence = \"10s\"").unwrap();
    }
    three.start();
    write(&three.main, &[(1, 1), (2, 2)]);
    wait_for("a mark of each pair at the witness, and a cut that both copies hold", PATIENCE, || {
        let main: Value = serde_json::from_str(&three.main.farseal(&["status", "--json"])?)?;
        let marked = (0..2).all(|pair| main["pairs"][pair]["escrow"]["marked"].as_u64().is_some());
        let site: Value = serde_json::from_str(&three.remote.farseal(&["status", "--json"])?)?;
        let kept = site["site"]["groups"][0]["keeps"]["cut"].as_u64().unwrap_or(0) > 0;
        Ok((marked && kept).then_some(()))
    })
    .unwrap();
    three
}

fn port_in(site: &Site, before: &str) -> u16 {
    let config = fs::read_to_string(site.config()).unwrap();
    let (_, after) = config.split_once(before).unwrap();
    after.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

/// The node knows of the pair no more.
fn without_pair(site: &Site, name: &str) {
    let config = fs::read_to_string(site.config()).unwrap();
    let named = format!("\nname = \"{name}\"");
    let is_it = |section: &&str| section.starts_with("pair]]") && section.contains(&named);
    let rest: Vec<&str> = config.split("\n[[").filter(|section| !is_it(section)).collect();
    fs::write(site.config(), rest.join("\n[[")).unwrap();
}

/// The witness does not hear the main site, nor does one lane; the other one does.
#[test]
fn a_group_is_not_taken_over_where_another_of_its_lanes_hears_the_main_site_and_is_where_none_does() {
    let mut three = witnessed_group("witness-group");
    // What it takes up at its next start: it is away as shortly as can be.
    without_pair(&three.main, PAIR);
    let port = port_in(&three.escrow, "\nlisten = \"127.0.0.1:");
    three.main.edit(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{}", free_port().unwrap())).unwrap();
    three.main.kill().unwrap();
    three.main.start().unwrap();
    wait_for_words(&three.remote, "second (its own lane hears the main site", 1);
    for pair in [PAIR, SECOND] {
        assert!(three.remote.farseal(&["recover", "plan", pair]).is_ok(), "{pair} is a copy still");
        assert!(nbd_client::Client::connect(&three.remote.socket(), pair).is_err(), "{pair} is served");
    }
    three.main.kill().unwrap();
    assert_eq!(read(&three.remote, &[1, 2]), [1, 2]);
    for pair in [PAIR, SECOND] {
        wait_for("its export", PATIENCE, || Ok(nbd_client::Client::connect(&three.remote.socket(), pair).ok()))
            .unwrap();
        let report = three.remote.farseal(&["recover", "report", pair]).unwrap();
        assert!(report.contains("witness   escrow had not heard the other site for"), "{report}");
    }
}

#[test]
fn a_remote_without_keys_fences_by_the_rule_and_opens_when_a_person_says_yes() {
    let mut three = witnessed("witness-escrow", "escrow");
    three.main.kill().unwrap();
    let asked = || {
        let asked = three.escrow.farseal(&["escrow", "requests"])?;
        Ok(Some(asked).filter(|asked| asked.contains("neither this site nor its witness heard the main site")))
    };
    wait_for("the remote's request", PATIENCE, asked).unwrap();
    assert!(nbd_client::Client::connect(&three.remote.socket(), PAIR).is_err(), "served without keys");
    // The person asks who that is, and the node restarts an hour later.
    three.escrow.farseal(&["escrow", "deny", "1", "--note", "who are you?"]).unwrap();
    three.remote.kill().unwrap();
    let pair = three.remote.state().join("pairs").join(PAIR);
    let begun = fs::read_dir(&pair).unwrap().flatten().map(|entry| entry.path().join("takeover.json"));
    let begun = begun.filter(|file| file.exists()).collect::<Vec<_>>();
    assert_eq!(begun.len(), 1, "what the takeover began with waits for no key");
    for file in begun.iter().chain([&pair.join("witness.json")]) {
        let mut kept: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        kept["at"] = (kept["at"].as_u64().unwrap() - 3_600_000).into();
        fs::write(file, kept.to_string()).unwrap();
    }
    three.remote.start().unwrap();
    let asked = wait_for("another request", PATIENCE, || {
        let asked = three.escrow.farseal(&["escrow", "requests"])?;
        Ok(Some(asked).filter(|asked| asked.contains("request 2:")))
    })
    .unwrap();
    assert!(!asked.contains("declared a disaster"), "{asked}");
    three.escrow.farseal(&["escrow", "approve", "2", "--yes"]).unwrap();
    assert_eq!(read(&three.remote, &[1, 2]), [1, 2]);
    let report = three.remote.farseal(&["recover", "report", PAIR]).unwrap();
    assert!(report.contains("witness   escrow had not heard the other site for"), "{report}");
    assert!(report.contains("began     1 h"), "{report}");
}

#[test]
fn a_rule_without_a_witness_is_refused_by_name() {
    let three = three_with("witness-none", &["--key-holders", "both"]);
    let config = fs::read_to_string(three.remote.config()).unwrap();
    let escrow = config.lines().find(|line| line.starts_with("escrow = ")).unwrap();
    for (silence, says) in [("5s", "10s to 31d"), ("soon", "witness-silence")] {
        three.remote.edit("\nwitness-silence = \"none\"", &format!("\nwitness-silence = \"{silence}\"")).unwrap();
        let refused = refusal(&three.remote, &["pair", "card"]);
        assert!(refused.contains(says), "{refused}");
        three.remote.edit(&format!("\nwitness-silence = \"{silence}\""), "\nwitness-silence = \"none\"").unwrap();
    }
    three.remote.edit("\nwitness-silence = \"none\"", "\nwitness-silence = \"10m\"").unwrap();
    three.remote.edit(&format!("\n{escrow}"), "").unwrap();
    three.remote.edit("\nkey-holders = \"both\"", "\nkey-holders = \"secondary\"").unwrap();
    let refused = refusal(&three.remote, &["pair", "card"]);
    assert!(refused.contains("never by silence alone") && refused.contains("add escrow"), "{refused}");
}
