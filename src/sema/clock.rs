//! Steps and tokens of a stage: the batch and context curves cut into phases of equal steps.
//! A step reads whole rows, so a moving batch is floored to whole rows step by step.

use std::sync::Arc;

use crate::curve::Shape;

use super::curriculum::Phase;
use super::expect::MAX_TOKENS;

/// More phases than this are refused: a ramp over that many different batches says nothing.
const MAX_PHASES: usize = 200_000;

/// A piece of the batch curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BatchPiece {
    pub(crate) start: u64,
    /// `u64::MAX` for a piece without end.
    pub(crate) end: u64,
    pub(crate) shape: Shape,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Whether the numbers are rows (else tokens).
    pub(crate) rows: bool,
}

impl BatchPiece {
    /// Rows per step at token `at`, for rows of `context` tokens.
    fn rows_at(&self, at: u64, context: u64) -> u64 {
        let value = self.value(at);
        if self.rows { value } else { value / context }
    }

    /// The curve, floored.
    fn value(&self, at: u64) -> u64 {
        if self.from == self.to || self.end == u64::MAX || at <= self.start {
            return self.from;
        }
        if at >= self.end {
            return self.to;
        }
        let (t, full) = (i128::from(at - self.start), i128::from(self.end - self.start));
        let (a, b) = (i128::from(self.from), i128::from(self.to));
        match self.shape {
            Shape::Linear => (a + ((b - a) * t).div_euclid(full)).max(0) as u64,
            shape => {
                // Curved ramps are evaluated in floating point; a value within 1e-9 below a whole
                // number is that number.
                let v = shape.value(self.from as f64, self.to as f64, t as f64, full as f64);
                (v + 1e-9 * v.abs()).floor().max(0.0) as u64
            }
        }
    }
}

/// How long the stage is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Length {
    Tokens(u64),
    Steps(u64),
}

/// A stage on the grid of its steps.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Clock {
    /// Shared by stages with the same grid.
    pub(crate) phases: Arc<[Phase]>,
    pub(crate) tokens: u64,
    pub(crate) steps: u64,
    pub(crate) overshoot: u64,
}

/// The grid that was laid last, which the next member of a fan-out mostly has too, with what it was laid by.
#[derive(Debug, Default)]
pub(crate) struct LastGrid(Option<Grid>);

#[derive(Debug)]
struct Grid {
    length: Length,
    context: Vec<(u64, u64)>,
    batch: Vec<BatchPiece>,
    laid: Result<Clock, Misfit>,
}

impl LastGrid {
    /// [`Clock::lay`], or what it came to the last time.
    pub(crate) fn lay(
        &mut self,
        length: Length,
        context: &[(u64, u64)],
        batch: &[BatchPiece],
    ) -> Result<Clock, Misfit> {
        let same = |g: &&Grid| g.length == length && g.context == context && g.batch == batch;
        if let Some(grid) = self.0.as_ref().filter(same) {
            return grid.laid.clone();
        }
        let laid = Clock::lay(length, context, batch);
        self.0 = Some(Grid { length, context: context.to_vec(), batch: batch.to_vec(), laid: laid.clone() });
        laid
    }
}

/// Why the grid cannot be laid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Misfit {
    /// At this token the batch is not a whole number of rows: batch and context in tokens.
    NotWhole { at: u64, batch: u64, context: u64 },
    /// At this token a step has no row at all; the ends of the piece that says so.
    Empty { at: u64, from: u64, to: u64 },
    /// Token counts leave exact range.
    TooLarge,
    /// Too many different batches.
    TooFine,
}

