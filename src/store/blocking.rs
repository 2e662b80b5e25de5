//! Work that waits for a disk of this machine.

use std::io;

use tokio::task::spawn_blocking;

use super::error::StoreError;

/// Runs what waits for the disk off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    url: &str,
    action: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    let result = match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that shuts down cancels it.
            Err(_) => return Err(StoreError::Stopped),
        },
    };
    result.map_err(|source| StoreError::io(url, action, source))
}
