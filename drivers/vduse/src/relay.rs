//! Translates the kernel's requests into messages to the port's backend.
//!
//! ```text
//!   driver ── virtio ── kernel ── /dev/vduse/NAME ── relay ── vhost-user ── backend ── the port's queues
//!                          packets: rings in the driver's memory, mapped by the backend; kicks by eventfd
//!                          the relay turns each call of the backend into an interrupt (VDUSE_VQ_INJECT_IRQ)
//! ```

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use linecard_eal::eventfd::EventFd;
use linecard_virtio::{Features, Layout};
use linecard_wire::payload::PackedBase;
use rustix::event::{PollFd, PollFlags, poll};

use crate::frontend::{Frontend, Refusal, Ring};
use crate::kernel::{Answer, Kernel, Request};
use crate::record::Record;
use crate::shared::Known;
use crate::sys::RingInfo;
use crate::thread::Wake;

/// The receive and the transmit ring, with the driver's numbers.
const RINGS: [u8; 2] = [0, 1];
/// `VIRTIO_CONFIG_S_DRIVER_OK`.
const DRIVER_OK: u8 = 4;

/// The reason why a request of the kernel fails.
#[derive(Debug)]
pub(crate) enum Failure {
    Kernel(io::Error),
    Backend(Refusal),
    /// The driver set up an impossible ring.
    Ring(u32),
    /// The driver's process shares a file that is not memory.
    Memory {
        start: u64,
    },
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kernel(error) => write!(f, "the kernel: {error}"),
            Self::Backend(refusal) => refusal.fmt(f),
            Self::Memory { start } => {
                write!(
                    f,
                    "the driver's memory at {start:#x} is no memfd and no file of a tmpfs; have its process share one"
                )
            }
            Self::Ring(index) => write!(f, "the driver has not made ring {index} ready"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Kernel(error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Backend(refusal)
    }
}

/// The state of the rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rings {
    Stopped,
    /// The driver is ready, but has no buffers yet; see [`Relay::has_buffers`].
    Waiting,
    /// Each ring, unless its state was requested, which stops it.
    Running([bool; 2]),
}

/// Connects a relay to its backend, which accepts one frontend at a time.
pub(crate) type Connect = Box<dyn FnMut() -> Result<Frontend, Refusal> + Send>;

pub(crate) struct Relay<K> {
    pub(crate) kernel: K,
    connect: Connect,
    /// `None` after the backend ended the connection, as it does when a driver breaks the protocol. It stays
    /// so until the driver starts again.
    frontend: Option<Frontend>,
    record: Option<Record>,
    kicks: [EventFd; 2],
    calls: [EventFd; 2],
    pub(crate) regions: Vec<Known>,
    layout: Layout,
    rings: Rings,
    /// The state in which each ring begins, or in which it was stopped.
    bases: [u32; 2],
}

impl<K: Kernel> Relay<K> {
    pub(crate) fn new(
        kernel: K,
        (connect, frontend): (Connect, Frontend),
        record: Option<Record>,
    ) -> io::Result<Self> {
        Ok(Self {
            kernel,
            connect,
            frontend: Some(frontend),
            record,
            kicks: [EventFd::new()?, EventFd::new()?],
            calls: [EventFd::new()?, EventFd::new()?],
            regions: Vec::new(),
            layout: Layout::Split,
            rings: Rings::Stopped,
            bases: [0; 2],
        })
    }

    /// Continues with a driver that an earlier process served. Returns whether there is one.
    pub(crate) fn resume(&mut self) -> Result<bool, Failure> {
        for index in RINGS {
            if self.kernel.ring(index.into())?.ready == 0 {
                return Ok(false);
            }
        }
        self.start(true)?;
        // Buffers that the earlier process returned may lack their interrupt.
        for index in RINGS {
            self.kernel.interrupt(index.into())?;
        }
        Ok(true)
    }

