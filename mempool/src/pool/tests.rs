use std::collections::HashSet;
use std::sync::mpsc;
use std::thread;

use proptest::prelude::*;

use super::*;

fn pool(packets: u32, cache: u16) -> Pool {
    probed(&Arc::new(()), packets, cache)
}

fn probed(probe: &Arc<()>, packets: u32, cache: u16) -> Pool {
    let config = PoolConfig { packets, cache, data_room: 64, headroom: 64, ..PoolConfig::default() };
    Pool::on_heap(probe, config).unwrap()
}

/// Counts what really lies in the pool, by walking it.
fn counted(pool: &Pool) -> usize {
    let shared = pool.shared();
    shared.depot.count() + shared.caches.iter().map(cache::Cache::held).sum::<usize>()
}

fn check_at_rest(pool: &Pool) {
    let stats = pool.stats();
    assert_eq!(stats.free + stats.cached + stats.in_use, stats.total);
    assert_eq!(counted(pool) + stats.in_use, stats.total);
    assert_eq!(stats.gets - stats.puts, stats.in_use as u64);
}

#[test]
fn one_thread_can_have_every_packet() {
    let most = if cfg!(miri) { 100 } else { 1000 };
    for (packets, cache) in
        [(1, 128), (7, 0), (63, 128), (64, 16), (65, 128), (most / 5, 128), (most, 40), (most, 0)]
    {
        let pool = pool(packets, cache);
        for _ in 0..3 {
            let all: Vec<_> = std::iter::from_fn(|| pool.get()).collect();
            assert_eq!(all.len(), packets as usize, "cache {cache}");
            assert_eq!(all.iter().map(Packet::as_raw).collect::<HashSet<_>>().len(), all.len());
            assert!(
                all.iter().all(|packet| packet.is_plain() && packet.is_empty() && packet.headroom() == 64)
            );
            check_at_rest(&pool);
        }
        assert_eq!(pool.stats().in_use, 0);
        assert_eq!(pool.stats().get_fail, 3);
        check_at_rest(&pool);
    }
}

#[test]
fn bulk_is_all_or_nothing() {
    let pool = pool(100, 32);
    let (mut a, mut b) = (Burst::new(), Burst::new());
    pool.get_bulk(&mut a, 64).unwrap();
    assert_eq!(pool.get_bulk(&mut b, 37), Err(NoRoom::Exhausted(Exhausted)));
    assert_eq!((b.len(), pool.stats().get_fail), (0, 1));
    check_at_rest(&pool);
    pool.get_bulk(&mut b, 36).unwrap();
    pool.get_bulk(&mut b, 0).unwrap();
    assert_eq!(pool.get_bulk(&mut a, 1), Err(NoRoom::Full { asked: 1, room: 0 }), "no failure of the pool");
    assert_eq!(pool.stats().get_fail, 1);
    assert_eq!((a.clear(), b.clear()), (64, 36));
    check_at_rest(&pool);
}

#[test]
fn geometry_is_as_promised() {
    let probe = Arc::new(());
    for (headroom, data_room, stride) in
        [(128, 2048, 2240), (128, 2176, 2368), (0, 1, 64), (0, 128, 192), (64, 1, 192)]
    {
        let config = PoolConfig { packets: 3, headroom, data_room, ..PoolConfig::default() };
        let pool = Pool::on_heap(&probe, config).unwrap();
        assert_eq!(pool.stride(), stride);
        let mut packets: Vec<_> = std::iter::from_fn(|| pool.get()).collect();
        packets.sort_by_key(Packet::data_ptr);
        assert!(packets.iter().all(|p| (p.data_ptr().addr() - usize::from(headroom)).is_multiple_of(64)));
        assert!(packets.windows(2).all(|p| p[1].data_ptr().addr() - p[0].data_ptr().addr() == stride));
    }
}

#[test]
fn bad_shapes_are_refused() {
    let probe = Arc::new(());
    let config = PoolConfig { packets: u32::MAX, ..PoolConfig::default() };
    assert!(matches!(Pool::on_heap(&probe, config), Err(crate::Error::Packets { asked: u32::MAX, .. })));
    for (headroom, data_room) in [(0, 0), (u16::MAX, 1), (1, u16::MAX)] {
        let config = PoolConfig { headroom, data_room, ..PoolConfig::default() };
        assert!(matches!(Pool::on_heap(&probe, config), Err(crate::Error::BufferLength { .. })));
    }
}

