//! The rack for real: QEMU machines on our switch. `cargo xtask test --lab rehearsal` sets what it needs: root, QEMU, tgt,
//! dnsmasq, busybox, and `DAYZERO_TEST_KERNEL`, a directory with an unpacked linux-image package that depmod has indexed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use dayzero_model::Secret;
use dayzero_model::site::Site;
use dayzero_rehearsal::lab::FactoryAccount;
use dayzero_rehearsal::machine::DirectBoot;
use dayzero_rehearsal::protocol::{Forwarding, LabStatus, PowerAction, Request, Response};
use dayzero_rehearsal::state::StateFile;
use dayzero_rehearsal::{Lab, LabClient, LabOptions, run_lab};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PREFIX: &str = "dzt-rack";
const PATIENCE: Duration = Duration::from_secs(180);

fn plan() -> Site {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../plan/examples/lab.yaml")).unwrap();
    let mut site: Site = serde_saphyr::from_str(&text).unwrap();
    site.primary_storage[0].wwn = Some(dayzero_rehearsal::blueprint::wwn_of(1).parse().unwrap());
    site
}

fn options(dir: &Path) -> LabOptions {
    let store = dir.join("store");
    std::fs::create_dir_all(&store).unwrap();
    let mut options = LabOptions::new(dir.join("lab"), store);
    options.prefix = PREFIX.into();
    options.memory_mib = 512;
    options.console = None;
    options
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

fn in_netns(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &format!("{PREFIX}-{name}")]).args(arguments).stdin(Stdio::null());
    command
}

/// Waits for a condition; the last observation stands in the failure.
async fn until<T>(what: &str, mut observe: impl AsyncFnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match observe().await {
            Ok(seen) => {
                println!("{what}: after {:.2} s", start.elapsed().as_secs_f64());
                return seen;
            }
            Err(last) if start.elapsed() > PATIENCE => {
                panic!("{what}: not within {PATIENCE:?}; last seen: {last}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn console(lab: &Arc<Lab>, host: &str) -> String {
    match lab.carry_out(Request::Console { machine: host.into() }).await {
        Response::Console(text) => text,
        other => panic!("{other:?}"),
    }
}

async fn says(lab: &Arc<Lab>, host: &str, line: &str) {
    until(&format!("{host} says '{line}'"), async || {
        let text = console(lab, host).await;
        if text.contains(line) {
            Ok(())
        } else {
            Err(text.chars().rev().take(600).collect::<Vec<_>>().into_iter().rev().collect())
        }
    })
    .await;
}

async fn ask(lab: &Arc<Lab>, request: Request) {
    let response = lab.carry_out(request.clone()).await;
    assert_eq!(response, Response::Done, "{request:?}");
}

async fn status(lab: &Arc<Lab>) -> LabStatus {
    match lab.carry_out(Request::Status).await {
        Response::Status(status) => status,
        other => panic!("{other:?}"),
    }
}

async fn pings(what: &str, from: &str, to: &str) {
    until(what, async || {
        let output = in_netns(from, &["ping", "-c", "1", "-W", "1", to]).output().unwrap();
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stdout).into_owned())
        }
    })
    .await;
}

/// The longest silence of a ping every 10 ms, in ms, while `fault` happens and for `span` after it.
async fn longest_gap(to: &str, span: Duration, fault: impl Future<Output = ()>) -> u64 {
    let child =
        in_netns("ctl", &["ping", "-D", "-n", "-i", "0.01", to]).stdout(Stdio::piped()).spawn().unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    fault.await;
    tokio::time::sleep(span).await;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGINT)
        .unwrap();
    let text = String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned();
    let times: Vec<f64> = text
        .lines()
        .filter(|line| line.contains("time="))
        .filter_map(|line| line.strip_prefix('[')?.split(']').next()?.parse().ok())
        .collect();
    assert!(times.len() > 20, "{text}");
    let ended = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    (ended * 1000.0) as u64
}

