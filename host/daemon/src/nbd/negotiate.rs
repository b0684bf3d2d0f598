//! The option haggling as a state machine: one option in, the bytes to answer and the next step out.

use std::sync::Arc;

use crate::nbd::admit::Terms;
use crate::nbd::export::{ContextId, ExportInfo};
use crate::nbd::limits::{ADVERTISED_MAX_PAYLOAD, MAX_OPTIONS, MAX_STRING, MIN_BLOCK};
use crate::nbd::registry::{Entry, Registry};
use crate::nbd::wire::{ClientFlags, ContextQuery, InfoQuery, decode_name, flag, info, opt, put_option_reply, rep};

/// Whether a listener offers or demands TLS (`proto.md`, server-side requirements).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsPolicy {
    /// NOTLS.
    Off,
    /// SELECTIVETLS with no export that demands it.
    Allowed,
    /// FORCEDTLS.
    Required,
}

/// What one connection has agreed so far.
#[derive(Debug)]
pub struct Negotiation {
    client: ClientFlags,
    policy: TlsPolicy,
    over_tls: bool,
    structured: bool,
    /// Chosen contexts, and the export they were chosen for.
    contexts: Option<(String, Vec<ContextId>)>,
    options: usize,
}

/// What to do after an option.
#[derive(Debug)]
pub(crate) enum Step {
    /// Send this and read the next option.
    Reply(Vec<u8>),
    /// Send this and shake hands.
    StartTls(Vec<u8>),
    /// Send this and serve the export.
    Enter(Vec<u8>, Agreed),
    /// Send this, if anything, and close.
    Close(Vec<u8>),
}

/// What both sides settled on.
#[derive(Debug)]
pub(crate) struct Agreed {
    pub(crate) entry: Arc<Entry>,
    pub(crate) terms: Terms,
}

impl Negotiation {
    /// Begins, after the client answered the greeting.
    #[must_use]
    pub fn new(client: ClientFlags, policy: TlsPolicy) -> Self {
        Self { client, policy, over_tls: false, structured: false, contexts: None, options: 0 }
    }

    /// TLS is up. Everything agreed before is forgotten: an attacker may have sent it (CVE-2021-3716).
    pub fn secured(&mut self) {
        self.over_tls = true;
        self.structured = false;
        self.contexts = None;
    }

    /// Counts an option; true where the client has sent too many.
    pub fn count_option(&mut self) -> bool {
        self.options += 1;
        self.options > MAX_OPTIONS
    }

    /// Answers an option whose data was skipped.
    #[must_use]
    pub fn too_big(option: u32) -> Vec<u8> {
        refuse(option, rep::ERR_TOO_BIG, "option data is limited to 16 KiB")
    }

    /// Takes one option with its data.
    pub(crate) fn option(&mut self, option: u32, data: &[u8], registry: &Registry, stopping: bool) -> Step {
        if option == opt::EXPORT_NAME {
            return self.export_name(data, registry, stopping);
        }
        if !self.client.fixed {
            return Step::Close(Vec::new());
        }
        match option {
            opt::ABORT => return Step::Close(reply(option, rep::ACK, &[])),
            opt::STARTTLS => return self.start_tls(data),
            _ if self.tls_missing() => {
                return Step::Reply(refuse(option, rep::ERR_TLS_REQD, "this server demands TLS: send STARTTLS first"));
            }
            _ if stopping => {
                return Step::Reply(refuse(option, rep::ERR_SHUTDOWN, "the server is stopping"));
            }
            _ => {}
        }
        match option {
            opt::LIST => Step::Reply(list(data, registry)),
            opt::STRUCTURED_REPLY => Step::Reply(self.structured_reply(data)),
            opt::INFO | opt::GO => self.info(option, data, registry),
            opt::LIST_META_CONTEXT | opt::SET_META_CONTEXT => Step::Reply(self.meta_context(option, data, registry)),
            _ => Step::Reply(refuse(option, rep::ERR_UNSUP, "option not known here")),
        }
    }

    fn tls_missing(&self) -> bool {
        self.policy == TlsPolicy::Required && !self.over_tls
    }

    /// The one option that cannot be refused but by closing.
    fn export_name(&self, data: &[u8], registry: &Registry, stopping: bool) -> Step {
        let entry = decode_name(data).and_then(|name| registry.find(&name));
        let Some(entry) = entry.filter(|_| !stopping && !self.tls_missing()) else {
            return Step::Close(Vec::new());
        };
        let agreed = self.agree(entry);
        let mut out = Vec::with_capacity(134);
        out.extend_from_slice(&agreed.terms.size.to_be_bytes());
        out.extend_from_slice(&agreed.terms.transmission_flags().to_be_bytes());
        if !self.client.no_zeroes {
            out.extend_from_slice(&[0; 124]);
        }
        Step::Enter(out, agreed)
    }

    fn start_tls(&self, data: &[u8]) -> Step {
        let option = opt::STARTTLS;
        if !data.is_empty() || self.over_tls {
            return Step::Reply(refuse(option, rep::ERR_INVALID, "STARTTLS comes once and without data"));
        }
        match self.policy {
            TlsPolicy::Off => Step::Reply(refuse(option, rep::ERR_POLICY, "TLS is not set up on this listener")),
            TlsPolicy::Allowed | TlsPolicy::Required => Step::StartTls(reply(option, rep::ACK, &[])),
        }
    }

    fn structured_reply(&mut self, data: &[u8]) -> Vec<u8> {
        let option = opt::STRUCTURED_REPLY;
        if !data.is_empty() {
            return refuse(option, rep::ERR_INVALID, "STRUCTURED_REPLY has no data");
        }
        self.structured = true;
        reply(option, rep::ACK, &[])
    }

