//! What a name, word or number under the cursor means and what it comes to, as Markdown.

use crate::schema;
use crate::sema::program::{DefId, DefKind};
use crate::sema::{self, Curriculum, Every, Fact, Stage, show};
use crate::source::{FileId, Span};
use crate::syntax::ast::{self, EntryKind, ItemKind, Preface, Quantity, Unit};

use super::analysis::Analysis;
use super::marks::{Mark, Target, TargetKind, What};
use super::navigation::mark_at;
use super::numbers;

/// What to show, and for which stretch of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hover {
    /// What it is about.
    pub span: Span,
    /// Markdown.
    pub text: String,
}

/// The hover at byte `offset` of `file`.
pub fn hover(analysis: &Analysis, file: FileId, offset: usize) -> Option<Hover> {
    let marks = analysis.names.marks(file);
    let mark = mark_at(&marks, offset)?;
    let pages = Pages { analysis, file };
    let text = pages.describe(mark, &marks)?;
    Some(Hover { span: mark.span, text })
}

struct Pages<'a> {
    analysis: &'a Analysis,
    file: FileId,
}

impl<'a> Pages<'a> {
    fn describe(&self, mark: &Mark<'a>, marks: &[Mark<'a>]) -> Option<String> {
        Some(match mark.what {
            What::Keyword(word, doc) => format!("`{word}`: {doc}"),
            What::Block(block) => format!("`{}`: {}", block.keyword, block.doc),
            What::Define(target) | What::Refer(target) => self.target(target),
            What::Field(block, field) => self.field(mark, block, field),
            What::Function(function) => {
                let mut out = format!("{}\n\n{}", code(&super::signature::label(function).0), function.doc);
                out.push_str(&here(&self.stages(mark), |s| segment_at(s, mark)));
                out
            }
            What::Param(function, param) => {
                let mut out = format!("`{}` of `{}`: {}", param.name, function.name, param.doc);
                if let Some(default) = param.default {
                    out.push_str(&format!("\n\nDefault: `{default}`"));
                }
                out
            }
            What::Word(word, doc) => self.word(mark, word, doc),
            What::Property => return self.property(mark, marks),
            What::RecordField => "A field of the source's records.".to_owned(),
            What::Quantity(quantity) => self.quantity(mark, quantity)?,
            What::Text => return None,
            What::Attribute(attribute) => format!("`@{}` {}.", attribute.name, attribute.doc),
            What::Lint(info) => info.text(),
        })
    }

    fn text(&self, span: Span) -> &'a str {
        self.analysis.names.text(span.file).get(span.range()).unwrap_or_default()
    }

    fn curriculum(&self) -> &'a Curriculum {
        &self.analysis.curriculum
    }

    /// The members of the stage a mark stands in.
    fn stages(&self, mark: &Mark<'_>) -> Vec<&'a Stage> {
        let item = self.analysis.names.tree(self.file).and_then(|tree| tree.items.get(mark.item));
        match item.map(|i| &i.kind) {
            Some(ItemKind::Block(ast::Block { name: Some(name), .. })) => {
                numbers::members(self.curriculum(), name.span)
            }
            _ => Vec::new(),
        }
    }

    fn field(&self, mark: &Mark<'a>, block: &schema::Block, field: &schema::Field) -> String {
        let mut out =
            format!("`{}` of `{}`: {}\n\nTakes {}", field.name, block.keyword, field.doc, field.ty.takes());
        if let Some(default) = field.default {
            out.push_str(&format!("; `{default}` when absent"));
        }
        if field.inherited {
            out.push_str("; taken over from `from` when that is a stage");
        }
        out.push_str(".\n");
        if block.keyword == "stage" {
            out.push_str(&per_member(&self.stages(mark), |s| resolved(self.curriculum(), s, field.name)));
        }
        if let Some(entry) = self.entry(mark) {
            out.push_str(&preface(&entry.preface));
        }
        out
    }

    fn entry(&self, mark: &Mark<'_>) -> Option<&'a ast::Entry> {
        let item = self.analysis.names.tree(self.file)?.items.get(mark.item)?;
        let ItemKind::Block(block) = &item.kind else { return None };
        entry_in(block, mark.span)
    }

    fn word(&self, mark: &Mark<'_>, word: &str, doc: &str) -> String {
        let rest = || self.analysis.rests.get(&mark.span);
        let stages = self.stages(mark);
        let value = match word {
            "inherit" => here(&stages, |s| Some(show::number(s.lr.value(0)))),
            "peak" => here(&stages, |s| Some(show::number(s.lr.max()))),
            "stage" => here(&stages, |s| Some(numbers::length(s))),
            "rest" => rest().map_or_else(String::new, |share| format!("\n\nHere: {share}")),
            _ => String::new(),
        };
        format!("`{word}`: {doc}{value}")
    }

    /// `anneal.lr.end`: the value, when it is one of a stage with one member.
    fn property(&self, mark: &Mark<'_>, marks: &[Mark<'a>]) -> Option<String> {
        let name = self.text(mark.span);
        let stage = marks
            .iter()
            .rev()
            .filter(|m| m.span.end < mark.span.start && m.item == mark.item)
            .find_map(|m| match m.what {
                What::Refer(Target { span, kind: TargetKind::Def(_, DefKind::Stage) })
                    if !self.text(Span { start: m.span.end, ..mark.span }).contains(char::is_whitespace) =>
                {
                    Some(span)
                }
                _ => None,
            });
        let stages =
            stage.map_or_else(|| self.stages(mark), |name| numbers::members(self.curriculum(), name));
        let field = match name {
            "steps" | "overshoot" | "drawn" => "tokens",
            "batch_tokens" => "batch",
            "start_tokens" => "from",
            other => other,
        };
        let value = per_member(&stages, |s| resolved(self.curriculum(), s, field));
        Some(format!("`{name}`: a property\n{value}"))
    }

    fn quantity(&self, mark: &Mark<'_>, quantity: &Quantity) -> Option<String> {
        let mut out = String::new();
        let exact = show::decimal(quantity.value).unwrap_or_else(|| quantity.value.to_string());
        let written = self.text(mark.span);
        let stages = self.stages(mark);
        if quantity.percent {
            let after = self.analysis.names.text(mark.span.file).get(mark.span.end as usize..)?.trim_start();
            let whole = after.strip_prefix("of ")?.trim_start();
            let share = show::real(quantity.value);
            let out = if whole.starts_with("stage") {
                per_member(&stages, |s| {
                    let tokens = (share * s.tokens as f64).round() as u64;
                    Some(format!("{written} of the stage = {}", tokens_and_steps(s, tokens)))
                })
            } else if whole.starts_with("peak") {
                per_member(&stages, |s| {
                    Some(format!("{written} of the peak = {}", show::number(share * s.lr.max())))
                })
            } else {
                String::new()
            };
            return (!out.is_empty()).then(|| out.trim().to_owned());
        }
        let whole = quantity.value.is_integer().then(|| u64::try_from(quantity.value.numer()).ok()).flatten();
        if let Some(whole) = whole.filter(|_| quantity.magnitude.is_some()) {
            out = format!("{written} = {}", numbers::grouped(whole));
        }
        let is_length = self.entry(mark).is_some_and(|e| is_field(e, "tokens"));
        let in_steps = per_member(&stages, |s| match (quantity.unit, whole) {
            (Some(Unit::Tokens), Some(tokens)) if tokens <= s.tokens => Some(tokens_and_steps(s, tokens)),
            (Some(Unit::Steps), Some(steps)) if steps <= s.steps => {
                let tokens = numbers::grouped(s.tokens_at(steps));
                Some(format!("{} steps = {tokens} tokens", numbers::grouped(steps)))
            }
            (Some(Unit::Seqs), _) => Some(numbers::batches(s)),
            (None, Some(tokens)) if is_length && tokens == s.tokens => Some(numbers::length(s)),
            _ => None,
        });
        out.push_str(&format!("\n{in_steps}"));
        let out = out.trim().to_owned();
        if out.is_empty() && exact != written {
            Some(format!("{written} = {exact}"))
        } else {
            (!out.is_empty()).then_some(out)
        }
    }

    fn target(&self, target: Target) -> String {
        match target.kind {
            TargetKind::Def(id, kind) => self.definition(id, kind, target.span),
            TargetKind::Space(Some(module)) => {
                let names = &self.analysis.names.program.modules[module].names;
                format!(
                    "{}\n\nA namespace with {} names.",
                    code(&format!("use … as {}", self.text(target.span))),
                    names.len()
                )
            }
            TargetKind::Space(None) => "A file that could not be read.".to_owned(),
            TargetKind::Variable => {
                format!("`{}`: a variable of the fan-out; one member for each value.", self.text(target.span))
            }
            TargetKind::Eval => format!("`{}`: a measurement during the stage.", self.text(target.span)),
            TargetKind::Checkpoint => self.checkpoint(target.span),
        }
    }

    fn checkpoint(&self, name: Span) -> String {
        let find = |s: &'a Stage| s.checkpoints.iter().find(|c| c.span == name);
        let stages: Vec<&Stage> = self.curriculum().stages.iter().filter(|s| find(s).is_some()).collect();
        if stages.is_empty() {
            return format!("`{}`: a named checkpoint.", self.text(name));
        }
        let of = match stages.as_slice() {
            [stage] => format!("Of `{}`, after", stage.name),
            _ => "After".to_owned(),
        };
        let places = per_member(&stages, |s| {
            let checkpoint = s.checkpoints.iter().find(|c| c.span == name)?;
            Some(format!(
                "{of} {} tokens: step {} of {}{}.",
                show::count(checkpoint.tokens).replace('_', ","),
                numbers::grouped(checkpoint.step),
                numbers::grouped(s.steps),
                if checkpoint.forever { "; kept forever" } else { "" }
            ))
        });
        format!("{}\n{places}", code(&format!("checkpoint {}", self.text(name))))
    }

    fn definition(&self, id: DefId, kind: DefKind, name_span: Span) -> String {
        let item = self.analysis.names.program.item(id);
        let name = self.text(name_span);
        let mut out = match &item.kind {
            ItemKind::Param { .. } | ItemKind::Let { .. } | ItemKind::Bind { .. } => {
                code(&clipped(self.text(item.span)))
            }
            _ => code(&format!("{} {name}", kind.keyword())),
        };
        out.push('\n');
        out.push_str(&preface(&item.preface));
        let curriculum = self.curriculum();
        let facts = match kind {
            DefKind::Param | DefKind::Let => match self.analysis.fact(id) {
                Fact::Value(value) => format!("Value: {}", readable(value)),
                Fact::Mix { shares, .. } => self.shares(shares.as_deref()),
                Fact::None => String::new(),
            },
            DefKind::Mix => match self.analysis.fact(id) {
                Fact::Mix { shares, .. } => self.shares(shares.as_deref()),
                Fact::Value(value) => format!("Value: {value}"),
                Fact::None => String::new(),
            },
            DefKind::Model => {
                curriculum.models.iter().find(|m| m.span == name_span).map(model).unwrap_or_default()
            }
            DefKind::Source => {
                let at = curriculum.sources.iter().position(|s| s.span == name_span);
                at.map(|at| source(curriculum, at)).unwrap_or_default()
            }
            DefKind::Stage => {
                per_member(&numbers::members(curriculum, name_span), |s| Some(summary(curriculum, s)))
            }
            DefKind::Soup => {
                let soup = curriculum.soups.iter().find(|s| s.span == name_span);
                soup.map(|s| soup_text(curriculum, s)).unwrap_or_default()
            }
        };
        if !facts.is_empty() {
            out.push('\n');
            out.push_str(&facts);
        }
        out
    }

    fn shares(&self, shares: Option<&[(usize, f64)]>) -> String {
        let Some(shares) = shares else { return "Its shares move over the stage.".to_owned() };
        let mut out = String::from("| source | share |\n|---|---:|\n");
        for (source, share) in shares {
            if let Some(source) = self.curriculum().sources.get(*source) {
                out.push_str(&format!("| {} | {} |\n", source.name, show::percent(*share)));
            }
        }
        out
    }
}

