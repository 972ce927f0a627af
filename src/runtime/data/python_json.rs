//! JSON as Python's `json` writes it, for `serde_json`'s serializer, and reads it.

use std::io::{Result, Write};

use serde_json::Value;
use serde_json::ser::Formatter;

/// What `bytes` say, with what Python writes and JSON does not have: `NaN`, `Infinity` and numbers beyond the largest one
/// are null, halves of a surrogate pair U+FFFD.
///
/// # Errors
/// They are no JSON even so.
pub(crate) fn read(bytes: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice(bytes).or_else(|error| match mended(bytes) {
        Some(mended) => serde_json::from_slice(&mended).map_err(|_| error),
        None => Err(error),
    })
}

/// `bytes` with other words for those that JSON does not have; `None` where there are none.
fn mended(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    let (mut at, mut inside, mut changed) = (0, false, false);
    while let Some(&byte) = bytes.get(at) {
        let rest = &bytes[at..];
        let (length, instead): (usize, Option<&[u8]>) = match byte {
            b'\\' if inside => match surrogate(rest) {
                Some(0xd800..=0xdbff)
                    if rest.get(6..).and_then(surrogate).is_some_and(|low| low >= 0xdc00) =>
                {
                    (12, None)
                }
                Some(_) => (6, Some(b"\\ufffd")),
                None => (2, None),
            },
            b'"' => {
                inside = !inside;
                (1, None)
            }
            b'N' | b'I' | b'-' | b'0'..=b'9' if !inside => {
                let word = |b: &u8| b.is_ascii_alphanumeric() || b"+-.".contains(b);
                let length = rest.iter().take_while(|b| word(b)).count();
                let digits =
                    |text: &str| text.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit());
                let infinite = |text: &str| digits(text) && text.parse::<f64>().is_ok_and(|n| !n.is_finite());
                let other = match &rest[..length] {
                    b"NaN" | b"Infinity" | b"-Infinity" => true,
                    number => std::str::from_utf8(number).is_ok_and(infinite),
                };
                (length, other.then_some(b"null"))
            }
            _ => (1, None),
        };
        let length = length.min(rest.len());
        out.extend_from_slice(instead.unwrap_or(&rest[..length]));
        changed |= instead.is_some();
        at += length;
    }
    changed.then_some(out)
}

/// The half of a surrogate pair that `bytes` begin with the escape of.
fn surrogate(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    let code = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    (0xd800..=0xdfff).contains(&code).then_some(code)
}

/// The style of one call.
pub(crate) struct PythonJson<'a> {
    /// Blanks per level; everything on one line when absent.
    pub(crate) indent: Option<usize>,
    /// Brackets that are open.
    pub(crate) level: usize,
    /// Whether nothing has been written since the last one was opened.
    pub(crate) empty: bool,
    /// Whether characters beyond ASCII are escaped.
    pub(crate) ascii: bool,
    /// Between elements.
    pub(crate) item: &'a str,
    /// Between a key and its value.
    pub(crate) key: &'a str,
}

impl PythonJson<'_> {
    fn open<W: Write + ?Sized>(&mut self, out: &mut W, bracket: &[u8]) -> Result<()> {
        self.level += 1;
        self.empty = true;
        out.write_all(bracket)
    }

    fn close<W: Write + ?Sized>(&mut self, out: &mut W, bracket: &[u8]) -> Result<()> {
        self.level -= 1;
        if !self.empty {
            self.line(out)?;
        }
        self.empty = false;
        out.write_all(bracket)
    }

    fn next<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> Result<()> {
        if !first {
            out.write_all(self.item.as_bytes())?;
        }
        self.empty = false;
        self.line(out)
    }

    fn line<W: Write + ?Sized>(&self, out: &mut W) -> Result<()> {
        match self.indent {
            Some(blanks) => write!(out, "\n{:1$}", "", blanks * self.level),
            None => Ok(()),
        }
    }
}

impl Formatter for PythonJson<'_> {
    fn begin_array<W: Write + ?Sized>(&mut self, out: &mut W) -> Result<()> {
        self.open(out, b"[")
    }

    fn end_array<W: Write + ?Sized>(&mut self, out: &mut W) -> Result<()> {
        self.close(out, b"]")
    }

    fn begin_array_value<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> Result<()> {
        self.next(out, first)
    }

    fn begin_object<W: Write + ?Sized>(&mut self, out: &mut W) -> Result<()> {
        self.open(out, b"{")
    }

    fn end_object<W: Write + ?Sized>(&mut self, out: &mut W) -> Result<()> {
        self.close(out, b"}")
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> Result<()> {
        self.next(out, first)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, out: &mut W) -> Result<()> {
        out.write_all(self.key.as_bytes())
    }

    fn write_string_fragment<W: Write + ?Sized>(&mut self, out: &mut W, fragment: &str) -> Result<()> {
        if !self.ascii || fragment.is_ascii() {
            return out.write_all(fragment.as_bytes());
        }
        for c in fragment.chars() {
            if c.is_ascii() {
                write!(out, "{c}")?;
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }

    fn write_f64<W: Write + ?Sized>(&mut self, out: &mut W, value: f64) -> Result<()> {
        out.write_all(float(value).as_bytes())
    }
}

/// As Python's `repr`: the shortest digits that read back exactly, in both languages, which differ in when the exponent is
/// written.
pub(crate) fn float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !value.is_finite() {
        return format!("{value}").to_lowercase();
    }
    if (-4..16).contains(&exponent) {
        let point = if value.fract() == 0.0 { ".0" } else { "" };
        return format!("{value}{point}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_python_writes_and_json_does_not_have_is_read() {
        for (text, expect) in [
            (
                r#"{"a": NaN, "b": [Infinity, -Infinity, 1e999, -1E+999, 1e-5]}"#,
                json!({"a": null, "b": [null, null, null, null, 1e-5]}),
            ),
            (r#"{"a": "NaN \" NaN", "b": NaN}"#, json!({"a": "NaN \" NaN", "b": null})),
            (
                r#"{"a": "\ud83d\ude00 \ud83d \ude00\ud83d", "b": "\\ud83d"}"#,
                json!({"a": "\u{1f600} \u{fffd} \u{fffd}\u{fffd}", "b": "\\ud83d"}),
            ),
        ] {
            assert_eq!(read(text.as_bytes()).unwrap(), expect, "{text}");
        }
        for wrong in ["", "{", r#"{"a": NaN"#, r#"{"a": Nan}"#, r#"{"a": "NaN"#, "\"\\", r#"{"a": inf}"#] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
