//! DPDK's side: a small C program, built when first needed, which answers one question per line.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use linecard::eal::CoreId;

use super::Error;
use super::pair::Sample;
use linecard_apps_common::PrivateFolder;

/// The time limit for the start, and for each answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The time limit for the exit.
const FAREWELL: Duration = Duration::from_secs(2);
/// The number of free 2 MiB pages from which on DPDK gets hugepages.
const ENOUGH_HUGEPAGES: u64 = 128;

/// A peer program.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    name: &'static str,
    source: &'static str,
    /// Arguments for EAL if there are hugepages.
    paged: &'static [&'static str],
}

impl Program {
    /// Rings and pools.
    pub(crate) const PARTS: Self =
        Self { name: "dpdk_bench", source: include_str!("../peers/dpdk_bench.c"), paged: &["--in-memory"] };
    /// Hash tables and longest-prefix match.
    pub(crate) const TABLES: Self =
        Self { name: "dpdk_tables", source: include_str!("../peers/dpdk_tables.c"), paged: &["--in-memory"] };
    /// Ports at both ends of a socket. A frontend can share its memory only if it has few file descriptors.
    pub(crate) const BURSTS: Self = Self {
        name: "dpdk_burst",
        source: include_str!("../peers/dpdk_burst.c"),
        paged: &["--in-memory", "--single-file-segments"],
    };
}

/// The reason why DPDK is absent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Absent {
    #[error("pkg-config knows no libdpdk; install libdpdk-dev and pkg-config")]
    NoLibrary,
    #[error("there is no C compiler named cc; install gcc or clang")]
    NoCompiler,
    #[error("there is nowhere to build it; set XDG_CACHE_HOME")]
    NoCache,
    #[error("it cannot be built here: {0}")]
    Build(String),
    #[error("it did not start: {0}")]
    Start(String),
}

/// The running program; it ends when this is dropped.
pub(crate) struct Peer {
    child: Child,
    input: Option<ChildStdin>,
    answers: Receiver<String>,
    description: String,
    /// Removes the files that DPDK leaves behind; dropped after the program has ended.
    _folder: PrivateFolder,
}

impl Peer {
    /// Builds the program unless it is cached, and starts it on `cores`.
    pub(crate) fn start(program: Program, cores: &[CoreId]) -> Result<Self, Absent> {
        let version = pkg_config(&["--modversion"]).ok_or(Absent::NoLibrary)?.join(" ");
        let file = build(program.name, program.source)?;
        if free_hugepages() >= ENOUGH_HUGEPAGES
            && let Ok(peer) = Self::launch(&file, cores, program.paged, &version, "hugepages")
        {
            return Ok(peer);
        }
        Self::launch(&file, cores, &["--no-huge", "--no-shconf"], &version, "no hugepages")
    }

