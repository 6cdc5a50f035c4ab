//! One network: its remotes, the learned stations, and frames that wait to be received.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, TryLockError};
use std::time::Instant;

use crossbeam::queue::ArrayQueue;
use linecard_eal::wake::Wake;
use linecard_mempool::{Packet, Pool};

use crate::args::Options;
use crate::stations::Stations;

/// The attempts to lock the table of stations: about as long as another thread takes to look up or learn one.
const LOOKS: u32 = 64;

/// Losses of the endpoint's thread, which the receive queue counts as its own.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    pub(crate) full: AtomicU64,
    pub(crate) no_buffer: AtomicU64,
    pub(crate) stranger: AtomicU64,
}

/// A network of this process, shared by its queues and the endpoint's thread.
pub(crate) struct Tunnel {
    pub(crate) vni: u32,
    pub(crate) remotes: Vec<IpAddr>,
    pub(crate) frames: ArrayQueue<Packet>,
    pub(crate) wake: Wake,
    pub(crate) lost: Lost,
    any_peer: bool,
    learn: bool,
    stations: Mutex<Stations>,
    pool: Pool,
}

impl Tunnel {
    pub(crate) fn new(options: &Options, pool: &Pool, depth: u16) -> Self {
        Self {
            vni: options.vni,
            remotes: options.remotes.clone(),
            frames: ArrayQueue::new(usize::from(depth.max(1))),
            wake: Wake::new(),
            lost: Lost::default(),
            any_peer: options.any_peer,
            learn: options.learn,
            stations: Mutex::default(),
            pool: pool.clone(),
        }
    }

    /// Returns the host of `station`, if known. If the table is locked at the moment, the station counts as
    /// unknown, and its frame goes to every remote.
    pub(crate) fn find(&self, station: [u8; 6], now: Instant) -> Option<IpAddr> {
        self.with_stations(|stations| stations.find(station, now)).flatten()
    }

    /// Returns `None` if another thread holds the table all the while. No thread waits for it: a sender may
    /// serve other tenants, the receiving thread serves other networks, and a holder of the table may be
    /// preempted.
    fn with_stations<T>(&self, look: impl FnOnce(&mut Stations) -> T) -> Option<T> {
        for _ in 0..LOOKS {
            match self.stations.try_lock() {
                Ok(mut stations) => return Some(look(&mut stations)),
                Err(TryLockError::Poisoned(stations)) => return Some(look(&mut stations.into_inner())),
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
        None
    }

    /// Receives a frame from `host`. Never waits for the receiver: frames without room are lost.
    pub(crate) fn receive(&self, frame: &[u8], host: IpAddr, now: Instant) {
        if !self.any_peer && !self.remotes.contains(&host) {
            self.lost.stranger.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if self.frames.is_full() {
            self.lost.full.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let Some(packet) = self.pool.packet_of(frame, usize::from(u16::MAX)) else {
            self.lost.no_buffer.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if let (true, Some(source)) = (self.learn, frame.get(6..).and_then(|rest| rest.first_chunk())) {
            // If the table is locked, the station's next frame is learned instead.
            let _ = self.with_stations(|stations| stations.learn(*source, host, now));
        }
        if self.frames.push(packet).is_err() {
            self.lost.full.fetch_add(1, Ordering::Relaxed);
        }
        self.wake.wake();
    }
}

#[cfg(test)]
mod tests {
    use linecard_eal::{Memory, MemoryConfig};
    use linecard_mempool::PoolConfig;
    use linecard_pmd::args::DevArgs;

    use super::*;

    #[test]
    fn nobody_waits_for_the_table_of_stations() {
        let memory = Memory::new(MemoryConfig::default()).expect("memory");
        let domain = memory.domain("packets").expect("a domain");
        let pool = Pool::new(&domain, PoolConfig::default()).expect("a pool");
        let args = DevArgs::parse("net_vxlan0,vni=7,remote=127.0.0.2").expect("arguments");
        let tunnel = Tunnel::new(&Options::read(&args).expect("options"), &pool, 8);
        let (station, host, now) = ([2, 0, 0, 0, 0, 1], IpAddr::from([127, 0, 0, 2]), Instant::now());
        let frame = [[2, 0, 0, 0, 0, 2], station, [8; 6]].concat();
        let held = tunnel.stations.lock().expect("nobody has it");
        tunnel.receive(&frame, host, now);
        assert!(tunnel.frames.pop().is_some(), "the frame is there without having taught anything");
        assert_eq!(tunnel.find(station, now), None);
        drop(held);
        tunnel.receive(&frame, host, now);
        assert_eq!(tunnel.find(station, now), Some(host));
    }
}
