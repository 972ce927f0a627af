//! Curves: from `a then b then c` to segments at token positions with values. One algorithm for
//! learning rates, weights, batches, contexts and mixtures; only the values differ.

use std::rc::Rc;

use crate::curve::{Curve, Segment, Shape};
use crate::diag::{Applicability, Diagnostic};
use crate::schema::{Family, Ty};
use crate::source::Span;
use crate::syntax::ast::{Rational, Unit};

use super::checker::Checker;
use super::clock::Clock;
use super::show;
use super::value::{Call, Kind, Val, Whole};
use crate::diag::codes;

/// Chains may be made of named chains; one that unfolds to more segments than this is refused.
const MAX_SEGMENTS: usize = 10_000;

/// A curve as written, named parts unfolded.
#[derive(Clone, Debug)]
pub(crate) struct Chain<'p> {
    pub(crate) start: Val<'p>,
    pub(crate) segments: Vec<Rc<Call<'p>>>,
    pub(crate) truncated: bool,
    pub(crate) span: Span,
}

/// A segment with its place, values still to come.
#[derive(Clone, Debug)]
pub(crate) struct Placed<'p> {
    pub(crate) call: Rc<Call<'p>>,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) horizon: Option<u64>,
}

/// What durations are measured against.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'c> {
    /// The field, for messages.
    pub(crate) field: &'c str,
    /// Tokens of the stage.
    pub(crate) tokens: u64,
    /// Where the stage's length is written.
    pub(crate) length_span: Span,
    /// Steps; absent while the batch itself is being laid out.
    pub(crate) clock: Option<&'c Clock>,
    /// The learning rate, for `until`.
    pub(crate) lr: Option<&'c Curve>,
    /// The whole run.
    pub(crate) total: Option<u64>,
    /// Whether the clock of a stage measured in steps was laid by this curve: in it only a `hold` at the end
    /// can take what is left.
    pub(crate) laid_by_curve: bool,
}

