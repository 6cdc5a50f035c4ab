//! The `CNI_…` variables, checked before anything else is done.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error};

/// The maximum length of a container ID, in bytes: with the name of an interface it has to fit a file name.
/// Runtimes use 64.
pub const MAX_CONTAINER_ID: usize = 200;
/// The maximum length of an interface name, in bytes (`IFNAMSIZ` without the final zero).
pub const MAX_IFNAME: usize = 15;

/// `CNI_COMMAND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Attach a container to the network.
    Add,
    /// Detach it.
    Del,
    /// Check that it is attached as ADD left it.
    Check,
    /// Check whether ADD would work.
    Status,
    /// Remove everything that belongs to no valid attachment.
    Gc,
    /// List the supported versions.
    Version,
}

impl Command {
    /// Returns the value of `CNI_COMMAND`.
    ///
    /// ```
    /// assert_eq!(linecard_cni::Command::Gc.as_str(), "GC");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Status => "STATUS",
            Self::Gc => "GC",
            Self::Version => "VERSION",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Add, Self::Del, Self::Check, Self::Status, Self::Gc, Self::Version]
            .into_iter()
            .find(|command| command.as_str() == text)
    }

    const fn is_about_an_attachment(self) -> bool {
        matches!(self, Self::Add | Self::Del | Self::Check)
    }

    /// Whether it only removes, and so has to succeed after an ADD that was refused.
    pub(crate) const fn removes(self) -> bool {
        matches!(self, Self::Del | Self::Gc)
    }
}

/// The identity of an attachment: a container and an interface in it. Its [`Display`](fmt::Display) form,
/// `<container>@<ifname>`, is the name of the switch's port and a file name: it has no `/`, and it is unique
/// because a container ID has no `@`.
///
/// ```
/// use linecard_cni::Attachment;
/// assert_eq!(Attachment::new("box", "net1")?.to_string(), "box@net1");
/// assert!(Attachment::new("../box", "net1").is_err());
/// assert!(Attachment::new("box", "../net1").is_err());
/// # Ok::<(), linecard_cni::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attachment {
    container: String,
    ifname: String,
}

impl Attachment {
    /// The attachment of `ifname` in `container`.
    ///
    /// # Errors
    /// Code 4: the specification does not allow that container ID, or Linux does not allow that name.
    pub fn new(container: &str, ifname: &str) -> Result<Self, Error> {
        check_container(container)?;
        check_ifname(ifname)?;
        Ok(Self { container: container.into(), ifname: ifname.into() })
    }

    /// Returns the ID of the container.
    #[must_use]
    pub fn container(&self) -> &str {
        &self.container
    }

    /// Returns the name of the interface.
    #[must_use]
    pub fn ifname(&self) -> &str {
        &self.ifname
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.container, self.ifname)
    }
}

/// The input of a runtime in environment variables.
///
/// ```
/// use linecard_cni::{Command, Environment};
/// let lookup = |name: &str| match name {
///     "CNI_COMMAND" => Some("STATUS".into()),
///     "CNI_PATH" => Some("/usr/lib/cni".into()),
///     _ => None,
/// };
/// let environment = Environment::read(lookup)?;
/// assert_eq!(environment.command, Command::Status);
/// # Ok::<(), linecard_cni::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// The command.
    pub command: Command,
    /// The attachment, for ADD, DEL and CHECK.
    pub attachment: Option<Attachment>,
    /// The network namespace of the container; `None` if the runtime gave none.
    pub netns: Option<PathBuf>,
    /// `CNI_ARGS`, by key; empty for DEL and GC, which use what ADD recorded.
    pub args: BTreeMap<String, String>,
    /// The folders in which plugins are looked up.
    pub path: Vec<PathBuf>,
    /// The variables unchanged, for delegated plugins.
    pub(crate) raw: Vec<(&'static str, OsString)>,
}

/// The variables that a delegated plugin gets besides its command.
const PASSED_ON: [&str; 5] = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH"];

impl Environment {
    /// Reads the variables with `lookup`, which is [`std::env::var_os`] in a plugin. For VERSION only the
    /// command is read, because runtimes fill the others with placeholders.
    ///
    /// # Errors
    /// Code 4, with the names of the variables that are missing or invalid.
    pub fn read(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let text = |name: &'static str| match lookup(name).map(OsString::into_string) {
            None => Ok(String::new()),
            Some(Ok(text)) => Ok(text),
            Some(Err(_)) => Err(environment(format!("{name} is not UTF-8"), "set it to plain text")),
        };
        let command = text("CNI_COMMAND")?;
        let command = Command::parse(&command).ok_or_else(|| {
            let problem = match command.is_empty() {
                true => "CNI_COMMAND is not set".into(),
                false => format!("CNI_COMMAND is '{}'", excerpt(&command)),
            };
            environment(problem, "set it to ADD, DEL, CHECK, STATUS, GC or VERSION")
        })?;
        let raw = PASSED_ON.into_iter().filter_map(|name| Some((name, lookup(name)?))).collect();
        let nothing =
            Self { command, attachment: None, netns: None, args: BTreeMap::new(), path: Vec::new(), raw };
        if command == Command::Version {
            return Ok(nothing);
        }
        let required: &[&'static str] = match command {
            Command::Add | Command::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Command::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Command::Gc => &["CNI_PATH"],
            _ => &[],
        };
        let mut missing = Vec::new();
        for name in required {
            if text(name)?.is_empty() {
                missing.push(*name);
            }
        }
        if !missing.is_empty() {
            let names = missing.join(", ");
            return Err(environment(
                format!("{names} must be set for {}", command.as_str()),
                "see the CNI specification, section 2",
            ));
        }
        let attachment = match command.is_about_an_attachment() {
            true => Some(Attachment::new(&text("CNI_CONTAINERID")?, &text("CNI_IFNAME")?)?),
            false => None,
        };
        let netns = lookup("CNI_NETNS").filter(|path| !path.is_empty()).map(PathBuf::from);
        let path = lookup("CNI_PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
        let args = if command.removes() { BTreeMap::new() } else { args(&text("CNI_ARGS")?)? };
        Ok(Self { attachment, netns, args, path, ..nothing })
    }
}

