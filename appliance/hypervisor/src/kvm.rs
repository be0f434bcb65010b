//! KVM through libvirt: what it supports, and the definition of a domain.
//!
//! Invariants: a [`VmDomain`] holds only values that were checked, so that [`domain_xml`] cannot be talked into other
//! XML; the definition carries no secret; a volume is named by a stable path, never by `/dev/sdX`. It does not speak to
//! libvirt: the agent runs `virsh` with this text on its standard input.

use crate::{Facts, Install};
use dayzero_model::site::Hypervisor;
use dayzero_model::vm::VmSpec;
use dayzero_model::{MacAddr, MebiBytes, Name, Sha256};
use quick_xml::escape::escape;

/// What is true of it whatever the site.
pub const FACTS: Facts = Facts {
    hypervisor: Hypervisor::Kvm,
    label: "KVM",
    column: Some("KVM"),
    own_column: "KVM",
    install: Install::Image,
    max_hosts_per_cluster: Some(16),
    max_vms_per_host: Some(50),
    min_dom0_memory: None,
};

/// Most virtual CPUs that a domain of machine type q35 may have without an IOMMU.
const MAX_CPUS: u32 = 255;

/// Why a VM cannot be defined.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DomainError {
    /// A value that is not allowed.
    #[error("the VM's {what} '{value}' is refused: {rule}")]
    Refused {
        /// Which.
        what: &'static str,
        /// The value.
        value: String,
        /// What is allowed.
        rule: &'static str,
    },
}

/// One VM, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmDomain {
    name: Name,
    cpus: u32,
    memory: MebiBytes,
    mac: MacAddr,
    bridge: String,
    disk: String,
    console_log: String,
}

impl VmDomain {
    /// Checks what a definition is made of. `disk`: the volume's block device by a stable path, such as
    /// `/dev/dz-lun0/vol-hello` or `/dev/disk/by-id/…`; `console_log`: file that QEMU copies the serial console to.
    ///
    /// # Errors
    /// [`DomainError::Refused`] names the value and the rule.
    pub fn new(spec: &VmSpec, disk: &str, console_log: &str) -> Result<Self, DomainError> {
        let refuse = |what, value: &dyn std::fmt::Display, rule| {
            Err(DomainError::Refused { what, value: value.to_string().chars().take(200).collect(), rule })
        };
        if !(1..=MAX_CPUS).contains(&spec.cpus) {
            return refuse("number of CPUs", &spec.cpus, "1 to 255");
        }
        if !(16..=64 << 20).contains(&spec.memory.0) {
            return refuse("memory", &spec.memory, "16 MiB to 64 TiB");
        }
        if spec.mac.0[0] & 1 == 1 || spec.mac.0 == [0; 6] {
            return refuse("MAC address", &spec.mac, "an individual address, not a group's and not all zero");
        }
        let name_ok =
            |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        let bridge = spec.bridge.as_str();
        if bridge.is_empty() || bridge.len() > 15 || !name_ok(bridge) || bridge.starts_with('.') {
            return refuse("bridge", &bridge, "an interface name: 1 to 15 of a-z A-Z 0-9 - _ .");
        }
        if !path_ok(disk)
            || !["/dev/disk/by-id/", "/dev/mapper/", "/dev/dz", "/dev/dayzero"]
                .iter()
                .any(|dir| disk.starts_with(dir))
        {
            return refuse(
                "disk",
                &disk,
                "a path below /dev/disk/by-id/, /dev/mapper/, /dev/dz… or /dev/dayzero…",
            );
        }
        if !path_ok(console_log) || !console_log.starts_with("/var/log/") {
            return refuse("console log", &console_log, "a path below /var/log/");
        }
        Ok(Self {
            name: spec.name.clone(),
            cpus: spec.cpus,
            memory: spec.memory,
            mac: spec.mac,
            bridge: spec.bridge.clone(),
            disk: disk.to_owned(),
            console_log: console_log.to_owned(),
        })
    }

    /// The domain's UUID: the same for the same name and MAC, so that defining it twice is one domain (RFC 9562, version 8).
    pub fn uuid(&self) -> String {
        let mut id = [0; 16];
        id.copy_from_slice(&Sha256::of(format!("dayzero vm {} {}", self.name, self.mac).as_bytes()).0[..16]);
        id[6] = (id[6] & 0x0f) | 0x80;
        id[8] = (id[8] & 0x3f) | 0x80;
        let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

fn path_ok(path: &str) -> bool {
    let allowed =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.' | b':' | b'+' | b'=');
    path.len() <= 255
        && path.starts_with('/')
        && path.bytes().all(allowed)
        && path.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."))
}

/// The domain as libvirt reads it (<https://libvirt.org/formatdomain.html>): type `kvm`, the host's own CPU, one virtio
/// disk on a block device, one virtio NIC on a bridge, a serial console on a pty that is copied to a file.
pub fn domain_xml(vm: &VmDomain) -> String {
    let name = escape(vm.name.as_str());
    let (uuid, memory, cpus, mac) = (vm.uuid(), vm.memory.0, vm.cpus, vm.mac);
    let (bridge, disk, log) = (escape(&vm.bridge), escape(&vm.disk), escape(&vm.console_log));
    format!(
        "\
<domain type='kvm'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory}</memory>
  <vcpu placement='static'>{cpus}</vcpu>
  <sysinfo type='smbios'>
    <system>
      <entry name='manufacturer'>Dayzero</entry>
      <entry name='product'>Dayzero VM</entry>
      <entry name='serial'>{name}</entry>
      <entry name='uuid'>{uuid}</entry>
    </system>
  </sysinfo>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <boot dev='hd'/>
    <smbios mode='sysinfo'/>
  </os>
  <features>
    <acpi/>
    <apic/>
  </features>
  <cpu mode='host-passthrough'/>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <disk type='block' device='disk'>
      <driver name='qemu' type='raw' cache='none' io='native' error_policy='stop'/>
      <source dev='{disk}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='bridge'>
      <mac address='{mac}'/>
      <source bridge='{bridge}'/>
      <model type='virtio'/>
    </interface>
    <serial type='pty'>
      <log file='{log}' append='on'/>
      <target type='isa-serial' port='0'/>
    </serial>
    <rng model='virtio'>
      <backend model='random'>/dev/urandom</backend>
    </rng>
    <memballoon model='none'/>
  </devices>
</domain>
"
    )
}

#[cfg(test)]
mod tests;
