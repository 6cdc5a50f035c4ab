//! Polling threads, one per lcore.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use crossbeam::utils::CachePadded;

use super::{Lcore, LcoreId, pin_to};
use crate::error::{Error, Result};

/// A flag that ends the loops of workers. Clones share it; it has its own cache line.
///
/// ```
/// let stop = linecard_eal::Stop::default();
/// assert!(stop.running());
/// stop.clone().stop();
/// assert!(!stop.running());
/// ```
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<CachePadded<AtomicBool>>);

impl Stop {
    /// Whether to continue. A plain load, cheap enough to be called once per burst.
    #[inline]
    #[must_use]
    pub fn running(&self) -> bool {
        // Relaxed: nothing is published through the flag; joining a worker makes its writes visible.
        !self.0.load(Ordering::Relaxed)
    }

    /// Makes the loops end soon.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Threads bound to lcores, named `lc-worker-N`, each of which runs one job and returns its result. Dropping
/// this value stops and joins them.
///
/// ```
/// use linecard_eal::{LcoreMap, Stop, Workers, cores};
///
/// let map = LcoreMap::of_cores(&cores::allowed()).unwrap();
/// let mut workers = Workers::new();
/// workers.launch(map.main(), |stop: &Stop| {
///     let mut bursts = 0_u64;
///     while stop.running() { bursts += 1; std::thread::yield_now() }
///     bursts
/// }).unwrap();
/// workers.stop();
/// for (lcore, bursts) in workers.join() {
///     println!("lcore {lcore}: {} bursts", bursts.unwrap());
/// }
/// ```
#[derive(Debug)]
pub struct Workers<T = ()> {
    threads: Vec<(LcoreId, JoinHandle<Option<T>>)>,
    stop: Stop,
}

impl<T: Send + 'static> Workers<T> {
    /// Creates an empty set of threads.
    #[must_use]
    pub fn new() -> Self {
        Self { threads: Vec::new(), stop: Stop::default() }
    }

    /// Runs `job` in a new thread on the cores of `lcore`. The job polls [`Stop::running`] and returns when
    /// it is false.
    ///
    /// # Errors
    /// [`Error::LcoreBusy`] if an earlier job on this lcore was not joined yet, [`Error::Core`] if the
    /// lcore's cores are not allowed, [`Error::System`] if no thread can be created. The job has not run
    /// then.
    pub fn launch(&mut self, lcore: &Lcore, job: impl FnOnce(&Stop) -> T + Send + 'static) -> Result<()> {
        if self.threads.iter().any(|(id, _)| *id == lcore.id) {
            return Err(Error::LcoreBusy { lcore: lcore.id });
        }
        let (started, start) = mpsc::sync_channel(1);
        let (stop, cores) = (self.stop.clone(), lcore.cores.clone());
        let body = move || {
            let pinned = pin_to(&cores);
            let pin_failed = pinned.is_err();
            // `launch` waits for it, so sending cannot fail.
            let _ = started.send(pinned);
            if pin_failed { None } else { Some(job(&stop)) }
        };
        let name = format!("lc-worker-{}", lcore.id);
        let failed = |e| Error::system(format!("start a thread for lcore {}", lcore.id), e);
        let thread = thread::Builder::new().name(name).spawn(body).map_err(failed)?;
        start.recv().unwrap_or(Ok(()))?;
        self.threads.push((lcore.id, thread));
        Ok(())
    }

    /// Asks all jobs to return.
    pub fn stop(&self) {
        self.stop.stop();
    }

    /// The flag that the jobs poll, for a signal handler or another thread. [`join`](Self::join) ends its use: jobs that are
    /// launched afterwards have a new one.
    #[must_use]
    pub fn stop_flag(&self) -> Stop {
        self.stop.clone()
    }

    /// The lcores with a job that was not joined yet, in the order of launching.
    pub fn lcores(&self) -> impl Iterator<Item = LcoreId> {
        self.threads.iter().map(|(id, _)| *id)
    }

    /// Whether no job is running.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.threads.iter().all(|(_, thread)| thread.is_finished())
    }

    /// Waits for all jobs and returns their results in the order of launching. A panic is returned as
    /// [`Error::Panicked`] and affects no other job. New jobs can be launched afterwards.
    pub fn join(&mut self) -> Vec<(LcoreId, Result<T>)> {
        let results =
            self.threads.drain(..).map(|(lcore, thread)| (lcore, result(lcore, thread.join()))).collect();
        self.stop = Stop::default();
        results
    }
}

impl<T: Send + 'static> Default for Workers<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for Workers<T> {
    fn drop(&mut self) {
        self.stop.stop();
        for (_, thread) in self.threads.drain(..) {
            // The panic message was printed when the panic happened, and there is no caller to return it to.
            let _ = thread.join();
        }
    }
}

fn result<T>(lcore: LcoreId, joined: thread::Result<Option<T>>) -> Result<T> {
    let message = match joined {
        Ok(Some(value)) => return Ok(value),
        Ok(None) => "it did not start".into(),
        Err(panic) => message(panic.as_ref()),
    };
    Err(Error::Panicked { lcore, message })
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").into()
}
