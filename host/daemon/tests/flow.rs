//! How copying flows between two real nodes: over which paths, how fast, and what is shown of it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/built.rs"]
mod built;
#[expect(dead_code, reason = "the chaos command uses the rest")]
#[path = "../../../xtask/src/nbd_client.rs"]
mod nbd_client;
#[expect(dead_code, reason = "the demo uses the rest")]
#[path = "../../../xtask/src/site.rs"]
mod site;

use std::rc::Rc;
use std::time::Duration;

use built::{farseal, plugins};
use nbd_client::Client;
use serde_json::Value;
use site::{PairTerms, Site, Stage, wait_for};

const PAIR: &str = "vault";
const PATIENCE: Duration = Duration::from_secs(60);

/// Two paired nodes that run.
struct Sites {
    main: Site,
    remote: Site,
    _stage: Rc<Stage>,
}

impl Sites {
    fn new(purpose: &str, mebibytes: u64, options: &[&str]) -> Self {
        let stage = Stage::new(purpose).unwrap();
        let main = Site::init(&stage, farseal(), plugins(), "main").unwrap();
        let remote = Site::init(&stage, farseal(), plugins(), "remote").unwrap();
        let volume = main.dir.join("volume.img");
        main.pair_with(&remote, &PairTerms { name: PAIR, volume: &volume, mebibytes, options }).unwrap();
        Self { main, remote, _stage: stage }
    }

    fn start(&mut self) {
        self.remote.start().unwrap();
        self.main.start().unwrap();
    }

    fn client(&self) -> Client {
        Client::connect(&self.main.socket(), PAIR).unwrap()
    }
}

/// The pair's status at a node, as its console gets it.
fn status(site: &Site) -> Value {
    let node: Value = serde_json::from_str(&site.farseal(&["status", "--json"]).unwrap()).unwrap();
    node["pairs"][0].clone()
}

/// Looks at the status until it is as wanted.
fn wait_until(site: &Site, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let found = wait_for(what, PATIENCE, || Ok(Some(status(site)).filter(|status| wanted(status))));
    found.unwrap_or_else(|error| panic!("{error}: {:#}", status(site)))
}

fn is_safe(status: &Value) -> bool {
    status["state"]["is"] == "copying"
        && status["lag"]["bytes"] == 0
        && status["marks"]["safe"] == status["marks"]["last"]
}

#[test]
fn the_transfer_and_its_paths_change_while_records_flow_and_stay_changed_after_a_restart() {
    let mut sites = Sites::new("transfer", 16, &["--paths", "2", "--transfer", "ordered"]);
    sites.start();
    wait_until(&sites.main, "two paths", |status| status["paths-up"] == 2 && is_safe(status));
    let mut client = sites.client();
    client.write(0, &[1; 8192]).unwrap();
    client.flush().unwrap();
    let shown = wait_until(&sites.main, "the write at the remote", is_safe);
    // The path that was up first carries the order.
    let carrier = shown["flow"]["carrier"].as_u64().unwrap();
    assert!(shown["flow"]["transfer"] == "ordered" && carrier < 2, "{:#}", shown["flow"]);

    sites.main.farseal(&["transfer", PAIR, "scheduled", "--paths", "4"]).unwrap();
    wait_until(&sites.main, "four paths", |status| status["paths-up"] == 4);
    assert_eq!(status(&sites.remote)["paths-up"], 4);
    client.write(8192, &[2; 8192]).unwrap();
    client.flush().unwrap();
    wait_until(&sites.main, "the write at the remote", is_safe);

    sites.main.kill().unwrap();
    sites.main.start().unwrap();
    let shown = wait_until(&sites.main, "four paths again", |status| status["paths-up"] == 4);
    assert_eq!(shown["flow"]["transfer"], "scheduled");

    sites.main.farseal(&["transfer", PAIR, "ordered", "--paths", "1"]).unwrap();
    wait_until(&sites.main, "one path", |status| status["paths-up"] == 1);
    sites.client().write(16384, &[3; 4096]).unwrap();
    wait_until(&sites.main, "the write at the remote", is_safe);
    let refused = sites.main.farseal(&["transfer", PAIR, "ordered", "--paths", "17"]).unwrap_err();
    assert!(refused.to_string().contains("1..=16"), "{refused}");
}

