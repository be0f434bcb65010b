//! Ctrl-C, SIGTERM and a closed terminal, at any moment of a demo: what it made is taken down, whatever it was doing.

use super::leftovers;
use anyhow::Result;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::fs::File;
use std::io::Read;
use std::os::fd::IntoRawFd;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

/// As a shell shows the end by Ctrl-C.
const EXIT_CODE: i32 = 130;

/// Where the handler writes. A handler, and not a blocked signal, since every child would inherit the block.
static PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn heard(signal: libc::c_int) {
    let byte = [signal as u8];
    // SAFETY: write is async-signal-safe, the byte outlives the call; a closed pipe gives an error that changes nothing.
    let _nobody_to_tell = unsafe { libc::write(PIPE.load(Ordering::Relaxed), byte.as_ptr().cast(), 1) };
}

/// Watches for the signals on a thread of its own.
pub struct Interrupts {
    waiting: Arc<Mutex<Option<Sender<()>>>>,
}

impl Interrupts {
    /// From now on a signal ends the demo, taken down.
    pub fn watch() -> Result<Self> {
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        PIPE.store(write.into_raw_fd(), Ordering::Relaxed);
        let action = SigAction::new(SigHandler::Handler(heard), SaFlags::SA_RESTART, SigSet::empty());
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            // SAFETY: the handler makes one async-signal-safe call.
            unsafe { sigaction(signal, &action)? };
        }
        let waiting: Arc<Mutex<Option<Sender<()>>>> = Arc::default();
        let asked = Arc::clone(&waiting);
        std::thread::Builder::new().name("interrupts".into()).spawn(move || {
            let mut pipe = File::from(read);
            let mut byte = [0];
            while pipe.read_exact(&mut byte).is_ok() {
                let waiter = asked.lock().unwrap_or_else(PoisonError::into_inner).take();
                if waiter.is_none_or(|waiter| waiter.send(()).is_err()) {
                    take_down(byte[0]);
                }
            }
        })?;
        Ok(Self { waiting })
    }

    /// Waits for a signal, which then ends nothing by itself.
    pub fn wait(&self) -> Result<()> {
        let (sender, receiver) = channel();
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        Ok(receiver.recv()?)
    }
}

/// Whatever the other threads do: nothing can be started any more, and what runs is ended.
fn take_down(signal: u8) -> ! {
    // What is printed from here on has nobody to record it.
    crate::secrets::give_back();
    crate::packages::give_back();
    let name = Signal::try_from(i32::from(signal)).map_or("signal", Signal::as_str);
    println!("\n{name}: taking down what runs");
    match leftovers::clear_for_good() {
        Ok(cleared) => {
            println!("ended: {}", if cleared.is_empty() { "nothing ran".into() } else { cleared.join(", ") })
        }
        Err(error) => eprintln!("xtask: {error:#}; the next run, or `cargo xtask demo --stop`, tries again"),
    }
    std::process::exit(EXIT_CODE)
}
