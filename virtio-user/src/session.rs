//! The control thread of a started port: connect, [prepare], watch, reclaim, and connect again.

mod absence;
mod announce;
mod prepare;
mod queues;

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use linecard_eal::gate::{Controller, close_all};
use linecard_eal::wake::Relay;
use linecard_mempool::Pool;
use linecard_virtio::Features;

use crate::backend::{Backend, Connect, ConnectTimeouts, Phase, Ready, RingId, Role, Waiter};
use crate::control::State;
use crate::control_queue::Requests;
use crate::error::Error;
use crate::limits::Pace;
use crate::log::tell;
use crate::memory::{SharedDomains, Sharing};
use crate::owed::Watch;
use crate::path::{RxPath, Trouble, TxPath};
use crate::queue::NO_PATH;
use crate::rings::RingZone;
use crate::thread::after;
use crate::vhost_user::RETRY;
use absence::Absence;

/// The longest handshake, all answers together.
const HANDSHAKE: Duration = Duration::from_millis(3000);

/// The time for which a port in client mode searches for its backend at start.
const FIRST_CONNECT: Duration = Duration::from_millis(500);
/// The longest start of a port: a backend that vanishes after the connection, another one, and its handshake.
pub(crate) const START: Duration = FIRST_CONNECT.saturating_add(HANDSHAKE.saturating_mul(2));
/// The pause before a backend that broke the rules is tried again.
const PENALTY: Duration = Duration::from_millis(1000);
/// The pause before another attempt to close a gate with a burst inside.
const BURST_TIME: Duration = Duration::from_millis(1);
/// The time that a backend has to release the rings when the port stops.
const STOP_TIME: Duration = Duration::from_millis(500);

/// The control side of the gate that holds a queue's present data path.
pub(crate) type Inside<P> = Controller<Option<Box<P>>>;

/// Every data path of a port.
type Paths = (Vec<Box<dyn RxPath>>, Vec<Box<dyn TxPath>>);

/// A port's control side.
pub(crate) struct Session {
    pub(crate) state: Arc<State>,
    pub(crate) pool: Pool,
    pub(crate) connect: Arc<dyn Connect>,
    pub(crate) shared_domains: SharedDomains,
    pub(crate) trouble: Arc<Trouble>,
    /// Passes the backend's calls on to sleeping queues.
    pub(crate) relay: Arc<Relay>,
    // Paths before the memory they use: fields are dropped in this order.
    pub(crate) rx: Vec<Inside<dyn RxPath>>,
    pub(crate) tx: Vec<Inside<dyn TxPath>>,
    /// Every ring that the device may use, in the order in which the device learns of them.
    pub(crate) rings: Vec<RingZone>,
    pub(crate) waiter: Arc<Waiter>,
    /// Takes the result of the first handshake.
    pub(crate) started: mpsc::Sender<Result<(), Error>>,
    /// The device that was found when the port was probed.
    pub(crate) first: Option<Box<dyn Backend>>,
    /// What the backend may still make this thread do.
    pub(crate) pace: Arc<Pace>,
    /// The processor time of this thread that is charged already.
    pub(crate) charged: Duration,
}

/// A backend in use.
struct Live {
    backend: Box<dyn Backend>,
    /// The negotiated features.
    features: Features,
    sharing: Sharing,
    watch: Watch,
    /// The requests on the control queue, if the device has one.
    requests: Option<Requests>,
    /// The stopped queues, whose gates are held closed.
    stopped: Vec<RingId>,
}

impl Session {
    /// Runs until the user stops the port.
    pub(crate) fn live(mut self) {
        let mut fresh = true;
        let mut absence = None;
        self.charged = thread_time();
        while !self.stopped() {
            if !fresh {
                self.rest();
            }
            let outcome = self.establish(fresh);
            let pause = match outcome {
                Ok(live) => {
                    self.state.log.forget();
                    self.report(Ok(()));
                    absence = None;
                    Pause::For(self.serve(live))
                }
                Err(error) if fresh && !self.connect.comes_by_itself() => {
                    self.report(Err(error));
                    return;
                }
                Err(error) => {
                    self.log("not connected", &error);
                    // Backends that connect on their own need no search.
                    let absent = error.is_backend_gone() && !self.connect.comes_by_itself();
                    if absent { Pause::Absent } else { Pause::For(penalty(&error)) }
                }
            };
            fresh = false;
            match pause {
                Pause::For(time) => self.waiter.rest(after(time)),
                Pause::Absent => {
                    let absence = absence.get_or_insert_with(|| Absence::new(Instant::now()));
                    absence.wait(&self.waiter, self.connect.file());
                }
            }
        }
    }

