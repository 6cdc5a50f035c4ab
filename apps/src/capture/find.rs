//! Finds running programs by their control sockets, and selects their ports.

use std::path::{Path, PathBuf};

use linecard::capture::{Client, ControlSocket, Listed};
use linecard::eal::runtime;

use crate::error::Error;
use crate::output::{Output, out};

/// A program with a control socket that accepts connections.
struct Program {
    path: PathBuf,
    prefix: String,
    pid: u32,
}

/// Returns the programs of this user; removes the sockets of ended ones.
fn programs(prefix: Option<&str>) -> Vec<Program> {
    let prefixes = match prefix {
        Some(prefix) => vec![prefix.to_owned()],
        None => names(&runtime::root()),
    };
    ControlSocket::sweep();
    let mut all = Vec::new();
    for prefix in prefixes {
        let folder = runtime::folder(&prefix);
        for name in names(&folder) {
            let Some(pid) = name.strip_prefix("control.").and_then(|pid| pid.parse().ok()) else { continue };
            let path = folder.join(&name);
            if Client::connect(&path).is_ok() {
                all.push(Program { path, prefix: prefix.clone(), pid });
            }
        }
    }
    all
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// Returns the control socket of the one program that matches.
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

/// The error that no program or port can be captured.
fn nobody(prefix: Option<&str>, pid: Option<u32>) -> Error {
    let which = match (prefix, pid) {
        (_, Some(pid)) => format!("no program {pid} that can be captured runs"),
        (Some(prefix), None) => format!("no program with --file-prefix {prefix} runs"),
        (None, None) => "no program that can be captured runs".into(),
    };
    Error::Failed(format!(
        "{which} as this user; start one, as in `linecard testpmd --vdev net_null0`, or have a program of your own call \
         linecard::capture::serve with its ports"
    ))
}

/// Returns the ports named in `asked`; if it is empty, the only port.
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

/// Prints programs and ports.
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

/// Returns every port of every program: process, prefix, and the program's description of the port.
pub(super) fn everything() -> Vec<(u32, String, Listed)> {
    let of = |Program { path, prefix, pid }: Program| {
        // A program that ended in the meantime has no ports.
        let ports = Client::connect(&path).and_then(|client| client.list()).unwrap_or_default();
        ports.into_iter().map(move |port| (pid, prefix.clone(), port)).collect::<Vec<_>>()
    };
    programs(None).into_iter().flat_map(of).collect()
}
