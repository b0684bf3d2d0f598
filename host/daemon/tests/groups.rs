//! Consistency groups as processes of their own: writes that depend on each other across pairs and nodes, nodes that are
//! killed, and copies that are taken over together.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/built.rs"]
mod built;
#[expect(dead_code, reason = "the chaos command reports the rest")]
#[path = "../../../xtask/src/chaos/chains.rs"]
mod chains;
#[expect(dead_code, reason = "the chaos command takes copies over, and troubles the lines")]
#[path = "../../../xtask/src/chaos/group_rig.rs"]
mod group_rig;
#[expect(dead_code, reason = "loads with many requests under way use the rest")]
#[path = "../../../xtask/src/nbd_client.rs"]
mod nbd_client;
#[expect(dead_code, reason = "the demo uses the rest")]
#[path = "../../../xtask/src/site.rs"]
mod site;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use built::{farseal, plugins};
use chains::{Chains, Judgement};
use group_rig::{Rig, Wire, Wires, cut_in, site_of, wait_for_site};
use site::{Stage, free_port};

/// How long dependent writes go on before something happens to them.
const A_WHILE: Duration = Duration::from_millis(1_500);

/// Two sites that run, each of so many nodes with so many pairs.
fn sites(purpose: &str, nodes: usize, pairs: usize) -> Rig {
    sites_that(purpose, nodes, pairs, false)
}

/// Their sides may change.
fn symmetrical_sites(purpose: &str, nodes: usize, pairs: usize) -> Rig {
    sites_that(purpose, nodes, pairs, true)
}

fn sites_that(purpose: &str, nodes: usize, pairs: usize, change: bool) -> Rig {
    let wire = || {
        let port = free_port().unwrap();
        Wire { connects: port, listens: port }
    };
    let back = if change { (0..nodes).map(|_| free_port().unwrap()).collect() } else { Vec::new() };
    let wires = Wires { links: (0..nodes).map(|_| wire()).collect(), sites: [wire(), wire()], back };
    let mut rig = Rig::new(&Stage::new(purpose).unwrap(), [farseal(), plugins()], wires, pairs).unwrap();
    rig.start().unwrap();
    rig
}

fn judge(rig: &Rig, chains: &Chains) -> Judgement {
    let judged = chains.judge(&rig.images(&rig.remotes).unwrap());
    assert_eq!(judged.violations, Vec::<String>::new());
    judged
}

#[test]
fn pairs_of_one_node_are_taken_over_at_one_cut() {
    let mut rig = sites("one-node", 1, 3);
    let mut chains = Chains::start(&rig.exports(), false).unwrap();
    rig.wait_for_copied_cuts(3).unwrap();
    std::thread::sleep(A_WHILE);
    let asked = rig.mains[0].farseal(&["cut", "default", "before-the-end"]).unwrap();
    assert!(asked.contains("is made"), "{asked}");
    rig.wait_for_copied_cuts(2).unwrap();
    wait_for_site(&rig.remotes[0], "the named cut", |site| {
        let named = site["groups"][0]["named"].as_array();
        named.is_some_and(|named| named.iter().any(|cut| cut["name"] == "before-the-end"))
    })
    .unwrap();
    rig.kill_mains().unwrap();
    let written = chains.stop().unwrap();
    let refused = rig.remotes[0].farseal(&["takeover", "lane-0", "--yes"]).unwrap_err().to_string();
    assert!(refused.contains("in group default with others"), "{refused}");
    let said = rig.remotes[0].farseal(&["takeover", "--group", "default", "--yes"]).unwrap();
    assert!(said.contains("all 3 pairs of group default were taken over at cut"), "{said}");
    let judged = judge(&rig, &chains);
    assert!(judged.recovered > 0 && judged.recovered <= written, "{judged:?} of {written}");
    assert!(rig.remotes[0].farseal(&["status", "--site"]).unwrap().contains("before-the-end"));
}

