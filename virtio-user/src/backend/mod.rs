//! The interface between a port and the device behind it, independent of the transport.
//!
//! A [`Connect`] finds a device, and a [`Backend`] is one that was found. A session uses only these traits:
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
//! The operations are those that vhost-user, vhost-kernel and vDPA have in common (QEMU
//! `docs/interop/vhost-user.rst`, `linux/vhost.h`). Operations that only some of them have (a status, a
//! configuration space, a separate wait for completion) have a default.
//!
//! [`VirtioUser::probe_over`](crate::VirtioUser::probe_over) opens a port over an application's own device;
//! `tests/in_process/device.rs` is a complete one, in the same process as its driver.
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

/// Connects a port to its device, at first and after every loss.
///
/// The module's documentation has an [example](self).
pub trait Connect: Send + Sync + Debug {
    /// Whether the device connects on its own. Then the port starts without a device, and a missing device is
    /// no error of the start. Default: `false`.
    fn comes_by_itself(&self) -> bool {
        false
    }

    /// Finds a device within `timeouts`. Runs on the port's control thread, for which only this port waits;
    /// returns soon when the port is stopped meanwhile.
    ///
    /// # Errors
    /// The reason why the device cannot be used; [`Error::Stopped`] when the port was stopped.
    /// [`Error::is_backend_gone`] decides how soon the next attempt follows.
    fn connect(&self, waiter: &Arc<Waiter>, timeouts: ConnectTimeouts) -> Result<Box<dyn Backend>, Error>;

    /// The file that appears together with the device (a socket, a node of `/dev`). The port tries again as
    /// soon as it appears, and otherwise every second at least. Default: `None`, no such file.
    fn file(&self) -> Option<&Path> {
        None
    }

    /// Removes the name by which others find the port (a socket's file), as the port ends. Default: nothing.
    fn withdraw(&self) {}
}

/// The time limits of one search for a device.
///
/// ```
/// use std::time::{Duration, Instant};
/// use linecard_virtio_user::backend::ConnectTimeouts;
/// let once = ConnectTimeouts { until: Instant::now(), answer: Duration::from_secs(3) };
/// assert!(once.deadline() > once.until);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ConnectTimeouts {
    /// When the search for an absent device ends; one attempt is made in any case.
    pub until: Instant,
    /// The least time that a device has, once found, to describe itself.
    pub answer: Duration,
}

impl ConnectTimeouts {
    /// Returns when a device that is found now must have described itself.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.until.max(crate::thread::after(self.answer))
    }
}

/// The capabilities of a device.
///
/// ```
/// use linecard_virtio::Features;
/// use linecard_virtio_user::backend::Offer;
/// let offer = Offer { features: Features::VERSION_1, pairs: 4, regions: 64 };
/// assert!(offer.features.contains(Features::VERSION_1));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// The device's features.
    pub features: Features,
    /// The device's queue pairs, at least 1.
    pub pairs: u16,
    /// The memory regions that it can reach at a time, as [`Backend::regions`] counts them.
    pub regions: usize,
}

/// A notification to a device that is not an eventfd, such as one of its registers. Called by the thread that
/// polls the ring, and by the port's control thread.
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
    /// Notifies the device of available buffers, which were published before. Never blocks.
    fn notify(&self);
}

/// The memory that is shared with a device from now on, and the change to it.
///
/// A device that is informed of single segments uses `gone` and `new`; one that takes a table uses `all`. The
/// guest address, the user address and the address in this process are the same.
///
/// ```
/// use linecard_virtio_user::backend::MemoryUpdate;
/// let nothing = MemoryUpdate { all: &[], gone: &[], new: &[] };
/// assert!(nothing.all.is_empty());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct MemoryUpdate<'a> {
    /// All shared segments.
    pub all: &'a [Arc<Segment>],
    /// The segments that are no longer shared.
    pub gone: &'a [Arc<Segment>],
    /// The segments that were not shared before.
    pub new: &'a [Arc<Segment>],
}

/// A ring to start.
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
    /// The ring's role and number.
    pub id: RingId,
    /// The ring's format, the same for all rings of a device.
    pub layout: Layout,
    /// The number of descriptors.
    pub size: u16,
    /// The addresses of the ring, all of them in shared memory.
    pub addrs: RingAddrs,
    /// The eventfd with which the driver wakes the device.
    pub kick: &'a EventFd,
}

impl RingSetup<'_> {
    /// Returns the state of an unused ring in the form of `SET_VRING_BASE`: the next available index of a
    /// split ring; both indices and wrap counters of a packed one.
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

/// The phase of a port's use of a device.
///
/// ```
/// use linecard_virtio_user::backend::Phase;
/// assert_eq!(Phase::Running.deadline(), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Negotiation and start. The instant limits all answers together; stopping the port ends the wait.
    Starting(Instant),
    /// Packets pass. Stopping the port ends the wait for an answer.
    Running,
    /// The port stops. The instant limits the remaining requests, which the stop does not end.
    Stopping(Instant),
}

impl Phase {
    /// Returns when the phase must be over.
    #[must_use]
    pub const fn deadline(self) -> Option<Instant> {
        match self {
            Self::Starting(limit) | Self::Stopping(limit) => Some(limit),
            Self::Running => None,
        }
    }
}

/// The event to watch a descriptor for.
///
/// ```
/// use linecard_virtio_user::backend::Ready;
/// assert_ne!(Ready::Read, Ready::Error);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ready {
    /// The descriptor is readable.
    Read,
    /// The descriptor is writable.
    Write,
    /// Errors and hang-ups only, which the other variants report too.
    Error,
}

/// A descriptor that becomes ready when the device needs a [`look`](Backend::look).
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
    /// The event to watch for.
    pub ready: Ready,
}

