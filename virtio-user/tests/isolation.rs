//! Two ports with backends that do not know each other: what one is given never holds the rings of the other.

mod support;

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use linecard_lab::{Prng, wait_until};
use linecard_mempool::{Burst, Pool, PoolConfig};
use linecard_pmd::{Port, PortConfig, configure};
use support::{Backend, Bench, Place};

/// Which memory a descriptor stands for.
type Inode = (u64, u64);

/// All that a backend was given, and those parts that its rings lie in.
fn given(backend: &Backend) -> (BTreeSet<Inode>, BTreeSet<Inode>) {
    let inode = |region: &support::Region| {
        let file = std::fs::File::from(region.fd.try_clone().expect("a descriptor"));
        let data = file.metadata().expect("a file");
        (data.dev(), data.ino())
    };
    let all = backend.regions.0.iter().map(inode).collect();
    let ring_at = |addr: u64| {
        let holds =
            |told: &linecard_wire::payload::MemoryRegion| addr.wrapping_sub(told.user_addr) < told.size;
        backend.regions.0.iter().find(|region| holds(&region.told)).map(inode).expect("a shared ring")
    };
    let told = backend.rings.iter().filter_map(|ring| ring.addr);
    (all, told.flat_map(|addr| [addr.desc, addr.avail, addr.used]).map(ring_at).collect())
}

/// A thread that serves the handshake and does `work` with the backend.
fn peer<T: Send + 'static>(
    place: &Place,
    slots: bool,
    work: impl FnOnce(Backend) -> T + Send + 'static,
) -> JoinHandle<T> {
    let listener = UnixListener::bind(&place.0).expect("a socket");
    std::thread::spawn(move || {
        let mut backend = Backend::accept(&listener);
        if slots {
            backend.protocol |= linecard_wire::ProtocolFeatures::CONFIGURE_MEM_SLOTS;
        }
        backend.until_running(2).expect("a frontend that stays");
        work(backend)
    })
}

#[test]
fn no_backend_is_given_the_rings_of_another_port() {
    for slots in [false, true] {
        let (bench, places) = (Bench::new(1024), [Place::new(), Place::new()]);
        let stop = Arc::new(AtomicBool::new(false));
        let peers = places.each_ref().map(|place| {
            let seen = stop.clone();
            peer(place, slots, move |mut backend| {
                while !seen.load(Ordering::Acquire) && backend.serve().is_ok() {
                    std::thread::yield_now();
                }
                given(&backend)
            })
        });
        let ports = places.each_ref().map(|place| bench.open(&place.arg()));
        let big = bench.domain.zone("growth", 8 << 20, 64).expect("more memory");
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(ports.iter().all(|port| port.control.link().up));
        stop.store(true, Ordering::Release);
        let [(all_0, rings_0), (all_1, rings_1)] = peers.map(|peer| peer.join().expect("no panic"));
        assert_eq!((rings_0.len(), rings_1.len()), (1, 1), "a port's rings lie together");
        assert!(all_0.is_disjoint(&rings_1) && all_1.is_disjoint(&rings_0), "{all_0:?} {all_1:?}");
        let packets: BTreeSet<_> = all_0.intersection(&all_1).collect();
        assert_eq!(packets.len(), bench.domain.segments().len(), "packets are shared, all of them");
        assert_eq!((all_0.len(), all_1.len()), (packets.len() + 1, packets.len() + 1), "and nothing else");
        drop((ports.map(Port::stop), big));
        bench.assert_whole();
    }
}

/// Writes noise over all it was given, whatever becomes of its port, until told to stop.
fn scribble(place: &Place, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let stop = stop.clone();
    peer(place, false, move |backend| {
        let mut dice = Prng::new(1);
        while !stop.load(Ordering::Acquire) {
            for region in &backend.regions.0 {
                let bytes = backend.regions.bytes(region.told.user_addr, region.told.size as usize);
                for _ in 0..256 {
                    let word = dice.roll();
                    let at = (word % (region.told.size / 8)) as usize * 8;
                    bytes.cell::<u64>(at).expect("inside").store(word, Ordering::Relaxed);
                }
            }
        }
    })
}

/// Polls the port of the scribbler as an application would.
fn poll(port: &mut Port, pool: &Pool) {
    let mut burst = Burst::new();
    port.rx[0].rx_burst(&mut burst);
    burst.clear();
    if let Some(mut packet) = pool.get() {
        packet.append(60).expect("room").fill(1);
        assert!(burst.push(packet).is_ok());
        port.tx[0].tx_burst(&mut burst);
    }
    port.tx[0].reclaim();
}

