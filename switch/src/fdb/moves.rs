//! Stations that move again and again: what a loop between ports does to every station whose frames go round, and what two
//! stations with one address look like.
//!
//! One that moved too often goes back to where it was before, and stays there for a while. That ends a loop: what went round came
//! in at its own port first, and what comes in at another one from now on is not sent to all ports.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use super::{HELD, OTHER, OTHER_AT, Station, Table};

/// How often a station may move within a second.
pub const MOST_MOVES: u32 = 5;
/// For how many seconds one that moved more often stays where it is.
pub const HOLD_SECONDS: u32 = 10;
/// The most of these that one look tells of, by name.
const TOLD: usize = 3;

/// A station that moved too often.
///
/// ```
/// use linecard_switch::fdb::{Held, LearningPort, Station, Table};
/// let table = Table::new(1000).holding();
/// let station = Station::new("02:00:00:00:00:01".parse()?, 0);
/// for port in [1, 2, 3, 2, 3, 2, 3] {
///     table.learn(station, LearningPort { port, limit: 10, fixed: false });
/// }
/// assert_eq!(table.look_at_held(), (vec![Held { station, home: 1, other: 3 }], 1));
/// # Ok::<(), linecard_net::mac::ParseMacError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The station.
    pub station: Station,
    /// The port where it stays.
    pub home: u16,
    /// The other port that it was seen at last.
    pub other: u16,
}

/// What is known of a station that moved.
struct History {
    /// Where it was before.
    home: u16,
    /// In which second it moved first.
    since: u32,
    /// How often it has moved since.
    moves: u32,
    /// It stays until this second.
    held_until: Option<u32>,
}

/// The stations that moved within this second, and those that stay where they are.
#[derive(Default)]
pub(super) struct Moves {
    stations: HashMap<Station, History>,
    /// Those that nobody was told of yet: the first, and how many.
    held: (Vec<Held>, u64),
}

impl Moves {
    /// A station is about to move from one port to another. If it did so too often it is not to, and this is where it is to
    /// stay, and the port to keep it from. At most `most` stations are watched at a time.
    pub(super) fn moves(
        &mut self,
        station: Station,
        ports: (u16, u16),
        now: u32,
        most: usize,
    ) -> Option<(u16, u16)> {
        let (from, to) = ports;
        if self.stations.len() >= most && !self.stations.contains_key(&station) {
            return None;
        }
        let anew = || History { home: from, since: now, moves: 0, held_until: None };
        let history = self.stations.entry(station).or_insert_with(anew);
        if history.since != now {
            *history = anew();
        }
        history.moves = history.moves.saturating_add(1);
        if history.moves <= MOST_MOVES {
            return None;
        }
        history.held_until = Some(now.saturating_add(HOLD_SECONDS));
        let home = history.home;
        let other = if to == home { from } else { to };
        let (first, count) = &mut self.held;
        if first.len() < TOLD {
            first.push(Held { station, home, other });
        }
        *count += 1;
        Some((home, other))
    }

    /// The station is not in the table any more.
    pub(super) fn forget(&mut self, station: Station) {
        if !self.stations.is_empty() {
            self.stations.remove(&station);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.stations.len()
    }

    /// Forgets what is over by now; the stations that may move again.
    pub(super) fn over(&mut self, now: u32) -> Vec<Station> {
        let mut free = Vec::new();
        self.stations.retain(|station, history| match history.held_until {
            Some(until) if now >= until => {
                free.push(*station);
                false
            }
            Some(_) => true,
            None => history.since == now,
        });
        free
    }

    /// Those that were held since this was asked last: the first of them, and how many.
    pub(super) fn take_held(&mut self) -> (Vec<Held>, u64) {
        std::mem::take(&mut self.held)
    }
}

impl Table {
    /// A table in which a station that moves more than [`MOST_MOVES`] times within a second of the table's clock is put back to
    /// the port where it was before, and stays there for [`HOLD_SECONDS`]; see [`look_at_held`](Self::look_at_held).
    ///
    /// ```
    /// use linecard_switch::fdb::{Learned, LearningPort, Station, Table};
    /// let table = Table::new(1000).holding();
    /// let station = Station::new("02:00:00:00:00:01".parse()?, 0);
    /// let learn = |port| table.learn(station, LearningPort { port, limit: 10, fixed: false });
    /// assert_eq!([1, 2, 3, 2, 3, 2].map(learn), [Learned::New, Learned::Moved, Learned::Moved, Learned::Moved, Learned::Moved, Learned::Moved]);
    /// assert_eq!([3, 2, 1].map(learn), [Learned::Held, Learned::Held, Learned::Known]);
    /// assert_eq!(table.find(station).map(|place| place.port), Some(1));
    /// # Ok::<(), linecard_net::mac::ParseMacError>(())
    /// ```
    #[must_use]
    pub fn holding(self) -> Self {
        self.lock().moves = Some(Moves::default());
        self
    }

    /// Lets stations go that were held long enough, and tells which were held since it was called last: the first of them, and how
    /// many; to be called about once a second.
    pub fn look_at_held(&self) -> (Vec<Held>, u64) {
        let mut writer = self.lock();
        let Some(moves) = &mut writer.moves else { return Default::default() };
        for station in moves.over(self.now()) {
            if let Some((_, cell)) = self.look(station) {
                cell.fetch_and(!(HELD | OTHER), Ordering::Relaxed);
            }
        }
        moves.take_held()
    }

    /// The port from which a station that moved too often is kept for a while: its frames to all do not go there, where the same
    /// loop may begin.
    pub(crate) fn kept_from(&self, station: Station) -> Option<u16> {
        let (bits, _) = self.look(station).filter(|(bits, _)| bits & HELD != 0)?;
        Some(((bits & OTHER) >> OTHER_AT) as u16)
    }

    /// Whether `station` moved too often, and stays where it is.
    pub(crate) fn is_held(&self, station: Station) -> bool {
        self.look(station).is_some_and(|(bits, _)| bits & HELD != 0)
    }
}
