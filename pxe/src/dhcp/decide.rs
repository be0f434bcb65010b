//! Who gets which DHCP answer: the design's decision "DHCP by client", as one pure function.
//!
//! A BMC and an installed host: its reservation, always. A host's PXE client with an open boot window: our iPXE first,
//! even over an iPXE in its ROM, then the script. Without a window: its address, and a script that exits to the disk
//! at once. An unknown client: nothing, pending. Guest networks: reservations of our VMs, and a pool.

use std::net::Ipv4Addr;

use dayzero_model::boot::{Arch, Client};
use dayzero_model::site::NetworkRole;

use crate::config::Loaders;
use crate::session::Stage;

/// What is known of the request, apart from who sent it.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// What the network carries.
    pub role: NetworkRole,
    /// A pool exists there, and is open to clients that nobody planned.
    pub pool: Option<PoolFor>,
    /// It wants a boot file.
    pub wants_boot: bool,
    /// It is an iPXE, the ROM's or ours.
    pub ipxe: bool,
    /// Its architecture.
    pub arch: Option<Arch>,
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
    /// This loader, by TFTP.
    Loader(String),
    /// This loader, by HTTP (UEFI HTTP boot).
    HttpLoader(String),
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
    /// Its network has no pool for it.
    NoPool,
}

impl Silence {
    /// In words, with what to do.
    pub fn reason(self) -> &'static str {
        match self {
            Silence::Pending => {
                "not in the plan: recorded as pending, no answer; add it to the plan to let it boot"
            }
            Silence::WrongNetwork => {
                "planned on another network than the one it asks on: check its cable and VLAN"
            }
            Silence::NoPool => "no reservation, and this network has no pool for it",
        }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This address, and what to boot.
    Reserved(Ipv4Addr, Boot),
    /// An address of the pool.
    Pool,
    /// None.
    Silent(Silence),
}

/// Decides.
pub fn decide(client: &Client, asking: &Asking<'_>) -> Answer {
    use NetworkRole::{Bmc, Guest, Management};
    match (client, asking.role) {
        (Client::Bmc { address, .. }, Bmc) => Answer::Reserved(*address, Boot::Nothing),
        (Client::Host { address, window, .. }, Management) => {
            Answer::Reserved(*address, host_boot(window.is_some(), asking))
        }
        (Client::Vm { address: Some(address), .. }, Guest) => Answer::Reserved(*address, Boot::Nothing),
        (Client::Vm { address: None, .. }, Guest) if asking.pool.is_some() => Answer::Pool,
        (Client::Vm { address: None, .. }, Guest) => Answer::Silent(Silence::NoPool),
        (Client::Unknown, _) if asking.pool == Some(PoolFor::All) => Answer::Pool,
        (Client::Unknown, _) => Answer::Silent(Silence::Pending),
        (Client::Bmc { .. } | Client::Host { .. } | Client::Vm { .. }, _) => {
            Answer::Silent(Silence::WrongNetwork)
        }
    }
}

