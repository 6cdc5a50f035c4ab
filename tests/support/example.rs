//! The examples as programs, built like the tests.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Returns the path of an example: built together with all tests, or built now.
pub(crate) fn example(name: &str) -> PathBuf {
    example_of("linecard", name)
}

/// The same for an example of another package.
pub(crate) fn example_of(package: &str, name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os(linecard_testing::EXAMPLES) {
        return PathBuf::from(folder).join(name);
    }
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet", "--package", package, "--example", name, "--message-format=json"]);
    let output = command.stderr(Stdio::inherit()).output().expect("cargo runs");
    assert!(output.status.success(), "the example {name} is built");
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let made = |message: serde_json::Value| message["executable"].as_str().map(PathBuf::from);
    messages.filter_map(made).next_back().expect("an executable")
}

/// A program that is killed when a test fails.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Waits for its end; returns whether it succeeded, and its output.
    pub(crate) fn end(&mut self) -> (bool, String) {
        let until = Instant::now() + Duration::from_secs(90);
        while self.0.try_wait().expect("a child").is_none() {
            assert!(Instant::now() < until, "it did not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut text = String::new();
        self.0.stdout.take().expect("a pipe").read_to_string(&mut text).expect("text");
        (self.0.wait().expect("a child").success(), text)
    }
}
