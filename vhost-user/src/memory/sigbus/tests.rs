//! How much a fault replaces; and, in processes of their own, what a SIGBUS does that is not a peer's.

use std::fs::File;
use std::os::fd::FromRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use memmap2::MmapRaw;

use super::{Alarm, MOST, Watch, block, default_action, exchange, install};

#[test]
fn each_fault_replaces_twice_as_much_within_the_mapping() {
    const PAGE: usize = 4096;
    let mapping = (0x10_0000_3000, 1 << 40);
    let end = mapping.0 + mapping.1;
    for (before, size) in
        [(0, PAGE), (1, 2 * PAGE), (10, 1024 * PAGE), (18, MOST), (19, MOST), (u32::MAX, MOST)]
    {
        for addr in [mapping.0, mapping.0 + 7, mapping.0 + (5 << 30) + 77, end - 1] {
            let (at, len) = block(addr, mapping, PAGE, before);
            assert!(at <= addr && addr - at < len && len <= size, "{addr:x} {before}: {at:x} {len:x}");
            assert!(at >= mapping.0 && at + len <= end && at % PAGE == 0 && len % PAGE == 0);
        }
        assert_eq!(block(mapping.0 + (5 << 30), mapping, PAGE, before).1, size);
    }
    // A page may be larger than that.
    assert_eq!(block((1 << 40) + 5, (1 << 40, 2 * MOST), 2 * MOST, 3), (1 << 40, 2 * MOST));
}

/// Set in a process that a test made of itself; says which of its cases.
const CASE: &str = "LINECARD_SIGBUS_CASE";

/// What a SIGBUS is that no access raised: sent by `kill`, `sigqueue` or `tgkill`, or news of broken memory.
const CODES: [libc::c_int; 4] = [libc::SI_USER, libc::SI_QUEUE, libc::SI_TKILL, libc::BUS_MCEERR_AO];

/// The case that this process is for, if it is one. It leaves no core file.
fn case() -> Option<libc::c_int> {
    let case = std::env::var(CASE).ok()?.parse().ok();
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: reads `none`, which lives across the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) }, 0);
    case
}

/// A program that runs the test `name` of this file alone, as `case`.
fn alone(before: &[&str], name: &str, case: libc::c_int) -> Command {
    let test = format!("memory::sigbus::tests::{name}");
    let exe = std::env::current_exe().expect("this program");
    let mut words: Vec<_> = before.iter().map(std::ffi::OsString::from).collect();
    words.extend([exe.into(), test.into(), "--exact".into(), "--nocapture".into()]);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env(CASE, case.to_string());
    command
}

/// How it ends. Its output is for whoever looks why that was wrong.
fn outcome(mut program: Command) -> ExitStatus {
    let output = program.output().expect("runs");
    print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    output.status
}

/// Sends a SIGBUS with this code to the calling thread, which has it when this returns.
fn send(code: libc::c_int) {
    // SAFETY: all zeros is a valid siginfo.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    (info.si_signo, info.si_code) = (libc::SIGBUS, code);
    // SAFETY: takes nothing, cannot fail.
    let process = unsafe { libc::getpid() };
    // SAFETY: takes nothing, cannot fail.
    let thread = unsafe { libc::gettid() };
    // SAFETY: reads `info`, which lives across the call.
    let sent =
        unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, libc::SIGBUS, &raw const info) };
    assert_eq!(sent, 0, "{}", std::io::Error::last_os_error());
}

