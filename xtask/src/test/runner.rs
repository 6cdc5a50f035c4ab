//! The program that runs the tests, and the order of the tests.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};

use serde_json::Value;

use super::outcome::{self, Outcome};
use super::{Options, root};

/// The program that runs the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runner {
    /// Each test is a process; `.config/nextest.toml` defines what runs in parallel.
    Nextest,
    /// Unit tests in parallel, then all others one at a time.
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

    /// Builds and runs the tests; returns the result.
    pub(super) fn run(self, options: &Options, environment: &[(&str, &OsStr)]) -> Result<Outcome, String> {
        let (mut total, started) = (Outcome::default(), std::time::Instant::now());
        let builds: &[&str] = match self {
            Self::Nextest => &["nextest", "run", "--no-run"],
            Self::Cargo => &["test", "--no-run"],
        };
        let asked = Asked { packages: &options.package, filter: options.filter.as_deref(), more: &[] };
        let (status, _) = stage(builds, &asked, environment)?;
        if !status.success() {
            return Err("the tests do not build".into());
        }
        println!("built after {} s", started.elapsed().as_secs());
        let metadata = crate::shape::metadata()?;
        for stage_of in self.stages() {
            let Some(packages) = stage_of.packages(&options.package, &metadata) else { continue };
            let arguments = stage_of.arguments;
            let asked = Asked { packages: &packages, filter: options.filter.as_deref(), more: stage_of.more };
            let (status, mut outcome) = stage(arguments, &asked, environment)?;
            if !status.success() && outcome.failed == 0 {
                outcome.failed = 1;
                outcome.names.push(format!("cargo {} ended with {status}", arguments.join(" ")));
            }
            total.add(outcome);
        }
        println!("all after {} s", started.elapsed().as_secs());
        Ok(total)
    }

    /// The stages, in this order. Only `cargo test` can test documentation.
    const fn stages(self) -> &'static [Stage] {
        const DOC: Stage =
            Stage { arguments: &["test", "--no-fail-fast", "--doc"], more: &[], kinds: Stage::LIBRARY };
        match self {
            Self::Nextest => {
                &[Stage { arguments: &["nextest", "run", "--no-tests=pass"], more: &[], kinds: &[] }, DOC]
            }
            Self::Cargo => &[
                Stage { arguments: &["test", "--no-fail-fast", "--lib"], more: &[], kinds: Stage::LIBRARY },
                Stage { arguments: &["test", "--no-fail-fast", "--bins"], more: &[], kinds: &["bin"] },
                Stage {
                    arguments: &["test", "--no-fail-fast", "--test", "*"],
                    more: &["--test-threads=1"],
                    kinds: &["test"],
                },
                DOC,
            ],
        }
    }
}

/// One call of cargo.
struct Stage {
    /// Arguments of cargo.
    arguments: &'static [&'static str],
    /// Arguments of the test programs.
    more: &'static [&'static str],
    /// The kinds of target that it runs, as in `cargo metadata`; empty for all. Cargo refuses a kind that no
    /// package has.
    kinds: &'static [&'static str],
}

impl Stage {
    const LIBRARY: &[&str] = &["lib", "proc-macro"];

    /// Returns those of the requested packages that it runs; `None` if it runs none of them. An empty request
    /// means all.
    fn packages(&self, asked: &[String], metadata: &Value) -> Option<Vec<String>> {
        let has_one = |name: &String| {
            let package =
                metadata["packages"].as_array()?.iter().find(|package| package["name"] == **name)?;
            let kinds = package["targets"].as_array()?.iter().filter_map(|target| target["kind"].as_array());
            let named = kinds.flatten().any(|kind| self.kinds.iter().any(|wanted| kind == wanted));
            Some(self.kinds.is_empty() || named)
        };
        // Unknown packages are kept, because cargo reports them.
        let of: Vec<_> = asked.iter().filter(|name| has_one(name).unwrap_or(true)).cloned().collect();
        (asked.is_empty() || !of.is_empty()).then_some(of)
    }
}

/// The selection of a stage.
struct Asked<'a> {
    packages: &'a [String],
    filter: Option<&'a str>,
    more: &'a [&'a str],
}

/// Runs cargo, prints its output, and counts the results.
fn stage(
    arguments: &[&str],
    asked: &Asked<'_>,
    environment: &[(&str, &OsStr)],
) -> Result<(ExitStatus, Outcome), String> {
    let mut command = Command::new("cargo");
    command.args(arguments);
    if asked.packages.is_empty() {
        command.arg("--workspace");
    }
    command.args(asked.packages.iter().flat_map(|package| ["--package", package]));
    command.args(asked.filter);
    if !asked.more.is_empty() {
        command.arg("--").args(asked.more);
    }
    println!("── cargo {}", shown(&command));
    // Network tools are in folders that are not on the PATH of ordinary users.
    let mut path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    path.push(":/usr/sbin:/sbin");
    command.env("PATH", path).envs(environment.iter().copied()).current_dir(root());
    // Nextest writes everything to standard error, test programs of `cargo test` to standard output.
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

/// Prints each line and counts its results.
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
            assert!(runner.stages().iter().any(|stage| stage.arguments.contains(&"--doc")), "{runner:?}");
        }
        assert_eq!(Runner::choose(true), Runner::Cargo);
        let config =
            std::fs::read_to_string(root().join(".config/nextest.toml")).expect("nextest's settings");
        assert!(config.contains("\nretries = 0\n") && config.contains("\nfail-fast = false\n"));
    }

    #[test]
    fn cargo_is_asked_only_for_what_a_package_has() {
        let package = |name: &str, kinds: &[&str]| {
            let targets: Vec<_> = kinds.iter().map(|kind| serde_json::json!({ "kind": [kind] })).collect();
            serde_json::json!({ "name": name, "targets": targets })
        };
        let metadata = serde_json::json!({ "packages": [package("library", &["lib"]), package("tool", &["bin", "test"])] });
        let stages = |asked: &[&str]| {
            let asked: Vec<_> = asked.iter().map(|name| (*name).to_owned()).collect();
            Runner::Cargo.stages().iter().map(|stage| stage.packages(&asked, &metadata)).collect::<Vec<_>>()
        };
        let only = |name: &str| Some(vec![name.to_owned()]);
        assert_eq!(stages(&["library"]), [only("library"), None, None, only("library")]);
        assert_eq!(
            stages(&["library", "tool"]),
            [only("library"), only("tool"), only("tool"), only("library")]
        );
        assert_eq!(stages(&[]), [const { Some(Vec::new()) }; 4]);
        assert_eq!(stages(&["absent"]), [0; 4].map(|_| only("absent")));
    }
}
