//! The boot decision: who a client is, and what it may boot. Pure.
//!
//! Invariants: a planned BMC and an installed host get their reservation, always; only a host with an open window that
//! has not enrolled boots the discovery image; everybody else of the plan goes to its disk; a MAC that is not in the
//! plan gets nothing.

use crate::snapshot::Surroundings;
use dayzero_model::boot::{AgentCheck, BootAction, BootWindow, Chain, Client};
use dayzero_model::facts::{BmcFacts, HostFacts};
use dayzero_model::ids::{HostName, MacAddr, Name, OptionBytes};
use dayzero_model::site::{BmcProtocol, Host, Placed, Reservation, Site};
use dayzero_model::vm::Vm;
use std::collections::HashMap;
use std::net::Ipv4Addr;

/// How a client says who it is.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its MAC.
    pub mac: MacAddr,
    /// The network that it asks on.
    pub network: &'a Name,
    /// DHCP client identifier (option 61).
    pub client_id: Option<&'a [u8]>,
    /// DHCP unique identifier.
    pub duid: Option<&'a [u8]>,
    /// The relay's port that it stands at: circuit id, remote id.
    pub circuit: Option<(&'a [u8], Option<&'a [u8]>)>,
}

impl<'a> Asked<'a> {
    /// By MAC alone.
    pub fn mac(mac: MacAddr, network: &'a Name) -> Self {
        Self { mac, network, client_id: None, duid: None, circuit: None }
    }
}

#[derive(Clone, Debug)]
enum Planned {
    Bmc {
        host: HostName,
        address: Ipv4Addr,
    },
    Host {
        host: HostName,
        address: Ipv4Addr,
        uuid: Option<String>,
        chain: Option<Chain>,
        https: Option<bool>,
    },
}

/// Everybody in a plan by what DHCP knows of them: one look-up a client, however large the site is.
#[derive(Debug, Default)]
pub struct Clients {
    by_mac: HashMap<MacAddr, Planned>,
    /// Reservations of each network.
    fixed: HashMap<Name, Vec<Reservation>>,
    fixed_by_mac: HashMap<(Name, MacAddr), usize>,
}

impl Clients {
    /// Of a plan.
    pub fn of(site: &Site) -> Self {
        let mut clients = Self::default();
        for placed in site.hosts() {
            let Host { name: host, address, uuid, secure_boot: chain, https_boot: https, .. } = placed.host;
            for nic in &placed.host.bond.nics {
                let (host, uuid, chain, https) = (host.clone(), uuid.clone(), *chain, *https);
                let planned = Planned::Host { host, address: *address, uuid, chain, https };
                clients.by_mac.insert(nic.mac, planned);
            }
            let bmc = &placed.host.bmc;
            clients.by_mac.insert(bmc.mac, Planned::Bmc { host: host.clone(), address: bmc.address });
        }
        for network in site.networks.iter().filter(|network| !network.reservations.is_empty()) {
            for (i, one) in network.reservations.iter().enumerate() {
                if let Some(mac) = one.mac {
                    clients.fixed_by_mac.insert((network.name.clone(), mac), i);
                }
            }
            clients.fixed.insert(network.name.clone(), network.reservations.clone());
        }
        clients
    }