/// A value with the digits of its number in groups.
fn readable(value: &str) -> String {
    let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    match value[..end].parse() {
        Ok(number) => numbers::grouped(number) + &value[end..],
        Err(_) => value.to_owned(),
    }
}

fn code(text: &str) -> String {
    format!("```curriculum\n{text}\n```")
}

/// The first lines of a long definition.
fn clipped(text: &str) -> String {
    const LINES: usize = 8;
    let mut lines: Vec<&str> = text.lines().take(LINES + 1).collect();
    if lines.len() > LINES {
        lines.pop();
        lines.push("…");
    }
    lines.join("\n")
}

/// Doc comments and where a number comes from.
fn preface(preface: &Preface) -> String {
    let doc = preface.doc();
    let mut out = if preface.docs.is_empty() { String::new() } else { format!("\n{doc}\n") };
    for attr in &preface.attrs {
        let said = attr.args.iter().find_map(|a| match &a.value.kind {
            ast::ExprKind::Str(text) => Some(text),
            _ => None,
        });
        match (attr.name.text.as_str(), said) {
            ("cite", Some(place)) => out.push_str(&format!("\nFrom: {place}\n")),
            ("assumed", Some(why)) => out.push_str(&format!("\nAssumed: {why}\n")),
            _ => {}
        }
    }
    out
}

