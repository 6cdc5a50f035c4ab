//! The split halves against each other and the oracle.

use proptest::prelude::*;

use crate::layout::Layout;
use crate::model::{Step, Variant, run, run_hostile, run_random};

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 2000 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_halves_agree_with_the_oracle(shape in any::<[u8; 5]>(), ops in prop::collection::vec(any::<[u8; 2]>(), 0..150)) {
        run(Variant::from_bytes(Layout::Split, shape), &ops);
    }

    #[test]
    fn a_ring_of_garbage_harms_neither_half(shape in any::<[u8; 5]>(), steps in prop::collection::vec(any::<Step>(), 0..200)) {
        run_hostile(Variant::from_bytes(Layout::Split, shape), &steps);
    }
}

#[test]
fn a_million_batches_agree_with_the_oracle() {
    run_random(Layout::Split, if cfg!(miri) { 2000 } else { 1_000_000 });
}

mod faults {
    use super::super::{Device, Driver};
    use crate::fault::PeerFault;
    use crate::layout::{F_INDIRECT, F_NEXT, F_WRITE, Layout};
    use crate::model::villain::{Villain, collect};
    use crate::queue::{Buffer, Chain, DeviceQueue, DriverQueue, Element, Used};

    const GUEST: u64 = 0x7f00_0000_0000;
    const SIZE: u16 = 4;

    fn villain() -> Villain {
        Villain::new(Layout::Split, SIZE)
    }

    /// A readable queue's verdict on the chain at descriptor 0.
    fn verdict(v: &Villain, indirect: bool) -> Result<(u16, u32), PeerFault> {
        v.avail_idx(1);
        v.chain(Device::<false, false>::new(&v.ring, v.device(indirect)).expect("valid"))
    }

    #[test]
    fn chains_that_are_wrong() {
        let v = villain();
        v.avail(0, SIZE);
        assert_eq!(verdict(&v, true), Err(PeerFault::DescOutOfRange { index: SIZE, size: SIZE }));
        v.avail(0, 0);
        v.desc(0, GUEST, 60, 0, 9);
        assert_eq!(verdict(&v, true), Ok((1, 60)), "`next` means nothing without NEXT");
        v.desc(0, GUEST, 60, F_NEXT, 9);
        assert_eq!(verdict(&v, true), Err(PeerFault::DescOutOfRange { index: 9, size: SIZE }));
        v.desc(0, GUEST, 60, F_NEXT, 0);
        assert_eq!(verdict(&v, true), Err(PeerFault::ChainTooLong { max: SIZE }), "a loop");
        v.desc(0, GUEST, 60, F_WRITE, 0);
        assert_eq!(verdict(&v, true), Err(PeerFault::WrongDirection { index: 0 }));
        v.desc(0, GUEST - 1, 60, 0, 0);
        assert_eq!(verdict(&v, true), Err(PeerFault::BadAddress { addr: GUEST - 1, len: 60 }));
        v.desc(0, u64::MAX - 4, 60, 0, 0);
        assert_eq!(verdict(&v, true), Err(PeerFault::BadAddress { addr: u64::MAX - 4, len: 60 }));
        v.desc(0, GUEST + 0xfff0, 17, 0, 0);
        assert_eq!(verdict(&v, true), Err(PeerFault::BadAddress { addr: GUEST + 0x1_0000, len: 1 }));
        v.desc(0, GUEST + 0x7ff0, 0x20, 0, 0);
        assert_eq!(verdict(&v, true), Ok((1, 0x20)), "across two regions");
        v.desc(0, 1, 0, 0, 0);
        assert_eq!(verdict(&v, true), Ok((1, 0)), "nothing is read where there is no length");
    }

