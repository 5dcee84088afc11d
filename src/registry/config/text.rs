//! Texts that values of `config.toml` may be: hosts, mirrors, sizes. Knows nothing of tables and places.

/// Parses a size, as `4MiB` or `4 MB`, in bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim_start_matches(' ') {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// Tells whether a text is `HOST[:PORT]`, as references have it: a name, an IPv4 address, or an IPv6 address in brackets.
pub(super) fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_port = |port: &str| {
        port.bytes().all(|it| it.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|it| it > 0)
    };
    let is_label = |label: &str| {
        let fits = |it: u8| it.is_ascii_alphanumeric() || it == b'-';
        !label.is_empty()
            && label.bytes().all(fits)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_name = match host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(is_label),
    };
    is_name && port.is_none_or(is_port)
}

/// Tells whether a text is `[http[s]://]HOST[:PORT][/PREFIX]`.
pub(super) fn is_mirror(text: &str) -> bool {
    let stripped = ["https://", "http://"]
        .into_iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    let rest = stripped.unwrap_or(text);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, prefix) = match rest.split_once('/') {
        Some((host, prefix)) => (host, Some(prefix)),
        None => (rest, None),
    };
    let is_component = |component: &str| {
        let fits = |it: u8| it.is_ascii_alphanumeric() || b"-._~".contains(&it);
        !matches!(component, "" | "." | "..") && component.bytes().all(fits)
    };
    is_host(host) && prefix.is_none_or(|prefix| prefix.split('/').all(is_component))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_checked() {
        for host in [
            "a",
            "a.example",
            "a:1",
            "127.0.0.1:65535",
            "[::1]",
            "[::1]:5000",
            "a-b.c",
        ] {
            assert!(is_host(host), "{host}");
        }
        let wrong = [
            "",
            ":",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "a:x",
            ":5000",
            "https://a",
            "a/b",
            "a b",
            "a..b",
            ".a",
            "a.",
            "-a",
            "::1",
            "[::1",
            "[x]",
            "u@a",
            "a?b",
            "a_b",
            "*",
            "é",
        ];
        for host in wrong {
            assert!(!is_host(host), "{host}");
        }
    }

    #[test]
    fn mirrors_are_checked() {
        for mirror in [
            "a",
            "a:5000/x",
            "https://a/x/y.z/",
            "http://[::1]:80",
            "a/v2",
        ] {
            assert!(is_mirror(mirror), "{mirror}");
        }
        for mirror in [
            "",
            "/",
            "https://",
            "ftp://a",
            "a//b",
            "a/..",
            "a/./b",
            "u:p@a",
            "https://u@a",
            "a?x",
            "a/#",
            "a/b c",
            "https://a//",
            "HTTPS://a",
        ] {
            assert!(!is_mirror(mirror), "{mirror}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("1", 1),
            ("7B", 7),
            ("5kB", 5000),
            ("5KiB", 5120),
            ("5 MB", 5_000_000),
            ("5MiB", 5 << 20),
            ("1GB", 1_000_000_000),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
    }
}
