//! Query strings: serde_qs, JSON or brackets.
