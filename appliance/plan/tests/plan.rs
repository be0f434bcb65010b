//! The plan as a whole: schema against types, diff and hash, switch settings, and hostile or large input.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use dayzero_model::site::Site;
use dayzero_plan::{Known, diff, json_schema, load_str, plan_hash, switch_settings};
use proptest::prelude::*;
use serde_json::{Value, json};

const LAB: &str = include_str!("../examples/lab.yaml");

fn lab() -> Site {
    load_str("lab.yaml", LAB, &Known::default()).unwrap().0
}

/// The lab with every optional key given, as JSON.
fn full() -> Value {
    let mut site = serde_json::to_value(lab()).unwrap();
    let cluster = &mut site["zones"][0]["pods"][0]["clusters"][0];
    (cluster["vm_cap"], cluster["dom0_memory_mib"]) = (json!(3), json!(2940));
    cluster["hosts"][0]["hypervisor"] = json!("kvm");
    cluster["hosts"][0]["storage_nics"][0]["bonded"] = json!(false);
    site["primary_storage"][0]["path"] = json!("/export");
    site["primary_storage"][0]["size"] = json!(4096);
    site["templates"][0]["sha256"] = json!("ab".repeat(32));
    site["networks"].as_array_mut().unwrap().swap(0, 4);
    let network = &mut site["networks"][0];
    network["open_pool"] = json!(true);
    network["dhcp"] = json!("proxy");
    network["relays"] = json!(["10.88.0.1"]);
    network["relay_sources"] = json!(["10.77.0.1", "fd77::1"]);
    network["cidr6"] = json!("fd77:0:0:100::/64");
    network["dns"] = json!(["10.77.0.2"]);
    network["reservations"] = json!([{
        "name": "pdu1", "address": "10.77.100.9", "mac": "52:54:00:77:99:01", "client_id": "0x0102",
        "duid": "0x00030001525400779901", "circuit": { "id": "Ethernet1/7", "remote": "sw-a" },
    }]);
    site["zones"][0]["pods"][0]["clusters"][0]["hosts"][0]["secure_boot"] = json!("uki");
    site["zones"][0]["pods"][0]["clusters"][0]["hosts"][0]["https_boot"] = json!(true);
    site
}

#[test]
fn the_published_schema_is_the_shape_table() {
    let text = format!("{}\n", serde_json::to_string_pretty(&json_schema()).unwrap());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/site.schema.json");
    if std::env::var_os("DAYZERO_WRITE_SCHEMA").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let published = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(published, text, "write it again with DAYZERO_WRITE_SCHEMA=1");
}

/// Every object of the schema, with a JSON pointer to an example of it in `full()`.
const EXAMPLES: [(&str, &str); 20] = [
    ("", ""),
    ("network", "/networks/0"),
    ("range", "/networks/0/pool"),
    ("reservation", "/networks/0/reservations/0"),
    ("circuit", "/networks/0/reservations/0/circuit"),
    ("switch", "/switches/0"),
    ("primary_storage", "/primary_storage/0"),
    ("portal", "/primary_storage/0/portals/0"),
    ("secondary_storage", "/secondary_storage/0"),
    ("offering", "/offerings/0"),
    ("template", "/templates/0"),
    ("zone", "/zones/0"),
    ("pod", "/zones/0/pods/0"),
    ("rack", "/zones/0/pods/0/racks/0"),
    ("cluster", "/zones/0/pods/0/clusters/0"),
    ("host", "/zones/0/pods/0/clusters/0/hosts/0"),
    ("bmc", "/zones/0/pods/0/clusters/0/hosts/0/bmc"),
    ("bond", "/zones/0/pods/0/clusters/0/hosts/0/bond"),
    ("storage_nic", "/zones/0/pods/0/clusters/0/hosts/0/storage_nics/0"),
    ("disk", "/zones/0/pods/0/clusters/0/hosts/0/os_disk"),
];

