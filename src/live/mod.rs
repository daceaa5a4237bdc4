//! Commits → matching plans → bodies → frames → outboxes.
//!
//! **Does not know:** dialects (it gets an [`Encode`]), sockets (it fills an outbox), SQL.
