//! Multiple choice by likelihood, with the same answers as lm-evaluation-harness on the same file.
//!
//! One JSON object a line: `{"question": "…", "choices": ["…", …], "answer": 0}`; `context` is
//! taken for `question`, a letter for the index. The prompt is the question, then a space, then the
//! choice. `accuracy` takes the choice with the largest log-likelihood, `accuracy_norm` the one
//! with the largest log-likelihood per character.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::score::{ScoreError, Scored, log_likelihoods};
use crate::runtime::engine::{Engine, LengthTables};

/// Why a task cannot be scored.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum ChoiceError {
    /// The file.
    #[error("cannot read the task `{}`", path.display())]
    #[diagnostic(code(midc::eval::task_io))]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A line of it.
    #[error("`{}` line {line}: {reason}", path.display())]
    #[diagnostic(
        code(midc::eval::task_line),
        help("a task line looks like {{\"question\": \"…\", \"choices\": [\"…\", \"…\"], \"answer\": 0}}")
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// 1-based.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// Nothing in it.
    #[error("the task `{}` has no questions", path.display())]
    #[diagnostic(
        code(midc::eval::task_empty),
        help(
            "write one question a line: {{\"question\": \"…\", \"choices\": [\"…\", \"…\"], \"answer\": 0}}"
        )
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What is asked.
    pub question: String,
    /// At least two.
    pub choices: Vec<String>,
    /// Index of the right one.
    pub answer: usize,
}

/// Shares of questions answered right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChoiceScore {
    /// By log-likelihood.
    pub accuracy: f64,
    /// By log-likelihood per character of the choice.
    pub accuracy_norm: f64,
    /// Questions.
    pub questions: usize,
}

#[derive(Deserialize)]
struct Line {
    #[serde(alias = "context", alias = "query")]
    question: String,
    choices: Vec<String>,
    #[serde(alias = "gold", alias = "label")]
    answer: Value,
}

/// Read a task file, of at least one question.
///
/// # Errors
/// [`ChoiceError::Io`], for the first bad line [`ChoiceError::Line`], or [`ChoiceError::Empty`].
pub fn read(path: &Path) -> Result<Vec<Question>, ChoiceError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ChoiceError::Io { path: path.to_path_buf(), source })?;
    let lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
    let questions: Vec<Question> = lines
        .map(|(at, line)| {
            question(line).map_err(|reason| ChoiceError::Line {
                path: path.to_path_buf(),
                line: at + 1,
                reason,
            })
        })
        .collect::<Result<_, _>>()?;
    if questions.is_empty() {
        return Err(ChoiceError::Empty { path: path.to_path_buf() });
    }
    Ok(questions)
}

fn question(line: &str) -> Result<Question, String> {
    let Line { question, choices, answer } = serde_json::from_str(line).map_err(|e| e.to_string())?;
    let index = match &answer {
        Value::Number(n) => n.as_u64().map(|n| n as usize),
        Value::String(s) => match s.as_bytes() {
            [letter @ b'A'..=b'Z'] => Some(usize::from(letter - b'A')),
            _ => s.parse().ok(),
        },
        _ => None,
    };
    let index = index.ok_or_else(|| format!("`answer` is {answer}, not an index or a letter"))?;
    if choices.len() < 2 {
        return Err(format!("{} choices; at least two are needed", choices.len()));
    }
    if index >= choices.len() {
        return Err(format!("`answer` is {index}, but there are {} choices, counted from 0", choices.len()));
    }
    Ok(Question { question, choices, answer: index })
}

/// Prompt and continuation as token ids. White space at the end of the prompt belongs to the
/// continuation, and the pair is encoded together so that merges across the seam are as in text.
pub fn encode_pair<E>(
    prompt: &str,
    continuation: &str,
    encode: &dyn Fn(&str) -> Result<Vec<u32>, E>,
) -> Result<Scored, E> {
    let head = prompt.trim_end();
    let tail = format!("{}{continuation}", &prompt[head.len()..]);
    let head_tokens = encode(head)?;
    let tokens = encode(&format!("{head}{tail}"))?;
    let from = head_tokens.len().min(tokens.len().saturating_sub(1));
    Ok(Scored { tokens, from })
}

/// Score `questions`; `end` is the token that ends a text.
///
/// # Errors
/// What the engine or the tokenizer says.
pub fn score<E>(
    engine: &mut dyn Engine,
    tables: &mut LengthTables,
    context: usize,
    questions: &[Question],
    end: u32,
    encode: &dyn Fn(&str) -> Result<Vec<u32>, E>,
    stopping: &dyn Fn() -> bool,
) -> Result<ChoiceScore, E>
where
    E: From<ScoreError>,
{
    let mut texts = Vec::new();
    for question in questions {
        for choice in &question.choices {
            let pair = encode_pair(&question.question, &format!(" {choice}"), encode)?;
            texts.push(pair.behind(end));
        }
    }
    let sums = log_likelihoods(engine, tables, context, &texts, stopping)?;
    let (mut right, mut right_norm, mut at) = (0usize, 0usize, 0usize);
    for question in questions {
        let own = &sums[at..at + question.choices.len()];
        at += question.choices.len();
        let per_char: Vec<f64> =
            own.iter().zip(&question.choices).map(|(s, c)| s / c.chars().count().max(1) as f64).collect();
        right += usize::from(argmax(own) == question.answer);
        right_norm += usize::from(argmax(&per_char) == question.answer);
    }
    let n = questions.len();
    let share = |count: usize| if n == 0 { f64::NAN } else { count as f64 / n as f64 };
    Ok(ChoiceScore { accuracy: share(right), accuracy_norm: share(right_norm), questions: n })
}

/// The first of the largest values, as numpy's argmax.
fn argmax(values: &[f64]) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Result<Vec<u32>, std::convert::Infallible> {
        Ok(text.bytes().map(u32::from).collect())
    }

    #[test]
    fn trailing_space_goes_with_the_answer() {
        let pair = encode_pair("Two and two is ", "four", &bytes).unwrap();
        assert_eq!(pair.from, "Two and two is".len());
        assert_eq!(pair.tokens.len(), "Two and two is four".len());
    }

    #[test]
    fn an_empty_prompt_is_predicted_from_the_end_of_a_text() {
        let pair = encode_pair("", "ab", &bytes).unwrap().behind(7);
        assert_eq!((pair.tokens, pair.from), (vec![7, 97, 98], 1));
    }

    #[test]
    fn lines_are_checked() {
        assert_eq!(question(r#"{"question":"q","choices":["a","b"],"answer":"B"}"#).unwrap().answer, 1);
        assert!(question(r#"{"question":"q","choices":["a","b"],"answer":2}"#).unwrap_err().contains("2"));
        assert!(question(r#"{"question":"q","choices":["a"],"answer":0}"#).is_err());
        assert!(question("{").is_err());
    }
}
