//! Hosts from a CSV, since that is what a shipping manifest is.
//!
//! Columns, in any order, by header: `rack,u,serial,bmc_mac,model,cluster` required; `name,bmc_address,address,
//! protocol,nics,disk_serial` optional (`nics`: MACs separated by spaces, bond legs first). Invariants: every row is
//! checked, all faults are reported with line and column name; unknown columns are refused. It makes no plan: `init` does.

use crate::keys;
use crate::shape::Kind;
use dayzero_model::{MacAddr, Name};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvHost {
    /// Name; `None` = `init` makes one.
    pub name: Option<Name>,
    /// Rack.
    pub rack: Name,
    /// Lowest rack unit.
    pub u: u8,
    /// System serial number.
    pub serial: String,
    /// BMC's MAC.
    pub bmc_mac: MacAddr,
    /// Model as the manifest says it.
    pub model: String,
    /// Cluster.
    pub cluster: Name,
    /// BMC's address.
    pub bmc_address: Option<Ipv4Addr>,
    /// Management address.
    pub address: Option<Ipv4Addr>,
    /// `redfish`, `ipmi` or `auto`.
    pub protocol: Option<String>,
    /// NICs: bond legs first, then storage.
    pub nics: Vec<MacAddr>,
    /// Serial of the disk for the operating system.
    pub disk_serial: Option<String>,
}

/// A fault in a CSV.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowFault {
    /// Line in the file, from 1.
    pub line: u64,
    /// Column by its header; empty = the row.
    pub column: String,
    /// What is wrong and what to write.
    pub problem: String,
}

/// Why a CSV was refused: every fault found.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {} fault(s) in the list of hosts:{}", faults.len(), list(faults))]
pub struct CsvError {
    /// The file.
    pub file: String,
    /// At most 50 faults.
    pub faults: Vec<RowFault>,
}

const REQUIRED: [&str; 6] = ["rack", "u", "serial", "bmc_mac", "model", "cluster"];
const OPTIONAL: [&str; 6] = ["name", "bmc_address", "address", "protocol", "nics", "disk_serial"];
const MAX_FAULTS: usize = 50;
const MAX_ROWS: usize = 100_000;

fn list(faults: &[RowFault]) -> String {
    let lines = faults.iter().map(|fault| match fault.column.as_str() {
        "" => format!("\n  line {}: {}", fault.line, fault.problem),
        column => format!("\n  line {}, {column}: {}", fault.line, fault.problem),
    });
    lines.collect()
}

/// Reads a list of hosts; `file` is only shown.
///
/// # Errors
/// [`CsvError`] with every fault.
pub fn read(file: &str, input: impl std::io::Read) -> Result<Vec<CsvHost>, CsvError> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(input);
    let mut faults = Vec::new();
    let refuse = |faults| Err(CsvError { file: file.to_owned(), faults });
    let fault = |line, column: &str, problem: String| RowFault { line, column: column.to_owned(), problem };
    let header = match reader.headers() {
        Ok(header) => {
            header.iter().map(|name| name.trim_start_matches('\u{feff}').to_lowercase()).collect::<Vec<_>>()
        }
        Err(error) => return refuse(vec![fault(1, "", error.to_string())]),
    };
    for missing in REQUIRED.iter().filter(|name| !header.iter().any(|have| have == *name)) {
        faults.push(fault(1, missing, format!("this column is missing; needed are {}", REQUIRED.join(","))));
    }
    for name in
        header.iter().filter(|name| !REQUIRED.contains(&name.as_str()) && !OPTIONAL.contains(&name.as_str()))
    {
        faults.push(fault(
            1,
            name,
            format!("unknown column; known are {},{}", REQUIRED.join(","), OPTIONAL.join(",")),
        ));
    }
    if !faults.is_empty() {
        return refuse(faults);
    }
    let mut hosts = Vec::new();
    for row in reader.records() {
        match row {
            Ok(row) => {
                let line = row.position().map_or(0, csv::Position::line);
                let cells: BTreeMap<&str, &str> = header.iter().map(String::as_str).zip(row.iter()).collect();
                let mut bad = Vec::new();
                match host(&cells, &mut bad) {
                    Some(host) if bad.is_empty() => hosts.push(host),
                    _ => faults.extend(bad.into_iter().map(|(column, problem)| fault(line, column, problem))),
                }
            }
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                faults.push(fault(line, "", "not as many columns as the header has".to_owned()));
            }
        }
        if hosts.len() > MAX_ROWS {
            faults.push(fault(0, "", format!("more than {MAX_ROWS} hosts")));
        }
        if faults.len() >= MAX_FAULTS {
            break;
        }
    }
    if faults.is_empty() { Ok(hosts) } else { refuse(faults) }
}

