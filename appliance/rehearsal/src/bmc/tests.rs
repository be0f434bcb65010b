//! Our drivers against our BMCs, over real sockets between two namespaces; and foreign judges of our BMC.

use super::testing::{FakeChassis, spec};
use super::*;
use crate::netns;
use crate::state::StateFile;
use dayzero_bmc::{
    Bmc, BmcError, BootTarget, Credential, Lasting, PowerAction, PowerState, Target, VouchChannel, connect,
    generate_password,
};
use std::future::Future;
use std::time::Duration;

const BMC: &str = "10.99.7.11";

/// A BMC's namespace and a client's, joined by a cable; gone at the end.
struct Rack {
    client: Netns,
    bmc: Arc<Netns>,
    dir: tempfile::TempDir,
    chassis: Arc<FakeChassis>,
}

impl Rack {
    fn new(tag: &str, addressed: bool) -> Self {
        let (client, bmc) = (format!("dzt-bmc-{tag}-c"), format!("dzt-bmc-{tag}-b"));
        [&client, &bmc].into_iter().for_each(|name| netns::remove(name).unwrap());
        let (client, bmc) = (Netns::create(&client).unwrap(), Netns::create(&bmc).unwrap());
        let cable = format!(
            "link add bmc0 type veth peer name eth0 netns {}\naddr add 10.99.7.1/24 dev bmc0\nlink set bmc0 up\n",
            bmc.name()
        );
        client.configure(&cable).unwrap();
        if addressed {
            bmc.configure(&format!("addr add {BMC}/24 dev eth0\n")).unwrap();
        }
        Self { client, bmc: Arc::new(bmc), dir: tempfile::tempdir().unwrap(), chassis: Arc::default() }
    }

    /// Runs a test in the client's namespace.
    fn run<F: Future<Output = ()>>(&self, test: impl FnOnce() -> F + Send) {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(test());
            Ok(())
        };
        self.client.run("run the test", run).unwrap();
    }

    async fn start(&self, protocol: BmcProtocol, addressing: Addressing) -> BmcHandle {
        let processes = Processes::new(Arc::new(StateFile::create(self.dir.path()).unwrap())).unwrap();
        let spec = BmcEmulatorSpec { addressing, ..spec(protocol, self.dir.path().join("bmc")) };
        start(spec, self.bmc.clone(), processes, self.chassis.clone()).await.unwrap()
    }

    fn boots(&self) -> Vec<&'static str> {
        self.chassis.state.lock().unwrap().boots.clone()
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        [self.client.name(), self.bmc.name()].into_iter().for_each(|name| netns::remove(name).unwrap());
    }
}

fn target(protocol: BmcProtocol) -> Target {
    Target::new(BMC.parse().unwrap(), protocol)
}

fn factory() -> Credential {
    Credential::new("root", "calvin")
}

