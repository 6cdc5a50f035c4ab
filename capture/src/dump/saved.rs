//! Frames of capture files, read one after the other.

use std::path::Path;

use crate::pcap::read::{Damage, Reader};

/// The frames of a capture file, one after the other; see [`dump`](super::dump()) for an example.
///
/// # Errors
/// There is no such file, or it is no capture. Each frame may say that the file is damaged there; none follows then.
pub fn read(path: impl AsRef<Path>) -> Result<Frames, Damage> {
    Reader::open(path.as_ref()).map(|reader| Frames { reader: Some(reader) })
}

/// A frame as a capture file has it.
///
/// ```
/// let frame = linecard_capture::SavedFrame { time: 0, len: 1514, data: vec![0; 96] };
/// assert!(frame.len as usize > frame.data.len(), "it was cut to 96 bytes");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedFrame {
    /// Nanoseconds since 1970.
    pub time: u64,
    /// Length on the wire.
    pub len: u32,
    /// Its bytes, as far as they were kept.
    pub data: Vec<u8>,
}

/// The frames of a file. From [`read`].
///
/// ```
/// let refused = linecard_capture::read("/dev/null").err().expect("no capture").to_string();
/// assert_eq!(refused, "is no capture file: it begins neither like pcap nor like pcapng");
/// ```
pub struct Frames {
    /// Until the end, or what cannot be read.
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
