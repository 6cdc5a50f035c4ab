//! A worker's receive queues, and its sleep until one of them has frames.
//!
//! The cost of polling depends on the busy queues, not on the number of quiet ones. A busy worker polls the
//! active queues in each round, and a few of the others in turn; a queue becomes active when a frame arrives.
//! While the worker sleeps, an armed queue stays armed until a frame arrives. [`linecard_pmd::wake`]
//! describes what arming guarantees.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use linecard_eal::wake::{ArmBudget, Wake, fence};
use linecard_mempool::Burst;
use linecard_pmd::RxQueue;
use linecard_pmd::direct::Frame;
use linecard_pmd::stats::Counter;
use linecard_pmd::wake::Armed;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// The number of consecutive rounds without a frame after which a queue is no longer active.
const QUIET: u8 = 64;
/// The number of inactive queues polled in each round. With a thousand of them, and rounds of 3 µs, a frame
/// in one of them waits at most 400 µs.
const IN_TURN: usize = 8;
/// The epoll token of the worker's own event descriptor; other tokens belong to lanes.
const MAILBOX: u64 = u64::MAX;
/// The number of events read from epoll at once.
const BATCH: usize = 64;
/// The number of consecutive false wake-ups of a queue, after which it is only polled after naps, until a
/// frame arrives from it, or ...
const FALSE_ALARMS: u8 = 4;
/// ... this much time has passed.
const DISTRUST: Duration = Duration::from_secs(1);
/// The sleep of a worker that has armed its queues as often as an [`ArmBudget`] allows, and of one with a queue
/// that cannot wake it, at first, ...
const NAP: Duration = Duration::from_micros(50);
/// ... after ten milliseconds without a frame, ...
const LONGER_NAP: Duration = Duration::from_millis(1);
/// ... and after a second.
const LONGEST_NAP: Duration = Duration::from_millis(5);
/// The longest sleep if all queues can wake the worker: the delay of frames from a peer that does not signal.
const BOUND: Duration = Duration::from_millis(100);

/// A receive queue that a worker is given or returns.
pub(crate) struct Queue {
    /// Its number within the port.
    pub(crate) number: u16,
    pub(crate) rx: Box<dyn RxQueue>,
    /// The number of frames received; counted by the worker that polls it.
    pub(crate) packets: Arc<Counter>,
}

