//! Numbers and strings, exact. Every way to write a number wrong has its own message and, where one
//! meaning is likely, its fix.

use super::ast::{Magnitude, Quantity, Rational, Unit};
use crate::diag::{Applicability, Diagnostic, codes, suggest::nearest};
use crate::source::Span;

/// Words that go on with a curve, which `then` must stand before.
pub(crate) const SEGMENTS: [&str; 10] =
    ["hold", "linear", "cosine", "one_minus_sqrt", "exp", "exp_floor", "poly", "inv_sqrt", "power", "step"];

/// Most digits a number may have; more do not fit a numerator of 127 bits.
const MAX_DIGITS: usize = 38;

impl Magnitude {
    /// All of them, decimal first, ascending.
    pub const ALL: [Self; 8] = [Self::K, Self::M, Self::B, Self::T, Self::Ki, Self::Mi, Self::Gi, Self::Ti];

    /// As written after a number.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::K => "k",
            Self::M => "M",
            Self::B => "B",
            Self::T => "T",
            Self::Ki => "Ki",
            Self::Mi => "Mi",
            Self::Gi => "Gi",
            Self::Ti => "Ti",
        }
    }

    /// What it multiplies by.
    pub fn factor(self) -> i128 {
        match self {
            Self::K => 1_000,
            Self::M => 1_000_000,
            Self::B => 1_000_000_000,
            Self::T => 1_000_000_000_000,
            Self::Ki => 1 << 10,
            Self::Mi => 1 << 20,
            Self::Gi => 1 << 30,
            Self::Ti => 1 << 40,
        }
    }

    fn parse(suffix: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|magnitude| magnitude.suffix() == suffix)
    }
}

impl Magnitude {
    /// What a suffix that does not exist may stand for: none, one, or two readings.
    fn meant_by(suffix: &str) -> &'static [Self] {
        match suffix {
            "K" | "KB" | "kB" | "kb" | "Kb" => &[Self::K, Self::Ki],
            "m" | "MM" | "mm" | "MB" | "Mb" | "mb" | "mil" | "mio" => &[Self::M],
            "b" | "bn" | "Bn" | "BB" | "g" => &[Self::B],
            "G" | "GB" | "Gb" => &[Self::B, Self::Gi],
            "t" | "TB" | "Tb" | "tn" => &[Self::T],
            "ki" | "KI" | "kI" | "KiB" | "Kib" | "kib" => &[Self::Ki],
            "mi" | "MI" | "MiB" => &[Self::Mi],
            "gi" | "GI" | "GiB" | "Bi" | "bi" => &[Self::Gi],
            "ti" | "TI" | "TiB" => &[Self::Ti],
            _ => &[],
        }
    }
}

/// The message about a magnitude at `span` that does not exist; a fix replaces `replace`.
fn unknown_magnitude(suffix: &str, span: Span, replace: Span) -> Box<Diagnostic> {
    let message = format!("unknown magnitude `{suffix}`");
    let mut diagnostic = Diagnostic::error(codes::UNKNOWN_MAGNITUDE, span, message, "no such magnitude");
    let meant = Magnitude::meant_by(suffix);
    for meant in meant {
        let (suffix, factor) = (meant.suffix(), grouped(meant.factor()));
        let title = format!("write `{suffix}` (times {factor})");
        diagnostic = diagnostic.fix(title, Applicability::MaybeIncorrect, replace, suffix);
    }
    if meant.is_empty() {
        diagnostic =
            diagnostic.help("magnitudes are `k M B T` (powers of 1000) and `Ki Mi Gi Ti` (powers of 1024)");
    }
    Box::new(diagnostic)
}

