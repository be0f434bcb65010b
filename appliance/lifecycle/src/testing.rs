//! Fixtures for this crate's tests: the lab's plan, and facts of a host at each point of its life.

use crate::snapshot::Surroundings;
use crate::{ActionKind, desired};
use dayzero_model::boot::BootWindow;
use dayzero_model::condition::Condition;
use dayzero_model::facts::*;
use dayzero_model::ids::{BootId, MacAddr, Name, Sha256};
use dayzero_model::install::InstallReport;
use dayzero_model::inventory::{BootMode, Cpu, Firmware, Inventory, Neighbour, SystemIdentity};
use dayzero_model::network::{BondState, LegState, NetworkReport};
use dayzero_model::proof::{Break, ProofReport, Trial};
use dayzero_model::site::{BmcProtocol, Host, Site};
use dayzero_model::startup::{BootDevice, BootEntry, RootDisk, StartReport};
use dayzero_model::storage::{LunReport, PathState};
use dayzero_model::units::{Bytes, MebiBytes, Mhz, Millis, Timestamp};

pub(crate) fn site() -> Site {
    let text = include_str!("../../plan/examples/lab.yaml");
    dayzero_plan::load_str("lab.yaml", text, &dayzero_plan::Known::default()).unwrap().0
}

pub(crate) fn around() -> Surroundings {
    Surroundings {
        agent_server: "10.77.0.2:7443".parse().unwrap(),
        enrol_server: "10.77.0.2:8444".parse().unwrap(),
        manifest_url: "http://10.77.0.2:8080/host/manifest.json".to_owned(),
        chunks_url: "http://10.77.0.2:8080/host".to_owned(),
        manifest_sha256: Some(Sha256([7; 32])),
        elected: Some("host1".parse().unwrap()),
        volume_group: true,
        drift: Some(Vec::new()),
    }
}

pub(crate) fn window(host: &str) -> WindowFacts {
    WindowFacts {
        override_read_back: "Pxe once".to_owned(),
        powered: Some(Timestamp(2000)),
        channel: "virtual media".to_owned(),
        ..WindowFacts::new(BootWindow { boot: BootId(0xaa), host: host.parse().unwrap() }, Timestamp(1000))
    }
}

/// Facts of a host that is well and joined.
pub(crate) fn whole(site: &Site, host: &str) -> HostFacts {
    let placed = site.host(&host.parse().unwrap()).unwrap();
    let plan = placed.host;
    let (network, luns) = (desired::network(site, &placed).unwrap(), desired::luns(site, &placed).unwrap());
    let order = desired::proof(site, &placed).unwrap();
    let at = Timestamp(5000);
    let neighbour = |(_, mac, port): (&Name, MacAddr, &dayzero_model::site::SwitchPort)| Neighbour {
        nic_mac: mac,
        system_name: port.switch.to_string(),
        port_id: port.port.clone(),
        port_description: None,
    };
    let leg = |nic: &dayzero_model::site::NicPlan| LegState {
        mac: nic.mac,
        kernel_name: nic.role.to_string(),
        up: true,
        usable: true,
    };
    let path = |path: &dayzero_model::storage::PathSpec| PathState {
        portal: path.portal,
        kernel_name: "sdb".into(),
        active: true,
    };
    let trial = |path: &crate::ProofPath| {
        path.bounds.iter().map(|(how, bound)| trial(path, *how, bound)).collect::<Vec<_>>()
    };
    HostFacts {
        bmc_lease: Some(at),
        bmc: Some(BmcFacts {
            address: plan.bmc.address,
            protocol: BmcProtocol::Redfish,
            certificate: Some(Sha256([2; 32])),
            manufacturer: None,
            model: None,
            serial: Some(plan.serial.clone()),
            board_serial: None,
            uuid: plan.uuid.clone(),
            bmc_mac: Some(plan.bmc.mac),
            nic_macs: vec![plan.bond.nics[0].mac],
            power_on: true,
            secure_boot: None,
            https_boot: None,
            at,
        }),
        credential: CredentialPhase::FactoryDisabled,
        vouch: Some(VouchFacts {
            boot: BootId(0xaa),
            key: Sha256([4; 32]),
            certificate: Sha256([5; 32]),
            channel: "virtual media".into(),
            at,
        }),
        inventory: Some(inventory(plan, placed.host.nics().map(neighbour).collect())),
        inventory_at: Some(at),
        install: Some(install(plan)),
        boot_order: vec!["disk".into()],
        boot_order_at: Some(at),
        started: Some(started(plan)),
        agent: Some(AgentFacts {
            installed: true,
            version: "1".into(),
            kernel_boot: "b".into(),
            connected: true,
            since: at,
        }),
        network: Some(NetworkReport {
            converged: true,
            bond: Some(BondState {
                name: "bond0".into(),
                mode: "802.3ad".into(),
                active: None,
                legs: plan.bond.nics.iter().map(leg).collect(),
                partner: Some("02:00:00:00:00:01".parse().unwrap()),
            }),
            ..NetworkReport::default()
        }),
        network_basis: Some(crate::basis(&network)),
        luns: luns
            .iter()
            .map(|lun| LunReport {
                storage: Some(lun.storage.clone()),
                device: Some(format!("/dev/mapper/3{}", lun.wwn)),
                size: Bytes(4 << 30),
                paths: lun.paths.iter().map(path).collect(),
                problems: vec![],
            })
            .collect(),
        luns_basis: Some(crate::basis(&luns)),
        proof: Some(ProofReport {
            started: at,
            ended: at,
            trials: order.paths.iter().flat_map(trial).collect(),
            refused: None,
            held: true,
        }),
        proof_basis: Some(order.basis),
        capacity: Some(Capacity { threads: 2, cpu: Mhz(4000), memory: MebiBytes(1024), kvm: true }),
        ..HostFacts::default()
    }
}

