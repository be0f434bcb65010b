//! Diagnostics as text: the message, the lines with the places underlined, and the help; no colours, no terminal codes.
//!
//! Invariants: control characters of the plan never reach the terminal; lines are cropped to a window around the place.

use crate::diagnostic::{Diagnostic, Diagnostics, Label, Severity};
use std::fmt;

/// Widest piece of a source line that is shown, in characters.
const WINDOW: usize = 110;

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<&str> = self.text.lines().collect();
        for one in &self.list {
            diagnostic(f, &self.file, &lines, one)?;
            writeln!(f)?;
        }
        let count =
            |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
        let (errors, warnings) = (count(self.errors(), "error"), count(self.warnings(), "warning"));
        write!(f, "{}: {errors}, {warnings}", clean(&self.file))
    }
}

fn diagnostic(f: &mut fmt::Formatter<'_>, file: &str, lines: &[&str], one: &Diagnostic) -> fmt::Result {
    let severity = match one.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    writeln!(f, "{severity}[{}]: {}", one.code, clean(&one.message))?;
    let width = one.labels.iter().map(|label| label.line.to_string().len()).max().unwrap_or(1);
    let margin = " ".repeat(width);
    if let Some(first) = one.labels.first() {
        writeln!(f, "{margin}--> {}:{}:{}", clean(file), first.line, first.column)?;
        writeln!(f, "{margin} |")?;
    }
    let mut shown: Vec<(usize, &Label)> = one.labels.iter().enumerate().collect();
    shown.sort_by_key(|(order, label)| (label.line, *order));
    let mut last = None;
    for (order, label) in shown {
        let line = lines.get(label.line - 1).copied().unwrap_or("");
        let from = window_start(line, label);
        if last != Some(label.line) {
            if last.is_some_and(|last| last + 1 < label.line) {
                writeln!(f, "{margin}...")?;
            }
            let text: String = line.chars().skip(from).take(WINDOW).collect();
            writeln!(f, "{:>width$} | {}", label.line, clean(&text))?;
            last = Some(label.line);
        }
        underline(f, &margin, line, from, label, if order == 0 { '^' } else { '-' })?;
    }
    if let Some(help) = &one.help {
        writeln!(f, "{margin} = help: {}", clean(help))?;
    }
    Ok(())
}

fn window_start(line: &str, label: &Label) -> usize {
    if line.chars().count() <= WINDOW { 0 } else { (label.column - 1).saturating_sub(WINDOW / 3) }
}

fn underline(
    f: &mut fmt::Formatter<'_>,
    margin: &str,
    line: &str,
    from: usize,
    label: &Label,
    mark: char,
) -> fmt::Result {
    let indent = (label.column - 1).saturating_sub(from);
    let covered: usize = line
        .chars()
        .skip(label.column - 1)
        .scan(0, |bytes, c| {
            *bytes += c.len_utf8();
            Some(*bytes)
        })
        .take_while(|bytes| *bytes <= label.span.end - label.span.start)
        .count();
    let marks = mark.to_string().repeat(covered.clamp(1, WINDOW.saturating_sub(indent).max(1)));
    let text = format!("{marks} {}", clean(&label.text));
    writeln!(f, "{margin} | {}{}", " ".repeat(indent), text.trim_end())
}

/// The text without control characters: each becomes one replacement character, a tab one space.
fn clean(text: &str) -> String {
    let hidden = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars()
        .map(|c| {
            if c == '\t' {
                ' '
            } else if hidden(c) {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}
