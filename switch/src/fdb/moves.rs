//! Detection of stations that move again and again. A loop between ports causes this for every station whose
//! frames circulate, and so do two stations with the same address.
//!
//! A station that moved too often returns to the port where it was before, and is held there for a while.
//! This ends a loop: the circulating frames first came in at the station's own port, and frames that come in
//! at another port are no longer flooded.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use super::station::{HELD, OTHER, OTHER_AT};
use super::{Station, Table};

/// How often a station may move within a second.
pub const MOST_MOVES: u32 = 5;
/// How long a station that moved more often is held at its port, in seconds.
pub const HOLD_SECONDS: u32 = 10;
/// The maximum number of held stations that one report names.
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
    /// The port at which it is held.
    pub home: u16,
    /// The other port, where it was seen last.
    pub other: u16,
}

/// The recent moves of a station.
struct History {
    /// The port where it was before.
    home: u16,
    /// The second of its first move.
    since: u32,
    /// The number of moves since then.
    moves: u32,
    /// The second until which it is held.
    held_until: Option<u32>,
    /// The port from which it is kept while it is held.
    other: Option<u16>,
}

/// The stations that moved within this second, and those that are held.
#[derive(Default)]
pub(super) struct Moves {
    stations: HashMap<Station, History>,
    /// Held stations not reported yet: the first few, and the number of all.
    held: (Vec<Held>, u64),
}

impl Moves {
    /// Records that a station is about to move from one port to another. If it moved too often, returns the
    /// port at which it is held and the port to keep it from. At most `most` stations are tracked at a time.
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
        let anew = || History { home: from, since: now, moves: 0, held_until: None, other: None };
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
        history.other = Some(other);
        let (first, count) = &mut self.held;
        if first.len() < TOLD {
            first.push(Held { station, home, other });
        }
        *count += 1;
        Some((home, other))
    }

    /// Forgets a station that is no longer in the table.
    pub(super) fn forget(&mut self, station: Station) {
        if !self.stations.is_empty() {
            self.stations.remove(&station);
        }
    }

    /// Forgets stations that are to be held at a port, or kept from it, because the port is removed; returns them.
    fn leave(&mut self, port: u16) -> Vec<Station> {
        let mut free = Vec::new();
        self.stations.retain(|station, history| {
            let stays = history.home != port && history.other != Some(port);
            if !stays {
                free.push(*station);
            }
            stays
        });
        free
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.stations.len()
    }

    /// Forgets expired histories; returns the stations that are no longer held.
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

    /// The stations held since the last call: the first few, and the number of all.
    pub(super) fn take_held(&mut self) -> (Vec<Held>, u64) {
        std::mem::take(&mut self.held)
    }
}

impl Table {
    /// A table that holds stations. One that moves more than [`MOST_MOVES`] times within a second of the
    /// table's clock returns to the port where it was before and is held there for [`HOLD_SECONDS`]; see
    /// [`look_at_held`](Self::look_at_held).
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

    /// Releases stations that were held long enough; returns those held since the last call: the first few,
    /// and the number of all. To be called about once a second.
    pub fn look_at_held(&self) -> (Vec<Held>, u64) {
        let mut writer = self.lock();
        let Some(moves) = &mut writer.moves else { return Default::default() };
        let free = moves.over(self.now());
        let held = moves.take_held();
        self.release(&free);
        held
    }

    /// Removes the stations behind a port that is removed, and what is known about moves to and from it: its number may be that of
    /// another port soon.
    pub(crate) fn forget_port(&self, port: u16) {
        self.forget(|_, place| place.port == port);
        let mut writer = self.lock();
        let free = writer.moves.as_mut().map(|moves| moves.leave(port)).unwrap_or_default();
        self.release(&free);
    }

    /// Ends the holding of stations; the caller holds the lock.
    fn release(&self, stations: &[Station]) {
        for (_, cell) in stations.iter().filter_map(|station| self.look(*station)) {
            cell.fetch_and(!(HELD | OTHER), Ordering::Relaxed);
        }
    }

    /// The port from which a held station is kept: its flooded frames are not sent there, where the loop may
    /// continue.
    pub(crate) fn kept_from(&self, station: Station) -> Option<u16> {
        let (bits, _) = self.look(station).filter(|(bits, _)| bits & HELD != 0)?;
        Some(((bits & OTHER) >> OTHER_AT) as u16)
    }

    /// Returns whether `station` moved too often and is held.
    pub(crate) fn is_held(&self, station: Station) -> bool {
        self.look(station).is_some_and(|(bits, _)| bits & HELD != 0)
    }
}
