//! The port, its relay and its backend, with a kernel and a driver of the test's own.

mod machine;

use std::os::fd::AsFd;
use std::path::PathBuf;

use linecard_eal::{Memory, MemoryConfig};
use linecard_lab::wait_until;
use linecard_mempool::{Burst, Pool, PoolConfig};
use linecard_pmd::{DevArgs, Driver, Port, PortConfig, ProbeContext};
use linecard_vhost_user::{BackendConfig, VhostDriver};
use linecard_virtio::{Buffer, Features, Layout};

use crate::kernel::{Answer, Request};
use crate::record::Record;
use crate::relay::Relay;
use crate::thread::Relaying;
use crate::{VduseDriver, meeting_point, offered};
use machine::{Fake, Guest, HEADER, IOVA, SIZE, Shared, State};

static VHOST: VhostDriver = VhostDriver::new();
static VDUSE: VduseDriver = VduseDriver::new(&VHOST);

const BOTH: [(Layout, Features); 4] = [
    (Layout::Split, Features::empty()),
    (Layout::Split, Features::IN_ORDER),
    (Layout::Packed, Features::RING_PACKED),
    (Layout::Packed, Features::RING_PACKED.union(Features::IN_ORDER)),
];
/// `VIRTIO_CONFIG_S_ACKNOWLEDGE` to `DRIVER_OK`.
const READY: u8 = 0xf;

/// What a process that serves the device has.
struct Process {
    relay: Relay<Fake>,
    port: Port,
    pool: Pool,
}

impl Process {
    fn start(name: &str, fake: &Fake, record: Option<&PathBuf>) -> Self {
        let memory = Memory::new(MemoryConfig::default().range(1 << 30)).expect("memory");
        let domain = memory.domain("test").expect("a domain");
        let pool = Pool::new(&domain, PoolConfig::default().packets(512)).expect("a pool");
        let (listener, mut connect) = meeting_point(name).expect("a socket");
        let config = BackendConfig::listening(name, listener).trusted_memory(true);
        let device = VHOST.device(config).expect("a backend");
        let mut frontend = connect().expect("a conversation");
        let offered = offered(frontend.offered);
        assert!(offered.contains(Features::ACCESS_PLATFORM | Features::RING_PACKED | Features::NET_MTU));
        assert!(!offered.contains(Features::PROTOCOL_FEATURES));
        let len = frontend.record_len(SIZE).expect("a length");
        let record = record.map(|path| Record::open(path, len, SIZE).expect("a file"));
        let relay = Relay::new(fake.clone(), (connect, frontend), record).expect("a relay");
        let port = device.start(&PortConfig::default(), &pool).map_err(|e| e.error).expect("a port");
        Self { relay, port, pool }
    }

    fn serve(self, name: &str) -> (Relaying, Port, Pool) {
        (Relaying::start(name, self.relay).expect("a thread"), self.port, self.pool)
    }
}

fn receive(port: &mut Port, n: usize) -> Vec<Vec<u8>> {
    let mut packets = Burst::new();
    wait_until("packets", || {
        port.rx[0].rx_burst(&mut packets);
        packets.len() >= n
    });
    packets.iter().map(|packet| packet.data().to_vec()).collect()
}

fn send(port: &mut Port, pool: &Pool, frame: &[u8]) {
    let mut burst = Burst::new();
    assert!(burst.push(pool.packet_of(frame, frame.len()).expect("room")).is_ok());
    wait_until("the driver's buffer", || {
        port.tx[0].tx_burst(&mut burst);
        burst.is_empty()
    });
}

fn frame(n: usize) -> Vec<u8> {
    (0..100 + n).map(|i| (i * 31 + n * 7) as u8).collect()
}

#[test]
fn frames_pass_both_ways_over_every_kind_of_ring() {
    for (n, (layout, features)) in BOTH.into_iter().enumerate() {
        let (fake, name) = (Fake::new(), format!("net_vduse1{n}"));
        let mut guest = Guest::new(&fake, features, layout);
        let (relaying, mut port, pool) = Process::start(&name, &fake, None).serve(&name);
        relaying.set_link(true);
        wait_until("carrier", || fake.state().link);
        for round in 0..3 {
            assert_eq!(fake.ask(Request::Status(READY)), Answer::Done, "{layout:?} {round}");
            assert!(fake.state().kicks.iter().all(Option::is_some));
            wait_until("link", || port.control.link().up);
            guest.send(0, &frame(round));
            assert_eq!(receive(&mut port, 1), [frame(round)]);
            let before = fake.state().interrupts[0];
            guest.post_receive(round);
            send(&mut port, &pool, &frame(50 + round));
            let mut got = Vec::new();
            wait_until("a frame", || {
                got.extend(guest.received());
                !got.is_empty()
            });
            assert_eq!(got, [frame(50 + round)], "{layout:?}");
            wait_until("an interrupt", || fake.state().interrupts[0] > before);
            // A driver that goes asks where the rings stand, and makes them anew when it comes back.
            for (index, taken) in [(0, 1), (1, 1)] {
                let Answer::RingState { state, .. } = fake.ask(Request::RingState { index }) else {
                    panic!("no state of ring {index}");
                };
                let want = if layout == Layout::Packed { [1, taken, 1, taken] } else { [taken, 0, 0, 0] };
                assert_eq!(state, want, "{layout:?} {features:?} {index}");
            }
            assert_eq!(fake.ask(Request::Status(0)), Answer::Done);
            wait_until("no link", || !port.control.link().up);
            guest = Guest::new(&fake, features, layout);
        }
        drop(relaying);
        assert!(fake.state().ended && !fake.state().link);
    }
}

