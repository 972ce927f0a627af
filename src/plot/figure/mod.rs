//! A plan as one SVG figure: stages, learning rate, batch, context, mixture and marks over one
//! token axis. Meant for a page of a paper or a README: 760 units are 170 mm, 11 units are 7 pt.
//!
//! Own SVG rather than plotters: its backend writes neither classes (so no dark theme), nor hover
//! titles, nor patterns, nor an axis with breaks, and those are most of this figure. What it does
//! bring, axes with ticks, is a page of code here.

mod curves;
mod marks;
mod mixture;

pub(crate) use mixture::{Look, looks};

use std::collections::BTreeMap;

use crate::plan::Plan;
use crate::plot::axis::Axis;
use crate::plot::lanes::Lanes;
use crate::plot::number;
use crate::plot::svg::{Anchor, Svg, escape, fit, n, text_width};

pub(crate) const WIDTH: f64 = 760.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 740.0;
const SMALL: f64 = 11.0;
const BODY: f64 = 12.0;
/// Branches past these are counted, not drawn.
const LANES_SHOWN: usize = 6;
/// With more stage edges than this, round token positions are marked instead.
const EDGES_TOLD: usize = 60;

/// The figure of a plan, a complete SVG document.
pub fn plan_svg(plan: &Plan) -> String {
    Figure::new(plan).draw()
}

struct Figure<'a> {
    plan: &'a Plan,
    lanes: Lanes<'a>,
    axis: Axis,
    /// Under everything: grids.
    back: Svg,
    front: Svg,
    /// Where the next panel begins.
    y: f64,
    /// Vertical extents of the panels that stage edges run through.
    panels: Vec<(f64, f64)>,
}

impl<'a> Figure<'a> {
    fn new(plan: &'a Plan) -> Self {
        let lanes = Lanes::new(plan);
        let edges = lanes.legs.iter().filter(|l| l.lane < LANES_SHOWN).flat_map(|l| [l.start, l.end()]);
        let axis = Axis::new(edges, LEFT, RIGHT);
        Self { plan, lanes, axis, back: Svg::default(), front: Svg::default(), y: 0.0, panels: Vec::new() }
    }

