//! The device arguments of `net_af_xdp`: DPDK's names and defaults, and additional arguments.

use std::os::fd::RawFd;
use std::path::PathBuf;

use super::bpf::Mode;
use linecard_pmd::args::DevArgs;
use linecard_pmd::error::Error;

/// The most queues of a port.
pub(super) const MAX_QUEUES: u32 = 256;
/// The packets per busy-polling call; DPDK's default.
const BUSY_BUDGET: u32 = 64;

/// The XDP program and map that redirect frames to the sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RedirectSource {
    /// The driver's own program, attached in the first of these modes that works.
    Own(&'static [Mode]),
    /// A pinned program, attached in the same way.
    Pinned(PathBuf, &'static [Mode]),
    /// A pinned map, whose program is already attached.
    Map(PathBuf),
}

/// The requested options.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) iface: String,
    pub(super) start_queue: u32,
    pub(super) queue_count: u32,
    pub(super) shared_umem: bool,
    pub(super) force_copy: bool,
    /// The packets per call when busy polling; 0 for interrupts.
    pub(super) busy_budget: u32,
    pub(super) way: RedirectSource,
    /// Sockets that another process opened, one for each queue.
    pub(super) passed: Vec<RawFd>,
}

impl Options {
    /// Reads all arguments except `netns`, which is queried only to mark it as known.
    pub(super) fn read(args: &DevArgs) -> Result<Self, Error> {
        let options = Self {
            iface: args.required("iface")?.to_owned(),
            start_queue: args.number("start_queue", 0..=u32::from(u16::MAX))?.unwrap_or(0),
            queue_count: args.number("queue_count", 1..=MAX_QUEUES)?.unwrap_or(1),
            shared_umem: args.flag("shared_umem")?.unwrap_or(false),
            force_copy: args.flag("force_copy")?.unwrap_or(false),
            busy_budget: args.number("busy_budget", 0..=u32::from(u16::MAX))?.unwrap_or(BUSY_BUDGET),
            way: way(args)?,
            passed: passed(args)?,
        };
        let _ = args.value("netns");
        args.finish()?;
        let (sockets, queues) = (options.passed.len(), options.queue_count);
        if sockets > 0 && sockets != queues as usize {
            let problem = format!("{sockets} passed sockets do not fit queue_count={queues}");
            return Err(args.problem(problem, "give one for each queue, as in fd=5:6,queue_count=2"));
        }
        Ok(options)
    }
}

fn way(args: &DevArgs) -> Result<RedirectSource, Error> {
    let mode = args.choice("mode", &["auto", "drv", "skb"])?;
    let modes: &'static [Mode] = match mode {
        Some("drv") => &[Mode::Native],
        Some("skb") => &[Mode::Generic],
        _ => &[Mode::Native, Mode::Generic],
    };
    // DPDK's two arguments for the same setting.
    let pinned = args.flag("use_pinned_map")?.unwrap_or(false);
    let dp_path = args.value("dp_path").map(str::to_owned);
    let map = args.value("map").map(str::to_owned);
    let program = args.value("xdp_prog").map(str::to_owned);
    if pinned && dp_path.is_none() && map.is_none() {
        return Err(args.problem("use_pinned_map=1 has no dp_path", "give dp_path=/sys/fs/bpf/NAME"));
    }
    match (map.or(dp_path), program) {
        (Some(_), Some(_)) => Err(args.problem(
            "'map' and 'xdp_prog' exclude each other",
            "leave xdp_prog out: the map has its program",
        )),
        (Some(_), None) if mode.is_some() => {
            Err(args
                .problem("'map' and 'mode' exclude each other", "leave mode out: the map has its program"))
        }
        (Some(map), None) => Ok(RedirectSource::Map(map.into())),
        (None, Some(program)) => Ok(RedirectSource::Pinned(program.into(), modes)),
        (None, None) => Ok(RedirectSource::Own(modes)),
    }
}

