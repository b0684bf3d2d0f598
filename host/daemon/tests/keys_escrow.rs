//! An epoch key's way to the escrow site and back: deposits, receipts and releases that are made, read, refused and opened; and
//! what the escrow's desk answers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "keys_epoch/support.rs"]
mod support;

use std::sync::Arc;

use farseal::escrow::ciphers::Ciphers;
use farseal::escrow::desk::{AnswerError, Desk, FETCH_WITHIN, Said};
use farseal::escrow::library::Library;
use farseal::escrow::mark::{Freshness, Mark};
use farseal::escrow::records::Line;
use farseal::escrow::shares::{combine, split};
use farseal::escrow::store::EscrowStore;
use farseal::escrow::wire::{DepositRefusal, FromEscrow, Place, Request, RequestRefusal, RequestState, ToEscrow};
use farseal::keys::deposit::{
    DEPOSIT_LEN_MAX, Deposit, DepositError, DepositTerms, Receipt, RefusedDeposit, RefusedReceipt,
};
use farseal::keys::descriptor::{Descriptor, Role, Terms};
use farseal::keys::identity::Identity;
use farseal::keys::package::{CARRIER_LEN, Expected, OpenEpochError, RefusedEpoch, SealedEpoch};
use farseal::keys::release::{RELEASE_LEN_MAX, RefusedRelease, Release};
use farseal_core::chain::Chain;
use farseal_core::units::{Epoch, Generation, PairId, Sequence, WallTime};
use farseal_plugin::vault::epoch_key::EpochKey;
use farseal_plugin::vault::schedule::EpochSchedule;
use farseal_plugin::vault::stack::{Stack, StackList};
use farseal_plugin::{HostOptions, PluginHost};
use support::{PAIR, escrow, primary, secondary, stranger, terms};

const NOW: WallTime = WallTime(1_790_000_000_000);

fn key() -> EpochKey {
    EpochKey::generate(b"test").unwrap()
}

fn of_epoch(epoch: u64) -> Terms {
    Terms { epoch, ..terms() }
}

fn deposit(key: &EpochKey, epoch: u64) -> Deposit {
    let terms =
        DepositTerms { scope: of_epoch(epoch).scope(), created_ms: NOW.0, holder: secondary().card().fingerprint() };
    Deposit::seal(terms, key, primary(), escrow().card()).unwrap()
}

fn receipt(deposit: &Deposit) -> Receipt {
    Receipt::sign(escrow(), deposit, true, NOW.0)
}

fn released(key: &EpochKey) -> Release {
    let verified = deposit(key, 5).verify(primary().card(), escrow().card().fingerprint()).unwrap();
    let opened = verified.open(escrow().kem().unwrap()).unwrap();
    Release::seal(&verified, &opened, escrow(), secondary().card(), 7, NOW.0).unwrap()
}

#[test]
fn a_key_goes_to_the_escrow_and_from_there_to_whoever_recovers() {
    let key = key();
    let bytes = deposit(&key, 5).encode();
    assert!(bytes.len() <= DEPOSIT_LEN_MAX);
    let verified = Deposit::decode(&bytes).unwrap().verify(primary().card(), escrow().card().fingerprint()).unwrap();
    assert!(verified.open(escrow().kem().unwrap()).unwrap() == key);

    let bytes = released(&key).encode();
    assert!(bytes.len() <= RELEASE_LEN_MAX);
    let (scope, check) = (terms().scope(), terms().key_check(&key));
    let opened = Release::decode(&bytes).unwrap().open(secondary(), escrow().card(), (&scope, &check)).unwrap();
    assert!(opened == key);
}

