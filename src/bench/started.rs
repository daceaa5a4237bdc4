//! What stands between the bench and a server that it starts.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};

use crate::error::{Error, Result};

/// `rowcast bench started -- PROGRAM …`: becomes that program, without its log, and is told to end
/// when the process that started it ends, however it does (Linux; elsewhere it stays then).
#[derive(clap::Args, Debug)]
pub struct Started {
    /// Which process that is: it may have ended already
    #[arg(long)]
    parent: u32,
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
}

impl Started {
    /// Comes back only where the program cannot be run.
    pub fn run(&self) -> Result<ExitCode> {
        end_with_parent()?;
        if std::os::unix::process::parent_id() != self.parent {
            return Err(Error::bad("who started this has ended"));
        }
        let [program, arguments @ ..] = self.command.as_slice() else {
            return Err(Error::bad("no program"));
        };
        let told = std::io::stderr().as_fd().try_clone_to_owned();
        let error = Command::new(program).args(arguments).stderr(Stdio::null()).exec();
        // This process has no stderr by now but the one that was kept.
        if let Ok(told) = told {
            let _ = writeln!(File::from(told), "rowcast: {}: {error}", program.display());
        }
        Ok(ExitCode::FAILURE)
    }
}

/// Has the kernel end this process when the thread that started it has ended. It outlives exec.
pub fn end_with_parent() -> Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .map_err(|error| Error::bad(format!("the end of the parent: {error}")))?;
    Ok(())
}
