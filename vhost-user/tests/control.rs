//! Hostile and merely odd control messages. Each ends with the port in good health.

mod common;

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::{Bench, Frontend, GUEST, Guest, MEMORY, SIZE, USER, eventfd, frame, memfd, receive};
use linecard_lab::wait_until;
use linecard_virtio::Features;
use linecard_wire::payload::{
    Config, MemTable, MemoryRegion, Payload, SingleRegion, VringAddr, VringFd, VringState,
};
use linecard_wire::{FrontendReq as Req, Header, OutMessage, ProtocolFeatures, VERSION};

/// Moves packets both ways on rings that are said to run.
fn moves_packets(bench: &mut Bench, guest: &mut Guest) {
    for n in 0..4 {
        guest.send(&frame(n, 100));
        guest.tx.publish();
        guest.post_receive(0, 1, 2048);
        let mut packets = receive(&mut bench.rx, 1);
        assert_eq!(packets[0].data(), frame(n, 100));
        wait_until("sending", || linecard_pmd::TxQueue::tx_burst(&mut bench.tx, &mut packets) == 1);
        assert_eq!(guest.received().len(), 1);
        guest.tx.take();
    }
    bench.assert_whole();
}

/// A new frontend finds everything in order.
fn healthy(bench: &mut Bench) {
    bench.wait_gone();
    let mut guest = Guest::start(&bench.path, Features::NET_MRG_RXBUF);
    bench.wait_link(true);
    moves_packets(bench, &mut guest);
    drop(guest);
    bench.wait_gone();
    bench.assert_whole();
}

#[test]
fn bad_framing_ends_the_connection_and_nothing_else() {
    let mut bench = Bench::new("framing");
    let header =
        |request: Req, flags, size| Header { request: request as u32, flags, size }.encode().to_vec();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("version 0", header(Req::SET_OWNER, 0, 0)),
        ("version 2", header(Req::SET_OWNER, 2, 0)),
        ("version 3", header(Req::SET_OWNER, 3, 0)),
        ("a reply", header(Req::SET_OWNER, VERSION | 4, 0)),
        ("unknown flags", header(Req::SET_OWNER, VERSION | 0x10, 0)),
        ("all flags", header(Req::SET_OWNER, u32::MAX, 0)),
        ("too long", header(Req::SET_FEATURES, VERSION, 4097)),
        ("far too long", header(Req::SET_FEATURES, VERSION, u32::MAX)),
        ("short payload", [header(Req::SET_FEATURES, VERSION, 7), vec![0; 7]].concat()),
        ("long payload", [header(Req::SET_FEATURES, VERSION, 9), vec![0; 9]].concat()),
        ("no payload", header(Req::SET_VRING_ADDR, VERSION, 0)),
        ("payload for none", [header(Req::SET_OWNER, VERSION, 4), vec![0; 4]].concat()),
        ("request 0", Header { request: 0, flags: VERSION, size: 0 }.encode().to_vec()),
        ("request 9999", Header { request: 9999, flags: VERSION, size: 0 }.encode().to_vec()),
        ("request 2^32-1", Header { request: u32::MAX, flags: VERSION, size: 0 }.encode().to_vec()),
        ("garbage", vec![0xa5; 64]),
    ];
    for (name, bytes) in cases {
        let mut stream = UnixStream::connect(&bench.path).expect("connect");
        stream.write_all(&bytes).expect("write");
        let mut frontend = Frontend::over(stream);
        assert!(frontend.is_dropped(), "{name}");
        bench.wait_gone();
    }
    for len in [1, 11] {
        let mut stream = UnixStream::connect(&bench.path).expect("connect");
        stream.write_all(&header(Req::SET_FEATURES, VERSION, 8)[..len]).expect("write");
        wait_until("connection", || bench.backend.peer().connected());
        drop(stream);
        bench.wait_gone();
    }
    healthy(&mut bench);
}

