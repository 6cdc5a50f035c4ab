//! The driver's memory, as the backend maps it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use linecard_wire::payload::MemoryRegion;

use crate::kernel::Kernel;
use crate::relay::{Failure, Relay};
use crate::sys::Entry;

/// A region that the backend has mapped, and the identity of its file.
pub(crate) struct Known {
    pub(crate) region: MemoryRegion,
    file: (u64, u64),
    /// Whether it is memory of the kernel, not of a process.
    of_kernel: bool,
}

impl<K: Kernel> Relay<K> {
    /// Returns whether the driver's buffers lie in shared memory.
    ///
    /// A kernel driver uses bounce buffers at address 0, which exist from its first buffer on (Linux:
    /// `vduse_domain_init_bounce_map`). The kernel does not report their creation. A ring that is read before
    /// that would refer to memory that is not shared.
    pub(crate) fn has_buffers(&self) -> bool {
        self.regions.iter().any(|known| known.region.guest_addr == 0 || !known.of_kernel)
    }

    /// Updates the backend's mappings to the memory that the driver shares now. Unchanged mappings stay.
    ///
    /// The backend accepts any file from this thread, so this thread checks them: memory of the kernel, or a
    /// file whose pages the kernel alone provides. Pages of any other file may come from the driver's process
    /// (FUSE), and a polling thread would wait for it at each access.
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

/// Returns the region for the backend: descriptors and rings use I/O virtual addresses. `None` if it is the
/// whole address space.
fn described(entry: &Entry) -> Option<MemoryRegion> {
    let size = (entry.last - entry.start).checked_add(1)?;
    Some(MemoryRegion { guest_addr: entry.start, size, user_addr: entry.start, offset: entry.offset })
}

fn identity(file: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(file)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Returns whether a file is a memfd or on a tmpfs; only these support seals.
fn is_memory(file: &OwnedFd) -> bool {
    rustix::fs::fcntl_get_seals(file).is_ok()
}
