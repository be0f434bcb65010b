//! A TFTP client as firmware has one, and many of them at once: the load of the TFTP rows.
//!
//! It acknowledges as RFC 7440 says: at the end of a window, at a gap once, at a repeated end of a window again. It
//! waits half a second before it repeats itself, twenty times. One client takes one packet a call, as firmware does.

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg};
use std::io::{ErrorKind, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_millis(500);
const TRIES: u32 = 20;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub server: Ipv4Addr,
    pub file: &'a str,
    pub block: u16,
    /// 1: the option is left out.
    pub window: u16,
}

impl Ask<'_> {
    fn request(&self) -> Vec<u8> {
        let mut out = vec![0, 1];
        let (block, window) = (self.block.to_string(), self.window.to_string());
        let mut fields = vec![self.file, "octet", "blksize", &block];
        if self.window > 1 {
            fields.extend(["windowsize", &window]);
        }
        for field in fields {
            out.extend_from_slice(field.as_bytes());
            out.push(0);
        }
        out
    }

    fn address(&self) -> SocketAddr {
        SocketAddrV4::new(self.server, 69).into()
    }
}

/// One transfer's state, without sockets.
struct Download {
    block: usize,
    window: u16,
    /// Last block in order, and the last one that was acknowledged.
    last: u16,
    acked: u16,
    gap_told: bool,
    bytes: u64,
}

enum Next {
    Wait,
    Acknowledge(u16),
    Done(u16),
}

impl Download {
    fn new() -> Self {
        Self { block: 512, window: 1, last: 0, acked: 0, gap_told: false, bytes: 0 }
    }

    fn packet(&mut self, packet: &[u8]) -> Result<Next> {
        ensure!(packet.len() >= 4, "a packet of {} bytes", packet.len());
        let number = u16::from_be_bytes([packet[2], packet[3]]);
        match packet[1] {
            6 => self.agreed(&packet[2..]),
            3 => Ok(self.data(number, packet.len() - 4)),
            _ => bail!("opcode {}: {}", packet[1], String::from_utf8_lossy(&packet[4..])),
        }
    }

    fn agreed(&mut self, options: &[u8]) -> Result<Next> {
        let mut fields = options.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            match &*name {
                "blksize" => self.block = value.parse().context("blksize")?,
                "windowsize" => self.window = value.parse().context("windowsize")?,
                _ => {}
            }
        }
        Ok(Next::Acknowledge(0))
    }

    fn data(&mut self, number: u16, length: usize) -> Next {
        if number != self.last.wrapping_add(1) {
            let ahead = number.wrapping_sub(self.last) < 0x8000 && number != self.last;
            let tell =
                if ahead { !std::mem::replace(&mut self.gap_told, true) } else { number == self.acked };
            return if tell { self.acknowledge() } else { Next::Wait };
        }
        self.last = number;
        self.gap_told = false;
        self.bytes += length as u64;
        if length < self.block {
            return Next::Done(number);
        }
        if number.wrapping_sub(self.acked) >= self.window { self.acknowledge() } else { Next::Wait }
    }

    fn acknowledge(&mut self) -> Next {
        self.acked = self.last;
        Next::Acknowledge(self.last)
    }
}

fn ack(number: u16) -> [u8; 4] {
    let [high, low] = number.to_be_bytes();
    [0, 4, high, low]
}

