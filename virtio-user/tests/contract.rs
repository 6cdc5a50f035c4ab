//! What every driver must do, on four of the paths, in server mode, with a backend moved by hand.

mod support;

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use linecard_lab::contract::{Ends, FarEnd, Limits, Link, Peer};
use linecard_mempool::Pool;
use linecard_pmd::{DevArgs, Driver, PortConfig, ProbeContext};
use linecard_virtio_user::VirtioUser;
use support::echo::Echo;
use support::{Backend, Place};

/// A port in server mode with these options.
struct Port(&'static str);

impl Link for Port {
    fn open(&self, context: &ProbeContext, _: &ProbeContext) -> Ends {
        let place = Place::new();
        let text = format!("net_virtio_user0,{},server=1,queues=2,{}", place.arg(), self.0);
        let args = DevArgs::parse(&text).expect("well formed");
        let near = VirtioUser::new().probe(context, &args).expect("it listens");
        let far = Hand { place, connected: Arc::default(), stop: Arc::default(), thread: None };
        Ends { near, far: FarEnd::Peer(Box::new(far)) }
    }

    fn limits(&self) -> Limits {
        // What is shorter than an Ethernet header is no frame.
        Limits { len: 14..=1514, ..Limits::default() }
    }
}

type Connected = Arc<Mutex<Option<(Backend, Vec<Box<dyn Echo>>)>>>;

/// A backend whose rings the suite moves, and whose socket a thread serves.
struct Hand {
    place: Place,
    connected: Connected,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Peer for Hand {
    fn start(&mut self, config: &PortConfig, _: &Pool) {
        let pairs = usize::from(config.rx_queues.max(config.tx_queues));
        self.stop = Arc::default();
        let (path, connected, stop) = (self.place.0.clone(), self.connected.clone(), self.stop.clone());
        self.thread = Some(std::thread::spawn(move || {
            let mut backend = Backend::connect(&path);
            if backend.until_running(2 * pairs).is_err() {
                return;
            }
            let loops = (0..pairs).map(|pair| backend.echo(pair)).collect();
            *connected.lock().expect("no panic") = Some((backend, loops));
            while !stop.load(Ordering::Acquire) {
                let gone = match &mut *connected.lock().expect("no panic") {
                    Some((backend, _)) => backend.serve().is_err(),
                    None => true,
                };
                if gone {
                    break;
                }
                std::thread::sleep(Duration::from_micros(200));
            }
            connected.lock().expect("no panic").take();
        }));
    }

    fn is_up(&self) -> bool {
        self.connected.lock().expect("no panic").is_some()
    }

    fn send(&mut self, queue: usize, frame: &[u8]) -> bool {
        match &mut *self.connected.lock().expect("no panic") {
            Some((backend, loops)) => {
                let given = loops[queue].give(frame);
                if given && let Some(call) = &backend.rings[2 * queue].call {
                    // Whether or not anybody sleeps.
                    linecard_eal::eventfd::signal(call.as_fd()).expect("room");
                }
                given
            }
            None => false,
        }
    }

    fn receive(&mut self, queue: usize) -> Option<Vec<u8>> {
        self.connected.lock().expect("no panic").as_mut().and_then(|(_, loops)| loops[queue].take())
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

mod split_mergeable {
    linecard_lab::contract_tests!(super::Port("in_order=0"));
}

mod split_in_order {
    linecard_lab::contract_tests!(super::Port("mrg_rxbuf=0"));
}

mod packed_mergeable {
    linecard_lab::contract_tests!(super::Port("packed_vq=1,in_order=0"));
}

mod packed_in_order {
    linecard_lab::contract_tests!(super::Port("packed_vq=1,mrg_rxbuf=0"));
}
