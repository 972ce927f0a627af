//! Needle in a haystack: can the model use a fact from anywhere in its context?
//!
//! A haystack of real text is filled to the length, with one sentence that gives a number hidden at
//! some depth; the end asks for it. The right number competes with others by likelihood, so the
//! score needs no sampling and works for base models. Chance is 1 in [`CANDIDATES`].

use super::choice::encode_pair;
use super::score::{ScoreError, Scored, log_likelihoods};
use crate::runtime::engine::{Engine, LengthTables};

/// Numbers that compete, the right one included.
pub const CANDIDATES: usize = 4;
/// Depths at which the needle is hidden: 0 is the beginning of the haystack, 1 its end.
pub const DEPTHS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];

const SUBJECTS: [&str; 5] =
    ["the lighthouse", "the orchard", "the archive", "the harbour", "the observatory"];

/// Result at one length.
#[derive(Clone, Debug, PartialEq)]
pub struct NeedleScore {
    /// Tokens of context.
    pub length: usize,
    /// Share of needles found.
    pub accuracy: f64,
    /// Found or not, in the order of [`DEPTHS`].
    pub found: Vec<bool>,
}

/// What haystacks are made of.
#[derive(Clone, Copy, Debug)]
pub struct Filler<'a> {
    /// Tokens of texts, one after another.
    pub tokens: &'a [u32],
    /// What the tokenizer puts before a text.
    pub opening: &'a [u32],
}

/// Hide a needle at each depth of a haystack of `length` tokens made of `filler` (repeated if it is
/// short), and ask. `seed` chooses the numbers; equal seeds give equal questions.
///
/// # Errors
/// What the engine or the tokenizer says.
pub fn score<E>(
    engine: &mut dyn Engine,
    tables: &mut LengthTables,
    length: usize,
    filler: Filler<'_>,
    seed: u64,
    encode: &dyn Fn(&str) -> Result<Vec<u32>, E>,
    stopping: &dyn Fn() -> bool,
) -> Result<NeedleScore, E>
where
    E: From<ScoreError>,
{
    let mut found = Vec::with_capacity(DEPTHS.len());
    for (i, depth) in DEPTHS.into_iter().enumerate() {
        let subject = SUBJECTS[i % SUBJECTS.len()];
        let numbers = numbers(seed.wrapping_add(i as u64));
        let texts = numbers
            .iter()
            .map(|n| haystack(length, depth, filler, subject, numbers[0], *n, encode))
            .collect::<Result<Vec<_>, E>>()?;
        let sums = log_likelihoods(engine, tables, length, &texts, stopping)?;
        found.push(sums[1..].iter().all(|s| *s < sums[0]));
    }
    let accuracy = found.iter().filter(|f| **f).count() as f64 / found.len() as f64;
    Ok(NeedleScore { length, accuracy, found })
}

/// Different five-digit numbers; the first is the right one.
fn numbers(seed: u64) -> [u32; CANDIDATES] {
    // SplitMix64: any well-mixed sequence does, it only has to be the same everywhere.
    let mut state = seed;
    let mut out = [0; CANDIDATES];
    let mut filled = 0;
    while filled < CANDIDATES {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let number = 10_000 + ((z ^ (z >> 31)) % 90_000) as u32;
        if !out[..filled].contains(&number) {
            out[filled] = number;
            filled += 1;
        }
    }
    out
}

fn haystack<E>(
    length: usize,
    depth: f64,
    filler: Filler<'_>,
    subject: &str,
    right: u32,
    candidate: u32,
    encode: &dyn Fn(&str) -> Result<Vec<u32>, E>,
) -> Result<Scored, E> {
    let needle = encode(&format!("\nThe secret number of {subject} is {right}.\n"))?;
    let question =
        encode_pair(&format!("\nThe secret number of {subject} is"), &format!(" {candidate}"), encode)?;
    let room = length.saturating_sub(needle.len() + question.tokens.len());
    let hay: Vec<u32> =
        filler.tokens.iter().copied().cycle().take(if filler.tokens.is_empty() { 0 } else { room }).collect();
    // What opens a text stays in front of it.
    let opening = hay.iter().zip(filler.opening).take_while(|(token, opens)| token == opens).count();
    let at = ((depth * hay.len() as f64).round() as usize).max(opening);
    let mut tokens = hay[..at].to_vec();
    tokens.extend(needle);
    tokens.extend(&hay[at..]);
    let from = tokens.len() + question.from;
    tokens.extend(question.tokens);
    Ok(Scored { tokens, from })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Result<Vec<u32>, std::convert::Infallible> {
        Ok(text.bytes().map(u32::from).collect())
    }

    const FILLER: Filler<'_> = Filler { tokens: &[7, 1, 2, 3], opening: &[7] };

    #[test]
    fn the_haystack_has_the_length_and_ends_with_the_candidate() {
        for depth in DEPTHS {
            let text = haystack(400, depth, FILLER, "the archive", 12345, 54321, &bytes).unwrap();
            assert_eq!((text.tokens.len(), text.tokens[0]), (400, 7));
            let tail: Vec<u8> = text.tokens[text.from..].iter().map(|t| *t as u8).collect();
            assert_eq!(tail, b" 54321");
        }
    }

    #[test]
    fn numbers_differ_and_repeat_with_the_seed() {
        let a = numbers(7);
        assert_eq!(a, numbers(7));
        let distinct: std::collections::BTreeSet<_> = a.iter().collect();
        assert_eq!(distinct.len(), CANDIDATES);
    }
}