impl Clock {
    /// Lay the grid. `context` and `batch` start at 0; `context` is sorted.
    pub(crate) fn lay(length: Length, context: &[(u64, u64)], batch: &[BatchPiece]) -> Result<Self, Misfit> {
        let mut phases: Vec<Phase> = Vec::new();
        let (mut tokens, mut step) = (0u64, 0u64);
        let goal = match length {
            Length::Tokens(goal) => goal,
            Length::Steps(_) => u64::MAX,
        };
        let steps_goal = match length {
            Length::Steps(goal) => goal,
            Length::Tokens(_) => u64::MAX,
        };
        while tokens < goal && step < steps_goal {
            let c = context.partition_point(|(at, _)| *at <= tokens).saturating_sub(1);
            let row = context[c].1;
            let b = batch.partition_point(|p| p.start <= tokens).saturating_sub(1);
            let piece = batch[b];
            let rows = piece.rows_at(tokens, row);
            if !piece.rows {
                let still = piece.from == piece.to;
                if still && !piece.from.is_multiple_of(row) {
                    return Err(Misfit::NotWhole { at: tokens, batch: piece.from, context: row });
                }
            }
            if rows == 0 {
                return Err(Misfit::Empty { at: tokens, from: piece.from, to: piece.to });
            }
            let size = rows.checked_mul(row).filter(|s| *s <= MAX_TOKENS).ok_or(Misfit::TooLarge)?;
            // Up to where nothing changes.
            let mut until = goal.min(context.get(c + 1).map_or(u64::MAX, |(at, _)| *at));
            until = until.min(batch.get(b + 1).map_or(u64::MAX, |p| p.start));
            if piece.from != piece.to && tokens < piece.end {
                until = until.min(change(&piece, tokens, row, rows));
            }
            let mut count = if until == u64::MAX { u64::MAX } else { (until - tokens).div_ceil(size).max(1) };
            count = count.min(steps_goal - step);
            if phases.last().is_none_or(|p| p.sequences != rows || p.context != row) {
                if phases.len() >= MAX_PHASES {
                    return Err(Misfit::TooFine);
                }
                phases.push(Phase { step, tokens, sequences: rows, context: row });
            }
            let run = count.checked_mul(size).ok_or(Misfit::TooLarge)?;
            tokens = tokens.checked_add(run).filter(|t| *t <= MAX_TOKENS).ok_or(Misfit::TooLarge)?;
            step += count;
        }
        let declared = match length {
            Length::Tokens(goal) => goal,
            Length::Steps(_) => tokens,
        };
        Ok(Self { phases: phases.into(), tokens: declared, steps: step, overshoot: tokens - declared })
    }

    /// Tokens seen before `step`; the last phase goes on past the end.
    pub(crate) fn tokens_at(&self, step: u64) -> u64 {
        let at = self.phases.partition_point(|p| p.step <= step).saturating_sub(1);
        let p = self.phases[at];
        let run = u128::from(step - p.step) * u128::from(p.sequences) * u128::from(p.context);
        u64::try_from(u128::from(p.tokens) + run).unwrap_or(u64::MAX)
    }

    /// The first step that begins at or after `tokens`.
    pub(crate) fn step_at(&self, tokens: u64) -> u64 {
        let at = self.phases.partition_point(|p| p.tokens <= tokens).saturating_sub(1);
        let p = self.phases[at];
        p.step + (tokens - p.tokens).div_ceil(p.sequences * p.context)
    }

    /// Tokens of `steps` steps from position `at` on.
    pub(crate) fn span(&self, at: u64, steps: u64) -> u64 {
        let first = self.step_at(at);
        self.tokens_at(first.saturating_add(steps)) - self.tokens_at(first)
    }

    /// Tokens of the `steps` steps that end at position `end`.
    pub(crate) fn span_before(&self, end: u64, steps: u64) -> u64 {
        let last = self.step_at(end);
        self.tokens_at(last) - self.tokens_at(last.saturating_sub(steps))
    }

    /// Whether the number of tokens per step changes.
    pub(crate) fn moves(&self) -> bool {
        self.phases.windows(2).any(|w| w[0].sequences * w[0].context != w[1].sequences * w[1].context)
    }
}

