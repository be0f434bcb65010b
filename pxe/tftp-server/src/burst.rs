//! Sends the packets of one window with as few system calls and copies as the kernel allows.
//!
//! Purpose: one `sendmsg` with UDP segmentation (Linux `UDP_SEGMENT`) for many packets of one size, gathered from the
//! file where it lies in memory; packet by packet where the kernel or the device refuses. Invariant: a send that the
//! kernel has no room for counts as lost on the wire, since retransmission covers it; only "port closed" is told.

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, send, sendmsg};

use crate::packet::DATA_HEADER;

/// Most segments of one call (the kernel's limit was 64 before 6.9).
const MAX_SEGMENTS: usize = 64;
/// A lone packet up to this is copied: cheaper than to gather it.
const SMALL: usize = 1536;
/// Most bytes of one call.
const MAX_BYTES: usize = 65_000;

/// One DATA packet: its header, and its data where they lie.
pub(crate) type Packet<'a> = ([u8; DATA_HEADER], &'a [u8]);

/// Sends on a connected socket; remembers whether segmentation works there.
#[derive(Debug)]
pub(crate) struct Burst {
    segmentation: bool,
}

impl Burst {
    pub(crate) fn new() -> Self {
        Self { segmentation: true }
    }

    /// Sends `packets`; all but the last carry `each` bytes of data.
    ///
    /// # Errors
    /// `ConnectionRefused` if the client's port is closed.
    pub(crate) fn send(
        &mut self,
        socket: &impl AsRawFd,
        packets: &[Packet<'_>],
        each: usize,
    ) -> io::Result<()> {
        let size = each + DATA_HEADER;
        let per_call = (MAX_BYTES / size).clamp(1, MAX_SEGMENTS);
        let mut rest = packets;
        while !rest.is_empty() {
            let take = if self.segmentation { rest.len().min(per_call) } else { 1 };
            let (now, later) = rest.split_at(take);
            match gathered(socket, now, size) {
                Ok(()) => rest = later,
                Err(Errno::ECONNREFUSED) => return Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
                Err(Errno::EAGAIN | Errno::ENOBUFS) => rest = later,
                Err(_) if take > 1 => self.segmentation = false,
                Err(_) => rest = later,
            }
        }
        Ok(())
    }
}

fn gathered(socket: &impl AsRawFd, packets: &[Packet<'_>], size: usize) -> Result<(), Errno> {
    let (fd, flags) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
    if let [(header, data)] = packets {
        let mut small = [0; SMALL];
        let length = DATA_HEADER + data.len();
        if let Some(packet) = small.get_mut(..length) {
            packet[..DATA_HEADER].copy_from_slice(header);
            packet[DATA_HEADER..].copy_from_slice(data);
            return send(fd, packet, flags).map(drop);
        }
        let parts = [IoSlice::new(header), IoSlice::new(data)];
        return sendmsg::<()>(fd, &parts, &[], flags, None).map(drop);
    }
    let parts: Vec<IoSlice<'_>> =
        packets.iter().flat_map(|(header, data)| [IoSlice::new(header), IoSlice::new(data)]).collect();
    let size = u16::try_from(size).map_err(|_| Errno::EINVAL)?;
    sendmsg::<()>(fd, &parts, &[ControlMessage::UdpGsoSegments(&size)], flags, None).map(drop)
}
