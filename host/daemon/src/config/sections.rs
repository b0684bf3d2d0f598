//! The file's sections, and what must hold between them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use farseal_core::units::ByteLen;

use super::problem::ConfigError;
use super::read::{Field, Source, Table};
use super::units::{SIZE_FORM, parse_size};
use super::{
    Config, Link, LogForm, Metrics, Nbd, NbdListen, NbdTls, NbdTlsFiles, Node, Peer, PeerAddress, Plugins, Secrets,
    SwapRule, Volume,
};
use crate::keys::card::{NodeName, PeerCard};

mod escrow;
mod pair;
mod site;

pub(crate) use escrow::BEAT;
pub(crate) use pair::{DEFAULT_CIPHER, DEFAULT_DISGUISE, DEFAULT_POLICY, DEFAULT_RECOVERY, FOLLOWED, TESTED, parse_id};
pub(crate) use site::DEFAULT_GROUP;

/// Bytes of a path of a Unix socket, without the final zero (unix(7): `sun_path` has 108).
const SOCKET_PATH_MAX: usize = 107;
/// Peers, volumes, pairs: 1 024 pairs of a 256 MiB buffer each are more than a machine has memory for.
const SECTIONS_MAX: usize = 1024;
/// Bytes of a name: what an NBD export may have is far more; a status line is not.
const NAME_MAX: usize = 63;
const NAME_FORM: &str = "1 to 63 characters of a-z, A-Z, 0-9, '.', '_' and '-', first a letter or digit";
const SOCKET_ADDRESS: &str = "ADDRESS:PORT, as in \"0.0.0.0:7440\" or \"[::]:7440\"";

pub(super) fn config(file: &Path, text: &str) -> Result<Config, ConfigError> {
    read(&Source::new(file, text))
}

fn read(source: &Source<'_>) -> Result<Config, ConfigError> {
    let document = source.parse()?;
    let mut root = source.root(&document);
    let base = Base(source.file.parent().unwrap_or(Path::new("")));

    let node = node(&mut root, base)?;
    let secrets = secrets(&mut root, base)?;
    let nbd = nbd(&mut root, base)?;
    let link = Link { listen: listen(&mut root, "link")? };
    let metrics = Metrics { listen: listen(&mut root, "metrics")? };
    let plugins = plugins(&mut root, base)?;

    let mut names = Unique::default();
    let peers = each(&mut root, "peer", |table| peer(table, &mut names))?;
    let (mut names, mut paths) = (Unique::default(), Unique::default());
    let volumes = each(&mut root, "volume", |table| volume(table, base, &mut names, &mut paths))?;
    let mut context = pair::Context::new(base, &plugins, &peers, &volumes, &link);
    let pairs = each(&mut root, "pair", |table| pair::pair(table, &mut context))?;
    let site = site::site(&mut root, &peers)?;
    let escrow = escrow::escrow(&mut root, !(pairs.is_empty() && volumes.is_empty()))?;
    let mut names = Unique::default();
    let groups = each(&mut root, "group", |table| site::group(table, &mut names))?;
    root.finish()?;

    Ok(Config {
        file: source.file.to_owned(),
        node,
        secrets,
        nbd,
        link,
        escrow,
        site,
        metrics,
        plugins,
        peers,
        volumes,
        pairs,
        groups,
    })
}

/// The folder that relative paths count from.
#[derive(Debug, Clone, Copy)]
struct Base<'a>(&'a Path);

impl Base<'_> {
    fn path(self, field: &Field<'_, '_>) -> Result<PathBuf, ConfigError> {
        let form = "a path; a relative one counts from this file's folder";
        let text = field.text(form)?;
        if text.is_empty() || text.contains('\0') {
            return Err(field.wrong("this is no path", form, "write a path"));
        }
        Ok(self.0.join(text))
    }

    fn socket(self, field: &Field<'_, '_>) -> Result<PathBuf, ConfigError> {
        let path = self.path(field)?;
        socket_fits(field, path)
    }
}

fn socket_fits(field: &Field<'_, '_>, path: PathBuf) -> Result<PathBuf, ConfigError> {
    if path.as_os_str().len() <= SOCKET_PATH_MAX {
        return Ok(path);
    }
    let wrong = format!("{} is {} bytes long", path.display(), path.as_os_str().len());
    Err(field.wrong(
        &wrong,
        "a path of at most 107 bytes (unix(7))",
        "choose a shorter path, such as /run/farseal/NAME.sock",
    ))
}

