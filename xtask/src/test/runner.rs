//! By which program the tests run, and in which order.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};

use super::outcome::{self, Outcome};
use super::{Options, root};

/// By which program the tests run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runner {
    /// Each test is a process; what runs beside what is in `.config/nextest.toml`.
    Nextest,
    /// Unit tests beside each other, then all others one at a time.
    Cargo,
}

impl Runner {
    pub(super) fn choose(cargo_test: bool) -> Self {
        let version = || Command::new("cargo").args(["nextest", "--version"]).output();
        let there = !cargo_test && version().is_ok_and(|output| output.status.success());
        if there { Self::Nextest } else { Self::Cargo }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Nextest => "cargo nextest (.config/nextest.toml)",
            Self::Cargo => "cargo test",
        }
    }

    /// Builds and runs all of them; what came of it.
    pub(super) fn run(self, options: &Options, environment: &[(&str, &OsStr)]) -> Result<Outcome, String> {
        let (mut total, started) = (Outcome::default(), std::time::Instant::now());
        let builds: &[&str] = match self {
            Self::Nextest => &["nextest", "run", "--no-run"],
            Self::Cargo => &["test", "--no-run"],
        };
        let (status, _) = stage(builds, options, &[], environment)?;
        if !status.success() {
            return Err("the tests do not build".into());
        }
        println!("built after {} s", started.elapsed().as_secs());
        for (arguments, more) in self.stages() {
            let (status, mut outcome) = stage(arguments, options, more, environment)?;
            if !status.success() && outcome.failed == 0 {
                outcome.failed = 1;
                outcome.names.push(format!("cargo {} ended with {status}", arguments.join(" ")));
            }
            total.add(outcome);
        }
        println!("all after {} s", started.elapsed().as_secs());
        Ok(total)
    }

    /// Arguments for cargo, and for the test programs. Documentation is tested by `cargo test` only.
    const fn stages(self) -> &'static [(&'static [&'static str], &'static [&'static str])] {
        const DOC: (&[&str], &[&str]) = (&["test", "--no-fail-fast", "--doc"], &[]);
        match self {
            Self::Nextest => &[(&["nextest", "run", "--no-tests=pass"], &[]), DOC],
            Self::Cargo => &[
                (&["test", "--no-fail-fast", "--lib", "--bins"], &[]),
                (&["test", "--no-fail-fast", "--test", "*"], &["--test-threads=1"]),
                DOC,
            ],
        }
    }
}

/// Runs cargo to its end, shows what it says, and counts.
fn stage(
    arguments: &[&str],
    options: &Options,
    more: &[&str],
    environment: &[(&str, &OsStr)],
) -> Result<(ExitStatus, Outcome), String> {
    let mut command = Command::new("cargo");
    command.args(arguments);
    if options.package.is_empty() {
        command.arg("--workspace");
    }
    command.args(options.package.iter().flat_map(|package| ["--package", package]));
    command.args(&options.filter);
    if !more.is_empty() {
        command.arg("--").args(more);
    }
    println!("── cargo {}", shown(&command));
    // Tools of the network lie where an ordinary user's PATH does not lead.
    let mut path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    path.push(":/usr/sbin:/sbin");
    command.env("PATH", path).envs(environment.iter().copied()).current_dir(root());
    // Nextest says everything on standard error, test programs of `cargo test` on standard output.
    let nextest = arguments.first() == Some(&"nextest");
    let child = if nextest { command.stderr(Stdio::piped()) } else { command.stdout(Stdio::piped()) };
    let mut child = child.spawn().map_err(|e| format!("cargo could not be started: {e}"))?;
    let outcome = match (child.stderr.take(), child.stdout.take()) {
        (Some(from), _) => watch(from, outcome::nextest),
        (_, Some(from)) => watch(from, outcome::libtest),
        _ => Outcome::default(),
    };
    let status = child.wait().map_err(|e| format!("cargo: {e}"))?;
    Ok((status, outcome))
}

fn shown(command: &Command) -> String {
    command.get_args().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Shows each line and counts what it tells.
fn watch(from: impl Read, count: fn(&str, &mut Outcome)) -> Outcome {
    let mut outcome = Outcome::default();
    for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        count(&line, &mut outcome);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_test_the_documentation_and_try_nothing_again() {
        for runner in [Runner::Nextest, Runner::Cargo] {
            assert!(runner.stages().iter().any(|(arguments, _)| arguments.contains(&"--doc")), "{runner:?}");
        }
        assert_eq!(Runner::choose(true), Runner::Cargo);
        let config =
            std::fs::read_to_string(root().join(".config/nextest.toml")).expect("nextest's settings");
        assert!(config.contains("\nretries = 0\n") && config.contains("\nfail-fast = false\n"));
    }
}
