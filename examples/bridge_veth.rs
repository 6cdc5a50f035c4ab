//! Joins a veth, with the kernel's stack at its other end, and a vhost-user port: `ping` reaches a program without a stack.
//!
//! ```text
//! sudo unshare --net target/release/examples/bridge_veth      (after cargo build --release --examples --bins)
//! ```
//! ```text
//!  ping ─ kernel ─ lc0 ══ lc1 ─ net_af_packet ─ this program ─ net_vhost ─── net_virtio_user ─ linecard testpmd, icmpecho
//!        192.0.2.1      veth pair                                      socket                  answers for 192.0.2.2
//! ```
//! Without arguments it makes the pair, starts the testpmd beside it and pings three times; all of it is gone afterwards.
//! With two devices as arguments it joins those, until Ctrl-C ends it.
#![forbid(unsafe_code)]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use linecard::pmd::contain::contain;
use linecard::prelude::*;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Joins two devices until `done`. A bridge that has nothing to do leaves the core to others.
fn bridge(devices: [&str; 2], mut done: impl FnMut(&[Port; 2]) -> Outcome<bool>) -> Outcome {
    let (args, _) = EalArgs::parse(["-m", "64"])?;
    let eal = Eal::new(&args)?;
    let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(8192))?;
    // A driver that panics costs its queue; the other port goes on.
    let open = |device| linecard::open(&eal, &pool, device).map(contain);
    let mut ports = [open(devices[0])?, open(devices[1])?];
    let (mut packets, mut adaptive) = (Burst::new(), Adaptive::default());
    while !done(&ports)? {
        let [left, right] = &mut ports;
        let mut moved = left.rx[0].rx_burst(&mut packets);
        right.tx[0].tx_burst(&mut packets);
        packets.clear();
        moved += right.rx[0].rx_burst(&mut packets);
        left.tx[0].tx_burst(&mut packets);
        packets.clear();
        if moved == 0 {
            left.tx[0].reclaim();
            right.tx[0].reclaim();
        }
        adaptive.wait(moved, &mut [&mut *left.rx[0], &mut *right.rx[0]]);
    }
    for port in ports {
        let stats = port.control.stats();
        println!("{}: {} packets received, {} sent", port.control.name(), stats.ipackets, stats.opackets);
        port.stop();
    }
    Ok(())
}

/// `ip` with these arguments.
fn ip(arguments: &str) -> Outcome {
    let status = Command::new("ip").args(arguments.split(' ')).status()?;
    if status.success() { Ok(()) } else { Err(format!("'ip {arguments}' failed; run this as root").into()) }
}

/// A program that is ended when this value goes.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The veth pair, removed when this value goes.
struct Pair;

impl Pair {
    fn make() -> Outcome<Self> {
        ip("link add lc0 type veth peer name lc1")?;
        let pair = Self;
        ip("addr add 192.0.2.1/24 dev lc0")?;
        ip("link set lc0 up")?;
        ip("link set lc1 up")?;
        Ok(pair)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = ip("link del lc0");
    }
}

/// The command `linecard`, from the folder above the examples' or from where LINECARD says.
fn linecard() -> Outcome<PathBuf> {
    if let Some(given) = std::env::var_os("LINECARD") {
        return Ok(given.into());
    }
    let mut path = std::env::current_exe()?;
    path.pop();
    path.set_file_name("linecard");
    if path.exists() {
        Ok(path)
    } else {
        Err(format!("there is no {}; build it first", path.display()).into())
    }
}

/// Ping, through the bridge, to a testpmd that answers.
fn demonstrate(stop: &AtomicBool) -> Outcome {
    let (_pair, socket) = (Pair::make()?, format!("/tmp/bridge_veth-{}.sock", std::process::id()));
    let vdev = format!("net_virtio_user0,path={socket},server=0");
    let (mut testpmd, mut ping) = (None, None::<Helper>);
    let start = Instant::now();
    bridge(["net_af_packet0,iface=lc1", &format!("net_vhost0,iface={socket}")], |[_, vhost]| {
        if testpmd.is_none() {
            let mut command = Command::new(linecard()?);
            command.args(["testpmd", "--no-huge", "-m", "64", "--vdev", &vdev, "--"]);
            command.args(["--forward-mode=icmpecho", "--total-num-mbufs=2048"]);
            testpmd = Some(Helper(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?));
        }
        if ping.is_none() && vhost.control.link().up {
            ping = Some(Helper(
                Command::new("ping").args(["-c", "3", "-w", "30", "-i", "0.3", "192.0.2.2"]).spawn()?,
            ));
        }
        match ping.as_mut().map(|ping| ping.0.try_wait()).transpose()?.flatten() {
            Some(status) if status.success() => Ok(true),
            Some(status) => Err(format!("ping got no answer ({status})").into()),
            None if start.elapsed() > Duration::from_secs(60) => {
                Err("nothing came up within a minute".into())
            }
            None => Ok(stop.load(Ordering::Relaxed)),
        }
    })
}

/// An error is one sentence on standard error.
fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let devices: Vec<String> = std::env::args().skip(1).collect();
    match devices.as_slice() {
        [] => demonstrate(&stop),
        [left, right] => bridge([left, right], |_| Ok(stop.load(Ordering::Relaxed))),
        _ => Err("name two devices, or none for a demonstration".into()),
    }
}
