//! Maps by ids. A request looks ids up some sixty times: with the hash of the standard library that takes a tenth of the
//! coordinator's instructions for a request. The hash here is seeded by the process. Maps by texts of clients stay maps of the
//! standard library.

use std::collections::{HashMap, HashSet};

pub use foldhash::fast::RandomState;

/// A map by an id.
pub type IdMap<K, V> = HashMap<K, V, RandomState>;

/// A set of ids.
pub type IdSet<K> = HashSet<K, RandomState>;
