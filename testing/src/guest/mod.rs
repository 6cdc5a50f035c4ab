//! A Linux guest in QEMU without hardware virtualisation: a kernel, busybox, and a script as its whole
//! system.
//!
//! `cargo xtask vm` runs one interactively.
//!
//! ```no_run
//! use linecard_testing::guest::{Guest, Kernel, Parts};
//!
//! let parts = Parts::look(Kernel::Net)?;
//! let mut guest = Guest::with_shell(&parts, std::path::Path::new("/tmp"), "", &[]);
//! assert_eq!(guest.must("uname -s"), "Linux");
//! assert_eq!(guest.run("ls /nothing").code, 1);
//! # Ok::<(), String>(())
//! ```

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

mod image;
mod monitor;
mod parts;

pub use monitor::Monitor;
pub use parts::{Kernel, Parts};

use image::initramfs;

const MEMORY: &str = "256M";
/// All processors of a guest are emulated by one thread, in turn. With one thread each, QEMU 7.2 continues to
/// run old code when the guest's kernel patches code that another processor runs (seen on a busy machine, in
/// one of about 50 boots: "Oops: int3" in `sched_clock_cpu` of Linux 7.3, or one instruction for ever in
/// `alg_test` of Linux 6.1).
const EMULATION: &str = "tcg,thread=single";
/// The kernel's command line. The kernel prints its messages until the guest's own system begins, for the
/// diagnosis of guests that hang. On a busy machine the emulated timer is late, and without `no_timer_check`
/// the kernel would consider it broken. The self-tests of its cryptography only take time.
pub const KERNEL: &str = "console=ttyS0 panic=-1 no_timer_check cryptomgr.notests sysctl.kernel.printk=3";

