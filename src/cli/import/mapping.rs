//! Columns of a file → fields of a schema, as the options say.
//!
//! Nothing is guessed about values: a JSON number for a text field stays a number and is refused,
//! unless an option converts it. Only CSV, where all is text, is read by the fields' types.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value as Json};

use super::convert::Convert;
use super::read::Columns;

/// A field of the schema, as the schema API shows it.
#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    pub ty: String,
    /// A relation to several records.
    pub multiple: bool,
}

impl Field {
    /// The fields of a schema in the file format.
    pub fn all(schema: &Json) -> Vec<Field> {
        let text = |field: &Json, key: &str| field[key].as_str().map(ToOwned::to_owned);
        let fields = schema["fields"].as_array().map_or(&[][..], Vec::as_slice);
        let field = |field: &Json| {
            let relation = &field["relation"];
            let owner = relation["owner"].as_bool() == Some(true);
            Some(Field {
                name: text(field, "name")?,
                ty: text(field, "type")?,
                multiple: relation["type"] == "m2m" || relation["type"] == "o2m" && owner,
            })
        };
        fields.iter().filter_map(field).collect()
    }
}

/// How rows become records.
#[derive(Debug)]
pub struct Mapping {
    fields: HashMap<String, Field>,
    map: HashMap<String, String>,
    convert: Vec<(String, Convert)>,
    skip: HashSet<String>,
    null: HashSet<String>,
    derived: &'static [&'static str],
    /// All values are text, to be read by the fields' types.
    text: bool,
}

impl Mapping {
    /// Checks that options name fields of the schema. `text` for CSV.
    pub fn new(
        fields: Vec<Field>,
        map: Vec<(String, String)>,
        convert: Vec<(String, Convert)>,
        skip: Vec<String>,
        null: Vec<String>,
        derived: &'static [&'static str],
        text: bool,
    ) -> Result<Self, String> {
        let fields: HashMap<_, _> = fields.into_iter().map(|f| (f.name.clone(), f)).collect();
        let known = |option: &str, field: &str| {
            if fields.contains_key(field) {
                return Ok(());
            }
            let mut names: Vec<_> = fields.keys().map(String::as_str).collect();
            names.sort_unstable();
            Err(format!("{option}: no field '{field}'; there are {}", names.join(", ")))
        };
        for (column, field) in &map {
            known(&format!("--map '{column}={field}'"), field)?;
        }
        for (field, _) in &convert {
            known(&format!("--convert '{field}=…'"), field)?;
        }
        Ok(Mapping {
            map: map.into_iter().collect(),
            convert,
            skip: skip.into_iter().collect(),
            null: null.into_iter().collect(),
            derived,
            text,
            fields,
        })
    }

    /// The field a column goes to: as mapped, else the one of that name, else the one whose name
    /// it is in other letters (`US Gross` → `us_gross`, `magType` → `mag_type`).
    fn target(&self, column: &str) -> Option<&Field> {
        if let Some(field) = self.map.get(column) {
            return self.fields.get(field);
        }
        self.fields.get(column).or_else(|| self.fields.get(&snake(column)))
    }

    /// Makes a record of a row; the error names the column and what would help.
    pub fn record(&self, columns: Columns) -> Result<Map<String, Json>, String> {
        let mut record = Map::with_capacity(columns.len());
        let point = columns.contains_key("longitude");
        for (column, value) in columns {
            if self.skip.contains(&column) {
                continue;
            }
            let Some(field) = self.target(&column) else {
                if self.told_elsewhere(&column, point) {
                    continue;
                }
                return Err(format!(
                    "no field for column '{column}'; use --map '{column}=FIELD' or --skip '{column}'"
                ));
            };
            let value = self
                .value(field, value)
                .map_err(|why| format!("{} (column '{column}'): {why}", field.name))?;
            if record.insert(field.name.clone(), value).is_some() {
                let field = &field.name;
                return Err(format!(
                    "'{column}' and another column both go to field '{field}'; --skip or --map one"
                ));
            }
        }
        Ok(record)
    }

    /// Whether a column that the format derives says nothing that others do not: a point stands
    /// in its row as a whole and as its coordinates.
    fn told_elsewhere(&self, column: &str, point: bool) -> bool {
        self.derived.contains(&column)
            && if column == "geometry" { point } else { self.target("geometry").is_some() }
    }

    fn value(&self, field: &Field, mut value: Json) -> Result<Json, String> {
        if let Json::String(text) = &value
            && (self.null.contains(text) || self.text && text.is_empty())
        {
            return Ok(Json::Null);
        }
        let mut converted = false;
        for (_, convert) in self.convert.iter().filter(|(name, _)| *name == field.name) {
            value = convert.apply(value)?;
            converted = true;
        }
        if self.text && !converted {
            value = by_type(field, value)?;
        }
        fits(field, &value)?;
        Ok(value)
    }
}

/// Refuses what there is a conversion for, naming it; all else is the server's to judge.
fn fits(field: &Field, value: &Json) -> Result<(), String> {
    let number_type = ["int", "uint", "float"].iter().any(|prefix| field.ty.starts_with(prefix));
    let dated = |text: &str| {
        let bytes = text.as_bytes();
        bytes.len() >= 10 && bytes[4] == b'-' && bytes[..4].iter().all(u8::is_ascii_digit)
    };
    let remedy = match (field.ty.as_str(), value) {
        ("string" | "text", Json::Number(_) | Json::Bool(_)) => "text",
        ("time", Json::Number(_)) => "epoch-ms' or 'epoch-s",
        ("time", Json::String(text)) if !dated(text) => "date:FORMAT",
        ("bool", Json::Number(_) | Json::String(_)) => "bool",
        (_, Json::String(_)) if number_type => "number",
        _ => return Ok(()),
    };
    let name = &field.name;
    Err(format!("{value} is no {}; use --convert '{name}={remedy}'", field.ty))
}

