//! Checks the package: with lintian, and by installing, running and removing it on a bare root file system.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{output, succeed};

/// Commands that forward packets and print their number; no file is created outside of the root.
const CONSOLE: &[u8] = b"start tx_first\nshow port stats all\nstop\nquit\n";

pub(super) fn check(package: &Path, stage: &Path) -> Result<(), String> {
    let there = |program: &str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    if there("lintian") {
        lintian(package)?;
    } else {
        linecard_testing::skip("package: lintian", "no program 'lintian' on this machine; install lintian");
    }
    if !there("dpkg") {
        linecard_testing::skip(
            "package: installation",
            "no program 'dpkg' on this machine; run it on Debian",
        );
        return Ok(());
    }
    let root = stage.join("root");
    bare(&root, &stage.join("linecard"))?;
    let before = tree(&root)?;
    succeed(dpkg(&root, &["--install"]).arg(package))?;
    let version = output(&mut inside(&root, &["--version"]))?;
    if !version.starts_with("linecard ") {
        return Err(format!("the installed command says {version:?} for its version"));
    }
    forward(&root)?;
    succeed(&mut dpkg(&root, &["--purge", "linecard"]))?;
    let left: Vec<PathBuf> = tree(&root)?.into_iter().filter(|path| !before.contains(path)).collect();
    if !left.is_empty() {
        return Err(format!("the removed package left files behind: {left:?}"));
    }
    println!("installed, run and removed on a bare root file system");
    Ok(())
}

fn lintian(package: &Path) -> Result<(), String> {
    let mut command = Command::new("lintian");
    command.args(["--fail-on", "error,warning", "--allow-root", "--tag-display-limit", "0"]).arg(package);
    succeed(&mut command)
}

/// Creates a root file system with only the libraries of the program and dpkg's empty database.
pub(super) fn bare(root: &Path, program: &Path) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", root.display());
    let _ = fs::remove_dir_all(root);
    for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "tmp", "run"] {
        fs::create_dir_all(root.join(folder)).map_err(failed)?;
    }
    for file in ["status", "available"] {
        fs::write(root.join("var/lib/dpkg").join(file), "").map_err(failed)?;
    }
    let libraries = output(Command::new("ldd").arg(program))?;
    for path in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap_or(root)).and_then(|()| fs::copy(path, &to)).map_err(failed)?;
    }
    Ok(())
}

/// Returns a dpkg command for that root file system, which ignores dependencies: the libraries are there
/// without packages.
fn dpkg(root: &Path, arguments: &[&str]) -> Command {
    let mut command = as_root("dpkg");
    command.arg("--root").arg(root).args(["--force-depends", "--force-script-chrootless", "--log=/dev/null"]);
    command.args(arguments).stdout(Stdio::null());
    command
}

/// Returns the command that runs the installed program.
pub(super) fn inside(root: &Path, arguments: &[&str]) -> Command {
    let mut command = as_root("chroot");
    command.arg(root).arg("/usr/bin/linecard").args(arguments);
    command
}

/// Returns a command that runs as root; for other users in a user namespace.
pub(super) fn as_root(program: &str) -> Command {
    let root = output(Command::new("id").arg("-u")).is_ok_and(|user| user.trim() == "0");
    if root {
        return Command::new(program);
    }
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", program]);
    command
}

/// Checks that packets pass a port of the installed program.
fn forward(root: &Path) -> Result<(), String> {
    let arguments = ["testpmd", "--no-huge", "-m", "64", "--in-memory", "--vdev", "net_null0", "--", "-i"];
    let mut child = inside(root, &arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("the installed command could not be started: {e}"))?;
    let typed = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(CONSOLE));
    let done = child.wait_with_output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&done.stdout);
    if typed.is_err() || !done.status.success() {
        return Err(format!("the installed testpmd failed ({}): {text}", done.status));
    }
    match sent(&text) {
        Some(1..) => Ok(()),
        _ => Err(format!("no packet passed a port of the installed testpmd: {text}")),
    }
}

/// Returns the last number of sent packets in the statistics.
fn sent(text: &str) -> Option<u64> {
    let (_, rest) = text.rsplit_once("TX-packets:")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Returns every file below the root except dpkg's database.
pub(super) fn tree(root: &Path) -> Result<Vec<PathBuf>, String> {
    let (mut all, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?.flatten() {
            let path = entry.path();
            if path.starts_with(root.join("var/lib/dpkg")) {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else {
                all.push(path);
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::sent;

    #[test]
    fn statistics_without_packets_are_no_packets() {
        assert_eq!(sent("  RX-packets: 7  TX-packets: 0              TX-dropped: 0\n"), Some(0));
        assert_eq!(sent("  TX-packets: 0  TX-errors: 0\n  TX-packets: 4711 TX-dropped: 3\n"), Some(4711));
        assert_eq!(sent("testpmd> \n"), None);
    }
}
