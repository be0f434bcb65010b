//! A DHCPv6 message and a time in; an answer and events out.
//!
//! Invariants: who is answered is what DHCPv4's decision says, of the same plan; a message for another server is not answered
//! (that its client chose that one is told),
//! nor one of a relay that the plan does not list, nor one that poses as a relay's, layer by layer; a client is told the address
//! that the plan gives it, and that any other is over; its port is what the nearest relay says that a client cannot have
//! written itself; a name server is told that is ours and listens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use dayzero_model::boot::{Chain, Client};
use dayzero_model::event::{Ignored, What};
use dayzero_model::site::DhcpMode;
use dayzero_model::{BootId, HostName, MacAddr, Timestamp};

use super::wire::{BadMessage, Kind, Message, Options, encode, made_of, option, status};
use crate::config::{Loaders, Ports, PxeConfig, ServedInterface, ServedNetwork};
use crate::dhcp::core::no_file;
use crate::dhcp::decide::{Answer, Asking, Boot, Silence, Step, decide, identity};
use crate::dhcp::networks::{Networks, Subnet};
use crate::director::{BootDirector, PxeEvent, SeenClient};
use crate::http::{file_url, script_url, secure_file_url};
use crate::opened::{Six, serves_names};
use crate::session::{Known, Sessions};

/// Where clients send.
pub(crate) const ALL_AGENTS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// No address for this association.
const NO_ADDRESS: u16 = 2;
/// EDK2's enterprise number for its own vendor class; IANA gives 343 to Intel.
const INTEL: [u8; 4] = 343u32.to_be_bytes();

/// What a message led to.
#[derive(Debug, Default)]
pub(crate) struct Handled {
    pub(crate) reply: Option<Vec<u8>>,
    pub(crate) events: Vec<PxeEvent>,
}

impl Handled {
    /// The client that it is about, and whether that is a host.
    pub(crate) fn client(&self) -> (Option<MacAddr>, bool) {
        self.events.first().map(|event| (event.mac, event.host.is_some())).unwrap_or_default()
    }
}

/// Where a datagram came from, and to what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Came {
    pub(crate) from: Ipv6Addr,
    pub(crate) to: Ipv6Addr,
}

/// Our own addresses that clients are told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// Where TFTP and HTTP boot answer on this interface.
    boot: Option<Ipv6Addr>,
    /// Where DNS answers, by the address that the plan's `dns` has for it.
    names: Vec<(Ipv4Addr, Ipv6Addr)>,
}

impl Told {
    /// On this interface, of those that the devices have.
    pub(crate) fn on(interface: &ServedInterface, config: &PxeConfig, six: &Six) -> Self {
        let names = config.interfaces.iter().filter(|one| serves_names(config, one));
        let names = names.filter_map(|one| Some((one.address, *six.get(&one.device)?)));
        let boot = six.get(&interface.device).copied().filter(|_| interface.boots());
        Self { boot, names: names.collect() }
    }
}

/// The server of one interface.
pub(crate) struct Core {
    interface: ServedInterface,
    networks: Arc<Networks>,
    loaders: Loaders,
    duid: Vec<u8>,
    valid: u32,
    told: Told,
    ports: Ports,
    /// Loaders and firmware are served by HTTPS too.
    https: bool,
    director: Arc<dyn BootDirector>,
    sessions: Sessions,
}

/// A message that is being answered.
struct Turn<'a> {
    message: &'a Message,
    network: &'a ServedNetwork,
    mac: Option<MacAddr>,
    client: &'a Client,
    seen: &'a SeenClient,
    now: Timestamp,
}

impl Core {
    pub(crate) fn new(
        interface: &ServedInterface,
        config: &PxeConfig,
        networks: Arc<Networks>,
        duid: Vec<u8>,
        told: Told,
        director: Arc<dyn BootDirector>,
        sessions: Sessions,
    ) -> Self {
        Self {
            interface: interface.clone(),
            networks,
            loaders: config.loaders.clone(),
            duid,
            valid: config.times.reserved,
            told,
            ports: config.ports,
            https: config.https().is_some(),
            director,
            sessions,
        }
    }

