//! Connections that vanish, exports that go, servers that stop.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::num::NonZeroUsize;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use farseal::nbd::export::Errno;
use farseal::nbd::limits::MAX_IN_FLIGHT;
use farseal::nbd::pool::Pool;
use farseal::nbd::registry::{AddError, Registry};
use farseal::nbd::server::{Config, Endpoint, Listen, Server};
use farseal::nbd::tls::TlsMode;
use farseal::nbd::wire::{cmd, opt, rep};

use crate::client::{Client, Message, request, with_length};
use crate::memory::{Memory, await_counter, serve, serve_with, stop};

const MIB: usize = 1 << 20;

#[test]
fn a_write_cut_short_is_not_written() {
    let memory = Memory::new(MIB);
    let (server, address, _) = serve(memory.clone(), TlsMode::Off);
    let mut client = Client::enter(address, false);
    client.send(request(cmd::WRITE, 0, 0, 100_000), &[1; 99_999]);
    drop(client);
    await_counter(&server, "connections_open", 0);
    assert_eq!(memory.submitted(), 0);
    assert!(memory.contents().iter().all(|byte| *byte == 0));
    await_counter(&server, "abandoned", 1);
}

#[test]
fn requests_of_a_lost_connection_end_harmlessly() {
    let memory = Memory::new(MIB);
    let (server, address, _) = serve(memory.clone(), TlsMode::Off);
    let mut client = Client::enter(address, false);
    memory.hold();
    (0..5).for_each(|page| client.send(request(cmd::WRITE, 0, page * 4096, 4096), &[1; 4096]));
    memory.await_submitted(5);
    drop(client);
    await_counter(&server, "abandoned", 5);
    for (request, reply) in memory.take_held() {
        reply.done(memory.carry_out(&request));
    }
    assert_eq!(Client::enter(address, false).call(request(cmd::FLUSH, 0, 0, 0), &[]), 0);
}

#[test]
fn requests_in_flight_are_bounded_and_the_rest_follows() {
    let memory = Memory::new(MIB);
    let (_server, address, _) = serve(memory.clone(), TlsMode::Off);
    let mut client = Client::enter(address, false);
    memory.hold();
    (0..200).for_each(|page| client.send(request(cmd::READ, 0, page * 4096, 4096), &[]));
    memory.await_submitted(MAX_IN_FLIGHT);
    // A second connection's answer shows that the first one is not merely slow to be read.
    let mut other = Client::enter(address, false);
    other.send(request(cmd::FLUSH, 0, 0, 0), &[]);
    memory.await_submitted(MAX_IN_FLIGHT + 1);
    assert_eq!(memory.submitted(), MAX_IN_FLIGHT + 1);
    for (request, reply) in memory.take_held() {
        reply.done(memory.carry_out(&request));
    }
    for _ in 0..200 {
        assert!(matches!(client.receive(), Message::Simple(_, 0)));
        client.bytes(4096);
    }
}

#[test]
fn bytes_in_flight_are_bounded() {
    let memory = Memory::new(64 * MIB);
    let (_server, address, _) = serve(memory.clone(), TlsMode::Off);
    let mut client = Client::enter(address, false);
    memory.hold();
    (0..4).for_each(|_| client.send(request(cmd::READ, 0, 0, 32 << 20), &[]));
    client.send(request(cmd::FLUSH, 0, 0, 0), &[]);
    memory.await_submitted(2);
    let mut other = Client::enter(address, false);
    other.send(request(cmd::FLUSH, 0, 0, 0), &[]);
    memory.await_submitted(3);
    assert_eq!(memory.submitted(), 3);
    drop(memory.take_held());
    // Each dropped reply makes room for what waits, whose answer may overtake the next one's.
    let (mut dropped, mut read, mut flushed) = (0, 0, 0);
    for _ in 0..5 {
        match client.receive() {
            Message::Simple(0, 5) => dropped += 1,
            Message::Simple(0, 0) => {
                client.bytes(32 << 20);
                read += 1;
            }
            Message::Simple(_, 0) => flushed += 1,
            other @ (Message::Simple(..) | Message::Chunk(..)) => panic!("{other:?}"),
        }
    }
    assert_eq!((dropped, read, flushed), (2, 2, 1), "a dropped reply is EIO");
    assert_eq!(memory.submitted(), 6);
}

