//! A filter as it was typed, each part with its JSON path for the error.
