//! Logical cores: their numbers, the cores they run on, and the threads that poll on them.

mod grammar;
mod map;
mod worker;

use std::fmt;

pub use map::{Lcore, LcoreMap};
pub use worker::{Stop, Workers};

use crate::error::{Error, Result};
use crate::sys;

/// The upper limit, exclusive, of core numbers and lcore numbers.
pub const MAX_CORES: u32 = 1024;

/// A processor of the machine, numbered as in the kernel.
///
/// ```
/// assert_eq!(linecard_eal::CoreId(3).to_string(), "3");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub u32);

/// A logical core: one polling thread, numbered by the user. Runs on the core with the same number unless
/// mapped.
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

/// The cores that the calling thread may run on, in order; new threads inherit them. Fewer than the machine
/// has in a cpuset, with `taskset`, or after [`pin_current`].
///
/// ```
/// assert!(!linecard_eal::cores::allowed().is_empty());
/// ```
#[must_use]
pub fn allowed() -> Vec<CoreId> {
    sys::affinity().unwrap_or_default().into_iter().map(CoreId).collect()
}

/// Binds the calling thread to one core and verifies that the kernel did so.
///
/// # Errors
/// [`Error::Core`] if the core does not exist or is not allowed.
///
/// ```
/// let core = linecard_eal::cores::allowed()[0];
/// std::thread::spawn(move || linecard_eal::cores::pin_current(core).unwrap()).join().unwrap();
/// assert!(linecard_eal::cores::pin_current(linecard_eal::CoreId(5000)).is_err());
/// ```
pub fn pin_current(core: CoreId) -> Result<()> {
    let before = allowed();
    // `core_affinity` panics for numbers that its CPU set cannot hold.
    let known = core.0 < MAX_CORES;
    let bound = known && core_affinity::set_for_current(core_affinity::CoreId { id: core.0 as usize });
    if bound && allowed() == [core] { Ok(()) } else { Err(not_allowed(core, &before)) }
}

/// Binds the calling thread to a set of cores. All threads of this process are bound through this function.
///
/// A single core, the usual case, is left to `core_affinity`. That crate has no call for several cores, which
/// EAL's syntax allows (`0@(2-3)`); those use `sched_setaffinity`.
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
