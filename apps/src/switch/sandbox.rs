//! `linecard switch --sandbox`: the restrictions of a switch that has read its settings.
//!
//! | restriction | mechanism | since |
//! |---|---|---|
//! | no capabilities, except CAP_NET_ADMIN if a tap is configured; none can be gained | `capset`, the bounding set, `no_new_privs` | before the first thread, so that every thread inherits it |
//! | files: folders of its sockets, of its state, of `--sandbox-allow`; a few files about memory and cores, read-only | Landlock | as above |
//! | no TCP connections; no signals or abstract sockets to processes outside | Landlock | as above |
//! | no programs, processes, tracing, mounts, namespaces, kernel modules, packet or TCP sockets | seccomp, all threads | when it is ready |
//!
//! A switch that takes over is a new process that somebody else starts, so a sandboxed switch never has to
//! start one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, NetPort, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use linecard_switch::api::{PortKind, PortSpec};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::error::Error;

/// The newest Landlock ABI that is used; older kernels enforce what they support of it (Linux 6.12 supports
/// all). Later ABIs restrict more and are untested.
const KNOWN: ABI = ABI::V6;
/// Files about memory, cores and the limits of this process.
const TO_READ: &[&str] = &[
    "/proc/meminfo",
    "/proc/cpuinfo",
    "/proc/self",
    "/proc/sys/vm",
    "/proc/sys/kernel/random/boot_id",
    "/sys/devices/system",
    "/sys/kernel/mm",
    "/sys/fs/cgroup",
    "/etc/group",
    "/etc/nsswitch.conf",
];
const TUN: &str = "/dev/net/tun";
/// Drivers whose devices need more than the sandbox allows, and what they need.
const REFUSED: &[(&str, &str)] = &[
    ("net_af_packet", "packet sockets"),
    ("net_af_xdp", "XDP programs"),
    ("net_virtio_pci", "PCI devices"),
    ("net_pcap", "capture files"),
];

/// The rights that the switch needs.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Folders in which it may create, change and remove files and sockets.
    pub(super) folders: BTreeSet<PathBuf>,
    /// The TCP port at which counters are served.
    pub(super) tcp_port: Option<u16>,
    /// It has taps, which it may create and configure.
    pub(super) taps: bool,
}

impl Needs {
    /// Adds the rights that a port needs.
    ///
    /// # Errors
    /// The port is of a kind that needs a right which the sandbox gives up.
    pub(super) fn add(&mut self, spec: &PortSpec) -> Result<(), Error> {
        match &spec.kind {
            PortKind::VhostUser { path, client: false, .. } => self.add_folder_of(path)?,
            PortKind::Tap { .. } => self.taps = true,
            PortKind::Vdev { device } => {
                let (name, arguments) = device.split_once(',').unwrap_or((device, ""));
                let refused = REFUSED.iter().find(|(driver, _)| name.starts_with(driver));
                let values =
                    || arguments.split(',').filter_map(|word| word.split_once('=')).map(|(_, value)| value);
                let node = values().find(|value| value.starts_with("/dev/"));
                let what = refused.map(|(_, what)| *what).or(node.map(|_| "device files"));
                if let Some(what) = what {
                    return Err(Error::Usage(format!(
                        "port '{}' needs {what}, which a switch with --sandbox cannot use; leave out one of the two",
                        spec.key
                    )));
                }
                self.taps |= name.starts_with("net_tap");
                for path in values().filter(|value| value.starts_with('/')) {
                    self.add_folder_of(Path::new(path))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds the folder of a file or socket.
    ///
    /// # Errors
    /// The folder is the root folder.
    pub(super) fn add_folder_of(&mut self, path: &Path) -> Result<(), Error> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        match path.parent() {
            Some(folder) if folder.parent().is_some() => {
                self.folders.insert(folder.to_owned());
                Ok(())
            }
            _ => Err(Error::Usage(format!(
                "{} lies in no folder but the root, which --sandbox cannot leave open; put it into a folder",
                path.display()
            ))),
        }
    }
}

/// The restrictions in force.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sandbox {
    files: RulesetStatus,
    keeps_net_admin: bool,
}

impl std::fmt::Display for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let files = match self.files {
            RulesetStatus::FullyEnforced => "files and connections by Landlock",
            RulesetStatus::PartiallyEnforced => "files by Landlock as far as this kernel knows it",
            RulesetStatus::NotEnforced => "files not restricted, as this kernel has no Landlock",
        };
        let rights = if self.keeps_net_admin { "CAP_NET_ADMIN for its taps" } else { "no capabilities" };
        write!(f, "sandbox: {files}; {rights}; system calls filtered")
    }
}

fn failed(action: &str, source: impl std::fmt::Display) -> Error {
    Error::Failed(format!("{action}: {source}; start the switch without --sandbox, or on another kernel"))
}

/// Gives up all rights that are not in `needs`, in this thread and those that it starts.
///
/// # Errors
/// The kernel refuses to drop a right.
pub(super) fn enter(needs: &Needs) -> Result<Sandbox, Error> {
    rustix::thread::set_no_new_privs(true)
        .map_err(|error| failed("new privileges cannot be given up", error))?;
    let keeps_net_admin = drop_capabilities(needs.taps)?;
    let files = restrict(needs).map_err(|error| failed("the file system cannot be given up", error))?;
    Ok(Sandbox { files, keeps_net_admin })
}