/// The first token after `at` at which the number of rows is no longer `rows`.
fn change(piece: &BatchPiece, at: u64, row: u64, rows: u64) -> u64 {
    if piece.rows_at(piece.end, row) == rows {
        return piece.end;
    }
    // Shapes are monotone, so the rows change once and for all.
    let (mut same, mut other) = (at, piece.end);
    while other - same > 1 {
        let middle = same + (other - same) / 2;
        if piece.rows_at(middle, row) == rows { same = middle } else { other = middle }
    }
    other
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(start: u64, end: u64, rows: u64) -> BatchPiece {
        BatchPiece { start, end, shape: Shape::Hold, from: rows, to: rows, rows: true }
    }

    #[test]
    fn a_grid_is_laid_once_for_all_that_share_it() {
        let piece = |to| BatchPiece { start: 0, end: 1 << 20, shape: Shape::Linear, from: 1, to, rows: true };
        let mut last = LastGrid::default();
        let mut lay = |tokens, to| last.lay(Length::Tokens(tokens), &[(0, 64)], &[piece(to)]).unwrap();
        let (one, same) = (lay(1 << 20, 64), lay(1 << 20, 64));
        assert!(Arc::ptr_eq(&one.phases, &same.phases));
        for (tokens, to) in [(1 << 19, 64), (1 << 20, 32), (1 << 20, 64)] {
            assert_eq!(
                lay(tokens, to),
                Clock::lay(Length::Tokens(tokens), &[(0, 64)], &[piece(to)]).unwrap()
            );
        }
    }

    #[test]
    fn a_constant_batch_rounds_steps_up() {
        let clock =
            Clock::lay(Length::Tokens(50_000_000_000), &[(0, 4096)], &[hold(0, u64::MAX, 1024)]).unwrap();
        assert_eq!(clock.steps, 11_921);
        assert_eq!(clock.overshoot, 11_921 * 4_194_304 - 50_000_000_000);
        assert_eq!(clock.phases.len(), 1);
    }

    #[test]
    fn phases_agree_with_step_by_step() {
        let ramp = BatchPiece { start: 0, end: 100_000, shape: Shape::Linear, from: 3, to: 17, rows: true };
        let batch = [ramp, hold(100_000, u64::MAX, 17)];
        let context = [(0, 64), (50_000, 128)];
        let clock = Clock::lay(Length::Tokens(250_000), &context, &batch).unwrap();
        let (mut tokens, mut step) = (0u64, 0u64);
        while tokens < 250_000 {
            let row = if tokens < 50_000 { 64 } else { 128 };
            let rows = if tokens < 100_000 { 3 + 14 * tokens / 100_000 } else { 17 };
            assert_eq!(clock.tokens_at(step), tokens, "step {step}");
            assert_eq!(clock.step_at(tokens), step);
            tokens += rows * row;
            step += 1;
        }
        assert_eq!((clock.steps, clock.overshoot), (step, tokens - 250_000));
    }

    #[test]
    fn steps_are_converted_through_the_ramp() {
        let batch = [hold(0, 1000, 1), hold(1000, u64::MAX, 2)];
        let clock = Clock::lay(Length::Steps(20), &[(0, 100)], &batch).unwrap();
        assert_eq!(clock.tokens, 10 * 100 + 10 * 200);
        assert_eq!(clock.span(500, 10), 5 * 100 + 5 * 200);
        assert_eq!(clock.span_before(3000, 12), 2 * 100 + 10 * 200);
    }

    #[test]
    fn misfits() {
        let tokens =
            BatchPiece { start: 0, end: u64::MAX, shape: Shape::Hold, from: 5000, to: 5000, rows: false };
        assert_eq!(
            Clock::lay(Length::Steps(1), &[(0, 4096)], &[tokens]),
            Err(Misfit::NotWhole { at: 0, batch: 5000, context: 4096 })
        );
        assert_eq!(
            Clock::lay(Length::Steps(1), &[(0, 1)], &[hold(0, u64::MAX, 0)]),
            Err(Misfit::Empty { at: 0, from: 0, to: 0 })
        );
        assert_eq!(
            Clock::lay(Length::Steps(MAX_TOKENS), &[(0, 4096)], &[hold(0, u64::MAX, 1)]),
            Err(Misfit::TooLarge)
        );
    }
}
