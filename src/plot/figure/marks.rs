//! Rows of marks: checkpoints, measurements, gates, soups.

use super::{Figure, LANES_SHOWN, LEFT, Labels, SMALL};
use crate::plan::EvalPlan;
use crate::plot::lanes::Leg;
use crate::plot::svg::{Anchor, Svg, n};
use crate::plot::{number, sample};

const ROW: f64 = 17.0;

/// One mark on a row.
struct Mark {
    tokens: u64,
    lane: usize,
    shape: Shape,
    /// Written beside it when there is room.
    label: Option<String>,
    hover: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Tick,
    Dot,
    Ring,
    Diamond,
}

impl Shape {
    /// Least distance from the mark before, so that frequent ones read as marks and not as a bar.
    fn room(self) -> f64 {
        match self {
            Self::Tick | Self::Dot => 4.0,
            Self::Ring => 2.0,
            Self::Diamond => 0.0,
        }
    }
}

impl Figure<'_> {
    pub(super) fn marks(&mut self) {
        self.y += 8.0;
        let top = self.y;
        let rows = [
            ("checkpoints", self.each_leg(checkpoints)),
            (
                "held-out loss",
                self.each_leg(|leg| evals(leg, |e| e.heldout.is_some() || !e.sources.is_empty(), |_| None)),
            ),
            ("needle", self.each_leg(|leg| evals(leg, |e| !e.needle.is_empty(), needle_lengths))),
            ("choice tasks", self.each_leg(|leg| evals(leg, |e| e.choice.is_some(), |e| e.choice.clone()))),
            ("gates", self.each_leg(gates)),
            ("soups", self.soups()),
        ];
        for (name, marks) in rows {
            if !marks.is_empty() {
                self.row(name, marks);
            }
        }
        self.panels.push((top, self.y));
    }

    fn each_leg(&self, marks: impl Fn(&Leg) -> Vec<Mark>) -> Vec<Mark> {
        self.lanes.legs.iter().filter(|l| l.lane < LANES_SHOWN).flat_map(marks).collect()
    }

    fn soups(&self) -> Vec<Mark> {
        let mark = |soup: &crate::plot::lanes::Blending| Mark {
            tokens: soup.at,
            lane: 0,
            shape: Shape::Diamond,
            label: Some(format!("{} = {}", soup.name, soup.what)),
            hover: format!("soup {} = {}", soup.name, soup.what),
        };
        self.lanes.soups.iter().map(mark).collect()
    }

    fn row(&mut self, name: &str, mut marks: Vec<Mark>) {
        let y = self.y + ROW / 2.0;
        self.back.line("mc-grid", (LEFT, y), (super::RIGHT, y));
        self.front.text("mc-s mc-mute", (LEFT - 6.0, y + 3.8), Anchor::End, name);
        // Larger shapes over smaller ones; ticks are thinned first.
        marks.sort_by_key(|m| m.shape != Shape::Tick);
        let mut last = [f64::NEG_INFINITY; LANES_SHOWN];
        let mut labels = Labels::default();
        for mark in &marks {
            let x = self.axis.x(mark.tokens);
            let last = &mut last[mark.lane.min(LANES_SHOWN - 1)];
            if (x - *last).abs() < mark.shape.room() {
                continue;
            }
            *last = x;
            // Nothing is written over a mark of weight.
            if !matches!(mark.shape, Shape::Tick) {
                labels.taken.push([x - 4.0, y - 5.0, x + 4.0, y + 5.0]);
            }
        }
        let mut last = [f64::NEG_INFINITY; LANES_SHOWN];
        for mark in &marks {
            let x = self.axis.x(mark.tokens);
            let last = &mut last[mark.lane.min(LANES_SHOWN - 1)];
            if (x - *last).abs() < mark.shape.room() {
                continue;
            }
            *last = x;
            draw(&mut self.front, mark, (x, y));
        }
        for mark in &marks {
            let Some(text) = &mark.label else { continue };
            let x = self.axis.x(mark.tokens);
            let cut = crate::plot::svg::fit(text, SMALL, 240.0).unwrap_or_default();
            let class = format!("mc-s mc-halo mc-f{}", mark.lane % 4);
            let places = [
                (cut.as_str(), (x - 7.0, y + 3.8), Anchor::End),
                (cut.as_str(), (x + 7.0, y + 3.8), Anchor::Start),
            ];
            labels.put(&mut self.front, &class, &places, false);
        }
        self.y += ROW;
    }
}

