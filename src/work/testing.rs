//! What tests of the work share: a session without a command line, which remembers what it hears. Compiled for tests alone.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Environment, Events, IndexEnvironment, News, Session};
use crate::daemon;
use crate::exec::{Event, Outcome, Watch};
use crate::graph::Stop;
use crate::net::{Ended, Monitor, Proxies, Transfer};
use crate::oci::Platform;
use crate::registry::Places;

/// Hears what happens.
#[derive(Default)]
pub(super) struct Ear {
    notes: Mutex<Vec<String>>,
    done: Mutex<Vec<(String, Outcome)>>,
}

impl Ear {
    /// Returns the notes since it was asked last.
    pub(super) fn notes(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the actions that ran since it was asked last, sorted; not those that only look.
    pub(super) fn built(&self) -> Vec<String> {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = std::mem::take(&mut *done).into_iter();
        let mut built: Vec<String> = ended
            .filter_map(|(action, outcome)| (outcome == Outcome::Built).then_some(action))
            .collect();
        built.sort();
        built
    }
}

impl Watch for Ear {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Note(text) => Monitor::note(self, text),
            Event::Done {
                action, outcome, ..
            } => {
                let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
                done.push(((*action).to_owned(), *outcome));
            }
            _ => {}
        }
    }
}

impl Monitor for Ear {
    fn start(&self, _: &Transfer<'_>) -> u64 {
        0
    }

    fn more(&self, _: u64, _: u64) {}

    fn end(&self, _: u64, _: Ended) {}

    fn note(&self, text: &str) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.push(text.to_owned());
    }

    fn is_stopped(&self) -> bool {
        false
    }
}

impl Events for Ear {
    fn news(&self, _: &News<'_>) {}
}

/// Makes a session whose working folder is `folder`, and whose cache lies in there.
pub(super) fn session(folder: &Path) -> (Session, Arc<Ear>) {
    let ear = Arc::new(Ear::default());
    let session = Session {
        environment: Environment {
            variables: Arc::default(),
            here: Ok(folder.to_owned()),
            cache: Ok(folder.join("cache")),
            epoch: Ok(None),
            is_ci: false,
            platform: Platform::new("linux", "amd64"),
            config: None,
            credentials: Places::default(),
            proxies: Proxies::default(),
            daemons: daemon::Settings::default(),
            indexes: IndexEnvironment::default(),
            programs: Vec::new(),
            executable: Err("not in tests".to_owned()),
            settings_of_home: Vec::new(),
        },
        stop: Stop::default(),
        events: ear.clone(),
        stdout: || Err(std::io::Error::other("tests have no stdout")),
    };
    (session, ear)
}
