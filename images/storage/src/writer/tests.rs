use super::*;
use crate::block::Access;
use crate::finding::{self, Inspection};
use crate::install::own_ids;
use crate::personalise::Identity;
use crate::testing::{self, MIB as MB, Store, tool};
use dayzero_model::install::DiskFinding;
use std::path::Path;

const SIZE: usize = 80;

async fn write(path: &Path, store: &Store) -> Result<(Written, Writer), StorageError> {
    let (manifest, _) = testing::image();
    let device = testing::disk(path, SIZE);
    let writer = Writer::begin(device, Arc::new(manifest), Sha256::of(b"plan"))?;
    let written = writer.content(store, &|_| {}).await?;
    Ok((written, writer))
}

async fn install(path: &Path) -> (Written, Table, Identity) {
    let (_, store) = testing::image();
    let (written, writer) = write(path, &store).await.unwrap();
    let identity = Identity::new(&testing::personality()).unwrap();
    own_ids(&writer, &identity).unwrap();
    (written, writer.finish().unwrap(), identity)
}

/// What an inspection of this file says.
fn look(path: &Path) -> Inspection {
    let disk = dayzero_model::inventory::Disk {
        kernel_name: "vda".to_owned(),
        serial: Some("S1".to_owned()),
        wwn: None,
        size: dayzero_model::units::Bytes(0),
        logical_block: 512,
        rotational: false,
        bus: "virtio".to_owned(),
        model: None,
        signatures: Vec::new(),
    };
    let found = crate::disks::FoundDisk { disk, path: path.to_owned(), read_only: false };
    finding::inspect(&found).unwrap()
}

fn extract(path: &Path, to: &Path, partition: &Partition) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(to, &bytes[partition.start as usize..(partition.start + partition.length) as usize])
        .unwrap();
}

#[tokio::test]
async fn a_written_disk_holds_up_before_the_tools_of_the_trade() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    let (written, table, identity) = install(&path).await;
    assert!(written.chunks > 0 && written.zero > 0 && written.read_back > 0, "{written:?}");

    let disk = path.to_string_lossy();
    let verdict = tool("sgdisk", &["-v", &disk]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    let dump: serde_json::Value = serde_json::from_str(&tool("sfdisk", &["--json", &disk])).unwrap();
    let parts = dump["partitiontable"]["partitions"].as_array().unwrap();
    let names: Vec<&str> = parts.iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["dayzero-bios", "dayzero-esp", "dayzero-root"]);
    assert_eq!(parts[0]["type"], "21686148-6449-6E6F-744E-656564454649");
    assert_eq!(parts[2]["start"].as_u64().unwrap() * 512, table.partitions[2].start);
    // The root grows to the disk's last whole MiB.
    assert_eq!(table.partitions[2].start + table.partitions[2].length, (SIZE as u64 - 1) << 20);

    let (root, esp) = (directory.path().join("root"), directory.path().join("esp"));
    extract(&path, &root, &table.partitions[2]);
    tool("e2fsck", &["-fn", &root.to_string_lossy()]);
    let uuid = tool("blkid", &["-p", "-o", "value", "-s", "UUID", &root.to_string_lossy()]);
    assert_eq!(uuid.trim(), identity.root_uuid.to_string());
    extract(&path, &esp, &table.partitions[1]);
    tool("fsck.vfat", &["-n", &esp.to_string_lossy()]);
    let uuid = tool("blkid", &["-p", "-o", "value", "-s", "UUID", &esp.to_string_lossy()]);
    assert_eq!(uuid.trim().replace('-', ""), format!("{:08X}", identity.volume_id));

    let first = std::fs::read(&path).unwrap();
    assert_eq!(&first[0x5c..0x64], &2048_u64.to_le_bytes(), "the boot sector knows where GRUB's core lies");
    assert_eq!(&first[0x66..0x68], &[0x90, 0x90]);
    assert_eq!(&first[MB + 500..MB + 512], &[1, 8, 0, 0, 0, 0, 0, 0, 5, 0, 0x20, 8]);
    assert!(look(&path).ours, "{:?}", look(&path));
}

#[tokio::test]
async fn two_installations_share_no_identity() {
    let directory = tempfile::tempdir().unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for name in ["one", "other"] {
        let (_, table, identity) = install(&directory.path().join(name)).await;
        let guids = table.partitions.iter().map(|p| p.guid.to_string());
        let own = [
            table.disk.to_string(),
            identity.root_uuid.to_string(),
            identity.machine_id,
            identity.initiator,
            identity.ssh.public,
            identity.ssh.private,
            identity.volume_id.to_string(),
        ];
        seen.extend(guids.chain(own));
    }
    assert_eq!(seen.len(), 2 * 10);
}

