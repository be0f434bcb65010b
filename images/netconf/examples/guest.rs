//! The guest's half of `tests/guest.rs`: PID 1 of a QEMU machine that wires itself in both bond modes and prints a line
//! a check on its serial console. It uses nothing of a root file system.

use checks::{Outcome, check};
use dayzero_model::network::{BondMonitor, BondSpec, BridgeSpec, HostNetwork, StorageLink};
use dayzero_model::site::BondMode;
use dayzero_netconf::{NetError, converge, discovery, lldp, observe::observe, report};
use nix::mount::{MsFlags, mount};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Where check lines go.
mod checks {
    use std::io::Write;

    pub(crate) type Outcome = Result<(), Box<dyn std::error::Error>>;

    pub(crate) fn check(console: &mut impl Write, name: &str, ok: bool, seen: &str) -> Outcome {
        let verdict = if ok { "ok" } else { "FAILED" };
        writeln!(console, "CHECK {name} {verdict} {seen}")?;
        Ok(())
    }
}

fn mac(n: u8) -> dayzero_model::ids::MacAddr {
    dayzero_model::ids::MacAddr([0x52, 0x54, 0, 0x77, 1, n])
}

fn wanted(mode: BondMode) -> Result<HostNetwork, Box<dyn std::error::Error>> {
    let monitor = match mode {
        BondMode::Lacp => BondMonitor::Mii { interval_ms: 100 },
        BondMode::ActiveBackup => {
            BondMonitor::Arp { interval_ms: 500, missed_max: 3, target: "10.77.0.1".parse()? }
        }
    };
    Ok(HostNetwork {
        bond: BondSpec { name: "bond0".to_owned(), mode, legs: vec![mac(1), mac(2)], mtu: 1500, monitor },
        management: "10.77.0.11/24".parse()?,
        gateway: Some("10.77.0.1".parse()?),
        bridges: vec![BridgeSpec {
            name: "br-guest".to_owned(),
            network: "guest".parse()?,
            vlan: 100,
            mtu: 1500,
        }],
        storage: vec![
            StorageLink {
                mac: mac(3),
                network: "storage-a".parse()?,
                address: "10.77.11.21/24".parse()?,
                gateway: Some("10.77.11.1".parse()?),
                mtu: 1400,
                table: 101,
            },
            StorageLink {
                mac: mac(4),
                network: "storage-b".parse()?,
                address: "10.77.12.21/24".parse()?,
                gateway: Some("10.77.12.1".parse()?),
                mtu: 1500,
                table: 300,
            },
        ],
    })
}

fn load_modules(console: &mut File) -> Outcome {
    for line in std::fs::read_to_string("/modules/order")?.lines() {
        let file = File::open(format!("/modules/{line}"))?;
        let parameters = if line.starts_with("bonding.") { c"max_bonds=0" } else { c"" };
        // SAFETY: the descriptor is open and the parameters are a C string.
        let result =
            unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), parameters.as_ptr(), 0) };
        if result < 0 {
            writeln!(console, "module {line}: {}", std::io::Error::last_os_error())?;
        }
    }
    Ok(())
}

