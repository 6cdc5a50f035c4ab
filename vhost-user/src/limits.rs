//! Limits on the resources that one frontend may make its port use, and all frontends together the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use linecard_eal::helper::{Executor, Job};
use linecard_wire::Closer;
use linecard_wire::ledger::{Account, Charge, Descriptors, Resource};

use crate::memory::MAX_REGIONS;
use crate::memory::sigbus::ENTRIES;

/// The least value assumed for the machine's memory.
const LEAST_MEMORY: u64 = 4 << 30;
/// Descriptors of a port apart from those of its rings: connections, and messages with a table of regions.
const DESCRIPTORS: u64 = 128;
/// Descriptors that a port uses before a frontend connects: its socket, an epoll instance, an eventfd, and a
/// duplicate of the socket when the port ends.
const OWN_DESCRIPTORS: u64 = 4;
/// Mappings of the process that frontends cannot use.
const OUR_MAPPINGS: u64 = 8192;
/// Mappings that one region uses: itself and a guard on either side.
const MAPPINGS: u64 = 3;
/// The least number of interruptions per second of a port's polling threads, however many ports share the
/// limit, so that a port can be set up.
const LEAST_INTERRUPTIONS: u32 = 50;
/// Interruptions of polling threads that may follow each other without delay, by all ports of a process.
const INTERRUPTION_BURST: u32 = 4096;
/// The least such number of one port, and for each of its queue pairs, however many ports share: two setups of all
/// rings.
const LEAST_BURST: (u32, u32) = (64, 32);
/// The least time of a port's control thread in microseconds per second, however many ports share the limit: a
/// thousandth of a core, in which a frontend without a budget left still connects within seconds.
const LEAST_CONTROL_MICROS: u32 = 1000;
/// The least number of log lines per second about a port, however many ports share the limit.
const LEAST_LINES: u32 = 2;
/// Half of the 128 TiB address space of a process on x86-64.
const ADDRESSES: u64 = 64 << 40;

/// Limits on the resources that one frontend may make its port use. A request for more memory, regions or
/// descriptors is refused with a message that names the limit. Work that is limited per second is delayed,
/// and the log names the limit once.
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
    /// Bytes of memory that the frontend may share at a time. At most twice as much is mapped, because memory
    /// shared earlier counts until it is unmapped. The default is the memory of this machine, at least 4 GiB.
    pub memory: u64,
    /// Descriptors that are open on behalf of the frontend: its connection, those of its rings and of its
    /// messages, and those that are still being closed. The default, `None`, means 128 and 6 for each queue
    /// pair of the port, and two for each region if the port may be [handed
    /// over](crate::BackendConfig::hand_over).
    pub descriptors: Option<u64>,
    /// Memory regions that the frontend may share at a time, as reported by `GET_MAX_MEM_SLOTS`. At most
    /// twice as many are mapped. The default is 509, which is also the maximum.
    pub regions: u16,
    /// Jobs that may wait for the port's closing thread: descriptors to close, memory to unmap, and
    /// notifications that take long. At this limit, no frontend is accepted and such notifications are not
    /// sent (`guest_notifications_error`). The default is 1024.
    pub closings: u32,
    /// How often per second the frontend's requests may interrupt the threads that poll the port
    /// (`membarrier`), with a burst after a pause: 4096 divided by the number of ports, at least 64 and 32 for each
    /// queue pair. The default is 4000; 0 counts as 1.
    pub interruptions: u32,
    /// Log lines per second about the frontend. The first line of the next second reports how many were left
    /// out. The default is 50.
    pub log_lines: u32,
    /// Thousandths of a core that the port's control thread may use in the long run, with a burst of one
    /// second after a pause. The default is 500; 0 counts as one microsecond per second.
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
    // SAFETY: `sysconf` takes an integer.
    let value = |name| u64::try_from(unsafe { libc::sysconf(name) }).unwrap_or(0);
    value(libc::_SC_PHYS_PAGES).saturating_mul(value(libc::_SC_PAGESIZE))
}

