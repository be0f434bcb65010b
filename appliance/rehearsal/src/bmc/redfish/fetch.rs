//! Fetching an image as the BMC does it: from inside its namespace, by plain HTTP, bounded.

use crate::bmc::Context;
use axum::body::Bytes;
use dayzero_model::media::{VouchFile, read_iso, write_iso};
use futures::StreamExt;
use hyper::Request;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// An image is this large at most.
const MAX_IMAGE: u64 = 1 << 30;
const CONNECT: Duration = Duration::from_secs(5);
const WHOLE: Duration = Duration::from_secs(60);

/// `http://A.B.C.D[:PORT]/PATH`: there is no name service on a BMC network.
fn parse(url: &str) -> Option<(SocketAddrV4, &str)> {
    let rest = url.strip_prefix("http://")?;
    let (host, _) = rest.split_once('/')?;
    let address = match host.parse() {
        Ok(address) => address,
        Err(_) => SocketAddrV4::new(host.parse().ok()?, 80),
    };
    let path = &rest[host.len()..];
    path.bytes().all(|b| b.is_ascii_graphic()).then_some((address, path))
}

/// Downloads `url` into a new file of the BMC's directory.
pub(super) async fn image(context: &Arc<Context>, url: &str, number: u32) -> io::Result<PathBuf> {
    let (address, path) =
        parse(url).ok_or_else(|| io::Error::other("the image must be at http://ADDRESS[:PORT]/PATH"))?;
    let file = context.spec.dir.join(format!("media-{number}.iso"));
    match tokio::time::timeout(WHOLE, download(context.clone(), address, path, &file)).await {
        Ok(Ok(())) => Ok(file),
        Ok(Err(error)) => {
            let _not_made = std::fs::remove_file(&file);
            Err(error)
        }
        Err(_) => {
            let _not_made = std::fs::remove_file(&file);
            Err(io::Error::other("the image did not arrive in time"))
        }
    }
}

/// Gives a medium of ours a nonce that nobody waits for; any other image stays as it is. Blocks, for 44 KiB.
pub(super) fn make_stale(file: &Path) -> io::Result<()> {
    let Ok(vouch) = read_iso(&std::fs::read(file)?) else { return Ok(()) };
    let stale = VouchFile { nonce: hex::encode(rand::random::<[u8; 32]>()), ..vouch };
    std::fs::write(file, write_iso(&stale).map_err(io::Error::other)?)
}

async fn download(context: Arc<Context>, address: SocketAddrV4, path: &str, file: &Path) -> io::Result<()> {
    let connect = move || {
        context.netns.run("connect for an image", || {
            let stream = std::net::TcpStream::connect_timeout(&address.into(), CONNECT)?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        })
    };
    let stream =
        tokio::task::spawn_blocking(connect).await.map_err(io::Error::other)?.map_err(io::Error::other)?;
    let stream = tokio::net::TcpStream::from_std(stream)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let request =
        Request::get(path).header("host", address.to_string()).header("user-agent", "dayzero-lab-bmc");
    let request = request.body(axum::body::Body::empty()).map_err(io::Error::other)?;
    let work = async {
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        if !response.status().is_success() {
            return Err(io::Error::other(format!("the image's server answers {}", response.status())));
        }
        let mut out = tokio::fs::File::create(file).await?;
        let mut body = axum::body::Body::new(response.into_body()).into_data_stream();
        let mut total = 0;
        while let Some(chunk) = body.next().await {
            let chunk: Bytes = chunk.map_err(io::Error::other)?;
            total += chunk.len() as u64;
            if total > MAX_IMAGE {
                return Err(io::Error::other("the image is larger than 1 GiB"));
            }
            out.write_all(&chunk).await?;
        }
        out.flush().await
    };
    tokio::select! {
        done = work => done,
        // The connection's own future makes progress beside the request, and ends before it only by an error.
        broken = connection => Err(io::Error::other(format!("the connection ended: {broken:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_medium_differs_by_its_nonce_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("medium.iso");
        let ours = VouchFile {
            boot: dayzero_model::BootId(7),
            nonce: "ab".repeat(32),
            ca_sha256: dayzero_model::Sha256([1; 32]),
        };
        std::fs::write(&file, write_iso(&ours).unwrap()).unwrap();
        make_stale(&file).unwrap();
        let stale = read_iso(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!((stale.nonce.len(), stale.nonce == ours.nonce), (64, false));
        assert_eq!(VouchFile { nonce: ours.nonce.clone(), ..stale }, ours);
        std::fs::write(&file, b"an installer").unwrap();
        make_stale(&file).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"an installer");
    }

    #[test]
    fn which_urls_a_bmc_takes() {
        assert_eq!(
            parse("http://10.77.9.2:8082/m/x.iso").unwrap(),
            ("10.77.9.2:8082".parse().unwrap(), "/m/x.iso")
        );
        assert_eq!(parse("http://10.77.9.2/x").unwrap().0.port(), 80);
        for bad in [
            "https://10.77.9.2/x",
            "http://name/x",
            "http://10.77.9.2",
            "file:///x",
            "http://10.77.9.2/a b",
            "",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
