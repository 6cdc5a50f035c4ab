use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Buf;
use proptest::prelude::*;

use super::*;
use crate::error::{Exhausted, NoRoom};
use crate::{Error, Offload, PacketType, Pool, PoolConfig, TxOffload};

fn pool(packets: u32, headroom: u16, data_room: u16) -> Pool {
    let config = PoolConfig { packets, headroom, data_room, cache: 16, ..PoolConfig::default() };
    Pool::on_heap(&Arc::new(()), config).unwrap()
}

#[derive(Clone, Debug)]
enum Op {
    Get,
    Drop(usize),
    Append(usize, usize),
    Prepend(usize, usize),
    Adj(usize, usize),
    Trim(usize, usize),
    Write(usize, usize),
    Clone(usize),
    Chain(usize, usize),
    Linearize(usize),
    Copy(usize),
    CopyToSmall(usize),
    CopyIn(usize, usize),
    Attach(usize, usize),
    Reset(usize),
    IntoBytes(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let (i, n) = (0usize..8, 0usize..60);
    prop_oneof![
        3 => Just(Op::Get),
        1 => i.clone().prop_map(Op::Drop),
        3 => (i.clone(), n.clone()).prop_map(|(i, n)| Op::Append(i, n)),
        2 => (i.clone(), n.clone()).prop_map(|(i, n)| Op::Prepend(i, n)),
        2 => (i.clone(), n.clone()).prop_map(|(i, n)| Op::Adj(i, n)),
        2 => (i.clone(), n.clone()).prop_map(|(i, n)| Op::Trim(i, n)),
        3 => (i.clone(), n.clone()).prop_map(|(i, n)| Op::Write(i, n)),
        3 => i.clone().prop_map(Op::Clone),
        2 => (i.clone(), i.clone()).prop_map(|(i, j)| Op::Chain(i, j)),
        1 => i.clone().prop_map(Op::Linearize),
        1 => i.clone().prop_map(Op::Copy),
        1 => i.clone().prop_map(Op::CopyToSmall),
        1 => (i.clone(), n.clone()).prop_map(|(i, n)| Op::CopyIn(i, n)),
        1 => (i.clone(), n).prop_map(|(i, n)| Op::Attach(i, n)),
        1 => i.clone().prop_map(Op::Reset),
        1 => i.prop_map(Op::IntoBytes),
    ]
}

/// Packets beside the bytes they must hold.
struct Model {
    pool: Pool,
    small: Pool,
    packets: Vec<(Packet, Vec<u8>)>,
    stamp: u8,
}

impl Model {
    fn new(packets: u32) -> Self {
        Self { pool: pool(packets, 16, 32), small: pool(8, 0, 8), packets: vec![], stamp: 0 }
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n)
            .map(|_| {
                self.stamp = self.stamp.wrapping_add(1);
                self.stamp
            })
            .collect()
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Get => self.packets.extend(self.pool.get().map(|packet| (packet, vec![]))),
            Op::Chain(i, j) => self.chain(i, j),
            Op::Drop(i) => drop((i < self.packets.len()).then(|| self.packets.remove(i))),
            Op::IntoBytes(i) if i < self.packets.len() => {
                let (packet, want) = self.packets.remove(i);
                assert_eq!(packet.into_bytes(), want);
            }
            Op::Append(i, n) | Op::Prepend(i, n) | Op::CopyIn(i, n) | Op::Attach(i, n) => {
                self.bring(op, i, n)
            }
            Op::Clone(i) | Op::Copy(i) | Op::CopyToSmall(i) => self.duplicate(op, i),
            _ => self.change(op),
        }
        self.check();
    }

    fn chain(&mut self, i: usize, j: usize) {
        if i == j || i.max(j) >= self.packets.len() {
            return;
        }
        let (tail, bytes) = self.packets.remove(j);
        let (head, oracle) = &mut self.packets[i - usize::from(j < i)];
        let segments = usize::from(head.nb_segs()) + usize::from(tail.nb_segs());
        head.chain(tail).unwrap();
        oracle.extend(bytes);
        assert_eq!(usize::from(head.nb_segs()), segments);
    }

    /// Operations that bring bytes in.
    fn bring(&mut self, op: &Op, i: usize, n: usize) {
        let bytes = self.bytes(n);
        let Some((packet, oracle)) = self.packets.get_mut(i) else { return };
        let home = if packet.pool_id() == self.pool.id() { &self.pool } else { &self.small };
        let free = home.stats().free + home.stats().cached;
        let plain = packet.is_plain();
        match op {
            Op::Append(..) => match (n <= packet.tailroom(), packet.append(n)) {
                (_, Some(data)) => {
                    data.copy_from_slice(&bytes);
                    oracle.extend(bytes);
                }
                (fits, None) => assert!(!fits || !plain),
            },
            Op::Prepend(..) => match (n <= packet.headroom(), packet.prepend(n)) {
                (_, Some(data)) => {
                    data.copy_from_slice(&bytes);
                    oracle.splice(..0, bytes);
                }
                (fits, None) => assert!(!fits || !plain),
            },
            Op::CopyIn(..) => {
                let room = usize::from(packet.head().data_room_of_pool());
                if packet.copy_from_slice(&bytes).is_ok() {
                    *oracle = bytes;
                } else {
                    assert!(n > room || free == 0);
                }
            }
            _ => match packet.attach_external(bytes.clone()) {
                Ok(()) => {
                    assert!(packet.is_external() && packet.is_empty());
                    packet.append(n).unwrap();
                    *oracle = bytes;
                }
                Err(error) => assert!(matches!(error, Error::NotPlain)),
            },
        }
    }

    fn duplicate(&mut self, op: &Op, i: usize) {
        let Some((packet, oracle)) = self.packets.get_mut(i) else { return };
        packet.set_port(i as u16);
        let double = match op {
            Op::Clone(_) => packet.clone_ref(),
            Op::CopyToSmall(_) => packet.copy(&self.small),
            _ => packet.copy(&self.pool),
        };
        if let Some(double) = double {
            assert_eq!(double.port(), i as u16);
            let oracle = oracle.clone();
            self.packets.push((double, oracle));
        }
    }

    fn change(&mut self, op: &Op) {
        let (Op::Adj(i, n) | Op::Trim(i, n) | Op::Write(i, n)) = *op else { return self.reshape(op) };
        let Some((packet, oracle)) = self.packets.get_mut(i) else { return };
        match op {
            Op::Adj(..) => {
                let can = n <= packet.data_len();
                assert_eq!(packet.adj(n).is_ok(), can);
                oracle.drain(..if can { n } else { 0 });
            }
            Op::Trim(..) => {
                let can = n <= packet.segments().last().unwrap().len();
                assert_eq!(packet.trim(n).is_ok(), can);
                oracle.truncate(oracle.len() - if can { n } else { 0 });
            }
            _ => {
                let plain = packet.is_plain();
                let len = packet.data_len();
                let data = packet.data_mut();
                assert!(data.as_ref().map_or(!plain, |data| data.len() == len));
                if let Some(byte) = data.and_then(|data| data.get_mut(n)) {
                    *byte = !*byte;
                    oracle[n] = !oracle[n];
                }
            }
        }
    }

    fn reshape(&mut self, op: &Op) {
        let (Op::Linearize(i) | Op::Reset(i)) = *op else { return };
        let Some((packet, oracle)) = self.packets.get_mut(i) else { return };
        match op {
            Op::Linearize(_) => {
                let (plain_head, fits) = (packet.nb_segs() == 1, packet.len() <= 32);
                let done = packet.linearize().is_ok();
                assert!(!plain_head || done);
                assert_eq!(packet.nb_segs() == 1, done);
                let _ = fits;
            }
            _ => {
                if packet.reset().is_ok() {
                    assert!(
                        packet.is_plain()
                            && packet.headroom() == usize::from(packet.head().headroom_of_pool())
                    );
                    oracle.clear();
                }
            }
        }
    }

    /// Whatever happened to one packet, every other one holds what it held.
    fn check(&self) {
        for (packet, oracle) in &self.packets {
            assert_eq!(&packet.to_bytes()[..], &oracle[..]);
            assert_eq!(packet.len(), oracle.len());
            assert_eq!(usize::from(packet.nb_segs()), packet.segments().count());
            let joined: Vec<u8> = packet.segments().flat_map(|segment| segment.data().to_vec()).collect();
            assert_eq!(joined[..], oracle[..]);
            check_reading(packet, oracle);
        }
        for pool in [&self.pool, &self.small] {
            let stats = pool.stats();
            assert_eq!(stats.free + stats.cached + stats.in_use, stats.total);
        }
    }
}

