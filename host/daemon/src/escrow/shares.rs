//! The escrow's own key, shared out among people: any `needed` of them together open what was deposited, fewer learn nothing
//! (Shamir, 1979, over GF(256)).
//!
//! The key is made once, in the ceremony `farseal escrow share`; afterwards the node keeps the public half alone. For an
//! approval the shares come together in the running node's memory, and nowhere else.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use getrandom::SysRng;
use hpke::rand_core::UnwrapErr;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use vsss_rs::Gf256;
use zeroize::{Zeroize, Zeroizing};

use crate::keys::capsule::{KEM_SECRET_LEN, KemId, KemSecret};
use crate::keys::wire::{from_hex, to_hex};

/// People at most: a share's number is a byte, and more than a dozen never come together.
pub const SHARES_MAX: u8 = 16;
const FORMAT: u32 = 1;
/// A share is its number and a byte for each of the key's.
const SHARE_LEN: usize = 1 + KEM_SECRET_LEN;
/// Bytes of a share's text at most.
pub const SHARE_TEXT_MAX: u64 = 4096;

/// One person's share. Printed with `{:?}`, it shows its number alone.
pub struct Share {
    /// The escrow's fingerprint, as shown, so that shares of two escrows are not mixed up.
    pub escrow: String,
    /// How many have to come together, and of how many.
    pub needed: u8,
    pub of: u8,
    kem: KemId,
    bytes: Zeroizing<[u8; SHARE_LEN]>,
}

/// What a person keeps of a share, or the part of it that is secret: wiped when it is dropped, and `{:?}` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct ShareText(Zeroizing<String>);

impl From<Zeroizing<String>> for ShareText {
    fn from(text: Zeroizing<String>) -> Self {
        Self(text)
    }
}

impl Deref for ShareText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ShareText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShareText")
    }
}

impl Serialize for ShareText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for ShareText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

/// Why there are no shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    #[error("{needed} of {of} is no way to share a key: 2 to {SHARES_MAX} people, at least 2 of whom are needed")]
    Numbers { needed: u8, of: u8 },
    #[error("{have} shares, and {needed} are needed")]
    TooFew { have: usize, needed: u8 },
    #[error("the shares are of two escrows, of two ceremonies, or one was given twice")]
    Mixed,
    #[error("the shares do not make a key")]
    Unsound,
}

/// Why a text is no share.
#[derive(Debug, thiserror::Error)]
pub enum ShareTextError {
    #[error("this is no share: {0}")]
    Toml(#[from] toml::de::Error),
    #[error("share format {0} is not known to this version, which reads {FORMAT}")]
    Format(u32),
    #[error("field {0} is not sound; the file was changed")]
    Field(&'static str),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Text {
    format: u32,
    escrow: String,
    needed: u8,
    of: u8,
    kem: String,
    share: ShareText,
    check: String,
}

/// Shares a key out: any `needed` of the shares make it again.
///
/// # Errors
/// [`ShareError::Numbers`].
pub fn split(secret: &KemSecret, escrow: &str, needed: u8, of: u8) -> Result<Vec<Share>, ShareError> {
    let sound = (2..=SHARES_MAX).contains(&needed) && (needed..=SHARES_MAX).contains(&of);
    if !sound {
        return Err(ShareError::Numbers { needed, of });
    }
    // getrandom(2) fails on Linux only before the system is up.
    let split = Gf256::split_bytes(usize::from(needed), usize::from(of), secret.expose(), UnwrapErr(SysRng));
    let mut parts = split.map_err(|_| ShareError::Unsound)?;
    let shares = parts.iter().map(|part| {
        let mut bytes = Zeroizing::new([0; SHARE_LEN]);
        if part.len() != SHARE_LEN {
            return Err(ShareError::Unsound);
        }
        bytes.copy_from_slice(part);
        Ok(Share { escrow: escrow.to_owned(), needed, of, kem: secret.kem(), bytes })
    });
    let shares = shares.collect();
    parts.iter_mut().for_each(Zeroize::zeroize);
    shares
}

/// The key that shares make. Whether it is the right one shows in its public half.
///
/// # Errors
/// [`ShareError`].
pub fn combine(shares: &[Share]) -> Result<KemSecret, ShareError> {
    let Some(first) = shares.first() else { return Err(ShareError::TooFew { have: 0, needed: 2 }) };
    if shares.len() < usize::from(first.needed) {
        return Err(ShareError::TooFew { have: shares.len(), needed: first.needed });
    }
    let same = |share: &Share| {
        (&share.escrow, share.needed, share.of, share.kem) == (&first.escrow, first.needed, first.of, first.kem)
    };
    let twice = |at: usize| shares[..at].iter().any(|earlier| earlier.bytes[0] == shares[at].bytes[0]);
    if !shares.iter().all(same) || (0..shares.len()).any(twice) {
        return Err(ShareError::Mixed);
    }
    let mut parts: Vec<Vec<u8>> = shares.iter().map(|share| share.bytes.to_vec()).collect();
    let combined = Gf256::combine_bytes(&parts).map(Zeroizing::new);
    parts.iter_mut().for_each(Zeroize::zeroize);
    let combined = combined.map_err(|_| ShareError::Unsound)?;
    let mut secret = Zeroizing::new([0; KEM_SECRET_LEN]);
    if combined.len() != secret.len() {
        return Err(ShareError::Unsound);
    }
    secret.copy_from_slice(&combined);
    KemSecret::from_stored(first.kem, &secret).map_err(|_| ShareError::Unsound)
}

impl Share {
    /// Which of them it is, from 1.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.bytes[0]
    }

    /// The text that a person keeps. Whoever has enough of them opens the copy.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let share = Zeroizing::new(to_hex(self.bytes.as_slice()));
        let text = toml::to_string(&Text {
            format: FORMAT,
            escrow: self.escrow.clone(),
            needed: self.needed,
            of: self.of,
            kem: self.kem.name().to_owned(),
            check: check(&self.escrow, &share),
            share: share.into(),
        });
        // Plain fields are always TOML.
        Zeroizing::new(format!(
            "# A share of a farseal escrow's key. Keep it apart from the others.\n{}",
            text.unwrap_or_default()
        ))
    }
}

