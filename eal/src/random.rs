//! Pseudo-random numbers from a seed; not for secrets.

/// The increment from one number of a sequence to the next.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64: small, fast, and suitable for any seed.
///
/// ```
/// use linecard_eal::random::SplitMix64;
///
/// let mut random = SplitMix64::new(7);
/// let first = random.draw();
/// assert_eq!(first, SplitMix64::new(7).draw());
/// assert_eq!(random.draw(), SplitMix64::nth(7, 1));
/// assert!(random.below(6) < 6);
/// ```
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// The sequence for `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number.
    pub const fn draw(&mut self) -> u64 {
        let number = mix(self.0);
        self.0 = self.0.wrapping_add(STEP);
        number
    }

    /// Returns a number below `end`, which must not be 0.
    pub const fn below(&mut self, end: u64) -> u64 {
        ((self.draw() as u128 * end as u128) >> 64) as u64
    }

    /// Returns number `n` of the sequence for `seed`, counted from 0, without computing the ones before.
    #[must_use]
    pub const fn nth(seed: u64, n: u64) -> u64 {
        mix(seed.wrapping_add(n.wrapping_mul(STEP)))
    }
}

/// Spreads each bit of `word` over the result. Different words have different results.
///
/// ```
/// use linecard_eal::random::mix;
///
/// assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
/// ```
#[must_use]
pub const fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(STEP);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference implementation's first numbers of seed 1234567.
    #[test]
    fn the_numbers_are_those_of_the_reference() {
        let mut random = SplitMix64::new(1_234_567);
        let want = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([random.draw(), random.draw(), random.draw()], want);
        assert_eq!([0, 1, 2].map(|n| SplitMix64::nth(1_234_567, n)), want);
    }

    #[test]
    fn numbers_below_an_end_are_even() {
        let mut random = SplitMix64::new(1);
        let mut counts = [0_u32; 7];
        (0..70_000).for_each(|_| counts[random.below(7) as usize] += 1);
        assert!(counts.iter().all(|&count| (9_500..10_500).contains(&count)), "{counts:?}");
    }
}
