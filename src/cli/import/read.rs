//! Files → rows, each with the line it begins on.
//!
//! NDJSON and CSV are read as they go; a JSON array and GeoJSON are held in memory, their rows
//! parsed one at a time. A row that cannot be read is an error of its own, told with its line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::value::RawValue;
use serde_json::{Map, Value as Json};

use crate::error::{Error, Result};
use crate::model::json;

/// One row of a file: its columns as they stand there.
pub type Columns = Map<String, Json>;

/// A row, or why it is none.
pub struct Row {
    /// 1-based line on which it begins.
    pub line: u64,
    pub columns: std::result::Result<Columns, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// An array of objects
    Json,
    /// An object a line
    Ndjson,
    /// The first line names the columns; all cells are text
    Csv,
    /// A FeatureCollection: properties, `id`, `geometry`, and of points `longitude`, `latitude`, `altitude`
    Geojson,
}

/// The rows of a file, and how far reading has come.
pub struct Rows {
    pub format: Format,
    pub rows: Box<dyn Iterator<Item = Row>>,
    /// Bytes read so far.
    pub read: Arc<AtomicU64>,
    /// Size of the file, where it has one.
    pub size: Option<u64>,
    /// Columns that the format derives, some of them from each other.
    pub derived: &'static [&'static str],
}

/// What a row of GeoJSON has besides its properties.
const GEOMETRY: [&str; 4] = ["geometry", "longitude", "latitude", "altitude"];

/// Opens `path` (`-` is stdin). Without `format` the name's ending tells it, and for `.json` the
/// content whether it is GeoJSON.
pub fn open(path: &Path, format: Option<Format>) -> Result<Rows> {
    let fault =
        |error: std::io::Error| Error::bad(format!("cannot read {}: {error}", path.display()));
    let stdin = path.as_os_str() == "-";
    let format = match (format, path.extension().and_then(|ending| ending.to_str())) {
        (Some(format), _) => Some(format),
        (None, Some("json")) => None,
        (None, Some("ndjson" | "jsonl")) => Some(Format::Ndjson),
        (None, Some("csv")) => Some(Format::Csv),
        (None, Some("geojson")) => Some(Format::Geojson),
        (None, _) => {
            let text = format!(
                "{}: what is in it? Say --format json, ndjson, csv or geojson",
                path.display()
            );
            return Err(Error::bad(text));
        }
    };
    let (input, size): (Box<dyn Read>, _) = if stdin {
        (Box::new(std::io::stdin()), None)
    } else {
        let file = File::open(path).map_err(fault)?;
        let meta = file.metadata().map_err(fault)?;
        if meta.is_dir() {
            return Err(Error::bad(format!("{} is a directory, not a file", path.display())));
        }
        (Box::new(file), Some(meta.len()))
    };
    let read = Arc::new(AtomicU64::new(0));
    let mut input = BufReader::new(Counted { input, read: read.clone() });
    let (format, rows): (_, Box<dyn Iterator<Item = Row>>) = match format {
        Some(Format::Ndjson) => (Format::Ndjson, Box::new(Lines { input, line: 0 })),
        Some(Format::Csv) => (Format::Csv, Box::new(csv_rows(input)?)),
        whole => {
            let mut bytes = Vec::new();
            input.read_to_end(&mut bytes).map_err(fault)?;
            let geojson = match whole {
                Some(format) => format == Format::Geojson,
                None => !begins_array(&bytes),
            };
            read.store(0, Ordering::Relaxed);
            let array = if geojson { features(&bytes)? } else { 0..bytes.len() };
            let parse = if geojson { feature } else { object };
            let elements = Elements::new(bytes, array, read.clone(), parse)?;
            (if geojson { Format::Geojson } else { Format::Json }, Box::new(elements))
        }
    };
    let derived: &[&str] = if format == Format::Geojson { &GEOMETRY } else { &[] };
    Ok(Rows { format, rows, read, size, derived })
}

