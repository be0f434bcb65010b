//! Where each client is in its network boot: what we served it since it last started.
//!
//! Purpose: tell our own iPXE from one in the NIC's ROM, which looks the same on the wire. A client's boot goes
//! firmware → (our iPXE fetched whole by TFTP or HTTP) → loader → (script fetched) → over. Invariants: a DISCOVER of
//! anything but iPXE begins anew; so does time; no state leads to the loader being sent to our loader, as long as its
//! transfer was seen to complete. Bounded: the client that was longest not heard of is forgotten first, and no number of
//! strangers makes a planned host be forgotten.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dayzero_model::boot::Arch;
use dayzero_model::{BootId, HostName, MacAddr, Millis, Timestamp};

/// Clients remembered that no plan names.
const STRANGERS: usize = 8192;
/// Planned hosts' NICs remembered: more than a site has.
const PLANNED: usize = 65_536;
/// From the loader's transfer to its DISCOVER: ample for firmware that probes every NIC first.
const LOADER_STARTS: Millis = Millis(180_000);

/// How far a client's boot has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Stage {
    /// Its firmware (or an iPXE in its ROM) asks.
    #[default]
    Firmware,
    /// It has fetched our iPXE whole: the next iPXE that asks is ours.
    Loader,
}

/// Who has an address, as far as our DHCP knows.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Known {
    pub(crate) mac: Option<MacAddr>,
    pub(crate) host: Option<HostName>,
    pub(crate) boot: Option<BootId>,
}

#[derive(Debug, Default)]
struct Session {
    planned: bool,
    stage: Stage,
    stage_since: Timestamp,
    touched: Timestamp,
    address: Option<Ipv4Addr>,
    address6: Option<Ipv6Addr>,
    host: Option<HostName>,
    boot: Option<BootId>,
    /// What its firmware said that it is.
    arch: Option<Arch>,
    https: Https,
}

/// What is known of a client and HTTPS, in this boot.
#[derive(Clone, Copy, Debug, Default)]
struct Https {
    /// Its firmware trusts our authority, or was told by DHCP to: our loader finds it there.
    trusts: bool,
    /// Its loader said that it has HTTPS.
    has: bool,
    /// Its firmware was given an HTTPS address, and has fetched nothing since.
    given: bool,
    /// It tried, and we did not come to terms: HTTP from now on.
    failed: bool,
}

#[derive(Debug, Default)]
struct Table {
    by_mac: HashMap<MacAddr, Session>,
    /// By when they were last heard of: strangers, and planned hosts.
    by_age: [BTreeSet<(Timestamp, MacAddr)>; 2],
    by_address: HashMap<IpAddr, MacAddr>,
}

/// The boots of all clients, shared by the services.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions(Arc<Mutex<Table>>);

impl Session {
    /// The addresses that it has, one a family at most.
    fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let v4 = self.address.map(IpAddr::V4);
        v4.into_iter().chain(self.address6.map(IpAddr::V6))
    }

    /// It has this address now, and no longer the one returned.
    fn take(&mut self, address: IpAddr) -> Option<IpAddr> {
        let before = match address {
            IpAddr::V4(address) => self.address.replace(address).map(IpAddr::V4),
            IpAddr::V6(address) => self.address6.replace(address).map(IpAddr::V6),
        };
        before.filter(|before| *before != address)
    }
}

impl Table {
    /// A client no longer has an address: it may be another's by now.
    fn leave(&mut self, address: IpAddr, mac: MacAddr) {
        if self.by_address.get(&address) == Some(&mac) {
            self.by_address.remove(&address);
        }
    }

    /// The client's session, begun if it has none; `planned` is None where that is as before.
    fn entry(&mut self, mac: MacAddr, planned: Option<bool>, now: Timestamp) -> &mut Session {
        let before = self.by_mac.get(&mac).map(|session| (session.planned, session.touched));
        let planned = planned.unwrap_or(before.is_some_and(|(planned, _)| planned));
        if let Some((was, touched)) = before {
            self.by_age[usize::from(was)].remove(&(touched, mac));
        }
        let most = if planned { PLANNED } else { STRANGERS };
        if self.by_age[usize::from(planned)].len() >= most {
            self.forget_oldest(planned);
        }
        self.by_age[usize::from(planned)].insert((now, mac));
        let session = self.by_mac.entry(mac).or_default();
        (session.planned, session.touched) = (planned, now);
        session
    }

