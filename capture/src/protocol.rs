//! The protocol of the control socket: one datagram in each direction, as lines of text. `capture` is
//! followed by the instructions of its filter, and its answer by the offset and length of each ring in the
//! memfd.
//!
//! ```text
//!   list                                               ok
//!                                                      port=0 rx=1 tx=1 name=net_null0
//!   capture port=0 snaplen=96 ring=4194304 rx=1 tx=1   ok name=net_null0          (with the memfd)
//!   40 0 0 12                                          ring=0+4198400
//!   …                                                  ring=4198400+1052672 …
//!   stop                                               end seen=10 lost=0         (unasked when the port stops)
//!                                                      error SENTENCE
//! ```

use linecard_net::bpf::Program;

use super::CaptureError;
use super::memory::RingExtent;
use crate::pcap::encode::SNAPLEN;

/// The options of a capture.
///
/// ```
/// use linecard_net::bpf::compile;
/// use linecard_capture::Options;
/// let options = Options::default().snaplen(96).filter(compile("tcp port 80")?);
/// assert!(options.received && options.sent);
/// # Ok::<(), linecard_net::bpf::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// The number of bytes to keep of each frame, from 1 to 262 144.
    pub snaplen: u32,
    /// The filter for frames; `None` for all.
    pub filter: Option<Program>,
    /// Whether to capture received packets, including those dropped on receive.
    pub received: bool,
    /// Whether to capture sent packets, including those dropped on transmit.
    pub sent: bool,
    /// The size of the ring of each queue in bytes, 4 KiB to 1 GiB, rounded up to a power of two.
    pub ring: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { snaplen: SNAPLEN, filter: None, received: true, sent: true, ring: 4 << 20 }
    }
}

linecard_eal::setters!(Options {
    snaplen: u32,
    filter: impl Into<Option<Program>> as into,
    received: bool,
    sent: bool,
    ring: usize,
});

impl Options {
    /// The allowed sizes of a ring in bytes.
    const RING: std::ops::RangeInclusive<usize> = 4 << 10..=1 << 30;

    pub(super) fn check(&self) -> Result<(), CaptureError> {
        let refused = |text: String| Err(CaptureError::Refused(text));
        if !(1..=SNAPLEN).contains(&self.snaplen) {
            return refused(format!(
                "a snapshot of {} bytes is not possible; 1 to {SNAPLEN} are",
                self.snaplen
            ));
        }
        if !Self::RING.contains(&self.ring) {
            return refused(format!("a ring of {} bytes is not possible; 4096 to 1073741824 are", self.ring));
        }
        if !self.received && !self.sent {
            return refused("neither direction is to be captured; leave one in".into());
        }
        Ok(())
    }

    pub(super) fn request(&self, port: u16) -> String {
        let Self { snaplen, filter, received, sent, ring } = self;
        let flag = |on: &bool| u8::from(*on);
        let mut text = format!(
            "capture port={port} snaplen={snaplen} ring={ring} rx={} tx={}\n",
            flag(received),
            flag(sent)
        );
        for i in filter.iter().flat_map(|filter| filter.instructions()) {
            text += &format!("{} {} {} {}\n", i.code, i.jt, i.jf, i.k);
        }
        text
    }
}

/// The totals of a capture.
///
/// ```
/// use linecard_capture::Totals;
/// assert_eq!(Totals::default(), Totals { seen: 0, lost: 0 });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The number of frames that passed the filter.
    pub seen: u64,
    /// The number of copies of them for which the ring had no room.
    pub lost: u64,
}

/// A request of a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    List,
    Capture(u16, Options),
    Stop,
}

/// The value of `key=` in a line; for the last key the rest of the line, which may have blanks.
pub(super) fn field<'a>(line: &'a str, key: &str, last: bool) -> Option<&'a str> {
    let mut rest = line;
    loop {
        if let Some(value) = rest.strip_prefix(key).and_then(|rest| rest.strip_prefix('=')) {
            return Some(if last { value } else { value.split(' ').next().unwrap_or(value) });
        }
        rest = rest.split_once(' ')?.1;
    }
}

pub(super) fn number<T: std::str::FromStr>(line: &str, key: &str) -> Option<T> {
    field(line, key, false)?.parse().ok()
}

/// Parses a request.
pub(super) fn parse(text: &str) -> Result<Request, CaptureError> {
    let bad = || {
        CaptureError::Refused("this request is not understood; the other side is of another version".into())
    };
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    match first.split(' ').next() {
        Some("list") => Ok(Request::List),
        Some("stop") => Ok(Request::Stop),
        Some("capture") => {
            let flag = |key| number::<u8>(first, key).map(|flag| flag != 0).ok_or_else(bad);
            let filter = if rest.is_empty() {
                None
            } else {
                let text = format!("{}\n{rest}", rest.lines().count());
                Some(Program::from_ddd(&text).map_err(|error| CaptureError::Refused(error.to_string()))?)
            };
            let options = Options::default()
                .snaplen(number(first, "snaplen").ok_or_else(bad)?)
                .filter(filter)
                .received(flag("rx")?)
                .sent(flag("tx")?)
                .ring(number(first, "ring").ok_or_else(bad)?);
            options.check()?;
            Ok(Request::Capture(number(first, "port").ok_or_else(bad)?, options))
        }
        _ => Err(bad()),
    }
}

/// The answer to a capture request.
pub(super) fn opened(name: &str, places: &[RingExtent]) -> String {
    let mut text = format!("ok name={name}\n");
    for RingExtent { offset, len } in places {
        text += &format!("ring={offset}+{len}\n");
    }
    text
}

/// The rings in such an answer.
pub(super) fn places(text: &str) -> Option<Vec<RingExtent>> {
    let place = |line: &str| {
        let (offset, len) = line.strip_prefix("ring=")?.split_once('+')?;
        Some(RingExtent { offset: offset.parse().ok()?, len: len.parse().ok()? })
    };
    text.lines().skip(1).map(place).collect()
}
