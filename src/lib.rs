//! imgdecl builds container images from one TOML file. No daemon, no Dockerfile; the same bytes on every machine.
//!
//! ```text
//! image.toml ──spec──▶ Spec ──pin──▶ Lock ──plan──▶ Graph ──exec──▶ Products ──output──▶ layout │ archive │ registry │ daemon
//!                          rules pin what   rules lower     actions run,
//!                          the lock lacks   their targets   cached by key
//! ```
//!
//! # The map
//!
//! A module uses only modules on lower floors; modules of one floor do not know each other. `tests/floors.rs` holds this
//! table, and fails with the offending line.
//!
//! | floor | module | holds | must not know |
//! |---|---|---|---|
//! | 0 | [`oci`] | digests, descriptors, platforms, references, configs, manifests, indexes: plain data | files, network, TOML |
//! | 0 | [`tar`] | the one reader of tar: entries, their contents, and what odd headers mean | folders, compression, images |
//! | 0 | [`shown`] | what may be shown of texts from outside: no controls, no credentials | where texts come from |
//! | 0 | [`accounts`] | users and groups as the files of an image name them: numbers for names, and lines for new ones | the host's users, layers |
//! | 0 | [`program`] | what a script or an ELF file is run by, and for which processor it is | files, images |
//! | 1 | [`store`] | records and blobs, as traits; the cache folder: both, stamps of host files, locks, gc | rules, layers, the graph |
//! | 1 | [`layer`] | format 1: trees, facts, changesets, tar, segments, compressors, and reading them | rules, the graph, network |
//! | 2 | [`graph`] | actions, recorded parts, keys, products, origins, the ports to the network and to what runs commands | how anything is run |
//! | 2 | [`python`] | targets, requirements, the resolver, what wheels become in layers, and the wheels of projects | rules, HTTP, the graph |
//! | 2 | [`source`] | images on disk to build on: layouts and archives | rules, the graph |
//! | 3 | [`spec`] | `image.toml`: documents, variables, workspaces, problems with their places | any concrete rule |
//! | 3 | [`lock`] | `image.lock`: sealed entries of what names were resolved to, by rule | any concrete rule, and what its entries say |
//! | 4 | [`rule`] | one file for each rule: base, files, tar, http, pip, command, image, group; the traits of ecosystems | threads, HTTP, the terminal |
//! | 5 | [`pin`] | brings `image.lock` up to date, by the rules and through the ports | threads, HTTP |
//! | 5 | [`plan`] | a spec becomes a graph, for targets and platforms | threads, HTTP |
//! | 6 | [`exec`] | coordinator, jobs, what is remembered, events | rules, TOML, HTTP, the terminal |
//! | 6 | [`net`] | exchanges with hosts: connections, TLS, proxies, time limits, tries | what is asked: registries, rules |
//! | 7 | [`daemon`] | Docker and podman on this machine: their sockets, and loading images into them | rules, exec, the store |
//! | 7 | [`index`] | package index client: pages, metadata, wheels, files by URL, credentials | rules, exec |
//! | 7 | [`registry`] | registry client: credentials, auth, pull, push, mirrors, referrers | rules, exec |
//! | 7 | [`runtime`] | layers as files again: the applier, bundles for OCI runtimes, and what changed in a folder | rules, exec, the graph, registries |
//! | 8 | [`output`] | one file for each sink: layout, archives, registries, Docker and podman | rules, exec |
//! | 9 | [`work`] | build, lock, push, plan, verify, diff, inspect, unpack, run: values and events | arguments, the environment, the terminal, exit codes |
//! | 10 | [`cli`], [`ui`] | arguments, commands, reports, progress, exit codes | nothing may use them |
//!
//! # How a layer comes about
//!
//! A layer rule lowers to a node that makes a *tree*: what the rule brings, and nothing of the host. A *stack* puts the
//! tree onto the facts below: the base's folders and symlinks, and those of earlier layers. A *layer* writes the stack's
//! changes: it is cached by the digest of the tree, the facts that it used, and the compressor. So the tree of files that
//! were touched but not changed ends the rebuild, and a tree below `/app` is one layer on every base.
//!
//! A product is known by its record; its bytes are read by whoever needs them, and only then. Where they are gone, the
//! node that made them runs again.
//!
//! # Invariants
//!
//! 1. Only `layer` writes tar and compresses.
//! 2. A [`layer::Tree`] cannot express a host fact.
//! 3. Only `graph` decides what a key contains; its text and its hash are two readings of one list. All that is remembered
//!    lies under such a key, and only `exec` looks it up. A key holds texts that are written for it, with a version, and
//!    neither what Rust prints for debugging nor the program's version.
//! 4. A blob enters the store only under its own verified digest, and is hashed again by whoever reads it there. What
//!    is linked out of it is trusted by its stamp. Its path stays in the store.
//! 5. `exec` knows no rule; a rule knows no thread.
//! 6. Only `net` opens sockets.
//! 7. Only `cli` and `ui` print, read the environment, or exit. An output goes to stdout through what `cli` hands down.
//! 8. An error of a manifest has a span; an error of a run has an origin.
//! 9. Equal input gives an equal plan, and a plan can be printed.
//! 10. Nothing from a network, an archive or a layout is trusted before its digest, its size and its paths are checked.

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests write and damage files on purpose"
    )
)]

