//! Commands of this program as child processes that end with their parent, however that ends.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use linecard_cni::Sandbox;

use super::told;
use crate::error::Error;

/// Arguments of the hidden `linecard cni part`.
#[derive(Args)]
pub(super) struct PartArgs {
    /// A command of `linecard` and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    arguments: Vec<OsString>,
}

/// How long a command may take to end after its parent.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(2);

/// Runs a command until it ends or standard input is closed, which the kernel does when the parent is killed.
pub(super) fn run(args: &PartArgs) -> Result<ExitCode, Error> {
    let failed = |source| Error::System {
        action: "no thread can be started".into(),
        source,
        remedy: "raise the limit on processes (ulimit -u)",
    };
    std::thread::Builder::new()
        .name("lc-tether".into())
        .spawn(|| {
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
            std::thread::sleep(PATIENCE);
            std::process::exit(1);
        })
        .map_err(failed)?;
    crate::cli::run(&args.arguments)
}

/// A running command; dropping this ends it and waits for it.
pub(super) struct Part {
    name: &'static str,
    child: Child,
    /// Closing it ends the command.
    tether: Option<ChildStdin>,
    log: PathBuf,
}

impl Part {
    /// Starts `linecard ARGUMENTS`, inside `sandbox` if given. Its standard error goes to a file in `folder`.
    pub(super) fn start(
        name: &'static str,
        folder: &Path,
        sandbox: Option<&Sandbox>,
        arguments: &[OsString],
        stdout: Stdio,
    ) -> Result<Self, Error> {
        let log = folder.join(format!("{name}.log"));
        let failed = |source| Error::System {
            action: format!("{name} cannot be started"),
            source,
            remedy: "raise the limits on processes and open files (ulimit -u, ulimit -n)",
        };
        let stderr = File::create(&log).map_err(failed)?;
        let mut command = Command::new("/proc/self/exe");
        command.args(["cni", "part", "--"]).args(arguments);
        // In a process group of its own, so that Ctrl-C at the terminal reaches only the parent.
        command.stdin(Stdio::piped()).stdout(stdout).stderr(stderr).process_group(0);
        let spawned = match sandbox {
            Some(sandbox) => sandbox.run(|| command.spawn()).map_err(told)?,
            None => command.spawn(),
        };
        let mut child = spawned.map_err(failed)?;
        let tether = child.stdin.take();
        Ok(Self { name, child, tether, log })
    }

    /// Returns its process ID.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Polls until `done` returns `true`.
    ///
    /// # Errors
    /// The command ended before, `until` passed, or `ended` was set.
    pub(super) fn until(
        &mut self,
        until: Instant,
        ended: &AtomicBool,
        mut done: impl FnMut() -> bool,
    ) -> Result<(), Error> {
        while !done() {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.failed(&format!("ended ({status})")));
            }
            self.look(until, ended)?;
        }
        Ok(())
    }

    /// Waits for the command to end.
    ///
    /// # Errors
    /// `until` passed, or `ended` was set.
    pub(super) fn wait(&mut self, until: Instant, ended: &AtomicBool) -> Result<ExitStatus, Error> {
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Ok(status);
            }
            self.look(until, ended)?;
        }
    }

    fn look(&self, until: Instant, ended: &AtomicBool) -> Result<(), Error> {
        if ended.load(Ordering::Relaxed) {
            return Err(Error::Failed("interrupted; everything that was made is removed".into()));
        }
        if Instant::now() > until {
            return Err(self.failed("did not get ready in time"));
        }
        std::thread::sleep(LOOK);
        Ok(())
    }

    /// An error about the command, with the last line of its standard error.
    pub(super) fn failed(&self, what: &str) -> Error {
        let mut text = String::new();
        let _ = File::open(&self.log).and_then(|file| file.take(1 << 16).read_to_string(&mut text));
        let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
        Error::Failed(format!("{} {what}; it said: {}", self.name, last.trim()))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.tether = None;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