#[test]
fn packets_of_ended_threads_are_adopted() {
    let pool = pool(1000, 128);
    for _ in 0..4 {
        let held = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let mut burst = Burst::new();
                pool.get_bulk(&mut burst, 48).unwrap();
                burst.clear();
                pool.shared().caches[slots_of_this_thread()].held()
            });
            thread.join().unwrap()
        });
        assert!(held >= 48);
    }
    // Slots are the process's: while a thread of another test lives in one of these, its packets are out of reach.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let mut all: Vec<_> = Vec::new();
    while all.len() < 1000 && std::time::Instant::now() < until {
        all.extend(std::iter::from_fn(|| pool.get()));
        thread::yield_now();
    }
    assert_eq!(all.len(), 1000);
    check_at_rest(&pool);
}

fn slots_of_this_thread() -> usize {
    crate::slots::current()
}

#[test]
fn a_live_thread_strands_no_more_than_its_cache() {
    let pool = pool(1000, 128);
    let limit = 2 * pool.shared().depot.size;
    let (done, wait) = mpsc::channel::<()>();
    let (ready, go) = mpsc::channel();
    thread::scope(|scope| {
        let pool = &pool;
        scope.spawn(move || {
            drop(std::iter::from_fn(|| pool.get()).take(500).collect::<Vec<_>>());
            ready.send(()).unwrap();
            wait.recv().unwrap_err();
        });
        go.recv().unwrap();
        let all: Vec<_> = std::iter::from_fn(|| pool.get()).collect();
        assert!((1000 - limit..1000).contains(&all.len()), "{} of 1000, limit {limit}", all.len());
        drop(done);
    });
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn a_packet_in_a_thread_local_returns_while_the_thread_ends() {
    thread_local! {
        static KEPT: std::cell::RefCell<Vec<Packet>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    let pool = pool(100, 32);
    thread::scope(|scope| {
        scope.spawn(|| KEPT.with_borrow_mut(|kept| kept.extend(pool.get()))).join().unwrap();
    });
    assert_eq!(pool.stats().in_use, 0);
    check_at_rest(&pool);
}

#[test]
fn memory_goes_with_the_last_packet() {
    for cache in [0, 32] {
        let probe = Arc::new(());
        let pool = probed(&probe, 100, cache);
        let (first, second) = (pool.get().unwrap(), pool.get().unwrap());
        drop(pool.get());
        drop(pool.clone());
        drop(pool);
        assert!(Arc::strong_count(&probe) > 1);
        thread::spawn(move || drop(first)).join().unwrap();
        assert!(Arc::strong_count(&probe) > 1);
        assert!(second.is_empty());
        drop(second);
        assert_eq!(Arc::strong_count(&probe), 1);
    }
}

#[test]
fn memory_goes_with_the_pool_when_nothing_is_out() {
    let probe = Arc::new(());
    let pool = probed(&probe, 100, 32);
    drop(pool.get());
    drop(pool);
    assert_eq!(Arc::strong_count(&probe), 1);
}

#[test]
fn clones_keep_the_pools_they_need() {
    for order in 0..2 {
        let (probe, other) = (Arc::new(()), Arc::new(()));
        let (direct, indirect) = (probed(&probe, 10, 0), probed(&other, 10, 0));
        let mut tail = direct.get().unwrap();
        tail.copy_from_slice(b"hello").unwrap();
        // Clones have their metadata from the pool of the first segment.
        let mut packet = indirect.get().unwrap();
        packet.chain(tail).unwrap();
        let mut clone = packet.clone_ref().unwrap();
        let again = clone.clone_ref().unwrap();
        drop((direct, indirect));
        if order == 0 {
            drop(packet);
            drop(again);
            assert_eq!(&clone.to_bytes()[..], b"hello");
            drop(clone);
        } else {
            drop(clone);
            drop(again);
            let tail = packet.unchain().unwrap();
            drop(packet);
            assert!(Arc::strong_count(&probe) > 1 && Arc::strong_count(&other) == 1);
            drop(tail);
        }
        assert_eq!((Arc::strong_count(&probe), Arc::strong_count(&other)), (1, 1));
    }
}

/// Many threads drop the last packets of a pool that was closed: freed once, by one of them, used by none afterwards.
#[test]
fn many_threads_return_to_a_closed_pool() {
    for round in 0..if cfg!(miri) { 3 } else { 100 } {
        let probe = Arc::new(());
        let pool = probed(&probe, 64, if round % 2 == 0 { 32 } else { 0 });
        let packets: Vec<_> = std::iter::from_fn(|| pool.get()).collect();
        thread::scope(|scope| {
            let mut packets = packets.into_iter();
            for _ in 0..4 {
                let share: Vec<_> = packets.by_ref().take(16).collect();
                scope.spawn(move || {
                    // Some returns meet the closing in the fast path.
                    share.into_iter().for_each(drop);
                });
            }
            scope.spawn(move || drop(pool));
        });
        orphans::reap();
        assert_eq!(Arc::strong_count(&probe), 1);
    }
}

#[derive(Clone, Debug)]
enum Op {
    Get(usize),
    Drop(usize),
    Send(usize),
    Receive,
    Clone,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1usize..65).prop_map(Op::Get),
        3 => (1usize..100).prop_map(Op::Drop),
        2 => (1usize..40).prop_map(Op::Send),
        2 => Just(Op::Receive),
        1 => Just(Op::Clone),
    ]
}