impl Limits {
    /// The same limits, with room for a descriptor of each region, old and new, if the number of descriptors
    /// has its default.
    pub(crate) fn keeping_regions(self, queue_pairs: u16) -> Self {
        let room = default_descriptors(queue_pairs) + 2 * u64::from(self.regions.min(MAX_REGIONS));
        Self { descriptors: self.descriptors.or(Some(room)), ..self }
    }
}

fn default_descriptors(queue_pairs: u16) -> u64 {
    DESCRIPTORS + 6 * u64::from(queue_pairs)
}

/// Limits on the resources that the frontends of all ports of a [`Control`](crate::Control) may make the
/// process use.
///
/// Each port is entitled to a share: the total divided by the number of ports plus one. A port may use more
/// as long as the unused shares of the other ports stay available; see [`linecard_wire::ledger`]. Rates are
/// divided evenly.
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
    /// Open descriptors. The default is the limit of the process (`RLIMIT_NOFILE`) minus 128. Ports that
    /// [share](crate::Control::sharing) descriptors with other drivers use that shared total instead.
    pub descriptors: u64,
    /// Bytes that are mapped or still to be unmapped. The default is half the address space of the process
    /// (`RLIMIT_AS`).
    pub mapped: u64,
    /// Memory regions. The default is the smaller of the 16 384 that can be watched for missing pages and a
    /// third of the mappings that the kernel allows (`vm.max_map_count`).
    pub regions: u64,
    /// How often per second requests may interrupt the polling threads (`membarrier`). A port that needs it has at
    /// least 50.
    pub interruptions: u32,
    /// Log lines per second. A port that needs them has at least 2.
    pub log_lines: u32,
    /// Thousandths of a core that the control threads may use in the long run. A port that needs it has at least
    /// one.
    pub control_time: u32,
}

impl ProcessLimits {
    /// The limits that the kernel currently sets for this process.
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

/// The resources that the ports of a [`Control`](crate::Control) share.
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

    /// Divides rates as if there were so many ports.
    #[cfg(test)]
    pub(crate) fn pretend(&self, ports: u32) {
        self.ports.store(ports, Relaxed);
    }

    /// The number of ports that share the limits, at least 1 for the caller.
    fn ports(&self) -> u32 {
        self.ports.load(Relaxed).max(1)
    }
}

/// One port's accounts, and the thread that releases resources whose release the frontend can delay.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    process: Arc<Process>,
    limits: Limits,
    pub(crate) mapped: Account,
    pub(crate) regions: Account,
    pub(crate) closer: Closer,
    queue_pairs: u16,
    _counted: Arc<Counted>,
    /// The descriptors of the port itself. If these are not available, none are available for a frontend.
    _own: Option<Arc<Charge>>,
}

/// The closing thread sends signals that take long: it may wait for this frontend, and for no other.
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

/// Counts a port in [`Process`] until everything that belongs to it is dropped.
#[derive(Debug)]
struct Counted(Arc<Process>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.ports.fetch_sub(1, Relaxed);
    }
}

impl Ledger {
    /// The ledger of a port that shares its limits with no other port.
    #[cfg(test)]
    pub(crate) fn alone() -> Self {
        let process = Process::new(ProcessLimits::of_this_process());
        Self::new(&process, "alone", 1, Limits::default()).expect("a thread")
    }

