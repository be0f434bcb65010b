//! The rooms and the arrows between them: what the README says is what Cargo builds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on fails

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

type Arrows = BTreeMap<String, BTreeSet<String>>;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Normal dependencies between workspace members, by package name.
fn built() -> Arrows {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root())
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let names: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let arrows = packages.iter().map(|package| {
        let normal = |dependency: &&serde_json::Value| dependency["kind"].is_null();
        let to = package["dependencies"].as_array().unwrap().iter().filter(normal);
        let to = to.filter_map(|dependency| dependency["name"].as_str()).filter(|name| names.contains(name));
        (package["name"].as_str().unwrap().to_owned(), to.map(str::to_owned).collect())
    });
    arrows.collect()
}

/// The README's table: `| room | crate | holds | may use |`.
fn drawn() -> Arrows {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let table = readme.split("| room | crate |").nth(1).expect("README has a table of rooms");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells =
        |row: &str| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    rows.map(cells)
        .map(|cells| {
            let name = cells[1].trim_matches('`').to_owned();
            let to = cells[3].split(',').map(str::trim).filter(|room| *room != "–" && !room.is_empty());
            (name, to.map(|room| format!("dayzero-{room}")).collect())
        })
        .collect()
}

#[test]
fn every_room_is_in_the_table_and_uses_only_what_it_may() {
    let (built, drawn) = (built(), drawn());
    for (name, uses) in &built {
        if name == "xtask" || name == "dayzero-tests" || name == "dayzero" {
            continue; // these may use every room
        }
        let allowed =
            drawn.get(name).unwrap_or_else(|| panic!("{name} is not in the README's table of rooms"));
        let beyond: Vec<_> = uses.difference(allowed).collect();
        assert!(beyond.is_empty(), "{name} uses {beyond:?}, which the README's table does not allow");
    }
    for name in drawn.keys() {
        assert!(built.contains_key(name), "the README's table names {name}, which Cargo does not build");
    }
}

#[test]
fn no_arrow_leads_back() {
    let built = built();
    let mut order: Vec<&String> = Vec::new();
    while order.len() < built.len() {
        let next = built
            .iter()
            .find(|(name, uses)| !order.contains(name) && uses.iter().all(|used| order.contains(&used)));
        let (name, _) = next.expect("rooms use each other in a circle");
        order.push(name);
    }
}

#[test]
fn no_file_is_too_long_and_none_lies_outside_the_rooms() {
    let listed = Command::new("git").current_dir(root()).args(["ls-files"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let top = [
        "appliance",
        "pxe",
        "images",
        "hardware-profiles",
        "tests",
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "clippy.toml",
        "rustfmt.toml",
    ];
    for file in listed.lines() {
        let first = file.split('/').next().unwrap();
        assert!(
            first.starts_with('.') || first.starts_with("LICENSE") || top.contains(&first),
            "{file} is in no room"
        );
        if file.ends_with(".rs") {
            let lines = std::fs::read_to_string(root().join(file)).map_or(0, |text| text.lines().count());
            assert!(lines <= 800, "{file} has {lines} lines; split it by idea");
        }
    }
}