/// Counts what goes through.
struct Counted {
    input: Box<dyn Read>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.input.read(buffer)?;
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

fn object(bytes: &[u8]) -> std::result::Result<Columns, String> {
    match json::parse(bytes) {
        Ok(Json::Object(columns)) => Ok(columns),
        Ok(_) => Err("a row must be an object".into()),
        Err(error) => Err(error.message),
    }
}

/// `{"type":"Feature","id":…,"properties":{…},"geometry":{…}}` → its columns.
fn feature(bytes: &[u8]) -> std::result::Result<Columns, String> {
    let mut feature = object(bytes)?;
    let mut columns = match feature.remove("properties") {
        Some(Json::Object(properties)) => properties,
        Some(Json::Null) | None => Columns::new(),
        Some(_) => return Err("'properties' must be an object".into()),
    };
    // Of a property and what the feature itself says under that name, the property stays.
    let mut derive = |name: &str, value: Option<Json>| {
        if let Some(value) = value {
            columns.entry(name).or_insert(value);
        }
    };
    derive("id", feature.remove("id"));
    if let Some(geometry) = feature.remove("geometry") {
        if geometry["type"] == "Point" {
            for (index, name) in GEOMETRY[1..].iter().enumerate() {
                derive(name, geometry["coordinates"].get(index).cloned());
            }
        }
        derive("geometry", Some(geometry));
    }
    Ok(columns)
}

struct Lines {
    input: BufReader<Counted>,
    line: u64,
}

impl Iterator for Lines {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        let mut text = Vec::new();
        loop {
            text.clear();
            self.line += 1;
            match self.input.read_until(b'\n', &mut text) {
                Ok(0) => return None,
                Ok(_) if text.trim_ascii().is_empty() => {}
                Ok(_) => return Some(Row { line: self.line, columns: object(text.trim_ascii()) }),
                Err(error) => {
                    // What cannot be read has no next line either.
                    self.input = BufReader::new(Counted {
                        input: Box::new(std::io::empty()),
                        read: Arc::default(),
                    });
                    return Some(Row { line: self.line, columns: Err(error.to_string()) });
                }
            }
        }
    }
}

fn csv_rows(input: BufReader<Counted>) -> Result<impl Iterator<Item = Row>> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(input);
    let header = reader.headers().map_err(|error| Error::bad(format!("the header: {error}")))?;
    let names: Vec<String> =
        header.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned()).collect();
    if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        return Err(Error::bad(format!("the header names '{}' twice", twice.1)));
    }
    let mut records = reader.into_records();
    Ok(std::iter::from_fn(move || {
        let begun = records.reader().position().line();
        let record = records.next()?;
        let (line, columns) = match record {
            Ok(record) => {
                let line = record.position().map_or(begun, csv::Position::line);
                (line, cells(&names, &record))
            }
            Err(error) => {
                (error.position().map_or(begun, csv::Position::line), Err(error.to_string()))
            }
        };
        Some(Row { line, columns })
    }))
}

fn cells(names: &[String], record: &csv::StringRecord) -> std::result::Result<Columns, String> {
    if record.len() != names.len() {
        return Err(format!("{} cells where the header has {}", record.len(), names.len()));
    }
    Ok(names.iter().cloned().zip(record.iter().map(Json::from)).collect())
}

fn begins_array(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    bytes.trim_ascii_start().first() == Some(&b'[')
}

/// Where the array of features lies.
fn features(bytes: &[u8]) -> Result<std::ops::Range<usize>> {
    #[derive(serde::Deserialize)]
    struct Collection<'a> {
        #[serde(borrow)]
        features: Option<&'a RawValue>,
    }
    let parsed: Collection<'_> = serde_json::from_slice(bytes)
        .map_err(|error| Error::bad(format!("neither a JSON array nor GeoJSON: {error}")))?;
    let Some(features) = parsed.features else {
        return Err(Error::bad(
            "neither a JSON array nor GeoJSON: an object without \"features\"; for an object a line say --format ndjson",
        ));
    };
    let begin = features.get().as_ptr() as usize - bytes.as_ptr() as usize;
    Ok(begin..begin + features.get().len())
}

/// The elements of a JSON array, one at a time.
struct Elements {
    bytes: Vec<u8>,
    /// What is left of the array; empty once it has ended.
    at: usize,
    end: usize,
    /// Lines before `counted`.
    line: u64,
    counted: usize,
    first: bool,
    read: Arc<AtomicU64>,
    parse: fn(&[u8]) -> std::result::Result<Columns, String>,
}

impl Elements {
    fn new(
        bytes: Vec<u8>,
        array: std::ops::Range<usize>,
        read: Arc<AtomicU64>,
        parse: fn(&[u8]) -> std::result::Result<Columns, String>,
    ) -> Result<Self> {
        let mut elements = Elements {
            bytes,
            at: array.start,
            end: array.end,
            line: 1,
            counted: 0,
            first: true,
            read,
            parse,
        };
        if elements.bytes[elements.at..].starts_with(b"\xef\xbb\xbf") {
            elements.at += 3;
        }
        match elements.token() {
            Some(b'[') => {
                elements.at += 1;
                Ok(elements)
            }
            _ => Err(Error::bad("a JSON array of objects is needed")),
        }
    }

    /// The next byte that is no white space.
    fn token(&mut self) -> Option<u8> {
        let rest = &self.bytes[self.at..self.end];
        self.at += rest.len() - rest.trim_ascii_start().len();
        self.bytes[self.at..self.end].first().copied()
    }

    /// The line of `at`.
    fn line(&mut self) -> u64 {
        self.line += memchr::memchr_iter(b'\n', &self.bytes[self.counted..self.at]).count() as u64;
        self.counted = self.at;
        self.line
    }

