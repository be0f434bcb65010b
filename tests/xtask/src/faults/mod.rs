//! `cargo xtask faults`: the faults of a day zero, played in the virtual rack.
//!
//! Each stops one host, and that one only, with cause, evidence and next action; it is mended as a person would mend it,
//! and `dayzero host retry` carries on. Some do not stop it, since the host may be at a long POST, and are told by `dayzero why`
//! minutes after power on. Both hosts are under way at once, each with faults of its own, one after the
//! other; at the end both have started from their disks. Rack and control plane are the demo's.
//!
//! Where do I add a fault: one file here with a [`Fault`], one row in [`ALL`].

mod bench;
mod corrupt_chunk;
mod empty_battery;
mod foreign_disk;
mod lacp_without_fallback;
mod no_link;
mod play;
mod stale_nonce;
mod stop;
mod swapped_cable;
mod wrong_password;
mod wrong_serial;

use crate::demo::interrupt::Interrupts;
use crate::demo::leftovers;
use crate::demo::rack::Rack;
use crate::secrets::{self, Hunt};
use crate::{build, preflight};
use anyhow::{Context, Result, ensure};
use bench::Bench;
use clap::Args;
use dayzero_model::condition::Condition;
use std::process::ExitCode;
use stop::{Stop, Words};

#[derive(Args, Clone, Debug, Default)]
pub struct FaultsArgs {
    /// Play this fault alone
    #[arg(long, value_name = "NAME")]
    pub only: Option<String>,
}

/// A fault of one host: how it comes about, how the host must stop, and how a person mends it.
pub struct Fault {
    pub name: &'static str,
    pub host: &'static str,
    /// Condition at which the host must stop, and must be past once the fault is mended.
    pub condition: Condition,
    /// Code of the cause.
    pub code: &'static str,
    /// By what a person learns of it.
    pub told: Told,
    /// Brings the fault about.
    pub plant: fn(&mut Bench) -> Result<()>,
    /// What the cause's sentences must name.
    pub words: fn(&Bench) -> Words,
    /// What else must be true while the host stands still; says what was seen.
    pub also: fn(&Bench, &Stop) -> Result<String>,
    /// What a person does about it, short of `dayzero host retry`.
    pub mend: fn(&mut Bench) -> Result<()>,
}

/// By what a person learns of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The host stops; `code` is its cause's.
    Stop,
    /// The host may still go on by itself, and `dayzero why` has a verdict; `code` is its rule's.
    Why,
}

/// All faults; those of one host in the order in which it meets them.
const ALL: [&Fault; 9] = [
    &wrong_password::FAULT,
    &no_link::FAULT,
    &lacp_without_fallback::FAULT,
    &stale_nonce::FAULT,
    &swapped_cable::FAULT,
    &corrupt_chunk::FAULT,
    &wrong_serial::FAULT,
    &empty_battery::FAULT,
    &foreign_disk::FAULT,
];

/// Plays the faults; exit code 0 only if each stopped its host, and none but its host, and was mended.
pub fn run(args: &FaultsArgs) -> Result<ExitCode> {
    let faults = chosen(args.only.as_deref())?;
    let _taken_down_at_a_signal = Interrupts::watch()?;
    preflight::run()?;
    let cleared = leftovers::clear()?;
    if !cleared.is_empty() {
        println!("cleared what an earlier run left: {}", cleared.join(", "));
    }
    leftovers::claim()?;
    let before = leftovers::Snapshot::take()?;
    let images = bench::own_image(build::images()?)?;
    let mut hunt = Hunt::begin()?;
    let mut rack = Rack::raise(&images)?;
    let played = play::play(&mut rack, &images, &faults).map_err(|error| rack.reason(error));
    if played.is_err() {
        play::diagnose();
    }
    let seconds = rack.zero.elapsed().as_secs();
    hunt.before_tear_down(&mut rack, &images, None, Vec::new(), secrets::ALWAYS);
    rack.tear_down()?;
    let played = played?;
    println!();
    for line in &played {
        println!("{line}");
    }
    let left = leftovers::Snapshot::take()?.added_since(&before);
    ensure!(left.is_empty(), "the run left: {}", left.join("; "));
    println!(
        "\n{} faults, each stopped its host alone, or was told of it, and was mended; {seconds} s",
        faults.len()
    );
    hunt.after(&[]);
    println!("secrets: {}", hunt.summary());
    Ok(if hunt.ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn chosen(only: Option<&str>) -> Result<Vec<&'static Fault>> {
    let Some(name) = only else { return Ok(ALL.to_vec()) };
    let names = || ALL.map(|fault| fault.name).join(", ");
    let one = ALL.into_iter().find(|fault| fault.name == name);
    Ok(vec![one.with_context(|| format!("there is no fault '{name}': there are {}", names()))?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_a_name_of_its_own_and_a_host_meets_its_faults_in_order() {
        for (at, fault) in ALL.iter().enumerate() {
            assert!(ALL[at + 1..].iter().all(|other| other.name != fault.name), "{}", fault.name);
            let later = ALL[at + 1..].iter().find(|other| other.host == fault.host);
            assert!(later.is_none_or(|later| later.condition >= fault.condition), "{}", fault.name);
        }
        assert!(chosen(Some("no-such-fault")).is_err());
        assert_eq!(chosen(None).unwrap().len(), ALL.len());
    }
}
