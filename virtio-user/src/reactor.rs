//! One thread for the control side of any number of ports, none of which can delay another.
//!
//! A port's life (connect, handshake, watch, reconnect) is an `async` function: the compiler makes the state machine
//! and the text reads in order. The only thing a task can wait for is [`Task::wait`]: a descriptor, a deadline, or a
//! [`Task::notify`] from another thread, whichever comes first. The thread polls the descriptors of all tasks at
//! once and sleeps when none is due.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use linecard_eal::eventfd::EventFd;

use crate::sys::{self, Ready};

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a task waits for; rewritten each time it goes to sleep.
#[derive(Clone, Copy, Debug)]
struct Interest {
    fd: Option<RawFd>,
    ready: Ready,
    deadline: Option<Instant>,
}

impl Interest {
    const NONE: Self = Self { fd: None, ready: Ready::Read, deadline: None };
}

/// A task's bell: what it waits for, and the way to wake it from elsewhere.
#[derive(Debug)]
pub(crate) struct Task {
    interest: Mutex<Interest>,
    notified: AtomicBool,
    wake: Arc<EventFd>,
}

impl Task {
    fn new(wake: Arc<EventFd>) -> Arc<Self> {
        Arc::new(Self { interest: Mutex::new(Interest::NONE), notified: AtomicBool::new(true), wake })
    }

    /// Ends the task's present [`wait`](Self::wait), or its next one. Any thread, never blocks.
    pub(crate) fn notify(&self) {
        if !self.notified.swap(true, Ordering::AcqRel) {
            self.wake.signal();
        }
    }

    /// Sleeps until `fd` is ready, `deadline` is over, or somebody notifies; may return early.
    pub(crate) async fn wait(&self, fd: Option<BorrowedFd<'_>>, ready: Ready, deadline: Option<Instant>) {
        let mut asleep = false;
        std::future::poll_fn(|_| {
            let mut interest = self.interest.lock().unwrap_or_else(PoisonError::into_inner);
            if asleep {
                *interest = Interest::NONE;
                return Poll::Ready(());
            }
            asleep = true;
            *interest = Interest { fd: fd.map(|fd| fd.as_raw_fd()), ready, deadline };
            Poll::Pending
        })
        .await;
    }

