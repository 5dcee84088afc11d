//! Seeds, for the soil of the base.
//!
//! ```toml
//! [seed.garden]
//! seeds = ["oak", "elm=1"]
//! ```
//!
//! A toy, for tests alone: it shows what a new kind of packages takes. A base says in `etc/soil` what grows on it. Seeds are
//! pinned for that, through a port of their own, and sown from there.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ecosystem::{Conflict, Ecosystem, Finding, Installed, Item, Probe};
use super::toy_rule_testing::file;
use super::value::fields;
use super::{Below, LayerTrees, Lower, Lowered, Need, Role, Rule};
use crate::graph::{Action, ActionError, Context, KeyWriter, Lane, Product, Sources, TreeProduct};
use crate::lock::{Form, FormOf, Lock, Move, Pin};
use crate::oci::{Digest, Platform};
use crate::spec::{Key, Problems, Target, Type};

const KEYS: &[Key] = &[Key::new(
    "seeds",
    Type::Strings,
    "",
    "Names of seeds, or NAME=VERSION.",
)];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedTable {
    seeds: Vec<String>,
}

// The port.

/// Where seeds come from.
trait Seeds: Send + Sync {
    /// Returns the newest version of a seed that grows on a soil.
    fn newest(&self, name: &str, soil: &str) -> Result<String, ActionError>;

    /// Fetches a seed.
    fn fetch(&self, name: &str, version: &str) -> Result<Vec<u8>, ActionError>;
}

/// The client behind it, which has all seeds.
struct Shelf;

impl Seeds for Shelf {
    fn newest(&self, name: &str, soil: &str) -> Result<String, ActionError> {
        match (name, soil) {
            ("cactus", "clay") => Err(ActionError::new("test", "a cactus needs sand")),
            _ => Ok("2".to_owned()),
        }
    }

    fn fetch(&self, name: &str, version: &str) -> Result<Vec<u8>, ActionError> {
        Ok(format!("{name} {version}\n").into_bytes())
    }
}

/// Adds the port.
pub(crate) fn connect(sources: &mut Sources) {
    let shelf: Arc<dyn Seeds> = Arc::new(Shelf);
    sources.add(shelf);
}

fn shelf<'a>(context: &Context<'a>) -> Result<&'a dyn Seeds, ActionError> {
    let sources = context.ports.sources;
    let none = || ActionError::new("test", "seeds cannot be had");
    sources.get::<dyn Seeds>().ok_or_else(none)
}

// What a base says.

/// The soil of a base, if it has one.
#[derive(Debug)]
struct Soil(Option<String>);

/// Looks for `etc/soil`.
#[derive(Default)]
struct Digger {
    is_here: bool,
    text: Vec<u8>,
}

impl Probe for Digger {
    fn look(&mut self, _: usize, path: &str) -> bool {
        self.is_here |= path == "etc/soil";
        path == "etc/soil"
    }

    fn read(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
    }

    fn end(&mut self) {}

    fn finish(self: Box<Self>, _: &[String]) -> Arc<dyn Finding> {
        let text = String::from_utf8_lossy(&self.text);
        Arc::new(Soil(self.is_here.then(|| text.trim().to_owned())))
    }
}

impl Finding for Soil {
    fn items(&self) -> Vec<(&'static str, Item)> {
        let soil = self.0.iter();
        soil.map(|it| ("soil", Item::Text(it.clone()))).collect()
    }

    fn words(&self) -> String {
        self.0.clone().unwrap_or_else(|| "no soil".to_owned())
    }
}

/// The ecosystem.
struct Garden;

impl Ecosystem for Garden {
    fn probe(&self) -> Box<dyn Probe> {
        Box::new(Digger::default())
    }

    fn keys(&self) -> &'static [&'static str] {
        &["soil"]
    }

    fn read(
        &self,
        mut values: Map<String, Value>,
    ) -> Result<Option<Arc<dyn Finding>>, serde_json::Error> {
        let soil = values.remove("soil").map(serde_json::from_value);
        Ok(Some(Arc::new(Soil(soil.transpose()?))))
    }
}