    fn stopped(&self) -> bool {
        self.waiter.stopped()
    }

    /// Charges the processor time of this thread since the last call to the backend. Returns until when nothing
    /// may be done for it.
    fn pause(&mut self) -> Option<Instant> {
        let time = thread_time();
        self.pace.worked(time.saturating_sub(std::mem::replace(&mut self.charged, time)));
        self.pace.rest(Instant::now(), &self.state.log)
    }

    /// Waits until something may be done for the next backend.
    fn rest(&mut self) {
        while let Some(until) = self.pause().filter(|_| !self.stopped()) {
            self.waiter.rest(until);
        }
    }

    /// Reports the result of the start; later calls have no receiver.
    fn report(&self, outcome: Result<(), Error>) {
        let _ = self.started.send(outcome);
    }

    /// Records and logs why there is no backend. An absent backend is tried often, so the same reason is
    /// logged once.
    fn log(&mut self, what: &str, error: &Error) {
        if matches!(error, Error::Stopped) {
            return;
        }
        let text = format!("{what}: {error}");
        self.state.set_reason(&text);
        if self.state.log.is_news(&text) {
            tell!(self.state.log, WARN, "{text}");
        }
    }

    /// Connects to a backend and prepares it, until packets can pass.
    fn establish(&mut self, fresh: bool) -> Result<Live, Error> {
        // A held notifier keeps the device open, and an open device cannot be opened again.
        self.rings.iter_mut().for_each(RingZone::forget_notifier);
        if let Some(first) = self.first.take() {
            match self.prepare(first) {
                // The backend may have vanished since the port was probed.
                Err(error) if error.is_backend_gone() => {}
                outcome => return outcome,
            }
        }
        if self.connect.comes_by_itself() {
            // The start is complete; from here on the port waits for the peer to connect.
            self.report(Ok(()));
        }
        let timeouts = if fresh { FIRST_CONNECT } else { Duration::ZERO };
        let timeouts = ConnectTimeouts { until: after(timeouts), answer: HANDSHAKE };
        let found = self.connect.connect(&self.waiter, timeouts)?;
        self.prepare(found)
    }

    /// Watches a backend until it is lost or the user stops the port. Returns the pause before the next
    /// connection.
    fn serve(&mut self, mut live: Live) -> Duration {
        let error = loop {
            if self.stopped() {
                break Error::Stopped;
            }
            if let Some((ring, fault)) = self.trouble.take() {
                break Error::Ring { ring, fault };
            }
            let pause = self.pause();
            match self.follow(&mut live, pause.is_none()) {
                // Events during these requests may have woken only the waiting request, so everything is
                // checked again.
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => break error,
            }
            let until = live.watch.deadline(Instant::now());
            if let Some(pause) = pause {
                // Nothing of the backend's is looked at; this side's own requests are served meanwhile.
                self.waiter.wait(None, Ready::Read, Some(until.map_or(pause, |until| until.min(pause))));
                continue;
            }
            if let Err(error) = self.watch(&mut *live.backend, until) {
                break error;
            }
        };
        self.shut(live, &error);
        self.log("link down", &error);
        penalty(&error)
    }

    /// Passes changes of this side on to the device and, if the backend may cost something, serves the device's
    /// requests. Returns whether there were any.
    fn follow(&mut self, live: &mut Live, serves: bool) -> Result<bool, Error> {
        let shared = live.sharing.update(&mut *live.backend, &self.shared_domains)?;
        let rules = self.state.filter().rules();
        let asked = match &mut live.requests {
            Some(requests) => {
                requests.follow(&mut *live.backend, &rules, None)?
                    | requests.follow_rss(&mut *live.backend, self.state.rss_config(), None)?
                    | requests.follow_offloads(&mut *live.backend, self.state.guest_offloads(), None)?
            }
            None => false,
        };
        let announced = serves && self.follow_announcement(live)?;
        let queues = self.follow_queues(live)?;
        let answered = self.answer(live);
        Ok(shared | asked | announced | queues | answered)
    }

