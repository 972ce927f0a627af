//! The data side from files to batches: what is read, in which order, how often, and that a stop
//! anywhere does not show.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Mutex;

use midc::curve::Blend;
use midc::plan::*;
use midc::runtime::batch::{Batch, IGNORE};
use midc::runtime::data::*;
use proptest::prelude::*;

fn tokenizer() -> TextTokenizer {
    TextTokenizer::open(Path::new("examples/data")).unwrap()
}

fn source(name: &str, path: &str) -> SourcePlan {
    SourcePlan {
        name: name.into(),
        doc: String::new(),
        kind: "web".into(),
        tokens: None,
        drawn_tokens: 0,
        epochs: None,
        path: vec![path.into()],
        text: None,
        filter: None,
        max_epochs: None,
        order: "shuffled".into(),
        loss_on: Vec::new(),
        today: None,
        fim: None,
        validation: false,
        dedup: false,
        exclude: Vec::new(),
    }
}

fn options<'a>(base_dir: &'a Path, cache_dir: &'a Path) -> OpenOptions<'a> {
    OpenOptions { base_dir, cache_dir, vocab_size: 4096, heldout: 0.0, on_bad: OnBad::Fail, count_all: true }
}

/// A stage of `steps` steps of `rows` rows of `context` tokens.
fn stage(name: &str, mix: &[(&str, f64)], shape: (u64, u64, u64)) -> StagePlan {
    let (steps, sequences, context) = shape;
    let mix: Vec<_> = mix
        .iter()
        .map(|(source, weight)| {
            serde_json::json!({
                "source": source, "weight_mean": weight, "weight_start": weight, "weight_end": weight,
                "tokens": (weight * (steps * sequences * context) as f64) as u64, "epochs": null,
                "weight": Blend::constant(*weight),
            })
        })
        .collect();
    serde_json::from_value(serde_json::json!({
        "name": name, "from": "m", "from_kind": "model", "tokens": steps * sequences * context,
        "steps": steps, "overshoot_tokens": 0, "start_tokens": 0,
        "lr": {"start": 1.0, "end": 1.0, "peak": 1.0, "segments": []},
        "batch_tokens": {
            "start": sequences * context, "end": sequences * context, "min": sequences * context,
            "max": sequences * context,
        },
        "context": [{"at": 0, "value": context}],
        "phases": [{"step": 0, "tokens": 0, "sequences": sequences, "context": context}],
        "rope": null, "mix": mix, "attention": "causal", "packing": "concat",
        "optimizer": {"betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1, "clip": 1.0, "z_loss": null},
        "state": "keep", "precision": null, "data_seed": 42, "init_seed": 1, "save_every": null, "keep": null,
        "checkpoints": [], "evals": [], "gates": [], "assumed": [], "inherited": [],
    }))
    .unwrap()
}

fn weights(stage: &StagePlan) -> Vec<f64> {
    stage.mix.iter().map(|m| m.weight.value(0)).collect()
}

fn run(stage: &StagePlan, corpus: &Corpus, state: SamplerState) -> (Vec<Batch>, SamplerState) {
    let mut sampler = StageSampler::new(stage, corpus, state).unwrap();
    let first = sampler.step();
    let batches =
        (first..stage.steps).map(|s| sampler.next(stage.step_point(s), &weights(stage)).unwrap()).collect();
    (batches, sampler.state())
}

/// Hears the notes.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Progress for Notes {
    fn begin(&self, _: &str, _: u64) {}

    fn advance(&self, _: u64) {}

    fn end(&self) {}

    fn note(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

/// A corpus of sources of numbered documents, `counts[i]` documents in source `s{i}`.
fn numbered(dir: &Path, counts: &[usize]) -> (Corpus, Summary) {
    let plans: Vec<SourcePlan> = counts
        .iter()
        .enumerate()
        .map(|(i, n)| {
            let lines: Vec<String> = (0..*n)
                .map(|d| format!(r#"{{"text": "document {d} of {i} {}"}}"#, "and so on ".repeat(d % 7)))
                .collect();
            std::fs::write(dir.join(format!("{i}.jsonl")), lines.join("\n")).unwrap();
            source(&format!("s{i}"), &format!("{i}.jsonl"))
        })
        .collect();
    Corpus::open(&plans, tokenizer(), &options(dir, &dir.join("cache")), &Quiet).unwrap()
}

#[test]
fn the_example_corpus_is_read() {
    let cache = tempfile::tempdir().unwrap();
    let base = Path::new("examples/data");
    let plans: Vec<_> = ["prose", "code", "math", "qa", "long"]
        .map(|n| source(n, &format!("{n}.train.jsonl")))
        .into_iter()
        .collect();
    let open = || Corpus::open(&plans, tokenizer(), &options(base, cache.path()), &Quiet).unwrap();
    let (corpus, summary) = open();
    let documents: Vec<u64> = summary.sources.iter().map(|s| s.documents).collect();
    assert_eq!(documents, [30, 66, 607, 647, 12]);
    for s in &summary.sources {
        assert_eq!((s.dropped.total(), s.shards_made), (0, 1), "{}", s.name);
        let ratio = s.bytes_per_token.unwrap();
        assert!((2.0..5.0).contains(&ratio), "{}: {ratio}", s.name);
    }
    let text = corpus.tokenizer().decode(&corpus.source("qa").unwrap().tokens(0)).unwrap();
    // By the chat template beside the tokenizer.
    assert_eq!(
        text,
        "<|im_start|>user\nLithuania: geographic coordinates? (Geography)<|im_end|>\n\
         <|im_start|>assistant\n56 00 N, 24 00 E<|im_end|>\n<|endoftext|>"
    );
    let (_, again) = open();
    assert!(again.sources.iter().all(|s| s.shards_made == 0));
}

#[test]
fn a_row_is_the_packed_stream_of_its_source() {
    let dir = tempfile::tempdir().unwrap();
    let (corpus, _) = numbered(dir.path(), &[40]);
    let (batches, _) = run(&stage("a", &[("s0", 1.0)], (6, 2, 32)), &corpus, SamplerState::default());
    let stream: Vec<u32> = batches.iter().flat_map(|b| b.tokens.clone()).collect();
    // Documents end with token 0; all but the last one of the stream are whole.
    let read: Vec<&[u32]> = stream.split_inclusive(|t| *t == 0).filter(|d| d.ends_with(&[0])).collect();
    let source = corpus.source("s0").unwrap();
    let all: Vec<Vec<u32>> = (0..40).map(|d| source.tokens(d)).collect();
    let unique: HashSet<&[u32]> = read.iter().copied().collect();
    assert_eq!(unique.len(), read.len());
    assert!(read.iter().all(|d| all.iter().any(|a| a == d)));
    for batch in &batches {
        for row in 0..2 {
            let at = row * 32..(row + 1) * 32;
            assert_eq!(batch.targets[at.clone()][..31], batch.tokens[at.clone()][1..]);
            assert_eq!(batch.targets[at.end - 1], IGNORE);
            assert!(batch.positions[at.clone()].iter().copied().eq(0..32));
            assert!(batch.attend_from[at].iter().all(|a| *a == 0));
        }
    }
}

#[test]
fn document_attention_restarts_and_predicts_nothing_across() {
    let dir = tempfile::tempdir().unwrap();
    let (corpus, _) = numbered(dir.path(), &[40]);
    for packing in [Packing::Concat, Packing::BestFit] {
        let mut stage = stage("a", &[("s0", 1.0)], (8, 2, 32));
        (stage.attention, stage.packing) = (Attention::Documents, packing);
        for batch in run(&stage, &corpus, SamplerState::default()).0 {
            for row in 0..2 {
                let mut start = 0;
                for i in 0..32u32 {
                    let at = row * 32 + i as usize;
                    if batch.positions[at] == 0 {
                        start = i;
                    }
                    assert_eq!((batch.attend_from[at], batch.positions[at]), (start, i - start));
                    let ends = i == 31 || batch.positions[at + 1] == 0;
                    assert_eq!(batch.targets[at] == IGNORE, ends);
                    if batch.tokens[at] == 0 {
                        assert!(ends);
                    }
                }
            }
        }
    }
}

#[test]
fn stages_of_a_lineage_read_no_document_twice_within_an_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let (corpus, summary) = numbered(dir.path(), &[200]);
    let rows = summary.sources[0].tokens / 32;
    let mut state = SamplerState::default();
    let mut stream = Vec::new();
    for (i, share) in [3u64, 2, 4].into_iter().enumerate() {
        let mut stage = stage(&format!("stage{i}"), &[("s0", 1.0)], (rows / share / 2, 1, 32));
        stage.data_seed = i as u64;
        let (batches, after) = run(&stage, &corpus, state);
        stream.extend(batches.into_iter().flat_map(|b| b.tokens));
        state = serde_json::from_str(&serde_json::to_string(&after).unwrap()).unwrap();
    }
    let read: Vec<&[u32]> = stream.split_inclusive(|t| *t == 0).filter(|d| d.ends_with(&[0])).collect();
    assert!(read.len() > 80);
    assert_eq!(read.iter().collect::<HashSet<_>>().len(), read.len());
    assert_eq!(state.sources["s0"].drawn, stream.len() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// Going on from the state of any step gives the batches of an uninterrupted run, and every
    /// prefix has each source within one sequence of its share.
    #[test]
    fn a_stop_does_not_show(stop in 0u64..30, best_fit: bool, documents: bool, share in 0.0..1.0f64) {
        let dir = tempfile::tempdir().unwrap();
        let (corpus, _) = numbered(dir.path(), &[30, 50, 7]);
        let mix = [("s0", share / 2.0), ("s1", share / 2.0), ("s2", 1.0 - share)];
        let mut stage = stage("a", &mix, (30, 3, 40));
        if best_fit { stage.packing = Packing::BestFit }
        if documents { stage.attention = Attention::Documents }
        let (whole, end) = run(&stage, &corpus, SamplerState::default());
        let mut first = stage.clone();
        first.steps = stop;
        let (mut parts, state) = run(&first, &corpus, SamplerState::default());
        let json = serde_json::to_string(&state).unwrap();
        let (rest, end_of_parts) = run(&stage, &corpus, serde_json::from_str(&json).unwrap());
        parts.extend(rest);
        prop_assert_eq!(&whole, &parts);
        prop_assert_eq!(end, end_of_parts);
        let mut have = [0f64; 3];
        for (n, s) in (1u64..).zip(whole.iter().flat_map(|b| &b.source)) {
            have[*s as usize] += 1.0;
            for (have, (_, weight)) in have.iter().zip(mix) {
                prop_assert!((have - weight * n as f64).abs() < 1.0 + 1e-6);
            }
        }
    }
}

#[test]
fn max_epochs_is_enforced() {
    let dir = tempfile::tempdir().unwrap();
    let (_, summary) = numbered(dir.path(), &[60]);
    let mut plan = source("s0", "0.jsonl");
    plan.max_epochs = Some(1.5);
    let (corpus, _) =
        Corpus::open(&[plan], tokenizer(), &options(dir.path(), &dir.path().join("cache")), &Quiet).unwrap();
    let rows = (summary.sources[0].tokens as f64 * 1.5 / 16.0) as u64;
    let fits = stage("a", &[("s0", 1.0)], (rows, 1, 16));
    let (_, state) = run(&fits, &corpus, SamplerState::default());
    let too_long = stage("a", &[("s0", 1.0)], (rows + 2, 1, 16));
    let error = StageSampler::new(&too_long, &corpus, SamplerState::default()).unwrap_err();
    assert!(matches!(error, DataError::Exhausted { .. }), "{error}");
    // The lineage counts, not the stage.
    let next = stage("b", &[("s0", 1.0)], (2, 1, 16));
    let error = StageSampler::new(&next, &corpus, state).unwrap_err().to_string();
    assert!(error.contains("`s0`") && error.contains("1.5 epochs"), "{error}");
}

#[test]
fn held_out_documents_are_never_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    numbered(dir.path(), &[300]);
    let plan = source("s0", "0.jsonl");
    let cache = dir.path().join("cache");
    let options = OpenOptions { heldout: 0.1, ..options(dir.path(), &cache) };
    let (corpus, summary) = Corpus::open(&[plan], tokenizer(), &options, &Quiet).unwrap();
    let s = &summary.sources[0];
    assert!((10..60).contains(&s.heldout_documents), "{}", s.heldout_documents);
    assert_eq!(s.documents, 300);
    let source = corpus.source("s0").unwrap();
    assert_eq!(source.train_documents() + s.heldout_documents, 300);
    assert_eq!(source.train_tokens() + s.heldout_tokens, s.tokens);
    let held = corpus.heldout_rows("s0", 16, u64::MAX, Attention::Causal).unwrap().unwrap();
    assert_eq!(held.rows() as u64, s.heldout_tokens.div_ceil(16));
    let fewer = corpus.heldout_rows("s0", 16, 100, Attention::Causal).unwrap().unwrap();
    assert_eq!((fewer.rows(), &fewer.tokens[..]), (6, &held.tokens[..96]));
    let heldout: Vec<&[u32]> = held.tokens.split_inclusive(|t| *t == 0).collect();
    let steps = source.train_tokens() / 32;
    let (batches, _) = run(&stage("a", &[("s0", 1.0)], (2 * steps, 1, 32)), &corpus, SamplerState::default());
    let stream: Vec<u32> = batches.into_iter().flat_map(|b| b.tokens).collect();
    let trained: HashSet<&[u32]> = stream.split_inclusive(|t| *t == 0).collect();
    assert!(heldout[..heldout.len() - 1].iter().all(|d| !trained.contains(d)));
}

/// A part of a source is so small that the share alone holds nothing out of it: its one document is no longer
/// trained on through the whole either.
/// All of it is measured, and what it shares with another source is trained on there neither.
#[test]
fn a_source_for_validation_is_trained_on_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let lines = |range: std::ops::Range<u32>| {
        range.map(|d| format!("{{\"text\": \"document {d} of all\"}}\n")).collect::<String>()
    };
    std::fs::write(dir.path().join("web.jsonl"), lines(0..40)).unwrap();
    std::fs::write(dir.path().join("val.jsonl"), lines(30..45)).unwrap();
    let plans = [source("web", "web.jsonl"), SourcePlan { validation: true, ..source("val", "val.jsonl") }];
    for (heldout, trained) in [(0.0, 30), (0.2, 15)] {
        let options = OpenOptions { heldout, ..options(dir.path(), dir.path()) };
        let (corpus, summary) = Corpus::open(&plans, tokenizer(), &options, &Quiet).unwrap();
        let [web, val] = ["web", "val"].map(|name| corpus.source(name).unwrap());
        assert_eq!((val.train_documents(), val.heldout_documents()), (0, 15));
        assert_eq!(web.train_documents() + web.heldout_documents(), 40);
        assert!(web.train_documents() <= 30 && web.train_documents() >= trained, "{}", web.train_documents());
        assert_eq!(summary.sources[1].heldout_documents, 15);
        let rows = corpus.heldout_rows("val", 16, 1 << 20, Attention::Causal).unwrap().unwrap();
        assert!(rows.predicted() > 15);
    }
    // Nothing is left of what is measured whole.
    std::fs::write(dir.path().join("web.jsonl"), lines(30..40)).unwrap();
    let refused = Corpus::open(&plans, tokenizer(), &options(dir.path(), dir.path()), &Quiet).unwrap_err();
    assert!(refused.to_string().contains("web"), "{refused}");
}

#[test]
fn what_is_held_out_of_a_part_is_held_out_of_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    numbered(dir.path(), &[40]);
    let cache = dir.path().join("cache");
    let options = OpenOptions { heldout: 0.001, ..options(dir.path(), &cache) };
    let part = SourcePlan { filter: Some("length >= 24".into()), ..source("part", "0.jsonl") };
    let alone = |plans: &[SourcePlan]| Corpus::open(plans, tokenizer(), &options, &Quiet).unwrap();
    let (corpus, summary) = alone(&[source("whole", "0.jsonl"), part.clone()]);
    let (of_whole, of_part) = (&summary.sources[0], &summary.sources[1]);
    assert!(of_part.heldout_documents == 1 && of_part.documents < of_whole.documents);
    let (_, part_alone) = alone(&[part]);
    assert_eq!(part_alone.sources[0].heldout_tokens, of_part.heldout_tokens);
    let held = corpus.heldout_rows("part", 64, 1 << 20, Attention::Documents).unwrap().unwrap();
    let document = held.tokens.split_inclusive(|t| *t == 0).next().unwrap();
    let steps = corpus.source("whole").unwrap().train_tokens() / 32;
    let both = stage("a", &[("whole", 1.0)], (2 * steps, 1, 32));
    let (batches, _) = run(&both, &corpus, SamplerState::default());
    let stream: Vec<u32> = batches.into_iter().flat_map(|b| b.tokens).collect();
    assert!(!stream.split_inclusive(|t| *t == 0).any(|d| d == document));
}

/// What it asks for of files that have no fields would be left undone.
#[test]
fn fields_of_files_that_have_none_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.bin"), [7u8, 0, 8, 0, 0, 0].repeat(20)).unwrap();
    std::fs::write(dir.path().join("a.txt"), "some text").unwrap();
    std::fs::write(dir.path().join("a.csv"), "text\nsome text\n").unwrap();
    let cache = dir.path().join("cache");
    let refused = |plan: SourcePlan| {
        let error = Corpus::open(&[plan], tokenizer(), &options(dir.path(), &cache), &Quiet).unwrap_err();
        error.to_string()
    };
    for file in ["a.bin", "a.txt"] {
        let plain = source("s", file);
        Corpus::open(std::slice::from_ref(&plain), tokenizer(), &options(dir.path(), &cache), &Quiet)
            .unwrap();
        let text = refused(SourcePlan { text: Some("body".into()), ..plain.clone() });
        assert!(text.contains("`text = body`") && text.contains(file), "{text}");
        let loss_on = refused(SourcePlan { loss_on: vec!["assistant".into()], ..plain });
        assert!(loss_on.contains("`loss_on = assistant`") && loss_on.contains(file), "{loss_on}");
    }
    let exclude = refused(SourcePlan { exclude: vec!["a.txt".into()], ..source("s", "a.bin") });
    assert!(exclude.contains("`exclude = a.txt`"), "{exclude}");
    let fim = Some(FimPlan { rate: 0.5, style: "psm".into() });
    assert!(refused(SourcePlan { fim, ..source("s", "a.bin") }).contains("`fim = psm`"));
    assert!(refused(source("s", "a.csv")).contains("a.csv"));
}

