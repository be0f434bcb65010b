//! One interface's DHCP server without I/O: a datagram and a time in; an answer, a lease change and events out.
//!
//! Invariants: a REQUEST is answered as its DISCOVER was; a message for another server is not answered, nor one of a
//! relay that the plan does not list for that network, nor one that poses as a relay's; a lease change goes out with the answer that depends on it, so
//! that the caller can make it durable first; a client that asks for an address that it may not have is told so (NAK)
//! only if we know better, that is if it is planned or its address is not of this network; option 82 goes back to the
//! relay as it came; of redundant relays that stand for us (RFC 5107), the one whose offer a client took brings its answer.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use dayzero_model::boot::{Arch, Chain, Client};
use dayzero_model::event::{Ignored, What};
use dayzero_model::site::DhcpMode;
use dayzero_model::{BootId, HostName, MacAddr, Name, Sha256, Timestamp};

use super::decide::{Answer, Asking, Boot, Silence, Step, decide, identity};
use super::lease::LeaseChange;
use super::networks::{Networks, Subnet};
use super::reply::{Options, Reply};
use super::wire::{BadDatagram, Broken, Kind, Request, ipxe, option, relay};
use crate::config::{DhcpTimes, Loaders, PxeConfig, ServedInterface};
use crate::director::{BootDirector, PxeEvent, RelayPort, SeenClient};
use crate::http::{file_url, script_url, secure_file_url};
use crate::session::{Known, Sessions, Stage};

/// Relays that a message may have come through.
const MOST_HOPS: u8 = 16;

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// To a relay of the plan.
    Relay(SocketAddrV4),
    /// To a client of another segment, at an address that it says it has.
    Routed(SocketAddrV4),
    /// To all on the segment.
    Broadcast,
    /// To this MAC of our segment, under an address that it is to have, or says it has: nobody asks for either by ARP.
    Direct(MacAddr, SocketAddrV4),
}

/// What a datagram led to.
#[derive(Debug, Default)]
pub(crate) struct Handled {
    pub(crate) reply: Option<(Vec<u8>, Destination)>,
    /// Our address that the answer comes from.
    pub(crate) from: Option<Ipv4Addr>,
    pub(crate) change: Option<LeaseChange>,
    pub(crate) events: Vec<PxeEvent>,
    /// An address that this client is to have: whoever else answers there is a conflict.
    pub(crate) probe: Option<(Ipv4Addr, MacAddr)>,
}

impl Handled {
    /// The client that it is about.
    pub(crate) fn mac(&self) -> Option<MacAddr> {
        self.events.first().and_then(|event| event.mac)
    }

    /// Its lease is not in the store: its client gets no answer.
    pub(crate) fn not_stored(&mut self, reason: &str) {
        self.reply = None;
        for event in &mut self.events {
            if matches!(event.what, What::DhcpOut { .. }) {
                event.what = What::DhcpIgnored { reason: reason.to_owned(), why: Ignored::NotStored };
            }
        }
    }

    /// That client is a host's NIC or BMC.
    pub(crate) fn of_host(&self) -> bool {
        self.events.first().is_some_and(|event| event.host.is_some())
    }
}

/// Where a datagram came from, and to what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Came {
    pub(crate) from: SocketAddrV4,
    /// The address that it was sent to.
    pub(crate) to: Ipv4Addr,
    /// It came to the boot server's port.
    pub(crate) boot_server: bool,
}

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;

/// How a message got here, and its answer gets back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Via {
    /// Its client is on our segment.
    Local,
    /// By a relay.
    Relay(Ipv4Addr),
    /// Its client has an address on a relayed network and speaks to us directly.
    Routed,
}

struct Way {
    subnet: Arc<Subnet>,
    via: Via,
    /// Our address towards this client: the server identifier.
    server: Ipv4Addr,
}

/// The server of one interface.
pub(crate) struct DhcpCore {
    interface: ServedInterface,
    networks: Arc<Networks>,
    loaders: Loaders,
    times: DhcpTimes,
    http_port: u16,
    https_port: u16,
    /// What loaders must trust to fetch by HTTPS, where we serve that.
    trust: Option<Sha256>,
    director: Arc<dyn BootDirector>,
    sessions: Sessions,
}

