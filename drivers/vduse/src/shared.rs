//! The driver's memory, as the backend is to have it mapped.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use linecard_wire::payload::MemoryRegion;

use crate::kernel::Kernel;
use crate::relay::{Failure, Relay};
use crate::sys::Entry;

/// A region that the backend has mapped, and what tells its file from others.
pub(crate) struct Known {
    pub(crate) region: MemoryRegion,
    file: (u64, u64),
    /// It is memory of the kernel's, and not of a process.
    of_kernel: bool,
}

impl<K: Kernel> Relay<K> {
    /// Whether the driver's buffers have a place in the memory that is shared.
    ///
    /// A driver of the kernel's has them in bounce buffers, which lie at address 0 and are there from its first buffer on (Linux:
    /// `vduse_domain_init_bounce_map`). Of that the kernel says nothing, so a ring that is looked at before would name memory that
    /// nobody shares.
    pub(crate) fn has_buffers(&self) -> bool {
        self.regions.iter().any(|known| known.region.guest_addr == 0 || !known.of_kernel)
    }

    /// Has the backend map what the driver shares now. What it has mapped already and is still the same stays.
    ///
    /// The backend takes any file from this thread, so this thread asks: memory of the kernel's own, or a file whose kind the kernel
    /// alone tells. Any other may be a program of the driver's process (FUSE), which a polling thread would wait for at each access.
    pub(crate) fn share_memory(&mut self) -> Result<(), Failure> {
        let mut shared = Vec::new();
        let mut from = Some(0);
        while let Some(start) = from {
            let Some((entry, file)) = self.kernel.region(start)? else { break };
            from = entry.last.checked_add(1);
            shared.extend(described(&entry).map(|region| (region, file)));
        }
        let (mut kept, mut fresh) = (Vec::new(), Vec::new());
        for (region, file) in shared {
            let of_kernel = self.kernel.owns(file.as_fd());
            if !of_kernel && !is_memory(&file) {
                return Err(Failure::Memory { start: region.guest_addr });
            }
            let id = identity(&file)?;
            match self.regions.iter().position(|known| known.region == region && known.file == id) {
                Some(at) => kept.push(self.regions.swap_remove(at)),
                None => fresh.push((Known { region, file: id, of_kernel }, file)),
            }
        }
        for gone in std::mem::replace(&mut self.regions, kept) {
            self.backend()?.remove_region(gone.region)?;
        }
        for (known, file) in fresh {
            self.backend()?.add_region(known.region, file.as_fd())?;
            self.regions.push(known);
        }
        Ok(())
    }
}

/// What the backend is told of a region: descriptors and rings name bytes by their I/O virtual address. `None` where it would be
/// the whole address space.
fn described(entry: &Entry) -> Option<MemoryRegion> {
    let size = (entry.last - entry.start).checked_add(1)?;
    Some(MemoryRegion { guest_addr: entry.start, size, user_addr: entry.start, offset: entry.offset })
}

fn identity(file: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(file)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Whether a file is a memfd or lies on a tmpfs, which know seals.
fn is_memory(file: &OwnedFd) -> bool {
    rustix::fs::fcntl_get_seals(file).is_ok()
}
