//! `eval` and `gate` blocks inside a stage.

use crate::diag::{Applicability, Diagnostic};
use crate::schema::{Family, Ty};
use crate::source::Span;
use crate::syntax::ast::{self, EntryKind, ExprKind, Unit};

use super::chain::Frame;
use super::checker::{Checker, Resolved};
use super::curriculum::{Eval, Gate};
use super::eval::Scope;
use super::expect::MAX_CONTEXT;
use super::query::sign;
use super::show;
use super::value::{Entity, Kind, Val, Whole};
use crate::diag::codes;

/// Under which the runtime writes down what it measures for gates.
const GATE: &str = "gate";

impl<'p> Checker<'p> {
    /// The `eval` blocks, and whether all of them are sound.
    pub(crate) fn evals(
        &mut self,
        block: &'p ast::Block,
        scope: &Scope<'p>,
        frame: Frame<'_>,
    ) -> (Vec<Eval>, bool) {
        let mut out: Vec<Eval> = Vec::new();
        let mut sound = true;
        for entry in &block.entries {
            let EntryKind::Block(inner) = &entry.kind else { continue };
            if inner.kind.text != "eval" {
                continue;
            }
            match self.eval_block(inner, scope, frame) {
                Some(eval) if out.iter().all(|e| e.name != eval.name) => out.push(eval),
                Some(eval) => {
                    self.push(Diagnostic::error(
                        codes::DUPLICATE_NAME,
                        inner.name.as_ref().map_or(inner.span, |n| n.span),
                        format!("eval `{}` twice in one stage", eval.name),
                        "named again here",
                    ));
                    sound = false;
                }
                None => sound = false,
            }
        }
        (out, sound)
    }

    fn eval_block(&mut self, inner: &'p ast::Block, scope: &Scope<'p>, frame: Frame<'_>) -> Option<Eval> {
        let name = self.named(inner)?;
        if name.text == GATE {
            self.push(
                Diagnostic::error(
                    codes::RESERVED_NAME,
                    name.span,
                    "an eval cannot be called `gate`",
                    "what gates measure goes by this name",
                )
                .help("choose another name"),
            );
            return None;
        }
        let fields = self.fields(inner)?;
        let every = match self.field(&fields, "every", scope) {
            Some(v) => Some(self.every(&v, "every", frame)?),
            None => None,
        };
        let (heldout, sources) = match self.field(&fields, "loss", scope) {
            Some(v) => self.losses(&v)?,
            None => (None, Vec::new()),
        };
        let heldout_tokens = match self.field(&fields, "tokens", scope) {
            Some(v) => Some(self.tokens(&v, "tokens")?),
            None => None,
        };
        if let Some(tokens) =
            fields.get("tokens").filter(|_| fields.get("loss").is_none() && !fields.doubtful)
        {
            self.push(
                Diagnostic::error(
                    codes::WRONG_VALUE,
                    tokens.span,
                    "`tokens` without `loss`",
                    "nothing is read for this eval",
                )
                .help("write `loss = heldout 1%`, or leave `tokens` out"),
            );
            return None;
        }
        let needle = match self.field(&fields, "needle", scope) {
            Some(v) => self.lengths(&v)?,
            None => Vec::new(),
        };
        let choice = match self.field(&fields, "choice", scope) {
            Some(v) => Some(self.path(&v, "choice")?),
            None => None,
        };
        if heldout.is_none()
            && sources.is_empty()
            && needle.is_empty()
            && choice.is_none()
            && !fields.doubtful
            && !inner.incomplete
        {
            self.push(
                Diagnostic::error(
                    codes::MISSING_FIELD,
                    name.span,
                    format!("eval `{}` measures nothing", name.text),
                    "`loss`, `needle` or `choice` must be written",
                )
                .help("for example `loss = heldout 1%` or `needle = [4Ki, 16Ki]`"),
            );
            return None;
        }
        Some(Eval { name: name.text.clone(), every, heldout, sources, heldout_tokens, needle, choice })
    }

