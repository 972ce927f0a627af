//! How the layers of a decoder differ from one another: some look back over a window only (sliding-window
//! attention, arXiv:2004.05150), some have no position encoding (NoPE, arXiv:2305.19466).
//!
//! Knows the keys of a Hugging Face configuration that say so, and no others.

mod hf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use hf::{MOST_LAYERS, PatternError, from_hf, to_hf};

/// What the queries of a layer look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LayerType {
    /// Everything before.
    FullAttention,
    /// The tokens of a window.
    SlidingAttention,
}

/// How the layers differ, with the names of a Hugging Face `config.json`; empty where all are alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LayerPattern {
    /// Tokens that a query of a sliding layer sees: itself and those right before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sliding_window: Option<u64>,
    /// One for each layer; empty when all attend to the whole context.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub layer_types: Vec<LayerType>,
    /// One for each layer: 1 with RoPE and 0 without; empty when all have it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub no_rope_layers: Vec<u8>,
}

/// How a layer tells its queries and keys where they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// By RoPE with whatever scaling the model has.
    Scaled,
    /// By RoPE without it: such a layer never sees further than it was trained for.
    Plain,
    /// Not at all (NoPE).
    None,
}

impl LayerPattern {
    /// Windows in all of `layers` layers but every `every`th, which attends to the whole context.
    pub fn windows(layers: usize, window: u64, every: usize) -> Self {
        let kind = |layer: usize| {
            if layer.is_multiple_of(every) { LayerType::FullAttention } else { LayerType::SlidingAttention }
        };
        LayerPattern {
            sliding_window: Some(window),
            layer_types: (1..=layers).map(kind).collect(),
            ..Self::default()
        }
    }

    /// RoPE in all of `layers` layers but every `every`th.
    pub fn without_rope(layers: usize, every: usize) -> Self {
        let rope = |layer: usize| u8::from(!layer.is_multiple_of(every));
        LayerPattern { no_rope_layers: (1..=layers).map(rope).collect(), ..Self::default() }
    }

    /// Tokens that a query of the layer sees at most, where that is less than all.
    pub fn window(&self, layer: usize) -> Option<u64> {
        let sliding = self.layer_types.get(layer) == Some(&LayerType::SlidingAttention);
        self.sliding_window.filter(|_| sliding)
    }

    /// Layers with a window.
    pub fn sliding(&self) -> usize {
        (0..self.layer_types.len()).filter(|layer| self.window(*layer).is_some()).count()
    }

    /// How the layer of a model of this `model_type` tells positions. OLMo 3 scales RoPE in its layers of full
    /// attention only (Olmo 3 report, section 3.6), and so does Gemma 3, whose others have a smaller base besides
    /// (arXiv:2503.19786, section 2).
    pub fn positions(&self, model_type: &str, layer: usize) -> Positions {
        if self.no_rope_layers.get(layer) == Some(&0) {
            Positions::None
        } else if ["olmo3", "gemma3_text"].contains(&model_type) && self.window(layer).is_some() {
            Positions::Plain
        } else {
            Positions::Scaled
        }
    }

    /// Keys that a query sees on average, summed over `layers` layers: T/2 of a row of T tokens where attention
    /// is causal, W − W²/2T within a window of W.
    pub fn keys_seen(&self, layers: usize, context: u64) -> f64 {
        let context = context as f64;
        let windowed = |window: u64| {
            let window = (window as f64).min(context);
            window - window * window / (2.0 * context)
        };
        let sliding = self.sliding();
        let full = layers.saturating_sub(sliding) as f64 * (context / 2.0);
        full + self.sliding_window.map_or(0.0, |window| sliding as f64 * windowed(window))
    }

    /// The same for a model of the last `layers` of these layers.
    pub fn last(&self, layers: usize) -> Self {
        fn tail<T: Copy>(all: &[T], layers: usize) -> Vec<T> {
            all[all.len().saturating_sub(layers)..].to_vec()
        }
        LayerPattern {
            sliding_window: self.sliding_window,
            layer_types: tail(&self.layer_types, layers),
            no_rope_layers: tail(&self.no_rope_layers, layers),
        }
    }

