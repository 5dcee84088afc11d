//! Credential helpers: programs named `docker-credential-NAME` that are asked for the credentials of a server (docker's
//! credential helper protocol). Knows nothing of files, and keeps nothing that a helper says.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::process::{MAX_OUTPUT, Running};
use super::{Login, file};
use crate::shown;

/// How much of what a helper says goes into a message, in characters.
const MAX_QUOTE: usize = 200;

/// How long to read on after a helper ended, where a program that it left behind still writes.
const REST: Duration = Duration::from_secs(1);

/// What a helper says that has no credentials (docker-credential-helpers).
const NOT_FOUND: &str = "credentials not found";

/// What a helper answers.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// Credentials.
    Found(Login),
    /// That it has none.
    Nothing,
    /// Nothing of use, and why.
    Failed(String),
}

/// How helpers are found and run.
pub(super) struct Helpers {
    /// The folders where programs are, as `PATH` has them.
    pub(super) path: Option<OsString>,
    /// How long one may take.
    pub(super) limit: Duration,
    /// Tells whether the user asked to stop.
    pub(super) is_stopped: Box<dyn Fn() -> bool + Send + Sync>,
}

/// What a helper did.
pub(super) struct Ran {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

impl Helpers {
    /// Asks the helper `name` for the credentials of `server`.
    pub(super) fn ask(&self, name: &str, server: &str) -> Answer {
        if !is_name(name) {
            // The name is quoted, because it may hold anything.
            return Answer::Failed(format!(
                "{:?} is no name of a credential helper: it may have letters, digits, `.`, `_` and `-`",
                shown::one_line(name, MAX_QUOTE)
            ));
        }
        let program = format!("docker-credential-{name}");
        let Some(path) = self.find(&program) else {
            return Answer::Failed(format!("{program} is not on the PATH"));
        };
        match self.run(&path, server) {
            Ok(ran) => answer(&program, &ran),
            Err(why) => Answer::Failed(format!("{program} {why}")),
        }
    }

    /// Finds a program. A relative folder of the path means another program in each working folder, and is left out.
    fn find(&self, program: &str) -> Option<PathBuf> {
        let path = self.path.as_ref()?;
        let is_program = |path: &PathBuf| {
            std::fs::metadata(path)
                .is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
        };
        path.as_bytes()
            .split(|byte| *byte == b':')
            .map(|folder| Path::new(OsStr::from_bytes(folder)))
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(program))
            .find(is_program)
    }

    /// Runs a helper, in a process group of its own. The error goes on after the program's name.
    fn run(&self, path: &Path, server: &str) -> Result<Ran, String> {
        let mut running = Running::start(path, "get", server)
            .map_err(|error| format!("cannot be run: {error}"))?;
        self.listen(&mut running)
    }

    /// Reads what the helper prints, until it ends or has to.
    fn listen(&self, running: &mut Running) -> Result<Ran, String> {
        let fail = |error: io::Error| format!("cannot be heard: {error}");
        let deadline = Instant::now() + self.limit;
        // Set when the helper has ended: what it printed is in the pipes, and there is nothing to wait for.
        let mut rest = None;
        loop {
            if rest.is_none() && running.ended().map_err(fail)? {
                rest = Some(Instant::now() + REST);
            }
            let has_heard = running.hear(rest.is_some()).map_err(fail)?;
            if running.stdout.bytes.len() > MAX_OUTPUT {
                return Err(format!("printed more than {} KiB", MAX_OUTPUT >> 10));
            }
            match (rest, running.status) {
                (Some(rest), Some(status)) if !has_heard || Instant::now() >= rest => {
                    return Ok(Ran {
                        status,
                        stdout: std::mem::take(&mut running.stdout.bytes),
                        stderr: std::mem::take(&mut running.stderr.bytes),
                    });
                }
                (Some(_), _) => {}
                (None, _) if Instant::now() >= deadline => {
                    return Err(format!("did not answer within {:?}", self.limit));
                }
                (None, _) if (self.is_stopped)() => return Err("was stopped".to_owned()),
                (None, _) => {}
            }
        }
    }
}

