//! What the escrow answers: a receipt for a deposit that is durable, and keys for a request that a person approved.
//!
//! A key is asked for by the site that deposited it, or by the one that it named as the copy's keeper, and by nobody else. What
//! is released is wrapped anew for the asking site alone; everything that is asked, answered and released is in the audit log.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farseal_core::units::{Epoch, Millis, PairId, WallTime};
use farseal_core::witness::Said as Silence;
use farseal_plugin::Digest;
use farseal_plugin::vault::epoch_key::EpochKey;
use farseal_plugin::vault::schedule::EpochSchedule;
use tokio::sync::Semaphore;

use super::ciphers::Ciphers;
use super::grants::{Grant, Grants};
use super::heard::Heard;
use super::library::Library;
use super::mark::{Freshness, Mark};
use super::records::{LONG_MAX, Line};
use super::search::{AskedSearch, NotOpened};
use super::store::{Answer, Asked, EscrowStore, EscrowStoreError, KeptMark, Log, Logged};
use super::wire::{CELL_BYTES, DepositRefusal, FromEscrow, Place, Request, RequestRefusal, RequestState, ToEscrow};
use crate::keys::capsule::KemSecret;
use crate::keys::card::PeerCard;
use crate::keys::deposit::{Deposit, Receipt, RefusedDeposit, VerifiedDeposit};
use crate::keys::fingerprint::Fingerprint;
use crate::keys::identity::Identity;
use crate::keys::release::{RELEASE_LEN_MAX, Release};
use crate::keys::search_release::{About, SearchRelease};
use crate::keys::wire::to_hex;
use crate::keys::witness::{Question, Statement};
use crate::link::parts::OutOfOrder;

/// Requests without an answer, of all sites: a person has to read them.
const WAITING_MAX: usize = 64;
/// How long keys may be fetched after a yes.
pub const FETCH_WITHIN: Millis = Millis(24 * 3_600 * 1_000);
/// A mark that changes all the time is made durable so often.
const MARK_KEPT_EVERY: Millis = Millis(10_000);
/// Releases in one answer: what surely fits a cell.
const RELEASES_MAX: usize = (CELL_BYTES - 1024) / (RELEASE_LEN_MAX + 64);
/// Deposits that are looked through for one answer: most are for whoever asks.
const LOOK_MAX: usize = 256;

/// An escrow's desk. Calls may run at the same time.
#[derive(Debug)]
pub struct Desk {
    pub(super) identity: Arc<Identity>,
    sites: Vec<PeerCard>,
    pub(super) store: EscrowStore,
    pub(super) library: Library,
    pub(super) ciphers: Ciphers,
    /// Of requests that were approved since the start.
    pub(super) grants: Grants,
    /// The newest marks, by pair and depositing site.
    marks: Mutex<BTreeMap<(PairId, Fingerprint), Seen>>,
    heard: Heard,
    /// Of [`LONG_MAX`].
    places: Arc<Semaphore>,
}

/// A mark in memory.
#[derive(Clone, Copy, Debug)]
struct Seen {
    mark: Mark,
    at: WallTime,
    /// When a mark of the pair was last made durable.
    kept: WallTime,
}

/// What a person says with a yes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Said<'a> {
    /// For the log.
    pub note: &'a str,
    /// That the copy is stale is known, and its keys are to be released all the same.
    pub although_stale: bool,
}

