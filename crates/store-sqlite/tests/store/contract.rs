//! The contract's tests.

use crate::helpers::Directory;

store::suite!(Directory::new());
