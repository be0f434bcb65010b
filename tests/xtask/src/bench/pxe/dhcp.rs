//! The DHCP rows: new clients only, since a client that comes again measures a server's memory, not its disk.
//!
//! Every run begins with a fresh server and an empty pool of 61,000 addresses. Ours has each lease on disk before its
//! ACK, as dhcpd and dnsmasq have; Kea does not wait for the disk.

use super::Bench;
use super::dhcp_client::{Load, Outcome, run};
use super::net::as_client;
use crate::bench::row::{About, Ask as Wanted, RUNS, compare};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::time::Duration;

const CLIENTS: usize = 10_000;
const OUTSTANDING: usize = 256;
/// A peer that is slower than this is measured by what it did until then.
const PATIENCE: Duration = Duration::from_secs(20);

const KEAS: [&str; 2] = ["kea-st", "kea-mt"];

/// Each server's outcomes with the CPU seconds that it took.
type Runs = BTreeMap<&'static str, Vec<(Outcome, f64)>>;

/// Measures what `only` asks for.
pub fn rows(bench: &mut Bench) {
    let rate = ["dhcp.new_leases", "dhcp.new_leases.isc", "dhcp.new_leases.dnsmasq", "dhcp.cpu"];
    if let Some(id) = rate.into_iter().find(|id| bench.wants(id)) {
        bench.attempt(id, new_leases);
    }
    bench.attempt("dhcp.storm", storm);
}

fn measure(bench: &mut Bench, id: &str, names: &[&'static str], outstanding: usize) -> Result<Runs> {
    let mut runs = Runs::new();
    for _ in 0..RUNS {
        for name in names {
            bench.restart(name)?;
            let (wire, server) = (bench.wire(name)?, bench.server(name)?);
            let load = Load {
                server: wire.server,
                relay: wire.relay(),
                first: 1,
                clients: CLIENTS,
                outstanding,
                patience: PATIENCE,
            };
            let before = server.cpu()?;
            let outcome = as_client(|| run(&load)).with_context(|| (*name).to_owned())?;
            let cpu = server.cpu()? - before;
            bench.say(&format!(
                "{id} {name}: {} leases in {:.2} s, {} sent again, {} NAKs, p50 {:.0} us, p99 {:.0} us, {:.1} CPU us each",
                outcome.leases,
                outcome.seconds,
                outcome.resent,
                outcome.naks,
                outcome.p50,
                outcome.p99,
                cpu * 1e6 / outcome.leases.max(1) as f64
            ));
            runs.entry(name).or_default().push((outcome, cpu));
        }
    }
    Ok(runs)
}

fn values(runs: &Runs, name: &str, of: impl Fn(&(Outcome, f64)) -> f64) -> Vec<f64> {
    runs.get(name).into_iter().flatten().map(of).collect()
}

fn peers(runs: &Runs, names: &[&str], of: impl Fn(&(Outcome, f64)) -> f64 + Copy) -> Vec<(String, Vec<f64>)> {
    names.iter().map(|name| ((*name).to_owned(), values(runs, name, of))).collect()
}

fn flawless(runs: &Runs) -> bool {
    runs.get("ours").is_some_and(|runs| runs.iter().all(|(o, _)| o.leases == CLIENTS && o.naks == 0))
}

fn new_leases(bench: &mut Bench) -> Result<()> {
    let names = ["ours", "kea-st", "kea-mt", "dhcpd", "dnsmasq-dhcp"];
    let runs = measure(bench, "dhcp.new_leases", &names, OUTSTANDING)?;
    let rate = |(outcome, _): &(Outcome, f64)| outcome.leases as f64 / outcome.seconds;
    let cpu = |(outcome, cpu): &(Outcome, f64)| cpu * 1e6 / outcome.leases.max(1) as f64;
    let what =
        format!("new leases, {CLIENTS} clients, {OUTSTANDING} outstanding, each on disk before its ACK");
    let good = flawless(&runs);
    for (id, against, ask) in [
        ("dhcp.new_leases", &KEAS[..], 1.0),
        ("dhcp.new_leases.isc", &["dhcpd"], 20.0),
        ("dhcp.new_leases.dnsmasq", &["dnsmasq-dhcp"], 20.0),
    ] {
        let about = About { id, what: what.clone(), unit: "1/s" };
        let (ours, others) = (values(&runs, "ours", rate), peers(&runs, against, rate));
        bench.push(compare(about, &ours, &others, Wanted::AtLeast(ask), good)?);
    }
    let about = About { id: "dhcp.cpu", what: format!("{what}: server CPU a lease"), unit: "us" };
    let (ours, others) = (values(&runs, "ours", cpu), peers(&runs, &KEAS, cpu));
    bench.push(compare(about, &ours, &others, Wanted::AtMost(1.0 / 3.0), good)?);
    Ok(())
}

fn storm(bench: &mut Bench) -> Result<()> {
    let names = ["ours", "kea-tuned", "kea-mt", "dnsmasq-dhcp"];
    let runs = measure(bench, "dhcp.storm", &names, CLIENTS)?;
    let seconds = |(outcome, _): &(Outcome, f64)| outcome.seconds;
    let what = format!(
        "{CLIENTS} clients that all send DISCOVER at once, until all hold a lease (a peer that is not done after {} s: that)",
        PATIENCE.as_secs()
    );
    let about = About { id: "dhcp.storm", what, unit: "s" };
    let (ours, others) = (values(&runs, "ours", seconds), peers(&runs, &names[1..], seconds));
    bench.push(compare(about, &ours, &others, Wanted::AtMost(0.4), flawless(&runs))?);
    Ok(())
}