    /// Serves the kernel until `wake` ends it.
    pub(crate) fn serve(&mut self, wake: &Wake) -> Result<(), Failure> {
        let mut shown = false;
        loop {
            self.wait(wake)?;
            if wake.ended.load(Ordering::Acquire) {
                return Ok(());
            }
            self.notice_a_lost_backend();
            self.pass_calls_on()?;
            if let Err(failure) = self.notice_buffers() {
                tracing::error!("the driver's buffers cannot be used: {failure}");
                self.lose_backend();
            }
            while let Some((number, request)) = self.kernel.request()? {
                let answer = self.carry_out(request).unwrap_or_else(|failure| {
                    tracing::error!(?request, "the kernel's request failed: {failure}");
                    if matches!(failure, Failure::Backend(_)) {
                        self.lose_backend();
                    }
                    Answer::Failed
                });
                self.kernel.answer(number, answer)?;
            }
            let up = wake.link.load(Ordering::Acquire) && self.frontend.is_some();
            if up != shown {
                self.kernel.set_link(up)?;
                shown = up;
            }
        }
    }

    fn wait(&self, wake: &Wake) -> Result<(), Failure> {
        let [a, b] = &self.calls;
        let all = [self.kernel.fd(), a.as_fd(), b.as_fd(), wake.event.as_fd()];
        let kicks = (self.rings == Rings::Waiting).then(|| self.kicks.iter().map(AsFd::as_fd));
        let all =
            all.into_iter().chain(self.frontend.as_ref().map(AsFd::as_fd)).chain(kicks.into_iter().flatten());
        let mut fds: Vec<_> = all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        wake.event.drain();
        Ok(())
    }

    /// Turns calls of the backend into interrupts.
    fn pass_calls_on(&self) -> Result<(), Failure> {
        for (call, index) in self.calls.iter().zip(RINGS) {
            if is_ready(call)? {
                call.drain();
                // Refused if the driver has reset the device meanwhile.
                let _ = self.kernel.interrupt(index.into());
            }
        }
        Ok(())
    }

    /// Starts the rings once a driver without buffers has kicked, which means that it has some.
    fn notice_buffers(&mut self) -> Result<(), Failure> {
        if self.rings != Rings::Waiting {
            return Ok(());
        }
        let mut kicked = false;
        for kick in &self.kicks {
            // A kick after the check is left for the next one.
            if is_ready(kick)? {
                kick.drain();
                kicked = true;
            }
        }
        if kicked {
            self.share_memory()?;
            self.begin()?;
        }
        Ok(())
    }

    /// The backend sends nothing without a request, so a readable socket means that it has closed the
    /// connection.
    fn notice_a_lost_backend(&mut self) {
        if let Some(Err(error)) = self.frontend.as_mut().map(Frontend::uninvited) {
            tracing::error!("the port does not serve this driver any more: {error}");
            self.lose_backend();
        }
    }

    /// Forgets everything that the backend had, as the connection is closed.
    fn lose_backend(&mut self) {
        self.frontend = None;
        self.regions.clear();
        self.rings = Rings::Stopped;
    }

    pub(crate) fn backend(&mut self) -> Result<&mut Frontend, Failure> {
        match &mut self.frontend {
            Some(frontend) => Ok(frontend),
            none => Ok(none.insert((self.connect)()?)),
        }
    }

    fn carry_out(&mut self, request: Request) -> Result<Answer, Failure> {
        match request {
            Request::Status(status) if status & DRIVER_OK == 0 => self.stop()?,
            Request::Status(_) if self.rings == Rings::Stopped => self.start(false)?,
            Request::Status(_) => {}
            Request::Memory { .. } if self.rings != Rings::Stopped => self.share_memory()?,
            // The memory is shared when the driver is ready.
            Request::Memory { .. } => {}
            Request::RingState { index } => return self.state(index),
            Request::Unknown(kind) => {
                tracing::warn!(kind, "the kernel asks what this version does not know");
                return Ok(Answer::Failed);
            }
        }
        Ok(Answer::Done)
    }

