//! Every command against every rule, as one table.

use super::*;

const SIZE: u64 = 1 << 20;

fn terms() -> Terms {
    Terms { size: SIZE, read_only: false, structured: true, contexts: vec![ContextId(0)] }
}

fn header(command: u16, flags: u16, offset: u64, len: u32) -> RequestHeader {
    RequestHeader { flags, command, cookie: 7, offset, len }
}

#[test]
fn good_requests_are_admitted_with_their_flags() {
    use cmd_flag::{DF, FAST_ZERO, FUA, NO_HOLE, REQ_ONE};
    let zeroes = |fua, no_hole, fast| Command::WriteZeroes { fua, no_hole, fast };
    for (command, flags, expected) in [
        (cmd::READ, 0, Command::Read { whole: false }),
        (cmd::READ, DF | FUA, Command::Read { whole: true }),
        (cmd::WRITE, 0, Command::Write { fua: false }),
        (cmd::WRITE, FUA, Command::Write { fua: true }),
        (cmd::TRIM, FUA, Command::Trim { fua: true }),
        (cmd::CACHE, 0, Command::Cache),
        (cmd::WRITE_ZEROES, 0, zeroes(false, false, false)),
        (cmd::WRITE_ZEROES, FUA | NO_HOLE | FAST_ZERO, zeroes(true, true, true)),
        (cmd::BLOCK_STATUS, REQ_ONE, Command::BlockStatus { one_only: true }),
    ] {
        for (offset, len) in [(0, 1), (SIZE - 1, 1), (0, 1 << 20), (13, 4097)] {
            let admitted = admit(&header(command, flags, offset, len), &terms());
            assert_eq!(admitted, Ok(expected), "command {command} at {offset}+{len}");
        }
    }
    assert_eq!(admit(&header(cmd::FLUSH, FUA, 0, 0), &terms()), Ok(Command::Flush));
    assert_eq!(admit(&header(cmd::DISC, 0, 0, 0), &terms()), Ok(Command::Disconnect));
}

#[test]
fn bad_requests_are_refused_as_the_protocol_prescribes() {
    let read_only = Terms { read_only: true, ..terms() };
    let simple = Terms { structured: false, ..terms() };
    let blind = Terms { contexts: Vec::new(), ..terms() };
    let huge = Terms { size: u64::MAX, ..terms() };
    let terms = terms();
    let too_long = MAX_PAYLOAD + 1;
    for (case, given, terms, expected) in [
        ("unknown command", header(99, 0, 0, 1), &terms, Errno::Inval),
        ("unknown flag", header(cmd::WRITE, 1 << 9, 0, 1), &terms, Errno::Inval),
        ("flag of another command", header(cmd::WRITE, cmd_flag::DF, 0, 1), &terms, Errno::Inval),
        ("payload length without extended headers", header(cmd::WRITE, 1 << 5, 0, 1), &terms, Errno::Inval),
        ("DF without structured replies", header(cmd::READ, cmd_flag::DF, 0, 1), &simple, Errno::Inval),
        ("status without contexts", header(cmd::BLOCK_STATUS, 0, 0, 1), &blind, Errno::Inval),
        ("flush with a range", header(cmd::FLUSH, 0, 0, 1), &terms, Errno::Inval),
        ("flush with an offset", header(cmd::FLUSH, 0, 1, 0), &terms, Errno::Inval),
        ("empty read", header(cmd::READ, 0, 0, 0), &terms, Errno::Inval),
        ("empty write", header(cmd::WRITE, 0, 0, 0), &terms, Errno::Inval),
        ("read beyond the end", header(cmd::READ, 0, SIZE, 1), &terms, Errno::Inval),
        ("trim beyond the end", header(cmd::TRIM, 0, SIZE - 1, 2), &terms, Errno::Inval),
        ("status beyond the end", header(cmd::BLOCK_STATUS, 0, SIZE, 1), &terms, Errno::Inval),
        ("write beyond the end", header(cmd::WRITE, 0, SIZE - 1, 2), &terms, Errno::NoSpc),
        ("zeroes beyond the end", header(cmd::WRITE_ZEROES, 0, SIZE, 1), &terms, Errno::NoSpc),
        ("a range that overflows", header(cmd::WRITE, 0, u64::MAX, 2), &huge, Errno::NoSpc),
        ("write to a read-only export", header(cmd::WRITE, 0, 0, 1), &read_only, Errno::Perm),
        ("trim of a read-only export", header(cmd::TRIM, 0, 0, 1), &read_only, Errno::Perm),
        ("zeroes to a read-only export", header(cmd::WRITE_ZEROES, 0, 0, 1), &read_only, Errno::Perm),
        ("too long a write", header(cmd::WRITE, 0, 0, too_long), &huge, Errno::Inval),
        ("too long a read", header(cmd::READ, 0, 0, too_long), &huge, Errno::Inval),
        ("too long unfragmented", header(cmd::READ, cmd_flag::DF, 0, too_long), &huge, Errno::Overflow),
    ] {
        assert_eq!(admit(&given, terms).map_err(|refusal| refusal.errno), Err(expected), "{case}");
    }
    let long_trim = header(cmd::TRIM, 0, 0, u32::MAX);
    assert_eq!(admit(&long_trim, &huge), Ok(Command::Trim { fua: false }), "trims have no payload to limit");
}
