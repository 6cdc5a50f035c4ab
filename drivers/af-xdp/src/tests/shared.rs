//! Packets that go on where they lie, several ports on one umem, and what leaves with the port.

use linecard_mempool::PoolConfig;

use super::*;
use crate::bpf::{Attached, Mode, Program, Sockets};

/// Two veth pairs, `near`–`far` and `near2`–`far2`.
fn two_pairs(lab: &Lab) {
    veth(lab);
    lab.veth("near2", "far2");
    for name in ["near2", "far2"] {
        lab.ip(&format!("link set {name} addrgenmode none"));
    }
}

/// What comes in by one port goes out by another from the buffer that the kernel wrote it into.
fn forwards_without_a_copy(test: &str, options: &str) {
    let Some(lab) = lab(test) else { return };
    two_pairs(&lab);
    let (ours, theirs) = (context(), context());
    let (pool, other) = (pool(&ours), pool(&theirs));
    let port = |context: &ProbeContext, pool: &Pool, iface: &str, options: &str| {
        let text = format!("net_af_xdp0,iface={iface},netns={}{options}", lab.path());
        start(context, &text, pool).expect("a port")
    };
    let (mut a, mut b) = (port(&ours, &pool, "near", options), port(&ours, &pool, "near2", options));
    let (mut from, mut to) = (port(&theirs, &other, "far", ""), port(&theirs, &other, "far2", ""));
    for round in 0..40 {
        send(&mut from, (0..32).map(|i| frame(&other, round ^ i, 60 + usize::from(i))));
        let packets = receive(&mut a, 32);
        assert!(packets.iter().all(|packet| pool.buffers().index_of(packet.data_ptr().addr()).is_some()));
        send(&mut b, packets);
        let arrived = receive(&mut to, 32);
        for (i, packet) in (0..).zip(&arrived) {
            assert_eq!((packet.len(), packet.data()[20]), (60 + usize::from(i), round ^ i), "round {round}");
        }
        drop(arrived);
        // The kernel gives buffers back when the frames are gone.
        b.tx[0].reclaim();
    }
    assert_eq!((xstat(&b, "tx_q0_copied"), b.control.stats().opackets), (0, 40 * 32));
    for port in [a, b, from, to] {
        port.stop();
    }
    assert_eq!((pool.stats().in_use, other.stats().in_use), (0, 0));
}

#[test]
fn between_ports_of_one_pool() {
    forwards_without_a_copy("between_ports_of_one_pool", "");
}

#[test]
fn between_ports_of_one_umem() {
    forwards_without_a_copy("between_ports_of_one_umem", ",shared_umem=1");
}

