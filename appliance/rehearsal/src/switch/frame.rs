//! Ethernet frames as a switch sees them: addresses, the 802.1Q tag, and adding or taking that tag.
//!
//! Invariants: nothing is read past the frame's end; frames shorter than a header are refused. It checks no FCS
//! (virtual links carry none).

use dayzero_model::MacAddr;

/// Length of destination, source and EtherType.
pub const HEADER: usize = 14;
/// Longest frame carried: jumbo payload, header and tag.
pub const MAX_FRAME: usize = 9216 + HEADER + 4;
/// EtherType of an 802.1Q tag.
pub const ETH_VLAN: u16 = 0x8100;
/// EtherType of slow protocols (LACP).
pub const ETH_SLOW: u16 = 0x8809;
/// EtherType of LLDP.
pub const ETH_LLDP: u16 = 0x88cc;

/// A VLAN id, 1 to 4094.
pub type Vlan = u16;

/// What the switch needs of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Destination.
    pub to: MacAddr,
    /// Source.
    pub from: MacAddr,
    /// VLAN id of an outer 802.1Q tag; 0 = priority tag.
    pub tag: Option<Vlan>,
    /// EtherType after the tag.
    pub ethertype: u16,
}

fn mac_at(frame: &[u8], at: usize) -> Option<MacAddr> {
    Some(MacAddr(frame.get(at..at + 6)?.try_into().ok()?))
}

fn u16_at(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?))
}

impl Head {
    /// Reads a frame's head; none if the frame is too short or too long.
    pub fn read(frame: &[u8]) -> Option<Self> {
        if frame.len() > MAX_FRAME {
            return None;
        }
        let (to, from) = (mac_at(frame, 0)?, mac_at(frame, 6)?);
        match u16_at(frame, 12)? {
            ETH_VLAN => {
                let tag = u16_at(frame, 14)? & 0x0fff;
                Some(Self { to, from, tag: Some(tag), ethertype: u16_at(frame, 16)? })
            }
            ethertype => Some(Self { to, from, tag: None, ethertype }),
        }
    }

    /// Whether the destination is broadcast or multicast.
    pub fn to_group(&self) -> bool {
        self.to.0[0] & 1 == 1
    }

    /// Whether the destination is one of the addresses that no bridge forwards (IEEE 802.1Q table 8-1).
    pub fn to_reserved(&self) -> bool {
        self.to.0[..5] == [0x01, 0x80, 0xc2, 0, 0] && self.to.0[5] <= 0x0f
    }
}

/// The frame with a tag of `vlan` put in; `out` is overwritten.
pub fn add_tag(frame: &[u8], vlan: Vlan, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&frame[..12]);
    out.extend_from_slice(&ETH_VLAN.to_be_bytes());
    out.extend_from_slice(&vlan.to_be_bytes());
    out.extend_from_slice(&frame[12..]);
}

/// The tagged frame without its tag; `out` is overwritten.
pub fn strip_tag(frame: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&frame[..12]);
    out.extend_from_slice(&frame[16..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_in_and_out_gives_the_same_frame() {
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, 1, 0x08, 0x06, 1, 2, 3]);
        let (mut tagged, mut back) = (Vec::new(), Vec::new());
        add_tag(&frame, 100, &mut tagged);
        let head = Head::read(&tagged).unwrap();
        assert_eq!((head.tag, head.ethertype, head.to_group()), (Some(100), 0x0806, true));
        strip_tag(&tagged, &mut back);
        assert_eq!(back, frame);
        for cut in 0..HEADER {
            assert_eq!(Head::read(&frame[..cut]), None);
        }
        for cut in HEADER..18 {
            assert_eq!(Head::read(&tagged[..cut]), None);
        }
    }
}
