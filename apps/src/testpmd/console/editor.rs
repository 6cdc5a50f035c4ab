//! The line that somebody types at a terminal: pure, bytes in, bytes for the terminal out.
//!
//! Typing a line and Enter prints that line and nothing else, so that a script on a terminal reads what it would read
//! from a pipe, whatever the terminal is called. Only the keys that edit make cursor movements.

/// Lines that are remembered, as long as the console runs.
const REMEMBERED: usize = 256;

/// Completes a line: where its last, unfinished word begins, and what it may become.
pub(crate) type Complete = fn(&str) -> (usize, Vec<String>);

/// A line that is being edited, and those before it.
pub(crate) struct Editor {
    prompt: &'static str,
    complete: Complete,
    longest: usize,
    line: Vec<char>,
    cursor: usize,
    /// What came of a key that takes several bytes: an escape sequence or a character.
    unfinished: Vec<u8>,
    /// The last byte was a carriage return: a line feed right after it is the same Enter.
    returned: bool,
    history: Vec<String>,
    /// The remembered line that is shown, and what was typed before it was asked for.
    recalled: Option<(usize, Vec<char>)>,
}

/// What a byte came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// The line goes on.
    More,
    /// A whole line.
    Line(String),
    /// Ctrl-D on an empty line.
    End,
}

const BACKSPACE: u8 = 0x08;
const DELETE: u8 = 0x7f;
const ESCAPE: u8 = 0x1b;

/// A control character's key with Ctrl.
const fn ctrl(letter: u8) -> u8 {
    letter & 0x1f
}

impl Editor {
    /// An empty line of up to `longest` bytes behind `prompt`.
    pub(crate) fn new(prompt: &'static str, longest: usize, complete: Complete) -> Self {
        Self {
            prompt,
            complete,
            longest,
            line: Vec::new(),
            cursor: 0,
            unfinished: Vec::new(),
            returned: false,
            history: Vec::new(),
            recalled: None,
        }
    }

    /// The prompt and what is typed so far.
    pub(crate) fn shown(&self) -> String {
        let back = self.line.len() - self.cursor;
        let line: String = self.line.iter().collect();
        format!("{}{line}{}", self.prompt, "\x08".repeat(back))
    }

    /// Takes one byte; appends to `out` what the terminal is to show.
    pub(crate) fn take(&mut self, byte: u8, out: &mut String) -> Typed {
        let returned = std::mem::take(&mut self.returned);
        if !self.unfinished.is_empty() {
            return self.take_unfinished(byte, out);
        }
        match byte {
            b'\n' if returned => {}
            b'\r' | b'\n' => {
                self.returned = byte == b'\r';
                return Typed::Line(self.enter(out));
            }
            _ if byte == ctrl(b'd') && self.line.is_empty() => return Typed::End,
            ESCAPE => self.unfinished.push(byte),
            b'\t' => self.tab(out),
            BACKSPACE | DELETE => self.erase(self.cursor.saturating_sub(1), self.cursor, out),
            0..=0x1f => self.control(byte, out),
            0x20..=0x7e => self.insert(char::from(byte), out),
            0xc2..=0xf4 => self.unfinished.push(byte),
            _ => self.insert(char::REPLACEMENT_CHARACTER, out),
        }
        Typed::More
    }

    fn enter(&mut self, out: &mut String) -> String {
        // The terminal makes it a carriage return and a line feed, which is what a pipe gets.
        out.push('\n');
        let line: String = std::mem::take(&mut self.line).into_iter().collect();
        (self.cursor, self.recalled) = (0, None);
        if !line.trim().is_empty() && self.history.last() != Some(&line) {
            if self.history.len() == REMEMBERED {
                self.history.remove(0);
            }
            self.history.push(line.clone());
        }
        line
    }

    /// The keys that readline has with Ctrl; others do nothing.
    fn control(&mut self, byte: u8, out: &mut String) {
        let end = self.line.len();
        match byte | 0x60 {
            b'a' => self.move_to(0, out),
            b'b' => self.move_to(self.cursor.saturating_sub(1), out),
            b'd' => self.erase(self.cursor, self.cursor + 1, out),
            b'e' => self.move_to(end, out),
            b'f' => self.move_to(self.cursor + 1, out),
            b'k' => self.erase(self.cursor, end, out),
            b'n' => self.recall(true, out),
            b'p' => self.recall(false, out),
            b'u' => self.erase(0, self.cursor, out),
            b'w' => {
                let before = &self.line[..self.cursor];
                let blanks = before.iter().rposition(|c| *c != ' ').map_or(0, |at| at + 1);
                let word = before[..blanks].iter().rposition(|c| *c == ' ').map_or(0, |at| at + 1);
                self.erase(word, self.cursor, out);
            }
            _ => {}
        }
    }

