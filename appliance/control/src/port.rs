//! A character device over which lines are asked and answered: a virtio serial port of a virtual machine.
//!
//! Invariants: an answer belongs to what was asked. A device has no connections, so an answer to somebody who gave up may
//! still come; at each opening a word that nobody used before is sent, and all is skipped until it comes back.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Longest line that is read.
const MAX_LINE: usize = 1 << 20;

/// An open port.
#[derive(Debug)]
pub(crate) struct Port {
    device: AsyncFd<File>,
    read: Vec<u8>,
}

impl Port {
    /// Opens the device and comes into step with the other side, which answers each line by one, and a line that it does
    /// not know by one that repeats it.
    pub(crate) async fn open(path: &Path) -> io::Result<Self> {
        let flags = nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC | nix::libc::O_NOCTTY;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
        // SAFETY: `File` owns its descriptor and never exchanges it; it is dropped with the `AsyncFd`.
        let device = unsafe { AsyncFd::register(file) };
        let mut port = Self { device: device?, read: Vec::new() };
        let word = format!("step-{:016x}", rand::random::<u64>());
        port.write(format!("\n\"{word}\"\n").as_bytes()).await?;
        while !port.line().await?.contains(&word) {}
        Ok(port)
    }

    /// Sends one line; the answer is the next one.
    pub(crate) async fn ask(&mut self, request: &str) -> io::Result<String> {
        self.write(format!("{request}\n").as_bytes()).await?;
        self.line().await
    }

    async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.device.async_io(Interest::WRITABLE, |mut file| file.write(bytes)).await?;
            bytes = bytes.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim().to_owned());
            }
            if self.read.len() > MAX_LINE {
                return Err(io::Error::other("the other side sends no line end"));
            }
            let mut buffer = [0; 4096];
            let count = self.device.async_io(Interest::READABLE, |mut file| file.read(&mut buffer)).await?;
            if count == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::NotConnected,
                    "nobody is at the other end of the port",
                ));
            }
            self.read.extend_from_slice(&buffer[..count]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
    use std::io::{BufRead, BufReader};

    /// A lab behind a pseudo-terminal: it repeats what it does not know. What it was asked, and its end, which must stay
    /// open until the last answer is read.
    fn lab(master: File) -> (Vec<String>, File) {
        let mut out = master.try_clone().unwrap();
        let mut asked = Vec::new();
        // An answer that somebody before did not wait for.
        out.write_all(b"\"done\"\n").unwrap();
        for line in BufReader::new(master).lines() {
            let line = line.unwrap();
            asked.push(line.clone());
            match line.as_str() {
                "end" => {
                    out.write_all(b"ended\n").unwrap();
                    break;
                }
                other => out.write_all(format!("no request: {other}\n").as_bytes()).unwrap(),
            }
        }
        (asked, out)
    }

    #[tokio::test]
    async fn a_late_answer_is_never_taken_for_another() {
        let pair = nix::pty::openpty(None, None).unwrap();
        let mut raw = tcgetattr(&pair.slave).unwrap();
        cfmakeraw(&mut raw);
        tcsetattr(&pair.slave, SetArg::TCSANOW, &raw).unwrap();
        let path = nix::unistd::ttyname(&pair.slave).unwrap();
        let lab = std::thread::spawn(move || lab(pair.master.into()));
        let mut port = Port::open(&path).await.unwrap();
        assert_eq!(port.ask("a").await.unwrap(), "no request: a");
        drop(port);
        let mut port = Port::open(&path).await.unwrap();
        assert_eq!(port.ask("end").await.unwrap(), "ended");
        let (asked, _open) = lab.join().unwrap();
        assert_eq!(asked.iter().filter(|line| line.starts_with("\"step-")).count(), 2);
    }
}
