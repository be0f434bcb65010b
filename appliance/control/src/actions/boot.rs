//! Booting: by network into the discovery image, with the BMC's channel for vouching prepared first; from disk; and
//! the boot order.

use super::orders::{order as give, unexpected};
use super::{agent_cause, stopping, store_cause};
use crate::control::Control;
use crate::engine::Delta;
use crate::sessions::{bmc_cause, system_cause};
use dayzero_bmc::{BootTarget, PowerAction, PowerState, SiteCertificate, VouchChannel};
use dayzero_lifecycle::boot;
use dayzero_lifecycle::cause::cause;
use dayzero_model::boot::{BootWindow, Chain};
use dayzero_model::condition::Cause;
use dayzero_model::event::What;
use dayzero_model::facts::WindowFacts;
use dayzero_model::ids::{BootId, HostName};
use dayzero_model::inventory::BootMode;
use dayzero_model::media::{VouchFile, write_iso};
use dayzero_model::secret::Secret;
use dayzero_model::site::Host;
use dayzero_model::startup::StartReport;
use dayzero_model::units::Millis;
use dayzero_model::wire::{Order, Report};
use dayzero_trust::{Channel, SecureBootKey, TrustError, WindowState};
use std::sync::Arc;
use std::time::Duration;

/// A boot window ends by itself after this, if nobody closes it.
const WINDOW: Millis = Millis(3_600_000);
/// An order that is answered at once.
const SHORT: Duration = Duration::from_secs(20);

/// Opens a window (or takes the open one up again), prepares the channel, sets one-time PXE and powers on.
pub(super) async fn discovery(control: &Arc<Control>, host: &HostName) -> Result<Delta, Cause> {
    let (_, planned) = control.planned(host)?;
    let _permit = control.bmc_limit.acquire().await.map_err(|_| stopping())?;
    let bmc = control.bmc(host).await?;
    let failed = |doing: &'static str| {
        let planned = planned.clone();
        move |error| bmc_cause(&planned, doing, &error)
    };
    let channel = match bmc.vouch_channel().await.map_err(failed("asking how it can vouch"))? {
        VouchChannel::VirtualMedia => Channel::VirtualMedia,
        VouchChannel::SerialOverLan => Channel::SerialOverLan,
        VouchChannel::None => return Err(no_channel(host)),
    };
    let (boot, nonce) = open(control, &planned, channel).await?;
    signed_files(control, host).await?;
    if bmc.power().await.map_err(failed("reading its power"))? != PowerState::Off {
        let off = bmc.set_power(PowerAction::ForceOff).await;
        control.tell_bmc(host, "power off", &off, "reads off");
        off.map_err(failed("powering off"))?;
    }
    match nonce {
        Some(nonce) => insert(control, &planned, bmc.as_ref(), boot, nonce).await?,
        None => control.tend_console(host),
    }
    enrol_site_key(control, &planned, bmc.as_ref()).await?;
    control.enrol_https_boot(&planned, bmc.as_ref()).await;
    let set = bmc.set_boot_once(BootTarget::Pxe, None).await;
    let read_back = set.as_ref().map(|o| o.observed.clone()).unwrap_or_default();
    control.tell_bmc(host, "one-time network boot", &set, &format!("reads {read_back}"));
    let set = set.map_err(failed("setting one-time network boot"))?;
    if !set.boots(BootTarget::Pxe) {
        let next = format!("check the BMC's boot settings, then `dayzero host retry {host}`");
        return Err(cause(
            "boot-override",
            "the one-time network boot does not read back",
            "Pxe, once",
            read_back,
            next,
        ));
    }
    let on = bmc.set_power(PowerAction::On).await;
    control.tell_bmc(host, "power on", &on, "reads on");
    on.map_err(failed("powering on"))?;
    let now = control.now();
    Ok(Box::new(move |facts| {
        if let Some(window) = facts.window.as_mut().filter(|window| window.window.boot == boot) {
            window.override_read_back = read_back;
            window.powered = Some(now);
        }
        if let Some(bmc) = &mut facts.bmc {
            bmc.power_on = true;
        }
    }))
}

