//! `stage` blocks: fan-out, the grid of steps, curves over it. What a stage starts from and takes
//! over is in [`ground`], its smaller fields in `parts`.

mod ground;
mod optimizer;
mod parts;

pub(crate) use ground::{Legacy, place_name};

use std::collections::HashMap;

use crate::curve::{Blend, Curve};
use crate::diag::Diagnostic;
use crate::schema;
use crate::source::Span;
use crate::syntax::ast::{self, Unit};

use crate::diag::codes;
use crate::sema::attributes::has_assumed;
use crate::sema::chain::Frame;
use crate::sema::checker::Checker;
use crate::sema::clock::{Clock, Length};
use crate::sema::curriculum::{self, Portion, Rope, Stage};
use crate::sema::eval::Scope;
use crate::sema::fields::Fields;
use crate::sema::file_name;
use crate::sema::mix::{Amount, Flat};
use crate::sema::program::{DefId, visit_expr};
use crate::sema::rope::RopeGround;
use crate::sema::show;
use crate::sema::value::{Kind, Val};

/// A fan-out over more members than this is refused.
const MAX_MEMBERS: usize = 1000;

impl<'p> Checker<'p> {
    /// A `stage` block: its members.
    pub(crate) fn resolve_stage(
        &mut self,
        id: DefId,
        item: &'p ast::Item,
        block: &'p ast::Block,
        scope: &Scope<'p>,
    ) -> Vec<usize> {
        let Some(name) = &block.name else { return Vec::new() };
        let Some(fields) = self.fields(block) else { return Vec::new() };
        let Some(each) = &block.each else {
            let base = self.full_name(id);
            return self.member(id, item, block, name.span, &fields, scope, base, None).into_iter().collect();
        };
        let values = self.eval(&each.values, scope);
        let Kind::List(values) = &values.kind else {
            if !values.is_poison() {
                let found = values.describe();
                self.push(
                    Diagnostic::error(
                        codes::STAGE_EACH,
                        each.values.span,
                        format!("a fan-out over {found}"),
                        "a list is expected here",
                    )
                    .help(format!("write `stage {}[{} in [1, 2, 3]]`", name.text, each.var.text)),
                );
            }
            return Vec::new();
        };
        if values.is_empty() || values.len() > MAX_MEMBERS {
            self.push(Diagnostic::error(
                codes::STAGE_EACH,
                each.values.span,
                format!("a fan-out over {} values", values.len()),
                format!("between 1 and {MAX_MEMBERS} are possible"),
            ));
            return Vec::new();
        }
        if values.len() > 1 && !mentions(block, &each.var.text) && !block.incomplete {
            self.push(
                Diagnostic::error(
                    codes::STAGE_EACH,
                    each.var.span,
                    format!("{} members that are all the same run", values.len()),
                    format!("nothing in the stage mentions `{}`", each.var.text),
                )
                .help(format!(
                    "for runs over different orders of the data write `data_seed = {}`",
                    each.var.text
                )),
            );
            return Vec::new();
        }
        // What is wrong with a value is said, and a fan-out without it would be another.
        if values.iter().any(Val::is_poison) {
            return Vec::new();
        }
        let mut keys: Vec<String> = Vec::new();
        let mut files: HashMap<String, (String, Span)> = HashMap::new();
        let mut members = Vec::new();
        for value in values.iter() {
            let key = self.member_key(value);
            // Directories and files are called after it.
            let plain = |c: char| c.is_alphanumeric() || "._-+ ".contains(c);
            if let Kind::Text(text) = &value.kind
                && !(text.starts_with(char::is_alphanumeric) && text.chars().all(plain))
            {
                self.push(
                    Diagnostic::error(
                        codes::STAGE_EACH,
                        value.span,
                        format!("a member called `{key}`"),
                        "directories and files are called after it",
                    )
                    .help("a string here is made of letters, digits, blanks, `.`, `-`, `_` and `+`, a letter or digit first"),
                );
                return Vec::new();
            }
            if keys.contains(&key) {
                self.push(Diagnostic::error(
                    codes::STAGE_EACH,
                    value.span,
                    format!("`{key}` twice in one fan-out"),
                    "there is already a member with this value",
                ));
                continue;
            }
            let base = self.full_name(id);
            let file = file_name(&format!("{base}[{key}]"));
            if let Some((other, first)) = files.insert(file.clone(), (key.clone(), value.span)) {
                self.push(
                    Diagnostic::error(
                        codes::STAGE_EACH,
                        value.span,
                        format!("the files of `{base}[{other}]` and `{base}[{key}]` would be the same"),
                        format!("called `{file}`, too"),
                    )
                    .label(first, format!("called `{file}`"))
                    .help("in names of files every sign but letters of ASCII, digits, `_` and `.` becomes `-`: let the two differ in more"),
                );
                return Vec::new();
            }
            let inner = Scope { local: Some((each.var.text.as_str(), value.clone())), ..scope.clone() };
            members.extend(self.member(id, item, block, name.span, &fields, &inner, base, Some(key.clone())));
            keys.push(key);
        }
        // A fan-out with a broken member is broken as a whole: averages over it would be wrong.
        if members.len() == keys.len() { members } else { Vec::new() }
    }

