//! RoPE spellings to the methods of `crate::rope`.

use crate::diag::Diagnostic;
use crate::rope::RopeScaling;
use crate::schema::{Family, Ty};

use super::checker::Checker;
use super::curriculum::Rope;
use super::value::{Call, Kind, Val};
use crate::diag::codes;

/// What the stage knows that a spelling may leave out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RopeGround {
    /// The model's own base.
    pub(crate) theta: Option<f64>,
    /// Width of a head.
    pub(crate) head_dim: Option<u64>,
    /// The longest context of the stage.
    pub(crate) context: Option<u64>,
}

impl<'p> Checker<'p> {
    /// A `rope` value.
    pub(crate) fn rope(&mut self, value: &Val<'p>, ground: RopeGround) -> Option<Rope> {
        let Kind::Call(call) = &value.kind else {
            self.wrong(value, Ty::Rope, "rope");
            return None;
        };
        if call.function.family != Family::Rope {
            self.wrong(value, Ty::Rope, "rope");
            return None;
        }
        let call = call.clone();
        let theta = match call.arg("theta").cloned() {
            Some(v) => Some(self.positive(&v, "theta")?),
            None => ground.theta,
        };
        let scaling = self.scaling(&call, ground)?;
        let dim = ground.head_dim.and_then(|d| usize::try_from(d).ok());
        if let Err(reason) = crate::rope::check(dim, theta.unwrap_or(10_000.0), &scaling) {
            self.push(Diagnostic::error(
                codes::ROPE_ARGUMENT,
                call.span,
                format!("`{}` cannot be computed", call.function.name),
                reason.to_string(),
            ));
            return None;
        }
        Some(Rope { method: call.function.name, theta, scaling })
    }

    /// Refuse a RoPE whose base is neither written nor known: how far it reaches cannot be said, and no engine could
    /// be told what to train with.
    pub(crate) fn has_base(&mut self, rope: &Rope, value: &Val<'p>, model: &str) -> bool {
        if rope.theta.is_some() {
            return true;
        }
        let method = rope.method;
        self.push(
            Diagnostic::error(
                codes::ROPE_BASE,
                value.span,
                format!("`{method}` over a base that is not known"),
                "which base is this over?",
            )
            .help(format!("write what the checkpoint's `config.json` calls `rope_theta`: into model `{model}`, as in `rope = rope(theta: 500_000)`, or here, as in `{method}(theta: 500_000, …)`"))
            .help("it is read from the checkpoint where that is on this machine"),
        );
        false
    }

    fn scaling(&mut self, call: &Call<'p>, ground: RopeGround) -> Option<RopeScaling> {
        let mut number = |name: &str, default: f64| match call.arg(name).cloned() {
            Some(v) => self.number(&v, name),
            None => Some(default),
        };
        let factor = number("factor", f64::NAN)?;
        let scaling = match call.function.name {
            "rope" | "abf" => RopeScaling::Default,
            "pi" => RopeScaling::Pi { factor },
            "ntk" => RopeScaling::Ntk { factor },
            "llama3" => {
                let (low, high) = (number("low", 1.0)?, number("high", 4.0)?);
                RopeScaling::Llama3 { factor, low, high, original: self.original(call)? }
            }
            "dynamic_ntk" => RopeScaling::DynamicNtk { factor, original: self.original(call)? },
            "longrope" => {
                let original = self.original(call)?;
                let short = self.numbers(&call.arg("short")?.clone(), "short")?;
                let long = self.numbers(&call.arg("long")?.clone(), "long")?;
                let factor = match (call.arg("factor"), ground.context) {
                    (None, Some(context)) => (context as f64 / original as f64).max(1.0),
                    (None, None) => 1.0,
                    (Some(_), _) => factor,
                };
                let attention_factor = match call.arg("attention_factor").cloned() {
                    Some(v) => Some(self.positive(&v, "attention_factor")?),
                    None => None,
                };
                RopeScaling::Longrope { short, long, original, factor, attention_factor }
            }
            name => {
                let (beta_fast, beta_slow) = (number("beta_fast", 32.0)?, number("beta_slow", 1.0)?);
                let original = self.original(call)?;
                if name == "ntk_by_parts" {
                    RopeScaling::NtkByParts { factor, original, beta_fast, beta_slow }
                } else {
                    let truncate = match call.arg("truncate").cloned() {
                        Some(v) => self.yes_no(&v, "truncate")?,
                        None => true,
                    };
                    let mut optional = |name: &str| match call.arg(name).cloned() {
                        Some(v) => self.number(&v, name).map(Some),
                        None => Some(None),
                    };
                    RopeScaling::Yarn {
                        factor,
                        original,
                        beta_fast,
                        beta_slow,
                        mscale: optional("mscale")?,
                        mscale_all_dim: optional("mscale_all_dim")?,
                        attention_factor: optional("attention_factor")?,
                        truncate,
                    }
                }
            }
        };
        Some(scaling)
    }

    fn original(&mut self, call: &Call<'p>) -> Option<u64> {
        let value = call.arg("original")?.clone();
        self.whole_positive(&value, "original")
    }
}
