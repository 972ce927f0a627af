//! What lints look at: the resolved curriculum, the lineage of a stage, the text around a place.
//! Knows no particular lint.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use crate::sema::curriculum::{Curriculum, From, Portion, Rope, Source, Stage};
use crate::sema::stage::Legacy;
use crate::source::{FileId, Files, Span};

/// Everything a lint may look at.
pub(super) struct Scene<'a> {
    pub(super) curriculum: &'a Curriculum,
    /// What its stages leave, in the same order.
    pub(super) legacies: &'a [Legacy],
    pub(super) files: &'a dyn Files,
    /// The file that was checked; paths are relative to it.
    pub(super) root: FileId,
    /// What [`Scene::drawn`] found: several lints ask along every lineage.
    pub(super) known: RefCell<HashMap<From, Drawn>>,
}

/// Tokens of whole sources, by index.
pub(super) type Drawn = Rc<BTreeMap<usize, u64>>;

/// One earlier stage of a lineage and how much of it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leg {
    /// The stage, by index.
    pub(super) stage: usize,
    /// Tokens of it that were seen: all, or up to a named checkpoint.
    pub(super) upto: u64,
}

impl<'a> Scene<'a> {
    /// Stages with their index.
    pub(super) fn stages(&self) -> impl Iterator<Item = (usize, &'a Stage)> {
        self.curriculum.stages.iter().enumerate()
    }

    /// The value of a field as written; the name of the stage where it is not.
    pub(super) fn field(&self, stage: &Stage, name: &str) -> Span {
        stage.fields.get(name).copied().unwrap_or(stage.span)
    }

