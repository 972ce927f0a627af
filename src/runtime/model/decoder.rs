//! A decoder in training: weights, gradients, moments and the order of a step.
//!
//! Everything is written once over [`Backend`]; knows nothing of where batches come from.

use std::borrow::Cow;
use std::time::Instant;

use crate::layers::Positions;
use crate::plan::Architecture;
use crate::runtime::backend::peak::product_peak;
use crate::runtime::backend::{Backend, Load, LossShape};
use crate::runtime::batch::{Batch, IGNORE};
use crate::runtime::engine::{
    Engine, EngineError, Gradients, Hyper, MemoryReport, Moments, NoiseSample, Part, RowLoss, StepReport,
};
use crate::runtime::model::backward::{Flow, Read};
use crate::runtime::model::forward::Pass;
use crate::runtime::model::memory;
use crate::runtime::model::parameters::{self, Parameters, Role, Slot};
use crate::runtime::model::rope_table::RopeTable;
use crate::runtime::model::tensor::StateDict;
use crate::runtime::model::workspace::{Again, Rows, Schedule, Scratch, Widths, Workspace, schedule};
use crate::runtime::optim::optimizer::Optimizer;
use crate::runtime::optim::{Rule, adamw};

/// A decoder on one backend.
pub(crate) struct Decoder<B: Backend> {
    backend: B,
    architecture: Architecture,
    widths: Widths,
    budget: Option<u64>,
    pub(super) slots: Parameters<Slot>,
    pub(super) weights: Parameters<B::Wide>,
    /// Of the next update.
    rule: Rule,
    /// Since the first step.
    optimizer: Option<Optimizer<B>>,
    pub(super) workspace: Option<Workspace<B>>,
    schedule: Schedule,
    /// Of the last run that was asked for it: predicted positions in the first part of the batch and
    /// the norm of the gradient of their mean loss.
    part: Option<(u64, f64)>,
}

/// Tokens that go through the model at once when only losses are wanted.
const LOSS_TOKENS: usize = 4096;

/// What a pass is for.
#[derive(Clone, Copy, PartialEq)]
enum Purpose {
    Loss,
    /// Gradients of the mean loss with this weight of log²Z.
    Gradients {
        z_loss: f64,
        /// Stop half-way for the norm of the gradient so far.
        sample_noise: bool,
        /// Have moments for the update that follows.
        update: bool,
    },
}

impl<B: Backend> Decoder<B> {
    /// A decoder with the given weights.
    pub(crate) fn new(
        backend: B,
        architecture: &Architecture,
        weights: &StateDict,
        budget: Option<u64>,
    ) -> Result<Self, EngineError> {
        let widths = Widths::of(architecture)?;
        let slots = parameters::slots(architecture)?;
        parameters::check(&slots, weights)?;
        let mut buffers = slots.try_map(|slot| backend.wide(slot.len))?;
        parameters::write(&backend, &slots, weights, &mut buffers)?;
        backend.finish()?;
        Ok(Decoder {
            backend,
            architecture: architecture.clone(),
            widths,
            budget,
            slots,
            weights: buffers,
            rule: Rule::default(),
            optimizer: None,
            workspace: None,
            schedule: Schedule { rows: 1, again: Again::default(), overlaid: false },
            part: None,
        })
    }

