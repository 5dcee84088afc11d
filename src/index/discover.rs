//! Which indexes there are: what the manifest says, else a flag, variables, files of uv and pip, else what the host's own
//! tools would ask. Reads nothing itself: texts are given. The address of an index stands nowhere in this program.
//!
//! Each place may say a *default* index, and *extra* ones that are asked before it, as uv has it. The first place that
//! says a default ends the search; the extra ones of the places before it count too.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Source, SourceError};
use crate::graph::ActionError;

/// Where indexes are looked for, in this order.
#[derive(Default)]
pub(crate) struct Places {
    /// Those of the manifest. If one of them serves all packages, no other place is looked at.
    pub manifest: Option<Vec<Source>>,
    /// The URL of the command line. No other place is looked at after it.
    pub flag: Option<String>,
    /// The variables of uv and pip, by their names.
    pub variables: BTreeMap<String, String>,
    /// The files `uv.toml`: the user's before the system's.
    pub uv: Vec<ConfigFile>,
    /// The files `pip.conf`: those that others override come last.
    pub pip: Vec<ConfigFile>,
}

/// A configuration file that was read.
#[derive(Clone)]
pub(crate) struct ConfigFile {
    /// The file, for messages.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// The indexes that were found.
#[derive(Debug)]
pub(crate) struct Found {
    /// The indexes, in the order in which they are asked.
    pub sources: Vec<Source>,
    /// What was passed over.
    pub warnings: Vec<String>,
}

/// What one place says.
#[derive(Default)]
struct Said {
    extra: Vec<Named>,
    default: Option<Named>,
}

/// A URL with the name of the index, if it has one, and where both stand.
struct Named {
    name: Option<String>,
    url: String,
    place: String,
}

/// Finds the indexes. `ask` asks the host's own tools for their default, and is called if no place says one.
///
/// # Errors
/// When a place cannot be read, or none says an index.
pub(crate) fn discover(
    places: &Places,
    ask: &dyn Fn() -> Option<String>,
) -> Result<Found, Box<ActionError>> {
    let mut found = Found {
        sources: places.manifest.clone().unwrap_or_default(),
        warnings: Vec::new(),
    };
    if found.sources.iter().any(|it| !it.is_pinned()) {
        return Ok(found);
    }
    if let Some(url) = &places.flag {
        found.add(Named::new(url, "`--index-url`"))?;
        return Ok(found);
    }
    let uv = |file: &ConfigFile| uv_file(file);
    let read: [&dyn Fn() -> Result<Said, Box<ActionError>>; 4] = [
        &|| Ok(uv_variables(&places.variables)),
        &|| Ok(pip_variables(&places.variables)),
        &|| places.uv.iter().map(uv).collect(),
        &|| Ok(pip_files(&places.pip)),
    ];
    for read in read {
        let said = read()?;
        for named in said.extra {
            found.add(named)?;
        }
        if let Some(default) = said.default
            && found.add(default)?
        {
            return Ok(found);
        }
    }
    if let Some(url) = ask() {
        found.add(Named::new(&url, "what the host's own tools say"))?;
        return Ok(found);
    }
    let help = "set one: `url` of `[index]` in the manifest, `--index-url`, UV_DEFAULT_INDEX or PIP_INDEX_URL, \
                `[[index]]` in uv.toml, or `index-url` in pip.conf";
    let message = "it is not known which package index to ask: none is set, and there is neither pip nor uv on this \
                   machine to say its default";
    Err(Box::new(
        ActionError::new("imgdecl::index::unset", message).help(help),
    ))
}

impl Found {
    /// Adds an index, unless its URL is there; tells whether it is one.
    fn add(&mut self, named: Named) -> Result<bool, Box<ActionError>> {
        let source = match Source::new(named.name.as_deref(), &named.url) {
            Ok(source) => source,
            Err(error @ SourceError::Folder(_)) => {
                let text = format!("{}: {error}: {}", named.place, error.help());
                self.warnings.push(text);
                return Ok(false);
            }
            Err(error) => {
                let message = format!("{}: {error}", named.place);
                let error = ActionError::new("imgdecl::index::source", message).help(error.help());
                return Err(Box::new(error));
            }
        };
        // One that is for some packages alone is not asked for the others.
        let is_there = |it: &Source| it.url() == source.url() && !it.is_pinned();
        if self.sources.iter().any(is_there) {
            return Ok(true);
        }
        // Two of one name could not be told apart.
        let is_taken = self.sources.iter().any(|it| it.name() == source.name());
        self.sources.push(match is_taken {
            true => Source::new(None, &named.url).unwrap_or(source),
            false => source,
        });
        Ok(true)
    }
}

impl Named {
    fn new(url: &str, place: impl Into<String>) -> Self {
        Self {
            name: None,
            url: url.trim().to_owned(),
            place: place.into(),
        }
    }

