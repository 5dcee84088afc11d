//! The indexes as a file of the user's chooses them: others in place of the default ones, more of them, pages of links, or
//! none. Asks nothing itself.

use std::sync::Arc;

use super::{Inner, Setup, Source};
use crate::graph::{ActionError, ChosenIndex, IndexChoice, WheelHome};

impl Inner {
    /// Makes what asks the indexes of a choice. It shares connections and credentials with this, and remembers by itself.
    pub(super) fn chosen(self: &Arc<Self>, choice: &IndexChoice) -> Self {
        let (base, choice) = (Arc::clone(self), choice.clone());
        let ask = move || base.sources_of(&choice);
        Self::make(
            Arc::clone(&self.wire),
            Arc::clone(&self.monitor),
            Setup {
                sources: Box::new(ask),
                pinned: self.pinned.clone(),
                credentials: self.credentials.clone(),
                // Those of the connections count.
                proxies: crate::net::Proxies::default(),
                monitor: Arc::clone(&self.monitor) as Arc<dyn crate::net::Monitor>,
                limits: self.limits.clone(),
                cache: Arc::clone(&self.cache),
                is_anew: self.freshness.is_anew(),
            },
        )
    }

    /// Returns the indexes of a choice: of those with one version, what comes first here is taken. That is the last extra
    /// one, as pip has it; pages of links come last.
    fn sources_of(&self, choice: &IndexChoice) -> Result<Vec<Source>, ActionError> {
        let mut found = Gathered::default();
        if !choice.is_without_index {
            // What the manifest names for some packages counts for these in any case.
            found.sources.extend(self.pinned.iter().cloned());
            for (package, index) in &choice.packages {
                if !found.sources.iter().any(|it| it.pins(package)) {
                    found.pin(package, index)?;
                }
            }
            let group = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
            match choice.is_first {
                true => {
                    for index in &choice.extra {
                        found.add(index, 1)?;
                    }
                }
                false => {
                    for (at, index) in choice.extra.iter().enumerate().rev() {
                        found.add(index, group(at + 2))?;
                    }
                }
            }
            match &choice.index {
                Some(index) => found.add(index, 1)?,
                None => {
                    let others = self.sources().map_err(ActionError::from)?;
                    for source in others.iter().filter(|it| !it.is_pinned()) {
                        found.push(source.clone().in_group(1));
                    }
                }
            }
        }
        for (at, url) in choice.links.iter().enumerate().rev() {
            let group = u32::MAX - u32::try_from(at).unwrap_or_default();
            let page = Source::page_of_links(url).map_err(|error| wrong(&error))?;
            found.push(page.in_group(group));
        }
        Ok(found.sources)
    }

    /// Returns where an index of a choice is, by its name.
    pub(super) fn home(&self, name: &str) -> Option<WheelHome> {
        let sources = self.sources().ok()?;
        let source = sources.iter().find(|it| it.name() == name)?;
        source.home()
    }
}

/// Makes the error of a URL that is none of an index.
fn wrong(error: &super::SourceError) -> ActionError {
    ActionError::new("imgdecl::index::source", error.to_string()).help(error.help())
}

/// Indexes that were gathered: each once, and each with a name of its own.
#[derive(Default)]
struct Gathered {
    sources: Vec<Source>,
}

impl Gathered {
    /// Adds an index that a file names.
    fn add(&mut self, index: &ChosenIndex, group: u32) -> Result<(), ActionError> {
        let source = Self::source(index)?;
        self.push(source.in_group(group));
        Ok(())
    }

    /// Adds an index for a package alone.
    fn pin(&mut self, package: &str, index: &ChosenIndex) -> Result<(), ActionError> {
        let source = Self::source(index)?;
        let source = source.for_packages(&[package]);
        self.push(source.map_err(|error| wrong(&error))?);
        Ok(())
    }

    /// Makes an index of what a file says.
    fn source(index: &ChosenIndex) -> Result<Source, ActionError> {
        let source = Source::new(index.name.as_deref(), &index.url);
        Ok(source.map_err(|error| wrong(&error))?.of_file())
    }

    /// Adds an index, unless it is there for all packages already.
    fn push(&mut self, source: Source) {
        let same = |it: &Source| it.url() == source.url() && !it.is_pinned();
        if !source.is_pinned() && self.sources.iter().any(same) {
            return;
        }
        // Two of one name could not be told apart; of one place, they need not be.
        let is_taken = |it: &Source| it.name() == source.name() && it.url() != source.url();
        let is_taken = self.sources.iter().any(is_taken);
        self.sources.push(match is_taken {
            true => source.named_by_url(),
            false => source,
        });
    }
}
