//! Frontends that would have a hand-over, or the recovery after a kill, wait for them: pages of their rings do not come.

use std::fs::File;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use linecard_eal::{Memory, MemoryConfig};
use linecard_lab::{HeldPages, skip, wait_until};
use linecard_mempool::{Pool, PoolConfig};
use linecard_pmd::handover::{HandOver, HandedOver};
use linecard_pmd::{DevArgs, Device, Driver, Port, PortConfig, ProbeContext, configure};
use linecard_vhost_user::VhostDriver;
use linecard_virtio::Features;
use linecard_wire::FrontendReq as Req;
use memmap2::MmapOptions;

use crate::common::{Frontend, MEMORY, socket_path};
use crate::locks::punch;

static VHOST: VhostDriver = VhostDriver::new();
/// So long at most is a port waited for that begins, and one that is recovered.
const BEGINNING: Duration = Duration::from_millis(500);
const RECOVERING: Duration = Duration::from_secs(1);
/// What other programs take meanwhile.
const SLACK: Duration = Duration::from_millis(400);
/// Tries of each.
const TRIES: usize = 5;
/// After this time the pages come.
const LONG: Duration = Duration::from_secs(5);

/// Ports of both processes.
struct Scene {
    context: ProbeContext,
    pool: Pool,
}

impl Scene {
    fn new() -> Self {
        let memory = Memory::new(MemoryConfig::default().range(1 << 30)).expect("memory");
        let domain = memory.domain("test").expect("domain");
        let pool = Pool::new(&domain, PoolConfig::default().packets(1024)).expect("pool");
        Self { context: ProbeContext::new(memory, domain, Duration::from_secs(1)), pool }
    }

    fn open(&self, args: &str) -> Port {
        self.start(VHOST.probe(&self.context, &DevArgs::parse(args).expect("args")).expect("a device"))
    }

    fn succeed(&self, args: &str, handed: HandedOver) -> Port {
        let args = DevArgs::parse(args).expect("args");
        self.start(VHOST.succeed(&self.context, &args, handed).expect("a device"))
    }

    fn start(&self, device: Box<dyn Device>) -> Port {
        let started = configure(device, PortConfig::default()).and_then(|device| device.start(&self.pool));
        started.map_err(|refused| refused.error).expect("a port")
    }
}

fn steps(port: &Port) -> &dyn HandOver {
    port.running.hand_over().expect("it can be handed over")
}

/// A frontend whose memory has this name.
fn connect(path: &std::path::Path, name: &std::ffi::CStr, features: Features) -> Frontend {
    use std::os::fd::{FromRawFd, OwnedFd};
    let mut frontend = Frontend::connect(path);
    // SAFETY: the name is a terminated string; the result is a new descriptor.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: just made, nobody else owns it.
    frontend.file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    frontend.file.set_len(MEMORY as u64).expect("memory");
    frontend.map = MmapOptions::new().len(MEMORY).map_raw(&frontend.file).expect("map");
    frontend.bring_up(features, 256);
    frontend
}

/// The best of some tries, because other programs may take the processors: who waits for the pages does so each time.
fn assert_not_held_up(test: &str, name: &std::ffi::CStr, features: Features, killed: bool) {
    let most = if killed { RECOVERING } else { BEGINNING } + SLACK;
    let mut times = Vec::new();
    for _ in 0..TRIES {
        let Some(took) = changes_hands(test, name, features, killed) else { return };
        if took < most {
            return;
        }
        times.push(took);
    }
    panic!("the others waited for {times:?}");
}

/// For how long the others wait while two ports change hands, of which one has such a frontend; `killed` says how.
fn changes_hands(test: &str, name: &std::ffi::CStr, features: Features, killed: bool) -> Option<Duration> {
    let scene = Scene::new();
    let [good_path, bad_path] = [0, 1].map(|_| socket_path(test));
    let args = [&good_path, &bad_path].map(|path| format!("net_vhost0,iface={},handover=1", path.display()));
    let old = args.each_ref().map(|args| scene.open(args));
    let mut good = Frontend::connect(&good_path);
    good.bring_up(features, 256);
    let mut bad = connect(&bad_path, name, features);
    for port in &old {
        wait_until("the link", || port.control.link().up);
    }
    let handed = old.each_ref().map(|port| steps(port).hold()().expect("it is held"));
    let [good_handed, bad_handed] = handed;
    let new = [scene.succeed(&args[0], good_handed), scene.succeed(&args[1], bad_handed)];
    for port in &new {
        steps(port).prepared()().expect("it is prepared");
    }
    let frozen = old.each_ref().map(|port| steps(port).freeze()().expect("it is frozen"));
    let Ok(held) = HeldPages::of(name.to_str().expect("a name")) else {
        skip(test, "no userfaultfd");
        return None;
    };
    punch(&bad.file, MEMORY);
    let (let_go, told) = mpsc::channel::<()>();
    let holding = std::thread::spawn(move || {
        let _ = told.recv_timeout(LONG);
        drop(held);
    });

    let began = Instant::now();
    let [good_steps, bad_steps] = new.each_ref().map(steps);
    let begun = if killed {
        [bad_steps.recover(), good_steps.recover()]
    } else {
        [bad_steps.begin(&frozen[1]), good_steps.begin(&frozen[0])]
    };
    begun.into_iter().for_each(|outcome| outcome().expect("the port goes on, with or without its frontend"));
    let resumed = [bad_steps.resume(), good_steps.resume()];
    resumed.into_iter().for_each(|outcome| outcome().expect("it resumes"));
    let took = began.elapsed();
    assert!(!new[1].control.link().up);

    // The good one's requests are answered; nobody waits for the pages where the predecessor ends either.
    old.iter().for_each(|port| steps(port).release());
    assert_ne!(good.number(Req::GET_FEATURES), 0);
    drop(let_go);
    holding.join().expect("no panic");
    assert!(bad.is_dropped());
    let mut again = Frontend::connect(&bad_path);
    again.bring_up(features, 256);
    wait_until("the link", || new[1].control.link().up);
    drop((new, old));
    Some(took)
}

#[test]
fn pages_of_a_ring_that_do_not_come_hold_up_no_upgrade() {
    let test = "pages_of_a_ring_that_do_not_come_hold_up_no_upgrade";
    assert_not_held_up(test, c"upgrade-split", Features::empty(), false);
    assert_not_held_up(test, c"upgrade-packed", Features::RING_PACKED, false);
}

#[test]
fn pages_of_a_ring_that_do_not_come_hold_up_no_recovery() {
    let test = "pages_of_a_ring_that_do_not_come_hold_up_no_recovery";
    assert_not_held_up(test, c"recovery-split", Features::empty(), true);
    assert_not_held_up(test, c"recovery-packed", Features::RING_PACKED, true);
}
