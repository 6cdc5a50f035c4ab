//! The arguments of `net_virtio_user`, as DPDK has them.

use std::path::PathBuf;

use linecard_pmd::{DevArgs, Error, Offloads};
use linecard_virtio::Layout;
use linecard_wire::socket::Access;

/// Most queue pairs: ring numbers go into one byte of a message.
pub(crate) const MAX_PAIRS: u16 = 128;

/// What the user asked for; DPDK's names and defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) server: bool,
    /// Whom the socket of a server lets in.
    pub(crate) access: Access,
    pub(crate) queues: u16,
    pub(crate) queue_size: u16,
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) mrg_rxbuf: bool,
    pub(crate) in_order: bool,
    pub(crate) packed_vq: bool,
    /// Mbit/s to report.
    pub(crate) speed: Option<u32>,
    /// Asked for when the port is configured, not by arguments.
    pub(crate) offloads: Offloads,
}

/// One line for `--help`.
pub(crate) const SUMMARY: &str = "virtio-net frontend over a vhost-user socket: path=SOCKET[,server=0|1][,mode=0600..0666][,group=NAME][,queues=N]\
[,queue_size=N][,mac=XX:XX:XX:XX:XX:XX][,mrg_rxbuf=0|1][,in_order=0|1][,packed_vq=0|1][,vectorized=0|1][,cq=0|1]\
[,speed=MBPS]";

/// Longest path a socket address holds (`sun_path`, its final zero left out).
const MAX_PATH: usize = 107;

impl Options {
    /// Reads every argument; the first that is wrong is named.
    pub(crate) fn parse(args: &DevArgs) -> Result<Self, Error> {
        let path = PathBuf::from(args.required("path")?);
        let server = args.flag("server")?.unwrap_or(false);
        let options = Self {
            access: access(args, server)?,
            name: args.name().to_owned(),
            server,
            queues: args.number("queues", 1..=MAX_PAIRS)?.unwrap_or(1),
            queue_size: args.number("queue_size", 1..=linecard_virtio::layout::MAX_SIZE)?.unwrap_or(256),
            mac: args.mac("mac")?.map(|mac| mac.0),
            mrg_rxbuf: args.flag("mrg_rxbuf")?.unwrap_or(true),
            in_order: args.flag("in_order")?.unwrap_or(true),
            packed_vq: args.flag("packed_vq")?.unwrap_or(false),
            speed: args.number("speed", 0..=u32::MAX)?.filter(|speed| *speed != u32::MAX),
            offloads: Offloads::default(),
            path,
        };
        // The control queue of a vhost-user port never leaves the process, and every path here is written to be
        // vectorised: both switches are accepted and change nothing.
        args.flag("cq")?;
        args.flag("vectorized")?;
        let iface = args.value("iface").is_some();
        args.finish()?;
        options.check(args, iface)?;
        Ok(options)
    }

    fn check(&self, args: &DevArgs, iface: bool) -> Result<(), Error> {
        let layout = if self.packed_vq { Layout::Packed } else { Layout::Split };
        if layout.check_size(u32::from(self.queue_size)).is_err() {
            let problem = format!("a queue_size of {} is not a power of two", self.queue_size);
            return Err(args.problem(problem, "give a power of two up to 32768, or packed_vq=1"));
        }
        if self.path.as_os_str().len() > MAX_PATH {
            let problem = format!("the path has {} bytes", self.path.as_os_str().len());
            return Err(args.problem(problem, format!("use one of at most {MAX_PATH} bytes")));
        }
        if crate::sys::is_char_device(&self.path) {
            let problem = format!("'{}' is a device, and vhost-kernel is not there yet", self.path.display());
            return Err(args.problem(problem, "give the socket of a vhost-user backend"));
        }
        if iface {
            let problem = "'iface' names a tap of vhost-kernel, which is not there yet";
            return Err(args.problem(problem, "leave iface out"));
        }
        Ok(())
    }
}

fn access(args: &DevArgs, server: bool) -> Result<Access, Error> {
    let (rights, group) = (args.value("mode"), args.value("group"));
    if !server && (rights.is_some() || group.is_some()) {
        let problem = "'mode' and 'group' are of a socket that is made here, and only server=1 makes one";
        return Err(args.problem(problem, "leave them out, or add server=1"));
    }
    Access::of(rights, group).map_err(|error| args.problem(error.problem, error.remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, String> {
        let args = DevArgs::parse(text).expect("a device");
        Options::parse(&args).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_dpdks() {
        let options = parse("net_virtio_user0,path=/tmp/s").expect("enough");
        assert_eq!((options.queues, options.queue_size, options.server), (1, 256, false));
        assert_eq!((options.mrg_rxbuf, options.in_order, options.packed_vq), (true, true, false));
        assert_eq!((options.mac, options.speed), (None, None));
    }

    #[test]
    fn every_argument_is_read() {
        let options = parse(
            "virtio_user7,path=/tmp/s,queues=2,queue_size=300,mac=02:00:00:00:00:07,cq=1,server=1,mrg_rxbuf=0,\
             in_order=0,packed_vq=1,vectorized=1,speed=10000",
        )
        .expect("all known");
        assert_eq!((options.queues, options.queue_size, options.server), (2, 300, true));
        assert_eq!((options.mrg_rxbuf, options.in_order, options.packed_vq), (false, false, true));
        assert_eq!((options.mac, options.speed), (Some([2, 0, 0, 0, 0, 7]), Some(10_000)));
    }

    #[test]
    fn what_is_wrong_is_said_in_one_sentence() {
        let long = format!("net_virtio_user0,path=/{}", "x".repeat(200));
        for (text, part) in [
            ("net_virtio_user0", "'path' is missing"),
            ("net_virtio_user0,path=", "'path' is missing"),
            ("net_virtio_user0,path=/s,queues=0", "queues"),
            ("net_virtio_user0,path=/s,queues=129", "queues"),
            ("net_virtio_user0,path=/s,queue_size=0", "queue_size"),
            ("net_virtio_user0,path=/s,queue_size=300", "not a power of two"),
            ("net_virtio_user0,path=/s,queue_size=65536", "queue_size"),
            ("net_virtio_user0,path=/s,packed_vq=2", "packed_vq"),
            ("net_virtio_user0,path=/s,mac=01:00:5e:00:00:01", "mac"),
            ("net_virtio_user0,path=/s,mrgrxbuf=1", "did you mean 'mrg_rxbuf'"),
            ("net_virtio_user0,path=/s,iface=tap0", "iface"),
            ("net_virtio_user0,path=/s,mode=0660", "add server=1"),
            ("net_virtio_user0,path=/s,group=root", "add server=1"),
            ("net_virtio_user0,path=/s,server=1,mode=0777", "'mode=0777' is not possible"),
            ("net_virtio_user0,path=/s,server=1,group=none-such", "there is no group 'none-such'"),
            ("net_virtio_user0,path=/dev/null", "vhost-kernel is not there yet"),
            (long.as_str(), "bytes"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains('\n') && error.starts_with("net_virtio_user0: "), "{error}");
        }
    }
}
