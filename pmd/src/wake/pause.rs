//! Pauses between polls while traffic is heavy.

use std::time::{Duration, Instant};

/// The number of packets in one round from which on traffic counts as heavy: half of a usual burst.
const HEAVY: usize = 16;
/// The maximum number of pauses in a row. Later polls follow each other at once, as they do while packets come one by one.
const MOST: u32 = 8;
/// The length of a pause: about as long as the other end takes for two bursts of 32 packets. Shorter ones gain less (500 ns a third).
const LENGTH: Duration = Duration::from_nanos(1500);
/// Processor pauses between two looks at the clock.
const SPINS: u32 = 8;

/// Pauses of 1.5 µs before an empty queue is polled again, after rounds that moved many packets.
///
/// Each poll of an empty ring reads the cache line that the other end writes next. While that end fills it, it loses the line to every
/// poll and waits for it to come back, so the faster end of two makes the slower one slower still, most of all with packed rings, whose
/// descriptors are themselves what is polled. A thread that has just moved at least 16 packets therefore pauses, up to eight times in a
/// row. After rounds with fewer packets it does not, so that a single packet is never late.
///
/// ```
/// use linecard_pmd::wake::PollPause;
///
/// let mut pause = PollPause::new();
/// assert!(!pause.nothing()); // nothing was moved before
/// pause.moved(32);
/// assert!(pause.nothing());
/// pause.moved(1);
/// assert!(!pause.nothing()); // the next packet may be awaited
/// ```
// MEASURED: linecard bench loopback --position ours/ours, in turns with a program without the pauses: 64 bytes, packed mergeable 1.22,
// packed in-order 1.18, split 1.01 of its rate; above DPDK's frontend split mergeable 1.08; 1518 bytes 1.00 to 1.02.
#[derive(Clone, Debug, Default)]
pub struct PollPause {
    /// The number of pauses that may follow.
    left: u32,
}

impl PollPause {
    /// No pause until [`moved`](Self::moved) was called.
    #[must_use]
    pub const fn new() -> Self {
        Self { left: 0 }
    }

    /// To call after a round over all queues of the thread that moved this many packets.
    #[inline]
    pub const fn moved(&mut self, packets: usize) {
        self.left = if packets >= HEAVY { MOST } else { 0 };
    }

    /// To call after a round that moved none. Returns whether it paused.
    #[inline]
    pub fn nothing(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        let start = Instant::now();
        while start.elapsed() < LENGTH {
            (0..SPINS).for_each(|_| std::hint::spin_loop());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_follow_heavy_rounds_only_and_have_an_end() {
        let mut pause = PollPause::new();
        for (moved, pauses) in [(15, 0), (16, MOST), (64, MOST), (1, 0)] {
            pause.moved(moved);
            assert_eq!((0..100).filter(|_| pause.nothing()).count(), pauses as usize, "{moved} packets");
        }
        pause.moved(32);
        assert!(pause.nothing());
        pause.moved(3);
        assert!(!pause.nothing(), "the rest of the pauses is given up");
    }

    #[test]
    fn a_pause_has_its_length() {
        let mut pause = PollPause::new();
        pause.moved(32);
        let start = Instant::now();
        while pause.nothing() {}
        assert!(start.elapsed() >= LENGTH * MOST);
    }
}
