//! The two halves of the test of R. Baillie, C. Pomerance, J. Selfridge and S. Wagstaff (1980), in lanes.

use super::lanes::{Lanes, MOST_LANES};

/// Keeps the numbers that pass `test`, which takes [`Lanes::COUNT`] numbers and returns the lanes that pass.
#[inline(always)]
pub(super) fn retain<L: Lanes>(numbers: &mut Vec<u64>, test: impl Fn(&[u64]) -> u32) {
    let len = numbers.len();
    let Some(&last) = numbers.last() else {
        return;
    };
    numbers.resize(len.next_multiple_of(L::COUNT), last);
    let mut kept = 0;
    for start in (0..len).step_by(L::COUNT) {
        let passed = test(&numbers[start..start + L::COUNT]);
        for lane in 0..L::COUNT.min(len - start) {
            numbers[kept] = numbers[start + lane];
            kept += (passed >> lane & 1) as usize;
        }
    }
    numbers.truncate(kept);
}

/// The lanes whose number is a strong probable prime to base 2.
#[inline(always)]
pub(super) fn strong_to_base_two<L: Lanes>(numbers: &[u64]) -> u32 {
    let lanes = L::new(numbers);
    let one = lanes.one();
    let zero = lanes.multiply(one, lanes.subtract(one, one));
    let minus_one = lanes.multiply(one, lanes.subtract(zero, one));
    let exponents = Exponents::new(numbers, |n| n - 1);
    let mut power = one;
    for bit in (0..exponents.bits).rev() {
        power = lanes.multiply(power, power);
        let doubled = lanes.add(power, power);
        power = L::select(L::test(&exponents.odd, bit), doubled, power);
    }
    power = lanes.multiply(power, one);
    let mut passed = lanes.equal(power, one) | lanes.equal(power, minus_one);
    for squarings in 1..exponents.most_twos {
        power = lanes.multiply(power, power);
        passed |= lanes.equal(power, minus_one) & exponents.lanes_with_twos_above(squarings);
    }
    passed
}

/// The lanes whose number is an almost extra strong Lucas probable prime (J. Grantham, 2001; D. Jacobsen).
///
/// The Lucas sequence is `V(0) = 2`, `V(1) = P`, `V(k + 1) = P V(k) − V(k − 1)`.
#[inline(always)]
pub(super) fn lucas<L: Lanes>(numbers: &[u64]) -> u32 {
    let lanes = L::new(numbers);
    let mut parameters = [0; MOST_LANES];
    for (parameter, &n) in parameters.iter_mut().zip(numbers) {
        *parameter = lucas_parameter(n).unwrap_or(0);
    }
    let one = lanes.one();
    let two = lanes.multiply(one, lanes.add(one, one));
    let zero = lanes.multiply(one, lanes.subtract(one, one));
    let p = residues(&lanes, &parameters);
    let exponents = Exponents::new(numbers, |n| n.wrapping_add(1));
    let (mut v, mut next) = (two, p);
    for bit in (0..exponents.bits).rev() {
        let set = L::test(&exponents.odd, bit);
        let mixed = lanes.subtract(lanes.multiply(v, next), p);
        let base = L::select(set, next, v);
        let doubled = lanes.subtract(lanes.multiply(base, base), two);
        v = L::select(set, mixed, doubled);
        next = L::select(set, doubled, mixed);
    }
    v = lanes.multiply(v, one);
    let minus_two = lanes.multiply(one, lanes.subtract(zero, two));
    let mut passed = lanes.equal(v, two) | lanes.equal(v, minus_two);
    for doublings in 1..exponents.most_twos {
        passed |= lanes.equal(v, zero) & exponents.lanes_with_twos_above(doublings);
        v = lanes.multiply(one, lanes.subtract(lanes.multiply(v, v), two));
    }
    passed & lanes_where(&parameters, |p| p != 0)
}

/// An exponent in each lane, as an odd number times a power of two.
struct Exponents {
    odd: [u64; MOST_LANES],
    twos: [u64; MOST_LANES],
    /// Bits of the largest odd part.
    bits: u32,
    most_twos: u64,
}

