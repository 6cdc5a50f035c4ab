//! The grammar of console commands: patterns, matching, completion. It does not depend on any command.
//!
//! A pattern consists of words separated by spaces: `show` matches itself, `(stats|info)` one of several
//! words, `<port>` and its like a value (see [`WordPattern`]), `<rest>` any words that follow. Words are
//! matched whole, as in DPDK.

use crate::testpmd::options::parse_number;

/// One word of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WordPattern {
    /// One of these words.
    Words(&'static str),
    /// `<port>`: a port number.
    Port,
    /// `<port|all>`: a port number or every port.
    Target,
    /// `<n>`: a number of at most 32 bits.
    Number,
    /// `<hex>`: a hexadecimal mask.
    Mask,
    /// `<text>`: any word.
    Text,
    /// `<rest>`, last in a pattern: all words that follow, or none.
    Rest,
}

impl WordPattern {
    fn of(word: &'static str) -> Self {
        match word {
            "<port>" => Self::Port,
            "<port|all>" => Self::Target,
            "<n>" => Self::Number,
            "<hex>" => Self::Mask,
            "<text>" => Self::Text,
            "<rest>" => Self::Rest,
            _ => Self::Words(word.strip_prefix('(').and_then(|w| w.strip_suffix(')')).unwrap_or(word)),
        }
    }

    /// Returns the value of `word`; `None` when it does not match.
    fn take(self, word: &str) -> Option<Value> {
        match self {
            Self::Words(words) => words.split('|').find(|w| *w == word).map(Value::Word),
            Self::Port => port(word).map(|p| Value::Target(Target::Port(p))),
            Self::Target if word == "all" => Some(Value::Target(Target::All)),
            Self::Target => port(word).map(|p| Value::Target(Target::Port(p))),
            Self::Number => u32::try_from(parse_number(word)?).ok().map(Value::Number),
            Self::Mask | Self::Text | Self::Rest => Some(Value::Text(word.to_owned())),
        }
    }

    /// The words that completion offers here, separated by `|`.
    fn suggestions(self) -> &'static str {
        match self {
            Self::Words(words) => words,
            Self::Target => "all",
            Self::Port | Self::Number | Self::Mask | Self::Text | Self::Rest => "",
        }
    }
}

fn port(word: &str) -> Option<u16> {
    u16::try_from(parse_number(word)?).ok()
}

/// One port, or every port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Port(u16),
    All,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Word(&'static str),
    Number(u32),
    Target(Target),
    Text(String),
}

/// The values of a matched line, in the order of the pattern; fixed words are left out.
#[derive(Debug, Default)]
pub(crate) struct Values(Vec<Value>);

impl Values {
    /// The `index`th value as a word: one of a choice, or free text.
    pub(crate) fn word(&self, index: usize) -> &str {
        match self.0.get(index) {
            Some(Value::Word(word)) => word,
            Some(Value::Text(text)) => text,
            _ => "",
        }
    }

    /// The words of `<rest>`, the last value.
    pub(crate) fn rest(&self) -> Vec<&str> {
        match self.0.last() {
            Some(Value::Text(text)) => words(text).collect(),
            _ => Vec::new(),
        }
    }

    /// The first port in the line.
    pub(crate) fn first_port(&self) -> Option<u16> {
        self.0.iter().find_map(|value| match value {
            Value::Target(Target::Port(port)) => Some(*port),
            _ => None,
        })
    }

    /// The `index`th value as a number.
    pub(crate) fn number(&self, index: usize) -> u32 {
        match self.0.get(index) {
            Some(Value::Number(number)) => *number,
            _ => 0,
        }
    }

    /// The `index`th value as text, for an answer that repeats it.
    pub(crate) fn shown(&self, index: usize) -> String {
        match self.0.get(index) {
            Some(Value::Word(word)) => (*word).to_owned(),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Target(Target::Port(port))) => port.to_string(),
            Some(Value::Target(Target::All)) => "all".to_owned(),
            Some(Value::Text(text)) => text.clone(),
            None => String::new(),
        }
    }

    /// The `index`th value as a port or all ports.
    pub(crate) fn target(&self, index: usize) -> Target {
        match self.0.get(index) {
            Some(Value::Target(target)) => *target,
            _ => Target::All,
        }
    }

    /// The `index`th value as one port.
    pub(crate) fn port(&self, index: usize) -> u16 {
        match self.target(index) {
            Target::Port(port) => port,
            Target::All => u16::MAX,
        }
    }
}

/// The result of matching a line.
#[derive(Debug)]
pub(crate) enum Match<C> {
    /// This command with these values.
    Found(C, Values),
    /// Only blanks or a comment.
    Empty,
    /// The first word of a command, followed by words that do not match.
    BadArguments,
    /// No command begins with the first word.
    NotFound,
}

/// The longest accepted line, in bytes.
pub(crate) const MAX_LINE: usize = 64 * 1024;

fn words(line: &str) -> impl Iterator<Item = &str> {
    let line = line.split('#').next().unwrap_or_default();
    line.split([' ', '\t', '\r', '\n']).filter(|word| !word.is_empty())
}