    /// Handles one message.
    pub(crate) fn handle(&self, message: &Message, came: Came, now: Timestamp) -> Handled {
        let mut handled = Handled::default();
        let networks = self.networks.all();
        let network = self.network(&networks, message, came);
        let found = network.as_ref().copied().map_err(drop);
        let (mac, client, seen) = self.heard(message, came, found, &mut handled);
        match network {
            Ok(network) => {
                let turn = Turn { message, network, mac, client: &client, seen: &seen, now };
                self.answer(&turn, &mut handled);
            }
            Err((why, reason)) => self.tell(mac, &client, What::DhcpIgnored { reason, why }, &mut handled),
        }
        handled
    }

    /// A client's message that breaks the rules: that it asked is told, and why nobody answers.
    pub(crate) fn broken(&self, message: &Message, came: Came, why: &BadMessage) -> Handled {
        let mut handled = Handled::default();
        let networks = self.networks.all();
        let network = self.network(&networks, message, came);
        let network = network.map_err(drop);
        let (mac, client, _) = self.heard(message, came, network, &mut handled);
        let reason = format!("its datagram breaks the rules of DHCPv6: {why}");
        self.tell(mac, &client, What::DhcpIgnored { reason, why: Ignored::Malformed }, &mut handled);
        handled
    }

    /// Whose message it is; that it came is told.
    fn heard(
        &self,
        message: &Message,
        came: Came,
        network: Result<&ServedNetwork, ()>,
        handled: &mut Handled,
    ) -> (Option<MacAddr>, Client, SeenClient) {
        // A layer is believed that a relay of the plan wrote.
        let by_relay = network.is_ok();
        let network = network.map_or(&self.interface.network.name, |network| &network.name);
        let mac = message.mac(came.from);
        let wants_boot = message.wants_boot();
        let seen = SeenClient {
            mac: mac.unwrap_or(MacAddr([0; 6])),
            network: network.clone(),
            wants_boot: wants_boot && mac.is_some(),
            arch: message.arch.filter(|_| wants_boot),
            uuid: uuid(&message.client),
            vendor_class: message.vendor_class.clone(),
            client_id: None,
            duid: Some(message.client.clone()),
            circuit: message.port().filter(|_| by_relay),
        };
        let client = self.director.client(&seen);
        let what = What::DhcpIn {
            kind: message.kind.word().into(),
            interface: self.interface.device.clone(),
            arch: seen.arch,
            ipxe: message.ipxe,
            uuid: seen.uuid.clone(),
            vendor_class: seen.vendor_class.clone(),
        };
        self.tell(mac, &client, what, handled);
        (mac, client, seen)
    }

