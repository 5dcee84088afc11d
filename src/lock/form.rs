//! The form of what targets are pinned to: each rule has its own, and only the rule knows it.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::de::ValueDeserializer;

use crate::oci::Digest;

/// What a target is pinned to.
pub(crate) trait Pin: PartialEq + Debug + Send + Sync + Sized + 'static {
    /// The name of the rule, as it stands in `[RULE.TARGET]`.
    const RULE: &'static str;

    /// What stands in the file under that head. Its values come before its tables, as TOML wants it.
    type Entry: Serialize + DeserializeOwned;

    /// Returns what stands in the file, with any seal.
    fn entry(&self) -> Self::Entry;

    /// Returns what an entry says; `None` if it makes no sense.
    fn of_entry(entry: Self::Entry) -> Option<Self>;

    /// Returns the place of the seal.
    fn seal(entry: &mut Self::Entry) -> &mut Digest;

    /// Returns all that the entry says but the seal: the seal is the digest of this.
    fn sealed(entry: &Self::Entry) -> Vec<u8>;

    /// Says what moved, a line for each thing, for people. What is pinned is sorted by target.
    fn changes(moves: &[Move<'_, Self>]) -> Vec<String>;
}

/// What a target was pinned to, and what it is pinned to now; one of them is there.
pub(crate) struct Move<'a, P> {
    /// The target.
    pub(crate) target: &'a str,
    /// What it was pinned to.
    pub(crate) was: Option<&'a P>,
    /// What it is pinned to.
    pub(crate) is: Option<&'a P>,
}

/// What a target is pinned to, by its rule's form.
pub(super) type Sealed = Arc<dyn Any + Send + Sync>;

/// What the targets of one rule are pinned to.
pub(super) type Targets = BTreeMap<String, Sealed>;

/// The form of a rule's pins, for those who know none.
pub trait Form: Send + Sync {
    /// Returns the name of the rule.
    fn rule(&self) -> &'static str;
    /// Reads an entry; `None` if it was edited.
    fn read(&self, entry: ValueDeserializer<'_>) -> Result<Option<Sealed>, toml::de::Error>;
    /// Writes an entry with its head.
    fn write(&self, target: &str, pin: &Sealed) -> String;
    /// Tells whether two pins are equal.
    fn is_equal(&self, one: &Sealed, other: &Sealed) -> bool;
    /// Says what moved.
    fn changes(&self, old: &Targets, new: &Targets) -> Vec<String>;
}

/// The form of one kind of pin.
pub(crate) struct FormOf<P>(PhantomData<fn() -> P>);

impl<P: Pin> FormOf<P> {
    /// The form itself.
    pub(crate) const FORM: &'static dyn Form = &Self(PhantomData);
}

/// Returns a pin of this kind.
pub(super) fn pin<P: Pin>(sealed: &Sealed) -> Option<&P> {
    sealed.downcast_ref()
}

impl<P: Pin> Form for FormOf<P> {
    fn rule(&self) -> &'static str {
        P::RULE
    }

    fn read(&self, entry: ValueDeserializer<'_>) -> Result<Option<Sealed>, toml::de::Error> {
        let mut entry: P::Entry = serde::Deserialize::deserialize(entry)?;
        let digest = Digest::of(&P::sealed(&entry));
        if *P::seal(&mut entry) != digest {
            return Ok(None);
        }
        Ok(P::of_entry(entry).map(|pin| Arc::new(pin) as Sealed))
    }

    fn write(&self, target: &str, sealed: &Sealed) -> String {
        let Some(pin) = pin::<P>(sealed) else {
            return String::new();
        };
        let mut entry = pin.entry();
        let digest = Digest::of(&P::sealed(&entry));
        *P::seal(&mut entry) = digest;
        let file = BTreeMap::from([(P::RULE, BTreeMap::from([(target, entry)]))]);
        toml::to_string(&file).expect("a lock has string keys only")
    }

    fn is_equal(&self, one: &Sealed, other: &Sealed) -> bool {
        pin::<P>(one) == pin::<P>(other)
    }

    fn changes(&self, old: &Targets, new: &Targets) -> Vec<String> {
        let targets: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let of = |targets: &'_ Targets, target: &String| targets.get(target).cloned();
        let both = targets.into_iter();
        let both = both.map(|target| (target, of(old, target), of(new, target)));
        let both: Vec<_> = both.collect();
        let moves = both.iter().map(|(target, was, is)| Move {
            target,
            was: was.as_ref().and_then(pin),
            is: is.as_ref().and_then(pin),
        });
        let moves: Vec<Move<'_, P>> = moves.collect();
        P::changes(&moves)
    }
}
