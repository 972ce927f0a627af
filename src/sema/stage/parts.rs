//! Fields of a stage that need no curve: its length, intervals and named checkpoints.

use crate::diag::{Applicability, Diagnostic};
use crate::schema;
use crate::source::Span;
use crate::syntax::ast::{self, Rational, Unit};

use crate::diag::codes;
use crate::sema::chain::{Frame, whole};
use crate::sema::checker::Checker;
use crate::sema::clock::Length;
use crate::sema::curriculum::{Checkpoint, Every};
use crate::sema::eval::Scope;
use crate::sema::fields::Fields;
use crate::sema::property::is_property;
use crate::sema::show;
use crate::sema::value::{Kind, Val};

impl<'p> Checker<'p> {
    /// `tokens` or `steps`, exactly one.
    pub(super) fn length(
        &mut self,
        fields: &Fields<'p>,
        scope: &Scope<'p>,
        name_span: Span,
        inherited: Option<u64>,
    ) -> Option<Length> {
        match (fields.get("tokens"), fields.get("steps")) {
            (Some(tokens), Some(steps)) => {
                self.push(
                    Diagnostic::error(
                        codes::STAGE_LENGTH,
                        steps.span,
                        "a stage with two lengths",
                        "the length in steps",
                    )
                    .label(tokens.span, "the length in tokens")
                    .help("keep one; the plan prints the other"),
                );
                None
            }
            (Some(_), None) => {
                let value = self.field(fields, "tokens", scope)?;
                if let Kind::Relative { .. } = value.kind {
                    self.push(
                        Diagnostic::error(
                            codes::STAGE_LENGTH,
                            value.span,
                            format!("a stage's length as {}", value.describe()),
                            "this depends on the length itself",
                        )
                        .help("define `param total: tokens = …` and write `5% of total`"),
                    );
                    return None;
                }
                if let Kind::Quantity(seqs, Unit::Seqs) = value.kind {
                    let rows = match self.field(fields, "context", scope) {
                        Some(Val { kind: Kind::Number(_) | Kind::Quantity(_, Unit::Tokens), span }) => {
                            Some(self.text(span))
                        }
                        Some(_) => None,
                        None => inherited.map(show::length),
                    };
                    return self.length_in_seqs(seqs, &value, rows);
                }
                self.tokens(&value, "tokens").map(Length::Tokens)
            }
            (None, Some(_)) => {
                let value = self.field(fields, "steps", scope)?;
                match value.kind {
                    Kind::Number(n) | Kind::Quantity(n, Unit::Steps) => {
                        self.positive_count(n, value.span, "steps").map(Length::Steps)
                    }
                    _ => {
                        self.wrong(&value, schema::Ty::Steps, "steps");
                        None
                    }
                }
            }
            (None, None) => {
                if !fields.doubtful {
                    self.push(
                        Diagnostic::error(
                            codes::STAGE_LENGTH,
                            name_span,
                            "a stage without a length",
                            "`tokens` or `steps` must be written",
                        )
                        .help("for example `tokens = 50B`"),
                    );
                }
                None
            }
        }
    }

    /// Report a length that counts sequences, each of so many tokens as `rows` says.
    fn length_in_seqs<T>(&mut self, seqs: Rational, value: &Val<'p>, rows: Option<String>) -> Option<T> {
        let found = value.describe();
        let d = Diagnostic::error(
            codes::WRONG_VALUE,
            value.span,
            format!("`tokens` takes {}, not {found}", schema::Ty::Tokens.describe()),
            format!("this is {found}"),
        );
        let seqs = u64::try_from(seqs.numer()).ok().filter(|_| seqs.is_integer()).map(show::digits);
        self.push(match seqs.zip(rows) {
            Some((seqs, rows)) => {
                let product = format!("{seqs} * {rows}");
                d.help(format!("multiply by the tokens of a sequence: `tokens = {product}`")).fix(
                    format!("write `{product}`"),
                    Applicability::MaybeIncorrect,
                    value.span,
                    product,
                )
            }
            None => d.help("multiply by the tokens of a sequence, as in `tokens = 500_000 * 4Ki`"),
        });
        None
    }

