//! Runs the commands of actions in images, by the OCI runtimes of this machine: what stands behind [`Runner`].

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use crate::graph::{ActionError, Command, Context, End, Ran, Runner};
use crate::runtime::bundle::{Options, Rootless};
use crate::runtime::{ApplyError, Image, Limits, OCI_RUNTIMES, OciRuntime, RunError, Sealed};
use crate::shown;
use crate::source::{Piece, cached};

/// How long it is waited before it is asked again whether another command runs.
const WAIT: Duration = Duration::from_millis(20);

/// The runtimes of this machine.
pub(super) struct HostRunner {
    /// The folders in which programs are looked for.
    pub(super) programs: Vec<PathBuf>,
    /// Held by the command that runs: what a runtime leaves behind is ended with all its children, and these must be its own.
    pub(super) turn: Mutex<()>,
}

impl HostRunner {
    /// Waits until no other command runs.
    fn turn(&self, context: &Context<'_>) -> Result<MutexGuard<'_, ()>, ActionError> {
        loop {
            match self.turn.try_lock() {
                Ok(turn) => return Ok(turn),
                Err(TryLockError::Poisoned(turn)) => return Ok(turn.into_inner()),
                Err(TryLockError::WouldBlock) if (context.tick)(0) => std::thread::sleep(WAIT),
                Err(TryLockError::WouldBlock) => return Err(ActionError::stopped()),
            }
        }
    }

    /// Finds the runtimes that are installed.
    fn oci_runtimes(&self) -> Result<Vec<OciRuntime>, ActionError> {
        let found = OCI_RUNTIMES.iter();
        let found = found.filter_map(|it| OciRuntime::find(it, &self.programs));
        let found: Vec<OciRuntime> = found.collect();
        match found.is_empty() {
            false => Ok(found),
            true => Err(
                ActionError::new("imgdecl::run::runtime", "no OCI runtime is installed").help(
                    "install runc, crun or youki (Debian and Fedora have packages of these names)",
                ),
            ),
        }
    }
}

impl Runner for HostRunner {
    fn run(
        &self,
        command: &Command<'_>,
        contents: &mut dyn Write,
        context: &Context<'_>,
    ) -> Result<Ran, ActionError> {
        let layers = command.layers.iter();
        let layers: Vec<Piece> = layers
            .map(|layer| {
                let what = format!("the layer {}", layer.diff_id);
                cached(&layer.descriptor, context.store, what)
            })
            .collect();
        let limits = command.limits;
        let user = (rustix::process::geteuid(), rustix::process::getegid());
        let sealed = Sealed {
            image: &Image {
                config: command.config,
                layers: &layers,
            },
            options: &Options {
                entrypoint: Some(command.args.to_vec()),
                cmd: Some(Vec::new()),
                env: command.env.to_vec(),
                cwd: command.workdir.map(str::to_owned),
                user: command.user.map(str::to_owned),
                memory: limits.memory,
                millicpus: limits.millicpus,
                pids: limits.pids,
                // The same on every machine.
                hostname: Some("build".to_owned()),
                umask: Some(0o022),
                rootless: (!user.0.is_root()).then(|| Rootless {
                    uid: user.0.as_raw(),
                    gid: user.1.as_raw(),
                }),
                ..Options::default()
            },
            oci_runtimes: &self.oci_runtimes()?,
            time: limits.time,
            words: limits.words,
            keep_mtime: command.keep_mtime,
            outputs: command.outputs,
            limits: &Limits {
                entries: limits.entries,
                bytes: limits.bytes,
                ..Limits::default()
            },
        };
        let _turn = self.turn(context)?;
        let outcome = sealed.run(context.folder, contents, context.note, context.tick);
        let outcome = outcome.map_err(|error| failed(&error))?;
        let left_out = outcome.changes.iter().flat_map(|it| it.left_out());
        Ok(Ran {
            end: match outcome.is_late {
                true => End::Late,
                false if outcome.ended.out_of_memory => End::OutOfMemory,
                false => End::Exited(outcome.ended.code),
            },
            words: shown::text(&String::from_utf8_lossy(&outcome.words)).into_owned(),
            left_out: left_out
                .map(|it| format!("/{}: {}", it.path, it.what))
                .collect(),
            tree: outcome.changes.map(|changes| -> crate::graph::MakeTree {
                Box::new(move |contents| changes.tree(contents))
            }),
        })
    }
}

/// Says why a command could not be run.
fn failed(error: &RunError) -> ActionError {
    if let RunError::Apply(ApplyError::Stopped) = error {
        return ActionError::stopped();
    }
    let help = match error {
        RunError::Apply(inner) => inner.help(),
        RunError::Bundle(inner) => inner.help().map(str::to_owned),
        RunError::Program(inner) if inner.is_absent() => Some(
            "name it by its path, or run it in an image that has it: `image` and `inputs` bring what is there"
                .to_owned(),
        ),
        RunError::Program(inner) => Some(inner.help()),
        RunError::Changed(inner) => inner.help().map(str::to_owned),
        RunError::Runtimes(refused) => {
            let said = refused.iter().map(|it| format!("{}: {}", it.name, it.why));
            Some(said.collect::<Vec<_>>().join("\n"))
        }
        _ => None,
    };
    let code = match error {
        RunError::Program(_) => "imgdecl::command::program",
        other => other.code(),
    };
    let failed = ActionError::of(code, error);
    match help {
        Some(help) => failed.help(help),
        None => failed,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::graph::{CommandLimits, Forgetful, Layer, Ports};
    use crate::layer::{self, Anew, Attrs, Content, Entry, Facts, Kind, LayerPath, Owner, Tree};
    use crate::oci::{Compression, Config, Descriptor, MediaType, Platform};
    use crate::store::{Blobs as _, Store};

    /// An image of a shell, and what is needed to run commands in it.
    struct Kit {
        _folder: tempfile::TempDir,
        store: Store,
        layer: Layer,
        config: Config,
        runner: HostRunner,
    }

    impl Kit {
        /// Makes one, if this machine has an OCI runtime, a static shell, and lets us use them.
        #[expect(
            clippy::disallowed_macros,
            clippy::print_stderr,
            reason = "a test that is skipped says so"
        )]
        fn new() -> Option<Self> {
            let has = |path: &str| Path::new(path).exists();
            let runtime = ["/usr/bin", "/usr/sbin"]
                .iter()
                .flat_map(|folder| OCI_RUNTIMES.map(|it| format!("{folder}/{it}")))
                .any(|it| has(&it));
            if !runtime || !has("/bin/busybox") || !rustix::process::geteuid().is_root() {
                assert!(
                    std::env::var_os("IMGDECL_REQUIRE_PEERS").is_none(),
                    "needs runc, busybox and root"
                );
                eprintln!("skipped: needs runc, busybox and root");
                return None;
            }
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(&folder.path().join("cache")).unwrap();
            let (layer, config) = image(&store);
            Some(Self {
                _folder: folder,
                store,
                layer,
                config,
                runner: HostRunner {
                    programs: vec!["/usr/bin".into(), "/usr/sbin".into()],
                    turn: Mutex::default(),
                },
            })
        }

        fn run(&self, script: &str, limits: CommandLimits) -> Result<Ended, ActionError> {
            self.run_while(script, limits, &|_| true)
        }

        fn run_while(
            &self,
            script: &str,
            limits: CommandLimits,
            tick: layer::Tick<'_>,
        ) -> Result<Ended, ActionError> {
            let mut contents = Vec::new();
            let ran = self.runner.run(
                &Command {
                    config: &self.config,
                    layers: std::slice::from_ref(&self.layer),
                    args: &["/bin/sh", "-c", script].map(str::to_owned),
                    env: &[("WORD".to_owned(), "said".to_owned())],
                    workdir: None,
                    user: None,
                    limits,
                    outputs: None,
                    keep_mtime: false,
                },
                &mut contents,
                &Context {
                    store: &self.store,
                    folder: &self.store,
                    ports: Ports::OFFLINE,
                    parts: &Forgetful,
                    tick,
                    note: &|_| {},
                },
            )?;
            let path: Arc<Path> = Path::new("contents").into();
            let tree = ran.tree.map(|make| make(&path).unwrap());
            let mut lines = Vec::new();
            if let Some(tree) = tree {
                tree.listing(|line| lines.push(line.to_owned()));
            }
            Ok(Ended {
                end: ran.end,
                words: ran.words,
                lines,
                left_out: ran.left_out,
                contents: String::from_utf8(contents).unwrap(),
            })
        }
    }

