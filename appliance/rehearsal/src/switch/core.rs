//! A switch, or a stack of switches that forwards as one: VLANs, learning, LLDP, LACP with fallback.
//!
//! Invariants: a frame never leaves by the port or the LAG that it came in by; while a LAG aggregates, exactly one
//! of its legs carries each frame and its silent legs carry nothing; a port without carrier or of a dead member
//! neither takes nor gives; reserved group addresses are never forwarded. Pure: frames and `now` in, frames out.
//! It has no spanning tree: the lab's cables have no loop but LAGs.

use super::frame::{ETH_SLOW, Head, Vlan, add_tag, strip_tag};
use super::lacp::Lacp;
use super::lldp;
use super::table::{Table, Via};
use dayzero_model::MacAddr;
use std::time::{Duration, Instant};

/// Time between LLDP frames.
pub const LLDP_PERIOD: Duration = Duration::from_secs(2);

/// A port of one switch or stack, in the order of [`Switch::add_port`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u16);

/// Which VLANs a port carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One VLAN, untagged; tagged frames are refused.
    Access(Vlan),
    /// One VLAN untagged, others tagged.
    Trunk {
        /// The untagged one.
        native: Vlan,
        /// The tagged ones.
        tagged: Vec<Vlan>,
    },
}

impl Mode {
    /// The VLAN of an arriving frame with this tag; none = refused. Tag 0 is a priority tag.
    fn classify(&self, tag: Option<Vlan>) -> Option<Vlan> {
        match (self, tag) {
            (Self::Access(vlan), None | Some(0)) => Some(*vlan),
            (Self::Access(_), Some(_)) => None,
            (Self::Trunk { native, .. }, None | Some(0)) => Some(*native),
            (Self::Trunk { tagged, .. }, Some(vlan)) => tagged.contains(&vlan).then_some(vlan),
        }
    }

    /// Whether a frame of `vlan` leaves tagged (`Some(true)`), untagged, or not at all.
    fn leaves_tagged(&self, vlan: Vlan) -> Option<bool> {
        match self {
            Self::Access(own) => (*own == vlan).then_some(false),
            Self::Trunk { native, .. } if *native == vlan => Some(false),
            Self::Trunk { tagged, .. } => tagged.contains(&vlan).then_some(true),
        }
    }
}

/// A LAG: ports with the same id, on one member or several.
pub type LagId = u16;

/// A port as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// Stack member that it is on; none = attached to the stack itself, alive while the daemon is.
    pub member: Option<usize>,
    /// Port id that LLDP announces.
    pub name: String,
    /// VLANs.
    pub mode: Mode,
    /// LAG that it may join by LACP.
    pub lag: Option<LagId>,
}

/// What a port does with data frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing: no carrier, dead member, a silent leg of an aggregating LAG, or of one without fallback.
    Closed,
    /// It forwards by itself: no LAG, or fallback.
    Alone,
    /// A leg of a LAG that aggregates.
    Leg(LagId),
}

#[derive(Debug)]
struct Member {
    name: String,
    alive: bool,
}

#[derive(Debug)]
struct Port {
    config: PortConfig,
    address: MacAddr,
    carrier: bool,
    forwarding: bool,
    lacp: Option<Lacp>,
    role: Role,
}

/// Frames out: called for each with its port.
pub type Out<'a> = dyn FnMut(PortId, &[u8]) + 'a;

/// One switch or stack.
#[derive(Debug)]
pub struct Switch {
    id: u8,
    members: Vec<Member>,
    ports: Vec<Port>,
    lags: Vec<LagId>,
    /// LAGs whose ports do not forward alone, as on a switch where nobody switched LACP fallback on.
    strict: Vec<LagId>,
    table: Table,
    next_lldp: Option<Instant>,
    scratch: Vec<u8>,
}

impl Switch {
    /// A switch with these members by LLDP name. `id` tells the lab's switches apart in MAC addresses and in the
    /// LACP system id.
    pub fn new(id: u8, members: &[&str]) -> Self {
        let members = members.iter().map(|name| Member { name: (*name).to_owned(), alive: true }).collect();
        Self {
            id,
            members,
            ports: Vec::new(),
            lags: Vec::new(),
            strict: Vec::new(),
            table: Table::default(),
            next_lldp: None,
            scratch: Vec::new(),
        }
    }

    /// The LACP system id: one for all members.
    pub fn system(&self) -> [u8; 6] {
        [0x02, 0xda, self.id, 0, 0, 0]
    }

    /// Adds a port, with carrier down.
    pub fn add_port(&mut self, config: PortConfig) -> PortId {
        let number = self.ports.len() as u16;
        let [high, low] = (number + 1).to_be_bytes();
        let address = MacAddr([0x02, 0xda, self.id, 1, high, low]);
        let lacp = config.lag.map(|lag| Lacp::new(address, self.system(), lag + 1, number + 1));
        if let Some(lag) = config.lag
            && !self.lags.contains(&lag)
        {
            self.lags.push(lag);
        }
        self.ports.push(Port { config, address, carrier: false, forwarding: true, lacp, role: Role::Closed });
        PortId(number)
    }

