//! A worker's receive queues, and how it sleeps until one of them has something.
//!
//! A queue that is armed stays armed until something comes from it, so that a worker with a thousand quiet ports and one that
//! is not pays for the one. See [`linecard_pmd::wake`] for what arming promises.

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
    /// Its descriptor is waited for.
    watched: bool,
    /// It will signal.
    armed: bool,
    /// Alarms in a row without a frame.
    alarms: u8,
}

impl Lane {
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
                watched: false,
                armed: false,
                alarms: 0,
            });
            self.next += 1;
        }
    }

    /// The queues of a port, or the one of that number, which are waited for no more.
    pub(crate) fn remove(&mut self, port: u16, number: Option<u16>) -> Vec<Queue> {
        let wanted = |lane: &Lane| lane.port == port && number.is_none_or(|number| lane.number == number);
        let (mut gone, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.lanes).into_iter().partition(wanted);
        self.lanes = kept;
        for lane in &mut gone {
            forget(self.epoll.as_ref(), lane);
            lane.disarm();
        }
        gone.into_iter().map(|Lane { number, rx, packets, .. }| Queue { number, rx, packets }).collect()
    }

    /// Asks for no wake-ups, before nobody polls for a while.
    pub(crate) fn disarm_all(&mut self) {
        self.lanes.iter_mut().for_each(Lane::disarm);
    }

    /// Receives from every queue once; packets go through `burst`. How many frames came.
    #[inline(always)]
    pub(crate) fn poll(&mut self, burst: &mut Burst, forward: &mut impl Forward) -> usize {
        let mut count = 0;
        for lane in &mut self.lanes {
            let (port, mut shown) = (lane.port, false);
            let came = lane.rx.rx_direct(burst, &mut |frames| {
                shown = true;
                forward.direct(port, frames)
            });
            if came > 0 {
                count += came;
                lane.packets.add(came as u64);
                if lane.armed || lane.alarms > 0 {
                    lane.came();
                }
                if !burst.is_empty() {
                    forward.packets(port, burst, shown);
                }
            }
        }
        count
    }

    /// Sleeps until a queue or `wake` has something, after no frame came for `quiet`. `busy` says that somebody left work for
    /// the worker; whoever does so wakes it by `wake` afterwards.
    pub(crate) fn sleep(&mut self, quiet: Duration, wake: &Wake, busy: impl Fn() -> bool) {
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
