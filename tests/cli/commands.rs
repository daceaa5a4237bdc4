use super::*;

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
    // The directory may be named before the action or after it.
    assert_eq!(
        in_dir(&dir, &["user", "--data", "data", "list"]),
        (code, out.clone(), String::new())
    );
    assert_eq!(
        in_dir(&dir, &["user", "list", "--data", "data"]),
        (code, out.clone(), String::new())
    );
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
        (&["blog", "--since", "yesterday"], "'yesterday' is no cursor"),
        (&["blog", "--snapshot", "--event", "create"], "snapshot"),
        (&["blog", "--retry", "often"], "--retry: 'often'"),
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

    let going_on = tail(&server, &["blog", "--retry", "0"], &[]);
    server.terminate();
    let (code, _, err) = finish(going_on);
    assert!(code == 1 && err.contains("1001") && err.contains("--since "), "{err}");
    let (code, _, err) = run(rowcast(server.dir.path()).args(["tail", "blog"]));
    assert!(code == 1 && err.contains("no server runs on data"), "{err}");
}