/// There is no state of the volume at the remote yet.
#[test]
fn a_disaster_is_not_declared_over_a_copy_that_is_not_whole_and_this_site_goes_on_writing() {
    let mut sites = Sites::new("declared-early", 4, &[]);
    std::fs::write(sites.main.dir.join("volume.img"), vec![7; 4 << 20]).unwrap();
    let none = "\nlimits = { link = \"none\", resync = \"none\", initial-copy = \"none\"";
    sites.main.edit(none, "\nlimits = { initial-copy = \"64KiB/s\"").unwrap();
    sites.start();
    wait_until(&sites.main, "a part of the copy", |status| status["flow"]["copy"]["done"].as_u64().unwrap_or(0) > 0);
    let refused = sites.main.farseal(&["disaster", "declare", PAIR, "--yes"]).unwrap_err().to_string();
    assert!(refused.contains("the copy there is not whole yet") && refused.contains("goes on writing"), "{refused}");
    assert!(refused.contains("farseal status"), "{refused}");
    sites.client().write(0, &[8; 4096]).unwrap();
    assert!(Client::connect(&sites.remote.socket(), PAIR).is_err(), "the remote has taken over");
    // Whole, it is taken over at the main site's word.
    sites.main.farseal(&["throttle", PAIR, "--initial-copy", "none"]).unwrap();
    wait_until(&sites.main, "the end of the copy", is_safe);
    sites.main.farseal(&["disaster", "declare", PAIR, "--yes"]).unwrap();
    let connected = || Ok(Client::connect(&sites.remote.socket(), PAIR).ok());
    let mut taken = wait_for("the export of what was taken over", PATIENCE, connected).unwrap();
    let mut found = [0; 8192];
    taken.read(0, &mut found).unwrap();
    assert_eq!((found[0], found[4096]), (8, 7));
}

#[test]
fn an_initial_copy_is_throttled_shown_and_goes_on_after_a_restart() {
    const MIB: u64 = 1 << 20;
    let mut sites = Sites::new("initial", 96, &[]);
    // Data in its first 48 MiB; nothing was ever written behind them.
    let image: Vec<u8> = (0..48 * MIB).map(|at| u8::try_from(at / 4096 % 255 + 1).unwrap()).collect();
    let volume = std::fs::File::create(sites.main.dir.join("volume.img")).unwrap();
    volume.set_len(96 * MIB).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&volume, &image, 0).unwrap();
    volume.sync_all().unwrap();
    drop(volume);
    sites
        .main
        .edit(
            "\nlimits = { link = \"none\", resync = \"none\", initial-copy = \"none\"",
            "\nlimits = { initial-copy = \"8MiB/s\"",
        )
        .unwrap();
    sites.start();
    let part = |status: &Value| status["flow"]["copy"]["done"].as_u64().unwrap_or(0);
    let shown = wait_until(&sites.main, "a part of the copy", |status| part(status) >= 16 * MIB);
    assert_eq!(shown["flow"]["copy"]["kind"], "initial");
    assert_eq!(shown["flow"]["copy"]["total"], 48 * MIB, "what was never written is not owed");
    assert!(shown["flow"]["copy"]["time-left"].as_u64().unwrap() > 0);
    assert!(sites.main.farseal(&["status"]).unwrap().contains("initial copy, "));
    // Initiators write meanwhile.
    let mut client = sites.client();
    client.write(40 * MIB, &[0xee; 4096]).unwrap();
    client.write(90 * MIB, &[0xdd; 4096]).unwrap();
    client.flush().unwrap();
    drop(client);

    sites.main.kill().unwrap();
    sites.main.edit("{ initial-copy = \"8MiB/s\"", "{ initial-copy = \"64KiB/s\"").unwrap();
    sites.main.start().unwrap();
    let shown = wait_until(&sites.main, "the copy going on", |status| status["state"]["is"] == "catching-up");
    // An eighth of this volume may be repeated.
    assert!(part(&shown) >= 4 * MIB, "it began again: {:#}", shown["flow"]["copy"]);
    sites.main.farseal(&["throttle", PAIR, "--initial-copy", "none"]).unwrap();
    let shown = wait_until(&sites.main, "the end of the copy", is_safe);
    assert_eq!(shown["flow"]["limits"]["initial-copy"], Value::Null);

    sites.main.kill().unwrap();
    sites.remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    let mut copy = Client::connect(&sites.remote.socket(), PAIR).unwrap();
    let mut found = vec![0; 1 << 20];
    for mib in 0..96 {
        copy.read(mib * MIB, &mut found).unwrap();
        let at = usize::try_from(mib * MIB).unwrap();
        let mut expected = image.get(at..at + (1 << 20)).map_or_else(|| vec![0; 1 << 20], <[u8]>::to_vec);
        match mib {
            40 => expected[..4096].fill(0xee),
            90 => expected[..4096].fill(0xdd),
            _ => {}
        }
        assert!(found == expected, "MiB {mib} is another at the remote");
    }
}

