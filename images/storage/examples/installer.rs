//! The guest's half of `tests/guest.rs`: PID 1 of a QEMU machine with a disk of somebody else's, which it is refused,
//! then permitted, and then installs the host image to.

use dayzero_model::ids::{MacAddr, Sha256};
use dayzero_model::install::{DiskConsent, InstallOrder, Personality};
use dayzero_model::network::{BondMonitor, BondSpec, HostNetwork};
use dayzero_model::secret::Secret;
use dayzero_model::site::{BondMode, DiskSelector};
use dayzero_model::units::Timestamp;
use dayzero_storage::install::{Credentials, Progress, install};
use dayzero_storage::{disks, finding};
use nix::mount::{MsFlags, mount};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::time::Instant;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn check(console: &mut File, name: &str, ok: bool, seen: &str) -> Outcome {
    let verdict = if ok { "ok" } else { "FAILED" };
    writeln!(console, "CHECK {name} {verdict} {seen}")?;
    Ok(())
}

fn load_modules(console: &mut File) -> Outcome {
    for line in std::fs::read_to_string("/modules/order")?.lines() {
        let file = File::open(format!("/modules/{line}"))?;
        // SAFETY: the descriptor is open and the parameters are a C string.
        let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
        if result < 0 {
            writeln!(console, "module {line}: {}", std::io::Error::last_os_error())?;
        }
    }
    Ok(())
}

fn personality() -> Result<Personality, Box<dyn std::error::Error>> {
    Ok(Personality {
        host: "host1".parse()?,
        domain: "lab.example".to_owned(),
        agent_server: "10.77.0.2:7443".parse()?,
        network: HostNetwork {
            bond: BondSpec {
                name: "bond0".to_owned(),
                mode: BondMode::Lacp,
                legs: vec![MacAddr([0x52, 0x54, 0, 0x77, 1, 1])],
                mtu: 1500,
                monitor: BondMonitor::Mii { interval_ms: 100 },
            },
            management: "10.77.0.11/24".parse()?,
            gateway: None,
            bridges: Vec::new(),
            storage: Vec::new(),
        },
    })
}

/// The value of `name=` on the kernel's command line.
fn argument(name: &str) -> Result<String, Box<dyn std::error::Error>> {
    let line = std::fs::read_to_string("/proc/cmdline")?;
    let found = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    Ok(found.ok_or_else(|| format!("no {name} on the command line"))?.to_owned())
}

async fn run(console: &mut File) -> Outcome {
    let mac = MacAddr([0x52, 0x54, 0, 0x77, 1, 1]);
    dayzero_netconf::discovery::discovery_up(mac, "10.0.2.15/24".parse()?, None).await?;
    let found = disks::enumerate()?;
    for disk in &found {
        writeln!(console, "disk {} {:?}", disk.text(), disk.disk)?;
    }
    let disk =
        DiskSelector { serial: Some("DZDISK0001".to_owned()), wwn: Some("0x5000c50077000001".parse()?) };
    let inspection = finding::inspect(disks::select(&found, &disk)?)?;
    let base = argument("test.url")?;
    let mut order = InstallOrder {
        plan_hash: Sha256::of(b"plan"),
        disk,
        consent: None,
        manifest_url: format!("{base}/manifest.json"),
        manifest_sha256: argument("test.manifest")?.parse()?,
        chunks_url: base,
        personality: personality()?,
    };
    let credentials = Credentials {
        key_pem: Secret::new("KEY".to_owned()),
        certificate_pem: "CERTIFICATE".to_owned(),
        ca_pem: "CA".to_owned(),
    };
    let refused = install(&order, &credentials, &|_| {}).await;
    let code = refused.as_ref().err().map(|e| e.code());
    check(console, "foreign-disk-refused", code == Some("foreign-disk"), &format!("{:?}", refused.err()))?;
    let again = finding::inspect(disks::select(&disks::enumerate()?, &order.disk)?)?;
    check(console, "nothing-was-written", again == inspection, &format!("{:?}", again.finding.found))?;
    order.consent = Some(DiskConsent {
        host: "host1".parse()?,
        serial: "DZDISK0001".to_owned(),
        finding: inspection.finding.digest,
        given_by: "ada".to_owned(),
        given_at: Timestamp(0),
    });
    let start = Instant::now();
    let last = Mutex::new(String::new());
    let steps = Mutex::new(console.try_clone()?);
    let progress = |step: Progress| {
        if let (Ok(mut last), Ok(mut steps)) = (last.lock(), steps.lock())
            && *last != step.what
        {
            let _ = writeln!(steps, "{:>6} ms {}", start.elapsed().as_millis(), step.what);
            last.clone_from(&step.what);
        }
    };
    let report = install(&order, &credentials, &progress).await?;
    check(console, "installed", report.chunks_verified > 100, &serde_json::to_string(&report)?)?;
    // Consent is for what was found then: the disk is ours now and needs none, and the old one opens nothing else.
    let now = finding::inspect(disks::select(&disks::enumerate()?, &order.disk)?)?;
    check(console, "disk-is-ours-now", now.ours, &format!("{:?}", now.finding.found))
}

fn main() -> Outcome {
    for directory in ["/proc", "/sys", "/dev", "/run"] {
        std::fs::create_dir_all(directory)?;
    }
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run")] {
        // The kernel may have mounted /dev.
        let _ = mount(None::<&str>, at, Some(kind), MsFlags::empty(), None::<&str>);
    }
    let mut console = File::options().write(true).open("/dev/ttyS0")?;
    load_modules(&mut console)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Disks of a bus that is still being scanned.
    let start = Instant::now();
    while !std::path::Path::new("/dev/sda").exists() && start.elapsed().as_secs() < 30 {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    if let Err(error) = runtime.block_on(run(&mut console)) {
        writeln!(console, "CHECK run FAILED {error}")?;
    }
    writeln!(console, "GUEST DONE")?;
    // SAFETY: takes no pointers.
    unsafe { libc::tcdrain(console.as_raw_fd()) };
    nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_POWER_OFF)?;
    Ok(())
}
