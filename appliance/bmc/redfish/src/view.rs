//! Typed views of what a service answers: pure, every field optional unless the verb is meaningless without it.

use serde_json::Value;

/// Longest text that is taken from a service's message.
const MAX_MESSAGE: usize = 300;

/// The text at a JSON pointer, trimmed; none where it is absent, no text, or blank.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str).map(str::trim).filter(|s| !s.is_empty())
}

pub(crate) fn owned(value: &Value, pointer: &str) -> Option<String> {
    text(value, pointer).map(str::to_owned)
}

/// The texts of an array at a JSON pointer.
pub(crate) fn texts(value: &Value, pointer: &str) -> Vec<String> {
    let list = value.pointer(pointer).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn extended_info(body: &Value) -> impl Iterator<Item = &Value> {
    let lists = [body.pointer("/error/@Message.ExtendedInfo"), body.get("@Message.ExtendedInfo")];
    lists.into_iter().flatten().filter_map(Value::as_array).flatten().take(8)
}

/// Message ids of an error answer, such as `Base.1.13.PropertyValueNotInList`.
pub(crate) fn message_ids(body: &Value) -> Vec<String> {
    let ids = extended_info(body).filter_map(|info| owned(info, "/MessageId"));
    ids.chain(owned(body, "/error/code")).map(|id| id.chars().take(120).collect()).collect()
}

/// The service's own words, shortened, without control characters.
pub(crate) fn messages(body: &Value) -> String {
    let words: Vec<&str> = extended_info(body).filter_map(|info| text(info, "/Message")).collect();
    let joined = if words.is_empty() {
        text(body, "/error/message").unwrap_or("no message").to_owned()
    } else {
        words.join("; ")
    };
    joined.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect()
}

/// The service root: readable without authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRoot {
    /// `RedfishVersion`.
    pub version: Option<String>,
    /// `UUID` of the service.
    pub uuid: Option<String>,
    /// `Vendor`.
    pub vendor: Option<String>,
    /// `Product`.
    pub product: Option<String>,
}

impl ServiceRoot {
    pub(crate) fn from(body: &Value) -> Self {
        Self {
            version: owned(body, "/RedfishVersion"),
            uuid: owned(body, "/UUID"),
            vendor: owned(body, "/Vendor").or_else(|| {
                let oem = body.get("Oem").and_then(Value::as_object)?;
                oem.keys().next().cloned()
            }),
            product: owned(body, "/Product"),
        }
    }
}

/// The boot override and the boot order of a system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Boot {
    /// `BootSourceOverrideEnabled`: `Disabled`, `Once`, `Continuous`.
    pub enabled: Option<String>,
    /// `BootSourceOverrideTarget`: `None`, `Pxe`, `Hdd`, `Cd`, …
    pub target: Option<String>,
    /// `BootSourceOverrideMode`: `UEFI`, `Legacy`.
    pub mode: Option<String>,
    /// Allowable targets; empty where the service lists none.
    pub targets: Vec<String>,
    /// Allowable modes; empty where the service lists none.
    pub modes: Vec<String>,
    /// `BootOrder`: references of boot options, first one first.
    pub order: Vec<String>,
}

/// A computer system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// Its path on the service.
    pub path: String,
    /// `Manufacturer`.
    pub manufacturer: Option<String>,
    /// `Model`.
    pub model: Option<String>,
    /// `SerialNumber`; where that is the board's, `SKU` may hold the service tag.
    pub serial: Option<String>,
    /// `SKU`: the service tag on Dell.
    pub sku: Option<String>,
    /// Board serial, from the vendor's `Oem` section.
    pub board_serial: Option<String>,
    /// `UUID`, as given.
    pub uuid: Option<String>,
    /// `BiosVersion`.
    pub bios: Option<String>,
    /// `PowerState`: `On`, `Off`, `PoweringOn`, `PoweringOff`, `Paused`.
    pub power: Option<String>,
    /// Boot override and order.
    pub boot: Boot,
}

impl System {
    pub(crate) fn from(path: &str, body: &Value) -> Self {
        Self {
            path: path.to_owned(),
            manufacturer: owned(body, "/Manufacturer"),
            model: owned(body, "/Model"),
            serial: owned(body, "/SerialNumber"),
            sku: owned(body, "/SKU"),
            board_serial: body.get("Oem").and_then(|oem| find_key(oem, "BoardSerialNumber", 4)),
            uuid: owned(body, "/UUID"),
            bios: owned(body, "/BiosVersion"),
            power: owned(body, "/PowerState"),
            boot: Boot {
                enabled: owned(body, "/Boot/BootSourceOverrideEnabled"),
                target: owned(body, "/Boot/BootSourceOverrideTarget"),
                mode: owned(body, "/Boot/BootSourceOverrideMode"),
                targets: texts(body, "/Boot/BootSourceOverrideTarget@Redfish.AllowableValues"),
                modes: texts(body, "/Boot/BootSourceOverrideMode@Redfish.AllowableValues"),
                order: texts(body, "/Boot/BootOrder"),
            },
        }
    }
}

