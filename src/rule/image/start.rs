//! Looks whether an image can start: whether it has the user that it runs as and the program that it runs, and whether that
//! can be run. What is not known is not guessed.

use serde::{Deserialize, Serialize};

use super::ImageTable;
use super::edit::SEARCHED;
use super::view::{BaseFiles, Found, View, What};
use crate::accounts::has_name;
use crate::graph::{Action, ActionError, Context, KeyWriter, Origin, Part, Product};
use crate::layer::{Content, Facts};
use crate::oci::{Config, Digest, last_of_each};
use crate::program::{HEAD, architecture, loader, shebang};
use crate::rule::base;
use crate::rule::users::{UsersBelow, Walked, unknown};
use crate::spec::{Table, suggest};
use serde_json::Value;

/// Where the kernel's own files are, which no image holds.
const KERNELS: [&str; 3] = ["/proc/", "/sys/", "/dev/"];
/// What a file must be to be run.
const NO_PROGRAM: &str = "imgdecl::image::program";

/// What an image says of its start.
pub(super) struct Start {
    /// Who it runs as.
    user: Option<(String, Origin)>,
    /// Where it says what is run.
    words: Option<Origin>,
}

impl Start {
    /// Reads it from the image's table.
    pub(super) fn of(table: &ImageTable, at: &Table) -> Self {
        let user = table.user.as_ref();
        let words = table.entrypoint.as_ref().or(table.cmd.as_ref());
        Self {
            user: user.map(|user| (user.get_ref().clone(), at.place(user.span()))),
            words: words.map(|words| at.place(words.span())),
        }
    }

    /// Tells whether the user or group is written as a name, which the image must know.
    pub(super) fn has_user_name(&self) -> bool {
        self.user.as_ref().is_some_and(|(user, _)| has_name(user))
    }
}

/// Looks at an image that was made. Inputs: the image, and what its users are found in.
pub(super) struct Check {
    /// What people call the image.
    pub(super) name: String,
    /// What the image says.
    pub(super) start: Start,
    /// Where its users are found: its base, and all layers above that.
    pub(super) users: UsersBelow,
    /// The base whose users the lock does not hold.
    pub(super) lacking: Option<String>,
    /// The names of its own layers, bottom first.
    pub(super) layers: Vec<String>,
    /// How many layers are below these, above the base.
    pub(super) below: usize,
}

/// What was found out about the program.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Verdict {
    /// Whether it cannot run, however the image is started.
    is_error: bool,
    /// What is wrong.
    message: String,
    /// How to mend it.
    help: String,
}

/// The verdict on the program of an image.
struct Judged {
    image: Digest,
    /// Whether the programs of the base were known.
    base_is_known: bool,
}

impl Part for Judged {
    fn name(&self) -> &'static str {
        "start"
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("image", &self.image.to_string());
        key.flag("programs of the base are known", self.base_is_known);
    }
}

impl Check {
    /// Tells whether there is anything to look at.
    pub(super) fn has_work(&self) -> bool {
        self.start.words.is_some() || self.start.has_user_name() || !self.layers.is_empty()
    }

    /// Makes sure that the image has its user, and tells what its layers drop.
    fn look_at_users(&self, context: &Context<'_>, below: &[Product]) -> Result<(), ActionError> {
        let must = self.start.has_user_name();
        let Walked { accounts, lost } = self.users.find(context, below, must)?;
        for (number, names) in lost {
            // What layers of another image do is told where that is looked at.
            let layer = number.checked_sub(self.below);
            if let Some(layer) = layer.and_then(|it| self.layers.get(it)) {
                let names = listed(&names);
                (context.note)(&format!(
                    "warning: {}: the layer {layer} replaces /etc/passwd of the image below, and drops {names}; `users` of the rule `files` adds to it",
                    self.name
                ));
            }
        }
        let Some((user, origin)) = self.start.user.as_ref().filter(|(user, _)| has_name(user))
        else {
            return Ok(());
        };
        match (&accounts, &self.lacking) {
            (Some(accounts), _) => {
                let known = accounts.resolve(user).map(drop);
                known.map_err(|error| unknown(&error, "imgdecl::image::user").at(origin))
            }
            (None, Some(base)) => {
                (context.note)(&format!(
                    "{}: image.lock does not say whether `{base}` has the user `{user}`: `imgdecl lock --update {base}` looks",
                    self.name
                ));
                Ok(())
            }
            (None, None) => {
                (context.note)(&format!(
                    "{}: whether there is a user `{user}` is not known: a file such as /etc/passwd is no text, or a symlink",
                    self.name
                ));
                Ok(())
            }
        }
    }

