//! The receive filter of a port, by destination address and VLAN: what a network card does in hardware, for ports whose
//! peer sends everything.
//!
//! ```text
//!   any thread   set_promiscuous, set_multicast, … ─► RxFilter ─ rules, and their number
//!   rx thread    rx_burst ─► FilterView::is_on? ─ no: nothing more is done
//!                                               └ yes: FilterView::apply takes frames out of the burst
//! ```
//! A frame is received when all of these conditions hold:
//!
//! | frame | is received |
//! |---|---|
//! | to ff:ff:ff:ff:ff:ff | always |
//! | to a multicast group | in promiscuous or all-multicast mode, or when the group is in the list |
//! | to a unicast address | in promiscuous mode, or when it is the port's address or in the list |
//! | of a VLAN | while VLANs are not filtered, or when its identifier (the outermost tag's) is allowed |
//!
//! The VLAN filter is independent of promiscuous mode, as DPDK's is.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use linecard_mempool::{Burst, Packet};
use linecard_net::MacAddr;

use crate::error::Error;

/// The maximum number of further unicast addresses of a port: 64 with its own, as in DPDK's virtio driver.
pub const MAX_UNICAST: usize = 63;
/// The maximum number of multicast groups of a port.
pub const MAX_MULTICAST: usize = 256;

/// A set of VLAN identifiers, 0 to 4095.
///
/// ```
/// use linecard_pmd::filter::VlanSet;
/// let mut vlans = VlanSet::default();
/// vlans.set(100, true);
/// assert!(vlans.has(100) && !vlans.has(101));
/// assert_eq!(vlans.iter().collect::<Vec<_>>(), [100]);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct VlanSet([u64; 64]);

/// The highest VLAN identifier.
const MAX_VLAN: u16 = 4095;

impl VlanSet {
    /// The empty set.
    pub const NONE: Self = Self([0; 64]);

    /// Adds or removes `vlan`; only its lowest twelve bits count.
    pub fn set(&mut self, vlan: u16, on: bool) {
        let (word, bit) = (&mut self.0[usize::from(vlan & MAX_VLAN) / 64], 1 << (vlan % 64));
        if on { *word |= bit } else { *word &= !bit }
    }

    /// Whether `vlan` is in the set; only its lowest twelve bits count.
    #[must_use]
    pub fn has(&self, vlan: u16) -> bool {
        self.0[usize::from(vlan & MAX_VLAN) / 64] >> (vlan % 64) & 1 == 1
    }

    /// The identifiers in the set, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..=MAX_VLAN).filter(|vlan| self.has(*vlan))
    }
}

impl Default for VlanSet {
    fn default() -> Self {
        Self::NONE
    }
}

impl fmt::Debug for VlanSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// The rules for the frames that a port receives.
///
/// ```
/// use linecard_pmd::filter::{Filtered, FilterRules};
/// let mut rules = FilterRules::new([2, 0, 0, 0, 0, 1]);
/// rules.promiscuous = false;
/// let mut frame = [0; 60];
/// frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
/// assert_eq!(rules.check(&frame), Err(Filtered::Unicast));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilterRules {
    /// Whether frames to any address are received.
    pub promiscuous: bool,
    /// Whether frames to all multicast groups are received.
    pub allmulticast: bool,
    /// The port's own address.
    pub mac: [u8; 6],
    /// Further unicast addresses, sorted.
    pub unicast: Vec<[u8; 6]>,
    /// Multicast groups, sorted.
    pub multicast: Vec<[u8; 6]>,
    /// The allowed VLANs of tagged frames; `None` for all.
    pub vlans: Option<VlanSet>,
}

/// Why a frame is not received.
///
/// ```
/// use linecard_pmd::filter::Filtered;
/// assert_ne!(Filtered::Unicast, Filtered::Vlan);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtered {
    /// The frame is for another station.
    Unicast,
    /// The frame is for a group that the port is not a member of.
    Multicast,
    /// The frame's VLAN is not allowed.
    Vlan,
}

impl FilterRules {
    /// Rules that receive everything, the default of software ports.
    #[must_use]
    pub const fn new(mac: [u8; 6]) -> Self {
        Self {
            promiscuous: true,
            allmulticast: false,
            mac,
            unicast: Vec::new(),
            multicast: Vec::new(),
            vlans: None,
        }
    }

    /// Whether the rules filter no frame at all.
    #[must_use]
    pub const fn pass_everything(&self) -> bool {
        self.promiscuous && self.vlans.is_none()
    }

