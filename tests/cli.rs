//! The binary as a user meets it: first run, refusals, commands, stopping.

mod common;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::{Options, Server, rowcast, wait};
use serde_json::{Value as Json, json};

const MOVIES: [&str; 4] = ["--convert", "title=text", "--convert", "release_date=date:%b %d %Y"];
const EARTHQUAKES: [&str; 6] =
    ["--map", "altitude=depth", "--convert", "time=epoch-ms", "--convert", "updated=epoch-ms"];

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn data(name: &str) -> String {
    repository("fixtures/data").join(name).display().to_string()
}

/// The example schemas, as a first run serves them.
fn examples() -> Options {
    Options::default().schemas_from(repository("schemas"))
}

/// Runs a command to its end, with a bound.
fn run(command: &mut Command) -> (i32, String, String) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawned");
    let (mut out, mut err) =
        (child.stdout.take().expect("stdout"), child.stderr.take().expect("stderr"));
    let read = std::thread::spawn(move || std::io::read_to_string(&mut err).unwrap_or_default());
    let told = std::thread::spawn(move || std::io::read_to_string(&mut out).unwrap_or_default());
    let status = wait(&mut child);
    (status.code().unwrap_or(-1), told.join().expect("stdout"), read.join().expect("stderr"))
}

fn in_dir(dir: &Path, args: &[&str]) -> (i32, String, String) {
    run(rowcast(dir).args(args))
}

/// A directory with the example schemas and no server.
fn place() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let schemas = dir.path().join("schemas");
    std::fs::create_dir(&schemas).expect("schemas");
    for entry in std::fs::read_dir(repository("schemas")).expect("examples") {
        let path = entry.expect("an example").path();
        std::fs::copy(&path, schemas.join(path.file_name().expect("a name"))).expect("copied");
    }
    dir
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

fn total(server: &Server, schema: &str) -> Json {
    let token = server.admin_token();
    let path = format!("/api/content/{schema}?limit=1");
    server.request("GET", &path, Some(&token), None).1["data"]["total"].clone()
}

