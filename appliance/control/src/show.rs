//! Views of what the mirror holds.

use crate::control::{Control, HostRecord, Plan};
use crate::service::ServiceError;
use crate::view::{
    ClusterView, Health, HostSummary, HostView, RackView, StatusView, Todo, WhyFinding, WhyView,
};
use dayzero_model::condition::{Condition, Conditions, State};
use dayzero_model::facts::HostFacts;
use dayzero_model::ids::{HostName, MacAddr};
use dayzero_model::site::{BondMode, Network, Placed, Reservation};
use dayzero_model::units::{Millis, Timestamp};
use dayzero_timeline::{WhyContext, text};
use std::sync::Arc;

/// How far back `why` looks: the last boot is in it.
const WHY: Millis = Millis(3 * 3600 * 1000);

fn unknown_host(plan: Option<&Plan>, host: &str) -> ServiceError {
    let remedy = match plan {
        None => "apply a plan first".to_owned(),
        Some(plan) => {
            let names: Vec<_> =
                plan.site.hosts().take(20).map(|placed| placed.host.name.to_string()).collect();
            format!("the plan has {}", names.join(", "))
        }
    };
    ServiceError::NotFound { kind: "host", name: host.chars().take(80).collect(), remedy }
}

impl Control {
    /// The plan and a host's place in it.
    pub(crate) fn must_know(&self, host: &HostName) -> Result<Plan, ServiceError> {
        let plan = self.plan();
        match plan {
            Some(plan) if plan.site.host(host).is_some() => Ok(plan),
            other => Err(unknown_host(other.as_ref(), host.as_str())),
        }
    }

    pub(crate) fn record(&self, host: &HostName) -> HostRecord {
        let empty =
            || HostRecord { facts: Arc::default(), conditions: Arc::new(Conditions::new(self.now())) };
        self.mirror().hosts.get(host).cloned().unwrap_or_else(empty)
    }

    fn summary(&self, placed: &Placed<'_>, record: &HostRecord) -> HostSummary {
        let host = placed.host;
        let met = record.conditions.0.iter().filter(|c| matches!(c.state, State::Met { .. })).count();
        let (phase, health, detail, since, deadline) = match record.conditions.phase() {
            None => {
                let joined = record.conditions.get(Condition::Joined);
                let (evidence, since) =
                    joined.map_or((String::new(), Timestamp::default()), |joined| match &joined.state {
                        State::Met { evidence, .. } => (evidence.clone(), joined.since),
                        _ => (String::new(), joined.since),
                    });
                ("Joined".to_owned(), Health::Ready, evidence, since, None)
            }
            Some(phase) => {
                let name = phase.condition.to_string();
                match &phase.state {
                    State::Failed(cause) => {
                        let lost = cause.code == "host-lost";
                        let health = if lost { Health::Lost } else { Health::Failed };
                        (name, health, format!("{}: {}", cause.code, cause.sentence), phase.since, None)
                    }
                    State::Working { waits_for, deadline } => (
                        name,
                        Health::Working,
                        format!("waits for {waits_for}"),
                        phase.since,
                        Some(*deadline),
                    ),
                    _ => (name, Health::Working, "not begun".to_owned(), phase.since, None),
                }
            }
        };
        HostSummary {
            name: host.name.clone(),
            rack: host.rack.clone(),
            u: host.u,
            cluster: placed.cluster.name.clone(),
            phase,
            health,
            detail,
            since,
            deadline,
            progress: self.world.agents.progress(&host.name),
            met,
        }
    }

    pub(crate) fn status_view(&self) -> StatusView {
        let now = self.now();
        let asked = self.asked();
        let Some(plan) = self.plan() else {
            return StatusView { now, todo: asked, ..StatusView::default() };
        };
        let (mut racks, mut clusters, mut todo) = (Vec::new(), Vec::new(), asked);
        for pod in plan.site.zones.iter().flat_map(|zone| &zone.pods) {
            for rack in &pod.racks {
                let here = plan.site.hosts().filter(|p| p.pod.name == pod.name && p.host.rack == rack.name);
                let mut hosts: Vec<_> =
                    here.map(|placed| self.summary(&placed, &self.record(&placed.host.name))).collect();
                hosts.sort_by_key(|host| std::cmp::Reverse(host.u));
                racks.push(RackView {
                    name: rack.name.clone(),
                    pod: pod.name.clone(),
                    units: rack.units,
                    hosts,
                });
            }
            clusters.extend(pod.clusters.iter().map(|cluster| self.cluster_status(cluster)));
        }
        for placed in plan.site.hosts() {
            todo.extend(todo_of(&placed.host.name, &self.record(&placed.host.name)));
        }
        let mirror = self.mirror();
        todo.extend(mirror.ails.values().cloned());
        todo.sort_by_key(|todo| todo.since);
        let mut pending: Vec<_> = mirror.pending.values().cloned().collect();
        let known = |mac| planned_mac(&plan, mac) || mirror.vms.by_mac(mac).is_some();
        pending.retain(|pending| !known(pending.mac));
        pending.sort_by_key(|pending| std::cmp::Reverse(pending.last));
        StatusView {
            site: Some(plan.site.name.clone()),
            plan: Some(plan.hash),
            now,
            racks,
            todo,
            pending,
            clusters,
            vms: mirror.vms.values().cloned().collect(),
        }
    }

