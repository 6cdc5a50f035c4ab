//! Tenants that would have an upgrade fail, or everybody wait for it: each loses its own port's connection, and nothing else.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use linecard_lab::{HeldPages, PATIENCE, skip, wait_until};
use linecard_switch::api::{PortKind, PortSpec};
use linecard_switch::upgrade::Successor;

use super::support::ours::{Ours, frontend_vdev};
use super::support::raw::{event, pair, request as r, send};
use super::support::upgrade::*;
use super::{Here, Scene};

const MEMORY: u64 = 2 << 20;
const GUEST: u64 = 0x10_0000;
const USER: u64 = 0x7000_0000_0000;
/// What SECURITY.md promises: so long at most do the workers wait for the tenants.
const STATED: Duration = Duration::from_millis(500);
/// What an upgrade takes beside that, on a busy machine.
const SLACK: Duration = Duration::from_millis(1000);

/// A frontend with two rings in one file of memory, and a second file that no ring uses.
struct Tenant {
    stream: UnixStream,
    rings: File,
    beside: File,
}

impl Tenant {
    fn connect(path: &Path, name: &str, packed: bool) -> Self {
        let memory = |name: &str| {
            let fd = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC).expect("a memfd");
            let file = File::from(fd);
            file.set_len(MEMORY).expect("it grows");
            file
        };
        let stream = UnixStream::connect(path).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let tenant = Self { stream, rings: memory(name), beside: memory("beside") };
        tenant.bring_up(packed);
        tenant
    }

    /// Sends a request with these words, and returns once it has been carried out.
    fn ask(&self, request: u32, words: &[u64], fds: Vec<OwnedFd>) {
        let payload: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        // Version 1; an answer is wanted.
        let header = [request, 1 | 8, payload.len() as u32].map(u32::to_ne_bytes).concat();
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        assert!(send(&self.stream, &[header, payload].concat(), &fds));
        let mut answer = [0; 20];
        (&self.stream).read_exact(&mut answer).expect("an answer");
        assert_eq!(answer[12..], [0; 8], "request {request} is carried out");
    }

    fn bring_up(&self, packed: bool) {
        // The first has no answer, because that is not negotiated before.
        let words = 8_u64.to_ne_bytes();
        let header = [r::SET_PROTOCOL_FEATURES, 1, 8].map(u32::to_ne_bytes).concat();
        assert!(send(&self.stream, &[&header[..], &words].concat(), &[]));
        self.ask(r::SET_OWNER, &[], vec![]);
        self.ask(r::SET_FEATURES, &[1 << 32 | 1 << 30 | u64::from(packed) << 34], vec![]);
        let files = [&self.rings, &self.beside].map(|file| file.try_clone().expect("a descriptor").into());
        let (guest, user) = (GUEST + MEMORY, USER + MEMORY);
        let table = [2, GUEST, MEMORY, USER, 0, guest, MEMORY, user, 0];
        self.ask(r::SET_MEM_TABLE, &table, files.into());
        for ring in 0..2_u32 {
            let (index, at) = (u64::from(ring), USER + u64::from(ring) * 0x1_0000);
            self.ask(r::SET_VRING_NUM, &[pair(ring, 256)], vec![]);
            self.ask(r::SET_VRING_BASE, &[pair(ring, if packed { 0x8000_8000 } else { 0 })], vec![]);
            self.ask(r::SET_VRING_ADDR, &[index, at, at + 0x8000, at + 0x4000, 0], vec![]);
            self.ask(r::SET_VRING_CALL, &[index], vec![event()]);
            self.ask(r::SET_VRING_KICK, &[index], vec![event()]);
            self.ask(r::SET_VRING_ENABLE, &[pair(ring, 1)], vec![]);
        }
    }

    /// The connection has an end.
    fn assert_disconnected(mut self) {
        self.stream.read_to_end(&mut Vec::new()).expect("the connection ends");
    }
}

impl Scene {
    /// Adds a port; the path of its socket.
    fn with_port(&self, key: &str) -> PathBuf {
        let path = self.scratch.join(&format!("{key}.sock"));
        let kind = PortKind::VhostUser { path: path.clone(), client: false, mode: None, group: None };
        client(&self.socket).port_add(&PortSpec::new(key, kind), None).expect("it is added");
        path
    }

    /// The first switch has ended, and the bystanders have noticed nothing.
    fn has_moved_on(&mut self) {
        wait_until("the first switch to end", || self.running.0.try_wait().expect("a child").is_some());
        self.pair.pump_until(|| true);
        self.pair.settle();
        assert_eq!(self.pair.connections(), self.connections, "nobody else was disconnected");
    }
}

