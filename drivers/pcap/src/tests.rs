//! The contract, both formats both ways, and files that will not do.

mod skipped;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use linecard_eal::memory::{Memory, MemoryConfig};
use linecard_mempool::{Burst, Packet, PoolConfig};

use super::*;
use linecard_capture::pcap::encode::{self, Direction, Format, Record};
use linecard_capture::pcap::read::{Damage, Reader};
use linecard_lab::contract::{Ends, FarEnd, Limits, Link as Subject};
use linecard_pmd::config::configure;

/// A folder of one test, removed with everything in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lc-pcap-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn with(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.file(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn frames() -> Vec<(u64, Vec<u8>)> {
    let frame = |i: u32| (0..60 + i * 13).map(|byte| (byte * 7 + i) as u8).collect();
    (0..9).map(|i| (1_700_000_000_123_456_000 + u64::from(i) * 1_001_000, frame(i))).collect()
}

fn encoded(format: Format) -> Vec<u8> {
    let mut file = Vec::new();
    format.header(&mut file, 65_535);
    if format == Format::PcapNg {
        encode::interface(&mut file, "veth0", 65_535, "tcp");
    }
    for (time, frame) in frames() {
        let (front, back) = frame.split_at(17);
        let len = frame.len() as u32;
        let record = Record {
            time,
            len,
            direction: Direction::In,
            queue: Some(3),
            comment: "why",
            ..Record::default()
        };
        format.record(&mut file, &record, &[front, back]);
    }
    if format == Format::PcapNg {
        encode::statistics(&mut file, 0, 1, 9, 0);
    }
    file
}

/// A classic file by hand, with either byte order and unit.
fn classic(big: bool, nano: bool, link: u32) -> Vec<u8> {
    let word = |value: u32| if big { value.to_be_bytes() } else { value.to_le_bytes() };
    let half = |value: u16| if big { value.to_be_bytes() } else { value.to_le_bytes() };
    let mut file = word(if nano { 0xa1b2_3c4d } else { 0xa1b2_c3d4 }).to_vec();
    file.extend([half(2), half(4)].concat());
    file.extend([word(0), word(0), word(65_535), word(link)].concat());
    for (time, frame) in frames() {
        let fraction = (time % 1_000_000_000) as u32 / if nano { 1 } else { 1000 };
        let len = frame.len() as u32;
        file.extend([word((time / 1_000_000_000) as u32), word(fraction), word(len), word(len)].concat());
        file.extend(frame);
    }
    file
}

/// A big-endian pcapng file by hand, with microseconds, as the format's default is.
fn big_pcapng() -> Vec<u8> {
    fn block(file: &mut Vec<u8>, kind: u32, body: &[u8]) {
        let len = (body.len() as u32 + 12).to_be_bytes();
        file.extend([&kind.to_be_bytes(), &len[..], body, &len[..]].concat());
    }
    let mut file = Vec::new();
    let section = [&0x1a2b_3c4d_u32.to_be_bytes()[..], &[0, 1, 0, 0], &[0xff; 8]].concat();
    block(&mut file, 0x0a0d_0d0a, &section);
    block(&mut file, 1, &[0, 1, 0, 0, 0, 0, 0xff, 0xff]);
    for (time, frame) in frames() {
        let (time, len) = (time / 1000, frame.len() as u32);
        let mut body = Vec::new();
        for word in [0, (time >> 32) as u32, time as u32, len, len] {
            body.extend(word.to_be_bytes());
        }
        body.extend(&frame);
        body.resize(20 + frame.len().next_multiple_of(4), 0);
        block(&mut file, 6, &body);
    }
    file
}

fn read(path: &str) -> Result<Vec<(u64, Vec<u8>)>, Damage> {
    let mut reader = Reader::open(Path::new(path))?;
    let mut all = Vec::new();
    while reader.ready()? {
        all.push((reader.time(), reader.frame().to_vec()));
        reader.advance();
    }
    Ok(all)
}

fn context() -> ProbeContext {
    let memory = Memory::new(MemoryConfig::default()).expect("memory");
    let domain = memory.domain("test").expect("a domain");
    ProbeContext::new(memory, domain, Duration::ZERO)
}