#[test]
fn memory_comes_and_goes_while_frames_pass() {
    let (fake, name) = (Fake::new(), "net_vduse20");
    let mut guest = Guest::new(&fake, Features::RING_PACKED, Layout::Packed);
    let (_relaying, mut port, _pool) = Process::start(name, &fake, None).serve(name);
    assert_eq!(fake.ask(Request::Status(READY)), Answer::Done);
    for round in 0..4 {
        let more = Shared::at(IOVA * 64);
        more.bytes(HEADER, 100).copy_from(&[round; 100]);
        fake.state().regions.push(more.entry());
        // The kernel names the whole of it, whatever changed: the rings stay where they are.
        assert_eq!(fake.ask(Request::Memory { start: 0, last: u64::MAX }), Answer::Done);
        guest.send(0, &frame(0));
        guest.tx.post(Buffer { addr: more.iova, len: (HEADER + 100) as u32, token: 1 });
        assert_eq!(receive(&mut port, 2), [frame(0), vec![round; 100]]);
        assert_eq!(guest.tx.take().len(), 2);
        fake.state().regions.pop();
        // Gone in one round; in another, other memory has its place at once.
        if round % 2 == 0 {
            assert_eq!(fake.ask(Request::Memory { start: more.iova, last: more.iova }), Answer::Done);
        }
    }
}

/// The kernel has no place for a driver's buffers before there is one, and does not say when: the rings are not looked at until the
/// driver kicks.
#[test]
fn a_driver_of_the_kernels_is_served_from_its_first_buffer_on() {
    for (layout, features) in BOTH {
        let (fake, name) = (Fake::new(), "net_vduse60");
        let mut guest = Guest::in_memory(Shared::of_kernel(IOVA, &fake), &fake, features, layout);
        let (_relaying, mut port, _pool) = Process::start(name, &fake, None).serve(name);
        assert_eq!(fake.ask(Request::Status(READY)), Answer::Done);
        // A buffer that the kernel has not mapped: seen too early, it would end the ring.
        let bounce = Shared::of_kernel(0, &fake);
        bounce.bytes(4096 + HEADER, 100).copy_from(&[7; 100]);
        guest.tx.post(Buffer { addr: 4096, len: (HEADER + 100) as u32, token: 0 });
        assert_eq!(port.rx[0].rx_burst(&mut Burst::new()), 0);
        fake.state().regions.push(bounce.entry());
        let kick = fake.state().kicks[1].as_ref().map(|kick| kick.try_clone().expect("a descriptor"));
        linecard_eal::eventfd::signal(kick.expect("the ring was started").as_fd()).expect("it is one");
        assert_eq!(receive(&mut port, 1), [vec![7; 100]], "{layout:?} {features:?}");
        guest.send(1, &frame(1));
        assert_eq!(receive(&mut port, 1), [frame(1)]);
    }
}

#[test]
fn a_process_after_a_crash_goes_on_where_the_rings_stand() {
    for (n, (layout, features)) in BOTH.into_iter().enumerate() {
        let (fake, name) = (Fake::new(), format!("net_vduse3{n}"));
        let on_tmpfs = PathBuf::from(format!("/dev/shm/linecard-{name}-{}", std::process::id()));
        let mut guest = Guest::new(&fake, features, layout);
        let first = Process::start(&name, &fake, Some(&on_tmpfs));
        let (relaying, mut port, _pool) = first.serve(&name);
        assert_eq!(fake.ask(Request::Status(READY)), Answer::Done);
        (0..5).for_each(|n| guest.post_receive(n));
        for n in 0..3 {
            guest.send(n, &frame(n));
        }
        assert_eq!(receive(&mut port, 3).len(), 3);
        // It ends without a word: nobody asks where the rings stand, and the driver goes on.
        std::mem::forget(relaying);
        drop(port);
        for n in 3..5 {
            guest.send(n, &frame(n));
        }

        let mut second = Process::start(&format!("{name}9"), &fake, Some(&on_tmpfs));
        let before = fake.state().interrupts;
        assert!(second.relay.resume().expect("the driver's rings"), "{layout:?}");
        let told: Vec<_> = fake.state().interrupts.iter().zip(before).map(|(now, then)| now - then).collect();
        assert_eq!(told, [1, 1], "of what was given back");
        let (_relaying, mut port, pool) = second.serve(&name);
        assert_eq!(receive(&mut port, 2), [frame(3), frame(4)], "{layout:?} {features:?}");
        let mut given_back = 0;
        wait_until("every buffer", || {
            given_back += guest.tx.take().len();
            given_back == 5
        });
        send(&mut port, &pool, &frame(9));
        let mut got = Vec::new();
        wait_until("a frame", || {
            got.extend(guest.received());
            !got.is_empty()
        });
        assert_eq!(got, [frame(9)], "{layout:?} {features:?}");
        std::fs::remove_file(&on_tmpfs).expect("it is there");
    }
}

