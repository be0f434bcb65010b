//! One transfer as a state machine without I/O.
//!
//! Purpose: given what arrived and what time it is, say what to send and whether it is over. Invariants:
//! - something is sent only because a block was acknowledged for the first time, or because the interval ran out;
//!   a duplicate acknowledgement sends nothing, so that no storm can start (RFC 1350's "sorcerer's apprentice");
//! - an acknowledgement inside the window (RFC 7440: the client saw a gap) moves the window there;
//! - it ends: without progress it times out, sooner before the first acknowledgement; with progress it is over once the
//!   file would have come whole at the lowest rate (see [`Patience`]);
//! - before the first acknowledgement, its first packets are repeated a few times at most;
//! - block numbers wrap from 65535 to 0, so that a file's size is bounded by nothing but its reader.

use std::time::Instant;

use bytes::Bytes;

use crate::burst::Packet;
use crate::negotiate::Terms;
use crate::packet::{self, Incoming};
use crate::patience::Patience;
use crate::rtt::RoundTrip;

/// What to send now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Send {
    /// The OACK (or the first window, if no option was taken).
    Oack,
    /// Blocks `first..=last`, counted from 1 without wrapping.
    Blocks {
        /// First block.
        first: u64,
        /// Last block.
        last: u64,
    },
}

/// How a transfer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The last block was acknowledged.
    Completed,
    /// The client sent an error.
    Aborted {
        /// It did so on our OACK, before any data: a client that asked for the size, no failure.
        after_oack: bool,
        /// TFTP error code.
        code: u16,
        /// Its text, printable.
        message: String,
    },
    /// The client's port answered "closed".
    PortClosed,
    /// Nothing new was acknowledged for too long.
    TimedOut,
    /// The client goes on, and so slowly that its place is given to others.
    TooSlow,
}

/// What an input led to.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Step {
    /// To be sent.
    pub send: Option<Send>,
    /// The transfer is over.
    pub outcome: Option<Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Negotiating,
    Sending,
}

/// The state of one transfer.
#[derive(Debug)]
pub struct Transfer {
    file: Bytes,
    terms: Terms,
    phase: Phase,
    /// Blocks acknowledged.
    acked: u64,
    /// Last block sent.
    sent: u64,
    /// All blocks; the last one is shorter than `terms.block` (maybe empty).
    blocks: u64,
    /// When the flight that is awaited was sent, if it was sent once only.
    flight: Option<Instant>,
    progress: Instant,
    deadline: Instant,
    trip: RoundTrip,
    patience: Patience,
    /// The client acknowledged something: it is there.
    heard: bool,
    /// When it is over, however well it goes.
    end: Instant,
    resent: u64,
}

impl Transfer {
    /// A transfer and its first packets.
    pub fn start(file: Bytes, terms: Terms, patience: Patience, now: Instant) -> (Self, Step) {
        let blocks = file.len() as u64 / u64::from(terms.block) + 1;
        let trip = RoundTrip::new(terms.timeout);
        let phase = if terms.oack.is_empty() { Phase::Sending } else { Phase::Negotiating };
        let deadline = now + trip.interval();
        let end = now + patience.longest(file.len() as u64);
        let mut transfer = Self {
            file,
            terms,
            phase,
            acked: 0,
            sent: 0,
            blocks,
            flight: Some(now),
            progress: now,
            deadline,
            trip,
            patience,
            heard: false,
            end,
            resent: 0,
        };
        let send = match phase {
            Phase::Negotiating => Send::Oack,
            Phase::Sending => transfer.window(now),
        };
        (transfer, Step { send: Some(send), outcome: None })
    }

    /// A packet from the client.
    pub fn handle(&mut self, incoming: Incoming, now: Instant) -> Step {
        match incoming {
            Incoming::Ack(block) => self.acknowledged(block, now),
            Incoming::Error(code, message) => {
                let after_oack = self.phase == Phase::Negotiating;
                let outcome = Outcome::Aborted { after_oack, code, message };
                Step { send: None, outcome: Some(outcome) }
            }
            Incoming::Other => Step::default(),
        }
    }

