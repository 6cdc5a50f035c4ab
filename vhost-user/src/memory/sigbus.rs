//! A SIGBUS handler that lets the process survive a peer that removes pages of its shared memory.
//!
//! A peer may shrink the file of its memory, or punch holes into hugepages of which none are left; sealing
//! does not prevent the latter. The next access to such a page raises SIGBUS. The handler looks the address
//! up in a fixed table of peer mappings, maps anonymous memory in its place, and raises that peer's
//! [`Alarm`]: the port notices it at its next burst and disconnects the peer.
//!
//! Every other SIGBUS has the effect that it would have without this handler: a fault at another address, or
//! a signal that was *sent* (`kill -BUS`). A previous handler is called. The process ends by SIGBUS if there
//! was no previous handler, or if that handler installs the default action, as the one of Rust's runtime
//! does. If the signal was ignored, a sent one is still ignored, and so it is in the first process of a PID
//! namespace, for which the kernel drops signals without a handler. In no case does the process continue
//! without this handler.
//!
//! The first fault replaces one page. But the burst continues, and one chain can lead to 32 768 separate
//! pages: replaced one by one, they would need more mappings than a process may have (`vm.max_map_count`),
//! and the next fault would end it. Each fault of a peer therefore replaces twice as much memory as the one
//! before.
//!
//! The table is lock-free and the handler uses nothing else, so it is async-signal-safe.

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// The number of mappings that can be watched: enough for 32 peers with the maximum number of regions.
/// Further regions are refused, because one hole in unwatched memory would end the process. So would a kernel
/// that allows no more mappings: with its guards a region takes up to three of the process's 65 530
/// (`vm.max_map_count`).
pub(crate) const ENTRIES: usize = 16_384;
/// The `start` of an entry that is being filled.
const CLAIMED: usize = 1;
/// The maximum number of bytes that one fault replaces, except for a larger page: removing the old mapping
/// takes a few milliseconds.
const MOST: usize = 1 << 30;

/// A flag that is raised when a page of a peer's memory vanishes.
///
/// ```
/// let alarm = linecard_vhost_user::sigbus::Alarm::new();
/// assert!(!alarm.raised());
/// ```
#[derive(Debug, Default)]
pub struct Alarm {
    /// The number of times it was raised.
    faults: AtomicU32,
}

impl Alarm {
    /// An alarm that has not been raised.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Whether a page has vanished since the alarm was created.
    #[inline(always)]
    pub fn raised(&self) -> bool {
        self.faults.load(Ordering::Relaxed) != 0
    }
}

/// One watched mapping. An entry whose `start` is 0 is free.
struct Entry {
    start: AtomicUsize,
    len: AtomicUsize,
    page: AtomicUsize,
    alarm: AtomicPtr<Alarm>,
}

static TABLE: [Entry; ENTRIES] = [const {
    Entry {
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        page: AtomicUsize::new(0),
        alarm: AtomicPtr::new(std::ptr::null_mut()),
    }
}; ENTRIES];

/// The first entry that was never used; limits the handler's search.
static HIGH: AtomicUsize = AtomicUsize::new(0);

/// The action for SIGBUS before the handler was installed.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// A mapping in the table; removed on drop, before it is unmapped.
pub(crate) struct Watch {
    entry: &'static Entry,
    /// Keeps the alarm alive while the table points at it.
    _alarm: Arc<Alarm>,
}

impl Watch {
    /// Watches `len` bytes at `start`, in pages of `page`; `None` when the table is full.
    pub(crate) fn new(start: usize, len: usize, page: usize, alarm: &Arc<Alarm>) -> Option<Self> {
        let (index, entry) = TABLE.iter().enumerate().find(|(_, entry)| {
            entry.start.load(Ordering::Relaxed) == 0
                && entry.start.compare_exchange(0, CLAIMED, Ordering::Acquire, Ordering::Relaxed).is_ok()
        })?;
        HIGH.fetch_max(index + 1, Ordering::Relaxed);
        entry.len.store(len, Ordering::Relaxed);
        entry.page.store(page, Ordering::Relaxed);
        entry.alarm.store(Arc::as_ptr(alarm).cast_mut(), Ordering::Relaxed);
        // S1, pairs with S2: a handler that sees `start` sees the rest of the entry.
        entry.start.store(start, Ordering::Release);
        Some(Self { entry, _alarm: Arc::clone(alarm) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.entry.start.store(0, Ordering::Release);
    }
}

/// Installs the handler, once per process.
///
/// # Errors
/// The error of `sigaction`.
pub fn install() -> io::Result<()> {
    static RESULT: OnceLock<Result<(), i32>> = OnceLock::new();
    RESULT
        .get_or_init(|| {
            // Stored before the handler can run: it needs this for faults at other addresses.
            let previous = exchange(None)?;
            PREVIOUS.get_or_init(|| previous);
            exchange(Some(&ours())).map(|_| ())
        })
        .map_err(io::Error::from_raw_os_error)
}

fn ours() -> libc::sigaction {
    let mut action = default_action();
    action.sa_sigaction = on_sigbus as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    action
}

fn default_action() -> libc::sigaction {
    // SAFETY: all zeros is a valid sigaction: the default action, an empty mask, no flags.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// Sets the action for SIGBUS if one is given. Returns the previous action.
fn exchange(action: Option<&libc::sigaction>) -> Result<libc::sigaction, i32> {
    let mut previous = default_action();
    let action = action.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both point at valid structures or nowhere; the handler installed is async-signal-safe.
    let result = unsafe { libc::sigaction(libc::SIGBUS, action, &raw mut previous) };
    if result == 0 {
        Ok(previous)
    } else {
        Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL))
    }
}

extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo because of SA_SIGINFO.
    let details = unsafe { &*info };
    // SAFETY: SIGBUS fills in the address.
    let addr = unsafe { details.si_addr() }.addr();
    // SAFETY: errno is this thread's own.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: errno is this thread's own, and lives as long as it does.
    let saved = unsafe { errno.read() };
    // A signal that was sent has no address.
    let fault = details.si_code > 0;
    if !(fault && TABLE.iter().take(HIGH.load(Ordering::Relaxed)).any(|entry| entry.replace(addr))) {
        pass_on(signal, info, context);
    }
    // SAFETY: errno is this thread's own; the interrupted code must find its value.
    unsafe { errno.write(saved) };
}