/// Ranges that begin and end anywhere, and a reader that is advanced by steps of growing length.
fn check_reading(packet: &Packet, oracle: &[u8]) {
    for offset in [0, oracle.len() / 3, oracle.len().saturating_sub(1), oracle.len(), oracle.len() + 1] {
        let mut out = [0; 9];
        let want = &oracle[offset.min(oracle.len())..];
        let count = packet.read_at(offset, &mut out);
        assert_eq!(out[..count], want[..want.len().min(9)]);
    }
    let (mut reader, mut at) = (packet.reader(), 0);
    for step in 0.. {
        assert_eq!(reader.remaining(), oracle.len() - at);
        assert!(oracle[at..].starts_with(reader.chunk()));
        if reader.remaining() < step {
            break;
        }
        reader.advance(step);
        at += step;
    }
    // The trait allows an empty chunk at the end only.
    assert_eq!(reader.chunk().is_empty(), reader.remaining() == 0);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 1500 }, failure_persistence: None, ..ProptestConfig::default()
    })]
    #[test]
    fn agrees_with_byte_vectors(packets in 1u32..20, ops in prop::collection::vec(op(), 0..if cfg!(miri) { 12 } else { 80 })) {
        let mut model = Model::new(packets);
        ops.iter().for_each(|op| model.step(op));
        model.packets.clear();
        assert_eq!((model.pool.stats().in_use, model.small.stats().in_use), (0, 0));
        let all: Vec<_> = std::iter::from_fn(|| model.pool.get()).collect();
        assert!(all.len() == packets as usize && all.iter().all(|p| p.is_plain() && p.headroom() == 16));
    }
}

