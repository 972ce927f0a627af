//! Derived numbers beside what was written: steps of a length, where a segment runs, what `rest`
//! comes to, how often a source is read, what is inherited.

use std::collections::HashMap;

use crate::schema;
use crate::sema::{Stage, show};
use crate::source::{FileId, Span};
use crate::syntax::ast::{Block, EntryKind, Expr, ExprKind, ItemKind, PathSegment};

use super::analysis::Analysis;
use super::marks::{Target, TargetKind, What};
use super::numbers;

/// A remark inside a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The file.
    pub file: FileId,
    /// The byte it stands before.
    pub at: u32,
    /// The remark.
    pub text: String,
    /// What it tells.
    pub kind: HintKind,
}

/// What a hint tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HintKind {
    /// Steps of a length, tokens of a number of steps.
    Steps,
    /// Where a segment of a learning rate runs; what `inherit` is.
    Curve,
    /// How often a source is read.
    Epochs,
    /// What `rest` comes to.
    Rest,
    /// Fields taken over.
    Inherited,
}

/// Which hints are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct HintOptions {
    pub steps: bool,
    pub curves: bool,
    pub epochs: bool,
    pub rest: bool,
    pub inherited: bool,
}

impl Default for HintOptions {
    fn default() -> Self {
        Self { steps: true, curves: true, epochs: true, rest: true, inherited: true }
    }
}

impl HintOptions {
    fn wants(self, kind: HintKind) -> bool {
        match kind {
            HintKind::Steps => self.steps,
            HintKind::Curve => self.curves,
            HintKind::Epochs => self.epochs,
            HintKind::Rest => self.rest,
            HintKind::Inherited => self.inherited,
        }
    }
}

/// The hints in bytes `range` of `file`, in order.
pub fn hints(
    analysis: &Analysis,
    file: FileId,
    range: std::ops::Range<usize>,
    options: HintOptions,
) -> Vec<Hint> {
    let mut hinting = Hinting { analysis, file, out: Vec::new() };
    let Some(tree) = analysis.names.tree(file) else { return Vec::new() };
    for item in &tree.items {
        let ItemKind::Block(block) = &item.kind else { continue };
        // Items outside of what is asked for cost nothing.
        if (block.span.end as usize) < range.start || range.end < block.span.start as usize {
            continue;
        }
        if block.kind.text == "stage" {
            hinting.stage(block);
        }
    }
    if options.rest {
        hinting.rest();
    }
    if options.epochs {
        hinting.epochs();
    }
    let mut out = hinting.out;
    out.retain(|h| options.wants(h.kind) && range.start <= h.at as usize && h.at as usize <= range.end);
    out.sort_by_key(|h| h.at);
    out.dedup();
    out
}

struct Hinting<'a> {
    analysis: &'a Analysis,
    file: FileId,
    out: Vec<Hint>,
}

impl Hinting<'_> {
    fn push(&mut self, after: Span, text: String, kind: HintKind) {
        if after.file == self.file {
            self.out.push(Hint { file: self.file, at: after.end, text, kind });
        }
    }

    fn stage(&mut self, block: &Block) {
        let Some(name) = &block.name else { return };
        let members = numbers::members(&self.analysis.curriculum, name.span);
        for entry in &block.entries {
            let EntryKind::Field { key, value } = &entry.kind else { continue };
            let [PathSegment::Name(key)] = key.segments.as_slice() else { continue };
            match key.text.as_str() {
                "tokens" => {
                    self.each(&members, value.span, HintKind::Steps, "= ", |s| Some(numbers::steps(s)))
                }
                "steps" => self.each(&members, value.span, HintKind::Steps, "= ", |s| {
                    Some(format!("{} tokens", show::count(s.tokens).replace('_', ",")))
                }),
                "from" => self.each(&members, value.span, HintKind::Inherited, "inherits ", |s| {
                    let taken: Vec<&str> =
                        s.inherited.iter().copied().filter(|f| schema_inherits(f)).collect();
                    (!taken.is_empty()).then(|| taken.join(", "))
                }),
                "lr" => self.curve(&members, value),
                _ => {}
            }
        }
    }

    /// What `text` makes of the members of a stage, behind `after`.
    fn each(
        &mut self,
        members: &[&Stage],
        after: Span,
        kind: HintKind,
        head: &str,
        text: impl Fn(&Stage) -> Option<String>,
    ) {
        if let Some(text) = numbers::of_all(members, text) {
            self.push(after, format!("{head}{text}"), kind);
        }
    }

    fn curve(&mut self, members: &[&Stage], value: &Expr) {
        let parts = match &value.kind {
            ExprKind::Then(parts) => parts.as_slice(),
            _ => std::slice::from_ref(value),
        };
        if let Some(first) = parts.first()
            && matches!(&first.kind, ExprKind::Path(p) if matches!(p.segments.as_slice(), [PathSegment::Name(n)] if n.text == "inherit"))
        {
            self.each(members, first.span, HintKind::Curve, "= ", |s| Some(show::number(s.lr.value(0))));
        }
        let mut spans: Vec<Span> = members.iter().flat_map(|s| s.lr_spans.iter().copied()).collect();
        spans.sort_by_key(|span| (span.file, span.start, span.end));
        spans.dedup();
        for span in spans {
            // Only what is written here and moves or lasts.
            let here = span.file == value.span.file
                && value.span.start <= span.start
                && span.end <= value.span.end
                && span != value.span;
            if here && parts.len() > 1 {
                self.each(members, span, HintKind::Curve, "", |s| {
                    let segment = numbers::segment_of(s, span).filter(|segment| segment.end > segment.start);
                    segment.map(|segment| numbers::segment(s, segment))
                });
            }
        }
    }

    fn rest(&mut self) {
        // In any order: all hints are sorted by their place at the end.
        let rests = &self.analysis.rests;
        rests.iter().for_each(|(span, share)| self.push(*span, format!("= {share}"), HintKind::Rest));
    }

    /// Beside the key of an entry of a mix: passes over the source, in the stages that read it.
    fn epochs(&mut self) {
        let curriculum = &self.analysis.curriculum;
        let mut reads: HashMap<Span, (f64, f64)> = HashMap::new();
        for portion in curriculum.stages.iter().flat_map(|s| &s.mix) {
            let Some(epochs) = numbers::epochs(curriculum, portion) else { continue };
            let span = curriculum.sources[portion.source].span;
            let (low, high) = reads.entry(span).or_insert((f64::INFINITY, 0.0));
            (*low, *high) = (low.min(epochs), high.max(epochs));
        }
        let marks = self.analysis.names.marks(self.file);
        let Some(tree) = self.analysis.names.tree(self.file) else { return };
        for mark in &marks {
            let What::Refer(Target { span, kind: TargetKind::Def(..) }) = mark.what else { continue };
            let Some((low, high)) = reads.get(&span).copied() else { continue };
            let Some(ItemKind::Block(block)) = tree.items.get(mark.item).map(|i| &i.kind) else { continue };
            let entry = mix_around(block, mark.span).and_then(|mix| {
                mix.entries.iter().find_map(|e| match &e.kind {
                    EntryKind::Field { key, value } if key.span.end == mark.span.end => Some(value),
                    _ => None,
                })
            });
            let Some(value) = entry else { continue };
            let (low, high) = (numbers::times(low), numbers::times(high));
            let text = if low == high {
                format!("read {high}")
            } else {
                format!("read {} to {high}", low.trim_end_matches(" times"))
            };
            self.push(value.span, text, HintKind::Epochs);
        }
    }
}

