//! Backends that make whoever serves their port wait: other ports do not notice.
//!
//! What a backend does here lasts until the test lets go, which is after the bystander has done its work: where ports
//! share a thread, the bystander waits in vain. Beside it, packets of a third port pass through the thread that polls
//! the bad one; none is lost, and none is late.

mod support;

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use linecard_lab::{Watchers, processor_time, wait_until};
use linecard_mempool::Burst;
use linecard_pmd::PortConfig;
use linecard_virtio_user::{Descriptors, VirtioUser};
use support::stall::{Bystander, NOTICE, Server, Silent, count, send_laden, send_urgent, sleeps, threads};
use support::traffic::Traffic;
use support::{Act, Backend, Bench, PATIENCE, Place};

/// Descriptors and threads of the whole process are counted here, and times compared: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often a backend has done its worst.
type Deeds = Arc<AtomicU32>;

/// Has a port's backends do what `prepare` says; a bystander reconnects meanwhile, and packets of another port pass.
fn beside(prepare: impl FnMut(&mut Backend) + Send + 'static, deeds: &Deeds, silent: &Silent) {
    let bench = Bench::new(4096);
    let (mut bystander, mut traffic) = (Bystander::new(&bench), Traffic::new(&bench));
    let quiet = traffic.during(None, || bystander.best(Duration::MAX));
    let place = Place::new();
    let server = Server::new(&place, prepare);
    let mut port = bench.open(&place.arg());
    let noisy = traffic.unnoticed(&mut port, || {
        server.spoil(true);
        wait_until("the backend has begun", || deeds.load(Ordering::Acquire) > 0);
        bystander.best(quiet + NOTICE)
    });
    println!("the bystander reconnects in {quiet:?}, and in {noisy:?} beside such a backend");
    assert!(noisy <= quiet + NOTICE, "{noisy:?} instead of {quiet:?}");
    // Whatever was done to it, the port comes back when its backend is good again.
    silent.let_go();
    server.spoil(false);
    wait_until("link up", || port.control.link().up);
    traffic.stop();
    drop((port.stop(), bystander.port.stop(), server));
    bench.assert_whole();
}

/// The kernel drops an out-of-band byte, and closes what came with it, inside the receiver's `recvmsg`.
#[test]
fn a_byte_out_of_band_with_a_descriptor_that_is_slow_to_close() {
    let _alone = alone();
    let (deeds, silent) = (Deeds::default(), Silent::default());
    let (count, sockets) = (deeds.clone(), silent.clone());
    let prepare = move |backend: &mut Backend| {
        let (count, sockets) = (count.clone(), sockets.clone());
        backend.sender = Some(Box::new(move |mut socket: &UnixStream, bytes| {
            if count.fetch_add(1, Ordering::AcqRel) < 200 {
                send_urgent(socket, sockets.lingering());
            }
            let _ = socket.write_all(bytes);
        }));
    };
    beside(prepare, &deeds, &silent);
}

/// A connection that is left has such bytes in it, unread.
#[test]
fn goodbyes_with_a_descriptor_that_is_slow_to_close() {
    let _alone = alone();
    let (deeds, silent) = (Deeds::default(), Silent::default());
    let (count, sockets) = (deeds.clone(), silent.clone());
    let prepare = move |backend: &mut Backend| {
        let (count, sockets) = (count.clone(), sockets.clone());
        backend.sender = Some(Box::new(move |mut socket: &UnixStream, bytes| {
            // Too long an answer ends the connection, and this stays behind it.
            let mut header = bytes[..12].to_vec();
            header[8..].copy_from_slice(&u32::MAX.to_ne_bytes());
            let _ = socket.write_all(&header[..11]);
            send_laden(socket, &header[11..], sockets.lingering());
            send_urgent(socket, sockets.lingering());
            send_laden(socket, bytes, sockets.lingering());
            count.fetch_add(1, Ordering::AcqRel);
        }));
    };
    beside(prepare, &deeds, &silent);
}

#[test]
fn a_backend_that_never_answers() {
    let _alone = alone();
    let deeds = Deeds::default();
    let count = deeds.clone();
    let prepare = move |backend: &mut Backend| {
        let count = count.clone();
        backend.spoiler = Some(Box::new(move |_, _| {
            count.fetch_add(1, Ordering::AcqRel);
            Act::Handled
        }));
    };
    beside(prepare, &deeds, &Silent::default());
}

#[test]
fn a_backend_whose_answers_trickle() {
    let _alone = alone();
    let deeds = Deeds::default();
    let count = deeds.clone();
    let prepare = move |backend: &mut Backend| {
        let count = count.clone();
        backend.sender = Some(Box::new(move |mut socket: &UnixStream, bytes| {
            for byte in bytes {
                let _ = socket.write_all(&[*byte]);
                count.fetch_add(1, Ordering::AcqRel);
                std::thread::sleep(Duration::from_millis(2));
            }
        }));
    };
    beside(prepare, &deeds, &Silent::default());
}

/// Descriptors that a port holds for its backend, at most.
const UNCLOSED: usize = 64;