impl Unit {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Tokens, Self::Seqs, Self::Steps, Self::Epochs, Self::GpuHours, Self::Flops];

    /// As written after a number.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Seqs => "seqs",
            Self::Steps => "steps",
            Self::Epochs => "epochs",
            Self::GpuHours => "gpu_hours",
            Self::Flops => "flops",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.word() == word)
    }

    /// The unit most likely meant by a word that is none.
    fn meant_by(word: &str) -> Option<Self> {
        match word {
            "sequences" | "sequence" | "samples" | "sample" | "rows" => Some(Self::Seqs),
            "tok" | "toks" => Some(Self::Tokens),
            "iters" | "iterations" | "updates" => Some(Self::Steps),
            "hours" | "gpuh" | "gpu_h" => Some(Self::GpuHours),
            "FLOPs" | "FLOPS" | "FLOP" => Some(Self::Flops),
            _ => nearest(word, Self::ALL.map(Self::word)).and_then(Self::parse),
        }
    }
}

/// A number as the grammar cut it.
pub(super) struct Written<'t> {
    /// Digits with whatever touches them.
    pub(super) number: &'t str,
    /// Where the number is.
    pub(super) number_span: Span,
    /// Where the `%` is.
    pub(super) percent: Option<Span>,
    /// The words after it, with their places.
    pub(super) units: Vec<(&'t str, Span)>,
}

