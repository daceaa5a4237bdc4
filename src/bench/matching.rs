//! `rowcast bench match`: what one change costs among many plans, in process.

use std::process::ExitCode;

use crate::error::{Error, Result};

/// Which sizes are measured, and how they are told.
#[derive(clap::Args, Debug)]
pub struct Match {
    /// How many plans, with commas
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000,1000000")]
    plans: Vec<usize>,
    /// One JSON document instead of a table
    #[arg(long)]
    json: bool,
}

impl Match {
    /// Measures and prints.
    pub fn run(&self) -> Result<ExitCode> {
        Err(Error::bad(format!(
            "{:?} plans cannot be measured yet (json: {})",
            self.plans, self.json
        )))
    }
}
