//! A started port's life on the control thread: connect, shake hands, watch, take home, again.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use linecard_eal::gate::{Controller, close_all};
use linecard_mempool::{Meta, Pool};
use linecard_pmd::PortControl;
use linecard_virtio::Features;
use linecard_virtio::net::{device_takes, driver_takes};
use linecard_wire::Closer;
use linecard_wire::socket::Listener;

use crate::control::State;
use crate::dialogue::{Dialogue, HANDSHAKE, handshake_limit};
use crate::doorbell::{Doorbell, TICK};
use crate::error::Error;
use crate::handshake::{Greeted, RingPlace, greet, layout};
use crate::memory::{Growth, Sharing};
use crate::path::{RxPath, Trouble, TxPath};
use crate::queue::NO_PATH;
use crate::rings::{Named, RingZone, rx_path, tx_path};
use crate::rx::RxParts;
use crate::said::Said;
use crate::sys::Ready;
use crate::thread::{Waiter, after};
use crate::transport::{RETRY, accept, connect};
use crate::tx::TxParts;

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

/// One queue pair's memory; rings are numbered receive, transmit, receive, … as vhost-user does.
pub(crate) struct Pair {
    pub(crate) rx: RingZone,
    pub(crate) tx: RingZone,
}

/// Where a queue's data path of the moment is.
pub(crate) type Inside<P> = Controller<Option<Box<P>>>;

/// A port's control side.
pub(crate) struct Session {
    pub(crate) state: Arc<State>,
    pub(crate) pool: Pool,
    pub(crate) listener: Option<Arc<Listener>>,
    pub(crate) growth: Growth,
    pub(crate) trouble: Arc<Trouble>,
    // Paths before the memory they use: fields are dropped in this order.
    pub(crate) rx: Vec<Inside<dyn RxPath>>,
    pub(crate) tx: Vec<Inside<dyn TxPath>>,
    pub(crate) pairs: Vec<Pair>,
    pub(crate) waiter: Arc<Waiter>,
    /// Of all the port's connections.
    pub(crate) closer: Closer,
    /// Takes the outcome of the first handshake.
    pub(crate) started: mpsc::Sender<Result<(), Error>>,
    /// A connection made while the device was probed.
    pub(crate) first: Option<Greeted>,
    pub(crate) said: Said,
}

/// Data paths that are made but not yet reachable for the application.
struct Built {
    doorbells: Vec<Arc<Doorbell>>,
    rx: Vec<Named<dyn RxPath>>,
    tx: Vec<Named<dyn TxPath>>,
}

/// A backend in use.
struct Live {
    greeted: Greeted,
    sharing: Sharing,
    doorbells: Vec<Arc<Doorbell>>,
}

impl Session {
    /// Runs until the user stops the port.
    pub(crate) fn live(mut self) {
        let mut fresh = true;
        while !self.stopped() {
            let outcome = self.establish(fresh);
            let pause = match outcome {
                Ok(live) => {
                    self.said.forget();
                    self.report(Ok(()));
                    self.serve(live)
                }
                Err(error) if fresh && self.listener.is_none() => {
                    self.report(Err(error));
                    return;
                }
                Err(error) => {
                    self.log("not connected", &error);
                    penalty(&error)
                }
            };
            fresh = false;
            self.rest(pause);
        }
    }

    fn stopped(&self) -> bool {
        self.waiter.stopped()
    }

    /// Tells whoever started the port how it went; later calls find nobody waiting.
    fn report(&self, outcome: Result<(), Error>) {
        let _ = self.started.send(outcome);
    }

    /// Tells why there is no backend, once for each reason in turn: an absent one is looked for fifty times a second.
    fn log(&mut self, what: &str, error: &Error) {
        if !matches!(error, Error::Stopped)
            && let Some(text) = self.said.news(format!("{what}: {error}"), Instant::now())
        {
            tracing::warn!("{}: {text}", self.state.name());
        }
    }

    fn rest(&self, pause: Duration) {
        let until = after(pause);
        while !self.stopped() && Instant::now() < until {
            self.waiter.wait(None, Ready::Read, Some(until));
        }
    }