/// One thread's share of a random day: packets come, go, are cloned and travel to the other threads.
fn work(pool: &Pool, ops: &[Op], to: &mpsc::Sender<Vec<Packet>>, from: &mpsc::Receiver<Vec<Packet>>) {
    let mut held: Vec<Packet> = Vec::new();
    for op in ops {
        match *op {
            Op::Get(n) => {
                let mut burst = Burst::new();
                if pool.get_bulk(&mut burst, n).is_ok() {
                    held.extend(burst.drain(..n));
                }
            }
            Op::Drop(n) => {
                let mut burst = Burst::new();
                burst.fill_from(&mut held.drain(..n.min(held.len())));
            }
            Op::Send(n) => {
                let keep = held.len().saturating_sub(n);
                // The other thread may have ended: the packets come back and are dropped.
                let _ = to.send(held.split_off(keep));
            }
            Op::Receive => held.extend(from.try_recv().into_iter().flatten()),
            Op::Clone => {
                let clone = held.last_mut().and_then(Packet::clone_ref);
                held.extend(clone);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 1 } else { 100 }, failure_persistence: None, ..ProptestConfig::default()
    })]
    #[test]
    fn no_packet_is_lost_or_doubled(
        packets in 1u32..if cfg!(miri) { 80 } else { 600 },
        cache in 0u16..140,
        days in prop::collection::vec(prop::collection::vec(op(), 0..if cfg!(miri) { 6 } else { 40 }), 3),
    ) {
        let pool = pool(packets, cache);
        let channels: Vec<_> = (0..3).map(|_| mpsc::channel()).collect();
        let (to, from): (Vec<_>, Vec<_>) = channels.into_iter().unzip();
        thread::scope(|scope| {
            let threads = from.into_iter().zip(&days).enumerate().map(|(i, (from, ops))| {
                let (pool, to) = (&pool, to[(i + 1) % 3].clone());
                scope.spawn(move || work(pool, ops, &to, &from))
            });
            // The scope alone does not wait for destructors of thread locals.
            threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
        });
        drop(to);
        check_at_rest(&pool);
        assert_eq!(pool.stats().in_use, 0);
        let all: Vec<_> = std::iter::from_fn(|| pool.get()).collect();
        // Slots are the process's: a thread of another test may live in the slot of one that ended here.
        let elsewhere = pool.stats().cached;
        let distinct = all.iter().map(Packet::as_raw).collect::<HashSet<_>>().len();
        assert_eq!((distinct, distinct + elsewhere), (all.len(), packets as usize));
        assert!(all.iter().all(Packet::is_plain));
    }
}
