//! A Linux guest in QEMU without hardware virtualisation: a kernel, busybox, and a script that is its whole system.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{on_path, skip};

/// Where modules are, below a kernel's folder.
const MODULE_FOLDERS: [&str; 9] = [
    "net/core",
    "drivers/net",
    "drivers/virtio",
    "drivers/vhost",
    "drivers/vdpa",
    "drivers/vdpa/vdpa_user",
    "drivers/vfio",
    "drivers/vfio/pci",
    "virt/lib",
];
/// Modules of the virtio-net driver and what it stands on.
const MODULES: &[&str] = &[
    "failover",
    "net_failover",
    "virtio",
    "virtio_ring",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_net",
];
/// The same of kernels that have virtio built in.
const NEWER_MODULES: &[&str] = &["failover", "net_failover", "virtio_net"];
/// What `/dev/vhost-net` and tap interfaces stand on.
const VHOST_MODULES: &[&str] = &["tun", "tap", "vhost_iotlb", "vhost", "vhost_net"];
/// What vDPA devices of a process stand on.
const VDPA_MODULES: &[&str] = &["irqbypass", "vhost_iotlb", "vhost", "vdpa", "vduse", "vhost_vdpa"];
/// What a process stands on that drives a PCI device itself.
const VFIO_MODULES: &[&str] =
    &["irqbypass", "vfio", "vfio_virqfd", "vfio_iommu_type1", "vfio-pci-core", "vfio-pci"];
const MEMORY: &str = "256M";

/// What a guest does first whose cards are Linux's; then it has a function for streams of `$KIB`, that end within `$LIMIT` seconds.
pub(crate) const BEGIN: &str = r#"#!/bin/sh
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

/// A system whose console takes commands, for [`Guest::run`].
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

/// `bad_sums`: how many TCP segments of its network namespace arrived with a wrong checksum. The kernel prints the names of its
/// counters above their values, and appends new ones.
const BAD_SUMS: &str = r#"#!/bin/sh
exec awk '
  $1 == "Tcp:" && !at { for (i = 2; i <= NF; i++) if ($i == "InCsumErrors") at = i; next }
  $1 == "Tcp:" { print $at }
' /proc/net/snmp
"#;

/// One testpmd at a time: `pmd ARGUMENTS` starts it, `type_in LINE` types, `printed TEXT` waits for what it prints from then
/// on. `tell LINE TEXT` is both.
pub(crate) const TESTPMD: &str = r#"
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

/// Longest time until a guest is up, and until a command in it ends, on a busy machine.
const BOOT: Duration = Duration::from_secs(120);
const STEP: Duration = Duration::from_secs(120);

/// Guests of one test binary run one after the other: each takes the time of several cores.
static TURN: Mutex<()> = Mutex::new(());

/// What a guest is made of.
pub(crate) struct Parts {
    _turn: MutexGuard<'static, ()>,
    qemu: PathBuf,
    busybox: PathBuf,
    kernel: PathBuf,
    modules: Vec<PathBuf>,
    /// Further files: their names in the guest, and where they are.
    files: Vec<(String, PathBuf)>,
}

impl Parts {
    /// Finds them; says what is missing when `test` must be skipped.
    pub(crate) fn find(test: &str) -> Option<Self> {
        let given = std::env::var_os("LINECARD_GUEST_KERNEL").map(PathBuf::from);
        let folders: Vec<_> = given.into_iter().chain([fetched("guest"), PathBuf::from("/")]).collect();
        Self::with(test, &folders, MODULES)
    }

    /// The same with a kernel whose virtio-net gives AF_XDP its memory without a copy (Linux 6.13).
    pub(crate) fn find_newer(test: &str) -> Option<Self> {
        Self::with(test, &[fetched("guest-xdp")], NEWER_MODULES)
    }

    /// The same as [`find`](Self::find), with the kernel's vhost-net.
    pub(crate) fn find_vhost(test: &str) -> Option<Self> {
        Self::with(test, &[fetched("guest"), PathBuf::from("/")], VHOST_MODULES)
    }

    /// The same with a kernel that has vDPA and VDUSE.
    pub(crate) fn find_vdpa(test: &str) -> Option<Self> {
        Self::with(test, &[fetched("guest-vdpa")], VDPA_MODULES)
    }

