//! The line editor of the console. Free of I/O: takes bytes from the keyboard, returns bytes for the
//! terminal.
//!
//! A typed line is echoed exactly as typed, so that a script on a terminal reads what it would read from a
//! pipe, whatever the terminal type. Only the editing keys move the cursor.

/// The most lines in the history, which lasts as long as the console runs.
const REMEMBERED: usize = 256;

/// Completes a line: returns where its last, unfinished word begins, and the candidates for it.
pub(crate) type Complete = fn(&str) -> (usize, Vec<String>);

/// The line that is being edited, and the history.
pub(crate) struct Editor {
    prompt: &'static str,
    complete: Complete,
    longest: usize,
    line: Vec<char>,
    cursor: usize,
    /// The bytes so far of a key that takes several: an escape sequence or a UTF-8 character.
    unfinished: Vec<u8>,
    /// The last byte was a carriage return: a line feed directly after it belongs to the same Enter.
    returned: bool,
    history: Vec<String>,
    /// The position in the history that is shown, and the text that was typed before.
    recalled: Option<(usize, Vec<char>)>,
}

/// The result of one byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// The line is not finished.
    More,
    /// A finished line.
    Line(String),
    /// Ctrl-D on an empty line.
    End,
}

const BACKSPACE: u8 = 0x08;
const DELETE: u8 = 0x7f;
const ESCAPE: u8 = 0x1b;

/// Returns the control character of a letter.
const fn ctrl(letter: u8) -> u8 {
    letter & 0x1f
}

impl Editor {
    /// Creates an editor with an empty line of up to `longest` characters behind `prompt`.
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

    /// Returns the prompt and the line so far.
    pub(crate) fn shown(&self) -> String {
        let back = self.line.len() - self.cursor;
        let line: String = self.line.iter().collect();
        format!("{}{line}{}", self.prompt, "\x08".repeat(back))
    }

    /// Processes one byte; appends the terminal's output to `out`.
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
        // The terminal turns it into a carriage return and a line feed; a pipe gets the line feed.
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

    /// Handles the control keys that readline has too; ignores others.
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

    /// Handles a byte after the first of an escape sequence (ECMA-48: CSI, SS3) or of a character (UTF-8).
    fn take_unfinished(&mut self, byte: u8, out: &mut String) -> Typed {
        /// Longer than the sequence of any key.
        const LONGEST: usize = 16;
        // No sequence contains a control character: it is a key of its own, also after the Escape key.
        if byte < 0x20 && self.unfinished.first() == Some(&ESCAPE) {
            self.unfinished.clear();
            return self.take(byte, out);
        }
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
                // Invalid UTF-8: the last byte is processed as a key of its own.
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
        // A line this long is no command; its further characters are dropped.
        if c.is_control() || self.line.len() > self.longest {
            return;
        }
        self.line.insert(self.cursor, c);
        self.cursor += 1;
        out.push(c);
        self.tail(0, out);
    }

    /// Prints the text behind the cursor again, clears `gone` characters after it, and puts the cursor back.
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

    /// Shows the previous line of the history, or the next.
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

    /// Completes the word before the cursor as far as it is unambiguous, and lists the candidates when it is
    /// not.
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

    /// Returns the results of `bytes`, and the echoed text.
    fn typed(editor: &mut Editor, bytes: &[u8]) -> (Vec<Typed>, String) {
        let mut out = String::new();
        let all = bytes.iter().map(|byte| editor.take(*byte, &mut out)).collect::<Vec<_>>();
        (all.into_iter().filter(|typed| *typed != Typed::More).collect(), out)
    }

    /// Returns the last line that a terminal with support for backspace only would show.
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
    fn enter_is_not_part_of_an_escape_sequence() {
        for bytes in [&b"stop\x1b\r\n"[..], b"stop\x1b\n", b"stop\x1b[\r", b"stop\x1bO\n", b"stop\x1b[1;\r"] {
            let (lines, out) = typed(&mut editor(), bytes);
            assert_eq!(lines, [Typed::Line("stop".into())], "{}", bytes.escape_ascii());
            assert_eq!(out, "stop\n");
        }
        // Escape, then an arrow.
        assert_eq!(typed(&mut editor(), b"sop\x1b\x1b[D\x1b[Dt\n").0, [Typed::Line("stop".into())]);
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