    /// What a member is called after the value it is for: a number, a string, or the name of something.
    pub(super) fn member_key(&self, value: &Val<'p>) -> String {
        match &value.kind {
            Kind::Entity(_) | Kind::Word(_) => self.text(value.span),
            _ => crate::sema::params::print(value),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn member(
        &mut self,
        id: DefId,
        item: &'p ast::Item,
        block: &'p ast::Block,
        name_span: Span,
        fields: &Fields<'p>,
        scope: &Scope<'p>,
        base: String,
        key: Option<String>,
    ) -> Option<usize> {
        let complete = !block.incomplete && self.require(fields, block);
        let from_value = self.field(fields, "from", scope)?;
        let from = self.from(&from_value);
        let ground = from.as_ref().map(|f| self.ground(f, from_value.span));
        let mut inherited: Vec<&'static str> = Vec::new();
        let length = self.length(fields, scope, name_span);

        // Context and batch, then the grid.
        let spans = fields.spans();
        let length_span = spans.get("tokens").or(spans.get("steps")).copied().unwrap_or(name_span);
        let frame = Frame {
            field: "context",
            tokens: match length {
                Some(Length::Tokens(n)) => n,
                _ => 0,
            },
            length_span,
            clock: None,
            lr: None,
            total: self.total,
        };
        let context_chain =
            self.chain_or(fields, "context", scope, ground.as_ref().and_then(|g| g.context), |v, span| Val {
                kind: Kind::Number(ast::Rational::from(v)),
                span,
            });
        let batch_chain = self.chain_or(
            fields,
            "batch",
            scope,
            ground.as_ref().and_then(|g| g.batch),
            |(v, rows), span| {
                let unit = if rows { Unit::Seqs } else { Unit::Tokens };
                Val { kind: Kind::Quantity(ast::Rational::from(v), unit), span }
            },
        );
        let mix_value = self.field(fields, "mix", scope);
        if let Some(g) = &ground {
            let mut gaps = Vec::new();
            for (name, gap) in [
                ("context", context_chain.is_none() && g.context.is_none()),
                ("batch", batch_chain.is_none() && g.batch.is_none()),
                ("mix", mix_value.is_none() && g.mix.is_none()),
            ] {
                if gap && fields.get(name).is_none() {
                    gaps.push(name);
                } else if fields.get(name).is_none() {
                    inherited.push(name);
                }
            }
            if !gaps.is_empty() && !fields.doubtful && complete {
                let list = gaps.iter().map(|g| format!("`{g}`")).collect::<Vec<_>>().join(" and ");
                self.push(
                    Diagnostic::error(
                        codes::STAGE_NOTHING_INHERITED,
                        name_span,
                        format!("stage `{base}` has no {list}"),
                        format!("{list} must be written here"),
                    )
                    .label(from_value.span, "there is nothing to inherit from this")
                    .help("only what starts from another stage inherits them"),
                );
            }
        }
        let mut context = match (&context_chain, length) {
            (Some(chain), Some(_)) => self.context(chain, frame),
            _ => None,
        };
        let pieces = match (&batch_chain, &context) {
            (Some(chain), Some(context)) => self.batch(chain, context, Frame { field: "batch", ..frame }),
            // The grid of steps has its own trouble; the batch's values speak for themselves.
            (Some(chain), None) => self.batch_values(chain),
            _ => None,
        };
        let clock = match (&pieces, &context, length) {
            (Some(pieces), Some(context), Some(length)) => {
                let batch_span = batch_chain.as_ref().map_or(name_span, |c| c.span);
                match self.last_grid.lay(length, context, pieces) {
                    Ok(clock) => Some(clock),
                    Err(misfit) => self.misfit(misfit, batch_span, context_chain.as_ref().map(|c| c.span)),
                }
            }
            _ => None,
        };
        // Tokens of a stage measured in steps are known from here on.
        let clock = match (clock, &mut context, length) {
            (Some(clock), Some(points), Some(Length::Steps(_))) => {
                let frame = Frame { tokens: clock.tokens, clock: Some(&clock), ..frame };
                let held = [("context", &context_chain), ("batch", &batch_chain)].map(|(field, chain)| {
                    let chain = chain.as_ref()?;
                    self.hold_to_stage(chain, points, Frame { field, ..frame })
                });
                // What `truncate` cuts is never trained at.
                points.retain(|(at, _)| *at == 0 || *at < clock.tokens);
                held.iter().all(Option::is_some).then_some(clock)
            }
            (clock, ..) => clock,
        };

        // Curves over the grid.
        let mut lr = None;
        let mut truncated = false;
        if let (Some(value), Some(clock), Some(ground)) = (self.field(fields, "lr", scope), &clock, &ground)
            && let Some(chain) = self.chain(&value, "lr")
        {
            truncated = chain.truncated;
            let frame = Frame { field: "lr", tokens: clock.tokens, clock: Some(clock), ..frame };
            lr = self.lr(&chain, frame, &ground.lr);
        }
        let mut mix = None;
        if let Some(clock) = &clock {
            let frame = Frame {
                field: "mix",
                tokens: clock.tokens,
                clock: Some(clock),
                lr: lr.as_ref().map(|(c, _)| c),
                ..frame
            };
            mix = match &mix_value {
                Some(value) if matches!(value.kind, Kind::Poison) => None,
                Some(value) => self.flatten(value, Some(frame)),
                None => ground.as_ref().and_then(|g| g.mix.clone()),
            };
        }

        // The rest.
        let ground_rope = ground.as_ref().map_or(RopeGround::default(), |g| RopeGround {
            theta: g.theta,
            head_dim: g.architecture.as_ref().map(|a| a.head_dim),
            context: context.as_ref().and_then(|c| c.iter().map(|p| p.1).max()),
        });
        let mut sound = complete;
        let rope = match self.field(fields, "rope", scope) {
            Some(value) => {
                let rope = self.rope(&value, ground_rope);
                sound &= rope.is_some();
                rope
            }
            None => {
                let rope = ground.as_ref().and_then(|g| g.rope.clone());
                if rope.is_some() {
                    inherited.push("rope");
                }
                rope
            }
        };
        macro_rules! word {
            ($field:ident, $words:expr) => {
                match self.field(fields, stringify!($field), scope) {
                    Some(value) => {
                        let word = self.word(&value, $words, stringify!($field));
                        sound &= word.is_some();
                        word
                    }
                    None => {
                        ground.as_ref().and_then(|g| g.$field).inspect(|_| inherited.push(stringify!($field)))
                    }
                }
            };
        }
        let attention = word!(attention, schema::ATTENTION).unwrap_or("causal");
        let packing = word!(packing, schema::PACKING).unwrap_or("concat");
        let precision = word!(precision, schema::PRECISION);
        let state = match self.field(fields, "state", scope) {
            Some(value) => {
                let word = self.word(&value, schema::STATE, "state");
                sound &= word.is_some();
                if let (Some("keep"), Some(from)) = (word, &from) {
                    sound &= self.has_moments(from, value.span);
                }
                word.unwrap_or("keep")
            }
            None => "keep",
        };
        let optimizer =
            self.optimizer(fields, scope, ground.as_ref().and_then(|g| g.optimizer.clone()), &mut inherited);
        if let Some(optimizer) = &optimizer {
            // A soup has weights and no moments.
            let soup = matches!(from, Some(curriculum::From::Soup(_)));
            let before = ground.as_ref().filter(|_| !soup).and_then(|g| g.optimizer.as_ref());
            sound &= self.same_moments(fields, state, before, optimizer);
        }
        macro_rules! whole {
            ($field:literal) => {
                match self.field(fields, $field, scope) {
                    Some(value) => {
                        let n = self.whole(&value, $field);
                        sound &= n.is_some();
                        n
                    }
                    None => None,
                }
            };
        }
        let data_seed = whole!("data_seed").unwrap_or(0);
        let init_seed = whole!("init_seed").unwrap_or(0);
        let keep = match self.field(fields, "keep", scope) {
            Some(value) => {
                let n = self.whole_positive(&value, "keep");
                sound &= n.is_some();
                n
            }
            None => None,
        };
        let clock = clock?;
        let frame = Frame { tokens: clock.tokens, clock: Some(&clock), ..frame };
        let save_every = match self.field(fields, "save_every", scope) {
            Some(value) => {
                let steps = self.every(&value, "save_every", frame);
                sound &= steps.is_some();
                steps
            }
            None => None,
        };
        if let Some(field) = fields.get("keep").filter(|_| fields.get("save_every").is_none()) {
            let d = Diagnostic::error(
                codes::WRONG_VALUE,
                field.span,
                "`keep` without `save_every`",
                "there are no periodic checkpoints",
            );
            self.push(d.help("write how often one is saved, as in `save_every = 1000 steps`, or leave `keep` out; the last one always stays"));
        }
        let name = key.as_ref().map_or_else(|| base.clone(), |k| format!("{base}[{k}]"));
        let checkpoints = self.checkpoints(block, scope, frame);
        let (evals, evals_sound) = self.evals(block, scope, frame);
        let gates = self.gates(block, scope);
        let (from, ground) = (from?, ground?);
        let ((lr, lr_spans), mix, pieces, optimizer) = (lr?, mix?, pieces?, optimizer?);
        let (checkpoints, gates) = (checkpoints?, gates?);
        if !sound || !evals_sound {
            return None;
        }
        let total = clock.tokens + clock.overshoot;
        let mix_shares = portions(&mix, &clock, total);
        // Marked itself, with the whole stage, through a named value, or where it is inherited from.
        let whole = has_assumed(&item.preface);
        let mut assumed: Vec<String> = fields
            .iter()
            .filter(|(name, entry, value)| {
                has_assumed(&entry.preface)
                    || *name != "from" && (whole || self.mentions_assumed(value, scope))
            })
            .map(|(name, ..)| name.to_owned())
            .collect();
        assumed.extend(inherited.iter().map(|n| (*n).to_owned()).filter(|n| ground.assumed.contains(n)));
        assumed.sort();
        let model_theta = ground.theta;
        let rope = rope.map(|r| Rope { theta: r.theta.or(model_theta), ..r });
        self.out.stages.push(Stage {
            name,
            doc: item.preface.doc(),
            base,
            key,
            span: name_span,
            item: item.span,
            from,
            tokens: clock.tokens,
            steps: clock.steps,
            overshoot: clock.overshoot,
            start_tokens: ground.start_tokens,
            lr,
            lr_spans,
            lr_truncated: truncated,
            context: context?,
            phases: clock.phases,
            rope,
            mix: mix_shares,
            attention,
            packing,
            optimizer,
            state,
            precision,
            data_seed,
            init_seed,
            save_every,
            keep,
            checkpoints,
            evals,
            gates,
            assumed,
            inherited,
            architecture: ground.architecture,
            root: ground.root,
            fields: spans,
        });
        self.legacies.push(Legacy { batch: pieces, mix });
        self.member_defs.push(id);
        Some(self.out.stages.len() - 1)
    }
}

/// Whether an entry of the block speaks of a name.
fn mentions(block: &ast::Block, name: &str) -> bool {
    let mut found = false;
    let mut visit = |path: &ast::Path| {
        found |= matches!(path.segments.first(), Some(ast::PathSegment::Name(n)) if n.text == name);
    };
    let mut open = vec![block];
    while let Some(block) = open.pop() {
        for entry in &block.entries {
            match &entry.kind {
                ast::EntryKind::Field { value, .. } => visit_expr(value, &mut visit),
                ast::EntryKind::Constraint(expr) => visit_expr(expr, &mut visit),
                ast::EntryKind::Assert(assert) => visit_expr(&assert.condition, &mut visit),
                ast::EntryKind::Block(inner) => open.push(inner),
            }
        }
    }
    found
}

/// Tokens of each source over the stage: the whole, split by mean weight with largest remainders.
/// They sum to what the steps draw.
fn portions(mix: &Flat, clock: &Clock, total: u64) -> Vec<Portion> {
    let mut known = Vec::new();
    let mut out: Vec<Portion> = mix
        .iter()
        .map(|(source, amount)| {
            let weight = amount.blend();
            let (exact, mean) = match amount {
                Amount::Exact(n) => (Some(*n), show::real(*n)),
                Amount::Moving(_) => (None, mean_over_steps(&weight, clock, total, &mut known)),
            };
            Portion { source: *source, weight, exact, mean, tokens: 0 }
        })
        .collect();
    let mut remainders: Vec<(f64, usize)> = Vec::with_capacity(out.len());
    let mut given = 0u64;
    for (i, p) in out.iter_mut().enumerate() {
        let (whole, fraction) = match p.exact.and_then(|n| n.of(total)) {
            Some((whole, fraction)) => (whole, show::real(fraction)),
            None => {
                let product = p.mean.max(0.0) * total as f64;
                (product.floor() as u64, product.fract())
            }
        };
        // Means of what moves are rounded, and may come to a little more than all.
        p.tokens = whole.min(total - given);
        given += p.tokens;
        remainders.push((fraction, i));
    }
    remainders.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    for (_, i) in remainders.iter().take(usize::try_from(total - given).unwrap_or(usize::MAX)) {
        out[*i].tokens += 1;
        given += 1;
    }
    // Or to so much less that one token for each is not enough.
    if let Some(largest) = out.iter_mut().max_by(|a, b| a.mean.total_cmp(&b.mean)) {
        largest.tokens += total - given;
    }
    out
}

/// The mean of a weight over the tokens that the steps read: each step uses the value at its
/// beginning. Step by step while that is cheap, else the integral, which differs by less than one
/// step's move. `known` holds the means of curves: sources that fade together share theirs.
fn mean_over_steps(weight: &Blend, clock: &Clock, total: u64, known: &mut Vec<(Curve, f64)>) -> f64 {
    const EXACT_STEPS: u64 = 20_000;
    if let Some(value) = weight.as_constant() {
        return value;
    }
    if clock.steps > EXACT_STEPS {
        return weight.mean(total);
    }
    let mut mean = 0.0;
    for term in &weight.terms {
        mean += term.coefficient
            * match term.factors.as_slice() {
                [] => 1.0,
                [curve] => match known.iter().find(|(c, _)| c == curve) {
                    Some((_, mean)) => *mean,
                    None => {
                        let mean = over_steps(clock, total, |at| curve.value(at));
                        known.push((curve.clone(), mean));
                        mean
                    }
                },
                many => over_steps(clock, total, |at| many.iter().map(|c| c.value(at)).product()),
            };
    }
    mean
}

/// The mean over the steps of a value, by its tokens.
fn over_steps(clock: &Clock, total: u64, value: impl Fn(u64) -> f64) -> f64 {
    let mut sum = 0.0;
    for (i, p) in clock.phases.iter().enumerate() {
        let end = clock.phases.get(i + 1).map_or(clock.steps, |n| n.step);
        let size = p.sequences * p.context;
        for step in p.step..end {
            sum += value(p.tokens + (step - p.step) * size) * size as f64;
        }
    }
    sum / total as f64
}
