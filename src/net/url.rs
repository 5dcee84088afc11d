//! Where a URL leads, and whether one may go there. Knows no connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::header::{HeaderMap, LINK};

use crate::oci::Digest;

/// Returns the host of a URL, with its port if it is not the scheme's own.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Tells whether both lead to the same server, by the same scheme.
pub(crate) fn is_same(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host_str() == b.host_str()
        && a.port_or_known_default() == b.port_or_known_default()
}

/// Resolves the `Location` of an answer to `base` (RFC 9110, 10.2.2). The same host is never asked over a weaker scheme:
/// a registry behind a proxy that ends TLS does not know its own.
pub(crate) fn location(base: &Url, text: &str) -> Option<Url> {
    let text = text.trim();
    // Some registries forget the first slash.
    match text.starts_with("v2/") {
        true => join(base, &format!("/{text}")),
        false => join(base, text),
    }
}

/// Joins what a document of `base` refers to: without fragment and user, and over no weaker scheme on the same host.
pub(crate) fn join(base: &Url, text: &str) -> Option<Url> {
    let mut url = base.join(text.trim()).ok()?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return None;
    }
    // A fragment is the user agent's affair, and a user in a URL would become a header.
    url.set_fragment(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    let is_weaker = base.scheme() == "https" && url.scheme() == "http";
    let is_own = url.host_str() == base.host_str();
    if is_weaker && is_own && (url.port().is_none() || url.port() == base.port_or_known_default()) {
        let port = base.port();
        url.set_scheme("https").ok()?;
        url.set_port(port).ok()?;
    }
    Some(url)
}

/// Joins many texts of one document, as [`join`] does: where they lead to one host again and again, as most do, without
/// taking each of them apart.
pub(crate) struct Joiner<'a> {
    base: &'a Url,
    /// Scheme and host of the last URL, where its text began with just these.
    origin: Option<String>,
}

impl<'a> Joiner<'a> {
    pub(crate) fn new(base: &'a Url) -> Self {
        Self { base, origin: None }
    }

    /// Joins a text.
    pub(crate) fn join(&mut self, text: &str) -> Option<Arc<str>> {
        let text = text.trim();
        let own = text.split('#').next().unwrap_or_default();
        let origin = self.origin.as_deref();
        let path = origin.and_then(|it| own.strip_prefix(it));
        if path.is_some_and(is_plain) {
            return Some(own.into());
        }
        let url = join(self.base, text)?;
        let origin = url.origin().ascii_serialization();
        self.origin = own.starts_with(&origin).then_some(origin);
        Some(url.as_str().into())
    }
}

/// Tells whether a text is a path that stays as it is in a URL.
fn is_plain(path: &str) -> bool {
    let is_plain = |it: u8| it.is_ascii_alphanumeric() || b"/-._~+%=@!,".contains(&it);
    path.starts_with('/')
        && path.bytes().all(is_plain)
        // Such segments lead elsewhere, also where they are written in percent.
        && !["/.", "%2e", "%2E"].iter().any(|it| path.contains(it))
}

/// Adds `digest=` to the opaque query of an upload's location.
pub(crate) fn with_digest(mut url: Url, digest: &Digest) -> Url {
    let query = match url.query() {
        Some(query) if !query.is_empty() => format!("{query}&digest={digest}"),
        _ => format!("digest={digest}"),
    };
    url.set_query(Some(&query));
    url
}

/// Returns where the next page is (RFC 8288), if it is on the same server.
pub(crate) fn next_page(base: &Url, headers: &HeaderMap) -> Option<Url> {
    let texts = headers.get_all(LINK).iter();
    let target = texts
        .filter_map(|value| value.to_str().ok())
        .find_map(next_link)?;
    location(base, target).filter(|url| is_same(base, url))
}

/// Finds the target of the link `rel="next"`: `<TARGET>; rel="next", <TARGET>; …`.
fn next_link(text: &str) -> Option<&str> {
    let mut rest = text;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (target, after) = after.split_once('>')?;
        let end = after.find('<').unwrap_or(after.len());
        let is_next = after[..end].split([';', ',']).any(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or_default();
            let is_rel = name.trim().eq_ignore_ascii_case("rel");
            let mut words = value.trim().trim_matches('"').split_whitespace();
            is_rel && words.any(|word| word.eq_ignore_ascii_case("next"))
        });
        if is_next {
            return Some(target);
        }
        rest = &after[end..];
    }
}

/// Parses `bytes FIRST-LAST/SIZE` (RFC 9110, 14.4).
pub(crate) fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let text = text.trim().strip_prefix("bytes")?.trim_start();
    let (range, size) = text.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let size = match size.trim() {
        "*" => None,
        size => Some(size.parse().ok()?),
    };
    (first <= last).then_some((first, last, size))
}

/// Parses the `Range` of an upload, `0-LAST`, and returns how many bytes it holds. `0-0` is what registries say of none.
pub(crate) fn upload_range(text: &str) -> Option<u64> {
    let text = text.trim();
    let text = text.strip_prefix("bytes=").unwrap_or(text);
    let (first, last) = text.split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    (first.trim() == "0").then(|| match last {
        0 => 0,
        last => last.saturating_add(1),
    })
}

