//! The control thread of one port.
//!
//! Every port has its own thread, from the moment it is opened. A backend can make its port's thread wait
//! (for an answer, a descriptor that closes slowly, a lock of a file that both have open), but it delays no
//! other port. The sequence of a port (connect, handshake, watch, reconnect) is therefore straight-line code.
//! Deliberate waits go through [`Waiter::wait`]: for a descriptor, a deadline, or a [`Waiter::notify`] of
//! another thread.
//!
//! The application's threads wait for a control thread for a bounded time only. A thread that is not done by
//! then is stuck on its backend. This is logged, and the thread is left running with all that it holds, until
//! its backend releases it.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use linecard_eal::eventfd::EventFd;

use crate::backend::Ready;
use crate::error::Error;
use crate::sys;

/// The additional time that a thread has beyond its job's own limits before it is abandoned.
pub(crate) const GRACE: Duration = Duration::from_millis(5000);
/// The stack size of a control thread; unused pages cost nothing.
const STACK: usize = 256 * 1024;

/// The waiting primitive of a port's control thread, which the stop of the port interrupts.
///
/// A [`Connect`](crate::backend::Connect) gets one; the [module](crate::backend) has an example.
#[derive(Debug)]
pub struct Waiter {
    wake: EventFd,
    stop: AtomicBool,
}

impl Waiter {
    fn new() -> std::io::Result<Self> {
        Ok(Self { wake: EventFd::new()?, stop: AtomicBool::new(false) })
    }

    /// Ends the thread's present [`wait`](Self::wait), or its next one. Any thread, never blocks.
    pub(crate) fn notify(&self) {
        self.wake.signal();
    }

    /// Asks the present job to end soon.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.notify();
    }

    /// Returns whether the port is stopping.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Sleeps until `fd` is ready, `deadline` has passed, or the thread is notified. May return early.
    pub fn wait(&self, fd: Option<BorrowedFd<'_>>, ready: Ready, deadline: Option<Instant>) {
        let fd = fd.map(|fd| fd.as_raw_fd());
        let mut set = [sys::pollfd(Some(self.wake.as_fd().as_raw_fd()), Ready::Read), sys::pollfd(fd, ready)];
        sys::poll(&mut set, deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())));
        if set[0].revents != 0 {
            self.wake.drain();
        }
    }
}

impl Waiter {
    /// Sleeps until `until` has passed, or until the port is stopping.
    pub fn rest(&self, until: Instant) {
        while !self.stopped() && Instant::now() < until {
            self.wait(None, Ready::Read, Some(until));
        }
    }
}

type Job = Box<dyn FnOnce(&Arc<Waiter>) + Send>;

/// A port's thread, which ends when this is dropped. The function that finds it stuck reports that.
pub(crate) struct ControlThread {
    port: String,
    waiter: Arc<Waiter>,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// Carries no message: it disconnects when the thread has finished its last job.
    over: Pending<()>,
    stuck: Cell<bool>,
}

/// The future result of a job.
pub(crate) struct Pending<T>(mpsc::Receiver<T>);

impl ControlThread {
    /// Starts the thread of the port named `port`.
    pub(crate) fn start(port: &str) -> std::io::Result<Self> {
        let waiter = Arc::new(Waiter::new()?);
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (over, ended) = mpsc::channel();
        let own = waiter.clone();
        let body = move || {
            inbox.into_iter().for_each(|job| run(job, &own));
            drop(over);
        };
        let thread = std::thread::Builder::new()
            .name(format!("lc-{}", short_name(port)))
            .stack_size(STACK)
            .spawn(body)?;
        Ok(Self {
            port: port.to_owned(),
            waiter,
            jobs: Some(jobs),
            thread: Some(thread),
            over: Pending(ended),
            stuck: Cell::new(false),
        })
    }

    pub(crate) fn waiter(&self) -> &Arc<Waiter> {
        &self.waiter
    }

    /// Runs `job` on the thread, after the earlier jobs.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Arc<Waiter>) -> T + Send + 'static,
    ) -> Pending<T> {
        let (done, result) = mpsc::channel();
        if !self.is_stuck() {
            // The earlier stop has taken effect.
            self.waiter.stop.store(false, Ordering::Release);
        }
        if let Some(jobs) = &self.jobs {
            // The thread takes jobs while this value exists. The receiver of the result may be gone.
            let _ = jobs.send(Box::new(move |waiter| drop(done.send(job(waiter)))));
        }
        Pending(result)
    }

    /// Waits for the result of `pending`; if it does not come in time, the thread is stuck.
    ///
    /// # Errors
    /// [`Error::Stuck`]; [`Error::NoThread`] when the job failed.
    pub(crate) fn await_within<T>(&self, limit: Duration, pending: &Pending<T>) -> Result<T, Error> {
        pending.0.recv_timeout(limit).map_err(|error| match error {
            mpsc::RecvTimeoutError::Disconnected => Error::NoThread,
            mpsc::RecvTimeoutError::Timeout => {
                self.stuck.set(true);
                Error::Stuck { waited: limit }
            }
        })
    }

    /// Returns whether an earlier wait for the thread timed out.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck.get()
    }
}