/// Reads the answer from what a helper did.
pub(super) fn answer(program: &str, ran: &Ran) -> Answer {
    if !ran.status.success() {
        let says = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(NOT_FOUND);
        if says(&ran.stdout) || says(&ran.stderr) {
            return Answer::Nothing;
        }
        let quote = first_line(&ran.stderr).or_else(|| {
            // The protocol has its errors on the standard output, where secrets are too. Only what reads as a sentence
            // is taken for an error.
            first_line(&ran.stdout).filter(|line| is_sentence(line))
        });
        let quote = quote.map(|line| format!(": {line}")).unwrap_or_default();
        return Answer::Failed(format!("{program} failed ({}){quote}", ran.status));
    }
    // The error of the deserialiser could repeat a secret.
    let Ok(Value::Object(object)) = serde_json::from_slice::<Value>(&ran.stdout) else {
        return Answer::Failed(format!("{program} printed no JSON object"));
    };
    let field = |key: &str| object.get(key).filter(|it| !it.is_null());
    let text = |key: &str| field(key).map_or(Some(""), Value::as_str);
    match (text("Username"), text("Secret")) {
        (Some(""), Some("")) => Answer::Nothing,
        (Some(_), Some("")) => Answer::Failed(format!("{program} printed a name without a secret")),
        (Some(user), Some(secret)) => {
            file::login(user.to_owned(), secret.to_owned()).map_or(Answer::Nothing, Answer::Found)
        }
        _ => Answer::Failed(format!(
            "{program} printed a name or secret that is no text"
        )),
    }
}

/// Tells whether a name can be a helper's: it becomes the end of a program's name, and so must lead nowhere else.
fn is_name(name: &str) -> bool {
    let fits = |it: u8| it.is_ascii_alphanumeric() || b"._-".contains(&it);
    !name.is_empty() && !name.starts_with(['-', '.']) && name.bytes().all(fits)
}

/// Returns the first line that says something, as it may be shown, cut where it is long.
fn first_line(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines().map(|line| shown::one_line(line, MAX_QUOTE));
    lines.find(|line| !line.is_empty())
}

/// Tells whether a line is words: no JSON, no token, no line of the kind NAME=VALUE.
fn is_sentence(line: &str) -> bool {
    line.split(' ').count() >= 3 && !line.contains(['{', '}', '"', '='])
}

#[cfg(test)]
mod tests {
    use rustix::process::{Pid, Signal};

    use super::super::tests::script;
    use super::*;

    /// A folder of helpers.
    struct Space(tempfile::TempDir);

    impl Space {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn helpers(&self) -> Helpers {
            Helpers {
                path: Some(self.0.path().into()),
                limit: Duration::from_secs(30),
                is_stopped: Box::new(|| false),
            }
        }

        fn ask(&self, body: &str) -> Answer {
            script(self.0.path(), "x", body);
            self.helpers().ask("x", "a.example")
        }

        fn fails(&self, body: &str) -> String {
            match self.ask(body) {
                Answer::Failed(why) => why,
                other => panic!("{body}: {other:?}"),
            }
        }

        fn finds(&self, body: &str) -> Login {
            match self.ask(body) {
                Answer::Found(login) => login,
                other => panic!("{body}: {other:?}"),
            }
        }
    }

    fn password(user: &str, password: &str) -> Login {
        Login::Password {
            user: user.to_owned(),
            password: password.to_owned(),
        }
    }

