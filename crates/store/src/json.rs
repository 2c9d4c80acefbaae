//! JSON arrays of texts that are JSON already.

use serde_json::value::RawValue;

/// The array of these values.
#[must_use]
pub fn array(values: &[Box<RawValue>]) -> String {
    let mut text = String::with_capacity(2 + values.iter().map(|value| value.get().len() + 1).sum::<usize>());
    text.push('[');
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(value.get());
    }
    text.push(']');
    text
}