/// The client of a datagram, while it is handled.
struct Asker {
    mac: MacAddr,
    host: Option<HostName>,
    boot: Option<BootId>,
    planned: bool,
}

/// A message that is being answered.
struct Turn<'a> {
    request: &'a Request,
    way: Way,
    came: Came,
    asker: Asker,
    now: Timestamp,
}

impl DhcpCore {
    pub(crate) fn new(
        interface: &ServedInterface,
        config: &PxeConfig,
        networks: Arc<Networks>,
        director: Arc<dyn BootDirector>,
        sessions: Sessions,
    ) -> Self {
        Self {
            interface: interface.clone(),
            networks,
            loaders: config.loaders.clone(),
            times: config.times,
            http_port: config.ports.http,
            https_port: config.ports.https,
            trust: config.https(),
            director,
            sessions,
        }
    }

    /// The networks that all servers share.
    pub(crate) fn networks(&self) -> Arc<Networks> {
        Arc::clone(&self.networks)
    }

    /// Handles one message.
    pub(crate) fn handle(&self, request: &Request, came: Came, now: Timestamp) -> Handled {
        // What came, and what goes out.
        let mut handled = Handled { events: Vec::with_capacity(2), ..Handled::default() };
        let way = self.way(request, came);
        let network = way.as_ref().map_or(&self.interface.network.name, |way| &way.subnet.net.name);
        let (client, asker, told) = self.heard(request, request.kind.word(), network, &mut handled);
        let way = match way {
            Ok(way) => way,
            Err((why, reason)) => {
                self.ignore(&asker, why, reason, &mut handled);
                return handled;
            }
        };
        let turn = Turn { request, way, came, asker, now };
        match request.kind {
            Kind::Release | Kind::Decline => self.given_back(&turn, &mut handled),
            _ => self.answer(&turn, &client, told.as_deref(), &mut handled),
        }
        handled
    }

    /// A client's message that breaks the rules: that it asked is told, and why nobody answers.
    pub(crate) fn broken(&self, broken: &Broken, came: Came, why: &BadDatagram) -> Handled {
        let mut handled = Handled::default();
        let way = self.way(&broken.request, came);
        let network = way.as_ref().map_or(&self.interface.network.name, |way| &way.subnet.net.name);
        let (_, asker, _) = self.heard(&broken.request, broken.kind, network, &mut handled);
        let reason = format!("its datagram breaks the rules of DHCP: {why}");
        self.ignore(&asker, Ignored::Malformed, reason, &mut handled);
        handled
    }

    /// Whose message it is, with the UUID that it tells; that it came is told.
    fn heard(
        &self,
        request: &Request,
        kind: &'static str,
        network: &Name,
        handled: &mut Handled,
    ) -> (Client, Asker, Option<String>) {
        let seen = seen(request, network.clone());
        let client = self.director.client(&seen);
        let asker = Asker::of(request.mac, &client);
        let told = seen.uuid.clone();
        let what = What::DhcpIn {
            kind: kind.into(),
            interface: self.interface.device.clone(),
            arch: seen.arch,
            ipxe: request.is_ipxe(),
            uuid: seen.uuid,
            vendor_class: seen.vendor_class,
        };
        self.tell(&asker, what, handled);
        (client, asker, told)
    }

