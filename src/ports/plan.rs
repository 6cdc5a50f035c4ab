//! The common base of all port types.

use std::ffi::OsStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::eal::Eal;
use crate::mempool::Pool;
use crate::pmd::{DevArgs, Driver, Error, Port, PortConfig, ProbeContext, configure};

/// The device arguments, the port's configuration, and how long to wait for a peer.
#[derive(Debug)]
pub(super) struct Plan {
    /// The arguments, or the first error in them.
    pub(super) args: Result<DevArgs, Error>,
    pub(super) config: PortConfig,
    pub(super) wait: Duration,
}

impl Plan {
    /// A device of `driver` with a unique number.
    pub(super) fn new(driver: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        Self::named(&format!("{driver}_{}", NUMBER.fetch_add(1, Ordering::Relaxed)))
    }

    /// The device with that name.
    pub(super) fn named(name: &str) -> Self {
        Self { args: DevArgs::parse(name), config: PortConfig::default(), wait: crate::WAIT }
    }

    /// Parses a device argument that must name a device of `driver`; `queues` is the argument that gives the
    /// number of queues.
    pub(super) fn parse(driver: &str, queues: Option<&'static str>, text: &str) -> Result<Self, Error> {
        let args = DevArgs::parse(text)?;
        let found = crate::drivers().find(text).map(Driver::name)?;
        if found != driver {
            let remedy = format!("name one of {driver}, or parse it into the type of {found}'s ports");
            return Err(args.problem(format!("this is a device of {found}"), remedy));
        }
        let plan = Self { args: Ok(args), config: PortConfig::default(), wait: crate::WAIT };
        let mut plan = plan.check()?;
        if let (Ok(args), Some(key)) = (&plan.args, queues)
            && let Some(count) = args.number(key, 1..=u16::MAX)?
        {
            plan.config = plan.config.rx_queues(count).tx_queues(count);
        }
        Ok(plan)
    }

    pub(super) fn with(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.args = self.args.and_then(|args| match value.as_ref().to_str() {
            Some(text) => Ok(args.with(key, text)),
            None => Err(args.problem(
                format!("the '{key}' {:?} is not valid UTF-8", value.as_ref()),
                "use a name that is",
            )),
        });
        self
    }

    pub(super) fn flag(self, key: &str, on: bool) -> Self {
        self.with(key, if on { "1" } else { "0" })
    }

    pub(super) fn number(self, key: &str, number: impl std::fmt::Display) -> Self {
        self.with(key, number.to_string())
    }

    pub(super) fn queues(mut self, count: u16, key: Option<&str>) -> Self {
        self.config = self.config.rx_queues(count).tx_queues(count);
        match key {
            Some(key) => self.number(key, count),
            None => self,
        }
    }

    pub(super) fn check(self) -> Result<Self, Error> {
        let args = self.args?;
        crate::drivers().check_args(&args)?;
        Ok(Self { args: Ok(args), ..self })
    }

    pub(super) fn open(self, eal: &Eal, pool: &Pool) -> Result<Port, Error> {
        let context = ProbeContext::new(eal.memory().clone(), pool.domain().clone(), self.wait);
        let device = crate::drivers().probe_args(&context, &self.args?)?;
        Ok(configure(device, self.config)?.start(pool)?)
    }
}

/// Defines a port type: its documentation, its feature and driver, the argument that gives the number of
/// queues, and the methods besides those that all types have.
macro_rules! port {
    ($(#[$meta:meta])* $name:ident = $driver:literal, queues: $queues:expr, { $($own:tt)* }) => {
        $(#[$meta])*
        #[cfg(feature = $driver)]
        #[derive(Debug)]
        #[must_use = "nothing is opened before `open`"]
        pub struct $name(pub(super) crate::ports::plan::Plan);

        #[cfg(feature = $driver)]
        impl $name {
            $($own)*

            /// Largest layer-3 packet in bytes; 1500 by default.
            pub fn mtu(mut self, bytes: u16) -> Self {
                self.0.config.mtu = bytes;
                self
            }

            /// Offloads that the port is asked to do; none by default.
            pub fn offloads(mut self, offloads: crate::pmd::Offloads) -> Self {
                self.0.config.offloads = offloads;
                self
            }

            /// How long to wait for a peer that is not connected yet; three seconds by default.
            pub fn wait(mut self, time: std::time::Duration) -> Self {
                self.0.wait = time;
                self
            }

            /// An argument of the driver's that has no method here, by its name in
            #[doc = concat!("`", $driver, "`'s arguments.")]
            pub fn argument(self, key: &str, value: &str) -> Self {
                Self(self.0.with(key, value))
            }

            /// Checks the arguments with the driver and returns `self`; opens nothing.
            ///
            /// # Errors
            /// The driver's error, as `open` would return it.
            pub fn check(self) -> Result<Self, crate::pmd::Error> {
                self.0.check().map(Self)
            }

            /// Opens, configures and starts the port with buffers of `pool`.
            ///
            /// # Errors
            /// The driver rejects an argument, or the device cannot be opened.
            pub fn open(
                self,
                eal: &crate::eal::Eal,
                pool: &crate::mempool::Pool,
            ) -> Result<crate::pmd::Port, crate::pmd::Error> {
                self.0.open(eal, pool)
            }
        }

        /// Parses a device argument and has the driver check it. Settings that the text cannot express (MTU,
        /// offloads, wait for a peer) have their defaults.
        #[cfg(feature = $driver)]
        impl std::str::FromStr for $name {
            type Err = crate::pmd::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                crate::ports::plan::Plan::parse($driver, $queues, text).map(Self)
            }
        }

        /// Writes the device argument; only the driver's name if a value cannot be written, which `check`
        /// reports as an error.
        #[cfg(feature = $driver)]
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match &self.0.args {
                    Ok(args) => args.fmt(f),
                    Err(_) => f.write_str($driver),
                }
            }
        }
    };
}