    /// From nothing to packets.
    fn establish(&mut self, fresh: bool) -> Result<Live, Error> {
        if let Some(mut first) = self.first.take() {
            first.dialogue.set_limit(Some(handshake_limit()));
            match self.prepare(first) {
                // The connection may have died since the device was probed.
                Err(error) if error.is_backend_gone() => {}
                outcome => return outcome,
            }
        }
        // One more descriptor, given back at once: while the port holds too many it does not connect.
        drop(self.closer.descriptors().charge(1).map_err(linecard_wire::Error::from)?);
        let socket = match &self.listener {
            Some(listener) => {
                // Until somebody comes the port is up to the peer, and starting it is done.
                self.report(Ok(()));
                accept(listener, &self.waiter)?
            }
            None => {
                let patience = if fresh { FIRST_CONNECT } else { Duration::ZERO };
                connect(&self.state.options.path, &self.waiter, after(patience))?
            }
        };
        let greeted = greet(Dialogue::new(socket, &self.closer, &self.waiter, handshake_limit())?)?;
        self.prepare(greeted)
    }

    /// Agrees on features, shares memory, starts the rings, opens the gates.
    fn prepare(&mut self, mut greeted: Greeted) -> Result<Live, Error> {
        let count = u16::try_from(self.pairs.len()).unwrap_or(u16::MAX);
        let features = greeted.agree(&self.state.options, count)?;
        let mut sharing = Sharing::new(greeted.slots);
        self.renew()?;
        for (index, ring) in rings(&self.pairs) {
            greeted.ring_call(index, &ring.call)?;
        }
        sharing.update(&mut greeted.dialogue, &self.growth)?;
        let built = self.build(features)?;
        self.start_rings(&mut greeted, features)?;
        greeted.driver_ok()?;
        // The domain may have grown meanwhile.
        sharing.update(&mut greeted.dialogue, &self.growth)?;
        greeted.dialogue.set_limit(None);
        if self.stopped() {
            return Err(Error::Stopped);
        }
        let doorbells = built.doorbells.clone();
        self.open(built);
        self.state.set_up(features, greeted.protocol);
        tracing::info!("{}: connected; {}; {}", self.state.name(), self.state.features(), self.state.paths());
        Ok(Live { greeted, sharing, doorbells })
    }

    fn renew(&mut self) -> Result<(), Error> {
        self.trouble.take();
        for pair in &mut self.pairs {
            pair.rx.renew()?;
            pair.tx.renew()?;
        }
        Ok(())
    }

    /// Data paths with their rings filled; dropped, they give everything back.
    fn build(&self, features: Features) -> Result<Built, Error> {
        let doorbells: Result<Vec<_>, Error> =
            self.pairs.iter().map(|pair| pair.tx.doorbell(features)).collect();
        let mut built = Built { doorbells: doorbells?, rx: Vec::new(), tx: Vec::new() };
        for (queue, (pair, bell)) in self.pairs.iter().zip(&built.doorbells).take(self.rx.len()).enumerate() {
            built.rx.push(rx_path(&pair.rx, features, self.rx_parts(queue, pair, bell, features))?);
        }
        for (queue, (pair, bell)) in self.pairs.iter().zip(&built.doorbells).take(self.tx.len()).enumerate() {
            built.tx.push(tx_path(&pair.tx, features, self.tx_parts(queue, pair, bell, features))?);
        }
        Ok(built)
    }

    fn rx_parts(&self, queue: usize, pair: &Pair, doorbell: &Arc<Doorbell>, features: Features) -> RxParts {
        RxParts {
            pool: self.pool.clone(),
            kick: pair.rx.kick.clone(),
            doorbell: doorbell.clone(),
            stats: self.state.counters().rx(queue),
            trouble: self.trouble.clone(),
            ring: queue.saturating_mul(2),
            port: Meta::NO_PORT,
            takes: driver_takes(features),
        }
    }

    fn tx_parts(&self, queue: usize, pair: &Pair, doorbell: &Arc<Doorbell>, features: Features) -> TxParts {
        TxParts {
            pool: self.pool.clone(),
            doorbell: doorbell.clone(),
            stats: self.state.counters().tx(queue),
            trouble: self.trouble.clone(),
            window: self.growth.window.clone(),
            header: pair.tx.header(),
            ring: queue.saturating_mul(2).saturating_add(1),
            takes: device_takes(features),
            missing: self.state.missing.get(queue).cloned().unwrap_or_default(),
        }
    }