    fn interest(&self) -> Interest {
        *self.interest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The control thread; ends when the last handle is dropped, and its tasks with it.
#[derive(Debug)]
pub(crate) struct Reactor {
    inbox: Option<mpsc::Sender<(Arc<Task>, Work)>>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Reactor {
    pub(crate) fn start() -> std::io::Result<Self> {
        let wake = Arc::new(EventFd::new()?);
        let (inbox, arrivals) = mpsc::channel();
        let bell = wake.clone();
        let thread = std::thread::Builder::new()
            .name("lc-virtio-user".into())
            .stack_size(256 * 1024)
            .spawn(move || Turns { bell, arrivals, tasks: Vec::new(), open: true }.run())?;
        Ok(Self { inbox: Some(inbox), wake, thread: Some(thread) })
    }

    /// Starts a task; `life` gets its own bell.
    pub(crate) fn spawn<F>(&self, life: impl FnOnce(Arc<Task>) -> F) -> Arc<Task>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = Task::new(self.wake.clone());
        let work: Work = Box::pin(life(task.clone()));
        if let Some(inbox) = &self.inbox {
            // The receiver lives as long as the thread, which ends only after `inbox` is dropped.
            let _ = inbox.send((task.clone(), work));
        }
        self.wake.signal();
        task
    }

    /// Runs `job` on the control thread and waits for its result; `None` when the thread lost it.
    pub(crate) fn run<T, F>(&self, job: impl FnOnce(Arc<Task>) -> F) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (done, result) = mpsc::channel();
        self.spawn(|task| {
            let job = job(task);
            async move {
                let _ = done.send(job.await);
            }
        });
        result.recv().ok()
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        self.inbox = None;
        self.wake.signal();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // Its result is nothing; a panic of its own was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// The thread's own state.
struct Turns {
    bell: Arc<EventFd>,
    arrivals: mpsc::Receiver<(Arc<Task>, Work)>,
    tasks: Vec<(Arc<Task>, Work)>,
    open: bool,
}

impl Turns {
    fn run(mut self) {
        let mut set = Vec::new();
        while self.open {
            self.sleep(&mut set);
            self.bell.drain();
            self.arrive();
            self.turn(&set);
        }
    }

    fn arrive(&mut self) {
        loop {
            match self.arrivals.try_recv() {
                Ok(arrival) => self.tasks.push(arrival),
                Err(mpsc::TryRecvError::Empty) => return,
                Err(mpsc::TryRecvError::Disconnected) => {
                    self.open = false;
                    return;
                }
            }
        }
    }

    /// Fills `set` (the bell first, then one line per task) and waits until something is due.
    fn sleep(&self, set: &mut Vec<libc::pollfd>) {
        set.clear();
        set.push(sys::pollfd(Some(self.bell.as_fd().as_raw_fd()), Ready::Read));
        let mut earliest: Option<Instant> = None;
        for (task, _) in &self.tasks {
            let interest = task.interest();
            set.push(sys::pollfd(interest.fd, interest.ready));
            earliest = [earliest, interest.deadline].into_iter().flatten().min();
        }
        let wait = earliest.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        sys::poll(set, wait);
    }

    /// Polls every task that is due; finished ones leave.
    fn turn(&mut self, set: &[libc::pollfd]) {
        let now = Instant::now();
        let mut lines = set.iter().skip(1);
        self.tasks.retain_mut(|(task, work)| {
            let ready = lines.next().is_some_and(|line| line.revents != 0);
            let late = task.interest().deadline.is_some_and(|deadline| deadline <= now);
            let notified = task.notified.swap(false, Ordering::AcqRel);
            !(ready || late || notified) || step(work)
        });
    }
}

/// One step of a task; false when it is over. A panic ends the task, not the thread and the other ports.
fn step(work: &mut Work) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    match std::panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut context))) {
        Ok(poll) => poll.is_pending(),
        Err(_) => {
            tracing::error!("the control side of a port failed; the port stays down until it is restarted");
            false
        }
    }
}

/// A moment `wait` from now.
pub(crate) fn after(wait: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(wait).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_sleeping_task_does_not_delay_another() {
        let reactor = Reactor::start().expect("a thread");
        let began = Instant::now();
        let _silent = reactor.spawn(|task| async move {
            loop {
                task.wait(None, Ready::Read, None).await;
            }
        });
        let answer = reactor.run(|_| async { 7 });
        assert_eq!(answer, Some(7));
        assert!(began.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn wakes_for_a_descriptor_a_deadline_and_a_notice() {
        let reactor = Reactor::start().expect("a thread");
        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        ours.write_all(b"x").expect("room for a byte");
        reactor
            .run(|task| async move { task.wait(Some(theirs.as_fd()), Ready::Read, None).await })
            .expect("a result");
        let began = Instant::now();
        let deadline = after(Duration::from_millis(20));
        reactor.run(move |task| async move {
            while Instant::now() < deadline {
                task.wait(None, Ready::Read, Some(deadline)).await;
            }
        });
        assert!(began.elapsed() >= Duration::from_millis(20));

        let seen = Arc::new(AtomicBool::new(false));
        let (flag, (done, over)) = (seen.clone(), mpsc::channel());
        let task = reactor.spawn(|task| async move {
            while !flag.load(Ordering::Acquire) {
                task.wait(None, Ready::Read, None).await;
            }
            done.send(()).expect("the test waits");
        });
        seen.store(true, Ordering::Release);
        task.notify();
        over.recv_timeout(Duration::from_secs(5)).expect("the notice woke it");
    }

    #[test]
    fn a_panic_ends_only_its_task() {
        let reactor = Reactor::start().expect("a thread");
        assert_eq!(
            reactor.run(|_| async { if std::hint::black_box(true) { panic!("on purpose") } else { 1 } }),
            None
        );
        assert_eq!(reactor.run(|_| async { 2 }), Some(2));
    }
}