#[test]
fn what_a_driver_does_wrong_fails_and_the_next_one_is_served() {
    let (fake, name) = (Fake::new(), "net_vduse40");
    let (_relaying, mut port, _pool) = Process::start(name, &fake, None).serve(name);
    let spoil: [fn(&mut State); 6] = [
        |state| state.rings[1].ready = 0,
        |state| state.rings[0].size = 0,
        |state| state.rings[0].size = 1 << 20,
        |state| state.rings[1].desc = 0x1000,
        |state| state.rings[0].device = u64::MAX - 3,
        |state| state.regions[0].0.last = u64::MAX - 1,
    ];
    for (n, spoil) in spoil.into_iter().enumerate() {
        let _guest = Guest::new(&fake, Features::empty(), Layout::Split);
        spoil(&mut fake.state());
        assert_eq!(fake.ask(Request::Status(READY)), Answer::Failed, "{n}");
        assert_eq!(fake.ask(Request::Status(0)), Answer::Done, "{n}");
        let mut guest = Guest::new(&fake, Features::empty(), Layout::Split);
        assert_eq!(fake.ask(Request::Status(READY)), Answer::Done, "{n}");
        guest.send(0, &frame(n));
        assert_eq!(receive(&mut port, 1), [frame(n)]);
        assert_eq!(fake.ask(Request::Status(0)), Answer::Done, "{n}");
    }
    assert_eq!(fake.ask(Request::Unknown(77)), Answer::Failed);
    assert_eq!(fake.ask(Request::RingState { index: 2 }), Answer::Failed);
    // Nobody uses the device: there is nothing to share.
    assert_eq!(fake.ask(Request::Memory { start: 0, last: u64::MAX }), Answer::Done);
}

/// A process behind the kernel's vhost-vdpa may share any file, also one whose owner answers when it likes.
#[test]
fn a_process_shares_memory_or_is_refused() {
    let (fake, name) = (Fake::new(), "net_vduse70");
    let (_relaying, mut port, _pool) = Process::start(name, &fake, None).serve(name);
    let mut guest = Guest::in_memory(Shared::on_disk(IOVA), &fake, Features::empty(), Layout::Split);
    assert_eq!(fake.ask(Request::Status(READY)), Answer::Failed);
    assert_eq!(fake.ask(Request::Status(0)), Answer::Done);
    guest.send(0, &frame(0));
    // Beside good memory, and while packets pass, it is refused too; what was good before stays.
    let mut guest = Guest::new(&fake, Features::empty(), Layout::Split);
    assert_eq!(fake.ask(Request::Status(READY)), Answer::Done);
    fake.state().regions.push(Shared::on_disk(IOVA * 64).entry());
    assert_eq!(fake.ask(Request::Memory { start: 0, last: u64::MAX }), Answer::Failed);
    guest.send(0, &frame(1));
    assert_eq!(receive(&mut port, 1), [frame(1)]);
}

#[test]
fn a_kernel_without_a_driver_has_nothing_to_go_on_with() {
    let fake = Fake::new();
    let mut process = Process::start("net_vduse50", &fake, None);
    assert!(!process.relay.resume().expect("it answers"));
}

#[test]
fn arguments_are_checked_before_the_kernel_is_asked() {
    let memory = Memory::new(MemoryConfig::default()).expect("memory");
    let domain = memory.domain("test").expect("a domain");
    let context = ProbeContext::new(memory, domain, std::time::Duration::from_secs(1));
    let long = format!("name={}", "x".repeat(256));
    for (args, want) in [
        ("", "'name'"),
        ("name=", "'name' is missing"),
        ("name=control", "not 'control'"),
        ("name=a/b", "no name of a device"),
        ("name=..", "no name of a device"),
        (&long, "up to 255"),
        ("name=a,mtu=60", "mtu"),
        ("name=a,mac=1", "mac"),
        ("name=a,queue_size=0", "queue_size"),
        ("name=a,tso=2", "tso"),
        ("name=a,speed=1", "speed"),
    ] {
        let parsed = DevArgs::parse(&format!("net_vduse0,{args}")).expect("arguments");
        let said = VDUSE.probe(&context, &parsed).map(drop).unwrap_err().to_string();
        assert!(said.starts_with("net_vduse0: ") && said.contains(want), "{args}: {said}");
        assert!(said.contains("; "), "a remedy: {said}");
    }
    if !std::path::Path::new("/dev/vduse/control").exists() {
        let parsed = DevArgs::parse("net_vduse0,name=a").expect("arguments");
        let said = VDUSE.probe(&context, &parsed).map(drop).unwrap_err().to_string();
        assert!(said.contains("/dev/vduse/control") && said.contains("modprobe vduse"), "{said}");
    }
}