    /// Index of a member by name.
    pub fn member(&self, name: &str) -> Option<usize> {
        self.members.iter().position(|member| member.name == name)
    }

    /// A port by member name and port name.
    pub fn port(&self, member: &str, name: &str) -> Option<PortId> {
        let member = self.member(member)?;
        let at = self
            .ports
            .iter()
            .position(|port| port.config.member == Some(member) && port.config.name == name)?;
        Some(PortId(at as u16))
    }

    /// Configuration of a port.
    pub fn config(&self, port: PortId) -> Option<&PortConfig> {
        self.ports.get(usize::from(port.0)).map(|port| &port.config)
    }

    /// What a port does now.
    pub fn role(&self, port: PortId) -> Role {
        self.ports.get(usize::from(port.0)).map_or(Role::Closed, |port| port.role)
    }

    /// LACP of a port, if it may be in a LAG.
    pub fn lacp(&self, port: PortId) -> Option<&Lacp> {
        self.ports.get(usize::from(port.0))?.lacp.as_ref()
    }

    /// Whether a member forwards.
    pub fn is_alive(&self, member: usize) -> bool {
        self.members.get(member).is_some_and(|member| member.alive)
    }

    /// Kills or revives a member: it stops forwarding, LLDP and LACP while its ports keep their carrier.
    pub fn set_alive(&mut self, member: usize, alive: bool) {
        let Some(found) = self.members.get_mut(member) else { return };
        if std::mem::replace(&mut found.alive, alive) == alive {
            return;
        }
        self.next_lldp = None;
        for index in 0..self.ports.len() {
            if self.ports[index].config.member == Some(member) {
                self.reset_port(index);
            }
        }
        self.assign_roles();
    }

    /// The link of a port comes or goes.
    pub fn set_carrier(&mut self, port: PortId, up: bool) {
        let index = usize::from(port.0);
        let Some(found) = self.ports.get_mut(index) else { return };
        if std::mem::replace(&mut found.carrier, up) == up {
            return;
        }
        self.next_lldp = None;
        self.reset_port(index);
        self.assign_roles();
    }

    /// Whether a port forwards; while it does not, it is as of a dead switch: its carrier stays.
    pub fn set_forwarding(&mut self, port: PortId, forwarding: bool) {
        let index = usize::from(port.0);
        let Some(found) = self.ports.get_mut(index) else { return };
        if std::mem::replace(&mut found.forwarding, forwarding) == forwarding {
            return;
        }
        self.next_lldp = None;
        self.reset_port(index);
        self.assign_roles();
    }

    /// Whether the ports of a LAG forward alone as long as nobody speaks LACP on it; they do, unless told otherwise.
    pub fn set_fallback(&mut self, lag: LagId, on: bool) {
        self.strict.retain(|strict| *strict != lag);
        if !on {
            self.strict.push(lag);
        }
        self.assign_roles();
    }

    fn reset_port(&mut self, index: usize) {
        if let Some(lacp) = &mut self.ports[index].lacp {
            lacp.forget();
        }
        self.table.flush(Via::Port(PortId(index as u16)));
    }

    fn usable(&self, index: usize) -> bool {
        let port = &self.ports[index];
        port.carrier && port.forwarding && port.config.member.is_none_or(|member| self.is_alive(member))
    }

    /// Recomputes every port's role; forgets addresses whose way has changed its meaning.
    fn assign_roles(&mut self) {
        for index in 0..self.ports.len() {
            let role = self.role_of(index);
            let before = std::mem::replace(&mut self.ports[index].role, role);
            if before == Role::Alone && role != before {
                self.table.flush(Via::Port(PortId(index as u16)));
            }
        }
        for lag in self.lags.clone() {
            if !self.ports.iter().any(|port| port.role == Role::Leg(lag)) {
                self.table.flush(Via::Lag(lag));
            }
        }
    }

    fn role_of(&self, index: usize) -> Role {
        if !self.usable(index) {
            return Role::Closed;
        }
        let Some(lag) = self.ports[index].config.lag else { return Role::Alone };
        let partner_of = |at: usize| {
            self.ports[at].lacp.as_ref().and_then(Lacp::partner).map(|side| (side.system, side.key))
        };
        let legs =
            (0..self.ports.len()).filter(|at| self.ports[*at].config.lag == Some(lag) && self.usable(*at));
        // The LAG aggregates what its first leg with a partner is connected to.
        match legs.filter_map(partner_of).next() {
            None if self.strict.contains(&lag) => Role::Closed,
            None => Role::Alone,
            chosen => {
                let bundled = self.ports[index].lacp.as_ref().is_some_and(Lacp::is_bundled);
                if bundled && partner_of(index) == chosen { Role::Leg(lag) } else { Role::Closed }
            }
        }
    }