/// Values that may occur once.
#[derive(Debug, Default)]
struct Unique(BTreeSet<String>);

impl Unique {
    fn add(&mut self, field: &Field<'_, '_>, value: &str, what: &str) -> Result<(), ConfigError> {
        if self.0.insert(value.to_owned()) {
            return Ok(());
        }
        let allowed = format!("a {what} that stands once in the file");
        Err(field.wrong("it stands in the file already", &allowed, "change one of the two, or remove one"))
    }
}

fn each<'s, 'a, T>(
    root: &mut Table<'s, 'a>,
    name: &'static str,
    mut read: impl FnMut(&mut Table<'s, 'a>) -> Result<T, ConfigError>,
) -> Result<Vec<T>, ConfigError> {
    let tables = root.tables(name)?;
    if tables.len() > SECTIONS_MAX {
        let allowed = format!("at most {SECTIONS_MAX} [[{name}]] sections");
        return Err(root.missing(name, &allowed, "spread them over several nodes"));
    }
    let read = |mut table: Table<'s, 'a>| {
        let value = read(&mut table)?;
        table.finish()?;
        Ok(value)
    };
    tables.into_iter().map(read).collect()
}

/// A section of which there is at most one; `None` where it is missing.
fn section<'s, 'a>(root: &mut Table<'s, 'a>, name: &'static str) -> Result<Option<Table<'s, 'a>>, ConfigError> {
    root.take(name).map(|field| field.table(&format!("one [{name}] section"))).transpose()
}

/// May a peer, a volume or a pair be called this?
pub(crate) fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let first = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    first && text.len() <= NAME_MAX && text.chars().all(allowed)
}

fn name(field: &Field<'_, '_>) -> Result<String, ConfigError> {
    let text = field.text(NAME_FORM)?;
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err(field.wrong("this is no name", NAME_FORM, "choose another name"))
    }
}

fn node(root: &mut Table<'_, '_>, base: Base<'_>) -> Result<Node, ConfigError> {
    let form = "1 to 63 characters of a-z, 0-9 and '-'";
    let Some(mut table) = section(root, "node")? else {
        return Err(root.missing("node", "one [node] section", "add a line [node] and below it name = \"NAME\""));
    };
    let name =
        table.need("name", form, "add name = \"NAME\" as `farseal init` was told")?.parsed(form, NodeName::new)?;
    let state_dir = match table.take("state-dir") {
        Some(field) => base.path(&field)?,
        None => base.0.join("state"),
    };
    let control_socket = match table.take("control-socket") {
        Some(field) => base.socket(&field)?,
        None => {
            let path = state_dir.join("control.sock");
            if path.as_os_str().len() > SOCKET_PATH_MAX {
                let allowed =
                    format!("a path of at most 107 bytes (unix(7)); the default, {}, is longer", path.display());
                return Err(table.missing(
                    "control-socket",
                    &allowed,
                    "add control-socket = \"/run/farseal/control.sock\"",
                ));
            }
            path
        }
    };
    let rules = [("avoided", SwapRule::Avoided), ("refused", SwapRule::Refused), ("accepted", SwapRule::Accepted)];
    let keys_in_swap = table.take("keys-in-swap").map(|field| field.one_of(&rules)).transpose()?;
    let forms = [("text", LogForm::Text), ("json", LogForm::Json)];
    let log = table.take("log").map(|field| field.one_of(&forms)).transpose()?.unwrap_or(LogForm::Text);
    let log_filter = match table.take("log-filter") {
        Some(field) => log_filter(&field)?,
        None => "info".to_owned(),
    };
    table.finish()?;
    let keys_in_swap = keys_in_swap.unwrap_or(SwapRule::Avoided);
    Ok(Node { name, state_dir, control_socket, keys_in_swap, log, log_filter })
}

fn log_filter(field: &Field<'_, '_>) -> Result<String, ConfigError> {
    let form = "RUST_LOG's syntax, as in \"info\" or \"warn,farseal::link=debug\"";
    field.parsed(form, |text| tracing_subscriber::EnvFilter::try_new(text).map(|_| text.to_owned()))
}