/// Drops all capabilities except CAP_NET_ADMIN, if that is wanted and present; returns whether it is kept.
fn drop_capabilities(net_admin: bool) -> Result<bool, Error> {
    let refused = |error| failed("capabilities cannot be given up", error);
    let had = rustix::thread::capabilities(None).map_err(refused)?;
    let wanted = if net_admin { CapabilitySet::NET_ADMIN } else { CapabilitySet::empty() };
    let kept = had.permitted & wanted;
    if had.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().iter().filter(|capability| !kept.contains(*capability)) {
            // An error means that this kernel does not know the capability, which then is in no set.
            let _ = rustix::thread::remove_capability_from_bounding_set(capability);
        }
    }
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: none };
    rustix::thread::set_capabilities(None, sets).map_err(refused)?;
    Ok(!kept.is_empty())
}

fn restrict(needs: &Needs) -> Result<RulesetStatus, RulesetError> {
    let all = AccessFs::from_all(KNOWN);
    let programs_and_nodes =
        AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let tun: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    // An abstract socket of the service manager is outside the scope.
    let manager =
        std::env::var_os("NOTIFY_SOCKET").is_some_and(|name| name.as_encoded_bytes().starts_with(b"@"));
    let scope = if manager { Scope::Signal.into() } else { Scope::from_all(KNOWN) };
    let ruleset = Ruleset::default()
        .handle_access(all)?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(scope)?
        .create()?
        .add_rules(path_beneath_rules(TO_READ, read))?
        .add_rules(path_beneath_rules(&needs.folders, all & !programs_and_nodes))?
        .add_rules(path_beneath_rules(needs.taps.then_some(TUN), tun))?
        .add_rules(
            needs.tcp_port.map(|port| Ok::<_, RulesetError>(NetPort::new(port, AccessNet::BindTcp))),
        )?;
    Ok(ruleset.restrict_self()?.ruleset)
}

/// System calls that a switch does not need once it is ready.
const DENIED: &[i64] = &[
    // Programs, and access to other processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // Namespaces, mounts and roots.
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_fsconfig,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    // The machine and its kernel.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_personality,
    // Large interfaces of the kernel.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_fanotify_init,
    // Rights.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
];

/// Filters the system calls of all threads from here on: denied ones fail with EPERM.
///
/// # Errors
/// The kernel has no filters, or a thread has other filters.
pub(super) fn seal() -> Result<(), Error> {
    let refused = |error: &dyn std::fmt::Display| failed("system calls cannot be filtered", error);
    for program in filters().map_err(|error| refused(&error))? {
        seccompiler::apply_filter_all_threads(&program).map_err(|error| refused(&error))?;
    }
    Ok(())
}

/// The filters: one for the denied calls, one for `clone3`. The latter fails with ENOSYS as on an older
/// kernel, so that threads are created with `clone`, whose flags a filter can check.
fn filters() -> Result<[BpfProgram; 2], seccompiler::Error> {
    let condition =
        |argument, operator, value| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value);
    let masked = |argument, mask: i32, value: i32| {
        condition(argument, SeccompCmpOp::MaskedEq(mask as u64), value as u64)
    };
    let mut denied: BTreeMap<i64, Vec<SeccompRule>> = DENIED.iter().map(|call| (*call, Vec::new())).collect();
    older(&mut denied);
    // Without this flag `clone` creates a process, not a thread.
    denied.insert(libc::SYS_clone, vec![SeccompRule::new(vec![masked(0, libc::CLONE_THREAD, 0)?])?]);
    let mut sockets = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        // The low bits hold the socket's type.
        let tcp = masked(1, 0xf, libc::SOCK_STREAM)?;
        sockets.push(SeccompRule::new(vec![condition(0, SeccompCmpOp::Eq, family as u64)?, tcp])?);
        let raw = masked(1, 0xf, libc::SOCK_RAW)?;
        sockets.push(SeccompRule::new(vec![condition(0, SeccompCmpOp::Eq, family as u64)?, raw])?);
    }
    let known = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let others: Result<Vec<_>, _> =
        known.iter().map(|family| condition(0, SeccompCmpOp::Ne, *family as u64)).collect();
    sockets.push(SeccompRule::new(others?)?);
    denied.insert(libc::SYS_socket, sockets);
    let program = |rules, errno: i32| -> Result<BpfProgram, seccompiler::Error> {
        let action = SeccompAction::Errno(errno.cast_unsigned());
        let arch = std::env::consts::ARCH.try_into()?;
        Ok(SeccompFilter::new(rules, SeccompAction::Allow, action, arch)?.try_into()?)
    };
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    Ok([program(denied, libc::EPERM)?, program(clone3, libc::ENOSYS)?])
}

/// System calls of older architectures only.
#[cfg(target_arch = "x86_64")]
fn older(denied: &mut BTreeMap<i64, Vec<SeccompRule>>) {
    for call in [libc::SYS_fork, libc::SYS_vfork, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt] {
        denied.insert(call, Vec::new());
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn older(_: &mut BTreeMap<i64, Vec<SeccompRule>>) {}

#[cfg(test)]
mod tests;
