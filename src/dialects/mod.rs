//! Wire formats: bytes ↔ core calls. **Do not know:** tokio, hyper, the store, the clock.

pub mod fastschema;
