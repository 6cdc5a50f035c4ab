//! Builds and tests each package alone, with and without its features. A workspace build enables every
//! feature that any package requests, for all of them, and so hides a dependency or a feature that a package
//! does not declare.

use std::process::Command;
use std::time::Instant;

use clap::Args;
use serde_json::Value;

/// Options of `cargo xtask rooms`.
#[derive(Args)]
pub(crate) struct Options {
    /// Only packages whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Build the tests, run none.
    #[arg(long)]
    no_run: bool,
    /// Print the commands, run nothing.
    #[arg(long)]
    list: bool,
}

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Packages that are not part of the product: these tasks, and code that only the fuzzer links.
const LEFT_OUT: [&str; 2] = ["xtask", "linecard-fuzz"];

/// Tests every package with each set of features in turn, continues after failures, and reports them at the
/// end.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let metadata = crate::shape::metadata()?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let wanted = |line: &Vec<String>| options.only.as_deref().is_none_or(|part| line[1].contains(part));
    let lines: Vec<_> = packages.iter().flat_map(arguments).filter(wanted).collect();
    let mut failed = Vec::new();
    for line in lines {
        let shown = format!("cargo test {}{}", line.join(" "), if options.no_run { " --no-run" } else { "" });
        println!("── {shown}");
        if options.list {
            continue;
        }
        let began = Instant::now();
        let mut command = Command::new("cargo");
        command.arg("test").args(&line).current_dir(ROOT).env("CARGO_TARGET_DIR", "target/rooms");
        // Tests that poll with two threads need both cores.
        command.args(if options.no_run { &["--no-run"][..] } else { &["--", "--test-threads=1"] });
        let status = command.status().map_err(|e| format!("cargo could not be started: {e}"))?;
        println!(
            "── {}: {} s",
            if status.success() { "passed" } else { "FAILED" },
            began.elapsed().as_secs()
        );
        if !status.success() {
            failed.push(shown);
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("{} failed:\n  {}", failed.len(), failed.join("\n  ")))
    }
}

/// Returns the arguments of `cargo test` for one package: all tests with all features, and its unit tests
/// with each feature alone and with none.
fn arguments(package: &Value) -> Vec<Vec<String>> {
    let name = package["name"].as_str().unwrap_or_default();
    if LEFT_OUT.contains(&name) {
        return Vec::new();
    }
    let features = package["features"].as_object();
    let features: Vec<_> = features.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let line =
        |rest: &[&str]| ["-p", name].iter().chain(rest).map(|&word| word.to_owned()).collect::<Vec<_>>();
    let mut lines = vec![if features.is_empty() { line(&[]) } else { line(&["--all-features"]) }];
    if !features.is_empty() {
        lines.push(line(&["--no-default-features", "--lib", "--bins"]));
    }
    for feature in features.into_iter().filter(|&feature| feature != "default") {
        lines.push(line(&["--no-default-features", "--features", feature, "--lib", "--bins"]));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_is_tried_alone_and_none_and_all() {
        let package = serde_json::json!({ "name": "a", "features": { "default": ["x"], "x": [], "y": [] } });
        let lines: Vec<_> = arguments(&package).iter().map(|line| line.join(" ")).collect();
        let expected = [
            "-p a --all-features",
            "-p a --no-default-features --lib --bins",
            "-p a --no-default-features --features x --lib --bins",
            "-p a --no-default-features --features y --lib --bins",
        ];
        assert_eq!(lines, expected);
        assert_eq!(arguments(&serde_json::json!({ "name": "b", "features": {} })), [["-p", "b"]]);
        assert!(arguments(&serde_json::json!({ "name": "xtask", "features": {} })).is_empty());
    }
}