fn pool(context: &ProbeContext) -> Pool {
    let config = PoolConfig::default().packets(512).cache(0);
    Pool::new(&context.domain, config).expect("a pool")
}

fn probe(text: &str) -> Result<Box<dyn Device>, Error> {
    PcapDriver.probe(&context(), &DevArgs::parse(text)?)
}

fn refusal(text: &str) -> String {
    probe(text).err().unwrap_or_else(|| panic!("{text} is accepted")).to_string()
}

fn start(device: Box<dyn Device>, pool: &Pool) -> Port {
    let info = device.info();
    let config = PortConfig::default().rx_queues(info.max_rx_queues).tx_queues(info.max_tx_queues);
    configure(device, config).and_then(|port| port.start(pool)).expect("starts")
}

fn bytes(packet: &Packet) -> Vec<u8> {
    packet.segments().flat_map(|segment| segment.data().to_vec()).collect()
}

/// What a queue receives until it gives nothing.
fn receive(rx: &mut dyn RxQueue) -> Vec<Vec<u8>> {
    let (mut all, mut burst) = (Vec::new(), Burst::with_capacity(4));
    while rx.rx_burst(&mut burst) > 0 {
        all.extend(burst.iter().map(bytes));
        burst.clear();
    }
    all
}

#[test]
fn every_kind_of_file_is_read() {
    let scratch = Scratch::new();
    let kinds = [
        encoded(Format::Pcap),
        encoded(Format::PcapNg),
        classic(false, false, 1),
        classic(false, true, 1),
        classic(true, false, 1),
        classic(true, true, 1),
        big_pcapng(),
    ];
    for (i, kind) in kinds.iter().enumerate() {
        let path = scratch.with(&format!("{i}.cap"), kind);
        assert!(read(&path).expect("whole") == frames(), "kind {i}");
        let pool = pool(&context());
        let mut port = start(probe(&format!("net_pcap0,rx_pcap={path}")).expect("probes"), &pool);
        let want: Vec<_> = frames().into_iter().map(|(_, frame)| frame).collect();
        assert!(receive(&mut *port.rx[0]) == want, "kind {i}");
        let stats = port.control.stats();
        assert_eq!(stats.ipackets, 9);
        assert_eq!(stats.ibytes, want.iter().map(|frame| frame.len() as u64).sum::<u64>());
        // A stopped port begins again.
        let mut port = start(port.stop(), &pool);
        assert_eq!(receive(&mut *port.rx[0]).len(), 9);
        port.stop();
        assert_eq!(pool.stats().in_use, 0);
    }
}

#[test]
fn what_is_sent_is_in_the_file_after_every_burst() {
    for name in ["out.pcap", "out.pcapng"] {
        let scratch = Scratch::new();
        let (input, path) = (scratch.with("in", &encoded(Format::Pcap)), scratch.file(name));
        let pool = pool(&context());
        let text = format!("net_pcap0,rx_pcap={input},tx_pcap={path}");
        let mut port = start(probe(&text).expect("probes"), &pool);
        let mut burst = Burst::with_capacity(5);
        let mut sent = 0;
        while port.rx[0].rx_burst(&mut burst) > 0 {
            sent += port.tx[0].tx_burst(&mut burst);
            assert_eq!(read(&path).expect("whole").len(), sent, "nothing is kept back");
        }
        let written = read(&path).expect("whole");
        assert!(written.iter().map(|(_, frame)| frame).eq(frames().iter().map(|(_, frame)| frame)));
        let now = encode::now();
        assert!(written.iter().all(|(time, _)| *time <= now && now - time < 60_000_000_000));
        assert_eq!(port.control.stats().opackets, 9);
        // Started again, the port goes on in the same file.
        let mut port = start(port.stop(), &pool);
        port.rx[0].rx_burst(&mut burst);
        port.tx[0].tx_burst(&mut burst);
        port.stop();
        assert_eq!(read(&path).expect("whole").len(), 14);
    }
}

