//! Users and groups of images: those that lie below a layer, those that a layer of files adds, and who a name is.
//!
//! The base's are known from its layers or from `image.lock`; each layer above may bring other files of them. That is found
//! out while the build runs, since layers of archives are read only then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::scan::explain_clash;
use super::{BaseNodes, base};
use crate::accounts::{
    AccountFile, Accounts, AddError, Added, FILES, MOST, NewGroup, NewUser, PASSWD, UserError, Who,
};
use crate::graph::{ActionError, Context, KeyWriter, NodeId, Origin, Part, Product, Stack};
use crate::layer::{Attrs, Content, Entry, Kind, LayerPath, Owner, Tree};
use crate::oci::Digest;
use crate::spec::suggest;

/// What to do about users that cannot be read.
pub(super) const UNREADABLE: &str = "etc/passwd, etc/group and those beside them must be regular files in UTF-8, of at most \
     1 MiB: write the numeric user and group id";

/// Where the users of the image below a layer are found.
#[derive(Clone, Debug, Default)]
pub struct UsersBelow {
    /// The base, if there is one.
    base: Option<NodeId>,
    /// What the lock says of its users.
    locked: Option<Arc<Accounts>>,
    /// The stacks of layers above it, bottom first.
    stacks: Vec<NodeId>,
}

impl UsersBelow {
    /// Those of a base, and of layers on it.
    pub(super) fn new(base: Option<&BaseNodes>, stacks: &[NodeId]) -> Self {
        Self {
            base: base.map(|base| base.node),
            locked: base.and_then(|base| base.users.known()),
            stacks: stacks.to_vec(),
        }
    }

    /// Returns the nodes whose products are looked at.
    pub(super) fn inputs(&self) -> Vec<NodeId> {
        self.base.iter().chain(&self.stacks).copied().collect()
    }

    /// Adds what is known beforehand to a key.
    pub(super) fn write_key(&self, key: &mut dyn KeyWriter) {
        if let Some(locked) = &self.locked {
            key.field("users below", &digest(locked).to_string());
        }
    }

    /// Finds the users; `inputs` are the products of the nodes that were named. What is not remembered of a base is looked
    /// for in its layers only where it `must` be known.
    pub(super) fn find(
        &self,
        context: &Context<'_>,
        inputs: &[Product],
        must: bool,
    ) -> Result<Walked, ActionError> {
        let base = inputs.first().and_then(|product| match product {
            Product::Base(base) => Some(base),
            _ => None,
        });
        let below = match (base, &self.locked) {
            (None, _) => Some(Accounts::default()),
            (Some(_), Some(locked)) => Some(Accounts::clone(locked)),
            (Some(base), None) => base::accounts(context, base, must)?,
        };
        let Some(below) = below else {
            return Ok(Walked::default());
        };
        let stacks = inputs.iter().filter_map(|product| match product {
            Product::Stack(stack) => Some(&**stack),
            _ => None,
        });
        let stacks: Vec<&Stack> = stacks.collect();
        if stacks.is_empty() {
            return Ok(Walked {
                accounts: Some(below),
                lost: Vec::new(),
            });
        }
        let part = Above {
            below: digest(&below),
            stacks: &stacks,
        };
        context.recorded(&part, || walk(context, below, &stacks))
    }
}

/// The users of an image.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Walked {
    /// They; `None` where they are not known.
    pub(super) accounts: Option<Accounts>,
    /// The layers that drop users of what lies below them, by their numbers from the bottom, and who that is.
    pub(super) lost: Vec<(usize, Vec<String>)>,
}

/// Returns the digest of users and groups.
fn digest(accounts: &Accounts) -> Digest {
    let text = serde_json::to_vec(accounts);
    Digest::of(&text.expect("files have string keys"))
}

/// The users of an image with layers on top.
struct Above<'a> {
    below: Digest,
    stacks: &'a [&'a Stack],
}

impl Part for Above<'_> {
    fn name(&self) -> &'static str {
        "users"
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("users below", &self.below.to_string());
        for stack in self.stacks {
            key.field("facts above", &stack.above_digest.to_string());
            let trees = stack.parts.iter().map(|part| part.digest.to_string());
            key.list("trees", trees);
        }
    }
}

