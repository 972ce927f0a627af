//! Weight averaging of checkpoints ("model soups", Wortsman et al., arXiv:2203.05482), tensor by
//! tensor, so that two tensors and not the models are in memory.
//!
//! Knows checkpoints, not stages: which ones go in is the caller's choice.

use std::io;
use std::path::{Path, PathBuf};

use miette::Diagnostic;
use rayon::prelude::*;
use serde_json::Value;
use thiserror::Error;

use super::checkpoint::{self, CheckpointError};
use super::model::hf::{self, Shards};
use super::model::{Dtype, LoadError, ModelConfig, TokenizerSource, load_config};
use crate::rope::Rope;

/// How checkpoints are averaged. All arithmetic is in f32, in the order of the ingredients.
#[derive(Clone, Debug, PartialEq)]
pub enum Recipe {
    /// The mean: the sum over their number, `numpy.average(…, axis=0)` bit for bit.
    Uniform,
    /// One weight per ingredient, taken relative to their sum: `numpy.average(…, axis=0, weights=…)`
    /// with f32 weights, bit for bit up to 7 ingredients (NumPy sums more weights in another order).
    Weighted(Vec<f32>),
    /// Exponential moving average over the ingredients in their order, oldest first:
    /// e ← decay·e + (1 − decay)·w, beginning with the first.
    Ema {
        /// Share of the past, between 0 and 1.
        decay: f32,
    },
}

/// A soup that cannot be made.
#[derive(Debug, Error, Diagnostic)]
pub enum SoupError {
    /// Nothing to average.
    #[error("a soup needs at least one checkpoint")]
    #[diagnostic(code(midc::soup::empty))]
    Empty,
    /// As many weights as ingredients.
    #[error("{weights} weights for {ingredients} checkpoints")]
    #[diagnostic(code(midc::soup::weights), help("give one weight per checkpoint, in their order"))]
    Weights {
        /// How many weights.
        weights: usize,
        /// How many ingredients.
        ingredients: usize,
    },
    /// A weight or decay that is none.
    #[error("{what} is {value}: expected {expected}")]
    #[diagnostic(code(midc::soup::number))]
    Number {
        /// Which number.
        what: String,
        /// What it is.
        value: f32,
        /// What it should be.
        expected: &'static str,
    },
    /// The output is there.
    #[error("`{}` is there already", path.display())]
    #[diagnostic(code(midc::soup::occupied), help("name a new directory"))]
    Occupied {
        /// The output.
        path: PathBuf,
    },
    /// Checkpoints of different models.
    #[error("`{}` and `{}` cannot be averaged: {difference}", first.display(), other.display())]
    #[diagnostic(
        code(midc::soup::different),
        help("ingredients must be checkpoints of one model: the same architecture, RoPE and tokenizer")
    )]
    Different {
        /// The first ingredient.
        first: PathBuf,
        /// The one that differs from it.
        other: PathBuf,
        /// In what.
        difference: String,
    },
    /// An ingredient that is a file.
    #[error("`{}` is a file: a soup is made of Hugging Face directories", path.display())]
    #[diagnostic(
        code(midc::soup::file),
        help("name directories of `config.json` and safetensors; a `.gguf` file is no ingredient")
    )]
    File {
        /// The ingredient.
        path: PathBuf,
    },
    /// An average that the format of the result cannot hold.
    #[error("{count} values of the average of `{tensor}` are too large for {}", dtype.name())]
    #[diagnostic(code(midc::soup::too_large), help("store it as f32 or bf16"))]
    TooLarge {
        /// The first such tensor.
        tensor: String,
        /// How many of its values.
        count: usize,
        /// The format.
        dtype: Dtype,
    },
    /// An ingredient with weights that are no numbers: so would the average be.
    #[error("`{}` cannot be averaged: {count} values of `{tensor}` are not finite", path.display())]
    #[diagnostic(
        code(midc::soup::not_finite),
        help("its training diverged, or it was damaged before its checksums were taken: leave it out")
    )]
    NotFinite {
        /// The ingredient.
        path: PathBuf,
        /// The first such tensor.
        tensor: String,
        /// How many of its values.
        count: usize,
    },
    /// An ingredient.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Load(#[from] LoadError),
    /// A damaged ingredient, or the output.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// One checkpoint, opened.
struct Ingredient {
    path: PathBuf,
    config: ModelConfig,
    tokenizer: TokenizerSource,
    weights: checkpoint::Weights,
}

