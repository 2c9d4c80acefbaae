//! The contract's tests.

use crate::helpers::Database;

store::suite!(Database::new());

mod sharing {
    store::shared_suite!(crate::helpers::Database::new());
}
