//! One question in, one answer out (RFC 1035, 2308, 6891).
//!
//! Invariants: what is not ours is REFUSED, what is ours and unknown is NXDOMAIN with our SOA; `wpad` and `isatap`, by
//! which hosts find proxies and tunnels of strangers, are never answered, whatever the plan says.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::config::{Ipv4Prefix, Ipv6Prefix, NameZone};

/// Seconds that an answer may be kept.
const TTL: u32 = 60;
/// Largest datagram that we say we take.
const PAYLOAD: u16 = 1232;
/// Longest question that is looked at.
pub(crate) const MAX_QUESTION: usize = 512;
/// Names that must not be found here.
const FORBIDDEN: [&str; 2] = ["wpad", "isatap"];

/// The names of a site.
#[derive(Debug)]
pub(crate) struct Zone {
    origin: Name,
    /// Who answers: `ns.<origin>`.
    server: Name,
    forward: HashMap<Name, Vec<IpAddr>>,
    reverse: HashMap<IpAddr, Name>,
    /// Reverse zones, with their highest name.
    prefixes: Vec<(Ipv4Prefix, Name)>,
    prefixes6: Vec<(Ipv6Prefix, Name)>,
}

/// The zone as the plan of now has it; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct LiveZone(Arc<RwLock<Arc<Zone>>>);

impl LiveZone {
    pub(crate) fn new(zone: Zone) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(zone))))
    }

    pub(crate) fn now(&self) -> Arc<Zone> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Each question from now on is answered by this one.
    pub(crate) fn replace(&self, zone: Zone) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(zone);
    }
}

/// What there is under a name.
enum Found {
    /// Not ours.
    Foreign,
    /// Ours, and there is nothing of that name in this zone.
    Nothing(Name),
    /// Ours; these records, perhaps none of the type asked for.
    Records(Vec<RData>, Name),
}

impl Zone {
    /// Whether a site's domain is a domain name, so that it has a zone.
    pub(crate) fn is_domain(domain: &str) -> bool {
        Self::new(&NameZone { domain: domain.to_owned(), ..NameZone::default() }).is_some()
    }

    /// The zone; none where the site's domain is no domain name. Names that cannot be labels are left out.
    pub(crate) fn new(names: &NameZone) -> Option<Self> {
        let mut origin = Name::from_ascii(&names.domain).ok()?.to_lowercase();
        origin.set_fqdn(true);
        let mut zone = Self {
            server: origin.prepend_label("ns").ok()?,
            origin,
            forward: HashMap::new(),
            reverse: HashMap::new(),
            prefixes: names.prefixes.iter().filter_map(|prefix| Some((*prefix, arpa(*prefix)?))).collect(),
            prefixes6: names.prefixes6.iter().filter_map(|prefix| Some((*prefix, arpa6(*prefix)?))).collect(),
        };
        for (name, addresses) in &names.names {
            if FORBIDDEN.contains(&name.as_str()) {
                continue;
            }
            let Ok(full) = zone.origin.prepend_label(name.as_str()) else { continue };
            for address in addresses {
                zone.reverse.entry(*address).or_insert_with(|| full.clone());
                zone.forward.entry(full.clone()).or_default().push(*address);
            }
        }
        Some(zone)
    }

