//! What a frontend may make its port take, and what all frontends together may make the process take.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use linecard_eal::helper::{Executor, Job};
use linecard_wire::Closer;
use linecard_wire::ledger::{Account, Charge, Descriptors, Resource};

use crate::memory::MAX_REGIONS;
use crate::memory::sigbus::ENTRIES;

/// Least that counts as the machine's memory.
const LEAST_MEMORY: u64 = 4 << 30;
/// Descriptors of a port besides those of its rings: connections, and messages with a table of regions.
const DESCRIPTORS: u64 = 128;
/// Descriptors that a port has before there is a frontend: its socket, an epoll instance, an eventfd, and a copy of the socket
/// at its end.
const OWN_DESCRIPTORS: u64 = 4;
/// Mappings of a process that frontends leave to the rest of it.
const OUR_MAPPINGS: u64 = 8192;
/// Mappings that one region takes: its own, and a guard on either side.
const MAPPINGS: u64 = 3;
/// Interruptions a second of those who poll a port, however many ports share, so that a port can be set up.
const LEAST_INTERRUPTIONS: u32 = 50;
/// Lines a second in the log about a port, however many ports share.
const LEAST_LINES: u32 = 2;
/// Half of the 128 TiB that a process has on x86-64.
const ADDRESSES: u64 = 64 << 40;

/// What one frontend may make its port take. A request for more memory, regions or descriptors is refused with a sentence that
/// names the limit; of what is counted by the second, more waits for its time, and the log says once which limit it is.
///
/// ```
/// use linecard_vhost_user::Limits;
/// let mut limits = Limits::default();
/// assert!(limits.memory >= 4 << 30);
/// limits.memory = 1 << 30;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of memory that it may share at a time. Twice as much is mapped at most: what was shared before counts
    /// until it is unmapped. By default the memory of this machine, and at least 4 GiB.
    pub memory: u64,
    /// Descriptors that are open for it: its connection, its rings', those in its messages, and those that take their
    /// time to close. By default 128 and 6 for each queue pair of the port, which is what `None` stands for, and two for each
    /// region where the port may be [handed over](crate::BackendConfig::hand_over).
    pub descriptors: Option<u64>,
    /// Memory regions that it may share at a time, as `GET_MAX_MEM_SLOTS` tells it; twice as many are mapped at most. By
    /// default 509, and never more.
    pub regions: u16,
    /// What may wait for the port's closing thread: descriptors to be closed, memory to be unmapped, notifications that take
    /// long. With as much, no frontend is accepted, and such notifications are not sent (`guest_notifications_error`).
    /// By default 1024.
    pub closings: u32,
    /// How often in a second its requests may interrupt the threads that poll the port (`membarrier`); 4096 times at once
    /// after a pause. By default 4000, and at least 1.
    pub interruptions: u32,
    /// Lines in the log a second that are about it. The next second's first line says how many were left out. By default 50.
    pub log_lines: u32,
    /// Thousandths of a core that the port's control thread may use in the long run; a second of it at once after a
    /// pause. By default 500.
    pub control_time: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: machine_memory().max(LEAST_MEMORY),
            descriptors: None,
            regions: MAX_REGIONS,
            closings: 1024,
            interruptions: 4000,
            log_lines: 50,
            control_time: 500,
        }
    }
}

fn machine_memory() -> u64 {
    // SAFETY: takes an integer.
    let value = |name| u64::try_from(unsafe { libc::sysconf(name) }).unwrap_or(0);
    value(libc::_SC_PHYS_PAGES).saturating_mul(value(libc::_SC_PAGESIZE))
}

impl Limits {
    /// The same, with room for a descriptor of each region, old ones and new, where the descriptors were not limited by number.
    pub(crate) fn keeping_regions(self, queue_pairs: u16) -> Self {
        let room = default_descriptors(queue_pairs) + 2 * u64::from(self.regions.min(MAX_REGIONS));
        Self { descriptors: self.descriptors.or(Some(room)), ..self }
    }
}

fn default_descriptors(queue_pairs: u16) -> u64 {
    DESCRIPTORS + 6 * u64::from(queue_pairs)
}

/// What the frontends of all ports of a [`Control`](crate::Control) may make the process take together.
///
/// Each port has a claim to its share: the whole over the number of ports and one. It may take more while what the others'
/// shares lack stays free; see [`linecard_wire::ledger`]. Rates are divided evenly.
///
/// ```
/// use linecard_vhost_user::{Control, ProcessLimits};
/// let mut limits = ProcessLimits::of_this_process();
/// limits.descriptors = 500;
/// let control = Control::with_limits(limits);
/// # drop(control);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessLimits {
    /// Open descriptors: the limit of the process (`RLIMIT_NOFILE`) but 128. Ports that
    /// [share](crate::Control::sharing) descriptors with other drivers take them from that total instead.
    pub descriptors: u64,
    /// Bytes mapped, and to be unmapped: half the address space of the process (`RLIMIT_AS`).
    pub mapped: u64,
    /// Memory regions: the 16 384 that can be watched for pages that vanish, and a third of the mappings that
    /// the kernel allows (`vm.max_map_count`).
    pub regions: u64,
    /// How often in a second requests may interrupt the polling threads (`membarrier`).
    pub interruptions: u32,
    /// Lines in the log a second.
    pub log_lines: u32,
    /// Thousandths of a core that the control threads may use in the long run.
    pub control_time: u32,
}

