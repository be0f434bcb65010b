//! What the README shows of a run: outputs, tables, and the console's picture.
//!
//! A block of the README stands between `<!-- shown: NAME -->` and `<!-- /shown -->`. `cargo xtask demo --once --readme`
//! writes the blocks anew from its run; `cargo xtask test` holds them against its own run. Figures differ between runs,
//! words do not: the two are compared with every word that carries a figure masked.

use super::client::Client;
use super::observed::{Observed, Seen};
use super::report::HostSteps;
use crate::paths;
use anyhow::{Context, Result, ensure};
use dayzero_model::proof::Break;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Blocks by name.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    blocks: BTreeMap<&'static str, String>,
    /// The console's first page, PNG.
    picture: Option<Vec<u8>>,
}

impl Shown {
    /// Keeps what a command printed; its first `most` lines, if it is longer.
    pub fn command(&mut self, name: &'static str, most: usize, client: &Client, args: &[&str]) -> Result<()> {
        let said = client.call(args)?;
        let printed = if said.stdout.trim().is_empty() { said.stderr } else { said.stdout };
        let printed = printed.replace(&*paths::demo().to_string_lossy(), "~");
        let mut lines: Vec<&str> = printed.trim_end().lines().take(most).collect();
        if printed.trim_end().lines().count() > most {
            lines.push("…");
        }
        let args = args.join(" ").replace(&*paths::demo().to_string_lossy(), "~");
        self.blocks.insert(name, format!("```\n$ dayzero {args}\n{}\n```", lines.join("\n")));
        Ok(())
    }

    /// Keeps the console's picture: its file goes with the rack.
    pub fn picture(&mut self, file: &Path) -> Result<()> {
        self.picture = Some(std::fs::read(file)?);
        Ok(())
    }

    /// The tables: each host's steps, and what the proofs measured.
    pub fn tables(&mut self, seen: &Observed, hosts: &[HostSteps]) {
        self.blocks.insert("steps", steps(hosts));
        self.blocks.insert("proof", proof(&seen.joined));
    }

    /// Writes the blocks and the picture into the checkout.
    pub fn write(&self) -> Result<()> {
        let file = readme();
        let mut text = std::fs::read_to_string(&file)?;
        for (name, block) in &self.blocks {
            let (start, end) = place(&text, name)?;
            text.replace_range(start..end, &format!("\n{block}\n"));
        }
        let bytes = self.picture.as_ref().context("the run made no picture of the console")?;
        std::fs::write(picture(), bytes)?;
        std::fs::write(&file, text)?;
        Ok(())
    }

    /// What the README shows and this run did not give, a sentence each.
    pub fn differences(&self) -> Result<Vec<String>> {
        let text = std::fs::read_to_string(readme())?;
        let mut found = Vec::new();
        for (name, block) in &self.blocks {
            let (start, end) = place(&text, name)?;
            found.extend(
                unlike(&text[start..end], block)
                    .into_iter()
                    .map(|line| format!("README, block {name}: {line}")),
            );
        }
        if !picture().is_file() {
            found.push(format!("README: there is no {}", picture().display()));
        }
        Ok(found)
    }
}

fn readme() -> PathBuf {
    paths::root().join("README.md")
}

fn picture() -> PathBuf {
    paths::root().join("tests/pictures/console.png")
}

/// What a line begins with that has only a wrapped table's last column.
const CONTINUES: &str = "                    ";

/// Where a block's text begins and ends.
fn place(text: &str, name: &str) -> Result<(usize, usize)> {
    let open = format!("<!-- shown: {name} -->");
    let start = text.find(&open).with_context(|| format!("the README has no block {open}"))? + open.len();
    let end = text[start..].find("<!-- /shown -->").with_context(|| format!("{open} has no end"))?;
    ensure!(!text[start..start + end].contains("<!-- shown:"), "{open} has no end");
    Ok((start, start + end))
}