#[test]
fn a_field_that_no_record_has_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.jsonl"), "{\"text\": \"a\", \"lang\": \"en\"}\n".repeat(3)).unwrap();
    let cache = dir.path().join("cache");
    // Once from the file, once from the cache.
    for _ in 0..2 {
        let notes = Notes::default();
        let plan = SourcePlan { filter: Some("lang != en and not toxic".into()), ..source("s", "a.jsonl") };
        Corpus::open(&[plan], tokenizer(), &options(dir.path(), &cache), &notes).unwrap();
        let notes = notes.0.into_inner().unwrap().join("\n");
        assert!(notes.contains("`en`") && notes.contains("`toxic`") && !notes.contains("`lang`"), "{notes}");
    }
}

#[test]
fn a_single_heldout_row_is_filled_up() {
    let dir = tempfile::tempdir().unwrap();
    numbered(dir.path(), &[3]);
    let cache = dir.path().join("cache");
    let options = OpenOptions { heldout: 0.001, ..options(dir.path(), &cache) };
    let (corpus, _) = Corpus::open(&[source("s0", "0.jsonl")], tokenizer(), &options, &Quiet).unwrap();
    let batch = corpus.heldout_rows("s0", 256, 1 << 20, Attention::Documents).unwrap().unwrap();
    assert_eq!((batch.rows(), batch.tokens.len(), batch.targets.len()), (1, 256, 256));
    assert_eq!((batch.positions.len(), batch.attend_from.len()), (256, 256));
    let n = batch.predicted();
    assert!(n > 5 && n < 64 && batch.targets[n..].iter().all(|t| *t == IGNORE));
}

