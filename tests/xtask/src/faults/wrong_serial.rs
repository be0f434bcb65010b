//! The plan names another serial number than the server has; a person corrects the plan and applies it.
//! False if anything was written to the disk, the server was powered on, or a boot window was opened.

use super::bench::Bench;
use super::stop::{Stop, Words};
use super::{Fault, Told};
use crate::paths;
use anyhow::{Result, ensure};
use dayzero_model::condition::Condition;
use std::os::unix::fs::MetadataExt;

const HOST: &str = "host2";
const RIGHT: &str = "DZ-LAB-0002";
const WRONG: &str = "DZ-LAB-0902";

pub const FAULT: Fault = Fault {
    name: "wrong-serial",
    host: HOST,
    condition: Condition::Identified,
    code: "serial-mismatch",
    told: Told::Stop,
    plant: plan_another,
    words: |_| {
        Words::new(
            &[&format!("serial {WRONG}")],
            &[&format!("serial {RIGHT}")],
            &["correct the plan and apply it", "dayzero host retry host2"],
        )
    },
    also: untouched,
    mend: |bench| bench.apply(&bench.plan.clone()),
};

fn plan_another(bench: &mut Bench) -> Result<()> {
    let text = std::fs::read_to_string(&bench.plan)?;
    ensure!(text.matches(RIGHT).count() == 1, "{RIGHT} is not once in {}", bench.plan.display());
    bench.first_plan = paths::demo().join("wrong-serial.yaml");
    std::fs::write(&bench.first_plan, text.replace(RIGHT, WRONG))?;
    Ok(())
}

fn untouched(bench: &Bench, _: &Stop) -> Result<String> {
    let facts = bench.client.host(HOST)?.facts;
    ensure!(facts.window.is_none() && facts.vouch.is_none(), "a boot window was opened for it");
    ensure!(!bench.is_on(HOST)?, "it was powered on");
    let blocks = std::fs::metadata(bench.disk(HOST)).map_or(0, |about| about.blocks());
    ensure!(blocks == 0, "{blocks} blocks of its disk are written");
    Ok("never powered on, no block of its disk written".to_owned())
}
