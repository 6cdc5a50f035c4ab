//! The contract with and without faults, and what each fault does, counted.

use std::time::Duration;

use linecard_eal::memory::{Memory, MemoryConfig};
use linecard_mempool::PoolConfig;

use super::*;
use linecard_lab::contract::{Ends, FarEnd, Limits, Link as Subject};
use linecard_net_null::NullDriver;
use linecard_net_ring::RingDriver;
use linecard_pmd::config::configure;

static IMPAIR: ImpairDriver = ImpairDriver::new(drivers);

fn drivers() -> Registry {
    Registry::new(&[&NullDriver, &RingDriver, &IMPAIR])
}

struct Subjects(&'static str);

impl Subject for Subjects {
    fn open(&self, near: &ProbeContext, _: &ProbeContext) -> Ends {
        let device = drivers().probe(near, &format!("net_impair0,on=[net_ring0]{}", self.0));
        Ends { near: device.expect("probes"), far: FarEnd::Loop }
    }

    fn limits(&self) -> Limits {
        Limits { len: 1..=9000, segments: 8, ..Limits::default() }
    }
}

mod without_faults {
    linecard_lab::contract_tests!(super::Subjects(""));
}

mod late_but_whole {
    linecard_lab::contract_tests!(super::Subjects(",delay=50us,rate=100gbit"));
}

mod twice_impaired {
    use super::*;

    struct Nested;

    impl Subject for Nested {
        fn open(&self, near: &ProbeContext, _: &ProbeContext) -> Ends {
            let text = "net_impair0,on=[net_impair1,on=[net_ring0]],rx_limit=8";
            Ends { near: drivers().probe(near, text).expect("probes"), far: FarEnd::Loop }
        }
    }

    linecard_lab::contract_tests!(Nested);
}

fn setup() -> (ProbeContext, Pool) {
    let memory = Memory::new(MemoryConfig::default()).expect("memory");
    let domain = memory.domain("test").expect("a domain");
    let pool = Pool::new(&domain, PoolConfig::default().packets(4096).cache(0)).expect("a pool");
    (ProbeContext::new(memory, domain, Duration::ZERO), pool)
}

fn start(context: &ProbeContext, pool: &Pool, text: &str) -> Port {
    let device = drivers().probe(context, text).expect(text);
    configure(device, PortConfig::default()).and_then(|port| port.start(pool)).expect("starts")
}

fn count(port: &Port, name: &str) -> u64 {
    let named = port.control.xstats().into_iter().find(|(known, _)| known == name);
    named.unwrap_or_else(|| panic!("no {name}")).1
}

/// Sends `total` numbered packets through a line that goes to a ring and back; gives what comes out.
fn through(text: &str, total: u32) -> (Vec<Vec<u8>>, Port, Pool) {
    let (context, pool) = setup();
    let mut port = start(&context, &pool, &format!("net_impair0,on=[net_ring0],{text}"));
    let (mut out, mut next, mut idle) = (Vec::new(), 0_u32, 0);
    let mut burst = Burst::new();
    while idle < 2000 {
        while next < total && burst.len() < 32 {
            let mut packet = pool.get().expect("enough packets");
            packet.append(64).expect("room").fill(0);
            packet.data_mut().unwrap()[..4].copy_from_slice(&next.to_be_bytes());
            burst.push(packet).expect("room");
            next += 1;
        }
        port.tx[0].tx_burst(&mut burst);
        port.tx[0].reclaim();
        let mut got = Burst::new();
        idle = if port.rx[0].rx_burst(&mut got) == 0 && next == total { idle + 1 } else { 0 };
        if idle > 0 {
            std::thread::sleep(Duration::from_micros(20));
        }
        out.extend(got.iter().map(|packet| packet.data().to_vec()));
    }
    (out, port, pool)
}

fn numbers(frames: &[Vec<u8>]) -> Vec<u32> {
    frames.iter().map(|frame| u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]])).collect()
}

/// Whether `hits` of `n` draws with chance `p` is within five standard deviations.
fn likely(hits: u64, n: f64, p: f64) -> bool {
    (hits as f64 - n * p).abs() < 5.0 * (n * p * (1.0 - p)).sqrt()
}

const N: u32 = 20_000;

