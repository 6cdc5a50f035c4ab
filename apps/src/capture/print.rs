//! Packets as lines of text.

use std::fmt::Write as _;

use linecard::capture::Frame;
use linecard::capture::pcap::encode::Direction;
use linecard::net::MacAddr;

use crate::output::{Output, out};

/// Prints one line per packet.
pub(super) struct Printer {
    output: Output,
    /// Whether to print the port, because there are several.
    several: bool,
    first: Option<u64>,
}

impl Printer {
    pub(super) fn new(several: bool) -> Self {
        Self { output: Output::standard(), several, first: None }
    }

    pub(super) fn add(&mut self, source: usize, frame: &Frame<'_>) {
        let first = *self.first.get_or_insert(frame.time);
        let since = frame.time.saturating_sub(first);
        let mut line = format!("{:>4}.{:09} ", since / 1_000_000_000, since % 1_000_000_000);
        if self.several {
            let _ = write!(line, "#{source} ");
        }
        let way = match frame.direction {
            Direction::In => "in ",
            Direction::Out => "out",
            Direction::Unknown => "   ",
        };
        let _ = write!(line, "{way} q{} {:>5} bytes  {}", frame.queue, frame.len, ethernet(frame.data));
        if !frame.comment.is_empty() {
            let _ = write!(line, "  [dropped: {}]", frame.comment);
        }
        out!(self.output, "{line}\n");
    }

    /// Prints buffered lines; false when the reader is gone.
    pub(super) fn flush(&mut self) -> bool {
        self.output.flush();
        !self.output.failed()
    }
}

/// Formats source, destination and type.
fn ethernet(data: &[u8]) -> String {
    match data.first_chunk::<14>() {
        Some(&[a, b, c, d, e, f, g, h, i, j, k, l, m, n]) => {
            let (to, from) = (MacAddr([a, b, c, d, e, f]), MacAddr([g, h, i, j, k, l]));
            let kind = u16::from_be_bytes([m, n]);
            format!("{from} > {to}  type {kind:#06x}")
        }
        None => "no whole Ethernet header".into(),
    }
}
