//! `run`: an image as a process, by an OCI runtime of the host, or by chroot alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::image::{Open, Opener};
use super::{Blame, Failed, News, Session};
use crate::oci::Platform;
use crate::runtime::bundle::{Bind, BundleError, Net, Options, Rootless};
use crate::runtime::{
    ApplyError, Chroot, Container, Ended, Image, OCI_RUNTIMES, OciRuntime, ProgramError, RunError,
    Watch,
};
use crate::source::SourceError;

/// What is to be run, and how.
pub(crate) struct Request {
    /// The image.
    pub(crate) image: String,
    /// How it is found.
    pub(crate) open: Open,
    /// What its process is told, in place of the image's cmd.
    pub(crate) args: Vec<String>,
    /// The program to run, in place of the image's entrypoint and cmd.
    pub(crate) entrypoint: Option<String>,
    /// Variables.
    pub(crate) env: Vec<(String, String)>,
    /// Its process has a terminal.
    pub(crate) tty: bool,
    /// The folder that its process starts in.
    pub(crate) workdir: Option<String>,
    /// Who it runs as.
    pub(crate) user: Option<String>,
    /// Files and folders of the host, as `SRC:DST` or `SRC:DST:ro`.
    pub(crate) mounts: Vec<String>,
    /// The network that it sees.
    pub(crate) net: Net,
    /// The most memory, in bytes.
    pub(crate) memory: Option<u64>,
    /// The most CPU time, in thousandths of a CPU.
    pub(crate) millicpus: Option<u64>,
    /// The most processes and threads.
    pub(crate) pids: Option<u64>,
    /// The host name that it sees.
    pub(crate) hostname: Option<String>,
    /// Its root cannot be written.
    pub(crate) read_only: bool,
    /// How long it has to end when it is asked to.
    pub(crate) grace: Duration,
    /// The OCI runtime: a program or its path.
    pub(crate) runtime: Option<String>,
    /// Changes the root and nothing else.
    pub(crate) chroot: bool,
}

/// Hears of a container, and knows which image it is.
struct Named<'a> {
    watch: &'a dyn Watch,
    session: &'a Session,
    /// What is run.
    name: &'a str,
}

impl Watch for Named<'_> {
    fn note(&self, text: &str) {
        self.watch.note(text);
    }

    fn unpacks(&self) {
        self.session.news(&News::Unpacks(self.name));
        self.watch.unpacks();
    }

    fn signals(&self) -> Vec<i32> {
        self.watch.signals()
    }

    fn starts(&self) -> bool {
        self.watch.starts() && !self.session.stop.is_asked()
    }
}

/// Runs an image until its process ends. `watch` hears of it, and has its signals.
///
/// # Errors
/// When it cannot be run. What its process did is no error.
pub(crate) fn run(
    session: &Session,
    request: &Request,
    watch: &dyn Watch,
) -> Result<Ended, Failed> {
    let options = options(session, request)?;
    let oci_runtimes = match request.chroot {
        true => Vec::new(),
        false => oci_runtimes(request.runtime.as_deref(), &session.environment.programs)?,
    };
    let host = &session.environment.platform;
    let opener = Opener::new(session, &request.open)?.for_one();
    let opened = opener.open(&request.image)?;
    let single = opened.one(request.open.platforms.first(), host)?;
    if let Some(platform) = &single.platform {
        check_platform(&opened.name, platform, host)?;
    }
    let (config, layers) = opener.ready(&opened)?;
    session.news(&News::Over { only_if_busy: true });
    let named = Named {
        watch,
        session,
        name: &opened.name,
    };
    let image = Image {
        config: &config,
        layers: &layers,
    };
    let go_on = |_| !session.stop.is_asked();
    let ended = if request.chroot {
        let program = session
            .environment
            .executable
            .as_ref()
            .map_err(|error| Failed::build("imgdecl::run::itself", error, None))?;
        let chroot = Chroot {
            image: &image,
            options: &options,
            program,
        };
        chroot.run(&opener.store, &named, &go_on)
    } else {
        let container = Container {
            image: &image,
            options: &options,
            oci_runtimes: &oci_runtimes,
            grace: request.grace,
            output: None,
        };
        container.run(&opener.store, &named, &go_on)
    };
    ended.map_err(|error| failed(error, request))
}

