//! `run`: an image as a process. Its signals are the container's own.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};

use super::environment::variable;
use super::exit::Exit;
use super::{args, report};
use crate::graph::Stop;
use crate::runtime::bundle::Net;
use crate::runtime::{Ended, Watch};
use crate::ui;
use crate::work::run::{self, Request};
use crate::work::{Blame, Failed, Session};

/// The signals that are passed on.
const PASSED: [i32; 7] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH];

/// The least memory that can be meant, in bytes: no runtime sets a container up in less.
const LEAST_MEMORY: u64 = 1 << 20;

/// The signals that arrived since a container runs, to which they belong; `None` before that.
static ARRIVED: Mutex<Option<Vec<i32>>> = Mutex::new(None);

/// Listens for signals: until the container runs, they stop us; then they are the container's.
pub(super) fn listen(stop: Stop) {
    let listener = signal_hook::iterator::Signals::new(PASSED);
    let mut listener = match listener {
        Ok(listener) => listener,
        Err(error) => {
            let message = format!("signals will not reach the container: {error}");
            return report::warn("imgdecl::signals", &message);
        }
    };
    let listen = move || {
        for number in listener.forever() {
            // Held until it is decided whose it is: between the two, none is lost.
            let mut arrived = ARRIVED.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *arrived {
                Some(arrived) => arrived.push(number),
                None if matches!(number, SIGHUP | SIGINT | SIGTERM) => super::stop(&stop),
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

/// The terminal, beside the container.
struct Terminal;

impl Watch for Terminal {
    fn note(&self, text: &str) {
        ui::line(&format!("note: {text}"));
    }

    fn unpacks(&self) {}

    fn signals(&self) -> Vec<i32> {
        let mut arrived = ARRIVED.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.as_mut().map_or_else(Vec::new, std::mem::take)
    }

    fn starts(&self) -> bool {
        let mut arrived = ARRIVED.lock().unwrap_or_else(PoisonError::into_inner);
        *arrived = Some(Vec::new());
        true
    }
}

pub(super) fn run(session: &Session, args: args::Run) -> Result<Exit, Failed> {
    if args.tty {
        check_terminal()?;
    }
    let request = request(args)?;
    let ended = run::run(session, &request, &Terminal)?;
    told(&ended, &request)
}

/// A container with a terminal is shown on ours.
fn check_terminal() -> Result<(), Failed> {
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
    Err(Failed::usage(
        "imgdecl::run::terminal",
        format!("--tty: {name} is no terminal"),
        Some(help),
    ))
}

/// Says what a process cannot say itself.
fn told(ended: &Ended, request: &Request) -> Result<Exit, Failed> {
    if ended.out_of_memory {
        let limit = request
            .memory
            .map(|limit| format!(", limit {}", ui::size(limit)));
        let message = format!("killed: out of memory{}", limit.unwrap_or_default());
        let help = Some("give it more with `--memory`".to_owned());
        let blame = Blame::Program(ended.code);
        return Err(Failed::told(blame, "imgdecl::run::memory", message, help));
    }
    Ok(match ended.code {
        0 => Exit::Done,
        code => Exit::Process(code),
    })
}

fn request(args: args::Run) -> Result<Request, Failed> {
    let wrong = |what: String, help| Failed::usage("imgdecl::run::option", what, help);
    let env = args.env.iter().map(|text| match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        // A name alone takes our own value, as with docker and podman.
        None => match variable(text) {
            Some(value) => Ok((text.clone(), value)),
            None => {
                let what = "there is no such variable";
                let message = format!("--env {text}: {what}; write {text}=VALUE");
                Err(wrong(message, None))
            }
        },
    });
    let env: Vec<(String, String)> = env.collect::<Result<_, Failed>>()?;
    if let Some(memory) = args.memory.filter(|it| *it < LEAST_MEMORY) {
        let size = ui::size(memory);
        let what = format!("--memory {memory}: that is {size}, less than any container needs");
        let help = format!("write `--memory {memory}M` for megabytes");
        return Err(wrong(what, Some(help)));
    }
    Ok(Request {
        image: args.image,
        open: args.open.request(),
        args: args.args,
        entrypoint: args.entrypoint,
        env,
        tty: args.tty,
        workdir: args.workdir,
        user: args.user,
        mounts: args.mount,
        net: match args.net {
            args::Network::Host => Net::Host,
            args::Network::None => Net::None,
        },
        memory: args.memory,
        millicpus: args.cpus,
        pids: args.pids,
        hostname: args.hostname,
        read_only: args.read_only,
        grace: Duration::from_secs(args.stop_timeout),
        runtime: args.runtime,
        chroot: args.chroot,
    })
}
