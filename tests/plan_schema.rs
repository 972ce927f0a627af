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