#[test]
fn writing_to_a_shared_packet_never_reaches_the_other() {
    let pool = pool(3, 16, 32);
    let mut one = pool.get().unwrap();
    one.copy_from_slice(b"same").unwrap();
    let mut two = one.clone_ref().unwrap();
    one.data_mut().unwrap()[0] = b'l';
    assert_eq!((one.data(), two.data()), (&b"lame"[..], &b"same"[..]));
    two.data_mut().unwrap()[0] = b'f';
    assert_eq!((one.data(), two.data()), (&b"lame"[..], &b"fame"[..]));
}

#[test]
fn an_exhausted_pool_lends_no_shared_bytes_for_writing() {
    let pool = pool(2, 16, 32);
    let mut one = pool.get().unwrap();
    one.copy_from_slice(b"same").unwrap();
    let mut two = one.clone_ref().unwrap();
    assert!(one.data_mut().is_none() && one.append(1).is_none() && one.prepend(1).is_none());
    assert_eq!(one.reset(), Err(Exhausted));
    assert_eq!(one.copy_from_slice(b"same"), Err(NoRoom::Exhausted(Exhausted)));
    assert_eq!((one.data(), two.data()), (&b"same"[..], &b"same"[..]));
    assert_eq!(two.data_mut().unwrap().len(), 4, "a clone has a buffer of its own");
    one.data_mut().unwrap()[0] = b'l';
    assert_eq!((one.data(), two.data()), (&b"lame"[..], &b"same"[..]));
}

#[test]
fn clones_are_read_and_dropped_in_other_threads() {
    let pool = pool(64, 16, 32);
    for _ in 0..if cfg!(miri) { 3 } else { 200 } {
        let mut one = pool.get().unwrap();
        one.copy_from_slice(b"same").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let clone = one.clone_ref().unwrap();
                scope.spawn(move || assert_eq!(clone.data(), b"same"));
            }
            let mut last = one.clone_ref().unwrap();
            scope.spawn(move || last.data_mut().unwrap().fill(0));
            one.data_mut().unwrap()[0] = b'l';
        });
        assert_eq!(one.data(), b"lame");
    }
    assert_eq!(pool.stats().in_use, 0);
}

struct Owner(Vec<u8>, Arc<AtomicUsize>);

