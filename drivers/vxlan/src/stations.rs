//! The host of each station.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The most stations of a network; frames to others go to every remote.
const MOST: usize = 65_536;
/// The time after which a silent station is forgotten, as in the kernel's device.
const AGE: Duration = Duration::from_secs(300);
/// The interval between searches for old stations in a full table.
const SEARCH: Duration = Duration::from_secs(1);

/// The stations learned from received frames.
#[derive(Debug)]
pub(crate) struct Stations {
    hosts: HashMap<[u8; 6], (IpAddr, Instant)>,
    searched: Option<Instant>,
    most: usize,
}

impl Default for Stations {
    fn default() -> Self {
        Self { hosts: HashMap::new(), searched: None, most: MOST }
    }
}

impl Stations {
    /// Records that a frame of `station` came from `host`.
    pub(crate) fn learn(&mut self, station: [u8; 6], host: IpAddr, now: Instant) {
        let group_or_none = station[0] & 1 != 0 || station == [0; 6];
        if group_or_none
            || self.hosts.len() >= self.most && !self.hosts.contains_key(&station) && !self.room(now)
        {
            return;
        }
        self.hosts.insert(station, (host, now));
    }

    /// Returns the host of `station`, if known.
    pub(crate) fn find(&self, station: [u8; 6], now: Instant) -> Option<IpAddr> {
        let (host, seen) = self.hosts.get(&station)?;
        (now.saturating_duration_since(*seen) <= AGE).then_some(*host)
    }

    /// Forgets old stations. Returns whether there is room then. The interval keeps a sender of ever new
    /// addresses from causing a search for each.
    fn room(&mut self, now: Instant) -> bool {
        if self.searched.is_none_or(|searched| now.saturating_duration_since(searched) >= SEARCH) {
            self.searched = Some(now);
            self.hosts.retain(|_, (_, seen)| now.saturating_duration_since(*seen) <= AGE);
        }
        self.hosts.len() < self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

    fn station(number: u8) -> [u8; 6] {
        [2, 0, 0, 0, 0, number]
    }

    #[test]
    fn stations_move_and_age() {
        let (mut stations, now) = (Stations::default(), Instant::now());
        stations.learn(station(1), HERE, now);
        assert_eq!(stations.find(station(1), now), Some(HERE));
        stations.learn(station(1), THERE, now);
        assert_eq!(stations.find(station(1), now + AGE), Some(THERE));
        assert_eq!(stations.find(station(1), now + AGE + Duration::from_nanos(1)), None);
    }

    #[test]
    fn a_full_table_makes_room_for_nobody_but_in_the_place_of_the_old() {
        let (mut stations, now) = (Stations { most: 2, ..Stations::default() }, Instant::now());
        for number in 1..=3 {
            stations.learn(station(number), HERE, now);
        }
        let known =
            |stations: &Stations, at| (1..=3).filter(|n| stations.find(station(*n), at).is_some()).count();
        assert_eq!((known(&stations, now), stations.hosts.len()), (2, 2));
        stations.learn(station(1), THERE, now);
        assert_eq!(stations.find(station(1), now), Some(THERE), "who is known may move");
        let later = now + AGE + SEARCH;
        stations.learn(station(3), HERE, later);
        assert_eq!((stations.find(station(3), later), stations.hosts.len()), (Some(HERE), 1));
    }

    #[test]
    fn groups_are_no_stations() {
        let (mut stations, now) = (Stations::default(), Instant::now());
        for address in [[0xff; 6], [1, 0, 0, 0, 0, 0], [0; 6]] {
            stations.learn(address, HERE, now);
        }
        assert!(stations.hosts.is_empty());
    }
}