    /// Check a batch against the model and the table, before anything is changed.
    fn check(&self, batch: &Batch, rope: &RopeTable) -> Result<(), EngineError> {
        let refuse = |reason: String| Err(EngineError::Batch { reason });
        let (rows, context) = (batch.rows(), batch.context);
        if rows == 0 || context == 0 {
            return refuse(format!("{rows} rows of {context} tokens"));
        }
        let lengths = [&batch.tokens, &batch.targets, &batch.attend_from, &batch.positions];
        if let Some(wrong) = lengths.iter().find(|v| v.len() != rows * context) {
            return refuse(format!("{} values for {rows} rows of {context}", wrong.len()));
        }
        if rope.half() != self.widths.head_dim / 2 {
            return refuse(format!("{} RoPE frequencies for heads of {}", rope.half(), self.widths.head_dim));
        }
        let vocab_size = self.architecture.vocab_size;
        let targets = batch.targets.iter().filter(|t| **t != IGNORE);
        if let Some(&id) = batch.tokens.iter().chain(targets).find(|t| **t as usize >= vocab_size) {
            return Err(EngineError::TokenRange { id, vocab_size });
        }
        if let Some(p) = batch.positions.iter().find(|p| **p as usize >= rope.positions()) {
            return refuse(format!("position {p} beyond the RoPE table of {}", rope.positions()));
        }
        for row in batch.attend_from.chunks_exact(context) {
            let mut last = 0;
            for (t, &from) in row.iter().enumerate() {
                if from < last || from as usize > t {
                    return refuse(format!("position {t} attends from {from}, the one before from {last}"));
                }
                last = from;
            }
        }
        Ok(())
    }

    /// Make buffers for this shape, or keep those there are. `at_most` rows may go through the model at once.
    ///
    /// What outlives the workspace lies in front of it: of a device whose memory is handed out in pieces, what the
    /// next one, which may be longer, can have is then all that is left.
    fn prepare(
        &mut self,
        batch: &Batch,
        rope: &RopeTable,
        purpose: Purpose,
        at_most: usize,
    ) -> Result<Schedule, EngineError> {
        let training = purpose != Purpose::Loss;
        let mut rows = Rows { count: batch.rows(), context: batch.context, at_most };
        if !training {
            // A measurement may bring thousands of rows, and nothing is gained by more at once.
            rows.at_most = at_most.min((LOSS_TOKENS / rows.context).max(1));
        }
        let load = memory::load(&self.architecture, 0, rows.context)?;
        let schedule = self.schedule_for(rows, training, load)?;
        let tokens = schedule.rows * rows.context;
        let load = Load { tokens, ..load };
        let scratch = Scratch::of::<B>(&self.widths, rows, schedule, training);
        let first = matches!(purpose, Purpose::Gradients { update: true, .. }) && self.optimizer.is_none();
        let kept = self.workspace.as_ref().is_some_and(|w| {
            w.tokens >= tokens
                && w.positions >= rope.positions()
                && w.scratch.holds(scratch)
                && (!training
                    || (w.gradients.is_some()
                        && self.backend.has_scratch(load)
                        && w.again == schedule.again
                        && w.overlaid == schedule.overlaid))
        });
        if first || !kept {
            // Room for tables that were there before saves making another when they come again; within a budget
            // it may be the room that this batch was promised.
            let before = self.workspace.as_ref().filter(|_| self.budget.is_none()).map_or(0, |w| w.positions);
            let positions = before.max(rope.positions());
            self.make_way()?;
            if first {
                self.optimizer = Some(Optimizer::new(&self.backend, &self.slots, self.rule)?);
            }
            for weight in self.operands() {
                self.backend.keep_operand(weight)?;
            }
            self.backend.keep_scratch(training.then_some(load))?;
            let (slots, widths) = (&self.slots, &self.widths);
            self.workspace =
                Some(Workspace::new(&self.backend, widths, slots, rows, positions, schedule, training)?);
        }
        self.schedule = schedule;
        Ok(schedule)
    }

    /// Free what the next batch brings with it again, so that what is made now lies in front of that.
    fn make_way(&mut self) -> Result<(), EngineError> {
        self.workspace = None;
        self.backend.keep_scratch(None)
    }

    /// The weights that products read: not the table of embeddings, unless it is the output matrix too.
    fn operands(&self) -> impl Iterator<Item = &B::Wide> {
        let read = |slot: &Slot| match slot.role {
            Role::Matrix | Role::Output => true,
            Role::Embedding => self.slots.head.is_none(),
            Role::Norm | Role::Bias => false,
        };
        self.slots.iter().zip(self.weights.iter()).filter(move |(slot, _)| read(slot)).map(|(_, w)| w)
    }

