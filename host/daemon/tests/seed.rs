//! The first copy on a disk, between two real nodes: exported under writes and through a kill, checked, imported, and gone
//! on from.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/built.rs"]
mod built;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../../xtask/src/nbd_client.rs"]
mod nbd_client;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../../xtask/src/site.rs"]
mod site;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use built::{farseal, plugins};
use nbd_client::Client;
use site::{PairTerms, Site, Stage, free_port, wait_for};

const PAIR: &str = "vault";
const BLOCK: u64 = 4096;
const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// What stands between two sites and counts what the first sends.
struct Counted {
    bytes: Arc<AtomicU64>,
}

impl Counted {
    fn start(port: u16, to: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&bytes);
        std::thread::spawn(move || {
            for from in listener.incoming().map_while(Result::ok) {
                let Ok(there) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let (back, forth) = (from.try_clone().unwrap(), there.try_clone().unwrap());
                let counted = Arc::clone(&counted);
                std::thread::spawn(move || carry(from, forth, |count| _ = counted.fetch_add(count, Ordering::Relaxed)));
                std::thread::spawn(move || carry(there, back, |_| {}));
            }
        });
        Self { bytes }
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, count: impl Fn(u64)) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut piece) {
        count(u64::try_from(read).unwrap());
        if to.write_all(&piece[..read]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

struct Sites {
    main: Site,
    remote: Site,
    link: Counted,
    disk: PathBuf,
    stage: Rc<Stage>,
}

/// Two paired nodes that do not run, a volume with data in it, and a disk.
fn sites(purpose: &str, mebibytes: u64, full: u64) -> Sites {
    let stage = Stage::new(purpose).unwrap();
    let main = Site::init(&stage, farseal(), plugins(), "main").unwrap();
    let remote = Site::init(&stage, farseal(), plugins(), "remote").unwrap();
    let volume = main.dir.join("volume.img");
    let (port, listens) = (free_port().unwrap(), free_port().unwrap());
    let terms = PairTerms { name: PAIR, volume: &volume, mebibytes, options: &[] };
    main.pair_over(&remote, &terms, port, listens).unwrap();
    let data: Vec<u8> = (0..full * MIB / BLOCK).flat_map(|block| block_of(block, 1)).collect();
    fs::write(&volume, data).unwrap();
    fs::File::options().write(true).open(&volume).unwrap().set_len(mebibytes * MIB).unwrap();
    let (link, disk) = (Counted::start(port, listens), stage.dir.join("disk"));
    Sites { main, remote, link, disk, stage }
}

/// A block that says where it belongs and how often it was written.
fn block_of(block: u64, times: u64) -> Vec<u8> {
    [block.to_le_bytes(), times.to_le_bytes()].concat().repeat(256)
}

fn export(sites: &Sites) -> String {
    sites.main.farseal(&["seed", "export", PAIR, &sites.disk.display().to_string()]).unwrap()
}

fn import(sites: &Sites, disk: &Path) -> Result<String, String> {
    sites.remote.farseal(&["seed", "import", &disk.display().to_string()]).map_err(|error| error.to_string())
}

fn wait_for_seed(main: &Site) {
    wait_for("the seed", PATIENCE, || Ok(main.farseal(&["status"])?.contains("up to record").then_some(()))).unwrap();
}

#[test]
fn a_seed_is_exported_under_writes_and_a_kill_and_only_what_came_later_goes_over_the_link() {
    let mut sites = sites("seed", 64, 48);
    sites.main.start().unwrap();
    sites.main.farseal(&["throttle", PAIR, "--initial-copy", "16MiB/s"]).unwrap();
    export(&sites);
    let (stop, times) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(1)));
    let writer = {
        let (socket, stop, times) = (sites.main.socket(), Arc::clone(&stop), Arc::clone(&times));
        std::thread::spawn(move || {
            // Block by block in a place of its own; the node is away for a while.
            while !stop.load(Ordering::Relaxed) {
                let Ok(mut client) = Client::connect(&socket, PAIR) else { continue };
                let next = times.load(Ordering::Relaxed) + 1;
                let written = (0..64).try_for_each(|block| client.write(block * BLOCK, &block_of(block, next)));
                if written.and_then(|()| client.flush()).is_ok() {
                    times.store(next, Ordering::Relaxed);
                }
                // At most 25 MiB/s: what is written after the seed goes over the link, and is to stay below what it saves.
                std::thread::sleep(Duration::from_millis(10));
            }
        })
    };
    sites.main.wait_until("a part of the copy", |status| status.lag_bytes() < 40 * MIB).unwrap();
    assert_eq!(sites.main.status().unwrap().state(), "seeding");
    sites.main.kill().unwrap();
    sites.main.start().unwrap();
    wait_for_seed(&sites.main);
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    let verified = sites.remote.farseal(&["seed", "verify", &sites.disk.display().to_string()]).unwrap();
    assert!(verified.contains("a whole seed of pair vault"), "{verified}");
    assert_eq!(sites.link.bytes(), 0, "something went over the link before the disk came");

    sites.remote.start().unwrap();
    // What a disk acknowledged is not believed of a remote that has not got it.
    wait_for("the wait for the seed", PATIENCE, || {
        let log = sites.main.last_lines(200);
        Ok(log.iter().any(|line| line.contains("has not got the seed")).then_some(()))
    })
    .unwrap();
    assert_eq!(sites.main.status().unwrap().state(), "seeding");
    assert_eq!(sites.remote.status().unwrap().mark("durable"), 0);
    let mut client = Client::connect(&sites.main.socket(), PAIR).unwrap();
    for block in 5000..5100 {
        client.write(block * BLOCK, &block_of(block, 9)).unwrap();
    }
    client.flush().unwrap();
    drop(client);

    let said = import(&sites, &sites.disk).unwrap();
    assert!(said.contains("the copy holds everything up to record"), "{said}");
    let again = import(&sites, &sites.disk).unwrap_err();
    assert!(again.contains("imported here already"), "{again}");
    sites.main.wait_until("the rest", |status| status.is_safe()).unwrap();
    let carried = sites.link.bytes();
    assert!(carried < 12 * MIB, "{carried} bytes went over the link");
    assert!(carried > 100 * BLOCK, "{carried} bytes are less than what was written since");
    eprintln!("the link carried {carried} bytes of 48 MiB and what came later");

    // Both restart; nothing begins anew.
    sites.main.kill().unwrap();
    sites.remote.kill().unwrap();
    sites.remote.start().unwrap();
    sites.main.start().unwrap();
    sites.main.wait_until("the link again", |status| status.is_safe()).unwrap();
    sites.main.kill().unwrap();
    sites.remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    let mut copy = Client::connect(&sites.remote.socket(), PAIR).unwrap();
    let mut found = vec![0; 4096];
    let flushed = times.load(Ordering::Relaxed);
    for block in 0..48 * MIB / BLOCK {
        copy.read(block * BLOCK, &mut found).unwrap();
        let times = u64::from_le_bytes(found[8..16].try_into().unwrap());
        match block {
            0..64 => assert!(times >= flushed, "block {block} is of round {times}, and {flushed} was flushed"),
            5000..5100 => assert_eq!(times, 9, "block {block}"),
            _ => assert_eq!(times, 1, "block {block}"),
        }
        assert_eq!(found, block_of(block, times), "block {block}");
    }
}

