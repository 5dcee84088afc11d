//! What an image changes in the config of its base.

use std::collections::BTreeMap;

use super::values::created_at;
use super::{ImageTable, LayerNodes};
use crate::graph::{ActionError, Origin};
use crate::oci::{Annotations, Config, Platform, last_of_each, variable};
use crate::rule::Lower;
use crate::rule::value::{Collect, image_path};
use crate::spec::{Defaults, Part, Scope, Table, Target};
use serde_json::{Value, json};

/// What runtimes search for commands where an image has no `PATH` (moby and containerd).
pub(super) const SEARCHED: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Puts a folder first in `PATH`, unless it is in there.
fn put_first(folder: &str, env: &mut Vec<(String, String)>) {
    let Some((_, path)) = env.iter_mut().find(|(name, _)| name == "PATH") else {
        env.push(("PATH".to_owned(), format!("{folder}:{SEARCHED}")));
        return;
    };
    let is_it = |part: &str| part.trim_end_matches('/') == folder;
    if !path.split(':').any(is_it) {
        *path = match path.is_empty() {
            true => folder.to_owned(),
            false => format!("{folder}:{path}"),
        };
    }
}

/// Everything that an image changes in the config of its base.
pub(super) struct Edit {
    pub(super) platform: Platform,
    pub(super) base_name: Option<String>,
    pub(super) created: String,
    pub(super) annotations: Annotations,
    /// Names, values, and the place for messages.
    pub(super) env: Vec<(String, Vec<Part>, Origin)>,
    /// Fields that replace the base's.
    pub(super) replace: BTreeMap<&'static str, Value>,
    /// Fields that are united with the base's.
    pub(super) unite: BTreeMap<&'static str, BTreeMap<String, Value>>,
    pub(super) entrypoint: Option<Vec<String>>,
    pub(super) cmd: Option<Vec<String>>,
    /// Folders of commands that come first in `PATH`; the last one of these before the others.
    pub(super) commands: Vec<String>,
    /// What made each layer, for the history.
    pub(super) created_by: Vec<String>,
}

impl Edit {
    /// Gathers the changes from the image's table.
    pub(super) fn new(
        target: &Target,
        lower: &Lower<'_>,
        table: ImageTable,
        defaults: &Defaults,
        base_name: Option<String>,
        layers: &[LayerNodes],
        collect: &mut Collect,
    ) -> Self {
        let at = &target.table;
        let env = env(target, lower, &table, collect);
        let replace = replaced(at, &table, collect);
        let ports = ports(at, &table, collect);
        let mut volumes = BTreeMap::new();
        for volume in &table.volumes {
            let path = collect.take(image_path(at, volume.get_ref(), volume.span()));
            volumes.insert(format!("/{}", path.as_str()), json!({}));
        }
        let labels = table
            .labels
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        let created = match (&table.created, &defaults.created) {
            (Some(own), _) => Some((own, at.clone())),
            (None, Some(default)) => lower
                .defaults(target)
                .ok()
                .and_then(|(_, from)| Some((default, from?))),
            _ => None,
        };
        Self {
            platform: lower
                .platform()
                .cloned()
                .unwrap_or_else(|| Platform::new("linux", "amd64")),
            base_name,
            created: created_at(created, target, lower, collect),
            annotations: table
                .annotations
                .map(toml::Spanned::into_inner)
                .unwrap_or_default(),
            env,
            replace,
            unite: BTreeMap::from([
                ("ExposedPorts", ports),
                ("Labels", labels),
                ("Volumes", volumes),
            ]),
            entrypoint: table.entrypoint.map(|words| words.into_inner().0),
            cmd: table.cmd.map(|words| words.into_inner().0),
            commands: layers
                .iter()
                .filter_map(|layer| Some(layer.packages.as_ref()?.commands()?.to_owned()))
                .collect(),
            created_by: layers
                .iter()
                .map(|layer| format!("imgdecl {} {}", layer.rule, layer.name))
                .collect(),
        }
    }

