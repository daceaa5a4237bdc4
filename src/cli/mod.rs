//! argv → what to run; exit codes. No logic of its own.

use std::process::ExitCode;

use clap::Parser;

use crate::config::Config;
use crate::limits::Limits;
use crate::server;

/// Schema files in, filtered realtime streams out.
#[derive(Parser)]
#[command(name = "rowcast", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Runs the server (the default).
    Serve(Serve),
}

#[derive(clap::Args)]
struct Serve {
    #[arg(long, env = "APP_DATA_DIR", default_value = "data")]
    data: std::path::PathBuf,
    #[arg(long, env = "APP_SCHEMAS_DIR", default_value = "schemas")]
    schemas: std::path::PathBuf,
    #[arg(long, env = "APP_HOST", default_value = "127.0.0.1")]
    host: std::net::IpAddr,
    #[arg(long, env = "APP_PORT", default_value_t = 8000)]
    port: u16,
}

/// Runs what the command line says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let serve = match cli.command {
        Some(Command::Serve(serve)) => serve,
        None => cli.serve,
    };
    let config = Config {
        data: serve.data,
        schemas: serve.schemas,
        host: serve.host,
        port: serve.port,
        allowed_origins: Vec::new(),
        limits: Limits::default(),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("rowcast: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(server::serve(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rowcast: {error}");
            ExitCode::FAILURE
        }
    }
}