#[test]
fn bytewise_and_pipelined_messages_are_understood() {
    let mut bench = Bench::new("bytewise");
    let mut stream = UnixStream::connect(&bench.path).expect("connect");
    let message = Header { request: Req::GET_FEATURES as u32, flags: VERSION, size: 0 }.encode();
    for byte in message {
        stream.write_all(&[byte]).expect("write");
        std::thread::sleep(Duration::from_millis(1));
    }
    stream.write_all(&message.repeat(64)).expect("write");
    let mut frontend = Frontend::over(stream);
    for _ in 0..65 {
        let reply = frontend.connection.read_until(Instant::now() + Duration::from_secs(5)).expect("reply");
        assert_eq!(reply.request, Req::GET_FEATURES as u32);
    }
    drop(frontend);
    healthy(&mut bench);
}

#[test]
fn a_half_sent_message_costs_its_sender_the_connection_and_others_nothing() {
    let mut slow = Bench::new("slow");
    let began = Instant::now();
    let mut stream = UnixStream::connect(&slow.path).expect("connect");
    stream.write_all(&[1, 0, 0]).expect("write");
    let mut frontend = Frontend::over(stream);
    assert!(frontend.is_dropped());
    assert!(began.elapsed() >= Duration::from_secs(1), "it had less time than a message has");
    healthy(&mut slow);
}

#[test]
fn unsupported_requests_are_refused_and_change_nothing() {
    let mut bench = Bench::new("unsupported");
    let mut guest = Guest::start(&bench.path, Features::empty());
    let none: &[BorrowedFd<'_>] = &[];
    let cases: Vec<(Req, &[u8], &[BorrowedFd<'_>])> = vec![
        (Req::SET_BACKEND_REQ_FD, &[], none),
        (Req::IOTLB_MSG, &[0; 32], none),
        (Req::SET_VRING_ENDIAN, &[0; 8], none),
        (Req::CREATE_CRYPTO_SESSION, &[], none),
        (Req::CLOSE_CRYPTO_SESSION, &[0; 8], none),
        (Req::POSTCOPY_ADVISE, &[], none),
        (Req::POSTCOPY_LISTEN, &[], none),
        (Req::POSTCOPY_END, &[], none),
        (Req::GPU_SET_SOCKET, &[], none),
        (Req::VRING_KICK, &[0; 8], none),
        (Req::SET_STATUS, &[0; 8], none),
        (Req::GET_SHARED_OBJECT, &[], none),
        (Req::SET_DEVICE_STATE_FD, &[], none),
        (Req::CHECK_DEVICE_STATE, &[], none),
        (Req::GET_SHMEM_CONFIG, &[], none),
    ];
    for (request, payload, fds) in cases {
        guest.frontend.refused(request, payload, fds);
    }
    let config = Config { offset: 0, flags: 0, data: vec![1; 6] }.to_bytes();
    guest.frontend.refused(Req::SET_CONFIG, &config, &[]);
    for id in [0u32, 45, 1000, u32::MAX] {
        let message = OutMessage { request: id, flags: 0, payload: &[], fds: &[] }.need_reply();
        guest.frontend.connection.send(&message).expect("send");
        let reply =
            guest.frontend.connection.read_until(Instant::now() + Duration::from_secs(5)).expect("reply");
        assert_eq!((reply.request, u64::from_bytes(&reply.payload).expect("u64")), (id, 1));
    }
    moves_packets(&mut bench, &mut guest);
    // Without an answer wanted the connection is all that can go.
    guest.frontend.send(Req::POSTCOPY_LISTEN, &[], &[]);
    assert!(guest.frontend.is_dropped());
    drop(guest);
    healthy(&mut bench);
}

#[test]
fn surplus_descriptors_are_refused_on_every_request() {
    let before = {
        let mut bench = Bench::new("fds");
        healthy(&mut bench);
        let event = eventfd();
        for id in 1..=44u32 {
            for count in [1usize, 2, 9, 32] {
                let single = matches!(id, 5 | 7 | 12 | 13 | 14 | 37 | 38);
                if single && count == 1 {
                    continue;
                }
                let mut frontend = Frontend::connect(&bench.path);
                frontend.negotiate(Features::empty());
                let fds = vec![event.as_fd(); count];
                let message = OutMessage { request: id, flags: 0, payload: &[], fds: &fds }.need_reply();
                frontend.connection.send(&message).expect("send");
                // Either a nack or the end; requests with an answer of their own have no other way.
                let answer = frontend.connection.read_until(Instant::now() + Duration::from_secs(5));
                let refused = match &answer {
                    Ok(reply) => {
                        reply.payload.is_empty() || u64::from_bytes(&reply.payload).is_ok_and(|v| v == 1)
                    }
                    Err(_) => true,
                };
                assert!(refused, "request {id} with {count} descriptors: {answer:?}");
                drop(frontend);
                bench.wait_gone();
            }
        }
        healthy(&mut bench);
        drop(event);
        own_fds()
    };
    let bench = Bench::new("fds");
    drop(bench);
    // The last are closed by the port's helper.
    wait_until("descriptors are closed", || own_fds() <= before);
}

/// Descriptors of kinds that only these tests' peers make.
fn own_fds() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .expect("proc")
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|link| link.to_string_lossy().contains("memfd:frontend"))
        .count()
}

