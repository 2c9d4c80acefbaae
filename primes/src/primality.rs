//! A deterministic primality test for 64-bit numbers.

/// Strong-probable-prime bases that together leave no composite below 2^64 (J. Sinclair, 2011,
/// <https://miller-rabin.appspot.com>).
const BASES: [u64; 7] = [2, 325, 9375, 28178, 450775, 9780504, 1795265022];

/// Whether `n` is prime; `n` is odd and above 2^32.
pub(crate) fn is_prime(n: u64) -> bool {
    let modulus = Montgomery::new(n);
    BASES.iter().all(|&base| modulus.passes(base % n))
}

/// Arithmetic modulo an odd number (P. Montgomery, 1985); residues are held times 2^64 and are below the modulus.
struct Montgomery {
    n: u64,
    inverse: u64,
    one: u64,
    square: u64,
}

impl Montgomery {
    fn new(n: u64) -> Self {
        let mut inverse = n;
        for _ in 0..5 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(n.wrapping_mul(inverse)));
        }
        let one = ((1u128 << 64) % u128::from(n)) as u64;
        let square = (u128::from(one) * u128::from(one) % u128::from(n)) as u64;
        Self {
            n,
            inverse,
            one,
            square,
        }
    }

    fn multiply(&self, a: u64, b: u64) -> u64 {
        let product = u128::from(a) * u128::from(b);
        let factor = (product as u64).wrapping_mul(self.inverse);
        let reduction = ((u128::from(factor) * u128::from(self.n)) >> 64) as u64;
        let (difference, borrow) = ((product >> 64) as u64).overflowing_sub(reduction);
        if borrow {
            difference.wrapping_add(self.n)
        } else {
            difference
        }
    }

    /// Whether the modulus is a strong probable prime to `base`.
    fn passes(&self, base: u64) -> bool {
        let minus_one = self.n - self.one;
        let twos = (self.n - 1).trailing_zeros();
        let mut power = self.power(self.multiply(base, self.square), (self.n - 1) >> twos);
        if power == self.one || power == minus_one || base == 0 {
            return true;
        }
        (1..twos).any(|_| {
            power = self.multiply(power, power);
            power == minus_one
        })
    }

    fn power(&self, base: u64, exponent: u64) -> u64 {
        let mut power = base;
        for bit in (0..exponent.ilog2()).rev() {
            power = self.multiply(power, power);
            if exponent >> bit & 1 == 1 {
                power = self.multiply(power, base);
            }
        }
        power
    }
}
