//! Golden diagnostics: each file of `faults/` is the lab's plan with one fault, as a list of edits; its diagnostic, with
//! the line underlined, is the snapshot of its name. A lint without a fault fails `every_code_has_a_fault`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use dayzero_plan::{Diagnostics, Known, load_str};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const LAB: &str = include_str!("../examples/lab.yaml");

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Fault {
    about: String,
    code: String,
    /// Profiles and credentials are known.
    #[serde(default)]
    known: bool,
    edits: Vec<Edit>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    from: String,
    to: String,
}

fn faults() -> Vec<(String, Fault)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let fault = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, fault)
    };
    paths.iter().map(read).collect()
}

fn spoilt(name: &str, fault: &Fault) -> String {
    fault.edits.iter().fold(LAB.to_owned(), |text, edit| match edit.from.as_str() {
        "@drop-host2" => text[..text.find("              - name: host2").unwrap()].to_owned(),
        from => {
            assert!(text.contains(from), "{name}: the lab's plan has no {from:?}");
            text.replacen(from, &edit.to, 1)
        }
    })
}

fn known() -> Known {
    Known { profiles: Some(vec!["qemu-q35".into()]), credentials: Some(vec!["factory".into()]) }
}

fn diagnostics(name: &str, fault: &Fault) -> Diagnostics {
    let known = if fault.known { known() } else { Known::default() };
    match load_str("site.yaml", &spoilt(name, fault), &known) {
        Err(found) => found,
        Ok((_, source)) => source.warnings().clone(),
    }
}

#[test]
fn each_fault_prints_its_diagnostic() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for (name, fault) in faults() {
        let found = diagnostics(&name, &fault);
        let codes: Vec<&str> = found.list().iter().map(|one| one.code).collect();
        assert!(
            codes.contains(&fault.code.as_str()),
            "{name}: {} is not among {codes:?}\n{found}",
            fault.code
        );
        settings.set_description(fault.about);
        settings.bind(|| insta::assert_snapshot!(name, found));
    }
}

#[test]
fn every_code_has_a_fault() {
    let reading = ["DZ001", "DZ002", "DZ003", "DZ004", "DZ005"];
    let codes: BTreeSet<String> =
        dayzero_plan::lints().map(|lint| lint.code).chain(reading).map(str::to_owned).collect();
    let shown: BTreeSet<String> = faults().into_iter().map(|(_, fault)| fault.code).collect();
    assert_eq!(codes, shown);
}

#[test]
fn each_place_is_real_text_of_the_plan() {
    for (name, fault) in faults() {
        let text = spoilt(&name, &fault);
        for one in diagnostics(&name, &fault).list() {
            assert!(!one.labels.is_empty(), "{name}: {} points nowhere", one.code);
            for label in &one.labels {
                let line = text.lines().nth(label.line - 1).unwrap();
                let column: String = line.chars().skip(label.column - 1).collect();
                let shown = &text[label.span.start..label.span.end];
                assert!(
                    column.starts_with(shown),
                    "{name}: {shown:?} is not at {}:{}",
                    label.line,
                    label.column
                );
            }
        }
    }
}

#[test]
fn the_json_form_has_all_that_the_text_has() {
    let (name, fault) = faults().into_iter().find(|(name, _)| name == "vm-cap").unwrap();
    let json = serde_json::to_string_pretty(&diagnostics(&name, &fault).to_json()).unwrap();
    insta::assert_snapshot!("json", json);
}

#[test]
fn the_lab_is_without_fault() {
    let (site, source) = load_str("lab.yaml", LAB, &known()).unwrap_or_else(|found| panic!("{found}"));
    assert!(source.warnings().is_empty(), "{}", source.warnings());
    assert_eq!(site.hosts().count(), 2);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/lab.yaml");
    let (read, _) = dayzero_plan::load(&path).unwrap_or_else(|found| panic!("{found}"));
    assert_eq!(read, site);
}

#[test]
fn a_file_that_is_not_there_or_no_text_is_a_diagnostic() {
    let found = dayzero_plan::load("/nonexistent/site.yaml").unwrap_err();
    assert!(found.to_string().contains("cannot be opened"), "{found}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"name: \xff\n").unwrap();
    assert!(dayzero_plan::load(file.path()).unwrap_err().to_string().contains("no UTF-8"));
}
