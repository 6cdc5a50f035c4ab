//! What a port needs of the device behind it, whatever it is reached through.
//!
//! A [`Connect`] finds a device, a [`Backend`] is one that was found. A port's session speaks to these two traits alone:
//!
//! ```text
//!   connect      Connect::connect                                a device, and what it offers
//!   negotiate    set_status · set_features · status              acknowledge, driver, features-ok
//!                set_mtu
//!   prepare      set_call (each ring) · set_memory
//!   start        start_ring (each) · enable_ring (those in use) · set_status driver-ok · sync · notifier (each)
//!                (requests on the control queue, where there is one)
//!   run          look · link_up · take_announcement, whenever `watched` is ready
//!                set_memory, when memory comes or goes
//!   stop         stop_ring (each) · set_status 0 · drop
//! ```
//!
//! The operations are those that vhost-user, vhost-kernel and vDPA have in common (QEMU `docs/interop/vhost-user.rst`,
//! `linux/vhost.h`). What only some of them have (a status, a configuration space, an end of work that has to be asked
//! for) has a default for those that do without.
//!
//! A port over a device of one's own is made by [`VirtioUser::probe_over`](crate::VirtioUser::probe_over);
//! `tests/in_process/device.rs` is a whole one, in the same process as its driver.
//!
//! ```
//! use std::sync::Arc;
//! use linecard_virtio_user::Error;
//! use linecard_virtio_user::backend::{Backend, Connect, ConnectTimeouts, Waiter};
//!
//! /// A device that is never there.
//! #[derive(Debug)]
//! struct Nowhere;
//!
//! impl Connect for Nowhere {
//!     fn connect(&self, waiter: &Arc<Waiter>, timeouts: ConnectTimeouts) -> Result<Box<dyn Backend>, Error> {
//!         waiter.rest(timeouts.until);
//!         Err(Error::Absent { what: "a device that is never there".to_owned() })
//!     }
//! }
//!
//! use linecard_pmd::{DevArgs, ProbeContext};
//! let memory = linecard_eal::memory::Memory::new(Default::default())?;
//! let domain = memory.domain("packets")?;
//! let context = ProbeContext::new(memory, domain, std::time::Duration::ZERO);
//! let driver = linecard_virtio_user::VirtioUser::new();
//! let error = driver.probe_over(&context, &DevArgs::parse("net_virtio_user0,queues=2")?, Arc::new(Nowhere));
//! assert!(error.err().expect("nobody is there").to_string().contains("never there"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod ring;
pub mod status;

use std::fmt::Debug;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use linecard_eal::eventfd::EventFd;
use linecard_eal::memory::Segment;
use linecard_virtio::{Features, Layout, RingAddrs};

use crate::error::Error;
pub use crate::thread::Waiter;
pub use ring::{RingId, Role};

/// How a port comes to its device, at first and after every loss.
///
/// The module's documentation has an [example](self).
pub trait Connect: Send + Sync + Debug {
    /// Whether the device comes in its own time: the port is started before there is one, and never finds out at start
    /// that there is none. `false` unless said otherwise.
    fn comes_by_itself(&self) -> bool {
        false
    }

    /// A device, found in time. Runs on the port's control thread, for which nobody but this port waits; when the port
    /// is stopped meanwhile it returns soon.
    ///
    /// # Errors
    /// What keeps the device from being used; [`Error::Stopped`] when the port was stopped.
    /// [`Error::is_backend_gone`] tells how soon the next try is.
    fn connect(&self, waiter: &Arc<Waiter>, timeouts: ConnectTimeouts) -> Result<Box<dyn Backend>, Error>;

    /// The file that a device which is not there comes with (a socket, a node of `/dev`): the port looks for it at once when that
    /// appears, and else every second at least. `None`, as it is unless said otherwise, where there is no such file.
    fn file(&self) -> Option<&Path> {
        None
    }

    /// The port is gone: what others find it by (a socket's name) has to go too. Nothing unless said otherwise.
    fn withdraw(&self) {}
}

/// How long a device is looked for.
///
/// ```
/// use std::time::{Duration, Instant};
/// use linecard_virtio_user::backend::ConnectTimeouts;
/// let once = ConnectTimeouts { until: Instant::now(), answer: Duration::from_secs(3) };
/// assert!(once.deadline() > once.until);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ConnectTimeouts {
    /// Until when a device that is not there is looked for; one try is made in any case.
    pub until: Instant,
    /// How long one that was found may take to say what it is, at least.
    pub answer: Duration,
}

impl ConnectTimeouts {
    /// When a device that is found now must have said what it is.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.until.max(crate::thread::after(self.answer))
    }
}

/// What a device has to offer.
///
/// ```
/// use linecard_virtio::Features;
/// use linecard_virtio_user::backend::Offer;
/// let offer = Offer { features: Features::VERSION_1, pairs: 4, regions: 64 };
/// assert!(offer.features.contains(Features::VERSION_1));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Its features.
    pub features: Features,
    /// Queue pairs it has; at least 1.
    pub pairs: u16,
    /// Regions of memory it can reach at a time; how many some segments are, [`Backend::regions`] says.
    pub regions: usize,
}

