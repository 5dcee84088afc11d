//! The environment: variables, the working folder, the program itself.
#![expect(
    clippy::disallowed_methods,
    reason = "the one file that reads the environment"
)]

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::daemon;
use crate::oci::Platform;
use crate::registry::{Places, Proxies};
use crate::work::{Environment, IndexEnvironment};

/// Reads all that the work asks of the environment.
pub(super) fn read() -> Environment {
    Environment {
        here: current_dir().map_err(|error| error.to_string()),
        cache: cache_dir(),
        epoch: epoch(),
        is_ci: is_ci(),
        platform: host_platform(),
        config: config_file(),
        credentials: places(),
        proxies: proxies(),
        daemons: daemons(),
        indexes: indexes(),
        programs: program_folders(),
        executable: executable().map_err(|error| error.to_string()),
        variables: std::sync::Arc::new(variables()),
        settings_of_home: settings_of_home(),
    }
}

/// Returns SOURCE_DATE_EPOCH, in seconds since 1970.
fn epoch() -> Result<Option<u64>, String> {
    match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) if !text.is_empty() => {
            let seconds = text.trim().parse();
            seconds
                .map(Some)
                .map_err(|_| format!("SOURCE_DATE_EPOCH is `{text}`, and not a number of seconds"))
        }
        _ => Ok(None),
    }
}

/// Returns the cache folder: IMGDECL_CACHE_DIR, or `imgdecl` in the XDG cache folder.
fn cache_dir() -> Result<PathBuf, String> {
    if let Some(own) = path("IMGDECL_CACHE_DIR") {
        return current_dir()
            .map(|here| here.join(own))
            .map_err(|error| error.to_string());
    }
    let xdg = path("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    let home = path("HOME")
        .filter(|path| path.is_absolute())
        .map(|home| home.join(".cache"));
    xdg.or(home)
        .map(|caches| caches.join("imgdecl"))
        .ok_or_else(|| "neither HOME nor IMGDECL_CACHE_DIR is set".to_owned())
}

/// Returns the working folder.
fn current_dir() -> std::io::Result<PathBuf> {
    env::current_dir()
}

/// Tells whether colours are unwanted, as <https://no-color.org> has it, or the terminal has none.
pub(super) fn no_color() -> bool {
    env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) || is_dumb()
}

/// Tells whether the terminal can do no more than print lines.
pub(super) fn is_dumb() -> bool {
    env::var_os("TERM").is_some_and(|value| value == "dumb")
}

/// Tells whether this is a CI system, which builds what was committed.
fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "0" && value != "false")
}

/// Returns the platform whose images run on this machine.
fn host_platform() -> Platform {
    let architecture = match env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "loongarch64" => "loong64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        other => other,
    };
    // Containers are Linux's, wherever they are looked at.
    Platform::new("linux", architecture)
}

/// Returns a variable, if it is set and is text.
#[cfg(target_os = "linux")]
pub(super) fn variable(name: &str) -> Option<String> {
    env::var(name).ok()
}

/// Returns the folders in which programs are looked for.
fn program_folders() -> Vec<PathBuf> {
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect()
}

fn path(name: &str) -> Option<PathBuf> {
    env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// Returns the file in which the user says how registries are reached: IMGDECL_CONFIG, or `imgdecl/config.toml` in the
/// XDG config folder. Tells, too, whether the user named it.
fn config_file() -> Option<(PathBuf, bool)> {
    let folder = path("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    let folder = folder.or_else(|| Some(path("HOME")?.join(".config")));
    let named = path("IMGDECL_CONFIG").map(|path| (path, true));
    named.or_else(|| Some((folder?.join("imgdecl/config.toml"), false)))
}

/// Returns where credentials for registries are looked for.
fn places() -> Places {
    Places {
        authfile: path("REGISTRY_AUTH_FILE"),
        docker_auth_config: env::var("DOCKER_AUTH_CONFIG")
            .ok()
            .filter(|text| !text.is_empty()),
        docker_config: path("DOCKER_CONFIG"),
        home: path("HOME"),
        runtime_dir: path("XDG_RUNTIME_DIR"),
        config_home: path("XDG_CONFIG_HOME"),
        path: env::var_os("PATH"),
    }
}

/// Returns the proxies, by the variables that curl and others know.
fn proxies() -> Proxies {
    let text = |names: [&str; 2]| {
        let values = names.into_iter().filter_map(|name| env::var(name).ok());
        values.into_iter().find(|text| !text.is_empty())
    };
    Proxies {
        http: text(["http_proxy", "HTTP_PROXY"]),
        https: text(["https_proxy", "HTTPS_PROXY"]),
        all: text(["all_proxy", "ALL_PROXY"]),
        none: text(["no_proxy", "NO_PROXY"]),
    }
}

/// Returns what the environment says of Docker and podman.
fn daemons() -> daemon::Settings {
    let text = |name: &str| env::var(name).ok().filter(|text| !text.is_empty());
    daemon::Settings {
        docker_host: text("DOCKER_HOST"),
        container_host: text("CONTAINER_HOST"),
        has_tls: text("DOCKER_TLS_VERIFY").is_some(),
        cert_path: path("DOCKER_CERT_PATH"),
        docker_context: text("DOCKER_CONTEXT"),
        docker_config: path("DOCKER_CONFIG"),
        home: path("HOME"),
        runtime_dir: path("XDG_RUNTIME_DIR"),
    }
}

/// Returns the variables that files of other tools may name.
fn variables() -> std::collections::BTreeMap<String, String> {
    let fits = |it: u8| it.is_ascii_uppercase() || it.is_ascii_digit() || it == b'_';
    let texts = env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        name.bytes().all(fits).then_some(())?;
        Some((name, value.into_string().ok()?))
    });
    texts.collect()
}

