//! Running another plugin: lookup, environment, input, answer.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::environment::{Command, excerpt};
use crate::error::{Code, Error};

/// The maximum number of bytes of an answer.
const MAX_ANSWER: u64 = 4 << 20;
/// The interval between checks whether a plugin has ended.
const LOOK: Duration = Duration::from_millis(1);
/// How long to wait for output that is still in a pipe when a plugin has ended.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// One run of a plugin.
///
/// ```no_run
/// use linecard_cni::{Command, Run};
/// let version = Run::new("/usr/lib/cni/bridge", Command::Version).input(br#"{"cniVersion": "1.0.0"}"#).run()?;
/// assert!(version.success);
/// # Ok::<(), linecard_cni::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Run {
    program: PathBuf,
    variables: Vec<(OsString, Option<OsString>)>,
    input: Vec<u8>,
    quiet: bool,
    limit: Option<Duration>,
}

/// The answer of a plugin.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The plugin exited with 0.
    pub success: bool,
    /// The standard output.
    pub stdout: Vec<u8>,
    /// The standard error, if it was kept.
    pub stderr: String,
    /// The exit status, as text.
    pub status: String,
}

impl Run {
    /// A run of `program` for `command`; other variables are inherited.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, command: Command) -> Self {
        Self::with_command(program, command.as_str())
    }

    /// A run with any `CNI_COMMAND`, even an unknown one.
    #[must_use]
    pub fn with_command(program: impl Into<PathBuf>, command: &str) -> Self {
        let run = Self {
            program: program.into(),
            variables: Vec::new(),
            input: Vec::new(),
            quiet: false,
            limit: None,
        };
        run.variable("CNI_COMMAND", command)
    }

    /// Sets a variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), Some(value.into())));
        self
    }

    /// Removes a variable.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.variables.push((name.into(), None));
        self
    }

    /// Sets the standard input of the plugin.
    #[must_use]
    pub fn input(mut self, bytes: &[u8]) -> Self {
        self.input = bytes.to_vec();
        self
    }

    /// Captures standard error instead of passing it on.
    #[must_use]
    pub fn keep_stderr(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Kills the plugin if it takes longer than `limit`.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Runs the plugin to its end.
    ///
    /// # Errors
    /// Code 5: the plugin cannot be started.
    pub fn run(self) -> Result<Answer, Error> {
        let mut process = Process::new(&self.program);
        for (name, value) in &self.variables {
            match value {
                Some(value) => process.env(name, value),
                None => process.env_remove(name),
            };
        }
        let stderr = if self.quiet { Stdio::piped() } else { Stdio::inherit() };
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        let failed = |error: &std::io::Error| {
            Error::io(
                format!("running {}", self.program.display()),
                error,
                "see that it is a program for this machine",
            )
        };
        let mut child = process.spawn().map_err(|error| failed(&error))?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let input = self.input;
        // Writing in a separate thread: a plugin that does not read its input still answers.
        std::thread::spawn(move || stdin.map(|mut pipe| pipe.write_all(&input)));
        let (stdout, stderr) = (collect(stdout), collect(stderr));
        let status = match self.limit {
            None => child.wait(),
            Some(limit) => wait(&mut child, limit),
        };
        let status = status.map_err(|error| failed(&error))?;
        // Child processes that it left behind may keep its output open; with a limit they are not waited for.
        let take = |bytes: Receiver<Vec<u8>>| match self.limit {
            None => bytes.recv().unwrap_or_default(),
            Some(_) => bytes.recv_timeout(LAST_WORDS).unwrap_or_default(),
        };
        Ok(Answer {
            success: status.success(),
            stdout: take(stdout),
            stderr: String::from_utf8_lossy(&take(stderr)).into_owned(),
            status: status.to_string(),
        })
    }
}

/// Waits for `child`, and kills it if it takes longer than `limit`.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<ExitStatus> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(LOOK);
    }
    child.kill()?;
    child.wait()
}

/// Reads `pipe` to its end in a separate thread.
fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, bytes) = mpsc::channel();
    std::thread::spawn(move || sender.send(read(pipe)));
    bytes
}

fn read(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    // The bytes read before an error are kept.
    let _ = pipe.map(|pipe| pipe.take(MAX_ANSWER).read_to_end(&mut bytes));
    bytes
}

impl Answer {
    /// Parses the result on standard output, or the error that the plugin reported.
    ///
    /// # Errors
    /// The plugin's own code and message; code 6 if its output is not JSON.
    pub fn result(&self, plugin: &str) -> Result<Value, Error> {
        let text = String::from_utf8_lossy(&self.stdout);
        if self.success {
            if text.trim().is_empty() {
                return Ok(Value::Null);
            }
            return serde_json::from_slice(&self.stdout).map_err(|error| {
                let problem = format!("plugin {plugin} answered '{}': {error}", excerpt(text.trim()));
                Error::new(Code::Decode, problem, "it should write JSON; report it to its authors")
            });
        }
        let told: Value = serde_json::from_slice(&self.stdout).unwrap_or_default();
        let field = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
        let code = told["code"].as_u64().and_then(|code| u32::try_from(code).ok());
        Err(match code {
            Some(code) => {
                Error::new(Code::Other(code), format!("plugin {plugin}: {}", field("msg")), field("details"))
            }
            None => Error::new(
                Code::Other(999),
                format!(
                    "plugin {plugin} failed without an error object ({}): '{}'",
                    self.status,
                    excerpt(text.trim())
                ),
                "see its messages on standard error",
            ),
        })
    }
}

/// Finds the program of the plugin `name` in the folders `path`.
///
/// ```
/// let problem = linecard_cni::find_plugin("bridge", &["/no/such/folder".into()]).expect_err("not there");
/// assert!(problem.msg.contains("plugin 'bridge' is not in /no/such/folder"));
/// ```
///
/// # Errors
/// Code 7: it is in none of the folders.
pub fn find_plugin(name: &str, path: &[PathBuf]) -> Result<PathBuf, Error> {
    use std::os::unix::fs::PermissionsExt;
    let is_program = |path: &Path| {
        path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let folders = path.iter().filter(|folder| folder.is_absolute());
    let found = folders.map(|folder| folder.join(name)).find(|path| is_program(path));
    found.ok_or_else(|| {
        let list: Vec<_> = path.iter().map(|folder| folder.display().to_string()).collect();
        let list = if list.is_empty() { "CNI_PATH, which is empty".into() } else { list.join(", ") };
        Error::config(
            format!("plugin '{}' is not in {list}", excerpt(name)),
            "install it there (Debian: containernetworking-plugins), or add its folder to CNI_PATH",
        )
    })
}
