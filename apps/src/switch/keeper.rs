//! `linecard switch --keep`: a small process that holds the state a switch needs to replace a killed one, and
//! starts that switch.
//!
//! ```text
//!   keeper ── starts ──► switch --fd-store        (NOTIFY_SOCKET is the keeper's, which implements systemd's protocol)
//!     ▲                    │ FDSTORE=1, a socket for each port
//!     └────────────────────┘
//!   if the switch ends without STOPPING=1, it is started again, with the sockets
//! ```
//! The next switch is started as soon as no thread of a killed one runs any more; the kernel may then still be
//! releasing the memory of the killed process.
//! The keeper moves no packets, reads no data from peers, and knows nothing about ports. A switch that
//! replaces the one it started (`ctl upgrade`) becomes the one that it watches.

mod watched;

use std::ffi::OsString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use linecard::eal::liveness::Liveness;
use linecard::eal::{inherited, runtime};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::FdFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::{Pid, PidfdFlags, Signal};

use self::watched::Watched;
use super::{notify, predecessor};
use crate::error::Error;
use crate::signals;

/// The keeper's option, and the option with which the keeper starts the switch instead.
const KEEP: &str = "--keep";
const FD_STORE: &str = "--fd-store";
/// The runtime folder of the keeper's socket.
const PREFIX: &str = "switch";
/// The maximum number of stored descriptors: one for each port of a switch and of its predecessor, and some
/// more.
const MOST_STORED: usize = 2 * linecard_switch::MAX_PORTS + 16;
/// The maximum number of bytes of a message; longer ones are truncated.
const MESSAGE: usize = 4096;
/// The number of consecutive switches that end before they are ready, after which the keeper gives up.
const MOST_FAILURES: u32 = 3;
/// The interval of checks whether to end.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Runs a switch with this process's arguments, and starts it again if it is killed.
///
/// # Errors
/// The switch cannot be started, or fails repeatedly.
pub(super) fn run() -> Result<ExitCode, Error> {
    let stop = signals::stop_flag(&signals::TERMINATION)?;
    let mut keeper = Keeper::new()?;
    let mut predecessor: Option<String> = None;
    loop {
        let ended = keeper.start(predecessor.as_deref()).and_then(|watched| keeper.watch(watched, &stop))?;
        let Progress { ready, stopping } = ended.said;
        if stopping || stop.load(Ordering::Relaxed) || (!ready && !keeper.has_served) {
            return Ok(ended.code);
        }
        keeper.failures = if ready { 0 } else { keeper.failures + 1 };
        if keeper.failures >= MOST_FAILURES {
            return Err(Error::Failed(format!(
                "the switch ended {MOST_FAILURES} times before it served anybody; what it said before tells why"
            )));
        }
        keeper.say(&format!("process {} of the switch was killed or failed; starting another", ended.pid));
        predecessor = ended.is_ending.then(|| {
            let hugepages = if ended.had_hugepages { predecessor::HUGE } else { "" };
            format!("{}{hugepages}", ended.pid)
        });
    }
}

/// How a switch ended.
struct Ended {
    pid: u32,
    said: Progress,
    /// None of its threads runs, but the kernel has not ended the process yet.
    is_ending: bool,
    had_hugepages: bool,
    code: ExitCode,
}

/// What a switch has announced.
#[derive(Clone, Copy, Default)]
struct Progress {
    ready: bool,
    /// Its end.
    stopping: bool,
}

struct Keeper {
    program: PathBuf,
    arguments: Vec<OsString>,
    path: PathBuf,
    socket: UnixDatagram,
    stored: Vec<(String, OwnedFd)>,
    /// The mutex of the process with that ID, which may not be the watched one yet.
    liveness: Option<(u32, bool, Liveness)>,
    failures: u32,
    has_served: bool,
}

/// The content of a message.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    ready: bool,
    stopping: bool,
    main_pid: Option<u32>,
    /// The process whose main thread holds the mutex beside the message, and whether it has hugepages of its own.
    liveness: Option<(u32, bool)>,
    store: bool,
    remove: bool,
    name: Option<String>,
}