fn trial(path: &crate::ProofPath, how: Break, bound: &desired::Bound) -> Trial {
    Trial {
        path: path.role.clone(),
        how,
        probe: path.probe,
        gap: Millis(50),
        bound: bound.limit,
        bound_is: bound.is.clone(),
        sent: 100,
        lost: 0,
        wrong_blocks: 0,
        read_back: 10,
        recovered: Some(Millis(900)),
        held: true,
    }
}

fn inventory(plan: &Host, neighbours: Vec<Neighbour>) -> Inventory {
    Inventory {
        system: SystemIdentity {
            serial: Some(plan.serial.clone()),
            uuid: plan.uuid.clone(),
            ..SystemIdentity::default()
        },
        boot_mode: BootMode::Uefi,
        firmware: Firmware::default(),
        cpu: Cpu { sockets: 1, threads: 2, ..Cpu::default() },
        memory: MebiBytes(2048),
        dimms: vec![],
        disks: vec![],
        nics: vec![],
        neighbours,
        kernel: "6.1".into(),
        partial_errors: vec![],
    }
}

fn install(plan: &Host) -> InstallReport {
    InstallReport {
        disk: plan.os_disk.serial.clone().unwrap_or_default(),
        manifest_sha256: Sha256([7; 32]),
        chunks_verified: 100,
        chunks_zero: 10,
        bytes_written: Bytes(1 << 30),
        disk_guid: "guid".into(),
        root_uuid: "uuid".into(),
        machine_id: "id".into(),
        initiator: "iqn".into(),
        ssh_host_key: Sha256([8; 32]),
        boot_entries: vec!["disk".into()],
        millis: 1,
    }
}

fn started(plan: &Host) -> StartReport {
    let entry = BootEntry { number: 3, name: "Dayzero".into(), leads: BootDevice::Partition("esp".into()) };
    StartReport {
        kernel_boot: "b".into(),
        mode: BootMode::Uefi,
        root: RootDisk {
            kernel_name: "sda".into(),
            serial: plan.os_disk.serial.clone(),
            wwn: None,
            disk_guid: Some("guid".into()),
            root_guid: Some("root".into()),
            partitions: vec!["esp".into(), "root".into()],
        },
        current: Some(entry.clone()),
        order: vec![entry],
        problems: vec![],
    }
}

/// The facts of a host that has come as far as `to`: what later conditions rest on is not there yet.
pub(crate) fn cut(mut facts: HostFacts, to: Condition) -> HostFacts {
    let none = HostFacts::default();
    if to <= Condition::Joined {
        facts.capacity = None;
    }
    if to <= Condition::Proven {
        (facts.proof, facts.proof_basis) = (None, None);
    }
    if to <= Condition::Wired {
        (facts.network, facts.network_basis, facts.luns, facts.luns_basis) = (None, None, vec![], None);
    }
    if to <= Condition::Imaged {
        (facts.install, facts.boot_order) = (None, vec![]);
        (facts.boot_order_at, facts.started) = (None, None);
        if let Some(agent) = &mut facts.agent {
            agent.installed = false;
        }
    }
    if to <= Condition::Inventoried {
        facts.inventory = None;
    }
    if to <= Condition::Vouched {
        (facts.vouch, facts.agent) = (None, None);
    }
    if to <= Condition::Found { none } else { facts }
}

/// An action was carried out: the facts that it leaves.
pub(crate) fn carry_out(facts: &mut HostFacts, whole: &HostFacts, kind: ActionKind) {
    match kind {
        ActionKind::ContactBmc => facts.bmc.clone_from(&whole.bmc),
        ActionKind::RotateCredential => {
            facts.credential = match facts.credential {
                CredentialPhase::Factory => CredentialPhase::Stored,
                CredentialPhase::Stored => CredentialPhase::Works,
                _ => CredentialPhase::FactoryDisabled,
            };
        }
        ActionKind::BootDiscovery => facts.window = Some(window("host1")),
        ActionKind::Inventory => facts.inventory.clone_from(&whole.inventory),
        ActionKind::Install => facts.install.clone_from(&whole.install),
        ActionKind::RebootToDisk => facts.agent = None,
        ActionKind::ReadBootOrder => {
            (facts.boot_order_at, facts.started) = (whole.boot_order_at, whole.started.clone());
        }
        ActionKind::ApplyNetwork => {
            facts.network.clone_from(&whole.network);
            facts.network_basis = whole.network_basis;
        }
        ActionKind::ConnectStorage => {
            facts.luns.clone_from(&whole.luns);
            facts.luns_basis = whole.luns_basis;
        }
        ActionKind::MakeVolumeGroup => {}
        ActionKind::Prove => {
            facts.proof.clone_from(&whole.proof);
            facts.proof_basis = whole.proof_basis;
        }
        ActionKind::Measure => facts.capacity = whole.capacity,
    }
}

/// What is awaited happens.
pub(crate) fn happen(facts: &mut HostFacts, whole: &HostFacts, phase: Condition) {
    match phase {
        Condition::Vouched => (facts.vouch, facts.window) = (whole.vouch.clone(), None),
        _ => {
            facts.agent.clone_from(&whole.agent);
            if let Some(agent) = &mut facts.agent {
                agent.installed = facts.install.is_some();
            }
        }
    }
}
