//! Identified: what the BMC tells of itself and its host does not contradict the plan. Identity is a set: what a BMC
//! does not tell, or tells as junk, contradicts nothing; the inventory is compared again later.

use crate::cause::serial_mismatch;
use crate::snapshot::{Outcome, Snapshot};
use dayzero_model::condition::Cause;
use dayzero_model::site::Host;

/// Placeholders that vendors leave in identity fields, in lower case.
const JUNK: [&str; 12] = [
    "",
    "to be filled by o.e.m.",
    "default string",
    "none",
    "not specified",
    "system serial number",
    "0123456789",
    "123456789",
    "unknown",
    "n/a",
    "not available",
    "00000000-0000-0000-0000-000000000000",
];

/// A value, unless it is a placeholder.
pub fn told(value: Option<&str>) -> Option<&str> {
    let value = value?.trim();
    let lower = value.to_ascii_lowercase();
    let same = value.chars().all(|c| matches!(c, '0' | '-' | ' ' | 'f' | 'F' | 'x' | 'X'));
    (!JUNK.contains(&lower.as_str()) && !same).then_some(value)
}

/// The same UUID with the first three fields in the other byte order (SMBIOS 2.6 and later against network order).
pub fn swapped_uuid(uuid: &str) -> Option<String> {
    let digits: String = uuid.chars().filter(|c| *c != '-').collect();
    let bytes = hex::decode(&digits).ok().filter(|bytes| bytes.len() == 16)?;
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let swapped = hex::encode(order.map(|i: usize| bytes[i]));
    let parts = [&swapped[..8], &swapped[8..12], &swapped[12..16], &swapped[16..20], &swapped[20..]];
    Some(parts.join("-"))
}

/// Compares serial and UUID with the plan. Answers what agreed, or the contradiction. `by` tells who says so.
///
/// # Errors
/// Cause `serial-mismatch`.
pub fn compare(
    host: &Host,
    serial: Option<&str>,
    uuid: Option<&str>,
    by: &str,
) -> Result<Vec<String>, Cause> {
    let mut agreed = Vec::new();
    if let Some(serial) = told(serial) {
        if !serial.eq_ignore_ascii_case(host.serial.trim()) {
            return Err(serial_mismatch(&host.name, "serial", &host.serial, serial, by));
        }
        agreed.push(format!("serial {serial}"));
    }
    if let (Some(planned), Some(uuid)) = (host.uuid.as_deref(), told(uuid)) {
        if uuid.eq_ignore_ascii_case(planned) {
            agreed.push(format!("UUID {uuid}"));
        } else if swapped_uuid(uuid).is_some_and(|swapped| swapped.eq_ignore_ascii_case(planned)) {
            agreed.push(format!("UUID {uuid} in the other byte order"));
        } else {
            return Err(serial_mismatch(&host.name, "UUID", planned, uuid, by));
        }
    }
    Ok(agreed)
}

/// The step.
pub fn step(s: &Snapshot<'_>) -> Outcome {
    let host = s.placed.host;
    let Some(bmc) = &s.facts.bmc else {
        return Outcome::wait("the BMC's identity", crate::deadlines::CONTACT);
    };
    if let Some(mac) = bmc.bmc_mac.filter(|mac| *mac != host.bmc.mac) {
        let (planned, seen) = (host.bmc.mac.to_string(), mac.to_string());
        return Outcome::Failed(serial_mismatch(&host.name, "BMC MAC", &planned, &seen, "the BMC"));
    }
    let mut agreed = match compare(host, bmc.serial.as_deref(), bmc.uuid.as_deref(), "the BMC") {
        Ok(agreed) => agreed,
        Err(cause) => return Outcome::Failed(cause),
    };
    if bmc.bmc_mac.is_some() {
        agreed.push(format!("BMC MAC {}", host.bmc.mac));
    }
    let known = |mac: &&dayzero_model::MacAddr| host.nics().any(|(_, planned, _)| planned == **mac);
    let nics = bmc.nic_macs.iter().filter(known).count();
    if nics > 0 {
        agreed.push(format!("{nics} NIC MAC(s)"));
    }
    let evidence = if agreed.is_empty() {
        "the BMC tells nothing that the plan knows: the inventory decides".to_owned()
    } else {
        format!("the BMC tells the planned {}", agreed.join(", "))
    };
    let rests_on =
        (&bmc.serial, &bmc.uuid, &bmc.bmc_mac, &bmc.nic_macs, &host.serial, &host.uuid, &host.bmc.mac);
    Outcome::met(evidence, &rests_on)
}