impl Said {
    fn read(text: &str) -> Self {
        let mut said = Self::default();
        for line in text.lines() {
            match line.split_once('=') {
                Some(("READY", "1")) => said.ready = true,
                Some(("STOPPING", "1")) => said.stopping = true,
                Some(("MAINPID", pid)) => said.main_pid = pid.parse().ok(),
                Some((notify::LIVENESS, value)) => {
                    let pid = value.strip_suffix(predecessor::HUGE);
                    let of = (pid.unwrap_or(value).parse().ok(), pid.is_some());
                    said.liveness = of.0.map(|pid| (pid, of.1));
                }
                Some(("FDSTORE", "1")) => said.store = true,
                Some(("FDSTOREREMOVE", "1")) => said.remove = true,
                // The name becomes part of a list in an environment variable.
                Some(("FDNAME", name)) if name.bytes().all(|byte| byte.is_ascii_graphic()) => {
                    said.name = Some(name.into());
                }
                _ => {}
            }
        }
        said
    }
}

impl Keeper {
    fn new() -> Result<Self, Error> {
        let system = |action: &str| {
            let action = action.to_owned();
            move |source| Error::System { action, source, remedy: "run the switch without --keep" }
        };
        let folder = runtime::create(PREFIX)?;
        let path = folder.join(format!("keeper-{}.sock", std::process::id()));
        // Left by an earlier process with the same ID.
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).map_err(system("the keeper cannot be spoken to"))?;
        socket.set_nonblocking(true).map_err(system("the keeper cannot be spoken to"))?;
        let program = std::env::current_exe().map_err(system("the program cannot be found"))?;
        let arguments = std::env::args_os().skip(1);
        let arguments = arguments.map(|word| if word == KEEP { FD_STORE.into() } else { word }).collect();
        let (stored, liveness, failures, has_served) = (Vec::new(), None, 0, false);
        Ok(Self { program, arguments, path, socket, stored, liveness, failures, has_served })
    }

    /// Starts a switch, which inherits the stored descriptors. `predecessor` tells of the process of a killed switch
    /// which the kernel has not ended yet.
    fn start(&self, predecessor: Option<&str>) -> Result<Watched, Error> {
        let failed = |source| Error::System {
            action: format!("{} cannot be started", self.program.display()),
            source,
            remedy: "see whether the program is there",
        };
        let passed = self.stored.iter().map(|(name, fd)| format!(" {}:{name}", fd.as_raw_fd()));
        let kept = passed.fold(std::process::id().to_string(), |text, fd| text + &fd);
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env("NOTIFY_SOCKET", &self.path).env(inherited::KEPT, kept);
        ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"].iter().for_each(|name| {
            command.env_remove(name);
        });
        match predecessor {
            Some(of_killed) => command.env(predecessor::VARIABLE, of_killed),
            None => command.env_remove(predecessor::VARIABLE),
        };
        self.pass_on(FdFlags::empty()).map_err(failed)?;
        let child = command.spawn();
        self.pass_on(FdFlags::CLOEXEC).map_err(failed)?;
        let child = child.map_err(failed)?;
        let handle = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        let handle = handle.map_err(|error| failed(error.into()))?;
        let watched = Watched::new(child.id(), handle);
        Ok(Watched { child: Some(child), ..watched })
    }

    fn pass_on(&self, flags: FdFlags) -> io::Result<()> {
        self.stored.iter().try_for_each(|(_, fd)| Ok(rustix::io::fcntl_setfd(fd, flags)?))
    }

    /// Receives the messages of the switch until it ends.
    fn watch(&mut self, mut watched: Watched, stop: &Arc<AtomicBool>) -> Result<Ended, Error> {
        let (mut said, mut told) = (Progress::default(), false);
        loop {
            if stop.load(Ordering::Relaxed) && !told {
                told = true;
                // The process may have ended already.
                let _ = rustix::process::pidfd_send_signal(&watched.handle, Signal::TERM);
            }
            let [ended, early] = self.wait(&watched);
            // Messages that it sent last are read after it has ended.
            self.hear_all(&mut watched, &mut said);
            let pid = watched.pid;
            if early && watched.early.take().is_some() && !told && watched.has_stopped() {
                self.hear_all(&mut watched, &mut said);
                if !said.stopping && watched.pid == pid {
                    watched.reap();
                    let had_hugepages = watched.had_hugepages;
                    return Ok(Ended { pid, said, is_ending: true, had_hugepages, code: ExitCode::FAILURE });
                }
            }
            if ended && self.is_over(&watched) {
                let status = watched.child.as_mut().and_then(|child| child.wait().ok());
                let code = status.map_or(Some(0), |status| status.code()).unwrap_or(1);
                let code = ExitCode::from(u8::try_from(code).unwrap_or(1));
                let Watched { pid, had_hugepages, .. } = watched;
                return Ok(Ended { pid, said, is_ending: false, had_hugepages, code });
            }
        }
    }

    /// Carries out all messages that have come.
    fn hear_all(&mut self, watched: &mut Watched, progress: &mut Progress) {
        while let Some((said, fds)) = self.hear() {
            progress.ready |= said.ready;
            progress.stopping |= said.stopping;
            self.has_served |= said.ready;
            if let Some(pid) = said.main_pid
                && let Some(next) = self.succeeded(pid)
            {
                // It ends as intended, and its exit status is not needed.
                std::mem::replace(watched, next).reap();
                *progress = Progress { ready: true, stopping: false };
            }
            self.carry_out(said, fds);
            if let Some((_, has_hugepages, liveness)) = self.liveness.take_if(|of| of.0 == watched.pid) {
                watched.watch_main_thread(liveness);
                watched.had_hugepages = has_hugepages;
            }
        }
    }

    /// Waits for a message, or the end of the process or of its main thread. Returns whether the process, and
    /// whether its main thread, has ended.
    fn wait(&self, watched: &Watched) -> [bool; 2] {
        let mut wait =
            vec![PollFd::new(&watched.handle, PollFlags::IN), PollFd::new(&self.socket, PollFlags::IN)];
        wait.extend(watched.early.iter().map(|early| PollFd::new(early, PollFlags::IN)));
        // Interrupted by a signal: the caller checks its flag.
        let _ = rustix::event::poll(&mut wait, Some(&LOOK));
        [0, 2].map(|at| wait.get(at).is_some_and(|fd| !fd.revents().is_empty()))
    }

    /// Checks again whether the process has ended: it may have been replaced since the poll.
    fn is_over(&self, watched: &Watched) -> bool {
        let mut wait = [PollFd::new(&watched.handle, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut wait, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    /// The process that has taken over from the switch. Its program is used for later starts.
    fn succeeded(&mut self, pid: u32) -> Option<Watched> {
        let handle = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let handle = handle.and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok())?;
        if let Ok(program) = std::fs::read_link(format!("/proc/{pid}/exe")) {
            self.program = program;
        }
        Some(Watched::new(pid, handle))
    }

    fn carry_out(&mut self, said: Said, fds: Vec<OwnedFd>) {
        if said.ready {
            // The program that started the keeper waits for this message.
            notify::ready();
        }
        if said.stopping {
            notify::stopping();
        }
        if let Some((pid, has_hugepages)) = said.liveness {
            // Without it the end of the process is noticed later.
            let opened = fds.into_iter().next().and_then(|fd| Liveness::from_fd(fd).ok());
            self.liveness = opened.map(|liveness| (pid, has_hugepages, liveness));
            return;
        }
        let Some(name) = said.name else { return };
        if said.store && self.stored.len() + fds.len() <= MOST_STORED {
            self.stored.extend(fds.into_iter().map(|fd| (name.clone(), fd)));
        }
        if said.remove {
            self.stored.retain(|(stored, _)| *stored != name);
        }
    }

    /// Receives the next message; returns `None` if there is none.
    fn hear(&self) -> Option<(Said, Vec<OwnedFd>)> {
        let mut bytes = [0; MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut bytes)];
        let got = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(self.socket.as_fd(), &mut into, &mut beside, RecvFlags::CMSG_CLOEXEC)
        })
        .ok()?;
        let fds = beside.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let fds = fds.flatten().collect();
        let text = String::from_utf8_lossy(bytes.get(..got.bytes).unwrap_or_default());
        Some((Said::read(&text), fds))
    }

    fn say(&self, what: &str) {
        crate::output::Output::standard().complain(format_args!("linecard: {what}\n"));
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Not an error if it is gone already.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_a_service_manager() {
        let said = Said::read("FDSTORE=1\nFDPOLL=0\nFDNAME=linecard-7\n");
        assert_eq!(said, Said { store: true, name: Some("linecard-7".into()), ..Said::default() });
        let said = Said::read("READY=1\nSTATUS=switching\nMAINPID=12\nWATCHDOG=1");
        assert_eq!(said, Said { ready: true, main_pid: Some(12), ..Said::default() });
        let said = Said::read("LINECARD_LIVENESS=12\n");
        assert_eq!(said, Said { liveness: Some((12, false)), ..Said::default() });
        let said = Said::read("LINECARD_LIVENESS=12 hugepages\n");
        assert_eq!(said, Said { liveness: Some((12, true)), ..Said::default() });
        for nonsense in [
            "",
            "=",
            "LINECARD_LIVENESS=x",
            "READY",
            "READY=0",
            "MAINPID=-1",
            "FDNAME=a b\n",
            "FDNAME=\u{7f}",
        ] {
            assert_eq!(Said::read(nonsense), Said::default(), "{nonsense:?}");
        }
    }
}