impl Entry {
    /// If `addr` is in this mapping, replaces memory there with zeros and raises the alarm.
    fn replace(&self, addr: usize) -> bool {
        // S2, pairs with S1.
        let start = self.start.load(Ordering::Acquire);
        let (len, page) = (self.len.load(Ordering::Relaxed), self.page.load(Ordering::Relaxed));
        let inside = start > CLAIMED && addr >= start && addr - start < len && page.is_power_of_two();
        // Read again: an entry that was reused meanwhile belongs to another mapping.
        if !inside || self.start.load(Ordering::Acquire) != start {
            return false;
        }
        let alarm = self.alarm.load(Ordering::Relaxed);
        // SAFETY: the watch keeps the alarm, the region keeps the watch, and the faulting access keeps the
        // region alive.
        let before =
            unsafe { alarm.as_ref() }.map_or(0, |alarm| alarm.faults.fetch_add(1, Ordering::Relaxed));
        let (at, size) = block(addr, (start, len), page, before);
        // If replacing a part exceeds the limit of mappings, the whole mapping is replaced, which adds none.
        zeros(at, size) || zeros(start, len)
    }
}

/// The range that the fault at `addr` replaces, after `before` other faults of that peer: whole pages of the
/// mapping `(start, len)`.
fn block(addr: usize, (start, len): (usize, usize), page: usize, before: u32) -> (usize, usize) {
    let size = page.checked_shl(before).filter(|size| (page..=MOST).contains(size)).unwrap_or(MOST.max(page));
    let low = addr & !(size - 1);
    let (from, to) = (low.max(start), low.saturating_add(size).min(start.saturating_add(len)));
    (from, to.saturating_sub(from))
}

/// Maps zeros at `at`. Returns false if the kernel refuses.
fn zeros(at: usize, len: usize) -> bool {
    let (access, at) = (libc::PROT_READ | libc::PROT_WRITE, at as *mut libc::c_void);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    // SAFETY: the range is in a mapping of a peer's memory, which the faulting access keeps alive. The peer's
    // data there is lost, and nobody uses it: the peer is about to be disconnected. Two threads that do this
    // at once do the same.
    unsafe { libc::mmap(at, len, access, flags, -1, 0) != libc::MAP_FAILED }
}

/// Handles a signal with another cause as the process would without this handler; see the [module](self).
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo because of SA_SIGINFO.
    let code = unsafe { &*info }.si_code;
    // An access that faulted faults again when the handler returns. Nothing happens by itself after a signal
    // that was sent, or that reports a memory error elsewhere (`PR_MCE_KILL_EARLY`).
    let again = code > 0 && code != libc::BUS_MCEERR_AO;
    let previous = PREVIOUS.get().copied().unwrap_or_else(default_action);
    match previous.sa_sigaction {
        libc::SIG_IGN if !again => return,
        // The kernel does not ignore a fault, even if SIGBUS is ignored.
        libc::SIG_DFL | libc::SIG_IGN => {}
        handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: with SA_SIGINFO the previous action was installed as a function of this type.
            let call: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { std::mem::transmute(handler) };
            call(signal, info, context);
            if !is_default() {
                return;
            }
        }
        handler => {
            // SAFETY: without SA_SIGINFO the previous action was installed as a function of this type.
            let call: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(handler) };
            call(signal);
            if !is_default() {
                return;
            }
        }
    }
    end(again, info);
}

fn is_default() -> bool {
    exchange(None).is_ok_and(|now| now.sa_sigaction == libc::SIG_DFL)
}

/// Makes the default action end the process when the handler returns: by the access that faults `again`, or
/// by sending the same signal once more.
fn end(again: bool, info: *mut libc::siginfo_t) {
    const FIRST: libc::pid_t = 1;
    // SAFETY: takes nothing, cannot fail.
    let process = unsafe { libc::getpid() };
    if !again && process == FIRST {
        // The kernel would not end this process by the default action, and it would continue without the
        // handler.
        let _ = exchange(Some(&ours()));
        return;
    }
    let _ = exchange(Some(&default_action()));
    if again {
        return;
    }
    // SAFETY: takes nothing, cannot fail.
    let thread = unsafe { libc::gettid() };
    // The signal is blocked until the handler returns.
    // SAFETY: reads the siginfo, which is valid until the handler returns. A process may send itself any.
    let sent = unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, libc::SIGBUS, info) };
    if sent != 0 {
        // SAFETY: takes integers only.
        unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGBUS) };
    }
}

#[cfg(test)]
mod tests;
