//! Fill in the middle (Bavarian et al., arXiv:2207.14255): some documents are cut in three and
//! rearranged, so that a model learns to write what stands between two texts.
//!
//! The cuts are at characters, so that a model also learns to go on from the middle of a token
//! (section 4.5), and are a function of the text alone. `psm` is prefix, suffix, middle; `spm` is
//! the variant of appendix D that shares its first marker with `psm`.

use super::{DataError, TextTokenizer};
use crate::plan::FimPlan;

/// Markers of prefix, suffix and middle, by family: StarCoder 2 and Qwen, StarCoder, Code Llama,
/// DeepSeek.
const MARKERS: [[&str; 3]; 5] = [
    ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
    ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"],
    ["▁<PRE>", "▁<SUF>", "▁<MID>"],
    ["<PRE>", "<SUF>", "<MID>"],
    ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],
];

/// The transformation of a source.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fim {
    rate: f64,
    suffix_first: bool,
    prefix: u32,
    suffix: u32,
    middle: u32,
    /// Whether parts that go on are encoded otherwise than texts: a part of what identifies the tokens.
    rest: bool,
}

impl Fim {
    /// From the plan, with the markers of `tokenizer`.
    pub(crate) fn new(source: &str, plan: &FimPlan, tokenizer: &TextTokenizer) -> Result<Self, DataError> {
        let wrong = |value: String, why: String| DataError::Field {
            source_name: source.to_owned(),
            field: "fim",
            value,
            why,
        };
        if !(0.0..=1.0).contains(&plan.rate) {
            return Err(wrong(plan.rate.to_string(), "is no share".into()));
        }
        let suffix_first = match plan.style.as_str() {
            "psm" => false,
            "spm" => true,
            other => return Err(wrong(other.to_owned(), "is neither psm nor spm".into())),
        };
        let ids = |names: [&str; 3]| -> Option<[u32; 3]> {
            Some([tokenizer.id(names[0])?, tokenizer.id(names[1])?, tokenizer.id(names[2])?])
        };
        let [prefix, suffix, middle] = MARKERS.into_iter().find_map(ids).ok_or_else(|| {
            let known: Vec<&str> = MARKERS.iter().map(|m| m[0]).collect();
            let path = tokenizer.path().display();
            wrong(
                plan.style.clone(),
                format!("needs tokens that mark the parts, and `{path}` has none of {}", known.join(", ")),
            )
        })?;
        Ok(Self { rate: plan.rate, suffix_first, prefix, suffix, middle, rest: tokenizer.begins_blank() })
    }

    /// As it stands in the keys of the cache. Changing it makes every shard anew and keeps runs from being gone on with.
    pub(crate) fn canonical(&self) -> String {
        let Self { rate, suffix_first, prefix, suffix, middle, rest } = self;
        let rest = if *rest { ", rest: true" } else { "" };
        format!(
            "Fim {{ rate: {rate:?}, suffix_first: {suffix_first}, prefix: {prefix}, suffix: {suffix}, middle: {middle}{rest} }}"
        )
    }

