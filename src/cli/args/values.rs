//! What values of arguments are read by.

/// Reads `NAME=VALUE`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Checks an image tag.
pub(super) fn tag(text: &str) -> Result<String, String> {
    crate::oci::check_tag(text)
        .map(|()| text.to_owned())
        .map_err(|error| error.to_string())
}

/// Reads a number of CPUs as thousandths of one.
pub(super) fn millicpus(text: &str) -> Result<u64, String> {
    let cpus: Option<f64> = text
        .parse()
        .ok()
        .filter(|it| (0.001..=100_000.0).contains(it));
    cpus.map(|it| (it * 1000.0).round() as u64)
        .ok_or_else(|| "expected a number of CPUs, as 2 or 0.5".to_owned())
}

/// Reads a size, as `10GB` or `500MiB`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text
        .find(|char: char| !char.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kb" => Some(1000),
        "m" | "mb" => Some(1_000_000),
        "g" | "gb" => Some(1_000_000_000),
        "t" | "tb" => Some(1_000_000_000_000),
        "kib" => Some(1 << 10),
        "mib" => Some(1 << 20),
        "gib" => Some(1 << 30),
        "tib" => Some(1 << 40),
        _ => None,
    };
    let value = number
        .parse::<u64>()
        .ok()
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor));
    value.ok_or_else(|| "expected a size, as 10GB or 500MiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes("10GB"), Ok(10_000_000_000));
        assert_eq!(bytes("1 MiB"), Ok(1 << 20));
        assert_eq!(bytes("7"), Ok(7));
        for text in ["", "x", "1x", "-1", "99999999999TB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