    /// The network that a client is on: our interface's, or the one that its first relay stands for. A relay at the client's
    /// very port (RFC 6221) names no link: the next one does.
    fn network<'n>(
        &self,
        networks: &'n [Arc<Subnet>],
        message: &Message,
        came: Came,
    ) -> Result<&'n ServedNetwork, (Ignored, String)> {
        let mut six = networks.iter().map(|subnet| &subnet.net).filter(|network| network.prefix6.is_some());
        if message.relays.is_empty() {
            let own = six.find(|network| network.name == self.interface.network.name);
            let none = || (Ignored::Other, "this network has no IPv6 prefix in the plan".to_owned());
            return own.ok_or_else(none);
        }
        let named = message.relays.iter().rev().map(|layer| layer.link).find(|link| !link.is_unspecified());
        let link = named.unwrap_or(came.from);
        let unknown = Ignored::UnknownRelay { relay: link.into() };
        let covers = |network: &&ServedNetwork| network.prefix6.is_some_and(|prefix| prefix.covers(link));
        let Some(network) = six.find(covers) else {
            return Err((unknown, format!("came by relay {link}, which is of no network of the plan")));
        };
        let listed = network.prefix6.is_some_and(|p| network.relays.iter().any(|relay| p.of(*relay) == link));
        if !listed {
            let reason =
                format!("came by relay {link}, which the plan does not list for network {}", network.name);
            return Err((unknown, reason));
        }
        match no_relay(networks, message, came, network) {
            None => Ok(network),
            Some(why) => Err((unknown, format!("names relay {link}, but {why}"))),
        }
    }

    fn answer(&self, turn: &Turn<'_>, handled: &mut Handled) {
        let Turn { message, network, mac, client, .. } = *turn;
        let to_us = message.server.as_ref().map(|server| *server == self.duid);
        let fits = match message.kind {
            Kind::Solicit | Kind::Confirm | Kind::Rebind => to_us.is_none(),
            Kind::Inform => to_us != Some(false),
            _ => to_us == Some(true),
        };
        if !fits {
            return self.elsewhere(turn, handled);
        }
        let planned = planned(client);
        let answer = self.decide(turn, planned);
        if let Answer::Proxy(_) = answer {
            // Another server gives the addresses, and DHCPv6 knows no answer beside that one's: what to boot is told by IPv4.
            return;
        }
        if let Some((why, reason)) =
            answer.boot().and_then(|boot| no_file(boot, turn.seen.uuid.as_deref(), planned))
        {
            self.tell(mac, client, What::DhcpIgnored { reason, why }, handled);
        }
        let (boot, address) = match answer {
            Answer::Offer(address, boot) => (boot, address),
            Answer::Silent(silence) => {
                let reason = silence.reason().filter(|_| silence != Silence::Expected);
                if let Some(reason) = reason {
                    self.tell(mac, client, What::DhcpIgnored { reason, why: silence.why() }, handled);
                }
                return;
            }
            _ => {
                let reason = "no reservation, and there are no pools by IPv6".to_owned();
                self.tell(mac, client, What::DhcpIgnored { reason, why: Ignored::NoPool }, handled);
                return;
            }
        };
        let Some(address6) = network.prefix6.map(|prefix| prefix.of(address)) else { return };
        let mut options = Options::default();
        let mut given = None;
        if let Kind::Solicit | Kind::Request | Kind::Renew | Kind::Rebind | Kind::Inform = message.kind {
            self.names(message, network, &mut options);
        }
        let kind = match message.kind {
            Kind::Solicit if message.rapid => {
                options.raw(option::RAPID_COMMIT, &[]);
                Kind::Reply
            }
            Kind::Solicit => Kind::Advertise,
            _ => Kind::Reply,
        };
        match message.kind {
            Kind::Solicit | Kind::Request | Kind::Renew | Kind::Rebind => {
                self.associate(message, address6, &mut options);
                if kind == Kind::Reply {
                    self.given(turn, address6);
                }
                given = Some(address);
            }
            Kind::Confirm => {
                let prefix = network.prefix6;
                let all = message.associations.iter().flat_map(|one| &one.addresses);
                let here = all.clone().all(|one| prefix.is_some_and(|prefix| prefix.covers(*one)));
                if all.count() == 0 {
                    return;
                }
                let code = if here { status::SUCCESS } else { status::NOT_ON_LINK };
                options.status(code, "");
            }
            Kind::Decline => {
                let reason = format!(
                    "declines {address6}: somebody else answers there; find the other machine, or fix the plan"
                );
                let why = Ignored::Declined { address: address6.into() };
                self.tell(mac, client, What::DhcpIgnored { reason, why }, handled);
                options.status(status::SUCCESS, "");
            }
            _ => {
                options.status(status::SUCCESS, "");
            }
        }
        if let (Kind::Reply, Boot::HttpsLoader(_), Some(mac)) = (kind, &boot, mac) {
            self.sessions.given_https(mac);
        }
        let file = self.boot(&boot, mac, &mut options);
        handled.reply = Some(encode(kind, message, &self.duid, &options));
        let what = What::DhcpOut { kind: kind.word().into(), address: given, file };
        self.tell(mac, client, what, handled);
    }

    /// A REQUEST goes to all servers and names the one whose offer its client takes.
    fn elsewhere(&self, turn: &Turn<'_>, handled: &mut Handled) {
        let Turn { message, network, mac, client, .. } = *turn;
        let other = message.server.as_ref().filter(|server| **server != self.duid);
        let (Kind::Request, DhcpMode::Serve, Some(server)) = (message.kind, network.mode, other) else {
            return;
        };
        let duid = server.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":");
        let made_of = made_of(server);
        let name = made_of.map(|mac| format!(", of MAC {mac}")).unwrap_or_default();
        let reason = format!(
            "chose the DHCPv6 server with DUID {duid}{name}, which is not ours: a second server answers here"
        );
        let why = Ignored::OtherServer6 { duid, mac: made_of };
        self.tell(mac, client, What::DhcpIgnored { reason, why }, handled);
    }

    /// Who gets an answer is DHCPv4's decision.
    fn decide(&self, turn: &Turn<'_>, planned: Option<&str>) -> Answer {
        let Turn { message, network, mac, client, seen, now } = *turn;
        let stage = match mac {
            Some(mac) if message.kind == Kind::Solicit && *client != Client::Unknown => {
                self.sessions.discover(mac, message.ipxe, message.arch, now)
            }
            Some(mac) => self.sessions.stage(mac),
            None => Default::default(),
        };
        let asking = Asking {
            step: Step::Discover(None),
            role: network.role,
            prefix: network.prefix,
            mode: network.mode,
            pool: None,
            wants_boot: message.wants_boot(),
            ipxe: message.ipxe,
            http: message.is_http(),
            https: self.https
                && message.is_http()
                && mac.is_some_and(|mac| !self.sessions.is_https_failed(mac) && self.director.trusts(mac)),
            arch: message.arch,
            identity: identity(seen.uuid.as_deref(), planned),
            stage,
            loaders: &self.loaders,
        };
        match decide(client, &asking) {
            // Nobody has seen shim and GRUB boot by IPv6: they are offered by IPv4 alone, where they do.
            Answer::Offer(address, Boot::Loader(name))
                if self.loaders.secure.shim.as_ref() == Some(&name) =>
            {
                Answer::Offer(address, Boot::NothingSigned(Chain::Shim))
            }
            answer => answer,
        }
    }

    /// Our name servers by IPv6, where the plan tells this network's clients to ask them, and the domain (RFC 3646): to whom
    /// asks for it.
    fn names(&self, message: &Message, network: &ServedNetwork, options: &mut Options) {
        let at = |dns: &Ipv4Addr| self.told.names.iter().find(|(own, _)| own == dns).map(|(_, six)| *six);
        let servers: Vec<u8> = network.dns.iter().filter_map(at).flat_map(|six| six.octets()).collect();
        if servers.is_empty() {
            return;
        }
        if message.requested.contains(&option::NAME_SERVERS) {
            options.raw(option::NAME_SERVERS, &servers);
        }
        if let Some(domain) = &network.domain
            && message.requested.contains(&option::DOMAINS)
        {
            options.domain(domain);
        }
    }

    /// The address for the first association; any other address is over, any other association gets none.
    fn associate(&self, message: &Message, address: Ipv6Addr, options: &mut Options) {
        for (i, one) in message.associations.iter().enumerate() {
            if i > 0 {
                options.refused(one.id, NO_ADDRESS);
                continue;
            }
            let mut list = vec![(address, self.valid)];
            list.extend(one.addresses.iter().filter(|old| **old != address).map(|old| (*old, 0)));
            options.association(one.id, self.valid, &list);
        }
    }

    /// Who asks TFTP or HTTP from this address is this client.
    fn given(&self, turn: &Turn<'_>, address: Ipv6Addr) {
        let Some(mac) = turn.mac else { return };
        let (host, boot) = host_of(turn.client);
        self.sessions.given(mac, address, &Known { mac: None, host, boot }, turn.now);
    }

    /// The boot file's URL (RFC 5970), where we serve by IPv6.
    fn boot(&self, boot: &Boot, mac: Option<MacAddr>, options: &mut Options) -> Option<String> {
        let at = IpAddr::V6(self.told.boot?);
        let http = SocketAddr::new(at, self.ports.http);
        let url = match boot {
            Boot::Loader(name) => match self.ports.tftp {
                69 => format!("tftp://[{at}]/{name}"),
                port => format!("tftp://[{at}]:{port}/{name}"),
            },
            Boot::HttpLoader(name) | Boot::HttpsLoader(name) => {
                let mut class = INTEL.to_vec();
                class.extend_from_slice(&10u16.to_be_bytes());
                class.extend_from_slice(b"HTTPClient");
                options.raw(option::VENDOR_CLASS, &class);
                match boot {
                    Boot::HttpsLoader(_) => secure_file_url(SocketAddr::new(at, self.ports.https), name),
                    _ => file_url(http, name),
                }
            }
            Boot::Script => script_url(http, mac?),
            Boot::Nothing
            | Boot::NoLoader(_)
            | Boot::NothingSigned(_)
            | Boot::NoWindow
            | Boot::OtherMachine => return None,
        };
        options.raw(option::BOOT_FILE, url.as_bytes());
        Some(url)
    }

    fn tell(&self, mac: Option<MacAddr>, client: &Client, what: What, handled: &mut Handled) {
        let (host, boot) = host_of(client);
        handled.events.push(PxeEvent { mac, host, boot, what });
    }
}