fn is_field(entry: &ast::Entry, name: &str) -> bool {
    match &entry.kind {
        EntryKind::Field { key, .. } => {
            matches!(key.segments.as_slice(), [ast::PathSegment::Name(n)] if n.text == name)
        }
        _ => false,
    }
}

/// The innermost entry that holds `span`.
fn entry_in(block: &ast::Block, span: Span) -> Option<&ast::Entry> {
    let entry = block.entries.iter().find(|e| e.span.start <= span.start && span.end <= e.span.end)?;
    match &entry.kind {
        EntryKind::Block(inner) => entry_in(inner, span).or(Some(entry)),
        _ => Some(entry),
    }
}

/// What holds for each member of a stage: once, when it is the same for all.
fn per_member(stages: &[&Stage], text: impl Fn(&Stage) -> Option<String>) -> String {
    let texts: Vec<(&str, String)> =
        stages.iter().filter_map(|s| Some((s.name.as_str(), text(s)?))).collect();
    let Some((_, first)) = texts.first() else { return String::new() };
    if texts.len() == stages.len() && texts.iter().all(|(_, t)| t == first) {
        return format!("\n{first}\n");
    }
    // A table or list begins after a blank line.
    let gap = if texts.iter().any(|(_, t)| t.trim_end().contains('\n')) { "\n\n" } else { " " };
    texts.iter().map(|(name, text)| format!("\n`{name}`:{gap}{text}\n")).collect()
}

