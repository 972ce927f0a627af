//! JSON as the launch files have it: objects over several lines, lists on one, so that a table of a
//! million learning rates stays readable in size and its neighbours by eye.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// `value` as text with a line break at its end.
pub(super) fn pretty(value: &impl Serialize) -> String {
    let mut out = Vec::new();
    // Plain data with string keys into memory: there is nothing to refuse.
    let _ = value.serialize(&mut Serializer::with_formatter(&mut out, Lines::default()));
    out.push(b'\n');
    String::from_utf8(out).unwrap_or_default()
}

/// Objects as [`PrettyFormatter`] has them, except inside lists.
#[derive(Default)]
struct Lines<'a> {
    objects: PrettyFormatter<'a>,
    /// Lists around the present place.
    lists: usize,
}

impl Formatter for Lines<'_> {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.lists += 1;
        writer.write_all(b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.lists -= 1;
        writer.write_all(b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.lists > 0 { writer.write_all(b"{") } else { self.objects.begin_object(writer) }
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.lists > 0 { writer.write_all(b"}") } else { self.objects.end_object(writer) }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        match (self.lists > 0, first) {
            (true, true) => Ok(()),
            (true, false) => writer.write_all(b", "),
            (false, _) => self.objects.begin_object_key(writer, first),
        }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.lists > 0 { Ok(()) } else { self.objects.end_object_value(writer) }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn lists_stay_on_one_line() {
        let value =
            serde_json::json!({ "a": [[0, 1.5], [3, 2.0]], "b": { "c": null, "d": [{ "x": 1, "y": [] }] } });
        let text = super::pretty(&value);
        let lines = [
            "{",
            "  \"a\": [[0, 1.5], [3, 2.0]],",
            "  \"b\": {",
            "    \"c\": null,",
            "    \"d\": [{\"x\": 1, \"y\": []}]",
            "  }",
            "}",
            "",
        ];
        assert_eq!(text, lines.join("\n"));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
