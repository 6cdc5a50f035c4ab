//! Any bytes on a vhost-user socket, split at any position, and any bytes as a payload: refused or decoded;
//! never a panic.

use std::io::Write;
use std::os::unix::net::UnixStream;

use linecard_wire::Connection;
use linecard_wire::payload::{Config, Inflight, Log, MemTable, Payload, SingleRegion, VringAddr, VringState};

fn decode(bytes: &[u8]) {
    let _ = u64::from_bytes(bytes);
    let _ = VringState::from_bytes(bytes);
    let _ = VringAddr::from_bytes(bytes);
    let _ = MemTable::from_bytes(bytes);
    let _ = SingleRegion::from_bytes(bytes);
    let _ = Log::from_bytes(bytes);
    let _ = Config::from_bytes(bytes);
    let _ = Inflight::from_bytes(bytes);
}

/// The input of one run.
pub type Input = (Vec<u8>, u16);

/// Executes one run.
pub fn run(input: Input) {
    let (bytes, cut) = input;
    decode(&bytes);
    let (mut peer, ours) = UnixStream::pair().expect("a pair of sockets");
    let mut connection = Connection::new(ours).expect("a connection");
    let bytes = &bytes[..bytes.len().min(16 << 10)];
    let (first, rest) = bytes.split_at(usize::from(cut).min(bytes.len()));
    for part in [first, rest] {
        peer.write_all(part).expect("the socket takes 16 KiB");
        while let Ok(Some(message)) = connection.read() {
            decode(&message.payload);
        }
    }
}
