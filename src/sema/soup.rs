//! `soup` bindings: which weights are averaged, in which shares.

use crate::diag::Diagnostic;
use crate::schema::{Family, Ty};
use crate::syntax::ast;

use super::checker::Checker;
use super::curriculum::{From, Soup};
use super::eval::Scope;
use super::program::DefId;
use super::value::{Kind, Val};
use crate::diag::codes;

impl<'p> Checker<'p> {
    /// `soup final = average(anneal)`.
    pub(crate) fn resolve_soup(
        &mut self,
        id: DefId,
        value: &'p ast::Expr,
        scope: &Scope<'p>,
    ) -> Option<usize> {
        let value = self.eval(value, &scope.taking(Family::Soup));
        let call = match &value.kind {
            Kind::Call(call) if call.function.family == Family::Soup => call.clone(),
            Kind::Poison => return None,
            _ => {
                let found = value.describe();
                self.push(
                    Diagnostic::error(
                        codes::SOUP,
                        value.span,
                        format!("a soup is not {found}"),
                        "`average(…)` is expected here",
                    )
                    .help("write `soup final = average(anneal)`"),
                );
                return None;
            }
        };
        // A list may hold `anneal[*, 30%]`, which is one itself.
        let of_list = |v: &Val<'p>| match &v.kind {
            Kind::List(items) => items.to_vec(),
            _ => vec![v.clone()],
        };
        let flat: Vec<Val<'p>> = call.positional.iter().flat_map(of_list).flat_map(|v| of_list(&v)).collect();
        let mut ingredients: Vec<From> = Vec::new();
        for v in &flat {
            let Kind::Entity(entity) = v.kind else {
                if !v.is_poison() {
                    self.wrong(v, Ty::Ingredients, call.function.name);
                }
                return None;
            };
            for place in self.places(entity, v.span)? {
                let what = match &place {
                    From::Model(_) => Some((
                        "a model",
                        "`midc soup` averages directories of checkpoints, models among them",
                    )),
                    From::Soup(_) => Some((
                        "another soup",
                        "name its ingredients here, with their shares of it in `weights`",
                    )),
                    From::Stage(_) | From::Checkpoint(..) => None,
                };
                if let Some((what, help)) = what {
                    self.push(
                        Diagnostic::error(
                            codes::SOUP,
                            v.span,
                            format!("{what} in a soup"),
                            "a stage, a fan-out or a checkpoint is expected here",
                        )
                        .help(help),
                    );
                    return None;
                }
                if ingredients.contains(&place) {
                    let name = self.place_name(&place);
                    self.push(Diagnostic::error(
                        codes::SOUP,
                        v.span,
                        format!("`{name}` is in the soup twice"),
                        "already an ingredient",
                    ));
                    return None;
                }
                if call.function.name == "ema"
                    && let Some(later) = ingredients.last().filter(|last| self.is_after(last, &place))
                {
                    let (later, name) = (self.place_name(later), self.place_name(&place));
                    self.push(
                        Diagnostic::error(
                            codes::SOUP,
                            v.span,
                            format!("`{name}` comes before `{later}`, which stands before it"),
                            "an average that forgets takes the oldest first",
                        )
                        .help("list the ingredients in the order in which they were trained"),
                    );
                    return None;
                }
                ingredients.push(place);
            }
        }
        if ingredients.is_empty() {
            self.push(
                Diagnostic::error(
                    codes::SOUP,
                    call.span,
                    "a soup without ingredients",
                    "nothing is averaged here",
                )
                .help("name stages, fan-outs or checkpoints: `average(anneal)`"),
            );
            return None;
        }
        let weights = if call.function.name == "ema" {
            let decay = self.positive(&call.arg("decay")?.clone(), "decay")?;
            if decay >= 1.0 {
                self.push(Diagnostic::error(
                    codes::OUT_OF_RANGE,
                    call.span,
                    "`decay` is not below one",
                    "the youngest ingredient would have no share",
                ));
                return None;
            }
            // The oldest starts the average; each younger one enters with 1 − decay.
            let n = ingredients.len() as i32;
            (0..n).map(|i| decay.powi(n - 1 - i) * if i == 0 { 1.0 } else { 1.0 - decay }).collect()
        } else {
            match call.arg("weights").cloned() {
                Some(v) => {
                    let weights = self.numbers(&v, "weights")?;
                    let sum: f64 = weights.iter().sum();
                    if weights.len() != ingredients.len() || weights.iter().any(|w| *w < 0.0) || sum <= 0.0 {
                        let message = if weights.len() != ingredients.len() {
                            format!("{} weights for {} ingredients", weights.len(), ingredients.len())
                        } else if sum <= 0.0 && weights.iter().all(|w| *w >= 0.0) {
                            "all weights of a soup are zero".to_owned()
                        } else {
                            "a weight of a soup is negative".to_owned()
                        };
                        self.push(Diagnostic::error(
                            codes::SOUP,
                            v.span,
                            message,
                            "one positive number per ingredient is needed",
                        ));
                        return None;
                    }
                    weights.iter().map(|w| w / sum).collect()
                }
                None => vec![1.0 / ingredients.len() as f64; ingredients.len()],
            }
        };
        let def = self.program.def(id);
        self.out.soups.push(Soup {
            name: self.full_name(id),
            doc: self.program.item(id).preface.doc(),
            span: def.name_span,
            method: call.function.name,
            ingredients,
            weights,
        });
        Some(self.out.soups.len() - 1)
    }

    /// Whether `one` is a later place of the same stage than `other`.
    fn is_after(&self, one: &From, other: &From) -> bool {
        let step = |place: &From| match place {
            From::Stage(stage) => Some((*stage, self.out.stages[*stage].steps)),
            From::Checkpoint(stage, point) => {
                Some((*stage, self.out.stages[*stage].checkpoints[*point].step))
            }
            From::Model(_) | From::Soup(_) => None,
        };
        match (step(one), step(other)) {
            (Some((a, later)), Some((b, earlier))) => a == b && later > earlier,
            _ => false,
        }
    }
}
