//! One member of a stage: its grid of steps, the curves over it, and the fields that need neither.

use std::rc::Rc;

use crate::curve::Shape;
use crate::diag::{Diagnostic, codes};
use crate::schema;
use crate::sema::attributes::has_assumed;
use crate::sema::batch::in_steps;
use crate::sema::chain::{Chain, Frame};
use crate::sema::checker::Checker;
use crate::sema::clock::{BatchPiece, Clock, Length, Misfit};
use crate::sema::curriculum::{From, Optimizer, Rope, Stage};
use crate::sema::eval::Scope;
use crate::sema::fields::Fields;
use crate::sema::program::DefId;
use crate::sema::rope::RopeGround;
use crate::sema::value::{Kind, Val};
use crate::source::Span;
use crate::syntax::ast::{self, Unit};

use super::fan_out::member_name;
use super::ground::{Ground, Legacy};
use super::portions::portions;

/// A member as it is written: its block, with the variable of a fan-out in scope.
pub(super) struct Draft<'a, 'p> {
    pub(super) id: DefId,
    pub(super) item: &'p ast::Item,
    pub(super) block: &'p ast::Block,
    pub(super) fields: &'a Fields<'p>,
    pub(super) scope: &'a Scope<'p>,
    /// Where the name stands.
    pub(super) name_span: Span,
    /// The name without the member's.
    pub(super) base: String,
    /// What the values of a member of a fan-out are called.
    pub(super) keys: Vec<String>,
}

impl Draft<'_, '_> {
    /// What durations in `field` are measured against, as far as it is known before the grid is laid.
    fn frame<'c>(&self, field: &'c str, tokens: u64, total: Option<u64>) -> Frame<'c> {
        let length = ["tokens", "steps"].into_iter().find_map(|name| self.fields.get(name));
        let length_span = length.map_or(self.name_span, |value| value.span);
        Frame { field, tokens, length_span, clock: None, lr: None, total, laid_by_curve: false }
    }
}

/// Names of fields that a member takes over.
type Inherited = Vec<&'static str>;

/// Where the steps lie. What could not be laid is absent, and the reason said.
struct Grid {
    /// Length of rows from each token on.
    context: Option<Vec<(u64, u64)>>,
    batch: Option<Vec<BatchPiece>>,
    clock: Option<Clock>,
}

/// Fields that hold for the whole stage.
struct Settings {
    rope: Option<Rope>,
    attention: &'static str,
    packing: &'static str,
    precision: Option<&'static str>,
    state: &'static str,
    optimizer: Optimizer,
    data_seed: u64,
    init_seed: u64,
    keep: Option<u64>,
}

/// A value that is taken over, noted as such where there is one.
fn take<T>(inherited: &mut Inherited, field: &'static str, value: Option<T>) -> Option<T> {
    value.inspect(|_| inherited.push(field))
}

