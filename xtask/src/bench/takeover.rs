//! How soon a node is there: a takeover of a large sparse volume, and a start with every plugin compiled before.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::{Programs, seconds};
use crate::nbd_client::Client;
use crate::site::{PairTerms, Site, Stage, Status};

const PAIR: &str = "large";
/// One tebibyte.
const MEBIBYTES: u64 = 1 << 20;
/// Blocks that hold data, spread over the whole volume.
const WRITTEN: u64 = 256;

pub(super) fn measure(stage: &Rc<Stage>, programs: &Programs) -> Result<Value> {
    let init = |name| Site::init(stage, &programs.farseal, &programs.plugins, name);
    let (mut main, mut remote) = (init("large-main")?, init("large-remote")?);
    let volume = main.dir.join("volume.img");
    main.pair_with(&remote, &PairTerms { name: PAIR, volume: &volume, mebibytes: MEBIBYTES, options: &[] })?;
    let first = [remote.start()?, main.start()?];
    // Everything is compiled and kept by then: what is measured is a start like any other.
    let mut starts = Vec::new();
    for _ in 0..3 {
        main.kill()?;
        starts.push(main.start()?);
    }
    starts.sort();
    let start = starts.get(1).copied().unwrap_or(Duration::MAX);

    let place = |number: u64| number * (MEBIBYTES << 20) / WRITTEN;
    {
        let mut client = Client::connect(&main.socket(), PAIR)?;
        for number in 0..WRITTEN {
            client.write(place(number), &[u8::try_from(number % 251)?; 4096])?;
        }
        client.flush()?;
    }
    main.wait_until("everything at the remote", Status::is_safe)?;
    main.kill()?;
    let begun = Instant::now();
    remote.farseal(&["takeover", PAIR, "--yes"])?;
    let mut client = Client::connect(&remote.socket(), PAIR)?;
    let mut block = [0; 4096];
    client.read(place(WRITTEN - 1), &mut block)?;
    let opened = begun.elapsed();
    if block != [u8::try_from((WRITTEN - 1) % 251)?; 4096] {
        bail!("the block that was read after the takeover is not the one that was written");
    }
    println!("\na node's start: first {:.2} s, with plugins cached {:.3} s", seconds(first[1]), seconds(start));
    println!("takeover to the first opened block of a sparse 1 TiB volume: {:.3} s", seconds(opened));
    Ok(
        json!({ "first-start-s": seconds(first[1]), "cached-start-s": seconds(start), "first-block-s": seconds(opened) }),
    )
}
