//! Threads that nobody waits for, or that do what takes long, step back behind the others.

/// Steps behind the others. With 10 who wakes up gets the core at once and not when a slice is
/// over: beside two busy threads on two cores, four threads that wake each other took 3 ms at p99,
/// with 5 steps 2 to 3, with 10 0.2, as on a machine that does nothing else. Where all want the
/// core all the time, a tenth of it is left, and never nothing: the work is needed in the end.
const STEPS: i32 = 10;

/// The last step there is.
const LAST: i32 = 19;

/// Lets the calling thread wait where others want to run. For the rest of its life: only root may
/// step forward again, so this is nothing for the writer, behind whose bulk call a single write
/// may wait. Where the system has no such thing nothing changes.
pub fn step_back() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{getpid, getpriority_process, setpriority_process};
        // Behind the first thread of this process, wherever that stands: who starts this one may
        // have stepped back itself.
        let steps = getpriority_process(Some(getpid())).map(|first| LAST.min(first + STEPS));
        let own = Some(rustix::thread::gettid());
        let _ = steps.and_then(|steps| setpriority_process(own, steps));
    }
}

/// [`step_back`] for a whole process, before it has other threads: they take after the first.
pub fn process_steps_back() {
    #[cfg(unix)]
    {
        use rustix::process::{getpriority_process, setpriority_process};
        let steps = getpriority_process(None).map(|others| LAST.min(others + STEPS));
        let _ = steps.and_then(|steps| setpriority_process(None, steps));
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_steps_back_alone() {
        let of = |thread| rustix::process::getpriority_process(Some(thread)).expect("a thread");
        let own = rustix::thread::gettid();
        let before = of(own);
        let steps = move || {
            step_back();
            of(rustix::thread::gettid())
        };
        let run = move || std::thread::spawn(steps).join().expect("no panic");
        assert_eq!(run(), LAST.min(before + STEPS));
        // Nor further, whoever started it.
        let later = move || (steps(), run());
        let (one, other) = std::thread::spawn(later).join().expect("no panic");
        assert_eq!(one, other);
        assert_eq!(of(own), before);
    }
}