#[test]
fn orders_by_a_field_are_kept_in_every_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let row = |text: &str, key: &str| format!(r#"{{"text": "{text}", "difficulty": {key}}}"#);
    let lines = [row("c", "3"), row("none", "null"), row("a", "1.5"), row("b", "\"2\""), row("a too", "1.5")]
        .join("\n");
    std::fs::write(dir.path().join("0.jsonl"), lines).unwrap();
    let read = |order: &str| {
        let plan = SourcePlan { order: order.into(), ..source("s0", "0.jsonl") };
        let cache = dir.path().join("cache");
        let (corpus, s) = Corpus::open(&[plan], tokenizer(), &options(dir.path(), &cache), &Quiet).unwrap();
        let tokens = s.sources[0].tokens;
        let (batches, _) = run(&stage("a", &[("s0", 1.0)], (2, 1, tokens)), &corpus, SamplerState::default());
        batches.iter().map(|b| corpus.tokenizer().decode(&b.tokens).unwrap()).collect::<Vec<_>>()
    };
    let expect = |order: &[&str]| {
        let epoch = format!("{}<|endoftext|>", order.join("<|endoftext|>"));
        vec![epoch.clone(), epoch]
    };
    assert_eq!(read("as_written"), expect(&["c", "none", "a", "b", "a too"]));
    assert_eq!(read("ascending(difficulty)"), expect(&["a", "a too", "b", "c", "none"]));
    assert_eq!(read("descending(difficulty)"), expect(&["c", "b", "a", "a too", "none"]));
}

