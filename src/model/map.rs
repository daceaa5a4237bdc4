//! Maps by ids that clients do not choose, or that they only look for.
//!
//! The standard library's hash holds against keys that are chosen so as to meet. It takes 150
//! instructions for an id, this one 20. Where keys come from clients the former is right.

use std::collections::HashMap;

/// See the module. Made by `default()`.
pub type IdMap<K, V> = HashMap<K, V, hashbrown::DefaultHashBuilder>;
