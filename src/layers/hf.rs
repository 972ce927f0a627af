//! The pattern of layers as a Hugging Face `config.json` spells it, both ways.

use serde_json::{Map, Value, json};

use super::{LayerPattern, LayerType};

/// A setting that is malformed or not supported.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("`{key}` is {value}: {problem}")]
pub struct PatternError {
    /// The key.
    pub key: String,
    /// What is there, as JSON; `missing` when nothing is.
    pub value: String,
    /// What is wrong with it.
    pub problem: String,
}

/// More than any model has: lists of so many entries are made.
pub const MOST_LAYERS: usize = 1 << 12;

/// The window transformers gives models of `mistral`, `olmo3` and `gemma3_text` whose file names none.
const DEFAULT_WINDOW: u64 = 4096;
/// `no_rope_layer_interval` of `smollm3`, and the distance of full layers in `olmo3`, where the file is silent.
const DEFAULT_INTERVAL: u64 = 4;
/// The distance of full layers in `gemma3_text` where the file is silent.
const GEMMA_INTERVAL: usize = 6;

/// Read the pattern of a model of `layers` layers. What is absent takes transformers' defaults for the file's
/// `model_type`; a type without a pattern must say full attention, if anything.
///
/// # Errors
/// A setting that is malformed, that does not fit the number of layers, or that transformers would not take.
pub fn from_hf(config: &Map<String, Value>, layers: usize) -> Result<LayerPattern, PatternError> {
    let reader = Reader { config, layers };
    if layers > MOST_LAYERS {
        let problem = format!("expected a whole number from 1 to {MOST_LAYERS}");
        return Err(reader.error("num_hidden_layers", &problem));
    }
    let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let listed = reader.layer_types()?;
    let pattern = match model_type {
        "mistral" => {
            // Every layer, unless the key is there and null.
            let window =
                if config.contains_key("sliding_window") { reader.window()? } else { Some(DEFAULT_WINDOW) };
            match (window, listed) {
                (Some(_), Some(types)) if types.contains(&LayerType::FullAttention) => {
                    let problem = "transformers puts the window over every layer of this model type";
                    return Err(reader.error("layer_types", problem));
                }
                (Some(window), _) => LayerPattern {
                    sliding_window: Some(window),
                    layer_types: vec![LayerType::SlidingAttention; layers],
                    ..LayerPattern::default()
                },
                (None, types) => reader.alike(types)?,
            }
        }
        "qwen2" | "qwen3" if reader.flag("use_sliding_window")? => match reader.window()? {
            Some(window) => {
                let first = reader.whole("max_window_layers")?.unwrap_or(28);
                let kind = |layer: usize| {
                    if layer as u64 >= first { LayerType::SlidingAttention } else { LayerType::FullAttention }
                };
                let types = listed.unwrap_or_else(|| (0..layers).map(kind).collect());
                LayerPattern { sliding_window: Some(window), layer_types: types, ..LayerPattern::default() }
            }
            None => reader.alike(listed)?,
        },
        "olmo3" | "gemma3_text" => {
            let window = match config.get("sliding_window") {
                None => Some(DEFAULT_WINDOW),
                Some(_) => reader.window()?,
            };
            let every = match model_type {
                "olmo3" => DEFAULT_INTERVAL as usize,
                _ => reader.gemma_interval()?,
            };
            let types = listed.unwrap_or_else(|| LayerPattern::windows(layers, 1, every).layer_types);
            LayerPattern { sliding_window: window, layer_types: types, ..LayerPattern::default() }
        }
        "smollm3" => {
            let rope = match reader.no_rope_layers()? {
                Some(rope) => rope,
                None => {
                    let every = reader.whole("no_rope_layer_interval")?.unwrap_or(DEFAULT_INTERVAL);
                    if every == 0 {
                        return Err(reader.error("no_rope_layer_interval", "expected 1 or more"));
                    }
                    LayerPattern::without_rope(layers, usize::try_from(every).unwrap_or(usize::MAX))
                        .no_rope_layers
                }
            };
            let window = if reader.flag("use_sliding_window")? { reader.window()? } else { None };
            // Where transformers makes the list itself, layers without RoPE have the window.
            let kind = |rope: &u8| {
                if *rope == 0 { LayerType::SlidingAttention } else { LayerType::FullAttention }
            };
            match window {
                Some(window) => LayerPattern {
                    sliding_window: Some(window),
                    layer_types: listed.unwrap_or_else(|| rope.iter().map(kind).collect()),
                    no_rope_layers: rope,
                },
                None => LayerPattern { no_rope_layers: rope, ..reader.alike(listed)? },
            }
        }
        _ => {
            if reader.flag("use_sliding_window")? {
                let problem = "midc attends to the whole context in this model type";
                return Err(reader.error("use_sliding_window", problem));
            }
            reader.alike(listed)?
        }
    };
    match pattern.check(layers) {
        Ok(()) => Ok(tidied(pattern)),
        Err(problem) => Err(reader.error("layer_types", &problem)),
    }
}

