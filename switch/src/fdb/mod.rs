//! The forwarding database (FDB): the port behind which each station is. All workers share one table.
//!
//! ```text
//!   bucket: one cache line            [ sequence | passed | 3 keys | 3 values ]
//!   key     MAC (48 bits), used (1), VLAN (12)        value   port (16), fixed (1), held (1), other port (12), last seen (32, seconds)
//! ```
//! A key is in the bucket that its hash selects or, if that was full, in one of the next few. `passed` counts the keys that were stored
//! beyond a bucket, so that a search knows where to end. Readers take no lock: a bucket's sequence number is odd while it changes and
//! different afterwards; a reader that sees this reads again. Writers are rare (stations that are new, move or disappear) and take a lock.
//! A worker never waits for it: an address that cannot be learned now is learned from its next frame. Lists are made without the lock.
//!
//! The hash has a secret per table, so that nobody can choose addresses that all collide.

mod bucket;
mod moves;
mod station;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use self::bucket::{Bucket, Look, SLOTS};
use self::moves::Moves;
pub use self::moves::{HOLD_SECONDS, Held, MOST_MOVES};
use self::station::{HELD, OTHER, OTHER_AT};
pub use self::station::{Learned, LearningPort, Location, Station};

/// The maximum number of buckets that are searched.
const REACH: usize = 8;
/// How often a worker tries to lock the table for a new station: about as long as another worker needs to insert one.
const TRIES: u32 = 64;

/// The state of the writer, which holds the lock on the table.
struct Writer {
    /// Stations that were added, moved or removed, while a journal is kept.
    journal: Option<Vec<Station>>,
    /// Stations that moved recently, if the table holds those that move too often.
    moves: Option<Moves>,
}

impl Writer {
    fn note(&mut self, station: Station) {
        if let Some(journal) = &mut self.journal {
            journal.push(station);
        }
    }
}

/// The stations that a switch knows.
///
/// ```
/// use linecard_switch::fdb::{Learned, LearningPort, Station, Table};
/// let table = Table::new(1000);
/// let station = Station::new("02:00:00:00:00:01".parse()?, 0);
/// assert_eq!(table.learn(station, LearningPort { port: 3, limit: 10, fixed: false }), Learned::New);
/// assert_eq!(table.find(station).map(|place| place.port), Some(3));
/// table.tick(301);
/// assert_eq!(table.age(300), 1);
/// assert_eq!(table.find(station), None);
/// # Ok::<(), linecard_net::mac::ParseMacError>(())
/// ```
pub struct Table {
    buckets: Box<[Bucket]>,
    /// An odd number.
    secret: u64,
    shift: u32,
    capacity: usize,
    /// Seconds since the table was made.
    now: AtomicU32,
    /// The number of stations behind each port, and of all. Written with `writer` locked; read without it, because nothing is learned from
    /// a frame that arrives while another thread holds the lock.
    behind: Box<[AtomicU32]>,
    all: AtomicUsize,
    writer: Mutex<Writer>,
}

