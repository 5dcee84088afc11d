//! The table `[project]`, as all back ends read it (PyPA specifications, "pyproject.toml").

use super::{Ground, normal};
use crate::python::place::InputError;
use crate::python::table::Node;

/// The keys that it may have.
const KEYS: &[&str] = &[
    "authors",
    "classifiers",
    "dependencies",
    "description",
    "dynamic",
    "entry-points",
    "gui-scripts",
    "import-names",
    "import-namespaces",
    "keywords",
    "license",
    "license-files",
    "maintainers",
    "name",
    "optional-dependencies",
    "readme",
    "requires-python",
    "scripts",
    "urls",
    "version",
];

/// Keys with their values, in the order of the text.
pub(super) type Pairs<'a> = Vec<(&'a str, &'a str)>;

/// The licence of a project.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Licence {
    /// Nothing is said.
    None,
    /// An SPDX expression.
    Expression(String),
    /// A text.
    Text(String),
    /// A file.
    File(String),
}

/// The description of a project.
pub(super) struct Readme {
    /// The file, if it is one.
    pub(super) file: Option<String>,
    /// The text.
    pub(super) text: String,
    /// The type that is said.
    pub(super) content_type: Option<String>,
}

/// What `[project]` says.
pub(super) struct Core<'a> {
    pub(super) name: &'a str,
    pub(super) version: Option<&'a str>,
    pub(super) description: Option<&'a str>,
    pub(super) readme: Option<Readme>,
    pub(super) requires_python: Option<&'a str>,
    pub(super) licence: Licence,
    pub(super) licence_files: Option<Vec<&'a str>>,
    /// Names and addresses.
    pub(super) authors: Vec<(Option<&'a str>, Option<&'a str>)>,
    pub(super) maintainers: Vec<(Option<&'a str>, Option<&'a str>)>,
    pub(super) keywords: Vec<&'a str>,
    pub(super) classifiers: Vec<&'a str>,
    pub(super) urls: Pairs<'a>,
    pub(super) scripts: Pairs<'a>,
    pub(super) gui_scripts: Pairs<'a>,
    pub(super) entry_points: Vec<(&'a str, Pairs<'a>)>,
    pub(super) dependencies: Vec<&'a str>,
    pub(super) optional: Vec<(&'a str, Vec<&'a str>)>,
    pub(super) dynamic: Vec<&'a str>,
    pub(super) import_names: Option<Vec<&'a str>>,
    pub(super) import_namespaces: Option<Vec<&'a str>>,
}

impl<'a> Core<'a> {
    /// Reads it. `raw` says that ends of lines of texts stay.
    pub(super) fn read(ground: &Ground<'a>, raw: bool) -> Result<Self, InputError> {
        let Some(table) = ground.project else {
            return Err(ground.fail("pyproject.toml has no `[project]`"));
        };
        ground.only(&table, KEYS, "`[project]`")?;
        let groups = table.get("entry-points");
        let groups = groups.map_or(Ok(Vec::new()), |it| it.ordered())?;
        let entry_points = groups.into_iter().map(|(name, group)| {
            let pairs = pairs(Some(group))?;
            Ok((name, pairs))
        });
        let optional = table.get("optional-dependencies");
        let optional = optional.map_or(Ok(Vec::new()), |it| it.ordered())?;
        let optional = optional
            .into_iter()
            .map(|(name, list)| Ok((name, texts(Some(list))?)));
        let list_of = |key: &str| -> Result<Option<Vec<&'a str>>, InputError> {
            let node = table.get(key);
            node.map(|it| texts(Some(it))).transpose()
        };
        let licence = licence(ground, &table)?;
        Ok(Self {
            name: match table.text_of("name")? {
                Some(name) => name,
                None => return Err(ground.refuse(table.place(), "it has no `name`")),
            },
            version: table.text_of("version")?,
            description: table.text_of("description")?,
            readme: readme(ground, &table, raw)?,
            requires_python: table.text_of("requires-python")?,
            licence,
            licence_files: list_of("license-files")?,
            authors: people(&table, "authors")?,
            maintainers: people(&table, "maintainers")?,
            keywords: texts(table.get("keywords"))?,
            classifiers: texts(table.get("classifiers"))?,
            urls: pairs(table.get("urls"))?,
            scripts: pairs(table.get("scripts"))?,
            gui_scripts: pairs(table.get("gui-scripts"))?,
            entry_points: entry_points.collect::<Result<_, InputError>>()?,
            dependencies: texts(table.get("dependencies"))?,
            optional: optional.collect::<Result<_, InputError>>()?,
            dynamic: texts(table.get("dynamic"))?,
            import_names: list_of("import-names")?,
            import_namespaces: list_of("import-namespaces")?,
        })
    }

    /// Returns the entry points as most back ends group them: scripts first.
    pub(super) fn groups(&self) -> Vec<(&'a str, Pairs<'a>)> {
        let scripts = [
            ("console_scripts", &self.scripts),
            ("gui_scripts", &self.gui_scripts),
        ];
        let scripts = scripts.into_iter().filter(|it| !it.1.is_empty());
        let scripts = scripts.map(|(name, pairs)| (name, pairs.clone()));
        scripts.chain(self.entry_points.iter().cloned()).collect()
    }
}

/// Returns the texts of a list.
pub(super) fn texts<'a>(node: Option<Node<'a>>) -> Result<Vec<&'a str>, InputError> {
    let list = node.map_or(Ok(Vec::new()), |it| it.list())?;
    list.iter().map(Node::text).collect()
}

