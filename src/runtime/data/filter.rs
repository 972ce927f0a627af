//! `where`: which records of a source are read. Evaluates the plan's canonical text over the
//! fields of a record and the built-in `length`.
//!
//! A field that is absent or null makes every comparison false but `!=`, which it makes true. A
//! number compares with a string that spells one; otherwise values of different kinds are unequal
//! and in no order.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::record::field;

/// Deepest nesting; the parser recurses.
const DEPTH: usize = 64;

/// A predicate.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Filter {
    Or(Box<Filter>, Box<Filter>),
    And(Box<Filter>, Box<Filter>),
    Not(Box<Filter>),
    Compare(Operand, Comparison, Operand),
    /// A field that is true.
    Holds(String),
}

/// A side of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    /// Tokens of the document, its end-of-sequence token included.
    Length,
    Field(String),
    Number(Number),
    Text(String),
    Bool(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Filter {
    /// Read `SourcePlan::filter`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { tokens: lex(text)?, at: 0, depth: 0 };
        let filter = parser.or()?;
        match parser.peek() {
            None => Ok(filter),
            Some(t) => Err(format!("has {} where it should end", t.describe())),
        }
    }

    /// As it stands in the keys of the cache. Changing it makes every shard anew and keeps runs from being gone on with.
    pub(crate) fn canonical(&self) -> String {
        match self {
            Self::Or(a, b) => format!("Or({}, {})", a.canonical(), b.canonical()),
            Self::And(a, b) => format!("And({}, {})", a.canonical(), b.canonical()),
            Self::Not(a) => format!("Not({})", a.canonical()),
            Self::Compare(left, op, right) => {
                let op = match op {
                    Comparison::Eq => "Eq",
                    Comparison::Ne => "Ne",
                    Comparison::Lt => "Lt",
                    Comparison::Le => "Le",
                    Comparison::Gt => "Gt",
                    Comparison::Ge => "Ge",
                };
                format!("Compare({}, {op}, {})", left.canonical(), right.canonical())
            }
            Self::Holds(name) => format!("Holds({name:?})"),
        }
    }

    /// Whether `record` passes; `None` when that depends on the length and it is not given.
    pub(crate) fn passes(&self, record: &Value, length: Option<u64>) -> Option<bool> {
        match self {
            Self::Or(a, b) => match (a.passes(record, length), b.passes(record, length)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            Self::And(a, b) => match (a.passes(record, length), b.passes(record, length)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Self::Not(a) => a.passes(record, length).map(|p| !p),
            Self::Holds(name) => Some(matches!(field(record, name), Value::Bool(true))),
            Self::Compare(left, op, right) => {
                let (left, right) = (left.value(record, length)?, right.value(record, length)?);
                let order = compare(&left, &right);
                Some(match op {
                    Comparison::Eq => order == Some(Ordering::Equal),
                    Comparison::Ne => order != Some(Ordering::Equal),
                    Comparison::Lt => order == Some(Ordering::Less),
                    Comparison::Le => matches!(order, Some(Ordering::Less | Ordering::Equal)),
                    Comparison::Gt => order == Some(Ordering::Greater),
                    Comparison::Ge => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
                })
            }
        }
    }

    /// The fields it reads.
    pub(crate) fn fields(&self, out: &mut Vec<String>) {
        match self {
            Self::Or(a, b) | Self::And(a, b) => {
                a.fields(out);
                b.fields(out);
            }
            Self::Not(a) => a.fields(out),
            Self::Holds(name) => out.push(name.clone()),
            Self::Compare(a, _, b) => {
                for side in [a, b] {
                    if let Operand::Field(name) = side {
                        out.push(name.clone());
                    }
                }
            }
        }
    }
}

impl Operand {
    fn canonical(&self) -> String {
        match self {
            Self::Length => "Length".to_owned(),
            Self::Field(name) => format!("Field({name:?})"),
            // As a real number where that is the same: keys of caches are made of this.
            Self::Number(value) => match value.as_f64() {
                Some(real) if value.as_i128().is_none_or(|whole| real as i128 == whole) => {
                    format!("Number({real:?})")
                }
                _ => format!("Number({value})"),
            },
            Self::Text(text) => format!("Text({text:?})"),
            Self::Bool(value) => format!("Bool({value})"),
        }
    }

    fn value(&self, record: &Value, length: Option<u64>) -> Option<Value> {
        Some(match self {
            Self::Length => length?.into(),
            Self::Field(name) => field(record, name).clone(),
            Self::Number(n) => Value::Number(n.clone()),
            Self::Text(t) => t.as_str().into(),
            Self::Bool(b) => (*b).into(),
        })
    }
}

fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => match (integer(left), integer(right)) {
            // Exactly: identifiers and hashes are larger than what a real number tells apart.
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => real(left)?.partial_cmp(&real(right)?),
        },
    }
}

fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Number(n) => n.as_i128(),
        Value::String(s) => s.trim().parse().ok(),
        _ => None,
    }
}

fn real(value: &Value) -> Option<f64> {
    match value {
        Value::Number(n) => n.as_f64(),
        Value::String(s) => s.trim().parse().ok(),
        _ => None,
    }
}

/// A number as JSON would have it: whole where it is written so.
fn number(text: &str) -> Option<Number> {
    let whole = text.parse::<u64>().map(Number::from).or_else(|_| text.parse::<i64>().map(Number::from));
    whole.ok().or_else(|| Number::from_f64(text.parse().ok()?))
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    /// As it is written, without a sign.
    Number(String),
    Text(String),
    Sign(&'static str),
}

impl Token {
    fn describe(&self) -> String {
        match self {
            Self::Name(n) => format!("`{n}`"),
            Self::Number(n) => format!("`{n}`"),
            Self::Text(t) => format!("`{t:?}`"),
            Self::Sign(s) => format!("`{s}`"),
        }
    }
}

fn lex(text: &str) -> Result<Vec<Token>, String> {
    const SIGNS: [&str; 9] = ["==", "!=", "<=", ">=", "<", ">", "(", ")", "-"];
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(c) = rest.chars().next() {
        let used = if let Some(sign) = SIGNS.into_iter().find(|s| rest.starts_with(s)) {
            tokens.push(Token::Sign(sign));
            sign.len()
        } else if c == '"' {
            let end = closing_quote(rest).ok_or("has a string that does not end")?;
            // The canonical form quotes as JSON does, but for the escapes of rarer characters.
            let inner = unescape(&rest[1..end]).ok_or("has a string with an unknown escape")?;
            tokens.push(Token::Text(inner));
            end + 1
        } else if c.is_ascii_digit() || c == '.' {
            let exponent = |at: usize| rest[..at].ends_with(['e', 'E']);
            let end = rest
                .char_indices()
                .find(|(at, c)| !(c.is_ascii_alphanumeric() || *c == '.' || *c == '-' && exponent(*at)))
                .map_or(rest.len(), |(at, _)| at);
            tokens.push(Token::Number(rest[..end].to_owned()));
            end
        } else if c.is_alphabetic() || c == '_' {
            let end =
                rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).unwrap_or(rest.len());
            tokens.push(Token::Name(rest[..end].to_owned()));
            end
        } else {
            return Err(format!("has an unexpected `{c}`"));
        };
        rest = rest[used..].trim_start();
    }
    Ok(tokens)
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().skip(1).find_map(|(at, c)| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends.then_some(at)
    })
}

