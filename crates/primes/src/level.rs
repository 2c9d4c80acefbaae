//! The vector instructions of the hot loops.

/// A set of instructions that the sieve's hot loops are compiled for.
///
/// [`Sieve::new`](crate::Sieve::new) takes the best one of this CPU.
/// [`Sieve::with_level`](crate::Sieve::with_level) takes a lower one, so that tests can hold all paths against each
/// other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// No instructions beyond the target's own.
    Portable,
    /// AVX2, FMA and POPCNT.
    Avx2,
    /// AVX-512 F, BW, DQ, VL, VNNI, IFMA, BITALG and VBMI2, BMI1 and BMI2, as on AMD Zen 4 and Intel Ice Lake.
    Avx512,
}

impl Level {
    /// All levels, lowest first.
    pub const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// The highest level that this CPU has.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let has_avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("popcnt");
            let has_avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni")
                && is_x86_feature_detected!("avx512ifma")
                && is_x86_feature_detected!("avx512bitalg")
                && is_x86_feature_detected!("avx512vbmi2")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2");
            if has_avx2 && has_avx512 {
                return Self::Avx512;
            }
            if has_avx2 {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// This level, or the best one if the CPU lacks it.
    pub(crate) fn supported(self) -> Self {
        self.min(Self::best())
    }
}