#[test]
fn a_journal_that_fills_slows_writes_says_so_and_stops_nobody_when_it_is_full() {
    const MIB: u64 = 1 << 20;
    let mut sites = Sites::new("fill", 64, &[]);
    sites.main.edit("\njournal-max = \"4GiB\"", "\njournal-max = \"128MiB\"").unwrap();
    sites.main.edit("\njournal-high-water = 80", "\njournal-high-water = 20").unwrap();
    sites.start();
    wait_until(&sites.main, "the link", is_safe);
    sites.remote.kill().unwrap();
    wait_until(&sites.main, "the loss of the link", |status| status["state"]["is"] == "link-down");
    let mut client = sites.client();
    let mut paced = false;
    for round in 0..400 {
        client.write(round % 64 * MIB, &vec![u8::try_from(round % 255 + 1).unwrap(); 1 << 20]).unwrap();
        if round % 16 == 0 {
            paced |= status(&sites.main)["flow"]["pace-us"].as_u64().unwrap() > 0;
            if status(&sites.main)["flow"]["overflows"] == 1 {
                break;
            }
        }
    }
    assert!(paced, "no write was slowed");
    let shown = wait_until(&sites.main, "the dirty map", |status| status["flow"]["overflows"] == 1);
    assert!(shown["flow"]["high-waters"].as_u64().unwrap() >= 1);
    let shown = wait_until(&sites.main, "no delay", |status| status["flow"]["pace-us"] == 0);
    assert_eq!(shown["flow"]["copy"]["kind"], "resync");
    client.flush().unwrap();
    sites.remote.start().unwrap();
    wait_until(&sites.main, "nothing owed", is_safe);
}

#[test]
fn presets_pause_and_resume_and_an_operators_word_wins() {
    let mut sites = Sites::new("presets", 16, &[]);
    sites.start();
    wait_until(&sites.main, "the link", is_safe);
    let is = |state: &'static str| move |status: &Value| status["state"]["is"] == state;
    let add = ["preset", "add", PAIR, "often", "--every", "4s", "--for", "2s"];
    sites.main.farseal(&add).unwrap();
    let shown = wait_until(&sites.main, "the preset's pause", is("paused"));
    assert_eq!(shown["flow"]["pause"]["by"], "preset often");
    assert!(shown["flow"]["pause"]["until"].is_u64(), "{shown:#}");
    wait_until(&sites.main, "its end", is("copying"));
    let again = sites.main.farseal(&add).unwrap_err();
    assert!(again.to_string().contains("there is a preset \"often\" already"), "{again}");

    wait_until(&sites.main, "the next pause", is("paused"));
    sites.main.farseal(&["pause", PAIR, "--wait", "--by", "backup-job"]).unwrap();
    let shown = status(&sites.main);
    assert_eq!((&shown["flow"]["pause"]["by"], &shown["state"]["is"]), (&"backup-job".into(), &"paused".into()));
    sites.main.kill().unwrap();
    sites.main.start().unwrap();
    // Two of the preset's windows later.
    let until = shown["flow"]["presets"][0]["until"].as_u64().unwrap() + 8_000;
    let shown = wait_until(&sites.main, "two more windows", |status| {
        status["flow"]["presets"][0]["until"].as_u64().is_some_and(|now| now > until)
    });
    assert_eq!(shown["flow"]["pause"]["by"], "backup-job", "kept over a restart, and not ended by the preset");
    sites.main.farseal(&["resume", PAIR]).unwrap();
    sites.main.farseal(&["preset", "remove", PAIR, "often"]).unwrap();
    wait_until(&sites.main, "copying", is("copying"));
    sites.main.farseal(&["pause", PAIR, "--for", "2s"]).unwrap();
    wait_until(&sites.main, "the end of a pause with an end", is_safe);
    assert_eq!(sites.main.farseal(&["preset", "list", PAIR]).unwrap(), "no presets; `farseal preset add` makes one\n");
}

#[test]
fn a_pair_copies_what_was_picked_of_what_was_there_and_all_that_is_written_later() {
    const MIB: u64 = 1 << 20;
    let mut sites = Sites::new("pick", 8, &["--pick", "written"]);
    std::fs::write(sites.main.dir.join("volume.img"), vec![5; 8 << 20]).unwrap();
    sites.start();
    wait_until(&sites.main, "the link", is_safe);
    let mut client = sites.client();
    client.write(MIB, &[9; 4096]).unwrap();
    client.flush().unwrap();
    wait_until(&sites.main, "the write at the remote", is_safe);
    drop(client);
    sites.main.kill().unwrap();
    sites.remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    let mut copy = Client::connect(&sites.remote.socket(), PAIR).unwrap();
    let mut found = [1; 8192];
    copy.read(MIB - 4096, &mut found).unwrap();
    assert_eq!((&found[..4096], &found[4096..]), (&[0; 4096][..], &[9; 4096][..]));
}
