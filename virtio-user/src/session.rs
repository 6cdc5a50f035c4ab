//! What the control thread does for a started port: connect, [prepare], watch, reclaim, and connect again.

mod absence;
mod announce;
mod prepare;
mod queues;

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use linecard_eal::gate::{Controller, close_all};
use linecard_eal::wake::Relay;
use linecard_mempool::Pool;
use linecard_pmd::PortControl;
use linecard_virtio::Features;

use crate::backend::{Backend, Connect, ConnectTimeouts, Phase, Ready, RingId, Role, Waiter};
use crate::control::State;
use crate::control_queue::Requests;
use crate::error::Error;
use crate::memory::{SharedDomains, Sharing};
use crate::owed::Watch;
use crate::path::{RxPath, Trouble, TxPath};
use crate::queue::NO_PATH;
use crate::rings::RingZone;
use crate::said::Said;
use crate::thread::after;
use crate::vhost_user::RETRY;
use absence::Absence;

/// Longest handshake, all answers together.
const HANDSHAKE: Duration = Duration::from_millis(3000);

/// How long a port in client mode looks for its backend when it starts.
const FIRST_CONNECT: Duration = Duration::from_millis(500);
/// The longest that a port takes to start: a backend that was greeted and is gone, another one, and its handshake.
pub(crate) const START: Duration = FIRST_CONNECT.saturating_add(HANDSHAKE.saturating_mul(2));
/// Before a backend that broke the rules gets another chance.
const PENALTY: Duration = Duration::from_millis(1000);
/// Before a gate with somebody inside is looked at again.
const BURST_TIME: Duration = Duration::from_millis(1);
/// How long a backend may take to let go of the rings when the port stops.
const FAREWELL: Duration = Duration::from_millis(500);

/// Where a queue's data path of the moment is.
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
    /// Passes the backend's calls on to who sleeps.
    pub(crate) relay: Arc<Relay>,
    // Paths before the memory they use: fields are dropped in this order.
    pub(crate) rx: Vec<Inside<dyn RxPath>>,
    pub(crate) tx: Vec<Inside<dyn TxPath>>,
    /// Every ring of the device that is used, in the order that it hears of them.
    pub(crate) rings: Vec<RingZone>,
    pub(crate) waiter: Arc<Waiter>,
    /// Takes the outcome of the first handshake.
    pub(crate) started: mpsc::Sender<Result<(), Error>>,
    /// The device that was found when the port was probed.
    pub(crate) first: Option<Box<dyn Backend>>,
    pub(crate) said: Said,
}

/// A backend in use.
struct Live {
    backend: Box<dyn Backend>,
    /// What was agreed.
    features: Features,
    sharing: Sharing,
    watch: Watch,
    /// Where the device has a control queue.
    requests: Option<Requests>,
    /// Queues that are stopped: their gates are held.
    stopped: Vec<RingId>,
}

