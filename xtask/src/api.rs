//! `cargo xtask api`: lists the public items of every published crate, one per line, and compares them with
//! the accepted ones (`docs/api/CRATE.txt`), so that breaking changes are noticed.

mod listing;
mod render;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Args;
use serde_json::Value;

/// Options of `cargo xtask api`.
#[derive(Args)]
pub(crate) struct Options {
    /// Take what is public now as accepted: writes docs/api/*.txt, which belong into the same commit.
    #[arg(long)]
    accept: bool,
}

/// Lists the public items, and compares them with the accepted ones.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let metadata = crate::shape::metadata()?;
    let root = PathBuf::from(metadata["workspace_root"].as_str().ok_or("cargo metadata names no folder")?);
    let crates = published(&metadata)?;
    let folder = root.join("docs/api");
    let made = document(&root, &crates)?;
    let mut differing = Vec::new();
    for Published { package, library } in &crates {
        let path = made.join(format!("{library}.json"));
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let json = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        let now = listing::of(&json)?;
        let file = folder.join(format!("{package}.txt"));
        if options.accept {
            accept(&file, &now)?;
            continue;
        }
        let accepted = std::fs::read_to_string(&file).unwrap_or_default();
        let change = Change::between(&accepted, &now);
        if !change.is_empty() {
            println!("{package}:\n{change}");
            differing.push(package.as_str());
        }
    }
    let known: BTreeSet<_> = crates.iter().map(|it| format!("{}.txt", it.package)).collect();
    let stale = remaining(&folder, &known);
    if options.accept {
        return stale.iter().try_for_each(|path| std::fs::remove_file(path).map_err(|e| e.to_string()));
    }
    if let Some(path) = stale.first() {
        let path = path.display();
        return Err(format!("{path} is about no published crate; `cargo xtask api --accept` removes it"));
    }
    if differing.is_empty() {
        println!("the public items of {} crates are those in docs/api", crates.len());
        return Ok(());
    }
    Err(format!(
        "the public items of {} are not those in docs/api. A line with '-' breaks programs that use it: put it back, or say in \
         CHANGELOG.md what to write instead. Then accept the change: `cargo xtask api --accept`, and commit docs/api with it",
        differing.join(", ")
    ))
}

/// A crate that other projects may depend on.
struct Published {
    package: String,
    /// The name of its library in Rust code.
    library: String,
}

fn published(metadata: &Value) -> Result<Vec<Published>, String> {
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let private = |package: &&Value| package["publish"].as_array().is_some_and(Vec::is_empty);
    let mut crates: Vec<_> = packages
        .iter()
        .filter(|package| !private(package))
        .filter_map(|package| {
            let targets = package["targets"].as_array()?;
            let is_library = |target: &&Value| {
                target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "lib"))
            };
            let library = targets.iter().find(is_library)?["name"].as_str()?.replace('-', "_");
            Some(Published { package: package["name"].as_str()?.to_owned(), library })
        })
        .collect();
    crates.sort_by(|a, b| a.package.cmp(&b.package));
    Ok(crates)
}

/// The path of this toolchain's rustdoc, for the process of this program that cargo starts instead of
/// rustdoc.
pub(crate) const RUSTDOC: &str = "LINECARD_XTASK_RUSTDOC";

/// Runs rustdoc for the crates; returns its output folder. The format is unstable, so nightly features are
/// enabled for rustdoc only: if they were enabled for the compiler too, crates that check for that would be
/// rebuilt.
fn document(root: &Path, crates: &[Published]) -> Result<PathBuf, String> {
    let cargo = Path::new(env!("CARGO"));
    let this = std::env::current_exe().map_err(|e| format!("this program's path is not known: {e}"))?;
    let mut command = Command::new(cargo);
    command.current_dir(root).args(["doc", "--no-deps", "--lib", "--quiet", "--target-dir=target"]);
    command.args(crates.iter().flat_map(|it| ["-p", it.package.as_str()]));
    command.env("RUSTDOC", this).env(RUSTDOC, cargo.with_file_name("rustdoc"));
    command.env("RUSTDOCFLAGS", "-Zunstable-options --output-format=json");
    let status = command.status().map_err(|e| format!("cargo doc could not be started: {e}"))?;
    if status.success() { Ok(root.join("target/doc")) } else { Err(format!("cargo doc failed ({status})")) }
}

/// Replaces this process with rustdoc, which cargo wanted to start.
pub(crate) fn run_rustdoc(rustdoc: &OsStr) -> ExitCode {
    let failure = Command::new(rustdoc).args(std::env::args_os().skip(1)).env("RUSTC_BOOTSTRAP", "1").exec();
    eprintln!("error: {}: {failure}", rustdoc.display());
    ExitCode::FAILURE
}

fn accept(file: &Path, lines: &BTreeSet<String>) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", file.display());
    std::fs::create_dir_all(file.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    std::fs::write(file, text).map_err(failed)
}

/// Returns the files of the folder that are not `known`.
fn remaining(folder: &Path, known: &BTreeSet<String>) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| !known.contains(&*entry.file_name().to_string_lossy()))
        .map(|it| it.path())
        .collect()
}

/// Removed and new items.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    gone: Vec<String>,
    new: Vec<String>,
}

impl Change {
    fn between(accepted: &str, now: &BTreeSet<String>) -> Self {
        let accepted: BTreeSet<String> = accepted.lines().map(str::to_owned).collect();
        Self {
            gone: accepted.difference(now).cloned().collect(),
            new: now.difference(&accepted).cloned().collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.new.is_empty()
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.gone.iter().try_for_each(|line| writeln!(f, "  - {line}"))?;
        self.new.iter().try_for_each(|line| writeln!(f, "  + {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_signature_is_one_line_gone_and_one_new() {
        let now = ["pub fn a(u8)", "pub fn b(u16)"].map(str::to_owned).into();
        let change = Change::between("pub fn a(u8)\npub fn b(u8)\n", &now);
        assert_eq!(change.to_string(), "  - pub fn b(u8)\n  + pub fn b(u16)\n");
        assert!(Change::between("pub fn a(u8)\npub fn b(u16)\n", &now).is_empty());
    }

    #[test]
    fn crates_that_nobody_can_depend_on_are_left_out() {
        let package = |name: &str, publish: Value, kind: &str| serde_json::json!({ "name": name, "publish": publish, "targets": [{ "name": name, "kind": [kind] }] });
        let metadata = serde_json::json!({ "packages": [
            package("b-lib", Value::Null, "lib"),
            package("chores", serde_json::json!([]), "lib"),
            package("program", Value::Null, "bin"),
        ] });
        let found = published(&metadata).expect("a list");
        assert_eq!(found.iter().map(|it| it.library.as_str()).collect::<Vec<_>>(), ["b_lib"]);
    }
}
