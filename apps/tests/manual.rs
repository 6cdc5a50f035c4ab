//! Manual pages that `man` takes without a warning, and completions, both with every option.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Scratch, linecard, run, skip};

/// The names of long options in a text.
fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c)));
    let names = words.filter_map(|word| word.strip_prefix("--"));
    names.filter(|name| name.starts_with(|c: char| c.is_ascii_alphabetic())).map(str::to_owned).collect()
}

/// A page as text, and what `man` complains of.
fn man(page: &Path) -> (String, String) {
    let mut command = Command::new("man");
    command
        .args(["--warnings", "-E", "UTF-8", "-l"])
        .arg(page)
        .env("MANWIDTH", "120")
        .env("LC_ALL", "C.UTF-8");
    let said = run(command.stdout(Stdio::piped()).stderr(Stdio::piped()), b"");
    assert_eq!(said.code, Some(0), "{said:?}");
    (said.out, said.err)
}

#[test]
fn pages_have_every_option_and_man_takes_them() {
    let scratch = Scratch::new();
    let folder = scratch.path().join("man");
    let said = run(&mut linecard(&["man", "--folder", folder.to_str().unwrap()]), b"");
    assert_eq!(said.code, Some(0), "{said:?}");
    let pages: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let names: BTreeSet<String> =
        pages.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    for name in ["linecard.1", "linecard-testpmd.1", "linecard-top.1", "linecard-switch-ctl.1"] {
        assert!(names.contains(name), "{name} in {names:?}");
    }
    if Command::new("man").arg("--version").output().is_err() {
        return skip(
            "pages_have_every_option_and_man_takes_them",
            "no program 'man' on this machine; install man-db",
        );
    }
    for page in &pages {
        let (text, complaints) = man(page);
        assert_eq!(complaints, "", "{}", page.display());
        assert!(text.contains("NAME"), "{}", page.display());
        // What the help of a command lists, its page lists. A name may be divided at the end of a line, but these pages are
        // wide and not filled into blocks.
        let name = page.file_stem().unwrap().to_string_lossy().into_owned();
        let words: Vec<_> = name.split('-').skip(1).chain(["--help"]).collect();
        let help = run(&mut linecard(&words), b"");
        assert!(help.code == Some(0) && !help.out.is_empty(), "{words:?}: {help:?}");
        let listed = options(&text);
        let missing: Vec<_> = options(&help.out).into_iter().filter(|name| !listed.contains(name)).collect();
        assert!(missing.is_empty(), "{name}.1 lacks {missing:?}");
    }
    let (testpmd, _) = man(&folder.join("linecard-testpmd.1"));
    for words in
        ["--vdev <device>", "--forward-mode", "show port", "TESTPMD OPTIONS, AFTER --", "EAL OPTIONS"]
    {
        assert!(testpmd.contains(words), "{words} in {testpmd}");
    }
    let printed = run(&mut linecard(&["man", "testpmd"]), b"").out;
    assert_eq!(printed, std::fs::read_to_string(folder.join("linecard-testpmd.1")).unwrap());
}

#[test]
fn completions_know_testpmds_options() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = run(&mut linecard(&["completions", shell]), b"");
        assert_eq!(said.code, Some(0), "{said:?}");
        for name in ["vdev", "file-prefix", "forward-mode", "no-telemetry", "metrics", "interval"] {
            assert!(said.out.contains(name), "{shell}: {name}");
        }
    }
    // As bash completes it.
    let scratch = Scratch::new();
    let script = run(&mut linecard(&["completions", "bash"]), b"").out;
    std::fs::write(scratch.path().join("completions"), script).unwrap();
    let ask = "source \"$1\"; COMP_WORDS=(linecard testpmd --forw); COMP_CWORD=2; \
               _linecard linecard --forw testpmd; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.args(["-c", ask, "bash", &scratch.file("completions")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let said = run(&mut bash, b"");
    assert_eq!(said.out.trim(), "--forward-mode", "{said:?}");
}

#[test]
fn a_folder_for_pages_that_cannot_be_made_is_refused() {
    let scratch = Scratch::new();
    std::fs::write(scratch.file("taken"), "").unwrap();
    for arguments in [
        &["man", "--folder", &scratch.file("taken")][..],
        &["man", "--folder", "/proc/nowhere"],
        &["man", "--folder"],
        &["man", "--folder", "x", "testpmd"],
        &["man", "nothing"],
        &["man", "demo-end"],
    ] {
        let said = run(&mut linecard(arguments), b"");
        assert!(said.code != Some(0) && said.err.lines().count() == 1, "{arguments:?}: {said:?}");
    }
}
