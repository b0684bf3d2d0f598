//! Two nodes as processes of their own that change sides: by disaster and rejoin, and as planned.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/built.rs"]
mod built;
#[path = "roles/line.rs"]
mod line;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../../xtask/src/nbd_client.rs"]
mod nbd_client;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../../xtask/src/site.rs"]
mod site;
#[path = "support/sites.rs"]
mod sites;

use std::rc::Rc;

use built::{farseal, plugins};
use line::{Line, hands_over};
use nbd_client::Client;
use site::{PairTerms, Site, Stage, Status, free_port, wait_for};
use sites::{BLOCK, PAIR, PATIENCE, sites};

fn client(site: &Site) -> Client {
    wait_for(&format!("the export of {}", site.name), PATIENCE, || Ok(Client::connect(&site.socket(), PAIR).ok()))
        .unwrap()
}

fn block(byte: u8) -> Vec<u8> {
    vec![byte; usize::try_from(BLOCK).unwrap()]
}

/// Writes whole blocks, each of one byte, and flushes.
fn write(client: &mut Client, blocks: &[(u64, u8)]) {
    for (at, byte) in blocks {
        client.write(at * BLOCK, &block(*byte)).unwrap();
    }
    client.flush().unwrap();
}

/// The first byte of each block; each block must be of one byte.
fn read(site: &Site, blocks: &[u64]) -> Vec<u8> {
    let mut client = client(site);
    let read = |at: &u64| {
        let mut bytes = block(0);
        client.read(at * BLOCK, &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "block {at} is mixed");
        bytes[0]
    };
    blocks.iter().map(read).collect()
}

fn safe(status: &Status) -> bool {
    status.is_safe()
}

/// Main dies with a tail that the remote lacks, the remote takes over and writes, main comes back as its keeper.
fn taken_over_and_rejoined(main: &mut Site, remote: &mut Site) {
    write(&mut client(main), &[(0, 1), (1, 1), (2, 1), (100, 1)]);
    main.wait_until("everything at the remote", safe).unwrap();
    remote.kill().unwrap();
    // Two granules of 64 KiB that only main has.
    write(&mut client(main), &[(2, 2), (200, 2)]);
    main.kill().unwrap();
    remote.start().unwrap();
    remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    assert_eq!(read(remote, &[0, 1, 2, 100, 200]), [1, 1, 1, 1, 0]);
    write(&mut client(remote), &[(1, 3), (300, 3)]);
    main.start().unwrap();
    main.wait_until("the word of the newer generation", |status| status.state() == "diverged").unwrap();
    let refused = client(main).write(0, &block(9));
    assert!(refused.is_err(), "a site that was taken over from answered a write well");
    wait_for("the place where the histories part", PATIENCE, || {
        main.farseal(&["rejoin", PAIR]).map(Some).or_else(|error| {
            let early = error.to_string().contains("has not connected to this node yet");
            if early { Ok(None) } else { Err(error) }
        })
    })
    .unwrap();
    remote.wait_until("a resync that ended", safe).unwrap();
}

#[test]
fn a_main_that_was_taken_over_from_rejoins_and_takes_over_again() {
    let (_stage, mut main, mut remote) = sites("rejoin");
    taken_over_and_rejoined(&mut main, &mut remote);
    let listed = main.farseal(&["branches", "list", PAIR]).unwrap();
    assert!(listed.contains("1-"), "{listed}");
    // Restarts in the new sides.
    main.kill().unwrap();
    remote.kill().unwrap();
    main.start().unwrap();
    remote.start().unwrap();
    write(&mut client(&remote), &[(5, 5)]);
    remote.wait_until("everything at main", safe).unwrap();
    let blocks = [0, 1, 2, 5, 100, 200, 300];
    let expected = read(&remote, &blocks);
    assert_eq!(expected, [1, 3, 1, 5, 1, 0, 3], "neither history was to win by guess");
    // A test over what this site wrote before ends where that is written again.
    main.farseal(&["recover", "test", PAIR]).unwrap();
    let tested = || Client::connect(&main.socket(), &format!("{PAIR}.test"));
    drop(tested().unwrap());
    remote.kill().unwrap();
    main.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    assert!(tested().is_err(), "a test shows what is written now");
    assert_eq!(read(&main, &blocks), expected, "main's own tail came back, or the remote's writes did not arrive");
}

