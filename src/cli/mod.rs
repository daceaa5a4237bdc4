//! argv → what to run; exit codes. No logic of its own.

mod backup;
mod import;
mod link;
mod log;
mod restore;
mod secret;
mod tail;
mod user;

use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::{Builder, Runtime};

use crate::bench;
use crate::config::{Config, Flags};
use crate::error::{Error, Result};
use crate::nice;
use crate::schemas;
use crate::server;

use self::link::Link;

const SECRETS: &str = "\
Secrets come by environment, never by flag; NAME_FILE names a file that holds the secret:
  APP_KEY           signs tokens, 32 bytes or more; made and kept in DATA/.env when not given
  APP_KEY_PREVIOUS  tokens signed with it are still accepted
  ADMIN_PASSWORD    of the first admin, 8 to 256 characters; made and kept likewise

A flag wins over the environment, that over the file, that over the default.";

/// Schema files in, filtered realtime streams out.
#[derive(Parser)]
#[command(name = "rowcast", version, about, args_conflicts_with_subcommands = true)]
#[command(after_help = SECRETS)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Flags,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Runs the server (the default)
    #[command(after_help = SECRETS)]
    Serve(Flags),
    /// Checks a folder of schema files without a server; exits with 1 on errors
    Check {
        /// The folder
        dir: std::path::PathBuf,
    },
    /// Makes records of a file's rows (JSON, NDJSON, CSV, GeoJSON)
    Import(import::Import),
    /// Copies the whole store into one file, while it is in use
    Backup(backup::Backup),
    /// Puts a backup in the store's place
    Restore(restore::Restore),
    /// Prints a schema's changes as they happen, a message a line
    Tail(tail::Tail),
    /// Prints a token for a user
    Token(user::Token),
    /// Adds, disables and lists users, sets passwords
    User(user::Users),
    /// Measures a server: its own in a temporary folder, or one that runs
    Bench(bench::Bench),
}

/// Runs what the command line says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let command = cli.command.unwrap_or(Command::Serve(cli.serve));
    let ran = run(command);
    log::flush();
    match ran {
        Ok(code) => code,
        Err(error) => {
            eprintln!("rowcast: {error}");
            for problem in &error.problems {
                eprintln!("  {problem}");
            }
            ExitCode::FAILURE
        }
    }
}

/// A line to stdout. Whoever listens may have gone (`| head`): that is no fault.
fn say(line: impl std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Serve(flags) => {
            let config = configure(flags, "info")?;
            pool()?.block_on(server::serve(config))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { dir } => {
            let report = schemas::check_dir(&dir)?;
            say(&report);
            Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Import(import) => {
            // Beside a server it should not be felt.
            nice::process_steps_back();
            let config = configure(import.place.0.clone(), "warn")?;
            runtime()?.block_on(async { import.run(&Link::open(config).await?).await })
        }
        Command::Backup(backup) => {
            let config = configure(backup.place.0.clone(), "warn")?;
            runtime()?.block_on(backup.run(&config))
        }
        Command::Restore(restore) => {
            let config = configure(restore.place.0.clone(), "warn")?;
            runtime()?.block_on(restore.run(&config))
        }
        Command::Tail(tail) => {
            let config = configure(tail.place.0.clone(), "warn")?;
            runtime()?.block_on(tail.run(&config))
        }
        Command::Token(token) => {
            let config = configure(token.place.0.clone(), "warn")?;
            runtime()?.block_on(async { token.run(&Link::open(config).await?).await })
        }
        Command::User(users) => {
            let config = configure(users.place.0.clone(), "warn")?;
            // Asked for first: a prompt should not hold the data directory's lock.
            let (path, body) = users.call()?;
            runtime()?.block_on(async { users.run(path, &body, &Link::open(config).await?).await })
        }
        Command::Bench(bench) => bench.run(),
    }
}

/// Reads the configuration and starts the log, at `level` unless another was set.
fn configure(flags: Flags, level: &str) -> Result<Config> {
    let env = |name: &str| std::env::var(name).ok();
    let config = Config::load(flags, &env)?;
    let level = config.log.as_deref().unwrap_or(level);
    let filter = tracing_subscriber::EnvFilter::try_new(level)
        .map_err(|error| Error::bad(format!("log: '{level}': {error}")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(log::start().map_err(Error::internal)?)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .event_format(log::Lines::default())
        .init();
    Ok(config)
}

/// A server's, for what takes long: its threads step back behind those that serve connections.
fn pool() -> Result<Runtime> {
    let mut pool = Builder::new_multi_thread();
    pool.enable_all().on_thread_start(nice::step_back).build().map_err(Error::internal)
}

fn runtime() -> Result<Runtime> {
    Builder::new_multi_thread().enable_all().build().map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