    fn draw(mut self) -> String {
        self.header();
        if self.lanes.legs.is_empty() {
            self.y += 20.0;
            self.front.text("mc-s mc-mute", (LEFT, self.y), Anchor::Start, "no stages");
            self.y += 14.0;
        } else {
            self.strip();
            self.learning_rate();
            self.batch();
            self.context();
            self.mixtures();
            self.marks();
            self.token_axis();
            self.legend();
            self.notes();
            self.edges();
        }
        let height = self.y + 6.0;
        let title = escape(&format!("Plan of {}", self.plan.curriculum));
        let (w, h) = (n(WIDTH), n(height));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"mc-plan\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" \
             height=\"{h}\" role=\"img\" aria-label=\"{title}\">\n<title>{title}</title>\n<style>{}</style>\n{}\
             <rect class=\"mc-bg\" width=\"{w}\" height=\"{h}\"/>\n{}{}</svg>\n",
            include_str!("figure.css"),
            mixture::PATTERNS,
            self.back.into_body(),
            self.front.into_body(),
        )
    }

    /// Name, totals and where it starts from.
    fn header(&mut self) {
        let plan = self.plan;
        self.y = 22.0;
        let title = fit(&plan.curriculum, 18.5, WIDTH - 2.0 * 12.0).unwrap_or_default();
        self.front.text("mc-t mc-ink", (12.0, self.y), Anchor::Start, &title);
        let stages = match plan.stages.len() {
            1 => "1 stage".to_owned(),
            many => format!("{many} stages"),
        };
        let mut facts = vec![
            format!("{} tokens", number::tokens(plan.totals.tokens as f64)),
            format!("{} steps", number::tokens(plan.totals.steps as f64)),
            stages,
        ];
        facts.extend(plan.totals.flops.map(|f| format!("{} FLOPs", number::rate(f))));
        let seen = plan.models.iter().filter_map(|m| Some((m, m.seen_tokens?))).next();
        if let Some((model, seen)) = seen {
            facts.push(format!("from {} at {} tokens", model.name, number::tokens(seen as f64)));
        }
        self.y += 17.0;
        let facts = fit(&facts.join(" · "), SMALL, WIDTH - 24.0).unwrap_or_default();
        self.front.text("mc-s mc-mute", (12.0, self.y), Anchor::Start, &facts);
        self.y += 12.0;
    }

    /// The stages as boxes, a row for each lane.
    fn strip(&mut self) {
        const ROW: f64 = 21.0;
        let top = self.y;
        for leg in self.lanes.legs.iter().filter(|l| l.lane < LANES_SHOWN) {
            let stage = leg.stage();
            let (x0, x1) = (self.axis.x(leg.start), self.axis.x(leg.end()));
            let y = top + leg.lane as f64 * (ROW + 4.0);
            if let Some(from) = leg.branches_from.and_then(|f| self.lanes.legs.get(f))
                && from.lane < leg.lane
            {
                let above = top + from.lane as f64 * (ROW + 4.0) + ROW;
                self.front.line(&format!("mc-branch mc-c{}", leg.lane % 4), (x0, above), (x0, y + ROW / 2.0));
            }
            self.front.open(&hover(leg));
            let class = format!("mc-leg mc-c{}", leg.lane % 4);
            let (gap, class) = if x1 - x0 > 4.0 { (0.75, class) } else { (0.0, class + " mc-thin") };
            self.front.rect(&class, [x0 + gap, y, x1 - x0 - 2.0 * gap, ROW], " rx=\"3\"");
            let assumed = stage.assumed.iter().any(|a| a == "tokens" || a == "steps");
            let length = format!("{}{}", if assumed { "≈" } else { "" }, number::tokens(stage.tokens as f64));
            let name = leg.name();
            let room = x1 - x0 - 6.0;
            let long = format!("{name} · {length}");
            let whole = [(long, "mc-b", BODY), (name.clone(), "mc-b", BODY), (name.clone(), "mc-s", SMALL)];
            let whole = whole.into_iter().find(|(text, _, size)| text_width(text, *size) <= room);
            let cut = || fit(&name, SMALL, room).map(|text| (text, "mc-s", SMALL));
            if let Some((text, class, _)) = whole.or_else(cut) {
                let class = format!("{class} mc-ink");
                self.front.text(&class, ((x0 + x1) / 2.0, y + 15.0), Anchor::Middle, &text);
            }
            self.front.close();
        }
        // What goes into a soup is led to where it is taken.
        for soup in &self.lanes.soups {
            let x = self.axis.x(soup.at);
            let mut rows = Vec::new();
            for leg in soup.legs.iter().filter_map(|l| self.lanes.legs.get(*l)) {
                if leg.lane < LANES_SHOWN {
                    let y = top + leg.lane as f64 * (ROW + 4.0) + ROW / 2.0;
                    let class = format!("mc-branch mc-c{}", leg.lane % 4);
                    self.back.line(&class, (self.axis.x(leg.end().min(soup.at)), y), (x, y));
                    rows.push(y);
                }
            }
            rows.sort_by(f64::total_cmp);
            if let [first, .., last] = rows.as_slice() {
                self.front.line("mc-branch mc-c0", (x, *first), (x, *last));
            }
        }
        self.y = top + self.lanes.count.min(LANES_SHOWN) as f64 * (ROW + 4.0);
        self.panels.push((top, self.y - 4.0));
        self.y += 4.0;
    }

    /// Start a panel of `height` with a name; gives its top and bottom.
    fn panel(&mut self, name: &str, height: f64) -> (f64, f64) {
        self.y += 19.0;
        let name = fit(name, SMALL, RIGHT - LEFT).unwrap_or_default();
        self.front.text("mc-s mc-name", (LEFT, self.y), Anchor::Start, &name);
        self.y += 5.0;
        let top = self.y;
        self.y += height;
        self.panels.push((top, self.y));
        (top, self.y)
    }

    /// A horizontal grid line with its value.
    fn grid(&mut self, y: f64, value: &str) {
        self.back.line("mc-grid", (LEFT, y), (RIGHT, y));
        self.front.text("mc-s mc-mute", (LEFT - 6.0, y + 3.8), Anchor::End, value);
    }

    /// Token positions: stage edges first, then round numbers where there is room.
    fn token_axis(&mut self) {
        self.y += 4.0;
        let y = self.y;
        self.back.line("mc-axis", (LEFT, y), (RIGHT, y));
        for (a, b) in self.axis.stretched() {
            let x = (a + b) / 2.0;
            for x in [x - 2.5, x + 2.5] {
                self.front.line("mc-break", (x - 2.0, y + 4.5), (x + 2.0, y - 4.5));
            }
        }
        let knots = self.axis.knots().to_vec();
        let edges = knots.len() - 1;
        let mut order: Vec<usize> = vec![0, edges];
        if edges <= EDGES_TOLD {
            order.extend(1..edges);
        }
        let mut marks: Vec<(u64, bool)> = order.into_iter().map(|i| (knots[i].0, true)).collect();
        marks.extend(self.axis.ticks(90.0, edges > EDGES_TOLD).into_iter().map(|t| (t, false)));
        let positions: Vec<u64> = marks.iter().filter(|m| m.1).map(|m| m.0).collect();
        let told: BTreeMap<u64, String> =
            positions.iter().copied().zip(number::telling(&positions)).collect();
        let mut taken: Vec<(f64, f64)> = Vec::new();
        for (tokens, edge) in marks {
            let x = self.axis.x(tokens);
            let text = told.get(&tokens).cloned().unwrap_or_else(|| number::tokens(tokens as f64));
            let half = text_width(&text, SMALL) / 2.0 + 3.0;
            if taken.iter().any(|(a, b)| x + half > *a && x - half < *b) {
                if edge {
                    self.front.line("mc-axis", (x, y), (x, y + 4.0));
                }
                continue;
            }
            taken.push((x - half, x + half));
            self.front.line("mc-axis", (x, y), (x, y + 5.0));
            let inside = x.min(WIDTH - 1.0 - half);
            self.front.text("mc-s mc-ink", (inside, y + 16.0), Anchor::Middle, &text);
        }
        self.front.text("mc-s mc-mute", (LEFT - 14.0, y + 16.0), Anchor::End, "tokens");
        self.y += 22.0;
    }

    /// What the marks of the figure mean, where it has them.
    fn notes(&mut self) {
        let shown = || self.lanes.legs.iter().filter(|l| l.lane < LANES_SHOWN);
        let mut notes = Vec::new();
        let drawn = ["tokens", "steps", "lr", "batch", "batch_tokens", "context", "rope", "mix"];
        let assumed = |a: &String| drawn.contains(&a.split('.').next().unwrap_or_default());
        if shown().any(|l| l.stage().assumed.iter().any(assumed)) {
            notes.push("Dashed lines and ≈: assumed, not published.".to_owned());
        }
        if self.axis.stretched().next().is_some() {
            notes.push(
                "A double slash on the token axis: drawn wider than its share of the tokens.".to_owned(),
            );
        }
        let fans = shown().filter(|l| l.stages.len() > 1).count();
        if fans > 0 {
            notes.push("×N: stages that differ in their seeds only.".to_owned());
        }
        if self.lanes.count > LANES_SHOWN {
            let hidden: usize =
                self.lanes.legs.iter().filter(|l| l.lane >= LANES_SHOWN).map(|l| l.stages.len()).sum();
            notes.push(format!("{hidden} further stages on other branches are not drawn."));
        }
        if notes.is_empty() {
            return;
        }
        self.y += 8.0;
        let mut line = String::new();
        for note in notes {
            let longer = if line.is_empty() { note.clone() } else { format!("{line} {note}") };
            if text_width(&longer, SMALL) > WIDTH - 24.0 && !line.is_empty() {
                self.y += 14.0;
                self.front.text("mc-s mc-mute", (12.0, self.y), Anchor::Start, &line);
                line = note;
            } else {
                line = longer;
            }
        }
        self.y += 14.0;
        self.front.text("mc-s mc-mute", (12.0, self.y), Anchor::Start, &line);
    }

    /// Stage edges through all panels.
    fn edges(&mut self) {
        let (Some(first), Some(last)) = (self.panels.first(), self.panels.last()) else { return };
        let (top, bottom) = (first.0, last.1);
        let knots = self.axis.knots();
        // Hundreds of stages would make a grey wall.
        let stride = if knots.len() > EDGES_TOLD + 1 { knots.len() - 1 } else { 1 };
        for (_, x) in knots.iter().step_by(stride) {
            self.back.line("mc-edge", (*x, top), (*x, bottom));
        }
    }
}

