//! The versions of the specification and their differences.

use crate::error::{Code, Error};

/// A version of the CNI specification that the plugin supports.
///
/// ```
/// use linecard_cni::Version;
/// assert_eq!(Version::parse("0.4.0")?, Version::V0_4_0);
/// assert!(Version::V0_4_0.has_check() && !Version::V0_3_1.has_check());
/// assert_eq!(Version::parse("2.0.0").expect_err("not yet").code.number(), 1);
/// # Ok::<(), linecard_cni::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Version {
    /// 0.3.0
    V0_3_0,
    /// 0.3.1
    V0_3_1,
    /// 0.4.0: CHECK
    V0_4_0,
    /// 1.0.0: no `version` in `ips`
    V1_0_0,
    /// 1.1.0: STATUS, GC, `mtu` and `socketPath` of interfaces
    V1_1_0,
}

impl Version {
    /// All versions, oldest first.
    pub const ALL: [Self; 5] = [Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// The newest version.
    pub const NEWEST: Self = Self::V1_1_0;

    /// Parses a version.
    ///
    /// # Errors
    /// Code 1, with the supported versions.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|version| version.as_str() == text).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            Error::new(
                Code::IncompatibleVersion,
                format!("cniVersion '{shown}' is not supported"),
                format!("use one of {}", Self::ALL.map(Self::as_str).join(", ")),
            )
        })
    }

    /// Returns the version as a configuration writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Returns whether this version has CHECK.
    #[must_use]
    pub fn has_check(self) -> bool {
        self >= Self::V0_4_0
    }

    /// Returns whether this version has GC and STATUS.
    #[must_use]
    pub fn has_gc(self) -> bool {
        self >= Self::V1_1_0
    }

    /// Returns whether an entry of `ips` has `"version": "4"` or `"6"`.
    #[must_use]
    pub fn ips_say_version(self) -> bool {
        self < Self::V1_0_0
    }

    /// Returns whether an interface of a result has `mtu` and `socketPath`.
    #[must_use]
    pub fn has_socket_path(self) -> bool {
        self >= Self::V1_1_0
    }
}
