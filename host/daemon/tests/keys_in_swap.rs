//! Whether keys can get into swap: what the kernel says of a node that locks its memory, and what one says and does that may not

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/built.rs"]
mod built;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../../xtask/src/site.rs"]
mod site;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use built::{farseal, plugins};
use serde_json::Value;
use site::{Site, Stage};

/// As of a user without privileges, who may lock next to nothing.
const UNPRIVILEGED: &str = "#!/bin/sh
set -- prlimit --memlock=65536:65536 FARSEAL \"$@\"
[ \"$(id -u)\" != 0 ] || set -- setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock \"$@\"
exec \"$@\"
";

fn unprivileged(stage: &Stage) -> PathBuf {
    let script = stage.dir.join("farseal-unprivileged");
    fs::write(&script, UNPRIVILEGED.replace("FARSEAL", &farseal().display().to_string())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

/// What the node says, and how much of it the kernel has locked.
fn asked(site: &Site) -> (Value, u64) {
    let status: Value = serde_json::from_str(&site.farseal(&["status", "--json"]).unwrap()).unwrap();
    let kernel = fs::read_to_string(format!("/proc/{}/status", site.pid().unwrap())).unwrap();
    let locked = kernel.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    (status["keys-in-swap"].clone(), locked.trim().trim_end_matches(" kB").parse().unwrap())
}

#[test]
fn the_kernel_has_a_nodes_memory_locked_exactly_if_the_node_says_so() {
    let stage = Stage::new("swap-locked").unwrap();
    let mut node = Site::init(&stage, farseal(), plugins(), "main").unwrap();
    node.start().unwrap();
    let (said, locked) = asked(&node);
    assert_eq!(said["is"] == "locked", locked > 0, "{said}, {locked} KiB");
    let shown = node.farseal(&["status"]).unwrap();
    assert!(said["is"] != "locked" || shown.contains("keys cannot get into swap: memory is locked"), "{shown}");
    node.kill().unwrap();
    node.edit("#keys-in-swap = \"avoided\"", "keys-in-swap = \"accepted\"").unwrap();
    node.start().unwrap();
    let (said, locked) = asked(&node);
    assert_eq!((said["is"].as_str(), locked), (Some("possible"), 0), "{said}");
}

#[test]
fn a_node_that_may_not_lock_its_memory_says_so_or_does_not_start() {
    let stage = Stage::new("swap-unlocked").unwrap();
    let mut node = Site::init(&stage, &unprivileged(&stage), plugins(), "main").unwrap();
    node.start().unwrap();
    let (said, locked) = asked(&node);
    assert_eq!(locked, 0, "{said}");
    if said["is"] == "unswapped" {
        // Here the system swaps nothing of what these tests start.
        return;
    }
    assert_eq!(said["is"].as_str(), Some("possible"), "{said}");
    let shown = node.farseal(&["status"]).unwrap();
    assert!(shown.contains("KEYS CAN GET INTO SWAP: the process may lock 65536 bytes"), "{shown}");
    let log = fs::read_to_string(node.log()).unwrap();
    assert!(log.contains("keys can get into swap") && log.contains("LimitMEMLOCK=infinity"), "{log}");
    node.kill().unwrap();
    node.edit("#keys-in-swap = \"avoided\"", "keys-in-swap = \"refused\"").unwrap();
    let refused = format!("{:#}", node.start().unwrap_err());
    assert!(refused.contains("keys-in-swap") && refused.contains("LimitMEMLOCK=infinity"), "{refused}");
}
