use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::process::Output;

use super::*;

const MOVIES: [&str; 4] = ["--convert", "title=text", "--convert", "release_date=date:%b %d %Y"];
const EARTHQUAKES: [&str; 6] =
    ["--map", "altitude=depth", "--convert", "time=epoch-ms", "--convert", "updated=epoch-ms"];

fn data(name: &str) -> String {
    repository("fixtures/data").join(name).display().to_string()
}

fn total(server: &Server, schema: &str) -> Json {
    let token = server.admin_token();
    let path = format!("/api/content/{schema}?limit=1");
    server.request("GET", &path, Some(&token), None).1["data"]["total"].clone()
}

fn import(dir: &Path, schema: &str, file: &str, options: &[&str]) -> (i32, String, String) {
    run(rowcast(dir).args(["import", schema, file]).args(options))
}

#[test]
fn real_data_is_imported_whole() {
    let server = Server::start(examples());
    let dir = server.dir.path();
    let mut ws = server.subscribe(
        "schema=earthquake&select=id,mag,time,depth&event=create",
        Some(&server.admin_token()),
    );
    let (code, out, err) = import(dir, "earthquake", &data("earthquakes.json"), &EARTHQUAKES);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "20 rows: 20 created\n", ""));
    assert_eq!(total(&server, "earthquake"), json!(20));
    let file = std::fs::read(data("earthquakes.json")).expect("the data");
    let file: Json = serde_json::from_slice(&file).expect("JSON");
    for feature in file["features"].as_array().expect("features") {
        let told = ws.next();
        assert_eq!(told["data"]["id"], feature["id"]);
        assert_eq!(told["data"]["mag"].as_f64(), feature["properties"]["mag"].as_f64());
        assert_eq!(
            told["data"]["depth"].as_f64(),
            feature["geometry"]["coordinates"][2].as_f64(),
            "{told}"
        );
        assert!(told["data"]["time"].as_str().expect("a time").starts_with("2018-0"));
    }

    let (code, out, err) = import(dir, "movie", &data("movies.json"), &MOVIES);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "51 rows: 51 created\n", ""));
    let token = server.admin_token();
    let get = |filter: Json| {
        let path = format!("/api/content/movie?filter={}", common::encode(&filter.to_string()));
        server.request("GET", &path, Some(&token), None).1["data"].clone()
    };
    assert_eq!(get(json!({"title": "1776"}))["items"][0]["release_date"], "1972-11-09T00:00:00Z");
    assert_eq!(get(json!({"title": null}))["total"], 1);
    assert_eq!(get(json!({"us_gross": null}))["total"], 7);
    assert!(get(json!({"release_date": {"$gte": "2011-01-01"}}))["total"].as_u64() > Some(2));

    // Years of two digits that were read into the wrong century.
    let (code, _, err) = import(
        dir,
        "movie",
        &data("movies.json"),
        &[&MOVIES[..], &["--convert", "release_date=before:2011-01-01"]].concat(),
    );
    assert_eq!(code, 0, "{err}");
    assert_eq!(total(&server, "movie"), json!(102));
}

