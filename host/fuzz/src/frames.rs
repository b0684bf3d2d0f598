//! Target: a stream of frames from a peer.

use farseal_core::frame::{Frame, PREFIX_BYTES, Prefix};
use farseal_core::limits::FRAME_BYTES_MAX;

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
        let bytes = frame.encode();
        assert_eq!(bytes[PREFIX_BYTES..], *body, "what decodes encodes to the same bytes: {frame:?}");
        assert_eq!(bytes[..PREFIX_BYTES], *prefix_bytes, "and so does its prefix");
        rest = after;
    }
}
