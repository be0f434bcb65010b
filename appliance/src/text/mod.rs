//! Views as text for people: pure, from the same types that `-o json` shows. Lines fit 100 columns; golden files hold them.

pub(crate) mod doctor;
pub(crate) mod host;
pub(crate) mod lab;
pub(crate) mod status;
pub(crate) mod vm;
pub(crate) mod why;

#[cfg(test)]
mod tests;

use comfy_table::{ContentArrangement, Table};
use dayzero_model::units::Timestamp;

/// Widest line.
pub(crate) const WIDTH: u16 = 100;

/// A table without borders, two spaces between columns, at most [`WIDTH`] wide.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    if !header.is_empty() {
        table.set_header(header.iter().copied());
    }
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table.to_string().lines().map(|line| line.trim_end().to_owned()).collect();
    format!("{}\n", lines.join("\n"))
}

/// How long ago, in the two largest units.
pub(crate) fn ago(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.since(then).0 / 1000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} m {:02} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {:02} m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {:02} h", seconds / 86400, seconds / 3600 % 24),
    }
}

/// Hour, minute and second (UTC) of a moment, from its RFC 3339 text.
pub(crate) fn clock(at: Timestamp) -> String {
    let text = at.to_string();
    text.split_once('T').map_or(text.clone(), |(_, time)| time.chars().take(8).collect())
}

/// Words wrapped at [`WIDTH`], every line after the first indented. Spacing inside a line stays as it is.
pub(crate) fn wrap(first: &str, indent: usize, text: &str) -> String {
    let mut out = first.to_owned();
    let mut column = first.chars().count();
    let mut spaces = String::new();
    let mut fresh = true;
    for word in text.trim().split(' ') {
        if word.is_empty() {
            spaces.push(' ');
            continue;
        }
        let length = word.chars().count();
        if !fresh && column + spaces.len() + length > usize::from(WIDTH) {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            column = indent;
        } else {
            out.push_str(&spaces);
            column += spaces.len();
        }
        out.push_str(word);
        column += length;
        spaces = " ".to_owned();
        fresh = false;
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}
