//! One queue of a started port: its socket, and the buffers that the kernel may access until the socket is
//! closed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::bpf::Sockets;
use super::cursor::Ring;
use super::fill::Fill;
use super::socket::{Drops, Socket, Which};
use super::umem::{Tag, Umem};

/// The time for which a queue may still belong to a closed socket: the kernel cleans up in a work queue.
const RELEASE: Duration = Duration::from_secs(1);
/// The time for which a device may still write into its buffers after the socket was closed (zero-copy only).
const DEVICE_STOP: Duration = Duration::from_millis(200);
/// The entries of rings that exist only because the kernel requires them.
const IDLE: u32 = 64;
/// The kernel's internal `ENOTSUPP`, returned by devices without zero-copy.
const ENOTSUPP: i32 = 524;

/// The options of a port's sockets.
#[derive(Clone, Copy, Debug)]
pub(super) struct SocketOptions {
    pub(super) force_copy: bool,
    /// The packets per call when busy polling; 0 for interrupts.
    pub(super) busy_budget: u32,
    /// Whether frames may be longer than a buffer.
    pub(super) chains: bool,
}

impl SocketOptions {
    /// Returns whether a device may access the memory directly, if it can.
    fn may_skip_copying(self, umem: &Umem) -> bool {
        !self.force_copy && umem.is_contiguous()
    }

    /// Returns the flags for binding, best first. Each mode is requested explicitly: by default, the kernel
    /// silently copies even on a device with zero-copy, if that supports only packets of one buffer. Kernels
    /// before 6.6 do not support packets of several buffers.
    fn ways(self, umem: &Umem) -> impl Iterator<Item = u16> + use<> {
        const ZERO_COPY: u16 = libc::XDP_ZEROCOPY;
        const COPY: u16 = libc::XDP_COPY;
        const CHAINS: u16 = libc::XDP_USE_SG;
        let zero_copy = self.may_skip_copying(umem);
        [ZERO_COPY | CHAINS, ZERO_COPY, COPY | CHAINS, COPY]
            .into_iter()
            .filter(move |way| zero_copy || way & ZERO_COPY == 0)
            .filter(move |way| !self.chains || *way != ZERO_COPY)
    }
}

/// A socket that is bound to a queue.
pub(super) struct Channel {
    /// `None` while the channel is dropped.
    socket: Option<Socket>,
    pub(super) umem: Arc<Umem>,
    pub(super) rx_tag: Tag,
    pub(super) tx_tag: Tag,
    pub(super) queue: u32,
    pub(super) zero_copy: bool,
    pub(super) multi_buffer: bool,
    pub(super) busy_poll: bool,
    /// Whether the queue is bound to this socket.
    bound: bool,
    /// Whether published packets are not sent yet; the next poll of the port calls the kernel again.
    pub(super) owed: AtomicBool,
    sockets: Arc<Sockets>,
}

/// A channel and the rings of its directions.
pub(super) struct Opened {
    pub(super) rx: Option<(Ring<2>, Fill)>,
    pub(super) tx: Option<(Ring<2>, Ring<1>)>,
    pub(super) channel: Arc<Channel>,
}

/// The step at which a socket failed, and the error.
#[derive(Debug)]
pub(super) enum Refusal {
    Register(io::Error),
    Ring(io::Error),
    Bind(io::Error),
}

impl Channel {
    /// Binds `socket` to `queue` of interface `index`. `rx` and `tx` are the ring sizes of the requested
    /// directions. Frames arrive from here on.
    pub(super) fn open(
        socket: Socket,
        (index, queue): (u32, u32),
        (rx, tx): (Option<u32>, Option<u32>),
        umem: &Arc<Umem>,
        sockets: &Arc<Sockets>,
        options: SocketOptions,
    ) -> Result<Opened, Refusal> {
        let rings = Rings::make(&socket, rx, tx).map_err(Refusal::Ring)?;
        let busy_poll = options.busy_budget > 0 && socket.prefer_busy_poll(options.busy_budget);
        socket.widen(tx.unwrap_or(IDLE));
        let mut channel = Self {
            socket: Some(socket),
            umem: umem.clone(),
            rx_tag: umem.tag(),
            tx_tag: umem.tag(),
            queue,
            zero_copy: false,
            multi_buffer: false,
            busy_poll,
            bound: false,
            owed: AtomicBool::new(false),
            sockets: sockets.clone(),
        };
        let depth = rx.unwrap_or_default();
        let whole = options.may_skip_copying(umem);
        let mut rx = rings.rx.map(|(rx, fill)| (rx, Fill::new(fill, depth, umem, channel.rx_tag, whole)));
        let mut members = umem.members();
        members.retain(|member| member.strong_count() > 0);
        if let Err(refusal) = channel.join(&members, (index, queue), options) {
            // The mappings, which keep the socket open, are dropped before it.
            drop((rx, rings.tx));
            return Err(refusal);
        }
        if let Some((_, fill)) = &mut rx {
            fill.set_whole(channel.zero_copy);
        }
        let channel = Arc::new(channel);
        members.push(Arc::downgrade(&channel));
        drop(members);
        Ok(Opened { rx, tx: rings.tx, channel })
    }

