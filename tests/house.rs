//! Holds the rooms to the order that ARCHITECTURE.md gives: a room uses only rooms below it.

use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up. Rooms that stand together may use each other.
const FLOORS: &[&[&str]] = &[
    &["error", "limits", "nice"],
    &["model"],
    &["filter"],
    &["store"],
    &["auth"],
    &["query"],
    &["live", "content", "schemas"],
    &["dialects"],
    &["net"],
    &["config"],
    &["server"],
    &["bench"],
    &["cli"],
    &["main", "lib"],
];

/// What a room must not know: words that may not stand in its files.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("model", &["tokio::", "hyper::", "rusqlite::", "std::fs", "std::net"]),
    ("filter", &["tokio::", "hyper::", "rusqlite::", "std::fs", "std::net"]),
    ("query", &["tokio::", "hyper::", "rusqlite::"]),
    ("live", &["hyper::", "tungstenite", "rusqlite::", "crate::dialects"]),
    ("content", &["hyper::", "tungstenite", "rusqlite::"]),
    ("dialects", &["tokio::", "hyper::", "rusqlite::", "SystemTime", "Instant::now"]),
    ("store", &["hyper::", "tungstenite"]),
    ("net", &["rusqlite::"]),
];

#[test]
fn rooms_use_only_rooms_below_them() {
    let mut faults = Vec::new();
    for (file, room, text) in sources() {
        let floor = floor(&room).unwrap_or_else(|| panic!("{} is in no room", file.display()));
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for used in code.split("crate::").skip(1) {
                // `use crate::{a, b}` is not written here; names after `crate::` are rooms.
                let used: String =
                    used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                match self::floor(&used) {
                    Some(below) if below <= floor => {}
                    Some(_) => faults.push(format!(
                        "{}:{}: {room} uses {used}, which stands above it",
                        file.display(),
                        number + 1
                    )),
                    None => {
                        faults.push(format!("{}:{}: {used} is no room", file.display(), number + 1))
                    }
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn rooms_do_not_know_what_they_must_not() {
    let mut faults = Vec::new();
    for (file, room, text) in sources() {
        for (_, words) in FORBIDDEN.iter().filter(|(name, _)| *name == room) {
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for word in words.iter().filter(|word| code.contains(*word)) {
                    faults.push(format!(
                        "{}:{}: {room} must not know {word}",
                        file.display(),
                        number + 1
                    ));
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// Every source file with its room and its text, unit tests left out.
fn sources() -> Vec<(PathBuf, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src is readable") {
            let path = entry.expect("src is readable").path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "tests") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|ending| ending == "rs")
                && path.file_name().is_some_and(|name| name != "tests.rs")
            {
                let relative = path.strip_prefix(&root).expect("below src");
                let first = relative.components().next().expect("a name");
                let room = first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
                let text = fs::read_to_string(&path).expect("a source file is text");
                let code = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
                found.push((path, room, code));
            }
        }
    }
    found
}
