//! Panels of curves: learning rate, batch, context.

use super::{Figure, LANES_SHOWN, Labels};
use crate::plan::StagePlan;
use crate::plot::axis::round_up;
use crate::plot::svg::Anchor;
use crate::plot::{number, sample};

/// The vertical scale of a panel.
struct Scale {
    top: f64,
    bottom: f64,
    low: f64,
    high: f64,
}

impl Scale {
    fn y(&self, value: f64) -> f64 {
        let share = (value - self.low) / (self.high - self.low);
        self.bottom - (self.bottom - self.top) * if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// One leg's part of a panel.
struct Piece {
    lane: usize,
    assumed: bool,
    /// Lineage tokens and value.
    points: Vec<(u64, f64)>,
    /// Said beside the values.
    note: Option<String>,
}

impl Figure<'_> {
    /// Tokens that a horizontal unit stands for inside a leg: the sampling distance.
    pub(super) fn resolution(&self, start: u64, tokens: u64) -> u64 {
        let width = self.axis.x(start.saturating_add(tokens)) - self.axis.x(start);
        (tokens as f64 / (width / 2.0).max(1.0)) as u64
    }

    fn pieces(
        &self,
        fields: &[&str],
        points: impl Fn(&StagePlan, u64) -> Vec<(u64, f64)>,
        note: impl Fn(&StagePlan) -> Option<String>,
    ) -> Vec<Piece> {
        let shown = self.lanes.legs.iter().filter(|l| l.lane < LANES_SHOWN);
        let piece = |leg: &crate::plot::lanes::Leg| {
            let stage = leg.stage();
            let points = points(stage, self.resolution(leg.start, stage.tokens));
            Piece {
                lane: leg.lane,
                assumed: stage.assumed.iter().any(|a| fields.contains(&a.as_str())),
                points: self
                    .bent(points.into_iter().map(|(at, v)| (leg.start.saturating_add(at), v)).collect()),
                note: note(stage),
            }
        };
        shown.map(piece).filter(|p| !p.points.is_empty()).collect()
    }

    /// The points of a line with one more wherever the axis changes its scale under a slope: what is
    /// straight over the tokens is not over the paper.
    fn bent(&self, points: Vec<(u64, f64)>) -> Vec<(u64, f64)> {
        let Some(first) = points.first().copied() else { return points };
        let mut out = vec![first];
        for pair in points.windows(2) {
            let ((a, v), (b, w)) = (pair[0], pair[1]);
            if v != w {
                let inside = self.axis.knots().iter().map(|k| k.0).filter(|k| *k > a && *k < b);
                out.extend(inside.map(|k| (k, v + (w - v) * (k - a) as f64 / (b - a) as f64)));
            }
            out.push((b, w));
        }
        out
    }

    pub(super) fn learning_rate(&mut self) {
        let pieces = self.pieces(&["lr"], |s, r| sample::curve(&s.lr.curve, s.tokens, r), |_| None);
        let peak = highest(&pieces);
        let (top, bottom) = self.panel("learning rate", 108.0);
        let scale = Scale { top, bottom, low: 0.0, high: if peak > 0.0 { peak * 1.14 } else { 1.0 } };
        let step = round_up(peak / 3.0);
        let mut value = 0.0;
        while step > 0.0 && value <= scale.high {
            self.grid(scale.y(value), &number::rate(value));
            value += step;
        }
        self.trace(&pieces, &scale, number::rate);
    }

    pub(super) fn batch(&mut self) {
        let pieces = self.pieces(&["batch", "batch_tokens"], |s, _| sample::batch(s), |_| None);
        let peak = highest(&pieces);
        let flat = pieces.iter().flat_map(|p| &p.points).all(|p| p.1 == peak);
        let (top, bottom) = self.panel("batch, tokens per step", if flat { 34.0 } else { 60.0 });
        // Room for the label over the line.
        let room = if flat { 1.9 } else { 1.3 };
        let scale = Scale { top, bottom, low: 0.0, high: if peak > 0.0 { peak * room } else { 1.0 } };
        self.grid(scale.y(0.0), "0");
        let step = round_up(peak / 2.0);
        if step > 0.0 {
            let at = if flat || step > peak { peak } else { step };
            self.grid(scale.y(at), &number::tokens(at));
        }
        self.trace(&pieces, &scale, number::tokens);
    }

    pub(super) fn context(&mut self) {
        let pieces = self.pieces(&["context", "rope"], |s, _| sample::context(s), rope);
        let values = || pieces.iter().flat_map(|p| &p.points).map(|p| p.1.max(1.0).log2());
        let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
        if !low.is_finite() {
            return;
        }
        let (top, bottom) = self.panel(
            "context, tokens per row (log scale)",
            if high - low < 0.5 { 30.0 } else { 46.0 + 6.0 * (high - low).min(6.0) },
        );
        let scale = Scale { top, bottom, low: low - 0.35, high: high + 0.5 + 0.12 * (high - low) };
        let mut levels: Vec<u64> =
            pieces.iter().flat_map(|p| &p.points).map(|p| p.1.max(1.0) as u64).collect();
        levels.sort_unstable();
        levels.dedup();
        let mut last = f64::INFINITY;
        for level in levels {
            let y = scale.y((level as f64).log2());
            if last - y >= 12.0 {
                self.grid(y, &number::length(level));
                last = y;
            }
        }
        let logarithmic: Vec<Piece> = pieces
            .into_iter()
            .map(|p| Piece { points: p.points.iter().map(|(at, v)| (*at, v.max(1.0).log2())).collect(), ..p })
            .collect();
        self.trace(&logarithmic, &scale, |v| number::length(v.exp2().round() as u64));
    }

    /// Draw the pieces and label where their values turn.
    fn trace(&mut self, pieces: &[Piece], scale: &Scale, text: impl Fn(f64) -> String) {
        let mut labels = Labels::default();
        let mut lines: Vec<(usize, Vec<(f64, f64)>)> = Vec::new();
        for piece in pieces {
            let points: Vec<_> = piece.points.iter().map(|(at, v)| (self.axis.x(*at), scale.y(*v))).collect();
            let points = decimate(&points);
            let assumed = if piece.assumed { " mc-assumed" } else { "" };
            self.front.polyline(&format!("{}{assumed}", self.line_class(piece.lane)), &points, "");
            labels.lines.extend(points.windows(2).map(|w| [w[0], w[1]]));
            lines.push((piece.lane, points));
        }
        // Jumps between legs of a lane.
        for lane in 0..LANES_SHOWN {
            let mut of_lane: Vec<_> = lines.iter().filter(|(l, _)| *l == lane).map(|(_, p)| p).collect();
            of_lane.sort_by(|a, b| a[0].0.total_cmp(&b[0].0));
            for pair in of_lane.windows(2) {
                if let (Some(a), Some(b)) = (pair[0].last(), pair[1].first())
                    && (a.0 - b.0).abs() < 0.01
                    && (a.1 - b.1).abs() > 0.5
                {
                    let class = self.line_class(lane);
                    self.front.polyline(&class, &[*a, *b], "");
                    labels.lines.push([*a, *b]);
                }
            }
        }
        let mut said: Vec<(String, f64, f64)> = Vec::new();
        let widths = |a: u64, b: u64| self.axis.x(b) - self.axis.x(a);
        for (piece, turn) in turning_points(pieces, &text, widths) {
            let (x, y) = (self.axis.x(turn.point.0), scale.y(turn.point.1));
            let short = text(turn.point.1);
            // Branches that start as their trunk does say nothing new.
            if said.iter().any(|(t, a, b)| *t == short && (a - x).abs() < 2.0 && (b - y).abs() < 2.0) {
                continue;
            }
            let long = turn.note.map_or(short.clone(), |note| format!("{short} · {note}"));
            let mut candidates = Vec::new();
            for words in [&long, &short] {
                let sides = if turn.ends {
                    [(x - 3.0, Anchor::End), (x + 3.0, Anchor::Start), (x, Anchor::Middle)]
                } else {
                    [(x + 3.0, Anchor::Start), (x - 3.0, Anchor::End), (x, Anchor::Middle)]
                };
                for y in [y - 4.5, y + 12.5, y - 13.0, y + 4.0] {
                    for (x, anchor) in sides {
                        if y - 9.0 >= scale.top - 5.0 && y <= scale.bottom + 2.0 {
                            candidates.push((words.as_str(), (x, y), anchor));
                        }
                    }
                }
            }
            let class = format!("mc-s mc-halo mc-f{}", piece.lane % 4);
            if labels.put(&mut self.front, &class, &candidates, turn.matters) {
                said.push((short, x, y));
            }
        }
    }

    /// Where lanes lie over each other, the later is thinner, so that both are seen.
    fn line_class(&self, lane: usize) -> String {
        let width = if self.lanes.count > 1 { format!(" mc-w{}", lane.min(2)) } else { String::new() };
        format!("mc-curve mc-c{}{width}", lane % 4)
    }
}

/// A value worth writing beside the line.
struct Turn<'a> {
    point: (u64, f64),
    note: Option<&'a str>,
    /// The end of a leg, best labelled on its left.
    ends: bool,
    /// Worth crossing a line for.
    matters: bool,
}