/// Everything about a leg that the figure has no room for.
fn hover(leg: &crate::plot::lanes::Leg) -> String {
    let stage = leg.stage();
    let names: Vec<&str> = leg.stages.iter().take(20).map(|s| s.name.as_str()).collect();
    let mut text = format!(
        "{}\nfrom {}\n{} tokens in {} steps\nlearning rate {} → {}",
        names.join(", "),
        stage.from,
        number::tokens(stage.tokens as f64),
        stage.steps,
        number::rate(stage.lr.start),
        number::rate(stage.lr.end),
    );
    if !stage.assumed.is_empty() {
        text.push_str(&format!("\nassumed: {}", stage.assumed.join(", ")));
    }
    if !stage.inherited.is_empty() {
        text.push_str(&format!("\ninherited: {}", stage.inherited.join(", ")));
    }
    text
}

/// Labels of one panel that must cover neither each other nor, if they can help it, the lines.
#[derive(Default)]
struct Labels {
    taken: Vec<[f64; 4]>,
    lines: Vec<[(f64, f64); 2]>,
}

/// A text, where it stands, and how it is anchored there.
type Candidate<'a> = (&'a str, (f64, f64), Anchor);

impl Labels {
    /// Write the first of `candidates` that is free and inside the plot; one that crosses a line
    /// only if all do and `insist` holds.
    fn put(&mut self, svg: &mut Svg, class: &str, candidates: &[Candidate], insist: bool) -> bool {
        let area = |(text, (x, y), anchor): &Candidate| {
            let width = text_width(text, SMALL);
            let x0 = match anchor {
                Anchor::Start => *x,
                Anchor::Middle => x - width / 2.0,
                Anchor::End => x - width,
            };
            [x0, y - SMALL + 2.0, x0 + width, y + 2.0]
        };
        let free = |a: &[f64; 4]| {
            let hits = |t: &[f64; 4]| a[0] < t[2] && t[0] < a[2] && a[1] < t[3] && t[1] < a[3];
            a[0] >= LEFT - 2.0 && a[2] <= WIDTH - 4.0 && !self.taken.iter().any(hits)
        };
        let free: Vec<_> = candidates.iter().map(|c| (c, area(c))).filter(|(_, a)| free(a)).collect();
        let clear = free.iter().find(|(_, a)| !self.lines.iter().any(|l| crosses(l, a)));
        let Some((candidate, area)) = clear.or(if insist { free.first() } else { None }) else {
            return false;
        };
        self.taken.push(*area);
        svg.text(class, candidate.1, candidate.2, candidate.0);
        true
    }
}

/// Whether a line segment comes into a box (left, top, right, bottom), with a unit to spare.
fn crosses([a, b]: &[(f64, f64); 2], area: &[f64; 4]) -> bool {
    // Liang and Barsky: clip the parameter of the line to each side in turn.
    let (mut from, mut to) = (0.0f64, 1.0f64);
    let sides =
        [(a.0, b.0 - a.0, area[0] - 1.0, area[2] + 1.0), (a.1, b.1 - a.1, area[1] - 1.0, area[3] + 1.0)];
    for (start, delta, low, high) in sides {
        if delta.abs() < 1e-9 {
            if start < low || start > high {
                return false;
            }
            continue;
        }
        let (enter, leave) = ((low - start) / delta, (high - start) / delta);
        from = from.max(enter.min(leave));
        to = to.min(enter.max(leave));
    }
    from <= to
}