impl Written<'_> {
    /// The part `range` of the number.
    fn part(&self, start: usize, end: usize) -> Span {
        Span::new(
            self.number_span.file,
            self.number_span.start as usize + start,
            self.number_span.start as usize + end,
        )
    }

    /// The exact value, or what is wrong with it.
    pub(super) fn read(&self) -> Result<Quantity, Box<Diagnostic>> {
        let parts = Parts::of(self.number);
        self.check_digits(&parts)?;
        let magnitude = self.magnitude(&parts)?;
        let mut value = self.value(&parts)?;
        if let Some(magnitude) = magnitude {
            if !parts.exponent.is_empty() {
                return Err(self.exponent_and_magnitude(&parts, magnitude));
            }
            value = multiply(value, magnitude.factor(), 1).ok_or_else(|| self.out_of_range())?;
        }
        if let Some(percent) = self.percent {
            self.check_percent(percent, magnitude)?;
            value = multiply(value, 1, 100).ok_or_else(|| self.out_of_range())?;
        }
        let unit = self.unit(&parts, magnitude)?;
        Ok(Quantity {
            value,
            digits: self.number[..self.number.len() - parts.suffix.len()].to_owned(),
            magnitude,
            percent: self.percent.is_some(),
            unit,
        })
    }

    fn malformed(&self, label: &str) -> Diagnostic {
        let message = format!("`{}` is not a number", self.number);
        Diagnostic::error(codes::MALFORMED_NUMBER, self.number_span, message, label)
    }

    fn check_digits(&self, parts: &Parts<'_>) -> Result<(), Box<Diagnostic>> {
        let fix = |diagnostic: Diagnostic, text: String| {
            let title = format!("write `{text}`");
            Box::new(diagnostic.fix(title, Applicability::MachineApplicable, self.number_span, text))
        };
        let tail = || format!("{}{}", parts.exponent, parts.suffix);
        if let Some(dot) = parts.suffix.find('.') {
            let label = if dot == 0 { "a second decimal point" } else { "a decimal point after the digits" };
            return Err(Box::new(self.malformed(label)));
        }
        if parts.whole.is_empty() {
            let text = format!("0{}{}", self.number, "");
            return Err(fix(self.malformed("a number starts with a digit"), text));
        }
        if parts.fraction == Some("") {
            let text = format!("{}{}", parts.whole, tail());
            return Err(fix(self.malformed("no digit after the decimal point"), text));
        }
        for digits in [Some(parts.whole), parts.fraction, Some(parts.exponent_digits())].into_iter().flatten()
        {
            if digits.starts_with('_') || digits.ends_with('_') || digits.contains("__") {
                let clean = |digits: &str| {
                    digits.split('_').filter(|group| !group.is_empty()).collect::<Vec<_>>().join("_")
                };
                let fraction = parts.fraction.map(|digits| format!(".{}", clean(digits))).unwrap_or_default();
                let sign = &parts.exponent[..parts.exponent.len() - parts.exponent_digits().len()];
                let exponent = format!("{sign}{}", clean(parts.exponent_digits()));
                let text = format!("{}{fraction}{exponent}{}", clean(parts.whole), parts.suffix);
                return Err(fix(self.malformed("`_` stands between two digits"), text));
            }
        }
        Ok(())
    }

    fn magnitude(&self, parts: &Parts<'_>) -> Result<Option<Magnitude>, Box<Diagnostic>> {
        let suffix = parts.suffix;
        if suffix.is_empty() {
            return Ok(None);
        }
        if let Some(magnitude) = Magnitude::parse(suffix) {
            return Ok(Some(magnitude));
        }
        let start = self.number.len() - suffix.len();
        let span = self.part(start, self.number.len());
        // `50Btokens`, `200steps`: a unit that touches its number.
        for magnitude in std::iter::once("").chain(Magnitude::ALL.map(Magnitude::suffix)) {
            if let Some(unit) = suffix.strip_prefix(magnitude).and_then(Unit::parse) {
                let at = self.part(start + magnitude.len(), start + magnitude.len());
                let message = format!("`{}` touches its number", unit.word());
                return Err(Box::new(
                    Diagnostic::error(codes::SPACING, span, message, "a unit stands apart from the number")
                        .fix("insert a space", Applicability::MachineApplicable, at, " "),
                ));
            }
        }
        Err(unknown_magnitude(suffix, span, span))
    }

    fn value(&self, parts: &Parts<'_>) -> Result<Rational, Box<Diagnostic>> {
        let out_of_range = || self.out_of_range();
        let fraction = parts.fraction.unwrap_or_default();
        let digits = || parts.whole.bytes().chain(fraction.bytes()).filter(u8::is_ascii_digit);
        if digits().skip_while(|b| *b == b'0').count() > MAX_DIGITS {
            return Err(out_of_range());
        }
        let mut mantissa: i128 = 0;
        for digit in digits() {
            mantissa = mantissa
                .checked_mul(10)
                .and_then(|m| m.checked_add(i128::from(digit - b'0')))
                .ok_or_else(out_of_range)?;
        }
        if mantissa == 0 {
            return Ok(Rational::ZERO);
        }
        let exponent: String = parts.exponent.chars().skip(1).filter(|c| *c != '_').collect();
        let exponent = if exponent.is_empty() { Ok(0) } else { exponent.parse::<i64>() };
        let places = fraction.bytes().filter(u8::is_ascii_digit).count() as i64;
        let scale = exponent.ok().and_then(|e| e.checked_sub(places)).ok_or_else(out_of_range)?;
        let power = u32::try_from(scale.unsigned_abs()).ok().and_then(|p| 10_i128.checked_pow(p));
        let power = power.ok_or_else(out_of_range)?;
        let scaled = if scale >= 0 {
            Rational::new(mantissa, 1).and_then(|m| multiply(m, power, 1))
        } else {
            Rational::new(mantissa, power)
        };
        scaled.ok_or_else(out_of_range)
    }

    fn out_of_range(&self) -> Box<Diagnostic> {
        let message = format!("`{}` is too large or too precise", shorten(self.number));
        Box::new(
            Diagnostic::error(codes::NUMBER_OUT_OF_RANGE, self.number_span, message, "does not fit")
                .note("numbers are exact fractions of whole numbers below 2^127"),
        )
    }

    fn exponent_and_magnitude(&self, parts: &Parts<'_>, magnitude: Magnitude) -> Box<Diagnostic> {
        let suffix = magnitude.suffix();
        let message = format!("`{}` has both an exponent and a magnitude", shorten(self.number));
        let digits = &self.number[..self.number.len() - suffix.len() - parts.exponent.len()];
        let (by_exponent, by_magnitude) =
            (format!("{digits}{}", parts.exponent), format!("{digits}{suffix}"));
        Box::new(
            Diagnostic::error(
                codes::EXPONENT_AND_MAGNITUDE,
                self.number_span,
                message,
                format!("`{}` and `{suffix}` would multiply", parts.exponent),
            )
            .help("`T` is 10^12, not a unit; a count of tokens is written `50B tokens`")
            .fix(
                format!("keep the exponent: `{by_exponent}`"),
                Applicability::MaybeIncorrect,
                self.number_span,
                by_exponent,
            )
            .fix(
                format!("keep the magnitude: `{by_magnitude}`"),
                Applicability::MaybeIncorrect,
                self.number_span,
                by_magnitude,
            ),
        )
    }

    fn check_percent(&self, percent: Span, magnitude: Option<Magnitude>) -> Result<(), Box<Diagnostic>> {
        let error = |span, message: &str, label: &str| {
            Diagnostic::error(codes::MISPLACED_PERCENT, span, message, label)
        };
        if let Some(magnitude) = magnitude {
            let message = "a share with a magnitude";
            let label = format!("`{}` and `%` exclude each other", magnitude.suffix());
            return Err(Box::new(error(self.number_span.to(percent), message, &label)));
        }
        if percent.start > self.number_span.end {
            let gap = Span { start: self.number_span.end, end: percent.start, ..percent };
            return Err(Box::new(
                error(percent, "`%` stands apart from its number", "touches the number").fix(
                    "remove the space",
                    Applicability::MachineApplicable,
                    gap,
                    "",
                ),
            ));
        }
        match self.units.first() {
            Some((word, span)) => {
                let number = self.number;
                let d = error(*span, "a share with a unit", "a share has no unit");
                let name = Unit::parse(word).is_none() && Unit::meant_by(word).is_none();
                let d = d.help(match *word {
                    // `60% web + 40% code`.
                    _ if name && !["off", "fo", "from"].contains(word) => format!(
                        "the shares of a mixture stand in a block, `mix NAME {{ {word} = {number}% … }}`, and the stage \
                         says `mix = NAME`"
                    ),
                    _ => format!("`{number}% of stage` is a length, `{number}%` alone a share; `{word}` counts"),
                });
                Err(Box::new(match *word {
                    "off" | "fo" | "from" => d.fix("write `of`", Applicability::MaybeIncorrect, *span, "of"),
                    _ => d,
                }))
            }
            None => Ok(()),
        }
    }

    fn unit(&self, parts: &Parts<'_>, magnitude: Option<Magnitude>) -> Result<Option<Unit>, Box<Diagnostic>> {
        let Some((word, span)) = self.units.first().copied() else { return Ok(None) };
        let number = shorten(self.number);
        let plain = magnitude.is_none() && parts.exponent.is_empty();
        if plain && !Magnitude::meant_by(word).is_empty() {
            let from_number = Span { start: self.number_span.end, ..span };
            return Err(unknown_magnitude(word, span, from_number));
        }
        if Magnitude::parse(word).is_some() && plain {
            let gap = Span { start: self.number_span.end, end: span.start, ..span };
            let message = format!("the magnitude `{word}` stands apart from its number");
            return Err(Box::new(
                Diagnostic::error(codes::SPACING, span, message, "touches the number").fix(
                    "remove the space",
                    Applicability::MachineApplicable,
                    gap,
                    "",
                ),
            ));
        }
        if word == "percent" {
            let all = Span { start: self.number_span.end, ..span };
            return Err(Box::new(
                Diagnostic::error(codes::UNKNOWN_UNIT, span, "unknown unit `percent`", "written `%`").fix(
                    "write `%`",
                    Applicability::MachineApplicable,
                    all,
                    "%",
                ),
            ));
        }
        let Some(unit) = Unit::parse(word) else {
            let message = format!("unknown unit `{word}`");
            let mut diagnostic = Diagnostic::error(codes::UNKNOWN_UNIT, span, message, "no such unit");
            let plural = format!("{word}s");
            diagnostic = match Unit::meant_by(word) {
                Some(meant) => {
                    // `1 step` can mean nothing else.
                    let sure = meant.word() == plural;
                    let applicability =
                        if sure { Applicability::MachineApplicable } else { Applicability::MaybeIncorrect };
                    diagnostic.help(format!("did you mean `{number} {}`?", meant.word())).fix(
                        format!("write `{}`", meant.word()),
                        applicability,
                        span,
                        meant.word(),
                    )
                }
                None if SEGMENTS.contains(&word) => {
                    let call = if word == "hold" { word.to_owned() } else { format!("{word}(to: …)") };
                    diagnostic.help(format!("a curve goes on with `then`: `{number} then {call}`"))
                }
                None => diagnostic.help(
                    "units are `tokens`, `seqs`, `steps`, `epochs`, `gpu_hours` and `flops`; \
                     entries are separated by a newline or a comma",
                ),
            };
            return Err(Box::new(diagnostic));
        };
        match self.units.get(1) {
            Some((second, second_span)) => Err(Box::new(
                Diagnostic::error(
                    codes::UNKNOWN_UNIT,
                    *second_span,
                    format!("`{second}` after the unit `{word}`"),
                    "a number has one unit",
                )
                .label(span, "the unit"),
            )),
            None => Ok(Some(unit)),
        }
    }
}