impl AsMut<[u8]> for Owner {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn an_external_owner_is_dropped_with_the_last_reference() {
    let (pool, drops) = (pool(4, 16, 32), Arc::new(AtomicUsize::new(0)));
    let mut packet = pool.get().unwrap();
    packet.attach_external(Owner(b"external".to_vec(), Arc::clone(&drops))).unwrap();
    packet.append(8).unwrap();
    let clone = packet.clone_ref().unwrap();
    assert!(packet.is_external() && clone.is_external());
    assert!(matches!(packet.attach_external(Owner(vec![], Arc::clone(&drops))), Err(Error::NotPlain)));
    assert_eq!(drops.swap(0, Ordering::Relaxed), 1);
    drop(packet);
    assert_eq!((clone.data(), drops.load(Ordering::Relaxed)), (&b"external"[..], 0));
    let bytes = clone.into_bytes();
    drop(pool.clone());
    assert_eq!((&bytes.slice(2..)[..], drops.load(Ordering::Relaxed)), (&b"ternal"[..], 0));
    drop(bytes);
    assert_eq!((pool.stats().in_use, drops.load(Ordering::Relaxed)), (0, 1));
    let mut packet = pool.get().unwrap();
    let long = Owner(vec![0; 65_536], Arc::clone(&drops));
    assert!(matches!(packet.attach_external(long), Err(Error::ExternalLength { len: 65_536, .. })));
    assert_eq!((drops.load(Ordering::Relaxed), packet.tailroom()), (2, 32));
}

#[test]
fn a_chain_has_at_most_255_segments() {
    let pool = pool(300, 0, 4);
    let mut packet = pool.get().unwrap();
    for _ in 1..255 {
        packet.chain(pool.get().unwrap()).unwrap();
    }
    assert_eq!(packet.nb_segs(), Packet::MAX_SEGS);
    assert!(packet.chain(pool.get().unwrap()).is_err());
    let clone = packet.clone_ref();
    assert!(clone.is_none(), "45 packets are left");
    drop(packet);
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn metadata_is_fresh_after_reuse() {
    let pool = pool(1, 16, 32);
    let mut packet = pool.get().unwrap();
    packet.set_port(3);
    packet.set_vlan_tci(7);
    packet.set_hash(9);
    packet.set_packet_type(PacketType::L3_IPV4);
    packet.set_tx_offload(Offload::TX_TCP_SEG, TxOffload::new(14, 20, 20).with_tso_segsz(1448));
    assert_eq!((packet.hash(), packet.tx_offload().tso_segsz()), (Some(9), 1448));
    let copy = packet.copy(&pool);
    assert!(copy.is_none());
    drop(packet);
    let packet = pool.get().unwrap();
    assert_eq!((packet.port(), packet.vlan_tci(), packet.hash()), (crate::Meta::NO_PORT, 0, None));
    assert_eq!((packet.packet_type(), packet.offload()), (PacketType::UNKNOWN, Offload::empty()));
    assert_eq!(packet.tx_offload(), TxOffload::default());
}

#[test]
fn bytes_outlive_packet_and_pool() {
    let pool = pool(2, 16, 32);
    let mut packet = pool.get().unwrap();
    packet.copy_from_slice(b"payload").unwrap();
    let at = packet.data_ptr();
    let bytes = packet.into_bytes();
    drop(pool);
    assert_eq!((bytes.as_ptr().addr(), &bytes[..]), (at.addr(), &b"payload"[..]));
}

#[test]
fn a_chain_comes_apart_into_plain_packets() {
    let pool = pool(4, 16, 32);
    let mut packet = pool.get().unwrap();
    packet.copy_from_slice(b"a").unwrap();
    for piece in [&b"bc"[..], b"def", b"ghij"] {
        let mut tail = pool.get().unwrap();
        tail.copy_from_slice(piece).unwrap();
        packet.chain(tail).unwrap();
    }
    let mut rest = packet.unchain().unwrap();
    assert_eq!((packet.data(), packet.len(), packet.nb_segs()), (&b"a"[..], 1, 1));
    assert_eq!((rest.len(), rest.nb_segs(), rest.segments().count()), (9, 3, 3));
    let mut last = rest.unchain().unwrap();
    assert_eq!((rest.data(), rest.len(), last.len()), (&b"bc"[..], 2, 7));
    let end = last.unchain().unwrap();
    assert_eq!((last.data(), end.data(), end.nb_segs()), (&b"def"[..], &b"ghij"[..], 1));
    drop((packet, rest, last, end));
    assert_eq!(pool.stats().in_use, 0);
}