    /// The same with a kernel that gives PCI devices to processes.
    pub(crate) fn find_vfio(test: &str) -> Option<Self> {
        Self::with(test, &[fetched("guest"), PathBuf::from("/")], VFIO_MODULES)
    }

    fn with(test: &str, folders: &[PathBuf], modules: &[&str]) -> Option<Self> {
        let Some(qemu) = on_path("qemu-system-x86_64") else {
            skip(test, "qemu-system-x86_64 is not installed (apt-get install qemu-system-x86)");
            return None;
        };
        let Some(busybox) = on_path("busybox").filter(|path| is_static(path)) else {
            skip(test, "a static busybox is not installed (apt-get install busybox-static)");
            return None;
        };
        let Some((kernel, modules)) = folders.iter().find_map(|folder| kernel_in(folder, modules)) else {
            skip(test, "there is no guest kernel (.ci/guest-kernel fetches what is needed below target)");
            return None;
        };
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Self { _turn: turn, qemu, busybox, kernel, modules, files: Vec::new() })
    }

    /// Adds ethtool; says so when it is not there and `test` must be skipped.
    pub(crate) fn with_ethtool(self, test: &str, folder: &Path) -> Option<Self> {
        // Not on the path of ordinary users.
        let usual = Some(PathBuf::from("/usr/sbin/ethtool")).filter(|path| path.is_file());
        let Some(ethtool) = on_path("ethtool").or(usual) else {
            skip(test, "ethtool is not installed (apt-get install ethtool)");
            return None;
        };
        Some(self.with_program(&ethtool, folder))
    }

    /// Adds the test program itself, under the name `checks`: its ignored tests can be run in the guest.
    pub(crate) fn with_checks(self, folder: &Path) -> Self {
        let program = std::env::current_exe().expect("a test knows its program");
        self.with_program_as("checks", &program, folder)
    }

    /// Adds a program, without what only a debugger needs, and its libraries; `folder` is for files on the way.
    pub(crate) fn with_program(self, program: &Path, folder: &Path) -> Self {
        let name = program.file_name().expect("a program has a name").to_string_lossy().into_owned();
        self.with_program_as(&name, program, folder)
    }

    /// The same under another name.
    pub(crate) fn with_program_as(mut self, name: &str, program: &Path, folder: &Path) -> Self {
        let stripped = folder.join(name);
        let mut strip = Command::new("strip");
        assert!(strip.arg("-o").args([&stripped, program]).status().expect("strip runs").success());
        let output = Command::new("ldd").arg(program).output().expect("ldd runs");
        let libraries = String::from_utf8_lossy(&output.stdout).into_owned();
        let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/'));
        self.files
            .extend(libraries.map(|path| (path.trim_start_matches('/').to_owned(), PathBuf::from(path))));
        self.files.push((format!("bin/{name}"), stripped));
        self
    }
}

/// What `.ci/guest-kernel` unpacked.
fn fetched(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target").join(name)
}

/// The kernel of a folder, if all its modules are there, uncompressed.
fn kernel_in(folder: &Path, modules: &[&str]) -> Option<(PathBuf, Vec<PathBuf>)> {
    let entries = std::fs::read_dir(folder.join("boot")).ok()?.flatten();
    for kernel in entries.map(|entry| entry.path()) {
        let name = kernel.file_name()?.to_string_lossy().into_owned();
        let Some(version) = name.strip_prefix("vmlinuz-") else { continue };
        let root = folder.join("lib/modules").join(version).join("kernel");
        let mut files = Vec::new();
        for below in MODULE_FOLDERS {
            let listed = std::fs::read_dir(root.join(below)).into_iter().flatten().flatten();
            files.extend(listed.map(|entry| entry.path()));
        }
        let found: Vec<_> = modules
            .iter()
            .filter_map(|module| files.iter().find(|path| path.ends_with(format!("{module}.ko"))).cloned())
            .collect();
        if found.len() == modules.len() {
            return Some((kernel, found));
        }
    }
    None
}

