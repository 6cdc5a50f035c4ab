//! A skip as a line of a file to which several processes append.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

/// A test that was skipped, completely or in part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skip {
    /// The run: process and thread. A test that skips two of its parts counts as one.
    pub run: String,
    /// The name of the test.
    pub test: String,
    /// What was missing.
    pub why: String,
}

impl Skip {
    /// Creates a skip of the test on this thread.
    pub(crate) fn here(test: &str, why: &str) -> Self {
        let run = format!("{} {:?}", std::process::id(), std::thread::current().id());
        Self { run, test: test.into(), why: why.into() }
    }

    /// Returns the line; its fields are separated by tabs.
    ///
    /// ```
    /// use linecard_testing::Skip;
    /// let skip = Skip { run: "7".into(), test: "ping".into(), why: "no\tprogram 'ping'\n".into() };
    /// let line = skip.line();
    /// assert_eq!(line, "7\tping\tno program 'ping' \n");
    /// assert_eq!(Skip::parse(&line).map(|skip| skip.test), Some("ping".into()));
    /// assert_eq!(Skip::parse("half a line"), None);
    /// ```
    #[must_use]
    pub fn line(&self) -> String {
        let fields = [&self.run, &self.test, &self.why].map(|field| field.replace(['\t', '\n'], " "));
        fields.join("\t") + "\n"
    }

    /// Parses the output of [`line`](Self::line).
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut fields = line.trim_end_matches('\n').splitn(3, '\t').map(str::to_owned);
        Some(Self { run: fields.next()?, test: fields.next()?, why: fields.next()? })
    }

    /// Appends the line in one write, so that lines of several processes do not mix.
    pub(crate) fn append(&self, file: &Path) -> io::Result<()> {
        OpenOptions::new().create(true).append(true).open(file)?.write_all(self.line().as_bytes())
    }
}

/// Whether `test` has the two cores that it needs; if not, reports that it is skipped.
#[must_use]
pub fn two_cores(test: &str) -> bool {
    let two = std::thread::available_parallelism().map_or(1, usize::from) >= 2;
    if !two {
        crate::skip(test, "it needs two cores, there is one");
    }
    two
}
