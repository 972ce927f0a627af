//! Values where something definite is expected: a number of tokens, a share, a whole number.
//! Each reader reports what is wrong once and returns `None`; poison passes in silence.

use crate::diag::{Applicability, Diagnostic};
use crate::schema::{self, Family, Ty};
use crate::source::Span;
use crate::syntax::ast::{Rational, Unit};

use super::checker::Checker;
use super::habits;
use super::show;
use super::value::{Kind, Val};
use crate::diag::codes;

/// The largest count of tokens: every whole number up to it is exact as a 64-bit float.
pub(crate) const MAX_TOKENS: u64 = 1 << 53;

/// The longest row, in tokens: the shares of its sources, in 2^36ths of a token, fit 64 bits.
pub const MAX_CONTEXT: u64 = 1 << 26;

impl<'p> Checker<'p> {
    /// "`field` takes X, not Y".
    pub(crate) fn wrong(&mut self, value: &Val<'p>, ty: Ty, field: &str) {
        if value.is_poison() {
            return;
        }
        let found = value.describe();
        let mut d = Diagnostic::error(
            if matches!(value.kind, Kind::Share(_)) { codes::BARE_SHARE } else { codes::WRONG_VALUE },
            value.span,
            format!("`{field}` takes {}, not {found}", ty.describe()),
            format!("this is {found}"),
        );
        if let Kind::Text(text, _) = &value.kind
            && text.starts_with(|c: char| c.is_ascii_digit())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-%".contains(c))
        {
            d = d.fix("take the quotes away", Applicability::MaybeIncorrect, value.span, text.to_string());
        }
        // What is defined in the file goes by its name.
        if let (Kind::Text(text, _), Ty::From | Ty::Mix) = (&value.kind, ty)
            && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._[]".contains(c))
        {
            d = d.help("a definition goes by its name, without quotes; a path on disk is what `model` and `source` take");
            d = d.fix("take the quotes away", Applicability::MaybeIncorrect, value.span, text.to_string());
        }
        if let Some((help, meant)) = self.meant_by(value, ty) {
            d = d.help(help);
            if let Some(meant) = meant {
                d = d.fix(format!("write `{meant}`"), Applicability::MaybeIncorrect, value.span, meant);
            }
        }
        if let Kind::Quantity(_, unit @ (Unit::Steps | Unit::Epochs | Unit::Seqs)) = value.kind
            && field == "tokens"
            && ty == Ty::Tokens
        {
            d = match unit {
                Unit::Steps => d.help("a length in steps is the field `steps`: `steps = 2_000`"),
                Unit::Epochs => d.help(
                    "write the number of tokens; `2 * math.tokens` is that of two passes over a source `math`, where a \
                     stage reads nothing else",
                ),
                _ => d.help("write the number of tokens: `50B`"),
            };
        }
        // `share * 50B`, which is a share still.
        let written = self.text(value.span);
        let product = written.split_once('*').map(|(a, b)| (a.trim(), b.trim()));
        if let (Kind::Share(_), Ty::Tokens | Ty::Span, Some((share, whole))) = (&value.kind, ty, product)
            && !share.is_empty()
            && !whole.contains('*')
        {
            let meant = format!("{share} of {whole}");
            d = d.help(format!("a share times a number is a share: write `{meant}`")).fix(
                format!("write `{meant}`"),
                Applicability::MaybeIncorrect,
                value.span,
                meant,
            );
        } else if let Kind::Share(_) = value.kind {
            let of = match ty {
                Ty::Span | Ty::Tokens => Some("of stage"),
                Ty::Target | Ty::Lr => Some("of peak"),
                _ => None,
            };
            if let Some(of) = of {
                d = d.help(format!("say of what: `… {of}`")).fix(
                    format!("add `{of}`"),
                    Applicability::MaybeIncorrect,
                    Span { start: value.span.end, ..value.span },
                    format!(" {of}"),
                );
            }
        }
        self.push(d);
    }