impl<'p> Checker<'p> {
    /// Resolve a member; its index among all stages. `None` when something is wrong, all of which is said.
    pub(super) fn member(&mut self, draft: &Draft<'_, 'p>) -> Option<usize> {
        let Draft { fields, scope, block, .. } = *draft;
        let complete = !block.incomplete && self.require(fields, block);
        let from_value = self.field(fields, "from", scope)?;
        let from = self.from(&from_value);
        let ground = from.as_ref().map(|from| self.ground(from, from_value.span));
        let mut inherited = Inherited::new();
        let rows = ground.as_ref().and_then(|g| g.context);
        let length = match block.incomplete && fields.get("tokens").or(fields.get("steps")).is_none() {
            // It may be in what could not be read.
            true => None,
            false => self.length(fields, scope, draft.name_span, rows),
        };

        let context =
            self.chain_or(fields, "context", scope, ground.as_ref().and_then(|g| g.context), rows_of);
        let batch = self.chain_or(fields, "batch", scope, ground.as_ref().and_then(|g| g.batch), batch_of);
        let mix_value = self.field(fields, "mix", scope);
        if let Some(ground) = &ground {
            let lacking = [
                ("context", context.is_none() && ground.context.is_none()),
                ("batch", batch.is_none() && ground.batch.is_none()),
                ("mix", mix_value.is_none() && ground.mix.is_none()),
            ];
            self.inherit_grid(draft, from_value.span, complete, lacking, &mut inherited);
        }
        let grid = self.grid(draft, length, context.as_ref(), batch.as_ref());

        let tokens = grid.clock.as_ref().map_or(0, |clock| clock.tokens);
        let on_grid = Frame { clock: grid.clock.as_ref(), ..draft.frame("lr", tokens, self.total) };
        let mut lr = None;
        let mut truncated = false;
        if let (Some(value), Some(_), Some(ground)) = (self.field(fields, "lr", scope), &grid.clock, &ground)
            && let Some(chain) = self.chain(&value, "lr")
        {
            truncated = chain.truncated;
            lr = self.lr(&chain, on_grid, &ground.lr);
        }
        let mix = grid.clock.as_ref().and_then(|_| match &mix_value {
            Some(value) if value.is_poison() => None,
            Some(value) => {
                let lr = lr.as_ref().map(|(curve, _)| curve);
                self.flatten(value, Some(Frame { field: "mix", lr, ..on_grid }))
            }
            None => ground.as_ref().and_then(|g| g.mix.clone()),
        });

        let longest = grid.context.as_ref().and_then(|points| points.iter().map(|(_, rows)| *rows).max());
        let settings = self.settings(draft, from.as_ref(), ground.as_ref(), longest, &mut inherited);
        let frame = Frame { field: "context", clock: Some(grid.clock.as_ref()?), ..on_grid };
        let save_every = self.optional(draft, "save_every", |c, value| c.every(value, "save_every", frame));
        self.keeps_something(fields);
        let checkpoints = self.checkpoints(block, scope, frame);
        let (evals, evals_sound) = self.evals(block, scope, frame);
        let gates = self.gates(block, scope);
        let (from, ground) = (from?, ground?);
        let ((lr, lr_spans), mix, batch, clock) = (lr?, mix?, grid.batch?, grid.clock?);
        let (settings, save_every, checkpoints, gates) = (settings?, save_every?, checkpoints?, gates?);
        if !complete || !evals_sound {
            return None;
        }
        let mix_shares = portions(&mix, &clock, clock.tokens + clock.overshoot);
        let Draft { base, keys, .. } = draft;
        self.out.stages.push(Stage {
            name: member_name(base, keys),
            doc: draft.item.preface.doc(),
            base: base.clone(),
            keys: keys.clone(),
            span: draft.name_span,
            item: draft.item.span,
            from,
            tokens: clock.tokens,
            steps: clock.steps,
            overshoot: clock.overshoot,
            start_tokens: ground.start_tokens,
            lr,
            lr_spans,
            lr_truncated: truncated,
            context: grid.context?,
            phases: clock.phases,
            rope: settings.rope.map(|rope| Rope { theta: rope.theta.or(ground.theta), ..rope }),
            mix: mix_shares,
            attention: settings.attention,
            packing: settings.packing,
            optimizer: settings.optimizer,
            state: settings.state,
            precision: settings.precision,
            data_seed: settings.data_seed,
            init_seed: settings.init_seed,
            save_every,
            keep: settings.keep,
            checkpoints,
            evals,
            gates,
            assumed: self.assumed(draft, &inherited, &ground),
            inherited,
            architecture: ground.architecture,
            root: ground.root,
            fields: fields.spans(),
        });
        self.legacies.push(Legacy { batch, mix });
        self.member_defs.push(draft.id);
        self.member_locals.push(Rc::clone(&scope.locals));
        Some(self.out.stages.len() - 1)
    }