// What is pinned.

/// The versions of a target's seeds.
#[derive(Clone, PartialEq, Debug)]
struct SeedPin {
    asked: Vec<String>,
    /// By soil and name.
    soils: BTreeMap<String, BTreeMap<String, String>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedEntry {
    asked: Vec<String>,
    seal: Digest,
    soil: BTreeMap<String, BTreeMap<String, String>>,
}

impl Pin for SeedPin {
    const RULE: &'static str = "seed";

    type Entry = SeedEntry;

    fn entry(&self) -> SeedEntry {
        SeedEntry {
            asked: self.asked.clone(),
            seal: Digest::of(b""),
            soil: self.soils.clone(),
        }
    }

    fn of_entry(entry: SeedEntry) -> Option<Self> {
        Some(Self {
            asked: entry.asked,
            soils: entry.soil,
        })
    }

    fn seal(entry: &mut SeedEntry) -> &mut Digest {
        &mut entry.seal
    }

    fn sealed(entry: &SeedEntry) -> Vec<u8> {
        serde_json::to_vec(&(&entry.asked, &entry.soil)).expect("string keys only")
    }

    fn changes(moves: &[Move<'_, Self>]) -> Vec<String> {
        let moved = moves.iter().filter(|it| it.was != it.is);
        let soils = |pin: Option<&Self>| pin.map_or(0, |it| it.soils.len());
        let line = |it: &Move<'_, Self>| format!("{}: seeds for {} soils", it.target, soils(it.is));
        moved.map(line).collect()
    }
}

/// What a need of the lock carries: names, and the soil.
struct Payload {
    asked: Vec<String>,
    soil: String,
}

pub(super) struct Seed;

impl Rule for Seed {
    fn name(&self) -> &'static str {
        SeedPin::RULE
    }

    fn role(&self) -> Role {
        Role::Layer
    }

    fn summary(&self) -> &'static str {
        "layers of seeds"
    }

