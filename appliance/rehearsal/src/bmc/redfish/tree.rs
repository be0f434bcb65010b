//! The resources as JSON: a pure function of the spec, the state and the machine.
//!
//! Schemas: DSP8010 of 2026-01. The board's serial is in the chassis' Assembly, the standard's place for it.

use super::state::{MAX_PASSWORD, MIN_PASSWORD, ROLES, State};
use crate::bmc::BmcEmulatorSpec;
use crate::machine::Firmware;
use serde_json::{Value, json};
use sha2::Digest;
use std::fmt::Write as _;

pub(super) const ROOT: &str = "/redfish/v1";
pub(super) const METADATA: &str = "/redfish/v1/$metadata";
pub(super) const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
pub(super) const ACCOUNTS: &str = "/redfish/v1/AccountService/Accounts";
pub(super) const SYSTEM: &str = "/redfish/v1/Systems/1";
pub(super) const RESET: &str = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";
pub(super) const CD: &str = "/redfish/v1/Managers/1/VirtualMedia/Cd";
pub(super) const INSERT: &str = "/redfish/v1/Managers/1/VirtualMedia/Cd/Actions/VirtualMedia.InsertMedia";
pub(super) const EJECT: &str = "/redfish/v1/Managers/1/VirtualMedia/Cd/Actions/VirtualMedia.EjectMedia";
pub(super) const BOOT_TARGETS: [&str; 3] = ["None", "Pxe", "Hdd"];
pub(super) const RESET_TYPES: [&str; 5] =
    ["On", "ForceOff", "GracefulShutdown", "ForceRestart", "PowerCycle"];

/// Schemas in use: name, type version.
const SCHEMAS: [(&str, &str); 14] = [
    ("ServiceRoot", "v1_17_0"),
    ("ComputerSystem", "v1_22_0"),
    ("Manager", "v1_19_0"),
    ("ManagerAccount", "v1_12_0"),
    ("AccountService", "v1_15_0"),
    ("Role", "v1_3_1"),
    ("Session", "v1_7_0"),
    ("SessionService", "v1_1_9"),
    ("EthernetInterface", "v1_12_0"),
    ("VirtualMedia", "v1_6_3"),
    ("Chassis", "v1_25_0"),
    ("Assembly", "v1_5_0"),
    ("BootOption", "v1_0_5"),
    ("Message", "v1_1_2"),
];

/// What a resource is made from.
pub(super) struct Now<'a> {
    pub(super) spec: &'a BmcEmulatorSpec,
    pub(super) state: &'a State,
    pub(super) on: bool,
    pub(super) armed: bool,
    /// Of each NIC.
    pub(super) links: Vec<bool>,
    pub(super) order: Vec<(u16, String)>,
}

/// A path without a slash at its end.
pub(super) fn canonical(path: &str) -> String {
    let path = path.trim_end_matches('/');
    if path.is_empty() { "/".into() } else { path.to_owned() }
}

/// What DSP0266, 13.3.2 lets anyone read.
pub(super) fn is_public(path: &str) -> bool {
    matches!(path, "/redfish" | ROOT | METADATA | "/redfish/v1/odata")
}

/// Methods of an existing resource, for `Allow`.
pub(super) fn methods(path: &str) -> &'static str {
    let under = |collection: &str| path.strip_prefix(collection).is_some_and(|rest| rest.starts_with('/'));
    match path {
        SESSIONS | ACCOUNTS => "GET, HEAD, POST",
        SYSTEM => "GET, HEAD, PATCH",
        _ if under(ACCOUNTS) => "GET, HEAD, PATCH, DELETE",
        _ if under(SESSIONS) => "GET, HEAD, DELETE",
        _ => "GET, HEAD",
    }
}

/// A strong entity tag.
pub(super) fn etag(value: &Value) -> String {
    let digest = sha2::Sha256::digest(value.to_string().as_bytes());
    format!("\"{}\"", hex::encode(&digest[..8]))
}

