//! Licence expressions in the one form that they are written in (SPDX; PEP 639).

/// The identifiers that are known, as they are written. Others are refused: their form would be a guess.
const KNOWN: &[&str] = &[
    "0BSD",
    "AFL-3.0",
    "AGPL-3.0-only",
    "AGPL-3.0-or-later",
    "Apache-1.1",
    "Apache-2.0",
    "Artistic-1.0",
    "Artistic-2.0",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-2-Clause-Patent",
    "BSD-3-Clause",
    "BSD-3-Clause-Clear",
    "BSD-4-Clause",
    "BSL-1.0",
    "BlueOak-1.0.0",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "CC-BY-NC-4.0",
    "CC-BY-NC-SA-4.0",
    "CC-BY-SA-3.0",
    "CC-BY-SA-4.0",
    "CC0-1.0",
    "CECILL-2.1",
    "CNRI-Python",
    "CPL-1.0",
    "ECL-2.0",
    "EPL-1.0",
    "EPL-2.0",
    "EUPL-1.1",
    "EUPL-1.2",
    "FSFAP",
    "GFDL-1.3-or-later",
    "GPL-1.0-or-later",
    "GPL-2.0-only",
    "GPL-2.0-or-later",
    "GPL-3.0-only",
    "GPL-3.0-or-later",
    "HPND",
    "ISC",
    "LGPL-2.0-only",
    "LGPL-2.0-or-later",
    "LGPL-2.1-only",
    "LGPL-2.1-or-later",
    "LGPL-3.0-only",
    "LGPL-3.0-or-later",
    "LPPL-1.3c",
    "MIT",
    "MIT-0",
    "MIT-CMU",
    "MPL-1.1",
    "MPL-2.0",
    "MS-PL",
    "NCSA",
    "ODbL-1.0",
    "OFL-1.1",
    "OSL-3.0",
    "PSF-2.0",
    "PostgreSQL",
    "Python-2.0",
    "Python-2.0.1",
    "UPL-1.0",
    "Unicode-3.0",
    "Unlicense",
    "W3C",
    "WTFPL",
    "X11",
    "ZPL-2.1",
    "Zlib",
];

/// The exceptions that are known.
const EXCEPTIONS: &[&str] = &[
    "Classpath-exception-2.0",
    "GCC-exception-3.1",
    "LLVM-exception",
    "Bootloader-exception",
    "Font-exception-2.0",
];

/// Returns an expression as it is written; `None` if something in it is not known, or out of order.
pub(super) fn canonical(text: &str) -> Option<String> {
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let mut out: Vec<String> = Vec::new();
    let (mut depth, mut wants, mut with) = (0_usize, true, false);
    for word in spaced.split_whitespace() {
        let upper = word.to_ascii_uppercase();
        match upper.as_str() {
            "(" if wants && !with => depth += 1,
            ")" if !wants => depth = depth.checked_sub(1)?,
            "AND" | "OR" if !wants => wants = true,
            "WITH" if !wants => (wants, with) = (true, true),
            _ if !wants => return None,
            _ => {
                out.push(identifier(word, if with { EXCEPTIONS } else { KNOWN })?);
                (wants, with) = (false, false);
                continue;
            }
        }
        out.push(upper);
    }
    (depth == 0 && !wants).then(|| out.join(" ").replace("( ", "(").replace(" )", ")"))
}

fn identifier(word: &str, known: &[&str]) -> Option<String> {
    let lower = word.to_ascii_lowercase();
    if let Some(name) = lower.strip_prefix("licenseref-") {
        let is_name = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'.');
        let is_good = !name.is_empty() && name.bytes().all(is_name);
        return is_good.then(|| format!("LicenseRef-{}", &word["licenseref-".len()..]));
    }
    let (plain, plus) = match lower.strip_suffix('+') {
        Some(plain) => (plain, "+"),
        None => (lower.as_str(), ""),
    };
    let found = known.iter().find(|it| it.eq_ignore_ascii_case(plain))?;
    Some(format!("{found}{plus}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form() {
        for (text, form) in [
            ("mit", "MIT"),
            ("mit aNd  gpl-3.0-OR-later", "MIT AND GPL-3.0-or-later"),
            ("( apache-2.0 or Mit )", "(Apache-2.0 OR MIT)"),
            (
                "Apache-2.0 with llvm-exception",
                "Apache-2.0 WITH LLVM-exception",
            ),
            ("licenseref-My.Own", "LicenseRef-My.Own"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(form));
        }
        for text in [
            "",
            "MIT MIT",
            "MIT AND",
            "(MIT",
            "Proprietary",
            "BSD",
            "MIT WITH MIT",
        ] {
            assert_eq!(canonical(text), None, "{text}");
        }
    }
}