fn secrets(root: &mut Table<'_, '_>, base: Base<'_>) -> Result<Secrets, ConfigError> {
    let allowed = "passphrase-file = \"FILE\", or credential = true; one of the two";
    let fix = "add passphrase-file = \"FILE\" to [secrets]; the file needs mode 600";
    let Some(mut table) = section(root, "secrets")? else {
        return Err(root.missing(
            "secrets",
            allowed,
            "add a section [secrets] and below it passphrase-file = \"FILE\"",
        ));
    };
    let file = table.take("passphrase-file").map(|field| base.path(&field)).transpose()?;
    let credential = table.take("credential");
    let from_systemd = credential.as_ref().map(Field::boolean).transpose()?.unwrap_or(false);
    let secrets = match (file, from_systemd, credential) {
        (Some(_), true, Some(field)) => {
            return Err(field.wrong("passphrase-file is given as well", allowed, "remove one of the two"));
        }
        (Some(file), _, _) => Secrets::PassphraseFile(file),
        (None, true, _) => Secrets::Credential,
        (None, false, _) => return Err(table.missing("passphrase-file", allowed, fix)),
    };
    table.finish()?;
    Ok(secrets)
}

fn nbd(root: &mut Table<'_, '_>, base: Base<'_>) -> Result<Nbd, ConfigError> {
    let Some(mut table) = section(root, "nbd")? else { return Ok(Nbd { listen: Vec::new(), tls: NbdTls::Off }) };
    let form = "\"unix:PATH\" or \"tcp:ADDRESS:PORT\"";
    let mut listen = Vec::new();
    let mut unique = Unique::default();
    if let Some(field) = table.take("listen") {
        for each in field.list(&format!("a list of {form}"))? {
            let place = nbd_listen(&each, base, form)?;
            unique.add(&each, &place.to_string(), "place")?;
            listen.push(place);
        }
    }
    let tls = nbd_tls(&mut table, base)?;
    table.finish()?;
    Ok(Nbd { listen, tls })
}

fn nbd_listen(field: &Field<'_, '_>, base: Base<'_>, form: &str) -> Result<NbdListen, ConfigError> {
    let text = field.text(form)?;
    if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return socket_fits(field, base.0.join(path)).map(NbdListen::Unix);
    }
    let address = text.strip_prefix("tcp:").and_then(|address| address.parse().ok());
    let wrong = || field.wrong("this is no place to listen", form, "write it as in \"tcp:127.0.0.1:10809\"");
    address.map(NbdListen::Tcp).ok_or_else(wrong)
}

fn nbd_tls(table: &mut Table<'_, '_>, base: Base<'_>) -> Result<NbdTls, ConfigError> {
    #[derive(Clone, Copy, PartialEq)]
    enum Word {
        Off,
        Allowed,
        Required,
    }
    let words = [("off", Word::Off), ("allowed", Word::Allowed), ("required", Word::Required)];
    let word = table.take("tls").map(|field| field.one_of(&words)).transpose()?.unwrap_or(Word::Off);
    let [cert, key, client_ca] = ["cert", "key", "client-ca"].map(|name| table.take(name));
    if word == Word::Off {
        return match cert.or(key).or(client_ca) {
            None => Ok(NbdTls::Off),
            Some(field) => Err(field.wrong(
                "tls is off, so this would not protect anything",
                "cert, key and client-ca with tls = \"allowed\" or \"required\"",
                "add tls = \"required\", or remove this line",
            )),
        };
    }
    let need = |field: Option<Field<'_, '_>>, name, fix| match field {
        Some(field) => base.path(&field),
        None => Err(table.missing(name, "a PEM file; TLS needs it", fix)),
    };
    let cert = need(cert, "cert", "add cert = \"server.pem\", or set tls = \"off\"")?;
    let key = need(key, "key", "add key = \"server.key\", or set tls = \"off\"")?;
    let client_ca = client_ca.map(|field| base.path(&field)).transpose()?;
    let files = NbdTlsFiles { cert, key, client_ca };
    Ok(if word == Word::Required { NbdTls::Required(files) } else { NbdTls::Allowed(files) })
}

/// The only field of `[link]` and of `[metrics]`.
fn listen(root: &mut Table<'_, '_>, name: &'static str) -> Result<Option<SocketAddr>, ConfigError> {
    let Some(mut table) = section(root, name)? else { return Ok(None) };
    let address = table.take("listen").map(|field| field.parsed(SOCKET_ADDRESS, str::parse)).transpose()?;
    table.finish()?;
    Ok(address)
}

