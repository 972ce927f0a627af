//! The parameters of the function whose arguments are being written.

use crate::schema::{self, Function};

use super::context::context;

/// A function and the argument the cursor is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// `linear(to: VALUE, over: SPAN)`.
    pub label: String,
    /// What it does.
    pub doc: &'static str,
    /// Byte ranges of the parameters in the label, with what they mean.
    pub parameters: Vec<(std::ops::Range<usize>, String)>,
    /// The one the cursor is in.
    pub active: Option<usize>,
}

/// The signature at byte `offset`.
pub fn signature(text: &str, offset: usize) -> Option<Signature> {
    let context = context(text, offset)?;
    let call = context.call()?;
    let function = schema::function(call.callee)?;
    let (label, parameters) = label(function);
    let shift = usize::from(function.positional.is_some());
    let active = match call.argument {
        Some(name) => function.params.iter().position(|p| p.name == name).map(|i| i + shift),
        // A name being typed: the first parameter that is not written yet.
        None if function.positional.is_some() && call.named.is_empty() => Some(0),
        None => function.params.iter().position(|p| !call.named.contains(&p.name)).map(|i| i + shift),
    };
    Some(Signature { label, doc: function.doc, parameters, active })
}

/// The label of a function and its parameters.
pub(crate) fn label(function: &Function) -> (String, Vec<(std::ops::Range<usize>, String)>) {
    let mut out = format!("{}(", function.name);
    let mut parameters = Vec::new();
    let mut push = |out: &mut String, text: &str, doc: String| {
        if !out.ends_with('(') {
            out.push_str(", ");
        }
        let start = out.len();
        out.push_str(text);
        parameters.push((start..out.len(), doc));
    };
    if let Some(what) = function.positional {
        push(&mut out, &format!("{what}, …"), String::new());
    }
    for p in function.params {
        let mark = if p.required { "" } else { "?" };
        let default = p.default.map_or_else(String::new, |d| format!(" = {d}"));
        push(&mut out, &format!("{}{mark}: {}{default}", p.name, short(p.ty)), p.doc.to_owned());
    }
    if let Some(what) = function.open {
        push(&mut out, &format!("{what}: …"), String::new());
    }
    out.push(')');
    (out, parameters)
}

/// A type in one word.
fn short(ty: schema::Ty) -> String {
    use schema::Ty;
    match ty {
        Ty::Tokens => "tokens",
        Ty::Steps => "steps",
        Ty::Span => "span",
        Ty::Target => "value",
        Ty::Share => "share",
        Ty::Number => "number",
        Ty::Whole => "whole number",
        Ty::Condition => "condition",
        Ty::Numbers => "numbers",
        Ty::Text => "text",
        Ty::Word(words) => {
            return words.iter().map(|w| w.name).collect::<Vec<_>>().join(" | ");
        }
        _ => "value",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ide::testing::cursor;

    #[test]
    fn the_argument_under_the_cursor() {
        for (marked, expected) in [
            ("stage a {\n lr = 1 then linear($0", Some("to: value")),
            ("stage a {\n lr = 1 then linear(to: 0, $0", Some("over?: span")),
            ("stage a {\n lr = 1 then linear(over: 5% of stage, to: $0)", Some("to: value")),
            ("model a {\n rope = yarn(original: 4Ki, beta_slow: $0", Some("beta_slow?: number = 1")),
            ("soup a = average($0", Some("stages, fan-outs or checkpoints, …")),
            ("stage a {\n optimizer = adamw(betas: [0.9, $0", Some("betas?: numbers = [0.9, 0.95]")),
            ("stage a {\n lr = nothing($0", None),
            ("stage a {\n lr = $0", None),
        ] {
            let (text, offset) = cursor(marked);
            let found = signature(&text, offset);
            let active = found.as_ref().and_then(|s| Some(&s.label[s.parameters.get(s.active?)?.0.clone()]));
            assert_eq!(active, expected, "{marked}");
        }
    }
}
