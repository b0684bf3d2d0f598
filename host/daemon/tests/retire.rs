//! Keys that an operator has destroyed, with nodes as processes of their own: nothing of them is left in any file, killed or
//! not, and the copy opens all the same.

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
use std::path::{Path, PathBuf};

use site::{Site, wait_for};
use sites::{PAIR, PATIENCE, started};
use three::{Three, read, refusal, three, write};

const RETIRE: [&str; 3] = ["key", "retire", PAIR];

/// A block of its own and one of its forerunner's for each epoch, 1 to `epochs`.
fn write_over(site: &Site, epochs: u64) {
    for epoch in 1..=epochs {
        let byte = u8::try_from(epoch).unwrap();
        write(site, &[(epoch * 40, byte), (epoch * 40 + 1, byte), ((epoch - 1) * 40 + 1, byte)]);
        if epoch < epochs {
            site.farseal(&["rotate", PAIR, "--force"]).unwrap();
        }
    }
    site.wait_until("everything at the remote", |status| status.is_safe()).unwrap();
}

fn written(epochs: u64) -> Vec<(u64, u8)> {
    let byte = |epoch| u8::try_from(epoch).unwrap();
    (1..=epochs).flat_map(|at| [(at * 40, byte(at)), (at * 40 + 1, byte((at + 1).min(epochs)))]).collect()
}

/// For each epoch, bytes that stand in its capsule wherever that is kept.
fn marks(site: &Site) -> Vec<(u64, Vec<u8>)> {
    let mut marks: Vec<_> = fs::read_dir(site.state().join("pairs").join(PAIR).join("epochs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "epoch"))
        .map(|path| {
            let bytes = fs::read(&path).unwrap();
            let epoch = u64::from_str_radix(path.file_stem().unwrap().to_str().unwrap(), 16).unwrap();
            (epoch, bytes[bytes.len() / 2..][..32].to_vec())
        })
        .collect();
    marks.sort();
    marks
}

/// The files that hold these bytes.
fn holders(sites: &[&Site], mark: &[u8]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    sites.iter().for_each(|site| below(&site.dir, &mut files));
    files.retain(|path| fs::read(path).is_ok_and(|bytes| bytes.windows(mark.len()).any(|window| window == mark)));
    files
}

fn below(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => below(&entry.path(), files),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            Ok(_) | Err(_) => {}
        }
    }
}

