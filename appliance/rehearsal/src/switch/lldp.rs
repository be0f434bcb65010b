//! The LLDP frame that a switch port announces (IEEE 802.1AB).
//!
//! It only writes: what neighbours announce is of no interest to a switch in the lab.

use super::frame::ETH_LLDP;
use dayzero_model::MacAddr;

/// Nearest-bridge group address; no bridge forwards it.
pub const LLDP_GROUP: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0x0e]);
const TTL_SECONDS: u16 = 8;

fn tlv(out: &mut Vec<u8>, kind: u16, subtype: Option<u8>, value: &[u8]) {
    let length = value.len() + usize::from(subtype.is_some());
    let header = (kind << 9) | (length as u16 & 0x1ff);
    out.extend_from_slice(&header.to_be_bytes());
    out.extend(subtype);
    out.extend_from_slice(value);
}

/// The frame of one port. Chassis id: the switch's name, locally assigned (subtype 7); port id: interface name
/// (subtype 5); system name and port description besides. Names longer than 200 bytes are cut.
pub fn frame(source: MacAddr, switch: &str, port: &str) -> Vec<u8> {
    let cut = |name: &str| name.as_bytes().iter().copied().take(200).collect::<Vec<u8>>();
    let mut out = Vec::with_capacity(96);
    out.extend_from_slice(&LLDP_GROUP.0);
    out.extend_from_slice(&source.0);
    out.extend_from_slice(&ETH_LLDP.to_be_bytes());
    tlv(&mut out, 1, Some(7), &cut(switch));
    tlv(&mut out, 2, Some(5), &cut(port));
    tlv(&mut out, 3, None, &TTL_SECONDS.to_be_bytes());
    tlv(&mut out, 4, None, &cut(&format!("{switch} port {port}")));
    tlv(&mut out, 5, None, &cut(switch));
    tlv(&mut out, 0, None, &[]);
    if out.len() < 60 {
        out.resize(60, 0);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_frame() {
        let frame = frame(MacAddr([2, 0xda, 0, 0, 0, 1]), "sw-a", "1");
        insta::assert_snapshot!(hex::encode(frame), @"0180c200000e02da0000000188cc02050773772d610402053106020008080b73772d6120706f727420310a0473772d61000000000000000000000000");
    }
}
