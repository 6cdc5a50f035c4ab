//! CRC32c (Castagnoli), the checksum of SCTP packets (RFC 9260, appendix A).

const POLYNOMIAL: u32 = 0x82f6_3b78;

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// CRC32c of bytes in any number of pieces.
///
/// ```
/// use linecard_net::crc32c::Crc32c;
/// let crc = Crc32c::new().add_bytes(b"1234").add_bytes(b"56789");
/// assert_eq!(crc.value(), 0xe306_9283);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Crc32c(u32);

impl Crc32c {
    /// The state before any bytes.
    pub const fn new() -> Self {
        Self(u32::MAX)
    }

    /// Adds bytes behind those added before.
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        let step = |crc: u32, byte: &u8| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)];
        Self(bytes.iter().fold(self.0, step))
    }

    /// The checksum; SCTP stores it in little-endian order.
    #[must_use]
    pub const fn value(self) -> u32 {
        !self.0
    }
}

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        // RFC 3720, appendix B.4.
        for (bytes, crc) in [([0; 32], 0x8a91_36aa), ([0xff; 32], 0x62a8_ab43)] {
            assert_eq!(Crc32c::new().add_bytes(&bytes).value(), crc);
        }
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(Crc32c::new().add_bytes(&rising).value(), 0x46dd_794e);
        assert_eq!(Crc32c::new().value(), 0);
    }
}