fn options(session: &Session, request: &Request) -> Result<Options, Failed> {
    let wrong = |what: String| Failed::usage("imgdecl::run::option", what, None);
    if let Some(workdir) = request.workdir.as_deref().filter(|it| !it.starts_with('/')) {
        return Err(wrong(format!(
            "--workdir {workdir}: expected a path of the container that begins with /"
        )));
    }
    let here = session.here()?;
    let mut mounts = Vec::new();
    for text in &request.mounts {
        mounts.push(bind(text, here).map_err(|why| wrong(format!("--mount {text}: {why}")))?);
    }
    let net = request.net;
    if net == Net::Host && !request.chroot {
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
        entrypoint: request.entrypoint.clone().map(|word| vec![word]),
        cmd: (!request.args.is_empty() || request.entrypoint.is_some())
            .then(|| request.args.clone()),
        env: request.env.clone(),
        cwd: request.workdir.clone(),
        user: request.user.clone(),
        mounts,
        net,
        memory: request.memory,
        millicpus: request.millicpus,
        pids: request.pids,
        hostname: request.hostname.clone(),
        umask: None,
        terminal: request.tty,
        read_only: request.read_only,
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
fn oci_runtimes(named: Option<&str>, folders: &[PathBuf]) -> Result<Vec<OciRuntime>, Failed> {
    if let Some(name) = named {
        return match OciRuntime::find(name, folders) {
            Some(oci_runtime) => Ok(vec![oci_runtime]),
            None => Err(Failed::usage(
                "imgdecl::run::runtime",
                format!("there is no runtime `{name}`"),
                Some("name a program of PATH, or its path".to_owned()),
            )),
        };
    }
    let found: Vec<OciRuntime> = OCI_RUNTIMES
        .iter()
        .filter_map(|it| OciRuntime::find(it, folders))
        .collect();
    if found.is_empty() {
        let message = "no OCI runtime is installed";
        let help = "install runc, crun or youki (Debian and Fedora have packages of these names), or name one with \
                    `--runtime`; root can do without, with `--chroot`";
        return Err(Failed::build(
            "imgdecl::run::runtime",
            message,
            Some(help.to_owned()),
        ));
    }
    Ok(found)
}

/// An image of another architecture runs where the kernel knows an emulator.
fn check_platform(name: &str, platform: &Platform, host: &Platform) -> Result<(), Failed> {
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
    Err(Failed::build(
        "imgdecl::run::platform",
        &message,
        Some(help),
    ))
}

fn failed(error: RunError, request: &Request) -> Failed {
    let help = match &error {
        RunError::Apply(ApplyError::Stopped) => return Failed::Stopped,
        RunError::Apply(ApplyError::Source(SourceError::Cache(damage))) => {
            return damage.clone().into();
        }
        RunError::Apply(inner) => inner.help(),
        RunError::Bundle(BundleError::NoCommand) => {
            Some("say what to run: `--entrypoint PROGRAM`, or words after `--`".to_owned())
        }
        RunError::Bundle(BundleError::User(_)) => {
            Some("name another with `--user`; a number needs no name".to_owned())
        }
        RunError::Bundle(inner) => inner.help().map(str::to_owned),
        RunError::Program(inner) => {
            // As shells, docker and podman have it: nothing ran that could give a code.
            let blame = Blame::Program(match inner {
                ProgramError::NoProgram { .. } => 126,
                _ => 127,
            });
            return Failed::told(blame, error.code(), inner.to_string(), Some(inner.help()));
        }
        RunError::Runtimes(refused) => {
            let said: Vec<&str> = refused.iter().map(|it| &*it.why).collect();
            let mut lines: Vec<String> = refused
                .iter()
                .map(|it| match it.is_told {
                    true => format!("{} says why above", it.name),
                    false => format!("{}: {}", it.name, it.why),
                })
                .collect();
            lines.extend(advice(&said.join("\n"), request));
            Some(lines.join("\n"))
        }
        RunError::Limit { .. } => Some(
            "the control group is not ours to set: run it as root, or let systemd delegate it \
             (`systemd-run --user --scope -p Delegate=yes`)"
                .to_owned(),
        ),
        RunError::Root => Some("run it as root, or leave out `--chroot`".to_owned()),
        RunError::Changed(inner) => inner.help().map(str::to_owned),
        RunError::Store(_) | RunError::Io { .. } => None,
    };
    Failed::error(Blame::Build, error.code(), &error, help)
}

/// Says what to do about what runtimes say.
fn advice(said: &str, request: &Request) -> Option<String> {
    let has_limits =
        request.memory.is_some() || request.millicpus.is_some() || request.pids.is_some();
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
