//! The site plan as source code: read with spans, checked by lints, compared with what the store knows, and turned
//! into what the switches must be set to.
//!
//! Entry points: [`load`], [`diff()`], [`plan_hash`], [`secrets::load`], [`hosts_csv::read`], [`init`],
//! [`switch_settings`], [`json_schema`]. Invariants: a [`Site`] that comes out of [`load`] broke no lint of grade
//! error; nothing here talks to a network or a store. Where do I add a lint: one file in `lints/`, one row in its
//! table, one file in `tests/faults/`.

mod canonical;
mod diagnostic;
mod diff;
pub mod hosts_csv;
pub mod init;
mod keys;
mod lints;
mod render;
mod schema;
pub mod secrets;
mod shape;
mod source;
mod switches;
mod tree;

pub use canonical::plan_hash;
pub use diagnostic::{Diagnostic, Diagnostics, Finding, Label, Severity};
pub use diff::{Change, ChangeKind, PlanDiff, diff};
pub use lints::{LintInfo, lints};
pub use schema::json_schema;
pub use source::{Path, SourceMap, Span};
pub use switches::switch_settings;

use dayzero_model::site::Site;
use std::io::Read;

/// Largest plan file, bytes: about 100,000 hosts.
const MAX_FILE: u64 = 128 << 20;

/// What a check may know beyond the plan itself.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Names of the hardware profiles that exist; `None` = not known, profiles are not checked.
    pub profiles: Option<Vec<String>>,
    /// Names of the credentials in the secret file; `None` = not read, credentials are not checked.
    pub credentials: Option<Vec<String>>,
}

/// Reads and checks a plan file. The `SourceMap` carries the warnings. Credential names are checked if the secret file
/// that the plan names can be read.
///
/// # Errors
/// Everything that refuses the plan, with the warnings, in file order.
pub fn load(path: impl AsRef<std::path::Path>) -> Result<(Site, SourceMap), Diagnostics> {
    load_with(path, &Known::default())
}

/// As [`load`], with what is known beyond the plan.
///
/// # Errors
/// As [`load`].
pub fn load_with(path: impl AsRef<std::path::Path>, known: &Known) -> Result<(Site, SourceMap), Diagnostics> {
    let path = path.as_ref();
    let file = path.display().to_string();
    let text = read(path).map_err(|problem| {
        let mut all = Diagnostics::new(&file, "");
        all.push(Finding::error("DZ001", format!("{file}: {problem}")), None);
        all
    })?;
    let mut known = known.clone();
    let (site, source) = shape_only(&file, &text)?;
    if known.credentials.is_none() {
        let secret_file = path.parent().unwrap_or(std::path::Path::new("")).join(&site.secrets);
        known.credentials = secrets::load(&secret_file)
            .ok()
            .map(|secrets| secrets.names().map(ToString::to_string).collect());
    }
    checked(site, source, &known)
}

/// Reads and checks a plan from memory; `file` is only shown.
///
/// # Errors
/// As [`load`].
pub fn load_str(file: &str, text: &str, known: &Known) -> Result<(Site, SourceMap), Diagnostics> {
    let (site, source) = shape_only(file, text)?;
    checked(site, source, known)
}

/// Runs all lints over a plan that has no text (from the API, say).
pub fn lint(site: &Site, known: &Known) -> Vec<Finding> {
    lints::run(site, known)
}

fn checked(site: Site, mut source: SourceMap, known: &Known) -> Result<(Site, SourceMap), Diagnostics> {
    let found = Diagnostics::resolve(&source, lints::run(&site, known));
    if found.errors() > 0 {
        return Err(found);
    }
    source.set_warnings(found);
    Ok((site, source))
}

/// Text to tree to types; every key and value fault at once.
fn shape_only(file: &str, text: &str) -> Result<(Site, SourceMap), Diagnostics> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut all = Diagnostics::new(file, text);
    let (tree, faults) = match tree::parse(text) {
        Ok(parsed) => parsed,
        Err(fault) => {
            all.push(syntax(fault), None);
            return Err(all);
        }
    };
    for finding in faults.into_iter().map(syntax).chain(keys::check(&tree, &shape::SITE)) {
        all.push(finding, None);
    }
    all.sort();
    if !all.is_empty() {
        return Err(all);
    }
    let options = serde_saphyr::options! { budget: None, with_snippet: false };
    match serde_saphyr::from_str_with_options::<Site>(text, options) {
        Ok(site) => Ok((site, SourceMap::new(file.to_owned(), text.to_owned(), tree))),
        Err(error) => {
            let at = error.location().and_then(|location| location.span().byte_offset()).unwrap_or(0);
            let start = usize::try_from(at).unwrap_or(0).min(text.len());
            let end = text[start..].find(['\n', ',', '}']).map_or(text.len(), |length| start + length);
            all.push(Finding::error("DZ004", error.to_string()).at_span(Span { start, end }, ""), None);
            Err(all)
        }
    }
}

fn syntax(fault: tree::Fault) -> Finding {
    match fault {
        tree::Fault::Syntax(span, message) => {
            Finding::error("DZ001", format!("this is no plan in YAML: {message}"))
                .help("look at the indentation, and at a quote, bracket or colon before this place")
                .at_span(span, "reading stopped here")
        }
        tree::Fault::Refused(span, what) => Finding::error("DZ001", format!("{what} is not used in plans"))
            .help("write each thing where it stands; for many hosts alike, `plan init` takes a CSV")
            .at_span(span, ""),
        tree::Fault::DuplicateKey(again, first, key) => {
            Finding::error("DZ003", format!("`{key}` stands twice"))
                .help("remove one of them")
                .at_span(again, "again here")
                .at_span(first, "first here")
        }
    }
}

fn read(path: &std::path::Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("larger than {} MiB", MAX_FILE >> 20));
    }
    String::from_utf8(bytes)
        .map_err(|error| format!("no UTF-8 text (byte {})", error.utf8_error().valid_up_to()))
}