impl<'p> Checker<'p> {
    /// Unfold a value into a chain; a plain value is a chain without segments.
    pub(crate) fn chain(&mut self, value: &Val<'p>, field: &str) -> Option<Chain<'p>> {
        let mut truncated = false;
        let mut inner = value.clone();
        while let Kind::Call(call) = &inner.kind {
            if call.function.family != Family::Curve {
                break;
            }
            truncated = true;
            match call.positional.as_slice() {
                [curve] => inner = curve.clone(),
                _ => {
                    let span = call.span;
                    self.push(Diagnostic::error(
                        codes::MISSING_ARGUMENT,
                        span,
                        format!("`truncate` takes one curve, not {}", call.positional.len()),
                        "one curve is expected between the parentheses",
                    ));
                    return None;
                }
            }
        }
        let mut parts = Vec::new();
        if !flatten(&inner, &mut parts) {
            self.push(Diagnostic::error(
                codes::CURVE_SIZE,
                value.span,
                format!("`{field}` unfolds to more than {MAX_SEGMENTS} segments"),
                "named curves inside named curves multiply",
            ));
            return None;
        }
        let mut parts = parts.into_iter();
        let start = parts.next()?;
        if start.is_poison() {
            return None;
        }
        if let Kind::Call(call) = &start.kind
            && call.function.family == Family::Segment
        {
            self.push(
                Diagnostic::error(
                    codes::CURVE_START,
                    start.span,
                    format!("`{field}` does not say where it starts"),
                    format!("`{}` is a segment; a value must stand before it", call.function.name),
                )
                .help(match field {
                    "lr" => "write `inherit then …` to go on where `from` ended, or a value: `3e-4 then …`",
                    _ => "write the value it starts from: `… then …`",
                }),
            );
            return None;
        }
        let mut segments = Vec::new();
        for part in parts {
            match &part.kind {
                Kind::Call(call) if call.function.family == Family::Segment => segments.push(call.clone()),
                Kind::Poison => return None,
                _ => {
                    let found = part.describe();
                    self.push(
                        Diagnostic::error(
                            codes::CURVE_SEGMENT,
                            part.span,
                            format!("{found} after `then`"),
                            "a segment is expected here",
                        )
                        .help("to jump to a value write `step(to: …)`; to approach it, `linear(to: …)`"),
                    );
                    return None;
                }
            }
        }
        Some(Chain { start, segments, truncated, span: value.span })
    }

    /// A number without unit or magnitude that is shorter than the shortest step: steps are meant.
    fn steps_for_tokens(&mut self, n: Rational, value: &Val<'p>, field: &str, clock: Option<&Clock>) -> bool {
        let shortest = clock.and_then(|c| c.phases.iter().map(|p| p.sequences * p.context).min());
        let written = self.text(value.span);
        let bare = written.bytes().all(|b| b.is_ascii_digit() || b == b'_');
        let Some(step) = shortest else { return false };
        if !bare || n <= Rational::ZERO || n >= Rational::from(step) {
            return false;
        }
        let end = Span { start: value.span.end, ..value.span };
        self.push(
            Diagnostic::error(
                codes::CURVE_SPAN,
                value.span,
                format!("`{field}` is {written} tokens, less than one step"),
                format!("a step is {} tokens or more", show::count(step)),
            )
            .help("a number without a unit counts tokens")
            .fix("count steps", Applicability::MaybeIncorrect, end, " steps"),
        );
        true
    }

    /// Put the segments of a chain at token positions; they must tile the stage.
    pub(crate) fn place(&mut self, chain: &Chain<'p>, frame: Frame<'_>) -> Option<Vec<Placed<'p>>> {
        let mut open: Option<usize> = None;
        for (i, call) in chain.segments.iter().enumerate() {
            if !is_open(call) {
                continue;
            }
            if chain.truncated {
                self.push(
                    Diagnostic::error(
                        codes::CURVE_OPEN,
                        call.span,
                        "an open segment in a truncated curve",
                        "without `over` there is no end to cut at",
                    )
                    .help("say how long it would be: `over: …`"),
                );
                return None;
            }
            if let Some(first) = open {
                let first = chain.segments[first].span;
                self.push(
                    Diagnostic::error(
                        codes::CURVE_OPEN,
                        call.span,
                        format!("two segments of `{}` without `over`", frame.field),
                        "this one also takes what is left",
                    )
                    .label(first, "this one takes what the others leave")
                    .help("give one of them a length: `over: 10% of stage`"),
                );
                return None;
            }
            open = Some(i);
        }
        let zero = Rational::ZERO;
        let goal = Rational::from(frame.tokens);
        // Forward up to the open segment, backward from the end to it.
        let split = open.unwrap_or(chain.segments.len());
        let mut starts = Vec::with_capacity(chain.segments.len());
        let mut lengths = Vec::with_capacity(chain.segments.len());
        let mut at = zero;
        for call in &chain.segments[..split] {
            let length = self.span_of(call, at, true, frame)?;
            starts.push(at);
            lengths.push(length);
            at = self.add(at, length, call.span)?;
        }
        if let Some(open) = open {
            let mut back = goal;
            let mut tail = Vec::new();
            for call in chain.segments[open + 1..].iter().rev() {
                let length = self.span_of(call, back, false, frame)?;
                back = self.add(back, -length, call.span)?;
                tail.push((back, length));
            }
            if back < at {
                let after = self.add(goal, -back, chain.span)?;
                let fixed = self.add(at, after, chain.span)?;
                return self.too_long(chain, fixed, frame, Some(chain.segments[open].span));
            }
            if back == at && frame.tokens > 0 {
                return self.nothing_left(chain.segments[open].span, frame);
            }
            starts.push(at);
            lengths.push(self.add(back, -at, chain.segments[open].span)?);
            for (start, length) in tail.into_iter().rev() {
                starts.push(start);
                lengths.push(length);
            }
        } else if !chain.segments.is_empty() {
            if at > goal && !chain.truncated {
                return self.too_long(chain, at, frame, None);
            }
            if at < goal {
                return self.too_short(chain, at, frame);
            }
        }
        let floor = |v: Rational| whole(v.floor());
        let mut placed = Vec::with_capacity(starts.len());
        for ((call, start), length) in chain.segments.iter().zip(starts).zip(lengths) {
            let (start, end) = (floor(start), floor(self.add(start, length, call.span)?));
            if start > frame.tokens || (start == frame.tokens && end > start) {
                break;
            }
            if frame.field == "lr" && !chain.truncated && self.unseen(call, start, end, frame) {
                return None;
            }
            let horizon = (end > frame.tokens).then_some(end);
            placed.push(Placed { call: call.clone(), start, end: end.min(frame.tokens), horizon });
        }
        Some(placed)
    }

