//! The long labs: the tests marked `#[ignore]`, each against a real peer (firmware, kernels, daemons, validators).
//!
//! What they need beyond Debian packages is declared once, in `needs`; how they are found, run one by one, timed and watched
//! for what they leave behind is `run`; where each runs, so that only what is its own is held against it, is `room`. A lab says itself which variable it misses.

mod needs;
mod room;
mod run;

use crate::build::Images;
use crate::workspace::TestProgram;
use anyhow::{Result, bail};

/// Makes what the labs need and runs those whose name contains `filter`. Fails after the last one if any did not hold.
pub fn run(images: &Images, programs: &[TestProgram], filter: &str) -> Result<()> {
    let environment = needs::make(images)?;
    let labs: Vec<_> = run::find(programs)?.into_iter().filter(|lab| lab.name.contains(filter)).collect();
    if labs.is_empty() {
        bail!("no lab's name contains '{filter}'");
    }
    let mut broken = Vec::new();
    for lab in &labs {
        if !lab.hold(&environment)? {
            broken.push(lab.name.as_str());
        }
    }
    if broken.is_empty() {
        println!("{} labs held", labs.len());
        return Ok(());
    }
    bail!("{} of {} labs did not hold: {}", broken.len(), labs.len(), broken.join(", "))
}
