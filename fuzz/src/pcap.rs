//! Any file: read to its end or refused, never a panic, every frame within the file.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use linecard_pmd::pcap::read::Reader;

/// What one run is made of.
pub type Input<'a> = &'a [u8];

/// One run.
pub fn run(bytes: Input<'_>) {
    let fd = rustix::fs::memfd_create("fuzz", rustix::fs::MemfdFlags::CLOEXEC).expect("a memfd");
    let mut file = File::from(fd);
    file.write_all(bytes).expect("memory");
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let Ok(mut reader) = Reader::open(&path) else { return };
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