    /// Looks at the program, and tells what is wrong with it.
    fn look_at_program(
        &self,
        context: &Context<'_>,
        inputs: &[Product],
        origin: &Origin,
    ) -> Result<(), ActionError> {
        let [Product::Image(image), below @ ..] = inputs else {
            return Err(ActionError::bug("an image is looked at before it is made"));
        };
        let base = below.iter().find_map(|product| match product {
            Product::Base(base) => Some(base),
            _ => None,
        });
        let programs = match base {
            Some(base) => base::programs(context, base)?,
            None => None,
        };
        let judged = Judged {
            image: image.manifest.digest,
            base_is_known: programs.is_some(),
        };
        let known: Option<Option<Verdict>> = context.parts.known(&judged)?;
        let verdict = match known {
            Some(verdict) => verdict,
            None => {
                let config = Config::parse(&context.read(&image.config)?);
                let config =
                    config.map_err(|error| ActionError::of("imgdecl::image::config", &error))?;
                let mut layers = Vec::new();
                for product in below {
                    if let Product::Stack(stack) = product {
                        layers.push(stack.changes.get(context)?);
                    }
                }
                let base = match base {
                    Some(base) => {
                        let facts: std::sync::Arc<Facts> = base.facts.get(context)?;
                        let programs = match programs {
                            Some(blob) => base::listed_programs(context, &blob)?,
                            None => None,
                        };
                        Some(BaseFiles { facts, programs })
                    }
                    None => None,
                };
                let verdict = judge(&View { base, layers }, &config);
                context.parts.keep(&judged, &verdict, Vec::new())?;
                verdict
            }
        };
        match verdict {
            None => Ok(()),
            Some(Verdict {
                is_error: true,
                message,
                help,
            }) => Err(ActionError::new(NO_PROGRAM, message).at(origin).help(help)),
            Some(Verdict { message, help, .. }) => {
                (context.note)(&format!("warning: {}: {message}; {help}", self.name));
                Ok(())
            }
        }
    }
}

/// How many names a warning lists.
const LISTED: usize = 5;

/// Lists names.
fn listed(names: &[String]) -> String {
    let few = names[..names.len().min(LISTED)].join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => few,
        more => format!("{few} and {more} more"),
    }
}

impl Action for Check {
    fn name(&self) -> &'static str {
        "check"
    }

    fn is_cached(&self) -> bool {
        false
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("image", &self.name);
        if let Some((user, _)) = &self.start.user {
            key.field("user", user);
        }
        key.flag("program", self.start.words.is_some());
        self.users.write_key(key);
        key.list("layers", &self.layers);
    }

    fn run(&self, context: &Context<'_>, inputs: &[Product]) -> Result<Product, ActionError> {
        let Some((Product::Image(image), below)) = inputs.split_first() else {
            return Err(ActionError::bug("an image is looked at before it is made"));
        };
        self.look_at_users(context, below)?;
        if let Some(origin) = &self.start.words {
            self.look_at_program(context, inputs, origin)?;
        }
        Ok(Product::Found(image.manifest.clone()))
    }
}

/// What an image says of how it is run.
struct Process {
    /// The first word.
    word: String,
    /// The rest.
    path: String,
    /// The folder that it starts in.
    cwd: String,
    /// What the layers cannot know: folders that are mounted.
    volumes: Vec<String>,
    /// The processor.
    architecture: String,
}

