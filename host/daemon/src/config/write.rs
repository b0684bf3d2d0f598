//! Sections that commands append to a configuration. TOML lets `[[..]]` sections stand anywhere, so appending never
//! touches what a person wrote; the whole is checked before the file is replaced.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use farseal_core::layout::{Field, Layout};
use farseal_core::rotation::How;
use toml::Value;

use super::problem::ConfigError;
use super::sections::BEAT;
use super::units::{rate_text, size_text, span_text};
use super::{Config, Pair, PairSide, Peer, PluginChoice, Volume, read};

/// Why sections were not appended; the file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The file is not sound, or would not be with them.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file could not be replaced.
    #[error("{}: {source}", file.display())]
    Io {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Appends sections to a file, if the whole is then sound. Durable when it returns. `listen` goes into `[link]`, which
/// must not have one.
///
/// # Errors
/// [`AppendError`]; the file is as it was.
pub fn append(file: &Path, listen: Option<SocketAddr>, sections: &str) -> Result<Config, AppendError> {
    let mut text = read::whole(file)?;
    if let Some(listen) = listen {
        text = with_link(&text, listen);
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(sections);
    let config = Config::parse(file, &text)?;
    replace(file, &text).map_err(|source| AppendError::Io { file: file.to_owned(), source })?;
    Ok(config)
}

/// A table may stand once, so an existing `[link]` gets the line.
fn with_link(text: &str, listen: SocketAddr) -> String {
    let line = format!("listen = \"{listen}\"");
    let mut lines: Vec<&str> = text.lines().collect();
    match lines.iter().position(|line| line.split('#').next().is_some_and(|line| line.trim() == "[link]")) {
        Some(at) => lines.insert(at + 1, &line),
        None => lines.extend(["", "[link]", &line]),
    }
    lines.join("\n") + "\n"
}

/// Beside the file, durable, then in its place: a crash leaves the one or the other.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let file = fs::canonicalize(file)?;
    let mode = fs::metadata(&file)?.permissions().mode();
    let mut beside = file.clone().into_os_string();
    beside.push(".new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut new = File::options().write(true).create_new(true).mode(mode & 0o777).open(&beside)?;
    new.write_all(text.as_bytes())?;
    new.sync_all()?;
    fs::rename(&beside, &file)?;
    file.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// A `[[peer]]` section.
#[must_use]
pub fn peer_section(peer: &Peer) -> String {
    let mut text = format!("\n[[peer]]\nname = {}\n", quoted(&peer.name));
    if !peer.addresses.is_empty() {
        let addresses: Vec<String> = peer.addresses.iter().map(|address| quoted(&address.to_string())).collect();
        line(&mut text, "addresses", &format!("[{}]", addresses.join(", ")));
    }
    if peer.beat != BEAT {
        line(&mut text, "beat", &quoted(&span_text(peer.beat)));
    }
    line(&mut text, "card", &format!("'''\n{}'''", peer.card));
    text
}

/// An `[escrow]` section.
#[must_use]
pub fn escrow_section(listen: SocketAddr) -> String {
    format!("\n[escrow]\nlisten = \"{listen}\"\n")
}

/// A `[[volume]]` section.
#[must_use]
pub fn volume_section(volume: &Volume) -> String {
    let mut text = format!("\n[[volume]]\nname = {}\n", quoted(&volume.name));
    line(&mut text, "path", &quoted(&volume.path.to_string_lossy()));
    if let Some(size) = volume.size {
        line(&mut text, "size", &quoted(&size_text(size)));
    }
    if !volume.description.is_empty() {
        line(&mut text, "description", &quoted(&volume.description));
    }
    text
}

/// A `[[pair]]` section, every field in it.
#[must_use]
pub fn pair_section(pair: &Pair) -> String {
    let mut text = format!("\n[[pair]]\nname = {}\n", quoted(&pair.name));
    line(&mut text, "id", &quoted(&pair.id.to_string()));
    line(&mut text, "volume-id", &quoted(&pair.volume_id.to_string()));
    line(&mut text, "peer", &quoted(&pair.peer));
    if let Some(escrow) = &pair.escrow {
        line(&mut text, "escrow", &quoted(escrow));
        line(&mut text, "key-holders", &quoted(&pair.holders.to_string()));
    }
    line(&mut text, "group", &quoted(&pair.group));
    match &pair.side {
        PairSide::Primary { volume } => {
            line(&mut text, "role", "\"primary\"");
            line(&mut text, "volume", &quoted(volume));
            if !pair.ranges.is_empty() {
                let ranges: Vec<String> = pair.ranges.iter().map(|range| quoted(&range.to_string())).collect();
                line(&mut text, "range", &format!("[{}]", ranges.join(", ")));
            }
            line(&mut text, "pick", &quoted(&pair.pick.to_string()));
        }
        PairSide::Secondary { export, size, image } => {
            line(&mut text, "role", "\"secondary\"");
            line(&mut text, "volume", &quoted(export));
            line(&mut text, "size", &quoted(&size_text(*size)));
            if let Some(image) = image {
                line(&mut text, "image", &quoted(&image.display().to_string()));
            }
        }
    }
    line(&mut text, "encrypted", if pair.encrypted { "true" } else { "false" });
    line(&mut text, "block-bytes", &pair.block_bytes.get().to_string());
    if let Some(layout) = &pair.layout {
        line(&mut text, "layout", &self::layout(layout));
    }
    line(&mut text, "transfer", &quoted(&pair.transfer.to_string()));
    line(&mut text, "paths", &pair.paths.to_string());
    line(&mut text, "mode", &quoted(&pair.mode.to_string()));
    line(&mut text, "ordered-writes", if pair.ordered { "true" } else { "false" });
    line(&mut text, "rotate", &quoted(if pair.rotate == How::Pause { "pause" } else { "in-band" }));
    let limits = &pair.key_limits;
    let limits = format!(
        "{{ min-interval = {}, max-age = {}, max-bytes = {} }}",
        quoted(&span_text(limits.interval_min)),
        quoted(&span_text(limits.age_max)),
        quoted(&size_text(limits.bytes_max)),
    );
    line(&mut text, "key-limits", &limits);
    line(&mut text, "journal-max", &quoted(&size_text(pair.journal_max)));
    let terms = pair.retention;
    let none = || quoted("none");
    line(&mut text, "retention", &terms.map_or_else(none, |terms| quoted(&span_text(terms.span))));
    let size = terms.and_then(|terms| terms.size);
    line(&mut text, "retention-size", &size.map_or_else(none, |size| quoted(&size_text(size))));
    let silence = pair.witness_silence.map_or_else(|| quoted("none"), |silence| quoted(&span_text(silence)));
    line(&mut text, "witness-silence", &silence);
    line(&mut text, "open-on-arrival", if pair.opens_on_arrival { "true" } else { "false" });
    let limits = &pair.limits;
    let limits = format!(
        "{{ link = {}, resync = {}, initial-copy = {} }}",
        quoted(&rate_text(limits.link)),
        quoted(&rate_text(limits.resync)),
        quoted(&rate_text(limits.initial_copy)),
    );
    line(&mut text, "limits", &limits);
    line(&mut text, "shape", &quoted(&rate_text(pair.shape)));
    line(&mut text, "link", &quoted(&pair.link.to_string()));
    line(&mut text, "journal-high-water", &pair.pacing.high_water_percent.to_string());
    line(&mut text, "pace-max", &quoted(&span_text(pair.pacing.pace_max)));
    line(&mut text, "cipher", &plugin(&pair.cipher));
    line(&mut text, "policy", &plugin(&pair.policy));
    line(&mut text, "disguise", &plugin(&pair.disguise));
    line(&mut text, "recovery", &plugin(&pair.recovery));
    text
}

fn layout(layout: &Layout) -> String {
    let field = |field: &Field| {
        let Field { name, offset, length, form } = field;
        format!("{{ name = {}, offset = {offset}, length = {length}, form = \"{form}\" }}", quoted(name))
    };
    let fields: Vec<String> = layout.fields().iter().map(field).collect();
    format!("{{ record-bytes = {}, fields = [{}] }}", layout.record_bytes(), fields.join(", "))
}

fn plugin(choice: &PluginChoice) -> String {
    let mut text = format!("{{ component = {}", quoted(&choice.component));
    if let Some(digest) = choice.sha256 {
        let _ = write!(text, ", sha256 = \"{digest}\"");
    }
    if let Some(path) = &choice.conformance {
        let _ = write!(text, ", conformance = {}", quoted(&path.display().to_string()));
    }
    if !choice.grants.is_empty() {
        text.push_str(", grants = [\"raw\"]");
    }
    if let Ok(config) = Value::try_from(&choice.config)
        && config.as_table().is_some_and(|table| !table.is_empty())
    {
        let _ = write!(text, ", config = {config}");
    }
    text.push_str(" }");
    text
}

fn line(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "{name} = {value}");
}

fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}
