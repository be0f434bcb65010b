//! The Redfish driver.

use crate::lane::Lane;
use crate::quirks::{self, Effect, Quirks};
use crate::{
    AccountPolicy, Alphabet, Bmc, BmcError, BmcIdentity, BootOverride, BootTarget, Console, Credential,
    HTTPS_BOOT, Lasting, PowerAction, PowerState, SiteCertificate, VouchChannel,
};
use async_trait::async_trait;
use dayzero_model::facts::SecureBootFacts;
use dayzero_model::inventory::BootMode;
use dayzero_model::site::BmcProtocol;
use dayzero_model::{MacAddr, Secret, Sha256};
use dayzero_redfish::{
    AuthMode, Boot, Client, DatabaseCertificate, Fingerprint, Limits, NewAccount, Options, RedfishError,
};
use std::net::SocketAddr;
use std::time::Duration;

/// How long a power change may take to read so.
const POWER_SETTLE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(500);
/// The signature database.
const DB: &str = "db";
/// Where the service does not say: what each BMC takes.
const DEFAULT_MIN: u32 = 8;
const DEFAULT_MAX: u32 = 20;

/// A BMC behind Redfish.
pub(crate) struct RedfishBmc {
    client: Client,
    address: SocketAddr,
    quirks: Quirks,
    lane: Lane,
}

fn client(
    address: SocketAddr,
    user: &str,
    password: &Secret<String>,
    pin: Option<Fingerprint>,
) -> Result<Client, BmcError> {
    let credential = Some(dayzero_redfish::Credential::new(user, password.expose().as_str()));
    Ok(Client::new(Options { address, credential, auth: AuthMode::Auto, pin, limits: Limits::default() })?)
}

impl RedfishBmc {
    pub(crate) async fn connect(
        address: SocketAddr,
        credential: &Credential,
        pin: Option<Sha256>,
        lane: Lane,
    ) -> Result<Self, BmcError> {
        let _turn = lane.turn().await;
        let client = client(address, &credential.user, &credential.password, pin.map(|p| Fingerprint(p.0)))?;
        let root = client.root().await?;
        if root.version.is_none() {
            return Err(BmcError::Unsupported { what: "Redfish service".into() });
        }
        let system = client.system().await?;
        let firmware = client.manager().await.ok().and_then(|m| m.firmware).unwrap_or_default();
        let manufacturer = system.manufacturer.or(root.vendor).unwrap_or_default();
        let quirks = quirks::of(&manufacturer, system.model.as_deref().unwrap_or_default(), &firmware);
        Ok(Self { client, address, quirks, lane: lane.clone() })
    }

