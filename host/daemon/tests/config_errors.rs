//! What an operator reads when a configuration is wrong: file, line, field, value, what is allowed, the fix.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use farseal::config::Config;
use farseal::config::problem::ConfigError;

/// P-256 public keys: a fixed card, so that the snapshot is stable.
const CARD: &str = include_str!("config_errors/card.toml");

const HEAD: &str = "[node]\nname = \"main\"\n[secrets]\npassphrase-file = \"pass\"\n";

fn with(rest: &str) -> String {
    format!("{HEAD}{rest}")
}

/// A whole pair, with some of its lines replaced.
fn pair(replace: &[(&str, &str)]) -> String {
    let mut text = with(
        "[[peer]]\nname = \"remote\"\naddresses = [\"remote.example:7440\"]\ncard = '''\nCARD'''\n\
         [[volume]]\nname = \"vault\"\npath = \"vault.img\"\nsize = \"1GiB\"\n\
         [[pair]]\nname = \"vault-1\"\nid = \"00112233445566778899aabbccddeeff\"\n\
         volume-id = \"ffeeddccbbaa99887766554433221100\"\npeer = \"remote\"\nrole = \"primary\"\nvolume = \"vault\"\n",
    );
    for (from, to) in replace {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    text.replace("CARD", CARD)
}

/// With a line more in the `[[pair]]`.
fn pair_and(line: &str) -> String {
    pair(&[]) + line + "\n"
}

#[test]
fn the_whole_pair_is_sound() {
    Config::parse(Path::new("/etc/farseal.toml"), &pair(&[])).unwrap();
}

#[test]
fn each_mistake_is_named_with_its_place_and_its_fix() {
    let cases = [
        ("an empty file", String::new()),
        ("no order in a synchronous mode", pair_and("mode = \"sync\"\nordered-writes = false")),
        ("a pause that shows in spite of a disguise", pair_and("rotate = \"pause\"")),
        ("more than a path is shaped to", pair_and("shape = \"1GiB/s\"")),
        ("a shape on a fabric", pair_and("shape = \"1MiB/s\"\nlink = \"san\"")),
        ("a range without an end", pair_and("range = \"10GiB\"")),
        ("a range that is no whole blocks", pair_and("range = [\"0..1MiB\", \"2MiB..2049KiB\"]")),
        ("ranges that overlap", pair_and("range = [\"0..2MiB\", \"1MiB..3MiB\"]")),
        ("a range beyond the volume", pair_and("range = \"0..2GiB\"")),
        ("no TOML", with("[nbd\n")),
        ("no secrets", "[node]\nname = \"main\"\n".to_owned()),
        ("both secrets", with("credential = true\n")),
        ("a bad node name", HEAD.replace("main", "Main Site")),
        ("an unknown section", with("[nbdd]\n")),
        ("a misspelt field", with("[nbd]\nlistens = []\n")),
        ("an unknown field", with("[plugins]\ncolour = \"red\"\n")),
        ("another type", with("[nbd]\nlisten = \"tcp:127.0.0.1:10809\"\n")),
        ("a bad listener", with("[nbd]\nlisten = [\"unix:a\", \"127.0.0.1:10809\"]\n")),
        ("a listener twice", with("[nbd]\nlisten = [\"unix:a\", \"unix:a\"]\n")),
        ("tls without a key", with("[nbd]\ntls = \"required\"\ncert = \"a.pem\"\n")),
        ("a cert without tls", with("[nbd]\ncert = \"a.pem\"\n")),
        ("a bad word", with("[nbd]\ntls = \"maybe\"\n")),
        ("a bad link address", with("[link]\nlisten = \"localhost\"\n")),
        ("no rule for keys in swap", HEAD.replace("[secrets]", "keys-in-swap = \"no\"\n[secrets]")),
        ("a bad filter", HEAD.replace("[secrets]", "log-filter = \"farseal=loud\"\n[secrets]")),
        ("a long socket", HEAD.replace("[secrets]", &format!("control-socket = \"/{}\"\n[secrets]", "s".repeat(120)))),
        ("a card that was altered", pair(&[]).replace("node = \"remote\"", "node = \"remote\"\nextra = 1")),
        ("a bad peer address", pair(&[("remote.example:7440", "remote.example")])),
        ("a decimal size", pair(&[("\"1GiB\"", "\"1GB\"")])),
        ("a number as a size", pair(&[("\"1GiB\"", "1073741824")])),
        ("half a sector", pair(&[("\"1GiB\"", "\"100000B\"")])),
        ("an unknown peer", pair(&[("peer = \"remote\"", "peer = \"remoet\"")])),
        ("an unknown volume", pair(&[("volume = \"vault\"", "volume = \"valut\"")])),
        ("a short id", pair(&[("00112233445566778899aabbccddeeff", "0011")])),
        ("no role", pair(&[("role = \"primary\"\n", "")])),
        ("a size on a primary", pair_and("size = \"1GiB\"")),
        ("an image on a primary", pair_and("image = \"opened.img\"")),
        (
            "an image without a path",
            pair(&[("role = \"primary\"\nvolume = \"vault\"", "role = \"secondary\"\nsize = \"1GiB\"\nimage = \"\"")]),
        ),
        (
            "a volume's file as an image",
            pair(&[(
                "role = \"primary\"\nvolume = \"vault\"",
                "role = \"secondary\"\nsize = \"1GiB\"\nimage = \"vault.img\"",
            )]),
        ),
        ("a secondary without size", pair(&[("role = \"primary\"", "role = \"secondary\"")])),
        (
            "a secondary that nobody reaches",
            pair(&[("role = \"primary\"\nvolume = \"vault\"", "role = \"secondary\"\nsize = \"1GiB\"")]),
        ),
        (
            "a volume called as a copy under test",
            pair(&[("[[pair]]", "[[volume]]\nname = \"vault.test\"\npath = \"b.img\"\nsize = \"1GiB\"\n[[pair]]")]),
        ),
        (
            "a pair called as another's copy",
            pair(&[("[[peer]]", "[link]\nlisten = \"127.0.0.1:7440\"\n[[peer]]")])
                + "[[pair]]\nname = \"vault.copy\"\nid = \"00112233445566778899aabbccddee00\"\n\
                   volume-id = \"ffeeddccbbaa99887766554433221101\"\npeer = \"remote\"\nrole = \"secondary\"\nsize = \"1GiB\"\n",
        ),
        ("a bad block", pair_and("block-bytes = 5000")),
        ("a pick of nothing known", pair_and("pick = \"some\"")),
        ("a throttle without a second", pair_and("limits = { link = \"5MiB\" }")),
        ("a throttle too slow", pair_and("limits = { resync = \"1KiB/s\" }")),
        ("no share of the journal", pair_and("journal-high-water = 0")),
        ("too long a pace", pair_and("pace-max = \"5s\"")),
        ("too many paths", pair_and("paths = 99")),
        ("at-once", pair_and("rotate = \"at-once\"")),
        ("an old key", pair_and("key-limits = { max-age = \"90d\" }")),
        ("a small journal", pair_and("journal-max = \"1MiB\"")),
        ("a grant for a policy", pair_and("policy = { component = \"interval\", grants = [\"raw\"] }")),
        ("an unknown grant", pair_and("cipher = { component = \"x\", grants = [\"all\"] }")),
        ("a bad digest", pair_and("cipher = { component = \"x\", sha256 = \"12\" }")),
        ("a plugin as a text", pair_and("cipher = \"aes-256-gcm\"")),
        ("a date for a plugin", pair_and("policy = { component = \"interval\", config = { at = 2026-01-01 } }")),
        (
            "a pair twice",
            pair(&[]) + pair(&[]).split_once("[[pair]]").map(|(_, rest)| format!("[[pair]]{rest}")).unwrap().as_str(),
        ),
    ];
    let mut transcript = String::new();
    for (name, text) in cases {
        let error = Config::parse(Path::new("/etc/farseal.toml"), &text).unwrap_err();
        transcript.push_str(&format!("--- {name}\n{error}\n"));
    }
    insta::assert_snapshot!(transcript);
}

#[test]
fn a_file_that_is_not_there_names_the_way_to_one() {
    let folder = tempfile::tempdir().unwrap();
    let error = Config::load(&folder.path().join("farseal.toml")).unwrap_err();
    assert!(matches!(error, ConfigError::Unreadable { .. }));
    assert!(error.to_string().contains("farseal init"), "{error}");
}

#[test]
fn relative_paths_count_from_the_files_folder() {
    let config = Config::parse(Path::new("/etc/farseal/farseal.toml"), &pair(&[])).unwrap();
    assert_eq!(config.volumes[0].path, Path::new("/etc/farseal/vault.img"));
    assert_eq!(config.pairs[0].cipher.path, Path::new("/etc/farseal/plugins/aes-256-gcm.wasm"));
    assert_eq!(config.node.state_dir, Path::new("/etc/farseal/state"));
}

proptest::proptest! {
    /// Whatever a file holds, reading it ends in a configuration or a message.
    #[test]
    fn no_text_panics(text in "(\\[|\\]|=|\"|\n|node|pair|peer|volume|name|[a-z0-9.{}#' -])*") {
        let _ = Config::parse(Path::new("f"), &text);
        let _ = Config::parse(Path::new("f"), &(with(&text)));
    }
}