/// Why a person's answer is not taken.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error("there is no request {0}")]
    NoSuchRequest(u64),
    #[error("request {id} was answered already: {answer}")]
    Answered { id: u64, answer: &'static str },
    #[error("this escrow's key is shared out among people: {needed} of them have to bring their shares")]
    SharesNeeded { needed: u8 },
    #[error("the copy that asks {}", stale(.0))]
    Stale(Freshness),
    #[error("the shares do not make this escrow's key: one of them is wrong, or they are of another ceremony")]
    OtherSecret,
    #[error(transparent)]
    Store(#[from] EscrowStoreError),
}

impl Desk {
    #[must_use]
    pub fn new(
        identity: Arc<Identity>,
        sites: Vec<PeerCard>,
        store: EscrowStore,
        (library, ciphers): (Library, Ciphers),
    ) -> Self {
        Self {
            identity,
            sites,
            store,
            library,
            ciphers,
            grants: Grants::default(),
            marks: Mutex::default(),
            heard: Heard::default(),
            places: Arc::new(Semaphore::new(LONG_MAX)),
        }
    }

    /// The site that holds this signing key.
    #[must_use]
    pub fn site(&self, signing: Fingerprint) -> Option<&PeerCard> {
        self.sites.iter().find(|card| card.signing.fingerprint() == signing)
    }

    /// A cell came from a site, full or empty.
    pub fn hear(&self, site: &PeerCard) {
        self.heard.word(site.fingerprint(), std::time::Instant::now());
    }

    /// Answers what a site says in one cell of a line.
    ///
    /// # Errors
    /// [`EscrowStoreError`]: nothing can be kept, so nothing is answered.
    pub fn answer(
        &self,
        site: &PeerCard,
        line: &mut Line,
        said: Vec<ToEscrow>,
        now: WallTime,
    ) -> Result<Vec<FromEscrow>, EscrowStoreError> {
        self.expire(now);
        let mut answers = Vec::new();
        let mut deposits = Vec::new();
        for message in said {
            match message {
                ToEscrow::Deposit(bytes) => deposits.push(bytes),
                ToEscrow::Request(request) => answers.push(self.take_request(site, &request, None, now)?),
                ToEscrow::RequestSearch(request, search) => {
                    answers.push(self.take_request(site, &request, Some(search), now)?);
                }
                ToEscrow::Open(record) => {
                    let opened = self.open_record(site, &record, now)?;
                    answers.push(line.opened(opened));
                }
                ToEscrow::OpenPart(part) => answers.push(match line.take(&self.places, &part) {
                    Ok(Some(whole)) => {
                        let opened = self.open_whole(site, &whole, now)?;
                        line.opened(opened)
                    }
                    Ok(None) => FromEscrow::More,
                    Err(OutOfOrder) => FromEscrow::Opened(Err(NotOpened::Interrupted)),
                }),
                ToEscrow::AskOpened { from } => answers.push(line.opened_from(from)),
                ToEscrow::Fetch { request, after } => self.fetch(site, request, after, now, &mut answers)?,
                ToEscrow::Drill { deposit, challenge } => {
                    let proof = self.drill(site, deposit, &challenge)?;
                    answers.push(FromEscrow::Drilled { deposit, proof });
                }
                ToEscrow::Destroy { deposit } => answers.extend(self.destroy(site, deposit, now)?),
                ToEscrow::Component(part) => {
                    let digest = part.digest;
                    let whole = self.library.take(site.fingerprint(), part);
                    answers.push(FromEscrow::Kept { digest, whole });
                }
                ToEscrow::Mark { pair, mark } => self.take_mark(site, pair, mark, now)?,
                ToEscrow::Beat { every } => self.heard.beat(site.fingerprint(), every),
                ToEscrow::Witness(question) => answers.push(self.witness(site, question, now)?),
                ToEscrow::AskComponent { digest, from } => {
                    answers.push(FromEscrow::Component(self.library.part(Digest(digest), from)));
                }
            }
        }
        self.take_deposits(site, &deposits, now, &mut answers)?;
        Ok(answers)
    }

    /// Forgets what a yes granted when its time is over. Whoever holds a desk calls this now and then, as nobody else may.
    pub fn expire(&self, now: WallTime) {
        self.grants.expire(now);
    }

    /// All requests, oldest first.
    ///
    /// # Errors
    /// [`EscrowStoreError`].
    pub fn requests(&self) -> Result<Vec<Asked>, EscrowStoreError> {
        self.store.requests()
    }

    /// How a request stands, and to whom that is to be said.
    #[must_use]
    pub fn state(&self, asked: &Asked, now: WallTime) -> RequestState {
        match &asked.answer {
            None => RequestState::Waiting,
            Some(answer) if !answer.approved => RequestState::Denied,
            Some(_) if self.grants.in_force(asked.id, now).is_some() => RequestState::Approved,
            Some(_) => RequestState::Expired,
        }
    }

    /// What is known here of the age of the copy that asks.
    ///
    /// # Errors
    /// [`EscrowStoreError`].
    pub fn freshness(&self, asked: &Asked) -> Result<Freshness, EscrowStoreError> {
        let Some(depositor) = fingerprint(&asked.depositor) else { return Ok(Freshness::Unknown) };
        let seen = self.seen(asked.pair, depositor)?;
        Ok(seen.map_or(Freshness::Unknown, |seen| seen.mark.judge(seen.at, &asked.copy)))
    }

    /// How many keys a yes to a request would give now.
    ///
    /// # Errors
    /// [`EscrowStoreError`].
    pub fn keys_now(&self, asked: &Asked) -> Result<u64, EscrowStoreError> {
        Ok(count(&self.held_now(asked)?))
    }

    /// A person says yes to the keys that are held now. With shares where the escrow's key is shared out. A request that expired
    /// may be approved again.
    ///
    /// # Errors
    /// [`AnswerError`]; nothing is released then.
    pub fn approve(
        &self,
        id: u64,
        secret: Option<KemSecret>,
        said: &Said<'_>,
        now: WallTime,
    ) -> Result<Asked, AnswerError> {
        let asked = match self.answerable(id, now)? {
            (_, RequestState::Approved) => return Err(AnswerError::Answered { id, answer: "approved" }),
            (asked, _) => asked,
        };
        let freshness = self.freshness(&asked)?;
        if freshness.is_stale() && !said.although_stale {
            return Err(AnswerError::Stale(freshness));
        }
        let secret = match (secret, self.identity.kem()) {
            (None, Some(_)) => None,
            (None, None) => return Err(AnswerError::SharesNeeded { needed: self.identity.shares_needed() }),
            (Some(secret), _) => {
                let fits = secret.public().is_ok_and(|public| public == self.identity.card().kem);
                Some(Arc::new(Some(secret).filter(|_| fits).ok_or(AnswerError::OtherSecret)?))
            }
        };
        let stale =
            if freshness.is_stale() { format!(" although the copy {}", stale(&freshness)) } else { String::new() };
        let held = self.held_now(&asked)?;
        let asked = Asked { keys: count(&held), ..asked };
        let asked = self.put_answer(asked, (true, "approved"), &format!("{}{stale}", said.note), now)?;
        self.grants.put(id, Grant { secret, held: held.into(), until: WallTime(now.0 + FETCH_WITHIN.0) });
        Ok(asked)
    }

    /// A person says no, or takes a yes back: says whether it was one that was in force.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn deny(&self, id: u64, note: &str, now: WallTime) -> Result<(Asked, bool), AnswerError> {
        let (asked, state) = self.answerable(id, now)?;
        let withdrawn = state == RequestState::Approved;
        // First: it ends also where that cannot be written down.
        self.grants.end(id);
        let word = if withdrawn { "withdrawn" } else { "denied" };
        Ok((self.put_answer(asked, (false, word), note, now)?, withdrawn))
    }

    /// The newest lines of the audit log.
    ///
    /// # Errors
    /// [`EscrowStoreError`].
    pub fn logged(&self, most: usize) -> Result<Log, EscrowStoreError> {
        self.store.logged(most)
    }

    /// Keys that are held.
    ///
    /// # Errors
    /// [`EscrowStoreError`].
    pub fn held(&self) -> Result<u64, EscrowStoreError> {
        self.store.count()
    }

    /// When the site that writes a pair was heard last. Of a site that never spoke of that pair nothing is known.
    fn witness(&self, site: &PeerCard, question: Question, now: WallTime) -> Result<FromEscrow, EscrowStoreError> {
        let spoke = self.seen(question.pair, question.main)?.is_some();
        let said = if spoke { self.heard.said(question.main, std::time::Instant::now()) } else { Silence::NeverHeard };
        self.note(site, now, format!("asks when the main site of pair {} was heard last: {said:?}", question.pair))?;
        let statement = Statement::sign(&self.identity, question, site.fingerprint(), said, now);
        Ok(FromEscrow::Witness(statement.encode()))
    }

    /// Only a newer one counts. On disk it is at most [`MARK_KEPT_EVERY`] behind.
    fn take_mark(&self, site: &PeerCard, pair: PairId, mark: Mark, now: WallTime) -> Result<(), EscrowStoreError> {
        let of = (pair, site.fingerprint());
        let before = self.seen(pair, of.1)?;
        if before.is_some_and(|seen| !mark.is_after(&seen.mark)) {
            return Ok(());
        }
        let same_generation = before.filter(|seen| seen.mark.generation == mark.generation);
        let recent = same_generation.filter(|seen| now.since(seen.kept) < MARK_KEPT_EVERY);
        let kept = match recent {
            Some(seen) => seen.kept,
            None => {
                self.store.keep_mark(pair, of.1, &KeptMark { mark, at: now })?;
                now
            }
        };
        self.marks().insert(of, Seen { mark, at: now, kept });
        Ok(())
    }

    fn seen(&self, pair: PairId, depositor: Fingerprint) -> Result<Option<Seen>, EscrowStoreError> {
        if let Some(seen) = self.marks().get(&(pair, depositor)) {
            return Ok(Some(*seen));
        }
        let kept = self.store.mark(pair, depositor)?;
        Ok(kept.map(|KeptMark { mark, at }| Seen { mark, at, kept: at }))
    }

    fn marks(&self) -> MutexGuard<'_, BTreeMap<(PairId, Fingerprint), Seen>> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request to which no was not said yet, and how it stands.
    fn answerable(&self, id: u64, now: WallTime) -> Result<(Asked, RequestState), AnswerError> {
        let asked = self.store.requests()?.into_iter().find(|asked| asked.id == id);
        let asked = asked.ok_or(AnswerError::NoSuchRequest(id))?;
        match self.state(&asked, now) {
            RequestState::Denied => Err(AnswerError::Answered { id, answer: "denied" }),
            state
            @ (RequestState::Waiting | RequestState::Approved | RequestState::Expired | RequestState::Unknown) => {
                Ok((asked, state))
            }
        }
    }

    fn put_answer(
        &self,
        asked: Asked,
        (approved, word): (bool, &str),
        note: &str,
        now: WallTime,
    ) -> Result<Asked, EscrowStoreError> {
        let what = format!(
            "request {} of {} for {}: {word}{}{note}",
            asked.id,
            asked.node,
            wanted(&asked),
            if note.is_empty() { "" } else { ": " },
        );
        self.store.log(&Logged { at: now, who: "the escrow's operator".into(), what })?;
        // What was fetched before a no stays fetched.
        let complete = !approved && asked.answer.as_ref().is_some_and(|before| before.complete);
        let answer = Some(Answer { approved, at: now, note: note.to_owned(), complete });
        self.store.put_request(Asked { answer, ..asked })
    }

    /// Checks, keeps, then answers.
    fn take_deposits(
        &self,
        site: &PeerCard,
        deposits: &[Vec<u8>],
        now: WallTime,
        answers: &mut Vec<FromEscrow>,
    ) -> Result<(), EscrowStoreError> {
        let mut taken = Vec::new();
        for bytes in deposits {
            match self.check(site, bytes)? {
                Ok((deposit, checked)) => {
                    let (place, pair) = (place(&deposit), PairId(deposit.deposit().terms.scope.pair));
                    let kept = [site.fingerprint().0.as_slice(), bytes].concat();
                    taken.push((pair, place, kept, (deposit, checked)));
                }
                Err((deposit, why)) => {
                    self.note(site, now, format!("a deposit is refused: {why}"))?;
                    answers.push(FromEscrow::Refused { deposit, why });
                }
            }
        }
        if taken.is_empty() {
            return Ok(());
        }
        let kept: Vec<_> = taken.iter().map(|(pair, place, bytes, _)| (*pair, *place, bytes.as_slice())).collect();
        if let Err(error) = self.store.deposit(&kept) {
            tracing::error!(%error, "deposits cannot be kept");
            let why = DepositRefusal::Full;
            answers.extend(taken.iter().map(|(_, place, ..)| FromEscrow::Refused { deposit: place.deposit, why }));
            return Ok(());
        }
        answers.extend(taken.iter().map(|(.., (deposit, checked))| {
            FromEscrow::Receipt(Receipt::sign(&self.identity, deposit.deposit(), *checked, now.0).encode().to_vec())
        }));
        Ok(())
    }

    /// A deposit that may be kept, and whether its key was looked at.
    #[expect(clippy::type_complexity, reason = "a refusal names its deposit")]
    fn check(
        &self,
        site: &PeerCard,
        bytes: &[u8],
    ) -> Result<Result<(VerifiedDeposit, bool), ([u8; 32], DepositRefusal)>, EscrowStoreError> {
        let Ok(deposit) = Deposit::decode(bytes) else { return Ok(Err(([0; 32], DepositRefusal::Unreadable))) };
        let hash = deposit.hash();
        let refused = |why| Ok(Err((hash, why)));
        let deposit = match deposit.verify(site, self.identity.card().fingerprint()) {
            Ok(deposit) => deposit,
            Err(RefusedDeposit::OtherEscrow { .. }) => return refused(DepositRefusal::OtherEscrow),
            Err(_) => return refused(DepositRefusal::Forged),
        };
        if self.store.is_destroyed(hash)? {
            return refused(DepositRefusal::Destroyed);
        }
        match self.identity.kem().map(|secret| deposit.open(secret)) {
            Some(Err(_)) => refused(DepositRefusal::Unopenable),
            Some(Ok(_)) => Ok(Ok((deposit, true))),
            None => Ok(Ok((deposit, false))),
        }
    }

    fn take_request(
        &self,
        site: &PeerCard,
        request: &Request,
        search: Option<AskedSearch>,
        now: WallTime,
    ) -> Result<FromEscrow, EscrowStoreError> {
        let epochs = (request.first, request.last);
        let keys = count(&self.held_for(site, request.depositor, (request.pair, epochs))?);
        if keys == 0 {
            self.note(site, now, format!("asks for keys of pair {} and has none here", request.pair))?;
            return Ok(FromEscrow::NotTaken(RequestRefusal::NothingForYou));
        }
        let all = self.store.requests()?;
        let requester = to_hex(&site.fingerprint().0);
        let same = |asked: &&Asked| {
            asked.requester == requester
                && asked.pair == request.pair
                && asked.depositor == to_hex(&request.depositor.0)
                && (asked.first, asked.last) == (request.first, request.last)
                && asked.search == search
                && matches!(self.state(asked, now), RequestState::Waiting | RequestState::Approved)
        };
        // A copy that is older than the one that asked before is another matter.
        if let Some(asked) = all.iter().rfind(same).filter(|asked| !asked.copy.is_after(&request.copy)) {
            let (request_id, state) = (asked.id, self.state(asked, now));
            if asked.copy != request.copy && state == RequestState::Waiting {
                self.store.put_request(Asked { copy: request.copy, ..asked.clone() })?;
            }
            return Ok(FromEscrow::State { request: request_id, state });
        }
        if all.iter().filter(|asked| asked.answer.is_none()).count() >= WAITING_MAX {
            return Ok(FromEscrow::NotTaken(RequestRefusal::TooMany));
        }
        let asked = self.store.put_request(Asked {
            id: 0,
            at: now,
            requester,
            node: site.node.to_string(),
            pair: request.pair,
            depositor: to_hex(&request.depositor.0),
            first: request.first,
            last: request.last,
            keys,
            copy: request.copy,
            reason: request.reason.clone(),
            search,
            answer: None,
        })?;
        self.note(site, now, format!("request {} for {}: {}", asked.id, wanted(&asked), request.reason))?;
        tracing::warn!(request = asked.id, site = %site.node, keys, "keys are asked for: see `farseal escrow requests`");
        Ok(FromEscrow::State { request: asked.id, state: RequestState::Waiting })
    }

    /// Deposits of a pair that this site may have the keys of, in order.
    fn held_for(
        &self,
        site: &PeerCard,
        depositor: Fingerprint,
        (pair, epochs): (PairId, (Epoch, Epoch)),
    ) -> Result<Vec<Place>, EscrowStoreError> {
        let (mut held, mut after) = (Vec::new(), None);
        loop {
            let found = self.store.deposits(pair, epochs, after, LOOK_MAX)?;
            let Some((last, _)) = found.last() else { return Ok(held) };
            after = Some(*last);
            let mine = found.iter().filter(|(_, kept)| for_whom(kept, site, depositor).is_some());
            held.extend(mine.map(|(place, _)| *place));
        }
    }

    /// Nothing where the asking site is not admitted any more.
    fn held_now(&self, asked: &Asked) -> Result<Vec<Place>, EscrowStoreError> {
        let site = self.sites.iter().find(|card| to_hex(&card.fingerprint().0) == asked.requester);
        match (site, fingerprint(&asked.depositor)) {
            (Some(site), Some(depositor)) => self.held_for(site, depositor, (asked.pair, (asked.first, asked.last))),
            (None, _) | (_, None) => Ok(Vec::new()),
        }
    }

    fn fetch(
        &self,
        site: &PeerCard,
        id: u64,
        after: Option<Place>,
        now: WallTime,
        answers: &mut Vec<FromEscrow>,
    ) -> Result<(), EscrowStoreError> {
        let requester = to_hex(&site.fingerprint().0);
        let asked = self.store.requests()?.into_iter().find(|asked| asked.id == id && asked.requester == requester);
        let Some(asked) = asked else {
            answers.push(FromEscrow::State { request: id, state: RequestState::Unknown });
            return Ok(());
        };
        let state = self.state(&asked, now);
        let grant = self.grants.in_force(id, now).filter(|_| state == RequestState::Approved);
        let Some(grant) = grant else {
            answers.push(FromEscrow::State { request: id, state });
            return Ok(());
        };
        let Some(secret) = grant.secret.as_deref().or(self.identity.kem()) else { return Ok(()) };
        let Some(depositor) = fingerprint(&asked.depositor) else { return Ok(()) };
        let from = grant.next(after);
        let (released, end) = self.release_from(site, (&asked, depositor), (&grant, secret), from, now)?;
        if !self.note_released(site, &asked, (&grant, &(from..end)), now)? {
            let state = self.state(&asked, now);
            answers.push(FromEscrow::State { request: id, state });
            return Ok(());
        }
        // An answer with keys is not the last one: it may be lost with its line, and they are fetched again.
        let last = released.is_empty() && end == grant.held.len();
        answers.extend(released);
        if last {
            self.complete(asked, site, now)?;
            answers.push(FromEscrow::Complete { request: id });
        }
        Ok(())
    }

    /// What fits a cell of a grant's keys from this one on, and where the next ones begin.
    fn release_from(
        &self,
        site: &PeerCard,
        (asked, depositor): (&Asked, Fingerprint),
        (grant, secret): (&Grant, &KemSecret),
        from: usize,
        now: WallTime,
    ) -> Result<(Vec<FromEscrow>, usize), EscrowStoreError> {
        let (mut all, mut tried) = (Vec::new(), 0);
        for (at, place) in grant.held.iter().copied().enumerate().skip(from) {
            if tried == RELEASES_MAX {
                return Ok((all, at));
            }
            // One that was destroyed since the yes is not there any more.
            let kept = self.store.find(place.deposit)?;
            let Some(deposit) = kept.and_then(|kept| for_whom(&kept, site, depositor)) else { continue };
            let released = match &asked.search {
                Some(search) => {
                    let release = self.release_search(deposit, depositor, secret, site, (asked.id, search), now);
                    release.map(|release| FromEscrow::SearchKey { place, bytes: release.encode() })
                }
                None => {
                    let release = self.release(deposit, depositor, secret, site, asked.id, now);
                    release.map(|release| FromEscrow::Release { place, bytes: release.encode() })
                }
            };
            match released {
                Some(released) => all.push(released),
                None => self.note(site, now, format!("the key of epoch {} does not open", place.epoch))?,
            }
            tried += 1;
        }
        Ok((all, grant.held.len()))
    }

    /// Keys are in the log before they leave, whatever the site asks for next. `false`: the yes was taken back meanwhile.
    fn note_released(
        &self,
        site: &PeerCard,
        asked: &Asked,
        (grant, keys): (&Grant, &Range<usize>),
        now: WallTime,
    ) -> Result<bool, EscrowStoreError> {
        let Some(lines) = self.grants.unnoted(asked.id, keys) else { return Ok(false) };
        for line in lines {
            let [Some(first), Some(last)] = [line.start, line.end - 1].map(|at| grant.held.get(at)) else { continue };
            let what = format!(
                "request {}: {} {} to {} of {} of pair {}, epochs {} to {}, are released as far as they open",
                asked.id,
                keys_of(asked),
                line.start + 1,
                line.end,
                grant.held.len(),
                asked.pair,
                first.epoch,
                last.epoch
            );
            self.note(site, now, what)?;
            self.grants.noted(asked.id, &line);
        }
        Ok(true)
    }

    fn release(
        &self,
        deposit: Deposit,
        depositor: Fingerprint,
        secret: &KemSecret,
        site: &PeerCard,
        request: u64,
        now: WallTime,
    ) -> Option<Release> {
        let (deposit, _) = self.verified(deposit, depositor)?;
        let key = deposit.open(secret).ok()?;
        Release::seal(&deposit, &key, &self.identity, site, request, now.0).ok()
    }

    fn release_search(
        &self,
        deposit: Deposit,
        depositor: Fingerprint,
        secret: &KemSecret,
        site: &PeerCard,
        (request, search): (u64, &AskedSearch),
        now: WallTime,
    ) -> Option<SearchRelease> {
        let (scope, hash) = (deposit.terms.scope, deposit.hash());
        let key = self.key_of(deposit, depositor, secret)?;
        let value_key = search.value_key(&EpochSchedule::new(&key, &scope).search());
        let (requester, released_ms) = (site.fingerprint(), now.0);
        let about = About { scope, deposit: hash, requester, request, released_ms, search: search.hash() };
        SearchRelease::seal(about, &value_key, &self.identity, site).ok()
    }

    pub(super) fn key_of(&self, deposit: Deposit, depositor: Fingerprint, secret: &KemSecret) -> Option<EpochKey> {
        self.verified(deposit, depositor)?.0.open(secret).ok()
    }

    /// The file is this node's own; whose deposit it is was proved when it was taken, and is proved again.
    pub(super) fn verified(&self, deposit: Deposit, depositor: Fingerprint) -> Option<(VerifiedDeposit, &PeerCard)> {
        let card = self.sites.iter().find(|card| card.fingerprint() == depositor)?;
        Some((deposit.verify(card, self.identity.card().fingerprint()).ok()?, card))
    }

    fn complete(&self, asked: Asked, site: &PeerCard, now: WallTime) -> Result<(), EscrowStoreError> {
        // Where to begin is the asking site's word: one that begins at the end has fetched nothing.
        let all = self.grants.is_all_noted(asked.id);
        let Some(answer) = asked.answer.clone().filter(|answer| all && !answer.complete) else { return Ok(()) };
        self.note(site, now, format!("request {}: all {} were released", asked.id, released(&asked)))?;
        let (id, searches) = (asked.id, asked.search.is_some());
        self.store.put_request(Asked { answer: Some(Answer { complete: true, ..answer }), ..asked })?;
        // What a search finds is still to be opened.
        if !searches {
            self.grants.end(id);
        }
        Ok(())
    }

    fn drill(
        &self,
        site: &PeerCard,
        deposit: [u8; 32],
        challenge: &[u8; 32],
    ) -> Result<Option<[u8; 32]>, EscrowStoreError> {
        let Some(kept) = self.store.find(deposit)? else { return Ok(None) };
        let Some(found) = for_whom(&kept, site, site.fingerprint()) else { return Ok(None) };
        let (scope, own) = (found.terms.scope, self.identity.card().fingerprint());
        let (Ok(verified), Some(secret)) = (found.verify(site, own), self.identity.kem()) else { return Ok(None) };
        Ok(verified.open(secret).ok().map(|key| EpochSchedule::new(&key, &scope).drill(challenge)))
    }

    /// Only the depositing site may have a key destroyed.
    fn destroy(
        &self,
        site: &PeerCard,
        deposit: [u8; 32],
        now: WallTime,
    ) -> Result<Option<FromEscrow>, EscrowStoreError> {
        if self.store.is_destroyed(deposit)? {
            return Ok(Some(FromEscrow::Destroyed { deposit }));
        }
        let Some(kept) = self.store.find(deposit)? else { return Ok(None) };
        let Some((owner, found)) = split(&kept).filter(|(owner, _)| *owner == site.fingerprint()) else {
            return Ok(None);
        };
        let epoch = Deposit::decode(found).map_or(0, |deposit| deposit.terms.scope.epoch);
        self.store.destroy(deposit, now)?;
        tracing::info!(site = %owner, epoch, "a key was destroyed by its site's word");
        self.note(site, now, format!("the key of epoch {epoch} was destroyed"))?;
        Ok(Some(FromEscrow::Destroyed { deposit }))
    }

    pub(super) fn note(&self, site: &PeerCard, now: WallTime, what: String) -> Result<(), EscrowStoreError> {
        self.store.log(&Logged { at: now, who: format!("{} ({})", site.node, site.fingerprint()), what })
    }
}

