//! The plan's text as a tree in which every key and value knows its bytes.
//!
//! Invariants: depth, node count and text size are bounded; a duplicate key, an anchor, an alias, a tag or a second
//! document is an error with its place. It does not know the plan's shape: that is `shape`.

use crate::source::Span;
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span as ParserSpan};

/// Deepest nesting of a plan; the plan's own shape needs 14.
const MAX_DEPTH: usize = 32;
/// Most nodes: about 50 a host leaves room for 100,000 hosts.
const MAX_NODES: usize = 8_000_000;
/// Most keys of one mapping; the plan's own shape needs 14.
const MAX_KEYS: usize = 256;

/// One node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Where it stands; for a block collection its first byte up to the end of its first line.
    pub(crate) span: Span,
    /// What it is.
    pub(crate) value: Value,
}

/// A node's value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// A scalar: its text and whether it stood in quotes.
    Scalar {
        /// The text after YAML's escapes.
        text: String,
        /// In quotes, or a block scalar.
        quoted: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A mapping, in file order.
    Map(Vec<Entry>),
}

/// One key and its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The key.
    pub(crate) key: String,
    /// Where the key stands.
    pub(crate) key_span: Span,
    /// The value.
    pub(crate) node: Node,
}

/// Why a text is no tree.
#[derive(Debug)]
pub(crate) enum Fault {
    /// No YAML, or more of YAML than a plan may use.
    Syntax(Span, String),
    /// A feature of YAML that plans do not have.
    Refused(Span, &'static str),
    /// A key that stands twice in one mapping: again, first, key.
    DuplicateKey(Span, Span, String),
}

impl Node {
    /// The entry of a mapping by key.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The item of a list.
    pub(crate) fn item(&self, index: usize) -> Option<&Node> {
        match &self.value {
            Value::List(items) => items.get(index),
            _ => None,
        }
    }
}

/// Reads one YAML document. Duplicate keys are all reported; the tree then keeps the first.
pub(crate) fn parse(text: &str) -> Result<(Node, Vec<Fault>), Fault> {
    let mut reader = Reader { parser: Parser::new_from_str(text), text, nodes: 0, faults: Vec::new() };
    let mut root = None;
    while let Some((event, span)) = reader.next()? {
        match event {
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd | Event::StreamEnd => {}
            other if root.is_none() => root = Some(reader.node(other, span, 0)?),
            _ => {
                return Err(Fault::Syntax(
                    reader.span(&span),
                    "a second YAML document: a plan is one".to_owned(),
                ));
            }
        }
    }
    match root {
        Some(node) => Ok((node, reader.faults)),
        None => Err(Fault::Syntax(Span { start: 0, end: 0 }, "the file is empty".to_owned())),
    }
}

struct Reader<'t> {
    parser: Parser<'t, serde_saphyr::granit_parser::StrInput<'t>>,
    text: &'t str,
    nodes: usize,
    faults: Vec<Fault>,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<Option<(Event<'t>, ParserSpan)>, Fault> {
        loop {
            match self.parser.next_event() {
                None => return Ok(None),
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok((event, span))) => return Ok(Some((event, span))),
                Some(Err(error)) => {
                    let at = error.marker().byte_offset().unwrap_or(self.text.len()).min(self.text.len());
                    let end = (at + 1).min(self.text.len());
                    return Err(Fault::Syntax(Span { start: at, end }, error.info()));
                }
            }
        }
    }

    fn span(&self, span: &ParserSpan) -> Span {
        let range = span.byte_range().unwrap_or(0..0);
        let start = range.start.min(self.text.len());
        let end = range.end.clamp(start, self.text.len());
        // A block collection's span would underline pages; its first line says enough.
        let line_end = self.text[start..end].find('\n').map_or(end, |at| start + at);
        let shown = self.text[start..line_end].trim_end().len();
        Span { start, end: start + shown }
    }

    fn node(&mut self, event: Event<'t>, span: ParserSpan, depth: usize) -> Result<Node, Fault> {
        let here = self.span(&span);
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            return Err(Fault::Syntax(
                here,
                format!("deeper than {MAX_DEPTH} levels or more than {MAX_NODES} values"),
            ));
        }
        let refuse = |what: &'static str| Err(Fault::Refused(here, what));
        match event {
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, _, Some(_))
            | Event::MappingStart(_, _, Some(_)) => refuse("a YAML tag (!…)"),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(_, anchor, _)
            | Event::MappingStart(_, anchor, _)
                if anchor != 0 =>
            {
                refuse("a YAML anchor (&…)")
            }
            Event::Alias(..) | Event::UnresolvedAlias(..) => refuse("a YAML alias (*…)"),
            Event::Scalar(text, style, _, _) => {
                let quoted = style != ScalarStyle::Plain;
                Ok(Node { span: here, value: Value::Scalar { text: text.into_owned(), quoted } })
            }
            Event::SequenceStart(..) => self.list(here, depth),
            Event::MappingStart(..) => self.map(here, depth),
            _ => refuse("something that is no value"),
        }
    }

    fn list(&mut self, start: Span, depth: usize) -> Result<Node, Fault> {
        let mut items = Vec::new();
        while let Some((event, span)) = self.next()? {
            if matches!(event, Event::SequenceEnd) {
                return Ok(Node { span: self.whole(start, &span), value: Value::List(items) });
            }
            items.push(self.node(event, span, depth + 1)?);
        }
        Err(Fault::Syntax(start, "a list that does not end".to_owned()))
    }

    fn map(&mut self, start: Span, depth: usize) -> Result<Node, Fault> {
        let mut entries: Vec<Entry> = Vec::new();
        while let Some((event, span)) = self.next()? {
            let key_span = self.span(&span);
            let key = match event {
                Event::MappingEnd => {
                    return Ok(Node { span: self.whole(start, &span), value: Value::Map(entries) });
                }
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(Fault::Syntax(key_span, "a key must be plain text".to_owned())),
            };
            if entries.len() >= MAX_KEYS {
                return Err(Fault::Syntax(key_span, format!("more than {MAX_KEYS} keys in one mapping")));
            }
            let Some((event, span)) = self.next()? else { break };
            let node = self.node(event, span, depth + 1)?;
            match entries.iter().find(|entry| entry.key == key) {
                Some(first) => self.faults.push(Fault::DuplicateKey(key_span, first.key_span, key)),
                None => entries.push(Entry { key, key_span, node }),
            }
        }
        Err(Fault::Syntax(start, "a mapping that does not end".to_owned()))
    }

    /// A flow collection is underlined whole, where it is one line; a block collection by its first line.
    fn whole(&self, start: Span, end: &ParserSpan) -> Span {
        let end = end.byte_range().map_or(start.end, |range| range.end).min(self.text.len());
        let text = self.text.get(start.start..end).unwrap_or("");
        let line = text.lines().next().unwrap_or("").trim_end();
        Span { start: start.start, end: start.start + line.len() }
    }
}
