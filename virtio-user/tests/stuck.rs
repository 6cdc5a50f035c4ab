//! A polling thread that is held up in the middle of a burst: its port stops all the same, in the time that is promised, and what
//! the burst works on stays until it ends. Other ports do not notice.

mod support;

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use linecard_lab::wait_until;
use linecard_mempool::Burst;
use linecard_pmd::PortConfig;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use support::stall::threads;
use support::traffic::{Traffic, this_thread, time_in_queue};
use support::{Backend, Bench, Place};

/// Longest wait of a stop for the control thread (`SECURITY.md`, Time).
const GRACE: Duration = Duration::from_secs(5);
/// What a stop takes beside that, without the time in which its thread had no core.
const SLACK: Duration = Duration::from_secs(2);
const PAGE: usize = 4096;

/// A page of this process whose reader waits until this is dropped: its content was taken away, and userfaultfd tells
/// about the next access instead of bringing another page.
struct Hold(OwnedFd);

impl Hold {
    /// Holds the page at `addr`, in memory that is shared with `backend`; `None` where the kernel has no userfaultfd for us,
    /// which is said.
    fn new(test: &str, backend: &Backend, addr: u64) -> Option<Self> {
        const UFFD_API: u64 = 0xaa;
        const MISSING_SHMEM: u64 = 1 << 5;
        const MISSING: u64 = 1;
        const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
        const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
        // SAFETY: takes integers.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) };
        let Some(fd) = i32::try_from(fd).ok().filter(|fd| *fd >= 0) else {
            linecard_lab::skip(test, "no userfaultfd for this user");
            return None;
        };
        // SAFETY: just made, nobody else owns it.
        let fault = unsafe { OwnedFd::from_raw_fd(fd) };
        let page = addr & !(PAGE as u64 - 1);
        let mut api = [UFFD_API, MISSING_SHMEM, 0];
        let mut register = [page, PAGE as u64, MISSING, 0];
        // SAFETY: reads and writes the structure of this request.
        let ready = unsafe { libc::ioctl(fault.as_raw_fd(), UFFDIO_API, &raw mut api) } == 0;
        // SAFETY: reads and writes the structure of this request, which lives across the call.
        let held = unsafe { libc::ioctl(fault.as_raw_fd(), UFFDIO_REGISTER, &raw mut register) } == 0;
        if !ready || !held {
            linecard_lab::skip(test, "no userfaultfd for shared memory");
            return None;
        }
        let region = backend.regions.0.iter().find(|region| {
            let told = &region.told;
            (told.user_addr..told.user_addr + told.size).contains(&page)
        });
        let region = region.expect("it is shared");
        let at = page - region.told.user_addr + region.told.offset;
        let flags = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: takes integers. What is lost is the content of a page of packets, which may change at any time.
        let punched = unsafe {
            libc::fallocate(region.fd.as_raw_fd(), flags, at.cast_signed(), (PAGE as u64).cast_signed())
        };
        assert_eq!(punched, 0, "{}", std::io::Error::last_os_error());
        Some(Self(fault))
    }

    /// Whether a thread waits for the page.
    fn is_waited_for(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.0.as_fd(), PollFlags::IN)], Some(&now)).expect("poll") > 0
    }
}

/// What becomes of the port while its poller is in the burst.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// It is stopped and dropped.
    Stop,
    /// Its backend leaves, and another one comes.
    Leave,
}

/// The address of the first receive buffer that is lent.
fn first_buffer(backend: &Backend) -> u64 {
    let ring = backend.ring(0);
    ring.desc.cell::<u64>(0).expect("inside the ring").load(std::sync::atomic::Ordering::Acquire)
}

fn while_stuck(test: &str, options: &str, end: End) {
    let (bench, place) = (Bench::new(4096), Place::new());
    let mut traffic = Traffic::new(&bench);
    let listener = UnixListener::bind(&place.0).expect("a socket");
    let accepting = listener.try_clone().expect("a socket");
    let peer = std::thread::spawn(move || {
        let mut backend = Backend::accept(&accepting);
        backend.until_running(2).expect("a frontend that stays");
        backend
    });
    let args = format!("{},{options}", place.arg());
    let device = bench.probe_as("net_stuck", &args).expect("a device");
    let mut port = bench.start(device, PortConfig::default()).expect("a port");
    let backend = peer.join().expect("no panic");
    // It lies in the first buffer, of which the poller reads the header.
    assert!(backend.echo(0).give(&[7; 60]));
    let Some(hold) = Hold::new(test, &backend, first_buffer(&backend)) else {
        drop((backend, port.stop()));
        return traffic.stop();
    };
    let mut rx = port.rx.remove(0);
    let (done, over) = mpsc::channel::<()>();
    let poller = std::thread::spawn(move || {
        let mut burst = Burst::new();
        rx.rx_burst(&mut burst);
        burst.clear();
        let _ = done.send(());
        rx
    });
    wait_until("the poller waits for its page", || hold.is_waited_for());
    let control = port.control.clone();
    let port = traffic.during(None, || match end {
        End::Stop => {
            let thread = [this_thread()];
            let (queued, began) = (time_in_queue(&thread), Instant::now());
            drop(port.stop());
            let (took, queued) = (began.elapsed(), time_in_queue(&thread) - queued);
            println!("{options}: stopped in {took:?}, {queued:?} of it without a core");
            assert!(took >= GRACE && took < GRACE + SLACK + queued, "{took:?}, {queued:?} without a core");
            assert_eq!(threads("lc-net_stuck"), 1, "its thread is left behind");
            None
        }
        End::Leave => {
            drop(backend);
            wait_until("link down", || !port.control.link().up);
            Some(port)
        }
    });
    assert!(over.try_recv().is_err(), "it is still inside");
    let stats = bench.pool.stats();
    assert!(stats.free + stats.cached < stats.total, "the buffers stay: {stats:?}");
    drop(hold);
    let mut rx = poller.join().expect("no panic");
    if let Some(port) = port {
        let mut next = Backend::accept(&listener);
        next.until_running(2).expect("a frontend that stays");
        wait_until("link up", || control.link().up);
        assert!(next.echo(0).give(&[9; 60]));
        let mut burst = Burst::new();
        wait_until("a packet of the next one", || rx.rx_burst(&mut burst) == 1);
        assert_eq!(burst[0].data(), [9; 60]);
        burst.clear();
        drop((next, port.stop()));
    } else {
        // Whatever became of the port, its queue can be polled.
        let mut burst = Burst::new();
        assert_eq!((0..1000).map(|_| rx.rx_burst(&mut burst)).sum::<usize>(), 0);
        wait_until("its thread ends", || threads("lc-net_stuck") == 0);
    }
    drop((control, rx));
    traffic.stop();
    bench.soon_whole();
}

const LAYOUTS: [&str; 3] = ["packed_vq=0,in_order=0", "packed_vq=1,in_order=0", "packed_vq=1,in_order=1"];

#[test]
fn a_port_is_stopped_while_its_poller_is_stuck_in_a_burst() {
    for options in LAYOUTS {
        while_stuck("a_port_is_stopped_while_its_poller_is_stuck_in_a_burst", options, End::Stop);
    }
}

#[test]
fn a_backend_leaves_while_the_poller_is_stuck_in_a_burst() {
    for options in LAYOUTS {
        while_stuck("a_backend_leaves_while_the_poller_is_stuck_in_a_burst", options, End::Leave);
    }
}
