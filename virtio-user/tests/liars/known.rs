//! What a backend gave back properly before it lied: it is received, and does not count as lost.

use std::sync::atomic::Ordering::{Relaxed, Release};

use linecard_lab::wait_until;
use linecard_mempool::Burst;
use linecard_pmd::Port;

use crate::field::{Field, SIZE};
use crate::packed::{PackedRing, USED};
use crate::support;

/// How many are given back before the lie, and how many are sent.
const GOOD: u16 = 3;
const SENT: usize = 32;

/// Gives back a buffer that was never lent, at slot [`GOOD`] of a ring whose slots before are used.
fn lie(field: &Field, ring: usize) {
    let memory = field.backend.ring(ring);
    if field.backend.packed() {
        PackedRing(memory).write(GOOD, SIZE, 76, USED);
        return;
    }
    let element = 4 + 8 * usize::from(GOOD);
    let word = |at, value: u32| memory.device.cell::<u32>(at).expect("inside the ring").store(value, Relaxed);
    word(element, u32::from(SIZE));
    word(element + 4, 76);
    memory.device.cell::<u16>(2).expect("inside the ring").store(GOOD + 1, Release);
}

fn lost(port: &Port) -> u64 {
    port.control.xstats().iter().find(|(name, _)| name == "tx_q0_backend_gone").map_or(0, |(_, count)| *count)
}

fn end(Field { bench, port, backend, .. }: Field) {
    wait_until("link down", || !port.control.link().up);
    bench.soon_whole();
    drop((backend, port.stop()));
    bench.assert_whole();
}

#[test]
fn packets_received_before_a_lie_are_delivered() {
    for options in ["packed_vq=0,in_order=0", "packed_vq=1,in_order=0"] {
        let mut field = Field::new(options, support::all_features());
        let mut echo = field.backend.echo(0);
        let frame = |number: u16| vec![number as u8 + 1; 60 + usize::from(number)];
        (0..GOOD).for_each(|number| assert!(echo.give(&frame(number)), "{options}"));
        lie(&field, 0);
        let mut came = Burst::new();
        wait_until("the lie is found", || {
            field.port.rx[0].rx_burst(&mut came);
            !field.port.control.link().up
        });
        let frames: Vec<_> = came.iter().map(|packet| packet.data().to_vec()).collect();
        assert_eq!(frames, (0..GOOD).map(frame).collect::<Vec<_>>(), "{options}");
        let stats = field.port.control.stats();
        assert_eq!((stats.ipackets, stats.ierrors), (u64::from(GOOD), 0), "{options}");
        came.clear();
        end(field);
    }
}

#[test]
fn packets_sent_before_a_lie_are_not_lost() {
    for options in ["packed_vq=0,in_order=0", "packed_vq=1,in_order=0"] {
        let mut field = Field::new(options, support::all_features());
        let mut echo = field.backend.echo(0);
        field.send(SENT);
        (0..GOOD).for_each(|_| assert_eq!(echo.take(), Some(vec![1; 60]), "{options}"));
        lie(&field, 1);
        wait_until("the lie is found", || {
            field.port.tx[0].reclaim();
            !field.port.control.link().up
        });
        field.bench.soon_whole();
        let stats = field.port.control.stats();
        assert_eq!(stats.opackets, SENT as u64, "{options}");
        let want = SENT as u64 - u64::from(GOOD);
        assert_eq!((lost(&field.port), stats.oerrors), (want, want), "{options}");
        end(field);
    }
}