#[test]
fn bad_rows_are_told_and_good_ones_kept() {
    let server = Server::start(examples());
    let dir = server.dir.path();
    // Without telling that titles are text.
    let (code, out, err) = import(dir, "movie", &data("movies.json"), &MOVIES[2..]);
    assert_eq!((code, out.as_str()), (1, "51 rows: 42 created, 9 refused\n"));
    assert_eq!(err.lines().count(), 9, "{err}");
    assert!(err.contains("title (column 'Title'): 1776 is no string; use --convert 'title=text'"));
    for line in err.lines() {
        let number: usize = line
            .strip_prefix("line ")
            .expect("a line number")
            .split(':')
            .next()
            .expect("a number")
            .parse()
            .expect("a number");
        let text = std::fs::read_to_string(data("movies.json")).expect("the data");
        let row = text.lines().nth(number - 1).expect("that line");
        assert!(row.contains("\"Title\": ") && !row.contains("\"Title\": \""), "{line}: {row}");
    }
    // Nor what a date looks like: nothing is guessed.
    let (code, out, err) = import(dir, "movie", &data("movies.json"), &MOVIES[..2]);
    assert_eq!((code, out.as_str()), (1, "51 rows: 0 created, 51 refused\n"));
    assert!(err.contains("--convert 'release_date=date:FORMAT'"), "{err}");

    // All or nothing.
    let (code, out, _) =
        import(dir, "movie", &data("movies.json"), &[&MOVIES[2..], &["--all-or-nothing"]].concat());
    assert_eq!((code, out.as_str()), (1, "51 rows: 0 created, 9 refused; none was kept\n"));
    assert_eq!(total(&server, "movie"), json!(42));
    let (code, out, err) =
        import(dir, "movie", &data("movies.json"), &[&MOVIES[..], &["--all-or-nothing"]].concat());
    assert_eq!((code, out.as_str()), (0, "51 rows: 51 created\n"), "{err}");

    // A unique value that is there already.
    let again = |options: &[&str]| {
        import(dir, "earthquake", &data("earthquakes.json"), &[&EARTHQUAKES[..], options].concat())
    };
    assert_eq!(again(&[]).1, "20 rows: 20 created\n");
    let (code, out, err) = again(&[]);
    assert_eq!((code, out.as_str()), (1, "20 rows: 0 created, 20 refused\n"));
    assert!(err.starts_with("line 2: "), "{err}");
    assert_eq!(again(&["--on-conflict", "skip"]).1, "20 rows: 0 created, 20 skipped\n");
    assert_eq!(again(&["--on-conflict", "update"]).1, "20 rows: 0 created, 20 updated\n");
    // Found while writing, all is undone.
    assert_eq!(again(&["--all-or-nothing"]).1, "20 rows: 0 created, 1 refused; none was kept\n");
    assert_eq!(total(&server, "earthquake"), json!(20));

    // What is asked wrongly.
    for (schema, file, options, told) in [
        ("nope", "movies.json", &[][..], "nope"),
        ("movie", "missing.json", &[], "missing.json"),
        ("movie", "README.md", &[], "--format"),
        ("movie", "movies.json", &["--map", "Title=titel"], "no field 'titel'"),
        ("movie", "movies.json", &["--format", "ndjson"], "refused"),
    ] {
        let (code, out, err) = import(dir, schema, &data(file), options);
        assert_eq!(code, 1, "{out}{err}");
        assert!(err.contains(told) || out.contains(told), "{out}{err}");
    }
    assert_eq!(import(dir, "movie", &data("movies.json"), &["--convert", "title=colour"]).0, 2);
}

#[test]
fn an_import_that_ends_under_way_tells_what_is_written() {
    let node = json!({
        "name": "node", "namespace": "nodes", "label_field": "name",
        "fields": [
            {"name": "name", "label": "N", "type": "string", "unique": true},
            {"name": "parent", "label": "P", "type": "relation", "optional": true,
             "relation": {"schema": "node", "field": "children", "type": "o2m"}},
            {"name": "children", "label": "C", "type": "relation", "optional": true,
             "relation": {"schema": "node", "field": "parent", "type": "o2m", "owner": true}}
        ]
    });
    // As many as one commit of an import holds, and no consequences beside them.
    let options = Options::default().schema("node", node).env("ROWCAST_WRITE_RECORDS", "500");
    let server = Server::start(options);
    let row = |at: usize| match at {
        7 => json!({"name": "6"}),
        700 => json!({"name": "parent", "children": [{"id": 1}, {"id": 2}, {"id": 3}]}),
        _ => json!({"name": at.to_string()}),
    };
    let text: String = (1..=1_200).map(|at| row(at).to_string() + "\n").collect();
    std::fs::write(server.dir.path().join("nodes.ndjson"), text).expect("written");
    let (code, out, err) = import(server.dir.path(), "node", "nodes.ndjson", &[]);
    assert_eq!((code, out.as_str()), (1, "1001 rows read: 499 created, 1 refused\n"), "{err}");
    let [refused, ended] = err.lines().collect::<Vec<_>>()[..] else { panic!("{err}") };
    assert!(refused.starts_with("line 7: "), "{refused}");
    assert!(ended.contains("lines 501 to 1000: ") && ended.contains("500"), "{ended}");
    assert_eq!(total(&server, "node"), json!(499));
    let all = import(server.dir.path(), "node", "nodes.ndjson", &["--all-or-nothing"]);
    assert_eq!((all.0, all.1.as_str()), (1, "1200 rows: 0 created, 1 refused; none was kept\n"));
}

