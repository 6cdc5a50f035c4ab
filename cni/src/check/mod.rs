//! A test of any CNI plugin against the specification.
//!
//! To check a rule, the plugin is run as a runtime would, in a network namespace that stands for the host,
//! with containers that are namespaces too. A plugin either makes interfaces or assigns addresses (IPAM);
//! which of the two follows from its configuration.

mod address;
mod errors;
mod interface;
mod layout;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::environment::Command;
use crate::error::Error;
use crate::exec::{Answer, Run};
use crate::sandbox::Sandbox;
use crate::version::Version;

/// The role in which a plugin is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It creates an interface in a container.
    Interface,
    /// It assigns addresses for another plugin.
    Ipam,
}

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The plugin follows the rule.
    Pass,
    /// The rule could not be checked; `why` says why.
    Skipped,
    /// The plugin does not follow a recommendation ("should") of the specification.
    Warning,
    /// The plugin does not follow a requirement of the specification.
    Failure,
}

/// The outcome of one rule.
///
/// ```
/// use linecard_cni::check::{Finding, Verdict};
/// let finding = Finding { rule: "DEL-2", version: Some("1.0.0"), verdict: Verdict::Pass, about: "DEL twice".into(), why: String::new() };
/// assert_eq!(finding.to_string(), "pass     DEL-2    1.0.0  DEL twice");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The name of the rule, which never changes.
    pub rule: &'static str,
    /// The version of the specification in which the plugin was called.
    pub version: Option<&'static str>,
    /// The outcome.
    pub verdict: Verdict,
    /// What was checked.
    pub about: String,
    /// The problem, or why it was skipped; empty after a pass.
    pub why: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Pass => "pass",
            Verdict::Skipped => "skipped",
            Verdict::Warning => "warning",
            Verdict::Failure => "FAILURE",
        };
        write!(f, "{verdict:8} {:8} {:6} {}", self.rule, self.version.unwrap_or("any"), self.about)?;
        if self.why.is_empty() { Ok(()) } else { write!(f, ": {}", self.why) }
    }
}

/// The plugin to check.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The program.
    pub program: PathBuf,
    /// Its configuration, without `cniVersion`.
    pub config: Value,
    /// The folders in which it finds other plugins.
    pub path: Vec<PathBuf>,
    /// Its role.
    pub role: Role,
}

impl Subject {
    /// The plugin `program` with `config`, or with a configuration suitable for a plugin of that name.
    ///
    /// ```
    /// use linecard_cni::check::{Role, Subject};
    /// assert_eq!(Subject::new("/usr/lib/cni/host-local", None).role, Role::Ipam);
    /// assert_eq!(Subject::new("/usr/lib/cni/bridge", None).role, Role::Interface);
    /// ```
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, config: Option<Value>) -> Self {
        let program = program.into();
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut config = config.unwrap_or_else(|| usual_config(&name));
        if let Some(object) = config.as_object_mut() {
            object.entry("name").or_insert_with(|| "linecard-check".into());
            object.entry("type").or_insert_with(|| name.clone().into());
        }
        let gives_addresses = config["ipam"]["type"] == name.as_str() && config["type"] == name.as_str()
            || matches!(name.as_str(), "host-local" | "static" | "dhcp");
        let role = if gives_addresses { Role::Ipam } else { Role::Interface };
        let path = program.parent().map(PathBuf::from).into_iter().collect();
        Self { program, config, path, role }
    }
}

/// A configuration with which a plugin of that name works.
fn usual_config(name: &str) -> Value {
    let ranges = json!([[{"subnet": "10.245.7.0/29"}]]);
    match name {
        "host-local" => json!({"ipam": {"type": "host-local", "ranges": ranges}}),
        "static" => json!({"ipam": {"type": "static", "addresses": [{"address": "10.245.7.2/29"}]}}),
        "bridge" => json!({"bridge": "lccheck0", "isGateway": true, "ipam": {"type": OUR_IPAM}}),
        _ => json!({"ipam": {"type": OUR_IPAM}}),
    }
}

/// The IPAM plugin of the check, which records its calls.
const OUR_IPAM: &str = "linecard-check-ipam";
/// How long a plugin may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Checks every rule; returns the findings in order.
///
/// # Errors
/// The check itself cannot run here.
pub fn check(subject: &Subject) -> Result<Vec<Finding>, Error> {
    let mut bench = Bench::new(subject)?;
    let versions = errors::versions(&mut bench);
    errors::check(&mut bench, &versions);
    for version in &versions {
        bench.version = Some(*version);
        match subject.role {
            Role::Interface => interface::check(&mut bench)?,
            Role::Ipam => address::check(&mut bench)?,
        }
    }
    Ok(bench.findings)
}

