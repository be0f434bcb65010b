//! The lab's control protocol: one JSON value a line on `<dir>/lab.sock`, each request answered by one line.
//!
//! Strict both ways: unknown fields are refused. A line is at most 1 MiB. Nothing secret passes but in the answer to
//! [`Request::Secrets`]; the socket is its owner's alone, and no command prints that answer.

use crate::machine::{Firmware, Power};
use dayzero_model::{HostName, MacAddr, Name, Secret};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Name of the appliance's machine, where there is one.
pub const APPLIANCE: &str = "appliance";
/// Name of the virtio serial port by which the appliance's machine reaches [`SOCKET`].
pub const PORT: &str = "dayzero.lab";
/// Name of the socket in the lab's directory.
pub const SOCKET: &str = "lab.sock";
/// Longest line in either direction.
pub const MAX_LINE: usize = 1 << 20;

/// What the lab is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Show everything.
    Status,
    /// Pull a cable out of a host's NIC (counted from 0): carrier is lost on both ends.
    #[serde(rename_all = "kebab-case")]
    PullCable {
        /// The host.
        host: HostName,
        /// The NIC.
        nic: usize,
    },
    /// Plug it in again.
    Plug {
        /// The host.
        host: HostName,
        /// The NIC.
        nic: usize,
    },
    /// Exchange the far ends of two cables.
    SwapCables {
        /// The host.
        host: HostName,
        /// One NIC.
        a: usize,
        /// The other.
        b: usize,
    },
    /// A switch stops forwarding, LLDP and LACP; its ports keep their carrier.
    KillSwitch {
        /// Its name.
        member: Name,
    },
    /// It works again.
    ReviveSwitch {
        /// Its name.
        member: Name,
    },
    /// As a dead switch, for the one port that this NIC is cabled to.
    MutePort {
        /// The host.
        host: HostName,
        /// The NIC.
        nic: usize,
    },
    /// That port works again.
    UnmutePort {
        /// The host.
        host: HostName,
        /// The NIC.
        nic: usize,
    },
    /// Ports of the LAG of a host's bond forward alone as long as nobody speaks LACP there, or do not: its firmware cannot
    /// boot by network then.
    LacpFallback {
        /// The host.
        host: HostName,
        /// They do.
        on: bool,
    },
    /// Power, past the BMC.
    Power {
        /// The host.
        host: HostName,
        /// What to do.
        action: PowerAction,
    },
    /// Hold a host's machine still, as if it hung; its power stays on.
    Pause {
        /// The host.
        host: HostName,
    },
    /// It goes on.
    Resume {
        /// The host.
        host: HostName,
    },
    /// The BMC is exchanged for one whose factory password is not what the plan's secret file says; or the planned one
    /// comes back, with the accounts that it had.
    WrongPassword {
        /// The host.
        host: HostName,
        /// True: wrong; false: as planned.
        wrong: bool,
    },
    /// The battery of a host's clock is empty: from its next power-on it starts at 1980-01-01. Or there is a new one.
    ClockBattery {
        /// The host.
        host: HostName,
        /// True: empty.
        empty: bool,
    },
    /// A host's BMC puts media of ours into the drive with a nonce that holds no longer; or as it fetched them.
    StaleMedia {
        /// The host.
        host: HostName,
        /// True: with another nonce.
        stale: bool,
    },
    /// A machine of unknown MAC PXE-boots on the access switch.
    SpawnStranger {
        /// Its MAC.
        mac: MacAddr,
    },
    /// A machine with a host's MAC, serial and UUID PXE-boots on the access switch, from a port of its own.
    SpawnClone {
        /// The host that it pretends to be.
        of: HostName,
    },
    /// Remove a stranger or clone.
    KillExtra {
        /// Its name, as [`Response::Spawned`] gave it.
        name: String,
    },
    /// The end of a console (host, stranger or clone).
    Console {
        /// The machine.
        machine: String,
    },
    /// Empty a host's disk; the host must be off.
    WipeDisk {
        /// The host.
        host: HostName,
    },
    /// Put somebody else's partition and file system on a host's disk; the host must be off.
    PutForeignData {
        /// The host.
        host: HostName,
    },
    /// What the BMCs were entrusted with, so that a test can look for it everywhere else.
    Secrets,
    /// Tear everything down.
    Shutdown,
}

/// A power button.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerAction {
    /// On.
    On,
    /// Cut.
    Off,
    /// Reset.
    Reset,
    /// Press the button; the guest shuts down.
    Graceful,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Response {
    /// It is done.
    Done,
    /// [`Request::Status`].
    Status(LabStatus),
    /// [`Request::Console`]: the last lines, control characters as they came.
    Console(String),
    /// A machine was started.
    Spawned {
        /// Its name.
        name: String,
        /// Its MAC.
        mac: MacAddr,
    },
    /// [`Request::Secrets`].
    Secrets(Vec<HostSecrets>),
    /// It was not done.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
}