/// Peaks first, then the starts and ends of legs where the value is news, then long plateaus.
fn turning_points<'a>(
    pieces: &'a [Piece],
    text: &impl Fn(f64) -> String,
    width: impl Fn(u64, u64) -> f64,
) -> Vec<(&'a Piece, Turn<'a>)> {
    let mut found: Vec<(u8, &Piece, Turn)> = Vec::new();
    for (i, piece) in pieces.iter().enumerate() {
        let (Some(first), Some(last)) = (piece.points.first(), piece.points.last()) else { continue };
        let mut add = |rank: u8, point: (u64, f64), note: Option<&'a str>, ends: bool| {
            found.push((rank, piece, Turn { point, note, ends, matters: rank < 3 }));
        };
        let same = |a: f64, b: f64| text(a) == text(b);
        let of_lane = pieces[..i].iter().filter(|p| p.lane == piece.lane);
        let before = of_lane.filter_map(|p| p.points.last()).find(|p| p.0 == first.0);
        let note = piece.note.as_deref();
        let narrow = width(first.0, last.0) < 14.0 && i > 0 && i + 1 < pieces.len();
        if narrow {
            continue;
        }
        // A branch that runs along its trunk repeats what is said there.
        let told = pieces[..i].iter().filter(|p| p.lane != piece.lane).any(|p| {
            let at = p.points.partition_point(|q| q.0 <= first.0);
            let here = at > 0 && p.points.last().is_some_and(|q| q.0 >= first.0);
            here && p.points.first().is_some_and(|q| same(q.1, first.1)) && same(p.points[at - 1].1, first.1)
        });
        let news = before.is_none_or(|b| !same(b.1, first.1)) && !told || note.is_some();
        if news && (first.1 != 0.0 || note.is_some()) {
            add(1, *first, note, false);
        }
        let peak = piece.points.iter().fold(first, |a, b| if b.1 > a.1 { b } else { a });
        if !same(peak.1, first.1) {
            add(0, *peak, None, peak.0 == last.0);
        }
        if !same(last.1, first.1) && !same(last.1, peak.1) {
            add(2, *last, None, true);
        }
        for pair in piece.points.windows(2) {
            let (a, b) = (pair[0], pair[1]);
            let told = same(a.1, peak.1) || same(a.1, first.1) || same(a.1, last.1);
            if a.1 == b.1 && !told && width(a.0, b.0) >= 12.0 {
                add(3, a, None, false);
            }
        }
    }
    found.sort_by_key(|(rank, ..)| *rank);
    found.into_iter().take(300).map(|(_, piece, turn)| (piece, turn)).collect()
}

