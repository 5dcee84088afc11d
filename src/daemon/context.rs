//! Docker's contexts: names for daemons, which `docker context use` chooses from. Colima, rootless Docker and others make
//! one for themselves.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::oci::Digest;
use crate::source::read_document;

/// Where a context leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Context {
    /// The address, as DOCKER_HOST would have it.
    pub(super) host: String,
    /// The folder with its certificates, if it has TLS.
    pub(super) certificates: Option<PathBuf>,
}

/// Returns the name of the context that docker's `config.json` says is in use; `None` for the default one.
pub(super) fn current(folder: &Path) -> Option<String> {
    let bytes = read_document(&folder.join("config.json")).ok()?;
    let config: Value = serde_json::from_slice(&bytes).ok()?;
    let name = config.get("currentContext")?.as_str()?;
    is_named(name).then(|| name.to_owned())
}

/// Tells whether a name is that of a context that has files: the default one is what is there without any.
pub(super) fn is_named(name: &str) -> bool {
    !matches!(name, "" | "default")
}

/// Reads a context from docker's folder.
pub(super) fn read(folder: &Path, name: &str) -> Result<Context, String> {
    let digest = Digest::of(name.as_bytes());
    let path = folder.join("contexts/meta").join(digest.hex());
    let path = path.join("meta.json");
    let bytes =
        read_document(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let meta: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let host = meta
        .pointer("/Endpoints/docker/Host")
        .and_then(Value::as_str);
    let host = host.ok_or_else(|| format!("{} names no host", path.display()))?;
    let tls = folder.join("contexts/tls").join(digest.hex());
    let tls = tls.join("docker");
    Ok(Context {
        host: host.to_owned(),
        certificates: tls.is_dir().then_some(tls),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_found_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert_eq!(current(folder), None);
        let write = |path: &str, text: &str| {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("config.json", r#"{"auths":{},"currentContext":"default"}"#);
        assert_eq!(current(folder), None);
        write("config.json", r#"{"currentContext":"mine"}"#);
        assert_eq!(current(folder).as_deref(), Some("mine"));
        assert!(read(folder, "mine").unwrap_err().contains("meta.json"));
        // What `docker context create mine` writes: the folder is the digest of the name.
        let hex = "3fd30542fe3f61b14bd4a4b2dc0b6fb30fa6f63ebce52dd1778aaa8c4dc02cff";
        write(&format!("contexts/meta/{hex}/meta.json"), "{}");
        assert!(read(folder, "mine").unwrap_err().contains("names no host"));
        write(
            &format!("contexts/meta/{hex}/meta.json"),
            r#"{"Name":"mine","Endpoints":{"docker":{"Host":"unix:///x","SkipTLSVerify":false}}}"#,
        );
        let mut context = Context {
            host: "unix:///x".to_owned(),
            certificates: None,
        };
        assert_eq!(read(folder, "mine"), Ok(context));
        write(&format!("contexts/tls/{hex}/docker/ca.pem"), "");
        context = read(folder, "mine").unwrap();
        assert!(context.certificates.is_some());
    }

    #[test]
    fn null_is_absent() {
        let folder = tempfile::tempdir().unwrap();
        let config = serde_json::json!({"auths": {}, "currentContext": "mine"});
        crate::oci::assert_null_is_absent(&config, |bytes| {
            std::fs::write(folder.path().join("config.json"), bytes).unwrap();
            Ok::<_, ()>(current(folder.path()))
        });
    }
}
