//! A headless Chromium, driven by ChromeDriver (WebDriver, a W3C recommendation).

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::ask;
use super::service::free_port;
use crate::support::peer;

/// How long the browser may take to start, and a page to show what is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// The key under which WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window, until it is dropped.
pub(super) struct Browser {
    driver: Child,
    host: String,
    session: String,
    _folder: TempDir,
}

impl Browser {
    /// Starts one; `None` where it is not installed.
    pub(super) fn start() -> Option<Self> {
        let (driver, chromium) = (peer("chromedriver")?, peer("chromium")?);
        let folder = TempDir::with_prefix("imgdecl-browser").expect("a temporary folder");
        let port = free_port();
        let driver = Command::new(driver)
            .arg(format!("--port={port}"))
            .env("HOME", folder.path())
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver");
        let mut browser = Self {
            driver,
            host: format!("127.0.0.1:{port}"),
            session: String::new(),
            _folder: folder,
        };
        browser.open(&chromium);
        Some(browser)
    }

    fn open(&mut self, chromium: &Path) {
        let profile = self._folder.path().join("profile");
        let args = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--no-proxy-server",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": chromium, "args": args},
        }}});
        let begin = Instant::now();
        while ask("GET", &self.host, "/status", "", b"").is_none() {
            assert!(begin.elapsed() < PATIENCE, "chromedriver does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        let made = self.call("POST", "/session", &wanted).expect("a session");
        let session = made["sessionId"].as_str().expect("a name");
        self.session = format!("/session/{session}");
    }

    /// Makes a call; what it says is wrong is an error.
    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let body = match method {
            "POST" => body.to_string(),
            _ => String::new(),
        };
        let reply = ask(
            method,
            &self.host,
            path,
            "application/json",
            body.as_bytes(),
        );
        let reply = reply.ok_or_else(|| format!("{method} {path}: no answer"))?;
        let mut value: Value = serde_json::from_slice(&reply.body).map_err(|it| it.to_string())?;
        match reply.status {
            200 => Ok(value["value"].take()),
            _ => Err(format!("{method} {path}: {}", value["value"]["message"])),
        }
    }

    fn post(&self, rest: &str, body: &Value) -> Result<Value, String> {
        self.call("POST", &format!("{}{rest}", self.session), body)
    }

    /// Goes to a page.
    #[track_caller]
    pub(super) fn visit(&self, url: &str) {
        self.post("/url", &json!({ "url": url })).expect(url);
    }

    fn find(&self, css: &str) -> Result<String, String> {
        let found = self.post("/element", &json!({"using": "css selector", "value": css}))?;
        let name = found[ELEMENT].as_str().ok_or("no element")?;
        Ok(format!("/element/{name}"))
    }

    /// Writes into a field.
    #[track_caller]
    pub(super) fn write(&self, css: &str, text: &str) {
        let write = || {
            let field = self.find(css)?;
            self.post(&format!("{field}/clear"), &json!({}))?;
            self.post(&format!("{field}/value"), &json!({ "text": text }))
        };
        soon(write).expect(css);
    }

    /// Clicks on something.
    #[track_caller]
    pub(super) fn click(&self, css: &str) {
        let click = || self.post(&format!("{}/click", self.find(css)?), &json!({}));
        soon(click).expect(css);
    }

    /// Returns the text of an element that is there, or comes soon.
    pub(super) fn text(&self, css: &str) -> Option<String> {
        self.get(css, "text")
    }

    /// Returns an attribute of an element that is there, or comes soon.
    pub(super) fn attribute(&self, css: &str, name: &str) -> Option<String> {
        self.get(css, &format!("attribute/{name}"))
    }

    fn get(&self, css: &str, what: &str) -> Option<String> {
        let get = || {
            let path = format!("{}{}/{what}", self.session, self.find(css)?);
            let found = self.call("GET", &path, &Value::Null)?;
            found
                .as_str()
                .map(str::to_owned)
                .ok_or("no text".to_owned())
        };
        soon(get).ok()
    }
}

/// Tries until it succeeds, for some seconds: a click may return before the page that it leads to is there, and elements
/// of the page before are stale then.
fn soon<T>(what: impl Fn() -> Result<T, String>) -> Result<T, String> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match what() {
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(100)),
            done => return done,
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its browser ends with the session.
        if !self.session.is_empty() {
            let _ = self.call("DELETE", &self.session, &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
