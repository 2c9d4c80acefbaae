//! The limits that divide the work, as functions of x alone and of integer and IEEE arithmetic: every machine finds the
//! same ones.

/// The bounds by which X. Gourdon's formula divides the leaves of the sum up to `x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parameters {
    pub(crate) x: u64,
    /// The least x/p of a prime p ≤ √x, and the largest such prime.
    pub(crate) root: u64,
    pub(crate) cube_root: u64,
    pub(crate) fourth_root: u64,
    /// No leaf has a larger prime factor; between ∛x and √x.
    pub(crate) y: u64,
    /// Leaves up to here are not split further; between y and √x.
    pub(crate) z: u64,
    /// √z.
    pub(crate) root_of_z: u64,
    /// From here on only pairs of primes are leaves, whose sums need no sieve: the fourth root of x, or x/y².
    pub(crate) easy_from: u64,
}

impl Parameters {
    /// The least x for which the divisions below make sense.
    pub(crate) const LEAST: u64 = 1_000_000;

    /// `y` and `z` are moved to where they are valid.
    pub(crate) fn new(x: u64, y: u64, z: u64) -> Self {
        assert!(x >= Self::LEAST, "x is at least a million");
        let (root, cube_root) = (x.isqrt(), cube_root(x));
        let fourth_root = root.isqrt();
        let y = y.clamp(cube_root + 1, root - 1);
        // The square of the largest prime of the pattern.
        let z = z.clamp(y.max(18 * 18), root - 1);
        let easy_from = fourth_root.max(x / (y * y));
        Self { x, root, cube_root, fourth_root, y, z, root_of_z: z.isqrt(), easy_from }
    }
}

pub(crate) fn cube_root(x: u64) -> u64 {
    let mut root = 0;
    for bit in (0..22).rev() {
        let candidate = root | 1 << bit;
        let cube = u128::from(candidate) * u128::from(candidate) * u128::from(candidate);
        if cube <= u128::from(x) {
            root = candidate;
        }
    }
    root
}