    /// Which network a message is of, and how its answer gets back.
    fn way(&self, request: &Request, came: Came) -> Result<Way, (Ignored, String)> {
        let none = || (Ignored::Other, "no network of ours".to_owned());
        let home = || self.networks.covering(self.interface.address).ok_or_else(none);
        let local = if self.networks.is_own(came.to) { came.to } else { self.interface.address };
        if request.giaddr.is_unspecified() {
            // The boot server's clients have their address from another server, and some do not say it.
            let from = if came.boot_server { *came.from.ip() } else { request.ciaddr };
            let routed = !from.is_unspecified()
                && *came.from.ip() == from
                && !self.interface.network.prefix.covers(from);
            let far = routed.then(|| self.networks.covering(from)).flatten();
            return Ok(match far.filter(|subnet| !subnet.net.relays.is_empty()) {
                Some(subnet) => Way { subnet, via: Via::Routed, server: local },
                None => Way { subnet: home()?, via: Via::Local, server: self.interface.address },
            });
        }
        let giaddr = request.giaddr;
        if request.hops > MOST_HOPS {
            let reason = format!("came through {} relays: they pass it round in a circle", request.hops);
            return Err((Ignored::Other, reason));
        }
        let link = request.relayed_address(relay::LINK).filter(|link| !link.is_unspecified());
        let of = link.unwrap_or(giaddr);
        let unknown = Ignored::UnknownRelay { relay: giaddr.into() };
        let Some(subnet) = self.networks.covering(of) else {
            return Err((
                unknown,
                format!("came by relay {giaddr} for {of}, which is of no network of the plan"),
            ));
        };
        if !subnet.net.relays.contains(&giaddr) {
            let reason = format!(
                "came by relay {giaddr}, which the plan does not list for network {}",
                subnet.net.name
            );
            return Err((unknown, reason));
        }
        if subnet.net.boots() && !self.interface.boots() {
            let reason = format!(
                "came by relay {giaddr} to {local}, where nothing boots: let the relay send to our address on a management network"
            );
            return Err((Ignored::Other, reason));
        }
        if let Some(reason) = self.no_relay(request, came, &subnet) {
            return Err((unknown, reason));
        }
        Ok(Way { subnet, via: Via::Relay(giaddr), server: overrides(request).unwrap_or(local) })
    }

    /// Why a message did not come from the relay that it names: any machine can write an address into `giaddr`.
    fn no_relay(&self, request: &Request, came: Came, subnet: &Subnet) -> Option<String> {
        let (giaddr, from, to) = (request.giaddr, *came.from.ip(), came.to);
        if !self.networks.is_own(to) {
            let ours = self.interface.address;
            return Some(format!(
                "names relay {giaddr}, but came to {to}: a relay sends to our address; let it send to {ours}"
            ));
        }
        if !subnet.relay_speaks_from(giaddr, from) {
            return Some(format!(
                "names relay {giaddr}, but came from {from}: somebody poses as the relay, or {from} is another address of it: add it to `relay_sources` of network {} then",
                subnet.net.name
            ));
        }
        // RFC 1542 section 4.1.1 has a relay count itself; some do not, and are known by sending from that very address.
        (request.hops == 0 && from != giaddr).then(|| {
            format!("names relay {giaddr}, but says that it passed none (hops is 0), and came from {from}: somebody poses as the relay")
        })
    }

    fn tell(&self, asker: &Asker, what: What, handled: &mut Handled) {
        handled.events.push(PxeEvent {
            mac: Some(asker.mac),
            host: asker.host.clone(),
            boot: asker.boot,
            what,
        });
    }

    fn ignore(&self, asker: &Asker, why: Ignored, reason: impl Into<String>, handled: &mut Handled) {
        self.tell(asker, What::DhcpIgnored { reason: reason.into(), why }, handled);
    }

    fn step(&self, turn: &Turn<'_>) -> Option<Step> {
        let (request, requested) = (turn.request, turn.request.requested_ip());
        let ciaddr = Some(request.ciaddr).filter(|address| !address.is_unspecified());
        Some(match request.kind {
            _ if turn.came.boot_server => Step::BootServer,
            Kind::Discover => Step::Discover(requested),
            Kind::Inform => Step::Inform(request.ciaddr),
            _ => match (request.server_id(), ciaddr) {
                (Some(id), _) if id != turn.way.server => {
                    if self.networks.is_own(id) || stands_for_us(turn, id) {
                        // Another interface of ours on the same segment made the offer, and answers; or the REQUEST comes
                        // by another relay too, and is answered by that one.
                        return None;
                    }
                    Step::Elsewhere(id)
                }
                (Some(_), _) => requested.or(ciaddr).map_or(Step::Nothing, Step::Select),
                (None, Some(address)) => Step::Renew(address),
                (None, None) => requested.map_or(Step::Nothing, Step::Reboot),
            },
        })
    }

