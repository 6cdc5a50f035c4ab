//! Tables: lookups in hash tables and longest-prefix-match tables of established crates, compared with
//! `rte_hash` and `rte_lpm`.
//!
//! Both sides generate the same keys, routes and questions from the same numbers, and the peer refuses to
//! answer unless the sum of its results equals ours. Every lookup succeeds; the order of questions is random,
//! so memory cannot be prefetched. `bulk-32` looks up 32 keys at once in DPDK, whose functions prefetch
//! memory; the crates have no such function and look up single keys in both rows.
//!
//! Linecard has no table of its own: these figures show that none is needed.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::rc::Rc;

use linecard::eal::CoreId;
use linecard::eal::random::SplitMix64;

use super::Error;
use super::pair::{Bench, Case, Sample, alone, per};
use super::report::Row;

/// Lookups per pass, as in the peer.
const ASKED: u64 = 1 << 16;
/// Passes per sample.
const PASSES: u64 = 4;
/// Numbers of flows: a table that fits into the first cache levels, and one that does not.
const FLOWS: [u64; 2] = [1 << 12, 1 << 20];
/// Number of routes of a large router at the edge of a site. `rte_lpm` takes minutes to add those of the
/// whole Internet.
const ROUTES: u64 = 1 << 16;
/// The first number of questions, beyond those of keys.
const QUESTIONS: u64 = 1 << 40;

/// Measures the rows of `linecard bench tables`.
pub(crate) fn rows(bench: &mut Bench) -> Result<Vec<Row>, Error> {
    bench.measure("tables", "cycles/lookup", cases())
}

/// Returns the `n`th pseudo-random number (splitmix64), as the peer does.
fn mix(n: u64) -> u64 {
    SplitMix64::nth(0, n)
}

/// Addresses and ports, a typical key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Flow {
    source: u32,
    destination: u32,
    ports: u32,
    protocol: u32,
}

impl Flow {
    fn new(n: u64) -> Self {
        let (a, b) = (mix(2 * n), mix(2 * n + 1));
        Self { source: a as u32, destination: (a >> 32) as u32, ports: b as u32, protocol: (b >> 32) as u32 }
    }
}

/// Returns which of `count` entries a question is about.
fn asked(question: u64, count: u64) -> u64 {
    mix(QUESTIONS + question) % count
}

/// Returns a route: its address, and the length of its prefix. Most are /24, as in the Internet.
fn route(n: u64) -> (u32, u8) {
    const LENGTHS: [u8; 16] = [24, 24, 24, 24, 24, 24, 24, 24, 24, 23, 22, 22, 20, 19, 16, 28];
    let random = mix(n);
    let length = LENGTHS[(random >> 60) as usize];
    // Below 224.0.0.0, where multicast begins.
    let address = (random as u32) % 0xe000_0000;
    (address & (u32::MAX << (32 - length)), length)
}

/// Returns an address that matches a route.
fn behind(question: u64) -> u32 {
    let n = asked(question, ROUTES);
    let (address, length) = route(n);
    address | (mix(QUESTIONS * 2 + question) as u32 & !(u32::MAX << (32 - length)))
}

/// A table with its questions; a call makes one pass and returns the sum of the results.
type Pass = Box<dyn Fn() -> u64 + Send + Sync>;

/// The name of a table, and the function that creates it.
type Maker = (&'static str, fn(u64) -> Pass);

fn exact<S: BuildHasher + Default + Send + Sync + 'static>(count: u64) -> Pass {
    let table: hashbrown::HashMap<Flow, u32, S> = (0..count).map(|n| (Flow::new(n), n as u32)).collect();
    let questions: Vec<Flow> = (0..ASKED).map(|question| Flow::new(asked(question, count))).collect();
    Box::new(move || {
        black_box(&questions).iter().map(|flow| u64::from(table.get(flow).copied().unwrap_or(u32::MAX))).sum()
    })
}

/// The hash map of the standard library, which resists keys chosen by an attacker.
fn std_map(count: u64) -> Pass {
    let table: HashMap<Flow, u32> = (0..count).map(|n| (Flow::new(n), n as u32)).collect();
    let questions: Vec<Flow> = (0..ASKED).map(|question| Flow::new(asked(question, count))).collect();
    Box::new(move || {
        black_box(&questions).iter().map(|flow| u64::from(table.get(flow).copied().unwrap_or(u32::MAX))).sum()
    })
}

/// `ahash` with fixed seeds; programs usually have random ones.
#[derive(Clone)]
struct Ahash(ahash::RandomState);

impl Default for Ahash {
    fn default() -> Self {
        Self(ahash::RandomState::with_seeds(mix(1), mix(2), mix(3), mix(4)))
    }
}

impl BuildHasher for Ahash {
    type Hasher = <ahash::RandomState as BuildHasher>::Hasher;

    #[inline]
    fn build_hasher(&self) -> Self::Hasher {
        self.0.build_hasher()
    }
}

fn prefix<T: Send + Sync + 'static>(
    table: T,
    find: impl Fn(&T, u32) -> Option<u32> + Send + Sync + 'static,
) -> Pass {
    let questions: Vec<u32> = (0..ASKED).map(behind).collect();
    Box::new(move || {
        black_box(&questions)
            .iter()
            .map(|address| u64::from(find(&table, *address).unwrap_or(u32::MAX)))
            .sum()
    })
}

