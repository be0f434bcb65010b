//! One interface's DHCP server without I/O: a datagram and a time in; an answer, a lease change and events out.
//!
//! Invariants: a REQUEST is answered as its DISCOVER was; a message for another server is not answered; a lease change
//! goes out with the answer that depends on it, so that the caller can make it durable first; a client that asks
//! for an address that it may not have is told so (NAK) only if we know better, that is if it is planned or its
//! address is not of this network.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use dayzero_model::boot::{Arch, Client};
use dayzero_model::event::What;
use dayzero_model::{BootId, HostName, MacAddr, Timestamp};

use super::decide::{Answer, Asking, Boot, PoolFor, decide};
use super::lease::{Lease, LeaseChange, Pool};
use super::reply::{Options, Reply};
use super::wire::{Kind, Request, option};
use crate::config::{DhcpTimes, Loaders, PxeConfig, ServedInterface};
use crate::director::{BootDirector, PxeEvent, SeenClient};
use crate::http::script_url;
use crate::session::{Known, Sessions};

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// To this address, which the client has.
    Unicast(Ipv4Addr),
    /// To all on the segment.
    Broadcast,
    /// To this MAC, under an address that the client does not have yet.
    Direct(MacAddr, Ipv4Addr),
}

/// What a datagram led to.
#[derive(Debug, Default)]
pub(crate) struct Handled {
    pub(crate) reply: Option<(Vec<u8>, Destination)>,
    pub(crate) change: Option<LeaseChange>,
    pub(crate) events: Vec<PxeEvent>,
}

/// The server of one interface.
pub(crate) struct DhcpCore {
    interface: ServedInterface,
    loaders: Loaders,
    times: DhcpTimes,
    http: SocketAddrV4,
    director: Arc<dyn BootDirector>,
    sessions: Sessions,
    pool: Option<Pool>,
}

/// The client of a datagram, while it is handled.
struct Asker {
    mac: MacAddr,
    host: Option<HostName>,
    boot: Option<BootId>,
    planned: bool,
}

impl DhcpCore {
    pub(crate) fn new(
        interface: &ServedInterface,
        config: &PxeConfig,
        director: Arc<dyn BootDirector>,
        sessions: Sessions,
        leases: &[Lease],
    ) -> Self {
        let mut own = vec![interface.address];
        own.extend(interface.gateway);
        let pool = interface.pool.map(|p| Pool::new(interface.network.clone(), p.range, &own, leases));
        Self {
            interface: interface.clone(),
            loaders: config.loaders.clone(),
            times: config.times,
            http: SocketAddrV4::new(interface.address, config.ports.http),
            director,
            sessions,
            pool,
        }
    }

    /// Handles one message.
    pub(crate) fn handle(&mut self, request: &Request, now: Timestamp) -> Handled {
        let seen = SeenClient {
            mac: request.mac,
            network: self.interface.network.clone(),
            wants_boot: request.wants_boot(),
            arch: request.arch().filter(|_| request.wants_boot()),
            uuid: request.uuid(),
            vendor_class: request.vendor_class(),
        };
        let client = self.director.client(&seen);
        let asker = Asker::of(request.mac, &client);
        let mut handled = Handled::default();
        let what = What::DhcpIn {
            kind: request.kind.word().to_owned(),
            interface: self.interface.device.clone(),
            arch: seen.arch,
            ipxe: request.is_ipxe(),
            uuid: seen.uuid,
            vendor_class: seen.vendor_class,
        };
        self.tell(&asker, what, &mut handled);
        if !request.giaddr.is_unspecified() {
            let reason = format!("came by relay {}, and the plan lists no relay here", request.giaddr);
            self.tell(&asker, What::DhcpIgnored { reason }, &mut handled);
            return handled;
        }
        match request.kind {
            Kind::Release | Kind::Decline => self.given_back(request, &asker, now, &mut handled),
            _ => self.answer(request, &client, &asker, now, &mut handled),
        }
        handled
    }

    fn tell(&self, asker: &Asker, what: What, handled: &mut Handled) {
        handled.events.push(PxeEvent {
            interface: self.interface.device.clone(),
            mac: Some(asker.mac),
            host: asker.host.clone(),
            boot: asker.boot,
            what,
        });
    }

    fn ignore(&self, asker: &Asker, reason: impl Into<String>, handled: &mut Handled) {
        self.tell(asker, What::DhcpIgnored { reason: reason.into() }, handled);
    }

    fn decide(&self, request: &Request, client: &Client, asker: &Asker, now: Timestamp) -> Answer {
        let stage = match request.kind {
            Kind::Discover if asker.planned => self.sessions.discover(request.mac, request.is_ipxe(), now),
            _ => self.sessions.stage(request.mac),
        };
        let pool = self.interface.pool.map(|p| if p.open { PoolFor::All } else { PoolFor::Ours });
        decide(
            client,
            &Asking {
                role: self.interface.role,
                pool,
                wants_boot: request.wants_boot(),
                ipxe: request.is_ipxe(),
                arch: request.arch(),
                stage,
                loaders: &self.loaders,
            },
        )
    }