impl FromStr for Share {
    type Err = ShareTextError;

    fn from_str(text: &str) -> Result<Self, ShareTextError> {
        let text: Text = toml::from_str(text)?;
        if text.format != FORMAT {
            return Err(ShareTextError::Format(text.format));
        }
        if text.check != check(&text.escrow, &text.share) {
            return Err(ShareTextError::Field("check"));
        }
        let mut bytes = Zeroizing::new([0; SHARE_LEN]);
        let read = Zeroizing::new(from_hex(&text.share).ok_or(ShareTextError::Field("share"))?);
        if read.len() != SHARE_LEN || read[0] == 0 {
            return Err(ShareTextError::Field("share"));
        }
        bytes.copy_from_slice(&read);
        let kem = KemId::from_name(&text.kem).ok_or(ShareTextError::Field("kem"))?;
        Ok(Self { escrow: text.escrow, needed: text.needed, of: text.of, kem, bytes })
    }
}

/// Typing mistakes show; it is no protection against anyone.
fn check(escrow: &str, share: &str) -> String {
    let digest = Sha256::new().chain_update("farseal v1 share").chain_update(escrow).chain_update(share).finalize();
    to_hex(digest.get(..4).unwrap_or_default())
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").field("number", &self.number()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn shares(needed: u8, of: u8) -> (KemSecret, Vec<Share>) {
        let secret = KemSecret::generate(KemId::MlKem768P256).unwrap();
        let shares = split(&secret, "0123-4567", needed, of).unwrap();
        (secret, shares)
    }

    fn again(share: &Share) -> Share {
        share.to_text().parse().unwrap()
    }

    #[test]
    fn any_so_many_shares_make_the_key_and_fewer_do_not() {
        let (secret, shares) = shares(3, 5);
        let public = secret.public().unwrap();
        for skipped in 0..5 {
            let some: Vec<Share> =
                (0..5).filter(|at| *at != skipped && (*at + 1) % 5 != skipped).map(|at| again(&shares[at])).collect();
            assert_eq!(some.len(), 3);
            assert_eq!(combine(&some).unwrap().public().unwrap(), public);
        }
        let two: Vec<Share> = shares[..2].iter().map(again).collect();
        assert_eq!(combine(&two).unwrap_err(), ShareError::TooFew { have: 2, needed: 3 });
    }

    #[test]
    fn shares_of_two_ceremonies_or_twice_the_same_make_no_key_of_either() {
        let (first, of_first) = shares(2, 3);
        let (second, of_second) = shares(2, 3);
        let made = combine(&[again(&of_first[0]), again(&of_second[1])]).unwrap().public().unwrap();
        assert!(made != first.public().unwrap() && made != second.public().unwrap());
        assert_eq!(combine(&[again(&of_first[0]), again(&of_first[0])]).unwrap_err(), ShareError::Mixed);
    }

    #[test]
    fn a_share_that_was_changed_is_named_and_none_is_printed() {
        let (_, shares) = shares(2, 2);
        let text = shares[0].to_text();
        let at = text.find("share = \"").unwrap() + 12;
        let digit = if text.as_bytes()[at] == b'0' { "1" } else { "0" };
        let changed = format!("{}{digit}{}", &text[..at], &text[at + 1..]);
        assert!(matches!(changed.parse::<Share>().unwrap_err(), ShareTextError::Field("check")));
        assert!(!format!("{:?}", shares[0]).contains(&text[at..at + 16]));
        let answer = crate::control::api::EscrowAnswer {
            request: 1,
            approve: true,
            note: String::new(),
            shares: vec![text.clone().into()],
            although_stale: false,
        };
        assert!(!format!("{answer:?}").contains(&text[at..at + 16]), "an answer that is printed shows its shares");
        let again: crate::control::api::EscrowAnswer =
            serde_json::from_str(&serde_json::to_string(&answer).unwrap()).unwrap();
        assert_eq!(again, answer);
    }

    #[test]
    fn a_key_is_shared_among_at_least_two() {
        let secret = KemSecret::generate(KemId::DhP256).unwrap();
        for (needed, of) in [(0, 3), (1, 3), (4, 3), (2, 17)] {
            assert_eq!(split(&secret, "", needed, of).unwrap_err(), ShareError::Numbers { needed, of });
        }
    }
}
