use std::sync::Mutex;

use dayzero_model::boot::{BootAction, Client};
use tokio::sync::Semaphore;

use super::*;
use crate::config::PxeConfig;
use crate::config::tests::{config, interface};
use crate::director::{ScriptQuery, SeenClient};
use dayzero_model::site::NetworkRole;

/// Keeps what it is told.
#[derive(Default)]
struct Keeper(Mutex<Vec<PxeEvent>>);

impl BootDirector for Keeper {
    fn client(&self, _: &SeenClient) -> Client {
        Client::Unknown
    }
    fn boot_script(&self, _: &ScriptQuery) -> BootAction {
        BootAction::Refuse
    }
    fn event(&self, event: PxeEvent) {
        self.0.lock().unwrap().push(event);
    }
}

/// A socket with room for so many answers, and the first octet of those that left.
#[derive(Clone)]
pub(super) struct Room(Arc<(Semaphore, Mutex<Vec<u8>>)>);

impl Room {
    fn of(answers: usize) -> Self {
        Self(Arc::new((Semaphore::new(answers), Mutex::default())))
    }

    fn leave(&self, answer: &Outgoing) -> usize {
        self.0.1.lock().unwrap().push(answer.bytes[0]);
        1
    }

    fn left(&self) -> Vec<u8> {
        self.0.1.lock().unwrap().clone()
    }

    pub(super) fn send_some(&self, answers: &[Outgoing]) -> io::Result<usize> {
        let room = self.0.0.try_acquire().map_err(|_| io::Error::from(io::ErrorKind::WouldBlock))?;
        room.forget();
        Ok(self.leave(&answers[0]))
    }

    pub(super) async fn wait(&self, answers: &[Outgoing]) -> io::Result<usize> {
        self.0.0.acquire().await.unwrap().forget();
        Ok(self.leave(&answers[0]))
    }
}

struct Stand {
    way: Arc<Way>,
    late: Late,
    director: Arc<Keeper>,
    frames: Room,
    routed: Room,
}

/// With a real port on loopback, and room for as many frames, routed and late answers.
async fn stand(room: usize, late: usize) -> Stand {
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let director = Arc::new(Keeper::default());
    let mut mgmt = interface(NetworkRole::Management);
    mgmt.address = Ipv4Addr::LOCALHOST;
    let networks = Arc::new(Networks::new(&PxeConfig { interfaces: vec![mgmt], ..config() }, &[]));
    let (frames, routed) = (Room::of(room), Room::of(room));
    let (to_macs, frames_late) = Lane::new(Exit::Room(frames.clone()), late);
    let (to_routed, routed_late) = Lane::new(Exit::Room(routed.clone()), late);
    let (port, port_late) = Lane::new(Exit::Port(Arc::clone(&socket)), late);
    let way = Way {
        frames: to_macs,
        routed: to_routed,
        port,
        socket,
        server: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 67),
        networks,
        told: Told::new("mgmt0", Arc::clone(&director) as _),
    };
    let late = vec![(Which::Frames, frames_late), (Which::Routed, routed_late), (Which::Port, port_late)];
    Stand { way: Arc::new(way), late, director, frames, routed }
}

const ALL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT);
const SOMEBODY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 11), CLIENT_PORT);

fn mac(n: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, n])
}

fn handled(n: u8, to: Destination) -> Handled {
    let what = What::DhcpOut { kind: "OFFER".into(), address: None, file: Some("x".into()) };
    let host = Some("host1".parse().unwrap());
    let event = PxeEvent { mac: Some(mac(n)), host, boot: None, what };
    Handled { reply: Some((vec![n], to)), events: vec![event], ..Handled::default() }
}

fn unsent(director: &Keeper) -> Vec<(u8, IpAddr, String)> {
    let events = director.0.lock().unwrap();
    let of = |event: &PxeEvent| match &event.what {
        What::DhcpUnsent { kind, to, error } => {
            assert!(kind == "OFFER" && event.host.is_some());
            Some((event.mac.unwrap().0[5], *to, error.clone()))
        }
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

/// The kernel refuses a broadcast on a socket that may not send one, as it refuses what a firewall or a route does not let
/// out: the others leave, and that one's client is not held to have been answered.
#[tokio::test]
async fn an_answer_that_cannot_leave_is_told_and_stops_no_other() {
    let Stand { way, director, .. } = stand(0, 8).await;
    let reader = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let std::net::SocketAddr::V4(at) = reader.local_addr().unwrap() else { panic!() };
    let (relay, all) = (Destination::Relay(at), Destination::Broadcast);
    way.send_all(vec![handled(1, relay), handled(2, all), handled(3, relay), handled(4, all)], 67);
    let mut got = [0; 8];
    for n in [1, 3] {
        assert_eq!((reader.recv(&mut got).await.unwrap(), got[0]), (1, n));
    }
    let told = unsent(&director);
    assert_eq!(told.iter().map(|(n, ..)| *n).collect::<Vec<_>>(), [2, 4]);
    for (_, to, error) in told {
        assert!(to == IpAddr::V4(*ALL.ip()) && error.contains("Permission denied"), "{error}");
    }
}

/// What has no room leaves when there is some, in its order, and nobody waits for it; what is too much is told.
#[tokio::test]
async fn a_socket_without_room_holds_up_neither_who_sends_nor_another_socket() {
    let Stand { way, mut late, director, frames, routed } = stand(2, 3).await;
    let (direct, far) = (Destination::Direct(mac(1), SOMEBODY), Destination::Routed(SOMEBODY));
    way.send_all((1..=7).map(|n| handled(n, direct)).collect(), 67);
    way.send_all(vec![handled(8, far)], 67);
    assert_eq!((frames.left(), routed.left()), (vec![1, 2], vec![8]));
    let told = unsent(&director);
    assert_eq!(told.iter().map(|(n, ..)| *n).collect::<Vec<_>>(), [6, 7], "{told:?}");
    assert!(told[0].2.contains("too many answers wait"), "{told:?}");
    let (which, answers) = late.remove(0);
    let of = Arc::clone(&way);
    let catching_up = tokio::spawn(async move { of.catch_up(which, answers).await });
    frames.0.0.add_permits(3);
    for _ in 0..1000 {
        if frames.left().len() == 5 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(frames.left(), [1, 2, 3, 4, 5]);
    frames.0.0.add_permits(1);
    way.send_all(vec![handled(9, direct)], 67);
    assert_eq!(frames.left(), [1, 2, 3, 4, 5, 9]);
    assert_eq!(unsent(&director).len(), 2);
    assert!(!catching_up.is_finished(), "it goes on");
    catching_up.abort();
}
