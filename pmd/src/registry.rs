//! The drivers a program knows, and how a device argument finds its own.

use crate::args::DevArgs;
use crate::error::Error;
use crate::port::{Device, Driver, ProbeContext};

/// A list of drivers; the program makes it, there is no hidden one.
///
/// ```
/// use linecard_pmd::{Registry, null};
/// let registry = Registry::new(&[&null::NullDriver]);
/// assert_eq!(registry.find("net_null7")?.name(), "net_null");
/// let problem = registry.find("net_nul0").err().expect("no such driver").to_string();
/// assert_eq!(problem, "no driver for device 'net_nul0'; known drivers: net_null");
/// # Ok::<(), linecard_pmd::Error>(())
/// ```
#[derive(Clone)]
pub struct Registry {
    drivers: Vec<&'static dyn Driver>,
}

impl Registry {
    /// The drivers in the order they are to be listed.
    #[must_use]
    pub fn new(drivers: &[&'static dyn Driver]) -> Self {
        Self { drivers: drivers.to_vec() }
    }

    /// All of them.
    pub fn drivers(&self) -> impl Iterator<Item = &'static dyn Driver> {
        self.drivers.iter().copied()
    }

    /// The driver that a device argument names: the longest driver name that the device's name
    /// starts with, number or suffix after it (`net_null0`, `net_null_b`); DPDK's older names too.
    ///
    /// # Errors
    /// There is none, or `device` does not start with a name.
    pub fn find(&self, device: &str) -> Result<&'static dyn Driver, Error> {
        self.find_for(&DevArgs::parse(device)?)
    }

    fn find_for(&self, args: &DevArgs) -> Result<&'static dyn Driver, Error> {
        let matches = |driver: &&dyn Driver| {
            args.driver()
                .strip_prefix(driver.name())
                .is_some_and(|suffix| !suffix.starts_with(|c: char| c.is_ascii_alphanumeric()))
        };
        let best = self.drivers().filter(matches).max_by_key(|driver| driver.name().len());
        best.ok_or_else(|| Error::UnknownDriver {
            device: args.name().to_owned(),
            known: self.drivers().map(Driver::name).collect::<Vec<_>>().join(", "),
        })
    }

    /// Finds the driver of `device` and opens the device with it.
    ///
    /// # Errors
    /// As [`find`](Self::find), and the driver's own.
    pub fn probe(&self, context: &ProbeContext, device: &str) -> Result<Box<dyn Device>, Error> {
        let args = DevArgs::parse(device)?;
        self.find_for(&args)?.probe(context, &args)
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.drivers().map(Driver::name)).finish()
    }
}
