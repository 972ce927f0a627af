//! Panels of stacked shares, and the legend of the sources.

use std::collections::BTreeMap;

use super::{BODY, Figure, LANES_SHOWN, LEFT, RIGHT, SMALL, WIDTH};
use crate::plan::Plan;
use crate::plot::lanes::Leg;
use crate::plot::palette::{COLOURS, LIMIT, OTHER, ink_on};
use crate::plot::svg::{Anchor, escape, fit, n, path, text_width};
use crate::plot::{number, sample};

/// Hatching for colours that come a second time.
pub(super) const PATTERNS: &str = "<defs><pattern id=\"mc-hatch\" width=\"6\" height=\"6\" \
    patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\"><rect width=\"2\" height=\"6\" \
    fill=\"#fff\" fill-opacity=\".55\"/></pattern></defs>\n";

/// Lanes whose mixture gets a panel.
const PANELS: usize = 4;

/// How a source is drawn.
#[derive(Debug)]
pub(crate) struct Look {
    /// Name, or `12 other sources`.
    pub name: String,
    pub colour: &'static str,
    pub hatched: bool,
    /// The sources it stands for.
    pub sources: Vec<String>,
}

/// Sources of a plan, largest first; the smallest together when there are very many.
pub(crate) fn looks(plan: &Plan) -> Vec<Look> {
    let mut drawn: Vec<(&str, u64)> = Vec::new();
    let mut index: BTreeMap<&str, usize> = BTreeMap::new();
    for source in plan.sources.iter().filter(|s| !s.validation) {
        index.entry(&source.name).or_insert_with(|| {
            drawn.push((&source.name, 0));
            drawn.len() - 1
        });
    }
    for mix in plan.stages.iter().flat_map(|s| &s.mix) {
        let at = *index.entry(&mix.source).or_insert_with(|| {
            drawn.push((&mix.source, 0));
            drawn.len() - 1
        });
        drawn[at].1 = drawn[at].1.saturating_add(mix.tokens);
    }
    drawn.sort_by_key(|(_, tokens)| std::cmp::Reverse(*tokens));
    let single = if drawn.len() > LIMIT { LIMIT - 1 } else { drawn.len() };
    let mut looks: Vec<Look> = drawn[..single]
        .iter()
        .enumerate()
        .map(|(i, (name, _))| Look {
            name: (*name).to_owned(),
            colour: COLOURS[i % COLOURS.len()],
            hatched: i >= COLOURS.len(),
            sources: vec![(*name).to_owned()],
        })
        .collect();
    if single < drawn.len() {
        looks.push(Look {
            name: format!("{} other sources", drawn.len() - single),
            colour: OTHER,
            hatched: false,
            sources: drawn[single..].iter().map(|(name, _)| (*name).to_owned()).collect(),
        });
    }
    looks
}

/// Cumulated weights at a point: `edges[i]..edges[i + 1]` is the band of look `i`.
struct Column {
    tokens: u64,
    edges: Vec<f64>,
}

