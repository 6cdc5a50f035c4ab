//! Reading and writing packets one at a time: what an idle reader costs, what a full port says, and that nothing is lost.

use std::io::ErrorKind;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use linecard::blocking::{self, PacketPort, PacketReader, SendError};
use linecard::pmd::Device;
use linecard::prelude::*;
use linecard_lab::{Lab, PATIENCE, wait_until};

/// An experimental EtherType, by which frames of the tests are known among those that a kernel sends by itself.
const OURS: [u8; 2] = [0x88, 0xb5];
/// Packets of a test, each of which comes while its reader is asleep.
const PACKETS: u8 = 50;
/// An idle reader does not wake for so long. A reader that polled, however seldom, would.
const IDLE: Duration = Duration::from_millis(200);

fn frame(number: u8, len: usize) -> Vec<u8> {
    let header = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, OURS[0], OURS[1]];
    header.into_iter().chain(std::iter::repeat(number)).take(len).collect()
}

/// A thread that reads until it has a frame of number `PACKETS`, and what the kernel tells of it.
struct Sleeper {
    thread: JoinHandle<PacketReader>,
    /// Its folder of `/proc`.
    task: String,
    read: Receiver<u8>,
}

impl Sleeper {
    fn start(mut reader: PacketReader) -> Self {
        let (told, task) = channel();
        let (sent, read): (Sender<u8>, _) = channel();
        let thread = std::thread::spawn(move || {
            let own = std::fs::read_link("/proc/thread-self").expect("there is /proc");
            told.send(own).expect("it is waited for");
            let mut buffer = [0; 2048];
            loop {
                let length = reader.read(&mut buffer).expect("it waits for ever");
                if buffer[12..14] == OURS {
                    assert_eq!(buffer[..length], frame(buffer[14], length), "as it was sent");
                    sent.send(buffer[14]).expect("it is waited for");
                    if buffer[14] == PACKETS {
                        return reader;
                    }
                }
            }
        });
        let task = task.recv().expect("it begins").display().to_string();
        Self { thread, task: format!("/proc/{task}"), read }
    }

    /// Whether it sleeps in the kernel until a descriptor is readable.
    fn is_asleep(&self) -> bool {
        let call = std::fs::read_to_string(format!("{}/syscall", self.task)).expect("it runs");
        let number = call.split(' ').next().and_then(|number| number.parse().ok());
        number.is_some_and(|number: i64| number == libc::SYS_ppoll || number == libc::SYS_poll)
    }

    /// How often the kernel has put it to sleep.
    fn switches(&self) -> u64 {
        let status = std::fs::read_to_string(format!("{}/status", self.task)).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|number| number.trim().parse().ok()).expect("a number")
    }
}

/// Sends packets to a reader that sleeps before each; what `send` does is put on the wire at once. Returns how often it slept.
fn sleeps_until_packets_come(reader: PacketReader, mut send: impl FnMut(&[u8])) -> u64 {
    let sleeper = Sleeper::start(reader);
    for number in 1..=PACKETS {
        wait_until("the reader sleeps", || sleeper.is_asleep());
        if number == 2 {
            // What the peers still have to tell each other, and what a kernel sends by itself, may wake it once or twice.
            wait_until("the reader does not wake while nothing comes", || {
                let before = sleeper.switches();
                std::thread::sleep(IDLE);
                sleeper.switches() == before && sleeper.is_asleep()
            });
        }
        send(&frame(number, 60 + usize::from(number)));
        assert_eq!(sleeper.read.recv_timeout(PATIENCE), Ok(number));
    }
    sleeper.thread.join().expect("no panic").sleeps()
}

/// Two ports that are joined by `net_ring`, with so many queues.
fn ring_pair(name: &str, queues: u16, depth: u16) -> ([Port; 2], Pool) {
    let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "32"]).expect("arguments").0).expect("memory");
    let config = PoolConfig::default().packets(1024);
    let pool = Pool::new(&eal.default_domain(), config).expect("a pool");
    let start = |device: Box<dyn Device>| {
        let (rx_depth, tx_depth) = (depth, depth);
        let config =
            PortConfig::default().rx_queues(queues).tx_queues(queues).rx_depth(rx_depth).tx_depth(tx_depth);
        configure(device, config).expect("possible").start(&pool).expect("it starts")
    };
    let (left, right) = linecard::net_ring::pair(&format!("{name}-left"), &format!("{name}-right"));
    ([start(left), start(right)], pool)
}

