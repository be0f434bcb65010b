//! The disk holds somebody else's data; a person looks at it and consents to its wiping, naming disk and finding.
//! False if data is touched before that, or a consent for another disk or another finding is taken.

use super::bench::Bench;
use super::stop::{Stop, Words};
use super::{Fault, Told};
use anyhow::{Context, Result, ensure};
use dayzero_model::condition::Condition;
use dayzero_model::install::DiskFinding;
use std::fs::File;
use std::os::unix::fs::FileExt;

const HOST: &str = "host2";
const DISK: &str = "DZDISK0002";
/// Place of the label in the ext4 that the rack puts on the disk: partition at 1 MiB, superblock at 1 KiB, label at 120.
const LABEL_AT: u64 = (1 << 20) + 1024 + 120;
const LABEL: &[u8] = b"customer-data";

pub const FAULT: Fault = Fault {
    name: "foreign-disk",
    host: HOST,
    condition: Condition::Imaged,
    code: "foreign-disk",
    told: Told::Stop,
    plant: |bench| {
        // A disk is changed in a machine that is off.
        if bench.is_on(HOST)? {
            bench.client.lab(&["power", HOST, "off"])?;
        }
        bench.client.lab(&["put-foreign-data", HOST]).map(drop)
    },
    words: |bench| {
        let digest = finding(bench).map(|finding| finding.digest.to_string()).unwrap_or_default();
        Words::new(
            &["an empty disk"],
            &["MBR partition 1", "ext4", "customer-data"],
            &[&format!("dayzero host consent host2 --serial {DISK} --finding {digest}")],
        )
    },
    also: untouched,
    mend: |bench| {
        let digest = finding(bench)?.digest.to_string();
        bench.must(&["host", "consent", HOST, "--serial", DISK, "--finding", &digest]).map(drop)
    },
};

fn finding(bench: &Bench) -> Result<DiskFinding> {
    bench.client.host(HOST)?.facts.finding.context("no finding is shown")
}

fn untouched(bench: &Bench, _: &Stop) -> Result<String> {
    let digest = finding(bench)?.digest.to_string();
    let other = dayzero_model::Sha256::of(b"another finding").to_string();
    for (serial, finding) in [(DISK, &other), ("DZDISK0001", &digest)] {
        let said = bench.refused(&["host", "consent", HOST, "--serial", serial, "--finding", finding])?;
        for word in [serial, finding, DISK, &digest] {
            ensure!(said.contains(word), "the refused consent does not name {word}: {said}");
        }
    }
    let mut label = vec![0; LABEL.len()];
    File::open(bench.disk(HOST))?.read_exact_at(&mut label, LABEL_AT)?;
    ensure!(label == LABEL, "the data on the disk is no longer there");
    ensure!(bench.client.host(HOST)?.facts.consent.is_none(), "a refused consent was kept");
    Ok("consents for another finding and another disk were refused; the data is untouched".to_owned())
}
