//! What this process prints, kept beside being printed: standard output and error go through a pipe of ours, or through a
//! pseudo-terminal where a terminal is expected, so that live progress stays as it is.

use anyhow::{Context, Result};
use nix::libc;
use nix::pty::openpty;
use nix::sys::signal::SigSet;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{dup, dup2_stderr, dup2_stdout, pipe};
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Where both go to without us, while a recorder has them; -1 = there is none.
static BEFORE: [AtomicI32; 2] = [const { AtomicI32::new(-1) }; 2];

/// Gives both back at once, whoever records: for one who is about to end this process. What is on its way is carried on.
pub fn give_back() {
    let _ = std::io::stdout().lock().flush();
    for (number, before) in BEFORE.iter().enumerate() {
        let before = before.swap(-1, Ordering::SeqCst);
        if before >= 0 {
            // SAFETY: both numbers are open descriptors: the recorder closes its own only after it took them back here.
            let _still_recorded = unsafe { libc::dup2(before, number as libc::c_int + 1) };
        }
    }
}

/// Bytes that are kept.
const MOST: usize = 64 << 20;

/// Records until [`Recorder::end`], or until it is dropped.
pub struct Recorder {
    /// Open until both were given back.
    _before: [OwnedFd; 2],
    kept: Arc<Mutex<Vec<u8>>>,
    copying: Vec<JoinHandle<()>>,
    ended: bool,
}

impl Recorder {
    /// # Errors
    /// No pipe can be made.
    pub fn begin() -> Result<Self> {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (out, err) = (std::io::stdout(), std::io::stderr());
        let _ = out.lock().flush();
        let before = [dup(&out).context("standard output")?, dup(&err).context("standard error")?];
        let (out_end, out_copy) = through(out.is_terminal(), &before[0], &kept)?;
        let (err_end, err_copy) = through(err.is_terminal(), &before[1], &kept)?;
        for (kept, before) in BEFORE.iter().zip(&before) {
            kept.store(before.as_raw_fd(), Ordering::SeqCst);
        }
        dup2_stdout(out_end.as_fd()).context("standard output")?;
        dup2_stderr(err_end.as_fd()).context("standard error")?;
        Ok(Self { _before: before, kept, copying: vec![out_copy, err_copy], ended: false })
    }

    /// Gives both back; all that was printed meanwhile.
    pub fn end(mut self) -> Vec<u8> {
        self.restore();
        std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn restore(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        give_back();
        // The last of the writing ends is closed with these; a child that still has one must not hold us up.
        let until = Instant::now() + Duration::from_secs(5);
        for copy in self.copying.drain(..) {
            while !copy.is_finished() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            if copy.is_finished() {
                let _ = copy.join();
            }
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.restore();
    }
}

/// The end to write to, and the thread that carries what is written to `to` and keeps it.
fn through(terminal: bool, to: &OwnedFd, kept: &Arc<Mutex<Vec<u8>>>) -> Result<(OwnedFd, JoinHandle<()>)> {
    let (from, end) = if terminal {
        let pty = openpty(None, None).context("making a pseudo-terminal")?;
        let mut mode = tcgetattr(&pty.slave).context("the pseudo-terminal's mode")?;
        cfmakeraw(&mut mode);
        tcsetattr(&pty.slave, SetArg::TCSANOW, &mode).context("the pseudo-terminal's mode")?;
        (pty.master, pty.slave)
    } else {
        pipe().context("making a pipe")?
    };
    let (mut from, mut to, kept) = (File::from(from), File::from(dup(to)?), kept.clone());
    let copy = std::thread::spawn(move || {
        // Ctrl-C is the main thread's.
        let _ = SigSet::all().thread_block();
        let mut piece = [0; 8192];
        // A pseudo-terminal ends with an error once nobody has its other end.
        while let Ok(count @ 1..) = from.read(&mut piece) {
            let _ = to.write_all(&piece[..count]);
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() < MOST {
                kept.extend_from_slice(&piece[..count]);
            }
        }
    });
    Ok((end, copy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_through_is_kept_and_carried_on() {
        for terminal in [false, true] {
            let kept = Arc::new(Mutex::new(Vec::new()));
            let (reader, writer) = pipe().unwrap();
            let (end, copy) = through(terminal, &writer, &kept).unwrap();
            drop(writer);
            let mut end = File::from(end);
            assert_eq!(end.is_terminal(), terminal);
            end.write_all(b"one line\n").unwrap();
            drop(end);
            copy.join().unwrap();
            let mut carried = String::new();
            File::from(reader).read_to_string(&mut carried).unwrap();
            assert_eq!(carried, "one line\n", "terminal: {terminal}");
            assert_eq!(kept.lock().unwrap().as_slice(), b"one line\n");
        }
    }
}
