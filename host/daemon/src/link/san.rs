//! Frames on a trusted fabric: after the handshake TLS is left, and what a data key sealed already is not sealed twice.
//!
//! ```text
//! frame = head (12 bytes, sealed), tag || hidden part (sealed), tag || bare part
//! head  = the frame's prefix (8) || bytes of the bare part (u32)
//! ```
//!
//! AES-256-GCM under keys from TLS's exporter (RFC 8446 section 7.5), one for each direction; the bare part is the hidden
//! part's associated data, so every byte is authenticated. The nonce counts, and after 2^17 uses the next key is expanded
//! from the last (RFC 5869): a key seals at most 2^17 frames of 2^21 bytes, 2^34 blocks, for which
//! draft-irtf-cfrg-aead-limits 5.1.1 leaves an attacker less than 2^-60; a forger has one attempt, it ends the connection. All of
//! it looks like random bytes, if the pair is encrypted.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use bytes::Bytes;
use farseal_core::bare::{JoinError, hidden_bytes, join};
use farseal_core::frame::{Frame, FrameError, PREFIX_BYTES, Prefix};
use hkdf::Hkdf;
use sha2::Sha256;
use tokio::io::{AsyncRead, AsyncReadExt};
use zeroize::Zeroizing;

use super::session::read_bytes;

/// Bytes of a frame's head on the wire.
const HEAD_BYTES: usize = HEAD_PLAIN + TAG_BYTES;
const HEAD_PLAIN: usize = PREFIX_BYTES + 4;
const TAG_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
/// Uses of one key.
const USES_MAX: u64 = 1 << 17;
/// What TLS exports the keys for.
const LABEL: &[u8] = b"EXPORTER-farseal-san-1";
const NEXT: &[u8] = b"farseal san next key";