impl Exponents {
    #[inline(always)]
    fn new(numbers: &[u64], exponent: impl Fn(u64) -> u64) -> Self {
        let mut exponents = Self { odd: [0; MOST_LANES], twos: [0; MOST_LANES], bits: 0, most_twos: 0 };
        for (lane, &n) in numbers.iter().enumerate() {
            let exponent = exponent(n);
            let twos = exponent.trailing_zeros();
            exponents.odd[lane] = exponent >> twos;
            exponents.twos[lane] = twos.into();
            exponents.bits = exponents.bits.max(u64::BITS - exponents.odd[lane].leading_zeros());
            exponents.most_twos = exponents.most_twos.max(twos.into());
        }
        exponents
    }

    fn lanes_with_twos_above(&self, twos: u64) -> u32 {
        lanes_where(&self.twos, |t| t > twos)
    }
}

fn lanes_where(values: &[u64; MOST_LANES], holds: impl Fn(u64) -> bool) -> u32 {
    (0..MOST_LANES).fold(0, |lanes, lane| lanes | u32::from(holds(values[lane])) << lane)
}

/// The residues of small numbers.
#[inline(always)]
fn residues<L: Lanes>(lanes: &L, numbers: &[u64; MOST_LANES]) -> L::Value {
    let one = lanes.one();
    let mut residues = lanes.multiply(one, lanes.subtract(one, one));
    let largest = numbers.iter().max().expect("an array of lanes");
    for bit in (0..=largest.ilog2()).rev() {
        residues = lanes.multiply(one, lanes.add(residues, residues));
        let more = lanes.multiply(one, lanes.add(residues, one));
        residues = L::select(L::test(numbers, bit), more, residues);
    }
    residues
}

/// For each `P` a modulus, and as bits the residues of `n` for which `P² − 4` is not a square modulo a prime `n`.
const NON_RESIDUES: [(u64, u64, u32); 4] = [
    (3, 5, 1 << 2 | 1 << 3),
    (4, 12, 1 << 5 | 1 << 7),
    (5, 21, 1 << 2 | 1 << 8 | 1 << 10 | 1 << 11 | 1 << 13 | 1 << 19),
    (6, 8, 1 << 3 | 1 << 5),
];

/// The least `P` from 3 on for which the Jacobi symbol of `P² − 4` over `n` is −1; none if `n` is a square.
fn lucas_parameter(n: u64) -> Option<u64> {
    const TRIES_BEFORE_SQUARE_TEST: u64 = 40;
    let mut fits = 0;
    for (i, (_, modulus, residues)) in NON_RESIDUES.into_iter().enumerate() {
        fits |= (residues >> (n % modulus) & 1) << i;
    }
    if fits != 0 {
        return Some(NON_RESIDUES[fits.trailing_zeros() as usize].0);
    }
    let is_non_residue = |p: &u64| jacobi(p * p - 4, n) == -1;
    let first = (7..TRIES_BEFORE_SQUARE_TEST).find(is_non_residue);
    first.or_else(|| {
        let is_square = n.isqrt() * n.isqrt() == n;
        if is_square { None } else { (TRIES_BEFORE_SQUARE_TEST..).find(is_non_residue) }
    })
}

/// The Jacobi symbol of `a` over the odd number `n`.
fn jacobi(a: u64, n: u64) -> i32 {
    let (mut a, mut n, mut symbol) = (a, n, 1);
    while a != 0 {
        let twos = a.trailing_zeros();
        a >>= twos;
        if twos % 2 == 1 && matches!(n % 8, 3 | 5) {
            symbol = -symbol;
        }
        if a % 4 == 3 && n % 4 == 3 {
            symbol = -symbol;
        }
        (a, n) = (n % a, a);
    }
    if n == 1 { symbol } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_non_residues_agree_with_the_jacobi_symbol() {
        for n in (11..10_000).step_by(2) {
            for (p, modulus, residues) in NON_RESIDUES {
                let is_known = residues >> (n % modulus) & 1 == 1;
                assert_eq!(is_known, jacobi(p * p - 4, n) == -1, "{p} {n}");
            }
        }
    }
}
