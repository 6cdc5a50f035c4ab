//! A backend that is gone for long: it is looked for ever more rarely, and found at once when its socket appears.

mod support;

use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use linecard_lab::wait_until;
use support::stall::sleeps;
use support::{Backend, Bench, Place, attached};

/// The port's control thread.
const THREAD: &str = "lc-virtio_user0";

#[test]
fn an_absent_backend_is_looked_for_rarely_and_found_when_it_comes() {
    // Nobody else makes files there.
    let folder = std::env::temp_dir().join(format!("lc-absent-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a folder");
    let (bench, place) = (Bench::new(1024), Place(folder.join("s")));
    let (port, backend, listener) = attached(&bench, &place, "");
    drop((backend, listener));
    std::fs::remove_file(&place.0).expect("it is there");
    wait_until("link down", || !port.control.link().up);
    wait_until("it is looked for every now and then", || {
        let all = || sleeps(THREAD).into_values().sum::<u64>();
        let before = all();
        std::thread::sleep(Duration::from_secs(1));
        all() - before <= 5
    });
    let began = Instant::now();
    let listener = UnixListener::bind(&place.0).expect("a socket");
    let peer = std::thread::spawn(move || {
        let mut backend = Backend::accept(&listener);
        backend.until_running(2).expect("a frontend that stays");
        backend
    });
    wait_until("link up", || port.control.link().up);
    println!("connected {:?} after the socket was there", began.elapsed());
    drop((peer.join().expect("no panic"), port.stop()));
    bench.assert_whole();
    std::fs::remove_dir_all(&folder).expect("ours");
}