fn tree_bitmap(count: u64) -> Pass {
    let mut table = ip_network_table_deps_treebitmap::IpLookupTable::new();
    for n in 0..count {
        let (address, length) = route(n);
        table.insert(Ipv4Addr::from(address), length.into(), n as u32);
    }
    prefix(table, |table, address| table.longest_match(Ipv4Addr::from(address)).map(|(_, _, hop)| *hop))
}

fn prefix_trie(count: u64) -> Pass {
    let table: prefix_trie::PrefixMap<(u32, u8), u32> = (0..count).map(|n| (route(n), n as u32)).collect();
    prefix(table, |table, address| table.get_lpm(&(address, 32)).map(|(_, hop)| *hop))
}

fn lc_trie(count: u64) -> Pass {
    let mut table = iptrie::Ipv4RTrieMap::with_root(u32::MAX);
    for n in 0..count {
        let (address, length) = route(n);
        // Every length is at most 32.
        if let Ok(prefix) = iptrie::Ipv4Prefix::new(Ipv4Addr::from(address), length) {
            table.insert(prefix, n as u32);
        }
    }
    prefix(table.compress(), |table, address| Some(*table.lookup(&Ipv4Addr::from(address)).1))
}

const HASHES: [Maker; 4] = [
    ("std HashMap", std_map),
    ("hashbrown, foldhash", exact::<hashbrown::DefaultHashBuilder>),
    ("hashbrown, ahash", exact::<Ahash>),
    ("hashbrown, rustc-hash", exact::<rustc_hash::FxBuildHasher>),
];
const PREFIXES: [Maker; 3] =
    [("treebitmap", tree_bitmap), ("prefix-trie", prefix_trie), ("iptrie, LC-trie", lc_trie)];

/// A table that is created at the first use, because the filter may exclude it.
struct Table {
    make: fn(u64) -> Pass,
    count: u64,
    made: OnceCell<(Pass, u64)>,
}

impl Table {
    /// Returns the table, and the sum of one pass.
    fn get(&self) -> &(Pass, u64) {
        self.made.get_or_init(|| {
            let pass = (self.make)(self.count);
            let sum = pass();
            (pass, sum)
        })
    }
}

struct TableCase {
    name: String,
    /// The question for the peer, without passes and sum.
    question: String,
    table: Rc<Table>,
}

fn cases() -> Vec<TableCase> {
    let mut cases = Vec::new();
    let mut add = |kind: &str, (name, make): Maker, count: u64| {
        let table = Rc::new(Table { make, count, made: OnceCell::new() });
        for (bulk, label) in [(1, "single"), (32, "bulk-32")] {
            cases.push(TableCase {
                name: format!("{kind} {count} {label}: {name}"),
                question: format!("{kind} {count} {bulk}"),
                table: Rc::clone(&table),
            });
        }
    };
    for count in FLOWS {
        HASHES.into_iter().for_each(|maker| add("hash", maker, count));
    }
    PREFIXES.into_iter().for_each(|maker| add("lpm", maker, ROUTES));
    cases
}

impl Case for TableCase {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn cores(&self) -> usize {
        1
    }

    fn question(&self) -> String {
        format!("{} {PASSES} {}", self.question, self.table.get().1)
    }

    fn sample(&self, cores: &[CoreId]) -> Result<Sample, Error> {
        let Some(core) = cores.first() else { return Ok(Sample { value: 0.0, interrupted: 0 }) };
        let pass = &*self.table.get().0;
        let spent = alone(*core, || {
            for _ in 0..PASSES {
                black_box(pass());
            }
        })?;
        Ok(Sample { value: per(spent.cycles, PASSES * ASKED), interrupted: spent.interrupted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_tables_find_the_same() {
        for count in FLOWS {
            // Each flow exists once, and each question finds its own flow.
            let want: u64 = (0..ASKED).map(|question| asked(question, count)).sum();
            for (name, make) in HASHES {
                assert_eq!(make(count)(), want, "{name}, {count} flows");
            }
        }
        let routes: Vec<(u32, u8)> = (0..ROUTES).map(route).collect();
        let longest = |address: u32| {
            let matches = |(route, length): &(u32, u8)| (address ^ route) & (u32::MAX << (32 - length)) == 0;
            // Of the longest prefixes, the last, which replaced the others.
            routes
                .iter()
                .enumerate()
                .filter(|(_, r)| matches(r))
                .max_by_key(|(n, r)| (r.1, *n))
                .map(|(n, _)| n)
        };
        let table = tree_bitmap(ROUTES);
        for (name, make) in PREFIXES {
            assert_eq!(make(ROUTES)(), table(), "{name}");
        }
        // Correct results too, for as many routes as the slow reference allows.
        let mut small = ip_network_table_deps_treebitmap::IpLookupTable::new();
        for (n, (address, length)) in routes.iter().enumerate() {
            small.insert(Ipv4Addr::from(*address), (*length).into(), n);
        }
        for address in (0..500).map(behind) {
            let found = small.longest_match(Ipv4Addr::from(address)).map(|(_, _, n)| *n);
            assert_eq!(found, longest(address), "{}", Ipv4Addr::from(address));
        }
    }

    #[test]
    fn every_case_has_a_name_of_its_own_and_measures() {
        let cases = cases();
        let mut names: Vec<_> = cases.iter().map(Case::name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), cases.len());
        let sample = cases[0].sample(&linecard::eal::cores::allowed()).expect("a sample");
        assert!(sample.value > 0.0 && sample.value.is_finite());
    }
}
