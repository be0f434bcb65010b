//! A machine's serial console, kept across power cycles: a broadcast of its bytes, the last 64 KiB, and a writer.
//!
//! Invariants: a slow reader loses old bytes, never stalls the machine; a byte written while the machine is off is
//! refused. It interprets nothing.

use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{broadcast, mpsc};

const KEEP: usize = 64 * 1024;

/// Bytes could not be written to a console.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the serial console takes no input: the machine is off")]
pub struct ConsoleOff;

/// The console of one machine. Clones share it.
#[derive(Clone, Debug)]
pub struct Serial {
    output: broadcast::Sender<Bytes>,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    recent: VecDeque<u8>,
    input: Option<mpsc::Sender<Bytes>>,
}

impl Default for Serial {
    fn default() -> Self {
        Self { output: broadcast::channel(1024).0, shared: Arc::default() }
    }
}

impl Serial {
    /// Output from now on, over all power cycles to come. A receiver that falls behind sees `Lagged` and goes on.
    pub fn subscribe(&self) -> broadcast::Receiver<Bytes> {
        self.output.subscribe()
    }

    /// The last bytes of output, at most 64 KiB, and the output from exactly there on.
    pub fn tail(&self) -> (Vec<u8>, broadcast::Receiver<Bytes>) {
        match self.shared.lock() {
            Ok(shared) => (shared.recent.iter().copied().collect(), self.output.subscribe()),
            Err(_) => (Vec::new(), self.output.subscribe()),
        }
    }

    /// Sends input to the machine; waits while its queue is full.
    pub async fn write(&self, input: impl Into<Bytes>) -> Result<(), ConsoleOff> {
        let sender = self.shared.lock().ok().and_then(|shared| shared.input.clone()).ok_or(ConsoleOff)?;
        sender.send(input.into()).await.map_err(|_| ConsoleOff)
    }

    fn put(&self, chunk: Bytes) {
        if let Ok(mut shared) = self.shared.lock() {
            shared.recent.extend(&chunk);
            let excess = shared.recent.len().saturating_sub(KEEP);
            shared.recent.drain(..excess);
            let _nobody_listens = self.output.send(chunk);
        }
    }

    /// Carries one power cycle's stream until it closes.
    pub(crate) async fn carry(self, stream: UnixStream) {
        let (mut read, mut write) = stream.into_split();
        let (input, mut pending) = mpsc::channel::<Bytes>(64);
        if let Ok(mut shared) = self.shared.lock() {
            shared.input = Some(input);
        }
        let out = async {
            let mut buffer = vec![0; 8192];
            loop {
                match read.read(&mut buffer).await {
                    Ok(count) if count > 0 => self.put(Bytes::copy_from_slice(&buffer[..count])),
                    _ => break,
                }
            }
        };
        let inward = async {
            while let Some(bytes) = pending.recv().await {
                if write.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! { () = out => {}, () = inward => {} }
        if let Ok(mut shared) = self.shared.lock() {
            shared.input = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_ways_across_power_cycles() {
        let serial = Serial::default();
        assert_eq!(serial.write(&b"x"[..]).await, Err(ConsoleOff));
        let mut seen = serial.subscribe();
        for round in [&b"first"[..], b"second"] {
            let (ours, mut machine) = UnixStream::pair().unwrap();
            let carried = tokio::spawn(serial.clone().carry(ours));
            machine.write_all(round).await.unwrap();
            assert_eq!(seen.recv().await.unwrap(), round);
            serial.write(&b"key"[..]).await.unwrap();
            let mut key = [0; 3];
            machine.read_exact(&mut key).await.unwrap();
            assert_eq!(&key, b"key");
            drop(machine);
            carried.await.unwrap();
        }
        assert_eq!(serial.tail().0, b"firstsecond");
        assert_eq!(serial.write(&b"x"[..]).await, Err(ConsoleOff));
    }
}