#[test]
fn the_schema_and_the_types_agree_key_by_key() {
    let (schema, full) = (json_schema(), full());
    serde_json::from_value::<Site>(full.clone()).unwrap();
    for (definition, pointer) in EXAMPLES {
        let object = if definition.is_empty() { &schema } else { &schema["$defs"][definition] };
        let example = full.pointer(pointer).unwrap().as_object().unwrap();
        let required: Vec<&str> =
            object["required"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
        let keys: Vec<&String> = object["properties"].as_object().unwrap().keys().collect();
        for key in example.keys() {
            assert!(keys.contains(&key), "{definition}: the type has {key}, the schema does not");
        }
        for key in keys {
            if ["stack", "vlan", "gateway"].contains(&key.as_str()) && !example.contains_key(key) {
                continue;
            }
            assert!(example.contains_key(key), "{definition}: the example has no {key}");
            let mut without = full.clone();
            without.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(key);
            let accepted = serde_json::from_value::<Site>(without).is_ok();
            assert_eq!(accepted, !required.contains(&key.as_str()), "{definition}: {key} is required or not");
        }
        let mut more = full.clone();
        more.pointer_mut(pointer).unwrap()["surprise"] = json!(1);
        assert!(serde_json::from_value::<Site>(more).is_err(), "{definition} takes unknown keys");
    }
}

#[test]
fn enumerations_of_the_schema_are_the_types_words() {
    let words =
        |definition: &str, key: &str| json_schema()["$defs"][definition]["properties"][key]["enum"].clone();
    let full = full();
    for (definition, key, pointer) in [
        ("network", "role", "/networks/0/role"),
        ("network", "dhcp", "/networks/0/dhcp"),
        ("switch", "role", "/switches/0/role"),
        ("primary_storage", "kind", "/primary_storage/0/kind"),
        ("primary_storage", "layout", "/primary_storage/0/layout"),
        ("cluster", "hypervisor", "/zones/0/pods/0/clusters/0/hypervisor"),
        ("cluster", "failover", "/zones/0/pods/0/clusters/0/failover"),
        ("bmc", "protocol", "/zones/0/pods/0/clusters/0/hosts/0/bmc/protocol"),
        ("bond", "mode", "/zones/0/pods/0/clusters/0/hosts/0/bond/mode"),
    ] {
        let set = |word: &Value| {
            let mut site = full.clone();
            *site.pointer_mut(pointer).unwrap() = word.clone();
            serde_json::from_value::<Site>(site)
        };
        let words = words(definition, key);
        assert!(words.as_array().is_some_and(|words| words.len() > 1), "{definition}.{key}");
        for word in words.as_array().unwrap() {
            assert!(set(word).is_ok(), "{definition}.{key}: the type refuses {word}");
        }
        let error = set(&json!("surprise")).unwrap_err().to_string();
        let known = error.matches('`').count() / 2 - 1;
        assert_eq!(known, words.as_array().unwrap().len(), "{definition}.{key}: {error}");
    }
}

#[test]
fn applying_twice_changes_nothing() {
    let site = lab();
    let first = diff(None, &site);
    assert!(first.counts().0 > 10 && first.counts().1 == 0);
    insta::assert_snapshot!("first-apply", first);
    let again = diff(Some(&site), &site);
    assert!(again.is_empty());
    assert_eq!((again.to_string().as_str(), again.old_hash), ("no changes", again.new_hash));
}

#[test]
fn changes_are_shown_by_name_with_both_values() {
    let changed = LAB
        .replace("address: 10.77.0.12", "address: 10.77.0.13")
        .replace("vms_per_host: 4", "vms_per_host: 3")
        .replace("- name: host1", "- name: host3")
        .replace("primary_storage: [lun0]", "primary_storage: []");
    let (new, _) = load_str("site.yaml", &changed, &Known::default()).unwrap();
    let difference = diff(Some(&lab()), &new);
    insta::assert_snapshot!("changes", difference);
    let first = serde_json::to_string_pretty(&difference.to_json()["changes"][0]).unwrap();
    insta::assert_snapshot!("changes-json", first);
    assert_ne!(plan_hash(&new), plan_hash(&lab()));
}

#[test]
fn order_of_named_things_is_no_change_and_order_of_nics_is() {
    let mut moved = lab();
    moved.networks.reverse();
    moved.zones[0].pods[0].clusters[0].hosts.reverse();
    assert!(diff(Some(&lab()), &moved).is_empty());
    assert_eq!(plan_hash(&lab()), plan_hash(&moved));
    moved.zones[0].pods[0].clusters[0].hosts[0].bond.nics.reverse();
    assert_eq!(diff(Some(&lab()), &moved).counts(), (0, 0, 1), "the first NIC is the one that boots");
    assert_ne!(plan_hash(&lab()), plan_hash(&moved));
}

#[test]
fn what_the_switches_must_be_set_to() {
    insta::assert_snapshot!("switches", switch_settings(&lab()));
}

#[test]
fn hostile_yaml_is_refused_in_bounds() {
    let deep = format!("name: {}", "[".repeat(10_000));
    let keys: String = (0..1000).map(|i| format!("k{i}: 1\n")).collect();
    let bomb = "a: &a [x,x]\nb: [*a,*a]\n";
    for (text, expected) in [
        (deep.as_str(), "DZ001"),
        (keys.as_str(), "DZ001"),
        (bomb, "DZ001"),
        ("", "DZ001"),
        ("---\nname: a\n---\nname: b\n", "DZ001"),
        ("name: !!str x\n", "DZ001"),
        ("- 1\n", "DZ004"),
        ("? [a]\n: b\n", "DZ001"),
    ] {
        let found = load_str("site.yaml", text, &Known::default()).unwrap_err();
        assert_eq!(found.list()[0].code, expected, "{found}");
    }
    let escape =
        load_str("site.yaml", "name: \"\\u001b[31m\"\n\u{1b}[31mbad: 1\n", &Known::default()).unwrap_err();
    assert!(!escape.to_string().contains('\u{1b}'), "a terminal code of the plan reached the terminal");
}

#[test]
fn a_plan_with_byte_order_mark_and_crlf_reads() {
    let windows = format!("\u{feff}{}", LAB.replace('\n', "\r\n"));
    assert_eq!(load_str("site.yaml", &windows, &Known::default()).unwrap().0, lab());
}

#[test]
fn texts_that_look_like_numbers_stay_texts() {
    let plain = LAB
        .replace("serial: DZ-LAB-0001", "serial: 0012")
        .replace("serial: DZ-LAB-0002", "serial: 1e5")
        .replace("port: \"1\"", "port: 01")
        .replace("\"52:54:00:77:09:01\"", "525400770901")
        .replace("\"52:54:00:77:09:02\"", "52:54:00:77:09:02")
        .replace("domain: lab.dayzero.example", "domain: no");
    let (site, _) =
        load_str("site.yaml", &plain, &Known::default()).unwrap_or_else(|found| panic!("{found}"));
    let hosts: Vec<_> = site.hosts().map(|at| at.host).collect();
    assert_eq!(
        (hosts[0].serial.as_str(), hosts[1].serial.as_str(), site.domain.as_str()),
        ("0012", "1e5", "no")
    );
    assert_eq!(hosts[0].bond.nics[0].port.port, "01");
    assert_eq!(
        hosts.iter().map(|host| host.bmc.mac).collect::<Vec<_>>(),
        lab().hosts().map(|at| at.host.bmc.mac).collect::<Vec<_>>()
    );
}

#[test]
fn a_plan_of_3000_hosts_is_checked_whole() {
    let row = |i: usize| {
        let (rack, u, cluster) = (i / 40, i % 40 + 1, i / 16);
        let mac = |kind: usize| format!("52:54:{kind:02x}:00:{:02x}:{:02x}", i >> 8, i & 255);
        format!(
            "r{rack},{u},S{i},{},R650,c{cluster},{} {} {} {},D{i}\n",
            mac(0),
            mac(1),
            mac(2),
            mac(3),
            mac(4)
        )
    };
    let rows: String = (0..3000).map(row).collect();
    let csv = format!("rack,u,serial,bmc_mac,model,cluster,nics,disk_serial\n{rows}");
    let hosts = dayzero_plan::hosts_csv::read("hosts.csv", csv.as_bytes()).unwrap();
    let wide =
        [("management", "10.1.0.0/16"), ("bmc", "10.2.0.0/16"), ("storage", "10.3.0.0/16 10.4.0.0/16")];
    let answers = wide.iter().map(|(id, text)| ((*id).to_owned(), (*text).to_owned())).collect();
    let text = dayzero_plan::init::write(&answers, Some(&hosts)).unwrap();
    let text = text.replace("CHANGE-ME", "lun0").replace("0x6000000000000000", "0x6000000000000001");
    let (site, source) =
        load_str("site.yaml", &text, &Known::default()).unwrap_or_else(|found| panic!("{found}"));
    assert_eq!((site.hosts().count(), source.warnings().list().len()), (3000, 0), "{}", source.warnings());
    assert!(diff(Some(&site), &site).is_empty());
    let doubled = text.replacen("serial: \"S2999\"", "serial: \"S7\"", 1);
    assert_eq!(load_str("site.yaml", &doubled, &Known::default()).unwrap_err().errors(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_damaged_plan_never_panics(at in 0_usize..LAB.len(), length in 0_usize..40, junk in "[ -~\\n\u{e4}]{0,12}") {
        let floor = |mut at: usize| { while !LAB.is_char_boundary(at) { at -= 1 } at };
        let (start, end) = (floor(at), floor((at + length).min(LAB.len())));
        let damaged = format!("{}{junk}{}", &LAB[..start], &LAB[end..]);
        if let Err(found) = load_str("site.yaml", &damaged, &Known::default()) {
            prop_assert!(found.errors() > 0);
            prop_assert!(found.to_string().contains("DZ0"));
        }
    }
}
