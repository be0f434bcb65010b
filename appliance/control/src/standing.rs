//! Where this machine stands on the plan's networks, by the addresses that its interfaces have now.

use dayzero_model::site::{Network, Site};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// A network of the plan that this machine is on.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The network.
    pub network: Network,
    /// Our interface there.
    pub device: String,
    /// The plan's address of the appliance there, which that interface has.
    pub address: Ipv4Addr,
}

/// The plan's networks on which the appliance has its address, and those where no interface has the planned one. Networks
/// without an address of the appliance (behind a relay) are in neither.
pub fn standings(site: &Site) -> (Vec<Standing>, Vec<&Network>) {
    let own: BTreeMap<Ipv4Addr, String> = getifaddrs()
        .into_iter()
        .flatten()
        .filter_map(|interface| Some((v4(interface.address)?, interface.interface_name)))
        .collect();
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for network in &site.networks {
        let Some(address) = network.appliance else { continue };
        match own.get(&address) {
            Some(device) => {
                found.push(Standing { network: network.clone(), device: device.clone(), address });
            }
            None => missing.push(network),
        }
    }
    (found, missing)
}

/// The plan's networks whose clients come by relays alone.
pub fn relayed(site: &Site) -> impl Iterator<Item = &Network> {
    site.networks.iter().filter(|network| network.appliance.is_none() && !network.relays.is_empty())
}

/// Is `target` on a network of which this machine has an address?
pub(crate) fn on_link(target: IpAddr) -> bool {
    let IpAddr::V4(target) = target else { return false };
    getifaddrs().is_ok_and(|mut interfaces| {
        interfaces.any(|interface| match (v4(interface.address), v4(interface.netmask)) {
            (Some(own), Some(mask)) => {
                let mask = mask.to_bits();
                mask != 0 && own.to_bits() & mask == target.to_bits() & mask
            }
            _ => false,
        })
    })
}

fn v4(address: Option<SockaddrStorage>) -> Option<Ipv4Addr> {
    Some(address?.as_sockaddr_in()?.ip())
}