/// The start of a guest's script, for guests whose network cards are driven by Linux. Defines a function for
/// streams of `$KIB`, which end within `$LIMIT` seconds.
pub const BEGIN: &str = r#"#!/bin/sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
for round in 1 2 3; do for m in /mods/*.ko; do insmod $m 2>/dev/null; done; done
for all in all default; do echo 0 > /proc/sys/net/ipv6/conf/$all/accept_dad; done
ip link set lo up
cards=$(ls /sys/class/net | grep -c eth)
stream() { # name, address; by $sender and $receiver; dd writes 64 KiB at once, nc itself a few, which go out as they come
  dd if=/dev/urandom of=/sent bs=1024 count=$KIB 2>/dev/null
  $receiver nc -l -p 5000 -e dd of=/got bs=64k 2>/dev/null & L=$!
  sleep 0.5
  $sender timeout ${LIMIT:-15} nc $2 5000 -e dd if=/sent bs=64k 2>/dev/null
  wait $L
  echo "stream $1 $(md5sum < /sent | cut -c1-32) $(md5sum < /got | cut -c1-32)"
  rm -f /got
}
"#;

/// A system whose console accepts commands, for [`Guest::run`].
const SHELL: &str = r#"#!/bin/sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev; mount -t tmpfs t /tmp
for round in 1 2 3 4 5; do for m in /mods/*.ko; do insmod $m 2>/dev/null; done; done
for all in all default; do echo 1 > /proc/sys/net/ipv6/conf/$all/disable_ipv6; done
echo 'root:x:0:0::/:/bin/sh' > /etc/passwd; echo 'user:x:1000:1000::/:/bin/sh' >> /etc/passwd
chmod 1777 /tmp; stty -echo; ip link set lo up
echo "READY"
while read -r line; do eval "$line"; printf '\nSTATUS %s\n' $?; done
"#;

/// Shell functions for one testpmd at a time: `pmd ARGUMENTS` starts it, `printed TEXT` waits for its output,
/// `tell LINE TEXT` types a line and waits for the output that follows.
pub const TESTPMD: &str = r#"
pmd() {
  rm -f /tmp/in /tmp/out; mkfifo /tmp/in; : > /tmp/out; chmod 666 /tmp/in /tmp/out
  echo testpmd "$@" > /tmp/arguments
  case $AS in checks*) program=$AS; set --;; *) program="$AS linecard testpmd";; esac
  ( $program "$@" < /tmp/in >> /tmp/out 2>&1; echo "EXIT $?" >> /tmp/out ) &
  exec 9> /tmp/in
}
printed() {
  tries=0
  until grep -q -e "$1" /tmp/out; do
    sleep 0.1; tries=$((tries+1))
    [ $tries -lt 600 ] || { echo "'$1' was not printed:"; cat /tmp/out; return 1; }
  done
}
tell() { : > /tmp/out; echo "$1" >&9; printed "$2"; }
until_good() { tries=0; until eval "$1" > /dev/null 2>&1; do sleep 0.1; tries=$((tries+1)); [ $tries -lt 600 ] || { eval "$1"; return 1; }; done; }
finish() { echo quit >&9; exec 9>&-; printed '^EXIT'; grep -q '^EXIT 0' /tmp/out || { cat /tmp/out; return 1; }; }
xstat() { : > /tmp/out; echo "show port xstats $1" >&9; printed "$2:"; sed -n "s/.*$2: //p" /tmp/out; }
"#;

/// The longest time until a guest's own system begins (4 s on an idle machine), and the number of attempts.
const BEGUN: Duration = Duration::from_secs(60);
const BOOTS: usize = 3;
/// The longest times until a guest is ready, and until a command in it ends, on a busy machine.
const BOOT: Duration = Duration::from_secs(120);
const STEP: Duration = Duration::from_secs(120);

/// The result of a command in a guest.
#[derive(Debug)]
pub struct Done {
    /// The exit code.
    pub code: i32,
    /// The printed lines.
    pub output: String,
}

/// A running guest; killed when dropped.
pub struct Guest {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    seen: Vec<String>,
    complaints: PathBuf,
    /// The socket of QEMU's monitor, for [`processors`](Self::processors).
    monitor: PathBuf,
}

impl Guest {
    /// Boots a guest with `script` as its only program; `devices` are further arguments for QEMU.
    ///
    /// A guest whose own system has not begun after a minute is killed and started again: QEMU's emulation
    /// may hang in a kernel that patches its own code (see `EMULATION`), long before a driver accesses a
    /// device. This is reported in `target/guests-started-again.log`. If QEMU's monitor does not answer
    /// either, the guest may wait for a device of the test, so the test fails.
    pub fn boot(parts: &Parts, folder: &Path, script: &str, devices: &[String]) -> Self {
        if devices.iter().any(|argument| argument == "-incoming") {
            return Self::start(parts, folder, script, devices);
        }
        let script = script.replacen('\n', "\necho; echo BEGUN\n", 1);
        for _ in 1..BOOTS {
            let mut guest = Self::start(parts, folder, &script, devices);
            let Some(report) = guest.hung_before_its_system() else { return guest };
            report_hang(&report);
        }
        let mut guest = Self::start(parts, folder, &script, devices);
        guest.expect("BEGUN", BEGUN);
        guest
    }

    /// Returns a report about a running guest that makes no progress; `None` once its own system has begun.
    fn hung_before_its_system(&mut self) -> Option<String> {
        let processors = match self.line_within(BEGUN, |line| line.contains("BEGUN")) {
            Some(_) => return None,
            None => self.processors(),
        };
        let (seen, complaints) = (self.transcript(), self.complaints());
        let report = format!("after {} s:\n{seen}\nQEMU: {complaints}\n{processors}\n", BEGUN.as_secs());
        assert!(processors.contains("RIP="), "the guest's own system did not begin {report}");
        Some(report)
    }

    fn start(parts: &Parts, folder: &Path, script: &str, devices: &[String]) -> Self {
        let initramfs = initramfs(parts, folder, script);
        let mut command = Command::new(&parts.qemu);
        command
            .args(["-accel", EMULATION, "-machine", "q35", "-cpu", "max", "-m", MEMORY])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"])
            .args(["-append", KERNEL])
            .arg("-kernel")
            .arg(&parts.kernel)
            .arg("-initrd")
            .arg(&initramfs)
            .args(["-object", &format!("memory-backend-memfd,id=m,size={MEMORY},share=on")])
            .args(["-numa", "node,memdev=m"])
            .args(devices);
        let (complaints, monitor) = (folder.join("complaints"), folder.join("processors"));
        command.arg("-monitor").arg(format!("unix:{},server=on,wait=off", monitor.display()));
        let errors = File::create(&complaints).expect("a file for what QEMU complains of");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().expect("qemu starts");
        let stdin = child.stdin.take().expect("a pipe");
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in out.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, stdin, lines, seen: Vec::new(), complaints, monitor }
    }

    /// Waits for a line that begins with `start`; panics with the whole output if it does not arrive in time.
    pub fn expect(&mut self, start: &str, within: Duration) -> String {
        self.expect_line(start, within, |line| line.starts_with(start))
    }

    /// Waits for a line that contains `text`.
    pub fn expect_within(&mut self, text: &str, within: Duration) -> String {
        self.expect_line(text, within, |line| line.contains(text))
    }

    /// Returns the first line for which `is_it` is true; `None` after the time, or if QEMU has ended.
    pub fn line_within(&mut self, within: Duration, is_it: impl Fn(&str) -> bool) -> Option<String> {
        let until = Instant::now() + within;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            let line = self.lines.recv_timeout(left).ok()?;
            self.seen.push(line.clone());
            if is_it(&line) {
                return Some(line);
            }
        }
        None
    }

    fn expect_line(&mut self, what: &str, within: Duration, is_it: impl Fn(&str) -> bool) -> String {
        if let Some(line) = self.line_within(within, is_it) {
            return line;
        }
        let (seen, complaints) = (self.transcript(), self.complaints());
        let processors = self.processors();
        panic!(
            "'{what}' did not come from the guest within {} s:\n{seen}\nQEMU: {complaints}\n{processors}",
            within.as_secs()
        );
    }

    /// Returns the instruction pointers of the guest's processors, twice: those of a halted or looping
    /// processor do not change.
    fn processors(&self) -> String {
        let Ok(mut monitor) = Monitor::try_connect(&self.monitor) else { return "QEMU has ended".into() };
        let mut look = || {
            let registers = monitor.command("info registers -a");
            let lines = registers.lines().filter(|line| line.starts_with("CPU#") || line.starts_with("RIP="));
            lines.collect::<Vec<_>>().join("\n")
        };
        [look(), look()].join("\n")
    }

    /// Boots a guest that accepts commands; `functions` are added to its shell.
    pub fn with_shell(parts: &Parts, folder: &Path, functions: &str, devices: &[String]) -> Self {
        let script = SHELL.replace("echo \"READY\"", &format!("{functions}\necho \"READY\""));
        let mut guest = Self::boot(parts, folder, &script, devices);
        guest.expect("READY", BOOT);
        guest
    }

    /// Runs one line of shell in the guest.
    pub fn run(&mut self, line: &str) -> Done {
        assert!(!line.contains('\n'), "one line: {line}");
        self.type_line(line);
        let from = self.seen.len();
        let end = self.expect("STATUS ", STEP);
        let output = self.seen[from..self.seen.len() - 1].join("\n").trim_end().to_owned();
        Done { code: end["STATUS ".len()..].parse().expect("an exit code"), output }
    }

    /// Runs a line that must succeed; returns its output.
    #[track_caller]
    pub fn must(&mut self, line: &str) -> String {
        let done = self.run(line);
        assert_eq!(done.code, 0, "'{line}': {}\n{}", done.output, self.transcript());
        done.output
    }

    /// Types one line at the guest's console.
    pub fn type_line(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("the guest's console takes a line");
    }

    /// Returns the whole output so far.
    pub fn transcript(&self) -> String {
        self.seen.join("\n")
    }

    /// Returns QEMU's own warnings so far.
    pub fn complaints(&self) -> String {
        std::fs::read_to_string(&self.complaints).expect("the file is there")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Appends the report about a guest that hung to a log, for its diagnosis.
fn report_hang(report: &str) {
    let path = parts::fetched("guests-started-again.log");
    let mut file = OpenOptions::new().create(true).append(true).open(&path).expect("a file below target");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    writeln!(file, "{test}: the guest's own system did not begin {report}").expect("room on the disk");
}

/// Returns the arguments for a QEMU that the caller starts, to boot a guest with `script` as its only program
/// on a serial console; the caller adds memory and devices.
pub fn boot_arguments(parts: &Parts, folder: &Path, script: &str) -> Vec<String> {
    let initramfs = initramfs(parts, folder, script);
    [
        "-accel",
        EMULATION,
        "-machine",
        "q35",
        "-cpu",
        "max",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-append",
        KERNEL,
        "-kernel",
    ]
    .map(Into::into)
    .into_iter()
    .chain([parts.kernel.display().to_string(), "-initrd".into(), initramfs.display().to_string()])
    .collect()
}
