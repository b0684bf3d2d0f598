//! Three nodes, of which the escrow site alone holds the keys of a pair, and what the tests that use them have in common with others.

use std::fs;
use std::rc::Rc;

use crate::built::{farseal, plugins};
use crate::nbd_client::Client;
use crate::site::{PairTerms, Site, Stage, free_port, wait_for};
use crate::sites::{BLOCK, PAIR, PATIENCE};

pub(crate) struct Three {
    pub(crate) stage: Rc<Stage>,
    pub(crate) main: Site,
    pub(crate) remote: Site,
    pub(crate) escrow: Site,
}

/// A pair whose keys the escrow alone holds. Nothing runs yet.
pub(crate) fn three(purpose: &str) -> Three {
    three_with(purpose, &[])
}

/// The same; the pair was made with these options, too.
pub(crate) fn three_with(purpose: &str, more: &[&str]) -> Three {
    let stage = Stage::new(purpose).unwrap();
    let [main, remote, escrow] =
        ["main", "remote", "escrow"].map(|name| Site::init(&stage, farseal(), plugins(), name).unwrap());
    main.add_escrow(&escrow, &remote).unwrap();
    let volume = main.dir.join("volume.img");
    let listen = format!("127.0.0.1:{}", free_port().unwrap());
    let options = [&["--listen", &listen, "--escrow", "escrow"], more].concat();
    main.pair_with(&remote, &PairTerms { name: PAIR, volume: &volume, mebibytes: 16, options: &options }).unwrap();
    Three { stage, main, remote, escrow }
}

impl Three {
    pub(crate) fn start(&mut self) {
        self.escrow.start().unwrap();
        self.remote.start().unwrap();
        self.main.start().unwrap();
        self.main.wait_until("the link and a key", |status| status.is_safe() && status.epoch() > 0).unwrap();
    }

    /// The escrow keeps a component of this name. It makes the folder with the first one that comes.
    pub(crate) fn until_escrow_keeps(&self, component: &str) {
        wait_for("the component at the escrow", PATIENCE, || {
            let Ok(sites) = fs::read_dir(self.escrow.state().join("escrow-components")) else { return Ok(None) };
            let is_kept = sites.flatten().any(|site| site.path().join("components").join(component).exists());
            Ok(is_kept.then_some(()))
        })
        .unwrap();
    }
}

pub(crate) fn write(site: &Site, blocks: &[(u64, u8)]) {
    let mut client = client(site);
    for (at, byte) in blocks {
        client.write(at * BLOCK, &vec![*byte; usize::try_from(BLOCK).unwrap()]).unwrap();
    }
    client.flush().unwrap();
}

pub(crate) fn client(site: &Site) -> Client {
    wait_for(&format!("the export of {}", site.name), PATIENCE, || Ok(Client::connect(&site.socket(), PAIR).ok()))
        .unwrap()
}

pub(crate) fn read(site: &Site, blocks: &[u64]) -> Vec<u8> {
    let mut client = client(site);
    let read = |at: &u64| {
        let mut bytes = vec![0; usize::try_from(BLOCK).unwrap()];
        client.read(at * BLOCK, &mut bytes).unwrap();
        bytes[0]
    };
    blocks.iter().map(read).collect()
}

pub(crate) fn refusal(site: &Site, words: &[&str]) -> String {
    site.farseal(words).unwrap_err().to_string()
}
