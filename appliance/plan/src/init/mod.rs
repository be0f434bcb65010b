//! The first plan: eight answers, or a list of hosts, become a commented `site.yaml`.
//!
//! Invariants: what it writes passes every lint except for `DZ018`, which points at each place that only a person at
//! the rack can fill in (serials, MACs, the LUN). It asks nobody: the caller shows [`questions`] and collects answers.

mod write;

use crate::hosts_csv::CsvHost;
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// One thing to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Question {
    /// Key of the answer.
    pub id: &'static str,
    /// What to ask.
    pub text: &'static str,
    /// What an empty answer means.
    pub default: &'static str,
}

const QUESTIONS: [Question; 8] = [
    Question { id: "name", text: "Name of the site (a-z, 0-9, -)", default: "site1" },
    Question { id: "domain", text: "DNS domain of its hosts", default: "site1.example" },
    Question {
        id: "management",
        text: "Management network of hosts and appliance (prefix)",
        default: "10.77.0.0/24",
    },
    Question { id: "bmc", text: "Network of the BMCs (prefix)", default: "10.77.9.0/24" },
    Question {
        id: "storage",
        text: "Two storage networks (prefixes, separated by a space)",
        default: "10.77.11.0/24 10.77.12.0/24",
    },
    Question {
        id: "guest",
        text: "Network of the virtual machines and its VLAN (prefix, tag)",
        default: "10.77.100.0/24 100",
    },
    Question { id: "hypervisor", text: "Hypervisor (kvm, xen, lxc, xenserver, vsphere)", default: "kvm" },
    Question { id: "hosts", text: "How many hosts (asked only without a list of hosts)", default: "2" },
];

/// The questions, in order.
pub fn questions() -> impl Iterator<Item = &'static Question> {
    QUESTIONS.iter()
}

/// An answer that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{id}: {problem}")]
pub struct BadAnswer {
    /// The question's id.
    pub id: &'static str,
    /// What is wrong and what to answer.
    pub problem: String,
}

/// What the answers say.
pub(crate) struct Draft {
    name: String,
    domain: String,
    management: Ipv4Net,
    bmc: Ipv4Net,
    storage: [Ipv4Net; 2],
    guest: Ipv4Net,
    vlan: u16,
    hypervisor: String,
    hosts: Vec<DraftHost>,
}

/// One host to write. `None` = a placeholder is written.
#[derive(Clone)]
pub(crate) struct DraftHost {
    name: String,
    cluster: String,
    rack: String,
    u: u8,
    serial: Option<String>,
    model: Option<String>,
    bmc_mac: Option<String>,
    bmc_address: Ipv4Addr,
    protocol: String,
    address: Ipv4Addr,
    storage: [Ipv4Addr; 2],
    nics: Vec<String>,
    disk_serial: Option<String>,
}

/// Writes the plan. `answers` by question id; one that is missing or empty is its default. With `hosts` the number of
/// hosts is not asked for.
///
/// # Errors
/// [`BadAnswer`]: the first answer that cannot be used.
pub fn write(answers: &BTreeMap<String, String>, hosts: Option<&[CsvHost]>) -> Result<String, BadAnswer> {
    let answer = |id: &'static str| {
        let given = answers.get(id).map(|text| text.trim()).filter(|text| !text.is_empty());
        let default =
            QUESTIONS.iter().find(|question| question.id == id).map_or("", |question| question.default);
        given.unwrap_or(default).to_owned()
    };
    let bad = |id, problem: String| BadAnswer { id, problem };
    let prefix = |id: &'static str, text: &str| -> Result<Ipv4Net, BadAnswer> {
        let net = text
            .parse::<Ipv4Net>()
            .map_err(|_| bad(id, format!("'{text}' is no prefix such as 10.77.0.0/24")))?;
        if net.prefix_len() > 27 {
            return Err(bad(id, format!("{net} has no room: take /27 or wider")));
        }
        Ok(net.trunc())
    };
    let name: dayzero_model::Name =
        answer("name").parse().map_err(|e: dayzero_model::ids::BadId| bad("name", e.to_string()))?;
    let domain = answer("domain");
    if !domain.split('.').all(|label| label.parse::<dayzero_model::Name>().is_ok()) {
        return Err(bad("domain", format!("'{domain}' is no domain such as site1.example, in lower case")));
    }
    let storage = answer("storage");
    let (first, second) =
        storage.split_once(' ').ok_or_else(|| bad("storage", format!("'{storage}' is not two prefixes")))?;
    let guest = answer("guest");
    let (guest_net, vlan) = guest
        .split_once(' ')
        .ok_or_else(|| bad("guest", format!("'{guest}' is not a prefix and a VLAN tag")))?;
    let vlan = vlan.trim().parse().ok().filter(|tag| (1..=4094).contains(tag));
    let hypervisor = answer("hypervisor");
    if !["kvm", "xen", "lxc", "xenserver", "vsphere"].contains(&hypervisor.as_str()) {
        let problem = format!(
            "'{hypervisor}' is not one that a first plan can be written for: kvm, xen, lxc, xenserver or vsphere"
        );
        return Err(bad("hypervisor", problem));
    }
    let number = answer("hosts").parse::<usize>().ok().filter(|number| (1..=512).contains(number));
    let mut draft = Draft {
        name: name.to_string(),
        domain,
        management: prefix("management", &answer("management"))?,
        bmc: prefix("bmc", &answer("bmc"))?,
        storage: [prefix("storage", first.trim())?, prefix("storage", second.trim())?],
        guest: prefix("guest", guest_net.trim())?,
        vlan: vlan.ok_or_else(|| bad("guest", "the VLAN tag must be 1 to 4094".to_owned()))?,
        hypervisor,
        hosts: Vec::new(),
    };
    disjoint(&draft)?;
    draft.hosts = match hosts {
        Some(hosts) => from_csv(&draft, hosts)?,
        None => placeholders(
            &draft,
            number.ok_or_else(|| bad("hosts", "write a number from 1 to 512".to_owned()))?,
        )?,
    };
    Ok(write::plan(&draft))
}