/// Whether an ELF program needs no loader: it has no program header of type `PT_INTERP`.
fn is_static(program: &Path) -> bool {
    const INTERPRETER: u8 = 3;
    let Ok(bytes) = std::fs::read(program) else { return false };
    let number =
        |at: usize| bytes.get(at..at + 2).map_or(0, |two| usize::from(u16::from_le_bytes([two[0], two[1]])));
    let (table, size, count) = (number(32), number(54), number(56));
    size > 0 && (0..count).all(|n| bytes.get(table + n * size).is_some_and(|kind| *kind != INTERPRETER))
}

/// How a command in a guest ended.
#[derive(Debug)]
pub(crate) struct Done {
    /// Its exit code.
    pub(crate) code: i32,
    /// The lines it printed.
    pub(crate) output: String,
}

/// A running guest; ended when dropped.
pub(crate) struct Guest {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    seen: Vec<String>,
    complaints: PathBuf,
}

impl Guest {
    /// Boots it with `script` as its only program; `devices` are further arguments for QEMU.
    pub(crate) fn boot(parts: &Parts, folder: &Path, script: &str, devices: &[String]) -> Self {
        let initramfs = initramfs(parts, folder, script);
        let mut command = Command::new(&parts.qemu);
        command
            .args(["-accel", "tcg,thread=multi", "-machine", "q35", "-cpu", "max", "-m", MEMORY])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"])
            // On a busy machine the emulated timer is late, and the kernel would take it for broken.
            .args(["-append", "console=ttyS0 panic=-1 quiet no_timer_check"])
            .arg("-kernel")
            .arg(&parts.kernel)
            .arg("-initrd")
            .arg(&initramfs)
            .args(["-object", &format!("memory-backend-memfd,id=m,size={MEMORY},share=on")])
            .args(["-numa", "node,memdev=m"])
            .args(devices);
        let complaints = folder.join("complaints");
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
        Self { child, stdin, lines, seen: Vec::new(), complaints }
    }

    /// Waits for a line that begins with `start`; panics with everything printed when it does not come.
    pub(crate) fn expect(&mut self, start: &str, within: Duration) -> String {
        self.expect_line(start, within, |line| line.starts_with(start))
    }

    /// Waits for a line that contains `text`.
    pub(crate) fn expect_within(&mut self, text: &str, within: Duration) -> String {
        self.expect_line(text, within, |line| line.contains(text))
    }

    fn expect_line(&mut self, what: &str, within: Duration, is_it: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + within;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            let Ok(line) = self.lines.recv_timeout(left) else { break };
            self.seen.push(line.clone());
            if is_it(&line) {
                return line;
            }
        }
        let (seen, complaints) = (self.transcript(), self.complaints());
        panic!("'{what}' did not come from the guest:\n{seen}\nQEMU: {complaints}");
    }

    /// Boots one that takes commands; `functions` are of the shell that runs them.
    pub(crate) fn with_shell(parts: &Parts, folder: &Path, functions: &str, devices: &[String]) -> Self {
        let script = SHELL.replace("echo \"READY\"", &format!("{functions}\necho \"READY\""));
        let mut guest = Self::boot(parts, folder, &script, devices);
        guest.expect("READY", BOOT);
        guest
    }

    /// Runs one line of shell in it.
    pub(crate) fn run(&mut self, line: &str) -> Done {
        assert!(!line.contains('\n'), "one line: {line}");
        self.type_line(line);
        let from = self.seen.len();
        let end = self.expect("STATUS ", STEP);
        let output = self.seen[from..self.seen.len() - 1].join("\n").trim_end().to_owned();
        Done { code: end["STATUS ".len()..].parse().expect("an exit code"), output }
    }

    /// Runs a line that must end well; what it printed.
    #[track_caller]
    pub(crate) fn must(&mut self, line: &str) -> String {
        let done = self.run(line);
        assert_eq!(done.code, 0, "'{line}': {}\n{}", done.output, self.transcript());
        done.output
    }

    /// Types one line at its console.
    pub(crate) fn type_line(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("the guest's console takes a line");
    }

    /// Everything printed so far.
    pub(crate) fn transcript(&self) -> String {
        self.seen.join("\n")
    }

    /// What QEMU itself has warned of so far.
    pub(crate) fn complaints(&self) -> String {
        std::fs::read_to_string(&self.complaints).expect("the file is there")
    }
}