    fn schedule_for(&self, rows: Rows, training: bool, load: Load) -> Result<Schedule, EngineError> {
        let parameters = if training {
            parameters::weight_bytes::<B>(&self.slots, 2) + self.rule.bytes::<B>(&self.slots)
        } else {
            let moments = self.optimizer.as_ref().map_or(0, |held| held.rule.bytes::<B>(&self.slots));
            parameters::weight_bytes::<B>(&self.slots, 1) + moments
        };
        let held = |tokens| parameters + B::overhead_bytes(Load { tokens, ..load });
        schedule::<B>(&self.widths, &self.slots, rows, training, held, self.budget)
    }

    /// Run the batch; per-token losses, and gradients left in the workspace.
    fn run(&mut self, batch: &Batch, rope: &RopeTable, purpose: Purpose) -> Result<Vec<f32>, EngineError> {
        let context = batch.context;
        let mut nll = vec![0.0; batch.tokens.len()];
        let predicted = batch.predicted() as f64;
        let part = matches!(purpose, Purpose::Gradients { sample_noise: true, .. }) && batch.rows() > 1;
        let at_most = if part { batch.rows().div_ceil(2) } else { batch.rows() };
        let group = self.prepare(batch, rope, purpose, at_most)?.rows * context;
        self.part = None;
        for (i, losses) in nll.chunks_mut(group).enumerate() {
            let tokens = i * group..i * group + losses.len();
            self.upload(batch, rope, tokens);
            self.backend.begin();
            self.pass(losses.len() / context, context, purpose, predicted, i > 0);
            self.backend.end();
            if let Some(workspace) = &self.workspace {
                self.backend.read(&workspace.nll, 0, losses);
            }
            let seen = (i + 1) * group;
            if part && self.part.is_none() && 2 * seen >= batch.tokens.len() {
                let positions = batch.targets[..seen].iter().filter(|t| **t != IGNORE).count() as u64;
                // The gradients so far are those of a sum over the part, divided by the whole.
                let norm = self.gradient_norm() * predicted / positions.max(1) as f64;
                self.part = Some((positions, norm));
            }
        }
        self.backend.finish()?;
        Ok(nll)
    }

    fn upload(&mut self, batch: &Batch, rope: &RopeTable, tokens: std::ops::Range<usize>) {
        let Some(w) = &mut self.workspace else { return };
        self.backend.write_index(&batch.tokens[tokens.clone()], &mut w.ids);
        self.backend.write_index(&batch.targets[tokens.clone()], &mut w.targets);
        let attend_from = &batch.attend_from[tokens.clone()];
        self.backend.write_index(attend_from, &mut w.attend_from);
        if let (Some(windowed), Some(window)) = (&mut w.windowed, self.architecture.pattern.sliding_window) {
            let window = u32::try_from(window).unwrap_or(u32::MAX);
            let within = |(at, from): (usize, &u32)| {
                let behind = ((at % batch.context) as u32 + 1).saturating_sub(window);
                behind.max(*from)
            };
            let from: Vec<u32> = attend_from.iter().enumerate().map(within).collect();
            self.backend.write_index(&from, windowed);
        }
        self.backend.write_index(&batch.positions[tokens], &mut w.position);
        // They are as large as a batch many times over, and seldom others than in the step before.
        if !w.table.as_ref().is_some_and(|held| held.is(rope)) {
            let plain = w.plain.as_mut().map(|to| (rope.plain(), to));
            for (from, to) in [([rope.cos(), rope.sin()], &mut w.rotation)].into_iter().chain(plain) {
                self.backend.write(from[0], &mut to[0], 0);
                self.backend.write(from[1], &mut to[1], 0);
            }
            w.table = Some(rope.clone());
        }
    }

