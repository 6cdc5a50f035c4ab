//! Work whose duration a peer decides, done on a thread for which only this peer's port waits.
//!
//! A thread that serves several ports never does work whose duration a peer decides. It passes such work to
//! the port's [`Executor`], usually a [`Helper`].

use std::fmt;
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

/// Work that is done once.
pub type Job = Box<dyn FnOnce() + Send>;

/// Executes the work of one port for which no other port may wait.
///
/// ```
/// use linecard_eal::helper::{Executor, Helper};
///
/// let helper = Helper::default();
/// let (done, seen) = std::sync::mpsc::channel();
/// assert!(helper.prepare());
/// assert!(helper.run(Box::new(move || done.send(7).expect("somebody waits"))));
/// assert_eq!(seen.recv(), Ok(7));
/// ```
pub trait Executor: fmt::Debug + Send + Sync {
    /// Starts what [`run`](Self::run) needs, on a thread for which this cost is acceptable. False if the
    /// system refuses.
    fn prepare(&self) -> bool;

    /// Queues `job` behind the jobs given before; never waits. False if there is no thread or too many jobs
    /// wait already; the job is dropped then.
    fn run(&self, job: Job) -> bool;
}

/// The maximum number of waiting jobs. Only a misbehaving peer causes more.
const WAITING: usize = 1024;

/// A thread for the jobs of one port. The first [`prepare`](Executor::prepare) or [`run`](Executor::run)
/// starts it; it ends once this value is dropped and its jobs are done. At most 1024 jobs wait.
#[derive(Debug, Default)]
pub struct Helper(OnceLock<SyncSender<Job>>);

impl Helper {
    fn sender(&self) -> Option<&SyncSender<Job>> {
        if self.0.get().is_none() {
            let (sender, jobs) = sync_channel::<Job>(WAITING);
            let body = move || jobs.into_iter().for_each(|job| job());
            std::thread::Builder::new().name("lc-helper".into()).spawn(body).ok()?;
            // If two threads get here at the same time, one wins; the other's new thread has no jobs and
            // ends.
            let _ = self.0.set(sender);
        }
        self.0.get()
    }
}

impl Executor for Helper {
    fn prepare(&self) -> bool {
        self.sender().is_some()
    }

    fn run(&self, job: Job) -> bool {
        let Some(sender) = self.sender() else { return false };
        match sender.try_send(job) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_full_helper_refuses_at_once_and_another_ports_is_not_concerned() {
        let (stuck, other) = (Helper::default(), Helper::default());
        let (go, gate) = channel::<()>();
        assert!(stuck.run(Box::new(move || assert!(gate.recv().is_err()))));
        let taken = (0..2 * WAITING).filter(|_| stuck.run(Box::new(|| {}))).count();
        assert!((WAITING - 1..=WAITING + 1).contains(&taken), "{taken}");
        let (done, seen) = channel();
        assert!(other.run(Box::new(move || done.send(()).expect("somebody waits"))));
        seen.recv().expect("the other port's job is done");
        drop(go);
    }

    #[test]
    fn jobs_are_done_in_order_even_when_the_helper_goes() {
        let (done, seen) = channel();
        let helper = Helper::default();
        for n in 0..100 {
            let done = done.clone();
            assert!(helper.run(Box::new(move || done.send(n).expect("somebody waits"))));
        }
        drop((helper, done));
        assert!(seen.into_iter().eq(0..100));
    }
}
