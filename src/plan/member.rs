//! Names of the members of fan-outs, `anneal[3e-4, 30%]`, as plans spell them and as they are asked for.

/// The stage that a member belongs to: `anneal` for `anneal[42]`; any other name is itself.
pub(crate) fn base(name: &str) -> &str {
    name.split('[').next().unwrap_or(name)
}

/// Whether `name` is what `wanted` asks for: that name, a fan-out by its bare name, or members by their values with
/// `*` for any, however spaces stand and numbers are written.
pub(crate) fn is_asked_for(name: &str, wanted: &str) -> bool {
    if name == wanted {
        return true;
    }
    let (Some((base, values)), asked) = (keys(name), keys(wanted)) else { return false };
    match asked {
        None => base == wanted,
        Some((other, asked)) => {
            let fits = |(value, asked): (&&str, &&str)| *asked == "*" || is_same(value, asked);
            base == other
                && (asked == ["*"] || asked.len() == values.len() && values.iter().zip(&asked).all(fits))
        }
    }
}

/// Whether two values are one: `3e-4` and `0.0003`.
fn is_same(a: &str, b: &str) -> bool {
    let number = |text: &str| {
        let (text, unit) = text.strip_suffix('%').map_or((text, ""), |share| (share, "%"));
        Some((text.trim().replace('_', "").parse::<f64>().ok()?, unit))
    };
    a == b || number(a).is_some_and(|value| number(b) == Some(value))
}

/// What stands before the brackets and, one by one, in them.
fn keys(name: &str) -> Option<(&str, Vec<&str>)> {
    let (base, rest) = name.split_once('[')?;
    let inside = rest.strip_suffix(']')?;
    Some((base, inside.split(',').map(str::trim).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_answer_to_their_name_that_of_their_fan_out_and_their_values() {
        let name = "anneal[0.0003, 30%]";
        for wanted in [name, "anneal", "anneal[3e-4,30%]", "anneal[*, 30%]", "anneal[3e-4,*]", "anneal[*]"] {
            assert!(is_asked_for(name, wanted), "{wanted}");
        }
        for wanted in [
            "anneal[30%, 3e-4]",
            "anneal[3e-4]",
            "ann",
            "anneal[*, 10%]",
            "anneal[3e-4, 30]",
            "anneal[*, *, *]",
            "anneal[",
        ] {
            assert!(!is_asked_for(name, wanted), "{wanted}");
        }
        assert!(is_asked_for("main", "main"));
        assert!(!is_asked_for("main", "main[*]"));
    }
}