/// The OData metadata document.
pub(super) fn metadata() -> String {
    let mut out = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<edmx:Edmx xmlns:edmx=\"http://docs.oasis-open.org/odata/ns/edmx\" Version=\"4.0\">\n",
    );
    let collections = [
        "ComputerSystem",
        "Manager",
        "Chassis",
        "Session",
        "ManagerAccount",
        "Role",
        "EthernetInterface",
        "VirtualMedia",
        "BootOption",
    ];
    let mut reference = |name: &str, versions: &[&str]| {
        let _ = writeln!(out, "  <edmx:Reference Uri=\"http://redfish.dmtf.org/schemas/v1/{name}_v1.xml\">");
        for version in versions {
            let _ = writeln!(out, "    <edmx:Include Namespace=\"{}{version}\"/>", name);
        }
        out.push_str("  </edmx:Reference>\n");
    };
    for (name, version) in SCHEMAS {
        reference(name, &["", &format!(".{version}")]);
    }
    for name in collections {
        reference(&format!("{name}Collection"), &[""]);
    }
    reference("Resource", &["", ".v1_0_0"]);
    out.push_str("  <edmx:DataServices>\n    <Schema xmlns=\"http://docs.oasis-open.org/odata/ns/edm\" Namespace=\"Service\">\n");
    out.push_str("      <EntityContainer Name=\"Service\" Extends=\"ServiceRoot.v1_17_0.ServiceContainer\"/>\n    </Schema>\n  </edmx:DataServices>\n</edmx:Edmx>\n");
    out
}

fn typed(name: &str) -> String {
    let version = SCHEMAS.iter().find(|(n, _)| *n == name).map_or("v1_0_0", |(_, v)| *v);
    format!("#{name}.{version}.{name}")
}

/// A resource with its identifiers; `body` adds to it.
fn resource_of(kind: &str, path: &str, id: &str, name: &str, body: Value) -> Value {
    let mut out = json!({ "@odata.type": typed(kind), "@odata.id": path, "Id": id, "Name": name });
    if let (Some(out), Value::Object(body)) = (out.as_object_mut(), body) {
        out.extend(body);
    }
    out
}

fn link(path: &str) -> Value {
    json!({ "@odata.id": path })
}

fn collection(kind: &str, path: &str, name: &str, ids: &[String]) -> Value {
    let members: Vec<Value> = ids.iter().map(|id| link(&format!("{path}/{id}"))).collect();
    json!({
        "@odata.type": format!("#{kind}Collection.{kind}Collection"), "@odata.id": path, "Name": name,
        "Members": members, "Members@odata.count": members.len(),
    })
}

fn ok() -> Value {
    json!({ "State": "Enabled", "Health": "OK" })
}

/// The resource at `path`, or none.
pub(super) fn resource(now: &Now, path: &str) -> Option<Value> {
    let one = || vec!["1".to_owned()];
    Some(match path {
        "/redfish" => json!({ "v1": "/redfish/v1/" }),
        ROOT => root(now),
        "/redfish/v1/odata" => odata(),
        "/redfish/v1/Systems" => collection("ComputerSystem", path, "Systems", &one()),
        "/redfish/v1/Managers" => collection("Manager", path, "Managers", &one()),
        "/redfish/v1/Chassis" => collection("Chassis", path, "Chassis", &one()),
        SYSTEM => system(now),
        "/redfish/v1/Systems/1/EthernetInterfaces" => {
            let ids: Vec<String> = (0..now.spec.nic_macs.len()).map(|i| format!("NIC{i}")).collect();
            collection("EthernetInterface", path, "NICs of the host", &ids)
        }
        "/redfish/v1/Systems/1/BootOptions" => {
            collection("BootOption", path, "Boot options", &boot_order(now))
        }
        "/redfish/v1/Managers/1" => manager(now),
        "/redfish/v1/Managers/1/EthernetInterfaces" => collection(
            "EthernetInterface",
            path,
            "NICs of the BMC",
            std::slice::from_ref(&now.spec.interface),
        ),
        "/redfish/v1/Managers/1/VirtualMedia" => {
            collection("VirtualMedia", path, "Virtual media", &["Cd".to_owned()])
        }
        CD => media(now),
        "/redfish/v1/Chassis/1" => chassis(now),
        "/redfish/v1/Chassis/1/Assembly" => assembly(now),
        "/redfish/v1/SessionService" => session_service(),
        SESSIONS => collection("Session", path, "Sessions", &ids(now.state.sessions.keys())),
        "/redfish/v1/AccountService" => account_service(),
        ACCOUNTS => collection("ManagerAccount", path, "Accounts", &ids(now.state.accounts.keys())),
        "/redfish/v1/AccountService/Roles" => {
            let names: Vec<String> = ROLES.iter().map(|(name, _)| (*name).to_owned()).collect();
            collection("Role", path, "Roles", &names)
        }
        other => return member(now, other),
    })
}

fn ids<'a>(keys: impl Iterator<Item = &'a u32>) -> Vec<String> {
    keys.map(u32::to_string).collect()
}

