//! A plan's models, stages and soups as a graph: Mermaid for Markdown pages, DOT for Graphviz.
//!
//! Every box is a node of its own, fan-outs included: `midc plan --svg` is the picture that folds
//! them. Node ids are made up (`n3`), so that no name can be taken for syntax.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::plan::{FromKind, Plan, StagePlan};
use crate::plot::number;

/// Kind of a node; each language has its own outline for it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Stage,
    Soup,
}

struct Node {
    kind: Kind,
    name: String,
    /// Second line.
    facts: String,
}

struct Edge {
    from: usize,
    to: usize,
    /// A checkpoint's name, a weight in a soup.
    label: Option<String>,
}

/// The graph in Mermaid's flowchart language.
pub fn mermaid(plan: &Plan) -> String {
    let (nodes, edges) = graph(plan);
    let mut out = String::from("flowchart LR\n");
    for (i, node) in nodes.iter().enumerate() {
        let text = format!("{}<br/>{}", mermaid_text(&node.name), mermaid_text(&node.facts));
        let (open, close) = match node.kind {
            Kind::Model => ("[(", ")]"),
            Kind::Stage => ("[", "]"),
            Kind::Soup => ("{{", "}}"),
        };
        let _ = writeln!(out, "  n{i}{open}\"{text}\"{close}");
    }
    for Edge { from, to, label } in edges {
        let label = label.map_or(String::new(), |l| format!("|\"{}\"|", mermaid_text(&l)));
        let _ = writeln!(out, "  n{from} -->{label} n{to}");
    }
    out
}

/// The graph in the DOT language.
pub fn dot(plan: &Plan) -> String {
    let (nodes, edges) = graph(plan);
    let mut out = format!(
        "digraph \"{}\" {{\n  rankdir=LR\n  node [fontname=\"Helvetica\", fontsize=11]\n  edge [fontname=\"Helvetica\", fontsize=10]\n",
        dot_text(&plan.curriculum)
    );
    for (i, node) in nodes.iter().enumerate() {
        let shape = match node.kind {
            Kind::Model => "cylinder",
            Kind::Stage => "box, style=rounded",
            Kind::Soup => "hexagon",
        };
        let (name, facts) = (dot_text(&node.name), dot_text(&node.facts));
        let _ = writeln!(out, "  n{i} [shape={shape}, label=\"{name}\\n{facts}\"]");
    }
    for Edge { from, to, label } in edges {
        let label = label.map_or(String::new(), |l| format!(" [label=\"{}\"]", dot_text(&l)));
        let _ = writeln!(out, "  n{from} -> n{to}{label}");
    }
    out.push_str("}\n");
    out
}

fn graph(plan: &Plan) -> (Vec<Node>, Vec<Edge>) {
    let mut nodes = Vec::new();
    let mut index: BTreeMap<(&str, bool), usize> = BTreeMap::new();
    for model in &plan.models {
        index.insert((&model.name, true), nodes.len());
        let seen = model.seen_tokens.map(|t| format!("{} tokens seen", number::tokens(t as f64)));
        let kind = if model.init.is_some() { "fresh weights" } else { "checkpoint" };
        let facts = seen.unwrap_or_else(|| kind.to_owned());
        nodes.push(Node { kind: Kind::Model, name: model.name.clone(), facts });
    }
    for stage in &plan.stages {
        index.insert((&stage.name, false), nodes.len());
        nodes.push(Node { kind: Kind::Stage, name: stage.name.clone(), facts: facts(stage) });
    }
    for soup in &plan.soups {
        index.insert((&soup.name, false), nodes.len());
        let facts = format!("{} of {}", soup.method, soup.ingredients.len());
        nodes.push(Node { kind: Kind::Soup, name: soup.name.clone(), facts });
    }
    // A stage or soup by its name, or a checkpoint by `stage.name`.
    let find = |name: &str| {
        let whole = index.get(&(name, false)).map(|i| (*i, None));
        whole.or_else(|| {
            let (stage, checkpoint) = name.rsplit_once('.')?;
            Some((*index.get(&(stage, false))?, Some(checkpoint.to_owned())))
        })
    };
    let mut edges = Vec::new();
    for stage in &plan.stages {
        let from = match stage.from_kind {
            FromKind::Model => index.get(&(stage.from.as_str(), true)).map(|i| (*i, None)),
            _ => find(&stage.from),
        };
        if let (Some((from, label)), Some(to)) = (from, index.get(&(stage.name.as_str(), false))) {
            edges.push(Edge { from, to: *to, label });
        }
    }
    for soup in &plan.soups {
        let uniform = soup.weights.windows(2).all(|w| (w[0] - w[1]).abs() < 1e-12);
        for (i, ingredient) in soup.ingredients.iter().enumerate() {
            if let (Some((from, checkpoint)), Some(to)) =
                (find(ingredient), index.get(&(soup.name.as_str(), false)))
            {
                let weight = soup.weights.get(i).filter(|_| !uniform).map(|w| number::percent(*w));
                let label = match (checkpoint, weight) {
                    (Some(checkpoint), Some(weight)) => Some(format!("{checkpoint} {weight}")),
                    (checkpoint, weight) => checkpoint.or(weight),
                };
                edges.push(Edge { from, to: *to, label });
            }
        }
    }
    (nodes, edges)
}

fn facts(stage: &StagePlan) -> String {
    let mut facts = vec![format!("{} tokens", number::tokens(stage.tokens as f64))];
    facts.extend(
        stage.context.iter().map(|c| c.value).max().map(|c| format!("context {}", number::length(c))),
    );
    if !stage.gates.is_empty() {
        facts.push(if stage.gates.len() == 1 {
            "1 gate".into()
        } else {
            format!("{} gates", stage.gates.len())
        });
    }
    facts.join(", ")
}

/// Mermaid takes entities written `#name;` inside quotes and nothing else there.
fn mermaid_text(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '#' | '"' | '<' | '>' | '&' | ';' | '`' => {
                let _ = write!(out, "#{};", u32::from(c));
            }
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

fn dot_text(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
