//! Who cannot be told of a commit, and why.

use crate::error::{Error, Kind};
use crate::live::message::Events;
use crate::live::registry::{Group, PlanId};

use super::Fanout;

/// Subscribers of a plan who cannot be told of a commit: they end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failure {
    pub plan: PlanId,
    /// Only those that are told transitions.
    pub transitions: bool,
    /// Only those that want to hear of one of these.
    pub events: Events,
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

impl Fanout {
    /// Listeners of a plan who want one of `events` cannot be told.
    pub(super) fn fail(&mut self, plan: PlanId, transitions: bool, events: Events, fault: Fault) {
        self.failed.insert(Failure { plan, transitions, events, fault });
    }

    /// Nor can any of its listeners.
    pub(super) fn fail_all(&mut self, plan: PlanId, fault: Fault) {
        self.fail(plan, false, Events::ALL, fault);
    }

    /// Who of a plan's listeners has failed.
    pub(super) fn failures(&self, plan: PlanId) -> Vec<Failure> {
        let (transitions, events, fault) = (false, Events::NONE, Fault::Failed);
        let first = Failure { plan, transitions, events, fault };
        self.failed.range(first..).take_while(|failure| failure.plan == plan).copied().collect()
    }
}

impl Failure {
    /// Whether such listeners of the plan are concerned.
    pub fn concerns(&self, group: &Group) -> bool {
        (group.mode.transitions || !self.transitions) && group.events.meets(self.events)
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
