//! Keeps the processors from sleeping between the packets of a few transfers.
//!
//! Without a window each packet waits for the acknowledgement of the one before, so that a processor that sleeps
//! meanwhile, and must be woken, is most of the round trip: about 20 us under a hypervisor, more than 100 us from the deep
//! states of a server. Linux's PM QoS (`/dev/cpu_dma_latency`, Documentation/power/pm_qos_interface.rst) keeps them
//! from it as long as the file is open. Invariants: it is held only while packets come; a client that dawdles costs
//! [`LONGEST`] of wakefulness in each [`LONGEST`] + [`REST`]; where the machine has no such file, or we are not allowed
//! it, transfers are as they were, only slower.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// Where the kernel takes the request: a 32-bit number of microseconds, for as long as the file is open.
const DEVICE: &str = "/dev/cpu_dma_latency";
/// Nothing came for so long: the transfer is over, or its client slow.
pub(crate) const QUIET: Duration = Duration::from_millis(20);
/// Held in one piece; many times what a loader takes.
const LONGEST: Duration = Duration::from_secs(10);
/// And then not, for so long.
const REST: Duration = Duration::from_secs(10);

/// A thread's request to the kernel.
#[derive(Debug, Default)]
pub(crate) struct Awake {
    held: Option<(File, Instant)>,
    /// Not before this.
    rests: Option<Instant>,
}

impl Awake {
    /// Packets come: the processors stay awake.
    pub(crate) fn hold(&mut self, now: Instant) {
        self.hold_by(Path::new(DEVICE), now);
    }

    fn hold_by(&mut self, device: &Path, now: Instant) {
        if let Some((_, since)) = &self.held {
            if now.saturating_duration_since(*since) >= LONGEST {
                self.held = None;
                self.rests = Some(now + REST);
            }
            return;
        }
        if self.rests.is_some_and(|until| now < until) {
            return;
        }
        let opened = OpenOptions::new().write(true).open(device).and_then(|mut file| {
            file.write_all(&0_i32.to_ne_bytes())?;
            Ok(file)
        });
        match opened {
            Ok(file) => self.held = Some((file, now)),
            Err(error) => {
                tracing::debug!(%error, device = %device.display(), "processors may sleep during TFTP transfers");
                self.rests = Some(now + REST);
            }
        }
    }

    /// Nothing comes: they may sleep.
    pub(crate) fn release(&mut self) {
        self.held = None;
    }

    /// Whether they are kept awake.
    pub(crate) fn held(&self) -> bool {
        self.held.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_held_no_longer_than_told_and_rests_as_long() {
        let device = tempfile::NamedTempFile::new().unwrap();
        let (mut awake, begin) = (Awake::default(), Instant::now());
        awake.hold_by(device.path(), begin);
        assert!(awake.held());
        assert_eq!(std::fs::read(device.path()).unwrap(), [0; 4]);
        awake.hold_by(device.path(), begin + LONGEST - Duration::from_millis(1));
        assert!(awake.held());
        awake.hold_by(device.path(), begin + LONGEST);
        assert!(!awake.held(), "a client that dawdles");
        awake.hold_by(device.path(), begin + LONGEST + REST - Duration::from_millis(1));
        assert!(!awake.held());
        awake.hold_by(device.path(), begin + LONGEST + REST);
        assert!(awake.held());
        awake.release();
        assert!(!awake.held());
        awake.hold_by(device.path(), begin + LONGEST + REST);
        assert!(awake.held(), "the next transfer");
    }

    #[test]
    fn a_machine_without_the_device_is_asked_seldom() {
        let dir = tempfile::tempdir().unwrap();
        let (mut awake, begin, device) = (Awake::default(), Instant::now(), dir.path().join("none"));
        awake.hold_by(&device, begin);
        assert!(!awake.held());
        std::fs::write(&device, "").unwrap();
        awake.hold_by(&device, begin + Duration::from_secs(1));
        assert!(!awake.held(), "it is asked again after the rest");
        awake.hold_by(&device, begin + REST);
        assert!(awake.held());
    }
}
