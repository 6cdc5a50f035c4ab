//! A table on a terminal, drawn again and again: as much of it as fits, and keys to scroll, to sort and to end it.

use std::cmp::Reverse;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};

use crate::output::{Output, out};

/// What rows can be sorted by; by name, as they come.
const COLUMNS: [&str; 6] = ["name", "rx packets", "rx bits", "tx packets", "tx bits", "lost"];
/// How often the size of the terminal and the signals are looked at.
const NAP: Duration = Duration::from_millis(50);
/// A screen of its own, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// The time came.
    Time,
    /// The same has to be drawn in another way.
    Redraw,
    /// Somebody wants it to end.
    End,
}

/// What of a table is shown, and in which order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct View {
    /// The first line below the heading.
    first: usize,
    column: usize,
    reversed: bool,
    /// Lines below the heading that there were, and that fitted, when it was drawn last.
    lines: usize,
    room: usize,
}

impl View {
    /// What keys mean, all that came at once; `None` for the end.
    fn press(&mut self, keys: &[u8]) -> Option<()> {
        let page = self.room.max(1);
        let mut rest = keys;
        while let Some((key, after)) = rest.split_first() {
            rest = after;
            let begins = *key == 0x1b && matches!(after.first(), Some(b'[' | b'O'));
            let sequence: &[u8] = if begins { after } else { &[] };
            // Arrows come as `[A` or `OA`, paging keys as `[5~`.
            let end =
                sequence.iter().skip(1).position(|byte| matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'~'));
            let named = end.map(|end| sequence.split_at(end + 2));
            let name = named.map_or(&[][..], |(name, after)| {
                rest = after;
                name
            });
            self.first = match (key, name) {
                (b'q' | b'Q', _) => return None,
                (b'k', _) | (_, b"[A" | b"OA") => self.first.saturating_sub(1),
                (b'j', _) | (_, b"[B" | b"OB") => self.first + 1,
                (b'b', _) | (_, b"[5~") => self.first.saturating_sub(page),
                (b' ', _) | (_, b"[6~") => self.first + page,
                (b'g', _) | (_, b"[H" | b"OH" | b"[1~") => 0,
                (b'G', _) | (_, b"[F" | b"OF" | b"[4~") => self.lines,
                _ => self.first,
            };
            match key {
                b's' => self.column = (self.column + 1) % COLUMNS.len(),
                b'S' => self.column = (self.column + COLUMNS.len() - 1) % COLUMNS.len(),
                b'r' => self.reversed = !self.reversed,
                _ => {}
            }
            self.first = self.first.min(self.lines.saturating_sub(self.room));
        }
        Some(())
    }

    fn sort<T>(&self, rows: &mut [T], value: impl Fn(&T) -> [u64; 5]) {
        if let Some(number) = self.column.checked_sub(1) {
            rows.sort_by_key(|row| Reverse(value(row).get(number).copied()));
        }
        if self.reversed {
            rows.reverse();
        }
    }

    /// What is shown of a text whose first lines are its heading, on so many lines and columns; without the line at the bottom.
    fn cut<'a>(&mut self, text: &'a str, heading: usize, (height, width): (usize, usize)) -> Vec<&'a str> {
        let lines: Vec<&str> = text.lines().collect();
        let (head, body) = lines.split_at(heading.min(lines.len()));
        self.room = height.saturating_sub(head.len() + 1);
        self.lines = body.len();
        self.first = self.first.min(self.lines.saturating_sub(self.room));
        let shown =
            head.iter().chain(body.iter().skip(self.first).take(self.room)).take(height.saturating_sub(1));
        shown.map(|line| cropped(line, width)).collect()
    }

    /// The line at the bottom.
    fn foot(&self) -> String {
        let last = (self.first + self.room).min(self.lines);
        let part = if self.room >= self.lines {
            String::new()
        } else {
            format!("lines {} to {last} of {}, arrows and space scroll; ", self.first + 1, self.lines)
        };
        let (column, order) = (COLUMNS[self.column], if self.reversed { ", reversed" } else { "" });
        format!("{part}by {column}{order}; s and r sort, q ends")
    }
}

/// As much of a line as so many columns show.
fn cropped(line: &str, width: usize) -> &str {
    line.char_indices().nth(width).and_then(|(at, _)| line.get(..at)).unwrap_or(line)
}

/// The terminal, which is left as it was found.
pub(crate) struct Screen {
    view: View,
    /// Modes of standard input before, where it is a terminal, too.
    before: Option<Termios>,
    stop: Arc<AtomicBool>,
    size: (usize, usize),
}

impl Screen {
    /// Takes the terminal that standard output is; `None` where it is none. `stop` is set when somebody wants the end.
    pub(crate) fn take(stop: &Arc<AtomicBool>, output: &mut Output) -> Option<Self> {
        if !Output::is_terminal() {
            return None;
        }
        let before = std::io::stdin().is_terminal().then(raw).flatten();
        out!(output, "{ENTER}");
        output.flush();
        Some(Self { view: View::default(), before, stop: Arc::clone(stop), size: size() })
    }

    /// Puts rows into the order that was asked for: packets and bits received and sent, and packets lost are what they are sorted by.
    pub(crate) fn sort<T>(&self, rows: &mut [T], value: impl Fn(&T) -> [u64; 5]) {
        self.view.sort(rows, value);
    }

