//! Backends that behave in the handshake and then do what nobody asked for.

mod support;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use linecard_lab::wait_until;
use linecard_mempool::Burst;
use linecard_pmd::Port;
use linecard_wire::{BackendReq, FrontendReq, OutMessage, REPLY};
use support::{Backend, Bench, PATIENCE, Place, attached};

/// A running port with its backend.
struct Pair {
    bench: Bench,
    port: Port,
    backend: Backend,
    _place: Place,
    _listener: UnixListener,
}

impl Pair {
    fn new(options: &str) -> Self {
        let (bench, place) = (Bench::new(1024), Place::new());
        let (port, backend, listener) = attached(&bench, &place, &format!(",{options}"));
        Self { bench, port, backend, _place: place, _listener: listener }
    }

    fn send(&mut self) {
        let mut out = Burst::new();
        self.bench.pool.get_bulk(&mut out, 1).unwrap();
        out[0].append(60).expect("room").fill(1);
        assert_eq!(self.port.tx[0].tx_burst(&mut out), 1);
    }

    fn end(self) {
        let Self { bench, port, backend, .. } = self;
        drop(backend);
        drop(port.stop());
        bench.assert_whole();
    }
}

/// A message from nowhere, whatever it is, costs the port its link and nothing else; what comes after it is not read.
#[test]
fn messages_that_nobody_asked_for_end_the_connection() {
    let number = 0_u64.to_ne_bytes();
    let back_channel = OutMessage::backend_request(BackendReq::CONFIG_CHANGE_MSG, &[]);
    let files: Vec<_> = (0..8).map(|_| File::open("/dev/null").expect("a file")).collect();
    let fds: Vec<_> = files.iter().map(File::as_fd).collect();
    let cases = [
        ("an answer", OutMessage::reply(FrontendReq::GET_FEATURES as u32, &number)),
        ("an answer to nothing known", OutMessage::reply(u32::MAX, &[])),
        ("a question", OutMessage::request(FrontendReq::GET_FEATURES, &[])),
        ("a request of the back channel", back_channel),
        ("one that wants an answer", back_channel.need_reply()),
        ("descriptors", back_channel.with_fds(&fds)),
        ("all flags", OutMessage { flags: u32::MAX, ..back_channel }),
        ("a long one", OutMessage { request: 9, flags: REPLY, payload: &[0x5a; 4000], fds: &fds }),
    ];
    let files_before = open_files();
    for (name, message) in &cases {
        let mut pair = Pair::new("packed_vq=1");
        pair.send();
        for _ in 0..100 {
            // Room for all of them is not promised.
            let _ = pair.backend.conn.send(message);
        }
        let mut burst = Burst::new();
        wait_until(name, || {
            pair.port.rx[0].rx_burst(&mut burst);
            !pair.port.control.link().up
        });
        pair.bench.soon_whole();
        pair.end();
    }
    wait_until("all descriptors closed", || open_files() <= files_before);
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("proc").count()
}

/// Half a message, and nothing behind it: packets go on as if nothing had been said.
#[test]
fn half_a_message_stops_no_packets() {
    for bytes in [1, 5, 12, 15] {
        let mut pair = Pair::new("packed_vq=0");
        let whole = [FrontendReq::GET_FEATURES as u32, REPLY | 1, 8].map(u32::to_ne_bytes).concat();
        let whole = [whole, vec![0; 8]].concat();
        let mut socket: &UnixStream = pair.backend.conn.socket();
        socket.write_all(&whole[..bytes]).expect("room");
        for _ in 0..20 {
            pair.send();
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(pair.port.control.link().up);
        pair.end();
    }
}

/// The backend shares the kick's open file: it makes writes to it block, and fills the counter.
#[test]
fn a_full_kick_does_not_block_the_sender() {
    let (done, over) = mpsc::channel();
    std::thread::spawn(move || {
        for packed in [0, 1] {
            let mut pair = Pair::new(&format!("packed_vq={packed}"));
            // It sleeps, so that every burst has to wake it.
            let flags = pair.backend.ring(1).device.cell::<u16>(2 * packed).expect("flags");
            flags.store(0, Ordering::SeqCst);
            let kick = pair.backend.rings[1].kick.as_ref().expect("an eventfd").as_raw_fd();
            // SAFETY: takes integers; clears all flags that can be, O_NONBLOCK among them.
            assert_eq!(unsafe { libc::fcntl(kick, libc::F_SETFL, 0) }, 0);
            let mut count = [0_u8; 8];
            pair.send();
            // SAFETY: writes the eight bytes of `count`; one kick is there.
            assert_eq!(unsafe { libc::read(kick, count.as_mut_ptr().cast(), 8) }, 8);
            let full = (u64::MAX - 1).to_ne_bytes();
            // SAFETY: reads the eight bytes of `full`.
            assert_eq!(unsafe { libc::write(kick, full.as_ptr().cast(), 8) }, 8);
            let mut received = Burst::new();
            for _ in 0..50 {
                pair.send();
                pair.port.rx[0].rx_burst(&mut received);
                pair.port.tx[0].reclaim();
            }
            pair.end();
        }
        done.send(()).expect("the test waits");
    });
    over.recv_timeout(PATIENCE * 2).expect("the sender must not sleep in a write");
}

/// A backend may punch holes into what was shared with it: it reads zeros, and so do we, and the port can be ended.
#[test]
fn holes_in_shared_memory_are_survived() {
    for packed in [0, 1] {
        let mut pair = Pair::new(&format!("packed_vq={packed}"));
        pair.send();
        for region in &pair.backend.regions.0 {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            let (at, len) = (region.told.offset.cast_signed(), region.told.size.cast_signed());
            // SAFETY: takes integers.
            unsafe { libc::fallocate(region.fd.as_raw_fd(), mode, at, len) };
            // Sealed: it cannot be made shorter, which would be the end of us.
            // SAFETY: takes integers.
            assert_eq!(unsafe { libc::ftruncate(region.fd.as_raw_fd(), 0) }, -1);
        }
        let mut burst = Burst::new();
        for _ in 0..50 {
            pair.port.rx[0].rx_burst(&mut burst);
            burst.clear();
            pair.port.tx[0].reclaim();
            pair.bench.pool.get_bulk(&mut burst, 1).unwrap();
            burst[0].append(60).expect("room").fill(1);
            pair.port.tx[0].tx_burst(&mut burst);
            burst.clear();
        }
        pair.end();
    }
}