    fn start_rings(&self, greeted: &mut Greeted, features: Features) -> Result<(), Error> {
        let layout = layout(features);
        for (index, ring) in rings(&self.pairs) {
            let place =
                RingPlace { index, layout, size: ring.size(), addrs: ring.addrs(features), kick: &ring.kick };
            greeted.ring_start(&place)?;
        }
        for (index, _) in rings(&self.pairs) {
            if self.polled(index) {
                greeted.ring_enable(index)?;
            }
        }
        Ok(())
    }

    /// Whether the application has a queue for ring `index`.
    fn polled(&self, index: u8) -> bool {
        let queues = if index.is_multiple_of(2) { self.rx.len() } else { self.tx.len() };
        usize::from(index / 2) < queues
    }

    fn open(&mut self, built: Built) {
        for ((inside, (path, name)), shown) in self.rx.iter_mut().zip(built.rx).zip(&self.state.rx_names) {
            *inside.close() = Some(path);
            inside.open();
            shown.set(name);
        }
        for ((inside, (path, name)), shown) in self.tx.iter_mut().zip(built.tx).zip(&self.state.tx_names) {
            *inside.close() = Some(path);
            inside.open();
            shown.set(name);
        }
    }

    /// Watches a backend until it is lost or the user stops the port; returns how long to wait then.
    fn serve(&mut self, mut live: Live) -> Duration {
        let error = loop {
            if self.stopped() {
                break Error::Stopped;
            }
            if let Some((queue, fault)) = self.trouble.take() {
                break Error::Ring { queue, fault };
            }
            live.doorbells.iter().for_each(|doorbell| doorbell.settle());
            if let Err(error) = live.sharing.update(&mut live.greeted.dialogue, &self.growth) {
                break error;
            }
            if let Err(error) = live.greeted.dialogue.watch(Some(after(TICK))) {
                break error;
            }
        };
        self.shut(live, &error);
        self.log("link down", &error);
        penalty(&error)
    }

    /// Closes every gate; true when nobody is inside any more.
    fn all_outside(&mut self) -> bool {
        // Both are asked, also when the first is busy.
        close_all(&mut self.rx) & close_all(&mut self.tx)
    }

    /// Link down, rings stopped where the backend still listens, everything home.
    fn shut(&mut self, mut live: Live, why: &Error) {
        self.state.set_down();
        self.growth.window.close();
        // A thread that is inside a burst may have lost its core.
        while !self.all_outside() {
            self.waiter.wait(None, Ready::Read, Some(after(BURST_TIME)));
        }
        let rx: Vec<_> = self.rx.iter_mut().filter_map(|inside| inside.close().take()).collect();
        let tx: Vec<_> = self.tx.iter_mut().filter_map(|inside| inside.close().take()).collect();
        self.state.rx_names.iter().chain(&self.state.tx_names).for_each(|name| name.set(NO_PATH));
        if matches!(why, Error::Stopped) {
            live.greeted.dialogue.leave_until(after(FAREWELL));
            // A backend that does not answer is left all the same.
            let _ = farewell(&mut live.greeted, &self.pairs);
        }
        drop(live);
        // Only now: as long as the backend was connected it might have used the buffers.
        drop((rx, tx));
    }
}

/// How long to leave a backend alone.
fn penalty(error: &Error) -> Duration {
    match error {
        Error::Stopped => Duration::ZERO,
        error if error.is_backend_gone() => RETRY,
        _ => PENALTY,
    }
}

fn farewell(greeted: &mut Greeted, pairs: &[Pair]) -> Result<(), Error> {
    for (index, _) in rings(pairs) {
        greeted.ring_stop(index)?;
    }
    greeted.reset()
}

/// Every ring with its number.
fn rings(pairs: &[Pair]) -> impl Iterator<Item = (u8, &RingZone)> {
    (0..=u8::MAX).zip(pairs.iter().flat_map(|pair| [&pair.rx, &pair.tx]))
}

impl Drop for Session {
    fn drop(&mut self) {
        // Also after a panic: the gates must not lead to rings that are gone.
        self.state.set_down();
        self.growth.window.close();
        self.rx.iter_mut().for_each(|inside| drop(inside.close().take()));
        self.tx.iter_mut().for_each(|inside| drop(inside.close().take()));
    }
}