    /// What a command came to, in words.
    #[derive(PartialEq, Debug)]
    struct Ended {
        end: End,
        words: String,
        lines: Vec<String>,
        left_out: Vec<String>,
        contents: String,
    }

    /// Makes a layer with a shell and two files.
    fn image(store: &Store) -> (Layer, Config) {
        let attrs = |mode| Attrs {
            mode,
            owner: Owner::default(),
        };
        let file = |mode, bytes: Vec<u8>| {
            Entry::new(Kind::File {
                attrs: attrs(mode),
                content: Content::bytes(bytes),
            })
        };
        let mut tree = Tree::default();
        let mut add = |path: &str, entry| {
            let path = LayerPath::parse(path).unwrap();
            tree.insert(path, entry).unwrap();
        };
        add(
            "bin/busybox",
            file(0o755, std::fs::read("/bin/busybox").unwrap()),
        );
        for name in [
            "sh", "cat", "rm", "mkdir", "chmod", "sleep", "ln", "mkfifo", "env",
        ] {
            let (target, owner) = ("busybox".to_owned(), Owner::default());
            add(
                &format!("bin/{name}"),
                Entry::new(Kind::Symlink { target, owner }),
            );
        }
        add("etc/old", file(0o644, b"old".to_vec()));
        add("etc/kept", file(0o644, b"kept".to_vec()));
        let changes = layer::resolve(&[Arc::new(tree)], &Facts::default()).unwrap();
        let mut writer = store.writer().unwrap();
        let written =
            layer::write(&changes, Compression::None, &Anew, &mut writer, &|_| true).unwrap();
        let blob = writer.complete().unwrap();
        let mut config = Config::scratch(&Platform::new("linux", "amd64"));
        config.set_diff_ids(&[written.diff_id]);
        let media_type: MediaType = "application/vnd.oci.image.layer.v1.tar".parse().unwrap();
        let bytes = store.read_blob(&blob).unwrap();
        let layer = Layer {
            descriptor: Descriptor::of(media_type, &bytes),
            diff_id: written.diff_id,
        };
        (layer, config)
    }