    fn answer(
        &mut self,
        request: &Request,
        client: &Client,
        asker: &Asker,
        now: Timestamp,
        handled: &mut Handled,
    ) {
        if request.kind == Kind::Request
            && let Some(other) = request.server_id().filter(|id| *id != self.interface.address)
        {
            let reason =
                format!("chose the DHCP server {other}, which is not ours: a second server answers here");
            return self.ignore(asker, reason, handled);
        }
        if request.kind == Kind::Inform && !self.interface.holds(request.ciaddr) {
            let reason = format!("INFORM from {}, which is not of this network", request.ciaddr);
            return self.ignore(asker, reason, handled);
        }
        match self.decide(request, client, asker, now) {
            Answer::Silent(silence) => self.ignore(asker, silence.reason(), handled),
            Answer::Reserved(address, _) if !self.interface.holds(address) => {
                let reason =
                    format!("its planned address {address} is not on network {}", self.interface.network);
                self.ignore(asker, reason, handled);
            }
            Answer::Reserved(address, boot) => {
                if let Boot::NoLoader(arch) = &boot {
                    let reason =
                        format!("no loader for its architecture {}: address given alone", code(*arch));
                    self.ignore(asker, reason, handled);
                }
                self.reserved(request, asker, address, &boot, now, handled);
            }
            Answer::Pool => self.pooled(request, asker, now, handled),
        }
    }

    fn reserved(
        &mut self,
        request: &Request,
        asker: &Asker,
        address: Ipv4Addr,
        boot: &Boot,
        now: Timestamp,
        handled: &mut Handled,
    ) {
        match request.kind {
            Kind::Discover => self.send(Kind::Offer, request, asker, address, boot, now, handled),
            Kind::Inform => self.send(Kind::Ack, request, asker, request.ciaddr, boot, now, handled),
            _ if wanted(request) == Some(address) => {
                self.send(Kind::Ack, request, asker, address, boot, now, handled);
            }
            _ => self.refuse(request, asker, &format!("its address is {address}"), handled),
        }
    }

    fn pooled(&mut self, request: &Request, asker: &Asker, now: Timestamp, handled: &mut Handled) {
        let director = Arc::clone(&self.director);
        let reserved = |address| director.is_reserved(address);
        let Some(pool) = &mut self.pool else { return };
        match request.kind {
            Kind::Discover => match pool.offer(request.mac, request.requested_ip(), reserved, now) {
                Some(address) => {
                    self.send(Kind::Offer, request, asker, address, &Boot::Nothing, now, handled)
                }
                None => self.ignore(asker, "the pool is used up: make it larger in the plan", handled),
            },
            Kind::Inform => {
                self.send(Kind::Ack, request, asker, request.ciaddr, &Boot::Nothing, now, handled)
            }
            _ => {
                let Some(address) = wanted(request) else {
                    return self.ignore(asker, "REQUEST that names no address", handled);
                };
                // After INIT-REBOOT of a client that we never knew, silence: another server may know it.
                let stranger = pool.lease_of(request.mac).is_none() && request.server_id().is_none();
                match pool.bind(request.mac, address, self.times.pool, reserved, now) {
                    Some(change) => {
                        handled.change = Some(change);
                        self.send(Kind::Ack, request, asker, address, &Boot::Nothing, now, handled);
                    }
                    None if stranger && self.interface.holds(address) => {
                        self.ignore(asker, format!("asks for {address}, of which we know nothing"), handled);
                    }
                    None => self.refuse(request, asker, &format!("{address} is not its address"), handled),
                }
            }
        }
    }

    fn given_back(&mut self, request: &Request, asker: &Asker, now: Timestamp, handled: &mut Handled) {
        let declined = request.kind == Kind::Decline;
        let address = if declined { request.requested_ip() } else { Some(request.ciaddr) };
        let Some(address) = address.filter(|_| request.server_id() == Some(self.interface.address)) else {
            return;
        };
        if let Some(pool) = self.pool.as_mut().filter(|pool| pool.holds(address)) {
            handled.change = if declined {
                pool.decline(request.mac, address, now)
            } else {
                pool.release(request.mac, address)
            };
        }
        if declined {
            let said = request.message().map(|text| format!(" (\"{text}\")")).unwrap_or_default();
            let reason = format!(
                "declines {address}{said}: somebody else answers there, or it dislikes our answer; find the other machine, or fix the plan"
            );
            self.ignore(asker, reason, handled);
        }
    }

    fn refuse(&self, request: &Request, asker: &Asker, why: &str, handled: &mut Handled) {
        let mut options = Options::default();
        options.text(option::MESSAGE, why);
        let none = Ipv4Addr::UNSPECIFIED;
        let server = self.interface.address;
        let nak = Reply { kind: Kind::Nak, yiaddr: none, siaddr: none, server, file: None, options };
        handled.reply = Some((nak.encode(request), Destination::Broadcast));
        let what = What::DhcpOut { kind: Kind::Nak.word().to_owned(), address: None, file: None };
        self.tell(asker, what, handled);
    }