#[test]
fn every_flipped_byte_of_a_deposit_a_receipt_and_a_release_is_refused() {
    let key = key();
    let (made, own) = (deposit(&key, 5), escrow().card().fingerprint());
    let each = |bytes: &[u8], name: &str, accepted: &dyn Fn(&[u8]) -> bool| {
        assert!(accepted(bytes), "a sound {name} is refused");
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 0x01;
            assert!(!accepted(&changed), "byte {at} of a {name} may be flipped");
            assert!(!accepted(&bytes[..at]), "{at} bytes of a {name} are enough");
        }
        assert!(!accepted(&[bytes, &[0]].concat()), "a {name} may grow");
    };
    each(&made.encode(), "deposit", &|bytes| {
        Deposit::decode(bytes).is_ok_and(|deposit| deposit.verify(primary().card(), own).is_ok())
    });
    each(&receipt(&made).encode(), "receipt", &|bytes| {
        Receipt::decode(bytes).is_ok_and(|receipt| receipt.verify(escrow().card(), made.hash()).is_ok())
    });
    let (scope, check) = (terms().scope(), terms().key_check(&key));
    each(&released(&key).encode(), "release", &|bytes| {
        Release::decode(bytes).is_ok_and(|release| release.open(secondary(), escrow().card(), (&scope, &check)).is_ok())
    });
}

#[test]
fn what_is_for_others_or_by_others_is_named() {
    let (key, own) = (key(), escrow().card().fingerprint());
    let made = deposit(&key, 5);
    assert_eq!(made.clone().verify(stranger().card(), own).unwrap_err(), RefusedDeposit::Forged { epoch: 5 });
    let other = stranger().card().fingerprint();
    assert_eq!(
        made.clone().verify(primary().card(), other).unwrap_err(),
        RefusedDeposit::OtherEscrow { epoch: 5, escrow: own }
    );
    let receipt = receipt(&made);
    assert_eq!(receipt.verify(escrow().card(), [9; 32]).unwrap_err(), RefusedReceipt::OtherDeposit);
    let card = stranger().card();
    assert_eq!(receipt.verify(card, made.hash()).unwrap_err(), RefusedReceipt::Forged(card.fingerprint()));
    let (scope, check) = (terms().scope(), terms().key_check(&key));
    let refused = released(&key).open(stranger(), escrow().card(), (&scope, &check)).unwrap_err();
    assert_eq!(refused, RefusedRelease::OtherRequester { epoch: 5, requester: secondary().card().fingerprint() });
    let refused = released(&key).open(secondary(), stranger().card(), (&scope, &check)).unwrap_err();
    assert_eq!(refused, RefusedRelease::Forged { epoch: 5 });
    // Of another key than the epoch's descriptor commits to.
    let another = terms().key_check(&EpochKey::generate(b"other").unwrap());
    let refused = released(&key).open(secondary(), escrow().card(), (&scope, &another)).unwrap_err();
    assert_eq!(refused, RefusedRelease::OtherKey { epoch: 5 });
    assert_eq!(Deposit::decode(b"FSR1\x01").unwrap_err(), DepositError::Format);
}

#[test]
fn a_deposit_takes_its_epochs_terms_from_its_sites_own_descriptor_alone() {
    let key = key();
    let made = deposit(&key, 5);
    // A package begins with its descriptor, and that with its length.
    let described = |terms: Terms, key: &EpochKey, signer: &Identity| {
        let own = [(Role::Own, signer.card())];
        let package = SealedEpoch::seal(terms, key, signer, &own, Some(&receipt(&made))).unwrap().encode();
        package[2..2 + usize::from(u16::from_be_bytes([package[0], package[1]]))].to_vec()
    };
    let deposit = made.clone().verify(primary().card(), escrow().card().fingerprint()).unwrap();
    let sound = described(terms(), &key, primary());
    assert_eq!(deposit.epoch_terms(&sound, primary().card()), Some(terms()));
    let mut changed = Descriptor::decode(&sound).unwrap();
    changed.terms.stacks = StackList::from("chacha20-poly1305".parse::<Stack>().unwrap());
    for (what, descriptor) in [
        ("other ciphers", changed.encode()),
        ("another site's signature", described(terms(), &key, stranger())),
        ("another key's", described(terms(), &self::key(), primary())),
        ("another epoch's", described(of_epoch(6), &key, primary())),
        ("cut short", sound[..sound.len() - 1].to_vec()),
        ("nothing", Vec::new()),
    ] {
        assert_eq!(deposit.epoch_terms(&descriptor, primary().card()), None, "{what}");
    }
}

fn expected<'a>() -> Expected<'a> {
    Expected { pair: PAIR, signer: primary().card(), newest: None, escrow: Some(escrow().card()) }
}