fn host_boot(window: bool, asking: &Asking<'_>) -> Boot {
    if !asking.wants_boot {
        return Boot::Nothing;
    }
    // Any iPXE can run a script that exits; only ours, seen to be fetched whole, is trusted to boot.
    if asking.ipxe && (!window || asking.stage == Stage::Loader) {
        return Boot::Script;
    }
    match asking.loaders.of(asking.arch) {
        None => Boot::NoLoader(asking.arch),
        Some(name) if asking.arch == Some(Arch::UefiX64Http) => Boot::HttpLoader(name.to_owned()),
        Some(name) => Boot::Loader(name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dayzero_model::BootId;
    use dayzero_model::boot::BootWindow;

    const A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);

    fn host(window: bool) -> Client {
        let host: dayzero_model::HostName = "host1".parse().unwrap();
        let window = window.then(|| BootWindow { boot: BootId(7), host: host.clone() });
        Client::Host { host, address: A, window }
    }

    #[test]
    fn a_row_for_each_client() {
        use Arch::{Bios, Other, UefiArm64, UefiX64, UefiX64Http};
        use NetworkRole::{Bmc, Guest, Management, Storage};
        use Stage::{Firmware, Loader};
        let bmc = Client::Bmc { host: "host1".parse().unwrap(), address: A };
        let vm = |address| Client::Vm { name: "hello".parse().unwrap(), address };
        let loader = |name: &str| Answer::Reserved(A, Boot::Loader(name.into()));
        let with = |boot| Answer::Reserved(A, boot);
        let silent = Answer::Silent;
        // (what, client, network, pool, wants boot, iPXE, architecture, stage, answer)
        type Row =
            (&'static str, Client, NetworkRole, Option<PoolFor>, bool, bool, Option<Arch>, Stage, Answer);
        #[rustfmt::skip]
        let rows: Vec<Row> = vec![
            ("BMC", bmc.clone(), Bmc, None, false, false, None, Firmware, with(Boot::Nothing)),
            ("BMC that PXE-boots", bmc.clone(), Bmc, None, true, false, None, Firmware, with(Boot::Nothing)),
            ("BMC on the hosts' network", bmc, Management, None, false, false, None, Firmware, silent(Silence::WrongNetwork)),
            ("installed host", host(false), Management, None, false, false, None, Firmware, with(Boot::Nothing)),
            ("agent of the discovery image", host(true), Management, None, false, false, None, Loader, with(Boot::Nothing)),
            ("host on the BMCs' network", host(true), Bmc, None, true, false, Some(Bios), Firmware, silent(Silence::WrongNetwork)),
            ("host on a storage network", host(true), Storage, None, true, false, Some(Bios), Firmware, silent(Silence::WrongNetwork)),
            ("BIOS firmware, window", host(true), Management, None, true, false, Some(Bios), Firmware, loader("undionly.kpxe")),
            ("old BIOS firmware, window", host(true), Management, None, true, false, None, Firmware, loader("undionly.kpxe")),
            ("UEFI firmware, window", host(true), Management, None, true, false, Some(UefiX64), Firmware, loader("snponly.efi")),
            ("firmware after a broken boot", host(true), Management, None, true, false, Some(UefiX64), Loader, loader("snponly.efi")),
            ("UEFI HTTP boot, window", host(true), Management, None, true, false, Some(UefiX64Http), Firmware, with(Boot::HttpLoader("snponly.efi".into()))),
            ("iPXE of a BIOS ROM, window", host(true), Management, None, true, true, Some(Bios), Firmware, loader("undionly.kpxe")),
            ("iPXE of a UEFI ROM, window", host(true), Management, None, true, true, Some(UefiX64), Firmware, loader("snponly.efi")),
            ("our iPXE, window", host(true), Management, None, true, true, Some(Bios), Loader, with(Boot::Script)),
            ("firmware, no window", host(false), Management, None, true, false, Some(Bios), Firmware, loader("undionly.kpxe")),
            ("iPXE of a ROM, no window", host(false), Management, None, true, true, Some(Bios), Firmware, with(Boot::Script)),
            ("our iPXE, window closed meanwhile", host(false), Management, None, true, true, Some(UefiX64), Loader, with(Boot::Script)),
            ("arm64 without a loader", host(true), Management, None, true, false, Some(UefiArm64), Firmware, with(Boot::NoLoader(Some(UefiArm64)))),
            ("IA32 UEFI", host(true), Management, None, true, false, Some(Other(6)), Firmware, with(Boot::NoLoader(Some(Other(6))))),
            ("unknown PXE client", Client::Unknown, Management, None, true, false, Some(Bios), Firmware, silent(Silence::Pending)),
            ("unknown client", Client::Unknown, Bmc, None, false, false, None, Firmware, silent(Silence::Pending)),
            ("unknown on a closed guest pool", Client::Unknown, Guest, Some(PoolFor::Ours), false, false, None, Firmware, silent(Silence::Pending)),
            ("unknown on an open guest pool", Client::Unknown, Guest, Some(PoolFor::All), false, false, None, Firmware, Answer::Pool),
            ("VM with a reservation", vm(Some(A)), Guest, Some(PoolFor::Ours), false, false, None, Firmware, with(Boot::Nothing)),
            ("VM that PXE-boots", vm(Some(A)), Guest, None, true, true, Some(Bios), Firmware, with(Boot::Nothing)),
            ("VM without one", vm(None), Guest, Some(PoolFor::Ours), false, false, None, Firmware, Answer::Pool),
            ("VM without pool", vm(None), Guest, None, false, false, None, Firmware, silent(Silence::NoPool)),
            ("VM on the hosts' network", vm(Some(A)), Management, None, false, false, None, Firmware, silent(Silence::WrongNetwork)),
        ];
        let loaders = Loaders::default();
        for (what, client, role, pool, wants_boot, ipxe, arch, stage, want) in rows {
            let asking = Asking { role, pool, wants_boot, ipxe, arch, stage, loaders: &loaders };
            assert_eq!(decide(&client, &asking), want, "{what}");
        }
    }
}
