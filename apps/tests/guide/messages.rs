//! Messages that the guide quotes are messages of the program: some are provoked, all are found in its sources.

use std::path::Path;
use std::str::FromStr as _;

use proc_macro2::{TokenStream, TokenTree};

use super::common::{linecard, run, testpmd};
use super::{pages, read, repository};

/// What the kernel adds to a message.
const KERNEL: [&str; 7] = [
    ": No such file or directory",
    ": Permission denied",
    ": Device or resource busy",
    ": Operation not permitted",
    ": Cannot allocate memory",
    ": Address already in use",
    ": No such device",
];

/// The messages in the first column of a page's tables that are headed `message`.
fn quoted(page: &str) -> Vec<String> {
    let (mut all, mut inside) = (Vec::new(), false);
    for line in page.lines() {
        let Some(first) = line.strip_prefix('|').and_then(|rest| rest.split(" | ").next()) else {
            inside = false;
            continue;
        };
        if first.trim() == "message" {
            inside = true;
        } else if inside && first.trim_start().starts_with('`') {
            all.extend(first.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    all
}

/// The string literals of Rust sources, comments left out.
fn literals(stream: TokenStream, all: &mut Vec<String>) {
    let mut documents = false;
    for token in stream {
        match token {
            TokenTree::Group(group) => literals(group.stream(), all),
            TokenTree::Ident(ident) => documents = ident == "doc",
            TokenTree::Punct(_) => {}
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                if let Some(text) =
                    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).filter(|_| !documents)
                {
                    all.push(plain(text));
                }
                documents = false;
            }
        }
    }
}

/// A literal as it is printed: continued lines joined, escapes undone.
fn plain(text: &str) -> String {
    let (mut all, mut characters) = (String::new(), text.chars().peekable());
    while let Some(character) = characters.next() {
        match (character, characters.peek()) {
            ('\\', Some('\n')) => while characters.next_if(|c| c.is_whitespace()).is_some() {},
            ('\\', Some('n')) => {
                characters.next();
                all.push('\n');
            }
            ('\\', Some(_)) => all.extend(characters.next()),
            _ => all.push(character),
        }
    }
    all
}

/// Every literal of the crates' sources but their tests'.
fn sources(folder: &Path, all: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let skipped =
            ["target", "tests", "tests.rs", "fuzz", "examples", "benches", "xtask", "testing", "docs"];
        if skipped.contains(&name.as_str()) || name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            sources(&path, all);
        } else if name.ends_with(".rs") {
            let text = std::fs::read_to_string(&path).expect("a source");
            let stream = TokenStream::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            literals(stream, all);
        }
    }
}

/// What stands between the holes of a text: `{…}` of the sources, `…`, `N` and `M` of the guide.
fn pieces(text: &str) -> Vec<String> {
    let (mut all, mut piece, mut depth) = (Vec::new(), String::new(), 0_u32);
    for character in text.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            '…' => {}
            _ if depth > 0 => continue,
            _ => {
                piece.push(character);
                continue;
            }
        }
        all.push(std::mem::take(&mut piece));
    }
    all.push(piece);
    let hole = |word: &str| matches!(word, "N" | "M");
    let split = |piece: String| {
        let words: Vec<&str> = piece.split(' ').collect();
        words.split(|word| hole(word)).map(|words| words.join(" ")).collect::<Vec<_>>()
    };
    all.into_iter().flat_map(split).filter(|piece| !piece.trim().is_empty()).collect()
}

/// Whether all pieces are in the text, in their order.
fn in_order(pieces: &[String], mut text: &str) -> bool {
    pieces.iter().all(|piece| match text.split_once(piece.trim()) {
        Some((_, rest)) => {
            text = rest;
            true
        }
        None => false,
    })
}

/// Whether a literal of the sources makes this message, or contains it.
fn made_by(message: &str, literal: &str) -> bool {
    let (of_message, of_literal) = (pieces(message), pieces(literal));
    let len = |pieces: &[String]| pieces.iter().map(|piece| piece.trim().len()).sum::<usize>();
    let whole =
        in_order(&of_literal, message) && len(&of_literal) >= 7 && len(&of_literal) * 4 >= message.len();
    whole || (in_order(&of_message, literal) && len(&of_message) >= 12)
}