#[test]
fn a_package_of_a_pair_with_an_escrow_needs_that_escrows_receipt_for_this_key() {
    let key = key();
    let own = [(Role::Own, primary().card())];
    let sealed = |receipt: Option<&Receipt>| SealedEpoch::seal(terms(), &key, primary(), &own, receipt).unwrap();
    let sound = sealed(Some(&receipt(&deposit(&key, 5))));
    let again = SealedEpoch::decode(&sound.encode()).unwrap();
    assert_eq!(again, sound);
    let verified = again.verify(&expected()).unwrap();
    assert_eq!(verified.open(primary()).unwrap(), key);
    // The secondary, and whoever takes its disk, opens nothing.
    let card = secondary().card().fingerprint();
    assert_eq!(verified.open(secondary()).unwrap_err(), OpenEpochError::OtherRecipient { epoch: 5, card });

    let escrow_card = escrow().card().fingerprint();
    let refused = sealed(None).verify(&expected()).unwrap_err();
    assert_eq!(refused, RefusedEpoch::NoReceipt { epoch: 5, escrow: escrow_card });
    // The receipt for another key does not do.
    let others = receipt(&deposit(&self::key(), 5));
    let refused = sealed(Some(&others)).verify(&expected()).unwrap_err();
    assert_eq!(refused, RefusedEpoch::Receipt { epoch: 5, source: RefusedReceipt::OtherKey });
    let strangers = Receipt::sign(stranger(), &deposit(&key, 5), true, NOW.0);
    let refused = sealed(Some(&strangers)).verify(&expected()).unwrap_err();
    assert_eq!(refused, RefusedEpoch::NoReceipt { epoch: 5, escrow: escrow_card });
}

#[test]
fn a_package_for_both_the_secondary_and_an_escrow_fits_its_carrier() {
    let key = key();
    let both = [(Role::Own, primary().card()), (Role::Secondary, secondary().card())];
    let sealed = SealedEpoch::seal(terms(), &key, primary(), &both, Some(&receipt(&deposit(&key, 5)))).unwrap();
    assert!(sealed.encode().len() + 52 <= CARRIER_LEN, "{} bytes", sealed.encode().len());
    assert!(sealed.verify(&expected()).unwrap().open(secondary()).unwrap() == key);
}

/// A desk that knows the primary, the secondary and a stranger.
struct Office {
    desk: Desk,
    _directory: tempfile::TempDir,
}

fn office(identity: Identity) -> Office {
    let directory = tempfile::tempdir().unwrap();
    let store = EscrowStore::open(&directory.path().join("escrow.redb")).unwrap();
    let sites = [primary(), secondary(), stranger()].map(|site| site.card().clone()).to_vec();
    let library = Library::at(directory.path().join("components"));
    let ciphers = Ciphers::of(Arc::new(PluginHost::new(HostOptions::uncached()).unwrap()));
    Office { desk: Desk::new(Arc::new(identity), sites, store, (library, ciphers)), _directory: directory }
}

fn escrows_own() -> Identity {
    Identity::from_stored(&escrow().to_stored()).unwrap()
}

/// What the copy that asks holds.
const COPY: Mark = Mark { generation: Generation(1), through: Sequence(5_000), chain: Chain([5; 32]) };

fn said(note: &str) -> Said<'_> {
    Said { note, although_stale: false }
}

impl Office {
    fn tell(&self, site: &Identity, message: ToEscrow) -> Vec<FromEscrow> {
        self.desk.answer(site.card(), &mut Line::default(), vec![message], NOW).unwrap()
    }

    fn deposit(&self, key: &EpochKey, epoch: u64) -> Deposit {
        let made = deposit(key, epoch);
        let answers = self.tell(primary(), ToEscrow::Deposit(made.encode()));
        let [FromEscrow::Receipt(bytes)] = answers.as_slice() else { panic!("{answers:?}") };
        Receipt::decode(bytes).unwrap().verify(escrow().card(), made.hash()).unwrap();
        made
    }

    fn ask(&self, site: &Identity) -> FromEscrow {
        self.ask_with(site, COPY)
    }

    fn ask_with(&self, site: &Identity, copy: Mark) -> FromEscrow {
        let request = Request {
            pair: PairId(PAIR),
            depositor: primary().card().fingerprint(),
            first: Epoch(1),
            last: Epoch(100),
            copy,
            reason: "main is lost".into(),
        };
        self.tell(site, ToEscrow::Request(request)).remove(0)
    }

