//! Any file: read to its end or refused, with every frame within the file; never a panic.
//!
//! Uses a small buffer: clearing the usual one of a megabyte took most of the time of each run.

use std::io::Cursor;

use linecard_capture::pcap::read::Reader;

/// Holds a record of the longest input, but is so small that long inputs are read in several steps.
const BUFFER: usize = 4096;

/// The input of one run.
pub type Input<'a> = &'a [u8];

/// Executes one run.
pub fn run(bytes: Input<'_>) {
    let Ok(mut reader) = Reader::of(Cursor::new(bytes.to_vec()), BUFFER) else { return };
    let mut frames = 0;
    while let Ok(true) = reader.ready() {
        assert!(reader.frame().len() <= bytes.len());
        let _ = (reader.time(), reader.wire_len());
        reader.advance();
        frames += 1;
        assert!(frames <= bytes.len(), "no frame takes no bytes");
    }
    assert!(reader.bytes() <= bytes.len() as u64);
}
