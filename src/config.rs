//! What was typed → what it means: flags, environment, an optional file; each value with its source.
