//! What is wrong with a plan, for people (underlined source) and for tools (JSON).
//!
//! Invariants: a code never changes its meaning; each message carries the numbers it rests on. The text form is in
//! `render`; this module holds no lint.

use crate::source::{Path, SourceMap, Span};
use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The plan is refused.
    Error,
    /// The plan is accepted; a person should look.
    Warning,
}

/// A piece of the plan that a diagnostic speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Label {
    /// The place, such as `zones[0].pods[0].network`; empty where the file could not be read that far.
    pub path: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Bytes of the text.
    pub span: Span,
    /// What it has to do with the matter.
    pub text: String,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Stable code, such as `DZ011`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence with the numbers.
    pub message: String,
    /// What a person can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Where; the first is the place to change.
    pub labels: Vec<Label>,
}

/// All that was found in one plan file, in file order. As an error it prints like a compiler.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    pub(crate) file: String,
    pub(crate) text: String,
    pub(crate) list: Vec<Diagnostic>,
}

/// What a check found, by path; [`Diagnostics::resolve`] gives it lines and columns.
#[derive(Clone, Debug)]
pub struct Finding {
    pub(crate) code: &'static str,
    pub(crate) severity: Severity,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
    pub(crate) places: Vec<(Place, String)>,
}

#[derive(Clone, Debug)]
pub(crate) enum Place {
    Path(Path),
    Span(Span),
}

impl Finding {
    /// Something that refuses the plan.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, severity: Severity::Error, message: message.into(), help: None, places: Vec::new() }
    }

    /// Something that a person should look at.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    /// What a person can do.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// Where; the first place is the one to change.
    #[must_use]
    pub fn at(mut self, path: &Path, text: impl Into<String>) -> Self {
        self.places.push((Place::Path(path.clone()), text.into()));
        self
    }

    #[must_use]
    pub(crate) fn at_span(mut self, span: Span, text: impl Into<String>) -> Self {
        self.places.push((Place::Span(span), text.into()));
        self
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl Diagnostics {
    pub(crate) fn new(file: &str, text: &str) -> Self {
        Self { file: file.to_owned(), text: text.to_owned(), list: Vec::new() }
    }

    /// Gives findings their places in the text, in file order.
    pub fn resolve(source: &SourceMap, findings: Vec<Finding>) -> Self {
        let mut all = Self::new(source.file(), source.text());
        for finding in findings {
            all.push(finding, Some(source));
        }
        all.sort();
        all
    }

    pub(crate) fn push(&mut self, finding: Finding, source: Option<&SourceMap>) {
        let labels = finding.places.into_iter().map(|(place, text)| {
            let (path, span) = match place {
                Place::Path(path) => {
                    (path.to_string(), source.map_or(Span { start: 0, end: 0 }, |source| source.span(&path)))
                }
                Place::Span(span) => (String::new(), span),
            };
            let (line, column) = position(&self.text, span.start);
            Label { path, line, column, span, text }
        });
        let labels = labels.collect();
        let Finding { code, severity, message, help, .. } = finding;
        self.list.push(Diagnostic { code, severity, message, help, labels });
    }

    pub(crate) fn sort(&mut self) {
        self.list.sort_by_key(|one| (one.labels.first().map_or(0, |label| label.span.start), one.code));
    }

    /// The diagnostics.
    pub fn list(&self) -> &[Diagnostic] {
        &self.list
    }

    /// The file they are about.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// How many refuse the plan.
    pub fn errors(&self) -> usize {
        self.list.iter().filter(|one| one.severity == Severity::Error).count()
    }

    /// How many do not.
    pub fn warnings(&self) -> usize {
        self.list.len() - self.errors()
    }

    /// True if nothing was found.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// `{"file", "errors", "warnings", "diagnostics": [{code, severity, message, help, labels}]}`.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "file": self.file,
            "errors": self.errors(),
            "warnings": self.warnings(),
            "diagnostics": self.list,
        })
    }
}

impl std::error::Error for Diagnostics {}

/// Line and column (in characters), both from 1, of a byte.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.bytes().filter(|byte| *byte == b'\n').count() + 1, before[line_start..].chars().count() + 1)
}
