//! What this crate's tests share: a small image in memory, made with the real tools, and a personality.

use crate::block::Device;
use crate::error::StorageError;
use crate::source::ChunkSource;
use base64::Engine as _;
use bytes::Bytes;
use dayzero_model::install::{
    BiosBoot, Chunk, HostFile, ImageManifest, PartitionImage, PartitionRole, Personality,
};
use dayzero_model::network::{BondMonitor, BondSpec, HostNetwork};
use dayzero_model::site::BondMode;
use dayzero_model::units::Bytes as Size;
use futures::future::BoxFuture;
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

pub(crate) const MIB: usize = 1 << 20;

/// Chunks in memory; each can be spoilt, and the fetch of one can be made the last.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) chunks: HashMap<String, Vec<u8>>,
    /// Fetches left before the source fails for good.
    pub(crate) left: Mutex<Option<usize>>,
}

impl ChunkSource for Store {
    fn fetch<'a>(&'a self, blake3: &'a str, limit: usize) -> BoxFuture<'a, Result<Bytes, StorageError>> {
        Box::pin(async move {
            let gone =
                |reason: &str| StorageError::Fetch { url: blake3.to_owned(), reason: reason.to_owned() };
            if let Some(left) = self.left.lock().unwrap().as_mut() {
                *left = left.checked_sub(1).ok_or_else(|| gone("the server is gone"))?;
            }
            let chunk = self.chunks.get(blake3).ok_or_else(|| gone("no such chunk"))?;
            assert!(chunk.len() <= limit, "the manifest's length is the limit");
            Ok(Bytes::from(chunk.clone()))
        })
    }
}

pub(crate) fn tool(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {args:?}: {text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

fn cut(content: &[u8], role: PartitionRole, size: usize, store: &mut Store) -> PartitionImage {
    let chunks = content.chunks(MIB).map(|chunk| {
        if chunk.iter().all(|byte| *byte == 0) {
            return Chunk::Zero;
        }
        let blake3 = blake3::hash(chunk).to_hex().to_string();
        let packed = zstd::bulk::compress(chunk, 1).unwrap();
        let compressed = packed.len() as u32;
        store.chunks.insert(blake3.clone(), packed);
        Chunk::Data { blake3, compressed }
    });
    let chunks = chunks.collect();
    let (size, content) = (Size(size as u64), Size(content.len() as u64));
    PartitionImage { role, size, content, chunk_size: MIB as u32, chunks }
}

/// A FAT32 ESP of 34 MiB and an ext4 root of 16 MiB with the features that images have.
pub(crate) fn image() -> (ImageManifest, Store) {
    static MADE: Mutex<Option<(Vec<u8>, Vec<u8>)>> = Mutex::new(None);
    let (esp, root) = MADE.lock().unwrap().get_or_insert_with(file_systems).clone();
    let mut store = Store::default();
    let partitions = vec![
        PartitionImage {
            role: PartitionRole::BiosBoot,
            size: Size(MIB as u64),
            content: Size(0),
            chunk_size: MIB as u32,
            chunks: Vec::new(),
        },
        cut(&esp, PartitionRole::Esp, esp.len(), &mut store),
        cut(&root, PartitionRole::Root, root.len() + MIB, &mut store),
    ];
    let encode = |bytes: Vec<u8>| base64::engine::general_purpose::STANDARD.encode(bytes);
    let line = "linux /dayzero/vmlinuz root=PARTUUID=@ROOT_PARTUUID@ # @ROOT_UUID@\n";
    let manifest = ImageManifest {
        format: 1,
        name: "test".to_owned(),
        kernel: "6.1".to_owned(),
        partitions,
        bios: BiosBoot { boot_img: encode(vec![0xeb; 512]), core_img: encode(vec![0x90; 3000]) },
        cmdline: "quiet".to_owned(),
        kernel_path: "/boot/vmlinuz".to_owned(),
        initrd_path: "/boot/initrd".to_owned(),
        host_files: vec![HostFile {
            partition: PartitionRole::Esp,
            path: "/dayzero/grub.cfg".to_owned(),
            mode: 0o644,
            content: line.to_owned(),
        }],
    };
    (manifest, store)
}

fn file_systems() -> (Vec<u8>, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let make = |name: &str, mib: usize| {
        std::fs::File::create(path(name)).unwrap().set_len((mib * MIB) as u64).unwrap();
    };
    make("esp", 34);
    tool("mkfs.vfat", &["-F", "32", "-s", "1", "-n", "ESP", &path("esp")]);
    make("root", 16);
    let features = "metadata_csum,metadata_csum_seed,64bit";
    tool("mkfs.ext4", &["-q", "-F", "-O", features, "-L", "root", &path("root")]);
    (std::fs::read(path("esp")).unwrap(), std::fs::read(path("root")).unwrap())
}

/// An empty disk as a file.
pub(crate) fn disk(path: &Path, mib: usize) -> Arc<Device> {
    std::fs::File::create(path).unwrap().set_len((mib * MIB) as u64).unwrap();
    Arc::new(Device::open(path, crate::block::Access::Direct).unwrap())
}

pub(crate) fn personality() -> Personality {
    let legs = vec!["52:54:00:77:01:01".parse().unwrap(), "52:54:00:77:01:02".parse().unwrap()];
    let monitor = BondMonitor::Mii { interval_ms: 100 };
    Personality {
        host: "host1".parse().unwrap(),
        domain: "lab.example".to_owned(),
        agent_server: "10.77.0.2:7443".parse().unwrap(),
        network: HostNetwork {
            bond: BondSpec { name: "bond0".to_owned(), mode: BondMode::Lacp, legs, mtu: 1500, monitor },
            management: "10.77.0.11/24".parse().unwrap(),
            gateway: None,
            bridges: Vec::new(),
            storage: Vec::new(),
        },
    }
}
