//! What an operator can have this node do with an escrow site: ask it for keys and fetch them, or be one and answer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use farseal_core::chain::Chain;
use farseal_core::secondary::Status as CopyStatus;
use farseal_core::units::{Epoch, Generation, Sequence};
use farseal_plugin::{Digest, PluginHost};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::Node;
use super::pair::{PairNode, Side};
use crate::config::Config;
use crate::control::api::{
    CommandReply, EscrowAnswer, EscrowCommand, EscrowLineStatus, EscrowRequest, EscrowRequestState, EscrowSearched,
    EscrowView, Role,
};
use crate::control::operator::CommandError;
use crate::escrow::ciphers::Ciphers;
use crate::escrow::client::{EscrowLine, Reach};
use crate::escrow::desk::{AnswerError, Desk, Said};
use crate::escrow::library::Library;
use crate::escrow::mark::{Freshness, Mark};
use crate::escrow::serve;
use crate::escrow::shares;
use crate::escrow::store::{Asked, EscrowStore, EscrowStoreError};
use crate::escrow::wire::{FromEscrow, Place, Request, RequestState, ToEscrow};
use crate::keyring::Keyring;
use crate::keys::identity::Identity;
use crate::keys::release::Release;
use crate::link::parts::Parts;
use crate::replica::Event as ReplicaEvent;
use crate::store::files;

/// How often a fetch that waits looks whether somebody has said yes.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Lines of the audit log that a console gets.
const LOG_SHOWN: usize = 200;
/// Of a site that holds nothing.
const NO_COPY: Mark = Mark { generation: Generation(0), through: Sequence::NONE, chain: Chain::START };
/// A file that holds more is no request.
const REQUEST_BYTES_MAX: u64 = 4096;

/// What this node answers as an escrow site, if it is one.
pub(super) fn desk(
    config: &Config,
    identity: &Arc<Identity>,
    host: &Arc<PluginHost>,
) -> anyhow::Result<Option<Arc<Desk>>> {
    if config.escrow.is_none() {
        return Ok(None);
    }
    let store = EscrowStore::open(&config.node.state_dir.join("escrow.redb"))?;
    let sites = config.peers.iter().map(|peer| peer.card.clone()).collect();
    let library = Library::at(config.node.state_dir.join("escrow-components"));
    Ok(Some(Arc::new(Desk::new(Arc::clone(identity), sites, store, (library, Ciphers::of(Arc::clone(host)))))))
}

/// The lines to the escrow sites of this node's pairs.
pub(super) fn lines(
    config: &Config,
    identity: &Arc<Identity>,
    stop: &watch::Sender<bool>,
) -> anyhow::Result<BTreeMap<String, Arc<EscrowLine>>> {
    let mut lines = BTreeMap::new();
    for name in config.pairs.iter().filter_map(|pair| pair.escrow.as_ref()) {
        let Some(peer) = config.peer(name).filter(|_| !lines.contains_key(name)) else { continue };
        let reach = Reach {
            name: name.clone(),
            card: peer.card.clone(),
            addresses: peer.addresses.iter().map(ToString::to_string).collect(),
            tls: crate::keys::tls::client_config(identity, &peer.card)?,
            beat: Duration::from_millis(peer.beat.0),
            stop: stop.subscribe(),
        };
        lines.insert(name.clone(), Arc::new(EscrowLine::start(&tokio::runtime::Handle::current(), reach)));
    }
    Ok(lines)
}

/// The request that this node made for a pair's keys, kept so that it can be gone on with after a restart.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Made {
    format: u32,
    request: u64,
}

impl Node {
    /// Accepts sites, if this node is an escrow.
    pub(super) async fn listen_escrow(&self) -> anyhow::Result<()> {
        let (Some(role), Some(desk)) = (self.shared.config.escrow, &self.desk) else { return Ok(()) };
        let cards: Vec<_> = self.shared.config.peers.iter().map(|peer| &peer.card).collect();
        if cards.is_empty() {
            tracing::warn!("no site is admitted: run `farseal escrow admit` with the cards of the sites, and restart");
            return Ok(());
        }
        let tls = crate::keys::tls::server_config(&self.shared.identity, &cards)?;
        let listener = TcpListener::bind(role.listen)
            .await
            .map_err(|error| anyhow::anyhow!("[escrow] listen {}: {error}", role.listen))?;
        tracing::info!(address = %listener.local_addr()?, "the escrow listens");
        tokio::spawn(serve::end_grants(Arc::clone(desk), self.shared.stop.subscribe()));
        tokio::spawn(serve::run(listener, tls, Arc::clone(desk), self.shared.stop.subscribe()));
        Ok(())
    }

