//! Consistency groups as processes of their own: writes that depend on each other across pairs and nodes, nodes that are
//! killed, and copies that are taken over together.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/built.rs"]
mod built;
#[path = "groups/chains.rs"]
mod chains;
#[expect(dead_code, reason = "loads with many requests under way use the rest")]
#[path = "../../../xtask/src/nbd_client.rs"]
mod nbd_client;
#[path = "groups/rig.rs"]
mod rig;
#[expect(dead_code, reason = "the demo uses the rest")]
#[path = "../../../xtask/src/site.rs"]
mod site;

use std::time::Duration;

use chains::{Chains, Judgement};
use rig::Rig;

/// How long dependent writes go on before something happens to them.
const A_WHILE: Duration = Duration::from_millis(1_500);

fn judge(rig: &Rig, chains: &Chains) -> Judgement {
    let judged = chains.judge(&rig.images());
    assert_eq!(judged.violations, Vec::<String>::new());
    judged
}

#[test]
fn pairs_of_one_node_are_taken_over_at_one_cut() {
    let mut rig = Rig::new("one-node", 1, 3);
    rig.start();
    let chains = Chains::start(rig.exports(), false);
    rig.wait_for_copied_cuts(3);
    std::thread::sleep(A_WHILE);
    let asked = rig.main(0).farseal(&["cut", "default", "before-the-end"]).unwrap();
    assert!(asked.contains("is made"), "{asked}");
    rig.wait_for_copied_cuts(2);
    rig.kill_mains();
    let written = chains.stop();
    let refused = rig.remote(0).farseal(&["takeover", "lane-0", "--yes"]).unwrap_err().to_string();
    assert!(refused.contains("in group default with others"), "{refused}");
    let said = rig.remote(0).farseal(&["takeover", "--group", "default", "--yes"]).unwrap();
    assert!(said.contains("all 3 pairs of group default were taken over at cut"), "{said}");
    let judged = judge(&rig, &chains);
    assert!(judged.recovered > 0 && judged.recovered <= written, "{judged:?} of {written}");
    assert!(rig.remote(0).farseal(&["status", "--site"]).unwrap().contains("before-the-end"));
}

#[test]
fn subsystems_of_a_site_are_cut_and_taken_over_together_whoever_is_killed() {
    let mut rig = Rig::new("subsystems", 4, 1);
    rig.start();
    let chains = Chains::start(rig.exports(), true);
    rig.wait_for_copied_cuts(3);
    std::thread::sleep(A_WHILE);
    // A member, then the lead.
    for node in [2, 0] {
        rig.restart_main(node);
        rig.wait_for_copied_cuts(2);
    }
    rig.wait_for_site(rig.remote(3), "a remote member shows the group's cut", |site| {
        site["groups"][0]["keeps"]["cut"].as_u64().unwrap_or(0) > 0
    });
    let before = rig.site_of(rig.main(0));
    rig.kill_mains();
    let written = chains.stop();
    let said = rig.remote(0).farseal(&["takeover", "--group", "default", "--yes"]).unwrap();
    assert!(said.contains("all 4 pairs of group default were taken over at cut"), "{said}");
    let judged = judge(&rig, &chains);
    assert!(judged.recovered > 0 && judged.recovered <= written, "{judged:?} of {written}");
    println!("{judged:?} of {written} links written; {}", before["groups"][0]["writes"]);
}

#[test]
fn a_group_without_one_of_its_nodes_is_not_cut_and_not_taken_over() {
    let mut rig = Rig::new("missing", 2, 1);
    rig.start();
    let chains = Chains::start(rig.exports(), true);
    rig.wait_for_copied_cuts(2);
    rig.kill_main(1);
    let site = rig.wait_for_site(rig.main(0), "the missing pair", |site| {
        site["groups"][0]["writes"]["missing"].as_array().is_some_and(|missing| missing.len() == 1)
    });
    let refused = rig.main(0).farseal(&["cut", "default"]).unwrap_err().to_string();
    assert!(refused.contains("cannot be reached: lane-1"), "{refused}");
    let shown = rig.main(0).farseal(&["status", "--site"]).unwrap();
    assert!(shown.contains("NO CUTS: lane-1 cannot be reached"), "{shown}");
    rig.kill_remote(1);
    rig.kill_mains();
    chains.stop();
    rig.wait_for_site(rig.remote(0), "the missing copy", |site| {
        site["groups"][0]["pairs"].as_array().is_some_and(|pairs| pairs.iter().any(|pair| pair["there"] == false))
    });
    let refused = rig.remote(0).farseal(&["takeover", "--group", "default", "--yes"]).unwrap_err().to_string();
    assert!(refused.contains("lane-1 of group default cannot be reached: nothing was taken over"), "{refused}");
    rig.start_remote(1);
    rig.wait_for_site(rig.remote(0), "both copies", |site| {
        site["groups"][0]["pairs"].as_array().is_some_and(|pairs| pairs.iter().all(|pair| pair["there"] == true))
    });
    let cut = site["groups"][0]["writes"]["last"]["cut"].as_u64().unwrap();
    let said = rig.remote(1).farseal(&["takeover", "--group", "default", "--yes"]).unwrap();
    assert!(said.contains("all 2 pairs"), "asked at a member: {said}");
    let at: u64 = said.split("at cut ").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    assert!(at <= cut, "{said}; the last cut that was made is {cut}");
    judge(&rig, &chains);
}

#[test]
fn a_group_stops_and_goes_on_as_one() {
    let mut rig = Rig::new("pause", 1, 2);
    rig.start();
    let chains = Chains::start(rig.exports(), false);
    rig.wait_for_copied_cuts(1);
    let refused = rig.main(0).farseal(&["pause", "lane-1"]).unwrap_err().to_string();
    assert!(refused.contains("farseal pause --group default"), "{refused}");
    let refused = rig.main(0).farseal(&["swap", "lane-1"]).unwrap_err().to_string();
    assert!(refused.contains("in group default with others") && refused.contains("lane-1 --alone"), "{refused}");
    rig.main(0).farseal(&["pause", "--group", "default", "--wait"]).unwrap();
    let status =
        rig.wait_for_site(rig.main(0), "the pause of all", |site| site["groups"][0]["writes"]["settled"] == true);
    let paused = &status["groups"][0]["writes"];
    assert_eq!(paused["phase"]["is"].as_str(), Some("paused"));
    let refused = rig.main(0).farseal(&["resume", "lane-0"]).unwrap_err().to_string();
    assert!(refused.contains("farseal resume --group default"), "{refused}");
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(rig.site_of(rig.main(0))["groups"][0]["writes"]["made"], paused["made"], "no cut is made meanwhile");
    rig.restart_main(0);
    rig.wait_for_site(rig.main(0), "the pause is remembered, at its cut", |site| {
        let writes = &site["groups"][0]["writes"];
        writes["settled"] == true && writes["phase"]["cut"] == paused["phase"]["cut"]
    });
    rig.main(0).farseal(&["resume", "--group", "default"]).unwrap();
    rig.wait_for_copied_cuts(2);
    rig.kill_mains();
    chains.stop();
    rig.remote(0).farseal(&["takeover", "--group", "default", "--yes"]).unwrap();
    rig.images();
}
