//! What was compiled in a wheel: which machine and which C library its files need, by their ELF headers.
//!
//! A tag such as `manylinux_2_28_x86_64` says that. `linux_x86_64`, which builds at home give, says nothing of a C library: the
//! wheel runs where it was built, and perhaps nowhere else.

use std::path::Path;

use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{Endianness, FileKind, elf};

use super::archive::Archive;
use super::{Problem, WheelError};
use crate::layer::Tick;
use crate::oci::Digest;
use crate::python::{Libc, Target, WheelName};

/// How large a file may be that is looked into, in bytes.
const LARGEST: u64 = 512 << 20;

/// How many files that do not fit are told.
const TOLD: usize = 5;

/// Tells whether nothing but what is in a wheel says where it runs: all its platform tags are plain `linux_…`.
pub(crate) fn is_silent(name: &WheelName) -> bool {
    !name.platform.is_empty() && name.platform.iter().all(|tag| tag.starts_with("linux_"))
}

/// Makes sure that what was compiled in a wheel can be loaded on a target.
///
/// # Errors
/// When the wheel cannot be read, when some file of it cannot be loaded there, or when `tick` returns false.
pub(crate) fn check_compiled(
    wheel: &Path,
    file: &str,
    digest: Digest,
    target: &Target,
    tick: Tick<'_>,
) -> Result<(), WheelError> {
    unfit(wheel, file, digest, target, tick)
        .and_then(|unfit| match unfit.is_empty() {
            true => Ok(()),
            false => Err(Problem::Compiled {
                unfit,
                target: target.name(),
            }),
        })
        .map_err(|problem| WheelError {
            wheel: file.to_owned(),
            problem,
        })
}

/// Lists the files of a wheel that cannot be loaded on a target, each with what it needs.
fn unfit(
    wheel: &Path,
    file: &str,
    digest: Digest,
    target: &Target,
    tick: Tick<'_>,
) -> Result<Vec<String>, Problem> {
    let archive = Archive::open(wheel, file, digest)?;
    let mut unfit = Vec::new();
    for member in archive
        .members
        .iter()
        .filter(|it| is_loaded(it.path.as_str()))
    {
        if member.size > LARGEST || archive.start(member, 4)? != elf::ELFMAG {
            continue;
        }
        let bytes = archive.read(member, LARGEST)?;
        if !tick(bytes.len() as u64) {
            return Err(Problem::Stopped);
        }
        if let Some(needs) = Compiled::read(&bytes).and_then(|it| it.unfit(target)) {
            unfit.push(format!("`{}` {needs}", member.path));
        }
    }
    let more = unfit.len().saturating_sub(TOLD);
    unfit.truncate(TOLD);
    if more > 0 {
        unfit.push(format!("and {more} more files"));
    }
    Ok(unfit)
}

/// Tells whether a file is there to be loaded or run, and not a datum that happens to be compiled.
fn is_loaded(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.ends_with(".so") || name.contains(".so.") || path.contains(".data/scripts/")
}

/// What a compiled file says of itself.
#[derive(PartialEq, Eq, Default, Debug)]
struct Compiled {
    /// The number of the machine.
    machine: u16,
    /// Whether it is of 64 bits.
    is_64: bool,
    /// Whether its least byte comes first.
    is_little: bool,
    /// The highest version of glibc's symbols that it needs: the second number, and the version as it is written.
    glibc: Option<(u32, String)>,
    /// The library or the loader of glibc that it names.
    glibc_file: Option<String>,
    /// The library or the loader of musl that it names.
    musl_file: Option<String>,
}

impl Compiled {
    /// Reads a file; `None` if it is none that can be loaded.
    fn read(bytes: &[u8]) -> Option<Self> {
        match FileKind::parse(bytes).ok()? {
            FileKind::Elf32 => Self::read_as::<elf::FileHeader32<Endianness>>(bytes, false),
            FileKind::Elf64 => Self::read_as::<elf::FileHeader64<Endianness>>(bytes, true),
            _ => None,
        }
    }

    fn read_as<H: FileHeader<Endian = Endianness>>(bytes: &[u8], is_64: bool) -> Option<Self> {
        let header = H::parse(bytes).ok()?;
        let endian = header.endian().ok()?;
        if !matches!(header.e_type(endian), elf::ET_DYN | elf::ET_EXEC) {
            return None;
        }
        let mut found = Self {
            machine: header.e_machine(endian).0,
            is_64,
            is_little: endian == Endianness::Little,
            ..Self::default()
        };
        for segment in header.program_headers(endian, bytes).ok()? {
            if let Ok(Some(path)) = segment.interpreter(endian, bytes) {
                found.names(path);
            }
        }
        let sections = header.sections(endian, bytes).ok()?;
        if let Ok(Some((entries, link))) = sections.dynamic(endian, bytes) {
            let strings = sections.strings(endian, bytes, link).ok()?;
            for entry in entries {
                if entry.tag(endian) == elf::DT_NEEDED
                    && let Ok(name) = entry.string(endian, strings)
                {
                    found.names(name);
                }
            }
        }
        if let Ok(Some((mut libraries, link))) = sections.gnu_verneed(endian, bytes) {
            let strings = sections.strings(endian, bytes, link).ok()?;
            while let Ok(Some((_, mut versions))) = libraries.next() {
                while let Ok(Some(version)) = versions.next() {
                    if let Ok(name) = version.name(endian, strings) {
                        found.needs(name);
                    }
                }
            }
        }
        Some(found)
    }

