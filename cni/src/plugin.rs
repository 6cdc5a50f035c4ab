//! One invocation of the plugin: its input, its command, its output.

use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::config::{Config, MAX_CONFIG, object};
use crate::environment::{Attachment, Command, Environment};
use crate::error::{Code, Error};
use crate::exec::{Run, find_plugin};
use crate::state::State;
use crate::switch::Switch;
use crate::version::Version;

/// The standard output of an invocation, and whether it succeeded.
///
/// ```
/// let lookup = |name: &str| (name == "CNI_COMMAND").then(|| "VERSION".into());
/// let output = linecard_cni::invoke(lookup, &br#"{"cniVersion": "1.0.0"}"#[..]);
/// assert!(output.success);
/// let answer: serde_json::Value = serde_json::from_str(&output.stdout)?;
/// assert_eq!(answer["supportedVersions"][4], "1.1.0");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// A result, an error, or nothing.
    pub stdout: String,
    /// The plugin exits with 0 if true, with 1 otherwise.
    pub success: bool,
}

/// Carries out the request of a runtime: variables, which `lookup` returns, and a configuration on `stdin`.
pub fn invoke(lookup: impl Fn(&str) -> Option<OsString>, stdin: impl Read) -> Output {
    let mut version = Version::NEWEST.as_str().to_owned();
    let outcome = run(lookup, stdin, &mut version);
    let written = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
    match outcome {
        Ok(None) => Output { stdout: String::new(), success: true },
        Ok(Some(result)) => Output { stdout: written(&result), success: true },
        Err(error) => Output { stdout: written(&error.to_json(&version)), success: false },
    }
}

fn run(
    lookup: impl Fn(&str) -> Option<OsString>,
    stdin: impl Read,
    version: &mut String,
) -> Result<Option<Value>, Error> {
    let mut input = Vec::new();
    let read = stdin.take(MAX_CONFIG as u64 + 1).read_to_end(&mut input);
    // Any error is reported in the requested version.
    if let Some(asked) = asked_version(&input) {
        *version = asked;
    }
    let environment = Environment::read(lookup)?;
    read.map_err(|error| {
        Error::io("reading the network configuration", &error, "pass it on standard input")
    })?;
    if environment.command == Command::Version {
        return supported(&input).map(Some);
    }
    let plugin = Plugin { config: Config::read(&input, &environment)?, environment };
    plugin.check_version()?;
    match plugin.environment.command {
        Command::Add => plugin.add().map(Some),
        Command::Del => plugin.del().map(|()| None),
        Command::Check => plugin.check().map(|()| None),
        Command::Status => plugin.status().map(|()| None),
        Command::Gc => plugin.gc().map(|()| None),
        Command::Version => Ok(None),
    }
}

fn asked_version(input: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(input).ok()?;
    let text = value.get("cniVersion")?.as_str()?;
    Version::parse(text).ok().map(|version| version.as_str().to_owned())
}

/// The answer to VERSION, whatever version the question has.
fn supported(input: &[u8]) -> Result<Value, Error> {
    let asked = match input.iter().all(u8::is_ascii_whitespace) {
        true => None,
        false => object(input)?.get("cniVersion").and_then(Value::as_str).map(str::to_owned),
    };
    Ok(json!({
        "cniVersion": asked.as_deref().unwrap_or(Version::NEWEST.as_str()),
        "supportedVersions": Version::ALL.map(Version::as_str),
    }))
}

/// A checked invocation.
#[derive(Debug)]
pub(crate) struct Plugin {
    pub(crate) config: Config,
    pub(crate) environment: Environment,
}

impl Plugin {
    /// Checks that the requested version has the command.
    fn check_version(&self) -> Result<(), Error> {
        let (known, since) = match self.environment.command {
            Command::Check => (self.config.version.has_check(), Version::V0_4_0),
            Command::Gc | Command::Status => (self.config.version.has_gc(), Version::V1_1_0),
            _ => return Ok(()),
        };
        match known {
            true => Ok(()),
            false => Err(Error::new(
                Code::IncompatibleVersion,
                format!(
                    "cniVersion {} has no {}",
                    self.config.version.as_str(),
                    self.environment.command.as_str()
                ),
                format!("use {} or newer in the network configuration", since.as_str()),
            )),
        }
    }

    /// The attachment of the command; [`Environment::read`] ensures that there is one.
    pub(crate) fn attachment(&self) -> Result<&Attachment, Error> {
        self.environment.attachment.as_ref().ok_or_else(|| {
            Error::new(Code::Environment, "CNI_CONTAINERID and CNI_IFNAME must be set", "set both")
        })
    }

    fn status(&self) -> Result<(), Error> {
        Switch::connect(&self.config.switch)?.ping()?;
        let unable = |error: Error| Error::new(Code::NotAvailable, error.msg, error.details);
        State::open(&self.config.state_dir).map_err(unable)?;
        self.delegate(Command::Status, None).map(drop)
    }

    /// The path of the IPAM plugin, if one is configured.
    pub(crate) fn find_ipam(&self) -> Result<Option<PathBuf>, Error> {
        self.config.ipam.as_ref().map(|name| find_plugin(name, &self.environment.path)).transpose()
    }

    /// Runs the IPAM plugin, if one is configured; for the attachment `instead`, if given, and not the one in
    /// the environment.
    pub(crate) fn delegate(&self, command: Command, instead: Option<&Attachment>) -> Result<Value, Error> {
        let (Some(name), Some(program)) = (&self.config.ipam, self.find_ipam()?) else {
            return Ok(Value::Null);
        };
        let mut run = Run::new(program, command).input(&self.config.raw);
        for (name, value) in &self.environment.raw {
            run = run.variable(name, value);
        }
        if let Some(attachment) = instead {
            run = run.variable("CNI_CONTAINERID", attachment.container());
            run = run.variable("CNI_IFNAME", attachment.ifname()).variable("CNI_NETNS", "");
        }
        run.run()?.result(name)
    }
}
