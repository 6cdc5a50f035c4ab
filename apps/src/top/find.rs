//! The programs with a telemetry socket, and the selection of one.

use std::path::{Path, PathBuf};

use linecard::telemetry;

use super::client::Client;
use crate::error::Error;

/// A program that answers.
struct Program {
    client: Client,
    prefix: String,
}

/// Returns the programs of this user; sockets without a program are skipped.
fn programs(prefix: Option<&str>) -> Vec<Program> {
    let root = telemetry::folder("");
    let prefixes = match prefix {
        Some(prefix) => vec![prefix.to_owned()],
        None => names(&root),
    };
    let sockets = prefixes.into_iter().flat_map(|prefix| {
        let folder = root.join(&prefix);
        let names = names(&folder).into_iter().filter(|name| name.starts_with("dpdk_telemetry.v2"));
        names.map(move |name| (prefix.clone(), folder.join(name))).collect::<Vec<(String, PathBuf)>>()
    });
    sockets
        .filter_map(|(prefix, path)| Some(Program { client: Client::connect(&path).ok()?, prefix }))
        .collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// Connects to the one program that matches.
pub(super) fn program(prefix: Option<&str>, pid: Option<u32>) -> Result<Client, Error> {
    let mut all = programs(prefix);
    all.retain(|program| pid.is_none_or(|pid| program.client.pid == pid));
    if all.len() > 1 {
        let names: Vec<_> = all.iter().map(|one| format!("{} ({})", one.client.pid, one.prefix)).collect();
        return Err(Error::Usage(format!(
            "{} programs run: {}; say which with --pid or --file-prefix",
            all.len(),
            names.join(", ")
        )));
    }
    all.pop().map(|program| program.client).ok_or_else(|| nobody(prefix, pid))
}

fn nobody(prefix: Option<&str>, pid: Option<u32>) -> Error {
    let which = match (prefix, pid) {
        (_, Some(pid)) => format!("no program {pid} with telemetry runs"),
        (Some(prefix), None) => format!("no program with telemetry and --file-prefix {prefix} runs"),
        (None, None) => "no program with telemetry runs".into(),
    };
    Error::Failed(format!(
        "{which} as this user; start one, as in `linecard testpmd --vdev net_null0 -- -i`, or have a program of your own \
         call linecard::telemetry::serve"
    ))
}