    /// What is meant by a list or a string in the place of a curve, a mix or a function, and how it is written.
    fn meant_by(&self, value: &Val<'p>, ty: Ty) -> Option<(String, Option<String>)> {
        match (&value.kind, ty) {
            (Kind::List(items), Ty::Lr | Ty::Batch | Ty::Context) => {
                let segment =
                    |v: &Val<'_>| matches!(&v.kind, Kind::Call(c) if c.function.family == Family::Segment);
                let curve =
                    items.iter().skip(1).any(segment).then(|| {
                        items.iter().map(|v| self.text(v.span)).collect::<Vec<_>>().join(" then ")
                    })?;
                Some(("the parts of a curve are joined by `then`".to_owned(), Some(curve)))
            }
            (Kind::List(_), Ty::Mix) => Some((habits::SHARES_STAND_IN_A_MIX.to_owned(), None)),
            (Kind::Text(name, _), Ty::Optimizer | Ty::Rope) => {
                let family = if ty == Ty::Rope { Family::Rope } else { Family::Optimizer };
                let name = name.to_lowercase();
                let mut known = schema::FUNCTIONS.iter().filter(|f| f.family == family);
                let function = known.find(|f| name.starts_with(f.name))?;
                let needed: Vec<String> =
                    function.params.iter().filter(|p| p.required).map(|p| format!("{}: …", p.name)).collect();
                let call = format!("{}({})", function.name, needed.join(", "));
                Some(match needed.is_empty() {
                    true => ("it is a function, without quotes".to_owned(), Some(call)),
                    false => (format!("it is a function, without quotes: `{call}`"), None),
                })
            }
            _ => None,
        }
    }

    /// A whole, non-negative number that fits.
    pub(crate) fn count(&mut self, n: Rational, span: Span, field: &str) -> Option<u64> {
        if !n.is_integer() {
            self.push(Diagnostic::error(
                codes::NOT_WHOLE,
                span,
                format!("`{field}` is not a whole number"),
                format!("this is {}", show::decimal(n).unwrap_or_else(|| n.to_string())),
            ));
            return None;
        }
        match u64::try_from(n.numer()) {
            Ok(v) if v <= MAX_TOKENS => Some(v),
            _ => {
                let negative = n.numer() < 0;
                self.push(Diagnostic::error(
                    codes::OUT_OF_RANGE,
                    span,
                    format!("`{field}` is {}", if negative { "negative" } else { "too large" }),
                    if negative {
                        "must not be negative".to_owned()
                    } else {
                        format!("the limit is {}", show::digits(MAX_TOKENS))
                    },
                ));
                None
            }
        }
    }

    /// A positive count.
    pub(crate) fn positive_count(&mut self, n: Rational, span: Span, field: &str) -> Option<u64> {
        match self.count(n, span, field)? {
            0 => {
                self.push(Diagnostic::error(
                    codes::OUT_OF_RANGE,
                    span,
                    format!("`{field}` is zero"),
                    "must be at least 1",
                ));
                None
            }
            v => Some(v),
        }
    }

    /// A plain number.
    pub(crate) fn number(&mut self, value: &Val<'p>, field: &str) -> Option<f64> {
        match value.kind {
            Kind::Number(n) => Some(show::real(n)),
            Kind::Real(v) => Some(v),
            _ => {
                self.wrong(value, Ty::Number, field);
                None
            }
        }
    }

    /// A plain number that must be above zero.
    pub(crate) fn positive(&mut self, value: &Val<'p>, field: &str) -> Option<f64> {
        let v = self.number(value, field)?;
        if v > 0.0 {
            return Some(v);
        }
        self.push(Diagnostic::error(
            codes::OUT_OF_RANGE,
            value.span,
            format!("`{field}` is not above zero"),
            format!("this is {}", show::number(v)),
        ));
        None
    }

    /// A plain number that must not be below zero.
    pub(crate) fn non_negative(&mut self, value: &Val<'p>, field: &str) -> Option<f64> {
        let v = self.number(value, field)?;
        if v >= 0.0 {
            return Some(v);
        }
        self.push(Diagnostic::error(
            codes::OUT_OF_RANGE,
            value.span,
            format!("`{field}` is negative"),
            format!("this is {}", show::number(v)),
        ));
        None
    }