impl Ingredient {
    fn open(path: &Path) -> Result<Self, SoupError> {
        if path.is_file() {
            return Err(SoupError::File { path: path.to_owned() });
        }
        // A checkpoint of a run knows whether it is whole; a directory from elsewhere does not.
        if path.join("checksums.json").exists() {
            checkpoint::verify(path)?;
        }
        let config = load_config(path)?;
        let shards = Shards::open(path)?;
        shards.check(&config)?;
        let weights = checkpoint::Weights::open(path, shards)?;
        Ok(Self { path: path.to_owned(), config, tokenizer: hf::tokenizer(path)?, weights })
    }

    /// In what `other` is another model.
    fn difference(&self, other: &Self) -> Option<String> {
        let (a, b) = (&self.config.architecture, &other.config.architecture);
        for (name, one, two) in [
            ("hidden_size", a.hidden_size, b.hidden_size),
            ("num_hidden_layers", a.num_hidden_layers, b.num_hidden_layers),
            ("num_attention_heads", a.num_attention_heads, b.num_attention_heads),
            ("num_key_value_heads", a.num_key_value_heads, b.num_key_value_heads),
            ("head_dim", a.head_dim, b.head_dim),
            ("intermediate_size", a.intermediate_size, b.intermediate_size),
            ("vocab_size", a.vocab_size, b.vocab_size),
        ] {
            if one != two {
                return Some(format!("`{name}` is {one} in the one and {two} in the other"));
            }
        }
        // How fresh weights were drawn says nothing of these.
        let drawn_alike = crate::plan::Architecture { initializer_range: a.initializer_range, ..b.clone() };
        if *a != drawn_alike {
            return Some("their architectures differ".into());
        }
        if self.config.rope != other.config.rope {
            let text = |rope: &Rope| {
                let factor = rope.scaling.factor().map_or_else(String::new, |f| format!(" by {f}"));
                format!("`{}`{factor} over a base of {}", rope.scaling.method(), rope.theta)
            };
            let (one, two) = (text(&self.config.rope), text(&other.config.rope));
            return Some(if one == two {
                format!("RoPE is {one} in both, with other settings")
            } else {
                format!("RoPE is {one} in the one and {two} in the other")
            });
        }
        let tokenizer = |i: &Self| i.tokenizer.files.get("tokenizer.json").cloned();
        if tokenizer(self) != tokenizer(other) {
            return Some("their `tokenizer.json` differ".into());
        }
        None
    }
}

/// Average `ingredients` into the new checkpoint `out`, stored as `dtype`. Configuration and tokenizer
/// are the first one's; there is no training state. A run's checkpoints take part with their exact
/// weights, whatever `model.safetensors` rounds them to.
///
/// # Errors
/// Ingredients that are no checkpoints, damaged, not finite or of different models; numbers that make no average;
/// an output that is there already; a failure of the machine. Nothing is left under `out` then.
pub fn soup(ingredients: &[PathBuf], recipe: &Recipe, dtype: Dtype, out: &Path) -> Result<(), SoupError> {
    check(recipe, ingredients.len())?;
    if out.exists() {
        return Err(SoupError::Occupied { path: out.to_owned() });
    }
    checkpoint::clean_beside(out)?;
    average_into(ingredients, recipe, dtype, None, out)
}

/// As [`soup`], with the trainer's state beside the weights; what stands at `out` is replaced.
pub(in crate::runtime) fn average_into(
    ingredients: &[PathBuf],
    recipe: &Recipe,
    dtype: Dtype,
    trainer: Option<&Value>,
    out: &Path,
) -> Result<(), SoupError> {
    check(recipe, ingredients.len())?;
    let opened: Vec<Ingredient> =
        ingredients.iter().map(|p| Ingredient::open(p)).collect::<Result<_, _>>()?;
    let (first, others) = opened.split_first().ok_or(SoupError::Empty)?;
    for other in others {
        if let Some(difference) = first.difference(other) {
            let (first, other) = (first.path.clone(), other.path.clone());
            return Err(SoupError::Different { first, other, difference });
        }
    }
    let tensors = super::model::layout(&first.config.architecture).map_err(LoadError::from)?;
    let mut refused = None;
    let make = |name: &str| {
        let states = opened.iter().map(|ingredient| {
            let state = ingredient.weights.tensor(name).map_err(io::Error::other)?.data;
            let count = state.par_iter().filter(|value| !value.is_finite()).count();
            if count > 0 {
                let (path, tensor) = (ingredient.path.clone(), name.to_owned());
                refused = Some(SoupError::NotFinite { path, tensor, count });
                return Err(io::Error::other("values that are not finite"));
            }
            Ok(state)
        });
        let averaged = average(states, recipe, opened.len())?;
        let count = averaged.par_iter().filter(|value| !dtype.holds(**value)).count();
        if count > 0 {
            refused = Some(SoupError::TooLarge { tensor: name.to_owned(), count, dtype });
            return Err(io::Error::other("values that the format does not hold"));
        }
        Ok(averaged)
    };
    let written =
        checkpoint::write_each(&first.config, &first.tokenizer, dtype, trainer, &tensors, make, out);
    match refused {
        Some(error) => Err(error),
        None => Ok(written?),
    }
}

