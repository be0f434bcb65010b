//! Carries TCP connections from the root namespace into another: operators reach the console on loopback.
//!
//! Invariants: it listens where it is told and nowhere else; at most 64 connections at a time; it looks into no byte.

use crate::netns::Netns;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

const MOST: usize = 64;

/// Accepts on `listener` and connects each to `target` inside `netns`, until it is dropped.
pub async fn run(listener: TcpListener, netns: Arc<Netns>, target: SocketAddr) {
    let mut carried = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if carried.len() < MOST => accepted,
            Some(_ended) = carried.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                carried.spawn(carry(stream, netns.clone(), target));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the lab's forwarder was lost");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn carry(mut outer: TcpStream, netns: Arc<Netns>, target: SocketAddr) {
    let result = async {
        let mut inner = connect(&netns, target).await?;
        tokio::io::copy_bidirectional(&mut outer, &mut inner).await
    };
    if let Err(error) = result.await {
        tracing::debug!(%error, %target, "forwarded connection ended");
    }
}

/// A TCP connection made inside a namespace: a socket belongs to the namespace that it was made in.
pub async fn connect(netns: &Netns, target: SocketAddr) -> io::Result<TcpStream> {
    let domain = socket2::Domain::for_address(target);
    let made = netns.run("make a socket", || {
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    let socket = made.map_err(io::Error::other)?;
    TcpSocket::from_std_stream(socket.into()).connect(target).await
}

/// A TCP listener made inside a namespace.
pub fn listen(netns: &Netns, address: SocketAddr) -> io::Result<TcpListener> {
    let made = netns.run("listen", || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    TcpListener::from_std(made.map_err(io::Error::other)?)
}