/// A member of a collection.
fn member(now: &Now, path: &str) -> Option<Value> {
    let (parent, id) = path.rsplit_once('/')?;
    match parent {
        SESSIONS => {
            let session = now.state.sessions.get(&id.parse().ok()?)?;
            let user = now.state.accounts.get(&session.account).map(|a| a.user.clone());
            Some(resource_of("Session", path, id, "Session", json!({ "UserName": user, "Password": null })))
        }
        ACCOUNTS => account(now, path, id),
        "/redfish/v1/AccountService/Roles" => {
            let (name, privileges) = ROLES.iter().find(|(name, _)| *name == id)?;
            let body = json!({ "RoleId": name, "IsPredefined": true, "AssignedPrivileges": privileges });
            Some(resource_of("Role", path, id, name, body))
        }
        "/redfish/v1/Systems/1/EthernetInterfaces" => {
            let number = id.strip_prefix("NIC")?.parse::<usize>().ok()?;
            let mac = now.spec.nic_macs.get(number)?.to_string();
            let link = if now.links.get(number).copied()? { "LinkUp" } else { "LinkDown" };
            let body =
                json!({ "MACAddress": mac, "PermanentMACAddress": mac, "LinkStatus": link, "Status": ok() });
            Some(resource_of("EthernetInterface", path, id, id, body))
        }
        "/redfish/v1/Managers/1/EthernetInterfaces" if id == now.spec.interface => {
            let mac = now.spec.mac.to_string();
            let body = json!({
                "MACAddress": mac, "PermanentMACAddress": mac, "InterfaceEnabled": true, "Status": ok(),
                "DHCPv4": { "DHCPEnabled": now.spec.addressing == crate::bmc::Addressing::Dhcp },
            });
            Some(resource_of("EthernetInterface", path, id, "NIC of the BMC", body))
        }
        "/redfish/v1/Systems/1/BootOptions" => {
            let (_, name) = now.order.iter().find(|(number, _)| reference(*number) == id)?;
            let body = json!({ "BootOptionReference": id, "DisplayName": name, "BootOptionEnabled": true });
            Some(resource_of("BootOption", path, id, id, body))
        }
        _ => None,
    }
}

fn reference(number: u16) -> String {
    format!("Boot{number:04X}")
}

/// What the host's firmware keeps; a BMC makes none up.
fn boot_order(now: &Now) -> Vec<String> {
    now.order.iter().map(|(number, _)| reference(*number)).collect()
}

fn root(now: &Now) -> Value {
    let body = json!({
        "RedfishVersion": "1.20.0", "Vendor": "Dayzero", "Product": "Dayzero lab BMC", "UUID": now.spec.identity.uuid,
        "Systems": link("/redfish/v1/Systems"), "Managers": link("/redfish/v1/Managers"),
        "Chassis": link("/redfish/v1/Chassis"), "SessionService": link("/redfish/v1/SessionService"),
        "AccountService": link("/redfish/v1/AccountService"), "Links": { "Sessions": link(SESSIONS) },
    });
    resource_of("ServiceRoot", "/redfish/v1/", "RootService", "Root service", body)
}

fn odata() -> Value {
    let names = ["Systems", "Managers", "Chassis", "SessionService", "AccountService"];
    let singleton = |name: &str, url: &str| json!({ "name": name, "kind": "Singleton", "url": url });
    let mut value = vec![singleton("Service", "/redfish/v1/"), singleton("Sessions", SESSIONS)];
    value.extend(names.iter().map(|name| singleton(name, &format!("{ROOT}/{name}"))));
    json!({ "@odata.context": METADATA, "value": value })
}

/// The boot override as it stands: (enabled, target).
pub(super) fn boot_override(now: &Now) -> (&'static str, &'static str) {
    match (now.armed, now.state.disk_once) {
        (true, _) => ("Once", "Pxe"),
        (false, true) => ("Once", "Hdd"),
        (false, false) => ("Disabled", "None"),
    }
}

/// The mode that the host boots in.
pub(super) fn boot_mode(spec: &BmcEmulatorSpec) -> &'static str {
    match spec.firmware {
        Firmware::Uefi => "UEFI",
        Firmware::Bios => "Legacy",
    }
}

fn system(now: &Now) -> Value {
    let id = &now.spec.identity;
    let (enabled, target) = boot_override(now);
    let mode = boot_mode(now.spec);
    let body = json!({
        "SystemType": "Physical", "Manufacturer": id.manufacturer, "Model": id.product, "SerialNumber": id.serial,
        "UUID": id.uuid, "BiosVersion": id.firmware_version, "PowerState": if now.on { "On" } else { "Off" }, "Status": ok(),
        "Boot": {
            "BootSourceOverrideEnabled": enabled,
            "BootSourceOverrideEnabled@Redfish.AllowableValues": ["Disabled", "Once"],
            "BootSourceOverrideTarget": target,
            "BootSourceOverrideTarget@Redfish.AllowableValues": BOOT_TARGETS,
            "BootSourceOverrideMode": mode,
            "BootSourceOverrideMode@Redfish.AllowableValues": [mode],
            "BootOrder": boot_order(now),
            "BootOptions": link("/redfish/v1/Systems/1/BootOptions"),
        },
        "EthernetInterfaces": link("/redfish/v1/Systems/1/EthernetInterfaces"),
        "Links": { "Chassis": [link("/redfish/v1/Chassis/1")], "ManagedBy": [link("/redfish/v1/Managers/1")] },
        "Actions": { "#ComputerSystem.Reset": { "target": RESET, "ResetType@Redfish.AllowableValues": RESET_TYPES } },
    });
    resource_of("ComputerSystem", SYSTEM, "1", "Host", body)
}

