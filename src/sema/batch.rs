//! Context and batch curves of a stage, and the grid of steps they make with its length.

use std::cmp::Ordering;
use std::rc::Rc;

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
    fn layout(&mut self, chain: &Chain<'p>, frame: Frame<'_>) -> Option<Vec<(u64, u64, Rc<Call<'p>>)>> {
        if frame.tokens > 0 {
            let placed = self.place(chain, frame)?;
            // A ramp that is cut goes as far as it would have gone.
            return Some(placed.into_iter().map(|p| (p.start, p.horizon.unwrap_or(p.end), p.call)).collect());
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
        let ramp = |c: &&Rc<Call<'p>>| {
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
        if chain.segments.is_empty() {
            return Some(vec![still(0, u64::MAX, start)]);
        }
        let chain = self.steps_to_tokens(chain, start, context, frame)?;
        let mut current = start;
        let mut written = chain.start.span;
        let mut pieces: Vec<BatchPiece> = Vec::new();
        for (from, to, call) in self.layout(&chain, frame)? {
            if call.function.name == "hold" {
                pieces.push(still(from, to, current));
                continue;
            }
            let target = call.arg("to")?.clone();
            let next = self.batch_value(&target)?;
            if call.function.name == "step" {
                (current, written) = (next, target.span);
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
            let ramp = BatchPiece {
                start: from,
                end: to,
                shape,
                from: current.value,
                to: next.value,
                rows: next.rows,
            };
            self.whole_ends(&ramp, [written, target.span], context, frame)?;
            pieces.push(ramp);
            (current, written) = (next, target.span);
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

    /// Hold the ends of a ramp, which stand at `written`, to whole sequences: what lies between them is rounded down,
    /// what somebody wrote is not.
    fn whole_ends(
        &mut self,
        ramp: &BatchPiece,
        written: [Span; 2],
        context: &[(u64, u64)],
        frame: Frame<'_>,
    ) -> Option<()> {
        if ramp.rows || ramp.from == ramp.to {
            return Some(());
        }
        let cut = frame.tokens > 0 && ramp.end > frame.tokens;
        // Where nothing comes after it, its last value counts for the rows before.
        let last = if ramp.end == frame.tokens { ramp.end.saturating_sub(1) } else { ramp.end };
        let ends = [(ramp.start, ramp.from, "starts"), (last, ramp.to, "ends")];
        for ((at, batch, verb), span) in ends.into_iter().zip(written).take(if cut { 1 } else { 2 }) {
            let rows = context[context.partition_point(|(p, _)| *p <= at).saturating_sub(1)].1;
            // Less than one sequence is told where the grid is laid.
            if batch < rows || batch.is_multiple_of(rows) {
                continue;
            }
            self.not_whole(span, &format!(" where its ramp {verb}"), batch, rows, None);
            return None;
        }
        Some(())
    }

    /// Report a batch of so many tokens, written at `span`, as no whole number of rows.
    fn not_whole(&mut self, span: Span, place: &str, batch: u64, rows: u64, context: Option<Span>) {
        let below = batch / rows;
        let mut d = Diagnostic::error(
            codes::STAGE_BATCH,
            span,
            format!("the batch is not a whole number of sequences{place}"),
            format!(
                "{} tokens are {} sequences of {}",
                show::digits(batch),
                show::number(batch as f64 / rows as f64),
                show::length(rows)
            ),
        );
        if let Some(context) = context.filter(|at| *at != span) {
            d = d.label(context, "the length of a sequence");
        }
        // `4M tokens` is what many call 4_194_304.
        if let Some((text, tokens)) = binary(batch).filter(|(_, tokens)| tokens.is_multiple_of(rows)) {
            d = d.help(format!(
                "`{text}` are {} tokens, {} sequences of {}",
                show::digits(tokens),
                show::digits(tokens / rows),
                show::length(rows)
            ));
            if self.text(span).starts_with(|c: char| c.is_ascii_digit()) {
                d = d.fix(format!("write `{text}`"), Applicability::MaybeIncorrect, span, text);
            }
        }
        let near = if below == 0 { rows } else { below * rows };
        self.push(d.help(format!(
            "the nearest whole batches are {} tokens ({} seqs) and {} tokens ({} seqs)",
            show::digits(near),
            near / rows,
            show::digits((below + 1) * rows),
            below + 1
        )));
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

    /// Rewrite spans in steps of a batch curve to tokens: `over: N steps` is the tokens of as many steps of the
    /// segment itself, laid from where it begins; `until: N steps` is where the first N steps of the stage end. Then
    /// spans are placed as any other.
    fn steps_to_tokens(
        &mut self,
        chain: &Chain<'p>,
        start: Batch,
        context: &[(u64, u64)],
        frame: Frame<'_>,
    ) -> Option<Chain<'p>> {
        if !chain.segments.iter().any(|c| in_steps(c)) {
            return Some(chain.clone());
        }
        let mut chain = chain.clone();
        let mut current = start;
        let mut at = 0u64;
        // What was laid up to `at`; unknown behind an open segment.
        let mut laid = Some(Vec::new());
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
            let Some((name, span)) = span_argument(&call) else {
                // Open: what follows begins at an unknown place; its spans must be in tokens.
                (current, laid) = (next, None);
                continue;
            };
            let from = at;
            match (&span.kind, name, &laid) {
                (Kind::Condition(_), ..) => laid = None,
                // A place behind an open segment: said where it is placed.
                (_, "until", None) => {}
                (Kind::Quantity(n, Unit::Steps), "until", Some(before)) => {
                    let steps = self.count(*n, span.span, "until")?;
                    let held = still(at, u64::MAX, current);
                    let pieces: Vec<BatchPiece> = before.iter().copied().chain([held]).collect();
                    match Clock::lay(Length::Steps(steps), context, &pieces) {
                        Ok(clock) => at = clock.tokens,
                        Err(misfit) => return self.misfit(misfit, &chain, None),
                    }
                    set_span(&mut call, at);
                }
                (_, "until", Some(_)) => at = whole(self.span(&span, "until", frame, |_, _| 0)?.floor()),
                (Kind::Quantity(n, Unit::Steps), ..) => {
                    let steps = self.count(*n, span.span, "over")?;
                    let first = context.partition_point(|(p, _)| *p <= at).saturating_sub(1);
                    let rows: Vec<(u64, u64)> =
                        context[first..].iter().map(|(p, c)| (p.saturating_sub(at), *c)).collect();
                    let length = if call.function.name == "hold" {
                        still_span(steps, &rows, current)
                    } else {
                        let shape = self.batch_shape(&call, current, next)?;
                        ramp_span(steps, &rows, current, next, shape)
                    };
                    let tokens = match length {
                        Ok(tokens) => tokens,
                        Err(misfit) => return self.misfit(misfit, &chain, None),
                    };
                    set_span(&mut call, tokens);
                    at = at.saturating_add(tokens);
                }
                _ => {
                    let length = self.span(&span, "over", frame, |_, _| 0)?;
                    at = at.saturating_add(whole(length.floor()));
                }
            }
            if let Some(before) = laid.as_mut() {
                before.push(match call.function.name {
                    "hold" => still(from, at, current),
                    _ => BatchPiece {
                        shape: self.batch_shape(&call, current, next)?,
                        from: current.value,
                        to: next.value,
                        ..still(from, at, next)
                    },
                });
            }
            current = next;
            *slot = Rc::new(call);
        }
        Some(chain)
    }

    /// Rewrite spans in steps of a context curve to tokens: how long its steps are says the `batch` before it, for
    /// as long as no segment of the context is open.
    pub(crate) fn context_in_tokens(
        &mut self,
        chain: &Chain<'p>,
        batch: &Chain<'p>,
        frame: Frame<'_>,
    ) -> Option<Chain<'p>> {
        let mut out = chain.clone();
        let mut rows = vec![(0, self.row_length(&chain.start)?)];
        let mut at = 0u64;
        for slot in &mut out.segments {
            let mut call = (**slot).clone();
            if call.function.name == "step" {
                let to = call.arg("to")?.clone();
                rows.push((at, self.row_length(&to)?));
                continue;
            }
            let Some((name, span)) = span_argument(&call).filter(|_| call.function.name == "hold") else {
                return Some(out);
            };
            let Kind::Quantity(n, Unit::Steps) = span.kind else {
                if let Kind::Condition(_) = span.kind {
                    return Some(out);
                }
                let length = whole(self.span(&span, name, frame, |_, _| 0)?.floor());
                at = if name == "until" { length } else { at.saturating_add(length) };
                continue;
            };
            let steps = self.count(n, span.span, name)?;
            let Some(pieces) = self.batch_so_far(batch, &rows, frame)? else { return Some(out) };
            let lay = |length| Clock::lay(length, &rows, &pieces);
            let end = match name {
                "until" => lay(Length::Steps(steps)),
                _ => lay(Length::Tokens(at)).and_then(|c| lay(Length::Steps(c.steps.saturating_add(steps)))),
            };
            let end = match end {
                Ok(clock) => clock.tokens,
                Err(misfit) => return self.misfit(misfit, batch, Some(chain.span)),
            };
            set_span(&mut call, if name == "until" { end } else { end - at.min(end) });
            at = end;
            *slot = Rc::new(call);
        }
        Some(out)
    }

    /// The pieces of `batch` over rows that are known up to some place: `None` inside where its own steps reach
    /// beyond that.
    fn batch_so_far(
        &mut self,
        batch: &Chain<'p>,
        rows: &[(u64, u64)],
        frame: Frame<'_>,
    ) -> Option<Option<Vec<BatchPiece>>> {
        let kept = self.diags.len();
        let pieces = self.batch(batch, rows, Frame { field: "batch", ..frame });
        if pieces.is_none() && batch.segments.iter().any(|c| in_steps(c)) {
            self.forget(kept);
            return Some(None);
        }
        pieces.map(Some)
    }

    /// Report why the grid of steps cannot be laid by the curve `batch`.
    pub(crate) fn misfit<T>(
        &mut self,
        misfit: Misfit,
        batch: &Chain<'p>,
        context_span: Option<Span>,
    ) -> Option<T> {
        let batch_span = batch.span;
        let at = |at: u64| if at == 0 { String::new() } else { format!(" at token {}", show::count(at)) };
        let d = match misfit {
            Misfit::NotWhole { at: token, batch: tokens, context } => {
                let values = std::iter::once(&batch.start);
                let mut values = values.chain(batch.segments.iter().filter_map(|call| call.arg("to")));
                let written = values.find(|v| matches!(v.kind, Kind::Quantity(n, _) if n == Rational::from(tokens)));
                let span = written.map_or(batch_span, |value| value.span);
                self.not_whole(span, &at(token), tokens, context, context_span);
                return None;
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
        self.push(d);
        None
    }
}

/// Whether a segment says in steps where it ends.
pub(crate) fn in_steps(call: &Call<'_>) -> bool {
    span_argument(call).is_some_and(|(_, value)| matches!(value.kind, Kind::Quantity(_, Unit::Steps)))
}

/// The argument that says where a segment ends, with its name. Both at once are told of where it is placed.
fn span_argument<'p>(call: &Call<'p>) -> Option<(&'static str, Val<'p>)> {
    ["until", "over"].into_iter().find_map(|name| Some((name, call.arg(name)?.clone())))
}

/// Write the span of a segment in tokens.
fn set_span(call: &mut Call<'_>, tokens: u64) {
    if let Some((_, value)) = call.named.iter_mut().find(|(n, _)| matches!(n.text.as_str(), "over" | "until"))
    {
        value.kind = Kind::Quantity(Rational::from(tokens), Unit::Tokens);
    }
}

/// A batch that stays as it is.
fn still(start: u64, end: u64, batch: Batch) -> BatchPiece {
    BatchPiece { start, end, shape: Shape::Hold, from: batch.value, to: batch.value, rows: batch.rows }
}

/// A number of tokens that reads as one with a decimal magnitude, with the binary one in its place.
fn binary(tokens: u64) -> Option<(String, u64)> {
    const MAGNITUDES: [(u64, u64, &str); 3] =
        [(1_000_000_000, 1 << 30, "Gi"), (1_000_000, 1 << 20, "Mi"), (1000, 1 << 10, "Ki")];
    let (decimal, binary, name) = MAGNITUDES.into_iter().find(|(decimal, ..)| tokens >= *decimal)?;
    // Four digits at most: more is no round number.
    if !tokens.is_multiple_of(decimal / 1000) {
        return None;
    }
    let exact = u128::from(tokens) * u128::from(binary);
    let whole = exact.is_multiple_of(u128::from(decimal)).then(|| exact / u128::from(decimal))?;
    let written = show::decimal(Rational::new(i128::from(tokens), i128::from(decimal))?)?;
    Some((format!("{written}{name} tokens"), u64::try_from(whole).ok()?))
}

/// Phases that the span of a ramp in steps may have; it is laid some fifty times.
const MAX_RAMP_PHASES: usize = 20_000;

/// Tokens of `steps` steps of a batch that stays.
fn still_span(steps: u64, context: &[(u64, u64)], batch: Batch) -> Result<u64, Misfit> {
    Ok(Clock::lay(Length::Steps(steps), context, &[still(0, u64::MAX, batch)])?.tokens)
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
