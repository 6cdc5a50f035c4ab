//! Checks a PCI device in sysfs before it is opened (`Documentation/ABI/testing/sysfs-bus-pci`).

use std::fs;
use std::path::Path;

use linecard_pmd::pci::PciAddress;

use super::unusable;
use crate::error::Error;

/// The directory of PCI devices.
pub(super) const DEVICES: &str = "/sys/bus/pci/devices";

/// Red Hat's vendor identifier, which all virtio devices have (virtio 1.3, PCI Device Discovery).
const VENDOR: u32 = 0x1af4;
/// A network device, and one that also has the legacy interface.
const MODERN: u32 = 0x1041;
const TRANSITIONAL: u32 = 0x1000;
/// The kernel driver that gives access to a device.
const DRIVER: &str = "vfio-pci";
/// The kernel's name for a group of a device without an IOMMU (`drivers/vfio/group.c`).
const NO_IOMMU: &str = "vfio-noiommu";

/// Returns the IOMMU group of a network device that is bound to VFIO.
pub(super) fn group(devices: &Path, address: PciAddress) -> Result<String, Error> {
    let folder = devices.join(address.to_string());
    if !folder.is_dir() {
        let problem = "there is no such device".into();
        return Err(unusable(address, problem, "list them with 'lspci -D -d 1af4:'"));
    }
    let number = |file: &str| {
        let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
        text.trim().strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok())
    };
    match (number("vendor"), number("device")) {
        (Some(VENDOR), Some(MODERN | TRANSITIONAL)) => {}
        (vendor, device) => {
            let problem = format!(
                "it is no virtio network device ({:04x}:{:04x} instead of {VENDOR:04x}:{MODERN:04x})",
                vendor.unwrap_or_default(),
                device.unwrap_or_default()
            );
            return Err(unusable(
                address,
                problem,
                "list those with 'lspci -D -d 1af4:1041; lspci -D -d 1af4:1000'",
            ));
        }
    }
    let name = |link: &str| {
        let target = fs::read_link(folder.join(link)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    };
    let remedy = format!(
        "bind it with 'driverctl set-override {address} vfio-pci' or 'dpdk-devbind.py -b vfio-pci {address}'"
    );
    match name("driver").as_deref() {
        Some(DRIVER) => {}
        Some(other) => {
            return Err(unusable(
                address,
                format!("it belongs to the driver {other}, not to {DRIVER}"),
                &remedy,
            ));
        }
        None => return Err(unusable(address, format!("it has no driver, and needs {DRIVER}"), &remedy)),
    }
    let group_name = fs::read_to_string(folder.join("iommu_group/name")).unwrap_or_default();
    match name("iommu_group") {
        Some(group) if group_name.trim() != NO_IOMMU => Ok(group),
        _ => {
            let problem = "it has no IOMMU, without which it could write anywhere in this machine".into();
            let remedy = "turn the IOMMU on (kernel argument intel_iommu=on or amd_iommu=on; in QEMU -device intel-iommu)";
            Err(unusable(address, problem, remedy))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    /// Creates a directory of devices with one entry.
    struct Machine(PathBuf);

    impl Machine {
        fn new(name: &str, vendor: &str, device: &str) -> Self {
            let root = std::env::temp_dir().join(format!("lc-pci-{name}-{}", std::process::id()));
            let folder = root.join("0000:00:05.0");
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(folder.join("vendor"), format!("{vendor}\n")).expect("a file");
            fs::write(folder.join("device"), format!("{device}\n")).expect("a file");
            Self(root)
        }

        fn driver(self, name: &str) -> Self {
            symlink(format!("../../bus/pci/drivers/{name}"), self.0.join("0000:00:05.0/driver"))
                .expect("a link");
            self
        }

        fn group(self, name: Option<&str>) -> Self {
            let group = self.0.join("17");
            fs::create_dir_all(&group).expect("a folder");
            name.into_iter().for_each(|name| fs::write(group.join("name"), name).expect("a file"));
            symlink("../17", self.0.join("0000:00:05.0/iommu_group")).expect("a link");
            self
        }

        fn look(&self, address: &str) -> Result<String, String> {
            let address = address.parse().expect("an address");
            group(&self.0, address).map_err(|error| error.of_port("p").to_string())
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_device_that_vfio_has_has_a_group() {
        for device in ["0x1041", "0x1000"] {
            let machine = Machine::new("good", "0x1af4", device).driver("vfio-pci").group(None);
            assert_eq!(machine.look("0000:00:05.0"), Ok("17".to_owned()));
        }
    }

    #[test]
    fn what_is_in_the_way_is_said_with_a_remedy() {
        let virtio = |name| Machine::new(name, "0x1af4", "0x1041");
        for (machine, parts) in [
            (Machine::new("intel", "0x8086", "0x100e"), ["no virtio network device (8086:100e", "lspci"]),
            (Machine::new("block", "0x1af4", "0x1042"), ["no virtio network device (1af4:1042", "lspci"]),
            (Machine::new("odd", "", "0xzz"), ["no virtio network device (0000:0000", "lspci"]),
            (
                virtio("kernel").driver("virtio-pci").group(None),
                ["belongs to the driver virtio-pci", "driverctl set-override 0000:00:05.0"],
            ),
            (virtio("none").group(None), ["has no driver", "dpdk-devbind.py -b vfio-pci 0000:00:05.0"]),
            (virtio("alone").driver("vfio-pci"), ["it has no IOMMU", "intel_iommu=on"]),
            (
                virtio("noiommu").driver("vfio-pci").group(Some("vfio-noiommu\n")),
                ["it has no IOMMU", "intel_iommu=on"],
            ),
        ] {
            let said = machine.look("0000:00:05.0").expect_err("it cannot be used");
            assert!(said.starts_with("p: PCI device 0000:00:05.0: ") && !said.contains('\n'), "{said}");
            parts.iter().for_each(|part| assert!(said.contains(part), "{part}: {said}"));
        }
        let said = virtio("absent").look("0000:00:06.0").expect_err("it is not there");
        assert!(said.contains("there is no such device"), "{said}");
    }
}
