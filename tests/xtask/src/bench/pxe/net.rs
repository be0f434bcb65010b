//! The bench's wires: one client namespace, one namespace for each server, a veth pair between.
//!
//! Server `i` has 10.(80+i).0.2/16 on `mgmt0`; the client 10.(80+i).0.3, and 4,096 more addresses, 10.(80+i).16.0 and
//! up, which the server reaches through it (one neighbour entry, however many clients). Nothing else is on the wire.
//! Loss is dropped by nftables where a packet arrives, on both sides: many kernels have no netem, and a drop on the
//! way out would be told to the sender.

use crate::shell;
use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::net::Ipv4Addr;
use std::process::Command;

/// Beginning of the names of all our namespaces.
const PREFIX: &str = "dz-bench-";
/// The clients' namespace.
const CLIENTS: &str = "dz-bench-clients";

/// One server's wire.
#[derive(Clone, Debug)]
pub struct Wire {
    pub namespace: String,
    pub server: Ipv4Addr,
    index: u8,
}

impl Wire {
    /// The clients' own address on it, which plays their relay.
    pub fn relay(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 80 + self.index, 0, 3)
    }

    /// The `n`-th client's address, of 4,094.
    pub fn client(&self, n: usize) -> Ipv4Addr {
        let n = u16::try_from(n % 4094 + 1).unwrap_or(1);
        let [high, low] = n.to_be_bytes();
        Ipv4Addr::new(10, 80 + self.index, 16 + high, low)
    }

    /// Drops `per_thousand` of the UDP packets that arrive on either side, at random.
    pub fn lossy(&self, per_thousand: u32) -> Result<Lossy> {
        let sides =
            [(CLIENTS.to_owned(), format!("c{}", self.index)), (self.namespace.clone(), "mgmt0".to_owned())];
        for (namespace, device) in &sides {
            let rules = format!(
                "add table ip loss; add chain ip loss input {{ type filter hook input priority 0; }}; \
                 add rule ip loss input iifname {device} meta l4proto udp numgen random mod 1000 < {per_thousand} drop"
            );
            shell::read(Command::new("ip").args(["netns", "exec", namespace, "nft", &rules]))?;
        }
        Ok(Lossy { namespaces: sides.map(|(namespace, _)| namespace).to_vec() })
    }
}

/// Loss, until it is dropped.
pub struct Lossy {
    namespaces: Vec<String>,
}

impl Drop for Lossy {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            let _ = shell::ask(Command::new("ip").args([
                "netns",
                "exec",
                namespace,
                "nft",
                "delete table ip loss",
            ]));
        }
    }
}

/// All namespaces of a run; gone when it is dropped.
pub struct Net {
    wires: u8,
}

impl Net {
    /// The clients' namespace, after clearing what a killed run left.
    pub fn new() -> Result<Self> {
        clear();
        ip(&["netns", "add", CLIENTS])?;
        ip_inside(CLIENTS, &["link", "set", "lo", "up"])?;
        Ok(Self { wires: 0 })
    }

    /// A namespace for one more server.
    pub fn wire(&mut self, name: &str) -> Result<Wire> {
        let index = self.wires;
        self.wires += 1;
        let namespace = format!("{PREFIX}{name}");
        let (ours, net) = (format!("c{index}"), format!("10.{}", 80 + index));
        ip(&["netns", "add", &namespace])?;
        ip_inside(&namespace, &["link", "set", "lo", "up"])?;
        ip(&[
            "link", "add", &ours, "netns", CLIENTS, "type", "veth", "peer", "name", "mgmt0", "netns",
            &namespace,
        ])?;
        ip_inside(CLIENTS, &["addr", "add", &format!("{net}.0.3/16"), "dev", &ours])?;
        ip_inside(CLIENTS, &["link", "set", &ours, "up"])?;
        ip_inside(CLIENTS, &["route", "add", "local", &format!("{net}.16.0/20"), "dev", "lo"])?;
        ip_inside(&namespace, &["addr", "add", &format!("{net}.0.2/16"), "dev", "mgmt0"])?;
        ip_inside(&namespace, &["link", "set", "mgmt0", "up"])?;
        ip_inside(&namespace, &["route", "add", &format!("{net}.16.0/20"), "via", &format!("{net}.0.3")])?;
        Ok(Wire { namespace, server: Ipv4Addr::new(10, 80 + index, 0, 2), index })
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        clear();
    }
}

fn clear() {
    let said = shell::ask(Command::new("ip").args(["netns", "list"])).unwrap_or_default();
    for name in said.stdout.lines().filter_map(|line| line.split_ascii_whitespace().next()) {
        if name.starts_with(PREFIX) {
            let _ = shell::ask(Command::new("ip").args(["netns", "delete", name]));
        }
    }
}

fn ip(args: &[&str]) -> Result<()> {
    shell::read(Command::new("ip").args(args)).map(drop)
}

fn ip_inside(namespace: &str, args: &[&str]) -> Result<()> {
    shell::read(Command::new("ip").args(["-n", namespace]).args(args)).map(drop)
}

/// Runs `work` on a thread in the clients' namespace: its sockets are made there.
pub fn as_client<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    inside(CLIENTS, work)
}

/// Runs `work` on a thread in a namespace.
pub fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let path = format!("/run/netns/{namespace}");
            let file = File::open(&path).with_context(|| path.clone())?;
            setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {namespace}"))?;
            work()
        });
        thread.join().map_err(|_| anyhow!("the load generator panicked"))?
    })
}

/// A command that runs in the clients' namespace.
pub fn client_command(program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", CLIENTS, program]);
    command
}
