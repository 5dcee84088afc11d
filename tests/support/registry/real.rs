//! The real `docker-registry`, as Debian has it: plain, with TLS, with a password file, with a token server.

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use imgdecl::parts::oci::Reference;
use tempfile::TempDir;

use super::auth::Auth;
use super::server::{Server, Setup};
use crate::support::peer;

/// The login that the registry knows, where it knows one.
pub(crate) const USER: &str = "robot";
pub(crate) const PASSWORD: &str = "secret";
/// That password by bcrypt, as `htpasswd -B` writes it.
const HASH: &str = "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";

/// How the registry is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Plain,
    /// TLS, with a certificate of our own authority.
    Tls,
    /// The same, and clients must show a certificate of that authority.
    Mutual,
    /// Basic logins from a password file.
    Basic,
    /// Tokens of [`Real::tokens`]; anyone may pull.
    Token,
}

/// A registry that runs until it is dropped.
pub(crate) struct Real {
    child: Child,
    host: String,
    /// The token server.
    pub(crate) tokens: Option<Server>,
    folder: TempDir,
}

/// Files of a private authority: its certificate, and a certificate and key for a name.
pub(crate) struct Authority {
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    /// Makes an authority and a certificate for the loopback address by the program openssl.
    pub(crate) fn make(folder: &Path) -> Self {
        let path = |name: &str| folder.join(name);
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let [ca, ca_key, request, certificate, key, names] = [
            "ca.pem",
            "ca.key",
            "request.pem",
            "server.pem",
            "server.key",
            "names",
        ]
        .map(path);
        fs::write(&names, "subjectAltName=IP:127.0.0.1,DNS:localhost\n").expect("a file");
        let curve = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ];
        let run = |args: &[&str]| {
            let output = Command::new("openssl")
                .args(args)
                .output()
                .expect("openssl");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "openssl {args:?}:\n{said}");
        };
        let mut args = vec![
            "req",
            "-x509",
            "-days",
            "2",
            "-subj",
            "/CN=imgdecl test authority",
        ];
        let [
            ca_text,
            ca_key_text,
            request_text,
            certificate_text,
            key_text,
            names_text,
        ] = [&ca, &ca_key, &request, &certificate, &key, &names].map(|it| text(it));
        args.extend(curve);
        args.extend(["-keyout", &ca_key_text, "-out", &ca_text]);
        run(&args);
        let mut args = vec!["req", "-new", "-subj", "/CN=127.0.0.1"];
        args.extend(curve);
        args.extend(["-keyout", &key_text, "-out", &request_text]);
        run(&args);
        run(&[
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            &request_text,
            "-CA",
            &ca_text,
            "-CAkey",
            &ca_key_text,
            "-CAcreateserial",
            "-extfile",
            &names_text,
            "-out",
            &certificate_text,
        ]);
        Self {
            ca,
            certificate,
            key,
        }
    }

    /// What a fault server with this certificate needs.
    pub(crate) fn server(&self) -> rustls::ServerConfig {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let certificate = CertificateDer::from_pem_file(&self.certificate).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(&self.key).expect("a key");
        rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a certificate and its key")
    }
}

impl Real {
    /// Starts a registry; `None` where it is not installed.
    pub(crate) fn start(mode: Mode) -> Option<Self> {
        let program = peer("docker-registry")?;
        if !matches!(mode, Mode::Plain | Mode::Basic) {
            peer("openssl")?;
        }
        let folder = TempDir::with_prefix("imgdecl-registry").expect("a temporary folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut more = String::new();
        let mut http = String::new();
        let mut tokens = None;
        match mode {
            Mode::Plain => {}
            Mode::Tls | Mode::Mutual => {
                Authority::make(folder.path());
                let (certificate, key) = (path("server.pem"), path("server.key"));
                http = format!("  tls:\n    certificate: {certificate}\n    key: {key}\n");
                if mode == Mode::Mutual {
                    http.push_str(&format!("    clientcas:\n      - {}\n", path("ca.pem")));
                }
            }
            Mode::Basic => {
                let file = path("passwords");
                fs::write(&file, format!("{USER}:{HASH}\n")).expect("a password file");
                more = format!("auth:\n  htpasswd:\n    realm: imgdecl\n    path: {file}\n");
            }
            Mode::Token => {
                let server = token_server(folder.path());
                more = format!(
                    "auth:\n  token:\n    realm: http://{}/token\n    service: real\n    issuer: fault\n    \
                     rootcertbundle: {}\n",
                    server.host(),
                    path("issuer.pem")
                );
                tokens = Some(server);
            }
        }
        // A port that was free may be taken before the registry listens there.
        for _ in 0..5 {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
            let host = free.expect("a free port").to_string();
            let config = format!(
                "version: 0.1\nlog:\n  accesslog:\n    disabled: true\n  level: error\nstorage:\n  \
                 delete:\n    enabled: true\n  filesystem:\n    rootdirectory: {}\nhttp:\n  \
                 addr: {host}\n{http}{more}",
                path("data")
            );
            fs::write(path("config.yml"), config).expect("a config file");
            let output = fs::File::create(path("output")).expect("a file for what it prints");
            let mut child = Command::new(&program)
                .arg("serve")
                .arg(path("config.yml"))
                .env_clear()
                .stdin(Stdio::null())
                .stdout(output.try_clone().expect("a file"))
                .stderr(output)
                .spawn()
                .expect("docker-registry");
            if is_up(&mut child, &host) {
                return Some(Self {
                    child,
                    host,
                    tokens,
                    folder,
                });
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let said = fs::read_to_string(path("output")).unwrap_or_default();
        panic!("docker-registry does not start:\n{said}");
    }

    /// Its host and port.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// A reference to what it holds: `name` is a repository, and an image tag or digest.
    #[track_caller]
    pub(crate) fn reference(&self, name: &str) -> Reference {
        let text = format!("{}/{name}", self.host);
        text.parse().expect("a reference")
    }

    /// The authority's certificate, and the certificate and key that a client may show.
    pub(crate) fn authority(&self) -> Authority {
        let path = |name: &str| self.folder.path().join(name);
        Authority {
            ca: path("ca.pem"),
            certificate: path("server.pem"),
            key: path("server.key"),
        }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the registry listens; `false` when it ended.
fn is_up(child: &mut Child, host: &str) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(20) {
        if child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return false;
        }
        if TcpStream::connect(host).is_ok() {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    false
}

/// Starts a token server whose tokens the real registry believes.
fn token_server(folder: &Path) -> Server {
    let path = |name: &str| folder.join(name).display().to_string();
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl")
            .args(args)
            .output()
            .expect("openssl");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {args:?}:\n{said}");
    };
    let (key, certificate, der) = (path("issuer.key"), path("issuer.pem"), path("issuer.der"));
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=fault",
        "-keyout",
        &key,
        "-out",
        &certificate,
    ]);
    openssl(&["x509", "-in", &certificate, "-outform", "DER", "-out", &der]);
    let der = fs::read(der).expect("a certificate");
    Server::start(Setup {
        auth: Auth {
            signer: Some((PathBuf::from(key), der)),
            users: BTreeMap::from([(USER.to_owned(), PASSWORD.to_owned())]),
            ..Auth::token(USER, PASSWORD)
        },
        ..Setup::default()
    })
}
