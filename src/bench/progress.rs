//! How far a bench is, on stderr: a bar where somebody looks at it, else a line for each of several
//! measurements.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};

/// Gone when dropped.
pub struct Bar(Option<ProgressBar>);

impl Bar {
    pub fn new() -> Bar {
        Bar(std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(1_000);
            if let Ok(style) = ProgressStyle::with_template("{spinner} {bar:20} {prefix}{msg}") {
                bar.set_style(style);
            }
            bar
        }))
    }

    /// Which of several measurements begins.
    pub fn part(&self, number: usize, of: usize, what: &str) {
        match self {
            _ if of <= 1 => {}
            Bar(Some(bar)) => bar.set_prefix(format!("({number} of {of}) ")),
            Bar(None) => eprintln!("rowcast: {number} of {of}: {what}"),
        }
    }

    /// A long part's next step, where nobody looks at a bar.
    pub fn step(&self, what: &str) {
        if self.0.is_none() {
            eprintln!("rowcast: {what}");
        }
    }

    /// Does what shows how far it is by itself.
    pub fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        match self {
            Bar(Some(bar)) => bar.suspend(work),
            Bar(None) => work(),
        }
    }

    /// What is being done from now on.
    pub fn say(&self, what: String) {
        if let Bar(Some(bar)) = self {
            bar.set_position(0);
            bar.set_message(what);
            bar.tick();
        }
    }

    /// A result, to stdout. Whoever reads it may have gone (`| head`): that is no fault.
    pub fn print(&self, text: &str) {
        use std::io::Write as _;
        self.aside(|| drop(writeln!(std::io::stdout().lock(), "{text}")));
    }

    /// The share of it that is done.
    pub fn at(&self, share: f64) {
        if let Bar(Some(bar)) = self {
            bar.set_position((share.clamp(0.0, 1.0) * 1_000.0) as u64);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Bar(Some(bar)) = self {
            bar.finish_and_clear();
        }
    }
}