/// The payload of each connection had a bound, and that of all together had none.
#[test]
fn connections_together_hold_a_bounded_payload_and_whoever_asks_for_little_is_answered() {
    let memory = Memory::new(64 * MIB);
    let config = Config { threads: NonZeroUsize::new(1), payload_bytes: 64 * MIB, ..Config::default() };
    let (_server, address, _) = serve_with(memory.clone(), TlsMode::Off, config);
    memory.hold();
    let mut greedy: Vec<_> = (0..5).map(|_| Client::enter(address, false)).collect();
    greedy.iter_mut().for_each(|client| client.send(request(cmd::READ, 0, 0, 32 << 20), &[]));
    memory.await_submitted(2);
    // On the one thread those before it were looked at first.
    let mut small = Client::enter(address, false);
    small.send(request(cmd::READ, 0, 0, 4096), &[]);
    memory.await_submitted(3);
    assert_eq!(memory.submitted(), 3);
    for (request, reply) in memory.take_held() {
        reply.done(memory.carry_out(&request));
    }
    assert_eq!(small.receive(), Message::Simple(request(cmd::READ, 0, 0, 0).cookie, 0));
    small.bytes(4096);
    // What is read makes room.
    memory.hold();
    for done in 0..2 {
        let mut read = greedy.remove(first_answered(&greedy));
        assert_eq!(read.receive(), Message::Simple(request(cmd::READ, 0, 0, 0).cookie, 0));
        read.bytes(32 << 20);
        memory.await_submitted(4 + done);
    }
    assert_eq!(memory.submitted(), 5);
}