#[test]
fn features_that_were_not_offered_are_refused_bit_by_bit() {
    let bench = Bench::new("features");
    let mut frontend = Frontend::connect(&bench.path);
    frontend.negotiate(Features::empty());
    let offered = frontend.number(Req::GET_FEATURES);
    for bit in 0..64 {
        let asked = (1u64 << bit) | Features::VERSION_1.bits() | Features::PROTOCOL_FEATURES.bits();
        if offered & (1 << bit) != 0 {
            frontend.good(Req::SET_FEATURES, &asked.to_bytes(), &[]);
        } else {
            frontend.refused(Req::SET_FEATURES, &asked.to_bytes(), &[]);
        }
    }
    let offered = frontend.number(Req::GET_PROTOCOL_FEATURES);
    for bit in 0..64 {
        let asked = (1u64 << bit) | ProtocolFeatures::REPLY_ACK.bits();
        let answer = frontend.ask(Req::SET_PROTOCOL_FEATURES, &asked.to_bytes(), &[]).expect("alive");
        assert_eq!(answer == 0, offered & (1 << bit) != 0, "bit {bit}");
    }
}

#[test]
fn memory_tables_are_checked_whole() {
    let bench = Bench::new("memory");
    let mut frontend = Frontend::connect(&bench.path);
    frontend.negotiate(Features::empty());
    frontend.share_memory();
    let good = frontend.region();
    let with = |f: &dyn Fn(&mut MemoryRegion)| {
        let mut region = good;
        f(&mut region);
        vec![region]
    };
    let second = MemoryRegion { guest_addr: GUEST * 100, user_addr: USER * 2, ..good };
    let cases: Vec<(&str, Vec<MemoryRegion>)> = vec![
        ("no bytes", with(&|r| r.size = 0)),
        ("larger than the file", with(&|r| r.size += 1)),
        ("much larger", with(&|r| r.size = 1 << 46)),
        ("half of everything", with(&|r| r.size = 1 << 63)),
        ("everything", with(&|r| r.size = u64::MAX)),
        ("offset behind the file", with(&|r| r.offset = MEMORY as u64)),
        ("offset wraps", with(&|r| r.offset = u64::MAX - 4095)),
        ("guest address wraps", with(&|r| r.guest_addr = u64::MAX - 4096)),
        ("user address wraps", with(&|r| r.user_addr = u64::MAX - 4096)),
        ("identical", vec![good, good]),
        ("guest overlap", vec![good, MemoryRegion { guest_addr: good.guest_addr + 4096, ..second }]),
        ("user overlap", vec![good, MemoryRegion { user_addr: good.user_addr + 4096, ..second }]),
        ("overlap by a byte", vec![good, MemoryRegion { guest_addr: GUEST + MEMORY as u64 - 1, ..second }]),
    ];
    let file = frontend.file.try_clone().expect("dup");
    for (name, regions) in &cases {
        let fds = vec![file.as_fd(); regions.len()];
        let answer = frontend.ask(Req::SET_MEM_TABLE, &MemTable(regions.clone()).to_bytes(), &fds);
        assert!(matches!(answer, Ok(1)), "{name}: {answer:?}");
        if let [region] = regions.as_slice() {
            let answer = frontend.ask(Req::ADD_MEM_REG, &SingleRegion(*region).to_bytes(), &[file.as_fd()]);
            assert!(matches!(answer, Ok(1)), "add {name}: {answer:?}");
        }
    }
    let table = MemTable(vec![good]).to_bytes();
    frontend.refused(Req::SET_MEM_TABLE, &table, &[]);
    frontend.refused(Req::SET_MEM_TABLE, &table, &[file.as_fd(), file.as_fd()]);
    frontend.refused(Req::SET_MEM_TABLE, &table[..39], &[file.as_fd()]);
    // The first table is still in force: rings in it can be described.
    frontend.describe_ring(0, 256, 0);
    // Odd offsets are no reason to refuse, and no regions at all are a table too.
    let odd = MemoryRegion { offset: 0x800, size: 4096, ..good };
    frontend.good(Req::SET_MEM_TABLE, &MemTable(vec![odd]).to_bytes(), &[file.as_fd()]);
    frontend.good(Req::SET_MEM_TABLE, &MemTable(vec![]).to_bytes(), &[]);
}