/// Connects, while the BMC starts.
async fn connected(protocol: BmcProtocol) -> Box<dyn Bmc> {
    let mut last = None;
    for _ in 0..50 {
        match connect(&target(protocol), &factory()).await {
            Ok(bmc) => return bmc,
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the BMC does not answer: {last:?}");
}

/// What both protocols must do alike.
async fn power_boot_and_accounts(rack: &Rack, protocol: BmcProtocol) {
    let wrong = connect(&target(protocol), &Credential::new("root", "wrong-one")).await;
    assert!(matches!(&wrong, Err(BmcError::WrongCredential { user }) if user == "root"), "{:?}", wrong.err());
    let bmc = connected(protocol).await;

    let identity = bmc.identity().await.unwrap();
    assert_eq!(identity.serial.as_deref(), Some("SN0001"));
    assert_eq!(identity.board_serial.as_deref(), Some("BSN0001"));
    assert_eq!(identity.model.as_deref(), Some("VRACK-1U"));
    assert_eq!(identity.uuid.as_deref(), Some("00112233-4455-6677-8899-aabbccddeeff"));
    assert_eq!(identity.bmc_mac, Some("52:54:00:77:09:0b".parse().unwrap()));

    assert_eq!(bmc.power().await.unwrap(), PowerState::Off);
    let armed = bmc.set_boot_once(BootTarget::Pxe, None).await.unwrap();
    assert_eq!((armed.target, armed.lasting), (BootTarget::Pxe, Lasting::Once));
    bmc.set_power(PowerAction::On).await.unwrap();
    assert_eq!(bmc.power().await.unwrap(), PowerState::On);
    assert_eq!(rack.boots(), ["pxe"]);
    let after = bmc.boot_override().await.unwrap();
    assert!(!after.boots(BootTarget::Pxe), "once is once: {after:?}");
    bmc.set_power(PowerAction::On).await.unwrap();
    assert_eq!(rack.boots(), ["pxe"], "on while on does nothing");
    bmc.set_power(PowerAction::Reset).await.unwrap();
    assert_eq!(rack.boots(), ["pxe", "disk"]);
    bmc.set_boot_once(BootTarget::Pxe, None).await.unwrap();
    let cleared = bmc.set_boot_once(BootTarget::None, None).await.unwrap();
    assert_eq!(cleared.lasting, Lasting::Disabled);
    bmc.set_power(PowerAction::ForceOff).await.unwrap();
    assert_eq!(bmc.power().await.unwrap(), PowerState::Off);

    let password = generate_password(&bmc.account_policy().await.unwrap()).unwrap();
    let unknown = bmc.try_login("dayzero", &password).await;
    assert!(matches!(unknown, Err(BmcError::WrongCredential { .. })), "{unknown:?}");
    bmc.create_or_set_account("dayzero", &password).await.unwrap();
    bmc.create_or_set_account("dayzero", &password).await.unwrap();
    bmc.try_login("dayzero", &password).await.unwrap();
    let own = bmc.disable_account("root").await;
    assert!(matches!(own, Err(BmcError::OwnAccount { .. })), "{own:?}");
    bmc.close().await;

    let ours = Credential { user: "dayzero".into(), password: password.clone() };
    let bmc = connect(&target(protocol), &ours).await.unwrap();
    bmc.disable_account("root").await.unwrap();
    let old = bmc.try_login("root", &factory().password).await;
    assert!(matches!(old, Err(BmcError::WrongCredential { .. })), "{old:?}");
    bmc.try_login("dayzero", &password).await.unwrap();
    bmc.set_power(PowerAction::On).await.unwrap();
    bmc.close().await;
}

#[test]
#[ignore = "makes network namespaces: needs root"]
fn redfish_driver_and_bmc() {
    let rack = Rack::new("rf", true);
    rack.run(|| async {
        let handle = rack.start(BmcProtocol::Redfish, Addressing::Given).await;
        power_boot_and_accounts(&rack, BmcProtocol::Redfish).await;
        handle.stop().await;
    });
}

#[test]
#[ignore = "makes network namespaces: needs root"]
fn redfish_certificate_pin_media_and_order() {
    let rack = Rack::new("rm", true);
    rack.run(|| async {
        let handle = rack.start(BmcProtocol::Redfish, Addressing::Given).await;
        let bmc = connected(BmcProtocol::Auto).await;
        assert_eq!(bmc.protocol(), BmcProtocol::Redfish);
        let identity = bmc.identity().await.unwrap();
        assert_eq!(identity.nic_macs.len(), 2);
        let links = |links: Vec<(MacAddr, bool)>| links.into_iter().map(|(_, up)| up).collect::<Vec<_>>();
        assert_eq!(links(bmc.nic_links().await.unwrap()), [false, false], "off");
        bmc.set_power(PowerAction::On).await.unwrap();
        assert_eq!(links(bmc.nic_links().await.unwrap()), [true, false]);
        bmc.set_power(PowerAction::ForceOff).await.unwrap();
        let pin = identity.certificate.unwrap();
        assert!(connect(&target(BmcProtocol::Redfish).pinned(Some(pin)), &factory()).await.is_ok());
        let other = dayzero_model::Sha256::of(b"another certificate");
        let changed = connect(&target(BmcProtocol::Auto).pinned(Some(other)), &factory()).await;
        assert!(
            matches!(&changed, Err(BmcError::CertificateChanged { expected, observed, .. }) if *expected == other && *observed == pin),
            "{:?}",
            changed.err()
        );
        assert!(bmc.boot_order().await.unwrap().is_empty(), "no firmware has told an order yet");
        let order = [(2, "Dayzero".to_owned()), (0, "UEFI PXEv4".to_owned())];
        rack.chassis.state.lock().unwrap().order = order.to_vec();
        assert_eq!(bmc.boot_order().await.unwrap(), ["Dayzero", "UEFI PXEv4"]);

        assert_eq!(bmc.vouch_channel().await.unwrap(), VouchChannel::VirtualMedia);
        let listener = tokio::net::TcpListener::bind("10.99.7.1:8082").await.unwrap();
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let peers = seen.clone();
        let get = move |axum::extract::ConnectInfo(peer): axum::extract::ConnectInfo<std::net::SocketAddr>| async move {
            peers.lock().unwrap().push(peer.ip().to_string());
            "the nonce"
        };
        let router = axum::Router::new().route("/m/{token}", axum::routing::get(get));
        let server = tokio::spawn(async move {
            axum::serve(listener, router.into_make_service_with_connect_info::<std::net::SocketAddr>()).await
        });
        let missing = bmc.insert_media(&Secret::new("http://10.99.7.1:8082/nothing".into())).await;
        assert!(missing.is_err(), "an image that is not there");
        bmc.insert_media(&Secret::new("http://10.99.7.1:8082/m/x".into())).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), [BMC], "the BMC fetches from its own address");
        let file = rack.chassis.state.lock().unwrap().media.clone().unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "the nonce");
        bmc.eject_media().await.unwrap();
        assert_eq!(rack.chassis.state.lock().unwrap().media, None);
        assert!(!file.exists());
        server.abort();
        assert!(matches!(bmc.open_sol().await, Err(BmcError::Unsupported { .. })));
        handle.stop().await;
    });
}

