//! Pictures and pages: a plan as an SVG figure or a graph, a run as an HTML report. Text out, no
//! files: reads neither disk nor clock, and knows nothing of the syntax tree or the runtime.

mod axis;
mod figure;
mod graph;
mod lanes;
mod number;
mod palette;
mod report;
mod sample;
mod svg;

pub use figure::plan_svg;
pub use graph::{dot, mermaid};
pub use report::{History, Measurement, Step, report_html};