/// QEMU's monitor, at the socket that `-monitor unix:PATH,server=on,wait=off` makes.
pub(crate) struct Monitor(UnixStream);

impl Monitor {
    const PROMPT: &str = "(qemu) ";

    pub(crate) fn connect(path: &Path) -> Self {
        let stream = linecard_lab::wait_for("QEMU's monitor", || UnixStream::connect(path).ok());
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        let mut monitor = Self(stream);
        monitor.answer();
        monitor
    }

    /// Gives a command; what it prints.
    pub(crate) fn command(&mut self, line: &str) -> String {
        writeln!(self.0, "{line}").expect("the monitor takes a line");
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut bytes = Vec::new();
        let mut part = [0; 4096];
        loop {
            let n = self.0.read(&mut part).expect("the monitor answers");
            assert!(n > 0, "QEMU ended: {}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(part.get(..n).unwrap_or_default());
            if bytes.ends_with(Self::PROMPT.as_bytes()) {
                return String::from_utf8_lossy(&bytes).into_owned();
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// For a QEMU that somebody else starts: the arguments that boot a guest with `script` as its only program, in a page or two of
/// serial console; memory and devices are to be added.
pub(crate) fn boot_arguments(parts: &Parts, folder: &Path, script: &str) -> Vec<String> {
    let initramfs = initramfs(parts, folder, script);
    [
        "-accel",
        "tcg,thread=multi",
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
        "console=ttyS0 panic=-1 quiet no_timer_check",
        "-kernel",
    ]
    .map(Into::into)
    .into_iter()
    .chain([parts.kernel.display().to_string(), "-initrd".into(), initramfs.display().to_string()])
    .collect()
}

fn initramfs(parts: &Parts, folder: &Path, script: &str) -> PathBuf {
    let initramfs = folder.join("initramfs");
    std::fs::write(&initramfs, archive(parts, script)).expect("the initramfs is written");
    initramfs
}

/// An initramfs: cpio, "newc" format (kernel: Documentation/driver-api/early-userspace/buffer-format.rst).
fn archive(parts: &Parts, script: &str) -> Vec<u8> {
    const FOLDER: u32 = 0o040_755;
    const PROGRAM: u32 = 0o100_755;
    let mut bytes = Vec::new();
    let folders: BTreeSet<_> =
        parts.files.iter().flat_map(|(name, _)| Path::new(name).ancestors().skip(1)).collect();
    for folder in ["bin", "dev", "etc", "proc", "sys", "mods", "tmp"].map(Path::new).iter().chain(&folders) {
        entry(&mut bytes, &folder.to_string_lossy(), FOLDER, &[]);
    }
    let read = |path: &Path| std::fs::read(path).expect("a file of the guest");
    entry(&mut bytes, "bin/busybox", PROGRAM, &read(&parts.busybox));
    entry(&mut bytes, "bin/sh", 0o120_777, b"busybox");
    entry(&mut bytes, "bin/bad_sums", PROGRAM, BAD_SUMS.as_bytes());
    for module in &parts.modules {
        let name = module.file_name().expect("a name").to_string_lossy();
        entry(&mut bytes, &format!("mods/{name}"), PROGRAM, &read(module));
    }
    for (name, path) in &parts.files {
        entry(&mut bytes, name, PROGRAM, &read(path));
    }
    entry(&mut bytes, "init", PROGRAM, script.as_bytes());
    entry(&mut bytes, "TRAILER!!!", 0, &[]);
    bytes
}

fn entry(archive: &mut Vec<u8>, name: &str, mode: u32, data: &[u8]) {
    let (inode, links) = (archive.len() as u32, 1_u32);
    let (len, name_len) = (data.len() as u32, name.len() as u32 + 1);
    archive.extend(b"070701");
    for field in [inode, mode, 0, 0, links, 0, len, 0, 0, 0, 0, name_len, 0] {
        archive.extend(format!("{field:08x}").bytes());
    }
    archive.extend(name.bytes().chain([0]));
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(data);
    archive.resize(archive.len().next_multiple_of(4), 0);
}