    #[test]
    fn what_a_command_changes_is_a_tree() {
        let Some(kit) = Kit::new() else { return };
        let script = "set -e; echo $WORD; echo new > /new; rm /etc/old; mkdir -p /d/e; chmod 700 /d/e; \
                      ln /new /d/again; ln -s ../new /d/link; mkfifo /d/pipe; test -w /dev/null; cat /proc/self/status > /dev/null";
        let ended = kit.run(script, CommandLimits::default()).unwrap();
        assert_eq!((ended.end, &*ended.words), (End::Exited(0), "said\n"));
        assert_eq!(ended.contents, "new\n");
        assert_eq!(ended.left_out, ["/d/pipe: a fifo"]);
        let paths: Vec<&str> = ended
            .lines
            .iter()
            .map(|it| it.split('"').nth(1).unwrap())
            .collect();
        assert_eq!(
            paths,
            ["etc/old", "d", "d/again", "d/e", "d/link", "etc", "new"]
        );
        assert!(ended.lines[0].ends_with(" remove") && ended.lines[3].contains(" 0700 0:0 0"));
        // The image is as it was, and the command does the same again.
        assert_eq!(kit.run(script, CommandLimits::default()).unwrap(), ended);
        let nothing = kit
            .run("cat /etc/old /etc/kept", CommandLimits::default())
            .unwrap();
        assert_eq!((&*nothing.words, nothing.lines.len()), ("oldkept", 0));
    }

    #[test]
    fn a_command_that_fails_brings_nothing() {
        let Some(kit) = Kit::new() else { return };
        let ended = kit
            .run(
                "echo x > /new; echo wrong >&2; exit 3",
                CommandLimits::default(),
            )
            .unwrap();
        assert_eq!((ended.end, &*ended.words), (End::Exited(3), "wrong\n"));
        assert!(ended.lines.is_empty() && ended.contents.is_empty());
        // What it leaves behind ends with it.
        let start = Instant::now();
        let left = kit
            .run("(sleep 60 &) ; echo done", CommandLimits::default())
            .unwrap();
        assert_eq!((left.end, &*left.words), (End::Exited(0), "done\n"));
        assert!(start.elapsed() < Duration::from_secs(50));
        let many = CommandLimits {
            entries: 10,
            ..CommandLimits::default()
        };
        let script = "i=0; while [ $i -lt 50 ]; do echo > /f$i; i=$((i+1)); done";
        let error = kit.run(script, many).map(|it| it.lines).unwrap_err();
        assert_eq!(error.code, "imgdecl::run", "{}", error.message);
    }

    #[test]
    fn a_command_has_its_time_and_can_be_stopped() {
        let Some(kit) = Kit::new() else { return };
        let limits = CommandLimits {
            time: Duration::from_secs(1),
            ..CommandLimits::default()
        };
        let start = Instant::now();
        let ended = kit.run("echo begun; sleep 60", limits).unwrap();
        assert_eq!((ended.end, &*ended.words), (End::Late, "begun\n"));
        let go_on = AtomicBool::new(true);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(700));
                go_on.store(false, Ordering::Relaxed);
            });
            let tick = |_: u64| go_on.load(Ordering::Relaxed);
            let stopped = kit.run_while("sleep 60", CommandLimits::default(), &tick);
            assert_eq!(stopped.unwrap_err().code, ActionError::stopped().code);
        });
        assert!(start.elapsed() < Duration::from_secs(50));
    }

    #[test]
    fn nothing_of_the_host_is_there() {
        let Some(kit) = Kit::new() else { return };
        // Neither a network, nor anything to read.
        let script = "cat; cat /proc/net/dev; ls / 2>&1; env";
        let ended = kit.run(script, CommandLimits::default()).unwrap();
        assert!(!ended.words.contains("eth0"), "{}", ended.words);
        assert!(ended.words.contains("WORD=said"), "{}", ended.words);
        let user = kit.run("exit 0", CommandLimits::default()).unwrap();
        assert_eq!(user.end, End::Exited(0));
    }
}
