//! Whole numbers in the forms that people write.

/// A whole number, also as `10_000`, `1e9` or `2.5e6`: read exactly, never through a float. `None` for any other text, and for
/// more than 64 bits.
#[must_use]
pub fn whole_number(text: &str) -> Option<u64> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<u8>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(a, b)| (a, Some(b)));
    let mut value = digits(whole)?;
    let mut zeros = u32::from(exponent);
    if let Some(fraction) = fraction {
        let length = u32::try_from(fraction.len()).ok()?;
        zeros = zeros.checked_sub(length)?;
        value = value.checked_mul(10_u64.checked_pow(length)?)?.checked_add(digits(fraction)?)?;
    }
    if value == 0 { Some(0) } else { value.checked_mul(10_u64.checked_pow(zeros)?) }
}

/// Digits with single underscores between them. `None` for any other text, and for more than 64 bits.
#[must_use]
pub fn digits(text: &str) -> Option<u64> {
    let grouped = text.split('_').all(|group| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit()));
    grouped.then(|| text.replace('_', "").parse().ok()).flatten()
}