/// Both ends of a vhost-user socket: the backend first.
fn vhost_user(test: &str, options: &str) -> [PacketPort; 2] {
    let socket = format!("@linecard-blocking-{test}-{}", std::process::id());
    let backend = blocking::open(&format!("net_vhost0,iface={socket}")).expect("a backend");
    let frontend = format!("net_virtio_user0,path={socket}{options}");
    let frontend = blocking::open(&frontend).expect("a frontend");
    wait_until("the link is up", || backend.control().link().up && frontend.control().link().up);
    [backend, frontend]
}

#[test]
fn a_reader_of_a_ring_sleeps_once_for_each_packet() {
    let ([left, right], pool) = ring_pair("sleep", 1, 0);
    let (mut left, right) = (PacketPort::new(left, &pool), PacketPort::new(right, &pool));
    let (reader, _writer) = right.split();
    let sleeps = sleeps_until_packets_come(reader, |frame| {
        assert_eq!(left.write(frame).expect("sent"), frame.len());
    });
    assert_eq!(sleeps, u64::from(PACKETS));
}

#[test]
fn a_reader_of_a_tap_sleeps_until_packets_come() {
    let Some(lab) = Lab::new("a_reader_of_a_tap_sleeps_until_packets_come") else { return };
    let port = blocking::open(&format!("net_tap0,iface=lcb0,netns={}", lab.path())).expect("a tap");
    lab.ip("link set dev lcb0 addrgenmode none");
    let wire = lab.wire("lcb0");
    let (reader, mut writer) = port.split();
    sleeps_until_packets_come(reader, |frame| assert!(wire.send(frame)));
    writer.write(&frame(7, 60)).expect("sent");
    wait_until("the kernel has it", || wire.receive().is_some_and(|got| got == frame(7, 60)));
}

#[test]
fn a_reader_of_a_vhost_user_port_sleeps_at_either_end() {
    for (test, options) in [("split", ""), ("packed", ",packed_vq=1")] {
        for backend_reads in [true, false] {
            let [backend, frontend] = vhost_user(&format!("{test}-{backend_reads}"), options);
            let (from, to) = if backend_reads { (frontend, backend) } else { (backend, frontend) };
            let ((reader, _), (_, mut writer)) = (to.split(), from.split());
            sleeps_until_packets_come(reader, |frame| {
                writer.write(frame).expect("sent");
            });
        }
    }
}