    /// The tokens of `text` rearranged; `None` for a document that is left as it is.
    pub(crate) fn apply(&self, text: &str, tokenizer: &TextTokenizer) -> Result<Option<Vec<u32>>, String> {
        let mut random = [0u8; 24];
        let mut hasher = blake3::Hasher::new_derive_key("midc fill in the middle v1");
        hasher.update(text.as_bytes()).finalize_xof().fill(&mut random);
        let unit = |i: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&random[8 * i..8 * i + 8]);
            (u64::from_le_bytes(bytes) >> 11) as f64 / (1u64 << 53) as f64
        };
        if unit(0) >= self.rate {
            return Ok(None);
        }
        let place = |u: f64| {
            let at = (u * (text.len() + 1) as f64) as usize;
            (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
        };
        let (a, b) = (place(unit(1)), place(unit(2)));
        let (a, b) = (a.min(b), a.max(b));
        let prefix = tokenizer.encode_document(&text[..a])?;
        let (middle, suffix) = (tokenizer.encode_rest(&text[a..b])?, tokenizer.encode_rest(&text[b..])?);
        let (p, s, m) = (vec![self.prefix], vec![self.suffix], vec![self.middle]);
        Ok(Some(if self.suffix_first {
            [p, s, suffix, m, prefix, middle].concat()
        } else {
            [p, prefix, s, suffix, m, middle].concat()
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn setup(rate: f64, style: &str) -> (TextTokenizer, Result<Fim, DataError>) {
        let tokenizer = TextTokenizer::open(Path::new("examples/data")).unwrap();
        let fim = Fim::new("code", &FimPlan { rate, style: style.into() }, &tokenizer);
        (tokenizer, fim)
    }

    #[test]
    fn parts_put_back_are_the_text() {
        for style in ["psm", "spm"] {
            let (tokenizer, fim) = setup(1.0, style);
            let fim = fim.unwrap();
            for i in 0..50 {
                let text = format!("fn fünf_{i}() -> u32 {{\n    {i} + 5 // ünf\n}}\n");
                let ids = fim.apply(&text, &tokenizer).unwrap().unwrap();
                let decoded = tokenizer.decode(&ids).unwrap();
                let marks = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"];
                let (rest, last) = decoded.split_once(marks[2]).unwrap();
                let (first, second) = rest.strip_prefix(marks[0]).unwrap().split_once(marks[1]).unwrap();
                let parts = match style {
                    "psm" => [first, last, second],
                    // Nothing precedes the suffix; prefix and middle are one text.
                    _ => [last, second, first],
                };
                assert_eq!(parts.concat(), text, "{style}");
            }
        }
    }

    /// As Llama 2 and Code Llama have it.
    #[test]
    fn no_part_gets_a_blank_that_the_text_does_not_have() {
        let mut vocab = vec![serde_json::json!(["<unk>", 0.0]), serde_json::json!(["▁", -2.0])];
        vocab.extend("abcdefghijklmnopqrstuvwxyz☺".chars().map(|c| serde_json::json!([c, -3.0])));
        let marks = ["</s>", "<PRE>", "<SUF>", "<MID>"];
        let added = (vocab.len()..).zip(marks).map(|(id, content)| {
            serde_json::json!({"id": id, "content": content, "special": true, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false})
        });
        let metaspace = serde_json::json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
        let json = serde_json::json!({
            "version": "1.0", "added_tokens": added.collect::<Vec<_>>(), "pre_tokenizer": metaspace, "decoder": metaspace,
            "model": {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": false},
        });
        let tokenizer =
            TextTokenizer::from_json(Path::new("t.json"), json.to_string().as_bytes(), None).unwrap();
        for style in ["psm", "spm"] {
            let fim = Fim::new("s", &FimPlan { rate: 1.0, style: style.into() }, &tokenizer).unwrap();
            let text = "internationalization of words";
            let ids = fim.apply(text, &tokenizer).unwrap().unwrap();
            let at = |mark: &str| ids.iter().position(|id| Some(*id) == tokenizer.id(mark)).unwrap();
            let (suf, mid) = (at("<SUF>"), at("<MID>"));
            let parts = match style {
                "psm" => [&ids[1..suf], &ids[mid + 1..], &ids[suf + 1..mid]],
                _ => [&ids[mid + 1..], &ids[suf + 1..mid], &[]],
            };
            assert_eq!(tokenizer.decode(&parts.concat()).unwrap(), text, "{style}");
        }
    }

    #[test]
    fn the_rate_is_kept() {
        let (tokenizer, fim) = setup(0.3, "psm");
        let fim = fim.unwrap();
        let done = (0..2000).filter(|i| fim.apply(&format!("text {i}"), &tokenizer).unwrap().is_some());
        assert!((500..700).contains(&done.count()));
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        assert!(setup(1.5, "psm").1.unwrap_err().to_string().contains("no share"));
        assert!(setup(0.5, "pms").1.unwrap_err().to_string().contains("neither psm nor spm"));
    }
}