/// A list that says the same of every layer says nothing.
fn tidied(mut pattern: LayerPattern) -> LayerPattern {
    if !pattern.layer_types.contains(&LayerType::SlidingAttention) {
        pattern.layer_types.clear();
        pattern.sliding_window = None;
    }
    if !pattern.no_rope_layers.contains(&0) {
        pattern.no_rope_layers.clear();
    }
    pattern
}

/// The keys of `config.json` that say so, to be put over those of a model of this `model_type`; none for a type
/// that cannot say it.
pub fn to_hf(model_type: &str, pattern: &LayerPattern, layers: usize) -> Map<String, Value> {
    let mut keys = Map::new();
    let window = pattern.sliding_window;
    let types = if pattern.layer_types.is_empty() {
        vec![LayerType::FullAttention; layers]
    } else {
        pattern.layer_types.clone()
    };
    match model_type {
        "mistral" => {
            keys.insert("sliding_window".into(), json!(window));
        }
        "olmo3" | "gemma3_text" => {
            // Without a window transformers still wants a number here.
            keys.insert("sliding_window".into(), json!(window.unwrap_or(DEFAULT_WINDOW)));
            keys.insert("layer_types".into(), json!(types));
        }
        "qwen2" | "qwen3" => {
            keys.insert("use_sliding_window".into(), json!(window.is_some()));
            keys.insert("sliding_window".into(), json!(window));
            keys.insert("layer_types".into(), json!(types));
        }
        "smollm3" => {
            let rope = if pattern.no_rope_layers.is_empty() {
                vec![1; layers]
            } else {
                pattern.no_rope_layers.clone()
            };
            keys.insert("use_sliding_window".into(), json!(window.is_some()));
            keys.insert("sliding_window".into(), json!(window));
            keys.insert("layer_types".into(), json!(types));
            keys.insert("no_rope_layers".into(), json!(rope));
        }
        _ => {}
    }
    keys
}

struct Reader<'a> {
    config: &'a Map<String, Value>,
    layers: usize,
}

