//! A workload: contenders that do the same work, and the goals.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::Deserialize;

use crate::files;
use crate::measure::{Cost, Script, free_port, missing};
use crate::report::{Done, Outcome};

/// A file in `bench/workloads`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Workload {
    /// The file's name.
    #[serde(skip)]
    pub(crate) name: String,
    /// What is done.
    pub(crate) about: String,
    /// What bounds it, whoever does it.
    pub(crate) limit: String,
    /// What is worked on: see `corpus.rs`.
    pub(crate) corpus: String,
    /// What every script begins with.
    #[serde(default)]
    prelude: String,
    /// How often the scripts do the work in one run.
    #[serde(default = "one")]
    pub(crate) repeat: u32,
    #[serde(rename = "contender")]
    contenders: Vec<Contender>,
    #[serde(default, rename = "goal")]
    pub(crate) goals: Vec<Goal>,
}

fn one() -> u32 {
    1
}

/// Who does the work.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Contender {
    name: String,
    /// The programs it needs.
    #[serde(default)]
    needs: Vec<String>,
    /// Runs once, and is not measured.
    #[serde(default)]
    setup: String,
    /// Runs before each run, and is not measured.
    #[serde(default)]
    before: String,
    /// What is measured.
    run: String,
    /// Runs once at the end.
    #[serde(default)]
    teardown: String,
    /// Where the result lies: an archive of a layer, or a layout.
    result: Option<String>,
    /// Below which folder of the result the files are that all contenders have.
    #[serde(default)]
    root: String,
    /// Paths below `root` that differ for a reason, as globs.
    #[serde(default)]
    except: Vec<String>,
}

/// What is to be reached.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Goal {
    /// The contender in question.
    pub(crate) that: String,
    /// The one that it is compared with.
    pub(crate) than: Option<String>,
    /// It is at least so many times faster.
    pub(crate) faster: Option<f64>,
    /// It takes at most so many times as long.
    pub(crate) within: Option<f64>,
    /// Its result is at most so many times as large.
    pub(crate) size: Option<f64>,
    /// It takes less than so many seconds.
    pub(crate) seconds: Option<f64>,
    /// It takes less than so many MiB of memory.
    pub(crate) peak: Option<f64>,
}

impl Workload {
    /// Reads all files of a folder, in the order of their names.
    pub(crate) fn read_all(folder: &Path) -> io::Result<Vec<Self>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let text = std::fs::read_to_string(&path)?;
            let mut workload: Self = toml::from_str(&text)
                .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
            let name = path.file_stem().unwrap_or_default();
            workload.name = name.to_string_lossy().into_owned();
            all.push(workload);
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// Runs all contenders that can run, in turn.
    pub(crate) fn run(&self, runs: u32, corpus: &Path, folder: &Path) -> io::Result<Outcome<'_>> {
        let base = folder.join("work").join(&self.name);
        let _ = std::fs::remove_dir_all(&base);
        let mut costs: BTreeMap<&str, Vec<Cost>> = BTreeMap::new();
        let mut outcome = Outcome::new(self);
        let mut able = Vec::new();
        for contender in &self.contenders {
            match missing(&contender.needs) {
                Some(name) => outcome.skip(&contender.name, name),
                None => able.push((contender, free_port()?)),
            }
        }
        let script = |contender: &Contender, port: u16, text: &str| -> io::Result<Cost> {
            let work = base.join(contender.name.replace([' ', '/', '|'], "-"));
            std::fs::create_dir_all(&work)?;
            let text = format!("{}\n{text}", self.prelude);
            let script = Script {
                text: &text,
                work: &work,
                corpus,
                port,
            };
            script.run().map_err(|error| {
                io::Error::other(format!("{}, {}: {error}", self.name, contender.name))
            })
        };
        let measured = (|| {
            for (contender, port) in &able {
                script(contender, *port, &contender.setup)?;
            }
            for run in 0..runs {
                for (contender, port) in &able {
                    eprint!(
                        "\r\x1b[K{} {}/{runs} {}",
                        self.name,
                        run + 1,
                        contender.name
                    );
                    script(contender, *port, &contender.before)?;
                    let cost = script(contender, *port, &contender.run)?;
                    costs.entry(&contender.name).or_default().push(cost);
                }
            }
            eprint!("\r\x1b[K");
            Ok::<(), io::Error>(())
        })();
        // Servers end, whatever happened.
        for (contender, port) in &able {
            let _ = script(contender, *port, &contender.teardown);
        }
        measured?;
        let mut first: Option<(String, BTreeMap<String, String>)> = None;
        for (contender, _) in &able {
            let work = base.join(contender.name.replace([' ', '/', '|'], "-"));
            let mut size = None;
            if let Some(result) = &contender.result {
                let path = work.join(result);
                size = Some(files::size(&path)?);
                let listed = files::list(&path, &contender.root, &contender.except)?;
                match &first {
                    None => first = Some((contender.name.clone(), listed)),
                    Some((name, files)) => {
                        if let Some(path) = files::difference(files, &listed) {
                            return Err(io::Error::other(format!(
                                "{}: {name} and {} made different files: {path}",
                                self.name, contender.name
                            )));
                        }
                    }
                }
            }
            let costs = costs.remove(&*contender.name).unwrap_or_default();
            outcome.add(Done::new(&contender.name, &costs, self.repeat, size));
        }
        std::fs::remove_dir_all(&base)?;
        Ok(outcome)
    }
}
