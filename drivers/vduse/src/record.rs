//! The state of the rings in a file that outlives this process: the region of vhost-user's "Inflight I/O
//! tracking", which the backend updates once per burst.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use linecard_virtio::Layout;
use linecard_wire::payload::PackedBase;

/// The alignment of each ring's part.
const ALIGN: u64 = 64;
/// The offsets of a split ring's used index, and of a packed ring's used index and wrap counter at the end of
/// its last burst (vhost-user, "Inflight I/O tracking": `used_idx`; `old_used_idx`, `old_used_wrap_counter`).
const SPLIT_USED: u64 = 14;
const PACKED_USED: u64 = 18;
const PACKED_WRAP: u64 = 21;

#[derive(Debug)]
pub(crate) struct Record {
    file: File,
    pub(crate) len: u64,
    pub(crate) queue_size: u16,
}

impl Record {
    /// Opens the file at `path`, of `len` bytes for rings of at most `queue_size` descriptors.
    pub(crate) fn open(path: &Path, len: u64, queue_size: u16) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(libc::O_NOFOLLOW).open(path)?;
        // The backend maps the file like a frontend's memory, whose pages must not depend on another process.
        if rustix::fs::fstatfs(&file)?.f_type != libc::TMPFS_MAGIC {
            return Err(io::Error::other("it is not on a tmpfs"));
        }
        if file.metadata()?.len() != len {
            file.set_len(0)?;
            file.set_len(len)?;
        }
        Ok(Self { file, len, queue_size })
    }

    /// Clears the record, for rings that begin.
    pub(crate) fn clear(&self) -> io::Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut at = 0;
        while at < self.len {
            let part = usize::try_from(self.len - at).unwrap_or(usize::MAX).min(ZEROS.len());
            self.file.write_all_at(&ZEROS[..part], at)?;
            at += part as u64;
        }
        Ok(())
    }

    /// Returns the state of a ring when the last process ended, in the form of `SET_VRING_BASE`.
    pub(crate) fn base(&self, index: u32, layout: Layout) -> io::Result<u32> {
        // A header and an entry for each descriptor.
        let (head, entry) = if layout == Layout::Packed { (32, 32) } else { (16, 16) };
        let stride = (head + entry * u64::from(self.queue_size)).next_multiple_of(ALIGN);
        let (mut half, mut byte) = ([0; 2], [0]);
        let read = |field: &mut [u8], at| self.file.read_exact_at(field, u64::from(index) * stride + at);
        if layout == Layout::Split {
            read(&mut half, SPLIT_USED)?;
            return Ok(u16::from_ne_bytes(half).into());
        }
        read(&mut half, PACKED_USED)?;
        // The byte behind the wrap counter is padding.
        read(&mut byte, PACKED_WRAP)?;
        let (used, wrap) = (u16::from_ne_bytes(half), byte != [0]);
        Ok(PackedBase { avail: used, avail_wrap: wrap, used, used_wrap: wrap }.to_u32())
    }
}

impl AsFd for Record {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_found_again_and_forgotten_when_asked() {
        let path = Path::new("/dev/shm").join(format!("linecard-vduse-record-{}", std::process::id()));
        let size = 32_u16;
        let record = Record::open(&path, 2 * 1088, size).expect("a file");
        let split = (16 + 16 * 32_u64).next_multiple_of(64);
        record.file.write_all_at(&7_u16.to_ne_bytes(), split + 14).expect("room");
        let packed = (32 + 32 * 32_u64).next_multiple_of(64);
        record.file.write_all_at(&9_u16.to_ne_bytes(), packed + 18).expect("room");
        record.file.write_all_at(&[1, 0], packed + 21).expect("room");
        drop(record);

        let record = Record::open(&path, 2 * 1088, size).expect("the same file");
        assert_eq!(record.base(1, Layout::Split).ok(), Some(7));
        let stands = PackedBase::from_u32(record.base(1, Layout::Packed).expect("inside"));
        assert_eq!(stands, PackedBase { avail: 9, avail_wrap: true, used: 9, used_wrap: true });
        record.clear().expect("room");
        assert_eq!(record.base(1, Layout::Split).ok(), Some(0));
        // With another size it is another region.
        record.file.write_all_at(&[1; 100], 0).expect("room");
        let other = Record::open(&path, 1088, 16).expect("a file");
        assert_eq!(other.base(0, Layout::Split).ok(), Some(0));
        std::fs::remove_file(&path).expect("it is there");

        let elsewhere = Record::open(Path::new("/proc/self/comm"), 1088, 16);
        assert!(elsewhere.is_err_and(|error| error.to_string().contains("tmpfs")));
    }
}
