//! TAP devices: a namespace's end of a switch port. One frame a read, one a write, no packet information header.
//!
//! The only place of the rehearsal with an ioctl. A tap lives as long as its descriptor.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

nix::ioctl_write_int!(tun_set_iff, b'T', 202);

/// Makes the tap `name` in the calling thread's network namespace; non-blocking.
///
/// # Errors
/// `InvalidInput` for a name of more than 15 bytes; what the kernel says (`/dev/net/tun` missing, name taken).
pub fn create(name: &str) -> io::Result<OwnedFd> {
    if name.is_empty() || name.len() >= nix::libc::IFNAMSIZ {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("interface name '{name}': 1 to 15 bytes"),
        ));
    }
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    let mut request = nix::libc::ifreq {
        ifr_name: [0; nix::libc::IFNAMSIZ],
        ifr_ifru: nix::libc::__c_anonymous_ifr_ifru {
            ifru_flags: (nix::libc::IFF_TAP | nix::libc::IFF_NO_PI) as i16,
        },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as nix::libc::c_char;
    }
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives in this frame for the whole call.
    unsafe { tun_set_iff(file.as_raw_fd(), &raw mut request as nix::libc::c_ulong) }?;
    Ok(file.into())
}
