//! Who cannot be told of a commit, and why.

use crate::error::{Error, Kind};
use crate::live::registry::{Mode, PlanId};

/// Subscribers of a plan who cannot be told of a commit: they end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failure {
    pub plan: PlanId,
    /// Only those that are told transitions.
    pub transitions: bool,
    pub fault: Fault,
}

/// Why subscribers cannot be told of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A fault of ours.
    Failed,
    /// The plan reads relations that the writer was not asked for when it worked on the commit.
    Ungathered,
    /// What the plan reads through relations, or shows of all records, is too much for one commit.
    TooMuch,
    /// The commit concerns too many records through a relation that the plan reads.
    Dependants,
}

impl Failure {
    /// Whether listeners of the plan who are told so are concerned.
    pub fn concerns(&self, mode: Mode) -> bool {
        mode.transitions || !self.transitions
    }

    /// How they are told; `schema` is the plan's.
    pub fn error(&self, schema: &str) -> Error {
        let gone = |message| Error::new(Kind::Gone, message);
        match self.fault {
            Fault::Failed => {
                Error::internal(format!("a plan on {schema} failed: its subscriptions end"))
            }
            // Between a change of access that made it need them and the writer's next job.
            Fault::Ungathered => gone("access has changed meanwhile: subscribe again".to_owned()),
            // What is to be done comes first: a close carries little text.
            Fault::TooMuch => {
                gone(format!("take a snapshot: a write changed or concerned too much of {schema}"))
            }
            Fault::Dependants => gone(format!(
                "take a snapshot: a write concerned too many records of {schema} through a relation"
            )),
        }
    }
}
