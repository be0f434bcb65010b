//! DHCP clients behind a relay, as many and as many at once as asked: the load of the DHCP rows.
//!
//! It plays the relay (giaddr is its own address), so that one socket is enough and no answer needs a frame of its own.
//! Each client does DISCOVER, OFFER, REQUEST, ACK once; what is not answered within a second is sent again, whole
//! batches at a time. `sendmmsg` and `recvmmsg`, since a loader that costs more than the server measures itself.

use anyhow::{Context, Result, bail};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt};
use std::collections::{HashSet, VecDeque};
use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Sent again after so long.
const AGAIN: Duration = Duration::from_secs(1);
/// Packets in one call.
const BATCH: usize = 64;
const SIZE: usize = 300;
const COOKIE: [u8; 4] = [99, 130, 83, 99];

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub server: Ipv4Addr,
    /// The relay: an address of the clients' side.
    pub relay: Ipv4Addr,
    /// Number of the first client; no server has seen any of them before.
    pub first: u32,
    pub clients: usize,
    /// Clients that wait for an answer at once.
    pub outstanding: usize,
    /// It ends then, whatever is missing.
    pub patience: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub leases: usize,
    pub seconds: f64,
    pub resent: usize,
    pub naks: usize,
    /// Microseconds from a client's first DISCOVER to its ACK: median, and the worst of a hundred.
    pub p50: f64,
    pub p99: f64,
}

#[derive(Clone, Copy)]
struct Client {
    begun: Option<Instant>,
    sent: Option<Instant>,
    /// The offer: address and server.
    offer: Option<([u8; 4], [u8; 4])>,
    took: Option<Duration>,
}

/// Runs a load.
///
/// # Errors
/// A socket that cannot be opened; an address that two clients were given.
pub fn run(load: &Load) -> Result<Outcome> {
    let socket = UdpSocket::bind((load.relay, 67)).with_context(|| format!("port 67 of {}", load.relay))?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::RcvBufForce, &(32 << 20))?;
    let mut work = Work::new(load, &socket);
    let begin = Instant::now();
    while work.done < load.clients && begin.elapsed() < load.patience {
        work.start();
        work.send()?;
        if !work.receive()? {
            work.wait()?;
        }
        work.again();
    }
    let seconds = begin.elapsed().as_secs_f64();
    let mut times: Vec<f64> =
        work.clients.iter().filter_map(|c| c.took).map(|t| t.as_secs_f64() * 1e6).collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    let (resent, naks) = (work.resent, work.naks);
    Ok(Outcome { leases: work.done, seconds, resent, naks, p50: at(0.5), p99: at(0.99) })
}

struct Work<'a> {
    load: &'a Load,
    socket: &'a UdpSocket,
    clients: Vec<Client>,
    started: usize,
    done: usize,
    resent: usize,
    naks: usize,
    queue: VecDeque<usize>,
    /// In the order they were sent: who may have to be sent again.
    waiting: VecDeque<(usize, Instant)>,
    given: HashSet<[u8; 4]>,
    buffers: Vec<[u8; 1024]>,
}

impl<'a> Work<'a> {
    fn new(load: &'a Load, socket: &'a UdpSocket) -> Self {
        let fresh = Client { begun: None, sent: None, offer: None, took: None };
        Self {
            load,
            socket,
            clients: vec![fresh; load.clients],
            started: 0,
            done: 0,
            resent: 0,
            naks: 0,
            queue: VecDeque::new(),
            waiting: VecDeque::new(),
            given: HashSet::new(),
            buffers: vec![[0; 1024]; BATCH],
        }
    }

    fn start(&mut self) {
        while self.started < self.clients.len() && self.started - self.done < self.load.outstanding {
            self.clients[self.started].begun = Some(Instant::now());
            self.queue.push_back(self.started);
            self.started += 1;
        }
    }