/// What is asked for, in the log's words.
fn wanted(asked: &Asked) -> String {
    match &asked.search {
        Some(search) => format!(
            "a search for {}={} in epochs {} to {} of pair {}, and the records of {} blocks that it finds",
            search.field,
            search.shown(),
            asked.first,
            asked.last,
            asked.pair,
            search.record_blocks
        ),
        None => format!("{} keys of pair {}", asked.keys, asked.pair),
    }
}

/// What was released, in the log's words.
fn released(asked: &Asked) -> String {
    format!("{} {} of pair {}", asked.keys, keys_of(asked), asked.pair)
}

fn keys_of(asked: &Asked) -> &'static str {
    if asked.search.is_some() { "search keys" } else { "keys" }
}

/// What a stale copy is, after "the copy that asks".
fn stale(freshness: &Freshness) -> String {
    match freshness {
        Freshness::Behind { generation, through, at } => format!(
            "lacks what its main site saw to be durable there: record {through} of generation {generation}, at {} ms of \
             Unix time; it was put back to an older state, or lost data",
            at.0
        ),
        Freshness::Other { .. } => "has another history than its main site sent".to_owned(),
        Freshness::Fresh | Freshness::Unknown => "is not known to be stale".to_owned(),
    }
}

fn count(held: &[Place]) -> u64 {
    u64::try_from(held.len()).unwrap_or(u64::MAX)
}

fn place(deposit: &VerifiedDeposit) -> Place {
    let deposit = deposit.deposit();
    Place { epoch: Epoch(deposit.terms.scope.epoch), deposit: deposit.hash() }
}

/// The depositor's card, then the deposit.
fn split(kept: &[u8]) -> Option<(Fingerprint, &[u8])> {
    kept.split_first_chunk::<32>().map(|(owner, deposit)| (Fingerprint(*owner), deposit))
}

/// A kept deposit of this depositor, if this site may have its key.
pub(super) fn for_whom(kept: &[u8], site: &PeerCard, depositor: Fingerprint) -> Option<Deposit> {
    let (owner, bytes) = split(kept).filter(|(owner, _)| *owner == depositor)?;
    let deposit = Deposit::decode(bytes).ok()?;
    let card = site.fingerprint();
    (owner == card || deposit.terms.holder == card).then_some(deposit)
}

pub(super) fn fingerprint(hex: &str) -> Option<Fingerprint> {
    crate::keys::wire::from_hex(hex)?.try_into().ok().map(Fingerprint)
}