    /// A segment of the learning rate that no step follows, or not as it is written: whoever reads the curve
    /// believes in values that are never used.
    fn unseen(&mut self, call: &Call<'p>, start: u64, end: u64, frame: Frame<'_>) -> bool {
        let Some(clock) = frame.clock else { return false };
        if call.function.name == "step" {
            if start < clock.tokens {
                return false;
            }
            self.push(
                Diagnostic::error(
                    codes::CURVE_SPAN,
                    call.span,
                    format!("a jump of `{}` where the stage is over", frame.field),
                    "no step comes after this",
                )
                .label(frame.length_span, "the length of the stage")
                .help("take it out, or give the segment before it a length that leaves something: `over: …`"),
            );
            return true;
        }
        // A share becomes as short as a trial makes its stage; a number of tokens was meant.
        let Some(Val { kind: Kind::Number(_) | Kind::Quantity(_, Unit::Tokens), span }) = call.arg("over")
        else {
            return false;
        };
        let step = clock.step_at(start);
        let size = clock.tokens_at(step + 1) - clock.tokens_at(step);
        if end - start >= size {
            return false;
        }
        self.push(
            Diagnostic::error(
                codes::CURVE_SPAN,
                *span,
                format!("a segment of `{}` that is shorter than a step", frame.field),
                format!("{} tokens of the {} that a step has", show::count(end - start), show::count(size)),
            )
            .help("give it at least one step, or leave it out; a jump is written `step(to: …)`"),
        );
        true
    }

    /// `a + b`, where exact arithmetic reaches so far.
    fn add(&mut self, a: Rational, b: Rational, span: Span) -> Option<Rational> {
        let sum = a.checked_add(b);
        if sum.is_none() {
            self.push(Diagnostic::error(
                codes::OVERFLOW,
                span,
                "a position too large or too precise",
                "exact arithmetic ends here",
            ));
        }
        sum
    }

    /// Report an open segment that begins where the stage is over.
    pub(crate) fn nothing_left<T>(&mut self, open: Span, frame: Frame<'_>) -> Option<T> {
        self.push(
            Diagnostic::error(
                codes::CURVE_LONG,
                open,
                format!("nothing is left for a segment of `{}`", frame.field),
                "the other segments take the whole stage",
            )
            .label(frame.length_span, format!("the stage has {} tokens", show::count(frame.tokens)))
            .help("shorten another segment, or leave this one out"),
        );
        None
    }

    pub(crate) fn too_long<T>(
        &mut self,
        chain: &Chain<'p>,
        length: Rational,
        frame: Frame<'_>,
        open: Option<Span>,
    ) -> Option<T> {
        let over = whole(self.add(length, -Rational::from(frame.tokens), chain.span)?.ceil());
        let share = over as f64 / frame.tokens as f64;
        let steps = chain
            .segments
            .iter()
            .any(|c| matches!(c.arg("over"), Some(Val { kind: Kind::Quantity(_, Unit::Steps), .. })));
        // Steps that a growing batch stretches: the schedule ends, in its own count, after the data.
        if steps && frame.field == "lr" && frame.clock.is_some_and(Clock::moves) {
            self.never_lands_in_steps(chain, over, share, frame);
            return None;
        }
        let mut d = Diagnostic::error(
            codes::CURVE_LONG,
            chain.span,
            format!(
                "`{}` is {} ({} of the stage) longer than the stage",
                frame.field,
                show::tokens(over),
                show::percent(share)
            ),
            format!("these segments take {} tokens", show::count(whole(length.ceil()))),
        )
        .label(frame.length_span, format!("the stage has {} tokens", show::count(frame.tokens)));
        if let Some(open) = open {
            d = d.label(open, "nothing is left for this segment");
        }
        d = d.help(if frame.laid_by_curve {
            "shorten a segment by that much, or wrap the curve in `truncate(…)` if it is meant to be cut"
        } else {
            "shorten a segment by that much, leave out one `over` (that segment takes what is left), or wrap the curve in `truncate(…)` if it is meant to be cut"
        });
        if let (Some(last), None) = (can_open(chain, frame), open)
            && let Some(fix) = drop_over(last)
        {
            d.fixes.push(fix);
        }
        self.push(d);
        None
    }

