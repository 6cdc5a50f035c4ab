//! Answers ARP, ping and UDP on any port, by reading and writing packets as a program does with a tun device.
//!
//! ```text
//! cargo build --release --example blocking_echo && sudo unshare -n sh -c '
//!   target/release/examples/blocking_echo net_tap0,iface=lc0 & sleep 1
//!   ip addr add 10.0.0.1/24 dev lc0; ping -c 3 10.0.0.2; kill $!'
//! ```
//! `examples/tokio_echo.rs` is the same host with tokio, `examples/echo.rs` with bursts and a thread that polls.
#![forbid(unsafe_code)]

use std::error::Error;
use std::process::ExitCode;

use linecard::net::{MacAddr, echo};

fn serve(device: &str) -> Result<(), Box<dyn Error>> {
    let mut port = linecard::blocking::open(device)?;
    let mac = MacAddr(port.control().mac());
    println!("{} answers, as {mac}", port.control().name());
    let mut buffer = [0; 2048];
    loop {
        let length = port.read(&mut buffer)?;
        let frame = &mut buffer[..length];
        let answered = match echo::asked(frame) {
            Some(_) => echo::answer_arp(frame, mac),
            None => echo::answer_icmp(frame) || echo::answer_udp(frame),
        };
        if answered && let Err(error) = port.write(frame) {
            eprintln!("an answer is lost: {error}");
        }
    }
}

/// An error is one sentence on standard error.
fn main() -> ExitCode {
    let device = std::env::args().nth(1).unwrap_or_else(|| "net_tap0,iface=lc0".into());
    match serve(&device) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
