//! Arithmetic modulo several odd numbers at once.

/// The most lanes of any implementation: one bit each in a mask.
pub(super) const MOST_LANES: usize = 32;

/// Residues in Montgomery's form (P. Montgomery, 1985), one for each of [`Lanes::COUNT`] moduli.
///
/// Results of `add` and `subtract` may go straight into `multiply`, but not into one another: an implementation may
/// leave them unreduced.
pub(super) trait Lanes: Sized {
    const COUNT: usize;

    type Value: Copy;

    /// Takes [`Lanes::COUNT`] odd moduli above 2^32.
    fn new(moduli: &[u64]) -> Self;

    fn one(&self) -> Self::Value;

    fn add(&self, a: Self::Value, b: Self::Value) -> Self::Value;

    fn subtract(&self, a: Self::Value, b: Self::Value) -> Self::Value;

    fn multiply(&self, a: Self::Value, b: Self::Value) -> Self::Value;

    /// `a` in the lanes whose bit is set and `b` in the others.
    fn select(lanes: u32, a: Self::Value, b: Self::Value) -> Self::Value;

    /// The lanes whose word has `bit` set.
    fn test(words: &[u64; MOST_LANES], bit: u32) -> u32;

    /// The lanes in which two products are congruent.
    fn equal(&self, a: Self::Value, b: Self::Value) -> u32;
}
