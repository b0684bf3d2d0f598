//! A volume of which pairs copy ranges, each to its own partner: one export, whose requests go to whoever has the bytes.
//!
//! A request inside one pair's range is that pair's; what no pair copies goes straight to the volume's home. A request
//! that spans several is split, and answered when all its shares are: well if all are, else with the worst error. As
//! always with a failed write, what its range holds then is not known. A FLUSH covers every share.
//!
//! A pair that is not written here now, because it handed its ranges over or was taken over from, refuses requests there
//! with ESHUTDOWN; the rest of the volume goes on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::{Config, Pair, PairSide, Volume as VolumeConfig};
use crate::lane::state::began;
use crate::nbd::completion::{Outcome, Reply};
use crate::nbd::export::{
    Answer, BASE_ALLOCATION, ContextId, Errno, Export, ExportInfo, Extent, FARSEAL_OWED, Piece, Request,
};
use crate::nbd::registry::Registry;
use crate::plain::PlainVolume;
use crate::range::{Layout, Share};
use crate::store::home::{Home, RawHome};
use crate::store::part::PartHome;

/// The volumes of a node of which pairs copy ranges, by name.
#[derive(Debug, Default)]
pub struct PartedVolumes(BTreeMap<String, Arc<Parted>>);

impl PartedVolumes {
    /// Opens each, and exports it; what pairs copy is refused until they have started.
    pub fn open(config: &Config, exports: &Registry) -> anyhow::Result<Self> {
        let mut opened = BTreeMap::new();
        for volume in &config.volumes {
            let of_it = |pair: &&Pair| {
                !pair.ranges.is_empty()
                    && matches!(&pair.side, PairSide::Primary { volume: name } if *name == volume.name)
            };
            let pairs: Vec<&Pair> = config.pairs.iter().filter(of_it).collect();
            if !pairs.is_empty() {
                let parted = Arc::new(Parted::open(volume, &pairs, &config.node.state_dir)?);
                exports.add(&volume.name, Arc::clone(&parted) as Arc<dyn Export>)?;
                opened.insert(volume.name.clone(), parted);
            }
        }
        Ok(Self(opened))
    }

    /// The volume of a pair that copies ranges of it.
    #[must_use]
    pub fn of(&self, pair: &Pair) -> Option<&Arc<Parted>> {
        self.0.get(pair.volume_name()).filter(|_| pair.is_primary() && !pair.ranges.is_empty())
    }
}

/// See the file.
#[derive(Debug)]
pub struct Parted {
    home: Arc<RawHome>,
    /// Its file was there when the node started.
    pub existed: bool,
    rest: PlainVolume,
    layout: Layout,
    /// By the layout's places.
    pairs: Vec<Place>,
    info: ExportInfo,
}

struct Place {
    pair: String,
    /// What serves it, while this site writes.
    export: Mutex<Option<Arc<dyn Export>>>,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Place").field(&self.pair).finish()
    }
}

impl Parted {
    fn open(volume: &VolumeConfig, pairs: &[&Pair], state_dir: &Path) -> anyhow::Result<Self> {
        let existed = volume.path.exists();
        let begun = pairs.iter().any(|pair| began(&state_dir.join("pairs").join(&pair.name)));
        let home = Arc::new(RawHome::open_known(&volume.path, volume.size.map(|size| size.0), begun)?);
        for pair in pairs {
            let beyond = pair.ranges.iter().find(|range| range.end > home.bytes());
            if let Some(range) = beyond {
                let (name, volume, bytes) = (&pair.name, &volume.name, home.bytes());
                anyhow::bail!("pair {name}: range {range} ends beyond volume {volume}, which has {bytes} bytes");
            }
        }
        let ranges: Vec<_> = pairs.iter().map(|pair| pair.ranges.clone()).collect();
        let layout = Layout::new(home.bytes(), &ranges);
        let whole: Arc<dyn Home> = Arc::clone(&home) as Arc<dyn Home>;
        let info = ExportInfo {
            description: volume.description.clone(),
            size: home.bytes(),
            read_only: false,
            preferred_block: pairs.iter().map(|pair| pair.block_bytes.get()).max().unwrap_or(4096),
        };
        let place = |pair: &&Pair| Place { pair: pair.name.clone(), export: Mutex::default() };
        Ok(Self {
            rest: PlainVolume::new(whole, volume.description.clone()),
            pairs: pairs.iter().map(place).collect(),
            home,
            existed,
            layout,
            info,
        })
    }

    /// The home of a pair.
    #[must_use]
    pub fn part(&self, pair: &Pair) -> PartHome {
        PartHome::new(Arc::clone(&self.home), pair.ranges.clone())
    }

    /// What serves a pair's ranges from now on; `None`: nothing does.
    pub fn set(&self, pair: &str, export: Option<Arc<dyn Export>>) {
        if let Some(place) = self.pairs.iter().find(|place| place.pair == pair) {
            *place.export.lock().unwrap_or_else(PoisonError::into_inner) = export;
        }
    }

