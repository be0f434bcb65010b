//! SMBIOS structures as the kernel exports them (`/sys/firmware/dmi`), DMTF DSP0134.

use dayzero_model::inventory::{Dimm, Firmware, SystemIdentity};
use dayzero_model::units::MebiBytes;
use std::path::Path;

fn field(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(Path::new("/sys/class/dmi/id").join(name)).ok()?;
    let trimmed = text.trim();
    (!trimmed.is_empty()).then(|| trimmed.chars().take(200).collect())
}

/// Types 1 and 2.
pub fn system() -> SystemIdentity {
    SystemIdentity {
        manufacturer: field("sys_vendor"),
        product: field("product_name"),
        serial: field("product_serial"),
        uuid: field("product_uuid").map(|uuid| uuid.to_ascii_lowercase()),
        board_serial: field("board_serial"),
    }
}

/// Type 0.
pub fn firmware() -> Firmware {
    Firmware { vendor: field("bios_vendor"), version: field("bios_version"), date: field("bios_date") }
}

/// Type 4: the fastest current speed of all sockets, MHz; none if the firmware does not tell.
pub fn cpu_speed() -> Option<u64> {
    entries("4-").iter().filter_map(|raw| processor_speed(&std::fs::read(raw).ok()?)).max()
}

/// Current speed of one type 4 structure (offset 0x16, MHz).
fn processor_speed(raw: &[u8]) -> Option<u64> {
    let len = usize::from(*raw.get(1)?);
    let speed = raw.get(..len)?.get(0x16..0x18)?;
    Some(u64::from(u16::from_le_bytes([speed[0], speed[1]]))).filter(|mhz| *mhz > 0)
}

fn entries(prefix: &str) -> Vec<std::path::PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir("/sys/firmware/dmi/entries")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path().join("raw"))
        .collect();
    found.sort();
    found
}

/// Type 17, populated slots only, in table order.
pub fn dimms() -> Vec<Dimm> {
    entries("17-").iter().filter_map(|raw| dimm(&std::fs::read(raw).ok()?)).collect()
}

/// One type 17 structure; none if the slot is empty or the structure is cut.
fn dimm(raw: &[u8]) -> Option<Dimm> {
    let len = usize::from(*raw.get(1)?);
    let body = raw.get(..len)?;
    let word = |at: usize| Some(u16::from_le_bytes([*body.get(at)?, *body.get(at + 1)?]));
    let size = match word(0x0c)? {
        0 | 0xffff => return None,
        0x7fff => {
            let bytes = body.get(0x1c..0x20)?;
            u64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) & 0x7fff_ffff)
        }
        kib if kib & 0x8000 != 0 => u64::from(kib & 0x7fff) / 1024,
        mib => u64::from(mib),
    };
    let text = |at: usize| {
        let index = usize::from(*body.get(at)?);
        let found = raw.get(len..)?.split(|b| *b == 0).nth(index.checked_sub(1)?)?;
        let text = String::from_utf8_lossy(found).trim().to_owned();
        (!text.is_empty() && text != "Not Specified").then_some(text)
    };
    Some(Dimm {
        locator: text(0x10).unwrap_or_else(|| "?".to_owned()),
        size: MebiBytes(size),
        serial: text(0x18),
        part: text(0x1a),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn structure(size: u16, extended: u32) -> Vec<u8> {
        let mut raw = vec![0; 0x28];
        raw[0] = 17;
        raw[1] = 0x28;
        raw[0x0c..0x0e].copy_from_slice(&size.to_le_bytes());
        raw[0x10] = 1;
        raw[0x18] = 2;
        raw[0x1c..0x20].copy_from_slice(&extended.to_le_bytes());
        raw.extend(b"DIMM A1\0S123\0\0");
        raw
    }

    #[test]
    fn a_speed_that_is_not_told_is_none() {
        let mut raw = vec![0; 0x30];
        raw[..2].copy_from_slice(&[4, 0x30]);
        assert_eq!(processor_speed(&raw), None);
        raw[0x16..0x18].copy_from_slice(&2400_u16.to_le_bytes());
        assert_eq!(processor_speed(&raw), Some(2400));
        assert_eq!(processor_speed(&raw[..0x17]), None);
    }

    #[test]
    fn sizes_in_all_three_forms() {
        for (size, extended, mib) in [(16384, 0, 16384), (0x8000 | 2048, 0, 2), (0x7fff, 65536, 65536)] {
            let dimm = dimm(&structure(size, extended)).unwrap();
            assert_eq!(
                (dimm.size.0, dimm.locator.as_str(), dimm.serial.as_deref()),
                (mib, "DIMM A1", Some("S123"))
            );
        }
        assert_eq!(dimm(&structure(0, 0)), None);
        for cut in 0..0x28 {
            assert_eq!(dimm(&structure(16384, 0)[..cut]), None);
        }
    }
}