    fn cluster_status(&self, cluster: &dayzero_model::site::Cluster) -> ClusterView {
        let mirror = self.mirror();
        let joined = cluster.hosts.iter().filter_map(|host| {
            let record = mirror.hosts.get(&host.name)?;
            let capacity = record.facts.capacity.filter(|_| record.conditions.is_met(Condition::Joined))?;
            Some((host.name.clone(), capacity))
        });
        ClusterView {
            name: cluster.name.clone(),
            hypervisor: cluster.hypervisor,
            hosts: cluster.hosts.len(),
            joined: joined.collect(),
            elected: mirror.clusters.get(&cluster.name).and_then(|record| record.elected.clone()),
            vms: mirror.vms.values().filter(|vm| vm.cluster == cluster.name).count(),
        }
    }

    pub(crate) fn host_view(&self, host: &HostName, events: usize) -> Result<HostView, ServiceError> {
        let plan = self.must_know(host)?;
        let placed = plan.site.host(host).ok_or_else(|| unknown_host(Some(&plan), host.as_str()))?;
        let record = self.record(host);
        let all = self.timeline.of_host(host, Timestamp(0));
        let timeline = all[all.len().saturating_sub(events)..].to_vec();
        Ok(HostView {
            summary: self.summary(&placed, &record),
            hypervisor: placed.cluster.hypervisor,
            conditions: record.conditions.0.clone(),
            facts: HostFacts::clone(&record.facts),
            timeline_text: timeline.iter().map(text::line).collect(),
            timeline,
        })
    }

    /// The host of the plan that has this name, or a NIC or BMC with this MAC.
    pub(crate) fn host_of(&self, subject: &str) -> Option<HostName> {
        let plan = self.plan()?;
        let named = subject.parse::<HostName>().ok().filter(|host| plan.site.host(host).is_some());
        let with = |mac: MacAddr| {
            let its = |p: &Placed<'_>| p.host.bmc.mac == mac || p.host.nics().any(|(_, nic, _)| nic == mac);
            plan.site.hosts().find(its).map(|placed| placed.host.name.clone())
        };
        named.or_else(|| with(subject.parse().ok()?))
    }

    pub(crate) fn why_view(&self, subject: &str) -> Result<WhyView, ServiceError> {
        let plan = self.plan();
        if let (Some(host), Some(plan)) = (self.host_of(subject), &plan) {
            return Ok(self.why_host(plan, &host));
        }
        let mac: MacAddr = subject.parse().map_err(|_| unknown_host(plan.as_ref(), subject))?;
        let events = self.timeline.of_mac(mac, Timestamp(0));
        let context = WhyContext { now: self.now(), conditions: None, facts: None, lacp: false };
        Ok(answer(mac.to_string(), self.who(plan.as_ref(), mac), events, &context))
    }

    /// Who a MAC is that no host has, as a sentence.
    fn who(&self, plan: Option<&Plan>, mac: MacAddr) -> String {
        if let Some((network, one)) = plan.and_then(|plan| reservation(plan, mac)) {
            return format!(
                "{mac} is {}, with {} reserved on network {}",
                one.name, one.address, network.name
            );
        }
        let mirror = self.mirror();
        if let Some(vm) = mirror.vms.by_mac(mac) {
            let has = vm.address.map_or_else(|| "no address yet".to_owned(), |address| address.to_string());
            return format!("{mac} is VM {} of cluster {}, with {has}", vm.name, vm.cluster);
        }
        match mirror.pending.get(&mac) {
            Some(pending) => format!(
                "{mac} is not in the plan; it asked {} time(s) since {}, {}",
                pending.count, pending.first, pending.said
            ),
            None => format!("{mac} is not in the plan, and was not seen asking to boot"),
        }
    }