    pub(super) fn view_escrow(&self) -> Result<EscrowView, CommandError> {
        let desk = self.desk()?;
        let failed = |error: &dyn std::error::Error| failed(error.to_string());
        let now = self.shared.clock.now().wall;
        let requests = desk.requests().map_err(|error| failed(&error))?;
        let shown = |asked: &Asked| {
            let state = desk.state(asked, now);
            // What a yes would give: the main site may have deposited more since it was asked.
            let keys = if state == RequestState::Waiting { desk.keys_now(asked)? } else { asked.keys };
            Ok(EscrowRequest { keys, ..shown(asked, state, desk.freshness(asked)?) })
        };
        let requests: Result<_, EscrowStoreError> = requests.iter().map(shown).collect();
        let requests = requests.map_err(|error| failed(&error))?;
        let log = desk.logged(LOG_SHOWN).map_err(|error| failed(&error))?;
        Ok(EscrowView {
            now,
            keys: desk.held().map_err(|error| failed(&error))?,
            sites: self.shared.config.peers.iter().map(|peer| peer.name.clone()).collect(),
            shares_needed: self.shared.identity.shares_needed(),
            requests,
            log: log.lines.into_iter().map(|line| (line.at, line.who, line.what)).collect(),
            log_altered: log.altered,
            log_end: log.end,
        })
    }

    pub(super) fn answer_request(&self, answer: EscrowAnswer) -> Result<CommandReply, CommandError> {
        let (desk, now) = (self.desk()?, self.shared.clock.now().wall);
        let EscrowAnswer { request, approve, note, shares, although_stale } = answer;
        let refused = |error: &dyn std::fmt::Display, next: &str| CommandError::Refused {
            reason: error.to_string(),
            next: Some(next.to_owned()),
        };
        if !approve {
            let asked = desk.deny(request, &note, now);
            let (asked, withdrawn) = asked.map_err(|error| refused(&error, "`farseal escrow requests` lists them"))?;
            let became = if withdrawn {
                "is not approved any more: nothing else is released for it, and what was released stays there"
            } else {
                "is denied"
            };
            return Ok(CommandReply::new(format!("request {} of {} {became}", asked.id, asked.node)));
        }
        let secret = if shares.is_empty() {
            None
        } else {
            let next = "give --share once for each file, of as many people as are needed";
            let parse = |text: &shares::ShareText| text.parse::<shares::Share>();
            let parsed: Result<Vec<_>, _> = shares.iter().map(parse).collect();
            let parsed = parsed.map_err(|error| refused(&error, next))?;
            Some(shares::combine(&parsed).map_err(|error| refused(&error, next))?)
        };
        let asked = desk.approve(request, secret, &Said { note: &note, although_stale }, now);
        let asked = asked.map_err(|error| {
            let next = if matches!(error, AnswerError::Stale(_)) {
                "ask why; if an older copy is what you want opened, say so with --although-stale, which is logged"
            } else {
                "`farseal escrow requests` lists them"
            };
            refused(&error, next)
        })?;
        let may = match &asked.search {
            Some(_) => "may search what the {} keys that are held now sealed, and have what it finds opened",
            None => "may fetch the {} keys that are held now",
        };
        let mut reply = CommandReply::new(format!(
            "request {} is approved: {} {}, and nothing of a key that is deposited later, within 24 hours, or until this node is \
             restarted",
            asked.id,
            asked.node,
            may.replace("{}", &asked.keys.to_string())
        ));
        reply.details.push(format!("`farseal escrow deny {}` takes it back", asked.id));
        reply.next = Some("there, `farseal escrow fetch PAIR`".into());
        Ok(reply)
    }

    fn desk(&self) -> Result<&Arc<Desk>, CommandError> {
        let next = "run it at the escrow site; `farseal escrow open` makes a node one".to_owned();
        let refused = CommandError::Refused { reason: "this node is no escrow site".into(), next: Some(next) };
        self.desk.as_ref().ok_or(refused)
    }
}

impl PairNode {
    pub(super) async fn escrow(self: Arc<Self>, command: EscrowCommand) -> Result<CommandReply, CommandError> {
        match command {
            EscrowCommand::Request { reason, search: None } => self.request_keys(reason).await,
            EscrowCommand::Request { reason, search: Some(search) } => self.request_search(reason, &search).await,
            EscrowCommand::Fetch { wait } => self.fetch_keys(wait).await,
        }
    }