fn disjoint(draft: &Draft) -> Result<(), BadAnswer> {
    let all = [
        ("management", draft.management),
        ("bmc", draft.bmc),
        ("storage", draft.storage[0]),
        ("storage", draft.storage[1]),
        ("guest", draft.guest),
    ];
    for (i, (_, one)) in all.iter().enumerate() {
        if let Some((id, other)) =
            all[i + 1..].iter().find(|(_, other)| one.contains(other) || other.contains(one))
        {
            return Err(BadAnswer {
                id,
                problem: format!("{other} overlaps {one}, which was answered before"),
            });
        }
    }
    Ok(())
}

/// Hands out host addresses of a network from the 11th on, passing over those in use.
struct Addresses {
    id: &'static str,
    net: Ipv4Net,
    next: u32,
    used: BTreeSet<Ipv4Addr>,
}

impl Addresses {
    fn new(id: &'static str, net: Ipv4Net) -> Self {
        Self { id, net, next: 11, used: BTreeSet::new() }
    }

    fn take(&mut self, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, BadAnswer> {
        if let Some(address) = wanted {
            return Ok(address);
        }
        loop {
            let address = Ipv4Addr::from(u32::from(self.net.network()).saturating_add(self.next));
            self.next += 1;
            if address >= self.net.broadcast() || !self.net.contains(&address) {
                let problem = format!(
                    "{} has no address left for host {}: take a wider prefix",
                    self.net,
                    self.used.len() + 1
                );
                return Err(BadAnswer { id: self.id, problem });
            }
            if self.used.insert(address) {
                return Ok(address);
            }
        }
    }
}

struct Pools {
    management: Addresses,
    bmc: Addresses,
    storage: [Addresses; 2],
}

impl Pools {
    fn new(draft: &Draft) -> Self {
        Self {
            management: Addresses::new("management", draft.management),
            bmc: Addresses::new("bmc", draft.bmc),
            storage: draft.storage.map(|net| Addresses::new("storage", net)),
        }
    }
}

fn placeholders(draft: &Draft, number: usize) -> Result<Vec<DraftHost>, BadAnswer> {
    let mut pools = Pools::new(draft);
    (0..number)
        .map(|i| {
            Ok(DraftHost {
                name: format!("host{}", i + 1),
                cluster: format!("{}1", draft.hypervisor),
                rack: format!("r{}", i / 40 + 1),
                u: u8::try_from(i % 40 + 1).unwrap_or(1),
                serial: None,
                model: None,
                bmc_mac: None,
                bmc_address: pools.bmc.take(None)?,
                protocol: "auto".to_owned(),
                address: pools.management.take(None)?,
                storage: [pools.storage[0].take(None)?, pools.storage[1].take(None)?],
                nics: Vec::new(),
                disk_serial: None,
            })
        })
        .collect()
}

fn from_csv(draft: &Draft, hosts: &[CsvHost]) -> Result<Vec<DraftHost>, BadAnswer> {
    if hosts.is_empty() {
        return Err(BadAnswer { id: "hosts", problem: "the list of hosts is empty".to_owned() });
    }
    let mut pools = Pools::new(draft);
    pools.management.used.extend(hosts.iter().filter_map(|host| host.address));
    pools.bmc.used.extend(hosts.iter().filter_map(|host| host.bmc_address));
    let given: BTreeSet<String> =
        hosts.iter().filter_map(|host| host.name.as_ref()).map(ToString::to_string).collect();
    let mut free = (1..).map(|i| format!("host{i}")).filter(|name| !given.contains(name));
    hosts
        .iter()
        .map(|host| {
            let name =
                host.name.as_ref().map(ToString::to_string).or_else(|| free.next()).unwrap_or_default();
            Ok(DraftHost {
                name,
                cluster: host.cluster.to_string(),
                rack: host.rack.to_string(),
                u: host.u,
                serial: Some(host.serial.clone()),
                model: Some(host.model.clone()),
                bmc_mac: Some(host.bmc_mac.to_string()),
                bmc_address: pools.bmc.take(host.bmc_address)?,
                protocol: host.protocol.clone().unwrap_or_else(|| "auto".to_owned()),
                address: pools.management.take(host.address)?,
                storage: [pools.storage[0].take(None)?, pools.storage[1].take(None)?],
                nics: host.nics.iter().map(ToString::to_string).collect(),
                disk_serial: host.disk_serial.clone(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
