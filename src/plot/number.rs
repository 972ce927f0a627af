//! Numbers as people of the field write them: `14.8T`, `32Ki`, `2.2e-4`. Knows nothing of drawing.

/// Three significant digits with a decimal magnitude: `950`, `25.2k`, `62.9B`, `14.8T`.
pub(crate) fn tokens(value: f64) -> String {
    tokens_to(value, 3)
}

/// Each of `values` with the fewest digits, three to seven, that tell it from all others.
pub(crate) fn telling(values: &[u64]) -> Vec<String> {
    let text = |value: u64, digits: i32| tokens_to(value as f64, digits);
    let told = |value: u64, digits: i32| {
        let mine = text(value, digits);
        values.iter().filter(|v| **v != value).all(|v| text(*v, digits) != mine)
    };
    values.iter().map(|v| text(*v, (3..7).find(|d| told(*v, *d)).unwrap_or(7))).collect()
}

/// As [`tokens`], with `digits` significant digits.
pub(crate) fn tokens_to(value: f64, digits: i32) -> String {
    const UNITS: [(&str, f64); 6] = [("", 1.0), ("k", 1e3), ("M", 1e6), ("B", 1e9), ("T", 1e12), ("P", 1e15)];
    if !value.is_finite() {
        return "?".into();
    }
    // 999_950 prints as 1M: the unit is chosen after rounding.
    let rounded = significant(value, digits);
    let (unit, scale) =
        UNITS.iter().rev().find(|(_, scale)| rounded.abs() >= *scale).copied().unwrap_or(UNITS[0]);
    format!("{}{unit}", trimmed(rounded / scale, digits))
}

/// A context length: `4Ki` where that is exact, digits otherwise.
pub(crate) fn length(value: u64) -> String {
    match value {
        0 => "0".into(),
        v if v % (1 << 20) == 0 => format!("{}Mi", v >> 20),
        v if v % (1 << 10) == 0 => format!("{}Ki", v >> 10),
        v => v.to_string(),
    }
}

/// A learning rate: `2.2e-4`, `6.15e-5`, `0.01`, `0`.
pub(crate) fn rate(value: f64) -> String {
    if !value.is_finite() {
        return "?".into();
    }
    if value == 0.0 {
        return "0".into();
    }
    let value = significant(value, 3);
    if value.abs() >= 0.01 && value.abs() < 1e4 {
        return trimmed(value, 3);
    }
    let exponent = value.abs().log10().floor();
    let text = format!("{value:.2e}");
    let mantissa = text.split('e').next().unwrap_or_default();
    let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
    let exponent = text.split('e').nth(1).map_or_else(|| exponent.to_string(), str::to_owned);
    format!("{mantissa}e{exponent}")
}

/// A share as a percentage: `47.2%`, `0.08%`, `<0.01%`.
pub(crate) fn percent(share: f64) -> String {
    let value = share * 100.0;
    match value {
        v if !v.is_finite() => "?".into(),
        0.0 => "0%".into(),
        v if v.abs() < 0.01 => "<0.01%".into(),
        v if v.abs() < 1.0 => format!("{}%", trimmed(v, 2)),
        v => format!("{}%", trimmed(v, 3)),
    }
}

/// A plain number with up to four significant digits.
pub(crate) fn plain(value: f64) -> String {
    match value {
        v if !v.is_finite() => "?".into(),
        v if v != 0.0 && (v.abs() < 1e-3 || v.abs() >= 1e6) => rate(v),
        v => trimmed(v, 4),
    }
}

fn significant(value: f64, digits: i32) -> f64 {
    if value == 0.0 {
        return 0.0;
    }
    format!("{value:.*e}", (digits - 1).max(0) as usize).parse().unwrap_or(value)
}

/// `digits` significant digits without trailing zeros, never fewer than the whole part has.
fn trimmed(value: f64, digits: i32) -> String {
    let whole = if value.abs() < 1.0 { 0 } else { value.abs().log10().floor() as i32 + 1 };
    let small = if value != 0.0 && value.abs() < 1.0 { -(value.abs().log10().floor() as i32) - 1 } else { 0 };
    let places = (digits - whole + small).max(0) as usize;
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_the_field_writes_them() {
        let cases: &[(String, &str)] = &[
            (tokens(0.0), "0"),
            (tokens(950.0), "950"),
            (tokens(999_950.0), "1M"),
            (tokens(62_914_560_000.0), "62.9B"),
            (tokens(14.8e12), "14.8T"),
            (tokens(1e13), "10T"),
            (tokens(f64::NAN), "?"),
            (tokens_to(14_862_900_000_000.0, 4), "14.86T"),
            (length(4096), "4Ki"),
            (length(1 << 20), "1Mi"),
            (length(5000), "5000"),
            (rate(2.2e-4), "2.2e-4"),
            (rate(6.1499e-5), "6.15e-5"),
            (rate(1e-3), "1e-3"),
            (rate(0.01), "0.01"),
            (rate(0.0), "0"),
            (percent(0.472), "47.2%"),
            (percent(0.0585), "5.85%"),
            (percent(0.0008), "0.08%"),
            (percent(1.0), "100%"),
            (percent(1e-9), "<0.01%"),
            (plain(2.34567), "2.346"),
            (plain(0.0123456), "0.01235"),
            (plain(152_000.0), "152000"),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn edges_that_lie_close_read_apart() {
        let edges = [0, 14_799_960_000_000, 15_599_960_000_000, 15_600_000_000_000];
        assert_eq!(telling(&edges), ["0", "14.8T", "15.59996T", "15.6T"]);
        assert_eq!(telling(&[5, 5]), ["5", "5"]);
    }
}
