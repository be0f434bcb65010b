use super::*;
use dayzero_model::inventory::{BootMode, Cpu, Disk, Firmware, Inventory, Nic, SystemIdentity};
use dayzero_model::units::Mhz;
use dayzero_model::{Bytes, MebiBytes};

fn nic(mac: &str, slot: &str) -> Nic {
    Nic {
        kernel_name: "eth0".into(),
        mac: mac.parse().unwrap(),
        slot: Some(slot.into()),
        driver: Some("virtio_net".into()),
        speed_mbit: None,
        link: true,
    }
}

fn inventory() -> Inventory {
    Inventory {
        system: SystemIdentity::default(),
        boot_mode: BootMode::Uefi,
        firmware: Firmware::default(),
        cpu: Cpu {
            model: "QEMU TCG CPU version 2.5+".into(),
            sockets: 1,
            cores: 1,
            threads: 1,
            speed: Mhz(2000),
            virtualization: Some("svm".into()),
        },
        memory: MebiBytes(1460),
        dimms: Vec::new(),
        disks: vec![Disk {
            kernel_name: "sda".into(),
            serial: Some("DZDISK0001".into()),
            wwn: Some("0x5000c50077000001".parse().unwrap()),
            size: Bytes(8 << 30),
            logical_block: 512,
            rotational: false,
            bus: "scsi".into(),
            model: None,
            signatures: Vec::new(),
        }],
        nics: vec![
            nic("52:54:00:77:01:01", "0000:00:10.0"),
            nic("52:54:00:77:01:02", "0000:00:11.0"),
            nic("52:54:00:77:01:03", "0000:00:12.0"),
            nic("52:54:00:77:01:04", "0000:00:13.0"),
        ],
        neighbours: Vec::new(),
        kernel: "6.1.0".into(),
        partial_errors: Vec::new(),
    }
}

fn profile() -> Profile {
    by_name(&"qemu-q35".parse().unwrap()).unwrap()
}

#[test]
fn built_in_profiles_and_quirks_parse() {
    assert_eq!(built_in().unwrap().len(), BUILT_IN.len());
    let file = quirks::parse(include_str!("../bmc-quirks.toml")).unwrap();
    assert_eq!(file.manufacturers.get(&674).map(String::as_str), quirks::manufacturer(674));
    let rows = file.rows;
    assert_eq!(rows.len(), quirks::built_in().len());
    assert!(rows.len() > 10);
}

#[test]
fn the_labs_host_matches() {
    assert_eq!(match_host(&profile(), &inventory()), []);
}

#[test]
fn each_drift_is_a_sentence() {
    let mut host = inventory();
    host.memory = MebiBytes(1024);
    host.cpu.cores = 0;
    host.cpu.virtualization = None;
    host.disks[0].size = Bytes(7 << 30);
    host.nics.remove(3);
    host.nics[0].driver = Some("e1000e".into());
    let mut rule = profile();
    rule.system.manufacturers = vec!["Dell Inc.".into()];
    rule.system.boot_modes = vec![BootMode::Bios];
    rule.memory.dimms = Some(4);
    rule.nics[1].min_speed_mbit = Some(10_000);
    rule.nics[2].link = true;
    host.nics[2].link = false;
    let sentences: Vec<String> = match_host(&rule, &host).iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(sentences.join("\n"));
}

#[test]
fn tolerances_have_two_sides_and_exact_ends() {
    for (mib, fits) in [(1305, false), (1306, true), (1536, true), (1766, true), (1767, false)] {
        let host = Inventory { memory: MebiBytes(mib), ..inventory() };
        assert_eq!(match_host(&profile(), &host).is_empty(), fits, "{mib} MiB");
    }
    let mut two = inventory();
    two.disks.push(two.disks[0].clone());
    assert_eq!(match_host(&profile(), &two).len(), 1, "a second disk of this size is one too many");
}

fn planned() -> dayzero_model::site::Host {
    toml::from_str(
        r#"
name = "host1"
rack = "r1"
u = 10
serial = "DZ-LAB-0001"
address = "10.77.0.11"
bmc = { mac = "52:54:00:77:09:01", address = "10.77.9.11", credential = "factory" }
os_disk = { serial = "DZDISK0001", wwn = "0x5000c50077000001" }
[bond]
mode = "802.3ad"
nics = [
  { role = "pod-a", mac = "52:54:00:77:01:01", port = { switch = "sw-a", port = "1" } },
  { role = "pod-b", mac = "52:54:00:77:01:02", port = { switch = "sw-b", port = "1" } },
]
"#,
    )
    .unwrap()
}