/// Somebody can connect to this port, and its rings run.
fn serves(path: &Path) {
    let mut again = Ours::start(&frontend_vdev(path, "mac=02:00:00:00:00:09"));
    again.wait_for_link(true);
}

/// Memory that has become too small cannot be mapped: the successor does without that tenant.
#[test]
fn memory_that_was_truncated_does_not_prevent_an_upgrade() {
    const TEST: &str = "memory_that_was_truncated_does_not_prevent_an_upgrade";
    let Some(mut scene) = Scene::new(TEST, "") else { return };
    let [bad, worse] = ["bad", "worse"].map(|key| scene.with_port(key));
    let tenants = [Tenant::connect(&bad, "bad", false), Tenant::connect(&worse, "worse", true)];
    for tenant in &tenants {
        tenant.beside.set_len(0).expect("it shrinks");
    }
    let mut upgrading = upgrade(&scene.lab, &scene.socket, &[]);
    scene.pair.pump_until(|| upgrading.0.try_wait().expect("a child").is_some());
    let (success, said) = upgrading.end();
    assert!(success, "{said}");
    let next = Orphan(client(&scene.socket).version().expect("it answers").pid);
    scene.has_moved_on();
    tenants.into_iter().for_each(Tenant::assert_disconnected);
    [&bad, &worse].into_iter().for_each(|path| serves(path));
    drop(scene.pair);
    next.end();
    assert!(!bad.exists() && !worse.exists());
}

/// Tries on a machine whose other programs may take the processors at any moment.
const TRIES: usize = 5;

/// The best of some tries: a switch that waited for the pages would not pass one of them.
fn a_page_that_never_comes(test: &str, packed: bool) {
    let mut pauses = Vec::new();
    for n in 0..TRIES {
        let Some(pause) = with_a_page_that_never_comes(&format!("{test}_{n}"), packed) else { return };
        if pause.is_some_and(|pause| pause < STATED + SLACK) {
            return;
        }
        pauses.push(pause);
    }
    panic!("no frame passed for {pauses:?}");
}

/// The successor is in this process, where a page of a tenant's can be made never to come. For how long no frame passed;
/// `None` within if the predecessor went on, because that took too long; `None` if there is nothing to try.
fn with_a_page_that_never_comes(test: &str, packed: bool) -> Option<Option<Duration>> {
    let mut scene = Scene::new(test, "")?;
    let paths = ["one", "other"].map(|key| scene.with_port(key));
    let names = ["one", "other"].map(|name| format!("{name}-{test}"));
    let tenants = [0, 1].map(|n| Tenant::connect(&paths[n], &names[n], packed));
    let here = Here::new();
    let mut successor = Successor::ask(&scene.socket, "0.0.0").expect("it is heard");
    successor.prepare(&here.switch, |_| Ok(())).expect("it is prepared");
    let held = names.each_ref().map(|name| HeldPages::of(name));
    let [Ok(one), Ok(other)] = held else {
        skip(test, "no userfaultfd");
        return None;
    };
    for Tenant { rings, .. } in &tenants {
        let punch = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(rings, punch, 0, MEMORY).expect("a hole");
    }
    // A switch that waited would do so for ever.
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let letting_go = std::thread::spawn(move || {
        let _ = told.recv_timeout(Duration::from_secs(5));
        drop((one, other));
    });
    let taken = successor.begin(&here.switch).and_then(|()| successor.commit(&here.switch));
    let Ok(taken) = taken else {
        drop(tell);
        letting_go.join().expect("no panic");
        return Some(None);
    };
    scene.pair.pump_until(|| true);
    successor.finish(&here.switch);
    scene.has_moved_on();
    // The pages come at last: the ports are as good as any.
    drop(tell);
    letting_go.join().expect("no panic");
    tenants.into_iter().for_each(Tenant::assert_disconnected);
    paths.iter().for_each(|path| serves(path));
    drop((scene.pair, here));
    Some(Some(taken.pause))
}

#[test]
fn a_page_of_a_split_ring_that_never_comes_holds_up_its_port_alone() {
    a_page_that_never_comes("a_page_of_a_split_ring_that_never_comes_holds_up_its_port_alone", false);
}

#[test]
fn a_page_of_a_packed_ring_that_never_comes_holds_up_its_port_alone() {
    a_page_that_never_comes("a_page_of_a_packed_ring_that_never_comes_holds_up_its_port_alone", true);
}
