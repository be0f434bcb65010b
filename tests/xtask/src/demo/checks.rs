//! The checks. Each is a pure function of what was observed; its comment says in one line what makes it false.

use super::client::HostView;
use super::observed::{Observed, Seen};
use dayzero_model::condition::{Condition, State};
use dayzero_model::event::What;
use dayzero_model::facts::CredentialPhase;
use dayzero_model::ids::{Name, Wwn};
use dayzero_model::inventory::BootMode;
use dayzero_model::proof::{Break, Probe, ProofReport, Trial};
use dayzero_model::site::Placed;
use dayzero_model::vm::VmState;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    pub ok: bool,
    /// What was observed.
    pub evidence: String,
}

type Verdict = (bool, String);
type Judge = fn(&Observed) -> Verdict;

/// All checks, in order.
pub fn all(seen: &Observed) -> Vec<Check> {
    let judge: [(&str, Judge); 21] = [
        ("plan-checked", plan_checked),
        ("bmc-credential-rotated", credential_rotated),
        ("pxe-bios", |seen| pxe(seen, BootMode::Bios, "undionly.kpxe")),
        ("pxe-uefi", |seen| pxe(seen, BootMode::Uefi, "snponly.efi")),
        ("unknown-mac-pending", unknown_pending),
        ("inventory", inventory),
        ("vouched", vouched),
        ("clone-refused", clone_refused),
        ("profile-matched", |seen| met(seen, Condition::Matched)),
        ("cabling-matched", |seen| met(seen, Condition::Cabled)),
        ("image-verified", image_verified),
        ("bond", bond),
        ("storage-paths", storage_paths),
        ("failover-bond", |seen| failover(seen, Probe::Ping)),
        ("failover-storage", |seen| failover(seen, Probe::Writer)),
        ("proof-control", proof_control),
        ("joined", joined),
        ("vm-console", vm_console),
        ("sigkill-survived", sigkill),
        ("web-console", web_console),
        ("nothing-left", nothing_left),
    ];
    let check = |(name, judge): (&str, Judge)| {
        let (ok, evidence) = judge(seen);
        Check { name: name.to_owned(), ok, evidence }
    };
    judge.map(check).to_vec()
}

/// All of `hosts`, and at least one, with the sentences joined.
fn each(hosts: &[Seen], judge: impl Fn(&Seen) -> Verdict) -> Verdict {
    if hosts.is_empty() {
        return absent("any host");
    }
    let verdicts: Vec<Verdict> = hosts.iter().map(judge).collect();
    let text = hosts.iter().zip(&verdicts).map(|(host, (_, text))| format!("{}: {text}", host.name));
    (verdicts.iter().all(|(ok, _)| *ok), text.collect::<Vec<_>>().join("; "))
}

fn absent(what: &str) -> Verdict {
    (false, format!("{what} was not observed"))
}

/// False if the lab's plan has a diagnostic, or a plan with a fault does not end with 2 and name a line.
fn plan_checked(seen: &Observed) -> Verdict {
    let (good, bad) = (&seen.plan_good, &seen.plan_bad);
    let told = format!("{}{}", bad.stdout, bad.stderr);
    let first =
        told.lines().find(|line| !line.trim().is_empty()).unwrap_or("no diagnostic").trim().to_owned();
    let line = told.lines().find_map(|line| line.trim().strip_prefix("--> "));
    let placed = line.and_then(|place| place.split(':').nth(1)).is_some_and(|n| n.parse::<u32>().is_ok());
    let ok = good.code == Some(0) && bad.code == Some(2) && told.contains("DZ") && placed;
    (ok, format!("lab.yaml: exit code {:?}; with a fault: {:?}, \"{first}\"", good.code, bad.code))
}

/// False if a host is not at `FactoryDisabled`, or a foreign client still gets in with the factory credential.
fn credential_rotated(seen: &Observed) -> Verdict {
    let (phases, text) = each(&seen.hosts, |host| {
        let phase = host.view.facts.credential;
        (phase == CredentialPhase::FactoryDisabled, format!("{phase:?}"))
    });
    let refused =
        seen.factory.len() == seen.hosts.len() && seen.factory.iter().all(|(_, refused, _)| *refused);
    let tries: Vec<String> = seen
        .factory
        .iter()
        .map(|(host, _, said)| format!("{host} with the factory credential: {said}"))
        .collect();
    (phases && refused, format!("{text}; {}", tries.join("; ")))
}