    /// Draws a text whose first lines are its heading.
    pub(crate) fn draw(&mut self, output: &mut Output, text: &str, heading: usize) {
        self.size = size();
        out!(output, "\x1b[H");
        for line in self.view.cut(text, heading, self.size) {
            out!(output, "{line}\x1b[K\r\n");
        }
        let foot = self.view.foot();
        out!(output, "{}\x1b[K\x1b[J", cropped(&foot, self.size.1));
        output.flush();
    }

    /// Waits for a time, a key, or another size of the terminal.
    pub(crate) fn wait(&mut self, until: Instant) -> Waited {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Waited::End;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Waited::Time;
            }
            match self.keys(left.min(NAP)) {
                Some(keys) if keys.is_empty() && size() == self.size => {}
                Some(keys) => return self.view.press(&keys).map_or(Waited::End, |()| Waited::Redraw),
                None => return Waited::End,
            }
        }
    }

    /// Keys that are pressed within a time; `None` when the terminal has gone.
    fn keys(&self, time: Duration) -> Option<Vec<u8>> {
        if self.before.is_none() {
            std::thread::sleep(time);
            return Some(Vec::new());
        }
        let stdin = rustix::stdio::stdin();
        let mut wait = [PollFd::new(&stdin, PollFlags::IN)];
        let time = Timespec { tv_sec: 0, tv_nsec: i64::from(time.subsec_nanos()) };
        // A signal interrupts it, which the caller looks at.
        if !poll(&mut wait, Some(&time)).is_ok_and(|ready| ready > 0) {
            return Some(Vec::new());
        }
        let mut keys = [0; 64];
        match rustix::io::read(stdin, &mut keys) {
            Ok(count @ 1..) => Some(keys.get(..count).unwrap_or_default().to_vec()),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Some(Vec::new()),
            _ => None,
        }
    }

    /// Gives the terminal back.
    pub(crate) fn leave(self, output: &mut Output) {
        out!(output, "{LEAVE}");
        output.flush();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // A terminal that has gone needs nothing.
            let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Has standard input hand out keys as they are pressed and show none of them; what it was before.
fn raw() -> Option<Termios> {
    let before = termios::tcgetattr(std::io::stdin()).ok()?;
    let mut own = before.clone();
    // Ctrl-C stays a signal.
    own.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
    own.special_codes[SpecialCodeIndex::VMIN] = 1;
    own.special_codes[SpecialCodeIndex::VTIME] = 0;
    termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &own).ok()?;
    Some(before)
}

/// Lines and columns of the terminal; the usual ones where it does not say.
fn size() -> (usize, usize) {
    match termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row.into(), size.ws_col.into()),
        _ => (24, 80),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: usize) -> String {
        (0..lines).map(|line| format!("line {line}\n")).collect()
    }

    #[test]
    fn as_much_is_shown_as_fits() {
        let mut view = View::default();
        assert_eq!(view.cut(&text(12), 2, (24, 80)).len(), 12);
        assert_eq!(view.foot(), "by name; s and r sort, q ends");
        assert_eq!(view.cut(&text(12), 2, (6, 5)), ["line "; 5]);
        assert!(view.foot().starts_with("lines 1 to 3 of 10, "), "{}", view.foot());
        assert_eq!(view.press(b"\x1b[B\x1b[Bj"), Some(()));
        assert_eq!(view.cut(&text(12), 2, (6, 80)), ["line 0", "line 1", "line 5", "line 6", "line 7"]);
        // Neither end is passed, and a larger screen shows more.
        view.press(b"\x1b[6~ \x1b[F");
        assert_eq!(view.cut(&text(12), 2, (6, 80)).last(), Some(&"line 11"));
        assert_eq!(view.cut(&text(12), 2, (10, 80)).get(2), Some(&"line 5"));
        view.press(b"\x1b[5~\x1b[5~\x1bOAk");
        assert_eq!(view.cut(&text(12), 2, (6, 80)).get(2), Some(&"line 2"));
        for (lines, height) in [(0, 24), (1, 1), (5, 0), (5, 1), (5, 2), (5, 3), (100, 4)] {
            view.press(b"G");
            assert!(view.cut(&text(lines), 2, (height, 80)).len() < height.max(1), "{lines} on {height}");
        }
        assert_eq!((cropped("äöü", 2), cropped("äöü", 3), cropped("äöü", 0)), ("äö", "äöü", ""));
    }

    #[test]
    fn keys_sort_and_end() {
        let rows = [("a", [1, 9, 0, 0, 0]), ("b", [3, 8, 0, 0, 5]), ("c", [2, 7, 0, 0, 0])];
        let order = |view: &View| {
            let mut rows = rows.to_vec();
            view.sort(&mut rows, |row| row.1);
            rows.into_iter().map(|row| row.0).collect::<String>()
        };
        let mut view = View::default();
        assert_eq!(order(&view), "abc");
        for (keys, want) in [
            ("r", "cba"),
            ("rs", "bca"),
            ("s", "abc"),
            ("r", "cba"),
            ("sssr", "bac"),
            ("s", "abc"),
            ("S", "bac"),
        ] {
            assert_eq!(view.press(keys.as_bytes()), Some(()));
            assert_eq!(order(&view), want, "{keys} {view:?}");
        }
        assert_eq!((view.press(b"xq"), view.press(b"Q")), (None, None));
        // What is cut off or unknown means nothing.
        for keys in ["\x1b", "\x1b[", "\x1b[5", "\x1b[1;5C", "\u{e4}", "\0", "\x1b\x1b"] {
            let before = view.clone();
            assert_eq!((view.press(keys.as_bytes()), &view), (Some(()), &before), "{keys:?}");
        }
    }
}
