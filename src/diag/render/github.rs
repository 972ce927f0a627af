//! GitHub workflow commands (`::error file=…,line=…::message`), which a runner turns into
//! annotations. Escapes as in "Workflow commands for GitHub Actions".

use std::fmt::Write as _;

use super::{Places, level_word};
use crate::diag::Diagnostic;
use crate::source::Files;

pub(super) fn render(diagnostics: &[Diagnostic], files: &dyn Files) -> String {
    let mut places = Places::new(files);
    let mut out = String::new();
    for diagnostic in diagnostics {
        let span = diagnostic.primary.span;
        let (start, end) = (places.start(span), places.end(span));
        let title = match diagnostic.lint {
            Some(lint) => format!("{} {lint}", diagnostic.code),
            None => diagnostic.code.to_string(),
        };
        let mut message = diagnostic.message.clone();
        for line in diagnostic
            .notes
            .iter()
            .map(|n| format!("note: {n}"))
            .chain(diagnostic.help.iter().map(|h| format!("help: {h}")))
        {
            message.push('\n');
            message.push_str(&line);
        }
        // Columns are only shown for a span inside one line.
        let columns = if start.line == end.line {
            format!(",col={},endColumn={}", start.col, end.col)
        } else {
            String::new()
        };
        let _ = writeln!(
            out,
            "::{} file={},line={},endLine={}{columns},title={}::{}",
            level_word(diagnostic.level),
            property(places.name(span)),
            start.line,
            end.line,
            property(&title),
            data(&message)
        );
    }
    out
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
