//! `rowcast import`: a file's rows become records.

mod convert;
mod mapping;
mod read;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value as Json};

use crate::config::settings::PlaceFlags;
use crate::content::IMPORT_RECORDS;
use crate::error::{Error, Result};

use self::convert::Convert;
use self::mapping::{Field, Mapping};
use self::read::{Format, Rows};
use super::link::{Link, unanswered};
use super::say;

/// Bytes that are sent, and committed, at once, [`IMPORT_RECORDS`] at most.
const BATCH_BYTES: usize = 4 << 20;

const EXAMPLES: &str = "\
A column goes to the field of its name, or of its name in lower case with underscores (`US Gross`
to us_gross, `magType` to mag_type). Values are not guessed: what a field does not take as it
stands is refused, told with line and reason, and there is an option for it:

  --convert FIELD=text             a number becomes text
  --convert FIELD=number|bool|json text (or 0 and 1) becomes what it says
  --convert FIELD=epoch-s|epoch-ms seconds or milliseconds since 1970 become a time
  --convert 'FIELD=date:%b %d %Y'  a date as strftime would write it
  --convert FIELD=before:DATE      a date on or after DATE is moved back by centuries
  --convert FIELD=ref              a key becomes a reference to that record
  --null N/A                       this text is null
  --skip COLUMN                    this column is left out

A feature of GeoJSON has its properties as columns, its `id`, its `geometry` as JSON, and where that
is a point its `longitude`, `latitude` and `altitude`; take the geometry or the coordinates.

In CSV, where all is text, values are read by the fields' types and an empty cell is null.

  rowcast import movie movies.json --convert title=text --convert 'release_date=date:%b %d %Y'
  rowcast import earthquake earthquakes.json --map altitude=depth \\
      --convert time=epoch-ms --convert updated=epoch-ms";

#[derive(clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Import {
    /// The schema whose records they become
    schema: String,
    /// A JSON array, NDJSON, CSV or GeoJSON file; - is stdin
    file: PathBuf,
    /// What is in it, where its name does not tell
    #[arg(long)]
    format: Option<Format>,
    /// Puts a column into a field; may be repeated
    #[arg(long, value_name = "COLUMN=FIELD", value_parser = convert::pair)]
    map: Vec<(String, String)>,
    /// Converts the values of a field, see below; may be repeated, also for one field
    #[arg(long, value_name = "FIELD=CONVERSION", value_parser = convert::conversion)]
    convert: Vec<(String, Convert)>,
    /// Leaves a column out; may be repeated
    #[arg(long, value_name = "COLUMN", alias = "ignore")]
    skip: Vec<String>,
    /// A text that means null; may be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    null: Vec<String>,
    /// A record whose key or unique value is there already is refused, skipped, or updates it
    #[arg(long, value_name = "error|skip|update", default_value = "error", value_parser = ["error", "skip", "update"])]
    on_conflict: String,
    /// One bad row refuses all, in one commit; as many rows as a write may have
    #[arg(long)]
    all_or_nothing: bool,
    #[command(flatten)]
    pub place: PlaceFlags,
}

/// What the server is sent.
#[derive(serde::Serialize)]
struct Body<'a> {
    schema: &'a str,
    records: Vec<Box<RawValue>>,
    on_conflict: &'a str,
    all_or_nothing: bool,
}

/// Rows on their way, and what became of those before.
struct Sending<'a> {
    import: &'a Import,
    link: &'a Link,
    bar: ProgressBar,
    /// As they are sent.
    records: Vec<Box<RawValue>>,
    lines: Vec<u64>,
    bytes: usize,
    created: u64,
    updated: u64,
    skipped: u64,
    refused: u64,
    /// Rows that were sent and not answered: whether they were written nobody knows here.
    unknown: u64,
}