    /// Waits until the device needs attention, the thread is notified, or a kick may be due (`until`).
    fn watch(&self, device: &mut dyn Backend, until: Option<Instant>) -> Result<(), Error> {
        self.look(device)?;
        match device.watched() {
            Some(watched) => self.waiter.wait(Some(watched.fd), watched.ready, until),
            None => self.waiter.wait(None, Ready::Read, until),
        }
        self.look(device)
    }

    /// Checks the device and its link for events.
    fn look(&self, device: &mut dyn Backend) -> Result<(), Error> {
        device.look()?;
        self.state.set_link(device.link_up());
        Ok(())
    }

    /// Closes every gate, and returns when no thread is inside any more: after a burst, or when a preempted
    /// thread inside one runs again. This thread sleeps meanwhile. The thread that waits for it has its own
    /// time limit, after which this thread is left running with its rings and memory.
    fn all_outside(&mut self) {
        // Both directions are closed, even if the first is busy.
        while !(close_all(&mut self.rx) & close_all(&mut self.tx)) {
            self.waiter.wait(None, Ready::Read, Some(after(BURST_TIME)));
        }
    }

    /// Closes every gate and takes out every data path.
    fn take_paths(&mut self) -> Paths {
        self.all_outside();
        let rx = self.rx.iter_mut().filter_map(|inside| inside.value()?.take()).collect();
        let tx = self.tx.iter_mut().filter_map(|inside| inside.value()?.take()).collect();
        (rx, tx)
    }

    /// Takes the link down, stops the rings if the backend still answers, and takes back all buffers.
    fn shut(&mut self, mut live: Live, why: &Error) {
        self.state.set_down();
        // Threads that wait for an answer learn that there is none.
        drop(self.state.asks.take());
        self.state.rss_config().set_by_device(false, false);
        self.shared_domains.window.close();
        let paths = self.take_paths();
        // One for each direction.
        self.pace.interrupted(2);
        self.state.rx_names.iter().chain(&self.state.tx_names).for_each(|name| name.set(NO_PATH));
        if matches!(why, Error::Stopped) {
            live.backend.enter(Phase::Stopping(after(STOP_TIME)));
            // A backend that does not answer is dropped all the same.
            let _ = stop_device(&mut *live.backend, &self.rings, live.features);
        }
        drop(live);
        (0..self.rx.len()).for_each(|queue| self.relay.set(queue, None));
        // Not earlier: the backend may have used the buffers while it was connected.
        drop(paths);
        // A mapped notification register keeps its device open.
        self.rings.iter_mut().for_each(RingZone::forget_notifier);
    }
}

/// The pause before the port looks for a backend again.
enum Pause {
    For(Duration),
    /// There was no backend: the pause grows with its absence.
    Absent,
}

/// Returns how long to wait before the next connection.
fn penalty(error: &Error) -> Duration {
    match error {
        Error::Stopped => Duration::ZERO,
        error if error.is_backend_gone() => RETRY,
        _ => PENALTY,
    }
}

/// Returns the rings that a device with these features has.
fn in_use(rings: &[RingZone], features: Features) -> impl Iterator<Item = &RingZone> {
    let control = features.contains(Features::NET_CTRL_VQ);
    rings.iter().filter(move |ring| control || ring.id().role() != Role::Control)
}

/// The processor time that the calling thread has used.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn stop_device(device: &mut dyn Backend, rings: &[RingZone], features: Features) -> Result<(), Error> {
    for ring in in_use(rings, features) {
        device.stop_ring(ring.id())?;
    }
    device.set_status(0)
}

impl Drop for Session {
    fn drop(&mut self) {
        // Also after a panic: a gate must not lead to a ring that no longer exists.
        self.state.set_down();
        self.shared_domains.window.close();
        drop(self.take_paths());
    }
}