    /// A period.
    pub(crate) fn every(&mut self, value: &Val<'p>, field: &str, frame: Frame<'_>) -> Option<Every> {
        if let Kind::Quantity(n, Unit::Steps) = value.kind {
            let steps = self.positive_count(n, value.span, field)?;
            return Some(Every { steps, tokens: None });
        }
        let tokens = self.span(value, field, frame, |clock, steps| clock.span(0, steps))?;
        let (tokens, clock) = (whole(tokens.ceil()), frame.clock?);
        let steps = clock.step_at(tokens);
        if steps == 0 {
            self.push(Diagnostic::error(
                codes::OUT_OF_RANGE,
                value.span,
                format!("`{field}` is zero"),
                "must be at least one step",
            ));
            return None;
        }
        Some(Every { steps, tokens: clock.moves().then_some(tokens) })
    }

    /// Named checkpoints.
    pub(super) fn checkpoints(
        &mut self,
        block: &'p ast::Block,
        scope: &Scope<'p>,
        frame: Frame<'_>,
    ) -> Option<Vec<Checkpoint>> {
        let mut out: Vec<Checkpoint> = Vec::new();
        let mut sound = true;
        for entry in &block.entries {
            let ast::EntryKind::Block(inner) = &entry.kind else { continue };
            if inner.kind.text != "checkpoint" {
                continue;
            }
            let Some(name) = self.named(inner) else {
                sound = false;
                continue;
            };
            if is_property(&name.text) {
                self.push(
                    Diagnostic::error(
                        codes::RESERVED_NAME,
                        name.span,
                        format!("a checkpoint cannot be called `{}`", name.text),
                        format!("`stage.{}` is a number of the stage itself", name.text),
                    )
                    .help("choose another name"),
                );
                sound = false;
                continue;
            }
            let Some(fields) = self.fields(inner) else { continue };
            sound &= self.require(&fields, inner) && !inner.incomplete;
            if let Some(first) = out.iter().find(|c| c.name == name.text) {
                let first = first.span;
                self.push(
                    Diagnostic::error(
                        codes::DUPLICATE_NAME,
                        name.span,
                        format!("checkpoint `{}` twice in one stage", name.text),
                        "named again here",
                    )
                    .label(first, "first named here"),
                );
                sound = false;
                continue;
            }
            let Some(at) = self.field(&fields, "at", scope) else { continue };
            let forever = match self.field(&fields, "keep", scope) {
                Some(v) => self.word(&v, schema::KEEP, "keep").is_some(),
                None => false,
            };
            let Some(position) = self.span(&at, "at", frame, |clock, steps| clock.tokens_at(steps)) else {
                sound = false;
                continue;
            };
            let tokens = whole(position.floor());
            if tokens == 0 {
                self.push(
                    Diagnostic::error(
                        codes::STAGE_CHECKPOINT,
                        at.span,
                        format!("checkpoint `{}` before the first step", name.text),
                        "nothing is written there",
                    )
                    .help("start from what the stage starts `from`"),
                );
                sound = false;
                continue;
            }
            // The last step of a stage goes past its end where the length is no whole number of batches.
            let last = matches!(at.kind, Kind::Quantity(_, Unit::Steps))
                && frame.clock.is_some_and(|clock| tokens <= clock.tokens_at(clock.steps));
            let tokens = if last { tokens.min(frame.tokens) } else { tokens };
            if tokens > frame.tokens {
                self.push(
                    Diagnostic::error(
                        codes::STAGE_CHECKPOINT,
                        at.span,
                        format!(
                            "checkpoint `{}` lies {} after the end of the stage",
                            name.text,
                            show::tokens(tokens - frame.tokens)
                        ),
                        format!("at token {}", show::count(tokens)),
                    )
                    .label(frame.length_span, format!("the stage has {}", show::tokens(frame.tokens)))
                    .help("`at = 100% of stage` is its end"),
                );
                sound = false;
                continue;
            }
            let step = frame.clock.map_or(0, |c| c.step_at(tokens));
            out.push(Checkpoint { name: name.text.clone(), span: name.span, tokens, step, forever });
        }
        sound.then_some(out)
    }

    /// The name of an inner block that must have one.
    pub(crate) fn named(&mut self, block: &'p ast::Block) -> Option<&'p ast::Ident> {
        if block.name.is_none() {
            self.push(
                Diagnostic::error(
                    codes::BLOCK_NAME,
                    block.kind.span,
                    format!("`{}` without a name", block.kind.text),
                    "a name is missing after this",
                )
                .help(format!("write `{} NAME {{ … }}`", block.kind.text)),
            );
        }
        block.name.as_ref()
    }
}