/// False if no host of that firmware had a TFTP transfer of all bytes of our iPXE, and was vouched for after it.
fn pxe(seen: &Observed, mode: BootMode, file: &str) -> Verdict {
    let of_mode = seen
        .hosts
        .iter()
        .filter(|host| host.view.facts.inventory.as_ref().is_some_and(|i| i.boot_mode == mode));
    let size = seen.loaders.get(file);
    let transfer = |view: &HostView| {
        let vouched = view.facts.vouch.as_ref()?.at;
        view.timeline.iter().filter(|event| event.at < vouched).find_map(|event| match &event.what {
            What::TftpEnd { file: name, bytes, ms, error: None }
                if name.ends_with(file) && Some(bytes) == size =>
            {
                let after = vouched.since(event.at).0 / 1000;
                Some(format!("TFTP {name}: all {bytes} bytes in {ms} ms, vouched for {after} s later"))
            }
            _ => None,
        })
    };
    match of_mode.into_iter().find_map(|host| Some((&host.name, transfer(&host.view)?))) {
        Some((name, text)) => (true, format!("{name}: {text}")),
        None => absent(&format!("a complete TFTP transfer of {file} to a {mode:?} host that enrolled")),
    }
}

/// False if the stranger never asked, is not listed as pending, or got any answer.
fn unknown_pending(seen: &Observed) -> Verdict {
    let Some(s) = &seen.stranger else { return absent("a stranger") };
    let text =
        format!("{}: asked {} times, answered {} times, pending: {}", s.mac, s.asked, s.answered, s.pending);
    (s.pending && s.asked > 0 && s.answered == 0, text)
}

/// False if a host's report lacks CPUs, memory, a disk with serial and WWN, or NICs with slots.
fn inventory(seen: &Observed) -> Verdict {
    each(&seen.hosts, |host| {
        let Some(found) = &host.view.facts.inventory else { return absent("an inventory") };
        let disks = found.disks.iter().filter(|disk| disk.serial.is_some() && disk.wwn.is_some()).count();
        let nics = found.nics.iter().filter(|nic| nic.slot.is_some()).count();
        let ok = found.cpu.threads > 0
            && found.memory.0 > 0
            && disks > 0
            && nics >= 4
            && found.system.serial.is_some();
        let (threads, dimms, lldp) = (found.cpu.threads, found.dimms.len(), found.neighbours.len());
        (
            ok,
            format!(
                "{threads} threads, {}, {dimms} DIMMs, {disks} disks, {nics} NICs, {lldp} LLDP neighbours",
                found.memory
            ),
        )
    })
}

/// False if a host has no vouched key, or not both channels were used.
fn vouched(seen: &Observed) -> Verdict {
    let (all, text) = each(&seen.hosts, |host| match &host.view.facts.vouch {
        Some(vouch) => (true, format!("{} by {}", vouch.key, vouch.channel)),
        None => absent("a vouched key"),
    });
    let channels: BTreeSet<_> =
        seen.hosts.iter().filter_map(|host| Some(&host.view.facts.vouch.as_ref()?.channel)).collect();
    (all && channels.len() >= 2, text)
}

/// False if no key of the clone was refused, if the refused key is the vouched one, or if the clone says it enrolled.
fn clone_refused(seen: &Observed) -> Verdict {
    let Some(clone) = &seen.clone else { return absent("a clone") };
    let own =
        seen.hosts.iter().find(|host| host.name == clone.of).and_then(|host| host.view.facts.vouch.as_ref());
    let (Some(own), Some(refused)) = (own, clone.refused.first()) else { return absent("a refused key") };
    let enrolled = clone.console.contains("enrolled as");
    let ok = clone.refused.iter().all(|key| key.key != own.key) && !enrolled;
    (
        ok,
        format!(
            "clone of {}: key {} refused ({}); clone's console says enrolled: {enrolled}",
            clone.of, refused.key, refused.reason
        ),
    )
}

/// False if the condition is not met on every host.
fn met(seen: &Observed, condition: Condition) -> Verdict {
    each(&seen.hosts, |host| {
        match host
            .view
            .conditions
            .iter()
            .find(|record| record.condition == condition)
            .map(|record| &record.state)
        {
            Some(State::Met { evidence, .. }) => (true, evidence.clone()),
            Some(State::Failed(cause)) => (false, format!("{}: {}", cause.code, cause.sentence)),
            _ => absent(&format!("{condition}")),
        }
    })
}

/// False if a host did not verify every chunk of the manifest, or two hosts share a GUID, machine id, initiator name or
/// SSH key.
fn image_verified(seen: &Observed) -> Verdict {
    let (all, text) = each(&seen.hosts, |host| match &host.view.facts.install {
        Some(report) => {
            let text = format!(
                "{} chunks verified, {} of zeros, disk {}, GUID {}",
                report.chunks_verified, report.chunks_zero, report.disk, report.disk_guid
            );
            ((report.chunks_verified, report.chunks_zero) == seen.chunks && seen.chunks.0 > 0, text)
        }
        None => absent("an installation"),
    });
    let own = |pick: fn(&dayzero_model::install::InstallReport) -> String| {
        let values: BTreeSet<String> =
            seen.hosts.iter().filter_map(|h| h.view.facts.install.as_ref().map(pick)).collect();
        values.len() == seen.hosts.len()
    };
    let distinct = own(|r| r.disk_guid.clone())
        && own(|r| r.root_uuid.clone())
        && own(|r| r.machine_id.clone())
        && own(|r| r.initiator.clone())
        && own(|r| r.ssh_host_key.to_string());
    (
        all && distinct,
        format!("{text}; shared between hosts: {}", if distinct { "nothing" } else { "something" }),
    )
}