    fn forget_oldest(&mut self, planned: bool) {
        let Some((_, mac)) = self.by_age[usize::from(planned)].pop_first() else { return };
        let Some(gone) = self.by_mac.remove(&mac) else { return };
        for address in gone.addresses() {
            self.leave(address, mac);
        }
    }
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A planned client sent a DISCOVER: the stage to answer it in.
    pub(crate) fn discover(&self, mac: MacAddr, ipxe: bool, arch: Option<Arch>, now: Timestamp) -> Stage {
        let mut table = self.lock();
        let session = table.entry(mac, Some(true), now);
        session.arch = arch.or(session.arch);
        if !ipxe || now.since(session.stage_since) > LOADER_STARTS {
            session.stage = Stage::Firmware;
        }
        if session.stage == Stage::Firmware {
            let Https { given, failed, .. } = session.https;
            session.https = Https { failed: failed || given, ..Https::default() };
        }
        session.stage
    }

    fn https(&self, mac: MacAddr, change: impl FnOnce(&mut Https)) {
        if let Some(session) = self.lock().by_mac.get_mut(&mac) {
            change(&mut session.https);
        }
    }

    /// Its firmware was told whom to trust, for our loader to find it.
    pub(crate) fn told_trust(&self, mac: MacAddr) {
        self.https(mac, |https| https.trusts = true);
    }

    /// Our loader asks; whether it has HTTPS, and whether its firmware is known to hold our authority.
    pub(crate) fn loader_asks(&self, mac: MacAddr, has: bool, trusts: bool) {
        self.https(mac, |https| {
            https.has = has;
            https.trusts |= trusts;
        });
    }

    /// Its firmware was given an HTTPS address. If it asks again before anything was fetched, that did not work.
    pub(crate) fn given_https(&self, mac: MacAddr) {
        self.https(mac, |https| https.given = true);
    }

    /// HTTPS with this client did not work in this boot.
    pub(crate) fn is_https_failed(&self, mac: MacAddr) -> bool {
        self.lock().by_mac.get(&mac).is_some_and(|session| session.https.failed)
    }

    /// This client's loader can fetch by HTTPS: it has it, trusts our authority, and has not failed.
    pub(crate) fn fetches_https(&self, mac: MacAddr) -> bool {
        let https = self.lock().by_mac.get(&mac).map(|session| session.https);
        https.is_some_and(|https| https.has && https.trusts && !https.failed)
    }

    /// A TLS handshake with the client at this address failed.
    pub(crate) fn https_failed(&self, address: impl Into<IpAddr>) {
        let mac = self.lock().by_address.get(&address.into()).copied();
        if let Some(mac) = mac {
            self.https(mac, |https| https.failed = true);
        }
    }

    /// The stage, unchanged: for a REQUEST, which must be answered as its DISCOVER was.
    pub(crate) fn stage(&self, mac: MacAddr) -> Stage {
        self.lock().by_mac.get(&mac).map_or(Stage::Firmware, |s| s.stage)
    }

    /// An address was offered or given, by DHCP or DHCPv6.
    pub(crate) fn given(&self, mac: MacAddr, address: impl Into<IpAddr>, known: &Known, now: Timestamp) {
        let address = address.into();
        let mut table = self.lock();
        let session = table.entry(mac, Some(known.host.is_some()), now);
        let before = session.take(address);
        session.host = known.host.clone();
        if session.boot != known.boot {
            (session.https.given, session.https.failed) = (false, false);
        }
        session.boot = known.boot;
        if let Some(before) = before {
            table.leave(before, mac);
        }
        table.by_address.insert(address, mac);
    }

    /// Who has this address.
    pub(crate) fn who(&self, address: impl Into<IpAddr>) -> Known {
        let table = self.lock();
        let Some(mac) = table.by_address.get(&address.into()) else { return Known::default() };
        let session = table.by_mac.get(mac);
        Known {
            mac: Some(*mac),
            host: session.and_then(|s| s.host.clone()),
            boot: session.and_then(|s| s.boot),
        }
    }

    /// The client at this address has fetched our iPXE whole; what it said that it is.
    pub(crate) fn loader_fetched(&self, address: impl Into<IpAddr>, now: Timestamp) -> Option<Arch> {
        let mut table = self.lock();
        let mac = table.by_address.get(&address.into()).copied()?;
        let session = table.entry(mac, None, now);
        session.stage = Stage::Loader;
        session.stage_since = now;
        session.https.given = false;
        session.arch
    }

