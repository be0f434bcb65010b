use super::*;

type Files<'a> = &'a [(&'a str, &'a str)];

/// A sysfs with these disks: name, (file, content) pairs, and where the link leads.
fn sysfs(disks: &[(&str, &str, Files)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let block = root.path().join("block");
    std::fs::create_dir(&block).unwrap();
    for (name, device, files) in disks {
        let target = root.path().join("devices").join(device).join(name);
        for (file, content) in *files {
            let path = target.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        std::os::unix::fs::symlink(&target, block.join(name)).unwrap();
    }
    root
}

fn rack() -> Vec<FoundDisk> {
    let root = sysfs(&[
        (
            "vda",
            "pci0/virtio0",
            &[("size", "8388608\n"), ("serial", "DZDISK0001"), ("queue/rotational", "1")],
        ),
        (
            "sda",
            "pci0/virtio1/host0",
            &[
                ("size", "16777216\n"),
                ("device/wwid", "naa.5000c50012345678\n"),
                ("device/vpd_pg80", "\0\0\0\u{8}  ABCD12"),
                ("device/model", "HARDDISK        "),
                ("queue/logical_block_size", "4096"),
                ("queue/rotational", "0"),
            ],
        ),
        (
            "nvme0n1",
            "pci1/nvme",
            &[("size", "1000"), ("device/serial", "N1  "), ("wwid", "eui.0025388b710116a1")],
        ),
        ("nvme0c0n1", "pci1/nvme", &[("size", "1000")]),
        (
            "sdb",
            "platform/host3/session1",
            &[("size", "100"), ("device/wwid", "naa.6000000000000000000000000e000001")],
        ),
        (
            "sdc",
            "platform/host4/session2",
            &[("size", "100"), ("device/wwid", "naa.6000000000000000000000000e000001")],
        ),
        (
            "sdd",
            "pci2/host5/rport-5:0-0",
            &[("size", "100"), ("device/wwid", "naa.600000000000000000000000000000fc")],
        ),
        ("sde", "pci2/host6", &[("size", "100"), ("device/wwid", "naa.5000c500000000aa")]),
        ("sdf", "pci2/host7", &[("size", "100"), ("device/wwid", "naa.5000c500000000aa")]),
        ("sdg", "pci2/host8", &[("size", "100"), ("device/wwid", "naa.5000c500000000bb"), ("ro", "1")]),
        ("sr0", "pci0/ata1", &[("size", "100")]),
        ("loop0", "virtual", &[("size", "100")]),
        ("sdz", "pci0/ata2", &[("size", "0")]),
    ]);
    enumerate_in(&root.path().join("block"), Path::new("/dev")).unwrap()
}

#[test]
fn disks_say_who_they_are() {
    let disks = rack();
    let lines: Vec<String> = disks
        .iter()
        .map(|d| {
            let disk = &d.disk;
            format!(
                "{} {} {} {} rotational={}",
                d.text(),
                disk.bus,
                disk.size,
                disk.logical_block,
                disk.rotational
            )
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    nvme0n1 (serial N1, WWN 0025388b710116a1) nvme 500 KiB 512 rotational=false
    sda (serial ABCD12, WWN 5000c50012345678) scsi 8 GiB 4096 rotational=false
    sdb (WWN 6000000000000000000000000e000001) iscsi 50 KiB 512 rotational=false
    sdc (WWN 6000000000000000000000000e000001) iscsi 50 KiB 512 rotational=false
    sdd (WWN 600000000000000000000000000000fc) fc 50 KiB 512 rotational=false
    sde (WWN 5000c500000000aa) scsi 50 KiB 512 rotational=false
    sdf (WWN 5000c500000000aa) scsi 50 KiB 512 rotational=false
    sdg (WWN 5000c500000000bb) scsi 50 KiB 512 rotational=false
    vda (serial DZDISK0001) virtio 4 GiB 512 rotational=true
    ");
}

#[test]
fn exactly_one_local_writable_disk_is_selected() {
    let disks = rack();
    let select = |serial: Option<&str>, wwn: Option<&str>| {
        let selector =
            DiskSelector { serial: serial.map(str::to_owned), wwn: wwn.map(|wwn| wwn.parse().unwrap()) };
        super::select(&disks, &selector).map(FoundDisk::text).map_err(|e| format!("{}: {e}", e.code()))
    };
    assert_eq!(select(Some("DZDISK0001"), None).unwrap(), "vda (serial DZDISK0001)");
    assert_eq!(
        select(Some("ABCD12"), Some("0x5000c50012345678")).unwrap(),
        "sda (serial ABCD12, WWN 5000c50012345678)"
    );
    let cases = [
        (None, None, "disk-missing: no disk of this host is a disk without serial and WWN"),
        // Serial of one disk, WWN of another.
        (
            Some("DZDISK0001"),
            Some("0x5000c50012345678"),
            "disk-missing: no disk of this host is serial DZDISK0001 and WWN",
        ),
        (
            None,
            Some("6000000000000000000000000e000001"),
            "disk-ambiguous: WWN 6000000000000000000000000e000001 names more",
        ),
        (
            None,
            Some("600000000000000000000000000000fc"),
            "disk-unfit: disk sdd (WWN 600000000000000000000000000000fc) cannot be the operating system's: it is reached by fc",
        ),
        (None, Some("5000c500000000aa"), "disk-ambiguous"),
        (
            None,
            Some("5000c500000000bb"),
            "disk-unfit: disk sdg (WWN 5000c500000000bb) cannot be the operating system's: it is write protected",
        ),
    ];
    for (serial, wwn, expected) in cases {
        let error = select(serial, wwn).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn a_disk_that_is_seen_twice_is_refused_even_if_one_path_lacks_its_serial() {
    let mut disks = rack();
    let path = disks.iter().position(|d| d.disk.kernel_name == "sde").unwrap();
    disks[path].disk.serial = Some("TWIN".to_owned());
    let selector = DiskSelector { serial: Some("TWIN".to_owned()), wwn: None };
    let error = select(&disks, &selector).unwrap_err();
    assert_eq!(error.code(), "disk-unfit");
    assert!(
        error.to_string().contains("sdf (WWN 5000c500000000aa) is the same disk over another path"),
        "{error}"
    );
}