/// Two nodes at each site, points that stay, and a cut called noon that writes go on after. Says how many there were by then.
fn cut_at_noon(purpose: &str) -> (Rig, Chains, u64) {
    let mut rig = sites(purpose, 2, 1);
    for remote in &mut rig.remotes {
        remote.kill().unwrap();
        remote.edit("\nretention = \"none\"", "\nretention = \"24h\"").unwrap();
        remote.start().unwrap();
    }
    let chains = Chains::start(&rig.exports(), true).unwrap();
    rig.wait_for_copied_cuts(3).unwrap();
    std::thread::sleep(A_WHILE);
    rig.mains[0].farseal(&["cut", "default", "noon"]).unwrap();
    // Each chain may have one more that was placed before the cut, and is not answered yet or not counted.
    let at_noon = chains.written() + chains::CHAINS;
    std::thread::sleep(A_WHILE);
    (rig, chains, at_noon)
}

#[test]
fn subsystems_go_back_to_a_named_cut_together_or_not_at_all() {
    let (mut rig, mut chains, at_noon) = cut_at_noon("group-point");
    rig.mains[1].farseal(&["cut", "default", "evening"]).unwrap();
    rig.wait_for_copied_cuts(2).unwrap();
    rig.kill_mains().unwrap();
    let written = chains.stop().unwrap();
    assert!(written > at_noon);
    let take_over =
        |rig: &Rig, cut: &str| rig.remotes[1].farseal(&["takeover", "--group", "default", "--at", cut, "--yes"]);
    let refused = take_over(&rig, "never").unwrap_err().to_string();
    assert!(refused.contains("nothing of group default was taken over"), "{refused}");
    assert!(refused.contains("lane-0 (") && refused.contains("lane-1 (no cut is called never"), "{refused}");
    // What each pair would resolve by itself is no state that they share.
    for point in ["1s-ago", "now", "1"] {
        let refused = take_over(&rig, point).unwrap_err().to_string();
        assert!(refused.contains(&format!("lane-1 (no cut is called {point}")), "{refused}");
    }
    let remote = &rig.remotes[1];
    for name in ["15m-ago", "7"] {
        let refused = remote.farseal(&["recover", "pin", "lane-1", "noon", "--name", name]).unwrap_err().to_string();
        assert!(refused.contains("reads as"), "{refused}");
    }
    // A pin of the cut's name is not meant.
    remote.farseal(&["recover", "pin", "lane-1", "newest", "--name", "dawn"]).unwrap();
    let refused = take_over(&rig, "dawn").unwrap_err().to_string();
    assert!(refused.contains("lane-1 (no cut is called dawn"), "{refused}");
    // One pair has lost its points: the other is not taken over without it.
    rig.remotes[0].kill().unwrap();
    rig.remotes[0].edit("\nretention = \"24h\"", "\nretention = \"none\"").unwrap();
    rig.remotes[0].start().unwrap();
    wait_for_site(&rig.remotes[1], "both copies", |site| site["groups"][0]["keeps"]["cut"].as_u64().unwrap_or(0) > 0)
        .unwrap();
    let refused = take_over(&rig, "noon").unwrap_err().to_string();
    assert!(refused.contains("lane-0 (") && !refused.contains("lane-1"), "{refused}");
    assert!(rig.remotes[1].farseal(&["recover", "points", "lane-1"]).unwrap().contains("noon"), "still a copy");
}

#[test]
fn pairs_of_several_nodes_are_opened_at_one_earlier_cut() {
    let (mut rig, mut chains, at_noon) = cut_at_noon("group-earlier");
    rig.wait_for_copied_cuts(2).unwrap();
    rig.kill_mains().unwrap();
    let written = chains.stop().unwrap();
    let said = rig.remotes[1].farseal(&["takeover", "--group", "default", "--at", "noon", "--yes"]).unwrap();
    assert!(said.contains("all 2 pairs of group default were taken over at cut"), "{said}");
    assert!(said.contains("with the volumes as they were at noon"), "{said}");
    let judged = judge(&rig, &chains);
    assert!(
        judged.recovered > 0 && judged.recovered <= at_noon && at_noon < written,
        "{judged:?}, {at_noon} of {written}"
    );
}

