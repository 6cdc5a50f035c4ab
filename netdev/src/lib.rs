//! Finds, reads and changes kernel interfaces in any network namespace; used by every driver of such an
//! interface.
//!
//! Interfaces are queried and changed by route netlink over one socket: no `/sys`, no `/proc`, no helper
//! programs.
//!
//! ```
//! use linecard_netdev::{Interface, Namespace};
//! let lo = Interface::find("net_af_packet0", &Namespace::default(), "lo")?;
//! let info = lo.info()?;
//! assert_eq!((info.name.as_str(), info.kind), ("lo", linecard_netdev::LOOPBACK));
//! let problem = Interface::find("net_af_packet0", &Namespace::default(), "la").expect_err("there is none");
//! assert!(problem.to_string().contains("did you mean 'lo'?"));
//! # Ok::<(), linecard_pmd::Error>(())
//! ```

mod info;
mod interface;
mod namespace;
pub mod netlink;
pub mod packet_socket;
mod passed_tap;
mod placeholder;
pub mod tap;
pub mod tun;
mod watch;

use std::io;

pub use info::{InterfaceInfo, KernelStats, OperState};
pub use interface::Interface;
pub use interface::check_name;
pub use namespace::Namespace;
pub use placeholder::Placeholder;
pub use watch::LinkWatch;

use linecard_pmd::error::Error;

/// [`InterfaceInfo::kind`] of Ethernet interfaces (`ARPHRD_ETHER`).
pub const ETHER: u16 = libc::ARPHRD_ETHER;
/// [`InterfaceInfo::kind`] of `lo` (`ARPHRD_LOOPBACK`).
pub const LOOPBACK: u16 = libc::ARPHRD_LOOPBACK;
/// The longest name of an interface, in bytes.
pub const NAME_LEN: usize = libc::IFNAMSIZ - 1;

/// Returns an error for a refusal of the kernel, with a remedy.
///
/// ```
/// use linecard_netdev::refusal;
/// let denied = std::io::Error::from_raw_os_error(1);
/// let message = refusal("net_tap0", "making an interface", denied).to_string();
/// assert!(message.starts_with("net_tap0: making an interface: Operation not permitted"));
/// assert!(message.contains("sudo setcap cap_net_admin,cap_net_raw+ep"));
/// ```
#[must_use]
pub fn refusal(port: &str, action: &str, source: io::Error) -> Error {
    let remedy = match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "run as root, or give the program the right once: sudo setcap cap_net_admin,cap_net_raw+ep PROGRAM"
        }
        Some(libc::ENODEV | libc::ENXIO) => "the interface is gone; list what is there with 'ip link'",
        Some(libc::EBUSY) => "somebody else uses it; end that program, or choose another interface",
        Some(libc::EOPNOTSUPP) => "this interface or kernel cannot do it; choose another interface",
        Some(libc::EINVAL | libc::ERANGE) => "the interface does not take that value; see 'ip -d link'",
        Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files with 'ulimit -n'",
        Some(libc::ENOBUFS | libc::ENOMEM) => "the kernel has no memory for it; ask for less",
        _ => "see 'dmesg' for what the kernel says",
    };
    Error::System { port: port.into(), action: action.into(), source, remedy: remedy.into() }
}

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
