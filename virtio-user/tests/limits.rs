//! Limits other than the defaults: each of them is what a port keeps to, and what a backend costs a port beyond it, it does
//! not cost others.

mod support;

use std::fmt::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use linecard_lab::{Watchers, wait_until};
use linecard_mempool::Burst;
use linecard_pmd::{DevArgs, Port, PortConfig};
use linecard_virtio_user::{Limits, ProcessLimits, VirtioUser};
use support::machine::Controlled;
use support::stall::{Bystander, NOTICE, Server, send_with, time_of};
use support::traffic::Traffic;
use support::{Backend, Bench, Place};

/// Lines and processor time of the whole process are counted here: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lines that this process logged at level info or above.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Lines;

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }

    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                let _ = write!(self.0, "{value:?}");
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        LINES.lock().unwrap_or_else(PoisonError::into_inner).push(text.0);
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// Keeps what is logged from now on.
fn listen() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| tracing::subscriber::set_global_default(Lines).expect("the first one"));
    LINES.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// The lines about the port `name`: those about its backend, and those that say how many are missing.
fn lines(name: &str) -> (usize, usize) {
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let of_port: Vec<_> = lines.iter().filter(|line| line.starts_with(&format!("{name}: "))).collect();
    let missing = of_port.iter().filter(|line| line.contains("are missing here")).count();
    (of_port.len() - missing, missing)
}

/// A driver whose ports have limits that `change` makes of the defaults.
fn driver(change: impl FnOnce(&mut Limits, &mut ProcessLimits)) -> VirtioUser {
    let (mut limits, mut process) = (Limits::default(), ProcessLimits::default());
    change(&mut limits, &mut process);
    VirtioUser::new().with_limits(limits).with_process_limits(process)
}

fn open(bench: &Bench, name: &str, args: &str) -> Port {
    let device = bench.probe_as(name, args).expect("a device");
    bench.start(device, PortConfig::default()).expect("a port")
}

/// Has the backends of all `ports` come and go, `rounds` times.
fn come_and_go(servers: &[Server], ports: &[Port], rounds: u32) {
    for _ in 0..rounds {
        let served: Vec<_> = servers.iter().map(Server::served).collect();
        servers.iter().for_each(Server::leave);
        wait_until("all connect again", || {
            servers.iter().zip(&served).all(|(server, old)| server.served() > *old)
        });
        wait_until("link up", || ports.iter().all(|port| port.control.link().up));
    }
}

/// A backend that comes and goes as fast as it can: two lines each time, if there were no limit.
#[test]
fn a_backend_that_comes_and_goes_does_not_fill_the_log() {
    const ROUNDS: u32 = 60;
    let _alone = alone();
    for (of_port, most) in [(1, 10), (3, 30), (0, 0)] {
        listen();
        let mut bench = Bench::new(2048);
        bench.driver = driver(|limits, process| (limits.log_lines, process.log_lines) = (of_port, 20));
        let (place, began) = (Place::new(), Instant::now());
        let servers = [Server::new(&place, |_| {})];
        let ports = [open(&bench, "net_coming", &place.arg())];
        come_and_go(&servers, &ports, ROUNDS);
        let (told, missing) = lines("net_coming");
        let earned = of_port as usize * (began.elapsed().as_secs() as usize + 1);
        assert!((most..=most + earned).contains(&told), "{told} lines, {most} at once");
        assert!(missing <= earned, "{missing} lines say that some are missing");
        drop((ports.map(Port::stop), servers));
        bench.assert_whole();
    }
}

/// Ports that may each write a thousand lines have those of the process together, and a port that writes few has its share.
#[test]
fn ports_share_the_log_lines_of_the_process() {
    const PORTS: usize = 4;
    const ROUNDS: u32 = 20;
    let _alone = alone();
    listen();
    let mut bench = Bench::new(4096);
    bench.driver = driver(|limits, process| (limits.log_lines, process.log_lines) = (100, 2));
    let began = Instant::now();
    let quiet_place = Place::new();
    let quiet = Server::new(&quiet_place, |_| {});
    let quiet_port = open(&bench, "net_quiet", &quiet_place.arg());
    let places: [Place; PORTS] = std::array::from_fn(|_| Place::new());
    let servers = places.each_ref().map(|place| Server::new(place, |_| {}));
    let mut number = 0..;
    let ports = places
        .each_ref()
        .map(|place| open(&bench, &format!("net_noisy{}", number.next().expect("endless")), &place.arg()));
    come_and_go(&servers, &ports, ROUNDS);
    let told: usize = (0..PORTS).map(|number| lines(&format!("net_noisy{number}")).0).sum();
    // Without a limit of the process there were two a round, and one at first.
    let most = 2 * 20 + 2 * (began.elapsed().as_secs() as usize + 1) + PORTS;
    assert!(told <= most, "{told} lines, {most} are allowed");
    assert!(told < PORTS * (2 * ROUNDS as usize + 1), "{told} lines: this shows nothing");
    let before = lines("net_quiet").0;
    quiet.leave();
    wait_until("its loss is told", || lines("net_quiet").0 > before);
    wait_until("link up", || quiet_port.control.link().up);
    drop((ports.map(Port::stop), quiet_port.stop(), servers, quiet));
    bench.assert_whole();
}