    /// The answer to a datagram by the server that has these addresses; none: it is no question.
    pub(crate) fn answer(&self, question: &[u8], server: &[IpAddr]) -> Option<Vec<u8>> {
        // A header that says "answer" is never answered: two responders would go on for ever.
        if question.len() < 12 || question[2] & 0x80 != 0 {
            return None;
        }
        let id = u16::from_be_bytes([question[0], question[1]]);
        let Some(asked) =
            (question.len() <= MAX_QUESTION).then(|| Message::from_vec(question).ok()).flatten()
        else {
            return Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok();
        };
        if asked.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut reply = Message::response(id, asked.metadata.op_code);
        reply.metadata.recursion_desired = asked.metadata.recursion_desired;
        if asked.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(PAYLOAD).set_version(0);
            reply.set_edns(edns);
        }
        let [query] = asked.queries.as_slice() else {
            reply.metadata.response_code = ResponseCode::FormErr;
            return reply.to_vec().ok();
        };
        reply.add_query(query.clone());
        if asked.metadata.op_code != OpCode::Query {
            reply.metadata.response_code = ResponseCode::NotImp;
        } else if asked.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            reply.metadata.response_code = ResponseCode::BADVERS;
        } else {
            self.fill(&mut reply, query, server);
        }
        reply.to_vec().ok()
    }

    fn fill(&self, reply: &mut Message, query: &Query, server: &[IpAddr]) {
        let transfer = matches!(query.query_type, RecordType::AXFR | RecordType::IXFR);
        let name = query.name.to_lowercase();
        let found = if transfer || query.query_class != DNSClass::IN {
            Found::Foreign
        } else {
            self.find(&name, query.query_type, server)
        };
        let (records, apex) = match found {
            Found::Foreign => {
                reply.metadata.response_code = ResponseCode::Refused;
                return;
            }
            Found::Nothing(apex) => {
                reply.metadata.response_code = ResponseCode::NXDomain;
                (Vec::new(), apex)
            }
            Found::Records(records, apex) => (records, apex),
        };
        reply.metadata.authoritative = true;
        // ANY gets one record set, which RFC 8482 allows: the first.
        let first = records.first().map(RData::record_type);
        let wanted = if query.query_type == RecordType::ANY { first } else { Some(query.query_type) };
        let fits = |record: &RData| Some(record.record_type()) == wanted;
        for record in records.into_iter().filter(fits) {
            reply.add_answer(Record::from_rdata(query.name.clone(), TTL, record));
        }
        if reply.answers.is_empty() {
            reply.add_authority(Record::from_rdata(apex, TTL, self.soa()));
        }
    }

    fn soa(&self) -> RData {
        let mail = self.origin.prepend_label("hostmaster").unwrap_or_else(|_| self.origin.clone());
        RData::SOA(SOA::new(self.server.clone(), mail, 1, 3600, 600, 86400, TTL))
    }

    fn find(&self, name: &Name, kind: RecordType, server: &[IpAddr]) -> Found {
        if self.origin.zone_of(name) {
            let apex = self.origin.clone();
            if *name == self.origin {
                return Found::Records(
                    vec![self.soa(), RData::NS(hickory_proto::rr::rdata::NS(self.server.clone()))],
                    apex,
                );
            }
            if *name == self.server {
                return Found::Records(server.iter().map(|one| data(*one)).collect(), apex);
            }
            return match self.forward.get(name) {
                None => Found::Nothing(apex),
                Some(addresses) => Found::Records(addresses.iter().map(|one| data(*one)).collect(), apex),
            };
        }
        let Ok(net) = name.parse_arpa_name() else { return Found::Foreign };
        let whole = net.prefix_len() == net.max_prefix_len();
        let apex = match net.addr() {
            IpAddr::V4(address) => {
                self.prefixes.iter().find(|(p, _)| p.covers(address)).map(|(_, apex)| apex)
            }
            IpAddr::V6(address) => {
                self.prefixes6.iter().find(|(p, _)| p.covers(address)).map(|(_, apex)| apex)
            }
        };
        let Some(apex) = apex.cloned().filter(|apex| apex.zone_of(name)) else { return Found::Foreign };
        if *name == apex {
            return Found::Records(vec![self.soa()], apex);
        }
        match self.reverse.get(&net.addr()).filter(|_| whole) {
            Some(host) => Found::Records(vec![RData::PTR(PTR(host.clone()))], apex),
            None if whole || kind == RecordType::ANY => Found::Nothing(apex),
            // Names between the zone and its addresses exist, and have no records.
            None => Found::Records(Vec::new(), apex),
        }
    }

    /// Names that are answered.
    pub(crate) fn len(&self) -> usize {
        self.forward.keys().collect::<HashSet<_>>().len()
    }
}

fn data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// The reverse zone of a prefix: of its whole octets.
fn arpa(prefix: Ipv4Prefix) -> Option<Name> {
    let octets = prefix.address.octets();
    let labels = octets.iter().take(usize::from(prefix.len / 8)).rev().map(u8::to_string);
    zone_name(labels, "in-addr")
}

fn arpa6(prefix: Ipv6Prefix) -> Option<Name> {
    let digits: Vec<String> =
        prefix.address.octets().iter().flat_map(|b| [b >> 4, b & 15]).map(|d| format!("{d:x}")).collect();
    zone_name(digits.into_iter().take(usize::from(prefix.len / 4)).rev(), "ip6")
}

fn zone_name(labels: impl Iterator<Item = String>, root: &str) -> Option<Name> {
    let text: String = labels.map(|label| label + ".").collect();
    Name::from_ascii(format!("{text}{root}.arpa.")).ok()
}

#[cfg(test)]
#[path = "zone_tests.rs"]
mod tests;
