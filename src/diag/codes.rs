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

impl CodeInfo {
    /// The page as people read it: without the marks that tell tests what its examples draw.
    pub fn text(&self) -> String {
        self.page
            .replace("```curriculum fail\n", "```curriculum\n")
            .replace("```curriculum ok\n", "```curriculum\n")
    }
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

/// Whether a lint is about what an engine makes of a plan, so that it fires when a launch is written and no check of
/// a file knows of it.
pub fn of_an_engine(lint: &str) -> bool {
    find(lint).is_some_and(|info| (950..960).contains(&info.code.0))
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

    // E01xx: literals, values and units.
    MALFORMED_NUMBER E0101, "a malformed number";
    UNKNOWN_MAGNITUDE E0102, "an unknown magnitude";
    EXPONENT_AND_MAGNITUDE E0103, "an exponent and a magnitude together";
    NUMBER_OUT_OF_RANGE E0104, "a number too large or too precise";
    UNKNOWN_UNIT E0105, "an unknown unit word";
    MISPLACED_PERCENT E0106, "a misplaced percent sign";
    SPACING E0107, "a magnitude apart from its number, or a unit glued to it";
    WRONG_VALUE E0150, "a value of the wrong kind";
    BARE_SHARE E0151, "a share that does not say of what";
    NOT_WHOLE E0152, "not a whole number";
    BATCH_UNIT E0153, "a batch without a unit";
    OUT_OF_RANGE E0154, "a number outside its range";
    OVERFLOW E0155, "arithmetic beyond exact range";

    // E02xx: names.
    UNKNOWN_NAME E0201, "an unknown name";
    UNKNOWN_BLOCK E0202, "an unknown or misplaced block";
    UNKNOWN_FIELD E0203, "an unknown field";
    UNKNOWN_FUNCTION E0204, "an unknown function";
    UNKNOWN_ARGUMENT E0205, "an unknown or unnamed argument";
    MISSING_ARGUMENT E0206, "a missing argument";
    UNKNOWN_WORD E0207, "not one of the words of a field";
    DUPLICATE_NAME E0208, "a name defined twice";
    DUPLICATE_FIELD E0209, "a field, weight or argument written twice";
    MISSING_FIELD E0210, "a missing field";
    WRONG_KIND E0211, "the wrong kind of thing";
    CYCLE E0212, "a circle of definitions";
    RESERVED_NAME E0213, "a reserved name";
    UNKNOWN_ATTRIBUTE E0214, "an unknown attribute, or one that says nothing";
    UNKNOWN_PROPERTY E0215, "an unknown property";
    BLOCK_NAME E0216, "a block without its name, or with one too many";

    // E025x: lints on names and levels.
    UNUSED_SOURCE E0250 Warn "unused_source", "a source that nothing reads";
    UNUSED_MIX E0251 Warn "unused_mix", "a mix that nothing reads";
    UNUSED_LET E0252 Warn "unused_let", "a named value that nothing mentions";
    UNUSED_SOUP E0253 Warn "unused_soup", "a soup that the run goes on without";
    UNKNOWN_LINT E0254 Warn "unknown_lint", "a lint that does not exist";
    UNUSED_ALLOW E0255 Warn "unused_allow", "an `@allow` that silences nothing";

    // E03xx: mixtures.
    MIX_SUM E0301, "weights that do not sum to 100%";
    MIX_REST E0302, "a `rest` that cannot be";
    MIX_WEIGHT E0303, "a weight that is no share";
    MIX_EMPTY E0304, "an empty mix";
    MIX_SIZES E0305, "proportions of sources without a size";
    MIX_TWICE E0306, "a source named twice";
    MIX_REPLAY E0307, "a replay of what is not known";

    // E035x: lints on what is read, and how often.
    BUDGET_VS_SOURCE E0350 Deny "budget_vs_source", "more of a source is needed than it gives";
    EPOCHS_OVER_CAP E0351 Warn "epochs_over_cap", "a source is read too often";
    REPLAY_BELOW_FLOOR E0352 Warn "replay_below_floor", "hardly anything was seen before";
    QUALITY_INVERTED E0353 Warn "quality_inverted", "the better data comes first";
    SOURCE_OVERLAP E0354 Deny "source_overlap", "one file under two names";
    WEIGHT_BELOW_QUANTUM E0355 Warn "weight_below_quantum", "a weight below one sequence";
    LONG_ONLY E0356 Warn "long_only", "a long stage without short text";
    BENCHMARK_IN_TRAIN E0357 Warn "benchmark_in_train", "an evaluation's training set as a source";
    SAME_ORDER E0358 Warn "same_order", "two stages read in one order";

    // E04xx: curves.
    CURVE_LONG E0401, "a curve longer than its stage";
    CURVE_SHORT E0402, "a curve shorter than its stage";
    CURVE_OPEN E0403, "two segments without a length";
    CURVE_SHAPE E0404, "a shape that cannot go there";
    CURVE_INHERIT E0405, "nothing to inherit";
    CURVE_PEAK E0406, "a peak of nothing";
    CURVE_UNTIL E0407, "a condition that is never reached, or holds from the start";
    CURVE_START E0408, "a curve without a start";
    CURVE_SEGMENT E0409, "not a segment of this curve";
    CURVE_SPAN E0410, "a span that cannot be measured";
    CURVE_SIZE E0411, "a curve that unfolds to too much";

    // E045x: lints on the learning rate.
    LR_JUMP E0450 Deny "lr_jump", "the learning rate jumps between stages";
    LR_NEVER_LANDS E0451 Deny "lr_never_lands", "a decay that is cut before it lands";
    LR_RISES_IN_DECAY E0452 Deny "lr_rises_in_decay", "a schedule that runs backwards";
    OPTIMIZER_RESET E0453 Warn "optimizer_reset_without_warmup", "a fresh optimizer at the full learning rate";
    DECAY_TOO_SHORT E0454 Warn "decay_too_short", "a decay of under 5% of the stable phase";
    LR_SCALE E0455 Deny "lr_scale", "a learning rate that trains nothing, or that no model survives";

    // E05xx: stages and the graph.
    STAGE_LENGTH E0501, "a stage without a length, or with two";
    STAGE_SEED E0502, "a bare `seed`";
    STAGE_FROM E0503, "a stage from several places";
    STAGE_BATCH E0504, "a batch that is not whole sequences";
    STAGE_EACH E0505, "a fan-out that cannot be";
    STAGE_CHECKPOINT E0506, "a checkpoint outside its stage";
    SOUP E0507, "a soup that cannot be";
    STAGE_NOTHING_INHERITED E0508, "nothing to inherit a field from";
    MODEL_SHAPE E0509, "an architecture that cannot be";
    STAGE_STATE E0510, "moments of another optimizer, or of none";
    GATE_UNMEASURED E0511, "a gate on what nothing measures";

    // E055x: lints on stages and the graph.
    BATCH_CHANGES_TOKENS E0550 Warn "batch_changes_tokens", "tokens per step change with the context";
    BOUNDARY_ALIGNMENT E0551 Warn "boundary_alignment", "an edge or switch inside a step";
    ANNEAL_TOO_SHORT E0552 Warn "anneal_too_short", "a stage of fewer than ten steps";
    SOUP_INGREDIENTS E0553 Deny "soup_ingredients", "weights that should not be averaged";
    MISSING_DATA_SEED E0554 Warn "missing_data_seed", "a stage whose data order is not said";

    // E06xx: context and RoPE.
    ROPE_ARGUMENT E0601, "RoPE parameters out of range";
    MODEL_CONTRADICTS E0602, "a model that contradicts itself or its checkpoint";
    ROPE_BASE E0603, "a RoPE whose base is not known";

    // E065x: lints on context and RoPE.
    ROPE_REACH E0650 Deny "rope_reach", "a context that RoPE does not cover";
    ROPE_TRANSITION E0651 Deny "rope_transition", "RoPE loses something between stages";
    DECIMAL_CONTEXT E0652 Deny "decimal_context", "a context with a decimal magnitude";
    CONTEXT_STARVED E0653 Warn "context_starved", "few documents as long as the context";

    // E07xx: asserts and budgets.
    ASSERT_FAILED E0701, "an assert that does not hold";
    ASSERT_UNDECIDED E0702, "a condition that cannot be decided";
    BUDGET_EXCEEDED E0703, "a budget that is exceeded";
    NOT_A_CONDITION E0704, "not a condition";

    // E08xx: files, imports, parameters.
    CANNOT_READ E0801, "a file that cannot be read";
    USE_CYCLE E0802, "files that use each other in a circle";
    PIN_MISMATCH E0803, "a file that is not the pinned one";
    UNKNOWN_PARAM E0804, "a setting of an unknown parameter";
    BAD_PARAM E0805, "a parameter of the wrong type";
    BAD_CONFIG E0806, "a `config.json` that cannot be read";

    // E085x: lints on files.
    MISSING_FILES E0850 Warn "missing_files", "a path that leads nowhere here";
    UNPINNED_SOURCE E0851 Warn "unpinned_source", "definitions from elsewhere, not pinned";

    // E09xx: other engines.
    TARGET_LACKS E0901, "something the target engine cannot do";
    ROPE_TARGET_MISMATCH E0902, "a RoPE the target engine computes otherwise";

    // E095x: lints on other engines.
    TARGET_DROPS E0950 Warn "target_drops", "something the target engine leaves out";
    GATE_LEFT_OUT E0951 Deny "gate_left_out", "a gate the target engine does not judge";
}