/// The link of a device goes up and down as fast as it is looked at.
#[test]
fn a_link_that_flaps_does_not_fill_the_log() {
    const ROUNDS: u32 = 200;
    let _alone = alone();
    listen();
    let (bench, device, began) = (Bench::new(1024), Controlled::new(1), Instant::now());
    let args = DevArgs::parse("net_flapping").expect("well formed");
    let made = bench.driver.probe_over(&bench.context(), &args, Arc::new(device.clone()));
    let port = bench.start(made.expect("a device"), PortConfig::default()).expect("a port");
    for _ in 0..ROUNDS {
        for up in [false, true] {
            device.set_link(up);
            wait_until("the port has seen it", || port.control.link().up == up);
        }
    }
    let (told, missing) = lines("net_flapping");
    let earned = began.elapsed().as_secs() as usize + 1;
    assert!((10..=10 + earned).contains(&told) && missing <= earned, "{told} and {missing} lines");
    drop(port.stop());
    bench.assert_whole();
}

/// A backend may have as many descriptors open as the limit says.
#[test]
fn descriptors_are_limited_as_the_port_says() {
    let _alone = alone();
    // The connection is one of them; with the last one nothing more can be read.
    for (most, sent, fits) in [(3, 1, true), (3, 3, false), (10, 8, true), (10, 10, false)] {
        let mut bench = Bench::new(1024);
        bench.driver = driver(|limits, _| limits.descriptors = most);
        let null = std::fs::File::open("/dev/null").expect("a file");
        let outcome = support::outcome(&bench, move |backend| {
            let mut first = true;
            backend.sender = Some(Box::new(move |socket: &UnixStream, bytes| {
                use std::os::fd::{AsFd, AsRawFd};
                let fds = vec![null.as_raw_fd(); if std::mem::take(&mut first) { sent } else { 0 }];
                let flags = libc::MSG_DONTWAIT;
                assert!(send_with(socket.as_fd(), bytes, &fds, flags));
            }));
        });
        match outcome {
            Ok(()) => assert!(fits, "{sent} of {most}"),
            Err(error) => {
                assert!(!fits, "{sent} of {most}: {error}");
                let limit = format!("the peer of a port may hold {} (the port's limit)", most + 7);
                assert!(error.contains(&limit), "{error}");
            }
        }
    }
}