#[test]
fn losses_are_as_many_as_asked_and_all_counted() {
    let (out, port, pool) = through("tx_loss=10%,seed=3", N);
    let lost = count(&port, "tx_q0_lost");
    assert_eq!(out.len() as u64 + lost, u64::from(N));
    assert!(likely(lost, N.into(), 0.1), "{lost}");
    assert!(numbers(&out).is_sorted(), "the others are in order");
    let stats = port.control.stats();
    assert_eq!((stats.opackets, stats.ipackets, stats.oerrors), (N.into(), out.len() as u64, 0));
    port.stop();
    assert_eq!(pool.stats().in_use, 0);
    let (out, port, _) = through("loss=1", 1000);
    assert_eq!((out.len(), count(&port, "tx_q0_lost")), (0, 1000));
}

#[test]
fn duplicates_come_behind_their_originals() {
    let (out, port, _) = through("rx_duplicate=5%", N);
    let twice = count(&port, "rx_q0_duplicated");
    assert_eq!(out.len() as u64, u64::from(N) + twice);
    assert!(likely(twice, N.into(), 0.05), "{twice}");
    let repeated = out.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64;
    assert_eq!(repeated, twice);
}

#[test]
fn a_corrupted_packet_differs_in_one_bit() {
    let (out, port, _) = through("tx_corrupt=20%", N);
    let flipped = |(i, frame): (usize, &Vec<u8>)| {
        let mut want = [0; 64];
        want[..4].copy_from_slice(&(i as u32).to_be_bytes());
        frame.iter().zip(&want).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>()
    };
    let bits: Vec<u32> = out.iter().enumerate().map(flipped).collect();
    let corrupted = bits.iter().filter(|bits| **bits > 0).count() as u64;
    assert!(bits.iter().all(|bits| *bits <= 1));
    assert_eq!(corrupted, count(&port, "tx_q0_corrupted"));
    assert!(likely(corrupted, N.into(), 0.2), "{corrupted}");
}

#[test]
fn reordered_packets_are_overtaken_and_none_is_missing() {
    let (out, port, _) = through("tx_reorder=2%", N);
    let mut numbers = numbers(&out);
    // Overtaken: somebody who came later is in front of it.
    let mut highest = 0;
    let mut overtaken = 0;
    for number in &numbers {
        overtaken += u64::from(*number < highest);
        highest = highest.max(*number);
    }
    let reordered = count(&port, "tx_q0_reordered");
    assert!(likely(reordered, N.into(), 0.02), "{reordered}");
    // The last ones may have had nobody to overtake them.
    assert!(overtaken <= reordered && overtaken + 16 >= reordered, "{overtaken} of {reordered}");
    let far = numbers.iter().enumerate().map(|(i, number)| i.abs_diff(*number as usize)).max();
    assert!(far.is_some_and(|far| far <= 8 + 16), "{far:?}");
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..N));
}

#[test]
fn the_same_seed_gives_the_same_packets() {
    let text = |seed: u32| format!("tx_loss=3%,tx_duplicate=3%,tx_corrupt=3%,seed={seed}");
    let (first, ..) = through(&text(11), 5000);
    let (again, ..) = through(&text(11), 5000);
    let (other, ..) = through(&text(12), 5000);
    assert!(first == again);
    assert!(first != other);
}

#[test]
fn the_line_alone_is_a_function_of_seed_input_and_time() {
    let (_, pool) = setup();
    let run = |seed| {
        let faults = Faults {
            loss: faults::Chance(faults::ALWAYS / 20),
            duplicate: faults::Chance(faults::ALWAYS / 20),
            reorder: faults::Chance(faults::ALWAYS / 10),
            corrupt: faults::Chance(faults::ALWAYS / 10),
            delay: Duration::from_micros(3),
            jitter: Duration::from_micros(5),
            rate: Some(faults::Rate::Packets(2_000_000)),
            limit: 64,
        };
        let (mut line, stats) =
            (Impairment::new(faults, seed, &pool), linecard_pmd::stats::QueueStats::default());
        let mut out = Vec::new();
        for now in (0..2_000_000_u64).step_by(700) {
            if line.room() > 0 && now < 1_000_000 {
                let mut packet = pool.get().expect("few are out");
                packet.append(8).expect("room").copy_from_slice(&now.to_be_bytes());
                line.push(packet, now, &stats);
            }
            out.extend(
                std::iter::from_fn(|| line.pop(now, &stats)).map(|packet| (now, packet.data().to_vec())),
            );
            assert!(line.waiting() <= 64, "bounded");
        }
        assert_eq!(line.waiting(), 0, "nothing stays for ever");
        out
    };
    assert!(run(5) == run(5) && run(5) != run(6));
}