    #[test]
    fn tables_that_are_wrong() {
        let v = villain();
        let bad = |len, flags| Err(PeerFault::BadIndirect { len, flags });
        v.entry(0, GUEST + 100, 60, F_NEXT, 1);
        v.entry(16, GUEST + 200, 40, 0, 0);
        v.desc(0, GUEST, 32, F_INDIRECT, 0);
        assert_eq!(verdict(&v, true), Ok((1, 100)));
        assert_eq!(verdict(&v, false), bad(32, F_INDIRECT), "not negotiated");
        for len in [0, 8, 24] {
            v.desc(0, GUEST, len, F_INDIRECT, 0);
            assert_eq!(verdict(&v, true), bad(len, F_INDIRECT));
        }
        v.desc(0, GUEST, 32, F_INDIRECT | F_NEXT, 1);
        assert_eq!(verdict(&v, true), bad(32, F_INDIRECT | F_NEXT));
        v.desc(0, GUEST, 16, F_INDIRECT, 0);
        assert_eq!(verdict(&v, true), Err(PeerFault::DescOutOfRange { index: 1, size: 1 }));
        v.desc(0, GUEST + 0x1_0000, 16, F_INDIRECT, 0);
        assert_eq!(verdict(&v, true), Err(PeerFault::BadAddress { addr: GUEST + 0x1_0000, len: 16 }));
        v.desc(0, GUEST, 32, F_INDIRECT, 0);
        v.entry(16, GUEST, 16, F_INDIRECT, 0);
        assert_eq!(verdict(&v, true), bad(16, F_INDIRECT), "nested");
        v.entry(16, GUEST, 60, F_NEXT, 0);
        assert_eq!(verdict(&v, true), Err(PeerFault::ChainTooLong { max: SIZE }), "a loop inside");
    }

    #[test]
    fn indices_that_jump() {
        let v = villain();
        for to in [SIZE + 1, 0x8000, u16::MAX] {
            v.avail_idx(to);
            let device = Device::<false, false>::new(&v.ring, v.device(false)).expect("valid");
            assert_eq!(v.chain(device), Err(PeerFault::AvailJump { from: 0, to, size: SIZE }));
        }
        let mut driver = Driver::<false, false>::new(&v.ring, v.driver()).expect("valid");
        driver.add(Buffer { addr: GUEST, len: 60, token: 1 }).expect("room");
        driver.publish();
        for to in [2, u16::MAX] {
            v.used_idx(to);
            assert_eq!(collect(&mut driver), Err(PeerFault::UsedJump { from: 0, to, in_flight: 1 }));
        }
    }

    /// A peer that sleeps at the last entry of a lap of 65 536 in which nobody asked it. Too slow for miri.
    #[cfg(not(miri))]
    #[test]
    fn a_lap_without_a_question_hides_no_event() {
        let v = villain();
        let config = crate::config::DeviceConfig { event_idx: true, ..v.device(false) };
        let mut device = Device::<false, true>::new(&v.ring, config).expect("valid");
        let complete = |device: &mut Device<false, true>, count| {
            (0..count).for_each(|_| device.complete(Used { id: 0, descs: 1, len: 0 }));
            device.publish();
        };
        v.used_event(65_535);
        for _ in 0..65_534 {
            complete(&mut device, 1);
            assert!(!device.call_hint());
        }
        v.used_event(65_534);
        complete(&mut device, 4);
        assert!(device.call_hint() && device.call_needed());
        assert!(!device.call_needed(), "once");

        let config = crate::config::DriverConfig { event_idx: true, ..v.driver() };
        let mut driver = Driver::<false, false>::new(&v.ring, config).expect("valid");
        let lend = |driver: &mut Driver<false, false>, count: u16| {
            (0..count).for_each(|_| driver.add(Buffer { addr: GUEST, len: 60, token: 0 }).expect("room"));
            driver.publish();
        };
        v.avail_event(65_535);
        for n in 1..=65_534 {
            lend(&mut driver, 1);
            assert!(!driver.kick_hint());
            // Ids go round a ring of four.
            v.used(usize::from((n - 1) % SIZE), u32::from((n - 1) % SIZE), 0);
            v.used_idx(n);
            assert_eq!(collect(&mut driver), Ok(vec![(0, 0)]));
        }
        v.avail_event(65_534);
        lend(&mut driver, 4);
        assert!(driver.kick_hint() && driver.kick_needed());
        assert!(!driver.kick_needed(), "once");
    }

