//! Frames of `dayzero-agent/1`: a length (u32, big endian) and that many bytes of JSON.

use dayzero_model::wire::MAX_FRAME;
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A broken stream of frames.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection ended or failed.
    #[error("connection: {0}")]
    Io(#[from] std::io::Error),
    /// Longer than allowed.
    #[error("a frame of {0} bytes is longer than {MAX_FRAME}")]
    TooLong(usize),
    /// Not understood.
    #[error("frame: {0}")]
    Json(#[from] serde_json::Error),
}

/// Reads one frame.
///
/// # Errors
/// [`FrameError`]; the stream cannot be used further.
pub async fn read<T: DeserializeOwned, R: AsyncRead + Unpin>(reader: &mut R) -> Result<T, FrameError> {
    let len = reader.read_u32().await? as usize;
    if len > MAX_FRAME {
        return Err(FrameError::TooLong(len));
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
}

/// Writes one frame and flushes it.
///
/// # Errors
/// [`FrameError`]; the stream cannot be used further.
pub async fn write<T: Serialize, W: AsyncWrite + Unpin>(
    writer: &mut W,
    message: &T,
) -> Result<(), FrameError> {
    let body = serde_json::to_vec(message)?;
    if body.len() > MAX_FRAME {
        return Err(FrameError::TooLong(body.len()));
    }
    let mut frame = Vec::with_capacity(body.len() + 4);
    frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
    frame.extend_from_slice(&body);
    writer.write_all(&frame).await?;
    Ok(writer.flush().await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dayzero_model::wire::ToAgent;

    #[tokio::test]
    async fn a_frame_survives_the_stream_and_a_long_one_is_refused() {
        let mut bytes = Vec::new();
        write(&mut bytes, &ToAgent::Ping).await.unwrap();
        assert_eq!(read::<ToAgent, _>(&mut bytes.as_slice()).await.unwrap(), ToAgent::Ping);
        let mut long: &[u8] = &[0xff, 0xff, 0xff, 0xff, b'{'];
        assert!(matches!(read::<ToAgent, _>(&mut long).await, Err(FrameError::TooLong(_))));
        assert!(matches!(read::<ToAgent, _>(&mut &bytes[..3]).await, Err(FrameError::Io(_))));
    }
}
