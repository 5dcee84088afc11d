//! `run`: an image as a process, by an OCI runtime of the host, or by chroot alone.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};

use super::args;
use super::build::stopped;
use super::environment::{executable, host_platform, program_folders, variable};
use super::exit::Exit;
use super::image::Opener;
use super::setup::{here, usage};
use super::{CANCEL, report};
use crate::oci::Platform;
use crate::runtime::bundle::{Bind, BundleError, Net, Options, Rootless};
use crate::runtime::{
    ApplyError, Chroot, Container, ENGINES, Ended, Engine, Image, ProgramError, RunError, Watch,
};
use crate::source::SourceError;
use crate::ui;

/// The signals that are passed on.
const PASSED: [i32; 7] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH];

/// The least memory that can be meant, in bytes: no runtime sets a container up in less.
const LEAST_MEMORY: u64 = 1 << 20;

/// The signals that arrived since a container runs, to which they belong; `None` before that.
static ARRIVED: Mutex<Option<Vec<i32>>> = Mutex::new(None);

/// Listens for signals: until the container runs, they stop us; then they are the container's.
pub(super) fn listen() {
    let listener = signal_hook::iterator::Signals::new(PASSED);
    let mut listener = match listener {
        Ok(listener) => listener,
        Err(error) => {
            let message = format!("signals will not reach the container: {error}");
            return report::plain("imgdecl::signals", &message, None);
        }
    };
    let listen = move || {
        for number in listener.forever() {
            // Held until it is decided whose it is: between the two, none is lost.
            let mut arrived = ARRIVED.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *arrived {
                Some(arrived) => arrived.push(number),
                None if matches!(number, SIGHUP | SIGINT | SIGTERM) => super::stop(),
                None => {}
            }
        }
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "waits for signals as long as the program runs"
    )]
    std::thread::spawn(listen);
}

struct Terminal<'a> {
    progress: &'a ui::Progress,
    /// What is run.
    name: &'a str,
}

impl Watch for Terminal<'_> {
    fn note(&self, text: &str) {
        ui::line(&format!("note: {text}"));
    }

    fn unpacks(&self) {
        self.progress.note(&format!("unpacking {}", self.name));
    }

    fn signals(&self) -> Vec<i32> {
        let mut arrived = ARRIVED.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.as_mut().map_or_else(Vec::new, std::mem::take)
    }

    fn starts(&self) -> bool {
        let mut arrived = ARRIVED.lock().unwrap_or_else(PoisonError::into_inner);
        *arrived = Some(Vec::new());
        !CANCEL.load(Ordering::Relaxed)
    }
}

pub(super) fn run(args: &args::Run) -> Result<Exit, Exit> {
    if args.tty {
        check_terminal()?;
    }
    let options = options(args)?;
    let engines = if args.chroot {
        Vec::new()
    } else {
        engines(args.runtime.as_deref())?
    };
    let opener = Opener::new(&args.open)?.for_one();
    let opened = opener.open(&args.image)?;
    let single = opened.one(args.open.platform.first())?;
    if let Some(platform) = &single.platform {
        check_platform(&opened.name, platform)?;
    }
    let (config, layers) = opener.ready(&opened)?;
    opener.progress.close();
    let terminal = Terminal {
        progress: &opener.progress,
        name: &opened.name,
    };
    let image = Image {
        config: &config,
        layers: &layers,
    };
    let go_on = |_| !CANCEL.load(Ordering::Relaxed);
    let ended = if args.chroot {
        let program = executable().map_err(|error| {
            report::error("imgdecl::cli::environment", &error, None);
            Exit::Failed
        })?;
        let chroot = Chroot {
            image: &image,
            options: &options,
            program: &program,
        };
        chroot.run(&opener.store, &terminal, &go_on)
    } else {
        let container = Container {
            image: &image,
            options: &options,
            engines: &engines,
            grace: Duration::from_secs(args.stop_timeout),
        };
        container.run(&opener.store, &terminal, &go_on)
    };
    let ended = ended.map_err(|error| failed(error, args))?;
    Ok(told(&ended, &options))
}

/// A container with a terminal is shown on ours.
fn check_terminal() -> Result<(), Exit> {
    let streams = [
        ("stdin", std::io::stdin().is_terminal()),
        ("stdout", std::io::stdout().is_terminal()),
        ("stderr", std::io::stderr().is_terminal()),
    ];
    let Some((name, _)) = streams.into_iter().find(|(_, is_terminal)| !is_terminal) else {
        return Ok(());
    };
    let help = format!(
        "leave `--tty` out, or do not redirect {name}; where there is no terminal, `script -qec COMMAND /dev/null` makes one"
    );
    Err(usage(
        "imgdecl::run::terminal",
        &format!("--tty: {name} is no terminal"),
        Some(help),
    ))
}