fn highest(pieces: &[Piece]) -> f64 {
    pieces.iter().flat_map(|p| &p.points).map(|p| p.1).fold(0.0, f64::max)
}

/// What a stage does to RoPE, in a few words.
fn rope(stage: &StagePlan) -> Option<String> {
    let rope = stage.rope.as_ref().filter(|_| !stage.inherited.iter().any(|f| f == "rope"))?;
    Some(match (rope.method.as_str(), rope.factor) {
        ("rope" | "abf", _) => format!("θ {}", number::tokens(rope.theta)),
        (method, Some(factor)) => format!("{method} ×{}", number::plain(factor)),
        (method, None) => method.to_owned(),
    })
}

/// At most four points for each half unit of width: the first, lowest, highest and last.
fn decimate(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() < 400 {
        return points.to_vec();
    }
    let mut kept = Vec::new();
    for column in points.chunk_by(|a, b| (a.0 * 2.0).floor() == (b.0 * 2.0).floor()) {
        let extreme = |better: fn(f64, f64) -> bool| {
            let best = |best: usize, i: usize| if better(column[i].1, column[best].1) { i } else { best };
            (0..column.len()).fold(0, best)
        };
        let mut picks = [0, extreme(|a, b| a < b), extreme(|a, b| a > b), column.len() - 1];
        picks.sort_unstable();
        kept.extend(picks.iter().map(|i| column[*i]));
    }
    kept.dedup();
    kept
}
