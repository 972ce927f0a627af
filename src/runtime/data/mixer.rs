//! Which source the next row comes from, such that the tokens drawn from every source stay within
//! one sequence of its curve after every row.
//!
//! This is the chairman assignment problem (Tijdeman 1980, "The chairman assignment problem",
//! Discrete Mathematics 32): with A(t) the sum of a source's weights over the first t rows, its
//! j-th row may come once A(t) > j − 1 and must come by the first t with A(t) ≥ j. Rows are unit
//! jobs, and for any span of rows the jobs that lie within it number at most Σ(A(end) − A(start)),
//! the length of the span; so taking the earliest deadline first meets them all. Deadlines need
//! the weights of steps to come, which the plan knows. (Taking the largest deficit first does not
//! keep within one sequence for more than two sources.)
//!
//! All arithmetic is on integers: a weight is a number of [`QUANTUM`]s of a row.

use std::collections::VecDeque;

use super::DataError;
use crate::plan::{MAX_CONTEXT, StepPoint};

/// The parts a row is divided into: shares are exact to 2⁻³⁶.
pub const QUANTUM: u64 = 1 << 36;

/// Weights as whole numbers that sum to [`QUANTUM`], rounded by largest remainder. The weights
/// need not sum to 1; negative ones of the size of rounding errors count as 0.
///
/// # Errors
/// A weight that is not finite or is negative, or no weight above 0.
pub fn quantise(weights: &[f64]) -> Result<Vec<u64>, DataError> {
    let clean = |w: f64| if w < 0.0 && w > -1e-9 { 0.0 } else { w };
    let sum: f64 = weights.iter().map(|w| clean(*w)).sum();
    if weights.iter().any(|w| !clean(*w).is_finite() || clean(*w) < 0.0) || !sum.is_finite() || sum <= 0.0 {
        return Err(DataError::Request(format!(
            "mixture weights must be shares that sum to 1: {}",
            weights.iter().map(f64::to_string).collect::<Vec<_>>().join(", ")
        )));
    }
    let exact: Vec<f64> = weights.iter().map(|w| clean(*w) / sum * QUANTUM as f64).collect();
    let mut whole: Vec<u64> = exact.iter().map(|x| x.floor() as u64).collect();
    let total: u64 = whole.iter().sum();
    let mut by_remainder: Vec<usize> = (0..whole.len()).filter(|i| exact[*i] > 0.0).collect();
    let remainder = |i: usize| exact[i] - exact[i].floor();
    if total <= QUANTUM {
        by_remainder.sort_by(|a, b| remainder(*b).total_cmp(&remainder(*a)).then(a.cmp(b)));
        // Fewer than one is missing per weight above 0, plus what the division's rounding lost.
        for i in by_remainder.iter().cycle().take((QUANTUM - total) as usize) {
            whole[*i] += 1;
        }
    } else {
        // Rounding of the division went up; take it from the largest.
        let largest = (0..whole.len()).max_by_key(|i| whole[*i]).unwrap_or(0);
        whole[largest] -= total - QUANTUM;
    }
    Ok(whole)
}

/// Gives the shape and weights of the step `n` after the present one; `None` past the last.
pub type Later<'a> = dyn FnMut(u64) -> Result<Option<(StepPoint, Vec<u64>)>, DataError> + 'a;

/// A step to come: its rows and the weights that hold in it.
#[derive(Clone, Debug)]
struct Step {
    /// Rows before it, since the mixer was made.
    first_row: u64,
    rows: u64,
    context: u64,
    weights: Vec<u64>,
}

impl Step {
    /// What source `i` gains in a row.
    fn gain(&self, i: usize) -> i128 {
        i128::from(self.weights[i]) * i128::from(self.context)
    }

    /// Rows until source `i`, at `level` before the step, is due a whole row; at least 1.
    fn rows_until_due(&self, i: usize, level: i128) -> u64 {
        let missing = i128::from(self.context) * i128::from(QUANTUM) - level;
        match self.gain(i) {
            _ if missing <= 0 => 1,
            0 => u64::MAX,
            gain => u64::try_from((missing + gain - 1) / gain).unwrap_or(u64::MAX),
        }
    }
}

/// Where the search for the deadline of a source's next row stands.
#[derive(Clone, Copy, Debug)]
struct Search {
    /// Step that is searched next, counted since the mixer was made.
    step: u64,
    /// Deficit at the beginning of that step if no more rows came from the source till then.
    level: i128,
    /// The row by which the next one must come, once found.
    deadline: Option<u64>,
}