#[test]
fn bad_records_are_named_or_counted() {
    let dir = tempfile::tempdir().unwrap();
    let good = r#"{"text": "good"}"#;
    let mut bytes =
        format!("{good}\n{{\"text\": \n\n{good}\n[1]\n{{\"body\": 1}}\n{{\"text\": \"\"}}\n").into_bytes();
    bytes.extend_from_slice(b"{\"text\": \"\xff\xfe\"}\n");
    std::fs::write(dir.path().join("0.jsonl"), bytes).unwrap();
    let cache = dir.path().join("cache");
    let open = |on_bad| {
        let options = OpenOptions { on_bad, ..options(dir.path(), &cache) };
        Corpus::open(&[source("s0", "0.jsonl")], tokenizer(), &options, &Quiet)
    };
    let fails = |error: DataError| {
        let text = error.to_string();
        assert!(text.contains("0.jsonl`, record 2: malformed JSON"), "{text}");
    };
    fails(open(OnBad::Fail).unwrap_err());
    let (_, summary) = open(OnBad::Skip).unwrap();
    let s = &summary.sources[0];
    let expect =
        Dropped { blank: 1, malformed: 2, invalid_utf8: 1, no_text: 1, empty: 1, ..Dropped::default() };
    assert_eq!((s.records, s.documents, s.dropped), (8, 2, expect));
    let records: Vec<u64> = s.examples.iter().map(|e| e.record).collect();
    assert_eq!(records, [2, 3, 5, 6, 8]);
    // Also when the shard comes from the cache.
    fails(open(OnBad::Fail).unwrap_err());
}