fn draw(svg: &mut Svg, mark: &Mark, (x, y): (f64, f64)) {
    let lane = mark.lane % 4;
    svg.open(&mark.hover);
    match mark.shape {
        Shape::Tick => svg.line(&format!("mc-tick mc-c{lane}"), (x, y - 4.0), (x, y + 4.0)),
        Shape::Dot => {
            svg.raw(&format!("<circle class=\"mc-f{lane}\" cx=\"{}\" cy=\"{}\" r=\"2.2\"/>", n(x), n(y)));
        }
        Shape::Ring => svg.raw(&format!(
            "<circle class=\"mc-mark mc-hollow mc-c{lane}\" cx=\"{}\" cy=\"{}\" r=\"3.2\"/>",
            n(x),
            n(y)
        )),
        Shape::Diamond => svg.raw(&format!(
            "<path class=\"mc-f{lane}\" d=\"M{} {}l4.5 4.5l-4.5 4.5l-4.5 -4.5Z\"/>",
            n(x),
            n(y - 4.5)
        )),
    }
    svg.close();
}

/// Positions every `steps` steps, or `tokens` tokens, of a leg, at most as many as can be told apart.
fn every(leg: &Leg, steps: u64, tokens: Option<u64>) -> Vec<u64> {
    let stage = leg.stage();
    let count = match tokens {
        Some(tokens) => stage.tokens / tokens.max(1),
        None => stage.steps / steps.max(1),
    };
    let stride = (count / 400).max(1);
    let at = |i: u64| {
        let into = match tokens {
            Some(tokens) => i.saturating_mul(tokens),
            None => sample::tokens_after(stage, i.saturating_mul(steps)),
        };
        leg.start.saturating_add(into)
    };
    (1..=count).step_by(stride as usize).map(at).collect()
}

fn checkpoints(leg: &Leg) -> Vec<Mark> {
    let stage = leg.stage();
    let mut marks = Vec::new();
    if let Some(steps) = stage.save_every {
        let period = match stage.save_every_tokens {
            Some(tokens) => format!("{tokens} tokens"),
            None => format!("{steps} steps"),
        };
        marks.extend(every(leg, steps, stage.save_every_tokens).into_iter().map(|tokens| Mark {
            tokens,
            lane: leg.lane,
            shape: Shape::Tick,
            label: None,
            hover: format!("{}: every {period}", leg.name()),
        }));
    }
    marks.push(Mark {
        tokens: leg.end(),
        lane: leg.lane,
        shape: Shape::Ring,
        label: None,
        hover: format!("end of {}", leg.name()),
    });
    marks.extend(stage.checkpoints.iter().map(|c| Mark {
        tokens: leg.start.saturating_add(c.tokens),
        lane: leg.lane,
        shape: Shape::Diamond,
        label: Some(c.name.clone()),
        hover: format!(
            "{}.{} at {} tokens, step {}",
            leg.name(),
            c.name,
            number::tokens(c.tokens as f64),
            c.step
        ),
    }));
    marks
}

fn evals(
    leg: &Leg,
    wanted: impl Fn(&EvalPlan) -> bool,
    label: impl Fn(&EvalPlan) -> Option<String>,
) -> Vec<Mark> {
    let stage = leg.stage();
    let mut marks = Vec::new();
    for eval in stage.evals.iter().filter(|e| wanted(e)) {
        let mut at = eval.every_steps.map_or_else(Vec::new, |steps| every(leg, steps, eval.every_tokens));
        if at.last().is_none_or(|last| *last < leg.end()) {
            at.push(leg.end());
        }
        let label = label(eval);
        let hover = format!(
            "{} of {}{}",
            eval.name,
            leg.name(),
            label.as_ref().map_or(String::new(), |l| format!(": {l}"))
        );
        marks.extend(at.into_iter().enumerate().map(|(i, tokens)| Mark {
            tokens,
            lane: leg.lane,
            shape: Shape::Dot,
            label: if i == 0 { label.clone() } else { None },
            hover: hover.clone(),
        }));
    }
    marks
}

fn needle_lengths(eval: &EvalPlan) -> Option<String> {
    Some(eval.needle.iter().map(|l| number::length(*l)).collect::<Vec<_>>().join(", "))
}

fn gates(leg: &Leg) -> Vec<Mark> {
    let texts: Vec<&str> = leg.stage().gates.iter().map(|g| g.text.as_str()).collect();
    if texts.is_empty() {
        return Vec::new();
    }
    vec![Mark {
        tokens: leg.end(),
        lane: leg.lane,
        shape: Shape::Diamond,
        label: Some(texts.join(", ")),
        hover: format!("gate at the end of {}: {}", leg.name(), texts.join(", ")),
    }]
}
