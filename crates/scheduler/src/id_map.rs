//! Maps by ids. A request touches some thirty of them, and the hash of the standard library took a tenth of its time in user
//! mode. The hash here is seeded by the process; keys that consist of clients' texts stay in maps of the standard library.

use std::collections::{HashMap, HashSet};

pub use foldhash::fast::RandomState;

/// A map by an id.
pub type IdMap<K, V> = HashMap<K, V, RandomState>;

/// A set of ids.
pub type IdSet<K> = HashSet<K, RandomState>;
