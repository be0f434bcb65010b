//! A read-only TFTP server for network boot.
//!
//! Purpose: hand boot loaders to firmware, from memory, fast and without surprises: RFC 1350 with options of RFC
//! 2347, 2348 (blksize), 2349 (timeout, tsize) and 7440 (windowsize). `transfer` is the protocol without I/O,
//! `grant` judges requests, `engine` is a thread that serves, `server` what the caller sees. Invariants: nothing is
//! written, no directory is walked; each datagram from the network costs bounded time and memory, and no client holds a
//! place without end, nor all places ([`Limits`], [`Patience`]); a reply comes from the address that was asked, by the
//! interface it came in on. It does not know what a boot is: the caller says which file a name means, and hears what
//! became of it.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use dayzero_tftp_server::{Limits, Listen, Lookup, Server};
//! use tokio_util::sync::CancellationToken;
//!
//! let listen = Listen { address: "127.0.0.1:69".parse().unwrap(), iface: "lo".into(), device: None };
//! let server = Server::bind(&[listen], Limits::default())?;
//! let hello = bytes::Bytes::from_static(b"hello");
//! server
//!     .run(
//!         move |request| if request.name == "hello" { Lookup::File(hello.clone()) } else { Lookup::NotFound },
//!         |event| tracing::info!(?event),
//!         CancellationToken::new(),
//!     )
//!     .await?;
//! # Ok(())
//! # }
//! ```

mod awake;
mod burst;
mod engine;
#[doc(hidden)]
pub mod fuzzing;
mod grant;
mod name;
mod negotiate;
mod packet;
mod patience;
mod rtt;
mod server;
mod sockets;
mod table;
mod transfer;

pub use negotiate::{Caps, DEFAULT_BLOCK, LARGEST_BLOCK, Terms, negotiate};
pub use packet::{ErrorCode, Incoming, ReadRequest, Refusal, parse_incoming, parse_request};
pub use patience::Patience;
pub use server::{BindError, Event, EventKind, Limits, Listen, Lookup, Request, Server, Tapped};
pub use transfer::{Outcome, Send, Step, Transfer};
