//! `cargo xtask bench pxe`: the boot services beside their peers, each a process of its own in a namespace of its own,
//! loaded over veth from one client namespace.
//!
//! To add rows: a module with `rows(&mut Bench)`, called below; its servers by `Bench::ensure`, which starts what is
//! missing. What fails is a row that was not measured; the others go on.

mod dhcp;
mod dhcp_client;
mod dhcp_peers;
mod http;
mod http_client;
mod net;
mod ours;
mod peers;
mod process;
mod soak;
mod tftp;
mod tftp_client;

use super::Results;
use super::row::Row;
use crate::build;
use anyhow::{Context, Result, bail, ensure};
use dhcp_peers::Kea;
use net::{Net, Wire};
use ours::Files;
use process::{Groups, Server};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where files, configurations and logs of a run lie: on a disk, since the store's syncs are part of what is measured.
const WORK: &str = "/var/tmp/dayzero-bench";

/// A run: servers by name, and what was measured so far.
struct Bench {
    only: String,
    servers: BTreeMap<&'static str, (Wire, Server)>,
    groups: Groups,
    net: Net,
    files: Files,
    work: PathBuf,
    results: Results,
}

/// Measures the rows whose id begins with `only`.
pub fn rows(only: &str) -> Result<Results> {
    ensure!(nix::unistd::geteuid().is_root(), "network namespaces need root: run this as root");
    build::released()?;
    let work = PathBuf::from(WORK);
    std::fs::create_dir_all(&work)?;
    let mut bench = Bench {
        only: only.to_owned(),
        servers: BTreeMap::new(),
        groups: Groups::new()?,
        net: Net::new()?,
        files: Files::new(&work)?,
        work,
        results: Results::default(),
    };
    if bench.wants_any("dhcp.") {
        bench.ensure(&["ours"])?;
        dhcp::rows(&mut bench);
    }
    if bench.wants_any("tftp.") {
        bench.ensure(&["ours", "tftpd-hpa", "atftpd", "dnsmasq"])?;
        tftp::rows(&mut bench);
    }
    if bench.wants_any("http.") {
        bench.ensure(&["ours", "nginx"])?;
        http::rows(&mut bench);
    }
    if bench.wants_any("https.") {
        bench.ensure(&["ours", "nginx"])?;
        http::tls_rows(&mut bench);
    }
    if bench.wants_any("pxe.") {
        bench.ensure(&["ours"])?;
        soak::rows(&mut bench);
    }
    ensure!(
        !bench.results.rows.is_empty() || !bench.results.failed.is_empty(),
        "no row's id begins with '{only}'"
    );
    let results = std::mem::take(&mut bench.results);
    drop(bench);
    std::fs::remove_dir_all(WORK).with_context(|| WORK.to_owned())?;
    Ok(results)
}

impl Bench {
    /// Whether this row is asked for.
    fn wants(&self, id: &str) -> bool {
        id.starts_with(&self.only)
    }

    /// Whether some row of this group is asked for.
    fn wants_any(&self, group: &str) -> bool {
        self.only.starts_with(group) || group.starts_with(&self.only)
    }

    /// Starts what is not running yet.
    fn ensure(&mut self, names: &[&'static str]) -> Result<()> {
        for name in names {
            if self.servers.contains_key(name) {
                continue;
            }
            // Ours first: the plan has the addresses of the first wire.
            let wire = self.net.wire(name)?;
            let server = self.start(name, &wire)?;
            self.servers.insert(name, (wire, server));
        }
        Ok(())
    }

    fn start(&self, name: &str, wire: &Wire) -> Result<Server> {
        let (groups, files, work) = (&self.groups, &self.files, &self.work);
        match name {
            "ours" => ours::start(groups, wire, files, work),
            "tftpd-hpa" => peers::tftpd_hpa(groups, wire, files, work),
            "atftpd" => peers::atftpd(groups, wire, files, work),
            "dnsmasq" => peers::dnsmasq(groups, wire, files, work),
            "nginx" => peers::nginx(groups, wire, files, work),
            "kea-st" => dhcp_peers::kea(groups, "kea-st", wire, work, Kea::Single),
            "kea-mt" => dhcp_peers::kea(groups, "kea-mt", wire, work, Kea::Threads),
            "kea-tuned" => dhcp_peers::kea(groups, "kea-tuned", wire, work, Kea::Tuned),
            "dhcpd" => dhcp_peers::dhcpd(groups, wire, work),
            "dnsmasq-dhcp" => dhcp_peers::dnsmasq(groups, wire, work),
            other => bail!("there is no server '{other}'"),
        }
    }

    /// A server as new, with nothing stored, on the wire that it had.
    fn restart(&mut self, name: &'static str) -> Result<()> {
        let wire = match self.servers.remove(name) {
            Some((wire, _ended)) => wire,
            None => self.net.wire(name)?,
        };
        let server = self.start(name, &wire)?;
        self.servers.insert(name, (wire, server));
        Ok(())
    }

    fn wire(&self, name: &str) -> Result<&Wire> {
        Ok(&self.servers.get(name).with_context(|| format!("{name} does not run"))?.0)
    }

    fn server(&self, name: &str) -> Result<&Server> {
        Ok(&self.servers.get(name).with_context(|| format!("{name} does not run"))?.1)
    }

    /// Measures a row, if it is asked for; a failure is kept.
    fn attempt(&mut self, id: &str, measure: impl FnOnce(&mut Self) -> Result<()>) {
        if !self.wants(id) && !self.only.starts_with(id) {
            return;
        }
        self.say(&format!("{id} …"));
        if let Err(error) = measure(self) {
            self.say(&format!("{id} failed: {error:#}"));
            self.results.failed.push((id.to_owned(), format!("{error:#}")));
        }
    }

    fn push(&mut self, row: Row) {
        if self.wants(&row.id) {
            self.results.rows.push(row);
        }
    }

    fn say(&self, text: &str) {
        println!("{text}");
    }
}
