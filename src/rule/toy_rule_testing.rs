//! A message of the day.
//!
//! ```toml
//! [motd.hello]
//! text = "welcome"
//! ```
//!
//! A toy, for tests alone: it shows what a new rule of layers takes.

use serde::Deserialize;

use super::value::fields;
use super::{Lower, Lowered, Role, Rule};
use crate::graph::{Action, ActionError, Context, KeyWriter, Product, TreeProduct};
use crate::layer::{Attrs, Content, Entry, Kind, LayerPath, Owner, Tree};
use crate::spec::{Key, Problems, Target, Type};

const KEYS: &[Key] = &[Key::new("text", Type::String, "", "What it says.")];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MotdTable {
    text: String,
}

pub(super) struct Motd;

impl Rule for Motd {
    fn name(&self) -> &'static str {
        "motd"
    }

    fn role(&self) -> Role {
        Role::Layer
    }

    fn summary(&self) -> &'static str {
        "a layer with a message"
    }

    fn source(&self) -> &'static str {
        include_str!("toy_rule_testing.rs")
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn fields(&self) -> Vec<&'static str> {
        fields::<MotdTable>().to_vec()
    }

    fn lower(&self, target: &Target, lower: &mut Lower<'_>) -> Result<Lowered, Problems> {
        let table: MotdTable = lower.read(target, KEYS)?;
        let node = lower.add(target, Say(table.text), vec![], target.table.origin());
        Ok(Lowered::Layer(vec![node]))
    }
}

/// Writes the message.
struct Say(String);

impl Action for Say {
    fn name(&self) -> &'static str {
        "motd"
    }

    fn is_cached(&self) -> bool {
        false
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("text", &self.0);
    }

    fn run(&self, _: &Context<'_>, _: &[Product]) -> Result<Product, ActionError> {
        let tree = file("etc/motd", self.0.clone().into_bytes())?;
        Ok(Product::Tree(TreeProduct::new(tree)))
    }
}

/// Makes a tree of one file.
pub(super) fn file(path: &str, bytes: Vec<u8>) -> Result<Tree, ActionError> {
    let attrs = Attrs {
        mode: 0o644,
        owner: Owner::default(),
    };
    let content = Content::bytes(bytes);
    let path = LayerPath::parse(path).map_err(|error| ActionError::of("test", &error))?;
    let mut tree = Tree::default();
    let inserted = tree.insert(path, Entry::new(Kind::File { attrs, content }));
    inserted.map_err(|error| ActionError::of("test", &error))?;
    Ok(tree)
}