/// Answers with as many descriptors as go along, the first of which keeps its thread: no backend gets a port to hold
/// more of them than the limit, over one connection or over many.
#[test]
fn answers_laden_with_descriptors() {
    let _alone = alone();
    for most in [1, u32::MAX] {
        let bench = Bench::new(4096);
        let mut traffic = Traffic::new(&bench);
        let (place, silent, deeds) = (Place::new(), Silent::default(), Deeds::default());
        let (sockets, sent) = (silent.clone(), deeds.clone());
        let server = Server::new(&place, move |backend| {
            let (sockets, sent) = (sockets.clone(), sent.clone());
            let mut answers = 0;
            backend.sender = Some(Box::new(move |socket: &UnixStream, bytes| {
                answers += 1;
                if answers <= most {
                    send_laden(socket, bytes, sockets.lingering());
                    sent.fetch_add(1, Ordering::AcqRel);
                } else {
                    // One connection, one load.
                    let _ = socket.shutdown(std::net::Shutdown::Both);
                }
            }));
        });
        // Named so that its threads can be told from those of other tests' ports.
        let device = bench.probe_as("net_laden", &place.arg()).expect("a device");
        let mut port = bench.start(device, PortConfig::default()).expect("a port");
        let files = count("fd");
        let highest = traffic.unnoticed(&mut port, || {
            server.spoil(true);
            wait_until("a load has come", || deeds.load(Ordering::Acquire) > 0);
            let (began, mut highest) = (Instant::now(), 0);
            // Time for a hundred connections, if there were no limit.
            while began.elapsed().as_secs() < 3 && deeds.load(Ordering::Acquire) < 100 {
                // What the backend itself has open: two of a socket that lingers, and a file.
                let own = 2 * deeds.load(Ordering::Acquire) as usize + 8;
                highest = highest.max(count("fd").saturating_sub(files + own));
                assert!(highest <= UNCLOSED, "{highest} descriptors are held for one port");
                assert!(threads("net_laden/close") <= 1, "a closing thread for each connection");
                std::thread::sleep(Duration::from_millis(1));
            }
            highest
        });
        println!("{} loads, {highest} descriptors", deeds.load(Ordering::Acquire));
        assert!(!port.control.link().up);
        silent.let_go();
        server.spoil(false);
        wait_until("link up", || port.control.link().up);
        wait_until("everything closed", || count("fd") <= files);
        traffic.stop();
        drop((port.stop(), server));
        bench.assert_whole();
    }
}

/// Thirty-three backends have their ports hold all the descriptors that they may, and give none back: a port that was there
/// before loses no packet, and the thirty-fourth has what it needs.
#[test]
fn thirty_three_hostile_backends_leave_the_next_what_it_needs() {
    const HOSTILE: usize = 33;
    /// Of the process: what these ports need for themselves, and a share that is less than a port's own limit.
    const TOTAL: u64 = 1000;
    let _alone = alone();
    let mut bench = Bench::new(16_384);
    let total: &'static Descriptors = Box::leak(Box::new(Descriptors::of(TOTAL)));
    (bench.driver, bench.wait) = (VirtioUser::sharing(total), Duration::from_secs(10));
    let mut traffic = Traffic::new(&bench);
    let silent = Silent::default();
    let deeds: [Deeds; HOSTILE] = std::array::from_fn(|_| Deeds::default());
    let places: [Place; HOSTILE] = std::array::from_fn(|_| Place::new());
    let servers: [Server; HOSTILE] = std::array::from_fn(|n| {
        let (sockets, deeds) = (silent.clone(), deeds[n].clone());
        Server::new(&places[n], move |backend| {
            let (sockets, deeds) = (sockets.clone(), deeds.clone());
            backend.sender = Some(Box::new(move |socket: &UnixStream, bytes| {
                // One that keeps its port's closing thread; then as many as the port takes.
                match deeds.fetch_add(1, Ordering::AcqRel) {
                    0 => send_laden(socket, bytes, sockets.lingering()),
                    _ => send_laden(socket, bytes, std::fs::File::open("/dev/null").expect("a file").into()),
                }
            }));
        })
    });
    let mut ports = places.each_ref().map(|place| bench.open(&place.arg()));
    let before = total.resource().used();
    let (first, others) = ports.split_first_mut().expect("33");
    let good = traffic.unnoticed(first, || {
        servers.iter().for_each(|server| server.spoil(true));
        wait_until("all have done their worst", || {
            deeds.iter().all(|deeds| deeds.load(Ordering::Acquire) > 0)
                && others.iter().all(|port| !port.control.link().up)
        });
        let mut good = Traffic::new(&bench);
        good.during(None, || {});
        good
    });
    let taken = total.resource().used();
    println!("{taken} descriptors are held, {before} before");
    assert!(taken > before, "they took nothing");
    assert!(taken <= TOTAL);
    silent.let_go();
    servers.iter().for_each(|server| server.spoil(false));
    wait_until("all links up", || ports.iter().all(|port| port.control.link().up));
    good.stop();
    traffic.stop();
    drop((ports.map(linecard_pmd::Port::stop), servers));
    wait_until("all is given back", || total.resource().used() == 0);
    bench.assert_whole();
}