fn environment(msg: impl Into<String>, details: impl Into<String>) -> Error {
    Error::new(Code::Environment, msg, details)
}

/// The beginning of a text from outside, for a message.
pub(crate) fn excerpt(text: &str) -> String {
    let mut shown = String::new();
    for char in text.chars().take(40) {
        match char {
            // Kept because JSON in a message contains them, with its own escapes.
            '"' | '\'' => shown.push(char),
            _ => shown.extend(char.escape_default()),
        }
    }
    match text.chars().nth(40) {
        Some(_) => format!("{shown}…"),
        None => shown,
    }
}

fn check_container(id: &str) -> Result<(), Error> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if !id.starts_with(|c: char| c.is_ascii_alphanumeric()) || !id.chars().all(legal) {
        return Err(environment(
            format!("CNI_CONTAINERID is '{}'", excerpt(id)),
            "use letters, digits, '_', '.' and '-', beginning with a letter or digit",
        ));
    }
    if id.len() > MAX_CONTAINER_ID {
        return Err(environment(
            format!("CNI_CONTAINERID has {} bytes", id.len()),
            format!("use at most {MAX_CONTAINER_ID}"),
        ));
    }
    Ok(())
}

fn check_ifname(name: &str) -> Result<(), Error> {
    let illegal = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > MAX_IFNAME || name == "." || name == ".." || name.contains(illegal) {
        return Err(environment(
            format!("CNI_IFNAME is '{}', {} bytes", excerpt(name), name.len()),
            format!("use 1 to {MAX_IFNAME} bytes without '/', ':' and spaces"),
        ));
    }
    Ok(())
}

fn args(text: &str) -> Result<BTreeMap<String, String>, Error> {
    let pairs = text.split(';').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                let problem = format!("CNI_ARGS has '{}', which is no KEY=VALUE", excerpt(pair));
                environment(problem, "separate pairs by ';'")
            })?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Environment, Error> {
        Environment::read(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn what_is_missing_or_unusable_is_named() {
        let long = "a".repeat(65_536);
        for (pairs, part) in [
            (&[][..], "CNI_COMMAND is not set"),
            (&[("CNI_COMMAND", "add")], "CNI_COMMAND is 'add'"),
            (&[("CNI_COMMAND", "ADD")], "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME must be set for ADD"),
            (
                &[("CNI_COMMAND", "ADD"), ("CNI_IFNAME", "e"), ("CNI_NETNS", "/x")],
                "CNI_CONTAINERID must be set",
            ),
            (&[("CNI_COMMAND", "DEL")], "CNI_CONTAINERID, CNI_IFNAME must be set for DEL"),
            (&[("CNI_COMMAND", "GC")], "CNI_PATH must be set"),
            (
                &[("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "../a"), ("CNI_IFNAME", "e")],
                "CNI_CONTAINERID is '../a'",
            ),
            (&[("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "-a"), ("CNI_IFNAME", "e")], "CNI_CONTAINERID is"),
            (
                &[("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", &long), ("CNI_IFNAME", "e")],
                "CNI_CONTAINERID has 65536 bytes",
            ),
            (
                &[("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "a"), ("CNI_IFNAME", &long)],
                "CNI_IFNAME is 'aaa",
            ),
            (&[("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "a"), ("CNI_IFNAME", "..")], "CNI_IFNAME is '..'"),
            (&[("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "a"), ("CNI_IFNAME", "a/b")], "CNI_IFNAME is"),
            (&[("CNI_COMMAND", "STATUS"), ("CNI_ARGS", "a=b;c")], "CNI_ARGS has 'c'"),
        ] {
            let error = read(pairs).expect_err(part);
            assert!(error.code == Code::Environment && error.msg.contains(part), "{error:?}");
            assert!(error.to_string().len() < 300, "{error}");
        }
    }

    #[test]
    fn what_removes_does_not_look_at_arguments() {
        let args = ("CNI_ARGS", "nonsense");
        let del = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "a"), ("CNI_IFNAME", "b"), args];
        let gc = [("CNI_COMMAND", "GC"), ("CNI_PATH", "/opt/cni/bin"), args];
        for pairs in [&del[..], &gc] {
            assert_eq!(read(pairs).expect("DEL and GC use none").args, BTreeMap::new());
        }
    }

    #[test]
    fn version_looks_at_nothing_else() {
        let environment = read(&[("CNI_COMMAND", "VERSION"), ("CNI_CONTAINERID", "../"), ("CNI_ARGS", "x")]);
        assert_eq!(environment.expect("placeholders are fine").command, Command::Version);
    }

    #[test]
    fn what_runtimes_send_is_taken_apart() {
        let environment = read(&[
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "4f.a_b-C"),
            ("CNI_NETNS", "/run/netns/a"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=a=b;"),
            ("CNI_PATH", "/opt/cni/bin:/usr/lib/cni"),
        ])
        .expect("podman's");
        assert_eq!(environment.args["K8S_POD_NAME"], "a=b");
        assert_eq!(environment.path.len(), 2);
        assert_eq!(environment.attachment.expect("one").to_string(), "4f.a_b-C@eth0");
    }
}