/// Why a message did not come by the relays that it names: any machine can write such layers around one.
fn no_relay(
    networks: &[Arc<Subnet>],
    message: &Message,
    came: Came,
    network: &ServedNetwork,
) -> Option<String> {
    if came.to == ALL_AGENTS {
        return Some(
            "came to the address that clients send to: a relay sends to ours, or to all servers (ff05::1:3)"
                .to_owned(),
        );
    }
    if !relay_speaks_from(networks, network, came.from) {
        return Some(format!(
            "came from {}: somebody poses as the relay, or that is another address of it: add it to `relay_sources` of network {} then",
            came.from, network.name
        ));
    }
    // Each outer relay says whom it got the message from: a relay again, perhaps of a link of its own.
    let mut inside = message.relays.iter().skip(1);
    message.relays.iter().find_map(|layer| {
        let stranger =
            |address: Ipv6Addr| !address.is_unspecified() && !relay_speaks_from(networks, network, address);
        let inner = inside.next();
        let peer = inner.is_some() && !layer.peer.is_unicast_link_local() && stranger(layer.peer);
        (peer || stranger(layer.link)).then(|| {
            let who = if peer { layer.peer } else { layer.link };
            format!("by {who} on its way, which is no relay of the plan")
        })
    })
}

/// Whether relays of this network may speak from an address: see DHCPv4's rule of the same name. The plan's IPv4 addresses
/// of them stand for IPv6 ones on the network that those lie in.
fn relay_speaks_from(networks: &[Arc<Subnet>], network: &ServedNetwork, from: Ipv6Addr) -> bool {
    if network.relay_sources.contains(&IpAddr::V6(from)) {
        return true;
    }
    let mut sources = network.relay_sources.iter().filter_map(|source| match source {
        IpAddr::V4(source) => Some(source),
        IpAddr::V6(_) => None,
    });
    let is = |of: &ServedNetwork, address: &Ipv4Addr| of.prefix6.is_some_and(|p| p.of(*address) == from);
    network.relays.iter().any(|relay| is(network, relay))
        || sources
            .any(|source| networks.iter().any(|of| of.net.prefix.covers(*source) && is(&of.net, source)))
}

/// The UUID that the plan has for it.
fn planned(client: &Client) -> Option<&str> {
    match client {
        Client::Host { uuid, .. } => uuid.as_deref(),
        _ => None,
    }
}

/// Its host, and the boot whose window is open.
fn host_of(client: &Client) -> (Option<HostName>, Option<BootId>) {
    match client {
        Client::Bmc { host, .. } => (Some(host.clone()), None),
        Client::Host { host, window, .. } => (Some(host.clone()), window.as_ref().map(|w| w.boot)),
        Client::Fixed { .. } | Client::Vm { .. } | Client::Unknown => (None, None),
    }
}

/// DUID-UUID (RFC 6355) as text: firmware takes its SMBIOS UUID.
fn uuid(duid: &[u8]) -> Option<String> {
    let [0, 4, u @ ..] = duid else { return None };
    let u: &[u8; 16] = u.try_into().ok()?;
    let hex = |part: &[u8]| part.iter().map(|b| format!("{b:02x}")).collect::<String>();
    Some([&u[..4], &u[4..6], &u[6..8], &u[8..10], &u[10..]].map(hex).join("-"))
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
