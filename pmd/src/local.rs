//! The control side on which every driver builds its own: an identity and counters.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use linecard_net::MacAddr;

use crate::control::{Link, PortControl, PortStats};
use crate::error::Error;
use crate::filter::RxFilter;
use crate::link::LinkEvents;
use crate::offload::RxOffloads;
use crate::queue::QueueId;
use crate::rss::Rss;
use crate::stats::{Cause, PortCounters};

/// Name, address, MTU and promiscuous flag of a port, which every driver must store.
///
/// ```
/// use linecard_pmd::local::Identity;
/// let identity = Identity::new("net_null0", Identity::address_for("net_null0"), 1500);
/// assert!(identity.set_mac([0xff; 6]).is_err());
/// identity.set_mac([2, 0, 0, 0, 0, 9])?;
/// assert_eq!(identity.mac(), [2, 0, 0, 0, 0, 9]);
/// # Ok::<(), linecard_pmd::Error>(())
/// ```
#[derive(Debug)]
pub struct Identity {
    name: String,
    mac: Mutex<[u8; 6]>,
    mtu: u16,
    promiscuous: AtomicBool,
}

impl Identity {
    /// Creates an identity in promiscuous mode, because software ports receive every frame.
    #[must_use]
    pub fn new(name: &str, mac: [u8; 6], mtu: u16) -> Self {
        Self { name: name.to_owned(), mac: Mutex::new(mac), mtu, promiscuous: AtomicBool::new(true) }
    }

    /// A locally administered address derived from a device's name, the same in every run (FNV-1a hash).
    #[must_use]
    pub fn address_for(name: &str) -> [u8; 6] {
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        MacAddr::local(name.bytes().fold(0xcbf2_9ce4_8422_2325, step)).into()
    }

    /// See [`PortControl::name`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// See [`PortControl::mac`].
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        *self.mac.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`PortControl::set_mac`].
    ///
    /// # Errors
    /// `mac` is zero or multicast.
    pub fn set_mac(&self, mac: [u8; 6]) -> Result<(), Error> {
        self.change_mac(mac, || Ok(()))
    }

    /// As [`set_mac`](Self::set_mac), but calls `apply` to update the device; one change at a time.
    ///
    /// # Errors
    /// As [`set_mac`](Self::set_mac), or the error of `apply`; the address is unchanged then.
    pub fn change_mac(&self, mac: [u8; 6], apply: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        if !MacAddr(mac).is_unicast() {
            return Err(Error::Argument {
                device: self.name.clone(),
                problem: format!("{} is not the address of one station", MacAddr(mac)),
                remedy: "give one that is not zero and has the lowest bit of its first octet clear".into(),
            });
        }
        let mut now = self.mac.lock().unwrap_or_else(PoisonError::into_inner);
        apply()?;
        *now = mac;
        Ok(())
    }

    /// See [`PortControl::mtu`].
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// See [`PortControl::promiscuous`].
    #[must_use]
    pub fn promiscuous(&self) -> bool {
        self.promiscuous.load(Ordering::Relaxed)
    }

    /// See [`PortControl::set_promiscuous`].
    pub fn set_promiscuous(&self, on: bool) {
        self.promiscuous.store(on, Ordering::Relaxed);
    }
}

/// A complete control side of an [`Identity`] and [`PortCounters`], for a port that negotiates nothing. Other
/// drivers build theirs on it.
///
/// ```
/// use linecard_pmd::{Link, PortControl, local::{Identity, LocalControl}, stats::{AnyLoss, PortCounters}};
/// let identity = Identity::new("net_null0", [2, 0, 0, 0, 0, 1], 1500);
/// let counters = PortCounters::<AnyLoss, AnyLoss>::new(1, 1);
/// let control = LocalControl::new(identity, counters).with_paths("rx fill, tx free").with_link(|| Link::DOWN);
/// assert!(!control.link().up);
/// assert_eq!((control.stats().ipackets, control.paths().as_str()), (0, "rx fill, tx free"));
/// ```
pub struct LocalControl<R: Cause, T: Cause> {
    identity: Identity,
    counters: PortCounters<R, T>,
    paths: String,
    link: Box<dyn Fn() -> Link + Send + Sync>,
}

