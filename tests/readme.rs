//! The README's blocks are what the program really takes and prints.

use std::process::Command;

/// The bodies of the fenced blocks of `language`.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    text.match_indices(&fence)
        .map(|(at, _)| {
            let body = &text[at + fence.len()..];
            body.split("\n```").next().unwrap_or_default()
        })
        .collect()
}

fn midc(args: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_midc"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("NO_COLOR", "1")
        .args(args)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn commands_print_what_the_readme_says() {
    let readme = include_str!("../README.md");
    let blocks = blocks(readme, "text");
    assert!(blocks.len() >= 3);
    for block in blocks {
        let (command, said) = block.split_once('\n').unwrap();
        let args: Vec<&str> = command.strip_prefix("$ midc ").unwrap().split(' ').collect();
        assert_eq!(midc(&args).1.trim_end(), said.trim_end(), "{command}");
    }
}

#[test]
fn the_recipes_are_sound() {
    let dir = tempfile::tempdir().unwrap();
    let (readme, language) = (include_str!("../README.md"), include_str!("../docs/src/language.md"));
    let all: Vec<&str> = [readme, language].into_iter().flat_map(|page| blocks(page, "curriculum")).collect();
    assert_eq!(all.len(), 2);
    for block in all {
        let path = dir.path().join("readme.curriculum");
        std::fs::write(&path, block).unwrap();
        let (sound, said) =
            midc(&["check", &path.to_string_lossy(), "-D", "warnings", "-A", "missing_files"]);
        assert!(sound, "{said}");
    }
}