impl<'a> Watched<'a> {
    /// Watches for readability.
    pub fn reading(fd: &'a impl AsFd) -> Self {
        Self { fd: fd.as_fd(), ready: Ready::Read }
    }
}

/// A device, from the moment its capabilities are known until the port no longer needs it. Once dropped, it
/// uses neither memory nor rings.
///
/// Every operation runs on the port's control thread and may wait for the device, within the time of its
/// [`Phase`]. After an error the port drops the device and looks for another. The module's documentation
/// lists the [order](self) of the calls.
pub trait Backend: Send {
    /// Returns the device's capabilities, which do not change.
    fn offer(&self) -> Offer;

    /// Whether the device has a control queue if it [offers](Self::offer) `VIRTIO_NET_F_CTRL_VQ`. Default:
    /// `false`, since with vhost-user the frontend implements that feature.
    fn has_control_queue(&self) -> bool {
        false
    }

    /// Whether [`take_announcement`](Self::take_announcement) reports the device's requests. Only then is
    /// `VIRTIO_NET_F_GUEST_ANNOUNCE` negotiated. Default: `false`.
    fn tells_announcements(&self) -> bool {
        false
    }

    /// Returns whether, between the previous call and the last [`look`](Self::look), the device asked the
    /// port to announce its address (`VIRTIO_NET_S_ANNOUNCE`). Default: `false`.
    fn take_announcement(&mut self) -> bool {
        false
    }

    /// Whether the device signals the calls of its rings when a driver enables them. Without calls, no thread
    /// can sleep on a queue. Default: `true`.
    fn has_interrupts(&self) -> bool {
        true
    }

    /// Describes what was agreed besides features; empty if there is nothing to report.
    fn details(&self) -> String {
        String::new()
    }

    /// Announces the phase that the port enters. Default: does nothing.
    fn enter(&mut self, phase: Phase) {
        let _ = phase;
    }

    /// Returns the device [status]. Default: `None`, the device has no status.
    ///
    /// # Errors
    /// The device is lost.
    fn status(&mut self) -> Result<Option<u8>, Error> {
        Ok(None)
    }

    /// Sets the device status; 0 resets it. Default: does nothing.
    ///
    /// # Errors
    /// The device is lost or refuses.
    fn set_status(&mut self, status: u8) -> Result<(), Error> {
        let _ = status;
        Ok(())
    }

    /// Sets the negotiated `features`, a subset of those offered.
    ///
    /// # Errors
    /// The device is lost or refuses.
    fn set_features(&mut self, features: Features) -> Result<(), Error>;

    /// Fills `bytes` from the device's configuration space. Returns `false`, which is the default, if there
    /// is none or it ends before.
    ///
    /// # Errors
    /// The device is lost.
    fn config(&mut self, offset: u32, bytes: &mut [u8]) -> Result<bool, Error> {
        let _ = (offset, bytes);
        Ok(false)
    }

    /// Sets the MTU of the port, in bytes without the Ethernet header. Default: does nothing.
    ///
    /// # Errors
    /// The device is lost, or sends longer packets and cannot be configured otherwise.
    fn set_mtu(&mut self, mtu: u16) -> Result<(), Error> {
        let _ = mtu;
        Ok(())
    }

    /// Returns the number of regions for these segments: one each, unless the device joins neighbours.
    fn regions(&self, segments: &[Arc<Segment>]) -> usize {
        segments.len()
    }

    /// Shares memory. On return the device reaches everything that is shared, and nothing that is gone.
    ///
    /// # Errors
    /// The device is lost or refuses.
    fn set_memory(&mut self, update: &MemoryUpdate<'_>) -> Result<(), Error>;

    /// Sets the eventfd with which the device wakes the driver. The first operation on each ring.
    ///
    /// # Errors
    /// The device is lost or refuses.
    fn set_call(&mut self, ring: RingId, call: &EventFd) -> Result<(), Error>;

    /// Sets the addresses of a fresh ring. The device does not use the ring before it is enabled.
    ///
    /// # Errors
    /// The device is lost or refuses.
    fn start_ring(&mut self, ring: &RingSetup<'_>) -> Result<(), Error>;

    /// Allows or forbids the device to use a started ring.
    ///
    /// # Errors
    /// The device is lost or refuses.
    fn enable_ring(&mut self, ring: RingId, on: bool) -> Result<(), Error>;

    /// Whether [`enable_ring`](Self::enable_ring) stops and starts single rings while the others continue.
    /// Default: `true`. Otherwise the port ignores a stopped queue, and the device goes on filling it.
    fn disables_rings(&self) -> bool {
        true
    }

    /// Stops a ring. On return the device no longer uses it. The result is the ring's state in the form of
    /// [`RingSetup::base`].
    ///
    /// # Errors
    /// The device is lost or refuses.
    fn stop_ring(&mut self, ring: RingId) -> Result<u32, Error>;

    /// Returns when all earlier requests are complete. Default: they always are.
    ///
    /// # Errors
    /// The device is lost.
    fn sync(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Returns the notification of a started ring, if it is not the eventfd of its [`RingSetup`]. Called
    /// after DRIVER_OK. Default: `None`, the eventfd.
    fn notifier(&self, ring: RingId) -> Option<Arc<dyn Notify>> {
        let _ = ring;
        None
    }

    /// Returns whether the device's own link is up, as of the last [`look`](Self::look). Packets pass when it
    /// is up and the port is connected. Default: `true`.
    fn link_up(&self) -> bool {
        true
    }

    /// Returns the descriptor that becomes ready on events of the device; `None` if there is none.
    fn watched(&self) -> Option<Watched<'_>>;

    /// Checks the device for events, without waiting.
    ///
    /// # Errors
    /// The device is lost, or broke the protocol.
    fn look(&mut self) -> Result<(), Error>;
}
