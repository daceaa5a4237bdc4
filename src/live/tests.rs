//! The stream from commit to frames, with commits made by hand.

mod held;
mod told;
mod world;
