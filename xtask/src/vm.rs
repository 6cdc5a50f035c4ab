//! Runs a Linux guest in QEMU interactively, as the tests start it: without hardware virtualisation, root or
//! an image.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use clap::Args;
use linecard_testing::guest::{Guest, Kernel, Parts};

/// Options of `cargo xtask vm`.
#[derive(Args)]
pub(crate) struct Options {
    /// net: Linux's virtio-net; vhost: /dev/vhost-net and tap; vhost-new: the same in a newer kernel; vdpa: vDPA and VDUSE; vdpa-net: virtio-net over these; vfio: PCI devices given to processes; xdp: a
    /// newer virtio-net.
    #[arg(long, default_value = "net")]
    kernel: Kernel,
    /// A program to put into the guest's /bin with its libraries; may be given several times.
    #[arg(long, value_name = "FILE")]
    program: Vec<PathBuf>,
    /// A vhost-user card whose backend listens at this socket; may be given several times.
    #[arg(long, value_name = "SOCKET")]
    nic: Vec<PathBuf>,
    /// The cards have packed rings.
    #[arg(long, requires = "nic")]
    packed: bool,
    /// A further argument for QEMU, as in --qemu=-device --qemu=edu; may be given several times.
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    qemu: Vec<String>,
    /// Lines of shell to run in the guest; without any, those of standard input.
    commands: Vec<String>,
}

/// Boots the guest, runs the commands, and stops at the first that fails.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let devices = devices(options)?;
    let programs = options.program.iter().map(|path| program(path)).collect::<Result<Vec<_>, _>>()?;
    let folder = Folder::new()?;
    let mut parts = Parts::look(options.kernel)?;
    for program in programs {
        parts = parts.with_program(&program, &folder.0);
    }
    let mut guest = Guest::with_shell(&parts, &folder.0, "", &devices);
    if !options.commands.is_empty() {
        return options.commands.iter().try_for_each(|line| say(&mut guest, line));
    }
    let input = std::io::stdin().lock();
    let typed = input.is_terminal();
    if typed {
        eprintln!("the guest takes lines of shell, each on its own; end it with Ctrl-D");
    }
    for line in input.lines() {
        let line = line.map_err(|e| format!("standard input: {e}"))?;
        match say(&mut guest, &line) {
            // At a terminal a failed command must not end the guest.
            Err(why) if typed => eprintln!("{why}"),
            other => other?,
        }
    }
    Ok(())
}

fn say(guest: &mut Guest, line: &str) -> Result<(), String> {
    let done = guest.run(line);
    if !done.output.is_empty() {
        println!("{}", done.output);
    }
    if done.code == 0 {
        Ok(())
    } else {
        Err(format!("'{line}' ended with exit code {} in the guest", done.code))
    }
}

/// Returns QEMU's arguments for the network cards, and the additional ones.
fn devices(options: &Options) -> Result<Vec<String>, String> {
    let mut devices = Vec::new();
    for (n, socket) in options.nic.iter().enumerate() {
        if !socket.exists() {
            let remedy = "start the backend first, as in `linecard testpmd --vdev net_vhost0,iface=SOCKET`";
            return Err(format!("there is no socket {}; {remedy}", socket.display()));
        }
        let packed = if options.packed { "on" } else { "off" };
        devices.extend([
            "-chardev".to_owned(),
            format!("socket,id=c{n},path={}", socket.display()),
            "-netdev".to_owned(),
            format!("vhost-user,id=n{n},chardev=c{n}"),
            "-device".to_owned(),
            format!("virtio-net-pci,netdev=n{n},packed={packed},disable-legacy=on,romfile="),
        ]);
    }
    devices.extend(options.qemu.iter().cloned());
    Ok(devices)
}

fn program(path: &Path) -> Result<PathBuf, String> {
    let failed = |e| format!("--program {}: {e}", path.display());
    let path = path.canonicalize().map_err(failed)?;
    if path.is_file() { Ok(path) } else { Err(format!("--program {} is no file", path.display())) }
}

/// A folder for the guest's files, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("linecard-vm-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parse(words: &[&str]) -> Result<Options, String> {
        Line::try_parse_from([&["vm"], words].concat()).map(|line| line.options).map_err(|e| e.to_string())
    }

    #[test]
    fn cards_and_further_arguments_are_qemus() {
        let here = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let options =
            parse(&["--nic", here, "--packed", "--qemu=-device", "--qemu=edu", "uname"]).expect("is right");
        let devices = devices(&options).expect("the file is there");
        assert!(devices.iter().any(|word| word.contains(&format!("path={here}"))));
        assert!(devices.iter().any(|word| word.contains("packed=on")));
        assert!(devices.ends_with(&["-device".into(), "edu".into()]));
        assert_eq!(options.commands, ["uname"]);
    }

    #[test]
    fn what_is_wrong_is_said_before_a_guest_is_started() {
        for (words, why) in [
            (&["--kernel", "windows"][..], "there are net, vhost, vhost-new, vdpa, vdpa-net, vfio, xdp"),
            (&["--packed"], "--nic"),
            (&["--nic"], "a value is required"),
            (&["--nix"], "unexpected argument"),
        ] {
            let said = parse(words).map(|_| ()).expect_err("is refused");
            assert!(said.contains(why), "{words:?}: {said}");
        }
        let absent = parse(&["--nic", "/nowhere/socket"]).expect("is a path");
        assert!(devices(&absent).is_err_and(|why| why.contains("start the backend first")));
        assert!(program(Path::new("/nowhere")).is_err_and(|why| why.contains("/nowhere")));
        assert!(program(Path::new("/")).is_err_and(|why| why.contains("no file")));
    }
}
