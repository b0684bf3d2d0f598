//! The record layout that a pair's two sites declare: where they disagree, nothing is taken in, and it is said

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use farseal_core::chain::Digest;
use farseal_core::frame::{Attach, Refusal};
use farseal_core::layout::{LayoutId, LayoutMark, SearchTags};
use farseal_core::record::{Header, Kind};
use farseal_core::secondary::{Alarm, Input, Output, Recovered, Secondary, Settings};
use farseal_core::units::{
    BlockBytes, BlockCount, Generation, Instant, Lba, Now, PairId, Path, Sequence, VolumeId, WallTime,
};

const NOW: Now = Now { instant: Instant(5), wall: WallTime(5) };
const PATH: Path = Path(0);

fn mark(id: u8, tags: u8) -> LayoutMark {
    LayoutMark { id: LayoutId([id; 16]), tags: SearchTags::new(tags).unwrap() }
}

fn site(layout: Option<LayoutMark>) -> Secondary {
    let settings = Settings {
        pair: PairId([1; 16]),
        volume: VolumeId([2; 16]),
        encrypted: true,
        block_bytes: BlockBytes::DEFAULT,
        blocks: BlockCount(100),
        layout,
    };
    Secondary::new(NOW, settings, Recovered { generation: Generation(1), ..Recovered::fresh() })
}

fn tell(site: &mut Secondary, input: Input) -> Vec<Output> {
    site.handle(NOW, input);
    std::iter::from_fn(|| site.poll_output()).collect()
}

fn attach(layout: Option<LayoutMark>) -> Input {
    let attach = Attach {
        pair: PairId([1; 16]),
        volume: VolumeId([2; 16]),
        generation: Generation(1),
        encrypted: true,
        block_bytes: BlockBytes::DEFAULT,
        blocks: BlockCount(100),
        path: 0,
        paths: 1,
        layout: layout.map(|layout| layout.id),
    };
    Input::Attach { path: PATH, attach }
}

fn record(search_tags: SearchTags) -> Input {
    let header = Header {
        kind: Kind::Data,
        encrypted: true,
        stack: 0,
        search_tags,
        pair: PairId([1; 16]),
        volume: VolumeId([2; 16]),
        generation: Generation(1),
        sequence: Sequence(1),
        lba: Lba(0),
        blocks: 1,
        block_bytes: BlockBytes::DEFAULT,
        wall: WallTime(0),
        aux: 0,
    };
    Input::Record { path: PATH, header, digest: Digest([3; 32]) }
}

#[test]
fn a_pair_goes_on_where_layout_and_tags_agree_and_nowhere_else() {
    let layouts = [None, Some(mark(1, 2)), Some(mark(2, 2)), Some(mark(3, 1))];
    for ours in layouts {
        for theirs in layouts {
            let mut site = site(ours);
            let outputs = tell(&mut site, attach(theirs));
            let refuses = outputs.contains(&Output::Refuse { path: PATH, refusal: Refusal::LayoutDiffers });
            assert_eq!(refuses, ours != theirs, "{ours:?} {theirs:?}: {outputs:?}");
            assert_eq!(outputs.contains(&Output::Alarm(Alarm::LayoutDiffers)), refuses);
            if refuses {
                continue;
            }
            for tags in (0..3).map(|tags| SearchTags::new(tags).unwrap()) {
                let mut site = self::site(ours);
                tell(&mut site, attach(theirs));
                let outputs = tell(&mut site, record(tags));
                let right = tags == ours.map_or(SearchTags::NONE, |layout| layout.tags);
                assert_eq!(outputs.contains(&Output::Store { sequence: Sequence(1) }), right, "{ours:?} {tags:?}");
                assert_eq!(outputs.contains(&Output::Alarm(Alarm::LayoutDiffers)), !right, "{outputs:?}");
            }
        }
    }
}
