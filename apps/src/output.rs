//! Standard output and standard error that may be closed or full: a failed write is recorded and never causes
//! a panic.

use std::fmt;
use std::io::{self, ErrorKind, IsTerminal, Write};

use crate::error::Error;

/// Buffered standard output and unbuffered standard error, in the order of the calls.
///
/// Text is buffered until [`Output::flush`] or a line for standard error, so that a console on a pipe needs
/// one write per command.
pub(crate) struct Output {
    buffer: Vec<u8>,
    failure: Option<io::Error>,
}

/// The size at which the buffer is written.
const FLUSH_AT: usize = 64 * 1024;

impl Output {
    pub(crate) fn standard() -> Self {
        Self { buffer: Vec::new(), failure: None }
    }

    /// Whether standard output is a terminal.
    pub(crate) fn is_terminal() -> bool {
        io::stdout().is_terminal()
    }

    /// Appends text to standard output.
    pub(crate) fn print(&mut self, text: fmt::Arguments<'_>) {
        let _ = self.buffer.write_fmt(text);
        if self.buffer.len() >= FLUSH_AT {
            self.flush();
        }
    }

    /// Writes text to standard error, after everything printed so far.
    pub(crate) fn complain(&mut self, text: fmt::Arguments<'_>) {
        self.flush();
        let _ = io::stderr().lock().write_fmt(text);
    }

    /// Writes the buffer.
    pub(crate) fn flush(&mut self) {
        let text = std::mem::take(&mut self.buffer);
        if text.is_empty() || self.failure.is_some() {
            return;
        }
        let mut out = io::stdout().lock();
        self.failure = out.write_all(&text).and_then(|()| out.flush()).err();
    }

    /// Whether a write has failed; nothing is written from then on.
    pub(crate) fn failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Writes the rest of the buffer.
    ///
    /// # Errors
    /// The first write that failed. A closed pipe is an error only if `reader_matters`.
    pub(crate) fn finish(&mut self, reader_matters: bool) -> Result<(), Error> {
        self.flush();
        match self.failure.take() {
            Some(error) if error.kind() == ErrorKind::BrokenPipe && !reader_matters => Ok(()),
            Some(error) => Err(Error::Output(error)),
            None => Ok(()),
        }
    }
}

/// Prints `error: …` on standard error, which may be closed.
pub(crate) fn complain(error: &Error) {
    let _ = writeln!(io::stderr().lock(), "error: {error}");
}

/// Appends formatted text to an [`Output`].
macro_rules! out {
    ($output:expr, $($text:tt)*) => { $output.print(format_args!($($text)*)) };
}

/// Writes formatted text to standard error through an [`Output`].
macro_rules! err {
    ($output:expr, $($text:tt)*) => { $output.complain(format_args!($($text)*)) };
}

pub(crate) use {err, out};
