//! `linecard switch ctl upgrade`: starts a new program that takes over from the running switch.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use linecard_switch::api::Client;

use super::ctl::print;
use crate::error::Error;
use crate::output::Output;

/// The option with which a successor is started.
const TAKE_OVER: &str = "--take-over";
/// The variable with the service manager's socket.
const MANAGER: &str = "NOTIFY_SOCKET";
/// The beginning of the last line that a switch prints when it has started.
const STARTED: &str = "switching;";
/// The interval of checks whether a program that closed its output has ended.
const LOOK: Duration = Duration::from_millis(10);

/// The outcome of starting a new program.
enum Outcome {
    Started,
    Ended,
    /// It prints nothing, and has not ended.
    Silent,
}

/// Lets `program`, or this one, take over from the switch that `client` is connected to, and prints its
/// output. A program that prints nothing for `patience` is killed.
///
/// # Errors
/// The program cannot be started or does not take over; the earlier switch continues.
pub(super) fn run(
    client: &mut Client,
    output: &mut Output,
    json: bool,
    program: Option<&Path>,
    patience: Duration,
) -> Result<(), Error> {
    let (pid, said) = replace(client, program, patience)?;
    let answer = serde_json::json!({ "pid": pid, "said": said });
    print(output, json, &answer, || said.join("\n") + "\n");
    Ok(())
}

/// Returns the new process and its output.
fn replace(
    client: &mut Client,
    program: Option<&Path>,
    patience: Duration,
) -> Result<(u32, Vec<String>), Error> {
    let system = |action: &str| {
        let action = action.to_owned();
        move |source| Error::System {
            action,
            source,
            remedy: "start the new program by hand, with --take-over",
        }
    };
    let pid = client.version()?.pid;
    let process = PathBuf::from(format!("/proc/{pid}"));
    let owner =
        std::fs::metadata(&process).map_err(system("the process of the switch cannot be looked at"))?.uid();
    let own = rustix::process::geteuid().as_raw();
    if owner != own {
        // The command line is under that user's control, and would be carried out with this user's rights.
        return Err(Error::Failed(format!(
            "the switch runs as user {owner}, and this command as user {own}; run it as that user"
        )));
    }
    let line = std::fs::read(process.join("cmdline"))
        .map_err(system("the command line of the switch cannot be read"))?;
    let folder =
        std::fs::read_link(process.join("cwd")).map_err(system("the folder of the switch cannot be read"))?;
    let program = match program {
        Some(program) => std::path::absolute(program),
        None => std::env::current_exe(),
    };
    let program = program.map_err(system("the new program cannot be found"))?;
    let mut child = Command::new(&program)
        .args(arguments(&line))
        // The service manager of the switch, which also keeps its ports.
        .envs(manager(&process).map(|name| (MANAGER, name)))
        .current_dir(folder)
        // Signals from the terminal to this command must not reach the switch.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|source| Error::System {
            action: format!("{} cannot be started", program.display()),
            source,
            remedy: "name a program with --exec; the switch goes on as it was",
        })?;
    let mut said = Vec::new();
    let outcome =
        listen(&mut child, patience, &mut said).map_err(system("the new program cannot be heard"))?;
    let failed = |what: String, remedy: &str| {
        let program = program.display();
        Err(Error::Failed(format!("{program} {what}, and the switch goes on as it was; {remedy}")))
    };
    match outcome {
        Outcome::Started => Ok((child.id(), said)),
        Outcome::Ended => {
            let status = child.wait().map_err(system("the new program cannot be waited for"))?;
            failed(format!("did not take over ({status})"), "what it said before tells why")
        }
        // A program that has taken over is the switch, even if it prints nothing.
        Outcome::Silent if client.version().is_ok_and(|version| version.pid == pid) => {
            end(&mut child);
            let said_nothing = format!("said nothing for {} s and was ended", patience.as_secs());
            failed(said_nothing, "if it needs longer to start, give it a longer --timeout")
        }
        Outcome::Silent => Err(Error::Failed(format!(
            "the earlier switch answers no more, and process {} ({}) does not say that it has taken over; ask it by `linecard switch ctl version`",
            child.id(),
            program.display()
        ))),
    }
}

/// Reads the output of a program until it has started, has ended, or has printed nothing for `patience`.
fn listen(child: &mut Child, patience: Duration, said: &mut Vec<String>) -> std::io::Result<Outcome> {
    let (tell, lines) = channel();
    let stdout = child.stdout.take();
    // The thread ends with the pipe, or with this process.
    std::thread::Builder::new().name("listener".into()).spawn(move || {
        let mut lines = stdout.map(BufReader::new).into_iter().flat_map(BufRead::lines);
        lines.try_for_each(|line| tell.send(line))
    })?;
    loop {
        match lines.recv_timeout(patience) {
            Ok(line) => said.push(line?),
            Err(RecvTimeoutError::Timeout) => return Ok(Outcome::Silent),
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if said.last().is_some_and(|line| line.starts_with(STARTED)) {
            return Ok(Outcome::Started);
        }
    }
    let until = Instant::now() + patience;
    while child.try_wait()?.is_none() {
        if Instant::now() > until {
            return Ok(Outcome::Silent);
        }
        std::thread::sleep(LOOK);
    }
    Ok(Outcome::Ended)
}

/// Kills a program and its children, which are one process group.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    let ended = group.map(|group| rustix::process::kill_process_group(group, rustix::process::Signal::KILL));
    if !matches!(ended, Some(Ok(()))) {
        let _ = child.kill();
    }
    let _ = child.wait();
}

/// The service manager of the process with this folder in `/proc`.
fn manager(process: &Path) -> Option<OsString> {
    let variables = std::fs::read(process.join("environ")).ok()?;
    variables.split(|byte| *byte == 0).find_map(|variable| {
        let name = variable.strip_prefix(MANAGER.as_bytes())?.strip_prefix(b"=")?;
        Some(OsStr::from_bytes(name).to_owned())
    })
}

/// The arguments for a successor of the process with the command line `line`, as /proc shows it.
fn arguments(line: &[u8]) -> Vec<OsString> {
    let words = line.strip_suffix(b"\0").unwrap_or(line).split(|byte| *byte == 0).skip(1);
    let kept = words.filter(|word| *word != TAKE_OVER.as_bytes());
    kept.map(|word| OsStr::from_bytes(word).to_owned()).chain([TAKE_OVER.into()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_is_started_as_its_predecessor_was() {
        let line = b"/usr/bin/linecard\0switch\0--port\0/a b.sock,key=\0\0--take-over\0--tap\0lc0\0";
        let want = ["switch", "--port", "/a b.sock,key=", "", "--tap", "lc0", "--take-over"];
        assert_eq!(arguments(line), want.map(OsString::from));
    }
}