impl Reader<'_> {
    fn present(&self, key: &str) -> Option<&Value> {
        self.config.get(key).filter(|v| !v.is_null())
    }

    fn error(&self, key: &str, problem: &str) -> PatternError {
        let value = self.config.get(key).map_or_else(|| "missing".into(), Value::to_string);
        PatternError { key: key.into(), value, problem: problem.into() }
    }

    fn flag(&self, key: &str) -> Result<bool, PatternError> {
        match self.present(key) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| self.error(key, "expected true or false")),
        }
    }

    fn whole(&self, key: &str) -> Result<Option<u64>, PatternError> {
        let read = |v: &Value| v.as_u64().ok_or_else(|| self.error(key, "expected a whole number"));
        self.present(key).map(read).transpose()
    }

    fn window(&self) -> Result<Option<u64>, PatternError> {
        match self.whole("sliding_window")? {
            Some(0) => Err(self.error("sliding_window", "a query would see nothing")),
            window => Ok(window),
        }
    }

    /// No window anywhere.
    fn alike(&self, listed: Option<Vec<LayerType>>) -> Result<LayerPattern, PatternError> {
        if listed.is_some_and(|types| types.contains(&LayerType::SlidingAttention)) {
            return Err(self.error("layer_types", "it has layers with a window, and the model has none"));
        }
        Ok(LayerPattern::default())
    }

    fn list<T>(
        &self,
        key: &str,
        problem: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, PatternError> {
        let Some(value) = self.present(key) else { return Ok(None) };
        let list = value.as_array().and_then(|list| list.iter().map(read).collect::<Option<Vec<T>>>());
        let list = list.ok_or_else(|| self.error(key, problem))?;
        if list.len() < self.layers {
            return Err(self.error(key, &format!("{} entries for {} layers", list.len(), self.layers)));
        }
        Ok(Some(list))
    }

    /// The distance of Gemma 3's full layers, for files that have no list.
    fn gemma_interval(&self) -> Result<usize, PatternError> {
        for key in ["sliding_window_pattern", "_sliding_window_pattern"] {
            match self.whole(key)? {
                Some(0) => return Err(self.error(key, "expected 1 or more")),
                Some(every) => return Ok(usize::try_from(every).unwrap_or(usize::MAX)),
                None => {}
            }
        }
        Ok(GEMMA_INTERVAL)
    }

    fn layer_types(&self) -> Result<Option<Vec<LayerType>>, PatternError> {
        let problem = "midc knows `full_attention` and `sliding_attention`, one for each layer";
        self.list("layer_types", problem, |v| serde_json::from_value(v.clone()).ok())
    }

    fn no_rope_layers(&self) -> Result<Option<Vec<u8>>, PatternError> {
        let problem = "expected 1 for each layer with RoPE and 0 for each without it";
        // An empty list is none to some versions of transformers.
        if self.present("no_rope_layers").and_then(Value::as_array).is_some_and(Vec::is_empty) {
            return Ok(None);
        }
        self.list("no_rope_layers", problem, |v| match v.as_u64().or_else(|| v.as_bool().map(u64::from))? {
            0 => Some(0),
            1 => Some(1),
            _ => None,
        })
        // transformers takes the first of a longer list, of this one.
        .map(|list| list.map(|list| list[..self.layers].to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(value: Value) -> Map<String, Value> {
        let Value::Object(map) = value else { panic!("an object") };
        map
    }

    fn read(value: Value) -> Result<LayerPattern, PatternError> {
        from_hf(&keys(value), 4)
    }

    #[test]
    fn defaults_are_those_of_transformers() {
        assert_eq!(read(json!({ "model_type": "olmo3" })).unwrap(), LayerPattern::windows(4, 4096, 4));
        assert_eq!(read(json!({ "model_type": "smollm3" })).unwrap(), LayerPattern::without_rope(4, 4));
        let mistral = read(json!({ "model_type": "mistral" })).unwrap();
        assert_eq!((mistral.sliding(), mistral.window(3)), (4, Some(4096)));
        for uniform in [
            json!({ "model_type": "mistral", "sliding_window": null }),
            json!({ "model_type": "qwen3", "sliding_window": 4096, "use_sliding_window": false }),
            json!({ "model_type": "qwen3", "sliding_window": null, "use_sliding_window": true }),
            json!({ "model_type": "llama", "layer_types": vec!["full_attention"; 4] }),
            json!({ "model_type": "smollm3", "no_rope_layers": [1, 1, 1, 1] }),
            json!({}),
        ] {
            assert_eq!(read(uniform.clone()), Ok(LayerPattern::default()), "{uniform}");
        }
        let qwen = json!({
            "model_type": "qwen3", "use_sliding_window": true, "sliding_window": 8, "max_window_layers": 1,
        });
        let windows: Vec<_> = (0..4).map(|i| read(qwen.clone()).unwrap().window(i)).collect();
        assert_eq!(windows, [None, Some(8), Some(8), Some(8)]);
        let smollm = json!({
            "model_type": "smollm3", "use_sliding_window": true, "sliding_window": 8, "no_rope_layers": [1, 0, 1, 0, 0],
        });
        let smollm = read(smollm).unwrap();
        assert_eq!(smollm.window(1), Some(8));
        assert_eq!((smollm.sliding(), smollm.no_rope_layers), (2, vec![1, 0, 1, 0]));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let patterns = [
            ("olmo3", LayerPattern::windows(4, 16, 2)),
            ("olmo3", LayerPattern::default()),
            ("gemma3_text", LayerPattern::windows(4, 16, 3)),
            ("gemma3_text", LayerPattern::default()),
            ("smollm3", LayerPattern::without_rope(4, 3)),
            ("smollm3", LayerPattern::default()),
            ("smollm3", LayerPattern { no_rope_layers: vec![1, 0, 1, 1], ..LayerPattern::windows(4, 9, 3) }),
            ("qwen3", LayerPattern::windows(4, 16, 2)),
            ("qwen3", LayerPattern::default()),
            ("qwen2", LayerPattern::windows(4, 16, 2)),
            ("mistral", LayerPattern::windows(4, 16, 5)),
            ("mistral", LayerPattern::default()),
            ("llama", LayerPattern::default()),
        ];
        for (model_type, pattern) in patterns {
            let mut written = to_hf(model_type, &pattern, 4);
            written.insert("model_type".into(), json!(model_type));
            assert_eq!(from_hf(&written, 4), Ok(pattern), "{model_type} {written:?}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (config, expected) in [
            (
                json!({ "model_type": "llama", "layer_types": ["sliding_attention"] }),
                "1 entries for 4 layers",
            ),
            (
                json!({ "model_type": "llama", "layer_types": vec!["sliding_attention"; 4] }),
                "the model has none",
            ),
            (
                json!({ "model_type": "olmo3", "layer_types": vec!["chunked_attention"; 4] }),
                "one for each layer",
            ),
            (json!({ "model_type": "olmo3", "sliding_window": 0 }), "would see nothing"),
            (json!({ "model_type": "olmo3", "sliding_window": "wide" }), "a whole number"),
            (json!({ "model_type": "olmo3", "sliding_window": null }), "`sliding_window` is missing"),
            (json!({ "model_type": "smollm3", "no_rope_layer_interval": 0 }), "1 or more"),
            (json!({ "model_type": "smollm3", "no_rope_layers": [1, 0, 2, 1] }), "0 for each without it"),
            (json!({ "model_type": "gemma", "use_sliding_window": true }), "in this model type"),
            (
                json!({ "model_type": "mistral", "layer_types": vec!["full_attention"; 4] }),
                "over every layer",
            ),
        ] {
            let error = read(config.clone()).unwrap_err().to_string();
            assert!(error.contains(expected), "{config}: {error}");
        }
    }
}