    /// Everything of a request, cell by cell.
    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever it is, it ends the fetch")]
    fn fetch(&self, site: &Identity, request: u64) -> (Vec<Release>, FromEscrow) {
        let (mut all, mut after): (Vec<Release>, Option<Place>) = (Vec::new(), None);
        loop {
            for answer in self.tell(site, ToEscrow::Fetch { request, after }) {
                match answer {
                    FromEscrow::Release { place, bytes } => {
                        after = Some(place);
                        all.push(Release::decode(&bytes).unwrap());
                    }
                    other => return (all, other),
                }
            }
        }
    }
}

#[test]
fn keys_are_released_to_the_copys_keeper_after_a_person_says_yes_and_to_nobody_else() {
    let office = office(escrows_own());
    let keys: Vec<EpochKey> = (1..=25).map(|_| key()).collect();
    for (key, epoch) in keys.iter().zip(1..) {
        office.deposit(key, epoch);
    }
    assert_eq!(office.desk.held().unwrap(), 25);
    assert_eq!(office.ask(stranger()), FromEscrow::NotTaken(RequestRefusal::NothingForYou));
    let waiting = FromEscrow::State { request: 1, state: RequestState::Waiting };
    assert_eq!(office.ask(secondary()), waiting);
    assert_eq!(office.ask(secondary()), waiting, "the same question is one request");
    assert_eq!(office.fetch(secondary(), 1), (Vec::new(), waiting));
    office.desk.approve(1, None, &said("seen the fire"), NOW).unwrap();
    assert!(matches!(office.desk.approve(1, None, &said(""), NOW), Err(AnswerError::Answered { .. })));
    // Another site does not get what this one was granted.
    let unknown = FromEscrow::State { request: 1, state: RequestState::Unknown };
    assert_eq!(office.fetch(stranger(), 1), (Vec::new(), unknown));

    let (releases, end) = office.fetch(secondary(), 1);
    assert_eq!(end, FromEscrow::Complete { request: 1 });
    assert_eq!(releases.len(), 25);
    for ((release, key), epoch) in releases.iter().zip(&keys).zip(1..) {
        let terms = of_epoch(epoch);
        let opened = release.open(secondary(), escrow().card(), (&terms.scope(), &terms.key_check(key))).unwrap();
        assert!(opened == *key);
    }
    let log: Vec<String> =
        office.desk.logged(100).unwrap().lines.into_iter().map(|line| format!("{}: {}", line.who, line.what)).collect();
    let told = log.join("\n");
    for said in ["has none here", "request 1 for 25 keys", "approved: seen the fire", "all 25 keys"] {
        assert!(told.contains(said), "{said:?} is not in the log:\n{told}");
    }
}

#[test]
fn keys_for_a_copy_that_was_put_back_are_released_only_in_as_many_words() {
    let office = office(escrows_own());
    office.deposit(&key(), 1);
    let newest = Mark { through: Sequence(5_010), ..COPY };
    for mark in [newest, COPY] {
        let mark = ToEscrow::Mark { pair: PairId(PAIR), mark };
        assert_eq!(office.tell(primary(), mark.clone()), []);
        assert_eq!(office.tell(stranger(), mark), [], "who deposited nothing has a mark of its own");
    }
    let waiting = |request| FromEscrow::State { request, state: RequestState::Waiting };
    assert_eq!(office.ask(secondary()), waiting(1));
    let asked = &office.desk.requests().unwrap()[0];
    let behind = Freshness::Behind { generation: Generation(1), through: Sequence(5_010), at: NOW };
    assert_eq!(office.desk.freshness(asked).unwrap(), behind, "an older mark changes nothing");
    let refused = office.desk.approve(1, None, &said("trust me"), NOW).unwrap_err();
    assert!(matches!(refused, AnswerError::Stale(_)) && refused.to_string().contains("record 5010"), "{refused}");
    assert_eq!(office.fetch(secondary(), 1), (Vec::new(), waiting(1)));

    // As far, and another history.
    assert_eq!(office.ask_with(secondary(), Mark { chain: Chain([6; 32]), ..newest }), waiting(1));
    let refused = office.desk.approve(1, None, &said(""), NOW).unwrap_err();
    assert!(matches!(refused, AnswerError::Stale(Freshness::Other { .. })), "{refused}");

    // The whole copy asks: the same request, and no longer stale.
    assert_eq!(office.ask_with(secondary(), newest), waiting(1));
    office.desk.approve(1, None, &said(""), NOW).unwrap();
    // What was granted to the newest is not granted to an older one.
    assert_eq!(office.ask(secondary()), waiting(2));
    office.desk.approve(2, None, &Said { note: "the tape of May", although_stale: true }, NOW).unwrap();
    let log = office.desk.logged(10).unwrap();
    assert_eq!(log.altered, 0);
    let log = log.lines;
    let line = log.iter().find(|line| line.what.contains("the tape of May")).unwrap();
    assert!(line.what.contains("although the copy lacks"), "{}", line.what);
}