/// The group is decided when one pair's disk refuses the index of its point.
#[test]
fn a_pair_that_did_not_open_with_its_group_says_why_and_is_opened_when_it_can_be() {
    let (mut rig, mut chains, _) = cut_at_noon("hindered");
    rig.wait_for_copied_cuts(2).unwrap();
    rig.kill_mains().unwrap();
    chains.stop().unwrap();
    let points = points_of(&rig.remotes[0].state().join("pairs").join("lane-0"));
    fs::write(points.join("opened"), "").unwrap();
    let mut asked = Command::new(farseal());
    asked
        .arg("--config")
        .arg(rig.remotes[1].config())
        .args(["takeover", "--group", "default", "--at", "noon", "--yes"]);
    let mut asked = asked.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let hindered = rig.remotes[0].wait_until("what hinders it", |status| {
        status.last_error().is_some_and(|error| error.contains("its group is taken over, and this pair is not yet"))
    });
    assert!(hindered.unwrap().last_error().unwrap().contains("opened"));
    let shown = rig.remotes[1].farseal(&["status", "--site"]).unwrap();
    assert!(shown.contains("being taken over at cut"), "{shown}");
    fs::remove_file(points.join("opened")).unwrap();
    assert!(judge(&rig, &chains).recovered > 0);
    asked.wait().unwrap();
}

/// The copy of lane-0 goes on while the other one's node is away, so it holds more than the group's cut.
#[test]
fn a_takeover_alone_that_could_not_open_its_point_took_the_pair_past_its_groups_cut() {
    let (mut rig, mut chains, _) = cut_at_noon("alone-in-vain");
    rig.wait_for_copied_cuts(2).unwrap();
    rig.remotes[1].kill().unwrap();
    std::thread::sleep(A_WHILE);
    rig.kill_mains().unwrap();
    chains.stop().unwrap();
    rig.remotes[1].start().unwrap();
    let keeps = |site: &serde_json::Value| site["groups"][0]["keeps"]["cut"].as_u64().unwrap_or(0) > 0;
    wait_for_site(&rig.remotes[1], "both copies", keeps).unwrap();
    let points = points_of(&rig.remotes[0].state().join("pairs").join("lane-0"));
    // No room for the point's index.
    fs::write(points.join("opened"), "").unwrap();
    let alone = ["takeover", "lane-0", "--alone", "--at", "noon", "--yes"];
    let refused = rig.remotes[0].farseal(&alone).unwrap_err().to_string();
    assert!(refused.contains("opened"), "{refused}");
    fs::remove_file(points.join("opened")).unwrap();
    let said = rig.remotes[0].farseal(&["takeover", "--group", "default", "--yes"]).unwrap();
    assert!(said.contains("all 2 pairs of group default were taken over at cut"), "{said}");
    assert!(judge(&rig, &chains).recovered > 0);
}

/// Where the copy of a pair has its points.
fn points_of(pair: &Path) -> PathBuf {
    let folders = fs::read_dir(pair).unwrap().flatten().map(|entry| entry.path().join("points"));
    folders.chain([pair.join("points")]).find(|points| points.join("points.json").exists()).unwrap()
}

#[test]
fn subsystems_of_a_site_are_cut_and_taken_over_together_whoever_is_killed() {
    let mut rig = sites("subsystems", 4, 1);
    let mut chains = Chains::start(&rig.exports(), true).unwrap();
    rig.wait_for_copied_cuts(3).unwrap();
    std::thread::sleep(A_WHILE);
    // A member, then the lead.
    for node in [2, 0] {
        rig.mains[node].kill().unwrap();
        rig.mains[node].start().unwrap();
        rig.wait_for_copied_cuts(2).unwrap();
    }
    wait_for_site(&rig.remotes[3], "a remote member shows the group's cut", |site| {
        site["groups"][0]["keeps"]["cut"].as_u64().unwrap_or(0) > 0
    })
    .unwrap();
    let before = site_of(&rig.mains[0]).unwrap();
    rig.kill_mains().unwrap();
    let written = chains.stop().unwrap();
    let said = rig.remotes[0].farseal(&["takeover", "--group", "default", "--yes"]).unwrap();
    assert!(said.contains("all 4 pairs of group default were taken over at cut"), "{said}");
    let judged = judge(&rig, &chains);
    assert!(judged.recovered > 0 && judged.recovered <= written, "{judged:?} of {written}");
    println!("{judged:?} of {written} links written; {}", before["groups"][0]["writes"]);
}