#[test]
fn long_frames_are_chains_and_snaplen_cuts() {
    let scratch = Scratch::new();
    let long: Vec<u8> = (0..9000_u32).map(|i| i as u8).collect();
    let mut file = Vec::new();
    Format::Pcap.header(&mut file, 65_535);
    Format::Pcap.record(&mut file, &Record { len: 9000, ..Record::default() }, &[&long]);
    let (input, path) = (scratch.with("in", &file), scratch.file("out"));
    let pool = pool(&context());
    let device = probe(&format!("net_pcap0,rx_pcap={input},tx_pcap={path},snaplen=2500")).expect("probes");
    let mut port = start(device, &pool);
    let mut burst = Burst::new();
    assert_eq!(port.rx[0].rx_burst(&mut burst), 1);
    assert_eq!((burst[0].nb_segs(), bytes(&burst[0])), (5, long.clone()));
    port.tx[0].tx_burst(&mut burst);
    assert_eq!((port.control.stats().ibytes, port.control.stats().obytes), (9000, 9000));
    port.stop();
    let mut reader = Reader::open(Path::new(&path)).expect("opens");
    assert!(reader.ready().expect("whole"));
    assert_eq!((reader.frame(), reader.wire_len()), (&long[..2500], 9000));
}

#[test]
fn files_are_queues() {
    let scratch = Scratch::new();
    let (a, b) = (scratch.with("a", &encoded(Format::Pcap)), scratch.with("b", &encoded(Format::PcapNg)));
    let (x, y) = (scratch.file("x"), scratch.file("y"));
    let pool = pool(&context());
    let device =
        probe(&format!("net_pcap0,rx_pcap={a},tx_pcap={x},rx_pcap={b},tx_pcap={y}")).expect("probes");
    assert_eq!((device.info().max_rx_queues, device.info().max_tx_queues), (2, 2));
    let mut port = start(device, &pool);
    for i in 0..2 {
        let mut burst = Burst::with_capacity(4 + i);
        port.rx[i].rx_burst(&mut burst);
        port.tx[i].tx_burst(&mut burst);
        assert_eq!(port.control.queue_stats(i as u16).opackets, 4 + i as u64);
    }
    port.stop();
    assert_eq!((read(&x).expect("whole").len(), read(&y).expect("whole").len()), (4, 5));
    // Only read: what is sent is dropped and counted. Only written: nothing is received.
    let mut port = start(probe(&format!("net_pcap0,rx_pcap={a},rx_pcap={b}")).expect("probes"), &pool);
    let mut burst = Burst::new();
    port.rx[1].rx_burst(&mut burst);
    assert_eq!((port.tx[1].tx_burst(&mut burst), port.control.stats().opackets), (9, 9));
    let mut port = start(probe(&format!("net_pcap1,tx_pcap={x}")).expect("probes"), &pool);
    assert_eq!(port.rx[0].rx_burst(&mut Burst::new()), 0);
    port.stop();
}

#[test]
fn a_loop_repeats_and_a_rate_holds() {
    let scratch = Scratch::new();
    let input = scratch.with("in", &encoded(Format::PcapNg));
    let pool = pool(&context());
    let mut port = start(probe(&format!("net_pcap0,rx_pcap={input},infinite_rx=1")).expect("probes"), &pool);
    let (mut burst, mut got) = (Burst::new(), Vec::new());
    for _ in 0..7 {
        assert_eq!(port.rx[0].rx_burst(&mut burst), 64);
        got.extend(burst.iter().map(bytes));
        burst.clear();
    }
    let all = frames();
    assert!(got.iter().enumerate().all(|(i, frame)| *frame == all[i % 9].1));
    port.stop();

    let text = format!("net_pcap0,rx_pcap={input},infinite_rx=1,rate=2000");
    // Before the port's clock begins, however long the thread has to wait for its core in between.
    let (begin, mut count) = (Instant::now(), 0);
    let mut port = start(probe(&text).expect("probes"), &pool);
    // A machine that is busy elsewhere may lose packets of the rate, never gain any.
    while count < 300 {
        assert!(begin.elapsed() < Duration::from_secs(60), "{count} packets in a minute");
        count += port.rx[0].rx_burst(&mut burst);
        let most = begin.elapsed().as_micros() as usize / 500 + 1;
        assert!(count <= most, "{count} packets, {most} were due");
        burst.clear();
    }
    port.stop();
}