    /// What a loss is taken on: a held-out share of all sources, or sources for validation.
    fn losses(&mut self, value: &Val<'p>) -> Option<(Option<f64>, Vec<usize>)> {
        let named = match &value.kind {
            Kind::List(items) => items.to_vec(),
            Kind::Entity(_) => vec![value.clone()],
            _ => return self.heldout(value).map(|share| (Some(share), Vec::new())),
        };
        let mut sources = Vec::new();
        for source in &named {
            let index = self.for_validation(source)?;
            if !sources.contains(&index) {
                sources.push(index);
            }
        }
        if sources.is_empty() {
            self.wrong(value, Ty::Heldout, "loss");
            return None;
        }
        Some((None, sources))
    }

    fn for_validation(&mut self, value: &Val<'p>) -> Option<usize> {
        let Kind::Entity(Entity::Source(id)) = value.kind else {
            if !value.is_poison() {
                self.wrong(value, Ty::Heldout, "loss");
            }
            return None;
        };
        let Resolved::Source(index) = self.resolved[id.index()] else { return None };
        let source = &self.out.sources[index];
        if !source.validation {
            let (name, at) = (source.name.clone(), source.span);
            self.push(
                Diagnostic::error(
                    codes::WRONG_KIND,
                    value.span,
                    format!("`{name}` is trained on"),
                    "no source for validation",
                )
                .label(at, "this source")
                .help("hold a part of it out: `loss = heldout 1%`; or write `validation = yes` into a source that no mix has"),
            );
            return None;
        }
        Some(index)
    }

    fn heldout(&mut self, value: &Val<'p>) -> Option<f64> {
        match &value.kind {
            Kind::Apply(word, share) if word.text == "heldout" => {
                let value = (**share).clone();
                let share = self.share(&value, "heldout").map(show::real)?;
                let wrong = match share {
                    0.0 => Some(("no document held out", "nothing would be measured")),
                    1.0.. => Some(("all documents held out", "none is left to train on")),
                    _ => None,
                };
                if let Some((message, label)) = wrong {
                    self.push(
                        Diagnostic::error(codes::OUT_OF_RANGE, value.span, message, label)
                            .help("hold out a few: `heldout 1%`"),
                    );
                    return None;
                }
                Some(share)
            }
            _ => {
                self.wrong(value, Ty::Heldout, "loss");
                None
            }
        }
    }

    fn lengths(&mut self, value: &Val<'p>) -> Option<Vec<u64>> {
        match &value.kind {
            Kind::List(items) => {
                let items = items.clone();
                items.iter().map(|v| self.needle_length(v)).collect()
            }
            Kind::Number(_) | Kind::Quantity(_, Unit::Tokens) => self.needle_length(value).map(|n| vec![n]),
            _ => {
                self.wrong(value, Ty::Numbers, "needle");
                None
            }
        }
    }

    /// The length of a haystack, which is a row of tokens as any other.
    fn needle_length(&mut self, value: &Val<'p>) -> Option<u64> {
        let tokens = self.tokens(value, "needle")?;
        if tokens > MAX_CONTEXT {
            self.push(
                Diagnostic::error(
                    codes::OUT_OF_RANGE,
                    value.span,
                    format!("a haystack of {}", show::tokens(tokens)),
                    format!("the longest have {}", show::length(MAX_CONTEXT)),
                )
                .help("ask for lengths that the model is to reach, such as `32Ki`"),
            );
            return None;
        }
        Some(tokens)
    }

    /// The conditions of `gate` blocks.
    pub(crate) fn gates(&mut self, block: &'p ast::Block, scope: &Scope<'p>) -> Option<Vec<Gate>> {
        let mut out = Vec::new();
        let mut sound = true;
        for entry in &block.entries {
            let EntryKind::Block(inner) = &entry.kind else { continue };
            if inner.kind.text != "gate" {
                continue;
            }
            for entry in &inner.entries {
                let EntryKind::Constraint(expr) = &entry.kind else {
                    self.push(
                        Diagnostic::error(
                            codes::NOT_A_CONDITION,
                            entry.span,
                            "a gate holds conditions only",
                            "not a condition",
                        )
                        .help("write `needle(32Ki) >= 99%` or `loss(short) <= 101% of from`"),
                    );
                    sound = false;
                    continue;
                };
                match self.gate(expr, scope) {
                    Some(gate) => {
                        sound &= self.agrees(&gate, &out);
                        out.push(gate);
                    }
                    None => sound = false,
                }
            }
        }
        sound.then_some(out)
    }

