//! The table of diagnostic codes and lints. A code is not done without an `explain` page (a
//! missing one does not compile) and a ui test.

use super::Level;

/// A diagnostic code: `Code(312)` prints as `E0312`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u16);

impl Code {
    /// `E0312` to `Code(312)`.
    const fn from_name(name: &str) -> Self {
        let bytes = name.as_bytes();
        let mut number = 0;
        let mut i = 1;
        while i < bytes.len() {
            number = number * 10 + (bytes[i] - b'0') as u16;
            i += 1;
        }
        Self(number)
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "E{:04}", self.0)
    }
}

/// One row of [`CODES`].
#[derive(Clone, Copy, Debug)]
pub struct CodeInfo {
    /// The number.
    pub code: Code,
    /// The lint's name, for codes that are lints.
    pub lint: Option<&'static str>,
    /// The built-in level.
    pub level: Level,
    /// What it is, in a few words.
    pub title: &'static str,
    /// The `explain` page, Markdown.
    pub page: &'static str,
}

/// The row of a code, by `E0312` or by the lint's name.
pub fn find(name: &str) -> Option<&'static CodeInfo> {
    let upper = name.to_ascii_uppercase();
    CODES.iter().find(|info| info.lint == Some(name) || info.code.to_string() == upper)
}

/// Names of all lints.
pub fn lints() -> impl Iterator<Item = &'static str> {
    CODES.iter().filter_map(|info| info.lint)
}

/// One line per code: `NAME E0312 "title";` for an error, `NAME E0312 Warn "lint_name" "title";`
/// for a lint. Makes a constant `NAME` and a row whose page is `explain/E0312.md`.
macro_rules! codes {
    ($($name:ident $number:ident $($level:ident $lint:literal)?, $title:literal;)*) => {
        $(
            #[doc = $title]
            pub const $name: Code = Code::from_name(stringify!($number));
        )*

        /// Every code the compiler can print.
        pub const CODES: &[CodeInfo] = &[$(CodeInfo {
            code: $name,
            lint: codes!(@lint $($lint)?),
            level: codes!(@level $($level)?),
            title: $title,
            page: include_str!(concat!("explain/", stringify!($number), ".md")),
        }),*];
    };
    (@lint) => { None };
    (@lint $lint:literal) => { Some($lint) };
    (@level) => { Level::Deny };
    (@level $level:ident) => { Level::$level };
}

codes! {
    // E00xx: syntax.
    UNEXPECTED E0001, "something the grammar has no place for";
    UNCLOSED_BLOCK E0002, "a block that is never closed";
    UNBALANCED E0003, "a bracket without its partner";
    UNCLOSED_STRING E0004, "a string that is never closed";
    MISSING_VALUE E0005, "a value is missing";
    TOO_DEEP E0006, "nested too deeply";
    WRONG_PLACE E0007, "an item inside a block, or a field outside one";
    WRONG_SIGN E0008, "`:` for `=`, or another sign of a different language";
    CHAINED_COMPARISON E0009, "a chain of comparisons";
    BAD_ESCAPE E0010, "an unknown escape in a string";
    ORPHAN_ATTRIBUTE E0011, "an attribute with nothing after it";
    ORPHAN_DOC E0012 Warn "orphan_doc", "a doc comment with nothing after it";
    TOO_LONG E0013, "a file or an entry too long to read";

    // E01xx: literals and units.
    MALFORMED_NUMBER E0101, "a malformed number";
    UNKNOWN_MAGNITUDE E0102, "an unknown magnitude";
    EXPONENT_AND_MAGNITUDE E0103, "an exponent and a magnitude together";
    NUMBER_OUT_OF_RANGE E0104, "a number too large or too precise";
    UNKNOWN_UNIT E0105, "an unknown unit word";
    MISPLACED_PERCENT E0106, "a misplaced percent sign";
    SPACING E0107, "a magnitude apart from its number, or a unit glued to it";
}