    fn answer(&self, turn: &Turn<'_>, client: &Client, told: Option<&str>, handled: &mut Handled) {
        let (request, asker, net) = (turn.request, &turn.asker, &turn.way.subnet.net);
        let Some(step) = self.step(turn) else { return };
        let stage = match request.kind {
            Kind::Discover if asker.planned => {
                self.sessions.discover(request.mac, request.is_ipxe(), request.arch(), turn.now)
            }
            _ => self.sessions.stage(request.mac),
        };
        let planned = match client {
            Client::Host { uuid, .. } => uuid.as_deref(),
            _ => None,
        };
        let boots = request.wants_boot() && asker.host.is_some();
        let trusts = boots && self.trust.is_some() && self.director.trusts(request.mac);
        if stage == Stage::Loader && request.is_ipxe() {
            self.sessions.loader_asks(request.mac, request.has_https(), trusts);
        }
        let asking = Asking {
            step,
            role: net.role,
            prefix: net.prefix,
            mode: net.mode,
            pool: turn.way.subnet.pool_for(),
            wants_boot: request.wants_boot(),
            ipxe: request.is_ipxe(),
            http: request.is_http(),
            https: trusts && net.mode == DhcpMode::Serve && !self.sessions.is_https_failed(request.mac),
            arch: request.arch(),
            identity: identity(told, planned),
            stage,
            loaders: &self.loaders,
        };
        let answer = decide(client, &asking);
        if let Some((why, reason)) = answer.boot().and_then(|boot| no_file(boot, told, planned)) {
            self.ignore(asker, why, reason, handled);
        }
        match answer {
            Answer::Silent(Silence::Expected) => self.overheard(turn, step),
            Answer::Silent(silence) => {
                if let Some(reason) = silence.reason() {
                    self.ignore(asker, silence.why(), reason, handled);
                }
            }
            Answer::Refuse(address) => self.refuse(turn, &format!("its address is {address}"), handled),
            Answer::Offer(address, boot) => self.send(Kind::Offer, turn, address, &boot, handled),
            Answer::Ack(address, boot) => {
                if turn.way.via == Via::Local {
                    handled.probe = Some((address, asker.mac));
                }
                self.send(Kind::Ack, turn, address, &boot, handled);
            }
            Answer::Inform(boot) => self.send(Kind::Ack, turn, request.ciaddr, &boot, handled),
            Answer::PoolOffer(wish) => self.pool_offer(turn, wish, handled),
            Answer::PoolBind { address, remembered } => self.pool_bind(turn, address, remembered, handled),
            Answer::Proxy(boot) => self.proxy(turn, &boot, handled),
        }
    }

    /// Beside another server, a planned client took that server's offer: its transfers are known by that address. By a relay
    /// that stands for the server (RFC 5107), that server's identifier is what ours would be.
    fn overheard(&self, turn: &Turn<'_>, step: Step) {
        let (Step::Elsewhere(_) | Step::Select(_), Some(address)) = (step, turn.request.requested_ip())
        else {
            return;
        };
        if turn.asker.planned && turn.way.subnet.net.prefix.holds(address) {
            self.given(turn, address);
        }
    }

    fn given(&self, turn: &Turn<'_>, address: Ipv4Addr) {
        let known = Known { mac: None, host: turn.asker.host.clone(), boot: turn.asker.boot };
        self.sessions.given(turn.asker.mac, address, &known, turn.now);
    }

