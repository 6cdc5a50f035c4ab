//! One TCP connection between the kernels of two namespaces.
//!
//! ```text
//!  sender ── kernel ── tap ── testpmd io ── vhost ══ virtio-user ── testpmd io ── tap ── kernel ── receiver
//!            namespace A         core 0                                core 1            namespace B
//!  sender ── kernel ── veth ══════════════════════════════════════════════════ veth ── kernel ── receiver
//! ```
//! Sender and receiver are threads of this process, which the kernel schedules freely.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::cell::Side;
use super::namespace::{NEAR, TestNamespace};
use super::sample::{Figure, Snapshot, Testbed};
use crate::loopback::console::{Console, Failure};

/// Addresses of the benchmarking range (RFC 2544).
const FROM: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const TO: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const PORT: u16 = 5201;
/// Bytes per call, as in iperf3.
const CHUNK: usize = 128 << 10;
/// The time limit of the connection's setup, and that of a single call.
const PATIENCE: Duration = Duration::from_secs(5);
const CALL: Duration = Duration::from_millis(200);
/// Leaves checksums and segmentation to the far end. DPDK runs with its defaults: its tap accepts no large
/// packets from the kernel with any option (`ethtool -k`: tcp-segmentation-offload off).
const OURS: [&str; 3] = ["--enable-rx-cksum", "--enable-lro", "--tx-offloads=0x2e"];

impl Testbed {
    /// Measures gigabits of payload per second.
    pub(super) fn tcp(&self, side: Side) -> Result<Figure, Failure> {
        let namespace = || TestNamespace::new().map_err(|error| Failure::Program(error.to_string()));
        let ends = [namespace()?, namespace()?];
        let consoles = if side == Side::Kernel {
            let pid = ends[1].pid().to_string();
            ends[0].ip(&["link", "add", NEAR, "type", "veth", "peer", "name", NEAR, "netns", &pid])?;
            Vec::new()
        } else {
            self.joined(&ends, side)?
        };
        for (end, address) in ends.iter().zip([FROM, TO]) {
            end.interface(NEAR)?;
            end.quiet(NEAR)?;
            end.ip(&["address", "add", &format!("{address}/24"), "dev", NEAR])?;
        }
        let figure = self.carried(&ends)?;
        for mut console in consoles {
            console.command("stop")?;
            console.finish()?;
        }
        Ok(figure)
    }

    /// Starts two testpmds, each with a tap in one of the namespaces, and a socket between them.
    fn joined(&self, ends: &[TestNamespace; 2], side: Side) -> Result<Vec<Console>, Failure> {
        let socket = self.socket("tcp.sock");
        let [first, second] = self.cores;
        let vhost = format!(
            "net_vhost0,iface={},queues=1{}",
            socket.display(),
            if side == Side::Dpdk { "" } else { ",tso=1" }
        );
        let devices = [vhost, self.virtio_user(side, &socket)];
        let mut consoles = Vec::new();
        let names: [&'static str; 2] = ["backend", "frontend"];
        for (at, cores) in [[second, first], [first, second]].into_iter().enumerate() {
            let mut command = self.testpmd(side, names[at], cores);
            command
                .args(["--vdev", &format!("net_tap0,iface={NEAR}"), "--vdev", &devices[at]])
                .args(Self::APP);
            if side == Side::Linecard {
                command.args(OURS);
            }
            let console = ends[at].run(|| Console::start(names[at], &mut command, &self.interrupt))??;
            consoles.push(console);
        }
        for console in &mut consoles {
            // Frames that do not fit wait, so that TCP sees a slow path instead of loss.
            for line in ["set fwd io retry", "set burst tx delay 1 retry 1000", "start"] {
                console.command(line)?;
            }
        }
        Ok(consoles)
    }

    fn carried(&self, ends: &[TestNamespace; 2]) -> Result<Figure, Failure> {
        let failed = |what: &str, error: &io::Error| Failure::Program(format!("{what}: {error}"));
        let to = SocketAddr::from((TO, PORT));
        let listener = ends[1].run(|| TcpListener::bind(to))?.map_err(|e| failed("listening", &e))?;
        let sender = ends[0].run(|| connect(to))?.map_err(|e| failed("connecting through the ports", &e))?;
        let (receiver, _) = listener.accept().map_err(|e| failed("accepting", &e))?;
        for end in [&sender, &receiver] {
            end.set_read_timeout(Some(CALL)).map_err(|e| failed("a socket", &e))?;
            end.set_write_timeout(Some(CALL)).map_err(|e| failed("a socket", &e))?;
        }
        let (count, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| send(&sender, &stop));
            scope.spawn(|| receive(&receiver, &count, &stop));
            let figure = self.between(1_000_000_000, || Ok(Snapshot::of(8 * count.load(Ordering::Relaxed))));
            stop.store(true, Ordering::Relaxed);
            figure
        })
    }
}

/// Connects, with retries, because the ports behind the interface may not be ready yet.
fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect_timeout(&to, PATIENCE / 4) {
            Err(_) if Instant::now() < deadline => thread::sleep(CALL / 10),
            result => return result,
        }
    }
}

/// Whether a call that was interrupted or timed out is to be repeated.
fn again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn send(mut to: &TcpStream, stop: &AtomicBool) {
    let chunk = vec![0; CHUNK];
    while !stop.load(Ordering::Relaxed) {
        if to.write(&chunk).is_err_and(|error| !again(&error)) {
            return;
        }
    }
}

fn receive(mut from: &TcpStream, count: &AtomicU64, stop: &AtomicBool) {
    let mut chunk = vec![0; CHUNK];
    while !stop.load(Ordering::Relaxed) {
        match from.read(&mut chunk) {
            Ok(0) => return,
            Ok(bytes) => {
                count.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Err(error) if again(&error) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_counted_until_told_to_stop() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let sender = connect(listener.local_addr().expect("bound")).expect("it listens");
        let (receiver, _) = listener.accept().expect("it was called");
        let (count, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        for end in [&sender, &receiver] {
            end.set_read_timeout(Some(CALL)).expect("a time");
            end.set_write_timeout(Some(CALL)).expect("a time");
        }
        thread::scope(|scope| {
            scope.spawn(|| send(&sender, &stop));
            scope.spawn(|| receive(&receiver, &count, &stop));
            let start = Instant::now();
            while count.load(Ordering::Relaxed) < 1 << 20 && start.elapsed() < PATIENCE {
                thread::sleep(Duration::from_millis(1));
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(count.load(Ordering::Relaxed) >= 1 << 20);
    }
}
