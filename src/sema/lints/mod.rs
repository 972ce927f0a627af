//! What is legal and unwise, one file per lint. Each exists because a published run got it wrong
//! or a study measured it.

mod anneal_too_short;
mod batch_changes_tokens;
mod benchmark_in_train;
mod boundary_alignment;
mod budget_vs_source;
mod context_starved;
mod decay_too_short;
mod decimal_context;
mod epochs_over_cap;
mod levels;
mod long_only;
mod lr_jump;
mod lr_never_lands;
mod lr_rises_in_decay;
mod lr_scale;
mod missing_data_seed;
mod missing_files;
mod optimizer_reset_without_warmup;
mod quality_inverted;
mod replay_below_floor;
mod rope_reach;
mod rope_transition;
mod same_order;
mod scene;
mod soup_ingredients;
mod source_overlap;
mod unpinned_source;
mod unused;
mod weight_below_quantum;

use std::collections::HashSet;

use self::scene::Scene;
use super::chain::{Chain, Frame};
use super::checker::Checker;
use super::curriculum::Curriculum;
use super::program::Program;
use super::show;
use crate::diag::{Diagnostic, Level, codes};
use crate::source::{FileId, Span};
use crate::syntax::ast::File;

/// The lints that need only the resolved curriculum.
const LINTS: &[fn(&Scene<'_>, &mut Vec<Diagnostic>)] = &[
    anneal_too_short::check,
    batch_changes_tokens::check,
    benchmark_in_train::check,
    boundary_alignment::check,
    budget_vs_source::check,
    context_starved::check,
    decay_too_short::check,
    epochs_over_cap::check,
    long_only::check,
    lr_jump::check,
    lr_never_lands::check,
    lr_rises_in_decay::check,
    lr_scale::check,
    missing_data_seed::check,
    missing_files::check,
    optimizer_reset_without_warmup::check,
    quality_inverted::check,
    replay_below_floor::check,
    rope_reach::check,
    rope_transition::check,
    same_order::check,
    soup_ingredients::check,
    source_overlap::check,
    weight_below_quantum::check,
];

/// Give diagnostics that came later the levels of the files.
pub(super) fn give_levels(program: &Program, diagnostics: &mut Vec<Diagnostic>) {
    let files: Vec<(FileId, &File)> = program.modules.iter().map(|m| (m.file, &m.ast)).collect();
    let found = diagnostics.len();
    levels::apply(&files, false, diagnostics);
    // What is wrong with the levels themselves was said when the file was checked.
    diagnostics.truncate(found);
}

impl<'p> Checker<'p> {
    /// Run the lints, set levels, sort, hand over: what was resolved and whether that is all.
    pub(crate) fn finish(mut self, name: String) -> (Curriculum, bool, Vec<Diagnostic>) {
        self.out.name = name;
        // What is found before the lints run stands in the way of a stage.
        let complete = self.early_lints.is_empty()
            && self.diags.iter().all(|d| d.level != Level::Deny || d.lint.is_some());
        let program = self.program;
        let mut found = std::mem::take(&mut self.early_lints);
        for module in &program.modules {
            decimal_context::check(&module.ast, &mut found);
            unpinned_source::check(&module.ast, &mut found);
        }
        let scene = Scene {
            curriculum: &self.out,
            legacies: &self.legacies,
            files: self.files,
            root: program.modules[0].file,
            known: std::cell::RefCell::default(),
        };
        // What is absent because of an error would be missed here and there: an unused source may
        // be one that the broken mix names.
        if complete {
            unused::check(&scene, program, &self.used, &mut found);
        }
        for lint in LINTS {
            lint(&scene, &mut found);
        }
        // Members of a fan-out share their text: one mistake, one message.
        let mut seen: HashSet<(u16, Span, String)> = HashSet::new();
        found.retain(|d| seen.insert((d.code.0, d.primary.span, without_members(&d.message))));
        self.diags.append(&mut found);
        let files: Vec<(FileId, &File)> = program.modules.iter().map(|m| (m.file, &m.ast)).collect();
        levels::apply(&files, complete, &mut self.diags);
        self.diags.sort_by_key(|d| (d.primary.span.file, d.primary.span.start, d.code));
        (self.out, complete, self.diags)
    }

    /// `lr_never_lands` for spans in steps under a growing batch.
    pub(crate) fn never_lands_in_steps(
        &mut self,
        chain: &Chain<'p>,
        over: u64,
        share: f64,
        frame: Frame<'_>,
    ) {
        self.early_lints.push(
            Diagnostic::lint(
                codes::LR_NEVER_LANDS,
                "lr_never_lands",
                Level::Deny,
                chain.span,
                format!(
                    "the learning rate lands {} ({} of the stage) after the end: its spans are in steps and the batch grows",
                    show::tokens(over),
                    show::percent(share)
                ),
                "these steps are worth more tokens than the stage has",
            )
            .label(frame.length_span, format!("the stage has {} tokens", show::count(frame.tokens)))
            .help("give spans in tokens or as a share of the stage: they do not move with the batch"),
        );
    }
}

/// A message without the `[42]` of a fan-out's members.
fn without_members(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    let mut depth = 0u32;
    for c in message.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            c if depth == 0 => out.push(c),
            _ => {}
        }
    }
    out
}
