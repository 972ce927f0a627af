//! A run as one HTML page without any reference outside itself: tables written here, charts drawn
//! by `page.js` from the data in the page, the plan's figure inline.

mod data;
mod gates;
mod history;
mod tables;

pub use history::{History, Measurement, Step};

use crate::plan::Plan;
use crate::plot::figure::plan_svg;
use crate::plot::svg::escape;

/// Lines of the log that are shown.
const LOG_LINES: usize = 400;

/// The page of a run of `plan`.
pub fn report_html(plan: &Plan, history: &History) -> String {
    let title = escape(&plan.curriculum);
    let mut body = String::new();
    body.push_str(&tables::summary(plan, history));
    body.push_str(&tables::oddities(&history.oddities()));
    if history.stages.iter().any(|s| s.done > 0) {
        body.push_str(CHARTS);
    }
    body.push_str("<div class=\"tables\">\n");
    body.push_str(&tables::stages(plan, history));
    body.push_str(&tables::gates(plan, history));
    body.push_str(&tables::heldout(plan, history));
    body.push_str(&tables::needles(plan, history));
    body.push_str(&tables::positions(plan, history));
    body.push_str(&tables::choices(plan, history));
    body.push_str(&tables::mixtures(plan, history));
    body.push_str("</div>\n");
    body.push_str(&section(
        "plan",
        "Plan",
        &format!("<div class=\"wide figure\">{}</div>{}", plan_svg(plan), tables::plan(plan)),
    ));
    body.push_str(&log(&history.log));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}: run report</title>\n<style>\n{}</style>\n</head>\n<body>\n\
         <header><h1>{title}</h1><p class=\"mute\">Run report by midc {} · plan {}</p></header>\n<main>\n{body}</main>\n\
         <script type=\"application/json\" id=\"data\">{}</script>\n<script>\n{}</script>\n</body>\n</html>\n",
        include_str!("page.css"),
        env!("CARGO_PKG_VERSION"),
        escape(&plan.hash.chars().take(19).collect::<String>()),
        data::script(plan, history),
        include_str!("page.js"),
    )
}

/// Filled in by the script.
const CHARTS: &str = "<section id=\"curves\" aria-label=\"curves\">\n<div class=\"bar\"><h2>Curves</h2>\
    <label>show <select id=\"range\"></select></label>\
    <label><input type=\"checkbox\" id=\"smooth\" checked> smooth</label></div>\n\
    <noscript><p>The curves are drawn by the script of this page; the tables below need none.</p></noscript>\n\
    <div id=\"charts\"></div>\n<p class=\"mute small\" id=\"resolution\"></p>\n</section>\n";

/// A section with its heading.
fn section(id: &str, heading: &str, content: &str) -> String {
    format!("<section id=\"{id}\"><h2>{heading}</h2>\n{content}</section>\n")
}

fn log(lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let from = lines.len().saturating_sub(LOG_LINES);
    let cut = if from > 0 {
        format!("<p class=\"mute small\">The last {LOG_LINES} of {} lines.</p>", lines.len())
    } else {
        String::new()
    };
    let text = escape(&lines[from..].join("\n"));
    section("log", "Log", &format!("{cut}<pre tabindex=\"0\">{text}</pre>"))
}
