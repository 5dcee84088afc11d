//! What is worked on: made once, from a seed or from wheels by name, and kept.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use fastrand::Rng;

/// The wheels of the workloads about Python, with what they need.
const WHEELS: [&str; 5] = ["numpy", "pandas", "scikit-learn", "pyarrow", "botocore"];
/// Sets of packages that are resolved, by name: 60 to 260 wheels each.
const SETS: [(&str, &[&str]); 8] = [
    ("airflow", &["apache-airflow[amazon]"]),
    (
        "airflow-celery",
        &["apache-airflow[amazon,postgres,celery]"],
    ),
    ("mlflow", &["mlflow"]),
    ("open-webui", &["open-webui"]),
    (
        "jupyter",
        &["jupyterhub", "jupyterlab", "notebook", "nbgitpuller"],
    ),
    (
        "langchain",
        &[
            "langgraph",
            "langchain",
            "langchain-openai",
            "langchain-community",
            "langchain-anthropic",
            "chromadb",
        ],
    ),
    (
        "docs",
        &[
            "sphinx",
            "sphinx-rtd-theme",
            "furo",
            "myst-nb",
            "mkdocs-material",
            "mkdocstrings[python]",
            "mkdocs-jupyter",
        ],
    ),
    (
        "service",
        &[
            "django",
            "celery[redis]",
            "fastapi[standard]",
            "sqlalchemy",
            "alembic",
            "boto3",
            "aiobotocore",
            "pandas",
            "scikit-learn",
            "sentry-sdk",
            "opentelemetry-distro",
            "google-cloud-storage",
        ],
    ),
];
/// The Python that they are for.
const PYTHON: &str = "3.11";

const MIB: u64 = 1 << 20;

/// Where corpora lie, below the folder of the bench. Other ones have another name: nobody measures what is no more.
const FOLDER: &str = "corpus-2";

/// Makes a corpus if it is not there, and returns its folder.
///
/// # Errors
/// When there is none of that name, or it cannot be made.
pub(crate) fn make(name: &str, folder: &Path) -> io::Result<PathBuf> {
    let path = folder.join(FOLDER).join(name);
    if path.exists() {
        return Ok(path);
    }
    eprint!("making the corpus {name} …");
    // It has its name when it is whole.
    let partial = folder.join(FOLDER).join(format!(".{name}"));
    let _ = std::fs::remove_dir_all(&partial);
    std::fs::create_dir_all(&partial)?;
    let mut rng = Rng::with_seed(1);
    match name {
        "none" => {}
        "files" => files(&partial, &mut rng, 20_000, 1024 * MIB)?,
        "tree" => {
            files(&partial, &mut rng, 100_000, 200 * MIB)?;
            git(&partial)?;
        }
        "large" => {
            std::fs::create_dir(partial.join("one"))?;
            file(&partial.join("one/file"), &mut rng, 1024 * MIB)?;
            std::fs::create_dir(partial.join("five"))?;
            file(&partial.join("five/file"), &mut rng, 5 * 1024 * MIB)?;
        }
        "wheels" => wheels(&partial)?,
        "sets" => sets(&partial)?,
        "packages" => packages(&make("wheels", folder)?, &partial)?,
        "fleet" => fleet(&make("wheels", folder)?, &partial, &mut rng)?,
        _ => return Err(io::Error::other(format!("there is no corpus `{name}`"))),
    }
    std::fs::rename(&partial, &path)?;
    eprint!("\r\x1b[K");
    Ok(path)
}

/// Makes `count` files of `total` bytes in all, a hundred to a folder: most are small, a few are large.
fn files(folder: &Path, rng: &mut Rng, count: u64, total: u64) -> io::Result<()> {
    let weights: Vec<f64> = (0..count).map(|_| rng.f64().powi(-1).min(300.0)).collect();
    let sum: f64 = weights.iter().sum();
    for (number, weight) in weights.iter().enumerate() {
        let below = folder.join(format!("d{:03}", number / 100));
        std::fs::create_dir_all(&below)?;
        let size = (weight / sum * total as f64) as u64;
        file(&below.join(format!("f{number:06}.txt")), rng, size)?;
    }
    Ok(())
}

/// Makes a file that compresses to two fifths: lines of words, many of which come again, as in programs and their data, and
/// a tenth of noise.
fn file(path: &Path, rng: &mut Rng, size: u64) -> io::Result<()> {
    const BLOCK: usize = 1 << 16;
    let mut out = io::BufWriter::with_capacity(BLOCK, std::fs::File::create(path)?);
    let text = Text::new(rng);
    let mut left = size as usize;
    let mut block = Vec::with_capacity(2 * BLOCK);
    while left > 0 {
        block.clear();
        if rng.u8(..4) == 0 {
            block.resize(rng.usize(1000..8000), 0);
            rng.fill(&mut block);
        } else {
            let length = rng.usize(4000..24_000);
            while block.len() < length {
                text.line(&mut block, rng);
            }
        }
        block.truncate(left);
        left -= block.len();
        out.write_all(&block)?;
    }
    out.flush()
}

/// What the lines of a file are made of.
struct Text {
    words: Vec<String>,
    lines: Vec<String>,
}

impl Text {
    fn new(rng: &mut Rng) -> Self {
        let mut word = || (0..rng.usize(2..10)).map(|_| rng.lowercase()).collect();
        let words = (0..2000).map(|_| word()).collect();
        let mut text = Self {
            words,
            lines: Vec::new(),
        };
        text.lines = (0..1000).map(|_| text.new_line(rng)).collect();
        text
    }