/// The first text under `key` in nested objects.
fn find_key(value: &Value, key: &str, depth: usize) -> Option<String> {
    let object = value.as_object()?;
    if let Some(found) = owned(value, &format!("/{key}")) {
        return Some(found);
    }
    if depth == 0 { None } else { object.values().find_map(|inner| find_key(inner, key, depth - 1)) }
}

/// Serial of the system board in an `Assembly`.
pub(crate) fn board_of_assembly(body: &Value) -> Option<String> {
    let parts = body.get("Assemblies").and_then(Value::as_array)?;
    let board = parts.iter().take(64).find(|part| text(part, "/PhysicalContext") == Some("SystemBoard"))?;
    owned(board, "/SerialNumber")
}

/// One entry of the boot order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootOption {
    /// `BootOptionReference`, such as `Boot0001`.
    pub reference: String,
    /// `DisplayName`.
    pub name: Option<String>,
    /// `UefiDevicePath`.
    pub device_path: Option<String>,
    /// `BootOptionEnabled`.
    pub enabled: Option<bool>,
}

impl BootOption {
    pub(crate) fn from(body: &Value) -> Option<Self> {
        Some(Self {
            reference: owned(body, "/BootOptionReference").or_else(|| owned(body, "/Id"))?,
            name: owned(body, "/DisplayName").or_else(|| owned(body, "/Name")),
            device_path: owned(body, "/UefiDevicePath"),
            enabled: body.get("BootOptionEnabled").and_then(Value::as_bool),
        })
    }
}

/// A network interface of a system or a manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// `Id`.
    pub id: String,
    /// The burnt-in address where it is given (`PermanentMACAddress`), else `MACAddress`.
    pub mac: String,
    /// `IPv4Addresses`, those that are set.
    pub ipv4: Vec<String>,
    /// `LinkStatus`: it has a link; none where the service does not say.
    pub link: Option<bool>,
}

impl Nic {
    pub(crate) fn from(body: &Value) -> Option<Self> {
        let mac = text(body, "/PermanentMACAddress").or_else(|| text(body, "/MACAddress"))?;
        let addresses = body.get("IPv4Addresses").and_then(Value::as_array).into_iter().flatten();
        Some(Self {
            id: owned(body, "/Id").unwrap_or_default(),
            mac: mac.to_owned(),
            ipv4: addresses.filter_map(|a| owned(a, "/Address")).filter(|a| a != "0.0.0.0").collect(),
            // LinkUp, NoLink, LinkDown (DSP8010, EthernetInterface); null where it is not known.
            link: text(body, "/LinkStatus").map(|status| status == "LinkUp"),
        })
    }
}

/// A management controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    /// Its path on the service.
    pub path: String,
    /// `Model`.
    pub model: Option<String>,
    /// `FirmwareVersion`.
    pub firmware: Option<String>,
    /// `UUID`.
    pub uuid: Option<String>,
    /// Its own interfaces.
    pub nics: Vec<Nic>,
}

impl Manager {
    pub(crate) fn from(path: &str, body: &Value, nics: Vec<Nic>) -> Self {
        Self {
            path: path.to_owned(),
            model: owned(body, "/Model"),
            firmware: owned(body, "/FirmwareVersion"),
            uuid: owned(body, "/UUID"),
            nics,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::captures::capture;
    use insta::assert_debug_snapshot;

    #[test]
    fn systems_of_three_vendors_are_read() {
        for name in ["dell-system", "supermicro-system", "dmtf-system"] {
            insta::with_settings!({snapshot_suffix => name}, {
                assert_debug_snapshot!(System::from("/redfish/v1/Systems/x", &capture(name)));
            });
        }
    }

    #[test]
    fn a_bmc_nic_is_read() {
        let nic = Nic::from(&capture("dell-manager-nic")).unwrap();
        assert_eq!(nic.ipv4, ["192.168.247.199"]);
        assert!(nic.mac.len() == 17, "{nic:?}");
    }

    #[test]
    fn blank_and_missing_fields_are_none_and_nothing_is_required() {
        let system = System::from("/x", &serde_json::json!({"SerialNumber": "  ", "Model": 7, "Boot": []}));
        assert_eq!(system.serial, None);
        assert_eq!(system.model, None);
        assert_eq!(system.boot, Boot::default());
        assert_eq!(Nic::from(&serde_json::json!({"MACAddress": null})), None);
    }

    #[test]
    fn an_error_text_is_bounded_and_clean() {
        let body = serde_json::json!({"error": {"message": format!("a\u{1b}[31m{}", "x".repeat(5000))}});
        let text = messages(&body);
        assert_eq!(text.chars().count(), MAX_MESSAGE);
        assert!(!text.contains('\u{1b}'));
    }
}