/// What firmware loads under Secure Boot is made when the first host needs it; nobody powers on before it is served.
async fn signed_files(control: &Arc<Control>, host: &HostName) -> Result<(), Cause> {
    let facts = control.facts(host);
    if facts.and_then(|facts| facts.window.as_ref().map(|w| w.chain)).is_none_or(|chain| chain == Chain::Ipxe)
    {
        return Ok(());
    }
    control.secure_files().await.map_err(|reason| {
        let next = format!("{}, then `dayzero host retry {host}`", crate::secure::REMEDY);
        cause(
            "secure-boot-files",
            "what it would load under Secure Boot cannot be made",
            "signed files",
            reason,
            next,
        )
    })
}

/// Gives the firmware the site's certificate, where the plan wants our signature and the BMC shows that it is missing.
async fn enrol_site_key(
    control: &Arc<Control>,
    planned: &Host,
    bmc: &dyn dayzero_bmc::Bmc,
) -> Result<(), Cause> {
    let host = &planned.name;
    let told = control.facts(host).and_then(|facts| facts.bmc.as_ref().and_then(|bmc| bmc.secure_boot));
    let missing = told.is_some_and(|told| told.site_key == Some(false));
    let (Some(Chain::Uki), true) = (planned.secure_boot, missing) else { return Ok(()) };
    let Some(key) = control.secure_key().await else { return Ok(()) };
    let enrolled = bmc.enrol_secure_boot(&site_certificate(key)).await;
    control.tell_bmc(host, "enrol the site's Secure Boot certificate", &enrolled, "it is in the database");
    enrolled.map_err(|error| bmc_cause(planned, "enrolling the site's Secure Boot certificate", &error))?;
    let change = |facts: &mut dayzero_model::facts::HostFacts| {
        if let Some(told) = facts.bmc.as_mut().and_then(|bmc| bmc.secure_boot.as_mut()) {
            told.site_key = Some(true);
        }
    };
    control.step(host, change).await.map_err(store_cause(host, "recording the enrolment"))
}

/// The site's certificate, as a BMC is asked for it.
pub(super) fn site_certificate(key: &SecureBootKey) -> SiteCertificate {
    SiteCertificate { pem: key.certificate().to_owned(), common_name: key.common_name().to_owned() }
}

fn no_channel(host: &HostName) -> Cause {
    cause(
        "unvouched",
        "the BMC has no channel by which it could vouch for the host's key",
        "virtual media, or serial-over-LAN",
        "neither",
        format!("license or switch on one of the two on the BMC, then `dayzero host retry {host}`"),
    )
}

/// The window: recorded before anything is done, so that a crash in between takes it up again.
async fn open(
    control: &Arc<Control>,
    planned: &Host,
    channel: Channel,
) -> Result<(BootId, Option<Secret<String>>), Cause> {
    let host = &planned.name;
    let failed = |error: TrustError| system_cause(host, "opening a boot window", &error);
    let now = control.now();
    if let Some(window) = control.facts(host).and_then(|facts| facts.window.clone()) {
        let boot = window.window.boot;
        let known = control.enrolment.window(boot).map_err(failed)?;
        if known
            .is_some_and(|w| w.is_open(now) && w.channel == channel && matches!(w.state, WindowState::Open))
        {
            return Ok((boot, control.enrolment.nonce(boot).map_err(failed)?));
        }
    }
    let chain = boot::chain(planned.secure_boot, control.facts(host).and_then(|f| f.bmc.clone()).as_ref());
    let opened = control.enrolment.open_window(host, channel, now, WINDOW).await.map_err(failed)?;
    let window = BootWindow { boot: opened.boot, host: host.clone() };
    let window = WindowFacts { chain, channel: channel.to_string(), ..WindowFacts::new(window, now) };
    control
        .step(host, move |facts| facts.window = Some(window))
        .await
        .map_err(store_cause(host, "opening a boot window"))?;
    Ok((opened.boot, opened.nonce))
}

async fn insert(
    control: &Arc<Control>,
    planned: &Host,
    bmc: &dyn dayzero_bmc::Bmc,
    boot: BootId,
    nonce: Secret<String>,
) -> Result<(), Cause> {
    let host = &planned.name;
    let file = VouchFile { boot, nonce: nonce.expose().clone(), ca_sha256: control.ca.fingerprint() };
    let iso = write_iso(&file).map_err(|error| system_cause(host, "making the virtual medium", &error))?;
    let url = control.media_url(planned, iso).ok_or_else(|| {
        let next = format!("give the BMC network an `appliance` address in the plan and apply it, then `dayzero host retry {host}`");
        cause("plan-gap", "the appliance has no address on the BMC network", "an address", "none", next)
    })?;
    if let Err(error) = bmc.eject_media().await {
        tracing::debug!(%error, %host, "nothing to eject");
    }
    let inserted = bmc.insert_media(&url).await;
    control.tell_bmc(host, "insert the vouching medium", &inserted, "inserted");
    inserted.map_err(|error| bmc_cause(planned, "inserting the vouching medium", &error))
}

