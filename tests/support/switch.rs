//! `linecard switch` as a child process, and stations that send and receive frames at its ports.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use linecard::mempool::Burst;
use linecard_lab::{Lab, Wire, wait_for, wait_until};
use linecard_switch::api::Client;

use super::Scratch;
use super::example::Running;
use super::ours::Ours;

pub(crate) const SIZES: [usize; 8] = [64, 65, 127, 128, 300, 777, 1024, 1514];

/// Starts the switch with one worker on the first core, in `lab`.
pub(crate) fn start(lab: &Lab, scratch: &Scratch, arguments: &[&str]) -> (Running, Client) {
    start_with(lab, scratch, arguments, &[])
}

/// The same as [`start`], with these environment variables.
pub(crate) fn start_with(
    lab: &Lab,
    scratch: &Scratch,
    arguments: &[&str],
    variables: &[(&str, &Path)],
) -> (Running, Client) {
    start_on(lab, scratch, "0@0", arguments, variables)
}

/// The same as [`start_with`], with workers according to `--lcores`.
pub(crate) fn start_on(
    lab: &Lab,
    scratch: &Scratch,
    lcores: &str,
    arguments: &[&str],
    variables: &[(&str, &Path)],
) -> (Running, Client) {
    let socket = scratch.join("control");
    let spawn = || {
        Command::new(env!("CARGO_BIN_EXE_linecard"))
            .envs(variables.iter().copied())
            .args(["switch", "--no-huge", "--lcores", lcores, "--socket"])
            .arg(&socket)
            .args(arguments)
            .stdout(Stdio::null())
            .spawn()
    };
    let running = Running(lab.run(spawn).expect("it starts"));
    let mut client = wait_for("the control socket", || Client::connect(&socket).ok());
    client.set_patience(Duration::from_secs(60)).expect("a socket");
    // The socket exists before the ports; this request is answered when all of them exist.
    client.version().expect("it begins");
    (running, client)
}

/// Terminates it with SIGTERM, and waits for its end.
pub(crate) fn end(mut running: Running) {
    let pid = rustix::process::Pid::from_child(&running.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    wait_until("the end", || running.0.try_wait().is_ok_and(|status| status.is_some()));
}

/// Returns a frame whose bytes depend only on its number and its length.
pub(crate) fn frame(from: [u8; 6], to: [u8; 6], number: u32, len: usize) -> Vec<u8> {
    let head = [&to[..], &from, &[0x88, 0xb5], &number.to_be_bytes()].concat();
    (0..len).map(|i| head.get(i).copied().unwrap_or((number as usize * 31 + i * 7) as u8)).collect()
}

/// A sender and receiver of frames.
pub(crate) trait Station {
    fn send(&mut self, frame: &[u8]);
    fn receive(&mut self) -> Vec<Vec<u8>>;
}

impl Station for Ours {
    fn send(&mut self, frame: &[u8]) {
        let mut burst = Burst::new();
        burst.push(self.packet(frame)).expect("room");
        wait_until("room in the ring", || {
            self.port.tx[0].tx_burst(&mut burst);
            burst.is_empty()
        });
    }

    fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut burst = Burst::new();
        self.port.rx[0].rx_burst(&mut burst);
        self.port.tx[0].reclaim();
        burst.iter().map(|packet| packet.to_bytes().to_vec()).collect()
    }
}

impl Station for Wire {
    fn send(&mut self, frame: &[u8]) {
        wait_until("room in the interface", || Wire::send(self, frame));
    }

    fn receive(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| Wire::receive(self)).collect()
    }
}

/// Sends one frame after another and waits until each arrives unchanged, at `to` or back at `from` (`None`).
pub(crate) fn exchange(
    from: &mut dyn Station,
    to: Option<&mut dyn Station>,
    source: [u8; 6],
    destination: [u8; 6],
) {
    exchange_up_to(1514, from, to, source, destination);
}

/// The same as [`exchange`], with frames of at most `longest` bytes.
pub(crate) fn exchange_up_to(
    longest: usize,
    from: &mut dyn Station,
    mut to: Option<&mut dyn Station>,
    source: [u8; 6],
    destination: [u8; 6],
) {
    for number in 0..200_u32 {
        let len = SIZES[number as usize % SIZES.len()].min(longest);
        let sent = frame(source, destination, number, len);
        // A station that returns frames swaps the addresses.
        let want = if to.is_some() { sent.clone() } else { frame(destination, source, number, len) };
        from.send(&sent);
        let until = Instant::now() + Duration::from_secs(60);
        // Other senders exist too, such as the kernel (neighbour discovery).
        let mut others = Vec::new();
        loop {
            let got = match &mut to {
                Some(to) => to.receive(),
                None => from.receive(),
            };
            if got.contains(&want) {
                break;
            }
            others.extend(got);
            assert!(
                Instant::now() < until,
                "frame {number} of {len} bytes did not arrive; {others:02x?} did"
            );
            std::thread::yield_now();
        }
    }
}
