//! Every plan of an example is valid under the schema that `midc plan --schema` publishes, and
//! reads back as the same plan.

mod common;

use midc::plan::{self, Plan};

#[test]
fn plans_validate_and_read_back() {
    let schema = Plan::schema();
    let validator = jsonschema::validator_for(&schema).expect("the published schema is a schema");
    let mut seen = 0;
    for path in common::curricula(&["examples", "examples/recipes"]) {
        let (curriculum, diagnostics) = common::check(&path);
        let Some(curriculum) = curriculum else { panic!("{}: {diagnostics:#?}", path.display()) };
        let plan = plan::build(&curriculum);
        let json = serde_json::to_value(&plan).expect("a plan is JSON");
        let errors: Vec<String> = validator.iter_errors(&json).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:#?}", path.display());
        let back: Plan = serde_json::from_value(json).expect("a plan reads back");
        assert_eq!(back, plan, "{}", path.display());
        assert_eq!(plan.hash, plan::hash(&plan));
        seen += 1;
    }
    assert!(seen >= 1);
}

/// `midc plan` tells the cost of a stage from the checker's architecture, a run its MFU from the plan's.
#[test]
fn the_plan_counts_the_flops_that_the_checker_counts() {
    let mut seen = 0;
    for path in common::curricula(&["examples", "examples/recipes"]) {
        let Some(curriculum) = common::check(&path).0 else { panic!("{}", path.display()) };
        let plan = plan::build(&curriculum);
        for (checked, stage) in curriculum.stages.iter().zip(&plan.stages) {
            let Some((model, _)) = plan.lineage(stage) else { panic!("{}", path.display()) };
            let (Some(told), Some(architecture)) = (checked.flops(), &model.init) else { continue };
            let drawn = stage.tokens + stage.overshoot_tokens;
            let ends = stage.phases.iter().skip(1).map(|p| p.tokens).chain([drawn]);
            let of_phase = |(p, end): (&plan::Phase, u64)| {
                architecture.train_flops_per_token(p.context) * (end - p.tokens) as f64
            };
            let counted: f64 = stage.phases.iter().zip(ends).map(of_phase).sum();
            assert!((told - counted).abs() <= 1e-12 * told, "{}: {told} {counted}", stage.name);
            seen += 1;
        }
    }
    assert!(seen >= 10, "{seen}");
}

/// Where a source runs out under a moving mixture, against a walk over the steps.
#[test]
fn sources_run_out_where_the_steps_read_them() {
    let text = "
        model fresh { init = llama(layers: 4, hidden: 256, heads: 8, ffn: 704, vocab: 4096), context = 1Ki }
        source a { tokens = 3M, kind = web, max_epochs = 2.5 }
        source b { tokens = 1.1M, kind = code, max_epochs = 4.5 }
        mix m { a = 60% then hold(over: 2M) then linear(to: 20%), b = rest }
        stage first {
          from = fresh, tokens = 5M, context = 1Ki, batch = 16 seqs, mix = m
          lr = 0 then linear(to: 1e-3, over: 20 steps) then hold, data_seed = 1
        }
        stage second {
          from = first, tokens = 3M, batch = 32 seqs
          lr = inherit then linear(to: 0), data_seed = 2
        }";
    let mut files = midc::source::MemoryFiles::new();
    let file = files.add("run.curriculum", text);
    let (curriculum, diagnostics) = midc::sema::check(&mut files, file, &midc::sema::Options::default());
    let Some(curriculum) = curriculum else { panic!("{diagnostics:#?}") };
    let plan = plan::build(&curriculum);
    let mut walked = Vec::new();
    for source in &plan.sources {
        let size = source.tokens.unwrap() as f64;
        let (mut drawn, mut through, mut exhausted) = (0.0, None, None);
        for stage in &plan.stages {
            let weight = &stage.mix.iter().find(|m| m.source == source.name).unwrap().weight;
            for step in 0..stage.steps {
                let (from, to) = (stage.step_point(step).tokens, stage.step_point(step + 1).tokens);
                let taken = weight.value(from) * (to - from) as f64;
                for (limit, place) in
                    [(size, &mut through), (size * source.max_epochs.unwrap(), &mut exhausted)]
                {
                    if place.is_none() && drawn + taken >= limit {
                        let at = from as f64 + (limit - drawn) / weight.value(from);
                        *place = Some((stage.name.clone(), at as u64));
                    }
                }
                drawn += taken;
            }
        }
        walked.push((source.name.as_str(), through, exhausted));
    }
    let mut compared = 0;
    for (told, (name, through, exhausted)) in plan::exhaustion(&plan).iter().zip(&walked) {
        assert_eq!(told.source, *name);
        for (told, walked) in [(&told.read_through, through), (&told.exhausted, exhausted)] {
            assert_eq!(told.is_some(), walked.is_some(), "{name}: {told:?} {walked:?}");
            let (Some(told), Some((stage, tokens))) = (told, walked) else { continue };
            assert_eq!(&told.stage, stage, "{name}");
            // Within a fifth of a step where the mixture moves, exact to rounding where it does not.
            let slack = if stage == "second" { 20 } else { 16 * 1024 / 5 };
            assert!(told.tokens.abs_diff(*tokens) <= slack, "{name}: {told:?} {tokens}");
            compared += 1;
        }
    }
    assert_eq!(compared, 3);
}