impl Import {
    pub async fn run(&self, link: &Link) -> Result<ExitCode> {
        let path = format!("/api/schema/{}", self.schema);
        let schema = link.call(Method::GET, &path, None).await?;
        let Rows { format, rows, read, size, derived } = read::open(&self.file, self.format)?;
        let mapping = Mapping::new(
            Field::all(&schema),
            self.map.clone(),
            self.convert.clone(),
            self.skip.clone(),
            self.null.clone(),
            derived,
            format == Format::Csv,
        )
        .map_err(Error::bad)?;
        let mut sending = Sending {
            import: self,
            link,
            bar: progress(size),
            records: Vec::new(),
            lines: Vec::new(),
            bytes: 0,
            created: 0,
            updated: 0,
            skipped: 0,
            refused: 0,
            unknown: 0,
        };
        let mut count = 0u64;
        let all = async {
            for row in rows {
                count += 1;
                match row.columns.and_then(|columns| mapping.record(columns)) {
                    Ok(record) => sending.add(row.line, record).await?,
                    Err(why) => sending.refuse(row.line, &why),
                }
                sending.bar.set_position(read.load(Ordering::Relaxed));
            }
            if !self.all_or_nothing || sending.refused == 0 {
                sending.send().await?;
            }
            Ok(())
        };
        let ended: Result<()> = all.await;
        sending.bar.finish_and_clear();
        let Sending { created, updated, skipped, refused, unknown, .. } = sending;
        let read = if ended.is_ok() { "rows" } else { "rows read" };
        let mut text = format!("{count} {read}: {created} created");
        let others = [
            (updated, "updated"),
            (skipped, "skipped"),
            (refused, "refused"),
            (unknown, "unknown"),
        ];
        for (number, what) in others {
            if number > 0 {
                text.push_str(&format!(", {number} {what}"));
            }
        }
        if self.all_or_nothing && unknown == 0 && (refused > 0 || ended.is_err()) {
            text.push_str("; none was kept");
        }
        say(text);
        ended?;
        Ok(if refused > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

impl Sending<'_> {
    async fn add(&mut self, line: u64, record: Map<String, Json>) -> Result<()> {
        let record = to_raw_value(&record).map_err(Error::internal)?;
        let bytes = record.get().len();
        let full = self.records.len() >= IMPORT_RECORDS || self.bytes + bytes > BATCH_BYTES;
        if full && !self.import.all_or_nothing {
            self.send().await?;
        }
        self.records.push(record);
        self.lines.push(line);
        self.bytes += bytes;
        Ok(())
    }

    async fn send(&mut self) -> Result<()> {
        if self.records.is_empty() {
            return Ok(());
        }
        let body = Body {
            schema: &self.import.schema,
            records: std::mem::take(&mut self.records),
            on_conflict: &self.import.on_conflict,
            all_or_nothing: self.import.all_or_nothing,
        };
        let body = serde_json::to_vec(&body).map_err(Error::internal)?;
        self.bytes = 0;
        let lines = std::mem::take(&mut self.lines);
        let answer = match self.link.post("/owner/import", body).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.ended(&lines, error)),
        };
        let number = |key: &str| answer[key].as_u64().unwrap_or_default();
        self.created += number("created");
        self.updated += number("updated");
        self.skipped += number("skipped");
        for refused in answer["refused"].as_array().into_iter().flatten() {
            let index = refused["index"].as_u64().unwrap_or(u64::MAX) as usize;
            let line = lines.get(index).copied().unwrap_or_default();
            self.refuse(line, refused["message"].as_str().unwrap_or("refused"));
        }
        Ok(())
    }

    /// A call failed that held these lines: tells which of them were refused before, if the server
    /// says so, or that nobody knows.
    fn ended(&mut self, lines: &[u64], error: Error) -> Error {
        for problem in &error.problems {
            let index =
                problem.path.strip_prefix("records[").and_then(|path| path.strip_suffix(']'));
            let line = index.and_then(|index| lines.get(index.parse::<usize>().ok()?));
            if let Some(line) = line {
                self.refuse(*line, &problem.message);
            }
        }
        let mut what = "";
        if unanswered(&error) {
            self.unknown += lines.len() as u64;
            what = "unknown whether written: ";
        }
        match (lines.first(), lines.last()) {
            (Some(first), Some(last)) => {
                let message = format!("lines {first} to {last}: {what}{}", error.message);
                Error { message, ..error }
            }
            _ => error,
        }
    }

    fn refuse(&mut self, line: u64, why: &str) {
        self.refused += 1;
        self.bar.suspend(|| eprintln!("line {line}: {why}"));
    }
}

fn progress(size: Option<u64>) -> ProgressBar {
    let bar = match size {
        Some(size) => ProgressBar::new(size),
        None => ProgressBar::new_spinner(),
    };
    let template = match size {
        Some(_) => "{bar:40} {bytes}/{total_bytes} {eta}",
        None => "{spinner} {bytes}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