#[test]
fn nobody_waits_who_does_not_want_to() {
    let mut port = blocking::open("net_ring0").expect("a ring");
    let mut buffer = [0; 2048];
    port.set_nonblocking(true);
    assert_eq!(port.read(&mut buffer).map_err(|e| e.kind()), Err(ErrorKind::WouldBlock));
    let mut written = 0_u64;
    let full = loop {
        match port.write(&frame(1, 60)) {
            Ok(length) => written += u64::try_from(length / 60).expect("one"),
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    port.set_nonblocking(false);
    port.set_write_timeout(Some(Duration::from_millis(2)));
    assert_eq!(port.write(&frame(1, 60)).map_err(|e| e.kind()), Err(ErrorKind::TimedOut));
    // What was refused was not sent, not even later.
    for _ in 0..written {
        assert_eq!(port.read(&mut buffer).expect("one is there"), 60);
    }
    port.set_read_timeout(Some(Duration::from_millis(2)));
    assert_eq!(port.read(&mut buffer).map_err(|e| e.kind()), Err(ErrorKind::TimedOut));
    assert_eq!(port.control().stats().opackets, written);
}

#[test]
fn a_writer_waits_for_room() {
    const COUNT: u8 = 200;
    let ([left, right], pool) = ring_pair("room", 1, 16);
    let (mut left, mut right) = (PacketPort::new(left, &pool), PacketPort::new(right, &pool));
    let writer = std::thread::spawn(move || {
        (0..COUNT).for_each(|number| {
            left.write(&frame(number, 60)).expect("it waits for ever");
        });
        left
    });
    wait_until("the ring is full", || right.control().stats().ipackets == 0 && pool.stats().in_use >= 16);
    for number in 0..COUNT {
        let mut buffer = [0; 60];
        assert_eq!(right.read(&mut buffer).expect("it comes"), 60);
        assert_eq!(buffer[14], number, "in their order, each once");
    }
    drop((writer.join().expect("no panic").into_port().stop(), right.into_port().stop()));
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn a_port_without_a_peer_says_so_to_a_writer() {
    let socket = format!("@linecard-blocking-alone-{}", std::process::id());
    let mut port = blocking::open(&format!("net_vhost0,iface={socket}")).expect("a backend");
    let error = port.write(&frame(1, 60)).expect_err("nobody is there");
    assert_eq!(error.kind(), ErrorKind::NetworkDown);
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    assert_eq!(inner, Some(&SendError::Down));
    // A peer that comes is served, and a reader that slept before that wakes.
    let sleeper = Sleeper::start(port.split().0);
    wait_until("it sleeps", || sleeper.is_asleep());
    let mut frontend = blocking::open(&format!("net_virtio_user0,path={socket}")).expect("a frontend");
    wait_until("the link is up", || frontend.control().link().up);
    frontend.write(&frame(PACKETS, 60)).expect("sent");
    assert_eq!(sleeper.read.recv_timeout(PATIENCE), Ok(PACKETS));
    sleeper.thread.join().expect("no panic");
}

#[test]
fn lengths_are_checked_and_long_frames_cut() {
    let ([left, right], pool) = ring_pair("long", 1, 0);
    let (mut left, mut right) = (PacketPort::new(left, &pool), PacketPort::new(right, &pool));
    let max = usize::from(left.control().mtu()) + 18;
    for len in [0, 13, max + 1] {
        let error = left.write(&vec![0; len]).expect_err("no frame");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{len}");
        assert!(error.to_string().contains(&format!("14 to {max}")), "{error}");
    }
    left.write(&frame(3, max)).expect("the longest");
    left.write(&frame(4, 14)).expect("the shortest");
    let mut buffer = [0; 100];
    assert_eq!(right.read(&mut buffer).expect("its beginning"), 100);
    assert_eq!(buffer[..], frame(3, max)[..100]);
    assert_eq!(right.read(&mut buffer).expect("the next one, not the rest"), 14);
    // A packet of several segments is whole in a buffer.
    let long = pool.packet_of(&frame(5, 3000), 1000).expect("three buffers");
    left.write_packet(long).expect("sent");
    let mut large = [0; 4096];
    assert_eq!(right.read(&mut large).expect("whole"), 3000);
    assert_eq!(large[..3000], frame(5, 3000));
    let (reader, _writer) = right.split();
    assert_eq!(reader.truncated(), 1);
}

#[test]
fn no_queue_starves_another() {
    let ([mut left, right], pool) = ring_pair("fair", 2, 256);
    let mut right = PacketPort::new(right, &pool);
    let mut send = |queue: usize, number: u8, count: usize| {
        let mut packets = Burst::new();
        for _ in 0..count {
            let packet = pool.packet_of(&frame(number, 60), 60).expect("a buffer");
            packets.push(packet).expect("room for 64");
        }
        assert_eq!(left.tx[queue].tx_burst(&mut packets), count);
    };
    (0..3).for_each(|_| send(0, 1, 64));
    send(1, 2, 1);
    let numbers: Vec<u8> = (0..193).map(|_| right.read_packet().expect("it is there").data()[14]).collect();
    let at = numbers.iter().position(|number| *number == 2).expect("it came");
    assert!(at <= 64, "it came after one burst of the other queue, not behind {at} packets");
    let back = right.into_port();
    assert_eq!((back.rx.len(), back.tx.len()), (2, 2));
}

#[test]
fn a_port_lives_as_long_as_either_half() {
    let ([left, right], pool) = ring_pair("halves", 1, 0);
    let (mut reader, mut writer) =
        (PacketPort::new(left, &pool).split().0, PacketPort::new(right, &pool).split().1);
    writer.write(&frame(1, 60)).expect("sent");
    assert_eq!(reader.read(&mut [0; 60]).expect("received"), 60);
    drop((reader, writer));
    assert_eq!(pool.stats().in_use, 0);
}