#[tokio::test]
async fn a_corrupt_chunk_is_named_and_the_disk_cannot_start() {
    type Spoil = fn(&mut Vec<u8>);
    let directory = tempfile::tempdir().unwrap();
    let (manifest, _) = testing::image();
    let cases: [(&str, Spoil); 3] = [
        ("cannot be unpacked", |chunk| chunk.truncate(8)),
        ("unpacks to 4 bytes", |chunk| *chunk = zstd::bulk::compress(b"evil", 1).unwrap()),
        // The right length, other content.
        ("", |chunk| *chunk = zstd::bulk::compress(&vec![7; MB], 1).unwrap()),
    ];
    for (reason, spoil) in cases {
        let (_, mut store) = testing::image();
        let root = &manifest.partitions[2];
        let index = root.chunks.iter().rposition(|chunk| matches!(chunk, Chunk::Data { .. })).unwrap();
        let Chunk::Data { blake3, .. } = &root.chunks[index] else { unreachable!() };
        store.chunks.get_mut(blake3).map(spoil).unwrap();
        let path = directory.path().join("disk");
        let error = write(&path, &store).await.err().expect("the chunk is corrupt");
        let StorageError::ChunkCorrupt { index: at, partition, expected, observed } = &error else {
            panic!("{error:?}");
        };
        assert_eq!((*at, partition.as_str(), expected), (index, "dayzero-root", blake3));
        assert!(observed.contains(reason) && observed != expected, "{observed}");
        assert_eq!(error.code(), "chunk-corrupt");
        cannot_start(&path);
    }
}

/// No boot sector, no table; and the leftovers are known as ours, so that a retry needs no consent.
fn cannot_start(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    assert!(bytes[..4096].iter().all(|byte| *byte == 0), "a boot sector or table is there");
    assert!(bytes[bytes.len() - MB..].iter().all(|byte| *byte == 0), "a backup table is there");
    let inspection = look(path);
    assert!(inspection.ours && !inspection.blank(), "{inspection:?}");
    finding::permit(&inspection, None).unwrap();
}

#[tokio::test]
async fn an_installation_that_breaks_off_anywhere_leaves_a_disk_that_cannot_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    let (_, probe) = testing::image();
    for left in 0..probe.chunks.len() {
        let (_, store) = testing::image();
        *store.left.lock().unwrap() = Some(left);
        assert!(write(&path, &store).await.is_err(), "after {left} chunks");
        cannot_start(&path);
    }
    // All content is there, but not yet the end.
    let (_, store) = testing::image();
    write(&path, &store).await.unwrap();
    cannot_start(&path);
}

#[tokio::test]
async fn what_lay_on_the_disk_before_does_not_show_through() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    let device = testing::disk(&path, SIZE);
    std::fs::write(&path, vec![0xa5; SIZE * MB]).unwrap();
    let (manifest, store) = testing::image();
    let writer = Writer::begin(device, Arc::new(manifest), Sha256::of(b"plan")).unwrap();
    writer.content(&store, &|_| {}).await.unwrap();
    let table = writer.finish().unwrap();
    let root = directory.path().join("root");
    extract(&path, &root, &table.partitions[2]);
    tool("e2fsck", &["-fn", &root.to_string_lossy()]);
    let found = finding::signatures_of(&path).unwrap();
    assert_eq!(
        found,
        [
            "GPT partition 1 'dayzero-bios'",
            "GPT partition 2 'dayzero-esp': FAT32 file system 'ESP'",
            "GPT partition 3 'dayzero-root': ext4 file system 'root'",
            "GPT partition table with 3 partitions",
        ]
    );
}

#[test]
fn a_disk_that_is_too_small_is_refused_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    let device = testing::disk(&path, 40);
    std::fs::write(&path, vec![1; 40 * MB]).unwrap();
    let (manifest, _) = testing::image();
    let error = Writer::begin(device, Arc::new(manifest), Sha256::of(b"plan")).err().unwrap();
    assert_eq!(error.code(), "disk-unfit");
    assert!(std::fs::read(&path).unwrap().iter().all(|byte| *byte == 1));
}

#[tokio::test]
async fn our_table_without_our_mark_is_foreign_and_so_is_our_mark_with_another_table() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    install(&path).await;
    tool("sgdisk", &["-U", "R", &path.to_string_lossy()]);
    assert!(!look(&path).ours, "another disk GUID than the mark's");
    install(&path).await;
    let device = Device::open(&path, Access::Direct).unwrap();
    device.patch(crate::marker::OFFSET, &[0; 64]).unwrap();
    let inspection = look(&path);
    assert!(!inspection.ours);
    let error = finding::permit(&inspection, None).unwrap_err();
    let StorageError::ForeignDisk { finding, .. } = &error else { panic!("{error:?}") };
    assert_eq!(finding.digest, DiskFinding::new(Some("S1".into()), None, inspection.finding.found).digest);
}
