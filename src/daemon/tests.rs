//! What the client makes of a daemon's answers: over TCP, so that the server of the tests serves.

use super::*;
use crate::net::testing::{Ear, Server, Told};
use crate::oci::{DiffId, Digest};

const VERSION: &str =
    r#"{"Version":"20.10.24","Os":"linux","Arch":"arm64","Components":[{"Name":"Engine"}]}"#;

fn find(server: &Server) -> Result<Daemon, DaemonError> {
    let settings = Settings {
        docker_host: Some(format!("tcp://{}", server.name)),
        ..Settings::default()
    };
    let ear: Arc<dyn Monitor> = Arc::new(Ear::default());
    Daemon::find(&settings, &ear)
}

/// What was sent: one layer, whose digests are those of a text.
const DIFF_ID: &str = "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";

fn sent(diff_ids: &[DiffId]) -> Sent<'_> {
    Sent {
        config: Digest::of(b"config"),
        manifest: Digest::of(b"manifest"),
        diff_ids,
    }
}

/// A daemon that answers so to loads.
fn answers(status: u16, body: &'static str) -> Server {
    Server::start(move |_, asked| match asked.path.as_str() {
        "/version" => Told::new(200).body(VERSION),
        "/images/load?quiet=1" => Told::new(status).body(body),
        "/images/here/json" => {
            let id = Digest::of(b"config");
            Told::new(200).body(format!(
                r#"{{"Id":"{id}","RootFS":{{"Layers":["{DIFF_ID}"]}}}}"#
            ))
        }
        _ => Told::new(404).body(r#"{"message":"no such image"}"#),
    })
}

fn load(server: &Server) -> Result<(), String> {
    let daemon = find(server).unwrap();
    let loaded = daemon.load(&mut &b"archive"[..], 7, "an archive");
    loaded.map_err(|error| error.to_string())
}

#[test]
fn says_what_it_is() {
    let server = answers(200, "");
    let daemon = find(&server).unwrap();
    assert_eq!(daemon.name(), "Docker 20.10.24");
    assert_eq!(daemon.platform().to_string(), "linux/arm64");
    assert!(!daemon.reads_zstd());
    let diff_ids = [DiffId(Digest::of(b"x"))];
    let found = daemon.image_id("here", sent(&diff_ids)).unwrap();
    assert_eq!(found, Some(Digest::of(b"config").to_string()));
    let found = daemon.image_id("elsewhere", sent(&diff_ids)).unwrap();
    assert_eq!(found, None);
    let podman = Server::start(|_, _| {
        Told::new(200).body(
            r#"{"Version":"4.3.1","Os":"linux","Arch":"amd64","Components":[{"Name":"Podman Engine"}]}"#,
        )
    });
    let daemon = find(&podman).unwrap();
    assert_eq!(daemon.name(), "podman 4.3.1");
    assert!(daemon.reads_zstd());
}

#[test]
fn takes_the_whole_archive() {
    let server = answers(200, "{\"stream\":\"Loaded image: a\\n\"}\r\n");
    assert_eq!(load(&server), Ok(()));
    let asked = server.asked();
    let load = asked.last().unwrap();
    assert_eq!(load.line(), "POST /images/load?quiet=1");
    assert_eq!(load.header("content-type"), Some("application/x-tar"));
    assert_eq!(load.body, b"archive");
}

#[test]
fn an_error_within_a_good_answer_is_one() {
    let late =
        "{\"stream\":\"x\"}\n{\"errorDetail\":{\"message\":\"no space\"},\"error\":\"no space\"}\n";
    for (status, body, expected) in [
        (200, late, "Docker 20.10.24 says: no space"),
        (
            500,
            "{\"message\":\"bad\\narchive\"}",
            "Docker 20.10.24 says: bad archive",
        ),
        (
            200,
            "{\"error\":\"old form\"}",
            "Docker 20.10.24 says: old form",
        ),
    ] {
        assert_eq!(load(&answers(status, body)), Err(expected.to_owned()));
    }
    for (status, body, expected) in [
        (200, "<html>", "is no JSON"),
        (502, "<html>", "it answers 502"),
    ] {
        let error = load(&answers(status, body)).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn another_image_of_that_name_is_told() {
    let layers = |texts: &[&str]| -> Vec<DiffId> {
        let all = texts.iter();
        all.map(|text| DiffId(Digest::of(text.as_bytes())))
            .collect()
    };
    let differs = |id: &str, has: Option<&[DiffId]>, wanted: &[DiffId]| {
        let answer = serde_json::json!({ "Id": id, "RootFS": { "Layers": has } });
        let server = Server::start(move |_, asked| match asked.path.as_str() {
            "/version" => Told::new(200).body(VERSION),
            _ => Told::new(200).body(answer.to_string()),
        });
        match find(&server).unwrap().image_id("a", sent(wanted)) {
            Ok(found) => {
                assert_eq!(found.as_deref(), Some(id));
                None
            }
            Err(DaemonError::Differs { daemon, name, why }) => {
                assert_eq!((&*daemon, &*name), ("Docker 20.10.24", "a"));
                Some(why)
            }
            Err(other) => panic!("{other}"),
        }
    };
    let (two, other) = (layers(&["x", "y"]), layers(&["x", "z"]));
    let [config, manifest, old] = ["config", "manifest", "old"].map(|it| Digest::of(it.as_bytes()));
    // Docker, Docker with containerd, and podman's own way.
    for id in [config.to_string(), manifest.to_string(), config.hex()] {
        assert_eq!(differs(&id, Some(&two), &two), None);
    }
    let config = config.to_string();
    assert_eq!(differs(&config, None, &[]), None);
    for (id, has, expected) in [
        (&config, None, "it has 0 layers instead of 2".to_owned()),
        (
            &config,
            Some(&two[..1]),
            "it has 1 layers instead of 2".to_owned(),
        ),
        (
            &config,
            Some(&other[..]),
            format!(
                "its layer 2 has the diff_id {} instead of {}",
                other[1].0, two[1].0
            ),
        ),
        (
            &old.to_string(),
            Some(&two[..]),
            format!(
                "its layers are the same, but its ID is {old}: not the config's digest {config}, and not the manifest's {manifest}"
            ),
        ),
    ] {
        assert_eq!(differs(id, has, &two), Some(expected));
    }
}

#[test]
fn a_daemon_that_wants_tls_says_so() {
    let says = "Client sent an HTTP request to an HTTPS server.\n";
    let server = Server::start(move |_, _| Told::new(400).body(says));
    let error = find(&server).err().unwrap();
    assert!(matches!(error, DaemonError::Encrypted { .. }), "{error}");
    assert!(error.help().unwrap().contains("DOCKER_TLS_VERIFY"));
}

#[test]
fn strangers_are_no_daemons() {
    let server = Server::start(|_, _| Told::new(200).body("hello"));
    let error = find(&server).err().unwrap();
    assert!(matches!(error, DaemonError::Stranger { .. }), "{error}");
}

#[cfg(unix)]
#[test]
fn what_was_tried_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    // A socket that nobody listens at any more.
    drop(std::os::unix::net::UnixListener::bind(path("old")).unwrap());
    let ear: Arc<dyn Monitor> = Arc::new(Ear::default());
    let error = |docker_host: String| {
        let settings = Settings {
            docker_host: Some(docker_host),
            ..Settings::default()
        };
        Daemon::find(&settings, &ear).err().unwrap().to_string()
    };
    let none = error(format!("unix://{}", path("none").display()));
    assert!(none.ends_with("names: there is no such socket"), "{none}");
    let old = error(format!("unix://{}", path("old").display()));
    assert!(old.ends_with("names: the connection was refused"), "{old}");
    let tried = DaemonError::Nowhere {
        tried: vec![("/a".into(), Fault::Absent), ("/b".into(), Fault::Refused)],
    };
    assert_eq!(
        tried.to_string(),
        "no Docker and no podman answers; tried /a (is not there), /b (nothing listens)"
    );
}

#[test]
fn null_is_absent() {
    let version = serde_json::json!({
        "Version": "20.10.24", "Os": "linux", "Arch": "arm64", "ApiVersion": "1.41",
        "Components": [{"Name": "Podman Engine", "Version": "4", "Details": {"Os": "linux"}}, {"Name": "x"}],
    });
    crate::oci::assert_null_is_absent(&version, |bytes| {
        let version: Version = serde_json::from_slice(bytes)?;
        let names = version.components.into_iter().map(|it| it.name);
        let names: Vec<String> = names.collect();
        Ok::<_, serde_json::Error>((version.version, version.os, version.arch, names))
    });
    let diff_ids = [DiffId(DIFF_ID.parse().unwrap())];
    let image = serde_json::json!({"Id": "x", "RootFS": {"Type": "layers", "Layers": [DIFF_ID]}, "message": "m"});
    crate::oci::assert_null_is_absent(&image, |bytes| {
        let value: Value = serde_json::from_slice(bytes).unwrap();
        let said = message(&value, &["/message", "/cause"]);
        let id = message(&value, &["/Id"]).ok_or("no ID")?;
        Ok::<_, &str>((sent(&diff_ids).differs(&id, &value), said))
    });
}
