//! TFTP of the boot network: our loaders from memory, and what became of each transfer.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::sync::Arc;

use bytes::Bytes;
use dayzero_model::event::What;
use dayzero_tftp_server::{BindError, Event, EventKind, Limits, Listen, Lookup, Request, Server};
use tokio_util::sync::CancellationToken;

use crate::config::{Loaders, PxeConfig};
use crate::dhcp::serve::now;
use crate::director::{BootDirector, PxeEvent};
use crate::session::Sessions;

/// The TFTP service of all boot networks.
pub(crate) struct Tftp {
    server: Server,
    watch: Watch,
    files: BTreeMap<String, Bytes>,
}

struct Watch {
    loaders: Loaders,
    director: Arc<dyn BootDirector>,
    sessions: Sessions,
}

impl Tftp {
    pub(crate) fn bind(
        config: &PxeConfig,
        director: Arc<dyn BootDirector>,
        sessions: Sessions,
    ) -> Result<Self, BindError> {
        let listen: Vec<Listen> = config
            .interfaces
            .iter()
            .filter(|i| i.boots())
            .map(|i| Listen {
                address: SocketAddrV4::new(i.address, config.ports.tftp),
                iface: i.device.clone(),
                device: Some(i.device.clone()),
            })
            .collect();
        let server = Server::bind(&listen, Limits::default())?;
        let watch = Watch { loaders: config.loaders.clone(), director, sessions };
        Ok(Self { server, watch, files: config.tftp.clone() })
    }

    pub(crate) async fn run(self, cancel: CancellationToken) {
        let Self { server, watch, files } = self;
        let lookup = move |request: &Request| match files.get(&request.name) {
            Some(file) => Lookup::File(file.clone()),
            None => Lookup::NotFound,
        };
        server.run(lookup, move |event| watch.event(event), cancel).await;
    }
}

impl Watch {
    fn event(&self, event: Event) {
        let file = event.name.clone();
        let ended = |bytes, ms, error: Option<String>| What::TftpEnd { file: file.clone(), bytes, ms, error };
        let what = match event.kind {
            EventKind::Started { .. } => What::TftpStart { file: file.clone() },
            EventKind::Completed { bytes, elapsed, .. } => {
                if self.loaders.is_loader(&event.name) {
                    self.sessions.loader_fetched(*event.peer.ip(), now());
                }
                ended(bytes, u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX), None)
            }
            // It only asked for the size; the real request follows.
            EventKind::Aborted { after_oack: true, .. } => return,
            EventKind::Aborted { after_block, code, message, .. } => ended(
                0,
                0,
                Some(format!("client aborted after block {after_block}: {message} (code {code})")),
            ),
            EventKind::PortClosed { after_block } => {
                ended(0, 0, Some(format!("client's port closed after block {after_block}: it was reset?")))
            }
            EventKind::TimedOut { after_block: 0, block, .. } => ended(
                0,
                0,
                Some(format!(
                    "no acknowledgement of the first block ({block} bytes): a smaller MTU, or a filter, on the way?"
                )),
            ),
            EventKind::TimedOut { after_block, bytes, .. } => {
                ended(bytes, 0, Some(format!("client fell silent after block {after_block}")))
            }
            EventKind::Refused { code, message } => {
                ended(0, 0, Some(format!("refused: {message} (code {code})")))
            }
            EventKind::Busy => ended(0, 0, Some("too many transfers at once: it will ask again".to_owned())),
        };
        let known = self.sessions.who(*event.peer.ip());
        self.director.event(PxeEvent {
            interface: event.iface.to_string(),
            mac: known.mac,
            host: known.host,
            boot: known.boot,
            what,
        });
    }
}
