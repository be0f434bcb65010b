//! Whether a datagram at a listener becomes a transfer; without I/O.
//!
//! Invariants: what cannot be granted costs no socket and no place; a request is answered once at most, and never to an
//! address that is not one machine's; the text of a refusal holds no path of the server.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;

use crate::name;
use crate::negotiate::{Caps, negotiate};
use crate::packet::{self, ErrorCode, ReadRequest, Refusal};
use crate::server::{Lookup, Request};
use crate::table::{Full, Place, Table};

/// Why a datagram starts no transfer.
#[derive(Debug)]
pub(crate) enum Denial {
    /// Not ours to answer.
    Silent,
    /// A limit is reached.
    Busy,
    /// Answered by an error packet.
    Refused(Refusal),
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        Denial::Refused(refusal)
    }
}

/// A request that may be served.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) request: ReadRequest,
    pub(crate) file: Bytes,
    /// The caller knows this client.
    pub(crate) expected: bool,
    pub(crate) place: Place,
}

/// Who asked, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) peer: SocketAddr,
    pub(crate) local: IpAddr,
    pub(crate) iface: &'a Arc<str>,
}

/// Judges a datagram; `name` becomes what it asks for, as far as that can be read.
pub(crate) fn weigh(
    datagram: &[u8],
    source: Source<'_>,
    name: &mut String,
    lookup: impl Fn(&Request) -> Lookup,
    caps: &Caps,
    table: &Arc<Table>,
) -> Result<Granted, Denial> {
    let Source { peer, local, iface } = source;
    if !one_client(peer) {
        return Err(Denial::Silent);
    }
    let Some(request) = packet::parse_request(datagram)? else { return Err(Denial::Silent) };
    request.name.clone_into(name);
    *name = name::canonical(&request.name)?;
    let (file, expected) =
        match lookup(&Request { peer, local, iface: Arc::clone(iface), name: name.clone() }) {
            Lookup::File(file) => (file, false),
            Lookup::Expected(file) => (file, true),
            Lookup::NotFound => return Err(Refusal::new(ErrorCode::NotFound, "no such file").into()),
            Lookup::Denied(why) => return Err(Refusal::new(ErrorCode::AccessViolation, why).into()),
        };
    // Before a socket is made: what cannot be granted costs none.
    negotiate(&request, file.len() as u64, caps)?;
    let place = table.admit(peer, expected).map_err(|full| match full {
        Full::Repeated => Denial::Silent,
        Full::Busy => Denial::Busy,
    })?;
    Ok(Granted { request, file, expected, place })
}

/// Whether an address is one client's: an answer to it reaches one machine.
fn one_client(peer: SocketAddr) -> bool {
    let broadcast = matches!(peer.ip(), IpAddr::V4(address) if address.is_broadcast());
    peer.port() != 0 && !peer.ip().is_unspecified() && !peer.ip().is_multicast() && !broadcast
}