/// The value at the place of the cursor in each member of its stage.
fn here(stages: &[&Stage], value: impl Fn(&Stage) -> Option<String>) -> String {
    let text = per_member(stages, |s| Some(format!("Here: {}", value(s)?)));
    if text.is_empty() { text } else { format!("\n{}", text.trim_end()) }
}

/// The segment of the learning rate that `mark` stands in.
fn segment_at(stage: &Stage, mark: &Mark<'_>) -> Option<String> {
    let at = stage.lr_spans.iter().position(|s| s.start <= mark.span.start && mark.span.end <= s.end)?;
    Some(numbers::segment(stage, stage.lr.segments.get(at)?))
}

fn tokens_and_steps(stage: &Stage, tokens: u64) -> String {
    format!(
        "{} tokens = {} steps",
        show::count(tokens).replace('_', ","),
        numbers::grouped(stage.step_at(tokens))
    )
}

/// The value of a field of a stage.
fn resolved(curriculum: &Curriculum, stage: &Stage, field: &str) -> Option<String> {
    let text = match field {
        "tokens" | "steps" => {
            let mut text = numbers::length(stage);
            if stage.overshoot > 0 {
                text.push_str(&format!(
                    "; the last step goes {} tokens past the end",
                    numbers::grouped(stage.overshoot)
                ));
            }
            text
        }
        "lr" => {
            let mut text = numbers::course(stage);
            for segment in &stage.lr.segments {
                text.push_str(&format!("\n- `{}` {}", shape(segment), numbers::segment(stage, segment)));
            }
            text
        }
        "batch" => numbers::batches(stage),
        "context" => numbers::context(stage),
        "mix" => portions(curriculum, stage),
        "from" => format!(
            "`{}`, after {} tokens",
            sema::place_name(curriculum, &stage.from),
            show::count(stage.start_tokens).replace('_', ",")
        ),
        "rope" => {
            let rope = stage.rope.as_ref()?;
            let theta = rope.theta.map(|t| format!(", base {}", show::number(t)));
            format!("`{}`{}", rope.method, theta.unwrap_or_default())
        }
        "attention" => format!("`{}`", stage.attention),
        "packing" => format!("`{}`", stage.packing),
        "optimizer" => format!(
            "{}betas {} and {}, eps {}, weight decay {} of matrices{}{}",
            muon(stage.optimizer.muon.as_ref()),
            show::number(stage.optimizer.betas[0]),
            show::number(stage.optimizer.betas[1]),
            show::number(stage.optimizer.eps),
            show::number(stage.optimizer.weight_decay),
            if stage.optimizer.decay_embeddings { "" } else { " but the embedding" },
            if stage.optimizer.decay_norms { " and norms" } else { "" }
        ),
        "save_every" => match stage.save_every? {
            Every { tokens: Some(tokens), .. } => format!("every {} tokens", numbers::grouped(tokens)),
            Every { steps, .. } => format!("every {} steps", numbers::grouped(steps)),
        },
        _ => return None,
    };
    Some(text)
}