/// Fetches once, on one blocking socket bound to `source`; the bytes go to `keep`. How many came.
pub fn fetch(ask: &Ask<'_>, source: Ipv4Addr, mut keep: Option<&mut Vec<u8>>) -> Result<u64> {
    let socket = UdpSocket::bind((source, 0)).with_context(|| format!("a client socket on {source}"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let request = ask.request();
    socket.send_to(&request, ask.address())?;
    let (mut download, mut tries, mut connected) = (Download::new(), 0, false);
    let mut buffer = vec![0; 70_000];
    loop {
        let received = if connected {
            socket.recv(&mut buffer)
        } else {
            socket.recv_from(&mut buffer).and_then(|(length, from)| {
                connected = true;
                socket.connect(from).map(|()| length)
            })
        };
        match received {
            Ok(length) => {
                tries = 0;
                let before = download.bytes;
                let next = download.packet(&buffer[..length])?;
                if let (Some(keep), true) = (&mut keep, download.bytes > before) {
                    keep.extend_from_slice(&buffer[4..length]);
                }
                match next {
                    Next::Wait => {}
                    Next::Acknowledge(number) => drop(socket.send(&ack(number))?),
                    Next::Done(number) => {
                        socket.send(&ack(number))?;
                        return Ok(download.bytes);
                    }
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                tries += 1;
                ensure!(tries < TRIES, "{} fell silent after {} bytes", ask.server, download.bytes);
                if connected {
                    socket.send(&ack(download.last))?;
                } else {
                    socket.send_to(&request, ask.address())?;
                }
            }
            Err(error) => return Err(error).context("receiving"),
        }
    }
}

/// What became of many clients.
#[derive(Clone, Copy, Debug, Default)]
pub struct Storm {
    pub bytes: u64,
    pub failed: usize,
    pub repeats: u64,
    pub seconds: f64,
}

/// Packets that one call takes: a thousand machines have a thousand processors, this client has one.
const MANY: usize = 8;

struct Many {
    buffers: Vec<Vec<u8>>,
    headers: MultiHeaders<SockaddrIn>,
}

struct One {
    socket: UdpSocket,
    server: Option<SocketAddr>,
    download: Download,
    due: Instant,
    tries: u32,
    open: bool,
}

/// All of `sources` fetch at once, each from a socket of its own; back when each has its file or gave up.
pub fn storm(ask: &Ask<'_>, sources: &[Ipv4Addr]) -> Result<Storm> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut clients = Vec::new();
    let begin = Instant::now();
    for (i, source) in sources.iter().enumerate() {
        let socket = UdpSocket::bind((*source, 0)).with_context(|| format!("a client socket on {source}"))?;
        socket.set_nonblocking(true)?;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, i as u64))?;
        clients.push(One {
            socket,
            server: None,
            download: Download::new(),
            due: begin,
            tries: 0,
            open: true,
        });
    }
    let request = ask.request();
    let (mut result, mut left) = (Storm::default(), clients.len());
    let mut many =
        Many { buffers: vec![vec![0; 2048]; MANY], headers: MultiHeaders::preallocate(MANY, None) };
    let mut events = vec![EpollEvent::empty(); 256];
    let begin = Instant::now();
    for client in &mut clients {
        client.send(ask, &request)?;
    }
    let mut sweep = Instant::now();
    while left > 0 {
        let ready = epoll.wait(&mut events, EpollTimeout::from(50u16))?;
        for event in &events[..ready] {
            let client = &mut clients[usize::try_from(event.data())?];
            if !client.open {
                continue;
            }
            match client.receive(&mut many) {
                Ok(false) => {}
                Ok(true) => {
                    left -= 1;
                    client.open = false;
                    result.bytes += client.download.bytes;
                }
                Err(_) => {
                    left -= 1;
                    client.open = false;
                    result.failed += 1;
                }
            }
        }
        let now = Instant::now();
        if now.duration_since(sweep) < Duration::from_millis(50) {
            continue;
        }
        sweep = now;
        for client in clients.iter_mut().filter(|client| client.open && client.due <= now) {
            client.tries += 1;
            result.repeats += 1;
            if client.tries >= TRIES {
                client.open = false;
                left -= 1;
                result.failed += 1;
            } else {
                client.send(ask, &request)?;
            }
        }
    }
    result.seconds = begin.elapsed().as_secs_f64();
    Ok(result)
}

impl One {
    /// The request, or the last acknowledgement again.
    fn send(&mut self, ask: &Ask<'_>, request: &[u8]) -> Result<()> {
        self.due = Instant::now() + PATIENCE;
        let sent = match self.server {
            None => self.socket.send_to(request, ask.address()),
            Some(server) => self.socket.send_to(&ack(self.download.last), server),
        };
        match sent {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => {
                Ok(())
            }
            Err(error) => Err(error).context("sending"),
        }
    }

    /// Takes what is there, many packets a call; true once the file is whole.
    fn receive(&mut self, many: &mut Many) -> Result<bool> {
        loop {
            let mut parts: Vec<[IoSliceMut<'_>; 1]> =
                many.buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
            let got = match recvmmsg(
                self.socket.as_raw_fd(),
                &mut many.headers,
                parts.iter_mut(),
                MsgFlags::MSG_DONTWAIT,
                None,
            ) {
                Ok(got) => got.map(|one| (one.bytes, one.address)).collect::<Vec<_>>(),
                Err(Errno::EAGAIN) => return Ok(false),
                Err(error) => return Err(error).context("receiving"),
            };
            let full = got.len() == MANY;
            for (buffer, (length, from)) in many.buffers.iter().zip(got) {
                let Some(from) = from.map(|from| SocketAddr::V4(SocketAddrV4::new(from.ip(), from.port())))
                else {
                    continue;
                };
                if *self.server.get_or_insert(from) != from {
                    continue;
                }
                self.tries = 0;
                self.due = Instant::now() + PATIENCE;
                match self.download.packet(&buffer[..length])? {
                    Next::Wait => {}
                    Next::Acknowledge(number) => drop(self.socket.send_to(&ack(number), from)),
                    Next::Done(number) => {
                        let _ = self.socket.send_to(&ack(number), from);
                        return Ok(true);
                    }
                }
            }
            if !full {
                return Ok(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(download: &mut Download, number: u16, length: usize) -> Option<u16> {
        match download.data(number, length) {
            Next::Wait => None,
            Next::Acknowledge(number) | Next::Done(number) => Some(number),
        }
    }

    #[test]
    fn windows_gaps_and_repeats_are_acknowledged_as_the_standard_says() {
        let mut download = Download::new();
        assert!(matches!(
            download.packet(b"\0\x06blksize\x00100\0windowsize\x003\0"),
            Ok(Next::Acknowledge(0))
        ));
        let steps = [
            (1, None),
            (2, None),
            (3, Some(3)),
            (4, None),
            (6, Some(4)),
            (7, None),
            (5, None),
            (6, None),
            (7, Some(7)),
            (6, None),
            (7, Some(7)),
            (8, None),
        ];
        for (number, answer) in steps {
            assert_eq!(data(&mut download, number, 100), answer, "block {number}");
        }
        assert!(matches!(download.data(9, 99), Next::Done(9)));
        assert_eq!(download.bytes, 899);
    }
}
