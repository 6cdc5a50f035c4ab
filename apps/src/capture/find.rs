//! Which programs run, by their control sockets, and which of their ports are meant.

use std::path::{Path, PathBuf};

use linecard::eal::runtime;
use linecard::pmd::capture::{Client, Listed};

use crate::error::Error;
use crate::output::{Output, out};

/// A control socket that somebody listens at.
struct Program {
    path: PathBuf,
    prefix: String,
    pid: u32,
}

/// The programs of this user; sockets of the dead are removed.
fn programs(prefix: Option<&str>) -> Vec<Program> {
    let prefixes = match prefix {
        Some(prefix) => vec![prefix.to_owned()],
        None => names(&runtime::root()),
    };
    let mut all = Vec::new();
    for prefix in prefixes {
        let folder = runtime::folder(&prefix);
        for name in names(&folder) {
            let Some(pid) = name.strip_prefix("control.").and_then(|pid| pid.parse().ok()) else { continue };
            let path = folder.join(&name);
            if Client::connect(&path).is_ok() {
                all.push(Program { path, prefix: prefix.clone(), pid });
            } else if !Path::new(&format!("/proc/{pid}")).exists() {
                let _ = std::fs::remove_file(&path);
            }
        }
    }
    all
}

/// Removes what killed programs of this user left: sockets that nobody listens at, and folders of prefixes without any.
pub(super) fn sweep() {
    for prefix in names(&runtime::root()) {
        let folder = runtime::folder(&prefix);
        for name in names(&folder) {
            let Some(pid) = name.strip_prefix("control.").and_then(|pid| pid.parse::<u32>().ok()) else {
                continue;
            };
            let path = folder.join(&name);
            // A program in another PID namespace has no number here, but it answers.
            if !Path::new(&format!("/proc/{pid}")).exists() && deserted(&path) {
                let _ = std::fs::remove_file(&path);
            }
        }
        // Whoever has a socket there keeps it; who is about to make one makes the folder again.
        runtime::remove(&prefix);
    }
}

/// Whether nobody listens at a socket. Of another kind than ours, it would say so; it does not wait either way.
fn deserted(path: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(path)
        .is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// The control socket of the one program that is meant.
pub(super) fn program(prefix: Option<&str>, pid: Option<u32>) -> Result<PathBuf, Error> {
    let mut all = programs(prefix);
    if let Some(pid) = pid {
        all.retain(|program| program.pid == pid);
    }
    match &all[..] {
        [one] => Ok(one.path.clone()),
        [] => Err(nobody(prefix, pid)),
        several => {
            let names: Vec<_> = several.iter().map(|one| format!("{} ({})", one.pid, one.prefix)).collect();
            Err(Error::Usage(format!(
                "{} programs run: {}; say which with --pid or --file-prefix",
                several.len(),
                names.join(", ")
            )))
        }
    }
}

/// An error that says that nothing is there to be captured.
fn nobody(prefix: Option<&str>, pid: Option<u32>) -> Error {
    let which = match (prefix, pid) {
        (_, Some(pid)) => format!("no program {pid} that can be captured runs"),
        (Some(prefix), None) => format!("no program with --file-prefix {prefix} runs"),
        (None, None) => "no program that can be captured runs".into(),
    };
    Error::Failed(format!("{which} as this user; start one, as in `linecard testpmd --vdev net_null0`"))
}

/// The ports that `asked` names; without names, the only one there is.
pub(super) fn ports<'a>(listed: &'a [Listed], asked: &[String]) -> Result<Vec<&'a Listed>, Error> {
    let known: Vec<_> = listed.iter().map(|port| format!("{} ({})", port.id, port.name)).collect();
    let known = if known.is_empty() {
        "it has no started port".into()
    } else {
        format!("known: {}", known.join(", "))
    };
    if asked.is_empty() {
        return match listed {
            [one] => Ok(vec![one]),
            _ => Err(Error::Usage(format!("say which port with -p; {known}"))),
        };
    }
    let mut ports: Vec<&Listed> = Vec::new();
    for name in asked {
        let found = listed.iter().find(|port| port.name == *name || port.id.to_string() == *name);
        let found = found.ok_or_else(|| Error::Failed(format!("there is no port {name}; {known}")))?;
        if ports.iter().any(|port| port.id == found.id) {
            return Err(Error::Usage(format!("port {name} is named twice; name it once")));
        }
        ports.push(found);
    }
    Ok(ports)
}

/// Shows programs and ports.
pub(super) fn list(output: &mut Output, prefix: Option<&str>) -> Result<(), Error> {
    let all = programs(prefix);
    if all.is_empty() {
        return Err(nobody(prefix, None));
    }
    for Program { path, prefix, pid } in &all {
        out!(output, "program {pid}, --file-prefix {prefix}\n");
        for port in Client::connect(path)?.list()? {
            out!(output, "  {port}\n");
        }
    }
    Ok(())
}