    fn launch(
        program: &Path,
        cores: &[CoreId],
        memory: &[&str],
        version: &str,
        pages: &str,
    ) -> Result<Self, Absent> {
        let cores = cores.iter().map(CoreId::to_string).collect::<Vec<_>>().join(",");
        let prefix = format!("linecard-bench-{}", std::process::id());
        let folder = PrivateFolder::new().map_err(|e| Absent::Start(e.to_string()))?;
        let mut child = Command::new(program)
            .env("RUNTIME_DIRECTORY", folder.path())
            // A separate process group: Ctrl-C at the terminal reaches only this process, which then ends the
            // peer.
            .process_group(0)
            .args(["-l", &cores, "-m", "256", "--no-pci", "--no-telemetry", "--file-prefix", &prefix])
            .args(memory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| Absent::Start(e.to_string()))?;
        let (sender, answers) = channel();
        let output = child.stdout.take();
        thread::spawn(move || {
            for line in
                output.into_iter().flat_map(|output| BufReader::new(output).lines()).map_while(Result::ok)
            {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let description = format!("{version} built for this processor, {pages}");
        let peer = Self { input: child.stdin.take(), child, answers, description, _folder: folder };
        peer.await_ready()?;
        Ok(peer)
    }

    /// Waits for the line `ready`. DPDK logs to standard output too; its lines are skipped.
    fn await_ready(&self) -> Result<(), Absent> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.answers.recv_timeout(left) {
                Ok(line) if line.starts_with("ready ") => return Ok(()),
                Ok(_) => (),
                Err(_) => return Err(Absent::Start("it said nothing or ended".into())),
            }
        }
    }

    /// Returns version and kind of memory.
    pub(crate) fn describe(&self) -> &str {
        &self.description
    }

    /// Makes the peer measure one case.
    pub(crate) fn ask(&mut self, question: &str) -> Result<Sample, Error> {
        let gone = || Error::Peer(format!("no answer to \"{question}\""));
        let input = self.input.as_mut().ok_or_else(gone)?;
        writeln!(input, "{question}").map_err(|_| gone())?;
        let answer = self.answers.recv_timeout(PATIENCE).map_err(|_| gone())?;
        parse(&answer).ok_or_else(|| Error::Peer(format!("it answered \"{answer}\" to \"{question}\"")))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.input.take());
        let deadline = Instant::now() + FAREWELL;
        while Instant::now() < deadline {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Parses `VALUE INTERRUPTED`.
fn parse(answer: &str) -> Option<Sample> {
    let (value, interrupted) = answer.split_once(' ')?;
    Some(Sample { value: value.parse().ok()?, interrupted: interrupted.parse().ok()? })
}

/// Returns the program built from `source` for this DPDK; from the cache if possible.
pub(crate) fn build(name: &str, source: &str) -> Result<PathBuf, Absent> {
    let version = pkg_config(&["--modversion"]).ok_or(Absent::NoLibrary)?.join(" ");
    let folder = pkg_config(&["--variable=libdir"]).ok_or(Absent::NoLibrary)?.concat();
    let mut flags = pkg_config(&["--cflags"]).ok_or(Absent::NoLibrary)?;
    // After DPDK's own -march: its inline code may use all instructions of this processor, as ours does.
    flags.push("-march=native".into());
    flags.extend(pkg_config(&["--libs"]).ok_or(Absent::NoLibrary)?);
    // Uses the libraries that it was built for, whichever DPDK the loader finds; the old tag applies to their
    // dependencies too.
    flags.push(format!("-Wl,--disable-new-dtags,-rpath,{folder}"));
    compile(name, source, &version, &flags)
}

/// Returns the program built from `source` with only libc; from the cache if possible.
pub(crate) fn build_plain(name: &str, source: &str) -> Result<PathBuf, Absent> {
    compile(name, source, "", &["-march=native".into(), "-pthread".into()])
}

fn compile(name: &str, source: &str, version: &str, flags: &[String]) -> Result<PathBuf, Absent> {
    let name = key(name, source, version, flags);
    let folder = cache().ok_or(Absent::NoCache)?;
    let program = folder.join(&name);
    if program.is_file() {
        return Ok(program);
    }
    let failed = |e: std::io::Error| Absent::Build(e.to_string());
    fs::create_dir_all(&folder).map_err(failed)?;
    let file = folder.join(format!("{name}.c"));
    fs::write(&file, source).map_err(failed)?;
    // Built under another name and renamed, so that no process starts an incomplete program.
    let fresh = folder.join(format!("{name}.{}", std::process::id()));
    let compiled = Command::new("cc")
        .args(["-O3", "-std=gnu11", "-o"])
        .args([&fresh, &file])
        .args(flags)
        .output()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Absent::NoCompiler,
            _ => failed(error),
        })?;
    if !compiled.status.success() {
        let text = String::from_utf8_lossy(&compiled.stderr);
        let first = text.lines().find(|line| line.contains("error")).unwrap_or("cc failed");
        return Err(Absent::Build(first.to_owned()));
    }
    fs::rename(&fresh, &program).map_err(failed)?;
    Ok(program)
}

/// Returns the file name for this source and these flags. The flags contain the path of the libraries: a
/// machine may have two DPDKs of the same version.
fn key(name: &str, source: &str, version: &str, flags: &[String]) -> String {
    let mut hasher = DefaultHasher::new();
    (source, version, flags).hash(&mut hasher);
    format!("{name}-{:016x}", hasher.finish())
}

fn cache() -> Option<PathBuf> {
    let given = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    given.filter(|path| path.is_absolute()).or_else(home).map(|path| path.join("linecard"))
}

/// Returns the words that pkg-config prints for libdpdk.
fn pkg_config(what: &[&str]) -> Option<Vec<String>> {
    let output = Command::new("pkg-config").args(what).arg("libdpdk").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.split_whitespace().map(str::to_owned).collect())
}

/// Returns the number of free 2 MiB pages, whatever size is the default.
pub(crate) fn free_hugepages() -> u64 {
    free_in(Path::new("/sys/kernel/mm/hugepages"))
}

fn free_in(pools: &Path) -> u64 {
    let count = fs::read_to_string(pools.join("hugepages-2048kB/free_hugepages"));
    count.ok().and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dpdk_has_a_program_of_its_own() {
        let at = |folder: &str| key("peer", "source", "26.11.0", &[format!("-Wl,-rpath,{folder}")]);
        assert_eq!(at("/usr/lib"), at("/usr/lib"));
        assert_ne!(at("/usr/lib"), at("/opt/dpdk/lib"));
        assert_ne!(at("/usr/lib"), key("peer", "source", "22.11.0", &["-Wl,-rpath,/usr/lib".to_owned()]));
    }

    #[test]
    fn only_pages_of_2_mib_are_counted() {
        let pools = env::temp_dir().join(format!("lc-pools-{}", std::process::id()));
        assert_eq!(free_in(&pools), 0);
        for (pool, free) in [("hugepages-2048kB", "7\n"), ("hugepages-1048576kB", "512\n")] {
            fs::create_dir_all(pools.join(pool)).unwrap();
            fs::write(pools.join(pool).join("free_hugepages"), free).unwrap();
        }
        let free = free_in(&pools);
        fs::remove_dir_all(&pools).unwrap();
        assert_eq!(free, 7);
    }

    #[test]
    fn reads_an_answer_and_nothing_else() {
        let read = |text| parse(text).map(|sample| (sample.value, sample.interrupted));
        assert_eq!(read("6.25 3"), Some((6.25, 3)));
        assert_eq!(read("6.25"), None);
        assert_eq!(read("EAL: message"), None);
    }
}