/// A number cut at its decimal point, exponent and suffix.
struct Parts<'t> {
    whole: &'t str,
    fraction: Option<&'t str>,
    /// With its `e` and sign; empty if there is none.
    exponent: &'t str,
    suffix: &'t str,
}

impl<'t> Parts<'t> {
    fn of(number: &'t str) -> Self {
        let digits = |text: &'t str| {
            let end = text.find(|c: char| !(c.is_ascii_digit() || c == '_')).unwrap_or(text.len());
            text.split_at(end)
        };
        let (whole, rest) = digits(number);
        let (fraction, rest) = match rest.strip_prefix('.') {
            Some(rest) => {
                let (fraction, rest) = digits(rest);
                (Some(fraction), rest)
            }
            None => (None, rest),
        };
        let (exponent, suffix) = match rest.strip_prefix(['e', 'E']) {
            Some(after) => {
                let unsigned = after.strip_prefix(['+', '-']).unwrap_or(after);
                let (exponent, suffix) = digits(unsigned);
                if exponent.is_empty() { ("", rest) } else { (&rest[..rest.len() - suffix.len()], suffix) }
            }
            None => ("", rest),
        };
        Self { whole, fraction, exponent, suffix }
    }

    fn exponent_digits(&self) -> &'t str {
        self.exponent.trim_start_matches(['e', 'E', '+', '-'])
    }
}