/// Assigns rows to sources. Its state is the deficits alone.
#[derive(Clone, Debug)]
pub struct Mixer {
    /// Weight so far minus rows so far, in tokens × [`QUANTUM`]; sums to 0. Less than a sequence,
    /// so contexts up to [`MAX_CONTEXT`] tokens fit.
    deficits: Vec<i64>,
    ahead: VecDeque<Step>,
    /// Number of `ahead[0]`.
    first_step: u64,
    /// Whether no step follows `ahead`.
    the_end: bool,
    searches: Vec<Search>,
}

impl Mixer {
    /// For `sources` sources, none ahead or behind.
    pub fn new(sources: usize) -> Self {
        Self::resume(vec![0; sources])
    }

    /// Go on from [`Mixer::deficits`].
    pub fn resume(deficits: Vec<i64>) -> Self {
        let searches =
            deficits.iter().map(|d| Search { step: 0, level: i128::from(*d), deadline: None }).collect();
        Self { deficits, ahead: VecDeque::new(), first_step: 0, the_end: false, searches }
    }

    /// Per source, tokens × [`QUANTUM`] it is behind its curve.
    pub fn deficits(&self) -> &[i64] {
        &self.deficits
    }

    /// The sources of the rows of step `point`, in order. `weights` hold in this step and sum to
    /// [`QUANTUM`]; `later` gives the shape and weights of the step `n` after this one, or `None`
    /// past the end of the stage, where the last weights are taken to go on.
    ///
    /// # Errors
    /// Those of `later`; a step with rows longer than [`MAX_CONTEXT`], or whose weights do not sum to
    /// [`QUANTUM`].
    pub fn assign(
        &mut self,
        point: StepPoint,
        weights: &[u64],
        later: &mut Later<'_>,
    ) -> Result<Vec<u32>, DataError> {
        if point.context > MAX_CONTEXT {
            return Err(DataError::Request(format!(
                "rows of {} tokens; the longest have {MAX_CONTEXT}",
                point.context
            )));
        }
        let sum = weights.iter().try_fold(0u64, |sum, w| sum.checked_add(*w));
        if sum != Some(QUANTUM) {
            return Err(DataError::Request(format!(
                "shares of a row that do not sum to {QUANTUM}: {weights:?}"
            )));
        }
        let first_row = self.ahead.front().map_or(0, |s| s.first_row);
        let shape = (point.sequences, point.context);
        match self.ahead.front() {
            Some(s) if (s.rows, s.context) == shape && s.weights == weights => {}
            // The first step, or one that is not as was foreseen: look ahead afresh.
            _ => {
                self.ahead.clear();
                self.the_end = false;
                self.ahead.push_back(Step {
                    first_row,
                    rows: point.sequences,
                    context: point.context,
                    weights: weights.to_vec(),
                });
                for (search, deficit) in self.searches.iter_mut().zip(&self.deficits) {
                    *search = Search { step: self.first_step, level: i128::from(*deficit), deadline: None };
                }
            }
        }
        let mut rows = Vec::with_capacity(point.sequences as usize);
        let cost = (point.context * QUANTUM) as i64;
        for _ in 0..point.sequences {
            for (deficit, weight) in self.deficits.iter_mut().zip(weights) {
                *deficit += (weight * point.context) as i64;
            }
            let chosen = loop {
                let mut best: Option<(u64, i64, usize)> = None;
                for i in 0..self.deficits.len() {
                    let deficit = self.deficits[i];
                    if deficit <= 0 {
                        continue;
                    }
                    if let Some(deadline) = self.deadline(i)
                        && best.is_none_or(|(d, most, _)| deadline < d || deadline == d && deficit > most)
                    {
                        best = Some((deadline, deficit, i));
                    }
                }
                if let Some((_, _, i)) = best {
                    break i;
                }
                // Every candidate's deadline lies beyond the steps looked at. Past the end each has one: there
                // is none left only where no source is behind, of deficits that do not sum to 0.
                if self.the_end {
                    return Err(DataError::Request(format!(
                        "no source is due a row: they are behind by {:?}",
                        self.deficits
                    )));
                }
                self.look_further(later)?;
            };
            self.deficits[chosen] -= cost;
            let search = &mut self.searches[chosen];
            search.level -= i128::from(cost);
            search.deadline = None;
            rows.push(chosen as u32);
        }
        self.leave_step();
        Ok(rows)
    }