    /// Checks whether a frame is to be received. A frame too short for an address passes.
    ///
    /// # Errors
    /// The reason why the frame is not received.
    pub fn check(&self, frame: &[u8]) -> Result<(), Filtered> {
        let Some(to) = frame.first_chunk::<6>() else { return Ok(()) };
        if !self.promiscuous && !self.is_for_us(to) {
            return Err(if to[0] & 1 == 0 { Filtered::Unicast } else { Filtered::Multicast });
        }
        match (&self.vlans, vlan(frame)) {
            (Some(allowed), Some(vlan)) if !allowed.has(vlan) => Err(Filtered::Vlan),
            _ => Ok(()),
        }
    }

    fn is_for_us(&self, to: &[u8; 6]) -> bool {
        if to[0] & 1 == 0 {
            return *to == self.mac || self.unicast.binary_search(to).is_ok();
        }
        self.allmulticast || *to == [0xff; 6] || self.multicast.binary_search(to).is_ok()
    }
}

/// The identifier of the outermost tag: 802.1Q or 802.1ad.
fn vlan(frame: &[u8]) -> Option<u16> {
    match *frame.get(12..16)? {
        [0x81, 0x00, high, low] | [0x88, 0xa8, high, low] => Some(u16::from_be_bytes([high, low]) & MAX_VLAN),
        _ => None,
    }
}

/// The rules of one port. Any thread changes them; each receive queue applies them through its own [`FilterView`].
///
/// ```
/// use linecard_pmd::filter::RxFilter;
/// let filter = RxFilter::new("net_virtio_user0", [2, 0, 0, 0, 0, 1]);
/// assert!(filter.rules().pass_everything());
/// filter.set_promiscuous(false);
/// filter.set_multicast(&[[1, 0, 0x5e, 0, 0, 1]])?;
/// assert!(filter.set_unicast(&[[0xff; 6]]).is_err());
/// assert_eq!(filter.rules().multicast.len(), 1);
/// # Ok::<(), linecard_pmd::Error>(())
/// ```
pub struct RxFilter {
    port: String,
    /// 0 while everything passes, otherwise the version of the rules in force.
    number: AtomicU32,
    rules: Mutex<Numbered>,
    /// Called after every change.
    changed: Mutex<Option<Changed>>,
}

/// The callback of [`RxFilter::on_change`].
type Changed = Box<dyn Fn(bool) + Send + Sync>;

/// Rules, and the highest version number given out so far.
struct Numbered {
    rules: Arc<FilterRules>,
    last: u32,
}

impl RxFilter {
    /// Creates a filter that lets everything pass. `port` is for messages.
    #[must_use]
    pub fn new(port: &str, mac: [u8; 6]) -> Self {
        Self {
            port: port.to_owned(),
            number: AtomicU32::new(0),
            rules: Mutex::new(Numbered { rules: Arc::new(FilterRules::new(mac)), last: 0 }),
            changed: Mutex::new(None),
        }
    }