    fn pool_offer(&self, turn: &Turn<'_>, wish: Option<Ipv4Addr>, handled: &mut Handled) {
        let reserved = |address| self.director.is_reserved(address);
        let offered =
            turn.way.subnet.pool().and_then(|mut pool| pool.offer(turn.asker.mac, wish, reserved, turn.now));
        match offered {
            Some(address) => {
                if turn.way.via == Via::Local {
                    handled.probe = Some((address, turn.asker.mac));
                }
                self.send(Kind::Offer, turn, address, &Boot::Nothing, handled);
            }
            None => {
                let reason = "the pool is used up: make it larger in the plan";
                self.ignore(&turn.asker, Ignored::PoolUsedUp, reason, handled);
            }
        }
    }

    fn pool_bind(&self, turn: &Turn<'_>, address: Ipv4Addr, remembered: bool, handled: &mut Handled) {
        let (mac, prefix) = (turn.asker.mac, turn.way.subnet.net.prefix);
        let reserved = |address| self.director.is_reserved(address);
        let Some(mut pool) = turn.way.subnet.pool() else { return };
        // A client that we never knew and that remembers an address: silence, since another server may know it.
        let stranger = remembered && pool.lease_of(mac).is_none();
        if stranger && prefix.holds(address) {
            drop(pool);
            let reason = format!("asks for {address}, of which we know nothing");
            return self.ignore(&turn.asker, Ignored::Other, reason, handled);
        }
        let change = pool.bind(mac, address, self.times.pool, reserved, turn.now);
        drop(pool);
        match change {
            Some(change) => {
                handled.change = Some(change);
                self.send(Kind::Ack, turn, address, &Boot::Nothing, handled);
            }
            None => self.refuse(turn, &format!("{address} is not its address"), handled),
        }
    }

    fn given_back(&self, turn: &Turn<'_>, handled: &mut Handled) {
        let request = turn.request;
        if turn.came.boot_server {
            // The boot server's port gives no addresses, and takes none back.
            return;
        }
        let declined = request.kind == Kind::Decline;
        let address = if declined { request.requested_ip() } else { Some(request.ciaddr) };
        let ours = request.server_id().is_some_and(|id| id == turn.way.server || self.networks.is_own(id));
        let Some(address) = address.filter(|_| ours) else { return };
        let subnet = &turn.way.subnet;
        if let Some(mut pool) = subnet.pool().filter(|_| subnet.pools(address)) {
            handled.change = if declined {
                pool.decline(turn.asker.mac, address, turn.now)
            } else {
                pool.release(turn.asker.mac, address)
            };
        }
        if declined {
            let said = request.message().map(|text| format!(" (\"{text}\")")).unwrap_or_default();
            let reason = format!(
                "declines {address}{said}: somebody else answers there, or it dislikes our answer; find the other machine, or fix the plan"
            );
            self.ignore(&turn.asker, Ignored::Declined { address: address.into() }, reason, handled);
        }
    }

    /// Somebody else than `expected` answers for an address of this segment.
    pub(crate) fn conflict(
        &self,
        address: Ipv4Addr,
        expected: MacAddr,
        found: MacAddr,
        now: Timestamp,
    ) -> Handled {
        let mut handled = Handled::default();
        let who = |mac| {
            let network = self.interface.network.name.clone();
            let (wants_boot, arch, uuid, vendor_class) = (false, None, None, None);
            let (client_id, duid, circuit) = (None, None, None);
            let seen =
                SeenClient { mac, network, wants_boot, arch, uuid, vendor_class, client_id, duid, circuit };
            Asker::of(mac, &self.director.client(&seen))
        };
        let (asker, other) = (who(expected), who(found));
        if asker.host.is_some() && asker.host == other.host {
            return handled;
        }
        if let Some(subnet) = self.networks.covering(address).filter(|subnet| subnet.pools(address)) {
            handled.change = subnet.pool().and_then(|mut pool| pool.decline(expected, address, now));
        }
        let name = other.host.map(|host| format!(", a NIC of {host}")).unwrap_or_default();
        let reason = format!("{address}, which it is to have, is in use by {found}{name}: find that machine");
        self.ignore(&asker, Ignored::InUse { address, by: found }, reason, &mut handled);
        handled
    }

