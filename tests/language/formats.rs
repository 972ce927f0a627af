//! The machine formats, by shape.

use midc::diag::render::{Format, render};
use midc::diag::{CODES, Diagnostic};
use midc::source::{Files, MemoryFiles};
use serde_json::Value;

use crate::support::check;

const TEXT: &str = "let é = 50e9T\nbudget {\n  tokens <= 1B\n  ## späte Notiz\n}\nstage s {\n";

fn found() -> (Vec<Diagnostic>, MemoryFiles) {
    let mut files = MemoryFiles::new();
    let text = TEXT.replace('é', "e").replace("50e9T", "\"é\" + 50e9T");
    let file = files.add("dir/a b.curriculum", text);
    let diagnostics = check(&mut files, file);
    (diagnostics, files)
}

#[test]
fn json_lines_have_the_published_shape() {
    let (diagnostics, files) = found();
    let out = render(Format::Json, &diagnostics, &files, false);
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, objects) = lines.split_last().unwrap();
    let errors = objects.iter().filter(|o| o["level"] == "error").count();
    assert_eq!(last["v"], 1);
    assert_eq!(last["summary"]["errors"], errors);
    assert_eq!(last["summary"]["warnings"], objects.len() - errors);
    assert_eq!(objects.len(), diagnostics.len());
    let first = &objects[0];
    assert_eq!(first["v"], 1);
    assert_eq!(first["code"], "E0103");
    assert_eq!(first["file"], "dir/a b.curriculum");
    // Bytes count bytes, columns count characters: `é` is two of the one and one of the other.
    let start = first["span"]["byte"][0].as_u64().unwrap();
    assert_eq!(first["span"]["start"]["line"], 1);
    assert_eq!(first["span"]["start"]["col"].as_u64().unwrap(), start);
    let text = files.text(midc::source::FileId(0));
    let end = first["span"]["byte"][1].as_u64().unwrap();
    assert_eq!(&text[start as usize..end as usize], "50e9T");
    for object in objects {
        for key in ["labels", "notes", "fixes"] {
            assert!(object[key].is_array(), "{key}");
        }
        for fix in object["fixes"].as_array().unwrap() {
            assert!(fix["title"].is_string());
            let known = ["machine-applicable", "maybe-incorrect", "has-placeholders"];
            assert!(known.contains(&fix["applicability"].as_str().unwrap()));
            assert!(fix["edits"][0]["byte"][1].is_u64() && fix["edits"][0]["text"].is_string());
        }
    }
    let orphan = objects.iter().find(|o| o["code"] == "E0012").unwrap();
    assert_eq!((orphan["lint"].as_str(), orphan["level"].as_str()), (Some("orphan_doc"), Some("warning")));
}

/// The schema is the official one, whole: "Static Analysis Results Format (SARIF) Version 2.1.0 JSON
/// Schema" of OASIS. Every code is written once with what its failing example draws, fixes included.
#[test]
fn sarif_is_valid_under_the_official_schema() {
    // One of its patterns has a bracket too many, which ECMAScript reads as itself and others refuse.
    let schema = include_str!("sarif-schema-2.1.0.json").replace("{2}]?$", r"{2}\\]?$");
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let valid = |log: &Value| {
        let errors: Vec<String> =
            validator.iter_errors(log).map(|e| format!("{e} at {}", e.instance_path())).collect();
        assert!(errors.is_empty(), "{errors:#?}");
    };
    let (diagnostics, files) = found();
    let log: Value = serde_json::from_str(&render(Format::Sarif, &diagnostics, &files, false)).unwrap();
    valid(&log);
    let run = &log["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    for result in run["results"].as_array().unwrap() {
        let rule = &rules[usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap()];
        assert_eq!(rule["id"], result["ruleId"]);
    }
    let uri = &run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"];
    assert_eq!(uri, "dir/a%20b.curriculum");
    let mut fixes = 0;
    for (name, text) in failing() {
        let (diagnostics, files) = named(&name, &text);
        let log: Value = serde_json::from_str(&render(Format::Sarif, &diagnostics, &files, false)).unwrap();
        valid(&log);
        let results = log["runs"][0]["results"].as_array().unwrap();
        assert_eq!(results.len(), diagnostics.len());
        fixes += results.iter().filter(|r| r["fixes"].is_array()).count();
    }
    assert!(fixes > 10, "{fixes}");
    // A log without results is one too.
    let (none, files) = named("empty.curriculum", "");
    valid(&serde_json::from_str(&render(Format::Sarif, &none, &files, false)).unwrap());
    // And the schema does refuse.
    let mut broken = log.clone();
    broken["runs"][0]["results"][0]["level"] = Value::from("fatal");
    assert!(!validator.is_valid(&broken));
}

/// The failing example of every page, in a file whose name needs escapes.
fn failing() -> Vec<(String, String)> {
    CODES
        .iter()
        .flat_map(|info| {
            let texts = crate::support::examples(info.page, "fail");
            texts.into_iter().map(move |text| (format!("a,b: 100%/{}.curriculum", info.code), text))
        })
        .collect()
}

fn named(name: &str, text: &str) -> (Vec<Diagnostic>, MemoryFiles) {
    let mut files = MemoryFiles::new();
    let file = files.add(name, text);
    let diagnostics = check(&mut files, file);
    (diagnostics, files)
}

/// Reads the commands as a runner does (properties end at `::` and are split at commas, then
/// unescaped) and finds what was said.
#[test]
fn github_annotations_say_what_the_diagnostic_says() {
    let unescape = |text: &str| {
        let text = text.replace("%3A", ":").replace("%2C", ",");
        text.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")
    };
    for (name, text) in failing() {
        let (diagnostics, files) = named(&name, &text);
        let out = render(Format::Github, &diagnostics, &files, false);
        assert_eq!(out.lines().count(), diagnostics.len());
        for (line, diagnostic) in out.lines().zip(&diagnostics) {
            let (command, message) = line[2..].split_once("::").unwrap();
            let (level, properties) = command.split_once(' ').unwrap();
            assert!(matches!(level, "error" | "warning"), "{line}");
            let properties: std::collections::BTreeMap<&str, String> = properties
                .split(',')
                .map(|p| p.split_once('=').unwrap())
                .map(|(key, value)| (key, unescape(value)))
                .collect();
            assert_eq!(properties["file"], name);
            assert!(properties["title"].starts_with(&diagnostic.code.to_string()));
            let message = unescape(message);
            assert_eq!(message.lines().next(), Some(diagnostic.message.as_str()));
            assert!(diagnostic.help.iter().all(|help| message.contains(help)), "{message}");
            let number = |key: &str| properties[key].parse::<usize>().unwrap();
            assert!(number("line") >= 1 && number("endLine") >= number("line"));
            assert!(number("line") <= text.lines().count() + 1);
            if let (Some(from), Some(to)) = (properties.get("col"), properties.get("endColumn")) {
                assert!(from.parse::<usize>().unwrap() <= to.parse::<usize>().unwrap());
            }
        }
    }
}

#[test]
fn text_survives_places_at_the_edges() {
    let mut files = MemoryFiles::new();
    for text in ["", "\n", "é", "let x = \"é", "{", "let x = (é\n\u{2028}", "a\r\nlet y = \u{0}\r\n"] {
        let file = files.add("t", text);
        for format in Format::ALL {
            render(format.0, &check(&mut files, file), &files, true);
        }
    }
    assert!(CODES.len() > 1);
}
