//! External memory as a packet's buffer.

use std::ptr::NonNull;

use super::Packet;
use crate::error::{Error, Result};
use crate::meta::Meta;

#[repr(C)]
struct Header {
    release: unsafe fn(*mut ()),
}

#[repr(C)]
struct Holder<O> {
    header: Header,
    owner: O,
}

unsafe fn release_as<O>(holder: *mut ()) {
    // SAFETY: `attach_external` made it with this type and `Box::into_raw`, and it is released once.
    drop(unsafe { Box::from_raw(holder.cast::<Holder<O>>()) });
}

/// Drops the owner of external memory.
///
/// # Safety
/// `holder` was attached by [`Packet::attach_external`], its memory is no longer used, and this is called
/// once.
pub(super) unsafe fn release(holder: *mut ()) {
    // SAFETY: `attach_external` attaches only `Holder`s, which are `repr(C)` and begin with a `Header`.
    let release = unsafe { (*holder.cast::<Header>()).release };
    // SAFETY: `release_as::<O>` was written into the holder together with its owner of type `O`; called once (this function's condition).
    unsafe { release(holder) };
}

impl Packet {
    /// Makes the bytes of `owner` the packet's buffer, with no headroom and no data; [`Packet::append`] adds
    /// the bytes that are data. `owner` is dropped with the last packet that refers to the bytes. No peer can
    /// map them, so drivers copy.
    ///
    /// ```
    /// # use linecard_eal::{Memory, MemoryConfig};
    /// # use linecard_mempool::{Pool, PoolConfig};
    /// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
    /// # let pool = Pool::new(&domain, PoolConfig::default())?;
    /// let mut packet = pool.get().ok_or("empty")?;
    /// packet.attach_external(b"hello".to_vec())?;
    /// packet.append(5).ok_or("short")?;
    /// assert_eq!(packet.data(), b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::ExternalLength`] above 65 535 bytes, [`Error::NotPlain`] for a packet that is chained, cloned
    /// or already external. The packet stays unchanged; `owner` is dropped.
    pub fn attach_external<O: AsMut<[u8]> + Send + 'static>(&mut self, owner: O) -> Result<()> {
        let seg = self.head();
        if !seg.exclusive() || seg.state() != 0 {
            return Err(Error::NotPlain);
        }
        let holder = Box::new(Holder { header: Header { release: release_as::<O> }, owner });
        let holder = Box::into_raw(holder);
        // SAFETY: just made; until `release`, the bytes are borrowed and nothing accesses the owner.
        let bytes = unsafe { (*holder).owner.as_mut() };
        let (len, buf) = (bytes.len(), NonNull::from(bytes).cast::<u8>());
        let Ok(buf_len) = u16::try_from(len) else {
            // SAFETY: made above and attached to no packet; `bytes` is no longer used, and this is the only
            // release.
            unsafe { release(holder.cast()) };
            return Err(Error::ExternalLength { len, max: u16::MAX });
        };
        seg.attach(holder.cast());
        seg.set_bits(Meta::EXTERNAL);
        seg.set_buf(buf);
        seg.set_buf_len(buf_len);
        seg.set_data_off(0);
        seg.set_data_len(0);
        seg.set_pkt_len(0);
        Ok(())
    }
}
