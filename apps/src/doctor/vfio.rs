//! Checks whether PCI devices can be driven: VFIO, an IOMMU, and virtio network devices.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;

use super::checks::grant;
use super::{Finding, Status};

const NAME: &str = "vfio";
const PURPOSE: &str = "only needed for net_virtio_pci";

/// A virtio network device, its driver and its IOMMU group.
struct Card {
    address: String,
    driver: Option<String>,
    group: Option<String>,
}

/// Runs the check. `root` is the prefix of every path: `/`, except in tests.
pub(super) fn check(root: &Path) -> Finding {
    let poor =
        |status, detail: String, fix: &str| Finding::poor(NAME, status, format!("{detail}; {PURPOSE}"), fix);
    let opens = |path: &str| OpenOptions::new().read(true).write(true).open(root.join(path)).map(drop);
    if let Err(error) = opens("dev/vfio/vfio") {
        let detail = format!("/dev/vfio/vfio: {error}");
        return match error.kind() {
            ErrorKind::PermissionDenied => poor(Status::Degraded, detail, &grant("/dev/vfio/vfio")),
            _ => poor(Status::Missing, detail, "sudo modprobe vfio-pci"),
        };
    }
    let groups = fs::read_dir(root.join("sys/kernel/iommu_groups")).map_or(0, Iterator::count);
    if groups == 0 {
        let fix = "cat /proc/cmdline   # add intel_iommu=on or amd_iommu=on; in QEMU -device intel-iommu";
        return poor(Status::Missing, "this machine has no IOMMU, or it is off".into(), fix);
    }
    let cards = cards(root);
    let ours = |card: &&Card| card.driver.as_deref() == Some("vfio-pci");
    let Some(card) = cards.iter().find(ours) else {
        return match cards.first() {
            None => Finding::ok(NAME, format!("{groups} IOMMU groups; there is no virtio network device")),
            Some(card) => {
                let of = card.driver.as_deref().unwrap_or("no driver");
                let detail = format!("{} belongs to {of}, not to vfio-pci", card.address);
                poor(
                    Status::Degraded,
                    detail,
                    &format!("sudo driverctl set-override {} vfio-pci", card.address),
                )
            }
        };
    };
    let group = card.group.clone().unwrap_or_default();
    match opens(&format!("dev/vfio/{group}")) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let detail = format!("/dev/vfio/{group}, the group of {}: {error}", card.address);
            poor(Status::Degraded, detail, &grant(&format!("/dev/vfio/{group}")))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let detail = format!("{} has no IOMMU group that VFIO can give away", card.address);
            poor(
                Status::Degraded,
                detail,
                "ls -l /dev/vfio   # in a container: --device /dev/vfio/vfio and the group's",
            )
        }
        // A busy group is in use, so it can be opened in principle.
        _ => Finding::ok(NAME, format!("-a {} can be opened, IOMMU group {group}", card.address)),
    }
}

/// Returns the virtio network devices, sorted by address.
fn cards(root: &Path) -> Vec<Card> {
    let devices = fs::read_dir(root.join("sys/bus/pci/devices")).into_iter().flatten().flatten();
    let mut cards: Vec<Card> = devices.filter_map(|device| card(&device.path())).collect();
    cards.sort_by(|a, b| a.address.cmp(&b.address));
    cards
}

fn card(folder: &Path) -> Option<Card> {
    let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default().trim().to_owned();
    if read("vendor") != "0x1af4" || !["0x1041", "0x1000"].contains(&read("device").as_str()) {
        return None;
    }
    let name = |link: &str| {
        let target = fs::read_link(folder.join(link)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    };
    let address = folder.file_name()?.to_string_lossy().into_owned();
    Some(Card { address, driver: name("driver"), group: name("iommu_group") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    struct Machine(PathBuf);

    impl Machine {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("lc-doctor-vfio-{name}-{}", std::process::id()));
            fs::create_dir_all(root.join("dev/vfio")).unwrap();
            Self(root)
        }

        fn file(&self, path: &str, text: &str) {
            fs::create_dir_all(self.0.join(path).parent().unwrap()).unwrap();
            fs::write(self.0.join(path), text).unwrap();
        }

        fn card(&self, address: &str, device: &str, driver: &str) {
            let folder = format!("sys/bus/pci/devices/{address}");
            self.file(&format!("{folder}/vendor"), "0x1af4\n");
            self.file(&format!("{folder}/device"), &format!("{device}\n"));
            symlink(format!("/x/drivers/{driver}"), self.0.join(&folder).join("driver")).unwrap();
            symlink("/x/iommu_groups/3", self.0.join(&folder).join("iommu_group")).unwrap();
        }

        fn assert(&self, status: Status, detail: &str, fix: &str) {
            let found = check(&self.0);
            let fixed = found.fix.clone().unwrap_or_default();
            assert!(
                found.status == status && found.detail.contains(detail) && fixed.contains(fix),
                "{found:?}"
            );
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_is_missing_is_said_one_thing_after_the_other() {
        let machine = Machine::new("all");
        machine.assert(Status::Missing, "/dev/vfio/vfio: No such file", "modprobe vfio-pci");
        machine.file("dev/vfio/vfio", "");
        machine.assert(Status::Missing, "no IOMMU", "intel_iommu=on");
        machine.file("sys/kernel/iommu_groups/3/type", "DMA\n");
        machine.card("0000:00:04.0", "0x1042", "virtio-pci");
        machine.assert(Status::Ok, "there is no virtio network device", "");
        machine.card("0000:00:05.0", "0x1041", "virtio-pci");
        machine.assert(
            Status::Degraded,
            "0000:00:05.0 belongs to virtio-pci",
            "driverctl set-override 0000:00:05.0 vfio-pci",
        );
        machine.card("0000:00:06.0", "0x1000", "vfio-pci");
        machine.assert(Status::Degraded, "0000:00:06.0 has no IOMMU group", "--device");
        machine.file("dev/vfio/3", "");
        machine.assert(Status::Ok, "-a 0000:00:06.0 can be opened, IOMMU group 3", "");
    }
}
