//! The appliance's addresses: those of `network.conf`, or, without that file, DHCP on every NIC.
//!
//! Invariants: a file with a fault sets nothing; with a file, a NIC that it does not name stays down. A NIC that appears
//! late is served late: all of it is looked at again every few seconds.

use super::Board;
use super::network_conf::{self, How, NicLine};
use dayzero_model::MacAddr;
use dayzero_netconf::dhcp::{self, State};
use dayzero_netconf::discovery::discovery_up;
use dayzero_netconf::observe::observe;
use dayzero_netconf::observed::{Link, Observed};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::watch;

const HOSTNAME: &str = "dayzero";
/// Pause between two looks at the links.
const PAUSE: Duration = Duration::from_secs(2);

/// What is wanted.
enum Wanted {
    /// No file: every NIC asks.
    AllDhcp,
    /// A sound file.
    Lines(Vec<NicLine>),
    /// A file with faults.
    Nothing,
}

/// Keeps the network as wanted, and the screen true; never ends.
pub(super) async fn keep(board: Rc<Board>, conf: &Path) {
    let mut keeper = Keeper { wanted: read(&board, conf), done: BTreeSet::new(), clients: BTreeMap::new() };
    loop {
        match observe().await {
            Ok(observed) => {
                keeper.serve(&board, &observed).await;
                keeper.show(&board).await;
            }
            Err(error) => board.fault("network", Some(format!("the network cannot be looked at: {error}"))),
        }
        keeper.pause().await;
    }
}

fn read(board: &Board, conf: &Path) -> Wanted {
    let bytes = match std::fs::read(conf) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let misnamed = conf.with_extension("conf.txt");
            if !misnamed.exists() {
                return Wanted::AllDhcp;
            }
            board.fault(
                "network.conf",
                Some("the file is named network.conf.txt: rename it to network.conf".to_owned()),
            );
            return Wanted::Nothing;
        }
        Err(error) => {
            board.fault("network.conf", Some(format!("network.conf cannot be read: {error}")));
            return Wanted::Nothing;
        }
    };
    match network_conf::parse(&bytes) {
        Ok(lines) => Wanted::Lines(lines),
        Err(faults) => {
            let mut said: Vec<String> = faults.iter().take(10).map(ToString::to_string).collect();
            said.push("no address of network.conf is set; correct the file, then restart".to_owned());
            board.fault("network.conf", Some(said.join("\n")));
            Wanted::Nothing
        }
    }
}

/// A DHCP client at work; it ends when dropped.
struct Client {
    state: watch::Receiver<State>,
    task: tokio::task::JoinHandle<()>,
}

struct Keeper {
    wanted: Wanted,
    /// Lines with a fixed address that is set.
    done: BTreeSet<usize>,
    clients: BTreeMap<MacAddr, Client>,
}

fn mac(link: &Link) -> Option<MacAddr> {
    link.permanent.or(link.mac)
}

impl Keeper {
    async fn serve(&mut self, board: &Board, observed: &Observed) {
        self.clients.retain(|_, client| !client.task.is_finished());
        match &self.wanted {
            Wanted::Nothing => {}
            Wanted::AllDhcp => {
                for nic in observed.physical().filter_map(mac) {
                    self.clients.entry(nic).or_insert_with(|| client(nic));
                }
            }
            Wanted::Lines(lines) => {
                for line in lines {
                    let fault = if observed.nic(line.mac).is_none() {
                        Some(format!(
                            "network.conf, line {}: no NIC has the MAC {}; this machine has {}",
                            line.line,
                            line.mac,
                            observed.macs()
                        ))
                    } else if let How::Fixed { address, gateway } = line.how {
                        match self.done.contains(&line.line) {
                            true => None,
                            false => match discovery_up(line.mac, address, gateway).await {
                                Ok(()) => {
                                    self.done.insert(line.line);
                                    None
                                }
                                Err(error) => Some(format!("network.conf, line {}: {error}", line.line)),
                            },
                        }
                    } else {
                        self.clients.entry(line.mac).or_insert_with(|| client(line.mac));
                        None
                    };
                    board.fault(&format!("network.conf/{}", line.line), fault);
                }
            }
        }
    }

    /// What the links look like now.
    async fn show(&self, board: &Board) {
        let Ok(observed) = observe().await else { return };
        let of = |link: &Link| {
            let own = observed.addresses.iter().filter(|address| address.link == link.index);
            own.map(|address| address.address).collect::<Vec<_>>()
        };
        let line = |link: &Link| {
            let name = format!("{} {}", link.name, mac(link).map(|mac| mac.to_string()).unwrap_or_default());
            let state =
                mac(link).and_then(|mac| self.clients.get(&mac)).map(|client| client.state.borrow().clone());
            let addresses: Vec<String> = of(link).iter().map(ToString::to_string).collect();
            let (text, from) = match (addresses.is_empty(), state) {
                (false, Some(_)) => (addresses.join(" "), " (dhcp)"),
                (false, None) => (addresses.join(" "), ""),
                (true, _) if !link.up => ("not in network.conf".to_owned(), ""),
                (true, _) if !link.carrier => (String::new(), ""),
                (true, Some(State::Asking { tries: 4.. })) => ("no DHCP server answers".to_owned(), ""),
                (true, Some(_)) => ("asks for an address".to_owned(), ""),
                (true, None) => ("no address".to_owned(), ""),
            };
            let cable = if link.up && !link.carrier { " no cable" } else { "" };
            format!("{name} {text}{from}{cable}").split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let nics = observed.physical().map(line).collect();
        let addresses = observed.physical().flat_map(of).map(|net| IpAddr::V4(net.addr())).collect();
        board.change(|view| (view.nics, view.addresses) = (nics, addresses));
    }

    /// Until something may have changed.
    async fn pause(&mut self) {
        let change = |client: &mut Client| {
            let mut state = client.state.clone();
            state.mark_unchanged();
            async move {
                if state.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let changes: Vec<_> = self.clients.values_mut().map(|client| Box::pin(change(client))).collect();
        let any = async {
            if changes.is_empty() {
                std::future::pending::<()>().await;
            }
            futures::future::select_all(changes).await;
        };
        let _quiet = tokio::time::timeout(PAUSE, any).await;
    }
}

fn client(mac: MacAddr) -> Client {
    let (sender, state) = watch::channel(State::Idle);
    let task = tokio::task::spawn_local(async move {
        match dhcp::keep(mac, HOSTNAME, sender).await {
            Ok(never) => match never {},
            Err(error) => tracing::warn!("DHCP on {mac}: {error}"),
        }
        // It is begun again after the keeper's next look.
        tokio::time::sleep(PAUSE).await;
    });
    Client { state, task }
}
