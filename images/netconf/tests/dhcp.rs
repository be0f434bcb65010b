//! The DHCP client against a foreign server, busybox `udhcpd`, over a pair of veth in two network namespaces of the test's
//! own: an address, its renewal, its end when the server is gone, and another address from the next server. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use dayzero_netconf::dhcp::{self, State};
use dayzero_netconf::observe::observe;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::sync::watch;

/// Only so that a client that never gets anywhere fails the test instead of hanging it.
const PATIENCE: Duration = Duration::from_secs(60);

struct Lab {
    names: [String; 2],
    dir: tempfile::TempDir,
    server: Option<Child>,
}

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Lab {
    fn new() -> Self {
        let names = ["client", "server"].map(|end| format!("dzt-dhcp-{}-{end}", std::process::id()));
        let lab = Self { names, dir: tempfile::tempdir().unwrap(), server: None };
        let [client, server] = &lab.names;
        ip(&["netns", "add", client]);
        ip(&["netns", "add", server]);
        ip(&["-n", client, "link", "add", "nic0", "type", "veth", "peer", "name", "srv0", "netns", server]);
        ip(&["-n", server, "addr", "add", "192.0.2.1/24", "dev", "srv0"]);
        ip(&["-n", server, "link", "set", "srv0", "up"]);
        lab
    }

    /// A server that gives this one address, for ten seconds at a time.
    fn serve(&mut self, address: &str) {
        let at = |name: &str| self.dir.path().join(format!("{address}.{name}"));
        let text = format!(
            "start {address}\nend {address}\ninterface srv0\nmin_lease 1\nlease_file {}\npidfile {}\n\
             opt subnet 255.255.255.0\nopt router 192.0.2.1\nopt lease 10\n",
            at("leases").display(),
            at("pid").display()
        );
        std::fs::write(at("leases"), "").unwrap();
        std::fs::write(at("conf"), text).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[1], "busybox", "udhcpd", "-f"]).arg(at("conf"));
        self.server = Some(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop();
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "delete", name]).output();
        }
    }
}

async fn bound(states: &mut watch::Receiver<State>) -> dhcp::Lease {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            states.changed().await.unwrap();
            if let State::Bound(lease) = *states.borrow_and_update() {
                return lease;
            }
        }
    });
    waited.await.unwrap_or_else(|_| panic!("no lease; last: {:?}", *states.borrow()))
}

async fn addresses() -> Vec<String> {
    let observed = observe().await.unwrap();
    observed.addresses.iter().map(|address| address.address.to_string()).collect()
}

async fn live(mut lab: Lab) {
    let mac = observe().await.unwrap().by_name("nic0").unwrap().mac.unwrap();
    lab.serve("192.0.2.50");
    let (sender, mut states) = watch::channel(State::Idle);
    let keeping = dhcp::keep(mac, "appliance", sender);
    let story = async {
        let first = bound(&mut states).await;
        assert_eq!(
            (first.address.to_string(), first.gateway),
            ("192.0.2.50/24".to_owned(), Some([192, 0, 2, 1].into()))
        );
        assert_eq!(addresses().await, ["192.0.2.50/24"]);
        let routes = observe().await.unwrap().routes;
        assert!(routes.iter().any(|route| route.gateway == first.gateway), "{routes:?}");
        assert_eq!(bound(&mut states).await.address, first.address, "renewed");
        lab.stop();
        let lost = states.wait_for(|state| matches!(state, State::Asking { tries: 1.. }));
        drop(tokio::time::timeout(PATIENCE, lost).await.expect("the lease must end").unwrap());
        assert_eq!(addresses().await, [""; 0], "an address outlives its lease");
        lab.serve("192.0.2.60");
        assert_eq!(bound(&mut states).await.address.to_string(), "192.0.2.60/24");
    };
    tokio::select! {
        failed = keeping => panic!("{failed:?}"),
        () = story => {}
    }
}

#[test]
fn a_foreign_server_s_address_is_kept_and_given_up() {
    let lab = Lab::new();
    let client = File::open(PathBuf::from("/run/netns").join(&lab.names[0])).unwrap();
    // A thread of its own: its namespace never comes back.
    let done = std::thread::spawn(move || {
        nix::sched::setns(client, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(live(lab));
    });
    if let Err(panic) = done.join() {
        std::panic::resume_unwind(panic);
    }
}
