//! One line of the log, text or JSON: its bound, and what is added to it afterwards.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// The line with at most `max` bytes; a cut is marked, and JSON stays JSON.
pub(super) fn cut(line: &[u8], max: usize) -> Cow<'_, [u8]> {
    if line.len() <= max {
        return Cow::Borrowed(line);
    }
    let json = line.starts_with(b"{").then(|| serde_json::from_slice(line).ok()).flatten();
    Cow::Owned(
        json.and_then(|fields| cut_json(&fields, line.len(), max)).unwrap_or_else(|| cut_text(line, max)),
    )
}

/// The line with another field at its end.
pub(super) fn with_field(line: &[u8], name: &str, value: u64) -> Vec<u8> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    match line.strip_suffix(b"}").filter(|_| line.starts_with(b"{")) {
        Some(fields) => [fields, format!(",\"{name}\":{value}}}\n").as_bytes()].concat(),
        None => [line, format!(" {name}={value}\n").as_bytes()].concat(),
    }
}

/// What follows the timestamp, with which each line begins.
pub(super) fn without_timestamp(line: &[u8]) -> &[u8] {
    let end = line.iter().take(TIMESTAMP_MAX).position(|byte| *byte == b'Z');
    &line[end.map_or(0, |end| end + 1)..]
}

fn cut_text(line: &[u8], max: usize) -> Vec<u8> {
    let mark = format!(" ... (cut, {} bytes)\n", line.len());
    let mut end = max.saturating_sub(mark.len());
    // Not within a character.
    while end > 0 && line.get(end).is_some_and(|byte| byte & 0xC0 == 0x80) {
        end -= 1;
    }
    [&line[..end], mark.as_bytes()].concat()
}

/// Shortens texts, then leaves out all but the fields that every line has.
fn cut_json(fields: &Map<String, Value>, bytes: usize, max: usize) -> Option<Vec<u8>> {
    [(2, false), (4, false), (8, true), (64, true)].into_iter().find_map(|(share, basic)| {
        let kept = fields.iter().filter(|(name, _)| !basic || BASIC.contains(&name.as_str()));
        let mut kept: Map<_, _> =
            kept.map(|(name, value)| (name.clone(), shortened(value, max / share))).collect();
        kept.insert("cut_bytes".to_owned(), bytes.into());
        let mut line = serde_json::to_vec(&kept).ok()?;
        line.push(b'\n');
        (line.len() <= max).then_some(line)
    })
}

fn shortened(value: &Value, max: usize) -> Value {
    match value {
        Value::String(text) if text.len() > max => {
            let end = (0..=max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            format!("{} ... (cut)", &text[..end]).into()
        }
        other => other.clone(),
    }
}

const BASIC: [&str; 4] = ["timestamp", "level", "target", "message"];

/// RFC 3339 with a `Z`, with what a line may have before it.
const TIMESTAMP_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_any_length_is_cut_to_its_bound_and_says_so() {
        for max in [512, 4096] {
            for filling in ["x", "é", "\u{1}", "\""] {
                let text = format!("2026-12-01T10:00:00.000000Z  WARN {}\n", filling.repeat(max));
                let line = cut(text.as_bytes(), max);
                assert!(line.len() <= max && line.ends_with(b" bytes)\n"), "{}", line.len());
                assert!(std::str::from_utf8(&line).is_ok());
                let fields = serde_json::json!({
                    "timestamp": "2026-12-01T10:00:00.000000Z", "level": "WARN", "message": filling.repeat(max),
                    "error": filling.repeat(max), "count": 3,
                });
                let line = cut(format!("{fields}\n").as_bytes(), max).into_owned();
                assert!(line.len() <= max, "{}", line.len());
                let cut: Value = serde_json::from_slice(&line).unwrap();
                assert_eq!((&cut["level"], cut["cut_bytes"].is_u64()), (&"WARN".into(), true));
                assert!(cut["message"].as_str().unwrap().ends_with("... (cut)"));
            }
        }
        assert_eq!(cut(b"short\n", 512), &b"short\n"[..]);
    }

    #[test]
    fn a_field_is_added_to_text_and_to_json() {
        assert_eq!(with_field(b"WARN text a=1\n", "repeated", 5), b"WARN text a=1 repeated=5\n");
        assert_eq!(with_field(b"{\"a\":1}\n", "repeated", 5), b"{\"a\":1,\"repeated\":5}\n");
    }

    #[test]
    fn lines_of_different_times_are_equal_without_them() {
        for (one, other) in [
            ("2026-12-01T10:00:00.000001Z  WARN a", "2026-12-01T10:00:09.000002Z  WARN a"),
            (
                "\u{1b}[2m2026-12-01T10:00:00.000001Z\u{1b}[0m a",
                "\u{1b}[2m2026-12-01T10:00:01.000001Z\u{1b}[0m a",
            ),
            (
                "{\"timestamp\":\"2026-12-01T10:00:00.000001Z\",\"a\":1}",
                "{\"timestamp\":\"2026-12-01T10:00:00.5Z\",\"a\":1}",
            ),
        ] {
            assert_eq!(without_timestamp(one.as_bytes()), without_timestamp(other.as_bytes()));
        }
    }
}