    /// Sets the function that is called after every change, on the thread that made it; it replaces the previous one.
    /// The argument is whether frames must be checked. Calls never overlap, so the last call gives the current state.
    pub fn on_change(&self, changed: impl Fn(bool) + Send + Sync + 'static) {
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(changed));
    }

    /// The current rules.
    #[must_use]
    pub fn rules(&self) -> Arc<FilterRules> {
        Arc::clone(&self.locked().rules)
    }

    /// Whether frames must be checked: some may not pass.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.number.load(Ordering::Relaxed) != 0
    }

    /// Turns promiscuous mode on or off.
    pub fn set_promiscuous(&self, on: bool) {
        self.change(|rules| rules.promiscuous = on);
    }

    /// Turns all-multicast mode on or off.
    pub fn set_allmulticast(&self, on: bool) {
        self.change(|rules| rules.allmulticast = on);
    }

    /// Sets the port's own address, without checking it.
    pub fn set_mac(&self, mac: [u8; 6]) {
        self.change(|rules| rules.mac = mac);
    }

    /// Replaces the unicast addresses that are received besides the port's own.
    ///
    /// # Errors
    /// An address is zero or multicast, or there are more than [`MAX_UNICAST`]; nothing changes then.
    pub fn set_unicast(&self, addresses: &[[u8; 6]]) -> Result<(), Error> {
        let wrong = addresses.iter().find(|mac| !MacAddr(**mac).is_unicast());
        let list = self.list(addresses, wrong, MAX_UNICAST, "the address of one station")?;
        self.change(|rules| rules.unicast = list);
        Ok(())
    }

    /// Replaces the multicast groups of the port.
    ///
    /// # Errors
    /// An address is not multicast, or there are more than [`MAX_MULTICAST`]; nothing changes then.
    pub fn set_multicast(&self, groups: &[[u8; 6]]) -> Result<(), Error> {
        let wrong = groups.iter().find(|mac| mac[0] & 1 == 0);
        let list = self.list(groups, wrong, MAX_MULTICAST, "the address of a group")?;
        self.change(|rules| rules.multicast = list);
        Ok(())
    }

    /// Restricts tagged frames to those of `vlans`; `None` lets all pass.
    pub fn set_vlans(&self, vlans: Option<VlanSet>) {
        self.change(|rules| rules.vlans = vlans);
    }

    fn list(
        &self,
        addresses: &[[u8; 6]],
        wrong: Option<&[u8; 6]>,
        max: usize,
        kind: &str,
    ) -> Result<Vec<[u8; 6]>, Error> {
        let refuse = |problem, remedy: String| Error::Argument { device: self.port.clone(), problem, remedy };
        if let Some(mac) = wrong {
            let remedy = "give others for groups and for stations".to_owned();
            return Err(refuse(format!("{} is not {kind}", MacAddr(*mac)), remedy));
        }
        if addresses.len() > max {
            let problem = format!("{} addresses for the receive filter", addresses.len());
            return Err(refuse(problem, format!("give at most {max}")));
        }
        let mut list = addresses.to_vec();
        list.sort_unstable();
        list.dedup();
        Ok(list)
    }

    fn locked(&self) -> MutexGuard<'_, Numbered> {
        // The rules are replaced as a whole, so they are valid even if a thread panicked.
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut FilterRules)) {
        let mut now = self.locked();
        let mut rules = FilterRules::clone(&now.rules);
        change(&mut rules);
        if rules == *now.rules {
            return;
        }
        now.last = now.last.checked_add(1).unwrap_or(1);
        let number = if rules.pass_everything() { 0 } else { now.last };
        now.rules = Arc::new(rules);
        // Relaxed: a thread that reads the number takes the rules under the lock.
        self.number.store(number, Ordering::Relaxed);
        drop(now);
        if let Some(changed) = &*self.changed.lock().unwrap_or_else(PoisonError::into_inner) {
            changed(self.is_on());
        }
    }
}

impl fmt::Debug for RxFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RxFilter").field("port", &self.port).field("rules", &self.rules()).finish()
    }
}

/// A receive queue's view of its port's [`RxFilter`].
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Burst, Pool, PoolConfig};
/// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// use std::sync::Arc;
/// use linecard_pmd::filter::{FilterView, Filtered, RxFilter};
/// let filter = Arc::new(RxFilter::new("net_virtio_user0", [2, 0, 0, 0, 0, 1]));
/// let mut view = FilterView::new(&filter);
/// assert!(!view.is_on());
///
/// filter.set_promiscuous(false);
/// let mut packets = Burst::new();
/// pool.get_bulk(&mut packets, 1)?;
/// packets[0].append(60).expect("room").fill(2); // to 02:02:02:02:02:02
/// let mut why = Vec::new();
/// view.apply(&mut packets, 0, |cause, _| why.push(cause));
/// assert_eq!((packets.len(), why.as_slice()), (0, &[Filtered::Unicast][..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FilterView {
    filter: Arc<RxFilter>,
    /// The version of `rules`.
    number: u32,
    rules: Arc<FilterRules>,
}

impl FilterView {
    /// Creates a view for one queue.
    #[must_use]
    pub fn new(filter: &Arc<RxFilter>) -> Self {
        Self { filter: Arc::clone(filter), number: 0, rules: filter.rules() }
    }

    /// Whether frames must be checked.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.filter.is_on()
    }

    /// Removes the packets of `packets` from index `from` on that are not to be received. Calls `dropped` with each
    /// before it is freed.
    #[inline(never)]
    pub fn apply(&mut self, packets: &mut Burst, from: usize, mut dropped: impl FnMut(Filtered, &Packet)) {
        let number = self.filter.number.load(Ordering::Relaxed);
        if number != self.number {
            self.number = number;
            self.rules = self.filter.rules();
        }
        let mut index = 0;
        packets.retain(|packet| {
            let ours = index >= from;
            index += 1;
            let verdict = if ours { self.rules.check(packet.data()) } else { Ok(()) };
            verdict.map_err(|cause| dropped(cause, packet)).is_ok()
        });
    }
}

#[cfg(test)]
mod tests;