fn manager(now: &Now) -> Value {
    let body = json!({
        "ManagerType": "BMC", "Manufacturer": "Dayzero", "Model": "Dayzero lab BMC", "FirmwareVersion": env!("CARGO_PKG_VERSION"),
        "UUID": now.spec.identity.uuid, "PowerState": "On", "Status": ok(),
        "EthernetInterfaces": link("/redfish/v1/Managers/1/EthernetInterfaces"),
        "VirtualMedia": link("/redfish/v1/Managers/1/VirtualMedia"),
        "Links": { "ManagerForServers": [link(SYSTEM)], "ManagerForChassis": [link("/redfish/v1/Chassis/1")] },
    });
    resource_of("Manager", "/redfish/v1/Managers/1", "1", "BMC", body)
}

fn media(now: &Now) -> Value {
    let media = now.state.media.as_ref();
    let body = json!({
        "MediaTypes": ["CD", "DVD"], "Inserted": media.is_some(), "WriteProtected": true,
        "ConnectedVia": if media.is_some() { "URI" } else { "NotConnected" },
        "Image": media.map(|m| &m.url), "ImageName": media.and_then(|m| m.url.rsplit('/').next()),
        "Actions": {
            "#VirtualMedia.InsertMedia": { "target": INSERT },
            "#VirtualMedia.EjectMedia": { "target": EJECT },
        },
    });
    resource_of("VirtualMedia", CD, "Cd", "Virtual CD", body)
}

fn chassis(now: &Now) -> Value {
    let id = &now.spec.identity;
    let body = json!({
        "ChassisType": "RackMount", "Manufacturer": id.manufacturer, "Model": id.product, "SerialNumber": id.serial,
        "PowerState": if now.on { "On" } else { "Off" }, "Status": ok(), "Assembly": link("/redfish/v1/Chassis/1/Assembly"),
        "Links": { "ComputerSystems": [link(SYSTEM)], "ManagedBy": [link("/redfish/v1/Managers/1")] },
    });
    resource_of("Chassis", "/redfish/v1/Chassis/1", "1", "Chassis", body)
}

fn assembly(now: &Now) -> Value {
    let path = "/redfish/v1/Chassis/1/Assembly";
    let board = json!({
        "@odata.id": format!("{path}#/Assemblies/0"), "MemberId": "0", "Name": "System board",
        "PhysicalContext": "SystemBoard", "Vendor": now.spec.identity.manufacturer,
        "SerialNumber": now.spec.identity.board_serial, "Status": ok(),
    });
    resource_of(
        "Assembly",
        path,
        "Assembly",
        "Assembly",
        json!({ "Assemblies": [board], "Assemblies@odata.count": 1 }),
    )
}

fn session_service() -> Value {
    let body =
        json!({ "ServiceEnabled": true, "SessionTimeout": 1800, "Status": ok(), "Sessions": link(SESSIONS) });
    resource_of("SessionService", "/redfish/v1/SessionService", "SessionService", "Sessions", body)
}

fn account_service() -> Value {
    let body = json!({
        "ServiceEnabled": true, "Status": ok(), "MinPasswordLength": MIN_PASSWORD, "MaxPasswordLength": MAX_PASSWORD,
        "AccountLockoutThreshold": 0, "Accounts": link(ACCOUNTS), "Roles": link("/redfish/v1/AccountService/Roles"),
    });
    resource_of("AccountService", "/redfish/v1/AccountService", "AccountService", "Accounts", body)
}

fn account(now: &Now, path: &str, id: &str) -> Option<Value> {
    let account = now.state.accounts.get(&id.parse().ok()?)?;
    let body = json!({
        "UserName": account.user, "Password": null, "RoleId": account.role, "Enabled": account.enabled, "Locked": false,
        "AccountTypes": ["Redfish"],
        "Links": { "Role": link(&format!("/redfish/v1/AccountService/Roles/{}", account.role)) },
    });
    Some(resource_of("ManagerAccount", path, id, "Account", body))
}
