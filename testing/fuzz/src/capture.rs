//! Both ends of the capture control socket: any datagram to the server, and any answer with any memory to a
//! client.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use linecard_capture::{Client, Hub, Options, Server};
use linecard_eal::{Memory, MemoryConfig};
use linecard_mempool::{Pool, PoolConfig};
use linecard_pmd::{PortConfig, ProbeContext, Registry, configure};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("lc-fuzz-capture-{name}-{}", std::process::id()))
}

/// A program with one port, and the socket of a fake server that sends given answers.
struct World {
    server: Server,
    liar: OwnedFd,
    _port: std::sync::Mutex<linecard_pmd::Port>,
}

fn world() -> World {
    let memory = Memory::new(MemoryConfig::default()).expect("memory");
    let domain = memory.domain("fuzz").expect("a domain");
    let config = PoolConfig::default().packets(256);
    let pool = Pool::new(&domain, config).expect("a pool");
    let registry = Registry::new(&[&linecard_net_null::NullDriver]);
    let context = ProbeContext::new(memory, domain, Duration::ZERO);
    let device = registry.probe(&context, "net_null0").expect("a device");
    let port = configure(device, PortConfig::default()).expect("it fits").start(&pool).expect("a port");
    let hub = Hub::new();
    let port = hub.watch(0, port);
    let server = hub.serve(&path("real")).expect("a socket");
    let liar = socket();
    let _ = std::fs::remove_file(path("liar"));
    rustix::net::bind(&liar, &SocketAddrUnix::new(path("liar")).expect("a path")).expect("a name");
    rustix::net::listen(&liar, 1).expect("it listens");
    World { server, liar, _port: std::sync::Mutex::new(port) }
}

fn socket() -> OwnedFd {
    let kind = SocketType::SEQPACKET;
    rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).expect("a socket")
}

/// Sends datagrams to the server; it must answer each of them and keep running.
fn ask(world: &World, datagrams: &[&str]) {
    let socket = socket();
    let to = SocketAddrUnix::new(world.server.path()).expect("a path");
    rustix::net::connect(&socket, &to).expect("it listens");
    let mut answer = [0; 4096];
    for datagram in datagrams.iter().take(4).filter(|datagram| !datagram.is_empty()) {
        // Larger rings would only make runs slow.
        let digits = |rest: &str| rest.bytes().take_while(u8::is_ascii_digit).count();
        if datagram.split("ring=").skip(1).any(|rest| digits(rest) > 6) {
            return;
        }
        if rustix::net::send(&socket, datagram.as_bytes(), SendFlags::NOSIGNAL).is_err() {
            return;
        }
        match rustix::net::recv(&socket, &mut answer, rustix::net::RecvFlags::empty()) {
            Ok((_, 0)) | Err(_) => return,
            Ok((len, _)) => {
                let known =
                    ["ok", "error ", "end "].iter().any(|word| answer[..len].starts_with(word.as_bytes()));
                assert!(known);
            }
        }
    }
}

fn memory(bytes: &[u8]) -> OwnedFd {
    let fd =
        rustix::fs::memfd_create("fuzz", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("a memfd");
    let mut file = File::from(fd);
    file.write_all(bytes).expect("memory");
    let fd = OwnedFd::from(file);
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK).expect("a seal");
    fd
}

/// Sends `answer` to a client, with memory of these bytes.
fn tell(world: &World, answer: &str, bytes: &[u8]) {
    let client = Client::connect(&path("liar")).expect("it listens");
    let peer = rustix::net::accept_with(&world.liar, SocketFlags::CLOEXEC).expect("a client");
    let file = memory(bytes);
    let files = [file.as_fd()];
    for _ in 0..2 {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut extra = rustix::net::SendAncillaryBuffer::new(&mut space);
        extra.push(rustix::net::SendAncillaryMessage::ScmRights(&files));
        let text = [std::io::IoSlice::new(answer.as_bytes())];
        let _ = rustix::net::sendmsg(&peer, &text, &mut extra, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }
    let _ = client.list();
    if let Ok(mut stream) = client.capture(0, &Options::default()) {
        for _ in 0..64 {
            let Ok(Some(frame)) = stream.next() else { break };
            assert!(frame.data.len() <= 1 << 20);
        }
    }
    drop(peer);
}

/// The input of one run.
pub type Input<'a> = (Vec<&'a str>, &'a str, &'a [u8]);

/// Executes one run.
pub fn run(input: Input<'_>) {
    static WORLD: OnceLock<World> = OnceLock::new();
    let world = WORLD.get_or_init(world);
    let (datagrams, answer, bytes) = input;
    ask(world, &datagrams);
    tell(world, answer, &bytes[..bytes.len().min(64 << 10)]);
}