/// The handler of received frames.
pub(crate) trait Forward {
    /// Handles frames of a port while they are in their sender's buffers; returns which are done, like a
    /// [`Sink`](linecard_pmd::direct::Sink).
    fn direct(&mut self, port: u16, frames: &[Frame<'_>]) -> u64;
    /// Handles packets of a port, and empties `packets`. `left` says that they are those that
    /// [`direct`](Self::direct) left.
    fn packets(&mut self, port: u16, packets: &mut Burst, left: bool);
}

/// One receive queue and its port.
struct Lane {
    port: u16,
    number: u16,
    rx: Box<dyn RxQueue>,
    packets: Arc<Counter>,
    /// Identifies the lane in epoll events.
    token: u64,
    /// It is polled in each round.
    active: bool,
    /// Consecutive rounds without a frame while active.
    quiet: u8,
    /// Its descriptor is in the epoll set.
    watched: bool,
    /// Its device has been asked to signal.
    armed: bool,
    /// Consecutive wake-ups without a frame.
    alarms: u8,
}

impl Lane {
    /// Receives once; returns the number of frames.
    #[inline(always)]
    fn receive(&mut self, burst: &mut Burst, forward: &mut impl Forward) -> usize {
        let (port, mut shown) = (self.port, false);
        let came = self.rx.rx_direct(burst, &mut |frames| {
            shown = true;
            forward.direct(port, frames)
        });
        if came > 0 {
            self.packets.add(came as u64);
            if self.armed || self.alarms > 0 {
                self.came();
            }
            if !burst.is_empty() {
                forward.packets(port, burst, shown);
            }
        }
        came
    }

    /// Called when frames arrived: the queue is no longer armed, and its wake-up was justified.
    #[cold]
    fn came(&mut self) {
        self.alarms = 0;
        self.disarm();
    }

    fn disarm(&mut self) {
        if std::mem::take(&mut self.armed) {
            self.rx.disarm();
        }
    }
}

/// All of a worker's receive queues.
pub(crate) struct Lanes {
    /// In the order of their tokens.
    lanes: Vec<Lane>,
    /// Indices of the active lanes; with capacity for all.
    active: Vec<usize>,
    /// The index of the next lane to poll in turn.
    turn: usize,
    /// The next round polls all lanes, because the worker slept.
    sweep: bool,
    next: u64,
    /// `None` if the system provides none: then the worker naps.
    epoll: Option<OwnedFd>,
    wake_watched: bool,
    budget: ArmBudget,
    /// When counts of false wake-ups were last reset.
    forgiven: Instant,
    /// [`BOUND`], except in tests.
    bound: Duration,
}

impl Lanes {
    pub(crate) fn new() -> Self {
        let epoll = epoll::create(CreateFlags::CLOEXEC).inspect_err(|error| {
            tracing::warn!("a worker cannot sleep until frames come, and naps: {error}")
        });
        Self {
            lanes: Vec::new(),
            active: Vec::new(),
            turn: 0,
            sweep: false,
            next: 0,
            epoll: epoll.ok(),
            wake_watched: false,
            budget: ArmBudget::new(),
            forgiven: Instant::now(),
            bound: BOUND,
        }
    }

    pub(crate) fn add(&mut self, port: u16, queues: Vec<Queue>) {
        for Queue { number, rx, packets } in queues {
            let token = self.next;
            self.lanes.push(Lane {
                port,
                number,
                rx,
                packets,
                token,
                active: false,
                quiet: 0,
                watched: false,
                armed: false,
                alarms: 0,
            });
            self.next += 1;
        }
        self.active.reserve(self.lanes.len());
    }

    /// Removes the queues of a port, or the one of that number, and no longer waits for them.
    pub(crate) fn remove(&mut self, port: u16, number: Option<u16>) -> Vec<Queue> {
        let wanted = |lane: &Lane| lane.port == port && number.is_none_or(|number| lane.number == number);
        let (mut gone, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.lanes).into_iter().partition(wanted);
        self.lanes = kept;
        let places = self.lanes.iter().enumerate();
        self.active = places.filter(|(_, lane)| lane.active).map(|(place, _)| place).collect();
        self.active.reserve(self.lanes.len());
        self.turn = 0;
        for lane in &mut gone {
            forget(self.epoll.as_ref(), lane);
            lane.disarm();
        }
        gone.into_iter().map(|Lane { number, rx, packets, .. }| Queue { number, rx, packets }).collect()
    }

    /// Returns whether a queue of `port` is here.
    pub(crate) fn have(&self, port: u16) -> bool {
        self.lanes.iter().any(|lane| lane.port == port)
    }

    /// Disarms all queues, before the worker stops polling for a while.
    pub(crate) fn disarm_all(&mut self) {
        self.lanes.iter_mut().for_each(Lane::disarm);
    }

    /// Receives once from every active queue and from a few others; packets go through `burst`. Returns the
    /// number of frames.
    #[inline(always)]
    pub(crate) fn poll(&mut self, burst: &mut Burst, forward: &mut impl Forward) -> usize {
        let (mut count, mut at) = (0, 0);
        while let Some(place) = self.active.get(at) {
            let Some(lane) = self.lanes.get_mut(*place) else { break };
            let came = lane.receive(burst, forward);
            count += came;
            lane.quiet = if came > 0 { 0 } else { lane.quiet + 1 };
            if lane.quiet == QUIET {
                (lane.active, lane.quiet) = (false, 0);
                self.active.swap_remove(at);
            } else {
                at += 1;
            }
        }
        let places = if std::mem::take(&mut self.sweep) { self.lanes.len() } else { IN_TURN };
        for _ in 0..places.min(self.lanes.len()) {
            let place = self.turn;
            self.turn = if place + 1 < self.lanes.len() { place + 1 } else { 0 };
            let Some(lane) = self.lanes.get_mut(place).filter(|lane| !lane.active) else { continue };
            let came = lane.receive(burst, forward);
            if came > 0 {
                count += came;
                lane.active = true;
                self.active.push(place);
            }
        }
        count
    }

    /// Sleeps until a queue or `wake` is signalled; `quiet` is the time since the last frame. `busy` says
    /// that another thread has left work for the worker; that thread signals `wake` afterwards.
    pub(crate) fn sleep(&mut self, quiet: Duration, wake: &Wake, busy: impl Fn() -> bool) {
        self.sweep = true;
        let Some(epoll) = &self.epoll else {
            std::thread::sleep(nap(quiet));
            return;
        };
        if self.forgiven.elapsed() >= DISTRUST {
            self.forgiven = Instant::now();
            self.lanes.iter_mut().for_each(|lane| lane.alarms = 0);
        }
        if !self.budget.take(Instant::now()) {
            std::thread::sleep(NAP);
            return;
        }
        let mailbox = wake.request();
        if !self.wake_watched
            && let Some(event) = wake.event()
        {
            self.wake_watched = epoll::add(epoll, event, EventData::new_u64(MAILBOX), EventFlags::IN).is_ok();
        }
        let able = mailbox && self.wake_watched;
        begin_arm(&mut self.lanes);
        // For the mailbox and all queues; before `busy` and the queues are checked.
        fence();
        if busy() {
            self.lanes.iter_mut().filter(|lane| !lane.armed).for_each(|lane| lane.rx.disarm());
        } else if let Some(able) = arm(&mut self.lanes, epoll, able) {
            let bound = if able { self.bound } else { nap(quiet) };
            let mut events: Vec<Event> = Vec::with_capacity(BATCH);
            // An error can only be an interruption.
            let _ = epoll::wait(epoll, spare_capacity(&mut events), Some(&timespec(bound)));
            for event in events {
                woken(&mut self.lanes, event.data.u64());
            }
        }
        wake.disarm();
    }
}

/// Requests the wake-ups of all lanes; a fence and [`arm`] follow.
fn begin_arm(lanes: &mut [Lane]) {
    for lane in lanes.iter_mut().filter(|lane| !lane.armed && lane.alarms < FALSE_ALARMS) {
        // The mailbox needs a fence in any case.
        let _ = lane.rx.begin_arm();
    }
}

/// Arms all lanes; returns `None` if one has frames already, otherwise whether each can wake the worker.
fn arm(lanes: &mut [Lane], epoll: &OwnedFd, mut able: bool) -> Option<bool> {
    for lane in lanes.iter_mut().filter(|lane| !lane.armed) {
        if lane.alarms >= FALSE_ALARMS {
            forget(Some(epoll), lane);
            able = false;
            continue;
        }
        match lane.rx.finish_arm() {
            Armed::Ready => {
                lane.alarms += 1;
                // The wake-ups of those behind it are requested, too.
                lanes.iter_mut().filter(|lane| !lane.armed).for_each(|lane| lane.rx.disarm());
                return None;
            }
            Armed::Asleep if watch(epoll, lane) => lane.armed = true,
            Armed::Asleep | Armed::Unable => {
                lane.rx.disarm();
                // Its descriptor may be readable or broken permanently.
                forget(Some(epoll), lane);
                able = false;
            }
        }
    }
    Some(able)
}

/// Called when a lane's descriptor became ready.
fn woken(lanes: &mut [Lane], token: u64) {
    if let Ok(at) = lanes.binary_search_by_key(&token, |lane| lane.token)
        && let Some(lane) = lanes.get_mut(at)
    {
        lane.alarms = lane.alarms.saturating_add(1);
        lane.disarm();
    }
}

/// Adds a lane's descriptor to the epoll set; returns `false` if that is not possible.
fn watch(epoll: &OwnedFd, lane: &mut Lane) -> bool {
    if !lane.watched
        && let Some(event) = lane.rx.event()
    {
        lane.watched = epoll::add(epoll, event, EventData::new_u64(lane.token), EventFlags::IN).is_ok();
    }
    lane.watched
}

fn forget(epoll: Option<&OwnedFd>, lane: &mut Lane) {
    if std::mem::take(&mut lane.watched)
        && let (Some(epoll), Some(event)) = (epoll, lane.rx.event())
    {
        // The descriptor was added. The kernel itself removes descriptors that are closed.
        let _ = epoll::delete(epoll.as_fd(), event);
    }
}

fn nap(quiet: Duration) -> Duration {
    match quiet.as_millis() {
        0..10 => NAP,
        10..1000 => LONGER_NAP,
        _ => LONGEST_NAP,
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests;