/// The mix that `at` is in: `block` itself, or one that is written in it.
fn mix_around(block: &Block, at: Span) -> Option<&Block> {
    if block.kind.text == "mix" {
        return Some(block);
    }
    block.entries.iter().find_map(|entry| match &entry.kind {
        EntryKind::Block(inner)
            if inner.kind.text == "mix" && inner.span.range().contains(&(at.start as usize)) =>
        {
            Some(inner)
        }
        _ => None,
    })
}

fn schema_inherits(field: &str) -> bool {
    schema::block("stage").and_then(|b| b.field(field)).is_some_and(|f| f.inherited)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ide::testing::{CLEAN, analyze};

    fn shown(options: HintOptions) -> Vec<String> {
        let (_, main, analysis) = analyze(CLEAN);
        hints(&analysis, main, 0..CLEAN.len(), options)
            .iter()
            .map(|h| {
                let line = CLEAN[..h.at as usize].rsplit('\n').next().unwrap_or_default().trim();
                format!("{line} ⟨{}⟩", h.text)
            })
            .collect()
    }

    /// A number that holds for one member only is not shown as if it held for all.
    #[test]
    fn members_that_differ_show_it() {
        let text = format!(
            "{CLEAN}stage many[t in [10B, 20B]] {{\n  from = anneal\n  tokens = t\n  \
             lr = inherit then hold(over: 50% of stage) then linear(to: 0)\n  data_seed = 1\n}}\n"
        );
        let (_, main, analysis) = analyze(&text);
        let start = text.find("stage many").unwrap();
        let found = hints(&analysis, main, start..text.len(), HintOptions::default());
        let found: Vec<&str> = found.iter().map(|h| h.text.as_str()).collect();
        assert!(found.contains(&"= 2,385 steps of 4Mi | 4,769 steps of 4Mi"), "{found:?}");
        assert!(
            found.iter().any(|f| f.starts_with("0 over 5B tokens (1,193 steps) | 0 over 10B")),
            "{found:?}"
        );
        assert!(found.contains(&"= 0"), "{found:?}");
        let many = text.replace("[10B, 20B]", "[1B, 2B, 3B, 4B, 5B]");
        let (_, main, analysis) = analyze(&many);
        let found = hints(&analysis, main, start..many.len(), HintOptions::default());
        assert!(found.iter().any(|h| h.text == "= differs by member"));
    }

    #[test]
    fn derived_numbers() {
        let none = HintOptions { steps: false, curves: false, epochs: false, rest: false, inherited: false };
        assert_eq!(shown(none), [""; 0]);
        assert_eq!(shown(HintOptions { rest: true, ..none }), ["s.math = rest ⟨= 15%⟩"]);
        assert_eq!(
            shown(HintOptions { steps: true, ..none }),
            ["tokens    = total_tokens ⟨= 11,921 steps of 4Mi⟩", "tokens    = 10B ⟨= 2,385 steps of 4Mi⟩"]
        );
        assert_eq!(
            shown(HintOptions { inherited: true, ..none }),
            ["from      = anneal ⟨inherits context, batch, mix, attention, packing, optimizer⟩"]
        );
        assert_eq!(
            shown(HintOptions { epochs: true, ..none }),
            ["s.web  = 85% ⟨read 0.017 to 0.085 times⟩", "s.math = rest ⟨read 0.38 to 1.9 times⟩"]
        );
        let curves = shown(HintOptions { curves: true, ..none });
        assert_eq!(curves[0], "lr        = inherit ⟨= 6e-5⟩");
        assert_eq!(curves.len(), 4, "{curves:?}");
    }
}
