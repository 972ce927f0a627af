//! How much of each source a stage reads.

use crate::curve::{Blend, Curve};
use crate::sema::clock::Clock;
use crate::sema::curriculum::Portion;
use crate::sema::mix::{Amount, Flat};
use crate::sema::show;

/// Tokens of each source over the stage: the whole, split by mean weight with largest remainders.
/// They sum to what the steps draw.
pub(super) fn portions(mix: &Flat, clock: &Clock, total: u64) -> Vec<Portion> {
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