/// Letters and digits in lower case, everything else and a change of case as `_`.
fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut lower = false;
    for c in name.chars() {
        if !c.is_alphanumeric() {
            if !out.is_empty() && !out.ends_with('_') {
                out.push('_');
            }
            lower = false;
            continue;
        }
        if c.is_uppercase() && lower {
            out.push('_');
        }
        lower = c.is_lowercase() || c.is_numeric();
        out.extend(c.to_lowercase());
    }
    out.trim_end_matches('_').to_owned()
}

/// CSV's text as the field's type has it.
fn by_type(field: &Field, value: Json) -> Result<Json, String> {
    match field.ty.as_str() {
        "bool" => Convert::Bool.apply(value),
        "json" => Convert::Json.apply(value),
        "relation" if field.multiple => Convert::Json.apply(value),
        "relation" => Convert::Reference.apply(value),
        ty if ty.starts_with("int") || ty.starts_with("uint") || ty.starts_with("float") => {
            Convert::Number.apply(value)
        }
        _ => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::convert::{conversion, pair};
    use super::*;

    fn mapping(options: &[(&str, &str)], text: bool) -> Result<Mapping, String> {
        let field =
            |name: &str, ty: &str| Field { name: name.into(), ty: ty.into(), multiple: false };
        let fields = vec![
            field("title", "string"),
            field("us_gross", "int64"),
            field("tsunami", "bool"),
            field("category", "relation"),
        ];
        let all = |option: &str| -> Vec<String> {
            options.iter().filter(|(name, _)| *name == option).map(|(_, v)| (*v).into()).collect()
        };
        Mapping::new(
            fields,
            all("map").iter().map(|text| pair(text)).collect::<Result<_, _>>()?,
            all("convert").iter().map(|text| conversion(text)).collect::<Result<_, _>>()?,
            all("skip"),
            all("null"),
            &["geometry", "longitude", "latitude", "altitude"],
            text,
        )
    }

    fn record(options: &[(&str, &str)], text: bool, row: Json) -> Result<Json, String> {
        let Json::Object(columns) = row else { panic!("a row") };
        mapping(options, text)?.record(columns).map(Json::Object)
    }

    #[test]
    fn columns_find_their_fields() {
        assert_eq!(
            record(&[], false, json!({"Title": "1776", "US Gross": null})),
            Ok(json!({"title": "1776", "us_gross": null}))
        );
        // A point is taken as a whole or by its coordinates, all of them; nothing gets lost.
        let point = json!({"geometry": {}, "longitude": 1, "altitude": 2});
        assert_eq!(
            record(&[("map", "longitude=us_gross"), ("skip", "altitude")], false, point.clone()),
            Ok(json!({"us_gross": 1}))
        );
        assert_eq!(
            record(&[("map", "geometry=category")], false, point.clone()),
            Ok(json!({"category": {}}))
        );
        let error = record(&[("map", "longitude=us_gross")], false, point).unwrap_err();
        assert!(error.contains("--skip 'altitude'"), "{error}");
        let error = record(&[], false, json!({"geometry": {}})).unwrap_err();
        assert!(error.contains("--map 'geometry=FIELD'"), "{error}");
        assert_eq!(
            record(
                &[("map", "Name=title"), ("convert", "title=text"), ("skip", "x"), ("null", "N/A")],
                false,
                json!({"Name": 9, "x": 1, "usGross": "N/A"})
            ),
            Ok(json!({"title": "9", "us_gross": null}))
        );
        assert_eq!(
            record(
                &[],
                true,
                json!({"title": "1", "us_gross": "2", "tsunami": "", "category": "3"})
            ),
            Ok(json!({"title": "1", "us_gross": 2, "tsunami": null, "category": {"id": 3}}))
        );
        let error = record(&[], false, json!({"colour": 1})).unwrap_err();
        assert!(error.contains("--map 'colour=FIELD'"), "{error}");
        assert_eq!(
            record(&[], false, json!({"Title": 1776})).unwrap_err(),
            "title (column 'Title'): 1776 is no string; use --convert 'title=text'"
        );
        let error = record(&[], false, json!({"title": "a", "Title": "b"})).unwrap_err();
        assert!(error.contains("both go to field 'title'"), "{error}");
        let error = record(&[], true, json!({"us_gross": "x"})).unwrap_err();
        assert_eq!(error, "us_gross (column 'us_gross'): \"x\" is no number");
        assert!(mapping(&[("map", "a=b")], false).unwrap_err().contains("no field 'b'"));
        assert!(mapping(&[("convert", "b=text")], false).unwrap_err().contains("no field 'b'"));
    }

    #[test]
    fn names_in_other_letters() {
        for (name, expected) in [
            ("US Gross", "us_gross"),
            ("magType", "mag_type"),
            ("MPAA Rating", "mpaa_rating"),
            ("Running Time (min)", "running_time_min"),
            ("title", "title"),
        ] {
            assert_eq!(snake(name), expected);
        }
    }
}
