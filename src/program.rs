//! Programs as kernels see them: what a script or an ELF file is run by, and for which processor it is. Looks at bytes,
//! wherever they are. Knows nothing of images.

/// How much of a program's head is looked at, in bytes. Kernels look at less of a script's.
pub(crate) const HEAD: usize = 4096;
/// How many segments of a program are looked at.
const MAX_SEGMENTS: usize = 64;

/// Reads a part of a file: fills the bytes from a place on, or says that it cannot.
pub(crate) type ReadAt<'a> = &'a mut dyn FnMut(&mut [u8], u64) -> Option<()>;

/// Returns the interpreter that the head of a script names: CR is a part of the name, and is written as `\r`.
pub(crate) fn shebang(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?;
    let line = line.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    // A script of Windows ends its lines otherwise, and names a file that ends in CR.
    let line = line.trim_matches([' ', '\t']);
    let name = line.split([' ', '\t']).next()?;
    Some(name.replace('\r', "\\r")).filter(|name| !name.is_empty())
}

/// Reads a little-endian number.
fn word(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + len)?.iter().rev();
    Some(bytes.fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

/// Returns the architecture, as image configs call it, that an ELF file is for; `None` where that is not told by its head,
/// or is of no use to anybody.
pub(crate) fn architecture(head: &[u8]) -> Option<&'static str> {
    if !head.starts_with(b"\x7fELF") || head.get(5) != Some(&1) {
        return None;
    }
    Some(match (word(head, 18, 2)?, head.get(4)?) {
        (62, 2) => "amd64",
        (3, 1) => "386",
        (183, 2) => "arm64",
        (40, 1) => "arm",
        (243, 2) => "riscv64",
        (258, 2) => "loong64",
        (21, 2) => "ppc64le",
        _ => return None,
    })
}

/// Returns the loader that an ELF file names in its PT_INTERP (little-endian alone, as all platforms of today are).
pub(crate) fn loader(head: &[u8], read_at: ReadAt<'_>) -> Option<String> {
    if !head.starts_with(b"\x7fELF") || head.get(5) != Some(&1) {
        return None;
    }
    let is_wide = head.get(4) == Some(&2);
    let (table, size, count) = match is_wide {
        true => (word(head, 32, 8)?, word(head, 54, 2)?, word(head, 56, 2)?),
        false => (word(head, 28, 4)?, word(head, 42, 2)?, word(head, 44, 2)?),
    };
    let count = usize::try_from(count).ok()?.min(MAX_SEGMENTS);
    for index in 0..count as u64 {
        let mut segment = [0; 56];
        let part = &mut segment[..if is_wide { 56 } else { 32 }];
        let at = index.checked_mul(size)?.checked_add(table)?;
        read_at(part, at)?;
        // PT_INTERP.
        if word(part, 0, 4)? != 3 {
            continue;
        }
        let (at, len) = match is_wide {
            true => (word(part, 8, 8)?, word(part, 32, 8)?),
            false => (word(part, 4, 4)?, word(part, 16, 4)?),
        };
        let mut name = vec![0; usize::try_from(len).ok().filter(|len| *len <= HEAD)?];
        read_at(&mut name, at)?;
        let name = name.split(|byte| *byte == 0).next()?;
        return std::str::from_utf8(name).ok().map(str::to_owned);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_name_what_runs_them() {
        for (head, name) in [
            ("#!/bin/sh\n", Some("/bin/sh")),
            ("#! /usr/bin/env python3\n", Some("/usr/bin/env")),
            ("#!/bin/sh\r\necho\r\n", Some("/bin/sh\\r")),
            ("#!\n", None),
            ("/bin/sh\n", None),
            ("", None),
        ] {
            assert_eq!(shebang(head.as_bytes()).as_deref(), name, "{head}");
        }
    }

    #[test]
    fn programs_are_for_one_processor() {
        let head = |class: u8, machine: u8| {
            let mut head = b"\x7fELF\x00\x01".to_vec();
            head.resize(20, 0);
            (head[4], head[18]) = (class, machine);
            head
        };
        assert_eq!(architecture(&head(2, 62)), Some("amd64"));
        assert_eq!(architecture(&head(2, 183)), Some("arm64"));
        assert_eq!(architecture(&head(1, 40)), Some("arm"));
        assert_eq!(architecture(&head(2, 1)), None);
        assert_eq!(architecture(b"\x7fELF\x02\x01"), None);
        assert_eq!(architecture(b"#!/bin/sh"), None);
    }
}