#[test]
fn original_timing_keeps_packets_apart() {
    let scratch = Scratch::new();
    let mut file = Vec::new();
    Format::Pcap.header(&mut file, 65_535);
    for time in [5_000_000_000, 5_000_000_000, 5_040_000_000] {
        Format::Pcap.record(&mut file, &Record { time, len: 3, ..Record::default() }, &[b"abc"]);
    }
    let input = scratch.with("in", &file);
    let pool = pool(&context());
    for (infinite, most) in [(0, 3), (1, 9)] {
        let text = format!("net_pcap0,rx_pcap={input},timing=original,infinite_rx={infinite}");
        let mut port = start(probe(&text).expect("probes"), &pool);
        let (mut burst, mut at) = (Burst::new(), Vec::new());
        let begin = Instant::now();
        while at.len() < most && begin.elapsed() < Duration::from_secs(60) {
            let count = port.rx[0].rx_burst(&mut burst);
            at.extend(std::iter::repeat_n(begin.elapsed().as_millis(), count));
            burst.clear();
        }
        // Rounds of 40 ms: the third of a round and the first two of the next come together.
        for (i, at) in at.iter().enumerate() {
            assert!(*at >= ((i + 1) / 3) as u128 * 40, "packet {i} at {at} ms");
        }
        assert!(at.len() >= most);
        port.stop();
    }
}

#[test]
fn a_file_cut_anywhere_is_refused_or_shorter() {
    let scratch = Scratch::new();
    for format in [Format::Pcap, Format::PcapNg] {
        let whole = encoded(format);
        let mut boundaries = 0;
        for end in 0..whole.len() {
            let path = scratch.with("cut", &whole[..end]);
            match read(&path) {
                Ok(got) => {
                    assert!(got[..] == frames()[..got.len()], "cut at {end}");
                    boundaries += 1;
                }
                Err(Damage::Truncated(n)) => assert!(n < 9 || format == Format::PcapNg),
                Err(Damage::NoCapture) => assert!(end < 100, "cut at {end}"),
                Err(other) => panic!("cut at {end}: {other}"),
            }
        }
        // Behind the head and behind each frame but the last; pcapng has three more blocks.
        assert_eq!(boundaries, if format == Format::Pcap { 9 } else { 11 });
    }
    let path = scratch.with("cut", &encoded(Format::Pcap)[..200]);
    assert_eq!(
        refusal(&format!("net_pcap0,rx_pcap={path}")),
        format!(
            "net_pcap0: {path} is truncated: it ends in the middle of a record, behind packet 2; \
             keep the packets before that place with `editcap FILE WHOLE`, and name that file"
        )
    );
}

#[test]
fn damage_anywhere_harms_nobody() {
    let scratch = Scratch::new();
    for whole in [encoded(Format::Pcap), encoded(Format::PcapNg), classic(true, false, 1), big_pcapng()] {
        for at in 0..whole.len().min(400) {
            for change in [0x01, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= change;
                let path = scratch.with("damaged", &bytes);
                // Whatever it says; what it gives is never more than the file holds.
                let got = read(&path).unwrap_or_default();
                assert!(got.iter().map(|(_, frame)| frame.len()).sum::<usize>() <= bytes.len());
            }
        }
    }
}

#[test]
fn a_file_that_is_cut_while_it_is_read_stops_its_queue() {
    let scratch = Scratch::new();
    let path = scratch.with("in", &encoded(Format::Pcap));
    let pool = pool(&context());
    let device = probe(&format!("net_pcap0,rx_pcap={path}")).expect("probes");
    std::fs::write(&path, &encoded(Format::Pcap)[..500]).expect("cut");
    let mut port = start(device, &pool);
    assert_eq!(receive(&mut *port.rx[0]).len(), 4);
    assert_eq!(port.rx[0].rx_burst(&mut Burst::new()), 0);
    let stats = port.control.stats();
    assert_eq!((stats.ipackets, stats.ierrors), (4, 1), "once");
    assert!(port.control.xstats().contains(&("rx_q0_damaged_file".to_owned(), 1)));
    port.stop();
}

#[test]
fn a_full_device_is_counted_and_does_not_begin() {
    let pool = pool(&context());
    let device = probe("net_pcap0,tx_pcap=/dev/full").expect("probes");
    let refused =
        configure(device, PortConfig::default()).and_then(|port| port.start(&pool)).expect_err("full");
    let message = refused.error.to_string();
    assert!(message.starts_with("net_pcap0: /dev/full cannot be written: No space left"), "{message}");
}

