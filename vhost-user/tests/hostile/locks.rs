//! Memory that makes whoever maps or reads it wait for its owner.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use linecard_virtio::Features;
use linecard_wire::FrontendReq as Req;
use linecard_wire::payload::{MemTable, MemoryRegion, Payload, VringFd, VringState};

use crate::bystander::{Neighbours, has_memory, thread_called, wait_for_answer};
use crate::common::{Frontend, GUEST, USER, memfd};

fn fallocate(file: &File, mode: libc::c_int, len: usize) {
    let len = libc::off_t::try_from(len).expect("small");
    // SAFETY: takes integers.
    assert_eq!(unsafe { libc::fallocate(file.as_raw_fd(), mode, 0, len) }, 0, "no memory for the test");
}

const PUNCH: libc::c_int = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;

/// Takes the first `len` bytes of a file away.
pub(crate) fn punch(file: &File, len: usize) {
    fallocate(file, PUNCH, len);
}

/// A hole is punched into a GiB that was in use, again and again, and the ring that is started lies in it: whoever reads the
/// ring waits until the hole is there.
#[test]
fn a_hole_that_is_punched_under_a_ring_stops_nobody_else() {
    const SIZE: usize = 1 << 30;
    if !has_memory("a_hole_that_is_punched_under_a_ring_stops_nobody_else", SIZE) {
        return;
    }
    let mut ports = Neighbours::new("hole");
    let mut hostile = Frontend::connect(&ports.bad);
    hostile.negotiate(Features::empty());
    hostile.file = memfd(SIZE as u64);
    let region = MemoryRegion { guest_addr: GUEST, size: SIZE as u64, user_addr: USER, offset: 0 };
    hostile.good(
        Req::SET_MEM_TABLE,
        &MemTable(vec![region]).to_bytes(),
        &[hostile.file.try_clone().expect("dup").as_fd()],
    );
    hostile.describe_ring(0, 256, 0);
    let file = hostile.file.try_clone().expect("dup");
    let kick = VringFd { index: 0, has_fd: false }.to_bytes();
    let base = VringState { index: 0, num: 0 }.to_bytes();
    let mut longest = Duration::ZERO;
    ports.assert_unnoticed(|| {
        fallocate(&file, 0, SIZE);
        let begun = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let punching = scope.spawn(|| {
                begun.store(true, Ordering::Release);
                fallocate(&file, PUNCH, SIZE);
            });
            while !begun.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            while !punching.is_finished() {
                let began = Instant::now();
                hostile.good(Req::SET_VRING_KICK, &kick, &[]);
                longest = longest.max(began.elapsed());
                hostile.get(Req::GET_VRING_BASE, &base);
            }
        });
    });
    println!("SET_VRING_KICK took {longest:?}");
}

/// Places of a file in this many mappings, in a process of the frontend's.
const MAPPINGS: usize = 20_000;
/// So long at least does mapping the file take once in each try.
const WAITED: Duration = Duration::from_millis(50);
/// Bytes of each: eight tables of pages to look through.
const WIDE: usize = 8 * TABLE;
/// Bytes that a table of pages is for.
const TABLE: usize = 2 << 20;

/// A process of the frontend's that maps a file so often, and punches holes into it until it is killed. While a hole is
/// punched the file's lock is held, which whoever maps it needs.
struct Puncher(libc::pid_t);

impl Puncher {
    fn start(file: &File) -> Self {
        let ready = crate::common::eventfd();
        // SAFETY: the child only makes system calls until it is killed.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            punch_for_ever(file.as_raw_fd(), ready.as_raw_fd());
        }
        let puncher = Self(pid);
        linecard_lab::wait_until("the file is mapped", || crate::common::take_count(&ready) > 0);
        puncher
    }
}

impl Drop for Puncher {
    fn drop(&mut self) {
        // SAFETY: takes integers; the process is a child that nobody has waited for.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        // SAFETY: takes integers and a null pointer, which asks for no status; the process is a child that nobody has
        // waited for.
        unsafe { libc::waitpid(self.0, std::ptr::null_mut(), 0) };
    }
}

/// In the child: only system calls, because the parent has other threads.
fn punch_for_ever(file: libc::c_int, ready: libc::c_int) -> ! {
    // SAFETY: takes integers: the child ends with its parent.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    for _ in 0..MAPPINGS {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: makes a mapping of its own.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), WIDE, access, libc::MAP_SHARED, file, 0) };
        if at == libc::MAP_FAILED {
            // SAFETY: ends the child.
            unsafe { libc::_exit(1) };
        }
        for table in 0..WIDE / TABLE {
            // SAFETY: within the mapping just made.
            unsafe { at.cast::<u8>().wrapping_add(table * TABLE).write_volatile(1) };
        }
    }
    let one = 1u64;
    // SAFETY: reads eight bytes of `one`.
    unsafe { libc::write(ready, (&raw const one).cast(), 8) };
    loop {
        // SAFETY: takes integers.
        unsafe { libc::fallocate(file, 0, 0, WIDE as libc::off_t) };
        // SAFETY: takes integers.
        unsafe { libc::fallocate(file, PUNCH, 0, WIDE as libc::off_t) };
    }
}

/// To map the file waits for the hole, on the thread of the port whose frontend shared it.
#[test]
fn a_file_whose_lock_is_held_stops_nobody_else() {
    let mut ports = Neighbours::new("lock");
    let file = memfd(WIDE as u64);
    let _puncher = Puncher::start(&file);
    let mut hostile = Frontend::connect(&ports.bad);
    hostile.negotiate(Features::empty());
    let mut longest = Duration::ZERO;
    let (mut at, mut waited) = (0, true);
    ports.assert_unnoticed(|| {
        // Until it has waited.
        let until = Instant::now() + Duration::from_secs(20);
        let mut took = Duration::ZERO;
        while took < WAITED && waited {
            waited = Instant::now() < until;
            // A region that is not there yet.
            at = (at + 1) % 64;
            let (guest_addr, user_addr) = (GUEST + (at << 30), USER + (at << 30));
            let region = MemoryRegion { guest_addr, size: WIDE as u64, user_addr, offset: 0 };
            let table = MemTable(vec![region]).to_bytes();
            let answering = thread_called("bad");
            took = wait_for_answer(answering, || {
                hostile.good(Req::SET_MEM_TABLE, &table, &[file.as_fd()]);
            });
            longest = longest.max(took);
        }
    });
    println!("SET_MEM_TABLE took {longest:?}");
    if !waited {
        let why = format!("to map a file waits for no lock on this kernel: {longest:?} at most");
        linecard_lab::skip("a_file_whose_lock_is_held_stops_nobody_else", &why);
    }
}
