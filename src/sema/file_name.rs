//! The name that the files of a definition go by.

/// The name of a stage or soup as part of a path: `anneal-42` for `anneal[42]`, because brackets mean
/// something to shells and globs. What stands in brackets may hold more than names do, so that two
/// members can come to one: such a fan-out is refused ([`crate::diag::codes::STAGE_EACH`]), and such a plan.
pub fn file_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            ']' | '"' => {}
            c if c.is_ascii_alphanumeric() || c == '_' || c == '.' => out.push(c),
            _ => out.push('-'),
        }
    }
    out
}
