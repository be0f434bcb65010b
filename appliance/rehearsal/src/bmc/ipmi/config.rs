//! What `ipmi_sim` is configured with: its LAN side, its inventory record, and the two programs that it calls.
//!
//! Pure. The factory password stands in `lan.conf`, which is private to the BMC's directory.

use crate::bmc::BmcEmulatorSpec;

/// Size of the FRU device in bytes.
const FRU_SIZE: usize = 512;

/// A file of the BMC's directory.
pub(super) struct ConfigFile {
    pub(super) name: &'static str,
    pub(super) content: Vec<u8>,
}

/// Called by `ipmi_sim` as `chassis.sh get|set|check …`: hands the words to the lab and prints its answer. `/dev/tcp` is
/// bash's own, so that nothing else is started: a call takes milliseconds.
const CHASSIS: &str = r#"#!/bin/bash
exec 3<>/dev/tcp/127.0.0.1/@PORT@ || exit 1
printf '%s\n' "$*" >&3
while IFS= read -r line <&3; do
    case "$line" in
        ok) exit 0 ;;
        error*) echo "$line" >&2; exit 1 ;;
        *) printf '%s\n' "$line" ;;
    esac
done
exit 1
"#;

/// Called as `lan.sh get|set|check …`: the addresses are the interface's own, and are not set this way.
const LAN: &str = r#"#!/bin/bash
[ "$1" = get ] || exit 0
shift
read -r _ _ _ cidr _ < <(ip -4 -o addr show dev @INTERFACE@)
for what in "$@"; do
    case "$what" in
        ip_addr_src) echo "$what:dhcp" ;;
        ip_addr) a=${cidr%/*}; echo "$what:${a:-0.0.0.0}" ;;
        subnet_mask) echo "$what:255.255.255.0" ;;
        mac_addr) echo "$what:@MAC@" ;;
        *_ip_addr) echo "$what:0.0.0.0" ;;
        *_mac_addr) echo "$what:00:00:00:00:00:00" ;;
        *) echo "$what:0" ;;
    esac
done
"#;

const LAN_CONF: &str = r#"name "@NAME@"
set_working_mc 0x20
startlan 1
  addr 0.0.0.0 623
  priv_limit admin
  lan_config_program "@DIR@/lan.sh"
  allowed_auths_callback md5
  allowed_auths_user md5
  allowed_auths_operator md5
  allowed_auths_admin md5
  guid @GUID@
endlan
chassis_control "@DIR@/chassis.sh"
sol "tcp:127.0.0.1:@CONSOLE@" 115200
user 1 false "" "" user 10 md5
user 2 true "@USER@" "@PASSWORD@" admin 10 md5
"#;

const EMU_CMDS: &str = r#"mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_add_fru_data 0x20 0 @FRU_SIZE@ file 0 "@DIR@/fru.bin"
main_sdr_add 0x20 0x02 0x00 0x51 0x12 0x0e 0x20 0x00 0x00 0x9f 0x00 0x00 0x00 0x07 0x01 0x00 0xc3 0x42 0x4d 0x43
mc_enable 0x20
"#;

fn quoted_safe(what: &str, text: &str, max: usize) -> Result<(), String> {
    let fine = (1..=max).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    if fine {
        Ok(())
    } else {
        Err(format!("the factory {what} must be 1 to {max} printable ASCII characters without quote"))
    }
}

/// A UUID's 16 bytes as SMBIOS stores them, in hex: what real BMCs answer to Get System GUID.
fn smbios_guid(uuid: &str) -> Result<String, String> {
    let digits: String = uuid.chars().filter(|c| *c != '-').collect();
    let mut bytes = [0; 16];
    hex::decode_to_slice(&digits, &mut bytes)
        .map_err(|_| format!("'{uuid}' is no UUID: write 32 hex digits"))?;
    bytes[0..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    Ok(hex::encode(bytes))
}

/// All files of an IPMI BMC.
pub(super) fn files(spec: &BmcEmulatorSpec, console: u16, control: u16) -> Result<Vec<ConfigFile>, String> {
    quoted_safe("user", &spec.user, 16)?;
    quoted_safe("password", spec.password.expose(), 20)?;
    let dir = spec.dir.display().to_string();
    if !dir.starts_with('/') || dir.contains(['"', '\\', '\n']) {
        return Err(format!("its directory '{dir}' must be absolute and without quote"));
    }
    let fill = |text: &str| {
        text.replace("@DIR@", &dir)
            .replace("@NAME@", &spec.name)
            .replace("@PORT@", &control.to_string())
            .replace("@CONSOLE@", &console.to_string())
            .replace("@INTERFACE@", &spec.interface)
            .replace("@MAC@", &spec.mac.to_string())
            .replace("@FRU_SIZE@", &FRU_SIZE.to_string())
    };
    let lan_conf = fill(LAN_CONF)
        .replace("@GUID@", &smbios_guid(&spec.identity.uuid)?)
        .replace("@USER@", &spec.user)
        .replace("@PASSWORD@", spec.password.expose());
    let text = |name, content: String| ConfigFile { name, content: content.into_bytes() };
    Ok(vec![
        text("lan.conf", lan_conf),
        text("emu.cmds", fill(EMU_CMDS)),
        text("chassis.sh", fill(CHASSIS)),
        text("lan.sh", fill(LAN)),
        ConfigFile { name: "fru.bin", content: fru(spec)? },
    ])
}

/// A type/length byte and its text, 8-bit ASCII (Platform Management FRU Information v1.3, section 13).
fn field(text: &str) -> Vec<u8> {
    let text: Vec<u8> = text.bytes().filter(u8::is_ascii_graphic).take(62).collect();
    // One character would read as "end of fields" (0xc1): it is padded.
    let text = if text.len() == 1 { vec![text[0], b' '] } else { text };
    let mut out = vec![0xc0 | u8::try_from(text.len()).unwrap_or(0)];
    out.extend(text);
    out
}

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, b| sum.wrapping_add(*b)).wrapping_neg()
}

/// An area: version, length in eights, own head, fields, end mark, padding, checksum.
fn area(head: &[u8], fields: &[&str]) -> Vec<u8> {
    let mut out = vec![1, 0];
    out.extend_from_slice(head);
    fields.iter().for_each(|text| out.extend(field(text)));
    out.push(0xc1);
    while !(out.len() + 1).is_multiple_of(8) {
        out.push(0);
    }
    out[1] = u8::try_from((out.len() + 1) / 8).unwrap_or(0);
    out.push(checksum(&out));
    out
}

/// The inventory record: chassis, board and product.
fn fru(spec: &BmcEmulatorSpec) -> Result<Vec<u8>, String> {
    let id = &spec.identity;
    let chassis = area(&[0x17], &["", &id.serial]);
    let board = area(&[25, 0, 0, 0], &[&id.manufacturer, &id.product, &id.board_serial, "", ""]);
    let product = area(&[25], &[&id.manufacturer, &id.product, "", "", &id.serial, "", ""]);
    let eights = |n: usize| u8::try_from(n / 8).unwrap_or(0);
    let mut out = vec![1, 0, 1, eights(8 + chassis.len()), eights(8 + chassis.len() + board.len()), 0, 0];
    out.push(checksum(&out));
    out.extend([chassis, board, product].concat());
    if out.len() > FRU_SIZE {
        return Err(format!("its identity does not fit into {FRU_SIZE} bytes of FRU: shorten the names"));
    }
    out.resize(FRU_SIZE, 0);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bmc::testing::spec;
    use dayzero_model::Secret;
    use dayzero_model::site::BmcProtocol;

    #[test]
    fn the_record_has_sound_checksums() {
        let fru = fru(&spec(BmcProtocol::Ipmi, "/tmp/x".into())).unwrap();
        assert_eq!(checksum(&fru[..8]), 0, "header");
        for offset in &fru[2..5] {
            let start = usize::from(*offset) * 8;
            let length = usize::from(fru[start + 1]) * 8;
            assert_eq!(checksum(&fru[start..start + length]), 0, "area at {start}");
        }
    }

    #[test]
    fn the_guid_is_in_the_order_of_smbios() {
        let guid = smbios_guid("00112233-4455-6677-8899-aabbccddeeff").unwrap();
        assert_eq!(guid, "33221100554477668899aabbccddeeff");
        assert!(smbios_guid("x").is_err());
    }

    #[test]
    fn what_would_break_out_of_a_quote_is_refused() {
        let mut bad = spec(BmcProtocol::Ipmi, "/tmp/x".into());
        bad.password = Secret::new("a\" b".into());
        assert!(files(&bad, 1, 2).is_err());
        bad.password = Secret::new("0123456789012345678901".into());
        assert!(files(&bad, 1, 2).is_err(), "IPMI passwords end at 20 bytes");
    }
}
