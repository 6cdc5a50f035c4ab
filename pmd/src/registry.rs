//! The drivers of a program, and the lookup of the driver for a device argument.

use crate::args::DevArgs;
use crate::error::Error;
use crate::handover::HandedOver;
use crate::port::{Device, Driver, ProbeContext};

/// A list of drivers. A program creates it explicitly; there is no global list.
///
/// ```
/// use linecard_pmd::Registry;
/// let registry = Registry::new(&[&linecard_net_null::NullDriver]);
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
    /// Creates a registry of these drivers, in the order in which they are listed.
    #[must_use]
    pub fn new(drivers: &[&'static dyn Driver]) -> Self {
        Self { drivers: drivers.to_vec() }
    }

    /// Returns the registry with one more driver at the end. A driver whose name is already taken is not
    /// added.
    ///
    /// ```
    /// use linecard_pmd::Registry;
    /// let registry = Registry::new(&[]).with(&linecard_net_null::NullDriver);
    /// assert_eq!(registry.find("net_null0")?.name(), "net_null");
    /// # Ok::<(), linecard_pmd::Error>(())
    /// ```
    #[must_use]
    pub fn with(mut self, driver: &'static dyn Driver) -> Self {
        if !self.drivers().any(|known| known.name() == driver.name()) {
            self.drivers.push(driver);
        }
        self
    }

    /// All drivers, in order.
    pub fn drivers(&self) -> impl Iterator<Item = &'static dyn Driver> {
        self.drivers.iter().copied()
    }

    /// Finds the driver for a device argument: the one with the longest name that is a prefix of the device
    /// name, followed by a number or suffix (`net_null0`, `net_null_b`). Older DPDK names work too. A PCI
    /// address selects the driver of PCI devices.
    ///
    /// # Errors
    /// No driver matches, or `device` does not start with a name.
    pub fn find(&self, device: &str) -> Result<&'static dyn Driver, Error> {
        self.find_for(&DevArgs::parse(device)?)
    }

    fn find_for(&self, args: &DevArgs) -> Result<&'static dyn Driver, Error> {
        if args.pci().is_some() {
            let driver = self.drivers().find(|driver| driver.drives_pci());
            return driver.ok_or_else(|| self.unknown(args));
        }
        let matches = |driver: &&dyn Driver| {
            args.driver()
                .strip_prefix(driver.name())
                .is_some_and(|suffix| !suffix.starts_with(|c: char| c.is_ascii_alphanumeric()))
        };
        let best = self.drivers().filter(matches).max_by_key(|driver| driver.name().len());
        best.ok_or_else(|| self.unknown(args))
    }

    fn unknown(&self, args: &DevArgs) -> Error {
        let known = self.drivers().map(Driver::name).collect::<Vec<_>>().join(", ");
        Error::UnknownDriver { device: args.name().to_owned(), known }
    }

    /// Finds the driver of `device` and has it [check](Driver::check_args) the arguments; opens nothing.
    ///
    /// ```
    /// use linecard_pmd::Registry;
    /// let registry = Registry::new(&[&linecard_net_null::NullDriver]);
    /// assert_eq!(registry.check("net_null0,size=128")?.name(), "net_null0");
    /// let problem = registry.check("net_null0,size=0").unwrap_err().to_string();
    /// assert_eq!(problem, "net_null0: 'size=0' is not possible; give size a number from 1 to 65535");
    /// # Ok::<(), linecard_pmd::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`find`](Self::find), and the errors of the driver.
    pub fn check(&self, device: &str) -> Result<DevArgs, Error> {
        let args = DevArgs::parse(device)?;
        self.check_args(&args)?;
        Ok(args)
    }

    /// As [`check`](Self::check), for parsed arguments.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_args(&self, args: &DevArgs) -> Result<(), Error> {
        self.find_for(args)?.check_args(args)
    }

    /// Finds the driver of `device` and opens the device.
    ///
    /// # Errors
    /// As [`find`](Self::find), and the errors of the driver.
    pub fn probe(&self, context: &ProbeContext, device: &str) -> Result<Box<dyn Device>, Error> {
        self.probe_args(context, &DevArgs::parse(device)?)
    }

    /// As [`probe`](Self::probe), for parsed arguments.
    ///
    /// # Errors
    /// As [`probe`](Self::probe).
    pub fn probe_args(&self, context: &ProbeContext, args: &DevArgs) -> Result<Box<dyn Device>, Error> {
        self.find_for(args)?.probe(context, args)
    }

    /// Finds the driver of `device` and takes over the device from another process; see [`Driver::succeed`].
    ///
    /// # Errors
    /// As [`find`](Self::find), and the errors of the driver.
    pub fn succeed(
        &self,
        context: &ProbeContext,
        device: &str,
        handed: HandedOver,
    ) -> Result<Box<dyn Device>, Error> {
        let args = DevArgs::parse(device)?;
        self.find_for(&args)?.succeed(context, &args, handed)
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.drivers().map(Driver::name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Named(&'static str);

    impl Driver for Named {
        fn name(&self) -> &'static str {
            self.0
        }

        fn summary(&self) -> &'static str {
            ""
        }

        fn drives_pci(&self) -> bool {
            self.0 == "net_pci"
        }

        fn probe(&self, _: &ProbeContext, args: &DevArgs) -> Result<Box<dyn Device>, Error> {
            Err(args.problem("nothing to open", "do not"))
        }
    }

    #[test]
    fn an_address_finds_the_driver_of_pci_devices() {
        static DRIVERS: [Named; 2] = [Named("net_null"), Named("net_pci")];
        let registry = Registry::new(&[&DRIVERS[0], &DRIVERS[1]]);
        for device in ["0000:00:05.0", "05:00.1,queues=2", "net_pci0"] {
            assert_eq!(registry.find(device).map(Driver::name).ok(), Some("net_pci"), "{device}");
        }
    }

    #[test]
    fn the_longest_name_is_found() {
        static DRIVERS: [Named; 3] = [Named("net_virtio"), Named("net_virtio_user"), Named("net_af_xdp")];
        let registry = Registry::new(&[&DRIVERS[0], &DRIVERS[1], &DRIVERS[2]]);
        for (device, driver) in [
            ("net_virtio_user0,path=/x", "net_virtio_user"),
            ("virtio_user12", "net_virtio_user"),
            ("net_virtio_user_a", "net_virtio_user"),
            ("net_virtio3", "net_virtio"),
            ("net_virtio_use0", "net_virtio"),
            ("eth_af_xdp", "net_af_xdp"),
        ] {
            assert_eq!(registry.find(device).map(Driver::name).ok(), Some(driver), "{device}");
        }
        for device in ["net_virtiox0", "net_af0", "null0"] {
            let message = registry.find(device).err().expect(device).to_string();
            let want = format!(
                "no driver for device '{device}'; known drivers: net_virtio, net_virtio_user, net_af_xdp"
            );
            assert_eq!(message, want);
        }
        let message = registry.find("00:05.0").err().expect("none drives PCI").to_string();
        assert!(message.starts_with("no driver for device '0000:00:05.0'; known"), "{message}");
        assert_eq!(format!("{registry:?}"), r#"["net_virtio", "net_virtio_user", "net_af_xdp"]"#);
    }
}
