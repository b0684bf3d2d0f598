//! Every command, in simple and in structured replies.

use std::io::Write;

use farseal::nbd::export::Errno;
use farseal::nbd::limits::{MAX_OPTION_DATA, MAX_OPTIONS, MAX_PAYLOAD};
use farseal::nbd::tls::TlsMode;
use farseal::nbd::wire::{chunk, cmd, cmd_flag, opt, rep};

use crate::client::{Client, Message, request, with_length};
use crate::memory::{Memory, await_counter, serve};

const MIB: usize = 1 << 20;

#[test]
fn what_was_written_is_read_at_any_alignment() {
    let memory = Memory::new(4 * MIB);
    let (_server, address, _) = serve(memory.clone(), TlsMode::Off);
    let mut client = Client::enter(address, false);
    for (offset, len) in [(0_u64, 1_usize), (511, 513), (4095, 4098), (1 << 20, 1 << 20), (77, (1 << 20) + 14)] {
        let data: Vec<u8> = (0..len).map(|index| u8::try_from(index % 251).unwrap()).collect();
        let size = u32::try_from(len).unwrap();
        assert_eq!(client.call(request(cmd::WRITE, cmd_flag::FUA, offset, size), &data), 0);
        assert_eq!(client.call(request(cmd::READ, 0, offset, size), &[]), 0);
        assert!(client.bytes(size) == data, "{len} bytes at {offset}");
    }
    assert_eq!(client.call(request(cmd::FLUSH, 0, 0, 0), &[]), 0);
    assert_eq!(memory.flushes(), 1);
}

#[test]
fn a_sparse_read_comes_as_joined_data_and_holes() {
    let (_server, address, _) = serve(Memory::new(MIB), TlsMode::Off);
    let mut client = Client::enter(address, true);
    assert_eq!(client.call(request(cmd::WRITE, 0, 8192, 8192), &[9; 8192]), 0);
    let read = request(cmd::READ, 0, 0, 32768);
    client.send(read, &[]);
    let hole = |offset: u64, len: u32| [&offset.to_be_bytes()[..], &len.to_be_bytes()].concat();
    let data = [&8192_u64.to_be_bytes()[..], &[9; 8192]].concat();
    assert_eq!(client.receive(), Message::Chunk(read.cookie, false, chunk::OFFSET_HOLE, hole(0, 8192)));
    assert_eq!(client.receive(), Message::Chunk(read.cookie, false, chunk::OFFSET_DATA, data));
    assert_eq!(client.receive(), Message::Chunk(read.cookie, true, chunk::OFFSET_HOLE, hole(16384, 16384)));
}

#[test]
fn an_unfragmented_read_is_one_chunk_with_its_zeroes() {
    let (_server, address, _) = serve(Memory::new(MIB), TlsMode::Off);
    let mut client = Client::enter(address, true);
    assert_eq!(client.call(request(cmd::WRITE, 0, 8192, 4096), &[9; 4096]), 0);
    let read = request(cmd::READ, cmd_flag::DF, 0, 1 << 20);
    client.send(read, &[]);
    let Message::Chunk(_, true, chunk::OFFSET_DATA, data) = client.receive() else { panic!("one chunk of data") };
    let expected = [&[0; 8 + 8192][..], &[9; 4096], &[0; MIB - 12288]].concat();
    assert!(data == expected);
}

