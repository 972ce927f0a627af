//! The optimizer of a stage, and whether the moments it goes on from are its own.

use crate::diag::{Diagnostic, codes};
use crate::schema;
use crate::sema::checker::Checker;
use crate::sema::curriculum::{From, Muon, Optimizer};
use crate::sema::eval::Scope;
use crate::sema::fields::Fields;
use crate::sema::value::{Call, Kind};
use crate::source::Span;

impl<'p> Checker<'p> {
    /// What is written, what the stage before has, or the defaults; with `clip` and `z_loss` of the stage itself.
    pub(super) fn optimizer(
        &mut self,
        fields: &Fields<'p>,
        scope: &Scope<'p>,
        ground: Option<Optimizer>,
        inherited: &mut Vec<&'static str>,
    ) -> Option<Optimizer> {
        let taken = ground.as_ref().map(|o| (o.clip, o.z_loss));
        let default = Optimizer {
            muon: None,
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.1,
            decay_embeddings: true,
            decay_norms: false,
            clip: Some(1.0),
            z_loss: None,
        };
        let mut optimizer = match self.field(fields, "optimizer", scope) {
            Some(value) => {
                let call = match &value.kind {
                    Kind::Call(call) if call.function.family == schema::Family::Optimizer => call.clone(),
                    _ => {
                        self.wrong(&value, schema::Ty::Optimizer, "optimizer");
                        return None;
                    }
                };
                for name in ["clip", "z_loss"] {
                    if let (Some(inner), Some(field)) = (call.arg(name), fields.get(name)) {
                        self.push(
                            Diagnostic::error(
                                codes::DUPLICATE_FIELD,
                                inner.span,
                                format!("`{name}` twice: of the optimizer and of the stage"),
                                "written again here",
                            )
                            .label(field.span, "the other one")
                            .help("keep one of them"),
                        );
                        return None;
                    }
                }
                let mut optimizer = self.constants(&call, default)?;
                // They are the stage's, wherever they are written: another optimizer does not take them away.
                if let Some((clip, z_loss)) = taken {
                    if call.arg("clip").is_none() {
                        optimizer.clip = clip;
                        inherited.extend(fields.get("clip").is_none().then_some("clip"));
                    }
                    if call.arg("z_loss").is_none() {
                        optimizer.z_loss = z_loss;
                        inherited.extend(fields.get("z_loss").is_none().then_some("z_loss"));
                    }
                }
                optimizer
            }
            None => match ground {
                Some(o) => {
                    inherited.push("optimizer");
                    o
                }
                None => default,
            },
        };
        if let Some(v) = self.field(fields, "clip", scope) {
            optimizer.clip = Some(self.positive(&v, "clip")?);
        }
        if let Some(v) = self.field(fields, "z_loss", scope) {
            optimizer.z_loss = Some(self.non_negative(&v, "z_loss")?);
        }
        Some(optimizer)
    }

    /// The arguments of an optimizer over their defaults.
    fn constants(&mut self, call: &Call<'p>, default: Optimizer) -> Option<Optimizer> {
        let mut o = default;
        if let Some(v) = call.arg("betas").cloned() {
            let betas = self.numbers(&v, "betas")?;
            match betas.as_slice() {
                [a, b] if (0.0..1.0).contains(a) && (0.0..1.0).contains(b) => o.betas = [*a, *b],
                _ => {
                    self.push(Diagnostic::error(
                        codes::OUT_OF_RANGE,
                        v.span,
                        "`betas` are not two numbers in [0, 1)",
                        "for example `[0.9, 0.95]`",
                    ));
                    return None;
                }
            }
        }
        if let Some(v) = call.arg("eps").cloned() {
            o.eps = self.positive(&v, "eps")?;
        }
        if let Some(v) = call.arg("weight_decay").cloned() {
            o.weight_decay = self.non_negative(&v, "weight_decay")?;
        }
        if let Some(v) = call.arg("decay_embeddings").cloned() {
            o.decay_embeddings = self.yes_no(&v, "decay_embeddings")?;
        }
        if let Some(v) = call.arg("decay_norms").cloned() {
            o.decay_norms = self.yes_no(&v, "decay_norms")?;
        }
        if let Some(v) = call.arg("clip").cloned() {
            o.clip = Some(self.positive(&v, "clip")?);
        }
        if let Some(v) = call.arg("z_loss").cloned() {
            o.z_loss = Some(self.non_negative(&v, "z_loss")?);
        }
        if call.function.name == "muon" {
            o.muon = Some(self.muon(call)?);
        }
        Some(o)
    }

    fn muon(&mut self, call: &Call<'p>) -> Option<Muon> {
        let mut muon = Muon { momentum: 0.95, nesterov: true, ns_steps: 5, update_rms: 0.2 };
        if let Some(v) = call.arg("momentum").cloned() {
            muon.momentum = self.non_negative(&v, "momentum")?;
            if muon.momentum >= 1.0 {
                self.push(Diagnostic::error(
                    codes::OUT_OF_RANGE,
                    v.span,
                    "`momentum` is not in [0, 1)",
                    "for example `0.95`",
                ));
                return None;
            }
        }
        if let Some(v) = call.arg("nesterov").cloned() {
            muon.nesterov = self.yes_no(&v, "nesterov")?;
        }
        if let Some(v) = call.arg("ns_steps").cloned() {
            let steps = self.whole(&v, "ns_steps")?;
            if !(1..=20).contains(&steps) {
                self.push(Diagnostic::error(
                    codes::OUT_OF_RANGE,
                    v.span,
                    format!("`ns_steps` of {steps}"),
                    "1 to 20; five bring singular values near 1",
                ));
                return None;
            }
            muon.ns_steps = steps as u32;
        }
        if let Some(v) = call.arg("update_rms").cloned() {
            muon.update_rms = self.positive(&v, "update_rms")?;
        }
        Some(muon)
    }

    /// Only what was trained here has moments to keep.
    pub(super) fn has_moments(&mut self, from: &From, state: Span) -> bool {
        let what = match from {
            From::Model(_) => "a model",
            From::Soup(_) => "a soup",
            From::Stage(_) | From::Checkpoint(..) => return true,
        };
        let diagnostic = Diagnostic::error(
            codes::STAGE_STATE,
            state,
            format!("`state = keep` where there is none: {what} has weights and no moments"),
            "there is nothing to keep",
        );
        let help =
            "take it out, or write `state = weights_only`: the optimizer starts anew either way, so warm up";
        self.push(diagnostic.help(help));
        false
    }

    /// Moments that carry over are those of the same optimizer.
    pub(super) fn same_moments(
        &mut self,
        fields: &Fields<'p>,
        state: &str,
        ground: Option<&Optimizer>,
        optimizer: &Optimizer,
    ) -> bool {
        let (Some(before), Some(entry)) = (ground, fields.get("optimizer")) else { return true };
        if state != "keep" || before.muon.is_some() == optimizer.muon.is_some() {
            return true;
        }
        let diagnostic = Diagnostic::error(
            codes::STAGE_STATE,
            entry.span,
            format!("moments of {} for {} to go on from", before.name(), optimizer.name()),
            "another optimizer than in the stage before",
        );
        self.push(diagnostic.help("write `state = weights_only` and warm up, or keep the optimizer"));
        false
    }
}
