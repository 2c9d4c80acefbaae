//! Panics of the library that only say of a record what it does not expect: they end no thread, and nobody need hear of them.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Whether a panic of this thread is expected.
    static IS_EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// The output of a look at a record; `None` if the library panics at it.
pub(crate) fn quietly<T>(look: impl FnOnce() -> T) -> Option<T> {
    hush();
    IS_EXPECTED.set(true);
    let found = catch_unwind(AssertUnwindSafe(look));
    IS_EXPECTED.set(false);
    found.ok()
}

/// Keeps expected panics from the process's hook, which would write a line for each.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !IS_EXPECTED.get() {
                before(panic);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panics() -> u32 {
        panic!("the name of a header is no text")
    }

    #[test]
    fn a_panic_is_no_output_and_the_next_one_of_the_thread_is_heard_again() {
        assert_eq!(quietly(|| 1), Some(1));
        assert_eq!(quietly(panics), None);
        assert!(!IS_EXPECTED.get());
    }
}
