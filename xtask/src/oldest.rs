//! Checks that the stated minimum Rust version builds the project.

use std::process::Command;

use serde_json::Value;

/// Succeeds immediately if the compiler in use has that version; otherwise checks everything with the
/// toolchain of that version.
pub(crate) fn run() -> Result<(), String> {
    let metadata = crate::shape::metadata()?;
    let stated = stated(&metadata)?;
    let used = output(Command::new("rustc").arg("--version"))?;
    if same(&stated, &used) {
        println!("oldest rust: {stated} is stated, and {} builds and tests everything here", used.trim());
        return Ok(());
    }
    let toolchain = format!("+{stated}");
    let checks = [&toolchain, "check", "--workspace", "--all-targets", "--target-dir=target/oldest"];
    let status = Command::new("cargo").args(checks).status().map_err(|e| format!("cargo: {e}"))?;
    let remedy = format!("rustup toolchain install {stated}, or state another rust-version in Cargo.toml");
    if status.success() { Ok(()) } else { Err(format!("Rust {stated} does not build it: {remedy}")) }
}

/// Returns the common `rust-version` of all packages.
fn stated(metadata: &Value) -> Result<String, String> {
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let mut versions: Vec<_> =
        packages.iter().map(|p| p["rust_version"].as_str().unwrap_or("none")).collect();
    versions.sort_unstable();
    versions.dedup();
    match versions[..] {
        [one] => Ok(one.to_owned()),
        _ => Err(format!("the packages state different rust-versions: {}", versions.join(", "))),
    }
}

/// Whether `rustc --version` shows that minor version.
fn same(stated: &str, used: &str) -> bool {
    let minor = |version: &str| version.split('.').take(2).map(str::to_owned).collect::<Vec<_>>();
    used.split_whitespace().nth(1).is_some_and(|version| minor(version) == minor(stated))
}

fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|e| format!("rustc could not be started: {e}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_version_is_stated_and_compared_by_its_minor_part() {
        let packages = |versions: &[&str]| {
            let list: Vec<_> = versions.iter().map(|v| serde_json::json!({ "rust_version": v })).collect();
            serde_json::json!({ "packages": list })
        };
        assert_eq!(stated(&packages(&["1.95", "1.95"])), Ok("1.95".into()));
        assert!(stated(&packages(&["1.95", "1.90"])).is_err_and(|said| said.ends_with("1.90, 1.95")));
        assert!(same("1.95", "rustc 1.95.0 (59807616e 2026-04-14)"));
        assert!(!same("1.95", "rustc 1.96.1 (x)") && !same("1.9", "rustc 1.95.0"));
    }
}
