//! The parts of a guest: QEMU, a kernel and its modules, busybox, and test programs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{on_path, skip};

/// The folders of modules, below a kernel's folder.
const MODULE_FOLDERS: [&str; 9] = [
    "net/core",
    "drivers/net",
    "drivers/virtio",
    "drivers/vhost",
    "drivers/vdpa",
    "drivers/vdpa/vdpa_user",
    "drivers/vfio",
    "drivers/vfio/pci",
    "virt/lib",
];
/// The kernel of a guest, by its purpose.
///
/// ```
/// use linecard_testing::guest::Kernel;
///
/// assert_eq!("vhost".parse(), Ok(Kernel::Vhost));
/// assert!("windows".parse::<Kernel>().is_err_and(|why| why.contains("net, vhost, vhost-new, vdpa, vdpa-net, vfio, xdp")));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Linux's virtio-net driver.
    Net,
    /// `/dev/vhost-net` and tap interfaces.
    Vhost,
    /// The same in a newer kernel: in-order rings, and a choice between kernel threads and others for vhost's workers (Linux 6.17).
    VhostNew,
    /// vDPA devices, and VDUSE, with which a process implements one.
    Vdpa,
    /// The virtio-net driver over vDPA devices, and VDUSE.
    VdpaNet,
    /// PCI devices assigned to processes.
    Vfio,
    /// A virtio-net driver with zero-copy AF_XDP (Linux 6.13).
    Xdp,
}

impl Kernel {
    const NAMES: [(&str, Self); 7] = [
        ("net", Self::Net),
        ("vhost", Self::Vhost),
        ("vhost-new", Self::VhostNew),
        ("vdpa", Self::Vdpa),
        ("vdpa-net", Self::VdpaNet),
        ("vfio", Self::Vfio),
        ("xdp", Self::Xdp),
    ];

    /// Returns the modules to load, in an order that works within a few rounds.
    const fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Net => &[
                "failover",
                "net_failover",
                "virtio",
                "virtio_ring",
                "virtio_pci_modern_dev",
                "virtio_pci_legacy_dev",
                "virtio_pci",
                "virtio_net",
            ],
            Self::Vhost | Self::VhostNew => &["tun", "tap", "vhost_iotlb", "vhost", "vhost_net"],
            Self::Vdpa => &["tun", "irqbypass", "vhost_iotlb", "vhost", "vdpa", "vduse", "vhost_vdpa"],
            Self::Vfio => {
                &["irqbypass", "vfio", "vfio_virqfd", "vfio_iommu_type1", "vfio-pci-core", "vfio-pci"]
            }
            Self::VdpaNet => &[
                "tun",
                "failover",
                "net_failover",
                "virtio_net",
                "vhost_iotlb",
                "vdpa",
                "vduse",
                "virtio_vdpa",
            ],
            // Newer kernels have virtio built in.
            Self::Xdp => &["failover", "net_failover", "virtio_net"],
        }
    }

    /// Returns where such a kernel may be: below `target`, where `.ci/guest-kernel` puts it, or on this
    /// machine.
    fn folders(self) -> Vec<PathBuf> {
        let given =
            std::env::var_os("LINECARD_GUEST_KERNEL").map(PathBuf::from).filter(|_| self == Self::Net);
        match self {
            Self::Net | Self::Vhost | Self::Vfio => {
                given.into_iter().chain([fetched("guest"), PathBuf::from("/")]).collect()
            }
            Self::Vdpa | Self::VdpaNet => vec![fetched("guest-vdpa")],
            Self::Xdp | Self::VhostNew => vec![fetched("guest-xdp")],
        }
    }
}

impl FromStr for Kernel {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        let known = Self::NAMES.map(|(known, _)| known).join(", ");
        found
            .map(|(_, kernel)| *kernel)
            .ok_or_else(|| format!("no guest has a kernel '{name}'; there are {known}"))
    }
}

/// Guests of one program run one after the other, because each occupies several cores.
static TURN: Mutex<()> = Mutex::new(());

/// The parts of a guest.
pub struct Parts {
    _turn: MutexGuard<'static, ()>,
    pub(super) qemu: PathBuf,
    pub(super) busybox: PathBuf,
    pub(super) kernel: PathBuf,
    pub(super) modules: Vec<PathBuf>,
    /// Further files: their names in the guest, and their paths.
    pub(super) files: Vec<(String, PathBuf)>,
}

impl Parts {
    /// Finds the parts; reports what is missing if `test` must be skipped.
    #[must_use]
    pub fn find(test: &str, kernel: Kernel) -> Option<Self> {
        Self::look(kernel).map_err(|missing| skip(test, &missing)).ok()
    }