    /// One frame arrives at a port.
    pub fn frame_in(&mut self, port: PortId, frame: &[u8], now: Instant, out: &mut Out<'_>) {
        let index = usize::from(port.0);
        if index >= self.ports.len() || !self.usable(index) {
            return;
        }
        let Some(head) = Head::read(frame) else { return };
        if head.to_reserved() {
            if head.ethertype == ETH_SLOW {
                self.pdu_in(index, frame, now, out);
            }
            return;
        }
        let from = match self.ports[index].role {
            Role::Closed => return,
            Role::Alone => Via::Port(port),
            Role::Leg(lag) => Via::Lag(lag),
        };
        let Some(vlan) = self.ports[index].config.mode.classify(head.tag) else { return };
        if head.from.0[0] & 1 == 0 {
            self.table.learn(vlan, head.from, from, now);
        }
        // A priority tag carries no VLAN: without it there are only two shapes of a frame.
        let mut plain = Vec::new();
        let frame = if head.tag == Some(0) {
            strip_tag(frame, &mut plain);
            &plain
        } else {
            frame
        };
        let tagged_in = head.tag.is_some_and(|tag| tag != 0);
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut sender = Sender { frame, tagged_in, vlan, scratch: &mut scratch, scratch_is: None };
        let known = if head.to_group() { None } else { self.table.look_up(vlan, head.to, now) };
        match known {
            Some(way) if way == from => {}
            Some(way) => self.send_by(way, &head, &mut sender, out),
            None => {
                for index in 0..self.ports.len() {
                    let way = Via::Port(PortId(index as u16));
                    if self.ports[index].role == Role::Alone && way != from {
                        self.send_by(way, &head, &mut sender, out);
                    }
                }
                for lag in &self.lags {
                    if Via::Lag(*lag) != from {
                        self.send_by(Via::Lag(*lag), &head, &mut sender, out);
                    }
                }
            }
        }
        self.scratch = scratch;
    }

    fn send_by(&self, way: Via, head: &Head, sender: &mut Sender<'_>, out: &mut Out<'_>) {
        let index = match way {
            Via::Port(port) => (self.role(port) == Role::Alone).then_some(usize::from(port.0)),
            Via::Lag(lag) => self.leg_for(lag, head),
        };
        let Some(index) = index else { return };
        if let Some(tagged) = self.ports[index].config.mode.leaves_tagged(sender.vlan) {
            out(PortId(index as u16), sender.shaped(tagged));
        }
    }

    /// The one leg that carries frames between these two addresses.
    fn leg_for(&self, lag: LagId, head: &Head) -> Option<usize> {
        let legs = || (0..self.ports.len()).filter(|at| self.ports[*at].role == Role::Leg(lag));
        let count = legs().count();
        let hash = usize::from(head.to.0[5] ^ head.from.0[5]);
        legs().nth(hash.checked_rem(count)?)
    }

    fn pdu_in(&mut self, index: usize, frame: &[u8], now: Instant, out: &mut Out<'_>) {
        let Some(lacp) = &mut self.ports[index].lacp else { return };
        if lacp.pdu_in(frame, now) {
            if let (Some(pdu), _) = lacp.tick(now) {
                out(PortId(index as u16), &pdu);
            }
            self.assign_roles();
        }
    }

    /// Lets time pass: LACP, LLDP, ageing. Call it at least every 250 ms.
    pub fn tick(&mut self, now: Instant, out: &mut Out<'_>) {
        let announce = self.next_lldp.is_none_or(|next| now >= next);
        let mut changed = false;
        for index in 0..self.ports.len() {
            if !self.usable(index) {
                continue;
            }
            let port = &mut self.ports[index];
            if let Some(lacp) = &mut port.lacp {
                let (pdu, expired) = lacp.tick(now);
                changed |= expired;
                if let Some(pdu) = pdu {
                    out(PortId(index as u16), &pdu);
                }
            }
            if announce && let Some(member) = port.config.member.and_then(|at| self.members.get(at)) {
                out(PortId(index as u16), &lldp::frame(port.address, &member.name, &port.config.name));
            }
        }
        if announce {
            self.next_lldp = Some(now + LLDP_PERIOD);
            self.table.age(now);
        }
        if changed {
            self.assign_roles();
        }
    }
}

/// A frame on its way out, tagged or untagged as each port wants it; the other form is made at most once.
struct Sender<'a> {
    frame: &'a [u8],
    tagged_in: bool,
    vlan: Vlan,
    scratch: &'a mut Vec<u8>,
    scratch_is: Option<bool>,
}

impl Sender<'_> {
    fn shaped(&mut self, tagged: bool) -> &[u8] {
        if tagged == self.tagged_in {
            return self.frame;
        }
        if self.scratch_is != Some(tagged) {
            if tagged {
                add_tag(self.frame, self.vlan, self.scratch);
            } else {
                strip_tag(self.frame, self.scratch);
            }
            self.scratch_is = Some(tagged);
        }
        self.scratch
    }
}