/// Which of them has something to read.
fn first_answered(clients: &[Client<TcpStream>]) -> usize {
    loop {
        for (place, client) in clients.iter().enumerate() {
            client.stream.set_nonblocking(true).unwrap();
            let found = client.stream.peek(&mut [0]).is_ok();
            client.stream.set_nonblocking(false).unwrap();
            if found {
                return place;
            }
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_client_that_takes_no_reply_is_ended_and_its_room_is_anothers() {
    let memory = Memory::new(64 * MIB);
    let patience = Duration::from_secs(1);
    let config = Config { payload_bytes: 64 * MIB, patience, ..Config::default() };
    let (server, address, _) = serve_with(memory.clone(), TlsMode::Off, config);
    let mut deaf = Client::enter(address, false);
    deaf.send(request(cmd::READ, 0, 0, 64 << 20), &[]);
    memory.await_submitted(1);
    // Half a payload holds as much.
    let mut waits = Client::enter(address, false);
    waits.send(request(cmd::WRITE, 0, 0, 64 << 20), &[1; 4096]);
    await_counter(&server, "connections_open", 1);
    let mut reads = Client::enter(address, false);
    reads.send(request(cmd::READ, 0, 0, 64 << 20), &[]);
    memory.await_submitted(2);
    await_counter(&server, "connections_open", 1);
}

#[test]
fn a_request_after_a_burst_is_taken_though_nothing_before_it_is_answered() {
    let memory = Memory::new(64 * MIB);
    let (_server, address, _) = serve(memory.clone(), TlsMode::Off);
    let mut client = Client::enter(address, false);
    memory.hold();
    client.send(request(cmd::READ, 0, 0, 32 << 20), &[]);
    memory.await_submitted(1);
    client.send(request(cmd::FLUSH, 0, 0, 0), &[]);
    memory.await_submitted(2);
}

#[test]
fn a_removed_export_finishes_what_it_has_and_refuses_the_rest() {
    let memory = Memory::new(MIB);
    let (_server, address, registry) = serve(memory.clone(), TlsMode::Off);
    let mut client = Client::enter(address, true);
    memory.hold();
    let write = request(cmd::WRITE, 0, 0, 4096);
    client.send(write, &[5; 4096]);
    memory.await_submitted(1);
    assert!(registry.remove("disk") && !registry.remove("disk"));
    assert_eq!(client.call(request(cmd::WRITE, 0, 0, 4096), &[6; 4096]), Errno::Shutdown.code());
    for (request, reply) in memory.take_held() {
        reply.done(memory.carry_out(&request));
    }
    assert_eq!(client.receive(), Message::Simple(write.cookie, 0));
    assert!(client.is_closed());
    assert_eq!(memory.contents()[0], 5);
    let refused = Client::connect(address).option(opt::GO, &with_length("disk", &[0, 0]));
    assert_eq!(refused[0].0, rep::ERR_UNKNOWN);
}

#[test]
fn a_stop_answers_what_is_in_flight() {
    let memory = Memory::new(MIB);
    let (server, address, _) = serve(memory.clone(), TlsMode::Off);
    let mut client = Client::enter(address, false);
    memory.hold();
    let write = request(cmd::WRITE, 0, 0, 4096);
    client.send(write, &[5; 4096]);
    memory.await_submitted(1);
    let stopping = std::thread::spawn(move || stop(server));
    // The listener goes when the stop has begun.
    while TcpStream::connect(address).is_ok() {
        std::thread::yield_now();
    }
    for (request, reply) in memory.take_held() {
        reply.done(memory.carry_out(&request));
    }
    assert_eq!(client.receive(), Message::Simple(write.cookie, 0));
    assert!(client.is_closed());
    assert_eq!(memory.contents()[0], 5);
    stopping.join().unwrap();
}

#[test]
fn a_disconnect_is_answered_by_closing_after_the_last_reply() {
    let memory = Memory::new(MIB);
    let (server, address, _) = serve(memory.clone(), TlsMode::Off);
    let mut client = Client::enter(address, false);
    memory.hold();
    let write = request(cmd::WRITE, 0, 0, 4096);
    client.send(write, &[5; 4096]);
    client.send(request(cmd::DISC, 0, 0, 0), &[]);
    memory.await_submitted(1);
    for (request, reply) in memory.take_held() {
        reply.done(memory.carry_out(&request));
    }
    assert_eq!(client.receive(), Message::Simple(write.cookie, 0));
    assert!(client.is_closed());
    await_counter(&server, "abandoned", 0);
}

#[test]
fn connections_are_bounded() {
    let config = Config { max_connections: 2, ..Config::default() };
    let (server, address, _) = serve_with(Memory::new(MIB), TlsMode::Off, config);
    let (one, _two) = (Client::enter(address, false), Client::enter(address, false));
    let refused = TcpStream::connect(address).unwrap().read(&mut [0]);
    assert_eq!(refused.unwrap(), 0);
    await_counter(&server, "connections_refused", 1);
    drop(one);
    await_counter(&server, "connections_open", 1);
    drop(Client::enter(address, false));
}

#[test]
fn many_clients_at_once_do_not_disturb_each_other() {
    let memory = Memory::new(16 * MIB);
    let (server, address, _) = serve(memory.clone(), TlsMode::Off);
    std::thread::scope(|scope| {
        for client_number in 0..8_u8 {
            scope.spawn(move || {
                let mut client = Client::enter(address, client_number % 2 == 0);
                let base = u64::from(client_number) << 21;
                for round in 0..100_u8 {
                    let offset = base + u64::from(round) * 5000;
                    assert_eq!(client.call(request(cmd::WRITE, 0, offset, 5000), &[client_number + 1; 5000]), 0);
                }
                client.send(request(cmd::DISC, 0, 0, 0), &[]);
                assert!(client.is_closed());
            });
        }
    });
    for (client_number, region) in memory.contents().chunks(2 * MIB).enumerate() {
        assert!(region[..500_000].iter().all(|byte| usize::from(*byte) == client_number + 1));
    }
    await_counter(&server, "writes", 800);
    await_counter(&server, "abandoned", 0);
    stop(server);
}

#[test]
fn a_unix_socket_left_by_a_crash_is_replaced_and_a_live_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nbd.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let endpoint = Endpoint::Unix(path.clone());
    let config = Config { listen: vec![Listen { endpoint, tls: TlsMode::Off }], ..Config::default() };
    let registry = Registry::default();
    registry.add("disk", Memory::new(MIB)).unwrap();
    let server = Server::start(&config, registry.clone(), Pool::default()).unwrap();
    assert!(Server::start(&config, registry, Pool::default()).is_err());
    let mut client = Client::greet(UnixStream::connect(&path).unwrap(), 3);
    client.go("disk");
    assert_eq!(client.call(request(cmd::WRITE, 0, 0, 3), b"abc"), 0);
    client.stream.flush().unwrap();
    stop(server);
    assert!(!path.exists());
}

#[test]
fn export_names_are_unique_and_not_empty() {
    let registry = Registry::default();
    registry.add("a", Memory::new(1)).unwrap();
    assert_eq!(registry.add("a", Memory::new(1)), Err(AddError::Exists("a".to_owned())));
    assert_eq!(registry.add("", Memory::new(1)), Err(AddError::Name(0)));
    assert_eq!(registry.names(), ["a"]);
}
