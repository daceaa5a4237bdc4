//! Passwords for commands: by environment, file or prompt, never by flag.

use std::io::IsTerminal;
use std::path::PathBuf;

use crate::error::{Error, Result};

#[derive(clap::Args)]
pub struct PasswordFrom {
    /// A file that holds the password; without it ROWCAST_PASSWORD, else a prompt
    #[arg(long, value_name = "FILE", env = "ROWCAST_PASSWORD_FILE", hide_env_values = true)]
    password_file: Option<PathBuf>,
}

impl PasswordFrom {
    /// The password; `twice` asks again, so that a slip of the finger locks nobody out.
    pub fn get(&self, twice: bool) -> Result<String> {
        if let Some(path) = &self.password_file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Error::bad(format!("cannot read {}: {error}", path.display())))?;
            return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
        }
        if let Some(password) = std::env::var("ROWCAST_PASSWORD").ok().filter(|p| !p.is_empty()) {
            return Ok(password);
        }
        if !std::io::stdin().is_terminal() {
            return Err(Error::bad(
                "a password is needed: by ROWCAST_PASSWORD, --password-file, or typed at a terminal",
            ));
        }
        let ask = |prompt: &str| {
            rpassword::prompt_password(prompt)
                .map_err(|error| Error::bad(format!("no password: {error}")))
        };
        let password = ask("Password: ")?;
        if twice && ask("Again: ")? != password {
            return Err(Error::bad("the two passwords differ"));
        }
        Ok(password)
    }
}