/// Documents that `exclude` keeps out are reported beside broken ones and do not hide them.
#[test]
fn what_is_excluded_hides_no_broken_record() {
    let dir = tempfile::tempdir().unwrap();
    let words = "one two three four five six seven eight nine ten eleven twelve thirteen";
    let excluded = format!("{}\n", serde_json::json!({ "text": words }));
    let test = serde_json::json!({ "q": words }).to_string();
    let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).unwrap();
    write("test.jsonl", test);
    // Blank lines are broken too; more than are kept as examples.
    write(
        "many.jsonl",
        excluded.repeat(25) + "{\n" + "{\"text\": \"good\"}\n" + &"\n".repeat(25) + &excluded,
    );
    write("none.jsonl", excluded.clone() + "{\n");
    let cache = dir.path().join("cache");
    let open = |file: &str, on_bad| {
        let plan = SourcePlan { exclude: vec!["test.jsonl".into()], ..source("s", file) };
        let options = OpenOptions { on_bad, ..options(dir.path(), &cache) };
        Corpus::open(&[plan], tokenizer(), &options, &Quiet).map(|(_, summary)| summary.sources[0].clone())
    };
    let s = open("many.jsonl", OnBad::Skip).unwrap();
    assert_eq!((s.dropped.excluded, s.dropped.bad(), s.documents), (26, 26, 1));
    let examples = |bad: bool| s.examples.iter().filter(move |e| e.bad == bad).map(|e| e.record);
    assert_eq!((examples(true).next(), examples(true).count()), (Some(26), 20));
    assert_eq!((examples(false).next_back(), examples(false).count()), (Some(53), 26));
    // From the cache as well.
    let error = open("many.jsonl", OnBad::Fail).unwrap_err().to_string();
    assert!(error.contains("many.jsonl`, record 26: malformed JSON"), "{error}");
    let error = open("none.jsonl", OnBad::Skip).unwrap_err().to_string();
    assert!(error.contains("none.jsonl`, record 2: malformed JSON"), "{error}");
}

