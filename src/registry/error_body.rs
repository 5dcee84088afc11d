//! What a host says in the body of a refusal: one short line for people, and which parts of an image it lacks. Knows no
//! request.

use std::collections::BTreeSet;

use serde_json::Value;

use super::error::clean;
use crate::oci::Digest;

/// How many digests of one body are heeded: an image has no more parts that matter.
const DIGESTS: usize = 1_000;

/// Reads what a host says in the body of a refusal: errors in JSON (distribution-spec, "Error Codes"), the title of a
/// page, or the first line of text.
pub(super) fn message(body: &[u8]) -> Option<String> {
    let text = match serde_json::from_slice::<Value>(body) {
        Ok(json) => of_json(&json),
        Err(_) => of_text(body)?,
    };
    let text = clean(&text);
    (!text.is_empty()).then_some(text)
}

fn of_json(body: &Value) -> String {
    let list = match &body["errors"] {
        Value::Array(all) => all.iter().take(3).collect(),
        Value::Null => Vec::new(),
        one => vec![one],
    };
    // Token servers and gateways have shapes of their own.
    let others = ["error", "details", "error_description", "message", "detail"];
    let others = others.iter().map(|key| &body[key]);
    let mut texts: Vec<String> = list.into_iter().chain(others).map(one_error).collect();
    let mut seen = BTreeSet::new();
    texts.retain(|text| !text.is_empty() && seen.insert(text.clone()));
    texts.join("; ")
}

/// Reads one error: its code and message, or a text alone.
fn one_error(error: &Value) -> String {
    if let Some(text) = error.as_str() {
        return text.to_owned();
    }
    let parts = [&error["code"], &error["message"]];
    let parts = parts.into_iter().filter_map(Value::as_str);
    let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
    parts.join(": ")
}

/// Reads a text or a page; `None` if the bytes are neither.
fn of_text(body: &[u8]) -> Option<String> {
    // A body may be cut in the middle of a letter.
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&body[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    if text.contains('\0') {
        return None;
    }
    match is_page(body) {
        true => title(text),
        false => {
            let mut lines = text.lines().map(str::trim);
            lines.find(|line| !line.is_empty()).map(str::to_owned)
        }
    }
}

/// Tells whether a body is HTML or XML.
pub(super) fn is_page(body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    body.trim_ascii_start().starts_with(b"<")
}

/// Returns the title of a page, or the message of an object store's error.
fn title(text: &str) -> Option<String> {
    // Lowering ASCII alone keeps every place where it is.
    let lower = text.to_ascii_lowercase();
    ["title", "message", "h1"].iter().find_map(|name| {
        let (at, end) = (
            lower.find(&format!("<{name}"))?,
            lower.find(&format!("</{name}>"))?,
        );
        let (_, inner) = text.get(at..end)?.split_once('>')?;
        (!inner.trim().is_empty()).then(|| inner.to_owned())
    })
}

/// Returns what a refusal of a manifest says to be missing below it: the digests that it names, which may be none.
/// `None` if it says nothing of the kind. The code is looked for in the whole text, whatever its shape: registries write
/// `MANIFEST_BLOB_UNKNOWN`, `BLOB_UNKNOWN` and, for parts of an index, `MANIFEST_UNKNOWN`.
pub(super) fn missing(body: &[u8]) -> Option<Vec<Digest>> {
    let text = String::from_utf8_lossy(body);
    let plain = text.to_ascii_uppercase().replace([' ', '-'], "_");
    let codes = ["BLOB_UNKNOWN", "UNKNOWN_BLOB", "MANIFEST_UNKNOWN"];
    if !codes.iter().any(|code| plain.contains(code)) {
        return None;
    }
    let parts = text.split("sha256:").skip(1).take(DIGESTS);
    let digests = parts.filter_map(|part| format!("sha256:{}", part.get(..64)?).parse().ok());
    let digests: BTreeSet<Digest> = digests.collect();
    Some(digests.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_says_is_one_short_line() {
        for (body, expected) in [
            (
                r#"{"errors":[{"code":"DENIED","message":"no\u001b[31m\nway","detail":{"a":1}},{"message":"x"}]}"#,
                Some("DENIED: no [31m way; x"),
            ),
            (r#"{"errors":"all of it"}"#, Some("all of it")),
            (r#"{"errors":{"code":"A","message":"b"}}"#, Some("A: b")),
            (r#"{"error":{"code":"A","message":"b"}}"#, Some("A: b")),
            (r#"{"error":"denied","message":"denied"}"#, Some("denied")),
            (r#"{"details":"wrong password"}"#, Some("wrong password")),
            ("{}", None),
            ("", None),
            (
                "\n  the request body is too large\r\nmore",
                Some("the request body is too large"),
            ),
            ("<html>", None),
            (
                "<!doctype html>\n<HTML><Title lang=en>\nSign in </TITLE>",
                Some("Sign in"),
            ),
            (
                "<html><h1>413 Request Entity Too Large</h1>",
                Some("413 Request Entity Too Large"),
            ),
            (
                "<?xml version=\"1.0\"?><Error><Code>A</Code><Message>no key</Message></Error>",
                Some("no key"),
            ),
        ] {
            assert_eq!(message(body.as_bytes()).as_deref(), expected, "{body}");
        }
        assert_eq!(message(b"\x1f\x8b\x08\0\0"), None);
        assert_eq!(message(b"half \xc3").as_deref(), Some("half"));
        assert!(message("x".repeat(10_000).as_bytes()).unwrap().len() < 400);
    }

    #[test]
    fn what_is_missing_is_found_in_any_shape() {
        let digest = Digest::of(b"x");
        for body in [
            format!(
                r#"{{"errors":[{{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry","detail":"{digest}"}}]}}"#
            ),
            format!(
                r#"{{"errors":[{{"code":"BLOB_UNKNOWN","detail":{{"Digest":"{digest}"}}}},{{"detail":"{digest}"}}]}}"#
            ),
            format!(r#"{{"code":"MANIFEST_UNKNOWN","message":"manifest {digest} unknown"}}"#),
            format!("manifest blob unknown: {digest}"),
            format!("unknown blob {digest}"),
        ] {
            assert_eq!(missing(body.as_bytes()), Some(vec![digest]), "{body}");
        }
        assert_eq!(missing(b"manifest unknown sha256:00"), Some(Vec::new()));
        for body in [
            r#"{"errors":[{"code":"MANIFEST_INVALID"}]}"#,
            r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#,
            "",
        ] {
            assert_eq!(missing(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn null_is_absent() {
        let body = serde_json::json!({
            "errors": [{"code": "DENIED", "message": "m", "detail": {"a": 1}}, {"code": "X"}],
            "details": "d", "error_description": "e", "message": "f",
        });
        crate::oci::assert_null_is_absent(&body, |bytes| Ok::<_, ()>(message(bytes)));
    }
}
