//! The guide (`docs/guide`): its links, the parts that are the program's own words, the messages it quotes, its commands.

#[path = "../common/mod.rs"]
mod common;
#[path = "../../../tests/support/page.rs"]
mod page;

mod commands;
mod drivers;
mod links;
mod messages;
mod reference;

use std::path::{Path, PathBuf};

/// Where the repository is.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").to_owned()
}

/// Where the guide is.
fn folder() -> PathBuf {
    repository().join("docs/guide")
}

/// A page of the guide.
fn read(name: &str) -> String {
    let path = folder().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The pages of the guide, without the list of them.
fn pages() -> Vec<String> {
    let names = std::fs::read_dir(folder()).expect("the guide").flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".md") && name != "SUMMARY.md").collect();
    names.sort();
    assert!(names.len() > 15, "{names:?}");
    names
}

/// First packets as the page has them, by an ordinary user or root.
#[test]
fn the_first_packets_pass_as_the_page_says() {
    let script = format!(
        "set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true; [ -z \"${{dir:-}}\" ] || rm -rf \"$dir\"' EXIT\n{}",
        page::commands("first-packets.md")
    );
    let output = page::shell(&script).output().expect("bash runs");
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    assert!(out.contains("0 lost, 0 duplicated, 0 reordered, 0 corrupted"), "{out}\n{err}");
    // Both ends counted, and three packets of the file were shown.
    let counted =
        out.lines().filter(|line| line.contains("RX-packets: ") && !line.contains("RX-packets: 0 "));
    assert!(counted.count() >= 2, "{out}\n{err}");
    assert_eq!(out.lines().filter(|line| line.contains("length=100")).count(), 3, "{out}\n{err}");
}

/// Pages whose shell commands are run as they are; here, by `tests/containers.rs` and by `tests/virtual_machines.rs`.
const RUN: [&str; 3] = ["containers.md", "first-packets.md", "virtual-machines.md"];

/// Shell commands that nothing runs are marked as text, so that a reader can tell.
#[test]
fn shell_commands_are_those_that_are_run() {
    let with_shell = |name: &String| read(name).lines().any(|line| line.trim_start() == "```sh");
    let pages: Vec<String> = pages().into_iter().filter(with_shell).collect();
    assert_eq!(pages, RUN);
}
