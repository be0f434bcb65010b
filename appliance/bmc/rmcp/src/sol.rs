//! Serial over LAN: the host's console through the BMC, as lines.
//!
//! `ipmitool sol activate` wants a terminal, so it gets a pseudo-terminal in raw mode. The reader does not run by itself: what
//! is not asked for waits in the terminal's buffer.

use crate::RmcpError;
use crate::tool::{Ipmi, last_lines};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;

/// Longest line that is kept; what goes beyond is cut off.
const MAX_LINE: usize = 4096;
/// Lines that wait at most; older ones are dropped (the newest matter).
const MAX_LINES: usize = 1024;
const READY: &str = "SOL Session operational";

/// Cuts a byte stream into lines: ends at CR or LF, drops escape sequences, control characters and blank lines.
#[derive(Debug, Default)]
pub struct LineBuffer {
    partial: Vec<u8>,
    lines: VecDeque<String>,
    escape: Escape,
}

#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
enum Escape {
    #[default]
    None,
    Started,
    Sequence,
}

impl LineBuffer {
    /// Takes bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.escape = match (self.escape, byte) {
                (_, 0x1b) => Escape::Started,
                (Escape::Started, b'[') => Escape::Sequence,
                (Escape::Sequence, 0x20..=0x3f) => Escape::Sequence,
                (Escape::Started | Escape::Sequence, _) => Escape::None,
                (Escape::None, b'\r' | b'\n') => {
                    self.end_line();
                    Escape::None
                }
                (Escape::None, byte) => {
                    if byte >= 0x20 && byte != 0x7f && self.partial.len() < MAX_LINE {
                        self.partial.push(byte);
                    }
                    Escape::None
                }
            };
        }
    }

    fn end_line(&mut self) {
        if self.partial.is_empty() {
            return;
        }
        let line = String::from_utf8_lossy(&self.partial).into_owned();
        self.partial.clear();
        if self.lines.len() == MAX_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// The oldest whole line.
    pub fn pop(&mut self) -> Option<String> {
        self.lines.pop_front()
    }
}

/// An open console. Dropping it kills `ipmitool`; the BMC may hold its side until the next `sol deactivate`, which
/// [`Ipmi::open_sol`] sends first.
pub struct SolSession {
    child: Child,
    terminal: AsyncFd<File>,
    buffer: LineBuffer,
}

impl std::fmt::Debug for SolSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SolSession").field("child", &self.child.id()).finish_non_exhaustive()
    }
}

fn spawn_error(context: &'static str) -> impl Fn(nix::Error) -> RmcpError {
    move |e| RmcpError::Spawn { context, source: e.into() }
}

fn io_error(context: &'static str) -> impl Fn(std::io::Error) -> RmcpError {
    move |source| RmcpError::Spawn { context, source }
}

/// A pseudo-terminal in raw mode: the master, not blocking, and the child's end.
fn raw_terminal() -> Result<(File, OwnedFd), RmcpError> {
    let pair = openpty(None, None).map_err(spawn_error("open a pseudo-terminal"))?;
    let mut modes = tcgetattr(&pair.slave).map_err(spawn_error("read the terminal's modes"))?;
    cfmakeraw(&mut modes);
    tcsetattr(&pair.slave, SetArg::TCSANOW, &modes).map_err(spawn_error("set the terminal raw"))?;
    fcntl(&pair.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
        .map_err(spawn_error("set the terminal not blocking"))?;
    fcntl(&pair.master, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))
        .map_err(spawn_error("keep the terminal from children"))?;
    Ok((File::from(pair.master), pair.slave))
}

impl Ipmi {
    /// Opens the console: ends a session that someone left open, then waits until the new one is up.
    pub async fn open_sol(&self) -> Result<SolSession, RmcpError> {
        match self.run(&["sol", "deactivate"]).await {
            // It fails where none is open: that is what we want.
            Ok(_) | Err(RmcpError::Command { .. }) => {}
            Err(other) => return Err(other),
        }
        let (master, slave) = raw_terminal()?;
        let copy = || slave.try_clone().map_err(io_error("copy the terminal"));
        let mut command = self.command();
        command.args(["sol", "activate"]);
        command.stdin(Stdio::from(copy()?)).stdout(Stdio::from(copy()?)).stderr(Stdio::from(copy()?));
        let child = command.spawn().map_err(io_error("start"))?;
        drop(command);
        drop(slave);
        // SAFETY: `File` owns its descriptor and never exchanges it; it is dropped with the `AsyncFd`.
        let terminal = unsafe { AsyncFd::register(master) };
        let terminal = terminal.map_err(|e| io_error("watch the terminal")(e.into()))?;
        let mut session = SolSession { child, terminal, buffer: LineBuffer::default() };
        let opened = tokio::time::timeout(self.limits.call, session.wait_ready()).await;
        let what = "sol activate".to_owned();
        match opened {
            Ok(Ok(())) => Ok(session),
            Ok(Err(said)) if said.contains("Unable to establish") => Err(self.classify(&said)),
            Ok(Err(said)) => Err(RmcpError::SolClosed { reason: last_lines(&said) }),
            Err(_) => Err(RmcpError::Timeout { address: self.address.to_string(), what }),
        }
    }
}

