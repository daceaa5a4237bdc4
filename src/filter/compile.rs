//! Tree and schema → predicate: names, operators and literals checked once.