impl Process {
    /// Reads it from a config; `None` if nothing is run.
    fn of(config: &Config) -> Option<Self> {
        let words = ["Entrypoint", "Cmd"].into_iter().filter_map(|field| {
            let list = config.runtime(field)?.as_array()?;
            list.first()?.as_str().map(str::to_owned)
        });
        let word = words.into_iter().next().filter(|word| !word.is_empty())?;
        let env = last_of_each(config.env());
        let path = env.iter().find_map(|it| it.strip_prefix("PATH="));
        let text = |field: &str| config.runtime(field).and_then(Value::as_str);
        let volumes = config.runtime("Volumes").and_then(Value::as_object);
        Some(Self {
            word,
            path: path.unwrap_or(SEARCHED).to_owned(),
            cwd: text("WorkingDir")
                .filter(|it| !it.is_empty())
                .unwrap_or("/")
                .to_owned(),
            volumes: volumes
                .into_iter()
                .flatten()
                .map(|(path, _)| path.clone())
                .collect(),
            architecture: config
                .platform()
                .map(|it| it.architecture)
                .unwrap_or_default(),
        })
    }

    /// Returns the absolute path of a file that the process names.
    fn within(&self, name: &str) -> String {
        match name.starts_with('/') {
            true => name.to_owned(),
            false => format!("{}/{name}", self.cwd.trim_end_matches('/')),
        }
    }

    /// Tells whether what is at a path is no matter of the image alone.
    fn is_elsewhere(&self, path: &str) -> bool {
        let is_below = |folder: &String| {
            path.strip_prefix(folder.trim_end_matches('/'))
                .is_some_and(|rest| rest.starts_with('/'))
        };
        KERNELS.iter().any(|it| path.starts_with(it)) || self.volumes.iter().any(is_below)
    }
}

/// What a path leads to.
enum Led<'a> {
    /// Nothing: in words, if a symlink leads there.
    Absent(Option<String>),
    /// That is not known.
    Unknown,
    /// Something that cannot be run: why, and how to mend it.
    Refused(String, &'static str),
    /// A program of a layer.
    File(&'a Content),
    /// A program of the base.
    Program,
}

/// Follows a path.
fn lead<'a>(view: &'a View, process: &Process, path: &str) -> Led<'a> {
    if process.is_elsewhere(path) {
        return Led::Unknown;
    }
    let Found { what, link, .. } = view.find(path);
    match what {
        What::Unknown | What::Link(_) => Led::Unknown,
        What::Absent => {
            Led::Absent(link.map(|(path, target)| {
                format!("/{path} is a symlink to {target}, where nothing is")
            }))
        }
        What::Folder => Led::Refused("it is a folder".to_owned(), "name the program in it"),
        What::Program => Led::Program,
        What::File(attrs, _) if attrs.mode & 0o111 == 0 => Led::Refused(
            format!("it has the mode {:04o}", attrs.mode),
            "`modes = { \"PATTERN\" = \"0755\" }` or `mode` of the rule `files` makes it a program",
        ),
        What::File(_, content) => Led::File(content),
    }
}

/// Judges the program of an image; `None` if nothing is wrong, or that is not known.
fn judge(view: &View, config: &Config) -> Option<Verdict> {
    let process = Process::of(config)?;
    let word = &process.word;
    if word.contains('/') {
        let path = process.within(word);
        return match lead(view, &process, &path) {
            Led::Absent(link) => {
                let why = link.map_or(String::new(), |why| format!(": {why}"));
                Some(missing(
                    format!("the image has no program {path}{why}"),
                    "bring it in a layer, unless it is mounted",
                ))
            }
            led => refused(view, &process, &path, led),
        };
    }
    let mut first = None;
    for folder in process.path.split(':') {
        let path = process.within(&format!("{folder}/{word}"));
        match lead(view, &process, &path) {
            Led::Unknown => return None,
            // The next folder may have a better one.
            Led::Absent(_) => {}
            led @ Led::Refused(..) => {
                first = first.or_else(|| refused(view, &process, &path, led));
            }
            led => return refused(view, &process, &path, led),
        }
    }
    Some(first.unwrap_or_else(|| {
        let message = format!("no folder of PATH has the program {word}: {}", process.path);
        missing(message, &advice(view, &process, word))
    }))
}

