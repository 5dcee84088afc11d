//! A value whose digest is known, and that is made only when someone needs all of it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use super::{ActionError, Context};

/// A value that is made at most once, when it is asked for.
pub struct Lazy<T> {
    made: OnceLock<Arc<T>>,
    make: Option<Make<T>>,
}

type Make<T> = Box<dyn Fn(&Context<'_>) -> Result<Arc<T>, ActionError> + Send + Sync>;

impl<T> Lazy<T> {
    /// Holds a value that is there.
    pub fn ready(value: Arc<T>) -> Self {
        Self {
            made: OnceLock::from(value),
            make: None,
        }
    }

    /// Holds a value that `make` makes.
    pub fn new(
        make: impl Fn(&Context<'_>) -> Result<Arc<T>, ActionError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            made: OnceLock::new(),
            make: Some(Box::new(make)),
        }
    }

    /// Tells whether the value is there.
    pub fn is_made(&self) -> bool {
        self.made.get().is_some()
    }

    /// Returns the value. What has to be done for it is done with the means of `context`: whoever asks can be stopped,
    /// and shows the progress.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn get(&self, context: &Context<'_>) -> Result<Arc<T>, ActionError> {
        if let Some(made) = self.made.get() {
            return Ok(made.clone());
        }
        let make = self
            .make
            .as_ref()
            .expect("a value is there, or there is a way to make it");
        let value = make(context)?;
        Ok(self.made.get_or_init(|| value).clone())
    }
}

impl<T> fmt::Debug for Lazy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_made() { "made" } else { "not made" })
    }
}
