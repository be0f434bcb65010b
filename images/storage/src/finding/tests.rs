//! Disks made with the tools that make them, where they are here, and else by the bytes that their formats name.

use super::*;
use crate::testing::{MIB as MB, tool};
use dayzero_model::units::Timestamp;
use proptest::prelude::*;

fn file(mib: usize) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len((mib * MB) as u64).unwrap();
    file
}

type Patches<'a> = &'a [(u64, &'a [u8])];

fn put(file: &tempfile::NamedTempFile, patches: Patches) {
    use std::os::unix::fs::FileExt;
    for (at, bytes) in patches {
        file.as_file().write_all_at(bytes, *at).unwrap();
    }
}

fn found(file: &tempfile::NamedTempFile) -> Vec<String> {
    signatures_of(file.path()).unwrap()
}

#[test]
fn a_blank_disk_holds_nothing_and_a_single_byte_at_its_end_is_data() {
    let blank = file(8);
    assert_eq!(found(&blank), Vec::<String>::new());
    put(&blank, &[(8 * MB as u64 - 1, b"x")]);
    assert_eq!(found(&blank), ["data in the last MiB: 1 bytes are not zero"]);
}

#[test]
fn file_systems_that_mkfs_made_are_named_with_their_labels() {
    let cases: [(&str, &[&str], &str); 4] = [
        ("mkfs.ext4", &["-q", "-F", "-L", "data"], "ext4 file system 'data'"),
        ("mkfs.ext2", &["-q", "-F"], "ext2 file system"),
        ("mkfs.vfat", &["-F", "16", "-n", "BOOT"], "FAT16 file system 'BOOT'"),
        ("mkswap", &["-q"], "swap space"),
    ];
    for (program, args, expected) in cases {
        let disk = file(16);
        let path = disk.path().to_string_lossy().into_owned();
        tool(program, &[args, &[path.as_str()]].concat());
        assert_eq!(found(&disk), [expected], "{program}");
    }
}

#[test]
fn tables_and_what_lies_in_their_partitions() {
    let disk = file(24);
    let path = disk.path().to_string_lossy().into_owned();
    tool("sgdisk", &["-n", "1:2048:+8M", "-c", "1:windows", "-n", "2:0:0", "-c", "2:home", &path]);
    put(&disk, &[(MB as u64 + 3, b"NTFS    "), (MB as u64 + 510, &[0x55, 0xaa])]);
    insta::assert_snapshot!(found(&disk).join("\n"), @r"
    GPT partition 1 'windows': NTFS file system
    GPT partition 2 'home'
    GPT partition table with 2 partitions
    ");
    // The primary table is gone, the backup is not.
    put(&disk, &[(512, &[0; 512])]);
    assert!(found(&disk).contains(&"GPT partition table with 2 partitions".to_owned()));
    put(&disk, &[(24 * MB as u64 - 512 + 40, &[9; 4])]);
    assert_eq!(found(&disk), ["GPT partition table, damaged"]);

    let disk = file(24);
    let path = disk.path().to_string_lossy().into_owned();
    let mut mbr = vec![0; 512];
    mbr[446..462].copy_from_slice(&[0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0x40, 0, 0]);
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    put(&disk, &[(0, &mbr), (MB as u64, b"XFSB")]);
    assert_eq!(tool("sfdisk", &["-l", &path]).matches("Linux").count(), 1, "sfdisk sees the same");
    assert_eq!(
        found(&disk),
        ["MBR partition 1 of type 0x83: XFS file system", "MBR partition table with 1 partitions"]
    );
}

#[test]
fn members_of_volumes_pools_and_arrays_are_named() {
    const RAID: [u8; 4] = [0xfc, 0x4e, 0x2b, 0xa9];
    let end = 16 * MB as u64;
    let mut lvm = [0; 64];
    lvm[..8].copy_from_slice(b"LABELONE");
    lvm[24..32].copy_from_slice(b"LVM2 001");
    lvm[32..].copy_from_slice(b"aBcDeFgHiJkLmNoPqRsTuVwXyZ012345");
    let mut raid = [0; 64];
    raid[..4].copy_from_slice(&RAID);
    raid[32..38].copy_from_slice(b"host:0");
    let mut iso = [0; 80];
    iso[1..6].copy_from_slice(b"CD001");
    iso[40..46].copy_from_slice(b"DEBIAN");
    let uber = 0x00ba_b10c_u64;
    let cases: [(Patches, &str); 14] = [
        (&[(512, &lvm)], "LVM2 physical volume aBcDeFgHiJkLmNoPqRsTuVwXyZ012345"),
        (&[(4096, &raid)], "Linux RAID member 'host:0', metadata 1.2"),
        (&[(0, &raid)], "Linux RAID member 'host:0', metadata 1.1"),
        (&[(end - 8192, &raid)], "Linux RAID member 'host:0', metadata 1.0"),
        (&[(end - 65_536, &RAID)], "Linux RAID member, metadata 0.90"),
        (&[(131_072 + 4096, &uber.to_le_bytes())], "ZFS pool member"),
        (&[(end - 131_072, &uber.to_be_bytes())], "ZFS pool member"),
        (&[(0, b"LUKS\xba\xbe")], "LUKS encrypted volume"),
        (&[(0x1_0040, b"_BHRfS_M")], "btrfs file system"),
        (&[(0x8000, &iso)], "ISO 9660 file system 'DEBIAN'"),
        (&[(0x10_0000, &0xc001_d00d_u32.to_le_bytes())], "VMFS volume member"),
        (&[(0x20_0000, &0x2fab_f15e_u32.to_le_bytes())], "VMFS file system"),
        (&[(510, &[0x55, 0xaa])], "boot sector"),
        (&[(0, b"bluestore block device")], "Ceph BlueStore device"),
    ];
    for (patches, expected) in cases {
        let disk = file(16);
        put(&disk, patches);
        assert_eq!(found(&disk), [expected]);
    }
}

fn inspection(found: &[&str], ours: bool) -> Inspection {
    let found = found.iter().map(|text| (*text).to_owned()).collect();
    let wwn = "5000c50077000001".parse().ok();
    Inspection { finding: DiskFinding::new(Some("DZDISK0001".to_owned()), wwn, found), ours }
}

#[test]
fn consent_is_for_one_disk_and_one_content() {
    let foreign = inspection(&["ext4 file system 'payroll'"], false);
    let consent = |serial: &str, finding| DiskConsent {
        host: "host1".parse().unwrap(),
        serial: serial.to_owned(),
        finding,
        given_by: "ada".to_owned(),
        given_at: Timestamp(0),
    };
    let digest = foreign.finding.digest;
    permit(&inspection(&[], false), None).unwrap();
    permit(&inspection(&["GPT partition table with 3 partitions"], true), None).unwrap();
    permit(&foreign, Some(&consent("DZDISK0001", digest))).unwrap();
    permit(&foreign, Some(&consent("5000c50077000001", digest))).unwrap();
    let refused = |consent: Option<&DiskConsent>| {
        let error = permit(&foreign, consent).unwrap_err();
        assert_eq!(error.code(), "foreign-disk");
        let agent = dayzero_model::wire::AgentError::from(error);
        assert_eq!(agent.finding.as_deref(), Some(&foreign.finding));
        agent.sentence
    };
    assert_eq!(refused(None), "disk DZDISK0001 holds foreign data and no consent to wipe it was given");
    let other = consent("DZDISK0002", digest);
    assert_eq!(
        refused(Some(&other)),
        "disk DZDISK0001 holds foreign data and the consent given is for disk DZDISK0002"
    );
    let changed = consent("DZDISK0001", inspection(&["swap space"], false).finding.digest);
    assert!(refused(Some(&changed)).contains("the consent given is for another content"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn noise_at_the_places_that_are_looked_at_is_survived(
        noise in proptest::collection::vec((0_usize..12, proptest::collection::vec(any::<u8>(), 1..200)), 1..6),
    ) {
        const PLACES: [u64; 12] =
            [0, 440, 512, 1024, 4096, 4086, 0x8000, 0x1_0040, 131_072, 0x10_0000, 0x20_0000, 4 << 20];
        let disk = file(5);
        let tail = (5 * MB) as u64 - 512;
        put(&disk, &[(510, &[0x55, 0xaa]), (512, b"EFI PART"), (tail, b"EFI PART")]);
        for (place, bytes) in noise {
            put(&disk, &[(PLACES[place], &bytes)]);
        }
        let found = signatures_of(disk.path()).unwrap();
        prop_assert!(!found.is_empty());
        prop_assert!(found.iter().all(|text| !text.chars().any(char::is_control)), "{found:?}");
    }
}