/// The environment in which the plugin is run, and the findings.
struct Bench<'a> {
    subject: &'a Subject,
    host: Sandbox,
    folder: Folder,
    version: Option<Version>,
    findings: Vec<Finding>,
}

/// A folder that is removed when this is dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The attachment of a command.
#[derive(Clone, Copy)]
struct On<'a> {
    container: &'a str,
    netns: Option<&'a str>,
}

const IFNAME: &str = "eth7";

impl<'a> Bench<'a> {
    fn new(subject: &'a Subject) -> Result<Self, Error> {
        let host = Sandbox::new()?;
        let unique = format!("linecard-cni-check-{}-{:?}", std::process::id(), std::thread::current().id());
        let folder = Folder(std::env::temp_dir().join(unique.replace(['(', ')'], "")));
        std::fs::create_dir_all(&folder.0).map_err(|error| {
            Error::io(
                format!("making the folder {}", folder.0.display()),
                &error,
                "set TMPDIR to another one",
            )
        })?;
        interface::write_ipam(&folder.0)?;
        Ok(Self { subject, host, folder, version: None, findings: Vec::new() })
    }

    /// The configuration, in the current version.
    fn config(&self) -> Value {
        let mut config = self.subject.config.clone();
        config["cniVersion"] = self.version.map_or("1.0.0", Version::as_str).into();
        // Keeps the plugin's data on disk apart from that of other runs.
        if config["ipam"]["type"] == "host-local" && config["ipam"]["dataDir"].is_null() {
            config["ipam"]["dataDir"] = self.folder.0.join("host-local").to_string_lossy().into();
        }
        config
    }

    fn base(&self, command: &str) -> Run {
        let mut path = vec![self.folder.0.clone()];
        path.extend(self.subject.path.iter().cloned());
        let path = std::env::join_paths(path).unwrap_or_default();
        Run::with_command(&self.subject.program, command)
            .without("CNI_CONTAINERID")
            .without("CNI_NETNS")
            .without("CNI_IFNAME")
            .without("CNI_ARGS")
            .variable("CNI_PATH", path)
            .keep_stderr()
            .limit(LIMIT)
    }

    /// Runs the plugin in the host's namespace.
    fn run(&self, run: Run) -> Answer {
        let answer = self.host.run(|| run.run()).and_then(|answer| answer);
        answer.unwrap_or_else(|error| Answer {
            success: false,
            stdout: Vec::new(),
            stderr: error.to_string(),
            status: "not run".into(),
        })
    }

    /// Runs a command for an attachment.
    fn on(&self, command: Command, on: On<'_>, config: &Value) -> Answer {
        let mut run = self.base(command.as_str()).input(config.to_string().as_bytes());
        run = run.variable("CNI_CONTAINERID", on.container).variable("CNI_IFNAME", IFNAME);
        if let Some(netns) = on.netns {
            run = run.variable("CNI_NETNS", netns);
        }
        self.run(run)
    }

    fn tell(&mut self, rule: &'static str, about: &str, outcome: Outcome) {
        let (verdict, why) = match outcome {
            Ok(()) => (Verdict::Pass, String::new()),
            Err((verdict, why)) => (verdict, why),
        };
        let version = self.version.map(Version::as_str);
        self.findings.push(Finding { rule, version, verdict, about: about.into(), why });
    }
}

/// `Err` says how serious the deviation is, and why.
type Outcome = Result<(), (Verdict, String)>;

fn must(kept: bool, why: impl Into<String>) -> Outcome {
    if kept { Ok(()) } else { Err((Verdict::Failure, why.into())) }
}

fn should(kept: bool, why: impl Into<String>) -> Outcome {
    if kept { Ok(()) } else { Err((Verdict::Warning, why.into())) }
}

fn skipped(why: impl Into<String>) -> Outcome {
    Err((Verdict::Skipped, why.into()))
}

/// The plugin's answer for people: its error, or the beginning of its output.
fn said(answer: &Answer) -> String {
    let text = match answer.result("it") {
        Ok(_) => String::from_utf8_lossy(&answer.stdout).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    let text = if text.is_empty() { answer.stderr.trim().to_owned() } else { text };
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(160).collect();
    format!("{}; it said: {line}", answer.status)
}

/// The error object of a plugin that failed.
fn error_of(answer: &Answer) -> Result<Value, (Verdict, String)> {
    must(!answer.success, format!("it should fail, and does not: {}", said(answer)))?;
    let value: Value = serde_json::from_slice(&answer.stdout)
        .map_err(|_| (Verdict::Warning, format!("it fails without an error object ({})", said(answer))))?;
    should(
        value["code"].is_u64() && value["msg"].is_string(),
        format!("its error has no code or msg: {value}"),
    )?;
    Ok(value)
}
