//! argv → what to run; exit codes. No logic of its own.

pub mod import;

use std::process::ExitCode;

use clap::Parser;

use crate::config::{Config, Flags};
use crate::error::{Error, Result};
use crate::server;

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
}

/// Runs what the command line says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let command = cli.command.unwrap_or(Command::Serve(cli.serve));
    match run(command) {
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

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Serve(flags) => {
            let config = configure(flags)?;
            runtime()?.block_on(server::serve(config))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Reads the configuration and starts the log.
fn configure(flags: Flags) -> Result<Config> {
    let env = |name: &str| std::env::var(name).ok();
    let config = Config::load(flags, &env)?;
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log)
        .map_err(|error| Error::bad(format!("log level '{}': {error}", config.log)))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    Ok(config)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::internal)
}