#[test]
fn a_denied_and_an_expired_request_release_nothing() {
    let office = office(escrows_own());
    office.deposit(&key(), 1);
    office.ask(secondary());
    office.desk.deny(1, "nobody is hurt", NOW).unwrap();
    let denied = FromEscrow::State { request: 1, state: RequestState::Denied };
    assert_eq!(office.fetch(secondary(), 1), (Vec::new(), denied));
    let FromEscrow::State { request: 2, state: RequestState::Waiting } = office.ask(secondary()) else {
        panic!("a denied request is in the way of the next")
    };
    office.desk.approve(2, None, &said(""), NOW).unwrap();
    let late = WallTime(NOW.0 + FETCH_WITHIN.0);
    let fetch = ToEscrow::Fetch { request: 2, after: None };
    let answers = office.desk.answer(secondary().card(), &mut Line::default(), vec![fetch], late).unwrap();
    assert_eq!(answers, [FromEscrow::State { request: 2, state: RequestState::Expired }]);
    office.desk.approve(2, None, &said("again"), late).unwrap();
}

#[test]
fn a_yes_releases_the_keys_that_were_held_then_and_none_that_is_deposited_later() {
    let office = office(escrows_own());
    let before: Vec<Deposit> = (1..=3).map(|epoch| office.deposit(&key(), epoch)).collect();
    let everything = Request {
        pair: PairId(PAIR),
        depositor: primary().card().fingerprint(),
        first: Epoch(1),
        last: Epoch(u64::MAX),
        copy: COPY,
        reason: "main is lost".into(),
    };
    office.tell(secondary(), ToEscrow::Request(everything));
    // Deposited while nobody had answered: it is among those that are approved, and counted.
    office.deposit(&key(), 4);
    let asked = office.desk.requests().unwrap().remove(0);
    assert_eq!((asked.keys, office.desk.keys_now(&asked).unwrap()), (3, 4));
    assert_eq!(office.desk.approve(1, None, &said(""), NOW).unwrap().keys, 4);
    // A later epoch's, and another key for one that was approved.
    let later = [office.deposit(&key(), 5), office.deposit(&key(), 2)];
    let (releases, end) = office.fetch(secondary(), 1);
    assert_eq!(end, FromEscrow::Complete { request: 1 });
    let came: Vec<[u8; 32]> = releases.iter().map(|release| release.deposit).collect();
    assert_eq!(came.len(), 4);
    assert!(before.iter().all(|deposit| came.contains(&deposit.hash())), "a key that was approved did not come");
    assert!(!later.iter().any(|deposit| came.contains(&deposit.hash())), "a key came that nobody approved");
}

#[test]
fn a_yes_that_is_taken_back_releases_nothing_more_and_the_log_says_so() {
    let office = office(escrows_own());
    office.deposit(&key(), 1);
    office.ask(secondary());
    office.desk.approve(1, None, &said(""), NOW).unwrap();
    let (asked, withdrawn) = office.desk.deny(1, "it was not they who called", NOW).unwrap();
    assert!(withdrawn && asked.answer.is_some_and(|answer| !answer.approved));
    let denied = FromEscrow::State { request: 1, state: RequestState::Denied };
    assert_eq!(office.fetch(secondary(), 1), (Vec::new(), denied));
    let log = office.desk.logged(10).unwrap().lines;
    assert!(log.iter().any(|line| line.what.contains("withdrawn: it was not they who called")), "{log:?}");
    assert!(matches!(office.desk.deny(1, "", NOW), Err(AnswerError::Answered { answer: "denied", .. })));
    assert!(matches!(office.desk.approve(1, None, &said(""), NOW), Err(AnswerError::Answered { .. })));
}