    fn export(&self, pair: usize) -> Option<Arc<dyn Export>> {
        self.pairs.get(pair)?.export.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands a request, placed as its taker sees it, to whoever has the bytes.
    fn hand(&self, pair: Option<usize>, request: Request, reply: Reply) {
        match pair.map(|pair| self.export(pair)) {
            None => self.to_rest(request, reply),
            Some(Some(export)) => export.submit(request, reply),
            Some(None) => reply.done(Err(Errno::Shutdown)),
        }
    }

    /// What no pair copies is owed to nobody.
    fn to_rest(&self, request: Request, reply: Reply) {
        if let Request::BlockStatus { context: ContextId(1..), len, .. } = request {
            return reply.done(Ok(Answer::Extents(vec![Extent { len, flags: 0 }])));
        }
        self.rest.submit(request, reply);
    }

    /// A request covers every pair that is written here; what the others were written before is theirs no more.
    fn flush(&self, reply: Reply) {
        let exports: Vec<_> = (0..self.pairs.len()).filter_map(|pair| self.export(pair)).collect();
        let rest = self.layout.has_rest();
        let gather = Gather::new(exports.len() + usize::from(rest), Kind::Other, reply);
        for (part, export) in exports.iter().enumerate() {
            export.submit(Request::Flush, Gather::part(&gather, part));
        }
        if rest {
            self.rest.submit(Request::Flush, Gather::part(&gather, exports.len()));
        }
        if exports.is_empty() && !rest {
            Gather::all(&gather);
        }
    }
}

impl Export for Parted {
    fn info(&self) -> ExportInfo {
        self.info.clone()
    }

    fn contexts(&self) -> Vec<String> {
        [BASE_ALLOCATION, FARSEAL_OWED].map(str::to_owned).into()
    }

    fn submit(&self, request: Request, reply: Reply) {
        let (offset, len) = match &request {
            Request::Flush => return self.flush(reply),
            Request::Write { offset, data, .. } => (*offset, u64::try_from(data.len()).unwrap_or(u64::MAX)),
            Request::Read { offset, len }
            | Request::Cache { offset, len }
            | Request::Trim { offset, len, .. }
            | Request::WriteZeroes { offset, len, .. }
            | Request::BlockStatus { offset, len, .. } => (*offset, u64::from(*len)),
        };
        let mut shares: Vec<Share> = self.layout.shares(offset, len).collect();
        if let Request::BlockStatus { one_only: true, .. } = request {
            shares.truncate(1);
        }
        if let [share] = shares[..] {
            return self.hand(share.pair, of_share(&request, share), reply);
        }
        let kind = match &request {
            Request::Read { .. } => Kind::Read,
            Request::BlockStatus { .. } => Kind::Status(shares.iter().map(|share| share.len).collect()),
            Request::Write { .. }
            | Request::Flush
            | Request::Trim { .. }
            | Request::WriteZeroes { .. }
            | Request::Cache { .. } => Kind::Other,
        };
        let gather = Gather::new(shares.len(), kind, reply);
        for (part, share) in shares.into_iter().enumerate() {
            self.hand(share.pair, of_share(&request, share), Gather::part(&gather, part));
        }
    }

    fn submitted(&self) {
        (0..self.pairs.len()).filter_map(|pair| self.export(pair)).for_each(|export| export.submitted());
    }
}

/// The share of a request, placed as its taker sees it.
fn of_share(request: &Request, share: Share) -> Request {
    let (offset, len) = (share.at, u32::try_from(share.len).unwrap_or(u32::MAX));
    match request {
        Request::Read { .. } => Request::Read { offset, len },
        Request::Write { data, fua, .. } => {
            let narrow = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(data.len());
            Request::Write { offset, data: data.slice(narrow(share.from)..narrow(share.from + share.len)), fua: *fua }
        }
        Request::Flush => Request::Flush,
        Request::Trim { fua, .. } => Request::Trim { offset, len, fua: *fua },
        Request::WriteZeroes { fua, no_hole, fast, .. } => {
            Request::WriteZeroes { offset, len, fua: *fua, no_hole: *no_hole, fast: *fast }
        }
        Request::Cache { .. } => Request::Cache { offset, len },
        Request::BlockStatus { context, one_only, .. } => {
            Request::BlockStatus { context: *context, offset, len, one_only: *one_only }
        }
    }
}

/// The answers to the shares of one request.
struct Gather {
    kind: Kind,
    state: Mutex<Gathered>,
}

struct Gathered {
    outcomes: Vec<Option<Outcome>>,
    missing: usize,
    reply: Option<Reply>,
}

/// What becomes of the answers.
enum Kind {
    Read,
    /// With the shares' lengths.
    Status(Vec<u64>),
    Other,
}

impl Gather {
    fn new(parts: usize, kind: Kind, reply: Reply) -> Arc<Self> {
        let outcomes = (0..parts).map(|_| None).collect();
        Arc::new(Self { kind, state: Mutex::new(Gathered { outcomes, missing: parts, reply: Some(reply) }) })
    }