    /// The MACs of a host (NICs on its pod's bond, then its BMC), or the MAC itself.
    fn macs_of(&self, subject: &str) -> Result<Vec<MacAddr>, ServiceError> {
        let plan = self.plan();
        let host = subject.parse::<HostName>().ok();
        let placed = plan.as_ref().and_then(|plan| plan.site.host(&host?));
        match placed {
            Some(placed) => Ok(boot_macs(placed.host)),
            None => subject.parse().map(|mac| vec![mac]).map_err(|_| unknown_host(plan.as_ref(), subject)),
        }
    }

    /// The datagrams of a host or MAC as pcapng. Blocks.
    pub(crate) fn pcap_file(&self, subject: &str) -> Result<Vec<u8>, ServiceError> {
        let macs = self.macs_of(subject)?;
        let nothing = || {
            ServiceError::NotFound {
            kind: "recording of",
            name: subject.chars().take(80).collect(),
            remedy: "no datagram of it came since the appliance started, and no boot of it failed before; let it boot".to_owned(),
        }
        };
        self.timeline.pcapng(&macs)?.ok_or_else(nothing)
    }

    fn why_host(&self, plan: &Plan, host: &HostName) -> WhyView {
        let record = self.record(host);
        let placed = plan.site.host(host);
        let lacp = placed.is_some_and(|placed| placed.host.bond.mode == BondMode::Lacp);
        let now = self.now();
        let since = Timestamp(now.0.saturating_sub(WHY.0));
        let events = self.timeline.of_host(host, since);
        let context =
            WhyContext { now, conditions: Some(&record.conditions), facts: Some(&record.facts), lacp };
        let standing = placed.map_or_else(String::new, |placed| {
            let summary = self.summary(&placed, &record);
            format!("{host} is at {} since {}: {}", summary.phase, summary.since, summary.detail)
        });
        answer(host.to_string(), standing, events, &context)
    }
}

fn answer(
    subject: String,
    standing: String,
    events: Vec<dayzero_model::event::Event>,
    context: &WhyContext<'_>,
) -> WhyView {
    let findings = dayzero_timeline::why(&events, context).into_iter().map(|finding| WhyFinding {
        rule: finding.rule.to_owned(),
        hop: finding.hop.words().to_owned(),
        sentence: finding.sentence,
        evidence: finding.evidence,
        next_action: finding.next_action.into_owned(),
    });
    WhyView {
        subject,
        standing,
        findings: findings.collect(),
        text: events.iter().map(text::line).collect(),
        events,
    }
}

/// The MACs by which a host boots and its BMC gets its address.
pub(crate) fn boot_macs(host: &dayzero_model::site::Host) -> Vec<MacAddr> {
    host.bond.nics.iter().map(|nic| nic.mac).chain([host.bmc.mac]).collect()
}

/// Whether a host of the plan has that MAC, or its BMC, or whoever has an address by it.
pub(crate) fn planned_mac(plan: &Plan, mac: MacAddr) -> bool {
    plan.site.hosts().any(|p| p.host.bmc.mac == mac || p.host.nics().any(|(_, nic, _)| nic == mac))
        || reservation(plan, mac).is_some()
}

/// The reservation by that MAC, and its network.
fn reservation(plan: &Plan, mac: MacAddr) -> Option<(&Network, &Reservation)> {
    let all = plan.site.networks.iter().flat_map(|net| net.reservations.iter().map(move |one| (net, one)));
    all.into_iter().find(|(_, one)| one.mac == Some(mac))
}

/// What a host asks of a person.
fn todo_of(host: &HostName, record: &HostRecord) -> Vec<Todo> {
    let mut todo = Vec::new();
    if let Some(phase) = record.conditions.phase()
        && let State::Failed(cause) = &phase.state
    {
        todo.push(Todo {
            host: Some(host.clone()),
            code: cause.code.clone(),
            sentence: format!("{host} stopped at {}: {}", phase.condition, cause.sentence),
            evidence: vec![format!("expected: {}", cause.expected), format!("observed: {}", cause.observed)],
            next_action: cause.next_action.clone(),
            since: phase.since,
        });
    }
    let clones = dayzero_timeline::why::clones(&record.facts);
    if let Some(first) = clones.first() {
        let peers: std::collections::BTreeSet<_> = clones.iter().map(|key| key.peer.clone()).collect();
        let peers = peers.into_iter().collect::<Vec<_>>().join(", ");
        todo.push(Todo {
            host: Some(host.clone()),
            code: "clone-refused".to_owned(),
            sentence: format!(
                "{} key(s) were refused a certificate in the name of {host} (from {peers})",
                clones.len()
            ),
            evidence: Vec::new(),
            next_action: "find the machine that shows this host's MAC and is not it".to_owned(),
            since: first.at,
        });
    }
    todo
}