/// Returns what the environment says of package indexes, by the rules of uv and pip.
fn indexes() -> IndexEnvironment {
    let is_ours = |name: &str| {
        let starts = ["UV_INDEX", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL"];
        starts.iter().any(|start| name.starts_with(start))
            || matches!(name, "PIP_INDEX_URL" | "PIP_EXTRA_INDEX_URL")
    };
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let all = env::vars_os().filter_map(text);
    let home = path("HOME");
    let below_home = |rest: &str| home.as_ref().map(|home| home.join(rest));
    let config = path("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    let config = config.or_else(|| below_home(".config"));
    let in_config = |rest: &str| config.as_ref().map(|config| config.join(rest));
    let system = env::var_os("XDG_CONFIG_DIRS").filter(|value| !value.is_empty());
    let system = system.unwrap_or_else(|| "/etc/xdg".into());
    let in_system = |rest: &str| -> Vec<PathBuf> {
        let folders = env::split_paths(&system).filter(|folder| folder.is_absolute());
        folders.map(|folder| folder.join(rest)).collect()
    };
    let is_set = |name: &str| {
        env::var(name).is_ok_and(|it| !matches!(it.as_str(), "" | "0" | "false" | "no" | "off"))
    };
    let uv = match path("UV_CONFIG_FILE") {
        _ if is_set("UV_NO_CONFIG") => Vec::new(),
        Some(only) => vec![only],
        None => {
            let user = in_config("uv/uv.toml").into_iter();
            let system = in_system("uv/uv.toml").into_iter();
            user.chain(system)
                .chain(["/etc/uv/uv.toml".into()])
                .collect()
        }
    };
    let named = path("PIP_CONFIG_FILE");
    let pip = match &named {
        // As pip has it, this means none at all.
        Some(file) if file == Path::new("/dev/null") => Vec::new(),
        _ => {
            let site = path("VIRTUAL_ENV").map(|it| it.join("pip.conf"));
            let mac = below_home("Library/Application Support/pip/pip.conf");
            let user = [in_config("pip/pip.conf"), mac, below_home(".pip/pip.conf")];
            let system = in_system("pip/pip.conf").into_iter();
            let first = [named, site].into_iter().chain(user).flatten();
            first
                .chain(["/etc/pip.conf".into()])
                .chain(system)
                .collect()
        }
    };
    IndexEnvironment {
        variables: all.filter(|(name, _)| is_ours(name)).collect(),
        netrc: path("NETRC").or_else(|| below_home(".netrc")),
        uv,
        pip,
    }
}

/// Returns the program that is running.
fn executable() -> std::io::Result<PathBuf> {
    env::current_exe()
}

/// Returns the variables with which a process whose home is elsewhere finds the user's own settings and credentials.
fn settings_of_home() -> Vec<(&'static str, PathBuf)> {
    let Some(home) = path("HOME") else {
        return Vec::new();
    };
    let all = [
        ("XDG_CONFIG_HOME", ".config"),
        ("DOCKER_CONFIG", ".docker"),
        ("NETRC", ".netrc"),
        ("GIT_CONFIG_GLOBAL", ".gitconfig"),
    ];
    // One that is set stays; one whose file is not there would be an error.
    let own = all.into_iter().filter(|(name, _)| path(name).is_none());
    own.map(|(name, file)| (name, home.join(file)))
        .filter(|(_, file)| file.exists())
        .collect()
}
