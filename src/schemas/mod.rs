//! The schemas folder and the schema API: files in, migrations out.