fn unescape(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next()? {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            '0' => out.push('\0'),
            c @ ('"' | '\\' | '\'') => out.push(c),
            'u' => {
                let code: String =
                    chars.by_ref().skip_while(|c| *c == '{').take_while(|c| *c != '}').collect();
                out.push(char::from_u32(u32::from_str_radix(&code, 16).ok()?)?);
            }
            _ => return None,
        }
    }
    Some(out)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Name(n)) if n == word);
        self.at += usize::from(found);
        found
    }

    fn sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Sign(s)) if *s == sign);
        self.at += usize::from(found);
        found
    }

    fn or(&mut self) -> Result<Filter, String> {
        let mut left = self.and()?;
        while self.word("or") {
            left = Filter::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Filter, String> {
        let mut left = self.not()?;
        while self.word("and") {
            left = Filter::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Filter, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err("is nested too deeply".into());
        }
        let filter = if self.word("not") {
            Filter::Not(Box::new(self.not()?))
        } else if self.sign("(") {
            let inner = self.or()?;
            if !self.sign(")") {
                return Err("has a `(` that is not closed".into());
            }
            inner
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(filter)
    }

    fn comparison(&mut self) -> Result<Filter, String> {
        const OPERATORS: [(&str, Comparison); 6] = [
            ("==", Comparison::Eq),
            ("!=", Comparison::Ne),
            ("<=", Comparison::Le),
            (">=", Comparison::Ge),
            ("<", Comparison::Lt),
            (">", Comparison::Gt),
        ];
        let left = self.operand()?;
        match OPERATORS.into_iter().find(|(sign, _)| self.sign(sign)) {
            Some((_, op)) => Ok(Filter::Compare(left, op, self.operand()?)),
            None => match left {
                Operand::Field(name) => Ok(Filter::Holds(name)),
                _ => Err("has a value that is compared with nothing".into()),
            },
        }
    }

    fn operand(&mut self) -> Result<Operand, String> {
        let minus = self.sign("-");
        let operand = match self.peek().cloned() {
            Some(Token::Number(n)) => {
                let text = if minus { format!("-{n}") } else { n };
                Operand::Number(number(&text).ok_or_else(|| format!("has `{text}`, no number"))?)
            }
            Some(t) if minus => return Err(format!("has `-` before {}", t.describe())),
            Some(Token::Text(t)) => Operand::Text(t),
            Some(Token::Name(n)) => match n.as_str() {
                "length" => Operand::Length,
                "true" | "yes" => Operand::Bool(true),
                "false" | "no" => Operand::Bool(false),
                "and" | "or" | "not" => return Err(format!("has `{n}` where a field or a value belongs")),
                _ => Operand::Field(n),
            },
            Some(t) => return Err(format!("has {} where a field or a value belongs", t.describe())),
            None => return Err("ends where a field or a value belongs".into()),
        };
        self.at += 1;
        Ok(operand)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn records_pass_or_do_not() {
        let record = json!({
            "int_score": 4, "score": "0.75", "lang": "en", "ok": true, "meta": {"stars": 10}, "none": null,
            "say": "a \"b\"\n", "id": 9_007_199_254_740_993_u64, "hash": 18_446_744_073_709_551_615_u64,
        });
        for (text, expect) in [
            ("int_score >= 4 and length >= 8192", true),
            ("int_score > 4 or length < 8192", false),
            ("not int_score > 4", true),
            ("score > 0.5", true),
            ("score > 1e-1 and score < 7.5e-1", false),
            ("lang == \"en\"", true),
            ("lang != \"en\" or (ok and meta.stars >= 10)", true),
            ("\"de\" < lang", true),
            ("ok == yes", true),
            ("ok == no", false),
            ("missing == 1", false),
            ("missing != 1", true),
            ("none < 1", false),
            ("lang", false),
            ("lang > 3", false),
            ("meta.stars > -1", true),
            ("id == 9007199254740993 and id > 9007199254740992", true),
            ("id == 9007199254740992", false),
            ("hash > 18446744073709551614", true),
            ("hash > -9007199254740993 and id > 1e3", true),
            ("say == \"a \\\"b\\\"\\n\"", true),
            ("lang == \"fr\" and lang == \"en\" or ok", true),
        ] {
            let filter = Filter::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(filter.passes(&record, Some(10_000)), Some(expect), "{text}");
        }
    }

    #[test]
    fn an_unknown_length_decides_nothing_it_need_not() {
        let passes = |text: &str| Filter::parse(text).unwrap().passes(&json!({"a": 1}), None);
        assert_eq!(passes("length > 5"), None);
        assert_eq!(passes("length > 5 and a == 2"), Some(false));
        assert_eq!(passes("length > 5 or a == 1"), Some(true));
        assert_eq!(passes("not length > 5"), None);
    }

    #[test]
    fn nonsense_is_refused() {
        let deep = format!("{}a{}", "(".repeat(100_000), ")".repeat(100_000));
        for text in
            ["", "a ==", "== 1", "(a", "a)", "a and", "1", "a = 1", "a == \"x", "a ; b", "-a > 1", &deep]
        {
            assert!(Filter::parse(text).is_err(), "{text:.20}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_not(text in "[a-c0-9 ()<>=!\"\\\\.e-]{0,40}|\\PC{0,40}") {
            if let Ok(filter) = Filter::parse(&text) {
                filter.passes(&json!({"a": 1, "b": "x", "c": null}), Some(3));
            }
        }
    }
}
