//! Test support for all crates: skips that are reported and counted, waiting for conditions, reproducible
//! random numbers, a user namespace for a test, and Linux guests ([`guest`]).
//!
//! | variable | meaning |
//! |---|---|
//! | `LINECARD_REQUIRE_ALL=1` | a test that would be skipped fails |
//! | `LINECARD_EXAMPLES=FOLDER` | the examples are there, built with the tests; `cargo xtask test` sets it |
//! | `LINECARD_SKIPS=FILE` | each skip is appended to that file ([`Skip`]); `cargo xtask test` sets and reads it |
//! | `LINECARD_GUEST_KERNEL=FOLDER` | guests with Linux's virtio-net run the kernel in `FOLDER/boot` with the modules in `FOLDER/lib` |
#![forbid(unsafe_code)]

pub mod guest;
mod patience;
mod prng;
mod record;
mod rerun;

pub use patience::{PATIENCE, wait_for, wait_until};
pub use prng::Prng;
pub use record::{Skip, two_cores};
pub use rerun::{IN_USER_NAMESPACE, Rerun, in_user_namespace, user_namespace};

use std::io::{self, Write};
use std::path::PathBuf;

/// If set to anything but `0` or the empty string, every test that would be skipped fails.
pub const REQUIRE_ALL: &str = "LINECARD_REQUIRE_ALL";
/// The folder of the examples, if they were built together with all tests; otherwise a test builds those it
/// needs.
pub const EXAMPLES: &str = "LINECARD_EXAMPLES";
/// The file to which skips are appended.
pub const SKIPS: &str = "LINECARD_SKIPS";

/// Whether skipping is an error.
#[must_use]
pub fn required() -> bool {
    std::env::var_os(REQUIRE_ALL).is_some_and(|value| !value.is_empty() && value != "0")
}

/// Reports that `test` did not run, or only in part, and why: on standard error, bypassing the test harness's
/// capture, and in the file that `LINECARD_SKIPS` names.
///
/// ```no_run
/// linecard_testing::skip("ping_over_tap", "no program 'ping' on this machine; install iputils-ping");
/// ```
///
/// # Panics
/// Skipping is an error ([`required`]), or the file cannot be written.
pub fn skip(test: &str, why: &str) {
    assert!(!required(), "{test} must not be skipped here ({REQUIRE_ALL} is set): {why}");
    // Written to the stream directly: the output of `eprintln!` would be captured and the skip would remain
    // unseen.
    let _ = io::stderr().write_all(format!("SKIPPED {test}: {why}\n").as_bytes());
    if let Some(file) = std::env::var_os(SKIPS) {
        let file = PathBuf::from(file);
        let kept = Skip::here(test, why).append(&file);
        kept.unwrap_or_else(|error| panic!("{SKIPS}={}: {error}", file.display()));
    }
}

/// Returns the path of `program` on PATH.
///
/// ```
/// assert!(linecard_testing::on_path("sh").is_some());
/// assert_eq!(linecard_testing::on_path("no-such-program"), None);
/// ```
#[must_use]
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Returns the test on this thread, with the name that its harness uses (`rooms::tests::name`); `None`
/// outside a test, such as in a documentation example.
#[must_use]
pub fn this_test(given: &str) -> Option<String> {
    if let Ok(name) = std::env::var("NEXTEST_TEST_NAME") {
        return Some(name);
    }
    match std::thread::current().name() {
        // With one test thread, the harness runs tests on its own thread.
        Some("main") | None => rerun::listed(given),
        Some(name) => Some(name.to_owned()),
    }
}
