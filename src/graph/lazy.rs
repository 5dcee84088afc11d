//! A value whose digest is known, and that is made only when someone needs all of it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use super::ActionError;

/// A value that is made at most once, when it is asked for.
pub struct Lazy<T> {
    made: OnceLock<Arc<T>>,
    make: Option<Make<T>>,
}

type Make<T> = Box<dyn Fn() -> Result<Arc<T>, ActionError> + Send + Sync>;

impl<T> Lazy<T> {
    /// Holds a value that is there.
    pub fn ready(value: Arc<T>) -> Self {
        Self {
            made: OnceLock::from(value),
            make: None,
        }
    }

    /// Holds a value that `make` makes.
    pub fn new(make: impl Fn() -> Result<Arc<T>, ActionError> + Send + Sync + 'static) -> Self {
        Self {
            made: OnceLock::new(),
            make: Some(Box::new(make)),
        }
    }

    /// Returns the value.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn get(&self) -> Result<Arc<T>, ActionError> {
        if let Some(made) = self.made.get() {
            return Ok(made.clone());
        }
        let make = self
            .make
            .as_ref()
            .expect("a value is there, or there is a way to make it");
        let value = make()?;
        Ok(self.made.get_or_init(|| value).clone())
    }
}

impl<T> fmt::Debug for Lazy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.made.get().is_some() {
            "made"
        } else {
            "not made"
        })
    }
}