    /// Opens the accounts of the port named `name` with `queue_pairs`.
    ///
    /// # Errors
    /// The error of starting the thread.
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
            // Memory shared earlier counts until it is unmapped.
            mapped: process.mapped.account(limits.memory.saturating_mul(2)),
            regions: process.regions.account(2 * u64::from(limits.regions.min(MAX_REGIONS))),
            closer,
            queue_pairs,
            _counted: Arc::new(Counted(Arc::clone(process))),
            _own: own,
        })
    }

    /// Whether the closing thread may receive more jobs.
    pub(crate) fn has_room(&self) -> bool {
        self.closer.waiting() < self.limits.closings as usize
    }

    /// How often per second the port's polling threads may currently be interrupted.
    pub(crate) fn interruptions(&self) -> u32 {
        let share = self.process.limits.interruptions / self.process.ports();
        share.max(LEAST_INTERRUPTIONS).min(self.limits.interruptions)
    }

    /// How often they may be interrupted without delay after a pause.
    pub(crate) fn interruption_burst(&self) -> u32 {
        let (least, of_each) = LEAST_BURST;
        let least = least + of_each * u32::from(self.queue_pairs);
        (INTERRUPTION_BURST / self.process.ports()).max(least)
    }

    /// Log lines per second that may currently be written about the port.
    pub(crate) fn log_lines(&self) -> u32 {
        let share = self.process.limits.log_lines / self.process.ports();
        share.max(LEAST_LINES).min(self.limits.log_lines)
    }

    /// Microseconds per second that the port's control thread may currently use.
    pub(crate) fn control_micros(&self) -> u32 {
        let share = self.process.limits.control_time.saturating_mul(1000) / self.process.ports();
        share.max(LEAST_CONTROL_MICROS).min(self.limits.control_time.saturating_mul(1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limit that applies is the port's own or its share of the process's, whichever is less.
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

    /// However many ports there are, each makes progress.
    #[test]
    fn rates_of_many_ports_are_not_nothing() {
        let process = Process::new(ProcessLimits::of_this_process());
        let ledger = Ledger::new(&process, "one of many", 1, Limits::default()).expect("a thread");
        // Without as many threads.
        for (ports, want) in [
            (1, (500_000, 4096)),
            (2, (250_000, 2048)),
            (33, (15_151, 124)),
            (1000, (1000, 96)),
            (4096, (1000, 96)),
        ] {
            process.pretend(ports);
            let has = (ledger.control_micros(), ledger.interruption_burst());
            assert_eq!(has, want, "microseconds and interruptions of one of {ports} ports");
        }
        process.pretend(1);
        let large = Ledger::new(&process, "large", 128, Limits::default()).expect("a thread");
        process.pretend(1000);
        assert_eq!(large.interruption_burst(), 4160, "enough to set up 256 rings");
        process.pretend(2);
    }

    /// A port that takes all it can leaves the others their shares of each resource of the process.
    #[test]
    fn ports_share_each_resource_of_the_process() {
        let limits = ProcessLimits {
            descriptors: 300,
            mapped: 3 << 30,
            regions: 30,
            ..ProcessLimits::of_this_process()
        };
        let process = Process::new(limits);
        let all = Limits { memory: 1 << 40, descriptors: Some(1 << 20), ..Limits::default() };
        let [greedy, modest] =
            ["greedy", "modest"].map(|name| Ledger::new(&process, name, 1, all).expect("a thread"));
        let take = |account: &Account| account.charge_up_to(u64::MAX).expect("a share");
        let taken = [&greedy.mapped, &greedy.regions, greedy.closer.descriptors()].map(take);
        // A third for each, and one for a port to come; a port has taken its own descriptors before.
        let amounts = [&taken[0], &taken[1], &taken[2]].map(Charge::amount);
        assert_eq!(amounts, [1 << 30, 10, 100 - OWN_DESCRIPTORS]);
        let left = [&modest.mapped, &modest.regions, modest.closer.descriptors()].map(Account::room);
        assert_eq!(left, [1 << 30, 10, 100 - OWN_DESCRIPTORS]);
        for (account, what) in
            [(&greedy.mapped, "bytes of mapped memory"), (&greedy.regions, "memory regions")]
        {
            let refusal = account.charge(1).expect_err("over its share");
            assert_eq!((refusal.what, refusal.shared), (what, true));
        }
    }

    /// The default is what the machine has, and no number that never limits.
    #[test]
    fn the_default_of_memory_is_the_machines() {
        let info = std::fs::read_to_string("/proc/meminfo").expect("proc");
        let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:")).expect("a line");
        let bytes =
            total.trim().strip_suffix(" kB").and_then(|kib| kib.parse::<u64>().ok()).expect("KiB") << 10;
        assert_eq!(Limits::default().memory, bytes.max(LEAST_MEMORY));
    }
}