#[test]
fn retired_keys_are_nowhere_any_more_and_the_copy_opens_without_them() {
    let (_stage, mut main, mut remote) = started("retire", &["--disguise", "plain"]);
    main.wait_until("the link and a key", |status| status.is_safe() && status.epoch() > 0).unwrap();
    write_over(&main, 5);
    let in_force = main.status().unwrap().epoch();
    let marks = marks(&remote);
    assert_eq!(marks.last().unwrap().0, in_force);
    for (epoch, mark) in &marks {
        let found = holders(&[&main, &remote], mark);
        assert!(found.len() >= 3, "epoch {epoch} is looked for in the wrong way: {found:?}");
    }

    let through = in_force.to_string();
    let future = (in_force + 1).to_string();
    for (words, said) in [
        ([&RETIRE[..], &["--through", &through]].concat(), "is in force: rotate the key, then retire it"),
        ([&RETIRE[..], &["--through", &future]].concat(), "is in force"),
        ([&RETIRE[..], &["--older-than", "1h"]].concat(), "no epoch has been over for so long"),
    ] {
        let refused = refusal(&main, &words);
        assert!(refused.contains(said), "{words:?}: {refused}");
    }
    let refused = refusal(&remote, &RETIRE);
    assert!(refused.contains("primary"), "{refused}");
    let dry = main.farseal(&[&RETIRE[..], &["--dry-run"]].concat()).unwrap();
    assert!(dry.contains("would be sent again"), "{dry}");
    assert_eq!(marks.len(), self::marks(&remote).len(), "a dry run destroys nothing");

    // Each site dies once while it is at it; the operator says it again.
    let mut asked = main.begin(&RETIRE).unwrap();
    remote.kill().unwrap();
    assert!(!asked.wait().unwrap().success(), "without the remote nothing is destroyed");
    remote.start().unwrap();
    main.wait_until("the link", |status| status.is_safe()).unwrap();
    let mut asked = main.begin(&RETIRE).unwrap();
    main.kill().unwrap();
    let _ = asked.wait().unwrap();
    main.start().unwrap();
    main.wait_until("the link", |status| status.is_safe()).unwrap();
    let in_force = main.status().unwrap().epoch();
    let said = main.farseal(&RETIRE).unwrap();
    assert!(said.contains("are destroyed at both sites"), "{said}");

    for restarted in [false, true] {
        if restarted {
            for site in [&mut remote, &mut main] {
                site.kill().unwrap();
                site.start().unwrap();
            }
            main.wait_until("the link", |status| status.is_safe()).unwrap();
        }
        for (epoch, mark) in marks.iter().filter(|(epoch, _)| *epoch < in_force) {
            let found = holders(&[&main, &remote], mark);
            assert_eq!(found, Vec::<PathBuf>::new(), "epoch {epoch}, restarted: {restarted}");
        }
    }
    let again = refusal(&main, &[&RETIRE[..], &["--through", &(in_force - 1).to_string()]].concat());
    assert!(again.contains("is destroyed already"), "{again}");
    for (site, proof) in [(&main, "the remote's proof holds"), (&remote, "the remote's proof holds")] {
        let history = site.farseal(&["key", "history", PAIR]).unwrap();
        assert!(history.contains(proof), "{history}");
    }
    let history = main.farseal(&["key", "history", PAIR]).unwrap();
    assert!(history.contains("shredded"), "{history}");
    main.farseal(&["key", "drill", PAIR]).unwrap();

    main.kill().unwrap();
    let planned = remote.farseal(&["recover", "plan", PAIR]).unwrap();
    assert!(planned.contains("its key opens here"), "{planned}");
    remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    for (at, byte) in written(5) {
        assert_eq!(read(&remote, &[at]), [byte], "block {at}");
    }
}

#[test]
fn an_escrow_site_destroys_its_deposits_as_well() {
    let mut sites = three("retire-escrow");
    sites.start();
    let Three { stage: _stage, mut main, remote, mut escrow } = sites;
    write_over(&main, 3);
    let in_force = main.status().unwrap().epoch();
    let before = marks(&main).iter().filter(|(epoch, _)| *epoch < in_force).count();
    // The remote destroys, and the escrow cannot be asked: the command waits until it can.
    escrow.kill().unwrap();
    let mut asked = main.begin(&RETIRE).unwrap();
    let old = |site: &Site| marks(site).iter().filter(|(epoch, _)| *epoch < in_force).count();
    wait_for("the remote to have destroyed the first keys", PATIENCE, || {
        assert!(asked.try_wait()?.is_none(), "the command waits for the escrow");
        Ok((old(&remote) == 0).then_some(()))
    })
    .unwrap();
    assert_eq!(old(&main), before, "this site's own go last");
    escrow.start().unwrap();
    assert!(asked.wait().unwrap().success());
    assert_eq!(old(&main), 0);
    let log = escrow.farseal(&["escrow", "log"]).unwrap();
    assert_eq!(log.matches("was destroyed").count(), before, "{log}");

    main.kill().unwrap();
    wait_for("the escrow's answer", PATIENCE, || {
        Ok(remote.farseal(&["escrow", "request", PAIR, "--reason", "gone"]).ok())
    })
    .unwrap();
    escrow.farseal(&["escrow", "approve", "1", "--yes", "--note", "yes"]).unwrap();
    let said = remote.farseal(&["escrow", "fetch", PAIR]).unwrap();
    assert!(said.contains("keys came from the escrow"), "{said}");
    remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    for (at, byte) in written(3) {
        assert_eq!(read(&remote, &[at]), [byte], "block {at}");
    }
}