impl<T> Pending<T> {
    /// Wraps the receiving end of a caller's channel.
    pub(crate) const fn of(result: mpsc::Receiver<T>) -> Self {
        Self(result)
    }
}

impl Drop for ControlThread {
    fn drop(&mut self) {
        self.jobs = None;
        self.waiter.stop();
        if self.is_stuck() {
            return;
        }
        match self.await_within(GRACE, &self.over) {
            Err(error @ Error::Stuck { .. }) => {
                tracing::error!("{}: {error}; its thread is left behind with what it has", self.port);
            }
            // The thread has nothing left to do; a panic has already been reported.
            _ => drop(self.thread.take().map(JoinHandle::join)),
        }
    }
}

/// Runs one job. A panic ends the job, not the thread.
fn run(job: Job, waiter: &Arc<Waiter>) {
    if std::panic::catch_unwind(AssertUnwindSafe(|| job(waiter))).is_err() {
        tracing::error!("the control side of a port failed; the port stays down until it is restarted");
    }
}

/// Returns the end of a port's name, which has its number: the kernel keeps 15 bytes of a thread's name.
pub(crate) fn short_name(port: &str) -> String {
    const MOST: usize = 12;
    let plain: Vec<char> = port.chars().filter(char::is_ascii_graphic).collect();
    plain.get(plain.len().saturating_sub(MOST)..).unwrap_or_default().iter().collect()
}

/// Returns the instant `wait` from now.
pub(crate) fn after(wait: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(wait).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn thread() -> ControlThread {
        ControlThread::start("net_virtio_user0").expect("a thread")
    }

    #[test]
    fn wakes_for_a_descriptor_a_deadline_and_a_notice() {
        let thread = thread();
        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        ours.write_all(b"x").expect("room for a byte");
        let woken = thread.spawn(move |waiter| waiter.wait(Some(theirs.as_fd()), Ready::Read, None));
        thread.await_within(PATIENCE, &woken).expect("woken");
        let began = Instant::now();
        let deadline = after(Duration::from_millis(20));
        let late = thread.spawn(move |waiter| {
            while Instant::now() < deadline {
                waiter.wait(None, Ready::Read, Some(deadline));
            }
        });
        thread.await_within(PATIENCE, &late).expect("woken");
        assert!(began.elapsed() >= Duration::from_millis(20));
        let noticed = thread.spawn(|waiter| {
            while !waiter.stopped() {
                waiter.wait(None, Ready::Read, None);
            }
        });
        thread.waiter().stop();
        thread.await_within(PATIENCE, &noticed).expect("woken");
    }

    #[test]
    fn a_panic_ends_only_its_job() {
        let thread = thread();
        let panics = thread.spawn(|_| if std::hint::black_box(true) { panic!("on purpose") } else { 1 });
        assert!(matches!(thread.await_within(PATIENCE, &panics), Err(Error::NoThread)));
        let two = thread.spawn(|_| 2);
        assert_eq!(thread.await_within(PATIENCE, &two).expect("a result"), 2);
    }

    /// Joining is bounded: a stuck control thread is abandoned.
    #[test]
    fn a_stuck_thread_is_left_behind() {
        let (let_go, held) = mpsc::channel::<()>();
        let (left, ended) = mpsc::channel::<()>();
        let thread = thread();
        let stuck = thread.spawn(move |_| {
            let _ = held.recv();
            drop(left);
        });
        let soon = Duration::from_millis(1);
        assert!(matches!(thread.await_within(soon, &stuck), Err(Error::Stuck { waited }) if waited == soon));
        // The drop returns, although the job cannot end before this test allows it.
        drop(thread);
        drop(let_go);
        assert_eq!(ended.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
    }

    #[test]
    fn names_keep_the_number() {
        assert_eq!(short_name("net_virtio_user0"), "virtio_user0");
        assert_eq!(short_name("net_virtio_user117"), "rtio_user117");
        assert_eq!(short_name("vu\u{0}é"), "vu");
    }
}
