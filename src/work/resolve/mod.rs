//! `resolve`: deployment files name images by `imgdecl://TARGET`, and get what was pushed, by digest.

mod catalogue;
mod places;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::{rewrite_file, write_file};
use super::net::{Net, Network};
use super::{Blame, Failed, Session};
use crate::graph::SourceText;
use crate::oci::{Digest, Platform, Reference};
use crate::source::read_document;
use crate::spec::{Problem, Problems};
use catalogue::Catalogue;

/// What is to be resolved.
#[derive(Default)]
pub(crate) struct Request {
    /// Deployment files; `-` is stdin.
    pub(crate) files: Vec<PathBuf>,
    /// The manifest or its folder.
    pub(crate) manifest: Option<String>,
    /// Files of metadata, in place of a manifest.
    pub(crate) metadata: Vec<PathBuf>,
    /// Only these platforms, where images were built so.
    pub(crate) platforms: Vec<Platform>,
    /// Variables.
    pub(crate) set: Vec<(String, String)>,
    /// How registries are reached; offline, they are not asked whether they have the images.
    pub(crate) network: Network,
    /// Where the result goes: a file, or a folder.
    pub(crate) output: Option<PathBuf>,
    /// The files themselves are written.
    pub(crate) in_place: bool,
    /// Nothing is written; what would change is an error.
    pub(crate) check: bool,
}

/// What was resolved.
pub(crate) enum Resolved {
    /// The text of the one file, which was written nowhere.
    Text(String),
    /// The images that the written files name, and their references.
    Written(Vec<(String, String)>),
    /// All files are up to date.
    UpToDate,
}

/// What stands for stdin.
const STDIN: &str = "-";

/// A file that is read.
struct File {
    /// Its name, as the user said it.
    name: String,
    source: Arc<SourceText>,
    /// The places in it that name images.
    uses: Vec<Use>,
}

/// A place that names an image.
struct Use {
    /// What is replaced.
    span: Range<usize>,
    /// The image.
    image: usize,
    /// It is the digest behind a repository, and no placeholder.
    is_digest: bool,
}

/// Where the text of a file goes.
enum Goal {
    Stdout,
    /// The file itself.
    InPlace(PathBuf),
    /// Another file.
    Other(PathBuf),
}

/// Writes references of images into deployment files. `stdin` gives what stands there.
///
/// # Errors
/// When a file is wrong, or an image is not built or not pushed.
pub(crate) fn resolve(
    session: &Session,
    request: &Request,
    stdin: &dyn Fn() -> std::io::Result<Vec<u8>>,
) -> Result<Resolved, Failed> {
    let here = session.here()?;
    let goals = goals(request, here)?;
    let mut catalogue = Catalogue::read(session, request)?;
    let mut files: Vec<File> = Vec::new();
    let mut problems = Problems::default();
    for (name, goal) in request.files.iter().zip(&goals) {
        let mut file = read(name, here, stdin)?;
        let is_in_place = matches!(goal, Goal::InPlace(_));
        find(&mut file, &catalogue, is_in_place, &mut problems);
        files.push(file);
    }
    if !problems.is_empty() {
        return Err(problems.into());
    }
    let uses = files.iter().flat_map(|file| &file.uses);
    let used: BTreeSet<usize> = uses.map(|it| it.image).collect();
    catalogue.find_digests(session, &used)?;
    let references = references(&files, &catalogue, &used)?;
    if !request.network.offline {
        ask(session, request, &files, &catalogue, &references)?;
    }
    let texts: Vec<String> = files.iter().map(|file| text(file, &references)).collect();
    match request.check {
        true => check(&files, &goals, &texts),
        false => write(&files, &goals, texts, &catalogue, &references),
    }
}