    /// Binds the socket, with the memory of a socket that has registered it, or with a new registration.
    fn join(
        &mut self,
        members: &[Weak<Self>],
        place: (u32, u32),
        options: SocketOptions,
    ) -> Result<(), Refusal> {
        let Some(socket) = &self.socket else { return Ok(()) };
        self.multi_buffer = bind(socket, members, &self.umem, place, options)?;
        self.zero_copy = socket.is_zero_copy();
        self.bound = true;
        Ok(())
    }

    /// Redirects the frames of the queue to this socket.
    pub(super) fn connect(&self) -> io::Result<()> {
        match self.fd() {
            Some(fd) => self.sockets.set(self.queue, fd),
            None => Ok(()),
        }
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Makes the kernel send the packets in the tx ring.
    pub(super) fn send(&self) -> io::Result<()> {
        self.socket.as_ref().map_or(Ok(()), Socket::send)
    }

    /// Wakes a device for the tx ring. With busy polling, the kernel drives only the receive side of the
    /// queue, and some devices (virtio-net) send elsewhere. Returns false if the device needs no such call.
    #[cold]
    pub(super) fn wake(&self) -> bool {
        let Some(socket) = self.socket.as_ref().filter(|_| self.zero_copy && self.busy_poll) else {
            return false;
        };
        socket.wake();
        true
    }

    /// Makes the kernel fetch buffers and packets.
    pub(super) fn receive(&self) {
        if let Some(socket) = &self.socket {
            socket.receive();
        }
    }

    /// Returns the kernel's drop counters for this socket.
    pub(super) fn drops(&self) -> Drops {
        self.socket.as_ref().map_or(Drops::default(), Socket::drops)
    }

    /// Calls the kernel again for packets that an earlier call left, from any polling thread.
    #[inline(always)]
    pub(super) fn settle(&self) {
        if self.owed.load(Ordering::Relaxed) {
            self.owed.store(false, Ordering::Relaxed);
            if self.send().is_err() {
                self.owed.store(true, Ordering::Relaxed);
            }
            self.wake();
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // The queues and their mappings hold the channel, so they no longer exist. A map that outlives this
        // channel must not name a socket that another process may hold open. If our bind failed, its entry
        // belongs to another socket and stays.
        if self.bound {
            let _ = self.sockets.clear(self.queue);
        }
        // On return the kernel no longer receives into our buffers (`xsk_release` waits for that).
        drop(self.socket.take());
        if self.zero_copy {
            // A device with direct access is stopped from a work queue, and no call reports when it has
            // stopped.
            std::thread::sleep(DEVICE_STOP);
        }
        self.umem.recover(self.rx_tag);
        self.umem.recover(self.tx_tag);
    }
}

/// The mapped rings of one socket.
struct Rings {
    rx: Option<(Ring<2>, Ring<1>)>,
    tx: Option<(Ring<2>, Ring<1>)>,
}

impl Rings {
    fn make(socket: &Socket, rx: Option<u32>, tx: Option<u32>) -> io::Result<Self> {
        // Every socket with its own queue needs both rings, used or not.
        socket.make_ring(Which::Fill, rx.unwrap_or(IDLE))?;
        socket.make_ring(Which::Done, tx.unwrap_or(IDLE))?;
        for (which, size) in [(Which::Rx, rx), (Which::Tx, tx)] {
            if let Some(size) = size {
                socket.make_ring(which, size)?;
            }
        }
        let pair = |main, other, size: Option<u32>| -> io::Result<_> {
            let Some(size) = size else { return Ok(None) };
            Ok(Some((socket.map_ring::<2>(main, size)?, socket.map_ring::<1>(other, size)?)))
        };
        Ok(Self { rx: pair(Which::Rx, Which::Fill, rx)?, tx: pair(Which::Tx, Which::Done, tx)? })
    }
}

/// Binds with the memory of a socket that has registered it, or with a new registration. Returns whether
/// packets may span buffers.
fn bind(
    socket: &Socket,
    members: &[Weak<Channel>],
    umem: &Umem,
    place: (u32, u32),
    options: SocketOptions,
) -> Result<bool, Refusal> {
    if let Some(first) = members.iter().find_map(Weak::upgrade) {
        let fd = first.fd();
        match retried(|| socket.bind(place.0, place.1, libc::XDP_SHARED_UMEM, fd)) {
            Ok(()) => return Ok(first.multi_buffer),
            // Another device lacks the abilities of the first: register a second time.
            Err(error) if is_unsupported(&error) => {}
            Err(error) => return Err(Refusal::Bind(error)),
        }
    }
    // SAFETY: the umem, which the channel keeps until its socket is closed, keeps the pool; the kernel writes
    // only into buffers that were passed to it.
    unsafe { socket.register(umem.registration()) }.map_err(Refusal::Register)?;
    let mut refused = None;
    for flags in options.ways(umem) {
        match retried(|| socket.bind(place.0, place.1, libc::XDP_USE_NEED_WAKEUP | flags, None)) {
            Ok(()) => return Ok(flags & libc::XDP_USE_SG != 0),
            // The queue belongs to another socket in every mode.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Err(Refusal::Bind(error)),
            Err(error) => refused = Some(error),
        }
    }
    Err(Refusal::Bind(refused.unwrap_or_else(|| io::ErrorKind::Unsupported.into())))
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | ENOTSUPP))
}

/// Retries while the queue may still belong to a closed socket.
fn retried(mut bind: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match bind() {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && start.elapsed() < RELEASE => {
                std::thread::sleep(Duration::from_millis(2));
            }
            result => return result,
        }
    }
}
