//! How copying flows between two real nodes: over which paths, how fast, and what is shown of it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "the chaos command uses the rest")]
#[path = "../../../xtask/src/nbd_client.rs"]
mod nbd_client;
#[expect(dead_code, reason = "the demo uses the rest")]
#[path = "../../../xtask/src/site.rs"]
mod site;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Duration;

use nbd_client::Client;
use serde_json::Value;
use site::{PairTerms, Site, Stage, wait_for};

const PAIR: &str = "vault";
const PATIENCE: Duration = Duration::from_secs(60);

fn farseal() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_farseal"))
}

/// The shipped plugins: those in `FARSEAL_PLUGINS`, else built by `cargo xtask plugins`.
fn plugins() -> &'static Path {
    static PLUGINS: OnceLock<PathBuf> = OnceLock::new();
    PLUGINS.get_or_init(|| {
        if let Some(place) = std::env::var_os("FARSEAL_PLUGINS") {
            return place.into();
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
        let status = Command::new(env!("CARGO")).current_dir(&root).args(["xtask", "plugins"]).status().unwrap();
        assert!(status.success(), "`cargo xtask plugins` failed: run it by hand to see why");
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
        target.join("plugins")
    })
}

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
    assert_eq!((&shown["flow"]["transfer"], &shown["flow"]["carrier"]), (&"ordered".into(), &0.into()));

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