/// Waits until both legs carry traffic; says what was seen last.
async fn both_usable(network: &HostNetwork) -> (bool, String) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let bond = report(network).await.bond;
        let usable = bond.as_ref().is_some_and(|b| b.legs.len() == 2 && b.legs.iter().all(|l| l.usable));
        if usable || Instant::now() > end {
            return (usable, format!("{bond:?}"));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn wire(console: &mut File, mode: BondMode) -> Outcome {
    let network = wanted(mode)?;
    let name = if mode == BondMode::Lacp { "lacp" } else { "active-backup" };
    let first = converge(&network).await;
    check(
        console,
        &format!("{name}-made"),
        first.converged && !first.changes.is_empty(),
        &format!("{first:?}"),
    )?;
    let second = converge(&network).await;
    let quiet = second.converged && second.changes.is_empty();
    let refused: Vec<&String> = first.changes.iter().filter(|change| change.contains("could not")).collect();
    check(console, &format!("{name}-nothing-refused"), refused.is_empty(), &format!("{refused:?}"))?;
    check(console, &format!("{name}-second-pass-is-quiet"), quiet, &format!("{second:?}"))?;
    let (usable, seen) = both_usable(&network).await;
    check(console, &format!("{name}-both-legs-usable"), usable, &seen)?;
    let now = report(&network).await;
    let bond = now.bond.clone().ok_or("no bond")?;
    let partner_fits = bond.partner.is_some() == (mode == BondMode::Lacp);
    check(
        console,
        &format!("{name}-mode"),
        bond.mode.contains(if mode == BondMode::Lacp { "802.3ad" } else { name }),
        &bond.mode,
    )?;
    check(console, &format!("{name}-partner"), partner_fits, &format!("{:?}", bond.partner))?;
    let routes = now.storage_routes.join("; ");
    let wanted_routes = [
        "rule 10101: from 10.77.11.21/32 lookup 101",
        "rule 10300: from 10.77.12.21/32 lookup 300",
        "table 101: 0.0.0.0/0 via 10.77.11.1 dev eth2",
        "table 300: 10.77.12.0/24 dev eth3",
    ];
    check(console, &format!("{name}-routes"), wanted_routes.iter().all(|r| routes.contains(r)), &routes)?;
    Ok(())
}

/// Changes what was made, by netlink alone, and expects it back.
async fn meddle(console: &mut File) -> Outcome {
    let network = wanted(BondMode::ActiveBackup)?;
    std::fs::write("/proc/sys/net/ipv4/conf/all/arp_ignore", "0")?;
    discovery::discovery_up(mac(3), "192.0.2.7/24".parse()?, None).await?;
    let seen = report(&network).await;
    check(console, "drift-is-seen", seen.problems.len() == 2, &format!("{:?}", seen.problems))?;
    let back = converge(&network).await;
    check(
        console,
        "drift-is-undone",
        back.converged && back.changes.len() == 2,
        &format!("{:?}", back.changes),
    )?;
    let unknown = discovery::discovery_up(mac(99), "192.0.2.7/24".parse()?, None).await;
    check(console, "unknown-nic", matches!(unknown, Err(NetError::NoSuchNic { .. })), &format!("{unknown:?}"))
}

async fn run(console: &mut File) -> Outcome {
    discovery::all_up(&[]).await?;
    let up = observe().await?.physical().filter(|link| link.up).count();
    check(console, "all-up", up == 4, &up.to_string())?;
    let heard = lldp::listen(&[], Duration::from_secs(30)).await?;
    let names: Vec<String> = heard.iter().map(|n| format!("{}/{}", n.system_name, n.port_id)).collect();
    check(console, "lldp", names == ["sw-1/1", "sw-2/1", "sw-3/1", "sw-4/1"], &names.join(" "))?;
    wire(console, BondMode::Lacp).await?;
    let heard = lldp::listen(&[mac(1), mac(2)], Duration::from_secs(30)).await?;
    check(console, "lldp-on-bonded-legs", heard.len() == 2, &format!("{heard:?}"))?;
    lldp::announce(&[], "host1").await?;
    wire(console, BondMode::ActiveBackup).await?;
    let mut slower = wanted(BondMode::ActiveBackup)?;
    slower.bond.monitor = BondMonitor::Mii { interval_ms: 100 };
    let changed = converge(&slower).await;
    let fine = changed.converged && changed.changes == ["change the settings of bond bond0"];
    check(console, "arp-to-mii-in-place", fine, &format!("{:?} {:?}", changed.changes, changed.problems))?;
    let back = converge(&wanted(BondMode::ActiveBackup)?).await;
    check(console, "mii-to-arp-in-place", back.converged && back.changes.len() == 1, &format!("{back:?}"))?;
    meddle(console).await?;
    wire(console, BondMode::Lacp).await?;
    let mut slower = wanted(BondMode::Lacp)?;
    slower.bond.monitor = BondMonitor::Mii { interval_ms: 250 };
    let changed = converge(&slower).await;
    let fine = changed.converged && changed.changes == ["change the settings of bond bond0"];
    check(console, "timer-changed-in-place", fine, &format!("{:?} {:?}", changed.changes, changed.problems))
}

fn main() -> Outcome {
    std::fs::create_dir_all("/proc").and(std::fs::create_dir_all("/dev"))?;
    mount(None::<&str>, "/proc", Some("proc"), MsFlags::empty(), None::<&str>)?;
    // The kernel may have mounted it.
    let _ = mount(None::<&str>, "/dev", Some("devtmpfs"), MsFlags::empty(), None::<&str>);
    let mut console = File::options().write(true).open("/dev/ttyS0")?;
    load_modules(&mut console)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Err(error) = runtime.block_on(run(&mut console)) {
        writeln!(console, "CHECK run FAILED {error}")?;
    }
    writeln!(console, "GUEST DONE")?;
    console.flush()?;
    // SAFETY: takes no pointers.
    unsafe { libc::tcdrain(console.as_raw_fd()) };
    nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_POWER_OFF)?;
    Ok(())
}