    /// Forward and, if asked, backward over the rows in the workspace.
    fn pass(&mut self, rows: usize, context: usize, purpose: Purpose, predicted: f64, accumulate: bool) {
        let Some(ws) = &mut self.workspace else { return };
        let (b, weights, widths, architecture) =
            (&self.backend, &self.weights, &self.widths, &self.architecture);
        let (from, windowed) = (&ws.attend_from, ws.windowed.as_ref());
        let (position, scaled, plain) = (&ws.position, &ws.rotation, ws.plain.as_ref());
        let pass_of = |layer: usize| Pass {
            backend: b,
            widths,
            eps: architecture.rms_norm_eps,
            shape: widths.attention(rows, context),
            attend_from: windowed.filter(|_| architecture.pattern.window(layer).is_some()).unwrap_or(from),
            position,
            rotation: match architecture.positions(layer) {
                Positions::Scaled => Some(scaled),
                Positions::Plain => Some(plain.unwrap_or(scaled)),
                Positions::None => None,
            },
        };
        // The last norm is that of the stream, whatever the layers.
        let pass = pass_of(0);
        let (tokens, layers, again) = (pass.tokens(), weights.layers.len(), ws.again);
        let entries = ws.entries.len();
        let (stream, hidden, activated) = (&mut ws.stream, &mut ws.hidden, &mut ws.activated);
        let (packed, logits) = (&mut ws.packed, &mut ws.logits);

        b.embed(tokens, widths.hidden, widths.embedding_scale(), &weights.embedding, &ws.ids, stream);
        for layer in 0..layers {
            let (p, first, second) = (&weights.layers[layer], 2 * layer % entries, (2 * layer + 1) % entries);
            let pass = pass_of(layer);
            let saved = &mut ws.attention[Again::place(layer, again.layers)];
            let input = ws.inputs.get_mut(2 * layer).and_then(Option::as_mut).unwrap_or(hidden);
            pass.attention(p, stream, &mut ws.entries[first], saved, input, packed);
            let saved = &mut ws.feed_forward[Again::place(layer, again.feed_forwards)];
            let input = ws.inputs.get_mut(2 * layer + 1).and_then(Option::as_mut).unwrap_or(hidden);
            pass.feed_forward(p, stream, &mut ws.entries[second], saved, input, activated);
        }
        let (norm, last) = (pass.stream_norm(), &mut ws.entries[2 * layers % entries]);
        b.norm(norm, pass.eps, stream, &weights.norm, last, hidden, &mut ws.final_rstd);
        let mut shape = LossShape {
            tokens,
            width: widths.hidden,
            vocab: self.architecture.vocab_size,
            gradient_scale: 0.0,
            z_loss: 0.0,
        };
        let (Purpose::Gradients { z_loss, .. }, Some(g), Some(grads)) =
            (purpose, &mut ws.gradients, &mut ws.weight_gradients)
        else {
            b.loss(shape, hidden, weights.output(), &ws.targets, &mut ws.nll, logits);
            return;
        };

        shape.gradient_scale = 1.0 / predicted;
        shape.z_loss = z_loss;
        if !accumulate {
            b.zero(self.slots.norm.len, &mut grads.norm);
            if grads.head.is_some() {
                b.zero(self.slots.embedding.len, &mut grads.embedding);
            }
        }
        let (output, nll, grad_w) = (weights.output(), &mut ws.nll, grads.output_mut());
        let grad_x = &mut g.hidden;
        b.loss_backward(shape, hidden, output, &ws.targets, nll, grad_x, accumulate, grad_w, logits);
        // From here on the stream's gradient takes its place.
        b.zero(tokens * widths.hidden, stream);
        let (weight, rstd, copy) = (&weights.norm, &ws.final_rstd, &mut g.stream_narrow);
        b.norm_backward(norm, last, weight, rstd, &g.hidden, stream, copy, &mut grads.norm);
        for layer in (0..layers).rev() {
            let pass = pass_of(layer);
            let (first, second) = (&ws.entries[2 * layer], &ws.entries[2 * layer + 1]);
            let [first_input, second_input] = [2 * layer, 2 * layer + 1].map(|i| ws.inputs[i].as_ref());
            let attention = &mut ws.attention[Again::place(layer, again.layers)];
            let feed_forward = &mut ws.feed_forward[Again::place(layer, again.feed_forwards)];
            let (p, grads) = (&weights.layers[layer], &mut grads.layers[layer]);
            if !accumulate {
                // Only now: until the layer behind was through, its activations may have been there.
                for (slot, grad) in self.slots.layers[layer].iter().zip(grads.iter_mut()) {
                    if slot.role.is_vector() {
                        b.zero(slot.len, grad);
                    }
                }
            }
            // The last of the layers that share their activations still finds its own there.
            if layer + 1 < again.feed_forwards {
                pass.feed_forward_again(p, second, feed_forward, hidden, activated);
            }
            let read = Read { entry: second, input: second_input };
            let flow = &mut Flow { stream, scratch: g, hidden, accumulate };
            pass.feed_forward_backward(p, read, feed_forward, activated, flow, grads);
            if layer + 1 < again.layers {
                pass.attention_again(p, first, attention, flow.hidden, packed);
            }
            let read = Read { entry: first, input: first_input };
            pass.attention_backward(p, read, attention, packed, flow, grads);
        }
        b.embed_backward(
            tokens,
            widths.hidden,
            widths.embedding_scale(),
            stream,
            &ws.ids,
            &mut grads.embedding,
        );
    }

