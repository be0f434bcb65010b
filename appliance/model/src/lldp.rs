//! LLDP (IEEE 802.1AB): who is at the other end of a cable.
//!
//! Bounded and strict: frames come from whatever is plugged in.

/// LLDP's EtherType.
pub const ETHERTYPE: u16 = 0x88cc;
/// "Nearest bridge" group address.
pub const GROUP: [u8; 6] = [0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e];
/// TLVs at most in one frame.
const TLV_MAX: usize = 64;
/// Longest text that is kept.
pub const TEXT_MAX: usize = 255;

/// What one frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// System name (TLV 5).
    pub system_name: Option<String>,
    /// Chassis id (TLV 1) as text.
    pub chassis_id: String,
    /// Port id (TLV 2) as text.
    pub port_id: String,
    /// Port description (TLV 4).
    pub port_description: Option<String>,
    /// Seconds to keep it (TLV 3); 0 = the neighbour goes away.
    pub ttl: u16,
}

/// Why a frame is none of ours to believe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// Another EtherType.
    #[error("no LLDP frame")]
    NotLldp,
    /// A TLV goes beyond the frame's end, or none ends it where 802.1AB wants one.
    #[error("cut short")]
    Short,
    /// The first three TLVs are not chassis id, port id and time to live.
    #[error("the mandatory TLVs are missing or out of order")]
    Order,
    /// A TLV of wrong length, or a text that is none.
    #[error("a TLV's content is malformed")]
    Content,
    /// More TLVs than any switch sends.
    #[error("too many TLVs")]
    TooMany,
}

/// Reads an Ethernet frame with LLDP.
///
/// # Errors
/// [`BadFrame`].
pub fn parse(frame: &[u8]) -> Result<Heard, BadFrame> {
    if frame.get(12..14) != Some(&ETHERTYPE.to_be_bytes()) {
        return Err(BadFrame::NotLldp);
    }
    parse_body(&frame[14..])
}

/// Reads what follows the Ethernet header.
///
/// # Errors
/// [`BadFrame`].
pub fn parse_body(body: &[u8]) -> Result<Heard, BadFrame> {
    let mut rest = body;
    let (mut chassis, mut port, mut ttl) = (None, None, None);
    let (mut name, mut description) = (None, None);
    for number in 0.. {
        if number == TLV_MAX {
            return Err(BadFrame::TooMany);
        }
        // Some senders leave out the end TLV at a frame's very end.
        let Some(head) = rest.first_chunk::<2>() else {
            if rest.is_empty() { break } else { return Err(BadFrame::Short) }
        };
        let head = u16::from_be_bytes(*head);
        let (kind, length) = (head >> 9, usize::from(head & 0x1ff));
        let value = rest.get(2..2 + length).ok_or(BadFrame::Short)?;
        rest = &rest[2 + length..];
        match (number, kind) {
            (0, 1) => chassis = Some(identifier(value, 4, 5)?),
            (1, 2) => port = Some(identifier(value, 3, 4)?),
            (2, 3) => {
                let value = value.first_chunk::<2>().ok_or(BadFrame::Content)?;
                ttl = Some(u16::from_be_bytes(*value));
            }
            (0..=2, _) | (_, 1..=3) => return Err(BadFrame::Order),
            (_, 0) => break,
            (_, 4) => description = Some(text(value)?).filter(|text| !text.is_empty()),
            (_, 5) => name = Some(text(value)?).filter(|text| !text.is_empty()),
            _ => {}
        }
    }
    let (Some(chassis_id), Some(port_id), Some(ttl)) = (chassis, port, ttl) else {
        return Err(BadFrame::Order);
    };
    Ok(Heard { system_name: name, chassis_id, port_id, port_description: description, ttl })
}

/// Text of a switch: UTF-8 or not, without control characters, cut to [`TEXT_MAX`] bytes by the TLV's own bound.
fn text(value: &[u8]) -> Result<String, BadFrame> {
    if value.len() > TEXT_MAX {
        return Err(BadFrame::Content);
    }
    let text = String::from_utf8_lossy(value);
    Ok(text.trim_end_matches('\0').chars().map(|c| if c.is_control() { '?' } else { c }).collect())
}

