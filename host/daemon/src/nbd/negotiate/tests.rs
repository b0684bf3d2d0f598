//! The haggling as transcripts: options in, a readable account of the replies out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::nbd::completion::Reply;
use crate::nbd::export::{Answer, Export, Request};
use crate::nbd::wire::OPTION_REPLY_MAGIC;
use proptest::prelude::*;

struct Fake {
    read_only: bool,
    description: &'static str,
}

impl Export for Fake {
    fn info(&self) -> ExportInfo {
        ExportInfo {
            description: self.description.to_owned(),
            size: 1 << 30,
            read_only: self.read_only,
            preferred_block: 4096,
        }
    }

    fn contexts(&self) -> Vec<String> {
        vec!["base:allocation".to_owned(), "farseal:owed".to_owned()]
    }

    fn submit(&self, _: Request, reply: Reply) {
        reply.done(Ok(Answer::Done));
    }
}

fn registry() -> Registry {
    let registry = Registry::default();
    registry.add("alpha", Arc::new(Fake { read_only: false, description: "first" })).unwrap();
    registry.add("beta", Arc::new(Fake { read_only: true, description: "" })).unwrap();
    registry
}

fn start(policy: TlsPolicy) -> Negotiation {
    Negotiation::new(ClientFlags { fixed: true, no_zeroes: true }, policy)
}

fn with_name(name: &str, rest: &[u8]) -> Vec<u8> {
    let mut data = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
    data.extend_from_slice(name.as_bytes());
    data.extend_from_slice(rest);
    data
}

fn queries(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut rest = u32::try_from(queries.len()).unwrap().to_be_bytes().to_vec();
    queries.iter().for_each(|query| rest.extend(with_name(query, &[])));
    with_name(name, &rest)
}

/// Kinds and data of the replies, one a line.
fn account(mut bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(bytes[..8], OPTION_REPLY_MAGIC.to_be_bytes());
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let (kind, len) = (word(12), usize::try_from(word(16)).unwrap());
        let data = &bytes[20..20 + len];
        let kind = match kind {
            rep::ACK => "ack".to_owned(),
            rep::SERVER => "server".to_owned(),
            rep::INFO => "info".to_owned(),
            rep::META_CONTEXT => "context".to_owned(),
            error => format!("error {}", error & 0x7fff_ffff),
        };
        let text = data.escape_ascii().to_string();
        lines.push(if kind.starts_with("error") || text.is_empty() { kind } else { format!("{kind} {text}") });
        bytes = &bytes[20 + len..];
    }
    lines
}

fn tell(negotiation: &mut Negotiation, option: u32, data: &[u8]) -> Vec<String> {
    match negotiation.option(option, data, &registry(), false) {
        Step::Reply(bytes) => account(&bytes),
        Step::StartTls(bytes) => [account(&bytes), vec!["start tls".to_owned()]].concat(),
        Step::Enter(bytes, agreed) if option == opt::EXPORT_NAME => {
            vec![format!("enter {} with {} bytes", agreed.entry.name, bytes.len())]
        }
        Step::Enter(bytes, agreed) => [account(&bytes), vec![format!("enter {}", agreed.entry.name)]].concat(),
        Step::Close(bytes) => [account(&bytes), vec!["close".to_owned()]].concat(),
    }
}

#[test]
fn each_option_gets_its_reply() {
    let size = r"info \x00\x00\x00\x00\x00\x00@\x00\x00\x00";
    for (case, option, data, expected) in [
        (
            "list",
            opt::LIST,
            vec![],
            vec![
                r"server \x00\x00\x00\x05alphafirst".to_owned(),
                r"server \x00\x00\x00\x04beta".to_owned(),
                "ack".to_owned(),
            ],
        ),
        ("list with data", opt::LIST, vec![1], vec!["error 3".to_owned()]),
        ("abort", opt::ABORT, vec![], vec!["ack".to_owned(), "close".to_owned()]),
        ("structured", opt::STRUCTURED_REPLY, vec![], vec!["ack".to_owned()]),
        ("structured with data", opt::STRUCTURED_REPLY, vec![0], vec!["error 3".to_owned()]),
        ("extended headers", opt::EXTENDED_HEADERS, vec![], vec!["error 1".to_owned()]),
        ("peek export, long withdrawn", 4, vec![], vec!["error 1".to_owned()]),
        ("tls where there is none", opt::STARTTLS, vec![], vec!["error 2".to_owned()]),
        ("go to nothing", opt::GO, with_name("gamma", &[0, 0]), vec!["error 6".to_owned()]),
        ("malformed go", opt::GO, vec![1, 2], vec!["error 3".to_owned()]),
        ("info", opt::INFO, with_name("alpha", &[0, 0]), vec![format!(r"{size}\rm"), "ack".to_owned()]),
        (
            "go, default, all facts",
            opt::GO,
            with_name("", &[0, 3, 0, 1, 0, 2, 0, 3]),
            vec![
                format!(r"{size}\rm"),
                r"info \x00\x01alpha".to_owned(),
                r"info \x00\x02first".to_owned(),
                r"info \x00\x03\x00\x00\x00\x01\x00\x00\x10\x00\x02\x00\x00\x00".to_owned(),
                "ack".to_owned(),
                "enter alpha".to_owned(),
            ],
        ),
        (
            "go, read-only",
            opt::GO,
            with_name("beta", &[0, 0]),
            vec![format!(r"{size}\x05\x07"), "ack".to_owned(), "enter beta".to_owned()],
        ),
        ("contexts before structured replies", opt::SET_META_CONTEXT, queries("", &[]), vec!["error 3".to_owned()]),
        ("export name", opt::EXPORT_NAME, b"beta".to_vec(), vec!["enter beta with 10 bytes".to_owned()]),
        ("unknown export name", opt::EXPORT_NAME, b"gamma".to_vec(), vec!["close".to_owned()]),
    ] {
        assert_eq!(tell(&mut start(TlsPolicy::Off), option, &data), expected, "{case}");
    }
}