/// Says what a process cannot say itself.
fn told(ended: &Ended, options: &Options) -> Exit {
    if ended.out_of_memory {
        let limit = options
            .memory
            .map(|limit| format!(", limit {}", ui::size(limit)));
        let message = format!("killed: out of memory{}", limit.unwrap_or_default());
        report::plain(
            "imgdecl::run::memory",
            &message,
            Some("give it more with `--memory`".to_owned()),
        );
    }
    match ended.code {
        0 => Exit::Done,
        code => Exit::Process(code),
    }
}

fn options(args: &args::Run) -> Result<Options, Exit> {
    let wrong = |what: &str| usage("imgdecl::run::option", what, None);
    let env = args.env.iter().map(|text| match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        // A name alone takes our own value, as with docker and podman.
        None => match variable(text) {
            Some(value) => Ok((text.clone(), value)),
            None => Err(wrong(&format!(
                "--env {text}: there is no such variable; write {text}=VALUE"
            ))),
        },
    });
    let env: Result<Vec<(String, String)>, Exit> = env.collect();
    if let Some(workdir) = args.workdir.as_deref().filter(|it| !it.starts_with('/')) {
        return Err(wrong(&format!(
            "--workdir {workdir}: expected a path of the container that begins with /"
        )));
    }
    if let Some(memory) = args.memory.filter(|it| *it < LEAST_MEMORY) {
        let what = format!(
            "--memory {memory}: that is {}, less than any container needs",
            ui::size(memory)
        );
        let help = format!("write `--memory {memory}M` for megabytes");
        return Err(usage("imgdecl::run::option", &what, Some(help)));
    }
    let here = here()?;
    let mut mounts = Vec::new();
    for text in &args.mount {
        mounts.push(bind(text, &here).map_err(|why| wrong(&format!("--mount {text}: {why}")))?);
    }
    let net = if args.net == args::Network::Host {
        Net::Host
    } else {
        Net::None
    };
    if net == Net::Host && !args.chroot {
        // Names are resolved as on the host.
        for file in ["/etc/resolv.conf", "/etc/hosts"] {
            let taken = mounts.iter().any(|it| it.destination == file);
            if Path::new(file).is_file() && !taken {
                mounts.push(Bind {
                    source: file.into(),
                    destination: file.to_owned(),
                    read_only: true,
                    follows: true,
                });
            }
        }
    }
    let user = (rustix::process::geteuid(), rustix::process::getegid());
    Ok(Options {
        entrypoint: args.entrypoint.clone().map(|word| vec![word]),
        cmd: (!args.args.is_empty() || args.entrypoint.is_some()).then(|| args.args.clone()),
        env: env?,
        cwd: args.workdir.clone(),
        user: args.user.clone(),
        mounts,
        net,
        memory: args.memory,
        millicpus: args.cpus,
        pids: args.pids,
        hostname: args.hostname.clone(),
        terminal: args.tty,
        read_only: args.read_only,
        // Nobody would see them.
        labels: false,
        rootless: (!user.0.is_root()).then(|| Rootless {
            uid: user.0.as_raw(),
            gid: user.1.as_raw(),
        }),
    })
}

/// Reads `SRC:DST[:ro]`.
fn bind(text: &str, here: &Path) -> Result<Bind, String> {
    let (rest, read_only) = match text.strip_suffix(":ro") {
        Some(rest) => (rest, true),
        None => (text.strip_suffix(":rw").unwrap_or(text), false),
    };
    let (source, destination) = rest
        .rsplit_once(':')
        .ok_or("expected SRC:DST or SRC:DST:ro")?;
    let source = here.join(source);
    if !source.exists() {
        return Err(format!("{} is not there", source.display()));
    }
    if !destination.starts_with('/') {
        return Err(format!(
            "`{destination}` is no absolute path of the container"
        ));
    }
    Ok(Bind {
        source,
        destination: destination.to_owned(),
        read_only,
        follows: false,
    })
}

/// Finds the runtimes: the one that the user names, or all that are known and installed.
fn engines(named: Option<&str>) -> Result<Vec<Engine>, Exit> {
    let folders = program_folders();
    if let Some(name) = named {
        return match Engine::find(name, &folders) {
            Some(engine) => Ok(vec![engine]),
            None => Err(usage(
                "imgdecl::run::runtime",
                &format!("there is no runtime `{name}`"),
                Some("name a program of PATH, or its path".to_owned()),
            )),
        };
    }
    let found: Vec<Engine> = ENGINES
        .iter()
        .filter_map(|it| Engine::find(it, &folders))
        .collect();
    if found.is_empty() {
        let message = "no OCI runtime is installed";
        let help = "install runc, crun or youki (Debian and Fedora have packages of these names), or name one with \
                    `--runtime`; root can do without, with `--chroot`";
        report::plain("imgdecl::run::runtime", message, Some(help.to_owned()));
        return Err(Exit::Failed);
    }
    Ok(found)
}