/// False if a bond has not the plan's mode, or one of the plan's legs is missing or not usable.
fn bond(seen: &Observed) -> Verdict {
    each(&seen.hosts, |host| {
        let Some(bond) = host.view.facts.network.as_ref().and_then(|network| network.bond.as_ref()) else {
            return absent("a bond");
        };
        let usable: BTreeSet<_> = bond.legs.iter().filter(|leg| leg.usable).map(|leg| leg.mac).collect();
        let partner = bond.partner.map_or(String::new(), |mac| format!(", LACP partner {mac}"));
        let text = format!("{} {} with {} usable legs{partner}", bond.name, bond.mode, usable.len());
        let Some(planned) = planned(seen, host).map(|placed| &placed.host.bond) else {
            return (false, format!("{text}; not in the plan"));
        };
        let mode = serde_json::to_value(planned.mode).is_ok_and(|mode| mode == bond.mode.as_str());
        let legs: BTreeSet<_> = planned.nics.iter().map(|nic| nic.mac).collect();
        (mode && legs.len() >= 2 && legs == usable, text)
    })
}

/// The host's place in the plan.
fn planned<'a>(seen: &'a Observed, host: &Seen) -> Option<Placed<'a>> {
    seen.site.as_ref()?.hosts().find(|placed| placed.host.name.as_str() == host.name)
}

/// False if a host has not each LUN of the plan as a device of its WWN, or one with an active path to fewer than all portals.
fn storage_paths(seen: &Observed) -> Verdict {
    let site = seen.site.iter();
    let luns: Vec<_> = site.flat_map(|site| &site.primary_storage).filter(|lun| lun.multipath).collect();
    each(&seen.hosts, |host| {
        let own = |storage: &Name| {
            let found = &host.view.facts.luns;
            found.iter().find(|lun| lun.storage.as_ref() == Some(storage))
        };
        let text = luns.iter().map(|planned| {
            let Some(lun) = own(&planned.name) else { return absent(planned.name.as_str()) };
            let device = lun.device.as_deref().unwrap_or("no device");
            let digits = |wwn: &Wwn| wwn.to_string().trim_start_matches("0x").to_owned();
            let same = planned.wwn.as_ref().is_some_and(|wwn| device.ends_with(&digits(wwn)));
            let active: BTreeSet<_> =
                lun.paths.iter().filter(|path| path.active).map(|path| path.portal).collect();
            let portals: BTreeSet<_> = planned.portals.iter().map(|portal| portal.address).collect();
            let shown: Vec<String> = active.iter().map(ToString::to_string).collect();
            (same && active.len() >= 2 && active == portals, format!("{device} over {}", shown.join(" and ")))
        });
        let (ok, text): (Vec<bool>, Vec<String>) = text.unzip();
        (!ok.is_empty() && ok.iter().all(|ok| *ok), text.join(", "))
    })
}

fn trials(host: &Seen, probe: Probe) -> Vec<&Trial> {
    let proof = host.view.facts.proof.as_ref();
    proof.map(|proof| proof.trials.iter().filter(|trial| trial.probe == probe).collect()).unwrap_or_default()
}

/// False if a leg or path was not broken both ways on each host, a bound was passed, a write failed or a block was wrong.
fn failover(seen: &Observed, probe: Probe) -> Verdict {
    each(&seen.hosts, |host| {
        let trials = trials(host, probe);
        let kinds: BTreeSet<(&str, &str)> = trials
            .iter()
            .map(|t| (t.path.as_str(), if t.how == Break::Cable { "cable" } else { "dead switch" }))
            .collect();
        let ok = kinds.len() >= 4
            && trials.iter().all(|t| t.held && t.gap <= t.bound && t.wrong_blocks == 0 && t.sent > 0)
            && (probe == Probe::Ping || trials.iter().all(|t| t.lost == 0 && t.read_back > 0));
        let text: Vec<String> = trials
            .iter()
            .map(|t| {
                let how = if t.how == Break::Cable { "cable" } else { "dead switch" };
                format!("{} {how} {} of {} ({})", t.path, t.gap, t.bound, t.bound_is)
            })
            .collect();
        (ok, if text.is_empty() { "no trial".to_owned() } else { text.join(", ") })
    })
}

