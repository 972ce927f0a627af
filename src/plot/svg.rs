//! A small SVG writer: escaping, number format, text width. Knows nothing of plans.

use std::fmt::Write;

/// `&`, `<`, `>`, quotes as entities, for XML and HTML text and attributes; characters XML 1.0
/// forbids as the replacement character.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\u{0}'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {
                out.push('\u{fffd}');
            }
            c => out.push(c),
        }
    }
    out
}

/// A coordinate: at most two decimals, so that files stay small and diffs readable.
pub(crate) fn n(value: f64) -> String {
    if !value.is_finite() {
        return "0".into();
    }
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

/// Estimated width of `text` in a sans-serif face of `size`: the advance widths of Helvetica and its
/// metric twins (Arial, Liberation Sans), a little generous since the reader's face is not known.
pub(crate) fn text_width(text: &str, size: f64) -> f64 {
    let em = |c: char| match c {
        'i' | 'j' | 'l' | '\'' | '|' => 0.24,
        'f' | 't' | 'I' | ' ' | '.' | ',' | ':' | ';' | '!' | '[' | ']' | '/' | '·' => 0.28,
        'r' | '-' | '(' | ')' => 0.34,
        'c' | 'k' | 's' | 'v' | 'x' | 'y' | 'z' | 'J' => 0.5,
        'm' | 'M' => 0.83,
        'w' | 'C' | 'D' | 'H' | 'N' | 'R' | 'U' => 0.72,
        'G' | 'O' | 'Q' => 0.78,
        'W' | '@' | '→' | '…' => 1.0,
        '%' => 0.89,
        'A'..='Z' | '&' => 0.67,
        '+' | '=' | '<' | '>' | '×' | '≈' => 0.59,
        c if (c as u32) < 0x1100 => 0.556,
        _ => 1.0,
    };
    1.03 * size * text.chars().map(em).sum::<f64>()
}

/// `text` cut to `width` with an ellipsis; nothing when not even two characters fit.
pub(crate) fn fit(text: &str, size: f64, width: f64) -> Option<String> {
    if text_width(text, size) <= width {
        return Some(text.to_owned());
    }
    let mut room = width - text_width("…", size);
    let mut cut = String::new();
    for c in text.chars() {
        room -= text_width(c.encode_utf8(&mut [0; 4]), size);
        if room < 0.0 {
            break;
        }
        cut.push(c);
    }
    (cut.chars().count() >= 2).then(|| format!("{}…", cut.trim_end()))
}

/// Where a text is anchored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// A document under construction.
#[derive(Debug, Default)]
pub(crate) struct Svg {
    body: String,
}

impl Svg {
    /// Append markup as it is.
    pub(crate) fn raw(&mut self, markup: &str) {
        self.body.push_str(markup);
        self.body.push('\n');
    }

    pub(crate) fn rect(&mut self, class: &str, [x, y, w, h]: [f64; 4], extra: &str) {
        let (x, y, w, h) = (n(x), n(y), n(w.max(0.0)), n(h.max(0.0)));
        let _ =
            writeln!(self.body, r#"<rect class="{class}" x="{x}" y="{y}" width="{w}" height="{h}"{extra}/>"#);
    }

    pub(crate) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let (x1, y1, x2, y2) = (n(from.0), n(from.1), n(to.0), n(to.1));
        let _ = writeln!(self.body, r#"<line class="{class}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>"#);
    }

    /// A path of straight lines through `points`, without those that change nothing.
    pub(crate) fn polyline(&mut self, class: &str, points: &[(f64, f64)], extra: &str) {
        if points.is_empty() {
            return;
        }
        let path = path(points);
        let _ = writeln!(self.body, r#"<path class="{class}" d="{path}"{extra}/>"#);
    }

    pub(crate) fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => r#" text-anchor="middle""#,
            Anchor::End => r#" text-anchor="end""#,
        };
        let (x, y, text) = (n(x), n(y), escape(text));
        let _ = writeln!(self.body, r#"<text class="{class}" x="{x}" y="{y}"{anchor}>{text}</text>"#);
    }

    /// Open a group whose hover text is `title`.
    pub(crate) fn open(&mut self, title: &str) {
        let _ = writeln!(self.body, "<g><title>{}</title>", escape(title));
    }

    pub(crate) fn close(&mut self) {
        self.raw("</g>");
    }

    pub(crate) fn into_body(self) -> String {
        self.body
    }
}

/// Path data through `points`, dropping repeats and points on a straight horizontal or vertical run.
pub(crate) fn path(points: &[(f64, f64)]) -> String {
    let mut kept: Vec<(String, String)> = Vec::with_capacity(points.len());
    for (x, y) in points {
        let point = (n(*x), n(*y));
        if kept.last() == Some(&point) {
            continue;
        }
        if let [.., a, b] = kept.as_slice()
            && ((a.0 == b.0 && b.0 == point.0) || (a.1 == b.1 && b.1 == point.1))
        {
            kept.pop();
        }
        kept.push(point);
    }
    let mut out = String::new();
    for (i, (x, y)) in kept.iter().enumerate() {
        let _ = write!(out, "{}{x} {y}", if i == 0 { "M" } else { "L" });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_breaks_out_of_text() {
        assert_eq!(escape("<script>'\"&\u{0}"), "&lt;script&gt;&#39;&quot;&amp;\u{fffd}");
    }

    #[test]
    fn paths_keep_corners_only() {
        assert_eq!(path(&[(0.0, 1.0), (5.0, 1.0), (9.0, 1.0), (9.0, 3.0)]), "M0 1L9 1L9 3");
        assert_eq!(n(f64::NAN), "0");
        assert_eq!(n(-0.001), "0");
    }

    #[test]
    fn texts_are_cut_to_fit() {
        assert_eq!(fit("anneal", 10.0, 100.0).as_deref(), Some("anneal"));
        assert_eq!(fit("anneal", 10.0, 30.0).as_deref(), Some("ann…"));
        assert_eq!(fit("anneal", 10.0, 10.0), None);
    }
}