    /// Takes the answer to one share. One that is dropped unanswered is answered EIO, as any reply is.
    fn part(gather: &Arc<Self>, part: usize) -> Reply {
        let gather = Arc::clone(gather);
        Reply::calling(move |outcome| {
            let mut state = gather.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(place) = state.outcomes.get_mut(part) {
                *place = Some(outcome);
            }
            state.missing -= 1;
            let last = state.missing == 0;
            drop(state);
            if last {
                Self::all(&gather);
            }
        })
    }

    fn all(gather: &Arc<Self>) {
        let (outcomes, reply) = {
            let mut state = gather.state.lock().unwrap_or_else(PoisonError::into_inner);
            (std::mem::take(&mut state.outcomes), state.reply.take())
        };
        let outcomes: Vec<Outcome> = outcomes.into_iter().flatten().collect();
        if let Some(reply) = reply {
            reply.done(together(&gather.kind, outcomes));
        }
    }
}

/// One answer of several: the worst error, or what the parts are together.
fn together(kind: &Kind, outcomes: Vec<Outcome>) -> Outcome {
    let worst = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).max_by_key(|errno| badness(**errno));
    if let Some(worst) = worst {
        return Err(*worst);
    }
    let answers = outcomes.into_iter().filter_map(Result::ok);
    Ok(match kind {
        Kind::Other => Answer::Done,
        Kind::Read => Answer::Pieces(
            answers
                .flat_map(|answer| match answer {
                    Answer::Data(bytes) => vec![Piece::Data(bytes)],
                    Answer::Pieces(pieces) => pieces,
                    Answer::Done | Answer::Extents(_) => Vec::new(),
                })
                .collect(),
        ),
        Kind::Status(lengths) => {
            let mut extents = Vec::new();
            for (answer, len) in answers.zip(lengths) {
                let Answer::Extents(part) = answer else { break };
                let covered: u64 = part.iter().map(|extent| u64::from(extent.len)).sum();
                extents.extend(part);
                // A client asks again from the end of what it was told.
                if covered < *len {
                    break;
                }
            }
            Answer::Extents(extents)
        }
    })
}

/// Which error says most of what an initiator must know: that its data may be gone, before that nobody serves it, before
/// that there is no room, before all that only says what cannot be.
fn badness(errno: Errno) -> u8 {
    match errno {
        Errno::Io => 5,
        Errno::Shutdown => 4,
        Errno::NoSpc => 3,
        Errno::NoMem => 2,
        Errno::Perm | Errno::Inval | Errno::Overflow | Errno::NotSup => 1,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_split_request_ends_as_badly_as_its_worst_share() {
        let done = || Ok(Answer::Done);
        for (outcomes, expected) in [
            (vec![done(), done()], done()),
            (vec![done(), Err(Errno::NoSpc)], Err(Errno::NoSpc)),
            (vec![Err(Errno::Io), Err(Errno::NoSpc), done()], Err(Errno::Io)),
            (vec![Err(Errno::Perm), Err(Errno::Shutdown)], Err(Errno::Shutdown)),
        ] {
            assert_eq!(together(&Kind::Other, outcomes), expected);
        }
    }

    #[test]
    fn a_split_read_is_put_together_in_order() {
        let data = |byte| Piece::Data(Bytes::from(vec![byte; 2]));
        let parts = vec![Ok(Answer::Data(Bytes::from(vec![1; 2]))), Ok(Answer::Pieces(vec![Piece::Zero(3), data(2)]))];
        assert_eq!(together(&Kind::Read, parts), Ok(Answer::Pieces(vec![data(1), Piece::Zero(3), data(2)])));
    }

    #[test]
    fn a_split_status_ends_where_a_share_says_no_more() {
        let extents = |len| Ok(Answer::Extents(vec![Extent { len, flags: 0 }]));
        let told = |outcomes| match together(&Kind::Status(vec![10, 20, 30]), outcomes).unwrap() {
            Answer::Extents(extents) => extents.iter().map(|extent| extent.len).collect::<Vec<_>>(),
            Answer::Done | Answer::Data(_) | Answer::Pieces(_) => panic!("this is no status"),
        };
        assert_eq!(told(vec![extents(10), extents(20), extents(30)]), [10, 20, 30]);
        assert_eq!(told(vec![extents(10), extents(5), extents(30)]), [10, 5]);
    }

    #[test]
    fn a_share_that_nobody_answers_fails_the_request() {
        let (sender, outcome) = std::sync::mpsc::channel();
        let gather = Gather::new(2, Kind::Other, Reply::calling(move |outcome| sender.send(outcome).unwrap()));
        Gather::part(&gather, 1).done(Ok(Answer::Done));
        assert!(outcome.try_recv().is_err(), "answered before all shares were");
        drop(Gather::part(&gather, 0));
        assert_eq!(outcome.recv().unwrap(), Err(Errno::Io));
    }
}