#[test]
fn a_seed_that_is_foreign_cut_or_altered_is_refused_and_one_that_is_given_up_costs_a_copy() {
    let mut sites = sites("refused", 16, 4);
    sites.main.start().unwrap();
    export(&sites);
    wait_for_seed(&sites.main);
    let refused = sites.main.farseal(&["pause", PAIR]).unwrap_err().to_string();
    assert!(refused.contains("waiting for its seed"), "{refused}");
    sites.remote.start().unwrap();

    let harmed = |name: &str, harm: &dyn Fn(&Path)| {
        let copy = sites.stage.dir.join(name);
        let copied = std::process::Command::new("cp").arg("-r").arg(&sites.disk).arg(&copy).status().unwrap();
        assert!(copied.success());
        harm(&copy);
        import(&sites, &copy).unwrap_err()
    };
    let log = "copy/log/00000000.fsl";
    let altered = harmed("altered", &|seed| {
        let mut bytes = fs::read(seed.join(log)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(seed.join(log), bytes).unwrap();
    });
    assert!(altered.contains("its bytes are not those that were exported"), "{altered}");
    let cut =
        harmed("cut", &|seed| fs::File::options().write(true).open(seed.join(log)).unwrap().set_len(999).unwrap());
    assert!(cut.contains("has 999 bytes"), "{cut}");
    let unsigned = harmed("unsigned", &|seed| {
        let text = fs::read_to_string(seed.join("seed.json")).unwrap();
        fs::write(seed.join("seed.json"), text.replacen("\"through\": ", "\"through\": 1", 1)).unwrap();
    });
    assert!(unsigned.contains("is not signed by the pair's main site"), "{unsigned}");
    let open = harmed("open", &|seed| fs::remove_file(seed.join("seed.json")).unwrap());
    assert!(open.contains("whose export has not ended"), "{open}");
    let foreign = harmed("foreign", &|seed| {
        let text = fs::read_to_string(seed.join("seed.json")).unwrap();
        let at = text.find("\"pair\"").unwrap();
        let (before, after) = text.split_at(at);
        let end = after.find(']').unwrap();
        let other = format!("{before}\"pair\": [{}{}", vec!["9"; 16].join(","), &after[end..]);
        fs::write(seed.join("seed.json"), other).unwrap();
    });
    assert!(foreign.contains("which this node does not have"), "{foreign}");
    assert_eq!(sites.remote.status().unwrap().mark("durable"), 0, "something was taken all the same");

    sites.main.farseal(&["seed", "abandon", PAIR]).unwrap();
    sites.main.wait_until("a copy over the link", |status| status.is_safe()).unwrap();
    let late = import(&sites, &sites.disk).unwrap_err();
    assert!(late.contains("a copy that holds records up to"), "{late}");
    assert!(sites.link.bytes() > 4 * MIB);
    sites.main.kill().unwrap();
    sites.remote.farseal(&["takeover", PAIR, "--yes"]).unwrap();
    let mut copy = Client::connect(&sites.remote.socket(), PAIR).unwrap();
    let mut found = vec![0; 4096];
    for block in 0..4 * MIB / BLOCK {
        copy.read(block * BLOCK, &mut found).unwrap();
        assert_eq!(found, block_of(block, 1), "block {block}");
    }
}
