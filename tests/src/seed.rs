//! One seed, one run: pseudo-random choices that a test can repeat.
//!
//! The generator is SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
//! `GRANARY_TEST_SEED` replays a run; otherwise each test names its own seed, so that a run is the same everywhere.

/// A stream of pseudo-random numbers.
#[derive(Clone, Debug)]
pub struct Seed(u64);

impl Seed {
    /// The seed that `GRANARY_TEST_SEED` names, or `default`. Prints it, so that a failure can be replayed.
    pub fn from_env(default: u64) -> Self {
        let seed = std::env::var("GRANARY_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or(default);
        println!("seed {seed} (GRANARY_TEST_SEED={seed} replays it)");
        Self(seed)
    }

    /// The stream of this number.
    pub fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    #[allow(clippy::should_implement_trait, reason = "not an iterator: it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend_from_slice(&self.next().to_le_bytes());
        }
        out.truncate(len);
        out
    }
}
