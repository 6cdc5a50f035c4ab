//! Sequential reading of frames from capture files.

use std::path::Path;

use crate::pcap::read::{Damage, Reader};

/// Reads the frames of a capture file in order; see [`dump`](super::dump()) for an example.
///
/// # Errors
/// The file does not exist, or is not a capture file. Each frame may be an error if the file is damaged
/// there; it is the last one then.
pub fn read(path: impl AsRef<Path>) -> Result<Frames, Damage> {
    Reader::open(path.as_ref()).map(|reader| Frames { reader: Some(reader) })
}

/// A frame in a capture file.
///
/// ```
/// let frame = linecard_capture::SavedFrame { time: 0, len: 1514, data: vec![0; 96] };
/// assert!(frame.len as usize > frame.data.len(), "it was cut to 96 bytes");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedFrame {
    /// Nanoseconds since 1970.
    pub time: u64,
    /// The length on the wire in bytes.
    pub len: u32,
    /// The captured bytes of the frame.
    pub data: Vec<u8>,
}

/// An iterator over the frames of a file; from [`read`].
///
/// ```
/// let refused = linecard_capture::read("/dev/null").err().expect("no capture").to_string();
/// assert_eq!(refused, "is no capture file: it begins neither like pcap nor like pcapng");
/// ```
pub struct Frames {
    /// `None` after the end or an error.
    reader: Option<Reader>,
}

impl Iterator for Frames {
    type Item = Result<SavedFrame, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        let reader = self.reader.as_mut()?;
        match reader.ready() {
            Ok(true) => {
                let (time, len, data) = (reader.time(), reader.wire_len(), reader.frame().to_vec());
                reader.advance();
                Some(Ok(SavedFrame { time, len, data }))
            }
            Ok(false) => {
                self.reader = None;
                None
            }
            Err(damage) => {
                self.reader = None;
                Some(Err(damage))
            }
        }
    }
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frames").field("ended", &self.reader.is_none()).finish()
    }
}