impl SolSession {
    /// Reads until `ipmitool` says that the session is up; else returns what it said.
    async fn wait_ready(&mut self) -> Result<(), String> {
        let mut said = String::new();
        while let Ok(Some(line)) = self.next_line().await {
            if line.contains(READY) {
                return Ok(());
            }
            said.push_str(&line);
            said.push('\n');
        }
        Err(said)
    }

    /// The next line that the host printed; none when the session has ended. Cancel safe.
    ///
    /// # Errors
    /// [`RmcpError::Spawn`] when the terminal fails.
    pub async fn next_line(&mut self) -> Result<Option<String>, RmcpError> {
        loop {
            if let Some(line) = self.buffer.pop() {
                return Ok(Some(line));
            }
            let mut guard = self.terminal.readable().await.map_err(io_error("wait for the terminal"))?;
            let mut bytes = [0; 4096];
            match guard.try_io(|terminal| terminal.get_ref().read(&mut bytes)) {
                Err(_would_block) => {}
                Ok(Ok(0)) => return Ok(None),
                Ok(Ok(n)) => self.buffer.push(&bytes[..n]),
                // The other end was closed: the child has ended.
                Ok(Err(e)) if e.raw_os_error() == Some(nix::libc::EIO) => return Ok(None),
                Ok(Err(e)) => return Err(io_error("read the terminal")(e)),
            }
        }
    }

    /// Writes a line to the host's console, ended by CR, as a keyboard would.
    ///
    /// # Errors
    /// [`RmcpError::BadInput`] for control characters or `~` (ipmitool's escape).
    pub async fn write_line(&mut self, line: &str) -> Result<(), RmcpError> {
        if line.len() > MAX_LINE || !line.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'~') {
            return Err(RmcpError::BadInput {
                what: "console line",
                rule: "printable ASCII without '~', at most 4096 bytes",
            });
        }
        self.write_all(format!("{line}\r").as_bytes()).await
    }

    async fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), RmcpError> {
        while !bytes.is_empty() {
            let mut guard = self.terminal.writable().await.map_err(io_error("wait for the terminal"))?;
            match guard.try_io(|terminal| terminal.get_ref().write(bytes)) {
                Err(_would_block) => {}
                Ok(Ok(n)) => bytes = &bytes[n..],
                Ok(Err(e)) => return Err(io_error("write the terminal")(e)),
            }
        }
        Ok(())
    }

    /// Ends the session by ipmitool's own escape, so that the BMC ends its side too; kills it when that does not help.
    pub async fn close(mut self) {
        let _ = self.write_all(b"\r~.").await;
        if tokio::time::timeout(Duration::from_secs(3), self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let mut buffer = LineBuffer::default();
        chunks.iter().for_each(|c| buffer.push(c));
        std::iter::from_fn(|| buffer.pop()).collect()
    }

    #[test]
    fn lines_are_cut_anywhere_and_cleaned() {
        let cases: [(&[&[u8]], &[&str]); 5] = [
            (&[b"a\r\nb\n\r\nc"], &["a", "b"]),
            (&[b"DAYZERO-V", b"OUCH x", b"\r"], &["DAYZERO-VOUCH x"]),
            (&[b"\x1b[2J\x1b[01;01Hhi\x1b", b"[0m\r"], &["hi"]),
            (&[b"a\x00\x07b\xffc\n"], &["ab\u{fffd}c"]),
            (&[b"\x1b(Bx\n"], &["Bx"]),
        ];
        for (chunks, expected) in cases {
            assert_eq!(lines(chunks), expected, "{chunks:?}");
        }
    }

    #[test]
    fn a_flood_keeps_the_newest_and_a_line_is_bounded() {
        let mut buffer = LineBuffer::default();
        for i in 0..MAX_LINES + 5 {
            buffer.push(format!("{i}\n").as_bytes());
        }
        assert_eq!(buffer.pop().as_deref(), Some("5"));
        assert_eq!(lines(&[&[b'x'; MAX_LINE * 2], b"\n"])[0].len(), MAX_LINE);
    }

    #[tokio::test]
    async fn a_console_reads_and_writes_through_a_terminal() {
        let dir = tempfile::tempdir().unwrap();
        let fake = dir.path().join("ipmitool");
        let script = "#!/bin/sh\nfor last; do :; done\n[ \"$last\" = deactivate ] && exit 1\ntest -t 0 || exit 3\n\
            echo '[SOL Session operational.  Use ~? for help]'\necho DAYZERO-VOUCH 1\n\
            IFS= read -r line </dev/stdin; stty -icrnl 2>/dev/null; printf 'got %s\\r' \"$line\"\n";
        let script = script.replace("IFS= read -r line </dev/stdin", "line=$(dd bs=1 count=12 2>/dev/null)");
        std::fs::write(&fake, script).unwrap();
        std::fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let mut ipmi = Ipmi::new("127.0.0.1:623".parse().unwrap(), crate::Login::new("ADMIN", "x"));
        ipmi.binary = fake.display().to_string();
        let mut session = ipmi.open_sol().await.unwrap();
        assert_eq!(session.next_line().await.unwrap().as_deref(), Some("DAYZERO-VOUCH 1"));
        assert!(matches!(session.write_line("~.").await, Err(RmcpError::BadInput { .. })));
        session.write_line("DAYZERO-CA 2").await.unwrap();
        assert_eq!(session.next_line().await.unwrap().as_deref(), Some("got DAYZERO-CA 2"));
        assert_eq!(session.next_line().await.unwrap(), None);
    }
}
