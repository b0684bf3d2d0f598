//! `farseal init`: a folder with an annotated configuration and an identity. Nothing is overwritten.

use std::fs::{self, DirBuilder, File};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use zeroize::Zeroizing;

use super::failure::{Exit, Failure};
use super::{identity, say};
use crate::config::Config;
use crate::config::example::example;
use crate::keys::capsule::KemId;
use crate::keys::card::NodeName;
use crate::keys::identity::Identity;
use crate::keys::seal_file::{Cost, KeyProvider};

/// `farseal init`.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// The folder for configuration and state; made if it does not exist.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The node's name: a-z, 0-9 and -.
    #[arg(long, value_name = "NAME", value_parser = NodeName::new)]
    name: NodeName,
    /// A file with a passphrase, mode 600. Without one, DIR/passphrase is drawn at random.
    #[arg(long, value_name = "FILE", conflicts_with = "credential")]
    passphrase_file: Option<PathBuf>,
    /// Write the identity to standard output, for `| systemd-creds encrypt --name=farseal - FILE`, and keep none.
    #[arg(long)]
    credential: bool,
    /// How epoch keys travel to this node: a post-quantum hybrid, or P-256 alone.
    #[arg(long, value_enum, default_value = "mlkem768-p256")]
    kem: Kem,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kem {
    #[value(name = "mlkem768-p256")]
    MlKem768P256,
    #[value(name = "dhkem-p256")]
    DhP256,
}

pub(super) fn init(init: &Init) -> Result<(), Failure> {
    if init.credential && std::io::stdout().is_terminal() {
        let next = "pipe it: `farseal init .. --credential | systemd-creds encrypt --name=farseal - FILE`";
        return Err(Failure::new(Exit::Usage, "an identity is not shown on a terminal", next));
    }
    let folder = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
    folder(&init.dir).map_err(|error| Failure::file(&init.dir, &error))?;
    let dir = fs::canonicalize(&init.dir).map_err(|error| Failure::file(&init.dir, &error))?;
    let file = dir.join("farseal.toml");
    if file.exists() {
        let next = "choose another --dir, or go on with `farseal pair card`";
        return Err(Failure::new(Exit::Refused, format!("{} exists and is left alone", file.display()), next));
    }
    let passphrase = passphrase_file(init, &dir)?;
    let text = text(init, &passphrase);
    let config = Config::parse(&file, &text)?;
    for each in [&config.node.state_dir, &config.plugins.dir] {
        folder(each).map_err(|error| Failure::file(each, &error))?;
    }
    if config.node.identity_file().exists() {
        let next = "choose another --dir; an identity that is lost cannot be made again";
        let message = format!("{} exists and is left alone", config.node.identity_file().display());
        return Err(Failure::new(Exit::Refused, message, next));
    }
    let kem = match init.kem {
        Kem::MlKem768P256 => KemId::MlKem768P256,
        Kem::DhP256 => KemId::DhP256,
    };
    let identity = Identity::generate(init.name.clone(), kem).map_err(|error| Failure::of(&error))?;
    if init.credential {
        std::io::stdout().write_all(&identity.to_stored()).map_err(|error| Failure::of(&error))?;
    } else {
        let drawn = init.passphrase_file.is_none();
        let cost = if drawn { Cost::OF_A_DRAWN_PASSPHRASE } else { Cost::RECOMMENDED };
        let sealed = identity::sealed(&config.node.identity_file(), &dir.join(&passphrase), cost);
        let stored = sealed.map_err(|error| Failure::of(&error))?.store(&identity.to_stored());
        stored.map_err(|error| Failure::of(&error))?;
    }
    keep(&identity::card_file(&config.node), identity.card().to_string().as_bytes(), 0o644)?;
    keep(&file, text.as_bytes(), 0o600)?;
    report(init, &config, &identity)
}

/// As it stands in the configuration.
fn passphrase_file(init: &Init, dir: &Path) -> Result<PathBuf, Failure> {
    match &init.passphrase_file {
        Some(given) => fs::canonicalize(given).map_err(|error| Failure::file(given, &error)),
        None if init.credential => Ok(PathBuf::from("passphrase")),
        None => {
            let mut random = Zeroizing::new([0u8; 32]);
            getrandom::fill(random.as_mut_slice()).map_err(|error| Failure::of(&error))?;
            let mut text = Zeroizing::new(String::with_capacity(65));
            for byte in random.iter() {
                let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
                text.extend([digit(byte >> 4), digit(byte & 15)]);
            }
            text.push('\n');
            keep(&dir.join("passphrase"), text.as_bytes(), 0o600)?;
            Ok(PathBuf::from("passphrase"))
        }
    }
}

fn text(init: &Init, passphrase: &Path) -> String {
    let text = example(&init.name, &passphrase.to_string_lossy());
    if !init.credential {
        return text;
    }
    let lines = text.lines().map(|line| match line {
        "#credential = false" => "credential = true".to_owned(),
        line if line.starts_with("passphrase-file") => format!("#{line}"),
        line => line.to_owned(),
    });
    lines.map(|line| line + "\n").collect()
}

/// A new file, durable.
fn keep(path: &Path, content: &[u8], mode: u32) -> Result<(), Failure> {
    let write = || {
        let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|error| Failure::file(path, &error))
}

fn report(init: &Init, config: &Config, identity: &Identity) -> Result<(), Failure> {
    let file = config.file.display();
    let mut text = format!("made {file}\nmade the identity of {}: {}\n", init.name, identity.card().fingerprint());
    if init.passphrase_file.is_none() && !init.credential {
        text.push_str("drew a passphrase beside it: keep a copy at another place, and move it to where backups of the state do not go\n");
    }
    text.push_str(&format!(
        "next: `farseal pair card --config {file}` shows the card that the other site needs;\n      \
         on the main site go on with `farseal pair create`, on the remote with `farseal pair accept`\n"
    ));
    if init.credential {
        eprint!("{text}");
        return Ok(());
    }
    say(&text)
}
