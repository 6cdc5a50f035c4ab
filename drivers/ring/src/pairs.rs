//! The connections between the ring devices of a program, by name.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use linecard_eal::memory::Domain;

use super::Side;

/// Two sides and whether each is in use. For a device that is connected to itself, both are the same side.
pub(super) struct Pair {
    sides: [Arc<Side>; 2],
    taken: Mutex<[bool; 2]>,
}

/// A device's place in a pair. Dropping it frees the place for another device.
pub(super) struct PairClaim {
    pair: Arc<Pair>,
    place: usize,
}

impl PairClaim {
    /// Returns the side where the device receives, and the side it sends to.
    pub(super) fn sides(&self) -> (Arc<Side>, Arc<Side>) {
        (Arc::clone(&self.pair.sides[self.place]), Arc::clone(&self.pair.sides[1 - self.place]))
    }
}

impl Drop for PairClaim {
    fn drop(&mut self) {
        self.pair.taken.lock().unwrap_or_else(PoisonError::into_inner)[self.place] = false;
    }
}

impl Pair {
    fn claim(self: &Arc<Self>, place: usize) -> Option<PairClaim> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        (!std::mem::replace(&mut taken[place], true)).then(|| PairClaim { pair: Arc::clone(self), place })
    }
}

/// The reasons why two devices cannot be connected.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The other device exists, and is connected to a third one or to itself.
    Elsewhere,
    /// The place is in use by another device.
    Taken,
    /// No pair of that name exists.
    Unknown,
}

struct Entry {
    /// The domain of the devices: two programs in one process do not share devices.
    domain: Weak<Domain>,
    /// The names of the devices for each place; twice the same for a device that is connected to itself.
    names: [String; 2],
    pair: Weak<Pair>,
}

static PAIRS: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// Calls `step` with all entries and the existing pairs of `domain`.
fn with<T>(domain: &Arc<Domain>, step: impl FnOnce(&mut Vec<Entry>, &[([String; 2], Arc<Pair>)]) -> T) -> T {
    let mut all = PAIRS.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|entry| entry.pair.strong_count() > 0 && entry.domain.strong_count() > 0);
    let own = all.iter().filter(|entry| std::ptr::eq(entry.domain.as_ptr(), Arc::as_ptr(domain)));
    let own: Vec<_> = own.filter_map(|entry| Some((entry.names.clone(), entry.pair.upgrade()?))).collect();
    step(&mut all, &own)
}

fn make(all: &mut Vec<Entry>, domain: &Arc<Domain>, names: [String; 2]) -> Arc<Pair> {
    let first = Arc::new(Side::default());
    let second = if names[0] == names[1] { Arc::clone(&first) } else { Arc::new(Side::default()) };
    let pair = Arc::new(Pair { sides: [first, second], taken: Mutex::default() });
    all.push(Entry { domain: Arc::downgrade(domain), names, pair: Arc::downgrade(&pair) });
    pair
}

/// Connects a device without arguments: to a device that names it as its peer, or to itself.
pub(super) fn alone(domain: &Arc<Domain>, own: &str) -> Option<PairClaim> {
    with(domain, |all, known| {
        let awaited = known.iter().filter(|(names, _)| names[0] != names[1]).find_map(|(names, pair)| {
            let place = names.iter().position(|name| name == own)?;
            pair.claim(place)
        });
        awaited.or_else(|| make(all, domain, [own.to_owned(), own.to_owned()]).claim(0))
    })
}

/// Connects a device to `peer`, which may be created later.
pub(super) fn with_peer(domain: &Arc<Domain>, own: &str, peer: &str) -> Result<PairClaim, Refusal> {
    let mut names = [own.to_owned(), peer.to_owned()];
    names.sort_unstable();
    let place = usize::from(names[1] == own);
    with(domain, |all, known| {
        let pair = match known.iter().find(|(known, _)| *known == names) {
            Some((_, pair)) => Arc::clone(pair),
            None if known.iter().any(|(known, _)| known.iter().any(|name| name == peer)) => {
                return Err(Refusal::Elsewhere);
            }
            None => make(all, domain, names),
        };
        pair.claim(place).ok_or(Refusal::Taken)
    })
}

/// Takes the first (`create`) or second place of a pair that has its own name.
pub(super) fn by_node(domain: &Arc<Domain>, node: &str, create: bool) -> Result<PairClaim, Refusal> {
    // Cannot collide: no device name contains a colon.
    let names = [format!("{node}:0"), format!("{node}:1")];
    with(domain, |all, known| {
        let pair = match known.iter().find(|(known, _)| *known == names) {
            Some((_, pair)) => Arc::clone(pair),
            None if create => make(all, domain, names),
            None => return Err(Refusal::Unknown),
        };
        pair.claim(usize::from(!create)).ok_or(Refusal::Taken)
    })
}