fn muon(muon: Option<&sema::Muon>) -> String {
    muon.map_or_else(String::new, |m| {
        let (momentum, rms) = (show::number(m.momentum), show::number(m.update_rms));
        format!("Muon with momentum {momentum} and steps of RMS {rms} for matrices, AdamW for the rest: ")
    })
}

fn shape(segment: &crate::curve::Segment) -> &'static str {
    use crate::curve::Shape;
    match segment.shape {
        Shape::Hold => "hold",
        Shape::Step => "step",
        Shape::Linear => "linear",
        Shape::Cosine => "cosine",
        Shape::OneMinusSqrt => "one_minus_sqrt",
        Shape::Exp | Shape::HalfLife { .. } => "exp",
        Shape::ExpFloor { .. } => "exp_floor",
        Shape::Poly { .. } => "poly",
        Shape::InvSqrt => "inv_sqrt",
        Shape::Power { .. } => "power",
    }
}

fn portions(curriculum: &Curriculum, stage: &Stage) -> String {
    let mut out = String::from("| source | share | tokens | read |\n|---|---:|---:|---:|\n");
    for portion in &stage.mix {
        let Some(source) = curriculum.sources.get(portion.source) else { continue };
        let read = numbers::epochs(curriculum, portion).map_or_else(|| "?".to_owned(), numbers::times);
        out.push_str(&format!(
            "| {} | {} | {} | {read} |\n",
            source.name,
            show::percent(portion.mean),
            show::count(portion.tokens).replace('_', ",")
        ));
    }
    out
}

fn summary(curriculum: &Curriculum, stage: &Stage) -> String {
    let mut out = format!(
        "{}\n\n- from `{}`\n- learning rate {}\n- batch {}\n- context {}\n",
        numbers::length(stage),
        sema::place_name(curriculum, &stage.from),
        numbers::course(stage),
        numbers::batches(stage),
        numbers::context(stage)
    );
    if !stage.inherited.is_empty() {
        out.push_str(&format!("- inherited: {}\n", stage.inherited.join(", ")));
    }
    if !stage.assumed.is_empty() {
        out.push_str(&format!("- assumed: {}\n", stage.assumed.join(", ")));
    }
    out.push('\n');
    out.push_str(&portions(curriculum, stage));
    out
}

fn model(model: &sema::Model) -> String {
    let mut facts = Vec::new();
    facts.extend(model.checkpoint.as_ref().map(|c| format!("checkpoint `{c}`")));
    if let Some(a) = &model.architecture {
        facts.push(format!(
            "`{}`: {} layers of {}, {} heads, vocabulary {}",
            a.model_type,
            a.layers,
            a.hidden,
            a.heads,
            numbers::grouped(a.vocab)
        ));
        facts.extend(a.pattern.describe());
        facts.push(format!("{} parameters in products", show::number(a.matmul_parameters() as f64)));
    }
    facts.extend(model.context.map(|c| format!("context {}", show::length(c))));
    facts.extend(model.lr.map(|lr| format!("stopped at a learning rate of {}", show::number(lr))));
    facts.extend(model.seen.map(|t| format!("has seen {} tokens", show::count(t).replace('_', ","))));
    facts.iter().map(|f| format!("- {f}\n")).collect()
}

fn source(curriculum: &Curriculum, at: usize) -> String {
    let Some(source) = curriculum.sources.get(at) else { return String::new() };
    let size =
        source.tokens.map_or_else(String::new, |t| format!(", {} tokens", show::count(t).replace('_', ",")));
    let mut out = format!("{}{size}\n", source.kind);
    for stage in &curriculum.stages {
        for portion in stage.mix.iter().filter(|p| p.source == at) {
            let drawn = show::count(portion.tokens).replace('_', ",");
            let share = show::percent(portion.mean);
            let read = numbers::epochs(curriculum, portion).map(numbers::times);
            let read = read.map_or_else(String::new, |r| format!("read {r}: "));
            out.push_str(&format!("- `{}`: {read}{drawn} tokens, {share}\n", stage.name));
        }
    }
    out
}

