//! A fixed trace through both directions, for counting instructions: `budget KIND` with `split`,
//! `split-in-order`, `packed` or `packed-in-order`; mergeable receive buffers with a second argument.
//!
//! ```sh
//! valgrind --tool=callgrind --toggle-collect='*Receive*rx_burst*' target/release/examples/budget packed
//! ```
//! The count divided by 64 000 is instructions per packet.

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Bench, Guest, frame};
use linecard_mempool::Burst;
use linecard_pmd::{RxQueue, TxQueue};
use linecard_virtio::Features;

const BURSTS: usize = 2000;
const BURST: usize = 32;

fn main() {
    let mut args = std::env::args().skip(1);
    let kind = args.next().unwrap_or_else(|| "split".into());
    let features = Features::NONE
        .with(Features::RING_PACKED, kind.starts_with("packed"))
        .with(Features::IN_ORDER, kind.ends_with("in-order"))
        .with(Features::NET_MRG_RXBUF, args.next().is_some());
    let mut bench = Bench::with_cache("budget", 64);
    let mut guest = Guest::start(&bench.path, features);
    bench.wait_link(true);
    let bytes = frame(1, 64);
    let mut packets = Burst::new();
    for burst in 0..BURSTS {
        (0..BURST).for_each(|_| guest.send(&bytes));
        guest.tx.publish();
        guest.post_receive(burst % 4 * BURST, BURST, 2048);
        while packets.len() < BURST {
            bench.rx.rx_burst(&mut packets);
        }
        assert_eq!(bench.tx.tx_burst(&mut packets), BURST);
        assert_eq!(guest.received().len(), BURST);
        assert_eq!(guest.tx.take().len(), BURST);
    }
}
