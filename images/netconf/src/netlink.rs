//! One netlink connection whose task ends with it.

use crate::error::NetError;
use std::ops::Deref;
use tokio::task::JoinHandle;

/// An open route socket.
pub(crate) struct Netlink {
    handle: rtnetlink::Handle,
    task: JoinHandle<()>,
}

impl Netlink {
    /// Opens the socket; it must be called inside a tokio runtime.
    pub(crate) fn open() -> Result<Self, NetError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|e| NetError::io("opening a netlink socket", e))?;
        Ok(Self { handle, task: tokio::spawn(connection) })
    }
}

impl Deref for Netlink {
    type Target = rtnetlink::Handle;
    fn deref(&self) -> &rtnetlink::Handle {
        &self.handle
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}
