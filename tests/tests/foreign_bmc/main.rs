//! Our BMC drivers against BMCs that we did not write, each over a real machine that then boots from our network
//! services: Redfish by sushy-tools' emulator with its libvirt driver, IPMI by OpenIPMI's `ipmi_sim`.
//!
//! `cargo xtask test --all` sets what they need. Namespaces are `dzt-fb-…`; everything ends with the test, however that ends.

// A test that fails by a panic says where; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod boot;
mod sushy;

use boot::{Boot, Director, PATIENCE, Services, poll};
use dayzero_bmc::{
    Bmc, BmcError, BootTarget, Console, Credential, Lasting, PowerAction, PowerState, Target, connect,
};
use dayzero_model::Secret;
use dayzero_model::boot::{BootWindow, Client};
use dayzero_model::event::What;
use dayzero_model::site::{BmcProtocol, Site};
use dayzero_model::{BootId, MacAddr};
use dayzero_rehearsal::lab::FactoryAccount;
use dayzero_rehearsal::netns::Netns;
use dayzero_rehearsal::{Lab, LabOptions};
use std::future::Future;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const USER: &str = "admin";
const PASSWORD: &str = "secret-one";

/// A planned host whose boot window is open.
fn expected(address: Ipv4Addr) -> Client {
    let host: dayzero_model::HostName = "host1".parse().unwrap();
    Client::Host {
        host: host.clone(),
        address,
        window: Some(BootWindow { boot: BootId(boot::BOOT), host }),
        uuid: None,
        chain: dayzero_model::boot::Chain::Ipxe,
    }
}

