//! Context and batch curves of a stage, and the grid of steps they make with its length.

use std::cmp::Ordering;

use crate::curve::Shape;
use crate::diag::{Applicability, Diagnostic};
use crate::schema::Ty;
use crate::source::Span;
use crate::syntax::ast::{Rational, Unit};

use super::chain::{Chain, Frame, is_open, whole};
use super::checker::Checker;
use super::clock::{BatchPiece, Clock, Length, Misfit};
use super::expect::MAX_CONTEXT;
use super::show;
use super::value::{Call, Kind, Val};
use crate::diag::codes;

/// A batch as written: a number of rows or of tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Batch {
    pub(crate) value: u64,
    pub(crate) rows: bool,
}

impl<'p> Checker<'p> {
    /// The context curve: constant between jumps.
    pub(crate) fn context(&mut self, chain: &Chain<'p>, frame: Frame<'_>) -> Option<Vec<(u64, u64)>> {
        let mut points = vec![(0, self.row_length(&chain.start)?)];
        if chain.segments.is_empty() {
            return Some(points);
        }
        for call in &chain.segments {
            if !matches!(call.function.name, "hold" | "step") {
                self.push(
                    Diagnostic::error(
                        codes::CURVE_SEGMENT,
                        call.name_span,
                        format!("the context cannot follow `{}`", call.function.name),
                        "rows have one length at a time",
                    )
                    .help("use `step(to: …)` and `hold`"),
                );
                return None;
            }
        }
        for (start, _, call) in self.layout(chain, frame)? {
            if call.function.name == "step" {
                let to = call.arg("to")?.clone();
                points.push((start, self.row_length(&to)?));
            }
        }
        points.dedup_by(|next, before| {
            // A jump at the same place as another replaces it.
            if next.0 == before.0 {
                before.1 = next.1;
                return true;
            }
            next.1 == before.1
        });
        Some(points)
    }

    /// Tokens of a row, in which something is predicted.
    fn row_length(&mut self, value: &Val<'p>) -> Option<u64> {
        let tokens = self.tokens(value, "context")?;
        if tokens < 2 {
            self.push(Diagnostic::error(
                codes::OUT_OF_RANGE,
                value.span,
                format!("rows of {tokens} tokens"),
                "a token is predicted from one before it: two are the least",
            ));
            return None;
        }
        if tokens > MAX_CONTEXT {
            self.push(Diagnostic::error(
                codes::OUT_OF_RANGE,
                value.span,
                format!("rows of {} tokens", show::length(tokens)),
                format!("the longest have {}", show::length(MAX_CONTEXT)),
            ));
            return None;
        }
        Some(tokens)
    }

    /// Positions of a chain's segments. In a stage measured in steps (`frame.tokens` is 0) the last
    /// segment may be open; nothing else can be.
    fn layout(
        &mut self,
        chain: &Chain<'p>,
        frame: Frame<'_>,
    ) -> Option<Vec<(u64, u64, std::rc::Rc<super::value::Call<'p>>)>> {
        if frame.tokens > 0 {
            let placed = self.place(chain, frame)?;
            return Some(placed.into_iter().map(|p| (p.start, p.end, p.call)).collect());
        }
        let mut at = 0u64;
        let mut out = Vec::new();
        for (i, call) in chain.segments.iter().enumerate() {
            if is_open(call) {
                if i + 1 < chain.segments.len() || call.function.name != "hold" {
                    self.push(
                        Diagnostic::error(
                            codes::CURVE_SPAN,
                            call.span,
                            format!("an open segment in `{}` of a stage measured in steps", frame.field),
                            "only a `hold` at the end can be open here",
                        )
                        .label(frame.length_span, "the length in steps")
                        .help("say how long it is: `over: …`"),
                    );
                    return None;
                }
                out.push((at, u64::MAX, call.clone()));
                continue;
            }
            let span = self.span_of(call, Rational::from(at), true, frame)?;
            let end = at.saturating_add(whole(span.floor()));
            out.push((at, end, call.clone()));
            at = end;
        }
        Some(out)
    }

