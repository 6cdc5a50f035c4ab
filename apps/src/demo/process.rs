//! The processes of the demo.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::end::Role;
use super::report::Message;
use crate::error::Error;
use linecard_apps_common::clock::{monotonic_ns, since_boot_ns};

/// A running end; stopped and reaped when dropped.
pub(super) struct End {
    child: Child,
    commands: Option<ChildStdin>,
}

/// The time for an end to exit by itself.
const PATIENCE: Duration = Duration::from_secs(1);

/// The executable of this process, even if its file was replaced.
const ITSELF: &str = "/proc/self/exe";

impl End {
    /// Starts this program again as one end. Another thread calls `heard` with every message, then with
    /// `None`.
    pub(super) fn start(
        role: Role,
        socket: &Path,
        core: Option<u32>,
        polite: bool,
        heard: impl Fn(Option<Message>) + Send + 'static,
    ) -> Result<Self, Error> {
        let failed = |source| Error::System {
            action: format!("the {} cannot be started", role.name()),
            source,
            remedy: if Path::new(ITSELF).exists() {
                "raise the limits on processes and open files (ulimit -u, ulimit -n), and leave the program in place"
            } else {
                "mount what is missing here with 'mount -t proc proc /proc': it starts itself by /proc/self/exe"
            },
        };
        let mut command = Command::new(ITSELF);
        command.arg("demo-end").args(["--role", role.name()]).arg("--socket").arg(socket);
        if let Some(core) = core {
            command.args(["--core", &core.to_string()]);
        }
        if polite {
            command.arg("--polite");
        }
        // A separate process group: Ctrl-C at the terminal reaches only the coordinator.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().map_err(failed)?;
        let (commands, said) = (child.stdin.take(), child.stdout.take());
        let end = Self { child, commands };
        let listener = move || {
            for line in said.into_iter().flat_map(|said| BufReader::new(said).lines()).map_while(Result::ok) {
                if let Ok(message) = serde_json::from_str(&line) {
                    heard(Some(message));
                }
            }
            heard(None);
        };
        thread::Builder::new().name(format!("lc-{}", role.name())).spawn(listener).map_err(failed)?;
        Ok(end)
    }

    /// Sends an order; an end that has exited is detected elsewhere.
    pub(super) fn order(&mut self, word: &str) {
        if let Some(commands) = &mut self.commands {
            let _ = writeln!(commands, "{word}");
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // The end of its input makes the process exit.
        self.commands = None;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The time from exec to `main` is milliseconds; a longer time means that another program was started.
const ANOTHER_PROGRAM_NS: u64 = 1_000_000_000;

/// Returns the start time of this process, on the monotonic clock.
///
/// The kernel reports it in clock ticks since boot (proc(5), `/proc/pid/stat`: starttime), so the result may
/// be up to 10 ms too early. Returns the current time if it cannot be read, or if it is so long ago that this
/// process ran another program first (`cargo run` replaces itself by the program it built).
pub(super) fn exec_time_ns() -> u64 {
    let (monotonic, since_boot) = (monotonic_ns(), since_boot_ns());
    let started = || {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name before the last bracket may contain any character; starttime is the 20th field after it.
        let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        Some(ticks * (1_000_000_000 / rustix::param::clock_ticks_per_second().max(1)))
    };
    let age = started().map(|started| since_boot.saturating_sub(started));
    let age = age.filter(|age| *age < ANOTHER_PROGRAM_NS).unwrap_or(0);
    monotonic.saturating_sub(age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_started_before_now() {
        let started = exec_time_ns();
        let now = monotonic_ns();
        assert!(started <= now && now - started < 3_600_000_000_000);
    }
}