impl Table {
    /// An empty table for at most `capacity` stations.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self::with_secret(capacity, RandomState::new().hash_one(capacity))
    }

    /// As [`new`](Self::new), with a given secret so that tests are repeatable.
    #[must_use]
    pub fn with_secret(capacity: usize, secret: u64) -> Self {
        let capacity = capacity.clamp(1, 1 << 24);
        // At most two thirds full.
        let buckets = (capacity / 2 + 1).next_power_of_two().max(2);
        Self {
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
            secret: secret | 1,
            shift: u64::BITS - buckets.trailing_zeros(),
            capacity,
            now: AtomicU32::new(0),
            behind: (0..=u16::MAX).map(|_| AtomicU32::new(0)).collect(),
            all: AtomicUsize::new(0),
            writer: Mutex::new(Writer { journal: None, moves: None }),
        }
    }

    /// Returns the location of `station`.
    #[must_use]
    pub fn find(&self, station: Station) -> Option<Location> {
        self.look(station).map(|(bits, _)| Location::of(bits))
    }

    /// Returns the table's clock, in seconds.
    #[inline(always)]
    #[must_use]
    pub fn now(&self) -> u32 {
        self.now.load(Ordering::Relaxed)
    }

    /// Sets the table's clock, in seconds.
    pub fn tick(&self, seconds: u32) {
        self.now.store(seconds, Ordering::Relaxed);
    }

    /// Learns `station` from a frame. If there is no room, it replaces a station learned behind a port that has more stations than this
    /// one, so that no port can fill the table and keep others from being learned.
    #[inline]
    pub fn learn(&self, station: Station, behind: LearningPort) -> Learned {
        match self.refresh(station, behind.port) {
            Some(learned) => learned,
            None => self.learn_slowly(station, behind),
        }
    }

    /// Refreshes `station` from a frame without learning it; returns `None` if it is not known behind `port` and could be learned there.
    #[inline]
    pub fn refresh(&self, station: Station, port: u16) -> Option<Learned> {
        let (bits, cell) = self.look(station)?;
        let (place, now) = (Location::of(bits), self.now());
        if place.port != port {
            let held = (bits & HELD != 0).then_some(Learned::Held);
            return if place.fixed { Some(Learned::Taken) } else { held };
        }
        if place.seen != now {
            let newer = Location { seen: now, ..place }.to_bits() | bits & (HELD | OTHER);
            // The station may have moved meanwhile, or another one may have taken its slot; then there is nothing to refresh.
            let _ = cell.compare_exchange(bits, newer, Ordering::Relaxed, Ordering::Relaxed);
        }
        Some(Learned::Known)
    }

    #[cold]
    #[inline(never)]
    fn learn_slowly(&self, station: Station, behind: LearningPort) -> Learned {
        for _ in 0..TRIES {
            match self.writer.try_lock() {
                Ok(mut writer) => return self.put_fairly(&mut writer, station, behind),
                Err(TryLockError::Poisoned(writer)) => {
                    return self.put_fairly(&mut writer.into_inner(), station, behind);
                }
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
        Learned::Busy
    }

    /// Puts a configured station behind `port`, replacing what was learned about it. In a full table it replaces another learned station,
    /// so that [`NoRoom`](Learned::NoRoom) is returned only if the configured ones fill the table.
    pub fn set(&self, station: Station, port: u16) -> Learned {
        let mut writer = self.lock();
        match self.find(station) {
            Some(place) if place.fixed && place.port == port => return Learned::Known,
            Some(place) if place.fixed => return Learned::Taken,
            Some(_) => {
                self.remove(&mut writer, station);
            }
            None => {}
        }
        let behind = LearningPort { port, limit: u32::MAX, fixed: true };
        match self.put_fairly(&mut writer, station, behind) {
            // No slot nearby could be freed, or the table as a whole is full.
            Learned::NoRoom if self.forget_one(&mut writer) => self.put(&mut writer, station, behind),
            outcome => outcome,
        }
    }

    /// As [`put`](Self::put); if there is no room, replaces another station.
    fn put_fairly(&self, writer: &mut Writer, station: Station, behind: LearningPort) -> Learned {
        match self.put(writer, station, behind) {
            Learned::NoRoom if self.make_room(writer, station, behind) => self.put(writer, station, behind),
            outcome => outcome,
        }
    }

    /// Removes a learned station to make room for this one. Candidates are the stations in whose slots it could be. It picks the port with
    /// the most stations, and of these the one that was quiet longest. For a learned station, ports with no more stations than its own are
    /// exempt.
    fn make_room(&self, writer: &mut Writer, station: Station, behind: LearningPort) -> bool {
        let own = self.count(behind.port);
        let may_go =
            |entry: &(Station, Location)| !entry.1.fixed && (behind.fixed || self.count(entry.1.port) > own);
        let near = self.reach(station).flat_map(|bucket| stations(bucket.entries()));
        let picked =
            near.filter(may_go).max_by_key(|(_, place)| (self.count(place.port), Reverse(place.seen)));
        picked.is_some_and(|(station, _)| self.remove(writer, station))
    }

    /// Removes any one learned station.
    fn forget_one(&self, writer: &mut Writer) -> bool {
        let mut all = self.buckets.iter().flat_map(|bucket| stations(bucket.entries()));
        let picked = all.find(|(_, place)| !place.fixed);
        picked.is_some_and(|(station, _)| self.remove(writer, station))
    }

    /// Removes a station, configured or learned; returns whether it was known.
    pub fn unset(&self, station: Station) -> bool {
        let mut writer = self.lock();
        self.remove(&mut writer, station)
    }

    /// Removes learned stations that have not sent for more than `limit` seconds; returns their number.
    pub fn age(&self, limit: u32) -> usize {
        let now = self.now();
        self.forget(|_, place| !place.fixed && now.saturating_sub(place.seen) > limit)
    }

    /// Removes the stations that `which` selects; returns their number.
    pub fn forget(&self, which: impl Fn(Station, Location) -> bool) -> usize {
        let mut gone = 0;
        for bucket in &self.buckets {
            let picked: Vec<_> =
                self.entries_of(bucket).filter(|(station, place)| which(*station, *place)).collect();
            for (station, _) in picked {
                let mut writer = self.lock();
                // The station may have moved or sent since it was selected.
                let still = self.find(station).is_some_and(|place| which(station, place));
                gone += usize::from(still && self.remove(&mut writer, station));
            }
        }
        gone
    }

    /// Starts to record which stations are added, moved or removed.
    pub(crate) fn start_journal(&self) {
        self.lock().journal = Some(Vec::new());
    }

    /// Ends the recording; returns those stations, each with its current location.
    pub(crate) fn end_journal(&self) -> Vec<(Station, Option<Location>)> {
        let stations = self.lock().journal.take().unwrap_or_default();
        stations.into_iter().map(|station| (station, self.find(station))).collect()
    }

    /// Puts a station where the predecessor had it; returns `false` if there is no room.
    pub(crate) fn restore(&self, station: Station, place: Location) -> bool {
        let mut writer = self.lock();
        self.remove(&mut writer, station);
        let Location { port, fixed, seen } = place;
        match self.put(&mut writer, station, LearningPort { port, limit: u32::MAX, fixed }) {
            Learned::New => {}
            _ => return false,
        }
        if let Some((bits, cell)) = self.look(station) {
            let newer = Location { seen, ..Location::of(bits) }.to_bits();
            cell.store(newer, Ordering::Relaxed);
        }
        true
    }

    /// Returns every station and its location. Workers keep learning: a station added or removed meanwhile may or may not be listed.
    #[must_use]
    pub fn list(&self) -> Vec<(Station, Location)> {
        self.buckets.iter().flat_map(|bucket| self.entries_of(bucket)).collect()
    }

    /// Returns the number of stations behind `port`.
    #[must_use]
    pub fn count(&self, port: u16) -> u32 {
        self.of(port).load(Ordering::Relaxed)
    }

    /// Returns the number of all stations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }

    /// Returns whether the table has no stations.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn of(&self, port: u16) -> &AtomicU32 {
        &self.behind[usize::from(port)]
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline(always)]
    fn home(&self, station: Station) -> usize {
        // Folds in the high half before multiplying: VLANs are in the low bits, manufacturer IDs in the high ones.
        let mixed = station.key() ^ station.key() >> 32;
        (mixed.wrapping_mul(self.secret) >> self.shift) as usize
    }

    #[inline(always)]
    fn look(&self, station: Station) -> Option<(u64, &AtomicU64)> {
        let (home, mask) = (self.home(station), self.buckets.len() - 1);
        for step in 0..REACH {
            match self.buckets[(home + step) & mask].look(station.key()) {
                Look::Here(bits, cell) => return Some((bits, cell)),
                Look::Further => {}
                Look::Nowhere => return None,
            }
        }
        None
    }

    /// The buckets in which a station may be.
    fn reach(&self, station: Station) -> impl Iterator<Item = &Bucket> {
        let (home, mask) = (self.home(station), self.buckets.len() - 1);
        (0..REACH.min(self.buckets.len())).map(move |step| &self.buckets[(home + step) & mask])
    }

    /// Inserts or moves a station. A station that moves keeps its slot, so that concurrent listing or removal does not miss it.
    fn put(&self, writer: &mut Writer, station: Station, behind: LearningPort) -> Learned {
        let known = self.look(station);
        let mut place = Location { port: behind.port, fixed: behind.fixed, seen: self.now() };
        let (mut held, mut learned) = (0, Learned::Moved);
        match known.map(|(bits, _)| Location::of(bits)) {
            Some(known) if known.port == behind.port => return Learned::Known,
            Some(known) if known.fixed => return Learned::Taken,
            // Another worker has held it a moment ago.
            Some(_) if !behind.fixed && self.is_held(station) => return Learned::Held,
            _ if self.count(behind.port) >= behind.limit => return Learned::Full,
            None if self.len() >= self.capacity => return Learned::NoRoom,
            Some(known) => {
                let ports = (known.port, behind.port);
                let moves = writer.moves.as_mut().filter(|_| !behind.fixed);
                let home = moves.and_then(|moves| moves.moves(station, ports, place.seen, self.capacity));
                if let Some((home, other)) = home {
                    (place.port, held) = (home, HELD | u64::from(other) << OTHER_AT & OTHER);
                    if home != behind.port {
                        learned = Learned::Held;
                    }
                }
            }
            None => learned = Learned::New,
        }
        match known {
            Some((old, cell)) => {
                cell.store(place.to_bits() | held, Ordering::Relaxed);
                self.of(Location::of(old).port).fetch_sub(1, Ordering::Relaxed);
                self.of(place.port).fetch_add(1, Ordering::Relaxed);
                writer.note(station);
                learned
            }
            None if self.put_in(writer, station, place.to_bits() | held) => learned,
            None => Learned::NoRoom,
        }
    }

    /// Inserts a station that is not in the table into a free slot; returns `false` if there is none within reach.
    fn put_in(&self, writer: &mut Writer, station: Station, bits: u64) -> bool {
        let free = |bucket: &&Bucket| bucket.keys.iter().any(|key| key.load(Ordering::Relaxed) == 0);
        let Some(steps) = self.reach(station).position(|bucket| free(&bucket)) else {
            return false;
        };
        for bucket in self.reach(station).take(steps) {
            bucket.change(|bucket| {
                bucket.passed.fetch_add(1, Ordering::Relaxed);
            });
        }
        for bucket in self.reach(station).skip(steps).take(1) {
            bucket.change(|bucket| {
                let slots = bucket.keys.iter().zip(&bucket.places);
                if let Some((key, to)) = slots.into_iter().find(|(key, _)| key.load(Ordering::Relaxed) == 0) {
                    key.store(station.key(), Ordering::Relaxed);
                    to.store(bits, Ordering::Relaxed);
                }
            });
        }
        self.of(Location::of(bits).port).fetch_add(1, Ordering::Relaxed);
        self.all.fetch_add(1, Ordering::Relaxed);
        writer.note(station);
        true
    }

    /// Removes a station; returns whether it was in the table.
    fn remove(&self, writer: &mut Writer, station: Station) -> bool {
        if let Some(moves) = &mut writer.moves {
            moves.forget(station);
        }
        let at =
            |bucket: &Bucket| bucket.keys.iter().position(|key| key.load(Ordering::Relaxed) == station.key());
        let Some((steps, slot)) =
            self.reach(station).enumerate().find_map(|(steps, bucket)| Some((steps, at(bucket)?)))
        else {
            return false;
        };
        for (step, bucket) in self.reach(station).enumerate().take(steps + 1) {
            bucket.change(|bucket| {
                if step < steps {
                    bucket.passed.fetch_sub(1, Ordering::Relaxed);
                } else if let (Some(key), Some(place)) = (bucket.keys.get(slot), bucket.places.get(slot)) {
                    key.store(0, Ordering::Relaxed);
                    let port = Location::of(place.load(Ordering::Relaxed)).port;
                    self.of(port).fetch_sub(1, Ordering::Relaxed);
                    self.all.fetch_sub(1, Ordering::Relaxed);
                }
            });
        }
        writer.note(station);
        true
    }

    /// The stations of a bucket, read without the lock unless the bucket keeps changing.
    fn entries_of(&self, bucket: &Bucket) -> impl Iterator<Item = (Station, Location)> + use<> {
        let entries = bucket.read(|| bucket.entries()).unwrap_or_else(|| {
            let _still = self.lock();
            bucket.entries()
        });
        stations(entries)
    }
}

fn stations(entries: [(u64, u64); SLOTS]) -> impl Iterator<Item = (Station, Location)> {
    entries
        .into_iter()
        .filter(|(key, _)| *key != 0)
        .map(|(key, bits)| (Station::from_key(key), Location::of(bits)))
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("stations", &self.len()).field("capacity", &self.capacity).finish()
    }
}
