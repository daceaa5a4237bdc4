//! argv → what to run; exit codes. No logic of its own.
