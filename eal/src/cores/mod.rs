//! Logical cores: which there are, what runs where, and the threads that poll on them.

mod grammar;
mod map;
mod worker;

use std::fmt;

pub use map::{Lcore, LcoreMap};
pub use worker::{Stop, Workers};

use crate::error::{Error, Result};
use crate::sys;

/// Core numbers and lcore numbers are below this.
pub const MAX_CORES: u32 = 1024;

/// A processor of the machine, as the kernel numbers them.
///
/// ```
/// assert_eq!(linecard_eal::CoreId(3).to_string(), "3");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub u32);

/// A logical core: one polling thread, as the user numbers them. Runs on the core of the same number unless mapped.
///
/// ```
/// assert_eq!(linecard_eal::LcoreId(3).to_string(), "3");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LcoreId(pub u32);

impl fmt::Display for CoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LcoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The cores the calling thread may run on, in order; new threads inherit them. Smaller than the machine under a cpuset,
/// `taskset`, or after [`pin_current`].
///
/// ```
/// assert!(!linecard_eal::cores::allowed().is_empty());
/// ```
#[must_use]
pub fn allowed() -> Vec<CoreId> {
    sys::affinity().unwrap_or_default().into_iter().map(CoreId).collect()
}

/// Binds the calling thread to one core, and makes sure that the kernel did so.
///
/// # Errors
/// [`Error::Core`] when the core does not exist or is not allowed.
///
/// ```
/// let core = linecard_eal::cores::allowed()[0];
/// std::thread::spawn(move || linecard_eal::cores::pin_current(core).unwrap()).join().unwrap();
/// assert!(linecard_eal::cores::pin_current(linecard_eal::CoreId(5000)).is_err());
/// ```
pub fn pin_current(core: CoreId) -> Result<()> {
    let before = allowed();
    // core_affinity panics for numbers that its CPU set cannot hold.
    let known = core.0 < MAX_CORES;
    let bound = known && core_affinity::set_for_current(core_affinity::CoreId { id: core.0 as usize });
    if bound && allowed() == [core] { Ok(()) } else { Err(not_allowed(core, &before)) }
}

/// Binds the calling thread to a set of cores; the one way in which threads of this process are bound.
///
/// One core, the ordinary case, is left to `core_affinity`. That crate has no call for several cores, which EAL's grammar can ask for
/// (`0@(2-3)`); those take `sched_setaffinity`.
pub(crate) fn pin_to(cores: &[CoreId]) -> Result<()> {
    if let [core] = cores {
        return pin_current(*core);
    }
    let before = allowed();
    if let Some(core) = cores.iter().find(|core| !before.contains(core)) {
        return Err(not_allowed(*core, &before));
    }
    let numbers: Vec<u32> = cores.iter().map(|core| core.0).collect();
    sys::set_affinity(&numbers)
        .map_err(|e| Error::system(format!("bind to cores {}", grammar::ranges(&numbers)), e))
}

fn not_allowed(core: CoreId, allowed: &[CoreId]) -> Error {
    let allowed: Vec<u32> = allowed.iter().map(|core| core.0).collect();
    Error::Core { asked: core, allowed: grammar::ranges(&allowed) }
}

#[cfg(test)]
mod tests;
