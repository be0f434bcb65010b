//! Two cables end at one another's switch ports; a person swaps them back.
//! False if LLDP's neighbours are not named as expected and as observed, or the host is installed all the same.

use super::bench::Bench;
use super::stop::{Stop, Words};
use super::{Fault, Told};
use anyhow::{Result, ensure};
use dayzero_model::condition::Condition;

const HOST: &str = "host1";

pub const FAULT: Fault = Fault {
    name: "swapped-cable",
    host: HOST,
    condition: Condition::Cabled,
    code: "cable-swapped",
    told: Told::Stop,
    plant: swap,
    words: |_| {
        Words::new(
            &["pod-a at sw-a/1", "pod-b at sw-b/1"],
            &["pod-a at sw-b/1", "pod-b at sw-a/1"],
            &["move the cable of pod-a from sw-b/1 to sw-a/1", "dayzero host retry host1"],
        )
    },
    also: not_installed,
    mend: swap,
};

fn swap(bench: &mut Bench) -> Result<()> {
    bench.client.lab(&["swap-cables", HOST, "0", "1"]).map(drop)
}

fn not_installed(bench: &Bench, _: &Stop) -> Result<String> {
    let view = bench.client.host(HOST)?;
    ensure!(view.facts.install.is_none(), "it was installed all the same");
    let heard = view.facts.inventory.iter().flat_map(|inventory| &inventory.neighbours);
    let heard: Vec<String> =
        heard.map(|n| format!("{} hears {}/{}", n.nic_mac, n.system_name, n.port_id)).collect();
    Ok(heard.join(", "))
}