#[test]
fn the_plans_nics_and_disk_are_where_it_says() {
    assert_eq!(match_plan(&profile(), &inventory(), &planned()), []);
    let mut host = inventory();
    let second = host.nics[1].mac;
    (host.nics[1].mac, host.nics[0].mac) = (host.nics[0].mac, second);
    host.disks[0].serial = Some("OTHER".into());
    let mut sentences: Vec<String> =
        match_plan(&profile(), &host, &planned()).iter().map(ToString::to_string).collect();
    host.nics[0].mac = "52:54:00:00:00:99".parse().unwrap();
    host.nics[1].mac = "52:54:00:00:00:98".parse().unwrap();
    sentences.extend(match_plan(&profile(), &host, &planned()).iter().take(1).map(ToString::to_string));
    insta::assert_snapshot!(sentences.join("\n"), @r"
    NIC pod-a: expected MAC 52:54:00:77:01:01, observed 52:54:00:77:01:02 there; 52:54:00:77:01:01 is in 0000:00:11.0
    NIC pod-b: expected MAC 52:54:00:77:01:02, observed 52:54:00:77:01:01 there; 52:54:00:77:01:02 is in 0000:00:10.0
    disk for the operating system: expected serial DZDISK0001 and WWN 5000c50077000001, observed 8 GiB scsi serial OTHER WWN 5000c50077000001
    NIC pod-a: expected MAC 52:54:00:77:01:01, observed 52:54:00:00:00:99; no NIC has 52:54:00:77:01:01
    ");
}

#[test]
fn wrong_profiles_say_what_is_wrong() {
    let text = include_str!("../qemu-q35.toml");
    for (from, to, expected) in [
        ("schema = 1", "schema = 2", "write 1"),
        ("name = \"qemu-q35\"", "name = \"other\"", "must be other.toml"),
        ("[memory]", "[memory]\nspeed = 3200", "unknown field `speed`"),
        ("tolerance_percent = 15", "tolerance_percent = 90", "at most 50"),
        ("0000:00:11.0", "0000:00:10.0", "stands twice"),
        ("0000:00:11.0", "00:11.0", "no PCI address"),
        ("size = \"8 GiB\"", "size = \"8 gigs\"", "no size"),
        ("cores = { min = 1 }", "cores = { min = 4, max = 2 }", "at most less"),
    ] {
        let error = Profile::parse("qemu-q35.toml", &text.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains(expected), "{to}: {error}");
    }
    let error = by_name(&"r650".parse().unwrap()).unwrap_err().to_string();
    assert_eq!(error, "there is no hardware profile r650; there are: qemu-q35");
}

#[test]
fn a_directory_adds_to_the_built_in_ones() {
    let dir = tempfile::tempdir().unwrap();
    let text = include_str!("../qemu-q35.toml");
    std::fs::write(dir.path().join("r650.toml"), text.replace("qemu-q35", "r650")).unwrap();
    std::fs::write(dir.path().join("qemu-q35.toml"), text.replace("1536 MiB", "4 GiB")).unwrap();
    std::fs::write(dir.path().join("bmc-quirks.toml"), "").unwrap();
    let profiles = load_dir(dir.path()).unwrap();
    assert_eq!(profiles.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["qemu-q35", "r650"]);
    assert_eq!(profiles[0].memory.size, Bytes(4 << 30), "the directory's own stands for the built-in");
    std::fs::write(dir.path().join("bad.toml"), "schema = 1\n").unwrap();
    assert!(load_dir(dir.path()).unwrap_err().to_string().contains("bad.toml"));
}

#[test]
fn quirks_match_by_prefix_in_any_case_and_not_beyond() {
    let dell = Quirks::of("DELL Inc.", "PowerEdge R760", "7.10");
    assert!(dell.has(Effect::SkuIsSerial) && !dell.has(Effect::BootModeNeeded));
    assert_eq!((dell.first_account_slot(), dell.max_password()), (3, None));
    assert_eq!(Quirks::of("MontaVista Software", "", "").cipher_suite(), Some(3));
    assert_eq!(Quirks::of("Delta", "x", ""), Quirks::default());
    assert_eq!(Quirks::of("", "", ""), Quirks::default());
}

#[test]
fn wrong_quirks_name_the_row() {
    let row = |text: &str| {
        quirks::parse(&format!("schema = 1\n[[quirk]]\nmanufacturer = \"X\"\n{text}")).unwrap_err()
    };
    for (text, expected) in [
        ("effect = \"sings\"\nsource = \"s\"", "no known effect"),
        ("effect = \"max-password\"\nsource = \"s\"", "needs a `value`"),
        ("effect = \"sku-is-serial\"\nvalue = 3\nsource = \"s\"", "takes no `value`"),
        ("effect = \"sku-is-serial\"\nsource = \"\"", "must not be empty"),
        ("effect = \"sku-is-serial\"\nsource = \"s\"\nnote = \"n\"", "unknown field `note`"),
    ] {
        assert!(row(text).to_string().contains(expected), "{text}: {}", row(text));
    }
}
