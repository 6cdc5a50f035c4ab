//! A fixed trace through both ends of a vhost-user socket in one thread, to count instructions per packet.
//!
//! `cargo xtask budget` runs it under callgrind, once for each function of `measured`, and compares the
//! counts with the table in `benches/budget.txt`. Times vary too much on shared machines; counts are the same
//! everywhere.
#![forbid(unsafe_code)]

use std::error::Error;
use std::time::{Duration, Instant};

use linecard::pmd::direct::all;
use linecard::prelude::*;

const BURST: usize = 32;
/// Counted bursts, after as many to warm up. A multiple of the period of any ring, cache or batch.
const ROUNDS: usize = 512;

/// Bytes of packets that the backend copies once; it does not do that with shorter ones.
const DIRECT_LEN: usize = 300;

/// The bursts of a packet's round trip. Never inlined, because callgrind counts between their calls and
/// returns. Each uses its name, because the compiler merges functions with the same code.
mod measured {
    use std::hint::black_box;

    use linecard::pmd::direct::all;
    use linecard::prelude::{Burst, RxQueue, TxQueue};

    #[inline(never)]
    pub(crate) fn frontend_tx(queue: &mut dyn TxQueue, packets: &mut Burst) -> usize {
        black_box("frontend_tx");
        queue.tx_burst(packets)
    }

    #[inline(never)]
    pub(crate) fn backend_rx(queue: &mut dyn RxQueue, packets: &mut Burst) -> usize {
        black_box("backend_rx");
        queue.rx_burst(packets)
    }

    #[inline(never)]
    pub(crate) fn backend_tx(queue: &mut dyn TxQueue, packets: &mut Burst) -> usize {
        black_box("backend_tx");
        queue.tx_burst(packets)
    }

    /// From one ring to the other, copied once.
    #[inline(never)]
    pub(crate) fn backend_direct(rx: &mut dyn RxQueue, tx: &mut dyn TxQueue, left: &mut Burst) -> usize {
        black_box("backend_direct");
        let moved = rx.rx_direct(left, &mut |frames| all(tx.tx_direct(frames).unwrap_or(0)));
        if !left.is_empty() {
            tx.tx_burst(left);
        }
        moved
    }

    #[inline(never)]
    pub(crate) fn frontend_rx(queue: &mut dyn RxQueue, packets: &mut Burst) -> usize {
        black_box("frontend_rx");
        queue.rx_burst(packets)
    }
}

fn open(eal: &Eal, pool: &Pool, device: &str) -> Result<Port, linecard::pmd::Error> {
    let context = ProbeContext::new(eal.memory().clone(), pool.domain().clone(), Duration::from_secs(30));
    let device = linecard::drivers().probe(&context, device)?;
    Ok(configure(device, PortConfig::default())?.start(pool)?)
}

/// Moves one burst around: from the frontend through the backend and back.
fn round(frontend: &mut Port, backend: &mut Port, packets: &mut Burst, counted: bool) {
    let (fe_tx, be_rx) = (&mut *frontend.tx[0], &mut *backend.rx[0]);
    let (be_tx, fe_rx) = (&mut *backend.tx[0], &mut *frontend.rx[0]);
    let moved = if counted {
        [
            measured::frontend_tx(fe_tx, packets),
            measured::backend_rx(be_rx, packets),
            measured::backend_tx(be_tx, packets),
            measured::frontend_rx(fe_rx, packets),
        ]
    } else {
        [fe_tx.tx_burst(packets), be_rx.rx_burst(packets), be_tx.tx_burst(packets), fe_rx.rx_burst(packets)]
    };
    assert_eq!(moved, [BURST; 4], "every burst moves whole, or the counts mean nothing");
}

/// The same with frames that the backend copies only once.
fn direct_round(frontend: &mut Port, backend: &mut Port, packets: &mut Burst, counted: bool) {
    frontend.tx[0].tx_burst(packets);
    let (rx, tx, left) = (&mut *backend.rx[0], &mut *backend.tx[0], &mut Burst::new());
    let moved = if counted {
        measured::backend_direct(rx, tx, left)
    } else {
        let moved = rx.rx_direct(left, &mut |frames| all(tx.tx_direct(frames).unwrap_or(0)));
        tx.tx_burst(left);
        moved
    };
    let came = frontend.rx[0].rx_burst(packets);
    assert_eq!((moved, left.len(), came), (BURST, 0, BURST), "every burst moves whole, and once");
}

/// Fills a burst with packets of `len` bytes.
fn fill(packets: &mut Burst, pool: &Pool, len: usize) -> Result<(), Box<dyn Error>> {
    while packets.len() < BURST {
        let mut packet = pool.get().ok_or("the pool has packets")?;
        packet.append(len).ok_or("a packet has no room for so many bytes")?.fill(0x5a);
        packets.push(packet).map_err(|_| "a burst has room for 32 packets")?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo bench` passes `--bench`.
    let mut words = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let Some(path) = words.next() else {
        println!(
            "a trace for `cargo xtask budget`; arguments of net_virtio_user choose the path, a number behind them the length of \
             the packets: budget packed_vq=1 1518"
        );
        return Ok(());
    };
    let asked = words.next().map(|word| word.parse()).transpose()?;
    let len = asked.unwrap_or(64);
    let (args, _) = EalArgs::parse(["--no-huge", "-m", "64"])?;
    let eal = Eal::new(&args)?;
    let config = || PoolConfig::default().packets(2048);
    let shared = Pool::new(&eal.default_domain(), config())?;
    let private = Pool::new(&eal.memory().domain("backend")?, config())?;
    let socket = std::env::temp_dir().join(format!("linecard-budget-{}.sock", std::process::id()));
    let mut backend = open(&eal, &private, &format!("net_vhost0,iface={}", socket.display()))?;
    let device = format!("net_virtio_user0,path={},queue_size=256,{path}", socket.display());
    let mut frontend = open(&eal, &shared, &device)?;
    let start = Instant::now();
    while !(frontend.control.link().up && backend.control.link().up) {
        assert!(start.elapsed() < Duration::from_secs(30), "the ends find each other");
        std::thread::yield_now();
    }

    let mut packets = Burst::new();
    fill(&mut packets, &shared, len)?;
    for counted in [false, true] {
        (0..ROUNDS).for_each(|_| round(&mut frontend, &mut backend, &mut packets, counted));
    }
    packets.clear();
    fill(&mut packets, &shared, asked.unwrap_or(DIRECT_LEN))?;
    for counted in [false, true] {
        (0..ROUNDS).for_each(|_| direct_round(&mut frontend, &mut backend, &mut packets, counted));
    }
    println!("{} packets on {}", ROUNDS * BURST, frontend.control.paths());
    Ok(())
}