fn kernel_dir() -> PathBuf {
    PathBuf::from(std::env::var("DAYZERO_TEST_KERNEL").expect("DAYZERO_TEST_KERNEL: see the file's header"))
}

fn kernel() -> (PathBuf, String) {
    let boot = kernel_dir().join("boot");
    let image = std::fs::read_dir(boot).unwrap().flatten().map(|entry| entry.path());
    let image = image.into_iter().find(|path| path.to_string_lossy().contains("/vmlinuz-")).unwrap();
    let version = image.file_name().unwrap().to_string_lossy().replace("vmlinuz-", "");
    (image, version)
}

const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /bin
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
echo 2 > /proc/sys/kernel/printk
for w in $(cat /proc/cmdline); do case $w in t.*) export "${w#t.}";; esac; done
for m in $(cat /modules/order); do
  case $m in bonding.ko) insmod /modules/$m $(echo "$bond" | tr , ' ');; *) insmod /modules/$m;; esac
done
echo "TEST up"
cat /sys/class/dmi/id/product_serial /sys/class/dmi/id/product_uuid /sys/class/dmi/id/board_serial | sed 's/^/TEST dmi /'
for d in /sys/class/scsi_device/*/device; do
  echo "TEST disk $(cat $d/wwid) $(tail -c +5 $d/vpd_pg80 2>/dev/null | tr -d '\0')"
done
for n in /sys/class/net/eth*; do echo "TEST nic $(cat $n/address) $(basename $(readlink -f $n/device/..))"; done
b=/sys/class/net/bond0/bonding
# Legs first: enslaving into a bond that is up starts Linux's aggregator selection timer of 8 s, during which no data
# passes; bringing up a bond that has its legs costs 1 s.
echo +eth0 > $b/slaves; echo +eth1 > $b/slaves
ifconfig bond0 "$ip" netmask 255.255.255.0 up
ip link add link bond0 name bond0.100 type vlan id 100; ip addr add "$guest/24" dev bond0.100; ip link set bond0.100 up
ip addr add "$sa/24" dev eth2; ip link set eth2 up; ip addr add "$sb/24" dev eth3; ip link set eth3 up
echo "TEST ready"
while :; do
  s="$(sed -n 's/^MII Status: /mii=/p; s/^Currently Active Slave: /active=/p; s/^\tNumber of ports: /ports=/p; s/^\tPartner Mac Address: /partner=/p; s/^ *port state: /state=/p' /proc/net/bonding/bond0 | tr '\n' ' ')"
  [ "$s" = "$last" ] || echo "TEST bond $(cut -d' ' -f1 /proc/uptime) $s"
  last="$s"; usleep 100000
done
"#;

/// A small initramfs: busybox, the modules, and the script above.
fn initramfs(dir: &Path) -> PathBuf {
    let (_, version) = kernel();
    let base = kernel_dir();
    let root = dir.join("initramfs");
    for sub in ["bin", "modules"] {
        std::fs::create_dir_all(root.join(sub)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    std::fs::write(root.join("init"), INIT).unwrap();
    run("chmod", &["755", &root.join("init").to_string_lossy()]);
    let wanted = ["virtio_pci", "virtio_net", "virtio_scsi", "sd_mod", "bonding", "8021q", "af_packet"];
    let mut order = Vec::new();
    for module in wanted {
        let output = Command::new("modprobe")
            .args(["-d", &base.to_string_lossy(), "-S", &version, "--show-depends", module])
            .output()
            .unwrap();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let Some(path) = line.strip_prefix("insmod ").and_then(|rest| rest.split(' ').next()) else {
                continue;
            };
            let name = Path::new(path).file_name().unwrap().to_string_lossy().into_owned();
            if !order.contains(&name) {
                std::fs::copy(path, root.join("modules").join(&name)).unwrap();
                order.push(name);
            }
        }
    }
    std::fs::write(root.join("modules/order"), order.join("\n")).unwrap();
    let out = dir.join("initrd");
    let script = format!("cd {} && find . | cpio -o -H newc --quiet > {}", root.display(), out.display());
    run("sh", &["-c", &script]);
    out
}

fn direct(dir: &Path, options: &mut LabOptions) {
    let initrd = initramfs(dir);
    let (kernel, _) = kernel();
    for (host, number, bond) in [
        ("host1", 1, "bonding.mode=4 bonding.miimon=100 bonding.lacp_rate=1 bonding.max_bonds=1"),
        (
            "host2",
            2,
            "bonding.mode=1 bonding.arp_interval=200 bonding.arp_missed_max=2 bonding.arp_validate=3 bonding.arp_ip_target=10.77.0.1",
        ),
    ] {
        // Module parameters on the command line reach only built-in code: the script passes them on.
        let cmdline = format!(
            "console=ttyS0 quiet no_timer_check t.ip=10.77.0.1{number} t.guest=10.77.100.1{number} t.sa=10.77.11.2{number} t.sb=10.77.12.2{number} t.bond={}",
            bond.replace("bonding.", "").replace(' ', ",")
        );
        options
            .direct
            .insert(host.into(), DirectBoot { kernel: kernel.clone(), initrd: initrd.clone(), cmdline });
    }
}

fn nothing_left(dir: &Path) {
    let namespaces = run("ip", &["netns", "list"]);
    assert!(!namespaces.contains(PREFIX), "{namespaces}");
    assert!(!dir.join("lab/lab-state.json").exists());
    let dir = dir.to_string_lossy().into_owned();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        assert!(!line.contains(&dir), "still running: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, QEMU and a kernel"]
async fn bonds_vlans_cables_and_dead_switches() {
    let dir = tempfile::Builder::new().prefix("dzr").tempdir().unwrap();
    let mut options = options(dir.path());
    direct(dir.path(), &mut options);
    let lab = Lab::start(&plan(), options).await.unwrap();
    for host in ["host1", "host2"] {
        ask(&lab, Request::Power { host: host.parse().unwrap(), action: PowerAction::On }).await;
    }
    for host in ["host1", "host2"] {
        says(&lab, host, "TEST ready").await;
    }
    let text = console(&lab, "host1").await;
    for expected in [
        "TEST dmi DZ-LAB-0001",
        "TEST dmi 6c1d5a30-7f0e-4b6e-9a51-0d2b1c000001",
        "TEST disk naa.5000c50077000001 DZDISK0001",
        "TEST nic 52:54:00:77:01:01 0000:00:10.0",
        "TEST nic 52:54:00:77:01:04 0000:00:13.0",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    until("host1's LAG is up on both members", async || {
        let nics = status(&lab).await.hosts[0].nics.clone();
        if nics[..2].iter().all(|nic| nic.forwarding == Forwarding::Lag) {
            Ok(())
        } else {
            Err(format!("{nics:?}"))
        }
    })
    .await;
    for to in ["10.77.0.11", "10.77.100.11", "10.77.0.12", "10.77.100.12"] {
        pings(&format!("control reaches {to}"), "ctl", to).await;
    }
    for to in ["10.77.11.21", "10.77.12.21", "10.77.11.22", "10.77.12.22"] {
        pings(&format!("the SAN reaches {to}"), "san", to).await;
    }
    let output = in_netns("ctl", &["ping", "-c", "20", "-i", "0.05", "10.77.0.11"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains("DUP!") && text.contains(" 0% packet loss"), "{text}");

    for (host, address) in [("host1", "10.77.0.11"), ("host2", "10.77.0.12")] {
        let host: dayzero_model::HostName = host.parse().unwrap();
        for nic in [0, 1] {
            let gap = longest_gap(address, Duration::from_secs(3), async {
                ask(&lab, Request::PullCable { host: host.clone(), nic }).await;
            })
            .await;
            println!("{host} cable {nic} pulled: {gap} ms");
            pings("over the other leg", "ctl", address).await;
            ask(&lab, Request::Plug { host: host.clone(), nic }).await;
            settle(&lab, &host, nic).await;
        }
        for (nic, member) in ["sw-a", "sw-b"].into_iter().enumerate() {
            let gap = longest_gap(address, Duration::from_secs(6), async {
                ask(&lab, Request::KillSwitch { member: member.parse().unwrap() }).await;
            })
            .await;
            println!("{host} {member} dead: {gap} ms");
            pings("over the other switch", "ctl", address).await;
            ask(&lab, Request::ReviveSwitch { member: member.parse().unwrap() }).await;
            settle(&lab, &host, nic).await;
        }
    }
    lab.stop().await.unwrap();
    nothing_left(dir.path());
}

/// Until the leg carries again: by the switch for a LAG, by time for a backup leg (ARP monitoring needs its rounds).
async fn settle(lab: &Arc<Lab>, host: &dayzero_model::HostName, nic: usize) {
    if host.as_str() == "host1" {
        until("the leg is in the LAG again", async || {
            let nics = status(lab).await.hosts[0].nics.clone();
            if nics[nic].forwarding == Forwarding::Lag { Ok(()) } else { Err(format!("{nics:?}")) }
        })
        .await;
    }
    // The guest prints each change of its bond: both legs up.
    until("both legs are up in the guest", async || {
        let text = console(lab, host.as_str()).await;
        let last = text.lines().rev().find(|line| line.contains("TEST bond")).unwrap_or_default().to_owned();
        let up =
            last.matches("mii=up").count() == 3 && (host.as_str() != "host1" || last.contains("ports=2"));
        if up { Ok(()) } else { Err(last) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, QEMU and dnsmasq"]
async fn firmware_pxe_boots_once_and_asks_dhcp() {
    let dir = tempfile::Builder::new().prefix("dzr").tempdir().unwrap();
    let lab = Lab::start(&plan(), options(dir.path())).await.unwrap();
    let log = dir.path().join("dnsmasq.log");
    let mut dnsmasq = in_netns(
        "ctl",
        &[
            "dnsmasq",
            "--keep-in-foreground",
            "--port=0",
            "--interface=mgmt0",
            "--bind-interfaces",
            "--log-dhcp",
            "--dhcp-range=10.77.0.200,10.77.0.220,10m",
            "--no-ping",
            "--dhcp-boot=nothing.efi",
            "--conf-file=/dev/null",
            "--user=root",
            "--pid-file=",
            "--leasefile-ro",
            &format!("--log-facility={}", log.display()),
        ],
    )
    .spawn()
    .unwrap();
    for host in ["host1", "host2"] {
        lab.host(host).unwrap().machine.set_once_pxe().await.unwrap();
        ask(&lab, Request::Power { host: host.parse().unwrap(), action: PowerAction::On }).await;
    }
    assert_eq!(
        lab.carry_out(Request::SpawnStranger { mac: "52:54:00:77:ee:01".parse().unwrap() }).await,
        Response::Spawned { name: "stranger-1".into(), mac: "52:54:00:77:ee:01".parse().unwrap() }
    );
    let Response::Spawned { name: clone, mac } =
        lab.carry_out(Request::SpawnClone { of: "host2".parse().unwrap() }).await
    else {
        panic!("no clone")
    };
    assert_eq!(mac.to_string(), "52:54:00:77:02:01");
    for (mac, class) in [
        ("52:54:00:77:01:01", "PXEClient:Arch:00007"),
        ("52:54:00:77:02:01", "PXEClient:Arch:00000"),
        ("52:54:00:77:ee:01", "PXEClient:Arch:00000"),
    ] {
        until(&format!("DHCP from {mac} as {class}"), async || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            // dnsmasq writes the transaction id before each line of one request.
            let id = |line: &str| line.split("]: ").nth(1)?.split(' ').next().map(str::to_owned);
            let asked = text
                .lines()
                .filter(|line| line.contains("DHCPDISCOVER") && line.contains(mac))
                .filter_map(id);
            let seen = asked
                .into_iter()
                .any(|id| text.lines().any(|line| line.contains(&format!(" {id} vendor class: {class}"))));
            if seen { Ok(()) } else { Err(text) }
        })
        .await;
    }
    for host in ["host1", "host2"] {
        assert_eq!(lab.host(host).unwrap().machine.boot_order().once, None, "used up");
    }
    ask(&lab, Request::KillExtra { name: clone }).await;
    let dir_of_lab = dir.path().join("lab");
    let mut client = LabClient::connect(&dir_of_lab).await.unwrap();
    let Response::Status(seen) = client.ask(&Request::Status).await.unwrap() else { panic!("no status") };
    assert_eq!((seen.extras.len(), seen.services.len()), (1, 1));
    assert!(seen.services.iter().all(|service| service.running), "{seen:?}");
    let refused =
        client.ask(&Request::PullCable { host: "host9".parse().unwrap(), nic: 0 }).await.unwrap_err();
    assert!(refused.to_string().contains("the lab has host1, host2"), "{refused}");
    dnsmasq.kill().unwrap();
    dnsmasq.wait().unwrap();
    lab.stop().await.unwrap();
    nothing_left(dir.path());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and tgt"]
async fn what_a_killed_lab_leaves_is_cleaned_up_by_the_next() {
    let dir = tempfile::Builder::new().prefix("dzr").tempdir().unwrap();
    let first = Lab::start(&plan(), options(dir.path())).await.unwrap();
    let left = std::fs::read(dir.path().join("lab/lab-state.json")).unwrap();
    first.stop().await.unwrap();
    nothing_left(dir.path());
    // As if the daemon had been killed between recording and making: names without inode, one of them made.
    let mut state: serde_json::Value = serde_json::from_slice(&left).unwrap();
    state["daemon"] = serde_json::Value::Null;
    for namespace in state["namespaces"].as_array_mut().unwrap() {
        namespace["inode"] = serde_json::Value::Null;
    }
    std::fs::write(dir.path().join("lab/lab-state.json"), state.to_string()).unwrap();
    run("ip", &["netns", "add", &format!("{PREFIX}-san")]);
    let second = Lab::start(&plan(), options(dir.path())).await.unwrap();
    second.stop().await.unwrap();
    nothing_left(dir.path());
    // A lab that is dropped without being stopped.
    drop(Lab::start(&plan(), options(dir.path())).await.unwrap());
    nothing_left(dir.path());
    // A namespace that no state file names is not ours.
    run("ip", &["netns", "add", &format!("{PREFIX}-ctl")]);
    let refused = Lab::start(&plan(), options(dir.path())).await.unwrap_err().to_string();
    run("ip", &["netns", "delete", &format!("{PREFIX}-ctl")]);
    assert!(refused.contains("is not this lab's"), "{refused}");
    nothing_left(dir.path());
}

/// The template of secondary storage reaches the control plane whole, through the switch stack.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, tgt, curl, openipmi"]
async fn secondary_storage_and_bmcs_answer_on_their_networks() {
    let dir = tempfile::Builder::new().prefix("dzr").tempdir().unwrap();
    let mut options = options(dir.path());
    let account = FactoryAccount { user: "root".into(), password: Secret::new("calvin-lab".into()) };
    options.factory.insert("factory".parse().unwrap(), account);
    let template: Vec<u8> =
        (0..64u32 << 18).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(options.store_dir.join("tiny.raw"), &template).unwrap();
    let lab = Lab::start(&plan(), options).await.unwrap();
    let copy = dir.path().join("copy").to_string_lossy().into_owned();
    let fetch = [
        "curl",
        "-sS",
        "--fail",
        "--noproxy",
        "*",
        "-w",
        "%{speed_download} B/s",
        "-o",
        &copy,
        "http://10.77.0.5:8081/tiny.raw",
    ];
    let output = in_netns("ctl", &fetch).output().unwrap();
    println!("64 MiB by the switch: {}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(std::fs::read(&copy).unwrap() == template, "the copy differs");
    let log = dir.path().join("dnsmasq.log");
    let mut dnsmasq = in_netns(
        "ctl",
        &[
            "dnsmasq",
            "--keep-in-foreground",
            "--port=0",
            "--interface=bmc0",
            "--bind-interfaces",
            "--no-ping",
            "--dhcp-range=10.77.9.0,static",
            "--dhcp-host=52:54:00:77:09:01,10.77.9.11",
            "--dhcp-host=52:54:00:77:09:02,10.77.9.12",
            "--conf-file=/dev/null",
            "--user=root",
            "--pid-file=",
            "--leasefile-ro",
            &format!("--log-facility={}", log.display()),
        ],
    )
    .spawn()
    .unwrap();
    for address in ["10.77.9.11", "10.77.9.12"] {
        pings(&format!("BMC {address} has its planned address"), "ctl", address).await;
    }
    let root =
        in_netns("ctl", &["curl", "-ksS", "--fail", "--noproxy", "*", "https://10.77.9.11/redfish/v1/"])
            .output()
            .unwrap();
    assert!(String::from_utf8_lossy(&root.stdout).contains("RedfishVersion"), "{root:?}");
    let account = |password: &str| {
        let credential = format!("root:{password}");
        let url = "https://10.77.9.11/redfish/v1/Systems";
        let fetch = [
            "curl",
            "-ksS",
            "--noproxy",
            "*",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-u",
            &credential,
            url,
        ];
        String::from_utf8(in_netns("ctl", &fetch).output().unwrap().stdout).unwrap()
    };
    assert_eq!(account("calvin-lab"), "200");
    ask(&lab, Request::WrongPassword { host: "host1".parse().unwrap(), wrong: true }).await;
    until("the other BMC refuses the planned password", async || {
        let code = account("calvin-lab");
        if code == "401" { Ok(()) } else { Err(code) }
    })
    .await;
    ask(&lab, Request::WrongPassword { host: "host1".parse().unwrap(), wrong: false }).await;
    until("the planned BMC is back", async || {
        let code = account("calvin-lab");
        if code == "200" { Ok(()) } else { Err(code) }
    })
    .await;
    dnsmasq.kill().unwrap();
    dnsmasq.wait().unwrap();
    lab.stop().await.unwrap();
    nothing_left(dir.path());
}

/// The daemon of the test below, in a process of its own.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by sigterm_and_sigkill_leave_nothing"]
async fn daemon_body() {
    let Some(dir) = std::env::var_os("DAYZERO_TEST_LAB") else { return };
    run_lab(&plan(), options(Path::new(&dir))).await.unwrap();
}

/// Starts a daemon with one machine that runs.
async fn daemon(dir: &Path) -> std::process::Child {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "daemon_body"])
        .env("DAYZERO_TEST_LAB", dir)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut client = until("the daemon's socket answers", async || {
        LabClient::connect(&dir.join("lab")).await.map_err(|error| error.to_string())
    })
    .await;
    client.ask(&Request::Power { host: "host2".parse().unwrap(), action: PowerAction::On }).await.unwrap();
    child
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, QEMU and tgt"]
async fn sigterm_and_sigkill_leave_nothing() {
    use nix::sys::signal::{Signal, kill};
    let dir = tempfile::Builder::new().prefix("dzr").tempdir().unwrap();
    let pid = |child: &std::process::Child| nix::unistd::Pid::from_raw(child.id() as i32);
    let mut child = daemon(dir.path()).await;
    kill(pid(&child), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    nothing_left(dir.path());

    let mut child = daemon(dir.path()).await;
    let left = StateFile::load(&dir.path().join("lab")).unwrap().unwrap();
    assert!(
        left.children.iter().any(|entry| entry.what == "qemu host2" && entry.process.alive()),
        "{left:?}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    until("the kernel ends the children of a killed daemon", async || {
        let alive: Vec<_> = left.children.iter().filter(|entry| entry.process.alive()).collect();
        if alive.is_empty() { Ok(()) } else { Err(format!("{alive:?}")) }
    })
    .await;
    dayzero_rehearsal::cleanup::former(&dir.path().join("lab")).unwrap();
    nothing_left(dir.path());
}
