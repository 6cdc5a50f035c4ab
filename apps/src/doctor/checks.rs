//! The individual checks. They change nothing and cannot fail.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixListener;
use std::path::Path;

use linecard::eal::cores;
use linecard::net_tap::{self, NoTap};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{Resource, getrlimit};

use super::{Finding, Status, WANTED_2M, vfio};

/// Every check, in the order of the report.
pub(super) fn all() -> Vec<Finding> {
    vec![
        cpu_cores(),
        tsc(),
        hugepages("hugepages-2M", Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB"), WANTED_2M),
        hugepages("hugepages-1G", Path::new("/sys/kernel/mm/hugepages/hugepages-1048576kB"), 1),
        transparent_hugepages(),
        memlock(),
        memfd(),
        unix_socket(&std::env::temp_dir()),
        tun(),
        packet_socket(),
        xdp_socket(),
        vhost_net(),
        vfio::check(Path::new("/")),
        userfaultfd(),
        dev_shm(),
    ]
}

/// The remedy of several checks.
const MOUNT_PROC: &str = "sudo mount -t proc proc /proc";

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn cpu_cores() -> Finding {
    let allowed = cores::allowed();
    let online = read("/sys/devices/system/cpu/online").unwrap_or_else(|| "unknown".into());
    let list: Vec<_> = allowed.iter().map(|core| core.0.to_string()).collect();
    let detail = format!("{} usable ({}), online: {online}", allowed.len(), list.join(", "));
    match allowed.len() {
        0 => Finding::poor("cores", Status::Missing, detail, "taskset -c 0 linecard demo").required(),
        1 => {
            let detail = format!("{detail}; both ends of a link have to take turns");
            Finding::poor("cores", Status::Degraded, detail, "taskset -c 0,1 linecard demo").required()
        }
        _ => Finding::ok("cores", detail).required(),
    }
}

fn tsc() -> Finding {
    if !Path::new("/proc/cpuinfo").exists() {
        let detail = "not known without /proc; times are read from the kernel where it is not invariant";
        return Finding::poor("tsc", Status::Degraded, detail, MOUNT_PROC);
    }
    let info = read("/proc/cpuinfo").unwrap_or_default();
    let flags = info.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let has = |flag| flags.split_whitespace().any(|f| f == flag);
    let source = read("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let source = source.unwrap_or_else(|| "unknown".into());
    match (has("constant_tsc"), has("nonstop_tsc")) {
        (true, true) => Finding::ok("tsc", format!("invariant, kernel clock: {source}")),
        (constant, _) => {
            let what = if constant { "stops in deep sleep" } else { "varies with frequency" };
            let detail = format!("{what}, kernel clock: {source}; times are read from the kernel instead");
            Finding::poor(
                "tsc",
                Status::Degraded,
                detail,
                "grep -o -m1 'constant_tsc\\|nonstop_tsc' /proc/cpuinfo",
            )
        }
    }
}

/// Checks a pool of hugepages; the remedy adds `wanted` pages to those that are there.
fn hugepages(name: &'static str, pool: &Path, wanted: u64) -> Finding {
    let count = |file| read(pool.join(file)).and_then(|text| text.parse::<u64>().ok());
    let (total, free) = (count("nr_hugepages"), count("free_hugepages"));
    let pages = total.unwrap_or(0).saturating_add(wanted);
    let fix = &format!("echo {pages} | sudo tee {}/nr_hugepages", pool.display());
    match (total, free) {
        (Some(total), Some(free)) if free > 0 => Finding::ok(name, format!("{free} of {total} free")),
        (Some(total), Some(_)) => {
            let detail = format!("none of {total} free; not needed, smaller pages are used");
            Finding::poor(name, Status::Degraded, detail, fix)
        }
        _ => Finding::poor(name, Status::Missing, "this kernel has none; not needed", fix),
    }
}

fn transparent_hugepages() -> Finding {
    const FILE: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    let fix = format!("echo advise | sudo tee {FILE}");
    let text = read(FILE).unwrap_or_default();
    let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(word, _)| word);
    match chosen {
        Some(word @ ("always" | "advise" | "within_size" | "force")) => {
            Finding::ok("thp", format!("shared memory may use them ({word})"))
        }
        Some(word) => {
            let detail = format!("shared memory gets 4K pages ({word})");
            Finding::poor("thp", Status::Degraded, detail, &fix)
        }
        None => Finding::poor("thp", Status::Missing, "this kernel has none; not needed", &fix),
    }
}

/// Locked memory for the pools of several net_af_xdp ports.
const MEMLOCK_WANTED: u64 = 64 << 20;

fn memlock() -> Finding {
    match getrlimit(Resource::Memlock).current {
        None => Finding::ok("memlock", "unlimited"),
        Some(bytes) if bytes >= MEMLOCK_WANTED => Finding::ok("memlock", format!("{} MiB", bytes >> 20)),
        Some(bytes) => {
            let detail = format!("{} KiB; only needed for net_af_xdp", bytes >> 10);
            Finding::poor("memlock", Status::Degraded, detail, "ulimit -l unlimited")
        }
    }
}

fn memfd() -> Finding {
    let sealed = rustix::fs::memfd_create("linecard-doctor", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .and_then(|fd| {
            rustix::fs::ftruncate(&fd, 4096)?;
            rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
        });
    match sealed {
        Ok(()) => Finding::ok("memfd", "shared memory without files, sealed").required(),
        Err(error) => {
            let detail = format!("memory cannot be shared with a peer: {error}");
            Finding::poor("memfd", Status::Missing, detail, "uname -r   # Linux 3.17 or newer is needed")
                .required()
        }
    }
}

fn unix_socket(folder: &Path) -> Finding {
    match bind_in(folder) {
        Ok(_) => Finding::ok("unix-socket", format!("can be made in {}", folder.display())).required(),
        Err(error) => {
            let detail = format!("cannot be made in {}: {error}", folder.display());
            Finding::poor(
                "unix-socket",
                Status::Missing,
                detail,
                "export TMPDIR=\"$(mktemp -d -p \"$HOME\")\"",
            )
            .required()
        }
    }
}

/// Binds a socket in `folder` and removes its file, which it does only if it created it.
fn bind_in(folder: &Path) -> io::Result<()> {
    // An earlier process with this number may have left a file: then another name is tried.
    let names = (0..16).map(|attempt| format!("linecard-doctor-{}-{attempt}.sock", std::process::id()));
    let mut taken = io::Error::from(ErrorKind::AddrInUse);
    for path in names.map(|name| folder.join(name)) {
        match UnixListener::bind(&path) {
            Ok(_) => {
                let _ = fs::remove_file(&path);
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse => taken = error,
            Err(error) => return Err(error),
        }
    }
    Err(taken)
}

/// Returns the command that grants only this user access to a device.
pub(super) fn grant(path: &str) -> String {
    format!("sudo setfacl -m \"u:$(id -un):rw\" {path}")
}

/// Returns the command that grants this program capabilities, so that it need not run as root.
fn give_rights(rights: &str) -> String {
    let program = std::env::current_exe().map_or("linecard".into(), |path| path.display().to_string());
    format!("sudo setcap {rights}+ep {program}")
}

const TAPS: &str = "only needed for net_tap";

/// Opening the device and creating an interface need different rights, so the check creates one.
fn tun() -> Finding {
    let poor = |status, detail: String, fix: String| Finding::poor("tun", status, detail, &fix);
    match net_tap::try_interface() {
        Ok(()) => Finding::ok("tun", "an interface can be made"),
        Err(NoTap::Device(error)) if error.kind() == ErrorKind::PermissionDenied => {
            poor(Status::Degraded, format!("/dev/net/tun: {error}; {TAPS}"), grant("/dev/net/tun"))
        }
        Err(NoTap::Device(error)) => {
            poor(Status::Missing, format!("/dev/net/tun: {error}; {TAPS}"), "sudo modprobe tun".into())
        }
        Err(NoTap::Interface(error)) => {
            let detail = format!("/dev/net/tun opens, but no interface can be made: {error}; {TAPS}");
            poor(Status::Degraded, detail, give_rights("cap_net_admin,cap_net_raw"))
        }
    }
}

fn packet_socket() -> Finding {
    match socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None) {
        Ok(_) => Finding::ok("packet-socket", "net_af_packet can be opened"),
        Err(error) => {
            let detail = format!("{error}; only needed for net_af_packet");
            Finding::poor("packet-socket", Status::Degraded, detail, &give_rights("cap_net_raw"))
        }
    }
}

fn xdp_socket() -> Finding {
    let poor = |status, error, fix: &str| {
        Finding::poor("xdp-socket", status, format!("{error}; only needed for net_af_xdp"), fix)
    };
    match socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None) {
        Ok(_) => Finding::ok("xdp-socket", "can be opened; programs take CAP_BPF and CAP_NET_ADMIN beside"),
        Err(error @ Errno::AFNOSUPPORT) => {
            poor(Status::Missing, error, "zgrep CONFIG_XDP_SOCKETS /proc/config.gz   # the kernel needs it")
        }
        Err(error) => poor(Status::Degraded, error, &give_rights("cap_net_admin,cap_net_raw,cap_bpf")),
    }
}

fn vhost_net() -> Finding {
    const PATH: &str = "/dev/vhost-net";
    let purpose = "only needed for net_virtio_user with path=/dev/vhost-net";
    let poor = |status, error, fix: &str| {
        Finding::poor("vhost-net", status, format!("{PATH}: {error}; {purpose}"), fix)
    };
    match OpenOptions::new().read(true).write(true).open(PATH) {
        Ok(_) => Finding::ok("vhost-net", format!("{PATH} opens")),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            poor(Status::Degraded, error, &grant(PATH))
        }
        Err(error) => poor(Status::Missing, error, "sudo modprobe vhost_net"),
    }
}

