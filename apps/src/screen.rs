//! A table on a terminal that is redrawn periodically, with keys to scroll, to sort and to quit.

use std::cmp::Reverse;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};

use crate::output::{Output, out};

/// The sort keys; "name" keeps the given order.
const COLUMNS: [&str; 6] = ["name", "rx packets", "rx bits", "tx packets", "tx bits", "lost"];
/// How often the terminal's size and signals are checked.
const NAP: Duration = Duration::from_millis(50);
/// Sequences that enter the alternate screen and hide the cursor, and the reverse.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// The result of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// The time has passed.
    Time,
    /// The table has to be redrawn, because the view or the terminal's size changed.
    Redraw,
    /// The user or a signal requested the end.
    End,
}

/// The visible part of a table, and its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct View {
    /// The index of the first visible line below the heading.
    first: usize,
    column: usize,
    reversed: bool,
    /// The lines below the heading, and the lines that fit, at the last redraw.
    lines: usize,
    room: usize,
}

impl View {
    /// Handles the keys that were read together; `None` if one of them quits.
    fn press(&mut self, keys: &[u8]) -> Option<()> {
        let page = self.room.max(1);
        let mut rest = keys;
        while let Some((key, after)) = rest.split_first() {
            rest = after;
            let begins = *key == 0x1b && matches!(after.first(), Some(b'[' | b'O'));
            let sequence: &[u8] = if begins { after } else { &[] };
            // Arrow keys are `[A` or `OA`, paging keys `[5~`.
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

    /// Returns the visible lines of a text with `heading` lines of heading, for this height and width,
    /// without the bottom line.
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

    /// Returns the bottom line.
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

/// Returns the part of a line that fits into `width` columns.
fn cropped(line: &str, width: usize) -> &str {
    line.char_indices().nth(width).and_then(|(at, _)| line.get(..at)).unwrap_or(line)
}

/// The terminal; its modes are restored on drop.
pub(crate) struct Screen {
    view: View,
    /// Previous modes of standard input, if that is a terminal too.
    before: Option<Termios>,
    stop: Arc<AtomicBool>,
    size: (usize, usize),
}

impl Screen {
    /// Takes over the terminal of standard output; `None` if that is not a terminal. `stop` ends
    /// [`Screen::wait`].
    pub(crate) fn take(stop: &Arc<AtomicBool>, output: &mut Output) -> Option<Self> {
        if !Output::is_terminal() {
            return None;
        }
        let before = std::io::stdin().is_terminal().then(raw).flatten();
        out!(output, "{ENTER}");
        output.flush();
        Some(Self { view: View::default(), before, stop: Arc::clone(stop), size: size() })
    }

    /// Sorts rows by the selected column; `value` returns received packets and bits, sent packets and bits,
    /// and lost packets.
    pub(crate) fn sort<T>(&self, rows: &mut [T], value: impl Fn(&T) -> [u64; 5]) {
        self.view.sort(rows, value);
    }

    /// Draws a text whose first `heading` lines are its heading.
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

    /// Waits for a time, a key, or a change of the terminal's size.
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

    /// Returns the keys pressed within a time; `None` when the terminal is gone.
    fn keys(&self, time: Duration) -> Option<Vec<u8>> {
        if self.before.is_none() {
            std::thread::sleep(time);
            return Some(Vec::new());
        }
        let stdin = rustix::stdio::stdin();
        let mut wait = [PollFd::new(&stdin, PollFlags::IN)];
        let time = Timespec { tv_sec: 0, tv_nsec: i64::from(time.subsec_nanos()) };
        // After an interrupting signal the caller checks `stop`.
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

    /// Leaves the alternate screen.
    pub(crate) fn leave(self, output: &mut Output) {
        out!(output, "{LEAVE}");
        output.flush();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // If the terminal is gone, there is nothing to restore.
            let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Puts standard input into non-canonical mode without echo; returns the previous modes.
fn raw() -> Option<Termios> {
    let before = termios::tcgetattr(std::io::stdin()).ok()?;
    let mut own = before.clone();
    // Ctrl-C still sends a signal.
    own.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
    own.special_codes[SpecialCodeIndex::VMIN] = 1;
    own.special_codes[SpecialCodeIndex::VTIME] = 0;
    termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &own).ok()?;
    Some(before)
}

/// Returns lines and columns of the terminal; 24 and 80 if they are unknown.
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
        // The view stops at both ends, and a larger screen shows more.
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
        // Truncated and unknown sequences have no effect.
        for keys in ["\x1b", "\x1b[", "\x1b[5", "\x1b[1;5C", "\u{e4}", "\0", "\x1b\x1b"] {
            let before = view.clone();
            assert_eq!((view.press(keys.as_bytes()), &view), (Some(()), &before), "{keys:?}");
        }
    }
}
