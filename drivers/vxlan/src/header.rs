//! The VXLAN header (RFC 7348, section 5): flags, 24 reserved bits, the VNI, 8 reserved bits.

/// The bytes of the header.
pub(crate) const LEN: usize = 8;
/// The flag that makes the VNI valid.
const VNI_VALID: u8 = 0x08;
/// The shortest valid frame.
const SHORTEST: usize = 14;

/// Returns the header of a network; reserved bits are zero.
pub(crate) const fn write(vni: u32) -> [u8; LEN] {
    let [_, a, b, c] = vni.to_be_bytes();
    [VNI_VALID, 0, 0, 0, a, b, c, 0]
}

/// Returns the VNI and the frame of a datagram; `None` if it is invalid. Reserved bits are ignored, as the
/// RFC requires.
pub(crate) fn read(datagram: &[u8]) -> Option<(u32, &[u8])> {
    let (head, frame) = datagram.split_first_chunk::<LEN>()?;
    let [flags, _, _, _, a, b, c, _] = *head;
    (flags & VNI_VALID != 0 && frame.len() >= SHORTEST).then_some((u32::from_be_bytes([0, a, b, c]), frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_the_rfc_draws_them() {
        assert_eq!(write(0x0012_3456), [8, 0, 0, 0, 0x12, 0x34, 0x56, 0]);
        let datagram = [&write(0x00ff_ffff)[..], &[7; 14]].concat();
        assert_eq!(read(&datagram), Some((0x00ff_ffff, &[7; 14][..])));
    }

    #[test]
    fn what_is_no_frame_of_a_network_is_told_apart() {
        let whole = [&write(100)[..], &[7; 14]].concat();
        for len in 0..whole.len() {
            assert_eq!(read(&whole[..len]), None, "{len} bytes");
        }
        let mut without_flag = whole.clone();
        without_flag[0] = !VNI_VALID;
        assert_eq!(read(&without_flag), None);
        // Reserved bits are ignored.
        let mut reserved = whole.clone();
        (reserved[0], reserved[1], reserved[7]) = (0xff, 0xff, 0xff);
        assert_eq!(read(&reserved), read(&whole));
    }
}