/// Sends `count` frames and wants them back as they were.
fn prove(port: &mut Port, pool: &Pool, count: u32, mut meanwhile: impl FnMut()) {
    let (mut sent, mut came) = (0_u32, 0_u32);
    let (mut out, mut back) = (Burst::new(), Burst::new());
    wait_until("all frames back", || {
        meanwhile();
        while sent < count && sent - came < 64 && out.room() > 0 {
            let Some(mut packet) = pool.get() else { break };
            packet.append(64).expect("room").chunks_exact_mut(4).for_each(|word| {
                word.copy_from_slice(&sent.to_le_bytes());
            });
            assert!(out.push(packet).is_ok());
            sent += 1;
        }
        port.tx[0].tx_burst(&mut out);
        port.rx[0].rx_burst(&mut back);
        for packet in back.iter() {
            assert!(packet.data().chunks_exact(4).all(|word| word == came.to_le_bytes()), "frame {came}");
            came += 1;
        }
        back.clear();
        came == count
    });
    port.tx[0].reclaim();
}

/// Sends every frame back until told to stop.
fn echo(place: &Place, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let stop = stop.clone();
    peer(place, false, move |mut backend| {
        let mut echo = backend.echo(0);
        while !stop.load(Ordering::Acquire) {
            if echo.turn() == 0 {
                backend.serve().expect("a frontend that stays");
                std::thread::yield_now();
            }
        }
    })
}

#[test]
fn a_port_with_a_pool_of_its_own_loses_nothing_to_the_backend_of_another() {
    for options in ["packed_vq=0", "packed_vq=1"] {
        let (bench, places) = (Bench::new(1024), [Place::new(), Place::new()]);
        let domain = bench.memory.domain("good").expect("a domain");
        let config = PoolConfig::default().packets(1024).cache(32);
        let pool = Pool::new(&domain, config).expect("a pool");
        let stop = Arc::new(AtomicBool::new(false));
        let peers = [scribble(&places[0], &stop), echo(&places[1], &stop)];
        let mut bad = bench.open(&format!("{},{options}", places[0].arg()));
        let device = bench.probe(&format!("{},{options}", places[1].arg())).expect("a device");
        let mut good = configure(device, PortConfig::default()).expect("fits").start(&pool).expect("a port");
        prove(&mut good, &pool, 20_000, || poll(&mut bad, &bench.pool));
        assert!(!bad.control.link().up, "the scribbler lost its own port");
        assert!(good.control.link().up);
        let stats = good.control.stats();
        assert_eq!((stats.ipackets, stats.opackets, stats.ierrors, stats.oerrors), (20_000, 20_000, 0, 0));
        stop.store(true, Ordering::Release);
        peers.into_iter().for_each(|peer| peer.join().expect("no panic"));
        drop((bad.stop(), good.stop()));
        bench.assert_whole();
        let stats = pool.stats();
        assert_eq!(stats.free + stats.cached, stats.total, "{stats:?}");
    }
}

/// Bytes of packets may become others, headers too; the rings may not.
#[test]
fn a_port_of_the_same_pool_keeps_its_rings() {
    let (bench, places) = (Bench::new(1024), [Place::new(), Place::new()]);
    let (scribbling, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let bad_peer = scribble(&places[0], &scribbling);
    let (taken, seen, noisy) = (Arc::new(AtomicU64::new(0)), stop.clone(), scribbling.clone());
    let count = taken.clone();
    let good_peer = peer(&places[1], false, move |mut backend| {
        let mut echo = backend.echo(0);
        while !noisy.load(Ordering::Acquire) {
            // The header is noise as well: what was taken is given anew.
            match echo.take() {
                Some(frame) => {
                    echo.give(&frame);
                    count.fetch_add(1, Ordering::Relaxed);
                }
                None => std::thread::yield_now(),
            }
        }
        while !seen.load(Ordering::Acquire) {
            if echo.turn() == 0 {
                backend.serve().expect("a frontend that stays");
                std::thread::yield_now();
            }
        }
    });
    let mut bad = bench.open(&places[0].arg());
    let mut good = bench.open(&places[1].arg());
    let mut sent = 0;
    let mut burst = Burst::new();
    wait_until("packets under noise", || {
        poll(&mut bad, &bench.pool);
        good.rx[0].rx_burst(&mut burst);
        burst.clear();
        if let Some(mut packet) = bench.pool.get() {
            packet.append(60).expect("room").fill(2);
            assert!(burst.push(packet).is_ok());
            sent += good.tx[0].tx_burst(&mut burst) as u64;
            burst.clear();
        }
        good.tx[0].reclaim();
        assert!(good.control.link().up, "the rings are its own");
        taken.load(Ordering::Relaxed) >= 20_000
    });
    wait_until("all taken", || taken.load(Ordering::Relaxed) == sent);
    assert!(!bad.control.link().up, "the scribbler lost its own port");
    scribbling.store(true, Ordering::Release);
    bad_peer.join().expect("no panic");
    // What the noise left in the ring is no frame of ours.
    for _ in 0..1000 {
        good.rx[0].rx_burst(&mut burst);
        burst.clear();
    }
    prove(&mut good, &bench.pool, 1000, || {});
    stop.store(true, Ordering::Release);
    good_peer.join().expect("no panic");
    drop((bad.stop(), good.stop()));
    bench.assert_whole();
}
