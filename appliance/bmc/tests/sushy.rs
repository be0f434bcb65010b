//! The Redfish driver against a BMC that we did not write: sushy-tools' emulator with its fake driver.
//!
//! It is unlike a real BMC in ways that its quirk rows name: "Once" reads back as "Continuous"; it has no accounts or sessions.

// A test that fails by a panic says where; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use dayzero_bmc::{
    Bmc, BmcError, BootTarget, Credential, Lasting, PowerAction, PowerState, SiteCertificate, Target,
    VouchChannel, connect,
};
use dayzero_model::Secret;
use dayzero_model::site::BmcProtocol;
use std::process::Stdio;
use std::time::Duration;

struct Sushy {
    _process: tokio::process::Child,
    _dir: tempfile::TempDir,
    target: Target,
}

async fn sushy() -> Sushy {
    let program = std::env::var("DAYZERO_SUSHY_EMULATOR").expect(
        "DAYZERO_SUSHY_EMULATOR: sushy-tools' sushy-emulator; `cargo xtask test --lab sushy` installs it",
    );
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(["sushy".to_owned()]).unwrap();
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let config = format!("SUSHY_EMULATOR_STATE_DIR = {:?}\n", dir.path().display().to_string());
    std::fs::write(dir.path().join("conf"), config).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let process = tokio::process::Command::new(program)
        .args(["--fake", "-i", "127.0.0.1", "-p", &port.to_string(), "--ssl-certificate"])
        .arg(&cert)
        .arg("--ssl-key")
        .arg(&key)
        .arg("--config")
        .arg(dir.path().join("conf"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let target =
        Target { redfish_port: port, ..Target::new("127.0.0.1".parse().unwrap(), BmcProtocol::Redfish) };
    Sushy { _process: process, _dir: dir, target }
}

async fn connected(target: &Target) -> Box<dyn Bmc> {
    let mut last = None;
    for _ in 0..150 {
        match connect(target, &Credential::new("admin", "secret-one")).await {
            Ok(bmc) => return bmc,
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("sushy-emulator does not answer: {last:?}");
}

#[tokio::test]
#[ignore = "needs PyPI's sushy-tools: `cargo xtask test --all` installs it"]
async fn a_foreign_redfish_service() {
    let sushy = sushy().await;
    let bmc = connected(&sushy.target).await;
    let identity = bmc.identity().await.unwrap();
    assert_eq!(identity.manufacturer.as_deref(), Some("Sushy Emulator"));
    assert!(identity.uuid.is_some() && identity.certificate.is_some(), "{identity:?}");

    let site = SiteCertificate { pem: "no certificate".into(), common_name: "site".into() };
    let told = bmc.secure_boot(Some(&site)).await.unwrap().unwrap();
    assert_eq!(
        (told.enforced, told.site_key),
        (false, None),
        "it tells of Secure Boot, and has no databases"
    );
    let refused = bmc.enrol_secure_boot(&site).await.unwrap_err();
    assert!(matches!(refused, BmcError::Unsupported { .. }), "{refused}");

    bmc.set_power(PowerAction::ForceOff).await.unwrap();
    let boot = bmc.set_boot_once(BootTarget::Pxe, None).await.unwrap();
    assert_eq!(
        (boot.target, boot.lasting),
        (BootTarget::Pxe, Lasting::Continuous),
        "its quirk shows in the answer"
    );
    bmc.set_power(PowerAction::On).await.unwrap();
    assert_eq!(bmc.power().await.unwrap(), PowerState::On);
    let disk = bmc.set_boot_once(BootTarget::Disk, None).await.unwrap();
    assert!(disk.boots(BootTarget::Disk));
    bmc.set_power(PowerAction::Reset).await.unwrap();
    bmc.set_power(PowerAction::ForceOff).await.unwrap();
    assert_eq!(bmc.power().await.unwrap(), PowerState::Off);

    assert_eq!(
        bmc.vouch_channel().await.unwrap(),
        VouchChannel::VirtualMedia,
        "its drives hang on the system, not on the manager"
    );
    let account = bmc.create_or_set_account("dayzero", &Secret::new("0123456789abcdef".into())).await;
    assert!(matches!(account, Err(BmcError::Protocol { .. } | BmcError::Unsupported { .. })), "{account:?}");
}