    fn info(&self, option: u32, data: &[u8], registry: &Registry) -> Step {
        let Some(query) = InfoQuery::decode(data) else {
            return Step::Reply(refuse(option, rep::ERR_INVALID, "malformed export query"));
        };
        let Some(entry) = registry.find(&query.name) else {
            return Step::Reply(refuse(option, rep::ERR_UNKNOWN, "no export of this name"));
        };
        let agreed = self.agree(entry);
        let mut out = facts(option, &query, &agreed);
        put_option_reply(&mut out, option, rep::ACK, &[]);
        if option == opt::GO { Step::Enter(out, agreed) } else { Step::Reply(out) }
    }

    fn meta_context(&mut self, option: u32, data: &[u8], registry: &Registry) -> Vec<u8> {
        let setting = option == opt::SET_META_CONTEXT;
        if setting {
            self.contexts = None;
        }
        if !self.structured {
            return refuse(option, rep::ERR_INVALID, "negotiate structured replies first");
        }
        let Some(query) = ContextQuery::decode(data) else {
            return refuse(option, rep::ERR_INVALID, "malformed context query");
        };
        let Some(entry) = registry.find(&query.name) else {
            return refuse(option, rep::ERR_UNKNOWN, "no export of this name");
        };
        let offered = entry.export.contexts();
        let chosen: Vec<(ContextId, String)> =
            (0..).map(ContextId).zip(offered).filter(|(_, name)| wanted(&query.queries, name, setting)).collect();
        let mut out = Vec::new();
        for (id, name) in &chosen {
            let id = if setting { id.0 } else { 0 };
            let mut fact = id.to_be_bytes().to_vec();
            fact.extend_from_slice(name.as_bytes());
            put_option_reply(&mut out, option, rep::META_CONTEXT, &fact);
        }
        put_option_reply(&mut out, option, rep::ACK, &[]);
        if setting {
            self.contexts = Some((entry.name.clone(), chosen.into_iter().map(|(id, _)| id).collect()));
        }
        out
    }

    /// Contexts hold only for the export they were chosen for.
    fn agree(&self, entry: Arc<Entry>) -> Agreed {
        let ExportInfo { size, read_only, .. } = entry.export.info();
        let chosen = self.contexts.as_ref().filter(|(name, _)| *name == entry.name);
        let contexts = chosen.map(|(_, contexts)| contexts.clone()).unwrap_or_default();
        Agreed { entry, terms: Terms { size, read_only, structured: self.structured, contexts } }
    }
}

impl Terms {
    /// What the client may send.
    #[must_use]
    pub fn transmission_flags(&self) -> u16 {
        let always = flag::HAS_FLAGS | flag::SEND_FLUSH | flag::CAN_MULTI_CONN | flag::SEND_CACHE;
        let writable = flag::SEND_FUA | flag::SEND_TRIM | flag::SEND_WRITE_ZEROES | flag::SEND_FAST_ZERO;
        let access = if self.read_only { flag::READ_ONLY } else { writable };
        let fragments = if self.structured { flag::SEND_DF } else { 0 };
        always | access | fragments
    }
}

/// An empty list of queries asks for all in a list, and for none in a choice.
fn wanted(queries: &[String], name: &str, setting: bool) -> bool {
    if setting {
        return queries.iter().any(|query| query == name);
    }
    let in_namespace = |query: &String| query.ends_with(':') && name.starts_with(query.as_str());
    queries.is_empty() || queries.iter().any(|query| query == name || in_namespace(query))
}

fn list(data: &[u8], registry: &Registry) -> Vec<u8> {
    if !data.is_empty() {
        return refuse(opt::LIST, rep::ERR_INVALID, "LIST has no data");
    }
    let mut out = Vec::new();
    for entry in registry.entries() {
        let len = u32::try_from(entry.name.len()).unwrap_or(0);
        let mut fact = len.to_be_bytes().to_vec();
        fact.extend_from_slice(entry.name.as_bytes());
        fact.extend_from_slice(clip(&entry.export.info().description).as_bytes());
        put_option_reply(&mut out, opt::LIST, rep::SERVER, &fact);
    }
    put_option_reply(&mut out, opt::LIST, rep::ACK, &[]);
    out
}

/// The facts asked for, and always size and flags.
fn facts(option: u32, query: &InfoQuery, agreed: &Agreed) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |kind: u16, parts: &[&[u8]]| {
        let mut fact = kind.to_be_bytes().to_vec();
        parts.iter().for_each(|part| fact.extend_from_slice(part));
        put_option_reply(&mut out, option, rep::INFO, &fact);
    };
    let asks = |kind: u16| query.facts.contains(&kind);
    let about = agreed.entry.export.info();
    let flags = agreed.terms.transmission_flags();
    put(info::EXPORT, &[&agreed.terms.size.to_be_bytes(), &flags.to_be_bytes()]);
    if asks(info::NAME) {
        put(info::NAME, &[agreed.entry.name.as_bytes()]);
    }
    if asks(info::DESCRIPTION) && !about.description.is_empty() {
        put(info::DESCRIPTION, &[clip(&about.description).as_bytes()]);
    }
    if asks(info::BLOCK_SIZE) {
        let sizes = [MIN_BLOCK, about.preferred_block, ADVERTISED_MAX_PAYLOAD].map(u32::to_be_bytes);
        put(info::BLOCK_SIZE, &[sizes.as_flattened()]);
    }
    out
}

/// The longest prefix that the protocol allows.
fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_STRING)]
}

fn reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_option_reply(&mut out, option, kind, data);
    out
}

fn refuse(option: u32, kind: u32, text: &str) -> Vec<u8> {
    reply(option, kind, text.as_bytes())
}

#[cfg(test)]
mod tests;
