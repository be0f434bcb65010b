//! Listeners over the life of a plan: what goes on when another comes, and what is done when one ends by itself.

use super::rack::Rack;
use super::{open, site};
use crate::boot::Director;
use crate::control::Plan;
use crate::serve::{keep, pxe, pxe_config};
use crate::standing::Standing;
use dayzero_model::Sha256;
use dayzero_model::site::{DhcpMode, NetworkRole, Reservation, Site};
use dayzero_pxe::{Ipv4Prefix, Loaders, NameZone, Ports, PxeConfig, ServedInterface, ServedNetwork};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const US: Ipv4Addr = Ipv4Addr::LOCALHOST;

#[tokio::test(start_paused = true)]
async fn a_listener_that_ends_is_on_the_to_do_list_and_begins_again_after_a_pause() {
    let dir = tempfile::tempdir().unwrap();
    let control = open(dir.path(), &Rack::new(&site(1)));
    let tried = AtomicUsize::new(0);
    // It ends, fails, and serves at last.
    let serve = || {
        let before = tried.fetch_add(1, Ordering::Relaxed);
        assert!(before < 3, "it is tried without a pause");
        async move {
            match before {
                0 => Ok(()),
                1 => Err(std::io::Error::other("no such port")),
                _ => std::future::pending().await,
            }
        }
    };
    let keeping = keep(control.clone(), "lab".to_owned(), CancellationToken::new(), serve);
    tokio::pin!(keeping);
    let ails = || control.mirror().ails.get("lab").map(|todo| todo.sentence.clone());
    for (seconds, tries, want) in [
        (4, 1, Some("lab cannot run: it ended by itself")),
        (2, 2, Some("lab cannot run: no such port")),
        (6, 3, None),
    ] {
        assert!(timeout(Duration::from_secs(seconds), &mut keeping).await.is_err());
        assert_eq!((tried.load(Ordering::Relaxed), ails().as_deref()), (tries, want));
    }
}

fn reservation(name: &str, address: [u8; 4]) -> Reservation {
    let mac = "52:54:00:77:99:01".parse().ok();
    let (client_id, duid, circuit) = (None, None, None);
    Reservation { name: name.parse().unwrap(), address: address.into(), mac, client_id, duid, circuit }
}

fn network(site: &mut Site, role: NetworkRole) -> &mut dayzero_model::site::Network {
    site.networks.iter_mut().find(|network| network.role == role).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_adds_a_host_or_a_reservation_needs_no_other_socket() {
    let dir = tempfile::tempdir().unwrap();
    let control = open(dir.path(), &Rack::new(&site(2)));
    let config = |site: Site| {
        let standing = |network: &dayzero_model::site::Network| {
            let (network, address) = (network.clone(), network.appliance?);
            Some(Standing { device: format!("{}0", network.name), network, address })
        };
        let standings: Vec<Standing> = site.networks.iter().filter_map(standing).collect();
        pxe_config(&control, &Plan::new(site, Sha256([0; 32])), &standings)
    };
    let before = config(site(1));
    let host = config(site(2));
    assert!(before.opens_as(&host));
    assert!(host.names.names.len() > before.names.names.len(), "its name and its BMC's");
    let mut fixed = site(1);
    fixed.domain = "new.example".to_owned();
    network(&mut fixed, NetworkRole::Management).reservations.push(reservation("pdu1", [10, 77, 0, 200]));
    network(&mut fixed, NetworkRole::Guest).pool = None;
    network(&mut fixed, NetworkRole::Bmc).relays.push([10, 77, 9, 1].into());
    assert!(before.opens_as(&config(fixed)));
    let mut proxy = site(1);
    network(&mut proxy, NetworkRole::Management).dhcp = DhcpMode::Proxy;
    assert!(!before.opens_as(&config(proxy)));
    control.stop().await;
}

/// A port that nobody has just now, of TCP or of UDP.
fn free() -> u16 {
    loop {
        let port = TcpListener::bind((US, 0)).unwrap().local_addr().unwrap().port();
        if UdpSocket::bind((US, port)).is_ok() {
            return port;
        }
    }
}

/// DNS and HTTP boot on loopback, with the names of a plan; no DHCP, which needs rights.
fn on_loopback(ports: Ports, site: &Site) -> PxeConfig {
    let prefix = Ipv4Prefix { address: US, len: 8 };
    let network = ServedNetwork::new("mgmt".parse().unwrap(), NetworkRole::Management, prefix);
    let network = ServedNetwork { mode: DhcpMode::Off, dns: vec![US], ..network };
    let mut config = PxeConfig {
        interfaces: vec![ServedInterface { device: "lo".into(), address: US, network }],
        names: NameZone::planned(site),
        loaders: Loaders { bios: None, uefi_x64: None, ..Loaders::default() },
        ports,
        ..PxeConfig::default()
    };
    (config.boot.kernel, config.boot.initrd) = ("vmlinuz".to_owned(), "initrd.img".to_owned());
    config.boot.files = ["vmlinuz", "initrd.img"].map(|name| (name.to_owned(), name.into())).into();
    config
}

/// Whether DNS has an address for a host, once it answers.
async fn resolves(port: u16, host: &str, domain: &str) -> bool {
    let mut question = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [host].into_iter().chain(domain.split('.')) {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, 1, 0, 1]);
    let socket = tokio::net::UdpSocket::bind((US, 0)).await.unwrap();
    socket.connect((US, port)).await.unwrap();
    let mut answer = [0; 1500];
    for _ in 0..600 {
        // Refused, until somebody listens.
        let _ = socket.send(&question).await;
        if let Ok(Ok(length)) = timeout(Duration::from_millis(100), socket.recv(&mut answer)).await {
            assert!(length > 12 && answer[..2] == question[..2]);
            return answer[6..8] != [0, 0];
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no answer from DNS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boot_services_that_run_follow_each_plan() {
    let dir = tempfile::tempdir().unwrap();
    let control = open(dir.path(), &Rack::new(&site(2)));
    let ports = Ports { http: free(), https: free(), tftp: free(), dns: free(), ..Ports::default() };
    let (plans, end) = (watch::Sender::new(on_loopback(ports, &site(1))), CancellationToken::new());
    let director = Director::start(&control);
    let serving = tokio::spawn(pxe(control.clone(), director, plans.subscribe(), end.clone()));
    let domain = site(1).domain;
    assert!(resolves(ports.dns, "host1", &domain).await);
    assert!(!resolves(ports.dns, "host2", &domain).await);
    plans.send_replace(on_loopback(ports, &site(2)));
    for host in ["host2", "host2-bmc"] {
        let begun = Instant::now();
        while !resolves(ports.dns, host, &domain).await {
            assert!(begun.elapsed() < Duration::from_secs(60), "{host} was added to the plan");
        }
    }
    assert!(!serving.is_finished(), "it goes on");
    end.cancel();
    serving.await.unwrap().unwrap();
    control.stop().await;
}
