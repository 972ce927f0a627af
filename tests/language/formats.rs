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

#[test]
fn sarif_keeps_to_its_schema_where_it_matters() {
    let (diagnostics, files) = found();
    let log: Value = serde_json::from_str(&render(Format::Sarif, &diagnostics, &files, false)).unwrap();
    // The part of the published 2.1.0 schema that speaks of what we write; unknown keys are refused.
    let schema: Value = serde_json::from_str(include_str!("sarif-2.1.0-subset.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(&log).map(|e| format!("{e} at {}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let run = &log["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    for result in run["results"].as_array().unwrap() {
        let rule = &rules[usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap()];
        assert_eq!(rule["id"], result["ruleId"]);
    }
    let uri = &run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"];
    assert_eq!(uri, "dir/a%20b.curriculum");
}

#[test]
fn github_annotations_are_one_line_each() {
    let (diagnostics, files) = found();
    let out = render(Format::Github, &diagnostics, &files, false);
    assert_eq!(out.lines().count(), diagnostics.len());
    for line in out.lines() {
        assert!(
            line.starts_with("::error file=dir/a b.curriculum,line=") || line.starts_with("::warning "),
            "{line}"
        );
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