    /// Whether the client with this MAC is a host whose firmware can fetch from us by HTTPS.
    pub fn boot_by_https<'f>(
        &self,
        facts: impl Fn(&HostName) -> Option<&'f HostFacts>,
        mac: MacAddr,
    ) -> bool {
        let Some(Planned::Host { host, https, .. }) = self.by_mac.get(&mac) else { return false };
        boots_by_https(*https, facts(host).and_then(|facts| facts.bmc.as_ref()))
    }

    fn reservation(&self, asked: &Asked<'_>) -> Option<&Reservation> {
        let list = self.fixed.get(asked.network)?;
        if let Some(i) = self.fixed_by_mac.get(&(asked.network.clone(), asked.mac)) {
            return list.get(*i);
        }
        // What a machine says of itself counts before the port that it stands at.
        let same = |planned: &Option<OptionBytes>, told: Option<&[u8]>| {
            told.is_some() && planned.as_ref().map(OptionBytes::as_bytes) == told
        };
        let itself =
            |one: &&Reservation| same(&one.client_id, asked.client_id) || same(&one.duid, asked.duid);
        let port = |one: &&Reservation| {
            let (Some(planned), Some((id, remote))) = (&one.circuit, asked.circuit) else { return false };
            planned.id.as_bytes() == id
                && planned.remote.as_ref().is_none_or(|planned| Some(planned.as_bytes()) == remote)
        };
        list.iter().find(itself).or_else(|| list.iter().find(port))
    }

    /// Who a client is. `facts` gives a host's facts, `vm` the VM with a MAC. A host's or BMC's MAC counts before any
    /// reservation.
    pub fn find<'f, 'v>(
        &self,
        facts: impl Fn(&HostName) -> Option<&'f HostFacts>,
        vm: impl FnOnce(MacAddr) -> Option<&'v Vm>,
        asked: &Asked<'_>,
    ) -> Client {
        match self.by_mac.get(&asked.mac) {
            Some(Planned::Bmc { host, address }) => {
                return Client::Bmc { host: host.clone(), address: *address };
            }
            Some(Planned::Host { host, address, uuid, chain: planned, .. }) => {
                let facts = facts(host);
                let window = facts.and_then(open_window);
                let decided = || chain(*planned, facts.and_then(|facts| facts.bmc.as_ref()));
                let chain = facts.and_then(|facts| facts.window.as_ref()).map_or_else(decided, |w| w.chain);
                let bmc = facts.and_then(|facts| facts.bmc.as_ref());
                let (host, uuid) = (host.clone(), uuid.clone().or_else(|| told_uuid(bmc?)));
                return Client::Host { host, address: *address, window, uuid, chain };
            }
            None => {}
        }
        if let Some(one) = self.reservation(asked) {
            return Client::Fixed { name: one.name.clone(), address: one.address };
        }
        match vm(asked.mac) {
            Some(vm) => Client::Vm { name: vm.name.clone(), address: vm.address },
            None => Client::Unknown,
        }
    }
}

/// The system's UUID as its BMC tells it; by IPMI it may be the BMC's own, in any byte order, so only Redfish counts.
fn told_uuid(bmc: &BmcFacts) -> Option<String> {
    bmc.uuid.clone().filter(|_| bmc.protocol == BmcProtocol::Redfish)
}

/// The host's open window, if it may still boot by it.
pub fn open_window(facts: &HostFacts) -> Option<BootWindow> {
    facts.window.as_ref().map(|window| window.window.clone())
}

/// By what a host boots discovery: as the plan says; else, where its BMC tells that Secure Boot is enforced, by our
/// signature if the firmware knows it, and by Debian's if not.
pub fn chain(planned: Option<Chain>, bmc: Option<&BmcFacts>) -> Chain {
    let told = bmc.and_then(|bmc| bmc.secure_boot).filter(|told| told.enforced);
    match (planned, told) {
        (Some(chain), _) => chain,
        (None, None) => Chain::Ipxe,
        (None, Some(told)) if told.site_key == Some(true) => Chain::Uki,
        (None, Some(_)) => Chain::Shim,
    }
}

/// Whether a host's firmware can fetch from us by HTTPS: unless the plan says no, where its BMC shows that it holds the site's
/// authority; where the BMC does not tell, by the plan's word.
pub fn boots_by_https(planned: Option<bool>, bmc: Option<&BmcFacts>) -> bool {
    let told = bmc.and_then(|bmc| bmc.https_boot);
    planned != Some(false) && told.unwrap_or(planned == Some(true))
}

/// What checked the agent of a boot before it ran, as far as anybody knows: a signature counts only where the BMC tells
/// that the firmware enforces it.
pub fn agent_check(chain: Chain, facts: &HostFacts) -> Option<AgentCheck> {
    let enforced = facts.bmc.as_ref().and_then(|bmc| bmc.secure_boot).is_some_and(|told| told.enforced);
    match chain {
        Chain::Ipxe => None,
        Chain::Shim => Some(AgentCheck::KernelOnly),
        Chain::Uki | Chain::Mok => enforced.then_some(AgentCheck::Signature),
    }
}