    /// Takes the name of a library or a loader.
    fn names(&mut self, name: &[u8]) {
        let name = String::from_utf8_lossy(name);
        let name = name.rsplit('/').next().unwrap_or(&name);
        let slot = match name {
            "libc.so.6" => &mut self.glibc_file,
            "libc.so" => &mut self.musl_file,
            _ if name.starts_with("ld-linux") || name.starts_with("ld64.so") => {
                &mut self.glibc_file
            }
            _ if name.starts_with("libc.musl-") || name.starts_with("ld-musl-") => {
                &mut self.musl_file
            }
            _ => return,
        };
        slot.get_or_insert_with(|| name.to_owned());
    }

    /// Takes the name of a version of symbols that is needed.
    fn needs(&mut self, name: &[u8]) {
        let name = String::from_utf8_lossy(name);
        let minor = match name.strip_prefix("GLIBC_2.") {
            Some(rest) => rest.split('.').next().and_then(|it| it.parse().ok()),
            // Relocations in a form that this version of the loader was the first to know.
            None if name == "GLIBC_ABI_DT_RELR" => Some(36),
            None => None,
        };
        if let Some(minor) = minor
            && self.glibc.as_ref().is_none_or(|(known, _)| *known < minor)
        {
            self.glibc = Some((minor, name.into_owned()));
        }
    }

    /// Says what the file needs that a target has not.
    fn unfit(&self, target: &Target) -> Option<String> {
        if let Some((machine, is_64, is_little)) = machine(target.machine())
            && (machine, is_64, is_little) != (self.machine, self.is_64, self.is_little)
        {
            let own = words(self.machine, self.is_64);
            return Some(format!("is for {own}, and not for {}", target.machine()));
        }
        match target.libc {
            Libc::Glibc { minor } => match (&self.glibc, &self.musl_file) {
                (Some((needed, name)), _) if *needed > minor => {
                    Some(format!("needs glibc 2.{needed} (`{name}`)"))
                }
                (None, Some(name)) => Some(format!("needs musl (`{name}`)")),
                _ => None,
            },
            Libc::Musl { .. } => {
                let version = self.glibc.as_ref().map(|(_, name)| name);
                let name = version.or(self.glibc_file.as_ref())?;
                Some(format!("needs glibc (`{name}`)"))
            }
        }
    }
}

/// Returns number, width and order of bytes of a machine, by its name in wheel tags.
fn machine(name: &str) -> Option<(u16, bool, bool)> {
    Some(match name {
        "x86_64" => (elf::EM_X86_64.0, true, true),
        "aarch64" => (elf::EM_AARCH64.0, true, true),
        "i686" => (elf::EM_386.0, false, true),
        name if name.starts_with("armv") => (elf::EM_ARM.0, false, true),
        "ppc64le" => (elf::EM_PPC64.0, true, true),
        "s390x" => (elf::EM_S390.0, true, false),
        "riscv64" => (elf::EM_RISCV.0, true, true),
        "loongarch64" => (elf::EM_LOONGARCH.0, true, true),
        _ => return None,
    })
}