fn host(cells: &BTreeMap<&str, &str>, bad: &mut Vec<(&'static str, String)>) -> Option<CsvHost> {
    let cell = |column: &str| cells.get(column).copied().filter(|text| !text.is_empty());
    let mut checked = |column: &'static str, kind: Kind, required: bool| match cell(column) {
        Some(text) => match keys::scalar(kind, text, false) {
            Ok(()) => Some(text),
            Err(problem) => {
                bad.push((column, problem));
                None
            }
        },
        None if required => {
            bad.push((column, "nothing stands here".to_owned()));
            None
        }
        None => None,
    };
    let rack = checked("rack", Kind::Name, true);
    let u = checked("u", Kind::Number(1, 60), true);
    let serial = checked("serial", Kind::Text, true);
    let bmc_mac = checked("bmc_mac", Kind::Mac, true);
    let model = checked("model", Kind::Text, true);
    let cluster = checked("cluster", Kind::Name, true);
    let name = checked("name", Kind::Name, false);
    let bmc_address = checked("bmc_address", Kind::Ipv4, false);
    let address = checked("address", Kind::Ipv4, false);
    let protocol = checked("protocol", Kind::OneOf(&["redfish", "ipmi", "auto"]), false);
    let disk_serial = checked("disk_serial", Kind::Text, false);
    let mut nics = Vec::new();
    for text in cell("nics").unwrap_or("").split_whitespace() {
        match keys::scalar(Kind::Mac, text, false) {
            Ok(()) => nics.extend(text.parse::<MacAddr>().ok()),
            Err(problem) => bad.push(("nics", problem)),
        }
    }
    Some(CsvHost {
        name: name.and_then(|text| text.parse().ok()),
        rack: rack?.parse().ok()?,
        u: u?.parse().ok()?,
        serial: serial?.to_owned(),
        bmc_mac: bmc_mac?.parse().ok()?,
        model: model?.to_owned(),
        cluster: cluster?.parse().ok()?,
        bmc_address: bmc_address.and_then(|text| text.parse().ok()),
        address: address.and_then(|text| text.parse().ok()),
        protocol: protocol.map(str::to_owned),
        nics,
        disk_serial: disk_serial.map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_reads() {
        let text = "Rack,U,Serial,BMC_MAC,Model,Cluster,nics\n# pallet 1\nr1,10,S1,52:54:00:77:09:01,R650,kvm1,525400770101 52:54:00:77:01:02\n";
        let hosts = read("hosts.csv", text.as_bytes()).unwrap();
        assert_eq!((hosts.len(), hosts[0].u, hosts[0].nics.len()), (1, 10, 2));
        assert_eq!(hosts[0].bmc_mac.to_string(), "52:54:00:77:09:01");
    }

    #[test]
    fn every_fault_is_named_with_its_line() {
        let text = "rack,u,serial,bmc_mac,model,cluster\nr1,0,S1,nonsense,R650,kvm1\nR 1,4,,52:54:00:77:09:01,R650,kvm1\nr1,4\n";
        let error = read("hosts.csv", text.as_bytes()).unwrap_err();
        insta::assert_snapshot!(error, @r"
        hosts.csv: 5 fault(s) in the list of hosts:
          line 2, u: 0 is not within 1 to 60
          line 2, bmc_mac: 'nonsense' is no MAC address: write six octets in hex, such as 52:54:00:12:34:56
          line 3, rack: 'R 1' is no name: 1 to 63 of a-z, 0-9 and '-', with no '-' at either end
          line 3, serial: nothing stands here
          line 4: not as many columns as the header has
        ");
        let error = read("hosts.csv", "rack,u,serial,model,cluster,colour\n".as_bytes()).unwrap_err();
        insta::assert_snapshot!(error, @r"
        hosts.csv: 2 fault(s) in the list of hosts:
          line 1, bmc_mac: this column is missing; needed are rack,u,serial,bmc_mac,model,cluster
          line 1, colour: unknown column; known are rack,u,serial,bmc_mac,model,cluster,name,bmc_address,address,protocol,nics,disk_serial
        ");
    }
}