    pub(crate) fn too_short<T>(
        &mut self,
        chain: &Chain<'p>,
        length: Rational,
        frame: Frame<'_>,
    ) -> Option<T> {
        let missing = whole(self.add(Rational::from(frame.tokens), -length, chain.span)?.ceil());
        let share = missing as f64 / frame.tokens as f64;
        let mut d = Diagnostic::error(
            codes::CURVE_SHORT,
            chain.span,
            format!(
                "`{}` ends {} ({} of the stage) before the stage",
                frame.field,
                show::tokens(missing),
                show::percent(share)
            ),
            format!("these segments take {} tokens", show::count(whole(length.floor()))),
        )
        .label(frame.length_span, format!("the stage has {} tokens", show::count(frame.tokens)))
        .help(if frame.laid_by_curve {
            "hold the last value: `then hold`"
        } else {
            "leave out one `over` (that segment takes what is left), or hold the last value: `then hold`"
        });
        if let Some(fix) = can_open(chain, frame).and_then(drop_over) {
            d.fixes.push(fix);
        }
        self.push(d);
        None
    }

    /// The length of a segment that begins (or, backward, ends) at `at`.
    pub(crate) fn span_of(
        &mut self,
        call: &Call<'p>,
        at: Rational,
        forward: bool,
        frame: Frame<'_>,
    ) -> Option<Rational> {
        if call.function.name == "step" {
            return Some(Rational::ZERO);
        }
        if let Some(until) = call.arg("until") {
            let until = until.clone();
            if let Some(over) = call.arg("over") {
                let over = over.span;
                self.push(
                    Diagnostic::error(
                        codes::CURVE_SPAN,
                        over,
                        "`hold` with both `over` and `until`",
                        "two ends for one segment",
                    )
                    .label(until.span, "the other one")
                    .help("keep one of them"),
                );
                return None;
            }
            if !forward {
                self.push(
                    Diagnostic::error(
                        codes::CURVE_SPAN,
                        until.span,
                        "`until` after an open segment",
                        "where this segment begins depends on where it ends",
                    )
                    .help("give the open segment a length: `over: …`"),
                );
                return None;
            }
            let end = match until.kind {
                Kind::Condition(_) => Rational::from(self.until(&until, whole(at.floor()), frame)?),
                _ => self.place_of(&until, at, frame)?,
            };
            return self.add(end, -at, until.span);
        }
        let over = call.arg("over")?.clone();
        let position = whole(at.floor());
        let length = self.span(&over, "over", frame, |clock, steps| {
            if forward { clock.span(position, steps) } else { clock.span_before(position, steps) }
        })?;
        if length <= Rational::ZERO {
            self.push(
                Diagnostic::error(
                    codes::CURVE_SPAN,
                    over.span,
                    "a segment of no length",
                    "this is zero tokens",
                )
                .help("a jump is written `step(to: …)`"),
            );
            return None;
        }
        Some(length)
    }

    /// The place in the stage up to which a segment that begins at `at` holds.
    fn place_of(&mut self, until: &Val<'p>, at: Rational, frame: Frame<'_>) -> Option<Rational> {
        let end = self.span(until, "until", frame, |clock, steps| clock.tokens_at(steps))?;
        if end > at {
            return Some(end);
        }
        self.push(
            Diagnostic::error(
                codes::CURVE_UNTIL,
                until.span,
                "the place of `until` is not behind the place where its `hold` begins",
                format!("the segments before it end at token {}", show::count(whole(at.floor()))),
            )
            .help("`until` counts from the beginning of the stage; how long a segment takes is its `over`"),
        );
        None
    }