#[test]
fn delays_and_rates_take_their_time() {
    let (context, pool) = setup();
    let mut port = start(&context, &pool, "net_impair0,on=[net_ring0],tx_delay=30ms");
    let send = |port: &mut Port, count| {
        let mut burst = Burst::new();
        pool.get_bulk(&mut burst, count).unwrap();
        burst.iter_mut().for_each(|packet| assert!(packet.append(125).is_some()));
        port.tx[0].tx_burst(&mut burst)
    };
    // Before they are sent, however long this thread has to wait for its core in between.
    let (begin, mut got) = (std::time::Instant::now(), Burst::new());
    assert_eq!(send(&mut port, 10), 10);
    while got.len() < 10 && begin.elapsed() < Duration::from_secs(60) {
        port.tx[0].reclaim();
        if port.rx[0].rx_burst(&mut got) > 0 {
            assert!(begin.elapsed() >= Duration::from_millis(29), "{:?}", begin.elapsed());
        }
    }
    assert_eq!((got.len(), count(&port, "tx_q0_delayed")), (10, 10));
    got.clear();

    // 125 bytes are 1000 bits: a millisecond each. The first is through at once.
    let mut port = start(&context, &pool, "net_impair0,on=[net_ring0],tx_rate=1mbit,tx_limit=40");
    let begin = std::time::Instant::now();
    assert_eq!(send(&mut port, 30), 20, "each may become two, and 40 may wait");
    while got.len() < 20 && begin.elapsed() < Duration::from_secs(60) {
        port.tx[0].reclaim();
        port.rx[0].rx_burst(&mut got);
        let due = begin.elapsed().as_millis() as usize + 2;
        assert!(got.len() <= due, "{} packets after {due} ms", got.len());
    }
    assert_eq!(got.len(), 20);
}

#[test]
fn what_waits_at_the_end_returns() {
    let (context, pool) = setup();
    let mut port = start(&context, &pool, "net_impair0,on=[net_null0],delay=10s,limit=100");
    let mut burst = Burst::new();
    assert_eq!(port.rx[0].rx_burst(&mut burst), 0);
    pool.get_bulk(&mut burst, 64).unwrap();
    assert_eq!(port.tx[0].tx_burst(&mut burst), 50);
    burst.clear();
    assert!(pool.stats().in_use > 50);
    let control = Arc::clone(&port.control);
    port.stop();
    assert_eq!(pool.stats().in_use, 0);
    let xstats = control.xstats();
    assert!(xstats.contains(&("tx_q0_returned_at_stop".to_owned(), 50)));
    assert!(xstats.contains(&("inner_tx_good_packets".to_owned(), 0)));
}

#[test]
fn bad_arguments_are_refused() {
    let (context, _) = setup();
    for (text, want) in [
        ("net_impair0", "'on' names no port; write net_impair0,on=[net_tap1,iface=x],loss=1%"),
        ("net_impair0,on=[net_impair0,on=[net_null0]]", "'on' names this port itself"),
        ("net_impair0,on=net_nul0", "no driver for device 'net_nul0'; known drivers: net_null"),
        ("net_impair0,on=[net_null0,sise=1]", "net_null0: unknown argument 'sise'; did you mean 'size'?"),
        ("net_impair0,on=net_null0,loss=2", "'loss=2' is not possible; give loss a part from 0 to 1"),
        ("net_impair0,on=net_null0,tx_delay=1h", "give tx_delay a time up to 60s"),
        ("net_impair0,on=net_null0,rate=fast", "give rate a rate as in 1000pps"),
        ("net_impair0,on=net_null0,limit=1", "a number of packets from 2 to 100000"),
        ("net_impair0,on=net_null0,lost=1", "unknown argument 'lost'; did you mean 'loss'?"),
        ("net_impair0,on=[net_null0", "opens a bracket that it does not close; write on=[VALUE]"),
    ] {
        let said = drivers().probe(&context, text).err().expect(text).to_string();
        assert!(said.contains(want), "{text}: {said}");
    }
}
