//! DHCP servers as peers, each with one pool of 61,000 addresses and without the checks that would slow them down.

use super::net::Wire;
use super::process::{Groups, Server};
use crate::packages;
use anyhow::{Context, Result};
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// How Kea is run.
#[derive(Clone, Copy)]
pub enum Kea {
    /// One thread.
    Single,
    /// Two threads, its default queue of 64.
    Threads,
    /// Two threads, a queue of 5,000, and a socket buffer of 8 MiB.
    Tuned,
}

fn pool(wire: &Wire) -> (Ipv4Addr, Ipv4Addr, Ipv4Addr) {
    let [a, b, ..] = wire.server.octets();
    (Ipv4Addr::new(a, b, 0, 0), Ipv4Addr::new(a, b, 16, 0), Ipv4Addr::new(a, b, 255, 250))
}

fn fresh(work: &Path, name: &str) -> Result<PathBuf> {
    let dir = work.join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Kea 2.x with its memory file, persistent.
pub fn kea(groups: &Groups, name: &'static str, wire: &Wire, work: &Path, how: Kea) -> Result<Server> {
    packages::install(&["kea-dhcp4-server"])?;
    let dir = fresh(work, name)?;
    let (net, first, last) = pool(wire);
    let (threads, queue) = match how {
        Kea::Single => (false, 64),
        Kea::Threads => (true, 64),
        Kea::Tuned => (true, 5000),
    };
    let config = serde_json::json!({ "Dhcp4": {
        "interfaces-config": { "interfaces": ["mgmt0"], "dhcp-socket-type": "udp" },
        "multi-threading": { "enable-multi-threading": threads, "thread-pool-size": 2, "packet-queue-size": queue },
        "lease-database": { "type": "memfile", "persist": true, "name": dir.join("leases.csv") },
        "valid-lifetime": 3600,
        "subnet4": [{ "subnet": format!("{net}/16"), "pools": [{ "pool": format!("{first} - {last}") }] }],
        "loggers": [{ "name": "kea-dhcp4", "severity": "ERROR", "output_options": [{ "output": "stdout" }] }],
    }});
    let file = dir.join("kea.json");
    fs::write(&file, serde_json::to_vec_pretty(&config)?)?;
    let buffer = matches!(how, Kea::Tuned).then(|| Buffer::raise(8 << 20)).transpose()?;
    let args = [
        format!("KEA_LOCKFILE_DIR={}", "none"),
        format!("KEA_PIDFILE_DIR={}", dir.display()),
        "kea-dhcp4".to_owned(),
        "-c".to_owned(),
        file.display().to_string(),
    ];
    let started = start(groups, name, wire, "/usr/bin/env", &args, &dir);
    drop(buffer);
    started
}

/// ISC dhcpd.
pub fn dhcpd(groups: &Groups, wire: &Wire, work: &Path) -> Result<Server> {
    packages::install(&["isc-dhcp-server"])?;
    let dir = fresh(work, "dhcpd")?;
    let (net, first, last) = pool(wire);
    let config = format!(
        "authoritative; ping-check false; default-lease-time 3600;\n\
         subnet {net} netmask 255.255.0.0 {{ range {first} {last}; }}\n"
    );
    fs::write(dir.join("dhcpd.conf"), config)?;
    fs::write(dir.join("leases"), "")?;
    let at = |name: &str| dir.join(name).display().to_string();
    let args = ["-4", "-f", "-q", "-cf", &at("dhcpd.conf"), "-lf", &at("leases"), "-pf", &at("pid"), "mgmt0"];
    start(groups, "dhcpd", wire, "/usr/sbin/dhcpd", &args.map(str::to_owned), &dir)
}

/// dnsmasq, without its ping check and its limit of 1,000 leases.
pub fn dnsmasq(groups: &Groups, wire: &Wire, work: &Path) -> Result<Server> {
    packages::install(&["dnsmasq-base"])?;
    let dir = fresh(work, "dnsmasq-dhcp")?;
    let (_, first, last) = pool(wire);
    let args = [
        "--keep-in-foreground".to_owned(),
        "--conf-file=/dev/null".to_owned(),
        "--port=0".to_owned(),
        "--user=root".to_owned(),
        "--no-ping".to_owned(),
        "--dhcp-authoritative".to_owned(),
        "--quiet-dhcp".to_owned(),
        "--dhcp-lease-max=70000".to_owned(),
        format!("--dhcp-range={first},{last},255.255.0.0,1h"),
        format!("--dhcp-leasefile={}", dir.join("leases").display()),
        "--log-facility=-".to_owned(),
        "--pid-file=".to_owned(),
    ];
    start(groups, "dnsmasq-dhcp", wire, "/usr/sbin/dnsmasq", &args, &dir)
}

fn start(
    groups: &Groups,
    name: &str,
    wire: &Wire,
    program: &str,
    args: &[String],
    dir: &Path,
) -> Result<Server> {
    let log = dir.join("log");
    let mut server = Server::start(groups, name, &wire.namespace, Path::new(program), args, &log)
        .with_context(|| format!("peer {name}"))?;
    server.wait_for_port(&wire.namespace, "udp", 67)?;
    Ok(server)
}

/// The receive buffer that sockets of other programs get, raised until it is dropped.
struct Buffer(String);

const DEFAULT: &str = "/proc/sys/net/core/rmem_default";

impl Buffer {
    fn raise(bytes: usize) -> Result<Self> {
        let before = fs::read_to_string(DEFAULT).context(DEFAULT)?;
        fs::write(DEFAULT, bytes.to_string()).context(DEFAULT)?;
        Ok(Self(before))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let _ = fs::write(DEFAULT, self.0.trim());
    }
}