    /// The line to the pair's escrow, for the console.
    pub(super) fn escrow_status(&self) -> Option<EscrowLineStatus> {
        let line = self.makings.escrow_line()?;
        let state = line.state();
        Some(EscrowLineStatus {
            escrow: line.name.clone(),
            holders: self.config.holders.to_string(),
            up: state.up,
            trouble: state.trouble,
            marked: line.marked(self.config.id),
            waiting: u64::try_from(state.waiting).unwrap_or(u64::MAX),
            missing: self
                .copys_keyring()
                .map_or(0, |keyring| u64::try_from(keyring.missing().len()).unwrap_or(u64::MAX)),
        })
    }

    /// Keys that a takeover would lack; why it may not begin.
    pub(super) fn must_have_keys(&self) -> Result<(), CommandError> {
        let missing = self.copys_keyring().map_or(0, |keyring| keyring.missing().len());
        if missing == 0 || self.makings.opens_by_search_alone() {
            return Ok(());
        }
        let pair = &self.config.name;
        let why = if self.makings.has_search_keys() {
            "what is read could not be opened; search keys are here, and suffice only under a recovery strategy that refuses what no \
             search found, as search-only does"
        } else {
            "nothing of them could be opened"
        };
        Err(CommandError::Refused {
            reason: format!("the keys of {missing} epochs are with the escrow site alone: {why}"),
            next: Some(format!(
                "run `farseal escrow request {pair} --reason ..`; when it is approved, `farseal escrow fetch {pair}`"
            )),
        })
    }

    fn copys_keyring(&self) -> Option<Arc<Keyring>> {
        match self.side() {
            Side::Secondary { replica, .. } => Some(Arc::clone(&replica.keyring)),
            Side::Primary(_) => None,
        }
    }

    pub(super) async fn request_keys(&self, reason: String) -> Result<CommandReply, CommandError> {
        let (line, keyring) = self.line_and_keyring("escrow request")?;
        let missing = keyring.missing();
        let (Some(first), Some(last)) = (missing.first(), missing.last()) else {
            return Ok(CommandReply::new("every key of this copy is here already"));
        };
        let status = self.copy_status().await?;
        let request = Request {
            pair: self.config.id,
            depositor: keyring.signer().fingerprint(),
            first: *first,
            last: *last,
            copy: status.as_ref().map_or(NO_COPY, copy_mark),
            reason,
        };
        let what = format!("{} keys", missing.len());
        self.requested(&line, ToEscrow::Request(request), &what).await
    }

    /// Takes a request to the escrow, and keeps its number.
    pub(super) async fn requested(
        &self,
        line: &EscrowLine,
        request: ToEscrow,
        what: &str,
    ) -> Result<CommandReply, CommandError> {
        let answers = line.ask(request).await.map_err(|error| failed(error.to_string()))?;
        for answer in answers {
            match answer {
                FromEscrow::State { request, state } => {
                    self.keep_made(Made { format: 1, request })?;
                    let pair = &self.config.name;
                    let mut reply = CommandReply::new(format!(
                        "request {request} for {what} is at {}: {}",
                        line.name,
                        state_text(state)
                    ));
                    reply.next = Some(if state == RequestState::Approved {
                        format!("`farseal escrow fetch {pair}`")
                    } else {
                        format!("there, `farseal escrow approve {request}`; then here, `farseal escrow fetch {pair}`")
                    });
                    return Ok(reply);
                }
                FromEscrow::NotTaken(why) => {
                    let next = "see `farseal escrow log` there, and whether the pair's sites are those that it knows";
                    return Err(CommandError::Refused { reason: why.to_string(), next: Some(next.into()) });
                }
                FromEscrow::Receipt(_)
                | FromEscrow::Refused { .. }
                | FromEscrow::Release { .. }
                | FromEscrow::Complete { .. }
                | FromEscrow::Drilled { .. }
                | FromEscrow::Destroyed { .. }
                | FromEscrow::Kept { .. }
                | FromEscrow::Witness(_)
                | FromEscrow::SearchKey { .. }
                | FromEscrow::Opened(_)
                | FromEscrow::OpenedPart(_)
                | FromEscrow::More
                | FromEscrow::Component(_) => {}
            }
        }
        Err(failed("the escrow answered something else".into()))
    }