#[test]
fn only_files_that_cannot_make_us_wait_are_memory() {
    let bench = Bench::new("kinds");
    let mut frontend = Frontend::connect(&bench.path);
    frontend.negotiate(Features::empty());
    let (pipe, _writer) = std::io::pipe().expect("pipe");
    let disk = std::env::temp_dir().join(format!("linecard-region-{}", std::process::id()));
    let read_only = {
        let file = memfd(MEMORY as u64);
        std::fs::File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("reopen")
    };
    let mut kinds: Vec<(&str, OwnedFd)> = vec![
        ("eventfd", eventfd()),
        ("pipe", pipe.into()),
        ("socket", UnixStream::pair().expect("pair").0.into()),
        ("directory", std::fs::File::open("/").expect("open").into()),
        (
            "/dev/zero",
            std::fs::File::options().read(true).write(true).open("/dev/zero").expect("open").into(),
        ),
        ("/proc/self/mem", std::fs::File::open("/proc/self/mem").expect("open").into()),
        ("read only", read_only.into()),
        ("empty", memfd(0).into()),
    ];
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&disk)
        .expect("file");
    file.set_len(MEMORY as u64).expect("len");
    let on_tmpfs =
        std::process::Command::new("stat").args(["-f", "-c", "%T"]).arg(&disk).output().expect("stat");
    if !String::from_utf8_lossy(&on_tmpfs.stdout).contains("tmpfs") {
        kinds.push(("regular file", file.into()));
    }
    for (name, fd) in kinds {
        let table = MemTable(vec![frontend.region()]).to_bytes();
        let answer = frontend.ask(Req::SET_MEM_TABLE, &table, &[fd.as_fd()]);
        assert!(matches!(answer, Ok(1)), "{name}: {answer:?}");
    }
    frontend.share_memory();
    std::fs::remove_file(disk).expect("remove");
}

