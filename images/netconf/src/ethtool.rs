//! A NIC's speed by the ethtool ioctl (linux/ethtool.h, ETHTOOL_GSET and ETHTOOL_SSET), for drivers that report none:
//! without a speed bonding gives the port LACP key 0 and sends no LACPDU.

use crate::error::NetError;
use std::os::fd::{AsRawFd, OwnedFd};

const SIOCETHTOOL: u64 = 0x8946;
const ETHTOOL_GSET: u32 = 1;
const ETHTOOL_SSET: u32 = 2;
const DUPLEX_FULL: u8 = 1;

/// `struct ethtool_cmd`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct EthtoolCmd {
    cmd: u32,
    supported: u32,
    advertising: u32,
    speed: u16,
    duplex: u8,
    port: u8,
    phy_address: u8,
    transceiver: u8,
    autoneg: u8,
    mdio_support: u8,
    max_tx_packets: u32,
    max_rx_packets: u32,
    speed_high: u16,
    eth_tp_mdix: u8,
    eth_tp_mdix_ctrl: u8,
    link_partner_advertising: u32,
    reserved: [u32; 2],
}

/// A socket to ask through.
pub(crate) struct Ethtool(OwnedFd);

impl Ethtool {
    /// Opens the socket.
    pub(crate) fn open() -> Result<Self, NetError> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None);
        Ok(Self(socket.map_err(|e| NetError::io("opening a socket for ethtool", e))?.into()))
    }

    fn call(&self, name: &str, command: &mut EthtoolCmd) -> std::io::Result<()> {
        // SAFETY: ifreq is plain data, for which all zeros is valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.is_empty() || name.len() >= request.ifr_name.len() {
            return Err(std::io::Error::from_raw_os_error(libc::EINVAL));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_data = std::ptr::from_mut(command).cast();
        // SAFETY: the descriptor is open; the request and the command that it points to live over the call, and the
        // command has the size and layout that the kernel expects for GSET and SSET.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), SIOCETHTOOL as _, &mut request) };
        if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Speed in Mbit/s; none where the driver tells none.
    pub(crate) fn speed(&self, name: &str) -> Option<u32> {
        let mut command = EthtoolCmd { cmd: ETHTOOL_GSET, ..EthtoolCmd::default() };
        self.call(name, &mut command).ok()?;
        let speed = u32::from(command.speed_high) << 16 | u32::from(command.speed);
        (speed != 0 && speed != u32::MAX && speed != 0xffff).then_some(speed)
    }

    /// Sets a speed below 65,535 Mbit/s, full duplex, without negotiation.
    pub(crate) fn set_speed(&self, name: &str, mbit: u16) -> Result<(), NetError> {
        let failed = |e| NetError::io(format!("setting the speed of {name} to {mbit} Mbit/s"), e);
        let mut command = EthtoolCmd { cmd: ETHTOOL_GSET, ..EthtoolCmd::default() };
        self.call(name, &mut command).map_err(failed)?;
        command.cmd = ETHTOOL_SSET;
        command.speed = mbit;
        command.speed_high = 0;
        command.duplex = DUPLEX_FULL;
        self.call(name, &mut command).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_has_the_kernels_size() {
        assert_eq!(std::mem::size_of::<EthtoolCmd>(), 44);
    }

    #[test]
    fn loopback_has_no_speed_and_a_bad_name_no_answer() {
        let ethtool = Ethtool::open().unwrap();
        assert_eq!(ethtool.speed("lo"), None);
        assert_eq!(ethtool.speed("a-name-that-is-too-long"), None);
        assert!(ethtool.set_speed("no-such-nic", 1000).is_err());
    }
}