/// Finds out where each file goes.
fn goals(request: &Request, here: &Path) -> Result<Vec<Goal>, Failed> {
    let wrong = |message: &str, help: &str| {
        Err(Failed::usage(
            "imgdecl::cli::resolve",
            message,
            Some(help.to_owned()),
        ))
    };
    let is_stdin = |name: &PathBuf| name.as_os_str() == STDIN;
    let many = request.files.len() > 1;
    if request.files.iter().filter(|it| is_stdin(it)).count() > 1 {
        return wrong("stdin is named twice", "it can be read once");
    }
    let Some(output) = &request.output else {
        let in_place = request.in_place || request.check;
        if in_place && request.files.iter().any(is_stdin) {
            return wrong("stdin is no file", "name files, or an `--output`");
        }
        if !in_place && many {
            return wrong(
                "several files cannot go to stdout",
                "name a folder with `--output`, or write the files themselves with `--in-place`",
            );
        }
        let goal = |name: &PathBuf| match in_place {
            true => Goal::InPlace(here.join(name)),
            false => Goal::Stdout,
        };
        return Ok(request.files.iter().map(goal).collect());
    };
    let path = here.join(output);
    let is_folder = many || path.is_dir() || output.as_os_str().as_encoded_bytes().ends_with(b"/");
    let mut goals = Vec::new();
    let mut taken = BTreeSet::new();
    for name in &request.files {
        let goal = match (is_folder, name.file_name()) {
            (false, _) => path.clone(),
            (true, Some(own)) if !is_stdin(name) => path.join(own),
            _ => return wrong("stdin has no name", "name a file with `--output`"),
        };
        if !taken.insert(goal.clone()) {
            let message = format!("two files would go to {}", goal.display());
            return wrong(&message, "resolve them into folders of their own");
        }
        let real = goal.canonicalize().ok();
        if real.is_some() && real == here.join(name).canonicalize().ok() {
            let message = format!("{} would overwrite itself", name.display());
            return wrong(&message, "write `--in-place`, if that is meant");
        }
        goals.push(Goal::Other(goal));
    }
    Ok(goals)
}

fn read(
    name: &Path,
    here: &Path,
    stdin: &dyn Fn() -> std::io::Result<Vec<u8>>,
) -> Result<File, Failed> {
    let bytes = match name.as_os_str() == STDIN {
        true => stdin(),
        false => read_document(&here.join(name)),
    };
    let name = match name.as_os_str() == STDIN {
        true => "stdin".to_owned(),
        false => name.display().to_string(),
    };
    let text = bytes.and_then(|bytes| {
        String::from_utf8(bytes).map_err(|_| std::io::Error::other("it is no text in UTF-8"))
    });
    let text = text.map_err(|error| {
        let message = format!("cannot read {name}: {error}");
        Failed::usage("imgdecl::resolve::file", &message, None)
    })?;
    Ok(File {
        source: Arc::new(SourceText {
            name: name.clone(),
            text,
        }),
        name,
        uses: Vec::new(),
    })
}

/// Finds the places of a file that name images; also digests behind their repositories, if `with_digests`.
fn find(file: &mut File, catalogue: &Catalogue, with_digests: bool, problems: &mut Problems) {
    let source = &file.source;
    for it in places::placeholders(&source.text) {
        let code = "imgdecl::resolve::target";
        if it.name.is_empty() {
            let message = "`imgdecl://` stands without a target";
            let problem = Problem::new(code, source, it.span, message, "of which image?");
            problems.push(problem.help("write it as imgdecl://TARGET"));
            continue;
        }
        match catalogue.find(it.name) {
            Ok(image) if catalogue.images[image].repository.is_none() => {
                let message = format!("`{}` has no repository", it.name);
                let code = "imgdecl::resolve::repository";
                let problem = Problem::new(code, source, it.span, message, "kept where?");
                let help =
                    "write `repository` into the image's table, or under [defaults] for all images";
                problems.push(problem.help(help));
            }
            Ok(image) => file.uses.push(Use {
                span: it.span,
                image,
                is_digest: false,
            }),
            Err((message, help)) => {
                let problem = Problem::new(code, source, it.span, message, "no such image");
                problems.push(match help {
                    Some(help) => problem.help(help),
                    None => problem,
                });
            }
        }
    }
    for (image, it) in catalogue.images.iter().enumerate() {
        let Some(repository) = it.repository.as_ref().filter(|_| with_digests) else {
            continue;
        };
        let spans = places::digests(&source.text, repository).into_iter();
        file.uses.extend(spans.map(|span| Use {
            span,
            image,
            is_digest: true,
        }));
    }
}

/// What an image is referred to by.
struct Named {
    /// The repository as the manifest says it, and the digest.
    text: String,
    digest: Digest,
    /// The same for the registry client.
    reference: Reference,
}

/// What each image is referred to by.
type References = BTreeMap<usize, Named>;

/// Returns the reference of each image; all must be built.
fn references(
    files: &[File],
    catalogue: &Catalogue,
    used: &BTreeSet<usize>,
) -> Result<References, Failed> {
    let mut references = References::new();
    let mut problems = Problems::default();
    for index in used {
        let image = &catalogue.images[*index];
        let (Some(repository), Some(digest)) = (&image.repository, image.digest) else {
            let message = format!("`{}` is not built as the manifest has it now", image.name);
            let help = "run `imgdecl build --push` first; of what was built elsewhere, take the file of \
                        `--metadata-file`: `imgdecl resolve --metadata FILE`";
            problems.extend(at_first(
                files,
                *index,
                "imgdecl::resolve::unbuilt",
                &message,
                help,
            ));
            continue;
        };
        let reference = repository.parse::<Reference>().map_err(|error| {
            let message = format!("`{}`: {error}", image.name);
            Failed::usage("imgdecl::resolve::repository", &message, None)
        })?;
        let named = Named {
            text: format!("{repository}@{digest}"),
            digest,
            reference: Reference {
                digest: Some(digest),
                ..reference
            },
        };
        references.insert(*index, named);
    }
    failed(problems).map(|()| references)
}