/// A misspelt `text` must not look like a smaller source, also where bad records are skipped.
#[test]
fn a_file_without_one_text_is_refused_with_the_fields_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let lines = |line: &str, n: usize| format!("{line}\n").repeat(n);
    let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).unwrap();
    write("good.jsonl", lines(r#"{"text": "good", "body": 1}"#, 3));
    write("none.jsonl", lines(r#"{"id": 1, "content": "lost"}"#, 40));
    write("late.jsonl", lines(r#"{"id": 1}"#, 40) + r#"{"text": "found"}"#);
    write("few.jsonl", lines(r#"{"id": 1}"#, 4));
    write("broken.jsonl", lines("text", 40));
    // A value in many lines is no table.
    write("package.json", lines("\"a\": 1,", 40));
    let open = |files: &[&str], text: Option<&str>| {
        let path = files.iter().map(|f| f.to_string()).collect();
        let plan = SourcePlan { path, text: text.map(str::to_owned), ..source("s", "") };
        let cache = tempfile::tempdir().unwrap();
        let options = OpenOptions { on_bad: OnBad::Skip, ..options(dir.path(), cache.path()) };
        Corpus::open(&[plan], tokenizer(), &options, &Quiet).map(|(_, summary)| summary.sources[0].clone())
    };
    let told = open(&["good.jsonl", "none.jsonl"], None).unwrap_err().to_string();
    for part in ["none.jsonl", "not one of the 40 records", "record 1: has neither `text`", "`id`, `content`"]
    {
        assert!(told.contains(part), "{told}");
    }
    // Three records are few.
    assert_eq!(open(&["good.jsonl", "none.jsonl"], Some("content")).unwrap().documents, 40);
    let told = open(&["good.jsonl", "broken.jsonl"], None).unwrap_err().to_string();
    assert!(told.contains("broken.jsonl") && told.contains("malformed JSON"), "{told}");
    let s = open(&["good.jsonl", "late.jsonl", "few.jsonl", "package.json"], None).unwrap();
    assert_eq!((s.documents, s.dropped.no_text, s.dropped.malformed), (4, 44, 40));
    let told = open(&["few.jsonl"], None).unwrap_err().to_string();
    assert!(
        told.contains("has no documents") && told.contains("few.jsonl`, record 1: has neither"),
        "{told}"
    );
}

#[test]
fn duplicates_are_counted_and_dropped_across_files() {
    let dir = tempfile::tempdir().unwrap();
    for (name, texts) in [("a", ["x", "y"]), ("b", ["y", "z"])] {
        let lines: Vec<String> = texts.iter().map(|t| format!(r#"{{"text": "{t}"}}"#)).collect();
        std::fs::write(dir.path().join(format!("{name}.jsonl")), lines.join("\n")).unwrap();
    }
    let cache = dir.path().join("cache");
    for (dedup, documents) in [(false, 4), (true, 3)] {
        let plan = SourcePlan { dedup, ..source("s", "*.jsonl") };
        let (corpus, summary) =
            Corpus::open(&[plan], tokenizer(), &options(dir.path(), &cache), &Quiet).unwrap();
        let s = &summary.sources[0];
        assert_eq!((s.documents, s.duplicates), (documents, Some(1)));
        assert_eq!(corpus.source("s").unwrap().train_documents(), documents);
        assert_eq!(s.dropped.duplicates, u64::from(dedup));
    }
}

#[test]
fn a_damaged_cache_is_made_anew_with_a_note() {
    let dir = tempfile::tempdir().unwrap();
    let (corpus, before) = numbered(dir.path(), &[20]);
    drop(corpus);
    let cache = dir.path().join("cache");
    let shard = std::fs::read_dir(&cache).unwrap().map(|e| e.unwrap().path()).next().unwrap();
    let good = std::fs::read(&shard).unwrap();
    for damage in 0..3 {
        let mut bytes = good.clone();
        match damage {
            0 => bytes.truncate(good.len() / 2),
            1 => bytes[good.len() / 2] ^= 4,
            _ => bytes[16] ^= 1,
        }
        std::fs::write(&shard, bytes).unwrap();
        // What a killed writer leaves behind is no hindrance.
        std::fs::write(shard.with_extension("partial"), b"half").unwrap();
        let notes = Notes(Vec::new().into());
        let (_, after) =
            Corpus::open(&[source("s0", "0.jsonl")], tokenizer(), &options(dir.path(), &cache), &notes)
                .unwrap();
        assert_eq!((after.sources[0].tokens, after.sources[0].shards_made), (before.sources[0].tokens, 1));
        let notes = notes.0.into_inner().unwrap();
        assert!(notes.len() == 1 && notes[0].contains(&shard.display().to_string()), "{notes:?}");
        assert_eq!(std::fs::read(&shard).unwrap(), good);
    }
}

#[test]
fn changed_files_and_foreign_states_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (corpus, _) = numbered(dir.path(), &[20]);
    let a = stage("a", &[("s0", 1.0)], (3, 1, 16));
    let (_, state) = run(&a, &corpus, SamplerState::default());
    let (other, _) = numbered(dir.path(), &[21]);
    let error = StageSampler::new(&a, &other, state.clone()).unwrap_err();
    assert!(error.to_string().contains("other documents"), "{error}");
    let mut broken = state.clone();
    broken.sources.get_mut("s0").unwrap().cursor.legs[0].taken = 1000;
    assert!(StageSampler::new(&a, &corpus, broken).is_err());
    let mut broken = state;
    broken.sources.get_mut("s0").unwrap().packer.pending = vec![Piece { document: 3, start: 9, end: 4 }];
    assert!(StageSampler::new(&a, &corpus, broken).is_err());
}

#[test]
fn missing_files_and_foreign_formats_are_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.zip"), "PK").unwrap();
    std::fs::write(dir.path().join("empty.jsonl"), "").unwrap();
    for (path, expect) in [
        ("no/*.jsonl", "matches no file"),
        ("a.zip", "of no format"),
        ("empty.jsonl", "has no documents"),
        ("[", "not a valid glob"),
    ] {
        let cache = dir.path().join("cache");
        let error = Corpus::open(&[source("s", path)], tokenizer(), &options(dir.path(), &cache), &Quiet)
            .unwrap_err();
        assert!(error.to_string().contains(expect), "{error}");
    }
    let error = Corpus::open(
        &[],
        tokenizer(),
        &OpenOptions { vocab_size: 100, ..options(dir.path(), dir.path()) },
        &Quiet,
    );
    assert!(error.unwrap_err().to_string().contains("100 embeddings"));
}

/// Does something when work begins, and may have had enough.
struct Ear<F: Fn(&str) + Sync>(F, bool);

impl<F: Fn(&str) + Sync> Progress for Ear<F> {
    fn begin(&self, what: &str, _: u64) {
        (self.0)(what);
    }
    fn advance(&self, _: u64) {}
    fn end(&self) {}
    fn note(&self, _: &str) {}
    fn stopped(&self) -> bool {
        self.1
    }
}

#[test]
fn a_file_that_grows_while_it_is_read_is_refused_and_not_cached() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.txt");
    std::fs::write(&file, "to be continued").unwrap();
    let grow = Ear(
        |what| {
            assert_eq!(what, "tokenising s0");
            std::fs::write(&file, "to be continued, and so it is").unwrap();
        },
        false,
    );
    let cache = dir.path().join("cache");
    let sources = [source("s0", "a.txt")];
    let error = Corpus::open(&sources, tokenizer(), &options(dir.path(), &cache), &grow).unwrap_err();
    assert!(matches!(&error, DataError::Changed { path } if *path == file), "{error}");
    assert!(!std::fs::read_dir(&cache).unwrap().any(|e| e.unwrap().path().extension().unwrap() == "tokens"));
    let (corpus, _) = Corpus::open(&sources, tokenizer(), &options(dir.path(), &cache), &Quiet).unwrap();
    assert_eq!(texts(&corpus), ["to be continued, and so it is"]);
}

#[test]
fn reading_stops_when_it_is_told_to_and_leaves_no_space_taken() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.txt"), "never read").unwrap();
    let cache = dir.path().join("cache");
    let stop = Ear(|_| {}, true);
    let error = Corpus::open(&[source("a", "a.txt")], tokenizer(), &options(dir.path(), &cache), &stop);
    assert!(matches!(error, Err(DataError::Stopped)));
    let left: u64 = std::fs::read_dir(&cache).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(left, 0);
}

#[test]
fn a_stage_that_will_find_too_little_is_known_before_those_it_descends_from() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.txt"), "one two three four five six seven eight ".repeat(100)).unwrap();
    let source = SourcePlan { max_epochs: Some(1.0), ..source("a", "a.txt") };
    let (corpus, _) =
        Corpus::open(&[source], tokenizer(), &options(dir.path(), &dir.path().join("cache")), &Quiet)
            .unwrap();
    let steps = corpus.sources()[0].train_tokens() / 64;
    let (first, second) =
        (stage("first", &[("a", 1.0)], (steps, 2, 16)), stage("second", &[("a", 1.0)], (steps, 4, 16)));
    corpus.suffices(&first, &[]).unwrap();
    corpus.suffices(&second, &[]).unwrap();
    let error = corpus.suffices(&second, &[&first]).unwrap_err();
    assert!(matches!(error, DataError::Exhausted { stage, .. } if stage == "second"));
}

#[test]
fn windows_cover_each_document_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("eval.jsonl");
    std::fs::write(&path, "{\"text\": \"one two three four five six seven eight\"}\n{\"text\": \"nine\"}\n")
        .unwrap();
    let tokenizer = tokenizer();
    let windows: Vec<Window> =
        file_windows(&path, None, &tokenizer, 4096, 4, None).unwrap().collect::<Result<_, _>>().unwrap();
    for (document, text) in [(0, "one two three four five six seven eight"), (1, "nine")] {
        let of_document: Vec<&Window> = windows.iter().filter(|w| w.document == document).collect();
        assert!(of_document.iter().rev().skip(1).all(|w| w.tokens.len() == 4));
        let tokens: Vec<u32> = of_document.iter().flat_map(|w| w.tokens.clone()).collect();
        assert_eq!(tokens, tokenizer.encode(text).unwrap());
    }
}

#[test]
fn windows_of_dialogues_see_the_day_they_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("eval.jsonl");
    std::fs::write(&path, r#"{"messages": [{"role": "user", "content": "x"}]}"#).unwrap();
    let template = serde_json::json!({"chat_template": "{{ strftime_now('%d %B %Y') }}"});
    let tokenizer = tokenizer().with_chat_template(&template, None).unwrap();
    let read = |today: Option<&str>| {
        let today = today.map(|day| day.parse().unwrap());
        let windows: Result<Vec<Window>, DataError> =
            file_windows(&path, None, &tokenizer, 4096, 64, today).unwrap().collect();
        windows.map(|windows| tokenizer.decode(&windows[0].tokens).unwrap())
    };
    assert_eq!(read(Some("2025-07-08")).unwrap(), "08 July 2025");
    let error = read(None).unwrap_err();
    assert!(matches!(error, DataError::BadText { .. }) && error.to_string().contains("`--today`"), "{error}");
}

/// Open one source over `lines` in a fresh directory.
fn open_lines(lines: &[serde_json::Value], change: impl FnOnce(&mut SourcePlan)) -> (Corpus, SourceSummary) {
    let dir = tempfile::tempdir().unwrap();
    let text: String = lines.iter().map(|l| format!("{l}\n")).collect();
    std::fs::write(dir.path().join("0.jsonl"), text).unwrap();
    let test = r#"{"q": "this very sentence of exactly thirteen words is in the test set alas"}"#;
    std::fs::write(dir.path().join("test.jsonl"), test).unwrap();
    let mut plan = source("s0", "0.jsonl");
    change(&mut plan);
    let (corpus, mut summary) =
        Corpus::open(&[plan], tokenizer(), &options(dir.path(), &dir.path().join("cache")), &Quiet).unwrap();
    (corpus, summary.sources.remove(0))
}

fn texts(corpus: &Corpus) -> Vec<String> {
    let source = corpus.source("s0").unwrap();
    (0..source.train_documents())
        .map(|d| corpus.tokenizer().decode(&source.tokens(d)).unwrap().replace("<|endoftext|>", ""))
        .collect()
}

#[test]
fn where_keeps_what_passes() {
    use serde_json::json;
    let lines = [
        json!({"text": "short", "score": 5}),
        json!({"text": "a text that is long enough to pass", "score": 5}),
        json!({"text": "another text that is long enough", "score": 1}),
    ];
    let (corpus, summary) = open_lines(&lines, |p| p.filter = Some("score >= 3 and length >= 5".into()));
    assert_eq!(texts(&corpus), ["a text that is long enough to pass"]);
    assert_eq!((summary.dropped.filtered, summary.dropped.bad()), (2, 0));
}

/// Of tables, whose days were numbers once, and of JSON.
#[test]
fn days_and_moments_are_an_order() {
    use serde_json::json;
    let days = ["2025-01-01", "2020-05-01T12:00:00Z", "2020-05-01 11:30:00.5", "soon"];
    let lines: Vec<_> = days.iter().map(|day| json!({"text": day, "day": day})).collect();
    let (corpus, _) = open_lines(&lines, |p| p.order = "ascending(day)".into());
    let source = corpus.source("s0").unwrap();
    let length = (0..4).map(|d| source.length(d)).sum();
    let (batches, _) = run(&stage("a", &[("s0", 1.0)], (1, 1, length)), &corpus, SamplerState::default());
    let text = corpus.tokenizer().decode(&batches[0].tokens).unwrap();
    let expect = [days[2], days[1], days[0], days[3]].map(|day| format!("{day}<|endoftext|>")).concat();
    assert_eq!(text, expect);
}

#[test]
fn exclude_drops_what_is_in_the_test_set_and_says_where() {
    use serde_json::json;
    let lines = [
        json!({"text": "Quote: This very sentence, of exactly thirteen words, is in the test set alas!"}),
        json!({"text": "This very sentence is not."}),
    ];
    let (corpus, summary) = open_lines(&lines, |p| p.exclude = vec!["test.jsonl".into()]);
    assert_eq!(texts(&corpus), ["This very sentence is not."]);
    assert_eq!(summary.dropped.excluded, 1);
    let example = &summary.examples[0];
    assert!(example.record == 1 && example.what.contains("test.jsonl`, record 1"), "{example:?}");
}

#[test]
fn loss_is_taken_on_the_named_fields_only() {
    use serde_json::json;
    let chat = json!({"messages": [{"role": "user", "content": "what is one and one"},
        {"role": "assistant", "content": "it is two"}, {"role": "user", "content": "thanks"}]});
    let asked = json!({"q": "the question", "a": "the answer"});
    for (line, text, loss_on, expect) in [
        (chat, None, "assistant", "it is two<|im_end|>\n"),
        (asked.clone(), Some("{q} = {a}"), "a", " the answer<|endoftext|>"),
        (asked, Some("{q} = {a}"), "q", " question"),
    ] {
        let (corpus, _) = open_lines(&[line], |p| {
            p.loss_on = vec![loss_on.into()];
            p.text = text.map(str::to_owned);
        });
        let length = corpus.source("s0").unwrap().length(0);
        let (batches, _) = run(&stage("a", &[("s0", 1.0)], (1, 1, length)), &corpus, SamplerState::default());
        let predicted: Vec<u32> = batches[0].targets.iter().copied().filter(|t| *t != IGNORE).collect();
        assert_eq!(corpus.tokenizer().decode(&predicted).unwrap(), expect);
    }
}

/// As transformers would tokenise it: with the token that the post-processor puts first, once, and none in a dialogue that
/// a template writes.
#[test]
fn documents_begin_as_the_tokenizer_has_it() {
    use serde_json::json;
    let bytes = std::fs::read("examples/data/tokenizer.json").unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let begin = "<|fim_prefix|>";
    json["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": begin, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {begin: {"id": begin, "ids": [tokenizer().id(begin).unwrap()], "tokens": [begin]}},
    });
    let template = json!({"chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"});
    let opening = TextTokenizer::from_json(Path::new("t.json"), json.to_string().as_bytes(), None).unwrap();
    let opening = opening.with_chat_template(&template, None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let lines = [
        json!({"text": "one"}),
        json!({"text": format!("{begin}two")}),
        json!({"messages": [{"role": "user", "content": "three"}]}),
        json!({"q": "four", "a": "five"}),
    ];
    let text: String = lines.iter().map(|l| format!("{l}\n")).collect();
    std::fs::write(dir.path().join("0.jsonl"), text).unwrap();
    let asked =
        SourcePlan { text: Some("{q} {a}".into()), loss_on: vec!["a".into()], ..source("s1", "0.jsonl") };
    let plans = [SourcePlan { order: "as_written".into(), ..source("s0", "0.jsonl") }, asked];
    let cache = dir.path().join("cache");
    let open = |tokenizer: &TextTokenizer| {
        let skip = OpenOptions { on_bad: OnBad::Skip, ..options(dir.path(), &cache) };
        Corpus::open(&plans, tokenizer.clone(), &skip, &Quiet).unwrap()
    };
    let texts = |(corpus, _): &(Corpus, Summary), name: &str| -> Vec<String> {
        let source = corpus.source(name).unwrap();
        (0..source.train_documents()).map(|d| corpus.tokenizer().decode(&source.tokens(d)).unwrap()).collect()
    };
    let (bare, with) = (open(&tokenizer()), open(&opening));
    assert_eq!(texts(&bare, "s0")[0], "one<|endoftext|>");
    let end = "<|endoftext|>";
    assert_eq!(
        texts(&with, "s0"),
        [format!("{begin}one{end}"), format!("{begin}two{end}"), format!("three{end}")]
    );
    assert_eq!(texts(&with, "s1"), [format!("{begin}four five{end}")]);
    assert_eq!(with.1.sources[1].tokens, bare.1.sources[1].tokens + 1);
    assert_eq!(with.1.sources[1].loss_tokens, bare.1.sources[1].loss_tokens);
}

#[test]
fn what_no_record_has_is_refused() {
    use serde_json::json;
    let dir = tempfile::tempdir().unwrap();
    let lines =
        [json!({"q": "the question", "a": "the answer", "level": 1}), json!({"q": "another", "a": "two"})];
    let text: String = lines.iter().map(|l| format!("{l}\n")).collect();
    std::fs::write(dir.path().join("0.jsonl"), text).unwrap();
    let open = |change: &dyn Fn(&mut SourcePlan)| {
        let mut plan = source("s0", "0.jsonl");
        plan.text = Some("{q} = {a}".into());
        change(&mut plan);
        Corpus::open(&[plan], tokenizer(), &options(dir.path(), &dir.path().join("cache")), &Quiet)
            .map(|(_, summary)| (summary.sources[0].loss_tokens, summary.sources[0].tokens))
    };
    let refused = |change: &dyn Fn(&mut SourcePlan)| open(change).unwrap_err().to_string();
    let masked = refused(&|p| p.loss_on = vec!["answer".into()]);
    assert!(masked.contains("`loss_on = answer` is in none of its records"), "{masked}");
    let order = refused(&|p| p.order = "descending(difficulty)".into());
    assert!(
        order.contains("`order = descending(difficulty)` sorts by a field in which no record"),
        "{order}"
    );
    // One record that has it is enough.
    let (with_loss, tokens) = open(&|p| p.loss_on = vec!["answer".into(), "a".into()]).unwrap();
    let (all, _) = open(&|p| p.order = "ascending(level)".into()).unwrap();
    assert!(
        with_loss.is_some_and(|n| 0 < n && n < tokens) && all.is_none(),
        "{with_loss:?} of {tokens}, {all:?}"
    );
}

#[test]
fn some_documents_are_to_be_filled_in() {
    let lines: Vec<_> =
        (0..40).map(|i| serde_json::json!({"text": format!("fn f{i}() {{ {i} }}")})).collect();
    let (corpus, _) = open_lines(&lines, |p| p.fim = Some(FimPlan { rate: 0.5, style: "psm".into() }));
    let marked = texts(&corpus).iter().filter(|t| t.starts_with("<|fim_prefix|>")).count();
    assert!((8..32).contains(&marked), "{marked}");
}
