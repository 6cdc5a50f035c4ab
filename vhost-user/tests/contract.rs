//! The port contract, with a frontend made by hand at the far side.

mod common;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Frontend, SIZE, driver, socket_path};
use linecard_lab::contract::{Ends, FarEnd, Limits, Link, Peer};
use linecard_mempool::Pool;
use linecard_pmd::{DevArgs, Driver, PortConfig, ProbeContext};
use linecard_vhost_user::VhostDriver;
use linecard_virtio::{Buffer, Features};

static VHOST: VhostDriver = VhostDriver::new();

/// A port with a frontend of one queue pair.
struct OnePair(Features);

/// The frontend; connects when the suite starts it.
struct Guest {
    path: std::path::PathBuf,
    features: Features,
    state: Option<Running>,
    up: Arc<AtomicBool>,
}

struct Running {
    frontend: Frontend,
    rx: Box<dyn common::Half>,
    tx: Box<dyn common::Half>,
    /// Send buffers that are free.
    free: Vec<usize>,
    ready: std::collections::VecDeque<(u64, u32)>,
}

impl Link for OnePair {
    fn open(&self, context: &ProbeContext, _far: &ProbeContext) -> Ends {
        let path = socket_path("contract");
        let args = DevArgs::parse(&format!("net_vhost0,iface={}", path.display())).expect("args");
        let near = VHOST.probe(context, &args).expect("probe");
        let peer = Guest { path, features: self.0, state: None, up: Arc::default() };
        Ends { near, far: FarEnd::Peer(Box::new(peer)) }
    }

    fn limits(&self) -> Limits {
        Limits { len: 14..=1514, queues: 1, ..Limits::default() }
    }
}

const BUFFERS: usize = 128;
const ROOM: u32 = 2048;

impl Peer for Guest {
    fn start(&mut self, _config: &PortConfig, _pool: &Pool) {
        let mut frontend = Frontend::connect(&self.path);
        frontend.negotiate(self.features);
        let (mut rx, tx) = (driver(&frontend, 0, SIZE), driver(&frontend, 1, SIZE));
        for n in 0..BUFFERS {
            rx.post(Buffer { addr: Frontend::buffer(0, n).0, len: ROOM, token: n as u64 });
        }
        rx.publish();
        frontend.share_memory();
        let base = if self.features.contains(Features::RING_PACKED) { 0x8000_8000 } else { 0 };
        frontend.start_ring(0, SIZE, base);
        frontend.start_ring(1, SIZE, base);
        let free = (0..BUFFERS).collect();
        self.state = Some(Running { frontend, rx, tx, free, ready: Default::default() });
        self.up.store(true, Ordering::Relaxed);
    }

    fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    fn send(&mut self, _queue: usize, frame: &[u8]) -> bool {
        let state = self.state.as_mut().expect("started");
        state.free.extend(state.tx.take().iter().map(|done| done.token as usize));
        let Some(n) = state.free.pop() else { return false };
        let (addr, len) = state.frontend.write_frame(n, frame);
        state.tx.post(Buffer { addr, len, token: n as u64 });
        state.tx.publish();
        // Whether or not anybody sleeps.
        linecard_eal::eventfd::signal(state.frontend.kicks[1].as_fd()).expect("room");
        true
    }

    fn receive(&mut self, _queue: usize) -> Option<Vec<u8>> {
        let state = self.state.as_mut().expect("started");
        state.ready.extend(state.rx.take().iter().map(|done| (done.token, done.len)));
        let (token, len) = state.ready.pop_front()?;
        let (addr, offset) = Frontend::buffer(0, token as usize);
        let mut bytes = vec![0; len as usize];
        state.frontend.bytes(offset, bytes.len()).copy_to(&mut bytes);
        state.rx.post(Buffer { addr, len: ROOM, token });
        state.rx.publish();
        Some(bytes.split_off(common::HEADER))
    }

    fn stop(&mut self) {
        self.state = None;
        self.up.store(false, Ordering::Relaxed);
    }
}

mod split {
    linecard_lab::contract_tests!(super::OnePair(super::Features::NET_MRG_RXBUF));
}

mod packed {
    linecard_lab::contract_tests!(super::OnePair(super::Features::RING_PACKED | super::Features::IN_ORDER));
}

#[test]
fn arguments_are_checked() {
    use linecard_eal::{Memory, MemoryConfig};
    let memory = Memory::new(MemoryConfig::default()).expect("memory");
    let domain = memory.domain("args").expect("domain");
    let context = ProbeContext::new(memory, domain, std::time::Duration::from_secs(1));
    let path = socket_path("args");
    let path = path.display();
    let problem = |args: String| {
        let args = DevArgs::parse(&args).expect("well formed");
        VHOST.probe(&context, &args).err().map(|error| error.to_string())
    };
    let bad = [
        (String::from("net_vhost0"), "iface"),
        (format!("net_vhost0,iface={path},queues=0"), "queues"),
        (format!("net_vhost0,iface={path},queues=129"), "queues"),
        (format!("net_vhost0,iface={path},client=2"), "client"),
        (format!("net_vhost0,iface={path},quues=2"), "did you mean 'queues'"),
        (format!("net_vhost0,iface={path},postcopy-support=1"), "postcopy-support"),
        (format!("net_vhost0,iface={path}/none/x"), "create it"),
    ];
    for (args, want) in bad {
        let got = problem(args.clone()).unwrap_or_else(|| panic!("{args} was accepted"));
        assert!(got.contains(want), "{args}: {got}");
    }
    let all =
        "tso=1,linear-buffer=1,ext-buffer=1,legacy-ol-flags=0,iommu-support=0,postcopy-support=0,client=0";
    assert_eq!(problem(format!("net_vhost7,iface={path},queues=4,{all}")), None);
}