/// Says what machine a number is.
fn words(number: u16, is_64: bool) -> String {
    let all = [
        "x86_64",
        "aarch64",
        "i686",
        "armv7l",
        "ppc64le",
        "s390x",
        "riscv64",
        "loongarch64",
    ];
    let known = all.iter().find(|name| {
        machine(name).is_some_and(|(own, own_64, _)| (own, own_64) == (number, is_64))
    });
    known.map_or_else(|| format!("machine {number}"), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shared library of 64 bits for `machine`, with the needed libraries and versions of glibc's symbols.
    fn library(machine: u16, needed: &[&str], versions: &[&str]) -> Vec<u8> {
        let mut strings = vec![0];
        let mut text = |text: &str| {
            let at = strings.len() as u32;
            strings.extend_from_slice(text.as_bytes());
            strings.push(0);
            at
        };
        let mut dynamic = Vec::new();
        for name in needed {
            dynamic.extend(1u64.to_le_bytes());
            dynamic.extend(u64::from(text(name)).to_le_bytes());
        }
        dynamic.extend([0; 16]);
        let mut verneed = Vec::new();
        if !versions.is_empty() {
            verneed.extend(1u16.to_le_bytes());
            verneed.extend((versions.len() as u16).to_le_bytes());
            verneed.extend(text("libc.so.6").to_le_bytes());
            verneed.extend(16u32.to_le_bytes());
            verneed.extend(0u32.to_le_bytes());
        }
        for (index, version) in versions.iter().enumerate() {
            verneed.extend([0; 8]);
            verneed.extend(text(version).to_le_bytes());
            let next = if index + 1 < versions.len() { 16u32 } else { 0 };
            verneed.extend(next.to_le_bytes());
        }
        let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        out.extend(3u16.to_le_bytes());
        out.extend(machine.to_le_bytes());
        out.extend(1u32.to_le_bytes());
        out.extend([0; 16]);
        let bodies = [
            (3u32, &strings, 0u32),
            (6, &dynamic, 1),
            (0x6fff_fffe, &verneed, 1),
        ];
        let mut at = 64u64;
        let table = at + bodies.iter().map(|it| it.1.len() as u64).sum::<u64>();
        out.extend(table.to_le_bytes());
        out.extend(0u32.to_le_bytes());
        for number in [64u16, 56, 0, 64, 4, 1] {
            out.extend(number.to_le_bytes());
        }
        bodies.iter().for_each(|(_, body, _)| out.extend(*body));
        out.extend([0; 64]);
        for (kind, body, link) in bodies {
            out.extend([0; 4]);
            out.extend(kind.to_le_bytes());
            out.extend([0; 16]);
            out.extend(at.to_le_bytes());
            out.extend((body.len() as u64).to_le_bytes());
            out.extend(link.to_le_bytes());
            let info = if kind == 0x6fff_fffe {
                u32::from(!versions.is_empty())
            } else {
                0
            };
            out.extend(info.to_le_bytes());
            out.extend([0; 16]);
            at += body.len() as u64;
        }
        out
    }

    fn target(arch: &str, libc: &str) -> Target {
        Target {
            arch: arch.to_owned(),
            libc: libc.parse().unwrap(),
            python: "3.11".parse().unwrap(),
        }
    }

    fn needs(bytes: &[u8], arch: &str, libc: &str) -> Option<String> {
        Compiled::read(bytes).unwrap().unfit(&target(arch, libc))
    }

    #[test]
    fn libraries_of_glibc_need_its_version() {
        let versions = ["GLIBC_2.2.5", "GLIBC_2.38", "GLIBC_2.14", "GLIBC_PRIVATE"];
        let bytes = library(62, &["libm.so.6", "libc.so.6"], &versions);
        assert_eq!(needs(&bytes, "amd64", "glibc 2.38"), None);
        let old = needs(&bytes, "amd64", "glibc 2.36").unwrap();
        assert_eq!(old, "needs glibc 2.38 (`GLIBC_2.38`)");
        let musl = needs(&bytes, "amd64", "musl 1.2").unwrap();
        assert_eq!(musl, "needs glibc (`GLIBC_2.38`)");
        let arm = needs(&bytes, "arm64", "glibc 2.38").unwrap();
        assert_eq!(arm, "is for x86_64, and not for aarch64");
        let plain = library(62, &["libc.so.6"], &[]);
        assert_eq!(needs(&plain, "amd64", "glibc 2.17"), None);
        let musl = needs(&plain, "amd64", "musl 1.2").unwrap();
        assert_eq!(musl, "needs glibc (`libc.so.6`)");
        let packed = library(183, &["libc.so.6"], &["GLIBC_ABI_DT_RELR", "GLIBC_2.17"]);
        let old = needs(&packed, "arm64", "glibc 2.35").unwrap();
        assert_eq!(old, "needs glibc 2.36 (`GLIBC_ABI_DT_RELR`)");
    }

    #[test]
    fn libraries_of_musl_need_musl() {
        for name in ["libc.musl-x86_64.so.1", "libc.so"] {
            let bytes = library(62, &[name], &[]);
            assert_eq!(needs(&bytes, "amd64", "musl 1.2"), None);
            let other = needs(&bytes, "amd64", "glibc 2.36").unwrap();
            assert_eq!(other, format!("needs musl (`{name}`)"));
        }
    }

    #[test]
    fn what_needs_no_library_runs_with_any() {
        let bytes = library(62, &[], &[]);
        assert_eq!(needs(&bytes, "amd64", "musl 1.1"), None);
        assert_eq!(needs(&bytes, "amd64", "glibc 2.17"), None);
    }

    #[test]
    fn rubbish_is_no_library() {
        let whole = library(62, &["libc.so.6"], &["GLIBC_2.38"]);
        for end in 0..whole.len() {
            // Whatever is cut off, there is an answer.
            let _ = Compiled::read(&whole[..end]).map(|it| it.unfit(&target("amd64", "musl 1.2")));
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            let _ = Compiled::read(&bytes).map(|it| it.unfit(&target("amd64", "musl 1.2")));
        }
        assert_eq!(Compiled::read(b"\x7fELF"), None);
    }

    #[test]
    fn only_plain_tags_are_silent() {
        for (file, expected) in [
            ("a-1-cp311-cp311-linux_x86_64.whl", true),
            ("a-1-cp311-cp311-manylinux_2_17_x86_64.whl", false),
            ("a-1-py3-none-any.whl", false),
        ] {
            assert_eq!(
                is_silent(&WheelName::parse(file).unwrap()),
                expected,
                "{file}"
            );
        }
    }
}
