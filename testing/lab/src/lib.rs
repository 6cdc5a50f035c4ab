//! For tests: what every driver must do ([`contract`]), and network namespaces in which to try it ([`Lab`], [`Cable`]).
//!
//! A [`Lab`] is a network namespace for one test, with what the test puts there, gone with the test.
//!
//! The namespace has no name: it lives as long as somebody holds it, so that not even a killed test leaves it behind.
//! Its path ([`Lab::path`]) is what a driver's `netns=` takes.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Output};

use linecard_testing::{Rerun, in_user_namespace};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use linecard_netdev::{Interface, Namespace};

mod cable;
pub mod contract;
mod watchers;
mod wire;

pub use cable::Cable;
pub use linecard_testing::{PATIENCE, Prng, skip, two_cores, wait_for, wait_until};
pub use watchers::{Watchers, processor_time};
pub use wire::Wire;

/// A namespace of a test's own; `lo` is up in it.
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
    /// A fresh namespace for the test of that name; `None` where there is nothing left to do: a program is missing, which
    /// is said loudly ([`skip`]), or the user may not have a namespace and the whole test ran in a process of its own as
    /// root of a user namespace ([`in_user_namespace`]) and passed there.
    ///
    /// # Panics
    /// It failed there, it must not be skipped (`LINECARD_REQUIRE_ALL`), or the kernel does something unheard of.
    #[must_use]
    pub fn new(test: &str) -> Option<Self> {
        let made = std::thread::spawn(|| -> io::Result<OwnedFd> {
            // SAFETY: leaving the network namespace concerns this thread alone, and it owns no socket.
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
        // Interfaces made from here on have no IPv6 address by themselves, and so send nothing by themselves. A kernel
        // without IPv6 has no such file.
        let _ = lab.run(|| std::fs::write("/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1"));
        Some(lab)
    }

    /// As [`new`](Self::new), where XDP sockets and programs can be had as well ([`has_xdp`](Self::has_xdp)).
    ///
    /// # Panics
    /// As [`new`](Self::new).
    #[must_use]
    pub fn with_xdp(test: &str) -> Option<Self> {
        Self::new(test).filter(|lab| lab.has_xdp(test))
    }

    /// Whether XDP sockets and programs can be had inside, which takes rights that root of a user namespace has not
    /// (CAP_BPF); `test`, or this part of it, is skipped where not.
    ///
    /// # Panics
    /// It must not be skipped.
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

    /// What `netns=` takes, for programs that run while this one does.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Does `work` inside: sockets made there belong to the namespace, programs started there run in it.
    ///
    /// # Panics
    /// `work` panicked.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace.run(work).expect("a namespace that we made can be entered")
    }

    /// Runs a program inside to its end.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn output(&self, program: &str, arguments: &[&str]) -> io::Result<Output> {
        self.run(|| Command::new(program).args(arguments).output())
    }

    /// Has `address` pinged with so many requests of `bytes`, until as many replies have come; says what `ping` printed when one was
    /// left out. `ping` by itself waits for the last one no longer than twice the longest before.
    ///
    /// # Errors
    /// `ping` cannot be started.
    ///
    /// # Panics
    /// A request was not answered.
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

    /// `ip` with these arguments, separated by blanks; returns what it printed.
    ///
    /// # Panics
    /// It fails.
    pub fn ip(&self, arguments: &str) -> String {
        let output = self.output("ip", &arguments.split_whitespace().collect::<Vec<_>>()).expect("ip runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {arguments}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A pair of interfaces that are each other's other end, both up. The kernel's own chatter (router solicitations,
    /// duplicate address detection) is off on both.
    ///
    /// # Panics
    /// They cannot be made, or do not come up.
    pub fn veth(&self, one: &str, other: &str) {
        self.ip(&format!("link add name {one} type veth peer name {other}"));
        for name in [one, other] {
            self.ip(&format!("link set dev {name} addrgenmode none"));
            self.ip(&format!("link set dev {name} up"));
        }
        // The kernel tells of the carrier a little later.
        wait_until("the carrier of a pair", || {
            [one, other].iter().all(|name| self.interface(name).link().up)
        });
    }

    /// A raw socket on an interface inside.
    ///
    /// # Panics
    /// There is none of that name.
    #[must_use]
    pub fn wire(&self, name: &str) -> Wire {
        let index = self.interface(name).index();
        self.run(|| Wire::open(index)).expect("a packet socket")
    }

    /// An interface inside.
    ///
    /// # Panics
    /// There is none of that name.
    #[must_use]
    pub fn interface(&self, name: &str) -> Interface {
        Interface::find("the test", &self.namespace, name).expect("the interface is there")
    }
}