fn plugins(root: &mut Table<'_, '_>, base: Base<'_>) -> Result<Plugins, ConfigError> {
    let default = base.0.join("plugins");
    let Some(mut table) = section(root, "plugins")? else {
        return Ok(Plugins { dir: default, require_conformance: false });
    };
    let dir = table.take("dir").map(|field| base.path(&field)).transpose()?.unwrap_or(default);
    let require_conformance =
        table.take("require-conformance").map(|field| field.boolean()).transpose()?.unwrap_or(false);
    table.finish()?;
    Ok(Plugins { dir, require_conformance })
}

fn peer(table: &mut Table<'_, '_>, names: &mut Unique) -> Result<Peer, ConfigError> {
    let field = table.need("name", NAME_FORM, "add name = \"NAME\"")?;
    let name = name(&field)?;
    names.add(&field, &name, "peer name")?;
    let form = "a list of \"HOST:PORT\", one for each path to the peer";
    let addresses = match table.take("addresses") {
        Some(field) => field.list(form)?.iter().map(peer_address).collect::<Result<_, _>>()?,
        None => Vec::new(),
    };
    let form = "the text that `farseal pair card` prints at the peer, between ''' and '''";
    let card = table.need("card", form, "paste the peer's card")?.parsed(form, str::parse::<PeerCard>)?;
    let beat = match table.take("beat") {
        Some(field) => pair::span(&field, escrow::BEAT_MIN, escrow::BEAT_MAX)?,
        None => BEAT,
    };
    Ok(Peer { name, addresses, card, beat })
}

fn peer_address(field: &Field<'_, '_>) -> Result<PeerAddress, ConfigError> {
    let form = "HOST:PORT, as in \"remote.example:7440\" or \"[2001:db8::1]:7440\"";
    field.parsed(form, parse_peer_address)
}

/// Not `HOST:PORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no HOST:PORT")]
pub(crate) struct NoPeerAddress;

pub(crate) fn parse_peer_address(text: &str) -> Result<PeerAddress, NoPeerAddress> {
    let (host, port) = text.rsplit_once(':').ok_or(NoPeerAddress)?;
    let port: u16 = port.parse().map_err(|_| NoPeerAddress)?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let sound = match bracketed {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            (1..=253).contains(&host.len())
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        }
    };
    if sound && port != 0 {
        Ok(PeerAddress { host: bracketed.unwrap_or(host).to_owned(), port })
    } else {
        Err(NoPeerAddress)
    }
}

fn volume(
    table: &mut Table<'_, '_>,
    base: Base<'_>,
    names: &mut Unique,
    paths: &mut Unique,
) -> Result<Volume, ConfigError> {
    let field = table.need("name", NAME_FORM, "add name = \"NAME\"")?;
    let name = name(&field)?;
    names.add(&field, &name, "volume name")?;
    let field = table.need("path", "a file or a block device", "add path = \"PATH\"")?;
    let path = base.path(&field)?;
    paths.add(&field, &path.to_string_lossy(), "path")?;
    let size = match table.take("size") {
        Some(field) => Some(size(&field)?),
        None => None,
    };
    let description = match table.take("description") {
        Some(field) => description(&field)?,
        None => String::new(),
    };
    Ok(Volume { name, path, size, description })
}

fn description(field: &Field<'_, '_>) -> Result<String, ConfigError> {
    let form = "one line of at most 256 bytes";
    let text = field.text(form)?;
    if text.len() <= 256 && !text.contains(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(field.wrong("this is too long, or has control characters", form, "shorten it to one line"))
    }
}

/// A volume's size: whole sectors, at least one granule of the dirty map.
fn size(field: &Field<'_, '_>) -> Result<ByteLen, ConfigError> {
    let size = bytes(field)?;
    let least = farseal_core::limits::OWED_GRANULE_BYTES;
    if size < least || !size.0.is_multiple_of(512) {
        return Err(field.wrong(
            "a volume has whole sectors of 512 bytes",
            "64KiB or more, a multiple of 512B",
            "round it up",
        ));
    }
    Ok(size)
}

fn bytes(field: &Field<'_, '_>) -> Result<ByteLen, ConfigError> {
    field.parsed(SIZE_FORM, parse_size)
}

/// Every field that the reader knows, with `[]` for a place in a list.
#[cfg(test)]
pub(super) fn known_fields(text: &str) -> BTreeSet<String> {
    let source = Source::new(Path::new("known.toml"), text);
    assert!(read(&source).is_ok(), "only a sound file is read to its end");
    source.asked()
}