    /// A span of the stage in tokens, exact: tokens, steps through `steps`, shares of stage or total.
    pub(crate) fn span(
        &mut self,
        value: &Val<'p>,
        field: &str,
        frame: Frame<'_>,
        steps: impl Fn(&Clock, u64) -> u64,
    ) -> Option<Rational> {
        match value.kind {
            Kind::Number(n) if self.steps_for_tokens(n, value, field, frame.clock) => None,
            Kind::Number(n) | Kind::Quantity(n, Unit::Tokens) => {
                self.count(n, value.span, field).map(Rational::from)
            }
            Kind::Quantity(n, Unit::Steps) => {
                let n = self.count(n, value.span, field)?;
                match frame.clock {
                    Some(clock) => Some(Rational::from(steps(clock, n))),
                    None => {
                        self.push(
                            Diagnostic::error(
                                codes::CURVE_SPAN,
                                value.span,
                                format!("`{}` measured in steps", frame.field),
                                "how many tokens a step takes is known once this curve is laid",
                            )
                            .help("write it in tokens; in steps only what lies before every open segment can be measured"),
                        );
                        None
                    }
                }
            }
            Kind::Relative { share, whole: Whole::Stage, .. } => {
                if frame.tokens == 0 {
                    self.push(
                        Diagnostic::error(
                            codes::CURVE_SPAN,
                            value.span,
                            format!("a share of the stage in `{}` of a stage measured in steps", frame.field),
                            "how many tokens the stage has is known once this curve is laid",
                        )
                        .label(frame.length_span, "the length in steps")
                        .help("write it in steps, as in `over: 500 steps`, or the stage's length in tokens"),
                    );
                    return None;
                }
                self.share_of(share, frame.tokens, value.span)
            }
            Kind::Relative { share, whole: Whole::Total, .. } => match frame.total {
                Some(total) => self.share_of(share, total, value.span),
                None => {
                    self.push(
                        Diagnostic::error(
                            codes::CURVE_SPAN,
                            value.span,
                            "a share of a total that is not known yet",
                            "some stage has its length in steps, or refers to the total itself",
                        )
                        .help("write the span in tokens, or define `param total: tokens = …`"),
                    );
                    None
                }
            },
            _ => {
                self.wrong(value, Ty::Span, field);
                None
            }
        }
    }

    fn share_of(&mut self, share: Rational, whole: u64, span: Span) -> Option<Rational> {
        let product = share.checked_mul(Rational::from(whole));
        if product.is_none() {
            self.push(Diagnostic::error(
                codes::OVERFLOW,
                span,
                "a share too precise",
                "exact arithmetic ends here",
            ));
        }
        product
    }
}

/// A position in whole tokens; one before the stage is its beginning.
pub(crate) fn whole(tokens: i128) -> u64 {
    u64::try_from(tokens.max(0)).unwrap_or(u64::MAX)
}

/// Whether a segment takes what is left.
pub(crate) fn is_open(call: &Call<'_>) -> bool {
    call.function.name != "step" && call.arg("over").is_none() && call.arg("until").is_none()
}

/// Chains inside chains, end to end; `false` when there are too many parts.
fn flatten<'p>(value: &Val<'p>, into: &mut Vec<Val<'p>>) -> bool {
    match &value.kind {
        Kind::Chain(parts) => parts.iter().all(|part| flatten(part, into)),
        _ => {
            into.push(value.clone());
            into.len() <= MAX_SEGMENTS
        }
    }
}

/// The last segment with an `over` that can be left out.
fn can_open<'c, 'p>(chain: &'c Chain<'p>, frame: Frame<'_>) -> Option<&'c Call<'p>> {
    if frame.laid_by_curve {
        return chain.segments.last().map(|c| &**c).filter(|c| c.function.name == "hold");
    }
    chain.segments.iter().rev().map(|c| &**c).find(|c| c.arg("over").is_some())
}

/// The fix that makes a segment take what is left.
fn drop_over(call: &Call<'_>) -> Option<crate::diag::Fix> {
    let at = call.named.iter().position(|(n, _)| n.text == "over")?;
    let (name, value) = &call.named[at];
    // With the comma before it, or up to the next argument when it is the first.
    let span = if at > 0 {
        Span { start: call.named[at - 1].1.span.end, end: value.span.end, ..name.span }
    } else if let Some((next, _)) = call.named.get(1) {
        Span { start: name.span.start, end: next.span.start, ..name.span }
    } else {
        Span { start: call.name_span.end, end: call.span.end, ..name.span }
    };
    Some(crate::diag::Fix {
        title: format!("let this `{}` take what is left", call.function.name),
        applicability: Applicability::MaybeIncorrect,
        edits: vec![crate::diag::Edit { span, text: String::new() }],
    })
}

/// Segments with values: `targets` has the start value and then one per placed segment.
pub(crate) fn curve(placed: &[Placed<'_>], shapes: &[Shape], values: &[f64], tokens: u64) -> Curve {
    if placed.is_empty() {
        return Curve::constant(values.first().copied().unwrap_or(f64::NAN), tokens);
    }
    let segments = placed
        .iter()
        .zip(shapes)
        .enumerate()
        .map(|(i, (p, shape))| Segment {
            shape: *shape,
            from: values[i],
            to: values[i + 1],
            start: p.start,
            end: p.end,
            horizon: p.horizon,
        })
        .collect();
    Curve { segments }
}
