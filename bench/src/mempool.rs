//! Pools: the loop of DPDK's `mempool_perf_autotest`. Gets `keep` packets in bulks and puts all of them in
//! bulks, with per-core caches on both sides; the figure is the number of packets per second, summed over the
//! cores.
//!
//! Each packet is ready for use, with its metadata reset, and freed by `Drop` or in bulk; DPDK does the same
//! work for its `rte_pktmbuf`.

use linecard::eal::{Clock, CoreId, Memory, MemoryConfig};
use linecard::mempool::{Burst, Packet, Pool, PoolConfig};

use super::Error;
use super::pair::{Bench, Case, Sample, Spent, alone, per, together};
use super::report::Row;

/// Packets of the pool, as in the peer.
const PACKETS: u32 = 8191;
/// Packets that each core gets per sample.
const TRIPS: u64 = 1 << 19;

/// Measures the rows of `linecard bench mempool`.
pub(crate) fn rows(bench: &mut Bench) -> Result<Vec<Row>, Error> {
    let domain = Memory::new(MemoryConfig::default())?.domain("bench")?;
    // The same size as the caches of the peer, the largest that DPDK allows.
    let config = PoolConfig::default().name("bench").packets(PACKETS).cache(512);
    let shared = Setup { pool: Pool::new(&domain, config)?, mhz: per(Clock::calibrated().hz(), 1_000_000) };
    bench.measure("mempool", "Mpackets/s", cases(&shared))
}

struct Setup {
    pool: Pool,
    mhz: f64,
}

struct PoolCase<'a> {
    shared: &'a Setup,
    /// Packets per call.
    bulk: usize,
    /// Packets held before they are put back.
    keep: usize,
    cores: usize,
}

fn cases(shared: &Setup) -> Vec<PoolCase<'_>> {
    let mut cases = Vec::new();
    for cores in [1, 2] {
        for bulk in [1, 4, 8, 32] {
            for keep in [32, 128, 512] {
                cases.push(PoolCase { shared, bulk, keep, cores });
            }
        }
    }
    cases
}

impl Case for PoolCase<'_> {
    fn name(&self) -> String {
        let cores = if self.cores == 2 { "two cores" } else { "one core" };
        format!("cached get/put bulk-{} keep-{} {cores}", self.bulk, self.keep)
    }

    fn cores(&self) -> usize {
        self.cores
    }

    fn question(&self) -> String {
        format!("pool packet {} {} {} {}", self.bulk, self.keep, self.cores, self.rounds())
    }

    fn sample(&self, cores: &[CoreId]) -> Result<Sample, Error> {
        let trip = || self.trips();
        let spent: Vec<Spent> = match *cores {
            [first, second, ..] if self.cores == 2 => together([first, second], trip, trip)?.into(),
            [core, ..] => vec![alone(core, trip)?],
            [] => Vec::new(),
        };
        let packets = self.rounds() * self.keep as u64;
        Ok(Sample {
            value: spent.iter().map(|s| per(packets, s.cycles.max(1)) * self.shared.mhz).sum(),
            interrupted: spent.iter().map(|s| s.interrupted).sum(),
        })
    }
}

impl PoolCase<'_> {
    fn rounds(&self) -> u64 {
        TRIPS / self.keep as u64
    }

    fn trips(&self) {
        if self.bulk == 1 {
            one_by_one(&self.shared.pool, self.keep, self.rounds());
        } else {
            in_bulks(&self.shared.pool, self.bulk, self.keep, self.rounds());
        }
    }
}

/// The pool holds more packets than both cores keep, so an empty pool is a defect.
fn full<T>(packet: Option<T>) -> T {
    packet.expect("the pool has more packets than this benchmark holds")
}

#[inline(never)]
fn one_by_one(pool: &Pool, keep: usize, rounds: u64) {
    let mut kept: Vec<Packet> = Vec::with_capacity(keep);
    for _ in 0..rounds {
        while kept.len() < keep {
            kept.push(full(pool.get()));
        }
        while let Some(packet) = kept.pop() {
            drop(packet);
        }
    }
}

#[inline(never)]
fn in_bulks(pool: &Pool, bulk: usize, keep: usize, rounds: u64) {
    let mut kept: Vec<Burst> = (0..keep / bulk).map(|_| Burst::new()).collect();
    for _ in 0..rounds {
        for burst in &mut kept {
            full(pool.get_bulk(burst, bulk).ok());
        }
        for burst in &mut kept {
            burst.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linecard::eal::cores;

    #[test]
    fn every_case_measures_and_gives_its_packets_back() {
        let domain = Memory::new(MemoryConfig::default()).and_then(|m| m.domain("test")).expect("memory");
        let config = PoolConfig::default().packets(PACKETS);
        let shared = Setup { pool: Pool::new(&domain, config).expect("pool"), mhz: 1000.0 };
        let allowed = cores::allowed();
        for case in cases(&shared).iter().filter(|case| case.cores <= allowed.len() && case.keep == 128) {
            let sample = case.sample(&allowed).expect("a sample");
            assert!(sample.value > 0.0 && sample.value.is_finite(), "{}: {sample:?}", case.name());
        }
        assert_eq!(shared.pool.stats().in_use, 0);
    }
}
