//! HTTP load: keep-alive connections that ask again and again, and let the kernel discard what comes (`MSG_TRUNC`), so
//! that the server is what is loaded. One thread.

use anyhow::{Context, Result, bail, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub server: Ipv4Addr,
    pub path: &'a str,
    /// Ranges of so many bytes of a file of so many, at random places; none: the whole file.
    pub range: Option<(u64, u64)>,
}

/// What came within the measured time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    pub bytes: u64,
    pub answers: u64,
    pub seconds: f64,
}

struct Connection {
    stream: TcpStream,
    head: Vec<u8>,
    left: u64,
    random: u64,
}

/// Most bytes of an answer's head.
const HEAD: usize = 4096;

impl Connection {
    fn ask(&mut self, ask: &Ask<'_>) -> Result<()> {
        let range = ask.range.map_or_else(String::new, |(length, size)| {
            self.random =
                self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let first = (self.random >> 24) % (size / length) * length;
            format!("Range: bytes={first}-{}\r\n", first + length - 1)
        });
        let text = format!("GET /{} HTTP/1.1\r\nHost: {}:8080\r\n{range}\r\n", ask.path, ask.server);
        self.head.clear();
        self.stream.write_all(text.as_bytes()).context("asking")
    }

    /// Takes what is there. Bytes of bodies and whole answers that came.
    fn receive(&mut self, ask: &Ask<'_>, sink: &mut [u8]) -> Result<(u64, u64)> {
        let (mut bytes, mut answers) = (0, 0);
        loop {
            if self.left == 0 {
                // Only the head, byte-exact: what follows is discarded in the kernel.
                let mut peeked = [0; HEAD];
                let seen = match self.stream.peek(&mut peeked) {
                    Ok(0) => bail!("the server closed the connection"),
                    Ok(seen) => seen,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok((bytes, answers)),
                    Err(error) => return Err(error).context("receiving"),
                };
                let Some(end) = peeked[..seen].windows(4).position(|four| four == b"\r\n\r\n") else {
                    ensure!(seen < HEAD, "a head of more than {HEAD} bytes");
                    return Ok((bytes, answers));
                };
                self.head.resize(end + 4, 0);
                self.stream.read_exact(&mut self.head)?;
                self.left = length(&self.head, ask.range.is_some())?;
            }
            let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(sink.len());
            let flags = nix::sys::socket::MsgFlags::MSG_TRUNC | nix::sys::socket::MsgFlags::MSG_DONTWAIT;
            match nix::sys::socket::recv(self.stream.as_raw_fd(), &mut sink[..want], flags) {
                Ok(0) => bail!("the server closed the connection in an answer"),
                Ok(got) => {
                    self.left -= got as u64;
                    bytes += got as u64;
                    if self.left == 0 {
                        answers += 1;
                        self.ask(ask)?;
                    }
                }
                Err(nix::errno::Errno::EAGAIN) => return Ok((bytes, answers)),
                Err(error) => return Err(error).context("receiving"),
            }
        }
    }
}

fn length(head: &[u8], partial: bool) -> Result<u64> {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let status = if partial { "http/1.1 206" } else { "http/1.1 200" };
    ensure!(text.starts_with(status), "the server answered: {text}");
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    length.with_context(|| format!("no length in: {text}"))
}

/// Loads the server from all of `sources` at once: `warm` is not counted, then `measured` is; `mark` is called at the
/// beginning and the end of the measured time.
pub fn load(
    ask: &Ask<'_>,
    sources: &[Ipv4Addr],
    (warm, measured): (Duration, Duration),
    mut mark: impl FnMut() -> Result<()>,
) -> Result<Load> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut connections = Vec::new();
    for (i, source) in sources.iter().enumerate() {
        let stream = connect(*source, ask.server)?;
        epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, i as u64))?;
        let mut connection = Connection { stream, head: Vec::new(), left: 0, random: i as u64 + 1 };
        connection.ask(ask)?;
        connections.push(connection);
    }
    let mut sink = vec![0; 4 << 20];
    let mut events = vec![EpollEvent::empty(); 256];
    let (mut total, mut since): (Load, Option<Instant>) = (Load::default(), None);
    let begin = Instant::now();
    loop {
        match since {
            None if begin.elapsed() >= warm => {
                mark()?;
                since = Some(Instant::now());
                total = Load::default();
            }
            Some(at) if at.elapsed() >= measured => {
                total.seconds = at.elapsed().as_secs_f64();
                mark()?;
                return Ok(total);
            }
            _ => {}
        }
        let ready = epoll.wait(&mut events, EpollTimeout::from(1000u16))?;
        ensure!(ready > 0, "nothing came for a second");
        for event in &events[..ready] {
            let connection = &mut connections[usize::try_from(event.data())?];
            let (bytes, answers) = connection.receive(ask, &mut sink)?;
            total.bytes += bytes;
            total.answers += answers;
        }
    }
}

/// A non-blocking connection from one address to the server's boot port.
fn connect(source: Ipv4Addr, server: Ipv4Addr) -> Result<TcpStream> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(source, 0))).context("binding")?;
    connect(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(server, 8080))).context("connecting")?;
    let stream = TcpStream::from(fd);
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