/// Goes up the layers: each may bring other files.
fn walk(
    context: &Context<'_>,
    mut accounts: Accounts,
    stacks: &[&Stack],
) -> Result<Walked, ActionError> {
    let mut lost = Vec::new();
    for (number, stack) in stacks.iter().enumerate() {
        let changes = stack.changes.get(context)?;
        let before = accounts.clone();
        for name in FILES {
            let Ok(path) = LayerPath::parse(name) else {
                continue;
            };
            match changes.find(&path).map(|entry| &entry.kind) {
                None if changes.hides(&path) => accounts.remove(name),
                None => {}
                Some(Kind::File { attrs, content }) => match text(content) {
                    Some(text) => accounts.put(
                        name,
                        AccountFile {
                            mode: attrs.mode,
                            uid: attrs.owner.uid,
                            gid: attrs.owner.gid,
                            text,
                        },
                    ),
                    None => return Ok(Walked::default()),
                },
                // Where a link leads is not followed.
                Some(_) => return Ok(Walked::default()),
            }
        }
        let gone = before.lost(&accounts);
        if !gone.is_empty() && accounts.file(PASSWD).is_some() {
            lost.push((number, gone));
        }
    }
    Ok(Walked {
        accounts: Some(accounts),
        lost,
    })
}

/// Returns a content that is a text of a fair size.
fn text(content: &Content) -> Option<String> {
    let size = usize::try_from(content.size).ok()?;
    (content.size <= MOST).then_some(())?;
    let mut bytes = Vec::new();
    content.append(&mut bytes, 0, size).ok()?;
    String::from_utf8(bytes).ok()
}

/// Users and groups that a layer adds.
#[derive(Debug, Default)]
pub(super) struct NewPeople {
    /// The groups, with their places.
    pub(super) groups: Vec<(NewGroup, Origin)>,
    /// The users, with their places.
    pub(super) users: Vec<(NewUser, Origin)>,
    /// The names of users whose home folder is not made.
    pub(super) homeless: Vec<String>,
    /// The modes of home folders, where the manifest says them.
    pub(super) modes: BTreeMap<LayerPath, u16>,
    /// The modification time of all entries.
    pub(super) mtime: i64,
}

/// The mode of a home folder that the manifest says nothing else of.
const HOME: u16 = 0o700;

