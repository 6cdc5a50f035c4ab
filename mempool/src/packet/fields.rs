//! Metadata fields of a packet.

use std::fmt;

use super::Packet;
use crate::meta::Meta;
use crate::{Offload, PacketType, TxOffload};

impl Packet {
    /// The receiving port, [`Meta::NO_PORT`] if none.
    #[inline]
    #[must_use]
    pub fn port(&self) -> u16 {
        self.head().port()
    }

    /// Sets the receiving port.
    #[inline]
    pub fn set_port(&mut self, port: u16) {
        self.head().set_port(port);
    }

    /// Offload flags: the results of the receiver, and the requests to the sender.
    #[inline]
    #[must_use]
    pub fn offload(&self) -> Offload {
        Offload::from_bits_retain(self.head().ol_flags())
    }

    /// Replaces all offload flags.
    #[inline]
    pub fn set_offload(&mut self, flags: Offload) {
        self.head().set_ol_flags(flags.bits());
    }

    /// VLAN tag control information; valid with [`Offload::RX_VLAN`] or [`Offload::TX_VLAN`].
    #[inline]
    #[must_use]
    pub fn vlan_tci(&self) -> u16 {
        self.head().vlan_tci()
    }

    /// Sets the VLAN tag control information; the caller sets the flag too.
    #[inline]
    pub fn set_vlan_tci(&mut self, tci: u16) {
        self.head().set_vlan_tci(tci);
    }

    /// Receive-side-scaling hash; `None` without [`Offload::RX_RSS_HASH`].
    #[inline]
    #[must_use]
    pub fn hash(&self) -> Option<u32> {
        self.offload().contains(Offload::RX_RSS_HASH).then(|| self.head().hash())
    }

    /// Sets the hash and [`Offload::RX_RSS_HASH`].
    #[inline]
    pub fn set_hash(&mut self, hash: u32) {
        self.head().set_hash(hash);
        self.set_offload((self.offload() | Offload::RX_RSS_HASH) & !Offload::RX_FDIR_ID);
    }

    /// The mark of the flow rule that matched; `None` without [`Offload::RX_FDIR_ID`].
    #[inline]
    #[must_use]
    pub fn mark(&self) -> Option<u32> {
        self.offload().contains(Offload::RX_FDIR_ID).then(|| self.head().hash())
    }

    /// Sets the mark and [`Offload::RX_FDIR_ID`]; this replaces the hash, which shares the field.
    #[inline]
    pub fn set_mark(&mut self, mark: u32) {
        self.head().set_hash(mark);
        self.set_offload((self.offload() | Offload::RX_FDIR_ID) & !Offload::RX_RSS_HASH);
    }

    /// The packet's type, as far as the receiver parsed it.
    #[inline]
    #[must_use]
    pub fn packet_type(&self) -> PacketType {
        PacketType::from_bits(self.head().packet_type())
    }

    /// Sets the packet's type.
    #[inline]
    pub fn set_packet_type(&mut self, packet_type: PacketType) {
        self.head().set_packet_type(packet_type.bits());
    }

    /// Header lengths for the sender; all zero without any `TX_` flag.
    #[inline]
    #[must_use]
    pub fn tx_offload(&self) -> TxOffload {
        // In a fresh packet the field is stale: initialising it would cost a store per packet.
        let valid = self.offload().intersects(Offload::TX_OFFLOAD_MASK | Offload::RX_LRO);
        if valid { TxOffload::from_bits(self.head().tx_offload()) } else { TxOffload::default() }
    }

    /// Sets header lengths for the sender and the flags that make them valid.
    #[inline]
    pub fn set_tx_offload(&mut self, flags: Offload, lengths: TxOffload) {
        self.head().set_tx_offload(lengths.bits());
        self.set_offload(self.offload() | flags);
    }

    /// The number of segments, at least 1.
    #[inline]
    #[must_use]
    pub fn nb_segs(&self) -> u8 {
        self.head().nb_segs()
    }

    /// Whether the packet is one segment with its own buffer and was never cloned.
    #[inline]
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.head().state() == 0
    }

    /// Whether data of any segment may be in memory outside every pool ([`Packet::attach_external`]).
    #[must_use]
    pub fn is_external(&self) -> bool {
        self.segments().any(|segment| segment.is_external())
    }

    /// The identifier of the pool to which it returns: [`Pool::id`](crate::Pool::id).
    #[inline]
    #[must_use]
    pub fn pool_id(&self) -> usize {
        self.head().pool().as_ptr().addr()
    }

    /// Sets the length of the data of a one-segment packet, without changing its start.
    ///
    /// # Safety
    /// The packet has one segment, and `headroom + len` bytes fit into its buffer.
    #[inline]
    pub unsafe fn set_data_len(&mut self, len: u16) {
        let seg = self.head();
        debug_assert!(
            seg.next().is_none() && u32::from(seg.data_off()) + u32::from(len) <= u32::from(seg.buf_len())
        );
        seg.set_data_len(len);
        seg.set_pkt_len(len.into());
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = Some(self.port()).filter(|&port| port != Meta::NO_PORT);
        f.debug_struct("Packet")
            .field("len", &self.len())
            .field("segments", &self.nb_segs())
            .field("port", &port)
            .field("offload", &self.offload())
            .finish_non_exhaustive()
    }
}