// The registry of the integration tests serves unit tests, too.
#[cfg(test)]
extern crate self as imgdecl;

mod accounts;
pub mod cli;
mod daemon;
mod exec;
mod graph;
mod index;
mod layer;
mod lock;
mod net;
mod oci;
mod output;
mod pin;
mod plan;
mod program;
mod python;
mod registry;
mod rule;
mod runtime;
mod shown;
mod source;
mod spec;
mod store;
mod tar;
mod ui;
mod work;

/// The parts that tests and benchmarks drive by themselves, without the program. They are the only public items besides
/// [`cli::main`]: whatever else is `pub` in a module is for its neighbours alone, and rustc tells what nobody uses. No
/// promise to anybody else.
#[doc(hidden)]
pub mod parts {
    /// Documents and digests.
    pub mod oci {
        pub use crate::oci::{
            Compression, Config, Descriptor, Digest, Index, Manifest, MediaType, Platform,
            Reference,
        };
    }

    /// The reader of tar.
    pub mod tar {
        pub use crate::tar::{Entries, Entry, Input, Kind, TarError};
    }

    /// Facts of layers, and decompressors.
    pub mod layer {
        pub use crate::layer::{
            Anew, Facts, FactsBuilder, Kind, LayerPath, Owner, ReadError, Tree, decoder, detect,
            plain_header, resolve, write,
        };
    }

    /// What changed in a folder.
    #[cfg(target_os = "linux")]
    pub mod runtime {
        pub use crate::runtime::Limits;
        pub use crate::runtime::changed;
    }

    /// The cache.
    pub mod store {
        pub use crate::store::{Blob, Blobs, Health, Store, StoreError};
    }

    /// The ports to package indexes.
    pub mod graph {
        pub use crate::graph::{
            ActionError, ChosenIndex, IndexChoice, PackageError, PackageFile, Packages,
            WantedWheel, WheelHome,
        };
    }

    /// Readers of what Python projects want.
    pub mod python {
        pub use crate::python::{
            Asked, Files, Metadata, Place, Source, Target, UvWanted, WheelName, hashed, pylock,
            pyproject, read, uv_lock,
        };

        /// Projects as wheels.
        pub mod project {
            pub use crate::python::project::{Folder, Kind, Listed, Part, Wheel, wheel};
        }

        /// Wheels as layers.
        pub mod wheel {
            pub use crate::python::wheel::{
                Bytes, Entry, Expected, Problem, Scheme, WheelError, directory, install,
                read_metadata,
            };
        }
    }

    /// Manifests.
    pub mod spec {
        pub use crate::spec::{Host, Spec};
    }

    /// The lock.
    pub mod lock {
        pub use crate::lock::Lock;
    }

    /// Rules, by name.
    pub mod rule {
        pub use crate::rule::{RULES, Rule, names};
    }

    /// Plans.
    pub mod plan {
        pub use crate::plan::{Plan, PlanError, Request, plan, render};
    }

    /// Exchanges with hosts.
    pub mod net {
        pub use crate::net::{Direction, Ended, Limits, Monitor, Proxies, Transfer};
    }

    /// The client of package indexes.
    pub mod index {
        pub use crate::index::{Credentials, Indexes, Setup, Source};
    }

    /// The client of registries.
    pub mod registry {
        pub use crate::registry::{
            Blobs, Client, Config, Credentials, Direction, Ended, Limits, Monitor, Places, Proxies,
            PushImage, PushManifest, Pushed, RegistryError, Setup, Transfer,
        };
    }
}