impl Session {
    /// Runs until the user stops the port.
    pub(crate) fn live(mut self) {
        let mut fresh = true;
        let mut absence = None;
        while !self.stopped() {
            let outcome = self.establish(fresh);
            let pause = match outcome {
                Ok(live) => {
                    self.said.forget();
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
                    // Who connects to the port comes or does not.
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

    /// Tells whoever started the port how it went; later calls find nobody waiting.
    fn report(&self, outcome: Result<(), Error>) {
        let _ = self.started.send(outcome);
    }

    /// Tells why there is no backend, once for each reason in turn: an absent one is looked for again and again.
    fn log(&mut self, what: &str, error: &Error) {
        if matches!(error, Error::Stopped) {
            return;
        }
        let text = format!("{what}: {error}");
        self.state.set_reason(&text);
        if let Some(text) = self.said.news(text, Instant::now()) {
            tracing::warn!("{}: {text}", self.state.name());
        }
    }

    /// From nothing to packets.
    fn establish(&mut self, fresh: bool) -> Result<Live, Error> {
        // A device that is held cannot be opened.
        self.rings.iter_mut().for_each(RingZone::forget_notifier);
        if let Some(first) = self.first.take() {
            match self.prepare(first) {
                // It may have gone since the port was probed.
                Err(error) if error.is_backend_gone() => {}
                outcome => return outcome,
            }
        }
        if self.connect.comes_by_itself() {
            // Until somebody comes the port is up to the peer, and starting it is done.
            self.report(Ok(()));
        }
        let timeouts = if fresh { FIRST_CONNECT } else { Duration::ZERO };
        let timeouts = ConnectTimeouts { until: after(timeouts), answer: HANDSHAKE };
        let found = self.connect.connect(&self.waiter, timeouts)?;
        self.prepare(found)
    }

    /// Watches a backend until it is lost or the user stops the port; returns how long to wait then.
    fn serve(&mut self, mut live: Live) -> Duration {
        let error = loop {
            if self.stopped() {
                break Error::Stopped;
            }
            if let Some((ring, fault)) = self.trouble.take() {
                break Error::Ring { ring, fault };
            }
            match self.follow(&mut live) {
                // What happened while the device was asked may have woken nobody but the one who asked.
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => break error,
            }
            if let Err(error) = self.watch(&mut *live.backend, live.watch.deadline(Instant::now())) {
                break error;
            }
        };
        self.shut(live, &error);
        self.log("link down", &error);
        penalty(&error)
    }

    /// Tells the device what has changed on this side, and does what it asks for; whether there was anything.
    fn follow(&mut self, live: &mut Live) -> Result<bool, Error> {
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
        let announced = self.follow_announcement(live)?;
        let queues = self.follow_queues(live)?;
        let answered = self.answer(live);
        Ok(shared | asked | announced | queues | answered)
    }

    /// Waits until something happens to the device, a notice comes, or (`until`) a kick may be owed.
    fn watch(&self, device: &mut dyn Backend, until: Option<Instant>) -> Result<(), Error> {
        self.look(device)?;
        match device.watched() {
            Some(watched) => self.waiter.wait(Some(watched.fd), watched.ready, until),
            None => self.waiter.wait(None, Ready::Read, until),
        }
        self.look(device)
    }

    /// What happened to the device, and its link.
    fn look(&self, device: &mut dyn Backend) -> Result<(), Error> {
        device.look()?;
        self.state.set_link(device.link_up());
        Ok(())
    }

    /// Closes every gate, and returns when nobody is inside any more: after a burst, or when a thread that is inside one
    /// gets its core back. The thread sleeps meanwhile; whoever waits for it has a limit of his own, after which it is
    /// left behind with rings and memory.
    fn all_outside(&mut self) {
        // Both are asked, also when the first is busy.
        while !(close_all(&mut self.rx) & close_all(&mut self.tx)) {
            self.waiter.wait(None, Ready::Read, Some(after(BURST_TIME)));
        }
    }

    /// Every data path that was behind a gate.
    fn paths_home(&mut self) -> Paths {
        self.all_outside();
        let rx = self.rx.iter_mut().filter_map(|inside| inside.value()?.take()).collect();
        let tx = self.tx.iter_mut().filter_map(|inside| inside.value()?.take()).collect();
        (rx, tx)
    }

    /// Link down, rings stopped where the backend still listens, everything home.
    fn shut(&mut self, mut live: Live, why: &Error) {
        self.state.set_down();
        // Who asked something finds that there is nobody.
        drop(self.state.asks.take());
        self.state.rss_config().set_by_device(false, false);
        self.shared_domains.window.close();
        let paths = self.paths_home();
        self.state.rx_names.iter().chain(&self.state.tx_names).for_each(|name| name.set(NO_PATH));
        if matches!(why, Error::Stopped) {
            live.backend.enter(Phase::Stopping(after(FAREWELL)));
            // A backend that does not answer is left all the same.
            let _ = farewell(&mut *live.backend, &self.rings, live.features);
        }
        drop(live);
        (0..self.rx.len()).for_each(|queue| self.relay.set(queue, None));
        // Only now: as long as the backend was connected it might have used the buffers.
        drop(paths);
        // A register that is mapped holds its device.
        self.rings.iter_mut().for_each(RingZone::forget_notifier);
    }
}

/// Before the port looks for a backend again.
enum Pause {
    For(Duration),
    /// There was none.
    Absent,
}

/// How long to leave a backend alone.
fn penalty(error: &Error) -> Duration {
    match error {
        Error::Stopped => Duration::ZERO,
        error if error.is_backend_gone() => RETRY,
        _ => PENALTY,
    }
}

/// The rings that a device with these features has.
fn in_use(rings: &[RingZone], features: Features) -> impl Iterator<Item = &RingZone> {
    let control = features.contains(Features::NET_CTRL_VQ);
    rings.iter().filter(move |ring| control || ring.id().role() != Role::Control)
}

fn farewell(device: &mut dyn Backend, rings: &[RingZone], features: Features) -> Result<(), Error> {
    for ring in in_use(rings, features) {
        device.stop_ring(ring.id())?;
    }
    device.set_status(0)
}

impl Drop for Session {
    fn drop(&mut self) {
        // Also after a panic: the gates must not lead to rings that are gone.
        self.state.set_down();
        self.shared_domains.window.close();
        drop(self.paths_home());
    }
}
