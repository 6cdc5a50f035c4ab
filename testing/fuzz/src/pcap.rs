//! Any file: read to its end or refused, never a panic, every frame within the file.
//!
//! Through a small buffer: clearing the megabyte that files are read with took most of the time of each run.

use std::io::Cursor;

use linecard_capture::pcap::read::Reader;

/// Room for a record of the longest input, and little enough that long inputs are read in several steps.
const BUFFER: usize = 4096;

/// What one run is made of.
pub type Input<'a> = &'a [u8];

/// One run.
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
