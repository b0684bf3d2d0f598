//! Identities and cards as text and bytes, and secrets at rest.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use farseal::keys::capsule::KemId;
use farseal::keys::card::{CardError, NodeName, PeerCard};
use farseal::keys::fingerprint::ShownFingerprint;
use farseal::keys::identity::Identity;
use farseal::keys::seal_file::{
    Cost, CredentialsDirectory, KeyFileError, KeyProvider, MAX_SECRET, Passphrase, PassphraseFile,
};
use zeroize::Zeroizing;

fn file(path: &Path, passphrase: &str) -> PassphraseFile {
    PassphraseFile::new(path, Passphrase::new(Zeroizing::new(passphrase.to_owned())), Cost::NEXT_TO_NOTHING)
}

fn identity(kem: KemId) -> Identity {
    Identity::generate(NodeName::new("tokyo").unwrap(), kem).unwrap()
}

#[test]
fn an_identity_survives_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = file(&directory.path().join("identity"), "correct horse");
    for kem in KemId::ALL {
        let made = identity(kem);
        file.store(&made.to_stored()).unwrap();
        let read = Identity::from_stored(&file.load().unwrap()).unwrap();
        assert_eq!(read.card(), made.card());
        assert_eq!(read.sign(b"x"), made.sign(b"x"));
        assert_eq!(*read.to_stored(), *made.to_stored());
    }
}

#[test]
fn a_sealed_file_shows_nothing_of_the_secret_and_is_closed_to_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("identity");
    let secret = identity(KemId::MlKem768P256).to_stored();
    file(&path, "correct horse").store(&secret).unwrap();
    let bytes = fs::read(&path).unwrap();
    for piece in secret.chunks(8) {
        assert!(bytes.windows(piece.len()).all(|window| window != piece), "part of the secret is in the clear");
    }
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "a temporary file was left behind");
}

#[test]
fn a_wrong_passphrase_is_told_from_a_damaged_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("identity");
    file(&path, "correct horse").store(b"secret").unwrap();
    let refused = file(&path, "battery staple").load().unwrap_err();
    assert!(matches!(refused, KeyFileError::WrongPassphrase { .. }), "{refused}");

    let sound = fs::read(&path).unwrap();
    for at in 0..sound.len() {
        let mut changed = sound.clone();
        changed[at] ^= 1;
        fs::write(&path, &changed).unwrap();
        let refused = file(&path, "correct horse").load().unwrap_err();
        let last_of_header = 4 + 1 + 12 + 16 + 16;
        match at {
            0..5 => assert!(matches!(refused, KeyFileError::Format { .. }), "byte {at}: {refused}"),
            // The cost is refused where it leaves its bounds, and gives another key where it does not.
            5..17 => assert!(
                matches!(refused, KeyFileError::Cost { .. } | KeyFileError::WrongPassphrase { .. }),
                "byte {at}: {refused}"
            ),
            _ if at < last_of_header => {
                assert!(matches!(refused, KeyFileError::WrongPassphrase { .. }), "byte {at}: {refused}");
            }
            _ => assert!(matches!(refused, KeyFileError::Damaged { .. }), "byte {at}: {refused}"),
        }
    }
    for len in 0..sound.len() {
        fs::write(&path, &sound[..len]).unwrap();
        let refused = file(&path, "correct horse").load().unwrap_err();
        assert!(
            matches!(refused, KeyFileError::CutShort { .. } | KeyFileError::Damaged { .. }),
            "{len} bytes: {refused}"
        );
    }
}

#[test]
fn a_hostile_header_cannot_make_its_reader_hoard_or_toil() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("identity");
    file(&path, "correct horse").store(b"secret").unwrap();
    let sound = fs::read(&path).unwrap();
    for (field, value) in [(5, u32::MAX), (5, 1024 * 1024 + 1), (5, 0), (9, 17), (9, 0), (13, 17), (13, 0)] {
        let mut hostile = sound.clone();
        hostile[field..field + 4].copy_from_slice(&value.to_be_bytes());
        fs::write(&path, &hostile).unwrap();
        let refused = file(&path, "correct horse").load().unwrap_err();
        assert!(matches!(refused, KeyFileError::Cost { .. }), "{value} at {field}: {refused}");
    }
    fs::write(&path, vec![0; MAX_SECRET + 1000]).unwrap();
    assert!(matches!(file(&path, "correct horse").load(), Err(KeyFileError::TooLong { .. })));
    assert!(matches!(file(&path, "x").store(&[0; MAX_SECRET + 1]), Err(KeyFileError::TooLong { .. })));
}

#[test]
fn a_cost_for_new_files_has_a_floor_and_a_ceiling() {
    assert!(Cost::new(64 * 1024, 3, 4).unwrap() == Cost::RECOMMENDED);
    for (memory, passes, lanes) in [(8, 3, 1), (64 * 1024, 1, 1), (2 * 1024 * 1024, 3, 1), (64 * 1024, 3, 0)] {
        assert!(Cost::new(memory, passes, lanes).is_err(), "{memory} {passes} {lanes}");
    }
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("identity");
    file(&path, "correct horse").store(b"secret").unwrap();
    for mode in [0o640, 0o604, 0o602] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let refused = file(&path, "correct horse").load().unwrap_err();
        assert!(matches!(refused, KeyFileError::TooOpen { mode: found, .. } if found == mode), "{refused}");
        assert!(refused.to_string().contains("chmod 600"));
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    assert_eq!(*file(&path, "correct horse").load().unwrap(), b"secret");
    let refused = file(directory.path(), "x").load().unwrap_err();
    assert!(matches!(refused, KeyFileError::NotAFile { .. }), "{refused}");
}

