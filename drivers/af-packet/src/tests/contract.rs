//! The contract, for both layouts of the ring and both ways to send.

use super::{Cable, far_at, near_at};
use linecard_lab::Lab;
use linecard_lab::contract::{Ends, FarEnd, Limits, Link};
use linecard_pmd::args::DevArgs;
use linecard_pmd::port::{Driver, ProbeContext};

/// Both ends are ports of this driver with these options.
struct Veth(&'static str);

impl Link for Veth {
    fn open(&self, near: &ProbeContext, far: &ProbeContext) -> Ends {
        let cable = Cable::new("af_packet contract").expect("namespaces can be made: `ready` said so");
        let probe = |context, text: String| {
            let args = DevArgs::parse(&text).expect("well formed");
            super::AfPacketDriver.probe(context, &args).expect("probes")
        };
        let device = probe(near, near_at(&cable, self.0));
        Ends { near: device, far: FarEnd::Peer(cable.peer(probe(far, far_at(&cable, self.0)), 0)) }
    }

    fn ready(&self) -> bool {
        Lab::new("the contract of net_af_packet").is_some()
    }

    fn limits(&self) -> Limits {
        // Which queue a packet arrives on is the fanout group's decision, see `counters::fanout`.
        Limits { len: 14..=1514, queues: 1, ..Limits::default() }
    }
}

// Nothing holds a sender back: the rings take all that a clause sends before it receives.

mod v2 {
    linecard_lab::contract_tests!(super::Veth(",framecnt=4096"));
}

mod v3 {
    linecard_lab::contract_tests!(super::Veth(",version=3"));
}

mod through_the_qdisc {
    linecard_lab::contract_tests!(super::Veth(",qdisc_bypass=0,framecnt=4096"));
}
