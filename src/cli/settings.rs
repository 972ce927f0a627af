//! `--set` and `--params` as the checker takes them: every setting with the place it was written,
//! so that its diagnostics are those of a file.

use super::check::ReadError;
use super::files::DiskFiles;
use super::input::InputArgs;
use crate::diag::{Diagnostic, codes};
use crate::sema::{Options, Setting};
use crate::source::{FileId, Files as _, Span};

/// The name under which settings of the command line are shown.
const COMMAND_LINE: &str = "<command line>";
/// What stands before each of them there.
const SET: &str = "--set ";

impl InputArgs {
    /// What the checker needs of these: the params file first, then `--set`, later ones winning.
    /// With it, what is wrong with the lines of the params file as such.
    ///
    /// # Errors
    /// When the params file cannot be read.
    pub(crate) fn options(&self, files: &mut DiskFiles) -> Result<(Options, Vec<Diagnostic>), ReadError> {
        let mut options = Options::default();
        let mut wrong = Vec::new();
        if let Some(path) = &self.params {
            let path = path.display().to_string();
            let file = files.load(&path, None).map_err(|why| ReadError { path, why })?;
            read(files, file, &mut options.set, &mut wrong);
        }
        if !self.set.is_empty() {
            let lines = self.set.iter().map(|s| format!("{SET}{}={}\n", s.name, s.value));
            let file = files.add(COMMAND_LINE, lines.collect());
            read(files, file, &mut options.set, &mut wrong);
        }
        Ok((options, wrong))
    }
}

/// The lines `name = value` of a file; blank lines and comments aside.
fn read(files: &DiskFiles, file: FileId, out: &mut Vec<Setting>, wrong: &mut Vec<Diagnostic>) {
    let mut start = 0;
    for line in files.text(file).split_inclusive('\n') {
        let at = start;
        start += line.len();
        let inner = line.trim_end();
        let inner = inner.strip_prefix(SET).unwrap_or(inner);
        let at = at + line.trim_end().len() - inner.len();
        // A span without the blanks around it.
        let span = |from: usize, text: &str| {
            let from = from + text.len() - text.trim_start().len();
            Span::new(file, from, from + text.trim().len())
        };
        if inner.trim().is_empty() || inner.trim_start().starts_with('#') {
            continue;
        }
        match inner.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() && !value.trim().is_empty() => {
                let place = (span(at, name), span(at + name.len() + 1, value));
                out.push(Setting {
                    name: name.trim().to_owned(),
                    value: value.trim().to_owned(),
                    place: Some(place),
                });
            }
            _ => wrong.push(
                Diagnostic::error(
                    codes::BAD_PARAM,
                    span(at, inner),
                    "a line that is no setting",
                    "`name = value` is expected here",
                )
                .help("a params file has one `name = value` per line, and comments"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_text() {
        let mut files = DiskFiles::new();
        let text = "# a comment\nbudget = 10B  \n\n  lr=3e-4 # fast\r\nnonsense\n= 3\n";
        let file = files.add("p", text.to_owned());
        let (mut set, mut wrong) = (Vec::new(), Vec::new());
        read(&files, file, &mut set, &mut wrong);
        let texts: Vec<(&str, &str)> = set
            .iter()
            .filter_map(|s| s.place)
            .map(|(name, value)| (&text[name.range()], &text[value.range()]))
            .collect();
        assert_eq!(texts, [("budget", "10B"), ("lr", "3e-4 # fast")]);
        let lines: Vec<&str> = wrong.iter().map(|d| &text[d.primary.span.range()]).collect();
        assert_eq!(lines, ["nonsense", "= 3"]);
    }
}
