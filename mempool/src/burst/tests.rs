use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{Pool, PoolConfig};

fn pool() -> Pool {
    let config = PoolConfig { packets: 200, data_room: 8, headroom: 0, ..PoolConfig::default() };
    Pool::on_heap(&Arc::new(()), config).unwrap()
}

fn tagged(pool: &Pool, tag: u8) -> Packet {
    let mut packet = pool.get().unwrap();
    packet.copy_from_slice(&[tag]).unwrap();
    packet
}

#[derive(Clone, Debug)]
enum Op {
    Push(u8),
    Pop,
    Drain(usize, usize),
    SwapRemove(usize),
    Retain(u8),
    Extend(usize),
    Append(usize),
    ConsumeFront(usize),
    Clear,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => any::<u8>().prop_map(Op::Push),
        1 => Just(Op::Pop),
        1 => (0usize..70, 0usize..70).prop_map(|(n, used)| Op::Drain(n, used)),
        1 => (0usize..70).prop_map(Op::SwapRemove),
        1 => (1u8..5).prop_map(Op::Retain),
        2 => (0usize..70).prop_map(Op::Extend),
        1 => (0usize..64).prop_map(Op::Append),
        1 => (0usize..70).prop_map(Op::ConsumeFront),
        1 => Just(Op::Clear),
    ]
}

fn tags(packets: &[Packet]) -> Vec<u8> {
    packets.iter().map(|packet| packet.data()[0]).collect()
}

fn step(pool: &Pool, burst: &mut Burst, oracle: &mut VecDeque<u8>, op: &Op) {
    let room = BURST - oracle.len();
    match *op {
        Op::Push(tag) => match burst.push(tagged(pool, tag)) {
            Ok(()) => oracle.push_back(tag),
            Err(packet) => assert_eq!((packet.data(), room), (&[tag][..], 0)),
        },
        Op::Pop => assert_eq!(burst.pop().map(|p| p.data()[0]), oracle.pop_back()),
        Op::Drain(n, used) => {
            let n = n.min(oracle.len());
            let want: Vec<u8> = oracle.drain(..n).collect();
            let mut drain = burst.drain(..n);
            assert_eq!(drain.len(), n);
            let got: Vec<u8> = drain.by_ref().take(used).map(|p| p.data()[0]).collect();
            assert_eq!(got[..], want[..used.min(n)]);
        }
        Op::SwapRemove(at) => {
            assert_eq!(burst.swap_remove(at).map(|p| p.data()[0]), oracle.swap_remove_back(at))
        }
        Op::Retain(modulus) => {
            burst.retain(|packet| packet.data()[0] % modulus == 0);
            oracle.retain(|tag| tag % modulus == 0);
        }
        Op::Extend(n) => {
            let mut more = (0..n).map(|i| tagged(pool, i as u8));
            assert_eq!(burst.fill_from(&mut more), n.min(room));
            assert_eq!(more.len(), n - n.min(room));
            oracle.extend((0..n.min(room)).map(|i| i as u8));
        }
        Op::Append(n) => {
            let mut other = Burst::new();
            other.fill_from(&mut (0..n).map(|i| tagged(pool, i as u8)));
            assert_eq!(burst.take_from(&mut other), n.min(room));
            assert_eq!(tags(&other), (n.min(room)..n).map(|i| i as u8).collect::<Vec<_>>());
            oracle.extend((0..n.min(room)).map(|i| i as u8));
        }
        Op::ConsumeFront(n) => {
            let n = n.min(oracle.len());
            // SAFETY: read out once, and consumed below.
            let taken: Vec<Packet> = (0..n).map(|i| unsafe { std::ptr::read(&raw const burst[i]) }).collect();
            // SAFETY: just moved out.
            unsafe { burst.consume_front(n) };
            assert_eq!(tags(&taken), oracle.drain(..n).collect::<Vec<_>>());
        }
        Op::Clear => {
            assert_eq!(burst.clear(), oracle.len());
            oracle.clear();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 1 } else { 200 }, failure_persistence: None, ..ProptestConfig::default()
    })]
    #[test]
    fn agrees_with_a_deque(ops in prop::collection::vec(op(), 0..if cfg!(miri) { 6 } else { 60 })) {
        let (pool, mut oracle) = (pool(), VecDeque::new());
        let mut burst = Burst::new();
        for op in &ops {
            step(&pool, &mut burst, &mut oracle, op);
            assert_eq!((burst.room(), pool.stats().in_use), (BURST - oracle.len(), oracle.len()));
            assert_eq!(tags(&burst), oracle.iter().copied().collect::<Vec<_>>());
        }
        drop(burst);
        assert_eq!(pool.stats().in_use, 0);
    }
}

#[test]
fn a_panic_in_retain_loses_nothing() {
    let pool = pool();
    let mut burst = Burst::new();
    burst.fill_from(&mut (0..10).map(|i| tagged(&pool, i)));
    let retain = std::panic::AssertUnwindSafe(|| {
        burst.retain(|packet| {
            assert_ne!(packet.data()[0], 6);
            packet.data()[0] % 2 == 0
        });
    });
    std::panic::catch_unwind(retain).unwrap_err();
    assert_eq!((tags(&burst), pool.stats().in_use), (vec![0, 2, 4], 3));
}

#[test]
fn mixed_bursts_return_each_packet_to_its_own_pool() {
    let (one, two) = (pool(), pool());
    let mut burst = Burst::new();
    for i in 0..8 {
        burst.push(tagged(&one, i)).unwrap();
        burst.push(tagged(&two, i)).unwrap();
        // The clone's metadata is of the one pool, and one of its buffers of the other.
        let mut original = tagged(&two, i);
        original.chain(tagged(&one, i)).unwrap();
        burst.push(original.clone_ref().unwrap()).unwrap();
        burst.push(original).unwrap();
        let mut head = tagged(&one, i);
        head.chain(tagged(&two, i)).unwrap();
        burst.push(head).unwrap();
        burst.push(tagged(&two, i)).unwrap();
    }
    assert_eq!((burst.clear(), one.stats().in_use, two.stats().in_use), (48, 0, 0));
    assert_eq!(std::iter::from_fn(|| one.get()).collect::<Vec<_>>().len(), 200);
}
