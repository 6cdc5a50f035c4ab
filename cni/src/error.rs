//! Errors in the form of the specification: a code, a short message, details with a remedy.

use std::fmt;

use serde_json::{Value, json};

/// The error codes of the specification, libcni's code 8, and our own codes from 100.
///
/// ```
/// use linecard_cni::Code;
/// assert_eq!(Code::Config.number(), 7);
/// assert_eq!(Code::Other(123).number(), 123);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Code {
    /// The configuration's `cniVersion` is not supported.
    IncompatibleVersion,
    /// A field of the configuration that is not supported.
    UnsupportedField,
    /// The container is unknown.
    UnknownContainer,
    /// A `CNI_…` variable is missing or unusable.
    Environment,
    /// Reading or writing failed.
    Io,
    /// The input is not JSON of the expected form.
    Decode,
    /// The configuration is not valid.
    Config,
    /// `CNI_NETNS` does not name a network namespace that can be used.
    Namespace,
    /// Trying again later may help.
    TryAgain,
    /// The plugin cannot serve ADD.
    NotAvailable,
    /// The plugin cannot serve ADD, and existing ports may not work.
    LimitedConnectivity,
    /// The attachment or its interface exists already.
    Exists,
    /// The switch refused the request.
    Switch,
    /// CHECK found something that differs from ADD.
    CheckFailed,
    /// The code of a delegated plugin.
    Other(u32),
}

impl Code {
    /// Returns the number of the code.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::UnsupportedField => 2,
            Self::UnknownContainer => 3,
            Self::Environment => 4,
            Self::Io => 5,
            Self::Decode => 6,
            Self::Config => 7,
            Self::Namespace => 8,
            Self::TryAgain => 11,
            Self::NotAvailable => 50,
            Self::LimitedConnectivity => 51,
            Self::Exists => 100,
            Self::Switch => 101,
            Self::CheckFailed => 102,
            Self::Other(number) => number,
        }
    }
}

/// Why a command failed. podman and kubelet print `msg: details` on one line, so `details` ends with what to do.
///
/// ```
/// use linecard_cni::{Code, Error};
/// let error = Error::new(Code::Config, "'mtu' is 10", "give 68 to 65535");
/// assert_eq!(error.to_string(), "'mtu' is 10: give 68 to 65535");
/// assert_eq!(error.to_json("1.0.0")["code"], 7);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The kind of failure.
    pub code: Code,
    /// The problem, as one clause.
    pub msg: String,
    /// The allowed values and the remedy.
    pub details: String,
}

impl Error {
    /// An error of this kind.
    #[must_use]
    pub fn new(code: Code, msg: impl Into<String>, details: impl Into<String>) -> Self {
        Self { code, msg: tidy(msg.into()), details: tidy(details.into()) }
    }

    /// Returns the error object that a plugin writes to standard output.
    #[must_use]
    pub fn to_json(&self, version: &str) -> Value {
        json!({
            "cniVersion": version,
            "code": self.code.number(),
            "msg": self.msg,
            "details": self.details,
        })
    }

    pub(crate) fn io(action: impl fmt::Display, source: &std::io::Error, remedy: &str) -> Self {
        Self::new(Code::Io, format!("{action}: {source}"), remedy)
    }

    pub(crate) fn config(msg: impl Into<String>, details: impl Into<String>) -> Self {
        Self::new(Code::Config, msg, details)
    }
}

/// The maximum number of characters of a message, which may quote input.
const LONGEST: usize = 1000;

/// Makes the text one printable line, whatever it quotes.
fn tidy(text: String) -> String {
    if text.len() <= LONGEST && !text.contains(char::is_control) {
        return text;
    }
    let mut tidy = String::new();
    for char in text.chars().take(LONGEST) {
        match char.is_control() {
            true => tidy.extend(char.escape_default()),
            false => tidy.push(char),
        }
    }
    if text.chars().nth(LONGEST).is_some() {
        tidy.push('…');
    }
    tidy
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.details.is_empty() {
            true => f.write_str(&self.msg),
            false => write!(f, "{}: {}", self.msg, self.details),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_stays_on_its_line() {
        let error = Error::new(Code::Io, "a\n\0b", "é".repeat(70_000));
        assert_eq!(error.msg, "a\\n\\u{0}b");
        assert_eq!(error.details.chars().count(), LONGEST + 1);
    }
}