    #[test]
    fn what_is_known_comes_before_an_index_that_jumps() {
        let v = villain();
        let mut driver = Driver::<false, false>::new(&v.ring, v.driver()).expect("valid");
        (1..=3).for_each(|token| driver.add(Buffer { addr: GUEST, len: 60, token }).expect("room"));
        driver.publish();
        (0..2).for_each(|k| v.used(k, k as u32, 0));
        v.used_idx(2);
        let mut one = [core::mem::MaybeUninit::uninit()];
        assert_eq!(driver.complete(&mut one), Ok(1));
        v.used_idx(100);
        assert_eq!(collect(&mut driver), Ok(vec![(2, 0)]), "known before the jump");
        assert_eq!(collect(&mut driver), Err(PeerFault::UsedJump { from: 2, to: 100, in_flight: 1 }));

        let mut device = Device::<false, false>::new(&v.ring, v.device(false)).expect("valid");
        v.avail_idx(3);
        let mut chains = [const { core::mem::MaybeUninit::<Chain>::uninit() }; 4];
        assert_eq!(device.peek(&v.guest, &mut chains[..1]), Ok(1));
        v.avail_idx(100);
        assert_eq!(device.peek(&v.guest, &mut chains), Ok(3), "known before the jump");
        (0..3).for_each(|id| device.complete(Used { id, descs: 1, len: 0 }));
        assert_eq!(
            device.peek(&v.guest, &mut chains),
            Err(PeerFault::AvailJump { from: 3, to: 100, size: SIZE })
        );
    }

    #[test]
    fn completions_that_are_wrong() {
        let v = villain();
        let mut driver = Driver::<false, true>::new(&v.ring, v.driver()).expect("valid");
        driver.add_chain(&[Element { addr: GUEST, len: 60 }; 2], 1).expect("room");
        driver.add(Buffer { addr: GUEST, len: 60, token: 2 }).expect("room");
        driver.publish();
        v.used_idx(1);
        for id in [1, 3, 4, 0x1_0000, u32::MAX] {
            v.used(0, id, 0);
            assert_eq!(collect(&mut driver), Err(PeerFault::UnknownId { id, size: SIZE }));
        }
        v.used(0, 0, 121);
        assert_eq!(collect(&mut driver), Err(PeerFault::UsedLen { len: 121, lent: 120 }));
        v.used(0, 2, 61);
        assert_eq!(collect(&mut driver), Err(PeerFault::UsedLen { len: 61, lent: 60 }));
        v.used(0, 0, 120);
        v.used(1, 0, 0);
        v.used_idx(2);
        assert_eq!(collect(&mut driver), Ok(vec![(1, 120)]), "what came before a fault goes out first");
        assert_eq!(collect(&mut driver), Err(PeerFault::UnknownId { id: 0, size: SIZE }), "twice");
    }

    #[test]
    fn one_element_may_stand_for_a_batch() {
        let v = villain();
        let mut driver = Driver::<true, true>::new(&v.ring, v.driver()).expect("valid");
        for token in 1..=4 {
            driver.add(Buffer { addr: GUEST, len: 60, token }).expect("room");
        }
        driver.publish();
        v.used(0, 2, 7);
        v.used(3, 3, 9);
        v.used_idx(4);
        assert_eq!(collect(&mut driver), Ok(vec![(1, 60), (2, 60), (3, 7), (4, 9)]));
        assert_eq!(driver.free(), SIZE);
    }

    #[test]
    fn a_batch_must_end_inside_what_is_used() {
        let v = villain();
        let mut driver = Driver::<true, true>::new(&v.ring, v.driver()).expect("valid");
        for token in 1..=3 {
            driver.add(Buffer { addr: GUEST, len: 60, token }).expect("room");
        }
        driver.publish();
        v.used_idx(2);
        v.used(0, 2, 0);
        assert_eq!(collect(&mut driver), Err(PeerFault::UnknownId { id: 2, size: SIZE }));
        v.used(0, 1, 61);
        assert_eq!(collect(&mut driver), Err(PeerFault::UsedLen { len: 61, lent: 60 }));
    }

    #[test]
    fn no_word_is_read_twice() {
        let v = villain();
        v.entry(0, GUEST + 100, 60, F_NEXT, 1);
        v.entry(16, GUEST + 200, 40, 0, 0);
        v.desc(0, GUEST, 60, F_NEXT, 1);
        v.desc(1, GUEST, 32, F_INDIRECT, 0);
        v.desc(2, GUEST, 60, 0, 0);
        (0..2).for_each(|k| v.avail(k, 2 * k as u16));
        v.avail_idx(2);
        crate::model::villain::assert_single_reads(&v, || {
            Device::<false, false>::new(&v.ring, v.device(true)).expect("valid")
        });
    }
}
