//! A work folder whose manifest asks for a requirements file, and the default index of its commands.

use std::fs;

use crate::support::index::{Index, Shape, Wheel};
use crate::support::wheel::Recipe;
use crate::support::{Output, Space};

/// A work folder, and the index that is asked where no file names another.
pub(super) struct Kit {
    pub(super) space: Space,
    pub(super) default: Index,
}

/// Starts an index that has pure wheels, by name and version, and by what they need.
pub(super) fn index(shape: Shape, wheels: &[(&str, &str, &[&str])]) -> Index {
    let made: Vec<(&str, Wheel)> = wheels
        .iter()
        .map(|(name, version, requires)| {
            let recipe = Recipe::new(name, version);
            let recipe = requires.iter().fold(recipe, |it, text| it.requires(text));
            (*name, recipe.make())
        })
        .collect();
    let listed: Vec<(&str, &Wheel)> = made.iter().map(|(name, wheel)| (*name, wheel)).collect();
    Index::start(shape, &listed)
}

impl Kit {
    /// Makes a folder with a requirements file; the default index has `six` 1.0 and `other` 1.0.
    pub(super) fn new(requirements: &str) -> Self {
        let default = index(
            Shape::default(),
            &[("six", "1.0", &[]), ("other", "1.0", &[])],
        );
        let space = Space::new();
        space.write("r.txt", requirements);
        let kit = Self { space, default };
        kit.manifest("", "requirements = [\"r.txt\"]");
        kit
    }

    /// Writes the manifest: what stands at its top, and the keys of its target.
    pub(super) fn manifest(&self, top: &str, keys: &str) {
        let text = format!(
            "{top}\n[pip.d]\n{keys}\npython = \"3.12\"\nlibc = \"glibc 2.36\"\nprefix = \"/usr\"\n\n\
             [image.x]\nbase = \"scratch\"\nplatforms = [\"linux/amd64\"]\nlayers = [\"d\"]\n"
        );
        self.space.write("image.toml", text);
    }

    /// Runs a command with variables of the environment.
    pub(super) fn run_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = self.space.command(args);
        command.env("UV_DEFAULT_INDEX", self.default.url());
        command.envs(variables.iter().copied());
        Output::of(&mut command)
    }

    /// Runs a command.
    pub(super) fn run(&self, args: &[&str]) -> Output {
        self.run_with(args, &[])
    }

    /// Runs a command, which must succeed.
    #[track_caller]
    pub(super) fn ok(&self, args: &[&str]) -> Output {
        let output = self.run(args);
        assert_eq!(output.status, 0, "{args:?} failed:\n{}", output.stderr);
        output
    }

    /// Runs `lock`, which must fail with a code, and returns what it says, on one line.
    #[track_caller]
    pub(super) fn fails(&self, code: &str) -> String {
        let output = self.run(&["lock"]);
        assert_ne!(output.status, 0, "{}", output.stderr);
        assert!(output.stderr.contains(code), "{}", output.stderr);
        flat(&output.stderr)
    }

    /// The text of image.lock.
    pub(super) fn lock(&self) -> String {
        fs::read_to_string(self.space.path().join("image.lock")).unwrap_or_default()
    }

    /// The lines of image.lock that are wheels.
    pub(super) fn wheels(&self) -> Vec<String> {
        let lock = self.lock();
        let lines = lock.lines().filter(|it| it.contains(".whl"));
        lines.map(str::to_owned).collect()
    }

    /// Forgets what was fetched.
    pub(super) fn forget(&self) {
        fs::remove_dir_all(self.space.cache()).expect("a cache");
    }
}

/// A message without the frames that lines of it stand in.
pub(super) fn flat(text: &str) -> String {
    let words = text
        .split_whitespace()
        .filter(|it| !matches!(*it, "│" | "|" | "·"));
    words.collect::<Vec<_>>().join(" ")
}