/// Says how to come to a program that is not in `PATH`.
fn advice(view: &View, process: &Process, word: &str) -> String {
    let folders = process.path.split(':');
    let names: Vec<String> = folders
        .flat_map(|folder| view.programs(&process.within(folder)))
        .collect();
    match suggest(word, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "bring it in a layer, or write its path, unless it is mounted".to_owned(),
    }
}

/// Something that is not there, and may be mounted.
fn missing(message: String, help: &str) -> Verdict {
    Verdict {
        is_error: false,
        message,
        help: help.to_owned(),
    }
}

/// Says what is wrong with what is there.
fn refused(view: &View, process: &Process, path: &str, led: Led<'_>) -> Option<Verdict> {
    let error = |why: String, help: &str| {
        Some(Verdict {
            is_error: true,
            message: format!("the image cannot start {path}: {why}"),
            help: help.to_owned(),
        })
    };
    let content = match led {
        Led::Refused(why, help) => return error(why, help),
        Led::File(content) => content,
        Led::Absent(_) | Led::Unknown | Led::Program => return None,
    };
    let mut head = Vec::new();
    let size = usize::try_from(content.size).ok()?;
    content.append(&mut head, 0, size.min(HEAD)).ok()?;
    if let Some(name) = shebang(&head) {
        let line = head.split(|byte| *byte == b'\n').next()?;
        if line.ends_with(b"\r") {
            let why =
                "its first line ends as on Windows, with CR, which is a part of the name there";
            return error(
                why.to_owned(),
                "save it with LF at the ends of lines; `*.sh text eol=lf` in .gitattributes keeps it so",
            );
        }
        return interpreter(view, process, path, &name, &head);
    }
    let own = &*process.architecture;
    if let Some(other) = architecture(&head)
        && other != own
        && !matches!((own, other), ("amd64", "386") | ("arm64", "arm"))
    {
        let why = format!("it is a program for {other}, and the image is for {own}");
        return error(
            why,
            "`${arch}` in `src` takes another one for each platform",
        );
    }
    let loader = loader(&head, &mut |part, at| {
        let end = at.checked_add(part.len() as u64)?;
        let mut bytes = Vec::new();
        (end <= content.size).then_some(())?;
        content.append(&mut bytes, at, part.len()).ok()?;
        part.copy_from_slice(&bytes);
        Some(())
    });
    let loader = loader.filter(|it| it.starts_with('/'))?;
    match lead(view, process, &loader) {
        Led::Absent(_) => Some(missing(
            format!("{path} needs {loader}, which the image does not have"),
            "link it statically, or build on a base that has it",
        )),
        _ => None,
    }
}

/// Says what is wrong with the interpreter of a script.
fn interpreter(
    view: &View,
    process: &Process,
    path: &str,
    name: &str,
    head: &[u8],
) -> Option<Verdict> {
    // One that is named relatively depends on more than the image.
    if !name.starts_with('/') {
        return None;
    }
    let help = "build on a base that has it, or bring it in a layer";
    match lead(view, process, name) {
        Led::Absent(_) => {
            let message = format!("{path} needs {name}, which the image does not have");
            return Some(missing(message, help));
        }
        Led::Refused(why, _) => {
            let message = format!("{path} needs {name}, which cannot be run: {why}");
            return Some(missing(message, help));
        }
        Led::Unknown | Led::File(_) | Led::Program => {}
    }
    // `env` looks for another one in PATH.
    if !name.ends_with("/env") {
        return None;
    }
    let line = head.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let word = line
        .split_whitespace()
        .nth(1 + usize::from(line.starts_with("#! ")))?;
    if word.contains(['/', '=']) || word.starts_with('-') {
        return None;
    }
    for folder in process.path.split(':') {
        match lead(view, process, &process.within(&format!("{folder}/{word}"))) {
            Led::Absent(_) | Led::Refused(..) => {}
            Led::Unknown | Led::File(_) | Led::Program => return None,
        }
    }
    let message = format!(
        "{path} needs {word}, which no folder of PATH has: {}",
        process.path
    );
    Some(missing(message, &advice(view, process, word)))
}