/// Tells whether a host, with or without port, is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = without_port(host);
    let name = name.to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || address(&name).is_some_and(|address| match address {
            IpAddr::V4(address) => address.is_loopback(),
            IpAddr::V6(address) => address.is_loopback(),
        })
}

/// Tells whether a host, with or without port, is written as an address that others cannot reach.
pub(crate) fn is_private(host: &str) -> bool {
    let private4 = |it: Ipv4Addr| {
        it.is_private() || it.is_loopback() || it.is_link_local() || it.is_unspecified()
    };
    let private6 = |it: Ipv6Addr| {
        it.is_loopback()
            || it.is_unspecified()
            || it.is_unique_local()
            || it.is_unicast_link_local()
    };
    is_loopback(host)
        || address(without_port(host)).is_some_and(|address| match address {
            IpAddr::V4(address) => private4(address),
            IpAddr::V6(address) => private6(address),
        })
}

fn address(name: &str) -> Option<IpAddr> {
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let address: IpAddr = name.parse().ok()?;
    Some(address.to_canonical())
}

/// Returns a host without its port.
pub(crate) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if !port.contains(']') && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

/// Tells whether an answer of `from` may lead to `to`; says why not. `is_insecure` is what the user said of the host of
/// `to`.
pub(crate) fn may_follow(from: &Url, to: &Url, is_insecure: bool) -> Result<(), &'static str> {
    let (own, other) = (authority(from), authority(to));
    if is_same(from, to) {
        return Ok(());
    }
    if is_loopback(&other) && !is_loopback(&own) {
        return Err("which is on this machine");
    }
    if to.scheme() == "http" && !is_loopback(&other) && !is_insecure {
        return Err("which is not encrypted");
    }
    Ok(())
}

/// Tells whether credentials for `registry` may be sent to the realm `realm`; says why not. `is_insecure` is what the
/// user said of the registry.
pub(crate) fn may_trust_realm(
    registry: &str,
    realm: &Url,
    is_insecure: bool,
) -> Result<(), &'static str> {
    let host = authority(realm);
    let is_own = without_port(registry).eq_ignore_ascii_case(without_port(&host));
    let are_here = is_loopback(registry) && is_loopback(&host);
    if is_private(&host) && !is_own && !are_here {
        return Err("which is a private address of another host");
    }
    let may_be_plain = are_here || is_own && is_insecure;
    match realm.scheme() {
        "https" => Ok(()),
        "http" if may_be_plain => Ok(()),
        _ => Err("which is not encrypted"),
    }
}

