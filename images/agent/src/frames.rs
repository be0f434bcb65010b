//! Frames of `model::wire` on a stream; the encoding is there.

use dayzero_model::wire;
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A broken stream of frames.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The connection ended or failed.
    #[error("connection: {0}")]
    Io(#[from] std::io::Error),
    /// What came, or was to go, is no frame.
    #[error(transparent)]
    Frame(#[from] wire::FrameError),
}

/// Reads one frame.
///
/// # Errors
/// [`StreamError`]; the stream cannot be used further.
pub async fn read<T: DeserializeOwned, R: AsyncRead + Unpin>(reader: &mut R) -> Result<T, StreamError> {
    let mut head = [0; 4];
    reader.read_exact(&mut head).await?;
    let mut body = vec![0; wire::body_length(head)?];
    reader.read_exact(&mut body).await?;
    Ok(wire::decode(&body)?)
}

/// Writes one frame and flushes it.
///
/// # Errors
/// [`StreamError`]; the stream cannot be used further.
pub async fn write<T: Serialize, W: AsyncWrite + Unpin>(
    writer: &mut W,
    message: &T,
) -> Result<(), StreamError> {
    writer.write_all(&wire::encode(message)?).await?;
    Ok(writer.flush().await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{FrameError, ToAgent};

    #[tokio::test]
    async fn a_frame_survives_the_stream_and_a_long_one_is_refused() {
        let mut bytes = Vec::new();
        write(&mut bytes, &ToAgent::Ping).await.unwrap();
        assert_eq!(read::<ToAgent, _>(&mut bytes.as_slice()).await.unwrap(), ToAgent::Ping);
        let mut long: &[u8] = &[0xff, 0xff, 0xff, 0xff, b'{'];
        let refused = read::<ToAgent, _>(&mut long).await;
        assert!(matches!(refused, Err(StreamError::Frame(FrameError::TooLong(0xffff_ffff)))));
        assert!(matches!(read::<ToAgent, _>(&mut &bytes[..3]).await, Err(StreamError::Io(_))));
    }
}