    /// The text of a span.
    pub(super) fn text(&self, span: Span) -> &'a str {
        self.files.text(span.file).get(span.range()).unwrap_or_default()
    }

    /// A source by its index.
    pub(super) fn source(&self, index: usize) -> &'a Source {
        &self.curriculum.sources[index]
    }

    /// The source that a part (`where`) was taken from in the end.
    pub(super) fn whole(&self, mut index: usize) -> usize {
        while let Some(parent) = self.source(index).parent {
            index = parent;
        }
        index
    }

    /// The stages that `from` has behind it, nearest first; of a soup, those of every ingredient.
    /// Each stage once, with the most that any way through it has seen.
    pub(super) fn lineage(&self, from: &From) -> Vec<Leg> {
        let mut legs: Vec<Leg> = Vec::new();
        // Where each stage stands among the legs: a search for each would make long chains cubic.
        let mut places: HashMap<usize, usize> = HashMap::new();
        let mut open = vec![from.clone()];
        while let Some(from) = open.pop() {
            let leg = match from {
                From::Model(_) => continue,
                From::Soup(soup) => {
                    open.extend(self.curriculum.soups[soup].ingredients.iter().cloned());
                    continue;
                }
                From::Stage(stage) => Leg { stage, upto: self.curriculum.stages[stage].drawn() },
                From::Checkpoint(stage, point) => {
                    let s = &self.curriculum.stages[stage];
                    Leg { stage, upto: s.tokens_at(s.checkpoints[point].step) }
                }
            };
            match places.get(&leg.stage) {
                Some(known) => legs[*known].upto = legs[*known].upto.max(leg.upto),
                None => {
                    places.insert(leg.stage, legs.len());
                    legs.push(leg);
                    open.push(self.curriculum.stages[leg.stage].from.clone());
                }
            }
        }
        legs
    }

    /// Tokens of each whole source drawn on the way to `from`. Where ways meet in a soup the
    /// hungriest counts: no weight has seen more than it.
    pub(super) fn drawn(&self, from: &From) -> Drawn {
        if let Some(drawn) = self.known.borrow().get(from) {
            return Rc::clone(drawn);
        }
        let through = |stage: usize, upto: Option<u64>| {
            let s = &self.curriculum.stages[stage];
            let mut drawn = BTreeMap::clone(&self.drawn(&s.from));
            for (source, tokens) in self.own(s, upto) {
                *drawn.entry(source).or_insert(0) += tokens;
            }
            drawn
        };
        let drawn = Rc::new(match from {
            From::Model(_) => BTreeMap::new(),
            From::Soup(soup) => {
                let mut most = BTreeMap::new();
                for ingredient in &self.curriculum.soups[*soup].ingredients {
                    for (source, tokens) in self.drawn(ingredient).iter() {
                        let known = most.entry(*source).or_insert(0);
                        *known = (*tokens).max(*known);
                    }
                }
                most
            }
            From::Stage(stage) => through(*stage, None),
            From::Checkpoint(stage, point) => {
                let s = &self.curriculum.stages[*stage];
                through(*stage, Some(s.tokens_at(s.checkpoints[*point].step)))
            }
        });
        self.known.borrow_mut().insert(from.clone(), Rc::clone(&drawn));
        drawn
    }

    /// Tokens of each whole source drawn by a stage itself, by all of it or by its first `upto` tokens.
    pub(super) fn own(&self, stage: &Stage, upto: Option<u64>) -> BTreeMap<usize, u64> {
        let mut own = BTreeMap::new();
        for portion in &stage.mix {
            *own.entry(self.whole(portion.source)).or_insert(0) += taken(portion, upto);
        }
        own
    }

    /// The learning rate that `from` ends with and where that is written, if it is known.
    pub(super) fn lr_at(&self, from: &From) -> Option<(f64, Span)> {
        match from {
            From::Model(model) => {
                let m = &self.curriculum.models[*model];
                Some((m.lr?, m.fields.get("lr").copied().unwrap_or(m.span)))
            }
            From::Stage(stage) => {
                let s = &self.curriculum.stages[*stage];
                Some((s.lr.end_value(), self.field(s, "lr")))
            }
            From::Checkpoint(stage, point) => {
                let s = &self.curriculum.stages[*stage];
                let at = s.tokens_at(s.checkpoints[*point].step).min(s.tokens);
                Some((s.lr.value(at), s.checkpoints[*point].span))
            }
            From::Soup(soup) => {
                let s = &self.curriculum.soups[*soup];
                let ends: Option<Vec<f64>> = s.ingredients.iter().map(|i| Some(self.lr_at(i)?.0)).collect();
                let ends = ends?;
                let first = *ends.first()?;
                // Ingredients that stopped at different rates leave no one rate to go on from.
                ends.iter().all(|lr| same(*lr, first)).then_some((first, s.span))
            }
        }
    }

    /// The position encoding that `from` leaves and where it is written.
    pub(super) fn rope_at(&self, from: &From) -> Option<(&'a Rope, Span)> {
        match from {
            From::Model(model) => {
                let m = &self.curriculum.models[*model];
                Some((m.rope.as_ref()?, m.fields.get("rope").copied().unwrap_or(m.span)))
            }
            From::Stage(stage) | From::Checkpoint(stage, _) => {
                let s = &self.curriculum.stages[*stage];
                match s.fields.get("rope") {
                    Some(span) => Some((s.rope.as_ref()?, *span)),
                    None => self.rope_at(&s.from),
                }
            }
            From::Soup(soup) => self.rope_at(self.curriculum.soups[*soup].ingredients.first()?),
        }
    }

    /// The model at the root of `from`, by index.
    pub(super) fn root_model(&self, from: &From) -> Option<usize> {
        match from {
            From::Model(model) => Some(*model),
            From::Stage(stage) | From::Checkpoint(stage, _) => {
                self.root_model(&self.curriculum.stages[*stage].from)
            }
            From::Soup(soup) => self.root_model(self.curriculum.soups[*soup].ingredients.first()?),
        }
    }

    /// The context that `from` was last trained at, or its native one.
    pub(super) fn context_at(&self, from: &From) -> Option<u64> {
        match from {
            From::Model(model) => self.curriculum.models[*model].context,
            From::Stage(stage) => Some(self.curriculum.stages[*stage].context_end()),
            From::Checkpoint(stage, point) => {
                let s = &self.curriculum.stages[*stage];
                let at = s.tokens_at(s.checkpoints[*point].step);
                s.context.iter().rev().find(|(start, _)| *start < at.max(1)).map(|(_, value)| *value)
            }
            From::Soup(soup) => self.context_at(self.curriculum.soups[*soup].ingredients.first()?),
        }
    }

    /// Where the context that `from` was last trained at is written, and what has it.
    pub(super) fn context_place(&self, from: &From) -> Option<(&'a str, Span)> {
        match from {
            From::Model(model) => {
                let m = &self.curriculum.models[*model];
                Some((&m.name, *m.fields.get("context")?))
            }
            From::Stage(stage) | From::Checkpoint(stage, _) => {
                let s = &self.curriculum.stages[*stage];
                match s.fields.get("context") {
                    Some(at) => Some((&s.name, *at)),
                    None => self.context_place(&s.from),
                }
            }
            From::Soup(soup) => self.context_place(self.curriculum.soups[*soup].ingredients.first()?),
        }
    }

    /// `from` as it is written in messages: `anneal[42]`.
    pub(super) fn name(&self, from: &From) -> String {
        crate::sema::place_name(self.curriculum, from)
    }
}

/// Tokens of one portion, of the whole stage or of its beginning.
pub(super) fn taken(portion: &Portion, upto: Option<u64>) -> u64 {
    match upto {
        None => portion.tokens,
        Some(0) => 0,
        Some(upto) => (portion.weight.mean(upto) * upto as f64).round() as u64,
    }
}

/// Whether a source is chosen for the length of its documents.
pub(super) fn is_long(source: &Source) -> bool {
    source.kind == "long"
        || source.filter.as_deref().is_some_and(|f| f.contains("length >") || f.contains("length =="))
}

/// Whether two learning rates are one to a millionth.
pub(super) fn same(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * a.abs().max(b.abs())
}