/// Why a frame cannot be sealed or is none.
#[derive(Debug, thiserror::Error)]
pub enum SanError {
    #[error("TLS gave no keys for the fabric")]
    NoKeys,
    #[error("the peer did not seal this, or something on the way changed it")]
    Forged,
    #[error("a frame of {whole} bytes with {bare} of them bare")]
    Lengths { whole: u32, bare: u32 },
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("its records: {0}")]
    Records(#[from] JoinError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Keys of one connection.
pub struct Keys {
    bytes: Zeroizing<[u8; 2 * KEY_BYTES]>,
}

impl Keys {
    /// Both ends get the same ones from a handshake, nobody else does.
    ///
    /// # Errors
    /// [`SanError::NoKeys`]: the handshake is not over.
    pub fn export<D>(connection: &rustls::ConnectionCommon<D>) -> Result<Self, SanError> {
        let mut bytes = Zeroizing::new([0; 2 * KEY_BYTES]);
        connection.export_keying_material(bytes.as_mut_slice(), LABEL, None).map_err(|_| SanError::NoKeys)?;
        Ok(Self { bytes })
    }

    /// What the end that connected seals with, and what it opens with.
    ///
    /// # Errors
    /// [`SanError::NoKeys`].
    pub fn connecting(&self) -> Result<(Sealer, Opener), SanError> {
        let (there, back) = self.bytes.split_at(KEY_BYTES);
        Ok((Sealer { key: Key::new(there)?, out: Vec::new() }, Opener { key: Key::new(back)? }))
    }

    /// The same for the other end.
    ///
    /// # Errors
    /// [`SanError::NoKeys`].
    pub fn accepting(&self) -> Result<(Sealer, Opener), SanError> {
        let (there, back) = self.bytes.split_at(KEY_BYTES);
        Ok((Sealer { key: Key::new(back)?, out: Vec::new() }, Opener { key: Key::new(there)? }))
    }
}

/// One direction's end that sends.
pub struct Sealer {
    key: Key,
    /// The frame that is made; its room is used again.
    out: Vec<u8>,
}

impl Sealer {
    /// A frame as it goes out.
    ///
    /// # Errors
    /// [`SanError`].
    pub fn frame(&mut self, frame: &Frame) -> Result<&[u8], SanError> {
        let bytes = frame.encode();
        let (prefix, body) = bytes.split_at_checked(PREFIX_BYTES).ok_or(SanError::NoKeys)?;
        self.seal(prefix, [body].into_iter(), std::iter::empty())
    }

    /// A frame of whole records.
    ///
    /// # Errors
    /// [`SanError`]: these are no records.
    pub fn records(&mut self, records: &[Bytes]) -> Result<&[u8], SanError> {
        let body: usize = records.iter().map(Bytes::len).sum();
        let prefix = Prefix::records(u32::try_from(body).unwrap_or(u32::MAX));
        let mut parts = Vec::with_capacity(records.len());
        for record in records {
            parts.push(record.split_at(hidden_bytes(record).map_err(JoinError::Header)?));
        }
        self.seal(&prefix, parts.iter().map(|(hidden, _)| *hidden), parts.iter().map(|(_, bare)| *bare))
    }

    fn seal<'a>(
        &mut self,
        prefix: &[u8],
        hidden: impl Iterator<Item = &'a [u8]>,
        bare: impl Iterator<Item = &'a [u8]>,
    ) -> Result<&[u8], SanError> {
        self.out.clear();
        self.out.resize(HEAD_BYTES, 0);
        hidden.for_each(|part| self.out.extend_from_slice(part));
        let hidden_end = self.out.len();
        self.out.resize(hidden_end + TAG_BYTES, 0);
        bare.for_each(|part| self.out.extend_from_slice(part));
        let (head, rest) = self.out.split_at_mut(HEAD_BYTES);
        let (hidden, rest) = rest.split_at_mut(hidden_end - HEAD_BYTES);
        let (tag, bare) = rest.split_at_mut(TAG_BYTES);
        let (plain, head_tag) = head.split_at_mut(HEAD_PLAIN);
        plain[..PREFIX_BYTES].copy_from_slice(prefix);
        plain[PREFIX_BYTES..].copy_from_slice(&u32::try_from(bare.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.key.seal(&[], plain, head_tag)?;
        self.key.seal(bare, hidden, tag)?;
        Ok(&self.out)
    }
}

/// One direction's end that takes.
pub struct Opener {
    key: Key,
}

impl Opener {
    /// The next frame. Any error is the connection's end: nothing behind it can be opened.
    ///
    /// # Errors
    /// [`SanError`].
    pub async fn frame(&mut self, from: &mut (impl AsyncRead + Unpin)) -> Result<Frame, SanError> {
        let mut head = [0; HEAD_BYTES];
        from.read_exact(&mut head).await?;
        let mut plain = [0; HEAD_PLAIN];
        let (sealed, tag) = head.split_at(HEAD_PLAIN);
        self.key.open(&[], sealed, tag, &mut plain)?;
        let (mut prefix, mut bare) = ([0; PREFIX_BYTES], [0; 4]);
        prefix.copy_from_slice(&plain[..PREFIX_BYTES]);
        bare.copy_from_slice(&plain[PREFIX_BYTES..]);
        let (prefix, bare) = (Prefix::decode(prefix)?, u32::from_le_bytes(bare));
        let whole = prefix.body_bytes;
        let lengths = SanError::Lengths { whole, bare };
        let hidden_len = whole.checked_sub(bare).filter(|_| bare == 0 || prefix.is_records());
        let hidden_len = hidden_len.and_then(|len| usize::try_from(len).ok()).ok_or(lengths)?;
        let bytes = read_bytes(from, hidden_len + TAG_BYTES + usize::try_from(bare).unwrap_or(usize::MAX)).await?;
        // All of these were read.
        let (sealed, rest) = bytes.split_at(hidden_len);
        let (tag, bare) = rest.split_at(TAG_BYTES);
        let mut hidden = vec![0; hidden_len];
        self.key.open(bare, sealed, tag, &mut hidden)?;
        let body = if prefix.is_records() { join(&hidden, bare)? } else { hidden };
        Ok(Frame::decode(prefix, body)?)
    }
}

/// A direction's key and how often it was used.
struct Key {
    secret: Zeroizing<[u8; KEY_BYTES]>,
    aead: LessSafeKey,
    used: u64,
}

impl Key {
    fn new(secret: &[u8]) -> Result<Self, SanError> {
        let mut own = Zeroizing::new([0; KEY_BYTES]);
        own.copy_from_slice(secret);
        Ok(Self { aead: aead(&own)?, secret: own, used: 0 })
    }

    fn nonce(&mut self) -> Result<Nonce, SanError> {
        if self.used == USES_MAX {
            let mut next = Zeroizing::new([0; KEY_BYTES]);
            let expand = Hkdf::<Sha256>::from_prk(self.secret.as_slice()).map_err(|_| SanError::NoKeys)?;
            expand.expand(NEXT, next.as_mut_slice()).map_err(|_| SanError::NoKeys)?;
            (self.aead, self.secret, self.used) = (aead(&next)?, next, 0);
        }
        let mut nonce = [0; NONCE_LEN];
        nonce[NONCE_LEN - 8..].copy_from_slice(&self.used.to_be_bytes());
        self.used += 1;
        Ok(Nonce::assume_unique_for_key(nonce))
    }

    fn seal(&mut self, aad: &[u8], bytes: &mut [u8], tag: &mut [u8]) -> Result<(), SanError> {
        let nonce = self.nonce()?;
        let made = self.aead.seal_in_place_separate_tag(nonce, Aad::from(aad), bytes).map_err(|_| SanError::NoKeys)?;
        tag.copy_from_slice(made.as_ref());
        Ok(())
    }

    fn open(&mut self, aad: &[u8], sealed: &[u8], tag: &[u8], plain: &mut [u8]) -> Result<(), SanError> {
        let nonce = self.nonce()?;
        self.aead.open_separate_gather(nonce, Aad::from(aad), sealed, tag, plain).map_err(|_| SanError::Forged)
    }
}

fn aead(secret: &[u8; KEY_BYTES]) -> Result<LessSafeKey, SanError> {
    UnboundKey::new(&AES_256_GCM, secret).map(LessSafeKey::new).map_err(|_| SanError::NoKeys)
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(..)")
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("used", &self.key.used).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").field("used", &self.key.used).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use farseal_core::record::{Header, Kind};
    use farseal_core::units::{BlockBytes, Generation, Lba, PairId, Sequence, VolumeId, WallTime};

    use super::*;

    fn ends() -> (Sealer, Opener) {
        let keys = Keys { bytes: Zeroizing::new([7; 2 * KEY_BYTES]) };
        (keys.connecting().unwrap().0, keys.accepting().unwrap().1)
    }

    fn record(kind: Kind, sequence: u64) -> Bytes {
        let header = Header {
            kind,
            encrypted: true,
            stack: 0,
            search_tags: farseal_core::layout::SearchTags::NONE,
            pair: PairId([1; 16]),
            volume: VolumeId([2; 16]),
            generation: Generation(3),
            sequence: Sequence(sequence),
            lba: Lba(u64::from(kind == Kind::Data)),
            blocks: 1,
            block_bytes: BlockBytes::DEFAULT,
            wall: WallTime(4),
            aux: 0,
        };
        [header.encode(0).as_slice(), &vec![0xd5; header.body_bytes()]].concat().into()
    }

    fn opened(opener: &mut Opener, mut bytes: &[u8]) -> Result<Frame, SanError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(opener.frame(&mut bytes))
    }

    #[test]
    fn frames_and_records_come_back_and_only_the_body_of_data_is_seen() {
        let (mut sealer, mut opener) = ends();
        let records = [record(Kind::Data, 1), record(Kind::Key, 2)];
        let sent = sealer.records(&records).unwrap().to_vec();
        let body = records[0].len() - 96;
        assert!(sent.ends_with(&vec![0xd5; body]), "what a data key sealed goes as it is");
        assert!(!sent[..sent.len() - body].windows(4).any(|bytes| bytes == b"FSR1" || bytes == [0xd5; 4]));
        assert_eq!(opened(&mut opener, &sent).unwrap(), Frame::Records(records.concat()));
        let ping = Frame::Ping { token: 9 };
        let sent = sealer.frame(&ping).unwrap().to_vec();
        assert_eq!(opened(&mut opener, &sent).unwrap(), ping);
    }

    #[test]
    fn data_and_a_key_of_its_length_take_the_same_room() {
        let (mut sealer, _) = ends();
        let data = sealer.records(&[record(Kind::Data, 1)]).unwrap().len();
        let key = sealer.records(&[record(Kind::Key, 1)]).unwrap().len();
        assert_eq!(data, key);
    }

    #[test]
    fn every_changed_byte_is_refused() {
        let sent = ends().0.records(&[record(Kind::Data, 1)]).unwrap().to_vec();
        for at in (0..250).chain((250..sent.len()).step_by(97)) {
            let mut changed = sent.clone();
            changed[at] ^= 1;
            assert!(matches!(opened(&mut ends().1, &changed), Err(SanError::Forged)), "byte {at}");
        }
    }

    #[test]
    fn what_is_cut_short_replayed_or_left_out_is_refused() {
        let (mut sealer, mut opener) = ends();
        let [first, second] = [1, 2].map(|token| sealer.frame(&Frame::Ping { token }).unwrap().to_vec());
        assert!(matches!(opened(&mut ends().1, &first[..first.len() - 1]), Err(SanError::Io(_))));
        assert!(matches!(opened(&mut ends().1, &second), Err(SanError::Forged)), "the first is left out");
        opened(&mut opener, &first).unwrap();
        assert!(matches!(opened(&mut opener, &first), Err(SanError::Forged)), "it came already");
    }

    #[test]
    fn what_one_end_sends_cannot_be_sent_back_to_it() {
        let keys = Keys { bytes: Zeroizing::new((0..64).collect::<Vec<u8>>().try_into().unwrap()) };
        let (mut sealer, mut opener) = keys.connecting().unwrap();
        let sent = sealer.frame(&Frame::Ping { token: 1 }).unwrap().to_vec();
        assert!(matches!(opened(&mut opener, &sent), Err(SanError::Forged)));
    }

    #[test]
    fn keys_change_at_both_ends_at_the_same_use() {
        let (mut sealer, mut opener) = ends();
        (sealer.key.used, opener.key.used) = (USES_MAX - 1, USES_MAX - 1);
        for token in 0..3 {
            let sent = sealer.frame(&Frame::Ping { token }).unwrap().to_vec();
            assert_eq!(opened(&mut opener, &sent).unwrap(), Frame::Ping { token });
        }
        assert_eq!(sealer.key.used, 5);
        assert_ne!(*sealer.key.secret, [7; KEY_BYTES]);
    }
}