/// Whether a page that vanishes from a peer's memory is zeros, and its alarm raised; where it is not, the process ends.
fn assert_protected() {
    const LEN: usize = 8192;
    // SAFETY: the name is a terminated string; the result is a new descriptor.
    let fd = unsafe { libc::memfd_create(c"peer".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: just made, nobody else owns it.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(LEN as u64).expect("room");
    let memory = MmapRaw::map_raw(&file).expect("mapped");
    let alarm = Alarm::new();
    let _watch = Watch::new(memory.as_mut_ptr().addr(), LEN, 4096, &alarm).expect("a place in the table");
    file.set_len(0).expect("shrinks");
    // SAFETY: mapped; what is not there any more is what this is about.
    assert_eq!(unsafe { memory.as_ptr().read_volatile() }, 0);
    assert!(alarm.raised());
}

fn set(handler: libc::sighandler_t) {
    let mut action = default_action();
    action.sa_sigaction = handler;
    exchange(Some(&action)).expect("set");
}

#[test]
fn one_that_is_sent_ends_a_process_without_a_handler() {
    const NAME: &str = "one_that_is_sent_ends_a_process_without_a_handler";
    let Some(code) = case() else {
        for code in CODES {
            assert_eq!(outcome(alone(&[], NAME, code)).signal(), Some(libc::SIGBUS), "code {code}");
        }
        return;
    };
    set(libc::SIG_DFL);
    install().expect("installed");
    assert_protected();
    send(code);
    panic!("it should have ended");
}

/// Its runtime has a handler, which asks for the default action by installing it.
#[test]
fn one_that_is_sent_ends_an_ordinary_rust_program() {
    const NAME: &str = "one_that_is_sent_ends_an_ordinary_rust_program";
    let Some(code) = case() else {
        for code in CODES {
            assert_eq!(outcome(alone(&[], NAME, code)).signal(), Some(libc::SIGBUS), "code {code}");
        }
        return;
    };
    assert!(!super::is_default(), "the runtime handles SIGBUS");
    install().expect("installed");
    send(code);
    panic!("it should have ended");
}

#[test]
fn one_that_another_process_sends_ends_the_program() {
    const NAME: &str = "one_that_another_process_sends_ends_the_program";
    if case().is_some() {
        install().expect("installed");
        assert_protected();
        // Ready to be ended; at the end of its input nobody will.
        println!("ready");
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).expect("input");
        return;
    }
    let mut command = alone(&[], NAME, 0);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("runs");
    let output = child.stdout.take().expect("piped");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(output)).map_while(Result::ok);
    assert!(lines.any(|line| line.contains("ready")), "it never got ready");
    // SAFETY: takes integers; the child is not yet waited for, so the number is its own.
    assert_eq!(unsafe { libc::kill(child.id().cast_signed(), libc::SIGBUS) }, 0);
    // Where the signal did nothing, this ends it: the threads that end take signals first.
    drop(child.stdin.take());
    lines.for_each(drop);
    assert_eq!(child.wait().expect("ends").signal(), Some(libc::SIGBUS));
}

#[test]
fn one_that_is_ignored_leaves_the_protection() {
    const NAME: &str = "one_that_is_ignored_leaves_the_protection";
    let Some(code) = case() else {
        return CODES
            .iter()
            .for_each(|code| assert!(outcome(alone(&[], NAME, *code)).success(), "code {code}"));
    };
    set(libc::SIG_IGN);
    install().expect("installed");
    (0..3).for_each(|_| send(code));
    assert_protected();
}

static CALLS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: libc::c_int) {
    CALLS.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn a_handler_of_before_is_called_and_leaves_the_protection() {
    const NAME: &str = "a_handler_of_before_is_called_and_leaves_the_protection";
    let Some(code) = case() else {
        return CODES
            .iter()
            .for_each(|code| assert!(outcome(alone(&[], NAME, *code)).success(), "code {code}"));
    };
    set(count as *const () as usize);
    install().expect("installed");
    (0..3).for_each(|_| send(code));
    assert_eq!(CALLS.load(Ordering::Relaxed), 3);
    assert_protected();
    assert_eq!(CALLS.load(Ordering::Relaxed), 3, "a peer's fault is ours");
}

/// The kernel drops a signal for it that has no handler; so the handler must stay.
#[test]
fn the_first_process_of_a_namespace_goes_on_protected() {
    const NAME: &str = "the_first_process_of_a_namespace_goes_on_protected";
    let Some(code) = case() else {
        const UNSHARE: [&str; 4] = ["unshare", "--user", "--map-root-user", "--pid"];
        let before = [&UNSHARE[..], &["--fork"]].concat();
        let possible = Command::new(before[0]).args(&before[1..]).arg("true").status();
        if !possible.is_ok_and(|status| status.success()) {
            return linecard_lab::skip(NAME, "no user and PID namespaces for this user");
        }
        for code in CODES {
            assert!(outcome(alone(&before, NAME, code)).success(), "code {code}");
        }
        return;
    };
    assert_eq!(std::process::id(), 1);
    install().expect("installed");
    (0..3).for_each(|_| send(code));
    assert_protected();
}

/// An access of the program's own to memory that is not there: nothing is made good.
#[test]
fn a_fault_outside_the_table_ends_the_process() {
    const NAME: &str = "a_fault_outside_the_table_ends_the_process";
    let Some(previous) = case() else {
        for previous in [0, 1, 2] {
            assert_eq!(outcome(alone(&[], NAME, previous)).signal(), Some(libc::SIGBUS), "case {previous}");
        }
        return;
    };
    match previous {
        0 => set(libc::SIG_DFL),
        1 => set(libc::SIG_IGN),
        _ => {}
    }
    install().expect("installed");
    // SAFETY: the name is a terminated string; the result is a new descriptor.
    let fd = unsafe { libc::memfd_create(c"own".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: just made, nobody else owns it.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(4096).expect("room");
    let memory = MmapRaw::map_raw(&file).expect("mapped");
    file.set_len(0).expect("shrinks");
    // SAFETY: mapped; what is not there any more is what this is about.
    let _ = unsafe { memory.as_ptr().read_volatile() };
    panic!("it should have ended");
}