/// Returns the keys of a table with their texts, in the order of the text.
pub(super) fn pairs<'a>(node: Option<Node<'a>>) -> Result<Pairs<'a>, InputError> {
    let entries = node.map_or(Ok(Vec::new()), |it| it.ordered())?;
    let pairs = entries.into_iter().map(|(key, it)| Ok((key, it.text()?)));
    pairs.collect()
}

/// A name and an address.
type Person<'a> = (Option<&'a str>, Option<&'a str>);

fn people<'a>(table: &Node<'a>, key: &str) -> Result<Vec<Person<'a>>, InputError> {
    let list = table.list_of(key)?.into_iter();
    list.map(|it| Ok((it.text_of("name")?, it.text_of("email")?)))
        .collect()
}

fn licence(ground: &Ground<'_>, table: &Node<'_>) -> Result<Licence, InputError> {
    let Some(node) = table.get("license") else {
        return Ok(Licence::None);
    };
    if node.is_text() {
        return Ok(Licence::Expression(node.text()?.to_owned()));
    }
    match (node.text_of("text")?, node.text_of("file")?) {
        (Some(text), None) => Ok(Licence::Text(text.to_owned())),
        (None, Some(file)) => Ok(Licence::File(path(ground, &node, file)?)),
        _ => Err(ground.refuse(
            node.place(),
            "`license` has neither `text` nor `file`, or both",
        )),
    }
}

fn readme(ground: &Ground<'_>, table: &Node<'_>, raw: bool) -> Result<Option<Readme>, InputError> {
    let Some(node) = table.get("readme") else {
        return Ok(None);
    };
    let read = |file: &str| -> Result<(String, String), InputError> {
        let file = path(ground, &node, file)?;
        let text = match raw {
            true => ground.text(&file)?,
            false => ground.lines(&file)?,
        };
        Ok((file, text))
    };
    if node.is_text() {
        let (file, text) = read(node.text()?)?;
        let content_type = None;
        return Ok(Some(Readme {
            file: Some(file),
            text,
            content_type,
        }));
    }
    if let Some(charset) = node.get("charset") {
        return Err(ground.refuse(charset.place(), "its description has a `charset`"));
    }
    let content_type = node.text_of("content-type")?.map(str::to_owned);
    let (file, text) = match (node.text_of("text")?, node.text_of("file")?) {
        (Some(text), None) => (None, text.to_owned()),
        (None, Some(file)) => {
            let (file, text) = read(file)?;
            (Some(file), text)
        }
        _ => {
            let why = "`readme` has neither `text` nor `file`, or both";
            return Err(ground.refuse(node.place(), why));
        }
    };
    Ok(Some(Readme {
        file,
        text,
        content_type,
    }))
}

/// Returns a path that stays in the project.
pub(super) fn path(ground: &Ground<'_>, at: &Node<'_>, path: &str) -> Result<String, InputError> {
    let found = normal(path).filter(|it| !it.is_empty());
    found.ok_or_else(|| ground.refuse(at.place(), format!("`{path}` leads out of its folder")))
}

impl Readme {
    /// Returns the type, by the end of the file's name if nothing is said.
    pub(super) fn kind(&self, ground: &Ground<'_>) -> Result<String, InputError> {
        if let Some(kind) = &self.content_type {
            return Ok(kind.clone());
        }
        let file = self.file.clone().unwrap_or_default().to_lowercase();
        let end = file.rsplit_once('.').map_or("", |it| it.1);
        match end {
            "md" => Ok("text/markdown".to_owned()),
            "rst" => Ok("text/x-rst".to_owned()),
            "txt" => Ok("text/plain".to_owned()),
            _ => {
                let place = ground.at(&["project", "readme"]);
                Err(ground.refuse(place, "of which type its description is cannot be told"))
            }
        }
    }
}

/// Writes a name and an address as Python's `email` does.
pub(super) fn address(
    ground: &Ground<'_>,
    name: Option<&str>,
    email: &str,
) -> Result<String, InputError> {
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.@".contains(it);
    let is_address = email.chars().all(is_plain)
        && email.split('@').count() == 2
        && !email.split('@').any(|it| {
            it.is_empty() || it.starts_with('.') || it.ends_with('.') || it.contains("..")
        });
    if !is_address {
        let place = ground.at(&["project"]);
        return Err(ground.refuse(place, format!("`{email}` is no plain address")));
    }
    let Some(name) = name.filter(|it| !it.is_empty()) else {
        return Ok(email.to_owned());
    };
    let is_special = |it: char| "()<>@,:;.\"[]\\".contains(it);
    let name = match name.contains(is_special) {
        true => format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")),
        false => name.to_owned(),
    };
    Ok(format!("{name} <{email}>"))
}

/// Returns names without addresses, and addresses with their names, each joined.
pub(super) fn joined_people(
    ground: &Ground<'_>,
    people: &[Person<'_>],
) -> Result<(String, String), InputError> {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    for (name, email) in people {
        match (name, email) {
            (name, Some(email)) => addresses.push(address(ground, *name, email)?),
            (Some(name), None) => names.push((*name).to_owned()),
            (None, None) => {
                let place = ground.at(&["project"]);
                return Err(ground.refuse(place, "an author has neither name nor address"));
            }
        }
    }
    Ok((names.join(", "), addresses.join(", ")))
}