#[test]
fn block_status_answers_each_chosen_context() {
    let (_server, address, _) = serve(Memory::new(MIB), TlsMode::Off);
    let mut client = Client::connect(address);
    client.option(opt::STRUCTURED_REPLY, &[]);
    let queries = [&2_u32.to_be_bytes()[..], &with_length("base:allocation", &[]), &with_length("farseal:test", &[])];
    let chosen = client.option(opt::SET_META_CONTEXT, &with_length("", &queries.concat()));
    assert_eq!(
        chosen.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(),
        [rep::META_CONTEXT, rep::META_CONTEXT, rep::ACK]
    );
    client.go("");
    assert_eq!(client.call(request(cmd::WRITE, 0, 4096, 4096), &[1; 4096]), 0);
    let words = |list: &[u32]| list.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    let status = request(cmd::BLOCK_STATUS, 0, 0, 16384);
    client.send(status, &[]);
    let base = words(&[0, 4096, 3, 4096, 0, 8192, 3]);
    let test = words(&[1, 4096, 19, 4096, 16, 8192, 19]);
    assert_eq!(client.receive(), Message::Chunk(status.cookie, false, chunk::BLOCK_STATUS, base));
    assert_eq!(client.receive(), Message::Chunk(status.cookie, true, chunk::BLOCK_STATUS, test));
    client.send(request(cmd::BLOCK_STATUS, cmd_flag::REQ_ONE, 0, 16384), &[]);
    let Message::Chunk(_, _, _, one) = client.receive() else { panic!("a chunk") };
    assert_eq!(one, words(&[0, 4096, 3]));
}

#[test]
fn a_refused_write_is_drained_and_the_session_goes_on() {
    for structured in [false, true] {
        let memory = Memory::new(MIB);
        let (server, address, _) = serve(memory.clone(), TlsMode::Off);
        let mut client = Client::enter(address, structured);
        let big = MAX_PAYLOAD + 4096;
        let payload = vec![1; big.try_into().unwrap()];
        for (case, header, expected) in [
            ("beyond the end", request(cmd::WRITE, 0, 1 << 20, 4096), Errno::NoSpc),
            ("across the end", request(cmd::WRITE, 0, (1 << 20) - 1, 200_000), Errno::NoSpc),
            ("too long", request(cmd::WRITE, 0, 0, big), Errno::Inval),
            ("unknown flag", request(cmd::WRITE, 1 << 12, 0, 4096), Errno::Inval),
            ("empty", request(cmd::WRITE, 0, 0, 0), Errno::Inval),
        ] {
            let len = usize::try_from(header.len).unwrap();
            assert_eq!(client.call(header, &payload[..len]), expected.code(), "{case}");
        }
        assert_eq!(client.call(request(99, 0, 0, 1), &[]), Errno::Inval.code());
        assert_eq!(client.call(request(cmd::WRITE_ZEROES, cmd_flag::FAST_ZERO, 0, 4096), &[]), Errno::NotSup.code());
        assert_eq!(client.call(request(cmd::WRITE, 0, 0, 1), &[7]), 0);
        assert_eq!(memory.contents()[..2], [7, 0]);
        await_counter(&server, "refused", 6);
        await_counter(&server, "errors", 1);
    }
}

#[test]
fn a_read_only_export_takes_no_write() {
    let (_server, address, _) = serve(Memory::read_only(MIB), TlsMode::Off);
    let mut client = Client::enter(address, false);
    for command in [cmd::WRITE, cmd::TRIM, cmd::WRITE_ZEROES] {
        let payload: &[u8] = if command == cmd::WRITE { &[0; 4096] } else { &[] };
        assert_eq!(client.call(request(command, 0, 0, 4096), payload), Errno::Perm.code());
    }
    assert_eq!(client.call(request(cmd::READ, 0, 0, 1), &[]), 0);
}

#[test]
fn a_large_write_arrives_whole() {
    let memory = Memory::new(64 * MIB);
    let (_server, address, _) = serve(memory.clone(), TlsMode::Off);
    let mut client = Client::enter(address, true);
    let data: Vec<u8> = (0..48 * MIB).map(|index| u8::try_from(index / 4096 % 253).unwrap()).collect();
    let len = u32::try_from(data.len()).unwrap();
    assert_eq!(client.call(request(cmd::WRITE, 0, 4096, len), &data), 0);
    assert!(memory.contents()[4096..][..data.len()] == data);
}