/// What a host's iPXE is told, or its agent.
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
    use dayzero_model::facts::WindowFacts;

    #[test]
    fn clients_by_mac() {
        let site = testing::site();
        let mut facts = HostFacts::default();
        let (clients, mgmt) = (Clients::of(&site), "mgmt".parse().unwrap());
        let of = |mac: &str, facts: &HostFacts| {
            clients.find(|_| Some(facts), |_| None, &Asked::mac(mac.parse().unwrap(), &mgmt))
        };
        assert!(matches!(of("52:54:00:77:09:01", &facts), Client::Bmc { .. }));
        assert!(matches!(of("52:54:00:77:01:02", &facts), Client::Host { window: None, .. }));
        // A storage NIC is no boot client.
        assert_eq!(of("52:54:00:77:01:03", &facts), Client::Unknown);
        assert_eq!(of("52:54:00:00:00:99", &facts), Client::Unknown);
        facts.window = Some(testing::window("host1"));
        assert!(matches!(of("52:54:00:77:01:01", &facts), Client::Host { window: Some(_), .. }));
    }

    #[test]
    fn a_machine_is_held_against_the_plans_uuid_or_else_its_bmcs() {
        let (planned, told) =
            ("00112233-4455-6677-8899-aabbccddeeff", "6c1d5a30-7f0e-4b6e-9a51-0d2b1c000001");
        let mgmt = "mgmt".parse().unwrap();
        for (plans, bmcs, protocol, want) in [
            (Some(planned), Some(told), BmcProtocol::Redfish, Some(planned)),
            (None, Some(told), BmcProtocol::Redfish, Some(told)),
            (None, Some(told), BmcProtocol::Ipmi, None),
            (None, None, BmcProtocol::Redfish, None),
        ] {
            let mut site = testing::site();
            site.zones[0].pods[0].clusters[0].hosts[0].uuid = plans.map(str::to_owned);
            let mut facts = testing::whole(&site, "host1");
            let bmc = facts.bmc.as_mut().unwrap();
            (bmc.uuid, bmc.protocol) = (bmcs.map(str::to_owned), protocol);
            let asked = Asked::mac("52:54:00:77:01:01".parse().unwrap(), &mgmt);
            let found = Clients::of(&site).find(|_| Some(&facts), |_| None, &asked);
            let Client::Host { uuid, .. } = found else { panic!("{found:?}") };
            assert_eq!(uuid.as_deref(), want, "{plans:?} {bmcs:?} {protocol:?}");
        }
    }

    #[test]
    fn reservations_by_whatever_tells_the_machine() {
        let mut site = testing::site();
        let bmc = site.networks.iter_mut().find(|network| network.name.as_str() == "bmc").unwrap();
        let one = |name: &str, last: u8| Reservation {
            name: name.parse().unwrap(),
            address: Ipv4Addr::new(10, 77, 9, last),
            mac: None,
            client_id: None,
            duid: None,
            circuit: None,
        };
        let port = |id: &str, remote: Option<&str>| {
            let remote = remote.map(|remote| remote.parse().unwrap());
            Some(dayzero_model::site::Circuit { id: id.parse().unwrap(), remote })
        };
        bmc.reservations = vec![
            Reservation { mac: Some("02:00:00:00:00:01".parse().unwrap()), ..one("by-mac", 201) },
            Reservation { client_id: Some("0x0102".parse().unwrap()), ..one("by-id", 202) },
            Reservation { duid: Some("0x00030001aa".parse().unwrap()), ..one("by-duid", 203) },
            Reservation { circuit: port("e17", Some("sw-a")), ..one("by-port", 204) },
            Reservation { circuit: port("e18", None), ..one("by-any-port", 205) },
        ];
        let clients = Clients::of(&site);
        let (bmc, mgmt): (Name, Name) = ("bmc".parse().unwrap(), "mgmt".parse().unwrap());
        let mac = |last: u8| MacAddr([2, 0, 0, 0, 0, last]);
        let asked = |last| Asked::mac(mac(last), &bmc);
        let rows: Vec<(Asked<'_>, Option<&str>)> = vec![
            (asked(1), Some("by-mac")),
            (Asked { network: &mgmt, ..asked(1) }, None),
            (asked(2), None),
            (Asked { client_id: Some(&[1, 2]), ..asked(2) }, Some("by-id")),
            (Asked { client_id: Some(&[1, 3]), ..asked(2) }, None),
            (Asked { duid: Some(&[0, 3, 0, 1, 0xaa]), ..asked(2) }, Some("by-duid")),
            (Asked { circuit: Some((b"e17", Some(b"sw-a"))), ..asked(2) }, Some("by-port")),
            (Asked { circuit: Some((b"e17", Some(b"sw-b"))), ..asked(2) }, None),
            (Asked { circuit: Some((b"e17", None)), ..asked(2) }, None),
            (Asked { circuit: Some((b"e18", Some(b"sw-b"))), ..asked(2) }, Some("by-any-port")),
            (Asked { client_id: Some(&[1, 2]), circuit: Some((b"e18", None)), ..asked(2) }, Some("by-id")),
        ];
        for (asked, want) in rows {
            let name = match clients.find(|_| None, |_| None, &asked) {
                Client::Fixed { name, .. } => Some(name.to_string()),
                Client::Unknown => None,
                other => panic!("{other:?}"),
            };
            assert_eq!(name.as_deref(), want, "{asked:?}");
        }
        // A planned BMC stays what it is, wherever it stands.
        let asked =
            Asked { circuit: Some((b"e18", None)), ..Asked::mac("52:54:00:77:09:01".parse().unwrap(), &bmc) };
        assert!(matches!(clients.find(|_| None, |_| None, &asked), Client::Bmc { .. }));
    }

    #[test]
    fn the_chain_is_the_plans_or_fits_what_the_bmc_tells() {
        use dayzero_model::facts::SecureBootFacts;
        let told = |enforced, site_key| Some(SecureBootFacts { enforced, site_key });
        let rows = [
            (None, None, Chain::Ipxe, None),
            (None, told(false, Some(true)), Chain::Ipxe, None),
            (None, told(true, Some(true)), Chain::Uki, Some(AgentCheck::Signature)),
            (None, told(true, Some(false)), Chain::Shim, Some(AgentCheck::KernelOnly)),
            (None, told(true, None), Chain::Shim, Some(AgentCheck::KernelOnly)),
            (Some(Chain::Uki), None, Chain::Uki, None),
            (Some(Chain::Uki), told(false, None), Chain::Uki, None),
            (Some(Chain::Mok), told(true, None), Chain::Mok, Some(AgentCheck::Signature)),
            (Some(Chain::Shim), told(false, None), Chain::Shim, Some(AgentCheck::KernelOnly)),
            (Some(Chain::Ipxe), told(true, Some(true)), Chain::Ipxe, None),
        ];
        for (planned, told, want, check) in rows {
            let mut facts = testing::whole(&testing::site(), "host1");
            facts.bmc.as_mut().unwrap().secure_boot = told;
            let chain = chain(planned, facts.bmc.as_ref());
            assert_eq!((chain, agent_check(chain, &facts)), (want, check), "{planned:?} {told:?}");
        }
    }

    #[test]
    fn https_is_for_firmware_that_is_known_to_trust_us() {
        let rows = [
            (None, None, false),
            (None, Some(true), true),
            (None, Some(false), false),
            (Some(true), None, true),
            (Some(true), Some(true), true),
            // The plan wants it, and the BMC shows that it is not so yet.
            (Some(true), Some(false), false),
            (Some(false), Some(true), false),
            (Some(false), None, false),
        ];
        for (planned, told, want) in rows {
            let mut facts = testing::whole(&testing::site(), "host1");
            facts.bmc.as_mut().unwrap().https_boot = told;
            assert_eq!(boots_by_https(planned, facts.bmc.as_ref()), want, "{planned:?} {told:?}");
        }
        assert!(boots_by_https(Some(true), None), "its BMC was not asked yet");
    }

    #[test]
    fn an_open_window_keeps_its_chain() {
        let site = testing::site();
        let (clients, mgmt) = (Clients::of(&site), "mgmt".parse().unwrap());
        let mut facts = testing::whole(&site, "host1");
        facts.window = Some(WindowFacts { chain: Chain::Shim, ..testing::window("host1") });
        let asked = Asked::mac("52:54:00:77:01:01".parse().unwrap(), &mgmt);
        let found = clients.find(|_| Some(&facts), |_| None, &asked);
        assert!(matches!(found, Client::Host { chain: Chain::Shim, .. }), "{found:?}");
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