    pub(super) async fn fetch_keys(&self, wait: bool) -> Result<CommandReply, CommandError> {
        let (line, keyring) = self.line_and_keyring("escrow fetch")?;
        let pair = &self.config.name;
        let ask = format!("`farseal escrow request {pair} --reason ..`");
        let Some(Made { request, .. }) = self.made() else {
            return Err(CommandError::Refused {
                reason: "no keys were asked for".into(),
                next: Some(format!("run {ask}")),
            });
        };
        let (mut after, mut kept, mut searched): (Option<Place>, u64, u64) = (None, 0, 0);
        'ask: loop {
            let fetch = ToEscrow::Fetch { request, after };
            let answers = line.ask(fetch).await.map_err(|error| failed(error.to_string()))?;
            let before = after;
            for answer in answers {
                match answer {
                    FromEscrow::Release { place, bytes } => {
                        after = Some(place);
                        kept += u64::from(self.keep_release(&keyring, &bytes)?);
                    }
                    FromEscrow::SearchKey { place, bytes } => {
                        after = Some(place);
                        searched += u64::from(self.keep_search_release(&keyring, &bytes)?);
                    }
                    FromEscrow::Complete { .. } if searched > 0 => return Ok(self.fetched_search(searched)),
                    FromEscrow::Complete { .. } => {
                        let components = self.fetch_components(&line, &keyring).await?;
                        return Ok(self.fetched(&keyring, kept, components));
                    }
                    FromEscrow::State { state: RequestState::Waiting, .. } if wait => {
                        tokio::time::sleep(LOOK_EVERY).await;
                        continue 'ask;
                    }
                    FromEscrow::State { state, .. } => {
                        let next = match state {
                            RequestState::Waiting => {
                                format!("there, `farseal escrow approve {request}`; then fetch again")
                            }
                            RequestState::Approved => "ask again".to_owned(),
                            RequestState::Denied | RequestState::Expired | RequestState::Unknown => {
                                format!("run {ask}")
                            }
                        };
                        let reason = format!("request {request} at {}: {}", line.name, state_text(state));
                        return Err(CommandError::Refused { reason, next: Some(next) });
                    }
                    FromEscrow::Receipt(_)
                    | FromEscrow::Refused { .. }
                    | FromEscrow::NotTaken(_)
                    | FromEscrow::Drilled { .. }
                    | FromEscrow::Destroyed { .. }
                    | FromEscrow::Kept { .. }
                    | FromEscrow::Witness(_)
                    | FromEscrow::Opened(_)
                    | FromEscrow::OpenedPart(_)
                    | FromEscrow::More
                    | FromEscrow::Component(_) => {}
                }
            }
            if after == before {
                return Err(failed("the escrow sent no more keys and did not say that these were all".into()));
            }
        }
    }

    /// The ciphers that the copy's epochs name and that are not here. How many came.
    async fn fetch_components(&self, line: &EscrowLine, keyring: &Keyring) -> Result<u64, CommandError> {
        let needs_layer = keyring.kept().into_iter().filter(|package| package.descriptor().terms.needs_layer());
        let wanted: BTreeSet<[u8; 32]> = needs_layer.map(|package| package.descriptor().terms.component).collect();
        let mut came = 0;
        for digest in wanted.into_iter().map(Digest).filter(|digest| self.plugins.components.load(*digest).is_err()) {
            if let Some(bytes) = fetch_component(line, digest).await? {
                let kept = self.plugins.components.keep(&bytes).map_err(|error| failed(error.to_string()))?;
                came += u64::from(kept == digest);
            }
        }
        Ok(came)
    }

    fn fetched(&self, keyring: &Keyring, kept: u64, components: u64) -> CommandReply {
        let missing = keyring.missing();
        tracing::warn!(pair = self.config.name, kept, missing = missing.len(), "keys came from the escrow");
        let awaited = self.awaits_keys().is_some();
        let ciphers = if components == 0 { String::new() } else { format!(", and {components} ciphers") };
        let mut reply = CommandReply::new(format!("{kept} keys came from the escrow{ciphers}"));
        reply.next = Some(match missing.first() {
            None if awaited && self.makings.open_awaited() => {
                format!("the copy is open: connect initiators to export {:?}", self.config.volume_name())
            }
            None => format!("every key of this copy is here: `farseal takeover {}`", self.config.name),
            Some(Epoch(first)) => format!(
                "{} keys are still missing, the first is epoch {first}'s: see `farseal escrow log` there",
                missing.len()
            ),
        });
        reply
    }

    /// Whether it was one that was missing. One of an epoch that this copy does not have is none of its business.
    fn keep_release(&self, keyring: &Keyring, bytes: &[u8]) -> Result<bool, CommandError> {
        let release =
            Release::decode(bytes).map_err(|error| failed(format!("a released key cannot be read: {error}")))?;
        let epoch = Epoch(release.scope.epoch);
        let wanted = keyring.package(epoch).and_then(|package| package.receipt().map(|receipt| receipt.deposit));
        if wanted != Some(release.deposit) {
            return Ok(false);
        }
        keyring.keep_release(release).map_err(|error| failed(error.to_string()))?;
        Ok(true)
    }

    pub(super) fn line_and_keyring(
        &self,
        command: &'static str,
    ) -> Result<(Arc<EscrowLine>, Arc<Keyring>), CommandError> {
        let Some(line) = self.makings.escrow_line() else {
            let next = "its keys are here, or nowhere: see `farseal status`".to_owned();
            return Err(CommandError::Refused { reason: "the pair has no escrow site".into(), next: Some(next) });
        };
        let keyring = self.copys_keyring().ok_or_else(|| self.other_side(command, Role::Secondary))?;
        Ok((line, keyring))
    }

    /// How far the copy goes.
    pub(super) async fn mark_of_copy(&self) -> Result<Mark, CommandError> {
        Ok(self.copy_status().await?.as_ref().map_or(NO_COPY, copy_mark))
    }

    pub(super) async fn copy_status(&self) -> Result<Option<CopyStatus>, CommandError> {
        let Side::Secondary { replica, .. } = self.side() else { return Ok(None) };
        Ok(replica.ask(|done| ReplicaEvent::Look { done }).await)
    }

    fn request_file(&self) -> PathBuf {
        self.makings.directory().join("escrow-request.json")
    }

    fn keep_made(&self, made: Made) -> Result<(), CommandError> {
        let bytes = serde_json::to_vec_pretty(&made).unwrap_or_default();
        files::write_atomically(&self.request_file(), &bytes).map_err(|error| failed(error.to_string()))
    }

    fn made(&self) -> Option<Made> {
        let bytes = files::read_if_there(&self.request_file(), REQUEST_BYTES_MAX).ok().flatten()?;
        serde_json::from_slice(&bytes).ok().filter(|made: &Made| made.format == 1)
    }
}

