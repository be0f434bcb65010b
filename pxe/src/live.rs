//! What services tell of the plan, replaced while they run: networks, pools and names.
//!
//! Invariants: transfers, connections, sessions and leases go on; each message is answered by one plan, the one before or
//! this one; what needs other sockets is refused, and then nothing is changed.

use std::sync::Arc;

use crate::config::PxeConfig;
use crate::dhcp::lease::LeaseStore;
use crate::dhcp::networks::Networks;
use crate::dns::zone::{LiveZone, Zone};
use crate::opened::{Opened, opened};
use crate::server::StartError;

/// The way to tell services that run of another plan; clones are the same way.
#[derive(Clone)]
pub struct Live {
    pub(crate) opened: Arc<[Opened]>,
    pub(crate) networks: Arc<Networks>,
    pub(crate) zone: Option<LiveZone>,
    pub(crate) leases: Arc<dyn LeaseStore>,
}

impl Live {
    /// The plan of this configuration counts from now on, as far as [`PxeConfig::opens_as`] looks at it. One call at a time.
    ///
    /// # Errors
    /// [`StartError`]; all is as before then.
    pub async fn follow(&self, config: &PxeConfig) -> Result<(), StartError> {
        config.check_networks()?;
        if opened(config) != *self.opened {
            return Err(StartError::Sockets);
        }
        let leases = if self.networks.needs_leases(config) { self.leases.load().await? } else { Vec::new() };
        self.networks.follow(config, &leases);
        if let (Some(live), Some(zone)) = (&self.zone, Zone::new(&config.names)) {
            live.replace(zone);
        }
        let (networks, names) = (self.networks.all().len(), config.names.names.len());
        tracing::info!(networks, names, "the boot services follow the plan");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

    use dayzero_model::boot::{BootAction, Chain, Client};
    use dayzero_model::site::{AddressRange, NetworkRole};
    use dayzero_model::{HostName, Timestamp};
    use dhcproto::v4::{DhcpOption, Message, OptionCode};
    use dhcproto::{Decodable, Decoder};

    use super::*;
    use crate::config::tests::{config, interface};
    use crate::config::{Ipv4Prefix, Ipv6Prefix, LeasePool, ServedNetwork};
    use crate::dhcp::core::{Came, DhcpCore};
    use crate::dhcp::lease::MemoryLeases;
    use crate::dhcp::wire::Request;
    use crate::dhcp::wire::tests::datagram;
    use crate::dhcp6;
    use crate::dhcp6::wire::tests::{LINK_LOCAL, message, relayed};
    use crate::director::{BootDirector, PxeEvent, ScriptQuery, SeenClient};
    use crate::session::Sessions;

    const RELAY: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
    const NOW: Timestamp = Timestamp(1_000_000);
    const DISCOVER: (u8, &[u8]) = (53, &[1]);
    const REQUEST: (u8, &[u8]) = (53, &[3]);

    /// On the network behind the relay everybody is host1; elsewhere a stranger.
    struct Everybody;

    impl BootDirector for Everybody {
        fn client(&self, seen: &SeenClient) -> Client {
            let host: HostName = "host1".parse().unwrap();
            let address = Ipv4Addr::new(10, 88, 0, 11);
            match seen.network.as_str() {
                "far" => Client::Host { host, address, window: None, uuid: None, chain: Chain::Ipxe },
                _ => Client::Unknown,
            }
        }
        fn boot_script(&self, _: &ScriptQuery) -> BootAction {
            BootAction::Refuse
        }
        fn event(&self, _: PxeEvent) {}
    }

    fn prefix6(third: u16) -> Option<Ipv6Prefix> {
        Some(Ipv6Prefix { address: Ipv6Addr::new(0xfd77, 0, third, 0, 0, 0, 0, 0), len: 64 })
    }

    /// A management network with an open pool.
    fn plan(last: u8) -> PxeConfig {
        let mut mgmt = interface(NetworkRole::Management);
        let range = AddressRange { first: [10, 77, 0, 50].into(), last: [10, 77, 0, last].into() };
        mgmt.network.pool = Some(LeasePool { range, open: true });
        mgmt.network.prefix6 = prefix6(0);
        PxeConfig { interfaces: vec![mgmt], ..config() }
    }

    fn far() -> ServedNetwork {
        let prefix = Ipv4Prefix { address: Ipv4Addr::new(10, 88, 0, 0), len: 24 };
        let far = ServedNetwork::new("far".parse().unwrap(), NetworkRole::Management, prefix);
        ServedNetwork { relays: vec![RELAY], prefix6: prefix6(8), ..far }
    }

    struct Running {
        live: Live,
        four: DhcpCore,
        six: dhcp6::Core,
        leases: Arc<dyn LeaseStore>,
    }

    impl Running {
        fn of(config: &PxeConfig) -> Self {
            let leases: Arc<dyn LeaseStore> = Arc::new(MemoryLeases::default());
            let networks = Arc::new(Networks::new(config, &[]));
            let (mgmt, sessions) = (&config.interfaces[0], Sessions::default());
            let four =
                DhcpCore::new(mgmt, config, Arc::clone(&networks), Arc::new(Everybody), sessions.clone());
            let (director, told) = (Arc::new(Everybody), dhcp6::Told::default());
            let six = dhcp6::Core::new(
                mgmt,
                config,
                Arc::clone(&networks),
                vec![0, 3, 0, 1],
                told,
                director,
                sessions,
            );
            let opened = opened(config).into();
            let live = Live { opened, networks, zone: None, leases: Arc::clone(&leases) };
            Self { live, four, six, leases }
        }

        /// What a client is told: its address and domain.
        async fn ask(&self, options: &[(u8, &[u8])], relay: Option<Ipv4Addr>) -> Option<(Ipv4Addr, String)> {
            let mut packet = datagram(options);
            if let Some(relay) = relay {
                packet[3] = 1;
                packet[24..28].copy_from_slice(&relay.octets());
            }
            let to = relay.map_or(Ipv4Addr::BROADCAST, |_| Ipv4Addr::new(10, 77, 0, 2));
            let from = SocketAddrV4::new(relay.unwrap_or(Ipv4Addr::UNSPECIFIED), 67);
            let came = Came { from, to, boot_server: false };
            let handled = self.four.handle(&Request::parse(&packet).unwrap(), came, NOW);
            self.leases.commit(handled.change.into_iter().collect()).await.unwrap();
            let (bytes, _) = handled.reply?;
            let message = Message::decode(&mut Decoder::new(&bytes)).unwrap();
            let domain = match message.opts().get(OptionCode::DomainName) {
                Some(DhcpOption::DomainName(domain)) => domain.clone(),
                _ => String::new(),
            };
            Some((message.yiaddr(), domain))
        }

        /// Whether a SOLICIT by the relay's IPv6 address is answered.
        fn solicit(&self) -> bool {
            let (link, us) = (prefix6(8).unwrap().of(RELAY), prefix6(0).unwrap().of([10, 77, 0, 2].into()));
            let solicit = message(1, &[(1, &[0, 3, 0, 1, 2, 0, 0, 0, 0, 7]), (3, &[0; 12])]);
            let packet = relayed(link, LINK_LOCAL, &[], &solicit);
            let message = dhcp6::wire::Message::parse(&packet).unwrap();
            self.six.handle(&message, dhcp6::core::Came { from: link, to: us }, NOW).reply.is_some()
        }
    }

    #[tokio::test]
    async fn dhcp_that_runs_tells_the_new_plan_and_its_leases_stay() {
        let running = Running::of(&plan(50));
        let had = Ipv4Addr::new(10, 77, 0, 50);
        let offered = (had, "lab.example".to_owned());
        assert_eq!(running.ask(&[DISCOVER], None).await, Some(offered.clone()));
        let request = [REQUEST, (54, &[10, 77, 0, 2]), (50, &had.octets())];
        assert_eq!(running.ask(&request, None).await, Some(offered));
        assert!(
            running.ask(&[DISCOVER], Some(RELAY)).await.is_none() && !running.solicit(),
            "no relay of ours"
        );

        let mut after = plan(60);
        after.interfaces[0].network.domain = Some("new.example".into());
        after.relayed.push(far());
        running.live.follow(&after).await.unwrap();
        assert_eq!(running.ask(&[DISCOVER], None).await, Some((had, "new.example".to_owned())));
        let planned = Some((Ipv4Addr::new(10, 88, 0, 11), String::new()));
        assert_eq!(running.ask(&[DISCOVER], Some(RELAY)).await, planned);
        assert!(running.solicit());

        running.live.follow(&plan(60)).await.unwrap();
        assert!(
            running.ask(&[DISCOVER], Some(RELAY)).await.is_none() && !running.solicit(),
            "it is gone again"
        );
        assert_eq!(running.ask(&request, None).await, Some((had, "lab.example".to_owned())));
    }

    #[tokio::test]
    async fn what_cannot_be_followed_changes_nothing() {
        let running = Running::of(&plan(50));
        let mut moved = plan(60);
        moved.interfaces[0].address = [10, 77, 0, 3].into();
        let mut wrong = plan(60);
        wrong.relayed.push(ServedNetwork { relays: Vec::new(), ..far() });
        assert!(matches!(running.live.follow(&moved).await, Err(StartError::Sockets)));
        assert!(matches!(running.live.follow(&wrong).await, Err(StartError::Config(_))));
        let offered = running.live.networks.covering([10, 77, 0, 1].into()).unwrap();
        assert_eq!(offered.net.pool, plan(50).interfaces[0].network.pool);
    }
}
