//! Predicate → SQL: the visible mirror of `eval`.