    /// This client has got its script: its next iPXE starts from the firmware again.
    pub(crate) fn script_fetched(&self, mac: MacAddr) {
        if let Some(session) = self.lock().by_mac.get_mut(&mac) {
            session.stage = Stage::Firmware;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);

    #[test]
    fn an_ipxe_is_ours_only_after_ours_was_fetched_in_this_boot() {
        let sessions = Sessions::default();
        let at = |seconds: u64| Timestamp(seconds * 1000);
        assert_eq!(sessions.discover(MAC, true, Some(Arch::Bios), at(0)), Stage::Firmware, "the ROM's");
        sessions.given(MAC, ADDRESS, &Known::default(), at(0));
        assert_eq!(sessions.loader_fetched(ADDRESS, at(2)), Some(Arch::Bios));
        assert_eq!(sessions.discover(MAC, true, Some(Arch::Bios), at(3)), Stage::Loader);
        assert_eq!(sessions.stage(MAC), Stage::Loader);
        sessions.script_fetched(MAC);
        assert_eq!(
            sessions.discover(MAC, true, Some(Arch::Bios), at(60)),
            Stage::Firmware,
            "the next boot's ROM"
        );

        sessions.loader_fetched(ADDRESS, at(62));
        assert_eq!(
            sessions.discover(MAC, false, Some(Arch::Bios), at(63)),
            Stage::Firmware,
            "reset before the loader ran"
        );
        sessions.loader_fetched(ADDRESS, at(100));
        assert_eq!(
            sessions.discover(MAC, true, Some(Arch::Bios), at(400)),
            Stage::Firmware,
            "too late to be the same boot"
        );
        sessions.loader_fetched(Ipv4Addr::new(10, 0, 0, 1), at(401));
        assert_eq!(sessions.stage(MAC), Stage::Firmware, "another client's transfer");
    }

    /// `decide` knows stages, and here is where time makes them: a window is open until the agent has enrolled.
    #[test]
    fn thirty_minutes_of_post_begin_nothing_anew_and_end_nothing() {
        let sessions = Sessions::default();
        let minutes = |minutes: u64| Timestamp(minutes * 60_000);
        let known = Known { host: "host1".parse().ok(), boot: Some(BootId(7)), ..Known::default() };
        // An option ROM probes, and half an hour later the firmware boots.
        assert_eq!(sessions.discover(MAC, false, Some(Arch::UefiX64), minutes(0)), Stage::Firmware);
        sessions.given(MAC, ADDRESS, &known, minutes(0));
        assert_eq!(sessions.discover(MAC, false, Some(Arch::UefiX64), minutes(30)), Stage::Firmware);
        assert_eq!(sessions.who(ADDRESS), Known { mac: Some(MAC), ..known.clone() });
        // It fetches our loader, is reset, and posts for half an hour again: the iPXE of its ROM is not ours.
        assert!(sessions.loader_fetched(ADDRESS, minutes(31)).is_some());
        assert_eq!(sessions.discover(MAC, true, Some(Arch::UefiX64), minutes(61)), Stage::Firmware);
        assert_eq!(sessions.who(ADDRESS).boot, Some(BootId(7)), "the same boot");
    }

    #[test]
    fn https_is_for_a_loader_that_has_it_and_trusts_us_until_it_fails() {
        let sessions = Sessions::default();
        let known = |boot| Known { boot: Some(BootId(boot)), ..Known::default() };
        let starts = |boot, at| {
            sessions.discover(MAC, false, Some(Arch::UefiX64), Timestamp(at));
            sessions.given(MAC, ADDRESS, &known(boot), Timestamp(at));
        };
        let loads = |at| {
            sessions.loader_fetched(ADDRESS, Timestamp(at));
            sessions.discover(MAC, true, Some(Arch::UefiX64), Timestamp(at + 1));
        };
        for (told, has, held, want) in [
            (true, true, false, true),
            (false, true, true, true),
            (false, true, false, false),
            (true, false, true, false),
        ] {
            starts(1, 0);
            if told {
                sessions.told_trust(MAC);
            }
            loads(1);
            sessions.loader_asks(MAC, has, held);
            assert_eq!(sessions.fetches_https(MAC), want, "told {told}, has {has}, held {held}");
        }
        starts(1, 3);
        assert!(!sessions.fetches_https(MAC), "each start begins anew");
        sessions.told_trust(MAC);
        loads(4);
        sessions.loader_asks(MAC, true, false);
        sessions.https_failed(ADDRESS);
        assert!(!sessions.fetches_https(MAC), "its handshake failed");
        starts(1, 6);
        assert!(sessions.is_https_failed(MAC), "for the whole boot");
        starts(2, 7);
        assert!(!sessions.is_https_failed(MAC), "the next boot is another");
    }

    #[test]
    fn firmware_that_asks_again_without_having_fetched_has_no_https() {
        let sessions = Sessions::default();
        let starts = |at| sessions.discover(MAC, false, Some(Arch::UefiX64Http), Timestamp(at));
        starts(0);
        sessions.given(MAC, ADDRESS, &Known::default(), Timestamp(0));
        sessions.given_https(MAC);
        sessions.loader_fetched(ADDRESS, Timestamp(1));
        starts(2);
        assert!(!sessions.is_https_failed(MAC), "it was fetched");
        sessions.given_https(MAC);
        starts(3);
        assert!(sessions.is_https_failed(MAC));
    }

    #[test]
    fn an_address_that_another_client_has_by_now_stays_its() {
        let sessions = Sessions::default();
        let (other, moved) = (MacAddr([2, 0, 0, 0, 0, 2]), Ipv4Addr::new(10, 77, 0, 12));
        sessions.given(MAC, ADDRESS, &Known::default(), Timestamp(0));
        sessions.given(other, ADDRESS, &Known::default(), Timestamp(1));
        sessions.given(MAC, moved, &Known::default(), Timestamp(2));
        assert_eq!(sessions.who(ADDRESS).mac, Some(other));
        assert_eq!(sessions.who(moved).mac, Some(MAC));
    }

    #[test]
    fn a_client_has_an_address_of_each_family_and_is_one_client() {
        let sessions = Sessions::default();
        let (old, new) =
            (Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 9), Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 11));
        let known = Known { host: "host1".parse().ok(), ..Known::default() };
        sessions.given(MAC, ADDRESS, &known, Timestamp(0));
        sessions.given(MAC, old, &known, Timestamp(1));
        sessions.given(MAC, new, &known, Timestamp(2));
        for address in [IpAddr::V4(ADDRESS), IpAddr::V6(new)] {
            let who = sessions.who(address);
            assert_eq!((who.mac, who.host), (Some(MAC), known.host.clone()), "{address}");
        }
        assert_eq!(sessions.who(IpAddr::V6(old)), Known::default(), "no longer its address");
        sessions.loader_fetched(new, Timestamp(3));
        assert_eq!(
            sessions.discover(MAC, true, None, Timestamp(4)),
            Stage::Loader,
            "fetched by one family, asked by any"
        );
    }

    #[test]
    fn addresses_are_told_apart_and_strangers_drive_out_strangers_alone() {
        let sessions = Sessions::default();
        let numbered = |i: u32| {
            let [a, b, c, d] = i.to_be_bytes();
            (MacAddr([2, 0, a, b, c, d]), Ipv4Addr::from(0x0a00_0000 + i))
        };
        let planned = Known { host: "host1".parse().ok(), ..Known::default() };
        let hosts = 10_000;
        for i in 0..hosts {
            let (mac, address) = numbered(i);
            sessions.discover(mac, false, Some(Arch::UefiX64), Timestamp(0));
            sessions.given(mac, address, &planned, Timestamp(0));
            assert!(sessions.loader_fetched(address, Timestamp(1)).is_some());
        }
        let strangers = STRANGERS as u32 + 10;
        for i in hosts..hosts + strangers {
            let (mac, address) = numbered(i);
            sessions.given(mac, address, &Known::default(), Timestamp(u64::from(i)));
        }
        for i in 0..hosts {
            let (mac, address) = numbered(i);
            assert_eq!(sessions.stage(mac), Stage::Loader, "host {i}");
            assert_eq!(sessions.who(address).mac, Some(mac));
        }
        let table = sessions.lock();
        assert_eq!(table.by_mac.len(), hosts as usize + STRANGERS);
        assert_eq!(table.by_address.len(), hosts as usize + STRANGERS);
        assert_eq!((table.by_age[0].len(), table.by_age[1].len()), (STRANGERS, hosts as usize));
        let (_, first) = numbered(hosts);
        assert!(!table.by_address.contains_key(&IpAddr::V4(first)), "the first stranger");
    }

    #[test]
    fn planned_hosts_are_bounded_too_and_one_that_left_the_plan_is_a_stranger() {
        let sessions = Sessions::default();
        for i in 0..PLANNED as u32 + 1 {
            let [a, b, c, d] = i.to_be_bytes();
            sessions.discover(MacAddr([2, 0, a, b, c, d]), false, None, Timestamp(u64::from(i)));
        }
        let last = MacAddr([2, 0, 0, 1, 0, 0]);
        assert_eq!(sessions.lock().by_mac.len(), PLANNED);
        sessions.given(last, ADDRESS, &Known::default(), Timestamp(u64::MAX));
        let table = sessions.lock();
        assert_eq!((table.by_age[0].len(), table.by_age[1].len()), (1, PLANNED - 1));
    }
}