    /// Makes the changes.
    ///
    /// # Errors
    /// When the environment names something that the base does not have.
    pub(super) fn apply(&self, config: &mut Config) -> Result<(), ActionError> {
        let written = config.env();
        // What a base says twice is set once where it is touched, and stays as it is where it is not.
        let written = match self.env.is_empty() && self.commands.is_empty() {
            true => written,
            false => last_of_each(written),
        };
        let pair = |entry: &String| {
            let (name, value) = variable(entry);
            (name.to_owned(), value.to_owned())
        };
        let mut env: Vec<(String, String)> = written.iter().map(pair).collect();
        let base = env.clone();
        for (name, parts, origin) in &self.env {
            let mut value = String::new();
            for part in parts {
                match part {
                    Part::Text(text) => value.push_str(text),
                    Part::Base(wanted, instead) => {
                        let inherited = base.iter().find(|(name, _)| name == wanted);
                        let inherited = inherited.map(|(_, value)| value.as_str());
                        value.push_str(match (inherited, instead) {
                            (None | Some(""), Some(instead)) => instead,
                            (Some(inherited), _) => inherited,
                            (None, None) if wanted == "PATH" => SEARCHED,
                            (None, None) => return Err(not_inherited(wanted).at(origin)),
                        });
                    }
                }
            }
            match env.iter_mut().find(|(known, _)| known == name) {
                Some((_, slot)) => *slot = value,
                None => env.push((name.clone(), value)),
            }
        }
        for folder in &self.commands {
            put_first(folder, &mut env);
        }
        if !env.is_empty() {
            let list: Vec<String> = env
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            config.set_runtime("Env", Some(json!(list)));
        }
        for (field, more) in &self.unite {
            let mut all = config
                .runtime(field)
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default();
            all.extend(more.clone());
            if !all.is_empty() {
                config.set_runtime(field, Some(Value::Object(all)));
            }
        }
        for (field, value) in &self.replace {
            config.set_runtime(field, Some(value.clone()));
        }
        let list = |list: &[String]| (!list.is_empty()).then(|| json!(list));
        if let Some(entrypoint) = &self.entrypoint {
            config.set_runtime("Entrypoint", list(entrypoint));
            config.set_runtime("Cmd", None);
        }
        if let Some(cmd) = &self.cmd {
            config.set_runtime("Cmd", list(cmd));
        }
        Ok(())
    }
}

/// Says that the base has no variable of a name in its environment.
fn not_inherited(name: &str) -> ActionError {
    let message =
        format!("`{name}` is no variable, and the base has none of that name in its environment");
    let help = format!(
        "write `${{{name}:-VALUE}}` for a value where the base has none; no runtime puts one in later"
    );
    ActionError::new("imgdecl::image::env", message).help(help)
}

/// Reads the variables: names, values and places.
fn env(
    target: &Target,
    lower: &Lower<'_>,
    table: &ImageTable,
    collect: &mut Collect,
) -> Vec<(String, Vec<Part>, Origin)> {
    let at = &target.table;
    let vars = lower.vars(target);
    let mut env = Vec::new();
    for (name, value) in &table.env {
        let text = name.get_ref();
        if text.is_empty() || text.contains(['=', '\0']) {
            collect.0.push(at.problem(
                "imgdecl::image::env",
                name.span(),
                format!("`{text}` is no name of a variable"),
                "without `=`",
            ));
        }
        match vars.parts(value.get_ref(), Scope::Plain) {
            Ok(parts) => env.push((text.clone(), parts, at.place(value.span()))),
            Err((message, help)) => {
                let problem = at.problem("imgdecl::spec::variable", value.span(), message, "");
                collect.0.push(
                    help.into_iter()
                        .fold(problem, |problem, help| problem.help(help)),
                );
            }
        }
    }
    env
}

