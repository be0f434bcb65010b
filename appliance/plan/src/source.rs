//! Where things stand in the plan file: paths such as `zones[0].pods[0].clusters[0].hosts[1].serial`, and the map from
//! a path to the bytes that say it.
//!
//! Invariants: every path resolves to something, if only to its nearest ancestor. It holds the text and no meaning.

use crate::diagnostic::Diagnostics;
use crate::tree::{Node, Value};
use std::borrow::Cow;
use std::fmt;

/// Bytes of the plan's text, `end` excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One after the last byte.
    pub end: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(Cow<'static, str>),
    Index(usize),
}

/// A place in the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(Vec<Step>);

impl Path {
    /// The plan itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// The value under a key.
    #[must_use]
    pub fn key(&self, key: impl Into<Cow<'static, str>>) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.into()));
        Self(steps)
    }

    /// The item of a list, from 0.
    #[must_use]
    pub fn at(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Self(steps)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if i == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// The text of a plan, and where each path stands in it.
#[derive(Clone, Debug)]
pub struct SourceMap {
    file: String,
    text: String,
    tree: Node,
    warnings: Diagnostics,
}

impl SourceMap {
    pub(crate) fn new(file: String, text: String, tree: Node) -> Self {
        let warnings = Diagnostics::new(&file, &text);
        Self { file, text, tree, warnings }
    }

    pub(crate) fn set_warnings(&mut self, warnings: Diagnostics) {
        self.warnings = warnings;
    }

    /// The file's name as it was given.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the lints found that does not stop an apply.
    pub fn warnings(&self) -> &Diagnostics {
        &self.warnings
    }

    /// The bytes of what stands at `path`: a scalar or one-line collection itself, a block by its `name` or its key;
    /// of a path that is not in the text (a default), its nearest ancestor.
    pub fn span(&self, path: &Path) -> Span {
        let mut node = &self.tree;
        let mut key_span = None;
        for step in &path.0 {
            match step {
                Step::Key(key) => match node.entry(key) {
                    Some(entry) => (node, key_span) = (&entry.node, Some(entry.key_span)),
                    None => break,
                },
                Step::Index(index) => match node.item(*index) {
                    Some(item) => (node, key_span) = (item, None),
                    None => break,
                },
            }
        }
        self.shown(node, key_span)
    }

    fn shown(&self, node: &Node, key_span: Option<Span>) -> Span {
        let flow = matches!(self.text.as_bytes().get(node.span.start), Some(b'{' | b'['));
        match &node.value {
            Value::Scalar { .. } => node.span,
            _ if flow => node.span,
            _ => key_span.or_else(|| node.entry("name").map(|entry| entry.node.span)).unwrap_or(node.span),
        }
    }
}