/// Logs in, while the BMC starts.
async fn connected(target: &Target) -> Box<dyn Bmc> {
    let end = Instant::now() + PATIENCE;
    loop {
        match connect(target, &Credential::new(USER, PASSWORD)).await {
            Ok(bmc) => return bmc,
            Err(error) => assert!(Instant::now() < end, "the BMC does not answer: {error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Runs `test` on a thread in the namespace, where sockets and the drivers' programs find the BMC.
fn inside<F: Future<Output = ()>>(netns: &Netns, test: impl FnOnce() -> F + Send) {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(test());
        Ok(())
    };
    netns.run("run the test", run).unwrap();
}

/// What our services must have seen of a machine that was sent to the network: DHCP by PXE, our loader by TFTP, kernel
/// and initramfs by HTTP.
fn came_by_pxe(director: &Director, mac: MacAddr, since: Instant) {
    let seconds = |what, fits: &dyn Fn(&What) -> bool| {
        director.wait(what, mac, fits).duration_since(since).as_secs_f64()
    };
    let dhcp = seconds(
        "PXE DISCOVER",
        &|what| matches!(what, What::DhcpIn { kind, arch: Some(_), .. } if kind == "DISCOVER"),
    );
    let tftp = seconds(
        "our loader by TFTP",
        &|what| matches!(what, What::TftpEnd { file, error: None, .. } if file == "undionly.kpxe"),
    );
    let kernel = seconds(
        "kernel by HTTP",
        &|what| matches!(what, What::HttpFile { path, status: 200, bytes, .. } if path.ends_with("/vmlinuz") && *bytes > 0),
    );
    eprintln!("{mac}: DISCOVER after {dhcp:.1}, loader {tftp:.1}, kernel {kernel:.1} s");
}

#[test]
#[ignore = "needs root, qemu-system-x86, libvirt, PyPI's sushy-tools: `cargo xtask test --all` sets it up"]
fn a_machine_behind_sushy_tools_boots_from_the_network_and_from_its_disk() {
    let boot = Boot::new();
    let sushy = sushy::Sushy::start(USER);
    let services = Services::start(sushy.netns.name(), &[boot::management("br0")], &boot);
    services.director.plan(sushy::MAC, expected(Ipv4Addr::new(10, 77, 0, 11)));
    inside(&sushy.netns, || async {
        let bmc = connected(&sushy.target).await;
        let identity = bmc.identity().await.unwrap();
        assert_eq!(identity.uuid.as_deref(), Some(sushy::UUID));
        assert_eq!(identity.nic_macs, [sushy::MAC]);
        let pinned = sushy.target.clone().pinned(identity.certificate);
        let wrong = connect(&pinned, &Credential::new(USER, "another")).await;
        assert!(matches!(wrong, Err(BmcError::WrongCredential { .. })), "{:?}", wrong.err());

        assert_eq!(bmc.power().await.unwrap(), PowerState::Off);
        let armed = bmc.set_boot_once(BootTarget::Pxe, None).await.unwrap();
        // It takes "Once" and keeps it: the quirk row's case, so the drivers' caller must clear it.
        assert_eq!((armed.target, armed.lasting), (BootTarget::Pxe, Lasting::Continuous), "{armed:?}");
        let began = Instant::now();
        bmc.set_power(PowerAction::On).await.unwrap();
        assert_eq!(bmc.power().await.unwrap(), PowerState::On);
        came_by_pxe(&services.director, sushy::MAC, began);
        poll("the kernel's first process on the console", || sushy.says("DZT-INIT")).await;

        let from_disk = bmc.set_boot_once(BootTarget::Disk, None).await.unwrap();
        assert!(from_disk.boots(BootTarget::Disk), "{from_disk:?}");
        bmc.set_power(PowerAction::ForceOff).await.unwrap();
        assert_eq!(bmc.power().await.unwrap(), PowerState::Off);
        bmc.set_power(PowerAction::On).await.unwrap();
        poll("the disk's boot sector on the console", || sushy.says("DZT-DISK")).await;
        bmc.set_power(PowerAction::ForceOff).await.unwrap();
    });
}

/// The BMC gets its address from our DHCP by its MAC, as in a rack.
#[test]
#[ignore = "needs root, qemu-system-x86, tgt, openipmi, ipmitool: `cargo xtask test --all` sets it up"]
fn a_machine_behind_ipmi_sim_boots_from_the_network_once_and_its_console_is_read() {
    let boot = Boot::new();
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../appliance/plan/examples/lab.yaml"));
    let plan: Site = serde_saphyr::from_str(&text.unwrap()).unwrap();
    let host = plan.zones[0].pods[0].clusters[0].hosts[1].clone();
    assert_eq!(host.bmc.protocol, BmcProtocol::Ipmi);
    let mut options = LabOptions::new(boot.dir.path().join("lab"), boot.dir.path().join("store"));
    options.prefix = "dzt-fb".into();
    options.memory_mib = 512;
    options.console = None;
    let account = FactoryAccount { user: USER.into(), password: Secret::new(PASSWORD.into()) };
    options.factory.insert(host.bmc.credential.clone(), account);
    std::fs::create_dir_all(&options.store_dir).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let lab = runtime.block_on(Lab::start(&plan, options)).unwrap();
    let machine = lab.host(host.name.as_str()).unwrap().machine.clone();
    let control = Netns::open("dzt-fb-ctl").unwrap();

    let services = Services::start(control.name(), &[boot::management("mgmt0"), boot::bmcs("bmc0")], &boot);
    services.director.plan(host.bmc.mac, Client::Bmc { host: host.name.clone(), address: host.bmc.address });
    let mac = host.bond.nics[0].mac;
    services.director.plan(mac, expected(host.address));
    inside(&control, || async {
        let bmc = connected(&Target::new(host.bmc.address.into(), BmcProtocol::Ipmi)).await;
        assert_eq!(bmc.identity().await.unwrap().serial.as_deref(), Some(host.serial.as_str()));
        assert_eq!(bmc.power().await.unwrap(), PowerState::Off);
        let armed = bmc.set_boot_once(BootTarget::Pxe, None).await.unwrap();
        assert_eq!((armed.target, armed.lasting), (BootTarget::Pxe, Lasting::Once), "{armed:?}");
        let began = Instant::now();
        bmc.set_power(PowerAction::On).await.unwrap();
        assert!(machine.is_on(), "the machine itself, not the BMC's word");
        let after = bmc.boot_override().await.unwrap();
        assert!(!after.boots(BootTarget::Pxe), "once is once: {after:?}");
        let mut console = bmc.open_sol().await.unwrap();
        came_by_pxe(&services.director, mac, began);
        converse(&mut *console).await;
        console.close().await;
        bmc.set_power(PowerAction::ForceOff).await.unwrap();
        assert!(!machine.is_on());
    });
    drop(services);
    runtime.block_on(lab.stop()).unwrap();
}

/// Reads the console until the first process speaks, and types until it says what it heard.
async fn converse(console: &mut dyn Console) {
    let mut last = String::new();
    let talk = async {
        loop {
            let line = console.next_line().await.unwrap().expect("the console stays open");
            if line.contains("DZT-HEARD over-lan") {
                return;
            }
            // It repeats itself each second; a BMC may swallow the first line that is typed.
            if line.contains("DZT-INIT") {
                console.write_line("over-lan").await.unwrap();
            }
            last = line;
        }
    };
    let done = tokio::time::timeout(PATIENCE, talk).await;
    assert!(done.is_ok(), "no answer by serial over LAN within {PATIENCE:?}; last line: {last}");
}
