//! AdamW and gradient clipping: constants of one update, in f64.

use crate::runtime::backend::AdamW;
use crate::runtime::engine::Hyper;
use crate::runtime::model::parameters::Role;

/// Factor by which gradients are multiplied so that their global norm is at most `clip`: as PyTorch's
/// `clip_grad_norm_`, with its 1e-6 in the denominator.
pub fn clip_factor(norm: f64, clip: Option<f64>) -> f64 {
    clip.map_or(1.0, |clip| (clip / (norm + 1e-6)).min(1.0))
}

/// Constants for one tensor.
pub(crate) fn constants(hyper: &Hyper, role: Role, gradient_scale: f64) -> AdamW {
    let step = hyper.optimizer_step.max(1) as f64;
    let decays = match role {
        Role::Matrix | Role::Output => true,
        Role::Embedding => hyper.decay_embeddings,
        // Vectors go together, as in launches for transformers.
        Role::Norm | Role::Bias => hyper.decay_norms,
    };
    AdamW {
        lr: hyper.lr,
        betas: hyper.betas,
        eps: hyper.eps,
        weight_decay: if decays { hyper.weight_decay } else { 0.0 },
        corrections: hyper.betas.map(|beta| 1.0 - beta.powf(step)),
        gradient_scale,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipping_leaves_small_gradients_alone() {
        assert_eq!(clip_factor(0.5, Some(1.0)), 1.0);
        assert_eq!(clip_factor(50.0, None), 1.0);
        assert!((clip_factor(4.0, Some(1.0)) - 0.25).abs() < 1e-6);
    }

    #[test]
    fn first_step_is_fully_corrected() {
        let hyper = Hyper { lr: 1e-3, clip: None, ..Hyper::default() };
        let c = constants(&hyper, Role::Norm, 1.0);
        assert!((c.corrections[0] - 0.1).abs() < 1e-12 && (c.corrections[1] - 0.05).abs() < 1e-12);
        let decays = |hyper: &Hyper| {
            [Role::Matrix, Role::Embedding, Role::Norm].map(|role| constants(hyper, role, 1.0).weight_decay)
        };
        assert_eq!(decays(&hyper), [0.1, 0.1, 0.0]);
        let as_in_olmo_2 = Hyper { decay_embeddings: false, decay_norms: true, ..hyper };
        assert_eq!(decays(&as_in_olmo_2), [0.1, 0.0, 0.1]);
    }
}
