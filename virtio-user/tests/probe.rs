//! What cannot be opened or started is said in one sentence, and leaves nothing behind.

mod support;

use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use linecard_lab::wait_until;
use linecard_pmd::{PortConfig, configure};
use support::{Backend, Bench, Place};

#[track_caller]
fn sentence(bench: &Bench, args: &str, parts: &[&str]) {
    let error = bench.probe(args).err().expect("it cannot be opened").to_string();
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    assert!(error.starts_with("net_virtio_user0: ") && !error.contains('\n'), "{error}");
}

#[test]
fn no_backend() {
    let (bench, place) = (Bench::new(512), Place::new());
    let began = Instant::now();
    sentence(&bench, &place.arg(), &["cannot connect", "No such file", "start the backend first"]);
    assert!(began.elapsed() >= bench.wait, "it gave up early");
    // Left behind by a process that ended.
    drop(UnixListener::bind(&place.0).expect("a socket"));
    sentence(&bench, &place.arg(), &["Connection refused", "start the backend first"]);
    sentence(&bench, "path=/", &["a folder, not a socket", "give the path of a socket"]);
}

/// Devices of the kernel; what they refuse when they are there is asked in a guest (`tests/guest_kernel.rs`).
#[test]
fn no_device() {
    let bench = Bench::new(512);
    let neither = &["'/dev/null' is neither a vhost-net nor a vhost-vdpa device", "give path=/dev/vhost-net"];
    sentence(&bench, "path=/dev/null", neither);
    let missing = &["opening /dev/vhost-net-of-nobody: No such file", "modprobe vhost_net"];
    sentence(&bench, "path=/dev/vhost-net-of-nobody", missing);
    let missing = &["opening /dev/vhost-vdpa-of-nobody: No such file", "vdpa dev show"];
    sentence(&bench, "path=/dev/vhost-vdpa-of-nobody", missing);
    let closed = &["taking over vhost_fd=99999: Bad file descriptor", "open in this process"];
    sentence(&bench, "path=/dev/vhost-net,vhost_fd=99999", closed);
}

#[test]
fn a_backend_that_comes_while_we_wait() {
    let (mut bench, place) = (Bench::new(512), Place::new());
    bench.wait = Duration::from_secs(60);
    let path = place.0.clone();
    let late = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(150));
        let listener = UnixListener::bind(path).expect("a socket");
        let mut backend = Backend::accept(&listener);
        backend.until_gone();
    });
    drop(bench.probe(&place.arg()).expect("it came"));
    late.join().expect("no panic");
}

#[test]
fn sockets_of_servers() {
    let (bench, place) = (Bench::new(512), Place::new());
    let server = format!("{},server=1", place.arg());
    let device = bench.probe(&server).expect("it listens");
    sentence(&bench, &server, &["another process listens", "choose another path"]);
    drop(device);
    assert!(!place.0.exists());
    drop(UnixListener::bind(&place.0).expect("a socket that nobody listens to"));
    drop(bench.probe(&server).expect("it is replaced"));
    std::fs::write(&place.0, "precious").expect("a file");
    sentence(&bench, &server, &["not a socket"]);
    assert_eq!(std::fs::read(&place.0).expect("it is untouched"), b"precious");
    sentence(&bench, "path=/nowhere/at/all,server=1", &["the directory of socket", "create it"]);
}

#[test]
fn what_does_not_fit_is_refused_and_the_device_comes_back() {
    let (bench, place) = (Bench::new(512), Place::new());
    let args = format!("{},server=1,mrg_rxbuf=0,queues=2", place.arg());
    let mut device = bench.probe(&args).expect("it listens");
    for (config, pool, part) in [
        (PortConfig::default().mtu(9000), &bench.pool, "mrg_rxbuf=1"),
        (PortConfig::default().mtu(20_000), &bench.pool, "MTU"),
        (PortConfig::default().rx_queues(3), &bench.pool, "add queues=3"),
    ] {
        let failed = configure(device, config).and_then(|ready| ready.start(pool)).expect_err(part);
        assert!(failed.error.to_string().contains(part), "{}", failed.error);
        device = failed.device;
    }
    drop(bench.start(device, PortConfig::default()).expect("a port").stop());
    bench.assert_whole();
}

#[test]
fn more_queues_than_the_backend_has() {
    let (bench, place) = (Bench::new(512), Place::new());
    let listener = UnixListener::bind(&place.0).expect("a socket");
    let peer = std::thread::spawn(move || {
        let mut backend = Backend::accept(&listener);
        backend.queue_num = 2;
        backend.until_gone();
    });
    let device = bench.probe(&format!("{},queues=4", place.arg())).expect("a device");
    assert_eq!(device.info().max_rx_queues, 2);
    let config = PortConfig::default().rx_queues(4);
    let failed = bench.start(device, config).expect_err("too many");
    assert!(
        failed.error.to_string().contains("4 receive queues requested, the device has 2; ask for 1 to 2"),
        "{}",
        failed.error
    );
    drop(failed);
    peer.join().expect("no panic");
}

/// A packed ring size with a backend that has split rings only: refused when the backend is known.
#[test]
fn a_ring_size_that_only_packed_rings_have() {
    let (bench, place) = (Bench::new(512), Place::new());
    let listener = UnixListener::bind(&place.0).expect("a socket");
    let peer = std::thread::spawn(move || {
        let mut backend = Backend::accept(&listener);
        backend.offered = support::all_features() - linecard_virtio::Features::RING_PACKED;
        backend.until_gone();
    });
    sentence(&bench, &format!("{},packed_vq=1,queue_size=300", place.arg()), &["300", "power of two"]);
    peer.join().expect("no panic");
}

/// Every device has a control thread of its own, which ends with it.
#[test]
fn no_thread_is_left() {
    let threads = || {
        let list = std::fs::read_dir("/proc/self/task").expect("a list").filter_map(Result::ok);
        let names = list.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.trim().starts_with("lc-net_counted")).count()
    };
    let (bench, places) = (Bench::new(512), [Place::new(), Place::new()]);
    let mut devices: Vec<_> = (0..)
        .zip(&places)
        .map(|(number, place)| {
            let args = format!("{},server=1", place.arg());
            bench.probe_as(&format!("net_counted{number}"), &args).expect("it listens")
        })
        .collect();
    // A thread takes its name when it first runs, and is gone a moment after it was waited for.
    wait_until("a thread each", || threads() == 2);
    devices.pop();
    wait_until("one thread less", || threads() == 1);
    devices.pop();
    wait_until("no control thread", || threads() == 0);
}