fn passed(args: &DevArgs) -> Result<Vec<RawFd>, Error> {
    let Some(text) = args.value("fd") else { return Ok(Vec::new()) };
    let numbers: Option<Vec<RawFd>> =
        text.split(':').map(|one| one.parse().ok().filter(|fd| *fd >= 0)).collect();
    let numbers = numbers.ok_or_else(|| {
        args.problem(
            format!("'fd={text}' is not possible"),
            "give descriptors of XDP sockets, as in fd=5 or fd=5:6",
        )
    })?;
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() < numbers.len() {
        return Err(args.problem(format!("'fd={text}' names a socket twice"), "give each queue its own"));
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Options, String> {
        let args = DevArgs::parse(text).expect("well formed");
        Options::read(&args).map_err(|error| error.to_string())
    }

    #[test]
    fn dpdks_defaults() {
        let options = read("net_af_xdp0,iface=eth0").expect("possible");
        assert_eq!((options.start_queue, options.queue_count, options.shared_umem), (0, 1, false));
        assert_eq!((options.force_copy, options.busy_budget), (false, 64));
        assert_eq!(options.way, RedirectSource::Own(&[Mode::Native, Mode::Generic]));
    }

    #[test]
    fn all_of_them() {
        let text = "net_af_xdp0,iface=eth0,start_queue=2,queue_count=2,shared_umem=1,force_copy=1,busy_budget=0,\
                    netns=blue,fd=7:9,map=/sys/fs/bpf/m";
        let options = read(text).expect("possible");
        assert_eq!((options.start_queue, options.queue_count, options.shared_umem), (2, 2, true));
        assert_eq!((options.passed, options.way), (vec![7, 9], RedirectSource::Map("/sys/fs/bpf/m".into())));
        let options =
            read("net_af_xdp0,iface=eth0,use_pinned_map=1,dp_path=/sys/fs/bpf/m").expect("possible");
        assert_eq!(options.way, RedirectSource::Map("/sys/fs/bpf/m".into()));
        let options = read("net_af_xdp0,iface=eth0,xdp_prog=/sys/fs/bpf/p,mode=skb").expect("possible");
        assert_eq!(options.way, RedirectSource::Pinned("/sys/fs/bpf/p".into(), &[Mode::Generic]));
    }

    #[test]
    fn refusals() {
        for (text, want) in [
            ("", "'iface' is missing; write net_af_xdp0,iface=VALUE"),
            (
                "iface=a,queue_count=0",
                "'queue_count=0' is not possible; give queue_count a number from 1 to 256",
            ),
            ("iface=a,fd=x", "'fd=x' is not possible; give descriptors of XDP sockets, as in fd=5 or fd=5:6"),
            ("iface=a,fd=5:5,queue_count=2", "'fd=5:5' names a socket twice; give each queue its own"),
            (
                "iface=a,fd=5:6",
                "2 passed sockets do not fit queue_count=1; give one for each queue, as in fd=5:6,queue_count=2",
            ),
            ("iface=a,mode=x", "'mode=x' is not possible; give mode one of auto, drv, skb"),
            (
                "iface=a,map=/m,xdp_prog=/p",
                "'map' and 'xdp_prog' exclude each other; leave xdp_prog out: the map has its program",
            ),
            (
                "iface=a,map=/m,mode=skb",
                "'map' and 'mode' exclude each other; leave mode out: the map has its program",
            ),
            ("iface=a,use_pinned_map=1", "use_pinned_map=1 has no dp_path; give dp_path=/sys/fs/bpf/NAME"),
        ] {
            let got = read(&format!("net_af_xdp0,{text}")).expect_err(text);
            assert_eq!(got, format!("net_af_xdp0: {want}"));
        }
        let unknown = read("net_af_xdp0,iface=a,que_count=1").expect_err("unknown");
        assert!(unknown.contains("unknown argument 'que_count'"), "{unknown}");
    }
}