/// Makes sure that the registries have the images.
fn ask(
    session: &Session,
    request: &Request,
    files: &[File],
    catalogue: &Catalogue,
    references: &References,
) -> Result<(), Failed> {
    let net = Net::new(session, &request.network)?;
    let Some(client) = net.client() else {
        return Ok(());
    };
    let mut problems = Problems::default();
    for (index, named) in references {
        if client.has(&named.reference).map_err(Failed::from)? {
            continue;
        }
        let name = &catalogue.images[*index].name;
        let message = format!("`{name}` is not pushed: there is no {}", named.text);
        let help = match catalogue.is_of_manifest() {
            true => "run `imgdecl build --push` first; `--offline` does not ask",
            false => "push what the metadata is of; `--offline` does not ask",
        };
        problems.extend(at_first(
            files,
            *index,
            "imgdecl::resolve::unpushed",
            &message,
            help,
        ));
    }
    failed(problems)
}

/// Makes a problem of the first place that names an image.
fn at_first(
    files: &[File],
    image: usize,
    code: &'static str,
    message: &str,
    help: &str,
) -> Problems {
    let first = files.iter().find_map(|file| {
        let uses = file.uses.iter().filter(|it| it.image == image);
        Some((file, uses.min_by_key(|it| it.span.start)?))
    });
    let problem = first.map(|(file, it)| {
        let problem = Problem::new(code, &file.source, it.span.clone(), message, "needed here");
        Problems::from(problem.help(help))
    });
    problem.unwrap_or_default()
}

fn failed(problems: Problems) -> Result<(), Failed> {
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Failed::Problems(problems, Blame::Build)),
    }
}

/// Returns the text of a file with the references in it.
fn text(file: &File, references: &References) -> String {
    let part = |it: &Use| {
        let named = references.get(&it.image)?;
        let new = match it.is_digest {
            true => named.digest.to_string(),
            false => named.text.clone(),
        };
        Some((it.span.clone(), new))
    };
    places::replace(
        &file.source.text,
        file.uses.iter().filter_map(part).collect(),
    )
}

/// Returns what a file holds now; `None` where there is none.
fn present(goal: &Goal, file: &File) -> Option<Vec<u8>> {
    match goal {
        Goal::Stdout => None,
        Goal::InPlace(_) => Some(file.source.text.clone().into_bytes()),
        Goal::Other(path) => std::fs::read(path).ok(),
    }
}

/// Fails where a file would change.
fn check(files: &[File], goals: &[Goal], texts: &[String]) -> Result<Resolved, Failed> {
    let mut stale = Vec::new();
    for ((file, goal), text) in files.iter().zip(goals).zip(texts) {
        if present(goal, file).as_deref() != Some(text.as_bytes()) {
            stale.push(match goal {
                Goal::Other(path) => path.display().to_string(),
                _ => file.name.clone(),
            });
        }
    }
    if stale.is_empty() {
        return Ok(Resolved::UpToDate);
    }
    let stale = stale.iter().map(|name| {
        let message = format!("{name} is not up to date");
        let help = "run the same without `--check`".to_owned();
        Failed::build("imgdecl::resolve::stale", message, Some(help))
    });
    Err(Failed::Many(stale.collect()))
}

fn write(
    files: &[File],
    goals: &[Goal],
    texts: Vec<String>,
    catalogue: &Catalogue,
    references: &References,
) -> Result<Resolved, Failed> {
    for ((file, goal), text) in files.iter().zip(goals).zip(texts) {
        let is_same = present(goal, file).as_deref() == Some(text.as_bytes());
        let (path, written) = match goal {
            Goal::Stdout => return Ok(Resolved::Text(text)),
            Goal::InPlace(path) if !is_same => (path, rewrite_file(path, text.as_bytes())),
            Goal::Other(path) if !is_same => (path, write_other(path, text.as_bytes())),
            _ => continue,
        };
        written.map_err(|error| {
            let message = format!("cannot write {}: {error}", path.display());
            Failed::build("imgdecl::resolve::file", message, None)
        })?;
    }
    let named = references.iter().map(|(index, named)| {
        let name = catalogue.images[*index].name.clone();
        (name, named.text.clone())
    });
    Ok(Resolved::Written(named.collect()))
}

fn write_other(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if path.exists() {
        return rewrite_file(path, bytes);
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    write_file(path, bytes)
}