#[test]
fn ring_descriptions_are_checked() {
    for layout in [Features::empty(), Features::RING_PACKED] {
        let bench = Bench::new("ringdesc");
        let mut frontend = Frontend::connect(&bench.path);
        let state = |index, num| VringState { index, num }.to_bytes();
        frontend.negotiate(layout);
        // Nothing is there yet.
        let early = frontend.vring_addr(0, 256).to_bytes();
        frontend.refused(Req::SET_VRING_ADDR, &early, &[]);
        let kick = VringFd { index: 0, has_fd: false }.to_bytes();
        frontend.refused(Req::SET_VRING_KICK, &kick, &[]);
        frontend.share_memory();
        frontend.refused(Req::SET_VRING_KICK, &kick, &[]);
        for num in [0, 32_769, 65_536, 65_537, 1 << 31, u32::MAX] {
            frontend.refused(Req::SET_VRING_NUM, &state(0, num), &[]);
        }
        for index in [2, 0x100, 0x101, 0x1_0000, 0x1_0001, 1 << 31, u32::MAX] {
            frontend.refused(Req::SET_VRING_NUM, &state(index, 256), &[]);
            frontend.refused(Req::SET_VRING_BASE, &state(index, 0), &[]);
            frontend.refused(Req::SET_VRING_ENABLE, &state(index, 1), &[]);
            let addr = VringAddr { index, ..frontend.vring_addr(0, 256) };
            frontend.refused(Req::SET_VRING_ADDR, &addr.to_bytes(), &[]);
        }
        for word in [2u64, 0x102, 0x200, 0x1_0000, u64::MAX] {
            for request in [Req::SET_VRING_KICK, Req::SET_VRING_CALL, Req::SET_VRING_ERR] {
                frontend.refused(request, &word.to_bytes(), &[]);
            }
        }
        frontend.good(Req::SET_VRING_NUM, &state(0, 256), &[]);
        let good = frontend.vring_addr(0, 256);
        let end = USER + MEMORY as u64;
        let far: Vec<u64> = vec![0, 1, USER - 16, end - 16, end, GUEST, u64::MAX - 15, u64::MAX];
        for addr in far {
            frontend.refused(Req::SET_VRING_ADDR, &VringAddr { desc: addr, ..good }.to_bytes(), &[]);
            if addr != end - 16 || layout == Features::empty() {
                frontend.refused(Req::SET_VRING_ADDR, &VringAddr { avail: addr, ..good }.to_bytes(), &[]);
                frontend.refused(Req::SET_VRING_ADDR, &VringAddr { used: addr, ..good }.to_bytes(), &[]);
            }
        }
        for misaligned in [1, 2, 4, 8] {
            let addr = VringAddr { desc: good.desc + misaligned, ..good };
            frontend.refused(Req::SET_VRING_ADDR, &addr.to_bytes(), &[]);
        }
        frontend.refused(Req::SET_VRING_ADDR, &VringAddr { avail: good.avail + 1, ..good }.to_bytes(), &[]);
        frontend.refused(Req::SET_VRING_ADDR, &VringAddr { used: good.used + 2, ..good }.to_bytes(), &[]);
        frontend.good(Req::SET_VRING_ADDR, &good.to_bytes(), &[]);
        if layout == Features::empty() {
            frontend.refused(Req::SET_VRING_BASE, &state(0, 0x1_0000), &[]);
            // Not a power of two: noticed at the latest when the ring is to start.
            frontend.good(Req::SET_VRING_NUM, &state(0, 255), &[]);
            frontend.refused(Req::SET_VRING_KICK, &kick, &[]);
        } else {
            frontend.good(Req::SET_VRING_BASE, &state(0, 300), &[]);
            frontend.refused(Req::SET_VRING_KICK, &kick, &[]);
        }
    }
}

#[test]
fn notification_descriptors_must_be_eventfds() {
    let bench = Bench::new("events");
    let mut frontend = Frontend::connect(&bench.path);
    frontend.negotiate(Features::empty());
    let (pipe, _writer) = std::io::pipe().expect("pipe");
    let fds: Vec<OwnedFd> = vec![
        memfd(8).into(),
        pipe.into(),
        UnixStream::pair().expect("pair").0.into(),
        std::fs::File::open("/dev/zero").expect("open").into(),
    ];
    let word = VringFd { index: 0, has_fd: true }.to_bytes();
    for fd in &fds {
        for request in [Req::SET_VRING_KICK, Req::SET_VRING_CALL, Req::SET_VRING_ERR] {
            frontend.refused(request, &word, &[fd.as_fd()]);
        }
    }
    let event = eventfd();
    frontend.refused(Req::SET_VRING_CALL, &word, &[]);
    let none = VringFd { index: 0, has_fd: false }.to_bytes();
    frontend.refused(Req::SET_VRING_CALL, &none, &[event.as_fd()]);
    frontend.good(Req::SET_VRING_CALL, &none, &[]);
    frontend.good(Req::SET_VRING_CALL, &word, &[event.as_fd()]);
}