/// A component as the escrow has it, whose digest the caller checks; `None`: it has none.
async fn fetch_component(line: &EscrowLine, digest: Digest) -> Result<Option<Vec<u8>>, CommandError> {
    let mut parts = Parts::default();
    let mut from = 0;
    loop {
        let ask = ToEscrow::AskComponent { digest: digest.0, from };
        let answers = line.ask(ask).await.map_err(|error| failed(error.to_string()))?;
        let part = answers.into_iter().find_map(|answer| {
            let FromEscrow::Component(part) = answer else { return None };
            Some(part).filter(|part| part.digest == digest.0 && part.from == from && !part.bytes.is_empty())
        });
        let Some(part) = part else { return Ok(None) };
        from += u32::try_from(part.bytes.len()).unwrap_or(u32::MAX);
        if let Some((_, bytes)) = parts.add(part).map_err(|error| failed(error.to_string()))? {
            return Ok(Some(bytes));
        }
    }
}

fn copy_mark(status: &CopyStatus) -> Mark {
    Mark { generation: status.generation, through: status.durable, chain: status.chain }
}

fn shown(asked: &Asked, state: RequestState, freshness: Freshness) -> EscrowRequest {
    EscrowRequest {
        id: asked.id,
        at: asked.at,
        site: asked.node.clone(),
        fingerprint: asked.requester.clone(),
        pair: asked.pair.to_string(),
        keys: asked.keys,
        epochs: (asked.first, asked.last),
        through: asked.copy.through,
        freshness,
        search: asked.search.as_ref().map(|search| EscrowSearched {
            field: search.field.clone(),
            value: search.shown(),
            record_blocks: search.record_blocks,
        }),
        reason: asked.reason.clone(),
        state: match state {
            RequestState::Waiting => EscrowRequestState::Waiting,
            RequestState::Approved => EscrowRequestState::Approved,
            RequestState::Denied => EscrowRequestState::Denied,
            RequestState::Expired | RequestState::Unknown => EscrowRequestState::Expired,
        },
        fetched: asked.answer.as_ref().is_some_and(|answer| answer.complete),
    }
}

const fn state_text(state: RequestState) -> &'static str {
    match state {
        RequestState::Waiting => "nobody has approved it yet",
        RequestState::Approved => "it is approved",
        RequestState::Denied => "it was denied",
        RequestState::Expired => {
            "all of it was fetched, the time to fetch is over, or the escrow was restarted: approve it again there"
        }
        RequestState::Unknown => "the escrow does not know it",
    }
}

fn failed(reason: String) -> CommandError {
    CommandError::Failed { reason, next: None }
}