fn userfaultfd() -> Finding {
    const SWITCH: &str = "/proc/sys/vm/unprivileged_userfaultfd";
    let fix = "sudo sysctl vm.unprivileged_userfaultfd=1";
    let by_device = OpenOptions::new().read(true).write(true).open("/dev/userfaultfd").is_ok();
    let root = rustix::process::geteuid().is_root();
    match read(SWITCH).as_deref() {
        None if !by_device && !Path::new("/proc/self").exists() => {
            let detail = "not known without /proc; nothing here needs it yet";
            Finding::poor("userfaultfd", Status::Degraded, detail, MOUNT_PROC)
        }
        _ if by_device => Finding::ok("userfaultfd", "/dev/userfaultfd opens"),
        Some("1") => Finding::ok("userfaultfd", "open to every user"),
        Some(_) if root => Finding::ok("userfaultfd", "open to root"),
        Some(_) => {
            let detail = "closed to this user; nothing here needs it yet";
            Finding::poor("userfaultfd", Status::Degraded, detail, fix)
        }
        None => {
            let detail = "this kernel has none; nothing here needs it yet";
            Finding::poor("userfaultfd", Status::Missing, detail, fix)
        }
    }
}

fn dev_shm() -> Finding {
    let path = Path::new("/dev/shm");
    match rustix::fs::access(path, rustix::fs::Access::WRITE_OK) {
        Ok(()) => Finding::ok("dev-shm", "/dev/shm is writable (not used; memory is anonymous)"),
        Err(error) => {
            let detail = format!("/dev/shm: {error}; not used here, memory is anonymous");
            Finding::poor("dev-shm", Status::Degraded, detail, "sudo mount -t tmpfs tmpfs /dev/shm")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("lc-checks-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn the_remedy_never_shrinks_a_pool_in_use() {
        let pool = folder("pool");
        fs::write(pool.join("nr_hugepages"), "1024\n").unwrap();
        fs::write(pool.join("free_hugepages"), "0\n").unwrap();
        let finding = hugepages("hugepages-2M", &pool, 512);
        fs::remove_dir_all(&pool).unwrap();
        assert_eq!(finding.status, Status::Degraded);
        assert!(finding.fix.unwrap().starts_with("echo 1536 | sudo tee "));
    }

    #[test]
    fn a_file_left_by_an_earlier_process_is_no_fault_of_the_folder() {
        let folder = folder("socket");
        let left = folder.join(format!("linecard-doctor-{}-0.sock", std::process::id()));
        fs::write(&left, "").unwrap();
        let finding = unix_socket(&folder);
        let files = fs::read_dir(&folder).unwrap().count();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!((finding.status, files), (Status::Ok, 1), "{}", finding.detail);
    }
}