#[test]
fn a_failed_write_leaves_the_old_secret() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("identity");
    fs::create_dir(&path).unwrap();
    // A directory cannot be replaced by a file: the rename fails after the new file was written.
    let refused = file(&path, "correct horse").store(b"secret").unwrap_err();
    assert!(matches!(refused, KeyFileError::Io { .. }), "{refused}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "the new file was left behind");
}

#[test]
fn a_systemd_credential_is_read_and_never_written() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("farseal"), b"secret").unwrap();
    let credential = CredentialsDirectory::new(directory.path());
    assert_eq!(*credential.load().unwrap(), b"secret");
    assert!(matches!(credential.store(b"x"), Err(KeyFileError::ReadOnly { .. })));
    let missing = CredentialsDirectory::new(Path::new("/nonexistent"));
    assert!(matches!(missing.load(), Err(KeyFileError::Io { .. })));
}

#[test]
fn a_card_is_read_back_from_its_text() {
    for kem in KemId::ALL {
        let made = identity(kem);
        let text = made.card().to_string();
        let read: PeerCard = text.parse().unwrap();
        assert_eq!(&read, made.card());
        assert_eq!(read.fingerprint(), made.card().fingerprint());
        let typed: ShownFingerprint = read.fingerprint().to_string().to_uppercase().replace('-', " ").parse().unwrap();
        assert!(read.fingerprint().is_shown_as(&typed));
    }
}

#[test]
fn a_changed_card_is_refused_by_name_of_the_field() {
    let card = identity(KemId::DhP256).card().to_string();
    let other = identity(KemId::DhP256).card().to_string();
    let line = |text: &str, field: &str| text.lines().find(|line| line.starts_with(field)).unwrap().to_owned();
    let swapped = |field: &str| card.replace(&line(&card, field), &line(&other, field));
    type Is = fn(&CardError) -> bool;
    let cases: [(String, Is); 10] = [
        (swapped("signing-key"), |error| matches!(error, CardError::Fingerprint { .. })),
        (swapped("kem-key"), |error| matches!(error, CardError::Fingerprint { .. })),
        (swapped("fingerprint"), |error| matches!(error, CardError::Fingerprint { .. })),
        (card.replace("format = 1", "format = 2"), |error| matches!(error, CardError::Format { format: 2 })),
        (card.replace("tokyo", "To Kyo"), |error| matches!(error, CardError::Node(_))),
        (card.replace("dhkem-p256", "rsa"), |error| matches!(error, CardError::Kem { .. })),
        (card.replace("dhkem-p256", "mlkem768-p256"), |error| matches!(error, CardError::KemKey(_))),
        (card.replace("signing-key = \"30", "signing-key = \"zz"), |error| {
            matches!(error, CardError::Hex { field: "signing-key" })
        }),
        (format!("{card}\nextra = 1\n"), |error| matches!(error, CardError::Toml(_))),
        (" ".repeat(10_000), |error| matches!(error, CardError::TooLong { .. })),
    ];
    for (text, is) in cases {
        let error = text.parse::<PeerCard>().unwrap_err();
        assert!(is(&error), "{error:?}");
    }
}

#[test]
fn secrets_are_not_printed() {
    let made = identity(KemId::MlKem768P256);
    let shown = format!("{made:?} {:?} {:?}", made.kem().unwrap(), file(Path::new("x"), "correct horse"));
    assert!(!shown.contains("correct horse"));
    for piece in made.to_stored()[7..71].chunks(4) {
        let hex: String = piece.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!shown.contains(&hex));
    }
}

/// GnuTLS (QEMU, libnbd) refuses a server certificate whose key usage lacks keyEncipherment.
#[test]
fn a_certificate_allows_signing_and_key_encipherment_and_carries_the_identity_key() {
    let made = identity(KemId::DhP256);
    let certificate = made.certificate(&["nbd.example".to_owned(), "192.0.2.7".to_owned()]).unwrap().certificate;
    let has = |bytes: &[u8]| certificate.windows(bytes.len()).any(|window| window == bytes);
    // KeyUsage (2.5.29.15), critical: BIT STRING with bits 0 and 2.
    assert!(has(&[0x06, 0x03, 0x55, 0x1d, 0x0f, 0x01, 0x01, 0xff, 0x04, 0x04, 0x03, 0x02, 0x05, 0xa0]));
    assert!(has(made.card().signing.spki()));
    assert!(has(b"tokyo") && has(b"nbd.example") && has(&[192, 0, 2, 7]));
    assert!(made.certificate(&["not\u{e9}ascii".to_owned()]).is_err());
}
