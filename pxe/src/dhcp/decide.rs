//! Who gets which DHCP answer: the design's decision "DHCP by client", as one pure function.
//!
//! A BMC, an installed host and any other machine of the plan: its reservation, always. A host's PXE client with an open
//! boot window: our iPXE first, even over an iPXE in its ROM, then the script. Without a window: its address, and a
//! script that exits to the disk at once. Under Secure Boot: what is signed for it, in a window only. An unknown client: nothing, pending, unless the plan opens the network's
//! pool. Guest networks: reservations of our VMs, and a pool. Where another server gives the addresses: what to boot,
//! and nothing else.

use std::net::Ipv4Addr;

use dayzero_model::boot::{Arch, Chain, Client};
use dayzero_model::event::Ignored;
use dayzero_model::site::{DhcpMode, NetworkRole};

use crate::config::{Ipv4Prefix, Loaders};
use crate::session::Stage;

/// What a client asks, by the states of RFC 2131.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Who is there? With the address that it wishes for.
    Discover(Option<Ipv4Addr>),
    /// It takes our offer.
    Select(Ipv4Addr),
    /// It started again, remembers an address and asks whether that still holds.
    Reboot(Ipv4Addr),
    /// It has the address and wants to keep it: renewing, or rebinding by broadcast.
    Renew(Ipv4Addr),
    /// A REQUEST that names no address.
    Nothing,
    /// A REQUEST for the offer of another server.
    Elsewhere(Ipv4Addr),
    /// It has an address from elsewhere and wants to know the rest.
    Inform(Ipv4Addr),
    /// It asks the boot server port (4011) what to boot, and has an address.
    BootServer,
}

/// What the plan, or else the BMC, says of the UUID in option 97.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// One of both is missing, or junk: no contradiction.
    Untold,
    /// They are the same, in one of the byte orders that are in use.
    Fits,
    /// Another machine has this host's NIC.
    Differs,
}

/// What is known of the request, apart from who sent it.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// What it asks.
    pub step: Step,
    /// What the network carries.
    pub role: NetworkRole,
    /// Its prefix.
    pub prefix: Ipv4Prefix,
    /// Who gives addresses there.
    pub mode: DhcpMode,
    /// A pool exists there, and is open to clients that nobody planned.
    pub pool: Option<PoolFor>,
    /// It wants a boot file.
    pub wants_boot: bool,
    /// It is an iPXE, the ROM's or ours.
    pub ipxe: bool,
    /// It is UEFI HTTP boot.
    pub http: bool,
    /// Its firmware can fetch from us by HTTPS, as far as is known.
    pub https: bool,
    /// Its architecture.
    pub arch: Option<Arch>,
    /// Whether its UUID is the planned one.
    pub identity: Identity,
    /// How far its boot has come.
    pub stage: Stage,
    /// Our loaders.
    pub loaders: &'a Loaders,
}

/// Whom a pool is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolFor {
    /// VMs of ours.
    Ours,
    /// Whoever asks.
    All,
}

/// What to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boot {
    /// Nothing: not asked for.
    Nothing,
    /// Nothing: there is no loader for this architecture.
    NoLoader(Option<Arch>),
    /// Nothing: this host boots under Secure Boot, and there is nothing signed for it.
    NothingSigned(Chain),
    /// Nothing: this host boots under Secure Boot, and no boot is open. Without a file its firmware goes on to its disk.
    NoWindow,
    /// Nothing: its UUID is not the planned host's.
    OtherMachine,
    /// This loader, by TFTP.
    Loader(String),
    /// This loader, by HTTP (UEFI HTTP boot).
    HttpLoader(String),
    /// The same by HTTPS.
    HttpsLoader(String),
    /// The boot script.
    Script,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Nobody planned it: a person decides.
    Pending,
    /// A BMC on a network that is none of BMCs, a host on the BMCs'…
    WrongNetwork,
    /// Its planned address is not of the network that it asks on.
    NotHere(Ipv4Addr),
    /// Its network has no pool for it.
    NoPool,
    /// It took another server's offer.
    Elsewhere(Ipv4Addr),
    /// The same, where another server is the one that gives addresses.
    Expected,
    /// An INFORM from an address that is not of this network.
    Foreign(Ipv4Addr),
    /// A REQUEST without an address.
    Nothing,
    /// Our DHCP is off here.
    Off,
}

