//! What comes from outside the file: settings of parameters, counts of the data.

use std::process::{Command, Output};

use midc::diag::render::{Format, render};
use midc::diag::{Diagnostic, LintLevels};
use midc::sema::{self, Options, Setting};
use midc::source::MemoryFiles;

use crate::support::examples;

const TEXT: &str = "param total: tokens = 50B\nlet unused = total\n";

fn set(text: &str, settings: &[(&str, &str)]) -> String {
    let mut files = MemoryFiles::new();
    let file = files.add("test.curriculum", text);
    let set = settings.iter().map(|(name, value)| Setting::new(*name, *value)).collect();
    let (_, mut found) = sema::check(&mut files, file, &Options { set });
    LintLevels::default().apply(&mut found);
    found.retain(|d: &Diagnostic| d.lint.is_none());
    render(Format::Concise, &found, &files, false)
}

#[test]
fn settings_without_a_place_point_at_the_parameter() {
    assert_eq!(set(TEXT, &[("total", "10B")]), "");
    let found = set(TEXT, &[("total", "10Q")]);
    assert!(found.starts_with("test.curriculum:1:7: ") && found.contains("--set total=10Q"), "{found}");
    assert!(
        set(TEXT, &[("totl", "10B")]).contains("did you mean `total`?")
            || set(TEXT, &[("totl", "10B")]).contains("there is no parameter `totl`")
    );
}

fn midc(dir: &std::path::Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_midc")).current_dir(dir).args(args).output().expect("midc runs")
}

/// The diagnostics of a value from outside are those of the file: same codes, pointing at the value.
#[test]
fn settings_are_diagnosed_where_they_are_written() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("a.curriculum"), TEXT).expect("writable");
    std::fs::write(dir.path().join("p.txt"), "# a trial\ntotal = 50e9T\nnonsense\nbudget = 1B\n")
        .expect("writable");
    let check = |more: &[&str]| {
        let mut args = vec!["check", "a.curriculum", "--format", "concise", "-A", "unused_let"];
        args.extend(more);
        let output = midc(dir.path(), &args);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, found) = check(&["--params", "p.txt"]);
    assert_eq!(code, Some(1), "{found}");
    for start in ["p.txt:2:9: error[E0103]", "p.txt:3:1: error[E0805]", "p.txt:4:1: error[E0804]"] {
        assert!(found.lines().any(|line| line.starts_with(start)), "{start} in\n{found}");
    }
    assert_eq!(found.lines().count(), 3, "{found}");
    let (_, found) = check(&["--set", "total=1024 seqs"]);
    assert!(found.starts_with("<command line>:1:13: error[E0805]"), "{found}");
    let (_, found) = check(&["--set", "total=10 K"]);
    assert!(found.starts_with("<command line>:1:"), "{found}");
    assert_eq!(check(&["--set", "total=10B"]), (Some(0), String::new()));
    // A mistake in one setting leaves no default in its place and draws nothing else.
    let (_, json) = check(&["--set", "total=nowhere", "--format", "json"]);
    assert!(json.lines().count() <= 2, "{json}");
}

/// `midc data --save` leaves counts that decide what a `where` does not.
#[test]
fn counts_of_the_data_feed_the_lint() {
    let page = midc::diag::codes::find("context_starved").expect("a lint").page;
    let text =
        examples(page, "ok").remove(0).replace("= books where length >= 32Ki", "= books where score >= 3");
    let found = |counts: &str| {
        let mut files = MemoryFiles::new();
        let file = files.add("recipes/long.curriculum", text.as_str());
        files.add("recipes/long.data.json", counts);
        crate::support::check(&mut files, file)
            .iter()
            .filter_map(|d| d.lint.map(|_| d.message.clone()))
            .collect::<Vec<_>>()
    };
    // Lengths of 2^14 to 2^15 - 1 in class 15, of 2^15 to 2^16 - 1 in class 16.
    let counts = |short: u64, long: u64| {
        let mut classes = vec![0u64; 17];
        (classes[15], classes[16]) = (short, long);
        format!("{{\"sources\":[{{\"name\":\"long_books\",\"tokens_by_length\":{classes:?}}}]}}")
    };
    assert_eq!(found("no counts"), Vec::<String>::new());
    // 40% of the mix; a fifth of that is 8%, half of it 20%.
    assert_eq!(found(&counts(50, 50)), Vec::<String>::new());
    let starved = found(&counts(80, 20));
    assert_eq!(starved.len(), 1);
    assert!(starved[0].contains("at most 8% of its tokens from documents of 32Ki or more"), "{starved:?}");
}

/// Where it was measured how much is held out, passes count what is left, not what the share promises.
#[test]
fn what_was_held_out_decides_how_often_a_source_is_read() {
    let text = "model m { init = llama(layers: 1, hidden: 16, heads: 2, ffn: 32, vocab: 512), context = 64 }\n\
        source a { path = \"a\", max_epochs = 9.5 }\n\
        stage s {\n from = m, tokens = 64_000, batch = 4 seqs, mix = a, data_seed = 1, lr = 1e-3 then linear(to: 0)\n\
        \x20 eval h { loss = heldout 10% }\n}\n\
        assert a.epochs <= 9.5\n";
    let found = |share: &str| {
        let mut files = MemoryFiles::new();
        let file = files.add("run.curriculum", text);
        let count = "{\"name\":\"a\",\"tokens\":7000,\"heldout_tokens\":200}";
        files.add("run.data.json", format!("{{\"sources\":[{count}],\"heldout\":{share}}}"));
        let (curriculum, found) = midc::sema::check(&mut files, file, &midc::sema::Options::default());
        let plan = curriculum.map(|curriculum| midc::plan::build(&curriculum));
        let told = found.iter().filter(|d| d.lint == Some("budget_vs_source") || d.lint.is_none()).count();
        (plan, told)
    };
    let (plan, told) = found("0.1");
    let plan = plan.expect("sound");
    let epochs = 64_000.0 / 6_800.0;
    assert!((plan.sources[0].epochs.unwrap() - epochs).abs() < 1e-9, "{:?}", plan.sources[0].epochs);
    assert!((plan.stages[0].mix[0].epochs.unwrap() - epochs).abs() < 1e-9);
    let through = midc::plan::exhaustion(&plan)[0].read_through.clone().unwrap().tokens;
    assert!((6_800 - 1..=6_800 + 1).contains(&through), "{through}");
    assert_eq!(told, 0);
    // Measured with another share, or without a word of it: the share of this file is what is known.
    for other in ["0.2", "null"] {
        assert_eq!(found(other).1, 2, "{other}");
    }
}
