//! Names of the management and BMC networks: a DNS responder for what the plan says, and for nothing else.
//!
//! `zone` answers without I/O, `serve` has the sockets. Invariants: names come from the plan alone, never from a DHCP client's
//! host name; no recursion, no transfer, no update; an answer is never much larger than its question.

pub(crate) mod serve;
pub(crate) mod zone;
