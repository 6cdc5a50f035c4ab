//! The driver `net_virtio_user`: from arguments to a device.

use std::sync::Arc;

use linecard_eal::helper::{Executor, Job};
use linecard_eal::notifier::SignalBudget;
use linecard_pmd::{DevArgs, Device, Driver, Error as PmdError, ProbeContext};
use linecard_wire::Closer;
use linecard_wire::ledger::{Charge, Descriptors};

use crate::args::{NAME, Options, SUMMARY, parse};
use crate::backend::Connect;
use crate::device::{VirtioDevice, system};
use crate::limits::Limits;
use crate::thread::short_name;

/// Descriptors of a port besides those of its rings: of its threads, its listening socket, and its rings' memory.
const OWN_DESCRIPTORS: u64 = 3;
/// Eventfds of a queue pair.
const PAIR_DESCRIPTORS: u64 = 4;

/// The driver `net_virtio_user`.
///
/// One value serves any number of ports, each of which has a control thread of its own while it exists. What their
/// backends send is charged to one total, which may be [shared](Self::sharing) with other drivers.
///
/// ```
/// use linecard_pmd::Driver;
/// let driver = linecard_virtio_user::VirtioUser::new();
/// assert_eq!(driver.name(), "net_virtio_user");
/// assert!(driver.summary().contains("path=SOCKET"));
/// ```
#[derive(Debug, Default)]
pub struct VirtioUser {
    /// What backends sent and is not closed.
    descriptors: Descriptors,
    /// Shared with other drivers, and used instead.
    shared: Option<&'static Descriptors>,
    limits: Limits,
}

impl VirtioUser {
    /// A driver without devices.
    #[must_use]
    pub const fn new() -> Self {
        Self { descriptors: Descriptors::new(), shared: None, limits: Limits::new() }
    }

    /// A driver without devices, which takes what peers send from the same total as others.
    ///
    /// ```
    /// use linecard_virtio_user::{Descriptors, VirtioUser};
    /// static DESCRIPTORS: Descriptors = Descriptors::new();
    /// static VIRTIO_USER: VirtioUser = VirtioUser::sharing(&DESCRIPTORS);
    /// ```
    #[must_use]
    pub const fn sharing(descriptors: &'static Descriptors) -> Self {
        Self { descriptors: Descriptors::new(), shared: Some(descriptors), limits: Limits::new() }
    }

    /// The same with other limits for each of its ports.
    #[must_use]
    pub const fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The thread that closes what the backends of the port called `name` send, and the port's own descriptors.
    /// `pair` descriptors are the transport's for each queue pair.
    fn closer(&self, name: &str, pairs: u16, pair: u64) -> Result<(Closer, Option<Charge>), PmdError> {
        let own = OWN_DESCRIPTORS + (PAIR_DESCRIPTORS + pair) * u64::from(pairs);
        let most = self.limits.descriptors;
        let all = self.shared.unwrap_or(&self.descriptors).resource();
        let account = all.account(most.saturating_add(own));
        // As far as something is left for the backend: the port was asked for by who runs this process.
        let charge = account.charge_up_to(own.min(account.room().saturating_sub(most))).ok();
        let closer = Closer::new(&short_name(name), account);
        let closer = closer.map_err(|source| system(name, "starting a closing thread", source))?;
        Ok((closer, charge))
    }
}

impl Driver for VirtioUser {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        SUMMARY
    }

    fn probe(&self, context: &ProbeContext, args: &DevArgs) -> Result<Box<dyn Device>, PmdError> {
        let (options, transport) = parse(args)?;
        let (closer, own) = self.closer(&options.name, options.queues, transport.pair_descriptors())?;
        let connect = transport.open(closer.clone()).map_err(|error| error.of_port(&options.name))?;
        self.device(context, options, connect, (closer, own))
    }
}

impl VirtioUser {
    /// A port over a device that `connect` finds, instead of one at a `path`. Of the arguments those about the device
    /// count: `queues`, `queue_size`, `mac`, `mrg_rxbuf`, `in_order`, `packed_vq`, `event_idx`, `speed`.
    ///
    /// # Errors
    /// Unknown or wrong arguments; what `connect` says; the limits of this process.
    pub fn probe_over(
        &self,
        context: &ProbeContext,
        args: &DevArgs,
        connect: Arc<dyn Connect>,
    ) -> Result<Box<dyn Device>, PmdError> {
        let options = Options::parse(args)?;
        args.finish()?;
        let pairs = options.queues;
        self.probe_options(context, options, pairs, connect)
    }

    /// The same with options that were read already; descriptors are counted for so many `pairs`.
    pub(crate) fn probe_options(
        &self,
        context: &ProbeContext,
        options: Options,
        pairs: u16,
        connect: Arc<dyn Connect>,
    ) -> Result<Box<dyn Device>, PmdError> {
        let closing = self.closer(&options.name, pairs, 0)?;
        self.device(context, options, connect, closing)
    }

    fn device(
        &self,
        context: &ProbeContext,
        options: Options,
        connect: Arc<dyn Connect>,
        (closer, own): (Closer, Option<Charge>),
    ) -> Result<Box<dyn Device>, PmdError> {
        let errands = Errands { closer, most: self.limits.closings as usize };
        let signal_budget = Arc::new(SignalBudget::new(Arc::new(errands)));
        VirtioDevice::open(context, options, connect, signal_budget, own)
    }
}

/// Signals that take long are sent by the closing thread: it may wait for the backend, and for nobody else.
#[derive(Debug)]
struct Errands {
    closer: Closer,
    /// Jobs that it may have before it refuses.
    most: usize,
}

impl Executor for Errands {
    fn prepare(&self) -> bool {
        true
    }

    fn run(&self, job: Job) -> bool {
        let room = self.closer.waiting() < self.most;
        if room {
            self.closer.run(job);
        }
        room
    }
}
