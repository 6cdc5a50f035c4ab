//! An HTTP server on any port, without the kernel's stack.
//!
//! ```text
//! cargo build --release --example http && sudo unshare -n sh -c 'target/release/examples/http \
//!   net_tap0,iface=lc0 10.0.0.2 & sleep 1; ip addr add 10.0.0.1/24 dev lc0; curl http://10.0.0.2/; kill $!'
//! ```
//! On a switch, and reached from the host: `linecard switch --tap lc0 --port /tmp/h.sock`, then
//! `http net_virtio_user0,path=/tmp/h.sock 10.0.0.2`.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::process::ExitCode;

use linecard::pmd::Offloads;
use linecard::prelude::*;
use linecard_smoltcp::PortDevice;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{IpAddress, IpCidr};

const USAGE: &str = "usage: http DEVICE ADDRESS, for example: http net_tap0,iface=lc0 10.0.0.2";
/// Connections at the same time.
const SOCKETS: usize = 8;

/// Answers one connection as far as it can be now.
fn serve(socket: &mut tcp::Socket<'_>, count: &mut u64) -> Result<(), Box<dyn Error>> {
    if !socket.is_open() {
        socket.listen(80)?;
    }
    if !socket.may_recv() {
        return Ok(());
    }
    // A request ends with an empty line; its first line says what is wanted.
    let request = socket.peek(2048)?;
    let Some(end) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Ok(()) };
    let line = String::from_utf8_lossy(request).lines().next().unwrap_or_default().to_owned();
    socket.recv(|bytes| ((end + 4).min(bytes.len()), ()))?;
    *count += 1;
    let mut body = format!("Linecard answers request {count}: {line}\n");
    // As many numbers as are asked for: /1000 is 1000 lines.
    let lines = line.split_whitespace().nth(1).and_then(|path| path.strip_prefix('/')?.parse::<u32>().ok());
    (0..lines.unwrap_or(0).min(5000)).try_for_each(|number| writeln!(body, "{number}"))?;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: ";
    socket.send_slice(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes())?;
    socket.close();
    Ok(())
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

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, address] = arguments.as_slice() else { return Err(USAGE.into()) };
    let address: Ipv4Addr = address.parse().map_err(|_| USAGE)?;
    let eal = Eal::new(&EalArgs::parse(["-m", "64"])?.0)?;
    let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(4096))?;
    let port = linecard::open(&eal, &pool, device)?;
    let mut device = PortDevice::new(port, &pool, Offloads::default());

    let config = Config::new(device.hardware_address().into());
    let mut interface = Interface::new(config, &mut device, Instant::now());
    interface.update_ip_addrs(|all| {
        // An interface has room for more than one.
        let _ = all.push(IpCidr::new(IpAddress::Ipv4(address), 24));
    });
    let mut sockets = SocketSet::new(vec![]);
    let buffer = || tcp::SocketBuffer::new(vec![0; 32 << 10]);
    let handles: Vec<SocketHandle> =
        (0..SOCKETS).map(|_| sockets.add(tcp::Socket::new(buffer(), buffer()))).collect();
    println!("http://{address}/ on {}", device.port().control.name());
    let mut count = 0;
    loop {
        interface.poll(Instant::now(), &mut device, &mut sockets);
        for handle in &handles {
            serve(sockets.get_mut(*handle), &mut count)?;
        }
        interface.poll(Instant::now(), &mut device, &mut sockets);
        device.wait(interface.poll_delay(Instant::now(), &sockets));
    }
}
