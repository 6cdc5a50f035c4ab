//! Sockets that are created again after a restart, in the namespaces in which they were created before.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use rustix::thread::LinkNameSpaceType;

use crate::api::SocketOrigin;

/// The identity of a namespace file; it is valid until the next boot.
pub(crate) fn identity(namespace: &File) -> io::Result<String> {
    Ok(Namespace::of(&namespace.metadata()?).identity(&boot()?))
}

/// The ID of this boot.
pub(crate) fn boot() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// A namespace, identified by the device and inode of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Namespace {
    device: u64,
    inode: u64,
}

impl Namespace {
    fn of(file: &Metadata) -> Self {
        Self { device: file.dev(), inode: file.ino() }
    }

    /// The namespace to which a path leads.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|file| Self::of(&file))
    }

    /// The text form, with the boot ID.
    pub(crate) fn identity(self, boot: &str) -> String {
        format!("{boot}:{}:{}", self.device, self.inode)
    }

    /// Parses [`identity`](Self::identity): the boot ID and the namespace.
    pub(crate) fn read(identity: &str) -> Option<(&str, Self)> {
        let (boot, file) = identity.split_once(':')?;
        let (device, inode) = file.split_once(':')?;
        Some((boot, Self { device: device.parse().ok()?, inode: inode.parse().ok()? }))
    }

    /// Returns whether it is mounted anywhere that this process can see, as `ip netns` does.
    pub(crate) fn is_mounted(self) -> bool {
        let root = format!("net:[{}]", self.inode);
        // The fourth field of a line of proc_pid_mountinfo(5). If the file cannot be read, nothing counts as
        // mounted.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        mounts.lines().any(|line| line.split(' ').nth(3) == Some(&root))
    }

    /// Returns whether a process that this one may inspect is in it.
    pub(crate) fn has_processes(self) -> bool {
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut processes =
            processes.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
        processes.any(|process| Self::at(&process.path().join("ns/net")).is_ok_and(|found| found == self))
    }
}

/// Checks that `origin` was created in this namespace, if `origin` records one.
fn check(origin: &SocketOrigin, namespace: &File) -> io::Result<()> {
    match &origin.namespace {
        Some(made) if *made != identity(namespace)? => Err(io::Error::other(format!(
            "{} leads to another network namespace now; remove the port, or add it anew",
            origin.netns.display()
        ))),
        _ => Ok(()),
    }
}

/// Listens at the abstract name in the namespace that `origin` names.
pub(crate) fn listen(origin: &SocketOrigin) -> io::Result<OwnedFd> {
    let namespace = File::open(&origin.netns)?;
    check(origin, &namespace)?;
    let name = origin.name.clone();
    // A separate thread enters the namespace and ends there, so that this thread does not change its own.
    let made =
        std::thread::Builder::new().name("lc-netns".into()).spawn(move || -> io::Result<OwnedFd> {
            rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            let address = SocketAddr::from_abstract_name(name)?;
            Ok(UnixListener::bind_addr(&address)?.into())
        })?;
    made.join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread that was to enter the namespace panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        let own = SocketOrigin::new("/proc/self/ns/net", "x");
        let namespace = File::open(&own.netns).expect("a namespace");
        check(&own, &namespace).expect("it is the same");
        // Another file at that path, another boot, and what an earlier version wrote.
        let other = File::open("/proc/self/ns/mnt").expect("a namespace");
        let problem = check(&own, &other).expect_err("it is another").to_string();
        assert!(problem.contains("/proc/self/ns/net leads to another network namespace"), "{problem}");
        let inode = identity(&namespace).expect("an identity");
        let inode = inode.split_once(':').expect("the boot comes first").1;
        let earlier = SocketOrigin { namespace: Some(format!("another boot:{inode}")), ..own.clone() };
        assert!(check(&earlier, &namespace).is_err());
        let unknown = SocketOrigin { namespace: None, ..own };
        check(&unknown, &other).expect("nobody can tell");
        assert!(SocketOrigin::new("/nowhere", "x").namespace.is_none());
    }
}