/// An image of another architecture runs where the kernel knows an emulator.
fn check_platform(name: &str, platform: &Platform) -> Result<(), Exit> {
    let host = host_platform();
    if platform.os == host.os && platform.architecture == host.architecture {
        return Ok(());
    }
    // 64-bit processors run what is for their 32-bit predecessors.
    let runs = [("amd64", "386"), ("arm64", "arm")];
    if runs.contains(&(&host.architecture, &platform.architecture)) && platform.os == host.os {
        return Ok(());
    }
    let emulator = match &*platform.architecture {
        "amd64" => "qemu-x86_64",
        "arm64" => "qemu-aarch64",
        "arm" => "qemu-arm",
        "386" => "qemu-i386",
        other => &format!("qemu-{other}"),
    };
    let known = PathBuf::from("/proc/sys/fs/binfmt_misc").join(emulator);
    if platform.os == host.os && known.is_file() {
        return Ok(());
    }
    let message = format!("{name} is built for {platform}, and this host is {host}");
    let help = format!(
        "build it for {host}, choose its image with `--platform`, or register an emulator (Debian's package qemu-user-static \
         does)"
    );
    report::plain("imgdecl::run::platform", &message, Some(help));
    Err(Exit::Failed)
}

fn failed(error: RunError, args: &args::Run) -> Exit {
    let (code, help) = match &error {
        RunError::Apply(ApplyError::Stopped) => return stopped(),
        RunError::Apply(ApplyError::Source(SourceError::Cache(damage))) => {
            return report::cache(&damage.clone().into());
        }
        RunError::Apply(inner) => ("imgdecl::run::unpack", inner.help()),
        RunError::Bundle(BundleError::NoCommand) => (
            "imgdecl::run::command",
            Some("say what to run: `--entrypoint PROGRAM`, or words after `--`".to_owned()),
        ),
        RunError::Bundle(BundleError::User(_)) => (
            "imgdecl::run::user",
            Some("name another with `--user`; a number needs no name".to_owned()),
        ),
        RunError::Bundle(inner) => ("imgdecl::run::bundle", inner.help().map(str::to_owned)),
        RunError::Program(inner) => {
            report::plain("imgdecl::run::program", &inner.to_string(), Some(inner.help()));
            // As shells, docker and podman have it: nothing ran that could give a code.
            return Exit::Process(match inner {
                ProgramError::NoProgram { .. } => 126,
                _ => 127,
            });
        }
        RunError::Engines(refused) => {
            let said: Vec<&str> = refused.iter().map(|it| &*it.why).collect();
            let mut lines: Vec<String> = refused
                .iter()
                .map(|it| match it.is_told {
                    true => format!("{} says why above", it.name),
                    false => format!("{}: {}", it.name, it.why),
                })
                .collect();
            lines.extend(advice(&said.join("\n"), args));
            ("imgdecl::run::runtime", Some(lines.join("\n")))
        }
        RunError::Limit { .. } => (
            "imgdecl::run::limit",
            Some("the control group is not ours to set: run it as root, or let systemd delegate it (`systemd-run --user --scope -p Delegate=yes`)".to_owned()),
        ),
        RunError::Root => ("imgdecl::run::root", Some("run it as root, or leave out `--chroot`".to_owned())),
        RunError::Store(_) | RunError::Io { .. } => ("imgdecl::run", None),
    };
    report::error(code, &error, help);
    Exit::Failed
}

/// Says what to do about what runtimes say.
fn advice(said: &str, args: &args::Run) -> Option<String> {
    let has_limits = args.memory.is_some() || args.cpus.is_some() || args.pids.is_some();
    if said.contains("executable file not found") || said.contains("no such file or directory") {
        return Some(
            "the image has no such program: name another with `--entrypoint`, or words after `--`"
                .to_owned(),
        );
    }
    if said.contains("unable to set memory limit") {
        let advice =
            "the runtime itself needs more memory to set the container up: try `--memory 10M`";
        return Some(advice.to_owned());
    }
    if said.contains("exec format error") {
        let advice = "the program is for another architecture, or a script without `#!`";
        return Some(advice.to_owned());
    }
    if has_limits && said.contains("cgroup") {
        return Some(
            "limits need a control group of one's own: run it as root, or let systemd delegate one \
             (`systemd-run --user --scope -p Delegate=yes`)"
                .to_owned(),
        );
    }
    if said.contains("permission denied") || said.contains("operation not permitted") {
        return Some("this host does not let you make containers: try it as root".to_owned());
    }
    None
}