    #[test]
    fn answers_have_several_forms() {
        let space = Space::new();
        let good = r#"{"ServerURL":"a.example","Username":"u","Secret":"s:t"}"#;
        assert_eq!(space.finds(&format!("echo '{good}'")), password("u", "s:t"));
        // What it says beside is of no interest when it succeeds; neither is input that it does not read.
        let body = format!("exec <&-; echo warning: old >&2; echo '{good}'");
        assert_eq!(space.finds(&body), password("u", "s:t"));
        let token = r#"echo '{"Username":"<token>","Secret":"t"}'"#;
        assert_eq!(space.finds(token), Login::Identity("t".into()));
        let zero = "00000000-0000-0000-0000-000000000000";
        let acr = format!(r#"echo '{{"Username":"{zero}","Secret":"t"}}'"#);
        assert_eq!(space.finds(&acr), password(zero, "t"));
        for body in [
            "echo 'credentials not found in native keychain'; exit 1",
            "echo 'credentials not found in native keychain' >&2; exit 1",
            r#"echo '{"Username":"","Secret":""}'"#,
            "echo '{}'",
        ] {
            assert!(matches!(space.ask(body), Answer::Nothing), "{body}");
        }
    }

    #[test]
    fn failures_say_what_and_no_secrets() {
        let space = Space::new();
        for (body, expected) in [
            ("echo secret", "printed no JSON object"),
            ("", "printed no JSON object"),
            ("echo '[\"secret\"]'", "printed no JSON object"),
            (
                r#"echo '{"Username":"u"}'"#,
                "printed a name without a secret",
            ),
            (
                r#"echo '{"Username":"secret","Secret":7}'"#,
                "printed a name or secret that is no text",
            ),
            ("exit 3", "failed (exit status: 3)"),
            (
                "echo; echo 'no  keyring\there'>&2; echo more >&2; exit 1",
                "failed (exit status: 1): no keyring here",
            ),
            (
                "printf '\\033[31mred\\033[0m\\n' >&2; exit 1",
                "failed (exit status: 1): [31mred [0m",
            ),
            (
                "echo error getting credentials; exit 1",
                "failed (exit status: 1): error getting credentials",
            ),
            (
                "echo '{\"Secret\": \"secret\" }'; exit 1",
                "failed (exit status: 1)",
            ),
            ("echo secret; exit 1", "failed (exit status: 1)"),
            ("kill -9 $$", "failed (signal: 9 (SIGKILL))"),
        ] {
            let said = space.fails(body);
            let said = said.strip_prefix("docker-credential-x ").expect(body);
            assert_eq!(said.trim_start(), expected, "{body}");
            assert!(!said.contains("\u{1b}"));
        }
        let long = space.fails("head -c 100000 /dev/zero | tr '\\0' y >&2; exit 1");
        assert!(long.ends_with("yyy…") && long.len() < 300, "{long}");
    }

    #[test]
    fn too_much_output_ends_it() {
        let space = Space::new();
        let start = Instant::now();
        let said = space.fails("exec yes");
        assert_eq!(said, "docker-credential-x printed more than 64 KiB");
        // What goes to the standard error is dropped, and blocks nothing.
        let body = r#"head -c 1000000 /dev/zero >&2; echo '{"Username":"u","Secret":"s"}'"#;
        assert_eq!(space.finds(body), password("u", "s"));
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn names_lead_nowhere_else() {
        let space = Space::new();
        let helpers = space.helpers();
        for name in [
            "", "-x", ".x", "..", "a/b", "/x", "a b", "é", "x\n", "x\0", "$(x)",
        ] {
            let Answer::Failed(said) = helpers.ask(name, "a.example") else {
                panic!("{name:?} is taken");
            };
            assert!(said.contains("is no name of a credential helper"), "{said}");
            assert!(!said.contains('\n'), "{said}");
        }
        for name in ["ecr-login", "x.y_z", "0"] {
            let Answer::Failed(said) = helpers.ask(name, "a.example") else {
                panic!("{name:?} is there");
            };
            assert_eq!(said, format!("docker-credential-{name} is not on the PATH"));
        }
    }

    #[test]
    fn programs_are_found_on_the_path_alone() {
        let space = Space::new();
        script(
            space.0.path(),
            "x",
            "echo '{\"Username\":\"u\",\"Secret\":\"s\"}'",
        );
        let folder = space.0.path().to_str().unwrap();
        let other = Space::new();
        // A file that is no program, and a folder of the name, are passed over.
        std::fs::write(other.0.path().join("docker-credential-x"), "").unwrap();
        let third = Space::new();
        std::fs::create_dir(third.0.path().join("docker-credential-x")).unwrap();
        let (other, third) = (other.0.path().display(), third.0.path().display());
        let ask = |path: Option<String>| {
            let helpers = Helpers {
                path: path.map(Into::into),
                ..space.helpers()
            };
            helpers.ask("x", "a.example")
        };
        let path = format!("{other}:{third}::.:relative:/nowhere:{folder}");
        assert!(matches!(ask(Some(path)), Answer::Found(_)));
        for path in [None, Some(String::new()), Some(format!("{other}:."))] {
            assert!(matches!(ask(path), Answer::Failed(_)));
        }
        // What cannot be started is told.
        let broken = Space::new();
        let path = broken.0.path().join("docker-credential-x");
        std::fs::write(&path, "#!/no/such/program\n").unwrap();
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, executable).unwrap();
        let Answer::Failed(said) = broken.helpers().ask("x", "a.example") else {
            panic!("it runs");
        };
        assert!(
            said.starts_with("docker-credential-x cannot be run: "),
            "{said}"
        );
    }

    /// Tells whether a process is there and runs.
    fn runs(id: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let state = stat.rsplit(") ").next().unwrap_or_default();
        !matches!(state.chars().next(), None | Some('Z' | 'X'))
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_hanging_helper_is_killed_with_its_children() {
        let space = Space::new();
        let ids = space.0.path().join("ids");
        let body = format!("sleep 600 &\necho $$ $! > {}\nwait", ids.display());
        script(space.0.path(), "x", &body);
        let helpers = Helpers {
            limit: Duration::from_secs(1),
            ..space.helpers()
        };
        let start = Instant::now();
        let Answer::Failed(said) = helpers.ask("x", "a.example") else {
            panic!("it answers");
        };
        assert_eq!(said, "docker-credential-x did not answer within 1s");
        let ids = std::fs::read_to_string(ids).unwrap();
        let ids: Vec<&str> = ids.split_whitespace().collect();
        assert_eq!(ids.len(), 2);
        // The child is reaped by another, a little later.
        while ids.iter().any(|id| runs(id)) && start.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(!ids.iter().any(|id| runs(id)), "{ids:?}");
        // It itself is reaped, not left as a zombie.
        let own = std::fs::read_to_string(format!("/proc/{}/stat", ids[0])).unwrap_or_default();
        assert!(!own.contains("(docker-credenti) Z"), "{own}");
    }

    #[test]
    fn what_a_helper_leaves_running_is_not_waited_for() {
        let space = Space::new();
        let start = Instant::now();
        // A daemon that keeps all pipes, as an agent for keys that was started on demand.
        let id = space.0.path().join("id");
        let body = format!(
            "sleep 60 &\necho $! > {}\necho '{{\"Username\":\"u\",\"Secret\":\"s\"}}'",
            id.display()
        );
        assert_eq!(space.finds(&body), password("u", "s"));
        assert!(start.elapsed() < Duration::from_secs(15));
        let id = std::fs::read_to_string(id).unwrap().trim().parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(id).unwrap(), Signal::KILL).unwrap();
        // And one that does not stop to write.
        let start = Instant::now();
        let body = r#"yes >&2 & echo '{"Username":"u","Secret":"s"}'"#;
        assert_eq!(space.finds(body), password("u", "s"));
        assert!(start.elapsed() < Duration::from_secs(15));
    }

    #[test]
    fn one_that_closes_its_outputs_still_has_its_limit() {
        let space = Space::new();
        script(space.0.path(), "x", "exec >&- 2>&-; exec sleep 600");
        let helpers = Helpers {
            limit: Duration::from_millis(300),
            ..space.helpers()
        };
        let answer = helpers.ask("x", "a.example");
        assert!(matches!(answer, Answer::Failed(why) if why.contains("within 300ms")));
    }

    #[test]
    fn null_is_absent() {
        let login = serde_json::json!({"ServerURL": "x", "Username": "u", "Secret": "s"});
        let nothing = serde_json::json!({"ServerURL": "x", "Username": "", "Secret": ""});
        for sound in [login, nothing] {
            crate::oci::assert_null_is_absent(&sound, |bytes| {
                let status = std::process::Command::new("true").status().unwrap();
                let (stdout, stderr) = (bytes.to_vec(), Vec::new());
                match answer(
                    "h",
                    &Ran {
                        status,
                        stdout,
                        stderr,
                    },
                ) {
                    Answer::Found(login) => Ok(Some(login)),
                    Answer::Nothing => Ok(None),
                    Answer::Failed(why) => Err(why),
                }
            });
        }
    }
}