#[test]
fn no_key_leaves_without_a_line_in_the_log_that_says_so_wherever_a_fetch_begins() {
    let office = office(escrows_own());
    let deposits: Vec<Deposit> = (1..=25).map(|epoch| office.deposit(&key(), epoch)).collect();
    office.ask(secondary());
    office.desk.approve(1, None, &said(""), NOW).unwrap();
    let told = |what: &str| {
        let log = office.desk.logged(100).unwrap().lines;
        log.iter().filter(|line| line.what.contains(what)).count()
    };
    let after =
        |epoch: u64, deposit| ToEscrow::Fetch { request: 1, after: Some(Place { epoch: Epoch(epoch), deposit }) };
    let answers = office.tell(secondary(), after(u64::MAX, [0xff; 32]));
    assert_eq!(answers, [FromEscrow::Complete { request: 1 }]);
    assert_eq!((told("all 25 keys"), told("are released")), (0, 0), "nothing has left");
    // Only the last one, and never the end of it.
    let answers = office.tell(secondary(), after(24, deposits[23].hash()));
    assert!(matches!(answers[0], FromEscrow::Release { .. }), "{answers:?}");
    assert_eq!(told("request 1: keys 1 to 25 of 25"), 1);
    for _ in 0..3 {
        office.tell(secondary(), ToEscrow::Fetch { request: 1, after: None });
    }
    assert_eq!(office.fetch(secondary(), 1).0.len(), 25);
    assert_eq!((told("keys 1 to 25 of 25"), told("all 25 keys")), (1, 1), "a key that is fetched again makes no line");
}

#[test]
fn forged_foreign_and_lying_deposits_are_refused_and_logged() {
    let office = office(escrows_own());
    let good = deposit(&key(), 1);
    let refused = |site: &Identity, bytes: Vec<u8>| {
        let answers = office.tell(site, ToEscrow::Deposit(bytes));
        let [FromEscrow::Refused { why, .. }] = answers.as_slice() else { panic!("{answers:?}") };
        *why
    };
    assert_eq!(refused(primary(), b"nonsense".to_vec()), DepositRefusal::Unreadable);
    // A site replays another one's deposit as its own.
    assert_eq!(refused(stranger(), good.encode()), DepositRefusal::Forged);
    let terms = DepositTerms { scope: of_epoch(1).scope(), created_ms: 0, holder: secondary().card().fingerprint() };
    let foreign = Deposit::seal(terms, &key(), primary(), stranger().card()).unwrap();
    assert_eq!(refused(primary(), foreign.encode()), DepositRefusal::OtherEscrow);
    assert_eq!(office.desk.held().unwrap(), 0);
    assert_eq!(office.desk.logged(10).unwrap().lines.len(), 3);
}

#[test]
fn a_destroyed_key_is_gone_and_does_not_come_back() {
    let office = office(escrows_own());
    let made = office.deposit(&key(), 1);
    let destroy = |site: &Identity| office.tell(site, ToEscrow::Destroy { deposit: made.hash() });
    assert_eq!(destroy(secondary()), [], "only the depositing site may");
    assert_eq!(office.desk.held().unwrap(), 1);
    assert_eq!(destroy(primary()), [FromEscrow::Destroyed { deposit: made.hash() }]);
    assert_eq!(office.desk.held().unwrap(), 0);
    let again = office.tell(primary(), ToEscrow::Deposit(made.encode()));
    assert_eq!(again, [FromEscrow::Refused { deposit: made.hash(), why: DepositRefusal::Destroyed }]);
    assert_eq!(office.ask(secondary()), FromEscrow::NotTaken(RequestRefusal::NothingForYou));
}

