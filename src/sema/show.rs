//! Numbers as people read them in messages: 50_000_000_000 tokens is `50B`, 8192 is `8Ki`.

use crate::syntax::ast::Rational;

/// A count with the magnitude that makes it short; exact when that is short, else rounded to four
/// digits and marked with `≈`.
pub(crate) fn count(value: u64) -> String {
    const DECIMAL: [(u64, &str); 4] =
        [(1_000_000_000_000, "T"), (1_000_000_000, "B"), (1_000_000, "M"), (1_000, "k")];
    if value < 10_000 {
        return value.to_string();
    }
    for (unit, name) in DECIMAL {
        if value >= unit {
            // At most three decimals, exact.
            if value.is_multiple_of((unit / 1000).max(1)) {
                let text = format!("{:.3}", value as f64 / unit as f64);
                return format!("{}{name}", text.trim_end_matches('0').trim_end_matches('.'));
            }
            return digits(value);
        }
    }
    digits(value)
}

/// A count with its noun: `1 token`, `50B tokens`.
pub(crate) fn tokens(value: u64) -> String {
    format!("{} {}", count(value), if value == 1 { "token" } else { "tokens" })
}

/// All digits in groups of three.
pub(crate) fn digits(value: u64) -> String {
    let text = value.to_string();
    let mut out = String::with_capacity(text.len() + text.len() / 3);
    for (i, c) in text.chars().enumerate() {
        if i > 0 && (text.len() - i).is_multiple_of(3) {
            out.push('_');
        }
        out.push(c);
    }
    out
}

/// A base of RoPE as it is written: `500_000`.
pub(crate) fn base(theta: f64) -> String {
    if theta.fract() == 0.0 && (0.0..1e15).contains(&theta) { digits(theta as u64) } else { number(theta) }
}

/// A context length: binary magnitudes where they are exact.
pub(crate) fn length(value: u64) -> String {
    if value >= 1024 && value.is_multiple_of(1024) && value < 1 << 30 {
        if value.is_multiple_of(1 << 20) {
            return format!("{}Mi", value >> 20);
        }
        return format!("{}Ki", value >> 10);
    }
    digits(value)
}

/// A share in percent, up to four significant digits beyond exact ones.
pub(crate) fn percent(share: f64) -> String {
    let p = share * 100.0;
    if p == 0.0 {
        return "0%".to_owned();
    }
    let decimals = (3 - p.abs().log10().floor() as i32).clamp(0, 12) as usize;
    let text = format!("{p:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}%")
}

/// An exact share in percent: `99.9%`; a fraction when its decimals do not end.
pub(crate) fn exact_percent(share: Rational) -> String {
    let Some(percent) = checked_mul(share, Rational::from_integer(100)) else {
        return self::percent(real(share));
    };
    decimal(percent).map_or_else(|| format!("{}/{}", share.numer(), share.denom()), |d| format!("{d}%"))
}

/// `a·b`, unless it overflows.
pub(crate) fn checked_mul(a: Rational, b: Rational) -> Option<Rational> {
    a.checked_mul(b)
}

/// The finite decimal expansion, if there is one of at most 12 places.
pub(crate) fn decimal(value: Rational) -> Option<String> {
    let mut scaled = value;
    for places in 0..=12usize {
        if scaled.is_integer() {
            let n = scaled.numer();
            let sign = if n < 0 { "-" } else { "" };
            let digits = format!("{:0width$}", n.unsigned_abs(), width = places + 1);
            let (whole, fraction) = digits.split_at(digits.len() - places);
            return Some(if places == 0 {
                format!("{sign}{whole}")
            } else {
                format!("{sign}{whole}.{fraction}")
            });
        }
        scaled = checked_mul(scaled, Rational::from_integer(10))?;
    }
    None
}

/// The nearest f64.
pub(crate) fn real(value: Rational) -> f64 {
    let (n, d) = (value.numer(), value.denom());
    const EXACT: u128 = 1 << 53;
    if n.unsigned_abs() <= EXACT && d.unsigned_abs() <= EXACT {
        // Both are exact, so the quotient is rounded once.
        return n as f64 / d as f64;
    }
    match decimal(value).and_then(|text| text.parse().ok()) {
        Some(v) => v,
        None => n as f64 / d as f64,
    }
}

/// Hours of an accelerator: `1_234 GPU-hours`.
pub(crate) fn hours(hours: f64) -> String {
    if hours >= 100.0 {
        return format!("{} GPU-hours", digits(hours.round() as u64));
    }
    format!("{} GPU-hours", number(hours))
}

/// A learning rate or other real, short and readable.
pub(crate) fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs();
    if (1e-3..1e6).contains(&magnitude) {
        let decimals = (4 - magnitude.log10().floor() as i32).clamp(0, 9) as usize;
        let text = format!("{value:.decimals$}");
        return if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text
        };
    }
    let text = format!("{value:.4e}");
    match text.split_once('e') {
        Some((m, e)) if m.contains('.') => format!("{}e{e}", m.trim_end_matches('0').trim_end_matches('.')),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readable_numbers() {
        let ratio = |over, under| Rational::new(over, under).unwrap();
        assert_eq!(count(50_000_000_000), "50B");
        assert_eq!(count(4_194_304), "4_194_304");
        assert_eq!(count(1_500_000), "1.5M");
        assert_eq!(length(4096), "4Ki");
        assert_eq!(length(32_000), "32_000");
        assert_eq!(percent(0.999), "99.9%");
        assert_eq!(exact_percent(ratio(999, 1000)), "99.9%");
        assert_eq!(exact_percent(ratio(1, 3)), "1/3");
        assert_eq!(number(6.1499e-5), "6.1499e-5");
        assert_eq!(number(0.01), "0.01");
        assert_eq!(real(ratio(61_499, 1_000_000_000)), 6.1499e-5);
    }
}
