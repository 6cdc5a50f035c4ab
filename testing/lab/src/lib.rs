//! For tests: the requirements on every driver ([`contract`]), and network namespaces for tests ([`Lab`],
//! [`Cable`]).
//!
//! A [`Lab`] is a network namespace for one test; it and everything in it is removed when the test ends.
//!
//! The namespace has no name and exists only while it is referenced, so even a killed test leaves nothing
//! behind. Its path ([`Lab::path`]) is the value for a driver's argument `netns=`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Output};

use linecard_testing::{IN_USER_NAMESPACE, Rerun, in_user_namespace};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use linecard_netdev::{Interface, Namespace};

mod cable;
pub mod contract;
mod held_pages;
mod log;
mod watchers;
mod wire;

pub use cable::Cable;
pub use held_pages::HeldPages;
pub use linecard_testing::{PATIENCE, Prng, skip, two_cores, wait_for, wait_until};
pub use log::Log;
pub use watchers::{Watchers, processor_time};
pub use wire::Wire;

/// A network namespace of a test; its interface `lo` is up.
///
/// ```
/// use linecard_lab::Lab;
/// # fn main() {
/// let Some(lab) = Lab::new("doc example") else { return };
/// lab.veth("a", "b");
/// assert!(lab.interface("a").link().up);
/// # }
/// ```
#[derive(Debug)]
pub struct Lab {
    namespace: Namespace,
    path: String,
}

impl Lab {
    /// Creates a namespace for the test of that name. Returns `None` if the test has nothing left to do:
    /// either a program is missing, which is reported ([`skip`]), or the user may not create namespaces, and
    /// the whole test has already passed in a separate process as root of a user namespace
    /// ([`in_user_namespace`]).
    ///
    /// # Panics
    /// The test failed in that process, it must not be skipped (`LINECARD_REQUIRE_ALL`), or the kernel
    /// behaves unexpectedly.
    #[must_use]
    pub fn new(test: &str) -> Option<Self> {
        let made = std::thread::spawn(|| -> io::Result<OwnedFd> {
            // SAFETY: leaving the network namespace affects only this thread, and it owns no socket.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            Ok(std::fs::File::open("/proc/thread-self/ns/net")?.into())
        });
        let fd = match made.join().expect("no panic") {
            Ok(fd) => fd,
            Err(error) => {
                if let Rerun::Refused(why) = in_user_namespace(test) {
                    skip(
                        test,
                        &format!("no network namespace of its own ({error}) and {why}; run it as root"),
                    );
                }
                return None;
            }
        };
        let path = format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
        let lab = Self { namespace: Namespace::from_fd(&path, fd), path };
        if let Err(error) = lab.output("ip", &["-V"]) {
            skip(test, &format!("no program 'ip' ({error}); install iproute2"));
            return None;
        }
        lab.ip("link set lo up");
        // Interfaces created from now on get no IPv6 address automatically, and so send nothing on their own.
        // A kernel without IPv6 does not have this file.
        let _ = lab.run(|| std::fs::write("/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1"));
        Some(lab)
    }

    /// The same as [`new`](Self::new), but `None` too if XDP sockets and programs are not available
    /// ([`has_xdp`](Self::has_xdp)).
    ///
    /// # Panics
    /// See [`new`](Self::new).
    #[must_use]
    pub fn with_xdp(test: &str) -> Option<Self> {
        Self::new(test).filter(|lab| lab.has_xdp(test))
    }

    /// The same as [`new`](Self::new), but always as root of a user namespace, even if the test is run by root.
    ///
    /// # Panics
    /// See [`new`](Self::new).
    #[must_use]
    pub fn in_user_namespace(test: &str) -> Option<Self> {
        if std::env::var_os(IN_USER_NAMESPACE).is_some() {
            return Self::new(test);
        }
        if let Rerun::Refused(why) = in_user_namespace(test) {
            skip(test, &why);
        }
        None
    }

    /// Whether XDP sockets and programs are available inside; they need a capability that root of a user
    /// namespace does not have (CAP_BPF). If not, reports that `test`, or this part of it, is skipped.
    ///
    /// # Panics
    /// The test must not be skipped.
    #[must_use]
    pub fn has_xdp(&self, test: &str) -> bool {
        let works = self.run(linecard_net_af_xdp::available);
        if let Err(error) = &works {
            skip(
                test,
                &format!("no XDP sockets and programs ({error}); it needs root and CONFIG_XDP_SOCKETS"),
            );
        }
        works.is_ok()
    }

    /// Returns the value for `netns=`, for programs that run no longer than this one.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Runs `work` inside: its sockets belong to the namespace, and the programs that it starts run there.
    ///
    /// # Panics
    /// `work` panicked.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace.run(work).expect("a namespace that we made can be entered")
    }

    /// Runs a program inside and waits for its end.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn output(&self, program: &str, arguments: &[&str]) -> io::Result<Output> {
        self.run(|| Command::new(program).args(arguments).output())
    }

    /// Pings `address` with `count` requests of `bytes` bytes, and waits for as many replies; panics with the
    /// output of `ping` if one is missing. By default `ping` waits for the last reply only twice as long as
    /// for the slowest one before.
    ///
    /// # Errors
    /// `ping` cannot be started.
    ///
    /// # Panics
    /// A request was not answered, or `ping` failed.
    pub fn ping(&self, address: &str, count: u32, bytes: u32) -> io::Result<()> {
        let (limit, size) = (count.to_string(), bytes.to_string());
        let output = self.output("ping", &["-c", &limit, "-w", "60", "-i", "0.02", "-s", &size, address])?;
        let text = String::from_utf8_lossy(&output.stdout);
        for request in 1..=count {
            assert!(text.contains(&format!("icmp_seq={request} ")), "no reply to request {request}: {text}");
        }
        assert!(output.status.success(), "{text}");
        Ok(())
    }

    /// Runs `ip` with these arguments, separated by spaces; returns its output.
    ///
    /// # Panics
    /// `ip` fails.
    pub fn ip(&self, arguments: &str) -> String {
        let output = self.output("ip", &arguments.split_whitespace().collect::<Vec<_>>()).expect("ip runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {arguments}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Creates a veth pair with both interfaces up. Both send no packets of the kernel's own (router
    /// solicitations, duplicate address detection).
    ///
    /// # Panics
    /// The pair cannot be created, or does not come up.
    pub fn veth(&self, one: &str, other: &str) {
        self.ip(&format!("link add name {one} type veth peer name {other}"));
        for name in [one, other] {
            self.ip(&format!("link set dev {name} addrgenmode none"));
            self.ip(&format!("link set dev {name} up"));
        }
        // The kernel reports the carrier a little later.
        wait_until("the carrier of a pair", || {
            [one, other].iter().all(|name| self.interface(name).link().up)
        });
    }

    /// Opens a raw socket on an interface inside.
    ///
    /// # Panics
    /// There is no interface of that name.
    #[must_use]
    pub fn wire(&self, name: &str) -> Wire {
        let index = self.interface(name).index();
        self.run(|| Wire::open(index)).expect("a packet socket")
    }

    /// Returns an interface inside.
    ///
    /// # Panics
    /// There is no interface of that name.
    #[must_use]
    pub fn interface(&self, name: &str) -> Interface {
        Interface::find("the test", &self.namespace, name).expect("the interface is there")
    }
}