    fn source(&self) -> &'static str {
        include_str!("toy_ecosystem_testing.rs")
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn fields(&self) -> Vec<&'static str> {
        fields::<SeedTable>().to_vec()
    }

    fn looks_below(&self) -> bool {
        true
    }

    fn ecosystem(&self) -> Option<&'static dyn Ecosystem> {
        Some(&Garden)
    }

    fn form(&self) -> Option<&'static dyn Form> {
        Some(FormOf::<SeedPin>::FORM)
    }

    fn lower(&self, target: &Target, lower: &mut Lower<'_>) -> Result<Lowered, Problems> {
        let table: SeedTable = lower.read(target, KEYS)?;
        let below = match lower.below().clone() {
            Below::OnDisk(base) => base.found(lower)?,
            below => below,
        };
        let soil = match &below {
            Below::Unlocked | Below::OnDisk(_) => None,
            Below::Known(found) => found.get::<Soil>().and_then(|it| it.0.clone()),
            Below::Unasked | Below::Nothing => Some("air".to_owned()),
        };
        let platform = lower.platform().cloned();
        let platform = platform.unwrap_or_else(|| Platform::new("linux", "amd64"));
        let origin = target.table.origin();
        let pin = lower.lock.get::<SeedPin>(&target.id.to_string());
        let is_stale = pin.is_some_and(|pin| pin.asked != table.seeds);
        let pin = pin.filter(|_| !is_stale);
        let pinned = pin
            .zip(soil.as_ref())
            .and_then(|(pin, soil)| pin.soils.get(soil));
        let pinned = pinned.cloned();
        let name = lower.spec.short_name(&target.id);
        let payload = soil.clone().map(|soil| Payload {
            asked: table.seeds.clone(),
            soil,
        });
        lower.need(Need {
            target: target.id.clone(),
            rule: target.rule,
            platform,
            wanted: table.seeds.join(" "),
            origin: origin.clone(),
            was: is_stale.then(|| "other seeds".to_owned()),
            is_pinned: pinned.is_some(),
            waits: soil.is_none(),
            is_reference: false,
            is_given: false,
            payload: payload.map(|it| Arc::new(it) as Arc<dyn Any + Send + Sync>),
        });
        let versions = pinned.clone().unwrap_or_default();
        let sown = Arc::new(Sown { name, versions });
        let nodes: Vec<_> = match pinned {
            None => vec![lower.add(target, Unpinned, vec![], origin)],
            Some(versions) => versions
                .into_iter()
                .map(|(name, version)| Sow { name, version })
                .map(|sow| lower.add(target, sow, vec![], origin.clone()))
                .collect(),
        };
        let layers = nodes.into_iter().map(LayerTrees::all).collect();
        Ok(Lowered::Layers(layers, sown))
    }

    fn pin(
        &self,
        needs: &[&Need],
        update: bool,
        context: &Context<'_>,
        lock: &mut Lock,
    ) -> Result<(), ActionError> {
        let payloads = needs.iter().filter_map(|need| need.payload.as_ref());
        let payloads = payloads.filter_map(|it| it.downcast_ref::<Payload>());
        for Payload { asked, soil } in payloads {
            let name = needs[0].target.to_string();
            let old = lock.get::<SeedPin>(&name);
            let old = old.filter(|old| old.asked == *asked);
            let mut pin = old.cloned().unwrap_or_else(|| SeedPin {
                asked: asked.clone(),
                soils: BTreeMap::new(),
            });
            if update || !pin.soils.contains_key(soil) {
                let versions = asked.iter().map(|text| match text.split_once('=') {
                    Some((name, version)) => Ok((name.to_owned(), version.to_owned())),
                    None => Ok((text.clone(), shelf(context)?.newest(text, soil)?)),
                });
                let versions: Result<_, ActionError> = versions.collect();
                pin.soils.insert(soil.clone(), versions?);
            }
            lock.put(name, pin);
        }
        Ok(())
    }
}

/// Fetches a seed, and sows it.
struct Sow {
    name: String,
    version: String,
}

impl Action for Sow {
    fn name(&self) -> &'static str {
        "sow"
    }

    fn lane(&self) -> Lane {
        Lane::Net
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("name", &self.name);
        key.field("version", &self.version);
    }

    fn run(&self, context: &Context<'_>, _: &[Product]) -> Result<Product, ActionError> {
        let bytes = shelf(context)?.fetch(&self.name, &self.version)?;
        let blob = context.store.put_blob(&bytes)?;
        let tree = file(&format!("garden/{}", self.name), bytes)?;
        let kept = TreeProduct::keep(tree, blob, &self.name, context.store)?;
        Ok(Product::Tree(kept))
    }
}

/// Seeds that the lock lacks.
struct Unpinned;

impl Action for Unpinned {
    fn name(&self) -> &'static str {
        "seeds"
    }

    fn is_unpinned(&self) -> bool {
        true
    }

    fn parameters(&self, _: &mut dyn KeyWriter) {}

    fn run(&self, _: &Context<'_>, _: &[Product]) -> Result<Product, ActionError> {
        Err(ActionError::bug("these seeds are not in image.lock"))
    }
}

/// The seeds of a target, as an image sees them.
#[derive(Debug)]
struct Sown {
    name: String,
    versions: BTreeMap<String, String>,
}

impl Installed for Sown {
    fn commands(&self) -> Option<&str> {
        None
    }

    fn conflict(&self, below: &dyn Installed) -> Option<Conflict> {
        let below: &Self = (below as &dyn Any).downcast_ref()?;
        let (name, _) = self.versions.iter().find(|(name, version)| {
            let other = below.versions.get(*name);
            other.is_some_and(|other| other != *version)
        })?;
        Some(Conflict {
            code: "test",
            message: format!("`{}` and `{}` sow {name} twice", below.name, self.name),
            help: "sow it once".to_owned(),
        })
    }
}