/// What one host's BMC was entrusted with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostSecrets {
    /// The host.
    pub host: HostName,
    /// Since the rack was raised, each once.
    pub secrets: Vec<BmcSecret>,
}

/// One thing that a BMC was entrusted with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BmcSecret {
    /// What it is.
    pub kind: SecretKind,
    /// Itself.
    pub value: Secret<String>,
}

/// Kinds of what a BMC is entrusted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretKind {
    /// An account's password.
    Password,
    /// Token of a Redfish session.
    SessionToken,
    /// URL of a virtual medium.
    MediaUrl,
    /// Nonce on a virtual medium, hex.
    VouchNonce,
}

/// The lab as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabStatus {
    /// Pid of the daemon.
    pub pid: u32,
    /// Hosts in plan order.
    pub hosts: Vec<HostStatus>,
    /// Switches.
    pub switches: Vec<SwitchStatus>,
    /// Strangers and clones.
    pub extras: Vec<ExtraStatus>,
    /// The appliance, where it is a machine of the rack; it is named `appliance` in requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appliance: Option<ApplianceStatus>,
    /// Helper processes (SAN, DHCP clients): name and whether it runs.
    pub services: Vec<ServiceStatus>,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostStatus {
    /// Its name.
    pub name: HostName,
    /// Power.
    pub power: Power,
    /// Firmware.
    pub firmware: Firmware,
    /// Whether a one-time PXE boot is armed.
    pub pxe_once: bool,
    /// Whether a virtual medium is in.
    pub media: bool,
    /// Planned address of its BMC.
    pub bmc: Ipv4Addr,
    /// Its NICs.
    pub nics: Vec<NicStatus>,
}

/// One NIC of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NicStatus {
    /// Its MAC.
    pub mac: MacAddr,
    /// Switch that its cable goes to now.
    pub switch: String,
    /// Port that its cable goes to now.
    pub port: String,
    /// Whether the cable is pulled.
    pub pulled: bool,
    /// What the port does.
    pub forwarding: Forwarding,
    /// Frames from the NIC.
    pub received: u64,
    /// Frames to the NIC.
    pub sent: u64,
    /// Frames that the NIC could not take.
    pub dropped: u64,
}

/// What a switch port does with data frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forwarding {
    /// Nothing.
    Closed,
    /// By itself: no LAG, or LACP fallback.
    Alone,
    /// As a leg of a LAG.
    Lag,
}

/// One switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchStatus {
    /// Its name.
    pub name: String,
    /// Whether it works.
    pub alive: bool,
}

/// A machine that is not in the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtraStatus {
    /// Its name.
    pub name: String,
    /// Its MAC.
    pub mac: MacAddr,
    /// Power.
    pub power: Power,
}

/// The appliance as a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplianceStatus {
    /// Power.
    pub power: Power,
    /// Its NICs.
    pub nics: Vec<ApplianceNicStatus>,
}

/// One NIC of the appliance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplianceNicStatus {
    /// Its MAC.
    pub mac: MacAddr,
    /// The plan's address of the appliance on the network that its cable goes to.
    pub address: Ipv4Net,
}

/// A helper process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceStatus {
    /// What it is.
    pub name: String,
    /// Whether it runs.
    pub running: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_on_the_wire() {
        let host: HostName = "host1".parse().unwrap();
        let requests = [
            Request::Status,
            Request::PullCable { host: host.clone(), nic: 1 },
            Request::SwapCables { host: host.clone(), a: 0, b: 1 },
            Request::KillSwitch { member: "sw-a".parse().unwrap() },
            Request::Power { host: host.clone(), action: PowerAction::Graceful },
            Request::WrongPassword { host: host.clone(), wrong: true },
            Request::ClockBattery { host: host.clone(), empty: true },
            Request::StaleMedia { host: host.clone(), stale: false },
            Request::SpawnClone { of: host },
        ];
        let lines: Vec<_> = requests.iter().map(|request| serde_json::to_string(request).unwrap()).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        "status"
        {"pull-cable":{"host":"host1","nic":1}}
        {"swap-cables":{"host":"host1","a":0,"b":1}}
        {"kill-switch":{"member":"sw-a"}}
        {"power":{"host":"host1","action":"graceful"}}
        {"wrong-password":{"host":"host1","wrong":true}}
        {"clock-battery":{"host":"host1","empty":true}}
        {"stale-media":{"host":"host1","stale":false}}
        {"spawn-clone":{"of":"host1"}}
        "#);
        for (line, request) in lines.iter().zip(requests) {
            assert_eq!(serde_json::from_str::<Request>(line).unwrap(), request);
        }
        for bad in [
            r#"{"pull-cable":{"host":"host1","nic":1,"x":2}}"#,
            r#""reboot""#,
            r#"{"plug":{"host":"host1"}}"#,
        ] {
            assert!(serde_json::from_str::<Request>(bad).is_err(), "{bad}");
        }
    }
}