/// The peer shares the open file: it makes writes block again after we had them not to, and fills the counter.
#[test]
fn a_full_call_eventfd_does_not_block_the_poller() {
    let (done, over) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bench = Bench::new("fullcall");
        let mut guest = Guest::start(&bench.path, Features::empty());
        bench.wait_link(true);
        let call = guest.frontend.calls[1].as_raw_fd();
        common::take_count(&guest.frontend.calls[1]);
        // SAFETY: takes integers; clears all flags that can be, O_NONBLOCK among them.
        assert_eq!(unsafe { libc::fcntl(call, libc::F_SETFL, 0) }, 0);
        let full = (u64::MAX - 1).to_ne_bytes();
        // SAFETY: reads the eight bytes of `full`.
        assert_eq!(unsafe { libc::write(call, full.as_ptr().cast(), 8) }, 8);
        guest.tx.interrupts(true);
        moves_packets(&mut bench, &mut guest);
        assert!(common::take_count(&guest.frontend.calls[1]) >= u64::MAX - 1);
        done.send(()).expect("the test waits");
    });
    over.recv_timeout(std::time::Duration::from_secs(20)).expect("the poller must not sleep in a write");
}

#[test]
fn a_running_ring_is_not_reconfigured() {
    let mut bench = Bench::new("running");
    let mut guest = Guest::start(&bench.path, Features::empty());
    bench.wait_link(true);
    let state = |num| VringState { index: 0, num }.to_bytes();
    let frontend = &mut guest.frontend;
    frontend.refused(Req::SET_VRING_NUM, &state(128), &[]);
    frontend.refused(Req::SET_VRING_NUM, &state(32_768), &[]);
    frontend.refused(Req::SET_VRING_BASE, &state(5), &[]);
    let nowhere = VringAddr { desc: USER + MEMORY as u64, ..frontend.vring_addr(0, SIZE) };
    frontend.refused(Req::SET_VRING_ADDR, &nowhere.to_bytes(), &[]);
    let other = frontend.features.bits() | Features::NET_MRG_RXBUF.bits();
    frontend.refused(Req::SET_FEATURES, &other.to_bytes(), &[]);
    // What changes nothing is no change.
    frontend.good(Req::SET_VRING_NUM, &state(u32::from(SIZE)), &[]);
    let same = frontend.vring_addr(0, SIZE).to_bytes();
    frontend.good(Req::SET_VRING_ADDR, &same, &[]);
    let same = frontend.features.bits().to_bytes();
    frontend.good(Req::SET_FEATURES, &same, &[]);
    moves_packets(&mut bench, &mut guest);
}

/// Payload and number of descriptors of a request.
type Make = fn(&Frontend) -> (Vec<u8>, usize);

