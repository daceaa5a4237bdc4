//! What SQLite and the disk answer → what a client may know.

use rusqlite::ErrorCode;

use crate::error::{Error, Kind};

/// Which remedy an error of the store calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// No room: passes when somebody makes some.
    Full,
    /// Another process holds the database.
    Busy,
    /// The disk does not do as told; the connection is not to be trusted afterwards.
    Disk,
    /// A read that took too long or whose client left.
    Interrupted,
    /// Wrong SQL, a broken file: a fault of ours.
    Fault,
}

impl Trouble {
    pub(crate) fn of(error: &rusqlite::Error) -> Trouble {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Trouble::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Trouble::Busy,
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::FileLockingProtocolFailed,
            ) => Trouble::Disk,
            Some(ErrorCode::OperationInterrupted) => Trouble::Interrupted,
            _ => Trouble::Fault,
        }
    }
}

/// The error a client gets. 5xx are logged under the id that the client is told.
pub(crate) fn fault(error: rusqlite::Error) -> Error {
    match Trouble::of(&error) {
        Trouble::Full => unavailable("the disk is full; nothing was written", &error),
        Trouble::Busy => unavailable("the database is locked by another process", &error),
        Trouble::Disk => unavailable("the disk does not answer as it should", &error),
        Trouble::Interrupted => {
            Error::new(Kind::Timeout, "the read took too long; narrow the filter or the page")
        }
        Trouble::Fault => Error::internal(format_args!("store: {error}")),
    }
}

/// A 503 with an id that stands in the log beside its cause.
pub(crate) fn unavailable(message: &str, cause: &dyn std::fmt::Display) -> Error {
    let id = uuid::Uuid::new_v4().simple().to_string();
    let id = &id[..12];
    tracing::error!(id = %id, "{message}: {cause}");
    Error::new(Kind::Unavailable, format!("{message} (error {id})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trouble_has_its_status() {
        let of =
            |code| fault(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None));
        for (code, status) in [(13, 503), (5, 503), (10, 503), (14, 503), (9, 408), (1, 500)] {
            assert_eq!(of(code).status(), status, "SQLite code {code}");
        }
    }
}