#[test]
fn a_drill_proves_that_the_escrow_opens_a_key_without_showing_it() {
    let office = office(escrows_own());
    let key = key();
    let made = office.deposit(&key, 3);
    let challenge = [7; 32];
    let drill = ToEscrow::Drill { deposit: made.hash(), challenge };
    let proof = EpochSchedule::new(&key, &of_epoch(3).scope()).drill(&challenge);
    let drilled = |proof| [FromEscrow::Drilled { deposit: made.hash(), proof }];
    assert_eq!(office.tell(primary(), drill.clone()), drilled(Some(proof)));
    assert_eq!(office.tell(stranger(), drill), drilled(None), "a stranger learns nothing");
}

#[test]
fn an_escrow_whose_key_is_shared_out_takes_deposits_alone_and_releases_with_its_people() {
    let shares = split(escrow().kem().unwrap(), "fingerprint", 2, 3).unwrap();
    let office = office(escrows_own().without_kem(2));
    let key = key();
    let made = deposit(&key, 1);
    let answers = office.tell(primary(), ToEscrow::Deposit(made.encode()));
    let [FromEscrow::Receipt(bytes)] = answers.as_slice() else { panic!("{answers:?}") };
    assert!(!Receipt::decode(bytes).unwrap().checked, "it cannot have looked at the key");
    office.ask(secondary());
    assert!(matches!(office.desk.approve(1, None, &said(""), NOW), Err(AnswerError::SharesNeeded { needed: 2 })));
    let other = split(stranger().kem().unwrap(), "fingerprint", 2, 3).unwrap();
    let wrong = combine(&other[..2]).unwrap();
    assert!(matches!(office.desk.approve(1, Some(wrong), &said(""), NOW), Err(AnswerError::OtherSecret)));
    office.desk.approve(1, Some(combine(&shares[1..]).unwrap()), &said(""), NOW).unwrap();
    let (releases, _) = office.fetch(secondary(), 1);
    let terms = of_epoch(1);
    let opened = releases[0].open(secondary(), escrow().card(), (&terms.scope(), &terms.key_check(&key))).unwrap();
    assert!(opened == key);
    // The key that people brought goes when all was fetched.
    let expired = FromEscrow::State { request: 1, state: RequestState::Expired };
    assert_eq!(office.fetch(secondary(), 1), (Vec::new(), expired));
}

#[test]
fn a_yes_lasts_until_all_that_left_has_come_and_is_forgotten_when_its_time_is_over() {
    let office = office(escrows_own());
    office.deposit(&key(), 1);
    let again = |request| {
        let answers = office.tell(secondary(), ToEscrow::Fetch { request, after: None });
        matches!(answers.as_slice(), [FromEscrow::Release { .. }])
    };
    office.ask(secondary());
    office.desk.approve(1, None, &said(""), NOW).unwrap();
    assert!(again(1) && again(1), "an answer that was lost with its line is fetched again");
    assert_eq!(office.fetch(secondary(), 1).1, FromEscrow::Complete { request: 1 });
    assert!(!again(1), "all of it came");
    let FromEscrow::State { request: 2, .. } = office.ask(secondary()) else {
        panic!("what was fetched may be asked for anew")
    };
    office.desk.approve(2, None, &said(""), NOW).unwrap();
    let late = WallTime(NOW.0 + FETCH_WITHIN.0);
    // Whatever a site says then.
    let mark = ToEscrow::Mark { pair: PairId(PAIR), mark: COPY };
    office.desk.answer(primary().card(), &mut Line::default(), vec![mark], late).unwrap();
    assert!(!again(2), "a clock that goes back brings it back");
}

#[test]
fn an_identity_without_its_kem_key_is_the_same_to_others() {
    let shared = escrows_own().without_kem(3);
    let again = Identity::from_stored(&shared.to_stored()).unwrap();
    assert_eq!(again.card(), escrow().card());
    assert_eq!((again.shares_needed(), again.kem().is_none()), (3, true));
    let signature = again.sign(b"message");
    escrow().card().signing.verify(b"message", &signature).unwrap();
    let kept = escrow().kem().unwrap();
    assert!(
        !shared.to_stored().windows(8).any(|window| {
            // The stored bytes of the whole identity hold the secret; those of the shared one must not.
            escrow().to_stored()[39..47] == *window
        }),
        "{kept:?} is still stored"
    );
}