    async fn wait_for_power(&self, wanted: PowerState) -> Result<(), BmcError> {
        let deadline = tokio::time::Instant::now() + POWER_SETTLE;
        loop {
            let observed = power_state(&self.client.power().await?);
            if observed == wanted {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                let (wanted, observed) = (format!("{wanted:?}"), format!("{observed:?}"));
                return Err(BmcError::ReadBack { what: "power".into(), wanted, observed });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The boot mode to write beside the target: as asked for; the present one where the BMC forgets it otherwise; none where it
    /// refuses to be told.
    async fn mode_word(&self, mode: Option<BootMode>) -> Result<Option<String>, BmcError> {
        if self.quirks.has(Effect::BootModeRefused) {
            return Ok(None);
        }
        Ok(match mode {
            Some(BootMode::Uefi) => Some("UEFI".into()),
            Some(BootMode::Bios) => Some("Legacy".into()),
            None if self.quirks.has(Effect::BootModeNeeded) => self.client.boot().await?.mode,
            None => None,
        })
    }

    /// The first of the reset types that the service allows; the first at all where it lists none.
    async fn reset_by(&self, kinds: &[&str]) -> Result<(), BmcError> {
        let allowed = self.client.reset_types().await?;
        let kind = kinds.iter().find(|k| allowed.is_empty() || allowed.iter().any(|a| a == *k));
        let kind =
            kind.ok_or_else(|| BmcError::Unsupported { what: format!("reset by {}", kinds.join(" or ")) })?;
        Ok(self.client.reset(kind).await?)
    }
}

/// Whether a database holds the site's certificate: by its text where the service shows it, else by its subject.
fn holds(list: &[DatabaseCertificate], site: Option<&SiteCertificate>) -> bool {
    let bare = |pem: &str| pem.split_whitespace().collect::<String>();
    let Some(site) = site else { return false };
    list.iter().any(|one| match &one.pem {
        Some(pem) => bare(pem) == bare(&site.pem),
        None => one.common_name.as_deref() == Some(site.common_name.as_str()),
    })
}

fn power_state(text: &str) -> PowerState {
    match text {
        "On" => PowerState::On,
        "Off" => PowerState::Off,
        _ => PowerState::Changing,
    }
}

fn boot_override(boot: &Boot) -> BootOverride {
    let lasting = match boot.enabled.as_deref() {
        Some("Once") => Lasting::Once,
        Some("Continuous") => Lasting::Continuous,
        _ => Lasting::Disabled,
    };
    let target = match boot.target.as_deref() {
        Some("Pxe") => BootTarget::Pxe,
        Some("Hdd") => BootTarget::Disk,
        Some("Cd" | "UsbCd") => BootTarget::Cd,
        Some("BiosSetup") => BootTarget::Setup,
        Some("None") | None => BootTarget::None,
        Some(_) => BootTarget::Other,
    };
    let mode = match boot.mode.as_deref() {
        Some("UEFI") => Some(BootMode::Uefi),
        Some("Legacy") => Some(BootMode::Bios),
        _ => None,
    };
    let show = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let observed = format!("{} {} {}", show(&boot.enabled), show(&boot.target), show(&boot.mode));
    BootOverride { target, lasting, mode, observed }
}

fn target_word(target: BootTarget) -> Result<&'static str, BmcError> {
    match target {
        BootTarget::None => Ok("None"),
        BootTarget::Pxe => Ok("Pxe"),
        BootTarget::Disk => Ok("Hdd"),
        BootTarget::Cd => Ok("Cd"),
        BootTarget::Setup => Ok("BiosSetup"),
        BootTarget::Other => Err(BmcError::Unsupported { what: "boot target 'other'".into() }),
    }
}

/// A part of the identity that cannot be read is left out, and said so.
fn partial<T: Default>(what: &str, result: Result<T, RedfishError>) -> T {
    result.unwrap_or_else(|error| {
        tracing::warn!(%error, "{what} could not be read from the BMC");
        T::default()
    })
}

#[async_trait]
impl Bmc for RedfishBmc {
    fn protocol(&self) -> BmcProtocol {
        BmcProtocol::Redfish
    }

    async fn identity(&self) -> Result<BmcIdentity, BmcError> {
        let _turn = self.lane.turn().await;
        let system = self.client.system().await?;
        let nics = partial("the host's NICs", self.client.nics().await);
        let manager = partial("the manager", self.client.manager().await.map(Some));
        let macs = |nics: &[dayzero_redfish::Nic]| -> Vec<MacAddr> {
            nics.iter().filter_map(|n| n.mac.parse().ok()).filter(|m: &MacAddr| m.0 != [0; 6]).collect()
        };
        let own = self.address.ip().to_string();
        let bmc_mac = manager.as_ref().and_then(|m| {
            let ours = m.nics.iter().find(|n| n.ipv4.contains(&own)).or(m.nics.first());
            ours.and_then(|n| n.mac.parse().ok())
        });
        let (serial, board_serial) = match system.sku {
            Some(sku) if self.quirks.has(Effect::SkuIsSerial) => (Some(sku), system.serial),
            _ => (system.serial, system.board_serial),
        };
        Ok(BmcIdentity {
            protocol: BmcProtocol::Redfish,
            certificate: self.client.fingerprint().map(|f| Sha256(f.0)),
            manufacturer: system.manufacturer,
            model: system.model,
            serial,
            board_serial,
            uuid: system.uuid.map(|u| u.to_ascii_lowercase()),
            bmc_mac,
            nic_macs: macs(&nics),
            bmc_firmware: manager.and_then(|m| m.firmware),
            bios_version: system.bios,
        })
    }

    async fn nic_links(&self) -> Result<Vec<(MacAddr, bool)>, BmcError> {
        let _turn = self.lane.turn().await;
        let nics = self.client.nics().await?;
        let link = |nic: dayzero_redfish::Nic| Some((nic.mac.parse().ok()?, nic.link?));
        Ok(nics.into_iter().filter_map(link).collect())
    }

    async fn power(&self) -> Result<PowerState, BmcError> {
        let _turn = self.lane.turn().await;
        Ok(power_state(&self.client.power().await?))
    }

    async fn set_power(&self, action: PowerAction) -> Result<(), BmcError> {
        let _turn = self.lane.turn().await;
        let before = power_state(&self.client.power().await?);
        match action {
            PowerAction::On if before == PowerState::On => Ok(()),
            PowerAction::ForceOff if before == PowerState::Off => Ok(()),
            PowerAction::On => {
                self.reset_by(&["On", "ForceOn"]).await?;
                self.wait_for_power(PowerState::On).await
            }
            PowerAction::ForceOff => {
                self.reset_by(&["ForceOff"]).await?;
                self.wait_for_power(PowerState::Off).await
            }
            PowerAction::GracefulOff => self.reset_by(&["GracefulShutdown", "PushPowerButton"]).await,
            PowerAction::Reset => self.reset_by(&["ForceRestart"]).await,
            PowerAction::Cycle => self.reset_by(&["PowerCycle", "ForceRestart"]).await,
        }
    }

    async fn set_boot_once(
        &self,
        target: BootTarget,
        mode: Option<BootMode>,
    ) -> Result<BootOverride, BmcError> {
        let _turn = self.lane.turn().await;
        if target == BootTarget::None {
            return Ok(boot_override(&self.client.set_boot("Disabled", "None", None).await?));
        }
        let mode = self.mode_word(mode).await?;
        match self.client.set_boot("Once", target_word(target)?, mode.as_deref()).await {
            Ok(boot) => Ok(boot_override(&boot)),
            Err(RedfishError::ReadBack { .. }) if self.quirks.has(Effect::OnceReadsContinuous) => {
                let observed = boot_override(&self.client.boot().await?);
                if observed.boots(target) {
                    return Ok(observed);
                }
                let (wanted, observed) = (format!("{target:?} once"), observed.observed);
                Err(BmcError::ReadBack { what: "boot override".into(), wanted, observed })
            }
            Err(other) => Err(other.into()),
        }
    }

    async fn boot_override(&self) -> Result<BootOverride, BmcError> {
        let _turn = self.lane.turn().await;
        Ok(boot_override(&self.client.boot().await?))
    }

    async fn boot_order(&self) -> Result<Vec<String>, BmcError> {
        let _turn = self.lane.turn().await;
        let order = self.client.boot_order().await?;
        Ok(order.into_iter().map(|option| option.name.unwrap_or(option.reference)).collect())
    }

    async fn account_policy(&self) -> Result<AccountPolicy, BmcError> {
        let _turn = self.lane.turn().await;
        let policy = self.client.account_policy().await?;
        let special = self.quirks.has(Effect::NeedsSpecial);
        let max = policy.max_length.unwrap_or(DEFAULT_MAX);
        Ok(AccountPolicy {
            min_length: policy.min_length.unwrap_or(DEFAULT_MIN),
            max_length: self.quirks.max_password().map_or(max, |known| max.min(known)),
            alphabet: if special { Alphabet::WithSpecial } else { Alphabet::Alphanumeric },
        })
    }

    async fn create_or_set_account(&self, name: &str, password: &Secret<String>) -> Result<(), BmcError> {
        let _turn = self.lane.turn().await;
        let account = NewAccount::new(name, password.expose().as_str(), self.quirks.first_account_slot());
        self.client.put_account(&account).await?;
        Ok(())
    }

    async fn try_login(&self, name: &str, password: &Secret<String>) -> Result<(), BmcError> {
        let _turn = self.lane.turn().await;
        let client = client(self.address, name, password, self.client.fingerprint())?;
        let result = client.authenticate_now().await;
        client.close().await;
        Ok(result?)
    }

    async fn disable_account(&self, name: &str) -> Result<(), BmcError> {
        if self.client.user() == Some(name) {
            return Err(BmcError::OwnAccount { user: name.to_owned() });
        }
        let _turn = self.lane.turn().await;
        self.client.set_account_enabled(name, false).await?;
        Ok(())
    }

    async fn vouch_channel(&self) -> Result<VouchChannel, BmcError> {
        let _turn = self.lane.turn().await;
        let drives = self.client.virtual_cds().await?;
        Ok(if drives.is_empty() { VouchChannel::None } else { VouchChannel::VirtualMedia })
    }

    async fn insert_media(&self, url: &Secret<String>) -> Result<(), BmcError> {
        let _turn = self.lane.turn().await;
        self.client.insert_cd(url.expose()).await?;
        Ok(())
    }

    async fn eject_media(&self) -> Result<(), BmcError> {
        let _turn = self.lane.turn().await;
        self.client.eject_cds().await?;
        Ok(())
    }

    async fn open_sol(&self) -> Result<Box<dyn Console>, BmcError> {
        Err(BmcError::Unsupported { what: "serial over LAN by Redfish".into() })
    }

    async fn secure_boot(&self, site: Option<&SiteCertificate>) -> Result<Option<SecureBootFacts>, BmcError> {
        let _turn = self.lane.turn().await;
        let Some(told) = self.client.secure_boot().await? else { return Ok(None) };
        let database = partial("the Secure Boot database", self.client.secure_boot_database(DB).await);
        Ok(Some(SecureBootFacts {
            enforced: told.enforced(),
            site_key: database.map(|list| holds(&list, site)),
        }))
    }

    async fn enrol_secure_boot(&self, site: &SiteCertificate) -> Result<(), BmcError> {
        let _turn = self.lane.turn().await;
        let read = async || -> Result<bool, BmcError> {
            let list = self.client.secure_boot_database(DB).await?;
            let list =
                list.ok_or_else(|| BmcError::Unsupported { what: "Secure Boot database db".into() })?;
            Ok(holds(&list, Some(site)))
        };
        if read().await? {
            return Ok(());
        }
        self.client.add_secure_boot_certificate(DB, &site.pem).await?;
        if read().await? {
            return Ok(());
        }
        let (wanted, observed) = (site.common_name.clone(), "it is not there".to_owned());
        Err(BmcError::ReadBack { what: "Secure Boot database db".into(), wanted, observed })
    }

    async fn https_boot(&self, site: &SiteCertificate) -> Result<Option<bool>, BmcError> {
        let _turn = self.lane.turn().await;
        let list = self.client.https_boot_certificates().await?;
        Ok(list.map(|list| holds(&list, Some(site))))
    }

    async fn enrol_https_boot(&self, site: &SiteCertificate) -> Result<(), BmcError> {
        let _turn = self.lane.turn().await;
        let read = async || -> Result<bool, BmcError> {
            let list = self.client.https_boot_certificates().await?;
            let list = list.ok_or_else(|| BmcError::Unsupported { what: HTTPS_BOOT.into() })?;
            Ok(holds(&list, Some(site)))
        };
        if read().await? {
            return Ok(());
        }
        self.client.add_https_boot_certificate(&site.pem).await?;
        if read().await? {
            return Ok(());
        }
        let (wanted, observed) = (site.common_name.clone(), "it is not there".to_owned());
        Err(BmcError::ReadBack { what: HTTPS_BOOT.into(), wanted, observed })
    }

    async fn close(&self) {
        let _turn = self.lane.turn().await;
        self.client.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sites_certificate_is_found_by_text_or_by_name() {
        let site =
            SiteCertificate { pem: "-----A-----\nAbc=\n-----B-----\n".into(), common_name: "site".into() };
        let one = |pem: Option<&str>, name: Option<&str>| {
            let (pem, common_name) = (pem.map(str::to_owned), name.map(str::to_owned));
            [DatabaseCertificate { pem, common_name }]
        };
        assert!(holds(&one(Some("-----A-----\r\nAbc=\r\n-----B-----"), None), Some(&site)));
        assert!(holds(&one(None, Some("site")), Some(&site)));
        assert!(
            !holds(&one(Some("-----A----- Abd= -----B-----"), Some("site")), Some(&site)),
            "another one's"
        );
        assert!(!holds(&one(None, Some("Microsoft")), Some(&site)) && !holds(&one(None, Some("site")), None));
    }

    #[test]
    fn what_a_boot_override_means() {
        let boot = |enabled: &str, target: &str| Boot {
            enabled: Some(enabled.into()),
            target: Some(target.into()),
            ..Boot::default()
        };
        assert!(boot_override(&boot("Once", "Pxe")).boots(BootTarget::Pxe));
        assert!(boot_override(&boot("Continuous", "Pxe")).boots(BootTarget::Pxe));
        assert!(
            !boot_override(&boot("Disabled", "Pxe")).boots(BootTarget::Pxe),
            "an old target is not an override"
        );
        assert_eq!(boot_override(&boot("Once", "UefiHttp")).target, BootTarget::Other);
        assert_eq!(boot_override(&Boot::default()).lasting, Lasting::Disabled);
    }
}