impl NewPeople {
    /// Tells whether nobody is added.
    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }

    /// Returns the place of the first of them.
    pub(super) fn origin(&self) -> Option<&Origin> {
        let users = self.users.iter().map(|(_, origin)| origin);
        let groups = self.groups.iter().map(|(_, origin)| origin);
        users.chain(groups).next()
    }

    /// Returns the home folders of those who say where they live, or who are new.
    pub(super) fn homes(&self) -> BTreeSet<LayerPath> {
        let users = self.users.iter().map(|(user, _)| user);
        let users = users.filter(|user| !self.homeless.contains(&user.name));
        let homes = users.filter_map(NewUser::home);
        homes.filter_map(|it| LayerPath::parse(&it).ok()).collect()
    }

    /// Adds all that they are to a key.
    pub(super) fn write_key(&self, key: &mut dyn KeyWriter) {
        for (group, _) in &self.groups {
            key.field("group", &format!("{} {}", group.name, group.gid));
        }
        for (user, _) in &self.users {
            let id = |id: Option<u32>| id.map_or("-".to_owned(), |id| id.to_string());
            let text = |text: &Option<String>| text.clone().unwrap_or("-".to_owned());
            let words = [
                user.name.clone(),
                id(user.uid),
                id(user.gid),
                text(&user.home),
                text(&user.shell),
                text(&user.comment),
                user.groups.join(","),
            ];
            key.field("user", &words.join(":"));
        }
        key.list("no home", &self.homeless);
        for (path, mode) in &self.modes {
            key.field("home mode", &format!("/{path} {mode:04o}"));
        }
    }

    /// Adds them to the users below; `None` if nobody is added.
    fn added(&self, below: &Accounts) -> Result<Option<Added>, ActionError> {
        if self.is_empty() {
            return Ok(None);
        }
        let groups: Vec<NewGroup> = self.groups.iter().map(|(it, _)| it.clone()).collect();
        let users: Vec<NewUser> = self.users.iter().map(|(it, _)| it.clone()).collect();
        let near =
            |name: &str, names: &[&str]| suggest(name, names.iter().copied()).map(str::to_owned);
        let added = below.add(&groups, &users, &near);
        added.map(Some).map_err(|errors| self.refused(errors))
    }

    /// Says what clashes.
    fn refused(&self, errors: Vec<AddError>) -> ActionError {
        let origin = |who: &Who| match who {
            Who::User(number) => self.users.get(*number).map(|(_, origin)| origin.clone()),
            Who::Group(number) => self.groups.get(*number).map(|(_, origin)| origin.clone()),
        };
        let origins: Vec<Origin> = errors.iter().filter_map(|it| origin(&it.who)).collect();
        let mut errors = errors.into_iter();
        let Some(first) = errors.next() else {
            return ActionError::bug("nobody is refused");
        };
        let mut error = ActionError::new("imgdecl::users::clash", first.message).help(first.help);
        error.causes = errors.map(|it| it.message).collect();
        error.at_all(origins)
    }

    /// Makes the tree: the files with those who were added, and their homes.
    fn tree(&self, below: &Accounts, added: &Added) -> Result<Tree, ActionError> {
        let mut tree = Tree::default();
        let first = self.users.first().map(|(_, origin)| origin);
        let mut put = |path: LayerPath, kind: Kind| {
            let entry = Entry {
                mtime: self.mtime,
                ..Entry::new(kind)
            };
            tree.insert(path, entry).map_err(|clash| {
                let error = explain_clash(&clash);
                first.map_or(error.clone(), |origin| error.at(origin))
            })
        };
        let path = |text: &str| {
            let path = LayerPath::parse(text);
            path.map_err(|error| ActionError::of("imgdecl::value::path", &error))
        };
        for (name, file) in added.accounts.iter() {
            // What stays as it is below is not brought again.
            if below.file(name) == Some(file) {
                continue;
            }
            let attrs = Attrs {
                mode: file.mode,
                owner: Owner {
                    uid: file.uid,
                    gid: file.gid,
                },
            };
            let content = Content::bytes(file.text.as_bytes());
            put(path(name)?, Kind::File { attrs, content })?;
        }
        let homes = added.homes.iter();
        for home in homes.filter(|home| !self.homeless.contains(&home.name)) {
            let at = path(&home.path)?;
            if at.is_root() {
                continue;
            }
            let attrs = Attrs {
                mode: self.modes.get(&at).copied().unwrap_or(HOME),
                owner: Owner {
                    uid: home.uid,
                    gid: home.gid,
                },
            };
            // A folder below that was given to somebody stays as it is, as with `useradd`.
            let firm = self.modes.contains_key(&at);
            put(at, Kind::Folder { attrs, firm })?;
        }
        Ok(tree)
    }
}

/// The users of an image with those that a layer adds.
pub(super) struct People {
    /// All of them.
    accounts: Accounts,
    /// What the layer brings for those that it adds.
    pub(super) tree: Option<Tree>,
}

impl People {
    /// Finds the users below, and adds others.
    pub(super) fn new(
        below: &UsersBelow,
        new: &NewPeople,
        origin: &Origin,
        context: &Context<'_>,
        inputs: &[Product],
    ) -> Result<Self, ActionError> {
        let Some(mut accounts) = below.find(context, inputs, true)?.accounts else {
            let message = "the users of the image below are not known";
            return Err(ActionError::new("imgdecl::users::unreadable", message)
                .at(origin)
                .help(UNREADABLE));
        };
        let mut tree = None;
        if let Some(added) = new.added(&accounts)? {
            tree = Some(new.tree(&accounts, &added)?);
            for (path, file) in added.accounts.iter() {
                accounts.put(path, file.clone());
            }
        }
        Ok(Self { accounts, tree })
    }

    /// Returns the numbers of an owner that is written as names.
    pub(super) fn owner(&self, name: &str, origin: &Origin) -> Result<Owner, ActionError> {
        let user = self.accounts.resolve(name);
        let user = user.map_err(|error| unknown(&error, "imgdecl::users::unknown").at(origin))?;
        Ok(Owner {
            uid: user.uid,
            gid: user.gid,
        })
    }
}

/// Says that an image has no such user or group, and what can be done.
pub(super) fn unknown(error: &UserError, code: &'static str) -> ActionError {
    let (kind, name) = (error.kind(), error.name());
    let near = suggest(name, error.have().iter().map(String::as_str));
    let made = match kind {
        "group" => format!("groups = {{ {name} = {{ gid = 2000 }} }}"),
        _ => format!("users = {{ {name} = {{ uid = 1000 }} }}"),
    };
    let help = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("`{made}` in a `files` layer makes one; a number needs no name"),
    };
    ActionError::of(code, error).help(help)
}