    fn send(
        &self,
        kind: Kind,
        request: &Request,
        asker: &Asker,
        address: Ipv4Addr,
        boot: &Boot,
        now: Timestamp,
        handled: &mut Handled,
    ) {
        let inform = request.kind == Kind::Inform;
        let mut options = Options::default();
        if !inform {
            let time = if self.pool.as_ref().is_some_and(|p| p.holds(address)) {
                self.times.pool
            } else {
                self.times.reserved
            };
            options.seconds(option::LEASE_TIME, time).seconds(option::T1, time / 2);
            options.seconds(option::T2, time / 8 * 7);
            let known = Known { mac: None, host: asker.host.clone(), boot: asker.boot };
            self.sessions.given(asker.mac, address, &known, now);
        }
        self.network_options(asker, &mut options);
        let (siaddr, file) = self.boot_options(request, boot, &mut options);
        let yiaddr = if inform { Ipv4Addr::UNSPECIFIED } else { address };
        let reply = Reply { kind, yiaddr, siaddr, server: self.interface.address, file, options };
        let to = if kind == Kind::Ack && self.interface.holds(request.ciaddr) {
            Destination::Unicast(request.ciaddr)
        } else if request.broadcast {
            Destination::Broadcast
        } else {
            Destination::Direct(request.mac, address)
        };
        handled.reply = Some((reply.encode(request), to));
        let what = What::DhcpOut { kind: kind.word().to_owned(), address: Some(address), file: reply.file };
        self.tell(asker, what, handled);
    }

    fn network_options(&self, asker: &Asker, options: &mut Options) {
        let net = &self.interface;
        options.address(option::SUBNET_MASK, net.mask()).address(option::BROADCAST, net.broadcast());
        if let Some(gateway) = net.gateway {
            options.address(option::ROUTER, gateway);
        }
        let dns: Vec<u8> = net.dns.iter().take(8).flat_map(|a| a.octets()).collect();
        options.raw(option::DNS, &dns);
        if let Some(domain) = &net.domain {
            options.text(option::DOMAIN, domain);
        }
        if let Some(mtu) = net.mtu {
            options.raw(option::MTU, &mtu.to_be_bytes());
        }
        if let Some(host) = asker.host.as_ref().filter(|_| net.boots()) {
            options.text(option::HOST_NAME, host.as_str());
        }
    }

    fn boot_options(
        &self,
        request: &Request,
        boot: &Boot,
        options: &mut Options,
    ) -> (Ipv4Addr, Option<String>) {
        let none = Ipv4Addr::UNSPECIFIED;
        if request.is_ipxe() {
            // Encapsulated iPXE option 176 (no-pxedhcp): do not wait for a proxyDHCP server.
            options.raw(option::IPXE, &[176, 1, 1]);
        }
        match boot {
            Boot::Nothing | Boot::NoLoader(_) => (none, None),
            Boot::Script => (self.interface.address, Some(script_url(self.http, request.mac))),
            Boot::HttpLoader(name) => {
                options.text(option::VENDOR_CLASS, "HTTPClient");
                (none, Some(format!("http://{}/boot/file/{name}", self.http)))
            }
            Boot::Loader(name) => {
                if !request.is_ipxe() {
                    // PXE vendor option 6, bit 3: take the boot file as named, discover no boot server.
                    options.text(option::VENDOR_CLASS, "PXEClient").raw(option::VENDOR, &[6, 1, 8, 255]);
                }
                (self.interface.address, Some(name.clone()))
            }
        }
    }
}

impl Asker {
    fn of(mac: MacAddr, client: &Client) -> Self {
        let (host, boot) = match client {
            Client::Bmc { host, .. } => (Some(host.clone()), None),
            Client::Host { host, window, .. } => (Some(host.clone()), window.as_ref().map(|w| w.boot)),
            Client::Vm { .. } | Client::Unknown => (None, None),
        };
        Self { mac, host, boot, planned: !matches!(client, Client::Unknown) }
    }
}

/// The address that a REQUEST is about: the one it has (renewal), or the one it names.
fn wanted(request: &Request) -> Option<Ipv4Addr> {
    if request.ciaddr.is_unspecified() { request.requested_ip() } else { Some(request.ciaddr) }
}

fn code(arch: Option<Arch>) -> String {
    match arch {
        Some(Arch::Other(code)) => code.to_string(),
        Some(Arch::Bios) | None => "0 (x86 BIOS)".to_owned(),
        Some(Arch::UefiX64) => "7 (x86-64 UEFI)".to_owned(),
        Some(Arch::UefiArm64) => "11 (arm64 UEFI)".to_owned(),
        Some(Arch::UefiX64Http) => "16 (x86-64 UEFI, HTTP)".to_owned(),
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