#[test]
fn every_quoted_message_is_in_the_sources() {
    let mut all = Vec::new();
    sources(&repository(), &mut all);
    assert!(all.len() > 2000, "{}", all.len());
    let (mut count, mut unknown) = (0, Vec::new());
    for name in pages() {
        for message in quoted(&read(&name)) {
            count += 1;
            let bare =
                KERNEL.iter().fold(message.as_str(), |text, end| text.strip_suffix(end).unwrap_or(text));
            if !all.iter().any(|literal| made_by(bare, literal)) {
                unknown.push(format!("{name}: {message}"));
            }
        }
    }
    assert!(count > 40, "{count}");
    assert!(unknown.is_empty(), "no source has these messages: {unknown:#?}");
}

#[test]
fn messages_that_nothing_prints_are_found() {
    let literal = "a queue_size of {asked} asked, the device takes {max}";
    assert!(made_by("a queue_size of N asked, the device takes M", literal));
    assert!(!made_by("a queue size of N wanted, the device takes M", literal));
    assert!(made_by("opening /dev/vhost-net", "opening {}"));
    assert!(!made_by("opening /dev/vhost-net", "{path}: {error}"));
    assert_eq!(plain("a \\\n      b\\\"c"), "a b\"c");
    let mut found = Vec::new();
    literals(TokenStream::from_str("/// \"no\"\nfn a() { b(\"yes {}\"); }").unwrap(), &mut found);
    assert_eq!(found, ["yes {}"]);
}

/// Whether an answer has this message, with holes.
fn says(answer: &str, message: &str) -> bool {
    answer.lines().any(|line| in_order(&pieces(message), line))
}

/// What is typed, and the message of the page that answers it.
const PROVOKED: &[(&[&str], &[&str], &str)] = &[
    (&["--vdve", "net_null0"], &[], "unknown option …, did you mean …?: see --help"),
    (
        &["stray"],
        &[],
        "unexpected argument \"…\": EAL options come first, the application's own after \"--\"",
    ),
    (&["--lcores", "0@x"], &[], "core map \"…\" is malformed: expected …"),
    (
        &["-m", "99999999", "--vdev", "net_null0"],
        &[],
        "memory limit (-m): … asked, this machine has …: ask for less",
    ),
    (&["--vdev", "net_nul0"], &[], "no driver for device '…'; known drivers: …"),
    (&["--vdev", "net_null0,sise=64"], &[], "unknown argument '…'; did you mean '…'? known: …"),
    (&["--vdev", "net_null0,size=x"], &[], "'…=…' is not possible; give …"),
    (&["--vdev", "net_virtio_user0"], &[], "'…' is missing"),
    (
        &["--vdev", "net_null0", "--vdev", "net_null0"],
        &[],
        "the command line names … twice; give the second one another number",
    ),
    (
        &["--vdev", "net_virtio_user0,path=/nonexistent/s"],
        &[],
        "cannot connect to '…': No such file or directory",
    ),
    (&["--vdev", "net_virtio_user0,path=/tmp"], &[], "… is …, not a socket"),
    (
        &["--vdev", "net_vhost0,iface=/nonexistent/s"],
        &[],
        "the directory of socket … does not exist, or takes no sockets",
    ),
    (&["-m", "8", "--vdev", "net_null0"], &["--total-num-mbufs=100000"], "pool \"…\": …"),
];

#[test]
fn quoted_messages_are_printed() {
    let page = read("troubleshooting.md");
    let quoted = quoted(&page);
    for (eal, app, message) in PROVOKED {
        assert!(quoted.iter().any(|known| known == message), "{message} is not on the page");
        let eal = [&["--in-memory"], *eal].concat();
        let said = run(&mut testpmd(&eal, app), b"");
        assert!(said.code != Some(0) && says(&said.err, message), "{eal:?}: {message}: {said:?}");
    }
    for (arguments, message) in [
        (
            &["top", "--once", "--file-prefix", "guide-nobody"][..],
            "no program with telemetry and --file-prefix",
        ),
        (&["switch", "ctl", "--socket", "/nonexistent/s", "ports"], "no switch answers at …: …"),
    ] {
        let said = run(&mut linecard(arguments), b"");
        assert!(said.code != Some(0) && says(&said.err, message), "{arguments:?}: {said:?}");
    }
}