    /// For people: what sets layers apart, nothing where all are alike.
    pub fn describe(&self) -> Vec<String> {
        let (sliding, layers) = (self.sliding(), self.layer_types.len());
        let window = self.sliding_window.filter(|_| sliding > 0);
        let plain = self.no_rope_layers.iter().filter(|rope| **rope == 0).count();
        let windows = window.map(|w| format!("{sliding} of {layers} layers look back over {w} tokens"));
        let nope =
            (plain > 0).then(|| format!("{plain} of {} layers without RoPE", self.no_rope_layers.len()));
        windows.into_iter().chain(nope).collect()
    }

    /// Whether it fits a model of `layers` layers.
    ///
    /// # Errors
    /// What does not, as the end of a sentence about the model.
    pub fn check(&self, layers: usize) -> Result<(), String> {
        for (name, len) in
            [("layer_types", self.layer_types.len()), ("no_rope_layers", self.no_rope_layers.len())]
        {
            if len != 0 && len != layers {
                return Err(format!("`{name}` has {len} entries for {layers} layers"));
            }
        }
        if let Some(wrong) = self.no_rope_layers.iter().find(|v| **v > 1) {
            return Err(format!("`no_rope_layers` holds {wrong}, which is neither 0 nor 1"));
        }
        match self.sliding_window {
            Some(0) => Err("`sliding_window` is 0, so that a query would see nothing".into()),
            None if self.layer_types.contains(&LayerType::SlidingAttention) => {
                Err("`layer_types` has layers with a window and `sliding_window` is missing".into())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nth_layer_is_another() {
        let windows = LayerPattern::windows(8, 4096, 4);
        let seen: Vec<_> = (0..8).map(|i| windows.window(i)).collect();
        assert_eq!(seen[..4], [Some(4096), Some(4096), Some(4096), None]);
        assert_eq!(seen[4..], seen[..4]);
        assert_eq!((windows.sliding(), windows.last(2).sliding()), (6, 1));
        assert_eq!(windows.positions("olmo3", 0), Positions::Plain);
        assert_eq!(windows.positions("olmo3", 3), Positions::Scaled);
        assert_eq!(windows.positions("gemma3_text", 0), Positions::Plain);
        assert_eq!(windows.positions("qwen3", 0), Positions::Scaled);
        let nope = LayerPattern::without_rope(5, 4);
        assert_eq!(nope.no_rope_layers, [1, 1, 1, 0, 1]);
        assert_eq!(nope.positions("smollm3", 3), Positions::None);
        assert_eq!(LayerPattern::default().positions("llama", 3), Positions::Scaled);
        assert_eq!(windows.describe(), ["6 of 8 layers look back over 4096 tokens"]);
        assert_eq!(nope.describe(), ["1 of 5 layers without RoPE"]);
        assert!(LayerPattern::default().describe().is_empty());
    }

    /// By counting: every query of a row, every key it sees.
    #[test]
    fn keys_seen_are_those_of_the_mask() {
        for (context, window) in [(64, 8), (64, 64), (64, 100), (1000, 10)] {
            let counted: u64 = (0..context).map(|t| (t + 1).min(window)).sum();
            let counted = counted as f64 / context as f64;
            let pattern = LayerPattern::windows(1, window, 2);
            // The formula leaves out the diagonal's other half, as the usual T/2 does.
            assert!((pattern.keys_seen(1, context) - counted).abs() <= 0.5, "{context} {window} {counted}");
        }
        assert_eq!(LayerPattern::default().keys_seen(3, 10), 15.0);
        assert_eq!(LayerPattern::windows(4, 4, 4).keys_seen(4, 8), 3.0 * 3.0 + 4.0);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let windows = LayerPattern::windows(4, 8, 4);
        assert_eq!(windows.check(4), Ok(()));
        assert!(windows.check(5).unwrap_err().contains("4 entries for 5 layers"));
        let none = LayerPattern { sliding_window: None, ..windows.clone() };
        assert!(none.check(4).unwrap_err().contains("is missing"));
        let zero = LayerPattern { sliding_window: Some(0), ..windows };
        assert!(zero.check(4).unwrap_err().contains("is 0"));
        let two = LayerPattern { no_rope_layers: vec![2], ..LayerPattern::default() };
        assert!(two.check(1).unwrap_err().contains("neither 0 nor 1"));
    }
}