    pub(super) fn weight_gradients(&self) -> Option<&Parameters<B::Wide>> {
        self.workspace.as_ref()?.weight_gradients.as_ref()
    }

    /// Global norm of the gradients as they stand.
    fn gradient_norm(&self) -> f64 {
        self.weight_gradients().map_or(0.0, |grads| {
            let buffers = self.slots.iter().map(|slot| slot.len).zip(grads.iter());
            self.backend.squared_norms(buffers).sqrt()
        })
    }

    fn update(&mut self, hyper: &Hyper, scale: f64) -> Result<(), EngineError> {
        let grads = self.workspace.as_ref().and_then(|w| w.weight_gradients.as_ref());
        let Some(grads) = grads else { return Ok(()) };
        let Some(optimizer) = &mut self.optimizer else { return Ok(()) };
        optimizer.update(&self.backend, &self.slots, hyper, scale, grads, &mut self.weights);
        self.backend.finish()
    }
}

fn row_losses(batch: &Batch, nll: &[f32]) -> Vec<RowLoss> {
    nll.chunks_exact(batch.context)
        .zip(batch.targets.chunks_exact(batch.context))
        .map(|(nll, targets)| RowLoss {
            nll: nll.iter().map(|x| f64::from(*x)).sum(),
            predicted: targets.iter().filter(|t| **t != IGNORE).count() as u32,
        })
        .collect()
}

impl<B: Backend> Engine for Decoder<B> {
    fn train_step(
        &mut self,
        batch: &Batch,
        rope: &RopeTable,
        hyper: &Hyper,
    ) -> Result<StepReport, EngineError> {
        self.check(batch, rope)?;
        let predicted = batch.predicted();
        if predicted == 0 {
            let nothing = RowLoss { nll: 0.0, predicted: 0 };
            return Ok(StepReport {
                loss: f64::NAN,
                grad_norm: 0.0,
                rows: vec![nothing; batch.rows()],
                noise: None,
                finite: false,
            });
        }
        self.rule = hyper.rule();
        if let Some(held) = self.optimizer.as_ref().map(|o| o.rule).filter(|held| *held != self.rule) {
            return Err(EngineError::Moments { held: held.name(), asked: self.rule.name() });
        }
        let z_loss = hyper.z_loss.unwrap_or(0.0);
        let purpose = Purpose::Gradients { z_loss, sample_noise: hyper.sample_noise, update: true };
        let nll = self.run(batch, rope, purpose)?;
        let rows = row_losses(batch, &nll);
        let loss = rows.iter().map(|r| r.nll).sum::<f64>() / predicted as f64;
        let norm = self.gradient_norm();
        let noise = self.part.map(|(part_tokens, part_norm)| NoiseSample {
            part_tokens,
            tokens: predicted as u64,
            part_norm,
            norm,
        });
        let finite = loss.is_finite() && norm.is_finite();
        if finite {
            self.update(hyper, adamw::clip_factor(norm, hyper.clip))?;
        }
        Ok(StepReport { loss, grad_norm: norm, rows, noise, finite })
    }

    fn losses(&mut self, batch: &Batch, rope: &RopeTable) -> Result<Vec<RowLoss>, EngineError> {
        self.check(batch, rope)?;
        let nll = self.run(batch, rope, Purpose::Loss)?;
        Ok(row_losses(batch, &nll))
    }