/// Decodes `%40` and the like; what is broken stays.
pub(crate) fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let pair = tail.get(..2).and_then(|it| std::str::from_utf8(it).ok());
        match pair.and_then(|it| u8::from_str_radix(it, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn many_texts_are_joined_as_one_is() {
        let bases = [
            "https://i.example/simple/a/",
            "http://i.example:81/simple/a/",
        ];
        let texts = [
            "https://f.example/a/b-1.whl#sha256=1",
            "https://f.example/a/../b-1+x%2By.whl",
            "https://f.example/a/%2E%2e/b.whl",
            "https://f.example/a/./b.whl",
            "https://f.example/a//b.whl",
            "https://f.example/a b.whl",
            "https://f.example/\u{e4}.whl?x=1#y",
            "https://f.example",
            "https://f.example.net/a.whl",
            "https://f.example:444/a.whl",
            "https://f.example:443/a.whl",
            "https://u:p@f.example/a.whl",
            "HTTPS://F.example/a.whl",
            "http://i.example/a.whl",
            "http://i.example/b.whl",
            "http://i.example:80/b.whl",
            "../../c.whl",
            "/d\\e.whl",
            "file:///e.whl",
            " https://f.example/f.whl ",
            "//f.example/g.whl",
            "",
        ];
        for base in bases.map(url) {
            let mut joiner = Joiner::new(&base);
            // Each after each: what one leaves behind must not change another.
            for text in texts.iter().flat_map(|it| [it].into_iter().chain(&texts)) {
                let expected = join(&base, text).map(|it| it.to_string());
                assert_eq!(joiner.join(text).as_deref(), expected.as_deref(), "{text}");
            }
        }
    }

    #[test]
    fn locations_are_joined() {
        let base = url("https://r.example/v2/a/b/blobs/uploads/");
        for (text, expected) in [
            (
                "/v2/a/b/blobs/uploads/1?x=y",
                "https://r.example/v2/a/b/blobs/uploads/1?x=y",
            ),
            (
                "v2/a/b/blobs/uploads/1",
                "https://r.example/v2/a/b/blobs/uploads/1",
            ),
            ("1", "https://r.example/v2/a/b/blobs/uploads/1"),
            (
                "?_state=z",
                "https://r.example/v2/a/b/blobs/uploads/?_state=z",
            ),
            ("https://s.example/u?x#f", "https://s.example/u?x"),
            ("https://user:pw@s.example/u", "https://s.example/u"),
            ("http://r.example/u", "https://r.example/u"),
            ("http://r.example:8080/u", "http://r.example:8080/u"),
            ("//s.example/u", "https://s.example/u"),
        ] {
            assert_eq!(location(&base, text).unwrap().as_str(), expected, "{text}");
        }
        assert_eq!(location(&base, "file:///etc/passwd"), None);
        assert_eq!(location(&base, "https://"), None);
        let base = url("https://r.example:5000/v2/");
        let upgraded = location(&base, "http://r.example:5000/u").unwrap();
        assert_eq!(upgraded.as_str(), "https://r.example:5000/u");
    }

    #[test]
    fn the_digest_joins_an_opaque_query() {
        let digest = Digest::of(b"");
        for (text, mark) in [
            ("https://r/u", '?'),
            ("https://r/u?", '?'),
            ("https://r/u?a=%2F%3D", '&'),
        ] {
            let joined = with_digest(url(text), &digest);
            let start = text.trim_end_matches('?');
            assert_eq!(joined.as_str(), format!("{start}{mark}digest={digest}"));
        }
    }

    #[test]
    fn the_next_page_is_on_the_same_server() {
        let base = url("https://r.example/v2/a/tags/list");
        let next = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, text.parse().unwrap());
            next_page(&base, &headers).map(String::from)
        };
        let expected = Some("https://r.example/v2/a/tags/list?last=b&n=2".to_owned());
        assert_eq!(next("</v2/a/tags/list?last=b&n=2>; rel=\"next\""), expected);
        assert_eq!(
            next("</v2/a/tags/list?last=b&n=2>; title=x; REL=next"),
            expected
        );
        assert_eq!(
            next("</first>; rel=\"first\", <?last=b&n=2>; rel=\"last next\""),
            expected
        );
        assert_eq!(next("</v2/a>; rel=\"prev\""), None);
        assert_eq!(next("https://r.example/"), None);
        assert_eq!(next("<https://other.example/v2/>; rel=next"), None);
    }

    #[test]
    fn ranges_are_parsed() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, 9, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, 9, None)));
        for text in [
            "bytes 9-5/10",
            "bytes */10",
            "5-9/10",
            "bytes 5-9",
            "bytes a-b/c",
        ] {
            assert_eq!(content_range(text), None, "{text}");
        }
        assert_eq!(upload_range("0-99"), Some(100));
        assert_eq!(upload_range("bytes=0-99"), Some(100));
        assert_eq!(upload_range("0-0"), Some(0));
        assert_eq!(upload_range("5-99"), None);
        assert_eq!(upload_range(""), None);
    }

    #[test]
    fn hosts_of_this_machine() {
        for host in [
            "localhost",
            "LOCALHOST:5000",
            "a.localhost",
            "127.0.0.1:5000",
            "127.9.9.9",
            "[::1]:5000",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.example",
            "10.0.0.1",
            "128.0.0.1",
            "[::2]:1",
            "127.0.0.1.example",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
        for host in [
            "10.1.2.3",
            "192.168.0.1:80",
            "169.254.169.254",
            "[fe80::1]",
            "[fd00::1]:443",
            "172.16.0.1",
            "0.0.0.0",
        ] {
            assert!(is_private(host), "{host}");
        }
        assert!(!is_private("8.8.8.8") && !is_private("r.example"));
    }

    #[test]
    fn redirects_do_not_lead_to_weaker_places() {
        let from = url("https://r.example/v2/");
        assert!(may_follow(&from, &url("https://s.example/x"), false).is_ok());
        assert!(may_follow(&from, &url("http://s.example/x"), false).is_err());
        assert!(may_follow(&from, &url("http://s.example/x"), true).is_ok());
        assert!(may_follow(&from, &url("http://127.0.0.1:1/x"), true).is_err());
        let here = url("http://127.0.0.1:5000/");
        assert!(may_follow(&here, &url("http://127.0.0.1:6000/x"), false).is_ok());
        assert!(may_follow(&here, &url("http://s.example/x"), false).is_err());
    }

    #[test]
    fn realms_are_encrypted_and_public() {
        let may = |registry: &str, realm: &str, insecure: bool| {
            may_trust_realm(registry, &url(realm), insecure).is_ok()
        };
        assert!(may("r.example", "https://auth.example/token", false));
        assert!(!may("r.example", "http://auth.example/token", false));
        assert!(!may("r.example", "http://auth.example/token", true));
        assert!(may("r.example", "http://r.example/token", true));
        assert!(!may("r.example", "http://r.example/token", false));
        assert!(!may("r.example", "https://127.0.0.1/token", false));
        assert!(!may("r.example", "https://10.0.0.1/token", true));
        assert!(!may("r.example", "https://169.254.169.254/token", false));
        assert!(may("10.0.0.1:5000", "https://10.0.0.1/token", false));
        assert!(may("127.0.0.1:5000", "http://localhost:6000/token", false));
        assert!(!may("127.0.0.1:5000", "http://auth.example/token", false));
    }
}