    /// By which row (counted since the mixer was made) source `i` must have its next one; `None`
    /// when that is beyond the steps looked at.
    fn deadline(&mut self, i: usize) -> Option<u64> {
        let search = &mut self.searches[i];
        if search.deadline.is_some() {
            return search.deadline;
        }
        loop {
            let at = (search.step - self.first_step) as usize;
            let Some(step) = self.ahead.get(at) else {
                // Past the end the last weights go on.
                let last = self.ahead.back().filter(|_| self.the_end)?;
                let rows = last.rows_until_due(i, search.level);
                search.deadline = Some((last.first_row + last.rows).saturating_add(rows));
                return search.deadline;
            };
            let rows = step.rows_until_due(i, search.level);
            if rows <= step.rows {
                search.deadline = Some(step.first_row + rows);
                return search.deadline;
            }
            search.level += step.gain(i) * i128::from(step.rows);
            search.step += 1;
        }
    }

    /// Look at twice as many steps, or as many as there are.
    fn look_further(&mut self, later: &mut Later<'_>) -> Result<(), DataError> {
        let known = self.ahead.len() as u64;
        for n in known..2 * known.max(1) {
            let Some((point, weights)) = later(n)? else {
                self.the_end = true;
                break;
            };
            let first_row = self.ahead.back().map_or(0, |s| s.first_row + s.rows);
            self.ahead.push_back(Step { first_row, rows: point.sequences, context: point.context, weights });
        }
        Ok(())
    }