#[test]
fn a_group_without_one_of_its_nodes_is_not_cut_and_not_taken_over() {
    let mut rig = sites("missing", 2, 1);
    let mut chains = Chains::start(&rig.exports(), true).unwrap();
    rig.wait_for_copied_cuts(2).unwrap();
    rig.mains[1].kill().unwrap();
    let site = wait_for_site(&rig.mains[0], "the missing pair", |site| {
        site["groups"][0]["writes"]["missing"].as_array().is_some_and(|missing| missing.len() == 1)
    })
    .unwrap();
    let refused = rig.mains[0].farseal(&["cut", "default"]).unwrap_err().to_string();
    assert!(refused.contains("cannot be reached: lane-1"), "{refused}");
    let shown = rig.mains[0].farseal(&["status", "--site"]).unwrap();
    assert!(shown.contains("NO CUTS: lane-1 cannot be reached"), "{shown}");
    rig.remotes[1].kill().unwrap();
    rig.kill_mains().unwrap();
    chains.stop().unwrap();
    wait_for_site(&rig.remotes[0], "the missing copy", |site| {
        site["groups"][0]["pairs"].as_array().is_some_and(|pairs| pairs.iter().any(|pair| pair["there"] == false))
    })
    .unwrap();
    let refused = rig.remotes[0].farseal(&["takeover", "--group", "default", "--yes"]).unwrap_err().to_string();
    assert!(refused.contains("lane-1 of group default cannot be reached: nothing was taken over"), "{refused}");
    rig.remotes[1].start().unwrap();
    wait_for_site(&rig.remotes[0], "both copies", |site| {
        site["groups"][0]["pairs"].as_array().is_some_and(|pairs| pairs.iter().all(|pair| pair["there"] == true))
    })
    .unwrap();
    let cut = site["groups"][0]["writes"]["last"]["cut"].as_u64().unwrap();
    let said = rig.remotes[1].farseal(&["takeover", "--group", "default", "--yes"]).unwrap();
    assert!(said.contains("all 2 pairs"), "asked at a member: {said}");
    let at = cut_in(&said).unwrap();
    assert!(at <= cut, "{said}; the last cut that was made is {cut}");
    judge(&rig, &chains);
}

#[test]
fn a_group_stops_and_goes_on_as_one() {
    let mut rig = sites("pause", 1, 2);
    let mut chains = Chains::start(&rig.exports(), false).unwrap();
    rig.wait_for_copied_cuts(1).unwrap();
    let refused = rig.mains[0].farseal(&["pause", "lane-1"]).unwrap_err().to_string();
    assert!(refused.contains("farseal pause --group default"), "{refused}");
    let refused = rig.mains[0].farseal(&["swap", "lane-1"]).unwrap_err().to_string();
    assert!(refused.contains("in group default with others") && refused.contains("swap lane-1 --alone"), "{refused}");
    assert!(refused.contains("swap --group default"), "{refused}");
    let refused = rig.mains[0].farseal(&["swap", "--group", "default"]).unwrap_err().to_string();
    assert!(refused.contains("nobody can connect to it") && refused.contains("all pairs go on here"), "{refused}");
    rig.mains[0].farseal(&["pause", "--group", "default", "--wait"]).unwrap();
    let status =
        wait_for_site(&rig.mains[0], "the pause of all", |site| site["groups"][0]["writes"]["settled"] == true)
            .unwrap();
    let paused = &status["groups"][0]["writes"];
    assert_eq!(paused["phase"]["is"].as_str(), Some("paused"));
    let refused = rig.mains[0].farseal(&["resume", "lane-0"]).unwrap_err().to_string();
    assert!(refused.contains("farseal resume --group default"), "{refused}");
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(
        site_of(&rig.mains[0]).unwrap()["groups"][0]["writes"]["made"],
        paused["made"],
        "no cut is made meanwhile"
    );
    rig.mains[0].kill().unwrap();
    rig.mains[0].start().unwrap();
    wait_for_site(&rig.mains[0], "the pause is remembered, at its cut", |site| {
        let writes = &site["groups"][0]["writes"];
        writes["settled"] == true && writes["phase"]["cut"] == paused["phase"]["cut"]
    })
    .unwrap();
    rig.mains[0].farseal(&["resume", "--group", "default"]).unwrap();
    rig.wait_for_copied_cuts(2).unwrap();
    rig.kill_mains().unwrap();
    chains.stop().unwrap();
    rig.remotes[0].farseal(&["takeover", "--group", "default", "--yes"]).unwrap();
    rig.images(&rig.remotes).unwrap();
}

