//! The text of a first plan, with a comment wherever a person must look.

use super::{Draft, DraftHost};
use ipnet::Ipv4Net;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::Ipv4Addr;

/// Begins every serial number that a person has to fill in.
pub(crate) const CHANGE_ME: &str = "CHANGE-ME";

fn nth(net: Ipv4Net, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(net.network()) + n)
}

/// A text as a quoted YAML scalar: values of a list of hosts may hold anything.
fn quoted(text: &str) -> String {
    let clean: String = text.chars().filter(|c| !c.is_control()).collect();
    format!("\"{}\"", clean.replace('\\', "\\\\").replace('"', "\\\""))
}

pub(super) fn plan(draft: &Draft) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = head(draft, &mut text);
    let _ = zones(draft, &mut text);
    text
}

fn head(draft: &Draft, text: &mut String) -> std::fmt::Result {
    let Draft { name, domain, management, bmc, storage: [sta, stb], guest, vlan, hypervisor, .. } = draft;
    let layout = match hypervisor.as_str() {
        "xenserver" => "clvm",
        "vsphere" => "vmfs",
        _ => "thick-lv",
    };
    writeln!(
        text,
        "\
# Site plan of {name}, written by `dayzero plan init`. Check it: `dayzero plan check FILE`; compare and apply: `dayzero apply FILE`.
# Fill in every CHANGE-ME and every MAC that begins with 02:00:00:00; the check names each one that is left.

name: {name}
domain: {domain}
# Factory credentials of the BMCs, by name, in a file of their own (mode 0600), never here:
#   factory: {{ user: root, password: … }}
secrets: {name}.secrets.yaml

networks:
  # Hosts, appliance, PXE and templates. Untagged (native) on the access ports: firmware boots untagged.
  - {{ name: mgmt, role: management, cidr: {management}, gateway: {}, appliance: {} }}
  - {{ name: bmc, role: bmc, cidr: {bmc}, appliance: {} }}
  # Multipath: two disjoint subnets, each with its own gateway, on two switches; never bonded.
  - {{ name: storage-a, role: storage, cidr: {sta}, gateway: {} }}
  - {{ name: storage-b, role: storage, cidr: {stb}, gateway: {} }}
  # Virtual machines, tagged. The pool is what DHCP gives to them.
  - name: guest
    role: guest
    cidr: {guest}
    vlan: {vlan}
    gateway: {}
    appliance: {}
    pool: {{ first: {}, last: {} }}

switches:
  # Names as the switches announce them by LLDP. One stack name = one LACP system (stack or MLAG).
  - {{ name: sw-a, stack: access, role: access }}
  - {{ name: sw-b, stack: access, role: access }}
  - {{ name: st-a, role: storage }}
  - {{ name: st-b, role: storage }}
  - {{ name: sw-bmc, role: bmc }}

primary_storage:
  # At most 6 TB (6 x 10^12 bytes) each; a cluster may have several.
  - name: lun0
    kind: iscsi
    layout: {layout}
    size: 2 TB
    multipath: true
    target: iqn.2026-01.{}:{CHANGE_ME}
    # The LUN's own WWN, as the storage shows it; this one is a placeholder.
    wwn: 0x60000000000000000000000000000000
    portals:
      - {{ network: storage-a, address: {} }}
      - {{ network: storage-b, address: {} }}

secondary_storage:
  # An HTTP server on the management network that holds template images.
  - {{ name: templates, url: \"http://{}:8081\" }}

offerings:
  - {{ name: small, cpus: 1, mhz: 1000, memory_mib: 1024, disk: 8 GiB }}
  - {{ name: large, cpus: 4, mhz: 2000, memory_mib: 8192, disk: 64 GiB }}
",
        nth(*management, 1), nth(*management, 2), nth(*bmc, 2), nth(*sta, 1), nth(*stb, 1),
        nth(*guest, 1), nth(*guest, 2), nth(*guest, 4), Ipv4Addr::from(u32::from(guest.broadcast()) - 1),
        domain.split('.').rev().collect::<Vec<_>>().join("."),
        nth(*sta, 10), nth(*stb, 10), nth(*management, 5),
    )
}

fn zones(draft: &Draft, text: &mut String) -> std::fmt::Result {
    let racks: BTreeSet<&str> = draft.hosts.iter().map(|host| host.rack.as_str()).collect();
    let clusters: BTreeSet<&str> = draft.hosts.iter().map(|host| host.cluster.as_str()).collect();
    writeln!(
        text,
        "zones:\n  - name: zone1\n    pods:\n      - name: pod1\n        network: mgmt\n        bmc_network: bmc\n        racks:"
    )?;
    for rack in racks {
        writeln!(text, "          - {{ name: {rack}, units: 42 }}")?;
    }
    writeln!(text, "        clusters:")?;
    let mut number = 0;
    for cluster in clusters {
        let hosts: Vec<&DraftHost> = draft.hosts.iter().filter(|host| host.cluster == cluster).collect();
        writeln!(text, "          - name: {cluster}\n            hypervisor: {}", draft.hypervisor)?;
        if hosts.len() == 1 {
            writeln!(
                text,
                "            # One host: nobody takes over when it fails.\n            failover: none"
            )?;
        } else {
            writeln!(
                text,
                "            # Room for one failed host: at most (N-1) x vms_per_host VMs.\n            failover: n-1"
            )?;
        }
        writeln!(text, "            vms_per_host: 20")?;
        if draft.hypervisor == "xenserver" {
            writeln!(text, "            dom0_memory_mib: 2940")?;
        }
        writeln!(text, "            primary_storage: [lun0]\n            guest_network: guest")?;
        let models: BTreeSet<&str> = hosts.iter().filter_map(|host| host.model.as_deref()).collect();
        if !models.is_empty() {
            let models: Vec<String> = models.into_iter().map(quoted).collect();
            writeln!(
                text,
                "            # Models by the list of hosts: {}; choose the profile that fits them.",
                models.join(", ")
            )?;
        }
        writeln!(
            text,
            "            # A file of hardware-profiles, without .toml.\n            profile: qemu-q35\n            hosts:"
        )?;
        for one in hosts {
            number += 1;
            host(one, number, text)?;
        }
    }
    Ok(())
}

fn host(host: &DraftHost, number: usize, text: &mut String) -> std::fmt::Result {
    let placeholder = |nic: usize| {
        format!("02:00:00:00:{:02x}:{:02x}", (number * 8 + nic) >> 8 & 0xff, (number * 8 + nic) & 0xff)
    };
    let nic = |i: usize| host.nics.get(i).cloned().unwrap_or_else(|| placeholder(i + 1));
    let bmc_mac = host.bmc_mac.clone().unwrap_or_else(|| placeholder(0));
    let serial = host.serial.clone().unwrap_or_else(|| format!("{CHANGE_ME}-{}", host.name));
    let disk = host.disk_serial.clone().unwrap_or_else(|| format!("{CHANGE_ME}-DISK-{}", host.name));
    writeln!(
        text,
        "              - name: {}
                rack: {}
                u: {}
                serial: {}
                bmc: {{ mac: \"{bmc_mac}\", address: {}, protocol: {}, credential: factory }}
                address: {}
                bond:
                  # 802.3ad needs both switches to be one stack; active-backup does not.
                  mode: 802.3ad
                  nics:
                    - {{ role: pod-a, mac: \"{}\", port: {{ switch: sw-a, port: \"{number}\" }} }}
                    - {{ role: pod-b, mac: \"{}\", port: {{ switch: sw-b, port: \"{number}\" }} }}
                storage_nics:
                  - {{ role: storage-a, mac: \"{}\", port: {{ switch: st-a, port: \"{number}\" }}, network: storage-a, address: {} }}
                  - {{ role: storage-b, mac: \"{}\", port: {{ switch: st-b, port: \"{number}\" }}, network: storage-b, address: {} }}
                # The only disk that is ever written to.
                os_disk: {{ serial: {} }}",
        host.name, host.rack, host.u, quoted(&serial), host.bmc_address, host.protocol, host.address,
        nic(0), nic(1), nic(2), host.storage[0], nic(3), host.storage[1], quoted(&disk),
    )
}
