//! Addresses of packet sockets (packet(7)), which the standard library does not make.

use socket2::SockAddr;

/// The link with this index for frames of this EtherType; with a receiver's MAC, to send to it.
pub(crate) fn address(index: u32, ethertype: u16, to: Option<[u8; 6]>) -> std::io::Result<SockAddr> {
    // SAFETY: sockaddr_ll is smaller than sockaddr_storage, for which all zeros is valid; it is filled in before its
    // length is given.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let address = storage.cast::<libc::sockaddr_ll>();
            (*address).sll_family = libc::AF_PACKET as u16;
            (*address).sll_protocol = ethertype.to_be();
            (*address).sll_ifindex = index as i32;
            if let Some(to) = to {
                (*address).sll_halen = 6;
                (&mut (*address).sll_addr)[..6].copy_from_slice(&to);
            }
            *length = std::mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })?
    };
    Ok(address)
}
