//! Chance that can be repeated.

/// Random numbers that follow from a seed (xorshift64*), for tests that must be able to do the same again.
///
/// ```
/// use linecard_testing::Prng;
/// let (mut one, mut other) = (Prng::new(7), Prng::new(7));
/// assert_eq!(one.roll(), other.roll());
/// assert!(one.below(6) < 6);
/// ```
#[derive(Clone, Debug)]
pub struct Prng(u64);

impl Prng {
    /// The numbers of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        // Neighbouring seeds begin far apart, and none of them at 0, where it would stay.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub const fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number less than `end`, which is not 0.
    pub const fn below(&mut self, end: usize) -> usize {
        (self.roll() >> 32) as usize % end
    }

    /// True so many times of a hundred.
    pub const fn percent(&mut self, of_hundred: usize) -> bool {
        self.below(100) < of_hundred
    }

    /// One of `choices`, which are not empty.
    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// So many random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes
    }

    /// Fills `bytes` with random ones.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            piece.copy_from_slice(&self.roll().to_le_bytes()[..piece.len()]);
        }
    }
}
