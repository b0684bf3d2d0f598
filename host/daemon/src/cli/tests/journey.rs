//! Two sites from nothing to a pair, by commands alone.

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;

use super::*;
use crate::config::{NbdTls, PairSide};
use crate::keys::card::PeerCard;

fn farseal(arguments: &[&str]) -> ExitCode {
    let arguments = std::iter::once("farseal").chain(arguments.iter().copied()).map(OsString::from);
    perform(arguments, None, |_| Ok::<(), Infallible>(()))
}

/// `ExitCode` compares by its text alone.
fn is(code: ExitCode, exit: Exit) -> bool {
    format!("{code:?}") == format!("{:?}", ExitCode::from(exit))
}

fn made(folder: &Path, name: &str) -> String {
    let dir = folder.join(name);
    let dir = dir.to_str().unwrap();
    assert!(is(farseal(&["init", "--dir", dir, "--name", name, "--kem", "dhkem-p256"]), Exit::Done));
    format!("{dir}/farseal.toml")
}

fn card(config: &str) -> PeerCard {
    identity::card(&Config::load(Path::new(config)).unwrap()).unwrap()
}

#[test]
fn two_sites_make_a_pair() {
    let folder = tempfile::tempdir().unwrap();
    let (main, remote) = (made(folder.path(), "main"), made(folder.path(), "remote"));
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("card"), card(&remote).to_string()).unwrap();

    let create = ["pair", "create", "vault-1", "--config", &main, "--volume", &path("vault.img"), "--size", "1GiB"];
    let peer = ["--peer-card", &path("card"), "--peer-address", "127.0.0.1:7440", "--invitation", &path("inv")];
    assert!(is(farseal(&[&create[..], &peer[..]].concat()), Exit::Done));
    let again = farseal(&[&create[..], &peer[..5], &[path("inv2").as_str()]].concat());
    assert!(is(again, Exit::Failed), "a pair's name is taken once");
    assert!(!folder.path().join("inv2").exists());

    let listen = ["--listen", "127.0.0.1:7440"];
    let accept = ["pair", "accept", &path("inv"), "--config", &remote, "--fingerprint"];
    let wrong = card(&remote).fingerprint().to_string();
    assert!(is(farseal(&[&accept[..], &[&wrong], &listen].concat()), Exit::Refused));
    let right = card(&main).fingerprint().to_string();
    assert!(is(farseal(&[&accept[..], &[&right]].concat()), Exit::Failed), "nobody could connect");
    assert!(is(farseal(&[&accept[..], &[&right], &listen].concat()), Exit::Done));

    let (main, remote) = (Config::load(Path::new(&main)).unwrap(), Config::load(Path::new(&remote)).unwrap());
    let (here, there) = (main.pair("vault-1").unwrap(), remote.pair("vault-1").unwrap());
    assert_eq!((here.id, here.volume_id, here.encrypted), (there.id, there.volume_id, there.encrypted));
    assert_eq!(here.side, PairSide::Primary { volume: "vault-1".into() });
    assert_eq!(there.side, PairSide::Secondary { export: "vault-1".into(), size: ByteLen(1 << 30), image: None });
    assert_eq!(main.peer("remote").unwrap().card.fingerprint(), card(remote.file.to_str().unwrap()).fingerprint());
    assert_eq!(remote.link.listen, Some("127.0.0.1:7440".parse().unwrap()));
    assert_eq!(main.nbd.tls, NbdTls::Off);
}

#[test]
fn every_volume_without_a_pair_gets_one() {
    let folder = tempfile::tempdir().unwrap();
    let (main, remote) = (made(folder.path(), "main"), made(folder.path(), "remote"));
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("card"), card(&remote).to_string()).unwrap();
    let mut text = fs::read_to_string(&main).unwrap();
    for volume in ["ledger", "mail"] {
        fs::write(path(volume), vec![0; 1 << 20]).unwrap();
        text.push_str(&format!("\n[[volume]]\nname = \"{volume}\"\npath = \"{}\"\n", path(volume)));
    }
    fs::write(&main, text).unwrap();
    let invitations = folder.path().to_str().unwrap();
    let create = ["pair", "create", "site", "--config", &main, "--all-volumes", "--peer-card", &path("card")];
    let rest = ["--peer-address", "127.0.0.1:7440", "--invitation", invitations];
    assert!(is(farseal(&[&create[..], &rest[..]].concat()), Exit::Done));
    assert!(is(farseal(&[&create[..], &rest[..]].concat()), Exit::Refused), "none is left");
    let config = Config::load(Path::new(&main)).unwrap();
    let pairs: Vec<_> = config.pairs.iter().map(|pair| (pair.name.as_str(), pair.volume_name())).collect();
    assert_eq!(pairs, [("site-ledger", "ledger"), ("site-mail", "mail")]);
    assert!(folder.path().join("site-mail.invitation").exists());
}

#[test]
fn an_identity_opens_again_and_nobody_else_can_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = made(folder.path(), "main");
    let config = Config::load(Path::new(&file)).unwrap();
    assert_eq!(identity::load(&config).unwrap().card(), &card(&file));
    for path in [config.node.identity_file(), config.file.clone(), folder.path().join("main/passphrase")] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
    }
    fs::set_permissions(folder.path().join("main/passphrase"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(identity::load(&config), Err(identity::IdentityError::TooOpen { .. })));
}

#[test]
fn init_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = made(folder.path(), "main");
    let before = fs::read(&file).unwrap();
    let dir = folder.path().join("main");
    assert!(is(farseal(&["init", "--dir", dir.to_str().unwrap(), "--name", "other"]), Exit::Refused));
    assert_eq!(fs::read(&file).unwrap(), before);
}

#[test]
fn exit_codes_are_stable() {
    let folder = tempfile::tempdir().unwrap();
    let file = made(folder.path(), "main");
    for (arguments, code) in [
        (&["--version"][..], 0),
        (&["run", "--config", &file], 0),
        (&["status", "--config", "/no/such/file"], 1),
        (&["bogus"], 2),
        (&["rotate"], 2),
        (&["takeover", "vault-1", "--config", &file, "--bogus"], 2),
        (&["status", "--config", &file], 4),
        (&["pause", "vault-1", "--wait", "--config", &file], 4),
        (&["plugin", "list", "--socket", "/no/such/socket"], 4),
    ] {
        assert_eq!(format!("{:?}", farseal(arguments)), format!("{:?}", ExitCode::from(code)), "{arguments:?}");
    }
    assert_eq!(
        [Exit::Done, Exit::Failed, Exit::Usage, Exit::Refused, Exit::NotReachable].map(Exit::code),
        [0, 1, 2, 3, 4]
    );
}
