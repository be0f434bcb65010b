//! Sends the packets of one window with as few system calls as the kernel allows.
//!
//! Purpose: one `sendmsg` with UDP segmentation (Linux `UDP_SEGMENT`) for many packets of one size; packet by packet
//! where the kernel or the device refuses. Invariant: a send that the kernel has no room for counts as lost on the
//! wire, since retransmission covers it; only "port closed" is told to the caller.

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Most segments of one call (the kernel's limit was 64 before 6.9).
const MAX_SEGMENTS: usize = 64;
/// Most bytes of one call.
const MAX_BYTES: usize = 65_000;

/// Sends on a connected socket; remembers whether segmentation works there.
#[derive(Debug)]
pub(crate) struct Burst {
    segmentation: bool,
}

impl Burst {
    pub(crate) fn new() -> Self {
        Self { segmentation: true }
    }

    /// Sends `packets`, which are of length `each` but for the last one.
    ///
    /// # Errors
    /// `ConnectionRefused` if the client's port is closed.
    pub(crate) async fn send(&mut self, socket: &UdpSocket, packets: &[u8], each: usize) -> io::Result<()> {
        let per_call = (MAX_BYTES / each.max(1)).clamp(1, MAX_SEGMENTS);
        let mut rest = packets;
        while !rest.is_empty() {
            let many = self.segmentation && rest.len() > each && per_call > 1;
            let take = if many { rest.len().min(per_call * each) } else { rest.len().min(each) };
            let (now, later) = rest.split_at(take);
            let result = if many && take > each {
                segmented(socket, now, each).await
            } else {
                socket.send(now).await.map(drop)
            };
            match result {
                Ok(()) => rest = later,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Err(error),
                Err(_) if many => self.segmentation = false,
                Err(_) => rest = later,
            }
        }
        Ok(())
    }
}

async fn segmented(socket: &UdpSocket, packets: &[u8], each: usize) -> io::Result<()> {
    let size = u16::try_from(each).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    socket
        .async_io(Interest::WRITABLE, || {
            let parts = [IoSlice::new(packets)];
            let control = [ControlMessage::UdpGsoSegments(&size)];
            sendmsg::<()>(socket.as_raw_fd(), &parts, &control, MsgFlags::MSG_DONTWAIT, None)?;
            Ok(())
        })
        .await
}