impl Figure<'_> {
    pub(super) fn mixtures(&mut self) {
        let looks = looks(self.plan);
        if looks.is_empty() {
            return;
        }
        let lanes = self.lanes.count.min(LANES_SHOWN).min(PANELS);
        for lane in 0..lanes {
            let names: Vec<String> = self.lanes.lane(lane).iter().take(8).map(|l| l.name()).collect();
            let title = match self.lanes.count {
                1 => "mixture, share of sampled tokens".to_owned(),
                _ => format!("mixture of {}", names.join(", ")),
            };
            let (top, bottom) = self.panel(&title, if lane == 0 { 126.0 } else { 92.0 });
            for (share, text) in [(0.0, "0"), (0.5, "50%"), (1.0, "100%")] {
                self.grid(bottom - share * (bottom - top), text);
            }
            let columns: Vec<Vec<Column>> =
                self.lanes.lane(lane).into_iter().map(|leg| self.columns(leg, &looks)).collect();
            self.bands(&columns, &looks, (top, bottom));
            self.band_labels(lane, &looks, (top, bottom));
        }
    }

    fn columns(&self, leg: &Leg, looks: &[Look]) -> Vec<Column> {
        let stage = leg.stage();
        let mixes: BTreeMap<&str, _> = stage.mix.iter().map(|m| (m.source.as_str(), m)).collect();
        let positions = sample::mix_positions(stage, self.resolution(leg.start, stage.tokens));
        let column = |at: u64| {
            let mut sum = 0.0;
            let mut edges = vec![0.0];
            for look in looks {
                let weights = look.sources.iter().filter_map(|s| mixes.get(s.as_str()));
                sum += weights.map(|m| sample::weight(&m.weight, at)).sum::<f64>();
                edges.push(f64::min(sum, 1.0));
            }
            Column { tokens: leg.start.saturating_add(at), edges }
        };
        positions.into_iter().map(column).collect()
    }

    fn bands(&mut self, legs: &[Vec<Column>], looks: &[Look], (top, bottom): (f64, f64)) {
        let axis = &self.axis;
        let y = move |share: f64| bottom - share * (bottom - top);
        for (i, look) in looks.iter().enumerate() {
            let mut data = String::new();
            for columns in legs {
                let seen = columns.iter().any(|c| c.edges[i + 1] > c.edges[i]);
                if !seen {
                    continue;
                }
                let edge = |e: usize| columns.iter().map(move |c| (axis.x(c.tokens), y(c.edges[e])));
                let outline: Vec<_> = edge(i + 1).chain(edge(i).rev()).collect();
                data.push_str(&path(&outline));
                data.push('Z');
            }
            if data.is_empty() {
                continue;
            }
            self.front.open(&look.name);
            // Lines between bands would cover those that are a pixel wide.
            let class = if legs.len() > 60 { "mc-flat" } else { "mc-band" };
            self.front.raw(&format!("<path class=\"{class}\" fill=\"{}\" d=\"{data}\"/>", look.colour));
            if look.hatched {
                self.front.raw(&format!("<path fill=\"url(#mc-hatch)\" d=\"{data}\"/>"));
            }
            self.front.close();
        }
    }

    /// Names and shares inside the bands that are large enough.
    fn band_labels(&mut self, lane: usize, looks: &[Look], (top, bottom): (f64, f64)) {
        let height = bottom - top;
        let mut labels = Vec::new();
        for leg in self.lanes.lane(lane) {
            let columns = self.columns(leg, looks);
            let assumed = leg.stage().assumed.iter().any(|a| a.split('.').next().is_some_and(|a| a == "mix"));
            let about = if assumed { "≈" } else { "" };
            let x = |c: &Column| self.axis.x(c.tokens);
            // Where the shares stand still, name and share; every such stretch for itself.
            for still in columns.chunk_by(|a, b| a.edges == b.edges) {
                let (Some(first), Some(last)) = (still.first(), still.last()) else { continue };
                let (x0, x1) = (x(first), x(last));
                for (i, look) in looks.iter().enumerate() {
                    let (low, high) = (first.edges[i], first.edges[i + 1]);
                    if (high - low) * height < 12.5 {
                        continue;
                    }
                    let share = number::percent(high - low);
                    let words = [
                        format!("{} {about}{share}", look.name),
                        format!("{about}{share}"),
                        share.trim_end_matches('%').to_owned(),
                    ];
                    if let Some(text) = words.into_iter().find(|t| text_width(t, SMALL) <= x1 - x0 - 6.0) {
                        labels.push((
                            (x0 + x1) / 2.0,
                            bottom - (low + high) / 2.0 * height + 4.0,
                            look,
                            text,
                        ));
                    }
                }
            }
            // Where they move, the name alone, once a leg, where the band holds all of it.
            for (i, look) in looks.iter().enumerate() {
                let half = text_width(&look.name, SMALL) / 2.0 + 3.0;
                let holds = |middle: &&Column| {
                    let near = columns.iter().filter(|c| (x(c) - x(middle)).abs() <= half + 2.0);
                    let (low, high) = near.fold((0.0f64, 1.0f64), |(low, high), c| {
                        (low.max(c.edges[i]), high.min(c.edges[i + 1]))
                    });
                    let inside = x(middle) - half >= x(&columns[0])
                        && columns.last().is_some_and(|end| x(middle) + half <= x(end));
                    inside && (high - low) * height >= 12.5
                };
                let moving =
                    columns.windows(3).filter(|w| w[0].edges != w[1].edges && w[1].edges != w[2].edges);
                let thickness = |c: &Column| c.edges[i + 1] - c.edges[i];
                let best =
                    moving.map(|w| &w[1]).filter(holds).max_by(|a, b| thickness(a).total_cmp(&thickness(b)));
                if let Some(c) = best {
                    let y = bottom - (c.edges[i] + c.edges[i + 1]) / 2.0 * height + 4.0;
                    labels.push((x(c), y, look, look.name.clone()));
                }
            }
        }
        for (x, y, look, text) in labels {
            let (x, y, text) = (n(x), n(y), escape(&text));
            // On hatching, a halo of the fill keeps the letters whole.
            let halo = if look.hatched {
                format!(" style=\"paint-order:stroke;stroke:{};stroke-width:3px\"", look.colour)
            } else {
                String::new()
            };
            let ink = ink_on(look.colour);
            self.front.raw(&format!(
                "<text class=\"mc-s\" x=\"{x}\" y=\"{y}\" text-anchor=\"middle\" fill=\"{ink}\"{halo}>{text}</text>"
            ));
        }
    }

    /// Each source with its share of the run, tokens and epochs.
    pub(super) fn legend(&mut self) {
        let looks = looks(self.plan);
        let mut drawn: BTreeMap<&str, u64> = BTreeMap::new();
        for mix in self.plan.stages.iter().flat_map(|s| &s.mix) {
            let sum = drawn.entry(&mix.source).or_default();
            *sum = sum.saturating_add(mix.tokens);
        }
        let total: f64 = drawn.values().map(|t| *t as f64).sum::<f64>().max(1.0);
        let entries: Vec<(&Look, String)> = looks
            .iter()
            .map(|look| {
                let tokens: f64 =
                    look.sources.iter().filter_map(|s| drawn.get(s.as_str())).map(|t| *t as f64).sum();
                let source = match look.sources.as_slice() {
                    [one] => self.plan.sources.iter().find(|s| s.name == *one),
                    _ => None,
                };
                let epochs = source.and_then(|s| s.epochs).map(|e| format!(" · {} ep", number::tokens(e)));
                let facts = format!(
                    "{} · {}{}",
                    number::percent(tokens / total),
                    number::tokens(tokens),
                    epochs.unwrap_or_default()
                );
                (look, facts)
            })
            .collect();
        if entries.is_empty() {
            return;
        }
        self.y += 14.0;
        self.front.text("mc-s mc-name", (12.0, self.y), Anchor::Start, "sources");
        let explained = "share of all sampled tokens · tokens · epochs";
        self.front.text("mc-s mc-mute", (LEFT, self.y), Anchor::Start, explained);
        let widest = entries
            .iter()
            .map(|(l, facts)| 22.0 + text_width(&l.name, BODY) + text_width(facts, SMALL))
            .fold(0.0, f64::max);
        let columns = ((WIDTH - 24.0) / (widest + 14.0)).floor().clamp(2.0, 3.0) as usize;
        let width = (RIGHT + 2.0 - 12.0) / columns as f64;
        let rows = entries.len().div_ceil(columns);
        for (i, (look, facts)) in entries.iter().enumerate() {
            let (x, y) = (12.0 + (i / rows) as f64 * width, self.y + 17.0 * (i % rows + 1) as f64);
            self.front.open(&look.sources.iter().take(50).cloned().collect::<Vec<_>>().join(", "));
            let swatch = [x, y - 9.5, 11.0, 11.0];
            self.front.rect("", swatch, &format!(" rx=\"2\" fill=\"{}\"", look.colour));
            if look.hatched {
                self.front.rect("", swatch, " rx=\"2\" fill=\"url(#mc-hatch)\"");
            }
            let room = width - 34.0 - text_width(facts, SMALL);
            let name = fit(&look.name, BODY, room).unwrap_or_default();
            self.front.text("mc-b mc-ink", (x + 16.0, y), Anchor::Start, &name);
            self.front.text("mc-s mc-mute", (x + width - 12.0, y), Anchor::End, facts);
            self.front.close();
        }
        self.y += 17.0 * rows as f64 + 4.0;
    }
}
