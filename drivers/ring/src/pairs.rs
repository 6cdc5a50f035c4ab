//! Which ring devices of a program are joined with which, by name.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use linecard_eal::memory::Domain;

use super::Side;

/// Two sides and who has them; both may be one side, of a device that is joined with itself.
pub(super) struct Pair {
    sides: [Arc<Side>; 2],
    taken: Mutex<[bool; 2]>,
}

/// A device's place in a pair; dropped, another device may have it.
pub(super) struct PairClaim {
    pair: Arc<Pair>,
    place: usize,
}

impl PairClaim {
    /// Where the device receives, and where it sends to.
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
    fn sit(self: &Arc<Self>, place: usize) -> Option<PairClaim> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        (!std::mem::replace(&mut taken[place], true)).then(|| PairClaim { pair: Arc::clone(self), place })
    }
}

/// Why two devices cannot be joined.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The other one is there, and joined with somebody else or with itself.
    Elsewhere,
    /// This place has a device.
    Taken,
    /// Nobody made a pair of that name.
    Unknown,
}

struct Entry {
    /// Whose devices these are: two programs in one process do not see each other's.
    domain: Weak<Domain>,
    /// Who may sit at each place; the same name twice for a device that is joined with itself.
    names: [String; 2],
    pair: Weak<Pair>,
}

static PAIRS: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// Runs `step` on all entries and the live pairs of `domain`.
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

/// A device without arguments: joined with whoever named it as a peer, or with itself.
pub(super) fn alone(domain: &Arc<Domain>, own: &str) -> Option<PairClaim> {
    with(domain, |all, known| {
        let awaited = known.iter().filter(|(names, _)| names[0] != names[1]).find_map(|(names, pair)| {
            let place = names.iter().position(|name| name == own)?;
            pair.sit(place)
        });
        awaited.or_else(|| make(all, domain, [own.to_owned(), own.to_owned()]).sit(0))
    })
}

/// Joined with the device of this name, which may come later.
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
        pair.sit(place).ok_or(Refusal::Taken)
    })
}

/// The first (`create`) or second device of a pair with a name of its own.
pub(super) fn by_node(domain: &Arc<Domain>, node: &str, create: bool) -> Result<PairClaim, Refusal> {
    // No device's name has a colon.
    let names = [format!("{node}:0"), format!("{node}:1")];
    with(domain, |all, known| {
        let pair = match known.iter().find(|(known, _)| *known == names) {
            Some((_, pair)) => Arc::clone(pair),
            None if create => make(all, domain, names),
            None => return Err(Refusal::Unknown),
        };
        pair.sit(usize::from(!create)).ok_or(Refusal::Taken)
    })
}