    /// Reads `URL`, or `NAME=URL` as uv has it.
    fn parse(text: &str, place: &str) -> Self {
        let is_name = |it: &str| {
            let fits = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.');
            !it.is_empty() && it.chars().all(fits)
        };
        match text.split_once('=').filter(|(name, _)| is_name(name)) {
            Some((name, url)) => Self {
                name: Some(name.to_owned()),
                ..Self::new(url, place)
            },
            None => Self::new(text, place),
        }
    }
}

/// Joins what several files say: the first default counts.
impl FromIterator<Said> for Said {
    fn from_iter<T: IntoIterator<Item = Self>>(all: T) -> Self {
        let mut joined = Self::default();
        for said in all {
            joined.extra.extend(said.extra);
            joined.default = joined.default.or(said.default);
        }
        joined
    }
}

fn variable<'a>(variables: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    let text = variables.get(name).map(|it| it.trim());
    text.filter(|it| !it.is_empty())
}

/// Reads the indexes that a variable lists, with white space between them.
fn listed(variables: &BTreeMap<String, String>, name: &str) -> Vec<Named> {
    let text = variable(variables, name).unwrap_or_default();
    let all = text.split_whitespace();
    all.map(|it| Named::parse(it, name)).collect()
}

fn uv_variables(variables: &BTreeMap<String, String>) -> Said {
    let mut extra = listed(variables, "UV_INDEX");
    extra.extend(listed(variables, "UV_EXTRA_INDEX_URL"));
    let names = ["UV_DEFAULT_INDEX", "UV_INDEX_URL"].into_iter();
    let mut said = names.filter_map(|it| Some((it, variable(variables, it)?)));
    Said {
        extra,
        default: said.next().map(|(name, text)| Named::parse(text, name)),
    }
}

fn pip_variables(variables: &BTreeMap<String, String>) -> Said {
    let url = |name: &'static str| variable(variables, name).map(|text| Named::new(text, name));
    let extra = variable(variables, "PIP_EXTRA_INDEX_URL").unwrap_or_default();
    let extra = extra.split_whitespace();
    Said {
        extra: extra
            .map(|it| Named::new(it, "PIP_EXTRA_INDEX_URL"))
            .collect(),
        default: url("PIP_INDEX_URL"),
    }
}

/// The part of `uv.toml` that says indexes.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Uv {
    #[serde(default)]
    index: Vec<UvIndex>,
    index_url: Option<String>,
    #[serde(default)]
    extra_index_url: Vec<String>,
}

#[derive(Deserialize)]
struct UvIndex {
    name: Option<String>,
    url: String,
    #[serde(default)]
    default: bool,
    #[serde(default)]
    explicit: bool,
}

fn uv_file(file: &ConfigFile) -> Result<Said, Box<ActionError>> {
    let uv: Uv = toml::from_str(&file.text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = file
            .text
            .get(..at)
            .unwrap_or_default()
            .matches('\n')
            .count()
            + 1;
        // Not the line itself: it may hold a password.
        let message = format!("{}:{line}: {}", file.name, error.message());
        Box::new(ActionError::new("imgdecl::index::config", message).help("mend the file"))
    })?;
    let mut said = Said::default();
    for index in uv.index {
        let named = Named {
            name: index.name,
            ..Named::new(&index.url, &file.name)
        };
        match (index.default, index.explicit) {
            (true, _) if said.default.is_none() => said.default = Some(named),
            // Only for packages that a project of uv names.
            (_, true) => {}
            _ => said.extra.push(named),
        }
    }
    let extra = uv.extra_index_url.iter();
    said.extra
        .extend(extra.map(|it| Named::new(it, &file.name)));
    let url = uv.index_url.as_deref();
    said.default = said.default.or(url.map(|it| Named::new(it, &file.name)));
    Ok(said)
}

fn pip_files(files: &[ConfigFile]) -> Said {
    let mut said = Said::default();
    let mut has_extra = false;
    for file in files {
        let values = ini(&file.text, "global");
        let urls = |key: &str| {
            let text = values.get(key).map_or("", String::as_str);
            let all = text.split_whitespace();
            all.map(|it| Named::new(it, &file.name)).collect::<Vec<_>>()
        };
        said.default = said
            .default
            .or_else(|| urls("index-url").into_iter().next());
        // A list of one file takes the place of another's.
        if !has_extra {
            said.extra = urls("extra-index-url");
            has_extra = !said.extra.is_empty();
        }
    }
    said
}