/// Clears what would boot instead of the disk, and restarts.
pub(super) async fn to_disk(control: &Arc<Control>, host: &HostName) -> Result<Delta, Cause> {
    let (_, planned) = control.planned(host)?;
    {
        let _permit = control.bmc_limit.acquire().await.map_err(|_| stopping())?;
        let bmc = control.bmc(host).await?;
        if let Err(error) = bmc.eject_media().await {
            tracing::debug!(%error, %host, "nothing to eject");
        }
        let now = bmc
            .boot_override()
            .await
            .map_err(|error| bmc_cause(&planned, "reading the boot override", &error))?;
        if now.boots(BootTarget::Pxe) {
            let cleared = bmc.set_boot_once(BootTarget::Disk, None).await;
            control.tell_bmc(
                host,
                "one-time disk boot",
                &cleared,
                "set, since the network boot was still there",
            );
            cleared.map_err(|error| bmc_cause(&planned, "clearing the network boot", &error))?;
        }
    }
    // A host may be back before anybody looks: what is waited for is the end of this very connection.
    let before = control.world.agents.connection(host);
    match control.world.agents.order(host, Order::Reboot, SHORT).await {
        // An agent that is already gone restarts.
        Ok(_) | Err(crate::world::AgentFault::Gone) => {}
        Err(fault) => return Err(agent_cause(host, "the restart", fault)),
    }
    if let Some(before) = before {
        control.world.agents.left(host, before).await;
    }
    Ok(Box::new(|_| {}))
}

/// Reads how the installed host was started, from the host itself, and the boot order from the BMC where it can tell it.
pub(super) async fn order(control: &Arc<Control>, host: &HostName) -> Result<Delta, Cause> {
    let doing = "reading how it was started";
    let started = match give(control, host, Order::StartReport, SHORT).await {
        Ok(Report::Started(report)) => *report,
        Ok(other) => return Err(agent_cause(host, doing, unexpected(&other))),
        Err(fault) => return Err(agent_cause(host, doing, fault)),
    };
    control.tell(host, What::Agent { message: started_text(&started) });
    let order = bmc_order(control, host).await?;
    let now = control.now();
    Ok(Box::new(move |facts| {
        facts.started = Some(started);
        facts.boot_order = order;
        facts.boot_order_at = Some(now);
    }))
}

/// The order as the BMC shows it; empty where it cannot. That the BMC fails is recorded and stops nothing: the host told it.
async fn bmc_order(control: &Arc<Control>, host: &HostName) -> Result<Vec<String>, Cause> {
    let _permit = control.bmc_limit.acquire().await.map_err(|_| stopping())?;
    let bmc = control.bmc(host).await?;
    let read = bmc.boot_order().await;
    let shown = match &read {
        Ok(order) if !order.is_empty() => format!("reads {}", order.join(", ")),
        _ => "the BMC cannot tell the order".to_owned(),
    };
    control.tell_bmc(host, "boot order", &read, &shown);
    Ok(read.unwrap_or_default())
}

fn started_text(report: &StartReport) -> String {
    let root = &report.root;
    let disk = root.serial.as_ref().unwrap_or(&root.kernel_name);
    let guid = root.disk_guid.as_deref().unwrap_or("none");
    let firmware = match (report.mode, &report.current) {
        (BootMode::Bios, _) => "BIOS".to_owned(),
        (BootMode::Uefi, Some(current)) => format!("UEFI's {current}"),
        (BootMode::Uefi, None) => "UEFI, which does not say by which entry".to_owned(),
    };
    let mut text = format!(
        "started from disk {disk} (partition table {guid}) by {firmware}; boot order: {}",
        report.order_text()
    );
    if !report.problems.is_empty() {
        text = format!("{text}; {}", report.problems.join("; "));
    }
    text
}