    /// Hold a curve to its stage, where the stage is measured in steps: how many tokens those are is known
    /// only after the clock was laid by this very curve. `frame` has that clock.
    pub(crate) fn hold_to_stage(
        &mut self,
        chain: &Chain<'p>,
        context: &[(u64, u64)],
        frame: Frame<'_>,
    ) -> Option<()> {
        let Some(clock) = frame.clock.filter(|_| !chain.segments.is_empty()) else { return Some(()) };
        let bare = Frame { tokens: 0, clock: None, ..frame };
        let laid = if frame.field == "batch" {
            let start = self.batch_value(&chain.start)?;
            self.steps_to_tokens(chain, start, context, bare)?
        } else {
            chain.clone()
        };
        let (start, end, last) = self.layout(&laid, bare)?.pop()?;
        let tokens = |n: u64| Rational::from(n);
        // A ramp given in steps ends inside the last of them, and what comes after it is a step off.
        let ramp = |c: &&std::rc::Rc<Call<'p>>| {
            matches!(c.arg("over"), Some(Val { kind: Kind::Quantity(_, Unit::Steps), .. }))
                && c.function.name != "hold"
        };
        let slack = chain.segments.iter().filter(ramp).count() as u64;
        let steps = clock.step_at(if is_open(&last) { start } else { end });
        if is_open(&last) {
            return match steps < clock.steps + slack || chain.truncated {
                true => Some(()),
                false if start > clock.tokens => self.too_long(chain, tokens(start), frame, Some(last.span)),
                false => self.nothing_left(last.span, frame),
            };
        }
        if steps > clock.steps + slack && !chain.truncated {
            return self.too_long(chain, tokens(end), frame, None);
        }
        // How far short a ramp is goes by its own steps, which may be larger than those at the end.
        let largest = clock.phases.iter().map(|p| p.sequences * p.context).max().unwrap_or(0);
        if steps + slack < clock.steps && end.saturating_add(slack.saturating_mul(largest)) < clock.tokens {
            return self.too_short(chain, tokens(end), frame);
        }
        Some(())
    }

    /// A batch value.
    pub(crate) fn batch_value(&mut self, value: &Val<'p>) -> Option<Batch> {
        match value.kind {
            Kind::Quantity(n, Unit::Seqs) => {
                self.count(n, value.span, "batch").map(|value| Batch { value, rows: true })
            }
            Kind::Quantity(n, Unit::Tokens) => {
                self.count(n, value.span, "batch").map(|value| Batch { value, rows: false })
            }
            Kind::Number(_) => {
                let end = Span { start: value.span.end, ..value.span };
                self.push(
                    Diagnostic::error(
                        codes::BATCH_UNIT,
                        value.span,
                        "a batch without a unit",
                        "`seqs` or `tokens`?",
                    )
                    .help("the same number means sequences in one configuration and tokens in another: write the unit")
                    .fix("count sequences", Applicability::MaybeIncorrect, end, " seqs")
                    .fix("count tokens", Applicability::MaybeIncorrect, end, " tokens"),
                );
                None
            }
            _ => {
                self.wrong(value, Ty::Batch, "batch");
                None
            }
        }
    }

    /// The batch curve as pieces. `frame` has a clock only when the batch does not define it.
    pub(crate) fn batch(
        &mut self,
        chain: &Chain<'p>,
        context: &[(u64, u64)],
        frame: Frame<'_>,
    ) -> Option<Vec<BatchPiece>> {
        let start = self.batch_value(&chain.start)?;
        let still = |start, end, b: Batch| BatchPiece {
            start,
            end,
            shape: Shape::Hold,
            from: b.value,
            to: b.value,
            rows: b.rows,
        };
        if chain.segments.is_empty() {
            return Some(vec![still(0, u64::MAX, start)]);
        }
        // `hold(over: N steps)` is the one span in steps that can be resolved here: the batch is
        // still while it lasts. Spans are rewritten to tokens, then placed as any other.
        let chain = self.steps_to_tokens(chain, start, context, frame)?;
        let mut current = start;
        let mut pieces: Vec<BatchPiece> = Vec::new();
        for (from, to, call) in self.layout(&chain, frame)? {
            if call.function.name == "hold" {
                pieces.push(still(from, to, current));
                continue;
            }
            let target = call.arg("to")?.clone();
            let next = self.batch_value(&target)?;
            if call.function.name == "step" {
                current = next;
                pieces.retain(|p| p.start < from || p.end > p.start);
                if frame.tokens > 0 && to == frame.tokens {
                    continue;
                }
                pieces.push(still(from, from, current));
                continue;
            }
            if next.rows != current.rows {
                self.push(
                    Diagnostic::error(
                        codes::BATCH_UNIT,
                        target.span,
                        "a ramp from one unit to another",
                        format!("this counts {}", if next.rows { "sequences" } else { "tokens" }),
                    )
                    .label(
                        chain.start.span,
                        format!("the curve counts {}", if current.rows { "sequences" } else { "tokens" }),
                    )
                    .help("write both ends of the ramp in the same unit"),
                );
                return None;
            }
            let shape = self.batch_shape(&call, current, next)?;
            pieces.push(BatchPiece {
                start: from,
                end: to,
                shape,
                from: current.value,
                to: next.value,
                rows: next.rows,
            });
            current = next;
        }
        // A jump at the beginning replaces what stood there.
        let mut merged: Vec<BatchPiece> = Vec::new();
        for p in pieces {
            if merged.last().is_some_and(|last| last.start == p.start && last.end == last.start) {
                merged.pop();
            }
            merged.push(p);
        }
        Some(merged)
    }

    /// Report what is wrong with the values of a batch curve whose grid cannot be laid.
    pub(crate) fn batch_values<T>(&mut self, chain: &Chain<'p>) -> Option<T> {
        self.batch_value(&chain.start);
        for to in chain.segments.iter().filter_map(|call| call.arg("to").cloned()) {
            self.batch_value(&to);
        }
        None
    }

    fn batch_shape(&mut self, call: &Call<'p>, from: Batch, to: Batch) -> Option<Shape> {
        match call.function.name {
            "linear" => Some(Shape::Linear),
            "cosine" => Some(Shape::Cosine),
            "one_minus_sqrt" => Some(Shape::OneMinusSqrt),
            "exp" if from.value > 0 && to.value > 0 => Some(Shape::Exp),
            other => {
                self.push(
                    Diagnostic::error(
                        codes::CURVE_SEGMENT,
                        call.name_span,
                        format!("the batch cannot follow `{other}` here"),
                        "not a way to move a batch",
                    )
                    .help("use `hold`, `step`, `linear`, `cosine`, `one_minus_sqrt` or, between values above zero, `exp(to: …)`"),
                );
                None
            }
        }
    }

    /// Rewrite `over: N steps` in a batch curve to tokens: such a span is the tokens of as many
    /// steps of the segment itself, laid from where it begins. Then spans are placed as any other.
    fn steps_to_tokens(
        &mut self,
        chain: &Chain<'p>,
        start: Batch,
        context: &[(u64, u64)],
        frame: Frame<'_>,
    ) -> Option<Chain<'p>> {
        let in_steps = |call: &Call<'_>| {
            matches!(call.arg("over"), Some(Val { kind: Kind::Quantity(_, Unit::Steps), .. }))
        };
        if !chain.segments.iter().any(|c| in_steps(c)) {
            return Some(chain.clone());
        }
        let mut chain = chain.clone();
        let mut current = start;
        let mut at = 0u64;
        for slot in &mut chain.segments {
            let mut call = (**slot).clone();
            let next = match call.arg("to").cloned() {
                Some(to) => self.batch_value(&to)?,
                None => current,
            };
            if call.function.name == "step" {
                current = next;
                continue;
            }
            if let Some(until) = call.arg("until").filter(|v| !matches!(v.kind, Kind::Condition(_))).cloned()
            {
                at = whole(self.span(&until, "until", frame, |_, _| 0)?.floor());
                continue;
            }
            let Some(over) = call.arg("over").cloned() else {
                // Open: what follows begins at an unknown place; its spans must be in tokens.
                current = next;
                continue;
            };
            if !in_steps(&call) {
                let span = self.span(&over, "over", frame, |_, _| 0)?;
                at = at.saturating_add(whole(span.floor()));
                current = next;
                continue;
            }
            let Kind::Quantity(n, _) = over.kind else { continue };
            let steps = self.count(n, over.span, "over")?;
            let from = context.partition_point(|(p, _)| *p <= at).saturating_sub(1);
            let rows: Vec<(u64, u64)> =
                context[from..].iter().map(|(p, c)| (p.saturating_sub(at), *c)).collect();
            let laid = if call.function.name == "hold" {
                still_span(steps, &rows, current)
            } else {
                let shape = self.batch_shape(&call, current, next)?;
                ramp_span(steps, &rows, current, next, shape)
            };
            let tokens = match laid {
                Ok(tokens) => tokens,
                Err(misfit) => return self.misfit(misfit, chain.span, None),
            };
            if let Some((_, over)) = call.named.iter_mut().find(|(n, _)| n.text == "over") {
                over.kind = Kind::Quantity(Rational::from(tokens), Unit::Tokens);
            }
            at = at.saturating_add(tokens);
            current = next;
            *slot = std::rc::Rc::new(call);
        }
        Some(chain)
    }

    /// Report why the grid of steps cannot be laid.
    pub(crate) fn misfit<T>(
        &mut self,
        misfit: Misfit,
        batch_span: Span,
        context_span: Option<Span>,
    ) -> Option<T> {
        let at = |at: u64| if at == 0 { String::new() } else { format!(" at token {}", show::count(at)) };
        let mut d = match misfit {
            Misfit::NotWhole { at: token, batch, context } => {
                let below = batch / context;
                let mut d = Diagnostic::error(
                    codes::STAGE_BATCH,
                    batch_span,
                    format!("the batch is not a whole number of sequences{}", at(token)),
                    format!("{} tokens are {} sequences of {}", show::digits(batch), show::number(batch as f64 / context as f64), show::length(context)),
                );
                let near = if below == 0 { context } else { below * context };
                d = d.help(format!(
                    "the nearest whole batches are {} tokens ({} seqs) and {} tokens ({} seqs)",
                    show::digits(near),
                    near / context,
                    show::digits((below + 1) * context),
                    below + 1
                ));
                d
            }
            Misfit::Empty { at: token, from, to } => Diagnostic::error(
                codes::STAGE_BATCH,
                batch_span,
                format!("a step without a single sequence{}", at(token)),
                "less than one sequence here",
            )
            .help(match from.cmp(&to) {
                Ordering::Less => {
                    "a ramp cannot start at zero: start it at one or more sequences, such as `16 seqs then linear(…)`"
                }
                Ordering::Equal => "write one or more sequences, such as `16 seqs`",
                Ordering::Greater => {
                    "a ramp cannot end at zero: end it at one or more sequences, such as `linear(to: 16 seqs)`"
                }
            }),
            Misfit::TooLarge => Diagnostic::error(
                codes::OUT_OF_RANGE,
                batch_span,
                "more tokens than can be counted exactly",
                format!("batch and length lead beyond {} tokens", show::digits(super::expect::MAX_TOKENS)),
            ),
            Misfit::TooFine => Diagnostic::error(
                codes::CURVE_SIZE,
                batch_span,
                "a batch ramp over too many different sizes",
                "every step of this has a size of its own",
            )
            .help("ramp in a few `step`s"),
        };
        if let (Misfit::NotWhole { .. }, Some(context)) = (misfit, context_span)
            && context != batch_span
        {
            d = d.label(context, "the length of a sequence");
        }
        self.push(d);
        None
    }
}