    /// A byte behind the first of an escape sequence (ECMA-48: CSI, SS3) or of a character (UTF-8).
    fn take_unfinished(&mut self, byte: u8, out: &mut String) -> Typed {
        /// Longer than any key.
        const LONGEST: usize = 16;
        self.unfinished.push(byte);
        match self.unfinished.as_slice() {
            [ESCAPE, b'[' | b'O'] => {}
            [ESCAPE, b'[' | b'O', rest @ ..] => {
                let last = rest.last().is_some_and(|byte| (0x40..=0x7e).contains(byte));
                if last || rest.len() == LONGEST {
                    let key = std::mem::take(&mut self.unfinished);
                    self.key(&key[2..], out);
                }
            }
            [ESCAPE, ..] => self.unfinished.clear(),
            bytes => match std::str::from_utf8(bytes) {
                Ok(text) => {
                    let typed = text.chars().next();
                    self.unfinished.clear();
                    typed.into_iter().for_each(|c| self.insert(c, out));
                }
                Err(error) if error.error_len().is_none() => {}
                // No character begins like this; the last byte is a key of its own.
                Err(_) => {
                    self.unfinished.clear();
                    self.insert(char::REPLACEMENT_CHARACTER, out);
                    return self.take(byte, out);
                }
            },
        }
        Typed::More
    }

    fn key(&mut self, sequence: &[u8], out: &mut String) {
        let end = self.line.len();
        match sequence {
            b"A" => self.recall(false, out),
            b"B" => self.recall(true, out),
            b"C" => self.move_to(self.cursor + 1, out),
            b"D" => self.move_to(self.cursor.saturating_sub(1), out),
            b"H" | b"1~" | b"7~" => self.move_to(0, out),
            b"F" | b"4~" | b"8~" => self.move_to(end, out),
            b"3~" => self.erase(self.cursor, self.cursor + 1, out),
            _ => {}
        }
    }

    fn insert(&mut self, c: char, out: &mut String) {
        // What is too long is no command either way; it is not kept for ever.
        if c.is_control() || self.line.len() > self.longest {
            return;
        }
        self.line.insert(self.cursor, c);
        self.cursor += 1;
        out.push(c);
        self.tail(0, out);
    }

    /// Shows again what is behind the cursor, which stays, and blanks over `gone` characters.
    fn tail(&self, gone: usize, out: &mut String) {
        out.extend(&self.line[self.cursor..]);
        out.extend(std::iter::repeat_n(' ', gone));
        out.extend(std::iter::repeat_n('\x08', self.line.len() - self.cursor + gone));
    }

    fn move_to(&mut self, to: usize, out: &mut String) {
        let to = to.min(self.line.len());
        if to < self.cursor {
            out.extend(std::iter::repeat_n('\x08', self.cursor - to));
        } else {
            out.extend(&self.line[self.cursor..to]);
        }
        self.cursor = to;
    }

    /// Removes the characters from `from` to `to`.
    fn erase(&mut self, from: usize, to: usize, out: &mut String) {
        let to = to.min(self.line.len());
        if from >= to {
            return;
        }
        self.move_to(from, out);
        self.line.drain(from..to);
        self.tail(to - from, out);
    }

    /// Shows an older line, or a newer one.
    fn recall(&mut self, newer: bool, out: &mut String) {
        let end = self.history.len();
        let at = self.recalled.as_ref().map_or(end, |(at, _)| *at);
        let to = if newer { at + 1 } else { at.wrapping_sub(1) };
        let typed = match (self.recalled.take(), to > end) {
            // Beyond either end.
            (kept, true) => return self.recalled = kept,
            (Some((_, typed)), _) => typed,
            (None, _) => self.line.clone(),
        };
        let line = match self.history.get(to) {
            Some(line) => line.chars().collect(),
            None => typed.clone(),
        };
        self.erase(0, self.line.len(), out);
        line.into_iter().for_each(|c| self.insert(c, out));
        self.recalled = (to < end).then_some((to, typed));
    }

