//! The encrypt bit of a pair's control information (R19): wherever the two sites disagree about it, nothing is taken in,
//! nothing is offered, and it is said.

use farseal_core::chain::{Chain, Digest};
use farseal_core::frame::{Attach, Refusal};
use farseal_core::record::{Framed, Header, Kind};
use farseal_core::secondary::{Alarm, Input, Output, Recovered, Secondary, Settings};
use farseal_core::units::{
    BlockBytes, BlockCount, Generation, Instant, Lba, Now, PairId, Path, Sequence, VolumeId, WallTime,
};

const NOW: Now = Now { instant: Instant(5), wall: WallTime(5) };
const PATH: Path = Path(0);

fn settings(encrypted: bool) -> Settings {
    Settings {
        layout: None,
        pair: PairId([1; 16]),
        volume: VolumeId([2; 16]),
        encrypted,
        block_bytes: BlockBytes::DEFAULT,
        blocks: BlockCount(100),
    }
}

fn header(sequence: u64, encrypted: bool) -> Header {
    Header {
        kind: Kind::Data,
        encrypted,
        stack: 0,
        search_tags: farseal_core::layout::SearchTags::NONE,
        pair: PairId([1; 16]),
        volume: VolumeId([2; 16]),
        generation: Generation(1),
        sequence: Sequence(sequence),
        lba: Lba(0),
        blocks: 1,
        block_bytes: BlockBytes::DEFAULT,
        wall: WallTime(0),
        aux: 0,
    }
}

/// A site whose log holds records 1, 2, .. with these bits.
fn site(encrypted: bool, log: &[bool]) -> Secondary {
    let above = (1..).zip(log).map(|(sequence, bit)| (header(sequence, *bit), Digest([3; 32]))).collect();
    let recovered = Recovered { generation: Generation(1), chain: Chain::START, above, ..Recovered::fresh() };
    Secondary::new(NOW, settings(encrypted), recovered)
}

fn tell(site: &mut Secondary, input: Input) -> Vec<Output> {
    site.handle(NOW, input);
    std::iter::from_fn(|| site.poll_output()).collect()
}

fn attach(site: &mut Secondary, encrypted: bool) -> Vec<Output> {
    let Settings { pair, volume, block_bytes, blocks, .. } = settings(encrypted);
    let generation = Generation(1);
    let attach = Attach { pair, volume, generation, encrypted, block_bytes, blocks, path: 0, paths: 1, layout: None };
    let mut outputs = tell(site, Input::Attach { path: PATH, attach });
    if outputs.iter().any(|output| matches!(output, Output::PersistGeneration { .. })) {
        outputs = tell(site, Input::GenerationPersisted { generation });
    }
    outputs
}

fn record(site: &mut Secondary, sequence: u64, encrypted: bool) -> Vec<Output> {
    tell(site, Input::Record { path: PATH, header: header(sequence, encrypted), digest: Digest([3; 32]) })
}

fn refused(outputs: &[Output]) -> bool {
    let refuses = |output: &Output| {
        matches!(output, Output::Refuse { refusal: Refusal::EncryptionDiffers, .. })
            || matches!(output, Output::Alarm(Alarm::EncryptionDiffers))
    };
    outputs.iter().any(refuses)
        && !outputs.iter().any(|output| {
            matches!(
                output,
                Output::Welcome { .. } | Output::Store { .. } | Output::Offer { .. } | Output::PersistGeneration { .. }
            )
        })
}

fn alarms(site: &Secondary) -> Vec<Alarm> {
    site.status().alarms.into_iter().map(|(_, alarm)| alarm).collect()
}

#[test]
fn a_pair_goes_on_where_all_four_bits_agree_and_nowhere_else() {
    for bits in 0..16_u8 {
        let [ours, log, peers, records] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
        let mut site = site(ours, &[log]);
        let offered = std::iter::from_fn(|| site.poll_output()).any(|output| matches!(output, Output::Offer { .. }));
        assert_eq!(offered, ours == log, "{bits:04b}: what the log holds is offered where its bit is this site's");
        let outputs = attach(&mut site, peers);
        assert_eq!(refused(&outputs), ours != log || ours != peers, "{bits:04b}: {outputs:?}");
        if ours != log || ours != peers {
            let told = alarms(&site);
            assert_eq!(told.last(), Some(&Alarm::EncryptionDiffers), "{bits:04b}");
            assert_eq!(record(&mut site, 2, records), [], "{bits:04b}: a path that was refused brings nothing");
            continue;
        }
        let outputs = record(&mut site, 2, records);
        assert_eq!(refused(&outputs), records != ours, "{bits:04b}: {outputs:?}");
        let stored = outputs.iter().any(|output| matches!(output, Output::Store { .. }));
        assert_eq!(stored, records == ours, "{bits:04b}");
        assert_eq!(outputs.contains(&Output::ClosePath { path: PATH }), records != ours, "{bits:04b}");
    }
}

#[test]
fn a_peer_that_stops_sealing_in_the_middle_is_dropped_and_what_came_before_stays() {
    let mut site = site(true, &[]);
    assert!(!refused(&attach(&mut site, true)));
    assert!(!refused(&record(&mut site, 1, true)));
    tell(&mut site, Input::LogSynced { stored: 1 });
    assert!(refused(&record(&mut site, 2, false)));
    assert_eq!(record(&mut site, 2, false), [], "its path is closed");
    // It attaches again as what it has become.
    assert!(refused(&attach(&mut site, false)));
    assert_eq!(site.offered(), Sequence(1));
    // And as what it was.
    assert!(!refused(&attach(&mut site, true)));
    assert!(!refused(&record(&mut site, 2, true)));
}

#[test]
fn a_site_whose_setting_is_not_its_logs_is_not_taken_over_until_it_is_set_right() {
    for ours in [false, true] {
        for log in [&[!ours][..], &[ours, !ours], &[!ours, ours]] {
            let mut other = site(ours, log);
            assert_eq!(alarms(&other), [Alarm::EncryptionDiffers]);
            while other.poll_output().is_some() {}
            let outputs = tell(&mut other, Input::TakeOver);
            assert_eq!(outputs, [], "it is said already");
            assert_eq!((other.offered(), other.status().taken_over), (Sequence::NONE, false));
        }
        let mut right = site(ours, &[ours, ours]);
        let outputs = tell(&mut right, Input::TakeOver);
        assert!(outputs.iter().any(|output| matches!(output, Output::PersistGeneration { taken_over: true, .. })));
        assert_eq!(right.offered(), Sequence(2));
    }
}

#[test]
fn a_cleared_bit_is_another_header() {
    // The bit is in what every tag and the running hash cover: with a fitting checksum it is still not the same record.
    let header = header(1, true);
    let stripped = Header { encrypted: false, ..header };
    assert_ne!(header.aad(), stripped.aad());
    assert_ne!(Digest::of(&header.encode(7), b"tags"), Digest::of(&stripped.encode(7), b"tags"));
    let mut flipped = header.encode(7);
    flipped[6] = 0;
    assert!(Framed::decode(&flipped).is_err());
    assert_eq!(Framed::decode(&stripped.encode(7)).unwrap().header, stripped);
}
