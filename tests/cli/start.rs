use super::*;

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
    for file in ["control.sock", "rowcast.db", "rowcast.db-wal"] {
        assert_eq!(mode(&data.join(file)), 0o600, "{file}");
    }
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
    assert!(began.elapsed() < Duration::from_secs(5), "took {:?}", began.elapsed());
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