/// An id with a subtype: a MAC, a network address or text. The subtypes' numbers differ for chassis and port.
fn identifier(value: &[u8], mac: u8, network: u8) -> Result<String, BadFrame> {
    let (subtype, id) = value.split_first().ok_or(BadFrame::Content)?;
    if id.is_empty() || id.len() > TEXT_MAX {
        return Err(BadFrame::Content);
    }
    match (*subtype, id) {
        (kind, id) if kind == mac && id.len() == 6 => {
            let octets: Vec<String> = id.iter().map(|octet| format!("{octet:02x}")).collect();
            Ok(octets.join(":"))
        }
        (kind, [1, a, b, c, d]) if kind == network => Ok(format!("{a}.{b}.{c}.{d}")),
        _ => text(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tlv(frame: &mut Vec<u8>, kind: u16, value: &[u8]) {
        let head = kind << 9 | (value.len() as u16 & 0x1ff);
        frame.extend(head.to_be_bytes());
        frame.extend(value);
    }

    /// As a switch sends it: port id by name, description, then organisation-specific TLVs.
    fn switch_frame() -> Vec<u8> {
        let mut frame = Vec::new();
        frame.extend(GROUP);
        frame.extend([2, 0, 0, 0, 0xaa, 1]);
        frame.extend(ETHERTYPE.to_be_bytes());
        tlv(&mut frame, 1, &[4, 2, 0, 0, 0, 0xaa, 1]);
        tlv(&mut frame, 2, b"\x051");
        tlv(&mut frame, 3, &[0, 20]);
        tlv(&mut frame, 4, b"port 1");
        tlv(&mut frame, 5, b"sw-a");
        tlv(&mut frame, 127, &[0, 0x12, 0x0f, 1, 3, 0, 0, 0, 0]);
        tlv(&mut frame, 0, &[]);
        frame
    }

    #[test]
    fn reads_a_switchs_frame() {
        let heard = parse(&switch_frame()).unwrap();
        assert_eq!(heard.system_name.as_deref(), Some("sw-a"));
        assert_eq!((heard.chassis_id.as_str(), heard.port_id.as_str()), ("02:00:00:00:aa:01", "1"));
        assert_eq!((heard.port_description.as_deref(), heard.ttl), (Some("port 1"), 20));
    }

    #[test]
    fn malformed_frames_are_refused() {
        let good = switch_frame();
        let mut other = good.clone();
        other[13] = 0;
        assert_eq!(parse(&other), Err(BadFrame::NotLldp));
        assert_eq!(parse(&good[..20]), Err(BadFrame::Short));
        assert_eq!(parse(&good[..14]), Err(BadFrame::Order));
        let mut swapped = good[..14].to_vec();
        tlv(&mut swapped, 2, b"\x051");
        assert_eq!(parse(&swapped), Err(BadFrame::Order));
        let mut empty = good[..14].to_vec();
        tlv(&mut empty, 1, &[]);
        assert_eq!(parse(&empty), Err(BadFrame::Content));
        let mut many = good[..good.len() - 2].to_vec();
        for _ in 0..TLV_MAX {
            tlv(&mut many, 127, &[0, 1, 2, 3]);
        }
        assert_eq!(parse(&many), Err(BadFrame::TooMany));
    }

    proptest! {
        #[test]
        fn never_panics_and_never_keeps_control_characters(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut frame = switch_frame()[..14].to_vec();
            frame.extend(&bytes);
            if let Ok(heard) = parse(&frame) {
                prop_assert!(!heard.port_id.chars().any(char::is_control));
            }
            let _ = parse(&bytes);
        }

        #[test]
        fn a_changed_byte_is_read_or_refused(at in 14_usize..60, to in any::<u8>()) {
            let mut frame = switch_frame();
            let at = at.min(frame.len() - 1);
            frame[at] = to;
            let _ = parse(&frame);
        }
    }
}