    fn token_losses(&mut self, batch: &Batch, rope: &RopeTable) -> Result<Vec<f32>, EngineError> {
        self.check(batch, rope)?;
        self.run(batch, rope, Purpose::Loss)
    }

    fn gradients(&mut self, batch: &Batch, rope: &RopeTable) -> Result<Gradients, EngineError> {
        self.check(batch, rope)?;
        if batch.predicted() == 0 {
            return Err(EngineError::Batch { reason: "no position has a target".into() });
        }
        let purpose = Purpose::Gradients { z_loss: 0.0, sample_noise: false, update: false };
        let nll = self.run(batch, rope, purpose)?;
        let rows = row_losses(batch, &nll);
        let loss = rows.iter().map(|r| r.nll).sum::<f64>() / batch.predicted() as f64;
        let gradients = match self.weight_gradients() {
            Some(grads) => parameters::read(&self.backend, &self.slots, grads)?,
            None => StateDict::new(),
        };
        Ok(Gradients { loss, gradients })
    }

    fn weights(&self) -> Result<StateDict, EngineError> {
        parameters::read(&self.backend, &self.slots, &self.weights)
    }

    fn load_weights(&mut self, weights: &StateDict) -> Result<(), EngineError> {
        parameters::write(&self.backend, &self.slots, weights, &mut self.weights)?;
        self.clear_moments();
        self.backend.finish()
    }

    fn moments(&self) -> Result<Option<Moments>, EngineError> {
        self.optimizer.as_ref().map(|o| o.read(&self.backend, &self.slots)).transpose()
    }

    fn shapes(&self, part: Part) -> Vec<(String, Vec<usize>)> {
        match (part, &self.optimizer) {
            (Part::Weight, _) => parameters::shapes(&self.slots),
            (_, Some(optimizer)) => optimizer.shapes(&self.slots, part),
            (_, None) => Vec::new(),
        }
    }

    fn tensor(&self, part: Part, name: &str) -> Result<Option<Cow<'_, [f32]>>, EngineError> {
        match (part, &self.optimizer) {
            (Part::Weight, _) => parameters::look(&self.backend, &self.slots, &self.weights, name),
            (_, Some(optimizer)) => optimizer.look(&self.backend, &self.slots, part, name),
            (_, None) => Ok(None),
        }
    }

    fn load_moments(&mut self, moments: Moments) -> Result<(), EngineError> {
        let rule = Rule::of(&self.slots, &moments);
        parameters::check(&self.slots, &moments.first)?;
        parameters::check(&rule.second_slots(&self.slots), &moments.second)?;
        // Free the old ones first: both together may not fit.
        self.optimizer = None;
        self.make_way()?;
        self.optimizer = Some(Optimizer::of(&self.backend, &self.slots, moments)?);
        self.backend.finish()
    }

    fn clear_moments(&mut self) {
        if let Some(optimizer) = &mut self.optimizer {
            optimizer.clear(&self.backend, &self.slots);
        }
    }

    fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    fn memory(&self) -> MemoryReport {
        let copies = 1 + u64::from(self.weight_gradients().is_some());
        let optimizer = self.optimizer.as_ref().map_or(0, |o| o.rule.bytes::<B>(&self.slots));
        let (layers, again) = (self.architecture.num_hidden_layers, self.schedule.again);
        MemoryReport {
            parameters_bytes: parameters::weight_bytes::<B>(&self.slots, copies) + optimizer,
            activations_bytes: self.workspace.as_ref().map_or(0, |w| w.bytes) + self.backend.scratch_bytes(),
            rows_at_once: self.schedule.rows,
            layers_kept: layers - again.feed_forwards,
            feed_forwards_recomputed: again.feed_forwards - again.layers,
            layers_recomputed: again.layers,
        }
    }

    fn peak_flops(&self) -> Option<f64> {
        let start = Instant::now();
        product_peak(&self.backend, &|| start.elapsed().as_secs_f64(), 0.05).ok()
    }

    fn describe(&self) -> String {
        self.backend.describe()
    }
}
