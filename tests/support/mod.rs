//! Support for interoperability tests: finds peers, reports skips, controls a testpmd's console, sends
//! checked traffic.
#![allow(dead_code, unused_imports, reason = "each test target uses its own part")]

pub(crate) mod console;
pub(crate) mod example;
pub(crate) mod frames;
pub(crate) mod kernel;
pub(crate) mod kill;
pub(crate) mod ours;
pub(crate) mod page;
pub(crate) mod peer;
pub(crate) mod raw;
pub(crate) mod switch;
pub(crate) mod traffic;
pub(crate) mod upgrade;

use std::path::{Path, PathBuf};

pub(crate) use linecard_lab::skip;
pub(crate) use linecard_testing::{guest, on_path};

/// A folder for one test, removed with its contents when dropped.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("linecard-{test}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("a scratch folder");
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Returns the names of the folder's entries.
    pub(crate) fn entries(&self) -> Vec<String> {
        let listed = std::fs::read_dir(&self.0).expect("the scratch folder is there");
        listed.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
