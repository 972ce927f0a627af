//! Backward pass of one decoder layer, written by hand against `forward.rs`.

use crate::runtime::backend::Backend;
use crate::runtime::model::forward::Pass;
use crate::runtime::model::parameters::{LayerParameters, NormPlace};
use crate::runtime::model::workspace::{Gradients, SavedAttention, SavedFeedForward};

impl<B: Backend> Pass<'_, B> {
    /// Takes the gradient of the layer's output in `g.stream` (with its rounded copy) to that of its
    /// input, and adds to the gradients of its weights; writes those of matrices when not
    /// `accumulate`. Uses up what was saved. `hidden` and `activated` are scratch.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn layer_backward(
        &self,
        p: &LayerParameters<B::Wide>,
        input: &B::Wide,
        attention: &mut SavedAttention<B>,
        feed_forward: &mut SavedFeedForward<B>,
        hidden: &mut B::Narrow,
        activated: &mut B::Narrow,
        g: &mut Gradients<B>,
        grads: &mut LayerParameters<B::Wide>,
        accumulate: bool,
    ) {
        self.feed_forward_backward(p, feed_forward, hidden, activated, g, grads, accumulate);
        self.attention_backward(p, input, attention, hidden, g, grads, accumulate);
    }

    #[allow(clippy::too_many_arguments)]
    fn feed_forward_backward(
        &self,
        p: &LayerParameters<B::Wide>,
        saved: &mut SavedFeedForward<B>,
        hidden: &mut B::Narrow,
        activated: &mut B::Narrow,
        g: &mut Gradients<B>,
        grads: &mut LayerParameters<B::Wide>,
        accumulate: bool,
    ) {
        let (b, w, t, norm) = (self.backend, self.widths, self.tokens(), self.stream_norm());
        // Gradient of the block's output: that of the stream, or through the norm behind the block.
        let grad_out = match &saved.branch {
            None => &g.stream_narrow,
            Some(branch) => {
                let (weight, rstd) = (&p.feed_forward_norm, &saved.rstd);
                let grad_weight = &mut grads.feed_forward_norm;
                b.norm_residual_backward(norm, branch, weight, rstd, &g.stream, &mut g.hidden, grad_weight);
                &g.hidden
            }
        };
        b.linear_input_grad(t, w.ffn, w.hidden, grad_out, &p.down, &mut g.activated);
        b.swiglu_backward(t, w.ffn, &g.activated, &mut saved.gate_up, activated);
        b.linear_weight_grad(t, w.ffn, w.hidden, grad_out, activated, accumulate, &mut grads.down);

        self.feed_forward_input(p, saved, hidden);
        let grad_gate_up = &saved.gate_up;
        b.linear_weight_grad(t, w.hidden, 2 * w.ffn, grad_gate_up, hidden, accumulate, &mut grads.gate_up);
        b.linear_input_grad(t, w.hidden, 2 * w.ffn, grad_gate_up, &p.gate_up, &mut g.hidden);
        let (stream, copy) = (&mut g.stream, &mut g.stream_narrow);
        match w.family.norm_place {
            NormPlace::Before => {
                let (weight, grad_weight) = (&p.feed_forward_norm, &mut grads.feed_forward_norm);
                let rstd = &saved.rstd;
                b.norm_backward(norm, &saved.middle, weight, rstd, &g.hidden, stream, copy, grad_weight);
            }
            NormPlace::After => b.add_narrow(t * w.hidden, &g.hidden, stream, copy),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn attention_backward(
        &self,
        p: &LayerParameters<B::Wide>,
        input: &B::Wide,
        saved: &mut SavedAttention<B>,
        hidden: &mut B::Narrow,
        g: &mut Gradients<B>,
        grads: &mut LayerParameters<B::Wide>,
        accumulate: bool,
    ) {
        let (b, w, t, norm) = (self.backend, self.widths, self.tokens(), self.stream_norm());
        let grad_out = match &saved.branch {
            None => &g.stream_narrow,
            Some(branch) => {
                let (weight, rstd) = (&p.attention_norm, &saved.rstd);
                let grad_weight = &mut grads.attention_norm;
                b.norm_residual_backward(norm, branch, weight, rstd, &g.stream, &mut g.hidden, grad_weight);
                &g.hidden
            }
        };
        b.linear_input_grad(t, w.queries, w.hidden, grad_out, &p.out, &mut g.attention);
        b.linear_weight_grad(t, w.queries, w.hidden, grad_out, &saved.attention, accumulate, &mut grads.out);
        b.attention_backward(
            self.shape,
            &saved.qkv,
            &saved.attention,
            &saved.log_sum,
            self.attend_from,
            &g.attention,
            &mut g.qkv,
        );
        b.rope(self.shape, self.position, self.cos, self.sin, true, &mut g.qkv);
        if let (Some((raw, rstd)), Some(weights), Some(norms), Some(grad_weights)) =
            (&saved.raw, &p.qk_norm, self.qk_norms(), &mut grads.qk_norm)
        {
            for i in 0..2 {
                b.norm_segments_backward(
                    norms[i],
                    raw,
                    &weights[i],
                    &rstd[i],
                    &mut g.qkv,
                    &mut grad_weights[i],
                );
            }
        }

        match w.family.norm_place {
            NormPlace::Before => {
                b.norm(norm, self.eps, input, &p.attention_norm, hidden, &mut saved.rstd);
            }
            NormPlace::After => b.narrow_copy(t * w.hidden, input, hidden),
        }
        b.linear_weight_grad(t, w.hidden, w.qkv, &g.qkv, hidden, accumulate, &mut grads.qkv);
        b.linear_input_grad(t, w.hidden, w.qkv, &g.qkv, &p.qkv, &mut g.hidden);
        let (stream, copy) = (&mut g.stream, &mut g.stream_narrow);
        match w.family.norm_place {
            NormPlace::Before => {
                let (weight, grad_weight) = (&p.attention_norm, &mut grads.attention_norm);
                b.norm_backward(norm, input, weight, &saved.rstd, &g.hidden, stream, copy, grad_weight);
            }
            NormPlace::After => b.add_narrow(t * w.hidden, &g.hidden, stream, copy),
        }
    }
}