#[test]
fn a_group_changes_sides_at_one_cut_there_and_back_under_dependent_writes() {
    let rig = symmetrical_sites("group-swap", 2, 2);
    let mut chains = Chains::start(&rig.exports(), true).unwrap();
    rig.wait_for_copied_cuts(2).unwrap();
    let said = rig.mains[1].farseal(&["swap", "--group", "default"]).unwrap();
    assert!(said.contains("the other site writes all pairs of group default now"), "asked at a member: {said}");
    let refused = rig.mains[0].farseal(&["swap", "--group", "default"]).unwrap_err().to_string();
    assert!(refused.contains("this site keeps the copy of group default"), "{refused}");
    let before = chains.written();
    wait_for_site(&rig.remotes[0], "cuts that the old main site holds", |site| {
        site["groups"][0]["writes"]["copied"].as_u64().unwrap_or(0) > 0
    })
    .unwrap();
    std::thread::sleep(A_WHILE);
    rig.remotes[0].farseal(&["swap", "--group", "default"]).unwrap();
    assert!(chains.written() > before, "initiators went on at the other site");
    rig.wait_for_copied_cuts(2).unwrap();
    rig.mains[0].farseal(&["swap", "--group", "default"]).unwrap();
    let written = chains.stop().unwrap();
    // A planned change of sides loses nothing: all that was answered is there.
    let judged = judge(&rig, &chains);
    assert!(judged.recovered >= written, "{judged:?} of {written}");
}

/// Two operators declare it at once, at two nodes.
#[test]
fn a_disaster_of_a_group_ends_its_service_at_a_cut_and_all_of_it_is_taken_over() {
    let rig = symmetrical_sites("group-declared", 2, 2);
    let mut chains = Chains::start(&rig.exports(), true).unwrap();
    rig.wait_for_copied_cuts(2).unwrap();
    let refused = rig.mains[0].farseal(&["disaster", "declare", "lane-0", "--yes"]).unwrap_err().to_string();
    assert!(refused.contains("disaster declare --group default"), "{refused}");
    let declare = ["disaster", "declare", "--group", "default", "--yes"];
    let refused = rig.remotes[0].farseal(&declare).unwrap_err().to_string();
    assert!(refused.contains("this site keeps the copy of group default"), "{refused}");
    let refused = rig.mains[0].farseal(&["disaster", "declare", "--group", "none", "--yes"]).unwrap_err().to_string();
    assert!(refused.contains("there is no group"), "{refused}");
    let mut first = rig.mains[0].begin(&declare).unwrap();
    let second = rig.mains[1].farseal(&declare).map_err(|error| error.to_string());
    let first = first.wait().unwrap().success();
    assert!(first || second.is_ok(), "{second:?}");
    let (Ok(said) | Err(said)) = second;
    let expected = ["takes all pairs of group default over", "a disaster of the group is being declared"];
    assert!(expected.iter().any(|expected| said.contains(expected)), "{said}");
    wait_for_site(&rig.remotes[0], "cuts of what is written at the other site", |site| {
        site["groups"][0]["keeps"].is_null() && site["groups"][0]["writes"]["made"].as_u64().is_some()
    })
    .unwrap();
    for main in &rig.mains {
        main.wait_until("the fence", |status| status.state() == "diverged").unwrap();
    }
    let again = rig.mains[1].farseal(&declare).unwrap_err().to_string();
    for says in ["taken all of the group's pairs over already", "in generation", "s ago", "farseal rejoin"] {
        assert!(again.contains(says), "{again}");
    }
    let answered = chains.written();
    std::thread::sleep(A_WHILE);
    assert_eq!(chains.written(), answered, "no write is answered well where the service has ended");
    chains.stop().unwrap();
    let judged = judge(&rig, &chains);
    assert!(judged.recovered > 0, "{judged:?}");
}

