//! A workload: contenders that do the same work, and the goals.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::files;
use crate::measure::{Cost, Script, free_ports, missing};
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
    /// The workload whose contenders, scripts and goals it has, with another corpus.
    like: Option<String>,
    /// What every script begins with.
    #[serde(default)]
    prelude: String,
    /// How often the scripts do the work in one run.
    #[serde(default = "one")]
    pub(crate) repeat: u32,
    #[serde(default, rename = "contender")]
    contenders: Vec<Contender>,
    #[serde(default, rename = "goal")]
    pub(crate) goals: Vec<Goal>,
}

fn one() -> u32 {
    1
}

/// Who does the work.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contender {
    name: String,
    /// Prints its version, in the last line.
    version: Option<String>,
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
#[derive(Clone, Deserialize)]
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
        for index in 0..all.len() {
            let Some(like) = all[index].like.clone() else {
                continue;
            };
            let Some(model) = all.iter().find(|it| it.name == like) else {
                let text = format!("{}: there is no workload `{like}`", all[index].name);
                return Err(io::Error::other(text));
            };
            let (prelude, contenders) = (model.prelude.clone(), model.contenders.clone());
            let goals = model.goals.clone();
            let same = &mut all[index];
            (same.prelude, same.contenders, same.goals) = (prelude, contenders, goals);
        }
        Ok(all)
    }

    /// Runs all contenders that can run, in turn. One that fails is out.
    pub(crate) fn run(&self, runs: u32, corpus: &Path, folder: &Path) -> io::Result<Outcome<'_>> {
        let base = folder.join("work").join(&self.name);
        let _ = std::fs::remove_dir_all(&base);
        let mut outcome = Outcome::new(self);
        let mut teams = Vec::new();
        let ports = free_ports(self.contenders.len())?;
        for (contender, port) in self.contenders.iter().zip(ports) {
            if let Some(name) = missing(&contender.needs) {
                outcome.skip(&contender.name, format!("skipped: needs {name}"));
                continue;
            }
            let work = base.join(contender.name.replace([' ', '/', '|', ','], "-"));
            std::fs::create_dir_all(&work)?;
            teams.push(Team {
                workload: self,
                contender,
                corpus,
                work,
                port,
                costs: Vec::new(),
                failure: None,
            });
        }
        for team in &mut teams {
            team.tries(|team| team.script(&team.contender.setup).map(drop));
        }
        for run in 1..=runs {
            for team in &mut teams {
                let name = &team.contender.name;
                eprint!("\r\x1b[K{} {run}/{runs} {name}", self.name);
                team.tries(Team::measure);
            }
        }
        eprint!("\r\x1b[K");
        // Servers end, whatever happened.
        for team in &teams {
            let _ = team.script(&team.contender.teardown);
        }
        let mut first = None;
        for team in &mut teams {
            team.tries(|team| {
                let size = team.compare(&mut first)?;
                let (name, version) = (&team.contender.name, team.version());
                let done = Done::new(name, version, &team.costs, self.repeat, size);
                outcome.add(done);
                Ok(())
            });
            if let Some(failure) = team.failure.take() {
                outcome.fail(&team.contender.name, failure);
            }
        }
        std::fs::remove_dir_all(&base)?;
        Ok(outcome)
    }
}

/// The files of a result, and whose it is.
type Listed = (String, BTreeMap<String, String>);

/// A contender at work.
struct Team<'a> {
    workload: &'a Workload,
    contender: &'a Contender,
    corpus: &'a Path,
    /// Its folder.
    work: PathBuf,
    port: u16,
    costs: Vec<Cost>,
    /// What went wrong; nothing is tried after it.
    failure: Option<String>,
}

impl Team<'_> {
    fn tries(&mut self, what: impl FnOnce(&mut Self) -> io::Result<()>) {
        if self.failure.is_none() {
            self.failure = what(self).err().map(|error| error.to_string());
        }
    }

    fn script(&self, text: &str) -> io::Result<Cost> {
        let text = format!("{}\n{text}", self.workload.prelude);
        let script = Script {
            text: &text,
            work: &self.work,
            corpus: self.corpus,
            port: self.port,
        };
        script.run()
    }

    fn measure(&mut self) -> io::Result<()> {
        self.script(&self.contender.before)?;
        // What others wrote is not written to the disk during this run.
        rustix::fs::sync();
        self.costs.push(self.script(&self.contender.run)?);
        Ok(())
    }

    /// Returns what the contender says of its version: the last line that says anything.
    fn version(&self) -> Option<String> {
        self.script(self.contender.version.as_ref()?).ok()?;
        let text = std::fs::read_to_string(self.work.join("log")).ok()?;
        let mut lines = text.lines().map(str::trim).filter(|it| !it.is_empty());
        lines.next_back().map(str::to_owned)
    }

    /// Compares the result with that of the first one who has one; returns its size in bytes.
    fn compare(&self, first: &mut Option<Listed>) -> io::Result<Option<u64>> {
        let Contender {
            name,
            result: Some(result),
            root,
            except,
            ..
        } = self.contender
        else {
            return Ok(None);
        };
        let path = self.work.join(result);
        let listed = files::list(&path, root, except)?;
        match first {
            None => *first = Some((name.clone(), listed)),
            Some((other, files)) => {
                if let Some(path) = files::difference(files, &listed) {
                    let text = format!("its result is another than that of {other}: {path}");
                    return Err(io::Error::other(text));
                }
            }
        }
        files::size(&path).map(Some)
    }
}
