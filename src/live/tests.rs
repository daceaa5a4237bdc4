//! The stream from commit to frames, with commits made by hand.

mod held;
mod told;
pub(super) mod world;