#[test]
fn every_pair_of_requests_in_every_state_is_survived() {
    let requests: [(Req, Make); 13] = [
        (Req::SET_VRING_NUM, |_| (VringState { index: 0, num: 64 }.to_bytes(), 0)),
        (Req::SET_VRING_ADDR, |f| (f.vring_addr(0, 64).to_bytes(), 0)),
        (Req::SET_VRING_BASE, |_| (VringState { index: 0, num: 9 }.to_bytes(), 0)),
        (Req::SET_VRING_KICK, |_| (VringFd { index: 0, has_fd: false }.to_bytes(), 0)),
        (Req::SET_VRING_CALL, |_| (VringFd { index: 0, has_fd: false }.to_bytes(), 0)),
        (Req::SET_VRING_ENABLE, |_| (VringState { index: 0, num: 0 }.to_bytes(), 0)),
        (Req::SET_MEM_TABLE, |f| (MemTable(vec![f.region()]).to_bytes(), 1)),
        (Req::REM_MEM_REG, |f| (SingleRegion(f.region()).to_bytes(), 0)),
        (Req::SET_FEATURES, |_| (Features::VERSION_1.bits().to_bytes(), 0)),
        (Req::SET_PROTOCOL_FEATURES, |_| (ProtocolFeatures::REPLY_ACK.bits().to_bytes(), 0)),
        (Req::RESET_OWNER, |_| (vec![], 0)),
        (Req::SET_OWNER, |_| (vec![], 0)),
        (Req::SET_VRING_ERR, |_| (VringFd { index: 1, has_fd: false }.to_bytes(), 0)),
    ];
    let mut bench = Bench::new("pairs");
    for running in [false, true] {
        for (first, first_payload) in &requests {
            for (second, second_payload) in &requests {
                let mut frontend = Frontend::connect(&bench.path);
                if running {
                    frontend.bring_up(Features::NET_MRG_RXBUF, 256);
                } else {
                    frontend.negotiate(Features::NET_MRG_RXBUF);
                }
                for (request, make) in [(first, first_payload), (second, second_payload)] {
                    let (payload, fds) = make(&frontend);
                    let file = frontend.file.try_clone().expect("dup");
                    let fds = vec![file.as_fd(); fds];
                    let answer = frontend.ask(*request, &payload, &fds);
                    assert!(matches!(answer, Ok(0 | 1)), "{first:?} {second:?}: {answer:?}");
                    let mut packets = linecard_mempool::Burst::new();
                    linecard_pmd::RxQueue::rx_burst(&mut bench.rx, &mut packets);
                    linecard_pmd::TxQueue::tx_burst(&mut bench.tx, &mut packets);
                }
                // Stopping twice, and what was never started, is answered.
                for _ in 0..2 {
                    frontend.stop_ring(0);
                    frontend.stop_ring(1);
                }
                drop(frontend);
                bench.wait_gone();
            }
        }
    }
    healthy(&mut bench);
}

/// QEMU warns at each start of a network card whose backend offers a configuration.
#[test]
fn configuration_is_offered_on_demand_only() {
    let bench = Bench::new("no-config");
    let mut frontend = Frontend::connect(&bench.path);
    frontend.negotiate(Features::empty());
    let offered = ProtocolFeatures::from_bits_retain(frontend.number(Req::GET_PROTOCOL_FEATURES));
    assert!(!offered.contains(ProtocolFeatures::CONFIG), "{offered:?}");
    let ask = Config { offset: 0, flags: 0, data: vec![0; 6] }.to_bytes();
    assert!(frontend.get(Req::GET_CONFIG, &ask).is_empty(), "an answer to what was not negotiated");
    let protocol = (offered | ProtocolFeatures::CONFIG).bits().to_bytes();
    frontend.refused(Req::SET_PROTOCOL_FEATURES, &protocol, &[]);
}

#[test]
fn configuration_reads_are_bounded() {
    let bench = Bench::with_config_space("config");
    let mut frontend = Frontend::connect(&bench.path);
    frontend.negotiate(Features::empty());
    let ask = |offset, len| Config { offset, flags: 0, data: vec![0; len] }.to_bytes();
    let reply = frontend.get(Req::GET_CONFIG, &ask(0, 12));
    let config = Config::from_bytes(&reply).expect("config");
    assert_eq!(config.data, [0x56, 0x48, 0x4f, 0x53, 0x54, 0, 1, 0, 1, 0, 0xdc, 0x05]);
    for (offset, len) in [(0, 257), (256, 1), (255, 2), (u32::MAX, 1), (1 << 31, 0)] {
        assert!(frontend.get(Req::GET_CONFIG, &ask(offset, len)).is_empty(), "{offset} {len}");
    }
    assert_eq!(
        Config::from_bytes(&frontend.get(Req::GET_CONFIG, &ask(0, 256))).expect("all").data.len(),
        256
    );
    frontend.good(Req::NET_SET_MTU, &9000u64.to_bytes(), &[]);
    assert_eq!(bench.backend.peer().mtu(), Some(9000));
    for mtu in [0u64, 67, 65_536, u64::MAX] {
        frontend.refused(Req::NET_SET_MTU, &mtu.to_bytes(), &[]);
    }
    assert_eq!(frontend.number(Req::GET_QUEUE_NUM), 1);
    assert_eq!(frontend.number(Req::GET_MAX_MEM_SLOTS), 509);
}