#[test]
fn first_run() {
    let dir = place();
    // As `cargo run` would, but for the port; nothing is configured.
    let start = || {
        let mut child = rowcast(dir.path())
            .args(["--port", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("spawned");
        let mut text = String::new();
        let out = child.stdout.take().expect("stdout");
        for line in std::io::BufRead::lines(std::io::BufReader::new(out)) {
            let line = line.expect("a line");
            text.push_str(&line);
            text.push('\n');
            if line.starts_with("listening on") {
                break;
            }
        }
        (child, text)
    };
    let (mut child, text) = start();
    let data = dir.path().join("data");
    let kept = std::fs::read_to_string(data.join(".env")).expect("data/.env");
    let value = |name: &str| {
        let line = kept.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("{name} in {kept}")).to_owned()
    };
    let password = value("ADMIN_PASSWORD");
    assert!(text.contains(&password), "{text}");
    assert!(value("APP_KEY").len() >= 32);
    assert!(!text.contains(&value("APP_KEY")), "{text}");
    assert_eq!((mode(&data), mode(&data.join(".env"))), (0o700, 0o600));
    assert_eq!(mode(&data.join("control.sock")), 0o600);
    for word in ["open", "blog, category, earthquake, movie", "log in", "subscribe", "write"] {
        assert!(text.contains(word), "no '{word}' in {text}");
    }

    // The three commands, pasted one after the other.
    let (_, commands) = text.split_once("in this directory:").expect("commands");
    let (commands, _) = commands.split_once("listening on").expect("commands");
    if Command::new("curl").arg("--version").output().is_ok() {
        let pasted = format!("{commands}\nsleep 1; kill $!; exit 0\n");
        let (_, out, err) =
            run(rowcast_env(Command::new("sh")).current_dir(dir.path()).args(["-c", &pasted]));
        assert!(out.contains(r#"{"data":{"id":1,"title":"Hello""#), "{out}\n{err}\n{commands}");
        assert!(
            out.contains(r#"{"event":"create","data":{"id":1,"title":"Hello""#),
            "{out}\n{err}"
        );
    }
    common::signal(&child, "TERM");
    assert_eq!(wait(&mut child).code(), Some(0));
    assert!(!data.join("control.sock").exists());

    // The second run says nothing of it again and keeps all.
    let (mut child, text) = start();
    assert!(!text.contains(&password) && !text.contains("log in"), "{text}");
    assert_eq!(std::fs::read_to_string(data.join(".env")).expect("data/.env"), kept);
    common::signal(&child, "INT");
    assert_eq!(wait(&mut child).code(), Some(0));

    // Others may not read it.
    let readable = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(data.join(".env"), readable).expect("set");
    let (code, _, err) = in_dir(dir.path(), &["--port", "0"]);
    assert_eq!(code, 1);
    assert!(err.contains("data/.env") && err.contains("chmod 600"), "{err}");
}

/// Without the tester's own settings.
fn rowcast_env(mut command: Command) -> Command {
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

#[test]
fn wrong_settings_are_refused_with_name_and_source() {
    let dir = place();
    let serve = |args: &[&str], env: &[(&str, &str)]| {
        run(rowcast(dir.path()).arg("serve").args(args).envs(env.iter().copied()))
    };
    for (args, env, told) in [
        (&["--port", "99999"][..], &[][..], "flag --port: '99999'"),
        (&[], &[("APP_PORT", "http")], "environment variable APP_PORT: 'http'"),
        (&["--host", "everywhere"], &[], "flag --host: 'everywhere'"),
        (&["--body-bytes", "-5"], &[], "flag --body-bytes: '-5'"),
        (&[], &[("ROWCAST_PING_EVERY", "soon")], "variable ROWCAST_PING_EVERY: 'soon'"),
        (&[], &[("APP_KEY", "short")], "variable APP_KEY: it has 5 bytes"),
        (&[], &[("APP_KEY_FILE", "/nowhere")], "variable APP_KEY_FILE: cannot read /nowhere"),
        (&[], &[("ADMIN_PASSWORD", "short")], "variable ADMIN_PASSWORD: it has 5 characters"),
        (&["--allowed-origins", "*"], &[], "flag --allowed-origins: '*'"),
        (&["--issuer", "https://a.example"], &[], "issuer"),
        (&["--log", "loud=very"], &[], "log"),
        (&["--config", "missing.json"], &[], "cannot read missing.json"),
    ] {
        let (code, out, err) = serve(args, env);
        assert_eq!(code, 1, "{args:?} {env:?}: {out}{err}");
        assert!(err.contains(told), "{args:?} {env:?}: {err}");
        assert!(!dir.path().join("data").exists(), "{args:?} {env:?} made the data directory");
    }
    std::fs::write(dir.path().join("rowcast.json"), "{\n  \"port\": 0,\n  \"prot\": 1\n}")
        .expect("written");
    let (code, _, err) = serve(&[], &[]);
    assert_eq!(code, 1);
    assert!(err.contains("rowcast.json:3: \"prot\": no such setting"), "{err}");
    std::fs::write(dir.path().join("rowcast.json"), r#"{"app_key": "x"}"#).expect("written");
    assert!(serve(&[], &[]).2.contains("APP_KEY_FILE"));
    for secret in ["--app-key", "--admin-password", "--app-key-previous"] {
        assert_eq!(in_dir(dir.path(), &[secret, "x"]).0, 2, "{secret} is no flag");
    }
}

#[test]
fn help_tells_all() {
    let dir = tempfile::tempdir().expect("a directory");
    let (code, out, _) = in_dir(dir.path(), &["serve", "--help"]);
    assert_eq!(code, 0);
    for word in [
        "APP_DATA_DIR",
        "APP_SCHEMAS_DIR",
        "APP_HOST",
        "APP_PORT",
        "APP_KEY",
        "APP_KEY_PREVIOUS",
        "ADMIN_USERNAME",
        "ADMIN_EMAIL",
        "ADMIN_PASSWORD",
        "ALLOWED_ORIGINS",
        "--config",
        "--ping-every",
        "--log-age",
        "--log-bytes",
        "--refresh-tokens",
        "--issuer",
        "rowcast.json",
    ] {
        assert!(out.contains(word), "no {word} in\n{out}");
    }
    let (_, out, _) = in_dir(dir.path(), &["--help"]);
    for command in ["serve", "check", "import", "tail", "token", "user"] {
        assert!(out.contains(&format!("\n  {command} ")), "no {command} in\n{out}");
    }
    assert!(in_dir(dir.path(), &["import", "--help"]).1.contains("epoch-ms"));
}

#[test]
fn what_stops_a_start() {
    let server = Server::start(examples());
    let dir = server.dir.path();
    let (code, _, err) = in_dir(dir, &["serve", "--port", &server.address.port().to_string()]);
    assert_eq!(code, 1);
    assert!(err.contains("cannot listen on") && err.contains("--port"), "{err}");

    let (code, _, err) = in_dir(dir, &["serve", "--port", "0"]);
    assert_eq!(code, 1);
    assert!(err.contains("data") && !err.contains("internal error"), "{err}");
    assert!(err.to_lowercase().contains("another") || err.contains("in use"), "{err}");

    let other = place();
    std::fs::write(other.path().join("file"), "").expect("written");
    let (code, _, err) = in_dir(other.path(), &["serve", "--port", "0", "--data", "file"]);
    assert_eq!(code, 1);
    assert!(err.contains("file") && !err.contains("internal error"), "{err}");
    let (code, _, err) = in_dir(other.path(), &["serve", "--port", "0", "--data", "/proc/data"]);
    assert_eq!(code, 1);
    assert!(err.contains("/proc/data") && !err.contains("internal error"), "{err}");
    let (code, _, err) = in_dir(other.path(), &["serve", "--port", "0", "--schemas", "file"]);
    assert_eq!(code, 1);
    assert!(err.contains("file") && !err.contains("internal error"), "{err}");
    // The first goes on.
    assert_eq!(server.request("GET", "/api/health", None, None).0, 200);
}

#[test]
fn check_reports_and_fails() {
    let dir = place();
    let (code, out, err) = in_dir(dir.path(), &["check", "schemas"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("4 schemas good"), "{out}");
    let bad = r#"{"name": "bad", "namespace": "bads", "label_field": "nope",
        "fields": [{"name": "a", "label": "A", "type": "strin"}]}"#;
    std::fs::write(dir.path().join("schemas/bad.json"), bad).expect("written");
    std::fs::write(dir.path().join("schemas/worse.json"), "{").expect("written");
    let (code, out, _) = in_dir(dir.path(), &["check", "schemas"]);
    assert_eq!(code, 1);
    for word in ["bad.json", "field.type.invalid", "worse.json"] {
        assert!(out.contains(word), "no {word} in {out}");
    }
    let (code, _, err) = in_dir(dir.path(), &["check", "nowhere"]);
    assert_eq!(code, 1);
    assert!(err.contains("nowhere"), "{err}");
    assert!(!dir.path().join("data").exists());
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

#[test]
fn users_and_tokens_with_and_without_a_server() {
    let mut server = Server::start(examples());
    let dir = server.dir.path().to_owned();
    let with_password = |args: &[&str], password: &str| {
        run(rowcast(&dir).args(args).env("ROWCAST_PASSWORD", password))
    };
    let (code, out, err) = with_password(
        &["user", "add", "joe", "--email", "joe@a.example", "--role", "admin"],
        "joes password",
    );
    assert_eq!(code, 0, "{out}{err}");
    let token = server.login("joe@a.example", "joes password");
    assert_eq!(server.request("GET", "/api/auth/me", Some(&token), None).0, 200);
    let (code, _, err) = with_password(&["user", "add", "joe"], "joes password");
    assert_eq!(code, 1);
    assert!(err.contains("joe") || err.contains("username"), "{err}");
    assert_eq!(with_password(&["user", "add", "kim"], "short").0, 1);
    let (code, _, err) =
        with_password(&["user", "add", "kim", "--role", "nobody"], "kims password");
    assert!(code == 1 && err.contains("nobody"), "{err}");

    let (code, out, _) = in_dir(&dir, &["user", "list"]);
    assert_eq!((code, out.lines().count()), (0, 2), "{out}");
    let joe: Json = serde_json::from_str(out.lines().nth(1).expect("joe")).expect("JSON");
    assert_eq!(
        (&joe["username"], &joe["active"], &joe["roles"]),
        (&json!("joe"), &json!(true), &json!(["admin"]))
    );

    // A disabled user's socket ends at once.
    let mut ws = server.subscribe("schema=blog", Some(&token));
    assert_eq!(in_dir(&dir, &["user", "disable", "joe"]).0, 0);
    assert_eq!(ws.closed().0, 4401);
    assert_eq!(server.request("GET", "/api/auth/me", Some(&token), None).0, 401);
    let (code, _, err) = in_dir(&dir, &["user", "disable", "admin"]);
    assert!(code == 1 && err.contains("admin"), "the last admin: {err}");
    let (code, _, err) = in_dir(&dir, &["user", "disable", "nobody"]);
    assert!(code == 1 && err.contains("nobody"), "{err}");

    let (code, out, _) = in_dir(&dir, &["token", "admin", "--lifetime", "1h"]);
    assert_eq!((code, out.lines().count()), (0, 1));
    let (status, me) = server.request("GET", "/api/auth/me", Some(out.trim()), None);
    assert_eq!((status, &me["data"]["username"]), (200, &json!("admin")));
    assert_eq!(in_dir(&dir, &["token", "joe"]).0, 1);
    assert_eq!(in_dir(&dir, &["token", "admin", "--lifetime", "forever"]).0, 1);

    // Passwords come by environment, file or prompt.
    let (code, _, err) = in_dir(&dir, &["user", "passwd", "admin"]);
    assert!(code == 1 && err.contains("ROWCAST_PASSWORD"), "{err}");
    std::fs::write(dir.join("password"), "a password of a file\n").expect("written");
    assert_eq!(in_dir(&dir, &["user", "passwd", "admin", "--password-file", "password"]).0, 0);
    let token = server.login("admin", "a password of a file");

    // The same without a server.
    server.terminate();
    assert_eq!(with_password(&["user", "passwd", "admin"], "set without a server").0, 0);
    assert_eq!(with_password(&["user", "add", "kim"], "kims password").0, 0);
    let (code, offline, _) = in_dir(&dir, &["token", "kim"]);
    assert_eq!(code, 0);
    server.restart();
    assert_eq!(server.request("GET", "/api/auth/me", Some(&token), None).0, 401);
    server.login("admin", "set without a server");
    let (status, me) = server.request("GET", "/api/auth/me", Some(offline.trim()), None);
    assert_eq!((status, &me["data"]["username"]), (200, &json!("kim")));
}

/// A command that goes on, its first lines of stdout.
fn tail(server: &Server, args: &[&str], env: &[(&str, &str)]) -> std::process::Child {
    let child = rowcast(server.dir.path())
        .arg("tail")
        .args(args)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawned");
    let seen = server.log().matches("/api/realtime/content 101").count();
    server.until("the subscription", || {
        (server.log().matches("/api/realtime/content 101").count() > seen).then_some(())
    });
    child
}

fn finish(mut child: std::process::Child) -> (i32, String, String) {
    let status = wait(&mut child);
    let output = child.wait_with_output().expect("output");
    (
        status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn tail_prints_changes() {
    let mut server = Server::start(examples());
    let token = server.admin_token();
    let url = format!("http://{}", server.address);
    let filter = r#"{"views":{"$gt":10}}"#;
    let tails = [
        tail(&server, &["blog", "--count", "1", "--select", "title", "--filter", filter], &[]),
        tail(
            &server,
            &["blog", "--count", "1", "--event", "create", "--url", &url, "--token-env", "T"],
            &[("T", &token)],
        ),
        tail(
            &server,
            &["blog", "--count", "1", "--id", "2", "--url", &url, "--login", "admin"],
            &[("ROWCAST_PASSWORD", common::ADMIN_PASSWORD)],
        ),
        // As a guest, of what is published.
        tail(&server, &["blog", "--count", "1", "--url", &url], &[]),
    ];
    for body in
        [json!({"title": "few"}), json!({"title": "many", "views": 11, "status": "published"})]
    {
        assert_eq!(server.request("POST", "/api/content/blog", Some(&token), Some(&body)).0, 200);
    }
    let printed: Vec<_> = tails.into_iter().map(finish).collect();
    for (code, out, err) in &printed {
        assert_eq!((*code, out.lines().count()), (0, 1), "{out}{err}");
    }
    assert_eq!(printed[0].1, "{\"event\":\"create\",\"data\":{\"id\":2,\"title\":\"many\"}}\n");
    let title = |at: usize| {
        serde_json::from_str::<Json>(&printed[at].1).expect("JSON")["data"]["title"].clone()
    };
    assert_eq!((title(1), title(2), title(3)), (json!("few"), json!("many"), json!("many")));

    for (args, told) in [
        (&["nope"][..], "4404"),
        (&["blog", "--filter", "{"], "4400"),
        (&["blog", "--event", "drop"], "invalid event 'drop'"),
        (&["user", "--url", &url], "Unauthorized"),
        (&["blog", "--url", "here"], "'here' is no URL"),
        (&["blog", "--url", "http://127.0.0.1:1"], "127.0.0.1:1"),
        (&["blog", "--url", &url, "--token-env", "NOWHERE"], "NOWHERE"),
    ] {
        let (code, out, err) = run(rowcast(server.dir.path()).arg("tail").args(args));
        assert_eq!(code, 1, "{args:?}: {out}{err}");
        assert!(err.contains(told), "{args:?}: {err}");
    }

    let going_on = tail(&server, &["blog"], &[]);
    server.terminate();
    let (code, _, err) = finish(going_on);
    assert!(code == 1 && err.contains("1001"), "{err}");
    let (code, _, err) = run(rowcast(server.dir.path()).args(["tail", "blog"]));
    assert!(code == 1 && err.contains("no server runs on data"), "{err}");
}

#[test]
fn a_dropped_file_is_served_within_a_second() {
    let server = Server::start(examples());
    let token = server.admin_token();
    let note = r#"{"name":"note","namespace":"notes","label_field":"text",
        "fields":[{"name":"text","label":"Text","type":"string"}]}"#;
    std::fs::write(server.schemas().join("note.json"), note).expect("written");
    let began = std::time::Instant::now();
    server.until("the new schema", || {
        let found = server.request("GET", "/api/content/note", Some(&token), None);
        (found.0 == 200).then_some(())
    });
    assert!(began.elapsed() < Duration::from_secs(3), "took {:?}", began.elapsed());
}

#[test]
fn ctrl_c_exits_zero() {
    let mut server = Server::start(Options::default());
    let mut ws = server
        .ws("/api/realtime/content?schema=x", &[("Origin", "http://a")], None)
        .expect("a handshake");
    assert_eq!(ws.closed().0, 4401);
    assert_eq!(server.interrupt(), Some(0), "{}", server.log());
}