#[test]
fn contexts_are_listed_by_namespace_and_chosen_by_name() {
    let both = vec![r"context \x00\x00\x00\x00base:allocation", r"context \x00\x00\x00\x00farseal:owed", "ack"];
    for (option, asked, expected) in [
        (opt::LIST_META_CONTEXT, &[][..], both.clone()),
        (opt::LIST_META_CONTEXT, &["base:", "farseal:owed"], both),
        (opt::LIST_META_CONTEXT, &["other:"], vec!["ack"]),
        (opt::SET_META_CONTEXT, &[], vec!["ack"]),
        (opt::SET_META_CONTEXT, &["base:"], vec!["ack"]),
        (
            opt::SET_META_CONTEXT,
            &["farseal:owed", "farseal:owed"],
            vec![r"context \x00\x00\x00\x01farseal:owed", "ack"],
        ),
    ] {
        let mut negotiation = start(TlsPolicy::Off);
        tell(&mut negotiation, opt::STRUCTURED_REPLY, &[]);
        assert_eq!(tell(&mut negotiation, option, &queries("", asked)), expected, "{asked:?}");
    }
}

#[test]
fn contexts_hold_for_the_export_they_were_chosen_for() {
    for (name, expected) in [("", vec![ContextId(1)]), ("alpha", vec![ContextId(1)]), ("beta", vec![])] {
        let mut negotiation = start(TlsPolicy::Off);
        tell(&mut negotiation, opt::STRUCTURED_REPLY, &[]);
        tell(&mut negotiation, opt::SET_META_CONTEXT, &queries("alpha", &["farseal:owed"]));
        let step = negotiation.option(opt::GO, &with_name(name, &[0, 0]), &registry(), false);
        let Step::Enter(_, agreed) = step else { panic!("{name:?} was refused") };
        assert_eq!(agreed.terms.contexts, expected, "{name:?}");
    }
}

#[test]
fn required_tls_refuses_everything_before_it() {
    for option in [opt::LIST, opt::INFO, opt::GO, opt::STRUCTURED_REPLY, opt::SET_META_CONTEXT, 77] {
        assert_eq!(tell(&mut start(TlsPolicy::Required), option, &[]), ["error 5"], "option {option}");
    }
    let mut negotiation = start(TlsPolicy::Required);
    assert_eq!(tell(&mut negotiation, opt::EXPORT_NAME, b"alpha"), ["close"]);
    assert_eq!(tell(&mut negotiation, opt::STARTTLS, &[]), ["ack", "start tls"]);
    negotiation.secured();
    assert_eq!(tell(&mut negotiation, opt::STARTTLS, &[]), ["error 3"]);
    assert_eq!(tell(&mut negotiation, opt::EXPORT_NAME, b"alpha"), ["enter alpha with 10 bytes"]);
}

#[test]
fn what_was_agreed_in_clear_is_forgotten_under_tls() {
    let mut negotiation = start(TlsPolicy::Allowed);
    tell(&mut negotiation, opt::STRUCTURED_REPLY, &[]);
    tell(&mut negotiation, opt::SET_META_CONTEXT, &queries("", &["base:allocation"]));
    tell(&mut negotiation, opt::STARTTLS, &[]);
    negotiation.secured();
    let step = negotiation.option(opt::GO, &with_name("", &[0, 0]), &registry(), false);
    let Step::Enter(_, agreed) = step else { panic!("refused") };
    assert!(!agreed.terms.structured && agreed.terms.contexts.is_empty());
}

#[test]
fn a_stopping_server_lets_nobody_in() {
    let mut negotiation = start(TlsPolicy::Off);
    let stopping =
        |negotiation: &mut Negotiation, option, data: &[u8]| negotiation.option(option, data, &registry(), true);
    let refused = stopping(&mut negotiation, opt::GO, &with_name("", &[0, 0]));
    assert!(matches!(refused, Step::Reply(bytes) if account(&bytes) == ["error 7"]));
    assert!(matches!(stopping(&mut negotiation, opt::EXPORT_NAME, b""), Step::Close(_)));
}

#[test]
fn an_unfixed_client_may_only_name_an_export() {
    let unfixed = || Negotiation::new(ClientFlags { fixed: false, no_zeroes: false }, TlsPolicy::Off);
    assert_eq!(tell(&mut unfixed(), opt::LIST, &[]), ["close"]);
    assert_eq!(tell(&mut unfixed(), opt::EXPORT_NAME, b""), ["enter alpha with 134 bytes"]);
}

#[test]
fn options_are_counted() {
    let mut negotiation = start(TlsPolicy::Off);
    let allowed = (0..MAX_OPTIONS).all(|_| !negotiation.count_option());
    assert!(allowed && negotiation.count_option());
}

proptest! {
    /// Whatever a client sends, it gets well-formed replies or the door.
    #[test]
    fn any_options_get_well_formed_replies(
        options in prop::collection::vec((0_u32..14, prop::collection::vec(any::<u8>(), 0..40)), 0..12),
        policy in prop::sample::select(vec![TlsPolicy::Off, TlsPolicy::Allowed, TlsPolicy::Required]),
    ) {
        let mut negotiation = start(policy);
        for (option, data) in options {
            tell(&mut negotiation, option, &data);
        }
    }
}