    fn packet(&self, client: usize) -> Vec<u8> {
        let number = self.load.first + client as u32;
        let mut out = vec![0; 236];
        out[..4].copy_from_slice(&[1, 1, 6, 1]);
        out[4..8].copy_from_slice(&number.to_be_bytes());
        out[24..28].copy_from_slice(&self.load.relay.octets());
        out[28..30].copy_from_slice(&[0x02, 0xbe]);
        out[30..34].copy_from_slice(&number.to_be_bytes());
        out.extend_from_slice(&COOKIE);
        match self.clients[client].offer {
            None => out.extend_from_slice(&[53, 1, 1, 55, 3, 1, 3, 51]),
            Some((address, server)) => {
                out.extend_from_slice(&[53, 1, 3, 50, 4]);
                out.extend_from_slice(&address);
                out.extend_from_slice(&[54, 4]);
                out.extend_from_slice(&server);
                out.extend_from_slice(&[55, 3, 1, 3, 51]);
            }
        }
        out.push(255);
        out.resize(SIZE, 0);
        out
    }

    fn send(&mut self) -> Result<()> {
        while !self.queue.is_empty() {
            let batch: Vec<usize> = self.queue.iter().take(BATCH).copied().collect();
            let packets: Vec<Vec<u8>> = batch.iter().map(|client| self.packet(*client)).collect();
            let slices: Vec<[IoSlice<'_>; 1]> = packets.iter().map(|p| [IoSlice::new(p)]).collect();
            let to = SockaddrIn::from(SocketAddrV4::new(self.load.server, 67));
            let addresses = vec![Some(to); batch.len()];
            let mut headers = MultiHeaders::<SockaddrIn>::preallocate(batch.len(), None);
            let flags = MsgFlags::MSG_DONTWAIT;
            let sent = match sendmmsg(self.socket.as_raw_fd(), &mut headers, &slices, &addresses, [], flags) {
                Ok(sent) => sent.count(),
                Err(nix::Error::EAGAIN | nix::Error::ENOBUFS) => return Ok(()),
                Err(error) => return Err(error).context("sending to the server"),
            };
            let now = Instant::now();
            for client in self.queue.drain(..sent) {
                self.clients[client].sent = Some(now);
                self.waiting.push_back((client, now));
            }
        }
        Ok(())
    }

    /// Whether anything came.
    fn receive(&mut self) -> Result<bool> {
        let mut answers = Vec::new();
        {
            let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
            let mut slices: Vec<[IoSliceMut<'_>; 1]> =
                self.buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
            let flags = MsgFlags::MSG_DONTWAIT;
            match recvmmsg(self.socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None) {
                Ok(got) => answers.extend(got.map(|message| message.bytes)),
                Err(nix::Error::EAGAIN) => return Ok(false),
                Err(error) => return Err(error).context("receiving"),
            }
        }
        for (i, length) in answers.into_iter().enumerate() {
            let buffer = self.buffers[i];
            self.answer(&buffer[..length.min(1024)])?;
        }
        Ok(true)
    }

    fn answer(&mut self, packet: &[u8]) -> Result<()> {
        let Some(answer) = Answer::read(packet) else { return Ok(()) };
        let index = answer.xid.wrapping_sub(self.load.first) as usize;
        let Some(client) = self.clients.get_mut(index).filter(|client| client.took.is_none()) else {
            return Ok(());
        };
        match answer.kind {
            2 if client.offer.is_none() => {
                client.offer = Some((answer.address, answer.server));
                self.queue.push_back(index);
            }
            5 if client.offer.is_some() => {
                client.took = client.begun.map(|begun| begun.elapsed());
                self.done += 1;
                if !self.given.insert(answer.address) {
                    bail!("{} was given to two clients", Ipv4Addr::from(answer.address));
                }
            }
            6 => {
                self.naks += 1;
                client.offer = None;
                self.queue.push_back(index);
            }
            _ => {}
        }
        Ok(())
    }

    /// What was sent a second ago and not answered goes out again.
    fn again(&mut self) {
        let now = Instant::now();
        while let Some((client, sent)) = self.waiting.front().copied() {
            if now.duration_since(sent) < AGAIN {
                return;
            }
            self.waiting.pop_front();
            // Answered meanwhile, or sent again since: the later entry counts.
            let state = &self.clients[client];
            if state.took.is_none() && state.sent == Some(sent) {
                self.resent += 1;
                self.queue.push_back(client);
            }
        }
    }

    fn wait(&self) -> Result<()> {
        self.socket.set_nonblocking(false)?;
        self.socket.set_read_timeout(Some(Duration::from_millis(5)))?;
        let peeked = self.socket.peek_from(&mut [0; 1]);
        self.socket.set_nonblocking(true)?;
        match peeked {
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(error).context("waiting for the server")
            }
            _ => Ok(()),
        }
    }
}

struct Answer {
    kind: u8,
    xid: u32,
    address: [u8; 4],
    server: [u8; 4],
}

impl Answer {
    fn read(packet: &[u8]) -> Option<Self> {
        let four = |at: usize| packet.get(at..at + 4)?.try_into().ok();
        if *packet.first()? != 2 || four(236)? != COOKIE {
            return None;
        }
        let (mut rest, mut kind, mut server) = (packet.get(240..)?, None, None);
        while let [code, length, tail @ ..] = rest {
            if *code == 255 {
                break;
            }
            if *code == 0 {
                rest = &rest[1..];
                continue;
            }
            let (value, tail) = tail.split_at_checked(usize::from(*length))?;
            match code {
                53 => kind = value.first().copied(),
                54 => server = value.try_into().ok(),
                _ => {}
            }
            rest = tail;
        }
        let xid = u32::from_be_bytes(four(4)?);
        Some(Self { kind: kind?, xid, address: four(16)?, server: server.unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that gives everybody an address, and forgets every fifth DISCOVER.
    #[test]
    fn every_client_gets_its_lease_once() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let relay = UdpSocket::bind("127.0.0.1:0").unwrap();
        relay.set_nonblocking(true).unwrap();
        let load = Load {
            server: Ipv4Addr::LOCALHOST,
            relay: Ipv4Addr::LOCALHOST,
            first: 7_000,
            clients: 50,
            outstanding: 8,
            patience: Duration::from_secs(5),
        };
        drop(server);
        let mut work = Work::new(&load, &relay);
        work.start();
        assert_eq!((work.started, work.queue.len()), (8, 8));
        for client in 0..8 {
            let discover = work.packet(client);
            assert_eq!((discover.len(), discover[242]), (SIZE, 1));
            let reply = |kind: u8| {
                let mut out = discover.clone();
                out[0] = 2;
                out[16..20].copy_from_slice(&[10, 0, 0, client as u8]);
                out.truncate(240);
                out.extend_from_slice(&[53, 1, kind, 54, 4, 127, 0, 0, 1, 255]);
                out
            };
            work.answer(&reply(5)).unwrap();
            assert_eq!(work.done, client, "an ACK without an offer is none");
            work.answer(&reply(2)).unwrap();
            assert_eq!(work.packet(client)[242], 3);
            work.answer(&reply(5)).unwrap();
            work.answer(&reply(5)).unwrap();
            assert_eq!(work.done, client + 1, "counted once");
        }
        work.start();
        assert_eq!(work.started, 16);
    }

    #[test]
    fn one_address_for_two_is_a_fault() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let localhost = Ipv4Addr::LOCALHOST;
        let patience = Duration::from_secs(1);
        let load =
            Load { server: localhost, relay: localhost, first: 0, clients: 2, outstanding: 2, patience };
        let mut work = Work::new(&load, &socket);
        work.start();
        let mut said = Ok(());
        for client in 0..2 {
            for kind in [2, 5] {
                let mut out = work.packet(client);
                out[0] = 2;
                out[16..20].copy_from_slice(&[10, 0, 0, 1]);
                out.truncate(240);
                out.extend_from_slice(&[53, 1, kind, 54, 4, 127, 0, 0, 1, 255]);
                said = work.answer(&out);
            }
        }
        assert!(said.unwrap_err().to_string().contains("10.0.0.1"));
    }
}
