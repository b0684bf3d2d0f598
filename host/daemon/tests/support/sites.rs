//! Two paired nodes that can reach each other, and what the tests that use them have in common.

use std::rc::Rc;
use std::time::Duration;

use crate::built::{farseal, plugins};
use crate::site::{PairTerms, Site, Stage, free_port};

/// What the pair and its export are called.
pub(crate) const PAIR: &str = "vault";
pub(crate) const BLOCK: u64 = 4096;
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// They run and copy a volume of 16 MiB.
pub(crate) fn sites(purpose: &str) -> (Rc<Stage>, Site, Site) {
    let (stage, main, remote) = started(purpose, &[]);
    main.wait_until("the link and a key", |status| status.is_safe() && status.epoch() > 0).unwrap();
    (stage, main, remote)
}

/// They run; the pair was made with these options, too.
pub(crate) fn started(purpose: &str, more: &[&str]) -> (Rc<Stage>, Site, Site) {
    let stage = Stage::new(purpose).unwrap();
    let mut main = Site::init(&stage, farseal(), plugins(), "main").unwrap();
    let mut remote = Site::init(&stage, farseal(), plugins(), "remote").unwrap();
    let (volume, listen) = (main.dir.join("volume.img"), format!("127.0.0.1:{}", free_port().unwrap()));
    let options = [&["--listen", &listen], more].concat();
    main.pair_with(&remote, &PairTerms { name: PAIR, volume: &volume, mebibytes: 16, options: &options }).unwrap();
    remote.start().unwrap();
    main.start().unwrap();
    (stage, main, remote)
}
