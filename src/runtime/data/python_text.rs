//! What Python's strings and Jinja's filters do that minijinja leaves out or does otherwise, on plain text. Chat templates
//! are written for these.

/// Python's `str.title`: every run of letters begins large and goes on small.
pub(crate) fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        match inside {
            false => out.extend(c.to_uppercase()),
            true => out.extend(c.to_lowercase()),
        }
        inside = c.is_alphabetic();
    }
    out
}

/// Jinja's `indent`: `by` before every line but the `first` and, unless wanted, those that are `blank`. A line end at the end
/// stays.
pub(crate) fn indent(text: &str, by: &str, first: bool, blank: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for (i, line) in text.split('\n').enumerate() {
        if i > 0 {
            out.push('\n');
        }
        if if i == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(by);
        }
        out.push_str(line);
    }
    out
}

/// As `markupsafe.escape`.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Jinja's `truncate`: at most `length` characters with `end`, cut between words unless they may be `killed`; a text that is
/// longer by no more than `leeway` stays.
pub(crate) fn truncate(text: &str, length: usize, killed: bool, end: &str, leeway: usize) -> String {
    if text.chars().count() <= length.saturating_add(leeway) {
        return text.to_owned();
    }
    let kept: String = text.chars().take(length.saturating_sub(end.chars().count())).collect();
    let kept = if killed { &kept } else { kept.rsplit_once(' ').map_or(&kept[..], |(head, _)| head) };
    format!("{kept}{end}")
}

/// Jinja's `wordcount`.
pub(crate) fn words(text: &str) -> usize {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count()
}

/// Python's `str.rsplit`; without a separator at runs of white space, `most` splits from the right.
pub(crate) fn rsplit<'a>(text: &'a str, separator: Option<&str>, most: Option<usize>) -> Vec<&'a str> {
    let most = most.unwrap_or(usize::MAX);
    let mut parts = Vec::new();
    let mut rest = text;
    match separator {
        Some(separator) => {
            while let Some((head, tail)) = rest.rsplit_once(separator).filter(|_| parts.len() < most) {
                parts.push(tail);
                rest = head;
            }
            parts.push(rest);
        }
        None => {
            rest = rest.trim_end();
            while let Some((head, tail)) =
                rest.trim_start().rsplit_once(char::is_whitespace).filter(|_| parts.len() < most)
            {
                parts.push(tail);
                let kept = rest.len() - rest.trim_start().len();
                rest = rest[..kept + head.len()].trim_end();
            }
            if parts.len() < most {
                rest = rest.trim_start();
            }
            if !rest.is_empty() {
                parts.push(rest);
            }
        }
    }
    parts.reverse();
    parts
}

/// Python's `str.center`, `ljust` and `rjust`: what is put before and after a text of `length` characters to make it `width`.
pub(crate) fn fill(method: &str, length: usize, width: usize) -> (usize, usize) {
    let room = width.saturating_sub(length);
    match method {
        "ljust" => (0, room),
        "rjust" => (room, 0),
        // An odd one out goes to the left where the width is odd.
        _ => {
            let left = room / 2 + (room & width & 1);
            (left, room - left)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Python 3.11 and Jinja 3.1 give.
    #[test]
    fn as_python_has_it() {
        assert_eq!(title("they're HERE 2nd"), "They'Re Here 2Nd");
        assert_eq!(indent("a\n\nb\n", "  ", false, false), "a\n\n  b\n");
        assert_eq!(indent("a\n\nb", "  ", true, true), "  a\n  \n  b");
        assert_eq!(escape("<a href=\"x\">'&"), "&lt;a href=&#34;x&#34;&gt;&#39;&amp;");
        assert_eq!(truncate("foo bar baz qux", 9, false, "...", 5), "foo...");
        assert_eq!(truncate("foo bar baz qux", 9, true, "...", 5), "foo ba...");
        assert_eq!(truncate("foo bar baz qux", 11, false, "...", 5), "foo bar baz qux");
        assert_eq!(words("a b-c d_e"), 4);
        assert_eq!(rsplit("a,b,c", Some(","), Some(1)), ["a,b", "c"]);
        assert_eq!(rsplit("a,b,", Some(","), None), ["a", "b", ""]);
        assert_eq!(rsplit("  a b  c ", None, Some(1)), ["  a b", "c"]);
        assert_eq!(rsplit("  a b  c ", None, None), ["a", "b", "c"]);
        assert_eq!(rsplit("", None, None), Vec::<&str>::new());
        assert_eq!(
            [fill("ljust", 1, 4), fill("rjust", 1, 4), fill("center", 1, 4)],
            [(0, 3), (3, 0), (1, 2)]
        );
        assert_eq!([fill("center", 2, 5), fill("center", 3, 2)], [(2, 1), (0, 0)]);
    }
}