    fn refuse(&self, turn: &Turn<'_>, why: &str, handled: &mut Handled) {
        let mut options = Options::default();
        options.text(option::MESSAGE, why);
        let none = Ipv4Addr::UNSPECIFIED;
        let server = turn.way.server;
        let nak = Reply { kind: Kind::Nak, yiaddr: none, siaddr: none, server, file: None, options };
        let to = match turn.way.via {
            Via::Local => Destination::Broadcast,
            Via::Relay(giaddr) => Destination::Relay(SocketAddrV4::new(giaddr, SERVER_PORT)),
            Via::Routed => Destination::Routed(SocketAddrV4::new(turn.request.ciaddr, CLIENT_PORT)),
        };
        handled.reply = Some((nak.encode(turn.request), to));
        handled.from = Some(server);
        let what = What::DhcpOut { kind: Kind::Nak.word().into(), address: None, file: None };
        self.tell(&turn.asker, what, handled);
    }

    fn send(&self, kind: Kind, turn: &Turn<'_>, address: Ipv4Addr, boot: &Boot, handled: &mut Handled) {
        let request = turn.request;
        let inform = matches!(request.kind, Kind::Inform);
        let mut options = Options::default();
        if !inform {
            let pooled = turn.way.subnet.pools(address);
            let time = if pooled { self.times.pool } else { self.times.reserved };
            options.seconds(option::LEASE_TIME, time).seconds(option::T1, time / 2);
            options.seconds(option::T2, time / 8 * 7);
            if turn.asker.planned || request.wants_boot() {
                self.given(turn, address);
            }
        }
        if kind == Kind::Ack && matches!(boot, Boot::HttpsLoader(_)) {
            self.sessions.given_https(request.mac);
        }
        network_options(turn, &mut options);
        let (siaddr, file) = self.boot_options(request, boot, &mut options);
        let yiaddr = if inform { Ipv4Addr::UNSPECIFIED } else { address };
        let reply = Reply { kind, yiaddr, siaddr, server: turn.way.server, file, options };
        handled.reply = Some((reply.encode(request), destination(kind, turn, address)));
        handled.from = Some(turn.way.server);
        let what = What::DhcpOut { kind: kind.word().into(), address: Some(address), file: reply.file };
        self.tell(&turn.asker, what, handled);
    }

    /// Another server gives the address; this says what to boot (PXE specification 2.1, section 2.2).
    fn proxy(&self, turn: &Turn<'_>, boot: &Boot, handled: &mut Handled) {
        let request = turn.request;
        let mut options = Options::default();
        let (_, file) = self.boot_options(request, boot, &mut options);
        if file.is_none() {
            return;
        }
        if matches!(boot, Boot::Script) || request.is_ipxe() {
            // iPXE takes what is no DHCP offer only from what calls itself a PXE server.
            options.text(option::VENDOR_CLASS, "PXEClient");
        }
        if let Some(uuid) = request.raw(option::CLIENT_UUID) {
            options.raw(option::CLIENT_UUID, uuid);
        }
        let (kind, to) = match turn.way.via {
            _ if turn.came.boot_server => {
                // It speaks from the address that the other server gave it.
                if turn.way.subnet.net.prefix.holds(*turn.came.from.ip()) {
                    self.given(turn, *turn.came.from.ip());
                }
                (Kind::Ack, self.boot_server_client(turn))
            }
            Via::Relay(giaddr) => (Kind::Offer, Destination::Relay(SocketAddrV4::new(giaddr, SERVER_PORT))),
            Via::Local | Via::Routed => (Kind::Offer, Destination::Broadcast),
        };
        // What it boots comes from us, whatever a relay wants to be called as a server.
        let (none, server) = (Ipv4Addr::UNSPECIFIED, self.interface.address);
        let reply = Reply { kind, yiaddr: none, siaddr: server, server, file, options };
        handled.reply = Some((reply.encode(request), to));
        handled.from = Some(turn.way.server);
        let what = What::DhcpOut { kind: kind.word().into(), address: None, file: reply.file };
        self.tell(&turn.asker, what, handled);
    }