/// `value · by / over`, unless it overflows.
fn multiply(value: Rational, by: i128, over: i128) -> Option<Rational> {
    value.checked_mul(Rational::new(by, over)?)
}

fn grouped(value: i128) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('_');
        }
        out.push(digit);
    }
    out
}

fn shorten(number: &str) -> String {
    if number.len() <= 32 {
        return number.to_owned();
    }
    let head: String = number.chars().take(24).collect();
    format!("{head}…")
}

/// The content of a string literal with its quotes. `Err` holds the byte range, inside the literal,
/// of an escape that does not exist.
pub(super) fn unescape(literal: &str) -> Result<String, std::ops::Range<usize>> {
    let inner = literal.get(1..literal.len().saturating_sub(1)).unwrap_or_default();
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some((_, 'n')) => out.push('\n'),
            Some((_, 't')) => out.push('\t'),
            Some((_, 'r')) => out.push('\r'),
            Some((_, c @ ('"' | '\\'))) => out.push(c),
            Some((_, other)) => return Err(at + 1..at + 2 + other.len_utf8()),
            None => return Err(at + 1..at + 2),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::FileId;

    fn read(text: &str) -> Result<Quantity, Box<Diagnostic>> {
        let (number, units) = text.split_once(' ').unwrap_or((text, ""));
        let span = |start, end| Span::new(FileId(0), start, end);
        let percent = number.ends_with('%').then(|| span(number.len() - 1, number.len()));
        let number = number.trim_end_matches('%');
        let units = (!units.is_empty())
            .then(|| (units, span(text.len() - units.len(), text.len())))
            .into_iter()
            .collect();
        Written { number, number_span: span(0, number.len()), percent, units }.read()
    }

    #[test]
    fn numbers_are_exact() {
        for (text, numer, denom) in [
            ("0", 0, 1),
            ("1_000", 1000, 1),
            ("4Ki", 4096, 1),
            ("3.9T", 3_900_000_000_000, 1),
            ("6.1499e-5", 61499, 1_000_000_000),
            ("5.85%", 585, 10_000),
            ("0.1", 1, 10),
            ("1E+2", 100, 1),
            ("2e3", 2000, 1),
            ("0.5Ki", 512, 1),
            ("00012", 12, 1),
            ("0e999999999999999999", 0, 1),
        ] {
            let quantity = read(text).unwrap_or_else(|d| panic!("{text}: {}", d.message));
            assert_eq!(Some(quantity.value), Rational::new(numer, denom), "{text}");
        }
        let batch = read("1024 seqs").unwrap();
        assert_eq!((batch.unit, batch.digits.as_str()), (Some(Unit::Seqs), "1024"));
        assert_eq!(read("4Ki tokens").unwrap().magnitude, Some(Magnitude::Ki));
    }

    #[test]
    fn every_wrong_number_has_its_message() {
        use codes::*;
        let long = format!("1{}", "0".repeat(50));
        for (text, code, fix) in [
            ("50e9T", EXPONENT_AND_MAGNITUDE, Some("50e9")),
            ("32K", UNKNOWN_MAGNITUDE, Some("k")),
            ("50b", UNKNOWN_MAGNITUDE, Some("B")),
            ("3G", UNKNOWN_MAGNITUDE, Some("B")),
            ("4KB", UNKNOWN_MAGNITUDE, Some("k")),
            ("4Bi", UNKNOWN_MAGNITUDE, Some("Gi")),
            ("4m", UNKNOWN_MAGNITUDE, Some("M")),
            ("4t", UNKNOWN_MAGNITUDE, Some("T")),
            ("4g", UNKNOWN_MAGNITUDE, Some("B")),
            ("4x", UNKNOWN_MAGNITUDE, None),
            ("1__0", MALFORMED_NUMBER, Some("1_0")),
            ("1_", MALFORMED_NUMBER, Some("1")),
            (".5", MALFORMED_NUMBER, Some("0.5")),
            ("5.", MALFORMED_NUMBER, Some("5")),
            ("1.2.3", MALFORMED_NUMBER, None),
            ("1e400", NUMBER_OUT_OF_RANGE, None),
            ("1e-400", NUMBER_OUT_OF_RANGE, None),
            ("1e99999999999999999999", NUMBER_OUT_OF_RANGE, None),
            (long.as_str(), NUMBER_OUT_OF_RANGE, None),
            ("99999999999999999999999999999999999999T", NUMBER_OUT_OF_RANGE, None),
            ("50Btokens", SPACING, Some(" ")),
            ("4 Ki", SPACING, Some("")),
            ("50 b", UNKNOWN_MAGNITUDE, Some("B")),
            ("1 step", UNKNOWN_UNIT, Some("steps")),
            ("1 furlongs", UNKNOWN_UNIT, None),
            ("5 percent", UNKNOWN_UNIT, Some("%")),
            ("5k%", MISPLACED_PERCENT, None),
            ("5% tokens", MISPLACED_PERCENT, None),
        ] {
            let error = read(text).expect_err(text);
            assert_eq!(error.code, code, "{text}: {}", error.message);
            assert_eq!(error.fixes.first().map(|f| f.edits[0].text.as_str()), fix, "{text}");
        }
    }

    #[test]
    fn escapes_are_resolved() {
        assert_eq!(unescape(r#""a\n\"\\é""#).unwrap(), "a\n\"\\é");
        assert_eq!(unescape(r#""\q""#).unwrap_err(), 1..3);
    }
}