/// Finds the command that matches `line`.
pub(crate) fn find<C: Copy>(commands: impl Iterator<Item = (&'static str, C)>, line: &str) -> Match<C> {
    if line.len() > MAX_LINE {
        return Match::NotFound;
    }
    let given: Vec<&str> = words(line).collect();
    let Some(first) = given.first() else { return Match::Empty };
    let mut known = false;
    for (pattern, command) in commands {
        known |= pattern.split(' ').next().is_some_and(|w| WordPattern::of(w).take(first).is_some());
        if let Some(values) = matches(pattern, &given) {
            return Match::Found(command, values);
        }
    }
    if known { Match::BadArguments } else { Match::NotFound }
}

fn matches(pattern: &'static str, given: &[&str]) -> Option<Values> {
    let mut values = Values::default();
    let mut given = given.iter();
    for expected in pattern.split(' ') {
        if WordPattern::of(expected) == WordPattern::Rest {
            let rest: Vec<&str> = given.copied().collect();
            values.0.push(Value::Text(rest.join(" ")));
            return Some(values);
        }
        let value = WordPattern::of(expected).take(given.next()?)?;
        if !matches!(WordPattern::of(expected), WordPattern::Words(words) if !words.contains('|')) {
            values.0.push(value);
        }
    }
    given.next().is_none().then_some(values)
}

/// Returns where the last, unfinished word of `line` begins, and the words that may replace it.
pub(crate) fn complete(patterns: impl Iterator<Item = &'static str>, line: &str) -> (usize, Vec<String>) {
    let start = line.rfind([' ', '\t']).map_or(0, |at| at + 1);
    let (before, unfinished) = line.split_at(start);
    let before: Vec<&str> = words(before).collect();
    let mut found: Vec<String> = patterns
        .filter_map(|pattern| {
            let mut expected = pattern.split(' ');
            let fits =
                before.iter().all(|w| expected.next().is_some_and(|e| WordPattern::of(e).take(w).is_some()));
            expected.next().filter(|_| fits)
        })
        .flat_map(|next| WordPattern::of(next).suggestions().split('|'))
        .filter(|word| !word.is_empty() && word.starts_with(unfinished))
        .map(str::to_owned)
        .collect();
    found.sort_unstable();
    found.dedup();
    (start, found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATTERNS: [&str; 6] = [
        "start",
        "start tx_first <n>",
        "show port (info|stats) <port|all>",
        "set fwd (io|mac) retry",
        "load <text>",
        "flow create <port> <rest>",
    ];

    fn run(line: &str) -> Match<usize> {
        find(PATTERNS.iter().enumerate().map(|(i, p)| (*p, i)), line)
    }

    #[test]
    fn lines_are_matched_word_by_word() {
        for (line, want) in [
            ("start", 0),
            ("  start\t # now", 0),
            ("start tx_first 0x20", 1),
            ("show port stats all", 2),
            ("set fwd mac retry", 3),
            ("load a/b", 4),
        ] {
            assert!(matches!(run(line), Match::Found(i, _) if i == want), "{line}");
        }
        let Match::Found(_, values) = run("show  port\tinfo 7\r\n") else { panic!() };
        assert_eq!((values.word(0), values.target(1)), ("info", Target::Port(7)));
        let Match::Found(_, values) = run("start tx_first 32") else { panic!() };
        assert_eq!(values.number(0), 32);
        let Match::Found(5, values) = run("flow create 3  ingress\tpattern # of eth") else { panic!() };
        assert_eq!((values.first_port(), values.rest()), (Some(3), vec!["ingress", "pattern"]));
        let Match::Found(5, values) = run("flow create 3") else { panic!() };
        assert!(values.rest().is_empty());
    }

    #[test]
    fn what_does_not_match_is_told_apart_like_dpdk() {
        for line in ["", "   ", "# comment", "\r\n"] {
            assert!(matches!(run(line), Match::Empty), "{line}");
        }
        for line in
            ["start x", "start tx_first -1", "start tx_first 99999999999", "show", "show port stats 99999"]
        {
            assert!(matches!(run(line), Match::BadArguments), "{line}");
        }
        for line in ["foo", "sho port info 0", "été", "\0start", "start\0"] {
            assert!(matches!(run(line), Match::NotFound), "{line}");
        }
        assert!(matches!(run(&"start ".repeat(20_000)), Match::NotFound));
    }

    #[test]
    fn completion_follows_the_patterns() {
        let words = |line| complete(PATTERNS.into_iter(), line);
        assert_eq!(words("s"), (0, vec!["set".into(), "show".into(), "start".into()]));
        assert_eq!(words("show port "), (10, vec!["info".into(), "stats".into()]));
        assert_eq!(words("show port st"), (10, vec!["stats".into()]));
        assert_eq!(words("show port stats "), (16, vec!["all".into()]));
        assert_eq!(words("load "), (5, vec![]));
        assert_eq!(words("nothing "), (8, vec![]));
    }

    proptest! {
        #[test]
        fn any_line_is_survived(line in "\\PC{0,40}", tail in "(start|show port|set fwd| tx_first|#|\t| ){0,5}") {
            let line = line + &tail;
            let _ = run(&line);
            let (start, _) = complete(PATTERNS.into_iter(), &line);
            prop_assert!(line.is_char_boundary(start));
        }
    }
}
