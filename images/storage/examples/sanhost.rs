//! The host's half of `tests/san.rs`: a service on an installed host that connects a LUN over two paths, makes a volume
//! on it, fills it, and writes while the test takes paths away. It says so on the serial console, a line a check.

use dayzero_model::ids::{MacAddr, Sha256};
use dayzero_model::network::{BondMonitor, BondSpec, HostNetwork, StorageLink};
use dayzero_model::site::BondMode;
use dayzero_model::storage::{LunSpec, MultipathTimers, PathSpec, VolumeSpec};
use dayzero_model::units::Bytes;
use dayzero_storage::proof::Writer;
use dayzero_storage::{fill, luns, lvm};
use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn mac(n: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0x77, 1, n])
}

fn check(console: &mut File, name: &str, ok: bool, seen: &str) -> Outcome<()> {
    let verdict = if ok { "ok" } else { "FAILED" };
    writeln!(console, "\r\nCHECK {name} {verdict} {seen}\r")?;
    Ok(())
}

fn network() -> Outcome<HostNetwork> {
    let storage = |n: u8, net: u8| -> Outcome<StorageLink> {
        Ok(StorageLink {
            mac: mac(n),
            network: format!("storage-{n}").parse()?,
            address: format!("10.77.{net}.21/24").parse()?,
            gateway: Some(format!("10.77.{net}.1").parse()?),
            mtu: 1500,
            table: 100 + u32::from(n),
        })
    };
    Ok(HostNetwork {
        bond: BondSpec {
            name: "bond0".to_owned(),
            mode: BondMode::ActiveBackup,
            legs: vec![mac(1)],
            mtu: 1500,
            monitor: BondMonitor::Mii { interval_ms: 100 },
        },
        management: "10.77.0.11/24".parse()?,
        gateway: None,
        bridges: Vec::new(),
        storage: vec![storage(3, 11)?, storage(4, 12)?],
    })
}

fn lun(wwn: &str) -> Outcome<LunSpec> {
    let path = |n: u8, portal: &str| -> Outcome<PathSpec> {
        Ok(PathSpec { nic: mac(n), portal: portal.parse()?, port: 3260 })
    };
    Ok(LunSpec {
        storage: "lun0".parse()?,
        target: "iqn.2026-11.example:lun0".to_owned(),
        wwn: wwn.parse()?,
        paths: vec![path(3, "10.77.11.10")?, path(4, "10.77.12.10")?],
        timers: MultipathTimers::default(),
    })
}

async fn until_active(lun: &LunSpec, active: usize, seconds: u64) -> (bool, String) {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        let report = luns::report(std::slice::from_ref(lun)).await;
        let now = report.first().map_or(0, |r| r.paths.iter().filter(|path| path.active).count());
        if now == active || Instant::now() > end {
            return (now == active, format!("{report:?}"));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn run(console: &mut File) -> Outcome<()> {
    let wired = dayzero_netconf::converge(&network()?).await;
    check(console, "wired", wired.converged, &format!("{:?}", wired.problems))?;
    // The WWNs that tgt gives to LUN 1 and LUN 2 of target 14.
    let (lun, other) = (lun("60000000000000000e000000000e0001")?, lun("60000000000000000e000000000e0002")?);
    let start = Instant::now();
    let report = luns::connect(&[lun.clone(), other.clone()]).await;
    let both = report.iter().all(|r| r.problems.is_empty() && r.paths.len() == 2);
    check(console, "connected", both, &format!("{} ms {report:?}", start.elapsed().as_millis()))?;
    let start = Instant::now();
    let again = luns::connect(&[lun.clone(), other.clone()]).await;
    check(
        console,
        "connected-again",
        again == report,
        &format!("{} ms {again:?}", start.elapsed().as_millis()),
    )?;

    let device = luns::device(&lun.wwn);
    let (plan, next_plan) = (Sha256::of(b"plan"), Sha256::of(b"next plan"));
    for pass in ["group-made", "group-kept"] {
        let made = lvm::make_group(&"lun0".parse()?, &device, &plan).await;
        check(console, pass, made.is_ok(), &format!("{made:?}"))?;
    }
    let foreign = lvm::make_group(&"other".parse()?, &luns::device(&other.wwn), &plan).await;
    let code = foreign.as_ref().err().map(|e| e.code());
    check(console, "foreign-lun-refused", code == Some("foreign-lun"), &format!("{foreign:?}"))?;
    let volume = VolumeSpec { name: "vol-hello".parse()?, storage: "lun0".parse()?, size: Bytes(64 << 20) };
    for pass in ["volume-made", "volume-kept"] {
        let made = lvm::create(&volume, &device, &plan).await;
        check(console, pass, made.is_ok(), &format!("{made:?}"))?;
    }
    let inactive = !lvm::path(&volume).exists();
    check(console, "volume-is-inactive", inactive, "")?;
    let node = lvm::activate(&volume, &device).await?;
    let stale = lvm::may_overwrite(&volume, &device, &next_plan).await.err().map(|e| e.code());
    check(console, "another-plan-refused", stale == Some("volume-of-another-plan"), &format!("{stale:?}"))?;
    lvm::create(&volume, &device, &next_plan).await?;
    let marked = lvm::may_overwrite(&volume, &device, &next_plan).await;
    check(console, "marked-anew", marked.is_ok(), &format!("{marked:?}"))?;
    let open = File::open(&node)?;
    let refused = lvm::may_overwrite(&volume, &device, &next_plan).await.err().map(|e| e.code());
    check(console, "open-volume-refused", refused == Some("volume-in-use"), &format!("{refused:?}"))?;
    drop(open);
    let template = Sha256::of(&vec![0x5a; 3 << 20]);
    let filled = fill::fill(&node, "http://10.77.11.1:8081/template.raw", &template).await;
    check(console, "filled", filled.as_ref().is_ok_and(|sum| *sum == template), &format!("{filled:?}"))?;

    let writer = Writer::start(&node)?;
    let second = Writer::start(&node).err().map(|e| e.code());
    check(console, "held-volume-refused", second == Some("volume-in-use"), &format!("{second:?}"))?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let bound = u64::from(lun.timers.stall_bound_s()) * 1000 + 1000;
    for path in ["a", "b"] {
        writeln!(console, "\r\nPULL {path}\r")?;
        let (fallen, seen) = until_active(&lun, 1, 60).await;
        check(console, &format!("path-{path}-fell"), fallen, &seen)?;
        let verified = writer.verify()?;
        check(console, &format!("path-{path}-verified"), verified.wrong == 0, &format!("{verified:?}"))?;
        writeln!(console, "\r\nPLUG {path}\r")?;
        let (back, seen) = until_active(&lun, 2, 90).await;
        check(console, &format!("path-{path}-back"), back, &seen)?;
    }
    let end = writer.stop();
    let held = end.errors == 0 && end.wrong == 0 && end.blocks > 100;
    check(console, "no-error-no-wrong-block", held, &format!("{end:?}"))?;
    check(
        console,
        "stall-within-the-timers-sum",
        end.longest_ms <= bound,
        &format!("{} of {bound} ms", end.longest_ms),
    )?;
    let down = lvm::deactivate(&volume, &device).await;
    check(console, "deactivated", down.is_ok() && !lvm::path(&volume).exists(), &format!("{down:?}"))
}

fn main() -> Outcome<()> {
    let mut console = File::options().write(true).open("/dev/ttyS0")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Err(error) = runtime.block_on(run(&mut console)) {
        writeln!(console, "\r\nCHECK run FAILED {error}\r")?;
    }
    writeln!(console, "\r\nHOST DONE\r")?;
    Ok(())
}
