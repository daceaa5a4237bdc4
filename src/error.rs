//! One kind of error, mapped to every protocol by exhaustive matches.

use std::fmt;

/// What went wrong, as far as a client may know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong and will stay so.
    Bad,
    Unauthorized,
    Forbidden,
    NotFound,
    /// No schema of that name: 400 in REST (as FastSchema has it), 4404 on a socket.
    NoSchema,
    /// The path is good, the method is not; `allow` lists those that are, as in `Allow`.
    Method {
        allow: &'static str,
    },
    /// The path is a WebSocket's; the request is none.
    Upgrade,
    /// A required reference stands in the way.
    Conflict,
    TooLarge,
    /// A well-formed request that cannot be done: wrong login, invalid schema.
    Unprocessable,
    /// The cursor is gone, or what it meant has changed.
    Gone,
    /// Too much from this client; again after so many seconds.
    Limited {
        retry_after: u32,
    },
    /// Not now: disk full, waiting line full, shutting down.
    Unavailable,
    /// It took longer than allowed.
    Timeout,
    /// A fault of ours; logged under `id`.
    Internal,
}

/// An answer that says no, and why. `message` names the thing at fault and what would be right;
/// it never holds SQL, a path or a secret.
#[derive(Clone, Debug)]
pub struct Error {
    pub kind: Kind,
    pub message: String,
    pub detail: Option<String>,
    /// For schema errors: one entry a problem. For an import that ended under way: the records
    /// that were refused before.
    pub problems: Vec<Problem>,
}

/// One thing wrong with a schema file, or with what was to be imported.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// FastSchema's stable code where one fits, e.g. `field.type.invalid`.
    pub code: String,
    /// File name within the schemas folder, where the schema came from a file.
    pub file: Option<String>,
    /// 1-based line in that file, where known.
    pub line: Option<usize>,
    /// JSON path within the file, e.g. `fields[2].type`; of a record, within the call: `records[7]`.
    pub path: String,
    /// The field at fault, empty where none is.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    /// `blog.json:12: fields[2].type: unknown type 'strin'; use one of … [field.type.invalid]`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            write!(f, " ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{} [{}]", self.message, self.code)
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), detail: None, problems: Vec::new() }
    }

    pub fn bad(message: impl Into<String>) -> Self {
        Error::new(Kind::Bad, message)
    }

    pub fn unauthorized(message: impl fmt::Display) -> Self {
        Error::new(Kind::Unauthorized, format!("Unauthorized: {message}"))
    }

    pub fn forbidden(message: impl fmt::Display) -> Self {
        Error::new(Kind::Forbidden, format!("Forbidden: {message}"))
    }

    pub fn no_schema(name: &str) -> Self {
        Error::new(Kind::NoSchema, format!("schema not found: {}", clip(name)))
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Error::new(Kind::NotFound, message)
    }

    /// A fault of ours: `cause` goes to the log under a fresh id, the client gets the id.
    pub fn internal(cause: impl fmt::Display) -> Self {
        let id = uuid::Uuid::new_v4().simple().to_string();
        tracing::error!(id = %&id[..12], "{cause}");
        Error::new(Kind::Internal, format!("internal error {}", &id[..12]))
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn status(&self) -> u16 {
        match self.kind {
            Kind::Bad | Kind::NoSchema => 400,
            Kind::Unauthorized => 401,
            Kind::Forbidden => 403,
            Kind::NotFound => 404,
            Kind::Method { .. } => 405,
            Kind::Timeout => 408,
            Kind::Conflict => 409,
            Kind::Gone => 410,
            Kind::TooLarge => 413,
            Kind::Unprocessable => 422,
            Kind::Upgrade => 426,
            Kind::Limited { .. } => 429,
            Kind::Internal => 500,
            Kind::Unavailable => 503,
        }
    }

    /// The code a native WebSocket closes with.
    pub fn close_code(&self) -> u16 {
        match self.kind {
            Kind::Bad
            | Kind::Method { .. }
            | Kind::Upgrade
            | Kind::TooLarge
            | Kind::Unprocessable
            | Kind::Conflict => 4400,
            Kind::Unauthorized => 4401,
            Kind::Forbidden => 4403,
            Kind::NotFound | Kind::NoSchema => 4404,
            Kind::Gone => 4410,
            Kind::Limited { .. } | Kind::Unavailable => 4429,
            Kind::Timeout | Kind::Internal => 1011,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// What a client sent, short enough to be told back: 64 characters at most.
pub fn clip(text: &str) -> std::borrow::Cow<'_, str> {
    match text.char_indices().nth(64) {
        None => text.into(),
        Some((end, _)) => format!("{}…", &text[..end]).into(),
    }
}