impl Silence {
    /// For the rules of `why`.
    pub fn why(self) -> Ignored {
        match self {
            Silence::Pending => Ignored::Pending,
            Silence::WrongNetwork | Silence::NotHere(_) => Ignored::WrongNetwork,
            Silence::NoPool => Ignored::NoPool,
            Silence::Elsewhere(address) => Ignored::OtherServer { address },
            Silence::Foreign(_) | Silence::Nothing | Silence::Expected | Silence::Off => Ignored::Other,
        }
    }

    /// In words, with what to do; none: nothing to tell.
    pub fn reason(self) -> Option<String> {
        let text = match self {
            Silence::Pending => {
                "not in the plan: recorded as pending, no answer; add it to the plan to let it boot"
            }
            Silence::WrongNetwork => {
                "planned on another network than the one it asks on: check its cable and VLAN"
            }
            Silence::NoPool => "no reservation, and this network has no pool for it",
            Silence::Nothing => "REQUEST that names no address",
            Silence::NotHere(address) => {
                return Some(format!("its planned address {address} is not of the network that it asks on"));
            }
            Silence::Elsewhere(other) => {
                return Some(format!(
                    "chose the DHCP server {other}, which is not ours: a second server answers here"
                ));
            }
            Silence::Foreign(address) => {
                return Some(format!("INFORM from {address}, which is not of this network"));
            }
            Silence::Expected | Silence::Off => return None,
        };
        Some(text.to_owned())
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// OFFER of its reserved address, and what to boot.
    Offer(Ipv4Addr, Boot),
    /// ACK of its reserved address, and what to boot.
    Ack(Ipv4Addr, Boot),
    /// NAK: its address is this one.
    Refuse(Ipv4Addr),
    /// ACK without an address or lease, to one that has an address.
    Inform(Boot),
    /// OFFER of an address of the pool.
    PoolOffer(Option<Ipv4Addr>),
    /// ACK of this address of the pool, if it may have it; `known` only: silence, if we do not know the client.
    PoolBind {
        /// The address it wants.
        address: Ipv4Addr,
        /// It claims to have had it before, perhaps from another server.
        remembered: bool,
    },
    /// Another server gives its address; this is what to boot.
    Proxy(Boot),
    /// None.
    Silent(Silence),
}

impl Answer {
    /// What is to be booted, in an answer to a client that starts.
    pub fn boot(&self) -> Option<&Boot> {
        match self {
            Answer::Offer(_, boot) | Answer::Ack(_, boot) | Answer::Proxy(boot) => Some(boot),
            _ => None,
        }
    }
}

/// Decides.
pub fn decide(client: &Client, asking: &Asking<'_>) -> Answer {
    use NetworkRole::{Bmc, Guest, Management};
    match (asking.mode, asking.step) {
        (DhcpMode::Off, _) => return Answer::Silent(Silence::Off),
        (DhcpMode::Proxy, _) => return proxy(client, asking),
        // Its port is open for other networks' clients: nobody here was told to ask there.
        (DhcpMode::Serve, Step::BootServer) => return Answer::Silent(Silence::Expected),
        (DhcpMode::Serve, Step::Elsewhere(other)) => return Answer::Silent(Silence::Elsewhere(other)),
        (DhcpMode::Serve, _) => {}
    }
    match (client, asking.role) {
        (Client::Bmc { address, .. }, Bmc) | (Client::Fixed { address, .. }, _) => {
            reserved(*address, Boot::Nothing, asking)
        }
        (Client::Host { address, window, chain, .. }, Management) => {
            reserved(*address, host_boot(window.is_some(), *chain, asking), asking)
        }
        (Client::Vm { address: Some(address), .. }, Guest) => reserved(*address, Boot::Nothing, asking),
        (Client::Vm { address: None, .. }, Guest) if asking.pool.is_some() => pooled(asking),
        (Client::Vm { address: None, .. }, Guest) => Answer::Silent(Silence::NoPool),
        (Client::Unknown, _) if asking.pool == Some(PoolFor::All) => pooled(asking),
        (Client::Unknown, _) => Answer::Silent(Silence::Pending),
        (Client::Bmc { .. } | Client::Host { .. } | Client::Vm { .. }, _) => {
            Answer::Silent(Silence::WrongNetwork)
        }
    }
}

fn reserved(address: Ipv4Addr, boot: Boot, asking: &Asking<'_>) -> Answer {
    if !asking.prefix.holds(address) {
        return Answer::Silent(Silence::NotHere(address));
    }
    match asking.step {
        Step::Discover(_) => Answer::Offer(address, boot),
        Step::Select(wanted) | Step::Reboot(wanted) | Step::Renew(wanted) if wanted == address => {
            Answer::Ack(address, boot)
        }
        Step::Select(_) | Step::Reboot(_) | Step::Renew(_) => Answer::Refuse(address),
        Step::Inform(from) if !asking.prefix.holds(from) => Answer::Silent(Silence::Foreign(from)),
        Step::Inform(_) | Step::BootServer => Answer::Inform(boot),
        Step::Nothing => Answer::Silent(Silence::Nothing),
        Step::Elsewhere(other) => Answer::Silent(Silence::Elsewhere(other)),
    }
}

fn pooled(asking: &Asking<'_>) -> Answer {
    match asking.step {
        Step::Discover(wish) => Answer::PoolOffer(wish),
        Step::Select(address) => Answer::PoolBind { address, remembered: false },
        Step::Reboot(address) | Step::Renew(address) => Answer::PoolBind { address, remembered: true },
        Step::Inform(from) if !asking.prefix.holds(from) => Answer::Silent(Silence::Foreign(from)),
        Step::Inform(_) => Answer::Inform(Boot::Nothing),
        Step::Nothing | Step::BootServer => Answer::Silent(Silence::Nothing),
        Step::Elsewhere(other) => Answer::Silent(Silence::Elsewhere(other)),
    }
}

/// Beside another server: planned hosts that boot are told what, everything else is that server's.
fn proxy(client: &Client, asking: &Asking<'_>) -> Answer {
    let asks = matches!(asking.step, Step::Discover(_) | Step::BootServer);
    match client {
        Client::Host { window, chain, .. } if asks && asking.wants_boot => {
            match host_boot(window.is_some(), *chain, asking) {
                Boot::Nothing => Answer::Silent(Silence::Expected),
                boot => Answer::Proxy(boot),
            }
        }
        Client::Unknown if asks && asking.wants_boot => Answer::Silent(Silence::Pending),
        _ => Answer::Silent(Silence::Expected),
    }
}

fn host_boot(window: bool, chain: Chain, asking: &Asking<'_>) -> Boot {
    if !asking.wants_boot {
        return Boot::Nothing;
    }
    if asking.identity == Identity::Differs {
        return Boot::OtherMachine;
    }
    // Any iPXE can run a script that exits; only ours, seen to be fetched whole, is trusted to boot.
    if asking.ipxe && (!window || asking.stage == Stage::Loader) {
        return Boot::Script;
    }
    let secure = chain != Chain::Ipxe && matches!(asking.arch, Some(Arch::UefiX64 | Arch::UefiX64Http));
    if secure && !window {
        // Our iPXE would be refused, and nothing else that we have leaves to the disk: without a file firmware goes on.
        return Boot::NoWindow;
    }
    match asking.loaders.of(asking.arch, chain) {
        None if secure => Boot::NothingSigned(chain),
        None => Boot::NoLoader(asking.arch),
        Some(name) if asking.http && asking.https => Boot::HttpsLoader(name.to_owned()),
        Some(name) if asking.http => Boot::HttpLoader(name.to_owned()),
        Some(name) => Boot::Loader(name.to_owned()),
    }
}

/// Compares the UUID of option 97 with the planned one. Firmware writes it in SMBIOS order or in the order of the
/// text; values that boards share are none.
pub fn identity(told: Option<&str>, planned: Option<&str>) -> Identity {
    let digits = |text: &str| {
        let digits: String = text.chars().filter(|c| *c != '-').map(|c| c.to_ascii_lowercase()).collect();
        (digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit())).then_some(digits)
    };
    let (Some(told), Some(planned)) = (told.and_then(digits), planned.and_then(digits)) else {
        return Identity::Untold;
    };
    // All octets but one or two alike (0, f, the vendors' 03000200-0400-0500-0006-000700080009): nobody's.
    let junk = |d: &str| {
        d.bytes().filter(|b| *b == b'0').count() >= 22 || d.bytes().filter(|b| *b == b'f').count() >= 28
    };
    if junk(&told) || junk(&planned) {
        return Identity::Untold;
    }
    let turn = |d: &str, from: usize, to: usize| {
        (from..to).rev().step_by(2).map(|end| &d[end - 1..=end]).collect::<String>()
    };
    let turned = turn(&planned, 0, 8) + &turn(&planned, 8, 12) + &turn(&planned, 12, 16) + &planned[16..];
    if told == planned || told == turned { Identity::Fits } else { Identity::Differs }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