impl<R: Cause, T: Cause> LocalControl<R, T> {
    /// Combines the parts; the link is up.
    #[must_use]
    pub fn new(identity: Identity, counters: PortCounters<R, T>) -> Self {
        Self { identity, counters, paths: String::new(), link: Box::new(|| Link::UP) }
    }

    /// Sets the data paths to report.
    #[must_use]
    pub fn with_paths(self, paths: impl Into<String>) -> Self {
        Self { paths: paths.into(), ..self }
    }

    /// Sets the function that reads the link state on each request.
    #[must_use]
    pub fn with_link(self, link: impl Fn() -> Link + Send + Sync + 'static) -> Self {
        Self { link: Box::new(link), ..self }
    }

    /// Name, address, MTU.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The counters of all queues.
    #[must_use]
    pub fn counters(&self) -> &PortCounters<R, T> {
        &self.counters
    }

    /// Checks that the port has this queue.
    ///
    /// # Errors
    /// It has not; the message says how many queues there are.
    pub fn check_queue(&self, queue: QueueId) -> Result<(), Error> {
        let (rx, tx) = self.counters.queues();
        let queues = match queue {
            QueueId::Receive(_) => rx,
            QueueId::Transmit(_) => tx,
        };
        if queue.index() < queues {
            return Ok(());
        }
        Err(Error::NoQueue { port: self.identity.name().into(), queue, queues })
    }

    fn cannot(&self, what: String, remedy: &str) -> Error {
        Error::Unsupported { port: self.identity.name().into(), what, remedy: remedy.into() }
    }
}

impl<R: Cause, T: Cause> std::fmt::Debug for LocalControl<R, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalControl").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl<R: Cause + Send + Sync, T: Cause + Send + Sync> PortControl for LocalControl<R, T> {
    /// This control side answers everything itself.
    fn inner(&self) -> &dyn PortControl {
        self
    }

    fn name(&self) -> &str {
        self.identity.name()
    }

    fn link(&self) -> Link {
        (self.link)()
    }

    fn link_events(&self) -> Option<&Arc<LinkEvents>> {
        None
    }

    fn mac(&self) -> [u8; 6] {
        self.identity.mac()
    }

    fn set_mac(&self, mac: [u8; 6]) -> Result<(), Error> {
        self.identity.set_mac(mac)
    }

    fn mtu(&self) -> u16 {
        self.identity.mtu()
    }

    fn promiscuous(&self) -> bool {
        self.identity.promiscuous()
    }

    fn set_promiscuous(&self, on: bool) {
        self.identity.set_promiscuous(on);
    }

    fn allmulticast(&self) -> bool {
        true
    }

    fn rx_filter(&self) -> Option<&RxFilter> {
        None
    }

    fn set_rx_offloads(&self, asked: RxOffloads) -> Result<(), Error> {
        Err(Error::Unsupported {
            port: self.name().into(),
            what: format!("receive offloads [{asked}] while the port runs"),
            remedy: "stop the port, change them, and start it".into(),
        })
    }

    fn rss(&self) -> Option<&Arc<Rss>> {
        None
    }

    fn count_classes(&self, on: bool) -> bool {
        !on
    }

    fn stats(&self) -> PortStats {
        self.counters.stats()
    }

    fn queue_stats(&self, queue: u16) -> PortStats {
        self.counters.queue_stats(queue)
    }

    fn depth(&self, _: QueueId) -> Option<u16> {
        None
    }

    fn used_descriptors(&self, queue: QueueId) -> Result<u16, Error> {
        self.check_queue(queue)?;
        Err(self.cannot(format!("counting the descriptors of {queue}"), "look at the port's statistics"))
    }

    fn queue_started(&self, queue: QueueId) -> bool {
        self.check_queue(queue).is_ok()
    }

    fn start_queue(&self, queue: QueueId) -> Result<(), Error> {
        // All queues are started.
        self.check_queue(queue)
    }

    fn stop_queue(&self, queue: QueueId) -> Result<(), Error> {
        self.check_queue(queue)?;
        Err(self.cannot(format!("stopping {queue} alone"), "stop the port, or start it with fewer queues"))
    }

    fn xstats(&self) -> Vec<(String, u64)> {
        self.counters.xstats()
    }

    fn reset_stats(&self) {
        self.counters.reset();
    }

    fn features(&self) -> String {
        String::new()
    }

    fn paths(&self) -> String {
        self.paths.clone()
    }
}
