//! Versions that an index has none of, and that are easy to get wrong: local, post and pre-releases of wheels in a folder.

use std::fs;

use super::hosted::{Platform, chosen, compile, pins};
use crate::support::index::Wheel;
use crate::support::{Space, pip_and_uv};

const NAME: &str = "imgdecl-local-versions";

#[test]
fn local_versions_are_chosen_as_uv_does() {
    let Some((pip, uv)) = pip_and_uv() else {
        return;
    };
    let space = Space::new();
    for version in [
        "0.9+cpu",
        "1.0",
        "1.0+cpu",
        "1.0+cu121",
        "1.0.post1",
        "1.1a1",
        "1.1+cpu",
        "1.2rc1+cpu",
        "2.0.dev3",
    ] {
        let wheel = Wheel::new(NAME, version, 1, 1);
        space.write(&format!("wheels/{}", wheel.file), &wheel.bytes);
    }
    let platform = Platform::new("3.11", "glibc 2.28", "amd64");
    let mut answers = Vec::new();
    for bounds in [
        "",
        "==0.9",
        "==1.0",
        "==1.0+cpu",
        "==1.0+cu118",
        "===1.0",
        "==1.0.*",
        "!=1.1",
        "!=1.1+cpu",
        "<=1.0",
        "<1.0",
        "<1.0.post1",
        ">1.0",
        ">1.0,<1.1",
        ">1.0.post1,<1.1",
        ">=1.0,<1.1",
        "~=1.0",
        "~=1.0.0",
        ">1.1",
        ">=1.2rc1",
        ">=2.0.dev1",
        "<=1.0,!=1.0+cu121",
        ">1.1,<2",
    ] {
        space.write("requirements.txt", format!("{NAME}{bounds}\n"));
        space.write(
            "image.toml",
            "[pip.deps]\nrequirements = [\"requirements.txt\"]\nfind_links = [\"wheels\"]\npython = \"3.11\"\n\
             libc = \"glibc 2.28\"\n\n[image.app]\nbase = \"scratch\"\nlayers = [\"deps\"]\nplatforms = [\"linux/amd64\"]\n",
        );
        let _ = fs::remove_file(space.path().join("image.lock"));
        let output = space.run(&["lock"]);
        let ours = match output.status {
            0 => {
                let lock = fs::read_to_string(space.path().join("image.lock")).expect("image.lock");
                Ok(chosen(&pins(&lock, "deps", &platform)))
            }
            _ => {
                assert!(
                    output.stderr.contains("imgdecl::pip::conflict"),
                    "{}",
                    output.stderr
                );
                Err(output.stderr)
            }
        };
        let args = ["requirements.txt", "--no-index", "--find-links", "wheels"];
        let theirs = compile(&space, (&uv, &pip), &platform, &args);
        assert_eq!(
            ours.as_ref().ok(),
            theirs.as_ref().ok(),
            "`{bounds}`\nimgdecl: {ours:?}\nuv: {theirs:?}"
        );
        answers.push(ours.is_ok());
    }
    assert!(
        answers.contains(&true) && answers.contains(&false),
        "{answers:?}"
    );
}
