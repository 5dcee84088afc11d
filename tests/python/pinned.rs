//! Real wheels, pinned by their digests, become layers whose diff_ids never change. With `IMGDECL_BLESS=pinned`, what they
//! are is written: an old diff_id that changes is a new format.

use std::fs;
use std::path::Path;

use super::hosted::{Platform, hosted, keep, pins, seed};
use crate::support::{Output, Space, pip_and_uv, validate};

#[test]
fn pinned_wheels_become_the_same_layers_for_ever() {
    if pip_and_uv().is_none() {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/pinned");
    let lock = fs::read_to_string(folder.join("image.lock")).expect("image.lock");
    let space = Space::new();
    for name in ["image.toml", "image.lock"] {
        fs::copy(folder.join(name), space.path().join(name)).expect(name);
    }
    let mut pinned = Vec::new();
    for arch in ["amd64", "arm64"] {
        let platform = Platform::new("3.11", "glibc 2.28", arch);
        for target in ["services-deps", "flask-deps", "transcripts-deps"] {
            pinned.extend(pins(&lock, target, &platform));
        }
    }
    seed(space.cache(), |path| {
        pinned
            .iter()
            .any(|pin| path.ends_with(&format!("/{}", pin.file)))
    });
    let mut build = space.command(&["build", "--locked"]);
    let built = Output::of(hosted(&mut build).env("IMGDECL_CACHE_DIR", space.cache()));
    assert_eq!(built.status, 0, "{}", built.stderr);
    keep(space.cache(), pinned.iter());
    let mut found = String::new();
    for (name, image) in validate(&space.path().join("imgdecl-out")).images {
        for platform in image.platforms {
            for layer in platform.layers {
                found.push_str(&format!("{name} {} {}\n", platform.platform, layer.diff_id));
            }
        }
    }
    let file = folder.join("diff_ids");
    if std::env::var("IMGDECL_BLESS").is_ok_and(|it| it == "pinned") {
        fs::write(&file, &found).expect("diff_ids");
    }
    assert_eq!(found, fs::read_to_string(&file).expect("diff_ids"));
}