#[test]
fn requests_in_any_fragments_are_the_same_requests() {
    let memory = Memory::new(MIB);
    let (_server, address, _) = serve(memory.clone(), TlsMode::Off);
    let mut client = Client::enter(address, false);
    let (mut stream, mut model) = (Vec::new(), vec![0; MIB]);
    for round in 0_u8..60 {
        let offset = usize::from(round) * 16_411;
        let len = (usize::from(round) * 7919) % 60_000 + 1;
        let data = vec![round + 1; len];
        let header = request(cmd::WRITE, 0, offset.try_into().unwrap(), len.try_into().unwrap());
        stream.extend(header.encode().into_iter().chain(data.iter().copied()));
        model[offset..offset + len].copy_from_slice(&data);
    }
    let (mut rest, mut step) = (&stream[..], 1_usize);
    while !rest.is_empty() {
        step = step * 31 % 70_001;
        let (now, later) = rest.split_at(step.min(rest.len()));
        client.stream.write_all(now).unwrap();
        rest = later;
    }
    for _ in 0..60 {
        assert!(matches!(client.receive(), Message::Simple(_, 0)));
    }
    assert!(memory.contents() == model);
}

#[test]
fn answers_may_come_in_any_order() {
    let memory = Memory::new(MIB);
    let (_server, address, _) = serve(memory.clone(), TlsMode::Off);
    let mut client = Client::enter(address, false);
    memory.hold();
    let requests = [0_u64, 1, 2, 3].map(|page| request(cmd::WRITE, 0, page * 4096, 4096));
    requests.iter().for_each(|header| client.send(*header, &[1; 4096]));
    memory.await_submitted(4);
    for (request, reply) in memory.take_held().into_iter().rev() {
        reply.done(memory.carry_out(&request));
    }
    for header in requests.iter().rev() {
        assert_eq!(client.receive(), Message::Simple(header.cookie, 0));
    }
}

#[test]
fn an_export_that_answers_nonsense_is_an_io_error() {
    use farseal::nbd::export::{Answer, Piece};
    let memory = Memory::new(MIB);
    let (_server, address, _) = serve(memory.clone(), TlsMode::Off);
    let mut client = Client::enter(address, false);
    for nonsense in [Answer::Done, Answer::Data(vec![0; 3].into()), Answer::Pieces(vec![Piece::Zero(1); 4097])] {
        memory.hold();
        let before = memory.submitted();
        client.send(request(cmd::READ, 0, 0, 4096), &[]);
        memory.await_submitted(before + 1);
        memory.take_held().into_iter().for_each(|(_, reply)| reply.done(Ok(nonsense.clone())));
        assert!(matches!(client.receive(), Message::Simple(_, 5)), "{nonsense:?}");
    }
}

#[test]
fn a_client_that_does_not_speak_nbd_is_dropped() {
    let (server, address, _) = serve(Memory::new(MIB), TlsMode::Off);
    let mut client = Client::enter(address, false);
    client.stream.write_all(&[0xff; 28]).unwrap();
    assert!(client.is_closed());
    await_counter(&server, "protocol_violations", 1);
    let mut client = Client::connect(address);
    client.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(client.is_closed());
    await_counter(&server, "handshakes_failed", 1);
}

#[test]
fn option_data_and_option_count_are_bounded() {
    let (_server, address, _) = serve(Memory::new(MIB), TlsMode::Off);
    let mut client = Client::connect(address);
    let data = vec![0; usize::try_from(MAX_OPTION_DATA).unwrap() + 1];
    assert_eq!(client.option(opt::INFO, &data)[0].0, rep::ERR_TOO_BIG);
    for _ in 1..MAX_OPTIONS {
        assert_eq!(client.option(opt::EXTENDED_HEADERS, &[])[0].0, rep::ERR_UNSUP);
    }
    client.send_option(opt::LIST, &[]);
    assert!(client.is_closed());
}