#[test]
fn a_shared_umem_outlives_the_port_that_made_it() {
    let Some(lab) = lab("a_shared_umem_outlives_the_port_that_made_it") else { return };
    two_pairs(&lab);
    let context = context();
    let pool = pool(&context);
    let port = |iface: &str| {
        let text = format!("net_af_xdp0,iface={iface},shared_umem=1,netns={}", lab.path());
        start(&context, &text, &pool).expect("a port")
    };
    let (first, mut second, mut third) = (port("near"), port("near2"), port("far2"));
    first.stop();
    let again = port("near");
    send(&mut second, (0..8).map(|i| frame(&pool, i, 100)));
    assert_eq!(receive(&mut third, 8).len(), 8);
    for port in [again, second, third] {
        port.stop();
    }
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn what_does_not_lie_in_the_umem_is_copied() {
    let Some(lab) = lab("what_does_not_lie_in_the_umem_is_copied") else { return };
    veth(&lab);
    let context = context();
    let pool = pool(&context);
    let foreign =
        Pool::new(&context.domain, PoolConfig::default().name("foreign").packets(64).cache(0).data_room(512))
            .expect("a pool");
    let port = |iface: &str| {
        let text = format!("net_af_xdp0,iface={iface},netns={}", lab.path());
        start(&context, &text, &pool).expect("a port")
    };
    let (mut near, mut far) = (port("near"), port("far"));
    let mut original = frame(&pool, 3, 80);
    let clone = original.clone_ref().expect("a clone");
    let mut mixed = frame(&pool, 4, 64);
    let mut tail = foreign.get().expect("a packet");
    tail.append(16).expect("room").fill(4);
    mixed.chain(tail).expect("two segments");
    send(&mut near, [frame(&foreign, 1, 60), frame(&pool, 2, 60), original, clone, mixed]);
    let arrived = receive(&mut far, 5);
    let seen: Vec<_> = arrived.iter().map(|packet| (packet.len(), packet.data()[20])).collect();
    assert_eq!(seen, [(60, 1), (60, 2), (80, 3), (80, 3), (80, 4)]);
    assert_eq!(xstat(&near, "tx_q0_copied"), 4);
    drop(arrived);
    near.stop();
    far.stop();
    assert_eq!((pool.stats().in_use, foreign.stats().in_use), (0, 0));
}

#[test]
fn frames_that_cannot_be_sent_are_counted_by_cause() {
    let Some(lab) = lab("frames_that_cannot_be_sent_are_counted_by_cause") else { return };
    veth(&lab);
    let context = context();
    let pool = pool(&context);
    let mut near =
        start(&context, &format!("net_af_xdp0,iface=near,netns={}", lab.path()), &pool).expect("a port");
    let mut runt = pool.get().expect("a packet");
    runt.append(13).expect("room");
    send(&mut near, [runt, frame(&pool, 0, 1519), frame(&pool, 0, 1518)]);
    assert_eq!((xstat(&near, "tx_q0_runt"), xstat(&near, "tx_q0_too_long")), (1, 1));
    let stats = near.control.stats();
    assert_eq!((stats.opackets, stats.oerrors), (1, 2));
    near.stop();
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn the_program_comes_and_goes_with_the_port() {
    let Some(lab) = lab("the_program_comes_and_goes_with_the_port") else { return };
    veth(&lab);
    let context = context();
    let pool = pool(&context);
    let device =
        probe(&context, &format!("net_af_xdp0,iface=near,netns={}", lab.path())).expect("an interface");
    assert!(xdp_on(&lab, "near"));
    let port = configure(device, PortConfig::default()).expect("possible").start(&pool).expect("started");
    assert!(lab.ip("-d link show near").contains("promiscuity 1"));
    let control = port.control.clone();
    drop(port.stop());
    // Whoever still asks keeps nothing open.
    assert!(control.link().up && !control.promiscuous());
    expect_no_xdp(&lab, "near");
    assert!(lab.ip("-d link show near").contains("promiscuity 0"));
}

#[test]
fn the_program_goes_though_somebody_holds_a_copy_of_its_descriptor() {
    let Some(lab) = lab("the_program_goes_though_somebody_holds_a_copy_of_its_descriptor") else { return };
    veth(&lab);
    let sockets = Sockets::new(1).expect("a map");
    let program = Program::redirect(&sockets).expect("a program");
    let index = lab.interface("near").index();
    let attach = || lab.run(|| Attached::new(&program, index, Mode::Native)).expect("free");
    let first = attach();
    let copy = first.link.try_clone().expect("a copy");
    assert!(xdp_on(&lab, "near"));
    drop(first);
    assert!(!xdp_on(&lab, "near"));
    drop(attach());
    drop(copy);
}

#[test]
fn a_larger_mtu_lasts_as_long_as_the_port() {
    let Some(lab) = lab("a_larger_mtu_lasts_as_long_as_the_port") else { return };
    veth(&lab);
    let context = context();
    let pool = pool(&context);
    let device =
        probe(&context, &format!("net_af_xdp0,iface=near,netns={}", lab.path())).expect("an interface");
    let config = PortConfig::default().mtu(3000);
    let port = configure(device, config).expect("possible").start(&pool).expect("started");
    assert_eq!(lab.interface("near").info().expect("there").mtu, 3000);
    drop(port.stop());
    assert_eq!(lab.interface("near").info().expect("there").mtu, 1500);
}
