//! Where lies are told: a port with its backend's end, another one beside it, and what must come of a lie.

use std::os::unix::net::UnixListener;
use std::sync::Arc;

use linecard_lab::wait_until;
use linecard_mempool::Burst;
use linecard_pmd::offload::{Offloads, RxOffloads};
use linecard_pmd::{DevArgs, Port, PortConfig};
use linecard_virtio::Features;
use linecard_wire::ProtocolFeatures;

use crate::support::echo::Echo;
use crate::support::machine::Controlled;
use crate::support::{Backend, Bench, Place, Spoiler, attached, drain, outcome};

/// What must come of a lie.
#[derive(Clone, Copy)]
pub(crate) enum Want {
    /// The port is down, and says this.
    Down(&'static str),
    /// The port is up; so many packets came, and so many were counted under a name.
    Up(usize, &'static str, u64),
}

use Want::{Down, Up};

pub(crate) const NOTHING: Want = Up(0, "rx_q0_errors", 0);
pub(crate) const RUNT: Want = Up(0, "rx_q0_undersize_packets", 1);
pub(crate) const BAD_COUNT: Want = Up(0, "rx_q0_bad_num_buffers", 1);
pub(crate) const BAD_HEADER: Want = Up(0, "rx_q0_bad_offload_header", 1);
pub(crate) const ONE: Want = Up(1, "rx_q0_errors", 0);

/// A port over a socket and the backend's view of it, beside another port that must not notice.
pub(crate) struct Field {
    pub(crate) bench: Bench,
    pub(crate) port: Port,
    pub(crate) backend: Backend,
    _place: Place,
}

pub(crate) const SIZE: u16 = 64;

impl Field {
    pub(crate) fn new(options: &str, offered: Features) -> Self {
        let (bench, place) = (Bench::new(1024), Place::new());
        let listener = UnixListener::bind(&place.0).expect("a socket");
        let peer = std::thread::spawn(move || {
            let mut backend = Backend::accept(&listener);
            backend.offered = offered;
            backend.until_running(2).expect("a frontend that stays");
            backend
        });
        let rx = RxOffloads::CHECKSUM | RxOffloads::TCP_LRO;
        let offloads = Offloads { rx, ..Offloads::default() };
        let config = PortConfig::default().offloads(offloads);
        let device = bench.probe(&format!("{},queue_size={SIZE},{options}", place.arg())).expect("a device");
        let port = bench.start(device, config).expect("a port");
        Self { bench, port, backend: peer.join().expect("no panic"), _place: place }
    }

    pub(crate) fn send(&mut self, count: usize) {
        self.bench.send(&mut self.port, count);
    }

    fn poll(&mut self) -> usize {
        drain(&mut self.port)
    }

    pub(crate) fn check(mut self, name: &str, want: Want) {
        let control = self.port.control.clone();
        match want {
            Down(reason) => {
                wait_until(name, || {
                    self.poll();
                    !control.link().up && control.paths().contains(reason)
                });
                self.bench.soon_whole();
            }
            Up(packets, counter, count) => {
                assert_eq!(self.poll(), packets, "{name}");
                let xstats = control.xstats();
                let counted = xstats.iter().find(|(known, _)| known == counter).map_or(0, |(_, n)| *n);
                assert_eq!(counted, count, "{name}");
                assert!(control.link().up, "{name}");
            }
        }
        drop(self.backend);
        drop(self.port.stop());
        self.bench.assert_whole();
    }
}

/// Another port of this process, with an honest backend.
pub(crate) struct Bystander {
    pub(crate) bench: Bench,
    pub(crate) port: Port,
    echo: Box<dyn Echo>,
    _backend: Backend,
    _place: Place,
}

impl Bystander {
    pub(crate) fn new() -> Self {
        let (bench, place) = (Bench::new(1024), Place::new());
        let (port, backend, _) = attached(&bench, &place, "");
        Self { bench, port, echo: backend.echo(0), _backend: backend, _place: place }
    }

    /// The other port stops with all of its packets.
    pub(crate) fn end(self) {
        drop(self.port.stop());
        self.bench.assert_whole();
    }

    /// Packets pass both ways.
    pub(crate) fn goes_on(&mut self, after: &str) {
        let mut burst = Burst::new();
        self.bench.pool.get_bulk(&mut burst, 8).unwrap();
        burst.iter_mut().for_each(|packet| packet.append(60).expect("room").fill(2));
        assert_eq!(self.port.tx[0].tx_burst(&mut burst), 8, "{after}");
        assert_eq!(self.echo.turn(), 8, "{after}");
        let mut came = 0;
        wait_until(after, || {
            came += self.port.rx[0].rx_burst(&mut burst);
            came == 8
        });
        burst.clear();
        self.port.tx[0].reclaim();
    }
}

/// A port over a device with a control queue.
pub(crate) fn controlled(bench: &Bench, device: &Controlled, options: &str) -> Result<Port, String> {
    controlled_by(bench, device, options, PortConfig::default())
}

/// The same with any configuration.
pub(crate) fn controlled_by(
    bench: &Bench,
    device: &Controlled,
    options: &str,
    config: PortConfig,
) -> Result<Port, String> {
    let args = DevArgs::parse(&format!("net_virtio_user0,{options}")).expect("well formed");
    let made = bench.driver.probe_over(&bench.context(), &args, Arc::new(device.clone()));
    let made = made.map_err(|error| error.to_string())?;
    bench.start(made, config).map_err(|failed| failed.error.to_string())
}

/// A port over a backend with a configuration space; the sentence that it fails with, if it does.
pub(crate) fn over_socket(spoiler: Spoiler) -> Result<(), String> {
    outcome(&Bench::new(1024), move |backend| {
        backend.protocol |= ProtocolFeatures::CONFIG;
        backend.offered |= Features::NET_MAC;
        backend.spoiler = Some(spoiler);
    })
}