    /// Starts both rings, in the state that the driver set or that the last process left.
    fn start(&mut self, resumed: bool) -> Result<(), Failure> {
        let features = self.kernel.features()?;
        self.layout = if features.contains(Features::RING_PACKED) { Layout::Packed } else { Layout::Split };
        self.backend()?.set_features(features)?;
        self.share_memory()?;
        if let (Some(record), Some(frontend)) = (&self.record, &mut self.frontend) {
            if !resumed {
                record.clear()?;
            }
            frontend.set_record(record.len, record.queue_size, record.as_fd())?;
        }
        for index in RINGS {
            let info = self.ready_ring(index)?;
            self.bases[usize::from(index)] = match &self.record {
                Some(record) if resumed => record.base(index.into(), self.layout)?,
                _ => base(&info, self.layout),
            };
            self.kernel.set_kick(index.into(), self.kicks[usize::from(index)].as_fd())?;
        }
        self.rings = Rings::Waiting;
        tracing::info!(layout = ?self.layout, resumed, "a driver uses the device");
        self.begin()
    }

    /// Starts the rings in the backend, if the driver has buffers.
    fn begin(&mut self) -> Result<(), Failure> {
        if !self.has_buffers() {
            return Ok(());
        }
        // From here on, the rings must be stopped.
        self.rings = Rings::Running([true; 2]);
        for index in RINGS {
            let info = self.ready_ring(index)?;
            let [kick, call] = [&self.kicks, &self.calls].map(|pair| &pair[usize::from(index)]);
            let ring = Ring {
                index,
                size: info.size as u16,
                areas: [info.desc, info.driver, info.device],
                base: self.bases[usize::from(index)],
                kick: kick.as_fd(),
                call: call.as_fd(),
            };
            if let Some(frontend) = &mut self.frontend {
                frontend.start_ring(&ring)?;
            }
            // Repeats earlier kicks, which the backend has not seen.
            kick.signal();
        }
        Ok(())
    }

    /// Returns a ring that the driver has set up.
    fn ready_ring(&self, index: u8) -> Result<RingInfo, Failure> {
        let info = self.kernel.ring(index.into())?;
        let possible = info.ready != 0 && (1..=u32::from(u16::MAX)).contains(&info.size);
        if possible { Ok(info) } else { Err(Failure::Ring(index.into())) }
    }

    /// Stops both rings, and unmaps the driver's memory.
    pub(crate) fn stop(&mut self) -> Result<(), Failure> {
        if self.rings != Rings::Stopped {
            for index in RINGS {
                self.stop_ring(index)?;
            }
            self.rings = Rings::Stopped;
            tracing::info!("the driver has left the device");
        }
        // Also unmaps memory that was shared for rings that did not start.
        let regions = std::mem::take(&mut self.regions);
        if let Some(frontend) = &mut self.frontend {
            regions.iter().try_for_each(|known| frontend.remove_region(known.region))?;
        }
        Ok(())
    }

    fn stop_ring(&mut self, index: u8) -> Result<(), Failure> {
        let at = usize::from(index);
        if let Rings::Running(mut running) = self.rings
            && std::mem::take(&mut running[at])
        {
            self.bases[at] = self.backend()?.stop_ring(index)?;
            self.rings = Rings::Running(running);
        }
        Ok(())
    }

    /// Returns the state of a ring and stops it: the kernel asks for it before it resets the device.
    fn state(&mut self, index: u32) -> Result<Answer, Failure> {
        let ring = RINGS.into_iter().find(|&ring| u32::from(ring) == index).ok_or(Failure::Ring(index))?;
        self.stop_ring(ring)?;
        let base = self.bases[usize::from(ring)];
        let state = match self.layout {
            Layout::Split => [base as u16, 0, 0, 0],
            Layout::Packed => {
                let at = PackedBase::from_u32(base);
                [at.avail_wrap.into(), at.avail, at.used_wrap.into(), at.used]
            }
        };
        Ok(Answer::RingState { index, state })
    }
}

/// Returns the state in which a ring begins, as the driver set it.
fn base(info: &RingInfo, layout: Layout) -> u32 {
    let [first, avail, used_wrap, used] = info.state;
    match layout {
        Layout::Split => first.into(),
        Layout::Packed => {
            PackedBase { avail, avail_wrap: first != 0, used, used_wrap: used_wrap != 0 }.to_u32()
        }
    }
}

fn is_ready(event: &EventFd) -> io::Result<bool> {
    let mut fds = [PollFd::new(event, PollFlags::IN)];
    let none = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(poll(&mut fds, Some(&none))? > 0)
}
