//! The packed halves against each other and the oracle.

use proptest::prelude::*;

use crate::layout::Layout;
use crate::model::{Step, Variant, run, run_hostile, run_random};

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 2000 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_halves_agree_with_the_oracle(shape in any::<[u8; 5]>(), ops in prop::collection::vec(any::<[u8; 2]>(), 0..150)) {
        run(Variant::from_bytes(Layout::Packed, shape), &ops);
    }

    #[test]
    fn a_ring_of_garbage_harms_neither_half(shape in any::<[u8; 5]>(), steps in prop::collection::vec(any::<Step>(), 0..200)) {
        run_hostile(Variant::from_bytes(Layout::Packed, shape), &steps);
    }
}

#[test]
fn a_million_batches_agree_with_the_oracle() {
    run_random(Layout::Packed, if cfg!(miri) { 2000 } else { 1_000_000 });
}

mod faults {
    use super::super::{Device, Driver};
    use crate::fault::PeerFault;
    use crate::layout::{F_AVAIL, F_INDIRECT, F_NEXT, F_USED, F_WRITE, Layout};
    use crate::model::villain::{Villain, assert_single_reads, collect};
    use crate::queue::{Buffer, DriverQueue, Element};

    const GUEST: u64 = 0x7f00_0000_0000;
    const SIZE: u16 = 3;
    /// The flags of a used descriptor of the first lap.
    const DONE: u16 = F_AVAIL | F_USED;

    fn villain() -> Villain {
        Villain::new(Layout::Packed, SIZE)
    }

    /// A readable queue's verdict on the chain in slot 0.
    fn verdict(v: &Villain, indirect: bool) -> Result<(u16, u32), PeerFault> {
        v.chain(Device::<false, false>::new(&v.ring, v.device(indirect)).expect("valid"))
    }

    #[test]
    fn chains_that_are_wrong() {
        let v = villain();
        v.desc(0, GUEST, 60, 0xffff, F_AVAIL);
        assert_eq!(verdict(&v, true), Ok((1, 60)), "the id is the driver's business");
        v.desc(0, GUEST, 60, 0, F_AVAIL | F_WRITE);
        assert_eq!(verdict(&v, true), Err(PeerFault::WrongDirection { index: 0 }));
        v.desc(0, GUEST - 1, 60, 0, F_AVAIL);
        assert_eq!(verdict(&v, true), Err(PeerFault::BadAddress { addr: GUEST - 1, len: 60 }));
        v.desc(0, GUEST, 60, 0, F_AVAIL | F_NEXT);
        assert_eq!(verdict(&v, true), Err(PeerFault::ChainIncomplete { slot: 1 }));
        (0..3).for_each(|slot| v.desc(slot, GUEST, 60, 0, F_AVAIL | F_NEXT));
        assert_eq!(verdict(&v, true), Err(PeerFault::ChainIncomplete { slot: 0 }), "slot 0 of the next lap");
        v.desc(1, GUEST, u32::MAX, 0, F_AVAIL);
        assert!(matches!(verdict(&v, true), Err(PeerFault::BadAddress { .. })));
    }

    #[test]
    fn tables_that_are_wrong() {
        let v = villain();
        let flags = F_AVAIL | F_INDIRECT;
        v.entry(0, GUEST + 100, 60, 0, F_NEXT);
        v.entry(16, GUEST + 200, 40, 0, 0);
        v.desc(0, GUEST, 32, 0, flags);
        assert_eq!(verdict(&v, true), Ok((1, 100)), "NEXT means nothing inside a table");
        assert_eq!(verdict(&v, false), Err(PeerFault::BadIndirect { len: 32, flags }));
        for len in [0, 8, 24] {
            v.desc(0, GUEST, len, 0, flags);
            assert_eq!(verdict(&v, true), Err(PeerFault::BadIndirect { len, flags }));
        }
        v.desc(0, GUEST, 32, 0, flags | F_NEXT);
        assert_eq!(verdict(&v, true), Err(PeerFault::BadIndirect { len: 32, flags: flags | F_NEXT }));
        v.desc(0, GUEST, 16 * 4, 0, flags);
        (0..4).for_each(|k| v.entry(16 * k, GUEST, 10, 0, 0));
        assert_eq!(verdict(&v, true), Err(PeerFault::ChainTooLong { max: SIZE }));
        v.desc(0, GUEST, 16, 0, flags);
        v.entry(0, GUEST, 10, 0, F_WRITE);
        assert_eq!(verdict(&v, true), Ok((1, 10)), "as DPDK's driver writes them");
        v.entry(0, GUEST, 10, 0, 0);
        let writable = Device::<false, true>::new(&v.ring, v.device(true)).expect("valid");
        assert_eq!(v.chain(writable), Err(PeerFault::WrongDirection { index: 0 }));
    }

    #[test]
    fn completions_that_are_wrong() {
        let v = villain();
        let mut driver = Driver::<false, true>::new(&v.ring, v.driver()).expect("valid");
        driver.add_chain(&[Element { addr: GUEST, len: 60 }; 2], 1).expect("room");
        driver.publish();
        assert_eq!(collect(&mut driver), Ok(vec![]), "still the device's");
        for id in [1, 3, 0xffff] {
            v.desc(0, 0, 0, id, DONE);
            assert_eq!(collect(&mut driver), Err(PeerFault::UnknownId { id: u32::from(id), size: SIZE }));
        }
        v.desc(0, 0, 121, 0, DONE);
        assert_eq!(collect(&mut driver), Err(PeerFault::UsedLen { len: 121, lent: 120 }));
        v.desc(0, 0, 120, 0, 0);
        assert_eq!(collect(&mut driver), Ok(vec![]), "used in another lap");
        v.desc(0, 0, 120, 0, DONE);
        assert_eq!(collect(&mut driver), Ok(vec![(1, 120)]));
        v.desc(2, 0, 0, 0, DONE);
        assert_eq!(collect(&mut driver), Err(PeerFault::UnknownId { id: 0, size: SIZE }), "twice");
    }

    #[test]
    fn one_descriptor_may_stand_for_a_batch() {
        let v = villain();
        let mut driver = Driver::<true, true>::new(&v.ring, v.driver()).expect("valid");
        driver.add_chain(&[Element { addr: GUEST, len: 60 }; 2], 1).expect("room");
        driver.add(Buffer { addr: GUEST, len: 60, token: 2 }).expect("room");
        driver.publish();
        v.desc(0, 0, 7, 1, DONE);
        assert_eq!(collect(&mut driver), Err(PeerFault::UnknownId { id: 1, size: SIZE }), "not a head");
        v.desc(0, 0, 61, 2, DONE);
        assert_eq!(collect(&mut driver), Err(PeerFault::UsedLen { len: 61, lent: 60 }));
        v.desc(0, 0, 7, 2, DONE);
        assert_eq!(collect(&mut driver), Ok(vec![(1, 120), (2, 7)]));
        assert_eq!(driver.free(), SIZE);
    }

    #[test]
    fn no_word_is_read_twice() {
        let v = villain();
        v.entry(0, GUEST + 100, 60, 0, 0);
        v.entry(16, GUEST + 200, 40, 0, 0);
        v.desc(0, GUEST, 60, 0, F_AVAIL | F_NEXT);
        v.desc(1, GUEST, 32, 0, F_AVAIL | F_INDIRECT);
        assert_single_reads(&v, || Device::<false, false>::new(&v.ring, v.device(true)).expect("valid"));
    }
}
