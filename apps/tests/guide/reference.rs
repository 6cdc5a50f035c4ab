//! The reference of testpmd is what the program says of itself. `cargo xtask guide` writes it.

use super::common::{answers, run, testpmd};
use super::{folder, read};

/// Set by `cargo xtask guide`: pages are written instead of compared.
const WRITE: &str = "LINECARD_GUIDE_WRITE";

/// Replaces what stands between the marks of `part` in `page`.
fn with_part(page: &str, part: &str, text: &str) -> String {
    let (start, end) =
        (format!("<!-- {part}: written by `cargo xtask guide` -->\n"), format!("<!-- end of {part} -->\n"));
    let (before, rest) = page.split_once(&start).unwrap_or_else(|| panic!("no mark {start}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("no mark {end}"));
    format!("{before}{start}\n{}\n\n{end}{after}", text.trim_end())
}

/// The console's commands, a section for each of `help`'s.
fn commands() -> String {
    let eal = ["-m", "64", "--in-memory", "--vdev", "net_null0"];
    let help = answers(&eal, &["-i", "--total-num-mbufs=2048"], "help all\nquit\n").swap_remove(0);
    let (mut text, mut pattern) = (String::new(), "");
    for line in help.lines().filter(|line| !line.is_empty() && !line.starts_with('-')) {
        match (line.strip_prefix("    "), line.strip_suffix(':')) {
            (Some(what), _) => text += &format!("- `{pattern}`: {what}\n"),
            (None, Some(title)) => text += &format!("\n### {title}\n\n"),
            (None, None) => pattern = line,
        }
    }
    text
}

/// The options, EAL's and testpmd's.
fn options() -> [String; 2] {
    let help = run(&mut testpmd(&["--help"], &[]), b"").out;
    let (eal, own) = help.split_once("testpmd options, after `--`:\n").expect("a heading");
    let (_, eal) = eal.split_once("\n\n").expect("a usage line before");
    let own: String =
        own.lines().take_while(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect();
    [eal.to_owned(), own].map(|text| format!("```text\n{}\n```", text.trim_end()))
}

#[test]
fn the_reference_of_testpmd_is_what_it_says_of_itself() {
    let [eal, own] = options();
    let page = read("testpmd.md");
    let written = with_part(&page, "EAL options", &eal);
    let written = with_part(&written, "options", &own);
    let written = with_part(&written, "console commands", &commands());
    for words in ["--vdev", "--forward-mode", "- `show port (info|", "### Flow rules"] {
        assert!(written.contains(words), "{words}");
    }
    if std::env::var_os(WRITE).is_some() {
        return std::fs::write(folder().join("testpmd.md"), written).expect("the page is written");
    }
    let different = page.lines().zip(written.lines()).find(|(is, should)| is != should);
    assert_eq!(
        different, None,
        "docs/guide/testpmd.md is not what testpmd says; `cargo xtask guide` writes it"
    );
    assert_eq!(page, written);
}
