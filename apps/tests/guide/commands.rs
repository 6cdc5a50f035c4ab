//! Every command of the README and the guide is one that the program takes: each is parsed, with `--help` behind its arguments, and
//! nothing is started.

use std::process::{Command, Stdio};

use super::common::answers;
use super::{pages, read, repository};

/// The lines of a text's code blocks, those that end in a backslash joined with the next.
fn code(text: &str) -> Vec<String> {
    let (mut lines, mut inside, mut joined) = (Vec::new(), false, String::new());
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if inside {
            match line.strip_suffix('\\') {
                Some(part) => joined += part,
                None => lines.push(std::mem::take(&mut joined) + line),
            }
        }
    }
    lines
}

/// The words of a command's arguments up to a comment, a pipe, a redirection or the next command, without their quotes.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in text.chars() {
        match (letter, quote) {
            (_, Some(open)) if letter == open => quote = None,
            (_, Some(_)) => word.get_or_insert_default().push(letter),
            ('\'' | '"', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (' ', None) => words.extend(word.take()),
            ('|' | '>' | '<' | '&' | ')' | ';', None) => break,
            ('#', None) if word.is_none() => break,
            (_, None) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// The arguments of each call of the program in a line of shell.
fn calls(line: &str) -> Vec<Vec<String>> {
    let begins = ["linecard ", "cargo run --release -- "];
    let mut calls = Vec::new();
    for begin in begins {
        let starts = line.match_indices(begin).filter(|(at, _)| {
            let before = &line[..*at];
            before.is_empty() || before.ends_with([' ', '/', '('])
        });
        for (at, _) in starts {
            let call = words(&line[at + begin.len()..]);
            let named =
                call.first().is_some_and(|word| word.chars().all(|letter| letter.is_ascii_lowercase()));
            // An ellipsis or a variable stands for what the reader has.
            if named
                && !call.iter().any(|word| word.contains('…') || word.starts_with('$') && !word.contains('/'))
            {
                calls.push(call);
            }
        }
    }
    calls
}

/// What the program says against a call, if it is none of its own.
fn refusal(call: &[String]) -> Option<String> {
    // Behind `cni run … --` is another command.
    let end =
        call.iter().position(|word| word == "--").filter(|_| call.first().is_some_and(|word| word == "cni"));
    let own = call.split_at(end.unwrap_or(call.len())).0;
    let mut program = Command::new(env!("CARGO_BIN_EXE_linecard"));
    let output = program.args(own).arg("--help").stdin(Stdio::null()).output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (!output.status.success()).then(|| format!("linecard {}\n    {said}", call.join(" ")))
}

#[test]
fn every_command_is_one_that_the_program_takes() {
    let readme = std::fs::read_to_string(repository().join("README.md")).expect("the README");
    let texts = pages().into_iter().map(|name| (read(&name), name));
    let (mut count, mut wrong) = (0, Vec::new());
    for (text, name) in texts.chain([(readme, "README.md".to_owned())]) {
        for call in code(&text).iter().flat_map(|line| calls(line)) {
            count += 1;
            wrong.extend(refusal(&call).map(|said| format!("{name}: {said}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 60, "{count} calls were found");
}

/// The console's lines in the page about testpmd, on ports that answer each of them.
#[test]
fn the_consoles_lines_are_carried_out() {
    let page = read("testpmd.md");
    let (_, block) = page.split_once("```text\nport config all rss udp").expect("the block");
    let (block, _) = block.split_once("```").expect("its end");
    let block = format!("port config all rss udp{block}");
    let lines: Vec<&str> = block.lines().map(|line| line.split("   ").next().unwrap_or(line)).collect();
    assert!(lines.len() >= 6, "{lines:?}");
    let input: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
    let ports = ["-m", "64", "--in-memory", "--vdev", "net_null0", "--vdev", "net_null1"];
    let own = ["-i", "--total-num-mbufs=2048", "--rxq=2", "--txq=2"];
    let said = answers(&ports, &own, &format!("{input}quit\n")).join("\n");
    for problem in ["Bad arguments", "Command not found", "not supported", "flow: ", "Invalid", "rror"] {
        assert!(!said.contains(problem), "{problem}:\n{said}");
    }
}

#[test]
fn calls_are_found_in_lines_of_shell() {
    let call = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    for (line, want) in [
        ("linecard demo --seconds 1  # a second", vec![call(&["demo", "--seconds", "1"])]),
        (
            "sudo linecard capture -p 0 -f 'tcp port 80' -w - | tshark -r -",
            vec![call(&["capture", "-p", "0", "-f", "tcp port 80", "-w", "-"])],
        ),
        ("git clone x linecard && cd linecard", vec![]),
        ("cargo run --release -- demo", vec![call(&["demo"])]),
        ("target/release/linecard top >out", vec![call(&["top"])]),
        ("linecard testpmd … -- -i", vec![]),
        ("dpdk-telemetry.py -f linecard         # then", vec![]),
    ] {
        assert_eq!(calls(line), want, "{line}");
    }
}
