//! Looks for the keys of a secondary's pair in the files of a folder: opens every epoch's key with the node's own
//! identity, derives the layer keys, and searches for their bytes. Prints JSON with counts, never a key.
//!
//! `search_for_keys CONFIG PAIR FOLDER..`

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use farseal::cli::identity;
use farseal::config::Config;
use farseal::keyring::Keyring;
use farseal_plugin::vault::schedule::{EpochSchedule, Span};
use zeroize::Zeroizing;

/// Spans of the order whose layer keys are looked for: 2^20 records each.
const SPANS: u64 = 4;
const KEY: usize = 32;

type Key = Zeroizing<[u8; KEY]>;

fn main() -> Result<()> {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let [config, pair, folders @ ..] = &words[..] else { anyhow::bail!("search_for_keys CONFIG PAIR FOLDER..") };
    let config = Config::load(Path::new(config))?;
    let (keys, epochs) = keys(&config, &pair.to_string_lossy())?;
    let mut control = vec![0; 5000];
    if let (Some(key), Some(place)) = (keys.first(), control.get_mut(4001..4001 + KEY)) {
        place.copy_from_slice(key.as_slice());
    }
    let (mut hits, mut files, mut bytes) = (0, 0, 0);
    for folder in folders {
        for path in files_below(Path::new(folder))? {
            let (found, read) = search(File::open(&path)?, &keys)?;
            (hits, files, bytes) = (hits + found, files + 1, bytes + read);
        }
    }
    let (control, _) = search(&control[..], &keys)?;
    let (epochs, keys) = (epochs, keys.len());
    let report = serde_json::json!({
        "epochs": epochs, "keys": keys, "files": files, "bytes": bytes, "hits": hits, "control-hits": control,
    });
    println!("{report}");
    Ok(())
}

fn keys(config: &Config, name: &str) -> Result<(Vec<Key>, usize)> {
    let pair = config.pairs.iter().find(|pair| pair.name == name).context("there is no such pair")?;
    let peer = config.peer(&pair.peer).context("the pair has no peer")?;
    let identity = Arc::new(identity::load(config)?);
    let folder = config.node.state_dir.join("pairs").join(name).join("epochs");
    let escrow = pair.escrow.as_ref().and_then(|name| config.peer(name)).map(|peer| peer.card.clone());
    let keyring = Keyring::open(&folder, pair.id, identity, peer.card.clone())?.with_escrow(escrow);
    let (mut keys, mut epochs) = (Vec::new(), 0);
    for package in keyring.kept() {
        let key = keyring.unwrap(&package)?;
        keys.push(Zeroizing::new(*key.expose()));
        let terms = &package.descriptor().terms;
        let schedule = EpochSchedule::new(&key, &terms.scope());
        let layers = terms.stacks.as_slice().iter().flat_map(|stack| stack.layers());
        for layer in layers {
            for span in 0..SPANS {
                keys.push(schedule.layer(layer.suite, &layer.label, None, Span::of(span << 20)).key);
            }
        }
        epochs += 1;
    }
    Ok((keys, epochs))
}

/// How many keys' bytes the stream has, and how long it is.
fn search(mut stream: impl std::io::Read, keys: &[Key]) -> Result<(u64, u64)> {
    let (mut window, mut hits, mut bytes) = (Vec::new(), 0, 0);
    loop {
        let taken = stream.by_ref().take(1 << 20).read_to_end(&mut window)?;
        if taken == 0 {
            return Ok((hits, bytes));
        }
        bytes += u64::try_from(taken)?;
        // Keys by their first two bytes, so that a hundred keys take one pass.
        let mut by_start = vec![Vec::new(); 1 << 16];
        for key in keys {
            by_start[usize::from(u16::from_be_bytes([key[0], key[1]]))].push(key);
        }
        for candidate in window.windows(KEY) {
            let start = usize::from(u16::from_be_bytes([candidate[0], candidate[1]]));
            hits += u64::try_from(by_start[start].iter().filter(|key| key.as_slice() == candidate).count())?;
        }
        let keep = window.len().saturating_sub(KEY - 1);
        window.drain(..keep);
    }
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}