/// A way to wake a device that is no eventfd, such as a register of it. The thread that polls the ring uses it, and so does the
/// port's control thread.
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use linecard_virtio_user::backend::Notify;
///
/// /// Counts instead.
/// #[derive(Debug, Default)]
/// struct Counter(AtomicU32);
///
/// impl Notify for Counter {
///     fn notify(&self) {
///         self.0.fetch_add(1, Ordering::Relaxed);
///     }
/// }
///
/// let counter = Counter::default();
/// counter.notify();
/// assert_eq!(counter.0.into_inner(), 1);
/// ```
pub trait Notify: Send + Sync + Debug {
    /// Buffers are available that were published before. Never waits.
    fn notify(&self);
}

/// What is shared with a device from now on, and what changes for that.
///
/// A device that is told of single segments needs `gone` and `new`, one that is given a table needs `all`. Guest address,
/// user address and the address in this process are the same.
///
/// ```
/// use linecard_virtio_user::backend::MemoryUpdate;
/// let nothing = MemoryUpdate { all: &[], gone: &[], new: &[] };
/// assert!(nothing.all.is_empty());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct MemoryUpdate<'a> {
    /// All of it.
    pub all: &'a [Arc<Segment>],
    /// What was shared before and is not any more.
    pub gone: &'a [Arc<Segment>],
    /// What was not shared before.
    pub new: &'a [Arc<Segment>],
}

/// A ring that is to be started.
///
/// ```
/// use linecard_eal::eventfd::EventFd;
/// use linecard_virtio::{Layout, RingAddrs};
/// use linecard_virtio_user::backend::{RingId, RingSetup};
/// let (size, layout, kick) = (256, Layout::Split, EventFd::new()?);
/// let addrs = RingAddrs::at(0x10000, layout, size);
/// let ring = RingSetup { id: RingId::receive(0), layout, size, addrs, kick: &kick };
/// assert_eq!(ring.base(), 0);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RingSetup<'a> {
    /// Which one.
    pub id: RingId,
    /// Its format, the same for all rings of a device.
    pub layout: Layout,
    /// Its descriptors.
    pub size: u16,
    /// Where it is; everything of it is in memory that is shared.
    pub addrs: RingAddrs,
    /// What the driver wakes the device with.
    pub kick: &'a EventFd,
}

impl RingSetup<'_> {
    /// The state of a ring that was never used, as `SET_VRING_BASE` has it: the next available index of a split ring;
    /// both indices and wrap counters of a packed one.
    #[must_use]
    pub const fn base(&self) -> u32 {
        /// Index 0, wrap counter 1.
        const FRESH: u32 = 1 << 15;
        match self.layout {
            Layout::Split => 0,
            Layout::Packed => FRESH | FRESH << 16,
        }
    }
}

/// What part of its life with a device a port is in.
///
/// ```
/// use linecard_virtio_user::backend::Phase;
/// assert_eq!(Phase::Running.deadline(), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Negotiation and start: all answers together have this long. The port's stop ends it.
    Starting(Instant),
    /// Packets pass. The port's stop ends what is asked now.
    Running,
    /// The port stops: what is still asked for has this long, and the stop does not end it.
    Stopping(Instant),
}

impl Phase {
    /// When it has to be over.
    #[must_use]
    pub const fn deadline(self) -> Option<Instant> {
        match self {
            Self::Starting(limit) | Self::Stopping(limit) => Some(limit),
            Self::Running => None,
        }
    }
}

/// What to watch a descriptor for.
///
/// ```
/// use linecard_virtio_user::backend::Ready;
/// assert_ne!(Ready::Read, Ready::Error);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ready {
    /// There is something to read.
    Read,
    /// There is room to write.
    Write,
    /// Errors and hang-ups alone, which the others report too.
    Error,
}

/// A descriptor that tells when to [`look`](Backend::look) at a device.
///
/// ```
/// use std::os::fd::AsFd;
/// use linecard_virtio_user::backend::{Ready, Watched};
/// let (ours, _theirs) = std::os::unix::net::UnixStream::pair()?;
/// let watched = Watched { fd: ours.as_fd(), ready: Ready::Read };
/// assert_eq!(watched.ready, Ready::Read);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Watched<'a> {
    /// The descriptor.
    pub fd: BorrowedFd<'a>,
    /// What for.
    pub ready: Ready,
}

impl<'a> Watched<'a> {
    /// Something that can be read when there is news.
    pub fn reading(fd: &'a impl AsFd) -> Self {
        Self { fd: fd.as_fd(), ready: Ready::Read }
    }
}

/// A device, from the moment it said what it can do until the port has done with it. Dropped, it uses neither memory nor
/// rings any more.
///
/// Every operation runs on the port's control thread and may wait for the device, within the time of its
/// [`Phase`]. After an error the port drops the device and looks for another. The module's documentation says in which
/// [order](self) they come.
pub trait Backend: Send {
    /// What it offers; stays the same.
    fn offer(&self) -> Offer;

    /// Whether the device has a control queue, where it [offers](Self::offer) `VIRTIO_NET_F_CTRL_VQ`. `false` unless said
    /// otherwise: for a vhost-user backend that feature is a word of its frontend.
    fn has_control_queue(&self) -> bool {
        false
    }