/// Answers the first request on the owner's socket with a schema, and loses what it is sent then.
fn forgetful(dir: &Path) {
    let data = dir.join("data");
    std::fs::create_dir(&data).expect("a data directory");
    let listener = UnixListener::bind(data.join("control.sock")).expect("bound");
    std::thread::spawn(move || {
        let schema = json!({"data": {
            "name": "node", "namespace": "nodes", "label_field": "name", "primary_key": "id",
            "fields": [{"name": "name", "label": "N", "type": "string"}]
        }})
        .to_string();
        for mut stream in listener.incoming().flatten() {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
                head.push(byte[0]);
            }
            if head.starts_with(b"GET ") {
                let length = schema.len();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{schema}");
                stream.write_all(answer.as_bytes()).expect("answered");
            }
        }
    });
}

#[test]
fn an_answer_that_is_lost_says_nothing_of_what_was_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    forgetful(dir.path());
    let rows: String =
        (1..=3).map(|at| json!({"name": at.to_string()}).to_string() + "\n").collect();
    std::fs::write(dir.path().join("nodes.ndjson"), rows).expect("written");
    for options in [&[][..], &["--all-or-nothing"]] {
        let (code, out, err) = import(dir.path(), "node", "nodes.ndjson", options);
        assert_eq!((code, out.as_str()), (1, "3 rows read: 0 created, 3 unknown\n"), "{err}");
        assert!(err.contains("lines 1 to 3: unknown whether written: "), "{err}");
    }
}

#[test]
fn csv_ndjson_and_no_server() {
    let dir = place();
    let csv = "Name,Description\nnews,\n\"a,b\",\"two\nlines\"\nnews,again\nx\n";
    std::fs::write(dir.path().join("categories.csv"), csv).expect("written");
    let (code, out, err) = import(dir.path(), "category", "categories.csv", &[]);
    assert_eq!((code, out.as_str()), (1, "4 rows: 2 created, 2 refused\n"), "{err}");
    assert!(err.contains("line 5: ") && err.contains("line 6: "), "{err}");

    let csv = "title,views,tags,category,draft,odd\nfirst,7,\"[1,2]\",1,,x\nsecond,,,,,x\nthird,many,,9,,x\n";
    std::fs::write(dir.path().join("blogs.csv"), csv).expect("written");
    let (code, _, err) = import(dir.path(), "blog", "blogs.csv", &[]);
    assert_eq!(code, 1);
    assert!(err.contains("no field for column 'draft'; use --map 'draft=FIELD' or --skip 'draft'"));
    let (code, out, err) =
        import(dir.path(), "blog", "blogs.csv", &["--skip", "draft", "--ignore", "odd"]);
    assert_eq!((code, out.as_str()), (1, "3 rows: 1 created, 2 refused\n"), "{err}");
    assert!(err.contains("line 4: views (column 'views'): \"many\" is no number"), "{err}");

    let mut child = rowcast(dir.path())
        .args(["import", "blog", "-", "--format", "ndjson"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawned");
    child
        .stdin
        .take()
        .expect("stdin")
        .write_all(b"{\"title\":\"a\",\"category\":{\"id\":2}}\n{\"title\":\n{\"title\":\"b\"}\n")
        .expect("written");
    let Output { stdout, stderr, .. } = child.wait_with_output().expect("ended");
    let err = String::from_utf8_lossy(&stderr);
    assert_eq!(String::from_utf8_lossy(&stdout), "3 rows: 2 created, 1 refused\n", "{err}");
    assert!(err.contains("line 2: invalid JSON"), "{err}");
}