    /// Which of `context`, `batch` and `mix` are taken over, and which are to be written because there is nothing
    /// to take: `lacking` says so of each.
    fn inherit_grid(
        &mut self,
        draft: &Draft<'_, 'p>,
        from: Span,
        complete: bool,
        lacking: [(&'static str, bool); 3],
        inherited: &mut Inherited,
    ) {
        let mut gaps = Vec::new();
        for (name, lacks) in lacking {
            if !draft.fields.has(name) {
                if lacks { gaps.push(format!("`{name}`")) } else { inherited.push(name) }
            }
        }
        if gaps.is_empty() || draft.fields.doubtful || !complete {
            return;
        }
        let list = gaps.join(" and ");
        self.push(
            Diagnostic::error(
                codes::STAGE_NOTHING_INHERITED,
                draft.name_span,
                format!("stage `{}` has no {list}", draft.base),
                format!("{list} must be written here"),
            )
            .label(from, "there is nothing to inherit from this")
            .help("only what starts from another stage inherits them"),
        );
    }

    /// Lay the steps: context first, then the batch over it, then both over the length.
    fn grid(
        &mut self,
        draft: &Draft<'_, 'p>,
        length: Option<Length>,
        context: Option<&Chain<'p>>,
        batch: Option<&Chain<'p>>,
    ) -> Grid {
        let tokens = match length {
            Some(Length::Tokens(tokens)) => tokens,
            // Known when the steps are laid.
            Some(Length::Steps(_)) | None => 0,
        };
        let frame = draft.frame("context", tokens, self.total);
        let even = length.and_then(|length| even(length, batch?));
        let context_span = context.map(|chain| chain.span);
        let in_steps = |chain: &&Chain<'p>| even.is_none() && chain.segments.iter().any(|c| in_steps(c));
        let in_tokens = match context.filter(in_steps) {
            // A batch that is not known has its own message.
            Some(chain) => {
                batch.zip(length).and_then(|(batch, _)| self.context_in_tokens(chain, batch, frame))
            }
            None => context.cloned(),
        };
        let context = in_tokens.as_ref();
        let mut points = match (context, length, &even) {
            (Some(chain), _, Some(clock)) => {
                self.context(chain, Frame { tokens: clock.tokens, clock: Some(clock), ..frame })
            }
            (Some(chain), Some(_), None) => self.context(chain, frame),
            _ => None,
        };
        let pieces = match (batch, &points) {
            (Some(chain), Some(points)) => self.batch(chain, points, Frame { field: "batch", ..frame }),
            // The grid of steps has its own trouble; the batch's values speak for themselves.
            (Some(chain), None) => self.batch_values(chain),
            (None, _) => None,
        };
        let clock = match (&pieces, &points, length.zip(batch)) {
            (Some(pieces), Some(points), Some((length, batch))) => {
                match self.last_grid.lay(length, points, pieces) {
                    Ok(clock) => Some(clock),
                    Err(Misfit::TooLarge) if matches!(length, Length::Steps(_)) => self.too_many_steps(draft),
                    Err(misfit) => self.misfit(misfit, batch, context_span),
                }
            }
            _ => None,
        };
        // Tokens of a stage measured in steps are known from here on.
        let clock = match (clock, &mut points, length) {
            (Some(clock), Some(points), Some(Length::Steps(_))) => {
                let frame = Frame { tokens: clock.tokens, clock: Some(&clock), laid_by_curve: true, ..frame };
                // On even steps the context was held to the stage as it was laid.
                let mut held = true;
                for (field, chain) in [("context", context.filter(|_| even.is_none())), ("batch", batch)] {
                    let Some(chain) = chain else { continue };
                    held &= self.hold_to_stage(chain, points, Frame { field, ..frame }).is_some();
                }
                // What `truncate` cuts is never trained at.
                points.retain(|(at, _)| *at == 0 || *at < clock.tokens);
                held.then_some(clock)
            }
            (clock, ..) => clock,
        };
        Grid { context: points, batch: pieces, clock }
    }

    /// Report a number of steps that comes to more tokens than can be counted.
    fn too_many_steps<T>(&mut self, draft: &Draft<'_, 'p>) -> Option<T> {
        let value = draft.fields.get("steps")?;
        let written = self.text(value.span).trim_end_matches("steps").trim_end().to_owned();
        self.push(
            Diagnostic::error(
                codes::OUT_OF_RANGE,
                value.span,
                "more tokens than can be counted exactly",
                "so many updates of the weights",
            )
            .help(format!("a step is one update; a length in tokens is written `tokens = {written}`")),
        );
        None
    }

    /// A field that may be left out: `None` when it is written and wrong, `Some(None)` when it is left out.
    fn optional<T>(
        &mut self,
        draft: &Draft<'_, 'p>,
        field: &str,
        read: impl FnOnce(&mut Self, &Val<'p>) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.field(draft.fields, field, draft.scope) {
            Some(value) => read(self, &value).map(Some),
            None => Some(None),
        }
    }

    /// The fields that hold for the whole stage; `longest` are its longest rows.
    fn settings(
        &mut self,
        draft: &Draft<'_, 'p>,
        from: Option<&From>,
        ground: Option<&Ground>,
        longest: Option<u64>,
        inherited: &mut Inherited,
    ) -> Option<Settings> {
        let rope_ground = ground.map_or(RopeGround::default(), |g| RopeGround {
            theta: g.theta,
            head_dim: g.architecture.as_ref().map(|a| a.head_dim),
            context: longest,
        });
        let rope = self
            .optional(draft, "rope", |c, value| {
                let rope = c.rope(value, rope_ground)?;
                let Some(ground) = ground else { return Some(rope) };
                let model = ground.root.map(|model| c.out.models[model].name.clone()).unwrap_or_default();
                c.has_base(&Rope { theta: rope.theta.or(ground.theta), ..rope.clone() }, value, &model)
                    .then_some(rope)
            })
            .map(|rope| rope.or_else(|| take(inherited, "rope", ground?.rope.clone())));
        let mut word = |field: &'static str, words, of_ground: fn(&Ground) -> Option<&'static str>| {
            let word = self.optional(draft, field, |c, value| c.word(value, words, field))?;
            Some(word.or_else(|| take(inherited, field, ground.and_then(of_ground))))
        };
        let attention = word("attention", schema::ATTENTION, |g| g.attention);
        let packing = word("packing", schema::PACKING, |g| g.packing);
        let precision = word("precision", schema::PRECISION, |g| g.precision);
        let state = self.optional(draft, "state", |c, value| {
            let word = c.word(value, schema::STATE, "state")?;
            let kept = match from {
                Some(from) if word == "keep" => c.has_moments(from, value.span),
                _ => true,
            };
            kept.then_some(word)
        });
        let optimizer =
            self.optimizer(draft.fields, draft.scope, ground.and_then(|g| g.optimizer.clone()), inherited);
        let same_moments = match &optimizer {
            Some(optimizer) => {
                // A soup has weights and no moments.
                let soup = matches!(from, Some(From::Soup(_)));
                let before = ground.filter(|_| !soup).and_then(|g| g.optimizer.as_ref());
                let state = state.flatten().unwrap_or("keep");
                self.same_moments(draft.fields, state, before, optimizer)
            }
            None => false,
        };
        let data_seed = self.optional(draft, "data_seed", |c, value| c.whole(value, "data_seed"));
        let init_seed = self.optional(draft, "init_seed", |c, value| c.whole(value, "init_seed"));
        let keep = self.optional(draft, "keep", |c, value| c.whole_positive(value, "keep"));
        if !same_moments {
            return None;
        }
        Some(Settings {
            rope: rope?,
            attention: attention?.unwrap_or("causal"),
            packing: packing?.unwrap_or("concat"),
            precision: precision?,
            state: state?.unwrap_or("keep"),
            optimizer: optimizer?,
            data_seed: data_seed?.unwrap_or(0),
            init_seed: init_seed?.unwrap_or(0),
            keep: keep?,
        })
    }

    /// That `keep` stands beside what it counts.
    fn keeps_something(&mut self, fields: &Fields<'p>) {
        let Some(keep) = fields.get("keep").filter(|_| fields.get("save_every").is_none()) else { return };
        self.push(
            Diagnostic::error(
                codes::WRONG_VALUE,
                keep.span,
                "`keep` without `save_every`",
                "there are no periodic checkpoints",
            )
            .help("write how often one is saved, as in `save_every = 1000 steps`, or leave `keep` out; the last one always stays"),
        );
    }

    /// Fields whose values are assumed: marked themselves, with the whole stage, through a named value, or where
    /// they are inherited from.
    fn assumed(&self, draft: &Draft<'_, 'p>, inherited: &[&'static str], ground: &Ground) -> Vec<String> {
        let whole = has_assumed(&draft.item.preface);
        let written = draft.fields.iter().filter(|(name, entry, value)| {
            has_assumed(&entry.preface)
                || *name != "from" && (whole || self.mentions_assumed(value, draft.scope))
        });
        let mut assumed: Vec<String> = written.map(|(name, ..)| name.to_owned()).collect();
        assumed.extend(inherited.iter().map(|n| (*n).to_owned()).filter(|n| ground.assumed.contains(n)));
        assumed.sort();
        assumed.dedup();
        assumed
    }
}

/// The grid that a batch of so many tokens makes, however long its rows are: no step of it waits for the context.
fn even(length: Length, batch: &Chain<'_>) -> Option<Clock> {
    let Kind::Quantity(tokens, Unit::Tokens) = batch.start.kind else { return None };
    let tokens =
        u64::try_from(tokens.numer()).ok().filter(|_| tokens.is_integer() && batch.segments.is_empty())?;
    let step =
        BatchPiece { start: 0, end: u64::MAX, shape: Shape::Hold, from: tokens, to: tokens, rows: false };
    Clock::lay(length, &[(0, 1)], &[step]).ok()
}

/// An inherited context as a value.
fn rows_of<'p>(context: u64, span: Span) -> Val<'p> {
    Val { kind: Kind::Number(ast::Rational::from(context)), span }
}

/// An inherited batch as a value: how much, and whether it counts rows.
fn batch_of<'p>((batch, rows): (u64, bool), span: Span) -> Val<'p> {
    let unit = if rows { Unit::Seqs } else { Unit::Tokens };
    Val { kind: Kind::Quantity(ast::Rational::from(batch), unit), span }
}
