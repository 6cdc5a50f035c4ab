//! A worker's receive queues, and how it sleeps until one of them has something.
//!
//! A worker with a thousand quiet ports and one that is not pays for the one. While it is busy it looks at active queues in each
//! round, and at a few of the others in turn; a queue becomes active by a frame. While it sleeps, a queue that is armed stays
//! armed until something comes from it. See [`linecard_pmd::wake`] for what arming promises.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use linecard_eal::wake::Wake;
use linecard_mempool::Burst;
use linecard_pmd::RxQueue;
use linecard_pmd::direct::Frame;
use linecard_pmd::stats::Counter;
use linecard_pmd::wake::Armed;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// Rounds in a row without a frame, after which a queue is not looked at in each round any more.
const QUIET: u8 = 64;
/// Places that are looked at in each round besides active queues. With a thousand quiet ones, and rounds of 3 µs, a frame of one
/// of them waits for at most 400 µs.
const IN_TURN: usize = 8;
/// The worker's own descriptor, among the tokens of lanes.
const MAILBOX: u64 = u64::MAX;
/// Wake-ups that are taken from the kernel at once.
const BATCH: usize = 64;
/// Times in a row that a queue may say that it has something and have nothing; then it is looked at after naps only, until
/// something comes from it, or ...
const FALSE_ALARMS: u8 = 4;
/// ... this much time has passed.
const DISTRUST: Duration = Duration::from_secs(1);
/// A worker with a queue that cannot wake it looks at it this often, at first, ...
const NAP: Duration = Duration::from_micros(50);
/// ... after ten milliseconds without a frame, ...
const LONGER_NAP: Duration = Duration::from_millis(1);
/// ... and after a second.
const LONGEST_NAP: Duration = Duration::from_millis(5);
/// The longest sleep when all queues can wake the worker: what a peer costs itself that does not signal.
const BOUND: Duration = Duration::from_millis(100);

/// A receive queue that a worker is given, or gives back.
pub(crate) struct Queue {
    /// Among the port's.
    pub(crate) number: u16,
    pub(crate) rx: Box<dyn RxQueue>,
    /// Frames that came from it; whoever polls it counts.
    pub(crate) packets: Arc<Counter>,
}

/// What becomes of received frames.
pub(crate) trait Forward {
    /// Frames of a port while they lie in their sender's buffers; which are dealt with, as a [`Sink`](linecard_pmd::direct::Sink)
    /// answers.
    fn direct(&mut self, port: u16, frames: &[Frame<'_>]) -> u64;
    /// Packets of a port, to be emptied; `left`, when they are what [`direct`](Self::direct) left.
    fn packets(&mut self, port: u16, packets: &mut Burst, left: bool);
}

/// One receive queue and the port it is of.
struct Lane {
    port: u16,
    number: u16,
    rx: Box<dyn RxQueue>,
    packets: Arc<Counter>,
    /// Names the lane among the events of the kernel.
    token: u64,
    /// It is looked at in each round.
    active: bool,
    /// Rounds in a row without a frame, of an active one.
    quiet: u8,
    /// Its descriptor is waited for.
    watched: bool,
    /// It will signal.
    armed: bool,
    /// Alarms in a row without a frame.
    alarms: u8,
}

impl Lane {
    /// Receives once; how many frames came.
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

    /// A frame came: it is not armed any more, and it told the truth.
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
    /// Places of those that are active; room for all.
    active: Vec<usize>,
    /// The next place whose turn it is.
    turn: usize,
    /// The next round looks at all: the worker slept.
    sweep: bool,
    next: u64,
    /// `None` where the system has none: then the worker naps.
    epoll: Option<OwnedFd>,
    wake_watched: bool,
    /// When false alarms were last forgiven.
    forgiven: Instant,
    /// [`BOUND`], but in tests.
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

    /// The queues of a port, or the one of that number, which are waited for no more.
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

    /// Whether a queue of `port` is among them.
    pub(crate) fn have(&self, port: u16) -> bool {
        self.lanes.iter().any(|lane| lane.port == port)
    }

    /// Asks for no wake-ups, before nobody polls for a while.
    pub(crate) fn disarm_all(&mut self) {
        self.lanes.iter_mut().for_each(Lane::disarm);
    }

    /// Receives once from every active queue, and from a few others; packets go through `burst`. How many frames came.
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

    /// Sleeps until a queue or `wake` has something, after no frame came for `quiet`. `busy` says that somebody left work for
    /// the worker; whoever does so wakes it by `wake` afterwards.
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
        let mailbox = wake.arm();
        if !self.wake_watched
            && let Some(event) = wake.event()
        {
            self.wake_watched = epoll::add(epoll, event, EventData::new_u64(MAILBOX), EventFlags::IN).is_ok();
        }
        let able = mailbox && self.wake_watched;
        if !busy()
            && let Some(able) = arm(&mut self.lanes, epoll, able)
        {
            let bound = if able { self.bound } else { nap(quiet) };
            let mut events: Vec<Event> = Vec::with_capacity(BATCH);
            // Only ever interrupted.
            let _ = epoll::wait(epoll, spare_capacity(&mut events), Some(&timespec(bound)));
            for event in events {
                woken(&mut self.lanes, event.data.u64());
            }
        }
        wake.disarm();
    }
}

/// Arms all lanes; `None` when one has something already, else whether each can wake the worker.
fn arm(lanes: &mut [Lane], epoll: &OwnedFd, mut able: bool) -> Option<bool> {
    for lane in lanes.iter_mut().filter(|lane| !lane.armed) {
        if lane.alarms >= FALSE_ALARMS {
            forget(Some(epoll), lane);
            able = false;
            continue;
        }
        match lane.rx.arm() {
            Armed::Ready => {
                lane.alarms += 1;
                lane.rx.disarm();
                return None;
            }
            Armed::Asleep if watch(epoll, lane) => lane.armed = true,
            Armed::Asleep | Armed::Unable => {
                lane.rx.disarm();
                // Its descriptor may be readable, or broken, all the time.
                forget(Some(epoll), lane);
                able = false;
            }
        }
    }
    Some(able)
}

/// A lane's descriptor became ready.
fn woken(lanes: &mut [Lane], token: u64) {
    if let Ok(at) = lanes.binary_search_by_key(&token, |lane| lane.token)
        && let Some(lane) = lanes.get_mut(at)
    {
        lane.alarms = lane.alarms.saturating_add(1);
        lane.disarm();
    }
}

/// Waits for a lane's descriptor; `false` when that cannot be done.
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
        // It was added; the kernel forgets a descriptor that is closed by itself.
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
