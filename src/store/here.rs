//! Which threads do short work on the store themselves.
//!
//! To hand a write or a read to another thread, and to be woken by its answer, takes longer than most
//! of them do: a core of a virtual machine that sleeps is woken in tens of microseconds. An event
//! loop that says so here does what is short by itself, when nobody else is at it.

use std::cell::Cell;

thread_local! {
    static HERE: Cell<bool> = const { Cell::new(false) };
}

/// From now on this thread does short work on the store itself. For threads that run a current-thread
/// runtime, before it runs.
pub fn settle() {
    HERE.set(true);
}

/// Whether this thread does short work on the store itself.
pub(crate) fn is_here() -> bool {
    HERE.get()
}