    /// Whether some value passes a gate and those before it on the same measure.
    fn agrees(&mut self, gate: &Gate, before: &[Gate]) -> bool {
        let upper = |g: &Gate| matches!(g.op, "<" | "<=" | "==");
        let lower = |g: &Gate| matches!(g.op, ">" | ">=" | "==");
        let empty = |most: &Gate, least: &Gate| {
            let strict = most.op == "<" || least.op == ">";
            upper(most) && lower(least) && (least.bound > most.bound || strict && least.bound == most.bound)
        };
        let same = |g: &&Gate| {
            (&g.measure, &g.argument, g.relative_to_from)
                == (&gate.measure, &gate.argument, gate.relative_to_from)
        };
        let Some(other) = before.iter().filter(same).find(|g| empty(g, gate) || empty(gate, g)) else {
            return true;
        };
        self.push(
            Diagnostic::error(
                codes::OUT_OF_RANGE,
                gate.span,
                format!("nothing passes both `{}` and `{}`", other.text, gate.text),
                "against the other gate",
            )
            .label(other.span, "the other gate")
            .help("correct one of the two bounds"),
        );
        false
    }

    fn gate(&mut self, expr: &'p ast::Expr, scope: &Scope<'p>) -> Option<Gate> {
        let ExprKind::Binary { op, left, right, .. } = &expr.kind else { return None };
        let op = sign(*op)?;
        let measure = self.eval(left, &scope.taking(Family::Measure));
        let call = match &measure.kind {
            Kind::Call(call) if call.function.family == Family::Measure => call.clone(),
            Kind::Poison => return None,
            _ => {
                let found = measure.describe();
                self.push(
                    Diagnostic::error(
                        codes::NOT_A_CONDITION,
                        left.span,
                        format!("a gate on {found}"),
                        "a measurement is expected here",
                    )
                    .help("measurements are `needle(LENGTH)`, `loss(SOURCE)` and `choice(FILE)`"),
                );
                return None;
            }
        };
        let [argument] = call.positional.as_slice() else {
            self.push(Diagnostic::error(
                codes::MISSING_ARGUMENT,
                call.span,
                format!("`{}` takes one argument, not {}", call.function.name, call.positional.len()),
                "of what?",
            ));
            return None;
        };
        let argument = argument.clone();
        let mut sources = Vec::new();
        let argument = match call.function.name {
            "needle" => self.needle_length(&argument)?.to_string(),
            "loss" => match argument.kind {
                // Of a source for validation, too, which no mix may have.
                Kind::Entity(Entity::Source(id)) => {
                    let Resolved::Source(index) = self.resolved[id.index()] else { return None };
                    sources = vec![(index, 1.0)];
                    self.text(argument.span)
                }
                Kind::Entity(Entity::Mix(_)) => {
                    sources = self.shares_of(&argument)?;
                    self.text(argument.span)
                }
                _ => {
                    self.wrong(&argument, Ty::Mix, "loss");
                    return None;
                }
            },
            _ => self.path(&argument, "choice")?,
        };
        let bound = self.eval(right, scope);
        let nats = call.function.name == "loss";
        let (bound, relative_to_from) = match bound.kind {
            Kind::Share(n) if !nats => (show::real(n), false),
            Kind::Number(n) => (show::real(n), false),
            Kind::Relative { share, whole: Whole::From, .. } => (show::real(share), true),
            Kind::Word("from") => (1.0, true),
            _ if nats => {
                self.no_nats(&bound);
                return None;
            }
            _ => {
                self.wrong(&bound, Ty::Share, call.function.name);
                return None;
            }
        };
        if nats && bound <= 0.0 && matches!(op, "<" | "<=" | "==") {
            self.push(
                Diagnostic::error(
                    codes::OUT_OF_RANGE,
                    right.span,
                    format!("no loss is as low as {}", show::number(bound)),
                    "a loss is above zero",
                )
                .help(
                    "write a number of nats, `loss(short) <= 2.5`, or a share, `loss(short) <= 101% of from`",
                ),
            );
            return None;
        }
        let share = matches!(call.function.name, "needle" | "choice");
        if share && !relative_to_from && !(0.0..=1.0).contains(&bound) {
            let mut d = Diagnostic::error(
                codes::OUT_OF_RANGE,
                right.span,
                format!("`{}` is never {}", call.function.name, show::percent(bound)),
                "a share lies between 0% and 100%",
            );
            if matches!(&right.kind, ExprKind::Quantity(q) if !q.percent) && bound > 1.0 && bound <= 100.0 {
                let end = Span { start: right.span.end, ..right.span };
                d = d.fix("make it a share", Applicability::MaybeIncorrect, end, "%");
            }
            self.push(d);
            return None;
        }
        Some(Gate {
            text: self.text(expr.span),
            span: expr.span,
            measure: call.function.name.to_owned(),
            argument,
            sources,
            op,
            bound,
            relative_to_from,
        })
    }