    /// A whole number without a unit.
    pub(crate) fn whole(&mut self, value: &Val<'p>, field: &str) -> Option<u64> {
        match value.kind {
            Kind::Number(n) | Kind::Quantity(n, Unit::Tokens) => self.count(n, value.span, field),
            _ => {
                self.wrong(value, Ty::Whole, field);
                None
            }
        }
    }

    /// A positive whole number without a unit.
    pub(crate) fn whole_positive(&mut self, value: &Val<'p>, field: &str) -> Option<u64> {
        match value.kind {
            Kind::Number(n) | Kind::Quantity(n, Unit::Tokens) => self.positive_count(n, value.span, field),
            _ => {
                self.wrong(value, Ty::Whole, field);
                None
            }
        }
    }

    /// A positive number of tokens.
    pub(crate) fn tokens(&mut self, value: &Val<'p>, field: &str) -> Option<u64> {
        match value.kind {
            Kind::Number(n) | Kind::Quantity(n, Unit::Tokens) => self.positive_count(n, value.span, field),
            _ => {
                self.wrong(value, Ty::Tokens, field);
                None
            }
        }
    }

    /// A share between 0 and 1.
    pub(crate) fn share(&mut self, value: &Val<'p>, field: &str) -> Option<Rational> {
        let Kind::Share(n) = value.kind else {
            self.wrong(value, Ty::Share, field);
            return None;
        };
        if n < Rational::ZERO || n > Rational::ONE {
            self.push(Diagnostic::error(
                codes::OUT_OF_RANGE,
                value.span,
                format!("`{field}` is outside 0% to 100%"),
                format!("this is {}", show::exact_percent(n)),
            ));
            return None;
        }
        Some(n)
    }

    /// A string.
    pub(crate) fn string(&mut self, value: &Val<'p>, field: &str) -> Option<String> {
        match &value.kind {
            Kind::Text(t, _) => Some(t.to_string()),
            _ => {
                self.wrong(value, Ty::Text, field);
                None
            }
        }
    }

    /// The name of a field or a list of them.
    pub(crate) fn names(&mut self, value: &Val<'p>, field: &str) -> Option<Vec<String>> {
        match &value.kind {
            Kind::Text(t, _) => Some(vec![t.to_string()]),
            Kind::List(items) => {
                let items = items.clone();
                items.iter().map(|v| self.string(v, field)).collect()
            }
            _ => {
                self.wrong(value, Ty::Names, field);
                None
            }
        }
    }

    /// A list of plain numbers.
    pub(crate) fn numbers(&mut self, value: &Val<'p>, field: &str) -> Option<Vec<f64>> {
        match &value.kind {
            Kind::List(items) => {
                let items = items.clone();
                items.iter().map(|v| self.number(v, field)).collect()
            }
            _ => {
                self.wrong(value, Ty::Numbers, field);
                None
            }
        }
    }

    /// `yes` or `no`.
    pub(crate) fn yes_no(&mut self, value: &Val<'p>, field: &str) -> Option<bool> {
        match value.kind {
            Kind::Bool(b) => Some(b),
            Kind::Word("yes") => Some(true),
            Kind::Word("no") => Some(false),
            _ => {
                self.wrong(value, Ty::Word(schema::YES_NO), field);
                None
            }
        }
    }

    /// A word of an enumeration.
    pub(crate) fn word(
        &mut self,
        value: &Val<'p>,
        words: &'static [schema::Word],
        field: &str,
    ) -> Option<&'static str> {
        let name: &str = match &value.kind {
            Kind::Word(w) => w,
            Kind::Text(t, _) => t,
            Kind::Bool(true) => "yes",
            Kind::Bool(false) => "no",
            _ => {
                self.wrong(value, Ty::Word(words), field);
                return None;
            }
        };
        let found = words.iter().find(|w| w.name == name).map(|w| w.name);
        if found.is_none() {
            let name = name.to_owned();
            self.unknown_word(value.span, &name, words, field);
        }
        found
    }
}
