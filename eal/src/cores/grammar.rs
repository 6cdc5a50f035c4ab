//! The text formats of lcore maps: EAL's `--lcores`, which includes `-l` lists, and `-c` masks.
//!
//! ```text
//! map   = item { "," item }
//! item  = set [ "@" set ]        lcores, and the cores each of them may use
//! set   = range | "(" range { "," range } ")"
//! range = number [ "-" number ]  in either order
//! ```
//! Without `@`, each lcore of a plain range runs on the core with its number, and each lcore of a group in
//! parentheses on all cores of the group. A later item overrides an earlier one. Blanks are allowed between
//! tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::str::Chars;

use super::MAX_CORES;

type Set = BTreeSet<u32>;

/// An error in the form of words that follow "expected".
pub(super) type Wrong = String;

/// Parses a map of lcores to cores.
pub(super) fn map(text: &str) -> Result<BTreeMap<u32, Set>, Wrong> {
    let mut cursor = Cursor { chars: text.chars().peekable() };
    let mut map = BTreeMap::new();
    loop {
        item(&mut cursor, &mut map)?;
        match cursor.next() {
            None => return Ok(map),
            Some(',') => {}
            Some(other) => return Err(format!("a comma or the end, not '{other}'")),
        }
    }
}

fn item(cursor: &mut Cursor<'_>, map: &mut BTreeMap<u32, Set>) -> Result<(), Wrong> {
    let grouped = cursor.peek() == Some('(');
    let lcores = set(cursor)?;
    let cores = match cursor.eat('@') {
        true => Some(set(cursor)?),
        false if grouped => Some(lcores.clone()),
        false => None,
    };
    for lcore in lcores {
        map.insert(lcore, cores.clone().unwrap_or_else(|| Set::from([lcore])));
    }
    Ok(())
}

fn set(cursor: &mut Cursor<'_>) -> Result<Set, Wrong> {
    let mut set = Set::new();
    if !cursor.eat('(') {
        set.extend(range(cursor)?);
        return Ok(set);
    }
    loop {
        set.extend(range(cursor)?);
        match cursor.next() {
            Some(',') => {}
            Some(')') => return Ok(set),
            _ => return Err("a comma or ')' in a group".into()),
        }
    }
}

fn range(cursor: &mut Cursor<'_>) -> Result<impl Iterator<Item = u32> + use<>, Wrong> {
    let first = number(cursor)?;
    let last = if cursor.eat('-') { number(cursor)? } else { first };
    Ok(first.min(last)..=first.max(last))
}

fn number(cursor: &mut Cursor<'_>) -> Result<u32, Wrong> {
    let wrong = || format!("a number from 0 to {}", MAX_CORES - 1);
    let mut value = cursor.digit().ok_or_else(wrong)?;
    while let Some(digit) = cursor.adjacent_digit() {
        // A saturated value is out of range, so overflow needs no further check.
        value = value.saturating_mul(10).saturating_add(digit);
    }
    if value < MAX_CORES { Ok(value) } else { Err(wrong()) }
}

/// Parses the bits of a hexadecimal mask, with or without "0x".
pub(super) fn mask(text: &str) -> Result<Set, Wrong> {
    let text = text.trim();
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    let mut set = Set::new();
    for (place, digit) in digits.chars().rev().enumerate() {
        let digit = digit.to_digit(16).ok_or("a hexadecimal mask such as 0xf")?;
        let low = u32::try_from(place).ok().and_then(|place| place.checked_mul(4));
        for bit in (0..4).filter(|bit| digit >> bit & 1 == 1) {
            let core = low.map(|low| low + bit).filter(|core| *core < MAX_CORES);
            set.insert(core.ok_or_else(|| format!("bits below {MAX_CORES}"))?);
        }
    }
    if set.is_empty() { Err("a mask with at least one bit, such as 0x3".into()) } else { Ok(set) }
}

/// Formats sorted numbers as "0-3,5".
pub(super) fn ranges(numbers: &[u32]) -> String {
    let runs = numbers.chunk_by(|a, b| a.checked_add(1) == Some(*b));
    let runs = runs.filter_map(|run| match run {
        [] => None,
        [one] => Some(one.to_string()),
        [first, .., last] => Some(format!("{first}-{last}")),
    });
    runs.collect::<Vec<_>>().join(",")
}

/// Characters, skipping blanks between tokens.
struct Cursor<'a> {
    chars: Peekable<Chars<'a>>,
}

impl Cursor<'_> {
    fn peek(&mut self) -> Option<char> {
        while self.chars.next_if(|c| *c == ' ' || *c == '\t').is_some() {}
        self.chars.peek().copied()
    }

    fn next(&mut self) -> Option<char> {
        self.peek()?;
        self.chars.next()
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.next();
        }
        found
    }

    fn digit(&mut self) -> Option<u32> {
        self.peek();
        self.adjacent_digit()
    }

    fn adjacent_digit(&mut self) -> Option<u32> {
        self.chars.next_if(|c| c.is_ascii_digit())?.to_digit(10)
    }
}
