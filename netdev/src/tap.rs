//! Opens tap interfaces for drivers whose other end is the kernel's stack: created, taken over, or passed by
//! descriptor. Errors are complete sentences.
//!
//! ```
//! use linecard_netdev::{Namespace, tap, tun::Queues};
//! # fn example() -> Result<(), linecard_pmd::Error> {
//! let queue = tap::descriptor("net_tap0", &Namespace::default())?;
//! let name = tap::attach("net_tap0", &queue, "lc0", Queues::Many)?;
//! assert_eq!(name, "lc0");
//! # Ok(())
//! # }
//! ```

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use linecard_pmd::args::DevArgs;
use linecard_pmd::error::Error;

use super::{InterfaceInfo, Namespace, check_name, refusal, tun};
use tun::Queues;

/// Attributes of a tun interface (`linux/if_link.h`, `IFLA_TUN_…`).
const TUN_TYPE: u16 = 3;
const TUN_MULTI_QUEUE: u16 = 7;
const TUN_QUEUES: [u16; 2] = [8, 9];

/// Checks the name of an interface to create; the kernel replaces `%d` by a number.
///
/// # Errors
/// As for [`check_name`], and another `%`.
pub fn check_template(args: &DevArgs, name: &str) -> Result<(), Error> {
    check_name(args.name(), name)?;
    if name.matches('%').count() > usize::from(name.contains("%d")) {
        let remedy = "write %d at most once, where the kernel is to put a number";
        return Err(args.problem(format!("'iface={name}' is not possible"), remedy));
    }
    Ok(())
}

/// Returns the descriptor numbers in the argument `key`, as in `3:4`; none without the argument.
///
/// # Errors
/// Anything but numbers above 2, or the same number twice.
pub fn numbers(args: &DevArgs, key: &'static str) -> Result<Vec<i32>, Error> {
    let Some(text) = args.value(key) else { return Ok(Vec::new()) };
    let numbers: Vec<i32> = text.split(':').map_while(|piece| piece.parse().ok()).collect();
    let good = numbers.len() == text.split(':').count() && numbers.iter().all(|fd| *fd > 2);
    let twice = numbers.iter().enumerate().any(|(i, fd)| numbers[..i].contains(fd));
    if !good || twice {
        let remedy = format!("give the numbers of open descriptors, each once, as in {key}=3:4");
        return Err(args.problem(format!("'{key}={text}' is not possible"), remedy));
    }
    Ok(numbers)
}

/// Opens a new descriptor of the tun device in a namespace.
///
/// # Errors
/// The device does not exist, this user may not open it, or the namespace cannot be entered.
pub fn descriptor(port: &str, namespace: &Namespace) -> Result<OwnedFd, Error> {
    namespace.enter(port, tun::open)?.map_err(|error| {
        let missing = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENXIO | libc::ENODEV));
        let action = format!("opening {}", tun::DEVICE);
        if missing {
            let remedy = "load it with 'modprobe tun', or give the container --device /dev/net/tun";
            return Error::System { port: port.into(), action, source: error, remedy: remedy.into() };
        }
        refusal(port, &action, error)
    })
}

/// Attaches one more queue to an existing interface.
///
/// # Errors
/// The kernel refuses: no permission, in use by another program, too many queues.
pub fn attach(port: &str, fd: &OwnedFd, name: &str, queues: Queues) -> Result<String, Error> {
    tun::attach(fd.as_fd(), name, queues).map_err(|error| match error.raw_os_error() {
        Some(libc::E2BIG) => Error::System {
            port: port.into(),
            action: format!("adding a queue to interface {name}"),
            source: error,
            remedy: "ask for fewer queues".into(),
        },
        _ => refusal(port, &format!("opening the interface {name}"), error),
    })
}

/// Checks whether an existing interface can be taken over with the `wanted` queues; returns the kind that it
/// has.
///
/// # Errors
/// It is no tap interface, has only one queue, or is in use by another program.
pub fn usable(port: &str, info: &InterfaceInfo, wanted: Queues) -> Result<Queues, Error> {
    let name = &info.name;
    let problem =
        |problem: String, remedy: String| Err(Error::Argument { device: port.into(), problem, remedy });
    if info.driver != "tun" || info.datum(TUN_TYPE) != Some(libc::IFF_TAP.cast_unsigned()) {
        let kind = match info.driver.as_str() {
            "" => "no tap interface".to_owned(),
            "tun" => "a tun interface, not a tap interface".to_owned(),
            other => format!("a {other} interface, not a tap interface"),
        };
        return problem(format!("'{name}' is {kind}"), "choose another name with iface=".into());
    }
    let has = if info.datum(TUN_MULTI_QUEUE) == Some(0) { Queues::One } else { Queues::Many };
    if (has, wanted) == (Queues::One, Queues::Many) {
        let remedy = format!("make it with 'ip tuntap add dev {name} mode tap multi_queue vnet_hdr'");
        return problem(format!("'{name}' is a tap interface of one queue only"), remedy);
    }
    if TUN_QUEUES.iter().any(|queues| info.datum(*queues).is_some_and(|count| count > 0)) {
        let remedy = "end that program, or choose another name with iface=".into();
        return problem(format!("another program uses the interface '{name}'"), remedy);
    }
    Ok(has)
}

/// Takes over the descriptors in the argument `key`, all queues of one tap interface; returns the interface's
/// name.
///
/// # Errors
/// There is no such descriptor, it is no queue of a suitable tap interface, or it belongs to another
/// interface.
///
/// # Safety
/// No other code in this process uses or closes the descriptors with those numbers.
pub unsafe fn passed(port: &str, key: &str, numbers: &[i32]) -> Result<(String, Vec<OwnedFd>), Error> {
    let problem = |number: i32, problem: String| Error::Argument {
        device: port.into(),
        problem: format!("{key}={number} cannot be used: {problem}"),
        remedy: "pass descriptors of /dev/net/tun, each attached to one tap interface by TUNSETIFF".into(),
    };
    let system = |number: i32| move |error: io::Error| problem(number, error.to_string());
    let (mut name, mut queues) = (String::new(), Vec::new());
    for &number in numbers {
        // SAFETY: the caller promises that the descriptor has no other user.
        let fd = unsafe { tun::take(number) }.map_err(system(number))?;
        let found = tun::attached(fd.as_fd()).map_err(|text| problem(number, text))?;
        if !name.is_empty() && found != name {
            return Err(problem(number, format!("it is a queue of {found}, the one before of {name}")));
        }
        tun::prepare(fd.as_fd()).map_err(system(number))?;
        name = found;
        queues.push(fd);
    }
    Ok((name, queues))
}
