//! The wheel modulo 30: bit `j` of map byte `i` stands for the number `30 i + RESIDUES[j]`.

/// The residues modulo 30 that are coprime to 30.
pub(crate) const RESIDUES: [u8; 8] = [1, 7, 11, 13, 17, 19, 23, 29];

/// The place of `number % 30` in [`RESIDUES`], or `None` if 2, 3 or 5 divides `number`.
pub(crate) const fn class_of(number: u64) -> Option<usize> {
    let class = CLASSES[(number % 30) as usize];
    if class < 8 { Some(class as usize) } else { None }
}

/// The class of every residue; 8 for residues that are not coprime to 30.
const CLASSES: [u8; 30] = {
    let mut classes = [8; 30];
    let mut class = 0;
    while class < 8 {
        classes[RESIDUES[class] as usize] = class as u8;
        class += 1;
    }
    classes
};

/// `CARRY[r][s]` and `KEEP[r][s]` place the product of `30 q + RESIDUES[r]` and `30 k + RESIDUES[s]`: it is in byte
/// `(30 q + RESIDUES[r]) k + q RESIDUES[s] + CARRY[r][s]`, and `KEEP[r][s]` has all bits of that byte set but its own.
pub(crate) const CARRY: [[u8; 8]; 8] = products().0;
pub(crate) const KEEP: [[u8; 8]; 8] = products().1;

const fn products() -> ([[u8; 8]; 8], [[u8; 8]; 8]) {
    let mut carry = [[0; 8]; 8];
    let mut keep = [[0; 8]; 8];
    let mut r = 0;
    while r < 8 {
        let mut s = 0;
        while s < 8 {
            let product = RESIDUES[r] as u64 * RESIDUES[s] as u64;
            let Some(bit) = class_of(product) else {
                panic!("a product of units is a unit");
            };
            carry[r][s] = (product / 30) as u8;
            keep[r][s] = !(1 << bit);
            s += 1;
        }
        r += 1;
    }
    (carry, keep)
}

/// The bit of a map that a prime crosses off: eight times the byte, and the bit within it.
pub(crate) type Hit = u32;

/// `HITS[r][s]` is the hit of `30 q + RESIDUES[r]` and `30 k + RESIDUES[s]` beyond eight times the byte
/// `(30 q + RESIDUES[r]) k + q RESIDUES[s]`.
pub(crate) const HITS: [[Hit; 8]; 8] = {
    let mut hits = [[0; 8]; 8];
    let mut r = 0;
    while r < 8 {
        let mut s = 0;
        while s < 8 {
            hits[r][s] = 8 * CARRY[r][s] as Hit + KEEP[r][s].trailing_ones();
            s += 1;
        }
        r += 1;
    }
    hits
};

/// The bits of the residues that are at least `residue`.
pub(crate) fn bits_from(residue: u8) -> u8 {
    bits_where(|r| r >= residue)
}

/// The bits of the residues that are at most `residue`.
pub(crate) fn bits_up_to(residue: u8) -> u8 {
    bits_where(|r| r <= residue)
}

fn bits_where(holds: impl Fn(u8) -> bool) -> u8 {
    (0..8).filter(|&j| holds(RESIDUES[j])).fold(0, |bits, j| bits | 1 << j)
}