#[test]
fn a_block_shorter_than_its_own_head_is_damage() {
    for len in [0, 4, 8, 11, 12, 15] {
        // A section header of the one byte order, then a process information block.
        let little: Vec<u32> =
            vec![0x0a0d_0d0a, 28, 0x1a2b_3c4d, 1, !0, !0, 28, 0x8000_0001, len, 0, 0, 0, 0];
        for bytes in [little.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>(), {
            little.iter().flat_map(|w| w.to_be_bytes()).collect()
        }] {
            let mut reader = Reader::of(std::io::Cursor::new(bytes), 4096).expect("a section");
            assert!(matches!(reader.ready(), Err(Damage::Damaged(0))), "{len}");
        }
    }
}

#[test]
fn a_file_that_is_read_is_not_written_over() {
    let scratch = Scratch::new();
    let (file, link) = (scratch.with("in.pcap", &encoded(Format::Pcap)), scratch.file("link.pcap"));
    std::fs::hard_link(&file, &link).expect("the same file by another name");
    let before = std::fs::metadata(&file).expect("there").len();
    let used = |name: &str, path: &str| {
        format!("{name}: {path} is read or written by a port already; give each tx_pcap a file of its own")
    };
    assert_eq!(refusal(&format!("net_pcap0,rx_pcap={file},tx_pcap={link}")), used("net_pcap0", &link));
    let reader = probe(&format!("net_pcap0,rx_pcap={file}")).expect("probes");
    let another = probe(&format!("net_pcap1,rx_pcap={link}")).expect("many may read");
    assert_eq!(refusal(&format!("net_pcap2,tx_pcap={file}")), used("net_pcap2", &file));
    assert_eq!(std::fs::metadata(&file).expect("there").len(), before);
    drop((reader, another));
    let writer = probe(&format!("net_pcap0,tx_pcap={file}")).expect("nobody reads it any more");
    assert_eq!(refusal(&format!("net_pcap1,rx_pcap={link}")), used("net_pcap1", &link));
    drop(writer);
}

#[test]
fn a_file_that_was_not_begun_is_not_left() {
    let scratch = Scratch::new();
    let (new, old) = (scratch.file("new"), scratch.with("old", b"precious"));
    let device = probe(&format!("net_pcap0,tx_pcap={new},tx_pcap={old}")).expect("probes");
    assert!(Path::new(&new).exists());
    let locked = refusal(&format!("net_pcap1,tx_pcap={old}"));
    assert_eq!(
        locked,
        format!("net_pcap1: {old} is read or written by a port already; give each tx_pcap a file of its own")
    );
    drop(device);
    assert!(!Path::new(&new).exists());
    assert_eq!(std::fs::read(&old).expect("there"), b"precious");
    // A second file that cannot be had takes the first one with it.
    refusal(&format!("net_pcap0,tx_pcap={new},tx_pcap={}", scratch.file("no/such/folder")));
    assert!(!Path::new(&new).exists());
}