#[test]
fn a_disaster_of_a_group_is_not_taken_over_where_one_copy_cannot_be() {
    let mut rig = sites("group-undeclared", 2, 1);
    let mut chains = Chains::start(&rig.exports(), true).unwrap();
    rig.wait_for_copied_cuts(2).unwrap();
    rig.remotes[1].kill().unwrap();
    wait_for_site(&rig.remotes[0], "the missing copy", |site| {
        site["groups"][0]["pairs"].as_array().is_some_and(|pairs| pairs.iter().any(|pair| pair["there"] == false))
    })
    .unwrap();
    let refused =
        rig.mains[0].farseal(&["disaster", "declare", "--group", "default", "--yes"]).unwrap_err().to_string();
    assert!(
        refused.contains("lane-0 (") && refused.contains("lane-1 (") && refused.contains("goes on here"),
        "{refused}"
    );
    let before = chains.written();
    std::thread::sleep(A_WHILE);
    assert!(chains.written() > before, "initiators go on here");
    chains.stop().unwrap();
    rig.remotes[1].start().unwrap();
    rig.wait_for_copied_cuts(2).unwrap();
    rig.kill_mains().unwrap();
}

#[test]
fn a_change_of_sides_that_was_decided_is_carried_out_by_a_node_that_was_killed_in_it() {
    let mut rig = symmetrical_sites("swap-killed", 2, 1);
    let mut chains = Chains::start(&rig.exports(), true).unwrap();
    rig.wait_for_copied_cuts(2).unwrap();
    let mut swap = rig.mains[0].begin(&["swap", "--group", "default"]).unwrap();
    wait_for_site(&rig.mains[0], "the decision", |site| site["groups"][0]["writes"]["phase"]["is"] != "running")
        .unwrap();
    rig.mains[1].kill().unwrap();
    rig.mains[0].kill().unwrap();
    swap.wait().unwrap();
    rig.mains[1].start().unwrap();
    rig.mains[0].start().unwrap();
    wait_for_site(&rig.remotes[0], "both pairs written at the other site, and cuts of both", |site| {
        let group = &site["groups"][0];
        group["keeps"].is_null() && group["writes"]["copied"].as_u64().unwrap_or(0) > 0
    })
    .unwrap();
    chains.stop().unwrap();
    judge(&rig, &chains);
}

#[test]
fn a_group_pauses_by_its_presets_and_for_so_long_as_somebody_says() {
    let rig = sites("group-presets", 2, 1);
    let lead = &rig.mains[0];
    let both = |site: &serde_json::Value| site["groups"][0]["pairs"].as_array().is_some_and(|pairs| pairs.len() == 2);
    wait_for_site(lead, "both pairs", both).unwrap();
    let refused = lead.farseal(&["preset", "add", "lane-0", "often", "--every", "4s", "--for", "2s"]).unwrap_err();
    assert!(refused.to_string().contains("preset add --group default"), "{refused}");
    let is = |site: &serde_json::Value, phase: &str| site["groups"][0]["writes"]["phase"]["is"] == phase;
    wait_for_site(lead, "both pairs in order", |site| {
        let writes = &site["groups"][0]["writes"];
        writes["missing"] == serde_json::json!([]) && writes["not_in_order"] == serde_json::json!([])
    })
    .unwrap();
    lead.farseal(&["pause", "--group", "default", "--for", "2s", "--by", "backup"]).unwrap();
    let site = wait_for_site(lead, "the pause", |site| is(site, "paused")).unwrap();
    assert_eq!(site["groups"][0]["pause"]["by"], "backup");
    wait_for_site(lead, "the end of the span", |site| is(site, "running")).unwrap();
    // Asked at a member.
    rig.mains[1].farseal(&["preset", "add", "--group", "default", "often", "--every", "4s", "--for", "2s"]).unwrap();
    let listed = rig.mains[1].farseal(&["preset", "list", "--group", "default"]).unwrap();
    assert!(listed.contains("often: every"), "{listed}");
    let site = wait_for_site(lead, "the preset's pause", |site| is(site, "paused")).unwrap();
    assert_eq!(site["groups"][0]["pause"]["by"], "preset often");
    wait_for_site(lead, "the end of its window", |site| is(site, "running")).unwrap();
    wait_for_site(lead, "its next pause", |site| is(site, "paused")).unwrap();
    lead.farseal(&["preset", "remove", "--group", "default", "often"]).unwrap();
    wait_for_site(lead, "the end of the pause that it held", |site| is(site, "running")).unwrap();
    assert!(lead.farseal(&["status", "--site"]).unwrap().contains("running"));
}
