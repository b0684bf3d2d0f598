//! Which bytes of records may cross a trusted fabric as they are, and which are sealed for the way: a record in two parts, and
//! whole again.
//!
//! The body of a data record is what a data key sealed, or what a pair without encryption sends as it is; both are left
//! alone. Everything else says what a record is, where it stands and how a key travels.

use crate::record::{Framed, HEADER_BYTES, Header, HeaderError, Kind};

/// Why parts make no records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JoinError {
    #[error("{0}")]
    Header(#[from] HeaderError),
    #[error("a record's body is cut short")]
    Short,
    #[error("{0} bytes belong to no record")]
    Surplus(usize),
}

/// How much of the record that begins with these bytes is hidden: the rest may go as it is.
///
/// # Errors
/// No record begins here.
pub fn hidden_bytes(record: &[u8]) -> Result<usize, HeaderError> {
    let Framed { header, .. } = Framed::decode(record)?;
    Ok(record.len() - bare_bytes(&header).min(record.len()))
}

fn bare_bytes(header: &Header) -> usize {
    if header.kind == Kind::Data { header.body_bytes() } else { 0 }
}

/// The records whose hidden parts, one behind the other, are `hidden`, and whose bare parts are `bare`.
///
/// # Errors
/// [`JoinError`]: a part is missing, or left over.
pub fn join(mut hidden: &[u8], mut bare: &[u8]) -> Result<Vec<u8>, JoinError> {
    let mut whole = Vec::with_capacity(hidden.len() + bare.len());
    while !hidden.is_empty() {
        let Framed { header, .. } = Framed::decode(hidden)?;
        let open = bare_bytes(&header);
        let (own, rest) = hidden.split_at_checked(HEADER_BYTES + header.body_bytes() - open).ok_or(JoinError::Short)?;
        let (body, later) = bare.split_at_checked(open).ok_or(JoinError::Short)?;
        whole.extend_from_slice(own);
        whole.extend_from_slice(body);
        (hidden, bare) = (rest, later);
    }
    if bare.is_empty() { Ok(whole) } else { Err(JoinError::Surplus(bare.len())) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::tests::sample;

    const KINDS: [Kind; 8] =
        [Kind::Data, Kind::Zero, Kind::Trim, Kind::Key, Kind::Cover, Kind::Void, Kind::Cut, Kind::Gap];

    fn record(kind: Kind, sequence: u64, blocks: u32) -> Vec<u8> {
        let header = sample(kind, sequence, blocks);
        let fill = u8::try_from(sequence % 251).unwrap();
        [header.encode(0).as_slice(), &vec![fill; header.body_bytes()]].concat()
    }

    fn parts(records: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>) {
        let (mut hidden, mut bare) = (Vec::new(), Vec::new());
        for record in records {
            let (own, body) = record.split_at(hidden_bytes(record).unwrap());
            hidden.extend_from_slice(own);
            bare.extend_from_slice(body);
        }
        (hidden, bare)
    }

    #[test]
    fn only_the_body_of_data_goes_as_it_is() {
        for kind in KINDS {
            let record = record(kind, 5, 2);
            let hidden = if kind == Kind::Data { HEADER_BYTES } else { record.len() };
            assert_eq!(hidden_bytes(&record), Ok(hidden), "{kind:?}");
        }
    }

    proptest! {
        #[test]
        fn records_in_two_parts_are_whole_again(kinds in proptest::collection::vec((0..8usize, 1..4u32), 0..12)) {
            let records: Vec<_> = (1..).zip(&kinds).map(|(n, (kind, blocks))| record(KINDS[*kind], n, *blocks)).collect();
            let (hidden, bare) = parts(&records);
            prop_assert_eq!(join(&hidden, &bare), Ok(records.concat()));
        }

        #[test]
        fn a_part_of_another_length_makes_no_records(kinds in proptest::collection::vec(0..8usize, 1..6), cut in 1..200usize) {
            let records: Vec<_> = (1..).zip(&kinds).map(|(n, kind)| record(KINDS[*kind], n, 1)).collect();
            let (hidden, bare) = parts(&records);
            let short = hidden.len().saturating_sub(cut);
            let found = join(&hidden[..short], &bare);
            prop_assert!(found.is_err() || found.unwrap().len() < records.concat().len());
            prop_assert!(bare.is_empty() || join(&hidden, &bare[1..]).is_err());
            prop_assert!(join(&hidden, &[bare, vec![0]].concat()).is_err());
        }

        #[test]
        fn no_bytes_panic(hidden: Vec<u8>, bare: Vec<u8>) {
            let _ = join(&hidden, &bare);
        }
    }
}