#[test]
#[ignore = "makes network namespaces and runs ipmi_sim and ipmitool: needs root and the Debian packages openipmi, ipmitool"]
fn ipmi_driver_and_bmc() {
    let rack = Rack::new("ip", true);
    rack.run(|| async {
        let handle = rack.start(BmcProtocol::Ipmi, Addressing::Given).await;
        connected(BmcProtocol::Ipmi).await;
        power_boot_and_accounts(&rack, BmcProtocol::Ipmi).await;
        handle.stop().await;
    });
}

#[test]
#[ignore = "makes network namespaces and runs ipmi_sim and ipmitool: needs root and the Debian packages openipmi, ipmitool"]
fn ipmi_console_both_ways() {
    let rack = Rack::new("so", true);
    rack.run(|| async {
        let handle = rack.start(BmcProtocol::Ipmi, Addressing::Given).await;
        let bmc = connected(BmcProtocol::Auto).await;
        assert_eq!(bmc.protocol(), BmcProtocol::Ipmi, "no Redfish there: IPMI it is");
        assert_eq!(bmc.vouch_channel().await.unwrap(), VouchChannel::SerialOverLan);
        for round in 0..2 {
            let mut console = bmc.open_sol().await.unwrap();
            let shout = async {
                loop {
                    let _nobody = rack.chassis.console.send("DAYZERO-VOUCH 1 abc\r\n".into());
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            };
            // As the agent and control do: the one repeats its line, the other answers each.
            let talk = async {
                loop {
                    match console.next_line().await.unwrap().unwrap().as_str() {
                        "DAYZERO-VOUCH 1 abc" => console.write_line("DAYZERO-CA 0123").await.unwrap(),
                        "echo DAYZERO-CA 0123" => break,
                        other => eprintln!("console: {other}"),
                    }
                }
                // The second round finds a session that nobody ended.
                if round == 0 { drop(console) } else { console.close().await }
            };
            tokio::select! {
                () = shout => {}
                done = tokio::time::timeout(Duration::from_secs(60), talk) => done.expect("no answer on the console"),
            }
        }
        handle.stop().await;
    });
}

#[test]
#[ignore = "makes network namespaces and runs dnsmasq and udhcpc: needs root and the Debian packages dnsmasq-base, busybox-static"]
fn a_bmc_gets_its_address_by_dhcp() {
    let rack = Rack::new("dh", false);
    rack.run(|| async {
        let handle = rack.start(BmcProtocol::Redfish, Addressing::Dhcp).await;
        let mut server = tokio::process::Command::new("dnsmasq")
            .args([
                "-d",
                "-C",
                "/dev/null",
                "--port=0",
                "--interface=bmc0",
                "--bind-interfaces",
                "--leasefile-ro",
            ])
            .args([
                "--dhcp-range=10.99.7.0,static,255.255.255.0,120",
                &format!("--dhcp-host=52:54:00:77:09:0b,{BMC}"),
            ])
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut address = handle.address();
        let leased = tokio::time::timeout(Duration::from_secs(60), address.wait_for(Option::is_some)).await;
        assert_eq!(*leased.expect("no lease").unwrap(), Some(BMC.parse().unwrap()));
        connected(BmcProtocol::Redfish).await;
        handle.stop().await;
        server.kill().await.unwrap();
    });
}

#[test]
#[ignore = "needs root, DMTF's validator and schemas: `cargo xtask test --all` sets it up"]
fn the_dmtf_validator_finds_no_fault() {
    let variable = |name| {
        std::env::var(name)
            .unwrap_or_else(|_| panic!("{name} is not set: `cargo xtask test --lab validator` makes it"))
    };
    let (validator, schemas) = (variable("DAYZERO_REDFISH_VALIDATOR"), variable("DAYZERO_REDFISH_SCHEMAS"));
    let rack = Rack::new("va", true);
    rack.run(|| async {
        let handle = rack.start(BmcProtocol::Redfish, Addressing::Given).await;
        let bmc = connected(BmcProtocol::Redfish).await;
        for armed in [false, true] {
            if armed {
                bmc.set_boot_once(BootTarget::Pxe, None).await.unwrap();
            }
            let output = tokio::process::Command::new(&validator)
                .args([
                    "-r",
                    &format!("https://{BMC}"),
                    "-u",
                    "root",
                    "-p",
                    "calvin",
                    "--authtype",
                    "Basic",
                    "--skipschema",
                ])
                .args(["--schema_directory", &schemas, "--logdir"])
                .arg(rack.dir.path().join("validator"))
                .output()
                .await
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            // The last table has one row of numbers: pass, warn, fail, not tested.
            let row =
                text.lines().rev().find(|l| l.starts_with('|') && l.contains(|c: char| c.is_ascii_digit()));
            let numbers: Vec<u32> =
                row.unwrap_or(&text).split('|').filter_map(|n| n.trim().parse().ok()).collect();
            assert!(matches!(numbers[..], [pass, _, 0, _] if pass > 250), "{text}");
        }
        handle.stop().await;
    });
}