    fn leave_step(&mut self) {
        let Some(step) = self.ahead.pop_front() else { return };
        for (i, search) in self.searches.iter_mut().enumerate() {
            if search.step == self.first_step {
                search.level += step.gain(i) * i128::from(step.rows);
                search.step += 1;
            }
        }
        self.first_step += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Steps of (rows, context, weights); gives the source of each row, stopping and resuming
    /// before every step of `stops`.
    fn run(steps: &[(u64, u64, Vec<f64>)], stops: &[usize]) -> Vec<Vec<u32>> {
        let shapes: Vec<(StepPoint, Vec<u64>)> = steps
            .iter()
            .enumerate()
            .map(|(i, (sequences, context, w))| {
                let point = StepPoint { step: i as u64, tokens: 0, sequences: *sequences, context: *context };
                (point, quantise(w).unwrap())
            })
            .collect();
        let mut mixer = Mixer::new(steps[0].2.len());
        let mut out = Vec::new();
        for (i, (point, weights)) in shapes.iter().enumerate() {
            if stops.contains(&i) {
                mixer = Mixer::resume(mixer.deficits().to_vec());
            }
            let mut later = |n: u64| Ok(shapes.get(i + n as usize).cloned());
            out.push(mixer.assign(*point, weights, &mut later).unwrap());
            assert_eq!(mixer.deficits().iter().sum::<i64>(), 0);
        }
        out
    }

    #[test]
    fn what_cannot_be_assigned_is_said() {
        let weights = quantise(&[0.5, 0.5]).unwrap();
        let point = |context| StepPoint { step: 0, tokens: 0, sequences: 2, context };
        let assign = |mut mixer: Mixer, context, weights: &[u64]| {
            mixer.assign(point(context), weights, &mut |_| Ok(None)).map_err(|e| e.to_string())
        };
        assert_eq!(assign(Mixer::new(2), MAX_CONTEXT, &weights), Ok(vec![0, 1]));
        let said = assign(Mixer::new(2), MAX_CONTEXT + 1, &weights).unwrap_err();
        assert!(said.contains("the longest have 67108864"), "{said}");
        let said = assign(Mixer::new(2), 1024, &weights[..1]).unwrap_err();
        assert!(said.contains("do not sum"), "{said}");
        // Deficits of another run, or of a damaged state: they do not sum to 0.
        let behind = Mixer::resume(vec![-(1 << 60), -(1 << 60)]);
        let said = assign(behind, 1024, &weights).unwrap_err();
        assert!(said.contains("no source is due a row"), "{said}");
    }

    /// The largest distance of any source from its curve after any row, in tokens.
    fn worst(steps: &[(u64, u64, Vec<f64>)], rows: &[Vec<u32>]) -> f64 {
        let n = steps[0].2.len();
        let (mut want, mut have, mut worst) = (vec![0f64; n], vec![0f64; n], 0f64);
        for ((_, context, weights), rows) in steps.iter().zip(rows) {
            let sum: f64 = weights.iter().sum();
            for row in rows {
                for i in 0..n {
                    want[i] += weights[i] / sum * *context as f64;
                }
                have[*row as usize] += *context as f64;
                for i in 0..n {
                    worst = worst.max((want[i] - have[i]).abs());
                }
            }
        }
        worst
    }

    fn weights(n: usize) -> impl Strategy<Value = Vec<f64>> {
        proptest::collection::vec(prop_oneof![Just(0.0), 0.0..1.0f64, Just(1e-4), Just(1.0)], n)
            .prop_filter("some weight", |w| w.iter().sum::<f64>() > 0.0)
    }

    /// Curricula of constant, stepped and ramped weights: legs of (steps, rows, from, to).
    fn curriculum() -> impl Strategy<Value = Vec<(u64, u64, Vec<f64>)>> {
        (1usize..9).prop_flat_map(|n| {
            let leg = (1usize..12, 1u64..9, weights(n), weights(n), 0..3);
            proptest::collection::vec(leg, 1..6).prop_map(|legs| {
                let mut steps = Vec::new();
                for (len, rows, from, to, kind) in legs {
                    let sum = |w: &[f64]| w.iter().sum::<f64>();
                    for s in 0..len {
                        let u = if kind == 2 { s as f64 / len as f64 } else { 0.0 };
                        let mix = from.iter().zip(&to);
                        let mixed: Vec<f64> =
                            mix.map(|(a, b)| a / sum(&from) * (1.0 - u) + b / sum(&to) * u).collect();
                        steps.push((rows, 64, mixed));
                    }
                }
                steps
            })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn shares_stay_within_one_sequence(steps in curriculum(), stop in 0usize..40) {
            let rows = run(&steps, &[]);
            let worst = worst(&steps, &rows);
            prop_assert!(worst < 64.0 + 1e-6, "{worst} tokens off with rows of 64");
            prop_assert_eq!(rows, run(&steps, &[stop, stop + 1, stop * 2]));
        }

        /// When rows grow, what earlier and shorter rows left over adds to the bound.
        #[test]
        fn rows_may_change_length(mut steps in curriculum(), at in 0usize..30) {
            for step in steps.iter_mut().skip(at) {
                step.1 = 256;
            }
            let rows = run(&steps, &[at]);
            prop_assert!(worst(&steps, &rows) < 256.0 + 64.0, "{}", worst(&steps, &rows));
        }

        #[test]
        fn quantised_weights_are_whole(w in proptest::collection::vec(0.0..1.0f64, 1..200)) {
            prop_assume!(w.iter().sum::<f64>() > 0.0);
            let sum: f64 = w.iter().sum();
            let q = quantise(&w).unwrap();
            prop_assert_eq!(q.iter().sum::<u64>(), QUANTUM);
            for (w, q) in w.iter().zip(q) {
                prop_assert!((w / sum * QUANTUM as f64 - q as f64).abs() < 2.0);
            }
        }
    }

    /// Three sources where the largest-deficit rule drifts past one sequence: many small ones
    /// that fall due together.
    #[test]
    fn small_sources_that_fall_due_together() {
        let mut w = vec![0.5];
        w.extend(vec![0.5 / 31.0; 31]);
        let steps = vec![(1u64, 64u64, w); 400];
        assert!(worst(&steps, &run(&steps, &[])) < 64.0);
    }

    #[test]
    fn a_source_of_weight_zero_is_never_drawn() {
        let steps = vec![(7, 8, vec![0.0, 0.3, 0.7, 0.0]); 50];
        assert!(run(&steps, &[]).iter().flatten().all(|s| *s == 1 || *s == 2));
    }

    #[test]
    fn a_thousand_sources_follow_their_ramps() {
        let n = 1000;
        let ramp = |i: usize, u: f64| 1.0 / (1.0 + i as f64) * (1.0 - u) + u / n as f64;
        let steps: Vec<_> = (0..40)
            .map(|s| (256, 64, (0..n).map(|i| ramp(i, f64::from(s) / 40.0)).collect::<Vec<_>>()))
            .collect();
        let rows = run(&steps, &[17]);
        assert!(worst(&steps, &rows) < 64.0 + 1e-6);
    }

    #[test]
    fn weights_that_are_no_shares_are_refused() {
        for bad in [vec![], vec![0.0], vec![0.5, f64::NAN], vec![1.5, -0.5], vec![f64::INFINITY]] {
            assert!(quantise(&bad).is_err(), "{bad:?}");
        }
        assert_eq!(quantise(&[1.0, -1e-17]).unwrap(), [QUANTUM, 0]);
    }
}