    /// The client's port is closed. After our last block that is how a client ends whose last acknowledgement was lost:
    /// one that gives up sends an error, one that was reset does not answer at all.
    pub fn refused(&mut self) -> Step {
        let whole = self.phase == Phase::Sending && self.sent == self.blocks;
        Step { send: None, outcome: Some(if whole { Outcome::Completed } else { Outcome::PortClosed }) }
    }

    /// Time passed; call at `deadline`.
    pub fn tick(&mut self, now: Instant) -> Step {
        if now < self.deadline {
            return Step::default();
        }
        let patience = if self.heard { self.patience.give_up } else { self.patience.first };
        if now.duration_since(self.progress) >= patience {
            return Step { send: None, outcome: Some(Outcome::TimedOut) };
        }
        self.flight = None;
        let last = self.progress + patience;
        if !self.heard && self.resent >= self.most_repeats() {
            self.deadline = last;
            return Step::default();
        }
        self.trip.expired();
        self.deadline = (now + self.trip.interval()).min(last);
        self.resent += 1;
        let send = match self.phase {
            Phase::Negotiating => Send::Oack,
            Phase::Sending => Send::Blocks { first: self.acked + 1, last: self.sent },
        };
        Step { send: Some(send), outcome: None }
    }

    /// Repeats before the first acknowledgement.
    fn most_repeats(&self) -> u64 {
        u64::from(match self.phase {
            Phase::Negotiating => self.patience.oacks,
            Phase::Sending => self.patience.blocks,
        })
    }

    /// When `tick` wants to be called.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Blocks that the client acknowledged.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// Bytes that the client acknowledged.
    pub fn acked_bytes(&self) -> u64 {
        (self.acked * u64::from(self.terms.block)).min(self.file.len() as u64)
    }

    /// How often the interval ran out.
    pub fn resent(&self) -> u64 {
        self.resent
    }

    /// The OACK packet.
    pub fn oack(&self) -> Vec<u8> {
        packet::oack_packet(&self.terms.oack)
    }

    /// Size of a full block, bytes.
    pub fn block(&self) -> u16 {
        self.terms.block
    }

    /// One DATA packet.
    pub(crate) fn packet(&self, block: u64) -> Packet<'_> {
        (packet::data_header((block & 0xffff) as u16), self.data(block))
    }

    /// The DATA packets `first..=last`, each as header and data; `out` is cleared first.
    pub(crate) fn packets<'a>(&'a self, first: u64, last: u64, out: &mut Vec<Packet<'a>>) {
        out.clear();
        out.extend((first..=last).map(|block| self.packet(block)));
    }

    fn data(&self, block: u64) -> &[u8] {
        let size = usize::from(self.terms.block);
        let from = usize::try_from(block - 1).unwrap_or(usize::MAX).saturating_mul(size).min(self.file.len());
        let to = from.saturating_add(size).min(self.file.len());
        &self.file[from..to]
    }

    fn window(&mut self, now: Instant) -> Send {
        let first = self.acked + 1;
        let last = (self.acked + u64::from(self.terms.window)).min(self.blocks);
        // A window that repeats blocks gives no clean round trip.
        self.flight = (first > self.sent).then_some(now);
        self.sent = last;
        self.deadline = now + self.trip.interval();
        Send::Blocks { first, last }
    }

    fn acknowledged(&mut self, block: u16, now: Instant) -> Step {
        let advance = match self.phase {
            Phase::Negotiating if block == 0 => 0,
            Phase::Negotiating => return Step::default(),
            Phase::Sending => {
                let ahead = u64::from(block.wrapping_sub((self.acked & 0xffff) as u16));
                if ahead == 0 || ahead > self.sent - self.acked {
                    return Step::default();
                }
                ahead
            }
        };
        self.phase = Phase::Sending;
        self.heard = true;
        self.acked += advance;
        if let Some(at) = self.flight.take() {
            self.trip.sample(now.duration_since(at));
        }
        self.trip.progressed();
        self.progress = now;
        if self.acked == self.blocks {
            return Step { send: None, outcome: Some(Outcome::Completed) };
        }
        if now >= self.end {
            return Step { send: None, outcome: Some(Outcome::TooSlow) };
        }
        Step { send: Some(self.window(now)), outcome: None }
    }
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