    fn new_line(&self, rng: &mut Rng) -> String {
        let mut line = " ".repeat(4 * rng.usize(..4));
        for _ in 0..rng.usize(2..9) {
            line.push_str(skewed(&self.words, rng));
            line.push([' ', '.', '(', '_', '='][rng.usize(..5)]);
        }
        line.push('\n');
        line
    }

    /// Appends a line: two of three have been there before, or will be again.
    fn line(&self, out: &mut Vec<u8>, rng: &mut Rng) {
        match rng.u8(..3) {
            0 => out.extend_from_slice(self.new_line(rng).as_bytes()),
            _ => out.extend_from_slice(skewed(&self.lines, rng).as_bytes()),
        }
    }
}

/// Chooses one, the first ones more often: words of languages are not equally frequent, nor are lines.
fn skewed<'a>(all: &'a [String], rng: &mut Rng) -> &'a str {
    &all[(rng.f64().powi(3) * all.len() as f64) as usize]
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        ))),
    }
}

fn git(folder: &Path) -> io::Result<()> {
    for args in [
        &["init", "--quiet"][..],
        &["add", "."],
        &[
            "-c",
            "user.name=bench",
            "-c",
            "user.email=bench@example.com",
            "commit",
            "--quiet",
            "-m",
            "all",
        ],
    ] {
        run(Command::new("git").arg("-C").arg(folder).args(args))?;
    }
    Ok(())
}

/// Writes sets of packages, each with its manifest and its requirements file.
fn sets(folder: &Path) -> io::Result<()> {
    for (name, packages) in SETS {
        let own = folder.join(name);
        std::fs::create_dir(&own)?;
        std::fs::write(own.join("requirements.txt"), packages.join("\n") + "\n")?;
        let manifest = "[pip.deps]\nrequirements = [\"requirements.txt\"]\npython = \"3.12\"\nlibc = \"glibc 2.36\"\n\n\
             [image.app]\nbase = \"scratch\"\nplatforms = [\"linux/amd64\"]\nlayers = [\"deps\"]\n";
        std::fs::write(own.join("image.toml"), manifest)?;
    }
    Ok(())
}

/// Fetches the wheels with pip, from the index that it is set up for.
fn wheels(folder: &Path) -> io::Result<()> {
    run(Command::new("pip")
        .args([
            "download",
            "--quiet",
            "--only-binary=:all:",
            "--platform=manylinux_2_28_x86_64",
        ])
        .args(["--platform=manylinux2014_x86_64", "--implementation=cp"])
        .args(["--python-version", PYTHON, "--dest"])
        .arg(folder)
        .args(WHEELS))
}

/// Lays the wheels out: what a service has in its site folder.
fn packages(wheels: &Path, folder: &Path) -> io::Result<()> {
    run(Command::new("pip")
        .args([
            "install",
            "--quiet",
            "--no-index",
            "--no-compile",
            "--only-binary=:all:",
        ])
        .args([
            "--platform=manylinux_2_28_x86_64",
            "--platform=manylinux2014_x86_64",
        ])
        .args([
            "--implementation=cp",
            "--python-version",
            PYTHON,
            "--find-links",
        ])
        .arg(wheels)
        .arg("--target")
        .arg(folder)
        .args(WHEELS))
}

/// Makes a monorepo of 50 services, each with four layers: shared files, packages, a model of its own, and its program.
fn fleet(wheels: &Path, folder: &Path, rng: &mut Rng) -> io::Result<()> {
    let mut members = Vec::new();
    for number in 0..50 {
        let name = format!("service-{number:02}");
        let own = folder.join(&name);
        std::fs::create_dir_all(own.join("app"))?;
        std::fs::create_dir_all(own.join("data"))?;
        for file_number in 0..20 {
            file(&own.join(format!("app/m{file_number}.py")), rng, 6000)?;
        }
        file(&own.join("data/table.bin"), rng, MIB)?;
        // Every service takes numpy and botocore, and some take more.
        let more = match number % 5 {
            0 => ", \"pandas\"",
            1 => ", \"pyarrow\"",
            _ => "",
        };
        let manifest = format!(
            "[pip.deps]\npackages = [\"numpy\", \"botocore\"{more}]\npython = \"{PYTHON}\"\nlibc = \"glibc 2.28\"\n\
             find_links = [\"../wheels\"]\n\n[files.data]\nsrc = \"data\"\ndest = \"/data\"\n\n\
             [files.app]\nsrc = \"app\"\ndest = \"/app\"\n\n\
             [image.{name}]\nbase = \"scratch\"\nlayers = [\":shared\", \"deps\", \"data\", \"app\"]\n\
             entrypoint = [\"python\", \"/app/m0.py\"]\n"
        );
        std::fs::write(own.join("image.toml"), manifest)?;
        members.push(format!("\"{name}\""));
    }
    std::fs::create_dir(folder.join("shared"))?;
    for number in 0..200 {
        file(&folder.join(format!("shared/f{number}")), rng, 50_000)?;
    }
    let root = format!(
        "[workspace]\nmembers = [{}]\n\n[files.shared]\nsrc = \"shared\"\ndest = \"/srv/shared\"\n",
        members.join(", ")
    );
    std::fs::write(folder.join("image.toml"), root)?;
    std::fs::create_dir(folder.join("wheels"))?;
    for entry in std::fs::read_dir(wheels)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        std::fs::copy(&path, folder.join("wheels").join(name))?;
    }
    Ok(())
}