fn check(recipe: &Recipe, ingredients: usize) -> Result<(), SoupError> {
    match recipe {
        Recipe::Uniform => {}
        Recipe::Weighted(weights) => {
            if weights.len() != ingredients {
                return Err(SoupError::Weights { weights: weights.len(), ingredients });
            }
            let sum: f32 = weights.iter().sum();
            if !(sum.is_finite() && sum > 0.0) {
                let what = "the sum of the weights".into();
                return Err(SoupError::Number {
                    what,
                    value: sum,
                    expected: "a finite number greater than 0",
                });
            }
        }
        Recipe::Ema { decay } => {
            if !(0.0..=1.0).contains(decay) {
                let what = "the decay".into();
                return Err(SoupError::Number { what, value: *decay, expected: "a number from 0 to 1" });
            }
        }
    }
    Ok(())
}

/// The average of one tensor over its states, read one after the other.
fn average<E>(
    states: impl Iterator<Item = Result<Vec<f32>, E>>,
    recipe: &Recipe,
    count: usize,
) -> Result<Vec<f32>, E> {
    let mut sum: Vec<f32> = Vec::new();
    let add = |sum: &mut Vec<f32>, state: &[f32], step: &(dyn Fn(f32, f32) -> f32 + Sync)| {
        sum.par_iter_mut().zip(state).for_each(|(sum, value)| *sum = step(*sum, *value));
    };
    for (at, state) in states.enumerate() {
        let state = state?;
        // Sums begin at 0, as NumPy's do: it makes a difference for -0.
        sum.resize(state.len(), 0.0);
        match recipe {
            Recipe::Uniform => add(&mut sum, &state, &|sum, value| sum + value),
            Recipe::Weighted(weights) => {
                let weight = weights.get(at).copied().unwrap_or(0.0);
                add(&mut sum, &state, &|sum, value| sum + value * weight);
            }
            Recipe::Ema { .. } if at == 0 => sum = state,
            Recipe::Ema { decay } => {
                add(&mut sum, &state, &|past, value| past * decay + value * (1.0 - decay))
            }
        }
    }
    let divisor = match recipe {
        Recipe::Uniform => count as f32,
        Recipe::Weighted(weights) => weights.iter().sum(),
        Recipe::Ema { .. } => return Ok(sum),
    };
    sum.par_iter_mut().for_each(|value| *value /= divisor);
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn of(recipe: &Recipe, states: &[&[f32]]) -> Vec<f32> {
        let count = states.len();
        average(states.iter().map(|s| Ok::<_, Infallible>(s.to_vec())), recipe, count).unwrap()
    }

    /// What NumPy 2.4 makes of the same numbers.
    #[test]
    fn averages_equal_numpy() {
        let (a, b, c) = ([1.0, -0.0, 1e8, 0.1], [2.0, -0.0, 1.0, 0.2], [4.0, -0.0, -1e8, 0.3]);
        let mean = of(&Recipe::Uniform, &[&a, &b, &c]);
        assert_eq!(mean, [2.333_333_3, 0.0, 0.0, 0.2]);
        assert!(mean[1].is_sign_positive());
        let weighted = of(&Recipe::Weighted(vec![1.0, 2.0, 1.0]), &[&a, &b, &c]);
        assert_eq!(weighted, [2.25, 0.0, 0.0, 0.2]);
        assert_eq!(of(&Recipe::Uniform, &[&a]), a);
    }

    #[test]
    fn ema_forgets_the_past() {
        assert_eq!(of(&Recipe::Ema { decay: 0.5 }, &[&[8.0], &[4.0], &[2.0]]), [4.0]);
        assert_eq!(of(&Recipe::Ema { decay: 0.0 }, &[&[8.0], &[3.0]]), [3.0]);
        assert_eq!(of(&Recipe::Ema { decay: 1.0 }, &[&[8.0], &[3.0]]), [8.0]);
    }

    #[test]
    fn recipes_are_checked() {
        let message = |recipe: Recipe| check(&recipe, 2).unwrap_err().to_string();
        assert_eq!(message(Recipe::Weighted(vec![1.0])), "1 weights for 2 checkpoints");
        assert!(message(Recipe::Weighted(vec![1.0, -1.0])).contains("the sum of the weights is 0"));
        assert!(message(Recipe::Ema { decay: 1.5 }).contains("the decay is 1.5"));
        assert!(message(Recipe::Ema { decay: f32::NAN }).contains("expected a number from 0 to 1"));
    }
}
