//! Figures and graphs of plans against golden files (`BLESS=1 cargo test --test plot` rewrites
//! them; look at the pictures before committing), and their robustness.

mod plans;
mod report;
mod runs;

use std::path::Path;

use midc::plan::Plan;
use midc::plot;

fn golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/plot").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, found).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    if expected != found {
        let line = expected.lines().zip(found.lines()).position(|(a, b)| a != b);
        let line = line.unwrap_or_else(|| expected.lines().count().min(found.lines().count()));
        panic!(
            "{name} differs from line {} on:\n- {}\n+ {}\nBLESS=1 accepts it",
            line + 1,
            expected.lines().nth(line).unwrap_or_default(),
            found.lines().nth(line).unwrap_or_default()
        );
    }
}

fn published() -> [Plan; 4] {
    [plans::one_stage(), plans::deepseek_v3(), plans::smollm2(), plans::olmo2()]
}

#[test]
fn figures_are_golden() {
    for plan in published() {
        golden(&format!("{}.svg", plan.curriculum), &plot::plan_svg(&plan));
    }
}

#[test]
fn graphs_are_golden() {
    for plan in [plans::smollm2(), plans::olmo2(), plans::hostile()] {
        let name = if plan.curriculum.starts_with('<') { "hostile" } else { &plan.curriculum };
        golden(&format!("{name}.mmd"), &plot::mermaid(&plan));
        golden(&format!("{name}.dot"), &plot::dot(&plan));
    }
}

/// Elements closed in the order they were opened, attributes quoted, no stray `<` or `&`.
fn assert_well_formed(svg: &str) {
    let mut open: Vec<&str> = Vec::new();
    for piece in svg.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').expect("a tag ends");
        assert!(!text.contains('>') || open.last() == Some(&"style"), "stray > in {text:?}");
        for entity in text.split('&').skip(1) {
            assert!(entity.split_once(';').is_some_and(|(e, _)| e.len() <= 5), "stray & in {text:?}");
        }
        let name = tag.split([' ', '\n', '/']).find(|n| !n.is_empty()).unwrap_or_default();
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "{tag}");
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
    // As words of their own: a source may well be called infiwebmath.
    let words = || svg.split(|c: char| !c.is_alphanumeric());
    assert!(!words().any(|w| w == "NaN" || w == "inf"), "numbers are numbers");
}

#[test]
fn any_plan_gives_a_well_formed_figure_of_bounded_size() {
    let mut plans = published().to_vec();
    plans.extend([
        plans::wide(1, 3),
        plans::wide(25, 60),
        plans::wide(20, 12),
        plans::many(500),
        plans::bush(50),
        plans::hostile(),
    ]);
    plans.push(plans::plan("nothing", Vec::new(), Vec::new()));
    for plan in plans {
        let svg = plot::plan_svg(&plan);
        assert_well_formed(&svg);
        assert!(svg.len() < 600_000, "{}: {} bytes", plan.curriculum, svg.len());
        for bad in ["<script", "<img", "onload=x>"] {
            assert!(!svg.contains(bad), "{bad} in {}", plan.curriculum);
        }
        if let Some(dir) = std::env::var_os("MIDC_PICTURES") {
            let name: String = plan.curriculum.chars().filter(|c| c.is_alphanumeric()).take(12).collect();
            let path = Path::new(&dir).join(format!("{name}-{}.svg", plan.sources.len()));
            std::fs::write(path, svg).unwrap();
        }
    }
}

#[test]
fn damaged_plans_draw_what_they_can() {
    let mut plan = plans::smollm2();
    plan.stages[0].lr.curve.segments.clear();
    plan.stages[1].phases.clear();
    plan.stages[1].context.clear();
    plan.stages[2].mix[0].weight.terms[0].coefficient = f64::NAN;
    plan.stages[3].tokens = u64::MAX;
    plan.stages[4].from = "nowhere.at_all".into();
    plan.stages[4].tokens = 0;
    assert_well_formed(&plot::plan_svg(&plan));
    for stage in &mut plan.stages {
        stage.tokens = 0;
        stage.phases.clear();
        stage.mix.clear();
    }
    assert_well_formed(&plot::plan_svg(&plan));
}

/// Every published recipe and the quickstart: drawn through the command line, and as a graph.
#[test]
fn examples_are_drawn_from_the_command_line() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut files: Vec<_> = std::fs::read_dir(examples.join("recipes"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "curriculum"))
        .collect();
    files.push(examples.join("quickstart.curriculum"));
    assert!(files.len() > 15);
    let dir = match std::env::var_os("MIDC_PICTURES") {
        Some(kept) => std::path::PathBuf::from(kept),
        None => tempfile::tempdir().unwrap().keep(),
    };
    let midc = |args: &[&std::ffi::OsStr]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_midc")).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    for file in files {
        let svg = dir.join(file.file_stem().unwrap()).with_extension("recipe.svg");
        let printed = midc(&["plan".as_ref(), file.as_ref(), "--svg".as_ref(), svg.as_ref()]);
        assert_eq!(printed, "", "the figure alone was asked for");
        let text = std::fs::read_to_string(&svg).unwrap();
        assert_well_formed(&text);
        assert!(text.len() < 200_000, "{}: {} bytes", file.display(), text.len());
        let json = dir.join(file.file_stem().unwrap()).with_extension("json");
        midc(&["plan".as_ref(), file.as_ref(), "-o".as_ref(), json.as_ref()]);
        let graph = midc(&["graph".as_ref(), file.as_ref()]);
        assert!(graph.starts_with("flowchart LR\n  n0[("), "{graph}");
        assert_eq!(graph, midc(&["graph".as_ref(), json.as_ref()]), "from the plan as from the curriculum");
        assert!(
            midc(&["graph".as_ref(), json.as_ref(), "--format".as_ref(), "dot".as_ref()])
                .starts_with("digraph")
        );
    }
    if std::env::var_os("MIDC_PICTURES").is_none() {
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
