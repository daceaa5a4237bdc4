//! A schema file as its author wrote it: parsed, checked, every problem told at once.
