//! The command line.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use linecard_switch::api::{PortKind, PortSpec};

use super::ctl::CtlArgs;
use super::port;
use crate::error::Error;

/// Arguments of `linecard switch`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct SwitchArgs {
    #[command(subcommand)]
    pub(crate) command: Option<SwitchCommand>,
    /// Listen for a vhost-user frontend (virtual machine, container) at this path; may be repeated
    ///
    /// Options follow the path: client (connect instead), key=NAME, mac=ADDRESS, ip=ADDRESS (may be repeated), vlan=N,
    /// trunk=N:N:..., native=N, mtu=BYTES, queues=N, workers=N:N (which poll the queues), rate=BITS (a second), flood-rate=FRAMES (to
    /// all, a second), broadcast-rate=FRAMES, multicast-rate=FRAMES and unknown-rate=FRAMES (which do not count for that then),
    /// max-macs=N, learn-rate=N (new addresses a second), isolated, mode=0660, group=NAME.
    #[arg(long = "port", value_name = "PATH[,OPTION...]")]
    ports: Vec<String>,
    /// Make a kernel interface of this name and attach it; options as for --port; may be repeated
    #[arg(long = "tap", value_name = "NAME[,OPTION...]")]
    taps: Vec<String>,
    /// Join network VNI of other hosts by UDP (VXLAN); options as for --port, and remote=ADDRESS (may be repeated),
    /// local=ADDRESS, port=4789, ttl=64, any-peer; may be repeated
    #[arg(long = "vxlan", value_name = "VNI[,OPTION...]")]
    vxlans: Vec<String>,
    /// Attach any device, as `linecard testpmd --vdev` takes it; may be repeated
    #[arg(long = "vdev", value_name = "DEVICE")]
    vdevs: Vec<String>,
    /// Settings and ports, in TOML
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where to be controlled; `none` for nowhere [default: /run/linecard/switch.sock, for root]
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Take over from the switch that answers at the control socket: its ports stay connected, and it ends
    ///
    /// Ports, learned addresses and counters come along; ports that are configured here and not there are added. A port
    /// that both have must be configured alike. Should anything of this fail, the earlier switch goes on as if nothing had been.
    #[arg(long)]
    pub(crate) take_over: bool,
    /// Have a small process hold the connections of all ports, which starts the switch and starts it again if it is killed:
    /// frontends stay connected
    #[arg(long, conflicts_with_all = ["fd_store", "take_over"])]
    pub(crate) keep: bool,
    /// Keep the connections of all ports in the descriptor store of the service manager (systemd's FileDescriptorStoreMax=), where
    /// a switch that is started after this one was killed finds them
    #[arg(long)]
    pub(crate) fd_store: bool,
    /// Give up capabilities, the file system, programs and TCP, as far as the switch can do without
    ///
    /// What is left: the folders of the control socket, of the state and of the vhost-user sockets that are configured, and those of
    /// --sandbox-allow; CAP_NET_ADMIN if a tap is configured. What is given up is told in the guide, under Security.
    #[arg(long)]
    pub(crate) sandbox: bool,
    /// A folder for the sockets of ports that are added later; may be repeated
    #[arg(long, value_name = "DIR", requires = "sandbox")]
    pub(crate) sandbox_allow: Vec<PathBuf>,
    /// Where ports added by request are kept for a restart; `none` for nowhere [default: beside the control socket]
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// Answer ARP requests and neighbour solicitations for the addresses of ports (mac and ip), and do not send them to all
    #[arg(long)]
    pub(crate) neigh_suppress: bool,
    /// Offer counters to Prometheus by HTTP at this HOST:PORT or unix:PATH, under /metrics [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) metrics: Option<String>,
    /// Make no socket for `dpdk-telemetry.py -f switch` and `linecard top`
    #[arg(long)]
    pub(crate) no_telemetry: bool,
    /// Worker threads and their cores, such as 0@1 or (0-1)@2-3 [default: one on each core]
    #[arg(long, value_name = "MAP")]
    pub(crate) lcores: Option<String>,
    /// Limit on the memory of packets and rings
    #[arg(short = 'm', value_name = "MIB")]
    pub(crate) memory: Option<u32>,
    /// Use 4K pages
    #[arg(long)]
    pub(crate) no_huge: bool,
    /// Packets that can be on their way at once [default: 16384]
    #[arg(long, value_name = "PACKETS", value_parser = clap::value_parser!(u32).range(512..=4_194_304))]
    pub(crate) packets: Option<u32>,
    /// Addresses the switch can know [default: 65536]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub(crate) addresses: Option<u32>,
    /// Seconds after which an address that does not send is forgotten [default: 300]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) age: Option<u32>,
    /// 8, debug, or pattern:level; may be repeated
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Vec<String>,
}

/// What `linecard switch` can do beside switching.
#[derive(Subcommand, Debug)]
pub(crate) enum SwitchCommand {
    /// Control a running switch: its ports, addresses, statistics
    Ctl(CtlArgs),
}

impl SwitchArgs {
    /// Returns the ports of the command line.
    ///
    /// # Errors
    /// An argument is invalid.
    pub(crate) fn ports(&self) -> Result<Vec<PortSpec>, Error> {
        let mut ports = Vec::new();
        for (number, text) in self.ports.iter().enumerate() {
            ports.push(port::vhost(text, &format!("port{}", number + 1)).map_err(Error::Usage)?);
        }
        for text in &self.taps {
            ports.push(port::tap(text, None).map_err(Error::Usage)?);
        }
        for text in &self.vxlans {
            ports.push(port::vxlan(text, None).map_err(Error::Usage)?);
        }
        for device in &self.vdevs {
            let key = device.split(',').next().unwrap_or(device);
            ports.push(PortSpec::new(key, PortKind::Vdev { device: device.clone() }));
        }
        Ok(ports)
    }
}