    /// Finds the parts.
    ///
    /// # Errors
    /// The missing part, and where it comes from.
    pub fn look(kernel: Kernel) -> Result<Self, String> {
        let qemu = on_path("qemu-system-x86_64")
            .ok_or("qemu-system-x86_64 is not installed (apt-get install qemu-system-x86)")?;
        let busybox = on_path("busybox")
            .filter(|path| is_static(path))
            .ok_or("a static busybox is not installed (apt-get install busybox-static)")?;
        let (kernel, modules) = kernel
            .folders()
            .iter()
            .find_map(|folder| kernel_in(folder, kernel.modules()))
            .ok_or("there is no guest kernel (.ci/guest-kernel fetches what is needed below target)")?;
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Self { _turn: turn, qemu, busybox, kernel, modules, files: Vec::new() })
    }

    /// Adds ethtool; if it is missing, reports that `test` is skipped.
    #[must_use]
    pub fn with_ethtool(self, test: &str, folder: &Path) -> Option<Self> {
        // Not in the PATH of ordinary users.
        let usual = Some(PathBuf::from("/usr/sbin/ethtool")).filter(|path| path.is_file());
        let Some(ethtool) = on_path("ethtool").or(usual) else {
            skip(test, "ethtool is not installed (apt-get install ethtool)");
            return None;
        };
        Some(self.with_program(&ethtool, folder))
    }

    /// Adds the test program itself, named `checks`: its ignored tests can run in the guest.
    #[must_use]
    pub fn with_checks(self, folder: &Path) -> Self {
        let program = std::env::current_exe().expect("a test knows its program");
        self.with_program_as("checks", &program, folder)
    }

    /// Adds a program, without its debug information, and its libraries; `folder` is for temporary files.
    #[must_use]
    pub fn with_program(self, program: &Path, folder: &Path) -> Self {
        let name = program.file_name().expect("a program has a name").to_string_lossy().into_owned();
        self.with_program_as(&name, program, folder)
    }

    /// The same with another name.
    #[must_use]
    pub fn with_program_as(mut self, name: &str, program: &Path, folder: &Path) -> Self {
        let stripped = folder.join(name);
        let mut strip = Command::new("strip");
        assert!(strip.arg("-o").args([&stripped, program]).status().expect("strip runs").success());
        let output = Command::new("ldd").arg(program).output().expect("ldd runs");
        let libraries = String::from_utf8_lossy(&output.stdout).into_owned();
        let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/'));
        self.files
            .extend(libraries.map(|path| (path.trim_start_matches('/').to_owned(), PathBuf::from(path))));
        self.files.push((format!("bin/{name}"), stripped));
        self
    }
}

/// Returns the path of what `.ci/guest-kernel` unpacked, or of another file below `target`.
pub(super) fn fetched(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target").join(name)
}

/// Returns the kernel in a folder, if all its modules are there, uncompressed.
fn kernel_in(folder: &Path, modules: &[&str]) -> Option<(PathBuf, Vec<PathBuf>)> {
    let entries = std::fs::read_dir(folder.join("boot")).ok()?.flatten();
    for kernel in entries.map(|entry| entry.path()) {
        let name = kernel.file_name()?.to_string_lossy().into_owned();
        let Some(version) = name.strip_prefix("vmlinuz-") else { continue };
        let root = folder.join("lib/modules").join(version).join("kernel");
        let mut files = Vec::new();
        for below in MODULE_FOLDERS {
            let listed = std::fs::read_dir(root.join(below)).into_iter().flatten().flatten();
            files.extend(listed.map(|entry| entry.path()));
        }
        let found: Vec<_> = modules
            .iter()
            .filter_map(|module| files.iter().find(|path| path.ends_with(format!("{module}.ko"))).cloned())
            .collect();
        if found.len() == modules.len() {
            return Some((kernel, found));
        }
    }
    None
}

/// Whether an ELF program needs no dynamic loader: it has no program header of type `PT_INTERP`.
fn is_static(program: &Path) -> bool {
    const INTERPRETER: u8 = 3;
    let Ok(bytes) = std::fs::read(program) else { return false };
    let number =
        |at: usize| bytes.get(at..at + 2).map_or(0, |two| usize::from(u16::from_le_bytes([two[0], two[1]])));
    let (table, size, count) = (number(32), number(54), number(56));
    size > 0 && (0..count).all(|n| bytes.get(table + n * size).is_some_and(|kind| *kind != INTERPRETER))
}
