//! The packed halves against each other and the oracle.

use proptest::prelude::*;

use crate::layout::Layout;
use crate::model::{Step, Variant, run, run_hostile};

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
