//! The codes the checker prints, by name. Their titles stand in `diag::CODES`.

use crate::diag::Code;

macro_rules! codes {
    ($($name:ident = $number:literal;)*) => { $(pub(crate) const $name: Code = Code($number);)* };
}

codes! {
    // Values and units.
    WRONG_VALUE = 150;
    BARE_SHARE = 151;
    NOT_WHOLE = 152;
    BATCH_UNIT = 153;
    OUT_OF_RANGE = 154;
    OVERFLOW = 155;

    // Names.
    UNKNOWN_NAME = 201;
    UNKNOWN_BLOCK = 202;
    UNKNOWN_FIELD = 203;
    UNKNOWN_FUNCTION = 204;
    UNKNOWN_ARGUMENT = 205;
    MISSING_ARGUMENT = 206;
    UNKNOWN_WORD = 207;
    DUPLICATE_NAME = 208;
    DUPLICATE_FIELD = 209;
    MISSING_FIELD = 210;
    WRONG_KIND = 211;
    CYCLE = 212;
    RESERVED_NAME = 213;
    UNKNOWN_ATTRIBUTE = 214;
    UNKNOWN_PROPERTY = 215;
    BLOCK_NAME = 216;

    // Mixtures.
    MIX_SUM = 301;
    MIX_REST = 302;
    MIX_WEIGHT = 303;
    MIX_EMPTY = 304;
    MIX_SIZES = 305;
    MIX_TWICE = 306;
    MIX_REPLAY = 307;

    // Curves.
    CURVE_LONG = 401;
    CURVE_SHORT = 402;
    CURVE_OPEN = 403;
    CURVE_SHAPE = 404;
    CURVE_INHERIT = 405;
    CURVE_PEAK = 406;
    CURVE_UNTIL = 407;
    CURVE_START = 408;
    CURVE_SEGMENT = 409;
    CURVE_SPAN = 410;
    CURVE_SIZE = 411;

    // Stages and the graph.
    STAGE_LENGTH = 501;
    STAGE_SEED = 502;
    STAGE_FROM = 503;
    STAGE_BATCH = 504;
    STAGE_EACH = 505;
    STAGE_CHECKPOINT = 506;
    SOUP = 507;
    STAGE_NOTHING_INHERITED = 508;
    MODEL_SHAPE = 509;

    // Context and RoPE.
    ROPE_ARGUMENT = 601;
    MODEL_CONTRADICTS = 602;
    ROPE_FACTORS = 603;

    // Asserts, budgets, gates.
    ASSERT_FAILED = 701;
    ASSERT_UNDECIDED = 702;
    BUDGET_EXCEEDED = 703;
    NOT_A_CONDITION = 704;

    // Files, imports, parameters.
    CANNOT_READ = 801;
    USE_CYCLE = 802;
    PIN_MISMATCH = 803;
    UNKNOWN_PARAM = 804;
    BAD_PARAM = 805;
    BAD_CONFIG = 806;
}