#[test]
fn the_losing_tail_is_exported_and_can_be_adopted() {
    let (stage, mut main, mut remote) = sites("branch");
    taken_over_and_rejoined(&mut main, &mut remote);
    let listed = main.farseal(&["branches", "list", PAIR]).unwrap();
    let name = listed.split_whitespace().find(|word| word.starts_with("1-")).unwrap().trim_end_matches(':').to_owned();
    let to = stage.dir.join("exported");
    main.farseal(&["branches", "export", PAIR, &name, "--to", to.to_str().unwrap()]).unwrap();
    let image = std::fs::read(to.join("branch.image")).unwrap();
    let at = |block: u64| image[usize::try_from(block * BLOCK).unwrap()];
    assert_eq!((at(2), at(200), at(300)), (2, 2, 0), "the export does not hold the tail");
    main.farseal(&["branches", "adopt", PAIR, &name, "--yes"]).unwrap();
    assert_eq!(read(&main, &[0, 1, 2, 100, 200, 300]), [1, 1, 2, 1, 2, 0]);
    write(&mut client(&main), &[(6, 6)]);
    remote.wait_until("the word of the newer generation", |status| status.state() == "diverged").unwrap();
    wait_for("the place where the histories part", PATIENCE, || Ok(remote.farseal(&["rejoin", PAIR]).ok())).unwrap();
    main.wait_until("a resync that ended", safe).unwrap();
    let blocks = [0, 1, 2, 6, 100, 200, 300];
    let expected = read(&main, &blocks);
    assert_eq!(expected, [1, 1, 2, 6, 1, 2, 0]);
    main.kill().unwrap();
    remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    assert_eq!(read(&remote, &blocks), expected);
}

#[test]
fn a_declared_disaster_is_taken_over_without_what_had_not_arrived_and_the_sides_can_be_swapped_back() {
    let (_stage, main, remote) = sites("declared");
    let refused = remote.farseal(&["disaster", "declare", PAIR, "--yes"]).unwrap_err().to_string();
    assert!(refused.contains("primary"), "{refused}");
    write(&mut client(&main), &[(0, 1), (1, 1)]);
    main.wait_until("everything at the remote", safe).unwrap();
    main.farseal(&["pause", PAIR, "--wait"]).unwrap();
    write(&mut client(&main), &[(1, 2), (2, 2)]);
    let unasked = main.farseal(&["disaster", "declare", PAIR]).unwrap_err().to_string();
    assert!(unasked.contains("nobody is here to agree"), "{unasked}");
    main.farseal(&["disaster", "declare", PAIR, "--yes"]).unwrap();
    assert!(
        client(&main).write(3 * BLOCK, &block(9)).is_err(),
        "a site that declared itself lost answered a write well"
    );
    let again = main.farseal(&["disaster", "declare", PAIR, "--yes"]).unwrap_err().to_string();
    assert!(again.contains("rejoin"), "{again}");
    assert_eq!(read(&remote, &[0, 1, 2, 3]), [1, 1, 0, 0]);
    write(&mut client(&remote), &[(3, 3)]);
    wait_for("the place where the histories part", PATIENCE, || Ok(main.farseal(&["rejoin", PAIR]).ok())).unwrap();
    assert!(main.farseal(&["branches", "list", PAIR]).unwrap().contains("1-"), "what main wrote is gone");
    remote.wait_until("a resync that ended", safe).unwrap();
    remote.farseal(&["swap", PAIR]).unwrap();
    main.wait_until("the sides swapped", |status| status.is_safe() && status.epoch() > 0).unwrap();
    assert_eq!(read(&main, &[0, 1, 2, 3]), [1, 1, 0, 3]);
}

#[test]
fn a_disaster_that_the_remote_cannot_hear_of_leaves_the_main_site_writing() {
    let (_stage, main, mut remote) = sites("unheard");
    remote.kill().unwrap();
    main.wait_until("the lost link", |status| !status.is_safe() || status.state() != "copying").unwrap();
    let refused = main.farseal(&["disaster", "declare", PAIR, "--yes"]).unwrap_err().to_string();
    assert!(refused.contains("goes on writing") && refused.contains("takeover"), "{refused}");
    write(&mut client(&main), &[(5, 5)]);
    assert_eq!(read(&main, &[5]), [5]);
}

#[test]
fn sides_are_swapped_there_and_back_without_losing_a_write() {
    let (_stage, mut main, mut remote) = sites("swap");
    let mut written = Vec::new();
    for round in 0..4u8 {
        let (from, to) = if round % 2 == 0 { (&main, &remote) } else { (&remote, &main) };
        let blocks: Vec<(u64, u8)> =
            (0..20).map(|at| (u64::from(round) * 7 + at, round * 20 + u8::try_from(at).unwrap() + 1)).collect();
        write(&mut client(from), &blocks);
        written.extend(blocks);
        from.wait_until("everything at the other site", safe).unwrap();
        from.farseal(&["swap", PAIR]).unwrap();
        to.wait_until("the sides swapped", |status| status.is_safe() && status.epoch() > 0).unwrap();
        let mut image = vec![0; 64];
        written.iter().for_each(|(at, byte): &(u64, u8)| image[usize::try_from(*at).unwrap()] = *byte);
        assert_eq!(read(to, &(0..64).collect::<Vec<_>>()), image, "round {round}");
        assert!(Client::connect(&from.socket(), PAIR).is_err(), "round {round}: the old side still exports the volume");
    }
    assert_eq!(main.farseal(&["branches", "list", PAIR]).unwrap().lines().count(), 1, "a planned swap left a branch");
    main.kill().unwrap();
    let refused = remote.farseal(&["swap", PAIR]).unwrap_err().to_string();
    assert!(refused.contains("takeover") || refused.contains("secondary") || refused.contains("primary"), "{refused}");
    remote.kill().unwrap();
}

