//! The paths of DPDK's virtio-user driver: the kind of ring, and the features that select receive and
//! transmit functions.

use clap::ValueEnum;

/// One of DPDK's ten paths, named by what is negotiated on the frontend's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Path {
    /// Split ring, receive buffers merge
    SplitMergeable,
    /// Split ring, one buffer per packet
    Split,
    /// Split ring used in order, receive buffers merge
    SplitInorderMergeable,
    /// Split ring used in order, one buffer per packet
    SplitInorder,
    /// Split ring, one buffer per packet, vectorized receive
    SplitVector,
    /// Packed ring, receive buffers merge
    PackedMergeable,
    /// Packed ring, one buffer per packet
    Packed,
    /// Packed ring used in order, receive buffers merge
    PackedInorderMergeable,
    /// Packed ring used in order, one buffer per packet
    PackedInorder,
    /// Packed ring used in order, one buffer per packet, vectorized
    PackedVector,
}

/// The features packed, in order, mergeable, vectorized.
type Features = (bool, bool, bool, bool);

impl Path {
    /// The name on the command line and in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SplitMergeable => "split-mergeable",
            Self::Split => "split",
            Self::SplitInorderMergeable => "split-inorder-mergeable",
            Self::SplitInorder => "split-inorder",
            Self::SplitVector => "split-vector",
            Self::PackedMergeable => "packed-mergeable",
            Self::Packed => "packed",
            Self::PackedInorderMergeable => "packed-inorder-mergeable",
            Self::PackedInorder => "packed-inorder",
            Self::PackedVector => "packed-vector",
        }
    }

    const fn features(self) -> Features {
        match self {
            Self::SplitMergeable => (false, false, true, false),
            Self::Split => (false, false, false, false),
            Self::SplitInorderMergeable => (false, true, true, false),
            Self::SplitInorder => (false, true, false, false),
            Self::SplitVector => (false, false, false, true),
            Self::PackedMergeable => (true, false, true, false),
            Self::Packed => (true, false, false, false),
            Self::PackedInorderMergeable => (true, true, true, false),
            Self::PackedInorder => (true, true, false, false),
            Self::PackedVector => (true, true, false, true),
        }
    }

    /// Whether the ring is packed; paths are compared with the best path of the same kind of ring.
    pub(crate) const fn packed(self) -> bool {
        self.features().0
    }

    /// Whether a packet may take several receive buffers.
    pub(crate) const fn mergeable(self) -> bool {
        self.features().2
    }

    /// Returns the options of `net_virtio_user` that select this path.
    pub(crate) fn options(self) -> String {
        let (packed, in_order, mergeable, vectorized) = self.features();
        format!(
            "packed_vq={},in_order={},mrg_rxbuf={},vectorized={}",
            u8::from(packed),
            u8::from(in_order),
            u8::from(mergeable),
            u8::from(vectorized)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_its_own_options_and_the_name_of_the_command_line() {
        let mut options: Vec<_> = Path::value_variants().iter().map(|path| path.options()).collect();
        options.sort();
        options.dedup();
        assert_eq!(options.len(), 10);
        for path in Path::value_variants() {
            assert_eq!(path.to_possible_value().expect("none is hidden").get_name(), path.name());
            assert_eq!(path.packed(), path.name().starts_with("packed"));
        }
        assert_eq!(Path::PackedVector.options(), "packed_vq=1,in_order=1,mrg_rxbuf=0,vectorized=1");
    }
}
