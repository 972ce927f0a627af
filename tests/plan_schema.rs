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