/// Main hands over to a remote that never hears of it: nobody knows who writes.
fn handed_over_to_nobody(purpose: &str) -> (Rc<Stage>, Site, Site, Line) {
    let stage = Stage::new(purpose).unwrap();
    let mut main = Site::init(&stage, farseal(), plugins(), "main").unwrap();
    let mut remote = Site::init(&stage, farseal(), plugins(), "remote").unwrap();
    let (volume, listen) = (main.dir.join("volume.img"), format!("127.0.0.1:{}", free_port().unwrap()));
    let lane = main.state().join("pairs").join(PAIR).join("lane.json");
    let listens = free_port().unwrap();
    let line = Line::start(listens, lane.clone());
    let options = ["--listen", &listen];
    let terms = PairTerms { name: PAIR, volume: &volume, mebibytes: 16, options: &options };
    main.pair_over(&remote, &terms, line.port, listens).unwrap();
    remote.start().unwrap();
    main.start().unwrap();
    main.wait_until("the link and a key", |status| status.is_safe() && status.epoch() > 0).unwrap();
    write(&mut client(&main), &[(0, 1), (1, 1), (100, 1)]);
    main.wait_until("everything at the remote", safe).unwrap();
    let refused = main.farseal(&["take-back", PAIR, "--yes"]).unwrap_err().to_string();
    assert!(refused.contains("no swap of it waits"), "{refused}");
    let mut asks = main.begin(&["swap", PAIR]).unwrap();
    wait_for("a hand-over that nobody hears of", PATIENCE, || Ok(hands_over(&lane).then_some(()))).unwrap();
    asks.kill().unwrap();
    asks.wait().unwrap();
    (stage, main, remote, line)
}

#[test]
fn what_was_handed_over_to_a_lost_site_is_taken_back() {
    let (_stage, mut main, mut remote, line) = handed_over_to_nobody("takeback");
    remote.kill().unwrap();
    main.kill().unwrap();
    main.start().unwrap();
    main.wait_until("word that nobody writes", |status| status.state() == "stopped").unwrap();
    assert!(client(&main).write(0, &block(9)).is_err(), "a site that handed over answered a write well");
    let unasked = main.farseal(&["take-back", PAIR]).unwrap_err().to_string();
    assert!(unasked.contains("nobody is here to agree"), "{unasked}");
    main.farseal(&["take-back", PAIR, "--yes"]).unwrap();
    write(&mut client(&main), &[(1, 2), (7, 2)]);
    main.kill().unwrap();
    main.start().unwrap();
    write(&mut client(&main), &[(8, 3)]);
    let blocks = [0, 1, 7, 8, 100];
    assert_eq!(read(&main, &blocks), [1, 2, 2, 3, 1]);
    // It was not lost after all, and never took over: it goes on keeping the copy, and can be swapped with.
    line.mend();
    remote.start().unwrap();
    main.wait_until("everything at the remote", safe).unwrap();
    remote.kill().unwrap();
    remote.start().unwrap();
    main.wait_until("everything at the remote", safe).unwrap();
    main.farseal(&["swap", PAIR]).unwrap();
    remote.wait_until("the sides swapped", |status| status.is_safe() && status.epoch() > 0).unwrap();
    assert_eq!(read(&remote, &blocks), [1, 2, 2, 3, 1]);
}

#[test]
fn a_site_that_went_on_after_all_is_a_branch_of_what_was_taken_back() {
    let (_stage, mut main, mut remote, line) = handed_over_to_nobody("takebacks");
    // A remote that reaches main says itself that it goes on.
    main.kill().unwrap();
    remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    write(&mut client(&remote), &[(1, 3), (200, 3)]);
    remote.kill().unwrap();
    main.start().unwrap();
    main.farseal(&["take-back", PAIR, "--yes"]).unwrap();
    write(&mut client(&main), &[(1, 2), (7, 2)]);
    line.mend();
    remote.start().unwrap();
    remote.wait_until("the word of the newer generation", |status| status.state() == "diverged").unwrap();
    wait_for("the place where the histories part", PATIENCE, || Ok(remote.farseal(&["rejoin", PAIR]).ok())).unwrap();
    assert!(remote.farseal(&["branches", "list", PAIR]).unwrap().contains("2-"), "what the remote wrote is gone");
    main.wait_until("a resync that ended", safe).unwrap();
    let blocks = [0, 1, 7, 100, 200];
    assert_eq!(read(&main, &blocks), [1, 2, 2, 1, 0]);
    main.kill().unwrap();
    remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    assert_eq!(read(&remote, &blocks), [1, 2, 2, 1, 0], "neither history was to win by guess");
}
