//! Survives a peer that takes pages away from under us.
//!
//! A peer may shrink the file behind its memory, or punch holes into hugepages that then run out; sealing
//! does not prevent the latter. Our next touch of such a page raises SIGBUS. The handler here looks the
//! address up in a fixed table of peer mappings, puts anonymous memory in its place, and raises that peer's
//! [`Alarm`]: the port notices at its next burst and drops the peer.
//!
//! Every other SIGBUS does what it would have done without us: a fault at another address, and one that somebody *sent*
//! (`kill -BUS`). A handler of before is called; where there was none, or that one asks for the default action by
//! installing it, as that of Rust's runtime does, the process ends by SIGBUS, also by one that was sent; where it was
//! ignored, a sent one is ignored, and so it is in the first process of a PID namespace, for which the kernel drops what
//! has no handler. In no case does the process go on without this handler.
//!
//! The first time that is one page. But a burst goes on, and one chain can lead to 32 768 pages, each apart from the
//! others: replaced one by one they would be more mappings than a process may have (`vm.max_map_count`), and the next
//! fault would end it. So each fault of a peer replaces twice as much around it as the one before.
//!
//! The table is lock-free and the handler touches nothing else, so it is safe in a signal.

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Mappings that can be watched at once: enough for 32 peers with as many regions as a peer may have. Further ones are
/// refused, because one hole in memory that nobody watches would end the process. So would a kernel that lets us map
/// nothing more: with its guards a region takes up to three of the 65 530 mappings of a process (`vm.max_map_count`).
pub(crate) const ENTRIES: usize = 16_384;
/// `start` of an entry that is being filled.
const CLAIMED: usize = 1;
/// Most bytes that one fault replaces, but for a page that is larger: to take away what was mapped there before takes a
/// few milliseconds.
const MOST: usize = 1 << 30;

/// Raised when a page of a peer's memory vanished.
///
/// ```
/// let alarm = linecard_vhost_user::sigbus::Alarm::new();
/// assert!(!alarm.raised());
/// ```
#[derive(Debug, Default)]
pub struct Alarm {
    /// How often it was raised.
    faults: AtomicU32,
}

impl Alarm {
    /// An alarm that nothing has raised.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Whether a page vanished since the alarm was made.
    #[inline(always)]
    pub fn raised(&self) -> bool {
        self.faults.load(Ordering::Relaxed) != 0
    }
}

/// One watched mapping. Free: `start` 0.
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

/// Entries from here on were never used; keeps the handler's search short.
static HIGH: AtomicUsize = AtomicUsize::new(0);

/// Who handled SIGBUS before us.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// A mapping in the table; leaves it on drop, before the mapping goes.
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
/// What `sigaction` said.
pub fn install() -> io::Result<()> {
    static RESULT: OnceLock<Result<(), i32>> = OnceLock::new();
    RESULT
        .get_or_init(|| {
            // Known before the handler can run: a fault that is not ours needs it.
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

/// Sets the action for SIGBUS if one is given; returns the one before.
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
    // One that somebody sent has no address.
    let fault = details.si_code > 0;
    if !(fault && TABLE.iter().take(HIGH.load(Ordering::Relaxed)).any(|entry| entry.replace(addr))) {
        pass_on(signal, info, context);
    }
    // SAFETY: errno is this thread's own; the interrupted code must find its value.
    unsafe { errno.write(saved) };
}

impl Entry {
    /// When `addr` is in this mapping: puts zeros there and raises the alarm.
    fn replace(&self, addr: usize) -> bool {
        // S2, pairs with S1.
        let start = self.start.load(Ordering::Acquire);
        let (len, page) = (self.len.load(Ordering::Relaxed), self.page.load(Ordering::Relaxed));
        let inside = start > CLAIMED && addr >= start && addr - start < len && page.is_power_of_two();
        // Read again: an entry that was reused meanwhile is another mapping's, and not this address's.
        if !inside || self.start.load(Ordering::Acquire) != start {
            return false;
        }
        let alarm = self.alarm.load(Ordering::Relaxed);
        // SAFETY: the watch keeps the alarm alive, the region keeps the watch, the faulting access the region.
        let before =
            unsafe { alarm.as_ref() }.map_or(0, |alarm| alarm.faults.fetch_add(1, Ordering::Relaxed));
        let (at, size) = block(addr, (start, len), page, before);
        // The whole mapping where a part is one mapping too many: that makes no further one.
        zeros(at, size) || zeros(start, len)
    }
}

/// What the fault at `addr` replaces after `before` others of that peer: whole pages of the mapping `(start, len)`.
fn block(addr: usize, (start, len): (usize, usize), page: usize, before: u32) -> (usize, usize) {
    let size = page.checked_shl(before).filter(|size| (page..=MOST).contains(size)).unwrap_or(MOST.max(page));
    let low = addr & !(size - 1);
    let (from, to) = (low.max(start), low.saturating_add(size).min(start.saturating_add(len)));
    (from, to.saturating_sub(from))
}

/// Puts zeros at `at`; false when the kernel refuses.
fn zeros(at: usize, len: usize) -> bool {
    let (access, at) = (libc::PROT_READ | libc::PROT_WRITE, at as *mut libc::c_void);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    // SAFETY: the range lies in a mapping of a peer's memory that the faulting access keeps alive. What the peer wrote
    // there is lost, and nobody will use it: the peer is about to be dropped. Two threads that do it at once do the same.
    unsafe { libc::mmap(at, len, access, flags, -1, 0) != libc::MAP_FAILED }
}

/// Does with a signal that is not ours what the process would have done without us; see the [module](self).
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo because of SA_SIGINFO.
    let code = unsafe { &*info }.si_code;
    // The access that faulted does so again when we return. Nothing comes of itself after a signal that was sent, or that
    // tells of memory that broke somewhere (`PR_MCE_KILL_EARLY`).
    let again = code > 0 && code != libc::BUS_MCEERR_AO;
    let previous = PREVIOUS.get().copied().unwrap_or_else(default_action);
    match previous.sa_sigaction {
        libc::SIG_IGN if !again => return,
        // The kernel does not ask who ignores a fault.
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

/// Has the default action end the process when the handler returns: by the access that faults `again`, or by the same
/// signal once more.
fn end(again: bool, info: *mut libc::siginfo_t) {
    const FIRST: libc::pid_t = 1;
    // SAFETY: takes nothing, cannot fail.
    let process = unsafe { libc::getpid() };
    if !again && process == FIRST {
        // The default action would not end it, and it would go on unprotected.
        let _ = exchange(Some(&ours()));
        return;
    }
    let _ = exchange(Some(&default_action()));
    if again {
        return;
    }
    // SAFETY: takes nothing, cannot fail.
    let thread = unsafe { libc::gettid() };
    // Blocked until the handler returns.
    // SAFETY: reads the siginfo, which is valid until the handler returns. A process may send itself any.
    let sent = unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, libc::SIGBUS, info) };
    if sent != 0 {
        // SAFETY: takes integers only.
        unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGBUS) };
    }
}

#[cfg(test)]
mod tests;
