//! Predicate × row → TRUE, FALSE or UNKNOWN.