    /// Report what is neither a number of nats nor a share of another loss.
    fn no_nats(&mut self, bound: &Val<'p>) {
        if bound.is_poison() {
            return;
        }
        let (written, end) = (self.text(bound.span), Span { start: bound.span.end, ..bound.span });
        let share = matches!(bound.kind, Kind::Share(_));
        let d = Diagnostic::error(
            if share { codes::BARE_SHARE } else { codes::WRONG_VALUE },
            bound.span,
            format!("`loss` is compared with nats or with a share of another loss, not with `{written}`"),
            if share { "a share of what?".to_owned() } else { format!("this is {}", bound.describe()) },
        );
        self.push(if share {
            d.help("say of what: `… of from`, the loss that the stage begins with").fix(
                "add `of from`",
                Applicability::MaybeIncorrect,
                end,
                " of from",
            )
        } else {
            d.help("write a number of nats, `loss(short) <= 2.5`, or a share, `loss(short) <= 101% of from`")
        });
    }

    /// The sources of a mix with their shares, which must stand still to be the weights of a mean.
    fn shares_of(&mut self, mix: &Val<'p>) -> Option<Vec<(usize, f64)>> {
        let flat = self.flatten(mix, None)?;
        let shares: Option<Vec<(usize, f64)>> = flat
            .iter()
            .map(|(source, amount)| Some((*source, amount.blend().as_constant()?)))
            .filter(|share| share.is_none_or(|(_, share)| share > 0.0))
            .collect();
        if shares.is_none() {
            self.push(
                Diagnostic::error(
                    codes::NOT_A_CONDITION,
                    mix.span,
                    "the loss of a mix whose weights move",
                    "of which weights would it be the mean?",
                )
                .help("name a source, or a mix that stands still"),
            );
        }
        shares
    }

    /// What gates need and no stage measures.
    pub(crate) fn check_gates(&mut self) {
        let stages = &self.out.stages;
        if stages.iter().flat_map(|s| &s.evals).any(|e| e.heldout.is_some()) {
            return;
        }
        let gates: Vec<_> = stages
            .iter()
            .flat_map(|s| s.gates.iter().map(|g| (g, &s.base)))
            .filter(|(gate, _)| {
                gate.measure == "loss" && !gate.sources.iter().any(|(s, _)| self.out.sources[*s].validation)
            })
            .map(|(gate, stage)| (gate.span, stage.clone()))
            .collect();
        for (span, stage) in gates {
            self.push(
                Diagnostic::error(
                    codes::GATE_UNMEASURED,
                    span,
                    format!("a gate of `{stage}` on a loss that nothing measures"),
                    "no document is held out of training",
                )
                .help("hold some out, in this stage or another: `eval heldout { loss = heldout 1% }`"),
            );
        }
    }
}
