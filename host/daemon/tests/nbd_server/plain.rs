//! Volumes that no pair copies: one whose disk hangs holds up nobody else, and a FLUSH covers what was answered

use std::net::Ipv4Addr;
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use farseal::nbd::pool::Pool;
use farseal::nbd::registry::Registry;
use farseal::nbd::server::{Config, Endpoint, Listen, Server};
use farseal::nbd::tls::TlsMode;
use farseal::nbd::wire::{cmd, cmd_flag};
use farseal::plain::PlainVolume;
use farseal::store::StoreError;
use farseal::store::home::Home;

use crate::client::{Client, Message, request};

const BYTES: u64 = 1 << 20;

/// A home that tells of what it is asked, and syncs when the test lets it.
#[derive(Debug)]
struct Slow {
    told: Sender<&'static str>,
    may_sync: Mutex<Receiver<()>>,
}

impl Home for Slow {
    fn bytes(&self) -> u64 {
        BYTES
    }

    fn read(&self, _: u64, into: &mut [u8]) -> Result<(), StoreError> {
        into.fill(7);
        Ok(())
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), StoreError> {
        self.told.send("write").unwrap();
        Ok(())
    }

    fn zero(&self, _: u64, _: u64, _: bool) -> Result<(), StoreError> {
        self.told.send("zero").unwrap();
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.told.send("sync").unwrap();
        // It hangs for ever when the test has ended.
        let _ = self.may_sync.lock().unwrap().recv();
        Ok(())
    }

    fn allocated(&self, _: u64, len: u64) -> Result<Vec<(u64, bool)>, StoreError> {
        Ok(vec![(len, true)])
    }
}

/// A volume, what it is asked, and leave to sync.
fn volume() -> (Arc<PlainVolume>, Receiver<&'static str>, Sender<()>) {
    let ((told, tells), (may, may_sync)) = (channel(), channel());
    let home = Slow { told, may_sync: Mutex::new(may_sync) };
    (Arc::new(PlainVolume::new(Arc::new(home), String::new())), tells, may)
}

#[test]
fn a_volume_whose_disk_hangs_holds_up_no_other_and_no_new_connection() {
    let ((slow, tells, may), (quick, _told, _)) = (volume(), volume());
    let registry = Registry::default();
    registry.add("slow", slow).unwrap();
    registry.add("quick", quick).unwrap();
    let listen = Listen { endpoint: Endpoint::Tcp((Ipv4Addr::LOCALHOST, 0).into()), tls: TlsMode::Off };
    let config = Config { listen: vec![listen], threads: NonZeroUsize::new(1), ..Config::default() };
    let server = Server::start(&config, registry, Pool::default()).unwrap();
    let Endpoint::Tcp(address) = server.endpoints()[0] else { panic!("a TCP endpoint") };

    let mut waits = Client::connect(address);
    waits.go("slow");
    assert_eq!(waits.call(request(cmd::WRITE, 0, 0, 4096), &[1; 4096]), 0);
    waits.send(request(cmd::TRIM, cmd_flag::FUA, 4096, 4096), &[]);
    assert_eq!([tells.recv().unwrap(), tells.recv().unwrap(), tells.recv().unwrap()], ["write", "zero", "sync"]);

    let mut other = Client::connect(address);
    other.go("quick");
    assert_eq!(other.call(request(cmd::READ, 0, 0, 4096), &[]), 0);
    assert_eq!(other.bytes(4096), [7; 4096]);

    // It came when the sync before had begun, so that one does not cover it.
    assert_eq!(waits.call(request(cmd::WRITE, 0, 0, 4096), &[2; 4096]), 0);
    waits.send(request(cmd::FLUSH, 0, 0, 0), &[]);
    may.send(()).unwrap();
    assert_eq!(waits.receive(), Message::Simple(request(cmd::TRIM, 0, 4096, 0).cookie, 0));
    assert_eq!([tells.recv().unwrap(), tells.recv().unwrap()], ["write", "sync"]);
    may.send(()).unwrap();
    assert_eq!(waits.receive(), Message::Simple(request(cmd::FLUSH, 0, 0, 0).cookie, 0));
}