/// False if no proof with one leg missing was run, it held, or it failed for another reason than traffic that stopped for
/// longer than its bound.
fn proof_control(seen: &Observed) -> Verdict {
    let text: Vec<String> = seen
        .controls
        .iter()
        .map(|(host, report)| {
            let why = report.refused.clone().unwrap_or_else(|| {
                let broken = stopped(report);
                broken.map_or("held".to_owned(), |t| format!("{}: gap {} of {}", t.path, t.gap, t.bound))
            });
            format!("{host} without a leg: {why}")
        })
        .collect();
    let fails = |report: &ProofReport| !report.held && report.refused.is_none() && stopped(report).is_some();
    (!seen.controls.is_empty() && seen.controls.iter().all(|(_, report)| fails(report)), text.join("; "))
}

/// A trial in which traffic stopped for longer than its bound.
fn stopped(report: &ProofReport) -> Option<&Trial> {
    report.trials.iter().find(|trial| !trial.held && trial.gap > trial.bound)
}

/// False if a host has no measured capacity, no kvm, or has not joined.
fn joined(seen: &Observed) -> Verdict {
    let (all, text) = met(seen, Condition::Joined);
    let kvm = seen.hosts.iter().all(|host| host.view.facts.capacity.is_some_and(|capacity| capacity.kvm));
    (all && kvm, text)
}

/// False if the console line lacks the VM's name, an address of the pool or the template's checksum, if no path was seen
/// inactive or the guest did not go on to read its disk while one was pulled, or if it is not shown lost once its host's
/// power was cut.
fn vm_console(seen: &Observed) -> Verdict {
    let Some(vm) = &seen.vm.vm else { return absent("a VM") };
    let line = vm.console.iter().rev().find(|line| line.contains("DAYZERO-VM") && line.contains("address="));
    let Some(line) = line else { return (false, format!("{:?}: {}; no console line", vm.state, vm.detail)) };
    let says =
        |key: &str| line.split_ascii_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    let address = says("address").unwrap_or_default();
    let own = says("name") == Some(vm.name.as_str())
        && vm.address.is_some_and(|known| known.to_string() == address)
        && says("disk-sha256") == Some(seen.vm.template_sha256.as_str());
    let state = |vm: &Option<dayzero_model::vm::Vm>| vm.as_ref().map(|vm| vm.state);
    let (before, during) = &seen.vm.ticks;
    let read = during.iter().filter(|tick| tick.number > *before && tick.readable).count();
    let through = state(&seen.vm.after_pull) == Some(VmState::Running)
        && seen.vm.inactive == 1
        && read >= 2
        && during.iter().all(|tick| tick.readable);
    let lost = state(&seen.vm.after_power_cut) == Some(VmState::Lost);
    let host = vm.host.as_ref().map_or("nowhere", |host| host.as_str());
    (
        own && through && lost,
        format!(
            "{line}; on {host}: {}; storage path pulled: {:?}, {} inactive, {read} reads of the disk since tick \
             {before}; power cut: {:?}",
            vm.why,
            state(&seen.vm.after_pull),
            seen.vm.inactive,
            state(&seen.vm.after_power_cut)
        ),
    )
}

/// False if the control plane was not killed during an installation, if afterwards a host is not shown or fell back (a
/// control plane that does not answer again ends the run).
fn sigkill(seen: &Observed) -> Verdict {
    let Some(s) = &seen.sigkill else { return absent("a kill during an installation") };
    let kept = !seen.hosts.is_empty()
        && s.before.len() == seen.hosts.len()
        && s.before.iter().all(|(host, met)| s.after.iter().any(|(name, now)| name == host && now >= met));
    (
        kept,
        format!(
            "killed while {}; answered again after {} ms; conditions met before {:?}, after {:?}",
            s.during, s.answered_ms, s.before, s.after
        ),
    )
}

/// False if the login failed, the phase on the open page did not change, or the page was loaded again.
fn web_console(seen: &Observed) -> Verdict {
    let Some(web) = &seen.web else { return absent("the console in a browser") };
    let ok = web.same_page && web.first != web.later && !web.first.is_empty();
    (
        ok,
        format!(
            "\"{}\": phase \"{}\", then \"{}\" on the same page: {}",
            web.title, web.first, web.later, web.same_page
        ),
    )
}

/// False if anything of ours was there after the tear-down that was not there before.
fn nothing_left(seen: &Observed) -> Verdict {
    match &seen.left {
        None => absent("the tear-down"),
        Some(left) if left.added.is_empty() => (
            left.compared > 0,
            format!(
                "{} namespaces, links, processes, mounts, loop devices and firewall rules, none of them new",
                left.compared
            ),
        ),
        Some(left) => (false, left.added.join("; ")),
    }
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