/// Kicks that take long are sent by the closing thread, as far as it may have jobs.
#[test]
fn slow_kicks_wait_as_the_limit_says() {
    const TEST: &str = "slow_kicks_wait_as_the_limit_says";
    const BURSTS: u32 = 20;
    let _alone = alone();
    for closings in [0, 8] {
        let (mut bench, place) = (Bench::new(1024), Place::new());
        bench.driver = driver(|limits, _| limits.closings = closings);
        let (mut port, backend, _listener) = support::attached(&bench, &place, ",packed_vq=1,event_idx=0");
        let kick = backend.rings[1].kick.as_ref().expect("an eventfd");
        let Some((watchers, took)) = Watchers::slowing(TEST, kick) else { return };
        // The backend sleeps: every burst has to wake it.
        backend.ring(1).device.cell::<u16>(2).expect("flags").store(0, std::sync::atomic::Ordering::SeqCst);
        let kicked = || {
            let mut count = [0; 8];
            rustix::io::read(kick, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
        };
        kicked();
        let (mut burst, mut sent, began) = (Burst::new(), 0, Instant::now());
        for _ in 0..BURSTS {
            bench.pool.get_bulk(&mut burst, 1).unwrap();
            burst[0].append(60).expect("room").fill(1);
            assert_eq!(port.tx[0].tx_burst(&mut burst), 1);
            if closings > 0 {
                wait_until("the kick is sent", || {
                    let count = kicked();
                    sent += count;
                    count > 0
                });
            } else {
                // Time for the closing thread, if it had a job.
                std::thread::sleep(2 * took);
            }
        }
        sent += kicked();
        if closings == 0 {
            // As many as the budget pays for: five milliseconds, and one more each second.
            let most =
                (Duration::from_millis(5) + began.elapsed() / 1000).as_nanos() / (took / 2).as_nanos() + 2;
            assert!(u128::from(sent) <= most, "{sent} kicks were sent, {most} are paid for");
            assert!(sent < u64::from(BURSTS));
        }
        drop((watchers, port.stop(), backend));
        bench.assert_whole();
    }
}

/// A backend that leaves as soon as it runs interrupts the pollers twice each time: it is connected to as often as the limit
/// allows.
#[test]
fn interruptions_are_limited_as_the_port_says() {
    const TIME: Duration = Duration::from_secs(3);
    let _alone = alone();
    for (of_port, of_process) in [(4, 4000), (200, 4)] {
        let (mut bench, place) = (Bench::new(2048), Place::new());
        bench.driver = driver(|limits, process| {
            (limits.interruptions, process.interruptions) = (of_port, of_process);
        });
        let server = Server::new(&place, |_| {});
        let port = open(&bench, "net_restless", &place.arg());
        let (began, first) = (Instant::now(), server.served());
        while began.elapsed() < TIME {
            let served = server.served();
            server.leave();
            wait_until("it connects again", || server.served() > served && port.control.link().up);
        }
        let connections = u64::from(server.served() - first);
        // Four at once and four a second; two for each connection, and one that leaves a debt.
        let most = (4 + 4 * (began.elapsed().as_secs() + 1)) / 2 + 1;
        assert!((2..=most).contains(&connections), "{connections} connections, {most} are paid for");
        drop((port.stop(), server));
        bench.assert_whole();
    }
}

/// Each byte of an answer wakes the port's thread.
fn trickle(backend: &mut Backend) {
    use std::io::Write;
    backend.sender = Some(Box::new(|mut socket: &UnixStream, bytes| {
        for byte in bytes {
            let _ = socket.write_all(&[*byte]);
            std::thread::yield_now();
        }
    }));
}

/// Backends that come and go as fast as they can: their ports' threads use as much time as they may together, another port
/// connects as fast as without them, and packets pass.
#[test]
fn control_time_is_shared() {
    const PORTS: usize = 4;
    const TIME: Duration = Duration::from_secs(4);
    /// Thousandths of a core.
    const LIMIT: u32 = 40;
    let _alone = alone();
    for (of_port, of_process, ports) in [(500, LIMIT, PORTS), (LIMIT, 500, 1)] {
        let mut bench = Bench::new(16_384);
        let (mut bystander, mut traffic) = (Bystander::new(&bench), Traffic::new(&bench));
        let quiet = traffic.during(None, || bystander.best(Duration::MAX));
        bench.driver = driver(|limits, process| {
            (limits.control_time, process.control_time) = (of_port, of_process);
        });
        if of_process == LIMIT {
            drop(bystander.port.stop());
            bystander = Bystander::new(&bench);
        }
        let places: [Place; PORTS] = std::array::from_fn(|_| Place::new());
        let servers: Vec<_> = places.iter().take(ports).map(|place| Server::new(place, trickle)).collect();
        let open = |place: &Place| open(&bench, "net_busy", &place.arg());
        let mut ports: Vec<_> = places.iter().take(ports).map(open).collect();
        let used = || time_of("lc-net_busy");
        let (before, began) = (used(), Instant::now());
        let (first, others) = ports.split_first_mut().expect("some");
        let control = first.control.clone();
        let noisy = traffic.unnoticed(first, || {
            servers.iter().for_each(|server| server.spoil(true));
            while began.elapsed() < TIME {
                let up = others.iter().zip(&servers[1..]).filter(|(port, _)| port.control.link().up);
                up.for_each(|(_, server)| server.leave());
                if control.link().up {
                    servers[0].leave();
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            bystander.best(quiet + NOTICE)
        });
        let (used, time) = (used().saturating_sub(before), began.elapsed());
        println!("{used:?} of {time:?}; the bystander reconnects in {quiet:?}, and in {noisy:?} beside them");
        // Two seconds' worth at once, twice that if others leave it, and a debt of each.
        let most = (time + Duration::from_secs(4)) * LIMIT / 1000 + Duration::from_millis(20) * PORTS as u32;
        assert!(used <= most, "{used:?} of {time:?}");
        assert!(noisy <= quiet + NOTICE, "{noisy:?} instead of {quiet:?}");
        traffic.stop();
        drop((ports.into_iter().map(Port::stop).collect::<Vec<_>>(), bystander.port.stop(), servers));
        bench.assert_whole();
    }
}
