//! The boot decision: who a MAC is, and what it may boot. Pure.
//!
//! Invariants: a planned BMC and an installed host get their reservation, always; only a host with an open window that
//! has not enrolled boots the discovery image; everybody else of the plan goes to its disk; a MAC that is not in the
//! plan gets nothing.

use crate::snapshot::Surroundings;
use dayzero_model::boot::{BootAction, BootWindow, Client};
use dayzero_model::facts::HostFacts;
use dayzero_model::ids::MacAddr;
use dayzero_model::site::{Placed, Site};
use dayzero_model::vm::Vm;

/// Who a MAC belongs to. `facts` gives a host's facts, `vms` all VMs.
pub fn client<'f, 'v>(
    site: &Site,
    facts: impl Fn(&dayzero_model::HostName) -> Option<&'f HostFacts>,
    vms: impl IntoIterator<Item = &'v Vm>,
    mac: MacAddr,
) -> Client {
    for placed in site.hosts() {
        let host = placed.host;
        if host.bmc.mac == mac {
            return Client::Bmc { host: host.name.clone(), address: host.bmc.address };
        }
        if host.bond.nics.iter().any(|nic| nic.mac == mac) {
            let window = facts(&host.name).and_then(open_window);
            return Client::Host { host: host.name.clone(), address: host.address, window };
        }
    }
    match vms.into_iter().find(|vm| vm.mac == mac) {
        Some(vm) => Client::Vm { name: vm.name.clone(), address: vm.address },
        None => Client::Unknown,
    }
}

/// The host's open window, if it may still boot by it.
pub fn open_window(facts: &HostFacts) -> Option<BootWindow> {
    facts.window.as_ref().map(|window| window.window.clone())
}

/// What a host's iPXE is told.
pub fn script(
    site: &Site,
    placed: &Placed<'_>,
    facts: &HostFacts,
    around: &Surroundings,
    mac: MacAddr,
) -> BootAction {
    let (Some(window), Ok(management)) = (open_window(facts), crate::desired::management(site, placed))
    else {
        return BootAction::LocalDisk;
    };
    let boot = window.boot;
    let prefix = management.cidr.prefix_len();
    let mut cmdline: Vec<String> = ["console=ttyS0", "quiet", "no_timer_check"].map(str::to_owned).to_vec();
    cmdline.push(format!("dayzero.boot={boot}"));
    cmdline.push(format!("dayzero.enrol=https://{}", around.enrol_server));
    cmdline.push(format!("dayzero.agent={}", around.agent_server));
    cmdline.push(format!("dayzero.mac={mac}"));
    cmdline.push(format!("dayzero.ip={}/{prefix}", placed.host.address));
    BootAction::Discovery { boot, cmdline }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn clients_by_mac() {
        let site = testing::site();
        let mut facts = HostFacts::default();
        let of = |mac: &str, facts: &HostFacts| client(&site, |_| Some(facts), &[], mac.parse().unwrap());
        assert!(matches!(of("52:54:00:77:09:01", &facts), Client::Bmc { .. }));
        assert!(matches!(of("52:54:00:77:01:02", &facts), Client::Host { window: None, .. }));
        // A storage NIC is no boot client.
        assert_eq!(of("52:54:00:77:01:03", &facts), Client::Unknown);
        assert_eq!(of("52:54:00:00:00:99", &facts), Client::Unknown);
        facts.window = Some(testing::window("host1"));
        assert!(matches!(of("52:54:00:77:01:01", &facts), Client::Host { window: Some(_), .. }));
    }

    #[test]
    fn only_an_open_window_boots_discovery() {
        let site = testing::site();
        let placed = site.hosts().next().unwrap();
        let around = testing::around();
        let mac = placed.host.bond.nics[0].mac;
        let mut facts = HostFacts::default();
        assert_eq!(script(&site, &placed, &facts, &around, mac), BootAction::LocalDisk);
        facts.window = Some(testing::window("host1"));
        let shown = script(&site, &placed, &facts, &around, mac);
        insta::assert_snapshot!(serde_json::to_string_pretty(&shown).unwrap(), @r#"
        {
          "discovery": {
            "boot": "00000000000000aa",
            "cmdline": [
              "console=ttyS0",
              "quiet",
              "no_timer_check",
              "dayzero.boot=00000000000000aa",
              "dayzero.enrol=https://10.77.0.2:8444",
              "dayzero.agent=10.77.0.2:7443",
              "dayzero.mac=52:54:00:77:01:01",
              "dayzero.ip=10.77.0.11/24"
            ]
          }
        }
        "#);
    }
}