fn soup_text(curriculum: &Curriculum, soup: &sema::Soup) -> String {
    let mut out = format!("`{}` of\n", soup.method);
    for (from, weight) in soup.ingredients.iter().zip(&soup.weights) {
        out.push_str(&format!("- `{}`, {}\n", sema::place_name(curriculum, from), show::percent(*weight)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ide::testing::{CLEAN, analyze, cursor};

    /// The hover of the fixture at the beginning of the `n`-th `what`.
    fn at(what: &str, n: usize) -> String {
        let (_, main, analysis) = analyze(CLEAN);
        let offset = CLEAN.match_indices(what).nth(n).unwrap_or_else(|| panic!("{what}")).0;
        hover(&analysis, main, offset).map_or_else(String::new, |h| h.text)
    }

    #[test]
    fn derived_numbers() {
        for (what, n, says) in [
            ("tokens    = total", 0, "50B tokens = 11,921 steps of 4Mi"),
            ("total_tokens", 0, "Shrink for a trial."),
            ("total_tokens", 1, "Value: 50,000,000,000 tokens"),
            ("math = rest", 0, "read 1.9 times"),
            ("rest\n", 0, "Here: 15%"),
            ("inherit then", 0, "Here: 6e-5"),
            ("linear(to: 0)", 0, "6e-5 → 0 over 50B tokens (11,921 steps)"),
            ("1024 seqs", 0, "1,024 seqs of 4Ki = 4Mi tokens"),
            ("batch ", 0, "4Mi tokens"),
            ("50% of stage", 0, "= 25B tokens = 5,961 steps"),
            ("200 steps", 0, "838,860,800 tokens"),
            ("quality {", 0, "The better mix."),
            ("quality {", 0, "| s.math | 15% |"),
            ("half {", 0, "kept forever"),
            ("olmo2_7b", 0, "OLMo 2 7B"),
            ("missing_files", 0, "E0850"),
            ("4Ki\n", 0, "4Ki = 4,096"),
            ("anneal {", 0, "- learning rate 6e-5 → 0"),
            ("after {", 0, "inherited: "),
            ("lr.end", 0, "6e-5 → 0"),
            ("average", 0, "The mean of the weights."),
            ("final =", 0, "`anneal.half`, 50%"),
        ] {
            let text = at(what, n);
            assert!(text.contains(says), "{what}: {text}");
        }
    }

    /// Each member of a fan-out by its name, and tables after a blank line.
    #[test]
    fn members_that_differ_are_told_apart() {
        let text = format!(
            "{CLEAN}stage many[t in [10B, 20B]] {{\n  from = anneal\n  tokens = t\n  mix = quality\n  \
             lr = inherit then hold(over: 50% of stage) then linear(to: 0)\n  data_seed = 1\n  \
             save_every = 15B tokens\n  checkpoint mid {{ at = 25% of stage }}\n}}\n"
        );
        let (_, main, analysis) = analyze(&text);
        let start = text.find("stage many").unwrap();
        for (what, says) in [
            ("50% of", "`many[10000000000]`: 50% of the stage = 5B tokens"),
            ("50% of", "`many[20000000000]`: 50% of the stage = 10B tokens"),
            ("hold(", "`many[20000000000]`: Here: 0 over 10B tokens"),
            ("inherit", "\n\nHere: 0"),
            ("15B", "`many[20000000000]`: 15B tokens = 3,577 steps"),
            ("mid {", "`many[10000000000]`: After 2.5B tokens"),
            ("many", "`many[10000000000]`:\n\n10B tokens"),
            ("mix", "`many[10000000000]`:\n\n| source |"),
        ] {
            let offset = start + text[start..].find(what).unwrap();
            let found = hover(&analysis, main, offset).map_or_else(String::new, |h| h.text);
            assert!(found.contains(says), "{what}: {found}");
        }
    }

    #[test]
    fn a_bound_mix_shows_its_shares() {
        let (text, offset) = cursor(&format!("{CLEAN}mix $0more = upsample(quality, math: 2)\n"));
        let (_, main, analysis) = analyze(&text);
        let found = hover(&analysis, main, offset).map_or_else(String::new, |h| h.text);
        assert!(found.contains("| s.math | 26.09% |"), "{found}");
    }

    #[test]
    fn a_broken_neighbour_changes_nothing() {
        let (text, offset) = cursor(
            &CLEAN
                .replace("stage after", "stage broken {\n  lr = (((\n}\n\nstage after")
                .replace("tokens    = total_tokens", "$0tokens    = total_tokens"),
        );
        let (_, main, analysis) = analyze(&text);
        let found = hover(&analysis, main, offset).map_or_else(String::new, |h| h.text);
        assert!(found.contains("11,921 steps"), "{found}");
    }
}