/// Phases that the span of a ramp in steps may have; it is laid some fifty times.
const MAX_RAMP_PHASES: usize = 20_000;

/// Tokens of `steps` steps of a batch that stays.
fn still_span(steps: u64, context: &[(u64, u64)], batch: Batch) -> Result<u64, Misfit> {
    let piece = BatchPiece {
        start: 0,
        end: u64::MAX,
        shape: Shape::Hold,
        from: batch.value,
        to: batch.value,
        rows: batch.rows,
    };
    Ok(Clock::lay(Length::Steps(steps), context, &[piece])?.tokens)
}

/// The fewest tokens over which a ramp takes `steps` steps. A curve moves with the tokens, so the
/// span decides how large the steps in it are; it is found by halving.
fn ramp_span(
    steps: u64,
    context: &[(u64, u64)],
    from: Batch,
    to: Batch,
    shape: Shape,
) -> Result<u64, Misfit> {
    if from == to || steps == 0 {
        return still_span(steps, context, from);
    }
    let lay = |end: u64| {
        let ramp = BatchPiece { start: 0, end, shape, from: from.value, to: to.value, rows: from.rows };
        let clock = Clock::lay(Length::Tokens(end), context, &[ramp])?;
        if clock.phases.len() > MAX_RAMP_PHASES { Err(Misfit::TooFine) } else { Ok(clock.steps) }
    };
    // With the larger batch throughout it would take the most.
    let largest = if from.value > to.value { from } else { to };
    let mut enough = still_span(steps, context, largest)?;
    let mut short = 0;
    while enough - short > 1 {
        let middle = short + (enough - short) / 2;
        if lay(middle)? < steps { short = middle } else { enough = middle }
    }
    Ok(enough)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_takes_the_steps_it_says() {
        let rows = |value| Batch { value, rows: true };
        for (from, to, steps) in [(16, 64, 100), (64, 16, 100), (8, 1000, 37), (5, 6, 2000)] {
            for shape in [Shape::Linear, Shape::Cosine, Shape::Exp] {
                let context = [(0, 64), (50_000, 128)];
                let end = ramp_span(steps, &context, rows(from), rows(to), shape).unwrap();
                let ramp = BatchPiece { start: 0, end, shape, from, to, rows: true };
                let clock = Clock::lay(Length::Tokens(end), &context, &[ramp]).unwrap();
                assert_eq!(clock.steps, steps, "{from} to {to}, {shape:?}");
            }
        }
    }
}
