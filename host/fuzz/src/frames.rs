//! Target: a stream of frames from a peer.

use farseal_core::frame::{Frame, PREFIX_BYTES, Prefix};
use farseal_core::inspect::{Answer, Terms};
use farseal_core::limits::FRAME_BYTES_MAX;
use farseal_core::units::{BlockBytes, BlockCount, Extent, Lba, PairId, VolumeId};

/// Reads frames as a connection does, until something is no frame.
pub(crate) fn run(data: &[u8]) {
    let mut rest = data;
    while let Some((prefix_bytes, after)) = rest.split_first_chunk::<PREFIX_BYTES>() {
        let Ok(prefix) = Prefix::decode(*prefix_bytes) else { return };
        assert!(prefix.body_bytes <= FRAME_BYTES_MAX, "a length that may be allocated");
        let len = usize::try_from(prefix.body_bytes).expect("a length that fits memory");
        let Some((body, after)) = after.split_at_checked(len) else {
            // A body cut short is not a shorter frame.
            return;
        };
        let Ok(frame) = Frame::decode(prefix, body.to_vec()) else { return };
        if let Frame::Held { answer, .. } = &frame {
            read_answer(answer);
        }
        let bytes = frame.encode();
        assert_eq!(bytes[PREFIX_BYTES..], *body, "what decodes encodes to the same bytes: {frame:?}");
        assert_eq!(bytes[..PREFIX_BYTES], *prefix_bytes, "and so does its prefix");
        rest = after;
    }
}

/// As whoever asked about the blocks 5..9 reads it.
fn read_answer(bytes: &[u8]) {
    let block_bytes = BlockBytes::new(512).expect("a block size");
    let terms = Terms { pair: PairId([1; 16]), volume: VolumeId([2; 16]), encrypted: true, block_bytes };
    let extent = Extent::new(Lba(5), BlockCount(4)).expect("an extent");
    let Ok(answer) = Answer::decode(bytes, extent, &terms) else { return };
    let covered: u64 = answer.runs.iter().map(|run| run.blocks.0).sum();
    assert_eq!(covered, extent.blocks().0, "an answer covers what was asked for");
    assert_eq!(Answer::decode(&answer.encode(), extent, &terms), Ok(answer));
}
