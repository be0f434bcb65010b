//! DHCPv6: a whole server, and a conversation with it.

use std::net::Ipv6Addr;
use std::sync::Arc;

use super::{NEAR, Stage, US, config, messages, prefix6};
use crate::dhcp::networks::Networks;
use crate::dhcp6::core::{ALL_AGENTS, Came};
use crate::dhcp6::wire::Message;
use crate::dhcp6::{Core, Told};
use crate::session::Sessions;

const DUID: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 2];
const CLIENT: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0x00ff, 0xfe77, 1);
const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3);
/// What an answer may have beyond its question: one address, a boot file's URL, our identifier, our name server, the domain.
const MORE: usize = 400;

/// A conversation of DHCPv6. `how` of each message: where it came to (two bits: all agents, us, all servers, us), from (two
/// bits: a client, the outermost relay's link, the relay's near address, a machine of the segment), and whose it is (three bits).
///
/// # Panics
/// If an answer is not what its client may have.
pub fn dhcp6(conversation: &[u8]) {
    let Some(config) = config() else { return };
    let Some(interface) = config.interfaces.first() else { return };
    let six =
        config.interfaces.iter().filter_map(|one| Some((one.device.clone(), one.address6()?))).collect();
    let (stage, told) = (Arc::new(Stage::new()), Told::on(interface, config, &six));
    let director = Arc::clone(&stage) as _;
    let networks = Arc::new(Networks::new(config, &[]));
    let core = Core::new(interface, config, networks, DUID.to_vec(), told, director, Sessions::default());
    for said in messages(conversation) {
        stage.set(said.how >> 4);
        let message = match Message::parse(said.datagram) {
            Ok(message) => message,
            Err(error) => {
                if let Some(broken) = Message::broken(said.datagram) {
                    let told = core.broken(&broken, Came { from: CLIENT, to: ALL_AGENTS }, &error);
                    assert!(told.reply.is_none() && told.events.len() == 2, "{told:?}");
                }
                continue;
            }
        };
        let outer = message.relays.first().map_or(CLIENT, |layer| layer.link);
        let from = match said.how >> 2 & 3 {
            0 => CLIENT,
            1 => outer,
            2 => prefix6(0).of(NEAR),
            _ => Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0x0a4d, 50),
        };
        let to = match said.how & 3 {
            0 => ALL_AGENTS,
            2 => ALL_SERVERS,
            _ => prefix6(0).of(US),
        };
        let handled = core.handle(&message, Came { from, to }, said.now);
        assert!(handled.events.len() <= 4, "{:?}", handled.events);
        let Some(reply) = handled.reply else { continue };
        assert!(reply.len() <= said.datagram.len() + MORE, "{} for {}", reply.len(), said.datagram.len());
        if message.relays.is_empty() {
            assert!(matches!(reply[0], 2 | 7) && reply[1..4] == said.datagram[1..4]);
            continue;
        }
        assert!(to != ALL_AGENTS && from != CLIENT, "{from} is no relay");
        assert_eq!(reply[0], 13, "it goes back by its relay");
        assert_eq!(reply[1..34], said.datagram[1..34], "hops, link and peer are as they came");
    }
}