#[test]
fn what_cannot_be_is_refused() {
    let scratch = Scratch::new();
    let text = scratch.with("text", b"this is no capture, but it is long enough to be one");
    let empty = scratch.with("empty", b"");
    let wifi = scratch.with("wifi", &classic(false, false, 105));
    let none = scratch.with("none", &encoded(Format::Pcap)[..24]);
    let folder = scratch.0.display().to_string();
    for (arguments, want) in [
        (String::new(), "net_pcap0: there is no file; name one with".to_owned()),
        (format!("rx_pcap={text}"), format!("{text} is no capture file: it begins neither like pcap")),
        (format!("rx_pcap={empty}"), format!("{empty} is no capture file")),
        (format!("rx_pcap={wifi}"), format!("{wifi} has frames of link type 105, not Ethernet (1)")),
        (format!("rx_pcap={none},infinite_rx=1"), format!("{none} has no packet to repeat")),
        (format!("rx_pcap={folder}"), format!("{folder} is no file")),
        (format!("rx_pcap={folder}/no"), "cannot be opened: No such file or directory".to_owned()),
        (format!("tx_pcap={folder}"), format!("{folder} cannot be written: Is a directory")),
        (format!("tx_pcap={folder}/no/no"), "cannot be written: No such file or directory".to_owned()),
        (format!("tx_pcap={none},rx_pcap={none}"), format!("{none} is named twice, once to be written")),
        (format!("tx_pcap={text},tx_pcap={text}"), format!("{text} is named twice")),
        ("rx_iface=eth0".to_owned(), "use net_af_packet0,iface=eth0".to_owned()),
        ("iface=eth0".to_owned(), "use net_af_packet0,iface=eth0".to_owned()),
        (format!("rx_pcap={none},phy_mac=1"), "'phy_mac=1' asks for the address of an interface".to_owned()),
        (format!("tx_pcap={none},rate=5"), "'rate' has no effect without rx_pcap".to_owned()),
        (format!("tx_pcap={none},infinite_rx=1"), "'infinite_rx' has no effect without rx_pcap".to_owned()),
        (format!("tx_pcap={none},timing=original"), "'timing' has no effect without rx_pcap".to_owned()),
        (format!("rx_pcap={none},snaplen=60"), "'snaplen' has no effect without tx_pcap".to_owned()),
        (format!("rx_pcap={none},rate=0"), "give rate a number from 1".to_owned()),
        (format!("rx_pcap={none},rate=5,timing=original"), "exclude each other".to_owned()),
        (format!("rx_pcap={none},infinit_rx=1"), "did you mean".to_owned()),
        ("rx_pcap=".to_owned(), "'rx_pcap' has no file".to_owned()),
    ] {
        let said = refusal(&format!("net_pcap0,{arguments}"));
        assert!(said.starts_with("net_pcap0: ") && said.contains(&want), "{arguments}: {said}");
    }
    assert_eq!(std::fs::read(&text).expect("there").len(), 51, "nothing was written");
}

/// Receives the same frames for ever, writes to a file; the folder lives as long as the process.
struct Files;

impl Subject for Files {
    fn open(&self, near: &ProbeContext, _: &ProbeContext) -> Ends {
        let scratch = std::mem::ManuallyDrop::new(Scratch::new());
        let input = scratch.with("in", &encoded(Format::PcapNg));
        let mut text = format!("net_pcap0,infinite_rx=1,rx_pcap={input},rx_pcap={input}");
        text += &format!(",tx_pcap={},tx_pcap={}", scratch.file("a.pcapng"), scratch.file("b.pcap"));
        let args = DevArgs::parse(&text).expect("well formed");
        let device = PcapDriver.probe(near, &args).expect("probes");
        Ends {
            near: Box::new(Kept { device: Some(device), _scratch: Scratch(scratch.0.clone()) }),
            far: FarEnd::Nothing,
        }
    }

    fn limits(&self) -> Limits {
        Limits { len: 1..=9000, segments: 255, ..Limits::default() }
    }
}

/// A device that takes its folder with it.
struct Kept {
    device: Option<Box<dyn Device>>,
    _scratch: Scratch,
}

impl Kept {
    fn device(&self) -> &dyn Device {
        self.device.as_deref().expect("there until started")
    }
}

impl Device for Kept {
    fn name(&self) -> &str {
        self.device().name()
    }

    fn info(&self) -> DeviceInfo {
        self.device().info()
    }

    fn start(mut self: Box<Self>, config: &PortConfig, pool: &Pool) -> Result<Port, StartError> {
        let port = self.device.take().expect("there until started").start(config, pool)?;
        let Port { rx, tx, control, running } = port;
        Ok(Port { rx, tx, control, running: Box::new(KeptRunning { running, kept: self }) })
    }
}

struct KeptRunning {
    running: Box<dyn Running>,
    kept: Box<Kept>,
}

impl Running for KeptRunning {
    fn stop(self: Box<Self>, rx: Vec<Box<dyn RxQueue>>, tx: Vec<Box<dyn TxQueue>>) -> Box<dyn Device> {
        let Self { running, mut kept } = *self;
        kept.device = Some(running.stop(rx, tx));
        kept
    }
}

mod contract {
    linecard_lab::contract_tests!(super::Files);
}