    fn fail(&mut self, why: String) -> Option<Row> {
        let line = self.line();
        self.at = self.end;
        Some(Row { line, columns: Err(format!("{why}; nothing after it was read")) })
    }
}

impl Iterator for Elements {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        if self.at >= self.end {
            return None;
        }
        match (self.token(), self.first) {
            (Some(b']'), _) => {
                self.at += 1;
                let after = self.token();
                if after.is_some() {
                    return self.fail("the array ends before the file does".into());
                }
                return None;
            }
            (Some(b','), false) => {
                self.at += 1;
                self.token();
            }
            (Some(_), true) => {}
            (None, _) => return self.fail("the array does not end".into()),
            (Some(_), false) => return self.fail("',' or ']' is missing".into()),
        }
        self.first = false;
        let line = self.line();
        let rest = &self.bytes[self.at..self.end];
        let mut stream = serde_json::Deserializer::from_slice(rest).into_iter::<&RawValue>();
        match stream.next() {
            Some(Ok(element)) => {
                let columns = (self.parse)(element.get().as_bytes());
                self.at += stream.byte_offset();
                self.read.store(self.at as u64, Ordering::Relaxed);
                Some(Row { line, columns })
            }
            Some(Err(error)) => {
                let why = format!("invalid JSON: {error} (counted from this row on)");
                self.fail(why)
            }
            None => self.fail("the array does not end".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `LINE: columns or error` of every row.
    fn rows(name: &str, text: &str) -> Vec<String> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        match open(&path, None) {
            Ok(rows) => rows
                .rows
                .map(|row| match row.columns {
                    Ok(columns) => format!("{}: {}", row.line, Json::Object(columns)),
                    Err(error) => format!("{}: {error}", row.line),
                })
                .collect(),
            Err(error) => vec![error.message],
        }
    }

    #[test]
    fn json_arrays() {
        assert_eq!(
            rows("a.json", "[\n {\"a\": 1},\n\n {\"a\":\n 2}, 3 ]\n"),
            ["2: {\"a\":1}", "4: {\"a\":2}", "5: a row must be an object"]
        );
        assert!(rows("a.json", "[]").is_empty());
        assert_eq!(rows("a.json", "[{\"a\":9007199254740993}]"), ["1: {\"a\":9007199254740993}"]);
        let torn = rows("a.json", "[{\"a\":1},\n{\"a\":");
        assert_eq!(torn.len(), 2);
        assert!(torn[1].starts_with("2: invalid JSON"), "{torn:?}");
        assert!(rows("a.json", "[{} {}]")[1].contains("',' or ']'"));
        assert!(rows("a.json", "[{},]")[1].contains("JSON"), "{:?}", rows("a.json", "[{},]"));
        assert!(rows("a.json", "[{}] x")[1].contains("ends before"));
        assert!(rows("a.json", "[{\"a\":1,\"a\":2}]")[0].starts_with("1: "));
        assert!(rows("a.json", "\"x\"")[0].contains("neither a JSON array"));
        assert!(rows("a.json", "{\"a\":1}")[0].contains("ndjson"));
    }

    #[test]
    fn ndjson() {
        assert_eq!(
            rows("a.ndjson", "{\"a\":1}\n\n{\"a\"\n{\"a\":2}"),
            [
                "1: {\"a\":1}",
                "3: invalid JSON: EOF while parsing an object at line 1 column 4",
                "4: {\"a\":2}"
            ]
        );
    }

    #[test]
    fn csv() {
        assert_eq!(
            rows("a.csv", "\u{feff}a,b\n1,x\n\"2\n3\",y\n4\n5,z\n"),
            [
                "2: {\"a\":\"1\",\"b\":\"x\"}",
                "3: {\"a\":\"2\\n3\",\"b\":\"y\"}",
                "5: 1 cells where the header has 2",
                "6: {\"a\":\"5\",\"b\":\"z\"}"
            ]
        );
        assert!(rows("a.csv", "a,a\n1,2\n")[0].contains("twice"));
    }

    #[test]
    fn geojson() {
        let text = r#"{"type":"FeatureCollection","features":[
            {"type":"Feature","id":"x","properties":{"mag":2,"id":null},
             "geometry":{"type":"Point","coordinates":[1.5,2,3]}},
            {"type":"Feature","properties":null,"geometry":{"type":"LineString","coordinates":[]}}]}"#;
        assert_eq!(
            rows("a.json", text),
            [
                r#"2: {"mag":2,"id":null,"longitude":1.5,"latitude":2,"altitude":3,"geometry":{"type":"Point","coordinates":[1.5,2,3]}}"#,
                r#"4: {"geometry":{"type":"LineString","coordinates":[]}}"#
            ]
        );
    }

    #[test]
    fn what_is_no_file() {
        assert!(rows("a.txt", "")[0].contains("--format"));
        let missing = open(Path::new("/nowhere.json"), None).err().expect("refused").message;
        assert!(missing.contains("/nowhere.json"), "{missing}");
    }
}