/// Reads what replaces fields of the base's config.
fn replaced(
    at: &Table,
    table: &ImageTable,
    collect: &mut Collect,
) -> BTreeMap<&'static str, Value> {
    let mut replace = BTreeMap::new();
    if let Some(workdir) = &table.workdir {
        let path = collect.take(image_path(at, workdir.get_ref(), workdir.span()));
        replace.insert("WorkingDir", json!(format!("/{}", path.as_str())));
    }
    let text = |value: &Option<String>| value.as_ref().map(|value| json!(value));
    let optional = [
        (
            "User",
            table.user.as_ref().map(|user| json!(user.get_ref())),
        ),
        ("StopSignal", text(&table.stop_signal)),
        ("Shell", table.shell.as_ref().map(|shell| json!(shell))),
        (
            "Healthcheck",
            table
                .healthcheck
                .as_ref()
                .map(|check| check.to_json(at, collect)),
        ),
    ];
    replace.extend(
        optional
            .into_iter()
            .filter_map(|(field, value)| Some((field, value?))),
    );
    replace
}

/// Reads the ports.
fn ports(at: &Table, table: &ImageTable, collect: &mut Collect) -> BTreeMap<String, Value> {
    let mut ports = BTreeMap::new();
    for port in &table.ports {
        match port.get_ref().full() {
            Some(full) => {
                ports.insert(full, json!({}));
            }
            None => {
                let message = format!("`{}` is no port", port.get_ref().0);
                collect.0.push(at.problem(
                    "imgdecl::image::port",
                    port.span(),
                    message,
                    "expected a number from 1 to 65535, or \"53/udp\"",
                ));
            }
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_come_first_once() {
        let path = |before: Option<&str>| {
            let before = before.map(|path| ("PATH".to_owned(), path.to_owned()));
            let mut env: Vec<_> = before.into_iter().collect();
            put_first("/app/bin", &mut env);
            let [(_, path)] = &env[..] else {
                panic!("{env:?}")
            };
            path.clone()
        };
        assert_eq!(path(Some("/bin:/usr/bin")), "/app/bin:/bin:/usr/bin");
        assert_eq!(path(Some("/bin:/app/bin/")), "/bin:/app/bin/");
        assert_eq!(path(Some("/app/bin2")), "/app/bin:/app/bin2");
        assert_eq!(path(Some("")), "/app/bin");
        assert_eq!(path(None), format!("/app/bin:{SEARCHED}"));
    }

    #[test]
    fn what_a_base_says_twice_is_set_once_where_it_is_touched() {
        let edited = |env: &[(&str, &[Part])], commands: &[&str]| {
            let text = r#"{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":[]},
                "config":{"Env":["PATH=/q","PATH=/z","V=1","W","V=2"]}}"#;
            let mut config = Config::parse(text.as_bytes()).unwrap();
            let origin = || Origin {
                source: std::sync::Arc::new(crate::graph::SourceText {
                    name: String::new(),
                    text: String::new(),
                }),
                span: 0..0,
            };
            let edit = Edit {
                platform: Platform::new("linux", "amd64"),
                base_name: None,
                created: String::new(),
                annotations: Annotations::new(),
                env: env
                    .iter()
                    .map(|(name, parts)| ((*name).to_owned(), parts.to_vec(), origin()))
                    .collect(),
                replace: BTreeMap::new(),
                unite: BTreeMap::new(),
                entrypoint: None,
                cmd: None,
                commands: commands.iter().map(|it| (*it).to_owned()).collect(),
                created_by: Vec::new(),
            };
            edit.apply(&mut config).unwrap();
            config.env()
        };
        let text = |text: &str| Part::Text(text.to_owned());
        let base = |name: &str| Part::Base(name.to_owned(), None);
        assert_eq!(
            edited(
                &[
                    ("V", &[text("mine")]),
                    ("PATH", &[text("/opt:"), base("PATH")])
                ],
                &[]
            ),
            ["PATH=/opt:/z", "W=", "V=mine"]
        );
        let or = |name: &str| Part::Base(name.to_owned(), Some("d".to_owned()));
        assert_eq!(
            edited(&[("X", &[or("V"), or("W"), or("Y")])], &[])[3],
            "X=2dd"
        );
        assert_eq!(edited(&[], &["/bin"]), ["PATH=/bin:/z", "W=", "V=2"]);
        assert_eq!(edited(&[], &[]), ["PATH=/q", "PATH=/z", "V=1", "W=", "V=2"]);
    }
}
