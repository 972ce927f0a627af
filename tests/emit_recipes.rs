//! Every recipe of the library either becomes a launch for OLMo-core or is told, at a place in its
//! file, what OLMo-core lacks.

mod common;

use std::process::Command;

/// What `midc emit` makes of every recipe: `launch`, or the fields it points at and why.
const EXPECTED: &[(&str, &str)] = &[
    ("apple_afm", "launch"),
    ("deepseek_v3", "batch that changes inside a stage"),
    ("hunyuan_large", "launch"),
    ("kimi_k2", "Muon; attention factor of its own beside YaRN"),
    ("llama3_405b", "context that changes inside a stage; fresh weights of another shape than OLMo; gate"),
    ("map_neo_7b", "launch"),
    ("mimo_7b", "batch that changes inside a stage; fresh weights of another shape than OLMo"),
    ("minicpm_2_4b", "fresh weights of another shape than OLMo"),
    ("nemotron4_340b", "batch that changes inside a stage"),
    ("olmo2_13b", "launch"),
    ("olmo2_1b", "launch"),
    ("olmo2_32b", "launch"),
    ("olmo2_7b", "launch"),
    ("olmo3_32b", "launch"),
    ("olmo3_7b", "launch"),
    ("pangu_pro_moe", "launch"),
    ("phi4", "fresh weights of another shape than OLMo"),
    ("qwen3", "fresh weights of another shape than OLMo"),
    ("reuse_dont_retrain", "launch"),
    ("smollm2_1_7b", "fresh weights of another shape than OLMo"),
    ("smollm3_3b", "fresh weights of another shape than OLMo"),
    ("yi_lightning", "batch that changes inside a stage"),
    ("zamba_7b", "launch"),
];

#[test]
fn recipes_launch_on_olmo_core_or_name_what_it_lacks() {
    let mut found = String::new();
    for path in common::curricula(&["examples/recipes"]) {
        let out = tempfile::tempdir().expect("a directory");
        let output = Command::new(env!("CARGO_BIN_EXE_midc"))
            .env("NO_COLOR", "1")
            .args(["emit", "olmo-core", "--quiet", "-o"])
            .arg(out.path())
            .arg(&path)
            .output()
            .expect("midc runs");
        let text = String::from_utf8_lossy(&output.stderr);
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let lacks: Vec<&str> =
            text.lines().filter(|l| l.starts_with("[E09") && l.contains("error")).collect();
        let launched = out.path().join("run.sh").is_file();
        assert_eq!(launched, output.status.success(), "{name}: {text}");
        assert_eq!(launched, lacks.is_empty(), "{name}: {text}");
        // Every message stands at a place in the file.
        let places = text.lines().filter(|l| l.contains(&format!("{name}.curriculum:"))).count();
        assert!(places >= lacks.len(), "{name}: {text}");
        if launched {
            let expected = std::fs::read_to_string(out.path().join("expected.json")).expect("written");
            let expected: serde_json::Value = serde_json::from_str(&expected).expect("JSON");
            assert_eq!(expected["engine"], "olmo-core");
        }
        let mut kinds: Vec<&str> = lacks.iter().filter_map(|l| l.split("has no ").nth(1)).collect();
        kinds.dedup();
        let what = if launched { "launch".to_owned() } else { kinds.join("; ") };
        found.push_str(&format!("    (\"{name}\", \"{what}\"),\n"));
    }
    let expected: String =
        EXPECTED.iter().map(|(name, what)| format!("    (\"{name}\", \"{what}\"),\n")).collect();
    assert_eq!(found, expected, "the table should be:\n{found}");
}