    /// Completes the word before the cursor as far as it is clear, and lists what is possible when it is not.
    fn tab(&mut self, out: &mut String) {
        let before: String = self.line[..self.cursor].iter().collect();
        let (start, words) = (self.complete)(&before);
        let Some(first) = words.first() else { return };
        let same = |a: &str, b: &str| a.chars().zip(b.chars()).take_while(|(x, y)| x == y).count();
        let common = words.iter().map(|word| same(word, first)).min().unwrap_or(0);
        let typed = before.get(start..).map_or(0, |word| word.chars().count());
        if common > typed || words.len() == 1 {
            first.chars().take(common).skip(typed).for_each(|c| self.insert(c, out));
            if words.len() == 1 {
                self.insert(' ', out);
            }
            return;
        }
        out.push('\n');
        out.push_str(&words.join("  "));
        out.push('\n');
        out.push_str(&self.shown());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn complete(line: &str) -> (usize, Vec<String>) {
        let start = line.rfind(' ').map_or(0, |at| at + 1);
        let words = ["start", "stop", "show"].into_iter().filter(|word| word.starts_with(&line[start..]));
        (start, words.map(str::to_owned).collect())
    }

    fn editor() -> Editor {
        Editor::new("> ", 1000, complete)
    }

    /// The lines that come of `bytes`, and what is shown.
    fn typed(editor: &mut Editor, bytes: &[u8]) -> (Vec<Typed>, String) {
        let mut out = String::new();
        let all = bytes.iter().map(|byte| editor.take(*byte, &mut out)).collect::<Vec<_>>();
        (all.into_iter().filter(|typed| *typed != Typed::More).collect(), out)
    }

    /// What a terminal that knows nothing but backspace shows in its last line.
    fn seen(out: &str) -> String {
        let (mut row, mut at): (Vec<char>, usize) = (Vec::new(), 0);
        for c in out.chars() {
            match c {
                '\x08' => at = at.saturating_sub(1),
                '\r' => at = 0,
                '\n' => (row, at) = (Vec::new(), 0),
                _ => {
                    row.resize(row.len().max(at + 1), ' ');
                    row[at] = c;
                    at += 1;
                }
            }
        }
        row.into_iter().collect::<String>().trim_end().to_owned()
    }

    #[test]
    fn a_plain_line_is_shown_as_it_is() {
        for end in ["\n", "\r", "\r\n"] {
            let mut editor = editor();
            let (lines, out) = typed(&mut editor, format!("set fwd é{end}quit{end}").as_bytes());
            assert_eq!(lines, [Typed::Line("set fwd é".into()), Typed::Line("quit".into())]);
            assert_eq!(out, "set fwd é\nquit\n");
        }
        assert_eq!(typed(&mut editor(), b"\n\x04").0, [Typed::Line(String::new()), Typed::End]);
        assert_eq!(typed(&mut editor(), b"a\x04\n").0, [Typed::Line("a".into())]);
    }

    #[test]
    fn keys_edit() {
        for (bytes, want) in [
            (&b"stxp\x7f\x7fop"[..], "stop"),
            (b"top\x01s", "stop"),
            (b"sttop\x1b[D\x1b[D\x1b[D\x08", "stop"),
            (b"xstop\x1b[H\x1b[3~", "stop"),
            (b"stop now\x17\x7f", "stop"),
            (b"junk\x15stop", "stop"),
            (b"stopping\x02\x02\x02\x02\x0b", "stop"),
            (b"st\x1bOD\x1bOC\x05op", "stop"),
            (b"sto\t", "stop "),
            (b"stop\x1b[99~\x1bx\x00", "stop"),
            (b"\xffstop\x01\x04", "stop"),
        ] {
            let mut editor = editor();
            let (_, out) = typed(&mut editor, bytes);
            assert_eq!(seen(&out), want.trim_end(), "{}", bytes.escape_ascii());
            assert_eq!(typed(&mut editor, b"\n").0, [Typed::Line(want.into())], "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn what_is_possible_is_listed() {
        let (_, out) = typed(&mut editor(), b"s\t");
        assert_eq!(out, "s\nstart  stop  show\n> s");
        assert_eq!(typed(&mut editor(), b"x\t").1, "x");
    }

    #[test]
    fn lines_before_come_back() {
        let mut editor = editor();
        typed(&mut editor, b"one\ntwo\n\ntwo\n");
        for (keys, want) in [
            (&b"new\x1b[A"[..], "two"),
            (b"\x1b[A", "one"),
            (b"\x1b[A", "one"),
            (b"\x1b[B", "two"),
            (b"\x1b[B", "new"),
            (b"\x1b[B", "new"),
            (b"\x10\x10!", "one!"),
        ] {
            typed(&mut editor, keys);
            assert_eq!(editor.shown(), format!("> {want}"), "{}", keys.escape_ascii());
        }
        assert_eq!(typed(&mut editor, b"\n").0, [Typed::Line("one!".into())]);
    }

    proptest! {
        #[test]
        fn the_terminal_shows_the_line(bytes in prop::collection::vec(
            prop_oneof![3 => 0x20..0x7f_u8, 1 => 1..0x20_u8, 1 => Just(0x1b_u8), 1 => Just(b'['), 1 => any::<u8>()], 0..60,
        )) {
            let mut editor = editor();
            let mut out = editor.shown();
            for byte in bytes {
                editor.take(byte, &mut out);
                if matches!(byte, b'\r' | b'\n') {
                    out = editor.shown();
                }
            }
            prop_assert_eq!(seen(&out), seen(&editor.shown()));
        }
    }
}