    /// Back to where a client of the boot server's port asked from: by its MAC, if that is on our segment.
    fn boot_server_client(&self, turn: &Turn<'_>) -> Destination {
        let from = turn.came.from;
        let here = from.ip().is_unspecified() || self.interface.network.prefix.covers(*from.ip());
        if turn.way.via == Via::Local && here {
            Destination::Direct(turn.request.mac, from)
        } else {
            Destination::Routed(from)
        }
    }

    /// Settings of an iPXE that asks, or will be loaded: it reads whom to trust only when it starts, out of what its firmware
    /// was answered.
    fn ipxe_options(&self, request: &Request, boot: &Boot, options: &mut Options) {
        let mut settings = Vec::new();
        if let (Boot::Loader(name), Some(trust)) = (boot, self.trust)
            && self.loaders.is_loader(name)
        {
            settings.extend([ipxe::TRUST, 32]);
            settings.extend(trust.0);
            self.sessions.told_trust(request.mac);
        }
        if request.is_ipxe() {
            settings.extend([ipxe::NO_PROXY, 1, 1]);
        }
        options.raw(option::IPXE, &settings);
    }

    fn boot_options(
        &self,
        request: &Request,
        boot: &Boot,
        options: &mut Options,
    ) -> (Ipv4Addr, Option<String>) {
        let none = Ipv4Addr::UNSPECIFIED;
        let at = |port| SocketAddrV4::new(self.interface.address, port);
        let http = at(self.http_port);
        self.ipxe_options(request, boot, options);
        match boot {
            Boot::Nothing
            | Boot::NoLoader(_)
            | Boot::NothingSigned(_)
            | Boot::NoWindow
            | Boot::OtherMachine => (none, None),
            Boot::Script => (self.interface.address, Some(script_url(http, request.mac))),
            Boot::HttpLoader(name) => {
                options.text(option::VENDOR_CLASS, "HTTPClient");
                (none, Some(file_url(http, name)))
            }
            Boot::HttpsLoader(name) => {
                options.text(option::VENDOR_CLASS, "HTTPClient");
                (none, Some(secure_file_url(at(self.https_port), name)))
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

/// Why a client that boots gets no boot file.
pub(crate) fn no_file(boot: &Boot, told: Option<&str>, planned: Option<&str>) -> Option<(Ignored, String)> {
    match boot {
        Boot::NoLoader(arch) => {
            let reason = format!("no loader for its architecture {}: no boot file", code(*arch));
            Some((Ignored::NoLoader { arch: *arch }, reason))
        }
        Boot::NothingSigned(Chain::Shim) => Some((
            Ignored::NothingSigned,
            "it boots by shim and GRUB, which need PXE (TFTP), and there is nothing for what it asks: no boot file; switch PXE for IPv4 on in its firmware, and see the to-do list"
                .to_owned(),
        )),
        Boot::NothingSigned(_) => Some((
            Ignored::NothingSigned,
            "it boots under Secure Boot, and no signed boot files are here: no boot file; set `secure` under [files] in serve.toml, and see the to-do list"
                .to_owned(),
        )),
        Boot::NoWindow => {
            let reason = "no boot is open for it, and under Secure Boot nothing of ours would leave to the disk: no boot file, so that its firmware goes on by itself";
            Some((Ignored::NoWindow, reason.to_owned()))
        }
        Boot::OtherMachine => {
            let reason = format!(
                "its UUID {} is not {}, which the plan has, or its BMC told: another machine has this host's NIC, no boot file; correct the cable, or write its UUID into the plan",
                told.unwrap_or_default(),
                planned.unwrap_or_default()
            );
            Some((Ignored::OtherMachine, reason))
        }
        _ => None,
    }
}

/// Whether a server identifier is that of a relay which stands for us, beside the one that this message came by: redundant
/// relays bring the same REQUEST, and each has its own address for an identifier (RFC 5107). Where relays do not stand for
/// servers, a router that gives addresses itself is another server.
fn stands_for_us(turn: &Turn<'_>, id: Ipv4Addr) -> bool {
    let net = &turn.way.subnet.net;
    let Via::Relay(_) = turn.way.via else { return false };
    net.mode == DhcpMode::Serve && overrides(turn.request).is_some() && net.relays.contains(&id)
}

/// What a relay wants us to be called as a server (RFC 5107).
fn overrides(request: &Request) -> Option<Ipv4Addr> {
    request.relayed_address(relay::SERVER).filter(|server| !server.is_unspecified())
}

fn network_options(turn: &Turn<'_>, options: &mut Options) {
    let net = &turn.way.subnet.net;
    options.address(option::SUBNET_MASK, net.prefix.mask());
    options.address(option::BROADCAST, net.prefix.broadcast());
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
    if let Some(host) = turn.asker.host.as_ref().filter(|_| net.boots()) {
        options.text(option::HOST_NAME, host.as_str());
    }
}

fn destination(kind: Kind, turn: &Turn<'_>, address: Ipv4Addr) -> Destination {
    let request = turn.request;
    let client = |address| SocketAddrV4::new(address, CLIENT_PORT);
    let has = kind == Kind::Ack && turn.way.subnet.net.prefix.holds(request.ciaddr);
    match turn.way.via {
        Via::Relay(_) if has && request.kind == Kind::Inform => Destination::Routed(client(request.ciaddr)),
        Via::Relay(giaddr) => Destination::Relay(SocketAddrV4::new(giaddr, SERVER_PORT)),
        Via::Routed => Destination::Routed(client(request.ciaddr)),
        Via::Local if has => Destination::Direct(request.mac, client(request.ciaddr)),
        Via::Local if request.broadcast => Destination::Broadcast,
        Via::Local => Destination::Direct(request.mac, client(address)),
    }
}

fn seen(request: &Request, network: dayzero_model::Name) -> SeenClient {
    let wants_boot = request.wants_boot();
    let client_id = request.raw(option::CLIENT_ID).map(<[u8]>::to_vec);
    // RFC 4361: type 255, four octets of IAID, the DUID.
    let duid = client_id.as_ref().filter(|id| id.first() == Some(&255) && id.len() > 5);
    let relayed = !request.giaddr.is_unspecified();
    let circuit = request.relayed(relay::CIRCUIT).filter(|_| relayed);
    let remote = request.relayed(relay::REMOTE).map(<[u8]>::to_vec);
    SeenClient {
        mac: request.mac,
        network,
        wants_boot,
        arch: request.arch().filter(|_| wants_boot),
        uuid: request.uuid(),
        vendor_class: request.vendor_class(),
        duid: duid.map(|id| id[5..].to_vec()),
        client_id,
        circuit: circuit.map(|id| RelayPort { id: id.to_vec(), remote }),
    }
}

impl Asker {
    fn of(mac: MacAddr, client: &Client) -> Self {
        let (host, boot) = match client {
            Client::Bmc { host, .. } => (Some(host.clone()), None),
            Client::Host { host, window, .. } => (Some(host.clone()), window.as_ref().map(|w| w.boot)),
            Client::Fixed { .. } | Client::Vm { .. } | Client::Unknown => (None, None),
        };
        Self { mac, host, boot, planned: !matches!(client, Client::Unknown) }
    }
}

fn code(arch: Option<Arch>) -> String {
    match arch {
        Some(Arch::Other(code)) => code.to_string(),
        Some(Arch::Bios) | None => "0 (x86 BIOS)".to_owned(),
        Some(Arch::UefiX86) => "6 (x86 UEFI, 32 bits)".to_owned(),
        Some(Arch::UefiX64) => "7 (x86-64 UEFI)".to_owned(),
        Some(Arch::UefiArm64) => "11 (arm64 UEFI)".to_owned(),
        Some(Arch::UefiX86Http) => "15 (x86 UEFI, 32 bits, HTTP)".to_owned(),
        Some(Arch::UefiX64Http) => "16 (x86-64 UEFI, HTTP)".to_owned(),
        Some(Arch::UefiArm64Http) => "19 (arm64 UEFI, HTTP)".to_owned(),
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