/// Reads a section of an INI file, as Python's `RawConfigParser` does: `KEY = VALUE` or `KEY: VALUE`; lines that begin
/// with white space go on with the value. Keys are written with `-`.
fn ini(text: &str, section: &str) -> BTreeMap<String, String> {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let (mut is_in, mut key) = (false, None::<String>);
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with([' ', '\t'])
            && let Some(key) = &key
        {
            if let Some(value) = values.get_mut(key).filter(|_| is_in) {
                value.push('\n');
                value.push_str(trimmed);
            }
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[') {
            is_in = name.split(']').next() == Some(section);
            key = None;
            continue;
        }
        let (name, value) = trimmed.split_once(['=', ':']).unwrap_or((trimmed, ""));
        let name = name.trim().to_ascii_lowercase().replace('_', "-");
        if is_in {
            values.insert(name.clone(), value.trim().to_owned());
        }
        key = Some(name);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> ConfigFile {
        let (name, text) = (name.to_owned(), text.to_owned());
        ConfigFile { name, text }
    }

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(pair).collect()
    }

    fn names(places: &Places) -> Vec<String> {
        let found = discover(places, &|| Some("https://asked.example/simple".to_owned()));
        let sources = found.unwrap().sources.into_iter();
        sources.map(|it| it.name().to_owned()).collect()
    }

    #[test]
    fn each_place_gives_way_to_those_before_it() {
        let mut places = Places {
            manifest: Some(vec![Source::new(Some("m"), "https://m.example/").unwrap()]),
            flag: Some("https://flag.example/".to_owned()),
            variables: variables(&[
                ("UV_DEFAULT_INDEX", "uv=https://uv.example/"),
                ("UV_INDEX_URL", "https://old.example/"),
                ("UV_INDEX", "a=https://a.example/ https://b.example/x"),
                (
                    "UV_EXTRA_INDEX_URL",
                    "https://c.example/\nhttps://b.example/x/",
                ),
                ("PIP_INDEX_URL", "https://pip.example/"),
                (
                    "PIP_EXTRA_INDEX_URL",
                    "https://d.example/ file:///srv/wheels",
                ),
            ]),
            uv: vec![file("uv.toml", "index-url = 'https://uvtoml.example/'")],
            pip: vec![file(
                "pip.conf",
                "[global]\nindex-url = https://pipconf.example/",
            )],
        };
        assert_eq!(names(&places), ["m"]);
        places.manifest = None;
        assert_eq!(names(&places), ["flag.example"]);
        places.flag = None;
        assert_eq!(names(&places), ["a", "b.example/x", "c.example", "uv"]);
        places.variables.remove("UV_DEFAULT_INDEX");
        assert_eq!(names(&places)[3..], ["old.example"]);
        places.variables.remove("UV_INDEX_URL");
        assert_eq!(names(&places)[3..], ["d.example", "pip.example"]);
        let found = discover(&places, &|| None).unwrap();
        assert!(found.warnings[0].contains("PIP_EXTRA_INDEX_URL"));
        assert!(found.warnings[0].contains("find_links"));
        places.variables.clear();
        assert_eq!(names(&places), ["uvtoml.example"]);
        places.uv.clear();
        assert_eq!(names(&places), ["pipconf.example"]);
        places.pip.clear();
        assert_eq!(names(&places), ["asked.example/simple"]);
        let error = discover(&places, &|| None).unwrap_err();
        assert_eq!(error.code, "imgdecl::index::unset");
        assert!(error.help.unwrap().contains("UV_DEFAULT_INDEX"));
    }

    #[test]
    fn pinned_indexes_of_the_manifest_need_another() {
        let own = Source::new(Some("own"), "https://own.example/").unwrap();
        let own = own.for_packages(&["acme-*"]).unwrap();
        let places = Places {
            manifest: Some(vec![own]),
            flag: Some("https://flag.example/".to_owned()),
            ..Places::default()
        };
        assert_eq!(names(&places), ["own", "flag.example"]);
    }

    #[test]
    fn reads_uv_toml() {
        let user = "cache-dir = '/x'\nextra-index-url = ['https://e.example/']\n[pip]\nindex-url = 'https://no.example/'\n\
            [[index]]\nname = 'one'\nurl = 'https://one.example/'\n[[index]]\nname = 'only'\nurl = 'https://only.example/'\nexplicit = true\n\
            [[index]]\nname = 'd'\nurl = 'https://u:secret@d.example/'\ndefault = true\n";
        let system = "[[index]]\nname = 'one'\nurl = 'https://two.example/'\n[[index]]\nurl = 'https://x.example/'\ndefault = true\n";
        let mut places = Places {
            uv: vec![file("user", user), file("system", system)],
            ..Places::default()
        };
        assert_eq!(names(&places), ["one", "e.example", "two.example", "d"]);
        places.uv[0].text = "\nindex-url = 'https://u:secret@x\n".to_owned();
        let error = discover(&places, &|| None).unwrap_err();
        assert!(error.message.starts_with("user:2: "), "{}", error.message);
        assert!(!error.message.contains("secret"), "{}", error.message);
        places.uv[0].text = "index-url = 'https://u:secret@:7/'".to_owned();
        let error = discover(&places, &|| None).unwrap_err();
        assert!(error.message.starts_with("user: "), "{}", error.message);
        assert!(!error.message.contains("secret"), "{}", error.message);
    }

    #[test]
    fn reads_pip_conf() {
        let site = "[install]\nindex-url = https://no.example/\n[global]\n# a comment\ntimeout = 60\nExtra_Index_URL =\n    https://a.example/\n\
            # another\n\thttps://b.example/\n\n[list]\nindex-url = https://no.example/";
        let user = "; a comment\n[global]\nindex-url: https://d.example/simple\nextra-index-url = https://no.example/\n";
        let places = Places {
            pip: vec![file("site", site), file("user", user)],
            ..Places::default()
        };
        let expected = ["a.example", "b.example", "d.example/simple"];
        assert_eq!(names(&places), expected);
    }
}