/// Lines of `old` whose words `new` does not have.
fn unlike(old: &str, new: &str) -> Vec<String> {
    let there: BTreeSet<String> = unwrapped(new).iter().map(|line| words(line)).collect();
    let shown = unwrapped(old).into_iter().filter(|line| !line.is_empty());
    shown.filter(|line| !there.contains(&words(line))).map(|line| format!("`{line}`")).collect()
}

/// Lines, each with those that continue a table's last column: where that is wrapped depends on the figures before it.
fn unwrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        match lines.last_mut() {
            Some(last) if line.starts_with(CONTINUES) => {
                last.push(' ');
                last.push_str(line.trim_start());
            }
            _ => lines.push(line.to_owned()),
        }
    }
    lines
}

/// A line's words, with each figure and the units of a length of time behind it as one mark.
fn words(line: &str) -> String {
    let mut masked: Vec<&str> = Vec::new();
    for word in line.split_whitespace() {
        let after_figure = masked.last() == Some(&"#");
        let figure = word.chars().any(|c| c.is_ascii_digit());
        match word {
            _ if figure && after_figure => {}
            _ if figure => masked.push("#"),
            "ms" | "s" | "m" | "h" if after_figure => {}
            _ => masked.push(word),
        }
    }
    masked.join(" ")
}

fn steps(hosts: &[HostSteps]) -> String {
    let mut text = String::from("| step |");
    for host in hosts {
        text += &format!(" {} ({}) |", host.name, host.firmware);
    }
    text += &format!("\n| --- |{}", " --- |".repeat(hosts.len()));
    let names = hosts.first().map(|host| host.steps.as_slice()).unwrap_or_default();
    for name in names.iter().map(|step| &step.step) {
        text += &format!("\n| {name} |");
        for host in hosts {
            let step = host.steps.iter().find(|step| step.step == *name);
            text += &step
                .map_or(" – |".to_owned(), |step| format!(" {:.1} – {:.1} s |", step.start_s, step.end_s));
        }
    }
    text
}

fn proof(hosts: &[Seen]) -> String {
    let mut rows: BTreeMap<String, [String; 2]> = BTreeMap::new();
    for host in hosts {
        let Some(report) = &host.view.facts.proof else { continue };
        for trial in &report.trials {
            let row = rows.entry(format!("{} {}", host.name, trial.path)).or_default();
            let column = usize::from(trial.how == Break::DeadSwitch);
            row[column] = format!("{} ms of {} ms", trial.gap.0, trial.bound.0);
        }
    }
    let mut text = String::from("| path | cable pulled | switch dead |\n| --- | --- | --- |");
    for (path, [cable, switch]) in rows {
        text += &format!("\n| {path} | {cable} | {switch} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_may_differ_and_words_may_not() {
        let old = "| Found | 1.2 – 3.5 s |\nhost1  ready  12/12 1 m 4 s";
        assert_eq!(unlike(old, "| Found | 1.9 – 13.5 s |\nhost1 ready    11/12 53 s"), Vec::<String>::new());
        assert_eq!(
            unlike(old, "| Found | 1.9 – 13.5 s |\nhost1 failed 11/12"),
            ["`host1  ready  12/12 1 m 4 s`"]
        );
        let (at, later) = (" ".repeat(41), " ".repeat(45));
        let old = format!("host1  ready  40 s  2 threads for\n{at}VMs, on");
        assert_eq!(unlike(&old, &format!("host1  ready  1 m 10 s  2\n{later}threads for VMs, on")).len(), 0);
        assert_eq!(unlike(&old, &format!("host1  ready  40 s  2 threads for\n{at}VMs, off")).len(), 1);
    }

    #[test]
    fn a_block_has_a_place_and_an_end() {
        let text = "a <!-- shown: x -->\nold\n<!-- /shown --> b <!-- shown: y --> c";
        let (start, end) = place(text, "x").unwrap();
        assert_eq!(&text[start..end], "\nold\n");
        assert!(place(text, "y").is_err());
        assert!(place(text, "z").is_err());
    }
}
