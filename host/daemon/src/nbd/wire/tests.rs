//! Decoders against tables and against anything at all.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use proptest::prelude::*;

#[test]
fn the_greeting_is_fixed_newstyle() {
    assert_eq!(&greeting(), b"NBDMAGICIHAVEOPT\x00\x03");
}

#[test]
fn client_flags_beyond_the_offered_are_malformed() {
    let decode = |flags: u32| ClientFlags::decode(flags.to_be_bytes());
    assert_eq!(decode(0), Ok(ClientFlags { fixed: false, no_zeroes: false }));
    assert_eq!(decode(3), Ok(ClientFlags { fixed: true, no_zeroes: true }));
    assert_eq!(decode(4), Err(Malformed::ClientFlags(4)));
    assert_eq!(decode(1 << 31), Err(Malformed::ClientFlags(1 << 31)));
}

#[test]
fn wrong_magic_is_malformed() {
    assert_eq!(RequestHeader::decode(&[0; REQUEST_BYTES]), Err(Malformed::RequestMagic(0)));
    assert_eq!(OptionHeader::decode(&[0xff; OPTION_BYTES]), Err(Malformed::OptionMagic(u64::MAX)));
}

#[test]
fn info_queries_decode_or_are_refused() {
    let good = InfoQuery { name: "vol".to_owned(), facts: vec![1, 3] };
    for (case, data, expected) in [
        ("good", &b"\0\0\0\x03vol\0\x02\0\x01\0\x03"[..], Some(good)),
        ("default export", b"\0\0\0\0\0\0", Some(InfoQuery { name: String::new(), facts: vec![] })),
        ("empty", b"", None),
        ("name longer than the data", b"\0\0\0\x09vol\0\0", None),
        ("name of 4 GiB", b"\xff\xff\xff\xffvol\0\0", None),
        ("fewer facts than counted", b"\0\0\0\0\0\x02\0\x01", None),
        ("bytes left over", b"\0\0\0\0\0\0\0", None),
        ("not UTF-8", b"\0\0\0\x01\xff\0\0", None),
    ] {
        assert_eq!(InfoQuery::decode(data), expected, "{case}");
    }
}

#[test]
fn context_queries_decode_or_are_refused() {
    let query = |queries: &[&str]| {
        Some(ContextQuery { name: "v".to_owned(), queries: queries.iter().map(|&query| query.to_owned()).collect() })
    };
    for (case, data, expected) in [
        ("none", &b"\0\0\0\x01v\0\0\0\0"[..], query(&[])),
        ("two", b"\0\0\0\x01v\0\0\0\x02\0\0\0\x02a:\0\0\0\x03b:c", query(&["a:", "b:c"])),
        ("a count beyond the data", b"\0\0\0\x01v\xff\xff\xff\xff", None),
        ("a query beyond the data", b"\0\0\0\x01v\0\0\0\x01\0\0\0\x09a", None),
        ("bytes left over", b"\0\0\0\x01v\0\0\0\0x", None),
    ] {
        assert_eq!(ContextQuery::decode(data), expected, "{case}");
    }
}

#[test]
fn replies_have_the_layout_of_the_protocol() {
    let mut out = Vec::new();
    put_simple_reply(&mut out, 0x0102, 5);
    assert_eq!(out, b"\x67\x44\x66\x98\0\0\0\x05\0\0\0\0\0\0\x01\x02");
    out.clear();
    put_data_chunk(&mut out, 1, true, 2, 3);
    assert_eq!(out, b"\x66\x8e\x33\xef\0\x01\0\x01\0\0\0\0\0\0\0\x01\0\0\0\x0b\0\0\0\0\0\0\0\x02");
    out.clear();
    put_hole_chunk(&mut out, 1, false, 2, 3);
    let hole = b"\x66\x8e\x33\xef\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\x0c\0\0\0\0\0\0\0\x02\0\0\0\x03";
    assert_eq!(out, hole);
    out.clear();
    put_status_chunk(&mut out, 1, true, 9, &[Extent { len: 4, flags: 3 }]);
    let status = b"\x66\x8e\x33\xef\0\x01\0\x05\0\0\0\0\0\0\0\x01\0\0\0\x0c\0\0\0\x09\0\0\0\x04\0\0\0\x03";
    assert_eq!(out, status);
    out.clear();
    put_error_chunk(&mut out, 1, true, Errno::NoSpc, "no");
    let error = b"\x66\x8e\x33\xef\0\x01\x80\x01\0\0\0\0\0\0\0\x01\0\0\0\x08\0\0\0\x1c\0\x02no";
    assert_eq!(out, error);
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(data in prop::collection::vec(any::<u8>(), 0..200)) {
        drop((InfoQuery::decode(&data), ContextQuery::decode(&data), decode_name(&data)));
        if let Some(bytes) = data.first_chunk() {
            let _ = (RequestHeader::decode(bytes), OptionHeader::decode(data.first_chunk().unwrap()));
        }
    }

    #[test]
    fn a_request_survives_the_wire(
        flags: u16, command: u16, cookie: u64, offset: u64, len: u32,
    ) {
        let header = RequestHeader { flags, command, cookie, offset, len };
        prop_assert_eq!(RequestHeader::decode(&header.encode()), Ok(header));
    }
}