impl ProcessLimits {
    /// What this process may have by the kernel's limits of now.
    #[must_use]
    pub fn of_this_process() -> Self {
        let maps = std::fs::read_to_string("/proc/sys/vm/max_map_count");
        let address_space =
            rustix::process::getrlimit(rustix::process::Resource::As).current.unwrap_or(u64::MAX);
        let maps = maps.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(65_530_u64);
        Self {
            descriptors: Descriptors::allowed(),
            mapped: (address_space / 2).min(ADDRESSES),
            regions: (maps.saturating_sub(OUR_MAPPINGS) / MAPPINGS).min(ENTRIES as u64),
            interruptions: 4000,
            log_lines: 200,
            control_time: 500,
        }
    }
}

/// What the ports of a [`Control`](crate::Control) share.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) limits: ProcessLimits,
    descriptors: Resource,
    mapped: Resource,
    regions: Resource,
    ports: AtomicU32,
}

impl Process {
    pub(crate) fn new(limits: ProcessLimits) -> Arc<Self> {
        Self::sharing(limits, &Descriptors::of(limits.descriptors))
    }

    pub(crate) fn sharing(limits: ProcessLimits, descriptors: &Descriptors) -> Arc<Self> {
        Arc::new(Self {
            limits,
            descriptors: descriptors.resource().clone(),
            mapped: Resource::new("bytes of mapped memory", limits.mapped),
            regions: Resource::new("memory regions", limits.regions),
            ports: AtomicU32::new(0),
        })
    }

    /// How many ports share: at least the one that asks.
    fn ports(&self) -> u32 {
        self.ports.load(Relaxed).max(1)
    }
}

/// One port's accounts, and the thread that gives back what waits for its frontend.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    process: Arc<Process>,
    limits: Limits,
    pub(crate) mapped: Account,
    pub(crate) regions: Account,
    pub(crate) closer: Closer,
    _counted: Arc<Counted>,
    /// Of the port itself. With none left for that, there is none left for a frontend.
    _own: Option<Arc<Charge>>,
}

/// Signals that take long are sent by the closing thread: it may wait for the frontend, and for nobody else.
impl Executor for Ledger {
    fn prepare(&self) -> bool {
        true
    }

    fn run(&self, job: Job) -> bool {
        let room = self.has_room();
        if room {
            self.closer.run(job);
        }
        room
    }
}

/// A port counts as long as something of it is there.
#[derive(Debug)]
struct Counted(Arc<Process>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.ports.fetch_sub(1, Relaxed);
    }
}

impl Ledger {
    /// Of a port that shares with nobody.
    #[cfg(test)]
    pub(crate) fn alone() -> Self {
        let process = Process::new(ProcessLimits::of_this_process());
        Self::new(&process, "alone", 1, Limits::default()).expect("a thread")
    }

    /// Accounts of the port called `name`, with `queue_pairs`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn new(
        process: &Arc<Process>,
        name: &str,
        queue_pairs: u16,
        limits: Limits,
    ) -> io::Result<Self> {
        let descriptors = limits.descriptors.unwrap_or(default_descriptors(queue_pairs));
        let account = process.descriptors.account(descriptors.saturating_add(OWN_DESCRIPTORS));
        let own = account.charge_up_to(OWN_DESCRIPTORS).ok().map(Arc::new);
        let closer = Closer::new(name, account)?;
        process.ports.fetch_add(1, Relaxed);
        Ok(Self {
            process: Arc::clone(process),
            limits,
            // What was shared before is there until it is unmapped.
            mapped: process.mapped.account(limits.memory.saturating_mul(2)),
            regions: process.regions.account(2 * u64::from(limits.regions.min(MAX_REGIONS))),
            closer,
            _counted: Arc::new(Counted(Arc::clone(process))),
            _own: own,
        })
    }

    /// Whether the closing thread may get more to do.
    pub(crate) fn has_room(&self) -> bool {
        self.closer.waiting() < self.limits.closings as usize
    }

    /// How often in a second the port's polling threads may be interrupted at present.
    pub(crate) fn interruptions(&self) -> u32 {
        let share = self.process.limits.interruptions / self.process.ports();
        share.max(LEAST_INTERRUPTIONS).min(self.limits.interruptions)
    }

    /// Lines a second that may be logged about the port at present.
    pub(crate) fn log_lines(&self) -> u32 {
        let share = self.process.limits.log_lines / self.process.ports();
        share.max(LEAST_LINES).min(self.limits.log_lines)
    }

    /// Microseconds a second that the port's control thread may use at present.
    pub(crate) fn control_micros(&self) -> u32 {
        let share = self.process.limits.control_time / self.process.ports();
        share.min(self.limits.control_time).saturating_mul(1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A port's own limit holds where its share of the process's is more, and the share where that is less.
    #[test]
    fn rates_are_a_ports_own_and_its_share() {
        let process = Process::new(ProcessLimits::of_this_process());
        let limits = Limits { interruptions: 300, log_lines: 30, control_time: 100, ..Limits::default() };
        let rates = |ledger: &Ledger| (ledger.interruptions(), ledger.log_lines(), ledger.control_micros());
        let open = || Ledger::new(&process, "rates", 1, limits).expect("a thread");
        let first = open();
        assert_eq!(rates(&first), (300, 30, 100_000));
        let others: Vec<_> = (0..19).map(|_| open()).collect();
        assert_eq!(rates(&first), (200, 10, 25_000), "a twentieth");
        drop(others);
        assert_eq!(rates(&first), (300, 30, 100_000));
        let none = Limits { interruptions: 0, log_lines: 0, control_time: 0, ..Limits::default() };
        let silent = Ledger::new(&process, "silent", 1, none).expect("a thread");
        assert_eq!(
            rates(&silent),
            (0, 0, 0),
            "less than what a port gets otherwise, where that is asked for"
        );
    }
}