    /// Whether [`take_announcement`](Self::take_announcement) says when the device asks for one: `VIRTIO_NET_F_GUEST_ANNOUNCE`
    /// is agreed only then. `false` unless said otherwise.
    fn tells_announcements(&self) -> bool {
        false
    }

    /// Whether the device has asked, as of the last [`look`](Self::look) and since this was called last, that the port
    /// announce its address (`VIRTIO_NET_S_ANNOUNCE`). `false` unless said otherwise.
    fn take_announcement(&mut self) -> bool {
        false
    }

    /// Whether it signals the calls of its rings when a driver asks for that. A queue of a device that does not cannot be slept
    /// over. `true` unless said otherwise.
    fn has_interrupts(&self) -> bool {
        true
    }

    /// What was agreed besides features, in words; empty when there is nothing to say.
    fn details(&self) -> String {
        String::new()
    }

    /// Says which part of its life the port is in. Does nothing unless said otherwise.
    fn enter(&mut self, phase: Phase) {
        let _ = phase;
    }

    /// The device [status]; `None`, as it is unless said otherwise, where the device keeps none.
    ///
    /// # Errors
    /// The device is lost.
    fn status(&mut self) -> Result<Option<u8>, Error> {
        Ok(None)
    }

    /// Sets the device status; 0 resets it. Does nothing unless said otherwise.
    ///
    /// # Errors
    /// The device is lost or refuses.
    fn set_status(&mut self, status: u8) -> Result<(), Error> {
        let _ = status;
        Ok(())
    }

    /// Settles on `features`, a part of those offered.
    ///
    /// # Errors
    /// The device is lost or refuses.
    fn set_features(&mut self, features: Features) -> Result<(), Error>;

    /// Fills `bytes` from the device's configuration space; `false`, as it is unless said otherwise, where the device has
    /// none that reaches so far.
    ///
    /// # Errors
    /// The device is lost.
    fn config(&mut self, offset: u32, bytes: &mut [u8]) -> Result<bool, Error> {
        let _ = (offset, bytes);
        Ok(false)
    }

    /// Says how long the packets of the port may be, in bytes without their Ethernet header. Does nothing unless said
    /// otherwise.
    ///
    /// # Errors
    /// The device is lost, or sends longer ones and cannot be told not to.
    fn set_mtu(&mut self, mtu: u16) -> Result<(), Error> {
        let _ = mtu;
        Ok(())
    }

    /// How many regions of memory these segments are for it: one each, unless it joins neighbours.
    fn regions(&self, segments: &[Arc<Segment>]) -> usize {
        segments.len()
    }

    /// Shares memory. When this returns the device reaches all that is shared, and nothing that is gone.
    ///
    /// # Errors
    /// The device is lost or refuses.
    fn set_memory(&mut self, update: &MemoryUpdate<'_>) -> Result<(), Error>;

    /// Says what the device wakes the driver with. The first that a device hears of a ring.
    ///
    /// # Errors
    /// The device is lost or refuses.
    fn set_call(&mut self, ring: RingId, call: &EventFd) -> Result<(), Error>;

    /// Says where a fresh ring is. The device does not use it before it is enabled.
    ///
    /// # Errors
    /// The device is lost or refuses.
    fn start_ring(&mut self, ring: &RingSetup<'_>) -> Result<(), Error>;

    /// Lets the device use a started ring, or not.
    ///
    /// # Errors
    /// The device is lost or refuses.
    fn enable_ring(&mut self, ring: RingId, on: bool) -> Result<(), Error>;

    /// Whether [`enable_ring`](Self::enable_ring) stops and starts single rings while the others go on. `true` unless said otherwise;
    /// where it does not, a queue that is stopped is left alone by the port, and its device goes on filling it.
    fn disables_rings(&self) -> bool {
        true
    }

    /// Stops a ring: when this returns the device does not touch it any more. The result is where it stood, in the form of
    /// [`RingSetup::base`].
    ///
    /// # Errors
    /// The device is lost or refuses.
    fn stop_ring(&mut self, ring: RingId) -> Result<u32, Error>;

    /// Returns when everything asked before has been done. Unless said otherwise it always has.
    ///
    /// # Errors
    /// The device is lost.
    fn sync(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// What wakes the device for a started ring, where that is not the eventfd of its [`RingSetup`]; asked when the driver is ready.
    /// The eventfd, as it is unless said otherwise.
    fn notifier(&self, ring: RingId) -> Option<Arc<dyn Notify>> {
        let _ = ring;
        None
    }

    /// Whether the device's own link is up, as of the last [`look`](Self::look): packets pass when it is and the port has
    /// the device. `true` unless said otherwise.
    fn link_up(&self) -> bool {
        true
    }

    /// What becomes ready when something happened to the device; `None` when it tells in no such way.
    fn watched(&self) -> Option<Watched<'_>>;

    /// Looks at what happened, without waiting.
    ///
    /// # Errors
    /// The device is lost, or did what it may not.
    fn look(&mut self) -> Result<(), Error>;
}