/// The kicks of all rings are watched by so many that each takes milliseconds: whoever polls the port pays for a few.
#[test]
fn kicks_that_take_long() {
    let _alone = alone();
    let (bench, place) = (Bench::new(4096), Place::new());
    let mut traffic = Traffic::new(&bench);
    let listener = UnixListener::bind(&place.0).expect("a socket");
    let peer = std::thread::spawn(move || {
        let mut backend = Backend::accept(&listener);
        backend.until_running(4).expect("a frontend that stays");
        backend
    });
    let device = bench.probe(&format!("{},queues=2,packed_vq=1", place.arg())).expect("a device");
    let config = PortConfig::default().rx_queues(2).tx_queues(2);
    let mut port = bench.start(device, config).expect("a port");
    let backend = peer.join().expect("no panic");
    let kicks = [1, 3].map(|ring: usize| backend.rings[ring].kick.as_ref().expect("an eventfd"));
    const TEST: &str = "kicks_that_take_long";
    let Some((first, took)) = Watchers::slowing(TEST, kicks[0]) else { return };
    let Some((second, _)) = Watchers::slowing(TEST, kicks[1]) else { return };
    // The backend sleeps: every burst has to wake it.
    for ring in [1, 3] {
        backend.ring(ring).device.cell::<u16>(2).expect("flags").store(0, Ordering::SeqCst);
    }
    let (mut burst, mut all, mut longest) = (Burst::new(), Duration::ZERO, Duration::ZERO);
    for _ in 0..50 {
        for queue in &mut port.tx {
            bench.pool.get_bulk(&mut burst, 1).unwrap();
            burst[0].append(60).expect("room").fill(1);
            let began = processor_time();
            assert_eq!(queue.tx_burst(&mut burst), 1);
            let spent = processor_time() - began;
            (all, longest) = (all + spent, longest.max(spent));
            traffic.pass();
        }
    }
    println!("one signal takes {took:?}, a hundred bursts {all:?}, the longest {longest:?}");
    // Not even the first is sent by the polling thread.
    assert!(longest < took / 2, "a burst took {longest:?}, one signal {took:?}");
    assert!(all < 4 * took + Duration::from_millis(15), "a hundred bursts took {all:?}, one signal {took:?}");
    drop((first, second));
    traffic.stop();
    drop((backend, port.stop()));
    bench.assert_whole();
}

/// A port with nothing to do has its thread wake up at most ten times a second, while a kick may still be owed, and then not at all.
#[test]
fn an_idle_port_sleeps() {
    let _alone = alone();
    let bench = Bench::new(1024);
    let bystander = Bystander::new(&bench);
    let (before, began) = (sleeps("lc-"), Instant::now());
    assert!(!before.is_empty());
    std::thread::sleep(Duration::from_secs(2));
    let after = sleeps("lc-");
    let most = began.elapsed().as_millis() as u64 / 100 + 5;
    println!("{before:?} sleeps before {:?}, {after:?} after", began.elapsed());
    for (thread, count) in &after {
        let more = count - before.get(thread).expect("no thread begins");
        assert!(more <= most, "{thread} woke up {more} times, {most} are allowed");
    }
    drop(bystander.port.stop());
}

/// A port that was reconnected many times holds what it held before.
#[test]
fn a_thousand_reconnections_leave_nothing_behind() {
    const PORTS: usize = 4;
    const EACH: u32 = 250;
    let _alone = alone();
    let bench = Bench::new(4096);
    let places: [Place; PORTS] = std::array::from_fn(|_| Place::new());
    let servers = places.each_ref().map(|place| Server::new(place, |_| {}));
    let ports = places.each_ref().map(|place| bench.open(&place.arg()));
    let up = |why: &str| wait_until(why, || ports.iter().all(|port| port.control.link().up));
    let maps = || std::fs::read_to_string("/proc/self/maps").expect("proc").lines().count();
    let held = || [count("fd"), count("task"), maps()];
    // The first rounds make what is made once.
    let mut before = held();
    for round in 0..EACH {
        if round == 10 {
            before = held();
        }
        let served = servers.each_ref().map(Server::served);
        servers.iter().for_each(Server::leave);
        wait_until("all connect again", || {
            servers.iter().zip(served).all(|(server, old)| server.served() > old)
        });
        up("link up");
    }
    let began = Instant::now();
    let mut after = held();
    // A heap may have grown by a few mappings, not by one for each round. Threads of before may still be ending.
    while after[0] > before[0] || after[1] > before[1] || after[2] > before[2] + 16 {
        assert!(
            began.elapsed() < PATIENCE,
            "descriptors, threads, mappings: {before:?} before, {after:?} after"
        );
        std::thread::sleep(Duration::from_millis(10));
        after = held();
    }
    println!("descriptors, threads, mappings: {before:?} before, {after:?} after");
    drop((ports.map(linecard_pmd::Port::stop), servers));
    bench.assert_whole();
}
