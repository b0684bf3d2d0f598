//! `farseal escrow`: being an escrow site, naming one, and getting keys back from it.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use farseal_core::units::{Epoch, WallTime};
use zeroize::Zeroizing;

use super::failure::{Exit, Failure};
use super::pair::{free_name, read_card};
use super::show::line;
use super::{Place, agreed, identity, operate, say, show, wait_for};
use crate::chained::LineHash;
use crate::config::sections::{BEAT, parse_peer_address};
use crate::config::write::{append, escrow_section, peer_section};
use crate::config::{Peer, PeerAddress};
use crate::control::api::{
    EscrowAnswer, EscrowCommand, EscrowRequest, EscrowRequestState, EscrowSearch, EscrowSearched, EscrowView,
    PairCommand,
};
use crate::escrow::mark::Freshness;
use crate::escrow::shares::{SHARE_TEXT_MAX, ShareError, ShareText, split};
use crate::keys::identity::Identity;
use crate::store::files::{DirLock, LockError};

/// `farseal escrow ..`.
#[derive(Debug, Subcommand)]
pub(super) enum EscrowCommands {
    /// Third site: make this node an escrow, which keeps keys and no data.
    Open {
        /// Where sites connect.
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: SocketAddr,
    },
    /// Third site: let a site deposit keys here, and ask for them.
    Admit {
        /// Its card, from `farseal pair card` there.
        card: PathBuf,
    },
    /// Third site: what was asked for, and what is held.
    Requests {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Third site: say yes to a request. Its site may fetch the keys that are held now, for 24 hours.
    Approve(Approve),
    /// Third site: say no, or take a yes back.
    Deny {
        /// Its number.
        request: u64,
        /// For the log.
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Third site: everything that was asked, answered, released and refused.
    Log,
    /// Third site: share this node's key out among people. The node must not run.
    Share(Share),
    /// Main site: name the escrow for `farseal pair create --escrow`.
    Add {
        /// Its card, from `farseal pair card` there.
        card: PathBuf,
        /// Where it listens.
        #[arg(long, value_name = "HOST:PORT", value_parser = parse_peer_address, required = true)]
        address: Vec<PeerAddress>,
    },
    /// Site with a copy: ask the escrow for the keys that a takeover needs.
    Request {
        /// The pair.
        pair: String,
        /// Why, for whoever approves it.
        #[arg(long)]
        reason: String,
        /// Not the keys: only what finds this value of a key field, and the opening of what it finds.
        #[arg(long, value_name = "NAME=VALUE", value_parser = super::search::named)]
        field: Option<(String, String)>,
        /// With --field: only in what these epochs sealed, as 3..7. All that the copy has unless given.
        #[arg(long, value_name = "A..B", value_parser = super::search::epochs, requires = "field")]
        epochs: Option<(Epoch, Epoch)>,
        /// Wait until they are approved and fetched, or denied.
        #[arg(long)]
        wait: bool,
    },
    /// Site with a copy: get the keys of an approved request.
    Fetch {
        /// The pair.
        pair: String,
    },
}

/// `farseal escrow approve`.
#[derive(Debug, Args)]
pub(super) struct Approve {
    /// Its number, as `farseal escrow requests` shows it.
    request: u64,
    /// For the log.
    #[arg(long, default_value = "")]
    note: String,
    /// A person's share of this escrow's key, where it is shared out; once for each person.
    #[arg(long, value_name = "FILE")]
    share: Vec<PathBuf>,
    /// The copy that asks is known to be older than what its main site saw durable there, and is to be opened all the same.
    #[arg(long)]
    although_stale: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// `farseal escrow share`.
#[derive(Debug, Args)]
pub(super) struct Share {
    /// How many people have to come together.
    #[arg(long, value_name = "T")]
    needed: u8,
    /// How many people get a share.
    #[arg(long, value_name = "N")]
    of: u8,
    /// The folder for the share files; take them apart from there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

pub(super) fn escrow(place: &Place, command: EscrowCommands) -> Result<(), Failure> {
    match command {
        EscrowCommands::Open { listen } => open(place, listen),
        EscrowCommands::Admit { card } => admit(place, &card),
        EscrowCommands::Add { card, address } => add(place, &card, address),
        EscrowCommands::Requests { json } => requests(place, json),
        EscrowCommands::Approve(approve) => self::approve(place, &approve),
        EscrowCommands::Deny { request, note } => {
            answer(place, &EscrowAnswer { request, approve: false, note, shares: Vec::new(), although_stale: false })
        }
        EscrowCommands::Log => log(place),
        EscrowCommands::Share(share) => self::share(place, &share),
        EscrowCommands::Request { pair, reason, field, epochs, wait } => {
            let search = field.map(|(field, value)| EscrowSearch { field, value, epochs });
            request(place, &pair, EscrowCommand::Request { reason, search }, wait)
        }
        EscrowCommands::Fetch { pair } => {
            let client = place.client()?;
            let fetch = PairCommand::Escrow(EscrowCommand::Fetch { wait: false });
            operate::print(&wait_for(async { Ok(client.command(&pair, &fetch).await?) })?)
        }
    }
}

fn open(place: &Place, listen: SocketAddr) -> Result<(), Failure> {
    let config = place.config()?;
    if config.escrow.is_some() {
        return Err(Failure::new(
            Exit::Refused,
            "this node is an escrow already",
            "change [escrow] in the configuration",
        ));
    }
    let config = append(&config.file, None, &escrow_section(listen))?;
    say(&format!(
        "this node is an escrow, at {listen}, in {}\nnext: `farseal escrow admit` with the cards of the main and the remote site, then `farseal run`\n",
        config.file.display()
    ))
}

fn admit(place: &Place, card: &Path) -> Result<(), Failure> {
    let config = place.config()?;
    if config.escrow.is_none() {
        let next = "run `farseal escrow open --listen 0.0.0.0:7450` first";
        return Err(Failure::new(Exit::Refused, "this node is no escrow site", next));
    }
    let card = read_card(card)?;
    let fingerprint = card.fingerprint();
    if config.peers.iter().any(|peer| peer.card.fingerprint() == fingerprint) {
        return say(&format!("{} is admitted already\n", card.node));
    }
    let peer = Peer { name: free_name(&config, card.node.as_str()), addresses: Vec::new(), card, beat: BEAT };
    append(&config.file, None, &peer_section(&peer))?;
    say(&format!(
        "{} may deposit keys here, and ask for them\nits fingerprint: {fingerprint}; compare it with what its operator reads out\nnext: start this node, or restart it\n",
        peer.name
    ))
}

fn add(place: &Place, card: &Path, addresses: Vec<PeerAddress>) -> Result<(), Failure> {
    let config = place.config()?;
    let card = read_card(card)?;
    let fingerprint = card.fingerprint();
    if config.peers.iter().any(|peer| peer.card.fingerprint() == fingerprint) {
        return Err(Failure::new(Exit::Refused, "that node is a peer already", "use its name with `--escrow`"));
    }
    let peer = Peer { name: free_name(&config, card.node.as_str()), addresses, card, beat: BEAT };
    append(&config.file, None, &peer_section(&peer))?;
    say(&format!(
        "the escrow {} is known\nits fingerprint: {fingerprint}; compare it with what its operator reads out\nnext: `farseal pair create .. --escrow {}`; a pair that is there already gets escrow = \"{}\" in its section, at both sites\n",
        peer.name, peer.name, peer.name
    ))
}

fn view(place: &Place) -> Result<EscrowView, Failure> {
    let client = place.client()?;
    wait_for(async { Ok(client.escrow().await?) })
}

fn requests(place: &Place, json: bool) -> Result<(), Failure> {
    let view = view(place)?;
    if json {
        let text = serde_json::to_string_pretty(&view).map_err(|error| Failure::of(&error))?;
        return say(&format!("{text}\n"));
    }
    say(&screen(&view))
}

/// What is asked for, as one screen.
fn screen(view: &EscrowView) -> String {
    let mut text = format!("{} keys are held for {}\n", view.keys, view.sites.join(", "));
    if view.shares_needed > 0 {
        let _ =
            writeln!(text, "the key that opens them is shared out: {} people have to bring theirs", view.shares_needed);
    }
    if view.requests.is_empty() {
        text.push_str("no keys were ever asked for\n");
    }
    for request in &view.requests {
        let state = match (request.state, request.fetched) {
            (EscrowRequestState::Denied, true) => "denied after all was fetched",
            (_, true) => "approved, all fetched",
            (EscrowRequestState::Waiting, false) => "WAITS FOR AN ANSWER",
            (EscrowRequestState::Approved, false) => "approved, not fetched yet",
            (EscrowRequestState::Denied, false) => "denied",
            (EscrowRequestState::Expired, false) => "approved once; the time to fetch is over",
        };
        let (first, last) = request.epochs;
        let wanted = match &request.search {
            Some(EscrowSearched { field, value, record_blocks }) => format!(
                "A SEARCH for {}={}, and the records of {record_blocks} blocks that it finds,",
                line(field),
                line(value)
            ),
            None => format!("{} keys,", request.keys),
        };
        let _ = write!(
            text,
            "\nrequest {}: {state}\n  asked     {} by {} ({})\n  for       {wanted} epochs {first} to {last}, of pair {}\n  copy      goes up to record {}: {}\n  reason    {}\n",
            request.id,
            ago(view.now, request.at),
            request.site,
            shown_fingerprint(&request.fingerprint),
            request.pair,
            request.through,
            age(view.now, &request.freshness),
            request.reason,
        );
        if request.search.as_ref().is_some_and(|search| search.record_blocks > 1) {
            text.push_str(
                "  beware    that site says which blocks make a record: beside others it can bring an older one that held the value;\n            \
                 `farseal escrow log` says of each record from when its blocks are\n",
            );
        }
        if request.state == EscrowRequestState::Waiting {
            let _ = writeln!(
                text,
                "  next      `farseal escrow approve {}` or `farseal escrow deny {}`",
                request.id, request.id
            );
        }
    }
    text
}

/// What is known of a copy's age.
fn age(now: WallTime, freshness: &Freshness) -> String {
    match freshness {
        Freshness::Unknown => "its main site never said how far it should".to_owned(),
        Freshness::Fresh => "all that its main site saw durable there".to_owned(),
        Freshness::Behind { generation, through, at } => format!(
            "TOO OLD. Its main site saw record {through} of generation {generation} durable there, {}",
            ago(now, *at)
        ),
        Freshness::Other { at } => {
            format!("ANOTHER HISTORY than its main site sent, as it said {}", ago(now, *at))
        }
    }
}

fn ago(now: WallTime, at: WallTime) -> String {
    format!("{} ago", show::span(now.since(at)))
}

/// As cards show it.
fn shown_fingerprint(hex: &str) -> String {
    let groups: Vec<&str> = (0..8).filter_map(|at| hex.get(at * 4..at * 4 + 4)).collect();
    groups.join("-")
}

fn approve(place: &Place, approve: &Approve) -> Result<(), Failure> {
    let view = view(place)?;
    let Some(request) = view.requests.iter().find(|request| request.id == approve.request) else {
        let next = "`farseal escrow requests` lists them";
        return Err(Failure::new(Exit::Refused, format!("there is no request {}", approve.request), next));
    };
    let question = question(request);
    if !approve.yes && agreed(&question) != Some(true) {
        let next = format!("run `farseal escrow approve {} --yes` if that is what you want", request.id);
        return Err(Failure::new(Exit::Refused, "nothing was released", next));
    }
    let shares = approve.share.iter().map(|file| read_share(file)).collect::<Result<_, _>>()?;
    let Approve { request, note, although_stale, .. } = approve;
    let (request, note, although_stale) = (*request, note.clone(), *although_stale);
    answer(place, &EscrowAnswer { request, approve: true, note, shares, although_stale })
}

/// What a yes means.
fn question(request: &EscrowRequest) -> String {
    let EscrowRequest { site, keys, pair, epochs: (first, last), through, reason, search, .. } = request;
    let what = match search {
        Some(EscrowSearched { field, value, .. }) => {
            format!("what holds {}={} of all that {keys} keys of pair {pair} seal", line(field), line(value))
        }
        None => format!("all that {keys} keys of pair {pair} seal"),
    };
    format!(
        "{site} ({}) will be able to open {what}: the keys that are held here now of epochs {first} to {last}, and none that is deposited \
         later. Its copy goes up to record {through}, as it says. Its reason: {reason}.",
        shown_fingerprint(&request.fingerprint)
    )
}

fn read_share(file: &Path) -> Result<ShareText, Failure> {
    // Room for all of it from the start: growing would leave a part of it behind where it was.
    let most = usize::try_from(SHARE_TEXT_MAX).unwrap_or_default();
    let mut text = Zeroizing::new(String::with_capacity(2 * most));
    let opened = fs::File::open(file).and_then(|file| file.take(SHARE_TEXT_MAX).read_to_string(&mut text));
    opened.map_err(|error| Failure::file(file, &error))?;
    Ok(text.into())
}

fn answer(place: &Place, answer: &EscrowAnswer) -> Result<(), Failure> {
    let client = place.client()?;
    operate::print(&wait_for(async { Ok(client.escrow_answer(answer).await?) })?)
}

/// What a log says of itself.
pub(super) fn log_end(altered: u64, end: LineHash) -> String {
    let warning = match altered {
        0 => String::new(),
        1 => "ALTERED: at one place a line was changed, taken out or put in\n".into(),
        places => format!("ALTERED: at {places} places a line was changed, taken out or put in\n"),
    };
    format!(
        "{warning}the last line's sha256 is {end}: written down elsewhere, it shows whether the log's end is missing\n"
    )
}

fn log(place: &Place) -> Result<(), Failure> {
    let view = view(place)?;
    let mut text = String::new();
    for (at, who, what) in &view.log {
        let _ = writeln!(text, "{:>16}  {who}: {what}", ago(view.now, *at));
    }
    text.push_str(&log_end(view.log_altered, view.log_end));
    say(&text)
}

/// The ceremony: the key that opens deposits leaves the node for good.
fn share(place: &Place, share: &Share) -> Result<(), Failure> {
    let config = place.config()?;
    // A node that runs would go on with the whole key.
    let _stopped = DirLock::take(&config.node.state_dir).map_err(|error| match error {
        LockError::InUse(_) => {
            Failure::new(Exit::Refused, error.to_string(), "stop this node, share its key out, and start it again")
        }
        LockError::Io { .. } => Failure::of(&error),
    })?;
    let identity = identity::load(&config).map_err(|error| Failure::of(&error))?;
    let Some(secret) = identity.kem() else {
        let next = "its people have their shares; a new ceremony needs a new node";
        return Err(Failure::new(Exit::Refused, "this node's key is shared out already", next));
    };
    let provider = identity::provider(&config).map_err(|error| Failure::of(&error))?;
    let question = format!(
        "This node will not be able to open what is deposited here any more: {} of {} people together can, with the files in {}.",
        share.needed,
        share.of,
        share.out.display()
    );
    if !share.yes && agreed(&question) != Some(true) {
        return Err(Failure::new(Exit::Refused, "nothing was changed", "give --yes if that is what you want"));
    }
    let escrow = identity.card().fingerprint().to_string();
    let shares = split(secret, &escrow, share.needed, share.of)
        .map_err(|error: ShareError| Failure::new(Exit::Usage, error.to_string(), "for example --needed 2 --of 3"))?;
    fs::create_dir_all(&share.out).map_err(|error| Failure::file(&share.out, &error))?;
    for each in &shares {
        let file = share.out.join(format!("share-{}.toml", each.number()));
        let mut opened = fs::File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)
            .map_err(|error| Failure::file(&file, &error))?;
        let written = opened.write_all(each.to_text().as_bytes()).and_then(|()| opened.sync_all());
        written.map_err(|error| Failure::file(&file, &error))?;
    }
    let stored = Identity::from_stored(&identity.to_stored()).map_err(|error| Failure::of(&error))?;
    let without = stored.without_kem(share.needed).to_stored();
    provider.store(&without).map_err(|error| Failure::of(&error))?;
    say(&format!(
        "{} shares are in {}: give each to one person, and delete them here\nthis node keeps taking deposits; `farseal escrow approve` needs {} of the shares from now on\nits card stays what it was\n",
        shares.len(),
        share.out.display(),
        share.needed
    ))
}

fn request(place: &Place, pair: &str, ask: EscrowCommand, wait: bool) -> Result<(), Failure> {
    let client = place.client()?;
    let ask = PairCommand::Escrow(ask);
    let fetch = PairCommand::Escrow(EscrowCommand::Fetch { wait: true });
    wait_for(async {
        operate::print(&client.command(pair, &ask).await?)?;
        if wait { operate::print(&client.command(pair, &fetch).await?) } else { Ok(()) }
    })
}

#[cfg(test)]
mod tests {
    use farseal_core::units::Sequence;

    use super::*;

    fn asked(search: Option<EscrowSearched>) -> EscrowRequest {
        EscrowRequest {
            id: 3,
            at: WallTime(0),
            site: "remote".into(),
            fingerprint: "0123456789abcdef".repeat(4),
            pair: "00112233445566778899aabbccddeeff".into(),
            keys: 7,
            epochs: (Epoch(1), Epoch(u64::MAX)),
            through: Sequence(40),
            freshness: Freshness::Fresh,
            search,
            reason: "main is lost".into(),
            state: EscrowRequestState::Waiting,
            fetched: false,
        }
    }

    #[test]
    fn whoever_approves_a_search_for_records_of_several_blocks_reads_what_it_may_open() {
        let searched = |record_blocks| EscrowSearched { field: "name".into(), value: "Meier".into(), record_blocks };
        for (record_blocks, warned) in [(1, false), (4, true)] {
            let view = EscrowView {
                now: WallTime(0),
                keys: 7,
                sites: vec!["main".into()],
                shares_needed: 0,
                requests: vec![asked(Some(searched(record_blocks)))],
                log: Vec::new(),
                log_altered: 0,
                log_end: LineHash::NONE,
            };
            let text = screen(&view);
            assert_eq!(text.contains("it can bring an older one that held the value"), warned, "{text}");
        }
    }

    #[test]
    fn whoever_approves_reads_how_many_keys_go_and_that_none_follows() {
        let search = EscrowSearched { field: "name".into(), value: "Meier".into(), record_blocks: 1 };
        for (search, what) in
            [(None, "open all that 7 keys"), (Some(search), "open what holds name=Meier of all that 7 keys")]
        {
            let question = question(&asked(search));
            assert!(question.contains(what) && question.contains("none that is deposited later"), "{question}");
        }
    }
}
